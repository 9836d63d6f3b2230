/* cmd_serve.c -- `sluice serve`: a folder of databases as a service. */
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "node/serve.h"
#include "node/serve_conf.h"
#include <stdio.h>
#include <string.h>

/* What SIGHUP begins with: the line and the environment. */
struct again {
    struct opts line;
    struct serve_conf *conf; /* of the last time */
};

static enum rc run_serve(struct cli *c, struct err *err);
static enum rc serve(const struct opts *o, const struct serve_conf *conf, struct again *again,
                     struct err *err);
static enum rc load_conf(struct opts *o, struct serve_conf **ret_conf, struct err *err);
static void warn_secrets(const struct opts *o, const struct serve_conf *conf);
static bool is_secret(const struct opt *opt, const char *value);
static struct serve_auth auth_of(const struct opts *o, const struct serve_conf *conf);
static enum rc reread(void *ctx, struct serve_auth *ret_auth, struct err *err);
static int64_t ms_of(const struct opts *o, const char *name);

static const char *const usage[] = {"-data DIR [options]", "-config PATH [options]", NULL};
static const struct opt options[] = {
    {.name = "config",
     .alias = "c",
     .kind = OPT_STR,
     .arg = "PATH",
     .env = "SLUICE_CONFIG",
     .line_only = true,
     .help = "A file with these options, as YAML: each without its dash is a key. The command line "
             "and the environment win over it."},
    {.name = "no-expand-env",
     .kind = OPT_BOOL,
     .line_only = true,
     .help = "Leave $NAME and ${NAME} in that file as they are."},
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
     .secret = true,
     .arg = "KEY",
     .env = "SQLD_AUTH_JWT_KEY",
     .help = "The same as a text; better in the environment than on the command line."},
    {.name = "auth-signing-key-file",
     .kind = OPT_STR,
     .arg = "PATH",
     .help = "The private key that belongs to them: lets the administrator make tokens over HTTP. "
             "Read at each use."},
    {.name = "http-auth",
     .kind = OPT_STR,
     .secret = true,
     .arg = "basic:BASE64",
     .env = "SQLD_HTTP_AUTH",
     .help = "One user and password for all, base64 of user:password."},
    {.name = "admin-key",
     .kind = OPT_STR,
     .secret = true,
     .arg = "KEY",
     .env = "SQLD_ADMIN_AUTH_KEY",
     .help = "Asked of the administrator: 'Authorization: Bearer KEY' or 'basic KEY'."},
    {.name = "roles",
     .kind = OPT_STR,
     .arg = "PATH",
     .help = "Roles that tokens name, as JSON; see docs/roles.md. The file of -config may have the "
             "roles themselves under this key. Read again on SIGHUP."},
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
     .help = "Databases open at once. While all are in use, requests for another wait, up to 5s."},
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
    {.name = "import-dir",
     .kind = OPT_STR,
     .arg = "DIR",
     .help = "The administrator may create databases from the files in it (dump_url file:/...)."},
    {.name = "max-import",
     .kind = OPT_UINT,
     .arg = "MIB",
     .def = "16384",
     .help = "Of a file that the administrator imports."},
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
    {"By a file", "sluice serve -config /etc/sluice.yml"},
    {NULL, NULL},
};

const struct command cmd_serve = {
    .name = "serve",
    .summary = "serve databases to libSQL clients, each one backed up",
    .usage = usage,
    .about =
        "Makes a folder of SQLite databases a database service. Clients of libSQL and Turso "
        "connect unmodified over HTTP or WebSocket; each tenant has a database file of its "
        "own, and every commit goes to that database's log.\n\n"
        "SIGTERM and SIGINT let requests end and store the logs, a second one does not wait for "
        "the store; SIGHUP reads keys, roles and certificates again.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_serve,
};

