/*
 * serve_sweep_test.c -- each allocation fails in turn while requests are on their way: no crash, no
 * hang, nothing left behind, the next request works. What was answered with success is there, what
 * was answered with an error of its own is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <malloc.h>
#include <sqlite3.h>
#include "base/fault.h"
#include "server/serve_bed.h"

/* SQLite's allocations fail as well. */
static void *sq_malloc(int size)
{
    return fault_hit(FAULT_ALLOC, "SQLite") ? NULL : malloc((size_t)size);
}

static void *sq_realloc(void *p, int size)
{
    return fault_hit(FAULT_ALLOC, "SQLite") ? NULL : realloc(p, (size_t)size);
}

static int sq_size(void *p)
{
    return (int)malloc_usable_size(p);
}

static int sq_roundup(int size)
{
    return (size + 7) & ~7;
}

static int sq_init(void *ctx)
{
    (void)ctx;
    return SQLITE_OK;
}

static void sq_shutdown(void *ctx)
{
    (void)ctx;
}

static void make_table(struct xbed *b)
{
    struct session s;
    xbed_session(b, &s);
    EXPECT(b, &s, SQL("CREATE TABLE t(a INTEGER PRIMARY KEY, b)"), GOOD);
    session_fini(&s);
}

#define CHAIN(n, sql)  "," STEP_IF(OK_IF(n), sql)
#define UNLESS(n, sql) "," STEP_IF("{\"type\":\"not\",\"cond\":" OK_IF(n) "}", sql)
/* Messages that write the rows 1, 2 and 3, in different ways. */
static const char *const messages[] = {
    SQL("INSERT INTO t VALUES (1, 0) RETURNING a") "," SQL("INSERT INTO t VALUES (2, 0)") "," SQL(
        "SELECT * FROM t") "," SQL("INSERT INTO t VALUES (3, 0)"),
    BATCH(STEP("INSERT INTO t VALUES (1, 0)") "," STEP("INSERT INTO t VALUES (1, 1)") "," STEP(
        "INSERT INTO t VALUES (2, 0)") "," STEP("INSERT INTO t VALUES (3, 0)")),
    BATCH(STEP("BEGIN") CHAIN(0, "INSERT INTO t VALUES (1, 0)")
              CHAIN(1, "INSERT INTO t VALUES (2, 0)") CHAIN(2, "INSERT INTO t VALUES (3, 0)")
                  CHAIN(3, "COMMIT") UNLESS(4, "ROLLBACK")),
    SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (1, 0)") "," SQL(
        "INSERT INTO t VALUES (2, 0)") "," SQL("INSERT INTO t VALUES (3, 0)") "," SQL("COMMIT"),
    SCRIPT("INSERT INTO t VALUES (1, 0); INSERT INTO t VALUES (2, 0); INSERT INTO t VALUES (3, 0)"),
    "{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"INSERT INTO t(b) VALUES "
    "(?)\"},{\"type\":\"describe\",\"sql_id\":1}," BATCH(
        "{\"stmt\":{\"sql_id\":1,\"args\":[{\"type\":\"text\",\"value\":\"x\"}]}}," STEP(
            "PRAGMA user_version = 3") "," STEP("INSERT INTO t VALUES (2, 0)") "," STEP("INSERT "
                                                                                        "INTO t "
                                                                                        "VALUES "
                                                                                        "(3, 0)")),
    BATCH(STEP("CREATE TEMP TABLE x(a)") "," STEP("INSERT INTO t VALUES (1, 0)") "," STEP(
        "INSERT INTO t VALUES (2, 0)") "," STEP("INSERT INTO t VALUES (3, 0)")),
};

