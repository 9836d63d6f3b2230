/* serve_test.c -- the service over real sockets: HTTP and WebSocket, streams, cursors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "server/serve_bed.h"

static void test_routes(void **state)
{
    (void)state;
    struct sbed b;
    sbed_new(&b);
    sbed_expect(&b, "/health", "", NULL, 200, "");
    sbed_expect(&b, "/version", "", NULL, 200, "sluice");
    sbed_expect(&b, "/v3", "", NULL, 200, "");
    sbed_expect(&b, "/v4", "", NULL, 404, "NOT_FOUND");
    sbed_expect(&b, PIPE, "", ONE("SELECT 77"), 200, INT(77));
    sbed_expect(&b, PIPE, "", "{\"requests\":[{\"type\":\"x\"}]}", 400, "message");
    sbed_expect(&b, PIPE, "", "{", 400, "message");
    sbed_expect(&b, "/dev/one/v2/pipeline", "", ONE("SELECT 78"), 200, INT(78));
    sbed_expect(&b, "/dev/missing/v2/pipeline", "", ONE("SELECT 78"), 404, "NAMESPACE_NOT_FOUND");
    sbed_expect(&b, PIPE, "x-namespace: busy\r\n", ONE("SELECT 78"), 503, "NAMESPACE_BUSY");
    sbed_expect(&b, PIPE, "x-namespace: broken\r\n", ONE("SELECT 78"), 500, "disk");
    sbed_expect(&b, "/v1/execute", "", "{\"stmt\":{\"sql\":\"SELECT 79\"}}", 200, INT(79));
    sbed_expect(&b, "/v1/execute", "", "{\"stmt\":{\"sql\":\"SELEC\"}}", 400, "SQL_PARSE_ERROR");
    sbed_expect(&b, "/v1/batch", "", "{\"batch\":{\"steps\":[" STEP("SELECT 80") "]}}", 200,
                INT(80));
    sbed_expect(&b, PIPE, "", "{\"requests\":[{\"type\":\"close\"}," SQL("SELECT 1") "]}", 400,
                "closed");
    sbed_free(&b);
}

static void test_batons(void **state)
{
    (void)state;
    struct sbed b;
    static char baton[8000], old[8000], clean[8000];
    sbed_new(&b);
    CREATE(&b);
    baton[0] = clean[0] = '\0';
    sbed_pipe(&b, baton, SQL("BEGIN") "," SQL("INSERT INTO t VALUES (1)"), 200, GOOD);
    memcpy(old, baton, sizeof old);
    sbed_pipe(&b, baton, SQL("SELECT count(*) FROM t"), 200, INT(1));
    assert_string_not_equal(old, baton);
    sbed_pipe(&b, old, SQL("SELECT 1"), 410, "STREAM_EXPIRED");
    assert_int_equal(sbed_count(&b), 0);
    memcpy(old, baton, sizeof old);
    old[20] = old[20] == 'x' ? 'y' : 'x';
    sbed_pipe(&b, old, SQL("SELECT 1"), 404, "STREAM_NOT_FOUND");
    sbed_pipe(&b, baton, SQL("COMMIT"), 200, GOOD);
    assert_int_equal(sbed_count(&b), 1);
    sbed_pipe(&b, clean, "{\"type\":\"store_sql\",\"sql_id\":4,\"sql\":\"SELECT 44\"}", 200, GOOD);
    char body[9000];
    snprintf(body, sizeof body, "{\"baton\":\"%s\",\"requests\":[]}", clean);
    sbed_expect(&b, "/dev/one/v3/pipeline", "", body, 404, "STREAM_NOT_FOUND");
    /* A restart takes what is open, and leaves the rest. */
    sbed_pipe(&b, baton, SQL("BEGIN") "," SQL("INSERT INTO t VALUES (2)"), 200, GOOD);
    assert_int_equal(batons_live(b.server->batons), 1);
    server_stop(b.server, 1000);
    sbed_start(&b);
    sbed_pipe(&b, clean, "{\"type\":\"execute\",\"stmt\":{\"sql_id\":4}}", 200, INT(44));
    sbed_pipe(&b, baton, SQL("COMMIT"), 410, "STREAM_EXPIRED");
    assert_int_equal(sbed_count(&b), 1);
    sbed_free(&b);
}

