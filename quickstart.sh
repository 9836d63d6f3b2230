#!/bin/sh
# From nothing to a restored database, in about a minute after the build: ./quickstart.sh
#
# Installs what a Debian machine lacks, builds Sluice, and plays one story in build/quickstart: a
# shop writes into SQLite, Sluice backs it up, the machine burns in the middle of it, the shop is
# restored, and then served to clients over the network. Run it as often as you like. --program PATH plays the story with another build.
set -eu
cd "$(dirname "$0")"
program=
[ "${1:-}" = --program ] && program=$2

say() { printf '\n%s\n' "$*"; }
fail() {
    printf '\nThis should not happen: %s\nThe files are in %s\n' "$*" "$PWD" >&2
    exit 1
}

writer='' feeder='' daemon='' server=''
cleanup() {
    for pid in $writer $feeder $daemon $server; do kill -9 "$pid" 2>/dev/null || true; done
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ -z "$program" ]; then
    say "1. Build"
    tools/need gcc=gcc libc6-dev cmake=cmake ninja=ninja-build pkg-config=pkg-config liblz4-dev \
        libxxhash-dev libyaml-dev libjansson-dev libcurl4-openssl-dev libssl-dev \
        libexpat1-dev libssh-dev libnats-dev libmicrohttpd-dev libwslay-dev zlib1g-dev \
        libgnutls28-dev libedit-dev libcmocka-dev npm=npm sqlite3=sqlite3 curl=curl
    log=$(mktemp)
    if ! { cmake --preset release && ninja -C build/release sluice; } >"$log" 2>&1; then
        cat "$log"
        rm -f "$log"
        echo "The build failed; the reason is above." >&2
        exit 1
    fi
    rm -f "$log"
    program=$PWD/build/release/sluice
fi
echo "   $("$program" version), sqlite3 $(sqlite3 --version | cut -d' ' -f1)"

rm -rf build/quickstart
mkdir -p build/quickstart/machine build/quickstart/backup
cd build/quickstart
db=machine/shop.db
url=file://$PWD/backup

# The orders from $1 on, for ever or up to $2, one transaction each. What an order holds follows
# from its number, so what the shop had at any moment can be computed again later.
orders() {
    awk -v first="$1" -v last="${2:-0}" 'BEGIN {
        for (i = first; last == 0 || i <= last; i++) {
            customer = i * 7919 % 20000 + 1
            print "BEGIN;"
            printf "INSERT INTO orders VALUES (%d, %d, %d, \x27new\x27);\n", i, customer, 1.7e9 + i
            for (k = 0; k <= i % 4; k++)
                printf "INSERT INTO items VALUES (%d, %d, %d, %d, %d.5);\n",
                    i, k, i * 31 % 5000 + k, k + 1, i % 90 + 9
            printf "UPDATE customers SET orders = orders + 1 WHERE id = %d;\n", customer
            printf "UPDATE orders SET state = \x27sent\x27 WHERE id = %d;\n", i - 1000
            if (i % 50 == 0) printf "DELETE FROM items WHERE order_id = %d;\n", i - 20000
            print "COMMIT;"
            printf "SELECT %d, CAST((julianday(\x27now\x27) - 2440587.5) * 86400000 AS INTEGER);\n", i
        }
    }'
}
last_acked() { tail -n 1 acknowledged.log | cut -d' ' -f1; }
newest() { sqlite3 "$1" 'SELECT max(id) FROM orders'; }
content() { sqlite3 "$1" '.sha3sum customers' '.sha3sum orders' '.sha3sum items'; }

# Prove that database $1 holds exactly the orders up to the newest it has: play the same orders
# into a copy of the first day's database and compare a hash over all content.
prove() {
    upto=$(newest "$1")
    rm -f replay.db
    cp first-day.db replay.db
    { echo 'PRAGMA synchronous = off;' && orders 100001 "$upto"; } | sqlite3 replay.db >replay.out
    [ "$(sqlite3 "$1" 'PRAGMA integrity_check')" = ok ] || fail "$1 is damaged"
    [ "$(content "$1")" = "$(content replay.db)" ] || fail "$1 differs from what the shop wrote"
    rm -f replay.db replay.out
}

say "2. A shop opens: customers, orders and items in SQLite"
sqlite3 "$db" >setup.out <<'SQL'
PRAGMA journal_mode = wal;
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, orders INTEGER NOT NULL);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
                    placed INTEGER NOT NULL, state TEXT NOT NULL);
CREATE INDEX orders_customer ON orders(customer_id);
CREATE INDEX orders_new ON orders(placed) WHERE state = 'new';
CREATE TABLE items(order_id INTEGER NOT NULL REFERENCES orders, line INTEGER NOT NULL,
                   product INTEGER NOT NULL, count INTEGER NOT NULL, price REAL NOT NULL,
                   PRIMARY KEY (order_id, line)) WITHOUT ROWID;
CREATE INDEX items_product ON items(product);
BEGIN;
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO customers SELECT i, printf('Customer %05d', i * 7877 % 20011), 5 FROM n;
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
INSERT INTO orders SELECT i, i * 7919 % 20000 + 1, 1700000000 + i, 'sent' FROM n;
INSERT INTO items SELECT o.id, k.value, o.id * 31 % 5000 + k.value, k.value + 1, o.id % 90 + 9.5
  FROM orders AS o, json_each('[0,1,2]') AS k WHERE k.value <= o.id % 3;
