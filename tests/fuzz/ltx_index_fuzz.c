/*
 * ltx_index_fuzz.c -- the page index reader: fed whole and in pieces it gives the same entries, all
 * of them legal, and as many as a reader written on its own counts.
 *
 * Input: u8 piece size, u64 frames_end, u32 page_count, 24 bytes for ltx_index_locate, index.
 */
#include "base/bytes.h"
#include "fmt/ltx.h"
#include "fmt/noise.h"
#include "fuzz/fuzz.h"

#define HEAD_SIZE 37
#define ENTRY_MAX 30

struct result {
    enum rc rc;
    uint64_t count, sum;
    bool done;
};

static struct result read_all(struct ltx_index_reader r, const uint8_t *in, size_t size,
                              size_t piece);
static uint64_t count_slowly(const uint8_t *in, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    uint64_t off, index_size;
    if (size < HEAD_SIZE) return 0;
    uint64_t file_size = get_be64(data + 1);
    if (ltx_index_locate(data + 13, file_size, &off, &index_size, &err) == RC_OK) {
        CHECK(off >= 106 && index_size >= 1);
        CHECK(off + index_size + 24 == file_size);
    }
    struct ltx_index_reader r = {.frames_end = file_size, .page_count = get_be32(data + 9)};
    struct result whole = read_all(r, data + HEAD_SIZE, size - HEAD_SIZE, size);
    struct result pieces = read_all(r, data + HEAD_SIZE, size - HEAD_SIZE, 1 + data[0] % 40u);
    CHECK(whole.rc == pieces.rc && whole.count == pieces.count && whole.sum == pieces.sum);
    CHECK(whole.done == pieces.done);
    if (whole.done) CHECK(whole.count == count_slowly(data + HEAD_SIZE, size - HEAD_SIZE));
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    size_t size = HEAD_SIZE;
    uint64_t off = 100;
    memset(out, 0, HEAD_SIZE);
    out[0] = (uint8_t)n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t v[3] = {1 + i * (n % 7 + 1), off, 7 + noise() % 5000};
        off += v[2];
        for (int k = 0; k < 3; k++) {
            for (; v[k] >= 0x80; v[k] >>= 7)
                out[size++] = (uint8_t)(v[k] | 0x80);
            out[size++] = (uint8_t)v[k];
        }
    }
    out[size++] = 0;
    put_be64(out + 1, n & 1 ? off : 0);
    put_be32(out + 9, n & 2 ? n * 8 : 0);
    put_be64(out + 13, size - HEAD_SIZE);
    return size;
}

static struct result read_all(struct ltx_index_reader r, const uint8_t *in, size_t size,
                              size_t piece)
{
    struct result res = {0};
    size_t at = 0, limit = 0;
    uint32_t last = 0;
    while (!r.done) {
        struct ltx_index_entry e;
        struct err err;
        size_t took = limit - at;
        bool more;
        res.rc = ltx_index_next(&r, in + at, &took, &e, &more, &err);
        if (res.rc != RC_OK) {
            CHECK(res.rc == RC_CORRUPT);
            break;
        }
        CHECK(took <= ENTRY_MAX);
        at += took;
        if (more) {
            CHECK(e.pgno > last && (r.page_count == 0 || e.pgno <= r.page_count));
            CHECK(e.off >= 100 && e.size > 6 && e.off + e.size > e.off);
            CHECK(r.frames_end == 0 || e.off + e.size <= r.frames_end);
            last = e.pgno;
            res.count++;
            res.sum = res.sum * 31 + e.pgno + 3 * e.off + 7 * e.size;
        } else if (!r.done) {
            CHECK(took == 0);
            if (limit == size) break; /* cut short */
            limit = size - limit > piece ? limit + piece : size;
        }
    }
    res.done = r.done;
    return res;
}

/* Entries are three numbers; a number ends with a byte below 0x80; a number 0 in front ends it. */
static uint64_t count_slowly(const uint8_t *in, size_t size)
{
    uint64_t numbers = 0;
    bool zero = true;
    for (size_t i = 0; i < size; i++) {
        zero = zero && (in[i] & 0x7F) == 0;
        if (in[i] >= 0x80) continue;
        if (zero && numbers % 3 == 0) break;
        numbers++;
        zero = true;
    }
    return numbers / 3;
}
