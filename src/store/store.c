/* store.c -- open by URL, check arguments once for all drivers, dispatch; see store.h. */
#include "store/store.h"
#include "base/mem.h"
#include "store/driver.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Every driver of this build, once. The first one also takes paths without a scheme. */
static const struct store_ops *const drivers[] = {
    &store_file_ops,
    &store_mem_ops,
};
#define DRIVER_COUNT (sizeof drivers / sizeof drivers[0])

/* Listing: what stands between a driver and the caller's fn. */
struct lister {
    store_list_fn *fn;
    void *ctx;
    const char *after; /* "" when not given */
    uint32_t count, count_max;
    bool full; /* count_max reached: the driver's failure is our own stop sign */
};

/* store_read: where the next bytes go. */
struct reader {
    uint8_t *dst;
    size_t done, size;
};

static enum rc key_check(const char *key, struct err *err);
static enum rc prefix_check(const char *prefix, struct err *err);
static bool segment_ok(const char *segment, size_t size);
static enum rc scheme_unknown(const char *scheme, struct err *err);
static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err);
static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err);
static enum rc bytes_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);

bool store_can(const struct store *s, enum store_cap cap)
{
    return (s->ops->caps & (uint32_t)cap) != 0;
}

const char *store_name(const struct store *s)
{
    return s->name;
}

const char *store_type(const struct store *s)
{
    return s->ops->type;
}

enum rc store_open(const char *url, struct store **ret_store, struct err *err)
{
    struct url parts;
    if (url[0] == '\0')
        return err_set(err, RC_INVALID, "empty store URL: give file:///path or a plain path");
    if (url_get(url, &parts, err) != RC_OK) {
        err->rc = RC_INVALID;
        return err_wrap(err, "store URL");
    }
    if (parts.scheme[0] == '\0') return drivers[0]->open(&parts, ret_store, err);
    for (size_t i = 0; i < DRIVER_COUNT; i++)
        if (strcasecmp(drivers[i]->type, parts.scheme) == 0)
            return drivers[i]->open(&parts, ret_store, err);
    return scheme_unknown(parts.scheme, err);
}

void store_close(struct store *s)
{
    if (s != NULL) s->ops->close(s);
}

enum rc store_put(struct store *s, const struct call *c, const char *key,
                  const struct store_body *body, const struct store_put_opts *opts,
                  struct store_obj *ret_obj, struct err *err)
{
    static const struct store_put_opts none;
    struct store_obj obj = {0};
    if (opts == NULL) opts = &none;
    TRY(key_check(key, err));
    if (opts->timestamp_ms < 0)
        return err_set(err, RC_INVALID, "put '%s': its time is before 1970", key);
    if (opts->if_absent && !store_can(s, STORE_CAP_CREATE))
        return err_set(err, RC_UNSUPPORTED, "put '%s': '%s' cannot create without overwriting", key,
                       s->name);
    TRY(call_check(c, err));
    TRY(s->ops->put(s, c, key, body, opts, &obj, err));
    if (ret_obj != NULL) *ret_obj = obj;
    return RC_OK;
}

enum rc store_get(struct store *s, const struct call *c, const char *key,
                  const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                  struct err *err)
{
    struct store_get_opts range = opts ? *opts : (struct store_get_opts){0};
    TRY(key_check(key, err));
    if (range.size > UINT64_MAX - range.off) range.size = 0; /* past any end: the rest of it */
    TRY(call_check(c, err));
    return s->ops->get(s, c, key, &range, sink, ctx, err);
}

enum rc store_read(struct store *s, const struct call *c, const char *key, uint64_t off, void *dst,
                   size_t size, struct err *err)
{
    struct reader r = {.dst = dst, .size = size};
    if (size == 0) return key_check(key, err); /* a size of 0 means "the rest" to store_get */
    TRY(store_get(s, c, key, &(struct store_get_opts){.off = off, .size = size}, take_bytes, &r,
                  err));
    if (r.done == size) return RC_OK;
    return err_set(err, RC_CORRUPT, "read '%s': wanted %zu bytes at %llu, the object has only %zu",
                   key, size, (unsigned long long)off, r.done);
}

