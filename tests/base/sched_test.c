/* sched_test.c -- jobs by time: order, wake-ups, one thread a job, stop, memory faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <cmocka.h>
#include "../../src/base/sched.c" /* what others wait for cannot be seen from outside */
#include "base/fault.h"
#include "node/wait.h"

#define HOUR_MS 3600000

struct probe {
    struct sched_job job;
    atomic_int runs, inside;
    atomic_bool hold;       /* run() waits until this is false */
    atomic_bool overlapped; /* two threads were in run() */
    atomic_bool early;      /* ran before it was due */
    _Atomic int64_t due_ms; /* as the test asked */
    /* What run() returns, from now; < 0: never again. */
    _Atomic int64_t again_in_ms;
    atomic_int times; /* run() returns SCHED_NEVER after so many */
};

static atomic_int order_next;
static int order_of[64];
static atomic_int inits, finis, init_fails_at;

static int64_t run_probe(struct sched_job *job, void *worker)
{
    struct probe *p = (struct probe *)((char *)job - offsetof(struct probe, job));
    (void)worker;
    if (atomic_fetch_add(&p->inside, 1) != 0) atomic_store(&p->overlapped, true);
    if (os_mono_ms() < p->due_ms) atomic_store(&p->early, true);
    int runs = atomic_fetch_add(&p->runs, 1) + 1;
    while (atomic_load(&p->hold))
        os_sleep_ms(1);
    atomic_fetch_sub(&p->inside, 1);
    if (p->again_in_ms < 0 || (p->times > 0 && runs >= p->times)) return SCHED_NEVER;
    return os_mono_ms() + p->again_in_ms;
}

static struct probe probe(void)
{
    return (struct probe){.job.run = run_probe, .again_in_ms = -1};
}

static struct sched *sched(unsigned threads)
{
    struct sched *s;
    struct err err;
    assert_int_equal(sched_new("test", threads, NULL, NULL, &s, &err), RC_OK);
    return s;
}

static void wake(struct sched *s, struct probe *p, int64_t due_ms)
{
    struct err err;
    assert_int_equal(sched_wake(s, &p->job, due_ms, &err), RC_OK);
}

struct numbered {
    struct sched_job job;
    int64_t due_ms;
    int seen_at;
};

static int64_t run_numbered(struct sched_job *job, void *worker)
{
    struct numbered *n = (struct numbered *)job;
    (void)worker;
    n->seen_at = atomic_fetch_add(&order_next, 1);
    order_of[n->seen_at] = (int)n->due_ms;
    return SCHED_NEVER;
}

static void test_order(void **arg)
{
    struct sched *s = sched(1);
    struct probe gate = probe();
    struct numbered jobs[64];
    int64_t now = os_mono_ms();
    struct err err;
    (void)arg;
    srand(test_seed());
    atomic_store(&order_next, 0);
    atomic_store(&gate.hold, true);
    wake(s, &gate, now);
    WAIT_FOR(atomic_load(&gate.inside) == 1);
    for (int i = 0; i < 64; i++) { /* all in the past, some twice, some moved to earlier */
        jobs[i] = (struct numbered){.job.run = run_numbered, .due_ms = 1 + rand() % 1000};
        if (i % 4 == 0)
            assert_int_equal(sched_wake(s, &jobs[i].job, jobs[i].due_ms + 500, &err), RC_OK);
        assert_int_equal(sched_wake(s, &jobs[i].job, jobs[i].due_ms, &err), RC_OK);
        if (i % 5 == 0)
            assert_int_equal(sched_wake(s, &jobs[i].job, jobs[i].due_ms + 700, &err), RC_OK);
    }
    atomic_store(&gate.hold, false);
    WAIT_FOR(atomic_load(&order_next) == 64);
    sched_free(s);
    for (int i = 1; i < 64; i++)
        assert_true(order_of[i - 1] <= order_of[i]);
    assert_int_equal(atomic_load(&order_next), 64);
}

