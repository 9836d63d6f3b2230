/*
 * tenants_slot.c -- one tenant: its engine, which serves, and its task, which brings what was
 * committed into the log; see tenants_intern.h.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/bytes.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/image.h"
#include "node/tenants_intern.h"

#define PAGE_SIZE      4096 /* of a database that does not exist yet */
#define CACHE_SHARE    64   /* a connection's part of all caches */
#define CACHE_KIB_MIN  256
#define CACHE_KIB_MAX  16384
#define IDLE_CONNS_MAX 4

struct stored_wait {
    struct tenant_wait w;
    pthread_mutex_t lock;
    pthread_cond_t told;
    bool done;
    enum rc rc;
    struct err err;
};

static enum rc configure(struct slot *s, struct err *err);
static enum rc start_task(struct slot *s, struct task **ret_task, struct err *err);
static uint64_t find_rest(const struct slot *s);
static enum rc start_engine(struct slot *s, struct err *err);
static uint64_t page_size_of(const char *path);
static void remember(struct slot *s);
static enum rc before_write(void *ctx, struct err *err);
static void on_commit(void *ctx);
static void on_stored(struct tenant_wait *w, enum rc rc, const struct err *err);
static void on_drained(struct tenant_wait *w, enum rc rc, const struct err *err);

enum rc slot_new(struct tenants *ts, const char *name, enum slot_state state, struct slot **ret_s,
                 struct err *err)
{
    char path[OS_PATH_MAX], meta[OS_PATH_MAX];
    struct slot *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "a tenant");
    snprintf(s->t.name, sizeof s->t.name, "%s", name);
    tenants_path(ts, name, TENANT_DATA, path);
    tenants_path(ts, name, TENANT_META, meta);
    s->ts = ts;
    s->state = state;
    pthread_mutex_init(&s->start_lock, NULL);
    s->used_ms = os_mono_ms();
    atomic_store(&s->t.commits, (uint64_t)os_mono_us() + 1);
    s->path = mem_strdup(path);
    s->meta = mem_strdup(meta);
    if (s->path != NULL && s->meta != NULL) return *ret_s = s, RC_OK;
    slot_free(s);
    return err_mem(err, "a tenant");
}

void slot_free(struct slot *s)
{
    if (s == NULL) return;
    ASSERT(s->task == NULL && s->t.engine == NULL);
    struct tenant_extra *extra = atomic_load(&s->t.extra);
    if (extra != NULL) extra->free(extra);
    tenants_conf_free(s->confs);
    pthread_mutex_destroy(&s->start_lock);
    mem_free(s->path);
    mem_free(s->meta);
    mem_free(s);
}

enum rc slot_start_task(struct slot *s, struct err *err)
{
    struct task *ignored;
    TRY(configure(s, err));
    return slot_task(s, &ignored, err);
}

enum rc slot_start(struct slot *s, struct err *err)
{
    TRY(configure(s, err));
    if (s->task == NULL) s->rest_txid = find_rest(s);
    if (s->rest_txid == 0)
        TRY(slot_start_task(s, err));
    else if (s->task == NULL)
        atomic_fetch_add(&s->ts->opened, 1);
    return s->t.engine == NULL ? start_engine(s, err) : RC_OK;
}

enum rc slot_task(struct slot *s, struct task **ret_task, struct err *err)
{
    struct task *task = s->task;
    enum rc rc = RC_OK;
    if (task == NULL) {
        thr_lock(&s->start_lock);
        task = s->task;
        if (task == NULL) rc = tenants_mark(s->ts, s->t.name, err);
        if (task == NULL && rc == RC_OK) rc = start_task(s, &task, err);
        thr_unlock(&s->start_lock);
    }
    if (rc == RC_OK) *ret_task = task;
    return rc;
}

bool slot_rests(const struct slot *s)
{
    return s->task == NULL && s->rest_txid != 0;
}

void slot_place(const struct slot *s, struct task_place *ret)
{
    struct task *task = s->task;
    *ret = (struct task_place){.staged = s->rest_txid, .uploaded = s->rest_txid, .known = true};
    if (task != NULL) task_place(task, ret);
}

void slot_close_engine(struct slot *s)
{
    if (s->t.engine != NULL) remember(s);
    sql_engine_close(s->t.engine);
    s->t.engine = NULL;
    slot_give_place(s);
}

/* Who has written to it was not this server: it would have started the task before. */
enum rc slot_check_rest(struct slot *s, struct err *err)
{
    struct task *ignored;
    if (!slot_rests(s) || capture_settled(s->path, s->meta) == s->rest_txid) return RC_OK;
    return slot_task(s, &ignored, err);
}

