/* admin_tenants.c -- what the administrator does with tenants, and sees of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "fmt/text.h"
#include "server/admin_intern.h"
#include "server/stats.h"

#define LIST_LIMIT     100
#define LIST_LIMIT_MAX 1000

struct listing {
    json_t *names;
    size_t limit;
    char next[AUTH_NAME_MAX + 1]; /* the first that is not in it; "": none */
};

static enum rc list_one(void *ctx, const struct tenant_info *info, struct err *err);
static json_t *of_info(const struct tenant_info *info);
static int set_txid(json_t *o, const char *key, uint64_t txid);
static json_t *of_former(const struct tenant_info *info);
static json_t *of_queries(const struct stats_query *list, size_t count, bool elapsed);
static enum rc must_exist(struct admin *a, struct err *err);

enum rc admin_create(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_conf conf = {.block_reason = ""};
    const char *url = json_string_value(json_object_get(a->body, "dump_url"));
    (void)out;
    TRY(admin_json_conf(a->body, true, &conf, err));
    if (url != NULL) return admin_import_url(a, url, &conf, err);
    return o->ops->create(o->tenants, a->name, &conf, err);
}

enum rc admin_remove(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    const json_t *keep = json_object_get(a->body, "keep_backup");
    (void)out;
    if (keep != NULL && !json_is_boolean(keep) && !json_is_null(keep))
        return err_set(err, RC_INVALID, "keep_backup must be true or false");
    TRY(must_exist(a, err));
    admin_evict(a->server, a->name);
    TRY(o->ops->remove(o->tenants, a->name, json_is_true(keep), err));
    stats_tenant_drop(a->server->stats, a->name);
    return RC_OK;
}

enum rc admin_fork(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_at at;
    (void)out;
    TRY(admin_json_at(a->body, &at, err));
    return o->ops->fork(o->tenants, a->name, a->to, &at, err);
}

/* It is done, whatever else is to be said. */
enum rc admin_rename(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_info info;
    struct err ignored;
    TRY(must_exist(a, err));
    admin_evict(a->server, a->name);
    TRY(o->ops->rename(o->tenants, a->name, a->to, err));
    stats_tenant_drop(a->server->stats, a->name);
    if (o->ops->info(o->tenants, a->to, &info, &ignored) != RC_OK || info.former_count == 0)
        return RC_OK;
    return admin_json_put(json_pack("{s:o}", "former_logs", of_former(&info)), out, err);
}

enum rc admin_restore(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_at at;
    (void)out;
    TRY(admin_json_at(a->body, &at, err));
    if (at.txid == 0 && at.time_ms == 0)
        return err_set(err, RC_INVALID, "either txid or timestamp must say what to go back to");
    TRY(must_exist(a, err));
    admin_evict(a->server, a->name);
    return o->ops->rewind(o->tenants, a->name, &at, err);
}

enum rc admin_checkpoint(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    (void)out;
    return o->ops->checkpoint(o->tenants, a->name, err);
}

enum rc admin_get_config(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant *t;
    TRY(o->ops->open_wait(o->tenants, a->name, &t, err));
    json_t *conf = admin_json_of_conf(atomic_load(&t->conf));
    o->ops->release(o->tenants, t);
    return admin_json_put(conf, out, err);
}

enum rc admin_set_config(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant *t;
    (void)out;
    TRY(o->ops->open_wait(o->tenants, a->name, &t, err));
    struct tenant_conf conf = *atomic_load(&t->conf); /* its texts live as long as t */
    enum rc rc = admin_json_conf(a->body, false, &conf, err);
    if (rc == RC_OK) rc = o->ops->configure(o->tenants, a->name, &conf, err);
    o->ops->release(o->tenants, t);
    return rc;
}

/* ---- Looking ---- */

enum rc admin_list(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    const char *from = http_query(a->http, "from"), *limit = http_query(a->http, "limit");
    struct listing l = {.limit = LIST_LIMIT};
    if (limit != NULL) {
        char *end;
        unsigned long n = strtoul(limit, &end, 10);
        if (limit[0] < '0' || limit[0] > '9' || *end != '\0' || n == 0)
            return err_set(err, RC_INVALID, "limit must be a number from 1 to %d", LIST_LIMIT_MAX);
        l.limit = n < LIST_LIMIT_MAX ? n : LIST_LIMIT_MAX;
    }
    l.names = json_array();
    if (l.names == NULL) return err_mem(err, "a list");
    enum rc rc = o->ops->list(o->tenants, from, list_one, &l, err);
    if (rc == RC_CANCELED && l.next[0] != '\0') rc = RC_OK;
    if (rc != RC_OK) {
        json_decref(l.names);
        return rc;
    }
    return admin_json_put(
        json_pack("{s:o,s:s?}", "namespaces", l.names, "next", l.next[0] != '\0' ? l.next : NULL),
        out, err);
}