static void test_wake_while_running(void **arg)
{
    struct sched *s = sched(2);
    struct probe p = probe();
    (void)arg;
    atomic_store(&p.hold, true);
    wake(s, &p, 1);
    WAIT_FOR(atomic_load(&p.inside) == 1);
    wake(s, &p, 1);
    wake(s, &p, os_mono_ms() + HOUR_MS); /* later: changes nothing */
    os_sleep_ms(20);                     /* the second thread must not take it */
    assert_int_equal(atomic_load(&p.runs), 1);
    atomic_store(&p.hold, false);
    WAIT_FOR(atomic_load(&p.runs) == 2);
    os_sleep_ms(20);
    assert_int_equal(atomic_load(&p.runs), 2); /* two wake-ups of a running job are one run */

    /* A wake-up that came while it ran beats the time that run() returns, if it is earlier. */
    p.again_in_ms = HOUR_MS;
    atomic_store(&p.hold, true);
    wake(s, &p, 1);
    WAIT_FOR(atomic_load(&p.inside) == 1);
    p.due_ms = os_mono_ms() + 30;
    wake(s, &p, p.due_ms);
    atomic_store(&p.hold, false);
    WAIT_FOR(atomic_load(&p.runs) == 4);
    p.due_ms = 0;

    /* ... and loses to it if it is later. */
    p.again_in_ms = 0;
    p.times = 6;
    atomic_store(&p.hold, true);
    wake(s, &p, 1);
    WAIT_FOR(atomic_load(&p.inside) == 1);
    wake(s, &p, os_mono_ms() + HOUR_MS);
    atomic_store(&p.hold, false);
    WAIT_FOR(atomic_load(&p.runs) == 6);
    sched_free(s);
    assert_false(atomic_load(&p.overlapped) || atomic_load(&p.early));
}

static void test_earlier_wins(void **arg)
{
    struct sched *s = sched(1);
    struct probe p = probe(), other = probe();
    (void)arg;
    int64_t now = os_mono_ms();
    wake(s, &other, now + HOUR_MS / 2); /* the top of the heap: the thread sleeps until then */
    wake(s, &p, now + HOUR_MS);
    os_sleep_ms(20);
    assert_int_equal(atomic_load(&p.runs), 0);
    wake(s, &p, now);
    WAIT_FOR(atomic_load(&p.runs) == 1);
    p.due_ms = os_mono_ms() + 40;
    wake(s, &p, p.due_ms);
    wake(s, &p, now + HOUR_MS); /* does not postpone it */
    WAIT_FOR(atomic_load(&p.runs) == 2);
    assert_false(atomic_load(&p.early));
    assert_int_equal(atomic_load(&other.runs), 0);
    wake(s, &other, SCHED_NEVER); /* nor does never */
    wake(s, &other, 1);
    WAIT_FOR(atomic_load(&other.runs) == 1);
    sched_free(s);
}

struct hammer {
    struct sched *s;
    struct probe *probes;
    atomic_bool stop;
};

static void *hammer_main(void *arg)
{
    struct hammer *h = arg;
    struct err err;
    for (unsigned i = 0; !atomic_load(&h->stop); i++) {
        if (sched_wake(h->s, &h->probes[i % 4].job, i % 3 ? 1 : os_mono_ms() + 1, &err) != RC_OK)
            return h;
    }
    return NULL;
}

