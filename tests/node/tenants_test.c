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
#include "harness/scene.h"
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

/* How a test is run: with tenants that are started, or not yet. */
struct scene {
    void (*fn)(struct tbed *b);
    bool unstarted;
};

static void run_scene(void **state)
{
    struct scene *s = *state;
    struct tbed b;
    tbed_new(&b);
    if (!s->unstarted) tbed_start(&b);
    s->fn(&b);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

static void test_open(struct tbed *b)
{
    struct tenant *t;
    struct err err = {0};
    assert_null(tenants_ops.peek(b->ts, "default"));
    expect(tenants_ops.open(b->ts, "none", &t, &err), RC_NOT_FOUND, &err,
           "Namespace `none` doesn't exist");
    assert_false(tbed_exists(b, "tenants/none"));
    assert_int_equal(tenants_ops.open(b->ts, "../x", &t, &err), RC_INVALID);
    assert_int_equal(tenants_ops.open(b->ts, "", &t, &err), RC_INVALID);
    t = tbed_open(b, "default"); /* the only one that makes itself */
    struct tenant *again = tenants_ops.peek(b->ts, "default");
    assert_ptr_equal(t, again);
    assert_string_equal(t->name, "default");
    assert_false(atomic_load(&t->conf)->block_reads);
    tenants_ops.release(b->ts, again);
    tenants_ops.release(b->ts, t);
    create(b, "a");
    assert_int_equal(tenants_ops.create(b->ts, "a", NULL, &err), RC_CONFLICT);
    tbed_sql(b, "a", SETUP);
    tbed_sql(b, "a", "INSERT INTO t(v) VALUES(7)");
    assert_int_equal(tbed_int(b, "a", "SELECT v FROM t"), 7);
    assert_true(tbed_stored(b, "a") > 0);
    assert_int_equal(tbed_log_int(b, "a", 0, "SELECT v FROM t"), 7);
    tbed_stop_ok(b);
    assert_int_equal(tbed_entries(b, "open"), 0);
    tbed_start(b);
    assert_int_equal(tbed_int(b, "a", "SELECT v FROM t"), 7);
}

static void test_lock(struct tbed *b)
{
    struct tbed c = *b;
    struct err err = {0};
    c.ts = NULL;
    expect(tbed_try_start(&c, &err), RC_FENCED, &err, "another server uses this folder");
    tbed_stop(&c, &err);
}

/* Each answer's TXID holds the row, and no other wait is late for it. */
static void test_wait(struct tbed *b)
{
    struct err err = {0};
    char sql[64];
    b->opts.sync_interval_ms = 3600000; /* waits do not wait for it */
    tbed_start(b);
    tbed_sql(b, "default", SETUP);
    struct tenant *t = tbed_open(b, "default");
    uint64_t last = tbed_stored(b, "default");
    for (int i = 1; i <= 20; i++) {
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d,%d)", i, i);
        tbed_sql(b, "default", sql);
        uint64_t index = tenants_ops.index(t);
        uint64_t txid = tbed_stored(b, "default");
        assert_true(txid > last);
        assert_true(txid <= index);
        assert_int_equal(tbed_log_int(b, "default", txid, "SELECT max(id) FROM t"), i);
        last = txid;
    }
    assert_int_equal(tbed_stored(b, "default"), last); /* nothing new: no new TXID */
    unsigned puts = atomic_load(&spy.puts);
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    tbed_sql(b, "default", "INSERT INTO t VALUES(100,100)");
    int64_t start = os_mono_ms();
    expect(tbed_try_stored(b, "default", 300, NULL, &err), RC_CANCELED, &err,
           "the store does not answer: the store is away");
    assert_true(os_mono_ms() - start >= 300);
    assert_true(os_mono_ms() - start < 60000);
    atomic_store(&spy.mode, SPY_PASS);
    assert_int_equal(tbed_log_int(b, "default", tbed_stored(b, "default"), "SELECT max(id) FROM t"),
                     100);
    assert_int_equal(atomic_load(&spy.puts), puts + 1);
    tenants_ops.release(b->ts, t);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void test_configure(struct tbed *b)
{
    struct err err = {0};
    struct tenant_info info;
    const struct tenant_conf conf = {.block_writes = true,
                                     .sync = true,
                                     .block_reason = "because \"so\"",
                                     .jwt_key = "key",
                                     .class = "gold",
                                     .txn_ms = 1234,
                                     .size_max = 1u << 20,
                                     .row_max = 77};
    assert_int_equal(tenants_ops.create(b->ts, "a", &conf, &err), RC_OK);
    for (int round = 0; round < 2; round++) { /* from memory, from the file */
        struct tenant *t = tbed_open(b, "a");
        const struct tenant_conf *c = atomic_load(&t->conf);
        assert_true(c->block_writes && c->sync && !c->block_reads && !c->allow_attach);
        assert_string_equal(c->block_reason, conf.block_reason);
        assert_string_equal(c->jwt_key, "key");
        assert_null(c->heartbeat_url);
        assert_string_equal(c->class, "gold");
        assert_int_equal(c->txn_ms, 1234);
        assert_int_equal(c->size_max, 1u << 20);
        assert_int_equal(c->row_max, 77);
        tenants_ops.release(b->ts, t);
        tbed_stop_ok(b);
        tbed_start(b);
    }
    struct tenant *t = tbed_open(b, "a");
    const struct tenant_conf *old = atomic_load(&t->conf);
    assert_int_equal(tenants_ops.configure(b->ts, "a", NULL, &err), RC_OK);
    assert_string_equal(old->jwt_key, "key"); /* somebody may look at it still */
    assert_null(atomic_load(&t->conf)->jwt_key);
    tenants_ops.release(b->ts, t);
    assert_int_equal(tenants_ops.info(b->ts, "a", &info, &err), RC_OK);
    assert_true(info.created_ms > os_now_ms() - 60000 && info.created_ms <= os_now_ms());
    assert_int_equal(tenants_ops.configure(b->ts, "none", NULL, &err), RC_NOT_FOUND);
    /* The engine is opened anew with the new limits, as soon as nobody uses it. */
    WAIT_FOR(tenants_ops.info(b->ts, "a", &info, &err) == RC_OK && !info.open);
    tbed_stop_ok(b);
    char path[128];
    snprintf(path, sizeof path, "%s/tenants/a/conf.json", b->data);
    const char *const damaged[] = {"{\"block_reads\": 1}",
                                   "{",
                                   "[]",
                                   "{\"row_max\": -1}",
                                   "{\"block_reason\": null}",
                                   "{\"former_logs\": [{\"name\": \"../b\", \"until_ms\": 1}]}",
                                   "{\"former_logs\": [{\"name\": \"b\"}]}"};
    tbed_start(b);
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        write_file(path, damaged[i]);
        expect(tenants_ops.open(b->ts, "a", &t, &err), RC_CORRUPT, &err, "conf.json");
    }
    write_file(path, "{\"of_later\": {}, \"sync\": true}");
    t = tbed_open(b, "a");
    assert_true(atomic_load(&t->conf)->sync);
    tenants_ops.release(b->ts, t);
}

