/*
 * interop.c -- the program under test (P) and Litestream (the peer, L) on the same replicas.
 *
 * One writes, the other restores; one takes over from the other; one compacts what the other
 * wrote. Every copy is proven as in the crash test. See scenario.h for the command line; without a
 * peer in PATH the status is 77 (skipped).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include "scenario.h"

#define CATCH_UP_MS 120000

static void check_with_both(struct scenario_env *env, struct bed *b, const char *last);
static void finish(struct scenario_env *env, struct bed *b, const char *owner);
static void one_writes_other_restores(struct scenario_env *env, struct bed *b, const char *by,
                                      const char *restorer);
static void compact_others(struct scenario_env *env, struct bed *b, const char *first,
                           const char *second);
static void take_turns(struct scenario_env *env, struct bed *b, bool new_machine);
static void forget_local_state(struct bed *b);
static void hand_over(struct bed *b, const char *to, bool new_machine);
static void lock_page(struct scenario_env *env, struct bed *b, int page_size);
static void replaced(struct scenario_env *env, struct bed *b, const char *restorer);
static void wait_level(struct bed *b, int level, size_t files);
static void time_text(char out[64]);

static void p_writes_l_restores(struct scenario_env *env, struct bed *b)
{
    one_writes_other_restores(env, b, env->program, env->peer);
}

static void l_writes_p_restores(struct scenario_env *env, struct bed *b)
{
    one_writes_other_restores(env, b, env->peer, env->program);
}

/* A restored moment is what was there then, for both. */
static void timestamps(struct scenario_env *env, struct bed *b)
{
    const char *writers[] = {env->program, env->peer};
    for (int i = 0; i < 2; i++) {
        char moments[4][64];
        int64_t seqs[4];
        scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 50});
        for (int k = 0; k < 4; k++) {
            bed_writer_run(b, (const char *const[]){"--ops", "30", NULL});
            if (k == 0) bed_daemon_start(b, writers[i], NULL);
            seqs[k] = bed_source_seq(b);
            bed_wait_seq(b, writers[i], seqs[k], CATCH_UP_MS);
            sleep_ms(150);
            time_text(moments[k]);
            sleep_ms(150);
        }
        bed_writer_run(b, (const char *const[]){"--ops", "5", NULL});
        bed_daemon_stop(b, SIGTERM);
        for (int k = 0; k < 4; k++) {
            for (int r = 0; r < 2; r++) {
                const char *restorer = r ? env->peer : env->program;
                int64_t seq =
                    bed_restore_check(b, restorer, (struct bed_restore){.timestamp = moments[k]});
                if (seq != seqs[k]) {
                    die("%s wrote, %s restored %s: seq %lld, expected %lld", writers[i], restorer,
                        moments[k], (long long)seq, (long long)seqs[k]);
                }
            }
        }
    }
}

static void take_over_same_machine(struct scenario_env *env, struct bed *b)
{
    take_turns(env, b, false);
}

static void take_over_new_machine(struct scenario_env *env, struct bed *b)
{
    take_turns(env, b, true);
}

static void l_compacts_p(struct scenario_env *env, struct bed *b)
{
    compact_others(env, b, env->program, env->peer);
}

static void p_compacts_l(struct scenario_env *env, struct bed *b)
{
    compact_others(env, b, env->peer, env->program);
}

static void lock_page_4096(struct scenario_env *env, struct bed *b)
{
    lock_page(env, b, 4096);
}

static void lock_page_65536(struct scenario_env *env, struct bed *b)
{
    lock_page(env, b, 65536);
}

static void lock_page_512(struct scenario_env *env, struct bed *b)
{
    lock_page(env, b, 512);
}

/* VACUUM, and auto_vacuum that shrinks the file and lets it grow again. */
static void vacuum(struct scenario_env *env, struct bed *b)
{
    static const char *const kinds[] = {"none", "full", "incremental"};
    for (int i = 0; i < 3; i++) {
        scenario_bed(env, b, (struct bed_opts){.auto_vacuum = kinds[i]});
        bed_writer_run(b, (const char *const[]){"--ops", "10", NULL});
        bed_daemon_start(b, env->program, NULL);
        for (int k = 0; k < 3; k++) {
            bed_writer_run(b, (const char *const[]){"--ops", "20", "--mode", "big", "--size-max",
                                                    "400000", NULL});
            bed_writer_run(b, (const char *const[]){"--ops", "6", "--mode", "vacuum", NULL});
            if (k == 1) bed_daemon_stop(b, SIGKILL);
        }
        finish(env, b, env->program);
    }
}

