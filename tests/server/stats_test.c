/* stats_test.c -- numbers of the service: counters, lists of tenants, the log of slow statements,
 * the page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/stats.h"

#define THREADS 8
#define ROUNDS  20000

struct seen { /* what came to the log */
    unsigned lines;
    uint64_t dropped;
    char tenant[80], sql[STATS_SLOW_SQL_MAX + 8], code[64];
    int64_t us;
    unsigned full;
    char class[STATS_CLASS_MAX + 1];
};
static struct err err;

static void on_slow(void *ctx, const struct stats_slow *s)
{
    struct seen *seen = ctx;
    seen->lines++;
    seen->us = s->us;
    snprintf(seen->tenant, sizeof seen->tenant, "%s", s->tenant);
    snprintf(seen->sql, sizeof seen->sql, "%s", s->sql);
    snprintf(seen->code, sizeof seen->code, "%s", s->code);
}

static void on_dropped(void *ctx, uint64_t count)
{
    struct seen *seen = ctx;
    seen->dropped += count;
}

static void on_full(void *ctx, const char *name)
{
    struct seen *seen = ctx;
    seen->full++;
    snprintf(seen->class, sizeof seen->class, "%s", name);
}

static struct stats *make(struct seen *seen, int64_t slow_us)
{
    struct stats *s = NULL;
    const struct stats_opts opts = {
        .slow_us = slow_us, .slow = on_slow, .dropped = on_dropped, .full = on_full, .ctx = seen};
    assert_int_equal(stats_new(&opts, &s, &err), RC_OK);
    return s;
}