enum rc admin_describe(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_info info;
    TRY(o->ops->info(o->tenants, a->name, &info, err));
    return admin_json_put(of_info(&info), out, err);
}

enum rc admin_stats(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_info info;
    TRY(o->ops->info(o->tenants, a->name, &info, err));
    CLEANUP(mem_freep) struct stats_tenant *st = mem_alloc(sizeof *st);
    if (st == NULL) return err_mem(err, "statistics");
    stats_tenant_look(a->server->stats, a->name, st);
    json_t *top = of_queries(st->top, st->top_count, false);
    json_t *slowest = of_queries(st->slowest, st->slowest_count, true);
    json_t *all = json_pack(
        "{s:s,s:I,s:I,s:I,s:i,s:I,s:o,s:o,s:i,s:I,s:f,s:n}", "id", a->name, "rows_read_count",
        (json_int_t)st->counts.rows_read, "rows_written_count", (json_int_t)st->counts.rows_written,
        "storage_bytes_used", (json_int_t)info.bytes, "write_requests_delegated", 0,
        "replication_index", (json_int_t)info.txid, "top_queries", top, "slowest_queries", slowest,
        "embedded_replica_frames_replicated", 0, "query_count", (json_int_t)st->counts.queries,
        "elapsed_ms", (double)st->counts.us / 1000, "queries");
    return admin_json_put(all, out, err);
}

enum rc admin_clear_top(struct admin *a, struct buf *out, struct err *err)
{
    (void)out;
    TRY(must_exist(a, err));
    stats_tenant_clear(a->server->stats, a->name, false, true);
    return RC_OK;
}

enum rc admin_clear_slowest(struct admin *a, struct buf *out, struct err *err)
{
    (void)out;
    TRY(must_exist(a, err));
    stats_tenant_clear(a->server->stats, a->name, true, false);
    return RC_OK;
}

static enum rc list_one(void *ctx, const struct tenant_info *info, struct err *err)
{
    struct listing *l = ctx;
    if (json_array_size(l->names) == l->limit) {
        snprintf(l->next, sizeof l->next, "%s", info->name);
        return err_set(err, RC_CANCELED, "the page is full");
    }
    return json_array_append_new(l->names, of_info(info)) == 0 ? RC_OK : err_mem(err, "a list");
}

static json_t *of_info(const struct tenant_info *info)
{
    char created[TIME_TEXT_SIZE];
    time_put(info->created_ms, false, created);
    json_t *o = json_pack("{s:s,s:b,s:s?,s:I,s:I}", "name", info->name, "open", info->open,
                          "created", info->created_ms > 0 ? created : NULL, "bytes",
                          (json_int_t)info->bytes, "wal_bytes", (json_int_t)info->wal_bytes);
    if (o == NULL) return NULL;
    int failed = set_txid(o, "txid", info->txid) | set_txid(o, "txid_stored", info->txid_stored);
    if (info->former_count > 0) failed |= json_object_set_new(o, "former_logs", of_former(info));
    if (failed == 0) return o;
    json_decref(o);
    return NULL;
}

static int set_txid(json_t *o, const char *key, uint64_t txid)
{
    char text[17];
    txid_put(txid, text);
    return json_object_set_new(o, key, txid > 0 ? json_string(text) : json_null());
}

static json_t *of_former(const struct tenant_info *info)
{
    json_t *list = json_array();
    for (size_t i = 0; i < info->former_count && list != NULL; i++) {
        char until[TIME_TEXT_SIZE];
        time_put(info->former[i].until_ms, true, until);
        json_t *one = json_pack("{s:s,s:s}", "name", info->former[i].name, "until", until);
        if (json_array_append_new(list, one) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

static json_t *of_queries(const struct stats_query *list, size_t count, bool elapsed)
{
    json_t *all = json_array();
    for (size_t i = 0; i < count && all != NULL; i++) {
        const struct stats_query *q = &list[i];
        json_t *one =
            json_pack("{s:s,s:I,s:I}", "query", q->sql, "rows_read", (json_int_t)q->rows_read,
                      "rows_written", (json_int_t)q->rows_written);
        if (one != NULL && elapsed)
            (void)json_object_set_new(one, "elapsed_ms", json_real((double)q->us / 1000));
        if (json_array_append_new(all, one) == 0) continue;
        json_decref(all);
        all = NULL;
    }
    return all;
}

static enum rc must_exist(struct admin *a, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant_info info;
    return o->ops->info(o->tenants, a->name, &info, err);
}
