/* retry_test.c -- tries, pauses, slots, budget, trouble. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/os.h"
#include "store/retry.h"

#define SLOW_MS 3000 /* how late a busy machine may be */

struct script {
    unsigned calls, fails;  /* fail so many times */
    enum rc rc;             /* with this */
    struct retry_hint hint; /* and this */
    int64_t at_ms[64];      /* of each call */
    atomic_bool *cancel;    /* set at a call, if given */
};

static struct err err;

static enum rc step(void *ctx, struct retry_hint *hint, struct err *e)
{
    struct script *s = ctx;
    if (s->calls < 64) s->at_ms[s->calls] = os_mono_ms();
    s->calls++;
    if (s->cancel != NULL) atomic_store(s->cancel, true);
    if (s->calls > s->fails) return RC_OK;
    *hint = s->hint;
    return err_set(e, s->rc, "cause %u", s->calls);
}

static struct pacer *pacer(const char *name)
{
    struct pacer *p = NULL;
    assert_int_equal(pacer_open(name, NULL, NULL, &p, &err), RC_OK);
    return p;
}

static struct pacer_state look(struct pacer *p)
{
    struct pacer_state st;
    pacer_look(p, &st);
    return st;
}

/* Use the budget up until so much is left. */
static void spend(struct pacer *p, int left)
{
    while (look(p).budget > left) {
        struct script s = {.fails = 1, .rc = RC_AGAIN};
        struct call c = {.deadline_ms = os_mono_ms() + 60000};
        atomic_bool cancel = false;
        c.cancel = &cancel;
        s.cancel = &cancel; /* the retry is paid for, then the pause ends at once */
        assert_int_equal(retry_run(p, &c, step, &s, &err), RC_CANCELED);
    }
}

static void test_success(void **state)
{
    (void)state;
    struct script s = {0};
    struct pacer *p = pacer("a");
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_OK);
    assert_int_equal(s.calls, 1);
    assert_int_equal(look(p).busy, 0);
    assert_int_equal(look(p).budget, RETRY_BUDGET);
    assert_int_equal(look(p).slots, RETRY_SLOTS);
    pacer_close(p);
    s = (struct script){.fails = 2, .rc = RC_BUSY};
    assert_int_equal(retry_run(NULL, NULL, step, &s, &err), RC_OK);
    assert_int_equal(s.calls, 3);
}

