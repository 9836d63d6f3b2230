/* sync_desk.c -- see sync_desk.h. */
#include "server/sync_desk.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"

#define THREADS    16
#define STORE_MS   20000 /* so long a request waits for the store */
#define SEND_SIZE  (64u << 10)
#define STREAM_MIN (256u << 10)

struct sync_desk {
    struct server *server;
    struct crew *crew;
    pthread_mutex_t lock;
    struct sync_ask *parked; /* [lock] */
    bool closing;            /* [lock] */
};

static struct sync_ask *of(struct crew_job *job);
static void on_stored(struct tenant_wait *w, enum rc rc, const struct err *err);
static void stored(struct crew_job *job);
static bool is_over(const struct sync_desk *d, struct sync_ask *y, int64_t now_ms);

/* Pages hold all columns of all tables: whoever may not see all of them must not have any. */
bool sync_admit(struct ask *a, struct sync_ask **ret_y)
{
    const struct tenant_conf *conf = atomic_load(&a->tenant->conf);
    if (conf->block_reads) {
        ask_fail_text(a, 403, "BLOCKED", "Operation was blocked: %s",
                      conf->block_reason[0] != '\0' ? conf->block_reason : "reads are blocked");
        return false;
    }
    if (grant_for(a->grant, a->tenant->name) < GRANT_READ || grant_policy(a->grant) != NULL) {
        ask_fail_text(a, 403, "AUTH_FORBIDDEN",
                      "Authorization forbidden: a token with roles or without Read permission "
                      "cannot replicate namespace %s",
                      a->tenant->name);
        return false;
    }
    if (a->sync == NULL) a->sync = mem_calloc(1, sizeof *a->sync);
    if (a->sync == NULL) {
        ask_fail_text(a, 500, "INTERNAL", "out of memory");
        return false;
    }
    a->sync->ask = a;
    *ret_y = a->sync;
    return true;
}

void sync_to_work(struct sync_ask *y, void (*run)(struct crew_job *job))
{
    struct ask *a = y->ask;
    a->job.run = run;
    crew_submit(a->server->sync->crew, &a->job, crew_key(a->target.tenant));
}

bool sync_take_log(struct sync_ask *y)
{
    const struct server_opts *o = &y->ask->server->opts;
    struct err err;
    enum rc rc = sync_log_of(o->ops, o->tenants, y->ask->tenant, o->spill_dir, &y->log, &err);
    if (rc != RC_OK) sync_fail(y, rc, &err);
    return rc == RC_OK;
}

void sync_wait(struct sync_ask *y)
{
    const struct server *s = y->ask->server;
    int64_t ms = s->opts.durable_ms < STORE_MS ? s->opts.durable_ms : STORE_MS;
    y->wait = (struct tenant_wait){.fn = on_stored, .ctx = y, .deadline_ms = os_mono_ms() + ms};
    s->opts.ops->wait(y->ask->tenant, &y->wait);
}

bool sync_park(struct sync_ask *y)
{
    struct ask *a = y->ask;
    struct sync_desk *d = a->server->sync;
    if (y->over || os_mono_ms() >= y->until_ms) return false;
    struct tenant *t = a->tenant;
    thr_lock(&d->lock);
    bool parked = !d->closing;
    if (parked) {
        a->tenant = NULL;
        y->log = NULL;
        y->next = d->parked;
        d->parked = y;
    }
    thr_unlock(&d->lock); /* from here it may go on */
    if (parked) d->server->opts.ops->release(d->server->opts.tenants, t);
    return parked;
}

struct call sync_call(const struct sync_ask *y)
{
    return (struct call){.cancel = http_gone(y->ask->http), .deadline_ms = os_mono_ms() + STORE_MS};
}

/* 400 and 500 mean something else to libSQL's clients. */
void sync_fail(struct sync_ask *y, enum rc rc, const struct err *err)
{
    unsigned status = rc == RC_NOT_FOUND || rc == RC_CONFLICT ? 409 : rc_http(rc);
    ask_fail_text(y->ask, status, status == 409 ? "REPLICA_STALE" : rc_name(rc), "%s", err->text);
}

void sync_ask_free(struct sync_ask *y)
{
    mem_free(y);
}

