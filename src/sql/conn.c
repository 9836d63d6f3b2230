/* conn.c -- see conn.h and conn_intern.h. */
#include "sql/conn.h"
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "sql/conn_intern.h"
#include "sql/actions.h"

#define STATEMENTS       64
#define STATEMENTS_MAX   1024
#define KEPT_SQL_MAX     (64u << 10) /* a longer text is prepared each time */
#define KEPT_BYTES_MAX   (4u << 20)  /* all kept statements together */
#define OPEN_TRIES       20
#define OPEN_SLEEP_US    2000
#define ATTACHED_MAX     4
#define SQL_SIZE_MAX     (256 << 20) /* bytes of a statement: in dumps blobs are digits */
#define TOKENS_MAX       2000000     /* of a statement: SQLite takes about 100 bytes for each */
#define VALUE_MAX        (128u << 20)
#define PROGRESS_STEPS   500
#define LIKE_PATTERN_MAX 1000 /* a step takes as long as pattern times text: nobody can end it */
#define BRIEF_VALUE_MAX  (256 << 10) /* so does one that builds or copies a value */
#define BRIEF_LIKE_MAX   100
#define BRIEF_SQL_MAX    (64 << 10) /* and no handler is asked while SQLite parses */
#define LOOKASIDE_SIZE   512        /* bytes of a slot, and how many */
#define LOOKASIDE_COUNT  80
#define BUSY_MS          5000
#define BUSY_SLEEP_US    500
#define CACHE_KIB        2000

static const char *const own_texts[CONN_OWN_COUNT] = {
    [CONN_BEGIN] = "BEGIN",
    [CONN_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [CONN_COMMIT] = "COMMIT",
    [CONN_ROLLBACK] = "ROLLBACK",
    [CONN_UNIT_OPEN] = "SAVEPOINT sluice_unit",
    [CONN_UNIT_KEEP] = "RELEASE sluice_unit",
    [CONN_UNIT_UNDO] = "ROLLBACK TO sluice_unit",
    [CONN_STEP_OPEN] = "SAVEPOINT sluice_step",
    [CONN_STEP_KEEP] = "RELEASE sluice_step",
    [CONN_STEP_UNDO] = "ROLLBACK TO sluice_step",
    [CONN_DEFER_OFF] = "PRAGMA defer_foreign_keys=0",
};

/* What a run needs from function to function. */
struct run {
    const struct call *call;
    const struct sql_limits *limits;
    const struct sql_sink *sink; /* NULL: no rows wanted by anybody */
    bool want_rows;
    uint64_t rows, bytes;
    struct sql_error *sql_err;
    struct err *err;
};

static enum rc open_db(struct sql_conn *c, sqlite3 **ret_db, struct err *err);
static enum rc set_up(struct sql_conn *c, sqlite3 *db, struct err *err);
static enum rc set_pragmas(struct sql_conn *c, sqlite3 *db, struct err *err);
static int value_max(const struct sql_conn *c);
static void limit_steps(struct sql_conn *c, int value, int pattern);
static bool is_too_much(enum rc rc, const struct sql_error *sql_err, const struct err *err);
static enum rc learn_encoding(struct sql_conn *c, struct err *err);
static void drop_statements(struct sql_conn *c);
static enum rc do_locked(struct sql_conn *c, enum conn_own which, struct err *err);
static enum rc enter(struct sql_conn *c, const struct call *call, struct sql_error *sql_err,
                     struct err *err);
static void leave(struct sql_conn *c);
static void close_db(struct sql_conn *c);
static enum rc find(struct sql_conn *c, const char *sql, size_t size, struct kept **ret_k,
                    struct sql_error *sql_err, struct err *err);
static enum rc check_size(const char *sql, size_t size, struct sql_error *sql_err, struct err *err);
static enum rc prepare(struct sql_conn *c, const char *sql, size_t size, unsigned flags,
                       struct kept *ret_k, size_t *ret_used, struct sql_error *sql_err,
                       struct err *err);
static enum rc prepare_one(struct sql_conn *c, const char *sql, size_t size, struct kept *ret_k,
                           struct sql_error *sql_err, struct err *err);
static enum rc check_unseen(struct sql_conn *c, struct kept *k, struct sql_error *sql_err,
                            struct err *err);
static int prepare_replace(struct sql_conn *c, const char *sql, size_t size, unsigned flags,
                           struct kept *k);
static bool may_be_stale(const struct sql_conn *c, int code);
static void refresh_schema(struct sql_conn *c);
static struct kept *keep(struct sql_conn *c, const struct kept *k);
static void evict_oldest(struct sql_conn *c);
static void drop(struct kept *k);
static enum rc may_run(struct sql_conn *c, const struct kept *k, const struct sql_limits *limits,
                       struct sql_error *sql_err, struct err *err);
static enum rc execute(struct sql_conn *c, struct kept *k, struct run *r);
static enum rc step_all(struct sql_conn *c, struct kept *k, struct run *r);
static enum rc give_row(struct sql_conn *c, sqlite3_stmt *stmt, size_t cols, struct run *r);
static enum rc end_step(struct sql_conn *c, enum rc rc, struct run *r);
static void after(struct sql_conn *c, const struct kept *k, bool ok);
static void fill_done(struct sql_conn *c, const struct kept *k, uint64_t rows, int64_t total,
                      struct sql_done *done);
static enum rc check_script_end(struct sql_conn *c, const char *sql, size_t size,
                                struct sql_error *sql_err, struct err *err);
static enum rc is_wanted(struct sql_conn *c, const struct call *call, struct sql_error *sql_err,
                         struct err *err);
static enum rc timed_out(struct sql_error *sql_err, struct err *err);
static int on_progress(void *ctx);
static int on_busy(void *ctx, int tries);
static int on_commit(void *ctx);
static void on_rollback(void *ctx);

enum rc sql_conn_open(const struct sql_conn_opts *opts, struct sql_conn **ret_conn, struct err *err)
{
    struct sql_conn *c = mem_calloc(1, sizeof *c);
    if (c == NULL) return err_mem(err, "a connection");
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->gate, NULL);
    c->opts = *opts;
    if (c->opts.statement_max == 0) c->opts.statement_max = STATEMENTS;
    if (c->opts.statement_max > STATEMENTS_MAX) c->opts.statement_max = STATEMENTS_MAX;
    conn_busy_ms(c, 0);
    c->path = mem_strdup(opts->path);
    c->opts.path = c->path;
    c->kept = mem_calloc(c->opts.statement_max, sizeof *c->kept);
    enum rc rc = RC_OK;
    if (c->path == NULL || c->kept == NULL) rc = err_mem(err, "a connection");
    /* Another connection may be turning the new database into a WAL database at this moment; SQLite
     * does not wait for that. */
    for (int tries = 0; rc == RC_OK && c->db == NULL; tries++) {
        rc = open_db(c, &c->db, err);
        if (rc != RC_BUSY || tries == OPEN_TRIES) break;
        os_sleep_us(OPEN_SLEEP_US);
        rc = RC_OK;
    }
    if (rc == RC_OK) rc = learn_encoding(c, err);
    if (rc != RC_OK) {
        sql_conn_close(c);
        return err_wrap(err, "open database '%s'", opts->path);
    }
    conn_unit(c);
    *ret_conn = c;
    return RC_OK;
}

