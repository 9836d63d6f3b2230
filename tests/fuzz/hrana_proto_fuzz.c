/*
 * hrana_proto_fuzz.c -- a body of protobuf: accepted or refused, all memory inside the input or the
 * arena. The first byte picks the version and the entry.
 */
#include <stdarg.h>
#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "server/hrana_dump.h"

#define ARENA_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a;
    struct err err;
    if (size < 1) return 0;
    CHECK(arena_new(ARENA_MAX, &a, &err) == RC_OK);
    void *copy = malloc(size);
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    struct hrana_pipeline p;
    struct hrana_cursor_body c;
    struct hrana_ws_msg m;
    struct buf text = BUF_INIT;
    enum hrana_version v = 1 + data[0] / 8 % 3;
    enum rc rc;
    switch (data[0] % 8) {
    case 0:
        rc = hrana_proto_decoder.cursor(a, copy, size - 1, &c, &err);
        if (rc == RC_OK) dump_cursor(&text, &c);
        break;
    case 1:
        rc = hrana_proto_decoder.ws(a, v, copy, size - 1, &m, &err);
        if (rc == RC_OK) dump_ws(&text, &m);
        break;
    default:
        rc = hrana_proto_decoder.pipeline(a, v, copy, size - 1, &p, &err);
        if (rc == RC_OK) dump_pipeline(&text, &p);
    }
    CHECK(rc == RC_OK || rc == RC_INVALID || rc == RC_TOO_BIG);
    CHECK(rc == RC_OK || err.text[0] != '\0');
    buf_fini(&text);
    free(copy);
    arena_free(a);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
#define SEED(text)                                                                                 \
    {                                                                                              \
        text, sizeof text - 1                                                                      \
    }
    static const struct {
        const char *data;
        size_t size;
    } seeds[] = {
        SEED("\x17\x0a\x01z\x12\x21\x12\x1f\x0a\x1d\x0a\x01q\x1a\x02\x10\x05\x1a\x09\x19\0\0\0\0\0"
             "\0\xf0\x3f\x22\x07\x0a\x01n\x12\x02\x0a\0\x28\0"
             "\x12\x02\x0a\0"),
        SEED("\x17\x12\x1e\x1a\x1c\x0a\x1a\x0a\x05\x12\x03\x0a\x01x\x0a\x11\x0a\x0a\x22\x08\x0a\x02"
             "\x08\0\x0a\x02\x32\0\x12\x03\x0a\x01y"),
        SEED("\x10\x12\x09\x0a\x07\x12\x05\x0a\x03xyz"),
        SEED("\x11\x12\x08\x08\x01\x42\x04\x08\x01\x10\x0a"),
        SEED("\x11\x0a\x05\x0a\x03jwt"),
    };
    n %= sizeof seeds / sizeof seeds[0];
    memcpy(out, seeds[n].data, seeds[n].size);
    return seeds[n].size;
}
