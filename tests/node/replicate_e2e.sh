# replicate_e2e.sh PROGRAM LIB -- `sluice replicate` as its users run it: signals, commands, full
# disks, missing rights. What cannot be done here is skipped with a message.
#
# daemon ARGS...   start $PROGRAM replicate ARGS in the background; its output goes to $dir/log
# stop [SIGNAL]    end it; its status is in $rc
# soon COMMAND...  the command succeeds within a minute, on a machine that is busy
PROGRAM=$1
. "$2"
if ! command -v sqlite3 >/dev/null; then
    echo 'there is no sqlite3 program here, skipping'
    exit 77
fi
pid=
rc=0
mounts=
others=
cleanup() {
    for p in $pid $others; do kill -9 "$p" 2>/dev/null; done
    for m in $mounts; do umount -l "$m" 2>/dev/null; done
    rm -rf "$dir"
}
trap cleanup EXIT
: >out
: >err
rep=file://$dir/copy

daemon() {
    shown="replicate $*"
    "$PROGRAM" replicate "$@" >"$dir/log" 2>&1 </dev/null 7>&- &
    pid=$!
}
stop() {
    kill "-${1:-TERM}" "$pid"
    ended
}
ended() {
    rc=0
    wait "$pid" || rc=$?
    pid=
    cp "$dir/log" "$dir/out"
}
soon() {
    what="soon: $*"
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && check true && return
        sleep 0.1
    done
    cp "$dir/log" "$dir/out"
    check false
}
log_has() { grep -qF -e "$1" "$dir/log"; }
sql() { sqlite3 -cmd '.timeout 5000' "$@" >"$dir/sql.out" 2>&1; }
fresh() { # a database with one row
    rm -rf app.db* .app.db-sluice copy meta
    sql app.db 'PRAGMA journal_mode=wal; CREATE TABLE t(v); INSERT INTO t VALUES(1)'
}
# The replica gives back the rows of app.db.
same() {
    rm -f back.db*
    "$PROGRAM" restore -o back.db "$rep" >/dev/null 2>&1 || return 1
    sqlite3 app.db 'SELECT v FROM t ORDER BY rowid' >rows1 &&
        sqlite3 back.db 'SELECT v FROM t ORDER BY rowid' >rows2 && cmp -s rows1 rows2
}
config() { # lines for the database
    printf 'shutdown-sync-timeout: 400ms\nshutdown-sync-interval: 50ms\ndbs:\n  - path: %s\n' \
        "$dir/app.db" >app.yml
    for line in "$@"; do printf '    %s\n' "$line" >>app.yml; done
}
slow="replica: {path: $dir/copy, sync-interval: 1h}"
quick="replica: {path: $dir/copy, sync-interval: 20ms}"

# ---- Signals ----
for sig in TERM INT; do
    fresh
    config "$slow" # nothing but the end can upload it
    daemon -config app.yml
    soon log_has 'replicating'
    sql app.db 'INSERT INTO t VALUES(2)'
    stop $sig
    is 0 && out_has 'signal received' && holds same
done
fresh
daemon "$dir/app.db" "$rep"
soon same
sql app.db 'INSERT INTO t VALUES(3)'
soon same # without a signal, too
stop && is 0

# ---- Metrics ----
if command -v curl >/dev/null; then
    fresh
    # Not one of those that the system hands out to whoever asks for any.
    port=$((20000 + $$ % 12000))
    while curl -s -o none --noproxy '*' "http://127.0.0.1:$port/"; do port=$((port + 1)); done
    config "$quick"
    sed -i "1i addr: '127.0.0.1:$port'" app.yml
    daemon -config app.yml
    soon same
    page() { curl -sf --noproxy '*' "http://127.0.0.1:$port/metrics" | grep -qxF -e "$1"; }
    soon page 'litestream_replica_operation_total{replica_type="file",operation="PUT"} 1'
    sql app.db 'INSERT INTO t VALUES(6)'
    soon page 'litestream_replica_operation_total{replica_type="file",operation="PUT"} 2'
    holds page 'litestream_replica_operation_total{replica_type="file",operation="LIST"} 1'
    holds page 'sluice_databases 1'
    holds page 'sluice_transactions_behind 0'
    stop && is 0 && out_has 'msg="requests to stores" type=file put=2'
    daemon -config app.yml # the address is free again, and one that is taken is an error
    soon page 'sluice_databases 1'
    cp app.yml other.yml && sed -i "s,$dir/app.db,$dir/other.db,; s,$dir/copy,$dir/copy2," other.yml
    rc=0
    "$PROGRAM" replicate -config other.yml >"$dir/out" 2>"$dir/err" || rc=$?
    is 1 && err_has "cannot listen at '127.0.0.1:$port'"
    stop && is 0
