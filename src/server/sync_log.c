/* sync_log.c -- see sync_log.h. */
#include "server/sync_log.h"
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/bytes.h"
#include "base/mem.h"

#define BATCH_CACHE_MAX (1u << 20) /* a larger transaction is not worth the others */
#define FRAMES_MIN      20000      /* of a generation, before a new one begins */
#define FRAMES_FACTOR   4          /* ... or so many times the database */
#define FRESH_MIN       1000       /* the same when a new replica asks */
#define FRESH_FACTOR    2
#define MARK_BATCHES    64
#define MARK_FRAMES     256 /* so what is too large for memory is not counted again */
#define SAVE_MARKS      16
#define GENS_MAX        4096
#define GENS_MARKED     2          /* newest generations whose marks are kept on disk */
#define EPOCH_S         1735689600 /* 2025: the clock since then fits into 32 bits until 2161 */

struct cached {
    struct cached *next; /* [lock] newest use first */
    unsigned refs;       /* [lock] the list is one */
    struct tenant_batch b;
    struct buf data; /* for each page 4 bytes of number, and the page */
};
struct big { /* a transaction that is too large for memory, unpacked in a file without a name */
    unsigned refs; /* [lock] the log is one */
    int fd;
    struct tenant_batch b;
};
struct record { /* in that file, and in memory */
    uint8_t number[4], page[SYNC_PAGE_SIZE];
};
struct unpack {
    int fd;
    uint32_t count;
};
struct mark {              /* a place to start counting from */
    uint64_t txid, frames; /* frames of the generation up to and with txid */
};
struct gen {
    uint32_t number;
    uint64_t base, tag; /* tag of the base's transaction; 0: the log did not have it */
    uint64_t frames;    /* closed: all of them */
    bool closed;
    struct mark *marks; /* ascending */
    size_t count, cap;
};
struct sync_log {
    struct tenant_extra extra; /* first */
    const struct tenants_ops *ops;
    struct tenants *ts;
    struct tenant *t;
    pthread_mutex_t lock;
    const char *dir;      /* for large transactions; NULL: none */
    struct cached *cache; /* [lock] */
    struct big *big;      /* [lock] the last one */

    pthread_mutex_t gens_lock; /* before lock; held while the log is counted */
    struct gen *gens;          /* [gens_lock] and all below; ascending numbers without holes */
    size_t count, cap;
    bool loaded, checked;
    struct mark end; /* of the last generation, as far as it was counted */
    uint32_t end_pages;
    size_t unsaved;       /* marks */
    uint32_t last_number; /* ever given out, as far as is known */
};
struct collect {
    struct cached *c; /* NULL: do not */
    tenant_page_fn *fn;
    void *ctx;
};
struct place {             /* of a frame */
    uint64_t txid, before; /* its transaction, and the frames before that */
};
struct frames { /* being written */
    uint64_t at, from, to;
    uint32_t page; /* of the transaction, from 0 */
    struct buf *out;
};

static void free_extra(struct tenant_extra *x);
static void unref(struct sync_log *l, struct cached *c);
static struct cached *take_cached(struct sync_log *l, uint64_t txid);
static void put_cached(struct sync_log *l, struct cached *c);
static struct big *take_big(struct sync_log *l, uint64_t txid);
static void unref_big(struct sync_log *l, struct big *g);
static enum rc make_big(struct sync_log *l, const struct call *call, uint64_t txid,
                        struct big **ret, struct err *err);
static enum rc unpack_page(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                           struct err *err);
static enum rc collect_page(void *ctx, const struct tenant_batch *b, uint32_t pgno,
                            const void *page, struct err *err);
static enum rc replay(const struct cached *c, tenant_page_fn *fn, void *ctx, struct err *err);
static enum rc head_of(struct sync_log *l, const struct call *call, uint64_t txid,
                       struct tenant_batch *ret, struct err *err);
static enum rc tag_of(struct sync_log *l, const struct call *call, uint64_t txid, uint64_t *ret,
                      struct err *err);
static enum rc load(struct sync_log *l, const struct call *call, struct err *err);
static enum rc check_base(struct sync_log *l, const struct call *call, bool *ret_same,
                          struct err *err);
