/*
 * s3_conf.h -- from a URL and settings to what the S3 driver needs to know: Litestream's URL forms,
 * parameters and autodetected endpoints, for s3 and oss. Pure; threads: any.
 */
#ifndef STORE_S3_CONF_H
#define STORE_S3_CONF_H
#include "store/driver.h"

/* What differs between services that speak S3's requests: prefix of headers, signature, condition
 * of a create. */
enum s3_dialect {
    S3_AWS,    /* x-amz-, SigV4, If-None-Match: * */
    S3_GOOGLE, /* storage.googleapis.com: x-goog-, GOOG4-HMAC-SHA256, x-goog-if-generation-match */
    S3_OSS,    /* x-oss-, OSS4-HMAC-SHA256, x-oss-forbid-overwrite */
};

struct s3_conf {
    enum s3_dialect dialect;
    char bucket[256];   /* or an access point's alias or ARN */
    char root[768];     /* objects are at root + "/" + key, verbatim: "." for s3://bucket, "" for
                           s3://bucket/, else as written */
    char endpoint[300]; /* "https://host[:port][/path]", without the bucket and a '/' at the end;
                           "": AWS by region */
    bool path_style;
    char region[64]; /* "": ask the service */
    bool sign_payload, content_md5, skip_verify;
    bool tigris;          /* X-Tigris-Consistent: true */
    uint64_t part_size;   /* bytes, at least 5 MiB */
    uint32_t concurrency; /* parts under way */
    char storage_class[64];
    char sse_algorithm[16], sse_key[64], sse_key_md5[32]; /* SSE-C: "AES256", base64, base64 */
    char sse_kms_key_id[256];
    char access_key[256], secret_key[256]; /* "": find them elsewhere (aws_creds.h) */
};

/* Reads sse-customer-key-path. Fails: RC_INVALID, naming the setting and what would be right; by
 * errno for the key file. */
MUST_CHECK enum rc s3_conf_get(struct store_settings *set, bool oss, struct s3_conf *ret,
                               struct err *err);
#endif