void slot_end_rest(struct slot *s)
{
    struct err err;
    if (!slot_rests(s)) return;
    if (slot_check_rest(s, &err) != RC_OK) {
        log_warn("closed, and its log may lack what others wrote; tried again later", "namespace",
                 s->t.name, "error", err.text);
        atomic_fetch_add(&s->ts->parked, 1);
    }
    if (s->task != NULL) return;
    s->rest_txid = 0;
    atomic_fetch_add(&s->ts->closed, 1);
}

void slot_give_place(struct slot *s)
{
    bool counted = s->counted;
    s->counted = false;
    if (counted) place_give(s->ts);
}

void slot_end_task(struct slot *s, bool whole)
{
    char mark[OS_PATH_MAX];
    struct err ignored; /* a mark too many is an open too many */
    struct task *task = s->task;
    if (slot_rests(s)) atomic_fetch_add(&s->ts->closed, 1);
    s->rest_txid = 0;
    if (task == NULL) return;
    atomic_store(&s->cancel, true);
    task_stop(task);
    task_free(task);
    s->task = NULL;
    atomic_fetch_add(&s->ts->closed, 1);
    tenants_path(s->ts, s->t.name, TENANT_MARK, mark);
    if (whole)
        (void)!os_unlink(mark, &ignored);
    else
        atomic_fetch_add(&s->ts->parked, 1);
}

enum rc slot_wait_stored(struct slot *s, int64_t deadline_ms, uint64_t *ret_txid, struct err *err)
{
    struct stored_wait sw = {.w = {.fn = on_stored, .deadline_ms = deadline_ms},
                             .lock = PTHREAD_MUTEX_INITIALIZER};
    struct task *task;
    TRY(slot_task(s, &task, err));
    thr_cond_init(&sw.told);
    sw.w.ctx = &sw;
    task_wait(task, &sw.w);
    thr_lock(&sw.lock);
    while (!sw.done)
        thr_wait(&sw.told, &sw.lock, 0);
    thr_unlock(&sw.lock);
    pthread_cond_destroy(&sw.told);
    pthread_mutex_destroy(&sw.lock);
    if (sw.rc != RC_OK) {
        *err = sw.err;
        return err_wrap(err, "the log of namespace `%s`", s->t.name);
    }
    if (ret_txid != NULL) *ret_txid = sw.w.txid;
    return RC_OK;
}

/* A connection of its own sees to it that there is a database. */
enum rc slot_copy(struct slot *s, const char *out, struct err *err)
{
    const struct call c = {.cancel = s->ts->opts.cancel};
    struct sql_conn *conn;
    TRY(sql_engine_get(s->t.engine, &conn, err));
    sql_engine_put(s->t.engine, conn);
    return image_copy(s->path, out, &c, err);
}

/* An earlier drain, from before it was opened again, may still wait: when it is told, it finds
 * itself outdated, and the housekeeper begins the next. */
void slot_drain(struct slot *s)
{
    if (s->drain_pending || s->drain_done) return;
    s->drain_pending = true;
    s->drain_of = s->drain_epoch;
    s->drain = (struct tenant_wait){.fn = on_drained, .ctx = s};
    task_wait(s->task, &s->drain);
}

/* Once. */
static enum rc configure(struct slot *s, struct err *err)
{
    char path[OS_PATH_MAX];
    if (s->confs != NULL) return RC_OK;
    tenants_path(s->ts, s->t.name, TENANT_CONF, path);
    TRY(tenants_conf_load(path, &s->confs, err));
    atomic_store(&s->t.conf, &s->confs->conf);
    s->page_size = page_size_of(s->path);
    return RC_OK;
}

/* With a mark its log may lack something, whatever its files look like. */
static uint64_t find_rest(const struct slot *s)
{
    char mark[OS_PATH_MAX];
    struct stat st;
    struct err ignored;
    tenants_path(s->ts, s->t.name, TENANT_MARK, mark);
    if (os_stat(mark, &st, &ignored) != RC_NOT_FOUND) return 0;
    return capture_settled(s->path, s->meta);
}

