/*
 * tenants_intern.h -- shared between the files of the tenants; nobody else includes it.
 *
 *   tenants.c        the table: open, peek, release, the housekeeper
 *   tenants_place.c  so many may be open at once, and others wait
 *   tenants_slot.c   one tenant: start and end its engine and its task
 *   tenants_conf.c   conf.json
 *   tenants_disk.c   paths, and what is done with whole folders
 *   tenants_admin.c  create, import, remove, rename, configure, list, info, checkpoint, image
 *   tenants_past.c   fork and rewind; logs of tenants
 *   tenants_log.c    what replicas read of a log
 */
#ifndef NODE_TENANTS_INTERN_H
#define NODE_TENANTS_INTERN_H
#include "base/os.h"
#include "base/thr.h"
#include "log/layout.h"
#include "node/config.h"
#include "node/task.h"
#include "node/tenants.h"

#define TENANTS_SHARDS   64
#define TENANTS_CLAIM_MS 5000  /* so long an administrator waits until nobody uses a tenant */
#define TENANTS_PLACE_MS 5000  /* ... for a place */
#define TENANTS_STORE_MS 30000 /* ... and until the store has everything */
#define TENANTS_PATH_MAX 1024  /* of DIR: paths below it fit into OS_PATH_MAX */

/* ---- conf.json ---- */
struct tenants_conf {
    struct tenants_conf *older; /* of the same tenant; somebody may look at it still */
    struct tenant_conf conf;    /* its texts are ours */
    int64_t created_ms;
    struct tenant_former former[TENANT_FORMER_MAX]; /* oldest first */
    size_t former_count;
};
/* conf NULL: all default. Fails: RC_INVALID a text that is too long; RC_NO_MEM. */
MUST_CHECK enum rc tenants_conf_new(const struct tenant_conf *conf, int64_t created_ms,
                                    struct tenants_conf **ret_c, struct err *err);
/* The names that `from` had, and one more, until now; NULL: no more. The oldest may be dropped. */
void tenants_conf_former(struct tenants_conf *c, const struct tenants_conf *from, const char *name);
void tenants_conf_free(struct tenants_conf *c); /* and the older ones; NULL is fine */
void tenants_conf_freep(struct tenants_conf **c);
/* No file: all default. Fails: RC_CORRUPT; RC_NO_MEM; by errno. */
MUST_CHECK enum rc tenants_conf_load(const char *path, struct tenants_conf **ret_c,
                                     struct err *err);
MUST_CHECK enum rc tenants_conf_save(const char *path, const struct tenants_conf *c,
                                     struct err *err);

