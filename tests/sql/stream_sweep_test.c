/*
 * stream_sweep_test.c -- many threads with streams, lone writes and reads on one engine, with holds
 * that end too early; every allocation and every syscall failing in turn, SQLite's own included.
 *
 * Threads: money moves between accounts, in interactive transactions and in lone writes. The sum is
 * the same in every read, and the journal holds exactly what was acknowledged. Seed: SLUICE_SEED.
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
#include "base/os.h"
#include "sql/client.h"

#define THREADS  8
#define STEPS    300
#define ACCOUNTS 10
#define HOLD_MS  40

struct actor {
    struct house *house;
    struct actor *all;
    int index;
    uint64_t random;
    struct client client;
    int acknowledged, timeouts, stale, interrupts;
    uint64_t last_commit;
    char failure[300];
};

static int roll(struct actor *a, int sides)
{
    return (int)(bed_random(&a->random) % (uint64_t)sides);
}

static void complain(struct actor *a, const char *what)
{
    if (a->failure[0] == '\0')
        snprintf(a->failure, sizeof a->failure, "%s: %s: %.150s", what, a->client.sql_err.code,
                 a->client.err.text);
}

/* Failures that may come at any time. True: go on with ROLLBACK. */
static bool expected(struct actor *a, enum rc rc, const char *what)
{
    const char *code = a->client.sql_err.code;
    if (strcmp(code, "TRANSACTION_TIMEOUT") == 0)
        a->timeouts++;
    else if (rc == RC_BUSY && strcmp(a->client.sql_err.extended, "SQLITE_BUSY_SNAPSHOT") == 0)
        a->stale++;
    else if (rc == RC_CANCELED)
        a->interrupts++;
    else
        complain(a, what);
    return a->failure[0] == '\0';
}

static void give_up(struct actor *a)
{
    struct client *c = &a->client;
    /* An interrupted statement that writes has rolled back by itself. */
    while (!sql_stream_autocommit(&c->s)) {
        enum rc rc = client_run(c, "ROLLBACK");
        if (rc == RC_OK) break;
        if (rc == RC_CANCELED || strcmp(c->sql_err.code, "SQLITE_UNKNOWN") == 0) continue;
        complain(a, "ROLLBACK");
        return;
    }
    if (!sql_stream_clean(&c->s)) complain(a, "not clean after ROLLBACK");
}

static void transfer(struct actor *a)
{
    struct client *c = &a->client;
    char sql[4][128];
    int from = roll(a, ACCOUNTS), to = roll(a, ACCOUNTS), sum = roll(a, 50);
    int number = a->index * 1000000 + a->acknowledged;
    const char *begin = roll(a, 2) ? "BEGIN" : "BEGIN IMMEDIATE";
    snprintf(sql[0], sizeof sql[0], "SELECT b FROM account WHERE a=%d", from);
    snprintf(sql[1], sizeof sql[1], "UPDATE account SET b=b-%d WHERE a=%d", sum, from);
    snprintf(sql[2], sizeof sql[2], "UPDATE account SET b=b+%d WHERE a=%d", sum, to);
    snprintf(sql[3], sizeof sql[3], "INSERT INTO journal VALUES(%d)", number);
    enum rc rc = client_run(c, begin);
    for (int i = 0; i < 4 && rc == RC_OK; i++) {
        if (roll(a, 150) == 0) os_sleep_ms(HOLD_MS + 20);
        rc = client_run(c, sql[i]);
    }
    if (rc == RC_OK && roll(a, 8) == 0) {
        give_up(a);
        return;
    }
    uint64_t before = c->s.commit;
    if (rc == RC_OK) rc = client_run(c, "COMMIT");
    if (rc == RC_OK) {
        if (c->s.commit <= before || c->s.commit < a->last_commit) complain(a, "commit number");
        a->last_commit = c->s.commit;
        a->acknowledged++;
    } else if (expected(a, rc, "transfer")) {
        give_up(a);
    }
}

