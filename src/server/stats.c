/*
 * stats.c -- see stats.h.
 *
 * A tenant's entry is found by the number that its struct tenant remembers, if the entry says that
 * it is still that tenant's; else by name, under the table's lock, where an entry that was not used
 * for longest is taken for it. A record that comes while its entry is taken away may be counted for
 * the next one: numbers only, lists are changed under the entry's lock.
 */
#include "server/stats.h"
#include <stdio.h>
#include <string.h>
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "sql/token.h"

#define SHARDS    64 /* the last is shared */
#define PARTS     4  /* of a tenant's counts */
#define CHAINS    2048
#define NONE      UINT16_MAX
#define SECOND_MS 1000
#define APART     64 /* bytes between what different threads write */

typedef _Atomic uint64_t count;

struct hist {
    count counts[STATS_BOUNDS + 1], us;
};
enum { CLASS_DEFAULT, CLASS_NONE, CLASS_OTHER, CLASS_NAMED };
struct class
{ /* of tenants */
    struct hist asks[STATS_ROUTES], stmts[STATS_KINDS][2];
    count statuses[6], faults[STATS_FAULTS];
};
struct shard {
    struct class classes[STATS_CLASSES];
    count bytes_in, bytes_out, rows_read, rows_written, slow;
    uint8_t apart[APART];
};

struct top {                                  /* a list of the worst statements of a tenant */
    count least;                              /* of values, when full; else 0 */
    count keys[STATS_TOP], values[STATS_TOP]; /* key 0: free */
    struct top_query {                        /* [entry lock] */
        char *sql;
        int64_t us;
        uint64_t rows_read, rows_written;
    } queries[STATS_TOP];
};
struct noted { /* a statement on its way into lists */
    uint64_t key;
    const char *sql;
    size_t size;
    int64_t us;
    const struct sql_done *done;
};
struct part {
    count queries, us, rows_read, rows_written;
    uint8_t apart[APART];
};
struct entry {
    struct part parts[PARTS];
    const void *_Atomic owner; /* the struct tenant that uses it */
    struct top slowest, top;
    pthread_mutex_t lock;
    char name[AUTH_NAME_MAX + 1]; /* [table lock]; "": free */
    uint16_t next;                /* [table lock] */
};
struct line { /* for the log */
    struct stats_slow s;
    char tenant[AUTH_NAME_MAX + 1], sql[STATS_SLOW_SQL_MAX + 4];
    char code[sizeof((struct sql_error *)0)->code];
};
struct stats {
    struct stats_opts opts;
    pthread_mutex_t table_lock;
    uint16_t chains[CHAINS];             /* [table_lock] */
    atomic_uint now;                     /* ticks */
    atomic_uint used[STATS_TENANTS_MAX]; /* ticks; apart, because all are looked through */
    pthread_mutex_t slow_lock;
    int64_t second_ms; /* [slow_lock] when the one at hand began */
    unsigned second_count, line_count;
    uint64_t dropped;
    struct line lines[STATS_SLOW_RATE];
    char names[STATS_NAMED_MAX][STATS_CLASS_MAX + 1]; /* constant below name_count */
    atomic_uint name_count;                           /* grows under table_lock */
    char left_out[STATS_CLASS_MAX + 1];               /* [table_lock] "": none */
    atomic_bool full, told;                           /* left_out is set, was told */
    struct shard shards[SHARDS];
    struct entry entries[STATS_TENANTS_MAX];
};

const uint32_t stats_bounds_us[STATS_BOUNDS] = {
    50,    100,    250,    500,    1000,    2500,    5000,    10000,    25000,
    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000};

static unsigned thread_number(void);
static inline void add(count *c, uint64_t n, bool own);
static inline void hist_add(struct hist *h, int64_t us, bool own);
static void hist_sum(const struct hist *h, struct stats_hist *ret);
static unsigned class_learn(struct stats *s, const char *name);
static void class_sum(const struct class *c, struct stats_class *ret);
static void class_name(const struct stats *s, unsigned class, char *ret);
static void tell_full(struct stats *s);
static inline enum stats_kind kind_of(const char *sql, size_t size);
static enum stats_fault fault_of(const char *code);
static void note_tenant(struct stats *s, struct tenant *t, unsigned thread, const char *sql,
                        size_t size, int64_t us, const struct sql_done *done);
