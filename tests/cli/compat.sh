# compat.sh PROGRAM -- the same command lines to litestream and to sluice: same output, same status.
#
# Their message on a wrong -timestamp has a no-break space in it, ours has not; that is evened out.
#
# both ARGS...      status, output and the "Error:" line must be equal, once the name is exchanged
# both_fail ARGS... both fail, and our "Error:" line has theirs in it (we may say more, such as the
#                   line of the file); what else they print is not compared
PROGRAM=$1
if ! command -v litestream >/dev/null 2>&1; then
    echo "SKIPPED: there is no litestream in PATH to compare with"
    exit 77
fi
version=$(litestream version)
case $version in
v0.5.1[6-9]* | v0.5.[2-9][0-9]*) ;;
*)
    echo "SKIPPED: litestream $version is too old to compare with, 0.5.16 is needed"
    exit 77
    ;;
esac
. "$(dirname "$0")/lib.sh"
url=file://$dir/rep
nbsp=$(printf '\302\240')
echo "comparing with litestream $version"

theirs() {
    their_rc=0
    litestream "$@" >"$dir/their_out" 2>"$dir/their_err" </dev/null || their_rc=$?
    their_error=$(grep '^Error: ' "$dir/their_err" |
        sed "s/litestream/sluice/g; s/$nbsp/ /g")
}

both() {
    theirs "$@"
    run "$@"
    is "$their_rc"
    out "$(cat "$dir/their_out")"
    what="error '$their_error'" && check test "$(grep '^Error: ' "$dir/err")" = "$their_error"
}

both_fail() {
    theirs "$@"
    run "$@"
    what='litestream to fail' && check test "$their_rc" -ne 0
    is 1
    ours=$(grep '^Error: ' "$dir/err")
    case $ours in *"${their_error#Error: }"*) same=0 ;; *) same=1 ;; esac
    what="error '$their_error'" && check test "$same" -eq 0
}

for level in 0 1 9 09 all; do
    both ltx -level $level "$url"
    both ltx -json -level $level "$url"
done
both ltx -config config.yml "$dir/app.db"
both ltx -config config.yml app.db
both wal "$url"
both ltx "file://$dir/none"
both ltx -json "file://$dir/none"
both ltx -- "$url"
both ltx -level=0 --json "$url"
both ltx -json=false "$url"
both databases -config config.yml
both databases -json -config config.yml
both status -config config.yml
both status -json -config config.yml
printf 'dbs: []\n' >empty.yml
for c in databases status; do
    both $c -config empty.yml
    both $c -json -config empty.yml
done
both restore -dry-run -o x.db "$url"
both restore -dry-run -json -o x.db "$url"
both restore -dry-run -json -txid 0000000000000001 -o x.db "$url"
both restore -dry-run -config config.yml app.db
both restore -dry-run -json -config config.yml -o y.db "$dir/app.db"
both restore -dry-run -json -timestamp 2026-01-02T03:05:00Z -o x.db "$url"
both restore -dry-run -json -timestamp 2120-01-02T03:05:00Z -config config.yml app.db

# Failures whose message is the same word for word.
both ltx
both ltx a b
both ltx -config none.yml app.db
both ltx -config config.yml none.db
both ltx -config config.yml "$url"
both databases -config none.yml
both databases -config config.yml x
both databases -config config.yml -
both restore
both restore "$url"
both restore a b
both restore -o o.db "file://$dir/none"
both restore -dry-run -o o.db "file://$dir/none"
both restore -txid 0000000000000009 -o o.db "$url"
both restore -integrity-check some -o o.db "$url"
both restore -timestamp x -o o.db "$url"
both restore -timestamp 2020-01-01T00:00:00Z -config config.yml -o o.db app.db
both restore -config config.yml none.db
both replicate a.db
both replicate -config config.yml a.db "$url"
both replicate -once -exec true a.db "$url"
both replicate -force-snapshot a.db "$url"
both replicate -enforce-retention a.db "$url"
both bogus
mkdir folder
both restore -o folder "$url"
printf old >full.db
both restore -o full.db "$url"
: >side.db
: >side.db-shm
both restore -o side.db "$url"

# Failures that we explain at more length; and where they also print their usage.
both_fail restore -timestamp 2020-01-01T00:00:00Z -o o.db "$url"
both_fail restore -txid 1 -o o.db "$url"
both_fail restore -parallelism x -o o.db "$url"
both_fail restore -json=maybe -o o.db "$url"
both_fail restore -follow-interval 1x -o o.db "$url"
both_fail restore -nope -o o.db "$url"
both_fail ltx -level
both_fail ltx -level 12 "$url"
both_fail ltx -level x "$url"
both_fail ltx ---json "$url"
both_fail ltx -=x "$url"
both_fail replicate a.db "$url" "$url"

# What a restore leaves behind.
theirs restore -o theirs.db "$url"
run restore -o ours.db "$url"
is 0
holds cmp -s theirs.db ours.db
holds test "$(stat -c %a theirs.db)" = "$(stat -c %a ours.db)"
theirs restore -o t/a/x.db "$url"
run restore -o o/a/x.db "$url"
holds test "$(stat -c %a t t/a)" = "$(stat -c %a o o/a)"
theirs restore -json -integrity-check quick -force -o theirs.db "$url"
run restore -json -integrity-check quick -force -o ours.db "$url"
same_json() { sed 's/theirs/ours/; s/"duration_ms": [0-9]*/"duration_ms": 0/' "$1"; }
out_json=$(same_json out)
holds test "$out_json" = "$(same_json their_out)"
for option in -if-db-not-exists; do
    theirs restore $option -o theirs.db "$url"
    run restore $option -o ours.db "$url"
    is "$their_rc" && out_has "$(sed 's/.*msg=//' "$dir/their_out")"
