/*
 * wal.c -- see wal.h; docs/formats/wal.md has the rules in full.
 *
 *   WAL header, 32 bytes, big-endian        frame header, 24 bytes, big-endian
 *    0 magic 377f0682, or ..83: checksum     0 page number
 *      words are big-endian                  4 database size in pages on a commit frame, else 0
 *    4 version 3007000                       8 salt1 \ as in the WAL header,
 *    8 page size                            12 salt2 / or the frame is a leftover
 *   12 checkpoint sequence number           16 running checksum: of the header's first 24 bytes,
 *   16 salt1, 20 salt2                      20   then of each frame's first 8 bytes and its page
 *   24 checksum of bytes 0..23
 *
 *   wal-index header, 136 bytes, native byte order
 *    0 version 3007000    12 initialised (u8)    20 page count        40 checksum of bytes 0..39
 *    4 unused             13 big-endian (u8)     24 frame checksum    48 the same 48 bytes again
 *    8 change counter     14 page size (u16,     32 salts, copied     96 frames backfilled
 *                            1 = 65536)             as bytes         100 five read marks
 *                         16 last valid frame
 */
#include "fmt/wal.h"
#include "base/bytes.h"

#define WAL_MAGIC          0x377F0682u /* the lowest bit tells the checksum's byte order */
#define WAL_VERSION        3007000u
#define INDEX_COPY_SIZE    48
#define INDEX_SUM_SIZE     40
#define INDEX_BACKFILL_OFF 96
#define INDEX_MARKS_OFF    100

static bool page_size_ok(uint32_t size);

void wal_sum_add(struct wal_sum *sum, bool big_endian, const void *data, size_t size)
{
    ASSERT(size % 8 == 0);
    const uint8_t *p = data, *end = p + size;
    uint32_t s1 = sum->s1, s2 = sum->s2;
    /* Each word is added to the sum that was ready first, which leaves two additions in a row for
     * the two words. */
    if (big_endian) {
        for (; p < end; p += 8) {
            uint64_t x = get_be64(p);
            s1 = (s1 + (uint32_t)(x >> 32)) + s2;
            s2 = (s2 + (uint32_t)x) + s1;
        }
    } else {
        for (; p < end; p += 8) {
            uint64_t x = get_le64(p);
            s1 = (s1 + (uint32_t)x) + s2;
            s2 = (s2 + (uint32_t)(x >> 32)) + s1;
        }
    }
    *sum = (struct wal_sum){s1, s2};
}

enum rc wal_header_get(const uint8_t in[WAL_HEADER_SIZE], struct wal_header *ret_h, struct err *err)
{
    uint32_t magic = get_be32(in), version = get_be32(in + 4), page_size = get_be32(in + 8);
    if ((magic & ~1u) != WAL_MAGIC)
        return err_set(err, RC_CORRUPT, "WAL header: magic 0x%08x is not SQLite's", magic);
    if (version != WAL_VERSION)
        return err_set(err, RC_CORRUPT, "WAL header: version %u, expected %u", version,
                       WAL_VERSION);
    if (!page_size_ok(page_size))
        return err_set(err, RC_CORRUPT, "WAL header: page size %u is not legal", page_size);
    bool big_endian = (magic & 1) != 0;
    struct wal_sum sum = {0};
    wal_sum_add(&sum, big_endian, in, 24);
    if (sum.s1 != get_be32(in + 24) || sum.s2 != get_be32(in + 28))
        return err_set(err, RC_CORRUPT, "WAL header: checksum does not match");
    *ret_h = (struct wal_header){
        .big_endian = big_endian,
        .page_size = page_size,
        .seq = get_be32(in + 12),
        .salt1 = get_be32(in + 16),
        .salt2 = get_be32(in + 20),
        .sum = sum,
    };
    return RC_OK;
}

void wal_frame_get(const uint8_t in[WAL_FRAME_HEADER_SIZE], struct wal_frame *ret_f)
{
    *ret_f = (struct wal_frame){
        .pgno = get_be32(in),
        .commit = get_be32(in + 4),
        .salt1 = get_be32(in + 8),
        .salt2 = get_be32(in + 12),
        .sum = {get_be32(in + 16), get_be32(in + 20)},
    };
}

bool wal_frame_check(const struct wal_header *h, struct wal_sum *chain, const uint8_t *frame,
                     struct wal_frame *ret_f)
{
    struct wal_frame f;
    wal_frame_get(frame, &f);
    if (f.salt1 != h->salt1 || f.salt2 != h->salt2 || f.pgno == 0) return false;
    struct wal_sum sum = *chain;
    wal_sum_add(&sum, h->big_endian, frame, 8);
    wal_sum_add(&sum, h->big_endian, frame + WAL_FRAME_HEADER_SIZE, h->page_size);
    if (sum.s1 != f.sum.s1 || sum.s2 != f.sum.s2) return false;
    *chain = sum;
    *ret_f = f;
    return true;
}

uint64_t wal_frame_off(uint32_t page_size, uint64_t n)
{
    ASSERT(n >= 1);
    return WAL_HEADER_SIZE + (n - 1) * (WAL_FRAME_HEADER_SIZE + (uint64_t)page_size);
}

void wal_index_get(const uint8_t in[WAL_INDEX_HEADER_SIZE], struct wal_index *ret_x)
{
    struct wal_sum sum = {0};
    wal_sum_add(&sum, false, in, INDEX_SUM_SIZE); /* in native order, whatever the WAL uses */
    uint32_t size = get_le32(in + 12) >> 16;
    *ret_x = (struct wal_index){
        .valid = get_le32(in) == WAL_VERSION && in[12] != 0 &&
                 memcmp(in, in + INDEX_COPY_SIZE, INDEX_COPY_SIZE) == 0 &&
                 sum.s1 == get_le32(in + 40) && sum.s2 == get_le32(in + 44),
        .big_endian = in[13] != 0,
        .change = get_le32(in + 8),
        .page_size = (size & 0xFE00) | (size & 1) << 16,
        .frame_max = get_le32(in + 16),
        .page_count = get_le32(in + 20),
        .sum = {get_le32(in + 24), get_le32(in + 28)},
        .salt1 = get_be32(in + 32),
        .salt2 = get_be32(in + 36),
        .backfill = get_le32(in + INDEX_BACKFILL_OFF),
    };
    for (int i = 0; i < 5; i++)
        ret_x->read_mark[i] = get_le32(in + INDEX_MARKS_OFF + 4 * i);
}

static bool page_size_ok(uint32_t size)
{
    return size >= 512 && size <= 65536 && (size & (size - 1)) == 0;
}
