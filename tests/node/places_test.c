/*
 * places_test.c -- more tenants are wanted at once than may be open: who waits, in which order, for
 * how long; tenants that are in use all the time; a crowd; faults. Seed: SLUICE_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/thr.h"
#include "node/tbed.h"
#include "node/tenants_intern.h"
#include "node/wait.h"

#define TENANTS     12
#define SETTLE_MS   10 /* one stays open so long, when others wait */
#define CROWD_MS    1500
#define LATE_MS     600
#define HELD_MS     2000
#define LONG_MS     60000 /* nobody waits so long, unless it hangs */
#define CROWD_COUNT 24

struct asker {
    struct tenant_place p;
    struct tenants *ts;
    char name[8];
    atomic_bool gone;
    atomic_int calls;
    enum rc rc;
    struct tenant *t;
    struct err err;
};

static void on_call(struct tenant_place *p)
{
    struct asker *a = (struct asker *)p;
    atomic_fetch_add(&a->calls, 1);
}

static enum rc again(struct asker *a)
{
    atomic_store(&a->calls, 0);
    a->rc = tenants_ops.open_soon(a->ts, a->name, &a->p, &a->t, &a->err);
    return a->rc;
}

static enum rc ask(struct asker *a, struct tenants *ts, const char *name, int64_t wait_ms)
{
    *a = (struct asker){.ts = ts};
    a->p = (struct tenant_place){
        .fn = on_call, .gone = &a->gone, .deadline_ms = os_mono_ms() + wait_ms};
    snprintf(a->name, sizeof a->name, "%s", name);
    return again(a);
}

/* Whenever it is called. */
static enum rc settle(struct asker *a)
{
    while (a->rc == RC_AGAIN) {
        WAIT_FOR(atomic_load(&a->calls) > 0);
        assert_int_equal(atomic_load(&a->calls), 1);
        again(a);
    }
    return a->rc;
}

/* There is no place for these, up to a NULL. The thread may have seen one while it was free, and
 * call somebody for that yet; but that ends. */
static void in_vain(struct asker *const *askers)
{
    for (int i = 0; i < 100; i++) {
        unsigned called = 0;
        os_sleep_ms(60);
        for (struct asker *const *a = askers; *a != NULL; a++) {
            if (atomic_load(&(*a)->calls) == 0) continue;
            assert_int_equal(again(*a), RC_AGAIN);
            called++;
        }
        if (called == 0) return;
    }
    fail_msg("they are called again and again");
}
#define IN_VAIN(...) in_vain((struct asker *const[]){__VA_ARGS__, NULL})

static void leave(struct asker *a)
{
    tenants_ops.release(a->ts, a->t);
    a->t = NULL;
}

static void start(struct tbed *b, unsigned open_max)
{
    char name[8];
    struct err err = {0};
    tbed_new(b);
    b->opts.open_max = open_max;
    b->opts.full_sync = false;
    tbed_start(b);
    for (int i = 0; i < TENANTS; i++) {
        snprintf(name, sizeof name, "n%d", i);
        if (tenants_ops.create(b->ts, name, NULL, &err) != RC_OK) fail_msg("%s", err.text);
    }
}

static unsigned waiting(struct tbed *b)
{
    struct tenants_stats st;
    tenants_look(b->ts, &st);
    return st.waiting;
}

static void stop(struct tbed *b)
{
    assert_int_equal(waiting(b), 0);
    tbed_stop_ok(b);
    tbed_free(b);
}

