/*
 * power.c -- does `sluice serve` survive that the power fails?
 *
 *   power [--program PATH] [--recorder PATH] [--dir DIR] [--seed N] [--rounds N] [--cuts N]
 *         [--ms N] [--chain N] [--relaxed PERCENT] [--lie file|dir|all|PATTERN]
 *         [--expect-loss 1] [--verbose 1]
 *
 * A round runs the server with a library (record.c) that writes down every change of its folder,
 * while clients do all they can (load.c) and note what they were told (journal.c). Then it takes
 * moments of that record at random, makes what a disk could hold if the power had failed then
 * (disk.c), starts the server on it, and looks whether everything is there that must be, and that
 * the logs go on (check.c). The next round of a chain begins on one of those disks.
 *
 * With --lie the recorder does not believe in fsync (of files, of folders, of names like
 * PATTERN), like a disk that lies; --expect-loss then asks that this is found out.
 *
 * The seed decides every choice, but not the timing of the server and its clients.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
#include "disk.h"
#include "imports.h"
#include "load.h"
#include "record.h"

struct plan {
    const char *program, *recorder, *lie;
    char dir[TOOL_PATH_MAX - 128];
    uint64_t seed;
    int rounds, cuts, run_ms, chain, relaxed;
    bool expect_loss, verbose;
};
struct run {
    const struct plan *plan;
    char root[TOOL_PATH_MAX], log[TOOL_PATH_MAX], socket[TOOL_PATH_MAX], admin[TOOL_PATH_MAX];
    char store[TOOL_PATH_MAX], server_log[TOOL_PATH_MAX], spare[TOOL_PATH_MAX],
        failed[TOOL_PATH_MAX];
    struct server server;
    struct journal journal;
    struct disk *disk;
    struct rng rng;
    int round;
    /* The cut that is looked at, so that it can be kept. */
    uint64_t cut, cut_seed;
    enum disk_mode mode;
    struct check_stats stats;
    uint64_t cuts, records, bytes, answered;
};

static struct run *current; /* for the message of a failure */

static void parse(struct plan *p, int argc, char **argv);
static void print_how_to_reproduce(void);
static int expect_loss(const struct plan *p);
static void run_all(const struct plan *p);
static void run_round(struct run *r);
static void record(struct run *r, bool relaxed);
static void cut_once(struct run *r, bool relaxed);
static void build(struct run *r, const char *folder);

int main(int argc, char **argv)
{
    struct plan p = {.program = POWER_PROGRAM,
                     .recorder = POWER_RECORDER,
                     .seed = tool_random_seed(),
                     .rounds = 4,
                     .cuts = 5,
                     .run_ms = 1500,
                     .chain = 3,
                     .relaxed = 20};
    const char *seed = getenv("SLUICE_SEED");
    if (seed != NULL) p.seed = parse_u64("SLUICE_SEED", seed);
    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(&p, argc, argv);
    printf("seed %llu, program %s\n", (unsigned long long)p.seed, p.program);
    imports_check(p.program, p.recorder);
    if (p.expect_loss) return expect_loss(&p);
    run_all(&p);
    return 0;
}

static void parse(struct plan *p, int argc, char **argv)
{
    static const char *const names[] = {
        "--program", "--recorder", "--dir",     "--seed",    "--rounds",      "--cuts", "--ms",
        "--chain",   "--lie",      "--verbose", "--relaxed", "--expect-loss", NULL};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        switch (parse_choice("an option", argv[i], names)) {
        case 0:
            p->program = value;
            break;
        case 1:
            p->recorder = value;
            break;
        case 2:
            snprintf(p->dir, sizeof p->dir, "%s", value);
            break;
        case 3:
            p->seed = parse_u64("--seed", value);
            break;
        case 4:
            p->rounds = (int)parse_u64("--rounds", value);
            break;
        case 5:
            p->cuts = (int)parse_u64("--cuts", value);
            break;
        case 6:
            p->run_ms = (int)parse_u64("--ms", value);
            break;
        case 7:
            p->chain = (int)parse_u64("--chain", value);
            break;
        case 8:
            p->lie = value;
            break;
        case 9:
            p->verbose = parse_u64("--verbose", value) != 0;
            break;
        case 10:
            p->relaxed = (int)parse_u64("--relaxed", value);
            break;
        default:
            p->expect_loss = parse_u64("--expect-loss", value) != 0;
            break;
        }
    }
    if (argc % 2 == 0) die("option '%s' wants a value", argv[argc - 1]);
    /* Memory, if there is a folder in it: the server's fsyncs prove nothing here. */
    if (p->dir[0] == '\0')
        snprintf(p->dir, sizeof p->dir, "%s/sluice-power-%d",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
}

