/*
 * s3_intern.h -- what the files of the S3 driver share; nobody else includes it.
 *
 *   s3.c          the operations, single puts and their conditions, links
 *   s3_request.c  one request: URL, headers, signature; what an answer means and how it is mended
 *   s3_multi.c    uploads in parts
 *   s3_list.c     listings, deletes of many
 *
 * Threads: any. `lock` guards the region; the rest is constant or atomic.
 */
#ifndef STORE_S3_INTERN_H
#define STORE_S3_INTERN_H
#include "store/aws_creds.h"
#include "store/http.h"
#include "store/s3_conf.h"

#define S3_REGION_SIZE sizeof(((struct s3_conf *)0)->region)
#define S3_PARTS_MAX   10000
#define S3_PART_MAX    (5ull << 30)

/* How If-Match takes an etag. S3 has it in quotes, as in every answer; older versions of Ceph's
 * gateway compare what stands between the quotes with the quotes and all. */
enum s3_quotes { S3_QUOTES_UNKNOWN, S3_QUOTES_KEPT, S3_QUOTES_DROPPED };

struct s3 {
    struct store base;
    struct s3_conf conf;
    struct http *http;
    struct aws_creds *creds;
    pthread_mutex_t lock;
    char region[S3_REGION_SIZE]; /* [lock] to sign for; never empty */
    atomic_bool region_known;    /* given, or confirmed by the service */
    atomic_int_fast64_t skew_ms; /* the service's clock minus ours */
    atomic_int quotes;           /* enum s3_quotes */
    atomic_bool no_checksum;     /* the service refused x-amz-checksum-* */
    atomic_bool no_delete_many;  /* the service has no DeleteObjects */
};

/* One request. The caller zeroes it, sets these members and those of http that say what is sent and
 * where the answer goes; s3_send does the rest. */
struct s3_req {
    struct s3 *s;
    const struct call *c;
    const char *method;
    const char *key;    /* NULL: the bucket itself */
    const char *query;  /* NULL, or encoded, without '?' */
    const char *verb;   /* for messages: "put", "list" */
    const void *object; /* the object's bytes that this request carries; wins over http.data */
    size_t object_size;
    const char *crc;  /* NULL, or x-amz-checksum-crc64nvme, as long as the service takes it */
    bool declare_crc; /* the checksums of the parts that follow, likewise */
    bool if_etag;     /* "not found" is a verdict about the condition of a put */
    struct http_req http;

    char code[64]; /* of the last failure: "SlowDown"; "" when there was none */

    /* s3_request.c's own */
    struct buf url, path;
    struct store_bytes bytes;
    struct store_body body; /* over object */
    char what[STORE_KEY_MAX * 2];
    char payload[72];
    char region[S3_REGION_SIZE]; /* that the URL and the signature are for */
    struct aws_keys keys;        /* that the last try was signed with */
    bool skewed, renewed;        /* mended once */
    bool moved;                  /* send again: the bucket is in another region */
};
void s3_req_fini(struct s3_req *r); /* for CLEANUP */
/* Append a header whose name begins as the dialect says: "x-amz-" name. */
MUST_CHECK enum rc s3_header(struct s3_req *r, const char *name, const char *value,
                             struct err *err);
/* The headers that new objects get (storage class, encryption, time), or with `part` only those
 * that each request with an object's bytes needs. */
MUST_CHECK enum rc s3_object_headers(struct s3_req *r, const struct store_put_opts *opts, bool part,
                                     struct err *err);
/* The condition of a put. */
MUST_CHECK enum rc s3_condition(struct s3_req *r, const struct store_put_opts *opts,
                                struct err *err);
/* Fails: as http_send; RC_INVALID no such bucket. resp: zeroed by the caller, the last answer. */
MUST_CHECK enum rc s3_send(struct s3_req *r, struct http_resp *resp, struct err *err);
/* The key as it stands in the bucket: root "/" key. */
MUST_CHECK enum rc s3_object_key(const struct s3 *s, const char *key, struct buf *out,
                                 struct err *err);
/* The URL of an object or of the bucket (key NULL), and the path that is signed. Both end in \0. */
MUST_CHECK enum rc s3_url(const struct s3 *s, const char *key, const char *region, struct buf *url,
                          struct buf *path, struct err *err);
/* "host[:port]" of a URL, as the Host header has it. */
void s3_host(const char *url, char *out, size_t out_size);
void s3_region(struct s3 *s, char out[S3_REGION_SIZE]);
/* Code and message of an error document; "" what it does not have. */
struct s3_error {
    char code[64], message[200], region[S3_REGION_SIZE];
};
void s3_error_get(const struct http_resp *resp, const char *parent, struct s3_error *ret);
/* What an error's code says whatever the status was; RC_OK: nothing. */
enum rc s3_code_rc(const char *code);
/* A service's words go into messages and logs: no control characters. */
void s3_plain(char *text);

/* The etag of an answer. Fails: RC_AGAIN there is none. */
MUST_CHECK enum rc s3_etag(const struct s3_req *r, const char *text, char out[STORE_ETAG_MAX],
                           struct err *err);
/* An etag of a document in the form that headers have, with quotes; "" when it is too long. */
void s3_etag_quote(const char *text, char out[STORE_ETAG_MAX]);
bool s3_etag_same(const char *a, const char *b); /* but for quotes */
/* HEAD. Fails: RC_NOT_FOUND, as s3_send. */
MUST_CHECK enum rc s3_stat(struct s3 *s, const struct call *c, const char *key,
                           struct store_obj *ret, struct err *err);
/* The service has answered 412 to If-Match, written as was right when `sent` was known; err holds
 * its words. RC_OK: it misread the etag, send again. Fails: RC_CONFLICT, RC_NOT_FOUND the verdict;
 * RC_UNSUPPORTED conditions mean nothing here. */
MUST_CHECK enum rc s3_refused(struct s3 *s, const struct call *c, const char *key,
                              const char *if_etag, enum s3_quotes sent, struct err *err);
MUST_CHECK enum rc s3_put_one(struct s3 *s, const struct call *c, const char *key, const void *data,
                              size_t size, const struct store_put_opts *opts,
                              struct store_obj *ret_obj, struct err *err);

/* Bytes of a body of unknown size, in order, with one byte read ahead to see its end. */
struct s3_feed {
    const struct store_body *body;
    bool has_ahead, ended;
    uint8_t ahead;
};
MUST_CHECK enum rc s3_feed(struct s3_feed *f, void *dst, size_t size, size_t *ret_size,
                           struct err *err);
/* first: NULL, or the first part of a body of unknown size (part_size bytes, from mem_alloc), which
 * is freed; feed has the rest. */
MUST_CHECK enum rc s3_put_parts(struct s3 *s, const struct call *c, const char *key,
                                const struct store_body *body, struct s3_feed *feed, void *first,
                                const struct store_put_opts *opts, struct store_obj *ret_obj,
                                struct err *err);
/* Bytes of part `number` of a body of unknown size. */
uint64_t s3_stream_part(uint64_t part_size, uint32_t number);
/* Read size bytes at off, in pieces, looking at the deadline between them. */
MUST_CHECK enum rc s3_body_read(const struct call *c, const struct store_body *body, uint64_t off,
                                void *dst, size_t size, struct err *err);

MUST_CHECK enum rc s3_list(struct store *s, const struct call *c, const char *prefix,
                           const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                           struct err *err);
MUST_CHECK enum rc s3_del(struct store *s, const struct call *c, const char *key, struct err *err);
MUST_CHECK enum rc s3_del_many(struct store *s, const struct call *c, const char *const *keys,
                               size_t key_count, struct err *err);
#endif
