/* actions_test.c -- action codes in words, and statements that do more than SQLite asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <string.h>
#include "sql/actions.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static void test_codes(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *a, *b;
        enum sql_act act;
        const char *name, *column;
    } cases[] = {
        {SQLITE_SELECT, NULL, NULL, SQL_ACT_NOTHING, NULL, NULL},
        {SQLITE_RECURSIVE, NULL, NULL, SQL_ACT_NOTHING, NULL, NULL},
        {SQLITE_READ, "t", "c", SQL_ACT_READ, "t", "c"},
        {SQLITE_READ, "t", "", SQL_ACT_READ, "t", ""},
        {SQLITE_READ, "t", NULL, SQL_ACT_READ, "t", ""},
        {SQLITE_INSERT, "t", NULL, SQL_ACT_INSERT, "t", NULL},
        {SQLITE_UPDATE, "t", "c", SQL_ACT_UPDATE, "t", "c"},
        {SQLITE_DELETE, "t", NULL, SQL_ACT_DELETE, "t", NULL},
        {SQLITE_CREATE_TABLE, "t", NULL, SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_CREATE_TABLE, "sqlite_stat1", NULL, SQL_ACT_SCHEMA, NULL, NULL},
        {SQLITE_CREATE_TEMP_TABLE, "t", NULL, SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_CREATE_INDEX, "i", "t", SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_DROP_INDEX, "i", "t", SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_CREATE_TRIGGER, "i", "t", SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_DROP_TEMP_TRIGGER, "i", "t", SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_CREATE_VIEW, "v", NULL, SQL_ACT_SCHEMA, "v", NULL},
        {SQLITE_CREATE_VTABLE, "v", "fts5", SQL_ACT_SCHEMA, "v", NULL},
        {SQLITE_ALTER_TABLE, "main", "t", SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_REINDEX, "i", NULL, SQL_ACT_SCHEMA, NULL, NULL},
        {SQLITE_ANALYZE, "t", NULL, SQL_ACT_SCHEMA, "t", NULL},
        {SQLITE_PRAGMA, "table_info", "t", SQL_ACT_PRAGMA, "table_info", NULL},
        {SQLITE_PRAGMA, "user_version", NULL, SQL_ACT_PRAGMA, "user_version", NULL},
        {SQLITE_PRAGMA, "User_Version", "1", SQL_ACT_SCHEMA, NULL, NULL},
        {SQLITE_PRAGMA, "optimize", NULL, SQL_ACT_SCHEMA, NULL, NULL},
        {SQLITE_PRAGMA, "vacuum", NULL, SQL_ACT_SCHEMA, NULL, NULL},
        {SQLITE_PRAGMA, "data_version", NULL, SQL_ACT_NOTHING, NULL, NULL},
        {SQLITE_TRANSACTION, "BEGIN", NULL, SQL_ACT_TRANSACTION, "BEGIN", NULL},
        {SQLITE_SAVEPOINT, "BEGIN", "s", SQL_ACT_TRANSACTION, "BEGIN", NULL},
        {SQLITE_FUNCTION, NULL, "abs", SQL_ACT_FUNCTION, "abs", NULL},
        {SQLITE_ATTACH, "f", NULL, SQL_ACT_ATTACH, "f", NULL},
        {SQLITE_DETACH, "f", NULL, SQL_ACT_ATTACH, "f", NULL},
        {SQL_ACTION_UNSEEN, NULL, NULL, SQL_ACT_UNSEEN, NULL, NULL},
        {999, "x", "y", SQL_ACT_ATTACH, "x", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sql_action a = sql_action_of(cases[i].code, cases[i].a, cases[i].b);
        assert_int_equal(a.act, cases[i].act);
        assert_int_equal(a.name != NULL, cases[i].name != NULL);
        if (a.name != NULL) assert_string_equal(a.name, cases[i].name);
        assert_int_equal(a.column != NULL, cases[i].column != NULL);
        if (a.column != NULL) assert_string_equal(a.column, cases[i].column);
        assert_false(a.any_column);
    }
    assert_true(sql_action_of(SQLITE_UPDATE, "t", "ROWID").any_column);
    assert_true(sql_action_of(SQLITE_UPDATE, "t", NULL).any_column);
}

/* Every action code of this SQLite has been thought of. */
static void test_all_codes(void **state)
{
    (void)state;
    for (int code = SQLITE_COPY + 1; code <= SQLITE_RECURSIVE; code++) {
        enum sql_act act = sql_action_of(code, "a", "b").act;
        bool attach = code == SQLITE_ATTACH || code == SQLITE_DETACH;
        assert_int_equal(act == SQL_ACT_ATTACH, attach);
    }
}

