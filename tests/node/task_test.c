/*
 * task_test.c -- one database's task, without pools: what gets into the store, once, whatever the
 * store, the local state and others do. Each test runs over a file and a memory store.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "fmt/ltx.h"
#include "node/bed.h"
#include "node/wait.h"

#define SETUP_SQL                                                                                  \
    "PRAGMA page_size=1024; PRAGMA journal_mode=wal;"                                              \
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)"

static enum bed_kind kind_of(void **arg)
{
    return *(const enum bed_kind *)*arg;
}

static void start(struct bed *b, void **arg)
{
    bed_new(b, kind_of(arg), "");
    bed_app_open(b, SETUP_SQL);
    bed_rows(b, 3);
}

static void free_bytes(struct bytes *x)
{
    free(x->data);
    *x = (struct bytes){0};
}

static void same_bytes(const struct bytes *x, const struct bytes *y)
{
    assert_int_equal(x->size, y->size);
    assert_memory_equal(x->data, y->data, x->size);
}

static struct ltx_header header_of(struct bed *b, uint64_t txid)
{
    struct bytes obj;
    struct ltx_header h;
    struct err err;
    bed_object(b, 0, txid, txid, &obj);
    assert_true(obj.size > LTX_HEADER_SIZE);
    assert_int_equal(ltx_header_get(obj.data, &h, &err), RC_OK);
    free_bytes(&obj);
    return h;
}

static void remove_state(struct bed *b)
{
    char cmd[256];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", b->meta);
    assert_int_equal(system(cmd), 0);
}

static void test_normal(void **arg)
{
    struct bed b;
    uint64_t first, last;
    start(&b, arg);
    for (uint64_t txid = 1; txid <= 40; txid++) {
        bed_once_ok(&b);
        assert_int_equal(bed_newest(&b), txid);
        bed_rows(&b, 1 + (int)txid % 3);
    }
    bed_once_ok(&b);
    bed_check_restore(&b);
    unsigned puts = atomic_load(&spy.puts), lists = atomic_load(&spy.lists);
    for (int i = 0; i < 5; i++) /* nothing new: no request at all */
        bed_once_ok(&b);
    assert_int_equal(atomic_load(&spy.puts), puts);
    assert_int_equal(atomic_load(&spy.lists), lists);
    assert_int_equal(bed_newest(&b), 41);

    /* What the store has need not stay here; after an orderly end, nothing does. */
    bed_task_close(&b);
    bed_once_ok(&b);
    size_t left = bed_staged(&b, &first, &last);
    if (left > 1) fail_msg("%zu batches are still staged", left);
    assert_int_equal(bed_newest(&b), 41);
    bed_rows(&b, 2);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 42);
    bed_check_restore(&b);
    bed_free(&b);
}

/* Several batches wait; then the store works again. */
static void wait_and_upload(void **arg, enum spy_mode mode, bool reopen)
{
    enum { COUNT = 6 };
    struct bed b;
    struct bytes staged[COUNT], stored;
    struct err err;
    start(&b, arg);
    bed_once_ok(&b);
    unsigned puts = atomic_load(&spy.puts);
    atomic_store(&spy.mode, mode);
    for (int i = 0; i < COUNT; i++) {
        bed_rows(&b, 2);
        assert_int_equal(bed_once(&b, false, &err), RC_AGAIN);
        bed_staged_bytes(&b, 2 + (uint64_t)i, &staged[i]);
    }
    if (reopen) bed_task_close(&b);
    atomic_store(&spy.mode, SPY_PASS);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 1 + COUNT);
    assert_int_equal(atomic_load(&spy.puts) - puts, COUNT); /* no object was written twice */
    for (int i = 0; i < COUNT; i++) {
        bed_object(&b, 0, 2 + (uint64_t)i, 2 + (uint64_t)i, &stored);
        same_bytes(&staged[i], &stored);
        free_bytes(&staged[i]);
        free_bytes(&stored);
    }
    bed_check_restore(&b);
    bed_free(&b);
}

static void test_refused(void **arg)
{
    wait_and_upload(arg, SPY_REFUSE_PUT, false);
}

static void test_refused_and_restarted(void **arg)
{
    wait_and_upload(arg, SPY_REFUSE_PUT, true);
}

static void test_lost_answers(void **arg)
{
    wait_and_upload(arg, SPY_LOSE_PUT, false);
}

