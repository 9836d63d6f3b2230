/*
 * crc64.h -- CRC-64/ISO as LTX uses it: reflected polynomial 0xD800000000000000, initial value and
 * final xor all ones; check("123456789") = 0xB90956C775A41001 (as Go's hash/crc64 ISO).
 *
 * Finished values are passed around (0 for no bytes), so updates chain and combine:
 *   crc64(crc64(0, a), b) == crc64_combine(crc64(0, a), crc64(0, b), size of b)
 * Pure; threads: any.
 */
#ifndef FMT_CRC64_H
#define FMT_CRC64_H
#include <stddef.h>
#include <stdint.h>

uint64_t crc64(uint64_t crc, const void *data, size_t size);
/* The checksum of a followed by b, from theirs. O(log size_b). */
uint64_t crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t size_b);
#endif
