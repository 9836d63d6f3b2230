/*
 * err.h -- how a failure travels: a code for the caller, a sentence for the human.
 *
 * `enum rc` says what the CALLER should do next; the text in `struct err` says what happened. The
 * lowest layer sets the text once (err_set, err_sys), every layer that can add a fact puts it in
 * front (err_wrap), and `node` or `cli` report it once. Libraries never print.
 *
 * Threads: a struct err belongs to one thread.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

/*    code         retry  http exit meaning */
#define RC_MAP(X)                                                                                  \
    X(OK, false, 200, 0, "success")                                                                \
    X(NOT_FOUND, false, 404, 1, "no such object, database or transaction")                         \
    X(CONFLICT, false, 409, 1, "precondition failed: somebody else wrote first")                   \
    X(GAP, false, 409, 1, "transaction does not follow the current position")                      \
    X(FENCED, false, 409, 1, "another daemon owns this database")                                  \
    X(BUSY, true, 503, 1, "locked or full; try again soon")                                        \
    X(AGAIN, true, 503, 1, "remote or network trouble; try again with back-off")                   \
    X(DENIED, false, 403, 1, "credentials or permissions refused")                                 \
    X(CORRUPT, false, 500, 1, "bytes from disk or network fail their checks")                      \
    X(INVALID, false, 400, 1, "the caller or the user asked for nonsense")                         \
    X(TOO_BIG, false, 413, 1, "a configured limit would be exceeded")                              \
    X(NO_SPACE, true, 507, 1, "disk or quota full")                                                \
    X(NO_MEM, true, 500, 1, "allocation failed")                                                   \
    X(CANCELED, false, 503, 1, "deadline passed or shutdown requested")                            \
    X(UNSUPPORTED, false, 501, 1, "this build or this store cannot do that")                       \
    X(REPLACED, false, 410, 1, "the file is no longer the one that was opened")                    \
    X(IO, true, 500, 1, "local I/O failed")

enum rc {
#define X(name, ...) RC_##name,
    RC_MAP(X)
#undef X
};

#define ERR_TEXT_MAX 512

struct err {
    enum rc rc;
    int sys;                 /* errno or SQLite extended code where it first failed; 0 if none */
    char text[ERR_TEXT_MAX]; /* always terminated; a longer text is cut and ends in "..." */
};

#define MUST_CHECK __attribute__((warn_unused_result))
#define FMT(f, a)  __attribute__((format(printf, f, a)))

/* Return early with the code of a failed expression. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum rc try_rc_ = (expr);                                                                  \
        if (try_rc_ != RC_OK) return try_rc_;                                                      \
    } while (0)

/* For our own invariants only, on in release. Bytes from outside earn RC_CORRUPT, never this. */
#define ASSERT(cond) ((cond) ? (void)0 : assert_fail(#cond, __FILE__, __LINE__))
_Noreturn void assert_fail(const char *cond, const char *file, int line);

enum rc err_set(struct err *err, enum rc rc, const char *fmt, ...) FMT(3, 4); /* returns rc */
/* Set from errno: its text is appended, and it picks the code. Returns that code. */
enum rc err_sys(struct err *err, int sys, const char *fmt, ...) FMT(3, 4);
/* Put "context: " in front of the text that is there. Returns err->rc. */
enum rc err_wrap(struct err *err, const char *fmt, ...) FMT(2, 3);
void err_clear(struct err *err);

const char *rc_name(enum rc rc);    /* "NOT_FOUND" */
const char *rc_meaning(enum rc rc); /* the sentence of RC_MAP */
bool rc_retryable(enum rc rc);
int rc_exit(enum rc rc);
unsigned rc_http(enum rc rc); /* status of an answer over HTTP */
#endif
