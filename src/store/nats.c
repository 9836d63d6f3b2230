/*
 * nats.c -- a store in a bucket of NATS JetStream's object store, as ADR-20 of NATS lays it out, so
 * that Litestream and `nats object` read what is here and write what is read.
 *
 *   stream OBJ_<bucket>, which must exist ("nats object add <bucket>")
 *   $O.<bucket>.C.<nuid>             the object's bytes, 128 KiB a message; nuid differs each time
 *   $O.<bucket>.M.<base64url(key)>   its last message is the object: JSON with name, nuid, size,
 *                                    chunks, digest; "deleted" marks one that is gone
 *
 *   put   chunks, some of them under way at a time; then the JSON, on condition that it follows the
 *         one that was there (Nats-Expected-Last-Subject-Sequence), so creates and replacements are
 *         arbitrated; then the old chunks are purged. A lost answer is no riddle: the JSON that is
 *         there has our nuid or not.
 *   get   all chunks up to the end of the range, kept in memory or a temporary file, until the
 *         digest is verified; so readers see no half, and whole tries are repeated
 *   list  the last JSON of each key, by a consumer of those subjects alone
 *   del   the JSON is purged if it is still the one that was seen, then its chunks. Unlike the
 *         marker that other clients leave, that does not make listings longer for ever.
 *
 * The etag is the sequence number of the JSON's message. A crash in a put can leave chunks that no
 * object names; they cost space only.
 *
 * Litestream's setting `path` has no effect there, and so it has none here: a user who comes over
 * finds his objects.
 *
 * Threads: any.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"
#include "store/hash.h"
#include "store/jet.h"
#include "store/spool.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SIZE    (128u << 10)
#define WINDOW        32           /* chunks under way */
#define DIRECT_CHUNKS 8            /* up to this, asking one by one is cheaper than a consumer */
#define MEMORY_SIZE   (1u << 20)   /* a larger get goes through a temporary file */
#define PIECE_SIZE    (256u << 10) /* what a sink gets at a time */
#define META_MAX      (64u << 10)
#define OBJECTS_MAX   1000000u
#define CHUNKS_MAX    100000000
#define MISSING_TRIES 3
#define PUBLISH_TRIES 16
#define DISCARD_MS    2000
#define NUID_SIZE     22
#define DIGEST_HEAD   "SHA-256="
#define TIME_HEADER   "Litestream-Timestamp"

struct nats {
    struct store base;
    struct jet *jet;
    struct pacer *pacer;
};

/* What is known of an object. */
struct meta {
    uint64_t seq; /* of the message; 0: there is none */
    bool gone;    /* a marker of a deleted one, or none */
    uint64_t size, chunks;
    int64_t mtime_ms;
    char nuid[64];
    uint8_t digest[SHA256_SIZE];
    char name[STORE_KEY_MAX + 1];
};

struct put {
    struct nats *n;
    const struct call *c;
    const char *key;
    const struct store_body *body;
    const struct store_put_opts *opts;
    struct buf subject;
    char nuid[NUID_SIZE + 1];
    uint8_t digest[SHA256_SIZE];
    uint64_t chunks, seq;
    uint32_t chunk_size;
    bool uploaded, asked; /* asked: the JSON was sent, so it may be there */
    bool body_failed;
};

struct get {
    struct nats *n;
    const struct call *c;
    const char *key;
    const struct store_get_opts *opts;
    struct buf subject;
    struct meta meta;
    struct buf bytes;
    struct spool spool;
    struct store_bytes over_bytes;
    struct store_body body; /* what was asked for */
    char missing[64];       /* nuid whose chunks were not all there */
    unsigned missing_count;
};

/* The chunks of an object, one after the other. */
struct source {
    struct get *g;
    struct jet_link *link;
    natsSubscription *sub; /* NULL: asked for one by one */
    natsMsg *msg;
    char subject[320];
    uint64_t next_seq, chunks, pos, end;
    const char *unread;
    size_t unread_size;
    struct hash hash;
};

struct item {
    size_t name;
    uint64_t size, seq;
    int64_t mtime_ms;
};
struct list {
    struct nats *n;
    const struct call *c;
    const char *prefix;
    struct buf items, names;
};

struct del {
    struct nats *n;
    const struct call *c;
    const char *key;
    char nuid[64]; /* of the object whose JSON we have purged */
};

static enum rc nats_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void nats_close(struct store *s);
static enum rc nats_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err);
static enum rc nats_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err);
static enum rc nats_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err);
static enum rc nats_del(struct store *s, const struct call *c, const char *key, struct err *err);

static enum rc run(struct nats *n, const struct call *c, retry_fn *fn, void *ctx, enum store_op op,
                   uint64_t *up, uint64_t *down, struct err *err);
static enum rc meta_subject(struct nats *n, const char *key, struct buf *out, struct err *err);
static enum rc meta_get(struct nats *n, const struct call *c, struct jet_link *link,
                        const char *subject, const char *key, struct meta *ret, struct err *err);