static struct entry *entry_of(struct stats *s, struct tenant *t);
static uint16_t find(const struct stats *s, const char *name);
static uint16_t take(struct stats *s, const char *name);
static void empty(struct stats *s, uint16_t at);
static uint16_t *chain_of(struct stats *s, const char *name);
static uint64_t key_of(const char *sql, size_t size);
static void top_note(struct entry *e, struct top *top, const void *owner, const struct noted *n,
                     uint64_t value);
static bool top_knows(struct top *top, uint64_t key, uint64_t value);
static void top_put(struct top *top, const struct noted *n, uint64_t value);
static size_t top_place(const struct top *top, uint64_t key);
static uint64_t top_least(const struct top *top);
static size_t top_list(const struct top *top, struct stats_query *ret);
static void top_clear(struct top *top);
static void entry_sum(const struct entry *e, struct stats_counts *ret);
static void note_slow(struct stats *s, const struct tenant *t, const char *sql, size_t size,
                      int64_t us, const struct sql_done *done, const struct sql_error *sql_err);
static void cut_text(char *out, size_t max, const char *sql, size_t size);

enum rc stats_new(const struct stats_opts *opts, struct stats **ret_s, struct err *err)
{
    struct stats *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "statistics");
    s->opts = *opts;
    pthread_mutex_init(&s->table_lock, NULL);
    pthread_mutex_init(&s->slow_lock, NULL);
    for (size_t i = 0; i < STATS_TENANTS_MAX; i++)
        pthread_mutex_init(&s->entries[i].lock, NULL);
    memset(s->chains, 0xff, sizeof s->chains);
    *ret_s = s;
    return RC_OK;
}

void stats_free(struct stats *s)
{
    if (s == NULL) return;
    stats_tick(s);
    for (size_t i = 0; i < STATS_TENANTS_MAX; i++) {
        struct entry *e = &s->entries[i];
        top_clear(&e->slowest);
        top_clear(&e->top);
        pthread_mutex_destroy(&e->lock);
    }
    pthread_mutex_destroy(&s->slow_lock);
    pthread_mutex_destroy(&s->table_lock);
    mem_free(s);
}

void stats_tick(struct stats *s)
{
    int64_t now_ms = os_mono_ms();
    uint64_t dropped = 0;
    atomic_fetch_add_explicit(&s->now, 1, memory_order_relaxed);
    for (;;) {
        struct line line;
        thr_lock(&s->slow_lock);
        bool any = s->line_count > 0;
        if (any) {
            line = s->lines[0];
            memmove(s->lines, s->lines + 1, --s->line_count * sizeof line);
        } else if (s->dropped > 0 && now_ms - s->second_ms >= SECOND_MS) {
            dropped = s->dropped;
            s->dropped = 0;
        }
        thr_unlock(&s->slow_lock);
        if (!any) break;
        line.s.tenant = line.tenant;
        line.s.sql = line.sql;
        line.s.code = line.code;
        s->opts.slow(s->opts.ctx, &line.s);
    }
    if (dropped > 0) s->opts.dropped(s->opts.ctx, dropped);
    if (atomic_load(&s->full) && !atomic_exchange(&s->told, true)) tell_full(s);
}

enum rc stats_check_class(const char *name, struct err *err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_-.";
    size_t size = strlen(name);
    if (size == 0 || size > STATS_CLASS_MAX)
        return err_set(err, RC_INVALID, "a class has a name of 1 to %d bytes, not %zu",
                       STATS_CLASS_MAX, size);
    if (name[strspn(name, letters)] != '\0' || name[0] == '.' || name[0] == '-')
        return err_set(err, RC_INVALID,
                       "a class's name has only small letters, digits, '_', '-' and '.', and "
                       "starts with neither '-' nor '.'");
    if (strcmp(name, "none") == 0 || strcmp(name, "other") == 0)
        return err_set(err, RC_INVALID, "class '%s': the name is taken", name);
    return RC_OK;
}

