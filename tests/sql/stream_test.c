/* stream_test.c -- one client's stream of statements, one rule a test; random histories and faults
 * are in stream_sweep_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/os.h"
#include "harness/scene.h"
#include "sql/client.h"

#define ENDLESS                                                                                    \
    "SELECT count(*) FROM (WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c) "        \
    "SELECT x FROM c)"

/* What a test has: an engine and two clients. */
struct scene {
    void (*fn)(void);
    struct sql_engine_opts opts;
};

static struct house h;
static struct client a, b;

static void run_scene(void **state)
{
    const struct scene *s = *state;
    house_open(&h, s->opts);
    client_init(&a, &h);
    client_init(&b, &h);
    s->fn();
    client_fini(&a);
    client_fini(&b);
    house_close(&h);
}

static enum sql_way way(const struct client *c, const char *sql)
{
    return sql_stream_way(&c->s, sql, strlen(sql));
}

static struct sql_writer_stats stats_of(void)
{
    struct sql_engine_stats stats;
    sql_engine_look(h.engine, &stats);
    return stats.writer;
}

static unsigned used(void)
{
    struct sql_engine_stats stats;
    sql_engine_look(h.engine, &stats);
    return stats.conns_used;
}

static void test_ways(void)
{
    assert_int_equal(way(&a, "SELECT 1"), SQL_WAY_READ);
    assert_int_equal(way(&a, "-- x\n WITH a AS (SELECT 1) SELECT * FROM a"), SQL_WAY_READ);
    assert_int_equal(way(&a, "INSERT INTO t VALUES(1,1)"), SQL_WAY_GROUP);
    assert_int_equal(way(&a, "CREATE TABLE u(a)"), SQL_WAY_GROUP);
    assert_int_equal(way(&a, "BEGIN"), SQL_WAY_OWN);
    assert_int_equal(way(&a, "SAVEPOINT a"), SQL_WAY_OWN);
    assert_int_equal(way(&a, "PRAGMA foreign_keys=0"), SQL_WAY_OWN);
    assert_int_equal(way(&a, "nonsense"), SQL_WAY_OWN);
    a.s.all_read = true;
    assert_int_equal(way(&a, "INSERT INTO t VALUES(1,1)"), SQL_WAY_OWN);
    assert_int_equal(way(&a, "SELECT 1"), SQL_WAY_READ);
    a.s.all_read = false;
    client_ok(&a, "BEGIN");
    assert_int_equal(way(&a, "SELECT 1"), SQL_WAY_OWN);
    assert_int_equal(way(&a, "INSERT INTO t VALUES(1,1)"), SQL_WAY_OWN);
    client_ok(&a, "END");
    assert_int_equal(way(&a, "SELECT 1"), SQL_WAY_READ);
}

static void test_reads_borrow(void)
{
    struct sql_engine_stats stats;
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "0");
    assert_true(sql_stream_clean(&a.s) && sql_stream_autocommit(&a.s));
    assert_int_equal(client_do(&a, "INSERT INTO t VALUES(1,'x') RETURNING b"), RC_OK);
    assert_string_equal((char *)a.rows.data, "x");
    assert_int_equal(a.s.commit, 1);
    assert_string_equal(client_ok(&a, "SELECT b FROM t"), "x"); /* its own write */
    client_fails(&a, "SELECT nonsense", "SQL_INPUT_ERROR");
    assert_true(sql_stream_clean(&a.s));
    sql_engine_look(h.engine, &stats);
    assert_int_equal(stats.conns, 1);
    assert_int_equal(stats.conns_used, 0);
    /* It looks like a read and is none for SQLite; as a lone write it runs. */
    assert_int_equal(client_once(&a, "EXPLAIN INSERT INTO t VALUES(2,2)"), RC_DENIED);
    assert_int_equal(client_do(&a, "EXPLAIN INSERT INTO t VALUES(2,2)"), RC_OK);
    assert_true(sql_stream_clean(&a.s));
    assert_int_equal(a.asked, 0);
    /* Given to the stream all the same, a write asks for the turn, and leaves it clean. */
    assert_int_equal(client_once(&a, "INSERT INTO t VALUES(2,'y')"), RC_AGAIN);
    client_ok(&a, "INSERT INTO t VALUES(2,'y')");
    assert_int_equal(a.asked, 1);
    assert_int_equal(a.done.affected, 1);
    assert_int_equal(a.s.commit, stats_of().commits);
    assert_true(sql_stream_clean(&a.s));
    /* Settings of the file want the turn as well, questions do not. */
    client_ok(&a, "PRAGMA user_version=7");
    assert_int_equal(a.asked, 2);
    assert_string_equal(client_ok(&a, "PRAGMA user_version"), "7");
    int before = atomic_load(&h.committed);
    client_ok(&a, "VACUUM");
    assert_int_equal(a.asked, 3);
    assert_int_equal(atomic_load(&h.committed), before + 1); /* others want to hear of it */
    assert_true(sql_stream_clean(&a.s));
}

