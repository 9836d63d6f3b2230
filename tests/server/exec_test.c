/* exec_test.c -- executions: what is answered, what is committed, who waits for whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "fmt/jwt.h"
#include "server/exec_bed.h"

static struct xbed b;
static struct session s, other;

static void begin(const struct sql_engine_opts *engine)
{
    xbed_new(&b, engine);
    xbed_session(&b, &s);
    xbed_session(&b, &other);
    EXPECT(&b, &s, SCRIPT("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)"), GOOD);
}

static void end(void)
{
    session_fini(&s);
    session_fini(&other);
    xbed_free(&b);
}

static uint64_t groups(void)
{
    struct sql_engine_stats stats;
    sql_engine_look(b.t->engine, &stats);
    return stats.writer.groups;
}

static void test_kinds(void **state)
{
    (void)state;
    begin(NULL);
    EXPECT(&b, &s,
           SQL("SELECT 7") "," SQL("INSERT INTO t VALUES (1, 5) RETURNING b") "," SQL(
               "nonsense") "," SQL("SELECT count(*) FROM t"),
           INT(7), INT(5), "SQL_PARSE_ERROR\"", INT(1));
    EXPECT(&b, &s, SQL("INSERT INTO t VALUES (1, 6)"), BAD, "SQLITE_CONSTRAINT_PRIMARYKEY");
    EXPECT(&b, &s, SQL("SELECT last_insert_rowid(), changes()"), INT(1), INT(1));
    EXPECT(&b, &s, "{\"type\":\"describe\",\"sql\":\"SELECT ?1\"}", "\"name\":\"?1\"");
    EXPECT(&b, &s, "{\"type\":\"describe\",\"sql\":\"SELEC\"}", BAD);
    EXPECT(&b, &s,
           "{\"type\":\"store_sql\",\"sql_id\":3,\"sql\":\"SELECT "
           "33\"},{\"type\":\"execute\",\"stmt\":{\"sql_id\":3}}",
           INT(33));
    EXPECT(&b, &s, "{\"type\":\"get_autocommit\"}", "\"is_autocommit\":true");
    EXPECT(&b, &s, SQL("BEGIN") ",{\"type\":\"get_autocommit\"}", "\"is_autocommit\":false");
    EXPECT(&b, &s, SQL("ROLLBACK") ",{\"type\":\"close\"}", GOOD, GOOD);
    end();
}

/* A request after close, and an unknown text, end the whole execution. */
static void test_violations(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{\"type\":\"close\"}," SQL("SELECT 1"),
                                         "{\"type\":\"execute\",\"stmt\":{\"sql_id\":9}}"};
    struct xcall c;
    begin(NULL);
    for (size_t i = 0; i < 2; i++) {
        assert_true(xcall_begin(&b, &c, &s, bodies[i]));
        exec_begin(&c.x);
        assert_string_equal(xcall_wait(&c), "");
        assert_int_equal(c.x.rc, RC_INVALID);
        xcall_fini(&c);
    }
    end();
}

