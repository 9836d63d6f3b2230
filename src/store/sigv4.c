/*
 * sigv4.c -- see sigv4.h.
 *
 *   canonical request = method \n path \n sorted query \n headers \n signed names \n payload
 *   text to sign      = algorithm \n date \n scope \n hex(sha256(canonical request))
 *   scope             = day / region / service / terminator
 *   key               = hmac(hmac(hmac(hmac(prefix + secret, day), region), service), terminator)
 *   signature         = hex(hmac(key, text to sign))
 */
#include "store/sigv4.h"
#include "base/mem.h"
#include "store/hash.h"
#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <stdio.h>
#include <stdlib.h>

#define SCOPE_SIZE 160

struct flavour {
    const char *algorithm, *prefix, *service, *terminator;
    /* names of a link's parameters */
    const char *p_algorithm, *p_credential, *p_date, *p_expires, *p_signed, *p_token, *p_signature;
    bool empty_has_equals; /* a parameter without a value is "acl=", not "acl" */
};

static const struct flavour flavours[] = {
    [SIGV4_AWS] = {"AWS4-HMAC-SHA256", "AWS4", NULL, "aws4_request", "X-Amz-Algorithm",
                   "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
                   "X-Amz-Security-Token", "X-Amz-Signature", true},
    [SIGV4_GOOGLE] = {"GOOG4-HMAC-SHA256", "GOOG4", "storage", "goog4_request", "X-Goog-Algorithm",
                      "X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders",
                      "X-Goog-Security-Token", "X-Goog-Signature", true},
    [SIGV4_OSS] = {"OSS4-HMAC-SHA256", "aliyun_v4", "oss", "aliyun_v4_request",
                   "x-oss-signature-version", "x-oss-credential", "x-oss-date", "x-oss-expires",
                   NULL, "x-oss-security-token", "x-oss-signature", false},
};

struct param {
    const char *name, *value; /* offsets until the text has settled, then pointers */
    size_t name_off, value_off;
};

/* The headers of a request in canonical form: order[] sorts those that count. */
struct canon {
    const struct sigv4_header *order[SIGV4_HEADERS_MAX];
    size_t count;
};

static const struct flavour *flavour_of(const struct sigv4 *s);
static const char *service_of(const struct sigv4 *s);
static enum rc scope_put(const struct sigv4 *s, const char *date, char out[SCOPE_SIZE],
                         struct err *err);
static enum rc sort_headers(const struct sigv4 *s, struct canon *ret, struct err *err);
static bool oss_signs(const struct sigv4_header *h);
static int by_header_name(const void *a, const void *b);
static enum rc add_headers(const struct canon *canon, struct buf *out, struct err *err);
static enum rc add_value(const char *value, struct buf *out, struct err *err);
static enum rc add_names(const struct canon *canon, struct buf *out, struct err *err);
static enum rc add_query(const struct sigv4 *s, const char *query, struct buf *out,
                         struct err *err);
static enum rc recode(const char *text, size_t size, struct buf *out, struct err *err);
static int by_param(const void *a, const void *b);
static enum rc sign(const struct sigv4 *s, const struct canon *canon, const char *date,
                    const char *query, char out[HEX_SIZE(SHA256_SIZE)], struct err *err);
static enum rc derive_key(const struct sigv4 *s, const char *date, uint8_t key[SHA256_SIZE],
                          struct err *err);
static enum rc add_param(struct buf *out, const char *name, const char *value, struct err *err);

void sigv4_date(int64_t time_ms, char out[SIGV4_DATE_SIZE])
{
    time_t t = (time_t)(time_ms / 1000);
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm) == 0)
        memcpy(out, "19700101T000000Z", SIGV4_DATE_SIZE);
}

