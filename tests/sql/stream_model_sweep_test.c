/*
 * stream_model_sweep_test.c -- random histories of several streams, compared step by step with
 * plain SQLite: results, failures, whether a transaction is open, and the whole database.
 *
 * Model: one SQLite connection a stream, on a database of its own. A step that must wait for the
 * writer's turn, or a lone write that waits in the queue, is given to the model when it has run; so
 * the model never meets a lock, and must say the same in everything. One thread drives all streams;
 * between two steps it waits until the writer has come to rest. Seed: SLUICE_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/os.h"
#include "sql/client.h"

#define STREAMS 5
#define STEPS   3000
#define ROUNDS  12
#define KEYS    12

static const char *const schema =
    "CREATE TABLE v(a INTEGER PRIMARY KEY, b INT UNIQUE);"
    "CREATE TABLE p(a INTEGER PRIMARY KEY);"
    "CREATE TABLE c(a REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
    "CREATE TABLE d(a REFERENCES p ON DELETE CASCADE);"
    "CREATE TRIGGER never BEFORE INSERT ON v WHEN new.b=66 BEGIN SELECT RAISE(ROLLBACK,'no'); "
    "END;";
static const char *const dump =
    "SELECT (SELECT group_concat(a||':'||ifnull(b,'')) FROM (SELECT * FROM v ORDER BY a)),"
    "(SELECT group_concat(a) FROM (SELECT a FROM p ORDER BY a)),"
    "(SELECT group_concat(a) FROM (SELECT a FROM c ORDER BY a)),"
    "(SELECT group_concat(a) FROM (SELECT a FROM d ORDER BY a))";

enum wait { WAIT_NOT, WAIT_TURN, WAIT_LONE };
struct actor {
    struct world *world;
    struct client client;
    sqlite3 *model;
    bool model_reads; /* BEGIN READONLY */
    char sql[320];
    bool script;
    enum wait wait;
    struct sql_write write;
    bool refused;
    unsigned done_at; /* order in which lone writes were done; under the world's lock */
};
struct world {
    struct house house;
    char model_path[160];
    struct actor actors[STREAMS];
    uint64_t random;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned done_count, handled;
    unsigned waits, lones, failures, busy, forgiven; /* what the history met */
};
struct answer {
    struct sql_error error; /* code "" when it went well */
    struct buf rows;
    int64_t affected;
};

static int roll(struct world *w, int sides)
{
    return (int)(bed_random(&w->random) % (uint64_t)sides);
}

static sqlite3 *open_model(struct world *w)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(w->model_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"
                                  "PRAGMA foreign_keys=1; PRAGMA synchronous=0",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_extended_result_codes(db, 1);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 1, NULL);
    return db;
}

static void plan_write(struct world *w, char *sql, size_t size)
{
    int key = roll(w, KEYS), value = roll(w, 80);
    switch (roll(w, 14)) {
    case 0:
        snprintf(sql, size, "INSERT INTO v VALUES(%d,%d) RETURNING a", key, value);
        break;
    case 1:
        snprintf(sql, size, "INSERT OR ROLLBACK INTO v VALUES(%d,%d)", key, value);
        break;
    case 2:
        snprintf(sql, size, "REPLACE INTO v VALUES(%d,%d)", key, value);
        break;
    case 3:
        snprintf(sql, size, "UPDATE v SET b=%d WHERE a=%d RETURNING b", value, key);
        break;
    case 4:
        snprintf(sql, size, "DELETE FROM v WHERE a<%d", key / 3);
        break;
    case 5:
        snprintf(sql, size, "INSERT INTO c VALUES(%d)", key);
        break;
    case 6:
        snprintf(sql, size, "INSERT INTO d VALUES(%d)", key);
        break;
    case 7:
        snprintf(sql, size, "INSERT OR IGNORE INTO p VALUES(%d)", key);
        break;
    case 8:
        snprintf(sql, size, "DELETE FROM p WHERE a=%d", key);
        break;
    case 9:
        snprintf(sql, size, "DELETE FROM %s WHERE a=%d", roll(w, 2) ? "c" : "d", key);
        break;
    case 10:
        snprintf(sql, size, "INSERT INTO m VALUES(%d)", key);
        break;
    case 11:
        snprintf(sql, size, "INSERT OR IGNORE INTO v SELECT x, x+40 FROM m");
        break;
    case 12:
        snprintf(sql, size, "WITH n AS (SELECT %d AS z) UPDATE v SET b=NULL WHERE a IN n", key);
        break;
    default:
        snprintf(sql, size, "INSERT INTO v SELECT a+%d, b+1 FROM v WHERE a<3", key);
        break;
    }
}

