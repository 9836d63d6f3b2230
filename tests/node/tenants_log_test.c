/* tenants_log_test.c -- what replicas read of a tenant's log, from a real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "node/tbed.h"
#include "node/tenants_intern.h"

#define PAGE 4096
#define FILL                                                                                       \
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 500) "             \
    "INSERT INTO t SELECT randomblob(1000) FROM n"

struct copy { /* of a database, kept up to date by batches */
    uint8_t *pages;
    uint32_t count, seen;
};

static void begin(struct tbed *b)
{
    struct err err;
    tbed_new(b);
    tbed_start(b);
    if (tenants_ops.create(b->ts, "shop", NULL, &err) != RC_OK) fail_msg("%s", err.text);
}

static enum rc apply(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                     struct err *err)
{
    struct copy *c = ctx;
    (void)err;
    assert_int_equal(b->page_size, PAGE);
    if (b->page_count != c->count) {
        c->pages = realloc(c->pages, (size_t)b->page_count * PAGE);
        assert_non_null(c->pages);
        if (b->page_count > c->count)
            memset(c->pages + (size_t)c->count * PAGE, 0,
                   (size_t)(b->page_count - c->count) * PAGE);
        c->count = b->page_count;
    }
    assert_true(pgno >= 1 && pgno <= b->page_count);
    memcpy(c->pages + (size_t)(pgno - 1) * PAGE, page, PAGE);
    c->seen++;
    return RC_OK;
}