#define MORE(sql) "," STEP(sql)
#define NUMBERS                                                                                    \
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) SELECT x "    \
    "FROM c"
static void test_cursors(void **state)
{
    (void)state;
    struct sbed b;
    static const char big[] = "{\"batch\":{\"steps\":[" STEP("BEGIN") MORE(NUMBERS)
        MORE("INSERT INTO t VALUES (5)") MORE("nonsense") MORE("SELECT 'end'") "]}}";
    sbed_new(&b);
    CREATE(&b);
    sbed_expect(
        &b, "/v3/cursor", "",
        "{\"batch\":{\"steps\":[" STEP("INSERT INTO t VALUES (1)") "," STEP("SELECT 9") "]}}", 200,
        INT(9));
    struct answer a = sbed_ask(&b, "/v3/cursor", "", big);
    assert_int_equal(a.status, 200);
    assert_false(a.closed);
    const char *text = (char *)a.body.data;
    if (strncmp(text, "{\"baton\":\"", 10) != 0) fail_msg("%.100s", text);
    assert_non_null(strstr(text, INT(20000)));
    assert_non_null(strstr(text, "SQL_PARSE_ERROR"));
    assert_non_null(strstr(text, "end\""));
    char baton[8000];
    snprintf(baton, sizeof baton, "%.*s", (int)strcspn(text + 10, "\""), text + 10);
    answer_free(&a);
    sbed_pipe(&b, baton, SQL("COMMIT"), 200, GOOD);
    assert_int_equal(sbed_count(&b), 2);
    sbed_free(&b);
}

/* A client leaves a cursor in the middle and comes back for its transaction before that is noticed.
 * Its request waits without the working thread, of which there is one. */
static void test_left_cursor(void **state)
{
    (void)state;
    static const char endless[] = "{\"batch\":{\"steps\":[" STEP("BEGIN")
        MORE("INSERT INTO t VALUES (7)") MORE("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x "
                                              "+ 1 FROM c) SELECT x FROM c") "]}}";
    struct sbed b;
    char baton[8000] = "", other[8000] = "", body[9000], *at;
    sbed_prepare(&b);
    b.opts.work_threads = 1;
    sbed_start(&b);
    CREATE(&b);
    struct client cursor = client_connect(b.address), back = client_connect(b.address);
    sbed_send(&b, &cursor, "/v3/cursor", "", endless);
    while (cursor.in.size == 0 ||
           (at = memmem(cursor.in.data, cursor.in.size, "{\"baton\":\"", 10)) == NULL ||
           memmem(cursor.in.data, cursor.in.size, "base_url", 8) == NULL)
        assert_true(client_more(&cursor));
    at += 10;
    snprintf(baton, sizeof baton, "%.*s", (int)strcspn(at, "\""), at);
    snprintf(body, sizeof body, "{\"baton\":\"%s\",\"requests\":[%s]}", baton,
             SQL("COMMIT") "," SQL("SELECT max(a) FROM t"));
    sbed_send(&b, &back, PIPE, "", body);
    for (int i = 0; i < 500 && http_server_active(b.server->http) < 2; i++)
        os_sleep_ms(10);
    os_sleep_ms(50); /* more than it needs to get to where it waits */
    sbed_pipe(&b, other, SQL("BEGIN") "," SQL("SELECT 1"), 200, GOOD);
    client_close(&cursor);
    struct answer a = client_answer(&back, false);
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, INT(7)));
    answer_free(&a);
    client_close(&back);
    sbed_free(&b);
}

/* So many requests were answered with 200, of tenants of this class. */
static uint64_t answers_of(struct sbed *b, const char *class)
{
    static struct stats_sum sum;
    stats_look(b->server->stats, &sum);
    for (size_t i = 0; i < sum.class_count; i++)
        if (strcmp(sum.classes[i].name, class) == 0) return sum.classes[i].statuses[2];
    return 0;
}

