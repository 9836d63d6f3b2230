/* serve_end_sweep_test.c -- what ends before its time: tokens, clients, the server. Takes seconds,
 * because time must pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "server/serve_bed.h"

#define SLOW                                                                                       \
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"

static void test_expiry(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    struct buf key = BUF_INIT, public = BUF_INIT, token = BUF_INIT;
    struct err err;
    char claims[100], hello[3000];
    sbed_prepare(&b);
    assert_int_equal(jwt_key_new(JWT_HS256, &key, &public, &err), RC_OK);
    assert_int_equal(buf_append(&key, "", 1, &err), RC_OK);
    b.opts.auth.key_text = (const char *)key.data;
    sbed_start(&b);
    sbed_expect(&b, PIPE, "", ONE("SELECT 1"), 401, "AUTH_");
    assert_int_equal(b.ts->count, 0);
    snprintf(claims, sizeof claims, "{\"a\":\"rw\",\"exp\":%lld}",
             (long long)(os_now_ms() / 1000 - JWT_LEEWAY_S + 4));
    assert_int_equal(jwt_sign((const char *)key.data, claims, &token, &err), RC_OK);
    assert_int_equal(buf_append(&token, "", 1, &err), RC_OK);
    snprintf(hello, sizeof hello, "{\"type\":\"hello\",\"jwt\":\"%s\"}", (char *)token.data);
    b.token = (const char *)token.data;
    sbed_expect(&b, PIPE, "", ONE("SELECT 1"), 200, INT(1));
    sbed_ws(&b, &p, "/");
    ws_say(&p, hello);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_say(&p, REQ(2, DO(1, "SELECT 1")));
    ws_expect(&p, "hello_ok", "");
    ws_expect(&p, "response_ok", ID(1));
    ws_expect(&p, "response_ok", ID(2));
    os_sleep_ms(4100);
    ws_say(&p, REQ(3, DO(1, "SELECT 1")));
    ws_say(&p, REQ(4, CURSOR(1, 1, STEP("SELECT 1"))));
    ws_say(&p, REQ(5, FETCH(1)));
    ws_expect(&p, ID(3), "AUTH_JWT_EXPIRED");
    ws_expect(&p, ID(4), "AUTH_JWT_EXPIRED");
    ws_expect(&p, ID(5), "CURSOR_NOT_OPEN");
    sbed_expect(&b, PIPE, "", ONE("SELECT 1"), 401, "AUTH_JWT_EXPIRED");
    peer_fini(&p);
    buf_fini(&key);
    buf_fini(&public);
    buf_fini(&token);
    sbed_free(&b);
}

/* Clients that go, and a server that goes, in each state. */

enum state { WAITS_FOR_TURN, IN_QUEUE, RUNS, WAITS_FOR_STORE, STATES };
static const char *const bodies[STATES] = {
    "{\"requests\":[" SQL("BEGIN IMMEDIATE") "," SQL("INSERT INTO t VALUES (10)") "]}",
    ONE("INSERT INTO t VALUES (11)"), ONE(SLOW), ONE("INSERT INTO t VALUES (13)")};
static const char *const frames[STATES] = {
    REQ(2, DO(1, "BEGIN IMMEDIATE")), REQ(2, DO(1, "INSERT INTO t VALUES (12)")),
    REQ(2, DO(1, SLOW)), REQ(2, DO(1, "INSERT INTO t VALUES (13)"))};

static void reach(struct sbed *b, enum state how, char baton[8000], struct client *c,
                  struct peer *p)
{
    baton[0] = '\0';
    if (how <= IN_QUEUE) sbed_pipe(b, baton, SQL("BEGIN IMMEDIATE"), 200, GOOD);
    fake_sync(b->ts, how == WAITS_FOR_STORE);
    atomic_store(&b->ts->store, STORE_SLEEPS);
    *c = client_connect(b->address);
    sbed_send(b, c, PIPE, "", bodies[how]);
    if (how == WAITS_FOR_STORE) SOON(fake_waiting(b->ts) == 1);
    sbed_ws(b, p, "/");
    ws_say(p, HELLO);
    ws_say(p, REQ(1, OPEN(1)));
    ws_say(p, how == WAITS_FOR_STORE ? REQ(2, DO(1, "INSERT INTO t VALUES (14)")) : frames[how]);
    ws_expect(p, "hello_ok", "");
    ws_expect(p, "response_ok", ID(1));
    SOON(http_server_active(b->server->http) == 1 && atomic_load(&b->server->ws_busy) == 1);
    if (how == WAITS_FOR_STORE) SOON(fake_waiting(b->ts) == 2);
    os_sleep_ms(150); /* where it is exactly cannot be seen from here */
}

