/* hrana_proto_test.c -- Hrana's messages from protobuf: each field, what is skipped and refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "server/hrana_client_proto.h"
#include "server/hrana_suite.h"

#define GOOD(how, data, want)                                                                      \
    good_as(&hrana_proto_decoder, how, data, sizeof data - 1, want, __LINE__)
#define BAD(how, data, want)                                                                       \
    bad_as(&hrana_proto_decoder, how, data, sizeof data - 1, want, __LINE__)

static enum rc decode(char how, const void *data, size_t size, struct buf *text)
{
    return decode_as(&hrana_proto_decoder, how, data, size, text);
}

static void test_http(void **state)
{
    (void)state;
    GOOD('p', "", "baton ");
    GOOD('p',
         "\x0a\x02"
         "b1\x12\x02\x0a\x00",
         "baton \"b1\"\nclose()");
    GOOD('p', "\x12\x07\x12\x05\x0a\x03\x0a\x01q", "baton \nexecute(stmt(\"q\"))");
    GOOD('p', "\x12\x0b\x12\x09\x0a\x07\x10\x07\x28\x00\x30\xac\x02",
         "baton \nexecute(stmt(id 7 norows)) @300");
    GOOD('p', "\x12\x0b\x1a\x09\x0a\x07\x0a\x05\x12\x03\x0a\x01q",
         "baton \nbatch(batch(stmt(\"q\")))");
    GOOD('p', "\x12\x07\x22\x05\x0a\x01x\x18\x09", "baton \nsequence(\"x\") @9");
    GOOD('p', "\x12\x04\x2a\x02\x10\x05", "baton \ndescribe(id 5)");
    GOOD('p', "\x12\x07\x32\x05\x08\x05\x12\x01s", "baton \nstore_sql(id 5 \"s\")");
    GOOD('p', "\x12\x04\x32\x02\x08\x05", "baton \nstore_sql(id 5 \"\")");
    GOOD('p', "\x12\x0d\x3a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
         "baton \nclose_sql(id -1)");
    GOOD('p', "\x12\x02\x42\x00", "baton \nget_autocommit()");
    GOOD('p', "\x12\x04\x0a\x00\x42\x00", "baton \nget_autocommit()"); /* the last of a oneof */
    GOOD('c', "\x0a\x01z\x12\x09\x0a\x05\x12\x03\x0a\x01q\x10\x04",
         "baton \"z\"\nbatch(stmt(\"q\")) @4");
    BAD('c', "\x0a\x01z", "no batch");
    BAD('p', "\x12\x00", "requests[0]: a request of unknown type");
    BAD('p', "\x12\x02\x4a\x00", "requests[0]: a request of unknown type");
    BAD('p', "\x12\x02\x12\x00", "'execute' needs a stmt");
    BAD('p', "\x12\x04\x12\x02\x0a\x00", "sql or sql_id is missing");
    BAD('p', "\x12\x02\x1a\x00", "'batch' needs a batch");
    BAD('p', "\x12\x06\x1a\x04\x0a\x02\x0a\x00", "a step has no stmt");
    BAD('p', "\x12\x02\x22\x00", "sql or sql_id is missing");
    BAD('p', "\x12\x09\x12\x07\x0a\x05\x0a\x01q\x10\x01", "exclude");
    BAD('p', "\x0a\x01\x00", "baton: holds a NUL");
}

static void test_ws(void **state)
{
    (void)state;
    GOOD('y', "\x0a\x00", "hello ");
    GOOD('w', "\x0a\x05\x0a\x03jwt", "hello \"jwt\"");
    GOOD('y', "\x12\x06\x08\x01\x12\x02\x08\x05", "1 open_stream(#5 )");
    GOOD('y', "\x12\x04\x1a\x02\x08\x05", "0 close_stream(#5 )");
    GOOD('y', "\x12\x09\x22\x07\x08\x02\x12\x03\x0a\x01q", "0 execute(#2 stmt(\"q\"))");
    GOOD('y', "\x12\x06\x2a\x04\x08\x02\x12\x00", "0 batch(#2 batch())");
    GOOD('w', "\x12\x08\x32\x06\x08\x02\x10\x03\x1a\x00", "0 open_cursor(#2 %3 batch())");
    GOOD('w', "\x12\x04\x3a\x02\x08\x03", "0 close_cursor(%3 )");
    GOOD('w', "\x12\x06\x42\x04\x08\x03\x10\x0a", "0 fetch_cursor(%3 max 10)");
    GOOD('w', "\x12\x09\x4a\x07\x08\x02\x12\x01x\x20\x09", "0 sequence(#2 \"x\") @9");
    GOOD('w', "\x12\x06\x52\x04\x08\x02\x18\x05", "0 describe(#2 id 5)");
    GOOD('w', "\x12\x07\x5a\x05\x08\x05\x12\x01s", "0 store_sql(id 5 \"s\")");
    GOOD('w', "\x12\x04\x62\x02\x08\x05", "0 close_sql(id 5)");
    GOOD('w', "\x12\x04\x6a\x02\x08\x02", "0 get_autocommit(#2 )");
    BAD('y', "\x12\x04\x6a\x02\x08\x02", "not part of Hrana 1");
    BAD('w', "\x12\x02\x08\x01", "request: a request of unknown type");
    BAD('w', "", "neither hello nor request");
    BAD('w', "\x18\x01", "neither hello nor request");
}

