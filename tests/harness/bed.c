/* bed.c -- see bed.h. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bed.h"

#define TERM_MS    60000
#define ONCE_MS    120000
#define RESTORE_MS 120000
#define ARGS_MAX   48
/* One that has not yet got as far as its signal handlers simply dies; for one whose language sets
 * handlers for all signals first, the time says so. */
#define YOUNG_MS 2000

struct range {
    uint64_t min, max; /* transaction ids of a file */
};

static void add_setting(FILE *f, const char *indent, const char *name, int value, const char *unit);
static size_t writer_args(struct bed *b, const char *const *args, const char **argv,
                          char numbers[2][32]);
static size_t list_txids(struct bed *b, const char *program, uint64_t **ret_txids);
static bool parse_name(const char *name, struct range *ret_range);
static int by_max(const void *a, const void *b);
static void hour_if_zero(int *ms);
static void copy_outside(const char *from, const char *to);
static bool catches(pid_t pid, int sig);

void bed_init(struct bed *b, const char *dir, const char *writer_program, uint64_t seed,
              struct bed_opts opts)
{
    *b = (struct bed){.writer_program = writer_program, .seed = seed, .opts = opts};
    b->rng = rng_of(seed, 0);
    snprintf(b->dir, sizeof b->dir, "%s", dir);
    path_join(b->db, "%s/db", b->dir);
    path_join(b->log, "%s/acked.log", b->dir);
    if (opts.replica_url == NULL) {
        path_join(b->replica, "%s/replica", b->dir);
        path_join(b->url, "file://%s/replica", b->dir);
    } else {
        const char *hole = strstr(opts.replica_url, "%s");
        if (hole == NULL) die("the URL '%s' has no %%s", opts.replica_url);
        path_join(b->url, "%.*s%s-%016llx%s", (int)(hole - opts.replica_url), opts.replica_url,
                  strrchr(dir, '/') + 1, (unsigned long long)tool_random_seed(), hole + 2);
    }
    path_join(b->config, "%s/config.yml", b->dir);
    path_join(b->daemon_log, "%s/daemon.log", b->dir);
    if (dir[0] != '/') die("the folder of a bed must be absolute, not '%s'", dir);
    remove_tree(dir);
    make_dir(dir);
    bed_write_config(b);
}

void bed_write_config(struct bed *b)
{
    struct bed_opts o = b->opts;
    hour_if_zero(&o.level1_ms);
    hour_if_zero(&o.level2_ms);
    hour_if_zero(&o.l0_retention_ms);
    hour_if_zero(&o.snapshot_ms);
    if (o.monitor_ms == 0) o.monitor_ms = 20;
    FILE *f = fopen(b->config, "we");
    if (f == NULL) die("cannot write '%s'", b->config);
    fprintf(f, "levels:\n  - interval: %dms\n  - interval: %dms\n", o.level1_ms, o.level2_ms);
    fprintf(f, "snapshot:\n  interval: %dms\n", o.snapshot_ms);
    fprintf(f, "l0-retention: %dms\nl0-retention-check-interval: %dms\n", o.l0_retention_ms,
            o.l0_retention_ms / 2 + 1);
    fprintf(f, "dbs:\n  - path: %s\n", b->db);
    add_setting(f, "    ", "monitor-interval", o.monitor_ms, "ms");
    add_setting(f, "    ", "checkpoint-interval", o.checkpoint_ms, "ms");
    add_setting(f, "    ", "min-checkpoint-page-count", o.min_checkpoint_pages, "");
    add_setting(f, "    ", "truncate-page-n", o.truncate_pages, "");
    if (b->replica[0] != '\0')
        fprintf(f, "    replica:\n      type: file\n      path: %s\n", b->replica);
    else
        fprintf(f, "    replica:\n      url: \"%s\"\n", b->url);
    add_setting(f, "      ", "sync-interval", o.monitor_ms, "ms");
    if (fclose(f) != 0) die("cannot write '%s'", b->config);
}

void bed_daemon_start(struct bed *b, const char *program, const char *fault)
{
    const char *argv[] = {program, "replicate", "-config", b->config, NULL};
    char env[64];
    if (b->daemon != 0) die("a daemon is already running");
    if (fault != NULL) snprintf(env, sizeof env, "SLUICE_FAULT=%s", fault);
    path_join(b->daemon_name, "%s", program);
    b->fault_armed = fault != NULL;
    b->daemon_start_ms = now_ms();
    b->daemon = spawn(argv, (struct spawn_opts){b->daemon_log, fault != NULL ? env : NULL});
}

