/* client.c -- see client.h. */
#include "sql/client.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/os.h"

struct lone {
    struct sql_write write;
    struct client *client;
    const char *sql;
    bool refused; /* it wants a connection of its own */
};

static void committed(void *ctx);
static void granted(void *ctx);
static void reset(struct client *c);
static enum rc end(struct client *c, enum rc rc);
static enum rc run_lone(struct sql_write *w, struct sql_conn *conn, struct err *err);
static void restart_lone(struct sql_write *w);
static void done_lone(struct sql_write *w);
static void tell(struct client *c);

void house_open(struct house *h, struct sql_engine_opts opts)
{
    struct err err;
    *h = (struct house){0};
    bed_new(&h->bed);
    bed_open(&h->bed, NULL);
    bed_ok(&h->bed, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    assert_int_equal(sched_new("write", 2, NULL, NULL, &h->pool, &err), RC_OK);
    opts.conn.path = h->bed.path;
    opts.pool = h->pool;
    opts.committed = committed;
    opts.ctx = h;
    if (sql_engine_open(&opts, &h->engine, &err) != RC_OK) fail_msg("%s", err.text);
}

void house_close(struct house *h)
{
    struct sql_engine_stats stats;
    sql_engine_look(h->engine, &stats);
    assert_int_equal(stats.conns_used, 0);
    assert_int_equal(stats.writer.waiting, 0);
    sql_engine_close(h->engine);
    sched_free(h->pool);
    assert_string_equal(bed_ok(&h->bed, "PRAGMA integrity_check"), "ok");
    bed_free(&h->bed);
}

void client_init(struct client *c, struct house *h)
{
    *c = (struct client){.s.engine = h->engine};
    pthread_mutex_init(&c->lock, NULL);
    thr_cond_init(&c->cond);
}

void client_fini(struct client *c)
{
    sql_stream_end(&c->s);
    buf_fini(&c->rows);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->cond);
}

enum rc client_once(struct client *c, const char *sql)
{
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .want_rows = true};
    struct sql_sink sink = bed_sink(&c->rows);
    reset(c);
    return end(c, sql_stream_run(&c->s, &c->call, &c->limits, &stmt, &sink, &c->done, &c->sql_err,
                                 &c->err));
}

enum rc client_run(struct client *c, const char *sql)
{
    enum rc rc;
    while ((rc = client_once(c, sql)) == RC_AGAIN) {
        client_ask(c);
        client_wait(c);
    }
    return rc;
}

enum rc client_script(struct client *c, const char *sql)
{
    enum rc rc;
    for (;;) {
        reset(c);
        rc = sql_stream_script(&c->s, &c->call, &c->limits, sql, strlen(sql), &c->sql_err, &c->err);
        if (rc != RC_AGAIN) return end(c, rc);
        client_ask(c);
        client_wait(c);
    }
}

enum rc client_do(struct client *c, const char *sql)
{
    enum sql_way way = sql_stream_way(&c->s, sql, strlen(sql));
    if (way == SQL_WAY_GROUP) return client_write(c, sql);
    enum rc rc = client_run(c, sql);
    return rc == RC_DENIED && way == SQL_WAY_READ ? client_write(c, sql) : rc;
}

enum rc client_write(struct client *c, const char *sql)
{
    struct lone l = {.client = c, .sql = sql};
    l.write = (struct sql_write){.run = run_lone,
                                 .restart = restart_lone,
                                 .fn = done_lone,
                                 .ctx = &l,
                                 .call = c->call,
                                 .policy = c->s.policy};
    reset(c);
    c->told = false;
    assert_int_equal(sql_writer_submit(sql_engine_writer(c->s.engine), &l.write, &c->err), RC_OK);
    client_wait(c);
    if (l.refused) return client_run(c, sql);
    c->err = l.write.err;
    c->sql_err = l.write.sql_err;
    if (l.write.commit != 0) c->s.commit = l.write.commit;
    return end(c, l.write.rc);
}

void client_ask(struct client *c)
{
    c->told = false;
    c->asked++;
    sql_stream_ask(&c->s, granted, c);
}

bool client_told(struct client *c)
{
    thr_lock(&c->lock);
    bool told = c->told;
    thr_unlock(&c->lock);
    return told;
}

void client_wait(struct client *c)
{
    thr_lock(&c->lock);
    int64_t end_ms = os_mono_ms() + 60000;
    while (!c->told)
        if (!thr_wait(&c->cond, &c->lock, end_ms)) fail_msg("nobody answers");
    thr_unlock(&c->lock);
}

const char *client_ok(struct client *c, const char *sql)
{
    if (client_run(c, sql) != RC_OK) fail_msg("%s: %s", sql, c->err.text);
    return (const char *)c->rows.data;
}

void client_fails(struct client *c, const char *sql, const char *code)
{
    if (client_run(c, sql) == RC_OK) fail_msg("%s: must fail", sql);
    if (strcmp(c->sql_err.code, code) != 0)
        fail_msg("%s: %s (%s), not %s", sql, c->sql_err.code, c->err.text, code);
}

static void committed(void *ctx)
{
    struct house *h = ctx;
    atomic_fetch_add(&h->committed, 1);
}

static void granted(void *ctx)
{
    tell(ctx);
}

static void reset(struct client *c)
{
    buf_reset(&c->rows);
    c->sql_err = (struct sql_error){0};
}

/* Whatever fails has a text for the client and one for us. */
static enum rc end(struct client *c, enum rc rc)
{
    struct err err;
    (void)!buf_append(&c->rows, "", 1, &err);
    if (rc != RC_OK) assert_int_equal(c->err.rc, rc);
    if (rc != RC_OK && rc != RC_AGAIN && rc != RC_DENIED) assert_true(c->sql_err.code[0] != '\0');
    return rc;
}

static enum rc run_lone(struct sql_write *w, struct sql_conn *conn, struct err *err)
{
    struct lone *l = w->ctx;
    struct client *c = l->client;
    struct sql_stmt stmt = {.sql = l->sql, .sql_size = strlen(l->sql), .want_rows = true};
    struct sql_sink sink = bed_sink(&c->rows);
    l->refused = sql_conn_autocommit(conn);
    if (l->refused) return err_set(err, RC_UNSUPPORTED, "not in a group");
    return sql_conn_run(conn, &w->call, &c->limits, &stmt, &sink, &c->done, &w->sql_err, err);
}

static void restart_lone(struct sql_write *w)
{
    struct lone *l = w->ctx;
    buf_reset(&l->client->rows);
}

static void done_lone(struct sql_write *w)
{
    struct lone *l = w->ctx;
    tell(l->client);
}

static void tell(struct client *c)
{
    thr_lock(&c->lock);
    c->told = true;
    pthread_cond_broadcast(&c->cond);
    thr_unlock(&c->lock);
}
