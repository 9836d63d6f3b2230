/*
 * ltx_encode.c -- the LTX encoder; see ltx.h.
 *
 * The file checksum covers header, pages and index in this order, but the header is known last and
 * the index grows next to the frames. So three checksums run side by side and are combined at the
 * end.
 */
#include "fmt/ltx.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "fmt/crc64.h"
#include "fmt/ltx_private.h"
#include <lz4.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define LZ4_HEAD_SIZE 7
#define LZ4_TAIL_SIZE 8 /* end mark, content checksum */

struct ltx_encoder {
    uint32_t page_size;
    enum ltx_encoding encoding;
    void *lz4;
    uint32_t last_pgno;
    bool dense; /* no page but the lock page is missing up to last_pgno */
    bool finished;
    uint64_t off; /* in the file, of the next frame */
    uint64_t index_size;
    uint64_t frames_crc, frames_hashed; /* checksum of page headers and pages, and of how much */
    uint64_t index_crc;
};

static size_t pack_block(struct ltx_encoder *enc, const void *page, uint8_t *out);
static size_t pack_frame(struct ltx_encoder *enc, const void *page, uint8_t *out);
static size_t compress(struct ltx_encoder *enc, const void *page, uint8_t *out);
static enum rc page_check(const struct ltx_encoder *enc, uint32_t pgno, struct err *err);
static void page_done(struct ltx_encoder *enc, uint32_t pgno, size_t size, struct buf *index);
static void index_add(struct ltx_encoder *enc, uint32_t pgno, size_t size, struct buf *index);
static void index_put(struct ltx_encoder *enc, const void *data, size_t size, struct buf *index);
static enum rc finish_check(const struct ltx_encoder *enc, const struct ltx_header *h,
                            struct err *err);

enum rc ltx_encoder_new(uint32_t page_size, enum ltx_encoding encoding,
                        struct ltx_encoder **ret_enc, struct err *err)
{
    if (!ltx_page_size_ok(page_size))
        return err_set(err, RC_INVALID, "LTX encoder: page size %u is not legal", page_size);
    struct ltx_encoder *enc = mem_calloc(1, sizeof *enc);
    if (enc == NULL) return err_mem(err, "an LTX encoder");
    enc->page_size = page_size;
    enc->encoding = encoding;
    enc->lz4 = mem_alloc((size_t)LZ4_sizeofState());
    if (enc->lz4 == NULL) {
        ltx_encoder_free(enc);
        return err_mem(err, "an LTX encoder");
    }
    ltx_encoder_reset(enc);
    *ret_enc = enc;
    return RC_OK;
}

void ltx_encoder_reset(struct ltx_encoder *enc)
{
    *enc = (struct ltx_encoder){.page_size = enc->page_size,
                                .encoding = enc->encoding,
                                .lz4 = enc->lz4,
                                .dense = true,
                                .off = LTX_HEADER_SIZE};
}

void ltx_encoder_free(struct ltx_encoder *enc)
{
    if (enc == NULL) return;
    mem_free(enc->lz4);
    mem_free(enc);
}

enum rc ltx_encoder_page(struct ltx_encoder *enc, uint32_t pgno, const void *page,
                         struct buf *frames, struct buf *index, struct err *err)
{
    TRY(page_check(enc, pgno, err));
    TRY(buf_reserve(frames, ltx_frame_size_max(enc->page_size), err));
    TRY(buf_reserve(index, 3 * LTX__VARINT_MAX, err));

    uint8_t *out = frames->data + frames->size;
    size_t size = LTX__PAGE_HEADER_SIZE, hashed = LTX__PAGE_HEADER_SIZE;
    put_be32(out, pgno);
    put_be16(out + 4, (uint16_t)enc->encoding);
    if (enc->encoding == LTX_ENC_BLOCK) {
        size += pack_block(enc, page, out + size);
        hashed += LTX__BLOCK_SIZE_SIZE;
    } else {
        size += pack_frame(enc, page, out + size);
    }
    enc->frames_crc = crc64(crc64(enc->frames_crc, out, hashed), page, enc->page_size);
    enc->frames_hashed += hashed + enc->page_size;
    frames->size += size;
    page_done(enc, pgno, size, index);
    return RC_OK;
}

enum rc ltx_encoder_frame(struct ltx_encoder *enc, const uint8_t *frame, size_t size, uint64_t sum,
                          struct buf *index, struct err *err)
{
    const uint32_t pgno = get_be32(frame);
    uint64_t hashed = LTX__PAGE_HEADER_SIZE + enc->page_size;
    if (get_be16(frame + 4) == LTX_ENC_BLOCK) hashed += LTX__BLOCK_SIZE_SIZE;
    TRY(page_check(enc, pgno, err));
    TRY(buf_reserve(index, 3 * LTX__VARINT_MAX, err));
    enc->frames_crc = crc64_combine(enc->frames_crc, sum, hashed);
    enc->frames_hashed += hashed;
    page_done(enc, pgno, size, index);
    return RC_OK;
}

