/*
 * sql_bench.c -- group commit against one commit a write, in the same run and on the same disk.
 *
 *   sql_bench [--dir DIR] [--seconds N] [--rounds N]
 *
 * Each of T threads submits an INSERT of 100 bytes, waits for its result and goes on. "single" is
 * the same INSERT in autocommit mode on one connection, which is what SQLite does without a group;
 * rounds of both alternate. "turns" are transactions of T clients, each with a stream of its own:
 * BEGIN IMMEDIATE, SELECT, UPDATE, COMMIT, four calls from outside; "single" is one connection that
 * does the same. synchronous=FULL everywhere: one fsync a commit. One JSON line a row; the figure
 * to look at is `ratio`, for disks differ.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/os.h"
#include "db/source.h"
#include "sql/stream.h"

#define THREADS_MAX 256
#define SAMPLES_MAX 400000

struct load {
    struct sql_writer *writer;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken, stop;
    int64_t end_ms, seconds;
    pthread_barrier_t warm; /* all players are ready */
    atomic_size_t count;
    int64_t *samples; /* us */
};
struct client {
    struct load *load;
    struct sql_write write;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ready;
};

struct player { /* a client with transactions */
    struct sql_stream stream;
    struct load *load;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool granted;
};

static void die(const char *what, const struct err *err);
static void measure_turns(const char *path, int threads, int64_t seconds, double single);
static double measure_single_turns(const char *path, int64_t seconds);
static void *play(void *arg);
static void play_one(struct player *p, const char *sql);
static int64_t read_count(const char *path);
static enum rc take_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err);
static enum rc take_count(void *ctx, const struct sql_value *v, size_t count, struct err *err);
static void granted(void *ctx);
static void measure_group(const char *path, int threads, int64_t seconds, double single);
static double measure_single(const char *path, int64_t seconds);
static enum rc insert(struct sql_conn *c, const struct call *call, struct sql_error *sql_err,
                      struct err *err);
static enum rc run(struct sql_write *w, struct sql_conn *c, struct err *err);
static void done(struct sql_write *w);
static void wake(void *ctx);
static void *work(void *arg);
static void *submit(void *arg);
static void make_database(const char *path);
static int by_size(const void *a, const void *b);

int main(int argc, char **argv)
{
    const char *dir = "/tmp";
    int64_t seconds = 3;
    int rounds = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0) dir = argv[i + 1];
        if (strcmp(argv[i], "--seconds") == 0) seconds = strtol(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--rounds") == 0) rounds = (int)strtol(argv[i + 1], NULL, 10);
    }
    char folder[OS_PATH_MAX], path[OS_PATH_MAX + 16], command[OS_PATH_MAX + 16];
    snprintf(folder, sizeof folder, "%s/sql-bench-XXXXXX", dir);
    if (mkdtemp(folder) == NULL) return 1;
    snprintf(path, sizeof path, "%s/b.db", folder);
    source_global_init();
    for (int i = 0; i < rounds; i++) {
        static const int threads[] = {1, 16, 64};
        double single = measure_single(path, seconds);
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++)
            measure_group(path, threads[t], seconds, single);
        static const int streams[] = {1, 8, 64};
        for (size_t t = 0; t < sizeof streams / sizeof streams[0]; t++)
            measure_turns(path, streams[t], seconds, measure_single_turns(path, seconds));
    }
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) == 0 ? 0 : 1;
}

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "sql_bench: %s: %s\n", what, err->text);
    exit(1);
}

/* A new one for each row. What one row leaves in the WAL would be read by the first connection of
 * the next, in its time: nothing is checkpointed on close, and how far it had been is forgotten
 * then. */
static void make_database(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char file[OS_PATH_MAX + 32];
        snprintf(file, sizeof file, "%s%s", path, ends[i]);
        unlink(file);
    }
    struct sql_conn *c;
    struct sql_conn_opts opts = {.path = path};
    struct sql_error sql_err;
    struct err err;
    const char *sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT);"
                      "CREATE TABLE n(a INT); INSERT INTO n VALUES(0)";
    if (sql_conn_open(&opts, &c, &err) != RC_OK ||
        sql_conn_script(c, NULL, NULL, sql, strlen(sql), &sql_err, &err) != RC_OK)
        die("create", &err);
    sql_conn_close(c);
}

