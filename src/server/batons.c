/*
 * batons.c -- see batons.h.
 *
 * Bytes, before base64 (URL alphabet, no padding), little-endian:
 *   clean: 'c' count:u16 rowid:i64 changes:i64 total:i64 { id:i32 size:u32 text }*  mac:16
 *   live:  'l' boot:u64 id:u64 seq:u64                 mac:16
 * The seal covers these bytes and the tenant's name.
 */
#include "server/batons.h"
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <string.h>
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "fmt/base64.h"

#define MAC_SIZE    16
#define LIVE_SIZE   (1 + 8 + 8 + 8)
#define BATON_MAX   (4 * BATON_CLEAN_MAX) /* characters */
#define BUCKETS_MIN 64
#define TXN_IDLE_MS 10000
#define IDLE_MS     3600000
#define LIVE_MAX    100000

struct live {
    struct live *next;
    const char *tenant;      /* of a promise, which has its tenant counted */
    struct session *session; /* NULL: promised, or at rest */
    struct stored stored;    /* at rest: what a clean baton would carry */
    struct sql_last last;
    uint64_t id, seq;
    int64_t until_ms;
    bool kept;
    bool dropped;              /* promised, and its tenant goes */
    struct baton_wait *waiter; /* for the promise; one is enough */
};
struct batons {
    struct batons_opts opts;
    uint64_t boot;
    pthread_mutex_t lock;
    struct live **buckets;    /* [lock] a power of two of them */
    struct baton_wait *waits; /* [lock] those of promises */
    size_t bucket_count, count;
    uint64_t next_id;
    int64_t soonest_ms; /* nothing ends before */
};

static enum rc seal(const struct batons *b, const char *tenant, struct buf *bytes, struct buf *out,
                    struct err *err);
static enum rc unseal(const struct batons *b, const char *tenant, const char *baton,
                      struct buf *bytes, struct sql_error *sql_err, struct err *err);
static enum rc mac_of(const struct batons *b, const char *tenant, const void *data, size_t size,
                      uint8_t mac[MAC_SIZE], struct err *err);
static bool carries(const struct session *s);
static enum rc put_clean(const struct session *s, struct buf *bytes, struct err *err);
static enum rc take_clean(const struct buf *bytes, struct stored *stored, struct sql_last *last,
                          struct err *err);
static enum rc take_live(struct batons *b, const struct buf *bytes, struct baton_wait *w,
                         struct session **ret_s, struct stored *ret_stored,
                         struct sql_last *ret_last, struct sql_error *sql_err, struct err *err);
static struct live **find(struct batons *b, uint64_t id, uint64_t seq);
static enum rc await_kept(struct batons *b, struct live *l, struct baton_wait *w, struct err *err);
static struct baton_wait *take_waiter(struct batons *b, struct live *l);
static void end_waits(struct batons *b, int64_t now_ms);
static enum rc grow(struct batons *b, struct err *err);
static struct live **slot_of(struct batons *b, uint64_t id);
static struct live *pick(struct batons *b, int64_t now_ms, const char *tenant);
static bool is_of(const struct live *l, const char *tenant);
static void end_all(struct batons *b, struct live *list);
static void end_session(struct batons *b, struct session *s);

enum rc batons_new(const struct batons_opts *opts, struct batons **ret_b, struct err *err)
{
    struct batons *b = mem_calloc(1, sizeof *b);
    if (b == NULL) return err_mem(err, "the batons");
    b->opts = *opts;
    if (b->opts.txn_idle_ms == 0) b->opts.txn_idle_ms = TXN_IDLE_MS;
    if (b->opts.idle_ms == 0) b->opts.idle_ms = IDLE_MS;
    if (b->opts.live_max == 0) b->opts.live_max = LIVE_MAX;
    b->boot = os_random();
    b->next_id = os_random();
    b->soonest_ms = INT64_MAX;
    pthread_mutex_init(&b->lock, NULL);
    if (grow(b, err) != RC_OK) {
        batons_free(b);
        return err->rc;
    }
    *ret_b = b;
    return RC_OK;
}

void batons_free(struct batons *b)
{
    if (b == NULL) return;
    ASSERT(b->waits == NULL);
    end_all(b, pick(b, INT64_MAX, NULL));
    pthread_mutex_destroy(&b->lock);
    mem_wipe(b->opts.key, sizeof b->opts.key);
    mem_free(b->buckets);
    mem_free(b);
}

enum rc batons_give(struct batons *b, struct session *s, struct buf *out, bool *ret_kept,
                    struct err *err)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    *ret_kept = false;
    if (carries(s)) {
        TRY(put_clean(s, &bytes, err));
        return seal(b, s->tenant->name, &bytes, out, err);
    }
    struct baton_id id;
    TRY(batons_promise(b, s->tenant->name, &id, out, err));
    batons_keep(b, &id, s);
    *ret_kept = true;
    return RC_OK;
}

