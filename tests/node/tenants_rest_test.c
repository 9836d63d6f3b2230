/*
 * tenants_rest_test.c -- tenants that rest: open, with all of them in the log, and without a task
 * until somebody writes; see tests/node/tbed.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/mem.h"
#include "node/tbed.h"
#include "node/wait.h"

#define SETUP "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,1)"

/* One life with tenant "a", which was closed with all in the log; then it is opened and read. */
static struct tenant *begin(struct tbed *b, uint64_t *ret_txid)
{
    struct err err = {0};
    tbed_new(b);
    b->opts.rest_ms = b->opts.idle_close_ms = 3600000;
    tbed_start(b);
    assert_int_equal(tenants_ops.create(b->ts, "a", NULL, &err), RC_OK);
    tbed_sql(b, "a", SETUP);
    *ret_txid = tbed_stored(b, "a");
    tbed_stop_ok(b);
    tbed_start(b);
    struct tenant *t = tbed_open(b, "a");
    assert_int_equal(tbed_int(b, "a", "SELECT sum(v) FROM t"), 1);
    return t;
}

static void end(struct tbed *b, struct tenant *t)
{
    if (t != NULL) tenants_ops.release(b->ts, t);
    tbed_stop_ok(b);
    assert_int_equal(tbed_entries(b, "open"), 0);
    tbed_free(b);
}

static bool rests(struct tbed *b)
{
    return tbed_entries(b, "open") == 0;
}

static void test_reads_let_it_rest(void **state)
{
    struct tbed b;
    uint64_t txid;
    struct tenant_info info;
    struct tenants_stats st;
    struct err err = {0};
    (void)state;
    unsigned calls = 0;
    struct tenant *t = begin(&b, &txid);
    calls = atomic_load(&spy.calls);
    for (int i = 0; i < 50; i++)
        assert_int_equal(tbed_int(&b, "a", "SELECT v FROM t"), 1);
    assert_true(rests(&b));
    assert_int_equal(tenants_ops.info(b.ts, "a", &info, &err), RC_OK);
    assert_true(info.open);
    assert_int_equal(info.txid, txid);
    assert_int_equal(info.txid_stored, txid);
    assert_int_equal(tenants_ops.index(t), txid + 1);
    assert_true(tenants_ops.commits(b.ts, "a") > 0);
    tenants_look(b.ts, &st);
    assert_int_equal(st.open, 1);
    assert_int_equal(st.opened, 1);
    assert_int_equal(st.behind, 0);
    assert_int_equal(atomic_load(&spy.calls), calls); /* the store was not asked */
    tenants_ops.release(b.ts, t);
    tbed_stop_ok(&b);
    assert_int_equal(atomic_load(&spy.calls), calls);
    /* Closed for want of use, again and again: it can always rest, and is counted once each. */
    b.opts.idle_close_ms = 40;
    tbed_start(&b);
    for (unsigned i = 1; i <= 3; i++) {
        t = tbed_open(&b, "a");
        tenants_ops.release(b.ts, t);
        assert_true(rests(&b));
        WAIT_FOR((tenants_look(b.ts, &st), st.closed == i));
        assert_int_equal(st.opened, i);
        assert_int_equal(st.open + st.draining, 0);
    }
    end(&b, NULL);
}

static struct tenant_wait stored;
static atomic_int told;

static void on_stored(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    (void)w, (void)err;
    atomic_store(&told, rc == RC_OK ? 1 : 2);
}

/* Whatever writes first: its commit is in the log, as the next transaction and with nothing else
 * but what it changed. */