done
theirs restore -if-replica-exists -o o.db "file://$dir/none"
run restore -if-replica-exists -o o.db "file://$dir/none"
is "$their_rc" && out_has "$(sed 's/.*msg=//' "$dir/their_out")"

# The environment in the configuration: each as a path, quoted so that YAML takes anything.
FOO=foo1 BAR_2=b
export FOO BAR_2
while IFS= read -r text; do
    printf 'dbs:\n  - path: "/%s|"\n    replica: {path: /x}\n# }\n' "$text" >env.yml
    both databases -config env.yml
    both databases -no-expand-env -config env.yml
done <<'END'
$FOO
${FOO}z
$FOO.z
$FOO-$BAR_2
$UNSET.z
$$z
$ z
$1z$12
${}z
${1}z
$.z$,$/
$*$#$@$!$?$-z
${UNSET:-d}
${FOO BAR}
$_z
${*}z
$(FOO)
z$
${FOO}${BAR_2}
$FOO$BAR_2
$${FOO}
$FOO_
${$}z
$9FOO
${ FOO }z
END

# Paths.
for path in rel q/../a/./b//c ../a /a/../../b/ '~' '~root/x' '~/' 'sqlite://~/x' sqlite3:///q/x \
    sqlite3://rel 5 'a b'; do
    printf 'dbs:\n  - path: "%s"\n    replica: {path: /x}\n' "$path" >path.yml
    both databases -config path.yml
done

# Values: both take them, or both do not.
both_judge() {
    theirs databases -config judge.yml
    run databases -config judge.yml
    is "$their_rc"
}
while IFS= read -r line; do
    printf '%s\ndbs:\n  - path: /a\n    replica: {path: /r}\n' "$line" >judge.yml
    both_judge
done <<'END'
snapshot: {interval: 0s}
snapshot: {interval: 1h30m}
snapshot: {interval: 10}
snapshot: {interval: 1d}
snapshot: {interval: 1.5h}
snapshot: {retention: -1s}
snapshot:
levels: [{interval: 0s}]
levels: [{interval: 5s}, {interval: 1h}]
levels: [{}]
levels: []
levels:
l0-retention: 0s
l0-retention: 1us
l0-retention-check-interval: 0s
heartbeat-url: ftp://x
heartbeat-url: http://x
heartbeat-interval: 10s
heartbeat-interval: 1m
shutdown-sync-timeout: 0
shutdown-sync-timeout: -1s
shutdown-sync-interval: 0s
socket: {permissions: 0600}
socket: {permissions: 0o644}
socket: {permissions: 0x1ff}
socket: {permissions: -1}
socket: {enabled: yes}
socket: {enabled: maybe}
retention: {enabled: off}
retention: {enabled: 1}
retention: 5
logging: {level: debug, type: text}
verify-compaction: on
sync-interval: 2s
sync-interval: nonsense
part-size: 5MiB
part-size: 5.5 mb
part-size: lots
foo: {bar: [1, 2]}
path: /ignored
- 5
a: b: c
x: [
x: "\q"
END
while IFS= read -r line; do
    printf 'dbs:\n  - %s\n' "$line" >judge.yml
    both_judge
done <<'END'
{path: /a, replica: {path: /r}}
{path: /a}
{path: /a, replica: }
{path: /a, replica: {}}
{path: /a, replica: [x]}
{path: /a, replicas: [{path: /r}]}
{path: /a, replicas: [{path: /r}, {path: /s}]}
{path: /a, replica: {path: /r}, replicas: [{path: /r}]}
{path: /a, dir: /b, replica: {path: /r}}
{replica: {path: /r}}
{path: "", replica: {path: /r}}
{dir: /b, replica: {path: /r}}
{path: /a, watch: true, replica: {path: /r}}
{path: /a, meta-dir: /m, replica: {path: /r}}
{path: /a, meta-path: /m, replica: {path: /r}}
{path: /a, replica: {path: /r, sync-interval: 0s}}
{path: /a, replica: {path: /r, sync-interval: 5s}}
{path: /a, replica: {path: /r, age: {recipients: [x]}}}
{path: /a, replica: {path: /r, age: {}}}
{path: /a, replica: {path: "s3://x/y"}}
{path: /a, replica: {url: "file:///x", path: /r}}
{path: /a, replica: {url: "file:///x", type: s3}}
{path: /a, replica: {url: "s3://b/x", bucket: c}}
{path: /a, replica: {url: "s3://b/x", region: c}}
{path: /a, replica: {url: "http://b/x"}}
{path: /a, replica: {url: "/plain"}}
{path: /a, replica: {type: foo, path: /r}}
{path: /a, replica: {type: file}}
{path: /a, monitor-interval: 0s, replica: {path: /r}}
{path: /a, monitor-interval: abc, replica: {path: /r}}
{path: /a, monitor-interval: [1], replica: {path: /r}}
{path: /a, truncate-page-n: -1, replica: {path: /r}}
{path: /a, truncate-page-n: 1.5, replica: {path: /r}}
{path: /a, max-sync-wal-bytes: 1_000, replica: {path: /r}}
{path: /a, max-sync-wal-bytes: 5MB, replica: {path: /r}}
{path: /a, restore-if-db-not-exists: Y, replica: {path: /r}}
{path: /a, restore-if-db-not-exists: 1, replica: {path: /r}}
{path: /a, retention: 24h, replica: {path: /r, name: n, retention: 24h}}
{path: /a, snapshot: {interval: 1h}, replica: {path: /r}}
{path: /a, snapshot: {interval: 0s}, replica: {path: /r}}
END

finish