static struct tenant tenant(const char *name)
{
    struct tenant t = {0};
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

static void stmt(struct stats *s, struct tenant *t, const char *sql, int64_t us, uint64_t read,
                 uint64_t written)
{
    const struct sql_done done = {.rows_read = read, .rows_written = written};
    stats_stmt(s, t, sql, strlen(sql), us, &done, NULL);
}

static void fails(struct stats *s, struct tenant *t, const char *sql, const char *code)
{
    struct sql_error e;
    const struct sql_done old = {.rows_read = 99, .rows_written = 99}; /* of the one before */
    sql_error_own(&e, code, "%s", "no");
    stats_stmt(s, t, sql, strlen(sql), 10, &old, &e);
}

static void test_buckets(void **state)
{
    (void)state;
    struct stats *s = make(NULL, 0);
    struct stats_sum sum;
    stats_ask(s, stats_class(s, NULL), STATS_PIPELINE, 200, 50, 7, 9);
    stats_ask(s, stats_class(s, NULL), STATS_PIPELINE, 200, 51, 0, 0);
    stats_ask(s, stats_class(s, NULL), STATS_PIPELINE, 404, 30000000, 0, 0);
    stats_ask(s, stats_class(s, NULL), STATS_V1, 500, 30000001, 0, 0);
    stats_ask(s, stats_class(s, NULL), STATS_WEBSOCKET, 0, 0, 1, 1);
    stats_ask(s, stats_class(s, NULL), STATS_ELSE, 999, -5, 0, 0);
    stats_look(s, &sum);
    assert_int_equal(sum.all.asks[STATS_PIPELINE].counts[0], 1);
    assert_int_equal(sum.all.asks[STATS_PIPELINE].counts[1], 1);
    assert_int_equal(sum.all.asks[STATS_PIPELINE].counts[STATS_BOUNDS - 1], 1);
    assert_int_equal(sum.all.asks[STATS_PIPELINE].us, 50 + 51 + 30000000);
    assert_int_equal(sum.all.asks[STATS_V1].counts[STATS_BOUNDS], 1);
    assert_int_equal(sum.all.asks[STATS_ELSE].counts[0], 1);
    assert_int_equal(sum.all.asks[STATS_ELSE].us, 0);
    assert_int_equal(sum.all.statuses[2], 2);
    assert_int_equal(sum.all.statuses[4], 1);
    assert_int_equal(sum.all.statuses[5], 2);
    assert_int_equal(sum.all.statuses[0], 1);
    assert_int_equal(sum.bytes_in, 8);
    assert_int_equal(sum.bytes_out, 10);
    stats_free(s);
}

static void test_kinds_and_faults(void **state)
{
    static const struct {
        const char *sql;
        enum stats_kind kind;
    } kinds[] = {
        {"select 1", STATS_READ},
        {"  SELECT 1", STATS_READ},
        {"/* x */ INSERT INTO t VALUES(1)", STATS_WRITE},
        {"Insert into t values(1)", STATS_WRITE},
        {"UPDATE t SET a=1", STATS_WRITE},
        {"DELETE FROM t", STATS_WRITE},
        {"WITH a AS (SELECT 1) SELECT * FROM a", STATS_READ},
        {"WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", STATS_WRITE},
        {"BEGIN", STATS_OTHER},
        {"PRAGMA foreign_keys", STATS_OTHER},
        {"", STATS_OTHER},
    };
    static const struct {
        const char *code;
        enum stats_fault fault;
    } faults[] = {
        {"SQLITE_CONSTRAINT", STATS_FAULT_CONSTRAINT}, {"SQL_NO_STATEMENT", STATS_FAULT_INPUT},
        {"ARGS_INVALID", STATS_FAULT_INPUT},           {"SQLITE_BUSY", STATS_FAULT_BUSY},
        {"TRANSACTION_TIMEOUT", STATS_FAULT_BUSY},     {"SQLITE_INTERRUPT", STATS_FAULT_INTERRUPT},
        {"SQLITE_AUTH", STATS_FAULT_DENIED},           {"BLOCKED", STATS_FAULT_DENIED},
        {"SQLITE_TOOBIG", STATS_FAULT_LIMIT},          {"SQLITE_FULL", STATS_FAULT_LIMIT},
        {"SQLITE_IOERR", STATS_FAULT_INTERNAL},        {"", STATS_FAULT_INTERNAL},
    };
    (void)state;
    struct tenant t = tenant("a");
    struct stats *s = make(NULL, 0);
    struct stats_sum before, after;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        stats_look(s, &before);
        stmt(s, &t, kinds[i].sql, 60, 2, 1);
        stats_look(s, &after);
        const struct stats_hist *h = after.all.stmts[kinds[i].kind];
        assert_int_equal(h[0].counts[1] - before.all.stmts[kinds[i].kind][0].counts[1], 1);
        assert_int_equal(after.rows_read - before.rows_read, 2);
        assert_int_equal(after.rows_written - before.rows_written, 1);
    }
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        stats_look(s, &before);
        fails(s, &t, "SELECT 1", faults[i].code);
        stats_look(s, &after);
        assert_int_equal(after.all.faults[faults[i].fault] - before.all.faults[faults[i].fault], 1);
        assert_int_equal(after.all.stmts[STATS_READ][1].counts[0], i + 1);
        assert_int_equal(after.rows_read, before.rows_read);
    }
    stats_free(s);
}

