/*
 * plan.h -- which files rebuild a database at a point? Pure.
 *
 * A plan is a chain: it starts with a file whose min is 1, each next file begins at or before the
 * position reached plus one and ends after it, and it ends at the target. Levels, overlaps and
 * several snapshots may be mixed in any way; a hole is passed by any file that bridges it.
 */
#ifndef LOG_PLAN_H
#define LOG_PLAN_H
#include "log/layout.h"

enum plan_kind { PLAN_LATEST, PLAN_TXID, PLAN_TIME };
struct plan_target {
    enum plan_kind kind;
    uint64_t txid;   /* PLAN_TXID: exactly this one */
    int64_t time_ms; /* PLAN_TIME: files created strictly before (Litestream's rule) */
};

/* Choose from files (any order). ret_plan: in order of application. PLAN_LATEST refuses a log whose
 * newest files cannot be reached, rather than restore an old state silently. PLAN_TIME takes the
 * furthest state that can be reached. Files too small to be LTX are no steps.
 * Fails: RC_NOT_FOUND no files, no snapshot for the target, or the txid is not reachable; RC_GAP
 * latest: files beyond a hole, or the newest was cut off; RC_NO_MEM. */
MUST_CHECK enum rc plan_make(const struct log_files *files, const struct plan_target *target,
                             struct log_files *ret_plan, struct err *err);
#endif
