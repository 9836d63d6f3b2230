/*
 * metrics.h -- the /metrics page (Prometheus text format 0.0.4) of the daemon, over libmicrohttpd.
 *
 * Threads: one of its own serves requests; it calls fn.
 */
#ifndef NODE_METRICS_H
#define NODE_METRICS_H
#include "base/buf.h"

struct metrics;
/* Append the page. Fails: RC_NO_MEM. */
typedef enum rc metrics_fn(void *ctx, struct buf *out, struct err *err);
/* Listen at "[host]:port"; without a host at all addresses, as Litestream does.
 * Fails: RC_INVALID addr; RC_IO it cannot be listened at. */
MUST_CHECK enum rc metrics_start(const char *addr, metrics_fn *fn, void *ctx,
                                 struct metrics **ret_metrics, struct err *err);
void metrics_stop(struct metrics *m); /* NULL is fine; fn is not called afterwards */
#endif
