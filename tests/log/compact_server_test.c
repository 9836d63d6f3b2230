/*
 * compact_server_test.c -- merged files and Litestream: ours restored by it, and its files merged
 * by us and restored by both. Skipped (77) where there is no `litestream` in PATH that reads both
 * packings, 0.5.16 or later.
 */
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include "log/compact_bed.h"

#define RUN_MS 4500

static bool litestream_there(void)
{
    char text[64] = "";
    int major = 0, minor = 0, patch = 0;
    FILE *f = popen("litestream version 2>/dev/null", "r");
    if (f == NULL) return false;
    if (fgets(text, sizeof text, f) == NULL) text[0] = '\0';
    pclose(f);
    if (sscanf(text, "v%d.%d.%d", &major, &minor, &patch) != 3) return false;
    print_message("litestream %s", text);
    return major > 0 || minor > 5 || (minor == 5 && patch >= 16);
}

static void shell(const char *command)
{
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* Its restore into b->out. txid 0: the newest. */
static void restore_by_litestream(struct bed *b, const char *root, uint64_t txid)
{
    char command[512], target[64] = "";
    if (txid != 0) snprintf(target, sizeof target, "-txid %016llx", (unsigned long long)txid);
    snprintf(command, sizeof command, "litestream restore %s -o '%s' 'file://%s' >'%s.log' 2>&1",
             target, b->out, root, root);
    shell(command);
}

static void expect_by_litestream(struct bed *b, const char *root, uint64_t txid)
{
    restore_by_litestream(b, root, txid);
    if (!out_is(b, &b->states[txid != 0 ? txid : b->txid]))
        fail_msg("litestream restores %d otherwise", (int)txid);
    unlink(b->out);
}

static void merge_and_drop(struct bed *b, uint32_t from, uint64_t min, uint64_t max)
{
    struct err err;
    struct compact_result res;
    CLEANUP(log_files_fini) struct log_files run = {0};
    run_of(b, from, min, max, &run);
    OK(merge_run(b, from, min, max, &(struct compact_opts){.level = from + 1}, &res, &err));
    for (size_t i = 0; i < run.count; i++)
        del_file(b, from, run.items[i].txid_min, run.items[i].txid_max);
}

static void test_litestream_restores_ours(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    for (unsigned round = 0; round < 4; round++) {
        struct bed b;
        struct err err;
        struct compact_result res;
        char root[] = "/tmp/sluice-peer-XXXXXX", command[128];
        assert_non_null(mkdtemp(root));
        bed_open(&b, 512u << 2 * round, seed + round, root);
        b.digests = round % 2;
        for (uint32_t i = 0; i < 20; i++)
            bed_commit(&b, 20 + pick(&b, 20));
        for (uint64_t t = 1; t <= 20; t++)
            put_file(&b, 0, t, t);
        for (uint64_t t = 2; t < 18; t += 4)
            merge_and_drop(&b, 0, t, t + 3);
        expect_by_litestream(&b, root, 0);
        for (uint64_t t = 5; t < 18; t += 4)
            expect_by_litestream(&b, root, t);
        merge_and_drop(&b, 1, 2, 9);
        expect_by_litestream(&b, root, 9);
        expect_by_litestream(&b, root, 13);
        OK(compact_snapshot(&b.log, NULL, 13, &(struct compact_opts){0}, &res, &err));
        del_file(&b, 0, 1, 1);
        del_file(&b, 2, 2, 9);
        expect_by_litestream(&b, root, 13);
        expect_by_litestream(&b, root, 19);
        expect_by_litestream(&b, root, 0);
        bed_close(&b);
        snprintf(command, sizeof command, "rm -r '%s' '%s.log'", root, root);
        shell(command);
    }
}

/* An application that writes under Litestream, which merges each second. */
static void write_under_litestream(struct bed *b, const char *root)
{
    char path[160], command[512];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s.yml", root);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "levels:\n  - interval: 1s\n  - interval: 1h\n"
            "dbs:\n  - path: %s.db\n    monitor-interval: 50ms\n    replica:\n"
            "      url: file://%s\n      sync-interval: 50ms\n",
            root, root);
    fclose(f);
    snprintf(command, sizeof command, "%s.db", root);
    assert_int_equal(sqlite3_open(command, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "pragma journal_mode=wal; pragma busy_timeout=5000;"
                                  "create table t(id integer primary key, v blob);",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        snprintf(command, sizeof command, "%s.log", root);
        if (freopen(command, "w", stdout) != NULL && dup2(1, 2) == 2)
            execlp("litestream", "litestream", "replicate", "-config", path, (char *)NULL);
        _exit(127);
    }
    for (int64_t end = os_mono_ms() + RUN_MS; os_mono_ms() < end; os_sleep_ms(20)) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "insert into t(v) values(randomblob(%u)); delete from t where "
                 "id %% 7 = %u and id > %u",
                 1 + pick(b, 9000), pick(b, 7), pick(b, 200));
        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    kill(pid, SIGTERM);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Both programs restore this transaction alike, and as it was. */
static void both_restore(struct bed *b, const char *root, uint64_t txid, struct buf *was)
{
    CLEANUP(buf_fini) struct buf theirs = BUF_INIT, ours = BUF_INIT;
    struct restore_result res;
    struct err err;
    restore_by_litestream(b, root, txid);
    OK(os_read_file(b->out, 1u << 30, &theirs, &err));
    unlink(b->out);
    OK(restore_to(b, TXID(txid), &res, &err));
    OK(os_read_file(b->out, 1u << 30, &ours, &err));
    unlink(b->out);
    assert_int_equal(ours.size, theirs.size);
    assert_memory_equal(ours.data, theirs.data, ours.size);
    if (was->size == 0) OK(buf_append(was, ours.data, ours.size, &err));
    assert_int_equal(was->size, ours.size);
    assert_memory_equal(was->data, ours.data, ours.size);
}

static void test_ours_of_litestreams(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    CLEANUP(log_files_fini) struct log_files merged = {0};
    CLEANUP(buf_fini) struct buf was = BUF_INIT, newest = BUF_INIT;
    char root[] = "/tmp/sluice-peer-XXXXXX", command[256];
    assert_non_null(mkdtemp(root));
    bed_open(&b, 4096, seed_get(), root);
    write_under_litestream(&b, root);
    OK(log_list(&b.log, NULL, 1, &merged, &err));
    print_message("litestream has made %zu files of level 1\n", merged.count);
    assert_true(merged.count >= 3);
    uint64_t first = merged.items[1].txid_min, top = merged.items[merged.count - 1].txid_max;
    both_restore(&b, root, top, &was);
    /* All but the first, which is its base, go up one level; level 0 stays, as it needs that. */
    merge_and_drop(&b, 1, first, top);
    both_restore(&b, root, top, &was);
    CLEANUP(log_files_fini) struct log_files raw = {0};
    OK(log_list(&b.log, NULL, 0, &raw, &err));
    assert_true(raw.count > 1);
    uint64_t last = raw.items[raw.count - 1].txid_max;
    both_restore(&b, root, last, &newest);
    OK(compact_snapshot(&b.log, NULL, last, &(struct compact_opts){0}, &res, &err));
    print_message("a snapshot of %llu: %llu pages\n", (unsigned long long)last,
                  (unsigned long long)res.pages);
    for (size_t i = 0; i + 1 < raw.count; i++)
        del_file(&b, 0, raw.items[i].txid_min, raw.items[i].txid_max);
    del_file(&b, 2, first, top);
    both_restore(&b, root, last, &newest);
    bed_close(&b);
    snprintf(command, sizeof command, "rm -r '%s' '%s'.* /tmp/.%s.db-litestream 2>/dev/null", root,
             root, root + 5);
    shell(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_litestream_restores_ours),
        cmocka_unit_test(test_ours_of_litestreams),
    };
    if (!litestream_there()) {
        print_message("SKIPPED: there is no litestream 0.5.16 or later in PATH\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