/* A batch that ends what it begins is one write of a group. */
static void test_units(void **state)
{
    (void)state;
    begin(NULL);
    uint64_t before = groups();
    EXPECT(&b, &s,
           BATCH(STEP("BEGIN IMMEDIATE") "," STEP("INSERT INTO t VALUES (1, 1)") "," STEP_IF(
               OK_IF(1), "COMMIT") "," STEP_IF("{\"type\":\"not\",\"cond\":" OK_IF(2) "}",
                                               "ROLLBACK")),
           "\"step_errors\":[null,null,null,null]");
    assert_int_equal(groups(), before + 1);
    EXPECT(
        &b, &s,
        BATCH(STEP("BEGIN") "," STEP("INSERT INTO t VALUES (2, 2)") "," STEP(
            "INSERT INTO t VALUES "
            "(3, 2)") "," STEP_IF(OK_IF(2),
                                  "COMMIT") "," STEP_IF("{\"type\":\"not\",\"cond\":" OK_IF(2) "}",
                                                        "ROLLBACK")),
        "SQLITE_CONSTRAINT");
    assert_int_equal(groups(), before + 2);
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 1);
    EXPECT(&b, &s,
           BATCH(STEP("INSERT INTO t VALUES (2, 2)") "," STEP(
               "INSERT INTO t VALUES (2, 3)") "," STEP("INSERT INTO t VALUES (3, 3)")),
           "SQLITE_CONSTRAINT");
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 3);
    /* What ends otherwise than it looks is run step by step. */
    EXPECT(&b, &s,
           BATCH(STEP("BEGIN") "," STEP("INSERT INTO t VALUES (9, 9)") "," STEP(
               "INSERT OR ROLLBACK INTO t VALUES (9, 9)") "," STEP("COMMIT")),
           "SQLITE_CONSTRAINT", "cannot commit");
    EXPECT(&b, &s, "{\"type\":\"get_autocommit\"}", "\"is_autocommit\":true");
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 3);
    EXPECT(&b, &s, BATCH(STEP("BEGIN") "," STEP("INSERT INTO t VALUES (9, 9)")),
           "\"step_errors\":[null,null]");
    EXPECT(&b, &s, "{\"type\":\"get_autocommit\"}", "\"is_autocommit\":false");
    EXPECT(&b, &s, SQL("ROLLBACK"), GOOD);
    EXPECT(&b, &s, BATCH(STEP("BEGIN READONLY") "," STEP("DELETE FROM t") "," STEP("COMMIT")),
           "SQLITE_READONLY");
    EXPECT(&b, &s, BATCH(STEP("INSERT OR FAIL INTO t(b) VALUES (77), (1)")), "SQLITE_CONSTRAINT");
    EXPECT(&b, &s, SQL("INSERT OR FAIL INTO t(b) VALUES (78), (1)"), "SQLITE_CONSTRAINT");
    EXPECT(&b, &s, SQL("DELETE FROM t WHERE b IN (77, 78) RETURNING b"), INT(77), INT(78));
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 3);
    end();
}

/* What SQLite refuses, a unit refuses, in the same words. */
static void test_units_odd(void **state)
{
    (void)state;
    static const char *const odd[][2] = {
        {"BEGIN; SELECT 1", "SQL_MANY_STATEMENTS"},
        {"BEGIN NONSENSE", "SQL_PARSE_ERROR"},
        {"BEGIN DEFERRED IMMEDIATE", "SQL_PARSE_ERROR"},
    };
    begin(NULL);
    char text[400];
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text,
                 BATCH(STEP("%s") "," STEP("INSERT INTO t(b) VALUES (7)") "," STEP_IF(OK_IF(0),
                                                                                      "COMMIT")),
                 odd[i][0]);
        EXPECT(&b, &s, text, odd[i][1]);
    }
    EXPECT(&b, &s, SQL("DELETE FROM t"), GOOD);
    static const char *const ends[] = {"COMMIT; SELECT 1", "COMMIT NONSENSE x", "END; COMMIT",
                                       "ROLLBACK; x"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(text, sizeof text,
                 BATCH(STEP("BEGIN") "," STEP("INSERT INTO t(b) VALUES (7)") "," STEP(
                     "%s") "," STEP("ROLLBACK")),
                 ends[i]);
        EXPECT(&b, &s, text, "\"step_errors\":[null,null,{\"message\":");
        assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 0);
    }
    EXPECT(&b, &s,
           BATCH("{\"stmt\":{\"sql\":\"BEGIN\",\"args\":[{\"type\":\"null\"}]}}," STEP(
               "INSERT INTO t(b) VALUES (7)") "," STEP_IF(OK_IF(0), "COMMIT")),
           "ARGS_INVALID");
    end();
}

/* A unit may not hold the write lock for longer than anybody else: it goes on step by step, and
 * others come in between. */
static void test_unit_time(void **state)
{
    (void)state;
    static const char slow[] =
        STEP("INSERT INTO t(b) SELECT NULL WHERE (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL "
             "SELECT x + 1 FROM c WHERE x < 10000) SELECT max(x) FROM c) > 0");
    begin(NULL);
    /* The time of 30 steps, on whatever machine: one alone is far below it, 120 are above. */
    int64_t step_us = INT64_MAX;
    for (int i = 0; i < 3; i++) {
        int64_t since = os_mono_us();
        EXPECT(&b, &other,
               SQL("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < "
                   "10000) SELECT max(x) FROM c"),
               INT(10000));
        if (os_mono_us() - since < step_us) step_us = os_mono_us() - since;
    }
    b.env.txn_ms = 1 + 30 * step_us / 1000;
    struct buf text = BUF_INIT;
    struct err err;
    struct xcall c;
    for (int i = 0; i < 120; i++)
        assert_int_equal(buf_printf(&text, &err, "%s%s", i > 0 ? "," : "", slow), RC_OK);
    char *body;
    assert_true(asprintf(&body, BATCH("%s"), (const char *)text.data) > 0);
    assert_true(xcall_begin(&b, &c, &s, body));
    uint64_t before = groups();
    exec_begin(&c.x);
    EXPECT(&b, &other, SQL("INSERT INTO t(b) VALUES (7)"), GOOD);
    assert_non_null(strstr(xcall_wait(&c), GOOD));
    xcall_fini(&c);
    assert_in_range(groups(), before + 100, before + 122);
    assert_true(xbed_int(&b, "SELECT count(*) FROM t WHERE a > (SELECT a FROM t WHERE b = 7)") > 0);
    buf_fini(&text);
    free(body);
    end();
}

