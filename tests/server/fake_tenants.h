/* fake_tenants.h -- tenants in a folder that goes with them: real engines, but no log. What the
 * store says is up to the test. Include after cmocka.h. */
#ifndef TESTS_SERVER_FAKE_TENANTS_H
#define TESTS_SERVER_FAKE_TENANTS_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "db/source.h"
#include "server/tenant.h"

#define FAKE_MAX   3
#define FAKE_WAITS 32
enum fake_full { FULL_NOT, FULL_WAITS, FULL_TOO_LONG };
enum fake_store { STORE_HAS_ALL, STORE_FAILS, STORE_SLEEPS };

struct fake {
    struct tenant t;
    struct tenants *ts;
    unsigned refs; /* [lock] */
    _Atomic uint64_t commits;
};
struct tenants {
    char dir[64];
    struct sched *pool;
    pthread_mutex_t lock;
    struct fake list[FAKE_MAX];
    size_t count;
    struct sql_engine_opts engine; /* for those that are opened from now on */
    struct tenant_conf conf, sync_conf;
    atomic_int store;
    atomic_bool hide;                        /* peek finds nothing */
    atomic_bool hang;                        /* to open "a" does not end */
    atomic_int full;                         /* who wants one that is not open waits for a place */
    struct tenant_place *places[FAKE_WAITS]; /* [lock] who waits for one */
    size_t place_count;
    struct tenant_wait *waits[FAKE_WAITS]; /* [lock] while the store sleeps */
    size_t wait_count, waited;
};

static inline void fake_committed(void *ctx)
{
    struct fake *f = ctx;
    atomic_fetch_add(&f->commits, 1);
}

static inline struct fake *fake_find(struct tenants *ts, const char *name)
{
    for (size_t i = 0; i < ts->count; i++)
        if (strcmp(ts->list[i].t.name, name) == 0) return &ts->list[i];
    return NULL;
}

static inline enum rc fake_make(struct tenants *ts, const char *name, struct err *err)
{
    char path[160];
    struct fake *f = &ts->list[ts->count];
    struct sql_engine_opts opts = ts->engine;
    assert_true(ts->count < FAKE_MAX);
    *f = (struct fake){.ts = ts};
    snprintf(f->t.name, sizeof f->t.name, "%s", name);
    snprintf(path, sizeof path, "%s/%s.db", ts->dir, name);
    opts.conn.path = path;
    opts.conn.foreign_keys = true;
    opts.pool = ts->pool;
    opts.committed = fake_committed;
    opts.ctx = f;
    TRY(sql_engine_open(&opts, &f->t.engine, err));
    atomic_store(&f->t.conf, &ts->conf);
    ts->count++;
    return RC_OK;
}

static inline enum rc fake_open(struct tenants *ts, const char *name, struct tenant **ret_t,
                                struct err *err)
{
    enum rc rc = RC_OK;
    if (strcmp(name, "missing") == 0) return err_set(err, RC_NOT_FOUND, "not there");
    if (strcmp(name, "busy") == 0) return err_set(err, RC_BUSY, "it is being replaced");
    if (strcmp(name, "broken") == 0) return err_set(err, RC_IO, "the disk is broken");
    thr_lock(&ts->lock);
    struct fake *f = fake_find(ts, name);
    if (f == NULL) {
        rc = fake_make(ts, name, err);
        f = fake_find(ts, name);
    }
    if (rc == RC_OK) {
        f->refs++;
        *ret_t = &f->t;
    }
    thr_unlock(&ts->lock);
    return rc;
}

static inline enum rc fake_open_soon(struct tenants *ts, const char *name, struct tenant_place *p,
                                     struct tenant **ret_t, struct err *err)
{
    while (atomic_load(&ts->hang) && strcmp(name, "a") == 0)
        os_sleep_ms(1);
    if (p->gone != NULL && atomic_load(p->gone))
        return err_set(err, RC_CANCELED, "the client has gone");
    int full = atomic_load(&ts->full);
    if (full == FULL_TOO_LONG) return err_set(err, RC_BUSY, "too many are in use");
    if (full == FULL_NOT) return fake_open(ts, name, ret_t, err);
    thr_lock(&ts->lock);
    ASSERT(ts->place_count < FAKE_WAITS);
    ts->places[ts->place_count++] = p;
    thr_unlock(&ts->lock);
    return err_set(err, RC_AGAIN, "it waits");
}

/* Those that wait for a place; they ask again. */
static inline size_t fake_placeless(struct tenants *ts)
{
    thr_lock(&ts->lock);
    size_t count = ts->place_count;
    thr_unlock(&ts->lock);
    return count;
}

static inline void fake_call(struct tenants *ts, enum fake_full full)
{
    struct tenant_place *list[FAKE_WAITS];
    atomic_store(&ts->full, full);
    thr_lock(&ts->lock);
    size_t count = ts->place_count;
    memcpy(list, ts->places, sizeof list);
    ts->place_count = 0;
    thr_unlock(&ts->lock);
    for (size_t i = 0; i < count; i++)
        list[i]->fn(list[i]);
}

