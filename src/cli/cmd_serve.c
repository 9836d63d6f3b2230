/* cmd_serve.c -- `sluice serve`: a folder of databases as a service. */
#include "base/log.h"
#include "cli/cli.h"
#include "node/serve.h"

static enum rc run_serve(struct cli *c, struct err *err);
static int64_t ms_of(const struct opts *o, const char *name);

static const char *const usage[] = {"-data DIR [options]", NULL};
static const struct opt options[] = {
    {.name = "data",
     .kind = OPT_STR,
     .arg = "DIR",
     .def = "sluice-data",
     .env = "SLUICE_DATA",
     .help = "The folder of the databases, made when missing: DIR/tenants/NAME/data."},
    {.name = "store",
     .kind = OPT_STR,
     .arg = "URL",
     .env = "SLUICE_STORE",
     .example = "s3://bucket/prefix",
     .help = "Where the logs go: each database's to URL/NAME. Without it, to DIR/backup, which "
             "protects against mistakes and not against the loss of the disk."},
    {.name = "listen",
     .kind = OPT_STR,
     .arg = "HOST:PORT",
     .def = "127.0.0.1:8080",
     .env = "SLUICE_LISTEN",
     .help = "For clients: HTTP and WebSocket. Also unix:/path. Beyond this machine only with "
             "authentication."},
    {.name = "admin-listen",
     .kind = OPT_STR,
     .arg = "HOST:PORT",
     .env = "SLUICE_ADMIN_LISTEN",
     .help = "For the administrator: create, fork, restore, metrics. Off unless given."},
    {.name = "auth-jwt-key-file",
     .kind = OPT_STR,
     .arg = "PATH",
     .env = "SQLD_AUTH_JWT_KEY_FILE",
     .help = "Public keys of tokens, as 'sluice token key' makes them. Read again on SIGHUP."},
    {.name = "auth-jwt-key",
     .kind = OPT_STR,
     .arg = "KEY",
     .env = "SQLD_AUTH_JWT_KEY",
     .help = "The same as a text; better in the environment than on the command line."},
    {.name = "http-auth",
     .kind = OPT_STR,
     .arg = "basic:BASE64",
     .env = "SQLD_HTTP_AUTH",
     .help = "One user and password for all, base64 of user:password."},
    {.name = "admin-key",
     .kind = OPT_STR,
     .arg = "KEY",
     .env = "SQLD_ADMIN_AUTH_KEY",
     .help = "Asked of the administrator: 'Authorization: Bearer KEY' or 'basic KEY'."},
    {.name = "roles",
     .kind = OPT_STR,
     .arg = "PATH",
     .help = "Roles that tokens name, as JSON; see docs/roles.md. Read again on SIGHUP."},
    {.name = "tls-cert",
     .kind = OPT_STR,
     .arg = "PATH",
     .help = "Certificate chain in PEM: serve HTTPS. Read again on SIGHUP."},
    {.name = "tls-key", .kind = OPT_STR, .arg = "PATH", .help = "Its private key in PEM."},
    {.name = "allow-anonymous",
     .kind = OPT_BOOL,
     .help = "Listen beyond this machine without authentication."},
    {.name = "no-default",
     .kind = OPT_BOOL,
     .help = "Refuse requests whose path, header and host name say no database; without it they "
             "mean 'default'."},
    {.name = "relaxed",
     .kind = OPT_BOOL,
     .help = "synchronous=NORMAL: a commit does not wait for the disk. A power failure can take "
             "the last ones; they stay whole."},
    {.name = "sync-interval",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "1s",
     .help = "How often news go to the store."},
    {.name = "query-timeout",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "1m",
     .help = "Limit of one statement."},
    {.name = "txn-timeout",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "5s",
     .help = "So long one client may keep others from writing."},
    {.name = "stream-idle-timeout",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "10s",
     .help = "An open transaction whose client says nothing over HTTP is rolled back after it."},
    {.name = "slow-query",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "1s",
     .help = "Log statements that take longer; 0: none."},
    {.name = "idle-close",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "1m",
     .help = "Close a database that nobody has used for so long."},
    {.name = "shutdown-timeout",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "30s",
     .help = "At the end, wait so long for the store to take the last news."},
    {.name = "max-open",
     .kind = OPT_UINT,
     .arg = "N",
     .def = "1000",
     .help = "Databases open at once."},
    {.name = "max-connections",
     .kind = OPT_UINT,
     .arg = "N",
     .def = "10000",
     .help = "Of clients."},
    {.name = "max-body",
     .kind = OPT_UINT,
     .arg = "BYTES",
     .def = "67108864",
     .help = "Of one request."},
    {.name = "cache",
     .kind = OPT_UINT,
     .arg = "KIB",
     .def = "262144",
     .help = "Memory for the page caches of all databases together."},
    {.name = "threads",
     .kind = OPT_UINT,
     .arg = "N",
     .help = "Of each front end; the number of CPUs unless given."},
    {.name = "log-level",
     .kind = OPT_STR,
     .arg = "LEVEL",
     .env = "LOG_LEVEL",
     .def = "info",
     .help = "trace, debug, info, warn or error."},
};
static const struct opt_example examples[] = {
    {"A database for libSQL's clients at http://127.0.0.1:8080, backed up beside it",
     "sluice serve -data ./data"},
    {"Every database to object storage, with an administrator's port",
     "sluice serve -data /var/lib/sluice -store s3://bucket/prod -admin-listen 127.0.0.1:8081"},
    {"On the network, with tokens",
     "sluice serve -data ./data -listen 0.0.0.0:8080 -auth-jwt-key-file public.pem"},
    {NULL, NULL},
};

