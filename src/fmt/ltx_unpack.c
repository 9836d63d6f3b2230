/*
 * ltx_unpack.c -- page frames: where does one end, and what page is in it; see ltx.h.
 *
 *   flags 1   u32 size (big-endian), LZ4 block
 *   flags 0   LZ4 frame, all little-endian:
 *             magic, FLG, BD, [u64 content size], HC      HC = second byte of the XXH32 of FLG..
 *             { u32 size, block, [XXH32 of it] } ...      top bit of size: stored as it is
 *             u32 0, [XXH32 of the page]
 *
 * Litestream writes frames with one block and the content checksum; other valid frames are read
 * as well. A dictionary is refused: nobody could say which.
 */
#include "fmt/ltx.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "fmt/crc64.h"
#include "fmt/ltx_private.h"
#include <lz4.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define FLG_DICT         0x01u
#define FLG_RESERVED     0x02u
#define FLG_CONTENT_SUM  0x04u
#define FLG_CONTENT_SIZE 0x08u
#define FLG_BLOCK_SUM    0x10u
#define FLG_INDEPENDENT  0x20u

struct ltx_unpacker {
    uint32_t page_size;
};

/* Where one block stands in a frame, and how it is stored. */
struct block {
    const uint8_t *data;
    uint32_t size; /* bytes */
    bool raw;
};

static const char *scan_lz4_head(struct ltx__scan *s, uint32_t page_size, const uint8_t *frame,
                                 size_t size, size_t *ret_want);
static const char *scan_lz4_block(struct ltx__scan *s, uint64_t max, const uint8_t *frame,
                                  size_t size, size_t *ret_want);
static const char *unpack_lz4(uint32_t page_size, const uint8_t *frame, size_t size, uint8_t *page);
static int unpack_block(const struct block *b, bool independent, uint8_t *page, uint32_t used,
                        uint32_t page_size);

uint64_t ltx_frame_size_max(uint32_t page_size)
{
    /* An LZ4 frame of several blocks may exceed one with a single block a little. */
    return 2 * (uint64_t)page_size + 256;
}

enum rc ltx_unpacker_new(uint32_t page_size, struct ltx_unpacker **ret_u, struct err *err)
{
    if (!ltx_page_size_ok(page_size))
        return err_set(err, RC_INVALID, "LTX unpacker: page size %u is not legal", page_size);
    struct ltx_unpacker *u = mem_calloc(1, sizeof *u);
    if (u == NULL) return err_mem(err, "an LTX unpacker");
    u->page_size = page_size;
    *ret_u = u;
    return RC_OK;
}

void ltx_unpacker_free(struct ltx_unpacker *u)
{
    mem_free(u);
}

enum rc ltx_unpack(struct ltx_unpacker *u, const uint8_t *in, size_t size, uint32_t *ret_pgno,
                   uint8_t *page, uint64_t *crc, struct err *err)
{
    struct ltx__scan scan = {0};
    size_t want = LTX__PAGE_HEADER_SIZE;
    const char *bad = size < want ? "is cut short" : NULL;
    while (bad == NULL && !scan.done) {
        bad = ltx__scan_step(&scan, u->page_size, in, size, &want);
        if (bad == NULL && !scan.done && want > size) bad = "is cut short";
    }
    if (bad == NULL && scan.at != size)
        bad = scan.at > size ? "is cut short" : "has bytes after its end";
    if (bad == NULL) bad = ltx__unpack(u->page_size, in, size, page);
    if (bad != NULL)
        return err_set(err, RC_CORRUPT, "LTX frame of page %u: the frame %s",
                       size < 4 ? 0 : get_be32(in), bad);
    if (crc != NULL) {
        size_t head = LTX__PAGE_HEADER_SIZE;
        if (get_be16(in + 4) == LTX_ENC_BLOCK) head += LTX__BLOCK_SIZE_SIZE;
        *crc = crc64(crc64(*crc, in, head), page, u->page_size);
    }
    *ret_pgno = get_be32(in);
    return RC_OK;
}

const char *ltx__scan_step(struct ltx__scan *s, uint32_t page_size, const uint8_t *frame,
                           size_t size, size_t *ret_want)
{
    if (s->at == 0) {
        ASSERT(size >= LTX__PAGE_HEADER_SIZE);
        uint32_t pgno = get_be32(frame);
        if (pgno == 0 || pgno == ltx_lock_page(page_size)) return "names a page that no file has";
        if (get_be16(frame + 4) > LTX_ENC_BLOCK) return "has unknown flags";
        s->at = LTX__PAGE_HEADER_SIZE;
    }
    if (get_be16(frame + 4) == LTX_ENC_BLOCK) {
        *ret_want = s->at + LTX__BLOCK_SIZE_SIZE;
        if (size < *ret_want) return NULL;
        uint32_t block = get_be32(frame + s->at);
        if (block == 0 || block > LZ4_COMPRESSBOUND(page_size)) return "has an impossible size";
        s->at += LTX__BLOCK_SIZE_SIZE + block;
        s->done = true;
        return NULL;
    }
    if (!s->in_lz4) {
        const char *bad = scan_lz4_head(s, page_size, frame, size, ret_want);
        if (bad != NULL || !s->in_lz4) return bad;
    }
    return scan_lz4_block(s, ltx_frame_size_max(page_size), frame, size, ret_want);
}

