# admin_e2e.sh PROGRAM LIB -- the administrator's port of `sluice serve`, by curl: every route, good
# and bad, and what its commands do to clients. See docs/admin-api.md.
#
# ask METHOD PATH [BODY] [CURL-OPTION...]   to the administrator; the answer is in $dir/out, its
#                                           status in $code
# sql NAMESPACE SQL...                      to the clients' port, with $token; the same
# soon COMMAND...                           it succeeds within a minute
# status N / has TEXT / lacks TEXT          of the answer
PROGRAM=$1
. "$2"
for tool in curl sqlite3; do
    command -v $tool >/dev/null || { echo "there is no $tool here, skipping"; exit 77; }
done
pid=
code=
token=
cleanup() {
    [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
: >out
: >err

start() {
    : >"$dir/log" # the old one says "serving", too
    "$PROGRAM" serve -data "$dir/data" -listen 127.0.0.1:0 -admin-listen 127.0.0.1:0 "$@" \
        >"$dir/log" 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 600); do
        grep -qs 'msg=serving' "$dir/log" && break
        sleep 0.1
    done
    cp "$dir/log" "$dir/out"
    shown="serve $*"
    what='a server' && check grep -qs 'msg=serving' "$dir/log"
    users=http://$(sed -n 's/.*msg=serving addr=\([^ ]*\).*/\1/p' "$dir/log")
    admin=http://$(sed -n 's/.*msg=serving.* admin=\([^ ]*\).*/\1/p' "$dir/log")
}
stop() {
    kill -TERM "$pid"
    rc=0
    wait "$pid" || rc=$?
    pid=
    shown='serve, its end'
    is 0
}
ask() {
    method=$1 path=$2 body=${3-}
    shift 2
    [ $# -gt 0 ] && shift
    shown="$method $path $body"
    rc=0
    if [ -n "$body" ]; then set -- --data-binary "$body" "$@"; fi
    code=$(curl -sS -m 120 -X "$method" -o "$dir/out" -w '%{http_code}' "$@" "$admin$path" \
        2>"$dir/err") || rc=$?
}
sql() {
    ns=$1
    shift
    body='{"requests":['
    for one in "$@"; do
        body="$body{\"type\":\"execute\",\"stmt\":{\"sql\":\"$one\"}},"
    done
    body="$body{\"type\":\"close\"}]}"
    shown="sql $ns $*"
    rc=0
    code=$(curl -sS -m 120 -D "$dir/head" -o "$dir/out" -w '%{http_code}' -H "x-namespace: $ns" \
        -H "authorization: Bearer $token" --data-binary "$body" "$users/v2/pipeline" \
        2>"$dir/err") || rc=$?
}
status() { what="status $1, not $code" && check test "$code" = "$1"; }
has() { what="an answer with '$1'" && check grep -qF -e "$1" "$dir/out"; }
lacks() {
    what="an answer without '$1'"
    if grep -qF -e "$1" "$dir/out"; then check false; else check true; fi
}
soon() {
    what="soon: $*"
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && check true && return
        sleep 0.1
    done
    check false
}
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$dir/out"; }

# ---- Namespaces ----
"$PROGRAM" token key -o key >/dev/null
mkdir imports
printf 'BEGIN;\nCREATE TABLE d(x);\nINSERT INTO d VALUES(7);\nCOMMIT;\n' >imports/d.sql
start -auth-jwt-key-file key.pub -auth-signing-key-file key -import-dir imports -max-body 1000000 \
    -slow-query 20ms
ask GET / && status 200 && has sluice
ask GET /health && status 200
ask GET /v1/namespaces && status 200 && has '{"namespaces":[],"next":null}'
ask POST /v1/namespaces/shop/create && status 200 && has '{}'
ask POST /v1/namespaces/shop/create '{}' && status 400 && has 'already exists'
ask POST /v1/namespaces/Shop/create '{}' && status 400 && has capitals
ask POST /v1/namespaces/shop/tokens '{"expiration":"1h"}' && status 200
token=$(field jwt)
sql shop 'CREATE TABLE t(a)' 'INSERT INTO t VALUES(1),(2)' && status 200 && has '"replication_index":"'
what='an x-sluice-txid header' && check grep -qE '^x-sluice-txid: [0-9]+' head
what='a Server-Timing header' && check grep -qiE '^server-timing: query;dur=[0-9]+\.[0-9]{3}.?$' head
sql shop 'SELECT count(*) AS n FROM t' && has '"value":"2"'
in_log() {
    rm -f back.db*
    "$PROGRAM" restore -o back.db data/backup/shop && [ "$(sqlite3 back.db 'SELECT count(*) FROM t')" = 2 ]
}
soon in_log # and nothing else
ask GET /v1/namespaces/shop
txid=$(field txid)
status 200 && has '"open":true' && has '"txid":"00'
ask GET /v1/namespaces/nobody && status 404 && has "doesn't exist"
ask GET '/v1/namespaces?limit=1' && status 200 && has '"name":"shop"' && has '"next":null'
ask GET /v1/namespaces/shop/stats && status 200 && has '"query_count":' && has 'INSERT INTO t VALUES'
ask DELETE /v1/namespaces/shop/stats/top && status 200
ask DELETE /v1/namespaces/shop/stats/slowest && status 200
ask GET /v1/namespaces/shop/stats && has '"top_queries":[]' && has '"slowest_queries":[]'
ask POST /v1/namespaces/shop/checkpoint && status 200
ask GET /v1/diagnostics && status 200 && has '"namespaces_open":'
ask GET /metrics && status 200
has 'sluice_request_duration_seconds_count{class="default",route="pipeline"} 2'
has 'sluice_statement_duration_seconds_count{class="default",kind="write",outcome="ok"} 2'
has 'sluice_writer_writes_total 2'
has 'sluice_namespace_statements_total{namespace="shop"} 3'

# ---- Configuration ----
ask POST /v1/namespaces/shop/config '{"block_reads":false,"block_writes":false,"class":"big ones"}' &&
    status 400 && has 'small letters'
ask POST /v1/namespaces/shop/config '{"block_reads":false,"block_writes":false,"class":"gold"}' &&
    status 200
sql shop 'SELECT count(*) AS n FROM t' && has '"value":"2"'
ask GET /metrics && has 'sluice_request_duration_seconds_count{class="gold",route="pipeline"} 1'
has 'sluice_statement_duration_seconds_count{class="gold",kind="read",outcome="ok"} 1'
ask POST /v1/namespaces/shop/config '{"block_reads":false}' && status 400
ask POST /v1/namespaces/shop/config \
    '{"block_reads":false,"block_writes":true,"block_reason":"stocktaking"}' && status 200
ask GET /v1/namespaces/shop/config && status 200 && has '"block_reason":"stocktaking"'
sql shop 'INSERT INTO t VALUES(3)' && has 'Operation was blocked: stocktaking' && has '"BLOCKED"'
sql shop 'SELECT 5' && has '"value":"5"'
ask POST /v1/namespaces/shop/config \
    '{"block_reads":false,"block_writes":false,"max_db_size":"100kB"}' && status 200
sql shop 'CREATE TABLE big(b)' "INSERT INTO big VALUES(zeroblob(200000))" && has SQLITE_FULL
ask POST /v1/namespaces/shop/config \
    '{"block_reads":false,"block_writes":false,"max_db_size":null}' && status 200
sql shop "INSERT INTO big VALUES(zeroblob(200000))" && has '"affected_row_count":1'

# ---- The past ----
ask POST /v1/namespaces/shop/fork/now && status 200
ask POST /v1/namespaces/shop/fork/now && status 400 && has 'already exists'
ask POST /v1/namespaces/shop/fork/then "{\"txid\":\"$txid\"}" && status 200
shop=$token
ask POST /v1/namespaces/then/tokens && status 200
token=$(field jwt)
sql then 'SELECT count(*) FROM t' && has '"value":"2"'
sql then 'SELECT * FROM big' && has 'no such table'
token=$shop
sql shop 'DELETE FROM t' && has '"affected_row_count":2'
ask POST /v1/namespaces/shop/restore '{}' && status 400
ask POST /v1/namespaces/shop/restore '{"timestamp":"1999-01-01T00:00:00"}' && status 404
ask POST /v1/namespaces/shop/restore "{\"txid\":\"$txid\"}" && status 200
sql shop 'SELECT count(*) AS n FROM t' && has '"value":"2"'

# ---- Files ----
ask GET /v1/namespaces/shop/export && status 200 && cp out shop.db
what='the exported rows' && check test "$(sqlite3 shop.db 'SELECT count(*) FROM t')" = 2
ask PUT /v1/namespaces/copy/import '' -T shop.db && status 200
ask PUT /v1/namespaces/copy/import '' -T shop.db && status 409
sqlite3 large.db 'CREATE TABLE r(x); INSERT INTO r VALUES(randomblob(3000000))'
ask PUT /v1/namespaces/large/import '' -T large.db && status 200
ask PUT /v1/namespaces/chunks/import '' -T large.db -H 'Transfer-Encoding: chunked' && status 200
for name in large chunks; do
    ask GET /v1/namespaces/$name/export && status 200 && cp out back.db
    what="the row of $name" && check test "$(sqlite3 back.db 'SELECT hex(x) FROM r' | cksum)" = \
        "$(sqlite3 large.db 'SELECT hex(x) FROM r' | cksum)"
done
head -c 5000 /dev/urandom >noise
ask PUT /v1/namespaces/noise/import '' -T noise && status 400
{ printf 'SQLite format 3\0' && head -c 5000 /dev/zero; } >fake
ask PUT /v1/namespaces/noise/import '' -T fake && status 400
head -c 20000 large.db | cat - noise >fake
ask PUT /v1/namespaces/noise/import '' -T fake && status 400
ask GET /v1/namespaces/noise && status 404
ask PUT /v1/namespaces/dump/import '' -T imports/d.sql && status 200
ask POST /v1/namespaces/dump2/create "{\"dump_url\":\"file://$dir/imports/d.sql\"}" && status 200
ask POST /v1/namespaces/x/create '{"dump_url":"file:///etc/passwd"}' && status 403
ask POST /v1/namespaces/x/create '{"dump_url":"https://example.com/d.sql"}' && status 501
ask POST /v1/namespaces/x/create '' -H 'Content-Length: 2000000' && status 413
ask GET /v1/namespaces/dump2/export && cp out back.db
what='the rows of the dump' && check test "$(sqlite3 back.db 'SELECT x FROM d')" = 7
what='nothing left of bodies' && check test -z "$(ls data/tmp)"

# ---- Tokens ----
ask POST /v1/namespaces/shop/tokens '{"access":"read-only"}' && status 200
reader=$(field jwt)
ask POST /v1/namespaces/shop/tokens '{"access":"everything"}' && status 400
ask GET /v1/namespaces/shop/tokens/rotate && status 200 && has '"rotation":null'
ask POST /v1/namespaces/shop/tokens/rotate && status 200 && has '# rotation '
sql shop 'SELECT 1' && status 401
ask POST /v1/namespaces/shop/tokens '{"access":"read-only"}' && status 200
token=$(field jwt)
sql shop 'SELECT 1' && status 200
sql shop 'DELETE FROM t' && has AUTH_FORBIDDEN
token=$reader
sql shop 'SELECT 1' && status 401

# ---- Renaming and deleting, also while clients are there ----
ask POST /v1/namespaces/copy/rename/moved && status 200
ask POST /v1/namespaces/copy/rename/again && status 404
ask GET /v1/namespaces/moved && status 200
ask POST /v1/namespaces/moved/tokens && status 200
token=$(field jwt)
curl -sS -o "$dir/out" -H 'x-namespace: moved' -H "authorization: Bearer $token" --data \
    '{"requests":[{"type":"execute","stmt":{"sql":"BEGIN IMMEDIATE"}}]}' "$users/v2/pipeline"
has '"baton":"' # it has a transaction open
if command -v python3 >/dev/null; then
    cat >ws.py <<'END'
import socket, sys, os, json, struct
host, port = sys.argv[1].split("//")[1].split(":")
s = socket.create_connection((host, int(port)))
s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
          b"Sec-WebSocket-Protocol: hrana2\r\nx-namespace: moved\r\n\r\n")
hello = json.dumps({"type": "hello", "jwt": sys.argv[2]}).encode()
s.sendall(b"\x81\xfe" + struct.pack(">H", len(hello)) + b"\0\0\0\0" + hello)
got = b""
while b"hello_ok" not in got:
    more = s.recv(4096)
    if not more: sys.exit("no hello_ok: %r" % got)
    got += more
open(sys.argv[3], "w").close()
s.settimeout(60)
end = s.recv(4096)
sys.exit(0 if end[:1] == b"\x88" and struct.unpack(">H", end[2:4])[0] == 1012 else "not closed")
END
    python3 ws.py "$users" "$token" "$dir/greeted" >ws.log 2>&1 &
    socket=$!
    for _ in $(seq 600); do [ -e greeted ] || sleep 0.1; done
    what="a WebSocket connection: $(cat ws.log)" && check test -e greeted
else
    socket=
fi
ask DELETE /v1/namespaces/moved && status 200
if [ -n "$socket" ]; then
    rc=0
    wait $socket || rc=$?
    what="it is closed with 1012: $(cat ws.log)" && check test $rc -eq 0
fi
sql moved 'SELECT 1' && status 404
ask DELETE /v1/namespaces/moved && status 404
ask DELETE /v1/namespaces/now '{"keep_backup":true}' && status 200
ask POST /v1/namespaces/now/fork/risen "{\"txid\":1}" && status 200
ask GET /v1/namespaces/risen && status 200

# ---- Nonsense ----
ask GET /nowhere && status 404
ask POST /metrics && status 405
ask DELETE /v1/namespaces/..%2f..%2fetc && status 404
ask DELETE /v1/namespaces/.hidden && status 400
ask POST /v1/namespaces/shop/config '[1,2]' && status 400
ask POST /v1/namespaces/shop/config '{"block_reads":' && status 400
ask GET /v1/namespaces '' -H 'Origin: http://evil.example' && status 403
ask GET /v1/namespaces '' -H 'Host: evil.example' && status 403

# ---- Slow statements ----
ask POST /v1/namespaces/large/tokens && token=$(field jwt)
sql large 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<300000) SELECT max(x) FROM c'
status 200
soon grep -q 'msg="slow statement" namespace=large' log
cp log out
has 'msg="slow statement" namespace=large'
stop