static enum rc parse(struct sync_log *l, const struct buf *text, struct err *err);
static enum rc parse_gen(struct sync_log *l, const json_t *o, struct err *err);
static enum rc save(struct sync_log *l, struct err *err);
static enum rc put_gen(const struct gen *g, bool marks, struct buf *out, struct err *err);
static void forget(struct sync_log *l);
static enum rc begin(struct sync_log *l, const struct call *call, uint64_t base, struct err *err);
static enum rc cut(struct sync_log *l, uint64_t tag, struct err *err);
static enum rc add_gen(struct sync_log *l, const struct gen *g, struct err *err);
static enum rc advance(struct sync_log *l, const struct call *call, uint64_t newest,
                       struct err *err);
static enum rc add_mark(struct gen *g, const struct mark *end, bool *ret_added, struct err *err);
static enum rc find_gen(struct sync_log *l, uint32_t number, struct gen **ret, struct err *err);
static enum rc find_frame(struct sync_log *l, const struct call *call, struct gen *g,
                          uint64_t frame, struct place *ret, struct err *err);
static enum rc put_batch(struct sync_log *l, const struct call *call, uint64_t txid,
                         struct frames *f, struct err *err);
static enum rc put_part(const struct big *g, struct frames *f, struct err *err);
static enum rc put_frame(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                         struct err *err);

enum rc sync_log_of(const struct tenants_ops *ops, struct tenants *ts, struct tenant *t,
                    const char *dir, struct sync_log **ret_l, struct err *err)
{
    struct tenant_extra *x = atomic_load(&t->extra);
    if (x == NULL) {
        struct sync_log *l = mem_calloc(1, sizeof *l);
        if (l == NULL) return err_mem(err, "what replicas follow");
        *l = (struct sync_log){.extra.free = free_extra, .ops = ops, .ts = ts, .t = t, .dir = dir};
        pthread_mutex_init(&l->lock, NULL);
        pthread_mutex_init(&l->gens_lock, NULL);
        if (atomic_compare_exchange_strong(&t->extra, &x, &l->extra))
            x = &l->extra;
        else
            sync_log_free(l); /* another was first */
    }
    *ret_l = (struct sync_log *)x;
    return RC_OK;
}