void sql_conn_close(struct sql_conn *c)
{
    if (c == NULL) return;
    close_db(c);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->gate);
    mem_free(c->kept);
    mem_free(c->values);
    mem_free(c->cols);
    mem_free(c->params);
    mem_free(c->path);
    mem_free(c);
}

uint64_t sql_policy_id(void)
{
    static _Atomic uint64_t last;
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

void sql_conn_policy(struct sql_conn *c, const struct sql_policy *policy)
{
    ASSERT(policy == NULL || policy->id != 0); /* 0 is for statements of nobody's rules */
    c->guard.policy = policy;
}

enum rc sql_conn_reset(struct sql_conn *c, struct err *err)
{
    sql_conn_rollback(c);
    c->call = NULL;
    c->left_open = false;
    if (c->tainted) {
        sqlite3 *db;
        if (open_db(c, &db, err) != RC_OK) return err_wrap(err, "open database '%s'", c->path);
        close_db(c);
        thr_lock(&c->gate);
        c->db = db;
        thr_unlock(&c->gate);
        c->tainted = c->defers = false;
    }
    struct sql_error ignored;
    if (sqlite3_get_autocommit(c->db) == 0) return err_mem(err, "a rollback");
    if (c->defers) TRY(conn_do(c, CONN_DEFER_OFF, &ignored, err));
    sql_conn_foreign_keys(c, c->opts.foreign_keys);
    conn_unit(c);
    return RC_OK;
}

bool sql_conn_tainted(const struct sql_conn *c)
{
    return c->tainted;
}

enum rc sql_conn_attach(struct sql_conn *c, const char *path, const char *name,
                        struct sql_error *sql_err, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    CLEANUP(buf_fini) struct buf uri = BUF_INIT;
    TRY(buf_printf(&uri, err, "file:"));
    for (const char *p = path; *p != '\0'; p++) /* what means something in a URI: as %XX */
        TRY(buf_printf(&uri, err, strchr("%?#", *p) != NULL ? "%%%02X" : "%c", (unsigned char)*p));
    TRY(buf_printf(&uri, err, "?mode=ro"));
    TRY(enter(c, NULL, sql_err, err));
    c->guard.attaching = true;
    int code = sqlite3_prepare_v3(c->db, "ATTACH ?1 AS ?2", -1, 0, &stmt, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_bind_text(stmt, 1, (const char *)uri.data, (int)uri.size, SQLITE_STATIC);
    if (code == SQLITE_OK) code = sqlite3_bind_text(stmt, 2, name, -1, SQLITE_STATIC);
    if (code == SQLITE_OK) code = sqlite3_step(stmt);
    enum rc rc = code == SQLITE_DONE ? RC_OK : conn_fail(c, code, -1, sql_err, err);
    sqlite3_finalize(stmt);
    c->guard.attaching = false;
    if (rc == RC_OK) c->tainted = true;
    leave(c);
    return rc;
}

void sql_conn_foreign_keys(struct sql_conn *c, bool on)
{
    if (sql_conn_foreign_keys_on(c) != on)
        sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_FKEY, (int)on, NULL);
}

bool sql_conn_foreign_keys_on(const struct sql_conn *c)
{
    int on = 0;
    sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_FKEY, -1, &on);
    return on != 0;
}

enum rc sql_conn_run(struct sql_conn *c, const struct call *call, const struct sql_limits *limits,
                     const struct sql_stmt *stmt, const struct sql_sink *sink,
                     struct sql_done *done, struct sql_error *sql_err, struct err *err)
{
    struct run r = {.call = call,
                    .limits = limits,
                    .sink = sink,
                    .want_rows = stmt->want_rows,
                    .sql_err = sql_err,
                    .err = err};
    struct kept *k = NULL;
    int64_t start_us = os_mono_us();
    TRY(enter(c, call, sql_err, err));
    bool brief = limits != NULL && limits->brief;
    if (brief) limit_steps(c, BRIEF_VALUE_MAX, BRIEF_LIKE_MAX);
    int64_t total = sqlite3_total_changes64(c->db);
    enum rc rc = brief && stmt->sql_size > BRIEF_SQL_MAX
                     ? conn_fail_own(sql_err, err, RC_CANCELED, "SQLITE_INTERRUPT", "a long text")
                     : find(c, stmt->sql, stmt->sql_size, &k, sql_err, err);
    if (rc == RC_OK) rc = may_run(c, k, limits, sql_err, err);
    if (rc == RC_OK) rc = conn_bind(c, k->stmt, call, stmt->args, stmt->arg_count, sql_err, err);
    if (rc == RC_OK) rc = execute(c, k, &r);
    if (rc == RC_OK) {
        fill_done(c, k, r.rows, total, done);
        done->us = os_mono_us() - start_us;
    } else if (sql_err->code[0] == '\0') {
        sql_error_own(sql_err, rc == RC_NO_MEM ? "SQLITE_NOMEM" : "SQLITE_ABORT",
                      "SQLite error: %s", err->text);
    }
    if (k != NULL && stmt->arg_count > 0) sqlite3_clear_bindings(k->stmt);
    if (brief && is_too_much(rc, sql_err, err))
        rc = err_set(err, RC_CANCELED, "not brief: a value of more than %d bytes", BRIEF_VALUE_MAX);
    if (rc != RC_OK && atomic_load(&c->revoked)) rc = timed_out(sql_err, err);
    if (brief) limit_steps(c, value_max(c), LIKE_PATTERN_MAX);
    leave(c);
    return rc;
}