enum rc batons_promise(struct batons *b, const char *tenant, struct baton_id *ret_id,
                       struct buf *out, struct err *err)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    uint8_t raw[LIVE_SIZE] = {'l'};
    struct live *l = mem_calloc(1, sizeof *l);
    if (l == NULL) return err_mem(err, "a stream");
    struct baton_id id = {.seq = os_random()};
    l->tenant = tenant;
    l->seq = id.seq;
    l->until_ms = INT64_MAX;
    thr_lock(&b->lock);
    l->id = id.id = b->next_id++;
    enum rc rc = b->count < b->opts.live_max
                     ? grow(b, err)
                     : err_set(err, RC_BUSY, "%zu streams are open already", b->count);
    if (rc == RC_OK) {
        struct live **slot = slot_of(b, id.id);
        l->next = *slot;
        *slot = l;
        b->count++;
    }
    thr_unlock(&b->lock);
    if (rc != RC_OK) {
        mem_free(l);
        return rc;
    }
    put_le64(raw + 1, b->boot);
    put_le64(raw + 9, id.id);
    put_le64(raw + 17, id.seq);
    rc = buf_append(&bytes, raw, sizeof raw, err);
    if (rc == RC_OK) rc = seal(b, tenant, &bytes, out, err);
    if (rc == RC_OK)
        *ret_id = id;
    else
        batons_keep(b, &id, NULL);
    return rc;
}

/* A clean session would keep its tenant open for nothing. */
void batons_keep(struct batons *b, const struct baton_id *id, struct session *s)
{
    bool rests = s != NULL && carries(s);
    int64_t ttl_ms = s != NULL ? batons_ttl_ms(b, s) : 0;
    thr_lock(&b->lock);
    struct live **at = find(b, id->id, id->seq), *l = *at;
    ASSERT(l != NULL && !l->kept);
    struct baton_wait *waiter = take_waiter(b, l);
    bool ends = s == NULL || (l->dropped && !rests);
    if (ends) {
        *at = l->next;
        b->count--;
        mem_free(l);
    } else {
        l->kept = true;
        l->session = rests ? NULL : s;
        l->until_ms = os_mono_ms() + (ttl_ms > 0 ? ttl_ms : b->opts.idle_ms);
        if (l->until_ms < b->soonest_ms) b->soonest_ms = l->until_ms;
    }
    if (rests) {
        l->stored = s->own;
        l->last = s->stream.last;
        s->own = (struct stored){0};
    }
    thr_unlock(&b->lock);
    if (s != NULL && (ends || rests)) end_session(b, s);
    if (waiter != NULL) waiter->fn(waiter);
}

enum rc batons_take(struct batons *b, const char *tenant, const char *baton, struct baton_wait *w,
                    struct session **ret_s, struct stored *ret_stored, struct sql_last *ret_last,
                    struct sql_error *sql_err, struct err *err)
{
    CLEANUP(buf_fini) struct buf bytes = BUF_INIT;
    *ret_s = NULL;
    sql_error_own(sql_err, "", "%s", "");
    TRY(unseal(b, tenant, baton, &bytes, sql_err, err));
    if (bytes.data[0] != 'c')
        return take_live(b, &bytes, w, ret_s, ret_stored, ret_last, sql_err, err);
    enum rc rc = take_clean(&bytes, ret_stored, ret_last, err);
    if (rc != RC_OK) stored_fini(ret_stored);
    return rc;
}

void batons_tick(struct batons *b)
{
    int64_t now = os_mono_ms();
    thr_lock(&b->lock);
    bool due = b->soonest_ms <= now;
    thr_unlock(&b->lock);
    if (due) end_all(b, pick(b, now, NULL));
    end_waits(b, now);
}

void batons_drop_tenant(struct batons *b, const char *tenant)
{
    end_all(b, pick(b, INT64_MAX, tenant));
}

size_t batons_live(struct batons *b)
{
    thr_lock(&b->lock);
    size_t count = b->count;
    thr_unlock(&b->lock);
    return count;
}

int64_t batons_ttl_ms(const struct batons *b, const struct session *s)
{
    if (carries(s)) return 0;
    struct sql_stream *stream = (struct sql_stream *)(uintptr_t)&s->stream; /* only looked at */
    return sql_stream_autocommit(stream) ? b->opts.idle_ms : b->opts.txn_idle_ms;
}

/* ---- Seals ---- */

static enum rc seal(const struct batons *b, const char *tenant, struct buf *bytes, struct buf *out,
                    struct err *err)
{
    uint8_t mac[MAC_SIZE];
    TRY(mac_of(b, tenant, bytes->data, bytes->size, mac, err));
    TRY(buf_append(bytes, mac, sizeof mac, err));
    TRY(base64url_put(out, bytes->data, bytes->size, err));
    return buf_append(out, "", 1, err);
}