fi

# ---- Children of a shell that became us are not ours ----
sh -c "sleep 0.3 & exec '$PROGRAM' replicate '$dir/app.db' '$rep'" >"$dir/log" 2>&1 &
pid=$!
shown='replicate, beside a child of the shell'
sleep 0.8
sql app.db 'INSERT INTO t VALUES(4)'
soon same
stop && is 0

# ---- exec ----
fresh
daemon -exec "sqlite3 -cmd '.timeout 5000' '$dir/app.db' 'INSERT INTO t VALUES(5)'" \
    "$dir/app.db" "$rep"
ended && is 0 && holds same
daemon -exec "sh -c 'exit 3'" "$dir/app.db" "$rep"
ended && is 1 && out_has 'exited with status 3'
daemon -exec "sh -c 'kill -9 \$\$'" "$dir/app.db" "$rep"
ended && is 1 && out_has 'signal 9'
daemon -exec 'no-such-program-here' "$dir/app.db" "$rep"
ended && is 1 && out_has "start 'no-such-program-here'"
daemon -exec 'sleep 60' "$dir/app.db" "$rep"
soon log_has 'replicating'
sql app.db 'INSERT INTO t VALUES(6)'
stop && is 0 && holds same # the command was ended by our signal, as it should be
cat >slow-end <<'END'
trap 'sqlite3 -cmd ".timeout 5000" "$1" "INSERT INTO t VALUES(7)"; exit 0' TERM
: >"$1.ready"
while :; do sleep 0.1; done
END
daemon -exec "sh slow-end $dir/app.db" "$dir/app.db" "$rep"
soon test -e app.db.ready
soon log_has 'replicating'
stop && is 0 && holds same
holds test "$(sqlite3 back.db 'SELECT max(v) FROM t')" = 7 # its last words are in the store

# ---- A store that cannot be written when the end comes ----
fresh
config "$quick"
daemon -config app.yml
soon same
mv copy away
: >copy
sql app.db 'INSERT INTO t VALUES(8)'
stop && is 1 && out_has 'final sync failed'
rm copy
mv away copy
daemon -config app.yml # and nothing is lost
soon same
stop && is 0

# ---- Two daemons ----
fresh
daemon -config app.yml
soon same
run replicate -config app.yml
is 1 && err_has 'app.db' && err_has "$pid"
run replicate -once -config app.yml
is 1 && err_has 'another sluice process'
stop && is 0

# ---- A hole in the replica is found at the start, and passed by a whole image ----
fresh
for row in 2 3 4; do
    sql app.db "INSERT INTO t VALUES($row)"
    "$PROGRAM" replicate -once app.db "$rep" >once.out 2>&1 || cat once.out
done
holds same
rm copy/ltx/0/0000000000000002-*.ltx
if same; then holds false; fi
run replicate -once app.db "$rep" && is 0 && out_has 'files are missing in the replica'
holds same
run replicate -once app.db "$rep" && is 0
holds test "$(ls copy/ltx/9 | wc -l)" = 1 # once is enough

# ---- Restore when the database is missing ----
sql app.db 'INSERT INTO t VALUES(9)'
daemon -config app.yml
soon same
stop
cp rows1 expected
rm -rf app.db* .app.db-sluice
daemon -restore-if-db-not-exists -config app.yml
soon test -s app.db
soon log_has 'restored from the replica'
sqlite3 app.db 'SELECT v FROM t ORDER BY rowid' >rows1
holds cmp rows1 expected
sql app.db 'INSERT INTO t VALUES(10)'
soon same
stop && is 0
daemon -restore-if-db-not-exists -config app.yml
soon log_has 'already exists'
soon log_has 'replicating'
stop && is 0
rm -rf app.db* .app.db-sluice copy
daemon -restore-if-db-not-exists -config app.yml
soon log_has 'no backup to restore'
sql app.db 'PRAGMA journal_mode=wal; CREATE TABLE t(v); INSERT INTO t VALUES(11)'
soon same
stop && is 0

# ---- A rollback-journal database ----
rm -rf app.db* .app.db-sluice copy
sql app.db 'PRAGMA journal_mode=delete; CREATE TABLE t(v); INSERT INTO t VALUES(1)'
daemon -config app.yml
soon log_has 'was switched to WAL mode'
soon same
stop && is 0
holds test "$(sqlite3 app.db 'PRAGMA journal_mode')" = wal

