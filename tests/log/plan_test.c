/* plan_test.c -- the planner against examples and against trying every subset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "log/plan.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define LATEST       ((struct plan_target){.kind = PLAN_LATEST})
#define TXID(n)      ((struct plan_target){.kind = PLAN_TXID, .txid = (n)})
#define TIME(ms)     ((struct plan_target){.kind = PLAN_TIME, .time_ms = (ms)})

static struct log_file file(uint32_t level, uint64_t min, uint64_t max, int64_t created_ms)
{
    return (struct log_file){level, min, max, 1000, created_ms};
}

/* "9:1-10 1:11-20", or the error. */
static const char *plan_text(struct log_file *items, size_t count, struct plan_target target)
{
    static char text[1024];
    struct log_files files = {.items = items, .count = count}, plan = {0};
    struct err err = {0};
    size_t at = 0;
    text[0] = '\0';
    if (plan_make(&files, &target, &plan, &err) != RC_OK) {
        assert_null(plan.items);
        snprintf(text, sizeof text, "%s: %s", rc_name(err.rc), err.text);
        return text;
    }
    for (size_t i = 0; i < plan.count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u:%d-%d", i > 0 ? " " : "",
                               plan.items[i].level, (int)plan.items[i].txid_min,
                               (int)plan.items[i].txid_max);
    log_files_fini(&plan);
    return text;
}

static void test_usual_log(void **state)
{
    (void)state;
    struct log_file f[] = {
        file(0, 24, 24, 240), file(0, 25, 25, 250), file(0, 26, 26, 260), file(1, 11, 20, 200),
        file(1, 21, 25, 250), file(2, 11, 20, 200), file(9, 1, 10, 100),  file(9, 1, 15, 150),
    };
    size_t n = COUNT(f);
    assert_string_equal(plan_text(f, n, LATEST), "9:1-15 2:11-20 1:21-25 0:26-26");
    assert_string_equal(plan_text(f, n, TXID(26)), "9:1-15 2:11-20 1:21-25 0:26-26");
    assert_string_equal(plan_text(f, n, TXID(20)), "9:1-15 2:11-20");
    assert_string_equal(plan_text(f, n, TXID(15)), "9:1-15");
    assert_string_equal(plan_text(f, n, TXID(10)), "9:1-10");
    assert_string_equal(plan_text(f, n, TIME(250)), "9:1-15 2:11-20");
    assert_string_equal(plan_text(f, n, TIME(251)), "9:1-15 2:11-20 1:21-25");
    assert_string_equal(plan_text(f, n, TIME(150)), "9:1-10");
    assert_string_equal(plan_text(f, n, TXID(22)),
                        "NOT_FOUND: transaction 0000000000000016 is not "
                        "available; the nearest before it is 0000000000000014");
    assert_string_equal(plan_text(f, n, TXID(9)), "NOT_FOUND: transaction 0000000000000009 is not "
                                                  "available: no snapshot at or before it");
    assert_string_equal(plan_text(f, n, TXID(0)), "NOT_FOUND: transaction 0000000000000000 is not "
                                                  "available: no snapshot at or before it");
    assert_string_equal(plan_text(f, n, TIME(100)),
                        "NOT_FOUND: no snapshot was created before that time");
}

static void test_empty_log(void **state)
{
    (void)state;
    struct log_file torn[] = {{0, 1, 1, 115, 0}, {0, 2, 2, 0, 0}};
    struct log_file least[] = {{0, 1, 1, 116, 0}};
    assert_string_equal(plan_text(NULL, 0, LATEST), "NOT_FOUND: the log holds no files");
    struct log_file spare[] = {{0, 2, 2, 20, 0}, {0, 1, 1, 200, 0}, {1, 1, 2, 200, 0}};
    const char *want = "GAP: the file of transactions 0000000000000002 to 0000000000000002, level "
                       "0, was cut off at 20 bytes (choose";
    assert_memory_equal(plan_text(torn, 2, LATEST), "GAP: the file", 13);
    assert_memory_equal(plan_text(spare, 2, LATEST), want, strlen(want));
    assert_string_equal(plan_text(spare, 2, TXID(1)), "0:1-1");
    assert_string_equal(plan_text(spare, 2, TIME(1)), "0:1-1");
    assert_string_equal(plan_text(spare, 3, LATEST), "1:1-2");
    assert_string_equal(plan_text(least, 1, LATEST), "0:1-1");
}