static enum rc unseal(const struct batons *b, const char *tenant, const char *baton,
                      struct buf *bytes, struct sql_error *sql_err, struct err *err)
{
    uint8_t mac[MAC_SIZE];
    size_t size = strlen(baton);
    bool ours = size <= BATON_MAX && BASE64URL_BYTES(size) > MAC_SIZE;
    if (ours) TRY(buf_reserve(bytes, BASE64URL_BYTES(size), err));
    if (ours) ours = base64url_get(baton, size, bytes->data);
    if (ours) {
        bytes->size = BASE64URL_BYTES(size) - MAC_SIZE;
        TRY(mac_of(b, tenant, bytes->data, bytes->size, mac, err));
        ours = CRYPTO_memcmp(mac, bytes->data + bytes->size, MAC_SIZE) == 0;
    }
    if (ours) return RC_OK;
    sql_error_own(sql_err, "STREAM_NOT_FOUND", "Received an invalid baton");
    return err_set(err, RC_NOT_FOUND, "a baton that is not one of ours");
}

static enum rc mac_of(const struct batons *b, const char *tenant, const void *data, size_t size,
                      uint8_t mac[MAC_SIZE], struct err *err)
{
    uint8_t inner[32], whole[32];
    unsigned length = 0;
    if (HMAC(EVP_sha256(), b->opts.key, BATON_KEY_SIZE, (const uint8_t *)tenant, strlen(tenant),
             inner, &length) == NULL ||
        HMAC(EVP_sha256(), inner, sizeof inner, data, size, whole, &length) == NULL)
        return err_mem(err, "the seal of a baton");
    memcpy(mac, whole, MAC_SIZE);
    return RC_OK;
}

/* ---- Clean ones ---- */

static bool carries(const struct session *s)
{
    return sql_stream_clean(&s->stream) && s->own.bytes + 8 * s->own.count <= BATON_CLEAN_MAX;
}

static enum rc put_clean(const struct session *s, struct buf *bytes, struct err *err)
{
    uint8_t head[8] = {'c'}, numbers[24];
    head[1] = (uint8_t)s->own.count, head[2] = (uint8_t)(s->own.count >> 8);
    TRY(buf_append(bytes, head, 3, err));
    const struct sql_last *last = &s->stream.last;
    put_le64(numbers, (uint64_t)last->rowid);
    put_le64(numbers + 8, (uint64_t)last->changes);
    put_le64(numbers + 16, (uint64_t)last->total);
    TRY(buf_append(bytes, numbers, sizeof numbers, err));
    for (size_t i = 0; i < s->own.count; i++) {
        const struct stored_sql *sql = &s->own.list[i];
        put_le32(head, (uint32_t)sql->id);
        put_le32(head + 4, (uint32_t)sql->size);
        TRY(buf_append(bytes, head, 8, err));
        TRY(buf_append(bytes, sql->text, sql->size, err));
    }
    return RC_OK;
}

static enum rc take_clean(const struct buf *bytes, struct stored *stored, struct sql_last *last,
                          struct err *err)
{
    size_t at = 3 + 24;
    ASSERT(bytes->size >= at); /* sealed by us */
    last->rowid = (int64_t)get_le64(bytes->data + 3);
    last->changes = (int64_t)get_le64(bytes->data + 11);
    last->total = (int64_t)get_le64(bytes->data + 19);
    for (int left = bytes->data[1] | bytes->data[2] << 8u; left > 0; left--) {
        int32_t id = (int32_t)get_le32(bytes->data + at);
        size_t size = get_le32(bytes->data + at + 4);
        at += 8;
        TRY(stored_set(stored, id, (const char *)bytes->data + at, size, err));
        at += size;
    }
    return RC_OK;
}

/* ---- Live ones ---- */

static enum rc take_live(struct batons *b, const struct buf *bytes, struct baton_wait *w,
                         struct session **ret_s, struct stored *ret_stored,
                         struct sql_last *ret_last, struct sql_error *sql_err, struct err *err)
{
    ASSERT(bytes->size == LIVE_SIZE);
    uint64_t id = get_le64(bytes->data + 9), seq = get_le64(bytes->data + 17);
    thr_lock(&b->lock);
    struct live **at = find(b, id, seq), *found = *at;
    enum rc rc = found != NULL && !found->kept ? await_kept(b, found, w, err) : RC_OK;
    if (rc == RC_OK && found != NULL) {
        *at = found->next;
        b->count--;
    }
    thr_unlock(&b->lock);
    if (rc == RC_AGAIN) return rc; /* from here the asker may be gone */
    if (rc == RC_OK && found != NULL) {
        *ret_s = found->session;
        *ret_stored = found->stored;
        *ret_last = found->last;
        mem_free(found);
        return RC_OK;
    }
    sql_error_own(sql_err, "STREAM_EXPIRED", "%s",
                  rc != RC_OK ? "The stream is busy with a cursor"
                  : get_le64(bytes->data + 1) == b->boot
                      ? "The stream has expired due to inactivity, or this baton was used before"
                      : "The stream was lost when the server was restarted");
    return err_set(err, RC_NOT_FOUND, "a stream that is over");
}