/* ---- one tenant that is known to the table ---- */
enum slot_state {
    SLOT_OPENING, /* by one thread; others wait */
    SLOT_OPEN,
    SLOT_CLOSING,  /* its engine is being closed */
    SLOT_DRAINING, /* no engine; its task brings the rest to the store. May be opened again */
    SLOT_FREEING,  /* its task is being ended */
    SLOT_CLAIMED   /* an administrator has it */
};
struct slot {
    struct tenant t; /* first: what the server has */
    struct tenants *ts;
    struct slot *next;     /* [shard] */
    enum slot_state state; /* [shard] */
    unsigned refs;         /* [shard] */
    bool wanted;           /* [shard] somebody waits to claim it; do not let others in */
    bool stale;            /* [shard] its engine has an old configuration */
    bool trimmed;          /* [shard] since it was last used */
    int64_t used_ms;       /* [shard] */
    int64_t check_ms;      /* [shard] if it rests, then somebody looks whether it still can */
    /* Of places; [shard]. Since when it is open; until then no new request gets in; until then it
     * does not happen again. 0: never */
    int64_t opened_ms, shut_until_ms, alone_until_ms;
    /* The drain; [shard] */
    bool drain_pending, drain_done;
    uint64_t drain_of, drain_epoch; /* the drain that waits, the one that counts */
    int64_t drain_ms;
    struct tenant_wait drain;
    /* Of whoever brought it into its state: */
    struct tenants_conf *confs;
    struct config_db db;
    char *path, *meta;
    uint64_t page_size;
    /* It rests as long as it has no task and rest_txid is not 0: what is in its database was proved
     * to be in its log as this TXID when it was opened, and nothing was written since. */
    _Atomic(struct task *) task; /* comes under start_lock while it is open */
    uint64_t rest_txid;
    pthread_mutex_t start_lock;
    atomic_bool cancel; /* give up calls to the store */
    bool counted;       /* it has a place */
};
struct shard {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a state, or refs down to 0 */
    struct slot *slots;
};
#define TENANTS_FORGET "forget." /* in DIR/tmp: its log is to be deleted as well */
struct leftover {                /* in DIR/tmp, from before the start */
    struct leftover *next;
    char name[256];
    struct slot *forgotten; /* claimed until its log is deleted; NULL: none */
};
struct places { /* who waits for one */
    pthread_mutex_t lock;
    pthread_cond_t cond;              /* the first has come, or stop */
    struct tenant_place *head, **end; /* [lock] in the order of their turns */
    uint64_t turns;                   /* [lock] */
    atomic_uint count;                /* changes under the lock */
    atomic_uint called;               /* and have not come yet */
    bool stop;                        /* [lock] */
    bool runs;
    pthread_t thread;
    unsigned next_shard; /* the thread's */
};
struct tenants {
    struct tenants_opts opts;
    char *dir, *store_url;
    bool embedded; /* the store is DIR/backup */
    int lock_fd;
    struct config *base;
    struct task_pools pools;
    struct task_outage outage;
    struct sched_job trim;
    struct shard shards[TENANTS_SHARDS];
    struct places places;
    atomic_uint open; /* places that are taken */
    atomic_uint draining, parked;
    _Atomic uint64_t opened, closed;
    pthread_mutex_t past_lock;
    struct sql_writer_stats past; /* [past_lock] of engines that were closed */
    _Atomic int64_t memory;

    pthread_mutex_t configure_lock; /* one changes conf.json at a time */
    struct leftover *left;          /* [keeper_lock] new ones */
    pthread_t keeper;
    bool keeper_runs;
    pthread_mutex_t keeper_lock;
    pthread_cond_t keeper_poked;
    bool poked, stop; /* [keeper_lock] */
    atomic_bool stopping;
    /* keeper only: */
    struct leftover *leftovers;
    int64_t parked_ms, memory_ms, leftovers_ms;
    unsigned parked_now; /* since the last look at the marks */
    unsigned parked_opened;
    bool parked_known;
};

/* ---- tenants_slot.c ---- */
/* A new one for the table, in SLOT_OPENING or SLOT_CLAIMED. */
MUST_CHECK enum rc slot_new(struct tenants *ts, const char *name, enum slot_state state,
                            struct slot **ret_s, struct err *err);
void slot_free(struct slot *s);
/* Configuration, mark and task, as far as they are not there. */
MUST_CHECK enum rc slot_start_task(struct slot *s, struct err *err);
/* The engine, too; the task only if it has something to do, else it rests. */
MUST_CHECK enum rc slot_start(struct slot *s, struct err *err);
/* Its task, which is started now if it rests. Any thread, while it is open, or whoever has brought
 * it into its state. Fails: as task_new. */
MUST_CHECK enum rc slot_task(struct slot *s, struct task **ret_task, struct err *err);
bool slot_rests(const struct slot *s);
void slot_place(const struct slot *s, struct task_place *ret); /* also while it rests */
void slot_close_engine(struct slot *s);
/* If it rests and somebody else has written to it, its task is started. Fails: as slot_task. */
MUST_CHECK enum rc slot_check_rest(struct slot *s, struct err *err);
void slot_end_rest(struct slot *s); /* after its engine, for the last time */
/* whole: the store has everything, so the mark goes. */
void slot_end_task(struct slot *s, bool whole);
/* Wait until the store has all that was committed before. txid (may be NULL): what a restore to it
 * needs. Fails: RC_CANCELED deadline_ms, or the task ends. */