static enum rc meta_parse(natsMsg *msg, struct meta *ret, struct err *err);
static enum rc meta_fields(const json_t *root, struct meta *ret, struct err *err);
static enum rc meta_text(const struct put *p, struct buf *out, struct err *err);
static int json_to_buf(const char *text, size_t size, void *ctx);
static enum rc put_try(void *ctx, struct retry_hint *hint, struct err *err);
static enum rc put_check(const struct put *p, const struct meta *old, struct err *err);
static enum rc upload(struct put *p, struct jet_link *link, struct err *err);
static enum rc upload_chunks(struct put *p, struct jet_link *link, natsSubscription *acks,
                             const char *inbox, struct err *err);
static enum rc ack_take(struct put *p, natsSubscription *acks, struct err *err);
static enum rc publish(struct put *p, struct jet_link *link, const struct meta *old,
                       struct err *err);
static enum rc purge(struct nats *n, const struct call *c, struct jet_link *link,
                     const char *subject, uint64_t seq_max, struct err *err);
static void purge_chunks(struct nats *n, const char *nuid);
static enum rc get_try(void *ctx, struct retry_hint *hint, struct err *err);
static enum rc fetch(struct get *g, struct jet_link *link, struct err *err);
static enum rc fetch_some(struct get *g, struct source *src, struct err *err);
static enum rc source_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err);
static enum rc source_pull(struct source *src, struct err *err);
static enum rc source_missing(struct source *src, struct err *err);
static void source_fini(struct source *src);
static enum rc deliver(struct get *g, store_sink_fn *sink, void *ctx, struct err *err);
static enum rc consume(struct nats *n, const struct call *c, struct jet_link *link,
                       const char *subject, jsDeliverPolicy from, natsSubscription **ret_sub,
                       uint64_t *ret_count, struct err *err);
static void consume_end(natsSubscription *sub);
static enum rc list_try(void *ctx, struct retry_hint *hint, struct err *err);
static enum rc list_take(struct list *l, natsMsg *msg, bool *ret_last, struct err *err);
static int by_name(const void *a, const void *b, void *ctx);
static enum rc del_try(void *ctx, struct retry_hint *hint, struct err *err);
static void nuid_new(char out[NUID_SIZE + 1]);

const struct store_ops store_nats_ops = {
    .type = "nats",
    .caps = STORE_CAP_CREATE | STORE_CAP_CAS | STORE_CAP_TIMESTAMP,
    .open = nats_open,
    .close = nats_close,
    .put = nats_put,
    .get = nats_get,
    .list = nats_list,
    .del = nats_del,
};

static enum rc nats_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    struct nats *n = mem_calloc(1, sizeof *n);
    if (n == NULL) return err_mem(err, "a NATS store");
    enum rc rc = jet_open(set, &n->jet, err);
    if (rc == RC_OK) {
        store_init(&n->base, &store_nats_ops, "%s/%s", jet_server(n->jet), jet_bucket(n->jet));
        rc = pacer_open(jet_server(n->jet), set->conf->on_trouble, set->conf->on_trouble_ctx,
                        &n->pacer, err);
    }
    if (rc == RC_OK)
        *ret_store = &n->base;
    else
        nats_close(&n->base);
    return rc;
}

static void nats_close(struct store *s)
{
    struct nats *n = (struct nats *)s;
    pacer_close(n->pacer);
    jet_close(n->jet);
    mem_free(n);
}

static enum rc nats_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err)
{
    struct put p = {
        .n = (struct nats *)s, .c = c, .key = key, .body = body, .opts = opts, .subject = BUF_INIT};
    uint64_t size = body->size;
    nuid_new(p.nuid);
    enum rc rc = meta_subject(p.n, key, &p.subject, err);
    if (rc == RC_OK) rc = run(p.n, c, put_try, &p, STORE_OP_PUT, &size, NULL, err);
    buf_fini(&p.subject);
    if (rc != RC_OK) {
        /* If the JSON may have got there after all, its chunks must stay. */
        if (p.chunks > 0 && (!p.asked || rc == RC_CONFLICT)) purge_chunks(p.n, p.nuid);
        return rc;
    }
    memcpy(ret_obj->key, key, strlen(key) + 1);
    snprintf(ret_obj->etag, sizeof ret_obj->etag, "%" PRIu64, p.seq);
    ret_obj->size = body->size;
    ret_obj->mtime_ms = opts->timestamp_ms ? opts->timestamp_ms : os_now_ms();
    return RC_OK;
}

static enum rc nats_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err)
{
    struct get g = {.n = (struct nats *)s,
                    .c = c,
                    .key = key,
                    .opts = opts,
                    .subject = BUF_INIT,
                    .bytes = BUF_INIT,
                    .spool = SPOOL_INIT};
    enum rc rc = meta_subject(g.n, key, &g.subject, err);
    if (rc == RC_OK) rc = run(g.n, c, get_try, &g, STORE_OP_GET, NULL, &g.body.size, err);
    if (rc == RC_OK) rc = deliver(&g, sink, ctx, err);
    spool_fini(&g.spool);
    buf_fini(&g.bytes);
    buf_fini(&g.subject);
    return rc;
}

