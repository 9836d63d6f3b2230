/*
 * driver.h -- what a store driver provides. Only drivers and store.c include this file; a driver
 * exports nothing but its `const struct store_ops`. A new driver adds its row to the table in
 * store.c and to the one in tests/store/conformance_test.c.
 */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H
#include "fmt/text.h"
#include "store/store.h"

struct store { /* first member of every driver's own struct */
    const struct store_ops *ops;
    char name[STORE_KEY_MAX * 2];
};

/* All members are required unless marked. Arguments are already checked by store.c: keys are valid,
 * a prefix has no "..", opts and ret_obj are never NULL, off + size does not wrap. `after` and
 * `count_max` are applied by store.c again, so a driver may use them as mere hints. */
struct store_ops {
    const char *type; /* "file"; also the URL scheme */
    uint32_t caps;    /* enum store_cap bits */
    enum rc (*open)(const struct url *url, struct store **ret_store, struct err *err);
    void (*close)(struct store *s);
    enum rc (*put)(struct store *s, const struct call *c, const char *key,
                   const struct store_body *body, const struct store_put_opts *opts,
                   struct store_obj *ret_obj, struct err *err);
    enum rc (*get)(struct store *s, const struct call *c, const char *key,
                   const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                   struct err *err);
    enum rc (*list)(struct store *s, const struct call *c, const char *prefix,
                    const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                    struct err *err);
    enum rc (*del)(struct store *s, const struct call *c, const char *key, struct err *err);
    /* optional; when NULL, store.c loops over del */
    enum rc (*del_many)(struct store *s, const struct call *c, const char *const *keys,
                        size_t key_count, struct err *err);
};

extern const struct store_ops store_file_ops, store_mem_ops;

/* Bytes of an object that a get must deliver: from opts and the object's size. */
uint64_t store_range(const struct store_get_opts *opts, uint64_t object_size);

/* Tests: wrap a store so that its calls pass fault_hit(FAULT_STORE), once each. What a hit does is
 * set per wrapper; either way the caller sees RC_AGAIN. Takes ownership of inner on success. */
enum store_fault {
    STORE_FAULT_REFUSE, /* the default: nothing happened */
    STORE_FAULT_LOSE,   /* the call took effect, its answer was lost */
};
MUST_CHECK enum rc store_fault_new(struct store *inner, struct store **ret_store, struct err *err);
void store_fault_mode(struct store *s, enum store_fault mode);
#endif