void sync_log_free(struct sync_log *l)
{
    if (l == NULL) return;
    for (struct cached *c = l->cache, *next; c != NULL; c = next) {
        next = c->next;
        unref(l, c);
    }
    if (l->big != NULL) unref_big(l, l->big);
    forget(l);
    mem_free(l->gens);
    pthread_mutex_destroy(&l->gens_lock);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

enum rc sync_log_batch(struct sync_log *l, const struct call *call, uint64_t txid,
                       struct tenant_batch *ret, tenant_page_fn *fn, void *ctx, struct err *err)
{
    struct cached *c = take_cached(l, txid);
    if (c != NULL) {
        enum rc rc = fn != NULL ? replay(c, fn, ctx, err) : RC_OK;
        *ret = c->b;
        unref(l, c);
        return rc;
    }
    struct big *g = fn == NULL ? take_big(l, txid) : NULL;
    if (g != NULL) {
        *ret = g->b;
        unref_big(l, g);
        return RC_OK;
    }
    struct collect col = {.fn = fn, .ctx = ctx};
    col.c = mem_calloc(1, sizeof *col.c); /* without memory: not kept */
    enum rc rc = l->ops->batch(l->ts, l->t, txid, call, ret, collect_page, &col, err);
    if (col.c == NULL) return rc;
    col.c->refs = 1;
    col.c->b = *ret;
    if (rc == RC_OK)
        put_cached(l, col.c);
    else
        unref(l, col.c);
    return rc;
}

enum rc sync_log_info(struct sync_log *l, const struct call *call, uint64_t newest,
                      uint32_t *ret_number, struct err *err)
{
    thr_lock(&l->gens_lock);
    enum rc rc = l->loaded ? RC_OK : load(l, call, err);
    if (rc == RC_OK && l->count == 0) rc = begin(l, call, newest, err);
    if (rc == RC_OK) rc = advance(l, call, newest, err);
    if (rc == RC_NOT_FOUND || rc == RC_CONFLICT) { /* replicas cannot go on from where they are */
        forget(l);
        rc = begin(l, call, newest, err);
    }
    uint64_t most = (uint64_t)FRESH_FACTOR * l->end_pages;
    if (rc == RC_OK && l->end.frames > (most > FRESH_MIN ? most : FRESH_MIN)) {
        uint64_t tag;
        rc = tag_of(l, call, l->end.txid, &tag, err);
        if (rc == RC_OK) rc = cut(l, tag, err);
        if (rc == RC_OK) rc = save(l, err);
    }
    if (rc == RC_OK) *ret_number = l->gens[l->count - 1].number;
    thr_unlock(&l->gens_lock);
    return rc;
}

enum rc sync_log_base(struct sync_log *l, const struct call *call, uint32_t number,
                      uint64_t *ret_txid, struct err *err)
{
    struct gen *g = NULL;
    thr_lock(&l->gens_lock);
    enum rc rc = l->loaded ? RC_OK : load(l, call, err);
    if (rc == RC_OK) rc = find_gen(l, number, &g, err);
    if (rc == RC_OK) *ret_txid = g->base;
    thr_unlock(&l->gens_lock);
    return rc;
}

enum rc sync_log_frames(struct sync_log *l, const struct call *call, uint64_t newest,
                        const struct sync_range *range, struct buf *out, uint32_t *ret_number,
                        bool *ret_final, struct err *err)
{
    struct gen *g = NULL;
    struct place at = {0};
    struct frames f = {.from = range->from, .out = out};
    thr_lock(&l->gens_lock);
    enum rc rc = l->loaded ? RC_OK : load(l, call, err);
    if (rc == RC_OK && newest > 0 && l->count > 0) rc = advance(l, call, newest, err);
    if (rc == RC_OK) rc = find_gen(l, range->number, &g, err);
    if (rc == RC_OK) {
        uint64_t there = g->closed ? g->frames : l->end.frames;
        f.to =
            range->to - range->from > SYNC_FRAMES_MAX ? range->from + SYNC_FRAMES_MAX : range->to;
        *ret_final = g->closed || f.to <= there + 1;
        if (f.to > there + 1) f.to = there + 1;
        *ret_number = l->gens[l->count - 1].number;
        if (f.from > there + 1 && (newest > 0 || g->closed))
            rc = err_set(err, RC_CONFLICT,
                         "generation %" PRIu32 " has %" PRIu64 " frames, not %" PRIu64
                         ": this replica follows another database. Delete it and begin anew",
                         range->number, there, f.from - 1);
        else if (f.from < f.to)
            rc = find_frame(l, call, g, f.from, &at, err);
    }
    thr_unlock(&l->gens_lock);
    if (rc != RC_OK || f.from >= f.to) return rc;
    for (f.at = at.before + 1; f.at < f.to; at.txid++)
        TRY(put_batch(l, call, at.txid, &f, err));
    return RC_OK;
}

static void free_extra(struct tenant_extra *x)
{
    sync_log_free((struct sync_log *)x);
}

/* ---- Transactions in memory ---- */

static void unref(struct sync_log *l, struct cached *c)
{
    thr_lock(&l->lock);
    bool last = --c->refs == 0;
    thr_unlock(&l->lock);
    if (!last) return;
    buf_fini(&c->data);
    mem_free(c);
}

static struct cached *take_cached(struct sync_log *l, uint64_t txid)
{
    struct cached **at = &l->cache, *c;
    thr_lock(&l->lock);
    while ((c = *at) != NULL && c->b.txid != txid)
        at = &c->next;
    if (c != NULL) {
        *at = c->next;
        c->next = l->cache;
        l->cache = c;
        c->refs++;
    }
    thr_unlock(&l->lock);
    return c;
}

/* Takes over the caller's count. Two may have fetched the same: the second is let go. */
static void put_cached(struct sync_log *l, struct cached *c)
{
    struct cached *drop = NULL, **at;
    bool whole = c->data.size == (size_t)c->b.pages * (4 + c->b.page_size);
    thr_lock(&l->lock);
    for (at = &l->cache; *at != NULL; at = &(*at)->next)
        whole &= (*at)->b.txid != c->b.txid;
    if (whole) {
        c->next = l->cache;
        l->cache = c;
        size_t sum = 0;
        for (at = &l->cache; *at != NULL; at = &(*at)->next) {
            sum += sizeof **at + (*at)->data.cap;
            if (sum > SYNC_CACHE_MAX) break;
        }
        drop = *at;
        *at = NULL;
    }
    thr_unlock(&l->lock);
    if (!whole) unref(l, c);
    for (struct cached *next; drop != NULL; drop = next) {
        next = drop->next;
        unref(l, drop);
    }
}

static struct big *take_big(struct sync_log *l, uint64_t txid)
{
    thr_lock(&l->lock);
    struct big *g = l->big;
    if (g != NULL && g->b.txid == txid)
        g->refs++;
    else
        g = NULL;
    thr_unlock(&l->lock);
    return g;
}

static void unref_big(struct sync_log *l, struct big *g)
{
    thr_lock(&l->lock);
    bool last = --g->refs == 0;
    thr_unlock(&l->lock);
    if (!last) return;
    os_close(g->fd);
    mem_free(g);
}

/* Else each answer of some frames would have to unpack all of it. */
static enum rc make_big(struct sync_log *l, const struct call *call, uint64_t txid,
                        struct big **ret, struct err *err)
{
    struct big *g = mem_calloc(1, sizeof *g);
    if (g == NULL) return err_mem(err, "a large transaction");
    *g = (struct big){.refs = 1, .fd = -1};
    enum rc rc = os_open(l->dir, O_RDWR | O_TMPFILE, 0600, &g->fd, err);
    struct unpack u = {.fd = g->fd};
    if (rc == RC_OK) rc = l->ops->batch(l->ts, l->t, txid, call, &g->b, unpack_page, &u, err);
    if (rc != RC_OK) {
        unref_big(l, g);
        return rc;
    }
    thr_lock(&l->lock);
    struct big *old = l->big;
    l->big = g;
    g->refs++;
    thr_unlock(&l->lock);
    if (old != NULL) unref_big(l, old);
    *ret = g;
    return RC_OK;
}

static enum rc unpack_page(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                           struct err *err)
{
    struct unpack *u = ctx;
    struct record r;
    (void)b;
    put_le32(r.number, pgno);
    memcpy(r.page, page, sizeof r.page);
    return os_pwrite(u->fd, &r, sizeof r, (uint64_t)u->count++ * sizeof r, err);
}

static enum rc collect_page(void *ctx, const struct tenant_batch *b, uint32_t pgno,
                            const void *page, struct err *err)
{
    struct collect *col = ctx;
    struct err ignored;
    size_t size = (size_t)b->pages * (4 + b->page_size);
    if (col->c != NULL && size <= BATCH_CACHE_MAX &&
        (col->c->data.cap >= size || buf_reserve(&col->c->data, size, &ignored) == RC_OK)) {
        uint8_t number[4];
        put_le32(number, pgno);
        bool kept = buf_append(&col->c->data, number, sizeof number, &ignored) == RC_OK &&
                    buf_append(&col->c->data, page, b->page_size, &ignored) == RC_OK;
        if (!kept) buf_reset(&col->c->data); /* not whole any more, so not kept */
    }
    return col->fn != NULL ? col->fn(col->ctx, b, pgno, page, err) : RC_OK;
}

static enum rc replay(const struct cached *c, tenant_page_fn *fn, void *ctx, struct err *err)
{
    const uint8_t *at = c->data.data;
    for (uint32_t i = 0; i < c->b.pages; i++, at += 4 + c->b.page_size)
        TRY(fn(ctx, &c->b, get_le32(at), at + 4, err));
    return RC_OK;
}

static enum rc head_of(struct sync_log *l, const struct call *call, uint64_t txid,
                       struct tenant_batch *ret, struct err *err)
{
    TRY(sync_log_batch(l, call, txid, ret, NULL, NULL, err));
    if (ret->page_size == SYNC_PAGE_SIZE) return RC_OK;
    return err_set(err, RC_INVALID,
                   "replicas need pages of %d bytes, those of namespace `%s` have %u",
                   SYNC_PAGE_SIZE, l->t->name, ret->page_size);
}

static enum rc tag_of(struct sync_log *l, const struct call *call, uint64_t txid, uint64_t *ret,
                      struct err *err)
{
    struct tenant_batch b = {0};
    enum rc rc = head_of(l, call, txid, &b, err);
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    *ret = rc == RC_OK ? b.tag : 0;
    l->end_pages = rc == RC_OK ? b.page_count : 0;
    return RC_OK;
}

/* ---- sync.json ---- */

static enum rc load(struct sync_log *l, const struct call *call, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    bool same = false;
    forget(l);
    enum rc rc = l->ops->kept(l->ts, l->t, &text, err);
    if (rc == RC_OK) rc = parse(l, &text, err);
    if (rc == RC_OK) rc = check_base(l, call, &same, err);
    if (rc == RC_CORRUPT || (rc == RC_OK && !same)) forget(l);
    if (rc != RC_OK && rc != RC_NOT_FOUND && rc != RC_CORRUPT) return rc;
    l->loaded = true;
    return RC_OK;
}

/* Is the log still the one that was counted? */
static enum rc check_base(struct sync_log *l, const struct call *call, bool *ret_same,
                          struct err *err)
{
    *ret_same = l->count > 0;
    if (l->count == 0) return RC_OK;
    const struct gen *g = &l->gens[l->count - 1];
    uint64_t tag;
    TRY(tag_of(l, call, g->base, &tag, err));
    *ret_same = tag == g->tag;
    l->end = (struct mark){.txid = g->base};
    if (g->count > 0) l->end = g->marks[g->count - 1];
    return RC_OK;
}

static enum rc parse(struct sync_log *l, const struct buf *text, struct err *err)
{
    json_error_t where;
    json_t *o = json_loadb((const char *)text->data, text->size, 0, &where);
    if (o == NULL) return err_set(err, RC_CORRUPT, "sync.json: %s", where.text);
    const json_t *list = json_object_get(o, "generations");
    enum rc rc = RC_OK;
    for (size_t i = 0; i < json_array_size(list) && rc == RC_OK; i++)
        rc = parse_gen(l, json_array_get(list, i), err);
    json_decref(o);
    return rc;
}

static enum rc parse_gen(struct sync_log *l, const json_t *o, struct err *err)
{
    const char *tag = json_string_value(json_object_get(o, "tag"));
    const json_t *number = json_object_get(o, "number"), *frames = json_object_get(o, "frames");
    const json_t *marks = json_object_get(o, "marks");
    struct gen g = {.number = (uint32_t)json_integer_value(number),
                    .base = (uint64_t)json_integer_value(json_object_get(o, "base")),
                    .tag = tag != NULL ? strtoull(tag, NULL, 16) : 0,
                    .frames = (uint64_t)json_integer_value(frames),
                    .closed = frames != NULL};
    bool follows = l->count == 0 ||
                   (l->gens[l->count - 1].number + 1 == g.number && l->gens[l->count - 1].closed);
    if (g.number == 0 || g.base == 0 || !follows)
        return err_set(err, RC_CORRUPT, "sync.json makes no sense");
    TRY(add_gen(l, &g, err));
    struct gen *last = &l->gens[l->count - 1];
    struct mark before = {.txid = g.base};
    for (size_t i = 0; i < json_array_size(marks); i++) {
        const json_t *m = json_array_get(marks, i);
        struct mark mark = {.txid = (uint64_t)json_integer_value(json_array_get(m, 0)),
                            .frames = (uint64_t)json_integer_value(json_array_get(m, 1))};
        if (mark.txid <= before.txid || mark.frames <= before.frames)
            return err_set(err, RC_CORRUPT, "sync.json makes no sense");
        before = mark;
        bool added;
        TRY(add_mark(last, &mark, &added, err));
    }
    return RC_OK;
}

/* After a failure what is on disk counts. */
static enum rc save(struct sync_log *l, struct err *err)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    enum rc rc = buf_printf(&out, err, "{\"generations\":[");
    for (size_t i = 0; i < l->count && rc == RC_OK; i++) {
        if (i > 0) rc = buf_append(&out, ",", 1, err);
        if (rc == RC_OK) rc = put_gen(&l->gens[i], i + GENS_MARKED >= l->count, &out, err);
    }
    if (rc == RC_OK) rc = buf_printf(&out, err, "]}\n");
    if (rc == RC_OK) rc = l->ops->keep(l->ts, l->t, &out, err);
    if (rc != RC_OK) forget(l);
    l->unsaved = 0;
    return rc;
}

