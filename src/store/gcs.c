/*
 * gcs.c -- a store in Google Cloud Storage, over its JSON API: key "a/b" is the object <path>/a/b
 * of the bucket, as Litestream lays it out. Requests are in gcs_ask.c, put is in gcs_put.c.
 *
 *   get    alt=media with a range; tries after the first ask for the same generation
 *   list   prefix, startOffset (inclusive, store.c drops an equal key), pages; the answer is cut
 *          down to the fields that are needed
 *   etag   the generation, which is new for each write of a name; conditions are
 *          ifGenerationMatch, and 0 means that there must be none
 *
 * Objects are never stored with a content encoding, so nothing is transcoded on its way back.
 * STORAGE_EMULATOR_HOST (for tests) names another server, which gets no token.
 *
 * The service takes about one update of one name a second; it answers 429 to more, which http.h
 * paces. Threads: any.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/gcs_ask.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORIGIN         "https://storage.googleapis.com"
#define API            "/storage/v1"
#define PART_SIZE      (8u << 20)
#define PART_MAX       (1u << 30)
#define PAGE_MAX       1000 /* objects of one page of a listing, the service's own limit */
#define EMPTY_MAX      1000 /* pages in a row without an object that say that there is more */
#define PAGE_CUT       4    /* a page that is too long is asked for again so much shorter */
#define DELETE_THREADS 8
#define LIST_FIELDS    "nextPageToken,items(name,generation,size,timeCreated,metadata)"

/* A get: the answer's head goes to ret_obj before the sink sees a byte. */
struct get {
    struct gcs_ask ask; /* first: http gives it back as the ctx of sign and judge */
    const char *key;
    store_sink_fn *sink;
    void *ctx;
    struct store_obj head;     /* as far as http knows it */
    struct store_obj *ret_obj; /* NULL when not wanted, or given */
    int64_t stamp_ms;          /* 0: none */
};

struct deletion {
    struct store *s;
    const struct call *c;
    const char *const *keys;
};

static enum rc gcs_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void gcs_close(struct store *s);
static enum rc gcs_get(struct store *s, const struct call *c, const char *key,
                       const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                       struct err *err);
static enum rc gcs_list(struct store *s, const struct call *c, const char *prefix,
                        const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                        struct err *err);
static enum rc gcs_del(struct store *s, const struct call *c, const char *key, struct err *err);
static enum rc gcs_del_many(struct store *s, const struct call *c, const char *const *keys,
                            size_t key_count, struct err *err);
static enum rc gcs_presign(struct store *s, const struct call *c, const char *key, bool put,
                           int64_t expires_s, struct buf *out, struct err *err);

static enum rc read_conf(struct gcs *g, struct store_settings *set, struct err *err);
static enum rc take_bucket(struct gcs *g, const char *bucket, struct err *err);
static enum rc take_path(struct gcs *g, const char *path, bool keep_slash, struct err *err);
static enum rc take_origin(struct gcs *g, struct store_settings *set, struct err *err);
static void decode(const char *text, char *out, size_t out_size);
static void get_head(void *ctx, const struct http_resp *resp);
static enum rc get_take(void *ctx, const void *data, size_t size, struct err *err);
static void get_fill(struct get *t);
static enum rc list_page(struct gcs *g, const struct call *c, const char *prefix, const char *after,
                         const struct buf *token, unsigned count, struct gcs_ask *a,
                         struct err *err);
static enum rc list_take(const struct gcs_ask *a, const json_t *page, store_list_fn *fn, void *ctx,
                         struct err *err);
static enum rc del_one(void *ctx, uint64_t i, struct err *err);
static enum rc sign_link(struct gcs *g, const struct gcs_signer *signer, const char *method,
                         const char *path, int64_t expires_s, struct buf *out, struct err *err);

const struct store_ops store_gcs_ops = {
    .type = "gs",
    .caps = STORE_CAP_CREATE | STORE_CAP_RANGE | STORE_CAP_LIST_AFTER | STORE_CAP_TIMESTAMP |
            STORE_CAP_CAS | STORE_CAP_STREAM,
    .open = gcs_open,
    .close = gcs_close,
    .put = gcs_put,
    .get = gcs_get,
    .list = gcs_list,
    .del = gcs_del,
    .del_many = gcs_del_many,
    .presign = gcs_presign,
};

