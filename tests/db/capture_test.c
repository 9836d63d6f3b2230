/* capture_test.c -- one scenario each; the random histories are in capture_sweep_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "db/bed.h"

static void test_follows_commits(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_FIRST);
    bed_check(&b);
    for (int i = 0; i < 20; i++) {
        bed_rows(&b, 10, 300);
        bed_sync(&b);
        assert_true(b.last.staged);
        assert_int_equal(b.last.why, CAPTURE_CONTINUED);
        bed_check(&b);
    }
    bed_sync(&b);
    assert_false(b.last.staged);
    bed_free(&b);
}

/* Frames that no commit has published yet: whoever rests must look again. Pages that do not fit
 * into the cache reach the WAL before the commit does. */
static void test_frames_in_flight_are_seen(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    assert_false(capture_in_flight(b.cap));
    bed_sync(&b);
    assert_false(capture_in_flight(b.cap));
    bed_sql(&b, "PRAGMA cache_size=1");
    bed_sql(&b, "BEGIN");
    for (int i = 0; i < 50; i++)
        bed_sql(&b, "INSERT INTO t VALUES(NULL, randomblob(3000))");
    assert_int_equal(capture_pending(b.cap), 0);
    assert_true(capture_in_flight(b.cap));
    bed_sql(&b, "COMMIT");
    assert_true(capture_pending(b.cap) > 0);
    bed_sync(&b);
    assert_false(capture_in_flight(b.cap));
    bed_checkpoint(&b, true); /* the next writer begins at the start of the WAL */
    assert_false(capture_in_flight(b.cap));
    bed_sql(&b, "BEGIN");
    for (int i = 0; i < 50; i++)
        bed_sql(&b, "INSERT INTO t VALUES(NULL, randomblob(3000))");
    assert_true(capture_in_flight(b.cap));
    bed_sql(&b, "COMMIT");
    bed_sync(&b);
    bed_check(&b);
    bed_free(&b);
}

static void test_all_page_sizes_and_vacuums(void **state)
{
    (void)state;
    const char *const vacuum[] = {"none", "full", "incremental"};
    for (int size = 512, i = 0; size <= 65536; size *= 2, i++) {
        struct bed b;
        bed_new(&b, size, vacuum[i % 3]);
        bed_capture_open(&b);
        bed_sync(&b);
        bed_rows(&b, 200, 700);
        bed_sync(&b);
        bed_check(&b);
        bed_sql(&b, "DELETE FROM t WHERE id %% 3");
        bed_sql(&b, "PRAGMA incremental_vacuum(20)");
        bed_sync(&b);
        bed_check(&b);
        bed_sql(&b, "VACUUM");
        bed_sync(&b);
        bed_check(&b);
        bed_rows(&b, 100, 900);
        bed_sync(&b);
        bed_checkpoint(&b, true);
        bed_rows(&b, 3, 900);
        bed_sync(&b);
        assert_int_equal(b.last.why, CAPTURE_CONTINUED);
        bed_check(&b);
        bed_free(&b);
    }
}

/* After our checkpoint the application restarts the WAL, and we go on without comparing. */
static void test_restart_of_the_wal_is_followed(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    for (int i = 0; i < 100; i++) {
        bed_rows(&b, 20, 500);
        bed_sync(&b);
        assert_int_equal(b.last.why, CAPTURE_CONTINUED);
        bed_checkpoint(&b, false);
        bed_check(&b);
    }
    char wal[128];
    struct stat st;
    snprintf(wal, sizeof wal, "%s-wal", b.path);
    assert_int_equal(stat(wal, &st), 0);
    assert_true(st.st_size < 1 << 20); /* it did restart: 100 rounds would have made 2 MB */
    bed_free(&b);
}