static enum rc put_gen(const struct gen *g, bool marks, struct buf *out, struct err *err)
{
    TRY(buf_printf(out, err,
                   "\n{\"number\":%" PRIu32 ",\"base\":%" PRIu64 ",\"tag\":\"%016" PRIx64 "\"",
                   g->number, g->base, g->tag));
    if (g->closed) TRY(buf_printf(out, err, ",\"frames\":%" PRIu64, g->frames));
    if (marks && g->count > 0) {
        TRY(buf_printf(out, err, ",\"marks\":["));
        for (size_t i = 0; i < g->count; i++)
            TRY(buf_printf(out, err, "%s[%" PRIu64 ",%" PRIu64 "]", i > 0 ? "," : "",
                           g->marks[i].txid, g->marks[i].frames));
        TRY(buf_append(out, "]", 1, err));
    }
    return buf_append(out, "}", 1, err);
}

static void forget(struct sync_log *l)
{
    for (size_t i = 0; i < l->count; i++)
        mem_free(l->gens[i].marks);
    l->count = 0;
    l->loaded = l->checked = false;
    l->end = (struct mark){0};
    l->unsaved = 0;
}

/* ---- Generations ---- */

/* The first one of this log. */
static enum rc begin(struct sync_log *l, const struct call *call, uint64_t base, struct err *err)
{
    struct gen g = {.base = base};
    int64_t s = os_now_ms() / 1000 - EPOCH_S;
    g.number = s > l->last_number && s < UINT32_MAX ? (uint32_t)s : l->last_number + 1;
    TRY(tag_of(l, call, base, &g.tag, err));
    TRY(add_gen(l, &g, err));
    l->end = (struct mark){.txid = base};
    l->loaded = true;
    return save(l, err);
}

