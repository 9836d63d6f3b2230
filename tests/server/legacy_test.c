/* legacy_test.c -- bodies of POST /, both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "server/legacy.h"

static struct arena *arena;

static enum rc get(const char *body, struct hrana_request *r, size_t *count)
{
    struct err err;
    size_t size = strlen(body);
    char *copy = malloc(size + 1); /* so that a read too far is seen */
    memcpy(copy, body, size);
    enum rc rc = legacy_get(arena, copy, size, r, count, &err);
    free(copy);
    return rc;
}

static void expect_sql(const struct hrana_request *r, size_t step, const char *sql)
{
    const struct hrana_sql *s = &r->batch.steps[step].stmt.sql;
    assert_int_equal(s->size, strlen(sql));
    assert_memory_equal(s->text, sql, s->size);
}

static void bodies(void **state)
{
    struct hrana_request r;
    size_t count;
    (void)state;
    assert_int_equal(
        get("{\"statements\":[\"SELECT 1\", {\"q\":\"INSERT INTO t VALUES(?,?)\","
            "\"params\":[12,{\"base64\":\"AAE\"}]}, {\"params\":{\"a\":null,\"b\":1.5},"
            "\"q\":\"SELECT :a, :b\"}]}",
            &r, &count),
        RC_OK);
    assert_int_equal(count, 3);
    assert_int_equal(r.batch.count, 6);
    expect_sql(&r, 0, "BEGIN IMMEDIATE");
    expect_sql(&r, 1, "SELECT 1");
    expect_sql(&r, 4, "COMMIT");
    expect_sql(&r, 5, "ROLLBACK");
    const struct hrana_step *s = r.batch.steps;
    assert_int_equal(s[1].cond.type, HRANA_COND_OK);
    assert_int_equal(s[3].cond.step, 2);
    assert_int_equal(s[2].stmt.arg_count, 2);
    assert_int_equal(s[2].stmt.args[0].value.integer, 12);
    assert_int_equal(s[2].stmt.args[1].value.type, SQL_BLOB);
    assert_int_equal(s[2].stmt.args[1].value.size, 2);
    assert_int_equal(s[3].stmt.named_count, 2);
    assert_string_equal(s[3].stmt.args[0].name, "a");
    assert_true(s[3].stmt.args[1].value.real == 1.5);
    assert_int_equal(get("{\"statements\":[\"SELECT 1\",\"VALUES(2)\"]}", &r, &count), RC_OK);
    expect_sql(&r, 0, "BEGIN DEFERRED");
    assert_int_equal(get("{\"statements\":[\"VACUUM\"]}", &r, &count), RC_OK);
    assert_int_equal(r.batch.count, 1);
    assert_int_equal(r.batch.steps[0].cond.type, HRANA_COND_NONE);
    assert_int_equal(get("{\"statements\":[]}", &r, &count), RC_OK);
    assert_int_equal(r.batch.count, 0);
}

static void bad_bodies(void **state)
{
    static const char *const bad[] = {
        "",
        "5",
        "{",
        "{}",
        "[]",
        "{\"statements\":5}",
        "{\"statements\":5\"SELECT 1\"]}",
        "{\"statements\":{\"q\":\"SELECT 1\"}}",
        "{\"statements\":[5]}",
        "{\"statements\":[[\"SELECT 1\"]]}",
        "{\"statements\":[{\"q\":5}]}",
        "{\"statements\":[{\"params\":[]}]}",
        "{\"statements\":[{\"q\":\"SELECT ?\",\"params\":5}]}",
        "{\"statements\":[{\"q\":\"SELECT ?\",\"params\":[[]]}]}",
        "{\"statements\":[{\"q\":\"SELECT ?\",\"params\":[{\"x\":1}]}]}",
        "{\"statements\":[{\"q\":\"SELECT ?\",\"params\":{\"a\\\"b\":1}}]}",
        "{\"statements\":[\"BEGIN\"]}",
        "{\"statements\":[\"SELECT 1\",\" /* x */ commit\"]}",
        "{\"statements\":[]} x",
    };
    struct hrana_request r;
    size_t count;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (get(bad[i], &r, &count) != RC_INVALID) fail_msg("taken: %s", bad[i]);
}

static const char *put(const char *answer, size_t count, struct buf *out, bool *whole)
{
    struct err err;
    struct buf b = {.data = (uint8_t *)(uintptr_t)answer, .size = strlen(answer)};
    buf_reset(out);
    if (legacy_put(arena, &b, count, out, whole, &err) != RC_OK)
        return err.rc == RC_NO_MEM ? "" : NULL;
    assert_int_equal(buf_append(out, "", 1, &err), RC_OK);
    return (const char *)out->data;
}

