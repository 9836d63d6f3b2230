/*
 * tenants_place.c -- the places of engines that may be open at once, and who waits for one; see
 * tenants_intern.h.
 *
 *   place_take    a free place, or that of an open tenant that nobody uses
 *   otherwise     who may wait goes into a queue, and is called when it is worth asking again: a
 *                 place was given back, a tenant is not in use any more, or its own tenant is open
 *
 * Who was called asks before all that come anew. A call is a hint: somebody may have used the
 * tenant again, and who finds nothing gets its old turn in the queue back. While somebody waits, a
 * thread looks every few milliseconds for what no hint has told: limits, clients that have gone,
 * and tenants that are in use all the time. Such a one does not let new requests in for a moment
 * (its door is shut: they wait, too), so that those at work end and another tenant gets its place.
 * What cannot end so quickly, an open transaction or a WebSocket, keeps it; then it is left alone
 * for a while.
 *
 * Locks: places.lock is a leaf; fn is called without any.
 */
#include <stdio.h>
#include <string.h>
#include "node/tenants_intern.h"

#define TICK_MS       10
#define RESIDE_MS     10   /* so long one stays open at least while others wait: some requests */
#define SHUT_AFTER_MS 20   /* so long one is open before its door is shut */
#define SHUT_MS       50   /* so long it stays shut */
#define ALONE_MS      1000 /* before that is done again, if it was in vain */
#define WAITING_MAX   4096 /* requests; each has been read, and none has a thread */
#define DRAINS_MAX    64   /* tenants that are closed and not whole in the store, at the least */
#define DRAINS_MS     10000

struct blocked { /* a thread that waits for a place */
    struct tenant_place p;
    pthread_mutex_t lock;
    pthread_cond_t called;
    bool go; /* [lock] */
};

static void go_on(struct tenant_place *p);
static bool take_now(struct tenants *ts, int64_t reside_ms);
static enum rc queue(struct tenants *ts, const char *name, struct tenant_place *p, struct err *err);
static bool lets_in(struct tenants *ts, const char *name);
static enum rc too_many(const struct tenants *ts, struct err *err);
static unsigned drains_max(const struct tenants *ts);
static enum rc wait_for_drains(struct tenants *ts, struct err *err);
static bool close_one(struct tenants *ts, int64_t reside_ms);
static bool unused(const struct slot *s, int64_t now_ms, int64_t reside_ms);
static void *keep_places(void *arg);
static void call_some(struct tenants *ts, const char *name, int64_t now_ms);
static void look_around(struct tenants *ts, int64_t now_ms);
static void shut_doors(struct tenants *ts, int64_t now_ms, unsigned count);
static void reopen_doors(struct tenants *ts, int64_t now_ms, unsigned *ret_unused,
                         unsigned *ret_shut);

enum rc places_start(struct tenants *ts, struct err *err)
{
    TRY(thr_start(&ts->places.thread, "places", keep_places, ts, err));
    ts->places.runs = true;
    return RC_OK;
}

void places_stop(struct tenants *ts)
{
    struct places *ps = &ts->places;
    if (!ps->runs) return;
    thr_lock(&ps->lock);
    ps->stop = true;
    pthread_cond_signal(&ps->cond);
    thr_unlock(&ps->lock);
    pthread_join(ps->thread, NULL);
    ps->runs = false;
    ASSERT(ps->head == NULL);
}

enum rc place_take(struct tenants *ts, const char *name, struct tenant_place *p, struct err *err)
{
    if (p == NULL) {
        if (!take_now(ts, 0)) return too_many(ts, err);
        enum rc rc = wait_for_drains(ts, err);
        if (rc != RC_OK) place_give(ts);
        return rc;
    }
    const struct places *ps = &ts->places;
    bool turn = p->state != TENANT_PLACE_NEW ||
                (atomic_load(&ps->count) == 0 && atomic_load(&ps->called) == 0);
    if (turn && atomic_load(&ts->draining) <= drains_max(ts) && take_now(ts, RESIDE_MS))
        return RC_OK;
    return place_wait(ts, name, p, err);
}

