/*
 * capture_sweep_test.c -- random histories against the oracle of bed.c: transactions of all kinds,
 * checkpoints by both sides, restarts, a child that is killed before its n-th syscall, and failing
 * syscalls and allocations. After every sync: database == batches applied in order, to the byte.
 *
 * SLUICE_SEED=n repeats a history; SLUICE_STEPS=n makes it longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "db/bed.h"

static const char *self;
static uint64_t rng;

static uint32_t draw(uint32_t below)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % below;
}

/* SLUICE_TRACE=1: what happens, and where the position stands. */
static void trace(struct bed *b, const char *what, uint32_t arg, const char *text)
{
    if (getenv("SLUICE_TRACE") == NULL) return;
    const struct db_pos *p = state_pos(capture_state(b->cap));
    fprintf(stderr, "%s %u %s: txid %llu pages %u frame %u salt %08x\n", what, arg, text,
            (unsigned long long)p->txid, p->page_count, p->wal_frame, p->wal_salt1);
}

static void write_something(struct bed *b)
{
    switch (draw(9)) {
    case 0:
    case 1:
    case 2:
        bed_sql(b, "INSERT INTO t(v) VALUES(randomblob(%u))", 1 + draw(3000));
        break;
    case 3:
        bed_sql(b,
                "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<%u) "
                "INSERT INTO t(v) SELECT randomblob(%u) FROM c",
                1 + draw(300), 1 + draw(2000));
        break;
    case 4:
        bed_sql(b, "UPDATE t SET v=randomblob(%u) WHERE id %% 7 = %u", 1 + draw(1500), draw(7));
        break;
    case 5:
        bed_sql(b, "DELETE FROM t WHERE id %% 3 = %u", draw(3));
        break;
    case 6:
        bed_sql(b,
                "BEGIN; INSERT INTO t(v) VALUES(zeroblob(200000)); SAVEPOINT s; "
                "DELETE FROM t WHERE id %% 2; ROLLBACK TO s; %s",
                draw(2) ? "COMMIT" : "ROLLBACK");
        break;
    case 7:
        bed_sql(b, draw(3) ? "PRAGMA incremental_vacuum(10)" : "VACUUM");
        break;
    default:
        bed_sql(b, "CREATE TABLE IF NOT EXISTS x%u(a, b)", draw(9));
        bed_sql(b, "CREATE INDEX IF NOT EXISTS i%u ON t(id, length(v))", draw(3));
        bed_sql(b, "DROP INDEX IF EXISTS i%u", draw(3));
    }
}

static void application_checkpoint(struct bed *b)
{
    const char *const modes[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
    sqlite3_busy_timeout(b->app, 0);
    bed_sql(b, "PRAGMA wal_checkpoint(%s)", modes[draw(4)]);
    sqlite3_busy_timeout(b->app, 2000);
}

/* Sync in a process of its own that dies before its n-th syscall. */
static void killed_sync(struct bed *b)
{
    char fault[64];
    pid_t pid;
    int status;
    snprintf(fault, sizeof fault, "SLUICE_FAULT=kill:syscall:%u", 1 + draw(120));
    char *const argv[] = {(char *)(uintptr_t)self, (char *)"--child", b->path, b->meta, NULL};
    char *const envp[] = {fault, NULL};
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, envp), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
}

static int child_main(const char *path, const char *meta)
{
    const struct capture_opts opts = {.busy_timeout_ms = 500, .checkpoint_pages = 20};
    struct capture *cap;
    struct batch_scratch *s;
    struct capture_result res;
    struct err err;
    fault_arm_from_env();
    source_global_init();
    if (batch_scratch_new(&s, &err) != RC_OK) return 1;
    if (capture_open(path, meta, &opts, &cap, &err) != RC_OK) return 2;
    if (capture_sync(cap, s, &res, &err) != RC_OK) return 3;
    if (capture_checkpoint(cap, s, true, &res, &err) != RC_OK) return 4;
    if (capture_sync(cap, s, &res, &err) != RC_OK) return 5;
    capture_close(cap);
    batch_scratch_free(s);
    return 0;
}

