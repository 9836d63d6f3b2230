/*
 * writer.c -- see writer.h.
 *
 * Invariants:
 *   1  fn(write) with RC_OK comes only after the COMMIT of its transaction has returned; with
 *      synchronous=FULL that is after the fsync. Failures wait for it as well, because a write may
 *      have failed over something that an earlier one of the group did (a duplicate key) and that
 *      has not happened if the commit fails.
 *   2  A write's changes stay whole or not at all: it runs between SAVEPOINT and RELEASE, and what
 *      fails is undone to its savepoint.
 *   3  The outcome is the one of running the writes one by one in order of arrival. If a write ends
 *      the transaction itself (ROLLBACK in a constraint or a trigger, an interrupt, a full disk),
 *      all others of the group are run again, in order, without it: its own verdict stands, for
 *      those before it do the same again.
 *   4  Deferred foreign keys are counted by SQLite in the transaction, not in a savepoint. The
 * count is zero before each write (never below, SQLite does not let it), so a write that leaves it
 *      above zero is the one that violates, and fails as its own COMMIT would have.
 *   5  One turn at a time: TURN_FREE -> TURN_GROUP | TURN_HELD -> TURN_FREE. Whoever ends a turn
 *      hands it on (pass_on).
 *
 * An interactive transaction has a connection other than the groups' one, so that a caller whose
 * time is up can keep a connection that only answers TRANSACTION_TIMEOUT while groups go on.
 *
 * Locks: w->lock guards everything here but what a turn owns: `main` belongs to TURN_GROUP, the
 * held connection to its caller. No lock is kept while statements run or callbacks are called.
 */
#include "sql/writer.h"
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "sql/conn_intern.h"

#define QUEUE_MAX     4096
#define HOLD_MS       5000
#define BUSY_SLICE_MS 20 /* between looks at the deadlines of those who wait */
#define POLL_MS       20 /* between looks at a waiter's cancel flag */
#define AGAIN_MAX     4  /* broken transactions of one group before each write gets its own */

enum turn { TURN_FREE, TURN_GROUP, TURN_HELD, TURN_REVOKING };
enum verdict {
    VERDICT_NONE,   /* to be run, or to be run again */
    VERDICT_DONE,   /* ran well, waits for the commit */
    VERDICT_FAILED, /* undone; would fail again */
    VERDICT_OUT,    /* failed for good, not part of the transaction any more */
    VERDICT_ALONE,  /* undone; wants a turn of its own */
};

struct waiter { /* in sql_writer_enter, on its stack */
    struct waiter *next;
    bool granted;
};
struct sql_writer {
    struct sql_writer_opts opts;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    enum turn turn;
    bool group_was_last;
    struct sql_write *head, **tail;
    size_t waiting;
    struct waiter *waiters, **waiters_tail;
    struct sql_conn *main;  /* of groups */
    struct sql_conn *held;  /* of the interactive transaction that has the turn */
    struct sql_conn *spare; /* for the next one */
    int64_t held_until_ms;  /* 0: it is still beginning */
    uint64_t held_commits;  /* of the connection when it began */
    struct sql_writer_stats stats;
};
struct group {
    struct sql_write *members[SQL_GROUP_MAX];
    size_t count;
};

static bool pass_on(struct sql_writer *w);
static void wake(struct sql_writer *w, bool needed);
static struct sql_write *pop(struct sql_writer *w);
static void put_back(struct sql_writer *w, struct group *g, size_t from);
static void expire_waiting(struct sql_writer *w, struct sql_write **ret_list);
static void finish(struct sql_writer *w, struct sql_write *write);
static void fail_with(struct sql_write *write, enum rc rc, const struct err *err,
                      const struct sql_error *sql_err);
