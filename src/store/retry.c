/*
 * retry.c -- see retry.h.
 *
 * What a code says about the service, and what follows:
 *
 *   OK NOT_FOUND CONFLICT   it works         trouble ends, budget and slots may grow
 *   AGAIN BUSY              it does not      trouble, a retry costs budget
 *   all others              nothing          (a refusal, a full disk here, a cancelled call)
 *
 * Locks: `pacers_lock`, then a pacer's `lock`; neither is held across a call out.
 */
#include "store/retry.h"
#include "base/mem.h"
#include "base/os.h"
#include <stdio.h>
#include <string.h>

#define WAIT_MS      50 /* between two looks at the cancel flag */
#define AFTER_MAX_MS 300000
#define AT_ONCE_MAX  3 /* retries of one run without a pause: whoever mends for ever has not */

#define FIRST_MAX    150 /* bytes of the first cause in a text that has the last one too */

struct pacer {
    struct pacer *next; /* [pacers_lock] */
    unsigned refs;      /* [pacers_lock] */
    store_trouble_fn *on_trouble;
    void *ctx;
    pthread_mutex_t lock;
    pthread_cond_t turn;          /* a slot has become free */
    unsigned slots, busy, good;   /* [lock] good: answers since slots changed */
    unsigned epoch;               /* [lock] how often slots were halved */
    int budget;                   /* [lock] */
    int64_t trouble_ms;           /* [lock] the first failure, by os_mono_ms */
    struct store_trouble trouble; /* [lock] count 0: none */
    char service[];
};

struct run { /* one retry_run */
    struct pacer *p;
    const struct call *c;
    unsigned tries, at_once, epoch;
    int64_t start_ms;
    struct err first;
};

/* Slots that this thread has, of any service: see take_slot. */
static _Thread_local unsigned held;

static pthread_mutex_t pacers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pacer *pacers; /* [pacers_lock] */

static bool may_repeat(struct run *r, enum rc rc, const struct retry_hint *hint, int64_t *ret_ms);
static bool pay(struct pacer *p);
static enum rc pause_for(struct run *r, int64_t ms, struct err *err);
static enum rc take_slot(struct run *r, struct err *err);
static void give_slot(struct run *r, enum rc rc, const struct retry_hint *hint,
                      const struct err *err);
static void pace(struct run *r, bool good, const struct retry_hint *hint);
static size_t same_start(const char *a, const char *b);
static enum rc tell(const struct run *r, struct err *err);

enum rc pacer_open(const char *service, store_trouble_fn *on_trouble, void *ctx,
                   struct pacer **ret_pacer, struct err *err)
{
    thr_lock(&pacers_lock);
    struct pacer *p = pacers;
    while (p != NULL && strcmp(p->service, service) != 0)
        p = p->next;
    if (p == NULL && (p = mem_calloc(1, sizeof *p + strlen(service) + 1)) != NULL) {
        memcpy(p->service, service, strlen(service) + 1);
        pthread_mutex_init(&p->lock, NULL);
        thr_cond_init(&p->turn);
        p->slots = RETRY_SLOTS;
        p->budget = RETRY_BUDGET;
        p->next = pacers;
        pacers = p;
    }
    if (p != NULL) {
        p->refs++;
        thr_lock(&p->lock); /* the callback is read under it */
        if (p->on_trouble == NULL && on_trouble != NULL) {
            p->on_trouble = on_trouble;
            p->ctx = ctx;
        }
        thr_unlock(&p->lock);
    }
    thr_unlock(&pacers_lock);
    if (p == NULL) return err_mem(err, "the pace of a service");
    *ret_pacer = p;
    return RC_OK;
}

