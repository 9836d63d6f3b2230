/* cmd_status.c -- `sluice status`: what local files tell about the configured databases. */
#include "cli/cli.h"
#include "base/mem.h"
#include "db/state.h"
#include "fmt/text.h"

struct status {
    const char *word;
    char txid[17], wal_size[32]; /* "-" when unknown */
};

static enum rc run_status(struct cli *c, struct err *err);
static void status_of_db(const struct config_db *db, struct status *ret);
static enum rc add(struct table *t, json_t *list, const struct config_db *db, struct err *err);

static const char *const usage[] = {"[options] [DB_PATH]", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "json", .kind = OPT_BOOL, .help = "Print JSON."},
};
static const struct opt_example examples[] = {
    {"All databases", "sluice status"},
    {"One database, for a script", "sluice status -json /var/lib/app.db"},
    {NULL, NULL},
};

const struct command cmd_status = {
    .name = "status",
    .summary = "show how far local replication state has come",
    .usage = usage,
    .about =
        "Shows what the local files tell about each database of the configuration file, or "
        "about one of them. No store is asked, and no running daemon.\n\n"
        "The column status says: ok; not initialized (never replicated from here); no database "
        "(the file does not exist); error (the local state is unreadable). local txid is the "
        "newest transaction that was captured, wal size the size of the -wal file.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_status,
};

static enum rc run_status(struct cli *c, struct err *err)
{
    CLEANUP(config_freep) struct config *cfg = NULL;
    CLEANUP(table_fini) struct table t = {.columns = 4};
    const struct config_db *only = NULL;
    if (c->opts.arg_count > 1) {
        cli_hint(c, "sluice help status");
        return err_set(err, RC_INVALID, "too many arguments");
    }
    TRY(cli_load_config(c, &cfg, err));
    TRY(config_refuse_dirs(cfg, err));
    if (c->opts.arg_count == 1) {
        cli_hint(c, "sluice databases -config %s", cfg->file);
        TRY(config_find_db(cfg, c->opts.args[0], &only, err));
    }
    json_t *list = opts_bool(&c->opts, "json") ? json_array() : NULL;
    TRY(table_row(&t, err, "database", "status", "local txid", "wal size"));
    for (size_t i = 0; i < cfg->db_count; i++) {
        if (only != NULL && only != &cfg->dbs[i]) continue;
        if (add(&t, list, &cfg->dbs[i], err) == RC_OK) continue;
        json_decref(list);
        return err->rc;
    }
    if (list != NULL) return cli_print_json(list, err);
    table_print(&t, stdout);
    return RC_OK;
}

static enum rc add(struct table *t, json_t *list, const struct config_db *db, struct err *err)
{
    struct status st;
    status_of_db(db, &st);
    if (list == NULL) return table_row(t, err, db->path, st.word, st.txid, st.wal_size);
    json_t *one = json_pack("{s:s, s:s, s:s, s:s}", "database", db->path, "status", st.word,
                            "local_txid", st.txid, "wal_size", st.wal_size);
    return json_array_append_new(list, one) == 0 ? RC_OK : cli_print_json(NULL, err);
}

static void status_of_db(const struct config_db *db, struct status *ret)
{
    struct err err;
    struct stat st;
    struct db_pos pos;
    char wal[OS_PATH_MAX];
    *ret = (struct status){.word = "no database", .txid = "-", .wal_size = "-"};
    if (os_stat(db->path, &st, &err) != RC_OK) {
        if (err.rc != RC_NOT_FOUND) ret->word = "error";
        return;
    }
    snprintf(wal, sizeof wal, "%s-wal", db->path);
    bool has_wal = os_stat(wal, &st, &err) == RC_OK;
    size_put(has_wal ? (uint64_t)st.st_size : 0, ret->wal_size);
    ret->word = "not initialized";
    enum rc rc = state_peek(db->meta_path, &pos, &err);
    if (rc == RC_OK && pos.txid > 0) {
        ret->word = "ok";
        txid_put(pos.txid, ret->txid);
    } else if (rc != RC_OK && rc != RC_NOT_FOUND) {
        ret->word = "error";
    }
}
