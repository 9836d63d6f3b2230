/*
 * exec_intern.h -- what the files of an execution share.
 *
 *   exec.c       from request to request, and from thread to thread
 *   exec_stmt.c  one statement: read, lone write, in a transaction
 *   exec_attach.c  ATTACH of another tenant
 *   exec_unit.c  a batch as one unit of a group
 */
#ifndef SERVER_EXEC_INTERN_H
#define SERVER_EXEC_INTERN_H
#include "server/exec.h"

enum next {
    NEXT_GO,   /* it is done, the next one may come */
    NEXT_WAIT, /* somebody else goes on with it: do not touch it any more */
    NEXT_WORK, /* do it again, on the working crew */
    NEXT_SLOW, /* the same, on the slow crew */
    NEXT_FAIL  /* the whole execution has failed: rc, err and sql_err say why */
};
enum verdict { VERDICT_SKIPPED, VERDICT_OK, VERDICT_ERROR };

/* For functions that return enum next. */
#define TRY_NEXT(x, expr, err)                                                                     \
    do {                                                                                           \
        enum rc try_next_ = (expr);                                                                \
        if (try_next_ != RC_OK) return exec_fail(x, try_next_, err);                               \
    } while (0)

/* Go on where it stands, on this thread. */
void exec_run(struct exec *x);
/* The statement (or unit) at hand ended elsewhere, with `next`. Goes on: on this thread if what is
 * left is a trifle. */
void exec_resume(struct exec *x, enum next next);
void exec_to_work(struct exec *x);
/* In and out of the list of those who wait; out: under env->lock, no longer in it is fine. */
void exec_list(struct exec *x);
void exec_unlist(struct exec *x);
/* Between two steps of a batch: may it grow on? Fails: RC_TOO_BIG. */
MUST_CHECK enum rc exec_grown(struct exec *x, struct err *err);
/* What cannot be told to the client in its result. */
enum next exec_fail(struct exec *x, enum rc rc, const struct err *err);

/* The text of a statement, into x->sql. Fails: RC_INVALID an unknown number. */
MUST_CHECK enum rc exec_resolve(struct exec *x, const struct hrana_sql *sql, struct err *err);
bool exec_condition(const struct exec *x, const struct hrana_cond *c, bool autocommit);

/* The result or step at hand: begin it, end it well, end it badly. */
MUST_CHECK enum rc exec_open(struct exec *x, enum hrana_type type, struct err *err);
enum next exec_close_ok(struct exec *x);
enum next exec_close_bad(struct exec *x, struct sql_error *sql_err);

enum next exec_stmt(struct exec *x, const struct hrana_stmt *st);
enum next exec_script(struct exec *x, const struct hrana_sql *sql);
enum next exec_describe(struct exec *x, const struct hrana_sql *sql);
MUST_CHECK enum rc exec_sink_cols(void *ctx, const struct sql_col *cols, size_t count,
                                  struct err *err);
MUST_CHECK enum rc exec_sink_row(void *ctx, const struct sql_value *values, size_t count,
                                 struct err *err);
struct call exec_call(const struct exec *x, int64_t ms);
struct sql_limits exec_limits(const struct exec *x);
int64_t exec_hold_ms(const struct exec *x); /* so long the tenant lets a write have the lock */
void exec_note(struct exec *x, int64_t since_us, const struct sql_error *sql_err);
/* x->write, where run, restart and fn are filled in: to the writer, with the client's policy and
 * time. What is encoded from here on can be taken back. Fails: as sql_writer_submit. */
MUST_CHECK enum rc exec_submit(struct exec *x, struct err *err);
/* Something was committed: its index. */
uint64_t exec_committed(struct exec *x);

/* True: the statement at hand is ATTACH, and *ret_rc is how it went. May open a tenant. */
bool exec_attach(struct exec *x, struct sql_error *sql_err, enum rc *ret_rc, struct err *err);
/* True: the batch at hand runs as one unit; *ret_next says how to go on. */
bool exec_unit(struct exec *x, const struct hrana_batch *b, enum next *ret_next);
#endif
