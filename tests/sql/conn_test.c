/* conn_test.c -- one connection: values, arguments, failures, transactions, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/os.h"
#include "sql/bed.h"

static void begin(struct bed *b)
{
    bed_new(b);
    bed_open(b, NULL);
}

struct echo {
    const struct sql_value *want;
    size_t count;
    int rows;
};

static enum rc echo_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc echo_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct echo *e = ctx;
    (void)err;
    e->rows++;
    assert_int_equal(count, e->count);
    for (size_t i = 0; i < count; i++) {
        const struct sql_value *w = &e->want[i];
        assert_int_equal(v[i].type, w->type);
        if (w->type == SQL_INTEGER) assert_true(v[i].integer == w->integer);
        if (w->type == SQL_FLOAT) assert_memory_equal(&v[i].real, &w->real, sizeof w->real);
        if (w->type != SQL_TEXT && w->type != SQL_BLOB) continue;
        assert_int_equal(v[i].size, w->size);
        assert_non_null(v[i].data);
        assert_memory_equal(v[i].data, w->data, w->size);
    }
    return RC_OK;
}

static void test_values_round_trip(void **state)
{
    (void)state;
    static char large[3 << 20];
    memset(large, 'z', sizeof large);
    large[77] = '\0';
    const struct sql_value values[] = {
        {.type = SQL_NULL},
        {.type = SQL_INTEGER, .integer = INT64_MIN},
        {.type = SQL_INTEGER, .integer = INT64_MAX},
        {.type = SQL_INTEGER, .integer = (INT64_C(1) << 53) + 1},
        {.type = SQL_FLOAT, .real = 0.1},
        {.type = SQL_FLOAT, .real = INFINITY},
        {.type = SQL_FLOAT, .real = -INFINITY},
        {.type = SQL_FLOAT, .real = 5e-324},
        {.type = SQL_FLOAT, .real = 3},
        {.type = SQL_TEXT, .data = "", .size = 0},
        {.type = SQL_TEXT, .data = "a\0b", .size = 3},
        {.type = SQL_TEXT, .data = "\xff\xfe\x80", .size = 3},
        {.type = SQL_TEXT, .data = large, .size = sizeof large},
        {.type = SQL_BLOB, .data = NULL, .size = 0},
        {.type = SQL_BLOB, .data = "\0\1", .size = 2},
        {.type = SQL_BLOB, .data = large, .size = sizeof large},
    };
    enum { COUNT = sizeof values / sizeof values[0] };
    struct sql_value want[COUNT];
    struct sql_arg args[COUNT];
    char sql[256] = "INSERT INTO v VALUES(?";
    struct bed b;
    begin(&b);
    memcpy(want, values, sizeof want);
    for (size_t i = 0; i < COUNT; i++) {
        args[i] = (struct sql_arg){.value = values[i]};
        if (want[i].data == NULL) want[i].data = "";
        if (i > 0) strcat(sql, ",?");
    }
    strcat(sql, ") RETURNING *");
    bed_ok(&b, "CREATE TABLE v(a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p)");
    struct echo e = {want, COUNT, 0};
    struct sql_sink sink = {echo_cols, echo_row, &e};
    struct sql_stmt s = {sql, strlen(sql), args, COUNT, true};
    for (int turn = 0; turn < 2; turn++) {
        if (sql_conn_run(b.conn, NULL, NULL, &s, &sink, &b.done, &b.sql_err, &b.err) != RC_OK)
            fail_msg("%s", b.err.text);
        s = (struct sql_stmt){"SELECT * FROM v", 15, NULL, 0, true};
    }
    assert_int_equal(e.rows, 2);
    struct sql_arg nan_arg = {.value = {.type = SQL_FLOAT, .real = NAN}};
    struct sql_value null = {.type = SQL_NULL};
    e = (struct echo){&null, 1, 0};
    s = (struct sql_stmt){"SELECT ?", 8, &nan_arg, 1, true};
    assert_int_equal(sql_conn_run(b.conn, NULL, NULL, &s, &sink, &b.done, &b.sql_err, &b.err), 0);
    assert_int_equal(e.rows, 1);
    bed_free(&b);
}

/* names: one a char per argument, '-' for positional; values are 1, 2, 3, ... */
static const char *run_args(struct bed *b, const char *sql, const char *const *names, size_t count)
{
    struct sql_arg args[8];
    struct sql_stmt s = {sql, strlen(sql), args, count, true};
    struct sql_sink sink = bed_sink(&b->rows);
    for (size_t i = 0; i < count; i++)
        args[i] = (struct sql_arg){names != NULL ? names[i] : NULL,
                                   {.type = SQL_INTEGER, .integer = (int64_t)i + 1}};
    buf_reset(&b->rows);
    if (sql_conn_run(b->conn, NULL, NULL, &s, &sink, &b->done, &b->sql_err, &b->err) != RC_OK) {
        assert_int_equal(b->err.rc, RC_INVALID);
        return b->sql_err.message;
    }
    assert_int_equal(buf_append(&b->rows, "", 1, &b->err), RC_OK);
    return (const char *)b->rows.data;
}

