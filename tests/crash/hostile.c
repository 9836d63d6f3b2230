/*
 * hostile.c -- scripted scenes in which the application does what a daemon fears.
 *
 * Each ends the same way: everything is uploaded, and the restored database must equal the source
 * byte by byte and hold every acknowledged commit. See scenario.h for the command line.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "scenario.h"

#define CATCH_UP_MS 120000

static void finish(struct scenario_env *env, struct bed *b);
static void catch_up_and_kill(struct scenario_env *env, struct bed *b, struct model *m);
static void fill_wal(struct model *m, int frames);
static void regrow(struct model *m, int frames);
static void restart_wal(struct scenario_env *env, struct bed *b, int append, int fresh, bool live);

/* The daemon has read up to frame N and dies. The application appends frames, checkpoints them,
 * restarts the WAL and writes fewer than N frames: the frame before N is still intact, but the
 * ones behind it were missed. */
static void wal_restart_fewer(struct scenario_env *env, struct bed *b)
{
    restart_wal(env, b, 60, 10, true);
}

static void wal_restart_more(struct scenario_env *env, struct bed *b)
{
    restart_wal(env, b, 60, 900, true);
}

static void wal_restart_nothing_appended(struct scenario_env *env, struct bed *b)
{
    restart_wal(env, b, 0, 10, true);
}

static void wal_restart_nothing_fresh(struct scenario_env *env, struct bed *b)
{
    restart_wal(env, b, 60, 0, true);
}

/* As above, but the application also ends, so that the WAL is folded and deleted. */
static void wal_deleted(struct scenario_env *env, struct bed *b)
{
    restart_wal(env, b, 60, 10, false);
}

/* The WAL grows to exactly the offset where the daemon stopped. */
static void wal_restart_same_size(struct scenario_env *env, struct bed *b)
{
    struct model m;
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 100000});
    bed_model_open(b, &m);
    bed_daemon_start(b, env->program, NULL);
    fill_wal(&m, 200);
    int frames = m.wal_frames;
    catch_up_and_kill(env, b, &m);
    scenario_steps(&m, MODEL_AUTO, 20);
    model_checkpoint(&m, MODEL_CKPT_RESTART, &b->rng);
    regrow(&m, frames);
    bed_daemon_start(b, env->program, NULL);
    bed_wait_seq(b, env->program, model_query(m.db, "SELECT seq FROM acked"), CATCH_UP_MS);
    model_close(&m);
    finish(env, b);
}

/* Each kind of checkpoint by the application, between writes, while the daemon is down. */
static void checkpoints_while_down(struct scenario_env *env, struct bed *b)
{
    struct model m;
    scenario_bed(env, b, (struct bed_opts){0});
    bed_model_open(b, &m);
    for (int kind = MODEL_CKPT_PASSIVE; kind <= MODEL_CKPT_TRUNCATE; kind++) {
        for (int more = 0; more < 3; more++) {
            bed_daemon_start(b, env->program, NULL);
            scenario_steps(&m, MODEL_MIX, 40);
            catch_up_and_kill(env, b, &m);
            scenario_steps(&m, MODEL_MIX, 20);
            model_checkpoint(&m, (enum model_checkpoint)kind, &b->rng);
            scenario_steps(&m, MODEL_AUTO, more * 3);
            bed_once(b, env->program);
            bed_check_latest(b, env->program, !bed_is_litestream(env->program));
        }
    }
    model_close(&m);
    finish(env, b);
}

/* Three writers checkpoint in all modes against the running daemon, which does the same. */
static void checkpoints_while_up(struct scenario_env *env, struct bed *b)
{
    static const char *const kinds[] = {"passive", "full", "restart", "truncate", "mixed", "auto"};
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 20, .checkpoint_ms = 100});
    bed_writer_run(b, (const char *const[]){"--ops", "1", NULL});
    bed_daemon_start(b, env->program, NULL);
    bed_wait_seq(b, env->program, bed_source_seq(b), CATCH_UP_MS);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        for (int writer = 0; writer < 3; writer++) {
            bed_writer_start(
                b, (const char *const[]){"--checkpoint", kinds[i], "--autocheckpoint", "10", NULL});
        }
        sleep_ms(700);
        bed_writers_stop(b, SIGTERM);
        bed_daemon_check(b);
        (void)bed_restore_check(b, env->program, (struct bed_restore){0});
    }
    finish(env, b);
}

