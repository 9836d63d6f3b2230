/*
 * sigv4.h -- signatures of requests: AWS Signature Version 4 and its two descendants, Google's
 * GOOG4-HMAC-SHA256 and Alibaba's OSS4-HMAC-SHA256. They share the derived key (date, region,
 * service) and the signed text (a hash of the canonical request); they differ in names.
 *
 * The path and the query are taken as they stand in the URL, percent-encoded. The path is signed
 * as it is: dot segments and double slashes are part of a key. The query is decoded, encoded anew
 * and sorted, so it may come in any order. Pure; threads: any.
 */
#ifndef STORE_SIGV4_H
#define STORE_SIGV4_H
#include "base/buf.h"

#define SIGV4_UNSIGNED    "UNSIGNED-PAYLOAD"
#define SIGV4_DATE_SIZE   17     /* "20130524T000000Z" */
#define SIGV4_EXPIRES_S   604800 /* a link lives for a week at most */
#define SIGV4_HEADERS_MAX 48
#define SIGV4_PARAMS_MAX  48

enum sigv4_kind { SIGV4_AWS, SIGV4_GOOGLE, SIGV4_OSS };

struct sigv4_header {
    const char *name; /* any case */
    size_t name_size;
    const char *value;
};

struct sigv4 {
    enum sigv4_kind kind;
    const char *access_key, *secret_key;
    const char *region;
    const char *service; /* "s3"; Google and OSS have their own */
    int64_t time_ms;
    const char *method;
    const char *path;    /* "/bucket/key"; for OSS with the bucket, whatever the URL has */
    const char *query;   /* without '?' */
    const char *payload; /* SHA-256 of the body in hex, or SIGV4_UNSIGNED */
    /* All of them are signed, "host" must be one of them (AWS, Google). Of OSS requests only
     * x-oss-*, content-type and content-md5 are. */
    const struct sigv4_header *headers;
    size_t header_count;
};

/* The value of x-amz-date. */
void sigv4_date(int64_t time_ms, char out[SIGV4_DATE_SIZE]);
/* Append the value of the Authorization header. Fails: RC_INVALID too many headers or parameters;
 * RC_NO_MEM. */
MUST_CHECK enum rc sigv4_authorization(const struct sigv4 *s, struct buf *out, struct err *err);
/* Append the query of a link that is good for expires_s from time_ms on: what s->query has, the
 * parameters of the signature, the signature. token: session token or "". Fails: as above;
 * RC_INVALID expires_s. */
MUST_CHECK enum rc sigv4_presign(const struct sigv4 *s, const char *token, int64_t expires_s,
                                 struct buf *out, struct err *err);
#endif
