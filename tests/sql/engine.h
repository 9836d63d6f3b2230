/* engine.h -- a writer with a thread that works for it, and writes made of SQL texts. */
#ifndef TESTS_SQL_ENGINE_H
#define TESTS_SQL_ENGINE_H
#include "base/buf.h"
#include "sql/writer.h"

#define JOB_STATEMENTS 4

struct engine {
    struct sql_writer *writer;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken, stop, paused;
};
struct job {
    struct sql_write write;
    struct engine *engine;
    const char *sql[JOB_STATEMENTS]; /* one after another until a failure, or NULL */
    bool go_on;                      /* a failing statement does not end it */
    struct buf rows;                 /* terminated, see bed_sink */
    struct sql_done done;            /* of the last statement */
    int runs, restarts;
    bool ready; /* under the engine's lock */
};
void engine_start(struct engine *e, const struct sql_writer_opts *opts);
void engine_stop(struct engine *e);
void engine_pause(struct engine *e, bool paused); /* what is submitted meanwhile is one group */
void job_init(struct job *j, struct engine *e, const char *a, const char *b);
void job_fini(struct job *j);
enum rc job_submit(struct job *j);
enum rc job_wait(struct job *j);
enum rc job_run(struct engine *e, const char *sql); /* submit, wait, forget */
#endif
