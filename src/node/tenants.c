/*
 * tenants.c -- the table of tenants that are known, and its housekeeper. See tenants.h.
 *
 *              open                            unused for long, or too many
 *   (absent) -------> OPENING ------> OPEN -----------------------------> CLOSING
 *      ^                 ^             ^ |                                   |
 *      |                 |   unclaim   | | claim                             v
 *      |                 |             | v          open                 DRAINING
 *      |                 |           CLAIMED    <-- (OPENING) <-------------- |
 *      |                 |             |                                      | the store has all,
 *      +-----------------+-------------+------------------ FREEING <----------+ or does not answer
 *
 * A state between two others belongs to the thread that has set it; all others wait for the shard's
 * `changed`, or are sent away with RC_BUSY.
 *
 * Locks: a shard's lock is held for the look at the table, never while something is opened or
 * closed, and never two at once. keeper_lock is a leaf.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/mem.h"
#include "node/tenants_intern.h"

#define OPEN_MAX        1000
#define CACHE_KIB       (256 << 10)
#define INTERVAL_MS     1000
#define IDLE_CLOSE_MS   60000
#define OPEN_WAIT_MS    10000 /* while another thread opens or closes it */
#define TICK_MS         1000
#define TICK_MIN_MS     20
#define TRIM_MS         5000 /* unused so long: its connections are closed */
#define MEMORY_MS       2000
#define PARK_MS         10000 /* so long may a drain take */
#define PARKED_LOOK_MS  30000
#define PARKED_AT_ONCE  64
#define PICK_MAX        64 /* slots that the housekeeper takes in one round */
#define FOLDERS         4
#define FLUSH_LOOK_MS   2
#define REST_MS         10000
#define READERS_WAIT_MS 25 /* see capture.h; a WAL that stays short is worth that */

struct picked { /* slots that something is to be done with */
    struct slot *slots[PICK_MAX];
    size_t count;
};

static enum rc set_up(struct tenants *ts, struct err *err);
static enum rc take_lock(struct tenants *ts, struct err *err);
static enum rc note_leftover(void *ctx, const char *name, struct err *err);
static enum rc flush_all(struct tenants *ts, struct err *err);
static void tear_down(struct tenants *ts);
static enum rc enter(struct tenants *ts, const char *name, struct tenant_place *p,
                     struct slot **ret_s, bool *ret_begun, struct err *err);
static enum rc enter_table(struct tenants *ts, const char *name, const struct tenant_place *p,
                           bool *ret_begun, struct slot **ret_s, struct err *err);
static enum rc begin_start(struct tenants *ts, struct shard *sh, const char *name, struct slot **s,
                           struct err *err);
static enum rc busy(struct err *err, const struct slot *s);
static enum rc start_new(struct slot *s, struct err *err);
static enum rc start_slot(struct slot *s, struct err *err);
static enum rc make_default(struct slot *s, struct err *err);
static void end_slot(struct slot *s, bool whole);
static void begin_drain(struct slot *s);
static void drop_slot(struct slot *s);
static void *keep_house(void *arg);
static int64_t keep_slots(struct tenants *ts);
static void pick(struct tenants *ts, int64_t now, struct picked *to_close, struct picked *to_trim,
                 struct picked *to_end);
static void pick_open(struct slot *s, int64_t now, struct picked *to_close, struct picked *to_trim);
static void pick_draining(struct slot *s, int64_t now, struct picked *to_end);
static bool check_rests(struct tenants *ts, int64_t now);
static void keep_memory(struct tenants *ts, int64_t now);
static void unpin(struct slot *s);
static void keep_parked(struct tenants *ts, int64_t now);
static enum rc open_parked(void *ctx, const char *name, struct err *err);
static void keep_leftovers(struct tenants *ts);
static int64_t run_trim(struct sched_job *job, void *worker);

const struct tenants_ops tenants_ops = {
    .open = tenants_open,
    .open_wait = tenants_open_wait,
    .open_soon = tenants_open_soon,
    .peek = tenants_peek,
    .release = tenants_release,
    .index = tenants_index,
    .wait = tenants_wait,
    .create = tenants_create,
    .import = tenants_import,
    .remove = tenants_remove,
    .rename = tenants_rename,
    .fork = tenants_fork,
    .rewind = tenants_rewind,
    .configure = tenants_configure,
    .list = tenants_list,
    .info = tenants_info,
    .look = tenants_look_each,
    .checkpoint = tenants_checkpoint,
    .image = tenants_image,
    .commits = tenants_commits,
    .batch = tenants_batch,
    .image_file = tenants_image_file,
    .keep = tenants_keep,
    .kept = tenants_kept,
};