/* The application checkpoints while the daemon is down, then L and P take turns. */
static void checkpoint_while_down(struct scenario_env *env, struct bed *b)
{
    for (int kind = MODEL_CKPT_PASSIVE; kind <= MODEL_CKPT_TRUNCATE; kind++) {
        struct model m;
        scenario_bed(env, b, (struct bed_opts){0});
        bed_model_open(b, &m);
        bed_daemon_start(b, env->program, NULL);
        scenario_steps(&m, MODEL_MIX, 60);
        bed_wait_seq(b, env->program, m.noted_seq, CATCH_UP_MS);
        bed_daemon_stop(b, SIGKILL);
        scenario_steps(&m, MODEL_MIX, 10);
        model_checkpoint(&m, (enum model_checkpoint)kind, &b->rng);
        scenario_steps(&m, MODEL_AUTO, 2);
        model_close(&m);
        finish(env, b, env->program);
    }
}

/* Kill the daemon and the writer; the other program goes on as on a new machine. */
static void kill_and_take_over(struct scenario_env *env, struct bed *b)
{
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 20});
    bed_writer_run(b, (const char *const[]){"--ops", "20", NULL});
    for (int i = 0; i < 6; i++) {
        bool peer = i % 2 != 0;
        const char *owner = peer ? env->peer : env->program;
        hand_over(b, owner, true);
        bed_daemon_start(b, owner, NULL);
        bed_writer_start(b, (const char *const[]){"--rate", "200", "--checkpoint",
                                                  peer ? "none" : "mixed", NULL});
        sleep_ms(rng_between(&b->rng, 300, 900));
        bed_daemon_stop(b, peer ? SIGTERM : SIGKILL);
        bed_writers_stop(b, SIGKILL);
        bed_once(b, owner);
        check_with_both(env, b, owner);
    }
}

static void long_reader(struct scenario_env *env, struct bed *b)
{
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 10, .truncate_pages = 300});
    bed_writer_run(b, (const char *const[]){"--ops", "10", NULL});
    bed_daemon_start(b, env->program, NULL);
    bed_writer_start(
        b, (const char *const[]){"--readers", "2", "--hold", "2500", "--mode", "batch", NULL});
    sleep_ms(3000);
    bed_writers_stop(b, SIGTERM);
    finish(env, b, env->program);
}

/* Pages that no LZ4 block can shrink. */
static void incompressible(struct scenario_env *env, struct bed *b)
{
    const char *owners[] = {env->program, env->peer};
    for (int i = 0; i < 2; i++) {
        struct model m;
        scenario_bed(env, b, (struct bed_opts){0});
        bed_daemon_start(b, owners[i], NULL);
        bed_model_open(b, &m);
        for (int k = 0; k < 10; k++) {
            /* Tables that start with an underscore are no part of the model's content. */
            (void)model_query(m.db, "CREATE TABLE IF NOT EXISTS _noise(id INTEGER PRIMARY KEY, b)");
            (void)model_query(m.db, "INSERT INTO _noise(b) VALUES (randomblob(200000))");
            scenario_steps(&m, MODEL_AUTO, 3);
            sleep_ms(30);
        }
        model_close(&m);
        finish(env, b, owners[i]);
    }
}

static void big_endian_wal(struct scenario_env *env, struct bed *b)
{
    char wal[TOOL_PATH_MAX];
    scenario_bed(env, b, (struct bed_opts){0});
    path_join(wal, "%s-wal", b->db);
    bed_writer_start(b, (const char *const[]){"--checkpoint", "none", "--rate", "200", NULL});
    scenario_await_wal(wal);
    sleep_ms(500);
    bed_writers_stop(b, SIGKILL);
    scenario_flip_wal(wal);
    bed_daemon_start(b, env->program, NULL);
    bed_writer_run(b, (const char *const[]){"--ops", "40", "--checkpoint", "none", NULL});
    finish(env, b, env->program);
}

/* Frames of transactions that were rolled back or never committed. */
static void uncommitted_tail(struct scenario_env *env, struct bed *b)
{
    struct model m;
    scenario_bed(env, b, (struct bed_opts){0});
    bed_model_open(b, &m);
    bed_daemon_start(b, env->program, NULL);
    scenario_steps(&m, MODEL_MIX, 20);
    for (int i = 0; i < 4; i++) {
        (void)model_query(m.db, "PRAGMA cache_size = 5");
        (void)model_query(m.db, "BEGIN IMMEDIATE");
        (void)model_query(m.db, "UPDATE wide SET body = randomblob(9000)");
        sleep_ms(80);
        (void)model_query(m.db, "ROLLBACK");
        scenario_steps(&m, MODEL_AUTO, i);
    }
    model_close(&m);
    finish(env, b, env->program);
}

static void p_restored_under_replica(struct scenario_env *env, struct bed *b)
{
    replaced(env, b, env->program);
}

