/*
 * task_pools_sweep_test.c -- a task with its threads and its bell: databases that come, go and are
 * replaced, sleep, and a store that fails for a while.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "fmt/ltx.h"
#include "node/bed.h"
#include "node/wait.h"

#define SETUP_SQL                                                                                  \
    "PRAGMA page_size=1024; PRAGMA journal_mode=wal;"                                              \
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)"
/* So long that a poll cannot be what found something. */
#define NO_POLL       "    monitor-interval: 1h\n    checkpoint-interval: 0s\n"
#define LET_GO        "    monitor-interval: 1h\n    checkpoint-interval: 50ms\n"
#define SLEEP_SOON_MS 60

static enum bed_kind kind_of(void **arg)
{
    return *(const enum bed_kind *)*arg;
}

/* The replica gives back what the application has now. */
static void wait_restored(struct bed *b)
{
    int64_t end = os_mono_ms() + WAIT_MS;
    while (!bed_restore_is_current(b)) {
        if (os_mono_ms() > end) bed_check_restore(b); /* says what is wrong */
        os_sleep_ms(20);
    }
}

static void move(const char *from, const char *to)
{
    assert_int_equal(rename(from, to), 0);
}

static void drop_wal(struct bed *b)
{
    char cmd[256];
    snprintf(cmd, sizeof cmd, "rm -f '%s-wal' '%s-shm'", b->path, b->path);
    assert_int_equal(system(cmd), 0);
}

static void test_normal(void **arg)
{
    struct bed b;
    bed_new(&b, kind_of(arg), NO_POLL);
    bed_app_open(&b, SETUP_SQL);
    bed_pools_start(&b, 0);
    wait_restored(&b);
    for (int i = 0; i < 5; i++) {
        uint64_t before = bed_newest(&b);
        bed_rows(&b, 1);
        WAIT_FOR(bed_newest(&b) > before); /* the bell rang */
    }
    for (int i = 0; i < 20; i++) { /* faster than an upload */
        bed_rows(&b, 5);
        os_sleep_ms(2);
    }
    wait_restored(&b);
    unsigned lists = atomic_load(&spy.lists), calls = atomic_load(&spy.calls);
    os_sleep_ms(100);
    assert_int_equal(atomic_load(&spy.lists), lists); /* an idle database asks for nothing */
    assert_int_equal(atomic_load(&spy.calls), calls);
    bed_pools_stop(&b);
    bed_check_restore(&b);
    bed_free(&b);
}

static void store_fails(void **arg, enum spy_mode mode)
{
    struct bed b;
    bed_new(&b, kind_of(arg), NO_POLL);
    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 1);
    bed_pools_start(&b, 0);
    wait_restored(&b);
    uint64_t before = bed_newest(&b);
    unsigned calls = atomic_load(&spy.calls), puts = atomic_load(&spy.puts);
    atomic_store(&spy.mode, mode);
    bed_rows(&b, 3);
    WAIT_FOR(atomic_load(&spy.calls) > calls);
    bed_rows(&b, 3);
    os_sleep_ms(50);
    assert_true(atomic_load(&spy.calls) < calls + 10); /* it backs off */
    atomic_store(&spy.mode, SPY_PASS);
    wait_restored(&b);
    bed_pools_stop(&b);
    assert_int_equal(atomic_load(&spy.puts) - puts, bed_newest(&b) - before);
    bed_free(&b);
}

static void test_store_refuses(void **arg)
{
    store_fails(arg, SPY_REFUSE_PUT);
}

static void test_store_loses(void **arg)
{
    store_fails(arg, SPY_LOSE_PUT);
}

/* Started while the store is away, with batches that wait. */
static void test_start_without_store(void **arg)
{
    struct bed b;
    struct err err;
    bed_new(&b, kind_of(arg), NO_POLL);
    bed_app_open(&b, SETUP_SQL);
    bed_once_ok(&b);
    bed_rows(&b, 2);
    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    assert_int_equal(bed_once(&b, false, &err), RC_AGAIN);
    bed_task_close(&b);
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    unsigned calls = atomic_load(&spy.calls);
    int64_t start = os_mono_ms();
    bed_pools_start(&b, SLEEP_SOON_MS);
    WAIT_FOR(atomic_load(&spy.calls) > calls);
    os_sleep_ms(400);
    calls = atomic_load(&spy.calls) - calls;
    int64_t took = os_mono_ms() - start;
    print_message("calls to a store that is away: %u in %d ms\n", calls, (int)took);
    assert_in_range(calls, 1, 3 + took / 1000); /* it backs off */
    atomic_store(&spy.mode, SPY_PASS);
    WAIT_FOR(bed_newest(&b) >= 2); /* nobody writes, and still it goes on */
    wait_restored(&b);
    bed_pools_stop(&b);
    bed_free(&b);
}