static enum rc run_serve(struct cli *c, struct err *err)
{
    struct opts *o = &c->opts;
    struct again again = {.line = *o};
    CLEANUP(serve_conf_freep) struct serve_conf *conf = NULL;
    if (o->arg_count > 0) {
        cli_hint(c, "sluice help serve");
        return err_set(err, RC_INVALID, "unexpected argument: %s", o->args[0]);
    }
    TRY(load_conf(o, &conf, err));
    cli_start_log(NULL, opts_str(o, "log-level"), false);
    log_info("sluice", "version", "v" SLUICE_VERSION);
    warn_secrets(o, conf);
    enum rc rc = serve(o, conf, &again, err);
    serve_conf_free(again.conf);
    return rc;
}

static enum rc serve(const struct opts *o, const struct serve_conf *conf, struct again *again,
                     struct err *err)
{
    const struct serve_opts opts = {
        .data = opts_str(o, "data"),
        .store_url = opts_str(o, "store"),
        .listen = opts_str(o, "listen"),
        .admin_listen = opts_str(o, "admin-listen"),
        .auth = auth_of(o, conf),
        .reread = reread,
        .reread_ctx = again,
        .admin_key = opts_str(o, "admin-key"),
        .signing_key_file = opts_str(o, "auth-signing-key-file"),
        .import_dir = opts_str(o, "import-dir"),
        .import_max = opts_number(o, "max-import") << 20,
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
    return node_serve(&opts, err);
}

/* *ret_conf stays NULL without a file. o points into it. */
static enum rc load_conf(struct opts *o, struct serve_conf **ret_conf, struct err *err)
{
    CLEANUP(serve_conf_freep) struct serve_conf *conf = NULL;
    if (opts_str(o, "config")[0] == '\0') return RC_OK;
    TRY(serve_conf_load(opts_str(o, "config"), !opts_bool(o, "no-expand-env"), &conf, err));
    for (size_t i = 0; i < conf->count; i++) {
        const struct serve_conf_entry *e = &conf->entries[i];
        char where[256];
        snprintf(where, sizeof where, "%.200s:%u", conf->file, e->line);
        if (!e->mapping) TRY(opts_fill(o, e->key, e->value, where, err));
    }
    *ret_conf = conf;
    conf = NULL;
    return RC_OK;
}

static void warn_secrets(const struct opts *o, const struct serve_conf *conf)
{
    for (size_t i = 0; conf != NULL && conf->shared && i < conf->count; i++) {
        const struct serve_conf_entry *e = &conf->entries[i];
        if (e->mapping || !e->literal || !is_secret(opts_key(o->cmd, e->key), e->value)) continue;
        log_warn("every user of this machine can read a secret in the configuration file; chmod "
                 "o-r it",
                 "file", conf->file, "key", e->key);
    }
}

/* The password of a URL counts, too. */
static bool is_secret(const struct opt *opt, const char *value)
{
    char shown[1024];
    if (value[0] == '\0') return false;
    if (opt->secret) return true;
    if (!config_is_url(value)) return false;
    config_url_redact(value, shown, sizeof shown);
    return strcmp(shown, value) != 0;
}

static struct serve_auth auth_of(const struct opts *o, const struct serve_conf *conf)
{
    struct serve_auth auth = {
        .key_file = opts_str(o, "auth-jwt-key-file"),
        .key = opts_str(o, "auth-jwt-key"),
        .http_auth = opts_str(o, "http-auth"),
        .roles_file = opts_str(o, SERVE_CONF_ROLES),
        .roles = "",
    };
    for (size_t i = 0; conf != NULL && i < conf->count; i++)
        if (conf->entries[i].mapping && !opts_given(o, SERVE_CONF_ROLES))
            auth.roles = conf->entries[i].value;
    return auth;
}

static enum rc reread(void *ctx, struct serve_auth *ret_auth, struct err *err)
{
    struct again *again = ctx;
    struct opts o = again->line;
    struct serve_conf *conf = NULL;
    TRY(load_conf(&o, &conf, err));
    *ret_auth = auth_of(&o, conf);
    serve_conf_free(again->conf);
    again->conf = conf;
    return RC_OK;
}

static int64_t ms_of(const struct opts *o, const char *name)
{
    uint64_t ns = opts_number(o, name);
    return (int64_t)((ns + 999999) / 1000000);
}