static void test_clients_go(void **state)
{
    (void)state;
    for (enum state how = 0; how < STATES; how++) {
        struct sbed b;
        struct client c;
        struct peer p;
        static char baton[8000];
        sbed_new(&b);
        CREATE(&b);
        reach(&b, how, baton, &c, &p);
        client_close(&c);
        peer_fini(&p);
        if (how == WAITS_FOR_STORE) {
            assert_int_equal(fake_wake(b.ts), 2);
            fake_sync(b.ts, false);
        }
        if (how == IN_QUEUE) os_sleep_ms(1500); /* nothing tells that it has been noticed */
        int64_t until = os_mono_ms() + SOON_MS;
        while (how != IN_QUEUE &&
               (http_server_active(b.server->http) > 0 || atomic_load(&b.server->ws_open) > 0)) {
            if (os_mono_ms() > until) fail_msg("state %d: it goes on for nobody", (int)how);
            os_sleep_ms(5);
        }
        if (how <= IN_QUEUE) sbed_pipe(&b, baton, SQL("COMMIT"), 200, GOOD);
        assert_int_equal(sbed_count(&b), how == WAITS_FOR_STORE ? 2 : 0);
        sbed_expect(&b, PIPE, "", ONE("INSERT INTO t VALUES (20)"), 200, GOOD);
        sbed_free(&b);
    }
}

static void *wake_later(void *ts)
{
    os_sleep_ms(300);
    fake_wake(ts);
    return NULL;
}

static void test_server_goes(void **state)
{
    (void)state;
    for (enum state how = 0; how < STATES; how++) {
        struct sbed b;
        struct client c;
        struct peer p;
        pthread_t thread;
        static char baton[8000];
        sbed_prepare(&b);
        b.ts->engine.hold_ms = 2500;
        sbed_start(&b);
        CREATE(&b);
        reach(&b, how, baton, &c, &p);
        if (how == WAITS_FOR_STORE)
            assert_int_equal(pthread_create(&thread, NULL, wake_later, b.ts), 0);
        int64_t since = os_mono_ms();
        server_stop(b.server, 50);
        int64_t ms = os_mono_ms() - since;
        if (ms > 9000) fail_msg("state %d: the end takes %lld ms", (int)how, (long long)ms);
        if (how == WAITS_FOR_STORE) pthread_join(thread, NULL);
        struct answer a = client_answer(&c, false);
        bool told = answer_has(&a, GOOD);
        answer_free(&a);
        client_close(&c);
        peer_fini(&p);
        fake_sync(b.ts, false);
        sbed_start(&b);
        int64_t rows = sbed_count(&b);
        int64_t want = how == WAITS_FOR_STORE ? 2 : how == IN_QUEUE && told ? 1 : 0;
        if (rows != want) fail_msg("state %d: %lld rows", (int)how, (long long)rows);
        sbed_free(&b);
    }
}

/* What is at work on a WebSocket may end, as long as there is time. */
static void test_drain(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    sbed_new(&b);
    sbed_ws(&b, &p, "/");
    ws_say(&p, HELLO);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_say(&p, REQ(2, DO(1, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE "
                            "x < 1000000) SELECT max(x) FROM c")));
    ws_expect(&p, "hello_ok", "");
    ws_expect(&p, "response_ok", ID(1));
    server_stop(b.server, 20000);
    ws_expect(&p, ID(2), INT(1000000));
    peer_expect_close(&p, 1001);
    peer_fini(&p);
    fake_free(b.ts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_clients_go),
        cmocka_unit_test(test_server_goes),
        cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
