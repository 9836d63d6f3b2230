# shell_remote.sh PROGRAM URL [NAMESPACE] -- `sluice shell` on a server, whose database is used up.
#
# The same questions to any server that libSQL clients can use.
PROGRAM=$1
url=$2
here=$(cd "$(dirname "$0")" && pwd)
set -- ${3:+-namespace "$3"}
. "$here/lib.sh"
sh_() { run shell "$@"; }

sh_ "$@" -csv "$url" "DROP TABLE IF EXISTS shell_t" "DROP TABLE IF EXISTS shell_csv" \
    "DROP TABLE IF EXISTS shell_many" && is 0
sh_ "$@" -json "$url" "CREATE TABLE shell_t(id INTEGER PRIMARY KEY, t TEXT, r REAL, b BLOB);
    INSERT INTO shell_t VALUES(9223372036854775807, 'ä' || char(10, 39), 0.1, x'00ff'),
    (-9007199254740993, '', 1e300, x''), (0, NULL, -2.0, NULL);
    SELECT * FROM shell_t ORDER BY id" && is 0 && err '' && out '[
{"id": -9007199254740993, "t": "", "r": 1e+300, "b": ""},
{"id": 0, "t": null, "r": -2.0, "b": null},
{"id": 9223372036854775807, "t": "ä\n'"'"'", "r": 0.1, "b": "AP8="}
]'
sh_ "$@" "$url" "SELECT 1;
SELECT nope FROM shell_t;" && is 1 && err 'Error: argument 1:2: no such column: nope
    SELECT nope FROM shell_t;
           ^'
sh_ "$@" "$url" "INSERT INTO shell_t(id) VALUES(0); SELECT 1" && is 1 && out '' &&
    err 'Error: argument 1:1: UNIQUE constraint failed: shell_t.id'

# A transaction lives from statement to statement, and ends with the shell.
sh_ "$@" -csv -no-header "$url" "BEGIN; DELETE FROM shell_t" "SELECT count(*) FROM shell_t" && is 1 &&
    out 0 && err 'Error: a transaction was open at the end; it was rolled back'
sh_ "$@" -csv -no-header "$url" "SELECT count(*) FROM shell_t" && is 0 && out 3
sh_ "$@" "$url" "BEGIN; DELETE FROM shell_t WHERE id = 0; COMMIT" && is 0 && out ''
sh_ "$@" -csv -no-header "$url" "SELECT count(*) FROM shell_t" && is 0 && out 2

# What is asked of the schema.
sh_ "$@" "$url" .tables && is 0 && out_has shell_t
sh_ "$@" "$url" ".schema shell_t" && is 0 &&
    out 'CREATE TABLE shell_t(id INTEGER PRIMARY KEY, t TEXT, r REAL, b BLOB);'
sh_ "$@" "$url" ".dump shell_t" && is 1 && err_has 'a server gives the dump of a whole database'

# CSV: all of it or nothing.
printf 'id,t\r\n1,"a ""q"", b"\r\n2,\r\n3,""\r\n' >in.csv
sh_ "$@" -csv "$url" ".import --csv in.csv shell_csv" "SELECT *, typeof(id) AS y FROM shell_csv" && is 0 &&
    out 'id,t,y
1,"a ""q"", b",integer
2,,integer
3,"",integer'
printf 'id,t\n100,x\n9223372036854775807,x\n' >in.csv
sh_ "$@" "$url" ".import in.csv shell_t" && is 1 &&
    err "Error: argument 1:1: 'in.csv' line 3: UNIQUE constraint failed: shell_t.id"
sh_ "$@" -csv -no-header "$url" "SELECT count(*) FROM shell_t" && is 0 && out 2
seq 1 3000 | awk 'BEGIN { print "a,b" } { print $1 ",text " $1 }' >in.csv
sh_ "$@" -csv -no-header "$url" ".import -csv in.csv shell_many" "SELECT count(*), sum(a) FROM shell_many" &&
    is 0 && out 3000,4501500

# Its dump makes a file with the same rows.
sh_ "$@" "$url" .dump && is 0 && cp out dump.sql && run shell -create copy.db ".read dump.sql" && is 0 && err ''
for t in shell_t shell_csv shell_many; do
    sh_ "$@" -csv "$url" "SELECT *, rowid FROM $t ORDER BY rowid" && is 0 && cp out there
    run shell -csv copy.db "SELECT *, rowid FROM $t ORDER BY rowid" && is 0
    holds cmp there out
done
finish
