/* task_sweep_test.c -- every step of a task fails once: the next attempt has it all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/fault.h"
#include "node/bed.h"

#define SETUP_SQL                                                                                  \
    "PRAGMA page_size=1024; PRAGMA journal_mode=wal;"                                              \
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)"

static enum bed_kind kind_of(void **arg)
{
    return *(const enum bed_kind *)*arg;
}

/* One attempt with fault number nth; then, after a restart or not, one without. */
static bool one_fault(enum bed_kind kind, unsigned classes, uint64_t nth, bool lose, bool restart)
{
    struct bed b;
    struct err err = {0};
    bed_new(&b, kind, "");
    spy.faults = true;
    spy.fault_loses = lose;
    bed_app_open(&b, SETUP_SQL);
    bed_once_ok(&b);
    bed_rows(&b, 1);
    bed_task_close(&b);
    fault_arm(classes, nth, false);
    enum rc rc = bed_once(&b, true, &err);
    bool fired = fault_fired();
    char step[32];
    snprintf(step, sizeof step, "%s", fault_last());
    fault_arm(0, 0, false);
    if (!fired && rc != RC_OK) fail_msg("without a fault: %s", err.text);
    if (rc != RC_OK && err.text[0] == '\0') fail_msg("%s failed without a text", step);
    if (restart) bed_task_close(&b);
    if (bed_once(&b, true, &err) != RC_OK)
        fail_msg("after fault %llu (%s): %s", (unsigned long long)nth, step, err.text);
    uint64_t newest = bed_newest(&b);
    /* What cannot be proved after a local fault may be compared, and uploaded, once more. */
    if (newest < 2 || newest > (classes == FAULT_STORE ? 2 : 3))
        fail_msg("after fault %llu (%s): %llu transactions", (unsigned long long)nth, step,
                 (unsigned long long)newest);
    if (bed_count_level(&b, 9) == 0)
        fail_msg("after fault %llu (%s): no snapshot", (unsigned long long)nth, step);
    bed_check_restore(&b);
    bed_free(&b);
    return fired;
}

static void test_every_call(void **arg)
{
    for (int way = 0; way < 4; way++) {
        uint64_t nth = 1;
        while (one_fault(kind_of(arg), FAULT_STORE, nth, way & 1, way & 2))
            nth++;
        assert_true(nth > 3);
    }
}

static void test_every_syscall(void **arg)
{
    uint64_t nth = 1;
    while (one_fault(kind_of(arg), FAULT_SYSCALL, nth, false, nth & 1))
        nth++;
    print_message("%d syscalls\n", (int)nth - 1);
    assert_true(nth > 50);
}

static void test_every_allocation(void **arg)
{
    uint64_t nth = 1;
    while (one_fault(kind_of(arg), FAULT_ALLOC, nth, false, nth & 1))
        nth++;
    print_message("%d allocations\n", (int)nth - 1);
    assert_true(nth > 3);
}

static void test_staged_are_dropped(void **arg)
{
    struct bed b;
    uint64_t first, last;
    size_t most = 0;
    bed_new(&b, kind_of(arg), "");
    bed_app_open(&b, SETUP_SQL);
    for (int i = 0; i < 150; i++) {
        bed_rows(&b, 1);
        bed_once_ok(&b);
        size_t now = bed_staged(&b, &first, &last);
        if (now > most) most = now;
    }
    print_message("at most %zu staged batches\n", most);
    assert_true(most < 100);
    bed_free(&b);
}

int main(void)
{
    static enum bed_kind file = BED_FILE, mem = BED_MEM;
    const struct CMUnitTest tests[] = {
        ON(test_every_call, file),         ON(test_every_call, mem),
        ON(test_every_syscall, file),      ON(test_every_syscall, mem),
        ON(test_every_allocation, file),   ON(test_every_allocation, mem),
        ON(test_staged_are_dropped, file), ON(test_staged_are_dropped, mem),
    };
    return cmocka_run_group_tests_name("node/task_sweep", tests, NULL, NULL);
}
