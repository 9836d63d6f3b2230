/*
 * s3.c -- stores in buckets of Amazon S3 and of services that speak its language: "s3" for AWS,
 * MinIO, Ceph, R2, B2, Tigris, Google (XML API) and many more, "oss" for Alibaba. Three dialects
 * differ in the names of headers, the signature, and the condition of a create (s3_conf.h). Google
 * gets its own signature and x-goog- headers all through: the condition of a create is one of them,
 * and they belong to no request that is signed as Amazon's.
 *
 * Put: up to the part size one PutObject, so all or nothing; above it a multipart upload, which is
 * all or nothing too, at its completion. A conditional put stays one PutObject up to the memory
 * that parts would take (part size x concurrency): there are services that arbitrate single puts
 * and ignore the condition of a completion. Beyond that the condition goes with the completion, and
 * we look first, which is as good as such a service lets us be.
 *
 * If-Match: Ceph's gateway (16.2) compares the etag with its quotes and so never finds it equal.
 * When a service says 412 although the object has that very etag, a scratch object tells whether
 * it takes etags without quotes, and that it refuses a wrong one in that form; only then are they
 * left out. So a service that ignores the odd form cannot turn it into a lost update.
 *
 * The region may be unknown at first: requests go to us-east-1, which answers where the bucket is.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/hash.h"
#include "store/s3_intern.h"
#include "store/sigv4.h"
#include <inttypes.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_SIZE (1u << 20) /* bytes of a body read between two looks at the deadline */
#define CAPS                                                                                       \
    (STORE_CAP_CREATE | STORE_CAP_RANGE | STORE_CAP_LIST_AFTER | STORE_CAP_CAS | STORE_CAP_STREAM)

static enum rc s3_open(struct store_settings *set, struct store **ret_store, struct err *err);
static enum rc oss_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void s3_close(struct store *st);
static enum rc s3_put(struct store *st, const struct call *c, const char *key,
                      const struct store_body *body, const struct store_put_opts *opts,
                      struct store_obj *ret_obj, struct err *err);
static enum rc s3_get(struct store *st, const struct call *c, const char *key,
                      const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                      struct err *err);
static enum rc s3_presign(struct store *st, const struct call *c, const char *key, bool put,
                          int64_t expires_s, struct buf *out, struct err *err);

static enum rc open_any(struct store_settings *set, bool oss, struct store **ret_store,
                        struct err *err);
static enum rc open_parts(struct s3 *s, const struct store_settings *set, bool oss,
                          struct err *err);
static void region_begin(struct s3 *s, bool oss);
static enum rc region_find(struct s3 *s, const struct call *c, struct err *err);
static uint64_t single_max(const struct s3 *s, const struct store_put_opts *opts);
static enum rc put_try(struct s3 *s, const struct call *c, const char *key, const void *data,
                       size_t size, const struct store_put_opts *opts, struct store_obj *ret_obj,
                       struct err *err);
static enum rc probe_quotes(struct s3 *s, const struct call *c, struct err *err);
static enum rc probe_put(struct s3 *s, const struct call *c, const char *key, const char *if_etag,
                         char *ret_etag, struct err *err);
static void get_head(void *ctx, const struct http_resp *resp);

const struct store_ops store_s3_ops = {
    .type = "s3",
    .caps = CAPS,
    .open = s3_open,
    .close = s3_close,
    .put = s3_put,
    .get = s3_get,
    .list = s3_list,
    .del = s3_del,
    .del_many = s3_del_many,
    .presign = s3_presign,
};

const struct store_ops store_oss_ops = {
    .type = "oss",
    .caps = CAPS & ~(uint32_t)STORE_CAP_CAS,
    .open = oss_open,
    .close = s3_close,
    .put = s3_put,
    .get = s3_get,
    .list = s3_list,
    .del = s3_del,
    .del_many = s3_del_many,
    .presign = s3_presign,
};

static enum rc s3_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    return open_any(set, false, ret_store, err);
}

static enum rc oss_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    return open_any(set, true, ret_store, err);
}

static void s3_close(struct store *st)
{
    struct s3 *s = (struct s3 *)st;
    http_close(s->http);
    aws_creds_close(s->creds);
    pthread_mutex_destroy(&s->lock);
    mem_wipe(&s->conf, sizeof s->conf);
    mem_free(s);
}

