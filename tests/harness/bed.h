/*
 * bed.h -- a database under test, its replica, and the processes around them: the daemon, writers,
 * restores. The program under test is a parameter everywhere; anything with Litestream's command
 * line will do. Every expectation that is not met ends in die(), which keeps the folder.
 *
 * One folder a bed:  db db-wal db-shm   acked.log   replica/   config.yml   daemon.log
 */
#ifndef HARNESS_BED_H
#define HARNESS_BED_H
#include "model.h"

#define BED_WRITERS 4

struct bed_opts {
    int page_size;
    const char *auto_vacuum;
    int monitor_ms;           /* monitor and sync interval; 0: 20 */
    int level1_ms, level2_ms; /* 0: an hour */
    int l0_retention_ms;      /* 0: an hour */
    int snapshot_ms;          /* 0: an hour */
    int min_checkpoint_pages; /* 0: the program's default */
    int truncate_pages;       /* 0: the program's default */
    int checkpoint_ms;        /* 0: the program's default */
    const char *replica_url;  /* NULL: a folder of the bed; else a store's URL with a "%s" where a
                                 name that is this bed's own goes */
};
struct bed {
    char dir[TOOL_PATH_MAX - 64];
    char db[TOOL_PATH_MAX], log[TOOL_PATH_MAX], url[TOOL_PATH_MAX];
    char replica[TOOL_PATH_MAX]; /* the folder; "" with a replica_url */
    char config[TOOL_PATH_MAX], daemon_log[TOOL_PATH_MAX];
    const char *writer_program;
    uint64_t seed;
    struct rng rng;
    struct bed_opts opts;
    pid_t daemon; /* 0: not running */
    int64_t daemon_start_ms;
    bool fault_armed;
    char daemon_name[TOOL_PATH_MAX];
    pid_t writers[BED_WRITERS];
    int64_t writer_start_ms; /* of the last one */
    int writer_count;
};

/* dir is removed and created anew. */
void bed_init(struct bed *b, const char *dir, const char *writer_program, uint64_t seed,
              struct bed_opts opts);
void bed_write_config(struct bed *b); /* after a change of opts */

/* fault: NULL, or a value for SLUICE_FAULT; then the daemon may die at any time. */
void bed_daemon_start(struct bed *b, const char *program, const char *fault);
/* SIGTERM: the daemon must end with status 0 in time. SIGKILL: it is gone. None running is fine. */
void bed_daemon_stop(struct bed *b, int sig);
/* Dies when the daemon ended by itself and no fault was armed. */
void bed_daemon_check(struct bed *b);
/* Replicate everything, and end: no daemon may be running. */
void bed_once(struct bed *b, const char *program);

/* args: more arguments for the writer, NULL-terminated. */
void bed_writer_start(struct bed *b, const char *const *args);
void bed_writer_run(struct bed *b, const char *const *args); /* and wait until it ended well */
void bed_writers_stop(struct bed *b, int sig);
void bed_writers_check(struct bed *b);
/* A connection of this process, with the model's schema; the caller closes it. */
void bed_model_open(struct bed *b, struct model *m);

/* The seq of the source itself; no daemon or writer may be in the middle of anything. */
int64_t bed_source_seq(struct bed *b);

struct bed_restore {
    uint64_t txid;         /* 0: not given */
    const char *timestamp; /* NULL: not given */
};
/* Restore to out (removed first); returns the exit status. */
int bed_restore(struct bed *b, const char *program, const char *out, struct bed_restore what);
/* Restore latest, prove the copy, and return its seq; dies when that fails. */
int64_t bed_restore_check(struct bed *b, const char *program, struct bed_restore what);
/* Restore latest until it holds seq; dies when it does not within timeout_ms. */
void bed_wait_seq(struct bed *b, const char *program, int64_t seq, int64_t timeout_ms);
/* Restore latest. It must be proven, hold every acknowledged commit and, with `identical`, equal
 * the source byte by byte. No process may use the database. */
void bed_check_latest(struct bed *b, const char *program, bool identical);
/* Restore up to `count` transaction ids picked from the replica (0: all of them); each copy must be
 * proven, and a later one must not be older. The number restored. */
size_t bed_check_txids(struct bed *b, const char *program, size_t count);

/* Highest transaction id of a level; 0 for an empty one. For a replica in a folder. */
uint64_t bed_level_txid(struct bed *b, int level);
size_t bed_level_count(struct bed *b, int level);
/* True for a program whose own tables keep changing the source after the last upload. */
bool bed_is_litestream(const char *program);
#endif
