/*
 * tenant.h -- what the server asks of whoever keeps the tenants, the node: open databases, what is
 * configured for them, how far their log is, and the work of an administrator.
 *
 * Threads: any. A tenant is counted: open and peek give one, release takes it back; while it is
 * counted its engine stays open.
 */
#ifndef SERVER_TENANT_H
#define SERVER_TENANT_H
#include "base/os.h"
#include "server/auth.h"
#include "sql/engine.h"

#define TENANT_DEFAULT "default"
#define TENANT_CLASS   "default" /* of those that have no other */

struct tenant_conf { /* constant; a change makes a new one, the old lives as long as its tenant */
    bool block_reads, block_writes, allow_attach;
    bool sync;                 /* answer a write only when the store has it */
    const char *block_reason;  /* never NULL, may be "" */
    const char *jwt_key;       /* replaces the server's keys; NULL: does not */
    const char *heartbeat_url; /* kept for libSQL's API, not called; NULL: none */
    const char *class;         /* of tenants whose numbers are counted together; NULL: "default" */
    int64_t txn_ms;            /* a transaction may hold the write lock; 0: the server's setting */
    uint64_t size_max;         /* bytes of the database; 0: no limit */
    uint32_t row_max;          /* bytes of a row or value; 0: the server's setting */
};
struct tenant {
    char name[AUTH_NAME_MAX + 1];
    struct sql_engine *engine;
    const struct tenant_conf *_Atomic conf;
    _Atomic unsigned stats; /* the server's own (stats.h); zeroed by who makes the tenant */
    struct tenant_extra *_Atomic extra;
    _Atomic uint64_t commits; /* grows with each, from anywhere above 0 */
};
/* What the server remembers about a tenant as long as it and its log are known: freed with it. */
struct tenant_extra {
    void (*free)(struct tenant_extra *x);
};

/* Tell when everything that was committed before is in the store. */
struct tenant_wait { /* the asker's, alive until fn */
    /* rc RC_OK: it is, and a restore to txid has it. Else err: not known yet; it may well come.
     * Quick, any thread. */
    void (*fn)(struct tenant_wait *w, enum rc rc, const struct err *err);
    void *ctx;
    int64_t deadline_ms; /* os_mono_ms */
    uint64_t txid;
    /* Private: */
    struct tenant_wait *next;
    uint64_t ticket;
};

/* To wait until one more tenant may be open: the asker's, zeroed but for what is In, alive until
 * open_soon returns something else than RC_AGAIN. */
struct tenant_place {
    /* In: */
    /* Ask again, with the same p. Once after each RC_AGAIN; by any thread, also before open_soon
     * has returned; must be quick. */
    void (*fn)(struct tenant_place *p);
    const atomic_bool *gone; /* true: it does not want to wait any more; may be NULL */
    int64_t deadline_ms;     /* it waits so long at most; os_mono_ms */
    /* Private: */
    struct tenant_place *next;
    const char *name;
    uint64_t turn;
    /* Called: it is its turn; its tenant is open; its time is over, or its client has gone. */
    enum { TENANT_PLACE_NEW, TENANT_PLACE_CALLED, TENANT_PLACE_OPEN, TENANT_PLACE_LATE } state;
};

struct tenant_at { /* a moment in a log; all zero: now */
    uint64_t txid;
    int64_t time_ms; /* since 1970 */
};
#define TENANT_FORMER_MAX 8
struct tenant_former { /* a name that it had, under which its log was kept until then */
    char name[AUTH_NAME_MAX + 1];
    int64_t until_ms; /* since 1970 */
};
struct tenant_info {
    const char *name;
    bool open;
    int64_t created_ms;         /* 0: not known */
    uint64_t bytes, wal_bytes;  /* of the files */
    uint64_t txid, txid_stored; /* newest captured here, newest in the store; 0 while closed */
    struct tenant_former former[TENANT_FORMER_MAX]; /* oldest first */
    size_t former_count;
};
struct tenant_look { /* an open one, as it is now */
    char name[AUTH_NAME_MAX + 1];
    bool used, failing; /* by somebody; the store does not answer for it */
    uint64_t wal_bytes, txid, txid_stored;
    struct sql_engine_stats engine;
};
typedef enum rc tenant_look_fn(void *ctx, const struct tenant_look *look, struct err *err);
typedef enum rc tenant_list_fn(void *ctx, const struct tenant_info *info, struct err *err);
struct tenant_batch { /* one transaction of the log: whole pages */
    uint64_t txid;
    uint32_t page_size, page_count; /* of the database after it */
    uint32_t pages;                 /* in it */
    uint64_t tag;                   /* tells it from others of that number in other logs */
};
typedef enum rc tenant_page_fn(void *ctx, const struct tenant_batch *b, uint32_t pgno,
                               const void *page, struct err *err);
/* Bytes of a file on their way out. */
typedef enum rc tenant_bytes_fn(void *ctx, const void *data, size_t size, struct err *err);

