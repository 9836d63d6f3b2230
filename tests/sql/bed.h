/* bed.h -- what the tests of the SQL layer share: a folder, rows as text, failures as text. */
#ifndef TESTS_SQL_BED_H
#define TESTS_SQL_BED_H
#include "base/buf.h"
#include "sql/conn.h"

struct bed {
    char dir[64], path[96];
    struct sql_conn *conn;
    struct sql_done done;
    struct sql_error sql_err;
    struct err err;
    struct buf rows; /* of the last run: columns by '|', rows by '\n', terminated */
};
void bed_new(struct bed *b);
void bed_open(struct bed *b, const struct sql_conn_opts *opts); /* path is filled in */
void bed_free(struct bed *b);
enum rc bed_run(struct bed *b, const char *sql);
/* Must succeed; the rows as text. */
const char *bed_ok(struct bed *b, const char *sql);
/* Must fail with this code. */
void bed_fails(struct bed *b, const char *sql, const char *code);
/* A sink into a buf of text. */
struct sql_sink bed_sink(struct buf *into);
/* SQLite's allocations pass the fault seam as well. Before anything else of it. */
void bed_sqlite_memory(void);
uint64_t bed_seed(void); /* from SLUICE_SEED, else random; printed */
uint64_t bed_random(uint64_t *state);
#endif
