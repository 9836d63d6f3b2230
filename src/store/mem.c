/*
 * mem.c -- a store in memory, for tests and caches. "mem://name" is one store for the whole
 * process: all who open the name see the same objects, until the last one closes it. "mem://" is
 * private.
 *
 * Objects are immutable and counted: a get streams without the lock, and an overwrite meanwhile
 * does not disturb it. A listing takes the lock once an object, so fn may call the store.
 *
 * Threads: any. Locks: `spaces_lock`, then a space's `lock`; neither is held across a call out.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"
#include <stdio.h>
#include <string.h>

#define CHUNK_SIZE (256u << 10) /* bytes between two looks at the deadline */

struct object {
    struct store_obj obj;
    unsigned refs; /* [space lock] */
    uint8_t data[];
};

struct space {
    struct space *next; /* [spaces_lock] */
    unsigned refs;      /* [spaces_lock] */
    pthread_mutex_t lock;
    struct object **items; /* [lock] in ascending order of keys */
    size_t count, cap;     /* [lock] */
    bool shared;
    char name[sizeof((struct url *)0)->host + sizeof((struct url *)0)->path];
};

struct mem_store {
    struct store base;
    struct space *space;
};

static pthread_mutex_t spaces_lock = PTHREAD_MUTEX_INITIALIZER;
static struct space *spaces; /* [spaces_lock] the shared ones */

static enum rc mem_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void mem_close(struct store *s);
static enum rc mem_put(struct store *s, const struct call *c, const char *key,
                       const struct store_body *body, const struct store_put_opts *opts,
                       struct store_obj *ret_obj, struct err *err);
static enum rc mem_get(struct store *s, const struct call *c, const char *key,
                       const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                       struct err *err);
static enum rc mem_list(struct store *s, const struct call *c, const char *prefix,
                        const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                        struct err *err);
static enum rc mem_del(struct store *s, const struct call *c, const char *key, struct err *err);

static struct space *space_ref(const char *name);
static void space_unref(struct space *sp);
static void object_unref(struct space *sp, struct object *o);
static bool room_for_one(struct space *sp);
static size_t find(const struct space *sp, const char *key, bool *ret_found);
static enum rc insert(struct space *sp, struct object *o, const struct store_put_opts *opts,
                      struct err *err);

const struct store_ops store_mem_ops = {
    .type = "mem",
    .caps = STORE_CAP_CREATE | STORE_CAP_RANGE | STORE_CAP_LIST_AFTER | STORE_CAP_TIMESTAMP |
            STORE_CAP_CAS,
    .open = mem_open,
    .close = mem_close,
    .put = mem_put,
    .get = mem_get,
    .list = mem_list,
    .del = mem_del,
};

static enum rc mem_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    char name[sizeof((struct space *)0)->name];
    snprintf(name, sizeof name, "%s%s", set->url.host, set->url.path);
    struct mem_store *m = mem_calloc(1, sizeof *m);
    if (m == NULL) return err_mem(err, "a memory store");
    bool fits = strlen(name) + sizeof "mem://" <= sizeof m->base.name;
    store_init(&m->base, &store_mem_ops, "mem://%s", name);
    m->space = fits ? space_ref(name) : NULL;
    if (m->space != NULL) {
        *ret_store = &m->base;
        return RC_OK;
    }
    mem_free(m);
    if (!fits) return err_set(err, RC_INVALID, "name of store is too long");
    return err_mem(err, "a memory store");
}

static void mem_close(struct store *s)
{
    struct mem_store *m = (struct mem_store *)s;
    space_unref(m->space);
    mem_free(m);
}

static enum rc mem_put(struct store *s, const struct call *c, const char *key,
                       const struct store_body *body, const struct store_put_opts *opts,
                       struct store_obj *ret_obj, struct err *err)
{
    struct space *sp = ((struct mem_store *)s)->space;
    if (body->size > SIZE_MAX / 2) return err_set(err, RC_TOO_BIG, "put '%s'", key);
    CLEANUP(mem_freep) struct object *o = mem_alloc(sizeof *o + (size_t)body->size);
    if (o == NULL) return err_mem(err, key);
    *o = (struct object){.refs = 1, .obj.size = body->size};
    memcpy(o->obj.key, key, strlen(key) + 1);
    o->obj.mtime_ms = opts->timestamp_ms ? opts->timestamp_ms : os_now_ms();
    for (uint64_t off = 0; off < body->size;) {
        uint64_t left = body->size - off;
        size_t size = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
        if (call_check(c, err) != RC_OK) return err_wrap(err, "put '%s'", key);
        TRY(body->read(body->ctx, off, o->data + off, size, err));
        off += size;
    }
    snprintf(o->obj.etag, sizeof o->obj.etag, "%016llx", (unsigned long long)os_random());
    struct store_obj obj = o->obj; /* once inserted, another thread may replace and free it */
    TRY(insert(sp, o, opts, err));
    store_count(s, STORE_OP_PUT, true, body->size, 0);
    o = NULL;
    *ret_obj = obj;
    return RC_OK;
}

static enum rc mem_get(struct store *s, const struct call *c, const char *key,
                       const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                       struct err *err)
{
    struct space *sp = ((struct mem_store *)s)->space;
    bool found;
    thr_lock(&sp->lock);
    size_t at = find(sp, key, &found);
    struct object *o = found ? sp->items[at] : NULL;
    if (found) o->refs++;
    thr_unlock(&sp->lock);
    if (!found) return err_set(err, RC_NOT_FOUND, "get '%s': no such object in '%s'", key, s->name);
    uint64_t left = store_range(opts, o->obj.size), off = opts->off;
    enum rc rc = RC_OK;
    if (opts->ret_obj != NULL) *opts->ret_obj = o->obj;
    store_count(s, STORE_OP_GET, true, 0, left);
    while (left > 0 && rc == RC_OK) {
        size_t size = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
        if ((rc = call_check(c, err)) != RC_OK)
            err_wrap(err, "get '%s'", key);
        else
            rc = sink(ctx, o->data + off, size, err);
        off += size;
        left -= size;
    }
    object_unref(sp, o);
    return rc;
}

