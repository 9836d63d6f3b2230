/*
 * crew.h -- a few threads that take jobs, fairly between those who have submitted them. For work
 * that is there now; what is due later, or again and again, belongs to sched.h.
 *
 * A job has a key: who it is for. Jobs of one key run in the order of their arrival, keys take
 * turns. A key that has a thread gets another one only while more threads are free than it has, and
 * never more than `share`. So what one key has, even alone, leaves one free for whoever comes next,
 * and the more keys there are the less has each; who finds none free waits for its turn, and not
 * for all that others have submitted.
 *
 * Threads: any.
 */
#ifndef BASE_CREW_H
#define BASE_CREW_H
#include "base/err.h"

struct crew;
struct crew_job {
    void (*run)(struct crew_job *job); /* may free the job, or submit it again */
    /* Private to crew.c: */
    uint64_t key;
    struct crew_job *next;         /* of its key */
    struct crew_job *last;         /* of its key; valid in the first one, as what follows */
    struct crew_job *turn, *chain; /* the key behind it in the round, in the table */
};
struct crew_opts {
    const char *name; /* of the threads */
    unsigned threads;
    unsigned share; /* of them, for one key; 0: no limit but half */
    int nice; /* added to their priority value, 0 to 19: work that shall not slow others down */
};
/* Fails: RC_NO_MEM, RC_BUSY out of threads. */
MUST_CHECK enum rc crew_new(const struct crew_opts *opts, struct crew **ret_c, struct err *err);
/* Ends the threads after everything submitted has been run. NULL is fine. */
void crew_free(struct crew *c);
/* Allocates nothing. */
void crew_submit(struct crew *c, struct crew_job *job, uint64_t key);
uint64_t crew_key(const char *name); /* "": that of everybody who has no name */
size_t crew_waiting(struct crew *c);
#endif