static enum rc nats_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err)
{
    struct list l = {
        .n = (struct nats *)s, .c = c, .prefix = prefix, .items = BUF_INIT, .names = BUF_INIT};
    struct store_obj obj = {0};
    (void)opts;
    enum rc rc = run(l.n, c, list_try, &l, STORE_OP_LIST, NULL, NULL, err);
    const struct item *items = (const struct item *)(void *)l.items.data;
    size_t count = l.items.size / sizeof *items;
    if (count > 0) qsort_r(l.items.data, count, sizeof *items, by_name, &l);
    for (size_t i = 0; i < count && rc == RC_OK; i++) {
        const char *name = (const char *)l.names.data + items[i].name;
        /* Of an object that is replaced meanwhile the server may tell both versions. */
        if (i > 0 && strcmp(name, obj.key) == 0) continue;
        memcpy(obj.key, name, strlen(name) + 1);
        snprintf(obj.etag, sizeof obj.etag, "%" PRIu64, items[i].seq);
        obj.size = items[i].size;
        obj.mtime_ms = items[i].mtime_ms;
        if ((rc = call_check(c, err)) != RC_OK)
            err_wrap(err, "list '%s'", s->name);
        else
            rc = fn(ctx, &obj, err);
    }
    buf_fini(&l.items);
    buf_fini(&l.names);
    return rc;
}

static enum rc nats_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    struct del d = {.n = (struct nats *)s, .c = c, .key = key};
    return run(d.n, c, del_try, &d, STORE_OP_DEL, NULL, NULL, err);
}

/* Try, count, and say where it was. What is left of libnats' memory for this thread goes with the
 * thread. */
static enum rc run(struct nats *n, const struct call *c, retry_fn *fn, void *ctx, enum store_op op,
                   uint64_t *up, uint64_t *down, struct err *err)
{
    enum rc rc = retry_run(n->pacer, c, fn, ctx, err);
    bool ok = rc != RC_AGAIN && rc != RC_BUSY && rc != RC_DENIED;
    store_count(&n->base, op, ok, rc == RC_OK && up ? *up : 0, rc == RC_OK && down ? *down : 0);
    return rc;
}

/* With the padding that base64url has elsewhere, too. */
static enum rc meta_subject(struct nats *n, const char *key, struct buf *out, struct err *err)
{
    TRY(buf_printf(out, err, "$O.%s.M.", jet_bucket(n->jet)));
    size_t start = out->size;
    TRY(base64url_append(out, key, strlen(key), err));
    size_t pad = (4 - (out->size - start) % 4) % 4;
    return buf_append(out, &"=="[2 - pad], pad + 1, err); /* with the 0 */
}

static enum rc meta_get(struct nats *n, const struct call *c, struct jet_link *link,
                        const char *subject, const char *key, struct meta *ret, struct err *err)
{
    jsOptions o;
    jsErrCode code = 0;
    natsMsg *msg = NULL;
    *ret = (struct meta){.gone = true};
    jsOptions_Init(&o);
    o.Wait = jet_wait_ms(n->jet, c);
    TRY(call_check(c, err));
    natsStatus status = js_GetLastMsg(&msg, link->js, jet_stream(n->jet), subject, &o, &code);
    if (status == NATS_NOT_FOUND && (code == 0 || code == JSNoMessageFoundErr)) return RC_OK;
    if (status != NATS_OK) return jet_err(n->jet, err, status, code, "look at '%s'", key);
    enum rc rc = meta_parse(msg, ret, err);
    if (rc == RC_OK) {
        ret->seq = natsMsg_GetSequence(msg);
        if (ret->mtime_ms == 0) ret->mtime_ms = natsMsg_GetTime(msg) / 1000000;
    }
    natsMsg_Destroy(msg);
    return rc == RC_OK ? RC_OK : err_wrap(err, "'%s' in '%s'", key, n->base.name);
}

/* mtime_ms stays 0 when there is no header with a time. */
static enum rc meta_parse(natsMsg *msg, struct meta *ret, struct err *err)
{
    json_error_t bad;
    int size = natsMsg_GetDataLength(msg);
    *ret = (struct meta){.gone = true};
    if (size > (int)META_MAX) return err_set(err, RC_TOO_BIG, "the description of an object");
    json_t *root = json_loadb(natsMsg_GetData(msg), (size_t)size, 0, &bad);
    if (root == NULL) return err_set(err, RC_CORRUPT, "not JSON: %s", bad.text);
    enum rc rc = meta_fields(root, ret, err);
    json_decref(root);
    return rc;
}

