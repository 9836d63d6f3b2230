/* cmd_status.c -- `sluice status`: what local files tell about the configured databases; with
 * -requests also what their replicas cost in requests, which takes a listing of each. */
#include "cli/cli.h"
#include "base/mem.h"
#include "db/state.h"
#include "fmt/text.h"

#define DAY_MS      INT64_C(86400000)
#define SPAN_MIN_MS INT64_C(60000) /* a shorter time says nothing about a day */

struct status {
    const char *word;
    char txid[17], wal_size[32]; /* "-" when unknown */
};

/* Requests of one daemon for one database, judged by the files that are there. */
struct estimate {
    bool known;
    struct err err; /* why not */
    uint64_t puts_a_day, lists_a_start;
    int64_t span_ms; /* the time that was looked at; 0: no files */
};

static enum rc run_status(struct cli *c, struct err *err);
static void status_of_db(const struct config_db *db, struct status *ret);
static enum rc add(struct table *t, json_t *list, const struct config_db *db, struct err *err);
static enum rc add_costly(struct table *t, json_t *list, const struct config_db *db,
                          struct err *err);
static void estimate_requests(const struct config_db *db, struct estimate *ret);
static void estimate_puts(const struct log_files *files, int64_t interval_ms, struct estimate *e);
static json_t *estimate_json(const struct estimate *e);

static const char *const usage[] = {"[options] [DB_PATH]", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "json", .kind = OPT_BOOL, .help = "Print JSON."},
    {.name = "requests",
     .kind = OPT_BOOL,
     .help = "Also estimate how many requests a day a database costs at its store. This lists the "
             "replica."},
};
static const struct opt_example examples[] = {
    {"All databases", "sluice status"},
    {"One database, for a script", "sluice status -json /var/lib/app.db"},
    {"What the replicas cost in requests", "sluice status -requests"},
    {NULL, NULL},
};

const struct command cmd_status = {
    .name = "status",
    .summary = "show how far local replication state has come",
    .usage = usage,
    .about =
        "Shows what the local files tell about each database of the configuration file, or "
        "about one of them. No store is asked (but with -requests), and no running daemon.\n\n"
        "The column status says: ok; not initialized (never replicated from here); no database "
        "(the file does not exist); error (the local state is unreadable). local txid is the "
        "newest transaction that was captured, wal size the size of the -wal file.\n\n"
        "With -requests: put/day is an estimate of the uploads a day, from the transactions and "
        "files that the replica got in the last 24 hours, or as long as it has any, which is shown "
        "as \"seen over\"; never more than the sync interval allows. list/start is how many "
        "listings each start of the daemon makes; while it runs, it makes none. Large files may "
        "be uploaded in parts, each of which is a request, too. With -json, requests is an object "
        "with estimate (true), put_per_day, list_per_start and span_s, or with error.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_status,
};

static enum rc run_status(struct cli *c, struct err *err)
{
    CLEANUP(config_freep) struct config *cfg = NULL;
    bool costly = opts_bool(&c->opts, "requests");
    CLEANUP(table_fini) struct table t = {.columns = costly ? 7 : 4};
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
    if (costly) cli_start_log(cfg, "", true);
    json_t *list = opts_bool(&c->opts, "json") ? json_array() : NULL;
    if (costly)
        TRY(table_row(&t, err, "database", "status", "local txid", "wal size", "put/day",
                      "list/start", "seen over"));
    else
        TRY(table_row(&t, err, "database", "status", "local txid", "wal size"));
    for (size_t i = 0; i < cfg->db_count; i++) {
        const struct config_db *db = &cfg->dbs[i];
        if (only != NULL && only != db) continue;
        if ((costly ? add_costly : add)(&t, list, db, err) == RC_OK) continue;
        json_decref(list);
        return err->rc;
    }
    if (list != NULL) return cli_print_json(list, err);
    table_print(&t, stdout);
    if (costly) printf("\nput/day is an estimate, from what the replica got in the time shown.\n");
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

static enum rc add_costly(struct table *t, json_t *list, const struct config_db *db,
                          struct err *err)
{
    struct status st;
    struct estimate e;
    char puts[24] = "-", lists[24] = "-", span[32] = "-";
    status_of_db(db, &st);
    estimate_requests(db, &e);
    if (list != NULL) {
        json_t *one = json_pack("{s:s, s:s, s:s, s:s, s:o}", "database", db->path, "status",
                                st.word, "local_txid", st.txid, "wal_size", st.wal_size, "requests",
                                estimate_json(&e));
        return json_array_append_new(list, one) == 0 ? RC_OK : cli_print_json(NULL, err);
    }
    if (!e.known) {
        fprintf(stderr, "%s: no estimate: %s\n", db->path, e.err.text);
    } else {
        snprintf(puts, sizeof puts, "%llu", (unsigned long long)e.puts_a_day);
        snprintf(lists, sizeof lists, "%llu", (unsigned long long)e.lists_a_start);
        if (e.span_ms > 0) duration_put(e.span_ms / 1000 * 1000000000, span);
    }
    return table_row(t, err, db->path, st.word, st.txid, st.wal_size, puts, lists, span);
}

static json_t *estimate_json(const struct estimate *e)
{
    if (!e->known) return json_pack("{s:b, s:s}", "estimate", true, "error", e->err.text);
    return json_pack("{s:b, s:I, s:I, s:I}", "estimate", true, "put_per_day",
                     (json_int_t)e->puts_a_day, "list_per_start", (json_int_t)e->lists_a_start,
                     "span_s", (json_int_t)(e->span_ms / 1000));
}

static void estimate_requests(const struct config_db *db, struct estimate *ret)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct store *store = NULL;
    struct store_stats stats;
    *ret = (struct estimate){0};
    if (config_replica_open(&db->replica, &store, &ret->err) != RC_OK) return;
    const struct log lg = {.store = store};
    ret->known = log_list_all(&lg, NULL, &files, &ret->err) == RC_OK;
    if (ret->known) estimate_puts(&files, db->replica.sync_interval_ms, ret);
    store_stats(store, &stats); /* a start lists the log once, as was done here */
    ret->lists_a_start = stats.requests[STORE_OP_LIST];
    store_close(store);
}

/* Each transaction of the log was one upload, also if its file has been merged away since; the
 * files of the other levels come on top. */
static void estimate_puts(const struct log_files *files, int64_t interval_ms, struct estimate *e)
{
    int64_t now = os_now_ms(), from = now - DAY_MS, oldest = INT64_MAX;
    uint64_t before = 0, newest = 0, others = 0;
    for (size_t i = 0; i < files->count; i++)
        if (files->items[i].created_ms < oldest) oldest = files->items[i].created_ms;
    if (files->count == 0) return;
    if (oldest > from) from = oldest;
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i];
        bool old = f->created_ms <= from;
        if (f->txid_max > newest) newest = f->txid_max;
        if (old && f->txid_max > before) before = f->txid_max;
        if (!old && f->level > 0) others++;
    }
    e->span_ms = now - from > SPAN_MIN_MS ? now - from : SPAN_MIN_MS;
    double share = (double)DAY_MS / (double)e->span_ms;
    double puts = (double)(newest - before) * share, most = (double)DAY_MS / (double)interval_ms;
    e->puts_a_day = (uint64_t)((puts < most ? puts : most) + (double)others * share + 0.5);
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
