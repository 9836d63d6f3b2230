/*
 * retain.c -- see retain.h.
 *
 * Why deleting is safe. A transaction t can be restored if a chain of files ends there: each begins
 * at or before the end of the one before plus one, the first at 1. More files never make a chain
 * impossible. So it is enough that what remains after all deletes has a chain for all that must
 * stay; whatever was deleted of it already, and in which order, then does not matter.
 *
 *   floor F   the end of the newest base from before the window. All that ends at or before F may
 *             go, but for that base itself: a chain to some t > F can begin with the base and go on
 *             with those of its files that end after F, the first of which begins at or before F+1.
 *   mark m    of level 0 all that ends at or before m may go, if m can be reached without it, and
 *             no file of a higher level before m needs it, and all transactions that level 0 still
 *             owes come after m, and level 1 has got there. A chain to some t > m can then go by m,
 *             for the same reason.
 *
 * A listing may hold anything, such as what other programs left: files that are too small to be LTX
 * are no steps, and times that lie in the future are not believed where a later file knows better.
 */
#include "log/retain.h"
#include "base/mem.h"
#include "fmt/ltx.h"
#include "log/compact.h"
#include <stdlib.h>

#define FILES_DEFAULT 1000u
#define BYTES_DEFAULT (1ull << 30)
#define TAIL_WAIT     4 /* this part of an interval, for the last files of the one that is over */
#define FILE_SIZE_MIN (LTX_HEADER_SIZE + LTX_TRAILER_SIZE)

struct item {
    struct log_file f;
    int64_t time_ms; /* to be believed */
    bool step;       /* may be part of a chain */
    bool goes;
};
struct items {
    struct item *a;
    size_t count;
    const struct item *base; /* the newest from before the window; NULL: none */
    uint64_t floor;          /* its end, or 0 */
};
struct span { /* of one level */
    const struct item *from, *to;
};

static enum rc items_init(struct items *it, const struct log_files *files,
                          const struct retain_conf *conf, int64_t now_ms, struct err *err);
static void items_fini(struct items *it);
static int by_level(const void *a, const void *b);
static int by_end(const void *a, const void *b);
static void believe_times(struct items *it, int64_t now_ms);
static void find_base(struct items *it, const struct retain_conf *conf, int64_t now_ms);
static struct span span_of(const struct items *it, uint32_t level);
static enum rc level_due(const struct items *it, const struct retain_conf *conf, uint32_t level,
                         int64_t now_ms, struct log_files *run, bool *ret_due, struct err *err);
static enum rc snapshot_due(const struct log_files *files, const struct items *it,
                            const struct retain_conf *conf, int64_t now_ms, struct log_files *run,
                            struct err *err);
static void mark_floor(struct items *it, const struct retain_conf *conf);
static void mark_level_0(struct items *it, const struct retain_conf *conf, int64_t now_ms);
static uint64_t reach_without(const struct items *it, uint64_t limit);
static void keep_newest(struct items *it);

enum rc retain_conf_check(const struct retain_conf *conf, struct err *err)
{
    if (conf->level_count > RETAIN_LEVELS_MAX)
        return err_set(err, RC_INVALID, "%u levels, at most %d can be merged into",
                       conf->level_count, RETAIN_LEVELS_MAX);
    for (uint32_t i = 0; i < conf->level_count; i++)
        if (conf->interval_ms[i] <= 0)
            return err_set(err, RC_INVALID, "the interval of level %u is %lld ms", i + 1,
                           (long long)conf->interval_ms[i]);
    if (conf->snapshot_interval_ms < 0)
        return err_set(err, RC_INVALID, "the snapshot interval is %lld ms",
                       (long long)conf->snapshot_interval_ms);
    if (conf->snapshot_retention_ms < 0 || conf->l0_retention_ms < 0)
        return err_set(err, RC_INVALID, "the retention of %s is %lld ms",
                       conf->l0_retention_ms < 0 ? "level 0" : "snapshots",
                       (long long)(conf->l0_retention_ms < 0 ? conf->l0_retention_ms
                                                             : conf->snapshot_retention_ms));
    if (conf->files_max == 1 || conf->files_max > COMPACT_FILES_MAX)
        return err_set(err, RC_INVALID, "%u files at once, between 2 and %d can be merged",
                       conf->files_max, COMPACT_FILES_MAX);
    return RC_OK;
}

