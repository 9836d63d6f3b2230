/*
 * hrana_json_fuzz.c -- a body of JSON: the decoder and a second one, on a tree of jansson, accept
 * the same ones and understand the same. The first byte picks the version and the entry.
 */
#include <stdarg.h>
#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "server/hrana_oracle.h"

#define ARENA_MAX (1u << 20)

static void check_rc(enum rc rc, const struct err *err)
{
    CHECK(rc == RC_OK || rc == RC_INVALID || rc == RC_TOO_BIG);
    CHECK(rc == RC_OK || err->text[0] != '\0');
}

static void check_pipeline(struct arena *a, enum hrana_version v, const void *data, size_t size)
{
    struct hrana_pipeline p;
    struct err err;
    struct buf got = BUF_INIT, want = BUF_INIT;
    enum rc rc = hrana_json_decoder.pipeline(a, v, data, size, &p, &err);
    check_rc(rc, &err);
    int known = oracle_pipeline(&want, data, size, v);
    if (rc != RC_TOO_BIG && known >= 0) {
        if ((rc == RC_OK) != known) fail_msg("%d, not %d: %s\n", rc, known, err.text);
        if (rc == RC_OK) {
            dump_pipeline(&got, &p);
            CHECK(got.size == want.size);
            CHECK(memcmp(got.data, want.data, got.size) == 0);
        }
    }
    buf_fini(&got);
    buf_fini(&want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a;
    struct err err;
    if (size < 1) return 0;
    CHECK(arena_new(ARENA_MAX, &a, &err) == RC_OK);
    void *copy = malloc(size); /* its end is the end of a block: nobody may read beyond */
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    struct hrana_cursor_body c;
    struct hrana_ws_msg m;
    struct hrana_request r;
    struct buf text = BUF_INIT;
    enum hrana_version v = 1 + data[0] / 8 % 3;
    enum rc rc;
    switch (data[0] % 8) {
    case 0:
        check_rc(rc = hrana_json_decoder.cursor(a, copy, size - 1, &c, &err), &err);
        if (rc == RC_OK) dump_cursor(&text, &c);
        break;
    case 1:
        check_rc(rc = hrana_json_decoder.ws(a, v, copy, size - 1, &m, &err), &err);
        if (rc == RC_OK) dump_ws(&text, &m);
        break;
    case 2:
        check_rc(rc = hrana_json_v1(a, copy, size - 1, data[0] / 8 % 2, &r, &err), &err);
        if (rc == RC_OK) dump_request(&text, &r);
        break;
    default:
        check_pipeline(a, HRANA_2 + data[0] / 8 % 2, copy, size - 1);
    }
    buf_fini(&text);
    free(copy);
    arena_free(a);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    static const char *const seeds[] = {
        "\x17{\"baton\":null,\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT ?, "
        ":a\",\"args\":[{\"type\":\"integer\",\"value\":\"-9223372036854775808\"},{\"type\":"
        "\"float\",\"value\":-1.25e-7},{\"type\":\"blob\",\"base64\":\"_-+/AA==\"}],\"named_args\":"
        "[{\"name\":\"a\",\"value\":{\"type\":\"text\",\"value\":\"\\u00e9\\ud83d\\ude00\\n\"}}],"
        "\"want_rows\":false}},{\"type\":\"close\"}]}",
        "\x17{\"requests\":[{\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"BEGIN\"}},{\"condition\":"
        "{\"type\":\"and\",\"conds\":[{\"type\":\"ok\",\"step\":0},{\"cond\":{\"type\":"
        "\"is_autocommit\"},\"type\":\"not\"}]},\"stmt\":{\"sql_id\":7}}],\"replication_index\":"
        "\"12\"},\"type\":\"batch\"}],\"baton\":\"abc\"}",
        "\x17 { \"requests\" : [ {\"type\":\"sequence\",\"sql\":\"x;\"}, {\"type\":\"describe\","
        "\"sql_id\":1} ,{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"\"},{\"type\":\"close_sql\","
        "\"sql_id\":\"2\"},{\"type\":\"get_autocommit\",\"x\":[true,{\"y\":[]}]}]}\n",
        "\x10{\"baton\":\"b\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"SELECT 1\"}}]}}",
        ("\x11{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"fetch_cursor\","
         "\"cursor_id\":1,\"max_count\":10}}"),
        "\x11{\"type\":\"hello\",\"jwt\":\"e30.e30.\"}",
        "\x0a{\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"SELECT 1\"}}]}}",
    };
    const char *text = seeds[n % (sizeof seeds / sizeof seeds[0])];
    memcpy(out, text, strlen(text));
    return strlen(text);
}
