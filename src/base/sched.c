/* sched.c -- see sched.h. A binary heap by due time under one lock. */
#include "base/sched.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"

#define THREADS_MAX 64

struct sched_thread {
    struct sched *s;
    pthread_t id;
    void *worker;
};

struct sched {
    pthread_mutex_t lock;    /* guards all below, and the private part of jobs */
    pthread_cond_t cond;     /* the heap's top changed, or stop */
    pthread_cond_t ended;    /* a job that is to be dropped does not run any more */
    struct sched_job **heap; /* from index 1 */
    size_t count, cap;
    size_t running; /* jobs that may come back: the heap has room for them */
    bool stop;
    void (*fini)(void *worker);
    struct sched_thread threads[THREADS_MAX];
    unsigned thread_count;
};

static void *thread_main(void *arg);
static struct sched_job *take_locked(struct sched *s);
static void take_out(struct sched *s, struct sched_job *job);
static enum rc push_locked(struct sched *s, struct sched_job *job, int64_t due_ms, struct err *err);
static void sift_up(struct sched *s, size_t i);
static void sift_down(struct sched *s, size_t i);
static void place(struct sched *s, size_t i, struct sched_job *job);

enum rc sched_new(const char *name, unsigned threads,
                  enum rc (*init)(void **ret_worker, struct err *err), void (*fini)(void *worker),
                  struct sched **ret_s, struct err *err)
{
    struct sched *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "a scheduler");
    pthread_mutex_init(&s->lock, NULL);
    thr_cond_init(&s->cond);
    thr_cond_init(&s->ended);
    s->fini = fini;
    enum rc rc = RC_OK;
    for (unsigned i = 0; i < threads && i < THREADS_MAX && rc == RC_OK; i++) {
        struct sched_thread *t = &s->threads[i];
        t->s = s;
        if (init != NULL) rc = init(&t->worker, err);
        if (rc == RC_OK) rc = thr_start(&t->id, name, thread_main, t, err);
        if (rc == RC_OK)
            s->thread_count++;
        else if (fini != NULL)
            fini(t->worker);
    }
    if (rc != RC_OK) {
        sched_free(s);
        return rc;
    }
    *ret_s = s;
    return RC_OK;
}

void sched_stop(struct sched *s)
{
    thr_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->cond);
    thr_unlock(&s->lock);
    for (unsigned i = 0; i < s->thread_count; i++) {
        pthread_join(s->threads[i].id, NULL);
        if (s->fini != NULL) s->fini(s->threads[i].worker);
    }
    s->thread_count = 0;
}

void sched_free(struct sched *s)
{
    if (s == NULL) return;
    sched_stop(s);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->cond);
    pthread_cond_destroy(&s->ended);
    mem_free(s->heap);
    mem_free(s);
}

enum rc sched_wake(struct sched *s, struct sched_job *job, int64_t due_ms, struct err *err)
{
    enum rc rc = RC_OK;
    thr_lock(&s->lock);
    if (job->running) {
        if (due_ms < job->again_ms) job->again_ms = due_ms;
    } else {
        rc = push_locked(s, job, due_ms, err);
    }
    thr_unlock(&s->lock);
    return rc;
}

void sched_drop(struct sched *s, struct sched_job *job)
{
    thr_lock(&s->lock);
    job->dropped = true;
    while (job->running)
        thr_wait(&s->ended, &s->lock, 0);
    if (job->at != 0) take_out(s, job);
    job->dropped = false;
    thr_unlock(&s->lock);
}

static void *thread_main(void *arg)
{
    struct sched_thread *t = arg;
    struct sched *s = t->s;
    struct sched_job *job;
    thr_lock(&s->lock);
    while ((job = take_locked(s)) != NULL) {
        job->running = true;
        s->running++;
        job->again_ms = SCHED_NEVER;
        thr_unlock(&s->lock);
        int64_t due_ms = job->run(job, t->worker);
        thr_lock(&s->lock);
        job->running = false;
        s->running--;
        if (job->again_ms < due_ms) due_ms = job->again_ms;
        if (job->dropped) {
            pthread_cond_broadcast(&s->ended);
            continue;
        }
        struct err ignored; /* the heap kept the room that this job left */
        if (due_ms != SCHED_NEVER && push_locked(s, job, due_ms, &ignored) != RC_OK) continue;
    }
    thr_unlock(&s->lock);
    return NULL;
}

/* Wait for the first job that is due, and take it out. NULL: stop. */
static struct sched_job *take_locked(struct sched *s)
{
    while (!s->stop) {
        if (s->count == 0) {
            thr_wait(&s->cond, &s->lock, 0);
            continue;
        }
        struct sched_job *job = s->heap[1];
        if (job->due_ms > os_mono_ms()) {
            thr_wait(&s->cond, &s->lock, job->due_ms);
            continue;
        }
        take_out(s, job);
        if (s->count > 0) pthread_cond_signal(&s->cond);
        return job;
    }
    return NULL;
}

static void take_out(struct sched *s, struct sched_job *job)
{
    size_t i = job->at;
    struct sched_job *last = s->heap[s->count--];
    job->at = 0;
    if (last == job) return;
    place(s, i, last);
    sift_up(s, i);
    sift_down(s, last->at);
}

static enum rc push_locked(struct sched *s, struct sched_job *job, int64_t due_ms, struct err *err)
{
    if (job->at != 0) {
        if (due_ms >= job->due_ms) return RC_OK;
        job->due_ms = due_ms;
        sift_up(s, job->at);
    } else {
        if (s->count + s->running + 2 > s->cap) {
            size_t cap = s->cap ? s->cap * 2 : 64;
            struct sched_job **heap = mem_realloc(s->heap, cap * sizeof *heap);
            if (heap == NULL) return err_mem(err, "the schedule");
            s->heap = heap;
            s->cap = cap;
        }
        job->due_ms = due_ms;
        place(s, ++s->count, job);
        sift_up(s, s->count);
    }
    if (job->at == 1) pthread_cond_signal(&s->cond);
    return RC_OK;
}

static void sift_up(struct sched *s, size_t i)
{
    struct sched_job *job = s->heap[i];
    for (; i > 1 && s->heap[i / 2]->due_ms > job->due_ms; i /= 2)
        place(s, i, s->heap[i / 2]);
    place(s, i, job);
}

static void sift_down(struct sched *s, size_t i)
{
    struct sched_job *job = s->heap[i];
    for (size_t child; (child = 2 * i) <= s->count; i = child) {
        if (child < s->count && s->heap[child + 1]->due_ms < s->heap[child]->due_ms) child++;
        if (s->heap[child]->due_ms >= job->due_ms) break;
        place(s, i, s->heap[child]);
    }
    place(s, i, job);
}

static void place(struct sched *s, size_t i, struct sched_job *job)
{
    s->heap[i] = job;
    job->at = i;
}
