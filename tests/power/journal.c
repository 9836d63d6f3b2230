/* journal.c -- see journal.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "journal.h"

static struct expect *expect_new(struct expects *x, const char *name);
static void expect_drop(struct expects *x, struct expect *e);
static void take(const struct journal *j, struct expects *x, const struct event *e, uint64_t cut);
static void note_gone(struct expects *x, const struct event *e, bool done);
static void take_rows(struct expects *x, const struct event *e, bool done);
static void take_fork(const struct journal *j, struct expects *x, const struct event *e, bool done);
static void take_restore(struct expect *x, const struct event *e, bool done);
static size_t ids_at(const struct ids *s, uint32_t id);

void ids_add(struct ids *s, uint32_t id)
{
    size_t at = ids_at(s, id);
    if (at < s->count && s->list[at] == id) return;
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 64 : 2 * s->cap;
        s->list = realloc(s->list, s->cap * sizeof *s->list);
        if (s->list == NULL) die("out of memory");
    }
    memmove(s->list + at + 1, s->list + at, (s->count - at) * sizeof *s->list);
    s->list[at] = id;
    s->count++;
}

bool ids_have(const struct ids *s, uint32_t id)
{
    size_t at = ids_at(s, id);
    return at < s->count && s->list[at] == id;
}

void ids_copy(struct ids *to, const struct ids *from)
{
    struct ids copy = {0};
    for (size_t i = 0; i < from->count; i++)
        ids_add(&copy, from->list[i]);
    ids_free(to);
    *to = copy;
}

void ids_free(struct ids *s)
{
    free(s->list);
    *s = (struct ids){0};
}

void journal_init(struct journal *j, const char *log)
{
    *j = (struct journal){.log = log};
    pthread_mutex_init(&j->lock, NULL);
    j->events = calloc(EVENTS_MAX, sizeof *j->events);
    if (j->events == NULL) die("out of memory");
}

void journal_reset(struct journal *j)
{
    for (size_t i = 0; i < j->count; i++)
        ids_free(&j->events[i].seen);
    memset(j->events, 0, j->count * sizeof *j->events);
    j->count = 0;
}

uint64_t journal_now(const struct journal *j)
{
    struct stat st;
    if (stat(j->log, &st) != 0) die("stat '%s': %s", j->log, strerror(errno));
    return (uint64_t)st.st_size;
}

struct event *journal_begin(struct journal *j, enum event_kind kind, const char *name,
                            const char *to, uint32_t id)
{
    pthread_mutex_lock(&j->lock);
    if (j->count == EVENTS_MAX) die("too many events");
    struct event *e = &j->events[j->count++];
    *e = (struct event){.kind = kind, .since = journal_now(j), .told = UINT64_MAX, .id = id};
    snprintf(e->name, sizeof e->name, "%s", name);
    snprintf(e->to, sizeof e->to, "%s", to != NULL ? to : "");
    pthread_mutex_unlock(&j->lock);
    return e;
}

void journal_end(struct journal *j, struct event *e, enum event_end end)
{
    pthread_mutex_lock(&j->lock);
    e->told = journal_now(j);
    e->end = end;
    pthread_mutex_unlock(&j->lock);
}

/* Who changes which tenants there are does one thing after another, so that in the order of the
 * journal only its last event before the cut can be unfinished. */
void journal_expect(const struct journal *j, uint64_t cut, bool relaxed, struct expects *ret)
{
    *ret = (struct expects){0};
    for (size_t i = 0; i < j->count; i++) {
        if (j->events[i].since < cut) take(j, ret, &j->events[i], cut);
    }
    for (size_t i = 0; i < ret->count && relaxed; i++) {
        struct expect *e = &ret->list[i];
        struct ids kept = {0};
        for (size_t k = 0; k < e->must.count; k++) {
            if (ids_have(&e->must_store, e->must.list[k])) ids_add(&kept, e->must.list[k]);
        }
        ids_free(&e->must);
        e->must = kept;
    }
}

void expects_free(struct expects *x)
{
    while (x->count > 0)
        expect_drop(x, &x->list[0]);
}

struct expect *expects_find(struct expects *x, const char *name)
{
    for (size_t i = 0; i < x->count; i++) {
        if (strcmp(x->list[i].name, name) == 0) return &x->list[i];
    }
    return NULL;
}

uint32_t journal_hole(const struct journal *j, const char *name, const struct ids *there)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < j->count; i++) {
        const struct event *e = &j->events[i];
        if (e->kind != EVENT_ROWS || strcmp(e->name, name) != 0) continue;
        if (e->since > newest && ids_have(there, e->id)) newest = e->since;
    }
    for (size_t i = 0; i < j->count; i++) {
        const struct event *e = &j->events[i];
        if (e->kind != EVENT_ROWS || strcmp(e->name, name) != 0 || e->end != END_OK) continue;
        if (e->told <= newest && !ids_have(there, e->id)) return e->id;
    }
    return 0;
}