static void test_tricks(void **state)
{
    (void)state;
    enum { NONE = 0, R = SQL_TRICK_REPLACE, U = SQL_TRICK_UNSEEN };
    static const struct {
        const char *sql;
        unsigned tricks;
    } cases[] = {
        {"", NONE},
        {"SELECT 1", NONE},
        {"REPLACE INTO t VALUES(1)", R},
        {"replace/**/into t VALUES(1)", R},
        {"INSERT OR REPLACE INTO t VALUES(1)", R},
        {"update or replace t SET a = 1", R},
        {"UPDATE\xEF\xBB\xBF OR REPLACE t SET a = 1", NONE}, /* a word, and then no statement */
        {"UPDATE \xEF\xBB\xBFOR \xEF\xBB\xBFREPLACE t SET a = 1", R},
        {"SELECT replace(a, b, c) FROM t WHERE a OR replace(a, 'x', 'y')", NONE},
        {"INSERT INTO t VALUES('or replace into')", NONE},
        {"INSERT OR IGNORE INTO t VALUES(1)", NONE},
        {"SELECT 'it''s', 1 -- replace into", NONE},
        {"SELECT a FROM t NATURAL JOIN s", U},
        {"SELECT a FROM t LEFT Natural OUTER JOIN s", U},
        {"SELECT a FROM t JOIN s USING(a)", U},
        {"SELECT a FROM t JOIN s USING -- \n ( a )", U},
        {"SELECT a FROM t JOIN s USING/*(*/(a)", U},
        {"SELECT \"natural\", [using(], `natural`, 'natural' FROM t", NONE},
        {"SELECT a -- NATURAL\n FROM t /* NATURAL */", NONE},
        {"SELECT 'a' /* ' */ FROM t NATURAL JOIN s", U},
        {"SELECT [a'] FROM t NATURAL JOIN s -- '", U},
        {"SELECT $a(') FROM t NATURAL JOIN s WHERE $b(')", U},
        {"SELECT $a::('), :x, @y, #z FROM t NATURAL JOIN s WHERE $b(')", U},
        {"SELECT :a\xEF\xBB\xBF NATURAL", U},
        {"SELECT $a, 'NATURAL'", NONE},
        {"CREATE VIRTUAL TABLE t USING fts5(a)", NONE},
        {"INSERT INTO t SELECT * FROM s", U},
        {"INSERT INTO t SELECT ALL * FROM s", U},
        {"INSERT INTO main.\"t\" SELECT*FROM s AS x;", U},
        {"INSERT INTO t SELECT * FROM s WHERE 1", NONE},
        {"INSERT INTO t SELECT * FROM (SELECT * FROM s WHERE 1)", U}, /* in vain, but harmless */
        {"INSERT INTO t SELECT a, b FROM s", NONE},
        {"INSERT INTO t SELECT s.* FROM s", NONE},
        {"INSERT INTO t SELECT a FROM (SELECT * FROM s)", NONE},
        {"INSERT INTO t VALUES((SELECT * FROM s))", NONE},
        {"SELECT * FROM s", NONE},
        {"CREATE TABLE t AS SELECT * FROM s", NONE},
        {"CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO u SELECT * FROM s; END", U},
        {"INSERT INTO t VALUES(1); SELECT * FROM s", NONE},
        {"SELECT '", NONE},
        {"SELECT /*", NONE},
        {"SELECT $a(", NONE},
        {"/", NONE},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if (sql_tricks_of(cases[i].sql, strlen(cases[i].sql)) != cases[i].tricks)
            fail_msg("%s: %u", cases[i].sql, sql_tricks_of(cases[i].sql, strlen(cases[i].sql)));
    /* Ends where it is told to. */
    static const char text[] = "SELECT 1 NATURAL";
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_int_equal(sql_tricks_of(text, n), NONE);
    assert_int_equal(sql_tricks_of(text, sizeof text - 1), U);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_all_codes),
        cmocka_unit_test(test_tricks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