static void test_lost_answers_and_restarted(void **arg)
{
    wait_and_upload(arg, SPY_LOSE_PUT, true);
}

/* The first upload of all: its answer is lost, and so are all others until a restart. */
static void test_store_away(void **arg)
{
    struct bed b;
    struct err err;
    start(&b, arg);
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    assert_int_equal(bed_once(&b, false, &err), RC_AGAIN);
    bed_rows(&b, 2);
    assert_int_equal(bed_once(&b, false, &err), RC_AGAIN);
    atomic_store(&spy.mode, SPY_PASS);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 1);
    bed_check_restore(&b);
    bed_free(&b);
}

static void test_no_arbiter(void **arg)
{
    struct bed b;
    struct err err;
    bed_new(&b, kind_of(arg), "");
    bed_app_open(&b, SETUP_SQL);
    spy.no_create = true;
    for (int i = 0; i < 3; i++) {
        bed_rows(&b, 1);
        bed_once_ok(&b);
    }
    atomic_store(&spy.mode, SPY_LOSE_PUT);
    bed_rows(&b, 1);
    assert_int_equal(bed_once(&b, false, &err), RC_AGAIN);
    atomic_store(&spy.mode, SPY_PASS);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 4);
    bed_check_restore(&b);
    bed_free(&b);
}

static void put_foreign(struct bed *b, uint64_t txid, const char *text)
{
    struct store_bytes x;
    struct store_body body = store_body_bytes(&x, text, strlen(text));
    char key[STORE_KEY_MAX + 1];
    struct log lg = {.store = b->peek};
    struct err err;
    log_key(&lg, 0, txid, txid, key);
    assert_int_equal(store_put(b->peek, NULL, key, &body, NULL, NULL, &err), RC_OK);
}

static void test_fenced(void **arg)
{
    static const char text[] = "somebody else's transaction, not LTX at all: it must stay as it is";
    struct bed b;
    struct bytes stored;
    struct err err;
    start(&b, arg);
    bed_once_ok(&b);
    put_foreign(&b, 2, text);
    for (int i = 0; i < 3; i++) {
        bed_rows(&b, 1);
        assert_int_equal(bed_once(&b, false, &err), RC_FENCED);
        assert_non_null(strstr(err.text, "0000000000000002"));
    }
    bed_object(&b, 0, 2, 2, &stored);
    assert_int_equal(stored.size, strlen(text));
    assert_memory_equal(stored.data, text, stored.size);
    free_bytes(&stored);
    assert_int_equal(bed_newest(&b), 2); /* nothing was put after it, either */
    bed_free(&b);
}

/* Two tasks with a state each, on one replica: the one that comes second is refused; started anew,
 * it follows, with a whole database. */
static void test_second_writer(void **arg)
{
    struct bed b;
    char other_meta[160];
    struct err err;
    start(&b, arg);
    bed_once_ok(&b);
    struct task *mine = b.task;
    struct config *my_cfg = b.cfg;
    b.task = NULL, b.cfg = NULL;
    snprintf(other_meta, sizeof other_meta, "    meta-path: %s/other\n", b.dir);
    bed_config(&b, other_meta);
    bed_rows(&b, 1);
    bed_once_ok(&b); /* no state: the whole database, as 2 */
    assert_int_equal(bed_newest(&b), 2);
    struct task *other = b.task;
    struct config *other_cfg = b.cfg;
    bed_rows(&b, 1);
    assert_int_equal(task_once(mine, b.scratch, NULL, false, &err), RC_FENCED);
    assert_int_equal(bed_newest(&b), 2);
    assert_int_equal(task_once(other, b.scratch, NULL, false, &err), RC_OK);
    assert_int_equal(bed_newest(&b), 3);
    bed_check_restore(&b);

    task_free(mine);
    b.task = NULL, b.cfg = my_cfg;
    bed_rows(&b, 1);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 4);
    bed_check_restore(&b);
    bed_rows(&b, 1);
    assert_int_equal(task_once(other, b.scratch, NULL, false, &err), RC_FENCED);
    task_free(other);
    config_free(other_cfg);
    bed_free(&b);
}

static void test_locked_state(void **arg)
{
    struct bed b;
    struct task *second = NULL;
    struct err err;
    start(&b, arg);
    bed_once_ok(&b);
    assert_int_equal(task_new(b.cfg, &b.cfg->dbs[0], NULL, &second, &err), RC_FENCED);
    assert_null(second);
    assert_non_null(strstr(err.text, b.path));
    bed_free(&b);
}