/* The application's own checkpoints, in every mode, while we follow. */
static void test_application_checkpoints(void **state)
{
    (void)state;
    const char *const modes[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
    struct bed b;
    bed_new(&b, 1024, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    sqlite3_busy_timeout(b.app, 0);
    for (int i = 0; i < 80; i++) {
        bed_rows(&b, 1 + i % 7, 900);
        bed_sql(&b, "PRAGMA wal_checkpoint(%s)", modes[i % 4]);
        if (i % 3 == 0) bed_rows(&b, 2, 100);
        bed_sync(&b);
        assert_int_equal(b.last.why, CAPTURE_CONTINUED);
        if (i % 5 == 0) bed_checkpoint(&b, true);
        if (i % 10 == 3) bed_sql(&b, "PRAGMA wal_checkpoint(%s)", modes[i / 10 % 4]);
        bed_check(&b);
    }
    bed_free(&b);
}

/* What a follower would conclude that looks only at the frame it stopped at and at the salts on its
 * way (Litestream's algorithm): "continue, from the start of the
 * restarted WAL". Returns the pages it would take. */
static bool naive_continues(struct bed *b, const struct db_pos *saved)
{
    uint8_t raw[WAL_FRAME_HEADER_SIZE];
    struct wal_frame f;
    char wal[128];
    snprintf(wal, sizeof wal, "%s-wal", b->path);
    FILE *file = fopen(wal, "rb");
    assert_non_null(file);
    fseek(file, (long)wal_frame_off(saved->page_size, saved->wal_frame), SEEK_SET);
    size_t n = fread(raw, 1, sizeof raw, file);
    fclose(file);
    if (n != sizeof raw) return false;
    wal_frame_get(raw, &f);
    return f.salt1 == saved->wal_salt1 && f.salt2 == saved->wal_salt2;
}

/* Downtime in which the application appends, checkpoints everything, restarts the WAL and writes
 * fewer frames than we had captured: our last frame still stands there, untouched. */
static void test_restart_during_downtime_is_not_missed(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_sql(&b, "PRAGMA wal_autocheckpoint=0");
    bed_capture_open(&b);
    bed_rows(&b, 900, 3000);
    bed_sync(&b);
    struct db_pos saved = *state_pos(capture_state(b.cap));
    assert_true(saved.wal_frame > 800);
    bed_capture_close(&b);

    bed_rows(&b, 100, 3000);
    bed_sql(&b, "PRAGMA wal_checkpoint(FULL)");
    bed_rows(&b, 50, 3000);

    assert_true(naive_continues(&b, &saved)); /* the trap is set: this is what the naive one sees */
    bed_capture_open(&b);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_COMPARED);
    bed_check(&b);
    bed_free(&b);
}

/* Downtime without a restart of the WAL: only the new frames, no comparison. */
static void test_downtime_with_appends_continues(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    bed_rows(&b, 10, 3000);
    bed_sync(&b);
    bed_capture_close(&b);
    bed_rows(&b, 10, 3000);
    bed_capture_open(&b);
    bed_sync(&b);
    assert_true(b.last.staged);
    assert_int_equal(b.last.why, CAPTURE_CONTINUED);
    bed_check(&b);
    bed_free(&b);
}

static void shell(const char *fmt, const struct bed *b)
{
    char cmd[512];
    snprintf(cmd, sizeof cmd, "cd '%s' && (%s)", b->dir, fmt);
    assert_int_equal(system(cmd), 0);
}

/* Only while all that the WAL has is captured, and all that is captured is on its way no more. */
static void test_settled(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    assert_int_equal(capture_settled(b.path, b.meta), 0); /* never captured */
    bed_sql(&b, "PRAGMA wal_autocheckpoint=0");
    bed_rows(&b, 10, 3000);
    assert_int_equal(capture_settled(b.path, b.meta), 0);
    bed_capture_open(&b);
    bed_sync(&b);
    bed_capture_close(&b);
    uint64_t txid = b.applied_txid;
    assert_true(txid > 0);
    assert_int_equal(capture_settled(b.path, b.meta), txid);
    assert_int_equal(capture_settled("/nowhere/x", b.meta), 0);
    bed_sql(&b, "BEGIN; UPDATE t SET v=1; ROLLBACK"); /* in memory only */
    assert_int_equal(capture_settled(b.path, b.meta), txid);
    shell("cp app.db-wal keep", &b);
    static const char *const breaks[] = {
        "truncate -s -1 app.db-wal",
        "truncate -s 0 app.db-wal",
        "truncate -s 20 app.db-wal",
        "mv app.db-wal gone",
        "cat /dev/zero | head -c 32 | dd of=app.db-wal conv=notrunc 2>/dev/null",
    };
    for (size_t i = 0; i < sizeof breaks / sizeof breaks[0]; i++) {
        shell(breaks[i], &b);
        assert_int_equal(capture_settled(b.path, b.meta), 0);
        /* The application has this very file open. */
        shell("if [ -f gone ]; then mv gone app.db-wal; fi; cat keep >app.db-wal", &b);
        assert_int_equal(capture_settled(b.path, b.meta), txid);
    }
    bed_rows(&b, 1, 3000);
    assert_int_equal(capture_settled(b.path, b.meta), 0);
    bed_capture_open(&b);
    bed_sync(&b);
    bed_checkpoint(&b, true);
    bed_capture_close(&b);
    txid = b.applied_txid;
    assert_int_equal(capture_settled(b.path, b.meta), txid); /* checkpointed, not begun anew */
    bed_sql(&b, "UPDATE t SET v=zeroblob(10) WHERE id=1");   /* begins it anew */
    assert_int_equal(capture_settled(b.path, b.meta), 0);
    bed_capture_open(&b);
    bed_sync(&b);
    bed_capture_close(&b);
    assert_int_equal(capture_settled(b.path, b.meta), b.applied_txid);
    bed_app_close(&b); /* the last one deletes the WAL */
    assert_int_equal(capture_settled(b.path, b.meta), 0);
    bed_app_open(&b);
    bed_free(&b);
}

/* A power cut may take the tail of an unsynced WAL; then other commits take its place, in the same
 * generation. Same salts, same frame numbers, other contents. */
static void test_rewritten_tail_is_noticed(void **state)
{
    (void)state;
    struct bed b;
    char cmd[1024];
    bed_new(&b, 4096, "none");
    bed_sql(&b, "PRAGMA wal_autocheckpoint=0");
    bed_rows(&b, 5, 3000);
    snprintf(cmd, sizeof cmd, "cp %s %s/old.db; cp %s-wal %s/old.db-wal", b.path, b.dir, b.path,
             b.dir);
    assert_int_equal(system(cmd), 0);
    bed_rows(&b, 20, 3000);
    bed_capture_open(&b);
    bed_sync(&b);
    bed_capture_close(&b);
    sqlite3_db_config(b.app, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    bed_app_close(&b);
    snprintf(cmd, sizeof cmd,
             "cd %s && rm -f app.db-shm && cat old.db > app.db && "
             "cat old.db-wal > app.db-wal",
             b.dir);
    assert_int_equal(system(cmd), 0);
    bed_app_open(&b);
    bed_sql(&b, "PRAGMA wal_autocheckpoint=0");
    for (int i = 0; i < 40; i++)
        bed_rows(&b, 1, 3000);
    assert_int_equal(capture_settled(b.path, b.meta), 0);
    bed_capture_open(&b);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_COMPARED);
    bed_check(&b);
    bed_free(&b);
}

/* The last connection deletes the WAL; what was changed meanwhile is found, and only that. */
static void test_downtime_with_close_emits_only_changes(void **state)
{
    (void)state;
    struct bed b;
    bed_start(&b, 2000, 2000);
    bed_capture_close(&b);
    bed_sql(&b, "UPDATE t SET v=zeroblob(2000) WHERE id=77");
    bed_app_close(&b);
    bed_app_open(&b);
    bed_capture_open(&b);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_COMPARED);
    assert_true(b.last.pages > 0 && b.last.pages < 5);
    bed_check(&b);
    bed_capture_close(&b);
    bed_app_close(&b);
    bed_app_open(&b);
    bed_capture_open(&b);
    bed_sync(&b);
    assert_false(b.last.staged); /* nothing changed: no batch */
    bed_check(&b);
    bed_free(&b);
}