/* A request whose stream is kept has given its tenant away when it is counted. */
static void test_class(void **state)
{
    (void)state;
    struct sbed b;
    char baton[8000] = "";
    sbed_prepare(&b);
    b.ts->conf.class = "paid";
    sbed_start(&b);
    sbed_pipe(&b, baton, SQL("BEGIN"), 200, GOOD);
    sbed_pipe(&b, baton, SQL("COMMIT"), 200, GOOD);
    struct answer a = sbed_ask(&b, "/v3/cursor", "", "{\"batch\":{\"steps\":[" STEP(NUMBERS) "]}}");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    sbed_expect(&b, "/health", "", NULL, 200, "");
    /* They are counted after they were answered. */
    int64_t end_ms = os_mono_ms() + 60000;
    while (answers_of(&b, "paid") + answers_of(&b, "none") < 4 && os_mono_ms() < end_ms)
        os_sleep_ms(1);
    assert_int_equal(answers_of(&b, "paid"), 3);
    assert_int_equal(answers_of(&b, "none"), 1);
    sbed_free(&b);
}

/* ---- WebSocket ---- */

static void test_ws(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    sbed_new(&b);
    /* All in one flight, while the tenant is being opened. */
    sbed_ws(&b, &p, "/");
    ws_say(&p, HELLO);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_say(&p, REQ(2, DO(1, "CREATE TABLE t(a INTEGER PRIMARY KEY)")));
    ws_say(&p, REQ(3, DO(1, "INSERT INTO t VALUES (1)")));
    ws_say(&p, REQ(4, SHUT(1)));
    ws_say(&p, REQ(5, DO(1, "SELECT 1")));
    ws_expect(&p, "hello_ok", "");
    ws_expect(&p, "response_ok", ID(1));
    ws_expect(&p, "response_ok", ID(2));
    ws_expect(&p, "response_ok", ID(3));
    ws_expect(&p, "response_ok", ID(4));
    ws_expect(&p, ID(5), "STREAM_NOT_OPEN");
    ws_say(&p, REQ(6, "{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"SELECT 66\"}"));
    ws_say(&p, REQ(7, OPEN(2)));
    ws_say(&p, REQ(8, "{\"type\":\"batch\",\"stream_id\":2,\"batch\":{\"steps\":[{\"stmt\":{\"sql_"
                      "id\":1}},{\"stmt\":{\"sql_id\":1}}]}}"));
    ws_say(&p, REQ(9, "{\"type\":\"close_sql\",\"sql_id\":1}"));
    for (int i = 0; i < 2; i++)
        ws_expect(&p, "response_ok", "");
    /* Streams do not wait for each other, nor does what concerns the connection. */
    ws_expect(&p, "response_ok", "");
    ws_expect(&p, "response_ok", "");
    ws_say(&p, REQ(10, "{\"type\":\"execute\",\"stream_id\":2,\"stmt\":{\"sql_id\":1}}"));
    peer_expect_close(&p, 1008);
    peer_fini(&p);
    static const char *const bad[] = {REQ(1, OPEN(1)), "{", HELLO "x"};
    static const unsigned codes[] = {1008, 1007, 1007};
    for (size_t i = 0; i < 3; i++) {
        sbed_ws(&b, &p, "/");
        ws_say(&p, bad[i]);
        peer_expect_close(&p, codes[i]);
        peer_fini(&p);
    }
    sbed_ws(&b, &p, "/dev/missing/");
    ws_say(&p, HELLO);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_expect(&p, "hello_error", "NAMESPACE_NOT_FOUND");
    peer_expect_close(&p, 1008);
    peer_fini(&p);
    sbed_free(&b);
}

#define THOUSANDS "SELECT hex(zeroblob(50000))"
/* Entries that nobody fetches have a limit, for a connection and for all; the little that most
 * cursors have is always there. */
