/*
 * source.h -- the only code that opens an application's database, its -wal and its -shm.
 *
 * Closing any descriptor of a database file drops every POSIX lock that this process holds on it,
 * so no other module opens these files, and this one reads them through the VFS files of its own
 * SQLite connections. It never writes to the database other than by SQLite's checkpoint.
 *
 * Two connections take turns. The holder keeps a read transaction open all the time ("the hold"),
 * which is what keeps frames alive:
 *   mark > 0 (the hold began when frames were not in the database yet): nobody can restart the WAL,
 *     because a restart needs every read mark above 0 free;
 *   mark 0 (the hold began when all frames were in the database): nobody can copy newer frames into
 *     the database, so at most one restart happens, and the frames after it stay.
 * The worker takes the write lock for moments, at attach and at the end of a checkpoint.
 *
 * Threads: one at a time per source (its owner); different sources are independent.
 * Sources: https://sqlite.org/walformat.html,
 * https://sqlite.org/c3ref/c_fcntl_begin_atomic_write.html
 */
#ifndef DB_SOURCE_H
#define DB_SOURCE_H
#include "base/err.h"
#include "fmt/wal.h"

struct source;

struct source_opts {
    int busy_timeout_ms; /* how long to wait for the application's locks */
};

/* Once per process, before any other call: SQLite's global settings. */
void source_global_init(void);

/* Open, switch to WAL mode if needed. Takes no hold yet.
 * Fails: RC_NOT_FOUND no file, or an empty one; RC_DENIED permissions; RC_BUSY locked (an
 * application with locking_mode=EXCLUSIVE, or a busy rollback-journal database); RC_CORRUPT not a
 * database; RC_UNSUPPORTED WAL impossible here; RC_NO_SPACE, RC_NO_MEM, RC_IO. */
MUST_CHECK enum rc source_open(const char *path, const struct source_opts *opts,
                               struct source **ret_src, struct err *err);
void source_close(struct source *src);              /* NULL is fine */
bool source_was_switched(const struct source *src); /* journal mode was changed to WAL at open */
const char *source_wal_path(const struct source *src);

/* Begin or end the hold. Fails: RC_BUSY, RC_IO, ... */
MUST_CHECK enum rc source_hold(struct source *src, struct err *err);
void source_unhold(struct source *src);
/* Let the hold move up to the newest commit, without a moment in which nothing is held. Every frame
 * up to the old hold's commit must have been captured: the new hold may stand at mark 0 only if the
 * old hold's commit was the newest one. Not under the write lock. */
MUST_CHECK enum rc source_hold_newest(struct source *src, struct err *err);

/* The write lock: nobody commits, and nobody restarts the WAL, until it is released.
 * Fails: RC_BUSY; RC_DENIED read-only database. */
MUST_CHECK enum rc source_lock(struct source *src, struct err *err);
void source_unlock(struct source *src);

/* Copy committed frames into the database as far as readers permit, without waiting for anybody.
 * Without the write lock: as far as the hold permits. Under the write lock the hold is taken anew
 * afterwards, and stands at mark 0 if all frames were copied; when that fails there is no hold, and
 * source_held tells. Frames held back by other readers are not an error.
 * Fails: RC_NO_SPACE, RC_IO, RC_NO_MEM. */
MUST_CHECK enum rc source_checkpoint(struct source *src, struct err *err);
bool source_held(const struct source *src);
/* Shrink the -wal to nothing, if nobody uses it now. Only with the hold at mark 0, where it cannot
 * take frames that were not captured. RC_OK also when others were in the way. */
MUST_CHECK enum rc source_truncate_wal(struct source *src, struct err *err);

/*
 * Readers that come and go without a gap keep a WAL growing: a checkpoint copies only what the
 * oldest of them has, and the WAL begins anew only when none is at a commit of before. So wait for
 * them, at most wait_ms, while nobody can commit:
 *   source_await_old      under the write lock, before source_checkpoint: those at older commits
 *   source_await_readers  after it, when it copied everything and the lock is gone, with the hold
 *                         at mark 0: all others, so that the next writer begins the WAL anew
 * source_await_old is only a try; it may let the lock go for a moment, in which somebody commits,
 * and the hold moves to the newest commit, captured or not. Fails: as source_lock and source_hold;
 * then there is no lock, or no hold.
 * source_await_readers: false if some stayed, or somebody has committed before it had the lock.
 */
MUST_CHECK enum rc source_await_old(struct source *src, int wait_ms, struct err *err);
bool source_await_readers(struct source *src, int wait_ms, bool *ret_committed);

/* One consistent reading of the wal-index; recovers it through SQLite when it is not valid.
 * Fails: RC_BUSY, RC_CORRUPT, RC_IO. */
MUST_CHECK enum rc source_index(struct source *src, struct wal_index *ret_x, struct err *err);
/* Read from the -wal or the database file; bytes past the end read as zeros.
 * Fails: RC_IO. */
MUST_CHECK enum rc source_read_wal(struct source *src, uint64_t off, void *dst, size_t size,
                                   struct err *err);
MUST_CHECK enum rc source_read_db(struct source *src, uint64_t off, void *dst, size_t size,
                                  struct err *err);
MUST_CHECK enum rc source_db_size(struct source *src, uint64_t *ret_size, struct err *err);
uint32_t source_page_size(const struct source *src);

/* Fails: RC_REPLACED the path, its -wal or its -shm holds another file, or none, since the open. */
MUST_CHECK enum rc source_check_same(struct source *src, struct err *err);

/* PRAGMA integrity_check (full) or quick_check on a database that nobody else uses.
 * Fails: RC_CORRUPT with the first complaint; RC_IO ... */
MUST_CHECK enum rc db_integrity_check(const char *path, bool full, struct err *err);
const char *db_sqlite_version(void);
#endif
