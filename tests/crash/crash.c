/*
 * crash.c -- kill everything, again and again, and prove after each round that nothing is lost.
 *
 *   crash [--program PATH] [--writer PATH] [--dir DIR] [--seed N] [--rounds N] [--duration SECONDS]
 *         [--hours N] [--jobs N] [--chain ROUNDS] [--txids N] [--verbose 1] [--replica URL]
 *
 * A round runs the daemon and some writers and kills them at random moments, in random order; the
 * application checkpoints and writes while the daemon is down. At its end everything is uploaded,
 * and the restored database must equal the source byte by byte, hold every acknowledged commit,
 * and each transaction id in the replica must restore to a state that the writer meant. A chain of
 * rounds goes on with the same database and replica; then a new one starts with other settings.
 *
 * With --replica the log goes to any store, "s3://bucket/crash/%s?endpoint=...": crash_s3.sh has
 * one behind a network that breaks (harness/netfault).
 *
 * The daemon may be told to kill itself before its n-th syscall (SLUICE_FAULT; needs a build with
 * test hooks). The seed decides every choice, but not the timing of the processes.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bed.h"

struct plan {
    const char *program, *writer, *replica;
    char dir[TOOL_PATH_MAX - 128];
    uint64_t seed;
    int rounds, jobs, chain, txids;
    int64_t end_ms; /* 0: by rounds only */
    bool verbose;
};
struct lane {
    const struct plan *plan;
    int index, rounds;
    uint64_t seed;
    struct bed bed;
    int round; /* of this lane, from 1 */
    int64_t restores;
};

static struct lane *current; /* for the message of a failure */

static void parse(struct plan *p, int argc, char **argv);
static void print_how_to_reproduce(void);
static pid_t start_lane(const struct plan *p, int index);
static void run_lane(struct lane *l);
static void new_chain(struct lane *l, uint64_t seed);
static void run_round(struct lane *l);
static void start_daemon(struct lane *l);
static void start_writer(struct lane *l);
static void one_event(struct lane *l);
static bool stored(struct lane *l);
static void while_down(struct lane *l);
static void check(struct lane *l);

int main(int argc, char **argv)
{
    struct plan p = {.program = CRASH_PROGRAM,
                     .writer = CRASH_WRITER,
                     .seed = tool_random_seed(),
                     .rounds = 20,
                     .jobs = 1,
                     .chain = 12,
                     .txids = 3};
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(&p, argc, argv);
    printf("seed %llu, program %s\n", (unsigned long long)p.seed, p.program);
    if (!program_exists(p.program)) die("there is no program '%s'", p.program);
    if (!program_exists(p.writer)) die("there is no writer '%s'", p.writer);
    int64_t start = now_ms();
    int failed = 0;
    for (int i = 0; i < p.jobs; i++)
        (void)start_lane(&p, i);
    for (int i = 0; i < p.jobs; i++) {
        int status;
        if (wait(&status) < 0) die("a lane is missing");
        failed += status != 0;
    }
    printf("%s: %d lanes, %d failed, %.1f s\n", failed ? "FAILED" : "crash: all rounds passed",
           p.jobs, failed, (double)(now_ms() - start) / 1000);
    return failed != 0;
}

static void parse(struct plan *p, int argc, char **argv)
{
    char cwd[TOOL_PATH_MAX - 256];
    if (getcwd(cwd, sizeof cwd) == NULL) die("no current folder");
    snprintf(p->dir, sizeof p->dir, "%s", cwd);
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (value == NULL) die("option '%s' wants a value; see crash.c for usage", name);
        if (strcmp(name, "--program") == 0) {
            p->program = value;
        } else if (strcmp(name, "--writer") == 0) {
            p->writer = value;
        } else if (strcmp(name, "--dir") == 0) {
            make_dir(value);
            char full[PATH_MAX];
            if (realpath(value, full) == NULL || strlen(full) >= sizeof p->dir) die("bad --dir");
            memcpy(p->dir, full, strlen(full) + 1);
        } else if (strcmp(name, "--seed") == 0) {
            p->seed = parse_u64(name, value);
        } else if (strcmp(name, "--rounds") == 0) {
            p->rounds = (int)parse_u64(name, value);
        } else if (strcmp(name, "--duration") == 0) {
            p->end_ms = now_ms() + (int64_t)parse_u64(name, value) * 1000;
        } else if (strcmp(name, "--hours") == 0) {
            p->end_ms = now_ms() + (int64_t)parse_u64(name, value) * 3600000;
        } else if (strcmp(name, "--jobs") == 0) {
            p->jobs = (int)parse_u64(name, value);
        } else if (strcmp(name, "--chain") == 0) {
            p->chain = (int)parse_u64(name, value);
        } else if (strcmp(name, "--txids") == 0) {
            p->txids = (int)parse_u64(name, value);
        } else if (strcmp(name, "--replica") == 0) {
            p->replica = value;
        } else if (strcmp(name, "--verbose") == 0) {
            p->verbose = parse_u64(name, value) != 0;
        } else {
            die("option '%s' is unknown; see crash.c for usage", name);
        }
    }
    if (p->jobs < 1 || p->chain < 1) die("--jobs and --chain start at 1");
    if (p->end_ms != 0) p->rounds = INT_MAX;
}

