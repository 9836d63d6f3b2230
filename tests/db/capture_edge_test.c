/* capture_edge_test.c -- rare moments of the WAL and of the local state, one test each. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "db/bed.h"

static void *restart_the_wal(void *arg)
{
    struct bed *b = arg;
    sqlite3 *db;
    if (sqlite3_open(b->path, &db) != SQLITE_OK) return NULL;
    sqlite3_busy_timeout(db, 5000);
    sqlite3_exec(db, "PRAGMA wal_autocheckpoint=0", 0, 0, 0);
    for (int i = 0; i < 30; i++) {
        usleep(1000);
        sqlite3_exec(db, "INSERT INTO t(v) SELECT randomblob(3000) FROM t LIMIT 60", 0, 0, 0);
    }
    sqlite3_close(db);
    return NULL;
}

static void check_applied(struct bed *b)
{
    char path[128];
    struct err err;
    snprintf(path, sizeof path, "%s/applied.db", b->dir);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->applied.data, 1, b->applied.size, f), b->applied.size);
    fclose(f);
    if (db_integrity_check(path, true, &err) != RC_OK)
        fail_msg("txid %llu: %s", (unsigned long long)b->applied_txid, err.text);
}

/* After downtime all new frames are in the database file already, so the hold begins at mark 0, and
 * the application may restart the WAL while we read those frames. */
static void test_restart_while_frames_are_read(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_sql(&b, "PRAGMA wal_autocheckpoint=0");
    bed_rows(&b, 20, 3000);
    bed_capture_open(&b);
    bed_sync(&b);
    for (int round = 0; round < 6; round++) {
        struct err err;
        pthread_t id;
        bed_capture_close(&b);
        bed_rows(&b, 1500, 3000);
        bed_sql(&b, "PRAGMA wal_checkpoint(PASSIVE)");
        bed_capture_open(&b);
        assert_int_equal(pthread_create(&id, NULL, restart_the_wal, &b), 0);
        for (int i = 0; i < 4; i++) {
            enum rc rc = capture_sync(b.cap, b.scratch, &b.last, &err);
            if (rc == RC_BUSY) continue; /* the other one writes without a pause */
            if (rc != RC_OK) fail_msg("%s", err.text);
            bed_catch_up(&b);
            check_applied(&b);
        }
        assert_int_equal(pthread_join(id, NULL), 0);
        bed_sync(&b);
        bed_check(&b);
        bed_sql(&b, "DELETE FROM t");
        bed_sync(&b);
        bed_checkpoint(&b, true);
        bed_rows(&b, 10, 3000);
        bed_sync(&b);
        bed_check(&b);
    }
    bed_free(&b);
}

/* A daemon that is killed: nothing is closed, no header is written. */
static void killed_after_sync(struct bed *b)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        const struct capture_opts opts = {.busy_timeout_ms = 500, .checkpoint_pages = 50};
        struct capture_result res;
        struct batch_scratch *s;
        struct capture *cap;
        struct err err;
        if (batch_scratch_new(&s, &err) != RC_OK) _exit(1);
        if (capture_open(b->path, b->meta, &opts, &cap, &err) != RC_OK) _exit(2);
        if (capture_sync(cap, s, &res, &err) != RC_OK || !res.staged) _exit(3);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* What a damaged batch had put into the table of hashes must not count as captured. */
static void test_damaged_staged_batch(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct bed b;
        char path[OS_PATH_MAX];
        struct stat st;
        struct err err;
        bed_new(&b, 4096, "none");
        bed_rows(&b, 50, 3000);
        bed_capture_open(&b);
        bed_sync(&b);
        bed_capture_close(&b);
        bed_sql(&b, "UPDATE t SET v=randomblob(3000) WHERE id=30");
        bed_app_close(&b);
        killed_after_sync(&b);
        snprintf(path, sizeof path, "%s/ltx/%016x.staged", b.meta, 2);
        assert_int_equal(stat(path, &st), 0);
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        /* in a page; in the sizes at the end; the whole tail of the LTX file */
        fseek(f, kind == 0 ? 400 : (long)st.st_size - 48 - 24, SEEK_SET);
        for (int i = 0; i < (kind == 2 ? 24 : 8); i++)
            fputc(0x5A, f);
        fclose(f);
        bed_app_open(&b);
        bed_capture_open(&b);
        uint64_t txid = state_pos(capture_state(b.cap))->txid;
        assert_true(txid < 2);
        if (txid == 0) assert_int_equal(capture_restart_at(b.cap, 2, &err), RC_OK);
        b.applied_txid = txid == 0 ? 2 : 1;
        bed_sync(&b);
        bed_check(&b);
        bed_free(&b);
    }
}

