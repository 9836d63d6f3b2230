/* batons_test.c -- streams between two requests: clean and live, forged, replayed, late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/fault.h"
#include "server/batons.h"
#include "server/exec_bed.h"

static struct xbed b;
static struct batons *batons;
static struct err err;
static struct sql_error e;
static unsigned released;

static void on_release(void *ctx, struct tenant *t)
{
    (void)ctx;
    released++;
    fake_release(b.ts, t);
}

static struct batons *make(uint8_t key, int64_t idle_ms, size_t live_max)
{
    struct batons_opts opts = {
        .idle_ms = idle_ms, .txn_idle_ms = idle_ms, .live_max = live_max, .release = on_release};
    struct batons *made;
    memset(opts.key, key, sizeof opts.key);
    assert_int_equal(batons_new(&opts, &made, &err), RC_OK);
    return made;
}

static struct session *session(void)
{
    struct session *s = mem_calloc(1, sizeof *s);
    assert_non_null(s);
    assert_ptr_equal(fake_peek(b.ts, "default"), b.t);
    xbed_session(&b, s);
    return s;
}

static void drop(struct session *s)
{
    session_fini(s);
    mem_free(s);
    fake_release(b.ts, b.t);
}

static enum rc take(const char *tenant, const char *baton, struct session **ret_s,
                    struct stored *stored, struct sql_last *last)
{
    *stored = (struct stored){0};
    return batons_take(batons, tenant, baton, NULL, ret_s, stored, last, &e, &err);
}

static void begin(int64_t idle_ms, size_t live_max)
{
    xbed_new(&b, NULL);
    released = 0;
    batons = make(7, idle_ms, live_max);
}

static void end(void)
{
    batons_free(batons);
    xbed_free(&b);
}

static void test_clean(void **state)
{
    (void)state;
    struct buf out = BUF_INIT;
    struct session *s, *back;
    struct stored stored;
    struct sql_last last;
    bool kept;
    begin(0, 0);
    s = session();
    assert_int_equal(stored_set(&s->own, 5, "SELECT 5", 8, &err), RC_OK);
    assert_int_equal(stored_set(&s->own, -1, "", 0, &err), RC_OK);
    s->stream.last = (struct sql_last){.rowid = INT64_MIN, .changes = 3, .total = INT64_MAX};
    assert_int_equal(batons_give(batons, s, &out, &kept, &err), RC_OK);
    assert_false(kept);
    assert_int_equal(batons_live(batons), 0);
    assert_int_equal(batons_ttl_ms(batons, s), 0);
    /* After a restart, and as often as one likes. */
    for (int i = 0; i < 3; i++) {
        batons_free(batons);
        batons = make(7, 0, 0);
        assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_OK);
        assert_null(back);
        assert_int_equal(stored.count, 2);
        assert_string_equal(stored_find(&stored, 5)->text, "SELECT 5");
        assert_int_equal(stored_find(&stored, -1)->size, 0);
        assert_true(last.rowid == INT64_MIN && last.changes == 3 && last.total == INT64_MAX);
        stored_fini(&stored);
    }
    assert_int_equal(take("defaul", (char *)out.data, &back, &stored, &last), RC_NOT_FOUND);
    assert_string_equal(e.code, "STREAM_NOT_FOUND");
    batons_free(batons);
    batons = make(8, 0, 0);
    assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_NOT_FOUND);
    drop(s);
    buf_fini(&out);
    end();
}

