/*
 * batch.h -- turn pages of a source into one staged LTX file and the hashes that go with it.
 *
 *   collect   read WAL frames, verify the checksum chain, keep the newest frame of each page
 *   write     pages in ascending order -> batch.tmp (not yet synced)
 *   seal      fsync, rename to <txid>.staged, fsync the folder, then the hash table
 *
 * write and seal are apart because a checkpoint writes under the application's write lock and seals
 * after it: no fsync of ours makes a writer wait.
 *
 * Threads: one owner. The scratch memory is shared by all databases of a worker thread.
 */
#ifndef DB_BATCH_H
#define DB_BATCH_H
#include "base/buf.h"
#include "db/source.h"
#include "db/state.h"
#include "fmt/ltx.h"

struct batch_scratch;
MUST_CHECK enum rc batch_scratch_new(struct batch_scratch **ret_s, struct err *err);
void batch_scratch_free(struct batch_scratch *s); /* NULL is fine */
/* The same for a pool's threads (sched_new). */
MUST_CHECK enum rc batch_worker_new(void **ret_worker, struct err *err);
void batch_worker_free(void *worker);

struct batch_range {      /* frames of one WAL generation */
    uint32_t first, last; /* first..last; last is a commit frame */
    uint32_t page_count;  /* database size after them */
    struct wal_sum sum;   /* chain after last */
};
/* Read frames after pos up to x->frame_max, or to the first commit at or past bytes_max (0: no
 * limit). The refs stay in the scratch until the next collect.
 * Fails: RC_CORRUPT the chain does not continue or does not end as the wal-index says; RC_IO. */
MUST_CHECK enum rc batch_collect(struct batch_scratch *s, struct source *src,
                                 const struct db_pos *pos, const struct wal_index *x,
                                 uint64_t bytes_max, struct batch_range *ret_range,
                                 struct err *err);
void batch_collect_none(struct batch_scratch *s);

enum batch_kind {
    BATCH_WAL,  /* the collected pages, and those between the old and the new size */
    BATCH_DIFF, /* every page whose hash is not the recorded one */
    BATCH_FULL, /* every page */
    BATCH_HASH, /* every page is hashed into an empty table; no file */
};
struct batch_spec {
    enum batch_kind kind;
    enum ltx_encoding encoding;
    struct db_pos before; /* where the state stands */
    struct db_pos after;  /* txid, page size and count, WAL position; digest is computed */
    int64_t wal_off, wal_size;
    uint64_t txid_min; /* after.txid, or 1 for a snapshot */
    const char
        *snapshot_path; /* write there (temp, fsync, rename), not as a batch; NULL: a batch */
};
struct batch_done {
    struct db_pos after; /* digest filled in */
    uint64_t size;       /* bytes of the LTX file */
    uint32_t pages;      /* 0: nothing differs, there is no file */
};
/* Pages come from the collected frames, else from the database file. Fails: RC_NO_SPACE, RC_IO,
 * RC_NO_MEM; then nothing has changed. */
MUST_CHECK enum rc batch_write(struct batch_scratch *s, struct source *src, struct state *st,
                               const struct batch_spec *spec, struct batch_done *ret_done,
                               struct err *err);
/* After a failure from here the state must be opened anew (it replays). */
MUST_CHECK enum rc batch_seal(struct batch_scratch *s, struct state *st,
                              const struct batch_done *done, struct err *err);
#endif