static void test_one_thread_a_job(void **arg)
{
    struct probe probes[4];
    struct hammer h = {.s = sched(8), .probes = probes};
    pthread_t threads[2];
    struct err err;
    (void)arg;
    for (int i = 0; i < 4; i++)
        probes[i] = probe();
    for (int i = 0; i < 2; i++)
        assert_int_equal(thr_start(&threads[i], "hammer", hammer_main, &h, &err), RC_OK);
    os_sleep_ms(300);
    for (int i = 0; i < 4; i++)
        WAIT_FOR(atomic_load(&probes[i].runs) > 10);
    atomic_store(&h.stop, true);
    for (int i = 0; i < 2; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    for (int i = 0; i < 4; i++) { /* the last wake-up is never lost */
        int before = atomic_load(&probes[i].runs);
        wake(h.s, &probes[i], 1);
        WAIT_FOR(atomic_load(&probes[i].runs) > before);
    }
    sched_free(h.s);
    for (int i = 0; i < 4; i++) {
        assert_false(atomic_load(&probes[i].overlapped));
        assert_int_equal(atomic_load(&probes[i].inside), 0);
    }
}

static enum rc init_worker(void **ret_worker, struct err *err)
{
    int n = atomic_fetch_add(&inits, 1) + 1;
    if (n == atomic_load(&init_fails_at)) return err_set(err, RC_DENIED, "worker %d", n);
    *ret_worker = malloc(1);
    return RC_OK;
}

static void fini_worker(void *worker)
{
    if (worker != NULL) atomic_fetch_add(&finis, 1);
    free(worker);
}

static void *stop_main(void *arg)
{
    sched_stop(arg);
    return NULL;
}

static void test_stop(void **arg)
{
    enum { COUNT = 1000 };
    struct probe *idle = calloc(COUNT, sizeof *idle), p = probe();
    struct sched *s;
    struct err err;
    pthread_t stopper;
    (void)arg;
    atomic_store(&inits, 0), atomic_store(&finis, 0), atomic_store(&init_fails_at, 0);
    assert_int_equal(sched_new("test", 3, init_worker, fini_worker, &s, &err), RC_OK);
    assert_int_equal(atomic_load(&inits), 3);
    for (int i = 0; i < COUNT; i++) {
        idle[i] = probe();
        wake(s, &idle[i], os_mono_ms() + HOUR_MS);
    }
    p.again_in_ms = 0; /* it wants to run for ever */
    atomic_store(&p.hold, true);
    wake(s, &p, 1);
    WAIT_FOR(atomic_load(&p.inside) == 1);
    assert_int_equal(thr_start(&stopper, "stop", stop_main, s, &err), RC_OK);
    os_sleep_ms(30);
    assert_true(atomic_load(&finis) < 3); /* it waits for the running job */
    wake(s, &p, 1);
    wake(s, &idle[0], 1);
    atomic_store(&p.hold, false);
    pthread_join(stopper, NULL);
    int runs = atomic_load(&p.runs);
    assert_int_equal(atomic_load(&finis), 3);
    wake(s, &p, 1); /* taken, and ignored */
    wake(s, &idle[1], 1);
    sched_stop(s); /* twice is fine */
    os_sleep_ms(20);
    assert_int_equal(atomic_load(&p.runs), runs);
    assert_int_equal(atomic_load(&idle[1].runs), 0);
    sched_free(s);
    sched_free(NULL);
    free(idle);
}

static int64_t cpu_ms(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

struct dropper {
    struct sched *s;
    struct probe *p;
    atomic_bool done;
};

static void *drop_main(void *arg)
{
    struct dropper *d = arg;
    sched_drop(d->s, &d->p->job);
    atomic_store(&d->done, true);
    return NULL;
}

static bool is_dropped(struct sched *s, const struct probe *p)
{
    thr_lock(&s->lock);
    bool is = p->job.dropped;
    thr_unlock(&s->lock);
    return is;
}

static void test_drop(void **arg)
{
    enum { COUNT = 200 };
    struct probe idle[COUNT], p = probe(), never = probe();
    struct sched *s = sched(2);
    struct err err;
    pthread_t thread;
    (void)arg;
    sched_drop(s, &never.job);
    for (int i = 0; i < COUNT; i++) {
        idle[i] = probe();
        wake(s, &idle[i], os_mono_ms() + HOUR_MS + (i * 37) % COUNT);
    }
    for (int i = 0; i < COUNT; i += 2)
        sched_drop(s, &idle[i].job);
    /* The others are all still found, in whatever place they are now. */
    for (int i = 1; i < COUNT; i += 2)
        wake(s, &idle[i], 1);
    for (int i = 1; i < COUNT; i += 2)
        WAIT_FOR(atomic_load(&idle[i].runs) == 1);
    for (int i = 0; i < COUNT; i += 2)
        assert_int_equal(atomic_load(&idle[i].runs), 0);
    /* One that runs, wants to run again, and was even woken: it ends, and that is that. */
    p.again_in_ms = 0;
    atomic_store(&p.hold, true);
    wake(s, &p, 1);
    WAIT_FOR(atomic_load(&p.inside) == 1);
    wake(s, &p, 1);
    struct dropper d = {.s = s, .p = &p};
    assert_int_equal(thr_start(&thread, "drop", drop_main, &d, &err), RC_OK);
    WAIT_FOR(is_dropped(s, &p));
    os_sleep_ms(30);
    assert_false(atomic_load(&d.done));
    atomic_store(&p.hold, false);
    pthread_join(thread, NULL);
    os_sleep_ms(20);
    assert_int_equal(atomic_load(&p.runs), 1);
    /* It may come back. */
    p.again_in_ms = -1;
    wake(s, &p, 1);
    WAIT_FOR(atomic_load(&p.runs) == 2);
    sched_stop(s);
    wake(s, &p, 1);
    sched_drop(s, &p.job);
    sched_free(s);
}

static void test_thousands(void **arg)
{
    enum { COUNT = 5000, TIMES = 3 };
    struct probe *jobs = calloc(COUNT, sizeof *jobs);
    struct sched *s = sched(3);
    long total = 0;
    (void)arg;
    srand(test_seed());
    for (int i = 0; i < COUNT; i++) {
        jobs[i] = probe();
        jobs[i].times = TIMES;
        jobs[i].again_in_ms = rand() % 100;
        jobs[i].due_ms = os_mono_ms() + rand() % 200;
        wake(s, &jobs[i], jobs[i].due_ms);
    }
    for (int i = 0; i < COUNT; i++)
        WAIT_FOR(atomic_load(&jobs[i].runs) == TIMES);
    for (int i = 0; i < COUNT; i++) /* idle ones cost nothing */
        wake(s, &jobs[i], os_mono_ms() + HOUR_MS);
    os_sleep_ms(20);
    int64_t before = cpu_ms();
    os_sleep_ms(200);
    assert_true(cpu_ms() - before < 50);
    sched_free(s);
    for (int i = 0; i < COUNT; i++) {
        assert_false(atomic_load(&jobs[i].early) || atomic_load(&jobs[i].overlapped));
        total += atomic_load(&jobs[i].runs);
    }
    assert_int_equal(total, (long)COUNT * TIMES);
    free(jobs);
}

static void test_new_fails(void **arg)
{
    struct sched *s = NULL;
    struct err err;
    (void)arg;
    fault_arm(FAULT_ALLOC, 1, false);
    assert_int_equal(sched_new("test", 2, NULL, NULL, &s, &err), RC_NO_MEM);
    assert_true(fault_fired());
    fault_arm(0, 0, false);
    assert_null(s);
    for (int at = 1; at <= 3; at++) {
        atomic_store(&inits, 0), atomic_store(&finis, 0), atomic_store(&init_fails_at, at);
        assert_int_equal(sched_new("test", 3, init_worker, fini_worker, &s, &err), RC_DENIED);
        assert_null(s);
        assert_int_equal(atomic_load(&finis), at - 1);
    }
    atomic_store(&init_fails_at, 0);
}

static void test_wake_without_memory(void **arg)
{
    enum { COUNT = 200 };
    struct sched *s = sched(1);
    struct probe *jobs = calloc(COUNT, sizeof *jobs);
    struct err err;
    int failed = 0;
    (void)arg;
    fault_arm(FAULT_ALLOC, 2, true); /* the first growth works, then no more */
    for (int i = 0; i < COUNT; i++) {
        jobs[i] = probe();
        enum rc rc = sched_wake(s, &jobs[i].job, os_mono_ms() + HOUR_MS, &err);
        if (rc == RC_OK) continue;
        assert_int_equal(rc, RC_NO_MEM);
        failed++;
    }
    assert_true(failed > 0 && failed < COUNT);
    fault_arm(0, 0, false);
    for (int i = 0; i < COUNT; i++) /* all that was is still there, and the rest can come */
        wake(s, &jobs[i], 1);
    for (int i = 0; i < COUNT; i++)
        WAIT_FOR(atomic_load(&jobs[i].runs) == 1);
    sched_free(s);
    free(jobs);
}

/* Others may have taken the room that a running job left: it must come back all the same. */
static void test_return_without_memory(void **arg)
{
    enum { COUNT = 300 };
    struct sched *s = sched(2);
    struct probe *jobs = calloc(COUNT, sizeof *jobs), p[2] = {probe(), probe()};
    struct err err;
    (void)arg;
    for (int i = 0; i < 2; i++) {
        p[i].times = 2;
        p[i].again_in_ms = 1;
        atomic_store(&p[i].hold, true);
        wake(s, &p[i], 1);
        WAIT_FOR(atomic_load(&p[i].inside) == 1);
    }
    fault_arm(FAULT_ALLOC, 1, true);
    for (int i = 0; i < COUNT; i++) { /* fill the heap up to its last place */
        jobs[i] = probe();
        if (sched_wake(s, &jobs[i].job, os_mono_ms() + HOUR_MS, &err) != RC_OK) break;
    }
    assert_true(fault_fired());
    for (int i = 0; i < 2; i++)
        atomic_store(&p[i].hold, false);
    for (int i = 0; i < 2; i++)
        WAIT_FOR(atomic_load(&p[i].runs) == 2);
    fault_arm(0, 0, false);
    sched_free(s);
    free(jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_wake_while_running),
        cmocka_unit_test(test_earlier_wins),
        cmocka_unit_test(test_one_thread_a_job),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_thousands),
        cmocka_unit_test(test_new_fails),
        cmocka_unit_test(test_wake_without_memory),
        cmocka_unit_test(test_return_without_memory),
    };
    return cmocka_run_group_tests_name("node/sched", tests, NULL, NULL);
}
