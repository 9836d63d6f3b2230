/*
 * image.h -- whole database files: a copy of one that others use, and files that nobody uses yet.
 *
 * A copy is of one moment: it is made under a hold (source.h), from the frames that the WAL had
 * then and, for all other pages, from the database file. Writers wait for microseconds, at its
 * beginning; the WAL is not restarted before its end.
 *
 * Threads: any.
 */
#ifndef DB_IMAGE_H
#define DB_IMAGE_H
#include "base/thr.h"

/* Write a copy of the database to out_path, which must not exist, and fsync it. It is in WAL mode,
 * as the database, and needs no -wal. On failure nothing is left there. Fails: RC_NOT_FOUND;
 * RC_BUSY; RC_CONFLICT out_path exists; RC_CORRUPT; RC_CANCELED; RC_NO_SPACE, RC_NO_MEM, RC_IO. */
MUST_CHECK enum rc image_copy(const char *path, const char *out_path, const struct call *c,
                              struct err *err);
/* Of a database that nobody uses: copy its WAL into it, delete -wal and -shm, fsync the folder.
 * No database: only the latter. Fails: RC_BUSY somebody does use it; RC_CORRUPT; by errno. */
MUST_CHECK enum rc image_settle(const char *path, struct err *err);
/* Check a file from outside, which nobody uses: a database that is whole, and in UTF-8. Then switch
 * it to WAL mode. Fails: RC_INVALID what is wrong with it; RC_NO_SPACE, RC_NO_MEM, RC_IO. */
MUST_CHECK enum rc image_adopt(const char *path, struct err *err);
#endif
