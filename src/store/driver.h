/*
 * driver.h -- what a store driver provides. Only drivers and store.c include this file; a driver
 * exports nothing but its `const struct store_ops`. A new driver adds its row to the table in
 * store.c and to the one in tests/store/conformance_test.c.
 */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H
#include "fmt/text.h"
#include "store/store.h"

struct store_counts { /* what store_stats reads */
    atomic_uint_fast64_t requests[STORE_OP_COUNT], failed[STORE_OP_COUNT];
    atomic_uint_fast64_t throttled, bytes_up, bytes_down;
};

struct store { /* first member of every driver's own struct */
    const struct store_ops *ops;
    uint32_t caps; /* enum store_cap bits; at most ops->caps */
    struct store_counts counts;
    char name[STORE_KEY_MAX * 2];
};

/* Count one request. ok: the service answered something usable ("not found" is). */
void store_count(struct store *s, enum store_op op, bool ok, uint64_t bytes_up,
                 uint64_t bytes_down);

/*
 * What a driver's open gets: the URL in parts and the settings, those of its query included, by
 * their names in litestream.yml (camelCase is turned into kebab-case).
 */
#define STORE_SETTING_MAX 40
struct store_settings {
    struct url url; /* all empty when only settings are given */
    bool url_given;
    const struct store_conf *conf; /* for the trouble callback; valid during open */
    struct {
        char key[40];
        const char *value; /* decoded */
        bool used;
    } items[STORE_SETTING_MAX];
    size_t count;
    char text[2048]; /* the values that came with the query */
    size_t text_used;
};
/* For store.c. Fails: RC_INVALID the URL, a setting twice or too many; RC_INVALID, naming it, a
 * setting that the driver did not ask for. */
MUST_CHECK enum rc store_settings_fill(struct store_settings *set, const struct store_conf *conf,
                                       struct err *err);
MUST_CHECK enum rc store_settings_check(const struct store_settings *set, const char *type,
                                        struct err *err);
/* The value of a setting, or "". Marks it as known: after open, one that nobody asked for is
 * refused as a typo, so ask for all that the driver has, whether needed or not. */
const char *store_setting(struct store_settings *set, const char *key);
/* Fails: RC_INVALID, naming the setting. Not given: *ret is left alone. */
MUST_CHECK enum rc store_setting_bool(struct store_settings *set, const char *key, bool *ret,
                                      struct err *err);
MUST_CHECK enum rc store_setting_int(struct store_settings *set, const char *key, int64_t min,
                                     int64_t max, int64_t *ret, struct err *err);
MUST_CHECK enum rc store_setting_size(struct store_settings *set, const char *key, uint64_t *ret,
                                      struct err *err); /* "5MiB" */
MUST_CHECK enum rc store_setting_ms(struct store_settings *set, const char *key, int64_t *ret,
                                    struct err *err); /* "2s" */

/* All members are required unless marked. Arguments are already checked by store.c: keys are valid,
 * a prefix has no "..", opts and ret_obj are never NULL, off + size does not wrap, if_absent and
 * if_etag come only when the caps have them and never together, a body of unknown size only with
 * STORE_CAP_STREAM. `after` and `count_max` are applied by store.c again, so a driver may use them
 * as mere hints. open fills in all of struct store (store_init). */
struct store_ops {
    const char *type;  /* "file"; also the URL scheme */
    uint32_t caps;     /* enum store_cap bits */
    const char *alias; /* optional: a second scheme ("webdavs") */
    enum rc (*open)(struct store_settings *set, struct store **ret_store, struct err *err);
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
    /* optional: see store_presign */
    enum rc (*presign)(struct store *s, const struct call *c, const char *key, bool put,
                       int64_t expires_s, struct buf *out, struct err *err);
};

extern const struct store_ops store_file_ops, store_mem_ops, store_s3_ops, store_gcs_ops,
    store_azure_ops, store_sftp_ops, store_webdav_ops, store_nats_ops, store_oss_ops;

/* ops, all of its caps, and the name (cut when too long). */
void store_init(struct store *s, const struct store_ops *ops, const char *name_fmt, ...) FMT(3, 4);

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
