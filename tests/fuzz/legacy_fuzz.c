/*
 * legacy_fuzz.c -- bodies of POST / and the answers that are made from Hrana's. The first byte says
 * which. A body that is taken has as many statements as a plain look at its JSON finds, with their
 * texts; an answer that is made is JSON.
 */
#include <jansson.h>
#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "server/legacy.h"

static void check_body(struct arena *a, const uint8_t *data, size_t size)
{
    struct err err;
    struct hrana_request r;
    size_t count = 0;
    json_error_t where;
    enum rc rc = legacy_get(a, data, size, &r, &count, &err);
    if (rc != RC_OK) {
        CHECK(rc == RC_INVALID || rc == RC_TOO_BIG);
        return;
    }
    CHECK(r.type == HRANA_BATCH);
    CHECK(r.batch.count == (count > 1 ? count + 3 : count));
    json_t *o =
        json_loadb((const char *)data, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (o == NULL) return; /* duplicates, or a number that is too large for it */
    const json_t *list = json_object_get(o, "statements");
    CHECK(json_array_size(list) == count);
    for (size_t i = 0; i < count; i++) {
        const struct hrana_stmt *st = &r.batch.steps[count > 1 ? i + 1 : i].stmt;
        const json_t *one = json_array_get(list, i);
        const json_t *sql = json_is_object(one) ? json_object_get(one, "q") : one;
        CHECK(json_string_length(sql) == st->sql.size);
        CHECK(memcmp(json_string_value(sql), st->sql.text, st->sql.size) == 0);
        const json_t *params = json_object_get(one, "params");
        CHECK(st->arg_count == json_array_size(params) + json_object_size(params));
    }
    json_decref(o);
}

static void check_answer(struct arena *a, const uint8_t *data, size_t size)
{
    struct err err;
    struct buf out = BUF_INIT;
    json_error_t where;
    bool whole;
    struct buf answer = {.data = (uint8_t *)(uintptr_t)data, .size = size};
    if (legacy_put(a, &answer, 2, &out, &whole, &err) == RC_OK) {
        json_t *o = json_loadb((const char *)out.data, out.size, JSON_ALLOW_NUL, &where);
        bool range = o == NULL && json_error_code(&where) == json_error_numeric_overflow;
        CHECK(o != NULL || range);
        CHECK(range || json_is_array(o) == whole);
        json_decref(o);
    }
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a;
    struct err err;
    if (size == 0) return 0;
    CHECK(arena_new(1u << 20, &a, &err) == RC_OK);
    if (data[0] % 2 == 0)
        check_body(a, data + 1, size - 1);
    else
        check_answer(a, data + 1, size - 1);
    arena_free(a);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    static const char *const seeds[] = {
        "0{\"statements\":[\"SELECT 1\",{\"q\":\"INSERT INTO t VALUES(?,?)\",\"params\":[1,-2.5e3,"
        "null,true,\"a\\u00e9\",{\"base64\":\"AAEC\"}]}]}",
        "0{\"statements\":[{\"q\":\"SELECT "
        ":a\",\"params\":{\"a\":9223372036854775808,\"$b\":\"\"}}],"
        "\"replication_index\":5}",
        "1{\"baton\":null,\"base_url\":null,\"results\":[{\"type\":\"ok\",\"response\":{\"type\":"
        "\"batch\",\"result\":{\"step_results\":[null,{\"cols\":[{\"name\":\"a\",\"decltype\":null}"
        "],"
        "\"rows\":[[{\"type\":\"integer\",\"value\":\"12\"}],[{\"type\":\"float\",\"value\":1.5}],"
        "[{\"type\":\"text\",\"value\":\"x\"},{\"type\":\"blob\",\"base64\":\"AA\"},{\"type\":"
        "\"null\"}]],\"rows_read\":1,\"rows_written\":0,\"query_duration_ms\":0.1},null,null,null],"
        "\"step_errors\":[null,null,{\"message\":\"no\",\"code\":\"X\"},null,null]}}}]}",
        "1{\"results\":[{\"type\":\"error\",\"error\":{\"message\":\"no\",\"code\":\"X\"}}]}"};
    const char *seed = seeds[n % (sizeof seeds / sizeof seeds[0])];
    size_t size = strlen(seed);
    memcpy(out, seed, size);
    return size;
}
