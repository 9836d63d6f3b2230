#!/bin/sh
# The crash test with its replica on a real S3 server, behind a network that breaks:
#
#   crash_s3.sh CRASH NETFAULT [ARGUMENT OF crash]...
#
# CRASH_PERCENT (3) pieces of 100 meet a fault. Exit status 77: there is no server to start.
set -eu
crash=$1 netfault=$2
shift 2
servers=$(dirname "$0")/../servers
dir=$(mktemp -d)
relay=
finish() {
    status=$?
    [ -z "$relay" ] || kill "$relay" 2>/dev/null || true
    "$servers/s3" stop "$dir/s3" >/dev/null || echo "crash_s3: the server in $dir did not stop" >&2
    case $status in 0 | 77) rm -rf "$dir" ;; esac
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM
"$servers/s3" start "$dir/s3" >"$dir/env" || exit $?
. "$dir/env"
"$netfault" --to "${S3_ENDPOINT##*:}" --percent "${CRASH_PERCENT:-3}" >"$dir/port" &
relay=$!
while [ ! -s "$dir/port" ]; do
    kill -0 "$relay" || exit 1
    sleep 0.05
done
. "$dir/port"
export AWS_ACCESS_KEY_ID="$S3_ACCESS_KEY" AWS_SECRET_ACCESS_KEY="$S3_SECRET_KEY"
"$crash" "$@" --dir "$dir" \
    --replica "s3://$S3_BUCKET/%s?endpoint=http://127.0.0.1:$PORT&region=$S3_REGION"
# A network that never broke proves nothing.
faults=$(grep -c '^# fault' "$dir/port") || { echo "crash_s3: no fault happened" >&2; exit 1; }
echo "crash_s3: $faults faults on the way"
