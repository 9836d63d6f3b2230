/* digest_test.c -- the database digest against a recomputation of the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <xxhash.h>
#include "fmt/digest.h"
#include "fmt/noise.h"

#define PAGES     50
#define PAGE_SIZE 512

static uint8_t db[PAGES][PAGE_SIZE];

static struct digest digest_all(void)
{
    struct digest sum = {0};
    for (uint32_t i = 0; i < PAGES; i++)
        sum = digest_add(sum, digest_page(i + 1, db[i], PAGE_SIZE));
    return sum;
}

/* Not the way the module adds: as one 128-bit number, from the library's own entry point. */
static void test_definition(void **state)
{
    (void)state;
    unsigned __int128 sum = 0;
    fill_noise(db[0], sizeof db);
    for (uint32_t i = 0; i < PAGES; i++) {
        XXH128_hash_t h = XXH3_128bits_withSeed(db[i], PAGE_SIZE, i + 1);
        sum += (unsigned __int128)h.high64 << 64 | h.low64;
    }
    struct digest d = digest_all();
    assert_int_equal(d.lo, (uint64_t)sum);
    assert_int_equal(d.hi, (uint64_t)(sum >> 64));
}

static void test_update_in_place(void **state)
{
    (void)state;
    struct digest d = digest_all();
    for (int round = 0; round < 500; round++) {
        uint32_t i = (uint32_t)(noise() % PAGES);
        d = digest_sub(d, digest_page(i + 1, db[i], PAGE_SIZE));
        fill_noise(db[i], PAGE_SIZE);
        d = digest_add(d, digest_page(i + 1, db[i], PAGE_SIZE));
    }
    assert_true(digest_equal(d, digest_all()));
}

/* What an XOR of page checksums misses. */
static void test_notices(void **state)
{
    (void)state;
    struct digest before = digest_all();
    uint8_t spare[PAGE_SIZE];
    memcpy(spare, db[3], PAGE_SIZE);
    memcpy(db[3], db[4], PAGE_SIZE);
    memcpy(db[4], spare, PAGE_SIZE);
    assert_false(digest_equal(before, digest_all()));
    memcpy(db[4], db[3], PAGE_SIZE);
    memcpy(db[3], spare, PAGE_SIZE);
    assert_true(digest_equal(before, digest_all()));
    db[7][0] ^= 1;
    db[8][0] ^= 1;
    assert_false(digest_equal(before, digest_all()));
}

static void test_carry_and_text(void **state)
{
    (void)state;
    struct digest max = {.lo = UINT64_MAX, .hi = 1}, one = {.lo = 1}, two = {.hi = 2};
    assert_true(digest_equal(digest_add(max, one), two));
    assert_true(digest_equal(digest_sub(two, one), max));
    assert_false(digest_equal(one, two));
    assert_false(digest_equal(one, (struct digest){.lo = 1, .hi = 1}));

    struct digest d = {.lo = 0x0123456789abcdef, .hi = 0x00000000fedcba98};
    uint8_t bytes[DIGEST_SIZE];
    char hex[33];
    digest_put(d, bytes);
    assert_int_equal(bytes[0], 0xef);
    assert_int_equal(bytes[8], 0x98);
    assert_true(digest_equal(digest_get(bytes), d));
    digest_hex(d, hex);
    assert_string_equal(hex, "00000000fedcba980123456789abcdef");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_update_in_place),
        cmocka_unit_test(test_notices),
        cmocka_unit_test(test_carry_and_text),
    };
    noise_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