static void print_how_to_reproduce(void)
{
    if (current == NULL) return;
    printf("  in round %d of lane %d; everything is kept in %s\n"
           "  again: crash --program %s --jobs 1 --seed %llu --rounds %d --chain %d --txids %d\n",
           current->round, current->index, current->bed.dir, current->plan->program,
           (unsigned long long)current->seed, current->round, current->plan->chain,
           current->plan->txids);
}

static pid_t start_lane(const struct plan *p, int index)
{
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork a lane");
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    static struct lane lane;
    lane.plan = p;
    lane.index = index;
    lane.seed = p->seed + (uint64_t)index;
    lane.rounds = p->end_ms != 0 ? INT_MAX : p->rounds / p->jobs + (index < p->rounds % p->jobs);
    current = &lane;
    tool_on_die = print_how_to_reproduce;
    run_lane(&lane);
    fflush(stdout);
    _exit(0);
}

static void run_lane(struct lane *l)
{
    const struct plan *p = l->plan;
    int64_t start = now_ms();
    for (l->round = 1; l->round <= l->rounds; l->round++) {
        if (p->end_ms != 0 && now_ms() >= p->end_ms) break;
        int in_chain = (l->round - 1) % p->chain;
        if (in_chain == 0) new_chain(l, l->seed * 1000003u + (uint64_t)l->round);
        run_round(l);
        if (p->verbose || l->round % 20 == 0) {
            printf("lane %d: %d rounds, %lld restores, seq %lld, %.1f s\n", l->index, l->round,
                   (long long)l->restores, (long long)model_log_acked(l->bed.log),
                   (double)(now_ms() - start) / 1000);
        }
    }
    remove_tree(l->bed.dir);
    printf("lane %d: %d rounds passed, %lld restores\n", l->index, l->round - 1,
           (long long)l->restores);
}

static void new_chain(struct lane *l, uint64_t seed)
{
    static const int page_sizes[] = {4096, 4096, 4096, 512, 1024, 8192, 65536};
    static const char *const vacuums[] = {"none", "none", "full", "incremental"};
    struct rng r = rng_of(seed, 1);
    char dir[TOOL_PATH_MAX];
    struct bed_opts opts = {.replica_url = l->plan->replica,
                            .page_size = page_sizes[rng_below(&r, 7)],
                            .auto_vacuum = vacuums[rng_below(&r, 4)],
                            .monitor_ms = rng_between(&r, 5, 60),
                            .min_checkpoint_pages =
                                rng_percent(&r, 70) ? rng_between(&r, 1, 400) : 0,
                            .checkpoint_ms = rng_percent(&r, 30) ? rng_between(&r, 50, 1000) : 0};
    if (rng_percent(&r, 30)) opts.truncate_pages = rng_between(&r, 100, 1500);
    if (rng_percent(&r, 60)) {
        opts.level1_ms = rng_between(&r, 100, 1500);
        opts.level2_ms = opts.level1_ms * rng_between(&r, 2, 5);
    }
    if (opts.level1_ms != 0 && rng_percent(&r, 50))
        opts.l0_retention_ms = rng_between(&r, 300, 3000);
    if (rng_percent(&r, 30)) opts.snapshot_ms = rng_between(&r, 500, 5000);
    path_join(dir, "%s/crash-%llu-%d", l->plan->dir, (unsigned long long)l->plan->seed, l->index);
    bed_init(&l->bed, dir, l->plan->writer, seed, opts);
    bed_writer_run(&l->bed, (const char *const[]){"--ops", "1", NULL});
}