static void test_arguments(void **state)
{
    (void)state;
    struct bed b;
    begin(&b);
    const char *const abc[] = {"a", ":b", "$c"}, *const cba[] = {"c", "@b", "a"},
                      *const mixed[] = {"a", NULL}, *const other[] = {"a", "x"};
    const char *no = "Arguments do not match SQL parameters: ";
    char want[128];
    assert_string_equal(run_args(&b, "SELECT ?,?,?", NULL, 3), "1|2|3");
    assert_string_equal(run_args(&b, "SELECT ?3,?1,?2", NULL, 3), "3|1|2");
    assert_string_equal(run_args(&b, "SELECT :a,@b,$c", NULL, 3), "1|2|3");
    assert_string_equal(run_args(&b, "SELECT :a,:b,$c", abc, 3), "1|2|3");
    assert_string_equal(run_args(&b, "SELECT $a,@b,:c", cba, 3), "3|2|1");
    assert_string_equal(run_args(&b, "SELECT :a,:a", abc, 1), "1|1");
    snprintf(want, sizeof want, "%svalue for parameter 1 not found", no);
    assert_string_equal(run_args(&b, "SELECT ?", NULL, 0), want);
    assert_string_equal(b.sql_err.code, "ARGS_INVALID");
    snprintf(want, sizeof want, "%stoo many parameters, expected 0 found 1", no);
    assert_string_equal(run_args(&b, "SELECT 1", NULL, 1), want);
    snprintf(want, sizeof want, "%svalue for parameter :b not found", no);
    assert_string_equal(run_args(&b, "SELECT :a,:b", abc, 1), want);
    snprintf(want, sizeof want, "%sparameter 'x' not found", no);
    assert_string_equal(run_args(&b, "SELECT :a", other, 2), want);
    assert_string_equal(b.sql_err.code, "ARGS_INVALID");
    snprintf(want, sizeof want, "%svalue for parameter 2 not found", no);
    assert_string_equal(run_args(&b, "SELECT :a,?", abc, 1), want);
    run_args(&b, "SELECT :a, ?", mixed, 2);
    assert_string_equal(b.sql_err.code, "ARGS_BOTH_POSITIONAL_AND_NAMED");
    /* What one call has bound is nothing to the next. */
    assert_string_equal(run_args(&b, "SELECT ?", NULL, 1), "1");
    bed_fails(&b, "SELECT ?", "ARGS_INVALID");
    bed_free(&b);
}

static void check_error(struct bed *b, const char *sql, const char *code, const char *extended,
                        const char *message)
{
    bed_fails(b, sql, code);
    assert_string_equal(b->sql_err.extended, extended);
    assert_string_equal(b->sql_err.message, message);
}

