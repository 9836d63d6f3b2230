/* crew.c -- see crew.h. */
#include "sql/crew.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/os.h"
#include "sql/bed.h"

static void *work(void *arg);
static void wake(void *ctx);
static enum rc run(struct sql_write *w, struct sql_conn *c, struct err *err);
static void restart(struct sql_write *w);
static void done(struct sql_write *w);
static void granted(struct sql_turn *t);

void crew_start(struct crew *e, const struct sql_writer_opts *opts)
{
    struct err err;
    struct sql_writer_opts o = *opts;
    *e = (struct crew){0};
    pthread_mutex_init(&e->lock, NULL);
    thr_cond_init(&e->cond);
    o.wake = wake;
    o.ctx = e;
    assert_int_equal(sql_writer_new(&o, &e->writer, &err), RC_OK);
    assert_int_equal(thr_start(&e->thread, "work", work, e, &err), RC_OK);
}

void crew_stop(struct crew *e)
{
    thr_lock(&e->lock);
    e->stop = true;
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    sql_writer_free(e->writer);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->cond);
}

void crew_pause(struct crew *e, bool paused)
{
    thr_lock(&e->lock);
    e->paused = paused;
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
}

void job_init(struct job *j, struct crew *e, const char *a, const char *b)
{
    *j = (struct job){.crew = e, .sql = {a, b}};
    j->write.run = run;
    j->write.restart = restart;
    j->write.fn = done;
    j->write.ctx = j;
}

void job_fini(struct job *j)
{
    buf_fini(&j->rows);
}

enum rc job_submit(struct job *j)
{
    struct err err;
    return sql_writer_submit(j->crew->writer, &j->write, &err);
}

enum rc job_wait(struct job *j)
{
    thr_lock(&j->crew->lock);
    while (!j->ready)
        thr_wait(&j->crew->cond, &j->crew->lock, 0);
    thr_unlock(&j->crew->lock);
    return j->write.rc;
}

enum rc job_run(struct crew *e, const char *sql)
{
    struct job j;
    job_init(&j, e, sql, NULL);
    assert_int_equal(job_submit(&j), RC_OK);
    enum rc rc = job_wait(&j);
    job_fini(&j);
    return rc;
}

void hold_ask(struct hold *h, struct crew *e, const struct sql_conn_opts *opts)
{
    struct err err;
    *h = (struct hold){.crew = e};
    if (sql_conn_open(opts, &h->conn, &err) != RC_OK) fail_msg("%s", err.text);
    h->turn = (struct sql_turn){.granted = granted, .ctx = h, .conn = h->conn};
    sql_writer_ask(e->writer, &h->turn);
}

void hold_wait(struct hold *h)
{
    thr_lock(&h->crew->lock);
    while (!h->granted)
        thr_wait(&h->crew->cond, &h->crew->lock, 0);
    thr_unlock(&h->crew->lock);
}

enum rc hold_begin(struct hold *h, struct crew *e, const struct sql_conn_opts *opts)
{
    hold_ask(h, e, opts);
    hold_wait(h);
    return sql_conn_begin(h->conn, true, &h->err);
}

uint64_t hold_end(struct hold *h)
{
    uint64_t commit = 0;
    sql_writer_give_back(h->crew->writer, &h->turn, &commit);
    hold_close(h);
    return commit;
}

void hold_close(struct hold *h)
{
    sql_conn_close(h->conn);
    h->conn = NULL;
}

static void granted(struct sql_turn *t)
{
    struct hold *h = t->ctx;
    struct crew *e = h->crew;
    thr_lock(&e->lock);
    h->granted = true;
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
}

static void *work(void *arg)
{
    struct crew *e = arg;
    bool more = false;
    thr_lock(&e->lock);
    while (!e->stop) {
        int64_t due = sql_writer_due_ms(e->writer);
        bool over = due != 0 && os_mono_ms() >= due;
        if (e->paused || (!e->woken && !more && !over)) {
            thr_wait(&e->cond, &e->lock, e->paused ? 0 : due);
            continue;
        }
        e->woken = false;
        thr_unlock(&e->lock);
        more = sql_writer_work(e->writer, 10000);
        thr_lock(&e->lock);
    }
    thr_unlock(&e->lock);
    return NULL;
}

static void wake(void *ctx)
{
    struct crew *e = ctx;
    thr_lock(&e->lock);
    e->wakes++;
    e->woken = true;
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
}

static enum rc run(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    struct job *j = w->ctx;
    struct sql_sink sink = bed_sink(&j->rows);
    enum rc rc = RC_OK;
    j->runs++;
    for (int i = 0; i < JOB_STATEMENTS && j->sql[i] != NULL; i++) {
        struct sql_stmt s = {.sql = j->sql[i], .sql_size = strlen(j->sql[i]), .want_rows = true};
        struct sql_error sql_err;
        rc = sql_conn_run(c, &w->call, NULL, &s, &sink, &j->done, &sql_err, err);
        if (rc == RC_OK || j->go_on) continue;
        w->sql_err = sql_err;
        return rc;
    }
    return j->go_on ? RC_OK : rc;
}

static void restart(struct sql_write *w)
{
    struct job *j = w->ctx;
    j->restarts++;
    buf_reset(&j->rows);
}

static void done(struct sql_write *w)
{
    struct job *j = w->ctx;
    struct err err;
    (void)!buf_append(&j->rows, "", 1, &err);
    struct crew *e = j->crew;
    thr_lock(&e->lock);
    j->ready = true; /* from here on the job may be gone */
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
}
