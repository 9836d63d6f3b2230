/* counts.c -- see counts.h. */
#include "node/counts.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct counts_type *of_type(struct counts *c, const char *type);
static void add(struct store_stats *sum, const struct store_stats *s);
static enum rc head(struct buf *out, struct err *err, const char *name, const char *type,
                    const char *help);
static enum rc by_operation(const struct counts *c, struct buf *out, struct err *err,
                            const char *name, size_t off);
static void operation_name(enum store_op op, char out[16]);

void counts_sum(struct task *const *tasks, size_t task_count, struct counts *ret)
{
    *ret = (struct counts){.db_count = task_count};
    for (size_t i = 0; i < task_count; i++) {
        struct task_counts t;
        task_counts(tasks[i], &t);
        struct counts_type *of = of_type(ret, t.store_type);
        if (of != NULL) add(&of->stats, &t.stats);
        ret->behind += t.behind;
    }
}

enum rc counts_page(const struct counts *c, struct buf *out, struct err *err)
{
    TRY(head(out, err, "litestream_replica_operation_total", "counter",
             "Requests to stores, as a service bills them."));
    TRY(by_operation(c, out, err, "litestream_replica_operation_total",
                     offsetof(struct store_stats, requests)));
    TRY(head(out, err, "litestream_replica_operation_bytes", "counter",
             "Bytes of objects moved to and from stores."));
    for (size_t i = 0; i < c->type_count; i++)
        TRY(buf_printf(out, err,
                       "litestream_replica_operation_bytes{replica_type=\"%s\",operation=\"PUT\"} "
                       "%" PRIu64 "\n"
                       "litestream_replica_operation_bytes{replica_type=\"%s\",operation=\"GET\"} "
                       "%" PRIu64 "\n",
                       c->types[i].type, c->types[i].stats.bytes_up, c->types[i].type,
                       c->types[i].stats.bytes_down));
    TRY(head(out, err, "sluice_store_failed_requests_total", "counter",
             "Requests to stores without a usable answer."));
    TRY(by_operation(c, out, err, "sluice_store_failed_requests_total",
                     offsetof(struct store_stats, failed)));
    TRY(head(out, err, "sluice_store_throttled_total", "counter",
             "Answers of stores that asked to slow down."));
    for (size_t i = 0; i < c->type_count; i++)
        TRY(buf_printf(out, err, "sluice_store_throttled_total{replica_type=\"%s\"} %" PRIu64 "\n",
                       c->types[i].type, c->types[i].stats.throttled));
    TRY(head(out, err, "sluice_databases", "gauge", "Databases that are replicated."));
    TRY(buf_printf(out, err, "sluice_databases %zu\n", c->db_count));
    TRY(head(out, err, "sluice_transactions_behind", "gauge",
             "Captured batches that are not in their stores yet, over all databases."));
    return buf_printf(out, err, "sluice_transactions_behind %" PRIu64 "\n", c->behind);
}

static struct counts_type *of_type(struct counts *c, const char *type)
{
    for (size_t i = 0; i < c->type_count; i++)
        if (strcmp(c->types[i].type, type) == 0) return &c->types[i];
    if (c->type_count == COUNTS_TYPES_MAX) return NULL;
    c->types[c->type_count] = (struct counts_type){.type = type};
    return &c->types[c->type_count++];
}

static void add(struct store_stats *sum, const struct store_stats *s)
{
    for (int i = 0; i < STORE_OP_COUNT; i++) {
        sum->requests[i] += s->requests[i];
        sum->failed[i] += s->failed[i];
    }
    sum->throttled += s->throttled;
    sum->bytes_up += s->bytes_up;
    sum->bytes_down += s->bytes_down;
}

static enum rc head(struct buf *out, struct err *err, const char *name, const char *type,
                    const char *help)
{
    return buf_printf(out, err, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* off: of an array by operation in struct store_stats. */
static enum rc by_operation(const struct counts *c, struct buf *out, struct err *err,
                            const char *name, size_t off)
{
    for (size_t i = 0; i < c->type_count; i++) {
        const uint64_t *values = (const void *)((const char *)&c->types[i].stats + off);
        for (int op = 0; op < STORE_OP_COUNT; op++) {
            char operation[16];
            operation_name((enum store_op)op, operation);
            TRY(buf_printf(out, err, "%s{replica_type=\"%s\",operation=\"%s\"} %" PRIu64 "\n", name,
                           c->types[i].type, operation, values[op]));
        }
    }
    return RC_OK;
}

/* "PUT", as Litestream labels them. */
static void operation_name(enum store_op op, char out[16])
{
    snprintf(out, 16, "%s", store_op_name(op));
    for (char *p = out; *p != '\0'; p++)
        *p = (char)toupper((unsigned char)*p);
}