static bool expired(struct sql_write *write);
static bool take_group(struct sql_writer *w, struct group *g);
static void run_turn(struct sql_writer *w, struct group *g);
static enum rc open_main(struct sql_writer *w, struct err *err);
static size_t run_group(struct sql_writer *w, struct sql_write **members, size_t count);
static enum rc begin_group(struct sql_writer *w, struct sql_write **members, size_t count,
                           struct sql_error *sql_err, struct err *err);
static bool run_members(struct sql_writer *w, struct sql_write **members, size_t *count);
static enum verdict run_member(struct sql_writer *w, struct sql_write *write);
static enum verdict undo_member(struct sql_writer *w, struct sql_write *write);
static void commit_group(struct sql_writer *w, struct sql_write **members, size_t count);
static void run_alone(struct sql_writer *w, struct sql_write *write);
static void restart(struct sql_write *write);
static uint64_t next_commit(struct sql_writer *w);
static enum rc wait_turn(struct sql_writer *w, const struct call *call, struct err *err);
static void forget_waiter(struct sql_writer *w, struct waiter *me);
static enum rc begin_held(struct sql_writer *w, const struct call *call, struct sql_conn *conn,
                          struct err *err);
static void revoke_if_over(struct sql_writer *w, bool *ret_wake);
static uint64_t settle_commit(struct sql_writer *w, struct sql_conn *conn);

enum rc sql_writer_new(const struct sql_writer_opts *opts, struct sql_writer **ret_w,
                       struct err *err)
{
    struct sql_writer *w = mem_calloc(1, sizeof *w);
    if (w == NULL) return err_mem(err, "a writer");
    w->opts = *opts;
    if (w->opts.queue_max == 0) w->opts.queue_max = QUEUE_MAX;
    if (w->opts.hold_ms == 0) w->opts.hold_ms = HOLD_MS;
    char *path = mem_strdup(opts->conn.path);
    if (path == NULL) {
        mem_free(w);
        return err_mem(err, "a writer");
    }
    w->opts.conn.path = path;
    w->tail = &w->head;
    w->waiters_tail = &w->waiters;
    pthread_mutex_init(&w->lock, NULL);
    thr_cond_init(&w->turned);
    *ret_w = w;
    return RC_OK;
}

void sql_writer_free(struct sql_writer *w)
{
    if (w == NULL) return;
    ASSERT(w->turn == TURN_FREE && w->head == NULL && w->waiters == NULL);
    sql_conn_close(w->main);
    sql_conn_close(w->spare);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->turned);
    char *path = (char *)(uintptr_t)w->opts.conn.path; /* ours, see sql_writer_new */
    mem_free(path);
    mem_free(w);
}

enum rc sql_writer_submit(struct sql_writer *w, struct sql_write *write, struct err *err)
{
    write->rc = RC_OK;
    write->sql_err.code[0] = '\0';
    write->commit = 0;
    write->next = NULL;
    write->queued_ms = os_mono_ms();
    write->verdict = VERDICT_NONE;
    thr_lock(&w->lock);
    if (w->waiting >= w->opts.queue_max) {
        size_t waiting = w->waiting;
        thr_unlock(&w->lock);
        return err_set(err, RC_BUSY, "%zu writes wait already", waiting);
    }
    *w->tail = write;
    w->tail = &write->next;
    bool first = w->waiting++ == 0;
    /* While somebody holds the turn, this may have changed what sql_writer_due_ms says. */
    bool needed = (first && w->turn == TURN_FREE) || w->turn == TURN_HELD;
    thr_unlock(&w->lock);
    wake(w, needed);
    return RC_OK;
}

bool sql_writer_work(struct sql_writer *w, int64_t budget_us)
{
    int64_t end_us = os_mono_us() + budget_us;
    struct group g;
    for (;;) {
        bool needed = false;
        struct sql_write *late = NULL;
        thr_lock(&w->lock);
        revoke_if_over(w, &needed);
        expire_waiting(w, &late);
        bool mine = w->turn == TURN_FREE && take_group(w, &g);
        thr_unlock(&w->lock);
        for (struct sql_write *next; late != NULL; late = next) {
            next = late->next;
            finish(w, late);
        }
        if (!mine) return false;
        run_turn(w, &g);
        thr_lock(&w->lock);
        w->turn = TURN_FREE;
        w->group_was_last = true;
        bool more = pass_on(w);
        thr_unlock(&w->lock);
        if (!more) return false;
        if (os_mono_us() >= end_us) return true;
    }
}

