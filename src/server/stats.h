/*
 * stats.h -- numbers of the service: what was asked and answered, statements and how long they
 * took, for the whole server and for each tenant; statements that were slow.
 *
 * Recording takes no lock and allocates nothing, but for a statement that is among the slowest of
 * its tenant or gets into the log: each of the first 63 threads has counters of its own, all others
 * share some. What is read is a sum that may be a moment old.
 *
 * Requests and statements are counted by the class of their tenant, a name that its configuration
 * has. The first STATS_NAMED_MAX names that come have counters of their own, further ones are
 * "other"; "none" is what has no tenant, such as a request that was refused.
 *
 * Of tenants there are the STATS_TENANTS_MAX that were active last, each with counts and the
 * statements that were slowest and that touched most rows. Of a statement there is its text, cut,
 * and never a parameter.
 *
 * Threads: any; stats_tick from one at a time.
 */
#ifndef SERVER_STATS_H
#define SERVER_STATS_H
#include "server/tenant.h"

#define STATS_TENANTS_MAX  1024
#define STATS_TOP          10   /* statements in a list of a tenant */
#define STATS_TOP_SQL_MAX  512  /* bytes of their texts */
#define STATS_SLOW_SQL_MAX 1024 /* bytes of a text for the log */
#define STATS_SLOW_RATE    10   /* statements for the log in one second */
#define STATS_BOUNDS       18
#define STATS_CLASS_MAX    32 /* bytes of a class's name */
#define STATS_NAMED_MAX    16 /* classes besides default, none and other */
#define STATS_CLASSES      (STATS_NAMED_MAX + 3)

enum stats_route { STATS_PIPELINE, STATS_CURSOR, STATS_WEBSOCKET, STATS_V1, STATS_ELSE };
enum stats_kind { STATS_READ, STATS_WRITE, STATS_OTHER };
#define STATS_ROUTES 5
#define STATS_KINDS  3

/* What a failed statement was told, by its code. */
#define STATS_FAULT_MAP(X)                                                                         \
    X(CONSTRAINT, "constraint") /* a rule of the schema */                                         \
    X(INPUT, "input")           /* the text or its arguments make no sense */                      \
    X(BUSY, "busy")             /* locked, or a transaction took too long */                       \
    X(INTERRUPT, "interrupt")   /* its time was over, or the client had gone */                    \
    X(DENIED, "denied")         /* not allowed, or blocked */                                      \
    X(LIMIT, "limit")           /* too big, or full */                                             \
    X(INTERNAL, "internal")     /* trouble on our side: disk, memory, damage */
enum stats_fault {
#define X(name, ...) STATS_FAULT_##name,
    STATS_FAULT_MAP(X)
#undef X
        STATS_FAULTS
};

struct stats;
struct stats_slow { /* for the log */
    const char *tenant;
    const char *sql; /* UTF-8, at most STATS_SLOW_SQL_MAX bytes; ends in "..." when cut */
    int64_t us;
    uint64_t rows_read, rows_written;
    const char *code; /* of its failure; "" */
};
struct stats_opts {
    int64_t slow_us; /* a statement that takes longer is slow; 0: none is */
    /* By stats_tick. */
    void (*slow)(void *ctx, const struct stats_slow *s);
    void (*dropped)(void *ctx, uint64_t count); /* more than STATS_SLOW_RATE in a second */
    void (*full)(void *ctx, const char *name);  /* the first class that counts as "other"; once */
    void *ctx;
};
/* Fails: RC_NO_MEM. */
MUST_CHECK enum rc stats_new(const struct stats_opts *opts, struct stats **ret_s, struct err *err);
void stats_free(struct stats *s); /* NULL is fine; what waits for the log gets there */
/* Give slow statements to the log. Call every 100 ms or so. */
void stats_tick(struct stats *s);

/* A name of a class: 1 to STATS_CLASS_MAX of [a-z0-9_-.], not starting with '.' or '-', and neither
 * "none" nor "other". Fails: RC_INVALID saying why. */
MUST_CHECK enum rc stats_check_class(const char *name, struct err *err);

/* The class of a tenant, which is counted; NULL: "none". */
unsigned stats_class(struct stats *s, const struct tenant *t);
/* A request over HTTP or a message over WebSocket was answered. class: of stats_class; status: of
 * HTTP; 0: a message. */
void stats_ask(struct stats *s, unsigned class, enum stats_route route, unsigned status, int64_t us,
               uint64_t in, uint64_t out);
/* A statement has run. sql_err NULL: well, and done is filled. */
void stats_stmt(struct stats *s, struct tenant *t, const char *sql, size_t size, int64_t us,
                const struct sql_done *done, const struct sql_error *sql_err);

/* ---- Reading ---- */
extern const uint32_t stats_bounds_us[STATS_BOUNDS]; /* of the buckets, inclusive */
struct stats_hist {
    uint64_t counts[STATS_BOUNDS + 1]; /* not cumulative; the last: above all bounds */
    uint64_t us;                       /* sum */
};
struct stats_class {
    char name[STATS_CLASS_MAX + 1];
    struct stats_hist asks[STATS_ROUTES];
    struct stats_hist stmts[STATS_KINDS][2]; /* well, failed */
    uint64_t statuses[6];                    /* by the first digit; 0: messages */
    uint64_t faults[STATS_FAULTS];
};
struct stats_sum {
    struct stats_class all, classes[STATS_CLASSES]; /* all: without a name */
    size_t class_count;
    uint64_t bytes_in, bytes_out, rows_read, rows_written, slow;
};
void stats_look(struct stats *s, struct stats_sum *ret);

struct stats_counts {
    uint64_t queries, us, rows_read, rows_written;
};
struct stats_query {
    char sql[STATS_TOP_SQL_MAX + 4];
    int64_t us;
    uint64_t rows_read, rows_written;
};
struct stats_tenant {
    struct stats_counts counts;
    struct stats_query slowest[STATS_TOP], top[STATS_TOP]; /* the worst first */
    size_t slowest_count, top_count;
};
/* One that is not known has zeros. */
void stats_tenant_look(struct stats *s, const char *name, struct stats_tenant *ret);
void stats_tenant_counts(struct stats *s, const char *name, struct stats_counts *ret);
/* Forget a list. */
void stats_tenant_clear(struct stats *s, const char *name, bool slowest, bool top);
void stats_tenant_drop(struct stats *s, const char *name); /* all of it: the tenant is no more */
/* The part of the numbers that is kept here in Prometheus' text form, appended. */
MUST_CHECK enum rc stats_page(struct stats *s, struct buf *out, struct err *err);
#endif
