/* store.c -- open by URL, check arguments once for all drivers, dispatch; see store.h. */
#include "store/store.h"
#include "base/mem.h"
#include "store/driver.h"
#include "store/spool.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Every driver of this build, once. The first one also takes paths without a scheme. */
static const struct store_ops *const drivers[] = {
    &store_file_ops, &store_mem_ops,    &store_s3_ops,   &store_oss_ops,  &store_azure_ops,
    &store_gcs_ops,  &store_webdav_ops, &store_nats_ops, &store_sftp_ops,
};
#define DRIVER_COUNT (sizeof drivers / sizeof drivers[0])

/* Listing: what stands between a driver and the caller's fn. */
struct lister {
    store_list_fn *fn;
    void *ctx;
    const char *prefix, *after; /* after: "" when not given */
    uint32_t count, count_max;
    bool full;                    /* count_max reached: the driver's failure is our own stop sign */
    const char *name;             /* of the store */
    char last[STORE_KEY_MAX + 1]; /* "": none yet */
};

/* store_read: where the next bytes go. */
struct reader {
    uint8_t *dst;
    size_t done, size;
};

static enum rc key_check(const char *key, struct err *err);
static enum rc prefix_check(const char *prefix, struct err *err);
static bool segment_ok(const char *segment, size_t size);
static enum rc find_driver(const char *scheme, const struct store_ops **ret_ops, struct err *err);
static enum rc say_where(const struct store *s, struct err *err);
static enum rc put_spooled(struct store *s, const struct call *c, const char *key,
                           const struct store_body *body, const struct store_put_opts *opts,
                           struct store_obj *ret_obj, struct err *err);
static enum rc scheme_unknown(const char *scheme, struct err *err);
static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err);
static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err);
static enum rc bytes_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);

bool store_can(const struct store *s, enum store_cap cap)
{
    return (s->caps & (uint32_t)cap) != 0;
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
    return store_open_conf(&(struct store_conf){.url = url}, ret_store, err);
}

enum rc store_open_conf(const struct store_conf *conf, struct store **ret_store, struct err *err)
{
    CLEANUP(mem_freep) struct store_settings *set = mem_calloc(1, sizeof *set);
    const struct store_ops *ops = NULL;
    struct store *s = NULL;
    if (set == NULL) return err_mem(err, "the settings of a store");
    TRY(store_settings_fill(set, conf, err));
    const char *type = set->url_given ? set->url.scheme : conf->type ? conf->type : "";
    if (!set->url_given && type[0] == '\0')
        return err_set(err, RC_INVALID, "empty store URL: give file:///path or a plain path");
    TRY(find_driver(type, &ops, err));
    TRY(ops->open(set, &s, err));
    enum rc rc = store_settings_check(set, ops->type, err);
    if (rc == RC_OK)
        *ret_store = s;
    else
        store_close(s);
    return rc;
}

void store_init(struct store *s, const struct store_ops *ops, const char *name_fmt, ...)
{
    va_list ap;
    s->ops = ops;
    s->caps = ops->caps;
    va_start(ap, name_fmt);
    vsnprintf(s->name, sizeof s->name, name_fmt, ap);
    va_end(ap);
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
    if (opts->if_etag != NULL && !store_can(s, STORE_CAP_CAS))
        return err_set(err, RC_UNSUPPORTED, "put '%s': '%s' cannot replace conditionally", key,
                       s->name);
    if (opts->if_etag != NULL && opts->if_absent)
        return err_set(err, RC_INVALID, "put '%s': create and replace at once", key);
    TRY(call_check(c, err));
    bool spool = body->size == STORE_SIZE_UNKNOWN && !store_can(s, STORE_CAP_STREAM);
    enum rc rc = spool ? put_spooled(s, c, key, body, opts, &obj, err)
                       : s->ops->put(s, c, key, body, opts, &obj, err);
    if (rc != RC_OK) return say_where(s, err);
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
    if (s->ops->get(s, c, key, &range, sink, ctx, err) == RC_OK) return RC_OK;
    return say_where(s, err);
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
    struct lister l = {.fn = fn,
                       .ctx = ctx,
                       .prefix = prefix,
                       .after = hints.after,
                       .count_max = hints.count_max,
                       .name = s->name};
    TRY(prefix_check(prefix, err));
    TRY(call_check(c, err));
    enum rc rc = s->ops->list(s, c, prefix, &hints, take_object, &l, err);
    if (!l.full) return rc == RC_OK ? RC_OK : say_where(s, err);
    err_clear(err);
    return RC_OK;
}