static void test_transaction(void)
{
    assert_int_equal(client_once(&a, "BEGIN IMMEDIATE"), RC_AGAIN);
    assert_true(sql_stream_autocommit(&a.s));
    client_ask(&a);
    assert_true(client_told(&a)); /* at once, nobody else wants it */
    assert_int_equal(client_once(&a, "BEGIN IMMEDIATE"), RC_OK);
    assert_false(sql_stream_autocommit(&a.s));
    client_ok(&a, "INSERT INTO t VALUES(1,'a')");
    /* A second one waits, reads do not. */
    assert_string_equal(client_ok(&b, "SELECT count(*) FROM t"), "0");
    client_ok(&b, "BEGIN");
    assert_int_equal(client_once(&b, "UPDATE t SET b='b'"), RC_AGAIN);
    client_ask(&b);
    assert_false(client_told(&b));
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "1");
    int before = atomic_load(&h.committed);
    client_ok(&a, "COMMIT");
    assert_int_equal(atomic_load(&h.committed), before + 1);
    assert_int_equal(a.s.commit, 1);
    assert_true(sql_stream_clean(&a.s));
    client_wait(&b);
    client_ok(&b, "UPDATE t SET b='b'"); /* its snapshot had not begun */
    assert_int_equal(b.asked, 1);
    client_ok(&b, "SAVEPOINT s");
    client_ok(&b, "DELETE FROM t");
    client_ok(&b, "ROLLBACK TO s");
    assert_true(b.s.granted);
    client_ok(&b, "ROLLBACK");
    assert_false(b.s.granted);
    assert_int_equal(b.s.commit, 0);
    assert_int_equal(atomic_load(&h.committed), before + 1);
    assert_string_equal(client_ok(&a, "SELECT b FROM t"), "a");
    /* A savepoint is a transaction, too. */
    client_ok(&a, "SAVEPOINT x");
    client_ok(&a, "INSERT INTO t VALUES(2,'s')");
    assert_true(a.s.granted);
    client_ok(&a, "RELEASE x");
    assert_true(sql_stream_clean(&a.s));
    assert_int_equal(a.s.commit, 2);
    client_fails(&a, "COMMIT", "SQLITE_UNKNOWN");
    assert_true(sql_stream_clean(&a.s));
}

