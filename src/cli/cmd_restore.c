/*
 * cmd_restore.c -- `sluice restore`: choose what to restore and where to, never lose what is there.
 *
 * An output that exists is only replaced with -force, and then at the very end: the new database is
 * built beside it and checked, so a restore that fails leaves the old one alone.
 */
#include "cli/cli.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/progress.h"
#include "db/source.h"
#include "log/restore.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define NEW_FILE_MODE 0644 /* minus the umask */
#define NEW_DIR_MODE  0700

struct job {
    const struct opts *o;
    struct cli_replica r;
    struct plan_target target;
    const char *out;         /* as the user wrote it */
    bool out_exists;         /* a non-empty database, or sidecar files: to be replaced */
    bool v3;                 /* from a Litestream 0.3 backup */
    const char *check;       /* none, quick, full */
    char build[OS_PATH_MAX]; /* where the new database is built: out, or beside it */
};

static enum rc run_restore(struct cli *c, struct err *err);
static enum rc check_args(struct cli *c, struct job *j, struct err *err);
static enum rc find_out(struct cli *c, struct job *j, struct err *err);
static enum rc check_time(struct job *j, struct err *err);
static enum rc check_out(struct job *j, struct err *err);
static enum rc choose_format(struct job *j, struct err *err);
static enum rc show_plan(struct cli *c, struct job *j, struct err *err);
static enum rc print_plan(const struct job *j, const struct log_files *plan, struct err *err);
static enum rc print_plan_json(const struct job *j, const struct log_files *plan, struct err *err);
static enum rc rebuild(struct cli *c, struct job *j, struct err *err);
static enum rc run_engine(const struct job *j, struct restore_result *ret, struct err *err);
static enum rc check_result(const struct job *j, struct err *err);
static enum rc replace_out(const struct job *j, struct err *err);
static enum rc make_parent(const char *path, struct err *err);
static enum rc report(const struct job *j, const struct restore_result *res, int64_t ms,
                      struct err *err);
static enum rc no_backup(struct cli *c, const struct job *j, struct err *err);
static bool exists(const char *path, bool *ret_empty);
static void remove_db(const char *path, bool with_db);
static const char *sidecar(const char *path, size_t i, char out[OS_PATH_MAX]);
static void on_signal(int sig);

#define SIDECAR_COUNT 3
static const char *const sidecars[SIDECAR_COUNT] = {"-wal", "-shm", "-journal"};
static atomic_bool canceled; /* set by SIGINT and SIGTERM */

static const char *const usage[] = {"[options] DB_PATH", "[options] -o PATH REPLICA_URL", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "o",
     .kind = OPT_STR,
     .arg = "PATH",
     .help = "Where to write the database. Default: the path of the configured database; required "
             "with a URL."},
    {.name = "txid",
     .kind = OPT_TXID,
     .arg = "TXID",
     .example = "00000000000000a5",
     .help = "Restore up to this transaction, 16 hexadecimal digits, as \"sluice ltx\" shows "
             "them. Default: the newest one."},
    {.name = "timestamp",
     .kind = OPT_STR,
     .arg = "TIME",
     .example = "2026-01-02T03:04:05Z",
     .help = "Restore to what was backed up before this time. Not together with -txid."},
    {.name = "if-db-not-exists",
     .kind = OPT_BOOL,
     .help = "When the database is there already, do nothing and exit with 0."},
    {.name = "if-replica-exists",
     .kind = OPT_BOOL,
     .help = "When there is no backup, do nothing and exit with 0."},
    {.name = "dry-run",
     .kind = OPT_BOOL,
     .help = "Print which files would be used, and write nothing."},
    {.name = "force",
     .kind = OPT_BOOL,
     .help = "Replace a database that is there, together with its -wal, -shm and -journal. It is "
             "removed when the restore has succeeded, so there must be space for both."},
    {.name = "json", .kind = OPT_BOOL, .help = "Print the result as JSON; log to standard error."},
    {.name = "integrity-check",
     .kind = OPT_STR,
     .arg = "MODE",
     .def = "none",
     .example = "quick",
     .help = "Let SQLite check the restored database: none, quick or full. A database that fails "
             "is removed."},
    {.name = "parallelism",
     .kind = OPT_UINT,
     .arg = "NUM",
     .def = "8",
     .help = "Pieces of files that are fetched at the same time."},
    {.name = "f",
     .kind = OPT_BOOL,
     .help = "Follow mode: keep applying new changes after the restore. Not available yet."},
    {.name = "follow-interval",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "1s",
     .help = "With -f: time between looks for changes. Not available yet."},
};
static const struct opt_example examples[] = {
    {"The newest state, to where the configuration has the database",
     "sluice restore /var/lib/app.db"},
    {"The state of a moment, to another file",
     "sluice restore -timestamp 2026-01-02T03:04:05Z -o /tmp/app.db /var/lib/app.db"},
    {"From a URL, without a configuration", "sluice restore -o /tmp/app.db file:///backup/app"},
    {"What would be done", "sluice restore -dry-run -o /tmp/app.db file:///backup/app"},
    {"At the start of a container, with or without a backup",
     "sluice restore -if-db-not-exists -if-replica-exists /var/lib/app.db"},
    {NULL, NULL},
};