static void test_order(void **state)
{
    struct tbed b;
    struct asker a[7];
    (void)state;
    start(&b, 2);
    assert_int_equal(ask(&a[0], b.ts, "n0", LONG_MS), RC_OK);
    assert_int_equal(ask(&a[1], b.ts, "n1", LONG_MS), RC_OK);
    assert_int_equal(ask(&a[2], b.ts, "n2", LONG_MS), RC_AGAIN);
    assert_int_equal(ask(&a[3], b.ts, "n3", LONG_MS), RC_AGAIN);
    assert_int_equal(ask(&a[4], b.ts, "n2", LONG_MS), RC_AGAIN);
    assert_int_equal(ask(&a[5], b.ts, "none", LONG_MS), RC_NOT_FOUND); /* takes no turn */
    assert_int_equal(waiting(&b), 3);
    os_sleep_ms(SETTLE_MS);
    leave(&a[0]);
    assert_int_equal(a[2].calls, 1);
    /* In vain: the tenant is in use again. It does not lose its turn. */
    assert_int_equal(tenants_ops.open(b.ts, "n0", &a[0].t, &a[0].err), RC_OK);
    assert_int_equal(again(&a[2]), RC_AGAIN);
    IN_VAIN(&a[2], &a[3], &a[4]);
    leave(&a[0]);
    assert_int_equal(a[2].calls, 1);
    /* Who comes now is behind the one that was called. */
    assert_int_equal(ask(&a[6], b.ts, "n4", LONG_MS), RC_AGAIN);
    assert_int_equal(settle(&a[2]), RC_OK);
    assert_int_equal(a[4].calls, 1); /* the same tenant: no other place */
    assert_int_equal(settle(&a[4]), RC_OK);
    assert_ptr_equal(a[2].t, a[4].t);
    IN_VAIN(&a[3], &a[6]);
    leave(&a[1]);
    assert_int_equal(settle(&a[3]), RC_OK);
    IN_VAIN(&a[6]);
    leave(&a[2]);
    leave(&a[4]);
    assert_int_equal(settle(&a[6]), RC_OK);
    leave(&a[3]);
    leave(&a[6]);
    stop(&b);
}

static void test_late(void **state)
{
    struct tbed b;
    struct asker a, late, gone, soon;
    (void)state;
    start(&b, 1);
    assert_int_equal(ask(&a, b.ts, "n0", 0), RC_OK); /* nothing to wait for */
    assert_int_equal(ask(&soon, b.ts, "n1", 0), RC_BUSY);
    int64_t since = os_mono_ms();
    assert_int_equal(ask(&gone, b.ts, "n2", LONG_MS), RC_AGAIN);
    assert_int_equal(ask(&late, b.ts, "n1", LATE_MS), RC_AGAIN);
    assert_int_equal(settle(&late), RC_BUSY);
    assert_non_null(strstr(late.err.text, "1 databases are open and in use"));
    assert_in_range(os_mono_ms() - since, LATE_MS, LONG_MS / 2);
    assert_int_equal(waiting(&b), 1);
    atomic_store(&gone.gone, true);
    since = os_mono_ms();
    assert_int_equal(settle(&gone), RC_CANCELED);
    assert_in_range(os_mono_ms() - since, 0, LONG_MS / 2);
    assert_int_equal(waiting(&b), 0);
    assert_int_equal(ask(&gone, b.ts, "n2", LONG_MS), RC_AGAIN);
    leave(&a);
    WAIT_FOR(atomic_load(&gone.calls) == 1);
    assert_int_equal(ask(&late, b.ts, "n3", LONG_MS),
                     RC_AGAIN); /* behind the one that was called */
    assert_int_equal(settle(&gone), RC_OK);
    leave(&gone);
    assert_int_equal(settle(&late), RC_OK);
    leave(&late);
    stop(&b);
}

/* Its tenant was opened, or its door, after it had looked and before it was in the queue: who does
 * that has called all who wait for it already. */
static void test_missed(void **state)
{
    struct tbed b;
    struct asker a, late;
    (void)state;
    start(&b, 1);
    assert_int_equal(ask(&a, b.ts, "n0", 0), RC_OK);
    assert_int_equal(ask(&late, b.ts, "n1", 0), RC_BUSY);
    snprintf(late.name, sizeof late.name, "n0");
    late.p.deadline_ms = os_mono_ms() + LONG_MS;
    late.rc = place_wait(b.ts, late.name, &late.p, &late.err);
    assert_int_equal(late.rc, RC_AGAIN);
    assert_int_equal(late.calls, 1);
    assert_int_equal(settle(&late), RC_OK);
    assert_ptr_equal(late.t, a.t);
    leave(&late);
    leave(&a);
    stop(&b);
}

