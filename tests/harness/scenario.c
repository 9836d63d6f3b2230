/* scenario.c -- see scenario.h. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include "scenario.h"

#define WAL_MAGIC_LITTLE  0x377f0682u
#define WAL_HEADER_SIZE   32
#define FRAME_HEADER_SIZE 24

static const struct scenario_env *running;
static const char *running_name;

static const struct scenario *find(const struct scenario *all, const char *name);
static bool run_one(const struct scenario *s, const struct scenario_env *defaults);
static void how_to_run_again(void);
static void checksum(const unsigned char *data, size_t size, uint32_t sums[2], bool big);
static uint32_t get_be32(const unsigned char *p);
static void put_be32(unsigned char *p, uint32_t value);

int scenario_main(int argc, char **argv, const struct scenario *all, struct scenario_env defaults)
{
    bool full = false;
    const char *names[64];
    int named = 0, passed = 0, failed = 0;
    char dir[PATH_MAX] = ".";
    setvbuf(stdout, NULL, _IOLBF, 0);
    defaults.seed = tool_random_seed();
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strncmp(name, "--", 2) != 0) {
            if (find(all, name) == NULL || named == 64) die("there is no scenario '%s'", name);
            names[named++] = name;
            continue;
        }
        if (value == NULL) die("option '%s' wants a value; see scenario.h", name);
        i++;
        if (strcmp(name, "--program") == 0)
            defaults.program = value;
        else if (strcmp(name, "--peer") == 0)
            defaults.peer = value;
        else if (strcmp(name, "--writer") == 0)
            defaults.writer = value;
        else if (strcmp(name, "--seed") == 0)
            defaults.seed = parse_u64(name, value);
        else if (strcmp(name, "--full") == 0)
            full = parse_u64(name, value) != 0;
        else if (strcmp(name, "--dir") == 0)
            snprintf(dir, sizeof dir, "%s", value);
        else if (strcmp(name, "--list") == 0) {
            for (const struct scenario *s = all; s->name != NULL; s++)
                printf("%s\n", s->name);
            return 0;
        } else
            die("option '%s' is unknown; see scenario.h", name);
    }
    make_dir(dir);
    char *base = realpath(dir, NULL);
    if (base == NULL || strlen(base) > sizeof defaults.dir - 80) die("bad folder '%s'", dir);
    printf("seed %llu, program %s%s%s\n", (unsigned long long)defaults.seed, defaults.program,
           defaults.peer ? ", peer " : "", defaults.peer ? defaults.peer : "");
    if (defaults.peer != NULL && !program_exists(defaults.peer)) {
        printf("SKIP: there is no '%s'\n", defaults.peer);
        return SCENARIO_SKIPPED;
    }
    if (!program_exists(defaults.program)) die("there is no program '%s'", defaults.program);
    for (const struct scenario *s = all; s->name != NULL; s++) {
        bool wanted = named == 0 && (full || !s->full_only);
        for (int i = 0; i < named; i++)
            wanted |= strcmp(names[i], s->name) == 0;
        if (!wanted) continue;
        snprintf(defaults.dir, sizeof defaults.dir, "%.*s/%s-%llu", (int)sizeof defaults.dir - 70,
                 base, s->name, (unsigned long long)defaults.seed);
        if (run_one(s, &defaults))
            passed++;
        else
            failed++;
    }
    free(base);
    printf("%d scenarios passed, %d failed\n", passed, failed);
    return failed != 0;
}

void scenario_bed(struct scenario_env *env, struct bed *b, struct bed_opts opts)
{
    bed_init(b, env->dir, env->writer, env->seed, opts);
}

void scenario_steps(struct model *m, enum model_mode mode, int count)
{
    for (int i = 0; i < count; i++)
        (void)model_step(m, mode);
}

void scenario_await_wal(const char *wal)
{
    for (int64_t end = now_ms() + 20000;; sleep_ms(5)) {
        unsigned char head[WAL_HEADER_SIZE];
        FILE *f = fopen(wal, "re");
        bool begun = f != NULL && fread(head, 1, sizeof head, f) == sizeof head &&
                     get_be32(head) == WAL_MAGIC_LITTLE;
        if (f != NULL) fclose(f);
        if (begun) return;
        if (now_ms() >= end) die("nobody writes '%s'", wal);
    }
}

void scenario_flip_wal(const char *wal)
{
    FILE *f = fopen(wal, "r+e");
    static unsigned char frame[FRAME_HEADER_SIZE + 65536];
    unsigned char head[WAL_HEADER_SIZE];
    uint32_t sums[2] = {0, 0}, old[2] = {0, 0};
    if (f == NULL || fread(head, 1, sizeof head, f) != sizeof head) die("no WAL '%s'", wal);
    if (get_be32(head) != WAL_MAGIC_LITTLE) die("'%s' is not in little-endian order", wal);
    size_t page_size = get_be32(head + 8), size = FRAME_HEADER_SIZE + page_size;
    checksum(head, 24, old, false);
    put_be32(head, WAL_MAGIC_LITTLE | 1);
    checksum(head, 24, sums, true);
    put_be32(head + 24, sums[0]);
    put_be32(head + 28, sums[1]);
    rewind(f);
    fwrite(head, 1, sizeof head, f);
    for (long off = WAL_HEADER_SIZE;; off += (long)size) {
        fseek(f, off, SEEK_SET);
        if (fread(frame, 1, size, f) != size) break;
        checksum(frame, 8, old, false);
        checksum(frame + FRAME_HEADER_SIZE, page_size, old, false);
        /* What follows the last valid frame is left alone. */
        if (memcmp(frame + 8, head + 16, 8) != 0 || get_be32(frame + 16) != old[0] ||
            get_be32(frame + 20) != old[1]) {
            break;
        }
        checksum(frame, 8, sums, true);
        checksum(frame + FRAME_HEADER_SIZE, page_size, sums, true);
        put_be32(frame + 16, sums[0]);
        put_be32(frame + 20, sums[1]);
        fseek(f, off, SEEK_SET);
        fwrite(frame, 1, FRAME_HEADER_SIZE, f);
    }
    if (fclose(f) != 0) die("write '%s'", wal);
}

