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

/* Everything once, in the caller's thread: find the place in the log, capture, upload. For `-once`
 * and for the shutdown (with the pools stopped). Fails: whatever kept the store from having all. */
MUST_CHECK enum rc task_once(struct task *t, struct batch_scratch *s, const struct call *c,
                             bool snapshot, struct err *err);
#endif
