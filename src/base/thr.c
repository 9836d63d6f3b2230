/* thr.c -- see thr.h. */
#include "base/thr.h"
#include "base/mem.h"
#include "base/os.h"
#include <errno.h>
#include <signal.h>
#include <time.h>

#define EACH_THREADS_MAX 64

struct each {
    thr_each_fn *fn;
    void *ctx;
    uint64_t count;
    atomic_uint_fast64_t next;
    atomic_bool stop;
    pthread_mutex_t lock; /* guards err */
    struct err *err;
};

static void *each_main(void *arg);

enum rc call_check(const struct call *c, struct err *err)
{
    if (c == NULL) return RC_OK;
    if (c->cancel != NULL && atomic_load(c->cancel)) return err_set(err, RC_CANCELED, "canceled");
    if (c->deadline_ms != 0 && os_mono_ms() >= c->deadline_ms)
        return err_set(err, RC_CANCELED, "deadline passed");
    return RC_OK;
}

void thr_lock(pthread_mutex_t *m)
{
    int sys = pthread_mutex_lock(m);
    ASSERT(sys == 0);
}

void thr_unlock(pthread_mutex_t *m)
{
    int sys = pthread_mutex_unlock(m);
    ASSERT(sys == 0);
}

void thr_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

bool thr_wait(pthread_cond_t *cond, pthread_mutex_t *m, int64_t deadline_ms)
{
    struct timespec t = {.tv_sec = deadline_ms / 1000, .tv_nsec = (deadline_ms % 1000) * 1000000};
    int sys = deadline_ms == 0 ? pthread_cond_wait(cond, m) : pthread_cond_timedwait(cond, m, &t);
    ASSERT(sys == 0 || sys == ETIMEDOUT);
    return sys == 0;
}

enum rc thr_start(pthread_t *ret_thread, const char *name, void *(*main)(void *), void *arg,
                  struct err *err)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int sys = pthread_create(ret_thread, NULL, main, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (sys != 0) return err_sys(err, sys, "start thread '%s'", name);
    pthread_setname_np(*ret_thread, name);
    return RC_OK;
}

enum rc thr_each(unsigned threads, uint64_t count, thr_each_fn *fn, void *ctx, struct err *err)
{
    pthread_t ids[EACH_THREADS_MAX];
    unsigned started = 0;
    struct err ignored, first = {0};
    struct each e = {.fn = fn, .ctx = ctx, .count = count, .err = &first};
    pthread_mutex_init(&e.lock, NULL);
    if (threads > EACH_THREADS_MAX) threads = EACH_THREADS_MAX;
    while (started + 1 < threads && started + 1 < count) {
        if (thr_start(&ids[started], "each", each_main, &e, &ignored) != RC_OK) break;
        started++;
    }
    each_main(&e);
    for (unsigned i = 0; i < started; i++) pthread_join(ids[i], NULL);
    pthread_mutex_destroy(&e.lock);
    if (first.rc != RC_OK) *err = first;
    return first.rc;
}

static void *each_main(void *arg)
{
    struct each *e = arg;
    struct err err;
    while (!atomic_load(&e->stop)) {
        uint64_t i = atomic_fetch_add(&e->next, 1);
        if (i >= e->count) break;
        if (e->fn(e->ctx, i, &err) == RC_OK) continue;
        thr_lock(&e->lock);
        if (e->err->rc == RC_OK) *e->err = err;
        thr_unlock(&e->lock);
        atomic_store(&e->stop, true);
    }
    return NULL;
}