static void test_first_write(void **state)
{
    static const char *const writes[] = {
        "INSERT INTO t VALUES(2,10)",
        "BEGIN; UPDATE t SET v=v+10; COMMIT",
        "CREATE TABLE u(x); INSERT INTO t VALUES(3,10)",
        "SELECT v FROM t; INSERT INTO t VALUES(4,10)",
        "WITH x(v) AS (SELECT 10) INSERT INTO t SELECT 5, v FROM x RETURNING id",
        "INSERT INTO t VALUES(6,10); VACUUM",
        "PRAGMA user_version=7; INSERT INTO t VALUES(7,10)",
    };
    (void)state;
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        struct tbed b;
        uint64_t txid;
        struct err err = {0};
        struct tenant_batch batch;
        struct tenant *t = begin(&b, &txid);
        assert_true(rests(&b));
        tbed_sql(&b, "a", writes[i]);
        assert_false(rests(&b));
        uint64_t now = tbed_stored(&b, "a");
        assert_true(now > txid);
        assert_true(now <= txid + 2);
        assert_int_equal(tbed_log_int(&b, "a", now, "SELECT sum(v) FROM t"), 11);
        assert_int_equal(tbed_log_int(&b, "a", txid, "SELECT sum(v) FROM t"), 1);
        assert_int_equal(tenants_ops.batch(b.ts, t, txid + 1, NULL, &batch, NULL, NULL, &err),
                         RC_OK);
        if (i < 2) assert_int_equal(batch.pages, 1); /* not compared, and not whole */
        end(&b, t);
    }
}

static enum rc run_write(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    static const char sql[] = "INSERT INTO t VALUES(2,10)";
    const struct sql_stmt stmt = {.sql = sql, .sql_size = sizeof sql - 1};
    const struct sql_limits limits = {0};
    struct sql_done done;
    return sql_conn_run(c, NULL, &limits, &stmt, NULL, &done, &w->sql_err, err);
}

static atomic_int written;

static void on_written(struct sql_write *w)
{
    atomic_store(&written, w->rc == RC_OK ? 1 : 2);
}

/* As clients do it: in a group. A durable answer waits for the log, from whatever thread. */
static void test_group(void **state)
{
    struct tbed b;
    uint64_t txid;
    struct err err = {0};
    (void)state;
    struct tenant *t = begin(&b, &txid);
    struct sql_write w = {.run = run_write, .fn = on_written};
    atomic_store(&written, 0);
    assert_int_equal(sql_writer_submit(sql_engine_writer(t->engine), &w, &err), RC_OK);
    WAIT_FOR(atomic_load(&written) != 0);
    assert_int_equal(atomic_load(&written), 1);
    atomic_store(&told, 0);
    stored = (struct tenant_wait){.fn = on_stored, .deadline_ms = os_mono_ms() + 20000};
    tenants_ops.wait(t, &stored);
    WAIT_FOR(atomic_load(&told) != 0);
    assert_int_equal(atomic_load(&told), 1);
    assert_int_equal(stored.txid, txid + 1);
    assert_int_equal(tbed_log_int(&b, "a", stored.txid, "SELECT sum(v) FROM t"), 11);
    end(&b, t);
}

/* Nothing is committed that no start would look for. */
static void test_no_mark_no_write(void **state)
{
    struct tbed b;
    uint64_t txid;
    struct err err = {0};
    char from[128], to[128];
    (void)state;
    struct tenant *t = begin(&b, &txid);
    snprintf(from, sizeof from, "%s/open", b.data);
    snprintf(to, sizeof to, "%s/closed", b.data);
    assert_int_equal(rename(from, to), 0);
    for (int i = 0; i < 2; i++) {
        enum rc rc = tbed_try_sql(&b, "a", "INSERT INTO t VALUES(2,10)", &err);
        assert_int_equal(rc, RC_IO);
        assert_non_null(strstr(err.text, "open/a"));
        assert_int_equal(tbed_int(&b, "a", "SELECT sum(v) FROM t"), 1);
    }
    assert_int_equal(rename(to, from), 0);
    tbed_sql(&b, "a", "INSERT INTO t VALUES(2,10)");
    assert_int_equal(tbed_log_int(&b, "a", tbed_stored(&b, "a"), "SELECT sum(v) FROM t"), 11);
    end(&b, t);
}

