/* questions.c -- what the benchmarks ask; see bench.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench.h"

static void fresh(struct bench *b);
static void work(const char *const *args, char *out, size_t size);
static void commits_with(struct bench *b, const char *sync, const char *title);
static double sync_file(const char *path, int64_t start_us);
static double timed(const char *const *argv, const char *log, double *ret_peak_mb);
static int64_t tree_size(const char *path);
static void footprint_of(struct bench *b, const struct contender *c, int databases);

void ask_commits(struct bench *b)
{
    printf("\n### Commits of an application, one connection, autocommit inserts of 100 bytes\n");
    commits_with(b, "normal", "synchronous = NORMAL");
    commits_with(b, "full", "synchronous = FULL");
}

void ask_visible(struct bench *b)
{
    static const int intervals[] = {0, 100};
    printf("\n### From COMMIT to the object in the store (file store)\n\n");
    printf("| | interval | median ms | max ms |\n|---|---|---|---|\n");
    for (int i = 1; i < b->contender_count; i++) {
        for (int k = 0; k < 2; k++) {
            struct samples s = {0};
            char db[TOOL_PATH_MAX], out[128];
            fresh(b);
            work((const char *const[]){"work-make", b->dir, "1", NULL}, out, sizeof out);
            pid_t pid =
                daemon_start(&b->contenders[i], b->dir, (struct daemon_opts){1, intervals[k]});
            daemon_wait_first(b->dir, 1);
            path_join(db, "%s/db0", b->dir);
            struct rng r = rng_of(1, 1);
            for (int n = b->quick ? 8 : 20; n > 0; n--) {
                /* Apart from the ticks of the daemon, in any phase. */
                sleep_ms(rng_between(&r, 1500, 2500));
                uint64_t before = daemon_newest(b->dir, 0);
                work((const char *const[]){"work-one", db, NULL}, out, sizeof out);
                int64_t start = strtoll(out, NULL, 10);
                while (daemon_newest(b->dir, 0) == before)
                    sleep_ms(1);
                samples_add(&s, (double)(now_us() - start) / 1000);
            }
            daemon_stop(pid);
            printf("| %s | %s | %.0f | %.0f |\n", b->contenders[i].name,
                   k ? "100 ms" : "default (1 s)", samples_median(&s), samples_max(&s));
        }
    }
}

void ask_restore(struct bench *b)
{
    char db[TOOL_PATH_MAX], replica[TOOL_PATH_MAX], url[TOOL_PATH_MAX], out[TOOL_PATH_MAX];
    char log[TOOL_PATH_MAX], size[32], text[64];
    struct samples times[4] = {0}, peaks[4] = {0};
    double upload_s[4] = {0}, upload_peak[4] = {0}, stored[4] = {0};
    fresh(b);
    path_join(db, "%s/db0", b->dir);
    path_join(out, "%s/out", b->dir);
    path_join(log, "%s/restore.log", b->dir);
    snprintf(size, sizeof size, "%lld", (long long)b->restore_mb);
    fprintf(stderr, "making a database of %s MB\n", size);
    work((const char *const[]){"work-fill", db, size, NULL}, text, sizeof text);
    double db_mb = (double)file_size(db) / 1e6;
    for (int i = 1; i < b->contender_count; i++) {
        path_join(replica, "%s/replica-%d", b->dir, i);
        path_join(url, "file://%s", replica);
        upload_s[i] =
            timed((const char *const[]){b->contenders[i].path, "replicate", "-once", db, url, NULL},
                  log, &upload_peak[i]);
        stored[i] = (double)tree_size(replica) / 1e6;
    }
    for (int round = 0; round < (b->quick ? 3 : 5); round++) {
        for (int i = 0; i < b->contender_count; i++) {
            fprintf(stderr, "restore: round %d, %s\n", round + 1, i ? b->contenders[i].name : "cp");
            remove_file(out);
            path_join(url, "file://%s/replica-%d", b->dir, i);
            const char *restore[] = {b->contenders[i].path, "restore", "-o", out, url, NULL};
            const char *cp[] = {"cp", db, out, NULL};
            double peak, start = (double)now_us();
            (void)timed(i ? restore : cp, log, &peak);
            samples_add(&times[i], sync_file(out, (int64_t)start));
            samples_add(&peaks[i], peak);
        }
    }
    printf(
        "\n### Restore of a database of %.0f MB from a file store, on disk (fsync) at the end\n\n",
        db_mb);
    printf("| | seconds | x cp | peak MB | first upload s | upload peak MB | stored MB |\n"
           "|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < b->contender_count; i++) {
        double s = samples_median(&times[i]);
        printf("| %s | %.2f | %.2f | %.0f |", i ? b->contenders[i].name : "cp", s,
               s / samples_median(&times[0]), samples_median(&peaks[i]));
        if (i)
            printf(" %.1f | %.0f | %.0f |\n", upload_s[i], upload_peak[i], stored[i]);
        else
            printf(" | | |\n");
    }
}

void ask_footprint(struct bench *b)
{
    printf("\n### The daemon: CPU and memory, defaults, file store\n\n");
    printf(
        "| | databases | idle CPU %% | busy CPU %% (100 commits/s) | RSS MB | peak MB | threads |"
        " fds |\n|---|---|---|---|---|---|---|---|\n");
    for (int databases = 1; databases <= 100; databases *= 100) {
        for (int i = 1; i < b->contender_count; i++)
            footprint_of(b, &b->contenders[i], databases);
    }
}

