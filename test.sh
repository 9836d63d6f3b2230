#!/bin/sh
# Build and run every test: ./test.sh [quick|debug|asan|tsan|system]...
#
#   debug    gcc, all tests: units, sweeps, crash rounds, hostile scenes, interoperation
#   asan     clang with AddressSanitizer and UBSan, all but some slow tests, fewer crash rounds
#   tsan     clang with ThreadSanitizer, quick tests and some crash rounds
#   system   gcc -O2 with the system's SQLite instead of the bundled one, quick tests
#
# Without arguments all four, in this order; `quick` is the quick tests of debug alone. What is
# missing on a Debian machine is installed first. The last line counts tests over all stages.
set -u
cd "$(dirname "$0")" || exit 1
stages=${*:-debug asan tsan system}
jobs=$(nproc)
slots=$((2 * jobs)) # of tests, see tests/CMakeLists.txt
# Slow, and with little in them that a sanitizer would see and does not see elsewhere.
twice='^(clients\.(compare|adapters|embedded|sync|replicas)|interop\..*|node\.s3_e2e|node\.replicate_e2e'
twice="$twice"'|hostile\.(page_sizes|long_readers|every_syscall)|crash\.s3|lin\.scenes'
twice="$twice"'|power\.lie_.*|cli\.probe)$'
# Not a second thread in it.
single='^fuzz\.|^(tidy.*|docs_fresh|lin\.check)$'
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0
timings=

# build PRESET [CMAKE-OPTION...]
build() {
    preset=$1
    shift
    echo "== $preset: build"
    cmake --preset "$preset" "$@" >"$log" 2>&1 && ninja -C "build/$preset" -j"$jobs" >>"$log" 2>&1 &&
        return 0
    grep -E 'error|Error|FAILED|warning' -A8 "$log" | head -60
    echo "$preset does not build"
    failed=$((failed + 1))
    return 1
}

# check PRESET CTEST-OPTION...
check() {
    preset=$1
    shift
    echo "== $preset: ctest $*"
    ctest --test-dir "build/$preset" -j"$slots" --output-on-failure --no-tests=error "$@" 2>&1 |
        tee "$log"
    counts=$(sed -n 's/^.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$log")
    if [ -z "$counts" ]; then
        failed=$((failed + 1))
    else
        failed=$((failed + ${counts% *}))
        passed=$((passed + ${counts#* } - ${counts% *}))
    fi
}

# stage NAME: run it and note the time.
stage() {
    start=$(date +%s)
    case $1 in
    quick)
        build debug && check debug -L quick
        ;;
    debug)
        build debug -DSLUICE_CRASH_ROUNDS=120 -DSLUICE_CRASH_S3_ROUNDS=24 && check debug
        ;;
    asan)
        build asan -DSLUICE_CRASH_ROUNDS=40 -DSLUICE_CRASH_S3_ROUNDS=12 &&
            check asan -L 'quick|push' -E "$twice"
        ;;
    tsan)
        export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp"
        build tsan -DSLUICE_CRASH_ROUNDS=20 && check tsan -L 'quick|threads' -E "$single"
        unset TSAN_OPTIONS
        ;;
    system)
        build system && check system -L quick
        ;;
    *)
        echo "test.sh: there is no stage '$1'; see the head of this file"
        exit 1
        ;;
    esac
    timings="$timings
  $1: $(($(date +%s) - start)) s"
}

tools/need cmake=cmake ninja=ninja-build gcc=gcc libc6-dev pkg-config=pkg-config liblz4-dev \
    libxxhash-dev libyaml-dev libjansson-dev libcurl4-openssl-dev libssl-dev \
    libexpat1-dev libssh-dev libnats-dev libmicrohttpd-dev libwslay-dev zlib1g-dev \
    libgnutls28-dev libedit-dev libcmocka-dev libsqlite3-dev npm=npm \
    sqlite3=sqlite3 curl=curl openssl=openssl clang=clang libclang-rt-14-dev || exit 1
# Real servers, for the tests of the stores; a test whose server is missing says so and is skipped.
case " $stages " in
*" debug "* | *" asan "*)
    tools/need sshd=openssh-server apache2=apache2-bin nats-server=nats-server radosgw=radosgw \
        ceph-mon=ceph-mon ceph-osd=ceph-osd ceph=ceph-common ||
        echo "test.sh: not all servers could be installed; the tests that need them are skipped"
    tests/servers/azure install || echo "test.sh: no azurite; its test is skipped"
    ;;
esac
for name in $stages; do
    stage "$name"
done
echo "Time:$timings"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