static void test_errors(void **state)
{
    (void)state;
    struct bed b;
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a INTEGER PRIMARY KEY, b INT UNIQUE, c INT NOT NULL CHECK(c>0)) "
               "STRICT");
    bed_ok(&b, "INSERT INTO t VALUES(1,1,1)");
    check_error(&b, "INSERT INTO t VALUES(2,1,1)", "SQLITE_CONSTRAINT", "SQLITE_CONSTRAINT_UNIQUE",
                "SQLite error: UNIQUE constraint failed: t.b");
    check_error(&b, "INSERT INTO t VALUES(1,2,1)", "SQLITE_CONSTRAINT",
                "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLite error: UNIQUE constraint failed: t.a");
    check_error(&b, "INSERT INTO t VALUES(2,2,NULL)", "SQLITE_CONSTRAINT",
                "SQLITE_CONSTRAINT_NOTNULL", "SQLite error: NOT NULL constraint failed: t.c");
    check_error(&b, "INSERT INTO t VALUES(2,2,-1)", "SQLITE_CONSTRAINT", "SQLITE_CONSTRAINT_CHECK",
                "SQLite error: CHECK constraint failed: c>0");
    check_error(&b, "INSERT INTO t VALUES(2,'x',1)", "SQLITE_CONSTRAINT",
                "SQLITE_CONSTRAINT_DATATYPE",
                "SQLite error: cannot store TEXT value in INT column t.b");
    check_error(&b, "SELECT foo", "SQL_INPUT_ERROR", "",
                "SQL input error: no such column: foo (at offset 7)");
    assert_int_equal(b.sql_err.offset, 7);
    check_error(&b, ";; SELECT foo", "SQL_INPUT_ERROR", "",
                "SQL input error: no such column: foo (at offset 10)");
    check_error(&b, "SELECT * FROM nope", "SQLITE_UNKNOWN", "",
                "SQLite error: no such table: nope");
    check_error(&b, "selec 1", "SQL_PARSE_ERROR", "",
                "SQL string could not be parsed: near \"selec\": syntax error (at offset 0)");
    check_error(&b, "SELECT", "SQL_PARSE_ERROR", "",
                "SQL string could not be parsed: incomplete input");
    check_error(&b, "SELECT 'a", "SQL_PARSE_ERROR", "",
                "SQL string could not be parsed: unrecognized token: \"'a\" (at offset 7)");
    check_error(&b, "", "SQL_NO_STATEMENT", "", "SQL string does not contain any statement");
    check_error(&b, " ;/* x */; -- y", "SQL_NO_STATEMENT", "",
                "SQL string does not contain any statement");
    check_error(&b, "SELECT 1; SELECT 2", "SQL_MANY_STATEMENTS", "",
                "SQL string contains more than one statement");
    check_error(&b, "COMMIT", "SQLITE_UNKNOWN", "",
                "SQLite error: cannot commit - no transaction is active");
    assert_string_equal(bed_ok(&b, "SELECT 1; ; -- trailing\n /* and\n this */ ;"), "1");
    assert_string_equal(bed_ok(&b, "/* a */ SELECT 2 /* no end"), "2");
    struct sql_stmt nul = {.sql = "SELECT 1\0; DROP TABLE t", .sql_size = 23};
    assert_int_equal(sql_conn_run(b.conn, NULL, NULL, &nul, NULL, &b.done, &b.sql_err, &b.err),
                     RC_INVALID);
    assert_string_equal(b.sql_err.code, "SQL_PARSE_ERROR");
    bed_free(&b);
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    struct bed b;
    char sql[2000] = "SELECT ";
    begin(&b);
    memset(sql + 7, 'x', sizeof sql - 8);
    bed_fails(&b, sql, "SQL_INPUT_ERROR");
    assert_int_equal(strlen(b.sql_err.message), ERR_TEXT_MAX - 1);
    assert_non_null(strstr(b.sql_err.message, "(at offset 7)"));
    bed_free(&b);
}

static void test_done(void **state)
{
    (void)state;
    struct bed b;
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    assert_int_equal(b.done.affected, 0);
    assert_false(b.done.inserted);
    bed_ok(&b, "INSERT INTO t VALUES(7,1),(8,2),(9,3)");
    assert_int_equal(b.done.affected, 3);
    assert_int_equal(b.done.last_rowid, 9);
    assert_true(b.done.inserted);
    assert_int_equal(b.done.rows_written, 3);
    bed_ok(&b, "SELECT * FROM t");
    assert_int_equal(b.done.affected, 0);
    assert_false(b.done.inserted);
    assert_int_equal(b.done.rows_read, 3);
    bed_ok(&b, "SELECT * FROM t WHERE a=7");
    assert_int_equal(b.done.rows_read, 1);
    bed_ok(&b, "SELECT count(*) FROM t WHERE b>1");
    assert_true(b.done.rows_read >= 2);
    bed_ok(&b, "WITH x AS (SELECT 1) UPDATE t SET b=b+1 WHERE a>7 RETURNING a");
    assert_int_equal(b.done.affected, 2);
    assert_false(b.done.inserted);
    bed_ok(&b, "REPLACE INTO t VALUES(7,1)");
    assert_int_equal(b.done.affected, 1);
    assert_true(b.done.inserted);
    bed_ok(&b, "EXPLAIN DELETE FROM t");
    assert_int_equal(b.done.affected, 0);
    bed_ok(&b, "CREATE TABLE u AS SELECT * FROM t");
    assert_int_equal(b.done.affected, 0);
    bed_ok(&b, "DELETE FROM t WHERE 0");
    assert_int_equal(b.done.affected, 0);
    bed_free(&b);
}

