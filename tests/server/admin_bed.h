/*
 * admin_bed.h -- tenants in memory, for tests of the administrator's port: a database is the bytes
 * that were imported, or its name.
 */
#ifndef TESTS_SERVER_ADMIN_BED_H
#define TESTS_SERVER_ADMIN_BED_H
#include <fcntl.h>
#include "base/buf.h"
#include "base/thr.h"
#include "server/http_client.h"
#include "server/tenant.h"

#define BED_MAX 2048

struct bed_tenant {
    struct tenant t; /* name "": free */
    struct tenant_conf conf;
    char reason[256], jwt_key[4096], url[256], class[64];
    uint64_t wal_bytes, behind; /* what look says; 0: usual figures */
    struct buf bytes;
    bool dump;
};
struct tenants { /* of struct tenants_ops */
    pthread_mutex_t lock;
    struct bed_tenant list[BED_MAX]; /* in the order of names */
    size_t count;
    unsigned counted, checkpoints;
    bool keep_backup;
    struct tenant_at at; /* of the last fork or rewind */
    enum rc fail;        /* RC_OK: none */
    size_t image_fails_after;
};
static struct tenants bed = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline struct bed_tenant *bed_find(const char *name)
{
    for (size_t i = 0; i < bed.count; i++)
        if (strcmp(bed.list[i].t.name, name) == 0) return &bed.list[i];
    return NULL;
}

static inline enum rc bed_no_such(const char *name, struct err *err)
{
    return err_set(err, RC_NOT_FOUND, "Namespace `%s` doesn't exist", name);
}

/* Its configuration points into it, also after it has moved. */
static inline void bed_point(struct bed_tenant *b)
{
    b->conf.block_reason = b->reason;
    b->conf.jwt_key = b->jwt_key[0] != '\0' ? b->jwt_key : NULL;
    b->conf.heartbeat_url = b->url[0] != '\0' ? b->url : NULL;
    b->conf.class = b->class[0] != '\0' ? b->class : NULL;
    atomic_store(&b->t.conf, &b->conf);
}

static inline void bed_conf(struct bed_tenant *b, const struct tenant_conf *conf)
{
    static const struct tenant_conf defaults = {.block_reason = ""};
    struct tenant_conf c = conf != NULL ? *conf : defaults;
    char reason[sizeof b->reason], key[sizeof b->jwt_key], url[sizeof b->url];
    char class[sizeof b->class];
    snprintf(reason, sizeof reason, "%s", c.block_reason);
    snprintf(key, sizeof key, "%s", c.jwt_key != NULL ? c.jwt_key : "");
    snprintf(url, sizeof url, "%s", c.heartbeat_url != NULL ? c.heartbeat_url : "");
    snprintf(class, sizeof class, "%s", c.class != NULL ? c.class : "");
    memcpy(b->class, class, sizeof class);
    memcpy(b->reason, reason, sizeof reason);
    memcpy(b->jwt_key, key, sizeof key);
    memcpy(b->url, url, sizeof url);
    b->conf = c;
    bed_point(b);
}

static inline enum rc bed_open(struct tenants *ts, const char *name, struct tenant **ret_t,
                               struct err *err)
{
    (void)ts;
    struct bed_tenant *b = bed_find(name);
    if (b == NULL) return bed_no_such(name, err);
    bed.counted++;
    *ret_t = &b->t;
    return RC_OK;
}

static inline void bed_release(struct tenants *ts, struct tenant *t)
{
    (void)ts, (void)t;
    bed.counted--;
}

static inline enum rc bed_create(struct tenants *ts, const char *name,
                                 const struct tenant_conf *conf, struct err *err)
{
    (void)ts;
    size_t at = 0;
    if (bed_find(name) != NULL)
        return err_set(err, RC_CONFLICT, "Namespace `%s` already exists", name);
    if (bed.fail != RC_OK) return err_set(err, bed.fail, "the disk is on fire");
    if (bed.count == BED_MAX) return err_set(err, RC_NO_SPACE, "too many");
    while (at < bed.count && strcmp(bed.list[at].t.name, name) < 0)
        at++;
    memmove(&bed.list[at + 1], &bed.list[at], (bed.count++ - at) * sizeof bed.list[0]);
    struct bed_tenant *b = &bed.list[at];
    memset(b, 0, sizeof *b);
    snprintf(b->t.name, sizeof b->t.name, "%s", name);
    bed_conf(b, conf);
    for (size_t i = at + 1; i < bed.count; i++)
        bed_point(&bed.list[i]);
    return RC_OK;
}

static inline enum rc bed_import(struct tenants *ts, const char *name,
                                 const struct tenant_conf *conf, const char *path, bool dump,
                                 struct err *err)
{
    struct buf bytes = BUF_INIT;
    enum rc rc = os_read_file(path, 64 << 20, &bytes, err);
    struct err ignored;
    (void)!os_unlink(path, &ignored);
    if (rc == RC_OK) rc = bed_create(ts, name, conf, err);
    if (rc != RC_OK) {
        buf_fini(&bytes);
        return rc;
    }
    bed_find(name)->bytes = bytes;
    bed_find(name)->dump = dump;
    return RC_OK;
}

