/*
 * crc64.c -- see crc64.h.
 *
 * Bits are reflected: bit 63 of a register is the coefficient of x^0, bit 0 that of x^63, and the
 * first bit of a message (bit 0 of its first byte) is the highest power. Two ways to compute:
 *
 *   portable   eight table look-ups for eight bytes ("slicing")
 *   carry-less multiplication (x86-64 with PCLMULQDQ): four lanes of 128 bits are carried along,
 *              each replaced by a shorter polynomial that is congruent modulo P
 *
 * Carrying a lane over D bits: lane = A x^64 + B, so lane x^D = A x^(D+64) + B x^D. A product of
 * two reflected 64-bit values comes out multiplied by x (127 bits in 128), which the constants
 * absorb: they are x^(D+63) mod P for A, the low half of the register, and x^(D-1) mod P for B.
 */
#include "fmt/crc64.h"
#include "base/bytes.h"
#include <stdbool.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define POLY     0xD800000000000000ull
#define ONE      (1ull << 63) /* x^0 */
#define FOLD_MIN 64u          /* bytes; the four lanes */

static uint64_t slices[8][256];
static uint64_t shifts[64]; /* shifts[k] = x^(8 * 2^k) mod P: "followed by 2^k zero bytes" */

static uint64_t update_portable(uint64_t reg, const uint8_t *p, size_t size);
static uint64_t multiply(uint64_t a, uint64_t b);
#ifdef __x86_64__
static bool have_clmul;
/* [0] carries a lane over 128 bits, [1] over 256, [2] over 512; the pair is { A's, B's }. */
static const uint64_t fold_by[3][2] = {{0x6B70000000000001, 0xF500000000000001},
                                       {0x1B1AB00000000001, 0xA011000000000001},
                                       {0x01B001B1B0000001, 0xB100010100000001}};
static uint64_t update_clmul(uint64_t reg, const uint8_t *p, size_t size);
#endif

/* Before main and before any thread, so that nobody has to ask whether the tables are there. */
__attribute__((constructor)) static void make_tables(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t reg = i;
        for (int bit = 0; bit < 8; bit++)
            reg = (reg >> 1) ^ (POLY & -(reg & 1));
        slices[0][i] = reg;
    }
    for (int s = 1; s < 8; s++) {
        for (unsigned i = 0; i < 256; i++) {
            uint64_t reg = slices[s - 1][i];
            slices[s][i] = slices[0][reg & 0xFF] ^ (reg >> 8);
        }
    }
    shifts[0] = ONE >> 8;
    for (int k = 1; k < 64; k++)
        shifts[k] = multiply(shifts[k - 1], shifts[k - 1]);
#ifdef __x86_64__
    __builtin_cpu_init();
    have_clmul = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
}

uint64_t crc64(uint64_t crc, const void *data, size_t size)
{
#ifdef __x86_64__
    if (size >= FOLD_MIN && have_clmul) return ~update_clmul(~crc, data, size);
#endif
    return ~update_portable(~crc, data, size);
}

/* Both complements cancel out, as the register starts with what it is complemented with. */
uint64_t crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t size_b)
{
    for (int k = 0; size_b != 0; k++, size_b >>= 1)
        if (size_b & 1) crc_a = multiply(crc_a, shifts[k]);
    return crc_a ^ crc_b;
}

static uint64_t update_portable(uint64_t reg, const uint8_t *p, size_t size)
{
    for (; size >= 8; p += 8, size -= 8) {
        reg ^= get_le64(p);
        reg = slices[7][reg & 0xFF] ^ slices[6][(reg >> 8) & 0xFF] ^ slices[5][(reg >> 16) & 0xFF] ^
              slices[4][(reg >> 24) & 0xFF] ^ slices[3][(reg >> 32) & 0xFF] ^
              slices[2][(reg >> 40) & 0xFF] ^ slices[1][(reg >> 48) & 0xFF] ^ slices[0][reg >> 56];
    }
    for (; size > 0; p++, size--)
        reg = slices[0][(reg ^ *p) & 0xFF] ^ (reg >> 8);
    return reg;
}

/* a * b mod P. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
    uint64_t product = 0;
    for (; a != 0; a <<= 1) {
        product ^= b & -(a >> 63);
        b = (b >> 1) ^ (POLY & -(b & 1));
    }
    return product;
}

#ifdef __x86_64__
#define CLMUL __attribute__((target("pclmul,sse4.1")))

CLMUL static inline __m128i load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* The lane x carried forward, added to what it is carried to. */
CLMUL static inline __m128i fold(__m128i x, __m128i by, __m128i onto)
{
    __m128i a = _mm_clmulepi64_si128(x, by, 0x00), b = _mm_clmulepi64_si128(x, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(a, b), onto);
}

CLMUL static uint64_t update_clmul(uint64_t reg, const uint8_t *p, size_t size)
{
    const __m128i by_128 = load((const uint8_t *)fold_by[0]);
    const __m128i by_256 = load((const uint8_t *)fold_by[1]);
    const __m128i by_512 = load((const uint8_t *)fold_by[2]);
    __m128i x0 = _mm_xor_si128(load(p), _mm_cvtsi64_si128((long long)reg));
    __m128i x1 = load(p + 16), x2 = load(p + 32), x3 = load(p + 48);
    for (p += 64, size -= 64; size >= 64; p += 64, size -= 64) {
        x0 = fold(x0, by_512, load(p));
        x1 = fold(x1, by_512, load(p + 16));
        x2 = fold(x2, by_512, load(p + 32));
        x3 = fold(x3, by_512, load(p + 48));
    }
    x2 = fold(x0, by_256, x2);
    x3 = fold(x1, by_256, x3);
    x3 = fold(x2, by_128, x3);
    for (; size >= 16; p += 16, size -= 16)
        x3 = fold(x3, by_128, load(p));
    /* What is left of everything so far is 16 bytes that a fresh register may read instead. */
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)(void *)rest, x3);
    return update_portable(update_portable(0, rest, sizeof rest), p, size);
}
#endif
