# lib.sh -- helpers of the shell tests: a replica with two transactions, and checks.
#
# run ARGS...   runs $PROGRAM; its output is in $dir/out and $dir/err, its status in $rc
# is N          the status was N
# out / err TEXT          standard output or error is exactly TEXT (and a newline)
# out_has / err_has TEXT  it contains TEXT
set -u
unset LITESTREAM_CONFIG LOG_LEVEL LANGUAGE
export LC_ALL=C no_proxy='*'
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failures=0
checks=0

complain() {
    failures=$((failures + 1))
    echo "FAILED: sluice $shown: $1"
    echo "  status $rc"
    sed 's/^/  out: /' "$dir/out"
    sed 's/^/  err: /' "$dir/err"
}

run() {
    shown="$*"
    rc=0
    "$PROGRAM" "$@" >"$dir/out" 2>"$dir/err" </dev/null || rc=$?
}

check() {
    checks=$((checks + 1))
    "$@" || complain "expected: $what"
}

is() { what="status $1" && check test "$rc" -eq "$1"; }
out() { what="output '$1'" && check test "$(cat "$dir/out")" = "$1"; }
err() { what="errors '$1'" && check test "$(cat "$dir/err")" = "$1"; }
out_has() { what="output with '$1'" && check grep -qF -e "$1" "$dir/out"; }
err_has() { what="errors with '$1'" && check grep -qF -e "$1" "$dir/err"; }
holds() { what="$*" && check "$@"; }
fails() { is 1 && err "$1" && out ''; }

finish() {
    echo "$checks checks, $failures failed"
    [ "$failures" -eq 0 ]
    exit
}

mkdir -p rep/ltx/0 none
base64 -d >rep/ltx/0/0000000000000001-0000000000000001.ltx <<'END'
TFRYMQAAAAIAABAAAAAABAAAAAAAAAABAAAAAAAAAAEAAAGh+x1YlAAAAAAAAAAAAAAAAAAAACAAAAAAAABAYOAb20
IeSxGWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAQAAAPH2ElNRTGl0ZSBmb3JtYXQgMwAQAAICAEAg
IAAAAAMAAAAEAAEADBAAFQEaAA8CAAf/BAMALo36DQAAAAMPGAAP3w9wDxgtAAcPAgD//////////////////4f8Dl
YDBhctLQFhdGFibGVfbGl0ZXN0cmVhbV9sb2NrEADsBENSRUFURSBUQUJMRSAeAP0HIChpZCBJTlRFR0VSKW0CBxcr
KwGBEVkAOHNlcWgAT3NlcQNXAAY4c2VxVgD1AiBQUklNQVJZIEtFWSwgc2VxbwDwAR8BBhcPDwEvdGFibGV0dAJSAN
BURSBUQUJMRSB0KHgpAAAAAgABAAAAL88NAAAAAQ/8AA/8AAACAP///////////////////+AAAgDAAAAAAAAAAAAC
AQIJAAAAAwABAAAALo8NAAAAABAAAAIA////////////////////4AACAAACAMAAAAAAAAAAAAAAAAAAAAAEAAEAAA
Aujw0AAAAAEAAAAgD////////////////////gAAIAAAIAwAAAAAAAAAAAAAAAAAAAAAAAAAFk+wEC3wI5A5gDOATQ
AzgAAAAAAAAAABEAAAAAAAAAAKW4u+kZbKhH
END
base64 -d >rep/ltx/0/0000000000000002-0000000000000002.ltx <<'END'
TFRYMQAAAAIAABAAAAAABAAAAAAAAAACAAAAAAAAAAIAAAGh+x1YsQAAAAAAAAAAAAAAAAAAACAAAAAAAAAQGMPvZW
FT6cm8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAQAAAPH2ElNRTGl0ZSBmb3JtYXQgMwAQAAICAEAg
IAAAAAMAAAAEAAEADBAAFQEaAA8CAAf/BAMALo36DQAAAAMPGAAP3w9wDxgtAAcPAgD//////////////////4f8Dl
YDBhctLQFhdGFibGVfbGl0ZXN0cmVhbV9sb2NrEADsBENSRUFURSBUQUJMRSAeAP0HIChpZCBJTlRFR0VSKW0CBxcr
KwGBEVkAOHNlcWgAT3NlcQNXAAY4c2VxVgD1AiBQUklNQVJZIEtFWSwgc2VxbwDwAR8BBhcPDwEvdGFibGV0dAJSAN
BURSBUQUJMRSB0KHgpAAAAAgABAAAAL98NAAAAAg/3AA/8D/cAAQD////////////////////h4AAAAAAAAwICAQIC
AQIJAAAAAwABAAAAL88NAAAAAQ/7AA/7AAACAP///////////////////+AAAgDAAAAAAAAAAAMBAwAJAAAABAABAA
AALo8NAAAAABAAAAIA////////////////////4AACAAACAMAAAAAAAAAAAAAAAAAAAAAAAAABZPsBAt8COQOYAzkE
0QM4AAAAAAAAAAARAAAAAAAAAACnSJm0tvsbaA==
END
touch -d 2026-01-02T03:04:05Z rep/ltx/0/0000000000000001-0000000000000001.ltx
touch -d 2026-01-02T03:05:06Z rep/ltx/0/0000000000000002-0000000000000002.ltx

cat >config.yml <<END
dbs:
  - path: $dir/app.db
    replica:
      path: $dir/rep
  - path: $dir/two.db
    replica:
      url: s3://bucket/two
END
