/* admin_metrics.c -- /metrics for Prometheus, and /v1/diagnostics. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "server/admin_intern.h"
#include "server/stats.h"

#define NAMED     100 /* tenants with series of their own */
#define NAMED_MAX 10000

struct looks { /* all that are open, together; of the worst some each */
    struct tenant_look sum, max;
    size_t open, used, failing;
    uint64_t behind_sum, behind_max;
    struct tenant_look *list; /* a heap: the least bad first */
    size_t count, limit;
};
struct series {
    const char *name, *type, *help;
    uint64_t (*of)(const struct tenant_look *l);
};

static enum rc look_all(struct server *s, size_t limit, struct looks *l, struct err *err);
static enum rc look_one(void *ctx, const struct tenant_look *look, struct err *err);
static void keep(struct looks *l, const struct tenant_look *look);
static bool is_worse(const struct tenant_look *a, const struct tenant_look *b);
static void swap(struct tenant_look *a, struct tenant_look *b);
static enum rc page(struct server *s, size_t named, struct buf *out, struct err *err);
static enum rc put_service(struct server *s, struct buf *out, struct err *err);
static enum rc put_tenants(const struct looks *l, struct buf *out, struct err *err);
static enum rc put_named(const struct looks *l, struct buf *out, struct err *err);
static enum rc put_active(struct server *s, const struct looks *l, struct buf *out,
                          struct err *err);
static enum rc put(struct buf *out, const char *name, const char *type, const char *help,
                   uint64_t value, struct err *err);
static uint64_t behind(const struct tenant_look *l);
static uint64_t writes(const struct tenant_look *l);
static uint64_t groups(const struct tenant_look *l);
static uint64_t waiting(const struct tenant_look *l);
static uint64_t wal_bytes(const struct tenant_look *l);
static uint64_t txid(const struct tenant_look *l);
static uint64_t count_of(const uint64_t *n);

enum rc server_metrics(struct server *s, struct buf *out, struct err *err)
{
    return page(s, NAMED, out, err);
}

/* ?namespaces=N: series of their own for so many, the worst ones. */
enum rc admin_metrics(struct admin *a, struct buf *out, struct err *err)
{
    const char *text = http_query(a->http, "namespaces");
    size_t named = NAMED;
    if (text != NULL) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (text[0] < '0' || text[0] > '9' || *end != '\0')
            return err_set(err, RC_INVALID, "namespaces must be a number from 0 to %d", NAMED_MAX);
        named = n < NAMED_MAX ? n : NAMED_MAX;
    }
    a->type = "text/plain; version=0.0.4; charset=utf-8";
    enum rc rc = page(a->server, named, out, err);
    if (rc != RC_OK) a->type = NULL;
    return rc;
}

enum rc admin_diagnostics(struct admin *a, struct buf *out, struct err *err)
{
    struct server *s = a->server;
    struct looks l;
    TRY(look_all(s, 0, &l, err));
    const struct sql_writer_stats *w = &l.sum.engine.writer;
    json_t *o = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "version", SLUICE_VERSION,
        "uptime_s", (json_int_t)((os_mono_ms() - s->started_ms) / 1000), "namespaces_open",
        (json_int_t)l.open, "namespaces_in_use", (json_int_t)l.used, "connections",
        (json_int_t)l.sum.engine.conns, "connections_in_use", (json_int_t)l.sum.engine.conns_used,
        "connection_memory", (json_int_t)l.sum.engine.memory, "streams_waiting",
        (json_int_t)batons_live(s->batons), "websockets", (json_int_t)ws_hub_count(s->hub),
        "requests_active", (json_int_t)http_server_active(s->http), "work_waiting",
        (json_int_t)(crew_waiting(s->env.work) + crew_waiting(s->env.slow)), "writes_waiting",
        (json_int_t)w->waiting, "wal_bytes", (json_int_t)l.sum.wal_bytes, "log_behind",
        (json_int_t)l.behind_sum);
    return admin_json_put(o, out, err);
}

static enum rc look_all(struct server *s, size_t limit, struct looks *l, struct err *err)
{
    const struct server_opts *o = &s->opts;
    struct sql_writer_stats past = {0};
    *l = (struct looks){.limit = limit};
    if (limit > 0) {
        l->list = mem_calloc(limit, sizeof *l->list);
        if (l->list == NULL) return err_mem(err, "metrics");
    }
    enum rc rc = o->ops->look != NULL ? o->ops->look(o->tenants, look_one, l, &past, err) : RC_OK;
    if (rc != RC_OK) {
        mem_free(l->list);
        return rc;
    }
    struct sql_writer_stats *w = &l->sum.engine.writer;
    w->writes += past.writes;
    w->failed += past.failed;
    w->commits += past.commits;
    w->groups += past.groups;
    w->again += past.again;
    w->timed_out += past.timed_out;
    if (past.group_max > l->max.engine.writer.group_max)
        l->max.engine.writer.group_max = past.group_max;
    return RC_OK;
}

