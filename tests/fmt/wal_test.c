/* wal_test.c -- the WAL and wal-index decoders on hand-made bytes; wal_sqlite_test.c uses real
 * ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/bytes.h"
#include "fmt/noise.h"
#include "fmt/wal.h"

#define PAGE_SIZE  512u
#define FRAME_SIZE (WAL_FRAME_HEADER_SIZE + PAGE_SIZE)
#define FRAMES     5

static uint8_t file[WAL_HEADER_SIZE + FRAMES * FRAME_SIZE];

/* From the description of the format, a byte at a time. */
static void slow_sum(uint32_t s[2], bool big_endian, const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        for (int w = 0; w < 2; w++) {
            uint32_t x = 0;
            for (int b = 0; b < 4; b++)
                x |= (uint32_t)p[i + (size_t)(4 * w + b)] << 8 * (big_endian ? 3 - b : b);
            s[w] += x + s[1 - w];
        }
    }
}

static void make_file(bool big_endian)
{
    uint32_t s[2] = {0, 0};
    fill_noise(file, sizeof file);
    put_be32(file, 0x377f0682u + big_endian);
    put_be32(file + 4, 3007000);
    put_be32(file + 8, PAGE_SIZE);
    put_be32(file + 12, 9);
    put_be32(file + 16, 0xAABBCCDD);
    put_be32(file + 20, 0x11223344);
    slow_sum(s, big_endian, file, 24);
    put_be32(file + 24, s[0]);
    put_be32(file + 28, s[1]);
    for (uint32_t i = 0; i < FRAMES; i++) {
        uint8_t *f = file + wal_frame_off(PAGE_SIZE, i + 1);
        put_be32(f, i + 2);
        put_be32(f + 4, i % 2 == 1 ? 7 + i : 0);
        memcpy(f + 8, file + 16, 8);
        slow_sum(s, big_endian, f, 8);
        slow_sum(s, big_endian, f + WAL_FRAME_HEADER_SIZE, PAGE_SIZE);
        put_be32(f + 16, s[0]);
        put_be32(f + 20, s[1]);
    }
}

/* How many frames does the reader accept? */
static uint32_t count_frames(void)
{
    struct wal_header h;
    struct err err;
    if (wal_header_get(file, &h, &err) != RC_OK) {
        assert_int_equal(err.rc, RC_CORRUPT);
        return 0;
    }
    struct wal_sum chain = h.sum;
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct wal_frame f;
        struct wal_sum before = chain;
        const uint8_t *frame = file + wal_frame_off(PAGE_SIZE, i + 1);
        if (!wal_frame_check(&h, &chain, frame, &f)) {
            assert_memory_equal(&before, &chain, sizeof chain);
            return i;
        }
        assert_int_equal(f.pgno, i + 2);
        assert_int_equal(f.commit, i % 2 == 1 ? 7 + i : 0);
        assert_int_equal(f.sum.s1, chain.s1);
        assert_int_equal(f.sum.s2, chain.s2);
    }
    return FRAMES;
}

static void test_sum(void **state)
{
    (void)state;
    uint8_t data[256];
    fill_noise(data, sizeof data);
    for (size_t size = 0; size <= 240; size += 8) {
        for (int big = 0; big < 2; big++) {
            struct wal_sum sum = {5, 6};
            uint32_t want[2] = {5, 6};
            wal_sum_add(&sum, big, data + 3, size);
            slow_sum(want, big, data + 3, size);
            assert_int_equal(sum.s1, want[0]);
            assert_int_equal(sum.s2, want[1]);
        }
    }
}

static void test_both_byte_orders(void **state)
{
    (void)state;
    for (int big = 0; big < 2; big++) {
        struct wal_header h;
        struct err err;
        make_file(big);
        assert_int_equal(wal_header_get(file, &h, &err), RC_OK);
        assert_int_equal(h.big_endian, big);
        assert_int_equal(h.page_size, PAGE_SIZE);
        assert_int_equal(h.seq, 9);
        assert_int_equal(h.salt1, 0xAABBCCDD);
        assert_int_equal(h.salt2, 0x11223344);
        assert_int_equal(count_frames(), FRAMES);
    }
}

/* A flipped bit anywhere ends the log right there: in the header, nothing is left. */
static void test_flip_every_byte(void **state)
{
    (void)state;
    for (int big = 0; big < 2; big++) {
        make_file(big);
        for (size_t i = 0; i < sizeof file; i++) {
            uint8_t bit = (uint8_t)(1u << noise() % 8);
            file[i] ^= bit;
            size_t frame = i < WAL_HEADER_SIZE ? 0 : (i - WAL_HEADER_SIZE) / FRAME_SIZE;
            assert_int_equal(count_frames(), frame);
            file[i] ^= bit;
        }
        assert_int_equal(count_frames(), FRAMES);
    }
}

