/*
 * conn_intern.h -- what the files of a connection, and the writer, share; not for callers.
 *
 *   conn.c        open, run, cache of statements       conn_bind.c  arguments, values, failures
 *   conn_guard.c  what is forbidden                    conn_kind.c  the first words of a statement
 *   conn_functions.c  functions in the place of SQLite's own
 *
 * Threads: as conn.h. sql_conn_revoke may come from any thread.
 */
#ifndef SQL_CONN_INTERN_H
#define SQL_CONN_INTERN_H
#include <sqlite3.h>
#include "sql/conn.h"

/* What SQLite does not know or has no authorizer code for. */
enum conn_dialect {
    DIALECT_NONE,
    DIALECT_BEGIN_READONLY,
    DIALECT_BEGIN_CONCURRENT,
    DIALECT_VACUUM
};

enum { /* what the authorizer saw while a statement was prepared */
       SEEN_INSERT = 1 << 0,
       SEEN_CHANGE = 1 << 1,  /* INSERT, UPDATE, DELETE of a table */
       SEEN_SCHEMA = 1 << 2,  /* CREATE, DROP, ALTER, ... */
       SEEN_SESSION = 1 << 3, /* what it changes stays with the connection */
       SEEN_DEFER = 1 << 4,   /* PRAGMA defer_foreign_keys with a value */
       SEEN_SETTING = 1 << 6, /* a PRAGMA that changes this connection */
       SEEN_ALONE = 1 << 5,   /* nothing for a transaction that others share */
       SEEN_REPLACE = 1 << 7, /* REPLACE, under a policy: guard.replaces while it runs */
};

enum conn_own { /* statements of our own, see conn.c */
                CONN_BEGIN,
                CONN_BEGIN_WRITE,
                CONN_COMMIT,
                CONN_ROLLBACK,
                CONN_UNIT_OPEN,
                CONN_UNIT_KEEP,
                CONN_UNIT_UNDO,
                CONN_STEP_OPEN,
                CONN_STEP_KEEP,
                CONN_STEP_UNDO,
                CONN_DEFER_OFF,
                CONN_OWN_COUNT
};

struct guard {
    const struct sql_policy *policy;
    unsigned seen;  /* SEEN_* */
    bool stepping;  /* SQLite prepares for itself: virtual tables, VACUUM, a changed schema */
    bool vacuum;    /* the statement that runs is VACUUM */
    bool attaching; /* sql_conn_attach is at work */
    bool replaces;  /* what it writes to may lose rows: the policy is asked for that, too */
    bool denied;
    char why[160]; /* the refusal */
};

struct kept {                    /* a prepared statement */
    uint64_t hash, used, policy; /* policy: the id of the one it was prepared under; 0: none */
    sqlite3_stmt *stmt;
    char *sql; /* as the client wrote it */
    size_t sql_size, bytes;
    unsigned seen;
    enum conn_dialect dialect;
};

struct sql_conn {
    struct sql_conn_opts opts;
    char *path;
    sqlite3 *db;
    pthread_mutex_t lock;    /* held while a call uses db */
    pthread_mutex_t gate;    /* db may be interrupted while it is held; after lock */
    atomic_bool revoked;     /* the transaction was taken away: every call fails */
    const struct call *call; /* of the running statement */
    int64_t busy_ms, busy_since_ms;
    struct guard guard;
    struct kept *kept, spare; /* spare: a statement that is not kept, until the next call */
    unsigned kept_count;
    size_t kept_bytes;
    uint64_t tick;
    struct sql_value *values;
    struct sql_col *cols;
    struct sql_param *params;
    size_t value_cap, param_cap;
    sqlite3_stmt *own[CONN_OWN_COUNT];
    bool utf8, tainted, running;
    bool interruptible; /* a client's statement runs, not one of our own */
    bool read_only_tx;  /* BEGIN READONLY */
    bool defers;        /* PRAGMA defer_foreign_keys may be on, see conn_defers */
    bool deferred;      /* PRAGMA defer_foreign_keys was used */
    bool guest;         /* in a transaction of several writes: nothing that concerns the others */
    bool alone;         /* refused only because of guest */
    bool left_open;     /* when the last call returned, a transaction was open */
    bool lost;          /* a guest tried to go on after its transaction was gone */
    bool committing;    /* the commit hook has come, its statement has not ended */
    uint64_t commits;   /* transactions that wrote and were committed */
    int64_t unit_changes, unit_total; /* of the connection, when the unit began */
    int64_t base_changes, base_total; /* of the client, at that time */
    bool unit_changed;
};

