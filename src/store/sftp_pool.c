/* sftp_pool.c -- see sftp_pool.h. */
#include "store/sftp_pool.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/sock.h"
#include <string.h>

struct sftp_pool {
    struct ssh_conf conf;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct sftp_link *idle; /* [lock] the one used last comes first */
    unsigned count;         /* [lock] in use, being made and idle */
};

static _Thread_local unsigned held; /* connections that this thread has, of any pool */

static enum rc wait_turn(struct sftp_pool *p, const struct call *c, struct sftp_link **ret_idle,
                         struct err *err);
static struct sftp_link *expire(struct sftp_pool *p);
static enum rc link_make(struct sftp_pool *p, const struct call *c, struct sftp_link **ret_link,
                         struct err *err);
static void link_free(struct sftp_link *l);
static void free_all(struct sftp_link *list);
static void less(struct sftp_pool *p);

enum rc sftp_pool_new(const struct ssh_conf *conf, struct sftp_pool **ret_pool, struct err *err)
{
    struct sftp_pool *p = mem_calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "a pool of connections");
    p->conf = *conf;
    pthread_mutex_init(&p->lock, NULL);
    thr_cond_init(&p->freed);
    *ret_pool = p;
    return RC_OK;
}

void sftp_pool_free(struct sftp_pool *p)
{
    if (p == NULL) return;
    free_all(p->idle);
    pthread_cond_destroy(&p->freed);
    pthread_mutex_destroy(&p->lock);
    mem_wipe(&p->conf, sizeof p->conf);
    mem_free(p);
}

enum rc sftp_pool_take(struct sftp_pool *p, const struct call *c, struct sftp_link **ret_link,
                       struct err *err)
{
    struct sftp_link *l = NULL;
    enum rc rc = RC_OK;
    /* Idle ones that are dead are found out here and replaced. */
    for (;;) {
        TRY(wait_turn(p, c, &l, err));
        if (l == NULL) break;
        if (ssh_link_alive(l->ssh)) break;
        link_free(l);
        less(p);
        l = NULL;
    }
    if (l == NULL) rc = link_make(p, c, &l, err);
    if (rc != RC_OK) {
        less(p);
        return rc;
    }
    held++;
    *ret_link = l;
    return RC_OK;
}

void sftp_pool_give(struct sftp_pool *p, struct sftp_link *l)
{
    struct sftp_link *gone = NULL;
    held--;
    thr_lock(&p->lock);
    if (l->wire.broken) {
        gone = p->idle;
        p->idle = NULL;
        for (const struct sftp_link *i = gone; i != NULL; i = i->next)
            p->count--;
    }
    if (l->wire.broken || p->count > SFTP_POOL_MAX) {
        l->next = gone;
        gone = l;
        p->count--;
    } else {
        l->reused = true;
        l->idle_ms = os_mono_ms();
        l->next = p->idle;
        p->idle = l;
    }
    pthread_cond_broadcast(&p->freed);
    thr_unlock(&p->lock);
    free_all(gone);
}

/* An idle connection (*ret_idle), or the right to make one. */
static enum rc wait_turn(struct sftp_pool *p, const struct call *c, struct sftp_link **ret_idle,
                         struct err *err)
{
    int64_t end = os_mono_ms() + SFTP_POOL_WAIT_MS;
    enum rc rc = RC_OK;
    thr_lock(&p->lock);
    struct sftp_link *old = expire(p);
    for (;;) {
        rc = call_check(c, err);
        if (rc != RC_OK || p->idle != NULL || p->count < SFTP_POOL_MAX || held > 0) break;
        if (os_mono_ms() >= end) {
            rc = err_set(err, RC_AGAIN, "all %d connections to %s are busy", SFTP_POOL_MAX,
                         p->conf.host);
            break;
        }
        thr_wait(&p->freed, &p->lock, os_mono_ms() + SOCK_SLICE_MS);
    }
    if (rc == RC_OK) {
        *ret_idle = p->idle;
        if (p->idle != NULL)
            p->idle = p->idle->next;
        else
            p->count++;
    }
    thr_unlock(&p->lock);
    free_all(old);
    return rc;
}

/* Take out those that were idle for long: the list is sorted by that. */
static struct sftp_link *expire(struct sftp_pool *p)
{
    struct sftp_link **at = &p->idle;
    while (*at != NULL && os_mono_ms() - (*at)->idle_ms < SFTP_IDLE_MS)
        at = &(*at)->next;
    struct sftp_link *old = *at;
    *at = NULL;
    for (const struct sftp_link *i = old; i != NULL; i = i->next)
        p->count--;
    return old;
}

static enum rc link_make(struct sftp_pool *p, const struct call *c, struct sftp_link **ret_link,
                         struct err *err)
{
    struct sftp_link *l = mem_calloc(1, sizeof *l);
    if (l == NULL) return err_mem(err, "an SFTP connection");
    enum rc rc = ssh_link_open(&p->conf, c, &l->ssh, err);
    if (rc == RC_OK) {
        const struct sftp_io io = {.send = ssh_link_send, .recv = ssh_link_recv, .ctx = l->ssh};
        struct call within = {.cancel = c ? c->cancel : NULL,
                              .deadline_ms = os_mono_ms() + SSH_LINK_CONNECT_MS};
        struct err ignored;
        if (c != NULL && c->deadline_ms != 0 && c->deadline_ms < within.deadline_ms)
            within.deadline_ms = c->deadline_ms;
        rc = sftp_start(&l->wire, &io, &within, err);
        if (rc == RC_CANCELED && call_check(c, &ignored) == RC_OK)
            rc = err_set(err, RC_AGAIN, "%s: no SFTP within %d s", p->conf.host,
                         SSH_LINK_CONNECT_MS / 1000);
    }
    if (rc != RC_OK) {
        link_free(l);
        return rc;
    }
    *ret_link = l;
    return RC_OK;
}

static void link_free(struct sftp_link *l)
{
    sftp_fini(&l->wire);
    ssh_link_close(l->ssh);
    mem_free(l);
}

static void free_all(struct sftp_link *list)
{
    while (list != NULL) {
        struct sftp_link *next = list->next;
        link_free(list);
        list = next;
    }
}

/* One connection fewer: whoever waits may make one. */
static void less(struct sftp_pool *p)
{
    thr_lock(&p->lock);
    p->count--;
    pthread_cond_broadcast(&p->freed);
    thr_unlock(&p->lock);
}