static void test_read_only(void **state)
{
    (void)state;
    struct bed b;
    struct sql_limits reads = {.read_only = true};
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a)");
    for (int form = 0; form < 3; form++) {
        static const char *const forms[] = {"BEGIN TRANSACTION READONLY", " begin /* */ ReadOnly ;",
                                            "BEGIN READONLY TRANSACTION -- x"};
        bed_ok(&b, forms[form]);
        assert_false(sql_conn_autocommit(b.conn));
        bed_fails(&b, "INSERT INTO t VALUES(1)", "SQLITE_READONLY");
        bed_fails(&b, "CREATE TABLE u(a)", "SQLITE_READONLY");
        assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), "0");
        bed_ok(&b, form == 1 ? "COMMIT" : "ROLLBACK");
        assert_true(sql_conn_autocommit(b.conn));
    }
    bed_ok(&b, "INSERT INTO t VALUES(1)");
    bed_ok(&b, "BEGIN CONCURRENT");
    bed_ok(&b, "INSERT INTO t VALUES(2)");
    bed_ok(&b, "END");
    bed_fails(&b, "BEGIN READONLYX", "SQL_PARSE_ERROR");
    static const char *const writes[] = {"INSERT INTO t VALUES(1)",
                                         "PRAGMA user_version=1",
                                         "BEGIN IMMEDIATE",
                                         "VACUUM",
                                         "DROP TABLE t",
                                         "REINDEX"};
    for (size_t i = 0; i < 5; i++) {
        struct sql_stmt s = {.sql = writes[i], .sql_size = strlen(writes[i])};
        assert_int_equal(sql_conn_run(b.conn, NULL, &reads, &s, NULL, &b.done, &b.sql_err, &b.err),
                         RC_DENIED);
        assert_string_equal(b.sql_err.code, "SQLITE_READONLY");
    }
    assert_int_equal(
        sql_conn_script(b.conn, NULL, &reads, "SELECT 1; DROP TABLE t", 22, &b.sql_err, &b.err),
        RC_DENIED);
    /* Where the caller cannot help it, it is the client's failure. */
    struct sql_stmt write = {.sql = "DELETE FROM t", .sql_size = 13};
    bed_ok(&b, "BEGIN READONLY");
    assert_int_equal(sql_conn_run(b.conn, NULL, &reads, &write, NULL, &b.done, &b.sql_err, &b.err),
                     RC_INVALID);
    bed_ok(&b, "COMMIT");
    struct sql_conn_opts opts = {.read_only = true};
    bed_open(&b, &opts);
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), "2");
    bed_fails(&b, "INSERT INTO t VALUES(1)", "SQLITE_READONLY");
    bed_free(&b);
}

/* Statements that are too short to be interrupted do not add up to for ever. */
static void test_script_ends(void **state)
{
    (void)state;
    struct bed b;
    atomic_bool cancel = true;
    begin(&b);
    struct call call = {.cancel = &cancel};
    assert_int_equal(
        sql_conn_script(b.conn, &call, NULL, "SELECT 1; SELECT 2", 18, &b.sql_err, &b.err),
        RC_CANCELED);
    assert_string_equal(b.sql_err.code, "SQLITE_INTERRUPT");
    enum { COUNT = 400000 };
    static char sql[COUNT * 10];
    for (int i = 0; i < COUNT; i++)
        memcpy(sql + i * 10, "SELECT 1; ", 10);
    call = (struct call){.deadline_ms = os_mono_ms() + 30};
    assert_int_equal(sql_conn_script(b.conn, &call, NULL, sql, sizeof sql, &b.sql_err, &b.err),
                     RC_CANCELED);
    bed_free(&b);
}

static void test_deadline_and_cancel(void **state)
{
    (void)state;
    struct bed b;
    begin(&b);
    const char *sql = "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c) "
                      "SELECT count(*) FROM c";
    struct sql_stmt s = {.sql = sql, .sql_size = strlen(sql)};
    struct call call = {.deadline_ms = os_mono_ms() + 30};
    assert_int_equal(sql_conn_run(b.conn, &call, NULL, &s, NULL, &b.done, &b.sql_err, &b.err),
                     RC_CANCELED);
    assert_string_equal(b.sql_err.code, "SQLITE_INTERRUPT");
    assert_true(os_mono_ms() >= call.deadline_ms);
    atomic_bool cancel = true;
    call = (struct call){.cancel = &cancel};
    assert_int_equal(sql_conn_run(b.conn, &call, NULL, &s, NULL, &b.done, &b.sql_err, &b.err),
                     RC_CANCELED);
    assert_string_equal(bed_ok(&b, "SELECT 1"), "1");
    bed_free(&b);
}

