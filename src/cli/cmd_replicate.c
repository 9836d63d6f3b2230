/* cmd_replicate.c -- `sluice replicate`: checks what was asked for and hands over to the daemon. */
#include "cli/cli.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/replicate.h"

static enum rc run_replicate(struct cli *c, struct err *err);
static enum rc load(struct cli *c, struct config **ret_cfg, struct err *err);
static enum rc check_once(const struct opts *o, const char *exec, struct err *err);
static void log_warnings(const struct config *cfg);
static void log_ignored(const char *key);

static const char *const usage[] = {"[options]", "[options] DB_PATH REPLICA_URL", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "exec",
     .kind = OPT_STR,
     .arg = "COMMAND",
     .example = "'myapp -port 8080'",
     .help = "Run a command while replicating. When it ends, the last changes are uploaded and "
             "sluice ends. The words are split as a shell would, but no shell runs."},
    {.name = "log-level",
     .kind = OPT_STR,
     .arg = "LEVEL",
     .env = "LOG_LEVEL",
     .help = "trace, debug, info, warn or error. Stronger than the configuration file, whose "
             "default is info."},
    {.name = "restore-if-db-not-exists",
     .kind = OPT_BOOL,
     .help = "Restore each database whose file is missing before replicating it. When there is no "
             "backup yet, go on without."},
    {.name = "once",
     .kind = OPT_BOOL,
     .help = "Capture and upload what is there now, then end. Not together with -exec."},
    {.name = "force-snapshot",
     .kind = OPT_BOOL,
     .help = "With -once: also write a full snapshot of each database."},
    {.name = "enforce-retention",
     .kind = OPT_BOOL,
     .help = "With -once: also delete what is older than the retention time. Not available yet."},
    {.name = "ltx-encoding",
     .kind = OPT_STR,
     .arg = "ENCODING",
     .example = "block",
     .help = "Page encoding of new files, frame or block; the default is that of the configuration "
             "file, which is frame. Every Litestream 0.5 reads frame; block needs 0.5.16."},
};
static const struct opt_example examples[] = {
    {"Replicate what the configuration file lists", "sluice replicate -config ./litestream.yml"},
    {"Replicate one database", "sluice replicate /var/lib/app.db file:///backup/app"},
    {"Start an application with its database, restored if missing",
     "sluice replicate -restore-if-db-not-exists -exec 'myapp -port 8080'"},
    {"A full backup now, for a cron job", "sluice replicate -once -force-snapshot"},
    {NULL, NULL},
};

const struct command cmd_replicate = {
    .name = "replicate",
    .summary = "replicate databases continuously",
    .usage = usage,
    .about = "Watches the databases of the configuration file, or one database given by its path, "
             "and uploads what is committed to their replicas, until it is stopped by SIGINT or "
             "SIGTERM.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_replicate,
};

static enum rc run_replicate(struct cli *c, struct err *err)
{
    CLEANUP(config_freep) struct config *cfg = NULL;
    const struct opts *o = &c->opts;
    TRY(load(c, &cfg, err));
    const char *exec = opts_str(o, "exec")[0] ? opts_str(o, "exec") : cfg->exec;
    cli_hint(c, "sluice help replicate");
    TRY(check_once(o, exec, err));
    if (opts_given(o, "ltx-encoding"))
        TRY(config_set(cfg, "ltx-encoding", opts_str(o, "ltx-encoding"), err));
    c->hint[0] = '\0';
    TRY(config_refuse_dirs(cfg, err));
    if (cfg->db_count == 0) {
        cli_hint(c, "sluice help replicate");
        return err_set(err, RC_INVALID, "no databases specified in configuration: %s", cfg->file);
    }
    cli_start_log(cfg, opts_str(o, "log-level"), false);
    log_info("sluice", "version", "v" SLUICE_VERSION);
    log_warnings(cfg);
    const struct node_opts node = {
        .exec_cmd = exec[0] ? exec : NULL,
        .once = opts_bool(o, "once"),
        .force_snapshot = opts_bool(o, "force-snapshot"),
        .restore_if_missing = opts_bool(o, "restore-if-db-not-exists"),
    };
    return node_replicate(cfg, &node, err);
}

static enum rc load(struct cli *c, struct config **ret_cfg, struct err *err)
{
    const struct opts *o = &c->opts;
    if (o->arg_count == 0) return cli_load_config(c, ret_cfg, err);
    if (o->arg_count == 1) {
        cli_hint(c, "sluice replicate %s file:///path/to/replica", o->args[0]);
        return err_set(err, RC_INVALID, "must specify at least one replica URL for %s", o->args[0]);
    }
    cli_hint(c, "sluice help replicate");
    if (opts_given(o, "config"))
        return err_set(err, RC_INVALID, "cannot specify a replica URL and the -config flag");
    if (o->arg_count > 2)
        return err_set(err, RC_INVALID,
                       "multiple replicas on a single database are no longer supported");
    return config_from_args(o->args[0], o->args[1], ret_cfg, err);
}

static enum rc check_once(const struct opts *o, const char *exec, struct err *err)
{
    bool once = opts_bool(o, "once");
    if (once && exec[0] != '\0')
        return err_set(err, RC_INVALID, "cannot specify -once flag with -exec");
    if (!once && opts_bool(o, "force-snapshot"))
        return err_set(err, RC_INVALID, "cannot specify -force-snapshot flag without -once");
    if (!once && opts_bool(o, "enforce-retention"))
        return err_set(err, RC_INVALID, "cannot specify -enforce-retention flag without -once");
    if (opts_bool(o, "enforce-retention"))
        return err_set(err, RC_UNSUPPORTED,
                       "-enforce-retention: retention is not available yet; leave it out");
    return RC_OK;
}

static void log_warnings(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->warning_count; i++)
        log_warn("configuration", "problem", cfg->warnings[i]);
    if (cfg->mcp_addr[0]) log_ignored("mcp-addr");
    if (cfg->socket_enabled) log_ignored("socket");
    if (cfg->heartbeat_url[0]) log_ignored("heartbeat-url");
}

static void log_ignored(const char *key)
{
    char text[128];
    snprintf(text, sizeof text, "%s is not available yet, ignoring", key);
    log_warn(text);
}