static void test_two_daemons_are_refused(void **state)
{
    (void)state;
    struct bed b;
    struct capture *second = NULL;
    struct err err;
    const struct capture_opts opts = {.busy_timeout_ms = 100};
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    assert_int_equal(capture_open(b.path, b.meta, &opts, &second, &err), RC_FENCED);
    assert_non_null(strstr(err.text, "another sluice process"));
    bed_free(&b);
}

static void test_long_reader_does_not_stop_capture(void **state)
{
    (void)state;
    struct bed b;
    sqlite3 *reader;
    bed_new(&b, 4096, "none");
    bed_capture_open(&b);
    bed_sync(&b);
    assert_int_equal(sqlite3_open(b.path, &reader), SQLITE_OK);
    bed_rows(&b, 10, 500);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT * FROM t", 0, 0, 0), SQLITE_OK);
    for (int i = 0; i < 30; i++) {
        bed_rows(&b, 30, 500);
        bed_sync(&b);
        assert_int_equal(b.last.why, CAPTURE_CONTINUED);
        bed_checkpoint(&b, false);
        bed_check(&b);
    }
    assert_int_equal(sqlite3_close(reader), SQLITE_OK);
    bed_rows(&b, 60, 500);
    bed_sync(&b);
    bed_checkpoint(&b, true);
    bed_rows(&b, 1, 500);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_CONTINUED);
    bed_check(&b);
    bed_free(&b);
}

static void test_rollback_journal_database_is_switched(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b, 4096, "none");
    bed_sql(&b, "PRAGMA journal_mode=delete");
    bed_rows(&b, 10, 100);
    bed_capture_open(&b);
    bed_sync(&b);
    assert_true(b.last.switched);
    bed_rows(&b, 10, 100);
    bed_sync(&b);
    assert_false(b.last.switched);
    bed_check(&b);
    bed_free(&b);
}

