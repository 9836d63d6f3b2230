/*
 * os.h -- every syscall, clock and random source of the program, behind one set of functions, so
 * that a test can make each of them fail (fault.h) and no call site forgets EINTR or short counts.
 *
 * SQLite does its own I/O; in builds with SLUICE_TEST_HOOKS db/source routes that through
 * fault_hit() as well. Threads: any.
 */
#ifndef BASE_OS_H
#define BASE_OS_H
#include <sys/stat.h>
#include "base/err.h"

#define OS_PATH_MAX 4096

/* A descriptor; close with os_close. flags and mode as open(2), O_CLOEXEC is added.
 * Fails: by errno (RC_NOT_FOUND, RC_CONFLICT with O_EXCL, RC_DENIED, RC_NO_SPACE, RC_IO, ...). */
MUST_CHECK enum rc os_open(const char *path, int flags, unsigned mode, int *ret_fd,
                           struct err *err);
void os_close(int fd);   /* negative is fine */
void os_closep(int *fd); /* for CLEANUP */

/* Read up to size bytes at off; fewer only at the end of the file. Fails: RC_IO. */
MUST_CHECK enum rc os_pread(int fd, void *dst, size_t size, uint64_t off, size_t *ret_size,
                            struct err *err);
/* All of it or an error. Fails: RC_NO_SPACE, RC_IO. */
MUST_CHECK enum rc os_pwrite(int fd, const void *src, size_t size, uint64_t off, struct err *err);
void os_advise_stream(int fd); /* a hint: this file will be read once, from front to back */
/* A hint: start writing this range to disk now, so that a later fsync has less to wait for. */
void os_write_behind(int fd, uint64_t off, uint64_t size);
/* For pipes, eventfds and the like: what one read or write moved, or -1 and errno; EINTR is
 * retried. */
int64_t os_read_some(int fd, void *dst, size_t size);
int64_t os_write_some(int fd, const void *src, size_t size);
MUST_CHECK enum rc os_fsync(int fd, struct err *err);
MUST_CHECK enum rc os_truncate(int fd, uint64_t size, struct err *err);
/* Reserve blocks so that later writes inside [0, size) cannot meet a full disk. Where the file
 * system cannot, it only extends the file. */
MUST_CHECK enum rc os_allocate(int fd, uint64_t size, struct err *err);
MUST_CHECK enum rc os_fstat(int fd, struct stat *ret_st, struct err *err);
MUST_CHECK enum rc os_stat(const char *path, struct stat *ret_st, struct err *err);
MUST_CHECK enum rc os_rename(const char *from, const char *to, struct err *err);
/* Rename, but never onto something. Fails: RC_CONFLICT when `to` exists; RC_UNSUPPORTED when the
 * file system cannot promise that in one step. */
MUST_CHECK enum rc os_rename_new(const char *from, const char *to, struct err *err);
/* Fails: RC_CONFLICT when `to` exists; RC_UNSUPPORTED when the file system has no hard links. */
MUST_CHECK enum rc os_link(const char *from, const char *to, struct err *err);
MUST_CHECK enum rc os_unlink(const char *path, struct err *err); /* a missing file is an error */
/* Create a folder and its parents; existing is fine. Each new one is fsynced into its parent. */
MUST_CHECK enum rc os_mkdirs(const char *path, unsigned mode, struct err *err);
MUST_CHECK enum rc os_rmdir(const char *path, struct err *err);
MUST_CHECK enum rc os_fsync_dir(const char *path, struct err *err);
MUST_CHECK enum rc os_set_mtime(int fd, int64_t mtime_ms, struct err *err);
/* Take an exclusive lock on the open file, without waiting. It ends with the descriptor (an "open
 * file description" lock, so other descriptors of this process do not matter).
 * Fails: RC_BUSY held by another; RC_IO. */
MUST_CHECK enum rc os_lock(int fd, struct err *err);

/* Names in a folder, without "." and "..", in ascending byte order. fn's failure ends the walk. */
typedef enum rc os_name_fn(void *ctx, const char *name, struct err *err);
MUST_CHECK enum rc os_list(const char *path, os_name_fn *fn, void *ctx, struct err *err);

/* Read a whole small file. Fails: RC_TOO_BIG above size_max; by errno. */
struct buf;
MUST_CHECK enum rc os_read_file(const char *path, size_t size_max, struct buf *out,
                                struct err *err);
/* Write a file whole or not at all: <path>.tmp, fsync, rename, fsync of the folder. */
MUST_CHECK enum rc os_write_file(const char *path, const void *data, size_t size, unsigned mode,
                                 struct err *err);

/* Run a command line by /bin/sh, with nothing to read, and append what it writes to its standard
 * output; *ret_status is its exit status, or 128 and the signal's number. It and its children are
 * killed after timeout_ms, at more than size_max bytes, and when c says so.
 * Fails: RC_TOO_BIG; RC_AGAIN too slow; RC_CANCELED; by errno. */
struct call;
MUST_CHECK enum rc os_run_capture(const char *command, size_t size_max, int64_t timeout_ms,
                                  const struct call *c, struct buf *out, int *ret_status,
                                  struct err *err);

int64_t os_now_ms(void);  /* wall clock, ms since 1970 */
int64_t os_mono_ms(void); /* monotonic clock */
int64_t os_mono_us(void); /* the same clock, for measurements */
void os_sleep_ms(int64_t ms);
void os_sleep_us(int64_t us); /* below a second */
uint64_t os_random(void);
int os_cpu_count(void);
/* Soft limit on descriptors up to the hard one. Returns what it is now; 0: not known. */
uint64_t os_raise_fd_limit(void);
/* Absolute form of path, without touching the disk beyond getcwd. Fails: RC_INVALID too long. */
MUST_CHECK enum rc os_abspath(const char *path, char ret_path[OS_PATH_MAX], struct err *err);
#endif