struct names {
    char text[256];
    unsigned count, max;
};

static enum rc take_name(void *ctx, const struct tenant_info *info, struct err *err)
{
    struct names *n = ctx;
    if (n->count++ == n->max) return err_set(err, RC_TOO_BIG, "enough");
    size_t used = strlen(n->text);
    snprintf(n->text + used, sizeof n->text - used, "%s ", info->name);
    return RC_OK;
}

static void test_list(struct tbed *b)
{
    struct err err = {0};
    struct names n = {.max = 10};
    struct tenant_info info;
    char path[128];
    create(b, "c");
    create(b, "a");
    create(b, "b");
    snprintf(path, sizeof path, "%s/tenants/empty", b->data);
    assert_int_equal(os_mkdirs(path, 0700, &err), RC_OK);
    assert_int_equal(tenants_ops.list(b->ts, "", take_name, &n, &err), RC_OK);
    assert_string_equal(n.text, "a b c ");
    n = (struct names){.max = 1};
    assert_int_equal(tenants_ops.list(b->ts, "aa", take_name, &n, &err), RC_TOO_BIG);
    assert_string_equal(n.text, "b ");
    tbed_sql(b, "a", SETUP);
    uint64_t txid = tbed_stored(b, "a");
    assert_int_equal(tenants_ops.info(b->ts, "a", &info, &err), RC_OK);
    assert_true(info.open && info.bytes + info.wal_bytes > 0);
    assert_int_equal(info.txid_stored, txid);
    assert_int_equal(info.txid, txid);
    assert_int_equal(tenants_ops.info(b->ts, "b", &info, &err), RC_OK);
    assert_false(info.open);
    assert_int_equal(tenants_ops.info(b->ts, "empty", &info, &err), RC_NOT_FOUND);
    assert_int_equal(tenants_ops.checkpoint(b->ts, "a", &err), RC_OK);
    assert_int_equal(tenants_ops.info(b->ts, "a", &info, &err), RC_OK);
    assert_true(info.bytes >= 8192); /* the table is in the file */
}