enum rc sql_conn_script(struct sql_conn *c, const struct call *call,
                        const struct sql_limits *limits, const char *sql, size_t size,
                        struct sql_error *sql_err, struct err *err)
{
    struct run r = {.call = call, .limits = limits, .sql_err = sql_err, .err = err};
    TRY(enter(c, call, sql_err, err));
    enum rc rc = check_size(sql, size, sql_err, err);
    if (rc == RC_OK) rc = check_script_end(c, sql, size, sql_err, err);
    for (size_t at = 0; rc == RC_OK && at < size;) {
        struct kept k = {0};
        size_t used = 0;
        rc = prepare(c, sql + at, size - at, 0, &k, &used, sql_err, err);
        /* A script has no arguments. */
        if (rc == RC_OK && k.stmt != NULL) rc = conn_bind(c, k.stmt, call, NULL, 0, sql_err, err);
        if (rc == RC_OK && k.stmt != NULL) rc = is_wanted(c, call, sql_err, err);
        if (rc == RC_OK && k.stmt != NULL) rc = may_run(c, &k, limits, sql_err, err);
        if (rc == RC_OK && k.stmt != NULL) rc = execute(c, &k, &r);
        drop(&k);
        if (rc != RC_OK && sql_err->offset >= 0) sql_err->offset += (int)at;
        at += used;
    }
    if (rc != RC_OK && sql_err->code[0] == '\0')
        sql_error_own(sql_err, "SQLITE_NOMEM", "SQLite error: %s", err->text);
    if (rc != RC_OK && atomic_load(&c->revoked)) rc = timed_out(sql_err, err);
    leave(c);
    return rc;
}

enum rc sql_conn_describe(struct sql_conn *c, const char *sql, size_t size,
                          struct sql_description *ret, struct sql_error *sql_err, struct err *err)
{
    struct kept *k;
    TRY(enter(c, NULL, sql_err, err));
    enum rc rc = find(c, sql, size, &k, sql_err, err);
    if (rc == RC_OK) rc = conn_room(c, (size_t)sqlite3_column_count(k->stmt), err);
    size_t params = rc == RC_OK ? (size_t)sqlite3_bind_parameter_count(k->stmt) : 0;
    if (params > c->param_cap) {
        struct sql_param *grown = mem_realloc(c->params, params * sizeof *grown);
        if (grown == NULL) rc = err_mem(err, "parameters of a statement");
        if (grown != NULL) c->params = grown, c->param_cap = params;
    }
    if (rc == RC_OK) {
        size_t cols = (size_t)sqlite3_column_count(k->stmt);
        conn_cols(c, k->stmt, cols);
        for (size_t i = 0; i < params; i++)
            c->params[i].name = sqlite3_bind_parameter_name(k->stmt, (int)i + 1);
        *ret = (struct sql_description){.params = c->params,
                                        .param_count = params,
                                        .cols = c->cols,
                                        .col_count = cols,
                                        .is_explain = sqlite3_stmt_isexplain(k->stmt) != 0,
                                        .is_readonly = sqlite3_stmt_readonly(k->stmt) != 0};
    } else if (sql_err->code[0] == '\0') {
        sql_error_own(sql_err, "SQLITE_NOMEM", "SQLite error: %s", err->text);
    }
    leave(c);
    return rc;
}

bool sql_conn_autocommit(struct sql_conn *c)
{
    thr_lock(&c->lock);
    bool yes = sqlite3_get_autocommit(c->db) != 0;
    thr_unlock(&c->lock);
    return yes;
}

enum rc sql_conn_begin(struct sql_conn *c, bool immediate, struct err *err)
{
    return do_locked(c, immediate ? CONN_BEGIN_WRITE : CONN_BEGIN, err);
}

enum rc sql_conn_commit(struct sql_conn *c, struct err *err)
{
    return do_locked(c, CONN_COMMIT, err);
}

void sql_conn_rollback(struct sql_conn *c)
{
    thr_lock(&c->lock);
    conn_rollback(c);
    thr_unlock(&c->lock);
}

enum rc sql_conn_savepoint(struct sql_conn *c, struct err *err)
{
    return do_locked(c, CONN_UNIT_OPEN, err);
}

enum rc sql_conn_release(struct sql_conn *c, bool keep_it, struct err *err)
{
    if (sql_conn_autocommit(c))
        return err_set(err, RC_INVALID, "the transaction has ended meanwhile");
    if (!keep_it) TRY(do_locked(c, CONN_UNIT_UNDO, err));
    return do_locked(c, CONN_UNIT_KEEP, err);
}

enum rc sql_conn_checkpoint(struct sql_conn *c, uint32_t *ret_pages, struct err *err)
{
    int frames = 0, copied = 0;
    struct sql_error ignored;
    thr_lock(&c->lock);
    c->call = NULL;
    c->busy_since_ms = 0;
    int code = sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
    enum rc rc = RC_OK;
    if (code == SQLITE_OK)
        *ret_pages = frames > copied ? (uint32_t)(frames - copied) : 0;
    else
        rc = conn_fail(c, code, -1, &ignored, err);
    thr_unlock(&c->lock);
    return rc == RC_OK ? rc : err_wrap(err, "checkpoint '%s'", c->path);
}

void sql_conn_interrupt(struct sql_conn *c)
{
    thr_lock(&c->gate);
    if (c->db != NULL) sqlite3_interrupt(c->db);
    thr_unlock(&c->gate);
}

int64_t sql_conn_memory(const struct sql_conn *c)
{
    static const int ops[] = {SQLITE_DBSTATUS_CACHE_USED, SQLITE_DBSTATUS_SCHEMA_USED,
                              SQLITE_DBSTATUS_STMT_USED};
    int64_t bytes = LOOKASIDE_SIZE * LOOKASIDE_COUNT;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        int now = 0, high;
        sqlite3_db_status(c->db, ops[i], &now, &high, 0);
        bytes += now;
    }
    return bytes;
}

void sql_conn_last(struct sql_conn *c, struct sql_last *ret)
{
    int64_t now = sqlite3_changes64(c->db);
    bool changed = c->unit_changed || now != c->unit_changes;
    *ret = (struct sql_last){
        .rowid = sqlite3_last_insert_rowid(c->db),
        .changes = changed ? now : c->base_changes,
        .total = sqlite3_total_changes64(c->db) - c->unit_total + c->base_total,
    };
}

void sql_conn_set_last(struct sql_conn *c, const struct sql_last *last)
{
    sqlite3_set_last_insert_rowid(c->db, last->rowid);
    c->unit_changes = sqlite3_changes64(c->db);
    c->unit_total = sqlite3_total_changes64(c->db);
    c->unit_changed = false;
    c->base_changes = last->changes;
    c->base_total = last->total;
}

void sql_last_note(struct sql_last *last, const struct sql_done *done)
{
    if (done->inserted) last->rowid = done->last_rowid;
    if (done->changed) last->changes = (int64_t)done->affected;
    last->total += (int64_t)done->rows_written;
}

void conn_unit(struct sql_conn *c)
{
    sqlite3_set_last_insert_rowid(c->db, 0);
    c->unit_changes = sqlite3_changes64(c->db);
    c->unit_total = sqlite3_total_changes64(c->db);
    c->base_changes = c->base_total = 0;
    c->unit_changed = false;
    c->alone = c->lost = false;
}