void place_give(struct tenants *ts)
{
    atomic_fetch_sub(&ts->open, 1);
    places_call(ts);
}

enum rc tenants_open_wait(struct tenants *ts, const char *name, struct tenant **ret_t,
                          struct err *err)
{
    struct blocked b = {.lock = PTHREAD_MUTEX_INITIALIZER};
    b.p = (struct tenant_place){.fn = go_on, .deadline_ms = os_mono_ms() + TENANTS_PLACE_MS};
    thr_cond_init(&b.called);
    enum rc rc;
    while ((rc = tenants_open_soon(ts, name, &b.p, ret_t, err)) == RC_AGAIN) {
        thr_lock(&b.lock);
        while (!b.go)
            thr_wait(&b.called, &b.lock, 0);
        b.go = false;
        thr_unlock(&b.lock);
    }
    pthread_cond_destroy(&b.called);
    pthread_mutex_destroy(&b.lock);
    return rc;
}

enum rc place_wait(struct tenants *ts, const char *name, struct tenant_place *p, struct err *err)
{
    if (p->gone != NULL && atomic_load(p->gone))
        return err_set(err, RC_CANCELED, "the client has gone");
    if (p->state == TENANT_PLACE_LATE || os_mono_ms() >= p->deadline_ms) return too_many(ts, err);
    char copy[AUTH_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%s", name);
    enum rc rc = queue(ts, name, p, err);
    /* Who opened it, or its door, before it was in the queue has not called it. */
    if (rc == RC_AGAIN && lets_in(ts, copy)) places_call_for(ts, copy);
    return rc;
}

void places_call(struct tenants *ts)
{
    struct places *ps = &ts->places;
    if (atomic_load(&ps->count) == 0) return;
    thr_lock(&ps->lock);
    struct tenant_place *p = ps->head;
    if (p != NULL) {
        ps->head = p->next;
        if (ps->head == NULL) ps->end = &ps->head;
        p->state = TENANT_PLACE_CALLED;
        atomic_fetch_add(&ps->called, 1);
        atomic_fetch_sub(&ps->count, 1);
    }
    thr_unlock(&ps->lock);
    if (p != NULL) p->fn(p);
}

void places_came(struct tenants *ts, bool in_vain)
{
    atomic_fetch_sub(&ts->places.called, 1);
    if (in_vain) places_call(ts);
}

void places_call_for(struct tenants *ts, const char *name)
{
    if (atomic_load(&ts->places.count) > 0) call_some(ts, name, 0);
}

bool place_is_free_with(const struct slot *s, int64_t now_ms)
{
    return atomic_load(&s->ts->places.count) > 0 && unused(s, now_ms, RESIDE_MS);
}

/* Who has waited gets in. */
bool place_door_is_shut(const struct slot *s, const struct tenant_place *p)
{
    if (p != NULL && p->state != TENANT_PLACE_NEW) return false;
    return s->shut_until_ms != 0 && os_mono_ms() < s->shut_until_ms;
}

static void go_on(struct tenant_place *p)
{
    struct blocked *b = (struct blocked *)p;
    thr_lock(&b->lock);
    b->go = true;
    pthread_cond_signal(&b->called);
    thr_unlock(&b->lock);
}

/* ---- to take one ---- */

static bool take_now(struct tenants *ts, int64_t reside_ms)
{
    /* It never counts more than may be open, or another one would take a free place for taken. */
    unsigned open = atomic_load(&ts->open);
    while (open < ts->opts.open_max)
        if (atomic_compare_exchange_weak(&ts->open, &open, open + 1)) return true;
    return close_one(ts, reside_ms);
}

/* In the order of their first asking: who was called in vain is in front again. */
static enum rc queue(struct tenants *ts, const char *name, struct tenant_place *p, struct err *err)
{
    struct places *ps = &ts->places;
    thr_lock(&ps->lock);
    unsigned count = atomic_load(&ps->count);
    bool fits = p->state != TENANT_PLACE_NEW || count < WAITING_MAX;
    if (fits) {
        struct tenant_place **at = &ps->head;
        if (p->state == TENANT_PLACE_NEW) {
            p->turn = ++ps->turns;
            at = ps->end;
        }
        while (*at != NULL && (*at)->turn < p->turn)
            at = &(*at)->next;
        p->next = *at;
        *at = p;
        if (p->next == NULL) ps->end = &p->next;
        p->name = name;
        if (count == 0) pthread_cond_signal(&ps->cond);
        atomic_fetch_add(&ps->count, 1);
    }
    thr_unlock(&ps->lock); /* from here it may be gone */
    if (fits) return err_set(err, RC_AGAIN, "it waits until one database less is in use");
    return err_set(err, RC_BUSY, "%u databases are open and in use, and %u requests wait already",
                   ts->opts.open_max, count);
}

static bool lets_in(struct tenants *ts, const char *name)
{
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&sh->lock);
    const struct slot *s = tenants_find(sh, name);
    bool yes = s != NULL && s->state == SLOT_OPEN && !s->wanted && !place_door_is_shut(s, NULL);
    thr_unlock(&sh->lock);
    return yes;
}

