/*
 * stats_page.c -- numbers of the service in Prometheus' text form, version 0.0.4. See stats.h.
 *
 * What has never happened to a class is not there: a page grows by the classes that are used.
 */
#include "server/stats.h"
#include <stdio.h>
#include "base/mem.h"

#define LABELS_MAX (STATS_CLASS_MAX + 64)

static enum rc put_head(struct buf *out, const char *name, const char *type, const char *help,
                        struct err *err);
static enum rc put_hist(struct buf *out, const char *name, const char *labels,
                        const struct stats_hist *h, struct err *err);
static enum rc put_asks(struct buf *out, const struct stats_sum *sum, struct err *err);
static enum rc put_stmts(struct buf *out, const struct stats_sum *sum, struct err *err);
static enum rc put_count(struct buf *out, const char *name, const char *help, uint64_t n,
                         struct err *err);
static uint64_t count_of(const struct stats_hist *h);
static bool has_any(const struct stats_hist *list, size_t count);

enum rc stats_page(struct stats *s, struct buf *out, struct err *err)
{
    CLEANUP(mem_freep) struct stats_sum *sum = mem_alloc(sizeof *sum);
    if (sum == NULL) return err_mem(err, "statistics");
    stats_look(s, sum);
    TRY(put_asks(out, sum, err));
    TRY(put_stmts(out, sum, err));
    TRY(put_count(out, "sluice_received_bytes_total", "Bytes of requests' bodies and messages.",
                  sum->bytes_in, err));
    TRY(put_count(out, "sluice_sent_bytes_total",
                  "Bytes of answers' bodies and messages, before compression.", sum->bytes_out,
                  err));
    TRY(put_count(out, "sluice_rows_read_total", "Rows that statements have looked at.",
                  sum->rows_read, err));
    TRY(put_count(out, "sluice_rows_written_total", "Rows that statements have changed.",
                  sum->rows_written, err));
    return put_count(out, "sluice_slow_statements_total",
                     "Statements that took longer than -slow-query.", sum->slow, err);
}

static enum rc put_asks(struct buf *out, const struct stats_sum *sum, struct err *err)
{
    static const char *const routes[STATS_ROUTES] = {"pipeline", "cursor", "websocket", "v1",
                                                     "other"};
    static const char name[] = "sluice_request_duration_seconds";
    char labels[LABELS_MAX];
    TRY(put_head(out, name, "histogram",
                 "Requests over HTTP and messages over WebSocket, until they were answered.", err));
    for (size_t k = 0; k < sum->class_count; k++) {
        const struct stats_class *c = &sum->classes[k];
        for (size_t i = 0; i < STATS_ROUTES; i++) {
            snprintf(labels, sizeof labels, "class=\"%s\",route=\"%s\"", c->name, routes[i]);
            TRY(put_hist(out, name, labels, &c->asks[i], err));
        }
    }
    TRY(put_head(out, "sluice_responses_total", "counter", "Answers over HTTP, by their status.",
                 err));
    for (size_t k = 0; k < sum->class_count; k++) {
        const struct stats_class *c = &sum->classes[k];
        for (unsigned i = 1; i < 6 && has_any(c->asks, STATS_ROUTES); i++)
            TRY(buf_printf(out, err, "sluice_responses_total{class=\"%s\",status=\"%uxx\"} %llu\n",
                           c->name, i, (unsigned long long)c->statuses[i]));
    }
    return RC_OK;
}

static enum rc put_stmts(struct buf *out, const struct stats_sum *sum, struct err *err)
{
    static const char *const kinds[STATS_KINDS] = {"read", "write", "other"};
    static const char *const faults[STATS_FAULTS] = {
#define X(fault, name) [STATS_FAULT_##fault] = name,
        STATS_FAULT_MAP(X)
#undef X
    };
    static const char name[] = "sluice_statement_duration_seconds";
    char labels[LABELS_MAX];
    TRY(put_head(out, name, "histogram", "Statements, without waiting for others.", err));
    for (size_t k = 0; k < sum->class_count; k++) {
        const struct stats_class *c = &sum->classes[k];
        for (size_t i = 0; i < STATS_KINDS * 2; i++) {
            snprintf(labels, sizeof labels, "class=\"%s\",kind=\"%s\",outcome=\"%s\"", c->name,
                     kinds[i / 2], i % 2 ? "error" : "ok");
            TRY(put_hist(out, name, labels, &c->stmts[i / 2][i % 2], err));
        }
    }
    TRY(put_head(out, "sluice_statement_errors_total", "counter",
                 "Statements that failed, by what their code means.", err));
    for (size_t k = 0; k < sum->class_count; k++) {
        const struct stats_class *c = &sum->classes[k];
        for (size_t i = 0; i < STATS_FAULTS && has_any(c->stmts[0], STATS_KINDS * 2); i++)
            TRY(buf_printf(out, err,
                           "sluice_statement_errors_total{class=\"%s\",error=\"%s\"} %llu\n",
                           c->name, faults[i], (unsigned long long)c->faults[i]));
    }
    return RC_OK;
}

static uint64_t count_of(const struct stats_hist *h)
{
    uint64_t n = 0;
    for (size_t i = 0; i <= STATS_BOUNDS; i++)
        n += h->counts[i];
    return n;
}

static bool has_any(const struct stats_hist *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (count_of(&list[i]) > 0) return true;
    return false;
}

static enum rc put_head(struct buf *out, const char *name, const char *type, const char *help,
                        struct err *err)
{
    return buf_printf(out, err, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static enum rc put_hist(struct buf *out, const char *name, const char *labels,
                        const struct stats_hist *h, struct err *err)
{
    uint64_t n = 0;
    if (count_of(h) == 0) return RC_OK;
    for (size_t i = 0; i < STATS_BOUNDS; i++) {
        n += h->counts[i];
        TRY(buf_printf(out, err, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels,
                       (double)stats_bounds_us[i] / 1e6, (unsigned long long)n));
    }
    n += h->counts[STATS_BOUNDS];
    return buf_printf(out, err,
                      "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.6f\n%s_count{%s} %llu\n", name,
                      labels, (unsigned long long)n, name, labels, (double)h->us / 1e6, name,
                      labels, (unsigned long long)n);
}

static enum rc put_count(struct buf *out, const char *name, const char *help, uint64_t n,
                         struct err *err)
{
    TRY(put_head(out, name, "counter", help, err));
    return buf_printf(out, err, "%s %llu\n", name, (unsigned long long)n);
}