enum rc tenants_new(const struct tenants_opts *opts, struct tenants **ret_ts, struct err *err)
{
    struct tenants *ts = mem_calloc(1, sizeof *ts);
    if (ts == NULL) return err_mem(err, "the tenants");
    struct tenants_opts *o = &ts->opts;
    *o = *opts;
    if (o->open_max == 0) o->open_max = OPEN_MAX;
    if (o->cache_kib <= 0) o->cache_kib = CACHE_KIB;
    if (o->sync_interval_ms <= 0) o->sync_interval_ms = INTERVAL_MS;
    if (o->idle_close_ms <= 0) o->idle_close_ms = IDLE_CLOSE_MS;
    if (o->rest_ms <= 0) o->rest_ms = REST_MS;
    if (o->flush_ms <= 0) o->flush_ms = TENANTS_STORE_MS;
    ts->lock_fd = -1;
    ts->trim.run = run_trim;
    ts->outage = (struct task_outage)TASK_OUTAGE_INIT;
    ts->pools = (struct task_pools){.capture = o->capture,
                                    .upload = o->upload,
                                    .outage = &ts->outage,
                                    .bell = o->bell,
                                    .trim = &ts->trim,
                                    .readers_wait_ms = READERS_WAIT_MS,
                                    .relaxed = !o->full_sync,
                                    .quiet = true};
    pthread_mutex_init(&ts->keeper_lock, NULL);
    pthread_mutex_init(&ts->configure_lock, NULL);
    pthread_mutex_init(&ts->past_lock, NULL);
    pthread_mutex_init(&ts->places.lock, NULL);
    thr_cond_init(&ts->places.cond);
    ts->places.end = &ts->places.head;
    thr_cond_init(&ts->keeper_poked);
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        pthread_mutex_init(&ts->shards[i].lock, NULL);
        thr_cond_init(&ts->shards[i].changed);
    }
    if (set_up(ts, err) != RC_OK) {
        tear_down(ts);
        return err_wrap(err, "tenants in '%s'", opts->dir);
    }
    *ret_ts = ts;
    return RC_OK;
}

enum rc tenants_free(struct tenants *ts, struct err *err)
{
    if (ts == NULL) return RC_OK;
    thr_lock(&ts->keeper_lock);
    ts->stop = true;
    pthread_cond_signal(&ts->keeper_poked);
    thr_unlock(&ts->keeper_lock);
    atomic_store(&ts->stopping, true);
    pthread_join(ts->keeper, NULL);
    ts->keeper_runs = false;
    enum rc rc = flush_all(ts, err);
    tear_down(ts);
    return rc;
}

void tenants_look(struct tenants *ts, struct tenants_stats *ret)
{
    *ret = (struct tenants_stats){.waiting = atomic_load(&ts->places.count),
                                  .parked = atomic_load(&ts->parked),
                                  .opened = atomic_load(&ts->opened),
                                  .closed = atomic_load(&ts->closed),
                                  .memory = atomic_load(&ts->memory)};
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        struct shard *sh = &ts->shards[i];
        thr_lock(&sh->lock);
        for (const struct slot *s = sh->slots; s != NULL; s = s->next) {
            struct task_place p = {0};
            bool open = s->state == SLOT_OPEN;
            ret->open += open;
            ret->used += open && s->refs > 0;
            ret->draining += s->state == SLOT_DRAINING;
            if (open || s->state == SLOT_DRAINING) slot_place(s, &p);
            if (p.known && p.staged > p.uploaded) ret->behind += p.staged - p.uploaded;
        }
        thr_unlock(&sh->lock);
    }
}

uint64_t tenants_index(struct tenant *t)
{
    struct slot *s = (struct slot *)t;
    struct task *task = s->task;
    return task != NULL ? task_index(task)
                        : s->rest_txid + 1; /* as task_index, when it is asleep */
}

void tenants_wait(struct tenant *t, struct tenant_wait *w)
{
    struct task *task;
    struct err err;
    enum rc rc = slot_task((struct slot *)t, &task, &err);
    if (rc == RC_OK)
        task_wait(task, w);
    else
        w->fn(w, rc, &err);
}

struct shard *tenants_shard(struct tenants *ts, const char *name)
{
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p != '\0'; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    return &ts->shards[(hash ^ hash >> 16) % TENANTS_SHARDS];
}

struct slot *tenants_find(struct shard *sh, const char *name)
{
    struct slot *s = sh->slots;
    while (s != NULL && strcmp(s->t.name, name) != 0)
        s = s->next;
    return s;
}

struct tenant *tenants_peek(struct tenants *ts, const char *name)
{
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&sh->lock);
    struct slot *s = tenants_find(sh, name);
    if (s != NULL && (s->state != SLOT_OPEN || s->wanted || place_door_is_shut(s, NULL))) s = NULL;
    if (s != NULL) s->refs++;
    thr_unlock(&sh->lock);
    return s != NULL ? &s->t : NULL;
}