static enum rc gcs_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    struct gcs *g = mem_calloc(1, sizeof *g);
    if (g == NULL) return err_mem(err, "a store");
    enum rc rc = read_conf(g, set, err);
    if (rc == RC_OK) {
        store_init(&g->base, &store_gcs_ops, "gs://%s%s%.*s", g->bucket,
                   g->root[0] != '\0' ? "/" : "", g->root[0] != '\0' ? (int)strlen(g->root) - 1 : 0,
                   g->root);
        rc = http_open(
            &(struct http_conf){.service = g->origin, .store = &g->base, .conf = set->conf},
            &g->http, err);
    }
    if (rc == RC_OK) {
        *ret_store = &g->base;
        return RC_OK;
    }
    gcs_token_close(g->token);
    mem_free(g);
    return rc;
}

static void gcs_close(struct store *s)
{
    struct gcs *g = (struct gcs *)s;
    http_close(g->http);
    gcs_token_close(g->token);
    mem_free(g);
}

static enum rc gcs_get(struct store *s, const struct call *c, const char *key,
                       const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                       struct err *err)
{
    struct gcs *g = (struct gcs *)s;
    struct get t = {.key = key, .sink = sink, .ctx = ctx, .ret_obj = opts->ret_obj};
    gcs_ask_init(&t.ask, g, c, "GET", STORE_OP_GET, "get", key);
    enum rc rc = gcs_ask_url(&t.ask, API, key, err);
    if (rc == RC_OK) rc = gcs_ask_query(&t.ask, "alt", "media", err);
    t.ask.req.sink = get_take;
    t.ask.req.sink_ctx = &t;
    t.ask.req.on_head = get_head;
    t.ask.req.ret_obj = &t.head;
    t.ask.req.ranged = true;
    t.ask.req.range_off = opts->off;
    t.ask.req.range_size = opts->size;
    if (rc == RC_OK) rc = gcs_ask_send(&t.ask, err);
    /* Nothing was delivered, and a 416 says nothing about the object. */
    if (rc == RC_OK && t.ret_obj != NULL && t.ask.pin[0] == '\0')
        rc = gcs_look(g, c, key, t.ret_obj, err);
    else if (rc == RC_OK)
        get_fill(&t);
    gcs_ask_fini(&t.ask);
    return rc;
}

static enum rc gcs_list(struct store *s, const struct call *c, const char *prefix,
                        const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                        struct err *err)
{
    struct gcs *g = (struct gcs *)s;
    CLEANUP(buf_fini) struct buf token = BUF_INIT; /* of the next page; empty: the first */
    unsigned count = PAGE_MAX, empty = 0;
    /* One more, since the page begins with `after` itself when there is such an object. */
    if (opts->count_max != 0 && opts->count_max < PAGE_MAX) count = opts->count_max + 1;
    for (;;) {
        CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
        CLEANUP(gcs_json_freep) json_t *page = NULL;
        TRY(call_check(c, err));
        enum rc rc = list_page(g, c, prefix, opts->after, &token, count, &a, err);
        if (rc == RC_TOO_BIG && count > 1) { /* names and metadata of others can be long */
            count = (count + PAGE_CUT - 1) / PAGE_CUT;
            continue;
        }
        if (rc != RC_OK) return rc;
        TRY(gcs_ask_json(&a, &page, err));
        const char *next = gcs_text(page, "nextPageToken");
        if (next[0] != '\0' && token.size > 0 && strcmp(next, (char *)token.data) == 0)
            return err_set(err, RC_AGAIN, "%s: the service gave the same page twice", a.what);
        /* First, since fn may take its time: it is not touched by what fn does. */
        buf_reset(&token);
        if (next[0] != '\0') TRY(buf_append(&token, next, strlen(next) + 1, err));
        TRY(list_take(&a, page, fn, ctx, err));
        if (token.size == 0) return RC_OK;
        empty = json_array_size(json_object_get(page, "items")) == 0 ? empty + 1 : 0;
        if (empty == EMPTY_MAX)
            return err_set(err, RC_CORRUPT, "%s: empty pages without end", a.what);
    }
}

