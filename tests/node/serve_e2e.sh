# serve_e2e.sh PROGRAM LIB SERVICE -- `sluice serve` as its users run it: starts that must fail,
# signals, keys that change, sockets of a service manager, TLS, many tenants, stores that are away.
#
# serve LOG ARGS...   start it in the background; its pid is in $pid, its address in $addr
# stop PID            SIGTERM, and wait; its status is in $rc, its output in $dir/out for messages
# ask ADDR SQL [CURL-OPTION...]   one statement; the answer is in $dir/answer
PROGRAM=$1
. "$2"
service=$3
for tool in sqlite3 curl openssl; do
    command -v $tool >/dev/null || { echo "there is no $tool program here, skipping"; exit 77; }
done
unset SLUICE_CONFIG SLUICE_DATA SLUICE_STORE SLUICE_LISTEN NOTIFY_SOCKET LISTEN_FDS LISTEN_PID
started=
cleanup() {
    for p in $started; do kill -9 "$p" 2>/dev/null; done
    rm -rf "$dir" "$ram"
}
ram=
trap cleanup EXIT
trap 'exit 1' INT TERM HUP PIPE
: >out
: >err
rc=0
shown=serve

# Deadlines are long, for machines that are busy; what takes no longer than it must is all the same.
since() { echo $(($(date +%s%N) / 1000000 - $1)); }
now() { since 0; }
soon() { # SECONDS COMMAND...
    tries=$(($1 * 50))
    shift
    what="soon: $*"
    for _ in $(seq $tries); do
        "$@" >/dev/null 2>&1 && check true && return
        sleep 0.02
    done
    check false
}
healthy() { [ "$(curl -s -o none -w '%{http_code}' "http://$1/health")" = 200 ]; }
wait_for_addr() { # LOG
    for _ in $(seq 3000); do
        addr=$(sed -n 's/.*msg=serving addr=\([^ ]*\) .*/\1/p' "$1")
        [ -n "$addr" ] || ! kill -0 "$pid" 2>/dev/null && return
        sleep 0.02
    done
}
background() { # LOG COMMAND...
    log=$1
    shift
    : >"$dir/$log" # before somebody looks for the address
    "$@" >"$dir/$log" 2>&1 </dev/null &
    pid=$!
    started="$started $pid"
}
serve() {
    log=$1
    shift
    shown="serve $*"
    background "$log" "$PROGRAM" serve "$@"
    wait_for_addr "$log"
    what="it serves" && check test -n "$addr"
}
wait_for() { # PID
    rc=0
    wait "$1" || rc=$?
    cp "$log" out
}
stop() {
    kill "$1"
    wait_for "$1"
}
asked() { ask "$addr/dev/$1" 'SELECT 5' && grep -qF '"rows"' answer; }
body() { printf '{"requests":[{"type":"execute","stmt":{"sql":"%s"}},{"type":"close"}]}' "$1"; }
ask() {
    at=$1
    sql=$2
    shift 2
    curl -s "$@" -d "$(body "$sql")" "http://$at/v2/pipeline" >answer
}
gives() { what="answer with $1, not $(cut -c1-300 answer)" && check grep -qF -e "$1" answer; }
value() { gives "\"value\":\"$1\""; }
made() { gives '"affected_row_count":0'; }
dump() { sqlite3 "$1" .dump; }
# The log $2 has all that the database $1 has.
same() {
    rm -f back.db*
    "$PROGRAM" restore -o back.db "$2" >/dev/null 2>&1 || return 1
    dump "$1" >one && dump back.db >two && cmp -s one two
}
log_has() { what="log with '$1'" && check grep -qF -e "$1" "$log"; }

# ---- In the background from here on: a store that is away, one that never answers ----
background hang.port "$service" hang
soon 60 test -s hang.port
s3="region=x&access-key-id=a&secret-access-key=S3SECRET"
serve away.log -data away -listen 127.0.0.1:0 -shutdown-timeout 1s \
    -store "s3://bucket/x?endpoint=http://127.0.0.1:1&$s3"
away_pid=$pid away_addr=$addr
ask "$away_addr" 'CREATE TABLE t(v)' && made

# ---- What it does not start with ----
for listen in 0.0.0.0:0 :0 '[::]:0' 127.example.com:0; do
    run serve -data never -listen "$listen"
    is 1 && err_has "Error: -listen $listen would let everybody on the network read and write"
done
run serve -data never -listen 127.0.0.1:0 -admin-listen 0.0.0.0:0
is 1 && err_has 'Error: -admin-listen 0.0.0.0:0 would let everybody on the network delete databases'
holds test ! -e never
run serve -data never -listen 127.0.0.1:0 -auth-jwt-key-file none.pem
is 1 && err_has "none.pem"
run serve -data away -listen 127.0.0.1:0
is 1 && err_has 'another server uses this folder; stop it first, or give this one a folder of its own'
run serve -data never -listen "$away_addr"
is 1 && err_has "Error: listen at '$away_addr': " && err_has 'Address already in use'
run serve -data never -listen 127.0.0.1:x -allow-anonymous
is 1 && err_has "listen at '127.0.0.1:x': it wants HOST:PORT"
run serve -data never -store ftp://x/y -listen 127.0.0.1:0
is 1 && err_has ftp
touch file
run serve -data file/x -listen 127.0.0.1:0
is 1 && err_has "create folder 'file': File exists"
# Root may write everywhere, so this needs somebody else.
chmod 755 "$dir"
someone=$PROGRAM
if [ "$(id -u)" = 0 ]; then
    someone='setpriv --reuid=65534 --clear-groups ./program'
    cp "$PROGRAM" program
fi
if $someone version >out 2>err; then
    mkdir -p locked/made && chmod 555 locked locked/made
    for folder in locked/new locked/made; do
        rc=0
        shown="serve -data $folder, not writable"
        $someone serve -data $folder >out 2>err || rc=$?
        is 1 && err_has "$folder" && err_has 'Permission denied'
    done
else
    echo 'there is no other user here: no read-only folders'
fi
rm -f program

# ---- The configuration file ----
"$PROGRAM" token key -o one.key >/dev/null
"$PROGRAM" token key -o two.key >/dev/null
cp one.key.pub keys.pem
one=$("$PROGRAM" token new -key one.key)
two=$("$PROGRAM" token new -key two.key)
reader=$("$PROGRAM" token new -key one.key -claims '{"role":"reader"}')
conf() { # ACTION... of the role
    cat >sluice.yml <<END
# comment
data: main
listen: 127.0.0.1:0
auth-jwt-key-file: \${KEYS}
admin-key: "$ADMIN"
http-auth: basic:$LOGIN
log-level: debug
roles:
  reader:
    - {effect: allow, actions: [$1], tables: [t]}
END
}
ADMIN='ADMINSECRET: #1'
LOGIN=$(printf 'me:HTTPSECRET' | base64)
conf read
run serve -c sluice.yml -data never -no-expand-env
is 1 && err_has '${KEYS}'
export KEYS=keys.pem
echo 'max_body: 5' >>sluice.yml
run serve -c sluice.yml -data never
is 1 && err_has "$dir/sluice.yml:11: unknown key 'max_body'; did you mean 'max-body'?"
conf read
run serve -c none.yml
is 1 && err_has "config file not found: $dir/none.yml"
LOG_LEVEL=info SLUICE_LISTEN=127.0.0.1:0 SLUICE_CONFIG=sluice.yml \
    serve main.log -data "$dir/main2"
main_pid=$pid main_addr=$addr
holds test -d main2 -a ! -e main # the line wins over the file
holds test "$(grep -c DEBUG main.log)" -eq 0
log_has 'every user of this machine can read a secret in the configuration file'
log_has 'key=http-auth'
stop "$main_pid"
is 0

chmod 600 sluice.yml
# Long limits: a transaction that is open meanwhile must not end on a slow machine.
serve main.log -config sluice.yml -txn-timeout 1m -stream-idle-timeout 1m
main_pid=$pid main_addr=$addr
holds test "$(grep -c 'every user' main.log)" -eq 0

# ---- Ready at once; tokens, roles, and their change by SIGHUP ----
holds healthy "$main_addr"
ask "$main_addr" 'SELECT 1' && gives AUTH_HTTP_HEADER_MISSING
ask "$main_addr" 'CREATE TABLE t(v)' -H "Authorization: Bearer $one" && made
ask "$main_addr" 'SELECT 7' -H "Authorization: Bearer $two" && gives AUTH_JWT_INVALID
ask "$main_addr" 'SELECT 7' -u me:HTTPSECRET && value 7
ask "$main_addr" 'SELECT count(*) FROM t' -H "Authorization: Bearer $reader" && value 0
ask "$main_addr" 'INSERT INTO t VALUES(1)' -H "Authorization: Bearer $reader" && gives '"type":"error"'
request() { # TOKEN
    printf 'POST /v2/pipeline HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s' \
        "$1" "$(body 'SELECT 40+2' | wc -c)" "$(body 'SELECT 40+2')"
}
answers() { [ "$(grep -o '"value":"42"' "$1" | wc -l)" -ge "$2" ]; }
in_transaction() {
    curl -s -H "Authorization: Bearer $one" "http://$main_addr/v2/pipeline" \
        -d "{\"baton\":${baton:-null},\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"$1\"}}]}" >answer
    baton=$(sed -n 's/.*"baton":\("[^"]*"\).*/\1/p' answer)
}
mkfifo line tls.line
"$service" talk "$main_addr" <line >line.out 2>line.err &
started="$started $!"
exec 7>line
request "$one" >&7
soon 60 answers line.out 1
# A transaction that is open now is so afterwards.
baton=
in_transaction BEGIN
in_transaction 'INSERT INTO t VALUES(2)' && gives '"affected_row_count":1'
reread() { [ "$(grep -c 'read again' "$log")" -eq "$1" ]; }
refused() { [ "$(grep -c 'reload failed' "$log")" -eq "$1" ]; }
conf 'read, insert'
cat one.key.pub two.key.pub >keys.pem
kill -HUP "$main_pid"
soon 60 reread 1
in_transaction 'INSERT INTO t VALUES(3)' && gives '"affected_row_count":1'
in_transaction COMMIT && made
ask "$main_addr" 'INSERT INTO t VALUES(1)' -H "Authorization: Bearer $reader" &&
    gives '"affected_row_count":1'
ask "$main_addr" 'SELECT 7' -H "Authorization: Bearer $two" && value 7
ask "$main_addr" 'SELECT count(*) FROM t' -H "Authorization: Bearer $two" && value 3
request "$one" >&7
soon 60 answers line.out 2
# Nonsense changes nothing.
echo nonsense >keys.pem
kill -HUP "$main_pid"
soon 60 refused 1
echo 'x: 1' >>sluice.yml
cp one.key.pub keys.pem
kill -HUP "$main_pid"
soon 60 refused 2
log_has "unknown key 'x'"
ask "$main_addr" 'SELECT 7' -H "Authorization: Bearer $two" && value 7
conf read
cp two.key.pub keys.pem
kill -HUP "$main_pid"
soon 60 reread 2
ask "$main_addr" 'SELECT 7' -H "Authorization: Bearer $one" && gives AUTH_JWT_INVALID
ask "$main_addr" 'SELECT 7' -H "Authorization: Bearer $two" && value 7
request "$two" >&7
soon 60 answers line.out 3
holds test ! -s line.err
exec 7>&-

# ---- Keys that are taken out of the file open nothing ----
printf 'data: open\nlisten: 0.0.0.0:0\nauth-jwt-key-file: one.key.pub\n' >open.yml
serve open.log -c open.yml
addr=127.0.0.1:${addr##*:}
ask "$addr" 'SELECT 7' && gives AUTH_HTTP_HEADER_MISSING
sed -i /auth/d open.yml
kill -HUP "$pid"
soon 60 refused 1
log_has 'would let everybody on the network read and write'
ask "$addr" 'SELECT 7' && gives AUTH_HTTP_HEADER_MISSING
ask "$addr" 'SELECT 7' -H "Authorization: Bearer $one" && value 7
stop "$pid"
is 0

# ---- SIGTERM: what runs is answered, the log is whole ----
count='WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<%d)'
# In processor time of the server, which does not depend on what else the machine does.
ticks() { sed 's/^.*) //' "/proc/$main_pid/stat" | awk '{print $12 + $13}'; }
begin=$(ticks)
for i in 1 2 3; do
    ask "$main_addr" "$(printf "$count SELECT max(n) FROM c" 300000)" -H "Authorization: Bearer $two"
    value 300000
done
two_seconds=$((2 * $(getconf CLK_TCK)))
rows=$((900000 * two_seconds / ($(ticks) - begin + 1)))
begin=$(ticks)
(
    ask "$main_addr" "$(printf "INSERT INTO t $count SELECT max(n) FROM c" $rows)" \
        -H "Authorization: Bearer $two"
    cp answer last
) &
client=$!
at_work() { [ "$(ticks)" -ge $((begin + two_seconds / 8)) ]; }
soon 60 at_work
begin=$(now)
log=main.log
stop "$main_pid"
is 0
holds test "$(since "$begin")" -ge 300
wait $client
cp last answer
gives '"affected_row_count":1'
holds test "$(sqlite3 main/tenants/default/data 'SELECT max(v) FROM t')" = $rows
holds same main/tenants/default/data main/backup/default
holds test -z "$(ls main/open)"

# ---- SIGKILL: what was acknowledged is there ----
serve kill.log -data main -listen 127.0.0.1:0
for i in 1 2 3 4 5 6 7 8 9 10; do
    ask "$addr" "INSERT INTO t VALUES('row $i')" && gives '"affected_row_count":1'
done
kill -9 "$pid"
wait_for "$pid"
is 137
serve kill.log -data main -listen 127.0.0.1:0
ask "$addr" "SELECT count(*) FROM t WHERE v LIKE 'row%'" && value 10
stop "$pid"
is 0
holds same main/tenants/default/data main/backup/default

# ---- A unix socket, and one that a killed server has left ----
for round in 1 2; do
    serve unix.log -data main -listen "unix:$dir/sock"
    curl -s --unix-socket sock http://x/v2/pipeline -d "$(body "SELECT count(*) FROM t WHERE v LIKE 'row%'")" >answer
    value 10
    [ $round = 1 ] && kill -9 "$pid" && wait_for "$pid" && is 137
done
stop "$pid"
is 0
holds test ! -e sock

# ---- Sockets and news of a service manager ----
background news "$service" notified "$dir/notify"
soon 60 test -S notify
shown='serve with passed sockets'
run_passed() { # ADDR... -- ARGS...
    : >passed.log
    rc=0
    "$service" pass "$@" >out 2>err </dev/null || rc=$?
}
run_passed 0.0.0.0:0 -- "$PROGRAM" serve -data passed
is 1 && err_has 'would let everybody on the network'
run_passed 127.0.0.1:0 0.0.0.0:0 -- "$PROGRAM" serve -data passed
is 1 && err_has 'delete databases'
NOTIFY_SOCKET="$dir/notify" background passed.log "$service" pass 127.0.0.1:0 "unix:$dir/admin" -- \
    "$PROGRAM" serve -data passed -listen 127.0.0.1:1
log=passed.log
wait_for_addr passed.log
holds healthy "$addr"
log_has "admin=unix:$dir/admin"
readies() { [ "$(grep -c READY=1 news)" -eq "$1" ]; }
soon 60 readies 1
kill -HUP "$pid"
soon 60 readies 2
holds grep -q RELOADING=1 news
holds grep -q MONOTONIC_USEC= news
stop "$pid"
is 0
soon 60 grep -q STOPPING=1 news

# ---- TLS, and a new certificate ----
certificate() { # NAME
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -keyout "$1.key" -out "$1.pem" \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' 2>/dev/null
}
certificate old
certificate new
cp old.key tls.key
cp old.pem tls.pem
serve tls.log -data tls -listen 127.0.0.1:0 -tls-cert tls.pem -tls-key tls.key
secure() { curl -s --cacert "$1" "https://localhost:${addr##*:}/v2/pipeline" -d "$(body 'SELECT 40+2')" >answer; }
shown='serve -tls-cert'
secure old.pem
value 42
holds test -z "$(curl -s "http://$addr/health" | grep OK)"
openssl s_client -quiet -connect "$addr" <tls.line >tls.out 2>tls.err &
started="$started $!"
exec 8>tls.line
request x >&8
soon 60 answers tls.out 1
cp new.key tls.key # the pair does not fit: the old one stays
kill -HUP "$pid"
soon 60 refused 1
secure old.pem
value 42
cp new.pem tls.pem
kill -HUP "$pid"
soon 60 reread 1
rc=0
secure old.pem || rc=$?
is 60
secure new.pem
value 42
request x >&8
soon 60 answers tls.out 2
exec 8>&-
stop "$pid"
is 0

# ---- Many tenants, few descriptors ----
# (in memory if possible: it is no test of the disk)
free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 {print $4}')
[ "${free:-0}" -gt 1000000 ] && ram=$(mktemp -d /dev/shm/sluice.XXXXXX) && ln -s "$ram" many
mkdir -p many/tenants
serve many.log -data many -listen 127.0.0.1:0
ask "$addr" 'CREATE TABLE t(v)' && made
stop "$pid"
(cd many/tenants && seq -f t%g 10000 | xargs mkdir &&
    seq -f t%g/conf.json 10000 | xargs -n 500 sh -c 'tee "$@" <default/conf.json' x >/dev/null)
# The best of some starts: one alone may have met a moment when the machine did something else.
start_many() {
    : >many.log
    begin=$(now)
    (
        ulimit -n 1024
        exec "$PROGRAM" serve -data many -listen 127.0.0.1:0 -slow-query 0s >many.log 2>&1
    ) &
    pid=$!
    started="$started $pid"
    log=many.log
    wait_for_addr many.log
    holds healthy "$addr"
    ready=$(since "$begin")
    echo "10,000 tenants: ready after $ready ms"
}
for i in 1 2 3 4 5; do
    start_many
    [ "$ready" -lt 1000 ] || [ $i = 5 ] && break
    stop "$pid"
done
holds test "$ready" -lt 1000
shown='serve with 1024 descriptors and 2000 tenants'
touch_each() { # FIRST LAST SQL: answers in $dir/answer
    body "$3" >touch
    for i in $(seq "$1" "$2"); do
        printf 'next\nurl=http://%s/dev/t%d/v2/pipeline\ndata=@touch\noutput=-\n' "$addr" "$i"
    done | sed 1d >urls
    curl -s -K urls >answer
}
answered() { [ "$(grep -o '"type":"execute"' answer | wc -l)" -eq "$1" ]; }
begin=$(now)
touch_each 1 200 'CREATE TABLE t(v)' && holds answered 200
touch_each 1 200 'INSERT INTO t VALUES(1)' && holds answered 200
wrote=$(since "$begin")
begin=$(now)
touch_each 1 2000 'SELECT 1' && holds answered 2000
echo "400 writes to 200 tenants: $wrote ms; a read of each of 2,000: $(since "$begin") ms;" \
    "$(ls /proc/$pid/fd | wc -l) descriptors open"
ask "$addr/dev/t1" 'SELECT count(*) FROM t' && value 1
log_has 'the limit on open files is low'
holds test "$(grep -c 'level=\(WARN\|ERROR\)' many.log)" -eq 1
stop "$pid"
is 0
for i in 1 100 200; do
    holds same many/tenants/t$i/data many/backup/t$i
done

# ---- More tenants in use than may be open: requests wait, and are refused only after that ----
mkdir -p few/tenants
(cd few/tenants && seq -f t%g 12 | xargs mkdir &&
    for i in $(seq 12); do echo '{}' >t$i/conf.json; done)
serve few.log -data few -listen 127.0.0.1:0 -max-open 4 -stream-idle-timeout 20s
shown='serve -max-open 4 with 24 clients of 12 tenants'
body 'SELECT 1' >touch
crowd=
for i in $(seq 24); do
    curl -s -d @touch -w '%{http_code}\n' \
        -o none "http://$addr/dev/t$((i % 12 + 1))/v2/pipeline?[1-20]" -o none \
        "http://$addr/dev/t[1-12]/v2/pipeline" >few.$i &
    crowd="$crowd $!"
done
# The processes' ids are split on purpose.
wait $crowd
holds test "$(cat few.? few.?? | sort | uniq -c | tr -s ' ')" = " $((24 * 32)) 200"
shown='serve -max-open 4 with 4 open transactions'
for i in 1 2 3 4; do
    curl -s -d '{"requests":[{"type":"execute","stmt":{"sql":"BEGIN"}}]}' -o answer \
        "http://$addr/dev/t$i/v2/pipeline" && gives '"type":"ok"'
done
begin=$(now)
ask "$addr/dev/t5" 'SELECT 5' && gives '4 databases are open and in use' && gives NAMESPACE_BUSY
waited=$(since "$begin")
holds test "$waited" -ge 4900 && holds test "$waited" -lt 19000
ask "$addr/dev/t4" 'SELECT 4' && value 4
soon 60 asked t5
stop "$pid"
is 0

# ---- A store that never answers: the second signal ends it ----
serve hang.log -data hang -listen 127.0.0.1:0 -store "s3://bucket/x?endpoint=http://127.0.0.1:$(cat hang.port)&$s3"
ask "$addr" 'CREATE TABLE t(v)' && made
kill "$pid"
sleep 0.7
holds kill -0 "$pid"
begin=$(now)
stop "$pid"
is 1 && out_has 'Error: the store has not got all of the logs of 1 namespaces, `default` among them'
holds test "$(since "$begin")" -lt 20000 # of the 30 s that one signal leaves it

# ---- The store that is away: served all the same, told once, and not forgotten ----
log=away.log
soon 60 grep -q 'the store does not answer; databases are served all the same' away.log
ask "$away_addr" 'INSERT INTO t VALUES(5)' && gives '"affected_row_count":1'
begin=$(now)
stop "$away_pid"
is 1 && out_has 'Error: the store has not got all of the logs'
holds test "$(since "$begin")" -lt 20000 # not the 30 s of the default
serve away.log -data away -listen 127.0.0.1:0
ask "$addr" 'SELECT v FROM t' && value 5
stop "$pid"
is 0
holds same away/tenants/default/data away/backup/default

# ---- A statement that cannot be interrupted does not keep the server from ending ----
serve stuck.log -data stuck -listen 127.0.0.1:0
main_pid=$pid
ask "$addr" 'CREATE TABLE t(v)' && made
ask "$addr" 'INSERT INTO t VALUES(6)' && gives '"affected_row_count":1'
object="SELECT json_group_object('%s' || n, n) AS o FROM c"
body "$(printf "$count SELECT length(json_patch(a.o, b.o)) FROM ($object) a, ($object) b" 400000 a b)" >stuck.body
begin=$(ticks)
curl -s -d @stuck.body "http://$addr/v2/pipeline" >stuck.answer &
client=$!
soon 60 at_work
begin=$(now)
stop "$pid"
is 1 && out_has 'a statement does not end'
holds test "$(since "$begin")" -ge 15000
wait $client
serve stuck.log -data stuck -listen 127.0.0.1:0
ask "$addr" 'SELECT v FROM t' && value 6
stop "$pid"
is 0
holds same stuck/tenants/default/data stuck/backup/default

# ---- Nothing secret in any log ----
shown='serve: logs'
for secret in ADMINSECRET HTTPSECRET "$LOGIN" S3SECRET "$one" "$two" "$reader"; do
    holds test -z "$(grep -lF -e "$secret" ./*.log)"
done
finish
