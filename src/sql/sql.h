/*
 * sql.h -- statements, values, rows and failures, as the SQL engine and the protocols share them.
 *
 * Nothing here owns memory: texts and blobs belong to whoever made them and live as long as that
 * one says (a row's values: until the sink returns).
 */
#ifndef SQL_SQL_H
#define SQL_SQL_H
#include "base/err.h"

enum sql_type { SQL_NULL, SQL_INTEGER, SQL_FLOAT, SQL_TEXT, SQL_BLOB };
struct sql_value {
    enum sql_type type;
    int64_t integer;
    double real;
    const void *data; /* TEXT: any bytes, SQLite does not check UTF-8; BLOB */
    size_t size;      /* bytes */
};
struct sql_arg {
    const char *name; /* NULL: positional. With or without its prefix ':', '@' or '$' */
    struct sql_value value;
};
struct sql_stmt {
    const char *sql; /* exactly one statement */
    size_t sql_size; /* bytes */
    const struct sql_arg *args;
    size_t arg_count;
    bool want_rows; /* false: run to the end, give none */
};
struct sql_col {
    const char *name, *decltype; /* decltype NULL: an expression */
};

/* Where rows go. A failure of either function ends the statement with that code. */
struct sql_sink {
    enum rc (*cols)(void *ctx, const struct sql_col *cols, size_t count, struct err *err);
    enum rc (*row)(void *ctx, const struct sql_value *values, size_t count, struct err *err);
    void *ctx;
};
struct sql_done {       /* of one statement that succeeded */
    uint64_t affected;  /* rows inserted, updated or deleted; 0 for other statements */
    int64_t last_rowid; /* of this connection */
    bool inserted;      /* last_rowid is this statement's */
    bool changed;       /* it is an INSERT, UPDATE or DELETE: changes() says `affected` */
    uint64_t rows_read, rows_written; /* steps of full scans and of sorts count as read */
    int64_t us;
};

/* A failure that the client shall see. `code` is a base code ("SQLITE_CONSTRAINT",
 * "SQL_NO_STATEMENT", "ARGS_INVALID", "BLOCKED", ...), `extended` the extended one or "". */
struct sql_error {
    char code[48], extended[56];
    char message[ERR_TEXT_MAX];
    int offset; /* of the token in the statement's bytes; -1: unknown */
};
/* Fill in from a SQLite result code. message: sqlite3_errmsg's text. */
void sql_error_set(struct sql_error *e, int sqlite_code, int offset, const char *message);
void sql_error_own(struct sql_error *e, const char *code, const char *fmt, ...) FMT(3, 4);
/* As SQLite has it for deferred foreign keys at COMMIT. */
void sql_error_foreign_key(struct sql_error *e);
#endif