static enum rc meta_fields(const json_t *root, struct meta *ret, struct err *err)
{
    static const size_t head = sizeof DIGEST_HEAD - 1;
    struct err ignored;
    size_t got = 0;
    const char *name = json_string_value(json_object_get(root, "name"));
    const char *nuid = json_string_value(json_object_get(root, "nuid"));
    const char *digest = json_string_value(json_object_get(root, "digest"));
    const json_t *size = json_object_get(root, "size"), *chunks = json_object_get(root, "chunks");
    const json_t *options = json_object_get(root, "options");
    const json_t *times = json_object_get(json_object_get(root, "headers"), TIME_HEADER);
    const char *at = json_string_value(json_array_get(times, 0));
    if (name == NULL || nuid == NULL || strlen(nuid) >= sizeof ret->nuid ||
        strpbrk(nuid, ".*> ") != NULL)
        return err_set(err, RC_CORRUPT, "no name or no nuid");
    memcpy(ret->nuid, nuid, strlen(nuid) + 1);
    /* A name that is too long for us, or a link to something else, is no object of ours. */
    if (strlen(name) > STORE_KEY_MAX || json_is_true(json_object_get(root, "deleted")) ||
        json_object_get(options, "link") != NULL)
        return RC_OK;
    memcpy(ret->name, name, strlen(name) + 1);
    ret->size = (uint64_t)json_integer_value(size);
    ret->chunks = (uint64_t)json_integer_value(chunks);
    if (json_integer_value(size) < 0 || json_integer_value(chunks) < 0 ||
        ret->chunks > CHUNKS_MAX || (ret->size > 0) != (ret->chunks > 0))
        return err_set(err, RC_CORRUPT, "bad size or number of chunks");
    if (digest == NULL || strncmp(digest, DIGEST_HEAD, head) != 0 ||
        base64_get(digest + head, ret->digest, sizeof ret->digest, &got, &ignored) != RC_OK ||
        got != SHA256_SIZE)
        return err_set(err, RC_CORRUPT, "no digest");
    if (at == NULL || time_get(at, &ret->mtime_ms, &ignored) != RC_OK) ret->mtime_ms = 0;
    ret->gone = false;
    return RC_OK;
}

static enum rc meta_text(const struct put *p, struct buf *out, struct err *err)
{
    CLEANUP(buf_fini) struct buf digest = BUF_INIT;
    char at[TIME_TEXT_SIZE];
    TRY(buf_printf(&digest, err, DIGEST_HEAD));
    TRY(base64url_append(&digest, p->digest, SHA256_SIZE, err));
    TRY(buf_append(&digest, "=", 2, err));
    /* Readers take the message's time for the zero time. */
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:s, s:{s:i}}", "name", p->key, "bucket",
                  jet_bucket(p->n->jet), "nuid", p->nuid, "size", (json_int_t)p->body->size,
                  "mtime", "0001-01-01T00:00:00Z", "chunks", (json_int_t)p->chunks, "digest",
                  (char *)digest.data, "options", "max_chunk_size", (int)p->chunk_size);
    if (root == NULL)
        return err_set(err, RC_INVALID, "put '%s': keys in '%s' must be UTF-8", p->key,
                       p->n->base.name);
    bool ok = true;
    if (p->opts->timestamp_ms != 0) {
        time_put(p->opts->timestamp_ms, true, at);
        ok = json_object_set_new(root, "headers", json_pack("{s:[s]}", TIME_HEADER, at)) == 0;
    }
    ok = ok && json_dump_callback(root, json_to_buf, out, JSON_COMPACT) == 0;
    json_decref(root);
    return ok ? RC_OK : err_mem(err, "the description of an object");
}

static int json_to_buf(const char *text, size_t size, void *ctx)
{
    struct err ignored;
    return buf_append(ctx, text, size, &ignored) == RC_OK ? 0 : -1;
}

static enum rc put_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct put *p = ctx;
    struct jet_link *link = NULL;
    struct meta old;
    const char *subject = (const char *)p->subject.data;
    TRY(jet_link_get(p->n->jet, p->c, &link, err));
    bool raced = true; /* others write this key, too */
    enum rc rc = RC_OK;
    for (int i = 0; raced && i < PUBLISH_TRIES; i++) {
        raced = false;
        rc = meta_get(p->n, p->c, link, subject, p->key, &old, err);
        if (rc == RC_OK && p->asked && strcmp(old.nuid, p->nuid) == 0) {
            p->seq = old.seq; /* the answer was lost, no more */
            break;
        }
        if (rc == RC_OK) rc = put_check(p, &old, err);
        if (rc != RC_OK) break;
        if (!p->uploaded) rc = upload(p, link, err);
        if (rc == RC_OK) {
            rc = publish(p, link, &old, err);
            raced = rc == RC_CONFLICT;
        }
        if (rc == RC_OK && old.seq != 0 && !old.gone) purge_chunks(p->n, old.nuid);
    }
    hint->final = p->body_failed;
    jet_link_put(p->n->jet, link);
    if (raced) rc = err->rc = RC_AGAIN;
    return rc;
}

