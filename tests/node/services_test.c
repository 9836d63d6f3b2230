/* services_test.c -- a service that takes connections and never answers, and one that works: the
 * databases of the second must not notice the first. And one that is away for all its databases. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>
#include <fcntl.h>
#include <cmocka.h>
#include <sqlite3.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/log.h"
#include "log/layout.h"
#include "node/bed.h"
#include "node/replicate.h"
#include "node/wait.h"

#define HANGING_COUNT 24 /* more than a pool has threads */
#define AWAY_COUNT    7

struct scene {
    char dir[64], good[96], replica[96];
    int hole; /* the socket of the service that hangs */
    int port;
    struct config *cfg;
    sqlite3 *app;
    struct node_opts opts;
    pthread_t thread;
    enum rc rc;
    struct err err;
};

static void make_db(const char *path, sqlite3 **ret)
{
    assert_int_equal(sqlite3_open(path, ret), SQLITE_OK);
    sqlite3_busy_timeout(*ret, 20000); /* our checkpoints may have the write lock */
    assert_int_equal(sqlite3_exec(*ret,
                                  "PRAGMA journal_mode=wal; CREATE TABLE t(x);"
                                  "INSERT INTO t VALUES(1)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
}

static void listen_and_be_silent(struct scene *s)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    s->hole = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s->hole >= 0);
    assert_int_equal(bind(s->hole, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(s->hole, 128), 0);
    assert_int_equal(getsockname(s->hole, (struct sockaddr *)&at, &size), 0);
    s->port = ntohs(at.sin_port);
}

/* The good one is the last in the file. */
static void setup(struct scene *s)
{
    struct err err;
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    *s = (struct scene){.dir = "/tmp/sluice-services-XXXXXX"};
    assert_non_null(mkdtemp(s->dir));
    listen_and_be_silent(s);
    assert_int_equal(buf_printf(&text, &err,
                                "shutdown-sync-timeout: 3s\naccess-key-id: a\n"
                                "secret-access-key: s\ndbs:\n"),
                     RC_OK);
    for (int i = 0; i < HANGING_COUNT; i++) {
        char path[128];
        sqlite3 *db;
        snprintf(path, sizeof path, "%s/h%d.db", s->dir, i);
        make_db(path, &db);
        sqlite3_close(db);
        assert_int_equal(buf_printf(&text, &err,
                                    "  - path: %s\n    replica: {url: \"s3://bucket/h%d?endpoint="
                                    "http://127.0.0.1:%d&region=r\"}\n",
                                    path, i, s->port),
                         RC_OK);
    }
    snprintf(s->good, sizeof s->good, "%s/good.db", s->dir);
    snprintf(s->replica, sizeof s->replica, "%s/replica", s->dir);
    make_db(s->good, &s->app);
    assert_int_equal(buf_printf(&text, &err,
                                "  - path: %s\n    monitor-interval: 10ms\n"
                                "    replica: {path: %s, sync-interval: 10ms}\n",
                                s->good, s->replica),
                     RC_OK);
    assert_int_equal(config_parse((const char *)text.data, text.size, "f", &s->cfg, &err), RC_OK);
}

static void teardown(struct scene *s)
{
    char command[128];
    sqlite3_close(s->app);
    config_free(s->cfg);
    if (s->hole >= 0) close(s->hole);
    snprintf(command, sizeof command, "rm -rf '%s'", s->dir);
    assert_int_equal(system(command), 0);
}

static void *daemon_main(void *arg)
{
    struct scene *s = arg;
    s->rc = node_replicate(s->cfg, &s->opts, &s->err);
    return NULL;
}

/* The newest transaction that the good store has. */
static uint64_t newest(const struct scene *s)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct err err;
    struct log lg;
    assert_int_equal(store_open(s->replica, &lg.store, &err), RC_OK);
    assert_int_equal(log_list(&lg, NULL, 0, &files, &err), RC_OK);
    store_close(lg.store);
    return files.count == 0 ? 0 : files.items[files.count - 1].txid_max;
}

