/* waits.c -- see waits.h. */
#include "node/waits.h"
#include <string.h>

static void tell(struct tenant_wait *list, enum rc rc, const struct err *err);

void waits_init(struct waits *ws)
{
    *ws = (struct waits){.tail = &ws->head};
    pthread_mutex_init(&ws->lock, NULL);
}

void waits_fini(struct waits *ws)
{
    ASSERT(ws->head == NULL);
    pthread_mutex_destroy(&ws->lock);
}

void waits_add(struct waits *ws, struct tenant_wait *w)
{
    w->next = NULL;
    w->txid = 0;
    thr_lock(&ws->lock);
    w->ticket = atomic_load(&ws->wanted) + 1;
    *ws->tail = w;
    ws->tail = &w->next;
    atomic_store(&ws->wanted, w->ticket);
    thr_unlock(&ws->lock);
}

uint64_t waits_wanted(struct waits *ws)
{
    return atomic_load(&ws->wanted);
}

bool waits_urgent(struct waits *ws)
{
    return atomic_load(&ws->wanted) > atomic_load(&ws->captured);
}

bool waits_any(struct waits *ws)
{
    thr_lock(&ws->lock);
    bool any = ws->head != NULL;
    thr_unlock(&ws->lock);
    return any;
}

void waits_captured(struct waits *ws, uint64_t ticket, uint64_t txid)
{
    thr_lock(&ws->lock);
    uint64_t before = atomic_load(&ws->captured);
    for (struct tenant_wait *w = ws->head; w != NULL && w->ticket <= ticket; w = w->next)
        if (w->ticket > before) w->txid = txid;
    if (ticket > before) atomic_store(&ws->captured, ticket);
    thr_unlock(&ws->lock);
}

void waits_forget(struct waits *ws)
{
    thr_lock(&ws->lock);
    if (ws->head != NULL && ws->head->ticket <= atomic_load(&ws->captured))
        atomic_store(&ws->captured, ws->head->ticket - 1);
    thr_unlock(&ws->lock);
}

void waits_stored(struct waits *ws, uint64_t txid)
{
    const struct err none = {0};
    thr_lock(&ws->lock);
    uint64_t captured = atomic_load(&ws->captured);
    struct tenant_wait *list = NULL, **tail = &list;
    for (struct tenant_wait *w; (w = ws->head) != NULL; tail = &w->next) {
        if (w->ticket > captured || w->txid > txid) break;
        ws->head = w->next;
        w->next = NULL;
        *tail = w;
    }
    if (ws->head == NULL) ws->tail = &ws->head;
    thr_unlock(&ws->lock);
    tell(list, RC_OK, &none);
}

void waits_note(struct waits *ws, const char *what, const struct err *err)
{
    thr_lock(&ws->lock);
    if (err != NULL) {
        ws->failure = *err;
        err_wrap(&ws->failure, "%s", what);
    } else {
        ws->failure.rc = RC_OK;
    }
    thr_unlock(&ws->lock);
}

int64_t waits_expire(struct waits *ws, int64_t now_ms)
{
    struct err err;
    struct tenant_wait *late = NULL, **late_tail = &late;
    int64_t next_ms = INT64_MAX;
    thr_lock(&ws->lock);
    for (struct tenant_wait **at = &ws->head; *at != NULL;) {
        struct tenant_wait *w = *at;
        if (w->deadline_ms != 0 && w->deadline_ms <= now_ms) {
            *at = w->next;
            w->next = NULL;
            *late_tail = w;
            late_tail = &w->next;
            continue;
        }
        if (w->deadline_ms != 0 && w->deadline_ms < next_ms) next_ms = w->deadline_ms;
        at = &w->next;
    }
    ws->tail = &ws->head;
    while (*ws->tail != NULL)
        ws->tail = &(*ws->tail)->next;
    if (ws->failure.rc != RC_OK)
        err_set(&err, RC_CANCELED, "%s", ws->failure.text);
    else
        err_set(&err, RC_CANCELED, "the store does not answer: no answer yet");
    thr_unlock(&ws->lock);
    tell(late, RC_CANCELED, &err);
    return next_ms;
}

void waits_fail_all(struct waits *ws, enum rc rc, const char *text)
{
    struct err err;
    thr_lock(&ws->lock);
    struct tenant_wait *list = ws->head;
    ws->head = NULL;
    ws->tail = &ws->head;
    thr_unlock(&ws->lock);
    err_set(&err, rc, "%s", text);
    tell(list, rc, &err);
}

/* Each may be gone as soon as it was told. */
static void tell(struct tenant_wait *list, enum rc rc, const struct err *err)
{
    while (list != NULL) {
        struct tenant_wait *w = list;
        list = w->next;
        w->fn(w, rc, err);
    }
}
