/* engine_test.c -- the pool of connections, the writer's job, what is remembered of slow texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/os.h"
#include "sql/client.h"

static struct sql_engine_stats look(struct house *h)
{
    struct sql_engine_stats stats;
    sql_engine_look(h->engine, &stats);
    return stats;
}

static enum rc run(struct sql_conn *c, const char *sql)
{
    struct sql_stmt s = {.sql = sql, .sql_size = strlen(sql)};
    struct sql_error sql_err;
    struct sql_done done;
    struct err err;
    return sql_conn_run(c, NULL, NULL, &s, NULL, &done, &sql_err, &err);
}

static void test_pool(void **state)
{
    (void)state;
    struct house h;
    struct sql_conn *c[5], *again;
    struct err err;
    house_open(&h, (struct sql_engine_opts){.conn_max = 4, .idle_max = 2});
    assert_int_equal(look(&h).conns, 0);
    assert_int_equal(look(&h).memory, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(sql_engine_get(h.engine, &c[i], &err), RC_OK);
    assert_int_equal(sql_engine_get(h.engine, &c[4], &err), RC_BUSY);
    assert_non_null(strstr(err.text, h.bed.path));
    assert_int_equal(look(&h).conns_used, 4);
    for (int i = 0; i < 3; i++)
        sql_engine_put(h.engine, c[i]);
    assert_int_equal(look(&h).conns, 3); /* one was closed */
    assert_int_equal(look(&h).conns_used, 1);
    assert_true(look(&h).memory > 0);
    assert_int_equal(sql_engine_get(h.engine, &again, &err), RC_OK);
    assert_ptr_equal(again, c[1]); /* the last that came back and found a place */
    sql_engine_put(h.engine, again);
    sql_engine_put(h.engine, c[3]);
    sql_engine_put(h.engine, NULL);
    assert_int_equal(look(&h).conns, 2);
    sql_engine_trim(h.engine);
    assert_int_equal(look(&h).conns, 0);
    assert_int_equal(sql_engine_get(h.engine, &c[0], &err), RC_OK);
    assert_int_equal(run(c[0], "SELECT 1"), RC_OK);
    sql_engine_put(h.engine, c[0]);
    house_close(&h);
}

/* The next one finds nothing of the one before. */
static void test_clean(void **state)
{
    (void)state;
    struct house h;
    struct sql_conn *c;
    struct err err;
    house_open(&h, (struct sql_engine_opts){.conn.foreign_keys = true});
    static const char *const leaves[] = {"BEGIN IMMEDIATE",       "CREATE TEMP TABLE x(a)",
                                         "PRAGMA foreign_keys=0", "PRAGMA recursive_triggers=1",
                                         "SAVEPOINT a",           "INSERT INTO t(b) VALUES(1)"};
    for (size_t i = 0; i < sizeof leaves / sizeof leaves[0]; i++) {
        assert_int_equal(sql_engine_get(h.engine, &c, &err), RC_OK);
        assert_int_equal(run(c, "CREATE TEMP TABLE x(a)"), RC_OK); /* there is none yet */
        sql_engine_put(h.engine, c);
        assert_int_equal(sql_engine_get(h.engine, &c, &err), RC_OK);
        assert_int_equal(run(c, leaves[i]), RC_OK);
        sql_engine_put(h.engine, c);
        assert_int_equal(sql_engine_get(h.engine, &c, &err), RC_OK);
        assert_true(sql_conn_autocommit(c));
        assert_false(sql_conn_tainted(c));
        assert_true(sql_conn_foreign_keys_on(c));
        assert_int_equal(run(c, "SELECT 1 FROM temp.x"), RC_INVALID);
        sql_engine_put(h.engine, c);
        bed_ok(&h.bed, "DELETE FROM t"); /* nobody has the lock */
    }
    house_close(&h);
}

struct first {
    struct house *h;
    int index;
    enum rc rc;
};

