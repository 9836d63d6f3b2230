/*
 * engine.c -- see engine.h.
 *
 * Locks: e->lock guards the pool, and which connection a stream has (engine_intern.h). It is not
 * held while a connection is opened, reset or closed. e->opening is held while one is opened: two
 * that are the first of a database would both want to turn it into a WAL database.
 */
#include "sql/engine.h"
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "sql/conn_intern.h"
#include "sql/engine_intern.h"

#define CONN_MAX       256
#define IDLE_MAX       8
#define WORK_BUDGET_US 10000
#define REST_MS        3600000 /* between runs of a job that has nothing to do, see run_work */
#define SLOW_COUNT     512
#define SLOW_SQL_MAX   4096 /* bytes of a text that count */

struct sql_engine {
    struct sql_engine_opts opts; /* [const] conn.path is ours */
    struct sql_writer *writer;
    struct sched_job job; /* the writer's work */
    pthread_mutex_t lock, opening;
    struct sql_conn **idle; /* [lock] idle_max of them; the last was used last */
    unsigned idle_count, used;
    _Atomic uint64_t slow[SLOW_COUNT]; /* hashes, each at its place; 0: free */
};

static enum rc start_writer(struct sql_engine *e, struct err *err);
static int64_t run_work(struct sched_job *job, void *worker);
static void wake(void *ctx);
static void committed(void *ctx);
static bool clean(struct sql_conn *conn);
static uint64_t slow_hash(const char *sql, size_t size);

enum rc sql_engine_open(const struct sql_engine_opts *opts, struct sql_engine **ret_e,
                        struct err *err)
{
    struct sql_engine *e = mem_calloc(1, sizeof *e);
    if (e == NULL) return err_mem(err, "a database engine");
    e->opts = *opts;
    e->opts.conn.path = NULL;
    if (e->opts.conn_max == 0) e->opts.conn_max = CONN_MAX;
    if (e->opts.idle_max == 0) e->opts.idle_max = IDLE_MAX;
    if (e->opts.idle_max > e->opts.conn_max) e->opts.idle_max = e->opts.conn_max;
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->opening, NULL);
    e->job.run = run_work;
    e->idle = mem_calloc(e->opts.idle_max, sizeof(struct sql_conn *));
    e->opts.conn.path = mem_strdup(opts->conn.path);
    enum rc rc = RC_OK;
    if (e->idle == NULL || e->opts.conn.path == NULL) rc = err_mem(err, "a database engine");
    if (rc == RC_OK) rc = start_writer(e, err);
    if (rc != RC_OK) {
        sql_engine_close(e);
        return rc;
    }
    *ret_e = e;
    return RC_OK;
}

void sql_engine_close(struct sql_engine *e)
{
    if (e == NULL) return;
    ASSERT(e->used == 0);
    sched_drop(e->opts.pool, &e->job);
    sql_writer_free(e->writer);
    sql_engine_trim(e);
    pthread_mutex_destroy(&e->lock);
    pthread_mutex_destroy(&e->opening);
    char *path = (char *)(uintptr_t)e->opts.conn.path;
    mem_free(path);
    mem_free(e->idle);
    mem_free(e);
}

enum rc sql_engine_get(struct sql_engine *e, struct sql_conn **ret_conn, struct err *err)
{
    struct sql_conn *conn = NULL;
    thr_lock(&e->lock);
    bool full = e->used >= e->opts.conn_max;
    if (!full) {
        e->used++;
        if (e->idle_count > 0) conn = e->idle[--e->idle_count];
    }
    thr_unlock(&e->lock);
    if (full)
        return err_set(err, RC_BUSY, "%u connections to '%s' are in use already", e->opts.conn_max,
                       e->opts.conn.path);
    if (conn == NULL) {
        thr_lock(&e->opening);
        enum rc rc = sql_conn_open(&e->opts.conn, &conn, err);
        thr_unlock(&e->opening);
        if (rc != RC_OK) {
            thr_lock(&e->lock);
            e->used--;
            thr_unlock(&e->lock);
            return rc;
        }
    }
    *ret_conn = conn;
    return RC_OK;
}

void sql_engine_put(struct sql_engine *e, struct sql_conn *conn)
{
    if (conn == NULL) return;
    sql_conn_policy(conn, NULL); /* it may end with its client */
    bool fit = clean(conn);
    thr_lock(&e->lock);
    e->used--;
    if (fit && e->idle_count < e->opts.idle_max) {
        e->idle[e->idle_count++] = conn;
        conn = NULL;
    }
    thr_unlock(&e->lock);
    sql_conn_close(conn);
}

