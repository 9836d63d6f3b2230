/* crc64_test.c -- CRC-64/ISO against a bit-by-bit oracle; both implementations, and combining. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../../src/fmt/crc64.c" /* its two ways to compute and its constants are static */
#include "fmt/noise.h"

/* Straight from the definition: one bit of the message at a time. */
static uint64_t slow_crc(const uint8_t *p, size_t size)
{
    uint64_t reg = ~0ull;
    for (size_t i = 0; i < size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            uint64_t low = (reg ^ (uint64_t)(p[i] >> bit)) & 1;
            reg >>= 1;
            if (low) reg ^= POLY;
        }
    }
    return ~reg;
}

/* x^n mod P, reflected: a one shifted n times. */
static uint64_t slow_power(unsigned n)
{
    uint64_t reg = ONE;
    while (n-- > 0)
        reg = reg & 1 ? reg >> 1 ^ POLY : reg >> 1;
    return reg;
}

static void test_known(void **state)
{
    (void)state;
    assert_int_equal(crc64(0, "", 0), 0);
    assert_int_equal(crc64(0, "123456789", 9), 0xB90956C775A41001);
    assert_int_equal(slow_crc((const uint8_t *)"123456789", 9), 0xB90956C775A41001);
}

static void test_constants(void **state)
{
    (void)state;
    for (int k = 0; k < 12; k++)
        assert_int_equal(shifts[k], slow_power(8u << k));
#ifdef __x86_64__
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fold_by[i][0], slow_power((128u << i) + 63));
        assert_int_equal(fold_by[i][1], slow_power((128u << i) - 1));
    }
#endif
}

static void test_every_size(void **state)
{
    (void)state;
    uint8_t data[700];
    fill_noise(data, sizeof data);
    for (size_t size = 0; size + 3 < sizeof data; size++) {
        for (size_t from = 0; from < 3; from++) {
            uint64_t want = slow_crc(data + from, size);
            assert_int_equal(crc64(0, data + from, size), want);
            assert_int_equal(~update_portable(~0ull, data + from, size), want);
#ifdef __x86_64__
            if (size >= FOLD_MIN && have_clmul)
                assert_int_equal(~update_clmul(~0ull, data + from, size), want);
#endif
        }
    }
}

static void test_chain_and_combine(void **state)
{
    (void)state;
    uint8_t data[5000];
    fill_noise(data, sizeof data);
    uint64_t whole = slow_crc(data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut += cut < 300 ? 1 : 97) {
        uint64_t a = crc64(0, data, cut), b = crc64(0, data + cut, sizeof data - cut);
        assert_int_equal(crc64(a, data + cut, sizeof data - cut), whole);
        assert_int_equal(crc64_combine(a, b, sizeof data - cut), whole);
    }
}

/* Sizes that no buffer has: (a b) c must equal a (b c). */
static void test_combine_large(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        uint64_t a = noise(), b = noise(), c = noise();
        uint64_t size_b = noise() >> (1 + i % 60), size_c = noise() >> (1 + i % 63);
        uint64_t ab_c = crc64_combine(crc64_combine(a, b, size_b), c, size_c);
        uint64_t a_bc = crc64_combine(a, crc64_combine(b, c, size_c), size_b + size_c);
        assert_int_equal(ab_c, a_bc);
    }
    /* A megabyte of zeros, doubled up to a terabyte, against squaring by hand. */
    uint64_t zeros = crc64(0, (uint8_t[1024]){0}, 1024), shift = slow_power(8 * 1024);
    for (int k = 10; k < 40; k++) {
        zeros = crc64_combine(zeros, zeros, 1ull << k);
        shift = multiply(shift, shift);
        assert_int_equal(~zeros, multiply(~0ull, shift));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),         cmocka_unit_test(test_constants),
        cmocka_unit_test(test_every_size),    cmocka_unit_test(test_chain_and_combine),
        cmocka_unit_test(test_combine_large),
    };
    noise_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
