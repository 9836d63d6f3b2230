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
 *   5  One turn at a time: TURN_FREE -> TURN_GROUP | TURN_HELD -> TURN_FREE, and TURN_HELD ->
 *      TURN_REVOKING -> TURN_FREE. Whoever ends a turn hands it on (pass_on), and only after the
 *      connection that had it is rolled back and, if it was revoked, refuses all calls.
 *
 * Locks: w->lock guards everything here but what a turn owns: `main` belongs to TURN_GROUP, the
 * holder's connection to its asker. No lock is kept while statements run or callbacks are called.
 */
#include "sql/writer.h"
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "sql/conn_intern.h"

#define QUEUE_MAX     4096
#define HOLD_MS       5000
#define BUSY_SLICE_MS 20 /* between looks at the deadlines of those who wait */
#define AGAIN_MAX     4  /* broken transactions of one group before each write gets its own */

enum turn { TURN_FREE, TURN_GROUP, TURN_HELD, TURN_REVOKING };
enum place { PLACE_NOWHERE, PLACE_WAITS, PLACE_HOLDS, PLACE_REVOKED }; /* of a sql_turn */
enum verdict {
    VERDICT_NONE,   /* to be run, or to be run again */
    VERDICT_DONE,   /* ran well, waits for the commit */
    VERDICT_FAILED, /* undone; would fail again */
    VERDICT_OUT,    /* failed for good, not part of the transaction any more */
    VERDICT_ALONE,  /* undone; wants a turn of its own */
};

struct sql_writer {
    struct sql_writer_opts opts;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    enum turn turn;
    bool group_was_last;
    struct sql_write *head, **tail;
    size_t waiting;
    struct sql_turn *asked, **asked_tail;
    struct sql_conn *main; /* of groups */
    struct sql_turn *held; /* TURN_HELD, TURN_REVOKING */
    int64_t held_until_ms;
    int64_t due_ms; /* work will be called then at the latest */
    struct sql_writer_stats stats;
};
struct group {
    struct sql_write *members[SQL_GROUP_MAX];
    size_t count;
};

/* What is to be done after the lock is let go. */
struct news {
    bool wake, committed;
    struct sql_turn *granted;
};
/* Turns of this thread whose `granted` is to be called: one that gives the turn back at once would
 * otherwise call the next from inside of itself, and so on. */
struct grants {
    struct sql_turn *head, **tail;
};
static _Thread_local struct grants *grants;

static void pass_on(struct sql_writer *w, struct news *n);
static void tell(struct sql_writer *w, const struct news *n);
static struct sql_write *pop(struct sql_writer *w);
static void put_back(struct sql_writer *w, struct group *g, size_t from);
static void expire_waiting(struct sql_writer *w, struct sql_write **ret_list);
static void finish(struct sql_writer *w, struct sql_write *write);
static void fail_with(struct sql_write *write, enum rc rc, const struct err *err,
                      const struct sql_error *sql_err);
static bool expired(struct sql_write *write);
static bool take_group(struct sql_writer *w, struct group *g);
static bool is_due_sooner(struct sql_writer *w, int64_t due_ms);
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
static void revoke_if_over(struct sql_writer *w, struct news *n);
static bool settle_commits(struct sql_writer *w, struct sql_turn *t);

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
    w->asked_tail = &w->asked;
    w->due_ms = INT64_MAX;
    pthread_mutex_init(&w->lock, NULL);
    thr_cond_init(&w->turned);
    *ret_w = w;
    return RC_OK;
}

void sql_writer_free(struct sql_writer *w)
{
    if (w == NULL) return;
    ASSERT(w->turn == TURN_FREE && w->head == NULL && w->asked == NULL);
    sql_conn_close(w->main);
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
    struct news n = {.wake = w->waiting++ == 0 && w->turn == TURN_FREE};
    int64_t deadline_ms = write->call.deadline_ms;
    if (w->turn == TURN_HELD && deadline_ms != 0) n.wake = is_due_sooner(w, deadline_ms);
    thr_unlock(&w->lock);
    tell(w, &n);
    return RC_OK;
}