static void test_ws_entries(void **state)
{
    (void)state;
    enum { PEERS = 12, CURSORS = 30 };
    struct sbed b;
    struct peer p[PEERS];
    char text[400];
    unsigned full = 0;
    sbed_prepare(&b);
    b.opts.byte_max = 1000000; /* so 2 MB of a connection, 8 MB of all */
    sbed_start(&b);
    for (int i = 0; i < PEERS; i++) {
        sbed_ws(&b, &p[i], "/");
        ws_say(&p[i], HELLO);
        ws_say(&p[i], REQ(1, OPEN(1)));
        ws_expect(&p[i], "hello_ok", "");
        ws_expect(&p[i], "response_ok", ID(1));
        for (int k = 0; k < CURSORS; k++) { /* 3 MB */
            snprintf(
                text, sizeof text,
                "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"open_cursor\","
                "\"stream_id\":1,\"cursor_id\":%d,\"batch\":{\"steps\":[" STEP(THOUSANDS) "]}}}",
                k);
            ws_say(&p[i], text);
            ws_expect(&p[i], "response_ok", ID(2));
        }
        assert_true(atomic_load(&b.server->entries) <= 8000000);
    }
    assert_true(atomic_load(&b.server->entries) > 7800000);
    ws_say(&p[0], REQ(3, FETCH(0)));
    ws_expect(&p[0], ID(3), "step_end");
    ws_say(&p[PEERS - 1], REQ(3, FETCH(0)));
    ws_expect(&p[PEERS - 1], ID(3), "RESPONSE_TOO_LARGE");
    ws_say(&p[PEERS - 1], REQ(4, CURSOR(1, 100, STEP("SELECT 41"))));
    ws_say(&p[PEERS - 1], REQ(5, FETCH(100)));
    ws_expect(&p[PEERS - 1], "response_ok", ID(4));
    ws_expect(&p[PEERS - 1], ID(5), INT(41));
    for (int k = 1; k < CURSORS; k++) { /* what is fetched is free, the cursor open or not */
        snprintf(text, sizeof text,
                 "{\"type\":\"request\",\"request_id\":6,\"request\":{\"type\":\"fetch_cursor\","
                 "\"cursor_id\":%d,\"max_count\":100}}",
                 k);
        ws_say(&p[0], text);
        struct frame f = {0};
        size_t whole = 0;
        assert_true(peer_next(&p[0], &f, &whole));
        full += memmem(f.data, f.size, "RESPONSE_TOO_LARGE", 18) != NULL;
        buf_drop_front(&p[0].in, whole);
    }
    assert_in_range(full, 9, 12); /* a connection had 2 MB and the free 64 KiB */
    assert_true(atomic_load(&b.server->entries) < 7000000);
    ws_say(&p[PEERS - 1], REQ(7, CURSOR(1, 101, STEP(THOUSANDS))));
    ws_say(&p[PEERS - 1], REQ(8, FETCH(101)));
    ws_expect(&p[PEERS - 1], "response_ok", ID(7));
    ws_expect(&p[PEERS - 1], ID(8), "step_end");
    for (int i = 0; i < PEERS; i++)
        peer_fini(&p[i]);
    for (int i = 0; i < 6000 && atomic_load(&b.server->entries) > 0; i++)
        os_sleep_ms(10);
    assert_int_equal(atomic_load(&b.server->entries), 0);
    sbed_free(&b);
}

/* Cursors of one stream and numbers that are used again on another one. */
static void test_ws_cursors(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    sbed_new(&b);
    CREATE(&b);
    sbed_ws(&b, &p, "/");
    ws_say(&p, HELLO);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_say(&p, REQ(2, OPEN(2)));
    ws_say(&p, REQ(3, CURSOR(1, 1, STEP("SELECT 31"))));
    ws_say(&p, REQ(4, FETCH(1)));
    ws_expect(&p, "hello_ok", "");
    for (int i = 1; i < 4; i++)
        ws_expect(&p, "response_ok", "");
    ws_expect(&p, ID(4), INT(31));
    /* Two closes, the second of which comes to its turn when the number is another stream's. */
    ws_say(&p, REQ(5, "{\"type\":\"sequence\",\"stream_id\":1,\"sql\":\"SELECT 1\"}"));
    ws_say(&p, REQ(6, UNCURSOR(1)));
    ws_say(
        &p,
        REQ(7,
            "{\"type\":\"execute\",\"stream_id\":1,\"stmt\":{\"sql\":\"WITH RECURSIVE c(x) AS "
            "(SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT max(x) FROM c\"}}"));
    ws_say(&p, REQ(8, UNCURSOR(1)));
    ws_say(&p, REQ(9, FETCH(1)));
    ws_expect(&p, "response_ok", ID(5));
    ws_expect(&p, "response_ok", ID(6));
    ws_say(&p, REQ(10, CURSOR(2, 1,
                              STEP("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c "
                                   "WHERE x < 90000) SELECT x FROM c"))));
    unsigned seen = 0;
    for (int i = 0; i < 4; i++) {
        struct frame f;
        size_t whole;
        assert_true(peer_next(&p, &f, &whole));
        if (f.first == CLOSE) fail_msg("%.*s", (int)f.size - 2, f.data + 2);
        if (memmem(f.data, f.size, ID(9), strlen(ID(9))) != NULL)
            assert_non_null(memmem(f.data, f.size, "CURSOR_NOT_OPEN", 15));
        seen++;
        buf_drop_front(&p.in, whole);
    }
    assert_int_equal(seen, 4);
    ws_say(&p, REQ(11, FETCH(1)));
    ws_expect(&p, ID(11), INT(1));
    ws_say(&p, REQ(12, SHUT(2)));
    ws_say(&p, REQ(13, FETCH(1)));
    ws_expect(&p, "response_ok", ID(12));
    ws_expect(&p, ID(13), "CURSOR_NOT_OPEN");
    peer_fini(&p);
    sbed_free(&b);
}

