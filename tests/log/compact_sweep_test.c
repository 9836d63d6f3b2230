/*
 * compact_sweep_test.c -- every allocation, syscall and store call of a merge fails in turn: it
 * ends in an error or a right file, never in a wrong or half one, and leaves nothing else behind;
 * the same call made again then succeeds. With answers that are lost as well.
 */
#include "log/compact_bed.h"
#include "store/driver.h"

static int open_fds(void)
{
    return files_in("/proc/self/fd");
}

/* Sources that are held whole and such that are read in ranges, an index that goes to disk. */
static void sweep_bed(struct bed *b, const char *url, bool digests)
{
    struct store *faulty;
    struct err err;
    bed_open(b, 65536, 1, url);
    OK(store_fault_new(b->store, &faulty, &err));
    b->store = b->log.store = faulty;
    b->digests = digests;
    bed_commit(b, 2);
    bed_commit(b, 24);
    bed_commit(b, 4);
    bed_commit(b, 23);
    put_file(b, 9, 1, 2);
    put_file(b, 0, 3, 3);
    put_file(b, 0, 4, 4);
}

static bool made(struct bed *b, bool snapshot)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct err err;
    bool there = false;
    OK(log_list_all(&b->log, NULL, &files, &err));
    assert_true(files.count == 3 || files.count == 4);
    for (size_t i = 0; i < files.count; i++)
        there |= files.items[i].txid_max == 4 && files.items[i].level == (snapshot ? 9u : 1u);
    assert_int_equal(there, files.count == 4);
    if (there) check_file(b, snapshot ? 9 : 1, snapshot ? 1 : 3, 4);
    return there;
}

static enum rc merge(struct bed *b, bool snapshot, const struct compact_opts *opts,
                     struct compact_result *res, struct err *err)
{
    struct log_file f[] = {{0, 3, 3, 0, 3000}, {0, 4, 4, 0, 4000}};
    struct log_files run = {.items = f, .count = 2};
    size_t gone;
    CLEANUP(log_files_fini) struct log_files listed = {0};
    if (snapshot) return compact_snapshot(&b->log, NULL, 0, opts, res, err);
    TRY(log_list(&b->log, NULL, 0, &listed, err));
    f[0].size = listed.items[0].size;
    f[1].size = listed.items[1].size;
    return compact_run(&b->log, NULL, &run, opts, res, &gone, err);
}

/* Returns false once no fault was left to fire. */
static bool fail_nth(struct bed *b, bool snapshot, unsigned cls, uint64_t n, unsigned parallelism)
{
    struct compact_opts opts = {.level = 1, .parallelism = parallelism, .index_max = 1};
    struct compact_result res = {0};
    struct err err = {0};
    char last[64];
    opts.tmp_dir = "/tmp";
    opts.held_max = 200000;
    int fds = open_fds();
    fault_arm(cls, n, false);
    enum rc rc = merge(b, snapshot, &opts, &res, &err);
    bool fired = fault_fired();
    snprintf(last, sizeof last, "%s", fault_last());
    fault_arm(0, 0, false);
    assert_int_equal(open_fds(), fds);
    if (rc != RC_OK && (!fired || err.text[0] == '\0'))
        fail_msg("%s: %s without a fault", rc_name(rc), err.text);
    if (rc != RC_OK) assert_int_equal(res.file.txid_max, 0);
    bool there = made(b, snapshot);
    if (rc == RC_OK && !there) fail_msg("%s %u fails: no file", last, (unsigned)n);
    if (fired) OK(merge(b, snapshot, &opts, &res, &err)); /* whatever it left */
    assert_true(made(b, snapshot));
    del_file(b, snapshot ? 9 : 1, snapshot ? 1 : 3, 4);
    return fired;
}

static void sweep(const char *url, unsigned cls, unsigned parallelism, enum store_fault mode)
{
    for (int part = 0; part < 3; part++) { /* levels; a snapshot without and with digests */
        struct bed b;
        sweep_bed(&b, url, part == 2);
        store_fault_mode(b.store, mode);
        uint64_t n = 1;
        for (; fail_nth(&b, part > 0, cls, n, parallelism); n++)
            assert_true(n < 2000);
        assert_true(n > 4);
        const char *const keys[] = {"ltx/9/0000000000000001-0000000000000002.ltx",
                                    "ltx/0/0000000000000003-0000000000000003.ltx",
                                    "ltx/0/0000000000000004-0000000000000004.ltx"};
        struct err err;
        OK(store_del(b.store, NULL, keys, 3, &err));
        bed_close(&b);
    }
}

static void test_allocations(void **state)
{
    (void)state;
    sweep("mem://", FAULT_ALLOC, 1, STORE_FAULT_REFUSE);
    sweep("mem://", FAULT_ALLOC, 4, STORE_FAULT_REFUSE);
}

static void test_syscalls(void **state)
{
    (void)state;
    char dir[] = "/dev/shm/sluice-sweep-XXXXXX", other[] = "/tmp/sluice-sweep-XXXXXX", cmd[64];
    char *root = mkdtemp(dir);
    if (root == NULL) root = mkdtemp(other);
    assert_non_null(root);
    sweep(root, FAULT_SYSCALL, 1, STORE_FAULT_REFUSE);
    snprintf(cmd, sizeof cmd, "rm -r '%s'", root);
    assert_int_equal(system(cmd), 0);
    sweep("mem://", FAULT_SYSCALL, 4, STORE_FAULT_REFUSE);
}

static void test_store_calls(void **state)
{
    (void)state;
    sweep("mem://", FAULT_STORE, 1, STORE_FAULT_REFUSE);
    sweep("mem://", FAULT_STORE, 4, STORE_FAULT_REFUSE);
}

/* The put took effect, and its answer was lost: the same call again finds what it wants. */
static void test_lost_answers(void **state)
{
    (void)state;
    sweep("mem://", FAULT_STORE, 1, STORE_FAULT_LOSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_syscalls),
        cmocka_unit_test(test_store_calls),
        cmocka_unit_test(test_lost_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