void conn_guest(struct sql_conn *c, bool on)
{
    c->guest = on;
}

bool conn_wants_alone(const struct sql_conn *c)
{
    return c->alone;
}

bool conn_lost(const struct sql_conn *c)
{
    return c->lost;
}

bool conn_violates(struct sql_conn *c)
{
    int now = 0, high;
    sqlite3_db_status(c->db, SQLITE_DBSTATUS_DEFERRED_FKS, &now, &high, 0);
    return now > 0;
}

bool sql_conn_violates(struct sql_conn *c)
{
    thr_lock(&c->lock);
    bool violates = conn_violates(c);
    thr_unlock(&c->lock);
    return violates;
}

void conn_busy_ms(struct sql_conn *c, int64_t ms)
{
    c->busy_ms = ms > 0 ? ms : c->opts.busy_ms > 0 ? c->opts.busy_ms : BUSY_MS;
}

void conn_revoke(struct sql_conn *c)
{
    atomic_store(&c->revoked, true);
    sql_conn_interrupt(c);
    sql_conn_rollback(c);
}

void conn_restore(struct sql_conn *c)
{
    atomic_store(&c->revoked, false);
}

/* The end of the transaction turns it off, but SQLite forgets the statements that were prepared
 * under it: those take violations for deferred ones, report them too late, and leave the row there.
 */
bool conn_defers(struct sql_conn *c)
{
    sqlite3_stmt *stmt = NULL;
    if (!c->defers) return false;
    bool stepping = c->guard.stepping;
    c->guard.stepping = true;
    /* The answer is in the program, so an old one would have an old answer. */
    if (sqlite3_prepare_v3(c->db, "PRAGMA defer_foreign_keys", -1, 0, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        c->defers = sqlite3_column_int(stmt, 0) != 0;
    sqlite3_finalize(stmt);
    c->guard.stepping = stepping;
    if (!c->defers) drop_statements(c);
    return c->defers;
}

bool conn_writes(struct sql_conn *c)
{
    thr_lock(&c->lock);
    bool yes = sqlite3_txn_state(c->db, "main") == SQLITE_TXN_WRITE;
    thr_unlock(&c->lock);
    return yes;
}

void conn_rollback(struct sql_conn *c)
{
    struct sql_error ignored;
    struct err no_err;
    if (sqlite3_get_autocommit(c->db)) return;
    if (conn_do(c, CONN_ROLLBACK, &ignored, &no_err) == RC_OK) return;
    /* Without memory for the prepared one. What fails here was rolled back by SQLite itself. */
    c->guard.stepping = true;
    sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
    c->guard.stepping = false;
    after(c, NULL, false);
}

bool conn_unwanted(const struct sql_conn *c)
{
    struct err ignored;
    if (c->interruptible && atomic_load(&c->revoked)) return true;
    return c->call != NULL && call_check(c->call, &ignored) != RC_OK;
}

uint64_t conn_commits(const struct sql_conn *c)
{
    return c->commits;
}

uint64_t conn_hash(const char *sql, size_t size)
{
    uint64_t hash = size * UINT64_C(0x9e3779b97f4a7c15), word;
    for (; size >= 8; size -= 8, sql += 8) {
        memcpy(&word, sql, 8);
        hash = (hash ^ word) * UINT64_C(0xd6e8feb86659fd93);
        hash ^= hash >> 32;
    }
    for (word = 0; size > 0; size--)
        word = word << 8 | (uint8_t)sql[size - 1];
    hash = (hash ^ word) * UINT64_C(0xd6e8feb86659fd93);
    return hash ^ hash >> 32;
}

enum rc conn_do(struct sql_conn *c, enum conn_own which, struct sql_error *sql_err, struct err *err)
{
    int code = SQLITE_OK;
    sqlite3_stmt *stmt = c->own[which];
    const struct call *call = c->call;
    bool interruptible = c->interruptible, stepping = c->guard.stepping;
    const struct sql_policy *policy = c->guard.policy;
    c->call = NULL;
    c->interruptible = false;
    c->busy_since_ms = 0;
    c->guard.stepping = true; /* none of this is the client's, nor for its roles to judge */
    c->guard.policy = NULL;
    c->guard.denied = false;
    if (stmt == NULL) {
        code =
            sqlite3_prepare_v3(c->db, own_texts[which], -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
        c->own[which] = stmt;
    }
    if (code == SQLITE_OK) code = sqlite3_step(stmt);
    bool ok = code == SQLITE_DONE || code == SQLITE_ROW;
    enum rc rc = ok ? RC_OK : conn_fail(c, code, -1, sql_err, err);
    if (stmt != NULL) sqlite3_reset(stmt);
    c->guard.stepping = stepping;
    c->guard.policy = policy;
    c->interruptible = interruptible;
    c->call = call;
    after(c, NULL, ok);
    if (ok && which == CONN_DEFER_OFF) c->defers = false;
    return rc == RC_OK ? rc : err_wrap(err, "%s", own_texts[which]);
}

static enum rc open_db(struct sql_conn *c, sqlite3 **ret_db, struct err *err)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE |
                SQLITE_OPEN_URI | SQLITE_OPEN_EXRESCODE;
    if (!c->opts.read_only) flags |= SQLITE_OPEN_CREATE;
    c->call = NULL;
    c->busy_since_ms = 0;
    int code = sqlite3_open_v2(c->path, &db, flags, NULL);
    /* Failures are told by the handle that has them. */
    sqlite3 *old = c->db;
    c->db = db;
    struct sql_error ignored;
    c->guard.denied = false;
    enum rc rc = RC_OK;
    if (db == NULL)
        rc = err_mem(err, "a connection");
    else if (code != SQLITE_OK)
        rc = conn_fail(c, code, -1, &ignored, err);
    else
        rc = set_up(c, db, err);
    c->db = old;
    if (rc != RC_OK)
        sqlite3_close_v2(db);
    else
        *ret_db = db;
    return rc;
}

static enum rc set_up(struct sql_conn *c, sqlite3 *db, struct err *err)
{
    static const int off[] = {SQLITE_DBCONFIG_WRITABLE_SCHEMA,
                              SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION,
                              SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER};
    /* "text" in double quotes: as SQLite has it by default, many a schema needs it. */
    static const int on[] = {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, SQLITE_DBCONFIG_DEFENSIVE,
                             SQLITE_DBCONFIG_DQS_DDL, SQLITE_DBCONFIG_DQS_DML};
    struct sql_error ignored;
    sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, NULL, LOOKASIDE_SIZE, LOOKASIDE_COUNT);
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
        sqlite3_db_config(db, off[i], 0, NULL);
    sqlite3_busy_handler(db, on_busy, c);
    TRY(set_pragmas(c, db, err));
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++)
        sqlite3_db_config(db, on[i], 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_FKEY, (int)c->opts.foreign_keys, NULL);
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, value_max(c));
    sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, SQL_SIZE_MAX);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 1 + ATTACHED_MAX); /* one is VACUUM's own */
    sqlite3_limit(db, SQLITE_LIMIT_WORKER_THREADS, 0);
    sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LIKE_PATTERN_MAX);
    int code = conn_functions(c, db);
    if (code == SQLITE_OK) code = conn_guard_modules(db);
    if (code == SQLITE_OK) code = sqlite3_set_authorizer(db, conn_guard_authorize, &c->guard);
    if (code != SQLITE_OK) return conn_fail(c, code, -1, &ignored, err);
    sqlite3_progress_handler(db, PROGRESS_STEPS, on_progress, c);
    sqlite3_commit_hook(db, on_commit, c);
    sqlite3_rollback_hook(db, on_rollback, c);
    return RC_OK;
}

