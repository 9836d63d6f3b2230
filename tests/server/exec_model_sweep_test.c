/*
 * exec_model_sweep_test.c -- random messages of one client, run twice: by executions, with group
 * commit and other clients in the same groups, and statement by statement on a connection with
 * nobody else around. Answers and databases must be the same. Seed: SLUICE_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "server/exec_bed.h"

#define ROUNDS   400
#define STEP_MAX 9
#define NOISY    2

static const char schema[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, u INTEGER UNIQUE CHECK(u < 9), v TEXT NOT NULL);"
    "CREATE TABLE p(id INTEGER PRIMARY KEY);"
    "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
    "CREATE TABLE d(id INTEGER PRIMARY KEY, p REFERENCES p);"
    "CREATE TABLE log(n INTEGER PRIMARY KEY, x);"
    "CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO log(x) VALUES (new.id); END;"
    "CREATE TRIGGER rb BEFORE INSERT ON t WHEN new.v = 'rb' BEGIN SELECT RAISE(ROLLBACK, 'rb'); "
    "END;"
    "CREATE TRIGGER ab AFTER INSERT ON t WHEN new.v = 'ab' BEGIN SELECT RAISE(ABORT, 'ab'); END;"
    "CREATE TRIGGER fa AFTER INSERT ON t WHEN new.v = 'fa' BEGIN SELECT RAISE(FAIL, 'fa'); END;"
    "CREATE TRIGGER ig BEFORE INSERT ON t WHEN new.v = 'ig' BEGIN SELECT RAISE(IGNORE); END;"
    "CREATE TABLE noise(id INTEGER PRIMARY KEY, who, n, UNIQUE(who, n))";
static const char *const dumps[] = {"SELECT id, u, v FROM t ORDER BY id",
                                    "SELECT id FROM p ORDER BY id",
                                    "SELECT id, p FROM c ORDER BY id",
                                    "SELECT id, p FROM d ORDER BY id",
                                    "SELECT n, x FROM log ORDER BY n",
                                    "SELECT name, sql FROM sqlite_schema ORDER BY name",
                                    "PRAGMA user_version"};
/* %1$d, %2$d: small numbers, %3$s: a conflict clause, %4$s: a word */
static const char *const statements[] = {
    "INSERT %3$s INTO t VALUES (%1$d, %2$d, '%4$s')",
    "INSERT %3$s INTO t VALUES (%1$d, %2$d, '%4$s') RETURNING id, u + 1",
    "INSERT %3$s INTO t(u, v) VALUES (%1$d, 'x'), (%2$d, '%4$s')",
    "INSERT %3$s INTO t(u, v) SELECT u + 1, v FROM t",
    "UPDATE %3$s t SET u = u + 1 WHERE id > %1$d",
    "UPDATE t SET v = '%4$s' WHERE id = %1$d RETURNING *",
    "DELETE FROM t WHERE id = %1$d OR u > %2$d",
    "REPLACE INTO t VALUES (%1$d, %2$d, 'r')",
    "INSERT INTO t VALUES (%1$d, %2$d, 'n') ON CONFLICT DO UPDATE SET v = 'up'",
    "WITH w(a) AS (VALUES (%1$d)) INSERT INTO t(u, v) SELECT a, 'w' FROM w",
    "INSERT INTO p VALUES (%1$d)",
    "DELETE FROM p WHERE id = %1$d",
    "INSERT INTO c VALUES (%1$d, %2$d)",
    "INSERT INTO d VALUES (%1$d, %2$d)",
    "DELETE FROM c WHERE id = %1$d",
    "DELETE FROM d",
    "SELECT count(*), max(id) FROM t",
    "SELECT id, v FROM t WHERE id < %1$d ORDER BY id",
    "SELECT total_changes() >= 0",
    "EXPLAIN SELECT 1 WHERE 0",
    "CREATE TABLE IF NOT EXISTS n%1$d(a)",
    "DROP TABLE IF EXISTS n%1$d",
    "INSERT INTO n%1$d VALUES (%2$d)",
    "ALTER TABLE n%1$d ADD COLUMN b%2$d",
    "CREATE INDEX i%1$d ON t(v)",
    "DROP INDEX i%1$d",
    "SELECT * FROM nothing",
    "nonsense",
    "",
    "SELECT 1; SELECT 2",
    "INSERT INTO p VALUES (%1$d); INSERT INTO p VALUES (%2$d)",
};
/* What a connection keeps, and what cannot share a transaction. */
static const char *const settings[] = {
    "CREATE TEMP TABLE IF NOT EXISTS tt(a)",
    "INSERT INTO tt VALUES (%1$d)",
    "SELECT count(*) FROM tt",
    "PRAGMA foreign_keys = %1$d",
    "PRAGMA foreign_keys",
    "PRAGMA defer_foreign_keys = 1",
    "PRAGMA user_version = %1$d",
    "PRAGMA table_info(p)",
    "SAVEPOINT s%1$d",
    "RELEASE s%1$d",
    "ROLLBACK TO s%1$d",
    "ANALYZE",
    "REINDEX",
};
static const char *const begins[] = {
    "BEGIN",         "BEGIN IMMEDIATE",  "begin exclusive transaction;", "BEGIN DEFERRED",
    "/* x */ BEGIN", "BEGIN CONCURRENT", "BEGIN IMMEDIATE TRANSACTION"};
