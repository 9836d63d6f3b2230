/*
 * s3_request.c -- one request of the S3 driver: its URL, its headers, its signature, and what its
 * answer means. See s3_intern.h.
 *
 * Some failures tell how to do better, and are mended on the spot, once each for a request:
 *
 *   the bucket is in another region   sign for it, and go to its endpoint, from now on
 *   our clock is wrong                sign with the service's from now on
 *   the credentials have expired      fetch new ones
 *   checksums are not known           leave them out from now on
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/hash.h"
#include "store/s3_intern.h"
#include "store/sigv4.h"
#include "store/xml.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define MOVES_MAX    2

/* Error codes whose meaning is not what their status says, or which users can do something about.
 */
struct meaning {
    const char *code;
    enum rc rc; /* RC_OK: as the status says */
    const char *advice;
};
static const struct meaning meanings[] = {
    {"AccessDenied", RC_DENIED, "check that the key's policy allows this on the bucket"},
    {"AllAccessDisabled", RC_DENIED, "the bucket is disabled"},
    {"BadDigest", RC_AGAIN, NULL}, /* damaged on its way */
    {"ConditionalRequestConflict", RC_AGAIN, NULL},
    {"EntityTooLarge", RC_TOO_BIG, NULL},
    {"ExpiredToken", RC_DENIED, "the session token has expired"},
    {"ExpiredTokenException", RC_DENIED, "the session token has expired"},
    {"FileAlreadyExists", RC_CONFLICT, NULL},
    {"FileImmutable", RC_DENIED, "a retention policy protects the object"},
    {"IncompleteBody", RC_AGAIN, NULL},
    {"InternalError", RC_AGAIN, NULL},
    {"InvalidAccessKeyId", RC_DENIED, "check the access key"},
    {"InvalidObjectState", RC_DENIED, "the object is archived: bring it back first"},
    {"InvalidPart", RC_IO, NULL}, /* only a new upload helps */
    {"InvalidToken", RC_DENIED, "check the session token"},
    {"MethodNotAllowed", RC_UNSUPPORTED, NULL},
    {"NoSuchBucket", RC_INVALID, NULL},
    {"NoSuchKey", RC_NOT_FOUND, NULL},
    {"NoSuchUpload", RC_IO, NULL}, /* ended by someone else, or by a lost try of ours */
    {"NotImplemented", RC_UNSUPPORTED, NULL},
    {"OperationAborted", RC_AGAIN, NULL},
    {"PermanentRedirect", RC_INVALID, "check region and endpoint"},
    {"PreconditionFailed", RC_CONFLICT, NULL},
    {"QuotaExceeded", RC_NO_SPACE, NULL},
    {"RequestTimeTooSkewed", RC_DENIED, "set this machine's clock"},
    {"RequestTimeout", RC_AGAIN, NULL},
    {"ServiceUnavailable", RC_AGAIN, NULL},
    {"SignatureDoesNotMatch", RC_DENIED, "check the secret key, then region and endpoint"},
    {"SlowDown", RC_AGAIN, NULL},
    {"TemporaryRedirect", RC_INVALID, "check region and endpoint"},
    {"UserSuspended", RC_DENIED, "the account is suspended"},
    {"XAmzContentChecksumMismatch", RC_AGAIN, NULL},
    {"XAmzContentSHA256Mismatch", RC_AGAIN, NULL},
    {"XMinioStorageFull", RC_NO_SPACE, NULL},
};
/* Codes that say that other credentials may do. */
static const char *const expired_codes[] = {"ExpiredToken",         "ExpiredTokenException",
                                            "InvalidToken",         "TokenRefreshRequired",
                                            "SecurityTokenExpired", "InvalidSecurityToken"};

static const char *header_prefix(const struct s3 *s);
static enum rc payload_set(struct s3_req *r, struct err *err);
static enum rc sse_c_headers(struct s3_req *r, struct err *err);
static enum rc sign_try(void *ctx, struct http_req *req, struct err *err);
static enum rc dialect_header(const struct s3 *s, struct http_req *req, const char *name,
                              const char *value, struct err *err);