static void test_state_deleted(void **arg)
{
    struct bed b;
    start(&b, arg);
    for (int i = 0; i < 3; i++) {
        bed_rows(&b, 2);
        bed_once_ok(&b);
    }
    bed_task_close(&b);
    remove_state(&b);
    bed_rows(&b, 2); /* and the application goes on */
    bed_sql(&b, "UPDATE t SET v=zeroblob(100) WHERE id=1");
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 4);
    struct bytes whole;
    bed_object(&b, 0, 4, 4, &whole);
    assert_true(whole.size > 1024);
    free_bytes(&whole);
    bed_check_restore(&b);
    bed_rows(&b, 2);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 5);
    bed_check_restore(&b);

    bed_free(&b);
}

/* A restored database needs no upload: its digest says that it is where the log ends. */
static void test_adopted(void **arg)
{
    struct bed b;
    start(&b, arg);
    bed_once_ok(&b);
    struct ltx_header before = header_of(&b, 1);
    bed_task_close(&b);
    remove_state(&b);
    unsigned puts = atomic_load(&spy.puts);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 1);
    assert_int_equal(atomic_load(&spy.puts), puts);
    bed_rows(&b, 1);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 2);
    assert_false(digest_equal(before.digest, header_of(&b, 2).digest));
    bed_check_restore(&b);
    bed_free(&b);
}

static void test_replica_deleted(void **arg)
{
    struct bed b;
    start(&b, arg);
    for (int i = 0; i < 4; i++) {
        bed_rows(&b, 1);
        bed_once_ok(&b);
    }
    bed_task_close(&b);
    bed_delete_objects(&b, 0);
    assert_int_equal(bed_newest(&b), 0);
    bed_once_ok(&b); /* without a change in the database */
    assert_true(bed_newest(&b) > 0);
    bed_check_restore(&b);
    bed_rows(&b, 1);
    bed_once_ok(&b);
    bed_check_restore(&b);
    bed_free(&b);
}

/* The replica was put back to an older state: its last objects are gone. */
static void test_replica_older(void **arg)
{
    for (uint64_t keep = 1; keep <= 5; keep += 2) {
        struct bed b;
        start(&b, arg);
        for (int i = 0; i < 6; i++) {
            bed_rows(&b, 1);
            bed_once_ok(&b);
        }
        bed_task_close(&b);
        bed_delete_objects(&b, keep);
        assert_int_equal(bed_newest(&b), keep);
        bed_once_ok(&b);
        assert_true(bed_newest(&b) > keep);
        bed_check_restore(&b);
        bed_rows(&b, 1);
        bed_once_ok(&b);
        bed_check_restore(&b);
        bed_free(&b);
    }
}

/* The replica holds the log of another database. */
static void other_database(void **arg, const char *other_sql, bool lose_state)
{
    struct bed b;
    bed_new(&b, kind_of(arg), "");
    bed_app_open(&b, other_sql);
    bed_rows(&b, 20);
    bed_once_ok(&b);
    bed_rows(&b, 1);
    bed_once_ok(&b);
    bed_check_restore(&b);
    bed_task_close(&b);
    bed_app_close(&b);
    bed_delete_db(&b);
    if (lose_state) remove_state(&b);
    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 3);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 3);
    bed_check_restore(&b);
    bed_rows(&b, 1);
    bed_once_ok(&b);
    bed_check_restore(&b);
    bed_task_close(&b); /* and it stays so after a restart */
    bed_rows(&b, 1);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 5);
    bed_check_restore(&b);
    bed_free(&b);
}

static void test_other_database(void **arg)
{
    other_database(arg, "PRAGMA page_size=1024; PRAGMA journal_mode=wal; CREATE TABLE t(v)", true);
}

static void test_other_database_same_state(void **arg)
{
    other_database(arg, "PRAGMA page_size=1024; PRAGMA journal_mode=wal; CREATE TABLE t(v)", false);
}

static void test_other_page_size(void **arg)
{
    other_database(arg, "PRAGMA page_size=4096; PRAGMA journal_mode=wal; CREATE TABLE t(v)", true);
}

