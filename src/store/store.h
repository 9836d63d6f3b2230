/*
 * store.h -- a flat namespace of immutable objects: a folder, a bucket, an SFTP tree.
 *
 * A store knows keys and bytes and nothing else. What a key means (level, transactions) is decided
 * once, in log/layout, so a driver stays small and every driver passes one suite,
 * tests/store/conformance.c. Code that uses stores includes this file; code that is a store
 * includes store/driver.h; nobody else sees `struct store_ops`.
 *
 * Keys: 1..512 bytes, '/'-separated segments, none empty, ".", ".." or starting with
 * STORE_TMP_PREFIX. A file store also needs segments of at most 255 bytes, and cannot hold both
 * "a" and "a/b".
 * Threads: calls block; one store may be used by many threads.
 * Layers:  caller -> [fault in tests] -> driver -> [retry, http].
 *
 * Retries are the drivers' own, through store/retry: a failure that comes out of here has been
 * tried again as often as made sense. So a create whose first try took effect and whose answer was
 * lost may end in RC_CONFLICT with the caller's own object: compare before you conclude.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H
#include "base/buf.h"
#include "base/err.h"
#include "base/thr.h"

struct store;
#define STORE_KEY_MAX    512
#define STORE_ETAG_MAX   128
#define STORE_TMP_PREFIX ".sluice-tmp-" /* files that are still being written */

struct store_obj {
    char key[STORE_KEY_MAX + 1];
    char etag[STORE_ETAG_MAX]; /* opaque; "" when the store has none */
    uint64_t size;             /* bytes */
    int64_t mtime_ms;          /* by the store's clock, or the put's timestamp_ms where it can */
};

/* A body that can be read twice, at any offset and by several threads at once, since a put that
 * cannot rewind cannot be retried. A body whose size is not known yet has size STORE_SIZE_UNKNOWN
 * and `next` instead of `read`; it is read once, in order (*ret_size 0: the end), and put in parts
 * or through a temporary file. */
#define STORE_SIZE_UNKNOWN UINT64_MAX
struct store_body {
    uint64_t size; /* bytes */
    enum rc (*read)(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);
    enum rc (*next)(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err);
    void *ctx;
};
typedef enum rc store_sink_fn(void *ctx, const void *data, size_t size, struct err *err);
typedef enum rc store_list_fn(void *ctx, const struct store_obj *obj, struct err *err);

/* Optional arguments; NULL or zero is the default, so a call names only what it changes. */
struct store_get_opts {
    uint64_t off, size;        /* size 0: to the end */
    struct store_obj *ret_obj; /* NULL, or filled in before the sink sees a byte; size: the whole */
};
struct store_put_opts {
    bool if_absent;       /* create, never overwrite */
    const char *if_etag;  /* NULL, or replace only the version with this etag */
    int64_t timestamp_ms; /* 0: now. Kept as mtime or metadata, for restores by time */
};
struct store_list_opts {
    const char *after;  /* start past this key */
    uint32_t count_max; /* 0: all */
};

enum store_cap {
    STORE_CAP_CREATE = 1 << 0,     /* if_absent arbitrates between writers */
    STORE_CAP_RANGE = 1 << 1,      /* get honours off/size without reading the rest */
    STORE_CAP_LIST_AFTER = 1 << 2, /* `after` is a seek, not a filter */
    STORE_CAP_TIMESTAMP = 1 << 3,  /* listings give back the put's timestamp_ms */
    STORE_CAP_CAS = 1 << 4,        /* if_etag arbitrates between writers */
    STORE_CAP_STREAM = 1 << 5,     /* a body of unknown size needs no temporary file */
};
bool store_can(const struct store *s, enum store_cap cap);
const char *store_name(const struct store *s); /* its URL with secrets removed */
const char *store_type(const struct store *s); /* "file" */

/* A setting beside the URL, by its name in litestream.yml: "region", "part-size". */
struct store_setting {
    const char *key, *value;
};
/* What a store did after it had failed for a while: one line for a log. */
struct store_trouble {
    uint64_t count;     /* tries that failed */
    int64_t elapsed_ms; /* from the first failure to the first success */
    struct err first, last;
};
typedef void store_trouble_fn(void *ctx, const char *store_name, const struct store_trouble *t);
struct store_conf {
    const char *type; /* "s3"; NULL or "": the URL's scheme says it */
    const char *url;  /* NULL or "": the settings say it all */
    const struct store_setting *settings;
    size_t setting_count;
    store_trouble_fn *on_trouble; /* NULL, or called by any thread once trouble has ended */
    void *on_trouble_ctx;
};

