/* daemon.c -- start, watch and stop a replicating program; see bench.h. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"

pid_t daemon_start(const struct contender *c, const char *dir, struct daemon_opts opts)
{
    char config[TOOL_PATH_MAX], log[TOOL_PATH_MAX];
    path_join(config, "%s/config.yml", dir);
    path_join(log, "%s/daemon.log", dir);
    FILE *f = fopen(config, "we");
    if (f == NULL) die("cannot write '%s'", config);
    fprintf(f, "dbs:\n");
    for (int i = 0; i < opts.databases; i++) {
        fprintf(f, "  - path: %s/db%d\n", dir, i);
        if (opts.interval_ms) fprintf(f, "    monitor-interval: %dms\n", opts.interval_ms);
        fprintf(f, "    replica:\n      type: file\n      path: %s/replica%d\n", dir, i);
        if (opts.interval_ms) fprintf(f, "      sync-interval: %dms\n", opts.interval_ms);
    }
    if (fclose(f) != 0) die("cannot write '%s'", config);
    const char *argv[] = {c->path, "replicate", "-config", config, NULL};
    return spawn(argv, (struct spawn_opts){.log = log});
}

void daemon_stop(pid_t pid)
{
    kill(pid, SIGTERM);
    int status = wait_exit(pid, 60000);
    if (status != 0) die("the daemon ended with status %d", status);
}

void daemon_wait_first(const char *dir, int databases)
{
    int64_t end = now_ms() + 60000;
    for (int i = 0; i < databases; i++) {
        for (; daemon_newest(dir, i) == 0; sleep_ms(5)) {
            if (now_ms() > end) die("database %d is not replicated after a minute", i);
        }
    }
}

uint64_t daemon_newest(const char *dir, int database)
{
    char path[TOOL_PATH_MAX], **names;
    unsigned long long low, high, max = 0;
    path_join(path, "%s/replica%d/ltx/0", dir, database);
    size_t count = list_names(path, &names);
    for (size_t i = 0; i < count; i++) {
        int size = 0;
        if (sscanf(names[i], "%16llx-%16llx.ltx%n", &low, &high, &size) == 2 && size == 37 &&
            names[i][37] == '\0' && high > max) {
            max = high;
        }
    }
    free_names(names, count);
    return max;
}

struct usage daemon_usage(pid_t pid)
{
    struct usage u = {0};
    char path[TOOL_PATH_MAX], line[512], **names;
    unsigned long user = 0, sys = 0;
    path_join(path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL || fgets(line, sizeof line, f) == NULL) die("the daemon has gone");
    fclose(f);
    /* The name may hold blanks; what is behind its bracket does not. */
    if (sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
               &user, &sys) != 2) {
        die("no CPU times in '%s'", path);
    }
    u.cpu_s = (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
    path_join(path, "/proc/%d/status", (int)pid);
    f = fopen(path, "re");
    if (f == NULL) die("the daemon has gone");
    while (fgets(line, sizeof line, f) != NULL) {
        long value = 0;
        if (sscanf(line, "VmHWM: %ld", &value) == 1) u.peak_mb = (double)value / 1024;
        if (sscanf(line, "VmRSS: %ld", &value) == 1) u.rss_mb = (double)value / 1024;
        if (sscanf(line, "Threads: %ld", &value) == 1) u.threads = value;
    }
    fclose(f);
    path_join(path, "/proc/%d/fd", (int)pid);
    size_t count = list_names(path, &names);
    u.fds = (long)count;
    free_names(names, count);
    return u;
}
