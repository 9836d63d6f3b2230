/* policy_test.c -- statements that are kept while connections go from one policy to another: who
 * may run them is decided as if none had ever been kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sql/actions.h"
#include "sql/client.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])
#define STEPS    3000
#define POLICIES 4

/* Denies all that concerns some tables, by their first letters. */
struct deny {
    struct sql_policy p;
    char letters[8];
    unsigned asked; /* times */
};
static const char schema[] =
    "CREATE TABLE a(id INTEGER PRIMARY KEY, x UNIQUE); CREATE TABLE b(id INTEGER PRIMARY KEY, x);"
    "CREATE TABLE c(id INTEGER PRIMARY KEY, x); INSERT INTO a VALUES(1,1); INSERT INTO b "
    "VALUES(1,1); CREATE VIEW v AS SELECT x FROM a;";

static bool allows(const struct sql_policy *p, int action, const char *a, const char *b,
                   const char *db)
{
    struct deny *d = (struct deny *)(uintptr_t)p;
    (void)b, (void)db;
    d->asked++;
    if (action == SQL_ACTION_UNSEEN) return d->letters[0] == '\0';
    return a == NULL || strlen(a) != 1 || strchr(d->letters, a[0]) == NULL;
}

static void make(struct deny *d, const char *letters)
{
    *d = (struct deny){.p = {allows, sql_policy_id()}};
    snprintf(d->letters, sizeof d->letters, "%s", letters);
}

static void script(struct sql_conn *c, const char *sql)
{
    struct sql_error e;
    struct err err;
    if (sql_conn_script(c, NULL, NULL, sql, strlen(sql), &e, &err) != RC_OK)
        fail_msg("%s: %s", sql, e.message);
}

static void test_kept_for_the_same(void **state)
{
    (void)state;
    struct bed b;
    struct deny one, two;
    bed_new(&b);
    bed_open(&b, &(struct sql_conn_opts){0});
    script(b.conn, schema);
    make(&one, "c");
    make(&two, "a");
    for (int round = 0; round < 3; round++) {
        one.asked = two.asked = 0;
        sql_conn_policy(b.conn, &one.p);
        assert_string_equal(bed_ok(&b, "SELECT x FROM a"), "1");
        assert_int_equal(one.asked > 0, round == 0);
        sql_conn_policy(b.conn, &two.p);
        bed_fails(&b, "SELECT x FROM a", "SQLITE_AUTH");
        assert_true(two.asked > 0);
        two.asked = 0;
        assert_string_equal(bed_ok(&b, "SELECT x FROM b"), "1");
        assert_int_equal(two.asked > 0, round == 0);
        sql_conn_policy(b.conn, NULL);
        assert_string_equal(bed_ok(&b, "SELECT x FROM a"), "1");
    }
    /* Another with the address of the one before. */
    sql_conn_policy(b.conn, &one.p);
    assert_string_equal(bed_ok(&b, "SELECT x FROM a"), "1");
    make(&one, "a");
    sql_conn_policy(b.conn, &one.p);
    bed_fails(&b, "SELECT x FROM a", "SQLITE_AUTH");
    make(&one, "");
    sql_conn_policy(b.conn, &one.p);
    assert_string_equal(bed_ok(&b, "SELECT x FROM a"), "1");
    assert_true(one.asked > 0);
    bed_free(&b);
}

/* SQLite prepares a kept statement anew when the schema has changed: it asks the policy of now. */
static void test_schema_changes(void **state)
{
    (void)state;
    struct bed b;
    struct deny d;
    struct sql_conn *other;
    bed_new(&b);
    bed_open(&b, &(struct sql_conn_opts){0});
    script(b.conn, schema);
    assert_int_equal(sql_conn_open(&(struct sql_conn_opts){.path = b.path}, &other, &b.err), RC_OK);
    make(&d, "c");
    sql_conn_policy(b.conn, &d.p);
    bed_ok(&b, "SELECT * FROM v");
    bed_ok(&b, "INSERT INTO a(x) VALUES(NULL)");
    sql_conn_policy(b.conn, NULL);
    bed_ok(&b, "SELECT * FROM v");
    bed_ok(&b, "INSERT INTO a(x) VALUES(NULL)");
    script(other, "DROP VIEW v; CREATE VIEW v AS SELECT x FROM c;"
                  "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO c(x) VALUES(1); END;");
    assert_string_equal(bed_ok(&b, "SELECT * FROM v"), "");
    bed_ok(&b, "INSERT INTO a(x) VALUES(NULL)");
    assert_string_equal(bed_ok(&b, "SELECT * FROM v"), "1");
    sql_conn_policy(b.conn, &d.p);
    for (int i = 0; i < 2; i++) {
        bed_fails(&b, "SELECT * FROM v", "SQLITE_AUTH");
        bed_fails(&b, "INSERT INTO a(x) VALUES(NULL)", "SQLITE_AUTH");
    }
    script(other, "DROP TRIGGER t; DROP VIEW v; CREATE VIEW v AS SELECT x FROM b;");
    bed_ok(&b, "INSERT INTO a(x) VALUES(NULL)");
    assert_string_equal(bed_ok(&b, "SELECT * FROM v"), "1");
    sql_conn_close(other);
    bed_free(&b);
}