const char *ltx__unpack(uint32_t page_size, const uint8_t *frame, size_t size, uint8_t *page)
{
    const uint8_t *data = frame + LTX__PAGE_HEADER_SIZE;
    size -= LTX__PAGE_HEADER_SIZE;
    if (get_be16(frame + 4) == LTX_ENC_FRAME) return unpack_lz4(page_size, data, size, page);
    struct block b = {.data = data + LTX__BLOCK_SIZE_SIZE,
                      .size = (uint32_t)(size - LTX__BLOCK_SIZE_SIZE)};
    if (unpack_block(&b, true, page, 0, page_size) != (int)page_size)
        return "does not inflate to one page";
    return NULL;
}

static const char *scan_lz4_head(struct ltx__scan *s, uint32_t page_size, const uint8_t *frame,
                                 size_t size, size_t *ret_want)
{
    const uint8_t *p = frame + s->at;
    *ret_want = s->at + 7;
    if (size < *ret_want) return NULL;
    uint8_t flg = p[4], bd = p[5];
    if (get_le32(p) != LTX__LZ4_MAGIC) return "holds no LZ4 frame";
    if (flg >> 6 != 1 || (flg & (FLG_DICT | FLG_RESERVED)) != 0 || (bd & 0x8F) != 0 || bd < 0x40)
        return "has an LZ4 frame header of an unknown kind";
    size_t fields = 2u + ((flg & FLG_CONTENT_SIZE) != 0 ? 8 : 0);
    *ret_want = s->at + 4 + fields + 1;
    if (size < *ret_want) return NULL;
    if (p[4 + fields] != (uint8_t)(XXH32(p + 4, fields, 0) >> 8))
        return "has an LZ4 frame header that fails its checksum";
    if ((flg & FLG_CONTENT_SIZE) != 0 && get_le64(p + 6) != page_size)
        return "does not inflate to one page";
    s->block_sums = (flg & FLG_BLOCK_SUM) != 0;
    s->content_sum = (flg & FLG_CONTENT_SUM) != 0;
    s->block_max = 256u << (2 * (bd >> 4)); /* 4: 64 KiB ... 7: 4 MiB */
    s->at = *ret_want;
    s->in_lz4 = true;
    return NULL;
}

/* Step over one block, or over the end mark. */
static const char *scan_lz4_block(struct ltx__scan *s, uint64_t max, const uint8_t *frame,
                                  size_t size, size_t *ret_want)
{
    *ret_want = s->at + 4;
    if (size < *ret_want) return NULL;
    uint32_t word = get_le32(frame + s->at), block = word & ~LTX__LZ4_RAW;
    if (word == 0) {
        s->at += 4 + (s->content_sum ? 4u : 0u);
        s->done = true;
        return NULL;
    }
    if (block == 0 || block > s->block_max) return "has an LZ4 block of an impossible size";
    s->at += 4 + (size_t)block + (s->block_sums ? 4u : 0u);
    if (s->at > max) return "is longer than any page needs";
    *ret_want = s->at + 4;
    return NULL;
}

/* in[0..size) is an LZ4 frame that the scan has found to be well formed. */
static const char *unpack_lz4(uint32_t page_size, const uint8_t *in, size_t size, uint8_t *page)
{
    const uint8_t flg = in[4];
    const uint8_t *p = in + 7 + ((flg & FLG_CONTENT_SIZE) != 0 ? 8 : 0), *end = in + size;
    uint32_t used = 0;
    for (uint32_t word; (word = get_le32(p)) != 0;) {
        struct block b = {
            .data = p + 4, .size = word & ~LTX__LZ4_RAW, .raw = word != (word & ~LTX__LZ4_RAW)};
        p = b.data + b.size;
        if ((flg & FLG_BLOCK_SUM) != 0) {
            if (XXH32(b.data, b.size, 0) != get_le32(p))
                return "has a block that fails its checksum";
            p += 4;
        }
        ASSERT(p + 4 <= end);
        int n = unpack_block(&b, (flg & FLG_INDEPENDENT) != 0, page, used, page_size);
        if (n < 0) return "does not inflate to one page";
        used += (uint32_t)n;
    }
    if (used != page_size) return "does not inflate to one page";
    if ((flg & FLG_CONTENT_SUM) != 0 && XXH32(page, page_size, 0) != get_le32(p + 4))
        return "fails its content checksum";
    return NULL;
}

/* Inflate a block to page + used. Returns the bytes written; negative when it does not work. */
static int unpack_block(const struct block *b, bool independent, uint8_t *page, uint32_t used,
                        uint32_t page_size)
{
    const uint32_t room = page_size - used;
    if (b->raw) {
        if (b->size > room) return -1;
        memcpy(page + used, b->data, b->size);
        return (int)b->size;
    }
    const char *src = (const char *)b->data;
    char *dst = (char *)page + used;
    if (independent || used == 0) return LZ4_decompress_safe(src, dst, (int)b->size, (int)room);
    return LZ4_decompress_safe_usingDict(src, dst, (int)b->size, (int)room, (const char *)page,
                                         (int)used);
}