int64_t sql_writer_due_ms(struct sql_writer *w)
{
    int64_t due = 0;
    thr_lock(&w->lock);
    if (w->turn == TURN_HELD && w->head != NULL) {
        due = w->held_until_ms != 0 ? w->held_until_ms : os_mono_ms() + BUSY_SLICE_MS;
        for (struct sql_write *i = w->head; i != NULL; i = i->next)
            if (i->call.deadline_ms != 0 && i->call.deadline_ms < due) due = i->call.deadline_ms;
    } else if (w->turn == TURN_HELD) {
        due = w->held_until_ms;
    }
    thr_unlock(&w->lock);
    return due;
}

enum rc sql_writer_enter(struct sql_writer *w, const struct call *call, struct sql_conn **ret_conn,
                         struct err *err)
{
    TRY(wait_turn(w, call, err));
    thr_lock(&w->lock);
    struct sql_conn *conn = w->spare;
    w->spare = NULL;
    thr_unlock(&w->lock);
    enum rc rc = conn == NULL ? sql_conn_open(&w->opts.conn, &conn, err) : RC_OK;
    if (rc == RC_OK) rc = begin_held(w, call, conn, err);
    if (rc == RC_OK) {
        *ret_conn = conn;
        return RC_OK;
    }
    thr_lock(&w->lock);
    if (w->spare == NULL) {
        w->spare = conn;
        conn = NULL;
    }
    w->turn = TURN_FREE;
    w->group_was_last = false;
    bool needed = pass_on(w);
    thr_unlock(&w->lock);
    sql_conn_close(conn);
    wake(w, needed);
    return rc;
}

void sql_writer_leave(struct sql_writer *w, struct sql_conn *conn, uint64_t *ret_commit)
{
    struct err ignored;
    thr_lock(&w->lock);
    while (w->turn == TURN_REVOKING && w->held == conn)
        thr_wait(&w->turned, &w->lock, 0);
    bool mine = w->turn == TURN_HELD && w->held == conn;
    if (mine) w->held_until_ms = 0; /* nobody may take it away while it is given back */
    thr_unlock(&w->lock);
    if (mine) {
        sql_conn_rollback(conn);
        thr_lock(&w->lock);
        conn->commit_number = settle_commit(w, conn);
        thr_unlock(&w->lock);
    }
    *ret_commit = conn->commit_number;
    conn_restore(conn);
    sql_conn_policy(conn, NULL, NULL);
    bool fit = sql_conn_reset(conn, &ignored) == RC_OK;
    if (fit) sql_conn_foreign_keys(conn, w->opts.conn.foreign_keys);
    bool needed = false;
    thr_lock(&w->lock);
    if (fit && w->spare == NULL) {
        w->spare = conn;
        conn = NULL;
    }
    if (mine) {
        w->held = NULL;
        w->turn = TURN_FREE;
        w->group_was_last = false;
        needed = pass_on(w);
    }
    thr_unlock(&w->lock);
    sql_conn_close(conn);
    wake(w, needed);
}

void sql_writer_look(struct sql_writer *w, struct sql_writer_stats *ret)
{
    thr_lock(&w->lock);
    *ret = w->stats;
    ret->waiting = w->waiting;
    thr_unlock(&w->lock);
}