/* Readers keep the WAL from restarting while it grows far above every threshold. */
static void long_readers(struct scenario_env *env, struct bed *b)
{
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 10, .truncate_pages = 200});
    bed_writer_run(b, (const char *const[]){"--ops", "1", NULL});
    bed_daemon_start(b, env->program, NULL);
    bed_writer_start(
        b, (const char *const[]){"--readers", "3", "--hold", "4000", "--rate", "200", NULL});
    bed_writer_start(b, (const char *const[]){"--mode", "big", "--rate", "20", NULL});
    sleep_ms(5000);
    bed_writers_stop(b, SIGTERM);
    finish(env, b);
}

static void many_connections(struct scenario_env *env, struct bed *b)
{
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 50});
    bed_writer_run(b, (const char *const[]){"--ops", "1", NULL});
    bed_daemon_start(b, env->program, NULL);
    for (int i = 0; i < BED_WRITERS; i++) {
        bed_writer_start(b, (const char *const[]){"--readers", "6", "--hold", "200", "--checkpoint",
                                                  i % 2 ? "mixed" : "auto", NULL});
    }
    sleep_ms(4000);
    bed_writers_stop(b, SIGTERM);
    finish(env, b);
}

/* Every page size with every kind of vacuum: grow, shrink, regrow, with a restart in between. */
static void page_sizes(struct scenario_env *env, struct bed *b)
{
    static const char *const vacuums[] = {"none", "full", "incremental"};
    for (int size = 512; size <= 65536; size *= 2) {
        for (int i = 0; i < 3; i++) {
            scenario_bed(env, b, (struct bed_opts){.page_size = size, .auto_vacuum = vacuums[i]});
            bed_writer_run(b, (const char *const[]){"--ops", "40", "--size-max", "300000", NULL});
            bed_daemon_start(b, env->program, NULL);
            bed_writer_run(b, (const char *const[]){"--ops", "60", "--size-max", "300000", NULL});
            bed_writer_run(b, (const char *const[]){"--ops", "4", "--mode", "vacuum", NULL});
            bed_daemon_stop(b, SIGKILL);
            bed_writer_run(b, (const char *const[]){"--ops", "40", "--mode", "big", "--size-max",
                                                    "200000", NULL});
            bed_once(b, env->program);
            bed_check_latest(b, env->program, !bed_is_litestream(env->program));
            (void)bed_check_txids(b, env->program, 4);
        }
    }
}

/* A transaction spills frames into the WAL, then is rolled back, or its process is killed. */
static void uncommitted_tail(struct scenario_env *env, struct bed *b)
{
    struct model m;
    scenario_bed(env, b, (struct bed_opts){0});
    bed_model_open(b, &m);
    bed_daemon_start(b, env->program, NULL);
    for (int i = 0; i < 6; i++) {
        (void)model_query(m.db, "PRAGMA cache_size = 5");
        (void)model_query(m.db, "BEGIN IMMEDIATE");
        (void)model_query(m.db, "UPDATE wide SET body = randomblob(3000)");
        (void)model_query(m.db, "INSERT INTO wide SELECT -id, seq, slot, k, randomblob(3000)"
                                " FROM (SELECT * FROM small LIMIT 500)");
        sleep_ms(100);
        (void)model_query(m.db, "ROLLBACK");
        if (i % 2 == 0) scenario_steps(&m, MODEL_BIG, 2);
        if (i == 3) bed_daemon_stop(b, SIGKILL);
        if (i == 4) bed_daemon_start(b, env->program, NULL);
    }
    model_close(&m);
    for (int i = 0; i < 8; i++) {
        bed_writer_start(b, (const char *const[]){"--mode", "big", "--checkpoint", "none", NULL});
        sleep_ms(rng_between(&b->rng, 30, 250));
        bed_writers_stop(b, SIGKILL);
    }
    finish(env, b);
}

