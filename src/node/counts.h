/*
 * counts.h -- what the daemon counts, as numbers and as a metrics page. Names are Litestream's
 * where it has them, sluice_* else.
 */
#ifndef NODE_COUNTS_H
#define NODE_COUNTS_H
#include "base/buf.h"
#include "node/task.h"
#include "store/store.h"

#define COUNTS_TYPES_MAX 16

/* Requests and bytes, by type of store. */
struct counts {
    struct counts_type {
        const char *type;
        struct store_stats stats;
    } types[COUNTS_TYPES_MAX];
    size_t type_count;
    size_t db_count;
    uint64_t behind; /* transactions that are captured and not yet in their stores */
};
void counts_sum(struct task *const *tasks, size_t task_count, struct counts *ret);
MUST_CHECK enum rc counts_page(const struct counts *c, struct buf *out, struct err *err);
#endif