static void test_tenant(void **state)
{
    (void)state;
    struct tenant a = tenant("a"), b = tenant("b");
    struct stats *s = make(NULL, 0);
    CLEANUP(mem_freep) struct stats_tenant *st = mem_alloc(sizeof *st);
    char sql[64];
    assert_non_null(st);
    for (int i = 0; i < 25; i++) { /* the twelfth is the worst by time, the last by rows */
        snprintf(sql, sizeof sql, "SELECT * FROM t%d", i);
        stmt(s, &a, sql, i == 12 ? 5000 : 100 + i, (uint64_t)i, 0);
        stmt(s, &a, sql, 10, 0, 0); /* better than before: forgotten */
    }
    stmt(s, &b, "SELECT 1", 1, 0, 0);
    stats_tenant_look(s, "a", st);
    assert_int_equal(st->counts.queries, 50);
    assert_int_equal(st->counts.rows_read, 24 * 25 / 2);
    assert_int_equal(st->slowest_count, STATS_TOP);
    assert_string_equal(st->slowest[0].sql, "SELECT * FROM t12");
    assert_int_equal(st->slowest[0].us, 5000);
    assert_string_equal(st->slowest[1].sql, "SELECT * FROM t24");
    for (size_t i = 1; i < STATS_TOP; i++)
        assert_true(st->slowest[i - 1].us >= st->slowest[i].us);
    assert_int_equal(st->top_count, STATS_TOP);
    assert_string_equal(st->top[0].sql, "SELECT * FROM t24");
    assert_int_equal(st->top[9].rows_read, 15);
    stats_tenant_clear(s, "a", true, false);
    stats_tenant_look(s, "a", st);
    assert_int_equal(st->slowest_count, 0);
    assert_int_equal(st->top_count, STATS_TOP);
    stats_tenant_clear(s, "a", false, true);
    stmt(s, &a, "SELECT 2", 7, 1, 1); /* the lists go on after it */
    stats_tenant_look(s, "a", st);
    assert_int_equal(st->slowest_count, 1);
    assert_int_equal(st->top_count, 1);
    assert_int_equal(st->top[0].rows_written, 1);
    stats_tenant_drop(s, "a");
    stats_tenant_look(s, "a", st);
    assert_int_equal(st->counts.queries, 0);
    stats_tenant_look(s, "b", st);
    assert_int_equal(st->counts.queries, 1);
    stmt(s, &a, "SELECT 3", 7, 0, 0); /* and a tenant that is still there comes back */
    stats_tenant_look(s, "a", st);
    assert_int_equal(st->counts.queries, 1);
    stats_tenant_look(s, "nobody", st);
    assert_int_equal(st->counts.queries, 0);
    stats_free(s);
}

/* A text that is long, not UTF-8, or holds a NUL. */
static void test_texts(void **state)
{
    (void)state;
    struct tenant t = tenant("t");
    struct stats *s = make(NULL, 0);
    CLEANUP(mem_freep) struct stats_tenant *st = mem_alloc(sizeof *st);
    const struct sql_done done = {.rows_read = 1};
    char sql[2000];
    assert_non_null(st);
    memset(sql, 'x', sizeof sql);
    memcpy(sql, "SELECT \xff\x00 \xc3\xa4", 12);
    stats_stmt(s, &t, sql, sizeof sql, 5, &done, NULL);
    stats_tenant_look(s, "t", st);
    assert_int_equal(strlen(st->slowest[0].sql), STATS_TOP_SQL_MAX + 3);
    assert_memory_equal(st->slowest[0].sql, "SELECT ?? \xc3\xa4x", 13);
    assert_string_equal(st->slowest[0].sql + STATS_TOP_SQL_MAX, "...");
    /* A character that would be cut is left out. */
    stats_tenant_clear(s, "t", true, true);
    memset(sql, 'y', sizeof sql);
    memcpy(sql + STATS_TOP_SQL_MAX - 1, "\xc3\xa4", 2);
    stats_stmt(s, &t, sql, sizeof sql, 5, &done, NULL);
    stats_tenant_look(s, "t", st);
    assert_string_equal(st->slowest[0].sql + STATS_TOP_SQL_MAX - 1, "...");
    stats_free(s);
}

/* More tenants than there is room for: those that were not used for longest go. */
static void test_many_tenants(void **state)
{
    (void)state;
    struct stats *s = make(NULL, 0);
    CLEANUP(mem_freep) struct stats_tenant *st = mem_alloc(sizeof *st);
    CLEANUP(mem_freep) struct tenant *ts = mem_calloc(3000, sizeof *ts);
    char name[32];
    assert_non_null(st);
    assert_non_null(ts);
    for (int i = 0; i < 3000; i++) {
        snprintf(ts[i].name, sizeof ts[i].name, "n%d", i);
        stmt(s, &ts[i], ts[i].name, i, 1, 0);
        stmt(s, &ts[0], "SELECT 0", 1, 0, 0);
        stats_tick(s);
    }
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        stats_tenant_look(s, name, st);
        if (i > 0) assert_int_equal(st->counts.queries, i > 3000 - STATS_TENANTS_MAX);
        if (i == 0) assert_int_equal(st->counts.queries, 3001);
        if (i > 3000 - STATS_TENANTS_MAX) assert_string_equal(st->top[0].sql, name);
    }
    /* A struct tenant whose entry was taken away: found again by name, alone. */
    stmt(s, &ts[1], "SELECT 1", 1, 0, 0);
    stats_tenant_look(s, "n1", st);
    assert_int_equal(st->counts.queries, 1);
    assert_int_equal(st->slowest_count, 1);
    /* The same address, another tenant. */
    snprintf(ts[1].name, sizeof ts[1].name, "other");
    atomic_store(&ts[1].stats, 0);
    stmt(s, &ts[1], "SELECT 1", 1, 0, 0);
    stats_tenant_look(s, "n1", st);
    assert_int_equal(st->counts.queries, 1);
    stats_tenant_look(s, "other", st);
    assert_int_equal(st->counts.queries, 1);
    stats_free(s);
}

