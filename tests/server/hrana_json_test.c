/* hrana_json_test.c -- Hrana's messages from JSON: what is understood, what is refused, and bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "server/hrana_client_json.h"
#include "server/hrana_oracle.h"
#include "server/hrana_suite.h"
#include "server/json_pull.h"

#define STMT(members) "{\"requests\":[{\"type\":\"execute\",\"stmt\":{" members "}}]}"
#define ARG(members)  STMT("\"sql\":\"q\",\"args\":[{" members "}]")
#define COND(cond)                                                                                 \
    "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"a\"}},"         \
    "{\"condition\":" cond ",\"stmt\":{\"sql\":\"b\"}}]}}]}"

#define good(how, body, want) good_as(&hrana_json_decoder, how, body, strlen(body), want, __LINE__)
#define bad(how, body, want)  bad_as(&hrana_json_decoder, how, body, strlen(body), want, __LINE__)

static enum rc decode(char how, const void *data, size_t size, struct buf *text)
{
    return decode_as(&hrana_json_decoder, how, data, size, text);
}

static void test_requests(void **state)
{
    (void)state;
    good('p', "{\"baton\":null,\"requests\":[]}", "baton ");
    good('2', "{\"requests\":[],\"baton\":\"q\\/9+=\"}", "baton \"q/9+=\"");
    good('2',
         "{\"baton\":\"b\",\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT ?\","
         "\"args\":[{\"type\":\"integer\",\"value\":\"42\"}],\"named_args\":[],\"want_rows\":true}}"
         ",{\"type\":\"close\"}]}",
         "baton \"b\"\nexecute(stmt(\"SELECT ?\" args I42))\nclose()");
    good('p',
         "{\"requests\":[{\"sql\":\"a;b\",\"type\":\"sequence\",\"replication_index\":\"7\"},"
         "{\"type\":\"describe\",\"sql_id\":-2,\"sql\":null},"
         "{\"type\":\"store_sql\",\"sql_id\":\"5\",\"sql\":\"\"},{\"type\":\"close_sql\","
         "\"sql_id\":5},{\"type\":\"get_autocommit\"}]}",
         "baton \nsequence(\"a;b\") @7\ndescribe(id -2)\nstore_sql(id 5 \"\")\nclose_sql(id 5)\n"
         "get_autocommit()");
    good('2', "{\"requests\":[{\"type\":\"get_autocommit\"}]}", "baton \nget_autocommit()");
    good('p', STMT("\"sql_id\":3,\"want_rows\":false,\"replication_index\":18446744073709551615"),
         "baton \nexecute(stmt(id 3 norows)) @18446744073709551615");
    good('p',
         STMT("\"named_args\":[{\"name\":\"a\",\"value\":{\"type\":\"null\"}}],\"args\":"
              "[{\"type\":\"integer\",\"value\":1}],\"sql\":\"q\""),
         "baton \nexecute(stmt(\"q\" args I1 a= N))");
    good('p', STMT("\"sql\":\"q\",\"args\":null,\"named_args\":null,\"want_rows\":null"),
         "baton \nexecute(stmt(\"q\"))");
    good('p', STMT("\"sql\":\"a\",\"args\":[{\"type\":\"null\"}],\"sql\":\"b\",\"args\":[]"),
         "baton \nexecute(stmt(\"b\"))"); /* the last one counts */
    good('c',
         "{\"baton\":\"x\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"q\"}}],"
         "\"replication_index\":4}}",
         "baton \"x\"\nbatch(stmt(\"q\")) @4");
    good('e', "{\"stmt\":{\"sql\":\"q\"}}", "execute(stmt(\"q\"))");
    good('b', "{\"batch\":{\"steps\":[]}}", "batch(batch())");
}