static void l_restored_under_replica(struct scenario_env *env, struct bed *b)
{
    replaced(env, b, env->peer);
}

/* ---- parts ---- */

/* `last` uploaded everything; both must restore it. Byte equality can be asked for only when it
 * was not Litestream, whose own bookkeeping changes the source after its last upload. */
static void check_with_both(struct scenario_env *env, struct bed *b, const char *last)
{
    bool identical = !bed_is_litestream(last);
    bed_check_latest(b, env->program, identical);
    bed_check_latest(b, env->peer, identical);
}

static void finish(struct scenario_env *env, struct bed *b, const char *owner)
{
    bed_daemon_stop(b, SIGTERM);
    bed_once(b, owner);
    check_with_both(env, b, owner);
    (void)bed_check_txids(b, env->program, 6);
    (void)bed_check_txids(b, env->peer, 6);
}

static void one_writes_other_restores(struct scenario_env *env, struct bed *b, const char *by,
                                      const char *restorer)
{
    static const int sizes[] = {4096, 512, 65536};
    for (int i = 0; i < 3; i++) {
        scenario_bed(env, b,
                     (struct bed_opts){.page_size = sizes[i],
                                       .min_checkpoint_pages = 50,
                                       .level1_ms = 400,
                                       .level2_ms = 1200,
                                       .snapshot_ms = 900});
        bed_writer_run(b, (const char *const[]){"--ops", "10", NULL});
        bed_daemon_start(b, by, NULL);
        bed_wait_seq(b, by, bed_source_seq(b), CATCH_UP_MS);
        for (int k = 0; k < 4; k++) {
            bed_writer_start(b, (const char *const[]){"--rate", "300", NULL});
            sleep_ms(500);
            bed_writers_stop(b, SIGTERM);
            (void)bed_restore_check(b, restorer, (struct bed_restore){0});
        }
        finish(env, b, by);
        (void)bed_check_txids(b, restorer, 25);
    }
}

static void compact_others(struct scenario_env *env, struct bed *b, const char *first,
                           const char *second)
{
    scenario_bed(env, b, (struct bed_opts){0});
    bed_writer_run(b, (const char *const[]){"--ops", "10", NULL});
    bed_daemon_start(b, first, NULL);
    bed_writer_run(b, (const char *const[]){"--ops", "300", "--rate", "300", NULL});
    bed_daemon_stop(b, SIGTERM);
    hand_over(b, second, true);
    b->opts.level1_ms = 200;
    b->opts.level2_ms = 600;
    b->opts.l0_retention_ms = 1000;
    b->opts.snapshot_ms = 800;
    bed_write_config(b);
    uint64_t before = bed_level_txid(b, 0);
    bed_daemon_start(b, second, NULL);
    bed_writer_run(b, (const char *const[]){"--ops", "300", "--rate", "150", NULL});
    wait_level(b, 1, 1);
    wait_level(b, 2, 1);
    wait_level(b, 9, 1);
    if (bed_level_txid(b, 0) <= before) die("the second did not go on after the first's files");
    finish(env, b, second);
    /* And back: the first must live with the levels as the second left them. */
    hand_over(b, first, true);
    bed_daemon_start(b, first, NULL);
    bed_writer_run(b, (const char *const[]){"--ops", "200", "--rate", "200", NULL});
    finish(env, b, first);
}

static void take_turns(struct scenario_env *env, struct bed *b, bool new_machine)
{
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 30});
    bed_writer_run(b, (const char *const[]){"--ops", "20", NULL});
    uint64_t last = 0;
    for (int i = 0; i < 6; i++) {
        const char *owner = i % 2 ? env->program : env->peer;
        hand_over(b, owner, new_machine);
        bed_daemon_start(b, owner, NULL);
        bed_writer_run(b, (const char *const[]){"--ops", "60", "--rate", "300", NULL});
        bed_wait_seq(b, owner, bed_source_seq(b), CATCH_UP_MS);
        bed_daemon_stop(b, SIGTERM);
        bed_once(b, owner);
        check_with_both(env, b, owner);
        uint64_t now = bed_level_txid(b, 0);
        if (now <= last) {
            die("turn %d of %s: newest txid %llu after %llu", i, owner, (unsigned long long)now,
                (unsigned long long)last);
        }
        last = now;
    }
    (void)bed_check_txids(b, env->program, 12);
    (void)bed_check_txids(b, env->peer, 12);
}

/* What a program keeps beside the database, whichever program it was. */
static void forget_local_state(struct bed *b)
{
    char **names, path[TOOL_PATH_MAX];
    size_t count = list_names(b->dir, &names);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(names[i], ".db-", 4) != 0) continue;
        path_join(path, "%s/%s", b->dir, names[i]);
        remove_tree(path);
    }
    free_names(names, count);
}