static void test_other_page_size_same_state(void **arg)
{
    other_database(arg, "PRAGMA page_size=512; PRAGMA journal_mode=wal; CREATE TABLE t(v)", false);
}

static void test_snapshot(void **arg)
{
    struct bed b;
    struct err err;
    char path[192];
    struct stat st;
    start(&b, arg);
    bed_once_ok(&b);
    bed_rows(&b, 2);
    assert_int_equal(bed_once(&b, true, &err), RC_OK); /* with news */
    assert_int_equal(bed_count_level(&b, 9), 1);
    assert_int_equal(bed_newest(&b), 2);
    bed_rows(&b, 2);
    bed_once_ok(&b);
    assert_int_equal(bed_count_level(&b, 9), 1);

    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    bed_rows(&b, 2);
    assert_int_equal(bed_once(&b, true, &err), RC_AGAIN);
    assert_int_equal(bed_count_level(&b, 9), 1);
    snprintf(path, sizeof path, "%s/snapshot.ltx", b.meta);
    assert_int_equal(stat(path, &st), 0);
    bed_task_close(&b); /* as a crash leaves it */
    atomic_store(&spy.mode, SPY_PASS);
    bed_once_ok(&b);
    assert_int_equal(bed_count_level(&b, 9), 2);
    assert_int_equal(bed_newest(&b), 4);
    assert_int_not_equal(stat(path, &st), 0);
    bed_check_restore(&b);
    bed_free(&b);
}

/* A full backup is wanted although nothing has changed since the last transaction. */
static void test_snapshot_without_news(void **arg)
{
    struct bed b;
    struct err err;
    start(&b, arg);
    bed_once_ok(&b);
    for (int reopen = 0; reopen < 2; reopen++) {
        if (reopen) bed_task_close(&b);
        if (bed_once(&b, true, &err) != RC_OK) fail_msg("%s", err.text);
        assert_int_equal(bed_count_level(&b, 9), 1); /* the same one twice is one object */
        assert_int_equal(bed_newest(&b), 1);
        bed_check_restore(&b);
    }
    bed_free(&b);
}

static void test_no_database(void **arg)
{
    struct bed b;
    struct err err;
    bed_new(&b, kind_of(arg), "");
    assert_int_equal(bed_once(&b, false, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, b.path));
    assert_int_equal(bed_newest(&b), 0);
    bed_app_open(&b, SETUP_SQL);
    bed_once_ok(&b);
    bed_check_restore(&b);

    /* Deleted with batches that wait: those are not forgotten. */
    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    bed_rows(&b, 1);
    assert_int_equal(bed_once(&b, false, &err), RC_AGAIN);
    bed_app_close(&b);
    bed_delete_db(&b);
    assert_int_not_equal(bed_once(&b, false, &err), RC_OK);
    atomic_store(&spy.mode, SPY_PASS);
    assert_int_not_equal(bed_once(&b, false, &err), RC_OK); /* it says that there is none */
    assert_int_equal(bed_newest(&b), 2);                    /* but uploads what it had */

    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 5);
    bed_once_ok(&b);
    assert_int_equal(bed_newest(&b), 3);
    bed_check_restore(&b);
    bed_free(&b);
}

int main(void)
{
    static enum bed_kind file = BED_FILE, mem = BED_MEM;
#define BOTH(f)                                                                                    \
    {#f " (file)", f, NULL, NULL, &file},                                                          \
    {                                                                                              \
#f " (mem)", f, NULL, NULL, &mem                                                           \
    }
    const struct CMUnitTest tests[] = {
        BOTH(test_normal),
        BOTH(test_refused),
        BOTH(test_refused_and_restarted),
        BOTH(test_lost_answers),
        BOTH(test_lost_answers_and_restarted),
        BOTH(test_store_away),
        BOTH(test_no_arbiter),
        BOTH(test_fenced),
        BOTH(test_second_writer),
        BOTH(test_locked_state),
        BOTH(test_state_deleted),
        BOTH(test_adopted),
        BOTH(test_replica_deleted),
        BOTH(test_replica_older),
        BOTH(test_other_database),
        BOTH(test_other_database_same_state),
        BOTH(test_other_page_size),
        BOTH(test_other_page_size_same_state),
        BOTH(test_snapshot),
        BOTH(test_snapshot_without_news),
        BOTH(test_no_database),
    };
    return cmocka_run_group_tests_name("node/task", tests, NULL, NULL);
}
