/*
 * stream.c -- see stream.h.
 *
 *            READ: borrow, run, put back
 *            ┌───┐
 *            ▼   │   BEGIN, PRAGMA, script, ...        writes: RC_AGAIN, ask, granted
 *   ┌────► clean ──────────────────────► attached ───────────────────────────────────┐
 *   │                                      ▲   ▲                                     ▼
 *   │      nothing is open, nothing set    │   └───── nothing written is open ── with the turn
 *   ├──────────────────────────────────────┘                                         │
 *   │                                                     held too long: rolled back │
 *   └── COMMIT (fails), ROLLBACK (does not) ── timed out ◄───────────────────────────┘
 *
 * A revocation comes from another thread, at any time until the turn is given back. It shows as a
 * failure of the statement that runs, or of the next; and what a statement left open when it ended
 * (conn->left_open) is not there any more. Both are looked at in settle, after each statement.
 */
#include "sql/stream.h"
#include <string.h>
#include "sql/conn_intern.h"
#include "sql/engine_intern.h"

static enum rc attach(struct sql_stream *s, struct sql_error *sql_err, struct err *err);
static enum rc get(struct sql_stream *s, struct sql_conn **place, struct sql_error *sql_err,
                   struct err *err);
static void put(struct sql_stream *s, struct sql_conn **place);
static enum rc run_borrowed(struct sql_stream *s, const struct call *call,
                            const struct sql_limits *limits, const struct sql_stmt *stmt,
                            const struct sql_sink *sink, struct sql_done *done,
                            struct sql_error *sql_err, struct err *err);
static enum rc run_lost(struct sql_stream *s, const struct sql_stmt *stmt,
                        const struct sql_sink *sink, struct sql_done *done,
                        struct sql_error *sql_err, struct err *err);
static enum rc script_lost(struct sql_stream *s, const char *sql, size_t size, size_t *ret_used,
                           struct sql_error *sql_err, struct err *err);
static bool may_write(const struct sql_stream *s, const struct sql_limits *limits);
static enum rc again(struct err *err);
static enum rc read_only(struct err *err);
static enum rc timed_out(struct sql_error *sql_err, struct err *err);
static void catch_up(struct sql_stream *s);
static void settle(struct sql_stream *s, bool was_open, enum rc rc);
static uint64_t give_back(struct sql_stream *s);
static void on_granted(struct sql_turn *t);

enum sql_way sql_stream_way(const struct sql_stream *s, const char *sql, size_t size)
{
    if (!sql_stream_clean(s)) return SQL_WAY_OWN;
    switch (sql_kind_of(sql, size)) {
    case SQL_KIND_READ:
        return SQL_WAY_READ;
    case SQL_KIND_WRITE:
        return s->all_read ? SQL_WAY_OWN : SQL_WAY_GROUP;
    default:
        return SQL_WAY_OWN;
    }
}

bool sql_stream_clean(const struct sql_stream *s)
{
    return s->conn == NULL && !s->lost;
}

bool sql_stream_autocommit(const struct sql_stream *s)
{
    return !s->lost && (s->conn == NULL || !s->conn->left_open);
}

enum rc sql_stream_run(struct sql_stream *s, const struct call *call,
                       const struct sql_limits *limits, const struct sql_stmt *stmt,
                       const struct sql_sink *sink, struct sql_done *done,
                       struct sql_error *sql_err, struct err *err)
{
    catch_up(s);
    if (s->lost) return run_lost(s, stmt, sink, done, sql_err, err);
    if (s->conn == NULL && sql_kind_of(stmt->sql, stmt->sql_size) == SQL_KIND_READ)
        return run_borrowed(s, call, limits, stmt, sink, done, sql_err, err);
    TRY(attach(s, sql_err, err));
    struct sql_limits own = limits != NULL ? *limits : (struct sql_limits){0};
    own.read_only = !may_write(s, limits) || !s->granted;
    bool was_open = s->conn->left_open;
    enum rc rc = sql_conn_run(s->conn, call, &own, stmt, sink, done, sql_err, err);
    if (rc == RC_DENIED && own.read_only) {
        if (may_write(s, limits)) return again(err);
        rc = read_only(err);
    }
    settle(s, was_open, rc);
    return rc != RC_OK && s->lost ? run_lost(s, stmt, sink, done, sql_err, err) : rc;
}