static void test_remove(struct tbed *b)
{
    struct err err = {0};
    struct tenant *t;
    create(b, "a");
    tbed_sql(b, "a", SETUP "; INSERT INTO t(v) VALUES(1)");
    t = tbed_open(b, "a");
    assert_int_equal(tenants_ops.create(b->ts, "a", NULL, &err), RC_CONFLICT);
    tenants_ops.release(b->ts, t);
    assert_int_equal(tenants_ops.remove(b->ts, "a", true, &err), RC_OK);
    assert_int_equal(tenants_ops.open(b->ts, "a", &t, &err), RC_NOT_FOUND);
    assert_int_equal(tenants_ops.remove(b->ts, "a", true, &err), RC_NOT_FOUND);
    assert_int_equal(tbed_entries(b, "tmp"), 0);
    assert_int_equal(tbed_log_int(b, "a", 0, "SELECT v FROM t"), 1);
    /* Again under that name: another database, whose log goes on behind the old one. */
    create(b, "a");
    tbed_sql(b, "a", "CREATE TABLE u(x); INSERT INTO u VALUES(5)");
    uint64_t txid = tbed_stored(b, "a");
    assert_int_equal(tbed_log_int(b, "a", txid, "SELECT x FROM u"), 5);
    uint64_t old = txid - 1;
    while (old > 0 && tbed_log_int(b, "a", old, "SELECT v FROM t") != 1)
        old--;
    assert_true(old > 0);
    /* From the log of one that is gone. */
    assert_int_equal(tenants_ops.remove(b->ts, "a", true, &err), RC_OK);
    assert_int_equal(tenants_ops.fork(b->ts, "a", "back", NULL, &err), RC_OK);
    assert_int_equal(tbed_int(b, "back", "SELECT x FROM u"), 5);
    create(b, "a");
    assert_int_equal(tenants_ops.remove(b->ts, "a", false, &err), RC_OK);
    assert_false(tbed_exists(b, "backup/a"));
    assert_int_equal(tenants_ops.fork(b->ts, "a", "again", NULL, &err), RC_NOT_FOUND);
    assert_int_equal(tbed_entries(b, "tmp"), 0);
}

/* Who uses it keeps it; nobody gets it meanwhile. */
static void *remove_it(void *arg)
{
    struct tbed *b = arg;
    struct err err = {0};
    assert_int_equal(tenants_ops.remove(b->ts, "a", false, &err), RC_OK);
    return NULL;
}

static void test_remove_in_use(struct tbed *b)
{
    struct err err = {0};
    pthread_t thread;
    struct tenant *t, *other;
    create(b, "a");
    t = tbed_open(b, "a");
    assert_int_equal(thr_start(&thread, "remove", remove_it, b, &err), RC_OK);
    WAIT_FOR((other = tenants_ops.peek(b->ts, "a")) == NULL ||
             (tenants_ops.release(b->ts, other), false));
    expect(tenants_ops.open(b->ts, "a", &other, &err), RC_BUSY, &err, "replaced or deleted");
    tenants_ops.release(b->ts, t);
    pthread_join(thread, NULL);
    assert_int_equal(tenants_ops.open(b->ts, "a", &t, &err), RC_NOT_FOUND);
}

static void test_rename(struct tbed *b)
{
    struct err err = {0};
    struct tenant *t;
    struct tenant_info info;
    create(b, "a");
    create(b, "b");
    tbed_sql(b, "a", SETUP "; INSERT INTO t(v) VALUES(1)");
    uint64_t first = tbed_stored(b, "a");
    expect(tenants_ops.rename(b->ts, "a", "b", &err), RC_CONFLICT, &err, "`b` already exists");
    assert_int_equal(tenants_ops.rename(b->ts, "none", "x", &err), RC_NOT_FOUND);
    assert_int_equal(tbed_int(b, "a", "SELECT v FROM t"), 1);
    assert_int_equal(tenants_ops.rename(b->ts, "a", "c", &err), RC_OK);
    assert_int_equal(tenants_ops.open(b->ts, "a", &t, &err), RC_NOT_FOUND);
    tbed_sql(b, "c", "UPDATE t SET v=2");
    uint64_t second = tbed_stored(b, "c");
    assert_int_equal(second, first + 1); /* the log moved along */
    assert_int_equal(tbed_log_int(b, "c", first, "SELECT v FROM t"), 1);
    assert_int_equal(tbed_log_int(b, "c", second, "SELECT v FROM t"), 2);
    assert_int_equal(tenants_ops.info(b->ts, "c", &info, &err), RC_OK);
    assert_int_equal(info.former_count, 0);
    tbed_stop_ok(b);
    assert_int_equal(tbed_entries(b, "open"), 0);
}

static int64_t pause_now(void)
{
    os_sleep_ms(3);
    int64_t now = os_now_ms();
    os_sleep_ms(3);
    return now;
}

