/* tenants_past.c -- logs of tenants, and what is made from them; see tenants_intern.h. */
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/image.h"
#include "log/restore.h"
#include "node/tenants_intern.h"

#define DEL_KEYS_MAX 500 /* keys deleted in one request */

struct keys {
    struct store *store;
    const struct call *call;
    struct buf texts; /* each ends in 0 */
    size_t count;
};

static enum rc open_log(const struct tenants *ts, const char *name, struct store **ret_store,
                        struct err *err);
static enum rc take_key(void *ctx, const struct store_obj *obj, struct err *err);
static enum rc del_keys(struct keys *k, struct err *err);
static enum rc flush_log(struct tenants *ts, const char *name, struct err *err);
static enum rc log_is_whole(struct tenants *ts, const char *name, bool *ret_yes, struct err *err);
static enum rc restore_at(struct tenants *ts, const char *name, const struct tenant_at *at,
                          const char *path, struct err *err);
static enum rc restore_to(struct tenants *ts, const char *name, const struct tenant_at *at,
                          int64_t since_ms, const char *path, struct err *err);
static enum rc newest_at(const struct log *lg, const struct call *c, int64_t time_ms,
                         uint64_t *ret_txid, struct err *err);
static enum rc fork_into(struct tenants *ts, const char *from, const char *to, bool there,
                         const struct tenant_at *at, const char *tmp, struct err *err);
static enum rc build_fork(struct tenants *ts, const char *from, const char *to, bool there,
                          const struct tenant_at *at, struct err *err);
static enum rc swap(struct slot *s, const char *restored, struct err *err);

/* The name becomes the last part of the path, in front of a query. The name of a folder may hold a
 * '?'. */
enum rc tenants_replica(const struct tenants *ts, const char *name, struct config_replica *ret_r,
                        struct err *err)
{
    const char *url = ts->store_url;
    bool folder = !config_is_url(url) || strncmp(url, "file:", 5) == 0;
    size_t size = folder ? strlen(url) : strcspn(url, "?");
    const char *query = url + size;
    while (size > 1 && url[size - 1] == '/' &&
           !(size >= 3 && url[size - 2] == '/' && url[size - 3] == ':'))
        size--;
    bool bare = size >= 3 && url[size - 1] == '/'; /* "mem://" */
    CLEANUP(mem_freep)
    char *full = mem_printf("%.*s%s%s%s", (int)size, url, bare ? "" : "/", name, query);
    if (full == NULL) return err_mem(err, "the URL of a log");
    return config_replica_from_url(full, ret_r, err);
}

enum rc tenants_delete_log(const struct tenants *ts, const char *name, struct err *err)
{
    struct call c = {.cancel = &ts->stopping, .deadline_ms = os_mono_ms() + TENANTS_STORE_MS};
    if (ts->embedded) {
        CLEANUP(mem_freep) char *path = mem_printf("%s/%s", ts->store_url, name);
        if (path == NULL) return err_mem(err, "a path");
        TRY(tenants_delete_tree(path, err));
        /* What asked for this is deleted next; without it the log must not come back. */
        enum rc rc = os_fsync_dir(ts->store_url, err);
        return rc == RC_NOT_FOUND ? RC_OK : rc; /* there is no log yet */
    }
    struct keys k = {.call = &c};
    TRY(open_log(ts, name, &k.store, err));
    enum rc rc = store_list(k.store, &c, "", NULL, take_key, &k, err);
    if (rc == RC_OK) rc = del_keys(&k, err);
    buf_fini(&k.texts);
    store_close(k.store);
    return rc == RC_OK ? rc : err_wrap(err, "delete the log of namespace `%s`", name);
}

enum rc tenants_fork(struct tenants *ts, const char *from, const char *to,
                     const struct tenant_at *at, struct err *err)
{
    struct slot *s;
    bool there = false, taken = false;
    TRY(tenants_check_name(from, false, err));
    TRY(tenants_check_name(to, true, err));
    TRY(tenants_exists(ts, from, &there, err));
    TRY(tenants_exists(ts, to, &taken, err));
    if (taken || strcmp(from, to) == 0)
        return err_set(err, RC_CONFLICT, "Namespace `%s` already exists", to);
    TRY(tenants_claim(ts, to, &s, err));
    enum rc rc = build_fork(ts, from, to, there, at, err);
    if (rc == RC_OK) tenants_begin_log(s);
    tenants_unclaim(s);
    return rc == RC_OK ? rc : err_wrap(err, "fork of namespace `%s`", from);
}

