/* tenants_log.c -- what replicas read of a tenant's log; see tenants_intern.h. */
#include <stdio.h>
#include "base/buf.h"
#include "base/mem.h"
#include "fmt/ltx.h"
#include "log/restore.h"
#include "node/tenants_intern.h"

#define HELD_MAX  (64u << 20) /* a larger file is fetched twice: to check it, and for its pages */
#define KEPT_MAX  (4u << 20)
#define KEPT_NAME "sync.json"

struct reading { /* of one LTX file */
    struct ltx_decoder *dec;
    struct buf *held; /* NULL: do not */
    bool too_long, whole;
    struct tenant_batch *b;
    tenant_page_fn *fn; /* NULL: count the pages */
    void *ctx;
};

static enum rc read_staged(const struct task *task, uint64_t txid, struct buf *held,
                           struct err *err);
static enum rc read_pages(struct reading *r, const struct log *lg, const struct call *call,
                          const struct buf *held, struct err *err);
static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err);
static enum rc decode(struct reading *r, const void *data, size_t size, struct err *err);
static void take_header(struct tenant_batch *b, const struct ltx_header *h);
static void kept_path(const struct tenants *ts, const struct tenant *t, char ret_path[OS_PATH_MAX]);

uint64_t tenants_commits(struct tenants *ts, const char *name)
{
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&sh->lock);
    struct slot *s = tenants_find(sh, name);
    uint64_t commits = s != NULL && s->state == SLOT_OPEN
                           ? atomic_load_explicit(&s->t.commits, memory_order_acquire)
                           : 0;
    thr_unlock(&sh->lock);
    return commits;
}

/* A batch that is in the store never changes, and while it waits here as well, its bytes are the
 * same. */
enum rc tenants_batch(struct tenants *ts, struct tenant *t, uint64_t txid, const struct call *call,
                      struct tenant_batch *ret, tenant_page_fn *fn, void *ctx, struct err *err)
{
    struct task *task;
    TRY(slot_task((struct slot *)t, &task, err));
    const struct log *lg = task_log(task);
    CLEANUP(buf_fini) struct buf held = BUF_INIT;
    struct tenant_batch b = {.txid = txid};
    struct reading r = {.held = &held, .b = &b};
    struct err ignored;
    (void)ts;
    enum rc rc = RC_OK;
    if (read_staged(task, txid, &held, &ignored) == RC_OK) {
        r.held = NULL;
        rc = read_pages(&r, NULL, call, &held, err);
    } else {
        rc = read_pages(&r, lg, call, NULL, err);
    }
    if (rc != RC_OK) return err_wrap(err, "transaction %llu", (unsigned long long)txid);
    *ret = b;
    if (fn == NULL) return RC_OK;
    struct reading again = {.b = &b, .fn = fn, .ctx = ctx};
    return read_pages(&again, lg, call, r.too_long ? NULL : &held, err);
}

/*
 * From what is here, if that is the very state: what was committed up to the second look is in this
 * transaction still, so nothing came between. Else from the log.
 */
enum rc tenants_image_file(struct tenants *ts, struct tenant *t, uint64_t txid,
                           const struct call *call, char ret_path[OS_PATH_MAX], struct err *err)
{
    struct slot *s = (struct slot *)t;
    struct restore_result res;
    struct err ignored;
    struct task_place place;
    uint64_t now = 0;
    tenants_tmp(ts, "", ret_path);
    slot_place(s, &place);
    if (txid == 0 || (place.known && place.staged == txid)) {
        TRY(slot_copy(s, ret_path, err));
        if (txid == 0) return RC_OK;
        int64_t end_ms = os_mono_ms() + TENANTS_STORE_MS;
        if (slot_wait_stored(s, end_ms, &now, &ignored) == RC_OK && now == txid) return RC_OK;
        TRY(os_unlink(ret_path, err));
    }
    const struct restore_opts opts = {
        .target = {.kind = PLAN_TXID, .txid = txid}, .out_path = ret_path, .mode = 0600};
    struct task *task;
    TRY(slot_task(s, &task, err));
    enum rc rc = restore_run(task_log(task), call, &opts, &res, err);
    return rc == RC_OK ? rc : err_wrap(err, "image of namespace `%s`", t->name);
}

