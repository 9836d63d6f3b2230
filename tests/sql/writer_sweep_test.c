/*
 * writer_sweep_test.c -- random histories of group commit against a plain model, a child that is
 * killed in the middle, and every allocation failing in turn, SQLite's own included.
 *
 * Model: each thread owns keys of its own and knows what they hold. A write's outcome is predicted
 * before it is submitted, whoever else is in its group. Seed: SLUICE_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/os.h"
#include "sql/bed.h"
#include "sql/crew.h"

#define THREADS 4
#define KEYS    24
#define STEPS   400

struct actor {
    struct crew *crew;
    const char *path;
    int index;
    uint64_t random;
    int64_t value[KEYS]; /* 0: no such row */
    uint64_t last_commit;
    char failure[256];
};

static const char *const schema =
    "CREATE TABLE t(k INTEGER PRIMARY KEY, v INT NOT NULL CHECK(v>0));"
    "CREATE TABLE twin(k INTEGER PRIMARY KEY, v INT);"
    "CREATE TABLE parent(k INTEGER PRIMARY KEY);"
    "CREATE TABLE child(k REFERENCES parent(k) DEFERRABLE INITIALLY DEFERRED);"
    "CREATE TRIGGER twin_i AFTER INSERT ON t BEGIN INSERT INTO twin VALUES(new.k,new.v); END;"
    "CREATE TRIGGER twin_u AFTER UPDATE ON t BEGIN UPDATE twin SET v=new.v WHERE k=new.k; END;"
    "CREATE TRIGGER twin_d AFTER DELETE ON t BEGIN DELETE FROM twin WHERE k=old.k; END;"
    "CREATE TRIGGER never BEFORE INSERT ON t WHEN new.v=666 BEGIN SELECT RAISE(ROLLBACK,'no'); "
    "END;";

struct step {
    char a[200], b[200];
    bool ok;
    int64_t changed; /* rows that the last statement changes */
    int key;
    int64_t after; /* value of the key if it succeeds */
};

static void plan(struct actor *a, struct step *s)
{
    uint64_t r = bed_random(&a->random);
    int i = (int)(r % KEYS);
    int key = a->index * KEYS + i;
    int64_t value = (int64_t)(r >> 20 & 0xffff) + 1000;
    bool there = a->value[i] != 0;
    *s = (struct step){.key = i, .after = a->value[i], .ok = true};
    switch (r >> 40 & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
        snprintf(s->a, sizeof s->a, "INSERT INTO t VALUES(%d,%lld)", key, (long long)value);
        s->ok = !there;
        break;
    case 4:
        snprintf(s->a, sizeof s->a, "INSERT OR ROLLBACK INTO t VALUES(%d,%lld)", key,
                 (long long)value);
        s->ok = !there;
        break;
    case 5:
        snprintf(s->a, sizeof s->a, "INSERT INTO t VALUES(%d,666)", key);
        s->ok = false;
        break;
    case 6: /* the second half fails, so the first must not stay */
        snprintf(s->a, sizeof s->a, "DELETE FROM t WHERE k=%d", key);
        snprintf(s->b, sizeof s->b, "UPDATE t SET v=nonsense");
        s->ok = false;
        break;
    case 7:
        snprintf(s->a, sizeof s->a, "INSERT INTO child VALUES(%d)", key + 1000000);
        s->ok = false;
        break;
    case 8:
    case 9:
    case 10:
        snprintf(s->a, sizeof s->a, "DELETE FROM t WHERE k=%d", key);
        s->changed = there;
        s->after = 0;
        break;
    case 11: /* not for a group */
        snprintf(s->a, sizeof s->a, "BEGIN");
        snprintf(s->b, sizeof s->b, "DELETE FROM t");
        s->changed = -1;
        break;
    default:
        snprintf(s->a, sizeof s->a, "UPDATE t SET v=%lld WHERE k=%d", (long long)value, key);
        s->changed = there;
        if (there) s->after = value;
        break;
    }
    if ((r >> 40 & 15) <= 4) s->changed = 1, s->after = value;
}