static const char *const ends[] = {
    "COMMIT", "ROLLBACK", "END TRANSACTION", "-- x\\n COMMIT;", "rollback transaction",
    "COMMIT", ";COMMIT"};
static const char *const clauses[] = {
    "", "", "", "OR ABORT", "OR ROLLBACK", "OR FAIL", "OR IGNORE", "OR REPLACE"};
static const char *const words[] = {"a", "b", "a", "b", "rb", "ab", "fa", "ig"};
#define PICK(list) (list)[roll(sizeof(list) / sizeof(list)[0])]

static uint64_t random_state;
static struct xbed b;
static atomic_bool quiet;

static uint64_t roll(uint64_t sides)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % sides;
}

/* ---- Messages ---- */

static void say(struct buf *out, const char *fmt, ...)
{
    char text[600];
    struct err err;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    assert_int_equal(buf_append(out, text, strlen(text), &err), RC_OK);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void make_statement(struct buf *out, const char *fmt)
{
    say(out, "{\"sql\":\"");
    say(out, fmt, (int)roll(5), (int)roll(11), PICK(clauses), PICK(words));
    /* Which of two mistakes is told depends on how old a connection's schema is. */
    bool changes = strstr(fmt, " n%1$d") != NULL || strstr(fmt, " i%1$d") != NULL;
    bool args = roll(20) == 0 && !changes && strstr(fmt, "CREATE") == NULL;
    say(out, "\"%s}", args ? ",\"args\":[{\"type\":\"null\"}]" : "");
}
#pragma GCC diagnostic pop

static const char *any_statement(void)
{
    return roll(9) == 0 ? PICK(settings) : PICK(statements);
}

static void make_condition(struct buf *out, uint64_t step, int depth)
{
    uint64_t kind = roll(depth > 2 ? 3 : 6), count = roll(3);
    if (step == 0 && kind < 2) kind = 2;
    if (kind < 2)
        say(out, "{\"type\":\"%s\",\"step\":%d}", kind == 0 ? "ok" : "error", (int)roll(step));
    if (kind == 2) say(out, "{\"type\":\"is_autocommit\"}");
    if (kind == 3) {
        say(out, "{\"type\":\"not\",\"cond\":");
        make_condition(out, step, depth + 1);
        say(out, "}");
    }
    if (kind < 4) return;
    say(out, "{\"type\":\"%s\",\"conds\":[", kind == 4 ? "and" : "or");
    for (uint64_t i = 0; i < count; i++) {
        if (i > 0) say(out, ",");
        make_condition(out, step, depth + 1);
    }
    say(out, "]}");
}

/* As clients write them: BEGIN, a chain of steps, COMMIT, else ROLLBACK. */
static void make_chain(struct buf *out)
{
    uint64_t count = 1 + roll(STEP_MAX - 3);
    say(out, "{\"stmt\":");
    make_statement(out, begins[roll(2)]);
    say(out, "}");
    for (uint64_t i = 1; i <= count; i++) {
        say(out, ",{\"condition\":{\"type\":\"ok\",\"step\":%d},\"stmt\":", (int)i - 1);
        make_statement(out, any_statement());
        say(out, "}");
    }
    say(out, ",{\"condition\":{\"type\":\"ok\",\"step\":%d},\"stmt\":{\"sql\":\"COMMIT\"}}",
        (int)count);
    say(out,
        ",{\"condition\":{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":%d}},\"stmt\":{"
        "\"sql\":\"ROLLBACK\"}}",
        (int)count + 1);
}

