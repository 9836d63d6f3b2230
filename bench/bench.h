/* bench.h -- parts of the benchmark program; see bench.c. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H
#include <stdio.h>
#include "tool.h"

#define BENCH_SAMPLES 64

/* One program of the comparison; NULL path: bare SQLite. */
struct contender {
    const char *name, *path;
};
struct bench {
    struct contender contenders[4];
    int contender_count;
    char dir[TOOL_PATH_MAX - 128];
    bool quick;
    int64_t restore_mb;
};
struct samples {
    double values[BENCH_SAMPLES];
    int count;
};
void samples_add(struct samples *s, double value);
double samples_median(const struct samples *s);
double samples_max(const struct samples *s);

/* ---- Workloads, run as processes of their own: bench commit|trickle|fill ... ---- */
int workload_main(int argc, char **argv);

/* ---- Daemons ---- */
/* Replicate databases <dir>/db<i> into <dir>/replica<i>; interval_ms 0: the program's defaults. */
struct daemon_opts {
    int databases, interval_ms;
};
pid_t daemon_start(const struct contender *c, const char *dir, struct daemon_opts opts);
void daemon_stop(pid_t pid);
/* Wait until each of the databases has a level 0 file; dies after a minute. */
void daemon_wait_first(const char *dir, int databases);
/* Newest transaction id at level 0 of a replica; 0 for none. */
uint64_t daemon_newest(const char *dir, int database);
struct usage {
    double cpu_s;
    double rss_mb, peak_mb;
    long threads, fds;
};
struct usage daemon_usage(pid_t pid);

/* ---- Questions; each prints a table. ---- */
void ask_commits(struct bench *b);
void ask_visible(struct bench *b);
void ask_restore(struct bench *b);
void ask_footprint(struct bench *b);
#endif