static void lone(struct actor *a)
{
    struct client *c = &a->client;
    char sql[200];
    int from = roll(a, ACCOUNTS), to = (from + 1 + roll(a, ACCOUNTS - 1)) % ACCOUNTS;
    snprintf(sql, sizeof sql,
             "UPDATE account SET b=b+CASE a WHEN %d THEN -7 ELSE 7 END "
             "WHERE a IN(%d,%d)",
             from, from, to);
    if (client_do(c, sql) != RC_OK || c->done.affected != 2) complain(a, "lone write");
    if (c->s.commit < a->last_commit) complain(a, "commit number");
    a->last_commit = c->s.commit;
}

static void look(struct actor *a)
{
    struct client *c = &a->client;
    enum rc rc = client_do(c, "SELECT count(*), sum(b) FROM account");
    if (rc == RC_CANCELED) return;
    if (rc != RC_OK || strcmp((char *)c->rows.data, "10|1000") != 0) complain(a, "the sum");
}

static void *act(void *arg)
{
    struct actor *a = arg;
    for (int i = 0; i < STEPS && a->failure[0] == '\0'; i++) {
        int what = roll(a, 10);
        if (what < 4)
            transfer(a);
        else if (what < 7)
            lone(a);
        else if (what < 9)
            look(a);
        else
            sql_stream_interrupt(&a->all[roll(a, THREADS)].client.s);
    }
    sql_stream_end(&a->client.s);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct house h;
    static struct actor actors[THREADS];
    pthread_t threads[THREADS];
    struct sql_engine_stats stats;
    uint64_t seed = bed_seed();
    int acknowledged = 0, timeouts = 0, stale = 0, interrupts = 0;
    house_open(&h, (struct sql_engine_opts){.hold_ms = HOLD_MS, .idle_max = 3});
    bed_ok(&h.bed, "CREATE TABLE account(a INTEGER PRIMARY KEY, b INT)");
    bed_ok(&h.bed, "CREATE TABLE journal(a INTEGER PRIMARY KEY)");
    bed_ok(&h.bed, "WITH n AS (SELECT 0 x UNION ALL SELECT x+1 FROM n WHERE x<9) "
                   "INSERT INTO account SELECT x, 100 FROM n");
    for (int i = 0; i < THREADS; i++) {
        actors[i] =
            (struct actor){.house = &h, .all = actors, .index = i, .random = bed_random(&seed)};
        client_init(&actors[i].client, &h);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(thr_start(&threads[i], "actor", act, &actors[i], &h.bed.err), RC_OK);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        struct actor *a = &actors[i];
        if (a->failure[0] != '\0') fail_msg("%s", a->failure);
        char sql[128], want[64];
        int first = i * 1000000;
        snprintf(sql, sizeof sql, "SELECT count(*), max(a) FROM journal WHERE a/1000000=%d", i);
        snprintf(want, sizeof want, "%d|%d", a->acknowledged, first + a->acknowledged - 1);
        if (a->acknowledged > 0) assert_string_equal(bed_ok(&h.bed, sql), want);
        acknowledged += a->acknowledged;
        timeouts += a->timeouts;
        stale += a->stale;
        interrupts += a->interrupts;
        client_fini(&a->client);
    }
    assert_string_equal(bed_ok(&h.bed, "SELECT sum(b) FROM account"), "1000");
    sql_engine_look(h.engine, &stats);
    printf("%d transactions, %d stale, %d interrupted, %d timed out (%llu holds)\n", acknowledged,
           stale, interrupts, timeouts, (unsigned long long)stats.writer.timed_out);
    assert_true(acknowledged > 100 && stats.writer.timed_out > 0 && stale > 0);
    house_close(&h);
}

/* ---- Faults ---- */

static bool statement(struct client *c, const char *sql)
{
    enum rc rc;
    while ((rc = client_once(c, sql)) == RC_AGAIN) {
        client_ask(c);
        assert_true(client_told(c));
    }
    return rc == RC_OK;
}

