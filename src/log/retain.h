/*
 * retain.h -- what of a log is to be merged next, and what may be deleted? Pure: from a listing.
 *
 * Level 0 has one file a batch. The files of level n - 1 whose times fall into one interval of
 * level n (intervals are aligned to 1970) become one file of level n once the interval is over, or
 * several when the bounds of a job ask for it. A file that begins at transaction 1 is a base, and
 * is never merged upwards: the base is written once. Snapshots, level 9, are the bases of later.
 *
 * What stays restorable, at each moment and after any part of the deletes:
 *   - the newest transaction;
 *   - each transaction, for l0_retention_ms (0: while level 0, which is never deleted then, or what
 *     stays for the next reason, leads there);
 *   - the end of each file of the levels 1 to 9, for snapshot_retention_ms, and so each moment in
 *     that window as finely: the newest base from before the window stays as well, and all that
 *     leads from there into the window.
 *
 * Times are those of the listing. Where it gives the time of the upload, which is later, things
 * stay a little longer. Threads: any.
 */
#ifndef LOG_RETAIN_H
#define LOG_RETAIN_H
#include "log/plan.h"

#define RETAIN_LEVELS_MAX 8

struct retain_conf {
    uint32_t level_count;                   /* levels that are merged into: 1 to this one */
    int64_t interval_ms[RETAIN_LEVELS_MAX]; /* [0] is that of level 1 */
    int64_t snapshot_interval_ms;           /* 0: none are due */
    int64_t snapshot_retention_ms;          /* 0: for ever */
    int64_t l0_retention_ms;                /* 0: level 0 is never deleted */
    uint32_t files_max;                     /* sources of one job; 0: 1000 */
    uint64_t bytes_max; /* of the sources of one job, unless it is a single file or a snapshot;
                           0: 1 GiB */
};
/* Fails: RC_INVALID, naming the field. */
MUST_CHECK enum rc retain_conf_check(const struct retain_conf *conf, struct err *err);

struct retain_job {
    uint32_t level;           /* of the new file; 0: nothing is due */
    struct log_files sources; /* ascending, as compact_run wants them */
};
void retain_job_fini(struct retain_job *job); /* for CLEANUP too */

/* The next file to make, lowest level first: do it, add it to files, and ask again until nothing is
 * due. files: in any order. Fails: RC_NO_MEM. */
MUST_CHECK enum rc retain_next(const struct log_files *files, const struct retain_conf *conf,
                               int64_t now_ms, struct retain_job *ret_job, struct err *err);
/* What may be deleted, oldest transactions first. The promise above holds wherever the deleting
 * ends, so another listing may begin anew. Never the newest file of a level: Litestream finds its
 * place by them. Fails: RC_NO_MEM. */
MUST_CHECK enum rc retain_expired(const struct log_files *files, const struct retain_conf *conf,
                                  int64_t now_ms, struct log_files *ret_expired, struct err *err);
#endif
