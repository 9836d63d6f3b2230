/* hrana_put_test.c -- Hrana's answers: each message and frame in both encodings, literally. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include "base/mem.h"
#include "fmt/noise.h"
#include "server/hrana_intern.h"

#define OK(expr)  assert_int_equal(expr, RC_OK)
#define COL_COUNT 2
#define JSON_STMT                                                                                  \
    "{\"cols\":[{\"name\":\"a\",\"decltype\":\"INT\"},{\"name\":\"b\",\"decltype\":null}],"        \
    "\"rows\":[[{\"type\":\"integer\",\"value\":\"1\"},{\"type\":\"null\"}],"                      \
    "[{\"type\":\"text\",\"value\":\"x\"},{\"type\":\"blob\",\"base64\":\"AP8\"}]],"               \
    "\"affected_row_count\":3,\"last_insert_rowid\":\"-9\",\"replication_index\":\"300\","         \
    "\"rows_read\":4,\"rows_written\":5,\"query_duration_ms\":1.5}"
#define JSON_NONE                                                                                  \
    "{\"cols\":[],\"rows\":[],\"affected_row_count\":0,\"last_insert_rowid\":null,"                \
    "\"replication_index\":null,\"rows_read\":0,\"rows_written\":0,\"query_duration_ms\":0.0}"
#define JSON_ERROR "{\"message\":\"no \\\"t\\\"\",\"code\":\"SQLITE_CONSTRAINT\","
#define JSON_ERROR_EXT                                                                             \
    "{\"message\":\"no \\\"t\\\"\",\"code\":\"SQLITE_CONSTRAINT\","                                \
    "\"extended_code\":\"SQLITE_CONSTRAINT_UNIQUE\"}"
#define PB_STMT /* 58 bytes */                                                                     \
    "\x0a\x08\x0a\x01"                                                                             \
    "a\x12\x03INT"                                                                                 \
    "\x0a\x03\x0a\x01"                                                                             \
    "b"                                                                                            \
    "\x12\x08\x0a\x02\x10\x02\x0a\x02\x0a\x00"                                                     \
    "\x12\x0b\x0a\x03\x22\x01x\x0a\x04\x2a\x02\x00\xff"                                            \
    "\x18\x03\x20\x11\x28\xac\x02\x30\x04\x38\x05\x41\0\0\0\0\0\0\xf8\x3f"
#define PB_NONE  "\x18\x00\x30\x00\x38\x00\x41\0\0\0\0\0\0\0\0" /* 15 bytes */
#define PB_ERROR "\x0a\x06no \"t\"\x12\x11SQLITE_CONSTRAINT"    /* 27 bytes */

static struct err err;
static struct buf out;
static struct hrana_encoder *e;
static const struct sql_col cols[COL_COUNT] = {{"a", "INT"}, {"b", NULL}};
static const struct sql_done nothing = {0};
static const struct sql_error failure = {.code = "SQLITE_CONSTRAINT",
                                         .extended = "SQLITE_CONSTRAINT_UNIQUE",
                                         .message = "no \"t\"",
                                         .offset = -1};

static void start(bool proto, enum hrana_frame frame, enum hrana_version v)
{
    hrana_encoder_free(e);
    buf_fini(&out);
    e = NULL;
    OK(hrana_encoder_new(proto, frame, v, &out, &e, &err));
}

static void same(const char *want, size_t size)
{
    for (size_t i = 0; i < size && i < out.size; i++)
        if (out.data[i] != (uint8_t)want[i])
            fail_msg("at %zu: %.*s", i, (int)(out.size - i), (char *)out.data + i);
    assert_int_equal(out.size, size);
    buf_reset(&out);
}
#define SAME(text) same(text, sizeof text - 1)

static void put_stmt(void)
{
    const struct sql_value one[] = {{.type = SQL_INTEGER, .integer = 1}, {.type = SQL_NULL}};
    const struct sql_value two[] = {{.type = SQL_TEXT, .data = "x", .size = 1},
                                    {.type = SQL_BLOB, .data = "\x00\xff", .size = 2}};
    const struct sql_done done = {.affected = 3,
                                  .last_rowid = -9,
                                  .inserted = true,
                                  .rows_read = 4,
                                  .rows_written = 5,
                                  .us = 1500};
    OK(hrana_put_cols(e, cols, COL_COUNT, &err));
    OK(hrana_put_row(e, one, COL_COUNT, &err));
    OK(hrana_put_row(e, two, COL_COUNT, &err));
    OK(hrana_put_done(e, &done, 300, &err));
}

