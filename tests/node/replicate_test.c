/* replicate_test.c -- the daemon in a thread of this process: how it ends, whatever the store does.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "node/bed.h"
#include "node/replicate.h"
#include "node/wait.h"

#define SETUP_SQL                                                                                  \
    "PRAGMA page_size=1024; PRAGMA journal_mode=wal;"                                              \
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)"

struct daemon {
    struct bed *b;
    struct node_opts opts;
    pthread_t thread;
    enum rc rc;
    struct err err;
    int64_t took_ms; /* from the first signal to the end */
    atomic_bool ended;
};

static void *daemon_main(void *arg)
{
    struct daemon *d = arg;
    d->rc = node_replicate(d->b->cfg, &d->opts, &d->err);
    atomic_store(&d->ended, true);
    return NULL;
}

static void daemon_start(struct daemon *d, struct bed *b)
{
    struct err err;
    *d = (struct daemon){.b = b};
    assert_int_equal(thr_start(&d->thread, "daemon", daemon_main, d, &err), RC_OK);
}

static bool taken(void)
{
    sigset_t pending;
    assert_int_equal(sigpending(&pending), 0);
    return sigismember(&pending, SIGTERM) == 0;
}

/* `again`: a second signal after so many milliseconds; 0: none. */
static void daemon_stop(struct daemon *d, int64_t again_ms)
{
    int64_t start = os_mono_ms();
    kill(getpid(), SIGTERM);
    if (again_ms > 0) {
        WAIT_FOR(taken()); /* two that wait would be one */
        os_sleep_ms(again_ms);
        assert_false(atomic_load(&d->ended));
        kill(getpid(), SIGTERM);
    }
    WAIT_FOR(atomic_load(&d->ended));
    d->took_ms = os_mono_ms() - start;
    pthread_join(d->thread, NULL);
}

static void set_timeout(struct bed *b, const char *timeout)
{
    struct err err;
    assert_int_equal(config_set(b->cfg, "shutdown-sync-timeout", timeout, &err), RC_OK);
}

static void start(struct bed *b, struct daemon *d, const char *timeout)
{
    bed_new(b, BED_MEM, "");
    set_timeout(b, timeout);
    bed_app_open(b, SETUP_SQL);
    bed_rows(b, 2);
    daemon_start(d, b);
    WAIT_FOR(bed_newest(b) > 0);
    bed_rows(b, 1);
    WAIT_FOR(bed_restore_is_current(b));
}

static void test_last_commit(void **arg)
{
    struct bed b;
    struct daemon d;
    (void)arg;
    start(&b, &d, "1m");
    bed_rows(&b, 3); /* and the signal at once */
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_OK);
    bed_check_restore(&b);
    bed_free(&b);
}

static void test_store_refuses(void **arg)
{
    struct bed b;
    struct daemon d;
    (void)arg;
    start(&b, &d, "1s");
    uint64_t before = bed_newest(&b);
    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    bed_rows(&b, 3);
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_AGAIN);
    assert_non_null(strstr(d.err.text, "final sync failed for 1 of 1"));
    assert_non_null(strstr(d.err.text, "refused"));
    assert_int_equal(bed_newest(&b), before);
    assert_true(d.took_ms < 30000);

    atomic_store(&spy.mode, SPY_PASS); /* nothing is lost: the next start has it */
    set_timeout(&b, "1m");
    daemon_start(&d, &b);
    WAIT_FOR(bed_newest(&b) > before);
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_OK);
    bed_check_restore(&b);
    bed_free(&b);
}

static void test_store_hangs(void **arg)
{
    struct bed b;
    struct daemon d;
    (void)arg;
    start(&b, &d, "300ms");
    atomic_store(&spy.mode, SPY_HANG_PUT);
    bed_rows(&b, 3);
    os_sleep_ms(50); /* the upload job is in it when the signal comes, mostly */
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_CANCELED);
    assert_non_null(strstr(d.err.text, "shutdown-sync-timeout"));
    assert_true(d.took_ms >= 250 && d.took_ms < 30000);
    bed_free(&b);
}