/* The turn is free: give it to a waiter or say that a group could run. Under the lock. */
static bool pass_on(struct sql_writer *w)
{
    if (w->turn != TURN_FREE) return false;
    struct waiter *first = w->waiters;
    if (first == NULL || (w->head != NULL && !w->group_was_last)) return w->head != NULL;
    w->waiters = first->next;
    if (w->waiters == NULL) w->waiters_tail = &w->waiters;
    first->granted = true;
    w->turn = TURN_HELD;
    w->held = NULL;
    w->held_until_ms = 0;
    pthread_cond_broadcast(&w->turned);
    return false;
}

static void wake(struct sql_writer *w, bool needed)
{
    if (needed && w->opts.wake != NULL) w->opts.wake(w->opts.wake_ctx);
}

static struct sql_write *pop(struct sql_writer *w)
{
    struct sql_write *write = w->head;
    w->head = write->next;
    if (w->head == NULL) w->tail = &w->head;
    w->waiting--;
    write->next = NULL;
    return write;
}

/* Members that were not run go to the front of the queue, in their order. */
static void put_back(struct sql_writer *w, struct group *g, size_t from)
{
    thr_lock(&w->lock);
    for (size_t i = g->count; i-- > from;) {
        struct sql_write *write = g->members[i];
        write->next = w->head;
        if (w->head == NULL) w->tail = &write->next;
        w->head = write;
        w->waiting++;
    }
    thr_unlock(&w->lock);
    g->count = from;
}

/* While an interactive transaction has the turn, deadlines in the queue pass all the same. */
static void expire_waiting(struct sql_writer *w, struct sql_write **ret_list)
{
    if (w->turn == TURN_FREE || w->turn == TURN_GROUP) return;
    struct sql_write **at = &w->head;
    while (*at != NULL) {
        struct sql_write *write = *at;
        if (!expired(write)) {
            at = &write->next;
            continue;
        }
        *at = write->next;
        w->waiting--;
        *ret_list = write;
        write->next = NULL;
        ret_list = &write->next;
    }
    w->tail = at;
}

static void finish(struct sql_writer *w, struct sql_write *write)
{
    thr_lock(&w->lock);
    w->stats.writes++;
    w->stats.failed += write->rc != RC_OK;
    thr_unlock(&w->lock);
    write->fn(write);
}

static void fail_with(struct sql_write *write, enum rc rc, const struct err *err,
                      const struct sql_error *sql_err)
{
    write->rc = rc;
    write->err = *err;
    write->sql_err = *sql_err;
    write->commit = 0;
    write->verdict = VERDICT_OUT;
}

/* Has its time passed? Then it has failed. */
static bool expired(struct sql_write *write)
{
    if (call_check(&write->call, &write->err) == RC_OK) return false;
    write->rc = write->err.rc;
    write->verdict = VERDICT_OUT;
    sql_error_own(&write->sql_err, "SQLITE_INTERRUPT", "SQLite error: interrupted (%s)",
                  write->err.text);
    return true;
}

/* Writes that may share a transaction, or one that may not. Under the lock. */
static bool take_group(struct sql_writer *w, struct group *g)
{
    g->count = 0;
    if (w->head == NULL || (w->waiters != NULL && w->group_was_last)) return false;
    do {
        g->members[g->count++] = pop(w);
    } while (g->count < SQL_GROUP_MAX && w->head != NULL && !w->head->alone &&
             !g->members[0]->alone);
    w->turn = TURN_GROUP;
    w->stats.groups++;
    if (g->count > w->stats.group_max) w->stats.group_max = g->count;
    return true;
}

static void run_turn(struct sql_writer *w, struct group *g)
{
    struct err err = {0};
    struct sql_error sql_err;
    enum rc rc = open_main(w, &err);
    size_t used = g->count;
    if (rc != RC_OK) {
        sql_error_own(&sql_err, "SQLITE_CANTOPEN", "SQLite error: %s", err.text);
        for (size_t i = 0; i < g->count; i++)
            fail_with(g->members[i], rc, &err, &sql_err);
    } else if (g->members[0]->alone) {
        run_alone(w, g->members[0]);
    } else {
        used = run_group(w, g->members, g->count);
    }
    put_back(w, g, used);
    for (size_t i = 0; i < g->count; i++)
        finish(w, g->members[i]);
}