static enum rc start_task(struct slot *s, struct task **ret_task, struct err *err)
{
    struct task *task = NULL;
    struct task_pools pools = s->ts->pools;
    struct config_replica replica = {0};
    atomic_store(&s->cancel, false);
    pools.cancel = &s->cancel;
    TRY(tenants_replica(s->ts, s->t.name, &replica, err));
    /* The texts are those of the base, but for what differs; the replica is read by task_new only.
     */
    s->db = s->ts->base->dbs[0];
    s->db.path = s->path;
    s->db.meta_path = s->meta;
    s->db.replica = replica;
    s->db.replica.sync_interval_ms = s->ts->opts.sync_interval_ms;
    s->db.max_sync_wal_bytes = 0; /* so that a commit is in the next batch, see task_index */
    enum rc rc = task_new(s->ts->base, &s->db, &pools, &task, err);
    config_replica_fini(&replica);
    s->db.replica = (struct config_replica){0};
    if (rc == RC_OK) rc = task_start(task, err);
    if (rc != RC_OK) {
        task_free(task);
        return rc;
    }
    if (s->rest_txid == 0) atomic_fetch_add(&s->ts->opened, 1);
    s->task = *ret_task = task;
    return RC_OK;
}

static enum rc start_engine(struct slot *s, struct err *err)
{
    const struct tenants_opts *o = &s->ts->opts;
    const struct tenant_conf *conf = &s->confs->conf;
    int64_t cache_kib = o->cache_kib / CACHE_SHARE;
    if (cache_kib < CACHE_KIB_MIN) cache_kib = CACHE_KIB_MIN;
    if (cache_kib > CACHE_KIB_MAX) cache_kib = CACHE_KIB_MAX;
    uint64_t page_max = conf->size_max == 0 ? 0 : conf->size_max / s->page_size;
    if (conf->size_max != 0 && page_max == 0) page_max = 1;
    const struct sql_engine_opts opts = {
        .conn = {.path = s->path,
                 .full_sync = o->full_sync,
                 .foreign_keys = true,
                 .temp_in_file = true,
                 .cache_kib = cache_kib,
                 .page_max = page_max,
                 .value_max = conf->row_max,
                 .before_write = before_write,
                 .ctx = s},
        .pool = o->write,
        .conn_max = o->readers,
        .idle_max = IDLE_CONNS_MAX,
        .hold_ms = conf->txn_ms > 0 ? conf->txn_ms : o->txn_ms,
        .committed = on_commit,
        .ctx = s,
    };
    s->stale = false;
    return sql_engine_open(&opts, &s->t.engine, err);
}

/* No database yet: what SQLite will choose. Only while nothing of it is open here: to close any
 * descriptor of a database drops all locks of this process on it. */
static uint64_t page_size_of(const char *path)
{
    uint8_t head[100];
    struct err ignored;
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    if (os_open(path, O_RDONLY, 0, &fd, &ignored) != RC_OK) return PAGE_SIZE;
    if (os_pread(fd, head, sizeof head, 0, &got, &ignored) != RC_OK || got < sizeof head)
        return PAGE_SIZE;
    uint64_t size = get_be16(head + 16);
    return size == 1 ? 65536 : size < 512 ? PAGE_SIZE : size;
}

/* What its writer has done would be gone with it. */
static void remember(struct slot *s)
{
    struct sql_engine_stats st;
    struct sql_writer_stats *past = &s->ts->past;
    sql_engine_look(s->t.engine, &st);
    thr_lock(&s->ts->past_lock);
    past->writes += st.writer.writes;
    past->failed += st.writer.failed;
    past->commits += st.writer.commits;
    past->groups += st.writer.groups;
    past->again += st.writer.again;
    past->timed_out += st.writer.timed_out;
    if (st.writer.group_max > past->group_max) past->group_max = st.writer.group_max;
    thr_unlock(&s->ts->past_lock);
}

/* The mark first: should the process die between the commit and its capture, the next start knows
 * that there is something to capture. */
static enum rc before_write(void *ctx, struct err *err)
{
    struct task *ignored;
    return slot_task(ctx, &ignored, err);
}

static void on_commit(void *ctx)
{
    struct slot *s = ctx;
    struct task *task = s->task;
    atomic_fetch_add_explicit(&s->t.commits, 1, memory_order_release);
    if (task != NULL) task_committed(task); /* else nothing was written, see before_write */
}

static void on_stored(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    struct stored_wait *sw = w->ctx;
    thr_lock(&sw->lock);
    sw->done = true;
    sw->rc = rc;
    sw->err = *err;
    pthread_cond_signal(&sw->told);
    thr_unlock(&sw->lock);
}

/* By a job of the task, or by slot_end_task. */
static void on_drained(struct tenant_wait *w, enum rc rc, const struct err *err)
{
    struct slot *s = w->ctx;
    struct tenants *ts = s->ts;
    struct shard *sh = tenants_shard(ts, s->t.name);
    (void)err;
    thr_lock(&sh->lock);
    s->drain_pending = false;
    if (rc == RC_OK && s->drain_of == s->drain_epoch) s->drain_done = true;
    thr_unlock(&sh->lock); /* from here it may be gone */
    tenants_poke(ts);
}