static void put_batch(void)
{
    OK(hrana_put_batch_begin(e, &err));
    OK(hrana_put_step_begin(e, 0, &err));
    put_stmt();
    OK(hrana_put_step_end(e, &err));
    OK(hrana_put_step_begin(e, 1, &err)); /* fails half-way */
    OK(hrana_put_cols(e, cols, COL_COUNT, &err));
    OK(hrana_put_step_error(e, 1, &failure, &err));
    OK(hrana_put_step_skip(e, 2, &err));
    OK(hrana_put_step_error(e, 3, &failure, &err));
    OK(hrana_put_step_begin(e, 4, &err));
    OK(hrana_put_done(e, &nothing, 0, &err));
    OK(hrana_put_step_end(e, &err));
    OK(hrana_put_batch_end(e, &err));
}

static void put_describe(void)
{
    static const struct sql_param params[] = {{":a"}, {NULL}};
    OK(hrana_put_describe(e,
                          &(struct sql_description){.params = params,
                                                    .param_count = 2,
                                                    .cols = cols,
                                                    .col_count = COL_COUNT,
                                                    .is_readonly = true},
                          &err));
}

static void put_simple(enum hrana_type type)
{
    OK(hrana_put_result_begin(e, type, -1, &err));
    if (type == HRANA_EXECUTE) put_stmt();
    if (type == HRANA_BATCH) put_batch();
    if (type == HRANA_DESCRIBE) put_describe();
    if (type == HRANA_GET_AUTOCOMMIT) OK(hrana_put_autocommit(e, true, &err));
    OK(hrana_put_result_end(e, &err));
}

#define JSON_BATCH                                                                                 \
    "{\"step_results\":[" JSON_STMT ",null,null,null," JSON_NONE                                   \
    "],\"step_errors\":[null," JSON_ERROR_EXT ",null," JSON_ERROR_EXT                              \
    ",null],\"replication_index\":\"300\"}"
#define JSON_DESCRIBE                                                                              \
    "{\"params\":[{\"name\":\":a\"},{\"name\":null}],\"cols\":[{\"name\":\"a\",\"decltype\":"      \
    "\"INT\"},{\"name\":\"b\",\"decltype\":null}],\"is_explain\":false,\"is_readonly\":true}"

static void test_json_pipeline(void **state)
{
    (void)state;
    start(false, HRANA_FRAME_PIPELINE, HRANA_2);
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_end(e, &err));
    SAME("{\"results\":[],\"baton\":null,\"base_url\":null}");
    OK(hrana_put_begin(e, "old", NULL, &err));
    put_simple(HRANA_EXECUTE);
    put_simple(HRANA_BATCH);
    put_simple(HRANA_DESCRIBE);
    put_simple(HRANA_SEQUENCE);
    OK(hrana_put_result_error(e, 0, &failure, &err));
    put_simple(HRANA_STORE_SQL);
    put_simple(HRANA_CLOSE_SQL);
    put_simple(HRANA_GET_AUTOCOMMIT);
    put_simple(HRANA_CLOSE);
    hrana_put_baton(e, "b/\x01", "http://h/");
    OK(hrana_put_end(e, &err));
    SAME("{\"results\":[{\"type\":\"ok\",\"response\":{\"type\":\"execute\",\"result\":" JSON_STMT
         "}},{\"type\":\"ok\",\"response\":{\"type\":\"batch\",\"result\":" JSON_BATCH
         "}},{\"type\":\"ok\",\"response\":{\"type\":\"describe\",\"result\":" JSON_DESCRIBE
         "}},{\"type\":\"ok\",\"response\":{\"type\":\"sequence\"}},"
         "{\"type\":\"error\",\"error\":" JSON_ERROR_EXT
         "},{\"type\":\"ok\",\"response\":{\"type\":\"store_sql\"}},"
         "{\"type\":\"ok\",\"response\":{\"type\":\"close_sql\"}},"
         "{\"type\":\"ok\",\"response\":{\"type\":\"get_autocommit\",\"is_autocommit\":true}},"
         "{\"type\":\"ok\",\"response\":{\"type\":\"close\"}}],"
         "\"baton\":\"b/\\u0001\",\"base_url\":\"http://h/\"}");
}