/* Every other text is refused, whatever it is. */
static void test_forged(void **state)
{
    (void)state;
    struct buf clean = BUF_INIT, live = BUF_INIT;
    struct baton_id id;
    struct session *s, *back;
    struct stored stored;
    struct sql_last last;
    bool kept;
    begin(0, 0);
    s = session();
    assert_int_equal(stored_set(&s->own, 1, "SELECT 1", 8, &err), RC_OK);
    assert_int_equal(batons_give(batons, s, &clean, &kept, &err), RC_OK);
    assert_int_equal(batons_promise(batons, "default", &id, &live, &err), RC_OK);
    static char huge[100001];
    memset(huge, 'A', sizeof huge - 1);
    const char *const bad[] = {
        "", "A", "AA", "Y", "YwAA", "\xff\xff", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", huge};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(take("default", bad[i], &back, &stored, &last), RC_NOT_FOUND);
        assert_string_equal(e.code, "STREAM_NOT_FOUND");
    }
    struct buf *const both[] = {&clean, &live};
    for (size_t n = 0; n < 2; n++) {
        char *text = (char *)both[n]->data;
        for (size_t i = 0; i < both[n]->size - 1; i++) {
            char was = text[i];
            text[i] = was == 'A' ? 'B' : 'A';
            enum rc rc = take("default", text, &back, &stored, &last);
            text[i] = was;
            if (rc == RC_OK) fail_msg("baton %zu with another character %zu", n, i);
            assert_string_equal(e.code, "STREAM_NOT_FOUND");
            was = text[i];
            text[i] = '\0';
            assert_int_equal(take("default", text, &back, &stored, &last), RC_NOT_FOUND);
            text[i] = was;
        }
    }
    assert_int_equal(take("default", (char *)live.data, &back, &stored, &last), RC_AGAIN);
    batons_keep(batons, &id, NULL);
    assert_int_equal(take("default", (char *)live.data, &back, &stored, &last), RC_NOT_FOUND);
    assert_string_equal(e.code, "STREAM_EXPIRED");
    drop(s);
    buf_fini(&clean);
    buf_fini(&live);
    end();
}

/* Somebody who waits for what is promised. */
struct waiter {
    struct baton_wait w;
    const char *baton;
    unsigned calls;
    enum rc rc;
    struct session *got;
    struct sql_error e;
};

static void on_call(struct baton_wait *w)
{
    ((struct waiter *)w)->calls++;
}

static enum rc again(struct waiter *w)
{
    struct err mine;
    struct stored stored = {0};
    struct sql_last last;
    w->calls = 0;
    w->rc = batons_take(batons, "default", w->baton, &w->w, &w->got, &stored, &last, &w->e, &mine);
    return w->rc;
}

static enum rc wait_for(struct waiter *w, const struct buf *baton, int64_t wait_ms)
{
    *w = (struct waiter){.baton = (const char *)baton->data};
    w->w = (struct baton_wait){.fn = on_call, .deadline_ms = os_mono_ms() + wait_ms};
    return again(w);
}

static struct session *open_session(void)
{
    struct session *s = session();
    EXPECT(&b, s, SQL("BEGIN"), GOOD);
    return s;
}

/* A client comes back with a baton whose cursor has not ended; it waits, and no thread does. */
static void test_promised(void **state)
{
    (void)state;
    struct waiter w, second;
    begin(0, 2);
    for (int round = 0; round < 3; round++) {
        struct buf out = BUF_INIT, full = BUF_INIT;
        struct baton_id id, other;
        struct session *s = open_session(), *back;
        struct stored stored;
        struct sql_last last;
        assert_int_equal(batons_promise(batons, "default", &id, &out, &err), RC_OK);
        assert_int_equal(batons_live(batons), 1);
        assert_int_equal(batons_promise(batons, "default", &other, &full, &err), RC_OK);
        assert_int_equal(batons_promise(batons, "default", &other, &full, &err), RC_BUSY);
        batons_keep(batons, &other, NULL);
        batons_drop_tenant(batons, "defaul");
        assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_AGAIN);
        assert_int_equal(wait_for(&w, &out, 20000), RC_AGAIN);
        assert_int_equal(wait_for(&second, &out, 20000), RC_NOT_FOUND); /* one is enough */
        assert_string_equal(second.e.message, "The stream is busy with a cursor");
        batons_tick(batons);
        assert_int_equal(w.calls, 0);
        batons_keep(batons, &id, round == 2 ? NULL : s);
        assert_int_equal(w.calls, 1);
        assert_int_equal(again(&w), round == 2 ? RC_NOT_FOUND : RC_OK);
        if (round < 2) assert_ptr_equal(w.got, s);
        assert_int_equal(batons_live(batons), 0);
        assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_NOT_FOUND);
        assert_string_equal(e.code, "STREAM_EXPIRED");
        drop(s);
        buf_fini(&out);
        buf_fini(&full);
    }
    end();
}