static enum rc authorize(struct s3_req *r, struct http_req *req, int64_t now_ms, struct err *err);
static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err);
static bool mend(struct s3_req *r, const struct http_resp *resp, const struct s3_error *e,
                 struct retry_hint *hint);
static bool mend_region(struct s3_req *r, const struct http_resp *resp, const struct s3_error *e);
static enum rc meaning_of(const struct s3_req *r, int status, const char *code, enum rc usual);
static const struct meaning *meaning_find(const char *code);

void s3_req_fini(struct s3_req *r)
{
    http_req_fini(&r->http);
    buf_fini(&r->url);
    buf_fini(&r->path);
    mem_wipe(&r->keys, sizeof r->keys);
}

enum rc s3_header(struct s3_req *r, const char *name, const char *value, struct err *err)
{
    return dialect_header(r->s, &r->http, name, value, err);
}

enum rc s3_object_headers(struct s3_req *r, const struct store_put_opts *opts, bool part,
                          struct err *err)
{
    const struct s3_conf *conf = &r->s->conf;
    char time[TIME_TEXT_SIZE];
    TRY(sse_c_headers(r, err));
    if (part) return RC_OK;
    if (conf->storage_class[0] != '\0')
        TRY(s3_header(r, "storage-class", conf->storage_class, err));
    if (conf->sse_kms_key_id[0] != '\0') {
        bool oss = conf->dialect == S3_OSS;
        TRY(s3_header(r, "server-side-encryption", oss ? "KMS" : "aws:kms", err));
        TRY(s3_header(
            r, oss ? "server-side-encryption-key-id" : "server-side-encryption-aws-kms-key-id",
            conf->sse_kms_key_id, err));
    } else if (conf->sse_algorithm[0] != '\0' && conf->sse_key[0] == '\0') {
        TRY(s3_header(r, "server-side-encryption", conf->sse_algorithm, err));
    }
    if (opts->timestamp_ms == 0) return RC_OK;
    time_put(opts->timestamp_ms, true, time);
    return s3_header(r, "meta-litestream-timestamp", time, err);
}

enum rc s3_condition(struct s3_req *r, const struct store_put_opts *opts, struct err *err)
{
    if (opts->if_absent) {
        switch (r->s->conf.dialect) {
        case S3_AWS:
            return http_answer_header(&r->http, err, "If-None-Match", "*");
        case S3_GOOGLE:
            return s3_header(r, "if-generation-match", "0", err);
        case S3_OSS:
            return s3_header(r, "forbid-overwrite", "true", err);
        }
    }
    if (opts->if_etag == NULL) return RC_OK;
    const char *etag = opts->if_etag;
    size_t size = strlen(etag);
    r->if_etag = true;
    if (atomic_load(&r->s->quotes) == S3_QUOTES_DROPPED && size > 2 && etag[0] == '"')
        return http_answer_header(&r->http, err, "If-Match", "%.*s", (int)size - 2, etag + 1);
    return http_answer_header(&r->http, err, "If-Match", "%s", etag);
}

enum rc s3_send(struct s3_req *r, struct http_resp *resp, struct err *err)
{
    struct s3 *s = r->s;
    snprintf(r->what, sizeof r->what, "%s%s%s%s in '%.200s'", r->verb, r->key ? " '" : "",
             r->key ? r->key : "", r->key ? "'" : "", s->base.name);
    r->http.method = r->method;
    r->http.what = r->what;
    r->http.sign = sign_try;
    r->http.judge = judge;
    r->http.ctx = r;
    r->http.idempotent = true;
    if (r->object != NULL) {
        r->body = store_body_bytes(&r->bytes, r->object, r->object_size);
        r->http.body = &r->body;
        r->http.body_size = r->object_size;
    }
    TRY(payload_set(r, err));
    if (s->conf.tigris) TRY(http_answer_header(&r->http, err, "X-Tigris-Consistent", "true"));
    size_t fixed = r->http.headers.size;
    for (unsigned moves = 0;; moves++) {
        r->moved = false;
        r->code[0] = '\0';
        r->http.headers.size = fixed;
        s3_region(s, r->region);
        TRY(s3_url(s, r->key, r->region, &r->url, &r->path, err));
        if (r->query != NULL) {
            r->url.size--;
            TRY(buf_printf(&r->url, err, "?%s", r->query));
            TRY(buf_append(&r->url, "", 1, err));
        }
        r->http.url = (char *)r->url.data;
        http_resp_fini(resp);
        *resp = (struct http_resp){0};
        enum rc rc = http_send(s->http, r->c, &r->http, resp, err);
        if (rc == RC_OK || !r->moved || moves == MOVES_MAX || r->http.delivered > 0) return rc;
    }
}