enum rc ltx_encoder_finish(struct ltx_encoder *enc, const struct ltx_header *h, struct buf *frames,
                           struct buf *index, uint8_t ret_header[LTX_HEADER_SIZE],
                           uint8_t ret_trailer[LTX_TRAILER_SIZE], struct err *err)
{
    static const uint8_t zeros[8];
    ASSERT(!enc->finished);
    TRY(finish_check(enc, h, err));
    TRY(buf_reserve(frames, LTX__PAGE_HEADER_SIZE, err));
    TRY(buf_reserve(index, 1 + 8, err));

    TRY(buf_append(frames, zeros, LTX__PAGE_HEADER_SIZE, err));
    enc->frames_crc = crc64(enc->frames_crc, zeros, LTX__PAGE_HEADER_SIZE);
    enc->frames_hashed += LTX__PAGE_HEADER_SIZE;
    index_put(enc, zeros, 1, index);
    uint8_t size[8];
    put_be64(size, enc->index_size);
    index_put(enc, size, sizeof size, index);
    enc->finished = true;

    ltx_header_put(h, ret_header);
    uint64_t crc = crc64(0, ret_header, LTX_HEADER_SIZE);
    crc = crc64_combine(crc, enc->frames_crc, enc->frames_hashed);
    crc = crc64_combine(crc, enc->index_crc, enc->index_size);
    crc = crc64(crc, zeros, 8); /* the post-apply checksum */
    put_be64(ret_trailer, 0);
    put_be64(ret_trailer + 8, LTX_SUM_FLAG | crc);
    return RC_OK;
}

/* Big-endian size and an LZ4 block; an incompressible page becomes a block of literals. */
static size_t pack_block(struct ltx_encoder *enc, const void *page, uint8_t *out)
{
    size_t size = compress(enc, page, out + LTX__BLOCK_SIZE_SIZE);
    put_be32(out, (uint32_t)size);
    return LTX__BLOCK_SIZE_SIZE + size;
}

/* Litestream up to 0.5.15 reads a page and then exactly 8 bytes: there must be one block, and the
 * content checksum. */
static size_t pack_frame(struct ltx_encoder *enc, const void *page, uint8_t *out)
{
    uint8_t *p = out + LZ4_HEAD_SIZE + 4;
    size_t size = compress(enc, page, p);
    uint32_t word = (uint32_t)size;
    if (size >= enc->page_size) {
        size = enc->page_size;
        word = LTX__LZ4_RAW | enc->page_size;
        memcpy(p, page, size);
    }
    put_le32(out, LTX__LZ4_MAGIC);
    out[4] = LTX__LZ4_FLG;
    out[5] = LTX__LZ4_BD;
    out[6] = LTX__LZ4_HC;
    put_le32(out + LZ4_HEAD_SIZE, word);
    put_le32(p + size, 0);
    put_le32(p + size + 4, XXH32(page, enc->page_size, 0));
    return LZ4_HEAD_SIZE + 4 + size + LZ4_TAIL_SIZE;
}

static size_t compress(struct ltx_encoder *enc, const void *page, uint8_t *out)
{
    const int page_size = (int)enc->page_size;
    int size = LZ4_compress_fast_extState(enc->lz4, page, (char *)out, page_size,
                                          LZ4_compressBound(page_size), 1);
    ASSERT(size > 0); /* the bound is enough for anything */
    return (size_t)size;
}

static enum rc page_check(const struct ltx_encoder *enc, uint32_t pgno, struct err *err)
{
    const bool lock = pgno == ltx_lock_page(enc->page_size);
    ASSERT(!enc->finished);
    if (pgno > enc->last_pgno && !lock) return RC_OK;
    return err_set(err, RC_INVALID, "LTX encoder: page %u after page %u%s", pgno, enc->last_pgno,
                   lock ? " is the lock page" : "");
}

/* A frame of that size stands at the end of the frames now. Room in the index is reserved. */
static void page_done(struct ltx_encoder *enc, uint32_t pgno, size_t size, struct buf *index)
{
    const uint32_t lock = ltx_lock_page(enc->page_size);
    index_add(enc, pgno, size, index);
    enc->dense = enc->dense && pgno == enc->last_pgno + 1 + (enc->last_pgno + 1 == lock);
    enc->last_pgno = pgno;
    enc->off += size;
}

static void index_add(struct ltx_encoder *enc, uint32_t pgno, size_t size, struct buf *index)
{
    uint8_t entry[3 * LTX__VARINT_MAX];
    size_t n = ltx__varint_put(pgno, entry);
    n += ltx__varint_put(enc->off, entry + n);
    n += ltx__varint_put(size, entry + n);
    index_put(enc, entry, n, index);
}

static void index_put(struct ltx_encoder *enc, const void *data, size_t size, struct buf *index)
{
    ASSERT(index->cap - index->size >= size);
    memcpy(index->data + index->size, data, size);
    index->size += size;
    enc->index_crc = crc64(enc->index_crc, data, size);
    enc->index_size += size;
}

static enum rc finish_check(const struct ltx_encoder *enc, const struct ltx_header *h,
                            struct err *err)
{
    TRY(ltx_header_check(h, err));
    if ((h->flags & LTX_FLAG_NO_CHECKSUM) == 0)
        return err_set(err, RC_INVALID, "LTX encoder: tracked checksums cannot be written");
    if (h->page_size != enc->page_size)
        return err_set(err, RC_INVALID, "LTX encoder: page size %u in the header, %u in the file",
                       h->page_size, enc->page_size);
    if (enc->last_pgno > h->page_count)
        return err_set(err, RC_INVALID, "LTX encoder: page %u in a database of %u pages",
                       enc->last_pgno, h->page_count);
    bool to_end =
        enc->last_pgno == h->page_count ||
        (enc->last_pgno + 1 == h->page_count && h->page_count == ltx_lock_page(enc->page_size));
    if (h->txid_min == 1 && !(enc->dense && to_end))
        return err_set(err, RC_INVALID, "LTX encoder: the snapshot misses pages (%u of %u seen)",
                       enc->last_pgno, h->page_count);
    return RC_OK;
}