static void test_ws(void **state)
{
    (void)state;
    static const char *const requests[][3] = {
        {"y", "{\"type\":\"open_stream\",\"stream_id\":1}", "open_stream(#1 )"},
        {"y", "{\"type\":\"close_stream\",\"stream_id\":-7}", "close_stream(#-7 )"},
        {"y", "{\"type\":\"execute\",\"stream_id\":2,\"stmt\":{\"sql\":\"q\"}}",
         "execute(#2 stmt(\"q\"))"},
        {"y", "{\"type\":\"batch\",\"stream_id\":2,\"batch\":{\"steps\":[]}}", "batch(#2 batch())"},
        {"x", "{\"type\":\"sequence\",\"stream_id\":2,\"sql\":\"q\"}", "sequence(#2 \"q\")"},
        {"x", "{\"type\":\"describe\",\"stream_id\":2,\"sql_id\":4}", "describe(#2 id 4)"},
        {"x", "{\"type\":\"store_sql\",\"sql_id\":4,\"sql\":\"q\"}", "store_sql(id 4 \"q\")"},
        {"x", "{\"type\":\"close_sql\",\"sql_id\":4}", "close_sql(id 4)"},
        {"x", "{\"type\":\"get_autocommit\",\"stream_id\":2}", "get_autocommit(#2 )"},
        {"w",
         "{\"type\":\"open_cursor\",\"stream_id\":2,\"cursor_id\":3,\"batch\":{\"steps\":"
         "[{\"condition\":null,\"stmt\":{\"sql\":\"q\"}}]}}",
         "open_cursor(#2 %3 batch(stmt(\"q\")))"},
        {"w", "{\"type\":\"close_cursor\",\"cursor_id\":3}", "close_cursor(%3 )"},
        {"w", "{\"type\":\"fetch_cursor\",\"cursor_id\":3,\"max_count\":4294967295}",
         "fetch_cursor(%3 max 4294967295)"},
    };
    good('w', "{\"type\":\"hello\",\"jwt\":null}", "hello ");
    good('y', "{\"type\":\"hello\",\"jwt\":\"a.b.c\"}", "hello \"a.b.c\"");
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        char body[512], want[128];
        snprintf(body, sizeof body, "{\"type\":\"request\",\"request_id\":-12,\"request\":%s}",
                 requests[i][1]);
        snprintf(want, sizeof want, "-12 %s", requests[i][2]);
        char since = *requests[i][0];
        good('w', body, want);
        good(since, body, want);
        if (since == 'x') bad('y', body, "is not part of Hrana 1 over WebSocket");
        if (since == 'w') bad('x', body, "is not part of Hrana 2 over WebSocket");
    }
    bad('w', "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"close\"}}",
        "'close' is not part of Hrana 3 over WebSocket");
    bad('w', "{\"type\":\"request\",\"request\":{\"type\":\"open_stream\"}}", "request_id");
    bad('w', "{\"type\":\"request\",\"request_id\":2147483648,\"request\":null}", "request_id");
    bad('w', "{\"type\":\"request\",\"request_id\":1}", "request");
    bad('w', "{\"type\":\"ping\"}", "'ping'");
    bad('w', "{}", "'hello'");
    bad('w', "{\"type\":\"hello\",\"jwt\":\"\\u0000\"}", "jwt: holds a NUL");
}

static void test_conds(void **state)
{
    (void)state;
    good('p', COND("{\"type\":\"ok\",\"step\":0}"),
         "baton \nbatch(batch(stmt(\"a\"); if ok 0: stmt(\"b\")))");
    good('p', COND("{\"step\":\"0\",\"type\":\"error\"}"),
         "baton \nbatch(batch(stmt(\"a\"); if error 0: stmt(\"b\")))");
    good('2',
         COND("{\"type\":\"or\",\"conds\":[{\"type\":\"not\",\"cond\":{\"type\":\"is_autocommit\"}}"
              ",{\"type\":\"and\",\"conds\":[]}]}"),
         "baton \nbatch(batch(stmt(\"a\"); if or(not(autocommit), and()): stmt(\"b\")))");
    bad('p', COND("{\"type\":\"ok\",\"step\":1}"), "Invalid reference to step");
    bad('p', COND("{\"type\":\"and\",\"conds\":[{\"type\":\"error\",\"step\":9}]}"), "steps[1]");
    bad('p', COND("{\"type\":\"ok\"}"), "has no step");
    bad('p', COND("{\"type\":\"not\"}"), "has no cond");
    bad('p', COND("{\"type\":\"or\",\"conds\":null}"), "has no conds");
    bad('p', COND("{\"type\":\"xor\"}"), "unknown type of condition 'xor'");
    bad('p', COND("{\"type\":\"and\",\"conds\":[null]}"), "condition");
    bad('p', COND("{\"type\":\"ok\",\"step\":-1}"), "step");
    bad('b',
        "{\"batch\":{\"steps\":[{\"condition\":{\"type\":\"is_autocommit\"},\"stmt\":{\"sql\":"
        "\"q\"}}]}}",
        "Hrana 2");
}