enum rc sync_send(struct sync_ask *y, const char *type, struct err *err)
{
    struct ask *a = y->ask;
    if (!a->streaming && a->out.size < STREAM_MIN) return RC_OK;
    if (a->streaming && a->out.size < SEND_SIZE) return RC_OK;
    if (!a->streaming) TRY(http_stream_begin(a->http, 200, type, err));
    a->streaming = true;
    TRY(http_stream_write(a->http, a->out.data, a->out.size, false, err));
    buf_reset(&a->out);
    return RC_OK;
}

void sync_send_end(struct sync_ask *y, const char *type, enum rc rc, const struct err *err)
{
    struct ask *a = y->ask;
    struct err ignored;
    if (!a->streaming) {
        if (rc == RC_OK)
            http_reply(a->http, 200, type, &a->out);
        else
            sync_fail(y, rc, err);
        return;
    }
    if (rc == RC_OK && a->out.size > 0)
        rc = http_stream_write(a->http, a->out.data, a->out.size, true, &ignored);
    http_stream_end(a->http, rc == RC_OK);
}

enum rc sync_desk_new(struct server *s, struct sync_desk **ret_d, struct err *err)
{
    struct sync_desk *d = mem_calloc(1, sizeof *d);
    if (d == NULL) return err_mem(err, "what replicas need");
    d->server = s;
    pthread_mutex_init(&d->lock, NULL);
    enum rc rc = crew_new(&(struct crew_opts){.name = "sync", .threads = THREADS}, &d->crew, err);
    if (rc == RC_OK)
        *ret_d = d;
    else
        sync_desk_free(d);
    return rc;
}

void sync_desk_tick(struct sync_desk *d)
{
    int64_t now = os_mono_ms();
    struct sync_ask *go = NULL;
    thr_lock(&d->lock);
    for (struct sync_ask **at = &d->parked, *y; (y = *at) != NULL;) {
        if (!is_over(d, y, now)) {
            at = &y->next;
            continue;
        }
        *at = y->next;
        y->next = go;
        go = y;
    }
    thr_unlock(&d->lock);
    for (struct sync_ask *next; go != NULL; go = next) {
        next = go->next;
        ask_again(go->ask);
    }
}

void sync_desk_close(struct sync_desk *d)
{
    if (d == NULL) return;
    thr_lock(&d->lock);
    d->closing = true;
    thr_unlock(&d->lock);
}

void sync_desk_free(struct sync_desk *d)
{
    if (d == NULL) return;
    ASSERT(d->parked == NULL);
    crew_free(d->crew);
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}

static struct sync_ask *of(struct crew_job *job)
{
    return ask_of(job)->sync;
}

static void on_stored(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    struct sync_ask *y = w->ctx;
    y->rc = rc;
    if (rc != RC_OK) y->err = *err;
    sync_to_work(y, stored);
}

/* A tenant that nobody has used has no database yet, and no log: a connection makes one. */
static void stored(struct crew_job *job)
{
    struct sync_ask *y = of(job);
    struct sql_engine *engine = y->ask->tenant->engine;
    struct sql_conn *conn;
    struct err err;
    if (y->rc != RC_OK) {
        ask_fail_text(y->ask, 503, "NOT_DURABLE",
                      "the store has not confirmed what replicas would be given: %s", y->err.text);
        return;
    }
    if (y->wait.txid > 0) {
        y->answer(y);
        return;
    }
    enum rc rc = RC_OK;
    if (y->made) rc = err_set(&err, RC_IO, "the database has no log");
    if (rc == RC_OK) rc = sql_engine_get(engine, &conn, &err);
    if (rc != RC_OK) {
        sync_fail(y, rc, &err);
        return;
    }
    sql_engine_put(engine, conn);
    y->made = true;
    sync_wait(y);
}

/* A tenant that is not open has no commits. */
static bool is_over(const struct sync_desk *d, struct sync_ask *y, int64_t now_ms)
{
    const struct server_opts *o = &d->server->opts;
    y->over = d->closing || now_ms >= y->until_ms || atomic_load(http_gone(y->ask->http));
    if (y->over) return true;
    uint64_t commits = o->ops->commits(o->tenants, y->ask->target.tenant);
    return commits != 0 && commits != y->seen;
}
