/*
 * restore_out.h -- the file that a restore makes: "<path>.tmp" until it is whole, then path.
 *
 * Only restore*.c include this file. Threads: one owner; the descriptor may be written by many.
 */
#ifndef LOG_RESTORE_OUT_H
#define LOG_RESTORE_OUT_H
#include "base/mem.h"
#include "base/os.h"

struct out_file {
    const char *path; /* borrowed */
    char tmp[OS_PATH_MAX];
    int fd;
};
#define OUT_FILE_INIT ((struct out_file){.fd = -1})

/* Create <path>.tmp, empty and locked, and missing folders; one that a crashed restore left behind
 * is replaced. Refuses a path that holds data, or has a -wal or -journal beside it: SQLite would
 * replay that into the new database. Fails: RC_CONFLICT those; RC_BUSY another restore writes
 * there; RC_INVALID too long; by errno. */
MUST_CHECK enum rc out_create(struct out_file *out, const char *path, unsigned mode,
                              struct err *err);
/* fsync, rename to path, fsync the folder; closes. Fails: by errno. When the last step fails, the
 * whole and right file stands at path already. */
MUST_CHECK enum rc out_commit(struct out_file *out, struct err *err);
/* For CLEANUP: unless committed, close and remove the file. */
void out_discard(struct out_file *out);
#endif
