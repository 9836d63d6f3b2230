/*
 * crew.h -- a few threads that take jobs in the order of their arrival. For work that is there now;
 * what is due later, or again and again, belongs to sched.h.
 *
 * Threads: any.
 */
#ifndef BASE_CREW_H
#define BASE_CREW_H
#include "base/err.h"

struct crew;
struct crew_job {
    void (*run)(struct crew_job *job); /* may free the job, or submit it again */
    struct crew_job *next;             /* private to crew.c */
};
/* nice: added to the threads' priority value, 0 to 19: work that shall not slow others down.
 * Fails: RC_NO_MEM, RC_BUSY out of threads. */
MUST_CHECK enum rc crew_new(const char *name, unsigned threads, int nice, struct crew **ret_c,
                            struct err *err);
/* Ends the threads after everything submitted has been run. NULL is fine. */
void crew_free(struct crew *c);
void crew_submit(struct crew *c, struct crew_job *job);
size_t crew_waiting(struct crew *c);
#endif