static enum rc gcs_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    gcs_ask_init(&a, (struct gcs *)s, c, "DELETE", STORE_OP_DEL, "delete", key);
    a.missing_ok = true;
    TRY(gcs_ask_url(&a, API, key, err));
    return gcs_ask_send(&a, err);
}

/* The service takes one name a request, so several go side by side. */
static enum rc gcs_del_many(struct store *s, const struct call *c, const char *const *keys,
                            size_t key_count, struct err *err)
{
    struct deletion d = {.s = s, .c = c, .keys = keys};
    return thr_each(DELETE_THREADS, key_count, del_one, &d, err);
}

static enum rc del_one(void *ctx, uint64_t i, struct err *err)
{
    struct deletion *d = ctx;
    TRY(call_check(d->c, err));
    return gcs_del(d->s, d->c, d->keys[i], err);
}

/* A V4 signed URL: whoever has it acts as the service account, for one method and object. */
static enum rc gcs_presign(struct store *s, const struct call *c, const char *key, bool put,
                           int64_t expires_s, struct buf *out, struct err *err)
{
    struct gcs *g = (struct gcs *)s;
    CLEANUP(gcs_signer_fini) struct gcs_signer signer = {0};
    CLEANUP(buf_fini) struct buf path = BUF_INIT;
    (void)c; /* nothing is asked of anybody */
    if (g->token == NULL)
        return err_set(err, RC_UNSUPPORTED, "an emulator has no credentials to sign a link with");
    TRY(gcs_token_signer(g->token, &signer, err));
    TRY(buf_printf(&path, err, "/%s/", g->bucket));
    TRY(uri_append(&path, g->root, true, err));
    TRY(uri_append(&path, key, true, err));
    TRY(buf_append(&path, "", 1, err));
    return sign_link(g, &signer, put ? "PUT" : "GET", (const char *)path.data, expires_s, out, err);
}

/* Signed is: method, path, query, "host:...", names of headers, and no hash of the payload. */
static enum rc sign_link(struct gcs *g, const struct gcs_signer *signer, const char *method,
                         const char *path, int64_t expires_s, struct buf *out, struct err *err)
{
    CLEANUP(buf_fini) struct buf query = BUF_INIT, text = BUF_INIT, signature = BUF_INIT;
    CLEANUP(buf_fini) struct buf hex = BUF_INIT;
    char now[TIME_TEXT_SIZE], stamp[TIME_TEXT_SIZE], digest[HEX_SIZE(SHA256_SIZE)], scope[64];
    uint8_t sum[SHA256_SIZE];
    size_t used = 0;
    time_put(os_now_ms(), false, now);
    for (const char *p = now; *p != '\0'; p++)
        if (*p != '-' && *p != ':') stamp[used++] = *p;
    stamp[used] = '\0';
    snprintf(scope, sizeof scope, "%.8s/auto/storage/goog4_request", stamp);
    TRY(buf_printf(&query, err, "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential="));
    TRY(uri_append(&query, (const char *)signer->email.data, false, err));
    TRY(buf_printf(&query, err, "%%2F"));
    TRY(uri_append(&query, scope, false, err));
    TRY(buf_printf(&query, err, "&X-Goog-Date=%s&X-Goog-Expires=%lld&X-Goog-SignedHeaders=host",
                   stamp, (long long)expires_s));
    TRY(buf_append(&query, "", 1, err));
    TRY(buf_printf(&text, err, "%s\n%s\n%s\nhost:%s\n\nhost\nUNSIGNED-PAYLOAD", method, path,
                   (const char *)query.data, strstr(g->origin, "://") + 3));
    TRY(hash_sha256(text.data, text.size, sum, err));
    hex_put(sum, sizeof sum, digest);
    buf_reset(&text);
    TRY(buf_printf(&text, err, "GOOG4-RSA-SHA256\n%s\n%s\n%s", stamp, scope, digest));
    TRY(hash_rs256((const char *)signer->key.data, text.data, text.size, &signature, err));
    TRY(buf_reserve(&hex, HEX_SIZE(signature.size), err));
    hex_put(signature.data, signature.size, (char *)hex.data);
    return buf_printf(out, err, "%s%s?%s&X-Goog-Signature=%s", g->origin, path,
                      (const char *)query.data, (const char *)hex.data);
}