static enum rc s3_put(struct store *st, const struct call *c, const char *key,
                      const struct store_body *body, const struct store_put_opts *opts,
                      struct store_obj *ret_obj, struct err *err)
{
    struct s3 *s = (struct s3 *)st;
    CLEANUP(mem_freep) void *data = NULL;
    struct s3_feed feed = {.body = body};
    bool known = body->size != STORE_SIZE_UNKNOWN;
    uint64_t max = known ? single_max(s, opts) : s->conf.part_size;
    if (known && body->size > max)
        return s3_put_parts(s, c, key, body, NULL, NULL, opts, ret_obj, err);
    size_t size = known ? (size_t)body->size : (size_t)max;
    data = mem_alloc(size);
    if (data == NULL) return err_mem(err, "the bytes of a put");
    if (known) {
        TRY(s3_body_read(c, body, 0, data, size, err));
    } else {
        TRY(s3_feed(&feed, data, size, &size, err));
        if (!feed.ended) {
            void *first = data;
            data = NULL;
            return s3_put_parts(s, c, key, body, &feed, first, opts, ret_obj, err);
        }
    }
    return s3_put_one(s, c, key, data, size, opts, ret_obj, err);
}

static enum rc s3_get(struct store *st, const struct call *c, const char *key,
                      const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                      struct err *err)
{
    struct s3 *s = (struct s3 *)st;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s, .c = c, .method = "GET", .key = key, .verb = "get"};
    if (opts->ret_obj != NULL) memcpy(opts->ret_obj->key, key, strlen(key) + 1);
    r.http.op = STORE_OP_GET;
    r.http.sink = sink;
    r.http.sink_ctx = ctx;
    r.http.ranged = true;
    r.http.range_off = opts->off;
    r.http.range_size = opts->size;
    r.http.ret_obj = opts->ret_obj;
    r.http.on_head = get_head;
    TRY(s3_object_headers(&r, NULL, true, err));
    return s3_send(&r, &resp, err);
}

/* What encryption with customer keys would need is not in a link. */
static enum rc s3_presign(struct store *st, const struct call *c, const char *key, bool put,
                          int64_t expires_s, struct buf *out, struct err *err)
{
    struct s3 *s = (struct s3 *)st;
    CLEANUP(buf_fini) struct buf url = BUF_INIT, path = BUF_INIT;
    struct aws_keys keys;
    char region[S3_REGION_SIZE], host[400];
    if (s->conf.sse_key[0] != '\0')
        return err_set(err, RC_UNSUPPORTED,
                       "link to '%s': objects encrypted with a customer key need it in headers",
                       key);
    if (!atomic_load(&s->region_known)) TRY(region_find(s, c, err));
    s3_region(s, region);
    TRY(s3_url(s, key, region, &url, &path, err));
    TRY(aws_creds_get(s->creds, c, &keys, err));
    s3_host((char *)url.data, host, sizeof host);
    struct sigv4_header headers[] = {{.name = "host", .name_size = 4, .value = host}};
    struct sigv4 sig = {.kind = (enum sigv4_kind)s->conf.dialect,
                        .access_key = keys.access_key,
                        .secret_key = keys.secret_key,
                        .region = region,
                        .service = "s3",
                        .time_ms = os_now_ms() + atomic_load(&s->skew_ms),
                        .method = put ? "PUT" : "GET",
                        .path = (char *)path.data,
                        .query = "",
                        .payload = SIGV4_UNSIGNED,
                        .headers = headers,
                        .header_count = 1};
    url.data[url.size - 1] = '?';
    enum rc rc = sigv4_presign(&sig, keys.token, expires_s, &url, err);
    mem_wipe(&keys, sizeof keys);
    return rc == RC_OK ? buf_append(out, url.data, url.size, err) : rc;
}

enum rc s3_del(struct store *st, const struct call *c, const char *key, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {
        .s = (struct s3 *)st, .c = c, .method = "DELETE", .key = key, .verb = "delete"};
    r.http.op = STORE_OP_DEL;
    enum rc rc = s3_send(&r, &resp, err);
    if (rc != RC_NOT_FOUND) return rc;
    err_clear(err);
    return RC_OK;
}

