/*
 * record.h -- the log that record.c writes and disk.c reads: every change below one folder, in the
 * order in which it happened. Native byte order; it never leaves the machine.
 *
 *   struct record | size bytes: what was written, or names relative to the folder, each ends in 0
 *                 | zeros, so that the next record begins at a multiple of 8
 *
 * An fsync counts from its END, and covers what stands before its BEGIN.
 */
#ifndef POWER_RECORD_H
#define POWER_RECORD_H
#include <stdint.h>

#define RECORD_MAGIC 0x52575031u

/* The recorder's environment. */
#define POWER_ROOT "POWER_ROOT" /* the folder; not set: nothing is recorded */
#define POWER_LOG  "POWER_LOG"  /* the log, outside of it */
#define POWER_LIE                                                                                  \
    "POWER_LIE" /* fsyncs are not recorded: of a "file", of a "dir", of "all", or                  \
                   of names like "*-wal" */
#define POWER_FSYNC_US "POWER_FSYNC_US" /* an fsync takes up to so long; nothing is synced */

enum record_kind {
    RECORD_OPEN,     /* fd, a: flags; name */
    RECORD_CLOSE,    /* fd */
    RECORD_WRITE,    /* fd, a: offset; bytes */
    RECORD_TRUNCATE, /* fd, a: size */
    RECORD_EXTEND,   /* fd, a: size at least */
    RECORD_BEGIN,    /* fd, a: which fsync */
    RECORD_END,      /* a */
    RECORD_RENAME,   /* a: 1 if it must not replace; two names */
    RECORD_LINK,     /* two names */
    RECORD_UNLINK,   /* name */
    RECORD_MKDIR,    /* name */
    RECORD_RMDIR,    /* name */
    RECORD_UNKNOWN,  /* a change that the log cannot express; what it was */
};
struct record {
    uint32_t magic, kind;
    int32_t fd;
    uint32_t size;
    uint64_t a;
};
#define RECORD_SPACE(size) (sizeof(struct record) + (((uint64_t)(size) + 7) & ~(uint64_t)7))
#endif
