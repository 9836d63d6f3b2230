/* hrana_sweep_test.c -- every allocation of decoding and of encoding fails in turn: the failure is
 * RC_NO_MEM, nothing leaks, and a result that failed half-way becomes an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include "base/fault.h"
#include "base/mem.h"
#include "server/hrana_client_json.h"
#include "server/hrana_client_proto.h"

static struct err err;

static enum rc decode(bool proto, const struct buf *body)
{
    struct arena *a;
    struct hrana_pipeline p;
    const struct hrana_decoder *d = proto ? &hrana_proto_decoder : &hrana_json_decoder;
    TRY(arena_new(1u << 20, &a, &err));
    enum rc rc = d->pipeline(a, HRANA_3, body->data, body->size, &p, &err);
    arena_free(a);
    return rc;
}

static void test_decode(void **state)
{
    (void)state;
    struct arena *mine;
    struct buf bodies[2] = {BUF_INIT, BUF_INIT};
    noise_seed();
    assert_int_equal(arena_new(1u << 20, &mine, &err), RC_OK);
    say(&bodies[0], "{\"requests\":[");
    for (int i = 0; i < 200; i++) {
        struct hrana_request r;
        struct buf msg = BUF_INIT;
        make_request(mine, false, &r);
        say(&bodies[0], "%s", i > 0 ? "," : "");
        json_request(&bodies[0], &r);
        pb_request(&msg, false, &r);
        pb_msg(&bodies[1], 2, &msg);
    }
    say(&bodies[0], "]}");
    for (int proto = 0; proto < 2; proto++) {
        uint64_t n = 0;
        enum rc rc;
        do {
            fault_arm(FAULT_ALLOC, ++n, false);
            rc = decode(proto, &bodies[proto]);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            assert_int_equal(rc, fired ? RC_NO_MEM : RC_OK);
        } while (rc != RC_OK);
        assert_true(n > 3); /* the arena, and several blocks */
        buf_fini(&bodies[proto]);
    }
    arena_free(mine);
}

/* A batch with a step of each kind; texts are long, so that all buffers must grow. */
static enum rc put_result(struct hrana_encoder *e)
{
    static char text[300];
    static const struct sql_error failure = {.code = "C", .extended = "E", .message = "m\x01"};
    static const struct sql_col cols[] = {{"a", NULL}};
    static const struct sql_done done = {.inserted = true};
    const struct sql_value v[] = {{.type = SQL_TEXT, .data = text, .size = sizeof text},
                                  {.type = SQL_BLOB, .data = text, .size = sizeof text},
                                  {.type = SQL_FLOAT, .real = 0.1},
                                  {.type = SQL_INTEGER},
                                  {.type = SQL_NULL}};
    TRY(hrana_put_result_begin(e, HRANA_BATCH, 1, &err));
    TRY(hrana_put_batch_begin(e, &err));
    for (uint32_t i = 0; i < 30; i += 3) {
        TRY(hrana_put_step_begin(e, i, &err));
        TRY(hrana_put_cols(e, cols, 1, &err));
        TRY(hrana_put_row(e, v, 5, &err));
        TRY(hrana_put_done(e, &done, 7, &err));
        TRY(hrana_put_step_end(e, &err));
        TRY(hrana_put_step_error(e, i + 1, &failure, &err));
        TRY(hrana_put_step_skip(e, i + 2, &err));
    }
    TRY(hrana_put_batch_end(e, &err));
    return hrana_put_result_end(e, &err);
}

static enum rc put_all(bool proto, struct buf *out)
{
    static const struct sql_error failure = {.code = "NO_MEM", .message = "m"};
    struct hrana_encoder *e = NULL;
    enum rc rc = hrana_encoder_new(proto, HRANA_FRAME_PIPELINE, HRANA_3, out, &e, &err), again;
    if (rc == RC_OK) rc = hrana_put_begin(e, "b", NULL, &err);
    if (rc == RC_OK) {
        size_t before = out->size;
        rc = put_result(e);
        if (rc != RC_OK) {
            again = hrana_put_result_error(e, 1, &failure, &err);
            assert_int_equal(again, RC_OK);
            assert_true(out->size < before + 80);
            assert_int_equal(hrana_put_end(e, &err), RC_OK);
        } else {
            rc = hrana_put_end(e, &err);
        }
    }
    hrana_encoder_free(e);
    return rc;
}

static void test_encode(void **state)
{
    (void)state;
    for (int proto = 0; proto < 2; proto++) {
        uint64_t n = 0;
        enum rc rc;
        do {
            struct buf out = BUF_INIT;
            fault_arm(FAULT_ALLOC, ++n, false);
            rc = put_all(proto, &out);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            assert_int_equal(rc, fired ? RC_NO_MEM : RC_OK);
            if (!proto && out.size > 0 && out.data[out.size - 1] == '}') {
                json_t *v = json_loadb((char *)out.data, out.size, JSON_ALLOW_NUL, NULL);
                assert_non_null(v);
                json_decref(v);
            }
            buf_fini(&out);
        } while (rc != RC_OK);
        assert_true(n > 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_encode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
