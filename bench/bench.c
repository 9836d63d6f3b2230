/*
 * bench.c -- what replication costs the application, and what restoring takes.
 *
 *   bench [--program PATH] [--litestream PATH] [--dir DIR] [--quick 1] [--size MEGABYTES]
 *         [commits] [visible] [restore] [footprint]
 *
 * Compares bare SQLite, Sluice and, where it is installed, Litestream. Runs are interleaved (A B C
 * A B C ...), so that a slow minute of the machine hits all of them; tables show medians. The
 * tables go to stdout in Markdown, progress to stderr. Start it with bench/run, which builds first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "bench.h"

static const struct {
    const char *name;
    void (*ask)(struct bench *b);
} questions[] = {
    {"commits", ask_commits},
    {"visible", ask_visible},
    {"restore", ask_restore},
    {"footprint", ask_footprint},
};
#define QUESTION_COUNT (sizeof questions / sizeof questions[0])

static void print_head(const struct bench *b);
static int by_double(const void *a, const void *b);

int main(int argc, char **argv)
{
    if (argc > 1 && strncmp(argv[1], "work-", 5) == 0) return workload_main(argc, argv);
    struct bench b = {.restore_mb = 0};
    const char *program = BENCH_PROGRAM, *litestream = "litestream", *base = ".";
    bool wanted[QUESTION_COUNT] = {false}, any = false;
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (strcmp(argv[i], "--program") == 0 && has_value)
            program = argv[++i];
        else if (strcmp(argv[i], "--litestream") == 0 && has_value)
            litestream = argv[++i];
        else if (strcmp(argv[i], "--dir") == 0 && has_value)
            base = argv[++i];
        else if (strcmp(argv[i], "--quick") == 0 && has_value)
            b.quick = parse_u64("--quick", argv[++i]) != 0;
        else if (strcmp(argv[i], "--size") == 0 && has_value)
            b.restore_mb = (int64_t)parse_u64("--size", argv[++i]);
        else {
            size_t q = 0;
            while (q < QUESTION_COUNT && strcmp(questions[q].name, argv[i]) != 0)
                q++;
            if (q == QUESTION_COUNT) die("'%s' is unknown; see bench.c", argv[i]);
            wanted[q] = any = true;
        }
    }
    if (b.restore_mb == 0) b.restore_mb = b.quick ? 100 : 1000;
    make_dir(base);
    char *full = realpath(base, NULL);
    if (full == NULL || strlen(full) > sizeof b.dir - 16) die("bad folder '%s'", base);
    snprintf(b.dir, sizeof b.dir, "%.800s/bench-files", full);
    free(full);
    if (!program_exists(program)) die("there is no program '%s'", program);
    b.contenders[b.contender_count++] = (struct contender){"bare SQLite", NULL};
    b.contenders[b.contender_count++] = (struct contender){"sluice", program};
    if (program_exists(litestream)) {
        b.contenders[b.contender_count++] = (struct contender){"litestream", litestream};
    }
    print_head(&b);
    for (size_t q = 0; q < QUESTION_COUNT; q++) {
        if (!wanted[q] && any) continue;
        questions[q].ask(&b);
        remove_tree(b.dir);
        fflush(stdout);
    }
    return 0;
}

void samples_add(struct samples *s, double value)
{
    if (s->count < BENCH_SAMPLES) s->values[s->count++] = value;
}

double samples_median(const struct samples *s)
{
    struct samples sorted = *s;
    if (s->count == 0) return 0;
    qsort(sorted.values, (size_t)s->count, sizeof sorted.values[0], by_double);
    int middle = s->count / 2;
    if (s->count % 2 == 1) return sorted.values[middle];
    return (sorted.values[middle - 1] + sorted.values[middle]) / 2;
}

double samples_max(const struct samples *s)
{
    double max = 0;
    for (int i = 0; i < s->count; i++)
        max = s->values[i] > max ? s->values[i] : max;
    return max;
}

static void print_head(const struct bench *b)
{
    struct utsname name;
    if (uname(&name) != 0) die("no uname");
    printf("%ld CPUs, Linux %s%s\n", sysconf(_SC_NPROCESSORS_ONLN), name.release,
           b->quick ? ", quick run" : "");
    for (int i = 1; i < b->contender_count; i++) {
        fflush(stdout);
        printf("%s ", b->contenders[i].name);
        fflush(stdout);
        const char *argv[] = {b->contenders[i].path, "version", NULL};
        if (run(argv, (struct spawn_opts){0}, 10000) != 0) die("%s version", argv[0]);
    }
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