/* The store is needed for what is written only. */
static void test_store_away(void **state)
{
    struct tbed b;
    uint64_t txid;
    struct err err = {0};
    (void)state;
    struct tenant *t = begin(&b, &txid);
    tenants_ops.release(b.ts, t);
    tbed_stop_ok(&b);
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    tbed_start(&b);
    assert_int_equal(tbed_int(&b, "a", "SELECT sum(v) FROM t"), 1);
    tbed_stop_ok(&b);
    tbed_start(&b);
    tbed_sql(&b, "a", "INSERT INTO t VALUES(2,10)");
    assert_int_equal(tbed_try_stored(&b, "a", 100, NULL, &err), RC_CANCELED);
    atomic_store(&spy.mode, SPY_PASS);
    assert_int_equal(tbed_log_int(&b, "a", tbed_stored(&b, "a"), "SELECT sum(v) FROM t"), 11);
    end(&b, NULL);
}

/* ---- somebody else writes ---- */

static sqlite3 *open_file(struct tbed *b, bool checkpoints)
{
    char path[128];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/tenants/a/data", b->data);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (!checkpoints) sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return db;
}

static void run(sqlite3 *db, const char *sql)
{
    char *msg = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &msg) != SQLITE_OK) fail_msg("%s: %s", sql, msg);
}