const char *sql_engine_path(const struct sql_engine *e)
{
    return e->opts.conn.path;
}

struct sql_writer *sql_engine_writer(struct sql_engine *e)
{
    return e->writer;
}

void sql_engine_committed(struct sql_engine *e)
{
    committed(e);
}

bool sql_engine_is_slow(const struct sql_engine *e, const char *sql, size_t size)
{
    uint64_t hash = slow_hash(sql, size);
    return atomic_load_explicit(&e->slow[hash % SLOW_COUNT], memory_order_relaxed) == hash;
}

void sql_engine_note(struct sql_engine *e, const char *sql, size_t size, bool slow)
{
    uint64_t hash = slow_hash(sql, size);
    _Atomic uint64_t *place = &e->slow[hash % SLOW_COUNT];
    bool known = atomic_load_explicit(place, memory_order_relaxed) == hash;
    if (known != slow) atomic_store_explicit(place, slow ? hash : 0, memory_order_relaxed);
}

void sql_engine_trim(struct sql_engine *e)
{
    for (;;) {
        struct sql_conn *conn = NULL;
        thr_lock(&e->lock);
        if (e->idle_count > 0) conn = e->idle[--e->idle_count];
        thr_unlock(&e->lock);
        if (conn == NULL) return;
        sql_conn_close(conn);
    }
}

void sql_engine_look(struct sql_engine *e, struct sql_engine_stats *ret)
{
    *ret = (struct sql_engine_stats){0};
    sql_writer_look(e->writer, &ret->writer);
    thr_lock(&e->lock);
    ret->conns_used = e->used;
    ret->conns = e->used + e->idle_count;
    for (unsigned i = 0; i < e->idle_count; i++)
        ret->memory += sql_conn_memory(e->idle[i]);
    thr_unlock(&e->lock);
}

void engine_place(struct sql_engine *e, struct sql_conn **place, struct sql_conn *conn)
{
    thr_lock(&e->lock);
    *place = conn;
    thr_unlock(&e->lock);
}

void engine_interrupt(struct sql_engine *e, struct sql_conn *const *place)
{
    thr_lock(&e->lock);
    if (*place != NULL) sql_conn_interrupt(*place);
    thr_unlock(&e->lock);
}

bool engine_is_plain(const struct sql_engine *e, struct sql_conn *conn)
{
    return !sql_conn_tainted(conn) && !conn_defers(conn) &&
           sql_conn_foreign_keys_on(conn) == e->opts.conn.foreign_keys;
}

static enum rc start_writer(struct sql_engine *e, struct err *err)
{
    struct sql_writer_opts opts = {.conn = e->opts.conn,
                                   .queue_max = e->opts.queue_max,
                                   .hold_ms = e->opts.hold_ms,
                                   .wake = wake,
                                   .committed = committed,
                                   .ctx = e};
    TRY(sql_writer_new(&opts, &e->writer, err));
    return sched_wake(e->opts.pool, &e->job, os_mono_ms() + REST_MS, err);
}

/* The job never leaves the schedule: with a place there a wake needs no memory, so it cannot fail
 * and leave somebody waiting for ever. */
static int64_t run_work(struct sched_job *job, void *worker)
{
    struct sql_engine *e = (struct sql_engine *)((char *)job - offsetof(struct sql_engine, job));
    (void)worker;
    if (sql_writer_work(e->writer, WORK_BUDGET_US)) return os_mono_ms();
    int64_t due_ms = sql_writer_due_ms(e->writer), rest_ms = os_mono_ms() + REST_MS;
    return due_ms != 0 && due_ms < rest_ms ? due_ms : rest_ms;
}

static void wake(void *ctx)
{
    struct sql_engine *e = ctx;
    struct err err;
    enum rc rc = sched_wake(e->opts.pool, &e->job, os_mono_ms(), &err);
    ASSERT(rc == RC_OK);
}

static void committed(void *ctx)
{
    struct sql_engine *e = ctx;
    if (e->opts.committed != NULL) e->opts.committed(e->opts.ctx);
}

/* False: not worth it, a new one is as quick. */
static bool clean(struct sql_conn *conn)
{
    struct err ignored;
    return !sql_conn_tainted(conn) && sql_conn_reset(conn, &ignored) == RC_OK;
}

static uint64_t slow_hash(const char *sql, size_t size)
{
    uint64_t hash = conn_hash(sql, size < SLOW_SQL_MAX ? size : SLOW_SQL_MAX) ^ size;
    return hash != 0 ? hash : 1;
}