static void test_values(void **state)
{
    (void)state;
    static const char *const values[][2] = {
        {"\"type\":\"null\"", "N"},
        {"\"type\":\"null\",\"value\":7", "N"},
        {"\"type\":\"integer\",\"value\":\"-9223372036854775808\"", "I-9223372036854775808"},
        {"\"type\":\"integer\",\"value\":9223372036854775807", "I9223372036854775807"},
        {"\"value\":-9223372036854775808,\"type\":\"integer\"", "I-9223372036854775808"},
        {"\"type\":\"integer\",\"value\":\"\\u0031\\u0032\"", "I12"},
        {"\"type\":\"float\",\"value\":1", "F1"},
        {"\"type\":\"float\",\"value\":-0", "F-0"},
        {"\"type\":\"float\",\"value\":0.1", "F0.10000000000000001"},
        {"\"type\":\"float\",\"value\":100000000000000000000", "F1e+20"},
        {"\"type\":\"float\",\"value\":1.7976931348623157e308", "F1.7976931348623157e+308"},
        {"\"type\":\"float\",\"value\":5E-324", "F4.9406564584124654e-324"},
        {"\"type\":\"float\",\"value\":9007199254740993.0", "F9007199254740992"},
        {"\"type\":\"float\",\"value\":123456789012345.6", "F123456789012345.59"},
        {"\"type\":\"float\",\"value\":null", "Fnan"},
        {"\"type\":\"text\",\"value\":\"\"", "T\"\""},
        {"\"type\":\"text\",\"value\":\"a\\u0000b\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
         "T\"a\\00b\\f0\\9f\\98\\80\\22\\5c/\\08\\0c\\0a\\0d\\09\""},
        {"\"type\":\"text\",\"value\":\"\\u00e9\\u20AC\xC3\xA9\"",
         "T\"\\c3\\a9\\e2\\82\\ac\\c3\\a9\""},
        {"\"type\":\"blob\",\"base64\":\"\"", "B"},
        {"\"type\":\"blob\",\"base64\":\"AA\"", "B00"},
        {"\"type\":\"blob\",\"base64\":\"AAE=\"", "B0001"},
        {"\"type\":\"blob\",\"base64\":\"-_+/AA==\"", "Bfbffbf00"},
        {"\"type\":\"blob\",\"base64\":\"AAECAw\"", "B00010203"},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char body[256], want[128];
        snprintf(body, sizeof body, ARG("%s"), values[i][0]);
        snprintf(want, sizeof want, "baton \nexecute(stmt(\"q\" args %s))", values[i][1]);
        good('p', body, want);
    }
    bad('p', ARG("\"type\":\"integer\",\"value\":9223372036854775808"), "args[0]: an integer");
    bad('p', ARG("\"type\":\"integer\",\"value\":\"-9223372036854775809\""), "64 bits");
    bad('p', ARG("\"type\":\"integer\",\"value\":1.0"), "64 bits");
    bad('p', ARG("\"type\":\"integer\",\"value\":\"\""), "64 bits");
    bad('p', ARG("\"type\":\"integer\",\"value\":\"1 \""), "64 bits");
    bad('p', ARG("\"type\":\"integer\""), "64 bits");
    bad('p', ARG("\"type\":\"float\",\"value\":\"1\""), "a float is not a number");
    bad('p', ARG("\"type\":\"float\",\"value\":1e999"), "a float is too large");
    bad('p', ARG("\"type\":\"text\",\"value\":1"), "a text is not a string");
    bad('p', ARG("\"type\":\"text\",\"value\":true"), "a text is not a string");
    bad('p', ARG("\"type\":\"text\",\"value\":[]"), "value: expected");
    bad('p', ARG("\"type\":\"blob\",\"value\":\"AA\""), "no base64");
    bad('p', ARG("\"type\":\"blob\",\"base64\":\"A\""), "cut off");
    bad('p', ARG("\"type\":\"blob\",\"base64\":\"AAA*\""), "base64 at 3");
    bad('p', ARG("\"type\":\"blob\",\"base64\":\"A===\""), "base64");
    bad('p', ARG("\"type\":\"boolean\",\"value\":true"), "unknown type of value 'boolean'");
    bad('p', ARG(""), "unknown type of value ''");
}

