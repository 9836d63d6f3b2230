/* bed.c -- see bed.h. */
#include "sql/bed.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sqlite3.h>
#include "base/mem.h"
#include "base/os.h"
#include "db/source.h"

static enum rc take_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc take_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct buf *b = ctx;
    if (b->size > 0) TRY(buf_append(b, "\n", 1, err));
    for (size_t i = 0; i < count; i++) {
        if (i > 0) TRY(buf_append(b, "|", 1, err));
        switch (v[i].type) {
        case SQL_NULL:
            TRY(buf_append(b, "NULL", 4, err));
            break;
        case SQL_INTEGER:
            TRY(buf_printf(b, err, "%lld", (long long)v[i].integer));
            break;
        case SQL_FLOAT:
            TRY(buf_printf(b, err, "%.17g", v[i].real));
            break;
        default:
            TRY(buf_append(b, v[i].data, v[i].size, err));
            break;
        }
    }
    return RC_OK;
}

struct sql_sink bed_sink(struct buf *into)
{
    return (struct sql_sink){.cols = take_cols, .row = take_row, .ctx = into};
}

void bed_new(struct bed *b)
{
    static bool ready;
    if (!ready) source_global_init();
    ready = true;
    *b = (struct bed){0};
    snprintf(b->dir, sizeof b->dir, "/tmp/sluice-sql-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->path, sizeof b->path, "%s/t.db", b->dir);
}

void bed_open(struct bed *b, const struct sql_conn_opts *opts)
{
    struct sql_conn_opts o = opts != NULL ? *opts : (struct sql_conn_opts){0};
    o.path = b->path;
    sql_conn_close(b->conn);
    b->conn = NULL;
    if (sql_conn_open(&o, &b->conn, &b->err) != RC_OK) fail_msg("%s", b->err.text);
}

void bed_free(struct bed *b)
{
    char command[128];
    sql_conn_close(b->conn);
    buf_fini(&b->rows);
    snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
    assert_int_equal(system(command), 0);
}

enum rc bed_run(struct bed *b, const char *sql)
{
    struct err err;
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .want_rows = true};
    struct sql_sink sink = bed_sink(&b->rows);
    buf_reset(&b->rows);
    enum rc rc = sql_conn_run(b->conn, NULL, NULL, &stmt, &sink, &b->done, &b->sql_err, &b->err);
    assert_int_equal(buf_append(&b->rows, "", 1, &err), RC_OK);
    return rc;
}

const char *bed_ok(struct bed *b, const char *sql)
{
    if (bed_run(b, sql) != RC_OK) fail_msg("%s: %s", sql, b->sql_err.message);
    return (const char *)b->rows.data;
}

void bed_fails(struct bed *b, const char *sql, const char *code)
{
    if (bed_run(b, sql) == RC_OK) fail_msg("%s: must fail", sql);
    if (strcmp(b->sql_err.code, code) != 0)
        fail_msg("%s: %s (%s), not %s", sql, b->sql_err.code, b->sql_err.message, code);
}

uint64_t bed_seed(void)
{
    const char *given = getenv("SLUICE_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : os_random() >> 16;
    printf("SLUICE_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

uint64_t bed_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* The size stands in front of the block. */
static void *sq_malloc(int size)
{
    int64_t *p = mem_alloc((size_t)size + 16);
    if (p == NULL) return NULL;
    p[0] = size;
    return p + 2;
}

static void sq_free(void *p)
{
    if (p != NULL) mem_free((int64_t *)p - 2);
}

static void *sq_realloc(void *p, int size)
{
    int64_t *n = mem_realloc((int64_t *)p - 2, (size_t)size + 16);
    if (n == NULL) return NULL;
    n[0] = size;
    return n + 2;
}

static int sq_size(void *p)
{
    return p != NULL ? (int)((int64_t *)p)[-2] : 0;
}

static int sq_roundup(int size)
{
    return (size + 7) & ~7;
}

static int sq_init(void *ctx)
{
    (void)ctx;
    return SQLITE_OK;
}

static void sq_shutdown(void *ctx)
{
    (void)ctx;
}

void bed_sqlite_memory(void)
{
    static const sqlite3_mem_methods methods = {sq_malloc,  sq_free, sq_realloc,  sq_size,
                                                sq_roundup, sq_init, sq_shutdown, NULL};
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods), SQLITE_OK);
}
