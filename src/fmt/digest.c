/* digest.c -- see digest.h. */
#include "fmt/digest.h"
#include "base/bytes.h"
#include <stdio.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct digest digest_page(uint32_t pgno, const void *page, size_t size)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(page, size, pgno);
    return (struct digest){.lo = hash.low64, .hi = hash.high64};
}

struct digest digest_add(struct digest a, struct digest b)
{
    uint64_t lo = a.lo + b.lo;
    return (struct digest){.lo = lo, .hi = a.hi + b.hi + (lo < a.lo)};
}

struct digest digest_sub(struct digest a, struct digest b)
{
    return (struct digest){.lo = a.lo - b.lo, .hi = a.hi - b.hi - (a.lo < b.lo)};
}

bool digest_equal(struct digest a, struct digest b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

void digest_put(struct digest d, uint8_t out[DIGEST_SIZE])
{
    put_le64(out, d.lo);
    put_le64(out + 8, d.hi);
}

struct digest digest_get(const uint8_t in[DIGEST_SIZE])
{
    return (struct digest){.lo = get_le64(in), .hi = get_le64(in + 8)};
}

void digest_hex(struct digest d, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)d.hi, (unsigned long long)d.lo);
}