/* End the last one here and begin the next; to be saved before anybody is told. */
static enum rc cut(struct sync_log *l, uint64_t tag, struct err *err)
{
    struct gen *g = &l->gens[l->count - 1];
    struct gen next = {.number = g->number + 1, .base = l->end.txid, .tag = tag};
    g->closed = true;
    g->frames = l->end.frames;
    enum rc rc = add_gen(l, &next, err);
    if (rc != RC_OK) {
        g->closed = false;
        return rc;
    }
    l->end = (struct mark){.txid = next.base};
    return RC_OK;
}

static enum rc add_gen(struct sync_log *l, const struct gen *g, struct err *err)
{
    if (l->count == GENS_MAX) { /* who follows the oldest still, has to begin anew */
        mem_free(l->gens[0].marks);
        memmove(l->gens, l->gens + 1, --l->count * sizeof *l->gens);
    }
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 4 : 2 * l->cap;
        void *more = mem_realloc(l->gens, cap * sizeof *l->gens);
        if (more == NULL) return err_mem(err, "a generation");
        l->gens = more;
        l->cap = cap;
    }
    l->gens[l->count++] = *g;
    if (g->number > l->last_number) l->last_number = g->number;
    return RC_OK;
}

/* Count what came since. A failure leaves what was counted before it. */
static enum rc advance(struct sync_log *l, const struct call *call, uint64_t newest,
                       struct err *err)
{
    bool news = false, added;
    enum rc rc = RC_OK;
    /* Later, it is a request that was overtaken by another. */
    if (!l->checked && newest < l->end.txid)
        return err_set(err, RC_CONFLICT, "the log ends before what replicas were given of it");
    l->checked = true;
    while (rc == RC_OK && l->end.txid < newest) {
        struct tenant_batch b;
        rc = head_of(l, call, l->end.txid + 1, &b, err);
        if (rc != RC_OK) break;
        struct mark end = {.txid = b.txid, .frames = l->end.frames + b.pages};
        rc = add_mark(&l->gens[l->count - 1], &end, &added, err);
        if (rc != RC_OK) break;
        l->end = end;
        l->end_pages = b.page_count;
        if (added) l->unsaved++;
        uint64_t most = (uint64_t)FRAMES_FACTOR * b.page_count;
        if (end.frames <= (most > FRAMES_MIN ? most : FRAMES_MIN)) continue;
        rc = cut(l, b.tag, err);
        news |= rc == RC_OK;
    }
    struct err ignored;
    if (news || l->unsaved >= SAVE_MARKS) {
        enum rc saved = save(l, rc == RC_OK ? err : &ignored);
        if (rc == RC_OK) rc = saved;
    }
    return rc;
}

