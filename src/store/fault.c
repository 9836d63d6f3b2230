/* fault.c -- a store between the caller and a real one, whose calls fail on demand; see driver.h.
 */
#include "base/fault.h"
#include "base/mem.h"
#include "store/driver.h"
#include <stdio.h>
#include <string.h>

struct fault_store {
    struct store base;
    struct store_ops ops; /* the inner store's type and capabilities, our functions */
    struct store *inner;
    atomic_int mode; /* enum store_fault */
};

static void fault_close(struct store *s);
static enum rc fault_put(struct store *s, const struct call *c, const char *key,
                         const struct store_body *body, const struct store_put_opts *opts,
                         struct store_obj *ret_obj, struct err *err);
static enum rc fault_get(struct store *s, const struct call *c, const char *key,
                         const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                         struct err *err);
static enum rc fault_list(struct store *s, const struct call *c, const char *prefix,
                          const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                          struct err *err);
static enum rc fault_del(struct store *s, const struct call *c, const char *key, struct err *err);
static enum rc fault_del_many(struct store *s, const struct call *c, const char *const *keys,
                              size_t key_count, struct err *err);
static bool before(struct fault_store *f, const char *what, enum rc *ret_rc, struct err *err);
static enum rc lost(const char *what, struct err *err);

/* One step of the countdown: refuse, or make the call and perhaps forget its answer. A call that
 * failed by itself keeps its own failure. */
#define PASS(what, call)                                                                           \
    do {                                                                                           \
        enum rc pass_rc_;                                                                          \
        bool pass_lose_ = before(f, what, &pass_rc_, err);                                         \
        if (pass_rc_ != RC_OK) return pass_rc_;                                                    \
        pass_rc_ = (call);                                                                         \
        return pass_rc_ == RC_OK && pass_lose_ ? lost(what, err) : pass_rc_;                       \
    } while (0)

enum rc store_fault_new(struct store *inner, struct store **ret_store, struct err *err)
{
    struct fault_store *f = mem_calloc(1, sizeof *f);
    if (f == NULL) return err_mem(err, "a fault store");
    f->ops = (struct store_ops){.type = inner->ops->type,
                                .caps = inner->ops->caps,
                                .open = inner->ops->open,
                                .close = fault_close,
                                .put = fault_put,
                                .get = fault_get,
                                .list = fault_list,
                                .del = fault_del,
                                .del_many = inner->ops->del_many ? fault_del_many : NULL};
    store_init(&f->base, &f->ops, "%s", inner->name);
    f->base.caps = inner->caps;
    f->inner = inner;
    *ret_store = &f->base;
    return RC_OK;
}

void store_fault_mode(struct store *s, enum store_fault mode)
{
    ASSERT(s->ops->close == fault_close);
    atomic_store(&((struct fault_store *)s)->mode, (int)mode);
}

static void fault_close(struct store *s)
{
    struct fault_store *f = (struct fault_store *)s;
    store_close(f->inner);
    mem_free(f);
}

static enum rc fault_put(struct store *s, const struct call *c, const char *key,
                         const struct store_body *body, const struct store_put_opts *opts,
                         struct store_obj *ret_obj, struct err *err)
{
    struct fault_store *f = (struct fault_store *)s;
    PASS("put", f->inner->ops->put(f->inner, c, key, body, opts, ret_obj, err));
}

static enum rc fault_get(struct store *s, const struct call *c, const char *key,
                         const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                         struct err *err)
{
    struct fault_store *f = (struct fault_store *)s;
    PASS("get", f->inner->ops->get(f->inner, c, key, opts, sink, ctx, err));
}

static enum rc fault_list(struct store *s, const struct call *c, const char *prefix,
                          const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                          struct err *err)
{
    struct fault_store *f = (struct fault_store *)s;
    PASS("list", f->inner->ops->list(f->inner, c, prefix, opts, fn, ctx, err));
}

static enum rc fault_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    struct fault_store *f = (struct fault_store *)s;
    PASS("del", f->inner->ops->del(f->inner, c, key, err));
}

static enum rc fault_del_many(struct store *s, const struct call *c, const char *const *keys,
                              size_t key_count, struct err *err)
{
    struct fault_store *f = (struct fault_store *)s;
    PASS("del", f->inner->ops->del_many(f->inner, c, keys, key_count, err));
}

/* True: make the call, then lose its answer. *ret_rc: RC_OK, or the refusal. */
static bool before(struct fault_store *f, const char *what, enum rc *ret_rc, struct err *err)
{
    bool hit = fault_hit(FAULT_STORE, what);
    bool lose = atomic_load(&f->mode) == STORE_FAULT_LOSE;
    *ret_rc = hit && !lose ? err_set(err, RC_AGAIN, "%s: injected: refused", what) : RC_OK;
    return hit && lose;
}

static enum rc lost(const char *what, struct err *err)
{
    return err_set(err, RC_AGAIN, "%s: injected: the answer was lost", what);
}