/* Of the first statement; *ret_size: its bytes, set for the two kinds of BEGIN only. */
enum conn_dialect conn_dialect_of(const char *sql, size_t size, size_t *ret_size);
bool conn_is_blank(const char *sql, size_t size);
/* Words and signs between two ';', where there are most of them. */
size_t conn_most_tokens(const char *sql, size_t size);
/* Where the text after the last ';' begins. */
size_t conn_last_piece(const char *sql, size_t size);
/* The first statement, if it ends a transaction; *ret_size: its bytes, with its ';'. */
enum conn_end { CONN_END_NONE, CONN_END_COMMIT, CONN_END_ROLLBACK };
enum conn_end conn_end_of(const char *sql, size_t size, size_t *ret_size);
uint64_t conn_hash(const char *sql, size_t size);

/* Functions in the place of SQLite's own, for a connection that is being opened. A SQLite code. */
int conn_functions(struct sql_conn *c, sqlite3 *db);
/* Nobody waits for the running statement any more: it may end. */
bool conn_unwanted(const struct sql_conn *c);
/* For a connection that is being opened: take modules away. A SQLite code. */
int conn_guard_modules(sqlite3 *db);
int conn_guard_authorize(void *guard, int action, const char *a, const char *b, const char *db,
                         const char *trigger);

MUST_CHECK enum rc conn_bind(struct sql_conn *c, sqlite3_stmt *stmt, const struct call *call,
                             const struct sql_arg *args, size_t count, struct sql_error *sql_err,
                             struct err *err);
MUST_CHECK enum rc conn_room(struct sql_conn *c, size_t cols, struct err *err);
void conn_cols(struct sql_conn *c, sqlite3_stmt *stmt, size_t count);
/* Fill c->values; returns their bytes. */
uint64_t conn_row(struct sql_conn *c, sqlite3_stmt *stmt, size_t count);
/* A SQLite code into both kinds of failure. */
enum rc conn_fail(struct sql_conn *c, int code, int offset, struct sql_error *sql_err,
                  struct err *err);
enum rc conn_fail_own(struct sql_error *sql_err, struct err *err, enum rc rc, const char *code,
                      const char *text);

/* For the writer. A unit is one write of a group: changes(), total_changes() and
 * last_insert_rowid() start from zero. A guest may not run what concerns more than its own unit:
 * such a statement fails, and sql_conn_wants_alone is true. */
void conn_unit(struct sql_conn *c);
void conn_guest(struct sql_conn *c, bool on);
bool conn_wants_alone(const struct sql_conn *c);
/* A guest's unit lost the transaction and then tried to go on. */
bool conn_lost(const struct sql_conn *c);
/* Deferred foreign keys are violated now. */
bool conn_violates(struct sql_conn *c);
/* One of our own statements. Fails: as sql_conn_run. */
MUST_CHECK enum rc conn_do(struct sql_conn *c, enum conn_own which, struct sql_error *sql_err,
                           struct err *err);
void conn_rollback(struct sql_conn *c);            /* as sql_conn_rollback, under the lock */
void conn_busy_ms(struct sql_conn *c, int64_t ms); /* 0: as opened */
/* Stop what runs, roll back, and let all further calls fail until conn_restore. */
void conn_revoke(struct sql_conn *c);
void conn_restore(struct sql_conn *c);
/* PRAGMA defer_foreign_keys is on. Outside of a transaction it is for the next one. */
bool conn_defers(struct sql_conn *c);
/* Its transaction has the database's write lock. */
bool conn_writes(struct sql_conn *c);
uint64_t conn_commits(const struct sql_conn *c);
#endif