/* If it is far enough from the one before. */
static enum rc add_mark(struct gen *g, const struct mark *end, bool *ret_added, struct err *err)
{
    struct mark last = {.txid = g->base};
    if (g->count > 0) last = g->marks[g->count - 1];
    *ret_added = false;
    if (end->txid < last.txid + MARK_BATCHES && end->frames < last.frames + MARK_FRAMES)
        return RC_OK;
    if (g->count == g->cap) {
        size_t cap = g->cap == 0 ? 16 : 2 * g->cap;
        void *more = mem_realloc(g->marks, cap * sizeof *g->marks);
        if (more == NULL) return err_mem(err, "places in the log");
        g->marks = more;
        g->cap = cap;
    }
    g->marks[g->count++] = *end;
    *ret_added = true;
    return RC_OK;
}

static enum rc find_gen(struct sync_log *l, uint32_t number, struct gen **ret, struct err *err)
{
    if (l->count == 0 || number < l->gens[0].number || number - l->gens[0].number >= l->count)
        return err_set(err, RC_CONFLICT,
                       "namespace `%s` has no generation %" PRIu32
                       ": this replica follows another database, one that was deleted or replaced. "
                       "Delete it and begin anew",
                       l->t->name, number);
    *ret = &l->gens[number - l->gens[0].number];
    return RC_OK;
}