static enum rc read_conf(struct gcs *g, struct store_settings *set, struct err *err)
{
    const char *bucket = store_setting(set, "bucket"), *path = store_setting(set, "path");
    char decoded[sizeof set->url.path];
    if (set->url.user[0] != '\0' || set->url.port != 0)
        return err_set(err, RC_INVALID, "store URL: give gs://bucket/path, without user and port");
    TRY(take_bucket(g, bucket[0] != '\0' ? bucket : set->url.host, err));
    decode(set->url.path, decoded, sizeof decoded);
    if (path[0] != '\0')
        TRY(take_path(g, path, true, err));
    else
        TRY(take_path(g, decoded, false, err));
    uint64_t part_size = PART_SIZE;
    TRY(store_setting_size(set, "part-size", &part_size, err));
    if (part_size < GCS_PART_UNIT || part_size > PART_MAX)
        return err_set(err, RC_INVALID, "part-size must be between 256KiB and 1GiB");
    g->part_size = (size_t)(part_size - part_size % GCS_PART_UNIT);
    return take_origin(g, set, err);
}

/* Lower case letters, digits, '-', '_' and '.', and nothing that could change a URL. */
static enum rc take_bucket(struct gcs *g, const char *bucket, struct err *err)
{
    size_t size = strlen(bucket);
    if (size == 0)
        return err_set(err, RC_INVALID, "no bucket: give gs://bucket/path or the setting 'bucket'");
    if (size < 3 || size >= sizeof g->bucket || bucket[0] == '.' ||
        strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != size)
        return err_set(err, RC_INVALID, "'%.64s' cannot be the name of a bucket", bucket);
    memcpy(g->bucket, bucket, size + 1);
    return RC_OK;
}

/* As Litestream's path.Join makes it: no empty segments and no ".". A slash in front stays when it
 * comes from the setting, since there it becomes a part of the objects' names. */
static enum rc take_path(struct gcs *g, const char *path, bool keep_slash, struct err *err)
{
    size_t used = 0;
    if (keep_slash && path[0] == '/') g->root[used++] = '/';
    for (const char *p = path; *p != '\0';) {
        size_t size = strcspn(p, "/");
        if (size == 2 && memcmp(p, "..", 2) == 0)
            return err_set(err, RC_INVALID, "the path '%.64s' must not hold '..'", path);
        if (size > 0 && !(size == 1 && *p == '.')) {
            if (used + size > GCS_ROOT_MAX)
                return err_set(err, RC_INVALID, "the path is longer than %d bytes: '%.64s...'",
                               GCS_ROOT_MAX, path);
            memcpy(g->root + used, p, size);
            used += size;
            g->root[used++] = '/';
        }
        p += size + (p[size] == '/');
    }
    g->root[used] = '\0';
    return RC_OK;
}

/* The setting is for private endpoints; the variable for tests, and Google's tools know it, too. */
static enum rc take_origin(struct gcs *g, struct store_settings *set, struct err *err)
{
    const char *endpoint = store_setting(set, "endpoint"), *host = getenv("STORAGE_EMULATOR_HOST");
    struct url u;
    if (endpoint[0] == '\0' && host != NULL && host[0] != '\0') {
        char text[GCS_ORIGIN_MAX];
        snprintf(text, sizeof text, "%s%s", strstr(host, "://") ? "" : "http://", host);
        if (url_get(text, &u, err) != RC_OK) return err_wrap(err, "STORAGE_EMULATOR_HOST");
        size_t size = strlen(u.scheme) + 3 + strcspn(text + strlen(u.scheme) + 3, "/?");
        snprintf(g->origin, sizeof g->origin, "%.*s", (int)size, text);
        return RC_OK;
    }
    TRY(gcs_origin(endpoint[0] != '\0' ? endpoint : ORIGIN, "endpoint", g->origin, err));
    return gcs_token_open(&g->token, err);
}