/* The application leaves WAL mode, writes with a rollback journal, and comes back. */
static void journal_mode_while_down(struct scenario_env *env, struct bed *b)
{
    struct model m;
    scenario_bed(env, b, (struct bed_opts){0});
    bed_model_open(b, &m);
    bed_daemon_start(b, env->program, NULL);
    scenario_steps(&m, MODEL_MIX, 50);
    catch_up_and_kill(env, b, &m);
    (void)model_query(m.db, "PRAGMA journal_mode = delete");
    scenario_steps(&m, MODEL_MIX, 30);
    (void)model_query(m.db, "PRAGMA journal_mode = wal");
    scenario_steps(&m, MODEL_MIX, 10);
    model_close(&m);
    bed_daemon_start(b, env->program, NULL);
    bed_wait_seq(b, env->program, bed_source_seq(b), CATCH_UP_MS);
    finish(env, b);
}

/* While the daemon is down, an older copy of the database is put in place. */
static void replaced_while_down(struct scenario_env *env, struct bed *b)
{
    char old[TOOL_PATH_MAX], old_log[TOOL_PATH_MAX], wal[TOOL_PATH_MAX];
    scenario_bed(env, b, (struct bed_opts){0});
    path_join(old, "%s/old", b->dir);
    path_join(old_log, "%s/old.log", b->dir);
    path_join(wal, "%s-wal", b->db);
    bed_writer_run(b, (const char *const[]){"--ops", "80", NULL});
    bed_once(b, env->program);
    model_fold(b->db);
    copy_file(b->db, old);
    copy_file(b->log, old_log);
    bed_writer_run(b, (const char *const[]){"--ops", "80", NULL});
    bed_once(b, env->program);
    bed_check_latest(b, env->program, !bed_is_litestream(env->program));
    model_fold(b->db);
    copy_file(old, b->db);
    copy_file(old_log, b->log);
    /* The seed must differ, or the same commits would be written again. */
    b->seed ^= 0x5555;
    bed_writer_run(b, (const char *const[]){"--ops", "20", NULL});
    /* Older transaction ids belong to the old history, which this log no longer tells. */
    bed_once(b, env->program);
    bed_check_latest(b, env->program, !bed_is_litestream(env->program));
}

/* The WAL comes from a machine of the other byte order. */
static void big_endian_wal(struct scenario_env *env, struct bed *b)
{
    char wal[TOOL_PATH_MAX];
    scenario_bed(env, b, (struct bed_opts){0});
    path_join(wal, "%s-wal", b->db);
    for (int i = 0; i < 3; i++) {
        /* What is left is not appended to, or it would go on in the order of the other machine. */
        if (i > 0) model_fold(b->db);
        bed_writer_start(b, (const char *const[]){"--checkpoint", "none", "--rate", "200", NULL});
        scenario_await_wal(wal);
        sleep_ms(500);
        bed_writers_stop(b, SIGKILL);
        scenario_flip_wal(wal);
        bed_daemon_start(b, env->program, NULL);
        bed_writer_run(b, (const char *const[]){"--ops", "50", "--checkpoint", "none", NULL});
        bed_daemon_stop(b, SIGKILL);
        bed_once(b, env->program);
        bed_check_latest(b, env->program, !bed_is_litestream(env->program));
    }
    finish(env, b);
}

/* `replicate -once` is killed, or fails, at its first syscall, its second, and so on; each time the
 * next run must repair everything. Needs a program with test hooks. */
static void every_syscall(struct scenario_env *env, struct bed *b)
{
    static const char *const ways[] = {"kill", "fail"};
    const char *argv[] = {env->program, "replicate", "-once", "-config", NULL, NULL};
    for (int way = 0; way < 2; way++) {
        scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 5, .level1_ms = 1});
        argv[4] = b->config;
        bed_writer_run(b, (const char *const[]){"--ops", "20", NULL});
        int untouched = 0, nth = 1, tried = 0;
        for (; untouched < 3 && nth < 20000; tried++) {
            char env_text[64];
            snprintf(env_text, sizeof env_text, "SLUICE_FAULT=%s:syscall:%d", ways[way], nth);
            int status = run(argv, (struct spawn_opts){b->daemon_log, env_text}, 60000);
            untouched = status == 0 && way == 0 ? untouched + 1 : 0;
            if (way == 1 && status == 0 && nth > 400) untouched = 3;
            if (status != 0 && status != (way == 0 ? 128 + SIGKILL : 1)) {
                die("status %d with %s; see %s", status, env_text, b->daemon_log);
            }
            bed_once(b, env->program);
            bed_check_latest(b, env->program, !bed_is_litestream(env->program));
            bed_writer_run(
                b, (const char *const[]){"--ops", "3", "--mode", tried % 5 ? "auto" : "mix", NULL});
            nth += nth < 60 ? 1 : rng_between(&b->rng, 1, nth / 20);
        }