static void test_ties(void **state)
{
    (void)state;
    struct log_file level[] = {file(0, 1, 5, 1), file(9, 1, 5, 2), file(3, 1, 5, 1)};
    struct log_file wider[] = {file(9, 1, 5, 1), file(2, 6, 9, 1), file(1, 5, 9, 1)};
    struct log_file older[] = {file(9, 1, 5, 7), file(9, 1, 5, 3)};
    struct log_files files = {.items = older, .count = 2}, plan = {0};
    struct plan_target latest = LATEST;
    struct err err;
    assert_string_equal(plan_text(level, 3, LATEST), "9:1-5");
    assert_string_equal(plan_text(wider, 3, LATEST), "9:1-5 1:5-9");
    assert_int_equal(plan_make(&files, &latest, &plan, &err), RC_OK);
    assert_int_equal(plan.items[0].created_ms, 3);
    log_files_fini(&plan);
}

static void test_holes(void **state)
{
    (void)state;
    struct log_file hole[] = {file(0, 1, 1, 1), file(0, 2, 2, 2), file(0, 4, 4, 4),
                              file(0, 6, 6, 6)};
    struct log_file bridged[] = {file(0, 1, 1, 1), file(0, 5, 5, 5), file(1, 2, 4, 4)};
    struct log_file headless[] = {file(0, 7, 7, 7), file(0, 8, 8, 8)};
    struct log_file last[] = {file(9, 1, UINT64_MAX, 1)};
    const char *want = "GAP: transaction 0000000000000003 is missing: the log goes on at "
                       "0000000000000004 (choose an older transaction or time to restore what is "
                       "before the hole)";
    assert_string_equal(plan_text(hole, 4, LATEST), want);
    assert_string_equal(plan_text(hole, 4, TXID(2)), "0:1-1 0:2-2");
    assert_string_equal(plan_text(hole, 4, TIME(7)), "0:1-1 0:2-2");
    assert_string_equal(plan_text(bridged, 3, LATEST), "0:1-1 1:2-4 0:5-5");
    assert_memory_equal(plan_text(headless, 2, LATEST), "GAP: transaction 0000000000000001 is", 36);
    assert_string_equal(plan_text(headless, 2, TIME(9)),
                        "NOT_FOUND: no snapshot was created before that time");
    assert_memory_equal(plan_text(last, 1, LATEST), "9:1--1", 6);
}

/* The furthest end of any chain made of the target's files, and the length of the shortest such. */
static void try_all(const struct log_file *f, size_t count, const struct plan_target *target,
                    uint64_t *ret_end, size_t *ret_least)
{
    *ret_end = 0;
    *ret_least = 0;
    for (unsigned set = 1; set < 1u << count; set++) {
        uint64_t pos = 0;
        size_t used = 0, fits = 1;
        /* The files of a chain ascend by max, and no two end alike. */
        for (uint64_t max = 1; max <= 12; max++) {
            for (size_t i = 0; i < count; i++) {
                if (!(set >> i & 1) || f[i].txid_max != max) continue;
                fits &= f[i].txid_min <= pos + 1 && max > pos;
                fits &= target->kind != PLAN_TXID || max <= target->txid;
                fits &= target->kind != PLAN_TIME || f[i].created_ms < target->time_ms;
                pos = max;
                used++;
            }
        }
        if (!fits || pos < *ret_end || (pos == *ret_end && used >= *ret_least)) continue;
        *ret_end = pos;
        *ret_least = used;
    }
}

