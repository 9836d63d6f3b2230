/*
 * conn.h -- one SQLite connection of a tenant: prepared statements kept, limits, what is forbidden.
 *
 * A tenant must not reach anything but its own database. So whatever the SQL says, refused are:
 * ATTACH (but by sql_conn_attach), VACUUM INTO, load_extension, writable_schema and every PRAGMA
 * that is not in the list of conn_guard.c, sqlite_dbpage, writes to shadow tables, URI file names.
 * The authorizer callback and SQLITE_DBCONFIG_DEFENSIVE see to it; `policy` may refuse more.
 *
 * A connection is not for use by a sink that it feeds.
 *
 * Threads: a connection belongs to one thread at a time; sql_conn_interrupt may come from any.
 */
#ifndef SQL_CONN_H
#define SQL_CONN_H
#include "base/thr.h"
#include "sql/sql.h"

struct sql_conn;

/* A second opinion on each action of a statement while it is prepared, for roles. It answers the
 * same for as long as it lives. A statement that was prepared under one policy is kept for those
 * who come under that very policy: by its id, for an address may be another's later. */
struct sql_policy {
    /* action: a code of sqlite3_set_authorizer; the texts as documented there, may be NULL. True:
     * allowed. SQLite does not ask for everything (actions.h): that is SQL_ACTION_UNSEEN, and
     * SQLITE_DELETE for each table that a REPLACE writes to; VACUUM is SQLITE_PRAGMA "vacuum".
     * Tables that a virtual table keeps for itself ("docs_data" of "docs") are allowed to whoever
     * may use the virtual table. */
    bool (*allows)(const struct sql_policy *p, int action, const char *a, const char *b,
                   const char *db);
    uint64_t id; /* of sql_policy_id */
};
uint64_t sql_policy_id(void); /* one that no policy of this process has had before */

struct sql_conn_opts {
    const char *path;   /* created when missing, unless read_only */
    bool read_only;     /* query_only: no statement may write */
    bool full_sync;     /* synchronous=FULL, else NORMAL */
    bool foreign_keys;  /* on, as libSQL's server has it */
    bool temp_in_file;  /* temp_store=FILE: sorting and VACUUM may take disk instead of memory */
    int64_t cache_kib;  /* 0: 2000 */
    int64_t mmap_bytes; /* 0: none */
    int64_t busy_ms;    /* wait for locks of other processes; 0: 5000 */
    unsigned statement_max; /* prepared statements kept; 0: 64 */
    uint64_t page_max;      /* max_page_count; 0: no limit */
    uint32_t value_max;     /* bytes of a text, a blob or a row; 0: 128 MiB */
    /* Before each statement that may write is run, so before whatever it commits. Often: quick when
     * there is nothing to do. What it fails with fails the statement, as RC_IO or RC_NO_MEM. May be
     * NULL. */
    enum rc (*before_write)(void *ctx, struct err *err);
    void *ctx; /* of before_write */
};
/* WAL mode, temp_store=MEMORY, no automatic checkpoint and none when the last connection closes:
 * whoever writes calls sql_conn_checkpoint. source_global_init must have been called. Fails:
 * RC_NOT_FOUND read_only and no file; RC_CORRUPT; RC_BUSY; RC_NO_MEM; RC_IO. */
MUST_CHECK enum rc sql_conn_open(const struct sql_conn_opts *opts, struct sql_conn **ret_conn,
                                 struct err *err);
void sql_conn_close(struct sql_conn *c); /* NULL is fine; an open transaction is rolled back */
/* From now on this policy is asked; NULL: none is. Take it off before it goes. */
void sql_conn_policy(struct sql_conn *c, const struct sql_policy *policy);
/* Settings and temporary tables of a client stay with a connection ("tainted"). Before another
 * client gets it: roll back, forget all that, and let changes(), total_changes() and
 * last_insert_rowid() start anew. A tainted one is opened again and keeps its policy. Cheap
 * otherwise: PRAGMA foreign_keys, which many clients set first thing, is no taint but is set back.
 * Fails: as sql_conn_open; then the old state is still there. */
MUST_CHECK enum rc sql_conn_reset(struct sql_conn *c, struct err *err);
bool sql_conn_tainted(const struct sql_conn *c);
/* What last_insert_rowid(), changes() and total_changes() say, for a client that moves from one
 * connection to another. */
struct sql_last {
    int64_t rowid, changes, total;
};
void sql_conn_last(struct sql_conn *c, struct sql_last *ret);
void sql_conn_set_last(struct sql_conn *c, const struct sql_last *last);
void sql_last_note(struct sql_last *last, const struct sql_done *done); /* a statement went well */
/* As PRAGMA foreign_keys: for a client's setting that moves with it from connection to connection.
 * Not inside a transaction, where it does nothing. */
void sql_conn_foreign_keys(struct sql_conn *c, bool on);
bool sql_conn_foreign_keys_on(const struct sql_conn *c);