static void measure_group(const char *path, int threads, int64_t seconds, double single)
{
    make_database(path);
    struct load l = {.end_ms = os_mono_ms() + seconds * 1000};
    struct err err;
    pthread_t worker, ids[THREADS_MAX];
    static struct client clients[THREADS_MAX];
    struct sql_writer_opts opts = {
        .conn = {.path = path, .full_sync = true}, .wake = wake, .ctx = &l};
    l.samples = mem_calloc(SAMPLES_MAX, sizeof *l.samples);
    pthread_mutex_init(&l.lock, NULL);
    thr_cond_init(&l.cond);
    if (l.samples == NULL || sql_writer_new(&opts, &l.writer, &err) != RC_OK) die("writer", &err);
    if (thr_start(&worker, "work", work, &l, &err) != RC_OK) die("worker", &err);
    for (int i = 0; i < threads; i++) {
        clients[i] = (struct client){.load = &l};
        if (thr_start(&ids[i], "client", submit, &clients[i], &err) != RC_OK) die("client", &err);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    thr_lock(&l.lock);
    l.stop = true;
    pthread_cond_broadcast(&l.cond);
    thr_unlock(&l.lock);
    pthread_join(worker, NULL);
    struct sql_writer_stats stats;
    sql_writer_look(l.writer, &stats);
    sql_writer_free(l.writer);
    size_t count = atomic_load(&l.count);
    if (count > SAMPLES_MAX) count = SAMPLES_MAX;
    qsort(l.samples, count, sizeof *l.samples, by_size);
    double rate = (double)stats.writes / (double)seconds;
    printf("{\"bench\":\"group_commit\",\"threads\":%d,\"inserts_s\":%.0f,\"commits_s\":%.0f,"
           "\"mean_group\":%.1f,\"p50_us\":%lld,\"p99_us\":%lld,\"ratio\":%.2f}\n",
           threads, rate, (double)stats.commits / (double)seconds,
           (double)stats.writes / (double)(stats.groups > 0 ? stats.groups : 1),
           count > 0 ? (long long)l.samples[count / 2] : 0,
           count > 0 ? (long long)l.samples[count * 99 / 100] : 0, rate / single);
    fflush(stdout);
    mem_free(l.samples);
}

static double measure_single(const char *path, int64_t seconds)
{
    make_database(path);
    struct sql_conn *c;
    struct sql_conn_opts opts = {.path = path, .full_sync = true};
    struct sql_error sql_err;
    struct err err;
    int64_t count = 0, end_ms = os_mono_ms() + seconds * 1000;
    if (sql_conn_open(&opts, &c, &err) != RC_OK) die("open", &err);
    while (os_mono_ms() < end_ms) {
        if (insert(c, NULL, &sql_err, &err) != RC_OK) die("insert", &err);
        count++;
    }
    sql_conn_close(c);
    double rate = (double)count / (double)seconds;
    printf("{\"bench\":\"single_commit\",\"inserts_s\":%.0f}\n", rate);
    fflush(stdout);
    return rate > 0 ? rate : 1;
}

/* Each counts, for two reasons: an update to the same value dirties no page, so its COMMIT would
 * cost nothing; and the count tells in the end whether one was lost. */
static const char *const transaction[] = {"BEGIN IMMEDIATE", "SELECT a FROM n",
                                          "UPDATE n SET a=a+1", "COMMIT"};

static double measure_single_turns(const char *path, int64_t seconds)
{
    make_database(path);
    struct sql_conn *c;
    struct sql_conn_opts opts = {.path = path, .full_sync = true};
    struct sql_error sql_err;
    struct sql_done ignored;
    struct err err;
    int64_t count = 0;
    if (sql_conn_open(&opts, &c, &err) != RC_OK) die("open", &err);
    int64_t end_ms = os_mono_ms() + seconds * 1000;
    for (; os_mono_ms() < end_ms; count++) {
        for (int i = 0; i < 4; i++) {
            struct sql_stmt s = {.sql = transaction[i], .sql_size = strlen(transaction[i])};
            if (sql_conn_run(c, NULL, NULL, &s, NULL, &ignored, &sql_err, &err) != RC_OK)
                die("transaction", &err);
        }
    }
    sql_conn_close(c);
    double rate = (double)count / (double)seconds;
    printf("{\"bench\":\"single_transactions\",\"transactions_s\":%.0f}\n", rate);
    fflush(stdout);
    return rate > 0 ? rate : 1;
}

static void measure_turns(const char *path, int threads, int64_t seconds, double single)
{
    make_database(path);
    struct load l = {.seconds = seconds};
    struct err err;
    struct sched *pool;
    struct sql_engine *engine;
    pthread_t ids[THREADS_MAX];
    static struct player players[THREADS_MAX];
    l.samples = mem_calloc(SAMPLES_MAX, sizeof *l.samples);
    if (l.samples == NULL) die("memory", &(struct err){0});
    if (sched_new("write", 1, NULL, NULL, &pool, &err) != RC_OK) die("pool", &err);
    struct sql_engine_opts opts = {
        .conn = {.path = path, .full_sync = true}, .pool = pool, .idle_max = THREADS_MAX};
    if (sql_engine_open(&opts, &engine, &err) != RC_OK) die("engine", &err);
    pthread_barrier_init(&l.warm, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        players[i] = (struct player){.stream.engine = engine, .load = &l};
        if (thr_start(&ids[i], "player", play, &players[i], &err) != RC_OK) die("player", &err);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&l.warm);
    struct sql_engine_stats stats;
    sql_engine_look(engine, &stats);
    sql_engine_close(engine);
    sched_free(pool);
    size_t count = atomic_load(&l.count);
    if (read_count(path) != (int64_t)count + threads) {
        err_set(&err, RC_CORRUPT, "an update was lost");
        die("turns", &err);
    }
    double rate = (double)count / (double)seconds;
    if (count > SAMPLES_MAX) count = SAMPLES_MAX;
    qsort(l.samples, count, sizeof *l.samples, by_size);
    printf("{\"bench\":\"turns\",\"streams\":%d,\"transactions_s\":%.0f,\"p50_us\":%lld,"
           "\"p99_us\":%lld,\"connections\":%u,\"ratio\":%.2f}\n",
           threads, rate, count > 0 ? (long long)l.samples[count / 2] : 0,
           count > 0 ? (long long)l.samples[count * 99 / 100] : 0, stats.conns, rate / single);
    fflush(stdout);
    mem_free(l.samples);
}

static void *play(void *arg)
{
    struct player *p = arg;
    pthread_mutex_init(&p->lock, NULL);
    thr_cond_init(&p->cond);
    /* One that does not count: its connection is open, its statements are prepared. */
    for (int i = 0; i < 4; i++)
        play_one(p, transaction[i]);
    pthread_barrier_wait(&p->load->warm);
    int64_t end_ms = os_mono_ms() + p->load->seconds * 1000;
    while (os_mono_ms() < end_ms) {
        int64_t start = os_mono_us();
        for (int i = 0; i < 4; i++)
            play_one(p, transaction[i]);
        size_t at = atomic_fetch_add(&p->load->count, 1);
        if (at < SAMPLES_MAX) p->load->samples[at] = os_mono_us() - start;
    }
    sql_stream_end(&p->stream);
    return NULL;
}

static void play_one(struct player *p, const char *sql)
{
    struct sql_stmt s = {.sql = sql, .sql_size = strlen(sql)};
    struct sql_error sql_err;
    struct sql_done ignored;
    struct err err;
    enum rc rc;
    while ((rc = sql_stream_run(&p->stream, NULL, NULL, &s, NULL, &ignored, &sql_err, &err)) ==
           RC_AGAIN) {
        p->granted = false;
        sql_stream_ask(&p->stream, granted, p);
        thr_lock(&p->lock);
        while (!p->granted)
            thr_wait(&p->cond, &p->lock, 0);
        thr_unlock(&p->lock);
    }
    if (rc != RC_OK) die(sql, &err);
}

static int64_t read_count(const char *path)
{
    struct sql_conn *c;
    struct sql_conn_opts opts = {.path = path};
    struct sql_stmt s = {.sql = "SELECT a FROM n", .sql_size = 15, .want_rows = true};
    struct sql_error sql_err;
    struct sql_done ignored;
    struct err err;
    int64_t count = 0;
    struct sql_sink sink = {take_cols, take_count, &count};
    if (sql_conn_open(&opts, &c, &err) != RC_OK ||
        sql_conn_run(c, NULL, NULL, &s, &sink, &ignored, &sql_err, &err) != RC_OK)
        die("count", &err);
    sql_conn_close(c);
    return count;
}

static enum rc take_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc take_count(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    (void)count, (void)err;
    *(int64_t *)ctx = v[0].integer;
    return RC_OK;
}

static void granted(void *ctx)
{
    struct player *p = ctx;
    thr_lock(&p->lock);
    p->granted = true;
    pthread_cond_signal(&p->cond);
    thr_unlock(&p->lock);
}

static enum rc insert(struct sql_conn *c, const struct call *call, struct sql_error *sql_err,
                      struct err *err)
{
    static const char text[100] = "a body of a hundred bytes";
    struct sql_arg arg = {.value = {.type = SQL_TEXT, .data = text, .size = sizeof text}};
    struct sql_stmt s = {
        .sql = "INSERT INTO t(body) VALUES(?)", .sql_size = 29, .args = &arg, .arg_count = 1};
    struct sql_done ignored;
    return sql_conn_run(c, call, NULL, &s, NULL, &ignored, sql_err, err);
}

static enum rc run(struct sql_write *w, struct sql_conn *c, struct err *err)
{
    return insert(c, &w->call, &w->sql_err, err);
}

static void done(struct sql_write *w)
{
    struct client *c = w->ctx;
    thr_lock(&c->lock);
    c->ready = true;
    pthread_cond_signal(&c->cond);
    thr_unlock(&c->lock);
}

static void wake(void *ctx)
{
    struct load *l = ctx;
    thr_lock(&l->lock);
    l->woken = true;
    pthread_cond_broadcast(&l->cond);
    thr_unlock(&l->lock);
}

static void *work(void *arg)
{
    struct load *l = arg;
    bool more = false;
    thr_lock(&l->lock);
    while (!l->stop) {
        if (!l->woken && !more) {
            thr_wait(&l->cond, &l->lock, 0);
            continue;
        }
        l->woken = false;
        thr_unlock(&l->lock);
        more = sql_writer_work(l->writer, 10000);
        thr_lock(&l->lock);
    }
    thr_unlock(&l->lock);
    return NULL;
}

static void *submit(void *arg)
{
    struct client *c = arg;
    struct load *l = c->load;
    struct err err;
    pthread_mutex_init(&c->lock, NULL);
    thr_cond_init(&c->cond);
    while (os_mono_ms() < l->end_ms) {
        int64_t start = os_mono_us();
        c->ready = false;
        c->write = (struct sql_write){.run = run, .fn = done, .ctx = c};
        if (sql_writer_submit(l->writer, &c->write, &err) != RC_OK) die("submit", &err);
        thr_lock(&c->lock);
        while (!c->ready)
            thr_wait(&c->cond, &c->lock, 0);
        thr_unlock(&c->lock);
        if (c->write.rc != RC_OK) die("write", &c->write.err);
        size_t at = atomic_fetch_add(&l->count, 1);
        if (at < SAMPLES_MAX) l->samples[at] = os_mono_us() - start;
    }
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}
