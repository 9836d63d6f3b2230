/* functions_test.c -- functions in the place of SQLite's own: the same answers, and they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <sqlite3.h>
#include "base/os.h"
#include "sql/bed.h"

#define SIZE_MAX_BYTES 12

static const char *const pieces[] = {
    "a",        "b",        "ab", " ",        "1", "F",
    "\xc3\xa4", "\xa4",     "ä",  "\xe2",     "",  "\xf0\x9f\x98\x80",
    "\xff",     "\xc0\x80", "€",  "\xfe\x34", "0", "\xed\xa0\x80"};

struct arg {
    struct sql_value value;
    char bytes[128];
};

static void random_arg(uint64_t *seed, struct arg *a)
{
    *a = (struct arg){0};
    size_t size = 0;
    for (uint64_t n = bed_random(seed) % SIZE_MAX_BYTES; n > 0; n--) {
        const char *piece = pieces[bed_random(seed) % (sizeof pieces / sizeof pieces[0])];
        if (bed_random(seed) % 16 == 0) a->bytes[size++] = '\0';
        memcpy(a->bytes + size, piece, strlen(piece));
        size += strlen(piece);
    }
    static const enum sql_type types[] = {SQL_NULL, SQL_INTEGER, SQL_FLOAT, SQL_BLOB,
                                          SQL_BLOB, SQL_TEXT,    SQL_TEXT,  SQL_TEXT,
                                          SQL_TEXT, SQL_TEXT,    SQL_TEXT,  SQL_TEXT};
    a->value = (struct sql_value){.type = types[bed_random(seed) % 12],
                                  .integer = (int64_t)(bed_random(seed) % 300) - 100,
                                  .real = (double)(bed_random(seed) % 100) / 8,
                                  .data = a->bytes,
                                  .size = size};
}

static void bind(sqlite3_stmt *stmt, int at, const struct sql_value *v)
{
    if (v->type == SQL_INTEGER) sqlite3_bind_int64(stmt, at, v->integer);
    if (v->type == SQL_FLOAT) sqlite3_bind_double(stmt, at, v->real);
    if (v->type == SQL_TEXT) sqlite3_bind_text(stmt, at, v->data, (int)v->size, SQLITE_TRANSIENT);
    if (v->type == SQL_BLOB) sqlite3_bind_blob(stmt, at, v->data, (int)v->size, SQLITE_TRANSIENT);
}

/* What a plain connection says. */
static void plain(sqlite3 *db, const char *sql, const struct arg *args, int count, char *ret,
                  size_t size)
{
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    for (int i = 0; i < count; i++)
        bind(stmt, i + 1, &args[i].value);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    snprintf(ret, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
}

static void same_answers(const char *encoding)
{
    static const struct {
        const char *sql;
        int args;
    } calls[] = {
        {"SELECT typeof(x) || quote(hex(x)) FROM (SELECT instr(?1, ?2) AS x)", 2},
        {"SELECT typeof(x) || quote(hex(x)) FROM (SELECT replace(?1, ?2, ?3) AS x)", 3},
        {"SELECT typeof(x) || quote(hex(x)) FROM (SELECT trim(?1, ?2) AS x)", 2},
        {"SELECT typeof(x) || quote(hex(x)) FROM (SELECT ltrim(?1, ?2) AS x)", 2},
        {"SELECT typeof(x) || quote(hex(x)) FROM (SELECT rtrim(?1, ?2) AS x)", 2},
        {"SELECT typeof(x) || quote(hex(x)) FROM (SELECT unhex(?1, ?2) AS x)", 2},
    };
    struct bed b;
    sqlite3 *db;
    char want[4096];
    /* SQLite before 3.41 has no unhex, and its replace keeps a number if it looks for nothing. */
    bool old = sqlite3_libversion_number() < 3041000;
    size_t count = sizeof calls / sizeof calls[0] - old;
    uint64_t seed = bed_seed();
    bed_new(&b);
    assert_int_equal(sqlite3_open(b.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, encoding, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(a)", NULL, NULL, NULL), SQLITE_OK);
    bed_open(&b, NULL);
    for (int round = 0; round < 60000; round++) {
        struct arg args[3];
        struct sql_arg sql_args[3];
        for (size_t i = 0; i < 3; i++) {
            random_arg(&seed, &args[i]);
            sql_args[i] = (struct sql_arg){.value = args[i].value};
        }
        size_t at = (size_t)round % count;
        if (old && at == 1 && args[1].bytes[0] == '\0') continue;
        plain(db, calls[at].sql, args, calls[at].args, want, sizeof want);
        b.rows.size = 0;
        struct sql_stmt s = {calls[at].sql, strlen(calls[at].sql), sql_args, (size_t)calls[at].args,
                             true};
        struct sql_sink sink = bed_sink(&b.rows);
        assert_int_equal(sql_conn_run(b.conn, NULL, NULL, &s, &sink, &b.done, &b.sql_err, &b.err),
                         RC_OK);
        if (b.rows.size != strlen(want) || memcmp(b.rows.data, want, b.rows.size) != 0)
            fail_msg("%s: %.*s, not %s", calls[at].sql, (int)b.rows.size, (char *)b.rows.data,
                     want);
    }
    sqlite3_close(db);
    bed_free(&b);
}

static void test_same_answers(void **state)
{
    (void)state;
    same_answers("PRAGMA encoding='UTF-8'");
}

static void test_same_answers_utf16(void **state)
{
    (void)state;
    same_answers("PRAGMA encoding='UTF-16'");
}

static void test_replace_has_limits(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    bed_open(&b, &(struct sql_conn_opts){.value_max = 1000});
    assert_string_equal(bed_ok(&b, "SELECT length(replace(hex(zeroblob(50)), '0', '0123456789'))"),
                        "1000");
    bed_fails(&b, "SELECT replace(hex(zeroblob(50)) || 'x', '0', '0123456789')", "SQLITE_TOOBIG");
    bed_free(&b);
}

/* With SQLite's own each of these takes minutes, and no deadline is heard. */
static void test_they_end(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "SELECT instr(zeroblob(20000000), zeroblob(10000000) || x'01')",
        "SELECT length(replace(hex(zeroblob(5000000)), hex(zeroblob(2500000)) || '1', 'z'))",
        "SELECT trim(hex(zeroblob(5000000)), printf('%.*c', 1000000, 'z') || '0')",
        "SELECT unhex(printf('%.*c', 4000000, ' '), hex(zeroblob(500000)) || ' ')",
    };
    struct bed b;
    bed_new(&b);
    bed_open(&b, NULL);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct sql_stmt s = {.sql = texts[i], .sql_size = strlen(texts[i])};
        int64_t since = os_mono_ms();
        struct call call = {.deadline_ms = since + 300};
        enum rc rc = sql_conn_run(b.conn, &call, NULL, &s, NULL, &b.done, &b.sql_err, &b.err);
        assert_int_equal(rc, i < 2 ? RC_OK : RC_CANCELED);
        assert_true(os_mono_ms() - since < 30000);
        if (i >= 2) assert_string_equal(b.sql_err.code, "SQLITE_INTERRUPT");
    }
    bed_fails(&b, "SELECT 'a' LIKE hex(zeroblob(501))", "SQLITE_UNKNOWN");
    bed_free(&b);
}

/* What may take long in one step is not begun where others need the thread. */
static void test_brief(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        enum rc rc;
    } list[] = {
        {"SELECT length(hex(zeroblob(100000)))", RC_OK},
        {"SELECT length(hex(zeroblob(1000000)))", RC_CANCELED},
        {"SELECT length(a) FROM t", RC_CANCELED},
        {"SELECT 'x' LIKE hex(zeroblob(40))", RC_OK},
        {"SELECT 'x' LIKE hex(zeroblob(100))", RC_CANCELED},
        {"SELECT 'x' GLOB hex(zeroblob(100))", RC_CANCELED},
        {"SELECT nothing", RC_INVALID},
    };
    struct bed b;
    bed_new(&b);
    bed_open(&b, NULL);
    bed_ok(&b, "CREATE TABLE t(a)");
    bed_ok(&b, "INSERT INTO t VALUES(randomblob(1000000) || 'x')");
    const struct sql_limits brief = {.brief = true};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct sql_stmt s = {.sql = list[i].sql, .sql_size = strlen(list[i].sql)};
        enum rc rc = sql_conn_run(b.conn, NULL, &brief, &s, NULL, &b.done, &b.sql_err, &b.err);
        if (rc != list[i].rc) fail_msg("%s: %s", list[i].sql, b.err.text);
        /* The next one, which is not brief, has all that there is. */
        if (rc != RC_INVALID) bed_ok(&b, list[i].sql);
    }
    /* Nor is a long text parsed there. */
    static char text[70000];
    memset(text, ' ', sizeof text);
    memcpy(text, "SELECT 1", 8);
    struct sql_stmt s = {.sql = text, .sql_size = sizeof text};
    assert_int_equal(sql_conn_run(b.conn, NULL, &brief, &s, NULL, &b.done, &b.sql_err, &b.err),
                     RC_CANCELED);
    assert_int_equal(sql_conn_run(b.conn, NULL, NULL, &s, NULL, &b.done, &b.sql_err, &b.err),
                     RC_OK);
    bed_free(&b);
}