static void complain(struct actor *a, const struct step *s, const struct job *j)
{
    snprintf(a->failure, sizeof a->failure, "'%.80s' '%.60s': rc %d affected %d: %.60s", s->a, s->b,
             (int)j->write.rc, (int)j->done.affected, j->write.err.text);
}

static void one_write(struct actor *a)
{
    struct step s;
    struct job j;
    plan(a, &s);
    job_init(&j, a->crew, s.a, s.b[0] != '\0' ? s.b : NULL);
    if (job_submit(&j) != RC_OK) return;
    bool ok = job_wait(&j) == RC_OK;
    if (ok != s.ok) complain(a, &s, &j);
    if (ok && s.changed >= 0 && (int64_t)j.done.affected != s.changed) complain(a, &s, &j);
    if (ok && j.write.commit < a->last_commit) complain(a, &s, &j);
    if (ok) a->last_commit = j.write.commit;
    if (ok && s.changed >= 0) a->value[s.key] = s.after;
    job_fini(&j);
}

/* Two keys change in one interactive transaction, or none. */
static void one_transaction(struct actor *a)
{
    struct hold h;
    struct err err;
    struct sql_error sql_err;
    struct sql_done done;
    uint64_t r = bed_random(&a->random);
    int keys[2] = {(int)(r % KEYS), (int)(r / 7 % KEYS)};
    int64_t value = (int64_t)(r >> 30 & 0xfff) + 1000; /* 666 is refused */
    bool keep = r >> 60 & 1;
    if (hold_begin(&h, a->crew, &(struct sql_conn_opts){.path = a->path}) != RC_OK) {
        snprintf(a->failure, sizeof a->failure, "no transaction: %.200s", h.err.text);
        hold_end(&h);
        return;
    }
    char sql[3][96];
    snprintf(sql[0], sizeof sql[0], "REPLACE INTO t VALUES(%d,%lld)", a->index * KEYS + keys[0],
             (long long)value);
    snprintf(sql[1], sizeof sql[1], "REPLACE INTO t VALUES(%d,%lld)", a->index * KEYS + keys[1],
             (long long)value);
    snprintf(sql[2], sizeof sql[2], "COMMIT");
    bool ok = true;
    for (int i = 0; i < (keep ? 3 : 2); i++) {
        /* REPLACE does not fire the delete trigger of its twin. */
        char twin[96];
        snprintf(twin, sizeof twin, "DELETE FROM t WHERE k=%d", a->index * KEYS + keys[i % 2]);
        struct sql_stmt pre = {.sql = twin, .sql_size = strlen(twin)};
        struct sql_stmt s = {.sql = sql[i], .sql_size = strlen(sql[i])};
        if (i < 2)
            ok = ok && sql_conn_run(h.conn, NULL, NULL, &pre, NULL, &done, &sql_err, &err) == RC_OK;
        ok = ok && sql_conn_run(h.conn, NULL, NULL, &s, NULL, &done, &sql_err, &err) == RC_OK;
    }
    uint64_t commit = hold_end(&h);
    if (!ok) snprintf(a->failure, sizeof a->failure, "transaction: %.200s", err.text);
    if (ok && keep != (commit != 0)) snprintf(a->failure, sizeof a->failure, "commit number");
    if (ok && keep) a->value[keys[0]] = a->value[keys[1]] = value;
}

static void *act(void *arg)
{
    struct actor *a = arg;
    for (int i = 0; i < STEPS && a->failure[0] == '\0'; i++) {
        if (bed_random(&a->random) % 16 == 0)
            one_transaction(a);
        else
            one_write(a);
    }
    return NULL;
}

static void make_schema(struct bed *b)
{
    if (sql_conn_script(b->conn, NULL, NULL, schema, strlen(schema), &b->sql_err, &b->err) != RC_OK)
        fail_msg("%s", b->err.text);
}

