/* exec_stmt.c -- one statement, script or description. See exec.h. */
#include <string.h>
#include "base/os.h"
#include "base/thr.h"
#include "server/exec_intern.h"

#define FLUSH_SIZE   (64u << 10)
#define FAST_US      1000       /* a read that needs less is not slow any more */
#define HERE_SQL_MAX (64 << 10) /* to parse a longer text takes its time */
#define OWN_MS       50         /* for a read of a transaction on the working crew */

static int64_t time_left(struct exec *x);
static bool blocked(const struct exec *x, enum sql_way way, struct sql_error *sql_err);
static enum next read_here_or_there(struct exec *x, const struct hrana_stmt *st);
static enum next lone_write(struct exec *x);
static enum rc run_write(struct sql_write *w, struct sql_conn *c, struct err *err);
static void restart_write(struct sql_write *w);
static void end_write(struct sql_write *w);
static enum next own(struct exec *x, const struct hrana_stmt *st);
static enum next close_stmt(struct exec *x, enum rc rc, uint64_t commit_before,
                            struct sql_error *sql_err, const struct err *err);
static enum next ask_turn(struct exec *x);
static void granted(void *ctx);
static enum next denied(struct exec *x, enum hrana_type type);
static void explain_readonly(const struct exec *x, struct sql_error *sql_err);
static const struct hrana_stmt *stmt_at_hand(const struct exec *x);
static void forbid(const struct exec *x, struct sql_error *sql_err);
static enum rc put_description(void *ctx, const struct sql_description *d, struct err *err);

enum next exec_stmt(struct exec *x, const struct hrana_stmt *st)
{
    struct err err;
    struct sql_error sql_err;
    enum rc rc = exec_resolve(x, &st->sql, &err);
    if (rc != RC_OK) return exec_fail(x, rc, &err);
    enum sql_way way = x->own ? SQL_WAY_OWN : sql_stream_way(&x->ses->stream, x->sql, x->sql_size);
    if (blocked(x, way, &sql_err)) {
        rc = exec_open(x, HRANA_EXECUTE, &err);
        return rc == RC_OK ? exec_close_bad(x, &sql_err) : exec_fail(x, rc, &err);
    }
    if (way == SQL_WAY_READ) return read_here_or_there(x, st);
    if (way == SQL_WAY_GROUP) return lone_write(x);
    return own(x, st);
}

enum next exec_script(struct exec *x, const struct hrana_sql *sql)
{
    struct err err;
    struct sql_error sql_err;
    /* Without a turn to wait for there can be many of them, and they may be slow. */
    if (x->ses->stream.all_read && !x->slow) return NEXT_SLOW;
    if (x->here) return NEXT_WORK;
    enum rc rc = exec_resolve(x, sql, &err);
    if (rc != RC_OK) return exec_fail(x, rc, &err);
    if (x->denied) return denied(x, HRANA_SEQUENCE);
    struct sql_stream *s = &x->ses->stream;
    uint64_t before = s->commit;
    const struct call call = exec_call(x, time_left(x));
    const struct sql_limits limits = exec_limits(x);
    if (blocked(x, SQL_WAY_READ, &sql_err)) {
        rc = exec_open(x, HRANA_SEQUENCE, &err);
        return rc == RC_OK ? exec_close_bad(x, &sql_err) : exec_fail(x, rc, &err);
    }
    int64_t since = os_mono_us();
    rc = sql_stream_script(s, &call, &limits, x->sql, x->sql_size, &sql_err, &err);
    if (rc == RC_AGAIN) return ask_turn(x);
    /* With the turn still there, it may have committed and begun again. */
    if (s->commit != before || s->granted) exec_committed(x);
    x->result = (struct sql_done){0};
    exec_note(x, since, rc == RC_OK ? NULL : &sql_err);
    struct err put_err;
    enum rc put_rc = exec_open(x, HRANA_SEQUENCE, &put_err);
    if (put_rc != RC_OK) return exec_fail(x, put_rc, &put_err);
    if (rc == RC_OK) return exec_close_ok(x);
    explain_readonly(x, &sql_err);
    return exec_close_bad(x, &sql_err);
}

enum next exec_describe(struct exec *x, const struct hrana_sql *sql)
{
    struct err err;
    struct sql_error sql_err;
    enum rc rc = exec_resolve(x, sql, &err);
    if (rc == RC_OK && x->here && x->sql_size > HERE_SQL_MAX) return NEXT_WORK;
    if (rc == RC_OK) rc = exec_open(x, HRANA_DESCRIBE, &err);
    if (rc != RC_OK) return exec_fail(x, rc, &err);
    if (blocked(x, SQL_WAY_READ, &sql_err)) return exec_close_bad(x, &sql_err);
    sql_error_own(&sql_err, "SQLITE_NOMEM", "SQLite error: out of memory"); /* put_description */
    rc = sql_stream_describe(&x->ses->stream, x->sql, x->sql_size, put_description, x, &sql_err,
                             &err);
    return rc == RC_OK ? exec_close_ok(x) : exec_close_bad(x, &sql_err);
}

