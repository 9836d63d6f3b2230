/* writer_test.c -- group commit, one rule a test; the random histories are in
 * writer_sweep_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/os.h"
#include "sql/bed.h"
#include "sql/crew.h"

struct rig {
    struct bed bed; /* with a connection of its own, "another process" */
    struct crew crew;
    struct job jobs[64];
    size_t count;
};

static void begin_with(struct rig *r, struct sql_writer_opts opts)
{
    memset(r, 0, sizeof *r);
    bed_new(&r->bed);
    opts.conn.path = r->bed.path;
    bed_open(&r->bed, NULL);
    bed_ok(&r->bed, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    crew_start(&r->crew, &opts);
}

static void begin(struct rig *r)
{
    begin_with(r, (struct sql_writer_opts){0});
}

static void end(struct rig *r)
{
    crew_stop(&r->crew);
    for (size_t i = 0; i < r->count; i++)
        job_fini(&r->jobs[i]);
    assert_string_equal(bed_ok(&r->bed, "PRAGMA integrity_check"), "ok");
    bed_free(&r->bed);
}

static struct job *add(struct rig *r, const char *a, const char *b)
{
    struct job *j = &r->jobs[r->count++];
    job_init(j, &r->crew, a, b);
    return j;
}

/* Submit all that were added as one group, and wait for them. */
static void go(struct rig *r)
{
    crew_pause(&r->crew, true);
    for (size_t i = 0; i < r->count; i++)
        if (!r->jobs[i].ready) assert_int_equal(job_submit(&r->jobs[i]), RC_OK);
    crew_pause(&r->crew, false);
    for (size_t i = 0; i < r->count; i++)
        (void)job_wait(&r->jobs[i]);
}

static void test_one_transaction(void **state)
{
    (void)state;
    struct rig r;
    struct sql_writer_stats stats;
    begin(&r);
    for (int i = 0; i < 50; i++)
        add(&r, "INSERT INTO t(b) VALUES('x') RETURNING a", NULL);
    go(&r);
    for (int i = 0; i < 50; i++) {
        char want[8];
        snprintf(want, sizeof want, "%d", i + 1);
        assert_int_equal(r.jobs[i].write.rc, RC_OK);
        assert_string_equal((char *)r.jobs[i].rows.data, want);
        assert_int_equal(r.jobs[i].write.commit, r.jobs[0].write.commit);
        assert_int_equal(r.jobs[i].runs, 1);
    }
    sql_writer_look(r.crew.writer, &stats);
    assert_int_equal(stats.commits, 1);
    assert_int_equal(stats.group_max, 50);
    assert_int_equal(stats.writes, 50);
    assert_string_equal(bed_ok(&r.bed, "SELECT count(*) FROM t"), "50");
    assert_int_equal(job_run(&r.crew, "DELETE FROM t"), RC_OK);
    sql_writer_look(r.crew.writer, &stats);
    assert_int_equal(stats.commits, 2);
    end(&r);
}

static void test_failures_stay_alone(void **state)
{
    (void)state;
    struct rig r;
    begin(&r);
    add(&r, "INSERT INTO t VALUES(1,'a')", NULL);
    add(&r, "INSERT INTO t VALUES(2,'b')", "INSERT INTO t VALUES(1,'c')");
    add(&r, "SELECT nonsense", NULL);
    add(&r, "INSERT INTO t VALUES(2,'d')", NULL);
    add(&r, "INSERT INTO t VALUES(2,'e')", NULL);
    go(&r);
    const enum rc want[] = {RC_OK, RC_INVALID, RC_INVALID, RC_OK, RC_INVALID};
    for (int i = 0; i < 5; i++)
        assert_int_equal(r.jobs[i].write.rc, want[i]);
    assert_string_equal(r.jobs[1].write.sql_err.extended, "SQLITE_CONSTRAINT_PRIMARYKEY");
    assert_int_equal(r.jobs[1].write.commit, 0);
    assert_string_equal(bed_ok(&r.bed, "SELECT * FROM t"), "1|a\n2|d");
    end(&r);
}

static void test_broken_transactions(void **state)
{
    (void)state;
    struct rig r;
    struct sql_writer_stats stats;
    begin(&r);
    bed_ok(&r.bed, "CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.b='no' BEGIN "
                   "SELECT RAISE(ROLLBACK, 'never'); END");
    add(&r, "INSERT INTO t VALUES(1,'a') RETURNING b", NULL);
    add(&r, "INSERT INTO t VALUES(1,'dup')", NULL);
    add(&r, "INSERT OR ROLLBACK INTO t VALUES(1,'b')", NULL);
    add(&r, "INSERT INTO t VALUES(2,'c') RETURNING b", NULL);
    add(&r, "INSERT INTO t VALUES(9,'n')", "INSERT INTO t VALUES(3,'no')");
    add(&r, "INSERT INTO t VALUES(3,'d') RETURNING b", NULL);
    go(&r);
    const enum rc want[] = {RC_OK, RC_INVALID, RC_INVALID, RC_OK, RC_INVALID, RC_OK};
    for (int i = 0; i < 6; i++)
        assert_int_equal(r.jobs[i].write.rc, want[i]);
    assert_string_equal((char *)r.jobs[0].rows.data, "a");
    assert_string_equal((char *)r.jobs[3].rows.data, "c");
    assert_string_equal((char *)r.jobs[5].rows.data, "d");
    assert_int_equal(r.jobs[0].restarts, 2);
    assert_int_equal(r.jobs[2].runs, 1);
    assert_string_equal(r.jobs[4].write.sql_err.message, "SQLite error: never");
    assert_string_equal(bed_ok(&r.bed, "SELECT * FROM t"), "1|a\n2|c\n3|d");
    sql_writer_look(r.crew.writer, &stats);
    assert_int_equal(stats.again, 2);
    assert_int_equal(stats.commits, 1);
    /* Many of them: no more than a few attempts, and still the right outcome. */
    for (size_t i = 0; i < r.count; i++)
        job_fini(&r.jobs[i]);
    r.count = 0;
    for (int i = 0; i < 20; i++)
        add(&r, i % 2 ? "INSERT OR ROLLBACK INTO t VALUES(1,'b')" : "INSERT INTO t(b) VALUES(0)",
            NULL);
    go(&r);
    for (int i = 0; i < 20; i++)
        assert_int_equal(r.jobs[i].write.rc, i % 2 ? RC_INVALID : RC_OK);
    assert_string_equal(bed_ok(&r.bed, "SELECT count(*) FROM t"), "13");
    end(&r);
}

/* Steps that do not depend on each other: after the transaction is gone they go on without one. */
static void test_broken_and_going_on(void **state)
{
    (void)state;
    struct rig r;
    begin(&r);
    add(&r, "INSERT INTO t VALUES(1,'a')", NULL);
    struct job *j = add(&r, "INSERT INTO t VALUES(2,'b')", "INSERT OR ROLLBACK INTO t VALUES(1,1)");
    j->sql[2] = "INSERT INTO t VALUES(3,'c')";
    j->go_on = true;
    add(&r, "INSERT INTO t VALUES(4,'d')", NULL);
    go(&r);
    for (int i = 0; i < 3; i++)
        assert_int_equal(r.jobs[i].write.rc, RC_OK);
    assert_string_equal(bed_ok(&r.bed, "SELECT * FROM t"), "1|a\n2|b\n3|c\n4|d");
    end(&r);
}

static void test_counters(void **state)
{
    (void)state;
    struct rig r;
    begin(&r);
    const char *look = "SELECT changes(), total_changes(), last_insert_rowid()";
    add(&r, "INSERT INTO t VALUES(5,'a'),(6,'b')", look);
    add(&r, look, NULL);
    add(&r, "UPDATE t SET b=1 WHERE a=5", look);
    add(&r, "DELETE FROM t WHERE 0", look);
    add(&r, "INSERT INTO t(b) VALUES(1)", look);
    go(&r);
    const char *const want[] = {"2|2|6", "0|0|0", "1|1|0", "0|0|0", "1|1|7"};
    for (int i = 0; i < 5; i++)
        assert_string_equal((char *)r.jobs[i].rows.data, want[i]);
    end(&r);
}

static void test_deferred_foreign_keys(void **state)
{
    (void)state;
    struct rig r;
    begin_with(&r, (struct sql_writer_opts){.conn = {.foreign_keys = true}});
    bed_ok(&r.bed, "CREATE TABLE c(a REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)");
    bed_ok(&r.bed, "CREATE TABLE d(a REFERENCES t(a))");
    add(&r, "INSERT INTO c VALUES(1)", "INSERT INTO t VALUES(1,0)");
    add(&r, "INSERT INTO c VALUES(2)", NULL);
    add(&r, "INSERT INTO t VALUES(2,0)", NULL);
    add(&r, "PRAGMA defer_foreign_keys=1", "INSERT INTO d VALUES(7)");
    add(&r, "INSERT INTO d VALUES(8)", "INSERT INTO t VALUES(8,0)");
    struct job *j = add(&r, "PRAGMA defer_foreign_keys=1", "INSERT INTO d VALUES(3)");
    j->sql[2] = "INSERT INTO t VALUES(3,0)";
    add(&r, "INSERT INTO t VALUES(4,0)", NULL);
    go(&r);
    const enum rc want[] = {RC_OK, RC_INVALID, RC_OK, RC_INVALID, RC_INVALID, RC_OK, RC_OK};
    for (int i = 0; i < 7; i++)
        assert_int_equal(r.jobs[i].write.rc, want[i]);
    assert_string_equal(r.jobs[1].write.sql_err.extended, "SQLITE_CONSTRAINT_FOREIGNKEY");
    assert_string_equal(r.jobs[1].write.sql_err.message,
                        "SQLite error: FOREIGN KEY constraint failed");
    assert_string_equal(bed_ok(&r.bed, "SELECT a FROM t"), "1\n2\n3\n4");
    assert_string_equal(bed_ok(&r.bed, "SELECT a FROM c UNION ALL SELECT a FROM d"), "1\n3");
    end(&r);
}

/* What cannot share a transaction is found out, whether it is marked or not. */
static void test_alone(void **state)
{
    (void)state;
    static const char *const list[][2] = {
        {"VACUUM", NULL},
        {"CREATE TEMP TABLE x(a)", "INSERT INTO x VALUES(1)"},
        {"PRAGMA foreign_keys=1", "PRAGMA foreign_keys"},
        {"BEGIN", "INSERT INTO t(b) VALUES('gone')"},
        {"SAVEPOINT sluice_unit", "ROLLBACK TO sluice_unit"},
        {"SAVEPOINT x", "RELEASE x"},
    };
    for (int marked = 0; marked < 2; marked++) {
        struct rig r;
        struct sql_writer_stats stats;
        begin(&r);
        for (size_t i = 0; i < 6; i++) {
            add(&r, "INSERT INTO t(b) VALUES('in')", NULL);
            add(&r, list[i][0], list[i][1])->write.alone = marked != 0;
        }
        add(&r, "INSERT INTO t(b) VALUES('in')", NULL);
        add(&r, "SELECT * FROM temp.x", NULL);
        add(&r, "PRAGMA foreign_keys", NULL);
        go(&r);
        for (int i = 0; i < 13; i++) {
            if (r.jobs[i].write.rc != RC_OK) fail_msg("%d: %s", i, r.jobs[i].write.err.text);
        }
        assert_int_equal(r.jobs[13].write.rc, RC_INVALID);
        assert_string_equal((char *)r.jobs[5].rows.data, "1");
        assert_string_equal((char *)r.jobs[14].rows.data, "0");
        assert_string_equal(bed_ok(&r.bed, "SELECT count(*), max(b) FROM t"), "7|in");
        for (int i = 1; i < 13; i++)
            assert_true(r.jobs[i].write.commit >= r.jobs[i - 1].write.commit);
        sql_writer_look(r.crew.writer, &stats);
        assert_int_equal(stats.failed, 1);
        end(&r);
    }
}

static void test_deadlines(void **state)
{
    (void)state;
    struct rig r;
    atomic_bool cancel = true;
    begin(&r);
    add(&r, "INSERT INTO t VALUES(1,1)", NULL);
    add(&r, "INSERT INTO t VALUES(2,2)", NULL)->write.call.deadline_ms = os_mono_ms() - 1;
    add(&r, "INSERT INTO t VALUES(3,3)", NULL)->write.call.cancel = &cancel;
    add(&r,
        "INSERT INTO t SELECT 100, count(*) FROM (WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL "
        "SELECT x+1 FROM c) SELECT x FROM c)",
        NULL)
        ->write.call.deadline_ms = os_mono_ms() + 100;
    add(&r, "INSERT INTO t VALUES(5,5)", NULL);
    go(&r);
    const enum rc want[] = {RC_OK, RC_CANCELED, RC_CANCELED, RC_CANCELED, RC_OK};
    for (int i = 0; i < 5; i++)
        assert_int_equal(r.jobs[i].write.rc, want[i]);
    assert_string_equal(r.jobs[1].write.sql_err.code, "SQLITE_INTERRUPT");
    assert_string_equal(bed_ok(&r.bed, "SELECT a FROM t"), "1\n5");
    end(&r);
}

/* Another process has the lock: who is in a hurry gives up, the others get through. */
static void test_busy(void **state)
{
    (void)state;
    struct rig r;
    begin(&r);
    bed_ok(&r.bed, "BEGIN IMMEDIATE");
    struct job *patient = add(&r, "INSERT INTO t VALUES(1,1)", NULL);
    struct job *hasty = add(&r, "INSERT INTO t VALUES(2,2)", NULL);
    hasty->write.call.deadline_ms = os_mono_ms() + 50;
    assert_int_equal(job_submit(patient), RC_OK);
    assert_int_equal(job_submit(hasty), RC_OK);
    os_sleep_ms(150);
    bed_ok(&r.bed, "COMMIT");
    assert_int_equal(job_wait(hasty), RC_CANCELED);
    assert_int_equal(job_wait(patient), RC_OK);
    end(&r);
    begin_with(&r, (struct sql_writer_opts){.conn = {.busy_ms = 60}});
    bed_ok(&r.bed, "BEGIN IMMEDIATE");
    assert_int_equal(job_run(&r.crew, "INSERT INTO t VALUES(1,1)"), RC_BUSY);
    struct hold h;
    struct sql_conn_opts opts = {.path = r.bed.path, .busy_ms = 60};
    assert_int_equal(hold_begin(&h, &r.crew, &opts), RC_BUSY);
    assert_int_equal(hold_end(&h), 0);
    bed_ok(&r.bed, "COMMIT");
    assert_int_equal(job_run(&r.crew, "INSERT INTO t VALUES(1,1)"), RC_OK);
    end(&r);
}

static enum rc run_on(struct rig *r, struct sql_conn *c, const char *sql)
{
    struct sql_stmt s = {.sql = sql, .sql_size = strlen(sql)};
    return sql_conn_run(c, NULL, NULL, &s, NULL, &r->bed.done, &r->bed.sql_err, &r->bed.err);
}

static void test_interactive(void **state)
{
    (void)state;
    struct rig r;
    struct hold h, none;
    begin(&r);
    struct sql_conn_opts opts = {.path = r.bed.path};
    assert_int_equal(hold_begin(&h, &r.crew, &opts), RC_OK);
    assert_false(sql_conn_autocommit(h.conn));
    struct job *waits = add(&r, "INSERT INTO t VALUES(1,'group')", NULL);
    struct job *expires = add(&r, "INSERT INTO t VALUES(2,'late')", NULL);
    expires->write.call.deadline_ms = os_mono_ms() + 30;
    assert_int_equal(job_submit(waits), RC_OK);
    assert_int_equal(job_submit(expires), RC_OK);
    assert_int_equal(job_wait(expires), RC_CANCELED);
    assert_false(waits->ready);
    assert_int_equal(run_on(&r, h.conn, "INSERT INTO t VALUES(3,'mine')"), RC_OK);
    assert_int_equal(run_on(&r, h.conn, "COMMIT"), RC_OK);
    assert_int_equal(hold_end(&h), 1);
    assert_int_equal(job_wait(waits), RC_OK);
    assert_int_equal(waits->write.commit, 2);
    /* Given back without COMMIT: nothing stays. Who does not wait any more is forgotten. */
    assert_int_equal(hold_begin(&h, &r.crew, &opts), RC_OK);
    assert_int_equal(run_on(&r, h.conn, "DELETE FROM t"), RC_OK);
    hold_ask(&none, &r.crew, &opts);
    assert_true(sql_writer_unask(r.crew.writer, &none.turn));
    assert_false(sql_writer_unask(r.crew.writer, &h.turn));
    assert_int_equal(hold_end(&h), 0);
    assert_false(none.granted);
    hold_close(&none);
    assert_string_equal(bed_ok(&r.bed, "SELECT b FROM t"), "group\nmine");
    end(&r);
}

/* A transaction that has only read is not the writer's: it goes on without the turn. */
static void test_reads_go_on(void **state)
{
    (void)state;
    struct rig r;
    struct hold h;
    uint64_t commit;
    begin(&r);
    hold_ask(&h, &r.crew, &(struct sql_conn_opts){.path = r.bed.path});
    hold_wait(&h);
    assert_int_equal(run_on(&r, h.conn, "BEGIN"), RC_OK);
    assert_int_equal(run_on(&r, h.conn, "SELECT * FROM t"), RC_OK);
    sql_writer_give_back(r.crew.writer, &h.turn, &commit);
    assert_int_equal(commit, 0);
    assert_false(sql_conn_autocommit(h.conn));
    assert_int_equal(job_run(&r.crew, "INSERT INTO t VALUES(1,1)"), RC_OK);
    struct sql_stmt count = {.sql = "SELECT count(*) FROM t", .sql_size = 22, .want_rows = true};
    struct sql_sink sink = bed_sink(&r.bed.rows);
    buf_reset(&r.bed.rows);
    assert_int_equal(
        sql_conn_run(h.conn, NULL, NULL, &count, &sink, &r.bed.done, &r.bed.sql_err, &r.bed.err),
        RC_OK);
    assert_memory_equal(r.bed.rows.data, "0", 1); /* its snapshot */
    assert_int_equal(run_on(&r, h.conn, "COMMIT"), RC_OK);
    hold_close(&h);
    end(&r);
}

/* In the order of arrival, with a group between two of them while both wait. */
static void test_turns_are_fair(void **state)
{
    (void)state;
    struct rig r;
    struct hold h[5];
    begin(&r);
    struct sql_conn_opts opts = {.path = r.bed.path};
    for (int i = 0; i < 5; i++)
        hold_ask(&h[i], &r.crew, &opts);
    assert_true(h[0].granted);
    assert_true(sql_writer_unask(r.crew.writer, &h[2].turn));
    assert_true(sql_writer_unask(r.crew.writer, &h[4].turn));
    hold_close(&h[2]);
    hold_close(&h[4]);
    hold_ask(&h[4], &r.crew, &opts); /* the end of the queue is where it should be */
    struct job *a = add(&r, "INSERT INTO t VALUES(1,1)", NULL);
    assert_int_equal(job_submit(a), RC_OK);
    assert_false(h[1].granted);
    assert_int_equal(run_on(&r, h[0].conn, "INSERT INTO t VALUES(10,1)"), RC_OK);
    assert_int_equal(hold_end(&h[0]), 1);
    assert_int_equal(job_wait(a), RC_OK);
    assert_int_equal(a->write.commit, 2); /* before the second turn */
    hold_wait(&h[1]);
    struct job *b = add(&r, "INSERT INTO t VALUES(2,1)", NULL);
    assert_int_equal(job_submit(b), RC_OK);
    assert_false(h[3].granted);
    assert_int_equal(run_on(&r, h[1].conn, "INSERT INTO t VALUES(11,1)"), RC_OK);
    assert_int_equal(hold_end(&h[1]), 3);
    hold_wait(&h[3]);
    assert_true(b->write.commit == 4);
    assert_false(h[4].granted);
    assert_int_equal(hold_end(&h[3]), 0);
    assert_true(h[4].granted);
    assert_int_equal(hold_end(&h[4]), 0);
    end(&r);
}

#define CHAIN 20000

struct chain {
    struct sql_writer *writer;
    struct sql_turn turns[CHAIN];
    struct sql_conn *conn;
    int granted, depth;
};

static void pass_at_once(struct sql_turn *t)
{
    struct chain *c = t->ctx;
    uint64_t commit;
    assert_ptr_equal(t, &c->turns[c->granted++]);
    assert_int_equal(++c->depth, 1);
    sql_writer_give_back(c->writer, t, &commit);
    c->depth--;
}

/* Thousands that give up as soon as it is their turn do not pile up on anybody's stack; and nobody
 * is woken up to look after limits that he knows of. */
static void test_turns_without_end(void **state)
{
    (void)state;
    struct rig r;
    struct hold h;
    static struct chain c;
    begin(&r);
    struct sql_conn_opts opts = {.path = r.bed.path};
    hold_ask(&h, &r.crew, &opts);
    c = (struct chain){.writer = r.crew.writer, .conn = h.conn};
    for (int i = 0; i < CHAIN; i++) {
        c.turns[i] = (struct sql_turn){.granted = pass_at_once, .ctx = &c, .conn = h.conn};
        sql_writer_ask(c.writer, &c.turns[i]);
    }
    assert_int_equal(c.granted, 0);
    assert_int_equal(hold_end(&h), 0);
    assert_int_equal(c.granted, CHAIN);
    assert_in_range(r.crew.wakes, 1, 5);
    end(&r);
}

static void *slow_query(void *arg)
{
    struct rig *r = arg;
    const char *sql = "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c) "
                      "SELECT count(*) FROM c";
    struct sql_stmt s = {.sql = sql, .sql_size = strlen(sql)};
    struct sql_error sql_err;
    struct sql_done done;
    struct err err;
    struct hold h;
    bool ok = hold_begin(&h, &r->crew, &(struct sql_conn_opts){.path = r->bed.path}) == RC_OK;
    ok = ok && sql_conn_run(h.conn, NULL, NULL, &s, NULL, &done, &sql_err, &err) == RC_INVALID;
    ok = ok && strcmp(sql_err.code, "TRANSACTION_TIMEOUT") == 0 && sql_turn_revoked(&h.turn);
    return hold_end(&h) == 0 && ok ? r : NULL;
}

static void test_hold_is_limited(void **state)
{
    (void)state;
    struct rig r;
    struct hold c, d;
    struct sql_writer_stats stats;
    uint64_t commit;
    pthread_t thread;
    void *ok;
    begin_with(&r, (struct sql_writer_opts){.hold_ms = 500});
    struct sql_conn_opts opts = {.path = r.bed.path};
    assert_int_equal(hold_begin(&c, &r.crew, &opts), RC_OK);
    assert_int_equal(run_on(&r, c.conn, "INSERT INTO t VALUES(1,'lost')"), RC_OK);
    assert_false(sql_turn_revoked(&c.turn));
    int64_t start = os_mono_ms();
    assert_int_equal(job_run(&r.crew, "INSERT INTO t VALUES(1,'group')"), RC_OK);
    assert_true(os_mono_ms() - start < 20000);
    assert_true(sql_turn_revoked(&c.turn));
    /* The next one comes in while the first still has its dead connection. */
    assert_int_equal(hold_begin(&d, &r.crew, &opts), RC_OK);
    assert_int_equal(run_on(&r, c.conn, "COMMIT"), RC_INVALID);
    assert_string_equal(r.bed.sql_err.code, "TRANSACTION_TIMEOUT");
    assert_int_equal(run_on(&r, d.conn, "INSERT INTO t VALUES(2,'d')"), RC_OK);
    sql_writer_give_back(r.crew.writer, &c.turn, &commit);
    assert_int_equal(commit, 0);
    assert_int_equal(run_on(&r, c.conn, "SELECT 1"), RC_OK); /* it lives again */
    hold_close(&c);
    assert_int_equal(run_on(&r, d.conn, "COMMIT"), RC_OK);
    assert_int_equal(hold_end(&d), 2);
    /* One that runs is interrupted. Nobody need be waiting for that. */
    assert_int_equal(thr_start(&thread, "slow", slow_query, &r, &r.bed.err), RC_OK);
    pthread_join(thread, &ok);
    assert_non_null(ok);
    /* A commit that was made before the end of the hold counts, whenever it is given back. */
    assert_int_equal(hold_begin(&c, &r.crew, &opts), RC_OK);
    assert_int_equal(run_on(&r, c.conn, "INSERT INTO t VALUES(3,'kept')"), RC_OK);
    assert_int_equal(run_on(&r, c.conn, "COMMIT"), RC_OK);
    while (!sql_turn_revoked(&c.turn))
        os_sleep_ms(5);
    assert_int_equal(hold_end(&c), 3);
    sql_writer_look(r.crew.writer, &stats);
    assert_int_equal(stats.timed_out, 3);
    assert_string_equal(bed_ok(&r.bed, "SELECT b FROM t"), "group\nd\nkept");
    end(&r);
}

static void test_queue_is_bounded(void **state)
{
    (void)state;
    struct rig r;
    begin_with(&r, (struct sql_writer_opts){.queue_max = 3});
    crew_pause(&r.crew, true);
    for (int i = 0; i < 4; i++) {
        struct job *j = add(&r, "INSERT INTO t(b) VALUES(1)", NULL);
        assert_int_equal(job_submit(j), i < 3 ? RC_OK : RC_BUSY);
    }
    crew_pause(&r.crew, false);
    for (int i = 0; i < 3; i++)
        assert_int_equal(job_wait(&r.jobs[i]), RC_OK);
    end(&r);
}

static bool no_delete(const struct sql_policy *p, int action, const char *a, const char *b,
                      const char *db)
{
    (void)p, (void)a, (void)b, (void)db;
    return action != 9; /* SQLITE_DELETE */
}

static void test_policies_are_their_own(void **state)
{
    (void)state;
    struct rig r;
    const struct sql_policy policy = {no_delete, sql_policy_id()};
    begin(&r);
    add(&r, "INSERT INTO t VALUES(1,1)", NULL);
    add(&r, "DELETE FROM t", NULL)->write.policy = &policy;
    add(&r, "DELETE FROM t WHERE a=1", NULL);
    go(&r);
    assert_int_equal(r.jobs[1].write.rc, RC_INVALID);
    assert_string_equal(r.jobs[1].write.sql_err.code, "SQLITE_AUTH");
    assert_int_equal(r.jobs[2].write.rc, RC_OK);
    assert_int_equal(r.jobs[2].done.affected, 1);
    end(&r);
}

static void test_no_database(void **state)
{
    (void)state;
    struct crew e;
    struct sql_writer_opts opts = {.conn = {.path = "/nonexistent/dir/a.db"}};
    crew_start(&e, &opts);
    assert_int_equal(job_run(&e, "SELECT 1"), RC_NOT_FOUND);
    crew_stop(&e);
    sql_writer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_transaction),
        cmocka_unit_test(test_failures_stay_alone),
        cmocka_unit_test(test_broken_transactions),
        cmocka_unit_test(test_broken_and_going_on),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_deferred_foreign_keys),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_interactive),
        cmocka_unit_test(test_reads_go_on),
        cmocka_unit_test(test_turns_are_fair),
        cmocka_unit_test(test_turns_without_end),
        cmocka_unit_test(test_hold_is_limited),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_policies_are_their_own),
        cmocka_unit_test(test_no_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