static void test_model(void **state)
{
    (void)state;
    struct bed b;
    struct crew e;
    struct actor actors[THREADS];
    pthread_t threads[THREADS];
    uint64_t seed = bed_seed();
    bed_new(&b);
    bed_open(&b, NULL);
    make_schema(&b);
    struct sql_writer_opts opts = {.conn = {.path = b.path, .foreign_keys = true}};
    crew_start(&e, &opts);
    for (int i = 0; i < THREADS; i++) {
        actors[i] =
            (struct actor){.crew = &e, .path = b.path, .index = i, .random = seed + (uint64_t)i};
        assert_int_equal(thr_start(&threads[i], "actor", act, &actors[i], &b.err), RC_OK);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    crew_stop(&e);
    for (int i = 0; i < THREADS; i++) {
        if (actors[i].failure[0] != '\0') fail_msg("%s", actors[i].failure);
        for (int k = 0; k < KEYS; k++) {
            char sql[96], want[64] = "";
            int64_t v = actors[i].value[k];
            snprintf(sql, sizeof sql,
                     "SELECT t.v, twin.v FROM t LEFT JOIN twin USING(k) WHERE k=%d", i * KEYS + k);
            if (v != 0) snprintf(want, sizeof want, "%lld|%lld", (long long)v, (long long)v);
            assert_string_equal(bed_ok(&b, sql), want);
        }
    }
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t"),
                        bed_ok(&b, "SELECT count(*) FROM twin"));
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM child"), "0");
    bed_free(&b);
}

struct killed {
    struct crew *crew;
    int index, fd;
    uint64_t random;
};

/* Each write puts one number into two tables; some also break the transaction of their group. Only
 * what was acknowledged is told to the parent. */
static void *write_and_tell(void *arg)
{
    struct killed *k = arg;
    for (int32_t i = 0;; i++) {
        char sql[80];
        struct job j;
        bool breaks = bed_random(&k->random) % 8 == 0;
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d,%d)", k->index * 1000000 + i, i + 1000);
        job_init(&j, k->crew, sql, breaks ? "INSERT INTO t VALUES(-1,666)" : NULL);
        if (job_submit(&j) == RC_OK && job_wait(&j) == RC_OK) {
            int32_t told = k->index * 1000000 + i;
            if (write(k->fd, &told, sizeof told) != sizeof told) _exit(1);
        } else if (!breaks) {
            _exit(2);
        }
        job_fini(&j);
    }
    return NULL;
}

static _Noreturn void child(struct bed *b, int fd, uint64_t seed)
{
    static struct killed killed[THREADS];
    static struct crew e;
    pthread_t thread;
    struct sql_writer_opts opts = {.conn = {.path = b->path, .full_sync = true}};
    crew_start(&e, &opts);
    for (int i = 0; i < THREADS; i++) {
        killed[i] = (struct killed){&e, i, fd, seed + (uint64_t)i};
        if (thr_start(&thread, "teller", write_and_tell, &killed[i], &b->err) != RC_OK) _exit(3);
    }
    for (;;)
        pause();
}

static void one_kill(uint64_t seed)
{
    struct bed b;
    int fds[2];
    bed_new(&b);
    bed_open(&b, NULL);
    make_schema(&b);
    sql_conn_close(b.conn);
    b.conn = NULL;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) child(&b, fds[1], seed);
    close(fds[1]);
    struct pollfd first = {.fd = fds[0], .events = POLLIN};
    assert_int_equal(poll(&first, 1, 60000), 1);
    os_sleep_ms((int64_t)(seed % 200));
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    bed_open(&b, NULL);
    int32_t told, count = 0;
    while (read(fds[0], &told, sizeof told) == sizeof told) {
        char sql[96];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM t JOIN twin USING(k,v) WHERE k=%d", told);
        assert_string_equal(bed_ok(&b, sql), "1");
        count++;
    }
    close(fds[0]);
    assert_true(count > 0);
    /* Nothing half, nothing of a write that was refused, and at most one write a thread untold. */
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM t LEFT JOIN twin USING(k) WHERE "
                                   "twin.v IS NOT t.v"),
                        "0");
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM twin WHERE k NOT IN (SELECT k FROM t)"),
                        "0");
    int rows = atoi(bed_ok(&b, "SELECT count(*) FROM t"));
    assert_in_range(rows, count, count + THREADS);
    assert_string_equal(bed_ok(&b, "PRAGMA integrity_check"), "ok");
    bed_free(&b);
}

static void test_killed(void **state)
{
    (void)state;
    uint64_t seed = bed_seed();
    for (int i = 0; i < 8; i++)
        one_kill(bed_random(&seed));
}