static void test_json_v1(void **state)
{
    (void)state;
    start(false, HRANA_FRAME_V1, HRANA_1);
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_result_begin(e, HRANA_EXECUTE, 0, &err));
    OK(hrana_put_cols(e, cols, COL_COUNT, &err));
    OK(hrana_put_done(e, &nothing, 0, &err));
    OK(hrana_put_result_end(e, &err));
    OK(hrana_put_end(e, &err));
    SAME("{\"result\":{\"cols\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"rows\":[],"
         "\"affected_row_count\":0,\"last_insert_rowid\":null,\"replication_index\":null,"
         "\"rows_read\":0,\"rows_written\":0,\"query_duration_ms\":0.0}}");
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_result_begin(e, HRANA_BATCH, 0, &err));
    OK(hrana_put_batch_begin(e, &err));
    OK(hrana_put_batch_end(e, &err));
    OK(hrana_put_result_end(e, &err));
    OK(hrana_put_end(e, &err));
    SAME("{\"result\":{\"step_results\":[],\"step_errors\":[],\"replication_index\":null}}");
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_result_begin(e, HRANA_EXECUTE, 0, &err));
    OK(hrana_put_cols(e, cols, COL_COUNT, &err));
    OK(hrana_put_result_error(e, 0, &failure, &err));
    OK(hrana_put_end(e, &err));
    SAME(JSON_ERROR "\"error\":\"no \\\"t\\\"\",\"extended_code\":\"SQLITE_CONSTRAINT_UNIQUE\"}");
    struct sql_error plain = {.message = "m"};
    OK(hrana_put_http_error(&out, &plain, &err));
    SAME("{\"message\":\"m\",\"code\":\"SQLITE_UNKNOWN\",\"error\":\"m\"}");
    assert_int_equal(hrana_encoder_new(true, HRANA_FRAME_PIPELINE, HRANA_2, &out, &e, &err),
                     RC_INVALID);
}

static void put_cursor(void)
{
    OK(hrana_put_batch_begin(e, &err));
    OK(hrana_put_step_begin(e, 0, &err));
    put_stmt();
    OK(hrana_put_step_end(e, &err));
    OK(hrana_put_step_skip(e, 1, &err));
    OK(hrana_put_step_begin(e, 2, &err));
    OK(hrana_put_step_error(e, 2, &failure, &err));
    OK(hrana_put_step_begin(e, 3, &err));
    OK(hrana_put_done(e, &nothing, 0, &err));
    OK(hrana_put_batch_end(e, &err));
    OK(hrana_put_cursor_error(e, &failure, &err));
}

#define JSON_ENTRY_1                                                                               \
    "{\"type\":\"step_begin\",\"step\":0,\"cols\":[{\"name\":\"a\",\"decltype\":\"INT\"},"         \
    "{\"name\":\"b\",\"decltype\":null}]}"
#define JSON_ENTRY_2                                                                               \
    "{\"type\":\"row\",\"row\":[{\"type\":\"integer\",\"value\":\"1\"},{\"type\":\"null\"}]}"
#define JSON_ENTRY_3                                                                               \
    "{\"type\":\"row\",\"row\":[{\"type\":\"text\",\"value\":\"x\"},{\"type\":\"blob\","           \
    "\"base64\":\"AP8\"}]}"
#define JSON_ENTRIES                                                                               \
    JSON_ENTRY_1 "\n" JSON_ENTRY_2 "\n" JSON_ENTRY_3 "\n"                                          \
                 "{\"type\":\"step_end\",\"affected_row_count\":3,\"last_insert_rowid\":\"-9\"}\n" \
                 "{\"type\":\"step_error\",\"step\":2,\"error\":" JSON_ERROR_EXT "}\n"             \
                 "{\"type\":\"step_begin\",\"step\":3,\"cols\":[]}\n"                              \
                 "{\"type\":\"step_end\",\"affected_row_count\":0,\"last_insert_rowid\":null}\n"   \
                 "{\"type\":\"error\",\"error\":" JSON_ERROR_EXT "}\n"

