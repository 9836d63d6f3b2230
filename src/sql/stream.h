/*
 * stream.h -- one client's stream of statements: a connection of its own only while it needs one.
 *
 *   clean      no transaction, nothing set. Reads borrow a connection, lone writes go to the
 * writer. attached   inside of a transaction, or with settings and temporary tables of its own: all
 * runs on its own connection. The first statement that writes needs the writer's turn; the turn is
 * given back when the transaction ends. timed out  its transaction held the turn too long and was
 * rolled back: every statement fails with TRANSACTION_TIMEOUT until it says COMMIT (fails, too) or
 * ROLLBACK (does not).
 *
 * Nothing here waits for a turn: a call that needs one returns RC_AGAIN, having done nothing; the
 * caller asks with sql_stream_ask and calls again when it was granted.
 *
 * Threads: one at a time; sql_stream_interrupt: any.
 */
#ifndef SQL_STREAM_H
#define SQL_STREAM_H
#include "sql/engine.h"

struct sql_stream { /* the owner's; zeroed but for engine: clean */
    struct sql_engine *engine;
    struct sql_conn *conn; /* NULL: clean */
    struct sql_turn turn;
    bool asked, granted; /* granted implies asked */
    bool lost;           /* timed out */
    bool all_read;       /* the client may only read */
    /* See sql_conn_policy: asked on whatever connection is used. No connection keeps it longer than
     * the stream has that connection. */
    const struct sql_policy *policy;
    uint64_t commit;      /* number of its last commit; 0: none yet */
    struct sql_last last; /* what last_insert_rowid() and changes() say to its client */
    /* Private: */
    struct sql_conn *borrowed; /* for one read */
    void (*tell)(void *ctx);
    void *tell_ctx;
};

/* How a statement will run on this stream, from its text alone. */
enum sql_way {
    SQL_WAY_READ,  /* on a borrowed connection, at once; RC_DENIED: it is a write after all */
    SQL_WAY_GROUP, /* hand it to the writer as a lone write */
    SQL_WAY_OWN    /* on its own connection: sql_stream_run and the like will attach one */
};
enum sql_way sql_stream_way(const struct sql_stream *s, const char *sql, size_t size);
bool sql_stream_clean(const struct sql_stream *s);
/* No transaction is open, nor timed out. */
bool sql_stream_autocommit(const struct sql_stream *s);

/* As sql_conn_run, on the stream's own connection or, for SQL_WAY_READ, on a borrowed one.
 * limits->read_only: a statement that writes fails with SQLITE_READONLY.
 * Fails: RC_AGAIN needs the turn, nothing was done; RC_DENIED, for SQL_WAY_READ only: it writes,
 * nothing was done; RC_BUSY also when no connection is to be had; else as sql_conn_run. sql_err is
 * filled but for the first two. */
MUST_CHECK enum rc sql_stream_run(struct sql_stream *s, const struct call *call,
                                  const struct sql_limits *limits, const struct sql_stmt *stmt,
                                  const struct sql_sink *sink, struct sql_done *done,
                                  struct sql_error *sql_err, struct err *err);
/* Needs the turn always, unless nothing may write. Fails: RC_AGAIN; as sql_conn_script. */
MUST_CHECK enum rc sql_stream_script(struct sql_stream *s, const struct call *call,
                                     const struct sql_limits *limits, const char *sql, size_t size,
                                     struct sql_error *sql_err, struct err *err);
/* As sql_conn_attach, on the stream's own connection. */
MUST_CHECK enum rc sql_stream_attach(struct sql_stream *s, const char *path, const char *name,
                                     struct sql_error *sql_err, struct err *err);
/* The description lives until `fn` returns. Fails: as sql_conn_describe, fn. */
typedef enum rc sql_describe_fn(void *ctx, const struct sql_description *d, struct err *err);
MUST_CHECK enum rc sql_stream_describe(struct sql_stream *s, const char *sql, size_t size,
                                       sql_describe_fn *fn, void *ctx, struct sql_error *sql_err,
                                       struct err *err);
/* After RC_AGAIN, ask for the turn; granted(ctx) is called once, by any thread, also from inside.
 * The stream must not be touched meanwhile but by sql_stream_unask. From then on the limit of the
 * hold runs: call again what wanted the turn, or sql_stream_rest. */
void sql_stream_ask(struct sql_stream *s, void (*granted)(void *ctx), void *ctx);
/* By any thread, also while sql_stream_ask has not returned yet. True: granted will not be called
 * any more. False: it was called, or is being called right now, or nobody has asked yet. */
bool sql_stream_unask(struct sql_stream *s);
/* Give back what was wanted for a statement that is not wanted any more: the turn, if nothing was
 * written in it; the connection, if nothing is open or set there. Not while it asks. */
void sql_stream_rest(struct sql_stream *s);
/* Roll back, forget everything, give turn and connection back. Not while it asks. */
void sql_stream_end(struct sql_stream *s);
/* Stop the statement that runs, if one does: it fails with SQLITE_INTERRUPT. */
void sql_stream_interrupt(struct sql_stream *s);
#endif