static enum rc on_description(void *ctx, const struct sql_description *d, struct err *err)
{
    (void)ctx, (void)err;
    return d->col_count == 1 ? RC_OK : RC_INVALID;
}

static void go(struct client *c, bool *ret_committed, bool *ret_alone)
{
    const char *script = "INSERT INTO t VALUES(4,'script'); PRAGMA user_version";
    bool ok = statement(c, "SELECT count(*) FROM t");
    ok = ok && statement(c, "BEGIN");
    ok = ok && statement(c, "INSERT INTO t VALUES(1,'a') RETURNING b");
    ok = ok && statement(c, "CREATE TEMP TABLE mine(x)");
    ok = ok && statement(c, "INSERT INTO mine SELECT a FROM t");
    ok = ok && statement(c, "INSERT INTO t VALUES(2,'b')");
    *ret_committed = ok && statement(c, "COMMIT");
    if (!sql_stream_autocommit(&c->s)) (void)!statement(c, "ROLLBACK");
    if (!sql_stream_autocommit(&c->s)) sql_stream_end(&c->s);
    *ret_alone = statement(c, "INSERT INTO t VALUES(3,'alone')");
    enum rc rc;
    while ((rc = sql_stream_script(&c->s, NULL, NULL, script, strlen(script), &c->sql_err,
                                   &c->err)) == RC_AGAIN) {
        client_ask(c);
        assert_true(client_told(c));
    }
    (void)!sql_stream_describe(&c->s, "SELECT b FROM t", 15, on_description, NULL, &c->sql_err,
                               &c->err);
    (void)!statement(c, "SELECT b FROM t");
    sql_stream_end(&c->s);
}

/* Returns false when no fault fired. */
static bool sweep_once(unsigned classes, uint64_t nth, bool sticky)
{
    struct house h;
    struct client c;
    bool committed = false, alone = false;
    house_open(&h, (struct sql_engine_opts){.hold_ms = 60000});
    client_init(&c, &h);
    fault_arm(classes, nth, sticky);
    go(&c, &committed, &alone);
    bool fired = fault_fired();
    fault_arm(0, 0, false);
    /* All of it or nothing; what was acknowledged is there. */
    const char *pair = bed_ok(&h.bed, "SELECT count(*) FROM t WHERE a<3");
    if (committed) assert_string_equal(pair, "2");
    if (strcmp(pair, "0") != 0) assert_string_equal(pair, "2");
    if (alone) assert_string_equal(bed_ok(&h.bed, "SELECT b FROM t WHERE a=3"), "alone");
    if (!fired) {
        assert_true(committed && alone);
        assert_string_equal(bed_ok(&h.bed, "SELECT b FROM t WHERE a=4"), "script");
    }
    /* Nobody holds the turn, no connection is lost, and all works again. */
    assert_true(sql_stream_clean(&c.s));
    assert_int_equal(client_write(&c, "INSERT INTO t VALUES(5,5)"), RC_OK);
    assert_string_equal(client_ok(&c, "SELECT b FROM t WHERE a=5"), "5");
    client_fails(&c, "SELECT * FROM mine", "SQLITE_UNKNOWN");
    client_fini(&c);
    house_close(&h);
    return fired;
}

static void sweep(unsigned classes, bool sticky, uint64_t least)
{
    uint64_t nth = 1;
    while (sweep_once(classes, nth, sticky))
        nth++;
    printf("%llu steps that can fail\n", (unsigned long long)nth - 1);
    assert_true(nth > least);
}

static void test_allocations(void **state)
{
    (void)state;
    sweep(FAULT_ALLOC, false, 150);
    sweep(FAULT_ALLOC, true, 150);
}

static void test_syscalls(void **state)
{
    (void)state;
    sweep(FAULT_SYSCALL, false, 10);
    sweep(FAULT_SYSCALL, true, 10);
}

int main(void)
{
    bed_sqlite_memory();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_syscalls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