/* Those who wait are told when it is too late, or when they have gone; then others may wait. */
static void test_promised_too_late(void **state)
{
    (void)state;
    struct waiter w[3];
    struct buf out[3] = {BUF_INIT, BUF_INIT, BUF_INIT};
    struct baton_id id[3];
    atomic_bool gone = false;
    begin(0, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(batons_promise(batons, "default", &id[i], &out[i], &err), RC_OK);
        assert_int_equal(wait_for(&w[i], &out[i], i == 0 ? 300 : 20000), RC_AGAIN);
    }
    w[1].w.gone = &gone;
    os_sleep_ms(310);
    batons_tick(batons);
    atomic_store(&gone, true);
    batons_tick(batons);
    batons_tick(batons);
    assert_int_equal(w[0].calls, 1);
    assert_int_equal(w[1].calls, 1);
    assert_int_equal(w[2].calls, 0);
    assert_int_equal(again(&w[0]), RC_NOT_FOUND);
    assert_string_equal(w[0].e.code, "STREAM_EXPIRED");
    assert_string_equal(w[0].e.message, "The stream is busy with a cursor");
    assert_int_equal(wait_for(&w[0], &out[0], 20000), RC_AGAIN);
    struct session *s = open_session();
    batons_keep(batons, &id[1], s); /* it came, after all */
    assert_int_equal(again(&w[1]), RC_OK);
    assert_ptr_equal(w[1].got, s);
    drop(s);
    batons_keep(batons, &id[0], NULL);
    batons_keep(batons, &id[2], NULL);
    assert_int_equal(w[0].calls + w[2].calls, 2);
    for (int i = 0; i < 3; i++)
        buf_fini(&out[i]);
    end();
}

/* A tenant goes while a cursor runs: what the cursor leaves open is not kept, or the tenant would
 * stay in use. */
static void test_promised_and_dropped(void **state)
{
    (void)state;
    begin(0, 0);
    for (int round = 0; round < 2; round++) {
        struct buf out = BUF_INIT;
        struct baton_id id;
        struct session *s = open_session(), *back;
        struct stored stored;
        struct sql_last last;
        released = 0;
        assert_int_equal(batons_promise(batons, "default", &id, &out, &err), RC_OK);
        batons_drop_tenant(batons, round == 0 ? "default" : NULL);
        assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_AGAIN);
        batons_keep(batons, &id, s);
        assert_int_equal(released, 1);
        assert_int_equal(batons_live(batons), 0);
        assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_NOT_FOUND);
        assert_string_equal(e.code, "STREAM_EXPIRED");
        buf_fini(&out);
    }
    end();
}

/* A stream that a cursor has left without any state does not keep its tenant open. */
static void test_rest(void **state)
{
    (void)state;
    begin(1000, 0);
    for (int round = 0; round < 4; round++) {
        struct buf out = BUF_INIT;
        struct baton_id id;
        struct session *s = session(), *back;
        struct stored stored;
        struct sql_last last = {0};
        released = 0;
        assert_int_equal(stored_set(&s->own, 5, "SELECT 5", 8, &err), RC_OK);
        s->stream.last = (struct sql_last){.rowid = 1, .changes = 2, .total = 3};
        assert_int_equal(batons_promise(batons, "default", &id, &out, &err), RC_OK);
        if (round == 1) batons_drop_tenant(batons, "default");
        batons_keep(batons, &id, s);
        assert_int_equal(released, 1);
        assert_int_equal(batons_live(batons), 1);
        batons_drop_tenant(batons, "default"); /* a clean baton would outlast it, too */
        if (round == 2) os_sleep_ms(1010);
        batons_tick(batons);
        if (round < 2) {
            assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_OK);
            assert_null(back);
            assert_string_equal(stored_find(&stored, 5)->text, "SELECT 5");
            assert_true(last.rowid == 1 && last.changes == 2 && last.total == 3);
            stored_fini(&stored);
        }
        if (round < 3) { /* once; the last one ends with all */
            assert_int_equal(batons_live(batons), 0);
            assert_int_equal(take("default", (char *)out.data, &back, &stored, &last),
                             RC_NOT_FOUND);
            assert_string_equal(e.code, "STREAM_EXPIRED");
        }
        buf_fini(&out);
    }
    end();
}

