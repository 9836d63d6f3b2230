/*
 * compact.h -- merge files of a log into one: a run of one level into the next, or all that a
 * restore would read into a snapshot.
 *
 * The newest file that names a page provides it; pages beyond the end of the newest state are left
 * out. The new file has the first transaction of the first source, and of the last one everything
 * else: transaction, size, time, digest. It tracks no checksums and has no place in a WAL, as
 * Litestream wants it. Pages are copied in the packing that they have; none is packed anew.
 *
 * What is merged was checked: by the file checksum of every source, or a snapshot by the digest
 * that the newest source carries and by that one's checksum. So damage is refused, and not sealed
 * anew. The new file is put in one go and appears whole or not at all. Nothing is deleted here
 * (retain.h).
 *
 * Memory: less than 48 MiB, whatever the size of the database and the number of sources, and what
 * the store needs for a put. The index of the new file (some 11 bytes a page) waits in a temporary
 * file without a name when it exceeds 1 MiB; for a store that cannot take a body of unknown size
 * the whole new file goes to one first.
 *
 * Threads: any; one call runs `parallelism` threads.
 */
#ifndef LOG_COMPACT_H
#define LOG_COMPACT_H
#include "log/plan.h"

#define COMPACT_FILES_MAX 4096 /* sources of one new file */

struct compact_opts {
    uint32_t level;       /* of the new file: 1..8 of files below it, 9 of any that begin at 1 */
    unsigned parallelism; /* requests and pages at a time; 0: 4 */
    const char *tmp_dir;  /* for a large index; NULL: $TMPDIR, /var/tmp or /tmp */
    uint32_t index_max;   /* bytes of the new index kept in memory; 0: 1 MiB */
    uint32_t held_max;    /* bytes of small sources held whole; 0, and at most: 16 MiB */
};
struct compact_result {
    struct log_file file; /* what is there now */
    uint64_t pages;       /* in it */
    bool existed;         /* with these very bytes: an earlier try, or another one's */
    uint32_t replans;     /* compact_snapshot: times that a source had vanished */
};

/*
 * Merge sources (ascending; each begins at or before the end of the one before plus one, and ends
 * after it) into one file, which must not exist: where the store arbitrates, it is created, never
 * overwritten. *reterr_gone: index of the source that is not in the store any more, else
 * sources->count; set on failure too.
 * Fails: RC_NOT_FOUND a source has vanished: plan anew; RC_CORRUPT a source, named, or the digest
 * fails its check; RC_CONFLICT another file of that name is there; RC_INVALID, RC_TOO_BIG sources
 * that make no run, too many; RC_NO_MEM; RC_CANCELED; as store_get, store_put; by errno for the
 * temporary file. After RC_AGAIN, RC_IO or RC_CANCELED the new file may or may not exist.
 */
MUST_CHECK enum rc compact_run(const struct log *lg, const struct call *c,
                               const struct log_files *sources, const struct compact_opts *opts,
                               struct compact_result *ret_result, size_t *reterr_gone,
                               struct err *err);
/*
 * A snapshot of transaction txid (0: the newest) out of what a restore would read; opts->level is
 * not looked at. Lists the log; plans anew when a source vanishes meanwhile. Nothing is done when
 * there is such a snapshot: `existed`, and `pages` is 0.
 * Fails: as restore_plan and compact_run.
 */
MUST_CHECK enum rc compact_snapshot(const struct log *lg, const struct call *c, uint64_t txid,
                                    const struct compact_opts *opts,
                                    struct compact_result *ret_result, struct err *err);
#endif