static enum rc refuse_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    (void)v, (void)count;
    if (--*(int *)ctx > 0) return RC_OK;
    return err_set(err, RC_AGAIN, "no more");
}

/* A sink that fails undoes what the statement did, in a transaction or not. */
static void test_limits_undo(void **state)
{
    (void)state;
    struct bed b;
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a)");
    bed_ok(&b, "INSERT INTO t VALUES(0)");
    const char *sql = "INSERT INTO t VALUES(1),(2),(3) RETURNING a";
    struct sql_stmt s = {.sql = sql, .sql_size = strlen(sql), .want_rows = true};
    const struct sql_limits limits[] = {{.row_max = 2}, {.byte_max = 20}};
    for (int i = 0; i < 3; i++) {
        int left = 2;
        struct sql_sink sink =
            i < 2 ? bed_sink(&b.rows) : (struct sql_sink){echo_cols, refuse_row, &left};
        enum rc want = i < 2 ? RC_TOO_BIG : RC_AGAIN;
        for (int tx = 0; tx < 2; tx++) {
            left = 2;
            if (tx) bed_ok(&b, "BEGIN");
            if (tx) bed_ok(&b, "INSERT INTO t VALUES(9)");
            buf_reset(&b.rows);
            assert_int_equal(sql_conn_run(b.conn, NULL, i < 2 ? &limits[i] : NULL, &s, &sink,
                                          &b.done, &b.sql_err, &b.err),
                             want);
            assert_string_equal(b.sql_err.code, i < 2 ? "RESPONSE_TOO_LARGE" : "SQLITE_ABORT");
            assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), tx ? "2" : "1");
            if (tx) bed_ok(&b, "ROLLBACK");
        }
    }
    bed_free(&b);
}

static void test_scripts(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "INSERT INTO t VALUES(1); SELECT", "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2",
        "INSERT INTO t VALUES(1); SELECT 'x",
        "INSERT INTO t VALUES(1); CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1;"};
    static const char *const good[] = {
        "",
        " ; ; ",
        "INSERT INTO t VALUES(1)",
        "INSERT INTO t VALUES(1);",
        "INSERT INTO t VALUES(1); -- end",
        "CREATE TABLE u(a); INSERT INTO u VALUES(1); INSERT INTO t SELECT a FROM u; DROP TABLE u",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END",
        ("DROP TRIGGER r; BEGIN READONLY; SELECT 1; COMMIT; BEGIN; INSERT INTO t VALUES(';'); "
         "COMMIT"),
    };
    static const char *const rows[] = {"0", "0", "1", "2", "3", "4", "4", "5"};
    struct bed b;
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a)");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(
            sql_conn_script(b.conn, NULL, NULL, bad[i], strlen(bad[i]), &b.sql_err, &b.err),
            RC_INVALID);
        assert_string_equal(b.sql_err.code, "SQL_PARSE_ERROR");
        assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), "0");
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (sql_conn_script(b.conn, NULL, NULL, good[i], strlen(good[i]), &b.sql_err, &b.err) !=
            RC_OK)
            fail_msg("%s: %s", good[i], b.err.text);
        assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), rows[i]);
    }
    const char *half = "INSERT INTO t VALUES(6); SELECT nope; INSERT INTO t VALUES(7)";
    assert_int_equal(sql_conn_script(b.conn, NULL, NULL, half, strlen(half), &b.sql_err, &b.err),
                     RC_INVALID);
    assert_int_equal(b.sql_err.offset, 32);
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), "6");
    bed_free(&b);
}