static void test_final(void **state)
{
    (void)state;
    const enum rc codes[] = {RC_NOT_FOUND, RC_CONFLICT, RC_DENIED, RC_CORRUPT, RC_INVALID,
                             RC_NO_SPACE,  RC_NO_MEM,   RC_IO,     RC_CANCELED};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        struct script s = {.fails = 9, .rc = codes[i]};
        assert_int_equal(retry_run(NULL, NULL, step, &s, &err), codes[i]);
        assert_int_equal(s.calls, 1);
        assert_string_equal(err.text, "cause 1");
    }
    struct script s = {.fails = 9, .rc = RC_AGAIN, .hint.final = true};
    assert_int_equal(retry_run(NULL, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(s.calls, 1);
}

/* Without a deadline the tries are counted. The bounds of the pauses double; with the first four
 * of them, at most 100 + 200 + 400 + 800 ms have passed before the fifth try. */
static void test_tries(void **state)
{
    (void)state;
    struct script s = {.fails = 4, .rc = RC_AGAIN};
    int64_t from_ms = os_mono_ms();
    assert_int_equal(retry_run(NULL, NULL, step, &s, &err), RC_OK);
    assert_int_equal(s.calls, 5);
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(s.at_ms[i + 1] - s.at_ms[i], RETRY_BASE_MS / 2 << i,
                        (RETRY_BASE_MS << i) + SLOW_MS);
    assert_in_range(os_mono_ms() - from_ms, 0, 1500 + 2 * SLOW_MS);

    struct pacer *p = pacer("at once"); /* three times, then it pauses like others, and pays */
    spend(p, RETRY_COST);
    s = (struct script){.fails = 99, .rc = RC_AGAIN, .hint.at_once = true};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(s.calls, 5);
    assert_in_range(s.at_ms[3] - s.at_ms[0], 0, RETRY_BASE_MS / 2 * (1 + 2 + 4) - 1);
    assert_true(s.at_ms[4] - s.at_ms[3] >= RETRY_BASE_MS / 2 * 8);
    pacer_close(p);
}

static void test_text(void **state)
{
    (void)state;
    struct script s = {.fails = 99, .rc = RC_AGAIN, .hint.at_once = true};
    struct call c = {.deadline_ms = os_mono_ms() + 1};
    os_sleep_ms(5);
    assert_int_equal(retry_run(NULL, &c, step, &s, &err), RC_CANCELED);
    assert_int_equal(s.calls, 0);
    struct pacer *p = pacer("text");
    spend(p, 2 * RETRY_COST);
    s.hint.at_once = false;
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(s.calls, 3);
    static const char text[] = "cause 3 (3 tries in ";
    assert_memory_equal(err.text, text, strlen(text));
    assert_non_null(strstr(err.text, "at first: cause 1)"));
    pacer_close(p);
}

static void test_deadline(void **state)
{
    (void)state;
    /* A pause that would pass the deadline is not begun. */
    struct script s = {.fails = 99, .rc = RC_AGAIN, .hint.after_ms = 60000};
    struct call c = {.deadline_ms = os_mono_ms() + 5000};
    int64_t from_ms = os_mono_ms();
    assert_int_equal(retry_run(NULL, &c, step, &s, &err), RC_AGAIN);
    assert_int_equal(s.calls, 1);
    assert_in_range(os_mono_ms() - from_ms, 0, 4000);
    /* With a deadline the tries are not counted; it is kept. A pause that ends just before it may
     * last a little longer. */
    s = (struct script){.fails = 99, .rc = RC_AGAIN};
    c.deadline_ms = os_mono_ms() + 1000;
    enum rc rc = retry_run(NULL, &c, step, &s, &err);
    assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
    assert_true(os_mono_ms() <= c.deadline_ms + SLOW_MS);
    assert_true(s.calls > 1);
}

static void test_retry_after(void **state)
{
    (void)state;
    struct script s = {.fails = 1, .rc = RC_AGAIN, .hint.after_ms = 300};
    assert_int_equal(retry_run(NULL, NULL, step, &s, &err), RC_OK);
    assert_in_range(s.at_ms[1] - s.at_ms[0], 299, 300 + RETRY_BASE_MS + SLOW_MS);
}

static void *cancel_later(void *arg)
{
    os_sleep_ms(50);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

static void test_cancel(void **state)
{
    (void)state;
    atomic_bool cancel = false;
    struct script s = {.fails = 99, .rc = RC_AGAIN, .hint.after_ms = 60000};
    struct call c = {.cancel = &cancel};
    pthread_t thread;
    int64_t from_ms = os_mono_ms();
    assert_int_equal(thr_start(&thread, "cancel", cancel_later, &cancel, &err), RC_OK);
    assert_int_equal(retry_run(NULL, &c, step, &s, &err), RC_CANCELED);
    assert_in_range(os_mono_ms() - from_ms, 50, 30000);
    pthread_join(thread, NULL);
    assert_int_equal(s.calls, 1);
    assert_int_equal(retry_run(NULL, &c, step, &s, &err), RC_CANCELED);
    assert_int_equal(s.calls, 1);
}

static void test_budget(void **state)
{
    (void)state;
    struct pacer *p = pacer("budget");
    spend(p, 2 * RETRY_COST);
    assert_int_equal(look(p).budget, 2 * RETRY_COST);
    struct script s = {.fails = 99, .rc = RC_AGAIN};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(s.calls, 3); /* two retries were left */
    s.calls = 0;
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(s.calls, 1);
    assert_int_equal(look(p).budget, 0);
    /* First tries that succeed fill it again. */
    for (int i = 0; i < RETRY_COST; i++) {
        s = (struct script){0};
        assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_OK);
    }
    s = (struct script){.fails = 1, .rc = RC_AGAIN};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_OK);
    assert_int_equal(s.calls, 2);
    assert_int_equal(look(p).budget, 0); /* the second try's success gives nothing back */
    pacer_close(p);
}

