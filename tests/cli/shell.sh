# shell.sh PROGRAM -- `sluice shell` from outside: files, options, failures, the terminal.
PROGRAM=$1
. "$(dirname "$0")/lib.sh"
unset SLUICE_TOKEN LIBSQL_AUTH_TOKEN

# feed TEXT ARGS...  like run, with TEXT on standard input
feed() {
    text=$1
    shift
    shown="$*"
    rc=0
    printf '%s' "$text" | "$PROGRAM" "$@" >"$dir/out" 2>"$dir/err" || rc=$?
}

# ---- Options ----
run shell && is 1 && err 'Error: a file or a URL required
Try: sluice help shell'
run shell no.db && is 1 && out '' && err "Error: there is no file 'no.db'
Try: sluice shell -create no.db"
holds test ! -e no.db
run shell -readonly no.db 'SELECT 1' && is 1 && err "Error: there is no file 'no.db'"
run shell -readonly -create no.db && is 1 && err_has 'one of -readonly and -create'
run shell -json -csv no.db && is 1 && err_has 'one of -json, -csv and -line'
run shell -token x no.db && is 1 && err_has "-token is for servers, and 'no.db' is a file"
run shell -namespace x no.db && is 1 && err_has '-namespace is for servers'
run shell -create http://h && is 1 && err_has '-readonly and -create are for files'
run shell -token x -token-file y http://h && is 1 && err_has 'one of -token and -token-file'
run shell -token-file nowhere http://h && is 1 && err_has nowhere
: >empty && run shell -token-file empty http://h && is 1 && err "Error: 'empty' holds no token"
run shell ws://h 'SELECT 1' && is 1 && err_has "the scheme 'ws' is not one of"
run shell http://127.0.0.1:1 'SELECT 1' && is 1 && err_has 'http://127.0.0.1:1: '
run shell x 1 2 3 4 5 6 7 8 && is 1 && err_has 'more than 8 arguments'
echo nonsense, and more of it than a header would have >text.db
run shell text.db 'SELECT 1' && is 1 && err_has "open database 'text.db': file is not a database"
# The token is in the environment, or it is refused, but it is never shown.
export SLUICE_TOKEN='very secret'
run shell http://127.0.0.1:1 'SELECT 1' && is 1 && err 'Error: the token is not a token'
unset SLUICE_TOKEN

# ---- Statements from the command line and from standard input ----
run shell -create a.db 'CREATE TABLE t(id INTEGER PRIMARY KEY, name)' "INSERT INTO t VALUES(1, 'one'), (2, NULL)" &&
    is 0 && out '' && err ''
LC_ALL=C run shell a.db 'SELECT * FROM t' && is 0 && out '+----+------+
| id | name |
+----+------+
|  1 | one  |
|  2 | NULL |
+----+------+'
LC_ALL=C.UTF-8 run shell a.db 'SELECT 1 AS a' && is 0 && out '┌───┐
│ a │
├───┤
│ 1 │
└───┘'
run shell -json a.db 'SELECT * FROM t' && is 0 && out '[
{"id": 1, "name": "one"},
{"id": 2, "name": null}
]'
run shell -csv a.db 'SELECT * FROM t' && is 0 && out 'id,name
1,one
2,'
run shell -csv -no-header a.db 'SELECT id FROM t' && is 0 && out '1
2'
run shell -line a.db 'SELECT * FROM t WHERE id = 1' && is 0 && out '  id = 1
name = one'
feed 'SELECT 1 AS a;
.mode csv
SELECT
  2 AS b -- no semicolon' shell -line a.db && is 0 && out 'a = 1
b
2'
run shell -csv -timer a.db 'SELECT 1 AS a' && is 0 && out 'a
1' && err_has 'Time: '
feed 'SELECT 1 AS a;.quit
' shell -csv a.db && is 1
feed 'SELECT 1 AS a;
.quit
SELECT 2 AS b;' shell -csv a.db && is 0 && out 'a
1'

# ---- Failures end it, and say where ----
feed 'SELECT 1 AS a;

SELECT id,
  nome FROM t; SELECT 3;' shell -csv a.db && is 1 && out 'a
1' && err 'Error: standard input:4: no such column: nome
      nome FROM t;
      ^'
run shell a.db 'SELEC 1' 'SELECT 2' && is 1 && out '' && err 'Error: argument 1:1: near "SELEC": syntax error
    SELEC 1
    ^'
