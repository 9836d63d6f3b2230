/*
 * exec_unit.c -- a batch as one unit of a group commit.
 *
 * Most batches are either a few writes, or BEGIN, some statements, and COMMIT or ROLLBACK under
 * conditions: nothing in them needs the client in between. Such a batch runs like a lone write,
 * with a savepoint in the place of its transaction. Whatever turns out to need more (a transaction
 * that stays open, settings, a statement that ends the transaction of the whole group) is undone as
 * if it had never been, and the batch runs again step by step on a connection of its own.
 */
#include <string.h>
#include "base/os.h"
#include "server/exec_intern.h"
#include "sql/token.h"

#define UNIT_STEPS_MAX     2048 /* longer ones take a turn of their own, which has a limit */
#define ACTION_TRANSACTION 22   /* SQLITE_TRANSACTION, for a sql_policy */

static bool fits(struct exec *x, const struct hrana_batch *b);
static bool fits_step(struct exec *x, const struct hrana_stmt *st, size_t step, bool *begun,
                      bool *writes);
static bool is_plain(const struct exec *x, const struct hrana_stmt *st, enum sql_kind kind);
static enum rc run_unit(struct sql_write *w, struct sql_conn *c, struct err *err);
static void restart_unit(struct sql_write *w);
static void end_unit(struct sql_write *w);
static enum rc run_step(struct exec *x, struct sql_conn *c, const struct hrana_stmt *st,
                        struct err *err);
static enum rc run_begin(struct exec *x, struct sql_conn *c, struct err *err);
static enum rc run_end(struct exec *x, struct sql_conn *c, struct sql_error *sql_err,
                       struct err *err);
static enum rc run_statement(struct exec *x, struct sql_conn *c, const struct hrana_stmt *st,
                             enum sql_kind kind, struct sql_error *sql_err, struct err *err);
static enum rc put_step(struct exec *x, enum rc rc, struct sql_error *sql_err, struct err *err);
static enum rc refuse(struct exec *x, struct err *err);

bool exec_unit(struct exec *x, const struct hrana_batch *b, enum next *ret_next)
{
    struct err err;
    x->tried_unit = true;
    if (!fits(x, b)) return false;
    void *verdicts;
    if (arena_take(x->arena, b->count + 1, &verdicts, &err) != RC_OK) return false;
    x->verdicts = verdicts;
    x->write = (struct sql_write){.run = run_unit, .restart = restart_unit, .fn = end_unit};
    /* The queue is full: step by step it is told to the client. */
    if (exec_submit(x, &err) != RC_OK) return false;
    *ret_next = NEXT_WAIT;
    return true;
}

static bool fits(struct exec *x, const struct hrana_batch *b)
{
    struct err ignored;
    bool begun = false, writes = false;
    const struct tenant_conf *conf = atomic_load(&x->ses->tenant->conf);
    struct sql_stream *s = &x->ses->stream;
    if (!sql_stream_clean(s) || s->all_read || conf->block_reads || x->flushed) return false;
    if (b->count == 0 || b->count > UNIT_STEPS_MAX) return false;
    for (size_t i = 0; i < b->count; i++) {
        if (exec_resolve(x, &b->steps[i].stmt.sql, &ignored) != RC_OK) return false;
        if (!fits_step(x, &b->steps[i].stmt, i, &begun, &writes)) return false;
    }
    return writes;
}

static bool fits_step(struct exec *x, const struct hrana_stmt *st, size_t step, bool *begun,
                      bool *writes)
{
    enum sql_kind kind = sql_kind_of(x->sql, x->sql_size);
    switch (kind) {
    case SQL_KIND_READ:
        return true;
    case SQL_KIND_WRITE:
        *writes = true;
        return true;
    case SQL_KIND_BEGIN:
        *begun = step == 0 && is_plain(x, st, kind);
        return *begun;
    case SQL_KIND_END:
        return *begun && is_plain(x, st, kind);
    default:
        return false;
    }
}

/* BEGIN, COMMIT or ROLLBACK as SQLite would take it, and as the client's roles allow it: it never
 * gets there. */
