/* tenants_test.c -- tenants that come, go, and are restored; see tests/node/tbed.h. */
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
#include "node/tbed.h"
#include "node/wait.h"

#define SETUP "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"

static void create(struct tbed *b, const char *name)
{
    struct err err = {0};
    if (tenants_ops.create(b->ts, name, NULL, &err) != RC_OK) fail_msg("%s", err.text);
}

static void expect(enum rc rc, enum rc want, const struct err *err, const char *text)
{
    if (rc != want || strstr(err->text, text) == NULL)
        fail_msg("%s: %s; expected %s: %s", rc_name(rc), rc == RC_OK ? "" : err->text,
                 rc_name(want), text);
}

static void test_open(void **arg)
{
    struct tbed b;
    struct tenant *t;
    struct err err = {0};
    (void)arg;
    tbed_new(&b);
    tbed_start(&b);
    assert_null(tenants_ops.peek(b.ts, "default"));
    expect(tenants_ops.open(b.ts, "none", &t, &err), RC_NOT_FOUND, &err,
           "Namespace `none` doesn't exist");
    assert_false(tbed_exists(&b, "tenants/none"));
    assert_int_equal(tenants_ops.open(b.ts, "../x", &t, &err), RC_INVALID);
    assert_int_equal(tenants_ops.open(b.ts, "", &t, &err), RC_INVALID);
    t = tbed_open(&b, "default"); /* the only one that makes itself */
    struct tenant *again = tenants_ops.peek(b.ts, "default");
    assert_ptr_equal(t, again);
    assert_string_equal(t->name, "default");
    assert_false(atomic_load(&t->conf)->block_reads);
    tenants_ops.release(b.ts, again);
    tenants_ops.release(b.ts, t);
    create(&b, "a");
    assert_int_equal(tenants_ops.create(b.ts, "a", NULL, &err), RC_CONFLICT);
    tbed_sql(&b, "a", SETUP);
    tbed_sql(&b, "a", "INSERT INTO t(v) VALUES(7)");
    assert_int_equal(tbed_int(&b, "a", "SELECT v FROM t"), 7);
    assert_true(tbed_stored(&b, "a") > 0);
    assert_int_equal(tbed_log_int(&b, "a", 0, "SELECT v FROM t"), 7);
    tbed_stop_ok(&b);
    assert_int_equal(tbed_entries(&b, "open"), 0);
    tbed_start(&b);
    assert_int_equal(tbed_int(&b, "a", "SELECT v FROM t"), 7);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

static void test_lock(void **arg)
{
    struct tbed b, c;
    struct err err = {0};
    (void)arg;
    tbed_new(&b);
    tbed_start(&b);
    c = b;
    c.ts = NULL;
    expect(tbed_try_start(&c, &err), RC_FENCED, &err, "another server uses this folder");
    tbed_stop(&c, &err);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

/* Each answer's TXID holds the row, and no other wait is late for it. */
static void test_wait(void **arg)
{
    struct tbed b;
    struct err err = {0};
    char sql[64];
    (void)arg;
    tbed_new(&b);
    b.opts.sync_interval_ms = 3600000; /* waits do not wait for it */
    tbed_start(&b);
    tbed_sql(&b, "default", SETUP);
    struct tenant *t = tbed_open(&b, "default");
    uint64_t last = tbed_stored(&b, "default");
    for (int i = 1; i <= 20; i++) {
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d,%d)", i, i);
        tbed_sql(&b, "default", sql);
        uint64_t index = tenants_ops.index(t);
        uint64_t txid = tbed_stored(&b, "default");
        assert_true(txid > last);
        assert_true(txid <= index);
        assert_int_equal(tbed_log_int(&b, "default", txid, "SELECT max(id) FROM t"), i);
        last = txid;
    }
    assert_int_equal(tbed_stored(&b, "default"), last); /* nothing new: no new TXID */
    unsigned puts = atomic_load(&spy.puts);
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    tbed_sql(&b, "default", "INSERT INTO t VALUES(100,100)");
    int64_t start = os_mono_ms();
    expect(tbed_try_stored(&b, "default", 300, NULL, &err), RC_CANCELED, &err,
           "the store does not answer: the store is away");
    assert_true(os_mono_ms() - start >= 300);
    assert_true(os_mono_ms() - start < 5000);
    atomic_store(&spy.mode, SPY_PASS);
    assert_int_equal(
        tbed_log_int(&b, "default", tbed_stored(&b, "default"), "SELECT max(id) FROM t"), 100);
    assert_int_equal(atomic_load(&spy.puts), puts + 1);
    tenants_ops.release(b.ts, t);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