static const struct scenario *find(const struct scenario *all, const char *name)
{
    while (all->name != NULL && strcmp(all->name, name) != 0)
        all++;
    return all->name != NULL ? all : NULL;
}

static bool run_one(const struct scenario *s, const struct scenario_env *defaults)
{
    static struct scenario_env env;
    static struct bed bed;
    int64_t start = now_ms();
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork for '%s'", s->name);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        env = *defaults;
        running = &env;
        running_name = s->name;
        tool_on_die = how_to_run_again;
        s->fn(&env, &bed);
        bed_daemon_stop(&bed, SIGKILL);
        remove_tree(env.dir);
        fflush(stdout);
        _exit(0);
    }
    int status;
    while (waitpid(pid, &status, 0) != pid)
        continue;
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    printf("%-6s %-32s %6.1f s\n", good ? "pass" : "FAILED", s->name,
           (double)(now_ms() - start) / 1000);
    return good;
}

static void how_to_run_again(void)
{
    printf("  in scenario %s; everything is kept in %s\n  again: --program %s%s%s --seed %llu %s\n",
           running_name, running->dir, running->program, running->peer ? " --peer " : "",
           running->peer ? running->peer : "", (unsigned long long)running->seed, running_name);
}

/* The WAL's checksum: two sums over pairs of 32-bit words in one of two byte orders. */
static void checksum(const unsigned char *data, size_t size, uint32_t sums[2], bool big)
{
    for (size_t i = 0; i < size; i += 8) {
        uint32_t a = get_be32(data + i), b = get_be32(data + i + 4);
        sums[0] += (big ? a : __builtin_bswap32(a)) + sums[1];
        sums[1] += (big ? b : __builtin_bswap32(b)) + sums[0];
    }
}

static uint32_t get_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(unsigned char *p, uint32_t value)
{
    p[0] = (unsigned char)(value >> 24);
    p[1] = (unsigned char)(value >> 16);
    p[2] = (unsigned char)(value >> 8);
    p[3] = (unsigned char)value;
}