static enum rc open_main(struct sql_writer *w, struct err *err)
{
    if (w->main != NULL) return RC_OK;
    return sql_conn_open(&w->opts.conn, &w->main, err);
}

/* Returns how many of them, from the first, have their verdict. */
static size_t run_group(struct sql_writer *w, struct sql_write **members, size_t count)
{
    for (int tries = 0; tries < AGAIN_MAX; tries++) {
        struct err err = {0};
        struct sql_error sql_err;
        enum rc rc = begin_group(w, members, count, &sql_err, &err);
        if (rc != RC_OK) {
            for (size_t i = 0; i < count; i++)
                if (members[i]->verdict != VERDICT_OUT) fail_with(members[i], rc, &err, &sql_err);
            return count;
        }
        size_t run = count;
        if (run_members(w, members, &run)) {
            commit_group(w, members, run);
            if (run == count || members[run]->verdict != VERDICT_ALONE) return run;
            run_alone(w, members[run]);
            return run + 1;
        }
        thr_lock(&w->lock);
        w->stats.again++;
        thr_unlock(&w->lock);
    }
    /* Several of them break what they are in: each of the rest by itself. */
    for (size_t i = 0; i < count; i++)
        if (members[i]->verdict == VERDICT_ALONE)
            run_alone(w, members[i]);
        else if (members[i]->verdict != VERDICT_OUT)
            run_group(w, &members[i], 1);
    return count;
}

/* Another process may have the lock. Nobody waits for it longer than he wanted to. */
static enum rc begin_group(struct sql_writer *w, struct sql_write **members, size_t count,
                           struct sql_error *sql_err, struct err *err)
{
    int64_t busy_ms = w->opts.conn.busy_ms > 0 ? w->opts.conn.busy_ms : HOLD_MS;
    int64_t end_ms = os_mono_ms() + busy_ms;
    enum rc rc;
    do {
        size_t left = 0;
        for (size_t i = 0; i < count; i++)
            left += members[i]->verdict != VERDICT_OUT && !expired(members[i]);
        conn_busy_ms(w->main, BUSY_SLICE_MS);
        rc = left > 0 ? conn_do(w->main, CONN_BEGIN_WRITE, sql_err, err)
                      : conn_do(w->main, CONN_BEGIN, sql_err, err);
        conn_busy_ms(w->main, 0);
    } while (rc == RC_BUSY && os_mono_ms() < end_ms);
    return rc;
}

/* True: the transaction is whole, and *count writes have their verdict. False: one of them has
 * broken it; that one is out (or wants to be alone), and the others have forgotten what they did.
 */
static bool run_members(struct sql_writer *w, struct sql_write **members, size_t *count)
{
    for (size_t i = 0; i < *count; i++) {
        struct sql_write *write = members[i];
        if (write->verdict == VERDICT_OUT || write->verdict == VERDICT_ALONE) {
            if (write->verdict == VERDICT_OUT) continue;
            *count = i;
            return true;
        }
        write->verdict = (uint8_t)run_member(w, write);
        if (sql_conn_autocommit(w->main)) {
            if (write->verdict != VERDICT_ALONE) write->verdict = VERDICT_OUT;
            for (size_t j = 0; j < i; j++) {
                if (members[j]->verdict == VERDICT_OUT) continue;
                restart(members[j]);
                members[j]->verdict = VERDICT_NONE;
            }
            return false;
        }
        if (write->verdict == VERDICT_ALONE) {
            *count = i;
            return true;
        }
    }
    return true;
}

