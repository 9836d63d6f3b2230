/*
 * token.h -- an access token that expires: who fetches another one, and when.
 *
 *   good for a while   everybody takes it
 *   soon to expire     the first caller fetches; the others, and it too when that fails, go on with
 *                      the old one; the next try comes half a minute later
 *   none               the first caller fetches, the others wait and share what came of it, be it a
 *                      failure: ten thousand databases ask once
 *
 * Threads: any.
 */
#ifndef STORE_TOKEN_H
#define STORE_TOKEN_H
#include "base/buf.h"
#include "base/thr.h"

#define TOKEN_EARLY_MS 300000 /* so long before its end a token is replaced, or at half its life   \
                               */

/* Append a token and a \0, and say how long it is good. No lock is held. */
typedef enum rc token_fetch_fn(void *ctx, const struct call *c, struct buf *out,
                               int64_t *ret_life_ms, struct err *err);

struct token {
    token_fetch_fn *fetch; /* [const] */
    void *ctx;             /* [const] */
    pthread_mutex_t lock;
    pthread_cond_t done; /* the end of a fetch */
    bool fetching;       /* [lock] */
    struct buf text;     /* [lock] \0-terminated */
    int64_t expires_ms;  /* [lock] by os_mono_ms; 0: there is no token */
    int64_t renew_ms;    /* [lock] from then on, fetch another one */
    uint64_t fail_count; /* [lock] */
    struct err fail;     /* [lock] of the last fetch that failed */
};

void token_init(struct token *t, token_fetch_fn *fetch, void *ctx);
void token_fini(struct token *t);
/* Append the token and a \0. Fails: as fetch, but never with a code that could be taken for the
 * answer to the request that wants the token: RC_NOT_FOUND and RC_CONFLICT become RC_DENIED;
 * RC_AGAIN what came has expired already; RC_CANCELED; RC_NO_MEM. */
MUST_CHECK enum rc token_get(struct token *t, const struct call *c, struct buf *out,
                             struct err *err);
/* The service refused this one: forget it, if it is still the one in use. */
void token_expired(struct token *t, const char *text);
void token_wipe(struct buf *b); /* for CLEANUP of what holds secrets */
#endif