void tenants_release(struct tenants *ts, struct tenant *t)
{
    struct slot *s = (struct slot *)t;
    struct shard *sh = tenants_shard(ts, t->name);
    int64_t now = os_mono_ms();
    thr_lock(&sh->lock);
    ASSERT(s->refs > 0);
    s->used_ms = now;
    s->trimmed = false;
    bool last = --s->refs == 0;
    bool stale = last && s->stale, call = last && place_is_free_with(s, now);
    if (last && s->wanted) pthread_cond_broadcast(&sh->changed);
    thr_unlock(&sh->lock);
    if (stale) tenants_poke(ts);
    if (call) places_call(ts);
}

enum rc tenants_open(struct tenants *ts, const char *name, struct tenant **ret_t, struct err *err)
{
    return tenants_open_soon(ts, name, NULL, ret_t, err);
}

enum rc tenants_open_soon(struct tenants *ts, const char *name, struct tenant_place *p,
                          struct tenant **ret_t, struct err *err)
{
    struct slot *s = NULL;
    bool called = p != NULL && p->state == TENANT_PLACE_CALLED, begun = false;
    enum rc rc = enter(ts, name, p, &s, &begun, err);
    if (called) places_came(ts, !begun && rc != RC_AGAIN);
    TRY(rc);
    if (begun) TRY(s->task != NULL ? start_slot(s, err) : start_new(s, err));
    *ret_t = &s->t;
    return RC_OK;
}

enum rc tenants_claim(struct tenants *ts, const char *name, struct slot **ret_s, struct err *err)
{
    struct shard *sh = tenants_shard(ts, name);
    int64_t end_ms = os_mono_ms() + TENANTS_CLAIM_MS;
    struct slot *s;
    enum rc rc = RC_OK;
    thr_lock(&sh->lock);
    while (rc == RC_OK && (s = tenants_find(sh, name)) != NULL) {
        if (s->state == SLOT_CLAIMED || s->wanted) {
            rc = busy(err, s);
        } else if (s->state == SLOT_OPEN || s->state == SLOT_DRAINING) {
            s->wanted = true; /* so it stays in this state */
            while (s->refs > 0 && rc == RC_OK)
                if (!thr_wait(&sh->changed, &sh->lock, end_ms) && s->refs > 0)
                    rc = err_set(err, RC_BUSY, "namespace `%s` is in use", name);
            s->wanted = false;
            if (rc != RC_OK) break;
            if (s->state == SLOT_DRAINING) atomic_fetch_sub(&ts->draining, 1);
            s->state = SLOT_CLAIMED;
            thr_unlock(&sh->lock);
            *ret_s = s;
            return RC_OK;
        } else if (!thr_wait(&sh->changed, &sh->lock, end_ms)) {
            rc = err_set(err, RC_BUSY, "namespace `%s` is still being opened or closed", name);
        }
    }
    if (rc == RC_OK) rc = slot_new(ts, name, SLOT_CLAIMED, &s, err);
    if (rc == RC_OK) {
        s->next = sh->slots;
        sh->slots = s;
        *ret_s = s;
    }
    thr_unlock(&sh->lock);
    return rc;
}

void tenants_unclaim(struct slot *s)
{
    tenants_close(s);
}

void tenants_poke(struct tenants *ts)
{
    thr_lock(&ts->keeper_lock);
    ts->poked = true;
    pthread_cond_signal(&ts->keeper_poked);
    thr_unlock(&ts->keeper_lock);
}

void tenants_leave(struct tenants *ts, const char *name, struct slot *s)
{
    struct leftover *l = mem_calloc(1, sizeof *l);
    if (l == NULL) { /* the next start finds it */
        tenants_unclaim(s);
        return;
    }
    snprintf(l->name, sizeof l->name, "%s", name);
    l->forgotten = s;
    thr_lock(&ts->keeper_lock);
    l->next = ts->left;
    ts->left = l;
    thr_unlock(&ts->keeper_lock);
}

/* What it knew of its configuration and its file may be that of before. */
void tenants_begin_log(struct slot *s)
{
    struct err err;
    ASSERT(s->state == SLOT_CLAIMED && s->t.engine == NULL && s->task == NULL);
    atomic_store(&s->t.conf, NULL);
    tenants_conf_free(s->confs);
    s->confs = NULL;
    if (slot_start_task(s, &err) != RC_OK) atomic_fetch_add(&s->ts->parked, 1); /* it has a mark */
}

/* ---- start and end ---- */

