/*
 * restore_sweep_test.c -- every allocation, syscall and store call of a restore fails in turn: it
 * ends in an error or a right file, never in a wrong or half one, and leaves nothing behind.
 */
#include "log/restore_bed.h"
#include "store/driver.h"

static int open_fds(void)
{
    return files_in("/proc/self/fd");
}

/* One file that is fetched whole, one in ranges; a replaced leftover makes for more syscalls. */
static void sweep_bed(struct bed *b, const char *url, bool digests)
{
    struct store *faulty;
    struct err err;
    bed_open(b, 65536, 1, url);
    OK(store_fault_new(b->store, &faulty, &err));
    b->store = b->log.store = faulty;
    b->digests = digests;
    bed_commit(b, 40);
    bed_commit(b, 40);
    bed_commit(b, 3);
    bed_commit(b, 5);
    put_file(b, 9, 1, 2);
    put_file(b, 0, 3, 3);
    put_file(b, 0, 4, 4);
}

static void leave_tmp(const struct bed *b)
{
    char tmp[128];
    snprintf(tmp, sizeof tmp, "%s.tmp", b->out);
    FILE *f = fopen(tmp, "w");
    assert_non_null(f);
    fputs("left by a crash", f);
    fclose(f);
}

/* Returns false once no fault was left to fire. */
static bool fail_nth(struct bed *b, unsigned cls, uint64_t n, unsigned parallelism)
{
    struct restore_opts opts = {.target = LATEST, .out_path = b->out, .parallelism = parallelism};
    struct restore_result res = {0};
    struct err err = {0};
    char tmp[128];
    snprintf(tmp, sizeof tmp, "%s.tmp", b->out);
    leave_tmp(b);
    int fds = open_fds();
    fault_arm(cls, n, false);
    enum rc rc = restore_run(&b->log, NULL, &opts, &res, &err);
    bool fired = fault_fired();
    char last[64];
    snprintf(last, sizeof last, "%s", fault_last());
    fault_arm(0, 0, false);
    assert_int_equal(open_fds(), fds);
    if (rc != RC_OK) assert_true(fired && err.text[0] != '\0');
    if (rc == RC_OK) assert_int_equal(access(b->out, F_OK), 0);
    if (access(b->out, F_OK) == 0 && !out_is(b, &b->states[4]))
        fail_msg("%s %u fails: wrong output", last, (unsigned)n);
    unlink(b->out);
    /* What a crash left stays when it could not be looked at; our own file does not. */
    struct stat st;
    if (stat(tmp, &st) == 0) {
        assert_true(rc != RC_OK && st.st_size == 15);
        unlink(tmp);
    }
    assert_int_equal(files_in(b->dir), 0);
    return fired;
}

static void sweep(const char *url, unsigned cls, unsigned parallelism)
{
    for (int digests = 0; digests < 2; digests++) {
        struct bed b;
        uint64_t n = 1;
        sweep_bed(&b, url, digests);
        while (fail_nth(&b, cls, n, parallelism))
            assert_true(n++ < 1000);
        assert_true(n > 4);
        bed_close(&b);
    }
}

static void test_allocations(void **state)
{
    (void)state;
    sweep("mem://", FAULT_ALLOC, 1);
    sweep("mem://", FAULT_ALLOC, 4);
}

static void test_syscalls(void **state)
{
    (void)state;
    char dir[] = "/dev/shm/sluice-sweep-XXXXXX", other[] = "/tmp/sluice-sweep-XXXXXX", cmd[64];
    char *root = mkdtemp(dir);
    if (root == NULL) root = mkdtemp(other);
    assert_non_null(root);
    sweep(root, FAULT_SYSCALL, 1);
    sweep(root, FAULT_SYSCALL, 4);
    snprintf(cmd, sizeof cmd, "rm -r '%s'", root);
    assert_int_equal(system(cmd), 0);
}

/* What a store has refused for good ends the restore, and leaves nothing. */
static void test_store_calls(void **state)
{
    (void)state;
    sweep("mem://", FAULT_STORE, 1);
    sweep("mem://", FAULT_STORE, 4);
}

static void test_a_store_that_stays_away(void **state)
{
    (void)state;
    struct bed b;
    struct restore_result res;
    struct err err;
    sweep_bed(&b, "mem://", true);
    struct restore_opts opts = {.target = LATEST, .out_path = b.out, .parallelism = 4};
    fault_arm(FAULT_STORE, 3, true);
    assert_int_equal(restore_run(&b.log, NULL, &opts, &res, &err), RC_AGAIN);
    fault_arm(0, 0, false);
    assert_non_null(strstr(err.text, "refused"));
    assert_int_equal(files_in(b.dir), 0);
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_syscalls),
        cmocka_unit_test(test_store_calls),
        cmocka_unit_test(test_a_store_that_stays_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
