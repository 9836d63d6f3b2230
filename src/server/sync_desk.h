/*
 * sync_desk.h -- what requests of replicas share (api_sync.c, api_pull.c).
 *
 *   may this one replicate? ──► threads of our own: the log, the store ──► wait until the store has
 *   all that was committed before (without a thread) ──► answer, from the log
 *
 * Who waits for news (a long poll) is parked: neither a thread nor its tenant is held. A look at
 * the tenant's commits, ten times a second, wakes it, and its request begins anew.
 */
#ifndef SERVER_SYNC_DESK_H
#define SERVER_SYNC_DESK_H
#include "server/updates.h"
#include "server/server_intern.h"
#include "server/sync_log.h"

enum sync_what { SYNC_INFO, SYNC_EXPORT, SYNC_FRAMES, SYNC_PULL };
struct sync_ask { /* of one request, beside its struct ask */
    struct ask *ask;
    struct sync_log *log; /* the tenant's */
    enum sync_what what;
    struct sync_range range;        /* EXPORT: number; FRAMES */
    struct updates_request request; /* PULL */
    /* The wait for the store: */
    struct tenant_wait wait;
    void (*answer)(struct sync_ask *y); /* with wait.txid, at least 1 */
    bool made;                          /* the database was not there yet */
    enum rc rc;
    struct err err;
    /* The wait for news: */
    struct sync_ask *next; /* [desk's lock] */
    uint64_t seen;         /* commits, before the log was looked at */
    int64_t until_ms;
    bool over;
};

/* Whether these pages may go to who asks: else it is answered. *ret_y: what is to be filled in. */
bool sync_admit(struct ask *a, struct sync_ask **ret_y);
/* Run on a thread that may wait. */
void sync_to_work(struct sync_ask *y, void (*run)(struct crew_job *job));
/* On such a thread: y->log. False: it is answered. */
bool sync_take_log(struct sync_ask *y);
/* y->answer is called on such a thread when the store has what was committed before. */
void sync_wait(struct sync_ask *y);
/* Park until something is committed or until_ms. The request is not the caller's any more. False:
 * there is no time. */
bool sync_park(struct sync_ask *y);
struct call sync_call(const struct sync_ask *y);
void sync_fail(struct sync_ask *y, enum rc rc, const struct err *err);

/* Bytes on their way out: small answers at once, large ones while they are made. */
MUST_CHECK enum rc sync_send(struct sync_ask *y, const char *type, struct err *err);
void sync_send_end(struct sync_ask *y, const char *type, enum rc rc, const struct err *err);

MUST_CHECK enum rc sync_desk_new(struct server *s, struct sync_desk **ret_d, struct err *err);
void sync_desk_tick(struct sync_desk *d);  /* every 100 ms or so */
void sync_desk_close(struct sync_desk *d); /* nobody waits for news any more; NULL is fine */
void sync_desk_free(struct sync_desk *d);  /* after all were answered; NULL is fine */
#endif