static enum rc too_many(const struct tenants *ts, struct err *err)
{
    if (atomic_load(&ts->draining) > drains_max(ts))
        return err_set(err, RC_BUSY, "the store is too slow for the logs of %u databases",
                       drains_max(ts));
    return err_set(err, RC_BUSY, "%u databases are open and in use, more may not be",
                   ts->opts.open_max);
}

/* Closed tenants cost memory and descriptors until the store has their logs, or they are parked. */
static unsigned drains_max(const struct tenants *ts)
{
    return ts->opts.open_max > DRAINS_MAX ? ts->opts.open_max : DRAINS_MAX;
}

static enum rc wait_for_drains(struct tenants *ts, struct err *err)
{
    int64_t end_ms = os_mono_ms() + DRAINS_MS;
    while (atomic_load(&ts->draining) > drains_max(ts)) {
        if (os_mono_ms() >= end_ms) return too_many(ts, err);
        os_sleep_ms(1);
    }
    return RC_OK;
}

/* Close the one that was not used for longest; its place is the caller's. */
static bool close_one(struct tenants *ts, int64_t reside_ms)
{
    for (;;) {
        char name[AUTH_NAME_MAX + 1] = "";
        int64_t oldest = INT64_MAX, now = os_mono_ms();
        for (int i = 0; i < TENANTS_SHARDS; i++) {
            struct shard *sh = &ts->shards[i];
            thr_lock(&sh->lock);
            for (const struct slot *s = sh->slots; s != NULL; s = s->next) {
                if (!unused(s, now, reside_ms) || s->used_ms >= oldest) continue;
                oldest = s->used_ms;
                memcpy(name, s->t.name, sizeof name);
            }
            thr_unlock(&sh->lock);
        }
        if (name[0] == '\0') return false;
        struct shard *sh = tenants_shard(ts, name);
        thr_lock(&sh->lock);
        struct slot *s = tenants_find(sh, name);
        bool still = s != NULL && unused(s, now, reside_ms);
        if (still) s->state = SLOT_CLOSING;
        thr_unlock(&sh->lock);
        if (!still) continue; /* somebody was faster */
        s->counted = false;
        tenants_close(s);
        return true;
    }
}

static bool unused(const struct slot *s, int64_t now_ms, int64_t reside_ms)
{
    return s->state == SLOT_OPEN && s->refs == 0 && !s->wanted &&
           now_ms - s->opened_ms >= reside_ms;
}

/* ---- the thread ---- */