static void test_describe(void **state)
{
    (void)state;
    struct bed b;
    struct sql_description d;
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a INTEGER, b VARCHAR(3))");
    const char *sql = "SELECT a, b AS x, a+1 FROM t WHERE a=:k AND b=? AND a=?5 AND b=$z";
    assert_int_equal(sql_conn_describe(b.conn, sql, strlen(sql), &d, &b.sql_err, &b.err), RC_OK);
    assert_int_equal(d.param_count, 6);
    assert_string_equal(d.params[0].name, ":k");
    assert_null(d.params[1].name);
    assert_null(d.params[3].name);
    assert_string_equal(d.params[4].name, "?5");
    assert_string_equal(d.params[5].name, "$z");
    assert_int_equal(d.col_count, 3);
    assert_string_equal(d.cols[1].name, "x");
    assert_string_equal(d.cols[1].decltype, "VARCHAR(3)");
    assert_null(d.cols[2].decltype);
    assert_true(d.is_readonly);
    assert_false(d.is_explain);
    assert_int_equal(sql_conn_describe(b.conn, "EXPLAIN DELETE FROM t", 21, &d, &b.sql_err, &b.err),
                     0);
    assert_true(d.is_explain);
    assert_int_equal(sql_conn_describe(b.conn, "DELETE FROM t", 13, &d, &b.sql_err, &b.err), 0);
    assert_false(d.is_readonly);
    assert_int_equal(sql_conn_describe(b.conn, "BEGIN READONLY", 14, &d, &b.sql_err, &b.err), 0);
    assert_true(d.is_readonly);
    assert_int_equal(sql_conn_describe(b.conn, "SELECT nope", 11, &d, &b.sql_err, &b.err),
                     RC_INVALID);
    bed_free(&b);
}

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        enum sql_kind kind;
    } list[] = {
        {"SELECT 1", SQL_KIND_READ},
        {" -- x\n/* y */;values(1)", SQL_KIND_READ},
        {"\xef\xbb\xbfSELECT 1", SQL_KIND_READ},
        {"EXPLAIN DELETE FROM t", SQL_KIND_READ},
        {"WITH a AS (SELECT 1), b(x) AS (DELETE) SELECT 2", SQL_KIND_READ},
        {"WITH a AS (SELECT ')' , \"(\", [(] FROM t) INSERT INTO t SELECT 1", SQL_KIND_WRITE},
        {"WITH RECURSIVE \"update\" AS (SELECT 1) DELETE FROM t", SQL_KIND_WRITE},
        {"WITH a AS (SELECT 1", SQL_KIND_OTHER},
        {"insert into t values(1)", SQL_KIND_WRITE},
        {"CREATE TABLE t(a)", SQL_KIND_WRITE},
        {"ANALYZE", SQL_KIND_WRITE},
        {"begin", SQL_KIND_BEGIN},
        {"BEGIN TRANSACTION READONLY", SQL_KIND_BEGIN},
        {"END", SQL_KIND_END},
        {"ROLLBACK", SQL_KIND_END},
        {"ROLLBACK TRANSACTION", SQL_KIND_END},
        {"ROLLBACK TO x", SQL_KIND_SAVEPOINT},
        {"ROLLBACK TRANSACTION TO SAVEPOINT x", SQL_KIND_SAVEPOINT},
        {"RELEASE x", SQL_KIND_SAVEPOINT},
        {"PRAGMA x", SQL_KIND_OTHER},
        {"VACUUM", SQL_KIND_OTHER},
        {"SELECTX 1", SQL_KIND_OTHER},
        {"'SELECT'", SQL_KIND_OTHER},
        {"", SQL_KIND_OTHER},
        {"/*", SQL_KIND_OTHER},
        {"-", SQL_KIND_OTHER},
        {"\"", SQL_KIND_OTHER},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        /* An exact copy, so that a sanitizer sees a byte read too far. */
        size_t size = strlen(list[i].sql);
        char *copy = mem_alloc(size);
        assert_non_null(copy);
        memcpy(copy, list[i].sql, size);
        if (sql_kind_of(copy, size) != list[i].kind) fail_msg("%s", list[i].sql);
        for (size_t cut = 0; cut < size; cut++)
            sql_kind_of(copy + cut, size - cut);
        mem_free(copy);
    }
}

