/* bytes.h -- fixed-width integers in byte strings, either order, any alignment. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H
#include <stdint.h>
#include <string.h>

static inline uint16_t get_be16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}
static inline uint32_t get_le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint32_t get_be32(const void *p)
{
    return __builtin_bswap32(get_le32(p));
}
static inline uint64_t get_le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline uint64_t get_be64(const void *p)
{
    return __builtin_bswap64(get_le64(p));
}
static inline void put_be16(void *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}
static inline void put_le32(void *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static inline void put_be32(void *p, uint32_t v)
{
    put_le32(p, __builtin_bswap32(v));
}
static inline void put_le64(void *p, uint64_t v)
{
    memcpy(p, &v, 8);
}
static inline void put_be64(void *p, uint64_t v)
{
    put_le64(p, __builtin_bswap64(v));
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bytes.h is written for little-endian");
#endif
