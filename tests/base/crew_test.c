/* crew_test.c -- order, submitting from inside, freeing inside, nothing forgotten at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include "base/crew.h"
#include "base/mem.h"

struct item {
    struct crew_job job;
    struct crew *crew;
    atomic_int *ran;
    int number, again;
};

static int order[100];
static atomic_int order_count;

static void run_item(struct crew_job *job)
{
    struct item *i = (struct item *)job;
    atomic_fetch_add(i->ran, 1);
    if (i->again-- > 0)
        crew_submit(i->crew, job);
    else
        mem_free(i);
}

static void run_ordered(struct crew_job *job)
{
    struct item *i = (struct item *)job;
    order[atomic_fetch_add(&order_count, 1)] = i->number;
    mem_free(i);
}

static struct item *item_new(struct crew *c, void (*run)(struct crew_job *), atomic_int *ran)
{
    struct item *i = mem_calloc(1, sizeof *i);
    assert_non_null(i);
    i->job.run = run;
    i->crew = c;
    i->ran = ran;
    return i;
}

static void test_all_run(void **state)
{
    struct crew *c = NULL;
    struct err err;
    atomic_int ran = 0;
    (void)state;
    assert_int_equal(crew_new("crew", 4, 5, &c, &err), RC_OK);
    for (int n = 0; n < 1000; n++) {
        struct item *i = item_new(c, run_item, &ran);
        i->again = 3;
        crew_submit(c, &i->job);
    }
    crew_free(c);
    assert_int_equal(ran, 4000);
}

static void test_order(void **state)
{
    struct crew *c = NULL;
    struct err err;
    (void)state;
    assert_int_equal(crew_new("crew", 1, 0, &c, &err), RC_OK);
    for (int n = 0; n < 100; n++) {
        struct item *i = item_new(c, run_ordered, NULL);
        i->number = n;
        crew_submit(c, &i->job);
    }
    crew_free(c);
    assert_int_equal(order_count, 100);
    for (int n = 0; n < 100; n++)
        assert_int_equal(order[n], n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_run),
                                       cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