enum rc s3_object_key(const struct s3 *s, const char *key, struct buf *out, struct err *err)
{
    return buf_printf(out, err, "%s/%s", s->conf.root, key);
}

void s3_host(const char *url, char *out, size_t out_size)
{
    bool tls = strncmp(url, "https", 5) == 0;
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    snprintf(out, out_size, "%.*s", (int)strcspn(host, "/?"), host);
    const char *usual = tls ? ":443" : ":80";
    size_t size = strlen(out), tail = strlen(usual);
    if (size > tail && strcmp(out + size - tail, usual) == 0) out[size - tail] = '\0';
}

void s3_region(struct s3 *s, char out[S3_REGION_SIZE])
{
    thr_lock(&s->lock);
    memcpy(out, s->region, S3_REGION_SIZE);
    thr_unlock(&s->lock);
}

/* An access point's host: "arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME". */
static bool arn_host(const struct s3_conf *conf, const char *region, char *out, size_t out_size)
{
    char account[32], name[64];
    const char *tail = conf->bucket;
    if (strncmp(tail, "arn:", 4) != 0) return false;
    for (int i = 0; i < 4 && tail != NULL; i++)
        tail = (tail = strchr(tail, ':')) ? tail + 1 : NULL;
    if (tail == NULL || sscanf(tail, "%31[0-9]:accesspoint%*1[/:]%63[a-z0-9-]", account, name) != 2)
        return false;
    snprintf(out, out_size, "https://%s-%s.s3-accesspoint.%s.amazonaws.com%s", name, account,
             region, strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    return true;
}

enum rc s3_url(const struct s3 *s, const char *key, const char *region, struct buf *url,
               struct buf *path, struct err *err)
{
    const struct s3_conf *conf = &s->conf;
    CLEANUP(buf_fini) struct buf object = BUF_INIT;
    char base[400];
    /* A certificate for *.s3.amazonaws.com does not cover a bucket with dots. */
    bool in_path = conf->path_style || (conf->endpoint[0] == '\0' && strchr(conf->bucket, '.'));
    bool in_host = !in_path;
    if (conf->endpoint[0] != '\0')
        snprintf(base, sizeof base, "%s", conf->endpoint);
    else if (arn_host(conf, region, base, sizeof base))
        in_path = in_host = false;
    else
        snprintf(base, sizeof base, "https://s3.%s.amazonaws.com%s", region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    const char *host = strstr(base, "://");
    if (host == NULL) return err_set(err, RC_INVALID, "endpoint '%s' is not a URL", base);
    host += 3;
    size_t host_size = strcspn(host, "/");
    bool sign_bucket = conf->dialect == S3_OSS && !in_path;
    buf_reset(url);
    buf_reset(path);
    if (in_path || sign_bucket) {
        TRY(buf_printf(path, err, "%s/", host + host_size));
        TRY(uri_append(path, conf->bucket, false, err));
    } else {
        TRY(buf_printf(path, err, "%s", host + host_size));
    }
    size_t bucket_size = path->size;
    TRY(buf_append(path, "/", 1, err));
    if (key != NULL) {
        TRY(s3_object_key(s, key, &object, err));
        TRY(uri_append(path, (char *)object.data, true, err));
    }
    TRY(buf_append(path, "", 1, err));
    TRY(buf_printf(url, err, "%.*s%s%s%.*s%s", (int)(host - base), base,
                   in_host ? conf->bucket : "", in_host ? "." : "", (int)host_size, host,
                   (char *)path->data + (sign_bucket ? bucket_size : 0)));
    return buf_append(url, "", 1, err);
}

void s3_error_get(const struct http_resp *resp, const char *parent, struct s3_error *ret)
{
    char path[64];
    *ret = (struct s3_error){0};
    if (resp->text.size == 0) return;
    snprintf(path, sizeof path, "%s/Code", parent);
    if (!xml_find(resp->text.data, resp->text.size, path, ret->code, sizeof ret->code)) return;
    snprintf(path, sizeof path, "%s/Message", parent);
    if (!xml_find(resp->text.data, resp->text.size, path, ret->message, sizeof ret->message))
        ret->message[0] = '\0';
    snprintf(path, sizeof path, "%s/Region", parent);
    if (!xml_find(resp->text.data, resp->text.size, path, ret->region, sizeof ret->region))
        ret->region[0] = '\0';
    s3_plain(ret->code);
    s3_plain(ret->message);
}

enum rc s3_code_rc(const char *code)
{
    const struct meaning *m = meaning_find(code);
    return m != NULL ? m->rc : RC_OK;
}

void s3_plain(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
}

enum rc s3_etag(const struct s3_req *r, const char *text, char out[STORE_ETAG_MAX], struct err *err)
{
    if (text == NULL || text[0] == '\0' || strlen(text) >= STORE_ETAG_MAX)
        return err_set(err, RC_AGAIN, "%s: the service's success has no usable ETag", r->what);
    memcpy(out, text, strlen(text) + 1);
    return RC_OK;
}

void s3_etag_quote(const char *text, char out[STORE_ETAG_MAX])
{
    bool bare = text[0] != '\0' && text[0] != '"' && strncmp(text, "W/", 2) != 0;
    int n = snprintf(out, STORE_ETAG_MAX, "%s%s%s", bare ? "\"" : "", text, bare ? "\"" : "");
    if (n >= STORE_ETAG_MAX) out[0] = '\0';
}

bool s3_etag_same(const char *a, const char *b)
{
    size_t a_size = strlen(a), b_size = strlen(b);
    if (a_size >= 2 && a[0] == '"' && a[a_size - 1] == '"') a++, a_size -= 2;
    if (b_size >= 2 && b[0] == '"' && b[b_size - 1] == '"') b++, b_size -= 2;
    return a_size == b_size && memcmp(a, b, a_size) == 0;
}

static const char *header_prefix(const struct s3 *s)
{
    switch (s->conf.dialect) {
    case S3_GOOGLE:
        return "x-goog-";
    case S3_OSS:
        return "x-oss-";
    case S3_AWS:
        break;
    }
    return "x-amz-";
}

static enum rc payload_set(struct s3_req *r, struct err *err)
{
    const struct s3_conf *conf = &r->s->conf;
    const void *data = r->object != NULL ? r->object : r->http.data;
    size_t size = r->object != NULL ? r->object_size : (size_t)r->http.data_size;
    uint8_t digest[SHA256_SIZE];
    char text[BASE64_SIZE(MD5_SIZE)];
    if (conf->dialect == S3_OSS || (!conf->sign_payload && size > 0)) {
        memcpy(r->payload, SIGV4_UNSIGNED, sizeof SIGV4_UNSIGNED);
        if (conf->dialect != S3_OSS || r->object == NULL || size == 0) return RC_OK;
        /* OSS has neither signed payloads nor checksums, but it looks at this. */
        TRY(hash_md5(data, size, digest, err));
        base64_put(digest, MD5_SIZE, text);
        return http_answer_header(&r->http, err, "Content-MD5", "%s", text);
    } else if (size == 0) {
        memcpy(r->payload, EMPTY_SHA256, sizeof EMPTY_SHA256);
    } else {
        TRY(hash_sha256(data, size, digest, err));
        hex_put(digest, sizeof digest, r->payload);
    }
    return RC_OK;
}

static enum rc sse_c_headers(struct s3_req *r, struct err *err)
{
    const struct s3_conf *conf = &r->s->conf;
    if (conf->sse_key[0] == '\0' || conf->dialect != S3_AWS) return RC_OK;
    TRY(s3_header(r, "server-side-encryption-customer-algorithm",
                  conf->sse_algorithm[0] ? conf->sse_algorithm : "AES256", err));
    TRY(s3_header(r, "server-side-encryption-customer-key", conf->sse_key, err));
    return s3_header(r, "server-side-encryption-customer-key-MD5", conf->sse_key_md5, err);
}

static enum rc dialect_header(const struct s3 *s, struct http_req *req, const char *name,
                              const char *value, struct err *err)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", header_prefix(s), name);
    return http_answer_header(req, err, full, "%s", value);
}

static enum rc sign_try(void *ctx, struct http_req *req, struct err *err)
{
    struct s3_req *r = ctx;
    struct s3 *s = r->s;
    char date[SIGV4_DATE_SIZE];
    int64_t now_ms = os_now_ms() + atomic_load(&s->skew_ms);
    TRY(aws_creds_get(s->creds, r->c, &r->keys, err));
    sigv4_date(now_ms, date);
    TRY(dialect_header(s, req, "date", date, err));
    TRY(dialect_header(s, req, "content-sha256", r->payload, err));
    if (r->keys.token[0] != '\0') TRY(dialect_header(s, req, "security-token", r->keys.token, err));
    if (r->crc != NULL && !atomic_load(&s->no_checksum))
        TRY(dialect_header(s, req, "checksum-crc64nvme", r->crc, err));
    if (r->declare_crc && !atomic_load(&s->no_checksum)) {
        TRY(dialect_header(s, req, "checksum-algorithm", "CRC64NVME", err));
        TRY(dialect_header(s, req, "checksum-type", "FULL_OBJECT", err));
    }
    return authorize(r, req, now_ms, err);
}

/* Headers that a proxy may change on the way, or that are not ours, stay out of the signature. */
static bool signable(const char *name, size_t size)
{
    static const char *const loose[] = {
        "accept-encoding",  "user-agent", "authorization", "connection",
        "content-length",   "expect",     "host",          "te",
        "transfer-encoding"};
    for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++)
        if (strlen(loose[i]) == size && strncasecmp(name, loose[i], size) == 0) return false;
    return true;
}

