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
#include "server/stats_intern.h"
#include "sql/token.h"

#define SHARDS     64 /* the last is shared */
#define PARTS      4  /* of a tenant's counts */
#define CHAINS     2048
#define NONE       UINT16_MAX
#define SECOND_MS  1000
#define FAULT_NAME 16

typedef _Atomic uint64_t count;

struct hist {
    count counts[STATS_BOUNDS + 1], us;
};
struct shard {
    struct hist asks[STATS_ROUTES], stmts[STATS_KINDS][2];
    count statuses[6], faults[STATS_FAULTS];
    count bytes_in, bytes_out, rows_read, rows_written, slow;
} __attribute__((aligned(128)));

struct top { /* a list of the worst statements of a tenant */
    count least;                              /* of values, when full; else 0 */
    count keys[STATS_TOP], values[STATS_TOP]; /* key 0: free */
    struct top_query { /* [entry lock] */
        char *sql;
        int64_t us;
        uint64_t rows_read, rows_written;
    } queries[STATS_TOP];
};
struct part {
    count queries, us, rows_read, rows_written;
} __attribute__((aligned(64)));
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
    uint16_t chains[CHAINS];        /* [table_lock] */
    atomic_uint now;                /* ticks */
    atomic_uint used[STATS_TENANTS_MAX]; /* ticks; apart, because all are looked through */
    pthread_mutex_t slow_lock;
    int64_t second_ms; /* [slow_lock] when the one at hand began */
    unsigned second_count, line_count;
    uint64_t dropped;
    struct line lines[STATS_SLOW_RATE];
    struct shard shards[SHARDS];
    struct entry entries[STATS_TENANTS_MAX];
};

const uint32_t stats_bounds_us[STATS_BOUNDS] = {
    50,     100,    250,    500,     1000,    2500,    5000,    10000,    25000,
    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000};

static unsigned thread_number(void);
static void add(count *c, uint64_t n, bool own);
static void hist_add(struct hist *h, int64_t us, bool own);
static void hist_sum(const struct hist *h, struct stats_hist *ret);
static enum stats_kind kind_of(const char *sql, size_t size);
static enum stats_fault fault_of(const char *code);
static void note_tenant(struct stats *s, struct tenant *t, unsigned thread, const char *sql,
                        size_t size, int64_t us, const struct sql_done *done);
static struct entry *entry_of(struct stats *s, struct tenant *t);
static uint16_t find(const struct stats *s, const char *name);
static uint16_t take(struct stats *s, const char *name);
static void empty(struct stats *s, uint16_t at);
static uint16_t *chain_of(struct stats *s, const char *name);
static uint64_t key_of(const char *sql, size_t size);
static void top_note(struct entry *e, struct top *top, const void *owner, const char *sql,
                     size_t size, uint64_t value, int64_t us, const struct sql_done *done);
static bool top_knows(struct top *top, uint64_t key, uint64_t value);
static void top_put(struct top *top, uint64_t key, uint64_t value, const char *sql, size_t size,
                    int64_t us, const struct sql_done *done);
static size_t top_place(const struct top *top, uint64_t key);
static uint64_t top_least(const struct top *top);
static size_t top_list(const struct top *top, struct stats_query *ret);
static void top_clear(struct top *top);
static void entry_sum(const struct entry *e, struct stats_tenant *ret);
static void note_slow(struct stats *s, const struct tenant *t, const char *sql, size_t size,
                      int64_t us, const struct sql_done *done, const struct sql_error *sql_err);

enum rc stats_new(const struct stats_opts *opts, struct stats **ret_s, struct err *err)
{
    struct stats *s = mem_calloc(1, sizeof *s + 128);
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