static void test_second_signal(void **arg)
{
    for (int hang = 0; hang < 2; hang++) {
        struct bed b;
        struct daemon d;
        bed_new(&b, BED_MEM, "");
        set_timeout(&b, "1h");
        bed_app_open(&b, SETUP_SQL);
        daemon_start(&d, &b);
        WAIT_FOR(bed_newest(&b) > 0);
        atomic_store(&spy.mode, hang ? SPY_HANG_PUT : SPY_REFUSE_PUT);
        bed_rows(&b, 3);
        daemon_stop(&d, 150);
        assert_int_equal(d.rc, hang ? RC_CANCELED : RC_AGAIN);
        assert_true(d.took_ms < 30000);
        bed_free(&b);
    }
    (void)arg;
}

static void test_one_attempt(void **arg)
{
    struct bed b;
    struct daemon d;
    (void)arg;
    bed_new(&b, BED_MEM, "");
    set_timeout(&b, "0s");
    bed_app_open(&b, SETUP_SQL);
    daemon_start(&d, &b);
    WAIT_FOR(bed_newest(&b) > 0);
    bed_rows(&b, 1);
    daemon_stop(&d, 0); /* enough when the store works */
    assert_int_equal(d.rc, RC_OK);
    bed_check_restore(&b);
    unsigned lists = atomic_load(&spy.lists);
    daemon_start(&d, &b);
    WAIT_FOR(atomic_load(&spy.lists) > lists || bed_newest(&b) > 1);
    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    bed_rows(&b, 1);
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_AGAIN);
    bed_free(&b);
}

static void test_database_gone(void **arg)
{
    struct bed b;
    struct daemon d;
    (void)arg;
    start(&b, &d, "1m");
    bed_app_close(&b);
    bed_delete_db(&b);
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_OK); /* the store has all there ever was */

    bed_app_open(&b, SETUP_SQL);
    bed_rows(&b, 5);
    uint64_t before = bed_newest(&b);
    set_timeout(&b, "300ms");
    daemon_start(&d, &b);
    WAIT_FOR(bed_newest(&b) > before);
    WAIT_FOR(bed_restore_is_current(&b));
    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    unsigned calls = atomic_load(&spy.calls);
    bed_rows(&b, 1);
    WAIT_FOR(atomic_load(&spy.calls) > calls); /* staged */
    bed_app_close(&b);
    bed_delete_db(&b);
    daemon_stop(&d, 0);
    assert_int_not_equal(d.rc, RC_OK); /* and now it has not */
    bed_free(&b);
}

static void test_never_there(void **arg)
{
    struct bed b;
    struct daemon d;
    (void)arg;
    bed_new(&b, BED_FILE, "");
    daemon_start(&d, &b);
    os_sleep_ms(50);
    daemon_stop(&d, 0);
    assert_int_equal(d.rc, RC_OK);
    bed_free(&b);
}

static void test_once(void **arg)
{
    struct bed b;
    struct err err;
    struct node_opts opts = {.once = true};
    (void)arg;
    bed_new(&b, BED_MEM, "");
    assert_int_equal(node_replicate(b.cfg, &opts, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, b.path));
    bed_app_open(&b, SETUP_SQL);
    atomic_store(&spy.mode, SPY_REFUSE_PUT);
    assert_int_equal(node_replicate(b.cfg, &opts, &err), RC_AGAIN);
    assert_non_null(strstr(err.text, b.path));
    atomic_store(&spy.mode, SPY_PASS);
    assert_int_equal(node_replicate(b.cfg, &opts, &err), RC_OK);
    bed_check_restore(&b);
    opts.force_snapshot = true;
    assert_int_equal(node_replicate(b.cfg, &opts, &err), RC_OK);
    assert_int_equal(bed_count_level(&b, 9), 1);
    bed_check_restore(&b);
    bed_free(&b);
}

int main(void)
{
    bed_block_signals();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_commit), cmocka_unit_test(test_store_refuses),
        cmocka_unit_test(test_store_hangs), cmocka_unit_test(test_second_signal),
        cmocka_unit_test(test_one_attempt), cmocka_unit_test(test_database_gone),
        cmocka_unit_test(test_never_there), cmocka_unit_test(test_once),
    };
    return cmocka_run_group_tests_name("node/replicate", tests, NULL, NULL);
}
