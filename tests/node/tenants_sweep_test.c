/*
 * tenants_sweep_test.c -- load with readers, threads that do all at once, and every syscall and
 * allocation failing in turn. Seed: SLUICE_SEED. An argument: only the test of this name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdio.h>
#include <signal.h>
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

static unsigned count_of(const char *name, unsigned fallback)
{
    const char *given = getenv(name);
    return given != NULL ? (unsigned)strtoul(given, NULL, 10) : fallback;
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
        static const char sql[] = "BEGIN; SELECT v FROM t LIMIT 1;";
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
    _Atomic int64_t began_us; /* 0: free */
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
    if (at < sizeof latencies / sizeof latencies[0])
        latencies[at] = os_mono_us() - atomic_load(&i->began_us);
    atomic_fetch_sub(&inserts_out, 1);
    atomic_store(&i->began_us, 0);
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
    b.opts.full_sync = getenv("SLUICE_NO_FSYNC") == NULL;
    tbed_start(&b);
    tbed_sql(&b, "default", SETUP);
    l.t = tbed_open(&b, "default");
    for (int i = 0; i < 3; i++)
        assert_int_equal(thr_start(&readers[i], "reader", read_on, &l, &err), RC_OK);
    int64_t start = os_mono_ms();
    for (unsigned done = 0, at = 0; done < count; at = (at + 1) % INSERTS_AT_ONCE) {
        struct insert *i = &inserts[at];
        if (atomic_load(&inserts_out) == INSERTS_AT_ONCE) os_sleep_us(20);
        if (atomic_load(&i->began_us) != 0) continue;
        i->w = (struct sql_write){.run = run_insert, .fn = insert_done, .ctx = i};
        atomic_store(&i->began_us, os_mono_us());
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
    /* What starts a wait for readers, and what is written until the next look at the WAL. */
    assert_true(most < 96u << 20);
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

/* ---- faults ---- */

/* Something done to tenants `a` (one row: 1) and maybe `b`, in a child that fails or dies. */
struct deed {
    const char *name;
    enum rc (*run)(struct tbed *b, struct err *err);
    /* What is there in the next life; true: a state from before or after, and nothing else. */
    bool (*check)(struct tbed *b);
};
static uint64_t deed_txid;

static enum rc do_create(struct tbed *b, struct err *err)
{
    return tenants_ops.create(b->ts, "b", NULL, err);
}

static enum rc do_rename(struct tbed *b, struct err *err)
{
    return tenants_ops.rename(b->ts, "a", "b", err);
}

static enum rc do_remove(struct tbed *b, struct err *err)
{
    return tenants_ops.remove(b->ts, "a", false, err);
}

static enum rc do_keep(struct tbed *b, struct err *err)
{
    return tenants_ops.remove(b->ts, "a", true, err);
}

static enum rc do_fork(struct tbed *b, struct err *err)
{
    return tenants_ops.fork(b->ts, "a", "b", NULL, err);
}

static enum rc do_fork_at(struct tbed *b, struct err *err)
{
    return tenants_ops.fork(b->ts, "a", "b", &(struct tenant_at){.txid = deed_txid}, err);
}

static enum rc do_rewind(struct tbed *b, struct err *err)
{
    return tenants_ops.rewind(b->ts, "a", &(struct tenant_at){.txid = deed_txid}, err);
}

static enum rc do_import(struct tbed *b, struct err *err)
{
    char path[128];
    snprintf(path, sizeof path, "%s/in.db", b->dir);
    return tenants_ops.import(b->ts, "b", NULL, path, false, err);
}

static enum rc do_import_dump(struct tbed *b, struct err *err)
{
    char path[128];
    snprintf(path, sizeof path, "%s/in.sql", b->dir);
    return tenants_ops.import(b->ts, "b", NULL, path, true, err);
}

static enum rc do_configure(struct tbed *b, struct err *err)
{
    const struct tenant_conf conf = {.row_max = 5, .block_reason = ""};
    return tenants_ops.configure(b->ts, "a", &conf, err);
}

/* It rests until now: the first write, and its way into the log. */
static enum rc do_write(struct tbed *b, struct err *err)
{
    char path[128];
    enum rc rc = tbed_try_sql(b, "a", "UPDATE t SET v=v+10 WHERE id=1", err);
    snprintf(path, sizeof path, "%s/acknowledged", b->data);
    if (rc == RC_OK) fclose(fopen(path, "w"));
    if (rc == RC_OK) rc = tbed_try_stored(b, "a", 20000, NULL, err);
    return rc;
}

/* -1: no such tenant; -2: it fails otherwise. */
static int64_t value_of(struct tbed *b, const char *name)
{
    int64_t value;
    struct err err = {0};
    enum rc rc;
    /* What the start goes on with by itself may be in the way for a moment. */
    for (int i = 0;
         (rc = tbed_try_int(b, name, "SELECT sum(v) FROM t", &value, &err)) == RC_BUSY && i < 1000;
         i++)
        os_sleep_ms(1);
    if (rc == RC_OK) return value;
    if (rc == RC_NOT_FOUND && strstr(err.text, "doesn't exist") != NULL) return -1;
    if (rc == RC_INVALID && strstr(err.text, "no such table") != NULL) return 0;
    print_message("%s: %s: %s\n", name, rc_name(rc), err.text);
    return -2;
}

static bool a_and_new_b(struct tbed *b)
{
    int64_t value = value_of(b, "b");
    return value_of(b, "a") == 3 && (value == -1 || value == 0);
}

static bool a_and_b_or_not(struct tbed *b)
{
    int64_t value = value_of(b, "b");
    return value_of(b, "a") == 3 && (value == -1 || value == 3);
}

static bool a_and_b_of_then(struct tbed *b)
{
    int64_t value = value_of(b, "b");
    return value_of(b, "a") == 3 && (value == -1 || value == 1);
}

static bool a_or_b(struct tbed *b)
{
    int64_t x = value_of(b, "a"), y = value_of(b, "b");
    return (x == 3 && y == -1) || (x == -1 && y == 3);
}

static bool a_or_not(struct tbed *b)
{
    int64_t value = value_of(b, "a");
    return value == 3 || value == -1;
}

static bool a_now_or_then(struct tbed *b)
{
    int64_t value = value_of(b, "a");
    return value == 3 || value == 1;
}

/* Nobody has opened it since: what it has is in the log all the same. */
static bool a_and_its_log(struct tbed *b)
{
    WAIT_FOR(tbed_entries(b, "open") == 0);
    int64_t logged = tbed_log_int(b, "a", 0, "SELECT sum(v) FROM t"), value = value_of(b, "a");
    return value == logged && (value == 13 || (value == 3 && !tbed_exists(b, "acknowledged")));
}

static bool a_as_it_was(struct tbed *b)
{
    return value_of(b, "a") == 3;
}

static void make_file(struct tbed *b)
{
    char path[128];
    sqlite3 *db;
    FILE *f;
    snprintf(path, sizeof path, "%s/in.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, SETUP "; INSERT INTO t(v) VALUES(3)", 0, 0, 0), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    snprintf(path, sizeof path, "%s/in.sql", b->dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(SETUP ";\nINSERT INTO t(v) VALUES(3);\n", f);
    fclose(f);
}

/* In a child: the nth step of the classes fails, or kills it. Exit: 0 done, 1 failed, 2 not
 * reached, 3 wrong. */
static int run_deed(const struct deed *d, struct tbed *b, unsigned classes, uint64_t nth, bool kill)
{
    struct err err = {0};
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char env[64];
        alarm(60);
        tbed_start(b);
        value_of(b, "a"); /* open */
        if (kill) {
            snprintf(env, sizeof env, "kill:syscall:%" PRIu64, nth);
            setenv("SLUICE_FAULT", env, 1);
            fault_arm_from_env();
        } else {
            fault_arm(classes, nth, false);
        }
        enum rc rc = d->run(b, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        if (rc == RC_OK) rc = tbed_stop(b, &err);
        if (rc != RC_OK && err.text[0] == '\0') _exit(3);
        _exit(!fired ? 2 : rc == RC_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && kill && WTERMSIG(status) == SIGKILL) return 1;
    if (!WIFEXITED(status))
        fail_msg("%s, step %" PRIu64 ": signal %d", d->name, nth, WTERMSIG(status));
    return WEXITSTATUS(status);
}

static void copy_tree(const char *from, const char *to)
{
    char cmd[400];
    snprintf(cmd, sizeof cmd, "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
    assert_int_equal(system(cmd), 0);
}

/* The folder is made once, then each life gets a copy of it. */
static void sweep(const struct deed *d, unsigned classes, bool kill)
{
    struct tbed b;
    char keep[80], all[64];
    struct err err;
    unsigned steps = 0;
    const unsigned stride = count_of("SLUICE_STRIDE", kill ? 7 : 11);
    tbed_new(&b);
    make_file(&b);
    tbed_start(&b);
    assert_int_equal(tenants_ops.create(b.ts, "a", NULL, &err), RC_OK);
    tbed_sql(&b, "a", SETUP "; INSERT INTO t(v) VALUES(1)");
    deed_txid = tbed_stored(&b, "a");
    tbed_sql(&b, "a", "INSERT INTO t(v) VALUES(2)");
    tbed_stop_ok(&b);
    snprintf(all, sizeof all, "%s", b.dir);
    snprintf(keep, sizeof keep, "%s.keep", b.dir);
    copy_tree(all, keep);
    for (uint64_t nth = 1 + (uint64_t)os_random() % 3;; nth += stride) {
        int how = run_deed(d, &b, classes, nth, kill);
        if (how == 3) fail_msg("%s, step %" PRIu64 ": fails without a word", d->name, nth);
        tbed_start(&b);
        if (!d->check(&b)) fail_msg("%s, step %" PRIu64 ": not as before or after", d->name, nth);
        WAIT_FOR(tbed_entries(&b, "tmp") == 0);
        tbed_stop_ok(&b);
        if (how == 2 || ++steps > 2000) break;
        copy_tree(keep, all);
    }
    print_message("%s: %u steps\n", d->name, steps);
    assert_true(steps > 0);
    tbed_free(&b);
    snprintf(all, sizeof all, "rm -rf '%.50s'", keep);
    assert_int_equal(system(all), 0);
}

static const struct deed deeds[] = {
    {"create", do_create, a_and_new_b},
    {"import", do_import, a_and_b_or_not},
    {"import dump", do_import_dump, a_and_b_or_not},
    {"remove", do_remove, a_or_not},
    {"remove, keep", do_keep, a_or_not},
    {"rename", do_rename, a_or_b},
    {"fork", do_fork, a_and_b_or_not},
    {"fork at", do_fork_at, a_and_b_of_then},
    {"rewind", do_rewind, a_now_or_then},
    {"configure", do_configure, a_as_it_was},
    {"write", do_write, a_and_its_log},
};

static void test_kill(void **arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++)
        sweep(&deeds[i], FAULT_SYSCALL, true);
}

static void test_fail(void **arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        sweep(&deeds[i], FAULT_SYSCALL, false);
        sweep(&deeds[i], FAULT_ALLOC, false);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