bool sql_writer_work(struct sql_writer *w, int64_t budget_us)
{
    int64_t end_us = os_mono_us() + budget_us;
    struct group g;
    for (;;) {
        struct news n = {0};
        struct sql_write *late = NULL;
        thr_lock(&w->lock);
        revoke_if_over(w, &n);
        expire_waiting(w, &late);
        bool mine = w->turn == TURN_FREE && take_group(w, &g);
        thr_unlock(&w->lock);
        n.wake = false;
        tell(w, &n);
        for (struct sql_write *next; late != NULL; late = next) {
            next = late->next;
            finish(w, late);
        }
        if (!mine) return false;
        run_turn(w, &g);
        n = (struct news){0};
        thr_lock(&w->lock);
        w->turn = TURN_FREE;
        w->group_was_last = true;
        pass_on(w, &n);
        thr_unlock(&w->lock);
        bool more = n.wake;
        n.wake = false;
        tell(w, &n);
        if (!more) return false;
        if (os_mono_us() >= end_us) return true;
    }
}

int64_t sql_writer_due_ms(struct sql_writer *w)
{
    thr_lock(&w->lock);
    int64_t due = INT64_MAX;
    if (w->turn == TURN_HELD) {
        due = w->held_until_ms;
        for (struct sql_write *i = w->head; i != NULL; i = i->next)
            if (i->call.deadline_ms != 0 && i->call.deadline_ms < due) due = i->call.deadline_ms;
    }
    w->due_ms = due;
    thr_unlock(&w->lock);
    return due != INT64_MAX ? due : 0;
}

void sql_writer_ask(struct sql_writer *w, struct sql_turn *t)
{
    struct news n = {0};
    t->next = NULL;
    t->commit = 0;
    thr_lock(&w->lock);
    atomic_store(&t->place, PLACE_WAITS);
    *w->asked_tail = t;
    w->asked_tail = &t->next;
    pass_on(w, &n);
    thr_unlock(&w->lock);
    tell(w, &n);
}

bool sql_writer_unask(struct sql_writer *w, struct sql_turn *t)
{
    thr_lock(&w->lock);
    bool waits = atomic_load(&t->place) == PLACE_WAITS;
    if (waits) {
        struct sql_turn **at = &w->asked;
        while (*at != t)
            at = &(*at)->next;
        *at = t->next;
        if (*at == NULL) w->asked_tail = at;
        atomic_store(&t->place, PLACE_NOWHERE);
    }
    thr_unlock(&w->lock);
    return waits;
}

void sql_writer_give_back(struct sql_writer *w, struct sql_turn *t, uint64_t *ret_commit)
{
    struct news n = {0};
    thr_lock(&w->lock);
    while (w->turn == TURN_REVOKING && w->held == t)
        thr_wait(&w->turned, &w->lock, 0);
    bool mine = w->held == t;
    if (mine) w->held_until_ms = INT64_MAX; /* nobody may take it away while it is given back */
    thr_unlock(&w->lock);
    if (conn_writes(t->conn)) sql_conn_rollback(t->conn); /* revoked without memory for it, too */
    thr_lock(&w->lock);
    if (mine) {
        n.committed = settle_commits(w, t);
        w->held = NULL;
        w->turn = TURN_FREE;
        w->group_was_last = false;
        pass_on(w, &n);
    }
    atomic_store(&t->place, PLACE_NOWHERE);
    thr_unlock(&w->lock);
    conn_restore(t->conn);
    *ret_commit = t->commit;
    tell(w, &n);
}

bool sql_turn_revoked(const struct sql_turn *t)
{
    return atomic_load(&t->place) == PLACE_REVOKED;
}

void sql_writer_look(struct sql_writer *w, struct sql_writer_stats *ret)
{
    thr_lock(&w->lock);
    *ret = w->stats;
    ret->waiting = w->waiting;
    thr_unlock(&w->lock);
}