/* A refusal for what another connection has removed meanwhile does not stay. */
static void test_refusals_do_not_stay(void **state)
{
    (void)state;
    struct bed b;
    struct deny d;
    struct sql_conn *other;
    bed_new(&b);
    bed_open(&b, &(struct sql_conn_opts){0});
    script(b.conn, schema);
    assert_int_equal(sql_conn_open(&(struct sql_conn_opts){.path = b.path}, &other, &b.err), RC_OK);
    make(&d, "c");
    sql_conn_policy(b.conn, &d.p);
    static const char *const inserts[] = {"INSERT INTO b(x) VALUES(2)",
                                          "REPLACE INTO b VALUES(2,2)", "UPDATE b SET x=3"};
    for (size_t i = 0; i < 2 * COUNT(inserts); i++) {
        const char *sql = inserts[i % COUNT(inserts)];
        script(other, "CREATE TRIGGER t1 AFTER INSERT ON b BEGIN INSERT INTO c(x) VALUES(1); END;"
                      "CREATE TRIGGER t2 AFTER UPDATE ON b BEGIN DELETE FROM c; END;");
        bed_fails(&b, sql, "SQLITE_AUTH");
        bed_fails(&b, sql, "SQLITE_AUTH");
        script(other, "DROP TRIGGER t1; DROP TRIGGER t2;");
        bed_ok(&b, sql);
        assert_int_equal(b.done.inserted, i % COUNT(inserts) < 2);
    }
    sql_conn_close(other);
    bed_free(&b);
}

/* A connection of the pool, and the writer's: the same statement of the same policy is asked for
 * once, whoever comes in between. */
static void test_in_the_pool(void **state)
{
    (void)state;
    struct house h;
    struct client one, two, plain;
    struct deny may, may_not;
    house_open(&h, (struct sql_engine_opts){.idle_max = 1});
    client_init(&one, &h);
    client_init(&two, &h);
    client_init(&plain, &h);
    make(&may, "c");
    make(&may_not, "t");
    one.s.policy = &may.p;
    two.s.policy = &may_not.p;
    for (int round = 0; round < 3; round++) {
        may.asked = 0;
        assert_int_equal(client_do(&one, "SELECT count(*) FROM t"), RC_OK);
        assert_int_equal(client_do(&one, "DELETE FROM t WHERE a=77"), RC_OK);
        assert_int_equal(may.asked > 0, round == 0);
        client_fails(&two, "SELECT count(*) FROM t", "SQLITE_AUTH");
        assert_int_equal(client_do(&two, "DELETE FROM t WHERE a=77"), RC_INVALID);
        assert_string_equal(two.sql_err.code, "SQLITE_AUTH");
        assert_int_equal(client_do(&plain, "SELECT count(*) FROM t"), RC_OK);
        assert_int_equal(client_do(&plain, "DELETE FROM t WHERE a=77"), RC_OK);
    }
    client_fini(&one);
    client_fini(&two);
    client_fini(&plain);
    house_close(&h);
}