static enum rc authorize(struct s3_req *r, struct http_req *req, int64_t now_ms, struct err *err)
{
    CLEANUP(buf_fini) struct buf value = BUF_INIT;
    struct sigv4_header headers[SIGV4_HEADERS_MAX], *h = headers;
    char host[400];
    size_t at = 0;
    s3_host(req->url, host, sizeof host);
    *h++ = (struct sigv4_header){.name = "host", .name_size = 4, .value = host};
    while (http_header_next(req, &at, &h->name, &h->name_size, &h->value)) {
        if (!signable(h->name, h->name_size)) continue;
        if (++h == headers + SIGV4_HEADERS_MAX)
            return err_set(err, RC_INVALID, "%s: too many headers", r->what);
    }
    struct sigv4 sig = {.kind = (enum sigv4_kind)r->s->conf.dialect,
                        .access_key = r->keys.access_key,
                        .secret_key = r->keys.secret_key,
                        .region = r->region,
                        .service = "s3",
                        .time_ms = now_ms,
                        .method = r->method,
                        .path = (char *)r->path.data,
                        .query = r->query ? r->query : "",
                        .payload = r->payload,
                        .headers = headers,
                        .header_count = (size_t)(h - headers)};
    TRY(sigv4_authorization(&sig, &value, err));
    TRY(buf_append(&value, "", 1, err));
    return http_answer_header(req, err, "Authorization", "%s", (char *)value.data);
}
_Static_assert((int)S3_AWS == SIGV4_AWS && (int)S3_GOOGLE == SIGV4_GOOGLE &&
                   (int)S3_OSS == SIGV4_OSS,
               "a dialect is a kind of signature");