static inline enum rc bed_remove(struct tenants *ts, const char *name, bool keep_backup,
                                 struct err *err)
{
    (void)ts;
    struct bed_tenant *b = bed_find(name);
    if (b == NULL) return bed_no_such(name, err);
    bed.keep_backup = keep_backup;
    buf_fini(&b->bytes);
    memmove(b, b + 1, (size_t)(&bed.list[--bed.count] - b) * sizeof *b);
    for (; b < &bed.list[bed.count]; b++)
        bed_point(b);
    return RC_OK;
}

static inline enum rc bed_fork(struct tenants *ts, const char *from, const char *to,
                               const struct tenant_at *at, struct err *err)
{
    if (bed_find(from) == NULL) return bed_no_such(from, err);
    bed.at = *at;
    return bed_create(ts, to, NULL, err);
}

static inline enum rc bed_rename(struct tenants *ts, const char *from, const char *to,
                                 struct err *err)
{
    if (bed_find(from) == NULL) return bed_no_such(from, err);
    TRY(bed_create(ts, to, NULL, err));
    return bed_remove(ts, from, true, err);
}

static inline enum rc bed_rewind(struct tenants *ts, const char *name, const struct tenant_at *at,
                                 struct err *err)
{
    (void)ts;
    if (bed_find(name) == NULL) return bed_no_such(name, err);
    bed.at = *at;
    return RC_OK;
}

static inline enum rc bed_configure(struct tenants *ts, const char *name,
                                    const struct tenant_conf *conf, struct err *err)
{
    (void)ts, (void)err;
    bed_conf(bed_find(name), conf);
    return RC_OK;
}

static inline enum rc bed_info(struct tenants *ts, const char *name, struct tenant_info *ret,
                               struct err *err)
{
    (void)ts;
    if (bed_find(name) == NULL) return bed_no_such(name, err);
    *ret = (struct tenant_info){.name = name,
                                .open = true,
                                .created_ms = 1767323045000,
                                .bytes = 8192,
                                .wal_bytes = 4152,
                                .txid = 0x1f,
                                .txid_stored = 0x1e};
    return RC_OK;
}

static inline enum rc bed_list(struct tenants *ts, const char *from, tenant_list_fn *fn, void *ctx,
                               struct err *err)
{
    struct tenant_info info;
    for (size_t i = 0; i < bed.count; i++) {
        if (from != NULL && strcmp(bed.list[i].t.name, from) < 0) continue;
        TRY(bed_info(ts, bed.list[i].t.name, &info, err));
        TRY(fn(ctx, &info, err));
    }
    return RC_OK;
}

static inline enum rc bed_look(struct tenants *ts, tenant_look_fn *fn, void *ctx,
                               struct sql_writer_stats *ret_past, struct err *err)
{
    (void)ts;
    for (size_t i = 0; i < bed.count; i++) {
        struct tenant_look l = {.used = i == 0, .wal_bytes = 100, .txid = 9, .txid_stored = 7};
        if (bed.list[i].wal_bytes > 0) l.wal_bytes = bed.list[i].wal_bytes;
        if (bed.list[i].behind > 0) l.txid = l.txid_stored + bed.list[i].behind;
        snprintf(l.name, sizeof l.name, "%s", bed.list[i].t.name);
        l.engine.writer = (struct sql_writer_stats){.writes = 10, .groups = 2, .group_max = 8};
        TRY(fn(ctx, &l, err));
    }
    *ret_past = (struct sql_writer_stats){.writes = 1000, .groups = 100, .group_max = 77};
    return RC_OK;
}

static inline enum rc bed_checkpoint(struct tenants *ts, const char *name, struct err *err)
{
    (void)ts;
    if (bed_find(name) == NULL) return bed_no_such(name, err);
    bed.checkpoints++;
    return RC_OK;
}

static inline enum rc bed_image(struct tenants *ts, const char *name, tenant_bytes_fn *fn,
                                void *ctx, struct err *err)
{
    (void)ts;
    const struct bed_tenant *b = bed_find(name);
    if (b == NULL) return bed_no_such(name, err);
    for (size_t at = 0; at < b->bytes.size; at += 100000) {
        size_t n = b->bytes.size - at < 100000 ? b->bytes.size - at : 100000;
        if (bed.image_fails_after > 0 && at >= bed.image_fails_after)
            return err_set(err, RC_IO, "the disk is on fire");
        TRY(fn(ctx, b->bytes.data + at, n, err));
    }
    return RC_OK;
}

static inline void bed_clear(void)
{
    for (size_t i = 0; i < bed.count; i++)
        buf_fini(&bed.list[i].bytes);
    bed.count = 0;
    bed.fail = RC_OK;
    bed.image_fails_after = 0;
}

static const struct tenants_ops bed_ops = {
    .open = bed_open,
    .open_wait = bed_open,
    .release = bed_release,
    .create = bed_create,
    .import = bed_import,
    .remove = bed_remove,
    .rename = bed_rename,
    .fork = bed_fork,
    .rewind = bed_rewind,
    .configure = bed_configure,
    .list = bed_list,
    .info = bed_info,
    .look = bed_look,
    .checkpoint = bed_checkpoint,
    .image = bed_image,
};
#endif
