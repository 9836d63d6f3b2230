/* token_test.c -- who fetches a token, who waits, and what a failure means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/os.h"
#include "store/token.h"

#define MANY 8

static struct err err;

struct source {
    struct token token;
    atomic_uint fetches, users;
    enum rc rc; /* not RC_OK: fetches fail */
    int64_t life_ms, takes_ms;
};

static enum rc fetch(void *ctx, const struct call *c, struct buf *out, int64_t *ret_life_ms,
                     struct err *e)
{
    struct source *s = ctx;
    unsigned number = atomic_fetch_add(&s->fetches, 1) + 1;
    /* Until all the others wait, which nobody can see, so a while longer. */
    while (atomic_load(&s->users) > 0 && atomic_load(&s->users) < MANY)
        os_sleep_ms(1);
    os_sleep_ms(s->takes_ms);
    TRY(call_check(c, e));
    if (s->rc != RC_OK) return err_set(e, s->rc, "refused");
    TRY(buf_printf(out, e, "token %u", number));
    TRY(buf_append(out, "", 1, e));
    *ret_life_ms = s->life_ms;
    return RC_OK;
}

static void begin(struct source *s, int64_t life_ms, int64_t takes_ms)
{
    *s = (struct source){.life_ms = life_ms, .takes_ms = takes_ms};
    token_init(&s->token, fetch, s);
}

static enum rc get(struct source *s, const char *want)
{
    CLEANUP(token_wipe) struct buf text = BUF_INIT;
    struct call c = {.deadline_ms = os_mono_ms() + 30000};
    enum rc rc = token_get(&s->token, &c, &text, &err);
    if (rc == RC_OK) assert_string_equal((char *)text.data, want);
    return rc;
}

static enum rc get_each(void *ctx, uint64_t i, struct err *e)
{
    struct source *s = ctx;
    CLEANUP(token_wipe) struct buf text = BUF_INIT;
    (void)i;
    atomic_fetch_add(&s->users, 1);
    return token_get(&s->token, NULL, &text, e);
}

static void test_life(void **state)
{
    (void)state;
    struct source s;
    begin(&s, 3600000, 0);
    assert_int_equal(get(&s, "token 1"), RC_OK);
    assert_int_equal(get(&s, "token 1"), RC_OK);
    assert_in_range(s.token.renew_ms, os_mono_ms() + 3200000, os_mono_ms() + 3300000);
    token_expired(&s.token, "token 0"); /* somebody has fetched another one since */
    assert_int_equal(get(&s, "token 1"), RC_OK);
    token_expired(&s.token, "token 1");
    s.life_ms = 20000; /* of a short life the half */
    assert_int_equal(get(&s, "token 2"), RC_OK);
    assert_in_range(s.token.renew_ms, os_mono_ms() + 5000, os_mono_ms() + 10000);
    token_fini(&s.token);
}

/* The old one is used as long as it is good, without a try each time. */
static void test_old_one(void **state)
{
    (void)state;
    struct source s;
    begin(&s, 3600000, 0);
    assert_int_equal(get(&s, "token 1"), RC_OK);
    s.rc = RC_AGAIN;
    s.token.renew_ms = os_mono_ms();
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(&s, "token 1"), RC_OK);
    assert_int_equal(atomic_load(&s.fetches), 2);
    s.token.expires_ms = os_mono_ms();
    assert_int_equal(get(&s, ""), RC_AGAIN);
    s.rc = RC_OK;
    assert_int_equal(get(&s, "token 4"), RC_OK);
    token_fini(&s.token);
}

/* What is missing here is no object, and what is in the way is no other writer. */
static void test_codes(void **state)
{
    (void)state;
    static const enum rc codes[][2] = {{RC_NOT_FOUND, RC_DENIED},
                                       {RC_CONFLICT, RC_DENIED},
                                       {RC_DENIED, RC_DENIED},
                                       {RC_AGAIN, RC_AGAIN},
                                       {RC_INVALID, RC_INVALID}};
    struct source s;
    begin(&s, 3600000, 0);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        s.rc = codes[i][0];
        assert_int_equal(get(&s, ""), codes[i][1]);
        assert_int_equal(err.rc, codes[i][1]);
        assert_string_equal(err.text, "refused");
    }
    token_fini(&s.token);
}

/* One that has expired when it comes is no reason to fetch for ever. */
static void test_expired_at_birth(void **state)
{
    (void)state;
    struct source s;
    begin(&s, 10, 30);
    assert_int_equal(get(&s, ""), RC_AGAIN);
    assert_non_null(strstr(err.text, "expired already"));
    assert_int_equal(atomic_load(&s.fetches), 1);
    token_fini(&s.token);
}

/* One asks; what comes of it, be it a failure, is for all that wait. */
static void test_together(void **state)
{
    (void)state;
    struct source s;
    begin(&s, 3600000, 400);
    assert_int_equal(thr_each(MANY, MANY, get_each, &s, &err), RC_OK);
    assert_int_equal(atomic_load(&s.fetches), 1);
    s.rc = RC_DENIED;
    token_expired(&s.token, "token 1");
    atomic_store(&s.users, 0);
    assert_int_equal(thr_each(MANY, MANY, get_each, &s, &err), RC_DENIED);
    assert_in_range(atomic_load(&s.fetches), 2, 3); /* who comes too late asks again */
    token_fini(&s.token);
}

/* That one caller's time was up is nobody else's failure. */
static void test_given_up(void **state)
{
    (void)state;
    struct source s;
    struct call c = {.deadline_ms = os_mono_ms() + 300};
    CLEANUP(token_wipe) struct buf text = BUF_INIT;
    begin(&s, 3600000, 400);
    assert_int_equal(token_get(&s.token, &c, &text, &err), RC_CANCELED);
    assert_int_equal(s.token.fail_count, 0);
    assert_int_equal(get(&s, "token 2"), RC_OK);
    token_fini(&s.token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),     cmocka_unit_test(test_old_one),
        cmocka_unit_test(test_codes),    cmocka_unit_test(test_expired_at_birth),
        cmocka_unit_test(test_together), cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