void retain_job_fini(struct retain_job *job)
{
    log_files_fini(&job->sources);
    job->level = 0;
}

enum rc retain_next(const struct log_files *files, const struct retain_conf *conf, int64_t now_ms,
                    struct retain_job *ret_job, struct err *err)
{
    CLEANUP(items_fini) struct items it = {0};
    CLEANUP(retain_job_fini) struct retain_job job = {0};
    bool due = false;
    TRY(items_init(&it, files, conf, now_ms, err));
    for (uint32_t level = 1; level <= conf->level_count && !due; level++) {
        job.sources.count = 0;
        job.level = level;
        TRY(level_due(&it, conf, level, now_ms, &job.sources, &due, err));
    }
    if (!due) {
        job.sources.count = 0;
        job.level = LOG_LEVEL_SNAPSHOT;
        TRY(snapshot_due(files, &it, conf, now_ms, &job.sources, err));
        due = job.sources.count > 0;
    }
    if (!due) job.level = 0;
    *ret_job = job;
    job = (struct retain_job){0};
    return RC_OK;
}

enum rc retain_expired(const struct log_files *files, const struct retain_conf *conf,
                       int64_t now_ms, struct log_files *ret_expired, struct err *err)
{
    CLEANUP(items_fini) struct items it = {0};
    CLEANUP(log_files_fini) struct log_files expired = {0};
    TRY(items_init(&it, files, conf, now_ms, err));
    mark_floor(&it, conf);
    keep_newest(&it);
    if (it.count > 1) qsort(it.a, it.count, sizeof *it.a, by_end);
    mark_level_0(&it, conf, now_ms);
    keep_newest(&it);
    for (size_t i = 0; i < it.count; i++)
        if (it.a[i].goes) TRY(log_files_push(&expired, &it.a[i].f, err));
    *ret_expired = expired;
    expired = (struct log_files){0};
    return RC_OK;
}

/* ---- The listing ---- */

static enum rc items_init(struct items *it, const struct log_files *files,
                          const struct retain_conf *conf, int64_t now_ms, struct err *err)
{
    it->a = mem_calloc(files->count, sizeof *it->a);
    if (it->a == NULL) return err_mem(err, "a list of log files");
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i];
        if (f->level >= LOG_LEVEL_COUNT || f->txid_min < 1 || f->txid_min > f->txid_max) continue;
        it->a[it->count++] = (struct item){.f = *f, .step = f->size >= FILE_SIZE_MIN};
    }
    if (it->count > 1) qsort(it->a, it->count, sizeof *it->a, by_level);
    believe_times(it, now_ms);
    find_base(it, conf, now_ms);
    return RC_OK;
}

static void items_fini(struct items *it)
{
    mem_free(it->a);
}

static int by_level(const void *a, const void *b)
{
    const struct log_file *x = &((const struct item *)a)->f, *y = &((const struct item *)b)->f;
    if (x->level != y->level) return x->level < y->level ? -1 : 1;
    if (x->txid_min != y->txid_min) return x->txid_min < y->txid_min ? -1 : 1;
    return (x->txid_max > y->txid_max) - (x->txid_max < y->txid_max);
}

static int by_end(const void *a, const void *b)
{
    const struct log_file *x = &((const struct item *)a)->f, *y = &((const struct item *)b)->f;
    if (x->txid_max != y->txid_max) return x->txid_max < y->txid_max ? -1 : 1;
    return by_level(a, b);
}

/* Time grows with the transactions, within a level as well. So a clock that ran ahead for a while
 * does not hold up everything until its time has come. */
