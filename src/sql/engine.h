/*
 * engine.h -- one database while it is served: a writer, and connections for everybody else.
 *
 *   reads            a connection from the pool for one statement, put back after it
 *   lone writes      the writer's groups (writer.h)
 *   transactions     a connection from the pool for as long as they last (stream.h), and a turn of
 *                    the writer from their first write on
 *
 * The pool is a stack: the connection that was used last has the warmest cache. Nothing of the
 * database is opened before it is needed.
 *
 * Threads: any, but open and close.
 */
#ifndef SQL_ENGINE_H
#define SQL_ENGINE_H
#include "base/sched.h"
#include "sql/writer.h"

struct sql_engine;
struct sql_engine_opts {
    struct sql_conn_opts conn; /* the path is copied */
    struct sched *pool;        /* the writer's work runs there */
    unsigned conn_max;         /* connections in use at once, beyond the writer's; 0: 256 */
    unsigned idle_max;         /* kept open in the pool; 0: 8 */
    size_t queue_max;          /* as sql_writer_opts */
    int64_t hold_ms;
    /* After a commit, or several. From any thread, often; must be quick. May be NULL. */
    void (*committed)(void *ctx);
    void *ctx;
};
/* Fails: RC_NO_MEM. */
MUST_CHECK enum rc sql_engine_open(const struct sql_engine_opts *opts, struct sql_engine **ret_e,
                                   struct err *err);
/* No connection may be out and no write wait any more. Waits for the writer's job. NULL is fine. */
void sql_engine_close(struct sql_engine *e);

/* A clean connection; must come back by sql_engine_put. Never waits. Fails: RC_BUSY conn_max are in
 * use; as sql_conn_open. */
MUST_CHECK enum rc sql_engine_get(struct sql_engine *e, struct sql_conn **ret_conn,
                                  struct err *err);
/* Whatever it has open is rolled back, whatever it has set is forgotten. NULL is fine. */
void sql_engine_put(struct sql_engine *e, struct sql_conn *conn);
struct sql_writer *sql_engine_writer(struct sql_engine *e);
const char *sql_engine_path(const struct sql_engine *e);
void sql_engine_committed(struct sql_engine *e); /* somebody else has: calls opts.committed */

/* Statements that took too long to run on a thread that others share, by their text. A few hundred
 * are remembered; never wrong by more than a detour over another thread. */
bool sql_engine_is_slow(const struct sql_engine *e, const char *sql, size_t size);
void sql_engine_note(struct sql_engine *e, const char *sql, size_t size, bool slow);

void sql_engine_trim(struct sql_engine *e); /* close connections that nobody uses */
struct sql_engine_stats {
    unsigned conns, conns_used;
    int64_t memory; /* bytes of those not in use */
    struct sql_writer_stats writer;
};
void sql_engine_look(struct sql_engine *e, struct sql_engine_stats *ret);
#endif