static void test_live(void **state)
{
    (void)state;
    struct buf out = BUF_INIT, second = BUF_INIT;
    struct session *s, *back;
    struct stored stored;
    struct sql_last last;
    bool kept;
    begin(1000, 2);
    EXPECT(&b, (s = session()),
           SQL("CREATE TABLE t(a)") "," SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (1)"),
           GOOD);
    assert_int_equal(batons_give(batons, s, &out, &kept, &err), RC_OK);
    assert_true(kept);
    assert_int_equal(batons_live(batons), 1);
    assert_int_equal(take("other", (char *)out.data, &back, &stored, &last), RC_NOT_FOUND);
    assert_string_equal(e.code, "STREAM_NOT_FOUND");
    assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_OK);
    assert_ptr_equal(back, s);
    EXPECT(&b, s, SQL("INSERT INTO t VALUES (2)"), GOOD);
    assert_int_equal(batons_give(batons, s, &second, &kept, &err), RC_OK);
    assert_true(kept);
    assert_string_not_equal((char *)out.data, (char *)second.data);
    /* Used before. */
    assert_int_equal(take("default", (char *)out.data, &back, &stored, &last), RC_NOT_FOUND);
    assert_string_equal(e.code, "STREAM_EXPIRED");
    /* Too late: what was open is rolled back, the tenant released. */
    batons_tick(batons);
    assert_int_equal(batons_live(batons), 1);
    os_sleep_ms(1010);
    batons_tick(batons);
    assert_int_equal(batons_live(batons), 0);
    assert_int_equal(released, 1);
    assert_int_equal(take("default", (char *)second.data, &back, &stored, &last), RC_NOT_FOUND);
    assert_string_equal(e.code, "STREAM_EXPIRED");
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 0);
    /* After a restart. */
    batons_free(batons);
    batons = make(7, 0, 0);
    assert_int_equal(take("default", (char *)second.data, &back, &stored, &last), RC_NOT_FOUND);
    assert_string_equal(e.code, "STREAM_EXPIRED");
    assert_non_null(strstr(e.message, "restarted"));
    buf_fini(&out);
    buf_fini(&second);
    end();
}

/* Much stored SQL does not fit into a text; many streams find each other again. */
static void test_many(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    static struct buf out[COUNT];
    static char text[5000];
    struct session *s, *back;
    struct stored stored;
    struct sql_last last;
    bool kept;
    begin(0, COUNT);
    memset(text, ' ', sizeof text);
    for (int i = 0; i < COUNT; i++) {
        s = session();
        assert_int_equal(stored_set(&s->own, i, text, sizeof text, &err), RC_OK);
        assert_int_equal(batons_give(batons, s, &out[i], &kept, &err), RC_OK);
        assert_true(kept);
    }
    s = session();
    struct buf full = BUF_INIT;
    assert_int_equal(stored_set(&s->own, 1, text, sizeof text, &err), RC_OK);
    assert_int_equal(batons_give(batons, s, &full, &kept, &err), RC_BUSY);
    assert_false(kept);
    drop(s);
    buf_fini(&full);
    for (int i = 0; i < COUNT; i += 3) {
        assert_int_equal(take("default", (char *)out[i].data, &back, &stored, &last), RC_OK);
        assert_non_null(stored_find(&back->own, i));
        drop(back);
    }
    batons_drop_tenant(batons, "another");
    assert_int_equal(batons_live(batons), COUNT - COUNT / 3);
    batons_drop_tenant(batons, "default");
    assert_int_equal(batons_live(batons), 0);
    assert_int_equal(released, COUNT - COUNT / 3);
    for (int i = 0; i < COUNT; i++)
        buf_fini(&out[i]);
    end();
}

/* Each allocation fails in turn: a session is kept or is still the caller's. */
static void test_memory(void **state)
{
    (void)state;
    static char text[5000];
    begin(0, 0);
    memset(text, 'x', sizeof text);
    for (int big = 0; big < 2; big++) {
        bool done = false;
        for (uint64_t n = 1; !done; n++) {
            struct buf out = BUF_INIT;
            struct session *s = session(), *back;
            struct stored stored;
            struct sql_last last;
            bool kept = false;
            for (int i = 0; i < 20; i++)
                assert_int_equal(stored_set(&s->own, i, text, big ? sizeof text : 20, &err), RC_OK);
            fault_arm(FAULT_ALLOC, n, false);
            enum rc rc = batons_give(batons, s, &out, &kept, &err);
            assert_true(rc == RC_OK || (rc == RC_NO_MEM && !kept));
            if (rc == RC_OK) {
                if (!kept) drop(s);
                rc = take("default", (char *)out.data, &back, &stored, &last);
                if (rc == RC_OK && back != NULL) drop(back);
                stored_fini(&stored);
            } else {
                drop(s);
            }
            assert_true(rc == RC_OK || rc == RC_NO_MEM);
            done = !fault_fired();
            fault_arm(0, 0, false);
            buf_fini(&out);
        }
    }
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_forged),
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_promised),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_promised_and_dropped),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_promised_too_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