static enum verdict run_member(struct sql_writer *w, struct sql_write *write)
{
    struct sql_conn *c = w->main;
    if (expired(write)) return VERDICT_OUT;
    write->sql_err.code[0] = '\0';
    conn_unit(c);
    write->rc = conn_do(c, CONN_UNIT_OPEN, &write->sql_err, &write->err);
    if (write->rc != RC_OK) return VERDICT_FAILED;
    sql_conn_policy(c, write->policy, write->policy_ctx);
    conn_guest(c, true);
    write->rc = write->run(write, c, &write->err);
    conn_guest(c, false);
    if (conn_wants_alone(c)) return undo_member(w, write);
    if (sql_conn_autocommit(c)) {
        /* It went on after it had lost the transaction, as it may: what it does then depends on
         * there being no transaction around it. */
        if (!conn_lost(c) && write->rc != RC_OK) return VERDICT_OUT;
        restart(write);
        return VERDICT_ALONE;
    }
    if (write->rc == RC_OK && conn_violates(c)) {
        sql_error_set(&write->sql_err, SQLITE_CONSTRAINT_FOREIGNKEY, -1,
                      "FOREIGN KEY constraint failed");
        write->rc = err_set(&write->err, RC_INVALID, "FOREIGN KEY constraint failed");
    }
    if (write->rc != RC_OK) return undo_member(w, write);
    struct sql_error sql_err;
    struct err err;
    if (c->deferred) write->rc = conn_do(c, CONN_DEFER_OFF, &sql_err, &err);
    c->deferred = false;
    if (write->rc == RC_OK) write->rc = conn_do(c, CONN_UNIT_KEEP, &sql_err, &err);
    if (write->rc == RC_OK) return VERDICT_DONE;
    write->err = err;
    write->sql_err = sql_err;
    return undo_member(w, write);
}

/* Back to its savepoint, or without memory for that, back to the beginning of the transaction. */
static enum verdict undo_member(struct sql_writer *w, struct sql_write *write)
{
    struct sql_conn *c = w->main;
    struct sql_error sql_err;
    struct err err;
    bool alone = conn_wants_alone(c);
    bool undone = !sql_conn_autocommit(c) && conn_do(c, CONN_UNIT_UNDO, &sql_err, &err) == RC_OK &&
                  conn_do(c, CONN_UNIT_KEEP, &sql_err, &err) == RC_OK &&
                  (!c->deferred || conn_do(c, CONN_DEFER_OFF, &sql_err, &err) == RC_OK);
    c->deferred = false;
    if (!undone) sql_conn_rollback(c);
    if (!alone) return VERDICT_FAILED;
    restart(write);
    return VERDICT_ALONE;
}

static void commit_group(struct sql_writer *w, struct sql_write **members, size_t count)
{
    struct err err = {0};
    struct sql_error sql_err;
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any |= members[i]->verdict == VERDICT_DONE;
    if (!any) {
        sql_conn_rollback(w->main);
        return;
    }
    enum rc rc = conn_do(w->main, CONN_COMMIT, &sql_err, &err);
    sql_conn_rollback(w->main);
    uint64_t number = rc == RC_OK ? next_commit(w) : 0;
    for (size_t i = 0; i < count; i++) {
        if (rc != RC_OK && members[i]->verdict != VERDICT_OUT)
            fail_with(members[i], rc, &err, &sql_err);
        else if (members[i]->verdict == VERDICT_DONE)
            members[i]->commit = number;
    }
}

/* No transaction around it: each statement commits by itself unless it has a BEGIN of its own. What
 * it leaves open is rolled back, what it has set is forgotten. */
static void run_alone(struct sql_writer *w, struct sql_write *write)
{
    struct sql_conn *c = w->main;
    struct err err;
    if (expired(write)) return;
    uint64_t before = conn_commits(c);
    conn_unit(c);
    write->sql_err.code[0] = '\0';
    sql_conn_policy(c, write->policy, write->policy_ctx);
    write->rc = write->run(write, c, &write->err);
    write->verdict = VERDICT_DONE;
    sql_conn_rollback(c);
    if (conn_commits(c) != before || write->rc == RC_OK) write->commit = next_commit(w);
    if (sql_conn_reset(c, &err) == RC_OK) {
        sql_conn_foreign_keys(c, w->opts.conn.foreign_keys);
        return;
    }
    sql_conn_close(c);
    w->main = NULL;
}