enum rc s3_stat(struct s3 *s, const struct call *c, const char *key, struct store_obj *ret,
                struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s, .c = c, .method = "HEAD", .key = key, .verb = "look at"};
    r.http.op = STORE_OP_GET;
    TRY(s3_object_headers(&r, NULL, true, err));
    TRY(s3_send(&r, &resp, err));
    return s3_etag(&r, http_resp_header(&resp, "ETag"), ret->etag, err);
}

enum rc s3_body_read(const struct call *c, const struct store_body *body, uint64_t off, void *dst,
                     size_t size, struct err *err)
{
    for (size_t done = 0; done < size;) {
        size_t piece = size - done < PIECE_SIZE ? size - done : PIECE_SIZE;
        TRY(call_check(c, err));
        TRY(body->read(body->ctx, off + done, (uint8_t *)dst + done, piece, err));
        done += piece;
    }
    return RC_OK;
}

enum rc s3_feed(struct s3_feed *f, void *dst, size_t size, size_t *ret_size, struct err *err)
{
    uint8_t *p = dst;
    size_t done = 0, got = 0;
    if (f->has_ahead && size > 0) {
        p[done++] = f->ahead;
        f->has_ahead = false;
    }
    while (done < size && !f->ended) {
        TRY(f->body->next(f->body->ctx, p + done, size - done, &got, err));
        f->ended = got == 0;
        done += got;
    }
    if (!f->ended) {
        TRY(f->body->next(f->body->ctx, &f->ahead, 1, &got, err));
        f->ended = got == 0;
        f->has_ahead = got > 0;
    }
    *ret_size = done;
    return RC_OK;
}

enum rc s3_put_one(struct s3 *s, const struct call *c, const char *key, const void *data,
                   size_t size, const struct store_put_opts *opts, struct store_obj *ret_obj,
                   struct err *err)
{
    int sent = atomic_load(&s->quotes), unknown = S3_QUOTES_UNKNOWN;
    enum rc rc = put_try(s, c, key, data, size, opts, ret_obj, err);
    if (rc == RC_OK && opts->if_etag != NULL && opts->if_etag[0] == '"')
        atomic_compare_exchange_strong(&s->quotes, &unknown, S3_QUOTES_KEPT);
    if (rc != RC_CONFLICT || opts->if_etag == NULL) return rc;
    TRY(s3_refused(s, c, key, opts->if_etag, (enum s3_quotes)sent, err));
    return put_try(s, c, key, data, size, opts, ret_obj, err); /* a second misreading is none */
}

enum rc s3_refused(struct s3 *s, const struct call *c, const char *key, const char *if_etag,
                   enum s3_quotes sent, struct err *err)
{
    struct store_obj now = {0};
    struct err other;
    enum rc rc = s3_stat(s, c, key, &now, &other);
    if (rc == RC_NOT_FOUND) {
        *err = other;
        return err_wrap(err, "replace '%s'", key);
    }
    /* What was sent without quotes, or with quotes that are known to be read, was understood. */
    if (if_etag[0] != '"' || sent != S3_QUOTES_UNKNOWN) return RC_CONFLICT;
    if (rc != RC_OK) { /* not known, so no verdict */
        *err = other;
        return err_wrap(err, "replace '%s'", key);
    }
    if (!s3_etag_same(now.etag, if_etag)) return RC_CONFLICT;
    bool known = atomic_load(&s->quotes) != S3_QUOTES_UNKNOWN; /* by another thread, meanwhile */
    if (!known && (rc = probe_quotes(s, c, &other)) != RC_OK) {
        *err = other;
        return err_wrap(err, "replace '%s'", key);
    }
    return atomic_load(&s->quotes) == S3_QUOTES_DROPPED ? RC_OK : RC_CONFLICT;
}

static enum rc open_any(struct store_settings *set, bool oss, struct store **ret_store,
                        struct err *err)
{
    struct s3 *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "an S3 store");
    pthread_mutex_init(&s->lock, NULL);
    enum rc rc = open_parts(s, set, oss, err);
    if (rc == RC_OK)
        *ret_store = &s->base;
    else
        s3_close(&s->base);
    return rc;
}