static void test_turns(void **state)
{
    (void)state;
    struct xcall c, d;
    begin(NULL);
    EXPECT(&b, &s, SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (1, 1)"), GOOD, GOOD);
    assert_true(xcall_begin(
        &b, &c, &other,
        SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (2, 2)") "," SQL("COMMIT")));
    exec_begin(&c.x);
    struct session third;
    xbed_session(&b, &third);
    assert_true(xcall_begin(&b, &d, &third, SQL("INSERT INTO t VALUES (3, 3)")));
    exec_begin(&d.x);
    EXPECT(&b, &s, SQL("SELECT count(*) FROM t"), INT(1));
    os_sleep_ms(50);
    assert_false(xcall_is_done(&c));
    assert_false(xcall_is_done(&d));
    EXPECT(&b, &s, SQL("COMMIT"), GOOD);
    assert_non_null(strstr(xcall_wait(&c), GOOD));
    assert_non_null(strstr(xcall_wait(&d), GOOD));
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 3);
    xcall_fini(&c);
    xcall_fini(&d);
    session_fini(&third);
    end();
}

/* Too late for the turn, or nobody left who wants it. */
static void test_turn_denied(void **state)
{
    (void)state;
    struct xcall c;
    begin(NULL);
    b.env.turn_ms = 60;
    EXPECT(&b, &s, SQL("BEGIN IMMEDIATE"), GOOD);
    EXPECT(&b, &other, SQL("BEGIN IMMEDIATE") "," SQL("SELECT 5"), BAD, "SQLITE_BUSY", INT(5));
    EXPECT(&b, &other,
           BATCH(STEP("BEGIN IMMEDIATE") "," STEP("PRAGMA user_version") "," STEP_IF(
               "{\"type\":\"error\",\"step\":0}", "SELECT 6")),
           INT(6), "SQLITE_BUSY");
    EXPECT(&b, &other, SCRIPT("INSERT INTO t VALUES (1, 1)"), BAD, "SQLITE_BUSY");
    b.env.turn_ms = 5000;
    assert_true(
        xcall_begin(&b, &c, &other, SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (9, 9)")));
    exec_begin(&c.x);
    os_sleep_ms(30);
    assert_false(xcall_is_done(&c));
    atomic_store(&c.gone, true);
    xcall_wait(&c);
    xcall_fini(&c);
    EXPECT(&b, &s, SQL("COMMIT"), GOOD);
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 0);
    EXPECT(&b, &other, SQL("ROLLBACK") "," SQL("INSERT INTO t VALUES (1, 1)"), GOOD);
    end();
}

static void test_hold(void **state)
{
    (void)state;
    begin(&(struct sql_engine_opts){.hold_ms = 500});
    EXPECT(&b, &s, SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (1, 1)"), GOOD, GOOD);
    EXPECT(&b, &other, SQL("INSERT INTO t VALUES (2, 2)"), GOOD);
    EXPECT(&b, &s, SQL("INSERT INTO t VALUES (3, 3)"), "TRANSACTION_TIMEOUT");
    EXPECT(&b, &s, BATCH(STEP("INSERT INTO t VALUES (3, 3)") "," STEP("ROLLBACK")),
           "TRANSACTION_TIMEOUT");
    EXPECT(&b, &s, "{\"type\":\"get_autocommit\"}," SQL("INSERT INTO t VALUES (4, 4)"), "true",
           GOOD);
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 2);
    end();
}

#define SLOW                                                                                       \
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT "     \
    "max(x) FROM c"

#define ENDLESS                                                                                    \
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"

/* What this thread has worked: others may have the processor for as long as they like. */
static int64_t worked_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void begin_soon(struct xcall *c)
{
    int64_t since = worked_us();
    exec_begin(&c->x);
    int64_t us = worked_us() - since;
    if (us > 100000) fail_msg("%lld us on the thread that brought it", (long long)us);
}

/* A slow read does not stay on the thread that brought it. */
static void test_slow_reads(void **state)
{
    (void)state;
    struct xcall c;
    begin(NULL);
    b.env.query_ms = 60000; /* a sanitizer on a busy machine */
    for (int i = 0; i < 2; i++) {
        assert_true(xcall_begin(&b, &c, &s, SQL(SLOW) "," SQL("INSERT INTO t(b) VALUES (NULL)")));
        begin_soon(&c);
        EXPECT(&b, &other, SQL("SELECT 1"), INT(1));
        assert_non_null(strstr(xcall_wait(&c), INT(300000)));
        xcall_fini(&c);
    }
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 2);
    assert_true(xcall_begin(&b, &c, &s, SQL(ENDLESS) "," SQL("INSERT INTO t(b) VALUES (NULL)")));
    begin_soon(&c);
    assert_false(xcall_is_done(&c));
    atomic_store(&c.gone, true);
    assert_string_equal(xcall_wait(&c), "");
    assert_int_equal(c.x.rc, RC_CANCELED);
    xcall_fini(&c);
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 2);
    b.env.query_ms = 20;
    EXPECT(&b, &s, SQL(ENDLESS), "SQLITE_INTERRUPT");
    end();
}

/* A statement's time runs while it waits for a thread that others have. */
static void test_slow_queue(void **state)
{
    enum { COUNT = 60, LIMIT_MS = 500 }; /* one after another: for 15 s */
    (void)state;
    static struct xcall calls[COUNT];
    static struct session sessions[COUNT];
    begin(NULL);
    b.env.query_ms = LIMIT_MS;
    int64_t since = os_mono_ms();
    for (int i = 0; i < COUNT; i++) {
        xbed_session(&b, &sessions[i]);
        assert_true(xcall_begin(&b, &calls[i], &sessions[i], SQL(ENDLESS)));
        exec_begin(&calls[i].x);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_non_null(strstr(xcall_wait(&calls[i]), "SQLITE_INTERRUPT"));
        xcall_fini(&calls[i]);
        session_fini(&sessions[i]);
    }
    int64_t ms = os_mono_ms() - since;
    if (ms > COUNT / 4 * LIMIT_MS) fail_msg("%lld ms for all", (long long)ms);
    end();
}

/* In the writer's queue behind a transaction. */
static void test_gone_in_queue(void **state)
{
    (void)state;
    struct xcall c, d;
    struct session third;
    begin(NULL);
    xbed_session(&b, &third);
    EXPECT(&b, &s, SQL("BEGIN IMMEDIATE"), GOOD);
    assert_true(xcall_begin(&b, &c, &other, SQL("INSERT INTO t VALUES (1, 1)")));
    assert_true(xcall_begin(&b, &d, &third, BATCH(STEP("INSERT INTO t VALUES (2, 2)"))));
    exec_begin(&c.x);
    exec_begin(&d.x);
    atomic_store(&c.gone, true);
    atomic_store(&d.gone, true);
    EXPECT(&b, &s, SQL("COMMIT"), GOOD);
    assert_non_null(strstr(xcall_wait(&c), BAD));
    assert_non_null(strstr(xcall_wait(&d), BAD));
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 0);
    xcall_fini(&c);
    xcall_fini(&d);
    session_fini(&third);
    end();
}