/* Percent-escapes; what only looks like one stays. */
static void decode(const char *text, char *out, size_t out_size)
{
    size_t used = 0;
    for (const char *p = text; *p != '\0' && used + 1 < out_size; p++) {
        char hex[3] = "";
        if (p[0] == '%' && isxdigit((uint8_t)p[1]) && isxdigit((uint8_t)p[2])) {
            memcpy(hex, p + 1, 2);
            char byte = (char)strtoul(hex, NULL, 16);
            if (byte != '\0') {
                out[used++] = byte;
                p += 2;
                continue;
            }
        }
        out[used++] = *p;
    }
    out[used] = '\0';
}

/* The head of the first good answer. */
static void get_head(void *ctx, const struct http_resp *resp)
{
    struct get *t = ctx;
    const char *generation = http_resp_header(resp, "x-goog-generation");
    const char *stamp = http_resp_header(resp, "x-goog-meta-" GCS_STAMP);
    struct err ignored;
    uint64_t number;
    t->stamp_ms = 0;
    if (stamp != NULL && time_get(stamp, &t->stamp_ms, &ignored) != RC_OK) t->stamp_ms = 0;
    if (generation != NULL && gcs_digits(generation, &number))
        snprintf(t->ask.pin, sizeof t->ask.pin, "%llu", (unsigned long long)number);
}

static enum rc get_take(void *ctx, const void *data, size_t size, struct err *err)
{
    struct get *t = ctx;
    TRY(call_check(t->ask.c, err)); /* much can come at once */
    get_fill(t);
    return t->sink(t->ctx, data, size, err);
}

static void get_fill(struct get *t)
{
    if (t->ret_obj == NULL) return;
    *t->ret_obj = t->head;
    snprintf(t->ret_obj->key, sizeof t->ret_obj->key, "%s", t->key);
    snprintf(t->ret_obj->etag, sizeof t->ret_obj->etag, "%s", t->ask.pin);
    if (t->stamp_ms != 0) t->ret_obj->mtime_ms = t->stamp_ms;
    t->ret_obj = NULL;
}

static enum rc list_page(struct gcs *g, const struct call *c, const char *prefix, const char *after,
                         const struct buf *token, unsigned count, struct gcs_ask *a,
                         struct err *err)
{
    char name[GCS_ROOT_MAX + STORE_KEY_MAX + 4], number[16];
    gcs_ask_init(a, g, c, "GET", STORE_OP_LIST, "list", prefix);
    TRY(gcs_ask_url(a, API, NULL, err));
    snprintf(number, sizeof number, "%u", count);
    TRY(gcs_ask_query(a, "maxResults", number, err));
    TRY(gcs_ask_query(a, "fields", LIST_FIELDS, err));
    snprintf(name, sizeof name, "%s%s", g->root, prefix);
    if (name[0] != '\0') TRY(gcs_ask_query(a, "prefix", name, err));
    if (after[0] != '\0' && strlen(after) <= STORE_KEY_MAX) {
        snprintf(name, sizeof name, "%s%s", g->root, after);
        TRY(gcs_ask_query(a, "startOffset", name, err));
    }
    if (token->size > 0) TRY(gcs_ask_query(a, "pageToken", (const char *)token->data, err));
    return gcs_ask_send(a, err);
}

static enum rc list_take(const struct gcs_ask *a, const json_t *page, store_list_fn *fn, void *ctx,
                         struct err *err)
{
    const json_t *items = json_object_get(page, "items");
    struct store_obj obj;
    if (items != NULL && !json_is_array(items))
        return err_set(err, RC_AGAIN, "%s: the answer is no listing", a->what);
    for (size_t i = 0; i < json_array_size(items); i++) {
        TRY(call_check(a->c, err));
        TRY(gcs_object(a, json_array_get(items, i), &obj, NULL, err));
        if (obj.key[0] != '\0') TRY(fn(ctx, &obj, err));
    }
    return RC_OK;
}