static void test_json_cursor(void **state)
{
    (void)state;
    start(false, HRANA_FRAME_CURSOR, HRANA_3);
    OK(hrana_put_begin(e, "b", NULL, &err));
    put_cursor();
    OK(hrana_put_end(e, &err));
    SAME("{\"baton\":\"b\",\"base_url\":null}\n" JSON_ENTRIES);
}

static void test_json_ws(void **state)
{
    (void)state;
    static const char entries[] = JSON_ENTRIES;
    size_t used, rest;
    start(false, HRANA_FRAME_WS, HRANA_3);
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_hello(e, NULL, &err));
    SAME("{\"type\":\"hello_ok\"}");
    OK(hrana_put_hello(e, &failure, &err));
    SAME("{\"type\":\"hello_error\",\"error\":" JSON_ERROR_EXT "}");
    put_simple(HRANA_EXECUTE);
    SAME("{\"type\":\"response_ok\",\"request_id\":-1,\"response\":{\"type\":\"execute\","
         "\"result\":" JSON_STMT "}}");
    put_simple(HRANA_OPEN_STREAM);
    SAME("{\"type\":\"response_ok\",\"request_id\":-1,\"response\":{\"type\":\"open_stream\"}}");
    OK(hrana_put_result_begin(e, HRANA_EXECUTE, 5, &err));
    OK(hrana_put_cols(e, cols, COL_COUNT, &err));
    OK(hrana_put_result_error(e, 5, &failure, &err));
    SAME("{\"type\":\"response_error\",\"request_id\":5,\"error\":" JSON_ERROR_EXT "}");
    OK(hrana_put_result_begin(e, HRANA_FETCH_CURSOR, 5, &err));
    OK(hrana_put_entries(e, entries, sizeof entries - 1, 2, &used, &err));
    OK(hrana_put_entries(e, entries + used, sizeof entries - 1 - used, 1, &rest, &err));
    OK(hrana_put_fetched(e, false, &err));
    OK(hrana_put_result_end(e, &err));
    SAME("{\"type\":\"response_ok\",\"request_id\":5,\"response\":{\"type\":\"fetch_cursor\","
         "\"entries\":[" JSON_ENTRY_1 "," JSON_ENTRY_2 "," JSON_ENTRY_3 "],\"done\":false}}");
    OK(hrana_put_result_begin(e, HRANA_FETCH_CURSOR, 5, &err));
    assert_int_equal(hrana_put_entries(e, "{}", 2, 1, &used, &err), RC_CORRUPT);
    OK(hrana_put_result_error(e, 5, &failure, &err));
    OK(hrana_put_end(e, &err));
}

static void test_proto_pipeline(void **state)
{
    (void)state;
    start(true, HRANA_FRAME_PIPELINE, HRANA_3);
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_end(e, &err));
    SAME("");
    OK(hrana_put_begin(e, "b", "u", &err));
    put_simple(HRANA_EXECUTE);
    SAME("\x1a\x40\x0a\x3e\x12\x3c\x0a\x3a" PB_STMT);
    put_simple(HRANA_BATCH);
    SAME("\x1a\xa0\x01\x0a\x9d\x01\x1a\x9a\x01\x0a\x97\x01"
         "\x0a\x3e\x08\x00\x12\x3a" PB_STMT                                      /* 64 bytes */
         "\x12\x1f\x08\x01\x12\x1b" PB_ERROR "\x12\x1f\x08\x03\x12\x1b" PB_ERROR /* 33 each */
         "\x0a\x13\x08\x04\x12\x0f" PB_NONE);
    put_simple(HRANA_DESCRIBE);
    SAME("\x1a\x21\x0a\x1f\x2a\x1d\x0a\x1b\x0a\x04\x0a\x02:a\x0a\x00"
         "\x12\x08\x0a\x01"
         "a\x12\x03INT\x12\x03\x0a\x01"
         "b\x18\x00\x20\x01");
    put_simple(HRANA_SEQUENCE);
    SAME("\x1a\x04\x0a\x02\x22\x00");
    put_simple(HRANA_STORE_SQL);
    SAME("\x1a\x04\x0a\x02\x32\x00");
    put_simple(HRANA_CLOSE_SQL);
    SAME("\x1a\x04\x0a\x02\x3a\x00");
    put_simple(HRANA_GET_AUTOCOMMIT);
    SAME("\x1a\x06\x0a\x04\x42\x02\x08\x01");
    put_simple(HRANA_CLOSE);
    SAME("\x1a\x04\x0a\x02\x0a\x00");
    OK(hrana_put_result_begin(e, HRANA_EXECUTE, 0, &err));
    put_stmt();
    OK(hrana_put_result_error(e, 0, &failure, &err));
    SAME("\x1a\x1d\x12\x1b" PB_ERROR);
    OK(hrana_put_end(e, &err));
    SAME("\x0a\x01"
         "b\x12\x01u");
}