/* Nobody waits for what cannot come: a snapshot that is too old to write on. */
static void test_stale_snapshot(void)
{
    client_ok(&a, "BEGIN");
    client_ok(&a, "SELECT count(*) FROM t");
    assert_int_equal(client_do(&b, "INSERT INTO t VALUES(1,'b')"), RC_OK);
    int64_t start = os_mono_ms();
    assert_int_equal(client_run(&a, "INSERT INTO t VALUES(2,'a')"), RC_BUSY);
    assert_true(os_mono_ms() - start < 30000);
    assert_string_equal(a.sql_err.code, "SQLITE_BUSY");
    assert_string_equal(a.sql_err.extended, "SQLITE_BUSY_SNAPSHOT");
    assert_int_equal(a.asked, 1);
    /* It has not the turn, but it has its transaction. */
    assert_false(a.s.granted);
    assert_false(sql_stream_autocommit(&a.s));
    assert_int_equal(client_do(&b, "INSERT INTO t VALUES(3,'b')"), RC_OK);
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "0");
    client_ok(&a, "ROLLBACK");
    client_ok(&a, "BEGIN IMMEDIATE");
    client_ok(&a, "INSERT INTO t VALUES(2,'a')");
    client_ok(&a, "COMMIT");
    assert_string_equal(client_ok(&b, "SELECT count(*) FROM t"), "3");
}

static void hold_too_long(struct client *c)
{
    uint64_t before = stats_of().timed_out;
    while (stats_of().timed_out == before)
        os_sleep_ms(5);
    assert_true(sql_turn_revoked(&c->s.turn));
}

static void test_timed_out(void)
{
    /* COMMIT fails, and that is the end of it. */
    client_ok(&a, "BEGIN");
    client_ok(&a, "INSERT INTO t VALUES(1,'lost')");
    hold_too_long(&a);
    assert_int_equal(client_do(&b, "INSERT INTO t VALUES(1,'b')"), RC_OK);
    client_fails(&a, "COMMIT", "TRANSACTION_TIMEOUT");
    assert_true(sql_stream_clean(&a.s) && sql_stream_autocommit(&a.s));
    assert_string_equal(client_ok(&a, "SELECT b FROM t"), "b");
    /* Everything fails until ROLLBACK, which does not. */
    client_ok(&a, "BEGIN IMMEDIATE");
    hold_too_long(&a);
    client_fails(&a, "SELECT 1", "TRANSACTION_TIMEOUT");
    assert_int_equal(used(), 0); /* nothing is kept for it */
    assert_false(sql_stream_clean(&a.s));
    assert_false(sql_stream_autocommit(&a.s));
    assert_int_equal(way(&a, "SELECT 1"), SQL_WAY_OWN);
    client_fails(&a, "INSERT INTO t VALUES(5,5)", "TRANSACTION_TIMEOUT");
    client_fails(&a, "ROLLBACK TO x", "TRANSACTION_TIMEOUT");
    client_fails(&a, "ROLLBACK; SELECT 1", "TRANSACTION_TIMEOUT");
    client_fails(&a, "BEGIN", "TRANSACTION_TIMEOUT");
    a.done.affected = 9;
    assert_string_equal(client_ok(&a, " /* x */ rollback transaction me ;"), "");
    assert_int_equal(a.done.affected, 0);
    assert_true(sql_stream_clean(&a.s));
    /* The same while a statement runs. */
    client_ok(&a, "BEGIN IMMEDIATE");
    client_fails(&a, ENDLESS, "TRANSACTION_TIMEOUT");
    assert_false(sql_stream_autocommit(&a.s));
    client_ok(&a, "ROLLBACK");
    client_ok(&a, "BEGIN");
    client_ok(&a, "INSERT INTO t VALUES(7,7)");
    client_fails(&a, "INSERT INTO t SELECT 8, (" ENDLESS ")", "TRANSACTION_TIMEOUT");
    assert_false(sql_stream_autocommit(&a.s)); /* as the client sees it */
    client_fails(&a, "END", "TRANSACTION_TIMEOUT");
    assert_true(sql_stream_autocommit(&a.s));
    /* A statement without a transaction has only itself to lose. */
    client_fails(&a, "INSERT INTO t SELECT 8, (" ENDLESS ")", "TRANSACTION_TIMEOUT");
    assert_true(sql_stream_autocommit(&a.s));
    assert_string_equal(client_ok(&a, "SELECT b FROM t"), "b");
}

