/*
 * load.h -- parts of the load generator; see load.c.
 *
 *   load.c        options, phases, the report
 *   load_conn.c   connections: epoll, HTTP and WebSocket framing
 *   load_work.c   what is asked, and whether the answer is right
 *   load_hist.c   a histogram of latencies
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include "tool.h"

#define LOAD_NAME_MAX   256
#define LOAD_TOKEN_MAX  4096
#define LOAD_BATON_MAX  512
#define LOAD_DEPTH_MAX  64
#define LOAD_THREADS    64
#define LOAD_FILL_BATCH 10000u /* rows, when a table is filled */
/* An answer beyond this is a failure: nothing asked here has a long one. */
#define LOAD_ANSWER_MAX (1 << 20)

enum load_mode {
    LOAD_POINT,
    LOAD_TEN,
    LOAD_INSERT,
    LOAD_MIXED,
    LOAD_TXN,
    LOAD_SELECT1,
    LOAD_TENANTS,
    LOAD_SLOW,
    /* Not for the command line: phases of --setup and --idle. */
    LOAD_CREATE,
    LOAD_FILL,
    LOAD_HOLD,
};
enum tenant_style { TENANT_PATH, TENANT_HEADER, TENANT_HOST };

struct target {
    char host[LOAD_NAME_MAX], base[LOAD_NAME_MAX]; /* base: path in front of every other, or "" */
    char authority[LOAD_NAME_MAX + 8];
    struct sockaddr_storage addr;
    socklen_t addr_size;
};

struct load_opts {
    struct target target, admin;
    bool has_admin, ws, json, setup, mode_given;
    enum load_mode mode;
    unsigned conns, threads, depth, idle;
    double seconds, warm, zipf, rate; /* rate: operations a second, 0: as many as it can */
    uint64_t rows, slow_rows;
    unsigned tenants;
    enum tenant_style style;
    const char *tenant, *token; /* tenant: all requests go to this one, or NULL */
    pid_t pid;
    uint64_t seed;
};

/* ---- Latencies: buckets of 1/128 of their value, so that a figure is right within 0.8 %. ---- */
#define HIST_SUB     128
#define HIST_BUCKETS (64 * HIST_SUB)
struct hist {
    uint64_t count, max, buckets[HIST_BUCKETS];
};
void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);
uint64_t hist_at(const struct hist *h, double share); /* 0.99: the 99th percentile */

/* ---- Bytes that only grow. ---- */
struct bytes {
    char *data;
    size_t size, cap;
};
void bytes_room(struct bytes *b, size_t more);
void bytes_put(struct bytes *b, const void *data, size_t size);
void bytes_u64(struct bytes *b, uint64_t number);
static inline void bytes_str(struct bytes *b, const char *text)
{
    bytes_put(b, text, strlen(text));
}

/* ---- One request on its way. ---- */
struct flight {
    int64_t op_start_ns; /* an operation may take several requests (txn) */
    char expect[32];     /* part of a right answer; "" for any */
    bool used, ends_op, may_fail;
};

enum conn_state { CONN_UPGRADE, CONN_HELLO, CONN_STREAM, CONN_READY };
struct conn {
    struct worker *worker;
    int fd;
    enum conn_state state;
    bool want_write;
    struct bytes in, out;
    size_t in_start, out_start;
    uint32_t mask;
    /* What it is doing. */
    int step; /* of a transaction; see load_work.c */
    uint64_t id;
    uint64_t part; /* of a setup: which, */
    int retries;   /* and how often it failed */
    int64_t op_start_ns;
    unsigned tenant;                 /* of this operation; over a WebSocket, of the connection */
    int32_t request_id, answered_id; /* the newest; HTTP answers in order */
    char baton[LOAD_BATON_MAX];
    struct flight flights[LOAD_DEPTH_MAX]; /* at request_id % LOAD_DEPTH_MAX */
    unsigned flight_count;
};

/* What the threads of a phase share. */
struct phase {
    const struct load_opts *opts;
    const struct target *target;
    enum load_mode mode;
    bool ws;
    unsigned conns, threads, depth;
    uint64_t work_count; /* of LOAD_CREATE and LOAD_FILL: so many operations, then the end */
    atomic_uint_fast64_t work_next;
    const double *zipf_sums; /* [tenants] */
    pthread_barrier_t ready;
    void (*on_ready)(void); /* called by one thread when all connections stand; may be NULL */
};

struct worker {
    struct phase *phase;
    pthread_t thread;
    unsigned conn_count;
    struct conn *conns;
    int epoll;
    struct rng rng;
    struct bytes body;       /* scratch: the request that is being made */
    int64_t from_ns, to_ns;  /* the window that counts */
    int64_t due_ns, pace_ns; /* with --rate: when the next operation is to start, and the step */
    unsigned turn;           /* the connection to look at first for it */
    unsigned busy;           /* connections with requests on their way */
    bool closing;            /* start no more operations, only end those that were */
    /* Results. */
    struct hist hist;
    uint64_t ops, trips, errors, reconnects;
    char first_error[256];
};

int64_t mono_ns(void);

/* ---- load_work.c ---- */
/* Make the connection's next request in w->body, and say in f what to expect. False: there is
 * nothing left to do. */
bool work_next(struct conn *c, struct flight *f);
/* Look at an answer and move the connection on. False: a failure, told to the worker. A message of
 * a WebSocket has status 200. */
bool work_answer(struct conn *c, const struct flight *f, int status, const char *body, size_t size);
/* The answer will not come: the connection broke. */
void work_broken(struct conn *c);
/* "POST <path>" to "\r\n\r\n" for the request in w->body, or the GET that asks for a WebSocket. */
void work_http_head(struct conn *c, struct bytes *out);
void work_upgrade_head(struct conn *c, struct bytes *out);
void work_failed(struct worker *w, const char *what, const char *text, size_t size);
/* Sums of Zipf's weights up to each rank; sums[count - 1] == 1. */
double *work_zipf(unsigned count, double exponent);

/* ---- load_conn.c ---- */
void target_parse(struct target *t, const char *url);
/* Run the phase on its own threads; the results are added up in *sum. */
void phase_run(struct phase *p, struct worker *sum);
#endif
