/*
 * model.h -- the content that the writer puts into a database, and the proof of a copy of it.
 *
 * Everything a transaction writes derives from (seed, seq): seq is the number of the commit, kept
 * in the one row of table `acked`. The same row holds a running hash of all rows, maintained by
 * triggers, and a hash of the schema; both are also written to a log outside of the database,
 * before the commit ("C seq hash schema") and the number again after it ("A seq"). So a copy
 * says which commit it represents, its rows prove that they belong together, and the log proves
 * that this is what the writer meant:
 *
 *   acked(id=1, seq, hash, schema)             the commit that this state is
 *   small, wide, pair, x_<seq> (id, seq, slot, k, body)      rows; x_ tables come and go
 *   auto_op(kind)                              a view; inserting runs a commit in one statement
 *
 * Several processes may write: seq is taken under the write lock. Threads: one a struct model.
 */
#ifndef HARNESS_MODEL_H
#define HARNESS_MODEL_H
#include <sqlite3.h>
#include "tool.h"

enum model_mode { MODEL_MIX, MODEL_AUTO, MODEL_BATCH, MODEL_BIG, MODEL_DDL, MODEL_VACUUM };
extern const char *const model_mode_names[];
enum model_checkpoint {
    MODEL_CKPT_AUTO, /* SQLite's own, every `autocheckpoint` pages */
    MODEL_CKPT_NONE,
    MODEL_CKPT_PASSIVE,
    MODEL_CKPT_FULL,
    MODEL_CKPT_RESTART,
    MODEL_CKPT_TRUNCATE,
    MODEL_CKPT_MIXED,
};
extern const char *const model_checkpoint_names[];

struct model_opts {
    uint64_t seed;
    int page_size;           /* of a new database; 0: SQLite's default */
    const char *auto_vacuum; /* of a new database: none, full, incremental; NULL: none */
    const char *sync;        /* off, normal, full; NULL: normal */
    int autocheckpoint;      /* pages; 0: none */
    int64_t size_max;        /* rows are deleted when the used pages exceed this; 0: 6 MB */
};
struct model {
    sqlite3 *db;
    struct model_opts opts;
    int log_fd; /* -1: no log */
    int64_t noted_seq;
    int wal_frames; /* after the last commit of this connection; without autocheckpoint only */
};

/* Open (and create, with its schema) the database; dies on failure. log may be NULL. */
void model_open(struct model *m, const char *path, const char *log, struct model_opts opts);
void model_close(struct model *m);
/* One operation of the mode; returns the seq that was committed, 0 when there was no commit (a
 * rollback, a vacuum). Dies on anything but a busy database. */
int64_t model_step(struct model *m, enum model_mode mode);
/* Run a checkpoint now; busy is no failure. */
void model_checkpoint(struct model *m, enum model_checkpoint kind, struct rng *r);
/* Dies unless the rows that this connection sees now match their running hash. */
void model_check_snapshot(struct model *m);

struct model_state {
    int64_t seq; /* 0: the database is empty or was just created */
    uint64_t hash, schema;
    char problem[512]; /* "" when the copy is good */
};
/* Prove a copy: integrity_check, the running hash against the rows, both against the log (NULL:
 * not compared). The file is opened by SQLite and left as it was found. */
void model_verify(const char *path, const char *log, struct model_state *ret_state);
/* The highest acknowledged seq of a log; 0 for none. */
int64_t model_log_acked(const char *log);
/* Fold the WAL into the database file and remove it; dies when somebody holds it. */
void model_fold(const char *path);
/* Run SQL and give the first column of the first row; dies on failure. */
int64_t model_query(sqlite3 *db, const char *fmt, ...);
#endif