enum rc sigv4_authorization(const struct sigv4 *s, struct buf *out, struct err *err)
{
    const struct flavour *f = flavour_of(s);
    char date[SIGV4_DATE_SIZE], scope[SCOPE_SIZE], signature[HEX_SIZE(SHA256_SIZE)];
    struct canon canon = {0};
    sigv4_date(s->time_ms, date);
    TRY(scope_put(s, date, scope, err));
    TRY(sort_headers(s, &canon, err));
    TRY(sign(s, &canon, date, s->query, signature, err));
    TRY(buf_printf(out, err, "%s Credential=%s/%s,", f->algorithm, s->access_key, scope));
    if (s->kind != SIGV4_OSS) {
        TRY(buf_printf(out, err, "SignedHeaders="));
        TRY(add_names(&canon, out, err));
        TRY(buf_append(out, ",", 1, err));
    }
    return buf_printf(out, err, "Signature=%s", signature);
}

enum rc sigv4_presign(const struct sigv4 *s, const char *token, int64_t expires_s, struct buf *out,
                      struct err *err)
{
    const struct flavour *f = flavour_of(s);
    CLEANUP(buf_fini) struct buf names = BUF_INIT, credential = BUF_INIT, query = BUF_INIT;
    char date[SIGV4_DATE_SIZE], scope[SCOPE_SIZE], signature[HEX_SIZE(SHA256_SIZE)], expires[24];
    struct canon canon = {0};
    if (expires_s < 1 || expires_s > SIGV4_EXPIRES_S)
        return err_set(err, RC_INVALID, "a link can live for 1 s to %d s, not for %lld s",
                       SIGV4_EXPIRES_S, (long long)expires_s);
    sigv4_date(s->time_ms, date);
    TRY(scope_put(s, date, scope, err));
    TRY(sort_headers(s, &canon, err));
    TRY(add_names(&canon, &names, err));
    TRY(buf_append(&names, "", 1, err));
    TRY(buf_printf(&credential, err, "%s/%s", s->access_key, scope));
    snprintf(expires, sizeof expires, "%lld", (long long)expires_s);
    TRY(buf_append(&query, s->query, strlen(s->query), err));
    TRY(add_param(&query, f->p_algorithm, f->algorithm, err));
    TRY(add_param(&query, f->p_credential, (char *)credential.data, err));
    TRY(add_param(&query, f->p_date, date, err));
    TRY(add_param(&query, f->p_expires, expires, err));
    if (f->p_signed != NULL) TRY(add_param(&query, f->p_signed, (char *)names.data, err));
    if (token[0] != '\0') TRY(add_param(&query, f->p_token, token, err));
    TRY(buf_append(&query, "", 1, err));
    TRY(sign(s, &canon, date, (char *)query.data, signature, err));
    query.size--;
    TRY(add_param(&query, f->p_signature, signature, err));
    return buf_append(out, query.data, query.size, err);
}

static const struct flavour *flavour_of(const struct sigv4 *s)
{
    return &flavours[s->kind];
}

static const char *service_of(const struct sigv4 *s)
{
    return flavour_of(s)->service != NULL ? flavour_of(s)->service : s->service;
}

static enum rc scope_put(const struct sigv4 *s, const char *date, char out[SCOPE_SIZE],
                         struct err *err)
{
    int n = snprintf(out, SCOPE_SIZE, "%.8s/%s/%s/%s", date, s->region, service_of(s),
                     flavour_of(s)->terminator);
    if (n < SCOPE_SIZE) return RC_OK;
    return err_set(err, RC_INVALID, "region '%.40s...' is too long", s->region);
}

static enum rc sort_headers(const struct sigv4 *s, struct canon *ret, struct err *err)
{
    for (size_t i = 0; i < s->header_count; i++) {
        if (s->kind == SIGV4_OSS && !oss_signs(&s->headers[i])) continue;
        if (ret->count == SIGV4_HEADERS_MAX)
            return err_set(err, RC_INVALID, "more than %d headers to sign", SIGV4_HEADERS_MAX);
        ret->order[ret->count++] = &s->headers[i];
    }
    qsort(ret->order, ret->count, sizeof ret->order[0], by_header_name);
    return RC_OK;
}