enum rc exec_sink_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    struct exec *x = ctx;
    return hrana_put_cols(x->enc, cols, count, err);
}

enum rc exec_sink_row(void *ctx, const struct sql_value *values, size_t count, struct err *err)
{
    struct exec *x = ctx;
    TRY(hrana_put_row(x->enc, values, count, err));
    if (x->grown != NULL) TRY(x->grown(x, err));
    if (x->flush == NULL || x->here || x->out->size < FLUSH_SIZE) return RC_OK;
    x->flushed = true;
    return x->flush(x, err);
}

struct call exec_call(const struct exec *x, int64_t ms)
{
    return (struct call){.cancel = x->gone, .deadline_ms = os_mono_ms() + ms};
}

/* Of the statement that is to run now. Who waits behind endless ones is answered when they are. */
static int64_t time_left(struct exec *x)
{
    int64_t waited = x->queued_ms > 0 ? os_mono_ms() - x->queued_ms : 0;
    x->queued_ms = 0;
    return x->env->query_ms - waited;
}

/* The answers of one message share the limit: they are in memory together. */
struct sql_limits exec_limits(const struct exec *x)
{
    size_t used = x->out->size;
    return (struct sql_limits){.byte_max = x->env->byte_max > used ? x->env->byte_max - used : 1};
}

int64_t exec_hold_ms(const struct exec *x)
{
    const struct tenant_conf *conf = atomic_load(&x->ses->tenant->conf);
    return conf->txn_ms > 0 ? conf->txn_ms : x->env->txn_ms;
}

void exec_note(struct exec *x, int64_t since_us, const struct sql_error *sql_err)
{
    if (x->env->note == NULL) return;
    int64_t us = os_mono_us() - since_us;
    x->env->note(x->env->note_ctx, x->ses->tenant, x->sql, x->sql_size, us, &x->result, sql_err);
}

enum rc exec_submit(struct exec *x, struct err *err)
{
    const struct sql_stream *s = &x->ses->stream;
    x->write.ctx = x;
    x->write.call = exec_call(x, x->env->query_ms);
    x->write.policy = s->policy;
    x->refused = false;
    hrana_put_mark(x->enc);
    return sql_writer_submit(sql_engine_writer(x->ses->tenant->engine), &x->write, err);
}

static bool blocked(const struct exec *x, enum sql_way way, struct sql_error *sql_err)
{
    const struct tenant_conf *conf = atomic_load(&x->ses->tenant->conf);
    if (conf->block_reads) {
        sql_error_own(sql_err, "BLOCKED", "Operation was blocked: %s",
                      conf->block_reason[0] != '\0' ? conf->block_reason : "reads are blocked");
        return true;
    }
    if (way != SQL_WAY_GROUP || !x->ses->stream.all_read) return false;
    forbid(x, sql_err);
    return true;
}

static void forbid(const struct exec *x, struct sql_error *sql_err)
{
    const struct tenant_conf *conf = atomic_load(&x->ses->tenant->conf);
    if (conf->block_writes)
        sql_error_own(sql_err, "BLOCKED", "Operation was blocked: %s",
                      conf->block_reason[0] != '\0' ? conf->block_reason : "writes are blocked");
    else
        sql_error_own(sql_err, "AUTH_FORBIDDEN",
                      "Authorization forbidden: Current session does not have Write permission to "
                      "namespace %s",
                      x->ses->tenant->name);
}

/* A refusal to write, said in the words of its cause. */
static void explain_readonly(const struct exec *x, struct sql_error *sql_err)
{
    if (x->ses->stream.all_read && strcmp(sql_err->code, "SQLITE_READONLY") == 0)
        forbid(x, sql_err);
}

/* ---- Reads ---- */