/* One message with the n-th allocation failing. True: none failed any more. */
static bool once(struct xbed *b, const char *message, uint64_t n)
{
    struct session s, after;
    struct xcall c;
    xbed_session(b, &s);
    fault_arm(FAULT_ALLOC, n, false);
    if (xcall_begin(b, &c, &s, message)) {
        exec_begin(&c.x);
        const char *out = xcall_wait(&c);
        bool done = !fault_fired();
        fault_arm(0, 0, false);
        session_fini(&s);
        int64_t rows = xbed_int(b, "SELECT count(*) FROM t");
        if (out[0] != '\0' && strstr(out, BAD) == NULL && strstr(out, "\"message\"") == NULL &&
            rows != 3)
            fail_msg("%llu: told that all went well, and %d rows: %s", (unsigned long long)n,
                     (int)rows, out);
        bool whole = strstr(message, "condition") != NULL;
        if (whole && rows != 0 && rows != 3)
            fail_msg("%llu: half a transaction", (unsigned long long)n);
        xcall_fini(&c);
        xbed_session(b, &after);
        EXPECT(b, &after, SCRIPT("DELETE FROM t; PRAGMA user_version = 0"), GOOD);
        EXPECT(b, &after, SQL("BEGIN IMMEDIATE") "," SQL("ROLLBACK"), GOOD, GOOD);
        session_fini(&after);
        struct sql_engine_stats stats;
        sql_engine_look(b->t->engine, &stats);
        assert_int_equal(stats.conns_used, 0);
        return done;
    }
    fault_arm(0, 0, false);
    session_fini(&s);
    xcall_fini(&c);
    return false;
}

static void test_messages(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        struct xbed b;
        xbed_new(&b, NULL);
        make_table(&b);
        uint64_t n = 1;
        while (!once(&b, messages[i], n))
            n++;
        print_message("message %d: %llu allocations\n", (int)i, (unsigned long long)n - 1);
        assert_true(n > 2);
        xbed_free(&b);
    }
}

/* ---- Over sockets ---- */

static char text[1 << 20]; /* read into, without an allocation */

/* Until the server hangs up, or `end` comes; never silence. */
static size_t read_until(int fd, const char *end)
{
    size_t size = 0;
    for (;;) {
        struct pollfd f = {.fd = fd, .events = POLLIN};
        if (poll(&f, 1, CLIENT_WAIT_MS) != 1) fail_msg("the server says nothing");
        ssize_t n = recv(fd, text + size, end == NULL ? sizeof text - 1 - size : 1, 0);
        if (n > 0) size += (size_t)n;
        text[size] = '\0';
        if (n <= 0 || (end != NULL && strstr(text, end) != NULL)) return size;
        assert_true(size < sizeof text - 1);
    }
}

/* Its baton, or "". */
static void try_http(struct sbed *b, const char *path, const char *body, char *baton)
{
    struct client c = client_connect(b->address);
    sbed_send(b, &c, path, "Connection: close\r\n", body);
    (void)read_until(c.fd, NULL);
    const char *at = strstr(text, "\"baton\":\"");
    baton[0] = '\0';
    if (at != NULL && strncmp(text, "HTTP/1.1 200", 12) == 0)
        snprintf(baton, 8000, "%.*s", (int)strcspn(at + 9, "\""), at + 9);
    client_close(&c);
}

/* Each message is answered, or the connection is closed. */
static void try_ws(struct sbed *b, const struct buf *frames, size_t count)
{
    static const char head[] =
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: hrana3\r\n\r\n";
    static uint8_t memory[1 << 20];
    struct client c = client_connect(b->address);
    struct peer p = {.fd = c.fd, .in = BUF_ON(memory)};
    (void)client_send(&c, head, sizeof head - 1);
    size_t size = read_until(c.fd, "\r\n\r\n");
    if (size > 0 && strncmp(text, "HTTP/1.1 101", 12) == 0) {
        (void)client_send(&c, frames->data, frames->size);
        for (size_t got = 0; got < count; got++) {
            struct frame f;
            size_t whole;
            if (!peer_next(&p, &f, &whole) || f.first == CLOSE) break;
            buf_drop_front(&p.in, whole);
        }
    }
    peer_fini(&p);
}

static size_t make_frames(struct buf *out)
{
    static const char *const texts[] = {
        HELLO,
        REQ(1, OPEN(1)),
        REQ(2, "{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"INSERT INTO t(b) VALUES (1)\"}"),
        REQ(3, "{\"type\":\"execute\",\"stream_id\":1,\"stmt\":{\"sql_id\":1}}"),
        REQ(4, DO(1, "BEGIN IMMEDIATE")),
        REQ(5, DO(1, "INSERT INTO t(b) VALUES (1)")),
        REQ(6, CURSOR(1, 1, STEP("SELECT 1") "," STEP("INSERT INTO t(b) VALUES (1)"))),
        REQ(7, FETCH(1)),
        REQ(8, UNCURSOR(1)),
        REQ(9, OPEN(2)),
        REQ(10, "{\"type\":\"describe\",\"stream_id\":2,\"sql\":\"SELECT 1\"}"),
        REQ(11, "{\"type\":\"get_autocommit\",\"stream_id\":2}"),
        REQ(12, SHUT(1))};
    size_t count = sizeof texts / sizeof texts[0];
    for (size_t i = 0; i < count; i++)
        frame_put(out, TEXT, texts[i], strlen(texts[i]));
    return count;
}