/* In another store the log stays, and a new one begins. */
static void test_rename_store(struct tbed *b)
{
    struct err err = {0};
    char url[128];
    snprintf(url, sizeof url, "file://%s/store/", b->dir);
    b->opts.store_url = url;
    tbed_start(b);
    create(b, "a");
    tbed_sql(b, "a", SETUP "; INSERT INTO t(v) VALUES(1)");
    tbed_stored(b, "a");
    assert_int_equal(tenants_ops.rename(b->ts, "a", "c", &err), RC_OK);
    tbed_sql(b, "c", "UPDATE t SET v=2");
    tbed_stored(b, "c");
    assert_false(tbed_exists(b, "backup"));
    assert_true(tbed_exists(b, "../store/a/ltx/0"));
    assert_true(tbed_exists(b, "../store/c/ltx/0"));
    assert_int_equal(tenants_ops.fork(b->ts, "a", "old", NULL, &err), RC_OK);
    assert_int_equal(tbed_int(b, "old", "SELECT v FROM t"), 1);
    assert_int_equal(
        tenants_ops.fork(b->ts, "c", "new", &(struct tenant_at){.time_ms = INT64_MAX}, &err),
        RC_OK);
    assert_int_equal(tbed_int(b, "new", "SELECT v FROM t"), 2);
    assert_int_equal(tenants_ops.remove(b->ts, "c", false, &err), RC_OK);
    assert_false(tbed_exists(b, "../store/c/ltx/0/0000000000000001-0000000000000001.ltx"));
}

/* What was before is found by its time, under the new name, as often as it was renamed, and
 * whatever has the old names since. */
static void test_rename_back(struct tbed *b)
{
    enum { NAMES = 4 };
    static const char *const names[NAMES] = {"a", "c", "d", "a"};
    struct err err = {0};
    struct tenant_info info;
    char url[128], sql[64], name[16];
    int64_t times[NAMES], between[NAMES];
    snprintf(url, sizeof url, "file://%s/store/", b->dir);
    b->opts.store_url = url;
    tbed_start(b);
    create(b, "a");
    tbed_sql(b, "a", SETUP "; INSERT INTO t(v) VALUES(-1)");
    for (int i = 0; i < NAMES; i++) {
        snprintf(sql, sizeof sql, "UPDATE t SET v=%d", i);
        tbed_sql(b, names[i], sql);
        tbed_stored(b, names[i]);
        times[i] = pause_now();
        if (i + 1 == NAMES) break;
        assert_int_equal(tenants_ops.rename(b->ts, names[i], names[i + 1], &err), RC_OK);
        between[i] = os_now_ms(); /* the new log may have nothing yet */
        pause_now();
    }
    create(b, "c"); /* another one, whose log goes on behind the old one */
    tbed_sql(b, "c", SETUP "; INSERT INTO t(v) VALUES(100)");
    tbed_stored(b, "c");
    tbed_stop_ok(b);
    tbed_start(b);
    assert_int_equal(tenants_ops.configure(b->ts, "a", NULL, &err), RC_OK);
    assert_int_equal(tenants_ops.info(b->ts, "a", &info, &err), RC_OK);
    assert_int_equal(info.former_count, NAMES - 1);
    for (int i = 0; i < NAMES - 1; i++)
        assert_string_equal(info.former[i].name, names[i]);
    for (int i = 0; i < 2 * NAMES - 1; i++) {
        const struct tenant_at at = {.time_ms = i % 2 == 0 ? times[i / 2] : between[i / 2]};
        snprintf(name, sizeof name, "f%d", i);
        if (tenants_ops.fork(b->ts, "a", name, &at, &err) != RC_OK) fail_msg("%d: %s", i, err.text);
        assert_int_equal(tbed_int(b, name, "SELECT v FROM t"), i / 2);
    }
    assert_int_equal(tenants_ops.rewind(b->ts, "a", &(struct tenant_at){.time_ms = times[1]}, &err),
                     RC_OK);
    assert_int_equal(tbed_int(b, "a", "SELECT v FROM t"), 1);
    assert_int_equal(tenants_ops.rewind(b->ts, "a", &(struct tenant_at){.time_ms = 1}, &err),
                     RC_NOT_FOUND);
    for (int i = 0; i < TENANT_FORMER_MAX + 1; i++) /* the oldest are forgotten */
        assert_int_equal(
            tenants_ops.rename(b->ts, i % 2 == 0 ? "a" : "z", i % 2 == 0 ? "z" : "a", &err), RC_OK);
    assert_int_equal(tenants_ops.info(b->ts, "z", &info, &err), RC_OK);
    assert_int_equal(info.former_count, TENANT_FORMER_MAX);
    assert_string_equal(info.former[TENANT_FORMER_MAX - 1].name, "a");
}