static void plan(struct world *w, struct actor *a)
{
    static const char *const others[] = {"BEGIN",
                                         "BEGIN",
                                         "BEGIN IMMEDIATE",
                                         "BEGIN READONLY",
                                         "COMMIT",
                                         "COMMIT",
                                         "COMMIT",
                                         "ROLLBACK",
                                         "END",
                                         "SAVEPOINT s",
                                         "RELEASE s",
                                         "ROLLBACK TO s",
                                         "nonsense",
                                         "SELECT zz",
                                         "PRAGMA foreign_keys=0",
                                         "PRAGMA foreign_keys=1",
                                         "PRAGMA foreign_keys",
                                         "CREATE TEMP TABLE m(x)",
                                         "DROP TABLE temp.m",
                                         "VACUUM",
                                         "PRAGMA user_version=3",
                                         "SELECT * FROM m",
                                         "EXPLAIN QUERY PLAN DELETE FROM v",
                                         "PRAGMA defer_foreign_keys=1",
                                         "PRAGMA recursive_triggers=1"};
    char one[120], two[120];
    int what = roll(w, 16);
    a->script = false;
    if (what < 6) {
        plan_write(w, a->sql, sizeof a->sql);
    } else if (what < 10) {
        snprintf(a->sql, sizeof a->sql, "SELECT count(*), sum(a), sum(b) FROM v WHERE a<%d",
                 roll(w, KEYS));
    } else if (what < 15) {
        const char *other = others[roll(w, (int)(sizeof others / sizeof others[0]))];
        /* Outside of a transaction SQLite may forget it whenever it reads the schema. */
        bool defers = strstr(other, "defer") != NULL && sql_stream_autocommit(&a->client.s);
        snprintf(a->sql, sizeof a->sql, "%s", defers ? "COMMIT" : other);
    } else {
        static const char *const forms[] = {
            "BEGIN; %s; %s; COMMIT",          "%s; ROLLBACK; %s",  "BEGIN; %s; %s",        "%s; %s",
            "SAVEPOINT s; %s; %s; RELEASE s", "%s; SELECT zz; %s", "COMMIT; BEGIN; %s; %s"};
        plan_write(w, one, sizeof one);
        plan_write(w, two, sizeof two);
        const char *form = forms[roll(w, 7)];
        const char *at = strstr(form, "%s"), *at2 = strstr(at + 2, "%s");
        snprintf(a->sql, sizeof a->sql, "%.*s%s%.*s%s%s", (int)(at - form), form, one,
                 (int)(at2 - at - 2), at + 2, two, at2 + 2);
        a->script = true;
    }
}

static void model_row(struct buf *b, sqlite3_stmt *stmt)
{
    struct err err;
    if (b->size > 0) assert_int_equal(buf_append(b, "\n", 1, &err), RC_OK);
    for (int i = 0; i < sqlite3_column_count(stmt); i++) {
        const char *text = (const char *)sqlite3_column_text(stmt, i);
        assert_int_equal(buf_printf(b, &err, "%s%s", i > 0 ? "|" : "", text ? text : "NULL"),
                         RC_OK);
    }
}