static bool is_plain(const struct exec *x, const struct hrana_stmt *st, enum sql_kind kind)
{
    const struct sql_stream *s = &x->ses->stream;
    const char *at = x->sql, *end = x->sql + x->sql_size, *name = "BEGIN";
    struct sql_token t = sql_token_next(&at, end);
    if (kind == SQL_KIND_END) name = sql_token_is(&t, "ROLLBACK") ? "ROLLBACK" : "COMMIT";
    if (st->arg_count > 0) return false;
    if (s->policy != NULL && !s->policy->allows(s->policy, ACTION_TRANSACTION, name, NULL, NULL))
        return false;
    t = sql_token_next(&at, end);
    if (kind == SQL_KIND_BEGIN && (sql_token_is(&t, "DEFERRED") || sql_token_is(&t, "IMMEDIATE") ||
                                   sql_token_is(&t, "EXCLUSIVE") || sql_token_is(&t, "CONCURRENT")))
        t = sql_token_next(&at, end);
    if (sql_token_is(&t, "TRANSACTION")) t = sql_token_next(&at, end);
    while (t.type == SQL_TOKEN_OTHER && t.text[0] == ';')
        t = sql_token_next(&at, end);
    return t.type == SQL_TOKEN_END;
}

static enum rc run_unit(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    struct exec *x = w->ctx;
    const struct hrana_batch *b = &x->requests[x->at].batch;
    if (sql_conn_autocommit(c)) return refuse(x, err);
    x->unit_until_ms = os_mono_ms() + exec_hold_ms(x);
    memset(x->verdicts, VERDICT_SKIPPED, b->count);
    x->tx = false;
    x->last = x->ses->stream.last;
    sql_conn_set_last(c, &x->last);
    if (!x->cursor) TRY(hrana_put_result_begin(x->enc, HRANA_BATCH, x->request_id, err));
    TRY(hrana_put_batch_begin(x->enc, err));
    x->in_batch = true;
    enum rc rc = RC_OK;
    for (x->step = 0; x->step < b->count && rc == RC_OK; x->step++) {
        const struct hrana_step *step = &b->steps[x->step];
        rc = exec_grown(x, err);
        if (rc != RC_OK) {
            w->sql_err = x->sql_err;
            sql_error_own(&x->sql_err, "", "%s", ""); /* it is told as the unit's */
            break;
        }
        if (exec_condition(x, &step->cond, !x->tx))
            rc = run_step(x, c, &step->stmt, err);
        else
            rc = hrana_put_step_skip(x->enc, (uint32_t)x->step, err);
    }
    x->in_batch = false;
    if (rc == RC_OK && x->tx) rc = refuse(x, err); /* the client goes on with it */
    return rc;
}

static void restart_unit(struct sql_write *w)
{
    struct exec *x = w->ctx;
    x->in_batch = false;
    hrana_put_rewind(x->enc);
}

static void end_unit(struct sql_write *w)
{
    struct exec *x = w->ctx;
    struct err err;
    x->step = 0;
    if (x->refused) {
        hrana_put_rewind(x->enc);
        exec_to_work(x);
        return;
    }
    enum next next = NEXT_GO;
    enum rc rc = RC_OK;
    if (w->rc == RC_OK) {
        x->ses->stream.last = x->last;
        hrana_put_batch_index(x->enc, exec_committed(x));
        rc = hrana_put_batch_end(x->enc, &err);
        if (rc == RC_OK && !x->cursor) rc = hrana_put_result_end(x->enc, &err);
        if (rc != RC_OK) next = exec_fail(x, rc, &err);
    } else {
        hrana_put_rewind(x->enc);
        if (w->sql_err.code[0] == '\0')
            sql_error_own(&w->sql_err, "SQLITE_INTERNAL", "%s", w->err.text);
        x->bad = w->sql_err;
        rc = x->cursor ? hrana_put_cursor_error(x->enc, &w->sql_err, &err)
                       : hrana_put_result_error(x->enc, x->request_id, &w->sql_err, &err);
        if (rc != RC_OK) next = exec_fail(x, rc, &err);
    }
    exec_resume(x, next);
}