static enum rc mem_list(struct store *s, const struct call *c, const char *prefix,
                        const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                        struct err *err)
{
    struct space *sp = ((struct mem_store *)s)->space;
    struct store_obj obj = {0};
    size_t prefix_size = strlen(prefix);
    /* The next key is the first one past `key`; to begin with, the prefix itself counts too. */
    char key[STORE_KEY_MAX + 1];
    bool past = strcmp(opts->after, prefix) > 0, found;
    store_count(s, STORE_OP_LIST, true, 0, 0);
    snprintf(key, sizeof key, "%s", past ? opts->after : prefix);
    for (;; past = true) {
        if (call_check(c, err) != RC_OK) return err_wrap(err, "list '%s'", prefix);
        thr_lock(&sp->lock);
        size_t at = find(sp, key, &found);
        if (found && past) at++;
        bool end = at == sp->count || strncmp(sp->items[at]->obj.key, prefix, prefix_size) != 0;
        if (!end) obj = sp->items[at]->obj;
        thr_unlock(&sp->lock);
        if (end) return RC_OK;
        TRY(fn(ctx, &obj, err));
        memcpy(key, obj.key, sizeof key);
    }
}

static enum rc mem_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    struct space *sp = ((struct mem_store *)s)->space;
    struct object *o = NULL;
    bool found;
    (void)c, (void)err;
    store_count(s, STORE_OP_DEL, true, 0, 0);
    thr_lock(&sp->lock);
    size_t at = find(sp, key, &found);
    if (found) {
        o = sp->items[at];
        sp->count--;
        memmove(sp->items + at, sp->items + at + 1, (sp->count - at) * sizeof o);
    }
    thr_unlock(&sp->lock);
    if (found) object_unref(sp, o);
    return RC_OK;
}

/* NULL when memory is short. */
static struct space *space_ref(const char *name)
{
    bool shared = name[0] != '\0';
    thr_lock(&spaces_lock);
    struct space *sp = shared ? spaces : NULL;
    while (sp != NULL && strcmp(sp->name, name) != 0)
        sp = sp->next;
    if (sp == NULL && (sp = mem_calloc(1, sizeof *sp)) != NULL) {
        pthread_mutex_init(&sp->lock, NULL);
        sp->shared = shared;
        memcpy(sp->name, name, strlen(name) + 1);
        if (shared) {
            sp->next = spaces;
            spaces = sp;
        }
    }
    if (sp != NULL) sp->refs++;
    thr_unlock(&spaces_lock);
    return sp;
}

static void space_unref(struct space *sp)
{
    thr_lock(&spaces_lock);
    bool last = --sp->refs == 0;
    if (last && sp->shared) {
        struct space **at = &spaces;
        while (*at != sp)
            at = &(*at)->next;
        *at = sp->next;
    }
    thr_unlock(&spaces_lock);
    if (!last) return;
    for (size_t i = 0; i < sp->count; i++)
        mem_free(sp->items[i]);
    mem_free(sp->items);
    pthread_mutex_destroy(&sp->lock);
    mem_free(sp);
}

static void object_unref(struct space *sp, struct object *o)
{
    thr_lock(&sp->lock);
    bool last = --o->refs == 0;
    thr_unlock(&sp->lock);
    if (last) mem_free(o);
}

/* Index of the key, or of the first greater one. */
static size_t find(const struct space *sp, const char *key, bool *ret_found)
{
    size_t low = 0, high = sp->count;
    *ret_found = false;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(sp->items[mid]->obj.key, key);
        if (order == 0) *ret_found = true;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Takes the reference on o, on success. */
static enum rc insert(struct space *sp, struct object *o, const struct store_put_opts *opts,
                      struct err *err)
{
    struct object *old = NULL;
    enum rc rc = RC_OK;
    bool found;
    thr_lock(&sp->lock);
    size_t at = find(sp, o->obj.key, &found);
    if (found && opts->if_absent) rc = RC_CONFLICT;
    if (!found && opts->if_etag != NULL) rc = RC_NOT_FOUND;
    if (found && opts->if_etag != NULL && strcmp(opts->if_etag, sp->items[at]->obj.etag) != 0)
        rc = RC_CONFLICT;
    if (rc == RC_OK && !found && !room_for_one(sp)) rc = RC_NO_MEM;
    if (rc == RC_OK && found) {
        old = sp->items[at];
        sp->items[at] = o;
    } else if (rc == RC_OK) {
        memmove(sp->items + at + 1, sp->items + at, (sp->count - at) * sizeof o);
        sp->items[at] = o;
        sp->count++;
    }
    thr_unlock(&sp->lock);
    if (old != NULL) object_unref(sp, old);
    if (rc == RC_NO_MEM) return err_mem(err, o->obj.key);
    if (rc == RC_OK) return RC_OK;
    return err_set(err, rc, "%s '%s': %s", opts->if_absent ? "create" : "replace", o->obj.key,
                   rc == RC_NOT_FOUND ? "there is no such object"
                   : opts->if_absent  ? "it exists"
                                      : "another version is there");
}

static bool room_for_one(struct space *sp)
{
    if (sp->count < sp->cap) return true;
    size_t cap = sp->cap ? sp->cap * 2 : 16;
    struct object **items = mem_realloc(sp->items, cap * sizeof *items);
    if (items == NULL) return false;
    sp->items = items;
    sp->cap = cap;
    return true;
}