static enum rc set_pragmas(struct sql_conn *c, sqlite3 *db, struct err *err)
{
    char sql[320], mmap[48] = "", page_max[48] = "";
    struct sql_error ignored;
    const struct sql_conn_opts *o = &c->opts;
    if (o->page_max > 0)
        snprintf(page_max, sizeof page_max, "PRAGMA max_page_count=%llu;",
                 (unsigned long long)o->page_max);
    if (o->mmap_bytes > 0)
        snprintf(mmap, sizeof mmap, "PRAGMA mmap_size=%lld;", (long long)o->mmap_bytes);
    snprintf(sql, sizeof sql,
             "PRAGMA cache_size=-%lld; PRAGMA temp_store=%s; PRAGMA journal_mode=WAL;"
             "PRAGMA synchronous=%s;%s%s%s",
             (long long)(o->cache_kib > 0 ? o->cache_kib : CACHE_KIB),
             o->temp_in_file ? "FILE" : "MEMORY", o->full_sync ? "FULL" : "NORMAL", mmap, page_max,
             o->read_only ? "PRAGMA query_only=1;" : "");
    sqlite3_wal_autocheckpoint(db, 0);
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? RC_OK : conn_fail(c, code, -1, &ignored, err);
}

static int value_max(const struct sql_conn *c)
{
    uint32_t max = c->opts.value_max != 0 ? c->opts.value_max : VALUE_MAX;
    return max > INT32_MAX ? INT32_MAX : (int)max;
}

static void limit_steps(struct sql_conn *c, int value, int pattern)
{
    sqlite3_limit(c->db, SQLITE_LIMIT_LENGTH, value < value_max(c) ? value : value_max(c));
    sqlite3_limit(c->db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, pattern);
}

/* A failure that the limits of a brief run may have made. */
static bool is_too_much(enum rc rc, const struct sql_error *sql_err, const struct err *err)
{
    return rc != RC_OK && (strcmp(sql_err->code, "SQLITE_TOOBIG") == 0 ||
                           strstr(err->text, "pattern too complex") != NULL);
}

static enum rc learn_encoding(struct sql_conn *c, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    struct sql_error ignored;
    int code = sqlite3_prepare_v3(c->db, "PRAGMA encoding", -1, 0, &stmt, NULL);
    if (code == SQLITE_OK) code = sqlite3_step(stmt);
    enum rc rc = code == SQLITE_ROW ? RC_OK : conn_fail(c, code, -1, &ignored, err);
    const char *name = rc == RC_OK ? (const char *)sqlite3_column_text(stmt, 0) : "";
    c->utf8 = name != NULL && strcmp(name, "UTF-8") == 0;
    sqlite3_finalize(stmt);
    return rc;
}

static enum rc do_locked(struct sql_conn *c, enum conn_own which, struct err *err)
{
    struct sql_error ignored;
    thr_lock(&c->lock);
    enum rc rc =
        atomic_load(&c->revoked) ? timed_out(&ignored, err) : conn_do(c, which, &ignored, err);
    thr_unlock(&c->lock);
    return rc;
}

static void drop_statements(struct sql_conn *c)
{
    drop(&c->spare);
    while (c->kept_count > 0)
        drop(&c->kept[--c->kept_count]);
    c->kept_bytes = 0;
}

static void close_db(struct sql_conn *c)
{
    drop_statements(c);
    for (int i = 0; i < CONN_OWN_COUNT; i++) {
        sqlite3_finalize(c->own[i]);
        c->own[i] = NULL;
    }
    thr_lock(&c->gate);
    sqlite3 *db = c->db;
    c->db = NULL;
    thr_unlock(&c->gate);
    c->guard.stepping = true;
    sqlite3_close(db);
    c->guard.stepping = false;
}

static enum rc enter(struct sql_conn *c, const struct call *call, struct sql_error *sql_err,
                     struct err *err)
{
    ASSERT(!c->running);
    thr_lock(&c->lock);
    sql_err->code[0] = sql_err->extended[0] = sql_err->message[0] = '\0';
    sql_err->offset = -1;
    enum rc rc = RC_OK;
    if (atomic_load(&c->revoked)) {
        rc = timed_out(sql_err, err);
    } else if (c->guest && sqlite3_get_autocommit(c->db)) {
        c->lost = true;
        rc = conn_fail_own(sql_err, err, RC_CONFLICT, "SQLITE_ABORT",
                           "SQLite error: the transaction was rolled back");
    }
    if (rc != RC_OK) {
        thr_unlock(&c->lock);
        return rc;
    }
    c->running = c->interruptible = true;
    c->call = call;
    c->busy_since_ms = 0;
    return RC_OK;
}

static void leave(struct sql_conn *c)
{
    c->running = c->interruptible = false;
    c->call = NULL;
    c->left_open = sqlite3_get_autocommit(c->db) == 0;
    thr_unlock(&c->lock);
}

/* Also one that was kept is prepared anew by SQLite, while it runs, when the schema has changed: it
 * is asked for then as it was at first, for the policy of now is the policy of then. */