static void check_against_all(struct log_file *f, size_t count, const struct plan_target *target)
{
    struct log_files files = {.items = f, .count = count}, plan = {0};
    uint64_t end, pos = 0, last = 0;
    size_t least;
    struct err err;
    try_all(f, count, target, &end, &least);
    for (size_t i = 0; i < count; i++)
        last = f[i].txid_max > last ? f[i].txid_max : last;
    enum rc want = target->kind == PLAN_LATEST ? (count == 0    ? RC_NOT_FOUND
                                                  : end != last ? RC_GAP
                                                                : RC_OK)
                   : target->kind == PLAN_TXID ? (end == target->txid ? RC_OK : RC_NOT_FOUND)
                                               : (end > 0 ? RC_OK : RC_NOT_FOUND);
    assert_int_equal(plan_make(&files, target, &plan, &err), want);
    if (want != RC_OK) return;
    for (size_t i = 0; i < plan.count; i++) {
        const struct log_file *p = &plan.items[i];
        assert_true(p->txid_min <= pos + 1 && p->txid_max > pos);
        assert_true(target->kind != PLAN_TIME || p->created_ms < target->time_ms);
        pos = p->txid_max;
    }
    assert_int_equal(pos, end);
    assert_int_equal(plan.count, least);
    log_files_fini(&plan);
}

static void test_random_sets_against_all_subsets(void **state)
{
    (void)state;
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)os_random();
    print_message("SLUICE_SEED=%u\n", seed);
    for (int round = 0; round < 3000; round++) {
        struct log_file f[9];
        size_t count = (size_t)rand_r(&seed) % (COUNT(f) + 1);
        for (size_t i = 0; i < count; i++) {
            uint64_t min = rand_r(&seed) % 3 == 0 ? 1 : 1 + (uint64_t)rand_r(&seed) % 10;
            uint64_t max = min + (uint64_t)rand_r(&seed) % (11 - min + 1);
            f[i] = file((uint32_t)rand_r(&seed) % 10, min, max, rand_r(&seed) % 12);
        }
        check_against_all(f, count, &LATEST);
        check_against_all(f, count, &TXID(1 + (uint64_t)rand_r(&seed) % 11));
        check_against_all(f, count, &TIME(rand_r(&seed) % 14));
    }
}

static void test_a_long_log_plans_fast(void **state)
{
    (void)state;
    size_t count = 300000;
    struct log_files files = {.items = mem_alloc(count * sizeof(struct log_file)), .count = count};
    struct log_files plan = {0};
    struct err err;
    assert_non_null(files.items);
    for (size_t i = 0; i < count; i++)
        files.items[i] = file(0, count - i, count - i, 0);
    int64_t start = os_mono_ms();
    assert_int_equal(plan_make(&files, &LATEST, &plan, &err), RC_OK);
    assert_int_equal(plan.count, count);
    assert_true(os_mono_ms() - start < 20000); /* a quadratic planner needs minutes */
    log_files_fini(&plan);
    mem_free(files.items);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct log_file f[] = {file(9, 1, 5, 1), file(0, 6, 6, 2)};
    struct log_files files = {.items = f, .count = 2}, plan = {0};
    struct err err;
    enum rc rc = RC_NO_MEM;
    for (uint64_t n = 1; rc != RC_OK; n++) {
        fault_arm(FAULT_ALLOC, n, false);
        rc = plan_make(&files, &LATEST, &plan, &err);
        assert_true(rc == RC_OK || (rc == RC_NO_MEM && fault_fired() && plan.items == NULL));
        fault_arm(0, 0, false);
    }
    assert_int_equal(plan.count, 2);
    log_files_fini(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual_log),
        cmocka_unit_test(test_empty_log),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_random_sets_against_all_subsets),
        cmocka_unit_test(test_a_long_log_plans_fast),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