static void test_slow_log(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct tenant t = tenant("shop");
    struct stats *s = make(&seen, 1000);
    struct stats_sum sum;
    stmt(s, &t, "SELECT fast", 1000, 0, 0);
    stats_tick(s);
    assert_int_equal(seen.lines, 0);
    stmt(s, &t, "SELECT 'a\nb'", 1001, 5, 0);
    stats_tick(s);
    assert_int_equal(seen.lines, 1);
    assert_string_equal(seen.tenant, "shop");
    assert_string_equal(seen.sql, "SELECT 'a\nb'");
    assert_string_equal(seen.code, "");
    assert_int_equal(seen.us, 1001);
    for (int i = 0; i < 50; i++) /* nine more are told, the others counted */
        stmt(s, &t, "SELECT slow", 2000, 0, 0);
    stats_tick(s);
    assert_int_equal(seen.lines, STATS_SLOW_RATE);
    assert_int_equal(seen.dropped, 0);
    stats_look(s, &sum);
    assert_int_equal(sum.slow, 51);
    for (int i = 0; i < 1200 && seen.dropped == 0; i++) {
        os_sleep_ms(50);
        stats_tick(s);
    }
    assert_int_equal(seen.dropped, 50 - (STATS_SLOW_RATE - 1));
    stmt(s, &t, "SELECT again", 2000, 0, 0);
    stats_free(s); /* what waits is told */
    assert_int_equal(seen.lines, STATS_SLOW_RATE + 1);
    assert_string_equal(seen.sql, "SELECT again");
}

struct work {
    struct stats *s;
    struct tenant *tenants;
    atomic_bool stop;
};

static void *hammer(void *arg)
{
    struct work *w = arg;
    char sql[40];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(sql, sizeof sql, "SELECT %d", i % 40);
        stmt(w->s, &w->tenants[i % 3], sql, i % 500, 1, 1);
        stats_ask(w->s, stats_class(w->s, NULL), STATS_PIPELINE, 200, i, 1, 1);
    }
    return NULL;
}

static void *look(void *arg)
{
    struct work *w = arg;
    struct stats_tenant *st = mem_alloc(sizeof *st);
    while (!atomic_load(&w->stop)) {
        stats_tenant_look(w->s, "a", st);
        stats_tenant_clear(w->s, "b", true, true);
        stats_tick(w->s);
    }
    mem_free(st);
    return NULL;
}