/* Statements are kept and found again; many more than fit; and no row costs an allocation. */
static void test_statement_cache(void **state)
{
    (void)state;
    struct bed b;
    struct sql_conn_opts opts = {.statement_max = 4};
    bed_new(&b);
    bed_open(&b, &opts);
    bed_ok(&b, "CREATE TABLE t(a)");
    for (int i = 0; i < 100; i++) {
        char sql[64], want[16];
        snprintf(sql, sizeof sql, "SELECT %d FROM (SELECT 1)", i % 7);
        snprintf(want, sizeof want, "%d", i % 7);
        assert_string_equal(bed_ok(&b, sql), want);
    }
    int64_t memory = sql_conn_memory(b.conn);
    for (int i = 0; i < 1000; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "SELECT a, %d FROM t", i);
        bed_ok(&b, sql);
    }
    assert_true(sql_conn_memory(b.conn) < memory + 20000);
    /* A kept statement follows a changed schema. */
    bed_ok(&b, "INSERT INTO t VALUES(1)");
    assert_string_equal(bed_ok(&b, "SELECT * FROM t"), "1");
    bed_ok(&b, "ALTER TABLE t ADD COLUMN b DEFAULT 2");
    assert_string_equal(bed_ok(&b, "SELECT * FROM t"), "1|2");
    bed_ok(&b, "DROP TABLE t");
    bed_fails(&b, "SELECT * FROM t", "SQLITE_UNKNOWN");
    bed_ok(&b, "CREATE TABLE t(z)");
    assert_string_equal(bed_ok(&b, "SELECT * FROM t"), "");
    bed_ok(&b, "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<10000) "
               "INSERT INTO t SELECT 'text ' || x FROM c");
    struct echo e = {NULL, 0, 0};
    struct sql_sink sink = {echo_cols, NULL, &e};
    int left = 1 << 20;
    sink.row = refuse_row, sink.ctx = &left;
    struct sql_stmt s = {.sql = "SELECT z FROM t", .sql_size = 15, .want_rows = true};
    for (int i = 0; i < 2; i++) {
        uint64_t before = mem_alloc_count();
        assert_int_equal(sql_conn_run(b.conn, NULL, NULL, &s, &sink, &b.done, &b.sql_err, &b.err),
                         0);
        if (i == 1) assert_int_equal(mem_alloc_count(), before);
    }
    assert_int_equal(left, (1 << 20) - 20000);
    bed_free(&b);
}

static void test_reset(void **state)
{
    (void)state;
    struct bed b;
    struct sql_conn_opts opts = {.foreign_keys = true};
    bed_new(&b);
    bed_open(&b, &opts);
    bed_ok(&b, "CREATE TABLE t(a)");
    bed_ok(&b, "INSERT INTO t VALUES(1),(2)");
    assert_string_equal(bed_ok(&b, "SELECT changes(), total_changes(), last_insert_rowid()"),
                        "2|2|2");
    bed_ok(&b, "BEGIN");
    bed_ok(&b, "INSERT INTO t VALUES(3)");
    assert_false(sql_conn_tainted(b.conn));
    assert_int_equal(sql_conn_reset(b.conn, &b.err), RC_OK);
    assert_string_equal(bed_ok(&b, "SELECT changes(), total_changes(), last_insert_rowid()"),
                        "0|0|0");
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"), "2");
    bed_ok(&b, "CREATE TEMP TABLE mine(a)");
    bed_ok(&b, "PRAGMA foreign_keys=0");
    assert_true(sql_conn_tainted(b.conn));
    assert_int_equal(sql_conn_reset(b.conn, &b.err), RC_OK);
    assert_false(sql_conn_tainted(b.conn));
    bed_fails(&b, "SELECT * FROM mine", "SQLITE_UNKNOWN");
    assert_string_equal(bed_ok(&b, "PRAGMA foreign_keys"), "1");
    sql_conn_foreign_keys(b.conn, false);
    assert_string_equal(bed_ok(&b, "PRAGMA foreign_keys"), "0");
    bed_ok(&b, "PRAGMA foreign_keys=0");
    assert_false(sql_conn_tainted(b.conn));
    assert_int_equal(sql_conn_reset(b.conn, &b.err), RC_OK);
    assert_string_equal(bed_ok(&b, "PRAGMA foreign_keys"), "1");
    bed_free(&b);
}