static void restart(struct sql_write *write)
{
    if (write->restart != NULL) write->restart(write);
}

static uint64_t next_commit(struct sql_writer *w)
{
    thr_lock(&w->lock);
    uint64_t number = ++w->stats.commits;
    thr_unlock(&w->lock);
    return number;
}

static enum rc wait_turn(struct sql_writer *w, const struct call *call, struct err *err)
{
    struct waiter me = {0};
    bool needed = false;
    thr_lock(&w->lock);
    *w->waiters_tail = &me;
    w->waiters_tail = &me.next;
    enum rc rc = RC_OK;
    for (needed = pass_on(w); !me.granted; needed |= pass_on(w)) {
        rc = call_check(call, err);
        if (rc != RC_OK) break;
        int64_t until = os_mono_ms() + POLL_MS;
        if (needed) {
            thr_unlock(&w->lock);
            wake(w, true);
            thr_lock(&w->lock);
            needed = false;
            if (me.granted) break;
        }
        thr_wait(&w->turned, &w->lock, until);
        if (!me.granted) revoke_if_over(w, &needed);
    }
    if (!me.granted) {
        forget_waiter(w, &me);
    } else if (rc != RC_OK) {
        w->turn = TURN_FREE;
        needed |= pass_on(w);
    }
    thr_unlock(&w->lock);
    wake(w, needed);
    return rc == RC_OK ? rc : err_wrap(err, "wait for the turn to write");
}

static void forget_waiter(struct sql_writer *w, struct waiter *me)
{
    struct waiter **at = &w->waiters;
    while (*at != me)
        at = &(*at)->next;
    *at = me->next;
    if (*at == NULL) w->waiters_tail = at;
}

static enum rc begin_held(struct sql_writer *w, const struct call *call, struct sql_conn *conn,
                          struct err *err)
{
    struct sql_error sql_err;
    enum rc rc;
    int64_t busy_ms = w->opts.conn.busy_ms > 0 ? w->opts.conn.busy_ms : HOLD_MS;
    int64_t end_ms = os_mono_ms() + busy_ms;
    conn->commit_number = 0;
    conn_busy_ms(conn, BUSY_SLICE_MS);
    do {
        rc = call_check(call, err);
        if (rc == RC_OK) rc = conn_do(conn, CONN_BEGIN_WRITE, &sql_err, err);
    } while (rc == RC_BUSY && os_mono_ms() < end_ms);
    conn_busy_ms(conn, 0);
    if (rc != RC_OK) return rc;
    thr_lock(&w->lock);
    w->held = conn;
    w->held_commits = conn_commits(conn);
    w->held_until_ms = os_mono_ms() + w->opts.hold_ms;
    thr_unlock(&w->lock);
    wake(w, true); /* somebody shall look at sql_writer_due_ms */
    return RC_OK;
}

/* Take the turn from a caller whose time is over. Under the lock, which it lets go for a while. */
static void revoke_if_over(struct sql_writer *w, bool *ret_wake)
{
    if (w->turn != TURN_HELD || w->held_until_ms == 0 || os_mono_ms() < w->held_until_ms) return;
    struct sql_conn *conn = w->held;
    w->turn = TURN_REVOKING;
    thr_unlock(&w->lock);
    conn_revoke(conn);
    thr_lock(&w->lock);
    conn->commit_number = settle_commit(w, conn);
    w->stats.timed_out++;
    w->held = NULL;
    w->turn = TURN_FREE;
    w->group_was_last = false;
    *ret_wake |= pass_on(w);
    pthread_cond_broadcast(&w->turned);
}

static uint64_t settle_commit(struct sql_writer *w, struct sql_conn *conn)
{
    return conn_commits(conn) != w->held_commits ? ++w->stats.commits : 0;
}
