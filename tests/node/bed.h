/*
 * bed.h -- a database, an application that writes to it, a replica that misbehaves on demand, and
 * what replicates: a task alone, or with its pools.
 *
 *   task -> spy (this file: refuse, lose, hang, count) -> [fault countdown] -> file or mem store
 */
#ifndef TESTS_NODE_BED_H
#define TESTS_NODE_BED_H
#include <sqlite3.h>
#include "node/task.h"

enum bed_kind { BED_FILE, BED_MEM };
/* A test on one of them, which *state names. */
#define ON(f, kind)                                                                                \
    {                                                                                              \
#f " (" #kind ")", f, NULL, NULL, &kind                                                    \
    }
enum spy_mode {
    SPY_PASS,
    SPY_REFUSE_PUT, /* RC_AGAIN, nothing happened */
    SPY_LOSE_PUT,   /* RC_AGAIN, but the object is there */
    SPY_REFUSE_ALL,
    SPY_HANG_PUT, /* until the call's limits end it, or the mode changes */
};
struct spy {
    atomic_int mode;
    atomic_uint calls, lists, puts; /* since the start; puts: those that made an object */
    bool no_create;                 /* the store cannot arbitrate between writers */
    bool faults;                    /* with a countdown store below */
    bool fault_loses;               /* ... whose answers get lost, rather than refuse */
};
extern struct spy spy;

struct bytes {
    uint8_t *data;
    size_t size;
};

struct bed {
    enum bed_kind kind;
    char dir[64], path[96], meta[128], replica[96], url[112];
    sqlite3 *app;
    struct config *cfg;
    struct store *peek; /* around the spy; keeps a mem store alive */
    struct batch_scratch *scratch;
    struct task *task;
    struct task_pools pools;
    struct sched_job trim;
    atomic_int trims;
};

/* extra: lines of configuration for the database, each ending in a newline, indented by 4. */
void bed_new(struct bed *b, enum bed_kind kind, const char *extra);
void bed_free(struct bed *b);
void bed_config(struct bed *b, const char *extra); /* no task may be open */

void bed_app_open(struct bed *b, const char *setup_sql);
void bed_app_close(struct bed *b);
void bed_sql(struct bed *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bed_rows(struct bed *b, int count); /* as many transactions */
void bed_delete_db(struct bed *b);       /* the application must be closed */

void bed_task_open(struct bed *b);
void bed_task_close(struct bed *b);
/* Open if needed, then task_once. */
enum rc bed_once(struct bed *b, bool snapshot, struct err *err);
void bed_once_ok(struct bed *b);

void bed_pools_start(struct bed *b, int64_t sleep_after_ms); /* and the task with them */
void bed_pools_stop(struct bed *b);                          /* and close the task */
/* What a worker of a capture pool has, see sched_new. */
enum rc bed_scratch_new(void **ret_worker, struct err *err);
void bed_scratch_free(void *worker);
/* Those that only the daemon takes, with sigwaitinfo. */
void bed_block_signals(void);

/* Newest TXID of level 0, which must have no hole after its first file; 0: no file. */
uint64_t bed_newest(struct bed *b);
size_t bed_count_level(struct bed *b, uint32_t level);
void bed_object(struct bed *b, uint32_t level, uint64_t txid_min, uint64_t txid_max,
                struct bytes *ret);
void bed_delete_objects(struct bed *b, uint64_t after_txid); /* 0: all levels, all files */
/* Batches that wait in the state folder, and one of them without its footer. */
size_t bed_staged(struct bed *b, uint64_t *ret_first, uint64_t *ret_last);
void bed_staged_bytes(struct bed *b, uint64_t txid, struct bytes *ret);

/* Restore and compare with the database as SQLite sees it, byte for byte. */
void bed_check_restore(struct bed *b);
bool bed_restore_is_current(struct bed *b); /* the same, as a question */
/* Of this process, on the database and its WAL. SQLite keeps some open as long as the application,
 * which is in this process, has the database open. */
int bed_open_fds(const struct bed *b);
bool bed_asleep(const struct bed *b);
#endif