/* Open by URL ("file:///abs", "/abs", "rel/path", "mem://name"). A mem store lives in this process
 * and is shared by all who open its name, until the last one closes it; "mem://" is a private one.
 * No I/O: the first real call reports what is wrong. Fails: RC_INVALID url; RC_UNSUPPORTED scheme
 * not built in; RC_NO_MEM. */
MUST_CHECK enum rc store_open(const char *url, struct store **ret_store, struct err *err);
/* The same with settings, which win over those in the URL's query ("?region=x&forcePathStyle=true";
 * both spellings of a name are known). conf is not kept.
 * Fails: as store_open; RC_INVALID a setting that this store does not have, or its value. */
MUST_CHECK enum rc store_open_conf(const struct store_conf *conf, struct store **ret_store,
                                   struct err *err);
void store_close(struct store *s); /* NULL is fine */

/* Write one object, whole or not at all: no reader ever sees half. After RC_AGAIN, RC_IO or
 * RC_CANCELED the object may or may not exist. ret_obj may be NULL.
 * Fails: RC_CONFLICT if_absent and it exists (see above), if_etag and it has another; RC_NOT_FOUND
 * if_etag and there is none; RC_UNSUPPORTED if_absent or if_etag here; RC_INVALID key;
 * RC_AGAIN, RC_DENIED, RC_NO_SPACE, RC_IO, RC_CANCELED, the body's rc. */
MUST_CHECK enum rc store_put(struct store *s, const struct call *c, const char *key,
                             const struct store_body *body, const struct store_put_opts *opts,
                             struct store_obj *ret_obj, struct err *err);
/* Stream an object or a range of it; on failure the sink may have seen a prefix. A range that
 * starts at or past the end, or an empty object, delivers nothing: the sink is not called.
 * Fails: RC_NOT_FOUND, RC_AGAIN, RC_DENIED, RC_IO, RC_CANCELED, the sink's rc. */
MUST_CHECK enum rc store_get(struct store *s, const struct call *c, const char *key,
                             const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                             struct err *err);
/* Exactly `size` bytes at off into dst. Fails: as store_get; RC_CORRUPT when there are fewer. */
MUST_CHECK enum rc store_read(struct store *s, const struct call *c, const char *key, uint64_t off,
                              void *dst, size_t size, struct err *err);
/* Call fn for each key that starts with prefix, in ascending byte order; fn's failure ends the
 * walk. An empty or missing prefix is success. Fails: RC_AGAIN, RC_DENIED, RC_IO, RC_CANCELED,
 * RC_CORRUPT a listing that makes no sense, fn's rc. */
MUST_CHECK enum rc store_list(struct store *s, const struct call *c, const char *prefix,
                              const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                              struct err *err);
/* Delete keys. A missing key counts as deleted, so repeating is harmless; on failure some keys may
 * be gone. Fails: RC_AGAIN, RC_DENIED, RC_IO, RC_CANCELED. */
MUST_CHECK enum rc store_del(struct store *s, const struct call *c, const char *const *keys,
                             size_t key_count, struct err *err);

/* A link that lets whoever has it get (or, `put`, write) one object until it expires. No I/O beyond
 * fetching credentials. `out` gets the text. Fails: RC_UNSUPPORTED here; RC_INVALID; RC_DENIED. */
MUST_CHECK enum rc store_presign(struct store *s, const struct call *c, const char *key, bool put,
                                 int64_t expires_s, struct buf *out, struct err *err);

/* Requests are counted as the service bills them: each try, each part, each page of a listing. */
#define STORE_OPS(X) X(PUT, put) X(GET, get) X(LIST, list) X(DEL, delete) X(OTHER, other)
enum store_op {
#define X(NAME, name) STORE_OP_##NAME,
    STORE_OPS(X)
#undef X
        STORE_OP_COUNT
};
struct store_stats {
    uint64_t requests[STORE_OP_COUNT];
    uint64_t failed[STORE_OP_COUNT]; /* of them, those without a usable answer */
    uint64_t throttled;              /* answers that asked to slow down */
    uint64_t bytes_up, bytes_down;   /* of objects, as far as they were moved */
};
const char *store_op_name(enum store_op op);
void store_stats(const struct store *s, struct store_stats *ret_stats);

/* A body over memory (ctx must outlive the put). */
struct store_bytes {
    const void *data;
};
struct store_body store_body_bytes(struct store_bytes *b, const void *data, uint64_t size);
#endif