static void test_fenced(void **arg)
{
    static const char text[] = "somebody else's";
    struct bed b;
    struct store_bytes x;
    struct store_body body = store_body_bytes(&x, text, sizeof text);
    char key[STORE_KEY_MAX + 1];
    struct bytes now;
    struct err err;
    bed_new(&b, kind_of(arg), NO_POLL);
    bed_app_open(&b, SETUP_SQL);
    bed_pools_start(&b, 0);
    wait_restored(&b);
    uint64_t next = bed_newest(&b) + 1;
    log_key(&(struct log){.store = b.peek}, 0, next, next, key);
    assert_int_equal(store_put(b.peek, NULL, key, &body, NULL, NULL, &err), RC_OK);
    unsigned calls = atomic_load(&spy.calls);
    bed_rows(&b, 5);
    WAIT_FOR(atomic_load(&spy.calls) > calls);
    bed_rows(&b, 5);
    os_sleep_ms(50);
    bed_pools_stop(&b);
    bed_object(&b, 0, next, next, &now);
    assert_int_equal(now.size, sizeof text);
    assert_memory_equal(now.data, text, sizeof text);
    free(now.data);
    assert_int_equal(bed_newest(&b), next);
    bed_free(&b);
}

static void test_comes_later(void **arg)
{
    struct bed b;
    char path[96], ready[128];
    bed_new(&b, kind_of(arg), NO_POLL);
    memcpy(path, b.path, sizeof path);
    snprintf(ready, sizeof ready, "%s.ready", path);
    memcpy(b.path, ready, sizeof b.path);
    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 3);
    bed_app_close(&b);
    memcpy(b.path, path, sizeof path);

    bed_pools_start(&b, SLEEP_SOON_MS);
    os_sleep_ms(100);
    assert_int_equal(bed_newest(&b), 0);
    move(ready, b.path); /* whole, with one event */
    WAIT_FOR(bed_newest(&b) > 0);
    wait_restored(&b);
    bed_app_open(&b, NULL);
    bed_rows(&b, 1);
    wait_restored(&b);
    bed_pools_stop(&b);
    bed_free(&b);
}

/* As an application makes it: an empty file, then WAL mode, then tables, with pauses. */
static void test_grows_up(void **arg)
{
    struct bed b;
    bed_new(&b, kind_of(arg), "    monitor-interval: 50ms\n");
    bed_pools_start(&b, 0);
    os_sleep_ms(50);
    FILE *f = fopen(b.path, "w");
    assert_non_null(f);
    fclose(f);
    os_sleep_ms(600);
    bed_app_open(&b, "PRAGMA journal_mode=wal");
    os_sleep_ms(300);
    bed_sql(&b, "CREATE TABLE t(v)");
    bed_rows(&b, 1);
    int64_t start = os_mono_ms();
    WAIT_FOR(bed_newest(&b) > 0);
    int64_t took = os_mono_ms() - start;
    print_message("replicated %d ms after the first table\n", (int)took);
    assert_true(took < 5000);
    wait_restored(&b);
    bed_pools_stop(&b);
    bed_free(&b);
}

static void test_goes_and_comes(void **arg)
{
    struct bed b;
    bed_new(&b, kind_of(arg), "    monitor-interval: 50ms\n");
    bed_pools_start(&b, 0);
    for (int round = 0; round < 3; round++) {
        uint64_t before = bed_newest(&b);
        bed_app_open(&b, SETUP_SQL);
        bed_rows(&b, 3 + round);
        WAIT_FOR(bed_newest(&b) > before);
        wait_restored(&b);
        bed_app_close(&b);
        bed_delete_db(&b);
        if (round == 1) continue; /* at once: the new file may be there before anybody looks */
        WAIT_FOR(bed_open_fds(&b) == 0);
    }
    bed_pools_stop(&b);
    bed_free(&b);
}