/* ---- Administrators ---- */

enum { COPIES, READS_FILE, CONFIGURES, CHECKPOINTS, LOOKS, ADMINISTRATORS };
struct administrator {
    struct tbed *b;
    int what;
    pthread_t thread;
    atomic_bool over;
    enum rc rc;
    struct err err;
};

static enum rc take_none(void *ctx, const void *data, size_t size, struct err *err)
{
    (void)ctx, (void)data, (void)size, (void)err;
    return RC_OK;
}

static void *administer(void *arg)
{
    struct administrator *m = arg;
    struct tenants *ts = m->b->ts;
    struct tenant *t = NULL;
    if (m->what == COPIES) m->rc = tenants_ops.fork(ts, "n1", "copy", NULL, &m->err);
    if (m->what == READS_FILE) m->rc = tenants_ops.image(ts, "n2", take_none, NULL, &m->err);
    if (m->what == CONFIGURES) m->rc = tenants_ops.configure(ts, "n3", NULL, &m->err);
    if (m->what == CHECKPOINTS) m->rc = tenants_ops.checkpoint(ts, "n4", &m->err);
    if (m->what == LOOKS) m->rc = tenants_ops.open_wait(ts, "n5", &t, &m->err);
    if (t != NULL) tenants_ops.release(ts, t);
    atomic_store(&m->over, true);
    return NULL;
}

/* They wait for a place as all do, one behind the other. */
static void test_administrators(void **state)
{
    struct tbed b;
    struct asker a;
    struct administrator m[ADMINISTRATORS];
    struct err err;
    (void)state;
    start(&b, 1);
    tbed_sql(&b, "n4", "CREATE TABLE t(v)");
    ask(&a, b.ts, "n0", LONG_MS); /* the other one may stay for a moment */
    assert_int_equal(settle(&a), RC_OK);
    for (int i = 0; i < ADMINISTRATORS; i++) {
        m[i] = (struct administrator){.b = &b, .what = i};
        assert_int_equal(thr_start(&m[i].thread, "admin", administer, &m[i], &err), RC_OK);
    }
    WAIT_FOR(waiting(&b) == ADMINISTRATORS || atomic_load(&m[0].over));
    leave(&a);
    for (int i = 0; i < ADMINISTRATORS; i++) {
        pthread_join(m[i].thread, NULL);
        if (m[i].rc != RC_OK) fail_msg("administrator %d: %s", i, m[i].err.text);
    }
    stop(&b);
}

/* What was closed needs no place to be copied or taken back, and nobody else does. */
static void test_without_place(void **state)
{
    struct tbed b;
    struct asker a;
    struct err err = {0};
    struct tenants_stats st;
    (void)state;
    start(&b, 1);
    tbed_sql(&b, "n1", "CREATE TABLE t(v); INSERT INTO t VALUES(1)");
    uint64_t first = tbed_stored(&b, "n1");
    tbed_sql(&b, "n1", "UPDATE t SET v=2");
    uint64_t second = tbed_stored(&b, "n1");
    ask(&a, b.ts, "n0", 9000);
    assert_int_equal(settle(&a), RC_OK);
    WAIT_FOR((tenants_look(b.ts, &st), st.draining == 0));
    const struct tenant_at at = {.txid = first};
    if (tenants_ops.fork(b.ts, "n1", "copy", &at, &err) != RC_OK) fail_msg("%s", err.text);
    if (tenants_ops.rewind(b.ts, "n1", &at, &err) != RC_OK) fail_msg("%s", err.text);
    if (tenants_ops.rename(b.ts, "copy", "other", &err) != RC_OK) fail_msg("%s", err.text);
    assert_ptr_equal(tenants_ops.peek(b.ts, "n0"), a.t);
    tenants_ops.release(b.ts, a.t);
    /* Their logs have got it all the same, while the place was another's. */
    WAIT_FOR((tenants_look(b.ts, &st), st.draining == 0));
    assert_int_equal(tbed_log_int(&b, "n1", 0, "SELECT v FROM t"), 1);
    assert_int_equal(tbed_log_int(&b, "n1", second, "SELECT v FROM t"), 2);
    assert_int_equal(tbed_log_int(&b, "n1", second + 1, "SELECT v FROM t"), 1);
    assert_int_equal(tbed_log_int(&b, "other", 0, "SELECT v FROM t"), 1);
    tenants_look(b.ts, &st);
    assert_int_equal(st.open, 1);
    leave(&a);
    assert_int_equal(tbed_int(&b, "n1", "SELECT v FROM t"), 1);
    stop(&b);
}

