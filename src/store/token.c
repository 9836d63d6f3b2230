/* token.c -- see token.h. */
#include "store/token.h"
#include "base/mem.h"
#include "base/os.h"
#include <string.h>

#define AGAIN_MS 30000 /* pause after a fetch that failed while the old token is good */
#define WAIT_MS  250   /* how often a waiting thread looks whether its call was cancelled */

static enum rc wait_done(struct token *t, const struct call *c, struct err *err);
static enum rc renew(struct token *t, const struct call *c, struct err *err);

void token_init(struct token *t, token_fetch_fn *fetch, void *ctx)
{
    *t = (struct token){.fetch = fetch, .ctx = ctx};
    pthread_mutex_init(&t->lock, NULL);
    thr_cond_init(&t->done);
}

void token_fini(struct token *t)
{
    token_wipe(&t->text);
    pthread_cond_destroy(&t->done);
    pthread_mutex_destroy(&t->lock);
}

enum rc token_get(struct token *t, const struct call *c, struct buf *out, struct err *err)
{
    enum rc rc = RC_OK;
    thr_lock(&t->lock);
    for (;;) {
        int64_t now = os_mono_ms();
        if (now < t->expires_ms && (now < t->renew_ms || t->fetching)) break;
        rc = t->fetching ? wait_done(t, c, err) : renew(t, c, err);
        if (rc != RC_OK) break;
    }
    if (rc == RC_OK) rc = buf_append(out, t->text.data, t->text.size, err);
    thr_unlock(&t->lock);
    return rc;
}

void token_expired(struct token *t, const char *text)
{
    thr_lock(&t->lock);
    if (t->text.size > 0 && strcmp((const char *)t->text.data, text) == 0)
        t->expires_ms = t->renew_ms = 0;
    thr_unlock(&t->lock);
}

void token_wipe(struct buf *b)
{
    if (b->data != NULL) mem_wipe(b->data, b->cap);
    buf_fini(b);
}

/* With the lock: wait for the end of the fetch that is under way. Its failure is ours, too, or each
 * of a thousand waiting threads would go and fail by itself; but not that its caller gave up. */
static enum rc wait_done(struct token *t, const struct call *c, struct err *err)
{
    uint64_t seen = t->fail_count;
    while (t->fetching) {
        TRY(call_check(c, err));
        /* Woken by the end; the limit is for the cancel flag, which can wake nobody. */
        if (!thr_wait(&t->done, &t->lock, os_mono_ms() + WAIT_MS)) continue;
    }
    if (t->fail_count == seen || os_mono_ms() < t->expires_ms) return RC_OK;
    *err = t->fail;
    return err->rc;
}

/* With the lock, which is released meanwhile. RC_OK also when the old token must do. */
static enum rc renew(struct token *t, const struct call *c, struct err *err)
{
    CLEANUP(token_wipe) struct buf text = BUF_INIT;
    struct err mine = {0};
    int64_t life_ms = 0, begun = os_mono_ms();
    t->fetching = true;
    thr_unlock(&t->lock);
    enum rc rc = t->fetch(t->ctx, c, &text, &life_ms, &mine);
    thr_lock(&t->lock);
    t->fetching = false;
    pthread_cond_broadcast(&t->done);
    int64_t now = os_mono_ms();
    if (rc == RC_OK && begun + life_ms <= now)
        rc = err_set(&mine, RC_AGAIN, "the access token that came has expired already");
    if (rc == RC_OK) {
        struct buf old = t->text;
        t->text = text;
        text = old;
        t->expires_ms = begun + life_ms;
        t->renew_ms = t->expires_ms - (life_ms / 2 < TOKEN_EARLY_MS ? life_ms / 2 : TOKEN_EARLY_MS);
        return RC_OK;
    }
    /* A file that is gone must not look like an object that is gone. */
    if (rc == RC_NOT_FOUND || rc == RC_CONFLICT) rc = mine.rc = RC_DENIED;
    if (rc != RC_CANCELED) {
        t->fail = mine;
        t->fail_count++;
        t->renew_ms = now + AGAIN_MS;
    }
    if (now < t->expires_ms && now < t->renew_ms) return RC_OK;
    *err = mine;
    return rc;
}
