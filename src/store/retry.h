/*
 * retry.h -- trying again, in one place: exponential back-off with jitter, a budget of
 * retries, fewer requests at a time for a service that asks to slow down, deadlines and
 * cancellation.
 *
 * A pacer stands for one service (a host) and is shared by every store of the process that talks to
 * it, so ten thousand databases together are as polite as one. Its parts:
 *
 *   slots     tries under way. Halved by a throttled answer, one more after as many good answers as
 *             there are slots. A try within a try of the same thread does not wait for one.
 *   budget    tokens. A retry takes some, a first try that succeeds gives one back; without tokens
 *             a failure is final. So a service that is down is not asked ten times as often.
 *   trouble   the run of failures since the last success, reported once when it has ended.
 *
 * Threads: any. Calls block: at most until the call's deadline, and when it has none, until
 * RETRY_TRIES tries are used up.
 */
#ifndef STORE_RETRY_H
#define STORE_RETRY_H
#include "store/store.h"

#define RETRY_TRIES   8
#define RETRY_BASE_MS 100   /* the first pause is half of it and some chance, each next doubles */
#define RETRY_MAX_MS  20000 /* bound of one pause; a longer Retry-After is honoured up to 5 min */
#define RETRY_SLOTS   64    /* tries under way at one service, at most */
#define RETRY_BUDGET  500
#define RETRY_COST    5

struct pacer;
/* The pacer of a service ("https://s3.eu-west-1.amazonaws.com"), made when there is none yet.
 * on_trouble and its ctx stay with the pacer until it is gone; the first one given is kept.
 * Fails: RC_NO_MEM. */
MUST_CHECK enum rc pacer_open(const char *service, store_trouble_fn *on_trouble, void *ctx,
                              struct pacer **ret_pacer, struct err *err);
void pacer_close(struct pacer *p); /* NULL is fine */

/* What a try says about its failure, beyond its code. */
struct retry_hint {
    int64_t after_ms; /* the service's Retry-After; 0: none */
    bool throttled;   /* too many requests: lower the number of slots */
    bool at_once;     /* the cause is mended (new credentials, another region): no pause */
    bool final;       /* do not try again, whatever the code */
};
typedef enum rc retry_fn(void *ctx, struct retry_hint *hint, struct err *err);

/* Call fn until it succeeds or fails for good: its code is not RC_AGAIN or RC_BUSY, the tries, the
 * budget or the deadline are used up, or the call is cancelled. A pause that would pass the
 * deadline is not begun. After more than one try the error says how many, for how long, and the
 * first cause if it differs from the last. p may be NULL (tests): no slots, no budget. Fails: fn's
 * last code; RC_CANCELED. */
MUST_CHECK enum rc retry_run(struct pacer *p, const struct call *c, retry_fn *fn, void *ctx,
                             struct err *err);

struct pacer_state { /* for tests, metrics */
    unsigned slots, busy;
    int budget;
};
void pacer_look(struct pacer *p, struct pacer_state *ret);
#endif