/* The image of a transaction is what the batches up to it make. */
static void expect_image(struct tbed *b, struct tenant *t, uint64_t txid, const struct copy *c)
{
    struct err err;
    char path[OS_PATH_MAX];
    struct buf file = BUF_INIT;
    if (tenants_ops.image_file(b->ts, t, txid, NULL, path, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(os_read_file(path, 64u << 20, &file, &err), RC_OK);
    assert_int_equal(os_unlink(path, &err), RC_OK);
    assert_int_equal(file.size, (size_t)c->count * PAGE);
    assert_memory_equal(file.data, c->pages, file.size);
    buf_fini(&file);
}

static void batches_make_images(void **state)
{
    static const char *const sql[] = {
        "CREATE TABLE t(x); INSERT INTO t VALUES (1)",
        FILL,
        "UPDATE t SET x = randomblob(900) WHERE rowid % 10 = 0",
        "DELETE FROM t WHERE rowid > 5",
        "VACUUM",
        "INSERT INTO t VALUES (2)",
    };
    struct tbed b;
    struct err err;
    struct copy c = {0};
    struct tenant_batch head;
    (void)state;
    begin(&b);
    uint64_t done = 0, txids[8];
    for (size_t i = 0; i < sizeof sql / sizeof sql[0]; i++) {
        tbed_sql(&b, "shop", sql[i]);
        txids[i] = tbed_stored(&b, "shop");
        struct tenant *t = tbed_open(&b, "shop");
        while (done < txids[i]) {
            c.seen = 0;
            if (tenants_ops.batch(b.ts, t, ++done, NULL, &head, apply, &c, &err) != RC_OK)
                fail_msg("%s", err.text);
            assert_int_equal(head.pages, c.seen);
            assert_int_equal(head.txid, done);
            assert_int_not_equal(head.tag, 0);
        }
        expect_image(&b, t, done, &c);
        assert_int_equal(tenants_ops.batch(b.ts, t, done + 1, NULL, &head, NULL, NULL, &err),
                         RC_NOT_FOUND);
        tenants_ops.release(b.ts, t);
    }
    /* Earlier ones, from the log: after a restart, too. */
    tbed_stop_ok(&b);
    tbed_start(&b);
    struct tenant *t = tbed_open(&b, "shop");
    free(c.pages);
    c = (struct copy){0};
    for (uint64_t txid = 1; txid <= txids[2]; txid++)
        assert_int_equal(tenants_ops.batch(b.ts, t, txid, NULL, &head, apply, &c, &err), RC_OK);
    expect_image(&b, t, txids[2], &c);
    tenants_ops.release(b.ts, t);
    free(c.pages);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

static void commits_and_texts(void **state)
{
    struct tbed b;
    struct err err;
    struct buf text = BUF_INIT, out = BUF_INIT;
    (void)state;
    begin(&b);
    assert_int_equal(tenants_ops.commits(b.ts, "shop"), 0);
    tbed_sql(&b, "shop", "CREATE TABLE t(x)");
    uint64_t before = tenants_ops.commits(b.ts, "shop");
    assert_int_not_equal(before, 0);
    assert_int_equal(tbed_int(&b, "shop", "SELECT count(*) FROM t"), 0);
    assert_int_equal(tenants_ops.commits(b.ts, "shop"), before);
    tbed_sql(&b, "shop", "INSERT INTO t VALUES (1)");
    assert_true(tenants_ops.commits(b.ts, "shop") > before);
    struct tenant *t = tbed_open(&b, "shop");
    assert_int_equal(tenants_ops.kept(b.ts, t, &out, &err), RC_NOT_FOUND);
    assert_int_equal(buf_append(&text, "hello", 5, &err), RC_OK);
    assert_int_equal(tenants_ops.keep(b.ts, t, &text, &err), RC_OK);
    tenants_ops.release(b.ts, t);
    if (tenants_ops.rename(b.ts, "shop", "store", &err) != RC_OK) fail_msg("%s", err.text);
    t = tbed_open(&b, "store"); /* it goes along */
    assert_int_equal(tenants_ops.kept(b.ts, t, &out, &err), RC_OK);
    assert_int_equal(out.size, 5);
    tenants_ops.release(b.ts, t);
    if (tenants_ops.fork(b.ts, "store", "copy", NULL, &err) != RC_OK) fail_msg("%s", err.text);
    t = tbed_open(&b, "copy"); /* another log, so not to a copy */
    assert_int_equal(tenants_ops.kept(b.ts, t, &out, &err), RC_NOT_FOUND);
    tenants_ops.release(b.ts, t);
    buf_fini(&text);
    buf_fini(&out);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

static enum rc refuse(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                      struct err *err)
{
    (void)ctx, (void)b, (void)pgno, (void)page;
    return err_set(err, RC_CANCELED, "enough");
}

/* A damaged file gives no page at all. */
static void damaged(void **state)
{
    struct tbed b;
    struct err err;
    struct tenant_batch head;
    struct copy c = {0};
    char path[OS_PATH_MAX];
    struct buf file = BUF_INIT;
    (void)state;
    begin(&b);
    tbed_sql(&b, "shop", "CREATE TABLE t(x); INSERT INTO t VALUES (randomblob(30000))");
    uint64_t txid = tbed_stored(&b, "shop");
    struct tenant *t = tbed_open(&b, "shop");
    assert_int_equal(tenants_ops.batch(b.ts, t, txid, NULL, &head, refuse, NULL, &err),
                     RC_CANCELED);
    task_staged_path(((struct slot *)t)->task, txid, path);
    (void)unlink(path); /* so that the store is asked */
    snprintf(path, sizeof path, "%s/backup/shop/ltx/0/%016llx-%016llx.ltx", b.data,
             (unsigned long long)txid, (unsigned long long)txid);
    assert_int_equal(os_read_file(path, 1u << 20, &file, &err), RC_OK);
    const size_t places[] = {0, 50, 150, file.size / 2, file.size - 5};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        file.data[places[i]] ^= 0x41;
        assert_int_equal(os_write_file(path, file.data, file.size, 0600, &err), RC_OK);
        assert_int_equal(tenants_ops.batch(b.ts, t, txid, NULL, &head, apply, &c, &err),
                         RC_CORRUPT);
        assert_int_equal(c.seen, 0);
        file.data[places[i]] ^= 0x41;
    }
    for (size_t size = 0; size < file.size; size += 997) {
        assert_int_equal(os_write_file(path, file.data, size, 0600, &err), RC_OK);
        assert_int_equal(tenants_ops.batch(b.ts, t, txid, NULL, &head, apply, &c, &err),
                         RC_CORRUPT);
        assert_int_equal(c.seen, 0);
    }
    assert_int_equal(os_write_file(path, file.data, file.size, 0600, &err), RC_OK);
    assert_int_equal(tenants_ops.batch(b.ts, t, txid, NULL, &head, apply, &c, &err), RC_OK);
    free(c.pages);
    buf_fini(&file);
    tenants_ops.release(b.ts, t);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_make_images),
        cmocka_unit_test(commits_and_texts),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