void bed_daemon_stop(struct bed *b, int sig)
{
    bed_daemon_check(b);
    if (b->daemon == 0) return;
    bool young = now_ms() - b->daemon_start_ms < YOUNG_MS || !catches(b->daemon, sig);
    kill(b->daemon, sig);
    int status = wait_exit(b->daemon, TERM_MS);
    bool dead_is_fine = sig == SIGKILL || b->fault_armed;
    if (status < 0) die("%s does not end after signal %d", b->daemon_name, sig);
    if (status != 0 && !(dead_is_fine && status == 128 + SIGKILL) &&
        !(young && status == 128 + sig)) {
        die("%s ended with status %d after signal %d; see %s", b->daemon_name, status, sig,
            b->daemon_log);
    }
    b->daemon = 0;
}

void bed_daemon_check(struct bed *b)
{
    int status;
    if (b->daemon == 0 || still_running(b->daemon, &status)) return;
    b->daemon = 0;
    if (!b->fault_armed || status != 128 + SIGKILL) {
        die("%s ended by itself with status %d; see %s", b->daemon_name, status, b->daemon_log);
    }
}

void bed_once(struct bed *b, const char *program)
{
    const char *argv[] = {program, "replicate", "-once", "-config", b->config, NULL};
    if (b->daemon != 0) die("a daemon is still running");
    int status = run(argv, (struct spawn_opts){.log = b->daemon_log}, ONCE_MS);
    if (status != 0) {
        die("%s replicate -once ended with status %d; see %s", program, status, b->daemon_log);
    }
}

void bed_writer_start(struct bed *b, const char *const *args)
{
    const char *argv[ARGS_MAX];
    char numbers[2][32];
    if (b->writer_count == BED_WRITERS) die("too many writers");
    writer_args(b, args, argv, numbers);
    b->writer_start_ms = now_ms();
    b->writers[b->writer_count++] = spawn(argv, (struct spawn_opts){.log = b->daemon_log});
}

void bed_writer_run(struct bed *b, const char *const *args)
{
    const char *argv[ARGS_MAX];
    char numbers[2][32];
    writer_args(b, args, argv, numbers);
    int status = run(argv, (struct spawn_opts){.log = b->daemon_log}, 120000);
    if (status != 0) die("the writer ended with status %d; see %s", status, b->daemon_log);
}

void bed_writers_stop(struct bed *b, int sig)
{
    bed_writers_check(b);
    bool young = now_ms() - b->writer_start_ms < YOUNG_MS; /* the last one is */
    for (int i = 0; i < b->writer_count; i++) {
        young |= !catches(b->writers[i], sig);
        kill(b->writers[i], sig);
    }
    for (int i = 0; i < b->writer_count; i++) {
        int status = wait_exit(b->writers[i], TERM_MS);
        if (status != 0 && !((sig == SIGKILL || young) && status == 128 + sig)) {
            die("a writer ended with status %d after signal %d; see %s", status, sig,
                b->daemon_log);
        }
    }
    b->writer_count = 0;
}

void bed_writers_check(struct bed *b)
{
    for (int i = 0; i < b->writer_count; i++) {
        int status;
        if (still_running(b->writers[i], &status)) continue;
        if (status != 0) die("a writer ended with status %d; see %s", status, b->daemon_log);
        b->writers[i--] = b->writers[--b->writer_count];
    }
}

void bed_model_open(struct bed *b, struct model *m)
{
    model_open(m, b->db, b->log,
               (struct model_opts){.seed = b->seed,
                                   .page_size = b->opts.page_size,
                                   .auto_vacuum = b->opts.auto_vacuum});
}

int64_t bed_source_seq(struct bed *b)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(b->db, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        die("open '%s': %s", b->db, sqlite3_errmsg(db));
    }
    sqlite3_busy_timeout(db, 10000);
    int64_t seq = model_query(db, "SELECT seq FROM acked");
    sqlite3_close(db);
    return seq;
}

int bed_restore(struct bed *b, const char *program, const char *out, struct bed_restore what)
{
    const char *argv[12] = {program, "restore", "-o", out};
    char txid[32];
    size_t count = 4;
    if (what.txid != 0) {
        snprintf(txid, sizeof txid, "%016llx", (unsigned long long)what.txid);
        argv[count++] = "-txid";
        argv[count++] = txid;
    }
    if (what.timestamp != NULL) {
        argv[count++] = "-timestamp";
        argv[count++] = what.timestamp;
    }
    argv[count++] = b->url;
    static const char *const tails[] = {"", "-wal", "-shm", "-journal", "-txid", ".tmp"};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        char path[TOOL_PATH_MAX];
        path_join(path, "%s%s", out, tails[i]);
        remove_file(path);
    }
    return run(argv, (struct spawn_opts){.log = b->daemon_log}, RESTORE_MS);
}