#ifdef SLUICE_TEST_HOOKS
        if (way == 0 && nth < 10 && strcmp(env->program, CRASH_PROGRAM) == 0) {
            die("%s ignores SLUICE_FAULT", env->program);
        }
#endif
        printf("  %s: %d runs up to syscall %d\n", ways[way], tried, nth);
        finish(env, b);
    }
}

/* Upload what is left and compare everything. */
static void finish(struct scenario_env *env, struct bed *b)
{
    bed_daemon_stop(b, SIGTERM);
    bed_once(b, env->program);
    bed_check_latest(b, env->program, !bed_is_litestream(env->program));
    (void)bed_check_txids(b, env->program, 12);
}

static void catch_up_and_kill(struct scenario_env *env, struct bed *b, struct model *m)
{
    bed_wait_seq(b, env->program, model_query(m->db, "SELECT seq FROM acked"), CATCH_UP_MS);
    bed_daemon_stop(b, SIGKILL);
}

static void fill_wal(struct model *m, int frames)
{
    while (m->wal_frames < frames)
        (void)model_step(m, MODEL_BATCH);
}

/* Restart the WAL and write that many frames, or a few more. */
static void regrow(struct model *m, int frames)
{
    int before = m->wal_frames;
    (void)model_step(m, MODEL_AUTO);
    if (m->wal_frames >= before) die("the WAL did not restart: %d frames", m->wal_frames);
    while (m->wal_frames < frames)
        (void)model_step(m, MODEL_AUTO);
}

static void restart_wal(struct scenario_env *env, struct bed *b, int append, int fresh, bool live)
{
    struct model m;
    scenario_bed(env, b, (struct bed_opts){.min_checkpoint_pages = 100000});
    bed_model_open(b, &m);
    bed_daemon_start(b, env->program, NULL);
    fill_wal(&m, 600);
    catch_up_and_kill(env, b, &m);
    scenario_steps(&m, MODEL_AUTO, append);
    model_checkpoint(&m, MODEL_CKPT_RESTART, &b->rng);
    if (fresh > 0) regrow(&m, fresh);
    int64_t seq = model_query(m.db, "SELECT seq FROM acked");
    if (!live) model_close(&m);
    bed_daemon_start(b, env->program, NULL);
    bed_wait_seq(b, env->program, seq, CATCH_UP_MS);
    bed_daemon_stop(b, SIGTERM);
    bed_check_latest(b, env->program, !bed_is_litestream(env->program));
    if (live) model_close(&m);
    finish(env, b);
}

static const struct scenario scenarios[] = {
    {"wal_restart_fewer", wal_restart_fewer, false},
    {"wal_restart_more", wal_restart_more, false},
    {"wal_restart_same_size", wal_restart_same_size, false},
    {"wal_restart_nothing_appended", wal_restart_nothing_appended, false},
    {"wal_restart_nothing_fresh", wal_restart_nothing_fresh, false},
    {"wal_deleted", wal_deleted, false},
    {"checkpoints_while_down", checkpoints_while_down, false},
    {"checkpoints_while_up", checkpoints_while_up, false},
    {"long_readers", long_readers, false},
    {"many_connections", many_connections, false},
    {"page_sizes", page_sizes, false},
    {"uncommitted_tail", uncommitted_tail, false},
    {"journal_mode_while_down", journal_mode_while_down, false},
    {"replaced_while_down", replaced_while_down, false},
    {"big_endian_wal", big_endian_wal, false},
    {"every_syscall", every_syscall, false},
    {NULL, NULL, false},
};

int main(int argc, char **argv)
{
    return scenario_main(argc, argv, scenarios,
                         (struct scenario_env){.program = CRASH_PROGRAM, .writer = CRASH_WRITER});
}
