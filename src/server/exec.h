/*
 * exec.h -- run the requests of one message on a session, one after another, and encode the
 * answers.
 *
 *   exec_begin ──► read            on the thread that called, for at most EXEC_HERE_MS; a read that
 *                                  takes longer is taken back and run again by the slow crew
 *              ──► lone write      to the writer's queue; goes on when its group has committed
 *              ──► batch BEGIN...  the same, as one unit, when it ends what it begins
 *              ──► transaction     on the working crew; waits for the writer's turn without a
 * thread ──► done            when the store has it, too, if the tenant wants that
 *
 * Between these hops an execution belongs to nobody but its queue: no thread waits for it.
 *
 * Threads: exec_begin by any; done is called once, by any thread, also from inside exec_begin.
 */
#ifndef SERVER_EXEC_H
#define SERVER_EXEC_H
#include "base/crew.h"
#include "server/session.h"

#define EXEC_HERE_MS 2

struct exec;
struct exec_env { /* what all executions share */
    const struct tenants_ops *ops;
    struct tenants *tenants;
    struct crew *work, *slow;
    int64_t query_ms;   /* limit of one statement, with its wait for a thread */
    int64_t turn_ms;    /* so long a transaction waits for the others' to end */
    int64_t txn_ms;     /* a write may hold the write lock */
    int64_t durable_ms; /* so long a sync commit waits for the store */
    uint64_t byte_max;  /* of values in the results of one message */
    /* After each statement; sql_err NULL: it went well. May be NULL. */
    void (*note)(void *ctx, struct tenant *t, const char *sql, size_t size, int64_t us,
                 const struct sql_done *done, const struct sql_error *sql_err);
    void *note_ctx;

    pthread_mutex_t lock;
    struct exec *waiting;             /* [lock] for a turn, or for a transaction to come */
    uint64_t turn_waits, here, moved; /* counts; relaxed */
};
void exec_env_init(struct exec_env *env);
void exec_env_fini(struct exec_env *env);
/* Let go of those who have waited too long or whose client has gone. Call every 100 ms or so. */
void exec_env_tick(struct exec_env *env);

struct exec {
    /* In: */
    struct exec_env *env;
    struct session *ses;
    const struct hrana_request *requests; /* as long as the execution */
    size_t count;
    struct hrana_encoder *enc; /* has begun */
    struct buf *out;           /* of enc */
    struct arena *arena;
    const atomic_bool *gone; /* may be NULL */
    bool cursor;             /* one batch, whose entries enc writes */
    bool sync;               /* wait for the store, whatever the tenant's configuration says */
    int32_t request_id;      /* WebSocket */
    void (*done)(struct exec *x);
    void *ctx;
    /* Take what is in out away, when there is much; by a thread that may wait. NULL: never. */
    enum rc (*flush)(struct exec *x, struct err *err);
    /* May what out has grown by stay in memory? On any thread, and quick. NULL: always. Fails:
     * RC_TOO_BIG; then the statement fails, or, between two steps, all of it. */
    enum rc (*grown)(struct exec *x, struct err *err);
    /* Out: */
    bool closed;              /* the stream was closed by a request */
    enum rc rc;               /* RC_OK: all results are encoded, whether good or bad */
    struct err err;           /* why nothing could be answered */
    struct sql_error sql_err; /* the same for the client; code "" for a protocol error */
    struct sql_error bad;     /* the last result that was an error, outside of batches */
    uint64_t index;           /* of the newest commit; 0: none */
    /* Private: */
    struct crew_job job;
    struct exec *next, **prev_next; /* in env->waiting */
    int64_t wait_until_ms, wait_since_ms;
    int64_t queued_ms;   /* when a crew got it; 0: what runs now has not waited */
    uint64_t wait_index; /* not for a turn, but until the tenant is as far as this */
    struct sql_write write;
    struct tenant_wait wait;
    size_t at, step;
    uint8_t *verdicts; /* of the steps of the batch at hand */
    const char *sql;   /* of the statement at hand */
    size_t sql_size;
    struct sql_done result;
    struct sql_last last;  /* of the stream, if what runs now stays */
    int64_t unit_until_ms; /* so long a batch may hold the write lock as one unit */
    bool here;             /* on a thread that must not wait */
    bool slow;             /* on one of the slow crew */
    bool in_batch, tried_unit, refused, own, tx, denied, committed, flushed;
    bool partial; /* a failed write has kept some rows */
};
void exec_begin(struct exec *x);
#endif