static void faulty_sync(struct bed *b)
{
    struct err err;
    unsigned classes = draw(2) ? FAULT_SYSCALL : FAULT_ALLOC;
    fault_arm(classes, 1 + draw(60), draw(4) == 0);
    enum rc rc = capture_sync(b->cap, b->scratch, &b->last, &err);
    if (rc == RC_OK) rc = capture_checkpoint(b->cap, b->scratch, draw(2), &b->last, &err);
    trace(b, "faulty", (uint32_t)rc, fault_last());
    if (rc != RC_OK) assert_true(fault_fired());
    fault_arm(0, 0, false);
}

static void step(struct bed *b)
{
    uint32_t kind = draw(16);
    trace(b, "step", kind, "");
    switch (kind) {
    case 0:
        application_checkpoint(b);
        break;
    case 1:
        bed_checkpoint(b, draw(2));
        break;
    case 2:
        bed_capture_close(b);
        for (uint32_t i = draw(4); i > 0; i--) {
            if (draw(2))
                write_something(b);
            else
                application_checkpoint(b);
        }
        if (draw(3) == 0) {
            bed_app_close(b);
            bed_app_open(b);
        }
        bed_capture_open(b);
        break;
    case 3:
        bed_capture_close(b);
        killed_sync(b);
        if (draw(2)) write_something(b);
        bed_capture_open(b);
        break;
    case 4:
    case 5:
        faulty_sync(b);
        break;
    default:
        write_something(b);
    }
    if (draw(2) == 0) {
        bed_sync(b);
        trace(b, "sync", b->last.why, b->last.staged ? "staged" : "");
        bed_check(b);
    }
}

static void history(uint64_t seed, uint32_t steps)
{
    const char *const vacuum[] = {"none", "full", "incremental"};
    struct bed b;
    rng = seed;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    bed_new(&b, 512 << draw(8), vacuum[draw(3)]);
    bed_capture_open(&b);
    for (uint32_t i = 0; i < steps; i++)
        step(&b);
    bed_sync(&b);
    bed_checkpoint(&b, true);
    bed_sync(&b);
    bed_check(&b);
    bed_free(&b);
}

static void test_random_histories(void **state)
{
    (void)state;
    const char *seed = getenv("SLUICE_SEED"), *steps = getenv("SLUICE_STEPS");
    uint32_t count = steps ? (uint32_t)atoi(steps) : 60;
    if (seed != NULL) {
        history(strtoull(seed, NULL, 10), count);
        return;
    }
    uint64_t base = os_random() >> 16;
    for (uint64_t i = 0; i < 16; i++)
        history(base + i, count);
}

/* Every single syscall and allocation of one sync and checkpoint fails in turn. */
static void sweep(unsigned classes)
{
    struct bed b;
    bool fired = true;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    for (uint64_t n = 1; fired; n++) {
        struct err err;
        bed_sql(&b, "INSERT INTO t(v) VALUES(randomblob(9000))");
        if (n % 3 == 0) {
            bed_capture_close(&b);
            bed_capture_open(&b);
        }
        fault_arm(classes, n, false);
        enum rc rc = capture_sync(b.cap, b.scratch, &b.last, &err);
        if (rc == RC_OK) rc = capture_checkpoint(b.cap, b.scratch, true, &b.last, &err);
        fired = fault_fired();
        fault_arm(0, 0, false);
        if (!fired && rc != RC_OK) fail_msg("%s", err.text);
        bed_sync(&b);
        bed_check(&b);
        assert_true(n < 2000);
    }
    bed_free(&b);
}

static void test_every_syscall_fails(void **state)
{
    (void)state;
    sweep(FAULT_SYSCALL);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    sweep(FAULT_ALLOC);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_every_syscall_fails),
        cmocka_unit_test(test_every_allocation_fails),
    };
    self = argv[0];
    if (argc == 4 && strcmp(argv[1], "--child") == 0) return child_main(argv[2], argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
