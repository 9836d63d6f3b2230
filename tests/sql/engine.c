/* engine.c -- see engine.h. */
#include "sql/engine.h"
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

void engine_start(struct engine *e, const struct sql_writer_opts *opts)
{
    struct err err;
    struct sql_writer_opts o = *opts;
    *e = (struct engine){0};
    pthread_mutex_init(&e->lock, NULL);
    thr_cond_init(&e->cond);
    o.wake = wake;
    o.ctx = e;
    assert_int_equal(sql_writer_new(&o, &e->writer, &err), RC_OK);
    assert_int_equal(thr_start(&e->thread, "work", work, e, &err), RC_OK);
}

void engine_stop(struct engine *e)
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

void engine_pause(struct engine *e, bool paused)
{
    thr_lock(&e->lock);
    e->paused = paused;
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
}

void job_init(struct job *j, struct engine *e, const char *a, const char *b)
{
    *j = (struct job){.engine = e, .sql = {a, b}};
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
    return sql_writer_submit(j->engine->writer, &j->write, &err);
}

enum rc job_wait(struct job *j)
{
    thr_lock(&j->engine->lock);
    while (!j->ready)
        thr_wait(&j->engine->cond, &j->engine->lock, 0);
    thr_unlock(&j->engine->lock);
    return j->write.rc;
}

enum rc job_run(struct engine *e, const char *sql)
{
    struct job j;
    job_init(&j, e, sql, NULL);
    assert_int_equal(job_submit(&j), RC_OK);
    enum rc rc = job_wait(&j);
    job_fini(&j);
    return rc;
}

static void *work(void *arg)
{
    struct engine *e = arg;
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
    struct engine *e = ctx;
    thr_lock(&e->lock);
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
    struct engine *e = j->engine;
    thr_lock(&e->lock);
    j->ready = true; /* from here on the job may be gone */
    pthread_cond_broadcast(&e->cond);
    thr_unlock(&e->lock);
}
