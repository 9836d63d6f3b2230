/* layout_test.c -- keys, listings, upload and comparison of a log's files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/ltx.h"
#include "log/layout.h"
#include "store/driver.h"

#define ok(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != RC_OK) fail_msg("%s: %s", #expr, err.text);                                  \
    } while (0)

static struct err err;
static char dir[64], local[96];
static struct store *store;
static struct log lg;

/* Two stores in turn: objects in memory under the fault wrapper, and the real folder. */
static int setup_with(const char *url, bool faulty)
{
    struct store *inner = NULL;
    snprintf(dir, sizeof dir, "/tmp/sluice-layout-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(local, sizeof local, "%s/local.ltx", dir);
    ok(store_open(url ? url : dir, &inner, &err));
    store = inner;
    if (faulty) ok(store_fault_new(inner, &store, &err));
    lg = (struct log){.store = store};
    return 0;
}

static int setup_mem(void **state)
{
    (void)state;
    return setup_with("mem://", true);
}

static int setup_file(void **state)
{
    (void)state;
    return setup_with(NULL, false);
}

static int teardown(void **state)
{
    char command[96];
    (void)state;
    store_close(store);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static void put(const char *key, const char *text)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    ok(store_put(store, NULL, key, &body, &(struct store_put_opts){.timestamp_ms = 1700000000123},
                 NULL, &err));
}

static void write_local(const void *data, size_t size)
{
    ok(os_write_file(local, data, size, 0600, &err));
}

static void assert_files(const struct log_files *files, const char *lines)
{
    char got[1024] = "";
    size_t used = 0;
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i];
        used +=
            (size_t)snprintf(got + used, sizeof got - used, "%u %llx-%llx %llu %lld\n", f->level,
                             (unsigned long long)f->txid_min, (unsigned long long)f->txid_max,
                             (unsigned long long)f->size, (long long)f->created_ms);
    }
    assert_string_equal(got, lines);
}

static void test_keys(void **state)
{
    (void)state;
    char key[STORE_KEY_MAX + 1];
    log_key(&lg, 0, 1, 1, key);
    assert_string_equal(key, "ltx/0/0000000000000001-0000000000000001.ltx");
    log_key(&lg, 9, 1, 0x1a2b, key);
    assert_string_equal(key, "ltx/9/0000000000000001-0000000000001a2b.ltx");
    log_key(&lg, 8, UINT64_MAX - 1, UINT64_MAX, key);
    assert_string_equal(key, "ltx/8/fffffffffffffffe-ffffffffffffffff.ltx");
}

static void test_list(void **state)
{
    (void)state;
    CLEANUP(log_files_fini) struct log_files files = {0};
    ok(log_list_all(&lg, NULL, &files, &err));
    ok(log_list(&lg, NULL, 0, &files, &err));
    assert_int_equal(files.count, 0);
    put("ltx/0/0000000000000010-0000000000000010.ltx", "four");
    put("ltx/0/0000000000000003-0000000000000003.ltx", "");
    put("ltx/1/0000000000000001-0000000000000004.ltx", "a");
    put("ltx/1/0000000000000001-0000000000000002.ltx", "ab");
    put("ltx/9/0000000000000001-0000000000000002.ltx", "abc");
    /* None of these is a file of the log. */
    put("ltx/0/0000000000000004-0000000000000004.ltx.tmp", "x");
    put("ltx/0/0000000000000004-0000000000000004.LTX", "x");
    put("ltx/0/000000000000000A-000000000000000A.ltx", "x");
    put("ltx/0/0000000000000009-0000000000000008.ltx", "x");
    put("ltx/0/0000000000000000-0000000000000001.ltx", "x");
    put("ltx/0/deeper/0000000000000004-0000000000000004.ltx", "x");
    put("ltx/00/0000000000000004-0000000000000004.ltx", "x");
    put("ltx/10/0000000000000004-0000000000000004.ltx", "x");
    put("ltx/a/0000000000000004-0000000000000004.ltx", "x");
    put("ltx/0000000000000004-0000000000000004.ltx", "x");
    put("0000/0000000000000004-0000000000000004.ltx", "x");
    put("generations/0123456789abcdef/snapshots/00000000.snapshot.lz4", "x");
    ok(log_list(&lg, NULL, 1, &files, &err));
    assert_files(&files, "1 1-2 2 1700000000123\n1 1-4 1 1700000000123\n");
    log_files_fini(&files);
    ok(log_list(&lg, NULL, 0, &files, &err));
    ok(log_list(&lg, NULL, 9, &files, &err));
    assert_files(&files, "0 3-3 0 1700000000123\n0 10-10 4 1700000000123\n"
                         "9 1-2 3 1700000000123\n");
    assert_int_equal(log_list(&lg, NULL, 10, &files, &err), RC_INVALID);
    assert_int_equal(files.count, 3);
    log_files_fini(&files);
    ok(log_list_all(&lg, NULL, &files, &err));
    assert_files(&files, "0 3-3 0 1700000000123\n0 10-10 4 1700000000123\n"
                         "1 1-2 2 1700000000123\n1 1-4 1 1700000000123\n9 1-2 3 1700000000123\n");
}