static void make_batch(struct buf *out)
{
    uint64_t count = roll(STEP_MAX), style = roll(3);
    say(out, "{\"type\":\"batch\",\"batch\":{\"steps\":[");
    if (style == 0) make_chain(out);
    for (uint64_t i = 0; style != 0 && i < count; i++) {
        if (i > 0) say(out, ",");
        say(out, "{");
        if (roll(3) == 0) {
            say(out, "\"condition\":");
            make_condition(out, i, 0);
            say(out, ",");
        }
        say(out, "\"stmt\":");
        if (style == 2 && i == 0)
            make_statement(out, PICK(begins));
        else if (style == 2 && roll(4) == 0)
            make_statement(out, PICK(ends));
        else
            make_statement(out, any_statement());
        say(out, "}");
    }
    say(out, "]}}");
}

static void make_request(struct buf *out)
{
    switch (roll(8)) {
    case 0:
        say(out, "{\"type\":\"execute\",\"stmt\":");
        make_statement(out, roll(2) == 0 ? PICK(begins) : PICK(ends));
        say(out, "}");
        break;
    case 1:
    case 2:
        say(out, "{\"type\":\"execute\",\"stmt\":");
        make_statement(out, any_statement());
        say(out, "}");
        break;
    case 3:
        say(out, "{\"type\":\"get_autocommit\"}");
        break;
    default:
        make_batch(out);
        break;
    }
}

/* ---- The model: one connection, statement by statement ---- */

struct model {
    char path[100];
    struct sql_conn *conn;
    struct hrana_encoder *enc;
    uint8_t verdicts[STEP_MAX + 1];
};

static enum rc model_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    return hrana_put_cols(((struct model *)ctx)->enc, cols, count, err);
}

static enum rc model_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    return hrana_put_row(((struct model *)ctx)->enc, v, count, err);
}

static bool model_run(struct model *m, const struct hrana_stmt *st, struct sql_error *e)
{
    struct err err;
    struct sql_done done = {0};
    const struct sql_stmt stmt = {st->sql.text, st->sql.size, st->args, st->arg_count,
                                  st->want_rows};
    const struct sql_sink sink = {model_cols, model_row, m};
    if (sql_conn_run(m->conn, NULL, NULL, &stmt, &sink, &done, e, &err) != RC_OK) return false;
    assert_int_equal(hrana_put_done(m->enc, &done, 0, &err), RC_OK);
    return true;
}

static bool model_holds(const struct model *m, const struct hrana_cond *c)
{
    bool all = true, any = false;
    switch (c->type) {
    case HRANA_COND_NONE:
        return true;
    case HRANA_COND_OK:
        return m->verdicts[c->step] == 1;
    case HRANA_COND_ERROR:
        return m->verdicts[c->step] != 1;
    case HRANA_COND_AUTOCOMMIT:
        return sql_conn_autocommit(m->conn);
    default:
        for (size_t i = 0; i < (c->type == HRANA_COND_NOT ? 1 : c->count); i++) {
            bool one = model_holds(m, &c->inner[i]);
            all &= one;
            any |= one;
        }
        return c->type == HRANA_COND_NOT ? !any : c->type == HRANA_COND_AND ? all : any;
    }
}

static void model_batch(struct model *m, const struct hrana_batch *batch)
{
    struct err err;
    struct sql_error e;
    memset(m->verdicts, 0, sizeof m->verdicts);
    assert_int_equal(hrana_put_result_begin(m->enc, HRANA_BATCH, 0, &err), RC_OK);
    assert_int_equal(hrana_put_batch_begin(m->enc, &err), RC_OK);
    for (uint32_t i = 0; i < batch->count; i++) {
        if (!model_holds(m, &batch->steps[i].cond)) {
            assert_int_equal(hrana_put_step_skip(m->enc, i, &err), RC_OK);
            continue;
        }
        assert_int_equal(hrana_put_step_begin(m->enc, i, &err), RC_OK);
        m->verdicts[i] = model_run(m, &batch->steps[i].stmt, &e) ? 1 : 2;
        enum rc rc = m->verdicts[i] == 1 ? hrana_put_step_end(m->enc, &err)
                                         : hrana_put_step_error(m->enc, i, &e, &err);
        assert_int_equal(rc, RC_OK);
    }
    assert_int_equal(hrana_put_batch_end(m->enc, &err), RC_OK);
    assert_int_equal(hrana_put_result_end(m->enc, &err), RC_OK);
}