/* There are few names, and most tenants have none: no look-up is quicker than to compare. */
unsigned stats_class(struct stats *s, const struct tenant *t)
{
    if (t == NULL) return CLASS_NONE;
    const struct tenant_conf *conf = atomic_load_explicit(&t->conf, memory_order_acquire);
    const char *name = conf != NULL ? conf->class : NULL;
    if (name == NULL) return CLASS_DEFAULT;
    unsigned known = atomic_load_explicit(&s->name_count, memory_order_acquire);
    for (unsigned i = 0; i < known; i++)
        if (strcmp(s->names[i], name) == 0) return CLASS_NAMED + i;
    if (atomic_load_explicit(&s->full, memory_order_acquire)) return CLASS_OTHER;
    return class_learn(s, name);
}

void stats_ask(struct stats *s, unsigned class, enum stats_route route, unsigned status, int64_t us,
               uint64_t in, uint64_t out)
{
    unsigned thread = thread_number();
    bool own = thread < SHARDS - 1;
    struct shard *sh = &s->shards[own ? thread : SHARDS - 1];
    struct class *c = &sh->classes[class];
    hist_add(&c->asks[route], us, own);
    add(&c->statuses[status / 100 < 6 ? status / 100 : 5], 1, own);
    if (in > 0) add(&sh->bytes_in, in, own);
    if (out > 0) add(&sh->bytes_out, out, own);
}

void stats_stmt(struct stats *s, struct tenant *t, const char *sql, size_t size, int64_t us,
                const struct sql_done *done, const struct sql_error *sql_err)
{
    static const struct sql_done nothing;
    unsigned thread = thread_number();
    bool own = thread < SHARDS - 1;
    struct shard *sh = &s->shards[own ? thread : SHARDS - 1];
    struct class *c = &sh->classes[stats_class(s, t)];
    hist_add(&c->stmts[kind_of(sql, size)][sql_err != NULL], us, own);
    if (sql_err != NULL) {
        add(&c->faults[fault_of(sql_err->code)], 1, own);
        done = &nothing;
    }
    if (done->rows_read > 0) add(&sh->rows_read, done->rows_read, own);
    if (done->rows_written > 0) add(&sh->rows_written, done->rows_written, own);
    note_tenant(s, t, thread, sql, size, us, done);
    if (s->opts.slow_us == 0 || us <= s->opts.slow_us) return;
    add(&sh->slow, 1, own);
    note_slow(s, t, sql, size, us, done, sql_err);
}

/* ---- Reading ---- */

void stats_look(struct stats *s, struct stats_sum *ret)
{
    unsigned classes = CLASS_NAMED + atomic_load_explicit(&s->name_count, memory_order_acquire);
    memset(ret, 0, sizeof *ret);
    ret->class_count = classes;
    for (unsigned k = 0; k < classes; k++)
        class_name(s, k, ret->classes[k].name);
    for (size_t i = 0; i < SHARDS; i++) {
        const struct shard *sh = &s->shards[i];
        for (unsigned k = 0; k < classes; k++) {
            class_sum(&sh->classes[k], &ret->classes[k]);
            class_sum(&sh->classes[k], &ret->all);
        }
        ret->bytes_in += atomic_load_explicit(&sh->bytes_in, memory_order_relaxed);
        ret->bytes_out += atomic_load_explicit(&sh->bytes_out, memory_order_relaxed);
        ret->rows_read += atomic_load_explicit(&sh->rows_read, memory_order_relaxed);
        ret->rows_written += atomic_load_explicit(&sh->rows_written, memory_order_relaxed);
        ret->slow += atomic_load_explicit(&sh->slow, memory_order_relaxed);
    }
}

void stats_tenant_look(struct stats *s, const char *name, struct stats_tenant *ret)
{
    memset(ret, 0, sizeof *ret);
    thr_lock(&s->table_lock);
    uint16_t at = find(s, name);
    if (at != NONE) {
        struct entry *e = &s->entries[at];
        entry_sum(e, &ret->counts);
        thr_lock(&e->lock);
        ret->slowest_count = top_list(&e->slowest, ret->slowest);
        ret->top_count = top_list(&e->top, ret->top);
        thr_unlock(&e->lock);
    }
    thr_unlock(&s->table_lock);
}

void stats_tenant_clear(struct stats *s, const char *name, bool slowest, bool top)
{
    thr_lock(&s->table_lock);
    uint16_t at = find(s, name);
    if (at != NONE) {
        struct entry *e = &s->entries[at];
        thr_lock(&e->lock);
        if (slowest) top_clear(&e->slowest);
        if (top) top_clear(&e->top);
        thr_unlock(&e->lock);
    }
    thr_unlock(&s->table_lock);
}