enum rc tenants_keep(struct tenants *ts, struct tenant *t, const struct buf *text, struct err *err)
{
    char path[OS_PATH_MAX];
    kept_path(ts, t, path);
    return os_write_file(path, text->data, text->size, 0600, err);
}

enum rc tenants_kept(struct tenants *ts, struct tenant *t, struct buf *out, struct err *err)
{
    char path[OS_PATH_MAX];
    kept_path(ts, t, path);
    return os_read_file(path, KEPT_MAX, out, err);
}

static enum rc read_staged(const struct task *task, uint64_t txid, struct buf *held,
                           struct err *err)
{
    char path[OS_PATH_MAX];
    task_staged_path(task, txid, path);
    enum rc rc = os_read_file(path, HELD_MAX, held, err);
    if (rc == RC_OK && held->size < STATE_FOOTER_SIZE)
        rc = err_set(err, RC_CORRUPT, "'%s' is cut", path);
    if (rc == RC_OK)
        held->size -= STATE_FOOTER_SIZE;
    else
        buf_reset(held);
    return rc;
}

/* From memory, or from the log. */
static enum rc read_pages(struct reading *r, const struct log *lg, const struct call *call,
                          const struct buf *held, struct err *err)
{
    char key[STORE_KEY_MAX + 1];
    TRY(ltx_decoder_new(&r->dec, err));
    enum rc rc;
    if (held != NULL) {
        rc = take_bytes(r, held->data, held->size, err);
    } else {
        log_key(lg, 0, r->b->txid, r->b->txid, key);
        rc = store_get(lg->store, call, key, NULL, take_bytes, r, err);
    }
    if (rc == RC_OK) rc = decode(r, NULL, 0, err);
    if (rc == RC_OK && !r->whole) rc = err_set(err, RC_CORRUPT, "the file is cut");
    ltx_decoder_free(r->dec);
    return rc;
}

static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    struct reading *r = ctx;
    if (r->held != NULL && r->held->size + size > HELD_MAX) {
        buf_fini(r->held);
        r->held = NULL;
        r->too_long = true;
    }
    if (r->held != NULL) TRY(buf_append(r->held, data, size, err));
    return size == 0 ? RC_OK : decode(r, data, size, err);
}

/* size 0: there is no more. */
static enum rc decode(struct reading *r, const void *data, size_t size, struct err *err)
{
    const uint8_t *at = data;
    struct ltx_event ev;
    do {
        size_t taken = size;
        TRY(ltx_decoder_step(r->dec, at, &taken, &ev, err));
        if (ev.kind == LTX_EV_HEADER) take_header(r->b, &ev.header);
        if (ev.kind == LTX_EV_PAGE && r->fn == NULL) r->b->pages++;
        if (ev.kind == LTX_EV_PAGE && r->fn != NULL)
            TRY(r->fn(r->ctx, r->b, ev.page.pgno, ev.page.data, err));
        if (ev.kind == LTX_EV_END) r->whole = true;
        if (taken > 0) at += taken;
        size -= taken;
    } while (size > 0);
    return RC_OK;
}

/* Files of other programs may have no digest. */
static void take_header(struct tenant_batch *b, const struct ltx_header *h)
{
    b->page_size = h->page_size;
    b->page_count = h->page_count;
    b->tag = (uint64_t)h->timestamp_ms;
    if (h->has_digest) b->tag = h->digest.lo;
    if (b->tag == 0) b->tag = 1; /* 0: not known */
}

static void kept_path(const struct tenants *ts, const struct tenant *t, char ret_path[OS_PATH_MAX])
{
    char folder[OS_PATH_MAX];
    tenants_path(ts, t->name, TENANT_FOLDER, folder);
    snprintf(ret_path, OS_PATH_MAX, "%.*s/" KEPT_NAME, OS_PATH_MAX - 32, folder);
}