static void *first_use(void *arg)
{
    struct first *f = arg;
    struct client c;
    char sql[64];
    client_init(&c, f->h);
    snprintf(sql, sizeof sql, "CREATE TABLE n%d(a)", f->index);
    f->rc = f->index % 2 ? client_do(&c, sql) : client_run(&c, "SELECT 1 FROM sqlite_schema");
    if (f->rc != RC_OK) print_error("%d: %s\n", f->index, c.err.text);
    client_fini(&c);
    return NULL;
}

/* Nothing is there before it is needed, and then everybody wants it at once. */
static void test_new_database(void **state)
{
    (void)state;
    enum { COUNT = 12 };
    struct first f[COUNT];
    pthread_t threads[COUNT];
    for (int round = 0; round < 8; round++) {
        struct house h = {0};
        struct err err;
        bed_new(&h.bed);
        assert_int_equal(sched_new("write", 2, NULL, NULL, &h.pool, &err), RC_OK);
        struct sql_engine_opts opts = {.conn.path = h.bed.path, .pool = h.pool};
        assert_int_equal(sql_engine_open(&opts, &h.engine, &err), RC_OK);
        os_sleep_ms(5);
        assert_int_equal(access(h.bed.path, F_OK), -1);
        for (int i = 0; i < COUNT; i++) {
            f[i] = (struct first){&h, i, RC_IO};
            assert_int_equal(thr_start(&threads[i], "first", first_use, &f[i], &err), RC_OK);
        }
        for (int i = 0; i < COUNT; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < COUNT; i++)
            assert_int_equal(f[i].rc, RC_OK);
        bed_open(&h.bed, NULL);
        assert_string_equal(bed_ok(&h.bed, "SELECT count(*) FROM sqlite_schema"), "6");
        house_close(&h);
    }
}

static void test_no_database(void **state)
{
    (void)state;
    struct sched *pool;
    struct sql_engine *e;
    struct sql_conn *c;
    struct err err;
    assert_int_equal(sched_new("write", 1, NULL, NULL, &pool, &err), RC_OK);
    struct sql_engine_opts opts = {.conn.path = "/nonexistent/x.db", .pool = pool};
    assert_int_equal(sql_engine_open(&opts, &e, &err), RC_OK);
    for (int i = 0; i < 300; i++) /* and no place is lost */
        assert_int_equal(sql_engine_get(e, &c, &err), RC_NOT_FOUND);
    sql_engine_close(e);
    sql_engine_close(NULL);
    sched_free(pool);
}

struct many {
    struct sql_write write;
    atomic_int *left;
};

static enum rc run_many(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    struct sql_stmt s = {.sql = "INSERT INTO t(b) VALUES(1)", .sql_size = 26};
    struct sql_done done;
    return sql_conn_run(c, &w->call, NULL, &s, NULL, &done, &w->sql_err, err);
}

static void done_many(struct sql_write *w)
{
    struct many *m = w->ctx;
    atomic_fetch_sub(m->left, 1);
}

/* A wake-up needs no memory, so no write waits for one that never comes. */
static void test_no_memory_to_wake(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    static struct many many[COUNT];
    struct house h;
    struct err err;
    atomic_int left = COUNT;
    house_open(&h, (struct sql_engine_opts){0});
    struct sql_writer *w = sql_engine_writer(h.engine);
    for (int i = 0; i < COUNT; i++) {
        many[i] = (struct many){.left = &left};
        many[i].write = (struct sql_write){.run = run_many, .fn = done_many, .ctx = &many[i]};
        fault_arm(FAULT_ALLOC, 1, true);
        assert_int_equal(sql_writer_submit(w, &many[i].write, &err), RC_OK);
        if (i % 50 != 49) continue;
        int64_t end_ms = os_mono_ms() + 60000;
        while (atomic_load(&left) > COUNT - 1 - i && os_mono_ms() < end_ms)
            os_sleep_ms(1);
    }
    fault_arm(0, 0, false);
    assert_int_equal(atomic_load(&left), 0);
    house_close(&h);
}