#define PB_ENTRY_1                                                                                 \
    "\x13\x0a\x11\x08\x00\x12\x08\x0a\x01"                                                         \
    "a\x12\x03INT\x12\x03\x0a\x01"                                                                 \
    "b"
#define PB_ENTRY_2 "\x0a\x22\x08\x0a\x02\x10\x02\x0a\x02\x0a\x00"
#define PB_ENTRIES                                                                                 \
    PB_ENTRY_1 PB_ENTRY_2 "\x0d\x22\x0b\x0a\x03\x22\x01x\x0a\x04\x2a\x02\x00\xff"                  \
                          "\x06\x12\x04\x08\x03\x10\x11"                                           \
                          "\x21\x1a\x1f\x08\x02\x12\x1b" PB_ERROR "\x04\x0a\x02\x08\x03"           \
                          "\x04\x12\x02\x08\x00"                                                   \
                          "\x1d\x2a\x1b" PB_ERROR

static void test_proto_others(void **state)
{
    (void)state;
    static const char entries[] = PB_ENTRIES;
    static const struct {
        enum hrana_type type;
        char number;
    } types[] = {{HRANA_OPEN_STREAM, 2},  {HRANA_CLOSE_STREAM, 3}, {HRANA_OPEN_CURSOR, 6},
                 {HRANA_CLOSE_CURSOR, 7}, {HRANA_SEQUENCE, 9},     {HRANA_STORE_SQL, 11},
                 {HRANA_CLOSE_SQL, 12}};
    size_t used;
    start(true, HRANA_FRAME_CURSOR, HRANA_3);
    OK(hrana_put_begin(e, "b", NULL, &err));
    put_cursor();
    OK(hrana_put_end(e, &err));
    SAME("\x03\x0a\x01"
         "b" PB_ENTRIES);
    start(true, HRANA_FRAME_WS, HRANA_3);
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_hello(e, NULL, &err));
    SAME("\x0a\x00");
    OK(hrana_put_hello(e, &failure, &err));
    SAME("\x12\x1d\x0a\x1b" PB_ERROR);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char want[] = "\x1a\x04\x08\x07?\x00";
        want[4] = (char)(types[i].number << 3 | 2);
        OK(hrana_put_result_begin(e, types[i].type, 7, &err));
        OK(hrana_put_result_end(e, &err));
        SAME(want);
    }
    put_simple(HRANA_EXECUTE);
    SAME("\x1a\x49\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x22\x3c\x0a\x3a" PB_STMT);
    OK(hrana_put_result_begin(e, HRANA_GET_AUTOCOMMIT, 7, &err));
    OK(hrana_put_autocommit(e, false, &err));
    OK(hrana_put_result_end(e, &err));
    SAME("\x1a\x06\x08\x07\x6a\x02\x08\x00");
    OK(hrana_put_result_error(e, -1, &failure, &err));
    SAME("\x22\x28\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x1b" PB_ERROR);
    OK(hrana_put_result_begin(e, HRANA_FETCH_CURSOR, 7, &err));
    OK(hrana_put_entries(e, entries, sizeof entries - 1, 2, &used, &err));
    assert_int_equal(used, sizeof PB_ENTRY_1 PB_ENTRY_2 - 1);
    OK(hrana_put_fetched(e, true, &err));
    OK(hrana_put_result_end(e, &err));
    SAME("\x1a\x27\x08\x07\x42\x23\x0a" PB_ENTRY_1 "\x0a" PB_ENTRY_2 "\x10\x01");
    OK(hrana_put_result_begin(e, HRANA_FETCH_CURSOR, 7, &err));
    assert_int_equal(hrana_put_entries(e, "\x02x", 2, 1, &used, &err), RC_CORRUPT);
    assert_int_equal(hrana_put_entries(e, "\x80", 1, 1, &used, &err), RC_CORRUPT);
    OK(hrana_put_result_error(e, 7, &failure, &err));
    OK(hrana_put_end(e, &err));
}