static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err)
{
    struct s3_req *r = ctx;
    struct s3_error e;
    char detail[400];
    s3_error_get(resp, "Error", &e);
    memcpy(r->code, e.code, sizeof r->code);
    const struct meaning *m = meaning_find(e.code);
    bool no_bucket = strcmp(e.code, "NoSuchBucket") == 0;
    const char *advice = m != NULL ? m->advice : NULL;
    snprintf(detail, sizeof detail, "%s%s%.120s%s%s%s", e.code, e.message[0] ? ": " : "", e.message,
             advice ? " (" : "", advice ? advice : "", advice ? ")" : "");
    enum rc usual = http_judge(req, resp, detail[0] ? detail : NULL, hint, err);
    if (no_bucket)
        return err_set(err, RC_INVALID, "%s: bucket '%s' does not exist", r->what,
                       r->s->conf.bucket);
    if (mend(r, resp, &e, hint)) return err->rc = RC_AGAIN;
    return err->rc = meaning_of(r, resp->status, e.code, usual);
}

static bool mend(struct s3_req *r, const struct http_resp *resp, const struct s3_error *e,
                 struct retry_hint *hint)
{
    struct s3 *s = r->s;
    if (mend_region(r, resp, e)) {
        hint->final = true; /* s3_send goes on, with another URL */
        return r->moved = true;
    }
    if (strcmp(e->code, "RequestTimeTooSkewed") == 0 && resp->date_ms != 0 && !r->skewed) {
        atomic_store(&s->skew_ms, resp->date_ms - os_now_ms());
        return r->skewed = hint->at_once = true;
    }
    for (size_t i = 0; i < sizeof expired_codes / sizeof expired_codes[0] && !r->renewed; i++)
        if (strcmp(e->code, expired_codes[i]) == 0 && aws_creds_expired(s->creds, &r->keys))
            return r->renewed = hint->at_once = true;
    bool checked = (r->crc != NULL || r->declare_crc) && !atomic_load(&s->no_checksum);
    if (checked && (resp->status == 400 || resp->status == 501) &&
        s3_code_rc(e->code) != RC_AGAIN && strcasestr(e->message, "checksum") != NULL) {
        atomic_store(&s->no_checksum, true);
        return hint->at_once = true;
    }
    return false;
}