const struct command cmd_restore = {
    .name = "restore",
    .summary = "restore a database from its replica",
    .usage = usage,
    .about =
        "Rebuilds a database from its replica: the newest state, or the state at a transaction "
        "or a time. The database is named by its path in the configuration file, or the "
        "replica by its URL. Backups of Litestream 0.3 are restored, too.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_restore,
};

static enum rc run_restore(struct cli *c, struct err *err)
{
    struct job j = {.o = &c->opts};
    TRY(check_args(c, &j, err));
    enum rc rc = cli_open_replica(c, c->opts.args[0], &j.r, err);
    if (rc == RC_OK) rc = rebuild(c, &j, err);
    cli_close_replica(&j.r);
    return rc;
}

static enum rc check_args(struct cli *c, struct job *j, struct err *err)
{
    const struct opts *o = j->o;
    const char *when = opts_str(o, "timestamp");
    cli_hint(c, "sluice help restore");
    if (o->arg_count == 0) {
        cli_hint(c, "sluice restore -o /path/to/db file:///path/to/replica");
        return err_set(err, RC_INVALID, "database path or replica URL required");
    }
    if (o->arg_count > 1) return err_set(err, RC_INVALID, "too many arguments");
    j->check = opts_str(o, "integrity-check");
    if (strcmp(j->check, "none") != 0 && strcmp(j->check, "quick") != 0 &&
        strcmp(j->check, "full") != 0)
        return err_set(err, RC_INVALID, "invalid -integrity-check value: %s", j->check);
    if (opts_bool(o, "f"))
        return err_set(err, RC_UNSUPPORTED, "-f: follow mode is not available yet");
    if (opts_given(o, "txid"))
        j->target = (struct plan_target){.kind = PLAN_TXID, .txid = opts_number(o, "txid")};
    if (when[0] != '\0') {
        if (opts_given(o, "txid"))
            return err_set(err, RC_INVALID, "cannot use -txid and -timestamp together");
        j->target = (struct plan_target){.kind = PLAN_TIME};
        if (time_get(when, &j->target.time_ms, err) != RC_OK)
            return err_set(err, RC_INVALID,
                           "invalid -timestamp, must specify in ISO 8601 format "
                           "(e.g. 2000-01-01T00:00:00Z)");
    }
    c->hint[0] = '\0';
    return RC_OK;
}

static enum rc rebuild(struct cli *c, struct job *j, struct err *err)
{
    bool empty;
    int64_t start = os_mono_ms();
    struct restore_result res = {0};
    cli_start_log(j->r.cfg, "", opts_bool(j->o, "json"));
    TRY(find_out(c, j, err));
    if (opts_bool(j->o, "if-db-not-exists") && exists(j->out, &empty)) {
        log_info("database already exists, skipping", "path", j->out);
        return RC_OK;
    }
    enum rc rc = check_time(j, err);
    if (rc == RC_OK) rc = choose_format(j, err);
    if (rc != RC_OK) return rc;
    if (opts_bool(j->o, "dry-run")) return show_plan(c, j, err);
    TRY(check_out(j, err));
    TRY(make_parent(j->out, err));
    rc = run_engine(j, &res, err);
    if (rc == RC_NOT_FOUND) return no_backup(c, j, err);
    if (rc != RC_OK) return err_wrap(err, "restore '%s'", j->out);
    TRY(check_result(j, err));
    TRY(replace_out(j, err));
    return report(j, &res, os_mono_ms() - start, err);
}