/* Nothing is lost, however many threads there are. */
static void test_threads(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct tenant ts[3] = {tenant("a"), tenant("b"), tenant("c")};
    struct work w = {.s = make(&seen, 400), .tenants = ts};
    pthread_t threads[THREADS], looker;
    struct stats_sum sum;
    struct stats_counts counts, all = {0};
    assert_int_equal(thr_start(&looker, "look", look, &w, &err), RC_OK);
    for (int round = 0; round < 10; round++) { /* 80 threads: beyond those with counters */
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(thr_start(&threads[i], "hammer", hammer, &w, &err), RC_OK);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    atomic_store(&w.stop, true);
    pthread_join(looker, NULL);
    stats_look(w.s, &sum);
    uint64_t n = 0, total = (uint64_t)THREADS * 10 * ROUNDS;
    for (size_t i = 0; i <= STATS_BOUNDS; i++)
        n += sum.all.asks[STATS_PIPELINE].counts[i];
    assert_int_equal(n, total);
    assert_int_equal(sum.rows_read, total);
    assert_int_equal(sum.bytes_out, total);
    for (int i = 0; i < 3; i++) {
        stats_tenant_counts(w.s, ts[i].name, &counts);
        all.queries += counts.queries;
        all.rows_written += counts.rows_written;
    }
    assert_int_equal(all.queries, total);
    assert_int_equal(all.rows_written, total);
    stats_free(w.s);
}

static void test_page(void **state)
{
    (void)state;
    struct tenant t = tenant("t");
    struct stats *s = make(NULL, 0);
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    stats_ask(s, stats_class(s, NULL), STATS_PIPELINE, 200, 60, 7, 9);
    stats_ask(s, stats_class(s, NULL), STATS_PIPELINE, 200, 40000000, 0, 0);
    stmt(s, &t, "SELECT 1", 1500, 3, 0);
    fails(s, &t, "INSERT INTO t VALUES(1)", "SQLITE_CONSTRAINT");
    assert_int_equal(stats_page(s, &out, &err), RC_OK);
    assert_int_equal(buf_append(&out, "", 1, &err), RC_OK);
    static const char *const lines[] = {
        "\nsluice_request_duration_seconds_bucket{class=\"none\",route=\"pipeline\",le=\"5e-05\"} "
        "0\n",
        "\nsluice_request_duration_seconds_bucket{class=\"none\",route=\"pipeline\",le=\"0.0001\"} "
        "1\n",
        "\nsluice_request_duration_seconds_bucket{class=\"none\",route=\"pipeline\",le=\"30\"} 1\n",
        "\nsluice_request_duration_seconds_bucket{class=\"none\",route=\"pipeline\",le=\"+Inf\"} "
        "2\n",
        "\nsluice_request_duration_seconds_sum{class=\"none\",route=\"pipeline\"} 40.000060\n",
        "\nsluice_request_duration_seconds_count{class=\"none\",route=\"pipeline\"} 2\n",
        "\nsluice_responses_total{class=\"none\",status=\"2xx\"} 2\n",
        "_seconds_bucket{class=\"default\",kind=\"read\",outcome=\"ok\",le=\"0.0025\"} 1\n",
        "\nsluice_statement_duration_seconds_count{class=\"default\",kind=\"write\",outcome="
        "\"error\"} 1\n",
        "\nsluice_statement_errors_total{class=\"default\",error=\"constraint\"} 1\n",
        "\nsluice_rows_read_total 3\n",
        "\nsluice_received_bytes_total 7\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (strstr((const char *)out.data, lines[i]) == NULL)
            fail_msg("the page lacks%sin\n%s", lines[i], (const char *)out.data);
    stats_free(s);
}

static const struct stats_class *class_of(const struct stats_sum *sum, const char *name)
{
    for (size_t i = 0; i < sum->class_count; i++)
        if (strcmp(sum->classes[i].name, name) == 0) return &sum->classes[i];
    fail_msg("no class '%s'", name);
    return NULL;
}

static bool page_has(struct stats *s, const char *part)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    assert_int_equal(stats_page(s, &out, &err), RC_OK);
    assert_int_equal(buf_append(&out, "", 1, &err), RC_OK);
    return strstr((const char *)out.data, part) != NULL;
}

static void test_classes(void **state)
{
    (void)state;
    const struct tenant_conf gold = {.class = "gold"}, lead = {.class = "lead"}, none = {0};
    struct tenant a = tenant("a"), b = tenant("b"), c = tenant("c");
    struct stats *s = make(NULL, 0);
    struct stats_sum sum;
    assert_false(page_has(s, "class="));
    atomic_store(&a.conf, &gold);
    atomic_store(&b.conf, &gold);
    atomic_store(&c.conf, &none);
    stmt(s, &a, "SELECT 1", 60, 1, 0);
    stmt(s, &b, "SELECT 1", 70, 1, 0);
    fails(s, &b, "SELECT 1", "BLOCKED");
    stats_ask(s, stats_class(s, &b), STATS_PIPELINE, 200, 80, 1, 1);
    stats_ask(s, stats_class(s, &c), STATS_CURSOR, 200, 80, 1, 1);
    stats_ask(s, stats_class(s, NULL), STATS_ELSE, 401, 80, 1, 1);
    stats_look(s, &sum);
    assert_int_equal(class_of(&sum, "gold")->stmts[STATS_READ][0].counts[1], 2);
    assert_int_equal(class_of(&sum, "gold")->faults[STATS_FAULT_DENIED], 1);
    assert_int_equal(class_of(&sum, "gold")->statuses[2], 1);
    assert_int_equal(class_of(&sum, "default")->asks[STATS_CURSOR].us, 80);
    assert_int_equal(class_of(&sum, "none")->statuses[4], 1);
    assert_int_equal(sum.all.stmts[STATS_READ][0].us, 130);
    assert_int_equal(sum.all.statuses[2], 2);
    assert_int_equal(sum.class_count, 4);
    assert_true(page_has(s,
                         "\nsluice_statement_duration_seconds_count{class=\"gold\",kind=\"read\","
                         "outcome=\"ok\"} 2\n"));
    assert_true(page_has(s, "\nsluice_responses_total{class=\"none\",status=\"4xx\"} 1\n"));
    assert_true(
        page_has(s, "\nsluice_statement_errors_total{class=\"gold\",error=\"denied\"} 1\n"));
    /* What did not happen is not there. */
    assert_false(page_has(s, "class=\"gold\",route=\"cursor\""));
    assert_false(page_has(s, "sluice_statement_errors_total{class=\"default\""));
    assert_false(page_has(s, "class=\"other\""));
    /* A new configuration counts from the next one on. */
    atomic_store(&a.conf, &lead);
    stmt(s, &a, "SELECT 1", 60, 1, 0);
    stats_look(s, &sum);
    assert_int_equal(class_of(&sum, "gold")->stmts[STATS_READ][0].counts[1], 2);
    assert_int_equal(class_of(&sum, "lead")->stmts[STATS_READ][0].counts[1], 1);
    stats_free(s);
}

static void test_too_many_classes(void **state)
{
    (void)state;
    enum { COUNT = STATS_NAMED_MAX + 4 };
    struct seen seen = {0};
    struct stats *s = make(&seen, 0);
    struct stats_sum sum;
    char names[COUNT][8];
    uint64_t before = 0;
    for (int round = 0; round < 2; round++) {
        if (round == 1) before = mem_alloc_count();
        for (int i = 0; i < COUNT; i++) {
            snprintf(names[i], sizeof names[i], "c%d", i);
            const struct tenant_conf conf = {.class = names[i]};
            struct tenant t = tenant("t");
            atomic_store(&t.conf, &conf);
            stats_ask(s, stats_class(s, &t), STATS_V1, 200, 10, 0, 0);
        }
        stats_tick(s);
    }
    assert_int_equal(mem_alloc_count(), before);
    assert_int_equal(seen.full, 1);
    assert_string_equal(seen.class, names[STATS_NAMED_MAX]);
    stats_look(s, &sum);
    assert_int_equal(sum.class_count, STATS_CLASSES);
    assert_int_equal(class_of(&sum, names[0])->statuses[2], 2);
    assert_int_equal(class_of(&sum, names[STATS_NAMED_MAX - 1])->statuses[2], 2);
    assert_int_equal(class_of(&sum, "other")->statuses[2], 2 * (COUNT - STATS_NAMED_MAX));
    stats_free(s);
}

static void test_class_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a",         "default", "gold-2",
                                       "eu.west_1", "0",       "12345678901234567890123456789012"};
    static const char *const bad[] = {
        "",   "Gold", "a b",  "a\"",   "a\n",      ".a",
        "-a", "a/b",  "none", "other", "\xc3\xa4", "123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(stats_check_class(good[i], &err), RC_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(stats_check_class(bad[i], &err), RC_INVALID);
        assert_non_null(strstr(err.text, "class"));
    }
}