/*
 *   the log gets all that is committed    so what is now can be had again
 *   restore the moment into DIR/tmp
 *   have the tenant for oneself, and let the log have the rest
 *   copy the WAL into the old file, delete it    an old -wal must never stand beside a new file
 *   rename the restored file over the old one    a crash before: the old state, after: the new
 *   begin its log: capture compares, and writes what differs as one transaction
 */
enum rc tenants_rewind(struct tenants *ts, const char *name, const struct tenant_at *at,
                       struct err *err)
{
    char tmp[OS_PATH_MAX], data[OS_PATH_MAX + 8];
    bool there = false;
    struct slot *s;
    struct err ignored;
    TRY(tenants_check_name(name, false, err));
    if (at == NULL || (at->txid == 0 && at->time_ms == 0)) return RC_OK; /* now: it is there */
    TRY(tenants_exists(ts, name, &there, err));
    if (!there) return tenants_no_such(err, name);
    TRY(flush_log(ts, name, err));
    tenants_tmp(ts, "", tmp);
    TRY(tenants_mkdir(tmp, err));
    snprintf(data, sizeof data, "%s/data", tmp);
    enum rc rc = restore_at(ts, name, at, data, err);
    if (rc == RC_OK) rc = tenants_claim_old(ts, name, &s, err);
    if (rc == RC_OK) {
        rc = swap(s, data, err);
        if (rc == RC_OK) tenants_begin_log(s);
        tenants_unclaim(s);
    }
    (void)!tenants_delete_tree(tmp, &ignored);
    return rc == RC_OK ? rc : err_wrap(err, "rewind namespace `%s`", name);
}

static enum rc open_log(const struct tenants *ts, const char *name, struct store **ret_store,
                        struct err *err)
{
    struct config_replica r = {0};
    TRY(tenants_replica(ts, name, &r, err));
    enum rc rc = config_replica_open(&r, ret_store, err);
    config_replica_fini(&r);
    return rc;
}

static enum rc take_key(void *ctx, const struct store_obj *obj, struct err *err)
{
    struct keys *k = ctx;
    TRY(buf_append(&k->texts, obj->key, strlen(obj->key) + 1, err));
    k->count++;
    return RC_OK;
}

static enum rc del_keys(struct keys *k, struct err *err)
{
    const char *keys[DEL_KEYS_MAX], *at = (const char *)k->texts.data;
    while (k->count > 0) {
        size_t n = 0;
        for (; n < DEL_KEYS_MAX && n < k->count; n++, at += strlen(at) + 1)
            keys[n] = at;
        TRY(store_del(k->store, k->call, keys, n, err));
        k->count -= n;
    }
    return RC_OK;
}

/* Let its log have all that is committed. */
static enum rc flush_log(struct tenants *ts, const char *name, struct err *err)
{
    struct tenant *t;
    bool whole = false;
    TRY(log_is_whole(ts, name, &whole, err));
    if (whole) return RC_OK;
    TRY(tenants_open_wait(ts, name, &t, err));
    enum rc rc = slot_wait_stored((struct slot *)t, os_mono_ms() + TENANTS_STORE_MS, NULL, err);
    tenants_release(ts, t);
    return rc;
}

/* Of one that is closed and has no mark: it need not be opened for that, which takes a place. */
static enum rc log_is_whole(struct tenants *ts, const char *name, bool *ret_yes, struct err *err)
{
    char mark[OS_PATH_MAX];
    struct stat st;
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&sh->lock);
    bool known = tenants_find(sh, name) != NULL;
    thr_unlock(&sh->lock);
    tenants_path(ts, name, TENANT_MARK, mark);
    enum rc rc = os_stat(mark, &st, err);
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    *ret_yes = !known && rc == RC_NOT_FOUND;
    return RC_OK;
}

/*
 * A moment of before it was renamed is in the log of the name that it had then. If that log has
 * nothing since it got the name, the moment is that at which it lost the one before: nothing was
 * written. What is older in a log is of another one that had this name.
 */
static enum rc restore_at(struct tenants *ts, const char *name, const struct tenant_at *at,
                          const char *path, struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char conf[OS_PATH_MAX];
    tenants_path(ts, name, TENANT_CONF, conf);
    TRY(tenants_conf_load(conf, &c, err));
    if (at == NULL || at->time_ms == 0) return restore_to(ts, name, at, 0, path, err);
    size_t i = 0;
    while (i < c->former_count && at->time_ms >= c->former[i].until_ms)
        i++;
    for (struct tenant_at then = *at;; then.time_ms = c->former[--i].until_ms + 1) {
        const char *had = i < c->former_count ? c->former[i].name : name;
        int64_t since_ms = i > 0 ? c->former[i - 1].until_ms : 0;
        enum rc rc = restore_to(ts, had, &then, since_ms, path, err);
        if (rc != RC_NOT_FOUND || i == 0) return rc;
    }
}

