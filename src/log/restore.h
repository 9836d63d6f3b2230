/*
 * restore.h -- rebuild a database from its log, at any point, into a new file.
 *
 * Reads the page index of each planned file, newest first, and decides once which file holds the
 * newest version of each page; fetches only those, in parallel, straight into "<out>.tmp"; checks
 * the digest; fsync; rename; fsync of the folder. A planned file that vanished (retention) leads to
 * a new plan. Memory is bounded whatever the size of the database (docs/ARCHITECTURE.md).
 */
#ifndef LOG_RESTORE_H
#define LOG_RESTORE_H
#include "log/plan.h"

struct restore_progress {
    uint64_t bytes_done, bytes_total; /* of the log's files */
};
struct restore_opts {
    struct plan_target target;
    const char *out_path; /* must not exist, or be empty; missing folders are made */
    unsigned parallelism; /* 0: 8 */
    unsigned mode;        /* of the new file; 0: 0600 */
    void (*progress)(void *ctx,
                     const struct restore_progress *p); /* may be NULL; from any thread */
    void *progress_ctx;
};
struct restore_result {
    uint64_t txid; /* 0 for a v0.3 restore */
    uint32_t page_size, page_count;
    bool digest_checked; /* the log carried a digest and it matched */
    struct digest_text {
        char hex[33];
    } digest;
    uint32_t replans; /* times a planned file had vanished */
};
/* A leftover <out>.tmp of a crashed restore is replaced. After a failure nothing is left at
 * out_path, except when only the last fsync, of the folder, failed: then the whole, right file is.
 * Fails: RC_NOT_FOUND, RC_GAP as plan_make; RC_CORRUPT a file, or the digest, fails its check;
 * RC_CONFLICT out_path holds data, or a -wal or -journal that SQLite would replay stands beside it;
 * RC_BUSY another restore writes there; store and local I/O errors; RC_CANCELED. */
MUST_CHECK enum rc restore_run(const struct log *lg, const struct call *c,
                               const struct restore_opts *opts, struct restore_result *ret_result,
                               struct err *err);
/* Plan only, for -dry-run. */
MUST_CHECK enum rc restore_plan(const struct log *lg, const struct call *c,
                                const struct plan_target *target, struct log_files *ret_plan,
                                struct err *err);

/* ---- Litestream 0.3: whole copies and WAL files below generations/ ---- */
struct v3_summary {
    bool any;            /* the replica holds a 0.3 snapshot that fits the target */
    int64_t snapshot_ms; /* of the best snapshot for the target */
    int64_t newest_ms;   /* of the newest 0.3 object */
};
/* PLAN_TIME includes what was made at that very moment, as 0.3 did; PLAN_TXID fits nothing.
 * Fails: as store_list; RC_NO_MEM. */
MUST_CHECK enum rc restore_v3_find(const struct log *lg, const struct call *c,
                                   const struct plan_target *target, struct v3_summary *ret_sum,
                                   struct err *err);
/* The result has no txid and no digest: 0.3 knew neither.
 * Fails: as restore_run; RC_GAP missing WAL index or segment. */
MUST_CHECK enum rc restore_v3_run(const struct log *lg, const struct call *c,
                                  const struct restore_opts *opts,
                                  struct restore_result *ret_result, struct err *err);
#endif