static bool once_served(struct sbed *b, int how, uint64_t n)
{
    static char baton[8000], other[8000];
    static char body[9000];
    CLEANUP(buf_fini) struct buf frames = BUF_INIT;
    size_t count = make_frames(&frames);
    baton[0] = '\0';
    atomic_store(&b->ts->hide, n % 2 == 0); /* the tenant is to be opened */
    fault_arm(FAULT_ALLOC, n, false);
    if (how == 0) {
        try_http(b, PIPE,
                 "{\"requests\":[{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"SELECT 1\"}," SQL(
                     "INSERT INTO t(b) VALUES (1)") "]}",
                 baton);
        snprintf(body, sizeof body,
                 "{\"baton\":%s%s%s,\"requests\":[" SQL("BEGIN IMMEDIATE") "," SQL("SELECT 1") "]}",
                 baton[0] != '\0' ? "\"" : "", baton[0] != '\0' ? baton : "null",
                 baton[0] != '\0' ? "\"" : "");
        try_http(b, PIPE, body, other);
        snprintf(body, sizeof body,
                 "{\"baton\":\"%s\",\"requests\":[" SQL("ROLLBACK") ",{\"type\":\"close\"}]}",
                 other);
        if (other[0] != '\0') try_http(b, PIPE, body, baton);
    } else if (how == 1) {
        try_http(b, "/v3/cursor",
                 "{\"batch\":{\"steps\":[" STEP(
                     "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x "
                     "< 9000) SELECT x FROM c") "," STEP("INSERT INTO t(b) VALUES (1)") "]}}",
                 baton);
        try_http(b, "/v1/batch",
                 "{\"batch\":{\"steps\":[" STEP("INSERT INTO t(b) VALUES (1)") "," STEP(
                     "nonsense") "]}}",
                 baton);
    } else {
        try_ws(b, &frames, count);
    }
    bool done = !fault_fired();
    fault_arm(0, 0, false);
    return done;
}

static void test_served(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct sbed b;
        sbed_prepare(&b);
        b.opts.stream_idle_ms = 300;
        b.ts->engine.hold_ms = 500;
        sbed_start(&b);
        sbed_expect(&b, PIPE, "",
                    "{\"requests\":[" SQL("CREATE TABLE t(a INTEGER PRIMARY KEY, b)") "]}", 200,
                    GOOD);
        uint64_t n = 1;
        int quiet = 0; /* other threads allocate, too: once is not enough */
        for (; quiet < 3; n++)
            quiet = once_served(&b, how, n) ? quiet + 1 : 0;
        sbed_expect(&b, PIPE, "",
                    "{\"requests\":[" SQL("BEGIN IMMEDIATE") "," SQL(
                        "INSERT INTO t(b) VALUES (1)") "," SQL("COMMIT") ",{\"type\":\"close\"}]}",
                    200, "\"results\":[{\"type\":\"ok\"");
        int64_t until = os_mono_ms() + 60000;
        while (atomic_load(&b.server->ws_open) > 0 || atomic_load(&b.server->ws_busy) > 0 ||
               batons_live(b.server->batons) > 0) {
            if (os_mono_ms() > until) fail_msg("streams are left");
            os_sleep_ms(5);
        }
        print_message("way %d: %llu allocations\n", how, (unsigned long long)n);
        sbed_free(&b);
    }
}

/* A server that cannot start leaves nothing. */
static void test_start(void **state)
{
    (void)state;
    struct sbed b;
    struct err err;
    sbed_prepare(&b);
    for (uint64_t n = 1;; n++) {
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc = server_start(&b.opts, &b.server, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_true(rc == RC_OK || rc == RC_NO_MEM);
        if (rc == RC_OK) server_stop(b.server, 0);
        if (!fired) break;
    }
    fake_free(b.ts);
}

int main(void)
{
    static const sqlite3_mem_methods memory = {sq_malloc,  free,    sq_realloc,  sq_size,
                                               sq_roundup, sq_init, sq_shutdown, NULL};
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &memory), SQLITE_OK);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_served),
        cmocka_unit_test(test_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