/* ---- Tenants that are in use all the time ---- */

struct user {
    struct tbed *b;
    char name[8];
    atomic_bool *stop;
    int64_t longest_ms; /* to get in */
    unsigned shut;
    atomic_uint times; /* it got in */
};

/* Holds one while it takes the next, so that it is never unused. */
static void *use_on(void *arg)
{
    struct user *u = arg;
    struct asker a;
    struct tenant *held = NULL;
    while (!atomic_load(u->stop)) {
        int64_t since = os_mono_ms();
        struct tenant *t = tenants_ops.peek(u->b->ts, u->name);
        if (t == NULL) {
            u->shut++;
            /* As its clients would: what is at work ends, what is new waits. */
            if (held != NULL) tenants_ops.release(u->b->ts, held);
            held = NULL;
            ask(&a, u->b->ts, u->name, LONG_MS);
            if (settle(&a) != RC_OK) fail_msg("%s", a.err.text);
            t = a.t;
        }
        if (os_mono_ms() - since > u->longest_ms) u->longest_ms = os_mono_ms() - since;
        if (held != NULL) tenants_ops.release(u->b->ts, held);
        held = t;
        atomic_fetch_add(&u->times, 1);
        os_sleep_us(300);
    }
    if (held != NULL) tenants_ops.release(u->b->ts, held);
    return NULL;
}

static void test_doors(void **state)
{
    struct tbed b;
    struct user users[4];
    pthread_t threads[4];
    atomic_bool stopped = false;
    struct asker a;
    struct err err;
    char name[8];
    (void)state;
    start(&b, 2);
    for (int i = 0; i < 4; i++) {
        users[i] = (struct user){.b = &b, .stop = &stopped};
        snprintf(users[i].name, sizeof users[i].name, "n%d", i / 2);
        assert_int_equal(thr_start(&threads[i], "user", use_on, &users[i], &err), RC_OK);
    }
    for (int i = 0; i < 4; i++)
        WAIT_FOR(atomic_load(&users[i].times) > 10);
    for (int i = 2; i < TENANTS; i++) {
        snprintf(name, sizeof name, "n%d", i);
        ask(&a, b.ts, name, LONG_MS);
        if (settle(&a) != RC_OK) fail_msg("%s: %s", name, a.err.text);
        leave(&a);
    }
    atomic_store(&stopped, true);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    stop(&b);
}

/* One that cannot be let go of is bothered now and then, and not for long. */
static void test_held(void **state)
{
    struct tbed b;
    struct user user = {.b = &b, .name = "n0"};
    pthread_t thread;
    atomic_bool stopped = false;
    struct asker held, a;
    struct err err;
    (void)state;
    start(&b, 1);
    assert_int_equal(ask(&held, b.ts, "n0", 1000), RC_OK);
    user.stop = &stopped;
    assert_int_equal(thr_start(&thread, "user", use_on, &user, &err), RC_OK);
    WAIT_FOR(atomic_load(&user.times) > 10);
    int64_t since = os_mono_ms();
    assert_int_equal(ask(&a, b.ts, "n1", HELD_MS), RC_AGAIN);
    assert_int_equal(settle(&a), RC_BUSY);
    atomic_store(&stopped, true);
    pthread_join(thread, NULL);
    assert_in_range(user.shut, 1, 2 + (os_mono_ms() - since) / 1000);
    assert_in_range(user.longest_ms, 1, HELD_MS - 1);
    leave(&held);
    stop(&b);
}