static enum rc put_check(const struct put *p, const struct meta *old, struct err *err)
{
    char etag[STORE_ETAG_MAX];
    if (p->opts->if_absent && !old->gone)
        return err_set(err, RC_CONFLICT, "create '%s': it exists", p->key);
    if (p->opts->if_etag == NULL) return RC_OK;
    snprintf(etag, sizeof etag, "%" PRIu64, old->seq);
    if (old->gone) return err_set(err, RC_NOT_FOUND, "replace '%s': there is none", p->key);
    if (strcmp(etag, p->opts->if_etag) == 0) return RC_OK;
    return err_set(err, RC_CONFLICT, "replace '%s': it is version %s by now", p->key, etag);
}

/* All chunks, anew: those of a broken try are purged, since their number must be right. */
static enum rc upload(struct put *p, struct jet_link *link, struct err *err)
{
    natsInbox *inbox = NULL;
    natsSubscription *acks = NULL;
    if (p->chunks > 0) {
        purge_chunks(p->n, p->nuid);
        nuid_new(p->nuid);
    }
    p->chunks = 0;
    p->chunk_size = CHUNK_SIZE;
    if (link->payload_max > 0 && link->payload_max < (int)CHUNK_SIZE)
        p->chunk_size = (uint32_t)link->payload_max;
    natsStatus status = natsInbox_Create(&inbox);
    if (status == NATS_OK) status = natsConnection_SubscribeSync(&acks, link->nc, inbox);
    enum rc rc = status == NATS_OK ? upload_chunks(p, link, acks, inbox, err)
                                   : jet_err(p->n->jet, err, status, 0, "put '%s'", p->key);
    natsSubscription_Destroy(acks);
    natsInbox_Destroy(inbox);
    p->uploaded = rc == RC_OK;
    return rc;
}

static enum rc upload_chunks(struct put *p, struct jet_link *link, natsSubscription *acks,
                             const char *inbox, struct err *err)
{
    CLEANUP(hash_fini) struct hash hash = {0};
    CLEANUP(mem_freep) uint8_t *data = NULL;
    char subject[320];
    uint64_t acked = 0;
    snprintf(subject, sizeof subject, "$O.%s.C.%s", jet_bucket(p->n->jet), p->nuid);
    data = mem_alloc(p->body->size < p->chunk_size ? (size_t)p->body->size : p->chunk_size);
    if (data == NULL) return err_mem(err, "a chunk");
    TRY(hash_begin(&hash, HASH_SHA256, err));
    for (uint64_t off = 0; off < p->body->size;) {
        uint64_t left = p->body->size - off;
        size_t size = left < p->chunk_size ? (size_t)left : p->chunk_size;
        if (call_check(p->c, err) != RC_OK) return err_wrap(err, "put '%s'", p->key);
        enum rc rc = p->body->read(p->body->ctx, off, data, size, err);
        p->body_failed = rc != RC_OK;
        TRY(rc);
        TRY(hash_add(&hash, data, size, err));
        natsStatus status =
            natsConnection_PublishRequest(link->nc, subject, inbox, data, (int)size);
        if (status != NATS_OK) return jet_err(p->n->jet, err, status, 0, "put '%s'", p->key);
        p->chunks++;
        off += size;
        for (; p->chunks - acked >= WINDOW; acked++)
            TRY(ack_take(p, acks, err));
    }
    for (; acked < p->chunks; acked++)
        TRY(ack_take(p, acks, err));
    return hash_end(&hash, p->digest, err);
}

static enum rc ack_take(struct put *p, natsSubscription *acks, struct err *err)
{
    natsMsg *msg = NULL;
    json_error_t bad;
    if (jet_next(p->n->jet, p->c, acks, &msg, err) != RC_OK)
        return err_wrap(err, "put '%s'", p->key);
    bool deaf = natsMsg_IsNoResponders(msg);
    json_t *root = NULL;
    if (!deaf) root = json_loadb(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), 0, &bad);
    natsMsg_Destroy(msg);
    const json_t *error = json_object_get(root, "error");
    const char *text = json_string_value(json_object_get(error, "description"));
    json_int_t code = json_integer_value(json_object_get(error, "err_code"));
    json_int_t status = json_integer_value(json_object_get(error, "code"));
    enum rc rc = RC_OK;
    if (root == NULL || !json_is_integer(json_object_get(root, "seq")) || error != NULL) {
        rc = deaf || root == NULL || status == 503 ? RC_AGAIN : RC_INVALID;
        if (code == JSStreamStoreFailedErr || code == JSInsufficientResourcesErr ||
            code == JSStorageResourcesExceededErr || code == JSMemoryResourcesExceededErr)
            rc = RC_NO_SPACE;
        err_set(err, rc, "put '%s' to '%s': %s", p->key, p->n->base.name,
                text != NULL ? text : "the stream does not take messages");
    }
    json_decref(root);
    return rc;
}