run shell a.db "INSERT INTO t VALUES(3, 'x')" "INSERT INTO t VALUES(3, 'y')" && is 1 &&
    err 'Error: argument 2:1: UNIQUE constraint failed: t.id'
run shell a.db 'BEGIN; DELETE FROM t' && is 1 && err 'Error: a transaction was open at the end; it was rolled back'
run shell -csv -no-header a.db 'SELECT count(*) FROM t' && out 3
run shell -readonly a.db 'DELETE FROM t' && is 1 && err 'Error: argument 1:1: attempt to write a readonly database'
run shell a.db "ATTACH 'b.db' AS b" && is 1 && err_has 'not authorized (ATTACH'
holds test ! -e b.db
run shell a.db .nope && is 1 && err 'Error: argument 1:1: unknown command .nope; .help lists them'
echo 'SELECT 1; SELECT nope;' >bad.sql
run shell -csv a.db '.read bad.sql' 'SELECT 2' && is 1 && out '1
1' && err 'Error: bad.sql:1: no such column: nope
    SELECT nope;
           ^'
[ -e /dev/full ] && {
    rc=0
    shown='shell >/dev/full'
    "$PROGRAM" shell a.db 'SELECT 1' >/dev/full 2>err || rc=$?
    is 1 && err_has 'write to standard output'
}

# ---- A dump through a pipe makes the same database ----
run shell a.db "CREATE TABLE big(a, b)" "INSERT INTO big SELECT value, randomblob(2000) FROM
    (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 500) SELECT value FROM n)" \
    'CREATE VIRTUAL TABLE f USING fts5(x)' "INSERT INTO f VALUES('some words')" && is 0
run shell a.db .dump && is 0 && err '' && cp out a.sql
rc=0 shown='.dump | shell'
"$PROGRAM" shell -create b.db <a.sql >out 2>err || rc=$?
is 0 && out '' && err ''
run shell b.db .dump && is 0 && holds cmp out a.sql
if command -v sqlite3 >/dev/null; then
    sqlite3 c.db <a.sql && run shell c.db .dump && is 0 && holds cmp out a.sql
fi

# ---- On a terminal: prompts, history, a failure is not the end ----
# (`exec`: a shell that stays in between would answer for the interrupt with its own status.)
if command -v script >/dev/null && script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    export XDG_STATE_HOME="$dir/state" TERM=dumb LC_ALL=C
    shown='shell on a terminal' rc=0
    # Nothing is typed before it is waited for: `seen TEXT` waits until the terminal shows it.
    seen() {
        for _ in $(seq 600); do
            grep -qF -e "$1" out && return
            sleep 0.1
        done
    }
    : >out
    (seen 'sluice> '; printf "SELECT nope;\nSELECT 40\n+ 2 AS x;\nBEGIN;\n"; seen 'sluice*> '; printf '\004') |
        script -qefc "exec '$PROGRAM' shell a.db" /dev/null >out 2>err || rc=$?
    is 0 && out_has 'sluice> ' && out_has '   ...> ' && out_has 'sluice*> ' &&
        out_has 'Error: no such column: nope' && out_has '| 42 |' && out_has '1 row'
    holds test "$(stat -c %a state/sluice/history)" = 600
    holds test "$(stat -c %a state/sluice)" = 700
    holds grep -q 'nope' state/sluice/history
    rc=0
    : >out
    (seen 'sluice> '; printf "SELECT nope;\nSELECT 40 + 2 AS x;\n"; seen 'Error: '; sleep 0.5) |
        script -qefc "exec '$PROGRAM' shell -bail a.db" /dev/null >out 2>err || rc=$?
    is 1 && holds test "$(grep -c '| 42 |' out)" -eq 0
    rc=0
    : >out
    (seen 'sluice> '
        printf "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n;\n"
        # One that comes before the statement runs ends nothing.
        for _ in $(seq 60); do
            sleep 0.7
            grep -qF interrupted out && break
            printf '\003'
        done
        printf 'SELECT 40 + 2 AS x;\n'; seen '| 42 |'; printf '\004') |
        timeout 100 script -qefc "exec '$PROGRAM' shell a.db" /dev/null >out 2>err || rc=$?
    is 0 && out_has interrupted && out_has '| 42 |'
fi
finish