struct tenants; /* the node's */
struct tenants_ops {
    /* Open it if it is not: may take milliseconds, or a restore. Fails: RC_NOT_FOUND "Namespace `x`
     * doesn't exist"; RC_BUSY it is being deleted or replaced, or too many are in use; RC_INVALID
     * the name; RC_IO ... */
    enum rc (*open)(struct tenants *ts, const char *name, struct tenant **ret_t, struct err *err);
    /* The same for administrators: when too many are in use it waits, for up to 5 s. */
    enum rc (*open_wait)(struct tenants *ts, const char *name, struct tenant **ret_t,
                         struct err *err);
    /* The same for those who can wait without a thread when too many are in use. `name` lives as
     * long as p. Fails: RC_AGAIN p->fn will be called, or was; nothing of the asker's may be
     * touched; RC_BUSY also after the wait, or too many wait; RC_CANCELED p->gone; as open. */
    enum rc (*open_soon)(struct tenants *ts, const char *name, struct tenant_place *p,
                         struct tenant **ret_t, struct err *err);
    /* Only if it is open: never blocks. NULL: use open, on a thread that may wait. */
    struct tenant *(*peek)(struct tenants *ts, const char *name);
    void (*release)(struct tenants *ts, struct tenant *t);
    /* Every commit until now will be in the state of this TXID, when it comes to be. */
    uint64_t (*index)(struct tenant *t);
    void (*wait)(struct tenant *t, struct tenant_wait *w);

    /* For administrators; these block, and wait as open_wait does. conf NULL: all default. */
    enum rc (*create)(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                      struct err *err); /* RC_CONFLICT it exists */
    /* A new tenant from a file: a SQLite database (checked) or an SQL dump; the file is taken over
     * or deleted. Fails: RC_CONFLICT; RC_INVALID what is wrong with the file. */
    enum rc (*import)(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                      const char *path, bool dump, struct err *err);
    /* keep_backup: its log stays in the store. */
    enum rc (*remove)(struct tenants *ts, const char *name, bool keep_backup, struct err *err);
    /* Its log moves along if the store is a folder of the node's own; else it stays under the old
     * name, a new one begins, and fork and rewind find moments of before by their time. */
    enum rc (*rename)(struct tenants *ts, const char *from, const char *to, struct err *err);
    /* A new tenant with the state that `from` (which may have been deleted, if its log was kept)
     * has or had; from the log if `at` is given. */
    enum rc (*fork)(struct tenants *ts, const char *from, const char *to,
                    const struct tenant_at *at, struct err *err);
    /* Back to a moment, under the same name; what it was until now stays in the log: the restored
     * state becomes its newest transaction. */
    enum rc (*rewind)(struct tenants *ts, const char *name, const struct tenant_at *at,
                      struct err *err);
    enum rc (*configure)(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                         struct err *err);
    /* In ascending order, from the first name that is not below `from`; fn's failure ends it. */
    enum rc (*list)(struct tenants *ts, const char *from, tenant_list_fn *fn, void *ctx,
                    struct err *err);
    enum rc (*info)(struct tenants *ts, const char *name, struct tenant_info *ret,
                    struct err *err); /* ret->name is `name` */
    /* Those that are open, in no order; opens none and keeps none open. *ret_past: what the writers
     * of those that were closed since the start have done. */
    enum rc (*look)(struct tenants *ts, tenant_look_fn *fn, void *ctx,
                    struct sql_writer_stats *ret_past, struct err *err);
    enum rc (*checkpoint)(struct tenants *ts, const char *name, struct err *err);
    /* A consistent image of the database file, while others write. */
    enum rc (*image)(struct tenants *ts, const char *name, tenant_bytes_fn *fn, void *ctx,
                     struct err *err);

    /* For replicas, which follow the log. All but commits block. */
    /* Of an open tenant; 0: it is not open. Does not count as use. */
    uint64_t (*commits)(struct tenants *ts, const char *name);
    /* A transaction that is in the store: its pages in ascending order (fn NULL: none), after all
     * of it was checked. Fails: RC_NOT_FOUND the log does not have it by itself; RC_CORRUPT; as
     * store_get; fn's. */
    enum rc (*batch)(struct tenants *ts, struct tenant *t, uint64_t txid, const struct call *call,
                     struct tenant_batch *ret, tenant_page_fn *fn, void *ctx, struct err *err);
    /* A new file with the database as of this transaction, exactly; txid 0: as of now. Whoever asks
     * deletes it. Fails: RC_NOT_FOUND the log cannot tell any more. */
    enum rc (*image_file)(struct tenants *ts, struct tenant *t, uint64_t txid,
                          const struct call *call, char ret_path[OS_PATH_MAX], struct err *err);
    /* A small text that goes where the tenant goes. Fails: kept: RC_NOT_FOUND there is none. */
    enum rc (*keep)(struct tenants *ts, struct tenant *t, const struct buf *text, struct err *err);
    enum rc (*kept)(struct tenants *ts, struct tenant *t, struct buf *out, struct err *err);
};
#endif