# ---- With a key ----
start -auth-jwt-key-file key.pub -admin-key secret
ask GET /v1/namespaces && status 401
ask GET /metrics && status 401
ask GET /health && status 200
ask GET /v1/namespaces '' -H 'Authorization: Bearer wrong' && status 401
ask GET /v1/namespaces '' -H 'Authorization: basic secret' && status 200 && has '"name":"shop"'
ask PUT /v1/namespaces/y/import '' -T large.db && status 401
ask POST /v1/namespaces/shop/tokens '{}' -H 'Authorization: Bearer secret' && status 501
ask POST /v1/namespaces/z/create '{"dump_url":"file:/x"}' -H 'Authorization: Bearer secret'
status 501 && has import-dir
stop

# ---- Another name: in a store that is not the server's own the log stays under the old one ----
mv data data.before
start -store "file://$dir/store"
ask POST /v1/namespaces/shop/create '{"durability_mode":"extra"}' && status 200
sql shop 'CREATE TABLE t(v)' 'INSERT INTO t VALUES(1)' && status 200 # and the store has it
sleep 0.1
then=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
sleep 0.1
sql shop 'UPDATE t SET v=5' && status 200
ask POST /v1/namespaces/shop/rename/trial && status 200 && has '{"former_logs":[{"name":"shop","until":"'
until=$(field until)
sql trial 'UPDATE t SET v=9' && status 200
ask GET /v1/namespaces/trial && has "\"former_logs\":[{\"name\":\"shop\",\"until\":\"$until\"}]"
ask POST /v1/namespaces/trial/fork/before "{\"timestamp\":\"$until\"}" && status 200
sql before 'SELECT v+100 FROM t' && status 200 && has '"105"'
run restore -o old.db "file://$dir/store/shop" && is 0
holds test "$(sqlite3 old.db 'SELECT v FROM t')" = 5
run restore -timestamp "$then" -o then.db "file://$dir/store/shop" && is 0
holds test "$(sqlite3 then.db 'SELECT v FROM t')" = 1
ask POST /v1/namespaces/shop/create && status 200 # another one
ask POST /v1/namespaces/trial/restore "{\"timestamp\":\"$then\"}" && status 200
sql trial 'SELECT v+100 FROM t' && status 200 && has '"101"'
stop
finish
