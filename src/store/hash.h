/*
 * hash.h -- digests, encodings and signatures that the services ask for, over OpenSSL's libcrypto.
 * Threads: any. Pure, except that RSA keys are parsed from text.
 */
#ifndef STORE_HASH_H
#define STORE_HASH_H
#include "base/buf.h"

#define SHA256_SIZE    32
#define SHA1_SIZE      20
#define MD5_SIZE       16
#define HEX_SIZE(n)    ((n)*2 + 1)
#define BASE64_SIZE(n) (((n) + 2) / 3 * 4 + 1)

/* Fails: RC_NO_MEM. */
MUST_CHECK enum rc hash_sha256(const void *data, size_t size, uint8_t out[SHA256_SIZE],
                               struct err *err);
MUST_CHECK enum rc hash_md5(const void *data, size_t size, uint8_t out[MD5_SIZE], struct err *err);
MUST_CHECK enum rc hash_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                                    uint8_t out[SHA256_SIZE], struct err *err);

/* SHA-256 or MD5 of a stream. */
enum hash_kind { HASH_SHA256, HASH_MD5 };
struct hash {
    void *state;
};
MUST_CHECK enum rc hash_begin(struct hash *h, enum hash_kind kind, struct err *err);
MUST_CHECK enum rc hash_add(struct hash *h, const void *data, size_t size, struct err *err);
MUST_CHECK enum rc hash_end(struct hash *h, uint8_t *out, struct err *err); /* 32 or 16 bytes */
void hash_fini(struct hash *h);                                             /* for CLEANUP */

/* CRC-64/NVME as S3 uses it: reflected polynomial 0x9A6C9329AC4BC9B5, initial value and final xor
 * all ones; check("123456789") = 0xAE8B14860A799888. Chained as crc64() is. */
uint64_t hash_crc64nvme(uint64_t crc, const void *data, size_t size);

void hex_put(const void *data, size_t size, char *out);    /* HEX_SIZE(size), lower case */
void base64_put(const void *data, size_t size, char *out); /* BASE64_SIZE(size), with padding */
/* Standard or URL alphabet, padding optional. Fails: RC_INVALID; RC_TOO_BIG for out. */
MUST_CHECK enum rc base64_get(const char *text, uint8_t *out, size_t out_size, size_t *ret_size,
                              struct err *err);
/* URL alphabet without padding, as JWTs have it. */
MUST_CHECK enum rc base64url_append(struct buf *b, const void *data, size_t size, struct err *err);
/* RFC 3986: all but unreserved characters become %XX; '/' stays when keep_slash. */
MUST_CHECK enum rc uri_append(struct buf *b, const char *text, bool keep_slash, struct err *err);
/* RSASSA-PKCS1-v1_5 with SHA-256 (RS256). Fails: RC_INVALID the key; RC_NO_MEM. */
MUST_CHECK enum rc hash_rs256(const char *pem, const void *data, size_t size, struct buf *out,
                              struct err *err);
#endif