/* Deployments that put a new file in the place of the old one. */
static void test_replaced(void **arg)
{
    struct bed b;
    char path[96], ready[128], old[128];
    bed_new(&b, kind_of(arg), NO_POLL);
    memcpy(path, b.path, sizeof path);
    snprintf(ready, sizeof ready, "%s.ready", path);
    snprintf(old, sizeof old, "%s/old", b.dir);
    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 2);
    bed_app_close(&b);
    bed_config(&b, "    monitor-interval: 100ms\n");
    bed_pools_start(&b, 0);
    wait_restored(&b);
    for (int i = 0; i < 4; i++) {
        memcpy(b.path, ready, sizeof b.path);
        bed_app_open(&b, SETUP_SQL);
        bed_rows(&b, 4 + i);
        bed_app_close(&b);
        memcpy(b.path, path, sizeof path);
        drop_wal(&b);     /* or the new file would be read with the WAL of the old one */
        if (i % 2 == 1) { /* with a moment in which there is none */
            move(path, old);
            os_sleep_ms(i == 1 ? 0 : 200);
        }
        move(ready, path);
        wait_restored(&b);
        bed_app_open(&b, NULL);
        bed_rows(&b, 1);
        wait_restored(&b);
        bed_app_close(&b);
    }
    bed_pools_stop(&b);
    bed_free(&b);
}

static void test_sleep(void **arg)
{
    struct bed b;
    bed_new(&b, kind_of(arg), LET_GO);
    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 3);
    bed_pools_start(&b, SLEEP_SOON_MS);
    wait_restored(&b);
    for (int i = 0; i < 3; i++) {
        WAIT_FOR(bed_asleep(&b));
        os_sleep_ms(30);
        assert_true(bed_asleep(&b)); /* and stays so */
        uint64_t before = bed_newest(&b);
        bed_rows(&b, 1);
        WAIT_FOR(bed_newest(&b) > before);
        wait_restored(&b);
    }
    WAIT_FOR(bed_asleep(&b));
    bed_app_close(&b); /* the WAL goes: a ring without news */
    os_sleep_ms(30);
    bed_app_open(&b, NULL);
    bed_rows(&b, 2);
    wait_restored(&b);

    WAIT_FOR(bed_asleep(&b)); /* asleep, it sees that, too */
    assert_int_equal(unlink(b.path), 0);
    drop_wal(&b);
    bed_app_close(&b);
    os_sleep_ms(50);
    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 7);
    wait_restored(&b);
    bed_pools_stop(&b);
    bed_free(&b);
}

static void test_trim_after_sleep(void **arg)
{
    struct bed b;
    bed_new(&b, kind_of(arg), LET_GO);
    bed_app_open(&b, SETUP_SQL);
    bed_pools_start(&b, SLEEP_SOON_MS);
    WAIT_FOR(atomic_load(&b.trims) == 1);
    bed_pools_stop(&b);
    bed_free(&b);
}

/* A final task_once after the pools have stopped takes what came last, asleep or not. */
static void test_last_sync(void **arg)
{
    for (int asleep = 0; asleep < 2; asleep++) {
        struct bed b;
        struct err err = {0};
        bed_new(&b, kind_of(arg), LET_GO);
        bed_app_open(&b, SETUP_SQL);
        bed_pools_start(&b, asleep ? SLEEP_SOON_MS : 0);
        wait_restored(&b);
        if (asleep) WAIT_FOR(bed_asleep(&b));
        sched_stop(b.pools.capture);
        sched_stop(b.pools.upload);
        bed_rows(&b, 5);
        bell_free(b.pools.bell);
        b.pools.bell = NULL;
        if (task_once(b.task, b.scratch, NULL, false, &err) != RC_OK) fail_msg("%s", err.text);
        bed_check_restore(&b);
        bed_pools_stop(&b);
        bed_free(&b);
    }
}

int main(void)
{
    static enum bed_kind file = BED_FILE, mem = BED_MEM;
    const struct CMUnitTest tests[] = {
        ON(test_normal, file),
        ON(test_normal, mem),
        ON(test_store_refuses, file),
        ON(test_store_refuses, mem),
        ON(test_store_loses, file),
        ON(test_store_loses, mem),
        ON(test_start_without_store, mem),
        ON(test_fenced, file),
        ON(test_fenced, mem),
        ON(test_comes_later, mem),
        ON(test_grows_up, mem),
        ON(test_goes_and_comes, file),
        ON(test_goes_and_comes, mem),
        ON(test_replaced, mem),
        ON(test_sleep, file),
        ON(test_sleep, mem),
        ON(test_trim_after_sleep, mem),
        ON(test_last_sync, mem),
    };
    return cmocka_run_group_tests_name("node/task_pools", tests, NULL, NULL);
}