static void test_index(void **state)
{
    (void)state;
    struct xcall c;
    char text[200];
    begin(NULL);
    uint64_t next = fake_index(b.t) + 1;
    snprintf(text, sizeof text,
             "{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT count(*) FROM "
             "t\"},\"replication_index\":\"%d\"}",
             (int)next);
    assert_true(xcall_begin(&b, &c, &s, text));
    exec_begin(&c.x);
    os_sleep_ms(30);
    assert_false(xcall_is_done(&c));
    EXPECT(&b, &other, SQL("INSERT INTO t VALUES (1, 1)"), GOOD);
    assert_non_null(strstr(xcall_wait(&c), INT(1)));
    xcall_fini(&c);
    b.env.turn_ms = 40;
    assert_true(xcall_begin(
        &b, &c, &s,
        "{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT 1\"},\"replication_index\":999999}"));
    exec_begin(&c.x);
    assert_string_equal(xcall_wait(&c), "");
    assert_string_equal(c.x.sql_err.code, "REPLICATION_INDEX_TIMEOUT");
    xcall_fini(&c);
    end();
}

static void test_blocked(void **state)
{
    (void)state;
    begin(NULL);
    struct tenant_conf conf = {.block_writes = true, .block_reason = "maintenance"};
    atomic_store(&b.t->conf, &conf);
    static const char *const writes[] = {
        SQL("INSERT INTO t VALUES (1, 1)"),
        SCRIPT("INSERT INTO t VALUES (1, 1)"),
        BATCH(STEP("INSERT INTO t VALUES (1, 1)")),
        SQL("PRAGMA user_version = 4"),
        BATCH(STEP("BEGIN") "," STEP("INSERT INTO t VALUES (1, 1)") "," STEP("COMMIT")),
        SQL("WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 1")};
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        EXPECT(&b, &s, writes[i], "maintenance", "BLOCKED");
        if (!sql_stream_autocommit(&s.stream)) EXPECT(&b, &s, SQL("ROLLBACK"), GOOD);
    }
    EXPECT(&b, &s, SQL("SELECT count(*) FROM t"), INT(0));
    EXPECT(&b, &s, BATCH(STEP("BEGIN") "," STEP("SELECT 4") "," STEP("COMMIT")), INT(4));
    struct tenant_conf none = {.block_reads = true, .block_reason = ""};
    atomic_store(&b.t->conf, &none);
    EXPECT(&b, &s, SQL("SELECT 1"), "BLOCKED");
    EXPECT(&b, &s, SCRIPT("SELECT 1"), "BLOCKED");
    EXPECT(&b, &s, "{\"type\":\"describe\",\"sql\":\"SELECT 1\"}", "BLOCKED");
    EXPECT(&b, &s, SQL("INSERT INTO t VALUES (1, 1)"), "BLOCKED");
    EXPECT(&b, &s, BATCH(STEP("INSERT INTO t VALUES (1, 1)")), "BLOCKED");
    atomic_store(&b.t->conf, &b.ts->conf);
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t"), 0);
    end();
}