static void test_fork(struct tbed *b)
{
    struct err err = {0};
    char sql[80];
    uint64_t txids[6];
    int64_t times[6];
    const struct tenant_conf conf = {.jwt_key = "k", .block_reason = ""};
    assert_int_equal(tenants_ops.create(b->ts, "a", &conf, &err), RC_OK);
    tbed_sql(b, "a", SETUP);
    for (int i = 1; i < 6; i++) {
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d,%d)", i, i);
        tbed_sql(b, "a", sql);
        txids[i] = tbed_stored(b, "a");
        os_sleep_ms(3);
        times[i] = os_now_ms();
        os_sleep_ms(3);
    }
    /* Now: with what no log has yet, and a reader that keeps frames in the WAL. */
    struct tenant *t = tbed_open(b, "a");
    tbed_sql(b, "a", "INSERT INTO t VALUES(100,100)");
    assert_int_equal(tenants_ops.fork(b->ts, "a", "now", NULL, &err), RC_OK);
    assert_int_equal(tbed_int(b, "now", "SELECT max(id) FROM t"), 100);
    assert_int_equal(tbed_int(b, "now",
                              "SELECT count(*) FROM pragma_integrity_check WHERE "
                              "integrity_check='ok'"),
                     1);
    struct tenant *f = tbed_open(b, "now");
    assert_string_equal(atomic_load(&f->conf)->jwt_key, "k");
    tenants_ops.release(b->ts, f);
    tenants_ops.release(b->ts, t);
    for (int i = 1; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        assert_int_equal(
            tenants_ops.fork(b->ts, "a", name, &(struct tenant_at){.txid = txids[i]}, &err), RC_OK);
        assert_int_equal(tbed_int(b, name, "SELECT max(id) FROM t"), i);
        snprintf(name, sizeof name, "t%d", i);
        assert_int_equal(
            tenants_ops.fork(b->ts, "a", name, &(struct tenant_at){.time_ms = times[i]}, &err),
            RC_OK);
        assert_int_equal(tbed_int(b, name, "SELECT max(id) FROM t"), i);
    }
    tbed_sql(b, "x1", "INSERT INTO t VALUES(50,50)"); /* a log of its own */
    assert_int_equal(tbed_log_int(b, "x1", tbed_stored(b, "x1"), "SELECT max(id) FROM t"), 50);
    assert_int_equal(tbed_int(b, "a", "SELECT max(id) FROM t"), 100);
    expect(tenants_ops.fork(b->ts, "a", "x1", NULL, &err), RC_CONFLICT, &err, "already exists");
    assert_int_equal(tenants_ops.fork(b->ts, "none", "y", NULL, &err), RC_NOT_FOUND);
    assert_int_equal(tenants_ops.fork(b->ts, "a", "y", &(struct tenant_at){.txid = 9999}, &err),
                     RC_NOT_FOUND);
    assert_false(tbed_exists(b, "tenants/y"));
    create(b, "fresh"); /* never used: there is no database yet */
    assert_int_equal(tenants_ops.fork(b->ts, "fresh", "fresh2", NULL, &err), RC_OK);
    assert_int_equal(tbed_int(b, "fresh2", "SELECT count(*) FROM sqlite_schema"), 0);
    assert_int_equal(tbed_entries(b, "tmp"), 0);
}

static void test_rewind(struct tbed *b)
{
    struct err err = {0};
    create(b, "a");
    tbed_sql(b, "a", SETUP "; INSERT INTO t VALUES(1,1)");
    uint64_t first = tbed_stored(b, "a");
    tbed_sql(b, "a",
             "WITH RECURSIVE c(i) AS (VALUES(2) UNION ALL SELECT i+1 FROM c WHERE i<500)"
             " INSERT INTO t SELECT i, randomblob(300) FROM c");
    uint64_t second = tbed_stored(b, "a");
    tbed_sql(b, "a", "BEGIN; DELETE FROM t WHERE id<300; INSERT INTO t VALUES(1000,1); COMMIT");
    /* What no log has yet must be in it before it is gone. */
    assert_int_equal(tenants_ops.rewind(b->ts, "a", &(struct tenant_at){.txid = first}, &err),
                     RC_OK);
    assert_int_equal(tbed_int(b, "a", "SELECT count(*) FROM t"), 1);
    uint64_t third = tbed_stored(b, "a");
    assert_int_equal(tbed_log_int(b, "a", third, "SELECT count(*) FROM t"), 1);
    assert_int_equal(third, second + 2); /* one transaction for what was, one for what is */
    assert_int_equal(tbed_log_int(b, "a", second, "SELECT count(*) FROM t"), 500);
    assert_int_equal(tbed_log_int(b, "a", second + 1, "SELECT max(id) FROM t"), 1000);
    assert_int_equal(tbed_log_int(b, "a", first, "SELECT count(*) FROM t"), 1);
    /* Forth again. */
    assert_int_equal(tenants_ops.rewind(b->ts, "a", &(struct tenant_at){.txid = second}, &err),
                     RC_OK);
    assert_int_equal(tbed_int(b, "a", "SELECT count(*) FROM t"), 500);
    tbed_sql(b, "a", "INSERT INTO t VALUES(2000,1)");
    assert_int_equal(tbed_log_int(b, "a", tbed_stored(b, "a"), "SELECT count(*) FROM t"), 501);
    assert_int_equal(tenants_ops.rewind(b->ts, "a", &(struct tenant_at){.txid = 9999}, &err),
                     RC_NOT_FOUND);
    assert_int_equal(tenants_ops.rewind(b->ts, "none", &(struct tenant_at){.txid = 1}, &err),
                     RC_NOT_FOUND);
    assert_int_equal(tbed_int(b, "a", "SELECT count(*) FROM t"), 501);
    assert_int_equal(tbed_entries(b, "tmp"), 0);
}