static enum rc look_one(void *ctx, const struct tenant_look *look, struct err *err)
{
    struct looks *l = ctx;
    struct sql_writer_stats *w = &l->sum.engine.writer, *most = &l->max.engine.writer;
    const struct sql_writer_stats *one = &look->engine.writer;
    (void)err;
    l->open++;
    l->used += look->used;
    l->failing += look->failing;
    l->behind_sum += behind(look);
    if (behind(look) > l->behind_max) l->behind_max = behind(look);
    l->sum.wal_bytes += look->wal_bytes;
    if (look->wal_bytes > l->max.wal_bytes) l->max.wal_bytes = look->wal_bytes;
    l->sum.engine.conns += look->engine.conns;
    l->sum.engine.conns_used += look->engine.conns_used;
    l->sum.engine.memory += look->engine.memory;
    w->writes += one->writes;
    w->failed += one->failed;
    w->commits += one->commits;
    w->groups += one->groups;
    w->again += one->again;
    w->timed_out += one->timed_out;
    w->waiting += one->waiting;
    if (one->group_max > most->group_max) most->group_max = one->group_max;
    if (one->waiting > most->waiting) most->waiting = one->waiting;
    if (l->limit > 0) keep(l, look);
    return RC_OK;
}

static void keep(struct looks *l, const struct tenant_look *look)
{
    size_t at = 0;
    if (l->count < l->limit) {
        at = l->count++;
        l->list[at] = *look;
        for (; at > 0 && is_worse(&l->list[(at - 1) / 2], &l->list[at]); at = (at - 1) / 2)
            swap(&l->list[(at - 1) / 2], &l->list[at]);
        return;
    }
    if (!is_worse(look, &l->list[0])) return;
    l->list[0] = *look;
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < l->count; child++)
            if (is_worse(&l->list[least], &l->list[child])) least = child;
        if (least == at) return;
        swap(&l->list[at], &l->list[least]);
        at = least;
    }
}

/* Whose commits are in danger, then whose clients wait, then whose file grows. */
static bool is_worse(const struct tenant_look *a, const struct tenant_look *b)
{
    if (behind(a) != behind(b)) return behind(a) > behind(b);
    if (waiting(a) != waiting(b)) return waiting(a) > waiting(b);
    return a->wal_bytes > b->wal_bytes;
}

static void swap(struct tenant_look *a, struct tenant_look *b)
{
    struct tenant_look old = *a;
    *a = *b;
    *b = old;
}

static enum rc page(struct server *s, size_t named, struct buf *out, struct err *err)
{
    struct looks l;
    TRY(look_all(s, named, &l, err));
    enum rc rc = put_service(s, out, err);
    if (rc == RC_OK) rc = stats_page(s->stats, out, err);
    if (rc == RC_OK) rc = put_tenants(&l, out, err);
    if (rc == RC_OK) rc = put_named(&l, out, err);
    if (rc == RC_OK) rc = put_active(s, &l, out, err);
    mem_free(l.list);
    return rc;
}

static enum rc put_service(struct server *s, struct buf *out, struct err *err)
{
    const struct exec_env *env = &s->env;
    TRY(buf_printf(out, err,
                   "# HELP sluice_build_info The program.\n# TYPE sluice_build_info gauge\n"
                   "sluice_build_info{version=\"%s\"} 1\n",
                   SLUICE_VERSION));
    TRY(put(out, "sluice_uptime_seconds", "gauge", "Since the start.",
            (uint64_t)((os_mono_ms() - s->started_ms) / 1000), err));
    TRY(put(out, "sluice_requests_active", "gauge", "Requests that are not answered yet.",
            http_server_active(s->http), err));
    TRY(put(out, "sluice_streams_waiting", "gauge",
            "Streams with a transaction or settings that wait for their next request over HTTP.",
            batons_live(s->batons), err));
    TRY(put(out, "sluice_websockets_open", "gauge", "Connections.", ws_hub_count(s->hub), err));
    TRY(put(out, "sluice_work_waiting", "gauge", "Jobs that wait for a thread.",
            crew_waiting(env->work) + crew_waiting(env->slow), err));
    TRY(buf_printf(out, err,
                   "# HELP sluice_executions_total Messages that were run, by the thread that "
                   "ended them.\n# TYPE sluice_executions_total counter\n"
                   "sluice_executions_total{thread=\"connection\"} %llu\n"
                   "sluice_executions_total{thread=\"other\"} %llu\n",
                   (unsigned long long)count_of(&env->here),
                   (unsigned long long)count_of(&env->moved)));
    return put(out, "sluice_turn_waits_total", "counter",
               "Transactions that had to wait for the write lock.", count_of(&env->turn_waits),
               err);
}