enum rc sql_stream_script(struct sql_stream *s, const struct call *call,
                          const struct sql_limits *limits, const char *sql, size_t size,
                          struct sql_error *sql_err, struct err *err)
{
    catch_up(s);
    size_t used = 0;
    if (s->lost) TRY(script_lost(s, sql, size, &used, sql_err, err));
    if (used == size || (used > 0 && conn_is_blank(sql + used, size - used))) {
        s->lost = false;
        sql_stream_rest(s);
        return RC_OK;
    }
    TRY(attach(s, sql_err, err));
    struct sql_limits own = {.read_only = !may_write(s, limits)};
    if (!own.read_only && !s->granted) return again(err);
    s->lost = false;
    bool was_open = s->conn->left_open;
    enum rc rc = sql_conn_script(s->conn, call, &own, sql + used, size - used, sql_err, err);
    if (rc != RC_OK && sql_err->offset >= 0) sql_err->offset += (int)used;
    if (rc == RC_DENIED && own.read_only) rc = read_only(err);
    settle(s, was_open, rc);
    /* A ROLLBACK that came together with the end of the hold. */
    if (rc != RC_OK && s->lost && conn_end_of(sql, size, &used) != CONN_END_NONE &&
        conn_is_blank(sql + used, size - used)) {
        rc = script_lost(s, sql, size, &used, sql_err, err);
        s->lost = false;
        sql_stream_rest(s);
    }
    return rc;
}

enum rc sql_stream_attach(struct sql_stream *s, const char *path, const char *name,
                          struct sql_error *sql_err, struct err *err)
{
    catch_up(s);
    if (s->lost) return timed_out(sql_err, err);
    TRY(attach(s, sql_err, err));
    bool was_open = s->conn->left_open;
    enum rc rc = sql_conn_attach(s->conn, path, name, sql_err, err);
    settle(s, was_open, rc);
    return rc;
}

enum rc sql_stream_describe(struct sql_stream *s, const char *sql, size_t size, sql_describe_fn *fn,
                            void *ctx, struct sql_error *sql_err, struct err *err)
{
    struct sql_description d;
    catch_up(s);
    if (s->lost) return timed_out(sql_err, err);
    bool borrows = s->conn == NULL;
    if (borrows)
        TRY(get(s, &s->borrowed, sql_err, err));
    else
        sql_conn_policy(s->conn, s->policy);
    bool was_open = !borrows && s->conn->left_open;
    struct sql_conn *conn = borrows ? s->borrowed : s->conn;
    enum rc rc = sql_conn_describe(conn, sql, size, &d, sql_err, err);
    if (rc == RC_OK) rc = fn(ctx, &d, err);
    if (borrows)
        put(s, &s->borrowed);
    else
        settle(s, was_open, rc);
    return rc;
}

void sql_stream_ask(struct sql_stream *s, void (*granted)(void *ctx), void *ctx)
{
    ASSERT(!s->asked && s->conn != NULL);
    s->asked = true;
    s->tell = granted;
    s->tell_ctx = ctx;
    s->turn.granted = on_granted;
    s->turn.ctx = s;
    s->turn.conn = s->conn;
    sql_writer_ask(sql_engine_writer(s->engine), &s->turn);
}

bool sql_stream_unask(struct sql_stream *s)
{
    if (!sql_writer_unask(sql_engine_writer(s->engine), &s->turn)) return false;
    s->asked = false;
    sql_stream_rest(s);
    return true;
}

void sql_stream_rest(struct sql_stream *s)
{
    ASSERT(s->asked == s->granted);
    if (s->conn != NULL) settle(s, s->conn->left_open, RC_OK);
}

void sql_stream_end(struct sql_stream *s)
{
    ASSERT(s->asked == s->granted);
    if (s->granted) (void)give_back(s);
    if (s->conn != NULL) put(s, &s->conn);
    s->lost = false;
}

void sql_stream_interrupt(struct sql_stream *s)
{
    engine_interrupt(s->engine, &s->conn);
    engine_interrupt(s->engine, &s->borrowed);
}

static enum rc attach(struct sql_stream *s, struct sql_error *sql_err, struct err *err)
{
    if (s->conn == NULL) return get(s, &s->conn, sql_err, err);
    sql_conn_policy(s->conn, s->policy);
    return RC_OK;
}

static enum rc get(struct sql_stream *s, struct sql_conn **place, struct sql_error *sql_err,
                   struct err *err)
{
    struct sql_conn *conn;
    enum rc rc = sql_engine_get(s->engine, &conn, err);
    if (rc != RC_OK) {
        const char *code = rc == RC_BUSY     ? "SQLITE_BUSY"
                           : rc == RC_NO_MEM ? "SQLITE_NOMEM"
                                             : "SQLITE_CANTOPEN";
        sql_error_own(sql_err, code, "SQLite error: %s", err->text);
        return rc;
    }
    sql_conn_policy(conn, s->policy);
    sql_conn_set_last(conn, &s->last);
    engine_place(s->engine, place, conn);
    return RC_OK;
}