/* A message that is too long to be moved keeps a length of five bytes. */
static void test_proto_long(void **state)
{
    (void)state;
    static char text[5000];
    const struct sql_value v = {.type = SQL_TEXT, .data = text, .size = sizeof text};
    start(true, HRANA_FRAME_WS, HRANA_3);
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_result_begin(e, HRANA_EXECUTE, 1, &err));
    OK(hrana_put_row(e, &v, 1, &err));
    OK(hrana_put_done(e, &nothing, 0, &err));
    OK(hrana_put_result_end(e, &err));
    /* 5000 bytes; text 5003, value 5006, row 5009; the result has 15 more; each head 6 bytes. */
    static const char head[] = "\x1a\xae\xa7\x80\x80\x00\x08\x01\x22\xa6\xa7\x80\x80\x00"
                               "\x0a\xa0\xa7\x80\x80\x00\x12\x8e\x27\x0a\x8b\x27\x22\x88\x27";
    assert_int_equal(out.size, sizeof head - 1 + 5000 + 15);
    assert_memory_equal(out.data, head, sizeof head - 1);
    assert_memory_equal(out.data + out.size - 15, PB_NONE, 15);
    OK(hrana_put_end(e, &err));
}

/* ---- Values in JSON ---- */

static void put_value(const struct sql_value *v)
{
    OK(hrana_put_begin(e, NULL, NULL, &err));
    OK(hrana_put_step_begin(e, 0, &err));
    OK(hrana_put_cols(e, NULL, 0, &err));
    buf_reset(&out);
    OK(hrana_put_row(e, v, 1, &err));
    OK(hrana_put_step_error(e, 0, &failure, &err));
    OK(hrana_put_end(e, &err));
    out.size = (size_t)((char *)memchr(out.data, '\n', out.size) - (char *)out.data) - 2;
    out.size -= 21;
    memmove(out.data, out.data + 21, out.size);
}

static void float_is(double real, const char *want)
{
    char text[128];
    put_value(&(struct sql_value){.type = SQL_FLOAT, .real = real});
    int n = snprintf(text, sizeof text, "{\"type\":\"float\",\"value\":%s}", want);
    same(text, (size_t)n);
}

static void text_is(const char *data, size_t size, const char *want)
{
    char text[256];
    put_value(&(struct sql_value){.type = SQL_TEXT, .data = data, .size = size});
    int n = snprintf(text, sizeof text, "{\"type\":\"text\",\"value\":\"%s\"}", want);
    same(text, (size_t)n);
}
#define TEXT_IS(data, want) text_is(data, sizeof data - 1, want)
#define FFFD                "\xEF\xBF\xBD"

