/* conformance_test.c -- the suite over every driver that needs no server. A new driver adds a row.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ftw.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/os.h"
#include "store/conformance.h"
#include "store/driver.h"

static struct err err;
static unsigned tmp_count;

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static enum rc never_fn(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)ctx, (void)obj;
    return err_set(e, RC_DENIED, "must not be called");
}

static enum rc count_up(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = (uint8_t)((off + i) * 40503u >> 7);
    return RC_OK;
}

static struct store *plain_open(const char *u)
{
    struct store *s = NULL;
    ok(store_open(u, &s, &err));
    return s;
}

/* The root does not exist yet: the first put makes it. */
static void file_prepare(unsigned unique, char ret_url[256])
{
    snprintf(ret_url, 256, "file:///tmp/sluice-conformance-%d-%u/a root", (int)getpid(), unique);
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type;
    const char *name = path + ftw->base;
    if (strncmp(name, STORE_TMP_PREFIX, sizeof STORE_TMP_PREFIX - 1) == 0) tmp_count++;
    return remove(path);
}

static void file_clean(const char *u)
{
    char path[256];
    snprintf(path, sizeof path, "%s", u + strlen("file://"));
    *strrchr(path, '/') = '\0';
    tmp_count = 0;
    nftw(path, visit, 16, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(tmp_count, 0);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void mem_prepare(unsigned unique, char ret_url[256])
{
    snprintf(ret_url, 256, "mem://conformance-%u", unique);
}

/* The last handle is closed by now, so the name must stand for an empty store again. */
static void mem_clean(const char *u)
{
    struct store *s = plain_open(u);
    ok(store_list(s, NULL, "", NULL, never_fn, NULL, &err));
    store_close(s);
}

static struct store *faulty_open(const char *u)
{
    struct store *s = NULL;
    fault_arm(0, 0, false);
    ok(store_fault_new(plain_open(u), &s, &err));
    return s;
}

static const struct conformance_row rows[] = {
    {"file", file_prepare, plain_open, file_clean},
    {"mem", mem_prepare, plain_open, mem_clean},
    {"fault over mem", mem_prepare, faulty_open, mem_clean},
};

static void test_cross_copy(void **state)
{
    (void)state;
    char from_url[256], back_url[256];
    static const char *const keys[] = {"ltx/0/a", "ltx/0-x", "ltx/9/b/c", "z", "empty"};
    file_prepare(1000, from_url);
    file_prepare(1001, back_url);
    struct store *from = plain_open(from_url), *middle = plain_open("mem://cross"),
                 *back = plain_open(back_url);
    for (unsigned i = 0; i < 5; i++) {
        struct store_body body = {.size = i == 4 ? 0 : 300000 * i + 1, .read = count_up};
        struct store_put_opts opts = {.timestamp_ms = 1700000000000 + i};
        ok(store_put(from, NULL, keys[i], &body, &opts, NULL, &err));
    }
    conformance_copy(from, middle);
    conformance_copy(middle, back);
    store_close(from);
    store_close(middle);
    store_close(back);
    file_clean(from_url);
    file_clean(back_url);
}

int main(void)
{
    const struct CMUnitTest cross[] = {cmocka_unit_test(test_cross_copy)};
    int failed = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        failed += conformance_run(&rows[i]);
    return failed + cmocka_run_group_tests(cross, NULL, NULL);
}