static void count_grant(struct sql_turn *t)
{
    ++*(int *)t->ctx;
}

/* A turn needs no memory; what is done in it may fail, and is rolled back. */
static void sweep_turn(struct sql_writer *w, const char *path)
{
    struct sql_conn_opts opts = {.path = path};
    struct sql_stmt s = {.sql = "DELETE FROM t", .sql_size = 13};
    struct sql_error sql_err;
    struct sql_done done;
    struct err err;
    uint64_t commit = 7;
    int granted = 0;
    struct sql_turn t = {.granted = count_grant, .ctx = &granted};
    if (sql_conn_open(&opts, &t.conn, &err) != RC_OK) return;
    sql_writer_ask(w, &t);
    assert_int_equal(granted, 1);
    if (sql_conn_begin(t.conn, true, &err) == RC_OK)
        (void)!sql_conn_run(t.conn, NULL, NULL, &s, NULL, &done, &sql_err, &err);
    sql_writer_give_back(w, &t, &commit);
    assert_int_equal(commit, 0);
    sql_conn_close(t.conn);
}

/* Returns false when no fault fired. */
static bool sweep_once(struct bed *b, uint64_t nth, bool sticky)
{
    struct sql_writer *w = NULL;
    struct job jobs[5];
    struct crew e = {0};
    struct err err;
    pthread_mutex_init(&e.lock, NULL);
    thr_cond_init(&e.cond);
    job_init(&jobs[0], &e, "INSERT INTO t VALUES(1,1001) RETURNING k", NULL);
    job_init(&jobs[1], &e, "INSERT INTO t VALUES(2,1002)", "SELECT nonsense");
    job_init(&jobs[2], &e, "INSERT INTO t VALUES(3,666)", NULL);
    job_init(&jobs[3], &e, "PRAGMA recursive_triggers=1", "INSERT INTO t VALUES(4,1004)");
    job_init(&jobs[4], &e, "INSERT INTO t VALUES(5,1005)", NULL);
    bed_ok(b, "DELETE FROM t");
    struct sql_writer_opts opts = {.conn = {.path = b->path}};
    fault_arm(FAULT_ALLOC, nth, sticky);
    if (sql_writer_new(&opts, &w, &err) == RC_OK) {
        for (int i = 0; i < 5; i++) {
            jobs[i].crew->writer = w;
            assert_int_equal(job_submit(&jobs[i]), RC_OK);
        }
        while (sql_writer_work(w, 1000000)) {
        }
        for (int i = 0; i < 5; i++)
            assert_true(jobs[i].ready);
        sweep_turn(w, b->path);
    }
    bool fired = fault_fired();
    fault_arm(0, 0, false);
    sql_writer_free(w);
    for (int i = 0; i < 5 && w != NULL; i++) {
        char sql[64];
        bool may = i != 1 && i != 2, ok = jobs[i].write.rc == RC_OK;
        snprintf(sql, sizeof sql, "SELECT count(*) FROM twin WHERE k=%d", i + 1);
        /* What was acknowledged is there. What failed is not, but for a script that runs alone and
         * lost only its answer. */
        const char *found = bed_ok(b, sql);
        if (ok) assert_true(may);
        if (ok || i != 3) assert_string_equal(found, ok ? "1" : "0");
        if (!ok) assert_true(jobs[i].write.sql_err.code[0] != '\0');
        if (!fired) assert_true(ok == may);
    }
    for (int i = 0; i < 5; i++)
        job_fini(&jobs[i]);
    pthread_mutex_destroy(&e.lock);
    pthread_cond_destroy(&e.cond);
    return fired;
}

static void test_allocations(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    bed_open(&b, NULL);
    make_schema(&b);
    for (int sticky = 0; sticky < 2; sticky++) {
        uint64_t nth = 1;
        while (sweep_once(&b, nth, sticky != 0))
            nth++;
        assert_true(nth > 200);
        printf("%llu allocations\n", (unsigned long long)nth - 1);
    }
    assert_string_equal(bed_ok(&b, "PRAGMA integrity_check"), "ok");
    bed_free(&b);
}

int main(void)
{
    bed_sqlite_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