static enum rc set_up(struct tenants *ts, struct err *err)
{
    static const char *const folders[FOLDERS] = {"", "/tenants", "/tmp", "/open"};
    char dir[OS_PATH_MAX], path[OS_PATH_MAX + 16];
    struct config_replica replica = {0};
    TRY(os_abspath(ts->opts.dir, dir, err));
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
        dir[n - 1] = '\0';
    if (strlen(dir) > TENANTS_PATH_MAX)
        return err_set(err, RC_INVALID, "the path has more than %d bytes", TENANTS_PATH_MAX);
    ts->embedded = ts->opts.store_url == NULL || ts->opts.store_url[0] == '\0';
    ts->dir = mem_strdup(dir);
    ts->store_url = ts->embedded ? mem_printf("%s/backup", dir) : mem_strdup(ts->opts.store_url);
    if (ts->dir == NULL || ts->store_url == NULL) return err_mem(err, "the tenants");
    for (size_t i = 0; i < FOLDERS; i++) {
        snprintf(path, sizeof path, "%s%s", dir, folders[i]);
        TRY(tenants_mkdir(path, err));
    }
    /* Now, by one thread: first uploads would take a folder for durable that another just makes. */
    snprintf(path, sizeof path, "%s/backup", dir);
    if (ts->embedded) TRY(tenants_mkdir(path, err));
    TRY(take_lock(ts, err));
    snprintf(path, sizeof path, "%s/tenants/x", dir);
    TRY(config_from_args(path, dir, &ts->base, err));
    TRY(tenants_replica(ts, "x", &replica, err));
    config_replica_fini(&replica);
    snprintf(path, sizeof path, "%s/tmp", dir);
    TRY(os_list(path, note_leftover, ts, err));
    TRY(places_start(ts, err));
    TRY(thr_start(&ts->keeper, "tenants", keep_house, ts, err));
    ts->keeper_runs = true;
    return RC_OK;
}

static enum rc take_lock(struct tenants *ts, struct err *err)
{
    char path[OS_PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", ts->dir);
    TRY(os_open(path, O_RDWR | O_CREAT, 0600, &ts->lock_fd, err));
    enum rc rc = os_lock(ts->lock_fd, err);
    if (rc != RC_BUSY) return rc;
    return err_set(err, RC_FENCED,
                   "another server uses this folder; stop it first, or give this "
                   "one a folder of its own");
}

/* What is being deleted with its log is not to be had under its name before that is done. */
static enum rc note_leftover(void *ctx, const char *name, struct err *err)
{
    struct tenants *ts = ctx;
    struct leftover *l = mem_calloc(1, sizeof *l);
    if (l == NULL) return err_mem(err, "what a crash has left");
    l->next = ts->leftovers;
    ts->leftovers = l;
    snprintf(l->name, sizeof l->name, "%s", name);
    const char *dot = strrchr(name, '.');
    size_t prefix = strlen(TENANTS_FORGET);
    if (strncmp(name, TENANTS_FORGET, prefix) != 0 || dot < name + prefix) return RC_OK;
    char tenant[sizeof l->name];
    struct err ignored;
    snprintf(tenant, sizeof tenant, "%.*s", (int)(dot - name - (ptrdiff_t)prefix), name + prefix);
    if (tenants_check_name(tenant, false, &ignored) != RC_OK) return RC_OK;
    enum rc rc = tenants_claim(ts, tenant, &l->forgotten, err);
    return rc == RC_BUSY ? RC_OK : rc; /* twice the same name: one is enough */
}

/* All at once: each is told by its own task. */
static enum rc flush_all(struct tenants *ts, struct err *err)
{
    int64_t end_ms = os_mono_ms() + ts->opts.flush_ms;
    const char *missing = NULL;
    size_t left = 0;
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        for (struct slot *s = ts->shards[i].slots; s != NULL; s = s->next) {
            ASSERT(s->refs == 0);
            slot_close_engine(s);
            slot_end_rest(s);
            if (s->task != NULL) begin_drain(s);
        }
    }
    do {
        bool hurry = ts->opts.cancel != NULL && atomic_load(ts->opts.cancel);
        left = 0;
        for (int i = 0; i < TENANTS_SHARDS; i++) {
            for (struct slot *s = ts->shards[i].slots; s != NULL; s = s->next) {
                if (s->task == NULL) continue;
                thr_lock(&ts->shards[i].lock);
                slot_drain(s);
                bool done = s->drain_done;
                thr_unlock(&ts->shards[i].lock);
                if (!done) left++, missing = s->t.name;
                if (hurry) atomic_store(&s->cancel, true);
            }
        }
        if (left == 0) return RC_OK;
        if (hurry) break;
        os_sleep_ms(FLUSH_LOOK_MS);
    } while (os_mono_ms() < end_ms);
    return err_set(err, RC_CANCELED,
                   "the store has not got all of the logs of %zu namespaces, `%s` among them; the "
                   "next start goes on with them",
                   left, missing);
}

