/*
 * state.h -- what one daemon remembers about one database, in "<dir>/.<name>-sluice/".
 *
 *   lock              held by the daemon; its pid inside
 *   state             two header slots, written in turn: the position up to which `pages` is right
 *   pages             16 bytes a page: its digest_page, at (page number - 1) * 16
 *   ltx/<txid>.staged a batch: a whole LTX file and a 48-byte footer with the WAL position after it
 *
 * Write-ahead rule: a staged batch is on disk (fsync) before its hashes go into `pages`, and it is
 * kept until a header that covers it is on disk. So after any interruption `pages` is brought to
 * the newest staged batch by replaying those after the header's position, and what it says is true.
 * Everything here can be deleted: the next start then uploads a whole database once.
 *
 * Threads: one owner; state_staged_path and state_drop_staged may be called by another thread.
 */
#ifndef DB_STATE_H
#define DB_STATE_H
#include "base/os.h"
#include "fmt/digest.h"
#include "fmt/wal.h"

struct db_pos {    /* where capture stands */
    uint64_t txid; /* newest batch; 0: none yet */
    struct digest digest;
    uint32_t page_size, page_count;
    int64_t timestamp_ms; /* of the newest batch */
    uint32_t wal_salt1, wal_salt2;
    uint32_t wal_frame;     /* frames of that WAL generation that are captured */
    struct wal_sum wal_sum; /* running checksum after them */
};

struct state;
#define STATE_FOOTER_SIZE 48

/* Create or open, lock, read the header, replay staged batches.
 * Fails: RC_FENCED another process holds it (text names its pid); RC_DENIED, RC_NO_SPACE, RC_IO.
 * Damaged contents are not a failure: the state then starts empty, and state_was_reset tells. */
MUST_CHECK enum rc state_open(const char *dir, struct state **ret_st, struct err *err);
/* After a failed batch_seal: read the header again and replay, so that table and position agree. */
MUST_CHECK enum rc state_reload(struct state *st, struct err *err);
/* Keep only the lock: commit and close the files until state_wake. For idle databases.
 * Fails: as state_commit. */
MUST_CHECK enum rc state_sleep(struct state *st, struct err *err);
MUST_CHECK enum rc state_wake(struct state *st, struct err *err);
void state_close(struct state *st); /* NULL is fine; writes nothing */
bool state_was_reset(const struct state *st);

const struct db_pos *state_pos(const struct state *st);
/* Move on after a staged batch: hashes are in `pages` already. In memory only. */
void state_advance(struct state *st, const struct db_pos *pos);
/* Make the position durable (fsync pages, then header). Fails: RC_NO_SPACE, RC_IO. */
MUST_CHECK enum rc state_commit(struct state *st, struct err *err);
/* Does a commit pay by now? After some batches, or much staged. */
bool state_wants_commit(const struct state *st);
/* Was so little staged since the last commit that to read it again costs less than two fsyncs? */
bool state_replays_quickly(const struct state *st);
/* Forget hashes and staged batches; the next batch follows `txid` and must hold every page. */
MUST_CHECK enum rc state_reset(struct state *st, uint64_t txid, struct err *err);

/* Hashes of pages [first, first + count); past the end of the table: zeros. */
MUST_CHECK enum rc state_read_pages(struct state *st, uint32_t first, uint32_t count,
                                    struct digest *ret, struct err *err);
/* Record the hashes of `count` pages. Page numbers (ascending) and hashes are read at `stride`
 * bytes, so that an array of any struct that holds both will do; neighbours become one write. */
MUST_CHECK enum rc state_write_fresh(struct state *st, size_t count, const uint32_t *pgnos,
                                     const struct digest *hashes, size_t stride, struct err *err);
/* Reserve the disk space for that many pages, so that state_write_pages meets no full disk. */
MUST_CHECK enum rc state_reserve_pages(struct state *st, uint32_t count, struct err *err);

void state_footer_put(const struct db_pos *pos, uint8_t out[STATE_FOOTER_SIZE]);
void state_staged_path(const struct state *st, uint64_t txid, char ret_path[OS_PATH_MAX]);
/* A whole image for level 9 that waits for its upload. */
void state_snapshot_path(const struct state *st, char ret_path[OS_PATH_MAX]);
/* Path of the batch that is being written, and its promotion to `txid`. */
void state_temp_path(const struct state *st, char ret_path[OS_PATH_MAX]);
MUST_CHECK enum rc state_promote_temp(struct state *st, uint64_t txid, uint64_t size,
                                      struct err *err);
/* Verify a staged batch and bring the table and the position to it. Fails: RC_CORRUPT, RC_IO ... */
MUST_CHECK enum rc state_replay(struct state *st, uint64_t txid, struct err *err);
/* First and last staged batch; 0, 0 when there is none. They are contiguous. */
MUST_CHECK enum rc state_staged_range(const struct state *st, uint64_t *ret_first,
                                      uint64_t *ret_last, struct err *err);
/* Header of a staged batch, and the size of its LTX file. Fails: RC_NOT_FOUND, RC_CORRUPT. */
struct ltx_header;
MUST_CHECK enum rc state_staged_info(const struct state *st, uint64_t txid,
                                     struct ltx_header *ret_h, uint64_t *ret_size, struct err *err);
/* Delete staged batches below txid that the durable position covers. */
MUST_CHECK enum rc state_drop_staged(struct state *st, uint64_t below_txid, struct err *err);

/* Read-only look at a state folder, for `status`; takes no lock.
 * Fails: RC_NOT_FOUND none there; RC_CORRUPT. */
MUST_CHECK enum rc state_peek(const char *dir, struct db_pos *ret_pos, struct err *err);
/* The same with all of the position, for a state that its owner has closed with nothing left to do.
 * Fails: also RC_BUSY an image waits. */
MUST_CHECK enum rc state_peek_settled(const char *dir, struct db_pos *ret_pos, struct err *err);
#endif