static void test_slots(void **state)
{
    (void)state;
    struct pacer *p = pacer("slots"), *same = pacer("slots"), *other = pacer("other");
    assert_ptr_equal(p, same);
    assert_ptr_not_equal(p, other);
    struct retry_hint hint = {.throttled = true, .final = true};
    for (unsigned want = RETRY_SLOTS / 2; want >= 1; want /= 2) {
        struct script s = {.fails = 1, .rc = RC_AGAIN, .hint = hint};
        assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
        assert_int_equal(look(p).slots, want);
    }
    struct script s = {.fails = 1, .rc = RC_AGAIN, .hint = hint};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(look(p).slots, 1);
    assert_int_equal(look(other).slots, RETRY_SLOTS);
    /* One more after 1, 2, 3, ... good answers; "not found" is one. */
    for (unsigned slots = 1; slots < 6; slots++) {
        for (unsigned i = 0; i < slots; i++) {
            assert_int_equal(look(p).slots, slots);
            s = (struct script){.fails = i % 2, .rc = RC_NOT_FOUND};
            assert_int_equal(retry_run(p, NULL, step, &s, &err), i % 2 ? RC_NOT_FOUND : RC_OK);
        }
        assert_int_equal(look(p).slots, slots + 1);
    }
    pacer_close(same);
    pacer_close(p);
    p = pacer("slots"); /* a new one: the old one is gone with its last user */
    assert_int_equal(look(p).slots, RETRY_SLOTS);
    pacer_close(p);
    pacer_close(other);
    pacer_close(NULL);
}

struct crowd {
    struct pacer *p;
    struct retry_hint hint;
    enum rc rc;
    atomic_uint busy, busy_max;
    unsigned together; /* wait until so many are here */
};

static enum rc crowd_step(void *ctx, struct retry_hint *hint, struct err *e)
{
    struct crowd *crowd = ctx;
    unsigned busy = atomic_fetch_add(&crowd->busy, 1) + 1, max = atomic_load(&crowd->busy_max);
    while (busy > max && !atomic_compare_exchange_weak(&crowd->busy_max, &max, busy))
        continue;
    int64_t end_ms = os_mono_ms() + 60000;
    do
        os_sleep_ms(5);
    while (atomic_load(&crowd->busy_max) < crowd->together && os_mono_ms() < end_ms);
    atomic_fetch_sub(&crowd->busy, 1);
    *hint = crowd->hint;
    return crowd->rc == RC_OK ? RC_OK : err_set(e, crowd->rc, "slow down");
}

static enum rc crowd_each(void *ctx, uint64_t i, struct err *e)
{
    (void)i;
    struct crowd *crowd = ctx;
    enum rc rc = retry_run(crowd->p, NULL, crowd_step, crowd, e);
    return rc == crowd->rc ? RC_OK : err_set(e, RC_INVALID, "%s", rc_name(rc));
}

static void test_crowd(void **state)
{
    (void)state;
    struct pacer *p = pacer("crowd");
    struct crowd crowd = {.p = p, .together = 3};
    struct retry_hint hint = {.throttled = true, .final = true};
    for (int i = 0; i < 4; i++) {
        struct script s = {.fails = 1, .rc = RC_AGAIN, .hint = hint};
        assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    }
    assert_int_equal(look(p).slots, 4);
    assert_int_equal(thr_each(32, 40, crowd_each, &crowd, &err), RC_OK);
    assert_in_range(atomic_load(&crowd.busy_max), 3, look(p).slots);
    assert_true(look(p).slots > 4);
    assert_int_equal(look(p).busy, 0);
    /* A burst that is throttled together halves the slots once, not once for each of them. */
    unsigned before = look(p).slots;
    crowd = (struct crowd){.p = p, .rc = RC_AGAIN, .hint = hint, .together = before};
    assert_int_equal(thr_each(before, before, crowd_each, &crowd, &err), RC_OK);
    assert_int_equal(atomic_load(&crowd.busy_max), before);
    assert_int_equal(look(p).slots, before / 2);
    pacer_close(p);
}

/* Waiting for a slot ends with the deadline. */
static void *wait_outside(void *arg)
{
    struct crowd *crowd = arg;
    struct script s = {0};
    struct call c = {.deadline_ms = os_mono_ms() + 80};
    assert_int_equal(retry_run(crowd->p, &c, step, &s, &err), RC_CANCELED);
    assert_int_equal(s.calls, 0);
    assert_non_null(strstr(err.text, "'turn'"));
    return NULL;
}