static struct expect *expect_new(struct expects *x, const char *name)
{
    if (x->count == TENANTS_MAX) die("too many tenants");
    struct expect *e = &x->list[x->count++];
    *e = (struct expect){0};
    snprintf(e->name, sizeof e->name, "%s", name);
    return e;
}

static void expect_drop(struct expects *x, struct expect *e)
{
    ids_free(&e->must);
    ids_free(&e->may);
    ids_free(&e->must_store);
    *e = x->list[--x->count];
}

static void take(const struct journal *j, struct expects *x, const struct event *e, uint64_t cut)
{
    bool answered = e->told <= cut, done = answered && e->end == END_OK;
    struct expect *old = expects_find(x, e->name), *to;
    if (e->kind == EVENT_ROWS) {
        take_rows(x, e, done);
        return;
    }
    note_gone(x, e, done);
    if (answered && e->end == END_FAILED) return;
    if (e->kind != EVENT_CREATE && old == NULL) die("tenant '%s' is not in the journal", e->name);
    switch (e->kind) {
    case EVENT_CREATE:
        to = expect_new(x, e->name);
        to->must_exist = done;
        to->mode = e->mode;
        if (e->seen_known) ids_copy(&to->must, &e->seen);
        if (e->seen_known) ids_copy(&to->may, &e->seen);
        break;
    case EVENT_DELETE:
        old->must_exist = false;
        if (done) expect_drop(x, old);
        break;
    case EVENT_FORK:
        take_fork(j, x, e, done);
        break;
    case EVENT_RENAME:
        if (done) {
            memcpy(old->name, e->to, sizeof old->name);
            break;
        }
        to = expect_new(x, e->to);
        old->must_exist = false;
        memcpy(old->or_else, e->to, sizeof old->or_else);
        memcpy(to->or_else, e->name, sizeof to->or_else);
        to->mode = old->mode;
        ids_copy(&to->must, &old->must);
        ids_copy(&to->may, &old->may);
        break;
    case EVENT_RESTORE:
        take_restore(old, e, done);
        break;
    case EVENT_CONFIGURE:
        old->mode = done ? e->mode : MODE_UNKNOWN;
        break;
    case EVENT_ROWS:
        break;
    }
}

static void note_gone(struct expects *x, const struct event *e, bool done)
{
    for (size_t i = 0; i < x->gone_count; i++) {
        if (strcmp(x->gone[i], e->name) != 0 && strcmp(x->gone[i], e->to) != 0) continue;
        memmove(x->gone[i], x->gone[--x->gone_count], sizeof x->gone[i]);
        i--;
    }
    if (e->kind != EVENT_DELETE || !e->forget || !done) return;
    if (x->gone_count == TENANTS_MAX) die("too many tenants were deleted");
    memcpy(x->gone[x->gone_count++], e->name, sizeof e->name);
}

static void take_rows(struct expects *x, const struct event *e, bool done)
{
    struct expect *t = expects_find(x, e->name);
    if (t == NULL) die("tenant '%s' has rows and is not in the journal", e->name);
    if (e->end == END_UNDONE) return;
    ids_add(&t->may, e->id);
    if (done) ids_add(&t->must, e->id);
    if (done && t->mode == MODE_SYNC) ids_add(&t->must_store, e->id);
}

/* Others may write to what is being forked: at least what was answered before, at most what was
 * sent before it ended. Once somebody has looked into the new one, it is known. */
static void take_fork(const struct journal *j, struct expects *x, const struct event *e, bool done)
{
    struct expect *to = expect_new(x, e->to), *from = expects_find(x, e->name);
    to->must_exist = done;
    to->mode = from->mode;
    if (e->seen_known) {
        ids_copy(&to->must, &e->seen);
        ids_copy(&to->may, &e->seen);
        return;
    }
    ids_copy(&to->must, &from->must);
    ids_copy(&to->may, &from->may);
    for (size_t i = 0; i < j->count; i++) {
        const struct event *r = &j->events[i];
        if (r->kind != EVENT_ROWS || strcmp(r->name, e->name) != 0 || r->end == END_UNDONE)
            continue;
        if (r->since >= e->since || r->told > e->since || r->end != END_OK) {
            for (size_t k = 0; k < to->must.count; k++) {
                if (to->must.list[k] != r->id) continue;
                memmove(to->must.list + k, to->must.list + k + 1,
                        (to->must.count - k - 1) * sizeof *to->must.list);
                to->must.count--;
                break;
            }
        }
        if (r->since < e->told) ids_add(&to->may, r->id);
    }
}

/* Before or after it; what is in both must be there. */
static void take_restore(struct expect *x, const struct event *e, bool done)
{
    struct ids both = {0};
    if (done && e->seen_known) {
        ids_copy(&x->must, &e->seen);
        ids_copy(&x->may, &e->seen);
        return;
    }
    for (size_t i = 0; e->seen_known && i < e->seen.count; i++) {
        if (ids_have(&x->must, e->seen.list[i])) ids_add(&both, e->seen.list[i]);
        ids_add(&x->may, e->seen.list[i]);
    }
    ids_free(&x->must);
    x->must = both;
}

static size_t ids_at(const struct ids *s, uint32_t id)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->list[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}