static enum rc put_tenants(const struct looks *l, struct buf *out, struct err *err)
{
    const struct sql_writer_stats *w = &l->sum.engine.writer, *most = &l->max.engine.writer;
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"sluice_namespaces_open", "gauge", "Databases that are open.", l->open},
        {"sluice_namespaces_in_use", "gauge", "Of them, in use.", l->used},
        {"sluice_namespaces_store_failing", "gauge", "Whose store does not answer.", l->failing},
        {"sluice_connections_open", "gauge", "Connections to databases.", l->sum.engine.conns},
        {"sluice_connections_in_use", "gauge", "Of them, in use.", l->sum.engine.conns_used},
        {"sluice_connection_memory_bytes", "gauge", "Memory of those not in use.",
         (uint64_t)l->sum.engine.memory},
        {"sluice_writer_writes_total", "counter", "Lone writes that were run in groups.",
         w->writes},
        {"sluice_writer_failed_total", "counter", "Of them, failed.", w->failed},
        {"sluice_writer_groups_total", "counter", "Groups; writes per group is their size.",
         w->groups},
        {"sluice_writer_commits_total", "counter", "Commits that went to disk.", w->commits},
        {"sluice_writer_again_total", "counter", "Groups that were run again without a member.",
         w->again},
        {"sluice_writer_timed_out_total", "counter",
         "Transactions that held the write lock too long.", w->timed_out},
        {"sluice_writer_group_max", "gauge", "The largest group since the start.", most->group_max},
        {"sluice_writer_queue", "gauge", "Writes that wait, in all databases.", w->waiting},
        {"sluice_writer_queue_max", "gauge", "In the one with most.", most->waiting},
        {"sluice_wal_bytes", "gauge", "Of all open databases.", l->sum.wal_bytes},
        {"sluice_wal_bytes_max", "gauge", "Of the one with most.", l->max.wal_bytes},
        {"sluice_log_behind", "gauge", "Transactions that are captured and not yet in the store.",
         l->behind_sum},
        {"sluice_log_behind_max", "gauge", "Of the database with most.", l->behind_max},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        TRY(put(out, rows[i].name, rows[i].type, rows[i].help, rows[i].value, err));
    return RC_OK;
}

static enum rc put_named(const struct looks *l, struct buf *out, struct err *err)
{
    static const struct series series[] = {
        {"sluice_namespace_wal_bytes", "gauge", "Of one open database.", wal_bytes},
        {"sluice_namespace_log_behind", "gauge", "Transactions not yet in its store.", behind},
        {"sluice_namespace_txid", "counter", "Its newest transaction that is captured.", txid},
        {"sluice_namespace_writer_queue", "gauge", "Writes that wait.", waiting},
        {"sluice_namespace_writer_writes_total", "counter", "Lone writes since it was opened.",
         writes},
        {"sluice_namespace_writer_groups_total", "counter", "Their groups.", groups},
    };
    for (size_t i = 0; i < sizeof series / sizeof series[0] && l->count > 0; i++) {
        const struct series *se = &series[i];
        TRY(buf_printf(out, err, "# HELP %s %s\n# TYPE %s %s\n", se->name, se->help, se->name,
                       se->type));
        for (size_t k = 0; k < l->count; k++)
            TRY(buf_printf(out, err, "%s{namespace=\"%s\"} %llu\n", se->name, l->list[k].name,
                           (unsigned long long)se->of(&l->list[k])));
    }
    return RC_OK;
}

/* Counts of the same tenants. */
static enum rc put_active(struct server *s, const struct looks *l, struct buf *out, struct err *err)
{
    static const char *const names[] = {
        "sluice_namespace_statements_total", "sluice_namespace_statement_seconds_total",
        "sluice_namespace_rows_read_total", "sluice_namespace_rows_written_total"};
    CLEANUP(mem_freep) struct stats_counts *st = mem_calloc(l->count + 1, sizeof *st);
    if (st == NULL) return err_mem(err, "metrics");
    if (l->count == 0) return RC_OK;
    for (size_t k = 0; k < l->count; k++)
        stats_tenant_counts(s->stats, l->list[k].name, &st[k]);
    for (size_t i = 0; i < 4; i++) {
        TRY(buf_printf(out, err, "# TYPE %s counter\n", names[i]));
        for (size_t k = 0; k < l->count; k++) {
            double v = i == 0   ? (double)st[k].queries
                       : i == 1 ? (double)st[k].us / 1e6
                       : i == 2 ? (double)st[k].rows_read
                                : (double)st[k].rows_written;
            TRY(buf_printf(out, err, "%s{namespace=\"%s\"} %.*f\n", names[i], l->list[k].name,
                           i == 1 ? 6 : 0, v));
        }
    }
    return RC_OK;
}

static enum rc put(struct buf *out, const char *name, const char *type, const char *help,
                   uint64_t value, struct err *err)
{
    return buf_printf(out, err, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type,
                      name, (unsigned long long)value);
}

static uint64_t behind(const struct tenant_look *l)
{
    return l->txid_stored > 0 && l->txid > l->txid_stored ? l->txid - l->txid_stored : 0;
}

static uint64_t writes(const struct tenant_look *l)
{
    return l->engine.writer.writes;
}

static uint64_t groups(const struct tenant_look *l)
{
    return l->engine.writer.groups;
}

static uint64_t waiting(const struct tenant_look *l)
{
    return l->engine.writer.waiting;
}

static uint64_t wal_bytes(const struct tenant_look *l)
{
    return l->wal_bytes;
}

static uint64_t txid(const struct tenant_look *l)
{
    return l->txid;
}

static uint64_t count_of(const uint64_t *n)
{
    return __atomic_load_n(n, __ATOMIC_RELAXED);
}
