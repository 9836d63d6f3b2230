# e2e.sh PROGRAM -- the command line from outside: output, messages, exit status.
PROGRAM=$1
. "$(dirname "$0")/lib.sh"
url=file://$dir/rep
one=0000000000000001
two=0000000000000002

# ---- The program itself ----
run && is 1 && out_has 'The commands are:'
run help && is 0 && out_has 'replicate' && err ''
run -h && is 0
run --help && is 0
run -version && is 0
run --version && is 0 && out_has 'v'
run -x && is 1 && out_has 'The commands are:'
run bogus && fails 'Error: sluice bogus: unknown command
Try: sluice help'
for c in databases ltx probe replicate restore status url version help wal; do
    run help $c && is 0 && out_has "sluice $c" && err ''
    run $c --help && is 0 && out_has 'Usage:' && err ''
    run $c -nonsense && is 1 && err "Error: flag provided but not defined: -nonsense
Try: sluice help $c"
done
run help bogus && is 1 && err_has "sluice help: no command 'bogus'"
run help && out_lists=$(grep -c gen-docs "$dir/out")
holds test "$out_lists" -eq 0
run version && is 0 && out_has 'v'
run version -verbose && is 0 && out_has 'SQLite:      3.'
if [ -c /dev/full ]; then
    rc=0
    "$PROGRAM" help >/dev/full 2>"$dir/err" || rc=$?
    shown='help >/dev/full' && is 1 && err_has 'Error: write to standard output'
fi