static void footprint_of(struct bench *b, const struct contender *c, int databases)
{
    char count[16], seconds[16], out[64];
    int window = b->quick ? 5 : 10;
    snprintf(count, sizeof count, "%d", databases);
    snprintf(seconds, sizeof seconds, "%d", window);
    fprintf(stderr, "footprint: %s, %d databases\n", c->name, databases);
    fresh(b);
    work((const char *const[]){"work-make", b->dir, count, NULL}, out, sizeof out);
    pid_t pid = daemon_start(c, b->dir, (struct daemon_opts){.databases = databases});
    daemon_wait_first(b->dir, databases);
    sleep_ms(3000);
    double before = daemon_usage(pid).cpu_s;
    sleep_ms(window * 1000);
    struct usage idle = daemon_usage(pid);
    work((const char *const[]){"work-trickle", b->dir, count, seconds, NULL}, out, sizeof out);
    struct usage busy = daemon_usage(pid);
    daemon_stop(pid);
    printf("| %s | %d | %.2f | %.1f | %.1f | %.1f | %ld | %ld |\n", c->name, databases,
           (idle.cpu_s - before) * 100 / window, (busy.cpu_s - idle.cpu_s) * 100 / window,
           busy.rss_mb, busy.peak_mb, busy.threads, busy.fds);
}

static void commits_with(struct bench *b, const char *sync, const char *title)
{
    struct samples found[4][5] = {0};
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", b->quick ? 3 : 10);
    for (int round = 0; round < (b->quick ? 3 : 5); round++) {
        for (int i = 0; i < b->contender_count; i++) {
            char db[TOOL_PATH_MAX], out[128];
            double v[5];
            pid_t pid = 0;
            fprintf(stderr, "commits: %s, round %d, %s\n", sync, round + 1, b->contenders[i].name);
            fresh(b);
            path_join(db, "%s/db0", b->dir);
            work((const char *const[]){"work-make", b->dir, "1", NULL}, out, sizeof out);
            if (i) {
                pid = daemon_start(&b->contenders[i], b->dir, (struct daemon_opts){1, 0});
                daemon_wait_first(b->dir, 1);
            }
            work((const char *const[]){"work-commit", db, sync, seconds, NULL}, out, sizeof out);
            if (pid) daemon_stop(pid);
            if (sscanf(out, "%lf %lf %lf %lf %lf", &v[0], &v[1], &v[2], &v[3], &v[4]) != 5) {
                die("the workload said '%s'", out);
            }
            for (int k = 0; k < 5; k++)
                samples_add(&found[i][k], v[k]);
        }
    }
    printf("\n%s\n\n| | commits/s | x bare | p50 us | p99 us | p99.9 us | x bare | max ms |\n"
           "|---|---|---|---|---|---|---|---|\n",
           title);
    for (int i = 0; i < b->contender_count; i++) {
        double m[5];
        for (int k = 0; k < 5; k++)
            m[k] = samples_median(&found[i][k]);
        printf("| %s | %.0f | %.2f | %.0f | %.0f | %.0f | %.2f | %.1f |\n", b->contenders[i].name,
               m[0], m[0] / samples_median(&found[0][0]), m[1], m[2], m[3],
               m[3] / samples_median(&found[0][3]), m[4] / 1000);
    }
}

static void fresh(struct bench *b)
{
    remove_tree(b->dir);
    make_dir(b->dir);
}

/* Run a workload of this program as a process of its own, and give what it printed. */
static void work(const char *const *args, char *out, size_t size)
{
    const char *argv[8] = {"/proc/self/exe"};
    char path[] = "/tmp/bench-work-XXXXXX";
    for (int i = 0; args[i] != NULL; i++)
        argv[i + 1] = args[i];
    int fd = mkstemp(path);
    if (fd < 0) die("temporary file: %s", strerror(errno));
    int status = run(argv, (struct spawn_opts){.log = path}, 3600000);
    ssize_t got = pread(fd, out, size - 1, 0);
    out[got > 0 ? got : 0] = '\0';
    close(fd);
    remove_file(path);
    if (status != 0) die("%s ended with status %d: %s", args[0], status, out);
}

/* Seconds since the start, once the file is on disk. */
static double sync_file(const char *path, int64_t start_us)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) die("fsync '%s': %s", path, strerror(errno));
    close(fd);
    return (double)(now_us() - start_us) / 1e6;
}

static double timed(const char *const *argv, const char *log, double *ret_peak_mb)
{
    int64_t start = now_us();
    pid_t pid = spawn(argv, (struct spawn_opts){.log = log});
    struct rusage usage;
    int status;
    if (wait4(pid, &status, 0, &usage) != pid || status != 0) {
        die("%s %s failed; see %s", argv[0], argv[1], log);
    }
    *ret_peak_mb = (double)usage.ru_maxrss / 1024;
    return (double)(now_us() - start) / 1e6;
}

static int64_t tree_size(const char *path)
{
    char **names, at[TOOL_PATH_MAX];
    size_t count = list_names(path, &names);
    if (count == 0) return file_size(path) > 0 ? file_size(path) : 0;
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        path_join(at, "%s/%s", path, names[i]);
        sum += tree_size(at);
    }
    free_names(names, count);
    return sum;
}