static void tear_down(struct tenants *ts)
{
    places_stop(ts);
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        struct shard *sh = &ts->shards[i];
        for (struct slot *s; (s = sh->slots) != NULL; slot_free(s)) {
            sh->slots = s->next;
            slot_close_engine(s);
            slot_end_task(s, s->drain_done);
        }
        pthread_mutex_destroy(&sh->lock);
        pthread_cond_destroy(&sh->changed);
    }
    for (struct leftover *l; (l = ts->leftovers) != NULL; mem_free(l))
        ts->leftovers = l->next;
    for (struct leftover *l; (l = ts->left) != NULL; mem_free(l))
        ts->left = l->next;
    if (ts->opts.capture != NULL) sched_drop(ts->opts.capture, &ts->trim);
    pthread_mutex_destroy(&ts->keeper_lock);
    pthread_mutex_destroy(&ts->configure_lock);
    pthread_mutex_destroy(&ts->past_lock);
    pthread_mutex_destroy(&ts->places.lock);
    pthread_cond_destroy(&ts->places.cond);
    pthread_cond_destroy(&ts->keeper_poked);
    config_free(ts->base);
    os_close(ts->lock_fd);
    mem_free(ts->dir);
    mem_free(ts->store_url);
    mem_free(ts);
}

/* ---- states ---- */

/* *ret_s: open, and counted for the caller; or begun: with a place, and to be started by it. The
 * place comes first, so that nobody waits for a tenant whose start waits for a place. */
static enum rc enter(struct tenants *ts, const char *name, struct tenant_place *p,
                     struct slot **ret_s, bool *ret_begun, struct err *err)
{
    bool there = strcmp(name, TENANT_DEFAULT) == 0, begun = false;
    TRY(tenants_check_name(name, false, err));
    enum rc rc = enter_table(ts, name, p, NULL, ret_s, err);
    if (rc == RC_NOT_FOUND) {
        if (!there) TRY(tenants_exists(ts, name, &there, err));
        if (!there) return tenants_no_such(err, name);
        TRY(place_take(ts, name, p, err));
        rc = enter_table(ts, name, p, &begun, ret_s, err);
        if (!begun) place_give(ts);
    }
    *ret_begun = begun;
    return rc == RC_AGAIN ? place_wait(ts, name, p, err) : rc;
}

/* ret_begun NULL: there is no place. Fails: RC_NOT_FOUND it is not open; RC_AGAIN its door is shut;
 * RC_BUSY; RC_NO_MEM. */
static enum rc enter_table(struct tenants *ts, const char *name, const struct tenant_place *p,
                           bool *ret_begun, struct slot **ret_s, struct err *err)
{
    struct shard *sh = tenants_shard(ts, name);
    int64_t end_ms = os_mono_ms() + OPEN_WAIT_MS;
    enum rc rc = RC_OK;
    bool wait = true, begin = false;
    struct slot *s = NULL;
    thr_lock(&sh->lock);
    while (rc == RC_OK && wait) {
        s = tenants_find(sh, name);
        wait = s != NULL && s->state != SLOT_OPEN && s->state != SLOT_DRAINING;
        begin = s == NULL || s->state == SLOT_DRAINING;
        if (s != NULL && (s->state == SLOT_CLAIMED || s->wanted))
            rc = busy(err, s);
        else if (wait && !thr_wait(&sh->changed, &sh->lock, end_ms))
            rc = err_set(err, RC_BUSY, "namespace `%s` is still being opened or closed", name);
        else if (begin && ret_begun == NULL)
            rc = err_set(err, RC_NOT_FOUND, "namespace `%s` is not open", name);
        else if (!begin && !wait && p != NULL && place_door_is_shut(s, p))
            rc = err_set(err, RC_AGAIN, "namespace `%s` lets others have its place", name);
    }
    if (rc == RC_OK && !begin) s->refs++;
    if (rc == RC_OK && begin) rc = begin_start(ts, sh, name, &s, err);
    thr_unlock(&sh->lock);
    if (rc != RC_OK) return rc;
    if (begin) *ret_begun = true;
    *ret_s = s;
    return RC_OK;
}

/* Under the shard's lock: *s is drained, or NULL; it has a place now. */
static enum rc begin_start(struct tenants *ts, struct shard *sh, const char *name, struct slot **s,
                           struct err *err)
{
    if (*s != NULL) {
        (*s)->state = SLOT_OPENING;
        atomic_fetch_sub(&ts->draining, 1);
    } else {
        TRY(slot_new(ts, name, SLOT_OPENING, s, err));
        (*s)->next = sh->slots;
        sh->slots = *s;
    }
    (*s)->counted = true;
    return RC_OK;
}