/* An image that waits for its upload belongs to the history that is forgotten. */
static void test_reset_forgets_the_snapshot(void **state)
{
    (void)state;
    struct bed b;
    char path[OS_PATH_MAX];
    struct err err;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    capture_want_snapshot(b.cap);
    bed_sync(&b);
    assert_true(b.last.snapshot);
    state_snapshot_path(capture_state(b.cap), path);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(capture_restart_at(b.cap, 0, &err), RC_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    bed_free(&b);
}

/* An application that has created its file has not chosen page size and encoding yet. */
static void test_empty_file_is_left_alone(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    char cmd[512];
    struct stat st;
    bed_new(&b, 4096, "none");
    bed_app_close(&b);
    snprintf(cmd, sizeof cmd, "rm -f %s*; : >%s", b.path, b.path);
    assert_int_equal(system(cmd), 0);
    bed_capture_open(&b);
    assert_int_equal(capture_sync(b.cap, b.scratch, &b.last, &err), RC_NOT_FOUND);
    assert_int_equal(stat(b.path, &st), 0);
    assert_int_equal(st.st_size, 0);
    bed_app_open(&b);
    bed_sql(&b, "PRAGMA page_size=8192");
    bed_sql(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
    bed_sync(&b);
    assert_int_equal(state_pos(capture_state(b.cap))->page_size, 8192);
    bed_check(&b);
    bed_free(&b);
}

/* The application stops, somebody cleans up behind it, it starts again: a new WAL and wal-index at
 * the same path, which our connections do not see. */
static void test_deleted_wal_is_noticed(void **state)
{
    (void)state;
    struct bed b;
    char cmd[1024];
    struct err err;
    bed_start(&b, 50, 1000);
    bed_checkpoint(&b, true);
    bed_app_close(&b);
    /* Another process: this one would share the deleted wal-index with us. */
    snprintf(cmd, sizeof cmd, "rm -f %s-wal %s-shm; sqlite3 %s 'INSERT INTO t(v) VALUES(1)'",
             b.path, b.path, b.path);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(capture_sync(b.cap, b.scratch, &b.last, &err), RC_REPLACED);
    bed_sync(&b);
    bed_check(&b);
    bed_app_open(&b);
    bed_free(&b);
}

/* The database is fine, but the folder of the local state is gone: not the same trouble. */
static void test_deleted_state_is_not_a_deleted_database(void **state)
{
    (void)state;
    struct bed b;
    char cmd[512];
    struct err err;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    snprintf(cmd, sizeof cmd, "rm -rf %s", b.meta);
    assert_int_equal(system(cmd), 0);
    bed_rows(&b, 5, 1000);
    assert_int_equal(capture_sync(b.cap, b.scratch, &b.last, &err), RC_CORRUPT);
    bed_free(&b);
}

/* Other pages cannot be put on top of a log of another page size: at no moment may there be a
 * batch of the new size without the image that goes below it. */
static void test_new_page_size_has_its_image_first(void **state)
{
    (void)state;
    bool fired = true;
    for (uint64_t n = 1; fired; n++) {
        struct bed b;
        struct err err;
        char batch[OS_PATH_MAX], image[OS_PATH_MAX];
        bed_new(&b, 4096, "none");
        bed_capture_open(&b);
        bed_sync(&b);
        bed_capture_close(&b);
        bed_sql(&b, "PRAGMA journal_mode=delete");
        bed_sql(&b, "PRAGMA page_size=8192");
        bed_sql(&b, "VACUUM");
        bed_capture_open(&b);
        state_staged_path(capture_state(b.cap), 2, batch);
        state_snapshot_path(capture_state(b.cap), image);
        fault_arm(FAULT_SYSCALL, n, false);
        enum rc rc = capture_sync(b.cap, b.scratch, &b.last, &err);
        fired = fault_fired();
        fault_arm(0, 0, false);
        assert_true(fired || rc == RC_OK);
        if (access(batch, F_OK) == 0) assert_int_equal(access(image, F_OK), 0);
        /* An image alone is no harm: it goes when the state is opened. */
        bool alone = access(batch, F_OK) != 0;
        bed_capture_close(&b);
        bed_capture_open(&b);
        if (alone) assert_int_not_equal(access(image, F_OK), 0);
        bed_sync(&b);
        bed_check(&b);
        bed_free(&b);
        assert_true(n < 500);
    }
}

/* Nothing may be staged that a power failure could still take from the database. */
static void test_relaxed_commits_are_on_disk_first(void **state)
{
    (void)state;
    for (int relaxed = 0; relaxed < 2; relaxed++) {
        struct bed b;
        bool wal_failed = false, fired = true;
        bed_new(&b, 4096, "none");
        bed_rows(&b, 20, 300);
        b.relaxed = relaxed;
        bed_capture_open(&b);
        bed_sync(&b);
        for (unsigned n = 1; fired; n++) {
            struct capture_result res = {0};
            struct err err = {0};
            bed_rows(&b, 1, 300);
            fault_arm(FAULT_SYSCALL, n, false);
            enum rc rc = capture_sync(b.cap, b.scratch, &res, &err);
            fired = fault_fired();
            bool fsync_failed = fired && strcmp(fault_last(), "fsync") == 0;
            fault_arm(0, 0, false);
            if (rc != RC_OK && fsync_failed && strstr(err.text, "-wal'") != NULL) {
                wal_failed = true;
                assert_false(res.staged);
            }
            bed_catch_up(&b);
            bed_sync(&b);
        }
        assert_int_equal(wal_failed, relaxed);
        bed_check(&b);
        bed_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart_while_frames_are_read),
        cmocka_unit_test(test_relaxed_commits_are_on_disk_first),
        cmocka_unit_test(test_damaged_staged_batch),
        cmocka_unit_test(test_reset_forgets_the_snapshot),
        cmocka_unit_test(test_empty_file_is_left_alone),
        cmocka_unit_test(test_deleted_wal_is_noticed),
        cmocka_unit_test(test_new_page_size_has_its_image_first),
        cmocka_unit_test(test_deleted_state_is_not_a_deleted_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