static void put(struct sql_stream *s, struct sql_conn **place)
{
    struct sql_conn *conn = *place;
    sql_conn_last(conn, &s->last);
    engine_place(s->engine, place, NULL);
    sql_engine_put(s->engine, conn);
}

static enum rc run_borrowed(struct sql_stream *s, const struct call *call,
                            const struct sql_limits *limits, const struct sql_stmt *stmt,
                            const struct sql_sink *sink, struct sql_done *done,
                            struct sql_error *sql_err, struct err *err)
{
    TRY(get(s, &s->borrowed, sql_err, err));
    struct sql_limits own = limits != NULL ? *limits : (struct sql_limits){0};
    own.read_only = true;
    struct sql_conn *conn = s->borrowed;
    enum rc rc = sql_conn_run(conn, call, &own, stmt, sink, done, sql_err, err);
    if (rc == RC_DENIED && !may_write(s, limits)) rc = read_only(err);
    if (!conn->left_open && engine_is_plain(s->engine, conn)) {
        put(s, &s->borrowed);
    } else { /* it has set something after all: then it is the stream's */
        engine_place(s->engine, &s->conn, conn);
        engine_place(s->engine, &s->borrowed, NULL);
    }
    return rc;
}

static enum rc run_lost(struct sql_stream *s, const struct sql_stmt *stmt,
                        const struct sql_sink *sink, struct sql_done *done,
                        struct sql_error *sql_err, struct err *err)
{
    size_t used;
    enum conn_end end = conn_end_of(stmt->sql, stmt->sql_size, &used);
    if (end == CONN_END_NONE || !conn_is_blank(stmt->sql + used, stmt->sql_size - used))
        return timed_out(sql_err, err);
    s->lost = false;
    sql_stream_rest(s);
    if (end == CONN_END_COMMIT) return timed_out(sql_err, err);
    *done = (struct sql_done){0};
    return sink != NULL ? sink->cols(sink->ctx, NULL, 0, err) : RC_OK;
}

/* A script that begins with the end of the lost transaction: *ret_used are its bytes until there.
 * It is for the caller to make lost false when it runs the rest. */
static enum rc script_lost(struct sql_stream *s, const char *sql, size_t size, size_t *ret_used,
                           struct sql_error *sql_err, struct err *err)
{
    enum conn_end end = conn_end_of(sql, size, ret_used);
    if (end == CONN_END_ROLLBACK) return RC_OK;
    if (end == CONN_END_COMMIT) {
        s->lost = false;
        sql_stream_rest(s);
    }
    return timed_out(sql_err, err);
}

static bool may_write(const struct sql_stream *s, const struct sql_limits *limits)
{
    return !s->all_read && (limits == NULL || !limits->read_only);
}

static enum rc again(struct err *err)
{
    return err_set(err, RC_AGAIN, "a statement that writes must wait for its turn");
}

/* The client's failure; sql_err says so already. */
static enum rc read_only(struct err *err)
{
    return err_set(err, RC_INVALID, "a statement that writes, where only reads are allowed");
}

static enum rc timed_out(struct sql_error *sql_err, struct err *err)
{
    return conn_fail_own(sql_err, err, RC_INVALID, "TRANSACTION_TIMEOUT", "Transaction timed out");
}

/* A hold that ended between two statements. */
static void catch_up(struct sql_stream *s)
{
    ASSERT(s->asked == s->granted);
    if (s->granted && sql_turn_revoked(&s->turn)) sql_stream_rest(s);
}

/* After a statement, or none. */
static void settle(struct sql_stream *s, bool was_open, enum rc rc)
{
    struct sql_conn *conn = s->conn;
    if (s->granted) {
        bool writes = conn_writes(conn), revoked = sql_turn_revoked(&s->turn);
        if (revoked || !writes) {
            uint64_t commit = give_back(s);
            /* Interrupted while it ran, or rolled back after it: whatever was open is gone. */
            bool cut = revoked && was_open && rc != RC_OK && commit == 0;
            bool gone = conn->left_open && sql_conn_autocommit(conn);
            if (cut || gone) s->lost = true;
            if (gone) conn->left_open = false;
        }
    }
    if (!s->asked && !conn->left_open && engine_is_plain(s->engine, conn)) put(s, &s->conn);
}

static uint64_t give_back(struct sql_stream *s)
{
    uint64_t commit;
    sql_writer_give_back(sql_engine_writer(s->engine), &s->turn, &commit);
    s->asked = s->granted = false;
    if (commit != 0) s->commit = commit;
    return commit;
}

static void on_granted(struct sql_turn *t)
{
    struct sql_stream *s = t->ctx;
    void (*tell)(void *ctx) = s->tell;
    void *ctx = s->tell_ctx;
    s->granted = true;
    tell(ctx); /* from here on the stream may be gone */
}
