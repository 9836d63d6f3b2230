/*
 * writer.c -- an application that writes into an SQLite database; it knows nothing of Sluice.
 *
 *   writer DB --log FILE [--seed N] [--mode mix|auto|batch|big|ddl|vacuum] [--ops N] [--rate R]
 *          [--sync off|normal|full] [--checkpoint auto|none|passive|full|restart|truncate|mixed]
 *          [--autocheckpoint PAGES] [--readers N] [--hold MS] [--page-size N]
 *          [--auto-vacuum none|full|incremental] [--size-max BYTES]
 *   writer --verify DB [--log FILE]
 *
 * Without --ops it writes until SIGTERM, then closes the database properly. Each reader is a
 * thread that holds a read transaction for up to --hold ms and checks, at its start and its end,
 * that the rows it sees match their running hash. --verify proves a restored copy (model.h) and
 * prints "seq N".
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "model.h"

struct writer {
    const char *db, *log;
    struct model_opts opts;
    int mode, checkpoint, readers, hold_ms;
    uint64_t ops; /* 0: until told to stop */
    int rate;     /* operations per second, 0: no limit */
};

static atomic_bool stopping;

static void on_term(int sig);
static void parse(struct writer *w, int argc, char **argv);
static bool parse_option(struct writer *w, const char *name, const char *value);
static int verify(const char *db, const char *log);
static void write_on(struct writer *w);
static void *read_on(void *arg);
static void pause_until(int64_t end_us);

/* Threads of one process share the wal-index in ways that ThreadSanitizer cannot know to be fine:
 * SQLite orders these accesses by locks on the file. This program is the application, not ours. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:^wal[A-Z]\nrace:^sqlite3Wal\nrace:unixSetSystemCall\n";
}

int main(int argc, char **argv)
{
    struct writer w = {.checkpoint = MODEL_CKPT_AUTO, .hold_ms = 800};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc >= 3 && strcmp(argv[1], "--verify") == 0) {
        if (argc != 3 && !(argc == 5 && strcmp(argv[3], "--log") == 0))
            die("see writer.c for usage");
        return verify(argv[2], argc == 5 ? argv[4] : NULL);
    }
    w.opts.autocheckpoint = 1000;
    parse(&w, argc, argv);
    struct sigaction act = {.sa_handler = on_term};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    write_on(&w);
    return 0;
}

static void on_term(int sig)
{
    (void)sig;
    atomic_store(&stopping, true);
}

static void parse(struct writer *w, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            if (w->db != NULL) die("two databases: '%s' and '%s'", w->db, argv[i]);
            w->db = argv[i];
        } else if (i + 1 >= argc || !parse_option(w, argv[i] + 2, argv[i + 1])) {
            die("option '%s' is unknown or has no value; see writer.c for usage", argv[i]);
        } else {
            i++;
        }
    }
    if (w->db == NULL) die("which database? See writer.c for usage");
    if (w->checkpoint != MODEL_CKPT_AUTO) w->opts.autocheckpoint = 0;
}

static bool parse_option(struct writer *w, const char *name, const char *value)
{
    if (strcmp(name, "mode") == 0) {
        w->mode = parse_choice(name, value, model_mode_names);
    } else if (strcmp(name, "checkpoint") == 0) {
        w->checkpoint = parse_choice(name, value, model_checkpoint_names);
    } else if (strcmp(name, "log") == 0) {
        w->log = value;
    } else if (strcmp(name, "sync") == 0) {
        w->opts.sync = value;
    } else if (strcmp(name, "auto-vacuum") == 0) {
        w->opts.auto_vacuum = value;
    } else if (strcmp(name, "seed") == 0) {
        w->opts.seed = parse_u64(name, value);
    } else if (strcmp(name, "page-size") == 0) {
        w->opts.page_size = (int)parse_u64(name, value);
    } else if (strcmp(name, "autocheckpoint") == 0) {
        w->opts.autocheckpoint = (int)parse_u64(name, value);
    } else if (strcmp(name, "size-max") == 0) {
        w->opts.size_max = (int64_t)parse_u64(name, value);
    } else if (strcmp(name, "readers") == 0) {
        w->readers = (int)parse_u64(name, value);
    } else if (strcmp(name, "hold") == 0) {
        w->hold_ms = (int)parse_u64(name, value);
    } else if (strcmp(name, "ops") == 0) {
        w->ops = parse_u64(name, value);
    } else if (strcmp(name, "rate") == 0) {
        w->rate = (int)parse_u64(name, value);
    } else {
        return false;
    }
    return true;
}

static int verify(const char *db, const char *log)
{
    struct model_state state;
    model_verify(db, log, &state);
    if (state.problem[0] != '\0') {
        printf("BAD %s: %s\n", db, state.problem);
        return 1;
    }
    printf("seq %lld\n", (long long)state.seq);
    return 0;
}

static void write_on(struct writer *w)
{
    struct model m;
    struct rng r = rng_of(w->opts.seed, (uint64_t)now_us());
    pthread_t threads[16];
    int readers = w->readers > 16 ? 16 : w->readers;
    model_open(&m, w->db, w->log, w->opts);
    for (int i = 0; i < readers; i++) {
        int failed = pthread_create(&threads[i], NULL, read_on, w);
        if (failed != 0) die("start a reader: %s", strerror(failed));
    }
    int64_t start_us = now_us();
    int next_checkpoint = rng_between(&r, 1, 60);
    for (uint64_t op = 0; !atomic_load(&stopping) && (w->ops == 0 || op < w->ops); op++) {
        int64_t began_us = now_us();
        (void)model_step(&m, (enum model_mode)w->mode);
        if (--next_checkpoint == 0) {
            model_checkpoint(&m, (enum model_checkpoint)w->checkpoint, &r);
            next_checkpoint = rng_between(&r, 1, 60);
        }
        /* A writer that never pauses starves all others: SQLite's busy handler only looks now and
         * then. So it rests for as long as it worked. */
        int64_t now = now_us(), rest_until = now + (now - began_us) + 300;
        int64_t due = w->rate > 0 ? start_us + (int64_t)(op + 1) * 1000000 / w->rate : 0;
        pause_until(due > rest_until ? due : rest_until);
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < readers; i++)
        pthread_join(threads[i], NULL);
    model_close(&m);
}

static void *read_on(void *arg)
{
    const struct writer *w = arg;
    struct rng r = rng_of(w->opts.seed, (uint64_t)now_us());
    struct model m;
    model_open(&m, w->db, NULL, w->opts);
    while (!atomic_load(&stopping)) {
        (void)model_query(m.db, "BEGIN");
        model_check_snapshot(&m);
        pause_until(now_us() + rng_between(&r, 0, w->hold_ms) * 1000);
        model_check_snapshot(&m);
        (void)model_query(m.db, "COMMIT");
    }
    model_close(&m);
    return NULL;
}

static void pause_until(int64_t end_us)
{
    for (int64_t left; !atomic_load(&stopping) && (left = end_us - now_us()) > 0;) {
        if (left > 2000)
            sleep_ms(left > 20000 ? 10 : left / 2000);
        else if (left > 100)
            sleep_ms(1);
    }
}
