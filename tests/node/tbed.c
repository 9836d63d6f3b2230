/* tbed.c -- see tbed.h. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/log.h"
#include "base/mem.h"
#include "log/restore.h"
#include "node/tbed.h"

struct value {
    int64_t value;
    bool got;
};
struct stored {
    struct tenant_wait w;
    pthread_mutex_t lock;
    pthread_cond_t told;
    bool done;
    enum rc rc;
    struct err err;
};

void tbed_new(struct tbed *b)
{
    memset(b, 0, sizeof *b);
    spy = (struct spy){0};
    snprintf(b->dir, sizeof b->dir, "/tmp/sluice-tenants-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->data, sizeof b->data, "%s/data", b->dir);
    const char *level = getenv("SLUICE_TEST_LOG");
    log_setup(level != NULL ? LOG_DEBUG : LOG_ERROR + 1, LOG_TYPE_TEXT, STDERR_FILENO);
    source_global_init();
    b->opts = (struct tenants_opts){.dir = b->data, .sync_interval_ms = 20, .full_sync = true};
}

enum rc tbed_try_start(struct tbed *b, struct err *err)
{
    struct err own;
    assert_int_equal(bell_new(task_ring, &b->opts.bell, &own), RC_OK);
    assert_int_equal(sched_new("upload", 4, NULL, NULL, &b->opts.upload, &own), RC_OK);
    assert_int_equal(sched_new("write", 2, NULL, NULL, &b->opts.write, &own), RC_OK);
    assert_int_equal(
        sched_new("capture", 2, bed_scratch_new, bed_scratch_free, &b->opts.capture, &own), RC_OK);
    return tenants_new(&b->opts, &b->ts, err);
}

void tbed_start(struct tbed *b)
{
    struct err err = {0};
    if (tbed_try_start(b, &err) != RC_OK) fail_msg("%s", err.text);
}

enum rc tbed_stop(struct tbed *b, struct err *err)
{
    enum rc rc = tenants_free(b->ts, err);
    b->ts = NULL;
    if (b->opts.capture == NULL) return rc;
    sched_stop(b->opts.capture);
    sched_stop(b->opts.upload);
    sched_stop(b->opts.write);
    bell_free(b->opts.bell);
    sched_free(b->opts.capture);
    sched_free(b->opts.upload);
    sched_free(b->opts.write);
    b->opts.capture = b->opts.upload = b->opts.write = NULL;
    b->opts.bell = NULL;
    return rc;
}

void tbed_stop_ok(struct tbed *b)
{
    struct err err = {0};
    if (tbed_stop(b, &err) != RC_OK) fail_msg("%s", err.text);
}

void tbed_free(struct tbed *b)
{
    char cmd[128];
    struct err err;
    if (b->ts != NULL || b->opts.capture != NULL) tbed_stop(b, &err);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", b->dir);
    assert_int_equal(system(cmd), 0);
}

struct tenant *tbed_open(struct tbed *b, const char *name)
{
    struct tenant *t = NULL;
    struct err err = {0};
    if (tenants_ops.open(b->ts, name, &t, &err) != RC_OK) fail_msg("%s", err.text);
    return t;
}

enum rc tbed_try_sql(struct tbed *b, const char *name, const char *sql, struct err *err)
{
    struct tenant *t = NULL;
    struct sql_conn *conn = NULL;
    struct sql_error sql_err = {0};
    TRY(tenants_ops.open(b->ts, name, &t, err));
    enum rc rc = sql_engine_get(t->engine, &conn, err);
    if (rc == RC_OK) {
        rc = sql_conn_script(conn, NULL, &(struct sql_limits){0}, sql, strlen(sql), &sql_err, err);
        if (rc == RC_INVALID) err_set(err, rc, "%s", sql_err.message);
        sql_engine_put(t->engine, conn);
        sql_engine_committed(t->engine);
    }
    tenants_ops.release(b->ts, t);
    return rc;
}

void tbed_sql(struct tbed *b, const char *name, const char *sql)
{
    struct err err = {0};
    if (tbed_try_sql(b, name, sql, &err) != RC_OK) fail_msg("%s: %s: %s", name, sql, err.text);
}

static enum rc take_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc take_row(void *ctx, const struct sql_value *values, size_t count, struct err *err)
{
    struct value *v = ctx;
    (void)count, (void)err;
    v->value = values[0].integer;
    v->got = true;
    return RC_OK;
}

enum rc tbed_try_int(struct tbed *b, const char *name, const char *sql, int64_t *ret_value,
                     struct err *err)
{
    struct tenant *t = NULL;
    struct sql_conn *conn = NULL;
    struct sql_error sql_err = {0};
    struct sql_done done;
    struct value v = {0};
    const struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .want_rows = true};
    const struct sql_sink sink = {.cols = take_cols, .row = take_row, .ctx = &v};
    TRY(tenants_ops.open(b->ts, name, &t, err));
    enum rc rc = sql_engine_get(t->engine, &conn, err);
    if (rc == RC_OK) {
        rc = sql_conn_run(conn, NULL, &(struct sql_limits){0}, &stmt, &sink, &done, &sql_err, err);
        if (rc == RC_INVALID) err_set(err, rc, "%s", sql_err.message);
        sql_engine_put(t->engine, conn);
    }
    tenants_ops.release(b->ts, t);
    if (rc == RC_OK && !v.got) rc = err_set(err, RC_NOT_FOUND, "no row");
    if (rc == RC_OK) *ret_value = v.value;
    return rc;
}

int64_t tbed_int(struct tbed *b, const char *name, const char *sql)
{
    struct err err = {0};
    int64_t value = 0;
    if (tbed_try_int(b, name, sql, &value, &err) != RC_OK)
        fail_msg("%s: %s: %s", name, sql, err.text);
    return value;
}

static void on_stored(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    struct stored *s = w->ctx;
    thr_lock(&s->lock);
    s->done = true;
    s->rc = rc;
    s->err = *err;
    pthread_cond_signal(&s->told);
    thr_unlock(&s->lock);
}

enum rc tbed_try_stored(struct tbed *b, const char *name, int64_t wait_ms, uint64_t *ret_txid,
                        struct err *err)
{
    struct tenant *t = NULL;
    struct stored s = {.w = {.fn = on_stored, .deadline_ms = os_mono_ms() + wait_ms},
                       .lock = PTHREAD_MUTEX_INITIALIZER};
    TRY(tenants_ops.open(b->ts, name, &t, err));
    s.w.ctx = &s;
    thr_cond_init(&s.told);
    tenants_ops.wait(t, &s.w);
    thr_lock(&s.lock);
    while (!s.done)
        thr_wait(&s.told, &s.lock, 0);
    thr_unlock(&s.lock);
    tenants_ops.release(b->ts, t);
    if (s.rc != RC_OK) *err = s.err;
    if (s.rc == RC_OK && ret_txid != NULL) *ret_txid = s.w.txid;
    return s.rc;
}

uint64_t tbed_stored(struct tbed *b, const char *name)
{
    struct err err = {0};
    uint64_t txid = 0;
    if (tbed_try_stored(b, name, 20000, &txid, &err) != RC_OK) fail_msg("%s: %s", name, err.text);
    return txid;
}

int64_t tbed_log_int(struct tbed *b, const char *name, uint64_t txid, const char *sql)
{
    char path[128], out[128];
    struct store *store = NULL;
    struct restore_result res;
    struct err err = {0};
    snprintf(path, sizeof path, "%s/backup/%s", b->data, name);
    snprintf(out, sizeof out, "%s/restored-%s.db", b->dir, name); /* threads */
    unlink(out);
    assert_int_equal(store_open(path, &store, &err), RC_OK);
    const struct log lg = {.store = store};
    const struct restore_opts opts = {
        .out_path = out, .target = {.kind = txid != 0 ? PLAN_TXID : PLAN_LATEST, .txid = txid}};
    enum rc rc = restore_run(&lg, NULL, &opts, &res, &err);
    store_close(store);
    if (rc != RC_OK) {
        print_message("restore '%s': %s\n", name, err.text);
        return -1;
    }
    assert_true(res.digest_checked);
    sqlite3 *db;
    sqlite3_stmt *st;
    int64_t value = -1;
    assert_int_equal(sqlite3_open(out, &db), SQLITE_OK);
    sqlite3_exec(db, "PRAGMA synchronous=OFF", NULL, NULL, NULL);
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK) {
        if (sqlite3_step(st) == SQLITE_ROW) value = sqlite3_column_int64(st, 0);
        sqlite3_finalize(st);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    unlink(out);
    return value;
}

bool tbed_exists(struct tbed *b, const char *path)
{
    char full[256];
    snprintf(full, sizeof full, "%s/%s", b->data, path);
    return access(full, F_OK) == 0;
}

unsigned tbed_entries(struct tbed *b, const char *folder)
{
    char full[256];
    unsigned count = 0;
    snprintf(full, sizeof full, "%s/%s", b->data, folder);
    DIR *d = opendir(full);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}
