/* roles_unseen_test.c -- what SQLite's authorizer does not tell, and a role
 * must not reach all the same: rows that REPLACE pushes out, columns that USING
 * compares, tables that are copied whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "server/roles_bed.h"

#define EACH(fn, bed, ...)                                                                         \
    do {                                                                                           \
        static const char *const each_[] = {__VA_ARGS__};                                          \
        for (size_t i_ = 0; i_ < sizeof each_ / sizeof each_[0]; i_++)                             \
            fn(bed, each_[i_]);                                                                    \
    } while (0)

static const char *const schema =
    "CREATE TABLE audit(id INTEGER PRIMARY KEY, what);"
    "CREATE TABLE mine(id INTEGER PRIMARY KEY, what);"
    "CREATE TABLE secret(id INTEGER PRIMARY KEY, what);"
    "CREATE TABLE log(id INTEGER PRIMARY KEY, what);"
    "CREATE TRIGGER t AFTER INSERT ON audit BEGIN INSERT INTO log "
    "VALUES(new.id, 'new'); END;"
    "INSERT INTO audit VALUES(1, 'old'); INSERT INTO secret VALUES(5, 'x');"
    "INSERT INTO log VALUES(7, 'kept'); INSERT INTO mine VALUES(5, 'm'), (6, "
    "'n');";

static void drain(struct rbed *b, const char *sql)
{
    (void)rbed_ok(b, sql);
}

static void test_replace(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, schema);
    rbed_as(&b, "[{\"effect\":\"deny\",\"actions\":[\"delete\"],\"tables\":["
                "\"audit\",\"log\"]},"
                "{\"effect\":\"allow\",\"actions\":[\"*\"]}]");
    EACH(rbed_no, &b, "REPLACE INTO audit VALUES(1, 'new')",
         "INSERT OR REPLACE INTO audit VALUES(1, 'new')",
         "insert/**/or--\nREPLACE into \"audit\" VALUES(1, 'new')",
         "WITH x AS (SELECT 1) INSERT OR REPLACE INTO audit SELECT 1, 2 FROM x",
         "UPDATE OR REPLACE audit SET id = 1", "EXPLAIN REPLACE INTO audit VALUES(1, 'new')",
         "UPDATE \xEF\xBB\xBFOR \xEF\xBB\xBFREPLACE audit SET id = 1",
         "REPLACE INTO audit SELECT * FROM mine");
    EACH(drain, &b, "REPLACE INTO mine VALUES(5, 'new')", "UPDATE OR REPLACE mine SET what = 'z'",
         "SELECT replace('a', 'a', 'b') FROM audit",
         "INSERT INTO audit VALUES(2, replace('a','b','c'))",
         "UPDATE audit SET what = 1 WHERE 0 OR replace('a', 'b', 'c') = 'd'",
         "INSERT OR IGNORE INTO audit VALUES(1, 'new')");
    /* The clause also rules what triggers insert: log row 7 would be pushed out.
     */
    rbed_as(&b, "[{\"effect\":\"deny\",\"actions\":[\"delete\"],\"tables\":[\"log\"]},"
                "{\"effect\":\"allow\",\"actions\":[\"*\"]}]");
    rbed_no(&b, "REPLACE INTO audit VALUES(7, 'new')");
    rbed_as(&b, NULL);
    assert_string_equal(rbed_ok(&b, "SELECT what FROM audit WHERE id = 1"), "old");
    assert_string_equal(rbed_ok(&b, "SELECT what FROM log WHERE id = 7"), "kept");
    rbed_free(&b);
}

static void test_using_and_copies(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, schema);
    rbed_as(&b, "[{\"effect\":\"deny\",\"actions\":[\"read\"],\"tables\":[\"secret\"]},"
                "{\"effect\":\"allow\",\"actions\":[\"*\"]}]");
    EACH(rbed_no, &b, "SELECT what FROM mine FULL JOIN secret USING(what)",
         "SELECT mine.id FROM mine JOIN secret USING (what)",
         "SELECT id FROM mine JOIN secret USING/**/(id)",
         "SELECT mine.id FROM mine NATURAL JOIN secret",
         "SELECT count(*) FROM mine NATURAL JOIN secret",
         "SELECT mine.id FROM mine LEFT NATURAL JOIN secret",
         "SELECT mine.id FROM mine \xEF\xBB\xBFNATURAL JOIN secret",
         "SELECT $a('), mine.id FROM mine NATURAL JOIN secret WHERE 1 <> $b(')",
         "SELECT $a::('), mine.id FROM mine JOIN secret USING(id) WHERE 1 <> $b(')",
         "SELECT 'it''s', mine.id FROM mine NATURAL JOIN secret",
         "CREATE TRIGGER x AFTER INSERT ON mine BEGIN INSERT INTO log SELECT * "
         "FROM secret; END",
         "CREATE VIEW x AS SELECT what FROM mine FULL JOIN secret USING(what)",
         "INSERT INTO mine SELECT * FROM secret", "INSERT INTO mine SELECT ALL * FROM secret",
         "INSERT INTO main.mine SELECT/**/*FROM secret AS s",
         "INSERT INTO mine(id, what) SELECT * FROM secret",
         "insert into mine select * from \"secret\";",
         "INSERT INTO mine SELECT * FROM secret WHERE true",
         "INSERT INTO mine SELECT id, what FROM secret",
         "INSERT OR IGNORE INTO mine SELECT * FROM secret");
    EACH(drain, &b, "SELECT mine.what FROM mine JOIN audit ON mine.id = audit.id",
         "INSERT INTO mine SELECT * FROM audit WHERE true",
         "SELECT \"natural\" FROM (SELECT 1 AS \"natural\")", "SELECT 'natural using(' -- natural",
         "INSERT INTO log(what) SELECT what FROM (SELECT * FROM mine)",
         "CREATE VIRTUAL TABLE docs USING fts5(a)");
    assert_string_equal(rbed_ok(&b, "SELECT count(*) FROM mine WHERE what = 'x'"), "0");
    rbed_as(&b, "[{\"effect\":\"allow\",\"actions\":[\"*\"]}]");
    assert_string_equal(rbed_ok(&b, "SELECT m.what FROM mine m JOIN secret s USING(id) WHERE 0"),
                        "");
    drain(&b, "DELETE FROM mine");
    drain(&b, "INSERT INTO mine SELECT * FROM secret");
    assert_string_equal(rbed_ok(&b, "SELECT what FROM mine"), "x");
    rbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_using_and_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