static inline struct tenant *fake_peek(struct tenants *ts, const char *name)
{
    thr_lock(&ts->lock);
    struct fake *f = atomic_load(&ts->hide) ? NULL : fake_find(ts, name);
    if (f != NULL) f->refs++;
    thr_unlock(&ts->lock);
    return f != NULL ? &f->t : NULL;
}

static inline void fake_release(struct tenants *ts, struct tenant *t)
{
    struct fake *f = (struct fake *)t;
    thr_lock(&ts->lock);
    ASSERT(f->refs > 0);
    f->refs--;
    thr_unlock(&ts->lock);
}

static uint64_t fake_index(struct tenant *t)
{
    return atomic_load(&((struct fake *)t)->commits);
}

static inline void fake_wait(struct tenant *t, struct tenant_wait *w)
{
    struct tenants *ts = ((struct fake *)t)->ts;
    struct err err;
    w->txid = fake_index(t);
    thr_lock(&ts->lock);
    ts->waited++;
    int how = atomic_load(&ts->store);
    if (how == STORE_SLEEPS) {
        ASSERT(ts->wait_count < FAKE_WAITS);
        ts->waits[ts->wait_count++] = w;
    }
    thr_unlock(&ts->lock);
    if (how == STORE_HAS_ALL) w->fn(w, RC_OK, NULL);
    if (how == STORE_FAILS) {
        err_set(&err, RC_AGAIN, "the store is away");
        w->fn(w, RC_AGAIN, &err);
    }
}

/* Do commits wait for the store? */
static inline void fake_sync(struct tenants *ts, bool on)
{
    thr_lock(&ts->lock);
    for (size_t i = 0; i < ts->count; i++)
        atomic_store(&ts->list[i].t.conf, on ? &ts->sync_conf : &ts->conf);
    thr_unlock(&ts->lock);
}

/* How many wait for the store; how many have done so. */
static inline size_t fake_waiting(struct tenants *ts)
{
    thr_lock(&ts->lock);
    size_t count = ts->wait_count;
    thr_unlock(&ts->lock);
    return count;
}

static inline size_t fake_waited(struct tenants *ts)
{
    thr_lock(&ts->lock);
    size_t count = ts->waited;
    thr_unlock(&ts->lock);
    return count;
}

/* Let those go who wait for the store. */
static inline size_t fake_wake(struct tenants *ts)
{
    struct tenant_wait *list[FAKE_WAITS];
    thr_lock(&ts->lock);
    size_t count = ts->wait_count;
    memcpy(list, ts->waits, sizeof list);
    ts->wait_count = 0;
    thr_unlock(&ts->lock);
    for (size_t i = 0; i < count; i++)
        list[i]->fn(list[i], RC_OK, NULL);
    return count;
}

static uint64_t fake_commits(struct tenants *ts, const char *name)
{
    (void)ts, (void)name;
    return 0;
}

static const struct tenants_ops fake_ops = {.open = fake_open,
                                            .open_wait = fake_open,
                                            .open_soon = fake_open_soon,
                                            .peek = fake_peek,
                                            .release = fake_release,
                                            .index = fake_index,
                                            .wait = fake_wait,
                                            .commits = fake_commits};

static inline struct tenants *fake_new(void)
{
    static bool ready;
    struct err err;
    if (!ready) source_global_init();
    ready = true;
    struct tenants *ts = calloc(1, sizeof *ts);
    assert_non_null(ts);
    snprintf(ts->dir, sizeof ts->dir, "/tmp/sluice-serve-XXXXXX");
    assert_non_null(mkdtemp(ts->dir));
    ts->conf.block_reason = "";
    ts->sync_conf = (struct tenant_conf){.sync = true, .block_reason = ""};
    pthread_mutex_init(&ts->lock, NULL);
    assert_int_equal(sched_new("write", 2, NULL, NULL, &ts->pool, &err), RC_OK);
    return ts;
}

/* Nobody may hold one any more, no connection may be out. */
static inline void fake_free(struct tenants *ts)
{
    char command[128];
    for (size_t i = 0; i < ts->count; i++) {
        struct sql_engine_stats stats;
        if (ts->list[i].refs != 0)
            fail_msg("'%s' is counted %u times still", ts->list[i].t.name, ts->list[i].refs);
        sql_engine_look(ts->list[i].t.engine, &stats);
        assert_int_equal(stats.conns_used, 0);
        assert_int_equal(stats.writer.waiting, 0);
        sql_engine_close(ts->list[i].t.engine);
    }
    sched_free(ts->pool);
    pthread_mutex_destroy(&ts->lock);
    snprintf(command, sizeof command, "rm -rf '%s'", ts->dir);
    assert_int_equal(system(command), 0);
    free(ts);
}
#endif