# ---- An application that locks everybody out ----
for mode in wal delete; do
    fresh
    sql app.db "PRAGMA journal_mode=$mode"
    mkfifo pipe
    sqlite3 -cmd '.timeout 5000' app.db <pipe >app.out 2>&1 &
    app=$!
    others=$app
    exec 7>pipe
    echo 'PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(2); INSERT INTO t VALUES(3);' >&7
    echo "SELECT 'it is locked';" >&7
    soon grep -q 'it is locked' app.out
    config 'busy-timeout: 100ms' "$quick"
    daemon -config app.yml
    soon log_has 'locking_mode=EXCLUSIVE'
    echo 'INSERT INTO t VALUES(4);' >&7
    exec 7>&-
    wait $app
    others=
    rm pipe
    soon same # it recovers when the application is gone
    stop && is 0
done

# ---- Missing rights ----
as_nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
if [ "$(id -u)" -eq 0 ] && $as_nobody true 2>/dev/null; then
    chmod 755 "$dir"
    cp "$PROGRAM" program
    chmod 755 program
    fresh
    mkdir copy meta
    chown 65534 copy meta
    root_program=$PROGRAM
    cat >as-nobody <<END
#!/bin/sh
exec $as_nobody $dir/program "\$@"
END
    chmod 755 as-nobody
    PROGRAM=$dir/as-nobody
    run replicate -once "$dir/app.db" "$rep" # no place for the state
    is 1 && err_has 'ermission denied' && err_has "$dir/.app.db-sluice"
    config "meta-path: $dir/meta" "$quick"
    chmod 444 app.db
    run replicate -once -config app.yml # the state may be written, the database not
    is 1 && err_has "$dir/app.db"
    chmod 000 app.db
    run replicate -once -config app.yml
    is 1 && err_has "$dir/app.db" && err_has 'ermission'
    daemon -config app.yml
    soon log_has 'ermission'
    holds kill -0 "$pid" # it goes on trying
    PROGRAM=$root_program
    chmod 666 app.db
    chmod 777 "$dir"
    PROGRAM=$root_program soon same
    stop && is 0
    chmod 755 "$dir"
    PROGRAM=$root_program
    rm -rf meta copy
else
    echo 'cannot become another user here, skipping what is about missing rights'
fi

# ---- Full disks ----
mkdir tiny
if mount -t tmpfs -o size=200k tmpfs "$dir/tiny" 2>/dev/null; then
    mounts=$dir/tiny
    big="WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<30)
         INSERT INTO t SELECT hex(randomblob(10000)) FROM n"
    for what in copy meta; do
        fresh
        mkdir -p "tiny/$what"
        if [ $what = copy ]; then
            ln -s tiny/copy copy
            config "$quick"
        else
            config "meta-path: $dir/tiny/meta" "$quick"
        fi
        daemon -config app.yml
        soon same
        sql app.db "$big"
        soon log_has 'o space left'
        sql app.db 'INSERT INTO t VALUES(12)' # the application goes on
        holds test "$(sqlite3 app.db 'SELECT max(v) FROM t WHERE v < 100')" = 12
        holds kill -0 "$pid"
        mount -o remount,size=20m "$dir/tiny"
        soon same
        stop && is 0
        holds same
        rm -rf tiny/* copy
        mount -o remount,size=200k "$dir/tiny"
    done
    # Full until the end: then the end says so.
    fresh
    mkdir tiny/copy
    ln -s tiny/copy copy
    config "$quick"
    daemon -config app.yml
    soon same
    sql app.db "$big"
    soon log_has 'o space left'
    stop && is 1 && out_has 'final sync failed' && out_has 'o space left'
    # Database, state and replica on one disk, which the application fills.
    rm -rf copy tiny/*
    sql tiny/app.db 'PRAGMA journal_mode=wal; CREATE TABLE t(v); INSERT INTO t VALUES(1)'
    daemon "$dir/tiny/app.db" "$rep"
    soon log_has 'replicating'
    soon test -d copy
    sql tiny/app.db "$big"
    sql tiny/app.db "$big"
    sleep 0.5
    holds kill -0 "$pid"
    mount -o remount,size=20m "$dir/tiny"
    sql tiny/app.db 'INSERT INTO t VALUES(13)'
    holds test "$(sqlite3 tiny/app.db 'SELECT max(v) FROM t WHERE v < 100')" = 13
    rm -rf app.db*
    ln -s tiny/app.db app.db
    soon same
    stop && is 0
    holds test "$(sqlite3 tiny/app.db 'PRAGMA integrity_check')" = ok
    rm app.db
else
    echo 'cannot mount here, skipping what is about full disks'
fi
finish