/* Requests that race with the end of their stream. */
static void test_ws_races(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    sbed_new(&b);
    CREATE(&b);
    sbed_ws(&b, &p, "/");
    ws_say(&p, HELLO);
    ws_expect(&p, "hello_ok", "");
    for (int round = 0; round < 100; round++) {
        ws_say(&p, REQ(1, OPEN(1)));
        ws_say(&p, REQ(2, "{\"type\":\"batch\",\"stream_id\":1,\"batch\":{\"steps\":[" STEP(
                              "INSERT INTO t VALUES (NULL)") "]}}"));
        ws_say(&p, REQ(3, CURSOR(1, 1, STEP("SELECT 1"))));
        ws_say(&p, REQ(4, SHUT(1)));
        ws_say(&p, REQ(5, FETCH(1)));
        ws_say(&p, REQ(6, CURSOR(1, 1, STEP("SELECT 1"))));
        ws_say(&p, REQ(7, DO(1, "SELECT 1")));
        for (int i = 0; i < 7; i++)
            ws_expect(&p, "\"type\":\"response_", "");
    }
    peer_fini(&p);
    sbed_free(&b);
}

/* More messages than may wait: nothing is lost. */
static void test_ws_flood(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    struct sbed b;
    struct peer p;
    struct buf out = BUF_INIT;
    sbed_new(&b);
    sbed_ws(&b, &p, "/");
    frame_put(&out, TEXT, HELLO, strlen(HELLO));
    frame_put(&out, TEXT, REQ(1, OPEN(1)), strlen(REQ(1, OPEN(1))));
    for (int i = 0; i < COUNT; i++) {
        static const char *const texts[] = {
            REQ(2, DO(1, "SELECT 1")), REQ(3, DO(1, "INSERT INTO none VALUES (1)")),
            REQ(4, "{\"type\":\"get_autocommit\",\"stream_id\":1}")};
        frame_put(&out, TEXT, texts[i % 3], strlen(texts[i % 3]));
    }
    peer_write(&p, out.data, out.size);
    for (int i = 0; i < COUNT + 2; i++)
        ws_expect(&p, "{", "");
    buf_fini(&out);
    peer_fini(&p);
    sbed_free(&b);
}

/* What the store has not confirmed is no success, on either way. */
static void test_not_durable(void **state)
{
    (void)state;
    struct sbed b;
    struct peer p;
    sbed_new(&b);
    CREATE(&b);
    fake_sync(b.ts, true);
    atomic_store(&b.ts->store, STORE_FAILS);
    sbed_expect(&b, PIPE, "", ONE("INSERT INTO t VALUES (1)"), 503, "NOT_DURABLE");
    sbed_ws(&b, &p, "/");
    ws_say(&p, HELLO);
    ws_say(&p, REQ(1, OPEN(1)));
    ws_say(&p, REQ(2, DO(1, "INSERT INTO t VALUES (2)")));
    ws_say(
        &p,
        REQ(3, "{\"type\":\"batch\",\"stream_id\":1,\"batch\":{\"steps\":[" STEP(
                   "INSERT INTO t "
                   "VALUES (3)") "," STEP("PRAGMA user_version = 3") "," STEP("SELECT 1") "]}}"));
    ws_say(&p, REQ(4, CURSOR(1, 1, STEP("INSERT INTO t VALUES (4)"))));
    ws_say(&p, REQ(5, DO(1, "SELECT 5")));
    ws_expect(&p, "hello_ok", "");
    ws_expect(&p, "response_ok", ID(1));
    for (int i = 2; i < 5; i++)
        ws_expect(&p, "response_error", "NOT_DURABLE");
    ws_expect(&p, ID(5), INT(5));
    peer_fini(&p);
    fake_sync(b.ts, false);
    assert_int_equal(sbed_count(&b), 4);
    sbed_free(&b);
}

