/*
 * batons.h -- streams between two requests over HTTP.
 *
 * A baton is a text for the client that says which stream its next request belongs to, sealed with
 * HMAC-SHA256 under a key that outlives the process. Two kinds:
 *   clean   the stream has no state but stored SQL, which the baton carries in itself: nothing is
 *           kept here, it never expires, and a restart does not matter;
 *   live    a transaction is open, or there are settings, temporary tables or much stored SQL: the
 *           session waits here, until its time is over. Each answer has a new baton; the one
 *           before is void.
 *
 * Threads: any.
 */
#ifndef SERVER_BATONS_H
#define SERVER_BATONS_H
#include "server/session.h"

#define BATON_KEY_SIZE  32
#define BATON_CLEAN_MAX 4096 /* bytes of stored SQL in a clean one */

struct batons;
struct batons_opts {
    uint8_t key[BATON_KEY_SIZE];
    int64_t txn_idle_ms; /* with a transaction open; 0: 10 s */
    int64_t idle_ms;     /* with other state; 0: 1 h */
    size_t live_max;     /* 0: 100000 */
    /* For a session whose time is over, after session_fini: release its tenant. */
    void (*release)(void *ctx, struct tenant *t);
    void *ctx;
};
MUST_CHECK enum rc batons_new(const struct batons_opts *opts, struct batons **ret_b,
                              struct err *err);
void batons_free(struct batons *b); /* ends all that waits */
/* Put a session to rest and make its baton, appended with a NUL. *ret_kept: the session is the
 * batons' now; else it is still the caller's, to be freed. Fails: RC_BUSY live_max; RC_NO_MEM. */
MUST_CHECK enum rc batons_give(struct batons *b, struct session *s, struct buf *out, bool *ret_kept,
                               struct err *err);
/* The same in two steps, when the baton must be told before it is known what the stream will be:
 * the baton of a live one, and later the session for it, which is not the caller's any more in any
 * case, or NULL: there is none. One of the two must come; `tenant` lives until then. A session
 * without any state is not kept, only what it has stored. Fails: as batons_give. */
struct baton_id {
    uint64_t id, seq;
};
MUST_CHECK enum rc batons_promise(struct batons *b, const char *tenant, struct baton_id *ret_id,
                                  struct buf *out, struct err *err);
void batons_keep(struct batons *b, const struct baton_id *id, struct session *s);
/* To wait until a promised stream is there: the asker's, zeroed but for what is In, alive until
 * batons_take returns something else than RC_AGAIN. */
struct baton_wait {
    /* In: */
    /* Ask again, with the same w. Once after each RC_AGAIN; by any thread, also before batons_take
     * has returned; must be quick. */
    void (*fn)(struct baton_wait *w);
    const atomic_bool *gone; /* true: it does not want to wait any more; may be NULL */
    int64_t deadline_ms;     /* it waits so long at most; os_mono_ms */
    /* Private: */
    struct baton_wait *next;
    struct live *live;
    bool over;
};
/* What a baton stands for, of this tenant: a session that waited here (*ret_s, the caller's now,
 * its tenant counted), or NULL and in *ret_stored and *ret_last what one without state had. For one
 * that is promised w waits, one for each; w NULL: nobody.
 * Fails: RC_NOT_FOUND with sql_err: STREAM_NOT_FOUND not one of ours, or used before;
 * STREAM_EXPIRED its time was over, the process was another, or it is still promised after the
 * wait; RC_AGAIN promised: w->fn will be called, or was, and nothing of the asker's may be touched;
 * RC_NO_MEM. */
MUST_CHECK enum rc batons_take(struct batons *b, const char *tenant, const char *baton,
                               struct baton_wait *w, struct session **ret_s,
                               struct stored *ret_stored, struct sql_last *ret_last,
                               struct sql_error *sql_err, struct err *err);
/* End those whose time is over, and waits. Call now and then. */
void batons_tick(struct batons *b);
/* All of a tenant's, because it goes; NULL: of all tenants. Also what is promised by now. */
void batons_drop_tenant(struct batons *b, const char *tenant);
size_t batons_live(struct batons *b);
int64_t batons_ttl_ms(const struct batons *b, const struct session *s); /* 0: for ever */
#endif