static enum rc never_called(void *ctx, const struct sql_description *d, struct err *err)
{
    (void)ctx, (void)d, (void)err;
    fail();
    return RC_OK;
}

static void test_timed_out_scripts(void)
{
    client_ok(&a, "CREATE TEMP TABLE mine(a)");
    assert_false(sql_stream_clean(&a.s));
    client_ok(&a, "BEGIN IMMEDIATE");
    client_ok(&a, "INSERT INTO mine VALUES(1)");
    hold_too_long(&a);
    assert_int_equal(client_script(&a, "SELECT 1; ROLLBACK"), RC_INVALID);
    assert_string_equal(a.sql_err.code, "TRANSACTION_TIMEOUT");
    assert_int_equal(
        sql_stream_describe(&a.s, "SELECT 1", 8, never_called, NULL, &a.sql_err, &a.err),
        RC_INVALID);
    assert_string_equal(a.sql_err.code, "TRANSACTION_TIMEOUT");
    assert_int_equal(client_script(&a, "ROLLBACK;"), RC_OK);
    assert_true(sql_stream_autocommit(&a.s));
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM mine"), "0"); /* its table is there */
    client_ok(&a, "BEGIN IMMEDIATE");
    hold_too_long(&a);
    assert_int_equal(client_script(&a, "COMMIT; SELECT 1"), RC_INVALID);
    assert_true(sql_stream_autocommit(&a.s));
    /* The rest of the script is run, and where it fails is told in bytes of all of it. */
    client_ok(&a, "BEGIN IMMEDIATE");
    hold_too_long(&a);
    assert_int_equal(client_script(&a, "ROLLBACK; INSERT INTO t VALUES(1,1); nonsense"),
                     RC_INVALID);
    assert_string_equal(a.sql_err.code, "SQL_PARSE_ERROR");
    assert_int_equal(a.sql_err.offset, 37);
    assert_true(sql_stream_autocommit(&a.s));
    assert_string_equal(client_ok(&a, "SELECT a FROM t"), "1");
    /* The end of a hold in the middle of one. */
    assert_int_equal(client_script(&a, "INSERT INTO t VALUES(2,2); " ENDLESS), RC_INVALID);
    assert_string_equal(a.sql_err.code, "TRANSACTION_TIMEOUT");
    assert_int_equal(a.s.commit, stats_of().commits);
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "2");
}

/* A turn that ended before it was used was no transaction: ask again. One that ended after the
 * COMMIT has done what it was for. */
static void test_hold_outside_of_transactions(void)
{
    assert_int_equal(client_once(&a, "BEGIN IMMEDIATE"), RC_AGAIN);
    client_ask(&a);
    hold_too_long(&a);
    assert_int_equal(client_once(&a, "BEGIN IMMEDIATE"), RC_AGAIN);
    client_ok(&a, "BEGIN IMMEDIATE");
    client_ok(&a, "INSERT INTO t VALUES(1,1)");
    client_ok(&a, "COMMIT");
    assert_int_equal(a.s.commit, 1);
    /* In a transaction that only read until then, it is one that is lost. */
    client_ok(&a, "BEGIN");
    client_ok(&a, "SELECT * FROM t");
    assert_int_equal(client_once(&a, "DELETE FROM t"), RC_AGAIN);
    client_ask(&a);
    hold_too_long(&a);
    client_fails(&a, "DELETE FROM t", "TRANSACTION_TIMEOUT");
    client_ok(&a, "ROLLBACK");
    /* Not wanted any more. */
    assert_int_equal(client_once(&a, "DELETE FROM t"), RC_AGAIN);
    assert_false(sql_stream_unask(&a.s));
    client_ask(&a);
    assert_true(a.s.granted);
    assert_false(sql_stream_unask(&a.s));
    sql_stream_rest(&a.s);
    assert_true(sql_stream_clean(&a.s));
    assert_false(a.s.granted);
}