/* What was found, before the server touched it, is in the folder `failed`. */
static void print_how_to_reproduce(void)
{
    struct run *r = current;
    if (r == NULL) return;
    printf("seed %llu, round %d, cut at %llu of the log, %s; see %s\n",
           (unsigned long long)r->plan->seed, r->round, (unsigned long long)r->cut,
           r->mode == DISK_STRICT ? "strict" : "journal", r->plan->dir);
    if (r->disk != NULL && r->cut > 0) build(r, r->failed);
    if (r->server.pid > 0) kill(r->server.pid, SIGKILL);
    if (r->plan->expect_loss) remove_tree(r->plan->dir);
}

static int expect_loss(const struct plan *p)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        run_all(p);
        exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) die("a process for the run");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != LOST_STATUS)
        die("a disk that lies about fsync (%s) was not found out", p->lie ? p->lie : "none");
    printf("found out, as it should be\n");
    return 0;
}

static void run_all(const struct plan *p)
{
    struct run *r = calloc(1, sizeof *r);
    if (r == NULL) die("out of memory");
    r->plan = p;
    path_join(r->root, "%s/data", p->dir);
    path_join(r->log, "%s/record", p->dir);
    path_join(r->socket, "%s/c.sock", p->dir);
    path_join(r->admin, "%s/a.sock", p->dir);
    path_join(r->server_log, "%s/server.log", p->dir);
    path_join(r->store, "%s/data/store", p->dir);
    path_join(r->spare, "%s/spare", p->dir);
    path_join(r->failed, "%s/failed", p->dir);
    remove_tree(p->dir);
    make_dir(p->dir);
    r->server = (struct server){.program = p->program,
                                .root = r->root,
                                .socket = r->socket,
                                .admin_socket = r->admin,
                                .log = r->server_log,
                                .spare = r->spare};
    journal_init(&r->journal, r->log);
    current = r;
    tool_on_die = print_how_to_reproduce;
    int64_t start = now_ms();
    for (r->round = 1; r->round <= p->rounds; r->round++)
        run_round(r);
    tool_on_die = NULL;
    printf("%d rounds, %llu power failures, %llu records of %llu bytes, %llu answers; checked %llu "
           "tenants with %llu rows, %llu restores, in %.1f s\n",
           p->rounds, (unsigned long long)r->cuts, (unsigned long long)r->records,
           (unsigned long long)r->bytes, (unsigned long long)r->answered,
           (unsigned long long)r->stats.tenants, (unsigned long long)r->stats.rows,
           (unsigned long long)r->stats.restores, (double)(now_ms() - start) / 1000);
    remove_tree(p->dir);
    journal_reset(&r->journal);
    free(r->journal.events);
    disk_free(r->disk);
    free(r);
}