static enum rc find(struct sql_conn *c, const char *sql, size_t size, struct kept **ret_k,
                    struct sql_error *sql_err, struct err *err)
{
    uint64_t hash = conn_hash(sql, size);
    uint64_t policy = c->guard.policy != NULL ? c->guard.policy->id : 0;
    drop(&c->spare);
    TRY(check_size(sql, size, sql_err, err));
    (void)conn_defers(c);
    for (unsigned i = 0; i < c->kept_count; i++) {
        struct kept *k = &c->kept[i];
        if (k->hash != hash || k->policy != policy || k->sql_size != size ||
            memcmp(k->sql, sql, size) != 0)
            continue;
        k->used = ++c->tick;
        *ret_k = k;
        return RC_OK;
    }
    struct kept k = {.hash = hash, .used = ++c->tick, .policy = policy};
    TRY(prepare_one(c, sql, size, &k, sql_err, err));
    bool keeps = size <= KEPT_SQL_MAX && k.dialect != DIALECT_VACUUM && !(k.seen & SEEN_SCHEMA);
    /* A copy for the comparison; without memory for it the statement is simply not kept. */
    if (keeps) k.sql = mem_alloc(size);
    if (k.sql != NULL) {
        memcpy(k.sql, sql, size);
        k.sql_size = size;
        *ret_k = keep(c, &k);
    } else {
        c->spare = k;
        *ret_k = &c->spare;
    }
    return RC_OK;
}

/* A list of literals takes SQLite a hundred times its text in memory. */
static enum rc check_size(const char *sql, size_t size, struct sql_error *sql_err, struct err *err)
{
    if (size <= TOKENS_MAX || conn_most_tokens(sql, size) <= TOKENS_MAX) return RC_OK;
    sql_error_set(sql_err, SQLITE_TOOBIG, -1, "a statement of too many words and signs");
    return err_set(err, RC_INVALID, "a statement of more than %d words and signs", TOKENS_MAX);
}

/* Exactly one statement. */
static enum rc prepare_one(struct sql_conn *c, const char *sql, size_t size, struct kept *ret_k,
                           struct sql_error *sql_err, struct err *err)
{
    size_t at = 0;
    while (at < size && ret_k->stmt == NULL) {
        size_t used = 0;
        enum rc rc =
            prepare(c, sql + at, size - at, SQLITE_PREPARE_PERSISTENT, ret_k, &used, sql_err, err);
        if (rc != RC_OK) {
            if (sql_err->offset >= 0) sql_err->offset += (int)at;
            return rc;
        }
        at += used;
    }
    if (ret_k->stmt == NULL)
        return conn_fail_own(sql_err, err, RC_INVALID, "SQL_NO_STATEMENT",
                             "SQL string does not contain any statement");
    if (!conn_is_blank(sql + at, size - at)) {
        drop(ret_k);
        return conn_fail_own(sql_err, err, RC_INVALID, "SQL_MANY_STATEMENTS",
                             "SQL string contains more than one statement");
    }
    return RC_OK;
}

/* The first statement of sql; ret_k->stmt NULL: there was none in the bytes used. */
static enum rc prepare(struct sql_conn *c, const char *sql, size_t size, unsigned flags,
                       struct kept *ret_k, size_t *ret_used, struct sql_error *sql_err,
                       struct err *err)
{
    size_t dialect_size = 0;
    const char *nul = memchr(sql, 0, size), *tail = NULL;
    if (nul != NULL) {
        sql_error_own(sql_err, "SQL_PARSE_ERROR",
                      "SQL string could not be parsed: a NUL byte (at offset %zu)",
                      (size_t)(nul - sql));
        return err_set(err, RC_INVALID, "a NUL byte in SQL");
    }
    if (size > SQL_SIZE_MAX) {
        sql_error_set(sql_err, SQLITE_TOOBIG, -1, "statement too long");
        return err_set(err, RC_INVALID, "a statement of %zu bytes", size);
    }
    ret_k->dialect = conn_dialect_of(sql, size, &dialect_size);
    c->guard.seen = 0;
    c->guard.denied = false;
    c->guard.why[0] = '\0';
    int code;
    if (ret_k->dialect == DIALECT_BEGIN_READONLY || ret_k->dialect == DIALECT_BEGIN_CONCURRENT) {
        bool reads = ret_k->dialect == DIALECT_BEGIN_READONLY;
        code = sqlite3_prepare_v3(c->db, reads ? "BEGIN" : "BEGIN IMMEDIATE", -1, flags,
                                  &ret_k->stmt, NULL);
        tail = sql + dialect_size;
    } else {
        code = sqlite3_prepare_v3(c->db, sql, (int)size, flags, &ret_k->stmt, &tail);
        if (may_be_stale(c, code)) {
            refresh_schema(c);
            c->guard.seen &= SEEN_SETTING | SEEN_DEFER; /* those have happened */
            code = sqlite3_prepare_v3(c->db, sql, (int)size, flags, &ret_k->stmt, &tail);
        }
    }
    /* SQLite does as these PRAGMAs say while it prepares them, run or not. */
    if (c->guard.seen & SEEN_SETTING) c->tainted = true;
    if (c->guard.seen & SEEN_DEFER) c->defers = true;
    unsigned tricks =
        code == SQLITE_OK && c->guard.policy != NULL ? sql_tricks_of(sql, (size_t)(tail - sql)) : 0;
    if ((tricks & SQL_TRICK_UNSEEN) != 0) TRY(check_unseen(c, ret_k, sql_err, err));
    if ((tricks & SQL_TRICK_REPLACE) != 0) code = prepare_replace(c, sql, size, flags, ret_k);
    if (code != SQLITE_OK) return conn_fail(c, code, sqlite3_error_offset(c->db), sql_err, err);
    ret_k->seen = c->guard.seen;
    *ret_used = (size_t)(tail - sql);
    /* Only blanks were left, or a comment without an end. */
    if (*ret_used == 0) *ret_used = size;
    return RC_OK;
}

/* A statement may be refused for what another connection has changed since: a trigger that is gone
 * did what the policy does not allow. */
static bool may_be_stale(const struct sql_conn *c, int code)
{
    if (c->guard.denied) return code == SQLITE_AUTH && c->guard.policy != NULL;
    return code == SQLITE_ERROR;
}

/* SQLite looks for changes of others only when a name is not found. So let it not find one. It
 * keeps no snapshot by that. */
static void refresh_schema(struct sql_conn *c)
{
    sqlite3_stmt *stmt = NULL;
    bool stepping = c->guard.stepping;
    c->guard.stepping = true;
    sqlite3_prepare_v3(c->db, "SELECT 1 FROM \"no such table\"", -1, 0, &stmt, NULL);
    sqlite3_finalize(stmt);
    c->guard.stepping = stepping;
    c->guard.denied = false;
    c->guard.why[0] = '\0';
}

