/* cmd_ltx.c -- `sluice ltx`: the files of a replica's log. */
#include "cli/cli.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

static enum rc run_ltx(struct cli *c, struct err *err);
static enum rc run_wal(struct cli *c, struct err *err);
static enum rc get_level(const char *text, bool *ret_all, uint32_t *ret_level, struct err *err);
static enum rc print_files(const struct log_files *files, bool json, struct err *err);

static const char *const usage[] = {"[options] DB_PATH", "[options] REPLICA_URL", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "level",
     .kind = OPT_STR,
     .arg = "LEVEL",
     .def = "0",
     .example = "all",
     .help =
         "The level to list, 0 to 9, or \"all\". Level 0 holds what was uploaded, levels 1 to 8 "
         "what was merged, level 9 full snapshots."},
    {.name = "json", .kind = OPT_BOOL, .help = "Print JSON."},
};
static const struct opt_example examples[] = {
    {"What was uploaded last", "sluice ltx /var/lib/app.db"},
    {"All files of a replica", "sluice ltx -level all file:///backup/app"},
    {"Snapshots, for a script", "sluice ltx -level 9 -json /var/lib/app.db"},
    {NULL, NULL},
};

const struct command cmd_ltx = {
    .name = "ltx",
    .summary = "list the LTX files of a database's replica",
    .usage = usage,
    .about = "Lists the files in the replica of a database. Each covers the transactions from "
             "min_txid to max_txid; restore -txid takes a max_txid.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_ltx,
};

const struct command cmd_wal = {
    .name = "wal",
    .summary = "old name of ltx",
    .usage = usage,
    .about = "The old name of \"sluice ltx\", which see.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .hidden = true,
    .run = run_wal,
};

static enum rc run_wal(struct cli *c, struct err *err)
{
    fprintf(stderr, "Warning: 'wal' command is deprecated, please use 'ltx' instead\n");
    return run_ltx(c, err);
}

static enum rc run_ltx(struct cli *c, struct err *err)
{
    CLEANUP(cli_close_replica) struct cli_replica r = {0};
    CLEANUP(log_files_fini) struct log_files files = {0};
    const struct opts *o = &c->opts;
    bool all = false;
    uint32_t level = 0;
    cli_hint(c, "sluice help ltx");
    TRY(get_level(opts_str(o, "level"), &all, &level, err));
    if (o->arg_count == 0) {
        cli_hint(c, "sluice ltx /path/to/db");
        return err_set(err, RC_INVALID, "database path or replica URL required");
    }
    if (o->arg_count > 1) return err_set(err, RC_INVALID, "too many arguments");
    c->hint[0] = '\0';
    TRY(cli_open_replica(c, o->args[0], &r, err));
    if (all)
        TRY(log_list_all(&r.log, NULL, &files, err));
    else
        TRY(log_list(&r.log, NULL, level, &files, err));
    return print_files(&files, opts_bool(o, "json"), err);
}

static enum rc get_level(const char *text, bool *ret_all, uint32_t *ret_level, struct err *err)
{
    char *end;
    *ret_all = strcmp(text, "all") == 0;
    if (*ret_all) return RC_OK;
    long v = strtol(text, &end, 10);
    const char *why = *end != '\0' || end == text       ? "invalid level: must be 0-9 or \"all\""
                      : v < 0 || v > LOG_LEVEL_SNAPSHOT ? "level must be between 0 and 9"
                                                        : NULL;
    if (why != NULL)
        return err_set(err, RC_INVALID, "invalid value \"%s\" for flag -level: %s", text, why);
    *ret_level = (uint32_t)v;
    return RC_OK;
}

static enum rc print_files(const struct log_files *files, bool json, struct err *err)
{
    CLEANUP(table_fini) struct table t = {.columns = 5};
    json_t *list = json ? json_array() : NULL;
    TRY(table_row(&t, err, "level", "min_txid", "max_txid", "size", "created"));
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i];
        char level[16], min[17], max[17], size[24], when[TIME_TEXT_SIZE];
        if (json) {
            if (json_array_append_new(list, cli_file_json(f, false)) == 0) continue;
            json_decref(list);
            return err_mem(err, "the list of files");
        }
        snprintf(level, sizeof level, "%u", f->level);
        snprintf(size, sizeof size, "%llu", (unsigned long long)f->size);
        txid_put(f->txid_min, min);
        txid_put(f->txid_max, max);
        time_put(f->created_ms, false, when);
        TRY(table_row(&t, err, level, min, max, size, when));
    }
    if (json) return cli_print_json(list, err);
    table_print(&t, stdout);
    return RC_OK;
}