static void make_db(const char *path, const char *sql)
{
    sqlite3 *db;
    char *msg = NULL;
    unlink(path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &msg) != SQLITE_OK) fail_msg("%s", msg);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_import_file(struct tbed *b)
{
    struct err err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/in.db", b->dir);
    make_db(path, "PRAGMA page_size=512; " SETUP "; INSERT INTO t(v) VALUES(3)");
    assert_int_equal(tenants_ops.import(b->ts, "a", NULL, path, false, &err), RC_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(tbed_int(b, "a", "SELECT v FROM t"), 3);
    assert_int_equal(tbed_log_int(b, "a", tbed_stored(b, "a"), "SELECT v FROM t"), 3);
    make_db(path, SETUP);
    expect(tenants_ops.import(b->ts, "a", NULL, path, false, &err), RC_CONFLICT, &err, "exists");
    assert_int_not_equal(access(path, F_OK), 0);
    make_db(path, "PRAGMA encoding='UTF-16'; " SETUP);
    expect(tenants_ops.import(b->ts, "x", NULL, path, false, &err), RC_INVALID, &err, "UTF-16");
    make_db(path, "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1);"
                  "PRAGMA writable_schema=1; UPDATE sqlite_schema SET "
                  "sql='CREATE TABLE t(a COLLATE far)' WHERE name='t'");
    expect(tenants_ops.import(b->ts, "x", NULL, path, false, &err), RC_INVALID, &err, "far");
    write_file(path, "CREATE TABLE t(x);");
    expect(tenants_ops.import(b->ts, "x", NULL, path, false, &err), RC_INVALID, &err,
           "not a SQLite database");
    make_db(path, SETUP "; INSERT INTO t(v) VALUES(randomblob(20000)); CREATE INDEX i ON t(v)");
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, 4096 + 20, SEEK_SET), 0);
    for (int i = 0; i < 4000; i++)
        fputc(0xa5, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(tenants_ops.import(b->ts, "x", NULL, path, false, &err), RC_INVALID);
    assert_false(tbed_exists(b, "tenants/x"));
    assert_int_equal(tbed_entries(b, "tmp"), 0);
}