int64_t bed_restore_check(struct bed *b, const char *program, struct bed_restore what)
{
    char out[TOOL_PATH_MAX], name[64] = "latest";
    struct model_state state;
    path_join(out, "%s/restored", b->dir);
    if (what.txid != 0) snprintf(name, sizeof name, "txid %016llx", (unsigned long long)what.txid);
    if (what.timestamp != NULL) snprintf(name, sizeof name, "time %s", what.timestamp);
    int status = bed_restore(b, program, out, what);
    if (status != 0) {
        die("%s restore of %s ended with status %d; see %s", program, name, status, b->daemon_log);
    }
    model_verify(out, b->log, &state);
    if (state.problem[0] != '\0') die("restored %s: %s", name, state.problem);
    return state.seq;
}

void bed_wait_seq(struct bed *b, const char *program, int64_t seq, int64_t timeout_ms)
{
    char out[TOOL_PATH_MAX];
    struct model_state state = {0};
    path_join(out, "%s/waiting", b->dir);
    for (int64_t end = now_ms() + timeout_ms; now_ms() < end; sleep_ms(50)) {
        bed_daemon_check(b);
        if (bed_restore(b, program, out, (struct bed_restore){0}) != 0) continue;
        model_verify(out, b->log, &state);
        if (state.problem[0] != '\0') die("restored latest: %s", state.problem);
        if (state.seq >= seq) return;
    }
    die("the replica has seq %lld, not %lld, after %lld ms", (long long)state.seq, (long long)seq,
        (long long)timeout_ms);
}

void bed_check_latest(struct bed *b, const char *program, bool identical)
{
    char out[TOOL_PATH_MAX], source[TOOL_PATH_MAX], wal[TOOL_PATH_MAX], to[TOOL_PATH_MAX];
    path_join(out, "%s/restored", b->dir);
    path_join(source, "%s/source", b->dir);
    path_join(wal, "%s-wal", b->db);
    path_join(to, "%s-wal", source);
    copy_outside(b->db, source);
    remove_file(to);
    if (file_exists(wal)) copy_outside(wal, to);
    model_fold(source);
    int status = bed_restore(b, program, out, (struct bed_restore){0});
    if (status != 0) die("%s restore ended with status %d; see %s", program, status, b->daemon_log);
    int64_t differs = identical ? first_difference(source, out) : -1;
    struct model_state copy, truth;
    model_verify(source, b->log, &truth);
    if (truth.problem[0] != '\0') die("the source itself: %s", truth.problem);
    model_verify(out, b->log, &copy);
    if (copy.problem[0] != '\0') die("restored latest: %s", copy.problem);
    int64_t acked = model_log_acked(b->log);
    if (copy.seq < acked || copy.seq != truth.seq) {
        die("restored latest is seq %lld; acknowledged is %lld, the source has %lld",
            (long long)copy.seq, (long long)acked, (long long)truth.seq);
    }
    if (differs >= 0) {
        die("restored latest (seq %lld) differs from the source at byte %lld, page %lld "
            "(sizes %lld and %lld)",
            (long long)copy.seq, (long long)differs,
            (long long)(differs / (b->opts.page_size ? b->opts.page_size : 4096) + 1),
            (long long)file_size(out), (long long)file_size(source));
    }
}

size_t bed_check_txids(struct bed *b, const char *program, size_t count)
{
    uint64_t *txids;
    size_t total = list_txids(b, program, &txids), done = 0;
    int64_t last = 0;
    for (size_t i = 0; i < total; i++) {
        /* Take `count` of the rest with equal chance, in ascending order. */
        size_t wanted = count == 0 ? total - i : count - done;
        if (wanted == 0) break;
        if (rng_below(&b->rng, total - i) >= wanted) continue;
        int64_t seq = bed_restore_check(b, program, (struct bed_restore){.txid = txids[i]});
        if (seq < last) {
            die("restored txid %016llx is seq %lld, but an earlier one was seq %lld",
                (unsigned long long)txids[i], (long long)seq, (long long)last);
        }
        last = seq;
        done++;
    }
    free(txids);
    return done;
}

uint64_t bed_level_txid(struct bed *b, int level)
{
    char dir[TOOL_PATH_MAX], **names;
    path_join(dir, "%s/ltx/%d", b->replica, level);
    size_t count = list_names(dir, &names);
    struct range range;
    uint64_t max = 0;
    for (size_t i = 0; i < count; i++) {
        if (parse_name(names[i], &range) && range.max > max) max = range.max;
    }
    free_names(names, count);
    return max;
}