/* RC_CONFLICT: the JSON that was there is no longer `old`; look again. */
static enum rc publish(struct put *p, struct jet_link *link, const struct meta *old,
                       struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    natsMsg *msg = NULL;
    jsPubAck *ack = NULL;
    jsPubOptions o;
    jsErrCode code = 0;
    TRY(meta_text(p, &text, err));
    TRY(call_check(p->c, err));
    jsPubOptions_Init(&o);
    o.MaxWait = jet_wait_ms(p->n->jet, p->c);
    o.ExpectNoMessage = old->seq == 0;
    o.ExpectLastSubjectSeq = old->seq;
    natsStatus status = natsMsg_Create(&msg, (const char *)p->subject.data, NULL,
                                       (const char *)text.data, (int)text.size);
    if (status == NATS_OK) status = natsMsgHeader_Set(msg, "Nats-Rollup", "sub");
    if (status == NATS_OK) {
        p->asked = true;
        status = js_PublishMsg(&ack, link->js, msg, &o, &code);
    }
    if (status == NATS_OK) p->seq = ack->Sequence;
    jsPubAck_Destroy(ack);
    natsMsg_Destroy(msg);
    return status == NATS_OK ? RC_OK : jet_err(p->n->jet, err, status, code, "put '%s'", p->key);
}

/* Messages of a subject, up to and with seq_max; 0: all. */
static enum rc purge(struct nats *n, const struct call *c, struct jet_link *link,
                     const char *subject, uint64_t seq_max, struct err *err)
{
    jsOptions o;
    jsErrCode code = 0;
    jsOptions_Init(&o);
    o.Wait = jet_wait_ms(n->jet, c);
    o.Stream.Purge.Subject = subject;
    o.Stream.Purge.Sequence = seq_max > 0 ? seq_max + 1 : 0;
    TRY(call_check(c, err));
    natsStatus status = js_PurgeStream(link->js, jet_stream(n->jet), &o, &code);
    return status == NATS_OK ? RC_OK : jet_err(n->jet, err, status, code, "purge '%s'", subject);
}

/* Best effort, also when the call is cancelled: chunks that stay cost space only. */
static void purge_chunks(struct nats *n, const char *nuid)
{
    struct call c = {.deadline_ms = os_mono_ms() + DISCARD_MS};
    struct jet_link *link = NULL;
    struct err ignored;
    char subject[320];
    snprintf(subject, sizeof subject, "$O.%s.C.%s", jet_bucket(n->jet), nuid);
    if (jet_link_get(n->jet, &c, &link, &ignored) != RC_OK ||
        purge(n, &c, link, subject, 0, &ignored) != RC_OK)
        err_clear(&ignored);
    jet_link_put(n->jet, link);
}

static enum rc get_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct get *g = ctx;
    struct jet_link *link = NULL;
    TRY(jet_link_get(g->n->jet, g->c, &link, err));
    enum rc rc = meta_get(g->n, g->c, link, (const char *)g->subject.data, g->key, &g->meta, err);
    if (rc == RC_OK && g->meta.gone)
        rc =
            err_set(err, RC_NOT_FOUND, "get '%s': no such object in '%s'", g->key, g->n->base.name);
    if (rc == RC_OK) rc = fetch(g, link, err);
    jet_link_put(g->n->jet, link);
    /* Replaced while it was read: the new one is there already. */
    hint->at_once = rc == RC_AGAIN && g->missing_count == 1;
    return rc;
}

static enum rc fetch(struct get *g, struct jet_link *link, struct err *err)
{
    uint64_t size = store_range(g->opts, g->meta.size);
    struct source src = {.g = g, .link = link, .next_seq = 1};
    enum rc rc = RC_OK;
    src.end = size > 0 ? g->opts->off + size : 0;
    snprintf(src.subject, sizeof src.subject, "$O.%s.C.%s", jet_bucket(g->n->jet), g->meta.nuid);
    spool_fini(&g->spool);
    g->spool = SPOOL_INIT;
    buf_reset(&g->bytes);
    if (!link->direct || g->meta.chunks > DIRECT_CHUNKS) {
        uint64_t count = 0;
        rc = consume(g->n, g->c, link, src.subject, js_DeliverAll, &src.sub, &count, err);
        if (rc == RC_OK && count < g->meta.chunks) rc = source_missing(&src, err);
    }
    if (rc == RC_OK) rc = hash_begin(&src.hash, HASH_SHA256, err);
    if (rc == RC_OK) rc = fetch_some(g, &src, err);
    source_fini(&src);
    return rc;
}

static enum rc fetch_some(struct get *g, struct source *src, struct err *err)
{
    uint64_t size = store_range(g->opts, g->meta.size);
    if (size > MEMORY_SIZE) {
        struct store_body all = {.size = STORE_SIZE_UNKNOWN, .next = source_next, .ctx = src};
        return spool_fill(&g->spool, g->c, &all, &g->body, err);
    }
    TRY(buf_reserve(&g->bytes, (size_t)size + 1, err));
    for (size_t got = 1; got > 0; g->bytes.size += got)
        TRY(source_next(src, g->bytes.data + g->bytes.size, (size_t)size + 1 - g->bytes.size, &got,
                        err));
    g->body = store_body_bytes(&g->over_bytes, g->bytes.data, size);
    return RC_OK;
}