struct sql_limits {    /* of one call; zero: none */
    uint64_t row_max;  /* rows given to the sink */
    uint64_t byte_max; /* of values given to the sink */
    bool read_only;    /* a statement that would write is not run but fails with RC_DENIED */
    /* Others need the thread: nothing may be done that takes long in one step of the program, where
     * the deadline is not looked at. What would, as with large values, fails with RC_CANCELED. */
    bool brief;
};
/* Run one statement. call: deadline and cancellation, looked at every few thousand VM steps.
 * RC_OK: *done is filled. RC_DENIED: nothing was done, only limits->read_only stands against it (a
 * connection or transaction that may only read: RC_INVALID).
 * RC_INVALID: the client's failure, in *sql_err, and the connection goes on
 * (a transaction may have ended: sql_conn_autocommit). Other codes: trouble on our side, in err:
 * RC_BUSY, RC_CANCELED (deadline too), RC_TOO_BIG (a limit), RC_NO_SPACE, RC_CORRUPT, RC_IO,
 * RC_NO_MEM, the sink's own; sql_err is filled for those as well, for the client. */
MUST_CHECK enum rc sql_conn_run(struct sql_conn *c, const struct call *call,
                                const struct sql_limits *limits, const struct sql_stmt *stmt,
                                const struct sql_sink *sink, struct sql_done *done,
                                struct sql_error *sql_err, struct err *err);
/* A script: statements one after another until the first failure, rows dropped; what ran stays.
 * A script that does not end in a complete statement is refused before anything runs. Of the limits
 * only read_only counts; RC_DENIED may come from any of the statements. */
MUST_CHECK enum rc sql_conn_script(struct sql_conn *c, const struct call *call,
                                   const struct sql_limits *limits, const char *sql, size_t size,
                                   struct sql_error *sql_err, struct err *err);

/* Let statements read another database file under a name. The connection is tainted by that. Fails:
 * RC_INVALID the client's: the name is in use, too many; as sql_conn_open. */
MUST_CHECK enum rc sql_conn_attach(struct sql_conn *c, const char *path, const char *name,
                                   struct sql_error *sql_err, struct err *err);

struct sql_param {
    const char *name; /* with its prefix; NULL for '?' */
};
struct sql_description { /* valid until the next call on the connection */
    const struct sql_param *params;
    size_t param_count;
    const struct sql_col *cols;
    size_t col_count;
    bool is_explain, is_readonly;
};
MUST_CHECK enum rc sql_conn_describe(struct sql_conn *c, const char *sql, size_t size,
                                     struct sql_description *ret, struct sql_error *sql_err,
                                     struct err *err);
/* What a statement is, without running it: for routing. Comments and white space before it are
 * skipped; an incomplete or unknown one is SQL_KIND_OTHER. Pure. */
enum sql_kind {
    SQL_KIND_READ,  /* SELECT, VALUES, EXPLAIN, WITH ... SELECT: to be confirmed by prepare */
    SQL_KIND_WRITE, /* INSERT, UPDATE, DELETE, REPLACE, CREATE, DROP, ALTER, REINDEX, ANALYZE, WITH
                     */
    SQL_KIND_BEGIN, /* BEGIN; and BEGIN READONLY, which is libSQL's */
    SQL_KIND_END,   /* COMMIT, END, ROLLBACK (not to a savepoint) */
    SQL_KIND_SAVEPOINT, /* SAVEPOINT, RELEASE, ROLLBACK TO */
    SQL_KIND_OTHER      /* PRAGMA, VACUUM, ATTACH, nonsense */
};
enum sql_kind sql_kind_of(const char *sql, size_t size);

bool sql_conn_autocommit(struct sql_conn *c);
/* Begin and end by hand, for the writer. */
MUST_CHECK enum rc sql_conn_begin(struct sql_conn *c, bool immediate, struct err *err);
MUST_CHECK enum rc sql_conn_commit(struct sql_conn *c, struct err *err);
void sql_conn_rollback(struct sql_conn *c); /* none open is fine */
MUST_CHECK enum rc sql_conn_savepoint(struct sql_conn *c, struct err *err);
/* keep false: undo what was done since. Fails: RC_INVALID the transaction has ended meanwhile. */
MUST_CHECK enum rc sql_conn_release(struct sql_conn *c, bool keep, struct err *err);
/* Would COMMIT fail now over deferred foreign keys? */
bool sql_conn_violates(struct sql_conn *c);
/* PASSIVE; *ret_pages: frames left in the WAL. */
MUST_CHECK enum rc sql_conn_checkpoint(struct sql_conn *c, uint32_t *ret_pages, struct err *err);
void sql_conn_interrupt(struct sql_conn *c);
int64_t sql_conn_memory(const struct sql_conn *c); /* bytes: page cache, schema, statements */
#endif
