# s3_e2e.sh PROGRAM LIB SERVER -- the program as its users run it, with a real S3 server: taking
# over from litestream and back, moments in time, a second writer, a store that goes away.
PROGRAM=$1
. "$2"
server=$3
for tool in sqlite3 curl; do
    command -v $tool >/dev/null || { echo "there is no $tool program here, skipping"; exit 77; }
done
daemons=
cleanup() {
    for p in $daemons; do kill -9 "$p" 2>/dev/null; done
    "$server" stop "$dir/s3" >/dev/null 2>&1
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
: >out
: >err
rc=0
shown=server
"$server" start "$dir/s3" >env || {
    status=$?
    cat env
    exit $status
}
. ./env
unset AWS_CA_BUNDLE AWS_PROFILE AWS_SESSION_TOKEN
export AWS_EC2_METADATA_DISABLED=true no_proxy='*'
export AWS_ACCESS_KEY_ID="$S3_ACCESS_KEY" AWS_SECRET_ACCESS_KEY="$S3_SECRET_KEY"
query="endpoint=$S3_ENDPOINT&region=$S3_REGION"
url() { echo "s3://$S3_BUCKET/$1?$query"; }

daemon() { # LOG ARGS...: its pid is in $pid
    log=$1
    shift
    shown="replicate $*"
    "$PROGRAM" replicate "$@" >"$dir/$log" 2>&1 </dev/null &
    pid=$!
    daemons="$daemons $pid"
}
stop() { # PID
    kill "$1"
    rc=0
    wait "$1" || rc=$?
}
soon() { # SECONDS COMMAND...
    tries=$(($1 * 5))
    shift
    what="soon: $*"
    for _ in $(seq $tries); do
        "$@" >/dev/null 2>&1 && check true && return
        sleep 0.2
    done
    check false
}
sql() { sqlite3 -cmd '.timeout 5000' "$@"; }
fresh() { # NAME
    sql "$1.db" 'PRAGMA journal_mode=wal; CREATE TABLE t(v)' >/dev/null
}
# The replica $2 gives back the rows of $1.
same() {
    rm -f back.db*
    "$PROGRAM" restore -o back.db "$2" >/dev/null 2>&1 || return 1
    [ "$(sql "$1" 'SELECT v FROM t')" = "$(sql back.db 'SELECT v FROM t')" ]
}

# ---- Take-over, both ways, by one configuration file ----
if command -v litestream >/dev/null; then
    fresh shared
    printf 'dbs:\n  - path: %s\n    replica: {type: s3, bucket: %s, path: shared, endpoint: "%s", region: %s}\n' \
        "$dir/shared.db" "$S3_BUCKET" "$S3_ENDPOINT" "$S3_REGION" >shared.yml
    for who in "$PROGRAM" litestream "$PROGRAM" "$PROGRAM" litestream litestream "$PROGRAM"; do
        sql shared.db "INSERT INTO t SELECT randomblob(2000) FROM (VALUES(1),(2),(3))"
        shown="$who replicate -once"
        holds "$who" replicate -once -config shared.yml >out 2>err
        for reader in "$PROGRAM" litestream; do
            shown="$reader restore"
            rm -f back.db*
            holds "$reader" restore -config shared.yml -o back.db "$dir/shared.db" >out 2>err
            holds test "$(sql shared.db 'SELECT hex(v) FROM t')" = "$(sql back.db 'SELECT hex(v) FROM t')"
        done
    done
else
    echo 'there is no litestream program here: no take-over'
fi

# ---- Moments in time: listings have the time of the upload only ----
fresh moments
daemon log "$dir/moments.db" "$(url moments)"
soon 60 same moments.db "$(url moments)"
for i in 1 2 3; do
    sql moments.db "INSERT INTO t VALUES($i)"
    soon 60 same moments.db "$(url moments)"
    sleep 0.1
    eval "moment$i=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)"
    sleep 0.1
done
sql moments.db 'INSERT INTO t VALUES(4)'
soon 60 same moments.db "$(url moments)"
for i in 1 2 3; do
    rm -f back.db*
    eval "run restore -timestamp \$moment$i -o back.db \"$(url moments)\""
    is 0 && holds test "$(sql back.db 'SELECT max(v) FROM t')" = "$i"
done

# ---- A second writer is kept out ----
sql moments.db "VACUUM INTO 'second.db'"
sql second.db 'PRAGMA journal_mode=wal' >/dev/null
first=$pid
daemon log2 "$dir/second.db" "$(url moments)"
second=$pid
both_write() {
    sql moments.db 'INSERT INTO t VALUES(5)'
    sql second.db "INSERT INTO t VALUES('x')"
    sql moments.db 'INSERT INTO t VALUES(6)'
    grep -q 'a second process writes to it' log log2
}
soon 60 both_write
stop "$second"
stop "$first"

# ---- Hints can be pasted ----
run restore "$(url moments)"
is 1 && err_has "Try: sluice restore -o /path/to/db '$(url moments)'"
run restore "$(url 'moments')&sse-customer-key=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
is 1 && err_has 'sse-customer-key=***'

# ---- The store is away while the application writes ----
fresh away
daemon log "$dir/away.db" "$(url away)"
soon 60 same away.db "$(url away)"
"$server" kill "$dir/s3"
for i in $(seq 60); do
    sql away.db "INSERT INTO t VALUES($i)"
    sleep 0.2
done
holds test "$(grep -c level=ERROR log)" -le 1
"$server" start "$dir/s3" >/dev/null
soon 120 same away.db "$(url away)" # pauses are 30 s at most
stop "$pid"
is 0
finish