/* since_ms not 0: at is a time, and what the log had before since_ms is as if it were not there. */
static enum rc restore_to(struct tenants *ts, const char *name, const struct tenant_at *at,
                          int64_t since_ms, const char *path, struct err *err)
{
    struct store *store = NULL;
    struct restore_result res;
    struct restore_opts opts = {.out_path = path, .mode = 0600};
    const struct call c = {.cancel = ts->opts.cancel};
    uint64_t newest = 1, before = 0;
    if (at != NULL && at->txid != 0)
        opts.target = (struct plan_target){.kind = PLAN_TXID, .txid = at->txid};
    else if (at != NULL && at->time_ms != 0)
        opts.target = (struct plan_target){.kind = PLAN_TIME, .time_ms = at->time_ms};
    TRY(open_log(ts, name, &store, err));
    const struct log lg = {.store = store};
    enum rc rc = RC_OK;
    if (since_ms != 0) rc = newest_at(&lg, &c, at->time_ms, &newest, err);
    if (since_ms != 0 && rc == RC_OK) rc = newest_at(&lg, &c, since_ms, &before, err);
    if (rc == RC_OK && newest == before)
        rc = err_set(err, RC_NOT_FOUND, "nothing was written since it has its name");
    if (rc == RC_OK) rc = restore_run(&lg, &c, &opts, &res, err);
    store_close(store);
    return rc;
}

/* 0: nothing. */
static enum rc newest_at(const struct log *lg, const struct call *c, int64_t time_ms,
                         uint64_t *ret_txid, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files plan = {0};
    const struct plan_target target = {.kind = PLAN_TIME, .time_ms = time_ms};
    enum rc rc = restore_plan(lg, c, &target, &plan, err);
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    *ret_txid = 0;
    for (size_t i = 0; rc == RC_OK && i < plan.count; i++)
        if (plan.items[i].txid_max > *ret_txid) *ret_txid = plan.items[i].txid_max;
    return RC_OK;
}

static enum rc build_fork(struct tenants *ts, const char *from, const char *to, bool there,
                          const struct tenant_at *at, struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *old = NULL;
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char tmp[OS_PATH_MAX], conf[OS_PATH_MAX];
    struct err ignored;
    bool taken = false;
    TRY(tenants_exists(ts, to, &taken, err));
    if (taken) return err_set(err, RC_CONFLICT, "Namespace `%s` already exists", to);
    tenants_path(ts, from, TENANT_CONF, conf);
    TRY(tenants_conf_load(conf, &old, err)); /* also its keys: a fork is as closed as it was */
    TRY(tenants_conf_new(&old->conf, os_now_ms(), &c, err));
    TRY(tenants_build(ts, c, tmp, err));
    enum rc rc = fork_into(ts, from, to, there, at, tmp, err);
    if (rc != RC_OK) (void)!tenants_delete_tree(tmp, &ignored);
    return rc;
}

static enum rc fork_into(struct tenants *ts, const char *from, const char *to, bool there,
                         const struct tenant_at *at, const char *tmp, struct err *err)
{
    char out[OS_PATH_MAX + 8];
    struct tenant *t = NULL;
    bool now = at == NULL || (at->txid == 0 && at->time_ms == 0);
    snprintf(out, sizeof out, "%s/data", tmp);
    enum rc rc;
    if (!there) {
        rc = restore_at(ts, from, at, out, err);
        if (rc == RC_NOT_FOUND && now) rc = tenants_no_such(err, from);
    } else if (now) {
        rc = tenants_open_wait(ts, from, &t, err); /* so that it stays */
        if (rc == RC_OK) {
            rc = slot_copy((struct slot *)t, out, err);
            tenants_release(ts, t);
        }
    } else {
        rc = flush_log(ts, from, err);
        if (rc == RC_OK) rc = restore_at(ts, from, at, out, err);
    }
    TRY(rc);
    TRY(tenants_mark(ts, to, err));
    return tenants_put_in_place(ts, tmp, to, err);
}

static enum rc swap(struct slot *s, const char *restored, struct err *err)
{
    char folder[OS_PATH_MAX];
    if (s->task == NULL) TRY(slot_start_task(s, err));
    slot_close_engine(s);
    TRY(slot_wait_stored(s, os_mono_ms() + TENANTS_STORE_MS, NULL, err));
    slot_end_task(s, false);
    TRY(image_settle(s->path, err));
    TRY(os_rename(restored, s->path, err));
    tenants_path(s->ts, s->t.name, TENANT_FOLDER, folder);
    return os_fsync_dir(folder, err);
}
