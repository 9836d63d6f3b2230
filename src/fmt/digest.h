/*
 * digest.h -- a 128-bit digest of a whole database that changes in O(changed pages).
 *
 *   digest = sum over pages of XXH3-128(page bytes, seed = page number), modulo 2^128
 *
 * A sum of non-linear hashes notices what an XOR of per-page CRCs cannot: two pages swapped, or the
 * same change made twice. The page number is the seed, so a page is bound to its place. The lock
 * page is left out, as it is from LTX. It guards against faults, not against forgers.
 * Pure; threads: any.
 */
#ifndef FMT_DIGEST_H
#define FMT_DIGEST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest {
    uint64_t lo, hi;
};
#define DIGEST_SIZE 16

struct digest digest_page(uint32_t pgno, const void *page, size_t size);
struct digest digest_add(struct digest a, struct digest b);
struct digest digest_sub(struct digest a, struct digest b);
bool digest_equal(struct digest a, struct digest b);
void digest_put(struct digest d, uint8_t out[DIGEST_SIZE]); /* little-endian */
struct digest digest_get(const uint8_t in[DIGEST_SIZE]);
void digest_hex(struct digest d, char out[33]); /* hi first, lower case */
#endif