void pacer_close(struct pacer *p)
{
    if (p == NULL) return;
    thr_lock(&pacers_lock);
    bool last = --p->refs == 0;
    if (last) {
        struct pacer **at = &pacers;
        while (*at != p)
            at = &(*at)->next;
        *at = p->next;
    }
    thr_unlock(&pacers_lock);
    if (!last) return;
    ASSERT(p->busy == 0);
    pthread_cond_destroy(&p->turn);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

enum rc retry_run(struct pacer *p, const struct call *c, retry_fn *fn, void *ctx, struct err *err)
{
    struct run r = {.p = p, .c = c, .start_ms = os_mono_ms()};
    for (;;) {
        if (take_slot(&r, err) != RC_OK) return tell(&r, err);
        struct retry_hint hint = {0};
        enum rc rc = fn(ctx, &hint, err);
        r.tries++;
        give_slot(&r, rc, &hint, err);
        if (rc == RC_OK) return RC_OK;
        int64_t ms = 0;
        if (!may_repeat(&r, rc, &hint, &ms)) return tell(&r, err);
        if (r.tries == 1) r.first = *err;
        if (pause_for(&r, ms, err) != RC_OK) return tell(&r, err);
    }
}

void pacer_look(struct pacer *p, struct pacer_state *ret)
{
    thr_lock(&p->lock);
    *ret = (struct pacer_state){.slots = p->slots, .busy = p->busy, .budget = p->budget};
    thr_unlock(&p->lock);
}

/* True, and the pause, when there is to be another try. */
static bool may_repeat(struct run *r, enum rc rc, const struct retry_hint *hint, int64_t *ret_ms)
{
    int64_t deadline_ms = r->c != NULL ? r->c->deadline_ms : 0;
    if ((rc != RC_AGAIN && rc != RC_BUSY) || hint->final) return false;
    if (deadline_ms == 0 && r->tries >= RETRY_TRIES) return false;
    if (hint->at_once && r->at_once < AT_ONCE_MAX) {
        r->at_once++;
        *ret_ms = 0;
        return deadline_ms == 0 || os_mono_ms() < deadline_ms;
    }
    uint64_t bound = RETRY_BASE_MS;
    for (unsigned i = 1; i < r->tries && bound < RETRY_MAX_MS; i++)
        bound *= 2;
    if (bound > RETRY_MAX_MS) bound = RETRY_MAX_MS;
    /* What the service asks for comes on top of chance, so that not all are back at one moment. */
    int64_t after_ms = hint->after_ms < AFTER_MAX_MS ? hint->after_ms : AFTER_MAX_MS;
    *ret_ms = (int64_t)(bound / 2 + os_random() % (bound / 2 + 1)) + (after_ms > 0 ? after_ms : 0);
    if (deadline_ms != 0 && os_mono_ms() + *ret_ms >= deadline_ms) return false;
    return pay(r->p);
}

static bool pay(struct pacer *p)
{
    if (p == NULL) return true;
    thr_lock(&p->lock);
    bool enough = p->budget >= RETRY_COST;
    if (enough) p->budget -= RETRY_COST;
    thr_unlock(&p->lock);
    return enough;
}

static enum rc pause_for(struct run *r, int64_t ms, struct err *err)
{
    int64_t end_ms = os_mono_ms() + ms, left_ms;
    while ((left_ms = end_ms - os_mono_ms()) > 0) {
        struct err stop;
        if (call_check(r->c, &stop) != RC_OK) {
            *err = stop;
            return stop.rc;
        }
        os_sleep_ms(left_ms < WAIT_MS ? left_ms : WAIT_MS);
    }
    return RC_OK;
}

/* Who has a slot and wants another (a sink that uses the store, credentials that come from the same
 * host) gets it beyond the limit: who waits for himself waits for ever. */
static enum rc take_slot(struct run *r, struct err *err)
{
    struct pacer *p = r->p;
    TRY(call_check(r->c, err));
    if (p == NULL) return RC_OK;
    enum rc rc = RC_OK;
    thr_lock(&p->lock);
    while (p->busy >= p->slots && held == 0) {
        thr_wait(&p->turn, &p->lock, os_mono_ms() + WAIT_MS);
        if ((rc = call_check(r->c, err)) != RC_OK) break;
    }
    if (rc == RC_OK) {
        p->busy++;
        held++;
        r->epoch = p->epoch;
    }
    thr_unlock(&p->lock);
    if (rc != RC_OK) return err_wrap(err, "wait for a turn at '%s'", p->service);
    return RC_OK;
}

static void give_slot(struct run *r, enum rc rc, const struct retry_hint *hint,
                      const struct err *err)
{
    struct pacer *p = r->p;
    if (p == NULL) return;
    bool good = rc == RC_OK || rc == RC_NOT_FOUND || rc == RC_CONFLICT;
    bool bad = (rc == RC_AGAIN || rc == RC_BUSY) && !hint->at_once;
    struct store_trouble over = {0};
    store_trouble_fn *on_trouble = NULL;
    void *ctx = NULL;
    thr_lock(&p->lock);
    ASSERT(p->busy > 0);
    p->busy--;
    held--;
    pace(r, good, hint);
    if (bad) {
        if (p->trouble.count++ == 0) {
            p->trouble_ms = os_mono_ms();
            p->trouble.first = *err;
        }
        p->trouble.last = *err;
    } else if (good && p->trouble.count > 0) {
        over = p->trouble;
        over.elapsed_ms = os_mono_ms() - p->trouble_ms;
        p->trouble.count = 0;
        on_trouble = p->on_trouble;
        ctx = p->ctx;
    }
    pthread_cond_signal(&p->turn);
    thr_unlock(&p->lock);
    if (on_trouble != NULL) on_trouble(ctx, p->service, &over);
}

/* Slots and budget after a try. Tries that were under way together are one burst: it halves the
 * slots once, not once for each of them. */
static void pace(struct run *r, bool good, const struct retry_hint *hint)
{
    struct pacer *p = r->p;
    if (hint->throttled) {
        if (r->epoch != p->epoch) return;
        p->epoch++;
        p->good = 0;
        if (p->slots > 1) p->slots /= 2;
    } else if (good) {
        if (r->tries == 1 && p->budget < RETRY_BUDGET) p->budget++;
        if (p->slots < RETRY_SLOTS && ++p->good >= p->slots) {
            p->slots++;
            p->good = 0;
            pthread_cond_signal(&p->turn);
        }
    }
}

/* How much of a is what b begins with, too, in whole "context: " parts. */
static size_t same_start(const char *a, const char *b)
{
    size_t same = 0;
    for (const char *p = a; (p = strstr(p, ": ")) != NULL; p += 2) {
        size_t size = (size_t)(p - a) + 2;
        if (strncmp(a, b, size) != 0) break;
        same = size;
    }
    return same;
}

/* Add how often and how long it was tried to the text of err. Returns its code. */
static enum rc tell(const struct run *r, struct err *err)
{
    if (r->tries < 2 && !(r->tries == 1 && err->rc == RC_CANCELED && r->first.rc != RC_OK))
        return err->rc;
    struct err last = *err;
    bool other = r->first.rc != RC_OK && strcmp(r->first.text, last.text) != 0;
    int64_t ms = os_mono_ms() - r->start_ms;
    int room = other ? 280 : 420; /* so that neither cause is cut away by the other */
    const char *first = other ? r->first.text + same_start(r->first.text, last.text) : "";
    if (strlen(first) > FIRST_MAX) first += strlen(first) - FIRST_MAX; /* causes stand at the end */
    err_set(err, last.rc, "%.*s (%u %s in %lld.%lld s%s%s)", room, last.text, r->tries,
            r->tries == 1 ? "try" : "tries", (long long)(ms / 1000), (long long)(ms % 1000 / 100),
            other ? "; at first: " : "", first);
    err->sys = last.sys;
    return err->rc;
}