static struct live **find(struct batons *b, uint64_t id, uint64_t seq)
{
    struct live **at = slot_of(b, id);
    while (*at != NULL && ((*at)->id != id || (*at)->seq != seq))
        at = &(*at)->next;
    return at;
}

/* Under the lock. A client may leave a cursor in the middle and come back before we know that it
 * has left. */
static enum rc await_kept(struct batons *b, struct live *l, struct baton_wait *w, struct err *err)
{
    if (w == NULL) return err_set(err, RC_AGAIN, "the stream is busy");
    if (w->over || l->waiter != NULL) return err_set(err, RC_BUSY, "the stream is busy");
    l->waiter = w;
    w->live = l;
    w->next = b->waits;
    b->waits = w;
    return err_set(err, RC_AGAIN, "it waits for its stream");
}

/* Under the lock. NULL: nobody waits. */
static struct baton_wait *take_waiter(struct batons *b, struct live *l)
{
    struct baton_wait *w = l->waiter, **at = &b->waits;
    if (w == NULL) return NULL;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    l->waiter = NULL;
    return w;
}

static void end_waits(struct batons *b, int64_t now_ms)
{
    struct baton_wait *over = NULL;
    thr_lock(&b->lock);
    for (struct baton_wait *w = b->waits, *next; w != NULL; w = next) {
        next = w->next;
        if (now_ms < w->deadline_ms && (w->gone == NULL || !atomic_load(w->gone))) continue;
        (void)take_waiter(b, w->live);
        w->over = true;
        w->next = over;
        over = w;
    }
    thr_unlock(&b->lock);
    for (struct baton_wait *next; over != NULL; over = next) {
        next = over->next;
        over->fn(over);
    }
}

static enum rc grow(struct batons *b, struct err *err)
{
    if (b->count < b->bucket_count) return RC_OK;
    size_t count = b->bucket_count > 0 ? 2 * b->bucket_count : BUCKETS_MIN;
    struct live **buckets = mem_calloc(count, sizeof *buckets);
    if (buckets == NULL) return err_mem(err, "the streams");
    for (size_t i = 0; i < b->bucket_count; i++)
        for (struct live *l = b->buckets[i], *next; l != NULL; l = next) {
            next = l->next;
            l->next = buckets[l->id & (count - 1)];
            buckets[l->id & (count - 1)] = l;
        }
    mem_free(b->buckets);
    b->buckets = buckets;
    b->bucket_count = count;
    return RC_OK;
}

static struct live **slot_of(struct batons *b, uint64_t id)
{
    return &b->buckets[id & (b->bucket_count - 1)];
}

/* Take out those that end until now, or a tenant's; what is promised ends when it comes. What is at
 * rest is no tenant's, as little as a clean baton is. */
static struct live *pick(struct batons *b, int64_t now_ms, const char *tenant)
{
    struct live *list = NULL;
    thr_lock(&b->lock);
    int64_t soonest = INT64_MAX;
    for (size_t i = 0; i < b->bucket_count; i++)
        for (struct live **at = &b->buckets[i]; *at != NULL;) {
            struct live *l = *at;
            bool match = l->kept && l->until_ms <= now_ms;
            if (tenant != NULL) match = match && is_of(l, tenant);
            if (!l->kept && now_ms == INT64_MAX) l->dropped |= tenant == NULL || is_of(l, tenant);
            if (match) {
                *at = l->next;
                l->next = list;
                list = l;
                b->count--;
                continue;
            }
            if (l->until_ms < soonest) soonest = l->until_ms;
            at = &l->next;
        }
    b->soonest_ms = soonest;
    thr_unlock(&b->lock);
    return list;
}

static bool is_of(const struct live *l, const char *tenant)
{
    const char *name = !l->kept ? l->tenant : l->session != NULL ? l->session->tenant->name : "";
    return strcmp(name, tenant) == 0;
}

static void end_all(struct batons *b, struct live *list)
{
    for (struct live *next; list != NULL; list = next) {
        next = list->next;
        if (list->session != NULL) end_session(b, list->session);
        stored_fini(&list->stored);
        mem_free(list);
    }
}

static void end_session(struct batons *b, struct session *s)
{
    struct tenant *tenant = s->tenant;
    session_fini(s);
    mem_free(s);
    b->opts.release(b->opts.ctx, tenant);
}