static bool oss_signs(const struct sigv4_header *h)
{
    if (h->name_size > 6 && strncasecmp(h->name, "x-oss-", 6) == 0) return true;
    return (h->name_size == 12 && strncasecmp(h->name, "content-type", 12) == 0) ||
           (h->name_size == 11 && strncasecmp(h->name, "content-md5", 11) == 0);
}

/* Headers of one name keep their order: they stand in one array. */
static int by_header_name(const void *a, const void *b)
{
    const struct sigv4_header *x = *(const struct sigv4_header *const *)a;
    const struct sigv4_header *y = *(const struct sigv4_header *const *)b;
    size_t size = x->name_size < y->name_size ? x->name_size : y->name_size;
    int order = strncasecmp(x->name, y->name, size);
    if (order != 0) return order;
    if (x->name_size != y->name_size) return x->name_size < y->name_size ? -1 : 1;
    return x < y ? -1 : x > y;
}

static bool same_name(const struct canon *canon, size_t i)
{
    const struct sigv4_header *x = canon->order[i - 1], *y = canon->order[i];
    return x->name_size == y->name_size && strncasecmp(x->name, y->name, x->name_size) == 0;
}

static enum rc add_name(const struct sigv4_header *h, struct buf *out, struct err *err)
{
    TRY(buf_reserve(out, h->name_size, err));
    for (size_t i = 0; i < h->name_size; i++)
        out->data[out->size++] = (uint8_t)tolower((unsigned char)h->name[i]);
    return RC_OK;
}

static enum rc add_headers(const struct canon *canon, struct buf *out, struct err *err)
{
    for (size_t i = 0; i < canon->count; i++) {
        if (i > 0 && same_name(canon, i)) {
            out->size--; /* the line break */
            TRY(buf_append(out, ",", 1, err));
        } else {
            TRY(add_name(canon->order[i], out, err));
            TRY(buf_append(out, ":", 1, err));
        }
        TRY(add_value(canon->order[i]->value, out, err));
        TRY(buf_append(out, "\n", 1, err));
    }
    return RC_OK;
}

/* Without blanks at its ends, and a run of blanks counts as one. */
static enum rc add_value(const char *value, struct buf *out, struct err *err)
{
    bool first = true;
    for (;;) {
        value += strspn(value, " \t");
        size_t size = strcspn(value, " \t");
        if (size == 0) return RC_OK;
        if (!first) TRY(buf_append(out, " ", 1, err));
        TRY(buf_append(out, value, size, err));
        value += size;
        first = false;
    }
}

static enum rc add_names(const struct canon *canon, struct buf *out, struct err *err)
{
    for (size_t i = 0; i < canon->count; i++) {
        if (i > 0 && same_name(canon, i)) continue;
        if (i > 0) TRY(buf_append(out, ";", 1, err));
        TRY(add_name(canon->order[i], out, err));
    }
    return RC_OK;
}

