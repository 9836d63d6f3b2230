/* roles_bed.h -- a database, and statements that a role may or may not run. */
#ifndef TESTS_SERVER_ROLES_BED_H
#define TESTS_SERVER_ROLES_BED_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "db/source.h"
#include "server/roles.h"
#include "sql/conn.h"

struct rbed {
    char dir[64], path[96];
    struct sql_conn *conn;
    struct roles *roles;
    struct sql_error sql_err;
    struct err err;
    struct buf rows; /* columns by '|', rows by '\n' */
};

static enum rc rbed_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc rbed_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct buf *b = ctx;
    if (b->size > 0) TRY(buf_append(b, "\n", 1, err));
    for (size_t i = 0; i < count; i++) {
        if (i > 0) TRY(buf_append(b, "|", 1, err));
        if (v[i].type == SQL_INTEGER)
            TRY(buf_printf(b, err, "%lld", (long long)v[i].integer));
        else if (v[i].type == SQL_FLOAT)
            TRY(buf_printf(b, err, "%g", v[i].real));
        else if (v[i].type == SQL_NULL)
            TRY(buf_append(b, "NULL", 4, err));
        else
            TRY(buf_append(b, v[i].data, v[i].size, err));
    }
    return RC_OK;
}

static enum rc rbed_run(struct rbed *b, const char *sql)
{
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .want_rows = true};
    struct sql_sink sink = {.cols = rbed_cols, .row = rbed_row, .ctx = &b->rows};
    struct sql_done done;
    buf_reset(&b->rows);
    enum rc rc = sql_conn_run(b->conn, NULL, NULL, &stmt, &sink, &done, &b->sql_err, &b->err);
    struct err err;
    assert_int_equal(buf_append(&b->rows, "", 1, &err), RC_OK);
    return rc;
}

/* Must succeed; the rows as text. */
static const char *rbed_ok(struct rbed *b, const char *sql)
{
    if (rbed_run(b, sql) != RC_OK) fail_msg("%s: %s", sql, b->sql_err.message);
    return (const char *)b->rows.data;
}

/* Must be refused, for want of permission and for nothing else. */
static void rbed_no(struct rbed *b, const char *sql)
{
    if (rbed_run(b, sql) == RC_OK) fail_msg("%s: must fail", sql);
    if (strcmp(b->sql_err.code, "SQLITE_AUTH") != 0 && strcmp(b->sql_err.code, "BLOCKED") != 0)
        fail_msg("%s: %s: %s", sql, b->sql_err.code, b->sql_err.message);
    assert_int_equal(b->err.rc, RC_INVALID);
}

static void rbed_script(struct rbed *b, const char *sql)
{
    sql_conn_policy(b->conn, NULL);
    if (sql_conn_script(b->conn, NULL, NULL, sql, strlen(sql), &b->sql_err, &b->err) != RC_OK)
        fail_msg("%s: %s", sql, b->sql_err.message);
}

/* schema NULL: none. */
static inline void rbed_new(struct rbed *b, const char *schema)
{
    static bool ready;
    if (!ready) source_global_init();
    ready = true;
    *b = (struct rbed){0};
    snprintf(b->dir, sizeof b->dir, "/tmp/sluice-roles-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->path, sizeof b->path, "%s/t.db", b->dir);
    struct sql_conn_opts o = {.path = b->path, .foreign_keys = true};
    if (sql_conn_open(&o, &b->conn, &b->err) != RC_OK) fail_msg("%s", b->err.text);
    if (schema != NULL) rbed_script(b, schema);
}

/* From now on as this role; rules: the JSON array. NULL: as the owner. */
static inline void rbed_as(struct rbed *b, const char *rules)
{
    char *json = NULL;
    sql_conn_policy(b->conn, NULL);
    roles_free(b->roles);
    b->roles = NULL;
    if (rules == NULL) return;
    assert_true(asprintf(&json, "{\"r\":%s}", rules) > 0);
    if (roles_parse(json, &b->roles, &b->err) != RC_OK) fail_msg("%s: %s", json, b->err.text);
    free(json);
    sql_conn_policy(b->conn, role_policy(roles_find(b->roles, "r")));
}

static inline void rbed_free(struct rbed *b)
{
    char command[128];
    sql_conn_close(b->conn);
    roles_free(b->roles);
    buf_fini(&b->rows);
    snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
    assert_int_equal(system(command), 0);
}
#endif