struct badge { /* who asks with it */
    char token[2000];
};

static struct badge badge_new(const struct buf *key, const char *claims)
{
    CLEANUP(buf_fini) struct buf token = BUF_INIT;
    struct badge who;
    struct err err;
    assert_int_equal(jwt_sign((const char *)key->data, claims, &token, &err), RC_OK);
    snprintf(who.token, sizeof who.token, "%.*s", (int)token.size, (const char *)token.data);
    return who;
}

static void as(struct sbed *b, const struct badge *who, const char *body, const char *part)
{
    b->token = who->token;
    sbed_expect(b, PIPE, "", body, 200, part);
}

#define READS      ONE("SELECT v FROM secret")
#define WRITES     ONE("INSERT INTO t VALUES (5)")
#define RULE(rest) "{\"effect\":" rest "}"
#define ALL        RULE("\"allow\",\"actions\":[\"*\"]")
#define NO_WRITE   RULE("\"deny\",\"actions\":[\"insert\"]")
#define NO_SECRET  RULE("\"deny\",\"actions\":[\"read\"],\"tables\":[\"secret\"]")
#define TWO(a, b)  "{\"first\":[" a "," ALL "],\"second\":[" b "," ALL "]}"

/* Clients in turn on the same connections, whose statements are kept: each is held to its own
 * roles, and to those of now. */
static void test_roles(void **state)
{
    (void)state;
    struct sbed b;
    struct buf private = BUF_INIT, public = BUF_INIT;
    struct err err;
    assert_int_equal(jwt_key_new(JWT_HS256, &private, &public, &err), RC_OK);
    assert_int_equal(buf_append(&private, "", 1, &err), RC_OK);
    sbed_prepare(&b);
    b.ts->engine.idle_max = 1;
    b.opts.threads = 1;
    b.opts.auth = (struct auth_opts){.key_text = (const char *)private.data,
                                     .roles = TWO(NO_WRITE, NO_SECRET)};
    sbed_start(&b);
    const struct badge owner = badge_new(&private, "{}");
    const struct badge first = badge_new(&private, "{\"role\":\"first\"}");
    const struct badge second = badge_new(&private, "{\"role\":\"second\"}");
    const struct badge both = badge_new(&private, "{\"roles\":[\"first\",\"second\"]}");
    const struct badge own = badge_new(&private, "{\"rules\":[" NO_SECRET "," ALL "]}");
    as(&b, &owner, ONE("CREATE TABLE t(a)"), GOOD);
    as(&b, &owner, ONE("CREATE TABLE secret(v)"), GOOD);
    for (int round = 0; round < 6; round++) {
        bool swapped = round >= 3;
        as(&b, &owner, READS, GOOD);
        as(&b, &owner, WRITES, GOOD);
        as(&b, &first, READS, swapped ? "SQLITE_AUTH" : GOOD);
        as(&b, &first, WRITES, swapped ? GOOD : "SQLITE_AUTH");
        as(&b, &second, READS, swapped ? GOOD : "SQLITE_AUTH");
        as(&b, &second, WRITES, swapped ? "SQLITE_AUTH" : GOOD);
        as(&b, &both, READS, "SQLITE_AUTH");
        as(&b, &both, WRITES, "SQLITE_AUTH");
        as(&b, &own, READS, "SQLITE_AUTH");
        as(&b, &own, WRITES, GOOD);
        if (round != 2) continue;
        b.opts.auth.roles = TWO(NO_SECRET, NO_WRITE);
        assert_int_equal(server_reload(b.server, &b.opts.auth, &err), RC_OK);
    }
    sbed_free(&b);
    buf_fini(&private);
    buf_fini(&public);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),   cmocka_unit_test(test_batons),
        cmocka_unit_test(test_cursors),  cmocka_unit_test(test_left_cursor),
        cmocka_unit_test(test_ws),       cmocka_unit_test(test_ws_cursors),
        cmocka_unit_test(test_ws_races), cmocka_unit_test(test_ws_entries),
        cmocka_unit_test(test_ws_flood), cmocka_unit_test(test_not_durable),
        cmocka_unit_test(test_roles),    cmocka_unit_test(test_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