static void test_unask(void)
{
    client_ok(&a, "BEGIN IMMEDIATE");
    assert_int_equal(client_once(&b, "INSERT INTO t VALUES(1,1)"), RC_AGAIN);
    client_ask(&b);
    assert_true(sql_stream_unask(&b.s));
    assert_true(sql_stream_clean(&b.s));
    client_ok(&b, "BEGIN");
    assert_int_equal(client_once(&b, "INSERT INTO t VALUES(1,1)"), RC_AGAIN);
    client_ask(&b);
    assert_true(sql_stream_unask(&b.s));
    assert_false(sql_stream_autocommit(&b.s)); /* the transaction is still there */
    sql_stream_end(&b.s);
    assert_true(sql_stream_clean(&b.s));
    assert_int_equal(client_once(&b, "INSERT INTO t VALUES(1,1)"), RC_AGAIN);
    client_ask(&b);
    client_ok(&a, "INSERT INTO t VALUES(2,2)");
    sql_stream_end(&a.s); /* with the turn */
    assert_true(client_told(&b));
    client_ok(&b, "INSERT INTO t VALUES(1,1)");
    assert_string_equal(client_ok(&a, "SELECT a FROM t"), "1");
}

static void test_settings_stay(void)
{
    client_ok(&a, "PRAGMA foreign_keys=on"); /* as it is anyway */
    assert_true(sql_stream_clean(&a.s));
    client_ok(&a, "PRAGMA foreign_keys=off");
    assert_false(sql_stream_clean(&a.s));
    assert_true(sql_stream_autocommit(&a.s));
    assert_string_equal(client_ok(&a, "PRAGMA foreign_keys"), "0");
    assert_string_equal(client_ok(&b, "PRAGMA foreign_keys"), "1");
    client_ok(&a, "INSERT INTO t VALUES(1,1)");
    assert_false(a.s.granted);
    client_ok(&a, "VACUUM");
    client_ok(&a, "PRAGMA foreign_keys=1");
    assert_true(sql_stream_clean(&a.s));
    client_ok(&a, "CREATE TEMP TABLE mine(a)");
    assert_false(sql_stream_clean(&a.s));
    assert_false(a.s.granted);
    client_ok(&a, "BEGIN");
    client_ok(&a, "INSERT INTO mine VALUES(1)");
    assert_false(a.s.granted); /* nobody else minds */
    client_ok(&a, "INSERT INTO t SELECT a+1, 'temp' FROM mine");
    assert_true(a.s.granted);
    client_ok(&a, "COMMIT");
    assert_false(sql_stream_clean(&a.s));
    assert_string_equal(client_ok(&a, "SELECT a FROM mine"), "1");
    client_fails(&b, "SELECT a FROM mine", "SQLITE_UNKNOWN");
    assert_string_equal(client_ok(&b, "SELECT b FROM t"), "1\ntemp");
    sql_stream_end(&a.s);
    for (int i = 0; i < 4; i++)
        client_fails(&a, "SELECT a FROM mine", "SQLITE_UNKNOWN");
}