/* The turn is free: give it to whoever asked or say that a group could run. Under the lock. */
static void pass_on(struct sql_writer *w, struct news *n)
{
    if (w->turn != TURN_FREE) return;
    struct sql_turn *first = w->asked;
    if (first == NULL || (w->head != NULL && !w->group_was_last)) {
        n->wake = w->head != NULL;
        return;
    }
    w->asked = first->next;
    if (w->asked == NULL) w->asked_tail = &w->asked;
    w->turn = TURN_HELD;
    w->held = first;
    w->held_until_ms = os_mono_ms() + w->opts.hold_ms;
    first->next = NULL;
    first->commits = conn_commits(first->conn);
    atomic_store(&first->place, PLACE_HOLDS);
    n->granted = first;
    n->wake |= is_due_sooner(w, w->held_until_ms);
}

static void tell(struct sql_writer *w, const struct news *n)
{
    if (n->wake && w->opts.wake != NULL) w->opts.wake(w->opts.ctx);
    if (n->committed && w->opts.committed != NULL) w->opts.committed(w->opts.ctx);
    if (n->granted == NULL) return;
    if (grants != NULL) {
        *grants->tail = n->granted;
        grants->tail = &n->granted->next;
        return;
    }
    struct grants mine = {.head = n->granted};
    mine.tail = &mine.head->next;
    grants = &mine;
    while (mine.head != NULL) {
        struct sql_turn *t = mine.head;
        mine.head = t->next;
        if (mine.head == NULL) mine.tail = &mine.head;
        t->granted(t);
    }
    grants = NULL;
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
    if (w->head == NULL || (w->asked != NULL && w->group_was_last)) return false;
    do {
        g->members[g->count++] = pop(w);
    } while (g->count < SQL_GROUP_MAX && w->head != NULL && !w->head->alone &&
             !g->members[0]->alone);
    w->turn = TURN_GROUP;
    w->stats.groups++;
    if (g->count > w->stats.group_max) w->stats.group_max = g->count;
    return true;
}

/* Nobody need be woken for a time if he will come by before it anyway. Under the lock. */
static bool is_due_sooner(struct sql_writer *w, int64_t due_ms)
{
    if (due_ms >= w->due_ms) return false;
    w->due_ms = due_ms;
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
    if (w->main != NULL) sql_conn_policy(w->main, NULL); /* it may end with its write */
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
    int64_t end_ms = os_mono_ms() + w->opts.hold_ms;
    for (size_t i = 0; i < *count; i++) {
        struct sql_write *write = members[i];
        /* A group has no more time than a transaction; the rest makes another one. */
        if (i > 0 && write->verdict == VERDICT_NONE && os_mono_ms() >= end_ms) {
            *count = i;
            return true;
        }
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
    sql_conn_policy(c, write->policy);
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
    sql_conn_policy(c, write->policy);
    write->rc = write->run(write, c, &write->err);
    write->verdict = VERDICT_DONE;
    sql_conn_rollback(c);
    if (conn_commits(c) != before || write->rc == RC_OK) write->commit = next_commit(w);
    if (sql_conn_reset(c, &err) == RC_OK) return;
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
    tell(w, &(struct news){.committed = true});
    return number;
}

/* Take the turn from an asker whose time is over. Under the lock, which it lets go for a while. */
static void revoke_if_over(struct sql_writer *w, struct news *n)
{
    if (w->turn != TURN_HELD || os_mono_ms() < w->held_until_ms) return;
    struct sql_turn *t = w->held;
    w->turn = TURN_REVOKING;
    atomic_store(&t->place, PLACE_REVOKED);
    thr_unlock(&w->lock);
    conn_revoke(t->conn);
    thr_lock(&w->lock);
    n->committed = settle_commits(w, t);
    w->stats.timed_out++;
    w->held = NULL;
    w->turn = TURN_FREE;
    w->group_was_last = false;
    pass_on(w, n);
    pthread_cond_broadcast(&w->turned);
}

/* Give the commits that its connection has made a number. Under the lock. */
static bool settle_commits(struct sql_writer *w, struct sql_turn *t)
{
    if (conn_commits(t->conn) == t->commits) return false;
    t->commit = ++w->stats.commits;
    return true;
}
