/*
 * dump.h -- a database as SQL text that makes an equal one: schema, rows, and what is kept about
 * them.
 *
 * The text is one transaction of statements that every tenant may run: no ATTACH, no
 * writable_schema. In this order: tables, each with its rows; sequences of AUTOINCREMENT; indexes;
 * statistics; views; triggers.
 *
 * Values keep their type and all their bits: reals have 17 digits, blobs are X'', a text that is
 * not UTF-8 or holds a NUL or a carriage return is CAST(X'' AS TEXT). Generated columns are left to
 * be computed. Of a virtual table its own rows are given, and its shadow tables are left to it; a
 * full text index of another table's content is built anew. What cannot be had, the content of a
 * contentless index, is told by `note` and in a comment. Of statistics there is sqlite_stat1.
 *
 * One row at a time is in memory, and the schema.
 */
#ifndef SQL_DUMP_H
#define SQL_DUMP_H
#include "sql/conn.h"

struct sql_dump_opts {
    const char *table;     /* only this table or view, its indexes and triggers; NULL: all */
    bool data_only;        /* rows, but no schema */
    bool preserve_row_ids; /* also where no column of the table holds them */
    /* Sentences about what is missing; may be NULL. */
    void (*note)(void *ctx, const char *text);
    void *note_ctx;
};
/* Some of the text, in order. A failure ends the dump with that code. */
typedef enum rc sql_dump_fn(void *ctx, const void *data, size_t size, struct err *err);

/* All of one moment: in the transaction that is open, or in one of its own, which is ended. fn and
 * note must not use the connection. Fails: RC_NOT_FOUND no such table; RC_UNSUPPORTED a virtual
 * table of a module that this build has not; fn's; as sql_conn_run. */
MUST_CHECK enum rc sql_dump(struct sql_conn *conn, const struct call *call,
                            const struct sql_dump_opts *opts, sql_dump_fn *fn, void *ctx,
                            struct err *err);
#endif
