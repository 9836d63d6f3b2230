/*
 * wal_fuzz.c -- the WAL and wal-index decoders against slow ones written from the description.
 *
 * Input: u8 flags, then a file. Flag 1: repair header and frame checksums first, so that the rules
 * behind them are reached; flag 2: it is a wal-index.
 */
#include "base/bytes.h"
#include "fmt/noise.h"
#include "fmt/wal.h"
#include "fuzz/fuzz.h"

static void slow_sum(uint32_t s[2], bool big_endian, const uint8_t *p, size_t size);
static void repair(uint8_t *file, size_t size);
static void check_wal(const uint8_t *file, size_t size);
static bool slow_frame(const struct wal_header *h, uint32_t s[2], const uint8_t *f);
static void check_index(const uint8_t *in, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    if (data[0] & 2) {
        check_index(data + 1, size - 1);
        return 0;
    }
    uint8_t *file = malloc(size);
    CHECK(file != NULL);
    memcpy(file, data + 1, size - 1);
    if (data[0] & 1) repair(file, size - 1);
    check_wal(file, size - 1);
    free(file);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    const uint32_t page_size = n & 8 ? 1024 : 512;
    size_t size = 1 + WAL_HEADER_SIZE;
    uint8_t *h = out + 1;
    fill_noise(out, FUZZ_SIZE_MAX);
    out[0] = (uint8_t)(n % 4);
    if (n & 2) {
        put_le32(h, 3007000);
        put_le32(h + 12, 1u | (n & 1) << 8 | page_size << 16);
        uint32_t s[2] = {0, 0};
        slow_sum(s, false, h, 40);
        put_le32(h + 40, s[0]);
        put_le32(h + 44, s[1]);
        memcpy(h + 48, h, 48);
        return 1 + WAL_INDEX_HEADER_SIZE;
    }
    put_be32(h, 0x377f0682 + (n >> 2 & 1));
    put_be32(h + 4, 3007000);
    put_be32(h + 8, page_size);
    for (unsigned i = 0; i < n / 16; i++) {
        uint8_t *f = out + size;
        put_be32(f, i + 1);
        put_be32(f + 4, i % 2 * 9);
        memcpy(f + 8, h + 16, 8);
        size += WAL_FRAME_HEADER_SIZE + page_size;
    }
    repair(h, size - 1);
    return size;
}

static void slow_sum(uint32_t s[2], bool big_endian, const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        s[0] += (big_endian ? get_be32(p + i) : get_le32(p + i)) + s[1];
        s[1] += (big_endian ? get_be32(p + i + 4) : get_le32(p + i + 4)) + s[0];
    }
}

static void repair(uint8_t *file, size_t size)
{
    uint32_t s[2] = {0, 0}, page_size;
    if (size < WAL_HEADER_SIZE) return;
    const bool big_endian = file[3] & 1;
    slow_sum(s, big_endian, file, 24);
    put_be32(file + 24, s[0]);
    put_be32(file + 28, s[1]);
    page_size = get_be32(file + 8);
    if (page_size < 512 || page_size > 65536 || page_size % 8 != 0) return;
    for (size_t at = WAL_HEADER_SIZE; at + WAL_FRAME_HEADER_SIZE + page_size <= size;
         at += WAL_FRAME_HEADER_SIZE + page_size) {
        slow_sum(s, big_endian, file + at, 8);
        slow_sum(s, big_endian, file + at + WAL_FRAME_HEADER_SIZE, page_size);
        put_be32(file + at + 16, s[0]);
        put_be32(file + at + 20, s[1]);
    }
}

static void check_wal(const uint8_t *file, size_t size)
{
    struct wal_header h;
    struct err err;
    if (size < WAL_HEADER_SIZE) return;
    enum rc rc = wal_header_get(file, &h, &err);
    uint32_t s[2] = {0, 0}, magic = get_be32(file), page_size = get_be32(file + 8);
    slow_sum(s, magic & 1, file, 24);
    bool good = (magic == 0x377f0682 || magic == 0x377f0683) && get_be32(file + 4) == 3007000 &&
                page_size >= 512 && page_size <= 65536 && __builtin_popcount(page_size) == 1 &&
                s[0] == get_be32(file + 24) && s[1] == get_be32(file + 28);
    CHECK(rc == (good ? RC_OK : RC_CORRUPT));
    if (!good) return;
    CHECK(h.page_size == page_size && h.big_endian == (magic & 1));
    struct wal_sum chain = h.sum;
    for (uint64_t n = 1; wal_frame_off(page_size, n + 1) <= size; n++) {
        struct wal_frame f = {.pgno = 0};
        const uint8_t *frame = file + wal_frame_off(page_size, n);
        bool ok = wal_frame_check(&h, &chain, frame, &f);
        CHECK(ok == slow_frame(&h, s, frame));
        CHECK(chain.s1 == s[0] && chain.s2 == s[1]);
        if (!ok) break;
        CHECK(f.pgno == get_be32(frame) && f.commit == get_be32(frame + 4));
    }
}

static bool slow_frame(const struct wal_header *h, uint32_t s[2], const uint8_t *f)
{
    uint32_t t[2] = {s[0], s[1]};
    slow_sum(t, h->big_endian, f, 8);
    slow_sum(t, h->big_endian, f + WAL_FRAME_HEADER_SIZE, h->page_size);
    if (get_be32(f) == 0 || get_be32(f + 8) != h->salt1 || get_be32(f + 12) != h->salt2 ||
        get_be32(f + 16) != t[0] || get_be32(f + 20) != t[1])
        return false;
    memcpy(s, t, sizeof t);
    return true;
}

static void check_index(const uint8_t *in, size_t size)
{
    struct wal_index x;
    uint32_t s[2] = {0, 0};
    if (size < WAL_INDEX_HEADER_SIZE) return;
    wal_index_get(in, &x);
    slow_sum(s, false, in, 40);
    CHECK(x.valid == (get_le32(in) == 3007000 && in[12] != 0 && memcmp(in, in + 48, 48) == 0 &&
                      get_le32(in + 40) == s[0] && get_le32(in + 44) == s[1]));
    CHECK(x.frame_max == get_le32(in + 16) && x.salt2 == get_be32(in + 36));
}
