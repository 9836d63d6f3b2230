/* restore.c -- see restore.h: plan, run the plan, and plan again when a file has vanished. */
#include "log/restore.h"
#include "base/mem.h"
#include "base/os.h"
#include "log/restore_out.h"
#include "log/restore_pages.h"

#define REPLANS_MAX 10

static enum rc plan_without(const struct log *lg, const struct call *c,
                            const struct plan_target *target, const struct log_files *gone,
                            struct log_files *ret_plan, struct err *err);
static bool same_file(const struct log_file *a, const struct log_file *b);

enum rc restore_plan(const struct log *lg, const struct call *c, const struct plan_target *target,
                     struct log_files *ret_plan, struct err *err)
{
    return plan_without(lg, c, target, &(struct log_files){0}, ret_plan, err);
}

enum rc restore_run(const struct log *lg, const struct call *c, const struct restore_opts *opts,
                    struct restore_result *ret_result, struct err *err)
{
    CLEANUP(out_discard) struct out_file out = OUT_FILE_INIT;
    struct log_file vanished[REPLANS_MAX];
    struct log_files gone = {.items = vanished};
    struct restore_result result = {0};
    for (;;) {
        CLEANUP(log_files_fini) struct log_files plan = {0};
        size_t at;
        TRY(plan_without(lg, c, &opts->target, &gone, &plan, err));
        if (out.fd < 0)
            TRY(out_create(&out, opts->out_path, opts->mode, err));
        else
            TRY(os_truncate(out.fd, 0, err));
        enum rc rc = restore_pages(lg, c, opts, &plan, out.fd, &result, &at, err);
        if (rc == RC_OK) break;
        if (rc != RC_NOT_FOUND || at == plan.count) return rc;
        if (gone.count == REPLANS_MAX)
            return err_wrap(err, "gave up after %d new plans", REPLANS_MAX);
        vanished[gone.count++] = plan.items[at];
    }
    TRY(out_commit(&out, err));
    result.replans = (uint32_t)gone.count;
    *ret_result = result;
    return RC_OK;
}

/* Plan over what the store lists now, but for the files that it listed before and did not have. */
static enum rc plan_without(const struct log *lg, const struct call *c,
                            const struct plan_target *target, const struct log_files *gone,
                            struct log_files *ret_plan, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files files = {0}, plan = {0};
    const struct log_file *ghost = NULL; /* the furthest file that is listed, but not there */
    size_t kept = 0;
    TRY(log_list_at(lg, c, target->time_ms, &files, err));
    for (size_t i = 0; i < files.count; i++) {
        const struct log_file *known = NULL;
        for (size_t k = 0; k < gone->count; k++)
            if (same_file(&files.items[i], &gone->items[k])) known = &gone->items[k];
        if (known == NULL)
            files.items[kept++] = files.items[i];
        else if (ghost == NULL || known->txid_max > ghost->txid_max)
            ghost = known;
    }
    files.count = kept;
    if (plan_make(&files, target, &plan, err) != RC_OK) {
        if (gone->count == 0) return err->rc;
        return err_wrap(err, "%zu planned files have vanished from the store", gone->count);
    }
    if (target->kind == PLAN_LATEST && ghost != NULL &&
        ghost->txid_max > plan.items[plan.count - 1].txid_max)
        return err_set(err, RC_GAP,
                       "the store lists a file of transactions %016llx to %016llx, level %u, but "
                       "cannot deliver it",
                       (unsigned long long)ghost->txid_min, (unsigned long long)ghost->txid_max,
                       ghost->level);
    *ret_plan = plan;
    plan = (struct log_files){0};
    return RC_OK;
}

static bool same_file(const struct log_file *a, const struct log_file *b)
{
    return a->level == b->level && a->txid_min == b->txid_min && a->txid_max == b->txid_max;
}