/* Counts from the last mark before it; older generations get their marks by that. */
static enum rc find_frame(struct sync_log *l, const struct call *call, struct gen *g,
                          uint64_t frame, struct place *ret, struct err *err)
{
    struct mark at = {.txid = g->base};
    size_t low = 0, high = g->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (g->marks[middle].frames < frame)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0) at = g->marks[low - 1];
    for (;;) {
        struct tenant_batch b;
        bool added;
        TRY(head_of(l, call, at.txid + 1, &b, err));
        if (at.frames + b.pages >= frame) break;
        at = (struct mark){.txid = b.txid, .frames = at.frames + b.pages};
        if (g->count == 0 || at.txid > g->marks[g->count - 1].txid)
            TRY(add_mark(g, &at, &added, err));
    }
    *ret = (struct place){.txid = at.txid + 1, .before = at.frames};
    return RC_OK;
}

static enum rc put_batch(struct sync_log *l, const struct call *call, uint64_t txid,
                         struct frames *f, struct err *err)
{
    struct tenant_batch b;
    f->page = 0;
    TRY(head_of(l, call, txid, &b, err));
    if (l->dir == NULL || (size_t)b.pages * sizeof(struct record) <= BATCH_CACHE_MAX)
        return sync_log_batch(l, call, txid, &b, put_frame, f, err);
    struct big *g = take_big(l, txid);
    if (g == NULL) TRY(make_big(l, call, txid, &g, err));
    enum rc rc = put_part(g, f, err);
    unref_big(l, g);
    return rc;
}

static enum rc put_part(const struct big *g, struct frames *f, struct err *err)
{
    uint64_t first = f->at, end = first + g->b.pages;
    if (f->at < f->from) f->at = f->from;
    while (f->at < f->to && f->at < end) {
        struct record r;
        size_t got;
        uint64_t i = f->at - first;
        TRY(os_pread(g->fd, &r, sizeof r, i * sizeof r, &got, err));
        if (got < sizeof r) return err_set(err, RC_IO, "an unpacked transaction is cut");
        f->page = (uint32_t)i;
        TRY(put_frame(f, &g->b, get_le32(r.number), r.page, err));
    }
    f->at = end;
    return RC_OK;
}

/* Salts and checksums are the replica's own. */
static enum rc put_frame(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                         struct err *err)
{
    struct frames *f = ctx;
    uint8_t head[SYNC_FRAME_SIZE - SYNC_PAGE_SIZE] = {0};
    bool last = ++f->page == b->pages;
    uint64_t at = f->at++;
    if (at < f->from || at >= f->to) return RC_OK;
    put_be32(head, pgno);
    put_be32(head + 4, last ? b->page_count : 0);
    TRY(buf_append(f->out, head, sizeof head, err));
    return buf_append(f->out, page, SYNC_PAGE_SIZE, err);
}