/* The region becomes part of a host's name, so not everything that a service says will do. */
static bool mend_region(struct s3_req *r, const struct http_resp *resp, const struct s3_error *e)
{
    struct s3 *s = r->s;
    const char *region = http_resp_header(resp, "x-amz-bucket-region");
    if (region == NULL) region = e->region;
    if (s->conf.dialect != S3_AWS ||
        (resp->status != 301 && resp->status != 307 && resp->status != 400))
        return false;
    size_t size = strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (size == 0 || size >= S3_REGION_SIZE || region[size] != '\0' || region[0] == '-')
        return false;
    if (strcmp(region, r->region) == 0) return false;
    thr_lock(&s->lock);
    memcpy(s->region, region, size + 1);
    thr_unlock(&s->lock);
    atomic_store(&s->region_known, true);
    return true;
}

static enum rc meaning_of(const struct s3_req *r, int status, const char *code, enum rc usual)
{
    const struct meaning *m = meaning_find(code);
    if (m != NULL && m->rc != RC_OK) return m->rc;
    if (status == 409) return RC_AGAIN; /* others are at it: no verdict yet */
    if (status == 405) return RC_UNSUPPORTED;
    /* The caller of a put takes "not found" for a verdict about its etag. */
    if (status == 404 && r->http.op == STORE_OP_PUT && !r->if_etag) return RC_INVALID;
    return usual;
}

static const struct meaning *meaning_find(const char *code)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(meanings[i].code, code) == 0) return &meanings[i];
    return NULL;
}
