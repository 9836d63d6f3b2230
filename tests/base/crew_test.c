/* crew_test.c -- order, turns and shares of keys, against a model and with many threads; submitting
 * and freeing from inside; nothing forgotten at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <stdatomic.h>
#include "../../src/base/crew.c" /* what its threads are at cannot be seen from outside */
#include "base/os.h"

#define WAIT_MS  60000
#define KEYS     12
#define JOBS_MAX 4000
#define MIX_KEYS 20

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
        crew_submit(i->crew, job, job->key);
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

static struct crew *crew_of(unsigned threads, unsigned share, int nice)
{
    struct crew *c = NULL;
    struct err err;
    const struct crew_opts opts = {
        .name = "crew", .threads = threads, .share = share, .nice = nice};
    assert_int_equal(crew_new(&opts, &c, &err), RC_OK);
    return c;
}

static uint64_t random_state;
static unsigned below(unsigned limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % limit;
}

static void seed(void)
{
    const char *text = getenv("SLUICE_SEED");
    random_state = text != NULL ? strtoull(text, NULL, 10) : os_random();
    printf("SLUICE_SEED=%llu\n", (unsigned long long)random_state);
}

static void test_all_run(void **state)
{
    struct crew *c = crew_of(4, 0, 5);
    atomic_int ran = 0;
    (void)state;
    for (int n = 0; n < 1000; n++) {
        struct item *i = item_new(c, run_item, &ran);
        i->again = 3;
        crew_submit(c, &i->job, (uint64_t)n % 7);
    }
    crew_free(c);
    assert_int_equal(ran, 4000);
}

static void test_order(void **state)
{
    struct crew *c = crew_of(1, 0, 0);
    (void)state;
    for (int n = 0; n < 100; n++) {
        struct item *i = item_new(c, run_ordered, NULL);
        i->number = n;
        crew_submit(c, &i->job, 0);
    }
    crew_free(c);
    assert_int_equal(order_count, 100);
    for (int n = 0; n < 100; n++)
        assert_int_equal(order[n], n);
}

/* ---- Jobs that run until they are told to end ---- */

enum step { WAITS, RUNS, ENDS };
struct held {
    struct crew_job job;
    uint64_t key;
    enum step step; /* [gate.lock] */
    bool model;     /* it runs, says the model */
};
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct held jobs[JOBS_MAX];
    size_t count;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void run_held(struct crew_job *job)
{
    struct held *h = (struct held *)job;
    thr_lock(&gate.lock);
    if (h->step == WAITS) h->step = RUNS;
    pthread_cond_broadcast(&gate.changed);
    while (h->step == RUNS)
        thr_wait(&gate.changed, &gate.lock, 0);
    thr_unlock(&gate.lock);
}

static void gate_reset(void)
{
    static bool ready;
    if (!ready) thr_cond_init(&gate.changed);
    ready = true;
    gate.count = 0;
}

static size_t submit_held(struct crew *c, uint64_t key)
{
    assert_true(gate.count < JOBS_MAX);
    struct held *h = &gate.jobs[gate.count];
    *h = (struct held){.job.run = run_held, .key = key};
    thr_lock(&gate.lock);
    gate.count++;
    thr_unlock(&gate.lock);
    crew_submit(c, &h->job, key * (TABLE_SIZE / 2)); /* in two places of the table */
    return gate.count - 1;
}

static void end_held(size_t i)
{
    thr_lock(&gate.lock);
    assert_int_equal(gate.jobs[i].step, RUNS);
    gate.jobs[i].step = ENDS;
    pthread_cond_broadcast(&gate.changed);
    thr_unlock(&gate.lock);
}

static unsigned running(uint64_t key)
{
    unsigned count = 0;
    thr_lock(&gate.lock);
    for (size_t i = 0; i < gate.count; i++)
        count += gate.jobs[i].step == RUNS && gate.jobs[i].key == key;
    thr_unlock(&gate.lock);
    return count;
}

static void await_running(uint64_t key, unsigned count)
{
    for (int64_t end = os_mono_ms() + WAIT_MS; running(key) != count; os_sleep_ms(1))
        if (os_mono_ms() > end)
            fail_msg("key %llu has %u threads, not %u", (unsigned long long)key, running(key),
                     count);
}

/* Those that wait end as soon as they run. */
static void end_all(struct crew *c)
{
    bool more = true;
    while (more) {
        more = crew_waiting(c) > 0; /* what has left the queue may not run yet: ENDS is final */
        thr_lock(&gate.lock);
        for (size_t i = 0; i < gate.count; i++)
            gate.jobs[i].step = ENDS;
        pthread_cond_broadcast(&gate.changed);
        thr_unlock(&gate.lock);
        if (more) os_sleep_ms(1);
    }
}

/* Some flood, and whoever comes next runs at once all the same. */
static void test_newcomer(void **state)
{
    struct crew *c = crew_of(8, 0, 0);
    (void)state;
    gate_reset();
    for (uint64_t key = 0; key < 4; key++) {
        for (int n = 0; n < 20; n++)
            submit_held(c, key);
        await_running(key, key == 0 ? 4 : key == 1 ? 2 : 1);
    }
    /* All eight are at work: the next one gets the first that is free, before those who have one.
     */
    size_t i = submit_held(c, 9);
    os_sleep_ms(20);
    assert_int_equal(running(9), 0);
    end_held(0);
    await_running(9, 1);
    assert_int_equal(running(0), 3);
    end_held(i);
    end_all(c);
    crew_free(c);
}