void stats_tenant_drop(struct stats *s, const char *name)
{
    thr_lock(&s->table_lock);
    uint16_t at = find(s, name);
    if (at != NONE) empty(s, at);
    thr_unlock(&s->table_lock);
}

void stats_tenant_counts(struct stats *s, const char *name, struct stats_counts *ret)
{
    *ret = (struct stats_counts){0};
    thr_lock(&s->table_lock);
    uint16_t at = find(s, name);
    if (at != NONE) entry_sum(&s->entries[at], ret);
    thr_unlock(&s->table_lock);
}

/* ---- Counters ---- */

static unsigned thread_number(void)
{
    static atomic_uint threads;
    static _Thread_local unsigned mine; /* 0: none yet */
    if (mine == 0) mine = 1 + atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
    return mine - 1;
}

/* A counter that has one writer needs no locked instruction. */
static inline void add(count *c, uint64_t n, bool own)
{
    if (own)
        atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                              memory_order_relaxed);
    else
        atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline void hist_add(struct hist *h, int64_t us, bool own)
{
    size_t low = 0, high = STATS_BOUNDS;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (us <= stats_bounds_us[mid])
            high = mid;
        else
            low = mid + 1;
    }
    add(&h->counts[low], 1, own);
    add(&h->us, us > 0 ? (uint64_t)us : 0, own);
}

static void hist_sum(const struct hist *h, struct stats_hist *ret)
{
    for (size_t i = 0; i <= STATS_BOUNDS; i++)
        ret->counts[i] += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
    ret->us += atomic_load_explicit(&h->us, memory_order_relaxed);
}

/* ---- Classes of tenants ---- */

static unsigned class_learn(struct stats *s, const char *name)
{
    unsigned at = 0;
    thr_lock(&s->table_lock);
    unsigned known = atomic_load_explicit(&s->name_count, memory_order_relaxed);
    while (at < known && strcmp(s->names[at], name) != 0)
        at++;
    if (at == known && known < STATS_NAMED_MAX) {
        snprintf(s->names[at], sizeof s->names[at], "%s", name);
        atomic_store_explicit(&s->name_count, known + 1, memory_order_release);
    } else if (at == known && s->left_out[0] == '\0') {
        snprintf(s->left_out, sizeof s->left_out, "%s", name);
        atomic_store_explicit(&s->full, true, memory_order_release);
    }
    thr_unlock(&s->table_lock);
    return at < STATS_NAMED_MAX ? CLASS_NAMED + at : CLASS_OTHER;
}

static void class_sum(const struct class *c, struct stats_class *ret)
{
    for (size_t i = 0; i < STATS_ROUTES; i++)
        hist_sum(&c->asks[i], &ret->asks[i]);
    for (size_t i = 0; i < STATS_KINDS; i++)
        for (size_t bad = 0; bad < 2; bad++)
            hist_sum(&c->stmts[i][bad], &ret->stmts[i][bad]);
    for (size_t i = 0; i < 6; i++)
        ret->statuses[i] += atomic_load_explicit(&c->statuses[i], memory_order_relaxed);
    for (size_t i = 0; i < STATS_FAULTS; i++)
        ret->faults[i] += atomic_load_explicit(&c->faults[i], memory_order_relaxed);
}

static void class_name(const struct stats *s, unsigned class, char *ret)
{
    static const char *const names[CLASS_NAMED] = {
        [CLASS_DEFAULT] = TENANT_CLASS, [CLASS_NONE] = "none", [CLASS_OTHER] = "other"};
    const char *name = class < CLASS_NAMED ? names[class] : s->names[class - CLASS_NAMED];
    snprintf(ret, STATS_CLASS_MAX + 1, "%s", name);
}

static void tell_full(struct stats *s)
{
    char name[STATS_CLASS_MAX + 1];
    thr_lock(&s->table_lock);
    memcpy(name, s->left_out, sizeof name);
    thr_unlock(&s->table_lock);
    s->opts.full(s->opts.ctx, name);
}

/* ---- Statements ---- */