/* Bytes of the range; none at its end, after the digest was verified if that is the object's. */
static enum rc source_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err)
{
    struct source *src = ctx;
    const struct meta *m = &src->g->meta;
    uint8_t digest[SHA256_SIZE];
    while (src->unread_size == 0 && src->pos < src->end)
        TRY(source_pull(src, err));
    if (src->unread_size == 0 && src->end == m->size) {
        TRY(hash_end(&src->hash, digest, err));
        if (memcmp(digest, m->digest, sizeof digest) != 0)
            return err_set(err, RC_CORRUPT, "get '%s': its bytes do not have its digest",
                           src->g->key);
    }
    *ret_size = size < src->unread_size ? size : src->unread_size;
    if (*ret_size == 0) return RC_OK;
    memcpy(dst, src->unread, *ret_size);
    src->unread += *ret_size;
    src->unread_size -= *ret_size;
    return RC_OK;
}

static enum rc source_pull(struct source *src, struct err *err)
{
    struct get *g = src->g;
    struct jet *jet = g->n->jet;
    natsMsg_Destroy(src->msg);
    src->msg = NULL;
    TRY(call_check(g->c, err));
    if (src->chunks == g->meta.chunks)
        return err_set(err, RC_CORRUPT, "get '%s': shorter than it says", g->key);
    if (src->sub != NULL) {
        if (jet_next(jet, g->c, src->sub, &src->msg, err) != RC_OK)
            return err_wrap(err, "get '%s'", g->key);
    } else {
        jsOptions o;
        jsDirectGetMsgOptions next;
        jsOptions_Init(&o);
        o.Wait = jet_wait_ms(jet, g->c);
        jsDirectGetMsgOptions_Init(&next);
        next.Sequence = src->next_seq;
        next.NextBySubject = src->subject;
        natsStatus status = js_DirectGetMsg(&src->msg, src->link->js, jet_stream(jet), &o, &next);
        if (status == NATS_NOT_FOUND) return source_missing(src, err);
        if (status != NATS_OK) return jet_err(jet, err, status, 0, "get '%s'", g->key);
        src->next_seq = natsMsg_GetSequence(src->msg) + 1;
    }
    src->chunks++;
    const char *data = natsMsg_GetData(src->msg);
    uint64_t size = (uint64_t)natsMsg_GetDataLength(src->msg), start = src->pos;
    if (size > g->meta.size - start)
        return err_set(err, RC_CORRUPT, "get '%s': longer than it says", g->key);
    TRY(hash_add(&src->hash, data, (size_t)size, err));
    src->pos += size;
    uint64_t from = g->opts->off > start ? g->opts->off : start;
    uint64_t to = src->pos < src->end ? src->pos : src->end;
    if (from >= to) return RC_OK;
    src->unread = data + (from - start);
    src->unread_size = (size_t)(to - from);
    return RC_OK;
}

/* Replaced meanwhile, or a replica that is behind; but not for ever. */
static enum rc source_missing(struct source *src, struct err *err)
{
    struct get *g = src->g;
    if (strcmp(g->missing, g->meta.nuid) != 0) g->missing_count = 0;
    memcpy(g->missing, g->meta.nuid, sizeof g->missing);
    return err_set(err, ++g->missing_count < MISSING_TRIES ? RC_AGAIN : RC_CORRUPT,
                   "get '%s': not all of its %" PRIu64 " chunks are there", g->key, g->meta.chunks);
}

static void source_fini(struct source *src)
{
    natsMsg_Destroy(src->msg);
    consume_end(src->sub);
    hash_fini(&src->hash);
}

static enum rc deliver(struct get *g, store_sink_fn *sink, void *ctx, struct err *err)
{
    CLEANUP(buf_fini) struct buf piece = BUF_INIT;
    struct store_obj *obj = g->opts->ret_obj;
    if (obj != NULL) {
        memcpy(obj->key, g->key, strlen(g->key) + 1);
        snprintf(obj->etag, sizeof obj->etag, "%" PRIu64, g->meta.seq);
        obj->size = g->meta.size;
        obj->mtime_ms = g->meta.mtime_ms;
    }
    uint64_t size = g->body.size;
    TRY(buf_reserve(&piece, size < PIECE_SIZE ? (size_t)size : PIECE_SIZE, err));
    for (uint64_t off = 0; off < size;) {
        size_t some = size - off < PIECE_SIZE ? (size_t)(size - off) : PIECE_SIZE;
        if (call_check(g->c, err) != RC_OK) return err_wrap(err, "get '%s'", g->key);
        TRY(g->body.read(g->body.ctx, off, piece.data, some, err));
        TRY(sink(ctx, piece.data, some, err));
        off += some;
    }
    return RC_OK;
}