/* Kept statements know nothing of the end of PRAGMA defer_foreign_keys. */
static void test_deferring_ends(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    bed_open(&b, &(struct sql_conn_opts){.foreign_keys = true});
    bed_ok(&b, "CREATE TABLE p(a INTEGER PRIMARY KEY)");
    bed_ok(&b, "CREATE TABLE c(a REFERENCES p)");
    for (int before = 0; before < 2; before++) {
        if (before) bed_fails(&b, "INSERT INTO c VALUES(7)", "SQLITE_CONSTRAINT");
        bed_ok(&b, "BEGIN");
        bed_ok(&b, "PRAGMA defer_foreign_keys=1");
        bed_ok(&b, "INSERT INTO c VALUES(7)");
        bed_ok(&b, "INSERT INTO p VALUES(7)");
        bed_ok(&b, "COMMIT");
        bed_ok(&b, "DELETE FROM c");
        bed_ok(&b, "DELETE FROM p");
        bed_ok(&b, "BEGIN");
        bed_fails(&b, "INSERT INTO c VALUES(7)", "SQLITE_CONSTRAINT");
        bed_ok(&b, "COMMIT");
        assert_string_equal(bed_ok(&b, "SELECT count(*) FROM c"), "0");
    }
    /* Outside of a transaction it is for the next one, but not for the next client's. */
    bed_ok(&b, "PRAGMA defer_foreign_keys=1");
    assert_int_equal(sql_conn_reset(b.conn, &b.err), RC_OK);
    bed_ok(&b, "BEGIN");
    bed_fails(&b, "INSERT INTO c VALUES(7)", "SQLITE_CONSTRAINT");
    bed_ok(&b, "ROLLBACK");
    /* These take effect while they are prepared, so whoever only looks at one has it. */
    struct sql_description d;
    assert_int_equal(
        sql_conn_describe(b.conn, "PRAGMA recursive_triggers=1", 27, &d, &b.sql_err, &b.err),
        RC_OK);
    assert_true(sql_conn_tainted(b.conn));
    bed_open(&b, &(struct sql_conn_opts){.foreign_keys = true});
    const char *script = "INSERT INTO c VALUES(7); PRAGMA foreign_keys=0";
    assert_int_equal(
        sql_conn_script(b.conn, NULL, NULL, script, strlen(script), &b.sql_err, &b.err),
        RC_INVALID);
    bed_free(&b);
}

static void test_open_fails(void **state)
{
    (void)state;
    struct bed b;
    struct sql_conn *c;
    bed_new(&b);
    struct sql_conn_opts opts = {.path = b.path, .read_only = true};
    assert_int_equal(sql_conn_open(&opts, &c, &b.err), RC_NOT_FOUND);
    assert_non_null(strstr(b.err.text, b.path));
    assert_int_equal(os_write_file(b.path, "this is not a database, not at all", 34, 0600, &b.err),
                     0);
    opts.read_only = false;
    assert_int_equal(sql_conn_open(&opts, &c, &b.err), RC_CORRUPT);
    opts.path = "/nonexistent/dir/a.db";
    assert_int_equal(sql_conn_open(&opts, &c, &b.err), RC_NOT_FOUND);
    sql_conn_close(NULL);
    bed_free(&b);
}

static void test_full_and_big(void **state)
{
    (void)state;
    struct bed b;
    struct sql_conn_opts opts = {.page_max = 20, .value_max = 100000};
    bed_new(&b);
    bed_open(&b, &opts);
    bed_ok(&b, "CREATE TABLE t(a)");
    bed_fails(&b, "INSERT INTO t VALUES(zeroblob(99000))", "SQLITE_FULL");
    assert_int_equal(b.err.rc, RC_NO_SPACE);
    bed_fails(&b, "SELECT zeroblob(200000)", "SQLITE_TOOBIG");
    assert_int_equal(b.err.rc, RC_INVALID);
    bed_ok(&b, "INSERT INTO t VALUES(1)");
    bed_free(&b);
}

static void test_checkpoint_by_hand(void **state)
{
    (void)state;
    struct bed b;
    uint32_t left = 99;
    begin(&b);
    bed_ok(&b, "CREATE TABLE t(a)");
    for (int i = 0; i < 1500; i++)
        bed_ok(&b, "INSERT INTO t VALUES(zeroblob(3000))");
    char wal[128];
    struct stat st;
    snprintf(wal, sizeof wal, "%s-wal", b.path);
    assert_int_equal(os_stat(wal, &st, &b.err), RC_OK);
    assert_true(st.st_size > 1500 * 4096);
    assert_int_equal(sql_conn_checkpoint(b.conn, &left, &b.err), RC_OK);
    assert_int_equal(left, 0);
    sql_conn_close(b.conn);
    b.conn = NULL;
    assert_int_equal(os_stat(wal, &st, &b.err), RC_OK);
    bed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_round_trip),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_done),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_script_ends),
        cmocka_unit_test(test_deadline_and_cancel),
        cmocka_unit_test(test_limits_undo),
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_statement_cache),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_deferring_ends),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_full_and_big),
        cmocka_unit_test(test_checkpoint_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
