/*
 * tenants_sweep_test.c -- many tenants with few open at once, load with readers, threads that do
 * all at once, and every syscall and allocation failing in turn. Seed: SLUICE_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "node/tbed.h"
#include "node/wait.h"

#define SETUP "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"

static unsigned open_fds(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 65536; fd++) {
        char link[32], to[8];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        count += readlink(link, to, sizeof to) > 0;
    }
    return count;
}

static long resident_kib(void)
{
    long pages = 0, skip;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &skip, &pages), 2);
    fclose(f);
    return pages * 4;
}

static unsigned count_of(const char *name, unsigned fallback)
{
    const char *given = getenv(name);
    return given != NULL ? (unsigned)strtoul(given, NULL, 10) : fallback;
}

/* Each is opened, written to, and closed again as others come: nothing is lost, here and in the
 * logs, and what is open stays bounded. */
static void test_many(void **arg)
{
    struct tbed b;
    struct tenants_stats st;
    struct err err = {0};
    char name[24], sql[80];
    const unsigned count = count_of("SLUICE_TENANTS", 3000), rounds = 2;
    unsigned most_fds = 0;
    long most_kib = 0;
    (void)arg;
    tbed_new(&b);
    b.opts.open_max = 50;
    b.opts.full_sync = false;
    tbed_start(&b);
    int64_t start = os_mono_ms();
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(tenants_ops.create(b.ts, name, NULL, &err), RC_OK);
    }
    print_message("create: %.2f ms each\n", (double)(os_mono_ms() - start) / count);
    for (unsigned round = 0; round < rounds; round++) {
        start = os_mono_ms();
        for (unsigned i = 0; i < count; i++) {
            snprintf(name, sizeof name, "n%u", (i * 7919u) % count);
            snprintf(sql, sizeof sql, "%s INSERT INTO t VALUES(%u,%u)", round == 0 ? SETUP ";" : "",
                     round, (i * 7919u) % count);
            tbed_sql(&b, name, sql);
            if (i % 100 != 99) continue;
            tenants_look(b.ts, &st);
            assert_true(st.open <= 50);
            assert_true(st.draining <= 65);
            unsigned fds = open_fds();
            long kib = resident_kib();
            if (fds > most_fds) most_fds = fds;
            if (kib > most_kib) most_kib = kib;
        }
        print_message("round %u: %.2f ms each\n", round, (double)(os_mono_ms() - start) / count);
    }
    print_message("at most %u descriptors, %ld KiB\n", most_fds, most_kib);
    assert_true(most_fds < 2000);
    tbed_stop_ok(&b);
    assert_int_equal(tbed_entries(&b, "open"), 0);
    assert_int_equal(tbed_entries(&b, "backup"), count);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(tbed_log_int(&b, name, 0, "SELECT sum(v)*10+count(*) FROM t"),
                         rounds * i * 10 + rounds);
    }
    tbed_free(&b);
}

/* ---- load ---- */

struct load {
    struct tbed *b;
    struct tenant *t;
    atomic_bool stop;
    atomic_uint reads;
    unsigned reader;
};

/* Readers come and go, and some stay a little: a WAL cannot restart under them. */
static void *read_on(void *arg)
{
    struct load *l = arg;
    struct err err = {0};
    while (!atomic_load(&l->stop)) {
        struct sql_conn *conn;
        struct sql_error sql_err;
        static const char sql[] = "BEGIN; SELECT count(*) FROM t WHERE id>0;";
        assert_int_equal(sql_engine_get(l->t->engine, &conn, &err), RC_OK);
        assert_int_equal(sql_conn_script(conn, NULL, &(struct sql_limits){0}, sql, sizeof sql - 1,
                                         &sql_err, &err),
                         RC_OK);
        os_sleep_ms(1 + atomic_fetch_add(&l->reads, 1) % 7);
        sql_engine_put(l->t->engine, conn);
    }
    return NULL;
}

struct insert {
    struct sql_write w;
    struct load *l;
    int64_t began_us;
};

#define INSERTS_AT_ONCE 32
static atomic_uint inserts_out;
static int64_t latencies[1 << 18];
static atomic_uint latency_count;