static enum rc busy(struct err *err, const struct slot *s)
{
    return err_set(err, RC_BUSY, "namespace `%s` is being made, replaced or deleted", s->t.name);
}

static enum rc start_new(struct slot *s, struct err *err)
{
    bool there = false;
    enum rc rc = tenants_exists(s->ts, s->t.name, &there, err);
    if (rc == RC_OK && !there)
        rc = strcmp(s->t.name, TENANT_DEFAULT) == 0 ? make_default(s, err)
                                                    : tenants_no_such(err, s->t.name);
    if (rc == RC_OK) return start_slot(s, err);
    slot_give_place(s);
    drop_slot(s);
    return rc;
}

static enum rc make_default(struct slot *s, struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char tmp[OS_PATH_MAX];
    TRY(tenants_conf_new(NULL, os_now_ms(), &c, err));
    TRY(tenants_build(s->ts, c, tmp, err));
    return tenants_put_in_place(s->ts, tmp, s->t.name, err);
}

static enum rc start_slot(struct slot *s, struct err *err)
{
    struct shard *sh = tenants_shard(s->ts, s->t.name);
    enum rc rc = slot_start(s, err);
    if (rc != RC_OK) {
        tenants_unclaim(s);
        return rc;
    }
    thr_lock(&sh->lock);
    s->state = SLOT_OPEN;
    s->refs = 1;
    s->used_ms = s->opened_ms = os_mono_ms();
    s->check_ms = s->opened_ms + s->ts->opts.rest_ms;
    s->shut_until_ms = s->alone_until_ms = 0;
    s->trimmed = false;
    pthread_cond_broadcast(&sh->changed);
    thr_unlock(&sh->lock);
    places_call_for(s->ts, s->t.name);
    return RC_OK;
}

void tenants_close(struct slot *s)
{
    slot_close_engine(s);
    slot_end_rest(s);
    if (s->task != NULL)
        begin_drain(s);
    else
        drop_slot(s);
}

static void begin_drain(struct slot *s)
{
    struct tenants *ts = s->ts;
    struct shard *sh = tenants_shard(ts, s->t.name);
    thr_lock(&sh->lock);
    s->state = SLOT_DRAINING;
    s->drain_epoch++;
    s->drain_done = false;
    s->drain_ms = os_mono_ms();
    atomic_fetch_add(&ts->draining, 1);
    slot_drain(s);
    pthread_cond_broadcast(&sh->changed);
    thr_unlock(&sh->lock);
}

/* In SLOT_FREEING. */
static void end_slot(struct slot *s, bool whole)
{
    if (!whole) {
        log_warn("closed, and its log has not all of it yet; tried again later", "namespace",
                 s->t.name);
        s->ts->parked_now++;
    }
    slot_end_task(s, whole);
    drop_slot(s);
}

static void drop_slot(struct slot *s)
{
    struct shard *sh = tenants_shard(s->ts, s->t.name);
    thr_lock(&sh->lock);
    struct slot **at = &sh->slots;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    pthread_cond_broadcast(&sh->changed);
    thr_unlock(&sh->lock);
    slot_free(s);
}

/* ---- the housekeeper ---- */

static void *keep_house(void *arg)
{
    struct tenants *ts = arg;
    keep_leftovers(ts);
    thr_lock(&ts->keeper_lock);
    while (!ts->stop) {
        ts->poked = false;
        thr_unlock(&ts->keeper_lock);
        int64_t next_ms = keep_slots(ts);
        thr_lock(&ts->keeper_lock);
        while (!ts->poked && !ts->stop && os_mono_ms() < next_ms)
            thr_wait(&ts->keeper_poked, &ts->keeper_lock, next_ms);
    }
    thr_unlock(&ts->keeper_lock);
    return NULL;
}

static int64_t keep_slots(struct tenants *ts)
{
    struct picked to_close = {0}, to_trim = {0}, to_end = {0};
    struct err ignored;
    int64_t now = os_mono_ms();
    pick(ts, now, &to_close, &to_trim, &to_end);
    for (size_t i = 0; i < to_close.count; i++)
        tenants_close(to_close.slots[i]);
    for (size_t i = 0; i < to_trim.count; i++) {
        sql_engine_trim(to_trim.slots[i]->t.engine);
        unpin(to_trim.slots[i]);
    }
    for (size_t i = 0; i < to_end.count; i++)
        end_slot(to_end.slots[i], to_end.slots[i]->drain_done);
    bool more = check_rests(ts, now);
    if (more || to_close.count == PICK_MAX || to_trim.count == PICK_MAX || to_end.count == PICK_MAX)
        return now;
    if (to_trim.count > 0) (void)!sched_wake(ts->opts.capture, &ts->trim, now + TICK_MS, &ignored);
    keep_memory(ts, now);
    keep_parked(ts, now);
    if (now >= ts->leftovers_ms) keep_leftovers(ts);
    int64_t tick_ms = ts->opts.idle_close_ms / 4;
    if (tick_ms > ts->opts.rest_ms / 4) tick_ms = ts->opts.rest_ms / 4;
    if (tick_ms > TICK_MS) tick_ms = TICK_MS;
    return now + (tick_ms < TICK_MIN_MS ? TICK_MIN_MS : tick_ms);
}