/* One statement; *ret_tail: what follows it. */
static bool model_step(struct actor *a, const char *sql, const char **ret_tail, struct answer *ret)
{
    sqlite3_stmt *stmt = NULL;
    bool reads = strcmp(sql, "BEGIN READONLY") == 0;
    const char *tail = sql + strlen(sql);
    int code = sqlite3_prepare_v2(a->model, reads ? "BEGIN" : sql, -1, &stmt, reads ? NULL : &tail);
    *ret_tail = tail;
    if (code == SQLITE_OK && stmt == NULL) return true;
    if (code == SQLITE_OK && a->model_reads && !sqlite3_stmt_readonly(stmt)) {
        sql_error_set(&ret->error, SQLITE_READONLY, -1, "");
        sqlite3_finalize(stmt);
        return false;
    }
    int offset = code != SQLITE_OK ? sqlite3_error_offset(a->model) : -1;
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(stmt);
        if (code == SQLITE_ROW) model_row(&ret->rows, stmt);
    }
    if (code != SQLITE_DONE) sql_error_set(&ret->error, code, offset, sqlite3_errmsg(a->model));
    if (code == SQLITE_DONE) ret->affected = sqlite3_changes64(a->model);
    sqlite3_finalize(stmt);
    if (code == SQLITE_DONE && reads) a->model_reads = true;
    if (sqlite3_get_autocommit(a->model)) a->model_reads = false;
    return code == SQLITE_DONE;
}

static void leave(struct actor *a)
{
    sql_stream_end(&a->client.s);
    sqlite3_close(a->model);
    a->model = open_model(a->world);
    a->model_reads = false;
}

/* Two differences are allowed. A statement that is kept from before may be refused for writing
 * where its table is gone, which shows when it is prepared again. And a write that failed and was
 * undone may leave pages to its group's commit, written as they were before: then a snapshot is
 * older than the newest commit, though nothing has changed. */
static bool forgiven(struct actor *a, enum rc rc, const struct answer *want)
{
    const struct sql_error *e = &a->client.sql_err;
    if (rc == RC_OK) return false;
    if (strcmp(e->code, "SQLITE_READONLY") == 0 && a->model_reads && want->error.code[0] != '\0')
        return true;
    if (strcmp(e->extended, "SQLITE_BUSY_SNAPSHOT") != 0) return false;
    if (strcmp(want->error.extended, e->extended) == 0) return false;
    leave(a);
    a->world->forgiven++;
    return true;
}

static void compare(struct actor *a, enum rc rc)
{
    struct answer want = {0};
    struct client *c = &a->client;
    struct err err;
    const char *at = a->sql;
    bool stale = rc != RC_OK && strcmp(c->sql_err.extended, "SQLITE_BUSY_SNAPSHOT") == 0;
    while (model_step(a, at, &at, &want) && a->script && *at != '\0') {
        /* Here, at the latest, the stream was stopped. */
        if (stale && sqlite3_txn_state(a->model, "main") == SQLITE_TXN_WRITE) break;
    }
    if (a->script) buf_reset(&want.rows);
    assert_int_equal(buf_append(&want.rows, "", 1, &err), RC_OK);
    const char *code = rc == RC_OK ? "" : c->sql_err.code;
    if (forgiven(a, rc, &want)) {
        buf_fini(&want.rows);
        return;
    }
    if (strcmp(code, want.error.code) != 0 ||
        (rc != RC_OK && strcmp(c->sql_err.extended, want.error.extended) != 0))
        fail_msg("'%s': %s %s (%s), not %s %s (%s)", a->sql, code, c->sql_err.extended, c->err.text,
                 want.error.code, want.error.extended, want.error.message);
    if (rc == RC_OK && !a->script && strcmp((char *)c->rows.data, (char *)want.rows.data) != 0)
        fail_msg("'%s': %s, not %s", a->sql, (char *)c->rows.data, (char *)want.rows.data);
    if (rc == RC_OK && !a->script && c->done.affected != 0)
        assert_int_equal(c->done.affected, want.affected);
    if (sql_stream_autocommit(&c->s) != (sqlite3_get_autocommit(a->model) != 0))
        fail_msg("'%s': autocommit differs", a->sql);
    if (sql_stream_clean(&c->s)) assert_true(sqlite3_get_autocommit(a->model));
    if (c->s.granted)
        assert_int_equal(sqlite3_txn_state(a->model, "main"), SQLITE_TXN_WRITE);
    else
        assert_int_not_equal(sqlite3_txn_state(a->model, "main"), SQLITE_TXN_WRITE);
    a->world->failures += rc != RC_OK;
    a->world->busy += strcmp(want.error.extended, "SQLITE_BUSY_SNAPSHOT") == 0;
    buf_fini(&want.rows);
}