static void believe_times(struct items *it, int64_t now_ms)
{
    int64_t later = INT64_MAX;
    for (size_t i = it->count; i > 0; i--) {
        struct item *e = &it->a[i - 1];
        if (i == it->count || e[1].f.level != e->f.level) later = INT64_MAX;
        if (e->f.created_ms < later) later = e->f.created_ms;
        e->time_ms = e->f.created_ms > now_ms ? later : e->f.created_ms;
        if (e->time_ms < 0) e->time_ms = 0;
    }
}

/* Its own time counts here, whatever comes later: a restore by time uses no file from after it. */
static void find_base(struct items *it, const struct retain_conf *conf, int64_t now_ms)
{
    int64_t window_ms = conf->snapshot_retention_ms;
    if (window_ms == 0) return;
    if (window_ms < conf->l0_retention_ms) window_ms = conf->l0_retention_ms;
    for (size_t i = 0; i < it->count; i++) {
        const struct item *e = &it->a[i];
        if (!e->step || e->f.txid_min != 1 || e->f.created_ms >= now_ms - window_ms) continue;
        if (e->f.txid_max >= it->floor) it->base = e; /* of equal ones that of the higher level */
        if (e->f.txid_max >= it->floor) it->floor = e->f.txid_max;
    }
}

static struct span span_of(const struct items *it, uint32_t level)
{
    struct span s = {it->a, it->a + it->count};
    while (s.from < s.to && s.from->f.level < level)
        s.from++;
    while (s.from < s.to && s.to[-1].f.level > level)
        s.to--;
    return s;
}

/* ---- What to merge ---- */

/* Is the first run of files that the level does not have yet complete, or as large as may be? */
static enum rc level_due(const struct items *it, const struct retain_conf *conf, uint32_t level,
                         int64_t now_ms, struct log_files *run, bool *ret_due, struct err *err)
{
    const uint32_t files_max = conf->files_max != 0 ? conf->files_max : FILES_DEFAULT;
    const uint64_t bytes_max = conf->bytes_max != 0 ? conf->bytes_max : BYTES_DEFAULT;
    const int64_t interval = conf->interval_ms[level - 1];
    struct span src = span_of(it, level - 1), dst = span_of(it, level);
    uint64_t end = it->floor, bytes = 0;
    int64_t over_ms = 0;
    bool full = false, followed = false;
    for (const struct item *e = dst.from; e < dst.to; e++)
        if (e->step && e->f.txid_max > end) end = e->f.txid_max;
    for (const struct item *e = src.from; e < src.to; e++) {
        if (!e->step || e->f.txid_min == 1 || e->f.txid_max <= end) continue;
        if (run->count == 0) over_ms = (e->time_ms / interval + 1) * interval;
        bool gap = run->count > 0 && e->f.txid_min - 1 > end;
        followed = gap || e->time_ms >= over_ms;
        full = run->count == files_max ||
               (run->count > 0 && (bytes >= bytes_max || e->f.size > bytes_max - bytes));
        if (full || followed) break;
        TRY(log_files_push(run, &e->f, err));
        bytes += e->f.size;
        end = e->f.txid_max;
    }
    const int64_t wait_ms = followed ? 0 : interval / TAIL_WAIT;
    *ret_due = full || (run->count > 0 && now_ms - wait_ms >= over_ms);
    return RC_OK;
}

/* One a snapshot interval, when there is anything new. Its sources are those of a restore; of too
 * many the first ones, which lead to some transaction as well. */