static enum rc open_parts(struct s3 *s, const struct store_settings *set, bool oss, struct err *err)
{
    struct s3_conf *conf = &s->conf;
    CLEANUP(buf_fini) struct buf url = BUF_INIT, path = BUF_INIT;
    TRY(s3_conf_get((struct store_settings *)set, oss, conf, err));
    if (conf->dialect != S3_AWS && conf->sse_key[0] != '\0')
        return err_set(err, RC_UNSUPPORTED, "encryption with customer keys is not built in here");
    if (conf->dialect == S3_GOOGLE && conf->sse_kms_key_id[0] != '\0')
        return err_set(err, RC_UNSUPPORTED, "set the KMS key of Google's bucket as its default");
    store_init(&s->base, oss ? &store_oss_ops : &store_s3_ops, "%s://%s%s%s", oss ? "oss" : "s3",
               conf->bucket, strcmp(conf->root, ".") == 0 ? "" : "/",
               strcmp(conf->root, ".") == 0 ? "" : conf->root);
    if (conf->dialect != S3_AWS) s->base.caps &= ~(uint32_t)STORE_CAP_CAS;
    if (conf->part_size == 0) conf->part_size = 5u << 20;
    if (conf->concurrency == 0) conf->concurrency = 1;
    region_begin(s, oss);
    TRY(s3_url(s, NULL, s->region, &url, &path, err));
    /* One pacer for a bucket's host: Amazon's limits are a bucket's, those of others a host's. */
    char *host_end = strchr(strstr((char *)url.data, "://") + 3, '/');
    if (host_end != NULL) *host_end = '\0';
    const char *ca_file = getenv("AWS_CA_BUNDLE");
    bool bundle = conf->dialect == S3_AWS && ca_file != NULL && ca_file[0] != '\0';
    struct http_conf http = {.service = (char *)url.data,
                             .ca_file = bundle ? ca_file : NULL,
                             .store = &s->base,
                             .conf = set->conf,
                             .skip_verify = conf->skip_verify};
    TRY(http_open(&http, &s->http, err));
    struct aws_creds_conf creds = {.oss = oss,
                                   .access_key = conf->access_key,
                                   .secret_key = conf->secret_key,
                                   .region = s->region};
    return aws_creds_open(&creds, &s->creds, err);
}

static void region_begin(struct s3 *s, bool oss)
{
    char region[64] = "";
    const char *given = s->conf.region;
    bool aws = s->conf.dialect == S3_AWS && s->conf.endpoint[0] == '\0';
    atomic_store(&s->region_known, given[0] != '\0' || !aws);
    if (given[0] == '\0' && aws) {
        aws_region(region);
        given = region;
    }
    if (given[0] == '\0') given = oss ? "cn-hangzhou" : "us-east-1";
    snprintf(s->region, sizeof s->region, "%s", given);
}

/* Links need the region before any request has told it. The answer's verdict does not matter: a
 * refusal names the region as well. */
static enum rc region_find(struct s3 *s, const struct call *c, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s, .c = c, .method = "HEAD", .verb = "look for the bucket's region"};
    r.http.op = STORE_OP_OTHER;
    enum rc rc = s3_send(&r, &resp, err);
    if (rc == RC_OK || http_resp_header(&resp, "x-amz-bucket-region") != NULL) {
        atomic_store(&s->region_known, true);
        return RC_OK;
    }
    return rc;
}

static uint64_t single_max(const struct s3 *s, const struct store_put_opts *opts)
{
    bool conditional = opts->if_absent || opts->if_etag != NULL;
    uint64_t max = s->conf.part_size * (conditional ? s->conf.concurrency : 1);
    return max < S3_PART_MAX ? max : S3_PART_MAX;
}

