# probe.sh PROGRAM -- `sluice probe`, `sluice url` and `sluice status -requests` from outside.
PROGRAM=$1
servers=$(cd "$(dirname "$0")/../servers" && pwd)
. "$(dirname "$0")/lib.sh"
url=file://$dir/rep
name=0000000000000001-0000000000000001.ltx
before=$(find rep | sort)
unchanged() { holds test "$(find rep | sort)" = "$before"; }

# The limit of time is a long one wherever it is not the question: a busy machine needs more.

# ---- probe: a folder does for everything, and nothing is left in it ----
run probe -duration 1m "$url" && is 0 && err '' && out_has "store: $url" && out_has 'prefix: sluice-probe-' &&
    out_has 'usable for backup: yes' && out_has 'usable for high availability: yes' &&
    out_has 'create-race          ok      32 writers of one key, 8 rounds: 8 with exactly one' &&
    out_has 'requests: '
unchanged
run probe "$dir/rep" -duration=60s && is 0 && out_has 'usable for backup: yes'
run probe -duration 1m -config config.yml app.db && is 0 && err '' && out_has "store: $url"
unchanged

# ---- probe -json: every member that the help names ----
run probe -duration 1m -json "$url" && is 0 && err ''
if command -v python3 >/dev/null 2>&1; then
    holds python3 - "$dir/out" <<'END'
import json, sys
r = json.load(open(sys.argv[1]))
want = {"store": str, "type": str, "prefix": str, "elapsed_ms": int, "usable_for_backup": bool,
        "why_not_backup": str, "usable_for_high_availability": bool, "why_not_ha": str,
        "interrupted": bool, "checks": list, "requests": dict, "left_count": int, "left": list}
assert {k: type(v) for k, v in r.items()} == want, r.keys()
assert r["type"] == "file" and r["left"] == [] and r["left_count"] == 0
for c in r["checks"]:
    assert list(c) == ["name", "result", "text", "advice", "figures"], c
    assert c["result"] in ("ok", "warning", "failed", "skipped", "not offered"), c
    assert all(type(v) is int for v in c["figures"].values()), c
by = {c["name"]: c for c in r["checks"]}
assert len(by) == len(r["checks"]) >= 20
assert by["replace-race"]["figures"]["winners_max"] == 1, by["replace-race"]
assert by["put-latency"]["figures"]["p50_us"] <= by["put-latency"]["figures"]["p99_us"]
assert set(r["requests"]) == {"put", "get", "list", "delete", "other", "failed", "throttled",
                              "bytes_up", "bytes_down"}, r["requests"]
assert r["requests"]["put"] > 50 and r["requests"]["bytes_up"] > 100000
END
fi
unchanged

# ---- probe: what cannot be used ----
printf x >file
run probe "file://$dir/file" && is 1 && err_has 'Error: not usable for backup: ' &&
    out_has 'usable for backup: no (' && out_has 'usable for high availability: no ('
run probe -json "file://$dir/file" && is 1 && out_has '"usable_for_backup": false' &&
    out_has '"result": "failed"'
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked
    chmod 500 locked
    run probe locked && is 1 && out_has 'list                 ok' && out_has 'put                  failed'
    chmod 700 locked
fi
run probe nope://x/y && is 1 && err_has 'nope' && out ''
run probe && is 1 && err 'Error: replica URL, database path or folder required
Try: sluice help probe'
run probe a b && is 1 && err_has 'Error: too many arguments'
for d in 0s 500ms 2h; do
    run probe -duration $d "$url" && is 1 && err_has 'Error: -duration must be between 1s and 1h'
done
run probe -duration long "$url" && is 1 && err_has 'for flag -duration: parse error'
run probe -config config.yml none.db && is 1 && err_has "database not found in config: $dir/none.db"
run probe sftp://user:hunter2@127.0.0.1:1/p -duration 1s && is 1 && out_has 'not tried: there is no access'
holds test "$(cat out err | grep -c hunter2)" -eq 0

# ---- probe: a signal ends it, and nothing is left ----
for sig in INT TERM; do
    "$PROGRAM" probe "$url" >out 2>err &
    pid=$!
    sleep 0.2
    kill -s $sig $pid
    rc=0
    wait $pid || rc=$?
    shown="probe, SIG$sig"
    # It may have been too quick for the signal, or been hit before it took care of it.
    case $rc in 0 | 130 | 143) ;; *) is 1 && err_has 'Error: interrupted' ;; esac
    [ $rc -gt 128 ] || unchanged
done