static void run_round(struct lane *l)
{
    struct bed *b = &l->bed;
    if (rng_percent(&b->rng, 80)) start_daemon(l);
    int events = rng_between(&b->rng, 1, 4);
    for (int i = 0; i < events; i++) {
        if (b->writer_count == 0 || (b->writer_count < 3 && rng_percent(&b->rng, 20)))
            start_writer(l);
        sleep_ms(rng_between(&b->rng, 20, 500 / events + 60));
        one_event(l);
    }
    bed_writers_stop(b, rng_percent(&b->rng, 50) ? SIGKILL : SIGTERM);
    if (rng_percent(&b->rng, 25)) {
        bed_daemon_stop(b, SIGKILL);
        while_down(l);
    }
    if (b->daemon == 0 && rng_percent(&b->rng, 50)) {
        start_daemon(l);
        sleep_ms(rng_between(&b->rng, 0, 200));
    }
    /* A self-killing daemon must not be asked to shut down in order. */
    bed_daemon_stop(b, b->fault_armed || rng_percent(&b->rng, 50) ? SIGKILL : SIGTERM);
    check(l);
}

static void start_daemon(struct lane *l)
{
    struct bed *b = &l->bed;
    char fault[64];
    bool armed = rng_percent(&b->rng, 40);
    /* Small numbers stop it while it starts, large ones in the middle of its work. */
    uint64_t nth = 1 + rng_below(&b->rng, rng_percent(&b->rng, 50) ? 200 : 5000);
    snprintf(fault, sizeof fault, "kill:syscall:%llu", (unsigned long long)nth);
    bed_daemon_start(b, l->plan->program, armed ? fault : NULL);
}

static void start_writer(struct lane *l)
{
    static const char *const rates[] = {"0", "100", "300", "1000"};
    static const char *const modes[] = {"mix", "mix", "mix", "mix", "auto", "batch", "big", "ddl"};
    static const char *const checkpoints[] = {"auto",    "auto",    "none",     "mixed",
                                              "passive", "restart", "truncate", "full"};
    static const char *const pages[] = {"1000", "50", "10"};
    static const char *const readers[] = {"0", "0", "0", "1", "2"};
    struct rng *r = &l->bed.rng;
    const char *args[] = {"--rate",
                          rates[rng_below(r, 4)],
                          "--mode",
                          modes[rng_below(r, 8)],
                          "--checkpoint",
                          checkpoints[rng_below(r, 8)],
                          "--sync",
                          rng_percent(r, 70) ? "normal" : "full",
                          "--readers",
                          readers[rng_below(r, 5)],
                          "--hold",
                          "300",
                          "--autocheckpoint",
                          pages[rng_below(r, 3)],
                          NULL};
    bed_writer_start(&l->bed, args);
}

static void one_event(struct lane *l)
{
    struct bed *b = &l->bed;
    struct model m;
    bed_daemon_check(b);
    bed_writers_check(b);
    int event = rng_between(&b->rng, 0, 99);
    if (event < 25) {
        bed_writers_stop(b, SIGKILL);
    } else if (event < 60) {
        bed_daemon_stop(b, rng_percent(&b->rng, 80) || b->fault_armed ? SIGKILL : SIGTERM);
        if (rng_percent(&b->rng, 60)) while_down(l);
        if (rng_percent(&b->rng, 85)) start_daemon(l);
    } else if (event < 70) {
        if (b->daemon == 0) start_daemon(l);
    } else if (event < 85) {
        bed_model_open(b, &m);
        model_checkpoint(&m, MODEL_CKPT_MIXED, &b->rng);
        model_close(&m);
    } else if (b->daemon != 0 && stored(l)) {
        /* A restore in the middle of everything is some state that the writer meant. */
        (void)bed_restore_check(b, l->plan->program, (struct bed_restore){0});
        l->restores++;
    }
}

/* Has anything reached the replica yet? The end of a chain's first round saw to it at the latest.
 */
static bool stored(struct lane *l)
{
    if ((l->round - 1) % l->plan->chain > 0) return true;
    return l->bed.replica[0] != '\0' && bed_level_txid(&l->bed, 0) > 0;
}

/* What the application does while nobody watches: checkpoints and writes, in any order. */
static void while_down(struct lane *l)
{
    struct bed *b = &l->bed;
    struct model m;
    bed_model_open(b, &m);
    for (int i = rng_between(&b->rng, 1, 4); i > 0; i--) {
        int ops = rng_between(&b->rng, 0, 30);
        for (int op = 0; op < ops; op++)
            (void)model_step(&m, MODEL_MIX);
        if (rng_percent(&b->rng, 70)) model_checkpoint(&m, MODEL_CKPT_MIXED, &b->rng);
    }
    /* The last connection to close folds the WAL and deletes it. */
    model_close(&m);
}

static void check(struct lane *l)
{
    struct bed *b = &l->bed;
    const char *program = l->plan->program;
    bed_once(b, program);
    bed_check_latest(b, program, !bed_is_litestream(program));
    l->restores += 1 + (int64_t)bed_check_txids(b, program, (size_t)l->plan->txids);
}