static enum rc run_insert(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    static const char sql[] = "INSERT INTO t(v) VALUES(randomblob(60))";
    struct sql_done done;
    const struct sql_stmt stmt = {.sql = sql, .sql_size = sizeof sql - 1};
    return sql_conn_run(c, &w->call, NULL, &stmt, NULL, &done, &w->sql_err, err);
}

static void insert_done(struct sql_write *w)
{
    struct insert *i = w->ctx;
    if (w->rc != RC_OK) fail_msg("%s", w->err.text);
    unsigned at = atomic_fetch_add(&latency_count, 1);
    if (at < sizeof latencies / sizeof latencies[0]) latencies[at] = os_mono_us() - i->began_us;
    atomic_fetch_sub(&inserts_out, 1);
    i->began_us = 0; /* free */
}

static int by_value(const void *a, const void *b)
{
    int64_t l = *(const int64_t *)a, r = *(const int64_t *)b;
    return l < r ? -1 : l > r;
}

static void test_load(void **arg)
{
    struct tbed b;
    struct err err = {0};
    struct load l = {.b = &b};
    struct tenant_info info;
    pthread_t readers[3];
    static struct insert inserts[INSERTS_AT_ONCE];
    const unsigned count = count_of("SLUICE_INSERTS", 200000);
    uint64_t most = 0;
    (void)arg;
    memset(inserts, 0, sizeof inserts);
    atomic_store(&latency_count, 0);
    tbed_new(&b);
    tbed_start(&b);
    tbed_sql(&b, "default", SETUP);
    l.t = tbed_open(&b, "default");
    for (int i = 0; i < 3; i++)
        assert_int_equal(thr_start(&readers[i], "reader", read_on, &l, &err), RC_OK);
    int64_t start = os_mono_ms();
    for (unsigned done = 0, at = 0; done < count; at = (at + 1) % INSERTS_AT_ONCE) {
        struct insert *i = &inserts[at];
        if (atomic_load(&inserts_out) == INSERTS_AT_ONCE) os_sleep_us(20);
        if (*(volatile int64_t *)&i->began_us != 0) continue;
        i->w = (struct sql_write){.run = run_insert, .fn = insert_done, .ctx = i};
        i->began_us = os_mono_us();
        atomic_fetch_add(&inserts_out, 1);
        assert_int_equal(sql_writer_submit(sql_engine_writer(l.t->engine), &i->w, &err), RC_OK);
        if (done++ % 500 != 0) continue;
        assert_int_equal(tenants_ops.info(b.ts, "default", &info, &err), RC_OK);
        if (info.wal_bytes > most) most = info.wal_bytes;
    }
    WAIT_FOR(atomic_load(&inserts_out) == 0);
    int64_t took = os_mono_ms() - start;
    atomic_store(&l.stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(readers[i], NULL);
    unsigned n = atomic_load(&latency_count);
    if (n > sizeof latencies / sizeof latencies[0]) n = sizeof latencies / sizeof latencies[0];
    qsort(latencies, n, sizeof latencies[0], by_value);
    print_message("%u inserts in %" PRId64 " ms; p50 %" PRId64 ", p99 %" PRId64 ", p99.9 %" PRId64
                  ", most %" PRId64 " us; WAL at most %" PRIu64 " KiB; %u reads\n",
                  count, took, latencies[n / 2], latencies[n / 100 * 99],
                  latencies[n - n / 1000 - 1], latencies[n - 1], most / 1024,
                  atomic_load(&l.reads));
    assert_true(most < 64u << 20);
    tenants_ops.release(b.ts, l.t);
    tbed_stored(&b, "default");
    assert_int_equal(tbed_log_int(&b, "default", 0, "SELECT count(*) FROM t"), count);
    tbed_stop_ok(&b);
    tbed_free(&b);
}

/* ---- all at once ---- */

#define ACTORS 6
#define NAMES  12

struct crowd {
    struct tbed *b;
    pthread_mutex_t locks[NAMES]; /* of the model; an operation of an administrator has it */
    int64_t rows[NAMES];          /* -1: there is no such tenant */
    unsigned seed;
};
struct actor {
    struct crowd *c;
    unsigned seed;
};

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 8;
}

static void fail_on(const char *what, const char *name, enum rc rc, const struct err *err)
{
    if (rc != RC_OK) fail_msg("%s '%s': %s: %s", what, name, rc_name(rc), err->text);
}

