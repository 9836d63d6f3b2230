/* exec.c -- see exec.h. */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/exec_intern.h"

static enum next one(struct exec *x, const struct hrana_request *r);
static enum next plain(struct exec *x, const struct hrana_request *r);
static enum next batch(struct exec *x, const struct hrana_batch *b);
static enum rc batch_begin(struct exec *x, const struct hrana_batch *b, struct err *err);
static enum next batch_end(struct exec *x);
static void next_request(struct exec *x);
static bool wait_is_over(struct exec *x, int64_t now_ms);
static void run_job(struct crew_job *job);
static void finish(struct exec *x);
static void stored_durably(struct tenant_wait *w, enum rc rc, const struct err *err);
static void to_crew(struct exec *x, bool slow);
static bool trifle(const struct exec *x);

void exec_env_init(struct exec_env *env)
{
    pthread_mutex_init(&env->lock, NULL);
    env->waiting = NULL;
}

void exec_env_fini(struct exec_env *env)
{
    ASSERT(env->waiting == NULL);
    pthread_mutex_destroy(&env->lock);
}

/* An execution that was granted its turn meanwhile waits for env->lock in `granted`, so it cannot
 * end under our hands. */
void exec_env_tick(struct exec_env *env)
{
    int64_t now = os_mono_ms();
    struct exec *over = NULL;
    thr_lock(&env->lock);
    for (struct exec *x = env->waiting, *next; x != NULL; x = next) {
        next = x->next;
        if (!wait_is_over(x, now)) continue;
        exec_unlist(x);
        x->next = over;
        over = x;
    }
    thr_unlock(&env->lock);
    for (struct exec *x = over, *next; x != NULL; x = next) {
        next = x->next;
        exec_to_work(x);
    }
}

void exec_list(struct exec *x)
{
    struct exec_env *env = x->env;
    x->wait_since_ms = os_mono_ms();
    x->wait_until_ms = x->wait_since_ms + env->turn_ms;
    thr_lock(&env->lock);
    x->next = env->waiting;
    if (x->next != NULL) x->next->prev_next = &x->next;
    env->waiting = x;
    x->prev_next = &env->waiting;
    thr_unlock(&env->lock);
}

void exec_unlist(struct exec *x)
{
    if (x->prev_next == NULL) return;
    *x->prev_next = x->next;
    if (x->next != NULL) x->next->prev_next = x->prev_next;
    x->prev_next = NULL;
}

void exec_begin(struct exec *x)
{
    const struct tenant_conf *conf = atomic_load(&x->ses->tenant->conf);
    struct sql_stream *s = &x->ses->stream;
    s->all_read =
        conf->block_writes || grant_for(x->ses->grant, x->ses->tenant->name) < GRANT_WRITE;
    x->sync |= conf->sync;
    x->job.run = run_job;
    x->here = true;
    for (size_t i = 0; i < x->count; i++)
        if (x->requests[i].replication_index > x->wait_index)
            x->wait_index = x->requests[i].replication_index;
    if (x->wait_index > x->env->ops->index(x->ses->tenant))
        exec_list(x);
    else
        exec_run(x);
}

void exec_run(struct exec *x)
{
    enum next next = NEXT_GO;
    while (next == NEXT_GO && x->at < x->count) {
        next = one(x, &x->requests[x->at]);
        if (next != NEXT_GO) break;
        next_request(x);
    }
    if (next == NEXT_WORK || next == NEXT_SLOW) {
        to_crew(x, next == NEXT_SLOW);
    } else if (next != NEXT_WAIT) {
        finish(x);
    }
}

void exec_to_work(struct exec *x)
{
    to_crew(x, false);
}

void exec_resume(struct exec *x, enum next next)
{
    if (next == NEXT_FAIL) {
        finish(x);
        return;
    }
    if (x->in_batch) {
        x->step++;
        x->own = false;
    } else {
        next_request(x);
    }
    x->here = true; /* a writer's thread: the others of its group wait */
    if (trifle(x))
        exec_run(x);
    else
        exec_to_work(x);
}

enum rc exec_grown(struct exec *x, struct err *err)
{
    enum rc rc = x->grown != NULL ? x->grown(x, err) : RC_OK;
    if (rc != RC_OK) sql_error_own(&x->sql_err, "RESPONSE_TOO_LARGE", "Response is too large");
    return rc;
}

enum next exec_fail(struct exec *x, enum rc rc, const struct err *err)
{
    x->rc = rc;
    x->err = *err;
    return NEXT_FAIL;
}

