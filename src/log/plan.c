/*
 * plan.c -- see plan.h.
 *
 * From a position, take the usable file that reaches furthest; repeat. That is optimal: a file that
 * fits at some position and ends beyond a later one fits at the later one too, so being further is
 * never worse. It also needs the fewest files, and starting at position 0 makes it begin with the
 * newest snapshot that fits the target; no older snapshot can reach further.
 */
#include "log/plan.h"
#include "base/mem.h"
#include "fmt/ltx.h"
#include <stdlib.h>

/* Anything smaller was cut off, by a store that shows half-written objects. It is never a step. But
 * it tells that there was more, so the latest state is not what comes before it. */
#define FILE_SIZE_MIN (LTX_HEADER_SIZE + LTX_TRAILER_SIZE)

static bool usable(const struct log_file *f, const struct plan_target *target);
static bool better(const struct log_file *a, const struct log_file *b);
static int min_order(const void *a, const void *b);
static enum rc judge(const struct plan_target *target, uint64_t pos, const struct log_file *stub,
                     const struct log_file *beyond, struct err *err);

enum rc plan_make(const struct log_files *files, const struct plan_target *target,
                  struct log_files *ret_plan, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files sorted = {0}, plan = {0};
    const struct log_file *best = NULL, *stub = NULL;
    uint64_t pos = 0;
    size_t next = 0;
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i];
        if (usable(f, target))
            TRY(log_files_push(&sorted, f, err));
        else if (f->size < FILE_SIZE_MIN && (stub == NULL || f->txid_max > stub->txid_max))
            stub = f;
    }
    if (sorted.count > 1) qsort(sorted.items, sorted.count, sizeof *sorted.items, min_order);
    for (;;) {
        for (; next < sorted.count && sorted.items[next].txid_min - 1 <= pos; next++)
            if (best == NULL || better(&sorted.items[next], best)) best = &sorted.items[next];
        if (best == NULL || best->txid_max <= pos) break;
        TRY(log_files_push(&plan, best, err));
        pos = best->txid_max;
    }
    const struct log_file *beyond = next < sorted.count ? &sorted.items[next] : NULL;
    TRY(judge(target, pos, stub, beyond, err));
    *ret_plan = plan;
    plan = (struct log_files){0};
    return RC_OK;
}

static bool usable(const struct log_file *f, const struct plan_target *target)
{
    if (f->size < FILE_SIZE_MIN || f->txid_min < 1 || f->txid_min > f->txid_max) return false;
    if (f->level >= LOG_LEVEL_COUNT) return false;
    if (target->kind == PLAN_TXID) return f->txid_max <= target->txid;
    if (target->kind == PLAN_TIME) return f->created_ms < target->time_ms;
    return true;
}

/* Does a serve better than b where both fit? Litestream's order, so that both restore alike. */
static bool better(const struct log_file *a, const struct log_file *b)
{
    if (a->txid_max != b->txid_max) return a->txid_max > b->txid_max;
    if (a->txid_min != b->txid_min) return a->txid_min < b->txid_min;
    if (a->level != b->level) return a->level > b->level;
    return a->created_ms < b->created_ms;
}

static int min_order(const void *a, const void *b)
{
    const struct log_file *x = a, *y = b;
    return (x->txid_min > y->txid_min) - (x->txid_min < y->txid_min);
}

/* Is a chain that ends at pos what the target asks for? stub: the furthest file that was cut off;
 * beyond: the first file past a hole. */
static enum rc judge(const struct plan_target *target, uint64_t pos, const struct log_file *stub,
                     const struct log_file *beyond, struct err *err)
{
    unsigned long long at = pos, missing = pos + 1;
    if (target->kind == PLAN_TXID && pos == 0)
        return err_set(err, RC_NOT_FOUND,
                       "transaction %016llx is not available: no snapshot at or before it",
                       (unsigned long long)target->txid);
    if (target->kind == PLAN_TXID && pos != target->txid)
        return err_set(err, RC_NOT_FOUND,
                       "transaction %016llx is not available; the nearest before it is %016llx",
                       (unsigned long long)target->txid, at);
    if (target->kind == PLAN_TIME && pos == 0)
        return err_set(err, RC_NOT_FOUND, "no snapshot was created before that time");
    if (target->kind != PLAN_LATEST) return RC_OK;
    if (beyond != NULL)
        return err_set(err, RC_GAP,
                       "transaction %016llx is missing: the log goes on at %016llx (choose an "
                       "older transaction or time to restore what is before the hole)",
                       missing, (unsigned long long)beyond->txid_min);
    if (stub != NULL && stub->txid_max > pos)
        return err_set(err, RC_GAP,
                       "the file of transactions %016llx to %016llx, level %u, was cut off at %llu "
                       "bytes (choose an older transaction or time to restore what is before it)",
                       (unsigned long long)stub->txid_min, (unsigned long long)stub->txid_max,
                       stub->level, (unsigned long long)stub->size);
    return pos > 0 ? RC_OK : err_set(err, RC_NOT_FOUND, "the log holds no files");
}