static void administer(struct crowd *c, unsigned *seed, unsigned i)
{
    char name[8], path[128];
    struct err err = {0};
    struct tenants *ts = c->b->ts;
    snprintf(name, sizeof name, "c%u", i);
    unsigned what = next_random(seed) % 6;
    if (c->rows[i] < 0) {
        fail_on("create", name, tenants_ops.create(ts, name, NULL, &err), &err);
        tbed_sql(c->b, name, SETUP);
        c->rows[i] = 0;
    } else if (what == 0) {
        bool keep = next_random(seed) % 2 != 0;
        fail_on("remove", name, tenants_ops.remove(ts, name, keep, &err), &err);
        c->rows[i] = -1;
    } else if (what == 1) {
        uint64_t txid = tbed_stored(c->b, name);
        tbed_sql(c->b, name, "INSERT INTO t(v) VALUES('gone')");
        const struct tenant_at at = {.txid = txid};
        fail_on("rewind", name, tenants_ops.rewind(ts, name, &at, &err), &err);
    } else if (what == 2) {
        fail_on("configure", name, tenants_ops.configure(ts, name, NULL, &err), &err);
    } else if (what == 3) {
        snprintf(path, sizeof path, "f%u-%u", i, next_random(seed));
        fail_on("fork", path, tenants_ops.fork(ts, name, path, NULL, &err), &err);
        assert_int_equal(tbed_int(c->b, path, "SELECT count(*) FROM t"), c->rows[i]);
        fail_on("remove", path, tenants_ops.remove(ts, path, false, &err), &err);
    } else {
        tbed_stored(c->b, name);
        assert_int_equal(tbed_log_int(c->b, name, 0, "SELECT count(*) FROM t"), c->rows[i]);
    }
}

static void *act(void *arg)
{
    struct actor *a = arg;
    struct crowd *c = a->c;
    char name[8];
    int64_t end = os_mono_ms() + count_of("SLUICE_CROWD_MS", 3000);
    while (os_mono_ms() < end) {
        unsigned i = next_random(&a->seed) % NAMES;
        snprintf(name, sizeof name, "c%u", i);
        struct tenant *t = tenants_ops.peek(c->b->ts, name);
        if (t != NULL) {
            (void)tenants_ops.index(t);
            tenants_ops.release(c->b->ts, t);
        }
        if (pthread_mutex_trylock(&c->locks[i]) != 0) continue;
        if (next_random(&a->seed) % 4 == 0) {
            administer(c, &a->seed, i);
        } else if (c->rows[i] >= 0) {
            tbed_sql(c->b, name, "INSERT INTO t(v) VALUES(1)");
            c->rows[i]++;
            assert_int_equal(tbed_int(c->b, name, "SELECT count(*) FROM t"), c->rows[i]);
        }
        pthread_mutex_unlock(&c->locks[i]);
    }
    return NULL;
}

static void test_crowd(void **arg)
{
    struct tbed b;
    struct crowd c = {.b = &b, .seed = test_seed()};
    struct actor actors[ACTORS];
    pthread_t threads[ACTORS];
    struct err err = {0};
    (void)arg;
    tbed_new(&b);
    b.opts.open_max = 8;
    b.opts.idle_close_ms = 100;
    b.opts.full_sync = false;
    tbed_start(&b);
    for (int i = 0; i < NAMES; i++) {
        pthread_mutex_init(&c.locks[i], NULL);
        c.rows[i] = -1;
    }
    for (unsigned i = 0; i < ACTORS; i++) {
        actors[i] = (struct actor){.c = &c, .seed = c.seed + i};
        assert_int_equal(thr_start(&threads[i], "actor", act, &actors[i], &err), RC_OK);
    }
    for (int i = 0; i < ACTORS; i++)
        pthread_join(threads[i], NULL);
    tbed_stop_ok(&b);
    assert_int_equal(tbed_entries(&b, "open"), 0);
    assert_int_equal(tbed_entries(&b, "tmp"), 0);
    for (int i = 0; i < NAMES; i++) {
        char name[8];
        snprintf(name, sizeof name, "c%d", i);
        if (c.rows[i] < 0) continue;
        assert_int_equal(tbed_log_int(&b, name, 0, "SELECT count(*) FROM t"), c.rows[i]);
    }
    tbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