static enum rc find_out(struct cli *c, struct job *j, struct err *err)
{
    j->out = opts_str(j->o, "o");
    if (j->out[0] == '\0' && j->r.by_url) {
        char shown[512];
        cli_shown_url(j->r.name, shown, sizeof shown);
        cli_hint(c, "sluice restore -o /path/to/db %s", shown);
        return err_set(err, RC_INVALID, "-o is required when restoring from a replica URL");
    }
    if (j->out[0] == '\0') j->out = j->r.db->path;
    if (strlen(j->out) + 32 > OS_PATH_MAX)
        return err_set(err, RC_INVALID, "path too long: '%s'", j->out);
    return RC_OK;
}

/* By URL, a time outside of what the log covers is taken for a mistake, as Litestream does. */
static enum rc check_time(struct job *j, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct v3_summary v3 = {0};
    if (j->target.kind != PLAN_TIME || !j->r.by_url) return RC_OK;
    TRY(log_list_at(&j->r.log, NULL, j->target.time_ms, &files, err));
    if (files.count == 0) return RC_OK;
    int64_t oldest = INT64_MAX, newest = INT64_MIN, t = j->target.time_ms;
    for (size_t i = 0; i < files.count; i++) {
        if (files.items[i].created_ms < oldest) oldest = files.items[i].created_ms;
        if (files.items[i].created_ms > newest) newest = files.items[i].created_ms;
    }
    if (t >= oldest && t <= newest) return RC_OK;
    TRY(restore_v3_find(&j->r.log, NULL, &j->target, &v3, err));
    if (v3.any && t <= (newest > v3.newest_ms ? newest : v3.newest_ms)) return RC_OK;
    char from[TIME_TEXT_SIZE], to[TIME_TEXT_SIZE];
    time_put(oldest, true, from);
    time_put(newest, true, to);
    return err_set(err, RC_INVALID, "timestamp does not exist: the backup reaches from %s to %s",
                   from, to);
}

/* What may be in the way, and is it allowed to go? */
static enum rc check_out(struct job *j, struct err *err)
{
    char side[OS_PATH_MAX];
    struct stat st;
    bool empty = true, side_empty, force = opts_bool(j->o, "force");
    bool there = exists(j->out, &empty);
    snprintf(j->build, sizeof j->build, "%s", j->out);
    if (there && os_stat(j->out, &st, err) == RC_OK && S_ISDIR(st.st_mode))
        return err_set(err, RC_INVALID, "cannot restore, output path is a directory: %s", j->out);
    if (there && !empty && !force)
        return err_set(
            err, RC_CONFLICT,
            "cannot restore, output path already exists and is not empty: %s. Use -force "
            "to overwrite",
            j->out);
    j->out_exists = there && !empty;
    for (size_t i = 0; i < SIDECAR_COUNT; i++) {
        if (!exists(sidecar(j->out, i, side), &side_empty)) continue;
        /* Without its database an empty one, or an -shm, means nothing. Any other would be applied
         * to the new database by SQLite, and destroy it. */
        bool harmless = !there && (side_empty || strcmp(sidecars[i], "-shm") == 0);
        if (!harmless && !force)
            return err_set(err, RC_CONFLICT,
                           "cannot restore, SQLite sidecar path already exists: %s. Use -force to "
                           "overwrite",
                           side);
        j->out_exists = j->out_exists || !harmless;
    }
    if (j->out_exists) snprintf(j->build, sizeof j->build, "%s.sluice-new", j->out);
    if (j->out_exists) remove_db(j->build, true);
    return RC_OK;
}