# ---- Configuration ----
run databases -config config.yml && is 0 && err '' && out "path$(printf "%$((${#dir} + 5))s" '')replica
$dir/app.db  file
$dir/two.db  s3"
run databases --json --config=config.yml && is 0 && out "[
  {
    \"path\": \"$dir/app.db\",
    \"replica\": \"file\"
  },
  {
    \"path\": \"$dir/two.db\",
    \"replica\": \"s3\"
  }
]"
run databases -config nope.yml && fails "Error: config file not found: $dir/nope.yml
Try: sluice databases -config /path/to/litestream.yml"
run databases -config config.yml x && is 1 && err_has 'Error: too many arguments'
printf 'dbs:\n  - path: a\n    replica: {path: r, sync-interval: 0s}\n' >bad.yml
run databases -config bad.yml && fails \
    "Error: $dir/bad.yml:3: dbs[0].replica.sync-interval: must be greater than 0 (got 0s)"
printf 'dbs:\n  - {dir: /d, pattern: "*.db", replica: {path: r}}\n' >dirs.yml
for c in databases status replicate; do
    run $c -config dirs.yml && is 1 && err_has 'directory databases are not supported yet'
done
printf 'dbs: []\n' >empty.yml
run databases -config empty.yml && is 0 && out 'path  replica'
run databases -json -config empty.yml && is 0 && out '[]'
LITESTREAM_CONFIG=$dir/empty.yml
export LITESTREAM_CONFIG
run databases && is 0 && out 'path  replica'
unset LITESTREAM_CONFIG
printf 'dbs: [{path: "/x/$NAME_OF_DB", replica: {path: r}}]\n' >env.yml
NAME_OF_DB=y
export NAME_OF_DB
run databases -config env.yml && is 0 && out_has '/x/y '
run databases -no-expand-env -config env.yml && is 0 && out_has '/x/$NAME_OF_DB'

# ---- status ----
run status -config empty.yml && is 0 && out 'database  status  local txid  wal size'
run status -json -config empty.yml && is 0 && out '[]'
run status -config config.yml app.db && is 0 && out_has "$dir/app.db  no database  -           -"
: >app.db
printf 12345 >app.db-wal
run status -config config.yml app.db && is 0 && out_has 'not initialized  -           5 B'
run status -json -config config.yml app.db && is 0 && out_has '"status": "not initialized"'
run status -config config.yml none.db && is 1 &&
    err_has "Error: database not found in config: $dir/none.db"
rm -f app.db app.db-wal

# ---- ltx ----
table="level  min_txid          max_txid          size  created
0      $one  $one  567   2026-01-02T03:04:05Z
0      $two  $two  568   2026-01-02T03:05:06Z"
run ltx "$url" && is 0 && out "$table" && err ''
run ltx -config config.yml app.db && is 0 && out "$table"
run ltx -level all "$url" && is 0 && out "$table"
run ltx "$url" -level=0 && is 0 && out "$table"
run ltx -level 9 "$url" && is 0 && out 'level  min_txid  max_txid  size  created'
run ltx "file://$dir/none" && is 0 && out 'level  min_txid  max_txid  size  created'
run ltx -json "file://$dir/none" && is 0 && out '[]'
run wal -json "$url" && is 0 &&
    err "Warning: 'wal' command is deprecated, please use 'ltx' instead" && out "[
  {
    \"level\": 0,
    \"min_txid\": \"$one\",
    \"max_txid\": \"$one\",
    \"size\": 567,
    \"timestamp\": \"2026-01-02T03:04:05Z\"
  },
  {
    \"level\": 0,
    \"min_txid\": \"$two\",
    \"max_txid\": \"$two\",
    \"size\": 568,
    \"timestamp\": \"2026-01-02T03:05:06Z\"
  }
]"
run ltx && fails 'Error: database path or replica URL required
Try: sluice ltx /path/to/db'
run ltx a b && is 1 && err_has 'Error: too many arguments'
run ltx -level 12 "$url" && is 1 &&
    err_has 'invalid value "12" for flag -level: level must be between 0 and 9'
run ltx -level x "$url" && is 1 &&
    err_has 'invalid value "x" for flag -level: invalid level: must be 0-9 or "all"'
run ltx -config config.yml "$url" && fails \
    'Error: cannot specify a replica URL and the -config flag'
sed 's,s3://bucket/two,s3://bucket/two?part-size=1KiB,' config.yml >small.yml
run ltx -config small.yml two.db && is 1 && err_has "part-size"
run ltx -config config.yml none.db && fails "Error: database not found in config: $dir/none.db
Try: sluice databases -config $dir/config.yml"
run ltx 'sftp://user:hunter2@host/p?colour=red' && is 1 && err_has "no setting 'colour'"
holds test "$(grep -c hunter2 err)" -eq 0

# ---- restore ----
run restore "$url" && fails "Error: -o is required when restoring from a replica URL
Try: sluice restore -o /path/to/db $url"
run restore && is 1 && err_has 'Error: database path or replica URL required'
run restore -o a b c && is 1 && err_has 'Error: too many arguments'
[ -e /etc/litestream.yml ] || { run restore -o a "$dir/nowhere" && is 1 && err_has "'$dir/nowhere' is no URL and no folder"; }
run restore -o r.db "$url" && is 0 && err '' && out_has 'msg="restored database"' && out_has "$two"
holds test "$(wc -c <r.db)" -gt 0
cp r.db newest.db
run restore -o r.db "$url" && fails \
    'Error: cannot restore, output path already exists and is not empty: r.db. Use -force to overwrite'
run restore -o r.db -if-db-not-exists "$url" && is 0 && out_has 'msg="database already exists, skipping"'
run restore -json -o r.db -if-db-not-exists "$url" && is 0 && out '' &&
    err_has 'database already exists, skipping'
run restore -force -json -txid $one -o r.db "$url" -integrity-check=full && is 0 &&
    out_has '"db_path": "r.db"' && out_has '"replica": "file"' && out_has "\"txid\": \"$one\"" &&
    out_has '"duration_ms": ' && out_has '"integrity_check": "full"' &&
    err_has 'post-restore integrity check passed'
holds test "$(cksum <r.db)" != "$(cksum <newest.db)"
holds test "$(ls r.db*)" = r.db
run restore -timestamp 2026-01-02T03:05:00Z -o t.db "$url" && is 0
holds cmp -s t.db r.db
run restore -timestamp 2026-01-02T04:05:00+01:00 -config config.yml -o t2.db app.db && is 0
holds cmp -s t2.db r.db
for when in 2020-01-01T00:00:00Z 2120-01-01T00:00:00Z; do
    run restore -timestamp $when -o u.db "$url" && is 1 && err_has 'Error: timestamp does not exist'
done
run restore -timestamp 2120-01-01T00:00:00Z -config config.yml -o u.db app.db && is 0
holds cmp -s u.db newest.db
run restore -timestamp 2020-01-01T00:00:00Z -config config.yml -o v.db app.db && is 1 &&
    err_has 'Error: no matching backup files available'
run restore -timestamp yesterday -o v.db "$url" && is 1 &&
    err_has 'Error: invalid -timestamp, must specify in ISO 8601 format (e.g. 2000-01-01T00:00:00Z)'
run restore -txid $one -timestamp 2026-01-02T03:05:00Z -o v.db "$url" && is 1 &&
    err_has 'cannot use -txid and -timestamp together'
run restore -txid 0000000000000009 -o v.db "$url" && is 1 &&
    err_has 'Error: no matching backup files available' && err_has 'Try: sluice ltx -level all'
run restore -txid 1 -o v.db "$url" && is 1 &&
    err_has 'Error: invalid value "1" for flag -txid: invalid txid format'
run restore -o v.db "file://$dir/none" && is 1 && err_has 'Error: no matching backup files available'
run restore -if-replica-exists -o v.db "file://$dir/none" && is 0 &&
    out_has 'msg="no matching backups found"'
run restore -json -if-replica-exists -o v.db "file://$dir/none" && is 0 && out '' &&
    err_has 'no matching backups found'
run restore -integrity-check some -o v.db "$url" && is 1 &&
    err_has 'Error: invalid -integrity-check value: some'
run restore -f -o v.db "$url" && is 1 && err_has 'follow mode is not available yet'
run restore -parallelism x -o v.db "$url" && is 1 && err_has 'for flag -parallelism: parse error'
holds test ! -e v.db
mkdir folder
run restore -o folder "$url" && fails 'Error: cannot restore, output path is a directory: folder'
run restore -force -o folder "$url" && is 1
run restore -o deep/er/x.db "$url" && is 0
holds test -s deep/er/x.db
run restore -config config.yml "$dir/app.db" && is 0
holds cmp -s app.db newest.db
run restore -config config.yml none.db && is 1 && err_has "database not found in config: $dir/none.db"
: >e.db
run restore -o e.db "$url" && is 0
holds cmp -s e.db newest.db

# Sidecar files: what SQLite would apply to the new database is refused, or goes with -force.
: >s.db
: >s.db-wal
run restore -o s.db "$url" && fails \
    'Error: cannot restore, SQLite sidecar path already exists: s.db-wal. Use -force to overwrite'
rm s.db
run restore -o s.db "$url" && is 0
rm -f s.db*
for side in -wal -journal; do
    printf x >s.db$side
    run restore -o s.db "$url" && is 1 && err_has "sidecar path already exists: s.db$side"
    holds test ! -e s.db
    run restore -force -o s.db "$url" && is 0
    holds test ! -e s.db$side
    holds cmp -s s.db newest.db
    rm -f s.db
done

# A restore that fails leaves the old database alone, even with -force.
cp -r rep broken
printf garbage >>broken/ltx/0/$two-$two.ltx
printf 'old' >o.db
printf 'wal' >o.db-wal
run restore -force -o o.db "file://$dir/broken" && is 1 && err_has "Error: restore 'o.db'"
holds test "$(cat o.db o.db-wal)" = oldwal
run restore -force -o o.db "file://$dir/none" && is 1
holds test "$(cat o.db o.db-wal)" = oldwal
holds test "$(echo o.db*)" = 'o.db o.db-wal'

# ---- restore of a Litestream 0.3 backup ----
old=v3/generations/0123456789abcdef
mkdir -p $old/snapshots $old/wal
base64 -d >$old/snapshots/00000000.snapshot.lz4 <<'END'
BCJNGGRApywBAAD2ElNRTGl0ZSBmb3JtYXQgMwAQAAICAEAgIAAAAAMAAAAEAAEADBAALwEAAQAPYAMALo36DQkArw
8YAA/fD3APGAABAP//////////////////oPwOVgMGFy0tAWF0YWJsZV9saXRlc3RyZWFtX2xvY2sQAOwEQ1JFQVRF
IFRBQkxFIB4A/QcgKGlkIElOVEVHRVIpbQIHFysrAYERWQA7c2VxDwAfA1cABjhzZXFWAOAgUFJJTUFSWSBLRVksIB
0ABG8AgR8BBhcPDwEvbgA5dHQCUgBAdCh4KZwPfwEP/AAP/AABAP///////////////////+1AAgECCQAQPwAQAAEA
////////////////////9Q8AEP////////////////////dQAAAAAAAAAAAAblVuTA==
END
run restore -json -o v3.db "file://$dir/v3" && is 0 && out_has '"txid": ""'
holds cmp -s v3.db r.db
run restore -dry-run -o v3b.db "file://$dir/v3" && is 1 && err_has 'Litestream 0.3'
# Beside a log, the newer of the two is meant.
mkdir both
cp -rp v3/generations rep/ltx both
touch -d 2026-01-02T03:04:30Z both/generations/*/snapshots/*
run restore -o b1.db "file://$dir/both" && is 0
holds cmp -s b1.db newest.db
run restore -o b2.db -timestamp 2026-01-02T03:05:00Z "file://$dir/both" && is 0 && out_has 'txid=""'
run restore -o b3.db -txid $two "file://$dir/both" && is 0 && out_has "txid=$two"
touch -d 2026-01-02T04:00:00Z both/generations/*/snapshots/*
run restore -o b4.db "file://$dir/both" && is 0 && out_has 'txid=""'

# ---- restore -dry-run ----
run restore -dry-run -o p.db "$url" && is 0 && err '' && out "Restore plan:
  source: $url
  target: p.db
  replica: file
  txid range: $one - $two

Files to fetch:
level  file                                   min_txid          max_txid          size  timestamp
0      $one-$one.ltx  $one  $one  567   2026-01-02T03:04:05Z
0      $two-$two.ltx  $two  $two  568   2026-01-02T03:05:06Z"
run restore -dry-run -json -txid $one -config config.yml app.db && is 0 && out "{
  \"source\": \"app.db\",
  \"target_path\": \"$dir/app.db\",
  \"replica\": \"file\",
  \"min_txid\": \"$one\",
  \"max_txid\": \"$one\",
  \"files\": [
    {
      \"level\": 0,
      \"name\": \"$one-$one.ltx\",
      \"min_txid\": \"$one\",
      \"max_txid\": \"$one\",
      \"size\": 567,
      \"timestamp\": \"2026-01-02T03:04:05Z\"
    }
  ]
}"
run restore -dry-run -o p.db "file://$dir/none" && is 1 &&
    err_has 'Error: no matching backup files available'
holds test ! -e p.db

# ---- replicate: what is refused before anything runs ----
run replicate a.db && fails 'Error: must specify at least one replica URL for a.db
Try: sluice replicate a.db file:///path/to/replica'
run replicate -config config.yml a.db "$url" && is 1 &&
    err_has 'Error: cannot specify a replica URL and the -config flag'
run replicate a.db "$url" "$url" && is 1 &&
    err_has 'Error: multiple replicas on a single database are no longer supported'
run replicate -once -exec true a.db "$url" && is 1 && err_has 'cannot specify -once flag with -exec'
run replicate -force-snapshot a.db "$url" && is 1 &&
    err_has 'cannot specify -force-snapshot flag without -once'
run replicate -enforce-retention a.db "$url" && is 1 &&
    err_has 'cannot specify -enforce-retention flag without -once'
run replicate -once -enforce-retention a.db "$url" && is 1 && err_has 'retention is not available yet'
run replicate -ltx-encoding zip a.db "$url" && is 1 && err_has 'must be one of frame|block'
run replicate -config empty.yml && is 1 && err_has 'no databases specified in configuration'
run replicate -config nope.yml && is 1 && err_has "Error: config file not found: $dir/nope.yml"

# ---- replicate: what the configuration asks for and is not there yet is said, once ----
cat >warn.yml <<END
addr: ":9090"
mcp-addr: ":3001"
socket: {enabled: true}
heartbeat-url: http://host/hunter2
colour: red
logging: {level: loud}
dbs:
  - path: w.db
    replica: {path: w}
END
cp newest.db w.db
run replicate -once -config warn.yml && is 0 && err '' && out_has 'msg=sluice version=v'
for key in mcp-addr socket heartbeat-url; do
    holds test "$(grep -c "level=WARN msg=\"$key is not available yet, ignoring\"" out)" -eq 1
done
out_has 'unknown log level, using info' && out_has 'warn.yml:5: colour: unknown key; it is ignored'
holds test "$(grep -c hunter2 out)" -eq 0
run status -config warn.yml && is 0 && out_has "w.db  ok      $one"
run ltx -config warn.yml w.db && is 0 && out_has "0      $one  $one"
run replicate -once -config warn.yml -log-level error && is 0 && out ''
LOG_LEVEL=error
export LOG_LEVEL
run replicate -once -config warn.yml && is 0 && out ''
run replicate -once -log-level info -config warn.yml && is 0 && out_has 'level=INFO'

finish
