#!/bin/sh
# The proof must be able to fail: a good copy passes; one with a damaged page, with rows that do not
# match their hash, or that the log does not know does not. The database goes through all modes and page sizes first.
set -eu
writer=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

fail() {
    echo "FAILED: $*"
    exit 1
}

seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
echo "seed ${SLUICE_SEED:=$seed}"
for mode in mix auto batch big ddl vacuum; do
    "$writer" "$mode.db" --log "$mode.log" --seed "$SLUICE_SEED" --mode $mode --ops 60 \
        --page-size 1024 --auto-vacuum incremental --checkpoint mixed || fail "mode $mode"
    "$writer" --verify "$mode.db" --log "$mode.log" || fail "verify $mode"
done
for size in 512 4096 65536; do
    "$writer" "$size.db" --log "$size.log" --seed "$SLUICE_SEED" --ops 60 --page-size $size \
        --auto-vacuum full --autocheckpoint 20 --readers 2 --hold 20 || fail "page size $size"
    "$writer" --verify "$size.db" --log "$size.log" || fail "verify page size $size"
done

# Two writers share one database and one log. (Who makes the database must not race: SQLite's switch
# to WAL waits for nobody.)
"$writer" two.db --log two.log --seed 1 --ops 1 || fail "first commit"
"$writer" two.db --log two.log --seed 1 --ops 150 &
one=$!
"$writer" two.db --log two.log --seed 1 --ops 150 || fail "second writer"
wait $one || fail "first writer"
"$writer" --verify two.db --log two.log || fail "two writers"

must_fail() {
    if "$writer" --verify "$1" --log "$2"; then fail "$3 was not noticed"; fi
}
cp 4096.db bad.db
dd if=/dev/urandom of=bad.db bs=4096 seek=2 count=1 conv=notrunc 2>/dev/null
must_fail bad.db 4096.log "a damaged page"
cp 4096.db bad.db
sqlite3 bad.db 'UPDATE acked SET hash = hash + 1'
must_fail bad.db 4096.log "rows that do not match their hash"
grep -v "^C $(sqlite3 4096.db 'SELECT seq FROM acked') " 4096.log >short.log
must_fail 4096.db short.log "a commit that the log does not know"
sed 's/^\(C [0-9]* \)[0-9a-f]*/\10123456789abcdef/' 4096.log >other.log
must_fail 4096.db other.log "content that the writer never meant"
must_fail missing.db 4096.log "a missing copy"
echo "writer proof: good copies pass, bad ones do not"
