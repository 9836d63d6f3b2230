/*
 * task.h -- one replicated database: what to do when its bell rings, when a batch waits for its
 * upload, and when something fails.
 *
 *   bell --> capture job (few threads, CPU) --staged batch--> upload job (more threads, waiting)
 *                ^                                                 |
 *                +--- the store was looked at, or has caught up ----+
 *
 * A batch is cut when the store has the one before, at most once an interval: one TXID, one upload.
 * Only a WAL that grows long meanwhile is cut earlier, so that it can be checkpointed.
 *
 * Threads: each job by one thread at a time; both may run at once for one task.
 */
#ifndef NODE_TASK_H
#define NODE_TASK_H
#include "base/thr.h"
#include "db/capture.h"
#include "log/layout.h"
#include "node/bell.h"
#include "node/config.h"
#include "base/sched.h"

struct tenant_wait; /* server/tenant.h */

/* A store that is away fails for all its databases at once: that is one story in the log. Begins as
 * TASK_OUTAGE_INIT. */
struct task_outage {
    pthread_mutex_t lock;
    size_t db_count;             /* [lock] whose store fails now */
    size_t most, count;          /* [lock] databases and failures since it began */
    int64_t since_ms, logged_ms; /* [lock] */
};
#define TASK_OUTAGE_INIT                                                                           \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER                                                          \
    }

struct task_pools {
    struct sched *capture, *upload;
    struct task_outage *outage; /* of those who share a service; NULL: alone */
    struct bell *bell;
    struct sched_job *trim; /* gives memory back after databases went to sleep; by capture's pool */
    const atomic_bool *cancel; /* true: give up calls to the store; NULL: never */
    int64_t sleep_after_ms;    /* idle so long: let go of a small database; 0: 10 s */
    int readers_wait_ms;       /* see capture.h; 0: none of the application's writers waits */
    bool relaxed;              /* see capture.h */
    bool quiet;                /* that it replicates is logged at debug level */
};
struct task;

/* Open store and local state. cfg and db outlive the task. pools NULL: only task_once is used.
 * Fails: RC_FENCED another process replicates the database; as store_open, capture_open. */
MUST_CHECK enum rc task_new(const struct config *cfg, const struct config_db *db,
                            const struct task_pools *pools, struct task **ret_t, struct err *err);
void task_free(struct task *t); /* NULL is fine; its jobs must have ended */
const char *task_path(const struct task *t);

struct task_counts {
    const char *store_type; /* lives as long as the task */
    struct store_stats stats;
    uint64_t behind; /* captured batches that are not in the store yet */
};
void task_counts(const struct task *t, struct task_counts *ret); /* any thread */

MUST_CHECK enum rc task_start(struct task *t, struct err *err);
/* The bell rang for this task (owner). */
void task_ring(void *owner);

/* For whoever has the database open in this process. After a commit; a burst of them costs one
 * atomic operation each. */
void task_committed(struct task *t);
/* Tell w when everything that was committed before is in the store; captured at once, whatever the
 * interval. Its deadline passed: RC_CANCELED with the last failure of the store. */
void task_wait(struct task *t, struct tenant_wait *w);
/* An upper bound: every commit until now will be in the state of this TXID, if it is not in an
 * earlier one. 0: the place in the log is not known yet. */
uint64_t task_index(struct task *t);
struct task_place {
    uint64_t staged, uploaded; /* newest TXID captured here, newest in the store */
    bool known;                /* the place in the log is; else uploaded is 0 */
    bool failing;              /* the store does */
};
void task_place(struct task *t, struct task_place *ret);
/* Copy what is in the WAL into the database, as far as readers permit; waits for it. Fails: RC_BUSY
 * it could not be done within timeout_ms. */
MUST_CHECK enum rc task_checkpoint(struct task *t, int64_t timeout_ms, struct err *err);
/* Its log in the store, as long as the task lives. Any thread. */
const struct log *task_log(const struct task *t);
/* Where a captured batch waits, or did: an LTX file and STATE_FOOTER_SIZE bytes. Any thread. */
void task_staged_path(const struct task *t, uint64_t txid, char ret_path[OS_PATH_MAX]);
/* End its jobs, while the pools go on for others: then it can be freed. Who waits is told
 * RC_CANCELED. Not from inside of a job; nobody else may use it any more. */
void task_stop(struct task *t);

/* Everything once, in the caller's thread: find the place in the log, capture, upload. For `-once`
 * and for the shutdown (with the pools stopped). Fails: whatever kept the store from having all. */
MUST_CHECK enum rc task_once(struct task *t, struct batch_scratch *s, const struct call *c,
                             bool snapshot, struct err *err);
#endif
