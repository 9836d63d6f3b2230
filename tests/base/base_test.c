/* base_test.c -- errors, buffers, files and the fault seam. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"

static char dir[] = "/tmp/sluice-base-XXXXXX";

static void test_err_texts(void **state)
{
    (void)state;
    struct err err;
    char longer[2 * ERR_TEXT_MAX];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(err_sys(&err, ENOSPC, "write '%s'", "a"), RC_NO_SPACE);
    assert_int_equal(err_wrap(&err, "sync '%s'", "db"), RC_NO_SPACE);
    assert_string_equal(err.text, "sync 'db': write 'a': No space left on device");
    err_set(&err, RC_IO, "%s", longer);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    assert_string_equal(err.text + ERR_TEXT_MAX - 4, "...");
    err_wrap(&err, "%s", "front");
    assert_memory_equal(err.text, "front: xxx", 10);
    assert_string_equal(err.text + ERR_TEXT_MAX - 4, "...");
}

static void test_buf_moves_to_heap(void **state)
{
    (void)state;
    char small[8];
    struct err err;
    struct buf b = BUF_ON(small);
    for (int i = 0; i < 1000; i++) assert_int_equal(buf_append(&b, "ab", 2, &err), RC_OK);
    assert_int_equal(b.size, 2000);
    assert_memory_equal(b.data + 1998, "ab", 2);
    buf_drop_front(&b, 1999);
    assert_memory_equal(b.data, "b", 1);
    buf_fini(&b);
}

static void write_then_check(bool *ret_failed)
{
    char path[64], old[8];
    size_t got;
    struct err err;
    int fd;
    snprintf(path, sizeof path, "%s/file", dir);
    enum rc rc = os_write_file(path, "new", 3, 0600, &err);
    *ret_failed = rc != RC_OK;
    fault_arm(0, 0, false);
    assert_int_equal(os_open(path, O_RDONLY, 0, &fd, &err), RC_OK);
    assert_int_equal(os_pread(fd, old, sizeof old, 0, &got, &err), RC_OK);
    os_close(fd);
    assert_int_equal(got, 3);
    if (rc != RC_OK) assert_true(memcmp(old, "old", 3) == 0 || memcmp(old, "new", 3) == 0);
    else assert_memory_equal(old, "new", 3);
}

static void test_write_file_is_atomic_under_faults(void **state)
{
    (void)state;
    char path[64];
    struct err err;
    bool failed = true;
    snprintf(path, sizeof path, "%s/file", dir);
    for (uint64_t n = 1; failed; n++) {
        assert_int_equal(os_write_file(path, "old", 3, 0600, &err), RC_OK);
        fault_arm(FAULT_SYSCALL, n, false);
        write_then_check(&failed);
        assert_true(n < 20);
    }
}

static enum rc count_up(void *ctx, uint64_t i, struct err *err)
{
    if (i == 70) return err_set(err, RC_GAP, "seventy");
    atomic_fetch_add((atomic_int *)ctx, 1);
    return RC_OK;
}

static void test_each_runs_all_and_keeps_the_first_error(void **state)
{
    (void)state;
    atomic_int n = 0;
    struct err err = {0};
    assert_int_equal(thr_each(4, 50, count_up, &n, &err), RC_OK);
    assert_int_equal(n, 50);
    assert_int_equal(thr_each(4, 100, count_up, &n, &err), RC_GAP);
    assert_string_equal(err.text, "seventy");
}

static void test_lock_is_exclusive_between_descriptors(void **state)
{
    (void)state;
    char path[64];
    struct err err;
    int a, b;
    snprintf(path, sizeof path, "%s/lock", dir);
    assert_int_equal(os_open(path, O_RDWR | O_CREAT, 0600, &a, &err), RC_OK);
    assert_int_equal(os_open(path, O_RDWR, 0600, &b, &err), RC_OK);
    assert_int_equal(os_lock(a, &err), RC_OK);
    assert_int_equal(os_lock(b, &err), RC_BUSY);
    os_close(a);
    assert_int_equal(os_lock(b, &err), RC_OK);
    os_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_texts),
        cmocka_unit_test(test_buf_moves_to_heap),
        cmocka_unit_test(test_write_file_is_atomic_under_faults),
        cmocka_unit_test(test_each_runs_all_and_keeps_the_first_error),
        cmocka_unit_test(test_lock_is_exclusive_between_descriptors),
    };
    char clean[64];
    if (mkdtemp(dir) == NULL) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(clean, sizeof clean, "rm -r '%s'", dir);
    return system(clean) == 0 ? failed : 1;
}
