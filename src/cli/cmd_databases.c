/* cmd_databases.c -- `sluice databases`: what the configuration names. */
#include "cli/cli.h"
#include "base/mem.h"

static enum rc run_databases(struct cli *c, struct err *err);

static const char *const usage[] = {"[options]", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "json", .kind = OPT_BOOL, .help = "Print JSON."},
};
static const struct opt_example examples[] = {
    {"Check a configuration before using it", "sluice databases -config ./litestream.yml"},
    {NULL, NULL},
};

const struct command cmd_databases = {
    .name = "databases",
    .summary = "list the databases of the configuration file",
    .usage = usage,
    .about = "Lists the databases of the configuration file and the type of their replicas. "
             "Nothing is opened.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_databases,
};

static enum rc run_databases(struct cli *c, struct err *err)
{
    CLEANUP(config_freep) struct config *cfg = NULL;
    CLEANUP(table_fini) struct table t = {.columns = 2};
    if (c->opts.arg_count > 0) {
        cli_hint(c, "sluice help databases");
        return err_set(err, RC_INVALID, "too many arguments");
    }
    TRY(cli_load_config(c, &cfg, err));
    TRY(config_refuse_dirs(cfg, err));
    json_t *list = opts_bool(&c->opts, "json") ? json_array() : NULL;
    TRY(table_row(&t, err, "path", "replica"));
    for (size_t i = 0; i < cfg->db_count; i++) {
        const char *path = cfg->dbs[i].path, *type = cfg->dbs[i].replica.type;
        if (list == NULL) {
            TRY(table_row(&t, err, path, type));
        } else if (json_array_append_new(
                       list, json_pack("{s:s, s:s}", "path", path, "replica", type)) != 0) {
            json_decref(list);
            return cli_print_json(NULL, err);
        }
    }
    if (list != NULL) return cli_print_json(list, err);
    table_print(&t, stdout);
    return RC_OK;
}
