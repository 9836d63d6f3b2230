/*
 * progress.h -- a line on the terminal that tells how far a restore is: bytes, rate, time left.
 *
 * Threads: progress_update may be called by any; the others by the owner.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H
#include <pthread.h>
#include "log/restore.h"

struct progress {
    bool on; /* standard error is a terminal */
    pthread_mutex_t lock;
    int64_t start_ms, shown_ms;
};
void progress_init(struct progress *p);
/* Fits struct restore_opts; ctx is the struct progress. */
void progress_update(void *ctx, const struct restore_progress *now);
void progress_step(struct progress *p, const char *text); /* show this instead, at once */
void progress_end(struct progress *p);                    /* remove the line */
/* "12.3 MB of 45.6 MB (26%), 4.1 MB/s, 8 s left"; the rate only after some time. */
void progress_text(const struct restore_progress *now, int64_t elapsed_ms, char *out, size_t size);
#endif