COMMIT;
SQL
sqlite3 "$db" "VACUUM INTO 'first-day.db'"
sqlite3 "$db" "SELECT '   ' || (SELECT count(*) FROM customers) || ' customers, ' ||
    (SELECT count(*) FROM orders) || ' orders, ' || (SELECT count(*) FROM items) || ' items, ' ||
    (SELECT page_count * page_size / 1000000 FROM pragma_page_count, pragma_page_size) || ' MB'"

say "3. Sluice backs it up while it is used"
echo "   sluice replicate shop.db $url"
"$program" replicate "$db" "$url" >daemon.log 2>&1 &
daemon=$!
mkfifo orders.pipe
orders 100001 >orders.pipe &
feeder=$!
# The sqlite3 shell is the shop. After each COMMIT has returned it prints the order's number and
# the time in milliseconds.
stdbuf -oL sqlite3 -separator ' ' -cmd '.timeout 5000' "$db" <orders.pipe >acknowledged.log 2>shop.err &
writer=$!
sleep 6
then=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
then_acked=$(last_acked)
echo "   $then  order $then_acked is in: remember this moment"
sleep "$(awk 'BEGIN { srand(); printf "%.2f", 3 + 3 * rand() }')"

say "4. The machine burns"
kill -9 "$writer" "$daemon" || fail "the shop or sluice has stopped: $(tail -n 3 shop.err daemon.log)"
burnt=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
burnt_ms=$(date +%s%3N)
wait "$writer" "$daemon" 2>/dev/null || true
writer='' daemon=''
[ -s shop.err ] && fail "the shop could not write: $(head -n 3 shop.err)"
acked=$(last_acked)
echo "   $burnt  SIGKILL to the shop and to sluice, in the middle of order $((acked + 1))"
rm -rf machine
echo "   The database, its WAL and everything that sluice kept beside it are gone."

say "5. Restore the newest state"
echo "   sluice restore -o restored.db $url"
"$program" restore -o restored.db "$url" >restore.log 2>&1 || fail "$(tail -n 1 restore.log)"
prove restored.db
got=$(newest restored.db)
echo "   Newest order: $got; acknowledged before the fire: $acked; missing:" \
    "$((acked > got ? acked - got : 0))."
if [ "$acked" -gt "$got" ]; then
    lost_ms=$(grep "^$((got + 1)) " acknowledged.log | cut -d' ' -f2)
    echo "   The first missing one was placed $((burnt_ms - lost_ms)) ms before the fire. Backup is" \
        "asynchronous: it looks once a second."
fi
echo "   Proof: the shop's $((got - 100000)) orders, played into a copy of the first day, give the" \
    "same content hash."
[ "$got" -ge "$then_acked" ] || fail "order $then_acked, seconds before the fire, is missing"

say "6. Restore the remembered moment"
echo "   sluice restore -timestamp $then -o earlier.db $url"
"$program" restore -timestamp "$then" -o earlier.db "$url" >restore.log 2>&1 ||
    fail "$(tail -n 1 restore.log)"
prove earlier.db
earlier=$(newest earlier.db)
echo "   Newest order: $earlier; at that moment the shop had $then_acked, the rest was" \
    "not yet in the store."
echo "   Proof: as above, the content hash is equal."
[ "$earlier" -le $((then_acked + 1)) ] || fail "order $earlier is younger than $then"
[ "$earlier" -gt 100000 ] || fail "no order of that day is in it"

say "7. The shop moves to a server"
echo "   sluice serve -data served -listen 127.0.0.1:0 -admin-listen 127.0.0.1:0"
"$program" serve -data served -listen 127.0.0.1:0 -admin-listen 127.0.0.1:0 >server.log 2>&1 &
server=$!
tries=0
until grep -q 'msg=serving' server.log; do
    kill -0 "$server" 2>/dev/null && [ $((tries += 1)) -le 100 ] || fail "$(tail -n 3 server.log)"
    sleep 0.1
done
clients=http://$(sed -n 's/.*msg=serving addr=\([^ ]*\).*/\1/p' server.log)
admin=http://$(sed -n 's/.*msg=serving.* admin=\([^ ]*\).*/\1/p' server.log)/v1/namespaces
# ask URL CURL-OPTION...
ask() { curl -sS --fail-with-body "$@" >answer.json || fail "$* gives $(cat answer.json)"; }
# served TENANT SQL: the one value that it gives.
served() { "$program" shell -csv -no-header -namespace "$1" "$clients" "$2"; }
ask -T restored.db "$admin/shop/import"
echo "   $clients, tenant shop: $(served shop 'SELECT count(*) FROM items') items"
served shop 'DELETE FROM items' >answer.json
echo "   A client forgets the WHERE of a DELETE: $(served shop 'SELECT count(*) FROM items') items"
ask -X POST "$admin/shop/fork/shop-before" -d '{"txid":"0000000000000001"}'
again=$(served shop-before 'SELECT count(*) FROM items')
echo "   Forked from the log, as it was before that: tenant shop-before has $again items"
[ "$again" = "$(sqlite3 restored.db 'SELECT count(*) FROM items')" ] || fail "items are missing"
kill -TERM "$server"
wait "$server" || fail "the server ended badly: $(tail -n 3 server.log)"
server=''

say "Done. The shop is back: $(pwd)/restored.db"