static void test_committed(void **state)
{
    (void)state;
    struct house h;
    struct client c;
    house_open(&h, (struct sql_engine_opts){0});
    client_init(&c, &h);
    assert_int_equal(client_write(&c, "INSERT INTO t VALUES(1,1)"), RC_OK);
    assert_int_equal(atomic_load(&h.committed), 1);
    assert_int_equal(client_write(&c, "INSERT INTO t VALUES(1,1)"), RC_INVALID);
    assert_int_equal(atomic_load(&h.committed), 1);
    client_ok(&c, "SELECT 1");
    client_ok(&c, "BEGIN");
    client_ok(&c, "DELETE FROM t");
    client_ok(&c, "ROLLBACK");
    assert_int_equal(atomic_load(&h.committed), 1);
    sql_engine_committed(h.engine);
    assert_int_equal(atomic_load(&h.committed), 2);
    client_fini(&c);
    house_close(&h);
}

static void test_slow_texts(void **state)
{
    (void)state;
    struct house h;
    char sql[64];
    house_open(&h, (struct sql_engine_opts){0});
    struct sql_engine *e = h.engine;
    assert_false(sql_engine_is_slow(e, "SELECT 1", 8));
    assert_false(sql_engine_is_slow(e, "", 0));
    sql_engine_note(e, "SELECT 1", 8, true);
    assert_true(sql_engine_is_slow(e, "SELECT 1", 8));
    assert_false(sql_engine_is_slow(e, "SELECT 1 ", 9));
    assert_false(sql_engine_is_slow(e, "SELECT 2", 8));
    sql_engine_note(e, "SELECT 1", 8, true);
    assert_true(sql_engine_is_slow(e, "SELECT 1", 8));
    sql_engine_note(e, "SELECT 1", 8, false);
    assert_false(sql_engine_is_slow(e, "SELECT 1", 8));
    /* What is in one place is forgotten for another; nothing else is confused. */
    for (int i = 0; i < 100; i++) {
        int size = snprintf(sql, sizeof sql, "SELECT x FROM y WHERE z = %d", i);
        sql_engine_note(e, sql, (size_t)size, true);
    }
    int known = 0;
    for (int i = 0; i < 200; i++) {
        int size = snprintf(sql, sizeof sql, "SELECT x FROM y WHERE z = %d", i);
        bool slow = sql_engine_is_slow(e, sql, (size_t)size);
        if (i >= 100) assert_false(slow);
        known += slow;
    }
    assert_in_range(known, 75, 100);
    /* A fast one does not make another forgotten. */
    for (int i = 1000; i < 4000; i++) {
        int size = snprintf(sql, sizeof sql, "SELECT %d", i);
        sql_engine_note(e, sql, (size_t)size, false);
    }
    for (int i = 0; i < 100; i++) {
        int size = snprintf(sql, sizeof sql, "SELECT x FROM y WHERE z = %d", i);
        known -= sql_engine_is_slow(e, sql, (size_t)size);
    }
    assert_int_equal(known, 0);
    static char big[1 << 20];
    memset(big, 'x', sizeof big);
    sql_engine_note(e, big, sizeof big, true);
    assert_true(sql_engine_is_slow(e, big, sizeof big));
    assert_false(sql_engine_is_slow(e, big, sizeof big - 1));
    house_close(&h);
}

static void test_open_without_memory(void **state)
{
    (void)state;
    struct sched *pool;
    struct sql_engine *e = NULL;
    struct err err;
    uint64_t nth = 1;
    assert_int_equal(sched_new("write", 1, NULL, NULL, &pool, &err), RC_OK);
    struct sql_engine_opts opts = {.conn.path = "/tmp/x.db", .pool = pool};
    for (;; nth++) {
        fault_arm(FAULT_ALLOC, nth, false);
        enum rc rc = sql_engine_open(&opts, &e, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        if (!fired) break;
        assert_int_equal(rc, RC_NO_MEM);
        assert_null(e);
    }
    assert_in_range(nth, 5, 20);
    assert_non_null(e);
    sql_engine_close(e);
    sched_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_new_database),
        cmocka_unit_test(test_no_database),
        cmocka_unit_test(test_no_memory_to_wake),
        cmocka_unit_test(test_committed),
        cmocka_unit_test(test_slow_texts),
        cmocka_unit_test(test_open_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