/* ---- The streams ---- */

static void granted(void *ctx)
{
    struct actor *a = ctx;
    thr_lock(&a->world->lock);
    a->client.told = true;
    pthread_cond_broadcast(&a->world->cond);
    thr_unlock(&a->world->lock);
}

static void done_lone(struct sql_write *write)
{
    struct actor *a = write->ctx;
    thr_lock(&a->world->lock);
    a->done_at = ++a->world->done_count;
    pthread_cond_broadcast(&a->world->cond);
    thr_unlock(&a->world->lock);
}

static void restart_lone(struct sql_write *write)
{
    struct actor *a = write->ctx;
    buf_reset(&a->client.rows);
}

static enum rc run_lone(struct sql_write *write, struct sql_conn *conn, struct err *err)
{
    struct actor *a = write->ctx;
    struct sql_stmt stmt = {.sql = a->sql, .sql_size = strlen(a->sql), .want_rows = true};
    struct sql_sink sink = bed_sink(&a->client.rows);
    a->refused = sql_conn_autocommit(conn);
    if (a->refused) return err_set(err, RC_UNSUPPORTED, "not in a group");
    return sql_conn_run(conn, NULL, NULL, &stmt, &sink, &a->client.done, &write->sql_err, err);
}

static void submit(struct actor *a)
{
    a->wait = WAIT_LONE;
    a->done_at = 0;
    a->world->lones++;
    buf_reset(&a->client.rows);
    a->write =
        (struct sql_write){.run = run_lone, .restart = restart_lone, .fn = done_lone, .ctx = a};
    struct sql_writer *writer = sql_engine_writer(a->client.s.engine);
    assert_int_equal(sql_writer_submit(writer, &a->write, &a->client.err), RC_OK);
}

/* On the stream itself. */
static void run_own(struct actor *a)
{
    struct client *c = &a->client;
    enum rc rc;
    if (a->script) {
        c->sql_err = (struct sql_error){0};
        rc = sql_stream_script(&c->s, NULL, NULL, a->sql, strlen(a->sql), &c->sql_err, &c->err);
    } else {
        rc = client_once(c, a->sql);
    }
    a->wait = WAIT_NOT;
    if (rc == RC_DENIED) {
        submit(a);
    } else if (rc == RC_AGAIN) {
        a->wait = WAIT_TURN;
        a->world->waits++;
        c->told = false;
        sql_stream_ask(&c->s, granted, a);
    } else {
        compare(a, rc);
    }
}

static void end_lone(struct actor *a)
{
    struct client *c = &a->client;
    struct err err;
    a->wait = WAIT_NOT;
    if (a->refused) {
        run_own(a);
        return;
    }
    c->sql_err = a->write.sql_err;
    c->err = a->write.err;
    assert_int_equal(buf_append(&c->rows, "", 1, &err), RC_OK);
    compare(a, a->write.rc);
}

/* What happened meanwhile, in its order: lone writes by number, then whose turn it is. */
static struct actor *next_event(struct world *w)
{
    struct actor *found = NULL;
    bool held = false, waiting = false;
    for (int i = 0; i < STREAMS; i++) {
        struct actor *a = &w->actors[i];
        if (a->wait == WAIT_LONE && a->done_at == w->handled + 1) found = a;
        waiting |= a->wait != WAIT_NOT;
        held |= a->wait == WAIT_NOT && a->client.s.granted;
    }
    for (int i = 0; i < STREAMS && found == NULL; i++) {
        struct actor *a = &w->actors[i];
        if (a->wait == WAIT_TURN && a->client.told) found = a;
    }
    if (found != NULL || held || !waiting) return found;
    if (!thr_wait(&w->cond, &w->lock, os_mono_ms() + 60000)) fail_msg("nothing happens");
    return next_event(w);
}