static void test_refused(void **state)
{
    (void)state;
    bad('p', "", "too early");
    bad('p', "[]", "the body: expected an object");
    bad('p', "{}", "no requests");
    bad('p', "{\"requests\":null}", "no requests");
    bad('p', "{\"requests\":{}}", "requests: expected an array");
    bad('p', "{\"requests\":[]} x", "follows");
    bad('p', "{\"requests\":[],\"baton\":1}", "baton: expected a string");
    bad('p', "{\"requests\":[1]}", "requests[0]: a request: expected an object");
    bad('p', "{\"requests\":[{}]}", "requests[0]: a request has no type");
    bad('p', "{\"requests\":[{\"type\":\"execute\"}]}", "'execute' needs a stmt");
    bad('p', "{\"requests\":[{\"type\":\"batch\",\"batch\":null}]}", "'batch' needs a batch");
    bad('p', "{\"requests\":[{\"type\":\"batch\",\"batch\":{}}]}", "a batch has no steps");
    bad('p', "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{}]}}]}", "no stmt");
    bad('p', "{\"requests\":[{\"type\":\"sequence\"}]}", "sql or sql_id is missing");
    bad('p', "{\"requests\":[{\"type\":\"store_sql\",\"sql_id\":1}]}", "needs sql");
    bad('p', "{\"requests\":[{\"type\":\"open_stream\"}]}", "not part of Hrana 3 over HTTP");
    bad('p', "{\"requests\":[{\"type\":\"x\"}]}", "unknown type of request 'x'");
    bad('p', STMT("\"sql\":\"a\",\"sql_id\":1"), "exclude");
    bad('p', STMT("\"args\":[]"), "stmt: sql or sql_id is missing");
    bad('p', STMT("\"sql\":1"), "sql: expected a string");
    bad('p', STMT("\"sql\":\"a\",\"want_rows\":1"), "want_rows");
    bad('p', STMT("\"sql\":\"a\",\"named_args\":[{\"name\":\"a\"}]"), "needs name and value");
    bad('p', STMT("\"sql\":\"a\",\"replication_index\":-1"), "replication_index");
    bad('p', "{\"requests\":[],\"x\":01}", "number");
    bad('p', "{\"requests\":[],\"x\":1.}", "number");
    bad('p', "{\"requests\":[],\"x\":-}", "number");
    bad('p', "{\"requests\":[],\"x\":.5}", "value");
    bad('p', "{\"requests\":[],\"x\":nul}", "value");
    bad('p', "{\"requests\":[],\"x\":\"\\ud83d\"}", "surrogate");
    bad('p', "{\"requests\":[],\"x\":\"\\ude00\"}", "surrogate");
    bad('p', "{\"requests\":[],\"x\":\"\\x\"}", "escape");
    bad('p', "{\"requests\":[],\"x\":\"\\u12g4\"}", "escape");
    bad('p', "{\"requests\":[],\"x\":\"\n\"}", "control");
    bad('p', "{\"requests\":[],\"x\":\"\xC3\"}", "UTF-8");
    bad('p', "{\"requests\":[],\"x\":\"\xED\xA0\x80\"}", "UTF-8");
    bad('p', "{\"requests\":[],\"x\":\"\xF4\x90\x80\x80\"}", "UTF-8");
    bad('p', "{\"requests\":[],\"\\u0000\":1}", "NUL");
    bad('p', "{\"requests\":[],}", "key");
    bad('p', "{\"requests\":[,]}", "value");
    bad('p', "{\"requests\":[{\"type\":\"close\"},]}", "value");
}