static void *keep_places(void *arg)
{
    struct tenants *ts = arg;
    struct places *ps = &ts->places;
    thr_lock(&ps->lock);
    while (!ps->stop) {
        if (ps->head == NULL) {
            thr_wait(&ps->cond, &ps->lock, 0);
            continue;
        }
        thr_unlock(&ps->lock);
        os_sleep_ms(TICK_MS);
        int64_t now = os_mono_ms();
        call_some(ts, NULL, now);
        look_around(ts, now);
        thr_lock(&ps->lock);
    }
    thr_unlock(&ps->lock);
    return NULL;
}

/* Those who wait for this tenant; name NULL: those whose time is over, or whose client has gone. */
static void call_some(struct tenants *ts, const char *name, int64_t now_ms)
{
    struct places *ps = &ts->places;
    struct tenant_place *list = NULL, **end = &list;
    thr_lock(&ps->lock);
    struct tenant_place **at = &ps->head;
    for (struct tenant_place *p; (p = *at) != NULL;) {
        bool late = now_ms >= p->deadline_ms || (p->gone != NULL && atomic_load(p->gone));
        if (name != NULL ? strcmp(p->name, name) != 0 : !late) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        *end = p;
        end = &p->next;
        p->state = name != NULL ? TENANT_PLACE_OPEN : TENANT_PLACE_LATE;
        atomic_fetch_sub(&ps->count, 1);
    }
    ps->end = at;
    *end = NULL;
    thr_unlock(&ps->lock);
    for (struct tenant_place *next; list != NULL; list = next) {
        next = list->next;
        list->fn(list);
    }
}

static void look_around(struct tenants *ts, int64_t now_ms)
{
    unsigned free_count = 0, shut = 0, open = atomic_load(&ts->open), max = ts->opts.open_max;
    reopen_doors(ts, now_ms, &free_count, &shut);
    if (open < max) free_count += max - open;
    if (atomic_load(&ts->draining) > drains_max(ts)) return;
    unsigned waiting = atomic_load(&ts->places.count), shut_max = max / 4 + 1;
    for (unsigned i = 0; i < free_count && i < waiting; i++)
        places_call(ts);
    if (free_count > 0 || waiting == 0 || shut >= shut_max) return;
    if (waiting < shut_max) shut_max = waiting;
    if (shut < shut_max) shut_doors(ts, now_ms, shut_max - shut);
}

/* Also counts, while it is there. */
static void reopen_doors(struct tenants *ts, int64_t now_ms, unsigned *ret_unused,
                         unsigned *ret_shut)
{
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        struct shard *sh = &ts->shards[i];
        char name[AUTH_NAME_MAX + 1];
        bool again = true;
        while (again) {
            again = false;
            thr_lock(&sh->lock);
            for (struct slot *s = sh->slots; s != NULL && !again; s = s->next) {
                if (s->shut_until_ms == 0 || s->shut_until_ms > now_ms) continue;
                s->shut_until_ms = 0;
                s->alone_until_ms = now_ms + ALONE_MS;
                memcpy(name, s->t.name, sizeof name);
                again = true;
            }
            for (const struct slot *s = sh->slots; s != NULL && !again; s = s->next) {
                *ret_unused += unused(s, now_ms, RESIDE_MS);
                *ret_shut += s->state == SLOT_OPEN && s->shut_until_ms != 0;
            }
            thr_unlock(&sh->lock);
            if (again) places_call_for(ts, name);
        }
    }
}

static void shut_doors(struct tenants *ts, int64_t now_ms, unsigned count)
{
    unsigned first = ts->places.next_shard++;
    for (unsigned i = 0; i < TENANTS_SHARDS && count > 0; i++) {
        struct shard *sh = &ts->shards[(first + i) % TENANTS_SHARDS];
        thr_lock(&sh->lock);
        for (struct slot *s = sh->slots; s != NULL && count > 0; s = s->next) {
            if (s->state != SLOT_OPEN || s->shut_until_ms != 0) continue;
            if (now_ms < s->opened_ms + SHUT_AFTER_MS || now_ms < s->alone_until_ms) continue;
            s->shut_until_ms = now_ms + SHUT_MS;
            count--;
        }
        thr_unlock(&sh->lock);
    }
}