/* A replica may hold backups of Litestream 0.3 and a log; the newer of the two is meant. */
static enum rc choose_format(struct job *j, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct v3_summary v3 = {0};
    if (j->target.kind == PLAN_TXID) return RC_OK;
    TRY(restore_v3_find(&j->r.log, NULL, &j->target, &v3, err));
    if (!v3.any) return RC_OK;
    TRY(log_list_at(&j->r.log, NULL, j->target.time_ms, &files, err));
    int64_t best = INT64_MIN; /* newest file; for a time: newest snapshot before it */
    for (size_t i = 0; i < files.count; i++) {
        const struct log_file *f = &files.items[i];
        bool fits = j->target.kind == PLAN_LATEST ||
                    (f->txid_min == 1 && f->created_ms < j->target.time_ms);
        if (fits && f->created_ms > best) best = f->created_ms;
    }
    j->v3 = (j->target.kind == PLAN_LATEST ? v3.newest_ms : v3.snapshot_ms) > best;
    return RC_OK;
}

static enum rc show_plan(struct cli *c, struct job *j, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files plan = {0};
    if (j->v3)
        return err_set(err, RC_UNSUPPORTED,
                       "the newest backup was made by Litestream 0.3, whose parts -dry-run cannot "
                       "list; leave out -dry-run to restore it");
    enum rc rc = restore_plan(&j->r.log, NULL, &j->target, &plan, err);
    if (rc == RC_NOT_FOUND) {
        char shown[512];
        cli_shown_url(j->r.name, shown, sizeof shown);
        cli_hint(c, "sluice ltx -level all %s", shown);
        return err_set(err, RC_NOT_FOUND, "no matching backup files available");
    }
    TRY(rc);
    return opts_bool(j->o, "json") ? print_plan_json(j, &plan, err) : print_plan(j, &plan, err);
}

static enum rc print_plan(const struct job *j, const struct log_files *plan, struct err *err)
{
    CLEANUP(table_fini) struct table t = {.columns = 6};
    char min[17], max[17], shown[OS_PATH_MAX];
    config_url_redact(j->r.name, shown, sizeof shown);
    txid_put(plan->items[0].txid_min, min);
    txid_put(plan->items[plan->count - 1].txid_max, max);
    printf("Restore plan:\n  source: %s\n  target: %s\n  replica: %s\n  txid range: %s - %s\n\n"
           "Files to fetch:\n",
           j->r.by_url ? shown : j->r.name, j->out, j->r.replica->type, min, max);
    TRY(table_row(&t, err, "level", "file", "min_txid", "max_txid", "size", "timestamp"));
    for (size_t i = 0; i < plan->count; i++) {
        const struct log_file *f = &plan->items[i];
        char level[16], name[LTX_NAME_SIZE], size[24], when[TIME_TEXT_SIZE];
        snprintf(level, sizeof level, "%u", f->level);
        snprintf(size, sizeof size, "%llu", (unsigned long long)f->size);
        ltx_name_put(f->txid_min, f->txid_max, name);
        txid_put(f->txid_min, min);
        txid_put(f->txid_max, max);
        time_put(f->created_ms, false, when);
        TRY(table_row(&t, err, level, name, min, max, size, when));
    }
    table_print(&t, stdout);
    return RC_OK;
}

static enum rc print_plan_json(const struct job *j, const struct log_files *plan, struct err *err)
{
    char min[17], max[17], shown[OS_PATH_MAX];
    json_t *files = json_array();
    config_url_redact(j->r.name, shown, sizeof shown);
    txid_put(plan->items[0].txid_min, min);
    txid_put(plan->items[plan->count - 1].txid_max, max);
    for (size_t i = 0; i < plan->count; i++) {
        if (json_array_append_new(files, cli_file_json(&plan->items[i], true)) == 0) continue;
        json_decref(files);
        return err_mem(err, "the plan");
    }
    return cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "source",
                                    j->r.by_url ? shown : j->r.name, "target_path", j->out,
                                    "replica", j->r.replica->type, "min_txid", min, "max_txid", max,
                                    "files", files),
                          err);
}