static enum next read_here_or_there(struct exec *x, const struct hrana_stmt *st)
{
    struct err err;
    struct sql_error sql_err;
    struct sql_engine *engine = x->ses->tenant->engine;
    if (x->here && sql_engine_is_slow(engine, x->sql, x->sql_size)) return NEXT_SLOW;
    int64_t since = os_mono_us();
    hrana_put_mark(x->enc);
    x->flushed = false; /* since the mark */
    enum rc rc = exec_open(x, HRANA_EXECUTE, &err);
    if (rc != RC_OK) return exec_fail(x, rc, &err);
    const int64_t left_ms = time_left(x);
    const struct call call = exec_call(x, x->here ? EXEC_HERE_MS : left_ms);
    struct sql_limits limits = exec_limits(x);
    limits.brief = x->here;
    const struct sql_stmt stmt = {x->sql, x->sql_size, st->args, st->arg_count, st->want_rows};
    const struct sql_sink sink = {exec_sink_cols, exec_sink_row, x};
    rc = sql_stream_run(&x->ses->stream, &call, &limits, &stmt, &sink, &x->result, &sql_err, &err);
    if (rc == RC_DENIED && !x->flushed) {
        hrana_put_rewind(x->enc);
        if (!x->ses->stream.all_read) return lone_write(x);
        TRY_NEXT(x, exec_open(x, HRANA_EXECUTE, &err), &err);
        forbid(x, &sql_err);
        return exec_close_bad(x, &sql_err);
    }
    bool gone = x->gone != NULL && atomic_load(x->gone);
    if (rc == RC_CANCELED && x->here && !gone) {
        hrana_put_rewind(x->enc);
        sql_engine_note(engine, x->sql, x->sql_size, true);
        return NEXT_SLOW;
    }
    if (rc == RC_OK && !x->here && os_mono_us() - since < FAST_US)
        sql_engine_note(engine, x->sql, x->sql_size, false);
    exec_note(x, since, rc == RC_OK ? NULL : &sql_err);
    return close_stmt(x, rc, x->ses->stream.commit, &sql_err, &err);
}

static enum next close_stmt(struct exec *x, enum rc rc, uint64_t commit_before,
                            struct sql_error *sql_err, const struct err *err)
{
    struct err put_err;
    if (x->ses->stream.commit != commit_before) exec_committed(x);
    if (rc != RC_OK && sql_err->code[0] == '\0')
        sql_error_own(sql_err, "SQLITE_INTERNAL", "%s", err->text);
    if (rc != RC_OK) {
        explain_readonly(x, sql_err);
        return exec_close_bad(x, sql_err);
    }
    rc = hrana_put_done(x->enc, &x->result, x->index, &put_err);
    return rc == RC_OK ? exec_close_ok(x) : exec_fail(x, rc, &put_err);
}

/* ---- Lone writes ---- */

static enum next lone_write(struct exec *x)
{
    struct err err;
    struct sql_error sql_err;
    x->write = (struct sql_write){.run = run_write, .restart = restart_write, .fn = end_write};
    if (exec_submit(x, &err) == RC_OK) return NEXT_WAIT;
    TRY_NEXT(x, exec_open(x, HRANA_EXECUTE, &err), &err);
    sql_error_own(&sql_err, "SQLITE_BUSY", "SQLite error: database is locked (%s)", err.text);
    return exec_close_bad(x, &sql_err);
}

static enum rc run_write(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    struct exec *x = w->ctx;
    /* No transaction around it: what cannot be shared needs a connection of its own. */
    x->refused = sql_conn_autocommit(c);
    if (x->refused) return err_set(err, RC_UNSUPPORTED, "not inside of a group");
    const struct hrana_stmt *st = stmt_at_hand(x);
    int64_t since = os_mono_us();
    TRY(exec_open(x, HRANA_EXECUTE, err));
    const struct call call = exec_call(x, exec_hold_ms(x));
    const struct sql_limits limits = exec_limits(x);
    const struct sql_stmt stmt = {x->sql, x->sql_size, st->args, st->arg_count, st->want_rows};
    const struct sql_sink sink = {exec_sink_cols, exec_sink_row, x};
    bool here = x->here;
    x->here = true; /* nothing may be flushed before the commit */
    sql_conn_set_last(c, &x->ses->stream.last);
    enum rc rc = sql_conn_run(c, &call, &limits, &stmt, &sink, &x->result, &w->sql_err, err);
    x->here = here;
    exec_note(x, since, rc == RC_OK ? NULL : &w->sql_err);
    /* After INSERT OR FAIL and RAISE(FAIL) the rows before the failure stay. */
    struct sql_last now;
    sql_conn_last(c, &now);
    x->partial = rc == RC_INVALID && now.total != x->ses->stream.last.total;
    return x->partial ? RC_OK : rc;
}

static void restart_write(struct sql_write *w)
{
    struct exec *x = w->ctx;
    hrana_put_rewind(x->enc);
}