static void come_to_rest(struct world *w)
{
    for (;;) {
        thr_lock(&w->lock);
        struct actor *a = next_event(w);
        bool lone = a != NULL && a->wait == WAIT_LONE;
        if (lone) w->handled++;
        thr_unlock(&w->lock);
        if (a == NULL) return;
        if (lone)
            end_lone(a);
        else
            run_own(a);
    }
}

static void step(struct world *w)
{
    struct actor *a = &w->actors[roll(w, STREAMS)];
    if (a->wait == WAIT_TURN && roll(w, 8) == 0) { /* he does not want it any more */
        thr_lock(&w->lock);
        bool told = a->client.told;
        thr_unlock(&w->lock);
        assert_true(sql_stream_unask(&a->client.s) != told);
        if (!told) a->wait = WAIT_NOT;
    }
    if (a->wait != WAIT_NOT) return;
    if (roll(w, 60) == 0) {
        leave(a);
        return;
    }
    plan(w, a);
    enum sql_way way =
        a->script ? SQL_WAY_OWN : sql_stream_way(&a->client.s, a->sql, strlen(a->sql));
    if (way == SQL_WAY_GROUP)
        submit(a);
    else
        run_own(a);
}

static void compare_databases(struct world *w)
{
    struct buf rows = {0};
    struct err err;
    sqlite3_stmt *stmt;
    sqlite3 *db = open_model(w);
    assert_int_equal(sqlite3_prepare_v2(db, dump, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    model_row(&rows, stmt);
    assert_int_equal(buf_append(&rows, "", 1, &err), RC_OK);
    assert_string_equal(bed_ok(&w->house.bed, dump), (char *)rows.data);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    buf_fini(&rows);
}

static void begin(struct world *w, uint64_t seed)
{
    *w = (struct world){.random = seed};
    pthread_mutex_init(&w->lock, NULL);
    thr_cond_init(&w->cond);
    house_open(&w->house, (struct sql_engine_opts){.conn = {.foreign_keys = true}, .idle_max = 2});
    struct bed *b = &w->house.bed;
    if (sql_conn_script(b->conn, NULL, NULL, schema, strlen(schema), &b->sql_err, &b->err) != RC_OK)
        fail_msg("%s", b->err.text);
    snprintf(w->model_path, sizeof w->model_path, "%s/model.db", b->dir);
    sqlite3 *db = open_model(w);
    assert_int_equal(sqlite3_exec(db, schema, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    for (int i = 0; i < STREAMS; i++) {
        struct actor *a = &w->actors[i];
        a->world = w;
        client_init(&a->client, &w->house);
        a->model = open_model(w);
    }
}

static void end(struct world *w)
{
    for (int i = 0; i < STREAMS; i++) { /* whoever has the turn first, then those who wait */
        for (int j = 0; j < STREAMS; j++) {
            struct actor *a = &w->actors[j];
            if (a->wait != WAIT_NOT) continue;
            leave(a);
        }
        come_to_rest(w);
    }
    for (int i = 0; i < STREAMS; i++) {
        struct actor *a = &w->actors[i];
        assert_int_equal(a->wait, WAIT_NOT);
        client_fini(&a->client);
        sqlite3_close(a->model);
    }
    compare_databases(w);
    house_close(&w->house);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->cond);
}

static void test_model(void **state)
{
    (void)state;
    static struct world w;
    uint64_t seed = bed_seed();
    unsigned waits = 0, lones = 0, failures = 0, busy = 0, pardons = 0;
    for (int round = 0; round < ROUNDS; round++) {
        begin(&w, bed_random(&seed));
        for (int i = 0; i < STEPS; i++) {
            step(&w);
            come_to_rest(&w);
            if (i % 100 == 0) compare_databases(&w);
        }
        end(&w);
        waits += w.waits, lones += w.lones, failures += w.failures, busy += w.busy;
        pardons += w.forgiven;
    }
    printf("%u waits, %u lone writes, %u failures, %u stale, %u forgiven\n", waits, lones, failures,
           busy, pardons);
    /* A history in which nothing happens proves nothing. */
    assert_true(waits > 500 && lones > 500 && failures > 500 && busy > 20);
    assert_true(pardons * 10 < busy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