static const char *const statements[] = {
    "SELECT x FROM a",
    "SELECT x FROM v",
    "SELECT count(*) FROM b",
    "SELECT a.x FROM a JOIN b ON a.id=b.id",
    "SELECT * FROM a NATURAL JOIN b",
    "SELECT (SELECT max(x) FROM c)",
    "INSERT INTO a(x) VALUES(NULL)",
    "INSERT INTO a(id,x) VALUES(1,1) ON CONFLICT DO UPDATE SET x=2",
    "REPLACE INTO a VALUES(1,1)",
    "UPDATE b SET x=x+1",
    "DELETE FROM c",
    "INSERT INTO c(x) SELECT x FROM v WHERE true RETURNING id",
};
static const char *const changes[] = {
    "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT x FROM a;",
    "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT x FROM b;",
    "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT b.x FROM b, c;",
    "DROP TRIGGER IF EXISTS t;",
    "DROP TRIGGER IF EXISTS t; CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM c; END;",
    "DROP TRIGGER IF EXISTS t; CREATE TRIGGER t AFTER UPDATE ON b BEGIN UPDATE a SET x=1; END;",
    "DROP INDEX IF EXISTS i; CREATE INDEX i ON b(x);",
};

/* On a connection that has nothing kept. */
static bool is_refused(const struct bed *b, const struct sql_policy *p, const char *sql)
{
    struct sql_conn *c;
    struct sql_description d;
    struct sql_error e;
    struct err err;
    assert_int_equal(sql_conn_open(&(struct sql_conn_opts){.path = b->path}, &c, &err), RC_OK);
    sql_conn_policy(c, p);
    enum rc rc = sql_conn_describe(c, sql, strlen(sql), &d, &e, &err);
    if (rc != RC_OK) assert_string_equal(e.code, "SQLITE_AUTH");
    sql_conn_policy(c, NULL);
    sql_conn_close(c);
    return rc != RC_OK;
}

static void test_against_none_kept(void **state)
{
    (void)state;
    struct bed b;
    struct sql_conn *other;
    struct deny policies[POLICIES];
    unsigned refused = 0, from_kept = 0;
    uint64_t seed = bed_seed();
    bed_new(&b);
    bed_open(&b, &(struct sql_conn_opts){.statement_max = 24});
    script(b.conn, schema);
    assert_int_equal(sql_conn_open(&(struct sql_conn_opts){.path = b.path}, &other, &b.err), RC_OK);
    for (size_t i = 0; i < POLICIES; i++)
        make(&policies[i], i % 2 ? "b" : "c");
    for (int step = 0; step < STEPS; step++) {
        uint64_t dice = bed_random(&seed);
        struct deny *d = dice % (POLICIES + 1) > 0 ? &policies[dice % (POLICIES + 1) - 1] : NULL;
        const char *sql = statements[(dice >> 8) % COUNT(statements)];
        sql_conn_policy(b.conn, NULL);
        if ((dice >> 16) % 40 == 0) script(other, changes[(dice >> 24) % COUNT(changes)]);
        if ((dice >> 32) % 60 == 0)
            make(&policies[(dice >> 40) % POLICIES],
                 (const char *[]){"", "a", "bc", "c"}[dice & 3]);
        if ((dice >> 44) % 30 == 0) sql_conn_foreign_keys(b.conn, (dice >> 50 & 1) != 0);
        if ((dice >> 46) % 30 == 0) assert_int_equal(sql_conn_reset(b.conn, &b.err), RC_OK);
        bool no = is_refused(&b, d != NULL ? &d->p : NULL, sql);
        unsigned asked = d != NULL ? d->asked : 0;
        sql_conn_policy(b.conn, d != NULL ? &d->p : NULL);
        enum rc rc = bed_run(&b, sql);
        bool was = rc != RC_OK && strcmp(b.sql_err.code, "SQLITE_AUTH") == 0;
        if (was != no)
            fail_msg("step %d: %s without '%s': %s, must be %s", step, sql,
                     d != NULL ? d->letters : "-", rc == RC_OK ? "ok" : b.sql_err.message,
                     no ? "refused" : "allowed");
        refused += no;
        from_kept += d != NULL && d->asked == asked;
    }
    assert_true(refused > STEPS / 20);
    assert_true(from_kept > STEPS / 20);
    print_message("%u refused, %u run as they were kept\n", refused, from_kept);
    sql_conn_policy(b.conn, NULL);
    sql_conn_close(other);
    bed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_for_the_same),    cmocka_unit_test(test_schema_changes),
        cmocka_unit_test(test_refusals_do_not_stay), cmocka_unit_test(test_in_the_pool),
        cmocka_unit_test(test_against_none_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