/* Only what was committed waits for the store. */
static void test_durable(void **state)
{
    (void)state;
    struct xcall c;
    static const char *const commits[] = {
        SQL("INSERT INTO t(b) VALUES (1)"), BATCH(STEP("INSERT INTO t(b) VALUES (2)")),
        SCRIPT("INSERT INTO t(b) VALUES (3)"),
        SQL("BEGIN") "," SQL("INSERT INTO t(b) VALUES (4)") "," SQL("COMMIT"),
        SCRIPT("BEGIN; INSERT INTO t(b) VALUES (5); COMMIT; BEGIN IMMEDIATE; INSERT INTO t(b) "
               "VALUES (6)")};
    begin(NULL);
    struct tenant_conf conf = {.sync = true, .block_reason = ""};
    atomic_store(&b.t->conf, &conf);
    for (size_t i = 0; i < 5; i++) {
        atomic_store(&b.ts->store, STORE_SLEEPS);
        assert_true(xcall_begin(&b, &c, &s, commits[i]));
        exec_begin(&c.x);
        int64_t until = os_mono_ms() + XBED_WAIT_MS;
        while (!xcall_is_done(&c) && fake_waiting(b.ts) == 0 && os_mono_ms() < until)
            os_sleep_ms(1);
        if (xcall_is_done(&c)) fail_msg("nobody waits for the store: %s", commits[i]);
        atomic_store(&b.ts->store, STORE_HAS_ALL);
        assert_int_equal(fake_wake(b.ts), 1);
        assert_non_null(strstr(xcall_wait(&c), GOOD));
        xcall_fini(&c);
    }
    EXPECT(&b, &s, SQL("ROLLBACK"), GOOD);
    size_t waited = fake_waited(b.ts);
    EXPECT(&b, &s,
           SQL("SELECT 1") "," SQL("INSERT INTO t VALUES (1, 1)") "," SQL("BEGIN") "," SQL(
               "INSERT INTO t(b) VALUES (7)") "," SQL("ROLLBACK"),
           GOOD, BAD, GOOD);
    assert_int_equal(fake_waited(b.ts), waited);
    atomic_store(&b.ts->store, STORE_FAILS);
    assert_true(xcall_begin(&b, &c, &s, SQL("INSERT INTO t(b) VALUES (9)")));
    exec_begin(&c.x);
    assert_string_equal(xcall_wait(&c), "");
    assert_string_equal(c.x.sql_err.code, "NOT_DURABLE");
    xcall_fini(&c);
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM t WHERE b = 9"), 1);
    end();
}