static void pick(struct tenants *ts, int64_t now, struct picked *to_close, struct picked *to_trim,
                 struct picked *to_end)
{
    bool hurry = ts->opts.cancel != NULL && atomic_load(ts->opts.cancel);
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        struct shard *sh = &ts->shards[i];
        thr_lock(&sh->lock);
        for (struct slot *s = sh->slots; s != NULL; s = s->next) {
            if (hurry) atomic_store(&s->cancel, true);
            if (s->wanted) continue;
            if (s->state == SLOT_OPEN && s->refs == 0) pick_open(s, now, to_close, to_trim);
            if (s->state == SLOT_DRAINING) pick_draining(s, now, to_end);
        }
        thr_unlock(&sh->lock);
    }
}

static void pick_open(struct slot *s, int64_t now, struct picked *to_close, struct picked *to_trim)
{
    int64_t idle_ms = now - s->used_ms;
    if (s->stale || idle_ms >= s->ts->opts.idle_close_ms) {
        if (to_close->count == PICK_MAX) return;
        s->state = SLOT_CLOSING;
        to_close->slots[to_close->count++] = s;
    } else if (!s->trimmed && idle_ms >= TRIM_MS) {
        if (to_trim->count == PICK_MAX) return;
        s->trimmed = true;
        s->refs++;
        to_trim->slots[to_trim->count++] = s;
    }
}

/* A log that takes long is no reason to give up, a store that fails is. */
static void pick_draining(struct slot *s, int64_t now, struct picked *to_end)
{
    struct task_place p;
    task_place(s->task, &p);
    bool over = s->drain_done || (p.failing && now - s->drain_ms >= PARK_MS);
    if (!over) {
        slot_drain(s);
    } else if (to_end->count < PICK_MAX) {
        s->state = SLOT_FREEING;
        atomic_fetch_sub(&s->ts->draining, 1);
        to_end->slots[to_end->count++] = s;
    }
}

/* A task would see at once what other programs write. True: there may be more of them. */
static bool check_rests(struct tenants *ts, int64_t now)
{
    struct picked p = {0};
    for (int i = 0; i < TENANTS_SHARDS; i++) {
        struct shard *sh = &ts->shards[i];
        thr_lock(&sh->lock);
        for (struct slot *s = sh->slots; s != NULL && p.count < PICK_MAX; s = s->next) {
            if (s->state != SLOT_OPEN || s->wanted || now < s->check_ms || !slot_rests(s)) continue;
            s->check_ms = now + ts->opts.rest_ms;
            s->refs++;
            p.slots[p.count++] = s;
        }
        thr_unlock(&sh->lock);
    }
    for (size_t i = 0; i < p.count; i++) {
        struct err err;
        if (slot_check_rest(p.slots[i], &err) != RC_OK)
            log_warn("others write to it, and its log cannot follow; tried again later",
                     "namespace", p.slots[i]->t.name, "error", err.text);
        unpin(p.slots[i]);
    }
    return p.count == PICK_MAX;
}

/* As a release, but it was not in use. */
static void unpin(struct slot *s)
{
    struct shard *sh = tenants_shard(s->ts, s->t.name);
    thr_lock(&sh->lock);
    if (--s->refs == 0 && s->wanted) pthread_cond_broadcast(&sh->changed);
    thr_unlock(&sh->lock);
}

/* What the caches hold, and less of it when it is too much: first of those who rest a little. */
static void keep_memory(struct tenants *ts, int64_t now)
{
    if (now < ts->memory_ms) return;
    ts->memory_ms = now + MEMORY_MS;
    int64_t bytes = 0, max = ts->opts.cache_kib * 1024;
    struct picked to_trim = {0};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < TENANTS_SHARDS; i++) {
            struct shard *sh = &ts->shards[i];
            thr_lock(&sh->lock);
            for (struct slot *s = sh->slots; s != NULL; s = s->next) {
                struct sql_engine_stats st;
                if (s->state != SLOT_OPEN) continue;
                if (round == 0) {
                    sql_engine_look(s->t.engine, &st);
                    bytes += st.memory;
                } else if (!s->trimmed && to_trim.count < PICK_MAX &&
                           now - s->used_ms >= (bytes > 2 * max ? 0 : TICK_MS)) {
                    s->trimmed = true;
                    s->refs++;
                    to_trim.slots[to_trim.count++] = s;
                }
            }
            thr_unlock(&sh->lock);
        }
        atomic_store(&ts->memory, bytes);
        if (bytes <= max) return;
    }
    for (size_t i = 0; i < to_trim.count; i++) {
        sql_engine_trim(to_trim.slots[i]->t.engine);
        unpin(to_trim.slots[i]);
    }
    ts->memory_ms = now; /* look again */
    struct err ignored;
    (void)!sched_wake(ts->opts.capture, &ts->trim, now + TICK_MS, &ignored);
}