static void append(struct tbed *b)
{
    sqlite3 *db = open_file(b, false);
    run(db, "INSERT INTO t VALUES(2,10)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void write_and_close(struct tbed *b)
{
    sqlite3 *db = open_file(b, true);
    run(db, "INSERT INTO t VALUES(2,10)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_false(tbed_exists(b, "tenants/a/data-wal"));
}

static void restart_wal(struct tbed *b)
{
    sqlite3 *db = open_file(b, false);
    run(db, "INSERT INTO t VALUES(2,4); PRAGMA wal_checkpoint(RESTART);"
            "UPDATE t SET v=v+3; PRAGMA wal_checkpoint(FULL)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void leave_wal_mode(struct tbed *b)
{
    sqlite3 *db = open_file(b, true);
    run(db, "PRAGMA journal_mode=DELETE; INSERT INTO t VALUES(2,10)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void replace(struct tbed *b)
{
    char path[128];
    for (int i = 0; i < 3; i++) {
        static const char *const ends[] = {"", "-wal", "-shm"};
        snprintf(path, sizeof path, "%s/tenants/a/data%s", b->data, ends[i]);
        unlink(path);
    }
    sqlite3 *db = open_file(b, true);
    run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(8,11)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* While it is closed: whoever opens it only to read brings it into the log. */
static void test_written_while_closed(void **state)
{
    static void (*const ways[])(struct tbed * b) = {append, write_and_close, restart_wal,
                                                    leave_wal_mode, replace};
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct tbed b;
        uint64_t txid;
        struct tenant *t = begin(&b, &txid);
        tenants_ops.release(b.ts, t);
        tbed_stop_ok(&b);
        ways[i](&b);
        tbed_start(&b);
        assert_int_equal(tbed_int(&b, "a", "SELECT sum(v) FROM t"), 11);
        assert_false(rests(&b));
        tbed_stop_ok(&b);
        assert_int_equal(tbed_log_int(&b, "a", 0, "SELECT sum(v) FROM t"), 11);
        assert_int_equal(tbed_log_int(&b, "a", txid, "SELECT sum(v) FROM t"), 1);
        tbed_free(&b);
    }
}

/* While it rests: it is noticed when it is closed, and after rest_ms while it stays open. */
static void test_written_while_it_rests(void **state)
{
    struct tbed b;
    uint64_t txid;
    (void)state;
    struct tenant *t = begin(&b, &txid);
    append(&b);
    assert_true(rests(&b));
    tenants_ops.release(b.ts, t);
    tbed_stop_ok(&b);
    assert_int_equal(tbed_log_int(&b, "a", 0, "SELECT sum(v) FROM t"), 11);
    b.opts.rest_ms = 60;
    tbed_start(&b);
    t = tbed_open(&b, "a");
    sqlite3 *db = open_file(&b, false);
    run(db, "UPDATE t SET v=v+1");
    WAIT_FOR(tbed_log_int(&b, "a", 0, "SELECT sum(v) FROM t") == 13);
    assert_false(rests(&b));
    run(db, "UPDATE t SET v=v+1"); /* from now on the bell rings */
    WAIT_FOR(tbed_log_int(&b, "a", 0, "SELECT sum(v) FROM t") == 15);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    end(&b, t);
}

/* ---- what administrators and replicas ask ---- */

static enum rc count_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    (void)data, (void)err;
    *(size_t *)ctx += size;
    return RC_OK;
}

static enum rc do_wait(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    (void)t;
    uint64_t now = 0;
    TRY(tbed_try_stored(b, "a", 20000, &now, err));
    assert_int_equal(now, txid);
    return RC_OK;
}

static enum rc do_checkpoint(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    struct tenant_info info;
    (void)t, (void)txid;
    TRY(tenants_ops.checkpoint(b->ts, "a", err));
    TRY(tenants_ops.info(b->ts, "a", &info, err));
    assert_true(info.bytes >= 8192);
    return RC_OK;
}

static enum rc do_image(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    size_t size = 0;
    (void)t, (void)txid;
    TRY(tenants_ops.image(b->ts, "a", count_bytes, &size, err));
    assert_int_equal(size, 8192);
    return RC_OK;
}

static enum rc do_image_file(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    char path[OS_PATH_MAX];
    TRY(tenants_ops.image_file(b->ts, t, txid, NULL, path, err));
    return os_unlink(path, err);
}

static enum rc do_batch(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    struct tenant_batch batch;
    TRY(tenants_ops.batch(b->ts, t, txid, NULL, &batch, NULL, NULL, err));
    assert_int_equal(batch.page_count, 2);
    return RC_OK;
}

static enum rc do_keep(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    (void)txid;
    TRY(buf_printf(&text, err, "kept"));
    TRY(tenants_ops.keep(b->ts, t, &text, err));
    return tenants_ops.kept(b->ts, t, &out, err);
}

static enum rc do_fork(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    (void)t;
    TRY(tenants_ops.fork(b->ts, "a", "now", NULL, err));
    TRY(tenants_ops.fork(b->ts, "a", "then", &(struct tenant_at){.txid = txid}, err));
    assert_int_equal(tbed_int(b, "now", "SELECT sum(v) FROM t"), 1);
    assert_int_equal(tbed_int(b, "then", "SELECT sum(v) FROM t"), 1);
    return RC_OK;
}

static enum rc do_configure(struct tbed *b, struct tenant *t, uint64_t txid, struct err *err)
{
    const struct tenant_conf conf = {.size_max = 1 << 20, .block_reason = ""};
    (void)t, (void)txid;
    return tenants_ops.configure(b->ts, "a", &conf, err);
}

static void test_asked_while_it_rests(void **state)
{
    static enum rc (*const asks[])(struct tbed * b, struct tenant * t, uint64_t txid,
                                   struct err * err) = {
        do_wait, do_checkpoint, do_image, do_image_file, do_batch, do_keep, do_fork, do_configure};
    (void)state;
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        struct tbed b;
        uint64_t txid;
        struct err err = {0};
        struct tenant *t = begin(&b, &txid);
        if (asks[i](&b, t, txid, &err) != RC_OK) fail_msg("ask %zu: %s", i, err.text);
        tbed_sql(&b, "a", "INSERT INTO t VALUES(2,10)");
        uint64_t now = tbed_stored(&b, "a");
        assert_int_equal(now, txid + 1);
        assert_int_equal(tbed_log_int(&b, "a", now, "SELECT sum(v) FROM t"), 11);
        end(&b, t);
    }
}

/* For these nobody else may use it. */
static void test_claimed_while_it_rests(void **state)
{
    struct tbed b;
    uint64_t txid, now;
    struct err err = {0};
    struct tenant *t;
    (void)state;
    struct tenant *first = begin(&b, &txid);
    tenants_ops.release(b.ts, first);
    assert_int_equal(tenants_ops.rename(b.ts, "a", "b", &err), RC_OK);
    tbed_sql(&b, "b", "INSERT INTO t VALUES(2,10)");
    assert_int_equal(now = tbed_stored(&b, "b"), txid + 1);
    assert_int_equal(tbed_log_int(&b, "b", now, "SELECT sum(v) FROM t"), 11);
    assert_int_equal(tenants_ops.rename(b.ts, "b", "a", &err), RC_OK);
    tbed_stop_ok(&b);
    tbed_start(&b);
    assert_int_equal(tbed_int(&b, "a", "SELECT sum(v) FROM t"), 11);
    assert_true(rests(&b));
    assert_int_equal(tenants_ops.rewind(b.ts, "a", &(struct tenant_at){.txid = txid}, &err), RC_OK);
    assert_int_equal(tbed_int(&b, "a", "SELECT sum(v) FROM t"), 1);
    assert_int_equal(tbed_log_int(&b, "a", tbed_stored(&b, "a"), "SELECT sum(v) FROM t"), 1);
    tbed_stop_ok(&b);
    tbed_start(&b);
    assert_int_equal(tbed_int(&b, "a", "SELECT sum(v) FROM t"), 1);
    assert_int_equal(tenants_ops.remove(b.ts, "a", true, &err), RC_OK);
    assert_int_equal(tenants_ops.open(b.ts, "a", &t, &err), RC_NOT_FOUND);
    assert_int_equal(tbed_log_int(&b, "a", 0, "SELECT sum(v) FROM t"), 1);
    /* Without its log: nothing may come back when it is closed. */
    assert_int_equal(tenants_ops.fork(b.ts, "a", "c", NULL, &err), RC_OK);
    tbed_sql(&b, "c", "INSERT INTO t VALUES(2,10)"); /* without a WAL there is no proof */
    tbed_stored(&b, "c");
    tbed_stop_ok(&b);
    tbed_start(&b);
    assert_int_equal(tbed_int(&b, "c", "SELECT sum(v) FROM t"), 11);
    assert_true(rests(&b));
    assert_int_equal(tenants_ops.remove(b.ts, "c", false, &err), RC_OK);
    assert_false(tbed_exists(&b, "tenants/c"));
    assert_false(tbed_exists(&b, "backup/c"));
    end(&b, NULL);
}

/* ---- many threads ---- */

struct crowd {
    struct tbed *b;
    atomic_uint rows;
    unsigned number;
};

static void *write_some(void *arg)
{
    struct crowd *c = arg;
    char sql[80];
    for (unsigned i = 0; i < 20; i++) {
        (void)tbed_int(c->b, "a", "SELECT count(*) FROM t");
        if (i % 4 != 3) continue;
        unsigned id = 10 + atomic_fetch_add(&c->rows, 1);
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%u,1)", id);
        struct err err;
        enum rc rc;
        while ((rc = tbed_try_sql(c->b, "a", sql, &err)) == RC_BUSY)
            os_sleep_ms(1);
        assert_int_equal(rc, RC_OK);
    }
    return NULL;
}

/* Threads write first, all at once, while it is closed under them again and again. */
static void test_crowd(void **state)
{
    struct tbed b;
    uint64_t txid;
    struct err err = {0};
    pthread_t threads[4];
    struct crowd c = {.b = &b};
    (void)state;
    struct tenant *first = begin(&b, &txid);
    tenants_ops.release(b.ts, first);
    tbed_stop_ok(&b);
    b.opts.idle_close_ms = 20;
    tbed_start(&b);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 4; i++)
            assert_int_equal(thr_start(&threads[i], "crowd", write_some, &c, &err), RC_OK);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        int64_t rows = 1 + atomic_load(&c.rows);
        WAIT_FOR(rests(&b)); /* closed: then all is there */
        assert_int_equal(tbed_log_int(&b, "a", 0, "SELECT count(*) FROM t"), rows);
    }
    end(&b, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_let_it_rest),
        cmocka_unit_test(test_first_write),
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_no_mark_no_write),
        cmocka_unit_test(test_store_away),
        cmocka_unit_test(test_written_while_closed),
        cmocka_unit_test(test_written_while_it_rests),
        cmocka_unit_test(test_asked_while_it_rests),
        cmocka_unit_test(test_claimed_while_it_rests),
        cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