MUST_CHECK enum rc slot_wait_stored(struct slot *s, int64_t deadline_ms, uint64_t *ret_txid,
                                    struct err *err);
/* An image of the open database at out, which must not exist. Fails: as image_copy. */
MUST_CHECK enum rc slot_copy(struct slot *s, const char *out, struct err *err);
/* Let on_drained tell the table when the store has all; under the shard's lock, in SLOT_DRAINING.
 */
void slot_drain(struct slot *s);

/* Its place, if it has one. */
void slot_give_place(struct slot *s);

/* ---- tenants_place.c ---- */
MUST_CHECK enum rc places_start(struct tenants *ts, struct err *err);
void places_stop(struct tenants *ts); /* nobody waits any more */
/* p NULL: for those who do not wait. May close another tenant. Fails: as open_soon. */
MUST_CHECK enum rc place_take(struct tenants *ts, const char *name, struct tenant_place *p,
                              struct err *err);
void place_give(struct tenants *ts);
/* As tenants_open, but it waits for a place. Fails: as open_wait. */
MUST_CHECK enum rc tenants_open_wait(struct tenants *ts, const char *name, struct tenant **ret_t,
                                     struct err *err);
/* Into the queue. Fails: RC_AGAIN it is there; RC_BUSY; RC_CANCELED. */
MUST_CHECK enum rc place_wait(struct tenants *ts, const char *name, struct tenant_place *p,
                              struct err *err);
void places_call(struct tenants *ts); /* the first who waits, if any */
/* One who was called has come, and uses a place, or waits again; in vain: it does neither. */
void places_came(struct tenants *ts, bool in_vain);
void places_call_for(struct tenants *ts, const char *name); /* all who wait for this one */
/* Under the shard's lock: is it worth a call that nobody uses it now? */
bool place_is_free_with(const struct slot *s, int64_t now_ms);
/* Under the shard's lock: must this one wait? p NULL: it can. */
bool place_door_is_shut(const struct slot *s, const struct tenant_place *p);

/* ---- tenants.c ---- */
/* Its engine is closed, and its task drains; without one it is gone. In SLOT_CLOSING. */
void tenants_close(struct slot *s);
MUST_CHECK enum rc tenants_open_soon(struct tenants *ts, const char *name, struct tenant_place *p,
                                     struct tenant **ret_t, struct err *err);
struct shard *tenants_shard(struct tenants *ts, const char *name);
struct slot *tenants_find(struct shard *sh, const char *name); /* under its lock */
MUST_CHECK enum rc tenants_open(struct tenants *ts, const char *name, struct tenant **ret_t,
                                struct err *err);
struct tenant *tenants_peek(struct tenants *ts, const char *name);
void tenants_release(struct tenants *ts, struct tenant *t);
uint64_t tenants_index(struct tenant *t);
void tenants_wait(struct tenant *t, struct tenant_wait *w);
/* The name for one's own: nobody uses it and nobody gets it, until tenants_unclaim. It has a task
 * if it was open. Fails: RC_BUSY; RC_NO_MEM. */
MUST_CHECK enum rc tenants_claim(struct tenants *ts, const char *name, struct slot **ret_s,
                                 struct err *err);
void tenants_unclaim(struct slot *s);
void tenants_poke(struct tenants *ts); /* there is work for the housekeeper */
/* Let the housekeeper delete `name` in DIR/tmp, and the log of s, and then unclaim s. */
void tenants_leave(struct tenants *ts, const char *name, struct slot *s);
/* As tenants_claim, of a tenant that is there. Fails: RC_NOT_FOUND, too. */
MUST_CHECK enum rc tenants_claim_old(struct tenants *ts, const char *name, struct slot **ret_s,
                                     struct err *err);
/* The log of one that was made or replaced, and is claimed still, shall not wait for somebody to
 * use it; that needs no place. */
void tenants_begin_log(struct slot *s);