static enum rc run_step(struct exec *x, struct sql_conn *c, const struct hrana_stmt *st,
                        struct err *err)
{
    struct sql_error sql_err;
    TRY(exec_resolve(x, &st->sql, err));
    enum sql_kind kind = sql_kind_of(x->sql, x->sql_size);
    int64_t since = os_mono_us();
    TRY(hrana_put_step_begin(x->enc, (uint32_t)x->step, err));
    x->result = (struct sql_done){0};
    sql_error_own(&sql_err, "", "%s", "");
    enum rc rc;
    if (kind == SQL_KIND_BEGIN)
        rc = run_begin(x, c, err);
    else if (kind == SQL_KIND_END)
        rc = run_end(x, c, &sql_err, err);
    else
        rc = run_statement(x, c, st, kind, &sql_err, err);
    /* It has ended the transaction of all: what comes then depends on its own being there. Or it
     * takes so long that it must run where the limit of a transaction is told to the client. */
    if (sql_conn_autocommit(c) || x->refused || os_mono_ms() >= x->unit_until_ms)
        return refuse(x, err);
    exec_note(x, since, rc == RC_OK ? NULL : &sql_err);
    return put_step(x, rc, &sql_err, err);
}

static enum rc run_begin(struct exec *x, struct sql_conn *c, struct err *err)
{
    ASSERT(!x->tx); /* see fits_step */
    TRY(sql_conn_savepoint(c, err));
    x->tx = true;
    return RC_OK;
}

static enum rc run_end(struct exec *x, struct sql_conn *c, struct sql_error *sql_err,
                       struct err *err)
{
    const char *at = x->sql;
    struct sql_token t = sql_token_next(&at, x->sql + x->sql_size);
    bool undo = sql_token_is(&t, "ROLLBACK");
    if (!x->tx) return refuse(x, err); /* SQLite shall say it in its words */
    if (!undo && sql_conn_violates(c)) {
        sql_error_foreign_key(sql_err);
        return err_set(err, RC_INVALID, "FOREIGN KEY constraint failed");
    }
    TRY(sql_conn_release(c, !undo, err));
    x->tx = false;
    return RC_OK;
}

/* Outside of BEGIN and COMMIT a statement is a transaction of its own, with its own check of
 * deferred foreign keys. */
static enum rc run_statement(struct exec *x, struct sql_conn *c, const struct hrana_stmt *st,
                             enum sql_kind kind, struct sql_error *sql_err, struct err *err)
{
    const struct call call = exec_call(x, x->unit_until_ms - os_mono_ms());
    const struct sql_limits limits = exec_limits(x);
    const struct sql_stmt stmt = {x->sql, x->sql_size, st->args, st->arg_count, st->want_rows};
    const struct sql_sink sink = {exec_sink_cols, exec_sink_row, x};
    bool fence = !x->tx && kind == SQL_KIND_WRITE, here = x->here;
    if (fence) TRY(sql_conn_savepoint(c, err));
    x->here = true; /* nothing may be flushed before the commit */
    enum rc rc = sql_conn_run(c, &call, &limits, &stmt, &sink, &x->result, sql_err, err);
    x->here = here;
    if (!fence || sql_conn_autocommit(c)) return rc;
    /* What SQLite has left of a statement that it refused stays: the rows before an OR FAIL. */
    bool keep = rc == RC_OK || rc == RC_INVALID;
    if (keep && sql_conn_violates(c)) {
        sql_error_foreign_key(sql_err);
        rc = err_set(err, RC_INVALID, "FOREIGN KEY constraint failed");
        keep = false;
    }
    struct err end_err;
    if (sql_conn_release(c, keep, &end_err) != RC_OK) x->refused = true;
    return rc;
}

static enum rc put_step(struct exec *x, enum rc rc, struct sql_error *sql_err, struct err *err)
{
    if (rc == RC_OK) {
        sql_last_note(&x->last, &x->result);
        TRY(hrana_put_done(x->enc, &x->result, 0, err));
        x->verdicts[x->step] = VERDICT_OK;
        return hrana_put_step_end(x->enc, err);
    }
    if (sql_err->code[0] == '\0') sql_error_own(sql_err, "SQLITE_INTERNAL", "%s", err->text);
    x->verdicts[x->step] = VERDICT_ERROR;
    return hrana_put_step_error(x->enc, (uint32_t)x->step, sql_err, err);
}

static enum rc refuse(struct exec *x, struct err *err)
{
    x->refused = true;
    return err_set(err, RC_UNSUPPORTED, "not as one unit of a group");
}
