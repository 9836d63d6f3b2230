/*
 * tenants.h -- the tenants of one server: a folder of databases, each with a log of its own.
 *
 *   DIR/lock                      held while a server has the folder
 *   DIR/tenants/<name>/data       the database, with data-wal and data-shm
 *   DIR/tenants/<name>/conf.json  what is configured for it, and when it was made
 *   DIR/tenants/<name>/log-state  what capture remembers
 *   DIR/backup/<name>             its log, when no other store is given; else <store>/<name>
 *   DIR/open/<name>               its log may lack something: it is written to, or was at a crash
 *   DIR/tmp/<random>              being built, or being deleted; forget.<name>.<random>: its log
 * too
 *
 * A tenant exists when its folder holds `data` or conf.json. All changes of the tree are one
 * rename: a new tenant is built in DIR/tmp, an old one goes there first. What a crash leaves in
 * DIR/tmp is deleted by the next start, and tenants with a mark in DIR/open are opened in the
 * background, so that their logs get what is missing. Otherwise a start opens and lists nothing.
 *
 * An open tenant has an engine and a replication task. One without a mark whose WAL ends with the
 * newest batch of its log rests at first: its task, and before it the mark, come with the first
 * statement that may write, with a question about its log, or when another program has written: its
 * WAL is looked at every rest_ms. So one that is only read costs a connection, and its log is not
 * touched. A commit that finds the task started late is captured as any other: only capture copies
 * the WAL into the database and lets it begin anew.
 *
 * One that nobody uses is closed after a while, or as the least recently used of too many: first
 * its engine, then, when the store has everything, the rest. If the store does not answer, the rest
 * is closed all the same, and tried again later. If one has rested until then, its WAL is looked at
 * once more, for what other programs may have written.
 *
 * Threads: any, but tenants_new and tenants_free. One thread of its own keeps house.
 */
#ifndef NODE_TENANTS_H
#define NODE_TENANTS_H
#include "base/sched.h"
#include "node/bell.h"
#include "server/tenant.h"

struct tenants_opts {      /* zero, where nothing else is said: the default */
    const char *dir;       /* made when missing; the string is copied */
    const char *store_url; /* NULL or "": DIR/backup */
    struct sched *capture; /* its workers are batch scratches (db/batch.h) */
    struct sched *upload;
    struct sched *write;       /* engines write there */
    struct bell *bell;         /* rings task_ring */
    const atomic_bool *cancel; /* true: give up calls to the store; NULL: never */
    unsigned open_max;         /* engines open at once; 0: 1000 */
    unsigned readers;          /* connections of one tenant in use at once; 0: the engine's */
    bool full_sync;            /* a commit waits for the disk */
    int64_t txn_ms;            /* a transaction may hold the write lock; 0: the engine's */
    int64_t cache_kib;         /* page caches of all tenants that are not in use; 0: 256 MiB */
    int64_t sync_interval_ms;  /* between batches of a log; 0: 1000 */
    int64_t idle_close_ms;     /* 0: 60 s */
    int64_t rest_ms;           /* between looks at the WAL of one that rests; 0: 10 s */
    int64_t flush_ms;          /* tenants_free waits so long for the store; 0: 30 s */
};

extern const struct tenants_ops tenants_ops;

/* The pools and the bell must live until after tenants_free, which needs them running.
 * source_global_init must have been called. Fails: RC_FENCED another server has the folder;
 * RC_INVALID the store's URL; RC_NO_MEM; by errno. */
MUST_CHECK enum rc tenants_new(const struct tenants_opts *opts, struct tenants **ret_ts,
                               struct err *err);
/* Nobody may use a tenant any more. Closes all and waits until the store has every commit, at most
 * flush_ms and not after `cancel`. Fails: RC_CANCELED logs that the store has not got whole; the
 * next start goes on with them. ts is gone in any case; NULL is fine. */
MUST_CHECK enum rc tenants_free(struct tenants *ts, struct err *err);

struct tenants_stats {
    unsigned open, used; /* engines; of them, counted by somebody */
    unsigned waiting;    /* requests, until one more may be open */
    unsigned draining;   /* closed, their logs on the way to the store */
    unsigned parked;     /* closed, their logs not whole in the store: tried again */
    uint64_t opened, closed;
    int64_t memory;  /* bytes of connections that are not in use, some seconds ago */
    uint64_t behind; /* batches that are captured, not in the store yet */
};
void tenants_look(struct tenants *ts, struct tenants_stats *ret);
#endif
