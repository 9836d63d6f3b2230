/*
 * gcs_ask.h -- requests to Google Cloud Storage's JSON API: what gcs.c and gcs_put.c share.
 * Threads: a struct gcs_ask has one owner; nothing in struct gcs changes after open.
 */
#ifndef STORE_GCS_ASK_H
#define STORE_GCS_ASK_H
#include "store/gcs_token.h"
#include "store/hash.h"
#include "store/http.h"

#define GCS_ROOT_MAX  500          /* root, '/' and key are a name of at most 1024 bytes */
#define GCS_PART_UNIT (256u << 10) /* all chunks but the last are multiples of it */
#define GCS_STAMP     "litestream-timestamp"
#define GCS_FIELDS    "name,generation,size,timeCreated,md5Hash,metadata"
#define GCS_MD5_TEXT  BASE64_SIZE(MD5_SIZE)

struct gcs {
    struct store base;
    struct http *http;
    struct gcs_token *token; /* NULL: an emulator, which asks for none */
    char origin[GCS_ORIGIN_MAX];
    char bucket[224];
    char root[GCS_ROOT_MAX + 2]; /* "" or a path and '/' */
    size_t part_size;            /* bytes of one request of an upload */
};

/* One request of a driver's call, with all its tries. */
struct gcs_ask {
    struct gcs *g;
    const struct call *c;
    struct http_req req;
    struct http_resp resp;
    struct buf url;   /* ends in \0 */
    struct buf token; /* of the last try */
    char what[STORE_KEY_MAX + 64];
    char pin[32];    /* a generation: tries from now on are for this one only */
    bool pinned;     /* the URL has it */
    bool bare;       /* send no token */
    bool renewed;    /* a token was refused and another one fetched */
    bool missing_ok; /* 404 is a success */
    bool session;    /* of a resumable upload: 308 is an answer, 404 and 410 mean that it is gone */
    bool once;       /* whoever sent it repeats it himself */
    bool any_ok;     /* no matter what the answer is */
    bool gone;       /* the session is */
    int64_t after_ms; /* the service's Retry-After */
};

/* `verb` and key (or NULL) are for messages: "get 'a/b'". */
void gcs_ask_init(struct gcs_ask *a, struct gcs *g, const struct call *c, const char *method,
                  enum store_op op, const char *verb, const char *key);
void gcs_ask_fini(struct gcs_ask *a); /* for CLEANUP */
/* The URL of an object, or with key NULL of the bucket's objects, below `api`. */
MUST_CHECK enum rc gcs_ask_url(struct gcs_ask *a, const char *api, const char *key,
                               struct err *err);
/* Add "?name=value" or "&name=value", with the value encoded. Fails: RC_NO_MEM. */
MUST_CHECK enum rc gcs_ask_query(struct gcs_ask *a, const char *name, const char *value,
                                 struct err *err);
/* Fails: as http_send and gcs_token_get. A missing bucket is RC_INVALID. */
MUST_CHECK enum rc gcs_ask_send(struct gcs_ask *a, struct err *err);
/* The answer's JSON, an object. Fails: RC_AGAIN, since a proxy may have made it up. */
MUST_CHECK enum rc gcs_ask_json(const struct gcs_ask *a, json_t **ret, struct err *err);

/* An object resource. The key is "" when no key of this store can be the object's name. md5 may be
 * NULL; "" when the service has none. Fails: RC_AGAIN when it makes no sense. */
MUST_CHECK enum rc gcs_object(const struct gcs_ask *a, const json_t *json, struct store_obj *ret,
                              char md5[GCS_MD5_TEXT], struct err *err);
/* Ask for an object's metadata. Fails: as gcs_ask_send. */
MUST_CHECK enum rc gcs_look(struct gcs *g, const struct call *c, const char *key,
                            struct store_obj *ret, struct err *err);

/* gcs_put.c: the driver's put. */
MUST_CHECK enum rc gcs_put(struct store *s, const struct call *c, const char *key,
                           const struct store_body *body, const struct store_put_opts *opts,
                           struct store_obj *ret_obj, struct err *err);

bool gcs_digits(const char *text, uint64_t *ret); /* false: not a number */
#endif