enum rc store_del(struct store *s, const struct call *c, const char *const *keys, size_t key_count,
                  struct err *err)
{
    for (size_t i = 0; i < key_count; i++)
        TRY(key_check(keys[i], err));
    TRY(call_check(c, err));
    if (key_count == 0) return RC_OK;
    if (s->ops->del_many != NULL) {
        if (s->ops->del_many(s, c, keys, key_count, err) != RC_OK) return say_where(s, err);
        return RC_OK;
    }
    for (size_t i = 0; i < key_count; i++) {
        TRY(call_check(c, err));
        if (s->ops->del(s, c, keys[i], err) != RC_OK) return say_where(s, err);
    }
    return RC_OK;
}

enum rc store_presign(struct store *s, const struct call *c, const char *key, bool put,
                      int64_t expires_s, struct buf *out, struct err *err)
{
    TRY(key_check(key, err));
    if (expires_s < 1 || expires_s > 7 * 24 * 3600)
        return err_set(err, RC_INVALID, "a link lives between 1 second and 7 days");
    if (s->ops->presign == NULL)
        return err_set(err, RC_UNSUPPORTED, "'%s' has no links that need no credentials", s->name);
    TRY(call_check(c, err));
    return s->ops->presign(s, c, key, put, expires_s, out, err);
}

const char *store_op_name(enum store_op op)
{
    static const char *const names[] = {
#define X(NAME, name) #name,
        STORE_OPS(X)
#undef X
    };
    return names[op];
}

void store_stats(const struct store *s, struct store_stats *ret_stats)
{
    const struct store_counts *n = &s->counts;
    *ret_stats = (struct store_stats){.throttled = atomic_load(&n->throttled),
                                      .bytes_up = atomic_load(&n->bytes_up),
                                      .bytes_down = atomic_load(&n->bytes_down)};
    for (int i = 0; i < STORE_OP_COUNT; i++) {
        ret_stats->requests[i] = atomic_load(&n->requests[i]);
        ret_stats->failed[i] = atomic_load(&n->failed[i]);
    }
}

void store_count(struct store *s, enum store_op op, bool ok, uint64_t bytes_up, uint64_t bytes_down)
{
    struct store_counts *n = &s->counts;
    atomic_fetch_add_explicit(&n->requests[op], 1, memory_order_relaxed);
    if (!ok) atomic_fetch_add_explicit(&n->failed[op], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->bytes_up, bytes_up, memory_order_relaxed);
    atomic_fetch_add_explicit(&n->bytes_down, bytes_down, memory_order_relaxed);
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

static enum rc find_driver(const char *scheme, const struct store_ops **ret_ops, struct err *err)
{
    *ret_ops = drivers[0];
    if (scheme[0] == '\0') return RC_OK;
    for (size_t i = 0; i < DRIVER_COUNT; i++) {
        const char *alias = drivers[i]->alias ? drivers[i]->alias : drivers[i]->type;
        *ret_ops = drivers[i];
        if (strcasecmp(drivers[i]->type, scheme) == 0 || strcasecmp(alias, scheme) == 0)
            return RC_OK;
    }
    return scheme_unknown(scheme, err);
}

/* A failure far away names the place, if the driver has not done so. Paths speak for themselves. */
static enum rc say_where(const struct store *s, struct err *err)
{
    bool here = strcmp(s->ops->type, "file") == 0 || strcmp(s->ops->type, "mem") == 0;
    if (here || strstr(err->text, s->name) != NULL) return err->rc;
    return err_wrap(err, "%s", s->name);
}

/* The driver needs to know the size first: keep the body in a file without a name meanwhile. */
static enum rc put_spooled(struct store *s, const struct call *c, const char *key,
                           const struct store_body *body, const struct store_put_opts *opts,
                           struct store_obj *ret_obj, struct err *err)
{
    CLEANUP(spool_fini) struct spool sp = SPOOL_INIT;
    struct store_body sized;
    if (spool_fill(&sp, c, body, &sized, err) != RC_OK) return err_wrap(err, "put '%s'", key);
    return s->ops->put(s, c, key, &sized, opts, ret_obj, err);
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
    /* Others may write to a bucket: a name that no call here could take is not an object. */
    if (key_check(obj->key, &ignored) != RC_OK) return RC_OK;
    /* What follows from a listing, deletes among it, is no better than the listing. */
    if (strncmp(obj->key, l->prefix, strlen(l->prefix)) != 0)
        return err_set(err, RC_CORRUPT, "list '%s' in '%.200s': the listing has '%s'", l->prefix,
                       l->name, obj->key);
    if (strcmp(obj->key, l->last) <= 0)
        return err_set(err, RC_CORRUPT, "list '%.100s' in '%.100s': '%.100s' comes after '%.100s'",
                       l->prefix, l->name, obj->key, l->last);
    memcpy(l->last, obj->key, strlen(obj->key) + 1);
    if (strcmp(obj->key, l->after) <= 0) return RC_OK;
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
