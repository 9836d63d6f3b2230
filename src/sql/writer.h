/*
 * writer.h -- group commit: autocommit writes of all clients that wait together become one
 * transaction of savepoints with one fsync.
 *
 *   submit ──► queue ──► [BEGIN IMMEDIATE  SAVEPOINT w1 RELEASE  SAVEPOINT w2 ROLLBACK TO ...
 * COMMIT] each with its own result; a failing one takes no other with it │ COMMIT failed: all of
 * the group fail with its cause ▼ fn(done) of each, in order, after the commit is on disk
 *
 * A write is a list of statements that run as one unit (a batch of the protocol that has no
 * BEGIN of its own): all of it stays or, when `run` fails, nothing. Rows of RETURNING go to the
 * write's sink while the transaction is still open: the sink must keep them and let nobody see them
 * before `done` says success.
 *
 * What cannot run inside of a transaction that others share (VACUUM, BEGIN ... COMMIT scripts,
 * savepoints, settings and temporary tables of a connection) is marked `alone` and gets a turn of
 * its own, without BEGIN or savepoint around it. A write that tries such a thing without the mark
 * is undone, told to `restart`, and then run alone; so the mark saves time and nothing else.
 *
 * Interactive transactions take the same turns: sql_writer_ask queues a turn, in the order of
 * arrival, and `granted` tells when it is there; from then on the asker's connection, and nobody
 * else in this process, may write, until sql_writer_give_back or the limit of the hold. Groups and
 * turns alternate while both wait. Who holds too long has its connection interrupted and rolled
 * back; each further call on it fails with TRANSACTION_TIMEOUT until the turn is given back. Nobody
 * blocks a thread while it waits.
 *
 * Threads: any may submit, ask, unask and give back. The work is done by whoever calls
 * sql_writer_work: a job of a pool, woken by `wake`, at most one at a time; another call meanwhile
 * does nothing. While an interactive transaction holds the turn there is no work, but limits may
 * pass: sql_writer_due_ms. All callbacks are called without a lock held.
 */
#ifndef SQL_WRITER_H
#define SQL_WRITER_H
#include "sql/conn.h"

#define SQL_GROUP_MAX 256 /* writes in one transaction */

struct sql_writer;
struct sql_write;
/* rc and errors as sql_conn_run; of the statement that failed, or of the commit. A failed commit
 * may still be found on disk after a crash: the disk has refused to say. */
typedef void sql_write_fn(struct sql_write *w);
struct sql_write { /* the caller's; alive and untouched from submit until fn is called */
    /* In: */
    enum rc (*run)(struct sql_write *w, struct sql_conn *c, struct err *err); /* the statements */
    /* run is called once more: what it gave before never happened, forget its rows. Only when run
     * keeps nothing may this be NULL. */
    void (*restart)(struct sql_write *w);
    sql_write_fn *fn; /* when done; by the working thread; must be quick */
    void *ctx;
    struct call call; /* its deadline counts while it waits, too */
    const struct sql_policy *policy;
    bool alone;
    /* Out: */
    enum rc rc;
    struct err err;
    struct sql_error sql_err; /* code "" when there is none */
    uint64_t commit;          /* number of the commit that holds it, from 1; grows; 0: none does */
    /* Private: */
    struct sql_write *next;
    int64_t queued_ms;
    uint8_t verdict;
};

struct sql_writer_opts {
    struct sql_conn_opts conn;
    size_t queue_max; /* writes that may wait; 0: 4096 */
    int64_t hold_ms;  /* an interactive transaction may keep the turn; 0: 5000 */
    /* There is work, or sql_writer_due_ms has changed: see to it that sql_writer_work is called
     * soon, and sql_writer_due_ms asked after it. May come often. */
    void (*wake)(void *ctx);
    /* A group or a turn has committed. Before its members hear of it, from any thread; must be
     * quick. May be NULL. */
    void (*committed)(void *ctx);
    void *ctx; /* of both */
};
/* The connection is opened by the first work. Fails: RC_NO_MEM. */
MUST_CHECK enum rc sql_writer_new(const struct sql_writer_opts *opts, struct sql_writer **ret_w,
                                  struct err *err);
/* Nothing may wait or hold any more. */
void sql_writer_free(struct sql_writer *w);
/* Fails: RC_BUSY the queue is full (fn is not called then). */
MUST_CHECK enum rc sql_writer_submit(struct sql_writer *w, struct sql_write *write,
                                     struct err *err);
/* Run groups until the queue is empty or budget_us is over. True: there is more to do. */
bool sql_writer_work(struct sql_writer *w, int64_t budget_us);

/* When sql_writer_work must be called next even if nothing wakes it, by os_mono_ms; 0: never. Ask
 * after each sql_writer_work that returned false. Who asks will call it at that time: no wake comes
 * for anything that is due later. */
int64_t sql_writer_due_ms(struct sql_writer *w);

/* The asker's; untouched and alive from sql_writer_ask until sql_writer_give_back, or until
 * sql_writer_unask has returned true. */
struct sql_turn {
    /* In: */
    /* It is this one's turn, and the limit of the hold runs. By whatever thread ended the turn
     * before, or from inside of sql_writer_ask; must be quick, and may give it back. */
    void (*granted)(struct sql_turn *t);
    void *ctx;
    struct sql_conn *conn; /* the asker's, idle until granted: rolled back when the hold is over */
    /* Private: */
    struct sql_turn *next;
    uint64_t commits; /* of conn when it was granted */
    uint64_t commit;  /* number of its last commit */
    _Atomic uint8_t place;
};
void sql_writer_ask(struct sql_writer *w, struct sql_turn *t);
/* Not wanted any more. True: it is forgotten, `granted` was not and will not be called. False: it
 * was granted, or is being granted right now: wait for `granted` and give it back. */
bool sql_writer_unask(struct sql_writer *w, struct sql_turn *t);
/* *ret_commit: the number of the last commit of its connection since it was granted; 0: none. An
 * open transaction is rolled back if it has the write lock; one that has only read goes on. After a
 * revocation the connection takes calls again. */
void sql_writer_give_back(struct sql_writer *w, struct sql_turn *t, uint64_t *ret_commit);
/* The hold was over before it was given back. */
bool sql_turn_revoked(const struct sql_turn *t);

struct sql_writer_stats {
    uint64_t writes, failed, commits, groups, group_max; /* writes / groups: the mean group */
    uint64_t again;     /* transactions that one write broke, run again without it */
    uint64_t timed_out; /* interactive transactions that held too long */
    size_t waiting;
};
void sql_writer_look(struct sql_writer *w, struct sql_writer_stats *ret);
#endif