static void end_write(struct sql_write *w)
{
    struct exec *x = w->ctx;
    struct err err;
    enum next next;
    if (x->refused) {
        hrana_put_rewind(x->enc);
        x->own = true;
        exec_to_work(x);
        return;
    }
    if (w->rc == RC_OK && x->partial) exec_committed(x);
    if (w->rc == RC_OK && !x->partial) {
        sql_last_note(&x->ses->stream.last, &x->result);
        enum rc rc = hrana_put_done(x->enc, &x->result, exec_committed(x), &err);
        next = rc == RC_OK ? exec_close_ok(x) : exec_fail(x, rc, &err);
    } else {
        hrana_put_rewind(x->enc);
        enum rc rc = exec_open(x, HRANA_EXECUTE, &err);
        if (w->sql_err.code[0] == '\0')
            sql_error_own(&w->sql_err, "SQLITE_INTERNAL", "%s", w->err.text);
        next = rc == RC_OK ? exec_close_bad(x, &w->sql_err) : exec_fail(x, rc, &err);
    }
    exec_resume(x, next);
}

/* ---- Transactions ---- */

static enum next own(struct exec *x, const struct hrana_stmt *st)
{
    struct err err;
    struct sql_error sql_err;
    struct sql_stream *s = &x->ses->stream;
    x->own = true;
    if (x->here) return NEXT_WORK;
    if (x->denied) return denied(x, HRANA_EXECUTE);
    /* Reads of transactions can be many and slow: others' turns must not wait behind them. */
    struct sql_engine *engine = x->ses->tenant->engine;
    bool brief = !x->slow && sql_kind_of(x->sql, x->sql_size) == SQL_KIND_READ;
    if (brief && sql_engine_is_slow(engine, x->sql, x->sql_size)) return NEXT_SLOW;
    int64_t since = os_mono_us();
    uint64_t before = s->commit;
    hrana_put_mark(x->enc);
    enum rc rc = exec_open(x, HRANA_EXECUTE, &err);
    if (rc != RC_OK) return exec_fail(x, rc, &err);
    const int64_t left_ms = time_left(x);
    const struct call call = exec_call(x, brief ? OWN_MS : left_ms);
    const struct sql_limits limits = exec_limits(x);
    const struct sql_stmt stmt = {x->sql, x->sql_size, st->args, st->arg_count, st->want_rows};
    const struct sql_sink sink = {exec_sink_cols, exec_sink_row, x};
    x->here = brief; /* nothing may be flushed that may run again */
    x->result = (struct sql_done){0};
    sql_error_own(&sql_err, "", "%s", "");
    if (!exec_attach(x, &sql_err, &rc, &err))
        rc = sql_stream_run(s, &call, &limits, &stmt, &sink, &x->result, &sql_err, &err);
    x->here = false;
    if (rc == RC_AGAIN) {
        hrana_put_rewind(x->enc);
        return ask_turn(x);
    }
    bool gone = x->gone != NULL && atomic_load(x->gone);
    bool more = rc == RC_CANCELED || (rc == RC_TOO_BIG && x->flush != NULL);
    if (more && brief && !gone) {
        hrana_put_rewind(x->enc);
        sql_engine_note(engine, x->sql, x->sql_size, true);
        return NEXT_SLOW;
    }
    if (rc == RC_OK && x->slow && os_mono_us() - since < FAST_US)
        sql_engine_note(engine, x->sql, x->sql_size, false);
    exec_note(x, since, rc == RC_OK ? NULL : &sql_err);
    return close_stmt(x, rc, before, &sql_err, &err);
}

static enum next ask_turn(struct exec *x)
{
    __atomic_fetch_add(&x->env->turn_waits, 1, __ATOMIC_RELAXED);
    exec_list(x);
    sql_stream_ask(&x->ses->stream, granted, x);
    return NEXT_WAIT;
}

static void granted(void *ctx)
{
    struct exec *x = ctx;
    thr_lock(&x->env->lock);
    exec_unlist(x);
    thr_unlock(&x->env->lock);
    exec_to_work(x);
}

static enum next denied(struct exec *x, enum hrana_type type)
{
    struct err err;
    struct sql_error sql_err;
    x->denied = false;
    TRY_NEXT(x, exec_open(x, type, &err), &err);
    sql_error_own(&sql_err, "SQLITE_BUSY",
                  "SQLite error: database is locked (waited %lld ms for other transactions)",
                  (long long)(os_mono_ms() - x->wait_since_ms));
    return exec_close_bad(x, &sql_err);
}

static const struct hrana_stmt *stmt_at_hand(const struct exec *x)
{
    const struct hrana_request *r = &x->requests[x->at];
    return x->in_batch ? &r->batch.steps[x->step].stmt : &r->stmt;
}

static enum rc put_description(void *ctx, const struct sql_description *d, struct err *err)
{
    struct exec *x = ctx;
    return hrana_put_describe(x->enc, d, err);
}