/* Litestream 0.5.16 can miss frames when the WAL was restarted while it was away (hostile.c,
 * wal_restart_fewer). That is not what is tested here, so it finds the WAL folded. */
static void hand_over(struct bed *b, const char *to, bool new_machine)
{
    if (new_machine) forget_local_state(b);
    if (bed_is_litestream(to)) model_fold(b->db);
}

/* More than 1 GiB: the page at that offset belongs to SQLite's locks and is in no file. */
static void lock_page(struct scenario_env *env, struct bed *b, int page_size)
{
    const char *owners[] = {env->program, env->peer};
    for (int i = 0; i < 2; i++) {
        struct model m;
        scenario_bed(env, b, (struct bed_opts){.page_size = page_size});
        bed_model_open(b, &m);
        (void)model_query(m.db, "PRAGMA synchronous = off");
        (void)model_query(m.db, "PRAGMA wal_autocheckpoint = 20000");
        (void)model_query(m.db, "CREATE TABLE _bulk(id INTEGER PRIMARY KEY, b)");
        for (int mb = 0; mb < 1040; mb += 40) {
            (void)model_query(m.db, "INSERT INTO _bulk(b) VALUES (zeroblob(%d))", 40 << 20);
        }
        scenario_steps(&m, MODEL_MIX, 50);
        model_close(&m);
        bed_once(b, owners[i]);
        check_with_both(env, b, owners[i]);
        /* Pages on both sides of the lock page change again. */
        bed_model_open(b, &m);
        (void)model_query(m.db, "UPDATE _bulk SET b = zeroblob(1000000) WHERE id > 24");
        scenario_steps(&m, MODEL_BIG, 20);
        model_close(&m);
        bed_once(b, owners[i]);
        check_with_both(env, b, owners[i]);
    }
}

/* The database is lost and restored, without local state, and then used again: the history in the
 * replica goes on. */
static void replaced(struct scenario_env *env, struct bed *b, const char *restorer)
{
    char wal[TOOL_PATH_MAX], shm[TOOL_PATH_MAX];
    scenario_bed(env, b, (struct bed_opts){0});
    path_join(wal, "%s-wal", b->db);
    path_join(shm, "%s-shm", b->db);
    bed_writer_run(b, (const char *const[]){"--ops", "50", NULL});
    for (int i = 0; i < 4; i++) {
        bed_once(b, env->program);
        if (i % 2 == 0) forget_local_state(b);
        remove_file(b->db);
        remove_file(wal);
        remove_file(shm);
        int status = bed_restore(b, restorer, b->db, (struct bed_restore){0});
        if (status != 0) die("%s restore ended with status %d", restorer, status);
        bed_writer_run(b, (const char *const[]){"--ops", "30", NULL});
        finish(env, b, env->program);
    }
}

static void wait_level(struct bed *b, int level, size_t files)
{
    for (int64_t end = now_ms() + CATCH_UP_MS; bed_level_count(b, level) < files; sleep_ms(20)) {
        bed_daemon_check(b);
        if (now_ms() > end) die("level %d has fewer than %zu files", level, files);
    }
}

static void time_text(char out[64])
{
    struct timeval now;
    struct tm tm;
    gettimeofday(&now, NULL);
    gmtime_r(&now.tv_sec, &tm);
    size_t size = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + size, 64 - size, ".%03dZ", (int)(now.tv_usec / 1000));
}

static const struct scenario scenarios[] = {
    {"p_writes_l_restores", p_writes_l_restores, false},
    {"l_writes_p_restores", l_writes_p_restores, false},
    {"timestamps", timestamps, false},
    {"take_over_same_machine", take_over_same_machine, false},
    {"take_over_new_machine", take_over_new_machine, false},
    {"l_compacts_p", l_compacts_p, false},
    {"p_compacts_l", p_compacts_l, false},
    {"vacuum", vacuum, false},
    {"checkpoint_while_down", checkpoint_while_down, false},
    {"kill_and_take_over", kill_and_take_over, false},
    {"long_reader", long_reader, false},
    {"incompressible", incompressible, false},
    {"big_endian_wal", big_endian_wal, false},
    {"uncommitted_tail", uncommitted_tail, false},
    {"p_restored_under_replica", p_restored_under_replica, false},
    {"l_restored_under_replica", l_restored_under_replica, false},
    {"lock_page_4096", lock_page_4096, true},
    {"lock_page_65536", lock_page_65536, true},
    {"lock_page_512", lock_page_512, true},
    {NULL, NULL, false},
};

int main(int argc, char **argv)
{
    return scenario_main(argc, argv, scenarios,
                         (struct scenario_env){.program = INTEROP_PROGRAM,
                                               .peer = "litestream",
                                               .writer = INTEROP_WRITER});
}