/* A statement that reads columns which SQLite did not ask for. */
static enum rc check_unseen(struct sql_conn *c, struct kept *k, struct sql_error *sql_err,
                            struct err *err)
{
    struct guard *g = &c->guard;
    if (g->policy->allows(g->policy, SQL_ACTION_UNSEEN, NULL, NULL, NULL)) return RC_OK;
    drop(k);
    sql_error_set(sql_err, SQLITE_AUTH, -1,
                  "not authorized (this role needs ON instead of USING or NATURAL, and WHERE true "
                  "after INSERT INTO ... SELECT * FROM)");
    return err_set(err, RC_INVALID, "not authorized: columns that SQLite does not tell");
}

/* Once more, and ask for the rows that are pushed out. */
static int prepare_replace(struct sql_conn *c, const char *sql, size_t size, unsigned flags,
                           struct kept *k)
{
    sqlite3_finalize(k->stmt);
    k->stmt = NULL;
    c->guard.replaces = true;
    int code = sqlite3_prepare_v3(c->db, sql, (int)size, flags, &k->stmt, NULL);
    if (may_be_stale(c, code)) {
        refresh_schema(c);
        code = sqlite3_prepare_v3(c->db, sql, (int)size, flags, &k->stmt, NULL);
    }
    c->guard.replaces = false;
    c->guard.seen |= SEEN_REPLACE;
    return code;
}

static struct kept *keep(struct sql_conn *c, const struct kept *k)
{
    size_t bytes = k->sql_size + (size_t)sqlite3_stmt_status(k->stmt, SQLITE_STMTSTATUS_MEMUSED, 0);
    while (c->kept_count == c->opts.statement_max ||
           (c->kept_count > 0 && c->kept_bytes + bytes > KEPT_BYTES_MAX))
        evict_oldest(c);
    struct kept *place = &c->kept[c->kept_count++];
    *place = *k;
    place->bytes = bytes;
    c->kept_bytes += bytes;
    return place;
}

static void evict_oldest(struct sql_conn *c)
{
    unsigned oldest = 0;
    for (unsigned i = 1; i < c->kept_count; i++)
        if (c->kept[i].used < c->kept[oldest].used) oldest = i;
    c->kept_bytes -= c->kept[oldest].bytes;
    drop(&c->kept[oldest]);
    c->kept[oldest] = c->kept[--c->kept_count];
    c->kept[c->kept_count] = (struct kept){0};
}

static void drop(struct kept *k)
{
    sqlite3_finalize(k->stmt);
    mem_free(k->sql);
    *k = (struct kept){0};
}

static enum rc may_run(struct sql_conn *c, const struct kept *k, const struct sql_limits *limits,
                       struct sql_error *sql_err, struct err *err)
{
    bool vacuum = k->dialect == DIALECT_VACUUM;
    if (c->guest && (vacuum || (k->seen & SEEN_ALONE) != 0)) {
        c->alone = true;
        return conn_fail_own(sql_err, err, RC_INVALID, "BLOCKED",
                             "Operation was blocked: not inside of another transaction");
    }
    bool reads = c->opts.read_only || c->read_only_tx, asked = limits != NULL && limits->read_only;
    if ((reads || asked) && (vacuum || !sqlite3_stmt_readonly(k->stmt))) {
        sql_error_set(sql_err, SQLITE_READONLY, -1, "attempt to write a readonly database");
        return err_set(err, reads ? RC_INVALID : RC_DENIED,
                       "a statement that writes, where only reads are allowed");
    }
    struct guard *g = &c->guard;
    if (vacuum && g->policy != NULL &&
        !g->policy->allows(g->policy, SQLITE_PRAGMA, "vacuum", NULL, NULL)) {
        sql_error_set(sql_err, SQLITE_AUTH, -1, "not authorized (VACUUM)");
        return err_set(err, RC_INVALID, "not authorized: VACUUM");
    }
    bool writes = vacuum || !sqlite3_stmt_readonly(k->stmt);
    if (!writes || c->opts.before_write == NULL) return RC_OK;
    if (c->opts.before_write(c->opts.ctx, err) == RC_OK) return RC_OK;
    if (err->rc != RC_NO_MEM) err->rc = RC_IO; /* others mean something to callers */
    sql_error_own(sql_err, err->rc == RC_NO_MEM ? "SQLITE_NOMEM" : "SQLITE_IOERR",
                  "SQLite error: %s", err->text);
    return err->rc;
}

/* A statement that changes rows and returns some may have to be undone after SQLite is through with
 * it: when its rows find no taker. A savepoint around it makes that possible. */
static enum rc execute(struct sql_conn *c, struct kept *k, struct run *r)
{
    bool undoable = r->sink != NULL && (k->seen & SEEN_CHANGE) != 0 &&
                    (k->seen & SEEN_SCHEMA) == 0 && sqlite3_column_count(k->stmt) > 0 &&
                    sqlite3_stmt_isexplain(k->stmt) == 0;
    size_t cols = (size_t)sqlite3_column_count(k->stmt);
    TRY(conn_room(c, cols, r->err));
    if (undoable) TRY(conn_do(c, CONN_STEP_OPEN, r->sql_err, r->err));
    c->guard.stepping = true;
    c->guard.vacuum = k->dialect == DIALECT_VACUUM;
    c->guard.replaces = (k->seen & SEEN_REPLACE) != 0;
    c->guard.denied = false;
    c->guard.why[0] = '\0';
    enum rc rc = step_all(c, k, r);
    /* The statement's failure is known already; reset only repeats it. But what ends in reset, the
     * commit of a statement that was left early, fails here for the first time. */
    int code = sqlite3_reset(k->stmt);
    if (rc == RC_OK && code != SQLITE_OK) rc = conn_fail(c, code, -1, r->sql_err, r->err);
    c->guard.stepping = c->guard.vacuum = c->guard.replaces = false;
    if (undoable) rc = end_step(c, rc, r);
    after(c, k, rc == RC_OK);
    return rc;
}

static enum rc step_all(struct sql_conn *c, struct kept *k, struct run *r)
{
    bool told = r->sink == NULL;
    for (bool first = true;; first = false) {
        int code = sqlite3_step(k->stmt);
        if (first && code == SQLITE_AUTH && may_be_stale(c, code)) {
            sqlite3_reset(k->stmt); /* undoes what it did, if anything */
            refresh_schema(c);
            code = sqlite3_step(k->stmt);
        }
        if (code != SQLITE_ROW && code != SQLITE_DONE)
            return conn_fail(c, code, -1, r->sql_err, r->err);
        /* A changed schema is noticed in the first step, and may have changed the columns. */
        size_t cols = (size_t)sqlite3_column_count(k->stmt);
        if (!told) {
            TRY(conn_room(c, cols, r->err));
            conn_cols(c, k->stmt, cols);
            TRY(r->sink->cols(r->sink->ctx, c->cols, cols, r->err));
            told = true;
        }
        if (code == SQLITE_DONE) return RC_OK;
        r->rows++;
        if (r->sink != NULL && r->want_rows) TRY(give_row(c, k->stmt, cols, r));
    }
}