static enum rc put_try(struct s3 *s, const struct call *c, const char *key, const void *data,
                       size_t size, const struct store_put_opts *opts, struct store_obj *ret_obj,
                       struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s,
                       .c = c,
                       .method = "PUT",
                       .key = key,
                       .verb = opts->if_absent ? "create"
                               : opts->if_etag ? "replace"
                                               : "put"};
    char crc[BASE64_SIZE(8)];
    r.http.op = STORE_OP_PUT;
    r.object = data;
    r.object_size = size;
    if (!s->conf.sign_payload && s->conf.dialect == S3_AWS) {
        uint64_t sum = htobe64(hash_crc64nvme(0, data, size));
        base64_put(&sum, sizeof sum, crc);
        r.crc = crc;
    }
    TRY(s3_object_headers(&r, opts, false, err));
    TRY(s3_condition(&r, opts, err));
    TRY(s3_send(&r, &resp, err));
    TRY(s3_etag(&r, http_resp_header(&resp, "ETag"), ret_obj->etag, err));
    memcpy(ret_obj->key, key, strlen(key) + 1);
    ret_obj->size = size;
    ret_obj->mtime_ms = resp.date_ms ? resp.date_ms : os_now_ms();
    return RC_OK;
}

/* Learn with a scratch object how If-Match must be written. Leaves quotes known, or fails:
 * RC_UNSUPPORTED neither form arbitrates. */
static enum rc probe_quotes(struct s3 *s, const struct call *c, struct err *err)
{
    static const char wrong[] = "00000000000000000000000000000000";
    char key[64], etag[STORE_ETAG_MAX], plain[STORE_ETAG_MAX];
    struct err ignored;
    enum s3_quotes found = S3_QUOTES_UNKNOWN;
    snprintf(key, sizeof key, STORE_TMP_PREFIX "if-match-%016" PRIx64, os_random());
    TRY(probe_put(s, c, key, NULL, etag, err));
    size_t size = strlen(etag);
    enum rc rc = probe_put(s, c, key, etag, etag, err);
    if (rc == RC_OK) {
        found = S3_QUOTES_KEPT;
    } else if (rc == RC_CONFLICT && size > 2 && etag[0] == '"') {
        snprintf(plain, sizeof plain, "%.*s", (int)size - 2, etag + 1);
        rc = probe_put(s, c, key, wrong, NULL, err);
        if (rc == RC_CONFLICT)
            rc = probe_put(s, c, key, plain, NULL, err);
        else if (rc == RC_OK)
            rc = RC_CONFLICT; /* it took a wrong etag */
        if (rc == RC_OK) found = S3_QUOTES_DROPPED;
    }
    /* Nobody lists a scratch object; one that stays is harmless. */
    if (s3_del(&s->base, c, key, &ignored) != RC_OK) err_clear(&ignored);
    if (found != S3_QUOTES_UNKNOWN) {
        atomic_store(&s->quotes, found);
        return RC_OK;
    }
    if (rc != RC_CONFLICT) return rc;
    return err_set(err, RC_UNSUPPORTED, "'%.200s' does not arbitrate with If-Match", s->base.name);
}

/* Put a byte, with If-Match exactly as given. */
static enum rc probe_put(struct s3 *s, const struct call *c, const char *key, const char *if_etag,
                         char *ret_etag, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s, .c = c, .method = "PUT", .key = key, .verb = "probe If-Match with"};
    char etag[STORE_ETAG_MAX];
    r.http.op = STORE_OP_PUT;
    r.object = "x";
    r.object_size = 1;
    TRY(s3_object_headers(&r, &(struct store_put_opts){0}, false, err));
    if (if_etag != NULL) TRY(http_answer_header(&r.http, err, "If-Match", "%s", if_etag));
    TRY(s3_send(&r, &resp, err));
    TRY(s3_etag(&r, http_resp_header(&resp, "ETag"), etag, err));
    if (ret_etag != NULL) memcpy(ret_etag, etag, sizeof etag);
    return RC_OK;
}

/* The put's own time rather than the service's, when the object tells it. */
static void get_head(void *ctx, const struct http_resp *resp)
{
    static const char *const names[] = {[S3_AWS] = "x-amz-meta-litestream-timestamp",
                                        [S3_GOOGLE] = "x-goog-meta-litestream-timestamp",
                                        [S3_OSS] = "x-oss-meta-litestream-timestamp"};
    struct s3_req *r = ctx;
    struct err ignored;
    int64_t ms;
    const char *text = http_resp_header(resp, names[r->s->conf.dialect]);
    if (r->http.ret_obj == NULL || text == NULL) return;
    if (time_get(text, &ms, &ignored) == RC_OK) r->http.ret_obj->mtime_ms = ms;
}
