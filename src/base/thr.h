/*
 * thr.h -- deadlines and cancellation (struct call) and a bounded pool of threads.
 *
 * Threads: a struct call is read by the thread that works on it; its cancel flag may be set from
 * anywhere. pool_* may be called from any thread.
 */
#ifndef BASE_THR_H
#define BASE_THR_H
#include <pthread.h>
#include <stdatomic.h>
#include "base/err.h"

/* What a piece of work may take. Zero-initialised: no limit. */
struct call {
    const atomic_bool *cancel; /* NULL or a flag that ends the work soon after it turns true */
    int64_t deadline_ms;       /* by os_mono_ms; 0 = none */
};
/* Fails: RC_CANCELED. c may be NULL (no limit). */
MUST_CHECK enum rc call_check(const struct call *c, struct err *err);

/* A mutex and a condition that cannot fail: misuse is a bug and asserts. */
void thr_lock(pthread_mutex_t *m);
void thr_unlock(pthread_mutex_t *m);
/* Wait on cond until deadline_ms (os_mono_ms; 0 = no limit). False when the time has passed.
 * cond must come from thr_cond_init. */
bool thr_wait(pthread_cond_t *cond, pthread_mutex_t *m, int64_t deadline_ms);
void thr_cond_init(pthread_cond_t *cond);
/* Start a joinable thread with all signals blocked; name (at most 15 characters) is for tools.
 * Fails: RC_NO_MEM, RC_BUSY out of threads. */
MUST_CHECK enum rc thr_start(pthread_t *ret_thread, const char *name, void *(*main)(void *),
                             void *arg, struct err *err);

/* Run fn(ctx, i) for i in [0, count) on up to `threads` threads (the caller's is one of them) and
 * wait for all. The first failure is kept in err and ends the handing-out of further indexes.
 * Fails: fn's rc; RC_NO_MEM. With fewer threads than wanted it goes on with those it has. */
typedef enum rc thr_each_fn(void *ctx, uint64_t i, struct err *err);
MUST_CHECK enum rc thr_each(unsigned threads, uint64_t count, thr_each_fn *fn, void *ctx,
                            struct err *err);
#endif
