/* crew.h -- a writer with a thread that works for it, and writes made of SQL texts. */
#ifndef TESTS_SQL_CREW_H
#define TESTS_SQL_CREW_H
#include "base/buf.h"
#include "sql/writer.h"

#define JOB_STATEMENTS 4

struct crew {
    struct sql_writer *writer;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken, stop, paused;
    unsigned wakes;
};
struct job {
    struct sql_write write;
    struct crew *crew;
    const char *sql[JOB_STATEMENTS]; /* one after another until a failure, or NULL */
    bool go_on;                      /* a failing statement does not end it */
    struct buf rows;                 /* terminated, see bed_sink */
    struct sql_done done;            /* of the last statement */
    int runs, restarts;
    bool ready; /* under the crew's lock */
};
void crew_start(struct crew *e, const struct sql_writer_opts *opts);
void crew_stop(struct crew *e);
void crew_pause(struct crew *e, bool paused); /* what is submitted meanwhile is one group */
void job_init(struct job *j, struct crew *e, const char *a, const char *b);
void job_fini(struct job *j);
enum rc job_submit(struct job *j);
enum rc job_wait(struct job *j);
enum rc job_run(struct crew *e, const char *sql); /* submit, wait, forget */

/* A turn of the writer, with a connection of its own. */
struct hold {
    struct err err; /* of hold_begin */
    struct crew *crew;
    struct sql_conn *conn;
    struct sql_turn turn;
    bool granted; /* under the crew's lock */
};
void hold_ask(struct hold *h, struct crew *e, const struct sql_conn_opts *opts);
void hold_wait(struct hold *h); /* until it is granted */
/* Ask, wait and BEGIN IMMEDIATE. */
enum rc hold_begin(struct hold *h, struct crew *e, const struct sql_conn_opts *opts);
uint64_t hold_end(struct hold *h); /* give back and close; the number of its commit */
void hold_close(struct hold *h);   /* close only: it was never granted */
#endif