static void test_scripts(void)
{
    assert_int_equal(client_script(&a, ""), RC_OK);
    assert_int_equal(client_script(&a, "SELECT 1"), RC_OK);
    assert_int_equal(a.asked, 1);
    assert_int_equal(
        client_script(&a, "BEGIN; INSERT INTO t VALUES(1,1); COMMIT; CREATE TABLE u(a);"), RC_OK);
    assert_true(sql_stream_clean(&a.s));
    assert_int_equal(a.s.commit, stats_of().commits);
    assert_int_equal(client_script(&a, "BEGIN; INSERT INTO t VALUES(2,2)"), RC_OK);
    assert_false(sql_stream_autocommit(&a.s));
    assert_true(a.s.granted);
    assert_int_equal(client_script(&a, "SELECT 1; ROLLBACK; INSERT INTO t VALUES(3,3)"), RC_OK);
    assert_true(sql_stream_clean(&a.s));
    assert_int_equal(client_script(&a, "BEGIN; INSERT INTO t VALUES(4,4)"), RC_OK);
    assert_int_equal(client_script(&a, "ROLLBACK"), RC_OK);
    assert_true(sql_stream_clean(&a.s));
    /* What ran before the failure stays. */
    assert_int_equal(client_script(&a, "INSERT INTO t VALUES(5,5); SELECT x"), RC_INVALID);
    assert_true(sql_stream_clean(&a.s));
    assert_string_equal(client_ok(&a, "SELECT a FROM t"), "1\n3\n5");
    client_ok(&a, "BEGIN READONLY");
    assert_int_equal(client_script(&a, "SELECT 1; INSERT INTO t VALUES(6,6)"), RC_INVALID);
    assert_string_equal(a.sql_err.code, "SQLITE_READONLY");
    assert_false(a.s.granted);
    client_ok(&a, "COMMIT");
}

static void test_readers(void)
{
    client_ok(&a, "BEGIN TRANSACTION READONLY");
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "0");
    client_fails(&a, "INSERT INTO t VALUES(1,1)", "SQLITE_READONLY");
    client_ok(&a, "COMMIT");
    /* Who may only read. */
    a.s.all_read = true;
    static const char *const writes[] = {
        "INSERT INTO t VALUES(1,1)", "BEGIN IMMEDIATE",       "VACUUM",
        "CREATE TEMP TABLE x(a)",    "EXPLAIN DELETE FROM t", "PRAGMA user_version=1"};
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        assert_int_equal(client_do(&a, writes[i]), RC_INVALID);
        assert_string_equal(a.sql_err.code, "SQLITE_READONLY");
        assert_true(sql_stream_clean(&a.s));
    }
    client_ok(&a, "BEGIN");
    client_fails(&a, "DELETE FROM t", "SQLITE_READONLY");
    assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "0");
    client_ok(&a, "COMMIT");
    assert_int_equal(client_script(&a, "SELECT 1; SELECT 2"), RC_OK);
    assert_int_equal(client_script(&a, "SELECT 1; DELETE FROM t"), RC_INVALID);
    assert_string_equal(a.sql_err.code, "SQLITE_READONLY");
    a.s.all_read = false;
    a.limits.read_only = true;
    client_fails(&a, "INSERT INTO t VALUES(1,1)", "SQLITE_READONLY");
    assert_int_equal(client_script(&a, "DELETE FROM t"), RC_INVALID);
    assert_int_equal(a.asked, 0);
}

static bool no_table_t(const struct sql_policy *p, int action, const char *table, const char *more,
                       const char *db)
{
    (void)p, (void)action, (void)more, (void)db;
    return table == NULL || strcmp(table, "t") != 0;
}

static void test_policies(void)
{
    const struct sql_policy policy = {no_table_t, sql_policy_id()};
    for (int i = 0; i < 3; i++) { /* on the same connection in turn */
        b.s.policy = &policy;
        assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "0");
        client_fails(&b, "SELECT count(*) FROM t", "SQLITE_AUTH");
        client_ok(&a, "BEGIN");
        client_ok(&b, "BEGIN");
        assert_string_equal(client_ok(&a, "SELECT count(*) FROM t"), "0");
        client_fails(&b, "SELECT count(*) FROM t", "SQLITE_AUTH");
        b.s.policy = NULL; /* he has been given more, in the middle of it */
        assert_string_equal(client_ok(&b, "SELECT count(*) FROM t"), "0");
        sql_stream_end(&a.s);
        sql_stream_end(&b.s);
    }
}