static enum rc snapshot_due(const struct log_files *files, const struct items *it,
                            const struct retain_conf *conf, int64_t now_ms, struct log_files *run,
                            struct err *err)
{
    const uint32_t files_max = conf->files_max != 0 ? conf->files_max : FILES_DEFAULT;
    const int64_t interval = conf->snapshot_interval_ms;
    const struct item *newest = NULL;
    for (size_t i = 0; i < it->count; i++) {
        const struct item *e = &it->a[i];
        if (!e->step || e->f.txid_min != 1) continue;
        if (newest == NULL || e->f.txid_max >= newest->f.txid_max) newest = e;
    }
    if (interval == 0 || newest == NULL) return RC_OK;
    if (newest->f.created_ms >= now_ms / interval * interval) return RC_OK;
    /* Not "latest": a hole behind what can be reached is no reason to have no snapshot. */
    const struct plan_target furthest = {.kind = PLAN_TIME, .time_ms = INT64_MAX};
    CLEANUP(log_files_fini) struct log_files plan = {0};
    TRY(plan_make(files, &furthest, &plan, err));
    if (plan.count > files_max) plan.count = files_max;
    if (plan.items[plan.count - 1].txid_max <= newest->f.txid_max) return RC_OK;
    for (size_t i = 0; i < plan.count; i++)
        TRY(log_files_push(run, &plan.items[i], err));
    return RC_OK;
}

/* ---- What to delete ---- */

static void mark_floor(struct items *it, const struct retain_conf *conf)
{
    for (size_t i = 0; i < it->count; i++) {
        struct item *e = &it->a[i];
        bool stays = e == it->base || (e->f.level == 0 && conf->l0_retention_ms == 0);
        e->goes = e->f.txid_max <= it->floor && !stays;
    }
}

/* The files are in the order of their ends. */
static void mark_level_0(struct items *it, const struct retain_conf *conf, int64_t now_ms)
{
    uint64_t owed = UINT64_MAX; /* the first transaction that level 0 still owes */
    uint64_t merged = conf->level_count == 0 ? UINT64_MAX : 0;
    if (conf->l0_retention_ms == 0) return;
    for (size_t i = 0; i < it->count; i++) {
        const struct item *e = &it->a[i];
        if (e->f.level == 1 && e->step && e->f.txid_max > merged) merged = e->f.txid_max;
        if (e->f.level != 0 || e->f.txid_min == 1) continue;
        if (e->time_ms >= now_ms - conf->l0_retention_ms && e->f.txid_min < owed)
            owed = e->f.txid_min;
    }
    /* What is not in level 1 yet is still to be merged, though a snapshot may have it already: the
     * moments between would be lost. */
    const uint64_t mark = reach_without(it, owed - 1 < merged ? owed - 1 : merged);
    for (size_t i = 0; i < it->count; i++) {
        struct item *e = &it->a[i];
        if (e->f.level == 0 && e->f.txid_min > 1 && e->f.txid_max <= mark) e->goes = true;
    }
}

/*
 * How far, up to limit, does one get with what stays of the higher levels, and bases, alone? No
 * further than to the first end of a file there that can only be reached by way of level 0.
 * A transaction is reached if one of the files that end there begins at or before the last one that
 * was reached, plus one.
 */
static uint64_t reach_without(const struct items *it, uint64_t limit)
{
    uint64_t all = 0, high = 0; /* the last ones that were reached, with level 0 and without */
    for (size_t i = 0, next; i < it->count && it->a[i].f.txid_max <= limit; i = next) {
        const uint64_t end = it->a[i].f.txid_max;
        bool by_all = false, by_high = false, owed = false;
        for (next = i; next < it->count && it->a[next].f.txid_max == end; next++) {
            const struct item *e = &it->a[next];
            if (!e->step) continue;
            bool is_high = e->f.level > 0 || e->f.txid_min == 1;
            by_all |= e->f.txid_min - 1 <= all;
            by_high |= is_high && !e->goes && e->f.txid_min - 1 <= high;
            owed |= is_high && end > it->floor;
        }
        if (owed && by_all && !by_high) break;
        if (by_all) all = end;
        if (by_high) high = end;
    }
    return high;
}

static void keep_newest(struct items *it)
{
    struct item *newest[LOG_LEVEL_COUNT] = {0};
    for (size_t i = 0; i < it->count; i++) {
        struct item *e = &it->a[i], **best = &newest[e->f.level];
        if (e->step && (*best == NULL || e->f.txid_max >= (*best)->f.txid_max)) *best = e;
    }
    for (size_t i = 0; i < LOG_LEVEL_COUNT; i++)
        if (newest[i] != NULL) newest[i]->goes = false;
}