static enum rc wait_inside(void *ctx, struct retry_hint *hint, struct err *e)
{
    (void)hint;
    pthread_t other;
    assert_int_equal(thr_start(&other, "other", wait_outside, ctx, e), RC_OK);
    pthread_join(other, NULL);
    return RC_OK;
}

/* Who has the slot wants another (credentials from the same host, a sink that uses the store). */
static enum rc ask_inside(void *ctx, struct retry_hint *hint, struct err *e)
{
    (void)hint;
    struct crowd *crowd = ctx;
    struct script s = {0};
    struct call c = {.deadline_ms = os_mono_ms() + 30000};
    TRY(retry_run(crowd->p, &c, step, &s, e));
    assert_int_equal(look(crowd->p).busy, 1);
    return RC_OK;
}

static void test_turn(void **state)
{
    (void)state;
    struct pacer *p = pacer("turn");
    struct crowd crowd = {.p = p};
    for (int i = 0; i < 7; i++) {
        struct script s = {.fails = 1, .rc = RC_AGAIN, .hint = {.throttled = true, .final = true}};
        assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    }
    assert_int_equal(look(p).slots, 1);
    int64_t from_ms = os_mono_ms();
    assert_int_equal(retry_run(p, NULL, wait_inside, &crowd, &err), RC_OK);
    assert_in_range(os_mono_ms() - from_ms, 80, 30000);
    assert_int_equal(look(p).slots, 2);
    struct script s = {.fails = 1, .rc = RC_AGAIN, .hint = {.throttled = true, .final = true}};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    assert_int_equal(look(p).slots, 1);
    assert_int_equal(retry_run(p, NULL, ask_inside, &crowd, &err), RC_OK);
    assert_int_equal(look(p).busy, 0);
    pacer_close(p);
}

static struct store_trouble told;
static unsigned told_count;
static char told_name[32];

static void on_trouble(void *ctx, const char *name, const struct store_trouble *t)
{
    assert_ptr_equal(ctx, &told);
    told = *t;
    told_count++;
    snprintf(told_name, sizeof told_name, "%s", name);
}

static void test_trouble(void **state)
{
    (void)state;
    struct pacer *p = NULL, *same = NULL;
    assert_int_equal(pacer_open("trouble", on_trouble, &told, &p, &err), RC_OK);
    assert_int_equal(pacer_open("trouble", on_trouble, NULL, &same, &err), RC_OK);
    struct script s = {.fails = 3, .rc = RC_AGAIN};
    int64_t from_ms = os_mono_ms();
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_OK);
    int64_t took_ms = os_mono_ms() - from_ms;
    assert_int_equal(told_count, 1);
    assert_int_equal(told.count, 3);
    assert_string_equal(told.first.text, "cause 1");
    assert_string_equal(told.last.text, "cause 3");
    assert_string_equal(told_name, "trouble");
    assert_in_range(told.elapsed_ms, s.at_ms[3] - s.at_ms[1], took_ms); /* from the first failure */
    /* Not while it lasts, and for nothing that was mended at once or says nothing. */
    s = (struct script){.fails = 1, .rc = RC_AGAIN, .hint.final = true};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_AGAIN);
    s = (struct script){.fails = 1, .rc = RC_DENIED};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_DENIED);
    assert_int_equal(told_count, 1);
    s = (struct script){0};
    assert_int_equal(retry_run(same, NULL, step, &s, &err), RC_OK);
    assert_int_equal(told_count, 2);
    assert_int_equal(told.count, 1);
    s = (struct script){.fails = 1, .rc = RC_AGAIN, .hint.at_once = true};
    assert_int_equal(retry_run(p, NULL, step, &s, &err), RC_OK);
    assert_int_equal(told_count, 2);
    pacer_close(p);
    pacer_close(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),  cmocka_unit_test(test_final),
        cmocka_unit_test(test_tries),    cmocka_unit_test(test_text),
        cmocka_unit_test(test_deadline), cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_cancel),   cmocka_unit_test(test_budget),
        cmocka_unit_test(test_slots),    cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_turn),     cmocka_unit_test(test_trouble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