struct learner {
    struct stats *s;
    unsigned first;
};

static void *learn(void *arg)
{
    const struct learner *l = arg;
    for (unsigned i = 0; i < 200; i++) {
        char name[8];
        snprintf(name, sizeof name, "c%u", (l->first + i) % 20);
        const struct tenant_conf conf = {.class = name};
        struct tenant t = tenant("t");
        atomic_store(&t.conf, &conf);
        stats_ask(l->s, stats_class(l->s, &t), STATS_V1, 200, 10, 0, 0);
    }
    return NULL;
}

/* Threads that meet new names at the same time: each has one place, and none is lost. */
static void test_classes_in_threads(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct stats *s = make(&seen, 0);
    struct stats_sum sum;
    struct learner learners[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        learners[i] = (struct learner){s, i * 3};
        assert_int_equal(thr_start(&threads[i], "learn", learn, &learners[i], &err), RC_OK);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    stats_tick(s);
    stats_look(s, &sum);
    assert_int_equal(sum.all.statuses[2], THREADS * 200);
    assert_int_equal(seen.full, 1);
    for (size_t i = 3; i < sum.class_count; i++)
        assert_int_equal(sum.classes[i].statuses[2], THREADS * 10);
    assert_int_equal(class_of(&sum, "other")->statuses[2], THREADS * 10 * 4);
    stats_free(s);
}

static void test_memory(void **state)
{
    (void)state;
    struct tenant t = tenant("t");
    struct stats *s = NULL;
    const struct stats_opts opts = {0};
    for (uint64_t n = 1;; n++) {
        CLEANUP(buf_fini) struct buf out = BUF_INIT;
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc = stats_new(&opts, &s, &err);
        if (rc == RC_OK) {
            stmt(s, &t, "SELECT 1", 5, 1, 1); /* at worst it is not in a list */
            rc = stats_page(s, &out, &err);
            stats_free(s);
            atomic_store(&t.stats, 0);
        }
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        if (!fired) {
            assert_int_equal(rc, RC_OK);
            assert_true(n > 4);
            break;
        }
        if (rc != RC_OK) assert_int_equal(rc, RC_NO_MEM);
    }
    /* A statement that is known costs no memory. */
    s = make(NULL, 0);
    stmt(s, &t, "SELECT 1", 5, 1, 1);
    uint64_t before = mem_alloc_count();
    for (int i = 0; i < 100; i++)
        stmt(s, &t, "SELECT 1", 5, 1, 1);
    assert_int_equal(mem_alloc_count(), before);
    stats_free(s);
}

/* In processor time of this thread: what else the machine does is none of it. */
static int64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Not a test of anything but of gross mistakes: machines differ. The figure is printed. */
static void test_speed(void **state)
{
    (void)state;
    struct tenant t = tenant("default");
    struct stats *s = make(NULL, 1000000);
    const char *sql = "SELECT id, name, price FROM products WHERE id = ?";
    const struct sql_done done = {.rows_read = 1};
    const size_t size = strlen(sql), rounds = 2000000;
    int64_t since = cpu_us();
    for (size_t i = 0; i < rounds; i++)
        stats_stmt(s, &t, sql, size, (int64_t)(i % 64), &done, NULL);
    int64_t stmts = cpu_us() - since;
    since = cpu_us();
    for (size_t i = 0; i < rounds; i++)
        stats_ask(s, stats_class(s, NULL), STATS_PIPELINE, 200, (int64_t)(i % 64), 100, 200);
    int64_t asks = cpu_us() - since;
    print_message("a statement: %.1f ns, a request: %.1f ns\n",
                  (double)stmts * 1000 / (double)rounds, (double)asks * 1000 / (double)rounds);
    assert_true(stmts < (int64_t)rounds * 2);
    stats_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speed),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_kinds_and_faults),
        cmocka_unit_test(test_tenant),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_many_tenants),
        cmocka_unit_test(test_slow_log),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_too_many_classes),
        cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_classes_in_threads),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