static void model_request(struct model *m, const struct hrana_request *r)
{
    struct err err;
    struct sql_error e;
    if (r->type == HRANA_BATCH) {
        model_batch(m, &r->batch);
        return;
    }
    assert_int_equal(hrana_put_result_begin(m->enc, r->type, 0, &err), RC_OK);
    if (r->type == HRANA_EXECUTE && !model_run(m, &r->stmt, &e)) {
        assert_int_equal(hrana_put_result_error(m->enc, 0, &e, &err), RC_OK);
        return;
    }
    if (r->type == HRANA_GET_AUTOCOMMIT)
        assert_int_equal(hrana_put_autocommit(m->enc, sql_conn_autocommit(m->conn), &err), RC_OK);
    assert_int_equal(hrana_put_result_end(m->enc, &err), RC_OK);
}

static void model_open(struct model *m)
{
    struct err err;
    const struct sql_conn_opts opts = {.path = m->path, .foreign_keys = true};
    if (sql_conn_open(&opts, &m->conn, &err) != RC_OK) fail_msg("%s", err.text);
}

/* ---- Both ---- */

/* What may differ: times, indexes, what SQLite counts of its work; and the last rowid, which SQLite
 * takes from statements that failed, too. */
static void blank(char *text)
{
    static const char *const keys[] = {
        "\"query_duration_ms\":", "\"replication_index\":", "\"rows_read\":", "\"rows_written\":",
        "\"last_insert_rowid\":"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        for (char *at = strstr(text, keys[i]); at != NULL; at = strstr(at, keys[i])) {
            at += strlen(keys[i]);
            while (*at != ',' && *at != '}')
                *at++ = '_';
        }
    char *to = text;
    for (const char *from = text; *from != '\0'; from++)
        if (*from != '_') *to++ = *from;
    *to = '\0';
}

/* One message to both. */
static void compare(struct model *m, struct session *s, const char *body, const char *before)
{
    struct xcall c;
    struct buf out = BUF_INIT;
    struct err err;
    assert_true(xcall_begin(&b, &c, s, body));
    exec_begin(&c.x);
    char *got = strdup(xcall_wait(&c));
    assert_int_equal(hrana_encoder_new(false, HRANA_FRAME_PIPELINE, HRANA_3, &out, &m->enc, &err),
                     RC_OK);
    assert_int_equal(hrana_put_begin(m->enc, NULL, NULL, &err), RC_OK);
    for (size_t i = 0; i < c.p.count; i++)
        model_request(m, &c.p.requests[i]);
    assert_int_equal(hrana_put_end(m->enc, &err), RC_OK);
    assert_int_equal(buf_append(&out, "", 1, &err), RC_OK);
    blank(got);
    blank((char *)out.data);
    size_t same = 0;
    while (got[same] != '\0' && got[same] == out.data[same])
        same++;
    if (got[same] != (char)out.data[same]) {
        const char *want = (char *)out.data;
        size_t from = same > 200 ? same - 200 : 0;
        fprintf(stderr, "after %s\n%s\n gives ...%.400s\n   not ...%.400s\n", before, body,
                got + from, want + from);
        fail();
    }
    free(got);
    hrana_encoder_free(m->enc);
    buf_fini(&out);
    xcall_fini(&c);
}

static void compare_databases(struct model *m, const char *before)
{
    struct session s;
    xbed_session(&b, &s);
    for (size_t i = 0; i < sizeof dumps / sizeof dumps[0]; i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"type\":\"execute\",\"stmt\":{\"sql\":\"%s\"}}", dumps[i]);
        compare(m, &s, body, before);
    }
    session_fini(&s);
}

/* A client that hands in lone writes and units all the time, good ones and such as break the
 * transaction they are in; it notes what it was told. */
static void *noise(void *arg)
{
    static const char good[] =
        "{\"type\":\"execute\",\"stmt\":{\"sql\":\"INSERT INTO noise(who, n) VALUES (%d, %d)\"}}";
    static const char bad[] = "{\"type\":\"execute\",\"stmt\":{\"sql\":\"INSERT OR ROLLBACK INTO "
                              "noise VALUES (-1, -1, -1)\"}}";
    static const char unit[] =
        BATCH(STEP("BEGIN") "," STEP("INSERT INTO noise(who, n) VALUES (%d, %d)") "," STEP(
            "INSERT OR ROLLBACK INTO noise VALUES (-1, -1, -1)") "," STEP("COMMIT"));
    static const char lost[] =
        BATCH(STEP("INSERT INTO noise VALUES (-1, -1, -1)") "," STEP_IF(OK_IF(0), "SELECT 1"));
    int who = (int)(intptr_t)arg;
    intptr_t told = 0;
    struct session s;
    xbed_session(&b, &s);
    for (int n = 0; !atomic_load(&quiet); n++) {
        char body[400];
        struct xcall c;
        int kind = n % 7;
        if (kind < 4)
            snprintf(body, sizeof body, good, who, n);
        else if (kind == 4)
            snprintf(body, sizeof body, bad);
        else if (kind == 5)
            snprintf(body, sizeof body, unit, who, n);
        else
            snprintf(body, sizeof body, lost);
        if (!xcall_begin(&b, &c, &s, body)) abort();
        exec_begin(&c.x);
        if (kind < 4 && strstr(xcall_wait(&c), BAD) == NULL)
            told++;
        else
            xcall_wait(&c);
        xcall_fini(&c);
        os_sleep_us(200);
    }
    session_fini(&s);
    return (void *)told;
}

