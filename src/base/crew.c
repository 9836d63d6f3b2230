/*
 * crew.c -- see crew.h.
 *
 *   table    key -> its first job that waits ──next──► second ──next──► ... last
 *   round    the first jobs of all keys that have some, in the order of their turns
 *
 * The first job of a key holds its place in table and round, and hands it on to the second: so
 * neither needs memory. What a key has at work is counted by a look at the threads.
 */
#include "base/crew.h"
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/thr.h"

#define TABLE_SIZE 256 /* a power of two */

struct member {
    struct crew *crew;
    pthread_t thread;
    bool busy;    /* [lock] */
    uint64_t key; /* [lock] of its job */
};
struct crew {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct crew_job *table[TABLE_SIZE];  /* [lock] */
    struct crew_job *round, **round_end; /* [lock] */
    size_t waiting;                      /* [lock] */
    unsigned sleeping, busy;             /* [lock] threads */
    bool stop;                           /* [lock] */
    int nice;
    unsigned share;
    unsigned member_count;
    struct member members[];
};

static void *thread_main(void *arg);
static struct crew_job *take(struct crew *c);
static struct crew_job **next_runnable(struct crew *c);
static bool may_run(const struct crew *c, uint64_t key);
static struct crew_job **place_of(struct crew *c, uint64_t key);
static void add_turn(struct crew *c, struct crew_job *first);

enum rc crew_new(const struct crew_opts *opts, struct crew **ret_c, struct err *err)
{
    struct crew *c = mem_calloc(1, sizeof *c + opts->threads * sizeof c->members[0]);
    if (c == NULL) return err_mem(err, "a crew of threads");
    pthread_mutex_init(&c->lock, NULL);
    thr_cond_init(&c->cond);
    c->round_end = &c->round;
    c->nice = opts->nice;
    c->share = opts->share > 0 ? opts->share : opts->threads;
    enum rc rc = RC_OK;
    thr_lock(&c->lock); /* they look at member_count */
    while (c->member_count < opts->threads && rc == RC_OK) {
        struct member *m = &c->members[c->member_count];
        m->crew = c;
        rc = thr_start(&m->thread, opts->name, thread_main, m, err);
        if (rc == RC_OK) c->member_count++;
    }
    thr_unlock(&c->lock);
    if (rc != RC_OK) {
        crew_free(c);
        return rc;
    }
    *ret_c = c;
    return RC_OK;
}

void crew_free(struct crew *c)
{
    if (c == NULL) return;
    thr_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->cond);
    thr_unlock(&c->lock);
    for (unsigned i = 0; i < c->member_count; i++)
        pthread_join(c->members[i].thread, NULL);
    ASSERT(c->round == NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->cond);
    mem_free(c);
}

void crew_submit(struct crew *c, struct crew_job *job, uint64_t key)
{
    job->key = key;
    job->next = job->chain = NULL;
    thr_lock(&c->lock);
    struct crew_job **place = place_of(c, key);
    if (*place != NULL) {
        (*place)->last->next = job;
        (*place)->last = job;
    } else {
        *place = job->last = job;
        add_turn(c, job);
    }
    c->waiting++;
    /* Under the lock: the job may be what the crew's owner waits for, to free it. */
    if (c->sleeping > 0 && may_run(c, key)) pthread_cond_signal(&c->cond);
    thr_unlock(&c->lock);
}

/* FNV-1a. Names that share a key by chance share their part of the threads. */
uint64_t crew_key(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name != '\0'; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

size_t crew_waiting(struct crew *c)
{
    thr_lock(&c->lock);
    size_t waiting = c->waiting;
    thr_unlock(&c->lock);
    return waiting;
}

static void *thread_main(void *arg)
{
    struct member *m = arg;
    struct crew *c = m->crew;
    /* On Linux a thread has a priority of its own. Without it the work is only less polite. */
    if (c->nice > 0) (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), c->nice);
    thr_lock(&c->lock);
    for (;;) {
        struct crew_job *job = take(c);
        if (job != NULL) {
            m->key = job->key;
            m->busy = true;
            c->busy++;
            /* The end of the job before may have made room for one more of its key. */
            if (c->sleeping > 0 && next_runnable(c) != NULL) pthread_cond_signal(&c->cond);
            thr_unlock(&c->lock);
            job->run(job);
            thr_lock(&c->lock);
            m->busy = false;
            c->busy--;
        } else if (c->stop) {
            break;
        } else {
            c->sleeping++;
            thr_wait(&c->cond, &c->lock, 0);
            c->sleeping--;
        }
    }
    thr_unlock(&c->lock);
    return NULL;
}

/* The first job of the key whose turn it is; what is behind it gets the last turn. */
static struct crew_job *take(struct crew *c)
{
    struct crew_job **at = next_runnable(c);
    if (at == NULL) return NULL;
    struct crew_job *job = *at, *next = job->next, **place = place_of(c, job->key);
    *at = job->turn;
    if (c->round_end == &job->turn) c->round_end = at;
    if (next != NULL) {
        next->last = job->last;
        next->chain = job->chain;
        *place = next;
        add_turn(c, next);
    } else {
        *place = job->chain;
    }
    c->waiting--;
    return job;
}

/* While a thread is free, those who are passed over have one each: there cannot be many. */
static struct crew_job **next_runnable(struct crew *c)
{
    for (struct crew_job **at = &c->round; *at != NULL; at = &(*at)->turn)
        if (may_run(c, (*at)->key)) return at;
    return NULL;
}

static bool may_run(const struct crew *c, uint64_t key)
{
    unsigned held = 0;
    for (unsigned i = 0; i < c->member_count; i++)
        held += c->members[i].busy && c->members[i].key == key;
    return held == 0 || c->stop || (held < c->share && held < c->member_count - c->busy);
}

/* Where the first job of the key is to be found, or to be put. */
static struct crew_job **place_of(struct crew *c, uint64_t key)
{
    struct crew_job **at = &c->table[(key ^ key >> 32) & (TABLE_SIZE - 1)];
    while (*at != NULL && (*at)->key != key)
        at = &(*at)->chain;
    return at;
}

static void add_turn(struct crew *c, struct crew_job *first)
{
    first->turn = NULL;
    *c->round_end = first;
    c->round_end = &first->turn;
}