static void test_values(void **state)
{
    (void)state;
#define VALUE(n, n2, n4, n6, bytes) "\x12" n6 "\x12" n4 "\x0a" n2 "\x0a\x01q\x1a" n bytes
#define ARGS(text)                  "baton \nexecute(stmt(\"q\" args " text "))"
    GOOD('p', VALUE("\x02", "\x07", "\x09", "\x0b", "\x0a\x00"), ARGS("N"));
    GOOD('p', VALUE("\x02", "\x07", "\x09", "\x0b", "\x10\x03"), ARGS("I-2"));
    GOOD('p', VALUE("\x0b", "\x10", "\x12", "\x14", "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
         ARGS("I-9223372036854775808"));
    GOOD('p', VALUE("\x0b", "\x10", "\x12", "\x14", "\x10\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
         ARGS("I9223372036854775807"));
    GOOD('p', VALUE("\x09", "\x0e", "\x10", "\x12", "\x19\0\0\0\0\0\0\xf8\x3f"), ARGS("F1.5"));
    GOOD('p', VALUE("\x09", "\x0e", "\x10", "\x12", "\x19\0\0\0\0\0\0\xf8\x7f"), ARGS("Fnan"));
    GOOD('p',
         VALUE("\x05", "\x0a", "\x0c", "\x0e",
               "\x22\x03\x00\xff"
               "a"),
         ARGS("T\"\\00\\ffa\""));
    GOOD('p', VALUE("\x02", "\x07", "\x09", "\x0b", "\x22\x00"), ARGS("T\"\""));
    GOOD('p', VALUE("\x04", "\x09", "\x0b", "\x0d", "\x2a\x02\x00\xff"), ARGS("B00ff"));
    /* The last of a oneof counts; a number in place of bytes is an unknown field. */
    GOOD('p', VALUE("\x04", "\x09", "\x0b", "\x0d", "\x22\x00\x10\x04"), ARGS("I2"));
    GOOD('p', VALUE("\x04", "\x09", "\x0b", "\x0d", "\x10\x04\x20\x05"), ARGS("I2"));
    BAD('p', VALUE("\x00", "\x05", "\x07", "\x09", ""), "args[0]: a value of unknown type");
    GOOD('p', "\x12\x10\x12\x0e\x0a\x0c\x0a\x01q\x22\x07\x0a\x01n\x12\x02\x10\x02", ARGS("n= I1"));
    BAD('p', "\x12\x0c\x12\x0a\x0a\x08\x0a\x01q\x22\x03\x0a\x01n", "named_args[0]");
}

#define COND(n, n2, n4, n6, n8, cond)                                                              \
    "\x12" n8 "\x1a" n6 "\x0a" n4 "\x0a\x05\x12\x03\x0a\x01"                                       \
    "a\x0a" n2 "\x0a" n cond "\x12\x03\x0a\x01"                                                    \
    "b"
#define IF(text) "baton \nbatch(batch(stmt(\"a\"); if " text ": stmt(\"b\")))"

static void test_conds(void **state)
{
    (void)state;
#define COND2(cond) COND("\x02", "\x09", "\x12", "\x14", "\x16", cond)
#define COND4(cond) COND("\x04", "\x0b", "\x14", "\x16", "\x18", cond)
    GOOD('p', COND2("\x08\x00"), IF("ok 0"));
    GOOD('p', COND2("\x10\x00"), IF("error 0"));
    GOOD('p', COND2("\x22\x00"), IF("and()"));
    GOOD('p', COND2("\x2a\x00"), IF("or()"));
    GOOD('p', COND2("\x32\x00"), IF("autocommit"));
    GOOD('p', COND4("\x1a\x02\x08\x00"), IF("not(ok 0)"));
    GOOD('p', COND("\x06", "\x0d", "\x16", "\x18", "\x1a", "\x2a\x04\x0a\x02\x32\x00"),
         IF("or(autocommit)"));
    BAD('p', COND2("\x08\x01"), "Invalid reference");
    BAD('p', COND2("\x38\x01"), "a condition of unknown type");
    BAD('p', COND2("\x1a\x00"), "a condition of unknown type");
    BAD('y', "\x12\x0f\x2a\x0d\x12\x0b\x0a\x09\x0a\x02\x32\x00\x12\x03\x0a\x01q", "Hrana 2");
}

static void test_wire(void **state)
{
    (void)state;
    /* Unknown fields of all wire types around a close. */
    GOOD('p',
         "\x98\x06\x05\x12\x02\x0a\x00\x99\x06"
         "12345678\x9a\x06\x02zz\x9d\x06"
         "1234",
         "baton \nclose()");
    GOOD('p', "\x12\x83\x00\x0a\x80\x00", "baton \nclose()"); /* longer varints than need be */
    GOOD('p', "\x12\x82\x80\x80\x80\x80\x80\x80\x80\x80\x00\x0a\x00", "baton \nclose()");
    BAD('p', "\x12\x82\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x0a\x00", "length is malformed");
    BAD('p', "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "varint is malformed");
    BAD('p', "\x80", "varint is malformed");
    BAD('p', "\x18", "varint is malformed");
    BAD('p', "\x00\x01", "no valid number");
    BAD('p', "\x80\x80\x80\x80\x10\x01", "no valid number");
    BAD('p', "\x1b\x1c", "wire type 3");
    BAD('p', "\x1c", "wire type 4");
    BAD('p', "\x1e", "wire type 6");
    BAD('p', "\x1f", "wire type 7");
    BAD('p',
        "\x19"
        "1234567",
        "longer than what holds it");
    BAD('p',
        "\x1d"
        "123",
        "longer than what holds it");
    BAD('p', "\x12\x03\x0a\x00", "longer than what holds it");
    BAD('p', "\x12\x02\x0a\x01", "longer than what holds it");
    BAD('p', "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than what holds it");
}

/* Cut off anywhere, it is refused, but where one of the requests ends. */
static void test_cut(void **state)
{
    (void)state;
    struct buf body = BUF_INIT;
    struct hrana_request r;
    struct arena *mine;
    size_t ends[9] = {0}, ok = 0;
    noise_seed();
    assert_int_equal(arena_new(1u << 20, &mine, &err), RC_OK);
    for (int i = 1; i < 9; i++) {
        struct buf msg = BUF_INIT;
        make_request(mine, false, &r);
        pb_request(&msg, false, &r);
        pb_msg(&body, 2, &msg);
        ends[i] = body.size;
    }
    for (size_t size = 0; size <= body.size; size++) {
        bool whole = size == ends[ok];
        assert_int_equal(decode('p', body.data, size, NULL), whole ? RC_OK : RC_INVALID);
        ok += whole;
    }
    assert_int_equal(ok, 9);
    buf_fini(&body);
    arena_free(mine);
}

/* The one of a statement or a batch stands inside of them, where pb_stmt does not put it. */
static void drop_index(struct hrana_request *r)
{
    if (r->type != HRANA_SEQUENCE && r->type != HRANA_DESCRIBE) r->replication_index = 0;
}

static void test_random(void **state)
{
    (void)state;
    struct arena *mine;
    noise_seed();
    assert_int_equal(arena_new(1u << 20, &mine, &err), RC_OK);
    for (int round = 0; round < 3000; round++) {
        struct buf body = BUF_INIT, want = BUF_INIT, got = BUF_INIT, msg = BUF_INIT;
        struct hrana_request r[3];
        bool ws = round % 2 == 0;
        arena_reset(mine);
        if (ws) {
            struct hrana_ws_msg m = {.request_id = (int32_t)noise()};
            make_request(mine, true, &m.request);
            drop_index(&m.request);
            dump_ws(&want, &m);
            pb_request(&msg, true, &m.request);
            pb_number(&msg, 1, (uint64_t)(int64_t)m.request_id);
            pb_msg(&body, 2, &msg);
        } else {
            struct hrana_pipeline p = {.requests = r, .count = noise() % 4};
            for (size_t i = 0; i < p.count; i++) {
                make_request(mine, false, &r[i]);
                drop_index(&r[i]);
                pb_request(&msg, false, &r[i]);
                pb_msg(&body, 2, &msg);
                pb_unknown(&body);
            }
            dump_pipeline(&want, &p);
        }
        enum rc rc = decode(ws ? 'w' : 'p', body.data, body.size, &got);
        if (rc != RC_OK) fail_msg("%s: %.*s", err.text, (int)want.size, want.data);
        assert_int_equal(got.size, want.size);
        assert_memory_equal(got.data, want.data, want.size);
        buf_fini(&body);
        buf_fini(&want);
        buf_fini(&got);
    }
    arena_free(mine);
}

/* n elements `unit` in field 1 of a message, which is field `number` of each of the messages
 * around it, outermost last. */
static enum rc decode_many(const void *unit, size_t unit_size, size_t n, unsigned element,
                           const uint8_t *around)
{
    struct buf msg = BUF_INIT;
    say(&msg, "%s", around[0] == 1 && element == 3 ? "\x0a\x01q" : "");
    for (size_t i = 0; i < n; i++)
        pb_bytes(&msg, element, unit, unit_size);
    for (; *around != 0; around++) {
        struct buf outer = BUF_INIT;
        pb_msg(&outer, *around, &msg);
        msg = outer;
    }
    enum rc rc = decode('p', msg.data, msg.size, NULL);
    buf_fini(&msg);
    return rc;
}

static void test_bounds(void **state)
{
    (void)state;
    static const uint8_t top[] = {0}, batch[] = {1, 3, 2, 0}, stmt[] = {1, 2, 2, 0};
    assert_int_equal(decode_many("\x0a\x00", 2, HRANA_REQUESTS_MAX, 2, top), RC_OK);
    assert_int_equal(decode_many("\x0a\x00", 2, HRANA_REQUESTS_MAX + 1, 2, top), RC_TOO_BIG);
    assert_int_equal(decode_many("\x12\x03\x0a\x01q", 5, HRANA_STEPS_MAX, 1, batch), RC_OK);
    assert_int_equal(decode_many("\x12\x03\x0a\x01q", 5, HRANA_STEPS_MAX + 1, 1, batch),
                     RC_TOO_BIG);
    assert_int_equal(decode_many("\x0a\x00", 2, HRANA_ARGS_MAX, 3, stmt), RC_OK);
    assert_int_equal(decode_many("\x0a\x00", 2, HRANA_ARGS_MAX + 1, 3, stmt), RC_TOO_BIG);
    for (unsigned n = HRANA_DEPTH_MAX - 1; n <= HRANA_DEPTH_MAX; n++) {
        struct buf cond = BUF_INIT, step = BUF_INIT;
        pb_bytes(&cond, 6, "", 0);
        for (unsigned i = 0; i < n; i++) {
            struct buf outer = BUF_INIT;
            pb_msg(&outer, 3, &cond);
            cond = outer;
        }
        pb_msg(&step, 1, &cond);
        pb_bytes(&step, 2, "\x0a\x01q", 3);
        enum rc rc = decode_many(step.data, step.size, 1, 1, batch);
        assert_int_equal(rc, n < HRANA_DEPTH_MAX ? RC_OK : RC_TOO_BIG);
        buf_fini(&step);
    }
}

static void test_cond_count(void **state)
{
    (void)state;
    static const uint8_t batch[] = {1, 3, 2, 0};
    for (size_t n = HRANA_CONDS_MAX - 1; n <= HRANA_CONDS_MAX; n++) { /* and the list itself */
        struct buf list = BUF_INIT, cond = BUF_INIT, step = BUF_INIT;
        for (size_t i = 0; i < n; i++)
            pb_bytes(&list, 1, "\x32\x00", 2);
        pb_msg(&cond, 4, &list);
        pb_msg(&step, 1, &cond);
        pb_bytes(&step, 2, "\x0a\x01q", 3);
        enum rc rc = decode_many(step.data, step.size, 1, 1, batch);
        assert_int_equal(rc, n < HRANA_CONDS_MAX ? RC_OK : RC_TOO_BIG);
        buf_fini(&step);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http),       cmocka_unit_test(test_ws),
        cmocka_unit_test(test_values),     cmocka_unit_test(test_conds),
        cmocka_unit_test(test_wire),       cmocka_unit_test(test_cut),
        cmocka_unit_test(test_random),     cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_cond_count),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