/* With noise, BEGIN may find that somebody else has written since; SQLite says so, the model does
 * not. So transactions begin IMMEDIATE then. */
static bool fit_for_noise(const char *body)
{
    for (const char *at = body; (at = strcasestr(at, "begin")) != NULL; at += 5)
        if (strncasecmp(at + 5, " immediate", 10) != 0 &&
            strncasecmp(at + 5, " exclusive", 10) != 0)
            return false;
    return strcasestr(body, "savepoint") == NULL;
}

static void play(bool noisy)
{
    struct model m = {0};
    struct session s;
    pthread_t threads[NOISY];
    intptr_t told = 0;
    char script[2000];
    xbed_new(&b, NULL);
    xbed_session(&b, &s);
    snprintf(script, sizeof script, "{\"type\":\"sequence\",\"sql\":\"%s\"}", schema);
    EXPECT(&b, &s, script, GOOD);
    EXPECT(&b, &s, SQL("INSERT INTO noise VALUES (-1, -1, -1)"), GOOD);
    session_fini(&s);
    snprintf(m.path, sizeof m.path, "%s/model.db", b.ts->dir);
    model_open(&m);
    struct sql_error e;
    struct err err;
    assert_int_equal(sql_conn_script(m.conn, NULL, NULL, schema, sizeof schema - 1, &e, &err),
                     RC_OK);
    atomic_store(&quiet, false);
    for (intptr_t i = 0; noisy && i < NOISY; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, noise, (void *)i), 0);
    struct buf before = BUF_INIT;
    for (int round = 0; round < ROUNDS; round++) {
        xbed_session(&b, &s);
        buf_reset(&before);
        say(&before, "nothing");
        for (uint64_t n = 1 + roll(4); n > 0; n--) {
            struct buf body = BUF_INIT;
            for (uint64_t i = roll(3); i < 3; i++) {
                if (body.size > 0) say(&body, ",");
                make_request(&body);
            }
            assert_int_equal(buf_append(&body, "", 1, &err), RC_OK);
            if (!noisy || fit_for_noise((char *)body.data)) {
                assert_int_equal(buf_append(&before, "", 1, &err), RC_OK);
                compare(&m, &s, (char *)body.data, (char *)before.data);
                before.size--;
                assert_int_equal(buf_append(&before, "\n", 1, &err), RC_OK);
                assert_int_equal(buf_append(&before, body.data, body.size - 1, &err), RC_OK);
            }
            buf_fini(&body);
        }
        session_fini(&s);
        sql_conn_close(m.conn);
        model_open(&m);
        assert_int_equal(buf_append(&before, "", 1, &err), RC_OK);
        compare_databases(&m, (char *)before.data);
    }
    atomic_store(&quiet, true);
    for (int i = 0; noisy && i < NOISY; i++) {
        void *count;
        pthread_join(threads[i], &count);
        told += (intptr_t)count;
    }
    assert_int_equal(xbed_int(&b, "SELECT count(*) FROM noise"), told + 1);
    struct sql_engine_stats stats;
    sql_engine_look(b.t->engine, &stats);
    print_message("%llu writes in %llu groups, %llu run again, the largest %llu\n",
                  (unsigned long long)stats.writer.writes, (unsigned long long)stats.writer.groups,
                  (unsigned long long)stats.writer.again,
                  (unsigned long long)stats.writer.group_max);
    buf_fini(&before);
    sql_conn_close(m.conn);
    xbed_free(&b);
}

static void test_alone(void **state)
{
    (void)state;
    play(false);
}

static void test_with_others(void **state)
{
    (void)state;
    play(true);
}

int main(void)
{
    const char *seed = getenv("SLUICE_SEED");
    random_state = seed != NULL ? strtoull(seed, NULL, 10) : os_random() >> 1;
    print_message("SLUICE_SEED=%llu\n", (unsigned long long)random_state);
    random_state |= 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_with_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