static enum rc describe(void *ctx, const struct sql_description *d, struct err *err)
{
    struct client *c = ctx;
    buf_reset(&c->rows);
    if (d->col_count == 0) return err_set(err, RC_TOO_BIG, "no columns");
    return buf_printf(&c->rows, err, "%zu %s %s %d", d->param_count, d->params[0].name,
                      d->cols[0].name, (int)d->is_readonly);
}

static enum rc describe_sql(struct client *c, const char *sql)
{
    return sql_stream_describe(&c->s, sql, strlen(sql), describe, c, &c->sql_err, &c->err);
}

static void test_describe(void)
{
    assert_int_equal(describe_sql(&a, "SELECT b FROM t WHERE a=:x"), RC_OK);
    assert_memory_equal(a.rows.data, "1 :x b 1", 8);
    assert_int_equal(describe_sql(&a, "DELETE FROM t WHERE a=:x"), RC_TOO_BIG); /* fn's */
    assert_int_equal(describe_sql(&a, "SELECT x"), RC_INVALID);
    assert_true(sql_stream_clean(&a.s));
    client_ok(&a, "CREATE TEMP TABLE mine(z)");
    assert_int_equal(describe_sql(&a, "SELECT z FROM mine WHERE z=?5"), RC_OK);
    assert_int_equal(used(), 1);
}

static void test_limits(void)
{
    client_ok(&a, "BEGIN");
    assert_int_equal(client_run(&b, "SELECT 1"), RC_BUSY);
    assert_string_equal(b.sql_err.code, "SQLITE_BUSY");
    assert_int_equal(client_run(&b, "BEGIN"), RC_BUSY);
    assert_int_equal(client_script(&b, "SELECT 1"), RC_BUSY);
    assert_int_equal(describe_sql(&b, "SELECT 1"), RC_BUSY);
    assert_int_equal(client_do(&b, "INSERT INTO t VALUES(1,1)"), RC_OK); /* needs none */
    client_ok(&a, "COMMIT");
    client_ok(&b, "SELECT 1");
    b.limits.row_max = 1;
    assert_int_equal(client_run(&b, "VALUES(1),(2)"), RC_TOO_BIG);
    b.call.deadline_ms = os_mono_ms() + 30;
    assert_int_equal(client_run(&b, ENDLESS), RC_CANCELED);
}

static void *interrupt(void *arg)
{
    struct client *c = arg;
    while (!client_told(c)) {
        sql_stream_interrupt(&c->s);
        os_sleep_ms(1);
    }
    return NULL;
}

static void test_interrupt(void)
{
    pthread_t thread;
    sql_stream_interrupt(&a.s);
    assert_int_equal(thr_start(&thread, "interrupt", interrupt, &a, &a.err), RC_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(client_once(&a, ENDLESS), RC_CANCELED);
        assert_string_equal(a.sql_err.code, "SQLITE_INTERRUPT");
        while (client_once(&a, "BEGIN") != RC_OK) {
        }
        assert_int_equal(client_once(&a, ENDLESS), RC_CANCELED);
        while (client_once(&a, "ROLLBACK") != RC_OK) {
        }
        assert_true(sql_stream_clean(&a.s));
    }
    thr_lock(&a.lock);
    a.told = true;
    thr_unlock(&a.lock);
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(test_ways),
        SCENE(test_reads_borrow),
        SCENE(test_transaction),
        SCENE(test_stale_snapshot, .opts.conn.busy_ms = 60000),
        SCENE(test_timed_out, .opts.hold_ms = 400),
        SCENE(test_timed_out_scripts, .opts.hold_ms = 400),
        SCENE(test_hold_outside_of_transactions, .opts.hold_ms = 400),
        SCENE(test_unask),
        SCENE(test_settings_stay, .opts.conn.foreign_keys = true),
        SCENE(test_scripts),
        SCENE(test_readers),
        SCENE(test_policies, .opts.idle_max = 1),
        SCENE(test_describe),
        SCENE(test_limits, .opts.conn_max = 1),
        SCENE(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