static void run_round(struct run *r)
{
    const struct plan *p = r->plan;
    r->rng = rng_of(p->seed, (uint64_t)r->round);
    bool relaxed = p->lie == NULL && rng_percent(&r->rng, p->relaxed);
    struct rng of_chain = rng_of(p->seed, (uint64_t)(1000000 + (r->round - 1) / p->chain));
    r->server.store = rng_percent(&of_chain, 40) ? r->store : NULL;
    r->cut = 0;
    if ((r->round - 1) % p->chain == 0) remove_tree(r->root);
    make_dir(r->root);
    record(r, relaxed);
    struct disk_stats s = disk_stats(r->disk);
    r->records += s.records;
    r->bytes += s.bytes;
    size_t answered = 0;
    for (size_t i = 0; i < r->journal.count; i++)
        answered += r->journal.events[i].end == END_OK;
    r->answered += answered;
    if (p->verbose)
        printf("round %d%s%s: %zu events, %zu done; %llu records, %llu fsyncs, %llu names\n",
               r->round, relaxed ? " (relaxed)" : "", r->server.store != NULL ? " (store)" : "",
               r->journal.count, answered, (unsigned long long)s.records,
               (unsigned long long)s.syncs, (unsigned long long)s.names);
    for (int i = 0; i < p->cuts; i++)
        cut_once(r, relaxed);
    /* The next round begins where the last failure was, before anybody has looked at it. */
    remove_tree(r->root);
    build(r, r->root);
}

static void record(struct run *r, bool relaxed)
{
    const struct plan *p = r->plan;
    int status;
    disk_free(r->disk);
    r->disk = NULL;
    journal_reset(&r->journal);
    remove_file(r->log);
    write_text(r->log, "%s", "");
    struct disk *d = disk_new(r->root);
    setenv("LD_PRELOAD", p->recorder, 1);
    setenv(POWER_ROOT, r->root, 1);
    setenv(POWER_LOG, r->log, 1);
    setenv(POWER_FSYNC_US, "3000", 1);
    if (p->lie != NULL) setenv(POWER_LIE, p->lie, 1);
    r->server.extra[0] = "-idle-close";
    r->server.extra[1] = rng_percent(&r->rng, 50) ? "300ms" : "1m";
    r->server.extra[2] = relaxed ? "-relaxed" : NULL;
    server_spawn(&r->server);
    unsetenv("LD_PRELOAD");
    server_ready(&r->server);
    struct load_opts opts = {.socket = r->socket,
                             .admin_socket = r->admin,
                             .journal = &r->journal,
                             .seed = rng_next(&r->rng),
                             .clients_a = rng_between(&r->rng, 1, 4),
                             .clients_s = rng_between(&r->rng, 1, 2)};
    struct load *l = load_begin(&opts);
    sleep_ms(p->run_ms / 2 + (int64_t)rng_below(&r->rng, (uint64_t)p->run_ms));
    if (!still_running(r->server.pid, &status)) die("the server has ended with %d", status);
    if (rng_percent(&r->rng, 50)) {
        kill(r->server.pid, SIGTERM); /* so that there are failures while it ends */
    } else {
        kill(r->server.pid, SIGKILL);
    }
    load_end(l);
    if (wait_exit(r->server.pid, 60000) < 0) die("the server does not end");
    r->server.pid = 0;
    disk_load(d, r->log);
    r->disk = d;
}

static void cut_once(struct run *r, bool relaxed)
{
    uint64_t size = disk_size(r->disk);
    /* Most of the time is after the start, but that must be survived, too. */
    uint64_t low = rng_percent(&r->rng, 15) ? 0 : size / 10;
    uint64_t high = low == 0 ? size / 10 : size;
    r->cut = disk_pick(r->disk, low, high, rng_percent(&r->rng, 50), &r->rng);
    if (rng_percent(&r->rng, 10)) r->cut = size; /* after an end in good order, perhaps */
    r->mode = rng_percent(&r->rng, 50) ? DISK_STRICT : DISK_JOURNAL;
    r->cut_seed = rng_next(&r->rng);
    remove_tree(r->root);
    build(r, r->root);
    struct check c = {.server = &r->server,
                      .journal = &r->journal,
                      .cut = r->cut,
                      .relaxed = relaxed,
                      .rng = &r->rng,
                      .restores = 2,
                      .no_peek = rng_percent(&r->rng, 25)};
    r->server.extra[0] = NULL;
    check_all(&c, &r->stats);
    r->cuts++;
}

static void build(struct run *r, const char *folder)
{
    struct rng rng = {r->cut_seed};
    disk_build(r->disk, r->cut, r->mode, &rng, folder);
}