static enum rc give_row(struct sql_conn *c, sqlite3_stmt *stmt, size_t cols, struct run *r)
{
    r->bytes += conn_row(c, stmt, cols);
    const struct sql_limits *l = r->limits;
    bool over = l != NULL && ((l->row_max > 0 && r->rows > l->row_max) ||
                              (l->byte_max > 0 && r->bytes > l->byte_max));
    enum rc rc =
        over ? err_set(r->err, RC_TOO_BIG, "a response of more than %llu rows or %llu bytes",
                       (unsigned long long)l->row_max, (unsigned long long)l->byte_max)
             : r->sink->row(r->sink->ctx, c->values, cols, r->err);
    if (rc == RC_TOO_BIG) sql_error_own(r->sql_err, "RESPONSE_TOO_LARGE", "Response is too large");
    return rc;
}

static enum rc end_step(struct sql_conn *c, enum rc rc, struct run *r)
{
    struct sql_error other;
    struct err ignored;
    if (sqlite3_get_autocommit(c->db)) return rc; /* SQLite has rolled all of it back */
    if (rc == RC_OK) {
        rc = conn_do(c, CONN_STEP_KEEP, r->sql_err, r->err);
        if (rc == RC_OK) return rc;
    }
    if (conn_do(c, CONN_STEP_UNDO, &other, &ignored) == RC_OK &&
        conn_do(c, CONN_STEP_KEEP, &other, &ignored) == RC_OK)
        return rc;
    conn_rollback(c); /* no memory to undo the part */
    return rc;
}

static void after(struct sql_conn *c, const struct kept *k, bool ok)
{
    if (k != NULL && ok) {
        if (k->seen & SEEN_SESSION) c->tainted = true;
        if (k->seen & SEEN_DEFER) c->deferred = true;
        if (k->dialect == DIALECT_BEGIN_READONLY) c->read_only_tx = true;
        if ((k->seen & SEEN_CHANGE) && !(k->seen & SEEN_SCHEMA)) c->unit_changed = true;
    }
    if (!sqlite3_get_autocommit(c->db)) return;
    c->read_only_tx = c->deferred = false;
    /* SQLite has no commit hook for VACUUM. */
    bool vacuumed = k != NULL && ok && k->dialect == DIALECT_VACUUM;
    if (c->committing || vacuumed) c->commits++;
    c->committing = false;
}

static void fill_done(struct sql_conn *c, const struct kept *k, uint64_t rows, int64_t total,
                      struct sql_done *done)
{
    bool changes = (k->seen & SEEN_CHANGE) != 0 && (k->seen & SEEN_SCHEMA) == 0 &&
                   sqlite3_stmt_isexplain(k->stmt) == 0;
    uint64_t scanned = 0;
    static const int ops[] = {SQLITE_STMTSTATUS_FULLSCAN_STEP, SQLITE_STMTSTATUS_SORT,
                              SQLITE_STMTSTATUS_AUTOINDEX};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        scanned += (uint64_t)sqlite3_stmt_status(k->stmt, ops[i], 1);
    *done = (struct sql_done){
        .affected = changes ? (uint64_t)sqlite3_changes64(c->db) : 0,
        .last_rowid = sqlite3_last_insert_rowid(c->db),
        .inserted = changes && (k->seen & SEEN_INSERT) != 0,
        .changed = changes,
        .rows_read = scanned > rows ? scanned : rows, /* a look-up by key is no scan */
        .rows_written = (uint64_t)(sqlite3_total_changes64(c->db) - total),
    };
}

/* Is what stands behind the last ';' a whole statement? SQLite knows about triggers, whose bodies
 * have more of them, and about quotes and comments without an end. */
static enum rc check_script_end(struct sql_conn *c, const char *sql, size_t size,
                                struct sql_error *sql_err, struct err *err)
{
    size_t last = conn_last_piece(sql, size);
    if (conn_is_blank(sql + last, size - last) && last < size) size = last;
    CLEANUP(mem_freep) char *copy = mem_alloc(size + 3);
    if (copy == NULL) return err_mem(err, "a script");
    memcpy(copy, sql, size);
    memcpy(copy + size, "\n;", 3);
    bool whole = sqlite3_complete(copy) != 0;
    /* A PRAGMA would take effect now, before the rest. */
    if (whole && last < size && sql_kind_of(sql + last, size - last) != SQL_KIND_OTHER) {
        sqlite3_stmt *stmt = NULL;
        c->guard.denied = false;
        sqlite3_prepare_v3(c->db, sql + last, (int)(size - last), 0, &stmt, NULL);
        whole = stmt != NULL || strcmp(sqlite3_errmsg(c->db), "incomplete input") != 0;
        sqlite3_finalize(stmt);
    }
    if (whole) return RC_OK;
    sql_error_set(sql_err, SQLITE_ERROR, (int)last, "incomplete input");
    return err_set(err, RC_INVALID, "a script without an end");
}

/* Short statements of a script never get to the progress handler. */
static enum rc is_wanted(struct sql_conn *c, const struct call *call, struct sql_error *sql_err,
                         struct err *err)
{
    if (!atomic_load(&c->revoked) && call_check(call, err) == RC_OK) return RC_OK;
    return conn_fail_own(sql_err, err, RC_CANCELED, "SQLITE_INTERRUPT",
                         "SQLite error: interrupted");
}

static enum rc timed_out(struct sql_error *sql_err, struct err *err)
{
    return conn_fail_own(sql_err, err, RC_INVALID, "TRANSACTION_TIMEOUT", "Transaction timed out");
}

static int on_progress(void *ctx)
{
    return conn_unwanted(ctx);
}

/* Locks of other processes, and of a reader that recovers the WAL: wait in small steps. */
static int on_busy(void *ctx, int tries)
{
    struct sql_conn *c = ctx;
    struct err ignored;
    int64_t now = os_mono_ms();
    if (tries == 0 || c->busy_since_ms == 0) c->busy_since_ms = now;
    if (now - c->busy_since_ms >= c->busy_ms) return 0;
    if (atomic_load(&c->revoked) || call_check(c->call, &ignored) != RC_OK) return 0;
    os_sleep_us(BUSY_SLEEP_US * (tries < 10 ? tries + 1 : 10));
    return 1;
}

static int on_commit(void *ctx)
{
    struct sql_conn *c = ctx;
    c->committing = true;
    return 0;
}

static void on_rollback(void *ctx)
{
    struct sql_conn *c = ctx;
    c->committing = false;
}