static void test_json_values(void **state)
{
    (void)state;
    start(false, HRANA_FRAME_CURSOR, HRANA_3);
    float_is(0, "0.0");
    float_is(-0.0, "-0.0");
    float_is(1, "1.0");
    float_is(-2.5, "-2.5");
    float_is(0.1, "0.1");
    float_is(0.30000000000000004, "0.30000000000000004");
    float_is(1.005, "1.005");
    float_is(123456.789, "123456.789");
    float_is(1700000000000, "1700000000000.0");
    float_is(1e15, "1e+15");
    float_is(9007199254740993.0, "9007199254740992.0");
    float_is(1.7976931348623157e308, "1.7976931348623157e+308");
    float_is(2.2250738585072014e-308, "2.2250738585072014e-308");
    float_is(5e-324, "5e-324");
    float_is(1e-7, "1e-07");
    float_is((double)NAN, "null");
    float_is((double)INFINITY, "null");
    float_is(-(double)INFINITY, "null");
    put_value(&(struct sql_value){.type = SQL_INTEGER, .integer = INT64_MIN});
    SAME("{\"type\":\"integer\",\"value\":\"-9223372036854775808\"}");
    put_value(&(struct sql_value){.type = SQL_INTEGER, .integer = INT64_MAX});
    SAME("{\"type\":\"integer\",\"value\":\"9223372036854775807\"}");
    put_value(&(struct sql_value){.type = SQL_BLOB});
    SAME("{\"type\":\"blob\",\"base64\":\"\"}");
    put_value(&(struct sql_value){.type = SQL_BLOB, .data = "\xfb\xff\xbf\x00", .size = 4});
    SAME("{\"type\":\"blob\",\"base64\":\"+/+/AA\"}");
    text_is(NULL, 0, "");
    TEXT_IS("a\0b", "a\\u0000b");
    TEXT_IS("\"\\/\b\f\n\r\t\x1f\x7f", "\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\x7f");
    TEXT_IS("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xEF\xBF\xBF",
            "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xEF\xBF\xBF");
    TEXT_IS("a\x80"
            "b\xff",
            "a" FFFD "b" FFFD);
    TEXT_IS("\xE2\x82", FFFD); /* cut off: one for all of it */
    TEXT_IS("\xF0\x9F\x98z", FFFD "z");
    TEXT_IS("\xC0\xAF\xED\xA0\x80", FFFD FFFD FFFD FFFD FFFD);
    TEXT_IS("\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD);
    TEXT_IS("0123456\xE2\x82\xAC"
            "01234567\"",
            "0123456\xE2\x82\xAC"
            "01234567\\\"");
}

/* Each float is read back as the same, and none has a shorter text (next to a power of two: by more
 * than one digit). All that is written is JSON. */
static void test_json_random(void **state)
{
    (void)state;
    noise_seed();
    start(false, HRANA_FRAME_CURSOR, HRANA_3);
    for (int round = 0; round < 100000; round++) {
        uint64_t bits = noise();
        double real, way = (double)(int64_t)(bits >> 20) / (double[]){1, 10, 100, 1e6}[bits % 4];
        memcpy(&real, &bits, sizeof real);
        if (round % 2 == 0) real = way;
        if (!isfinite(real)) continue;
        put_value(&(struct sql_value){.type = SQL_FLOAT, .real = real});
        out.data[out.size - 1] = '\0'; /* the bracket */
        const char *text = (char *)out.data + strlen("{\"type\":\"float\",\"value\":");
        char *end, shorter[40];
        assert_true(strtod(text, &end) == real && *end == '\0');
        size_t digits = 0, zeros = 0;
        for (const char *c = text; *c != '\0' && *c != 'e'; c++) {
            if (*c < '0' || *c > '9' || (*c == '0' && digits == 0)) continue;
            digits++;
            zeros = *c == '0' ? zeros + 1 : 0;
        }
        digits -= zeros;
        bool edge = (bits & 0xfffffffffffffull) == 0 || round % 2 == 0;
        if (digits < 2 + (size_t)edge) continue;
        snprintf(shorter, sizeof shorter, "%.*e", (int)digits - 2 - (int)edge, real);
        assert_true(strtod(shorter, NULL) != real);
    }
    for (int round = 0; round < 20000; round++) {
        uint8_t noisy[40];
        size_t size = noise() % sizeof noisy;
        fill_noise(noisy, size);
        for (size_t i = 0; i < size; i++)
            if (noise() % 2 == 0) noisy[i] = (uint8_t) "\xC3\xA9\xE2\x82\xAC\"\\a"[noise() % 8];
        put_value(&(struct sql_value){.type = SQL_TEXT, .data = noisy, .size = size});
        json_t *v = json_loadb((char *)out.data, out.size, JSON_ALLOW_NUL, NULL);
        if (v == NULL) fail_msg("not JSON: %.*s", (int)out.size, (char *)out.data);
        /* Valid text stays as it is. */
        json_t *whole = json_stringn((char *)noisy, size);
        if (whole != NULL) assert_true(json_equal(json_object_get(v, "value"), whole));
        json_decref(whole);
        json_decref(v);
    }
}

static int teardown(void **state)
{
    (void)state;
    hrana_encoder_free(e);
    buf_fini(&out);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_pipeline),  cmocka_unit_test(test_json_v1),
        cmocka_unit_test(test_json_cursor),    cmocka_unit_test(test_json_ws),
        cmocka_unit_test(test_proto_pipeline), cmocka_unit_test(test_proto_others),
        cmocka_unit_test(test_proto_long),     cmocka_unit_test(test_json_values),
        cmocka_unit_test(test_json_random),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