enum rc exec_resolve(struct exec *x, const struct hrana_sql *sql, struct err *err)
{
    x->sql = sql->text;
    x->sql_size = sql->size;
    if (sql->text != NULL) return RC_OK;
    const struct stored_sql *s = stored_find(x->ses->stored, sql->id);
    if (s == NULL) return err_set(err, RC_INVALID, "SQL text %d does not exist", (int)sql->id);
    x->sql = s->text;
    x->sql_size = s->size;
    return RC_OK;
}

enum rc exec_open(struct exec *x, enum hrana_type type, struct err *err)
{
    if (x->in_batch) return hrana_put_step_begin(x->enc, (uint32_t)x->step, err);
    return hrana_put_result_begin(x->enc, type, x->request_id, err);
}

enum next exec_close_ok(struct exec *x)
{
    struct err err;
    enum rc rc;
    if (!x->in_batch) {
        rc = hrana_put_result_end(x->enc, &err);
    } else {
        x->verdicts[x->step] = VERDICT_OK;
        rc = hrana_put_step_end(x->enc, &err);
    }
    return rc == RC_OK ? NEXT_GO : exec_fail(x, rc, &err);
}

enum next exec_close_bad(struct exec *x, struct sql_error *sql_err)
{
    struct err err;
    enum rc rc;
    if (!x->in_batch) {
        x->bad = *sql_err;
        rc = hrana_put_result_error(x->enc, x->request_id, sql_err, &err);
    } else {
        x->verdicts[x->step] = VERDICT_ERROR;
        rc = hrana_put_step_error(x->enc, (uint32_t)x->step, sql_err, &err);
    }
    return rc == RC_OK ? NEXT_GO : exec_fail(x, rc, &err);
}

/* A step that was skipped has failed, too (SQL over HTTP, "error": not ok). */
bool exec_condition(const struct exec *x, const struct hrana_cond *c, bool autocommit)
{
    switch (c->type) {
    case HRANA_COND_NONE:
        return true;
    case HRANA_COND_OK:
        return x->verdicts[c->step] == VERDICT_OK;
    case HRANA_COND_ERROR:
        return x->verdicts[c->step] != VERDICT_OK;
    case HRANA_COND_NOT:
        return !exec_condition(x, c->inner, autocommit);
    case HRANA_COND_AUTOCOMMIT:
        return autocommit;
    case HRANA_COND_AND:
        for (size_t i = 0; i < c->count; i++)
            if (!exec_condition(x, &c->inner[i], autocommit)) return false;
        return true;
    case HRANA_COND_OR:
        for (size_t i = 0; i < c->count; i++)
            if (exec_condition(x, &c->inner[i], autocommit)) return true;
        return false;
    }
    return false;
}

uint64_t exec_committed(struct exec *x)
{
    x->committed = true;
    x->index = x->env->ops->index(x->ses->tenant);
    return x->index;
}

/* ---- One request ---- */

static enum next one(struct exec *x, const struct hrana_request *r)
{
    if (x->closed) {
        struct err err;
        return exec_fail(x, err_set(&err, RC_INVALID, "the stream was closed by a request before"),
                         &err);
    }
    if (x->gone != NULL && atomic_load(x->gone)) {
        struct err err;
        return exec_fail(x, err_set(&err, RC_CANCELED, "the client has gone"), &err);
    }
    switch (r->type) {
    case HRANA_EXECUTE:
        return exec_stmt(x, &r->stmt);
    case HRANA_OPEN_CURSOR:
    case HRANA_BATCH:
        return batch(x, &r->batch);
    case HRANA_SEQUENCE:
        return exec_script(x, &r->sql);
    case HRANA_DESCRIBE:
        return exec_describe(x, &r->sql);
    default:
        return plain(x, r);
    }
}

static enum next plain(struct exec *x, const struct hrana_request *r)
{
    struct err err;
    struct sql_error sql_err;
    enum rc rc = exec_open(x, r->type, &err);
    if (rc == RC_OK && r->type == HRANA_STORE_SQL) {
        rc = stored_set(x->ses->stored, r->sql.id, r->sql.text, r->sql.size, &err);
        if (rc == RC_TOO_BIG) {
            sql_error_own(&sql_err, "SQL_STORE_TOO_MANY", "%s", err.text);
            return exec_close_bad(x, &sql_err);
        }
    }
    if (rc == RC_OK && r->type == HRANA_CLOSE_SQL) stored_drop(x->ses->stored, r->sql.id);
    if (rc == RC_OK && r->type == HRANA_GET_AUTOCOMMIT)
        rc = hrana_put_autocommit(x->enc, sql_stream_autocommit(&x->ses->stream), &err);
    if (rc == RC_OK && r->type == HRANA_CLOSE) {
        sql_stream_end(&x->ses->stream);
        x->closed = true;
    }
    return rc == RC_OK ? exec_close_ok(x) : exec_fail(x, rc, &err);
}

