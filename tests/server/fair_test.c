/* fair_test.c -- tenants beside each other: one that floods does not delay the other; requests that
 * wait until their tenant may be open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "server/serve_bed.h"

#define FLOOD     40
#define A         "/dev/a/v3/pipeline"
#define B         "/dev/b/v3/pipeline"
#define BODY(sql) "{\"requests\":[" SQL(sql) ",{\"type\":\"close\"}]}"
#define ENDLESS                                                                                    \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
#define SLOW "SELECT 4711 FROM t"

static void send_flood(struct sbed *b, struct client clients[FLOOD], const char *body)
{
    for (int i = 0; i < FLOOD; i++) {
        clients[i] = client_connect(b->address);
        sbed_send(b, &clients[i], A, "", body);
    }
}

/* What b asks for is answered long before the flood of a is over. */
static void ask_b(struct sbed *b, int64_t limit_ms)
{
    static char baton[8000];
    int64_t since = os_mono_ms();
    baton[0] = '\0';
    sbed_expect(b, B, "", BODY("SELECT 4712"), 200, INT(4712));
    sbed_expect(b, B, "", BODY(SLOW), 200, INT(4711));
    sbed_pipe(b, baton, SQL("BEGIN"), 200, GOOD);
    sbed_pipe(b, baton, SQL("COMMIT"), 200, GOOD);
    sbed_expect(b, B, "", BODY("INSERT INTO t VALUES (1)"), 200, GOOD);
    assert_in_range(os_mono_ms() - since, 0, limit_ms);
}

static void start(struct sbed *b, int64_t query_ms)
{
    struct fake *f;
    sbed_prepare(b);
    b->opts.work_threads = 8;
    b->opts.query_ms = query_ms;
    sbed_start(b);
    sbed_expect(b, A, "", BODY("CREATE TABLE t(v)"), 200, GOOD);
    sbed_expect(b, B, "", BODY("CREATE TABLE t(v)"), 200, GOOD);
    sbed_expect(b, B, "", BODY("INSERT INTO t VALUES (1)"), 200, GOOD);
    f = fake_find(b->ts, "b");
    sql_engine_note(f->t.engine, SLOW, strlen(SLOW), true);
}

static void test_slow_queries(void **state)
{
    (void)state;
    struct sbed b;
    struct client clients[FLOOD];
    start(&b, 60000);
    send_flood(&b, clients, BODY(ENDLESS));
    SOON(crew_waiting(b.server->env.slow) >= FLOOD / 2);
    ask_b(&b, 30000);
    assert_true(crew_waiting(b.server->env.slow) >= FLOOD / 2);
    for (int i = 0; i < FLOOD; i++) /* their queries end with them */
        client_close(&clients[i]);
    sbed_free(&b);
}

/* Whatever keeps threads of the working crew for long. */
static void test_long_work(void **state)
{
    (void)state;
    struct sbed b;
    struct client clients[FLOOD];
    start(&b, 60000);
    atomic_store(&b.ts->hide, true);
    atomic_store(&b.ts->hang, true);
    send_flood(&b, clients, BODY("SELECT 1"));
    SOON(crew_waiting(b.server->env.work) == FLOOD - 4);
    ask_b(&b, 30000);
    assert_int_equal(crew_waiting(b.server->env.work), FLOOD - 4);
    atomic_store(&b.ts->hang, false);
    for (int i = 0; i < FLOOD; i++) {
        struct answer a = client_answer(&clients[i], false);
        assert_int_equal(a.status, 200);
        answer_free(&a);
        client_close(&clients[i]);
    }
    sbed_free(&b);
}

/* ---- Too many are open ---- */

static struct client send_one(struct sbed *b, size_t waiting)
{
    struct client c = client_connect(b->address);
    sbed_send(b, &c, A, "", BODY("SELECT 4713"));
    SOON(fake_placeless(b->ts) == waiting);
    return c;
}

static void expect_answer(struct client *c, unsigned status, const char *part)
{
    struct err err;
    struct answer a = client_answer(c, false);
    assert_int_equal(buf_append(&a.body, "", 1, &err), RC_OK);
    if (a.status != status || strstr((const char *)a.body.data, part) == NULL)
        fail_msg("%u, not %u with %s: %s", a.status, status, part, (const char *)a.body.data);
    answer_free(&a);
    client_close(c);
}

static int count_gone(struct tenants *ts)
{
    int count = 0;
    thr_lock(&ts->lock);
    for (size_t i = 0; i < ts->place_count; i++)
        count += atomic_load(ts->places[i]->gone);
    thr_unlock(&ts->lock);
    return count;
}

static void test_full(void **state)
{
    (void)state;
    struct sbed b;
    start(&b, 60000);
    atomic_store(&b.ts->hide, true);
    atomic_store(&b.ts->full, FULL_WAITS);
    struct client one = send_one(&b, 1), two = send_one(&b, 2), gone = send_one(&b, 3);
    int64_t left_ms = b.ts->places[0]->deadline_ms - os_mono_ms();
    assert_in_range(left_ms, 1, 5000);
    /* No thread waits with them. */
    assert_int_equal(crew_waiting(b.server->env.work), 0);
    fake_call(b.ts, FULL_WAITS); /* in vain */
    SOON(fake_placeless(b.ts) == 3);
    client_close(&gone);
    SOON(count_gone(b.ts) == 1);
    fake_call(b.ts, FULL_NOT);
    expect_answer(&one, 200, INT(4713));
    expect_answer(&two, 200, INT(4713));
    atomic_store(&b.ts->full, FULL_WAITS);
    one = send_one(&b, 1);
    fake_call(b.ts, FULL_TOO_LONG);
    expect_answer(&one, 503, "NAMESPACE_BUSY");
    sbed_free(&b);
}

static void test_full_websocket(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    start(&b, 60000);
    atomic_store(&b.ts->hide, true);
    atomic_store(&b.ts->full, FULL_WAITS);
    sbed_ws(&b, &p, "/dev/a");
    ws_say(&p, HELLO);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_say(&p, REQ(2, DO(1, "SELECT 4714")));
    SOON(fake_placeless(b.ts) == 1);
    fake_call(b.ts, FULL_NOT);
    ws_expect(&p, "hello_ok", "");
    ws_expect(&p, ID(1), "");
    ws_expect(&p, ID(2), INT(4714));
    peer_fini(&p);
    atomic_store(&b.ts->full, FULL_WAITS);
    sbed_ws(&b, &p, "/dev/a");
    ws_say(&p, HELLO);
    SOON(fake_placeless(b.ts) == 1);
    fake_call(b.ts, FULL_TOO_LONG);
    ws_expect(&p, "hello_error", "NAMESPACE_BUSY");
    peer_fini(&p);
    atomic_store(&b.ts->full, FULL_WAITS);
    sbed_ws(&b, &p, "/dev/a");
    ws_say(&p, HELLO);
    SOON(fake_placeless(b.ts) == 1);
    peer_fini(&p); /* leaves while it waits */
    SOON(atomic_load(b.ts->places[0]->gone));
    fake_call(b.ts, FULL_WAITS);
    sbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_queries),
        cmocka_unit_test(test_long_work),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_full_websocket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
