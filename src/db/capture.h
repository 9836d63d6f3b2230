/*
 * capture.h -- turn what an application commits to its database into staged LTX batches.
 *
 * One capture follows one database. Whoever is told that something happened (a bell) calls
 * capture_sync; every call that finds new commits stages one batch, numbered by the next TXID.
 *
 * Continuity is proved, never guessed. A batch continues from the position of the last one only if
 * the frames in between are certain to be all there:
 *   same WAL generation (salts): the checksum chain runs on from the captured position, frame by
 *     frame, to the checksum that the wal-index gives for its end;
 *   next generation: everything in the old one had been captured AND copied into the database while
 *     our hold was open (source.h), so exactly one restart can have happened, with nothing lost.
 * In every other case (downtime with a checkpoint, a WAL deleted, a database replaced, a broken
 * lock) the database is read through and compared with the recorded hash of each page; only pages
 * that differ become a batch.
 *
 * Threads: one owner at a time.
 */
#ifndef DB_CAPTURE_H
#define DB_CAPTURE_H
#include "db/batch.h"

struct capture;

struct capture_opts {
    int busy_timeout_ms;
    enum ltx_encoding encoding;
    uint32_t checkpoint_pages; /* checkpoint when the WAL has this many frames; 0: 1000 */
    uint32_t truncate_pages;   /* shrink the -wal file above this many; 0: never */
    int readers_wait_ms;       /* writers may wait so long for readers, so that a WAL that grows can
                                * begin anew; 0: never */
    uint64_t sync_bytes_max;   /* WAL bytes in a batch, softly; 0: no limit */
    bool relaxed; /* commits do not wait for the disk: bring them there before they are staged, so
                   * that no log ever knows more than what a power failure leaves of the database */
};

enum capture_why { /* why a batch holds more than the WAL's news */
                   CAPTURE_CONTINUED,
                   CAPTURE_FIRST,   /* no local state, or the log asked for a whole database */
                   CAPTURE_ADOPTED, /* the database is the one that the log ends with: nothing to do
                                     */
                   CAPTURE_COMPARED, /* continuity could not be proved: compared page by page */
};
struct capture_result {
    bool staged;   /* a batch was staged */
    bool more;     /* call again at once: a limit cut this one */
    bool snapshot; /* a whole image waits at state_snapshot_path */
    bool switched; /* the database was switched to WAL mode just now */
    enum capture_why why;
    uint64_t txid; /* position, staged or not */
    uint32_t pages;
    uint64_t size;      /* bytes of the LTX file */
    uint64_t wal_bytes; /* of the WAL, now */
};

/* Open the local state in meta_dir and lock it; the database itself is opened at the first sync and
 * need not exist. Fails: RC_FENCED another process replicates it; RC_DENIED, RC_NO_SPACE, RC_IO. */
MUST_CHECK enum rc capture_open(const char *path, const char *meta_dir,
                                const struct capture_opts *opts, struct capture **ret_cap,
                                struct err *err);
/* Let go of the database; the next open goes on from this position. NULL is fine. */
void capture_close(struct capture *cap);
/* Let go of the database, keep the state. The next sync opens it again. */
void capture_detach(struct capture *cap);

/* Let go of an idle database of at most pages_max pages, whose WAL is all captured and copied: a
 * sleeping one costs one descriptor and a few hundred bytes. The next sync opens and compares it.
 * Fails: as state_commit. */
MUST_CHECK enum rc capture_sleep(struct capture *cap, uint32_t pages_max, bool *ret_asleep,
                                 struct err *err);

/* Is a database that nobody captures now just as its newest batch has left it? The proof is the one
 * of a sync that finds the WAL continued, and the end of the WAL; but it opens no database, takes
 * no lock and costs a few reads. The batch's TXID; 0: not proved, let a sync find out. */
uint64_t capture_settled(const char *path, const char *meta_dir);

struct state *capture_state(struct capture *cap);
const char *capture_wal_path(const struct capture *cap); /* NULL while detached */
/* The next batch must be txid + 1 and hold the whole database. */
MUST_CHECK enum rc capture_restart_at(struct capture *cap, uint64_t txid, struct err *err);

/* After capture_restart_at: the log's newest state has this digest. If the database still is that
 * state (it was just restored), go on from there, without uploading it again. */
void capture_expect(struct capture *cap, struct digest digest, int64_t timestamp_ms);

/* After capture_restart_at: the log's newest file has pages of this size; 0: unknown. A chain of
 * files cannot mix sizes, so if the database has another, its whole image is written, too. */
void capture_log_page_size(struct capture *cap, uint32_t page_size);

/* Stage what is new. Fails: RC_NOT_FOUND no database; RC_REPLACED it is another file now (the next
 * sync opens that one); RC_BUSY, RC_DENIED, RC_CORRUPT, RC_NO_SPACE, RC_IO: nothing is lost, call
 * again later. */
MUST_CHECK enum rc capture_sync(struct capture *cap, struct batch_scratch *s,
                                struct capture_result *ret_result, struct err *err);
/* The next sync compares pages and also writes a whole image, for level 9. */
void capture_want_snapshot(struct capture *cap);
/* How many frames wait to be captured? Cheap: reads shared memory. 0 while detached. */
uint32_t capture_pending(struct capture *cap);
/* Is there a frame behind the committed ones, of a commit on its way through an fsync to the
 * wal-index, or of a transaction that was rolled back? Reads 24 bytes. False while detached. */
bool capture_in_flight(struct capture *cap);
/* Are there frames that a checkpoint could copy? */
bool capture_wants_checkpoint(struct capture *cap);
/* Checkpoint if the WAL is long enough, or `force`. May stage a batch. Call after a sync without
 * `more`. Fails: as capture_sync. */
MUST_CHECK enum rc capture_checkpoint(struct capture *cap, struct batch_scratch *s, bool force,
                                      struct capture_result *ret_result, struct err *err);
#endif