static enum next batch(struct exec *x, const struct hrana_batch *b)
{
    struct err err;
    enum next next = NEXT_GO;
    if (!x->tried_unit && exec_unit(x, b, &next)) return next;
    enum rc rc = x->in_batch ? RC_OK : batch_begin(x, b, &err);
    if (rc != RC_OK) return exec_fail(x, rc, &err);
    for (; x->step < b->count; x->step++) {
        bool autocommit = sql_stream_autocommit(&x->ses->stream);
        TRY_NEXT(x, exec_grown(x, &err), &err);
        if (!x->own && !exec_condition(x, &b->steps[x->step].cond, autocommit)) {
            x->verdicts[x->step] = VERDICT_SKIPPED;
            rc = hrana_put_step_skip(x->enc, (uint32_t)x->step, &err);
            if (rc != RC_OK) return exec_fail(x, rc, &err);
            continue;
        }
        next = exec_stmt(x, &b->steps[x->step].stmt);
        if (next != NEXT_GO) return next;
        x->own = false;
    }
    return batch_end(x);
}

static enum rc batch_begin(struct exec *x, const struct hrana_batch *b, struct err *err)
{
    void *verdicts;
    TRY(arena_take(x->arena, b->count + 1, &verdicts, err));
    x->verdicts = verdicts;
    if (!x->cursor) TRY(hrana_put_result_begin(x->enc, HRANA_BATCH, x->request_id, err));
    TRY(hrana_put_batch_begin(x->enc, err));
    x->in_batch = true;
    return RC_OK;
}

static enum next batch_end(struct exec *x)
{
    struct err err;
    x->in_batch = false;
    enum rc rc = hrana_put_batch_end(x->enc, &err);
    if (rc == RC_OK && !x->cursor) rc = hrana_put_result_end(x->enc, &err);
    return rc == RC_OK ? NEXT_GO : exec_fail(x, rc, &err);
}

/* ---- From thread to thread ---- */

/* Under env->lock. What it has waited for came, or its time is over, or its client has gone. */
static bool wait_is_over(struct exec *x, int64_t now_ms)
{
    bool late = now_ms >= x->wait_until_ms || (x->gone != NULL && atomic_load(x->gone));
    if (x->wait_index == 0) {
        if (!late || !sql_stream_unask(&x->ses->stream)) return false;
        x->denied = true;
        return true;
    }
    if (x->env->ops->index(x->ses->tenant) >= x->wait_index) return true;
    if (!late) return false;
    x->rc = err_set(&x->err, RC_CANCELED, "transaction %llu has not come",
                    (unsigned long long)x->wait_index);
    sql_error_own(&x->sql_err, "REPLICATION_INDEX_TIMEOUT", "%s", x->err.text);
    return true;
}

static void next_request(struct exec *x)
{
    x->at++;
    x->step = 0;
    x->own = x->tried_unit = false;
}

static void run_job(struct crew_job *job)
{
    struct exec *x = (struct exec *)((char *)job - offsetof(struct exec, job));
    x->here = false;
    x->wait_index = 0;
    __atomic_fetch_add(&x->env->moved, 1, __ATOMIC_RELAXED);
    if (x->rc == RC_OK)
        exec_run(x);
    else
        finish(x);
}

static void finish(struct exec *x)
{
    if (x->rc != RC_OK || !x->committed || !x->sync) {
        x->done(x);
        return;
    }
    x->wait = (struct tenant_wait){
        .fn = stored_durably, .ctx = x, .deadline_ms = os_mono_ms() + x->env->durable_ms};
    x->env->ops->wait(x->ses->tenant, &x->wait);
}

static void stored_durably(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    struct exec *x = w->ctx;
    if (rc == RC_OK) {
        x->index = w->txid;
    } else {
        x->rc = rc;
        x->err = *err;
        sql_error_own(&x->sql_err, "NOT_DURABLE",
                      "The transaction is committed here, but the store has not confirmed it: %s",
                      err->text);
    }
    x->done(x);
}

static void to_crew(struct exec *x, bool slow)
{
    struct exec_env *env = x->env;
    x->slow = slow;
    x->queued_ms = os_mono_ms();
    crew_submit(slow ? env->slow : env->work, &x->job, crew_key(x->ses->tenant->name));
}

/* Is what is left quickly done on a thread that others wait for? */
static bool trifle(const struct exec *x)
{
    if (x->in_batch) return false;
    for (size_t i = x->at; i < x->count; i++) {
        enum hrana_type type = x->requests[i].type;
        if (type == HRANA_EXECUTE || type == HRANA_BATCH || type == HRANA_SEQUENCE ||
            type == HRANA_DESCRIBE)
            return false;
    }
    return true;
}