static void test_hanging_service_keeps_nobody_waiting(void **arg)
{
    struct scene s;
    struct err err;
    (void)arg;
    setup(&s);
    assert_int_equal(thr_start(&s.thread, "daemon", daemon_main, &s, &err), RC_OK);
    WAIT_FOR(newest(&s) >= 1);
    for (int i = 0; i < 3; i++) {
        uint64_t before = newest(&s);
        assert_int_equal(sqlite3_exec(s.app, "INSERT INTO t VALUES(2)", NULL, NULL, NULL), 0);
        WAIT_FOR(newest(&s) > before);
    }
    uint64_t before = newest(&s);
    assert_int_equal(sqlite3_exec(s.app, "INSERT INTO t VALUES(3)", NULL, NULL, NULL), 0);
    int64_t start_ms = os_mono_ms();
    kill(getpid(), SIGTERM); /* the last commit is in the last database */
    pthread_join(s.thread, NULL);
    assert_true(os_mono_ms() - start_ms < 30000);
    assert_true(newest(&s) > before);
    char want[64];
    snprintf(want, sizeof want, "final sync failed for %d of %d", HANGING_COUNT, HANGING_COUNT + 1);
    assert_non_null(strstr(s.err.text, want));
    teardown(&s);
}

/* AWAY_COUNT databases of one folder. */
static void setup_away(struct scene *s)
{
    struct err err;
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    *s = (struct scene){.dir = "/tmp/sluice-services-XXXXXX", .hole = -1};
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->replica, sizeof s->replica, "%s/replica0", s->dir);
    assert_int_equal(buf_printf(&text, &err, "dbs:\n"), RC_OK);
    for (int i = 0; i < AWAY_COUNT; i++) {
        char path[128];
        sqlite3 *db;
        snprintf(path, sizeof path, "%s/d%d.db", s->dir, i);
        make_db(path, &db);
        sqlite3_close(db);
        assert_int_equal(buf_printf(&text, &err,
                                    "  - path: %s\n    replica: {path: %s/replica%d}\n", path,
                                    s->dir, i),
                         RC_OK);
    }
    assert_int_equal(config_parse((const char *)text.data, text.size, "f", &s->cfg, &err), RC_OK);
}

/* Lines of the log that hold the text. */
static size_t lines(const char *path, const char *text)
{
    CLEANUP(buf_fini) struct buf log = BUF_INIT;
    struct err err;
    size_t count = 0;
    assert_int_equal(os_read_file(path, 1 << 20, &log, &err), RC_OK);
    assert_int_equal(buf_append(&log, "", 1, &err), RC_OK);
    for (const char *p = (const char *)log.data; (p = strstr(p, text)) != NULL; p++)
        count++;
    return count;
}

static void test_outage_is_one_story(void **arg)
{
    struct scene s;
    struct err err;
    char path[96], all[64];
    int fd;
    (void)arg;
    setup_away(&s);
    snprintf(path, sizeof path, "%s/log", s.dir);
    assert_int_equal(os_open(path, O_RDWR | O_CREAT | O_APPEND, 0600, &fd, &err), RC_OK);
    log_setup(LOG_INFO, LOG_TYPE_TEXT, fd);
    atomic_store(&spy.mode, SPY_REFUSE_ALL);
    unsigned calls = atomic_load(&spy.calls);
    assert_int_equal(thr_start(&s.thread, "daemon", daemon_main, &s, &err), RC_OK);
    WAIT_FOR(atomic_load(&spy.calls) >= calls + 2 * AWAY_COUNT); /* a second try each */
    atomic_store(&spy.mode, SPY_PASS);
    WAIT_FOR(lines(path, "works again") > 0);
    kill(getpid(), SIGTERM);
    pthread_join(s.thread, NULL);
    log_setup(LOG_INFO, LOG_TYPE_TEXT, STDOUT_FILENO);
    assert_int_equal(s.rc, RC_OK);
    assert_int_equal(lines(path, "level=ERROR"), 1);
    assert_int_equal(lines(path, "works again"), 1);
    snprintf(all, sizeof all, "databases=%d after=", AWAY_COUNT);
    assert_int_equal(lines(path, all), 1);
    assert_int_equal(newest(&s), 1);
    os_closep(&fd);
    teardown(&s);
}

int main(void)
{
    bed_block_signals();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hanging_service_keeps_nobody_waiting),
        cmocka_unit_test(test_outage_is_one_story),
    };
    return cmocka_run_group_tests_name("node/services", tests, NULL, NULL);
}