size_t bed_level_count(struct bed *b, int level)
{
    char dir[TOOL_PATH_MAX], **names;
    path_join(dir, "%s/ltx/%d", b->replica, level);
    size_t count = list_names(dir, &names);
    free_names(names, count);
    return count;
}

bool bed_is_litestream(const char *program)
{
    const char *slash = strrchr(program, '/');
    return strcmp(slash != NULL ? slash + 1 : program, "litestream") == 0;
}

static void add_setting(FILE *f, const char *indent, const char *name, int value, const char *unit)
{
    if (value != 0) fprintf(f, "%s%s: %d%s\n", indent, name, value, unit);
}

static size_t writer_args(struct bed *b, const char *const *args, const char **argv,
                          char numbers[2][32])
{
    size_t count = 0;
    snprintf(numbers[0], sizeof numbers[0], "%llu", (unsigned long long)b->seed);
    snprintf(numbers[1], sizeof numbers[1], "%d", b->opts.page_size);
    argv[count++] = b->writer_program;
    argv[count++] = b->db;
    argv[count++] = "--log";
    argv[count++] = b->log;
    argv[count++] = "--seed";
    argv[count++] = numbers[0];
    argv[count++] = "--page-size";
    argv[count++] = numbers[1];
    if (b->opts.auto_vacuum != NULL) {
        argv[count++] = "--auto-vacuum";
        argv[count++] = b->opts.auto_vacuum;
    }
    for (size_t i = 0; args != NULL && args[i] != NULL; i++) {
        if (count == ARGS_MAX - 1) die("too many arguments for the writer");
        argv[count++] = args[i];
    }
    argv[count] = NULL;
    return count;
}

/* Every id that can be restored, ascending, each once: an id that ends a file, and that is reached
 * from a snapshot through files that overlap or follow each other. Where the level 0 files at the
 * start of a merged file are gone, the ids of the others inside it are out of reach. */
static size_t list_txids(struct bed *b, const char *program, uint64_t **ret_txids)
{
    struct range *ranges = NULL;
    size_t total = 0, reached = 0;
    char path[TOOL_PATH_MAX], line[256];
    path_join(path, "%s/listing", b->dir);
    remove_file(path);
    const char *argv[] = {program, "ltx", "-level", "all", b->url, NULL};
    int status = run(argv, (struct spawn_opts){.log = path}, RESTORE_MS);
    FILE *f = fopen(path, "re");
    if (status != 0 || f == NULL) die("%s ltx ended with status %d; see %s", program, status, path);
    while (fgets(line, sizeof line, f) != NULL) {
        int level;
        unsigned long long low, high;
        if (sscanf(line, "%d %16llx %16llx", &level, &low, &high) != 3) continue;
        ranges = realloc(ranges, (total + 1) * sizeof *ranges);
        if (ranges == NULL) die("out of memory");
        ranges[total++] = (struct range){low, high};
    }
    fclose(f);
    qsort(ranges, total, sizeof *ranges, by_max);
    uint64_t *txids = malloc((total + 1) * sizeof *txids);
    if (txids == NULL) die("out of memory");
    for (size_t i = 0; i < total; i++) {
        bool known = reached > 0 && txids[reached - 1] == ranges[i].max;
        uint64_t below = 0; /* the highest id reached that is lower than this one */
        if (reached > (known ? 1u : 0u)) below = txids[reached - (known ? 2 : 1)];
        if (!known && ranges[i].min <= below + 1) txids[reached++] = ranges[i].max;
    }
    free(ranges);
    *ret_txids = txids;
    return reached;
}

static bool parse_name(const char *name, struct range *ret_range)
{
    unsigned long long low, high;
    int size = 0;
    bool good = sscanf(name, "%16llx-%16llx.ltx%n", &low, &high, &size) == 2 && size == 37 &&
                name[size] == '\0';
    if (good) *ret_range = (struct range){low, high};
    return good;
}

static int by_max(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->max < y->max ? -1 : x->max > y->max;
}

static void hour_if_zero(int *ms)
{
    if (*ms == 0) *ms = 3600000;
}

/* In a process of its own: closing any descriptor of a database here would drop the locks that a
 * connection of this process holds on it. */
static void copy_outside(const char *from, const char *to)
{
    const char *argv[] = {"cp", from, to, NULL};
    if (run(argv, (struct spawn_opts){0}, 600000) != 0) die("cp '%s' '%s'", from, to);
}

/* Has the process a handler for the signal by now? */
static bool catches(pid_t pid, int sig)
{
    char path[TOOL_PATH_MAX], line[256];
    unsigned long long caught = 0;
    path_join(path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "SigCgt: %llx", &caught) == 1) break;
    }
    if (f != NULL) fclose(f);
    return caught >> (sig - 1) & 1;
}
