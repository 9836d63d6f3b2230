/*
 * sched.h -- jobs that are due at a time, taken by a pool of threads. A job that is not due costs
 * nothing: thousands of idle databases are entries in a heap, or not even that.
 *
 * A job never runs on two threads at once; a wake-up that comes while it runs is kept for after.
 * Threads: any.
 */
#ifndef BASE_SCHED_H
#define BASE_SCHED_H
#include "base/err.h"

#define SCHED_NEVER INT64_MAX

struct sched;
struct sched_job {
    /* Run it; `worker` is what the thread's init made. Returns when to run again (os_mono_ms). */
    int64_t (*run)(struct sched_job *job, void *worker);
    /* private to sched.c */
    int64_t due_ms, again_ms;
    size_t at; /* place in the heap from 1; 0: not in it */
    bool running, dropped;
};

/* init (may be NULL) makes what each thread passes to its jobs, fini takes it back.
 * Fails: RC_NO_MEM, RC_BUSY; init's rc. */
MUST_CHECK enum rc sched_new(const char *name, unsigned threads,
                             enum rc (*init)(void **ret_worker, struct err *err),
                             void (*fini)(void *worker), struct sched **ret_s, struct err *err);
/* Let running jobs end, start no more, end the threads. Wakes are still taken, and ignored. */
void sched_stop(struct sched *s);
/* NULL is fine. Nobody may call sched_wake any more. */
void sched_free(struct sched *s);
/* Run the job at due_ms, or earlier if it was to run earlier. Fails: RC_NO_MEM. */
MUST_CHECK enum rc sched_wake(struct sched *s, struct sched_job *job, int64_t due_ms,
                              struct err *err);
/* Forget the job, and wait until it does not run any more. Nobody may wake it meanwhile; not from
 * inside of a job. Never woken, or a stopped scheduler, is fine. */
void sched_drop(struct sched *s, struct sched_job *job);
#endif