/* ---- A crowd ---- */

struct member {
    struct tbed *b;
    unsigned seed, used, gone;
    int64_t until_ms;
};

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16 & 0x7fff;
}

static void *crowd_on(void *arg)
{
    struct member *m = arg;
    char name[8];
    while (os_mono_ms() < m->until_ms) {
        struct asker a = {.rc = RC_OK};
        snprintf(name, sizeof name, "n%u", next_random(&m->seed) % TENANTS);
        struct tenant *t = tenants_ops.peek(m->b->ts, name);
        if (t == NULL && ask(&a, m->b->ts, name, LONG_MS) == RC_AGAIN) {
            if (next_random(&m->seed) % 8 == 0) atomic_store(&a.gone, true);
            settle(&a);
        }
        if (t == NULL && a.rc == RC_OK) t = a.t;
        if (t == NULL) {
            if (a.rc != RC_CANCELED || !a.gone) fail_msg("%s: %s", name, a.err.text);
            m->gone++;
            continue;
        }
        struct tenants_stats st;
        assert_string_equal(t->name, name);
        assert_non_null(t->engine);
        if (next_random(&m->seed) % 16 == 0) {
            tenants_look(m->b->ts, &st);
            assert_true(st.open <= 4);
        }
        if (next_random(&m->seed) % 2 == 0) os_sleep_us(next_random(&m->seed) % 3000);
        tenants_ops.release(m->b->ts, t);
        m->used++;
    }
    return NULL;
}

static void test_crowd(void **state)
{
    struct tbed b;
    struct member members[CROWD_COUNT];
    pthread_t threads[CROWD_COUNT];
    struct err err;
    unsigned seed = test_seed(), used = 0, gone = 0;
    (void)state;
    start(&b, 4);
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        members[i] =
            (struct member){.b = &b, .seed = seed + i, .until_ms = os_mono_ms() + CROWD_MS};
        assert_int_equal(thr_start(&threads[i], "crowd", crowd_on, &members[i], &err), RC_OK);
    }
    for (unsigned i = 0; i < CROWD_COUNT; i++) {
        pthread_join(threads[i], NULL);
        used += members[i].used;
        gone += members[i].gone;
    }
    print_message("%u uses, %u gave up\n", used, gone);
    assert_true(used > CROWD_COUNT);
    stop(&b);
}

/* ---- Faults ---- */

/* Whatever fails, no place is lost, and nobody waits for ever. */
static void test_faults(void **state)
{
    struct tbed b;
    struct asker a, c;
    unsigned failed = 0;
    (void)state;
    start(&b, 1);
    for (uint64_t n = 1; n <= 100; n++) {
        char one[8], other[8];
        snprintf(one, sizeof one, "n%u", (unsigned)n % TENANTS);
        snprintf(other, sizeof other, "n%u", (unsigned)(n + TENANTS / 2) % TENANTS);
        ask(&a, b.ts, one, LONG_MS);
        assert_int_equal(settle(&a), RC_OK);
        assert_int_equal(ask(&c, b.ts, other, LONG_MS), RC_AGAIN);
        leave(&a);
        WAIT_FOR(atomic_load(&c.calls) > 0);
        fault_arm(FAULT_ALLOC | FAULT_SYSCALL, n, false);
        again(&c);
        fault_arm(0, 0, false);
        if (settle(&c) == RC_OK)
            leave(&c);
        else
            failed++;
        assert_int_equal(waiting(&b), 0);
    }
    print_message("%u of 100 failed\n", failed);
    assert_true(failed > 5);
    stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),         cmocka_unit_test(test_late),
        cmocka_unit_test(test_missed),        cmocka_unit_test(test_doors),
        cmocka_unit_test(test_held),          cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_faults),        cmocka_unit_test(test_administrators),
        cmocka_unit_test(test_without_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