static void test_exclusive_locking_mode_is_explained(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    bed_new(&b, 4096, "none");
    bed_sql(&b, "PRAGMA locking_mode=EXCLUSIVE");
    bed_rows(&b, 1, 100);
    bed_capture_open(&b);
    assert_int_equal(capture_sync(b.cap, b.scratch, &b.last, &err), RC_BUSY);
    assert_non_null(strstr(err.text, "locking_mode=EXCLUSIVE"));
    bed_sql(&b, "PRAGMA locking_mode=NORMAL");
    bed_rows(&b, 1, 100);
    bed_sync(&b);
    bed_check(&b);
    bed_free(&b);
}

static void test_replaced_database_is_noticed(void **state)
{
    (void)state;
    struct bed b;
    char cmd[512];
    struct err err;
    bed_start(&b, 50, 1000);
    bed_app_close(&b);
    snprintf(cmd, sizeof cmd, "rm -f %s %s-wal %s-shm", b.path, b.path, b.path);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(capture_sync(b.cap, b.scratch, &b.last, &err), RC_REPLACED);
    assert_int_equal(capture_sync(b.cap, b.scratch, &b.last, &err), RC_NOT_FOUND);
    bed_app_open(&b);
    bed_sql(&b, "PRAGMA journal_mode=wal");
    bed_sql(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
    bed_rows(&b, 3, 100);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_COMPARED);
    bed_check(&b);
    bed_free(&b);
}

static void test_changed_page_size_starts_with_a_snapshot(void **state)
{
    (void)state;
    struct bed b;
    char snapshot[OS_PATH_MAX];
    struct stat st;
    bed_start(&b, 50, 1000);
    bed_capture_close(&b);
    bed_sql(&b, "PRAGMA journal_mode=delete");
    bed_sql(&b, "PRAGMA page_size=8192");
    bed_sql(&b, "VACUUM");
    bed_sql(&b, "PRAGMA journal_mode=wal");
    bed_capture_open(&b);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_FIRST);
    assert_true(b.last.snapshot);
    state_snapshot_path(capture_state(b.cap), snapshot);
    assert_int_equal(stat(snapshot, &st), 0);
    bed_check(&b);
    bed_free(&b);
}

/* On a new machine, after a restore: the local state is missing, but the database is the log's. */
static void test_restored_database_is_adopted(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    char cmd[512];
    bed_start(&b, 500, 2000);
    struct db_pos pos = *state_pos(capture_state(b.cap));
    bed_capture_close(&b);
    snprintf(cmd, sizeof cmd, "rm -rf %s", b.meta);
    assert_int_equal(system(cmd), 0);
    bed_capture_open(&b);
    assert_int_equal(capture_restart_at(b.cap, pos.txid, &err), RC_OK);
    capture_expect(b.cap, pos.digest, pos.timestamp_ms);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_ADOPTED);
    assert_false(b.last.staged);
    bed_check(&b);
    bed_rows(&b, 1, 100);
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_CONTINUED);
    assert_int_equal(b.last.txid, pos.txid + 1);
    assert_true(b.last.pages < 10);
    bed_check(&b);
    /* And one that is not: a whole batch, as ever. */
    assert_int_equal(capture_restart_at(b.cap, 7, &err), RC_OK);
    capture_expect(b.cap, pos.digest, pos.timestamp_ms);
    b.applied_txid = 7;
    bed_sync(&b);
    assert_int_equal(b.last.why, CAPTURE_FIRST);
    assert_int_equal(b.last.txid, 8);
    bed_check(&b);
    bed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follows_commits),
        cmocka_unit_test(test_frames_in_flight_are_seen),
        cmocka_unit_test(test_all_page_sizes_and_vacuums),
        cmocka_unit_test(test_restart_of_the_wal_is_followed),
        cmocka_unit_test(test_application_checkpoints),
        cmocka_unit_test(test_restart_during_downtime_is_not_missed),
        cmocka_unit_test(test_downtime_with_appends_continues),
        cmocka_unit_test(test_settled),
        cmocka_unit_test(test_rewritten_tail_is_noticed),
        cmocka_unit_test(test_downtime_with_close_emits_only_changes),
        cmocka_unit_test(test_two_daemons_are_refused),
        cmocka_unit_test(test_long_reader_does_not_stop_capture),
        cmocka_unit_test(test_rollback_journal_database_is_switched),
        cmocka_unit_test(test_exclusive_locking_mode_is_explained),
        cmocka_unit_test(test_replaced_database_is_noticed),
        cmocka_unit_test(test_changed_page_size_starts_with_a_snapshot),
        cmocka_unit_test(test_restored_database_is_adopted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