/* SQLite's memory for a text is a hundred times its size if it is all words and signs. */
static void test_long_lists(void **state)
{
    (void)state;
    enum { SIZE = 3000000 };
    static char text[SIZE + 100];
    static const char *const begins[] = {
        "SELECT 1 IN (0", "SELECT 1; SELECT 1 IN (0",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; SELECT 1 IN (0"};
    static const char *const ends[] = {")", ")", "); END"};
    struct bed b;
    bed_new(&b);
    bed_open(&b, NULL);
    bed_ok(&b, "CREATE TABLE t(a)");
    for (size_t i = 0; i < 3; i++) {
        size_t n = (size_t)sprintf(text, "%s", begins[i]);
        while (n < SIZE)
            text[n++] = ',', text[n++] = '1';
        strcpy(text + n, ends[i]);
        if (i != 1) bed_fails(&b, text, "SQLITE_TOOBIG");
        assert_int_equal(
            sql_conn_script(b.conn, NULL, NULL, text, strlen(text), &b.sql_err, &b.err),
            RC_INVALID);
        assert_string_equal(b.sql_err.code, "SQLITE_TOOBIG");
    }
    memset(text, '1', SIZE);
    memcpy(text, "SELECT length('", 15);
    strcpy(text + SIZE, "')");
    assert_string_equal(bed_ok(&b, text), "2999985");
    bed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answers),
        cmocka_unit_test(test_same_answers_utf16),
        cmocka_unit_test(test_replace_has_limits),
        cmocka_unit_test(test_they_end),
        cmocka_unit_test(test_brief),
        cmocka_unit_test(test_long_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