/* A body that is cut off anywhere is refused, and nothing beyond its end is read (ASan sees it). */
static void test_cut(void **state)
{
    (void)state;
    struct buf body = BUF_INIT;
    noise_seed();
    struct arena *mine;
    assert_int_equal(arena_new(1u << 20, &mine, &err), RC_OK);
    say(&body, "{\"requests\":[");
    for (int i = 0; i < 8; i++) {
        struct hrana_request r;
        make_request(mine, false, &r);
        if (i > 0) say(&body, ",");
        json_request(&body, &r);
    }
    say(&body, "]}");
    assert_int_equal(decode('p', body.data, body.size, NULL), RC_OK);
    for (size_t size = 0; size < body.size; size++)
        assert_int_equal(decode('p', body.data, size, NULL), RC_INVALID);
    buf_fini(&body);
    arena_free(mine);
}

static void test_random(void **state)
{
    (void)state;
    struct arena *mine;
    noise_seed();
    assert_int_equal(arena_new(1u << 20, &mine, &err), RC_OK);
    for (int round = 0; round < 3000; round++) {
        struct buf body = BUF_INIT, want = BUF_INIT, got = BUF_INIT, third = BUF_INIT;
        struct hrana_request r[3];
        bool ws = round % 2 == 0;
        arena_reset(mine);
        if (ws) {
            struct hrana_ws_msg m = {.request_id = (int32_t)noise()};
            make_request(mine, true, &m.request);
            dump_ws(&want, &m);
            say(&body, "{\"request_id\":%d,\"request\":", m.request_id);
            json_request(&body, &m.request);
            say(&body, ",\"type\":\"request\"}");
        } else {
            struct hrana_pipeline p = {.requests = r, .count = noise() % 4};
            say(&body, "{\"requests\"%s:[%s", blank(), blank());
            for (size_t i = 0; i < p.count; i++) {
                make_request(mine, false, &r[i]);
                if (i > 0) say(&body, "%s,", blank());
                json_request(&body, &r[i]);
            }
            say(&body, "]}");
            dump_pipeline(&want, &p);
        }
        enum rc rc = decode(ws ? 'w' : 'p', body.data, body.size, &got);
        if (rc != RC_OK) fail_msg("%s: %.*s", err.text, (int)body.size, body.data);
        assert_int_equal(got.size, want.size);
        assert_memory_equal(got.data, want.data, want.size);
        if (!ws) {
            int known = oracle_pipeline(&third, body.data, body.size, HRANA_3);
            assert_int_not_equal(known, 0);
            if (known == 1) assert_memory_equal(got.data, third.data, third.size);
        }
        buf_fini(&body);
        buf_fini(&want);
        buf_fini(&got);
        buf_fini(&third);
    }
    arena_free(mine);
}

/* `head`, `unit` n times with commas between, `tail`. */
static enum rc decode_many(const char *head, const char *unit, size_t n, const char *tail)
{
    struct buf body = BUF_INIT;
    say(&body, "%s", head);
    for (size_t i = 0; i < n; i++)
        say(&body, "%s%s", i > 0 ? "," : "", unit);
    say(&body, "%s", tail);
    enum rc rc = decode('p', body.data, body.size, NULL);
    buf_fini(&body);
    return rc;
}

static enum rc decode_deep(const char *unit, const char *unit_end, size_t n)
{
    struct buf body = BUF_INIT;
    say(&body, "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"condition\":");
    for (size_t i = 1; i < n; i++)
        say(&body, "%s", unit);
    say(&body, "{\"type\":\"is_autocommit\"}");
    for (size_t i = 1; i < n; i++)
        say(&body, "%s", unit_end);
    say(&body, ",\"stmt\":{\"sql\":\"q\"}}]}}]}");
    enum rc rc = decode('p', body.data, body.size, NULL);
    buf_fini(&body);
    return rc;
}