/* *ret_count: messages that it will give. */
static enum rc consume(struct nats *n, const struct call *c, struct jet_link *link,
                       const char *subject, jsDeliverPolicy from, natsSubscription **ret_sub,
                       uint64_t *ret_count, struct err *err)
{
    jsOptions o;
    jsSubOptions so;
    jsConsumerInfo *info = NULL;
    jsErrCode code = 0;
    natsSubscription *sub = NULL;
    TRY(call_check(c, err));
    jsOptions_Init(&o);
    o.Wait = jet_wait_ms(n->jet, c);
    jsSubOptions_Init(&so);
    so.Stream = jet_stream(n->jet);
    so.Ordered = true;
    so.Config.DeliverPolicy = from;
    natsStatus status = js_SubscribeSync(&sub, link->js, subject, &o, &so, &code);
    if (status == NATS_OK) status = natsSubscription_GetConsumerInfo(&info, sub, &o, &code);
    if (status != NATS_OK) {
        consume_end(sub);
        return jet_err(n->jet, err, status, code, "read '%s'", subject);
    }
    *ret_count = info->NumPending + info->Delivered.Consumer;
    *ret_sub = sub;
    jsConsumerInfo_Destroy(info);
    return RC_OK;
}

static void consume_end(natsSubscription *sub)
{
    if (sub == NULL) return;
    natsSubscription_Unsubscribe(sub); /* the server forgets the consumer by itself if that fails */
    natsSubscription_Destroy(sub);
}

static enum rc list_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct list *l = ctx;
    struct jet_link *link = NULL;
    natsSubscription *sub = NULL;
    char subject[256];
    uint64_t count = 0;
    (void)hint;
    buf_reset(&l->items);
    buf_reset(&l->names);
    snprintf(subject, sizeof subject, "$O.%s.M.>", jet_bucket(l->n->jet));
    TRY(jet_link_get(l->n->jet, l->c, &link, err));
    enum rc rc = consume(l->n, l->c, link, subject, js_DeliverLastPerSubject, &sub, &count, err);
    for (bool last = count == 0; rc == RC_OK && !last;) {
        natsMsg *msg = NULL;
        rc = jet_next(l->n->jet, l->c, sub, &msg, err);
        if (rc == RC_OK) rc = list_take(l, msg, &last, err);
        natsMsg_Destroy(msg);
    }
    consume_end(sub);
    jet_link_put(l->n->jet, link);
    return rc == RC_OK ? RC_OK : err_wrap(err, "list '%s'", l->n->base.name);
}

static enum rc list_take(struct list *l, natsMsg *msg, bool *ret_last, struct err *err)
{
    struct meta m;
    jsMsgMetaData *data = NULL;
    natsStatus status = natsMsg_GetMetaData(&data, msg);
    if (status != NATS_OK) return jet_err(l->n->jet, err, status, 0, "read a message");
    *ret_last = data->NumPending == 0;
    struct item item = {
        .name = l->names.size, .seq = data->Sequence.Stream, .mtime_ms = data->Timestamp / 1000000};
    jsMsgMetaData_Destroy(data);
    TRY(meta_parse(msg, &m, err));
    if (m.gone || strncmp(m.name, l->prefix, strlen(l->prefix)) != 0) return RC_OK;
    if (l->items.size / sizeof item >= OBJECTS_MAX)
        return err_set(err, RC_TOO_BIG, "more than %u objects", OBJECTS_MAX);
    item.size = m.size;
    if (m.mtime_ms != 0) item.mtime_ms = m.mtime_ms;
    TRY(buf_append(&l->names, m.name, strlen(m.name) + 1, err));
    return buf_append(&l->items, &item, sizeof item, err);
}

/* By name, the newest version first. */
static int by_name(const void *a, const void *b, void *ctx)
{
    const char *names = (const char *)((struct list *)ctx)->names.data;
    const struct item *x = a, *y = b;
    int order = strcmp(names + x->name, names + y->name);
    return order != 0 ? order : (x->seq < y->seq) - (x->seq > y->seq);
}

static enum rc del_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct del *d = ctx;
    CLEANUP(buf_fini) struct buf subject = BUF_INIT;
    struct jet_link *link = NULL;
    struct meta old;
    char chunks[320];
    (void)hint;
    TRY(meta_subject(d->n, d->key, &subject, err));
    TRY(jet_link_get(d->n->jet, d->c, &link, err));
    enum rc rc = meta_get(d->n, d->c, link, (const char *)subject.data, d->key, &old, err);
    if (rc == RC_OK && !old.gone) {
        memcpy(d->nuid, old.nuid, sizeof d->nuid); /* also for a second try that finds it gone */
        rc = purge(d->n, d->c, link, (const char *)subject.data, old.seq, err);
    }
    if (rc == RC_OK && d->nuid[0] != '\0') {
        snprintf(chunks, sizeof chunks, "$O.%s.C.%s", jet_bucket(d->n->jet), d->nuid);
        rc = purge(d->n, d->c, link, chunks, 0, err);
    }
    jet_link_put(d->n->jet, link);
    return rc;
}

static void nuid_new(char out[NUID_SIZE + 1])
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (int i = 0; i < NUID_SIZE; i++)
        out[i] = letters[os_random() % (sizeof letters - 1)];
    out[NUID_SIZE] = '\0';
}