/* A leftover of the log before: consistent in itself, but with other salts. */
static void test_page_zero_and_salts(void **state)
{
    (void)state;
    struct wal_header h;
    struct wal_frame f;
    struct err err;
    make_file(false);
    assert_int_equal(wal_header_get(file, &h, &err), RC_OK);
    h.salt2++;
    assert_false(wal_frame_check(&h, &h.sum, file + WAL_HEADER_SIZE, &f));
    h.salt2--;
    assert_true(wal_frame_check(&h, &h.sum, file + WAL_HEADER_SIZE, &f));

    make_file(false);
    uint32_t s[2];
    uint8_t *frame = file + WAL_HEADER_SIZE;
    assert_int_equal(wal_header_get(file, &h, &err), RC_OK);
    s[0] = h.sum.s1, s[1] = h.sum.s2;
    put_be32(frame, 0);
    slow_sum(s, false, frame, 8);
    slow_sum(s, false, frame + WAL_FRAME_HEADER_SIZE, PAGE_SIZE);
    put_be32(frame + 16, s[0]);
    put_be32(frame + 20, s[1]);
    assert_false(wal_frame_check(&h, &h.sum, frame, &f));
}

static void reseal(uint8_t *h)
{
    uint32_t s[2] = {0, 0};
    slow_sum(s, h[3] & 1, h, 24);
    put_be32(h + 24, s[0]);
    put_be32(h + 28, s[1]);
}

static void test_header_refusals(void **state)
{
    (void)state;
    struct wal_header h;
    struct err err;
    static const struct {
        size_t off;
        uint32_t value;
        const char *word;
    } rows[] = {
        {0, 0x377f0684, "magic"}, {0, 0, "magic"},       {4, 3007001, "version"},
        {8, 0, "page size"},      {8, 256, "page size"}, {8, 513, "page size"},
        {8, 131072, "page size"}, {8, 1, "page size"},   {8, 0xFFFFFFFF, "page size"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        make_file(true);
        put_be32(file + rows[i].off, rows[i].value);
        reseal(file);
        assert_int_equal(wal_header_get(file, &h, &err), RC_CORRUPT);
        assert_non_null(strstr(err.text, rows[i].word));
    }
    for (uint32_t size = 512; size <= 65536; size *= 2) {
        put_be32(file + 8, size);
        reseal(file);
        assert_int_equal(wal_header_get(file, &h, &err), RC_OK);
        assert_int_equal(h.page_size, size);
    }
}

static void test_offsets(void **state)
{
    (void)state;
    assert_int_equal(wal_frame_off(4096, 1), 32);
    assert_int_equal(wal_frame_off(4096, 2), 32 + 24 + 4096);
    assert_int_equal(wal_frame_off(65536, 1u << 20), 32 + ((1ull << 20) - 1) * 65560);
}

static void make_index(uint8_t x[WAL_INDEX_HEADER_SIZE], uint16_t page_size)
{
    uint32_t s[2] = {0, 0};
    memset(x, 0, WAL_INDEX_HEADER_SIZE);
    put_le32(x, 3007000);
    put_le32(x + 8, 3);
    put_le32(x + 12, 1 | (uint32_t)page_size << 16);
    put_le32(x + 16, 11);
    put_le32(x + 20, 12);
    put_le32(x + 24, 13);
    put_le32(x + 28, 14);
    put_be32(x + 32, 15);
    put_be32(x + 36, 16);
    slow_sum(s, false, x, 40);
    put_le32(x + 40, s[0]);
    put_le32(x + 44, s[1]);
    memcpy(x + 48, x, 48);
    put_le32(x + 96, 17);
    for (uint32_t i = 0; i < 5; i++)
        put_le32(x + 100 + 4 * i, 20 + i);
}

static void test_index(void **state)
{
    (void)state;
    uint8_t in[WAL_INDEX_HEADER_SIZE];
    struct wal_index x;
    make_index(in, 1);
    wal_index_get(in, &x);
    assert_true(x.valid);
    assert_int_equal(x.page_size, 65536);
    make_index(in, 512);
    wal_index_get(in, &x);
    assert_true(x.valid);
    assert_false(x.big_endian);
    assert_int_equal(x.page_size, 512);
    assert_int_equal(x.change, 3);
    assert_int_equal(x.frame_max, 11);
    assert_int_equal(x.page_count, 12);
    assert_int_equal(x.sum.s1, 13);
    assert_int_equal(x.sum.s2, 14);
    assert_int_equal(x.salt1, 15);
    assert_int_equal(x.salt2, 16);
    assert_int_equal(x.backfill, 17);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(x.read_mark[i], 20 + i);
    /* A reader that meets a writer sees two different copies, or half of a new one. */
    for (size_t i = 0; i < 96; i++) {
        in[i] ^= 0x10;
        wal_index_get(in, &x);
        assert_false(x.valid);
        in[i] ^= 0x10;
    }
    for (size_t i = 0; i < 48; i++) {
        in[i] ^= 0x10;
        in[i + 48] ^= 0x10;
        wal_index_get(in, &x);
        assert_false(x.valid);
        in[i] ^= 0x10;
        in[i + 48] ^= 0x10;
    }
    memset(in, 0, sizeof in);
    wal_index_get(in, &x);
    assert_false(x.valid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_both_byte_orders),
        cmocka_unit_test(test_flip_every_byte),
        cmocka_unit_test(test_page_zero_and_salts),
        cmocka_unit_test(test_header_refusals),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_index),
    };
    noise_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
