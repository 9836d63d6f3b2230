/*
 * bell.h -- who says that a database has news: inotify, so that an idle one costs nothing.
 *
 * - On the -wal file: modified or deleted; armed for one ring. While a database is worked on its
 *   watch stays silent, so a busy application pays for one event an interval, not one a write.
 * - On the database file: deleted, moved, permissions changed.
 * - On the folder, while the database does not exist: something was created in it.
 *
 * inotify sees nothing of writes that come from another machine, so on network file systems (and
 * when the limit on watches is reached) bell_arm says no, and the caller polls.
 *
 * Threads: any; rings come from the bell's own thread.
 */
#ifndef NODE_BELL_H
#define NODE_BELL_H
#include "base/err.h"

struct bell;
typedef void bell_fn(void *owner);
#define BELL_NONE (-1)

/* Fails: RC_NO_MEM, RC_BUSY no inotify left, RC_IO. */
MUST_CHECK enum rc bell_new(bell_fn *ring, struct bell **ret_b, struct err *err);
void bell_free(struct bell *b); /* NULL is fine */
/* Ring for owner at the next write to the file, or at its end. *watch: BELL_NONE or what an earlier
 * call for the same path made. Arm first, look at the file after: then no write is missed. Fails:
 * RC_UNSUPPORTED poll instead; RC_NOT_FOUND no such file; RC_NO_MEM. */
MUST_CHECK enum rc bell_arm(struct bell *b, const char *path, void *owner, int *watch,
                            struct err *err);
/* Ring when the file is deleted, moved or its permissions change; stays armed. */
MUST_CHECK enum rc bell_watch_gone(struct bell *b, const char *path, void *owner, int *watch,
                                   struct err *err);
/* Ring when anything is created in the folder or moved into it, or the folder goes; stays armed. */
MUST_CHECK enum rc bell_watch_folder(struct bell *b, const char *path, void *owner, int *watch,
                                     struct err *err);
void bell_drop(struct bell *b, void *owner); /* forget all watches of that owner */
#endif