#define ANSWER(results, errors)                                                                    \
    "{\"baton\":null,\"base_url\":null,\"results\":[{\"type\":\"ok\",\"response\":{\"type\":"      \
    "\"batch\",\"result\":{\"step_results\":[" results "],\"step_errors\":[" errors                \
    "],\"replication_index\":\"4\"}}}]}"
#define EMPTY                                                                                      \
    "{\"cols\":[],\"rows\":[],\"affected_row_count\":0,\"rows_read\":0,\"rows_written\":1,"        \
    "\"query_duration_ms\":0.5}"
#define EMPTY_OUT                                                                                  \
    "{\"results\":{\"columns\":[],\"rows\":[],\"rows_read\":0,\"rows_written\":1,"                 \
    "\"query_duration_ms\":0.5}}"

static void answers(void **state)
{
    struct buf out = BUF_INIT;
    bool whole;
    (void)state;
    assert_string_equal(
        put(ANSWER("{\"cols\":[{\"name\":\"a\\\"\",\"decltype\":null},{\"name\":null,\"decltype\":"
                   "\"X\"}],\"rows\":[[{\"type\":\"integer\",\"value\":\"-9223372036854775808\"},"
                   "{\"type\":\"float\",\"value\":1e300}],[{\"type\":\"text\",\"value\":\"\\u0000"
                   "x\"},{\"type\":\"blob\",\"base64\":\"AAE\"}],[{\"type\":\"null\"},{\"type\":"
                   "\"float\",\"value\":null}]],\"query_duration_ms\":1}",
                   "null"),
            1, &out, &whole),
        "[{\"results\":{\"columns\":[\"a\\\"\",null],\"rows\":[[-9223372036854775808,1e300],"
        "[\"\\u0000x\",{\"base64\":\"AAE\"}],[null,null]],\"query_duration_ms\":1}}]");
    assert_true(whole);
    assert_string_equal(put(ANSWER(EMPTY "," EMPTY ",null,null,null," EMPTY,
                                   "null,null,{\"message\":\"bad\",\"code\":\"X\"},null,null,null"),
                            3, &out, &whole),
                        "[" EMPTY_OUT ",{\"error\":\"bad\"},null]");
    /* COMMIT fails */
    assert_string_equal(put(ANSWER(EMPTY "," EMPTY "," EMPTY ",null," EMPTY,
                                   "null,null,null,{\"message\":\"keys\"},null"),
                            2, &out, &whole),
                        "[" EMPTY_OUT ",{\"error\":\"keys\"}]");
    /* BEGIN fails, or all of it */
    assert_string_equal(
        put(ANSWER("null,null,null,null,null", "{\"message\":\"busy\"},null,null,null,null"), 2,
            &out, &whole),
        "{\"error\":\"busy\"}");
    assert_false(whole);
    assert_string_equal(
        put("{\"results\":[{\"type\":\"error\",\"error\":{\"message\":\"no\"}}]}", 2, &out, &whole),
        "{\"error\":\"no\"}");
    assert_null(put("{}", 1, &out, &whole));
    assert_null(put("{\"results\":[]}", 1, &out, &whole));
    buf_fini(&out);
}

static void sweep(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct buf out = BUF_INIT;
        struct hrana_request r;
        size_t count;
        bool whole;
        arena_reset(arena);
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc =
            get("{\"statements\":[\"SELECT 1\",{\"q\":\"SELECT ?\",\"params\":[1]}]}", &r, &count);
        assert_true(rc == RC_OK || rc == RC_NO_MEM);
        struct err err;
        static const char text[] =
            ANSWER(EMPTY "," EMPTY "," EMPTY "," EMPTY ",null", "null,null,null,null,null");
        struct buf b = {.data = (uint8_t *)(uintptr_t)text, .size = sizeof text - 1};
        rc = legacy_put(arena, &b, 2, &out, &whole, &err);
        assert_true(rc == RC_OK || rc == RC_NO_MEM);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        buf_fini(&out);
        if (!fired) break;
    }
}

static int set_up(void **state)
{
    struct err err;
    (void)state;
    return arena_new(1 << 20, &arena, &err) == RC_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(bodies), TEST(bad_bodies), TEST(answers), TEST(sweep)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