# ---- probe: a store for backup only has a status of its own ----
if sh "$servers/sftp" start "$dir/sftp" >env 2>&1; then
    trap 'sh "$servers/sftp" stop "$dir/sftp"; rm -rf "$dir"' EXIT
    value() { sed -n "s/^$1=//p" env; }
    cat >sftp.yml <<END
dbs:
  - path: s.db
    replica: {type: sftp, host: "$(value HOST):$(value PORT)", user: $(value USER_NAME),
              key-path: $(value KEY), host-key: "$(value HOST_KEY)", path: $(value ROOT)/p}
END
    run probe -duration 1m -config sftp.yml s.db && is 3 && err '' && out_has 'usable for backup: yes' &&
        out_has 'usable for high availability: no (replace-rules: not offered: no conditional'
    run probe -duration 1m -json -config sftp.yml s.db && is 3 && err '' &&
        out_has '"usable_for_high_availability": false' && out_has '"result": "not offered"'
    holds test "$(find "$(value ROOT)" -type f | wc -l)" -eq 0
else
    echo "not tested: exit status 3: $(cat env)"
fi

# ---- url ----
run url "$url" $name && is 1 && out '' && err_has "Error: '$url' has no links that need no credentials"
run url && is 1 && err 'Error: a replica and the name of a file required
Try: sluice help url'
run url "$url" && is 1 && err_has 'a replica and the name of a file required'
run url a b c && is 1 && err_has 'Error: too many arguments'
run url -level 10 "$url" $name && is 1 && err_has 'level must be between 0 and 9'
run url -level 1 "$url" some/key && is 1 && err_has "not with 'some/key'"
run url "$url" ../x && is 1 && err_has "bad key '../x'"
AWS_ACCESS_KEY_ID=AKIDEXAMPLE
AWS_SECRET_ACCESS_KEY=hunter2
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
s3="s3://bucket/app?region=eu-west-1&endpoint=http://127.0.0.1:9"
run url "$s3" $name && is 0 && err '' && out_has 'http://127.0.0.1:9/' && out_has "app/0000/$name?" &&
    out_has 'X-Amz-Expires=3600' && out_has 'X-Amz-Signature='
holds test "$(wc -l <out)" -eq 1
holds test "$(grep -c hunter2 out)" -eq 0
run url -level 9 -expires 24h "$s3" $name && is 0 && out_has "app/0009/$name?" &&
    out_has 'X-Amz-Expires=86400'
get=$(cat out)
run url -level 9 -expires 24h -put "$s3" $name && is 0 && holds test "$(cat out)" != "$get"
run url "$s3" notes/readme.txt && is 0 && out_has 'app/notes/readme.txt?'
for expires in 0s 169h; do
    run url -expires $expires "$s3" $name && is 1 && out '' &&
        err_has 'Error: a link lives between 1 second and 7 days'
done

# ---- status -requests ----
run status -config config.yml && is 0 && out_has 'wal size' && holds test "$(grep -c put/day out)" -eq 0
printf 'dbs: [{path: app.db, replica: {path: rep}}, {path: b.db, replica: {path: none}}]\n' >two.yml
run status -requests -config two.yml && is 0 && err '' && out_has 'put/day' && out_has 'estimate' &&
    out_has 'no database  -           -         0        1           24h0m0s' &&
    out_has 'no database  -           -         0        1           -'
# 99 more transactions in the last hour.
new=0000000000000001-0000000000000065.ltx
mkdir -p rep/ltx/1
cp rep/ltx/0/$name rep/ltx/1/$new
touch -d '-30 minutes' rep/ltx/1/$new
run status -requests -config two.yml app.db && is 0 && out_has '100      1           24h0m0s'
rm -f rep/ltx/0/*
mv rep/ltx/1/$new rep/ltx/0/0000000000000065-0000000000000065.ltx
cp rep/ltx/0/*65.ltx rep/ltx/0/0000000000000069-0000000000000069.ltx
touch -d '-1 minute' rep/ltx/0/0000000000000069-0000000000000069.ltx
run status -requests -json -config two.yml app.db && is 0 && out_has '"estimate": true' &&
    out_has '"put_per_day": 192' && out_has '"list_per_start": 1' && out_has '"span_s": 1800'
printf 'dbs: [{path: app.db, replica: {path: file/x}}]\n' >broken.yml
run status -requests -config broken.yml && is 0 && err_has 'app.db: no estimate: ' &&
    out_has 'no database  -           -         -        -           -'
run status -requests -json -config broken.yml && is 0 && out_has '"estimate": true' &&
    out_has '"error": "'

finish