/* The usual ones by two letters, the others with care. */
static inline enum stats_kind kind_of(const char *sql, size_t size)
{
    if (size > 2) {
        unsigned two = (unsigned)(uint8_t)(sql[0] | 0x20) << 8 | (uint8_t)(sql[1] | 0x20);
        if (two == ('s' << 8 | 'e')) return STATS_READ;
        if (two == ('i' << 8 | 'n') || two == ('u' << 8 | 'p')) return STATS_WRITE;
    }
    enum sql_kind kind = sql_kind_of(sql, size);
    return kind == SQL_KIND_READ ? STATS_READ : kind == SQL_KIND_WRITE ? STATS_WRITE : STATS_OTHER;
}

static enum stats_fault fault_of(const char *code)
{
    static const struct {
        const char *code; /* or its beginning */
        enum stats_fault fault;
    } faults[] = {
        {"SQLITE_CONSTRAINT", STATS_FAULT_CONSTRAINT},
        {"SQLITE_MISMATCH", STATS_FAULT_CONSTRAINT},
        {"SQL_", STATS_FAULT_INPUT},
        {"ARGS_", STATS_FAULT_INPUT},
        {"SQLITE_UNKNOWN", STATS_FAULT_INPUT},
        {"SQLITE_RANGE", STATS_FAULT_INPUT},
        {"SQLITE_BUSY", STATS_FAULT_BUSY},
        {"SQLITE_LOCKED", STATS_FAULT_BUSY},
        {"TRANSACTION_", STATS_FAULT_BUSY},
        {"SQLITE_INTERRUPT", STATS_FAULT_INTERRUPT},
        {"SQLITE_AUTH", STATS_FAULT_DENIED},
        {"SQLITE_READONLY", STATS_FAULT_DENIED},
        {"SQLITE_PERM", STATS_FAULT_DENIED},
        {"AUTH_", STATS_FAULT_DENIED},
        {"BLOCKED", STATS_FAULT_DENIED},
        {"SQLITE_TOOBIG", STATS_FAULT_LIMIT},
        {"SQLITE_FULL", STATS_FAULT_LIMIT},
        {"RESPONSE_TOO_LARGE", STATS_FAULT_LIMIT},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        if (strncmp(code, faults[i].code, strlen(faults[i].code)) == 0) return faults[i].fault;
    return STATS_FAULT_INTERNAL;
}

/* ---- Tenants ---- */

static void note_tenant(struct stats *s, struct tenant *t, unsigned thread, const char *sql,
                        size_t size, int64_t us, const struct sql_done *done)
{
    struct entry *e = entry_of(s, t);
    struct part *p = &e->parts[thread % PARTS];
    uint64_t time = us > 0 ? (uint64_t)us : 0, rows = done->rows_read + done->rows_written;
    unsigned now = atomic_load_explicit(&s->now, memory_order_relaxed);
    atomic_uint *used = &s->used[e - s->entries];
    if (atomic_load_explicit(used, memory_order_relaxed) != now)
        atomic_store_explicit(used, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->queries, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->us, time, memory_order_relaxed);
    if (done->rows_read > 0)
        atomic_fetch_add_explicit(&p->rows_read, done->rows_read, memory_order_relaxed);
    if (done->rows_written > 0)
        atomic_fetch_add_explicit(&p->rows_written, done->rows_written, memory_order_relaxed);
    bool slow = time > atomic_load_explicit(&e->slowest.least, memory_order_relaxed);
    bool big = rows > atomic_load_explicit(&e->top.least, memory_order_relaxed);
    if (!slow && !big) return;
    struct noted n = {.key = key_of(sql, size), .sql = sql, .size = size, .us = us, .done = done};
    if (slow) top_note(e, &e->slowest, t, &n, time);
    if (big) top_note(e, &e->top, t, &n, rows);
}

static struct entry *entry_of(struct stats *s, struct tenant *t)
{
    unsigned at = atomic_load_explicit(&t->stats, memory_order_relaxed) - 1u;
    if (at < STATS_TENANTS_MAX &&
        atomic_load_explicit(&s->entries[at].owner, memory_order_relaxed) == t)
        return &s->entries[at];
    thr_lock(&s->table_lock);
    at = find(s, t->name);
    if (at == NONE) at = take(s, t->name);
    struct entry *e = &s->entries[at];
    thr_lock(&e->lock);
    atomic_store_explicit(&e->owner, t, memory_order_relaxed);
    thr_unlock(&e->lock);
    atomic_store_explicit(&t->stats, at + 1u, memory_order_relaxed);
    thr_unlock(&s->table_lock);
    return e;
}

/* The functions from here to entry_sum: under the table's lock. */
static uint16_t find(const struct stats *s, const char *name)
{
    uint16_t at = *chain_of((struct stats *)(uintptr_t)s, name);
    while (at != NONE && strcmp(s->entries[at].name, name) != 0)
        at = s->entries[at].next;
    return at;
}

static uint16_t take(struct stats *s, const char *name)
{
    unsigned now = atomic_load(&s->now), oldest = 0;
    uint16_t at = 0;
    for (uint16_t i = 0; i < STATS_TENANTS_MAX; i++) {
        unsigned age = now - atomic_load_explicit(&s->used[i], memory_order_relaxed);
        if (s->entries[i].name[0] == '\0') {
            at = i;
            break;
        }
        if (age < oldest) continue;
        oldest = age;
        at = i;
    }
    struct entry *e = &s->entries[at];
    if (e->name[0] != '\0') empty(s, at);
    snprintf(e->name, sizeof e->name, "%s", name);
    uint16_t *chain = chain_of(s, name);
    e->next = *chain;
    *chain = at;
    atomic_store(&s->used[at], now);
    return at;
}

static void empty(struct stats *s, uint16_t at)
{
    struct entry *e = &s->entries[at];
    uint16_t *link = chain_of(s, e->name);
    while (*link != at)
        link = &s->entries[*link].next;
    *link = e->next;
    e->name[0] = '\0';
    thr_lock(&e->lock);
    atomic_store_explicit(&e->owner, NULL, memory_order_relaxed);
    top_clear(&e->slowest);
    top_clear(&e->top);
    thr_unlock(&e->lock);
    for (size_t i = 0; i < PARTS; i++) {
        struct part *p = &e->parts[i];
        atomic_store(&p->queries, 0);
        atomic_store(&p->us, 0);
        atomic_store(&p->rows_read, 0);
        atomic_store(&p->rows_written, 0);
    }
}

static uint16_t *chain_of(struct stats *s, const char *name)
{
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    return &s->chains[(hash ^ hash >> 16) % CHAINS];
}

static void entry_sum(const struct entry *e, struct stats_counts *ret)
{
    for (size_t i = 0; i < PARTS; i++) {
        const struct part *p = &e->parts[i];
        ret->queries += atomic_load_explicit(&p->queries, memory_order_relaxed);
        ret->us += atomic_load_explicit(&p->us, memory_order_relaxed);
        ret->rows_read += atomic_load_explicit(&p->rows_read, memory_order_relaxed);
        ret->rows_written += atomic_load_explicit(&p->rows_written, memory_order_relaxed);
    }
}

/* ---- Lists of statements ---- */

/* Long texts are looked at in some places only: those that differ elsewhere, in a literal most
 * likely, count as one. Never 0. */
static uint64_t key_of(const char *sql, size_t size)
{
    uint64_t h = size * UINT64_C(0x9e3779b97f4a7c15);
    size_t step = size <= 64 ? 8 : (size - 8) / 7;
    size_t at = 0;
    for (; at + 8 <= size; at += step) {
        h = (h ^ get_le64(sql + at)) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    uint64_t rest = 0;
    if (size <= 64)
        for (; at < size; at++)
            rest = rest << 8 | (uint8_t)sql[at];
    h = (h ^ rest) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (h ^ h >> 29) | 1;
}

static void top_note(struct entry *e, struct top *top, const void *owner, const struct noted *n,
                     uint64_t value)
{
    if (top_knows(top, n->key, value)) return;
    thr_lock(&e->lock);
    /* Somebody else's by now: what one tenant asks is not for another's list. */
    if (atomic_load_explicit(&e->owner, memory_order_relaxed) == owner) top_put(top, n, value);
    thr_unlock(&e->lock);
}

/* It is there, with a value that is as bad. Without a lock: at worst a detour. */
static bool top_knows(struct top *top, uint64_t key, uint64_t value)
{
    for (size_t i = 0; i < STATS_TOP; i++)
        if (atomic_load_explicit(&top->keys[i], memory_order_relaxed) == key)
            return atomic_load_explicit(&top->values[i], memory_order_relaxed) >= value;
    return false;
}

static void top_put(struct top *top, const struct noted *n, uint64_t value)
{
    size_t at = top_place(top, n->key);
    if (atomic_load(&top->values[at]) >= value) return;
    struct top_query *q = &top->queries[at];
    if (atomic_load(&top->keys[at]) != n->key) {
        char text[STATS_TOP_SQL_MAX + 4];
        cut_text(text, STATS_TOP_SQL_MAX, n->sql, n->size);
        char *copy = mem_strdup(text);
        if (copy == NULL) return;
        mem_free(q->sql);
        q->sql = copy;
    }
    q->us = n->us;
    q->rows_read = n->done->rows_read;
    q->rows_written = n->done->rows_written;
    atomic_store(&top->values[at], value);
    atomic_store(&top->keys[at], n->key);
    atomic_store(&top->least, top_least(top));
}

/* Where it is, or a free place, or that of the least. */
static size_t top_place(const struct top *top, uint64_t key)
{
    size_t least = 0;
    for (size_t i = 0; i < STATS_TOP; i++) {
        if (atomic_load(&top->keys[i]) == key) return i;
        if (atomic_load(&top->values[i]) < atomic_load(&top->values[least])) least = i;
    }
    return least;
}

static uint64_t top_least(const struct top *top)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < STATS_TOP; i++)
        if (atomic_load(&top->values[i]) < least) least = atomic_load(&top->values[i]);
    return least;
}