/* A failed listing leaves the files that were there before, and no others. */
static void test_list_fails(void **state)
{
    (void)state;
    CLEANUP(log_files_fini) struct log_files files = {0};
    for (unsigned i = 1; i <= 200; i++) {
        char key[STORE_KEY_MAX + 1];
        log_key(&lg, 0, i, i, key);
        put(key, "x");
    }
    atomic_bool cancel = true;
    put("ltx/1/0000000000000001-0000000000000004.ltx", "a");
    ok(log_list(&lg, NULL, 1, &files, &err));
    assert_int_equal(log_list(&lg, &(struct call){.cancel = &cancel}, 0, &files, &err),
                     RC_CANCELED);
    unsigned failures = 0;
    for (uint64_t nth = 1;; nth++) {
        fault_arm(FAULT_ALLOC | FAULT_STORE, nth, false);
        enum rc rc = log_list(&lg, NULL, 0, &files, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_int_equal(rc == RC_OK, !fired);
        assert_int_equal(files.count, fired ? 1 : 201);
        if (!fired) break;
        failures++;
    }
    assert_true(failures >= 2); /* the store's answer and the growing array */
}

static void test_put_file(void **state)
{
    (void)state;
    enum { SIZE = 700000 };
    CLEANUP(log_files_fini) struct log_files files = {0};
    CLEANUP(mem_freep) uint8_t *bytes = mem_alloc(SIZE), *back = mem_calloc(1, SIZE);
    struct log_file f = {.level = 2, .txid_min = 5, .txid_max = 9, .created_ms = 1600000000001};
    const char *key = "ltx/2/0000000000000005-0000000000000009.ltx";
    assert_int_equal(log_put_file(&lg, NULL, &f, local, true, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, local));
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 11);
    write_local(bytes, SIZE);
    f.size = SIZE + 1;
    assert_int_equal(log_put_file(&lg, NULL, &f, local, true, &err), RC_CORRUPT);
    f.size = SIZE;
    ok(log_put_file(&lg, NULL, &f, local, true, &err));
    ok(store_read(store, NULL, key, 0, back, SIZE, &err));
    assert_memory_equal(bytes, back, SIZE);
    ok(log_list(&lg, NULL, 2, &files, &err));
    assert_files(&files, "2 5-9 700000 1600000000001\n");
    assert_int_equal(log_put_file(&lg, NULL, &f, local, true, &err), RC_CONFLICT);
    f.created_ms++;
    f.size = 0; /* not known: whatever the file has */
    ok(log_put_file(&lg, NULL, &f, local, false, &err));
    log_files_fini(&files);
    ok(log_list(&lg, NULL, 2, &files, &err));
    assert_files(&files, "2 5-9 700000 1600000000002\n");
    assert_int_equal(log_put_file(&lg, NULL, &f, dir, true, &err), RC_INVALID);
}

static void assert_same(const void *remote, size_t remote_size, bool same)
{
    struct log_file f = {.level = 0, .txid_min = 7, .txid_max = 7};
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, remote, remote_size);
    bool got = !same;
    ok(store_put(store, NULL, "ltx/0/0000000000000007-0000000000000007.ltx", &body, NULL, NULL,
                 &err));
    ok(log_same(&lg, NULL, &f, local, &got, &err));
    assert_int_equal(got, same);
}

static void test_same(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    CLEANUP(mem_freep) uint8_t *bytes = mem_calloc(1, SIZE + 1);
    struct log_file f = {.level = 0, .txid_min = 8, .txid_max = 8};
    bool same = true;
    memset(bytes, 'b', SIZE);
    write_local(bytes, SIZE);
    assert_same(bytes, SIZE, true);
    assert_same(bytes, SIZE + 1, false);
    assert_same(bytes, SIZE - 1, false);
    assert_same(bytes, 0, false);
    for (size_t at = 0; at < SIZE; at += 65536 - 1) {
        bytes[at] ^= 1;
        assert_same(bytes, SIZE, false);
        bytes[at] ^= 1;
    }
    bytes[SIZE - 1] ^= 1;
    assert_same(bytes, SIZE, false);
    write_local("", 0);
    assert_same("", 0, true);
    assert_same("x", 1, false);
    assert_int_equal(log_same(&lg, NULL, &f, local, &same, &err), RC_NOT_FOUND);
    assert_true(same); /* untouched */
    unlink(local);
    f.txid_min = f.txid_max = 7;
    assert_int_equal(log_same(&lg, NULL, &f, local, &same, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, local));
}