enum rc store_list(struct store *s, const struct call *c, const char *prefix,
                   const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                   struct err *err)
{
    struct store_list_opts hints = opts ? *opts : (struct store_list_opts){0};
    if (hints.after == NULL) hints.after = "";
    struct lister l = {.fn = fn, .ctx = ctx, .after = hints.after, .count_max = hints.count_max};
    TRY(prefix_check(prefix, err));
    TRY(call_check(c, err));
    enum rc rc = s->ops->list(s, c, prefix, &hints, take_object, &l, err);
    if (!l.full) return rc;
    err_clear(err);
    return RC_OK;
}

enum rc store_del(struct store *s, const struct call *c, const char *const *keys, size_t key_count,
                  struct err *err)
{
    for (size_t i = 0; i < key_count; i++)
        TRY(key_check(keys[i], err));
    TRY(call_check(c, err));
    if (s->ops->del_many != NULL && key_count > 0)
        return s->ops->del_many(s, c, keys, key_count, err);
    for (size_t i = 0; i < key_count; i++) {
        TRY(call_check(c, err));
        TRY(s->ops->del(s, c, keys[i], err));
    }
    return RC_OK;
}

struct store_body store_body_bytes(struct store_bytes *b, const void *data, uint64_t size)
{
    b->data = data;
    return (struct store_body){.size = size, .read = bytes_read, .ctx = b};
}

uint64_t store_range(const struct store_get_opts *opts, uint64_t object_size)
{
    if (opts->off >= object_size) return 0;
    uint64_t rest = object_size - opts->off;
    return opts->size == 0 || opts->size > rest ? rest : opts->size;
}

static enum rc key_check(const char *key, struct err *err)
{
    size_t size = strnlen(key, STORE_KEY_MAX + 1);
    if (size == 0) return err_set(err, RC_INVALID, "empty key");
    if (size > STORE_KEY_MAX)
        return err_set(err, RC_INVALID, "key is longer than %d bytes: '%.64s...'", STORE_KEY_MAX,
                       key);
    for (const char *p = key;; p++) {
        size_t segment = strcspn(p, "/");
        if (!segment_ok(p, segment))
            return err_set(err, RC_INVALID, "bad key '%s': segment '%.*s'", key, (int)segment, p);
        p += segment;
        if (*p == '\0') return RC_OK;
    }
}

/* The folders of a prefix must be legal; its last piece may be the start of anything. */
static enum rc prefix_check(const char *prefix, struct err *err)
{
    if (strnlen(prefix, STORE_KEY_MAX + 1) > STORE_KEY_MAX)
        return err_set(err, RC_INVALID, "prefix is longer than %d bytes", STORE_KEY_MAX);
    for (const char *p = prefix, *slash; (slash = strchr(p, '/')) != NULL; p = slash + 1)
        if (!segment_ok(p, (size_t)(slash - p)))
            return err_set(err, RC_INVALID, "bad prefix '%s': segment '%.*s'", prefix,
                           (int)(slash - p), p);
    return RC_OK;
}

static bool segment_ok(const char *segment, size_t size)
{
    size_t tmp_size = sizeof STORE_TMP_PREFIX - 1;
    if (size == 0 || (size == 1 && segment[0] == '.')) return false;
    if (size == 2 && memcmp(segment, "..", 2) == 0) return false;
    return size < tmp_size || memcmp(segment, STORE_TMP_PREFIX, tmp_size) != 0;
}

static enum rc scheme_unknown(const char *scheme, struct err *err)
{
    char list[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < DRIVER_COUNT && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 drivers[i]->type);
    return err_set(err, RC_UNSUPPORTED,
                   "stores of type '%s' are not built in (there are: %s); for a folder give "
                   "file:///path or a plain path",
                   scheme, list);
}

static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err)
{
    struct lister *l = ctx;
    struct err ignored;
    if (strcmp(obj->key, l->after) <= 0) return RC_OK;
    /* Others may write to a bucket: a name that no call here could take is not an object. */
    if (key_check(obj->key, &ignored) != RC_OK) return RC_OK;
    TRY(l->fn(l->ctx, obj, err));
    if (++l->count != l->count_max) return RC_OK;
    l->full = true;
    return err_set(err, RC_CANCELED, "enough");
}

static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    struct reader *r = ctx;
    if (size > r->size - r->done)
        return err_set(err, RC_CORRUPT, "the store sent more than the range asked for");
    memcpy(r->dst + r->done, data, size);
    r->done += size;
    return RC_OK;
}

static enum rc bytes_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err)
{
    const struct store_bytes *b = ctx;
    (void)err;
    memcpy(dst, (const uint8_t *)b->data + off, size);
    return RC_OK;
}