/* The worst first. */
static size_t top_list(const struct top *top, struct stats_query *ret)
{
    size_t n = 0;
    uint64_t values[STATS_TOP];
    for (size_t i = 0; i < STATS_TOP; i++) {
        const struct top_query *q = &top->queries[i];
        uint64_t value = atomic_load(&top->values[i]);
        if (q->sql == NULL) continue;
        size_t at = n++;
        for (; at > 0 && values[at - 1] < value; at--) {
            values[at] = values[at - 1];
            ret[at] = ret[at - 1];
        }
        values[at] = value;
        ret[at] = (struct stats_query){
            .us = q->us, .rows_read = q->rows_read, .rows_written = q->rows_written};
        snprintf(ret[at].sql, sizeof ret[at].sql, "%s", q->sql);
    }
    return n;
}

static void top_clear(struct top *top)
{
    for (size_t i = 0; i < STATS_TOP; i++) {
        mem_free(top->queries[i].sql);
        top->queries[i] = (struct top_query){0};
        atomic_store(&top->keys[i], 0);
        atomic_store(&top->values[i], 0);
    }
    atomic_store(&top->least, 0);
}

/* ---- The log of slow statements ---- */

static void note_slow(struct stats *s, const struct tenant *t, const char *sql, size_t size,
                      int64_t us, const struct sql_done *done, const struct sql_error *sql_err)
{
    int64_t now_ms = os_mono_ms();
    thr_lock(&s->slow_lock);
    if (now_ms - s->second_ms >= SECOND_MS) {
        s->second_ms = now_ms;
        s->second_count = 0;
    }
    if (s->second_count >= STATS_SLOW_RATE || s->line_count >= STATS_SLOW_RATE) {
        s->dropped++;
    } else {
        struct line *l = &s->lines[s->line_count++];
        s->second_count++;
        l->s = (struct stats_slow){
            .us = us, .rows_read = done->rows_read, .rows_written = done->rows_written};
        snprintf(l->tenant, sizeof l->tenant, "%s", t->name);
        snprintf(l->code, sizeof l->code, "%s", sql_err != NULL ? sql_err->code : "");
        cut_text(l->sql, STATS_SLOW_SQL_MAX, sql, size);
    }
    thr_unlock(&s->slow_lock);
}

/* Cut to max bytes with "..." behind, as UTF-8 and without NUL: what is not becomes '?'. */
static void cut_text(char *out, size_t max, const char *sql, size_t size)
{
    size_t at = 0, to = 0;
    while (at < size) {
        size_t n = sql_char_size(sql + at, size - at);
        size_t put = n == 0 || sql[at] == '\0' ? 1 : n;
        if (to + put > max) break;
        if (n == 0 || sql[at] == '\0')
            out[to] = '?';
        else
            memcpy(out + to, sql + at, n);
        to += put;
        at += n == 0 ? 1 : n;
    }
    memcpy(out + to, at < size ? "..." : "", at < size ? 4 : 1);
}