static enum rc run_engine(const struct job *j, struct restore_result *ret, struct err *err)
{
    struct progress progress;
    struct stat st;
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    const struct call call = {.cancel = &canceled};
    struct restore_opts ro = {.target = j->target,
                              .out_path = j->build,
                              .parallelism = (unsigned)opts_number(j->o, "parallelism"),
                              .mode = NEW_FILE_MODE,
                              .progress = progress_update,
                              .progress_ctx = &progress};
    if (os_stat(j->out, &st, err) == RC_OK) ro.mode = st.st_mode & 07777;
    progress_init(&progress);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    enum rc rc = j->v3 ? restore_v3_run(&j->r.log, &call, &ro, ret, err)
                       : restore_run(&j->r.log, &call, &ro, ret, err);
    progress_end(&progress);
    return rc;
}

static enum rc check_result(const struct job *j, struct err *err)
{
    if (strcmp(j->check, "none") == 0) return RC_OK;
    enum rc rc = db_integrity_check(j->build, strcmp(j->check, "full") == 0, err);
    if (rc == RC_OK) {
        log_info("post-restore integrity check passed", "replica", j->r.replica->type);
        return RC_OK;
    }
    remove_db(j->build, true);
    return err_wrap(err, "post-restore integrity check (the restored file was removed)");
}

static enum rc replace_out(const struct job *j, struct err *err)
{
    char dir[OS_PATH_MAX];
    if (!j->out_exists) return RC_OK;
    remove_db(j->out, false); /* its WAL must not meet the new database */
    TRY(os_rename(j->build, j->out, err));
    snprintf(dir, sizeof dir, "%s", j->out);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        snprintf(dir, sizeof dir, ".");
    else
        slash[slash == dir] = '\0';
    return os_fsync_dir(dir, err);
}

static enum rc make_parent(const char *path, struct err *err)
{
    char dir[OS_PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL || slash == dir) return RC_OK;
    *slash = '\0';
    return os_mkdirs(dir, NEW_DIR_MODE, err);
}

static enum rc report(const struct job *j, const struct restore_result *res, int64_t ms,
                      struct err *err)
{
    char txid[17] = "", size[32], took[32];
    if (!j->v3) txid_put(res->txid, txid); /* 0.3 knew no transactions */
    size_put((uint64_t)res->page_size * res->page_count, size);
    duration_put(ms * 1000000, took);
    if (opts_bool(j->o, "json"))
        return cli_print_json(json_pack("{s:s, s:s, s:s, s:I, s:s}", "db_path", j->out, "replica",
                                        j->r.replica->type, "txid", txid, "duration_ms",
                                        (json_int_t)ms, "integrity_check", j->check),
                              err);
    log_info("restored database", "path", j->out, "replica", j->r.replica->type, "txid", txid,
             "size", size, "duration", took, "digest",
             res->digest_checked ? "verified" : "none in this backup");
    return RC_OK;
}

/* err: why nothing fits. */
static enum rc no_backup(struct cli *c, const struct job *j, struct err *err)
{
    struct err why = *err;
    if (opts_bool(j->o, "if-replica-exists")) {
        log_info("no matching backups found", "reason", why.text);
        return RC_OK;
    }
    char shown[512];
    cli_shown_url(j->r.name, shown, sizeof shown);
    cli_hint(c, "sluice ltx -level all %s", shown);
    log_debug("restore", "reason", why.text);
    return err_set(err, RC_NOT_FOUND, "no matching backup files available");
}

static bool exists(const char *path, bool *ret_empty)
{
    struct stat st;
    struct err err;
    *ret_empty = true;
    if (os_stat(path, &st, &err) != RC_OK) return false;
    *ret_empty = st.st_size == 0;
    return true;
}

static void remove_db(const char *path, bool with_db)
{
    char side[OS_PATH_MAX];
    struct err err;
    bool empty;
    for (size_t i = 0; i < SIDECAR_COUNT; i++) {
        if (!exists(sidecar(path, i, side), &empty)) continue;
        if (os_unlink(side, &err) != RC_OK) log_warn("cannot remove, ignoring", "why", err.text);
    }
    if (!with_db || !exists(path, &empty)) return;
    if (os_unlink(path, &err) != RC_OK) log_warn("cannot remove, ignoring", "why", err.text);
}

static const char *sidecar(const char *path, size_t i, char out[OS_PATH_MAX])
{
    snprintf(out, OS_PATH_MAX, "%s%s", path, sidecars[i]);
    return out;
}

static void on_signal(int sig)
{
    (void)sig;
    atomic_store(&canceled, true);
}
