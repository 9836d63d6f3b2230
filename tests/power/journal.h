/*
 * journal.h -- what the clients did and what they were told, and what must therefore be there after
 * a power failure at some point of the recording.
 *
 * Each transaction has a number, unique in the whole run. A client that sends something notes how
 * long the recorder's log was then (since), and when it has the answer, how long it is now (told):
 * what it did cannot be on disk when the power fails before `since`, and must be there when it
 * fails at `told` or later.
 *
 * Threads: journal_begin and journal_end any; the rest when nobody writes any more.
 */
#ifndef POWER_JOURNAL_H
#define POWER_JOURNAL_H
#include <pthread.h>
#include "tool.h"

#define NAME_MAX_SIZE 16
#define EVENTS_MAX    200000
#define TENANTS_MAX   16

struct ids { /* ascending */
    uint32_t *list;
    size_t count, cap;
};
void ids_add(struct ids *s, uint32_t id);
bool ids_have(const struct ids *s, uint32_t id);
void ids_copy(struct ids *to, const struct ids *from); /* replaces */
void ids_free(struct ids *s);

enum event_kind {
    EVENT_ROWS,
    EVENT_CREATE,
    EVENT_DELETE,
    EVENT_FORK,
    EVENT_RENAME,
    EVENT_RESTORE,
    EVENT_CONFIGURE
};
enum event_end {
    END_NONE,   /* no answer: it may have happened */
    END_OK,     /* it has */
    END_FAILED, /* refused: not done, but for rows, which may be there */
    END_UNDONE, /* rolled back: must not be there */
};
enum event_mode {
    MODE_UNKNOWN,
    MODE_ASYNC,
    MODE_SYNC, /* writes are answered when the store has them */
};
struct event {
    enum event_kind kind;
    enum event_end end;
    uint64_t since, told;
    char name[NAME_MAX_SIZE], to[NAME_MAX_SIZE];
    uint32_t id;          /* EVENT_ROWS */
    enum event_mode mode; /* EVENT_CREATE, EVENT_CONFIGURE */
    bool forget;          /* EVENT_DELETE: its log, too */
    bool seen_known;      /* what was in it when it was new, or after a restore */
    struct ids seen;
};
struct journal {
    pthread_mutex_t lock;
    struct event *events;
    size_t count;
    const char *log; /* the recorder's */
};
void journal_init(struct journal *j, const char *log);
void journal_reset(struct journal *j);
uint64_t journal_now(const struct journal *j);
/* The event is the caller's until journal_end. `to` and `id` as the kind needs them. */
struct event *journal_begin(struct journal *j, enum event_kind kind, const char *name,
                            const char *to, uint32_t id);
void journal_end(struct journal *j, struct event *e, enum event_end end);

struct expect { /* of one tenant */
    char name[NAME_MAX_SIZE];
    char or_else[NAME_MAX_SIZE]; /* exactly one of the two exists; "": nothing of the kind */
    bool must_exist;
    enum event_mode mode;
    struct ids must, may;  /* there; there or not. Nothing else */
    struct ids must_store; /* in the log in the store */
};
struct expects {
    struct expect list[TENANTS_MAX];
    size_t count;
    /* Deleted with their logs, and nothing of that name since. */
    char gone[TENANTS_MAX][NAME_MAX_SIZE];
    size_t gone_count;
};
/* relaxed: no answer is a promise but a synchronous tenant's: what its log has, it has, too. */
void journal_expect(const struct journal *j, uint64_t cut, bool relaxed, struct expects *ret);
void expects_free(struct expects *x);
struct expect *expects_find(struct expects *x, const char *name);
/* Of the transactions that are there: was something answered before they were sent that is not?
 * Its number, or 0. */
uint32_t journal_hole(const struct journal *j, const char *name, const struct ids *there);
#endif
