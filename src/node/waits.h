/*
 * waits.h -- who waits until what was committed before is in the store, of one database.
 *
 *   waits_add        gives a ticket; whoever has committed something before has it covered
 *   waits_wanted     the newest ticket, read by a capture before it looks at the WAL
 *   waits_captured   ... and told by it afterwards: up to that ticket all is in this TXID
 *   waits_stored     the store has that TXID: those whose tickets are covered are told
 *
 * So however many wait, they share one capture and one upload.
 *
 * Threads: any. Nobody is told with the lock held.
 */
#ifndef NODE_WAITS_H
#define NODE_WAITS_H
#include "base/thr.h"
#include "server/tenant.h"

struct waits {
    pthread_mutex_t lock;
    struct tenant_wait *head, **tail;  /* [lock] in the order of their tickets */
    struct err failure;                /* [lock] why it takes so long; RC_OK: not known */
    _Atomic uint64_t wanted, captured; /* tickets; written under the lock */
};
void waits_init(struct waits *ws);
void waits_fini(struct waits *ws); /* nobody may wait any more */
void waits_add(struct waits *ws, struct tenant_wait *w);
uint64_t waits_wanted(struct waits *ws);
bool waits_urgent(struct waits *ws); /* somebody's ticket is not captured yet */
bool waits_any(struct waits *ws);
void waits_captured(struct waits *ws, uint64_t ticket, uint64_t txid);
/* The TXIDs that were told do not count any more: capture again. */
void waits_forget(struct waits *ws);
void waits_stored(struct waits *ws, uint64_t txid);
/* Keep this for those whose time passes; NULL: it works again. */
void waits_note(struct waits *ws, const char *what, const struct err *err);
/* Tell those whose time has passed. Returns the next deadline; INT64_MAX: none. */
int64_t waits_expire(struct waits *ws, int64_t now_ms);
void waits_fail_all(struct waits *ws, enum rc rc, const char *text);
#endif