/* No fault may be taken for an answer: same files never come out as different, nor the reverse. */
static void test_same_fails(void **state)
{
    (void)state;
    struct log_file f = {.level = 0, .txid_min = 7, .txid_max = 7};
    write_local("same bytes", 10);
    for (int equal = 0; equal < 2; equal++) {
        assert_same(equal ? "same bytes" : "same bytez", 10, equal);
        for (uint64_t nth = 1;; nth++) {
            bool same = !equal;
            fault_arm(FAULT_ALLOC | FAULT_SYSCALL | FAULT_STORE, nth, false);
            enum rc rc = log_same(&lg, NULL, &f, local, &same, &err);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            if (rc == RC_OK)
                assert_int_equal(same, equal);
            else
                assert_true(fired);
            if (!fired) break;
        }
    }
}

#define BOTH(fn)                                                                                   \
    {#fn " (mem)", fn, setup_mem, teardown, NULL},                                                 \
    {                                                                                              \
#fn " (file)", fn, setup_file, teardown, NULL                                              \
    }

/* A store in memory that is laid out like a bucket: levels in hex, times of upload only. */
static struct store *bucket(struct store_ops *ops)
{
    struct store *s = NULL;
    ok(store_open("mem://", &s, &err));
    *ops = *s->ops;
    ops->type = "s3";
    s->ops = ops;
    s->caps &= ~(uint32_t)STORE_CAP_TIMESTAMP;
    return s;
}

static void put_header(struct store *s, const char *key, uint64_t min, uint64_t max, int64_t ms)
{
    uint8_t bytes[LTX_HEADER_SIZE];
    struct ltx_header h = {.page_size = 4096,
                           .page_count = 1,
                           .txid_min = min,
                           .txid_max = max,
                           .timestamp_ms = ms,
                           .flags = LTX_FLAG_NO_CHECKSUM};
    struct store_bytes b;
    ltx_header_put(&h, bytes);
    struct store_body body = store_body_bytes(&b, bytes, sizeof bytes);
    ok(store_put(s, NULL, key, &body, NULL, NULL, &err));
}

static void test_bucket_layout(void **state)
{
    (void)state;
    struct store_ops ops;
    char key[STORE_KEY_MAX + 1];
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct store *s = bucket(&ops);
    struct log b = {.store = s};
    log_key(&b, 9, 1, 0x2a, key);
    assert_string_equal(key, "0009/0000000000000001-000000000000002a.ltx");
    put_header(s, key, 1, 0x2a, 5);
    put_header(s, "0000/000000000000002b-000000000000002b.ltx", 43, 43, 6);
    put_header(s, "ltx/0/000000000000002c-000000000000002c.ltx", 44, 44, 7);
    put_header(s, "0010/000000000000002c-000000000000002c.ltx", 44, 44, 7);
    put_header(s, "000a/000000000000002c-000000000000002c.ltx", 44, 44, 7);
    put_header(s, "0000/x/000000000000002c-000000000000002c.ltx", 44, 44, 7);
    ok(log_list_all(&b, NULL, &files, &err));
    assert_int_equal(files.count, 2);
    assert_int_equal(files.items[0].level, 0);
    assert_int_equal(files.items[1].level, 9);
    assert_int_equal(files.items[1].txid_max, 42);
    files.count = 0;
    ok(log_list(&b, NULL, 9, &files, &err));
    assert_int_equal(files.count, 1);
    store_close(s);
}

/* For any moment, each file falls on its side of it, and only a few headers are read. */
static void test_times_from_headers(void **state)
{
    (void)state;
    enum { COUNT = 100 };
    struct store_ops ops;
    struct store *s = bucket(&ops);
    struct log b = {.store = s};
    struct store_stats before, after;
    for (uint64_t i = 1; i <= COUNT; i++) {
        char key[STORE_KEY_MAX + 1];
        log_key(&b, 0, i, i, key);
        put_header(s, key, i, i, (int64_t)i * 1000);
        log_key(&b, 1, i, i, key);
        put_header(s, key, i, i, (int64_t)i * 1000);
    }
    for (int64_t t = 500; t <= (COUNT + 1) * 1000; t += 500) {
        CLEANUP(log_files_fini) struct log_files files = {0};
        store_stats(s, &before);
        ok(log_list_at(&b, NULL, t, &files, &err));
        store_stats(s, &after);
        assert_int_equal(files.count, 2 * COUNT);
        for (size_t i = 0; i < files.count; i++) {
            const struct log_file *f = &files.items[i];
            assert_int_equal(f->created_ms < t, (int64_t)f->txid_max * 1000 < t);
        }
        assert_in_range(after.requests[STORE_OP_GET] - before.requests[STORE_OP_GET], 1, 2 * 7);
    }
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_keys),
        BOTH(test_list),
        BOTH(test_list_fails),
        BOTH(test_put_file),
        BOTH(test_same),
        BOTH(test_same_fails),
        cmocka_unit_test(test_bucket_layout),
        cmocka_unit_test(test_times_from_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