static void test_bounds(void **state)
{
    (void)state;
    static const char close[] = "{\"type\":\"close\"}", step[] = "{\"stmt\":{\"sql\":\"q\"}}";
    static const char steps[] = "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[";
    static const char args[] = "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"q\","
                               "\"args\":[";
    static const char conds[] = "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{"
                                "\"stmt\":{\"sql\":\"q\"},\"condition\":{\"type\":\"or\","
                                "\"conds\":[";
    static const char deep[] = "{\"type\":\"and\",\"conds\":[", deep_end[] = "]}";
    const size_t conds_max = HRANA_CONDS_MAX - 1; /* and the list itself */
    assert_int_equal(decode_many("{\"requests\":[", close, HRANA_REQUESTS_MAX, "]}"), RC_OK);
    assert_int_equal(decode_many("{\"requests\":[", close, HRANA_REQUESTS_MAX + 1, "]}"),
                     RC_TOO_BIG);
    assert_int_equal(decode_many(steps, step, HRANA_STEPS_MAX, "]}}]}"), RC_OK);
    assert_int_equal(decode_many(steps, step, HRANA_STEPS_MAX + 1, "]}}]}"), RC_TOO_BIG);
    assert_int_equal(decode_many(args, "{\"type\":\"null\"}", HRANA_ARGS_MAX, "]}}]}"), RC_OK);
    assert_int_equal(decode_many(args, "{\"type\":\"null\"}", HRANA_ARGS_MAX + 1, "]}}]}"),
                     RC_TOO_BIG);
    assert_int_equal(decode_many(conds, "{\"type\":\"is_autocommit\"}", conds_max, "]}}]}}]}"),
                     RC_OK);
    assert_int_equal(decode_many(conds, "{\"type\":\"is_autocommit\"}", conds_max + 1, "]}}]}}]}"),
                     RC_TOO_BIG);
    assert_int_equal(decode_deep("{\"type\":\"not\",\"cond\":", "}", HRANA_DEPTH_MAX), RC_OK);
    assert_int_equal(decode_deep("{\"type\":\"not\",\"cond\":", "}", HRANA_DEPTH_MAX + 1),
                     RC_TOO_BIG);
    assert_int_equal(decode_deep(deep, deep_end, HRANA_DEPTH_MAX), RC_OK);
    assert_int_equal(decode_deep(deep, deep_end, HRANA_DEPTH_MAX + 1), RC_TOO_BIG);
    struct buf nested = BUF_INIT;
    say(&nested, "{\"requests\":[],\"x\":");
    for (int i = 0; i < 100000; i++)
        say(&nested, "[");
    assert_int_equal(decode('p', nested.data, nested.size, NULL), RC_TOO_BIG);
    buf_fini(&nested);
}

static void test_arena(void **state)
{
    (void)state;
    struct arena *a;
    void *p, *q;
    const size_t max = 100000;
    arena_free(NULL);
    assert_int_equal(arena_new(max, &a, &err), RC_OK);
    size_t taken = 0;
    for (size_t size = 1; arena_take(a, size, &p, &err) == RC_OK; size += 7) {
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(((uint8_t *)p)[i], 0);
        memset(p, 0xa5, size);
        taken += size;
    }
    assert_int_equal(err.rc, RC_TOO_BIG);
    assert_true(taken <= max && taken > max / 2);
    arena_reset(a);
    /* What stays is enough for the same again, without an allocation. */
    assert_int_equal(arena_take(a, 1000, &p, &err), RC_OK);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(((uint8_t *)p)[i], 0);
    arena_reset(a);
    uint64_t before = mem_alloc_count();
    assert_int_equal(arena_take(a, 1000, &q, &err), RC_OK);
    assert_ptr_equal(p, q);
    assert_int_equal(mem_alloc_count(), before);
    assert_int_equal(arena_take(a, max + 1, &p, &err), RC_TOO_BIG);
    assert_int_equal(arena_take(a, SIZE_MAX, &p, &err), RC_TOO_BIG);
    assert_int_equal(arena_take(a, SIZE_MAX - 3, &p, &err), RC_TOO_BIG);
    arena_free(a);
    /* A request whose arena is too small is refused with that word. */
    struct hrana_pipeline pipeline;
    static const char body[] = STMT("\"sql\":\"q\",\"args\":[{\"type\":\"null\"}]");
    assert_int_equal(arena_new(64, &a, &err), RC_OK);
    assert_int_equal(
        hrana_json_decoder.pipeline(a, HRANA_3, body, sizeof body - 1, &pipeline, &err),
        RC_TOO_BIG);
    assert_non_null(strstr(err.text, "64 bytes of memory"));
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_ws),
        cmocka_unit_test(test_conds),    cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_cut),
        cmocka_unit_test(test_random),   cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_arena),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