const struct command cmd_serve = {
    .name = "serve",
    .summary = "serve databases to libSQL clients, each one backed up",
    .usage = usage,
    .about = "Makes a folder of SQLite databases a database service. Clients of libSQL and Turso "
             "connect unmodified over HTTP or WebSocket; each tenant has a database file of its "
             "own, and every commit goes to that database's log.\n\n"
             "SIGTERM and SIGINT let requests end and store the logs; SIGHUP reads keys, roles and "
             "certificates again.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_serve,
};

static enum rc run_serve(struct cli *c, struct err *err)
{
    const struct opts *o = &c->opts;
    if (o->arg_count > 0) {
        cli_hint(c, "sluice help serve");
        return err_set(err, RC_INVALID, "unexpected argument: %s", o->args[0]);
    }
    cli_start_log(NULL, opts_str(o, "log-level"), false);
    log_info("sluice", "version", "v" SLUICE_VERSION);
    const struct serve_opts serve = {
        .data = opts_str(o, "data"),
        .store_url = opts_str(o, "store"),
        .listen = opts_str(o, "listen"),
        .admin_listen = opts_str(o, "admin-listen"),
        .auth_key_file = opts_str(o, "auth-jwt-key-file"),
        .auth_key = opts_str(o, "auth-jwt-key"),
        .http_auth = opts_str(o, "http-auth"),
        .admin_key = opts_str(o, "admin-key"),
        .roles_file = opts_str(o, "roles"),
        .tls_cert = opts_str(o, "tls-cert"),
        .tls_key = opts_str(o, "tls-key"),
        .allow_anonymous = opts_bool(o, "allow-anonymous"),
        .no_default = opts_bool(o, "no-default"),
        .relaxed = opts_bool(o, "relaxed"),
        .threads = (unsigned)opts_number(o, "threads"),
        .open_max = (unsigned)opts_number(o, "max-open"),
        .conn_max = (unsigned)opts_number(o, "max-connections"),
        .body_max = opts_number(o, "max-body"),
        .cache_kib = (int64_t)opts_number(o, "cache"),
        .sync_interval_ms = ms_of(o, "sync-interval"),
        .query_ms = ms_of(o, "query-timeout"),
        .txn_ms = ms_of(o, "txn-timeout"),
        .stream_idle_ms = ms_of(o, "stream-idle-timeout"),
        .slow_query_ms = ms_of(o, "slow-query"),
        .idle_close_ms = ms_of(o, "idle-close"),
        .shutdown_ms = ms_of(o, "shutdown-timeout"),
    };
    return node_serve(&serve, err);
}

static int64_t ms_of(const struct opts *o, const char *name)
{
    uint64_t ns = opts_number(o, name);
    return (int64_t)((ns + 999999) / 1000000);
}