static void test_share(void **state)
{
    struct crew *c = crew_of(8, 2, 0);
    (void)state;
    gate_reset();
    for (uint64_t key = 0; key < 5; key++) {
        for (int n = 0; n < 20; n++)
            submit_held(c, key);
        await_running(key, key < 3 ? 2 : 1);
    }
    end_all(c);
    crew_free(c);
}

/* ---- The model: lists that are searched ---- */

struct model {
    unsigned threads, share, busy, held[KEYS];
    size_t queue[KEYS][JOBS_MAX], from[KEYS], to[KEYS]; /* of jobs */
    unsigned round[KEYS], round_count;
};
static struct model m;

static void model_submit(unsigned key, size_t job)
{
    if (m.from[key] == m.to[key]) m.round[m.round_count++] = key;
    m.queue[key][m.to[key]++] = job;
}

static bool model_start_one(void)
{
    unsigned spare = m.threads - m.busy;
    for (unsigned i = 0; i < m.round_count && spare > 0; i++) {
        unsigned key = m.round[i];
        bool more = m.held[key] < spare && (m.share == 0 || m.held[key] < m.share);
        if (m.held[key] > 0 && !more) continue;
        memmove(&m.round[i], &m.round[i + 1], (--m.round_count - i) * sizeof m.round[0]);
        gate.jobs[m.queue[key][m.from[key]++]].model = true;
        m.held[key]++;
        m.busy++;
        if (m.from[key] < m.to[key]) m.round[m.round_count++] = key;
        return true;
    }
    return false;
}

static bool same_as_model(struct crew *c)
{
    thr_lock(&c->lock);
    bool same = c->busy == m.busy && c->sleeping == m.threads - m.busy;
    thr_unlock(&c->lock);
    thr_lock(&gate.lock);
    for (size_t i = 0; i < gate.count; i++)
        same &= gate.jobs[i].model == (gate.jobs[i].step == RUNS);
    thr_unlock(&gate.lock);
    return same;
}

static void run_model(unsigned ops)
{
    struct crew *c = crew_of(m.threads, m.share, 0);
    for (unsigned op = 0; op < ops; op++) {
        size_t ended = gate.count;
        if (below(2) == 0 && m.busy > 0)
            for (ended = below((unsigned)gate.count); !gate.jobs[ended].model;)
                ended = below((unsigned)gate.count);
        if (ended == gate.count) {
            unsigned key = below(below(2) == 0 ? KEYS : 2);
            model_submit(key, submit_held(c, key));
        } else {
            gate.jobs[ended].model = false;
            m.held[gate.jobs[ended].key]--;
            m.busy--;
            end_held(ended);
        }
        while (model_start_one())
            ;
        int64_t end_ms = os_mono_ms() + WAIT_MS;
        while (!same_as_model(c)) {
            if (os_mono_ms() > end_ms)
                fail_msg("%u threads, share %u: not as the model at step %u", m.threads, m.share,
                         op);
            sched_yield();
        }
    }
    end_all(c);
    crew_free(c);
}

static void test_model(void **state)
{
    (void)state;
    seed();
    for (unsigned round = 0; round < 25; round++) {
        gate_reset();
        m = (struct model){.threads = 1 + below(9)};
        m.share = below(3) == 0 ? 1 + below(m.threads) : 0;
        run_model(150);
    }
}

/* ---- Many threads ---- */

struct mixed {
    struct crew_job job;
    struct crew *crew;
    unsigned key;
};
static atomic_uint at_work[MIX_KEYS], work_max[MIX_KEYS], ran_mixed[MIX_KEYS];

static void run_mixed(struct crew_job *job)
{
    struct mixed *x = (struct mixed *)job;
    unsigned now = atomic_fetch_add(&at_work[x->key], 1) + 1, most = atomic_load(&work_max[x->key]);
    while (now > most && !atomic_compare_exchange_weak(&work_max[x->key], &most, now))
        ;
    atomic_fetch_add(&ran_mixed[x->key], 1);
    atomic_fetch_sub(&at_work[x->key], 1);
    mem_free(x);
}

static void *submit_mixed(void *arg)
{
    struct crew *c = arg;
    static atomic_uint threads;
    unsigned part = atomic_fetch_add(&threads, 1) % 4;
    for (unsigned n = 0; n < 20000; n++) {
        unsigned key = part * (MIX_KEYS / 4) + n * 7 % (MIX_KEYS / 4);
        struct mixed *x = mem_calloc(1, sizeof *x);
        ASSERT(x != NULL);
        *x = (struct mixed){.job.run = run_mixed, .crew = c, .key = key};
        crew_submit(c, &x->job, key);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct crew *c = crew_of(8, 3, 0);
    struct err err;
    pthread_t threads[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(thr_start(&threads[i], "submit", submit_mixed, c, &err), RC_OK);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    while (crew_waiting(c) > 0) /* to stop lifts the limits */
        os_sleep_ms(1);
    for (unsigned key = 0; key < MIX_KEYS; key++)
        assert_true(work_max[key] <= 3);
    crew_free(c);
    for (unsigned key = 0; key < MIX_KEYS; key++)
        assert_int_equal(ran_mixed[key], 4 * 20000 / MIX_KEYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_run),  cmocka_unit_test(test_order),
        cmocka_unit_test(test_newcomer), cmocka_unit_test(test_share),
        cmocka_unit_test(test_model),    cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