/* ---- tenants_disk.c ---- */
enum tenants_file { TENANT_FOLDER, TENANT_DATA, TENANT_CONF, TENANT_META, TENANT_MARK };
void tenants_path(const struct tenants *ts, const char *name, enum tenants_file which,
                  char ret_path[OS_PATH_MAX]);
MUST_CHECK enum rc tenants_check_name(const char *name, bool create, struct err *err);
enum rc tenants_no_such(struct err *err, const char *name); /* RC_NOT_FOUND */
MUST_CHECK enum rc tenants_exists(const struct tenants *ts, const char *name, bool *ret_yes,
                                  struct err *err);
/* The mark in DIR/open, durable. */
MUST_CHECK enum rc tenants_mark(const struct tenants *ts, const char *name, struct err *err);
/* A path in DIR/tmp that nobody has; prefix may be "". */
void tenants_tmp(const struct tenants *ts, const char *prefix, char ret_path[OS_PATH_MAX]);
MUST_CHECK enum rc tenants_mkdir(const char *path, struct err *err);
MUST_CHECK enum rc tenants_delete_tree(const char *path, struct err *err); /* none is fine */
/* Make the folder at `tmp` the one of the tenant. Fails: RC_CONFLICT there is one. */
MUST_CHECK enum rc tenants_put_in_place(const struct tenants *ts, const char *tmp, const char *name,
                                        struct err *err);
MUST_CHECK enum rc tenants_fsync_file(const char *path, struct err *err);
MUST_CHECK enum rc tenants_copy_file(const char *from, const char *to, struct err *err);
/* A folder with conf.json in DIR/tmp, its path in ret_path. */
MUST_CHECK enum rc tenants_build(const struct tenants *ts, const struct tenants_conf *c,
                                 char ret_path[OS_PATH_MAX], struct err *err);

/* ---- tenants_past.c ---- */
/* Where a tenant's log is. Fails: RC_INVALID; RC_NO_MEM. */
MUST_CHECK enum rc tenants_replica(const struct tenants *ts, const char *name,
                                   struct config_replica *ret_r, struct err *err);
MUST_CHECK enum rc tenants_delete_log(const struct tenants *ts, const char *name, struct err *err);

/* ---- what struct tenants_ops points to ---- */
enum rc tenants_create(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                       struct err *err);
enum rc tenants_import(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                       const char *path, bool dump, struct err *err);
enum rc tenants_remove(struct tenants *ts, const char *name, bool keep_backup, struct err *err);
enum rc tenants_rename(struct tenants *ts, const char *from, const char *to, struct err *err);
enum rc tenants_fork(struct tenants *ts, const char *from, const char *to,
                     const struct tenant_at *at, struct err *err);
enum rc tenants_rewind(struct tenants *ts, const char *name, const struct tenant_at *at,
                       struct err *err);
enum rc tenants_configure(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                          struct err *err);
enum rc tenants_list(struct tenants *ts, const char *from, tenant_list_fn *fn, void *ctx,
                     struct err *err);
enum rc tenants_info(struct tenants *ts, const char *name, struct tenant_info *ret,
                     struct err *err);
enum rc tenants_look_each(struct tenants *ts, tenant_look_fn *fn, void *ctx,
                          struct sql_writer_stats *ret_past, struct err *err);
enum rc tenants_checkpoint(struct tenants *ts, const char *name, struct err *err);
enum rc tenants_image(struct tenants *ts, const char *name, tenant_bytes_fn *fn, void *ctx,
                      struct err *err);
uint64_t tenants_commits(struct tenants *ts, const char *name);
enum rc tenants_batch(struct tenants *ts, struct tenant *t, uint64_t txid, const struct call *call,
                      struct tenant_batch *ret, tenant_page_fn *fn, void *ctx, struct err *err);
enum rc tenants_image_file(struct tenants *ts, struct tenant *t, uint64_t txid,
                           const struct call *call, char ret_path[OS_PATH_MAX], struct err *err);
enum rc tenants_keep(struct tenants *ts, struct tenant *t, const struct buf *text, struct err *err);
enum rc tenants_kept(struct tenants *ts, struct tenant *t, struct buf *out, struct err *err);
#endif
