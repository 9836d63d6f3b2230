/* tool.c -- see tool.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tool.h"

void (*tool_on_die)(void);

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw);
static int exit_status(int status);
static int by_name(const void *a, const void *b);

void die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("FAILED: ", stdout);
    vfprintf(stdout, fmt, args);
    va_end(args);
    fputc('\n', stdout);
    void (*more)(void) = tool_on_die;
    tool_on_die = NULL;
    if (more != NULL) more();
    fflush(stdout);
    _exit(1);
}

uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t limit)
{
    return rng_next(r) % limit;
}

int rng_between(struct rng *r, int low, int high)
{
    return low + (int)rng_below(r, (uint64_t)(high - low) + 1);
}

bool rng_percent(struct rng *r, int percent)
{
    return rng_between(r, 0, 99) < percent;
}

struct rng rng_of(uint64_t seed, uint64_t part)
{
    struct rng r = {seed};
    r.state = rng_next(&r) ^ (part * 0xd1342543de82ef95u);
    (void)rng_next(&r);
    return r;
}

uint64_t tool_random_seed(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) die("no random seed: %s", strerror(errno));
    return seed;
}

int64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t now_ms(void)
{
    return now_us() / 1000;
}

void sleep_ms(int64_t ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        continue;
}

void path_join(char out[TOOL_PATH_MAX], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int size = vsnprintf(out, TOOL_PATH_MAX, fmt, args);
    va_end(args);
    if (size < 0 || size >= TOOL_PATH_MAX) die("path too long: %s...", out);
}

uint64_t parse_u64(const char *what, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0') die("%s wants a number, not '%s'", what, text);
    return value;
}

int parse_choice(const char *what, const char *text, const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) return i;
    }
    printf("%s is one of:", what);
    for (int i = 0; names[i] != NULL; i++)
        printf(" %s", names[i]);
    printf("\n");
    die("%s '%s' is unknown", what, text);
}

pid_t spawn(const char *const *argv, struct spawn_opts opts)
{
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork for '%s': %s", argv[0], strerror(errno));
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    int in = open("/dev/null", O_RDONLY);
    if (in >= 0) dup2(in, 0);
    if (opts.log != NULL) {
        int out = open(opts.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (out >= 0) dup2(out, 1), dup2(out, 2);
    }
    for (int fd = 3; fd < 256; fd++)
        close(fd);
    char env[256];
    snprintf(env, sizeof env, "%s", opts.env != NULL ? opts.env : "SLUICE_FAULT=");
    putenv(env);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(2, "exec '%s': %s\n", argv[0], strerror(errno));
    _exit(127);
}

bool still_running(pid_t pid, int *ret_status)
{
    int status;
    pid_t got = waitpid(pid, &status, WNOHANG);
    if (got < 0) die("wait for %d: %s", (int)pid, strerror(errno));
    if (got == 0) return true;
    *ret_status = exit_status(status);
    return false;
}

int wait_exit(pid_t pid, int64_t timeout_ms)
{
    int status;
    for (int64_t end = now_ms() + timeout_ms; still_running(pid, &status); sleep_ms(1)) {
        if (now_ms() >= end) return -1;
    }
    return status;
}

int run(const char *const *argv, struct spawn_opts opts, int64_t timeout_ms)
{
    pid_t pid = spawn(argv, opts);
    int status = wait_exit(pid, timeout_ms);
    if (status >= 0) return status;
    kill(pid, SIGKILL);
    (void)wait_exit(pid, 10000);
    return 124;
}

bool program_exists(const char *program)
{
    if (strchr(program, '/') != NULL) return access(program, X_OK) == 0;
    const char *path = getenv("PATH");
    for (const char *at = path; at != NULL && *at != '\0';) {
        size_t size = strcspn(at, ":");
        char full[TOOL_PATH_MAX];
        path_join(full, "%.*s/%s", (int)size, at, program);
        if (access(full, X_OK) == 0) return true;
        at += size + (at[size] == ':');
    }
    return false;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int64_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

void make_dir(const char *path)
{
    char part[TOOL_PATH_MAX];
    path_join(part, "%s", path);
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        char was = *at;
        *at = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) die("mkdir '%s': %s", part, strerror(errno));
        *at = was;
        if (was == '\0') return;
    }
}

void remove_tree(const char *path)
{
    if (!file_exists(path)) return;
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        die("remove '%s': %s", path, strerror(errno));
    }
}

void remove_file(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT) die("remove '%s': %s", path, strerror(errno));
}

void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0) die("copy '%s' to '%s': %s", from, to, strerror(errno));
    static char block[1 << 20];
    ssize_t size;
    while ((size = read(in, block, sizeof block)) > 0) {
        if (write(out, block, (size_t)size) != size) die("write '%s': %s", to, strerror(errno));
    }
    if (size < 0) die("read '%s': %s", from, strerror(errno));
    close(in);
    close(out);
}

void copy_tree(const char *from, const char *to)
{
    const char *argv[] = {"cp", "-a", from, to, NULL};
    if (run(argv, (struct spawn_opts){0}, 600000) != 0) die("cp -a '%s' '%s'", from, to);
}

void write_text(const char *path, const char *fmt, ...)
{
    FILE *f = fopen(path, "we");
    if (f == NULL) die("open '%s': %s", path, strerror(errno));
    va_list args;
    va_start(args, fmt);
    vfprintf(f, fmt, args);
    va_end(args);
    if (fclose(f) != 0) die("write '%s': %s", path, strerror(errno));
}

int64_t first_difference(const char *a, const char *b)
{
    FILE *fa = fopen(a, "re"), *fb = fopen(b, "re");
    if (fa == NULL || fb == NULL) die("open '%s' and '%s': %s", a, b, strerror(errno));
    static char da[1 << 16], db[1 << 16];
    int64_t off = 0, found = -1;
    while (found < 0) {
        size_t sa = fread(da, 1, sizeof da, fa), sb = fread(db, 1, sizeof db, fb);
        size_t both = sa < sb ? sa : sb;
        size_t i = 0;
        while (i < both && da[i] == db[i])
            i++;
        if (i < both || sa != sb) found = off + (int64_t)i;
        if (both < sizeof da) break;
        off += (int64_t)both;
    }
    fclose(fa);
    fclose(fb);
    return found;
}

size_t list_names(const char *path, char ***ret_names)
{
    char **names = NULL;
    size_t count = 0;
    DIR *dir = opendir(path);
    *ret_names = NULL;
    if (dir == NULL) return 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (count % 64 == 0) names = realloc(names, (count + 64) * sizeof *names);
        if (names == NULL || (names[count++] = strdup(e->d_name)) == NULL) die("out of memory");
    }
    closedir(dir);
    if (count > 0) qsort(names, count, sizeof *names, by_name);
    *ret_names = names;
    return count;
}

void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    /* A process that is just ending may still remove its own temporary files. */
    return remove(path) != 0 && errno != ENOENT ? -1 : 0;
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
