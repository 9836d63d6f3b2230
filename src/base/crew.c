/* crew.c -- see crew.h. */
#include "base/crew.h"
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/thr.h"

struct crew {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct crew_job *head, **tail; /* [lock] */
    size_t waiting;                /* [lock] */
    unsigned sleeping;             /* [lock] threads */
    bool stop;                     /* [lock] */
    int nice;
    unsigned thread_count;
    pthread_t threads[];
};

static void *thread_main(void *arg);

enum rc crew_new(const char *name, unsigned threads, int nice, struct crew **ret_c, struct err *err)
{
    struct crew *c = mem_calloc(1, sizeof *c + threads * sizeof c->threads[0]);
    if (c == NULL) return err_mem(err, "a crew of threads");
    pthread_mutex_init(&c->lock, NULL);
    thr_cond_init(&c->cond);
    c->tail = &c->head;
    c->nice = nice;
    enum rc rc = RC_OK;
    while (c->thread_count < threads && rc == RC_OK) {
        rc = thr_start(&c->threads[c->thread_count], name, thread_main, c, err);
        if (rc == RC_OK) c->thread_count++;
    }
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
    for (unsigned i = 0; i < c->thread_count; i++)
        pthread_join(c->threads[i], NULL);
    ASSERT(c->head == NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->cond);
    mem_free(c);
}

void crew_submit(struct crew *c, struct crew_job *job)
{
    job->next = NULL;
    thr_lock(&c->lock);
    *c->tail = job;
    c->tail = &job->next;
    c->waiting++;
    /* Under the lock: the job may be what the crew's owner waits for, to free it. */
    if (c->sleeping > 0) pthread_cond_signal(&c->cond);
    thr_unlock(&c->lock);
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
    struct crew *c = arg;
    /* On Linux a thread has a priority of its own. Without it the work is only less polite. */
    if (c->nice > 0) (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), c->nice);
    thr_lock(&c->lock);
    for (;;) {
        struct crew_job *job = c->head;
        if (job != NULL) {
            c->head = job->next;
            if (c->head == NULL) c->tail = &c->head;
            c->waiting--;
            thr_unlock(&c->lock);
            job->run(job);
            thr_lock(&c->lock);
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