/* The whole answer is limited, not only each result. */
static void test_size(void **state)
{
    (void)state;
    struct xcall c;
    struct buf text = BUF_INIT;
    struct err err;
    begin(NULL);
    for (int i = 0; i < 40; i++)
        assert_int_equal(
            buf_printf(&text, &err, "%s" SQL("SELECT hex(zeroblob(300000))"), i > 0 ? "," : ""),
            RC_OK);
    assert_true(xcall_begin(&b, &c, &s, (const char *)text.data));
    exec_begin(&c.x);
    const char *out = xcall_wait(&c);
    assert_non_null(strstr(out, "RESPONSE_TOO_LARGE"));
    if (c.out.size > 3 << 20) fail_msg("an answer of %zu bytes, with a limit of 1 MiB", c.out.size);
    xcall_fini(&c);
    buf_fini(&text);
    EXPECT(&b, &s, SQL("SELECT 1"), INT(1));
    end();
}

static struct grant *grant_with(struct auth **auth, const char *roles, const char *claims);

static void test_roles(void **state)
{
    (void)state;
    struct auth *auth;
    begin(NULL);
    struct grant *g = grant_with(&auth,
                                 "{\"r\":[{\"effect\":\"deny\",\"actions\":[\"transaction\"]},{"
                                 "\"effect\":\"allow\",\"actions\":[\"*\"]}]}",
                                 "{\"role\":\"r\"}");
    struct session r;
    session_init(&r, b.t);
    session_grant(&r, g);
    EXPECT(&b, &r, SQL("INSERT INTO t VALUES (1, 1)"), GOOD);
    EXPECT(&b, &r, SQL("BEGIN"), "SQLITE_AUTH");
    EXPECT(&b, &r,
           BATCH(STEP("BEGIN") "," STEP_IF(OK_IF(0), "INSERT INTO t VALUES (2, 2)") "," STEP_IF(
               OK_IF(0), "COMMIT")),
           "SQLITE_AUTH");
    session_fini(&r);
    grant_unref(g);
    auth_free(auth);
    g = grant_with(&auth, NULL, "{\"a\":\"ro\"}");
    session_init(&r, b.t);
    session_grant(&r, g);
    EXPECT(&b, &r, SQL("INSERT INTO t VALUES (5, 5)"), "AUTH_FORBIDDEN");
    EXPECT(
        &b, &r,
        BATCH(STEP("BEGIN IMMEDIATE") "," STEP("INSERT INTO t VALUES (5, 5)") "," STEP("COMMIT")),
        "AUTH_FORBIDDEN");
    EXPECT(&b, &r, SQL("SELECT count(*) FROM t"), INT(1));
    session_fini(&r);
    grant_unref(g);
    auth_free(auth);
    end();
}

static struct grant *grant_with(struct auth **auth, const char *roles, const char *claims)
{
    struct buf private = BUF_INIT, public = BUF_INIT, token = BUF_INIT;
    struct err err;
    struct sql_error e;
    struct grant *g;
    assert_int_equal(jwt_key_new(JWT_HS256, &private, &public, &err), RC_OK);
    assert_int_equal(buf_append(&private, "", 1, &err), RC_OK);
    const struct auth_opts opts = {.key_text = (const char *)private.data, .roles = roles};
    if (auth_new(&opts, auth, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(jwt_sign((const char *)private.data, claims, &token, &err), RC_OK);
    assert_int_equal(buf_append(&token, "", 1, &err), RC_OK);
    if (auth_token(*auth, (const char *)token.data, NULL, &g, &e, &err) != RC_OK)
        fail_msg("%s", err.text);
    buf_fini(&private);
    buf_fini(&public);
    buf_fini(&token);
    return g;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),         cmocka_unit_test(test_violations),
        cmocka_unit_test(test_units),         cmocka_unit_test(test_units_odd),
        cmocka_unit_test(test_unit_time),     cmocka_unit_test(test_turns),
        cmocka_unit_test(test_turn_denied),   cmocka_unit_test(test_hold),
        cmocka_unit_test(test_slow_reads),    cmocka_unit_test(test_slow_queue),
        cmocka_unit_test(test_gone_in_queue), cmocka_unit_test(test_index),
        cmocka_unit_test(test_blocked),       cmocka_unit_test(test_durable),
        cmocka_unit_test(test_size),          cmocka_unit_test(test_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
