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
 * Layers:  caller -> [fault in tests] -> driver.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H
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

/* A body that can be read twice: a put that cannot rewind cannot be retried. */
struct store_body {
    uint64_t size;
    enum rc (*read)(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);
    void *ctx;
};
typedef enum rc store_sink_fn(void *ctx, const void *data, size_t size, struct err *err);
typedef enum rc store_list_fn(void *ctx, const struct store_obj *obj, struct err *err);

/* Optional arguments; NULL or zero is the default, so a call names only what it changes. */
struct store_get_opts {
    uint64_t off, size; /* size 0: to the end */
};
struct store_put_opts {
    bool if_absent;       /* create, never overwrite */
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
};
bool store_can(const struct store *s, enum store_cap cap);
const char *store_name(const struct store *s); /* its URL with secrets removed */
const char *store_type(const struct store *s); /* "file" */

/* Open by URL ("file:///abs", "/abs", "rel/path", "mem://name"). A mem store lives in this process
 * and is shared by all who open its name, until the last one closes it; "mem://" is a private one.
 * No I/O: the first real call reports what is wrong. Fails: RC_INVALID url; RC_UNSUPPORTED scheme
 * not built in; RC_NO_MEM. */
MUST_CHECK enum rc store_open(const char *url, struct store **ret_store, struct err *err);
void store_close(struct store *s); /* NULL is fine */

/* Write one object, whole or not at all: no reader ever sees half. After RC_AGAIN, RC_IO or
 * RC_CANCELED the object may or may not exist. ret_obj may be NULL.
 * Fails: RC_CONFLICT if_absent and it exists; RC_UNSUPPORTED if_absent here; RC_INVALID key;
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
 * fn's rc. */
MUST_CHECK enum rc store_list(struct store *s, const struct call *c, const char *prefix,
                              const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                              struct err *err);
/* Delete keys. A missing key counts as deleted, so repeating is harmless; on failure some keys may
 * be gone. Fails: RC_AGAIN, RC_DENIED, RC_IO, RC_CANCELED. */
MUST_CHECK enum rc store_del(struct store *s, const struct call *c, const char *const *keys,
                             size_t key_count, struct err *err);

/* A body over memory (ctx must outlive the put). */
struct store_bytes {
    const void *data;
};
struct store_body store_body_bytes(struct store_bytes *b, const void *data, uint64_t size);
#endif