static enum rc add_query(const struct sigv4 *s, const char *query, struct buf *out, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    struct param params[SIGV4_PARAMS_MAX];
    size_t count = 0;
    for (const char *p = query; *p != '\0'; p += strspn(p, "&")) {
        size_t size = strcspn(p, "&"), name_size = strcspn(p, "=&");
        if (size == 0) continue;
        if (count == SIGV4_PARAMS_MAX)
            return err_set(err, RC_INVALID, "more than %d parameters to sign", SIGV4_PARAMS_MAX);
        params[count].name_off = text.size;
        TRY(recode(p, name_size, &text, err));
        params[count].value_off = text.size;
        if (name_size < size)
            TRY(recode(p + name_size + 1, size - name_size - 1, &text, err));
        else
            TRY(buf_append(&text, "", 1, err));
        count++;
        p += size;
    }
    for (size_t i = 0; i < count; i++) {
        params[i].name = (char *)text.data + params[i].name_off;
        params[i].value = (char *)text.data + params[i].value_off;
    }
    qsort(params, count, sizeof params[0], by_param);
    for (size_t i = 0; i < count; i++) {
        bool equals = flavour_of(s)->empty_has_equals || params[i].value[0] != '\0';
        TRY(buf_printf(out, err, "%s%s%s%s", i > 0 ? "&" : "", params[i].name, equals ? "=" : "",
                       params[i].value));
    }
    return RC_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode %XX and encode again in the one way that is signed; \0 behind it. */
static enum rc recode(const char *text, size_t size, struct buf *out, struct err *err)
{
    static const char digits[] = "0123456789ABCDEF";
    TRY(buf_reserve(out, size * 3 + 1, err));
    for (size_t i = 0; i < size; i++) {
        int high = i + 2 < size && text[i] == '%' ? hex_digit(text[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
        uint8_t byte = (uint8_t)text[i];
        if (low >= 0) {
            byte = (uint8_t)(high << 4 | low);
            i += 2;
        }
        if (isalnum(byte) || (byte != 0 && strchr("-._~", byte) != NULL)) {
            out->data[out->size++] = byte;
        } else {
            out->data[out->size++] = '%';
            out->data[out->size++] = (uint8_t)digits[byte >> 4];
            out->data[out->size++] = (uint8_t)digits[byte & 15];
        }
    }
    out->data[out->size++] = '\0';
    return RC_OK;
}

static int by_param(const void *a, const void *b)
{
    const struct param *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : strcmp(x->value, y->value);
}

static enum rc sign(const struct sigv4 *s, const struct canon *canon, const char *date,
                    const char *query, char out[HEX_SIZE(SHA256_SIZE)], struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    char scope[SCOPE_SIZE], hex[HEX_SIZE(SHA256_SIZE)];
    uint8_t digest[SHA256_SIZE], key[SHA256_SIZE];
    TRY(scope_put(s, date, scope, err));
    TRY(buf_printf(&text, err, "%s\n%s\n", s->method, s->path));
    TRY(add_query(s, query, &text, err));
    TRY(buf_append(&text, "\n", 1, err));
    TRY(add_headers(canon, &text, err));
    TRY(buf_append(&text, "\n", 1, err));
    if (s->kind != SIGV4_OSS) TRY(add_names(canon, &text, err));
    TRY(buf_printf(&text, err, "\n%s", s->payload));
    TRY(hash_sha256(text.data, text.size, digest, err));
    hex_put(digest, sizeof digest, hex);
    buf_reset(&text);
    TRY(buf_printf(&text, err, "%s\n%s\n%s\n%s", flavour_of(s)->algorithm, date, scope, hex));
    TRY(derive_key(s, date, key, err));
    TRY(hash_hmac_sha256(key, sizeof key, text.data, text.size, digest, err));
    hex_put(digest, sizeof digest, out);
    return RC_OK;
}

static enum rc derive_key(const struct sigv4 *s, const char *date, uint8_t key[SHA256_SIZE],
                          struct err *err)
{
    const struct flavour *f = flavour_of(s);
    CLEANUP(buf_fini) struct buf secret = BUF_INIT;
    const char *steps[] = {s->region, service_of(s), f->terminator};
    TRY(buf_printf(&secret, err, "%s%s", f->prefix, s->secret_key));
    enum rc rc = hash_hmac_sha256(secret.data, secret.size, date, 8, key, err);
    mem_wipe(secret.data, secret.cap);
    for (size_t i = 0; i < 3 && rc == RC_OK; i++)
        rc = hash_hmac_sha256(key, SHA256_SIZE, steps[i], strlen(steps[i]), key, err);
    return rc;
}

static enum rc add_param(struct buf *out, const char *name, const char *value, struct err *err)
{
    TRY(buf_printf(out, err, "%s%s=", out->size > 0 ? "&" : "", name));
    return uri_append(out, value, false, err);
}