static void test_import_dump(struct tbed *b)
{
    struct err err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/in.sql", b->dir);
    write_file(path, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
                     "CREATE TABLE c(p REFERENCES p(id));\nINSERT INTO c VALUES('a;\n;b');\n"
                     "CREATE TABLE p(id);\n-- a comment;\n"
                     "CREATE TRIGGER g AFTER INSERT ON p BEGIN\n DELETE FROM c;\n SELECT 1; END;\n"
                     "COMMIT");
    if (tenants_ops.import(b->ts, "a", NULL, path, true, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(tbed_int(b, "a", "SELECT length(p) FROM c"), 5);
    assert_int_equal(tbed_int(b, "a", "SELECT count(*) FROM sqlite_schema"), 3);
    assert_int_equal(tbed_log_int(b, "a", tbed_stored(b, "a"), "SELECT length(p) FROM c"), 5);
    static const struct {
        const char *text, *what;
    } bad[] = {
        {"CREATE TABLE t(x);\n\n\nINSERT INTO\n nowhere VALUES(1);\n", "line 4: "},
        {"CREATE TABLE t(x);\nINSERT INTO t VALUES(1);\nATTACH '/etc/passwd' AS p;\n", "line 3: "},
        {"BEGIN;\nCREATE TABLE t(x);\n", "does not end its transaction"},
        {"CREATE TABLE t(x UNIQUE);\nINSERT INTO t VALUES(1);\nINSERT INTO t VALUES(1);\n",
         "line 3: "},
        {"CREATE TABLE t(x);\nINSERT INTO t VALUES('", "line 2: "},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(path, bad[i].text);
        expect(tenants_ops.import(b->ts, "x", NULL, path, true, &err), RC_INVALID, &err,
               bad[i].what);
        assert_false(tbed_exists(b, "tenants/x"));
    }
    /* Many statements, over the size of what is read at once. */
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("BEGIN;CREATE TABLE t(id INTEGER PRIMARY KEY, v);\n", f);
    for (int i = 0; i < 30000; i++)
        fprintf(f, "INSERT INTO t VALUES(%d,'some; text\n of row %d');%s", i, i,
                i % 3 != 0 ? "\n" : " ");
    fputs("COMMIT;\n", f);
    assert_int_equal(fclose(f), 0);
    if (tenants_ops.import(b->ts, "big", NULL, path, true, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(
        tbed_int(b, "big", "SELECT count(*) FROM t WHERE v='some; text\n of row '||id"), 30000);
}

struct image {
    FILE *f;
    size_t size;
};

static enum rc take_image(void *ctx, const void *data, size_t size, struct err *err)
{
    struct image *im = ctx;
    (void)err;
    assert_int_equal(fwrite(data, 1, size, im->f), size);
    im->size += size;
    return RC_OK;
}

struct writer {
    struct tbed *b;
    atomic_bool stop;
    atomic_int rows;
};

/* Always two rows with one value. */
static void *write_pairs(void *arg)
{
    struct writer *w = arg;
    while (!atomic_load(&w->stop)) {
        tbed_sql(
            w->b, "a",
            "BEGIN; INSERT INTO t(v) VALUES(1); INSERT INTO t(v) VALUES(-1);"
            "UPDATE t SET v=v+5 WHERE id=1+abs(random()%(SELECT max(id) FROM t));"
            "UPDATE t SET v=v-5 WHERE id=1+abs(random()%(SELECT max(id) FROM t)) AND changes()=1;"
            "COMMIT");
        atomic_fetch_add(&w->rows, 1);
    }
    return NULL;
}

static void test_image(struct tbed *b)
{
    struct err err = {0};
    struct writer w = {.b = b};
    pthread_t thread;
    char path[128];
    sqlite3 *db;
    sqlite3_stmt *st;
    b->opts.full_sync = false;
    tbed_start(b);
    create(b, "a");
    tbed_sql(b, "a", SETUP);
    snprintf(path, sizeof path, "%s/image.db", b->dir);
    assert_int_equal(thr_start(&thread, "pairs", write_pairs, &w, &err), RC_OK);
    for (int i = 0; i < 20; i++) {
        struct image im = {.f = fopen(path, "w")};
        int rows = atomic_load(&w.rows);
        WAIT_FOR(atomic_load(&w.rows) > rows + 1);
        assert_non_null(im.f);
        if (tenants_ops.image(b->ts, "a", take_image, &im, &err) != RC_OK) fail_msg("%s", err.text);
        assert_int_equal(fclose(im.f), 0);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        static const char look[] = "SELECT (SELECT count(*)%2+abs(sum(v)) FROM t), "
                                   "(SELECT integrity_check FROM pragma_integrity_check)";
        assert_int_equal(sqlite3_prepare_v2(db, look, -1, &st, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(st), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int(st, 0), 0);
        assert_string_equal((const char *)sqlite3_column_text(st, 1), "ok");
        sqlite3_finalize(st);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(tbed_entries(b, "tmp"), 0);
}

/* The store is away when the server ends: the next one brings the rest there by itself. */
static void test_unsent(struct tbed *b)
{
    struct err err = {0};
    b->opts.flush_ms = 1000;
    tbed_start(b);
    create(b, "a");
    create(b, "b");
    tbed_sql(b, "a", SETUP);
    tbed_stored(b, "a");
    tbed_sql(b, "b", SETUP);
    tbed_stored(b, "b");
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    tbed_sql(b, "a", "INSERT INTO t(v) VALUES(1)");
    expect(tbed_stop(b, &err), RC_CANCELED, &err, "logs of 1 namespaces, `a`");
    assert_int_equal(tbed_entries(b, "open"), 1);
    assert_int_equal(tbed_log_int(b, "a", 0, "SELECT count(*) FROM t"), 0);
    atomic_store(&spy.mode, SPY_PASS);
    tbed_start(b);
    WAIT_FOR(tbed_entries(b, "open") == 0);
    assert_int_equal(tbed_log_int(b, "a", 0, "SELECT count(*) FROM t"), 1);
}

static void test_limits(struct tbed *b)
{
    struct err err = {0};
    struct tenant *t[3], *x;
    struct tenants_stats st;
    char name[8];
    b->opts.open_max = 3;
    b->opts.idle_close_ms = 80;
    tbed_start(b);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "n%d", i);
        create(b, name);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "n%d", i);
        t[i] = tbed_open(b, name);
    }
    expect(tenants_ops.open(b->ts, "n3", &x, &err), RC_BUSY, &err, "3 databases are open");
    assert_ptr_equal(tbed_open(b, "n0"), t[0]); /* one that is open needs no room */
    tenants_ops.release(b->ts, t[0]);
    tenants_ops.release(b->ts, t[1]);
    x = tbed_open(b, "n3"); /* in the place of the only one that is not in use */
    assert_null(tenants_ops.peek(b->ts, "n1"));
    tenants_look(b->ts, &st);
    assert_int_equal(st.open, 3);
    assert_int_equal(st.used, 3);
    tenants_ops.release(b->ts, x);
    tenants_ops.release(b->ts, t[0]);
    /* One that is in use stays open, the others are closed to nothing. */
    WAIT_FOR((tenants_look(b->ts, &st), st.open == 1 && st.draining == 0));
    WAIT_FOR(tbed_entries(b, "open") == 1);
    x = tenants_ops.peek(b->ts, "n2");
    assert_ptr_equal(x, t[2]);
    tenants_ops.release(b->ts, x);
    tenants_ops.release(b->ts, t[2]);
    WAIT_FOR((tenants_look(b->ts, &st), st.open == 0 && st.draining == 0));
}

/* Somebody else writes to the file of a tenant that is open, and of one that is asleep. */
static void test_other_writer(struct tbed *b)
{
    char path[128];
    sqlite3 *db;
    tbed_sql(b, "default", SETUP);
    struct tenant *t = tbed_open(b, "default");
    tbed_stored(b, "default");
    snprintf(path, sizeof path, "%s/tenants/default/data", b->data);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    for (int i = 1; i <= 3; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d,1)", i);
        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
        WAIT_FOR(tbed_log_int(b, "default", 0, "SELECT max(id) FROM t") == i);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    tenants_ops.release(b->ts, t);
}

/* Many wait at once, some are told that it took too long; each is told once. */
static atomic_int told, told_late;

static void count_told(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    (void)w, (void)err;
    atomic_fetch_add(rc == RC_OK ? &told : &told_late, 1);
}

static void test_waits(struct tbed *b)
{
    static struct tenant_wait waits[200];
    atomic_store(&told, 0);
    atomic_store(&told_late, 0);
    tbed_sql(b, "default", SETUP);
    tbed_stored(b, "default");
    struct tenant *t = tbed_open(b, "default");
    atomic_store(&spy.mode, SPY_HANG_PUT);
    unsigned puts = atomic_load(&spy.puts);
    int64_t now = os_mono_ms();
    for (int i = 0; i < 200; i++) {
        if (i % 50 == 0) tbed_sql(b, "default", "INSERT INTO t(v) VALUES(1)");
        waits[i] =
            (struct tenant_wait){.fn = count_told, .deadline_ms = i % 2 == 0 ? now + 150 + i : 0};
        tenants_ops.wait(t, &waits[i]);
    }
    WAIT_FOR(atomic_load(&told_late) == 100);
    assert_int_equal(atomic_load(&told), 0);
    atomic_store(&spy.mode, SPY_PASS);
    WAIT_FOR(atomic_load(&told) == 100);
    assert_true(atomic_load(&spy.puts) - puts <= 4); /* shared uploads */
    uint64_t newest = waits[199].txid;
    assert_int_equal(tbed_log_int(b, "default", newest, "SELECT count(*) FROM t"), 4);
    assert_int_equal(atomic_load(&told_late), 100);
    tenants_ops.release(b->ts, t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(test_open),
        SCENE(test_lock),
        SCENE(test_wait, .unstarted = true),
        SCENE(test_configure),
        SCENE(test_list),
        SCENE(test_remove),
        SCENE(test_remove_in_use),
        SCENE(test_rename),
        SCENE(test_rename_store, .unstarted = true),
        SCENE(test_rename_back, .unstarted = true),
        SCENE(test_fork),
        SCENE(test_rewind),
        SCENE(test_import_file),
        SCENE(test_import_dump),
        SCENE(test_image, .unstarted = true),
        SCENE(test_unsent, .unstarted = true),
        SCENE(test_limits, .unstarted = true),
        SCENE(test_other_writer),
        SCENE(test_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