/*
 * Marks without a tenant in the table are of those that were parked, or open at a crash: open some,
 * and let them be closed again. If the last ones were parked, the store is away.
 */
static void keep_parked(struct tenants *ts, int64_t now)
{
    char path[OS_PATH_MAX];
    struct err err;
    if (now < ts->parked_ms) return;
    ts->parked_ms = now + (ts->parked_now > 0 ? PARKED_LOOK_MS : TICK_MS);
    if (ts->parked_known && atomic_load(&ts->parked) == 0) return;
    ts->parked_known = true;
    if (ts->parked_now > 0) {
        ts->parked_now = 0;
        return; /* not at once */
    }
    ts->parked_opened = 0;
    atomic_store(&ts->parked, 0);
    snprintf(path, sizeof path, "%s/open", ts->dir);
    if (os_list(path, open_parked, ts, &err) != RC_OK)
        log_warn("look for parked logs", "error", err.text);
}

static enum rc open_parked(void *ctx, const char *name, struct err *err)
{
    struct tenants *ts = ctx;
    struct tenant *t;
    bool there = false;
    char mark[OS_PATH_MAX];
    if (atomic_load(&ts->stopping)) return RC_OK;
    if (tenants_check_name(name, false, err) != RC_OK) return RC_OK;
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&sh->lock);
    bool known = tenants_find(sh, name) != NULL;
    thr_unlock(&sh->lock);
    if (known) return RC_OK;
    atomic_fetch_add(&ts->parked, 1);
    if (ts->parked_opened >= PARKED_AT_ONCE ||
        atomic_load(&ts->open) + atomic_load(&ts->draining) >= (ts->opts.open_max + 1) / 2)
        return RC_OK;
    ts->parked_opened++;
    if (tenants_open(ts, name, &t, err) == RC_OK) {
        thr_lock(&sh->lock);
        ((struct slot *)t)->stale = true; /* closed as soon as nobody else uses it */
        thr_unlock(&sh->lock);
        tenants_release(ts, t);
        atomic_fetch_sub(&ts->parked, 1);
        return RC_OK;
    }
    if (err->rc == RC_NOT_FOUND && tenants_exists(ts, name, &there, err) == RC_OK && !there) {
        tenants_path(ts, name, TENANT_MARK, mark);
        if (os_unlink(mark, err) == RC_OK) atomic_fetch_sub(&ts->parked, 1);
    }
    return RC_OK;
}

/* One that cannot be deleted stays in the list, and in the way of its name. */
static void keep_leftovers(struct tenants *ts)
{
    char path[OS_PATH_MAX + 256];
    struct err err;
    struct leftover *again = NULL, **tail = &ts->leftovers;
    ts->leftovers_ms = os_mono_ms() + PARKED_LOOK_MS;
    while (*tail != NULL)
        tail = &(*tail)->next;
    thr_lock(&ts->keeper_lock);
    *tail = ts->left;
    ts->left = NULL;
    thr_unlock(&ts->keeper_lock);
    for (struct leftover *l; (l = ts->leftovers) != NULL && !atomic_load(&ts->stopping);) {
        enum rc rc = RC_OK;
        ts->leftovers = l->next;
        snprintf(path, sizeof path, "%s/tmp/%s", ts->dir, l->name);
        if (l->forgotten != NULL) rc = tenants_delete_log(ts, l->forgotten->t.name, &err);
        if (rc == RC_OK) rc = tenants_delete_tree(path, &err);
        if (rc != RC_OK) {
            log_warn("delete what is left of a namespace", "path", path, "error", err.text);
            l->next = again;
            again = l;
            continue;
        }
        if (l->forgotten != NULL) tenants_unclaim(l->forgotten);
        mem_free(l);
    }
    for (struct leftover *l; (l = again) != NULL; ts->leftovers = l) {
        again = l->next;
        l->next = ts->leftovers;
    }
}

static int64_t run_trim(struct sched_job *job, void *worker)
{
    (void)job, (void)worker;
    mem_trim();
    return SCHED_NEVER;
}
