/* ltx_test.c -- LTX headers, encoder, index, page frames and the streaming decoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lz4hc.h>
#include "base/mem.h"
#include "fmt/ltx_util.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- Checksums ---- */

static uint64_t rolling(uint32_t page_size, const uint8_t *pages, uint32_t count)
{
    uint64_t sum = LTX_SUM_FLAG;
    for (uint32_t i = 0; i < count; i++)
        sum ^= ltx_page_sum(i + 1, pages + (size_t)i * page_size, page_size);
    return sum | LTX_SUM_FLAG;
}

static void test_page_sums(void **state)
{
    (void)state;
    static uint8_t pages[3 * 1024];
    memset(pages, '1', 512);
    assert_int_equal(rolling(512, pages, 1), 0xeb1a999231044ddd);
    memset(pages, 0x91, 1024);
    memset(pages + 1024, 0x82, 1024);
    memset(pages + 2048, 0x93, 1024);
    assert_int_equal(rolling(1024, pages, 3), 0x8a249272ad9f7dea);

    uint8_t page[4096];
    uint32_t lock = ltx_lock_page(4096);
    uint64_t sum = LTX_SUM_FLAG;
    memset(page, 'x', sizeof page);
    for (uint32_t pgno = 1; pgno <= lock + 10; pgno++)
        if (pgno != lock) sum ^= ltx_page_sum(pgno, page, 4096);
    assert_int_equal(sum | LTX_SUM_FLAG, 0xc19b668c376662c7);
}

static void test_lock_page_and_sizes(void **state)
{
    (void)state;
    assert_int_equal(ltx_lock_page(512), 2097153);
    assert_int_equal(ltx_lock_page(4096), 262145);
    assert_int_equal(ltx_lock_page(65536), 16385);
    uint32_t legal = 0;
    for (uint32_t size = 0; size <= 200000; size++)
        legal += ltx_page_size_ok(size);
    assert_int_equal(legal, 8);
    assert_true(ltx_page_size_ok(512) && ltx_page_size_ok(65536));
}

/* ---- Header ---- */

static void test_header_bytes(void **state)
{
    (void)state;
    struct ltx_header h = snapshot_header(4096, 0x01020304), back;
    struct err err;
    uint8_t bytes[LTX_HEADER_SIZE];
    h.txid_min = 0x1112131415161718, h.txid_max = 0x2122232425262728;
    h.timestamp_ms = 0x3132333435363738;
    h.wal_off = 0x4142434445464748, h.wal_size = 0x5152535455565758;
    h.node_id = 0x6162636465666768;
    h.has_digest = true;
    h.digest = (struct digest){.lo = 0x7172737475767778, .hi = 0x8182838485868788};
    ltx_header_put(&h, bytes);
    static const uint8_t want[LTX_HEADER_SIZE] =
        "LTX1\0\0\0\2\0\0\x10\0\1\2\3\4"
        "\x11\x12\x13\x14\x15\x16\x17\x18\x21\x22\x23\x24\x25\x26\x27\x28"
        "\x31\x32\x33\x34\x35\x36\x37\x38\0\0\0\0\0\0\0\0"
        "\x41\x42\x43\x44\x45\x46\x47\x48\x51\x52\x53\x54\x55\x56\x57\x58"
        "\1\2\3\4\5\6\7\x08\x61\x62\x63\x64\x65\x66\x67\x68"
        "SLD1\x78\x77\x76\x75\x74\x73\x72\x71\x88\x87\x86\x85\x84\x83\x82\x81";
    assert_memory_equal(bytes, want, sizeof want);
    assert_int_equal(ltx_header_get(bytes, &back, &err), RC_OK);
    assert_true(back.has_digest && digest_equal(back.digest, h.digest));
    assert_int_equal(back.txid_max, h.txid_max);
    assert_int_equal(back.wal_off, h.wal_off);

    /* What others keep in the reserved bytes is theirs. */
    bytes[83] = '2';
    assert_int_equal(ltx_header_get(bytes, &back, &err), RC_OK);
    assert_false(back.has_digest);
    bytes[0] = 'l';
    assert_int_equal(ltx_header_get(bytes, &back, &err), RC_CORRUPT);
    assert_non_null(strstr(err.text, "magic"));
}

static void refuse_header(const struct ltx_header *h, const char *word)
{
    struct err err;
    struct ltx_header back = {.node_id = 99};
    uint8_t bytes[LTX_HEADER_SIZE];
    assert_int_equal(ltx_header_check(h, &err), RC_INVALID);
    assert_non_null(strstr(err.text, word));
    ltx_header_put(h, bytes);
    assert_int_equal(ltx_header_get(bytes, &back, &err), RC_CORRUPT);
    assert_int_equal(err.rc, RC_CORRUPT);
    assert_int_equal(back.node_id, 99);
}

static void test_header_refusals(void **state)
{
    (void)state;
    const struct ltx_header good = snapshot_header(4096, 1);
    struct ltx_header h;
    struct err err;
    assert_int_equal(ltx_header_check(&good, &err), RC_OK);
    h = good, h.flags = 1, refuse_header(&h, "flags");
    h = good, h.flags = 6, refuse_header(&h, "flags");
    h = good, h.page_size = 1000, refuse_header(&h, "page size");
    h = good, h.page_size = 131072, refuse_header(&h, "page size");
    h = good, h.page_size = 0, refuse_header(&h, "page size");
    h = good, h.txid_min = 0, refuse_header(&h, "transaction");
    h = good, h.txid_min = 2, refuse_header(&h, "transaction");
    h = good, h.txid_max = 0, refuse_header(&h, "transaction");
    h = good, h.wal_off = -1, refuse_header(&h, "WAL");
    h = good, h.wal_size = -1, refuse_header(&h, "WAL");
    h = good, h.wal_off = 0, refuse_header(&h, "salts");
    h = good, h.wal_off = 0, h.wal_salt1 = 0, refuse_header(&h, "salts");
    h = good, h.wal_off = 0, h.wal_salt1 = h.wal_salt2 = 0, h.wal_size = 1;
    refuse_header(&h, "WAL");
    h.wal_size = 0; /* merged files have no WAL position at all */
    assert_int_equal(ltx_header_check(&h, &err), RC_OK);
    h = good, h.pre_sum = LTX_SUM_FLAG | 1, refuse_header(&h, "pre-apply");
    h.txid_min = h.txid_max = 2, refuse_header(&h, "pre-apply");
    h.flags = 0;
    assert_int_equal(ltx_header_check(&h, &err), RC_OK);
    h.txid_min = 1, refuse_header(&h, "pre-apply");
    h.txid_min = 2, h.pre_sum = 1, refuse_header(&h, "pre-apply");
    h.pre_sum = 0, refuse_header(&h, "pre-apply");
}

/* ---- Encoder ---- */

static void test_frame_bytes(void **state)
{
    (void)state;
    struct ltx_header h = snapshot_header(512, 2);
    struct buf file = BUF_INIT;
    uint8_t pages[2 * 512], back[512];
    fill_page(pages, 512, FILL_TEXT);
    fill_page(pages + 512, 512, FILL_NOISE);
    encode(&h, LTX_ENC_FRAME, NULL, 2, pages, &file);
    const uint8_t *f = file.data + LTX_HEADER_SIZE;
    assert_memory_equal(f, "\0\0\0\1\0\0\x04\x22\x4D\x18\x64\x40\xA7", 13);
    uint32_t size = get_le32(f + 13);
    assert_true(size < 512);
    assert_int_equal(LZ4_decompress_safe((const char *)f + 17, (char *)back, (int)size, 512), 512);
    assert_memory_equal(back, pages, 512);
    assert_int_equal(get_le32(f + 17 + size), 0);
    f += 17 + size + 8;
    /* Noise is stored as it is. */
    assert_memory_equal(f, "\0\0\0\2\0\0\x04\x22\x4D\x18\x64\x40\xA7\0\2\0\x80", 17);
    assert_memory_equal(f + 17, pages + 512, 512);
    assert_memory_equal(f + 17 + 512, "\0\0\0\0", 4);
    /* liblz4 agrees with both, checksums included. */
    LZ4F_dctx *dctx;
    size_t in = 17 + 512 + 8 - 6, out = sizeof back;
    assert_int_equal(LZ4F_createDecompressionContext(&dctx, LZ4F_VERSION), 0);
    assert_int_equal(LZ4F_decompress(dctx, back, &out, f + 6, &in, NULL), 0);
    assert_memory_equal(back, pages + 512, 512);
    LZ4F_freeDecompressionContext(dctx);

    encode(&h, LTX_ENC_BLOCK, NULL, 2, pages, &file);
    f = file.data + LTX_HEADER_SIZE;
    assert_memory_equal(f, "\0\0\0\1\0\1\0\0", 8);
    f += 10 + get_be32(f + 6);
    assert_memory_equal(f, "\0\0\0\2\0\1\0\0\2", 9);
    assert_true(get_be32(f + 6) > 512);
    buf_fini(&file);
}

/* Snapshots and increments of all page sizes, kinds of content and encodings. */
static void round_trip(uint32_t page_size, enum ltx_encoding encoding, bool snapshot)
{
    const uint32_t count = 7;
    uint32_t pgnos[7];
    struct events a = {0}, b = {0};
    struct buf file = BUF_INIT;
    struct ltx_header h = snapshot_header(page_size, snapshot ? count : 1000000000);
    uint8_t *pages = mem_alloc((size_t)count * page_size), bytes[LTX_HEADER_SIZE];
    uint64_t post = 0;
    assert_non_null(pages);
    if (!snapshot) h.txid_min = 2, h.txid_max = 9, h.has_digest = true, h.digest.lo = noise();
    for (uint32_t i = 0; i < count; i++) {
        pgnos[i] = snapshot ? i + 1 : 1 + i * i * 19999999;
        fill_page(pages + (size_t)i * page_size, page_size, i % FILL_COUNT);
    }
    encode(&h, encoding, pgnos, count, pages, &file);
    if (decode(&file, &a) != RC_OK) fail_msg("%s", a.err.text);
    if (decode_by_index(file.data, file.size, &b) != RC_OK) fail_msg("%s", b.err.text);
    assert_int_equal(a.log.size, b.log.size);
    assert_memory_equal(a.log.data, b.log.data, a.log.size);
    ltx_header_put(&h, bytes);
    assert_memory_equal(a.log.data, bytes, sizeof bytes);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *at = a.log.data + LTX_HEADER_SIZE + i * ((size_t)page_size + 4);
        assert_memory_equal(at, &pgnos[i], 4);
        assert_memory_equal(at + 4, pages + (size_t)i * page_size, page_size);
    }
    assert_memory_equal(a.log.data + a.log.size - 8, &post, 8);
    buf_fini(&file);
    events_fini(&a);
    events_fini(&b);
    mem_free(pages);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (uint32_t size = LTX_PAGE_SIZE_MIN; size <= LTX_PAGE_SIZE_MAX; size *= 2) {
        for (int i = 0; i < 4; i++)
            round_trip(size, i & 1 ? LTX_ENC_BLOCK : LTX_ENC_FRAME, i & 2);
    }
}

/* The encoder and the simple writer agree on everything but the LZ4 payload, so with a payload that
 * has one form (stored) on every byte. */
static void test_against_simple_writer(void **state)
{
    (void)state;
    struct ltx_header h = snapshot_header(1024, 3);
    struct buf file = BUF_INIT;
    struct writer w = {0};
    uint8_t pages[3 * 1024];
    fill_noise(pages, sizeof pages);
    encode(&h, LTX_ENC_BLOCK, NULL, 3, pages, &file);
    writer_begin(&w, &h);
    for (uint32_t i = 0; i < 3; i++)
        writer_page(&w, i + 1, pages + i * 1024, 1024);
    writer_end(&w, 0);
    assert_int_equal(file.size, w.file.size);
    assert_memory_equal(file.data, w.file.data, file.size);
    writer_fini(&w);
    buf_fini(&file);
}

/* Buffers that are drained after every page, and an encoder used twice, make the same file. */
static void test_drain_and_reset(void **state)
{
    (void)state;
    struct ltx_header h = snapshot_header(512, 9);
    struct buf want = BUF_INIT, frames = BUF_INIT, index = BUF_INIT, body = BUF_INIT,
               tail = BUF_INIT;
    struct ltx_encoder *enc = NULL;
    struct err err;
    uint8_t pages[9 * 512], header[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    fill_noise(pages, sizeof pages);
    encode(&h, LTX_ENC_FRAME, NULL, 9, pages, &want);
    assert_int_equal(ltx_encoder_new(512, LTX_ENC_FRAME, &enc, &err), RC_OK);
    for (int round = 0; round < 2; round++) {
        buf_reset(&body);
        buf_reset(&tail);
        for (uint32_t i = 0; i < 9; i++) {
            must(ltx_encoder_page(enc, i + 1, pages + i * 512, &frames, &index, &err));
            if (round == 0 || i % 3 == 2) {
                put(&body, frames.data, frames.size);
                put(&tail, index.data, index.size);
                buf_reset(&frames);
                buf_reset(&index);
            }
        }
        must(ltx_encoder_finish(enc, &h, &frames, &index, header, trailer, &err));
        put(&body, frames.data, frames.size);
        put(&tail, index.data, index.size);
        buf_reset(&frames);
        buf_reset(&index);
        assert_memory_equal(want.data, header, sizeof header);
        assert_memory_equal(want.data + 100, body.data, body.size);
        assert_memory_equal(want.data + 100 + body.size, tail.data, tail.size);
        assert_memory_equal(want.data + want.size - 16, trailer, sizeof trailer);
        assert_int_equal(want.size, 116 + body.size + tail.size);
        ltx_encoder_reset(enc);
    }
    /* Once the buffers are large enough, a page allocates nothing. */
    uint64_t allocs = mem_alloc_count();
    for (uint32_t i = 0; i < 9; i++) {
        must(ltx_encoder_page(enc, i + 1, pages + i * 512, &frames, &index, &err));
        buf_reset(&frames);
        buf_reset(&index);
    }
    assert_int_equal(mem_alloc_count(), allocs);
    ltx_encoder_free(enc);
    ltx_encoder_free(NULL);
    buf_fini(&want);
    buf_fini(&frames);
    buf_fini(&index);
    buf_fini(&body);
    buf_fini(&tail);
}

static struct ltx_encoder *encoder_at(uint32_t page_size, uint32_t from, uint32_t to,
                                      struct buf *frames, struct buf *index)
{
    static uint8_t page[LTX_PAGE_SIZE_MAX];
    struct ltx_encoder *enc = NULL;
    struct err err;
    must(ltx_encoder_new(page_size, LTX_ENC_BLOCK, &enc, &err));
    for (uint32_t pgno = from; pgno <= to; pgno++)
        must(ltx_encoder_page(enc, pgno, page, frames, index, &err));
    return enc;
}

static void refuse_finish(uint32_t from, uint32_t to, const struct ltx_header *h, enum rc want)
{
    struct buf frames = BUF_INIT, index = BUF_INIT;
    struct err err;
    uint8_t header[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    struct ltx_encoder *enc = encoder_at(4096, from, to, &frames, &index);
    assert_int_equal(ltx_encoder_finish(enc, h, &frames, &index, header, trailer, &err), want);
    ltx_encoder_free(enc);
    buf_fini(&frames);
    buf_fini(&index);
}

static void test_encoder_refusals(void **state)
{
    (void)state;
    struct ltx_encoder *enc = NULL;
    struct buf frames = BUF_INIT, index = BUF_INIT;
    struct err err;
    uint8_t page[4096] = {0};
    assert_int_equal(ltx_encoder_new(1000, LTX_ENC_BLOCK, &enc, &err), RC_INVALID);
    enc = encoder_at(4096, 5, 5, &frames, &index);
    const uint32_t bad[] = {0, 1, 5, ltx_lock_page(4096)};
    for (size_t i = 0; i < COUNT(bad); i++) {
        size_t before = frames.size;
        assert_int_equal(ltx_encoder_page(enc, bad[i], page, &frames, &index, &err), RC_INVALID);
        assert_int_equal(frames.size, before);
    }
    ltx_encoder_free(enc);
    buf_fini(&frames);
    buf_fini(&index);

    struct ltx_header h = snapshot_header(4096, 5);
    refuse_finish(1, 5, &h, RC_OK);
    refuse_finish(1, 4, &h, RC_INVALID);
    refuse_finish(2, 5, &h, RC_INVALID);
    refuse_finish(1, 6, &h, RC_INVALID);
    h.page_count = 0;
    refuse_finish(1, 0, &h, RC_OK);
    h.txid_min = h.txid_max = 2, h.page_count = 5;
    refuse_finish(2, 4, &h, RC_OK);
    refuse_finish(1, 0, &h, RC_OK);
    refuse_finish(5, 6, &h, RC_INVALID);
    h.page_size = 512;
    refuse_finish(5, 5, &h, RC_INVALID);
    h.page_size = 4096, h.flags = 0, h.pre_sum = LTX_SUM_FLAG;
    refuse_finish(5, 5, &h, RC_INVALID);
    h.flags = 4;
    refuse_finish(5, 5, &h, RC_INVALID);
}

/* ---- Page index ---- */

static void test_index_locate(void **state)
{
    (void)state;
    uint8_t tail[24] = {0};
    struct err err;
    uint64_t off = 0, size = 0;
    put_be64(tail, 1);
    assert_int_equal(ltx_index_locate(tail, 131, &off, &size, &err), RC_OK);
    assert_int_equal(off, 106);
    assert_int_equal(size, 1);
    assert_int_equal(ltx_index_locate(tail, 130, &off, &size, &err), RC_CORRUPT);
    assert_int_equal(ltx_index_locate(tail, 0, &off, &size, &err), RC_CORRUPT);
    put_be64(tail, 2);
    assert_int_equal(ltx_index_locate(tail, 131, &off, &size, &err), RC_CORRUPT);
    put_be64(tail, 0);
    assert_int_equal(ltx_index_locate(tail, 1000, &off, &size, &err), RC_CORRUPT);
    put_be64(tail, UINT64_MAX);
    assert_int_equal(ltx_index_locate(tail, 1000, &off, &size, &err), RC_CORRUPT);
}

static enum rc index_one(struct ltx_index_reader r, const void *in, size_t size)
{
    struct ltx_index_entry e;
    struct err err;
    bool more = true;
    size_t took = size;
    enum rc rc = ltx_index_next(&r, in, &took, &e, &more, &err);
    if (rc == RC_OK && took > 0 && more) assert_int_equal(took, size);
    return rc;
}

static void test_index_refusals(void **state)
{
    (void)state;
    const struct ltx_index_reader none = {0}, some = {.frames_end = 300, .page_count = 5},
                                  on = {.last_pgno = 3, .last_end = 200};
    assert_int_equal(index_one(none, "\x01\x64\x07", 3), RC_OK);
    assert_int_equal(index_one(none, "\x01\x63\x07", 3), RC_CORRUPT); /* inside the header */
    assert_int_equal(index_one(none, "\x01\x64\x06", 3), RC_CORRUPT); /* nothing but a header */
    assert_int_equal(index_one(some, "\x05\x64\xC8\x01", 4), RC_OK);
    assert_int_equal(index_one(some, "\x05\x64\xC9\x01", 4), RC_CORRUPT); /* past the frames */
    assert_int_equal(index_one(some, "\x06\x64\x07", 3), RC_CORRUPT);     /* past the database */
    assert_int_equal(index_one(on, "\x04\xC8\x01\x07", 4), RC_OK);
    assert_int_equal(index_one(on, "\x03\xC8\x01\x07", 4), RC_CORRUPT); /* same page again */
    assert_int_equal(index_one(on, "\x04\xC7\x01\x07", 4), RC_CORRUPT); /* overlap */
    assert_int_equal(index_one(none, "\xFF\xFF\xFF\xFF\x0F\x64\x07", 7), RC_OK);
    assert_int_equal(index_one(none, "\x80\x80\x80\x80\x10\x64\x07", 7), RC_CORRUPT);
    /* off + size beyond 64 bits */
    assert_int_equal(index_one(none, "\x01\x64\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 12),
                     RC_CORRUPT);
    /* Go reads these as 1 and as an overflow. */
    assert_int_equal(index_one(none, "\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00\x64\x07", 12),
                     RC_OK);
    assert_int_equal(index_one(none, "\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02", 10), RC_CORRUPT);
    assert_int_equal(index_one(none, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 10), RC_CORRUPT);
}

/* Fed in two pieces, whatever the cut, the reader takes whole entries and finds the same. */
static void test_index_in_pieces(void **state)
{
    (void)state;
    struct writer w = {0};
    struct err err;
    uint64_t off = 100;
    for (uint32_t i = 1; i <= 40; i++) {
        uint64_t size = 7 + noise() % 70000;
        writer_varint(&w, i * 999);
        writer_varint(&w, off);
        writer_varint(&w, size);
        off += size + noise() % 2 * (noise() >> 40);
    }
    put(&w.index, "\0", 1);
    for (size_t cut = 0; cut <= w.index.size; cut++) {
        struct ltx_index_reader r = {0};
        size_t at = 0, limit = cut;
        uint32_t count = 0;
        while (!r.done) {
            struct ltx_index_entry e;
            size_t took = limit - at;
            bool more;
            must(ltx_index_next(&r, w.index.data + at, &took, &e, &more, &err));
            at += took;
            if (more)
                assert_int_equal(e.pgno, ++count * 999);
            else if (!r.done) {
                assert_int_equal(took, 0);
                assert_int_equal(limit, cut);
                limit = w.index.size;
            }
        }
        assert_int_equal(count, 40);
        assert_int_equal(at, w.index.size);
        /* After the end there is nothing. */
        struct ltx_index_entry e;
        size_t took = 1;
        bool more = true;
        must(ltx_index_next(&r, w.index.data, &took, &e, &more, &err));
        assert_int_equal(took, 0);
        assert_false(more);
    }
    writer_fini(&w);
}

/* ---- Page frames of other writers ---- */

static size_t foreign_frame(const LZ4F_preferences_t *prefs, const void *page, size_t size,
                            bool flush_half, uint8_t *out, size_t cap)
{
    LZ4F_cctx *cctx;
    const size_t half = flush_half ? size / 2 : size;
    assert_int_equal(LZ4F_createCompressionContext(&cctx, LZ4F_VERSION), 0);
    size_t n = LZ4F_compressBegin(cctx, out, cap, prefs);
    n += LZ4F_compressUpdate(cctx, out + n, cap - n, page, half, NULL);
    n += LZ4F_flush(cctx, out + n, cap - n, NULL);
    if (half < size) {
        n += LZ4F_compressUpdate(cctx, out + n, cap - n, (const uint8_t *)page + half, size - half,
                                 NULL);
    }
    n += LZ4F_compressEnd(cctx, out + n, cap - n, NULL);
    LZ4F_freeCompressionContext(cctx);
    return n;
}

/* All kinds of LZ4 frame and both encodings in one file. */
static void test_foreign_frames(void **state)
{
    (void)state;
    static uint8_t page[65536], payload[300000];
    uint8_t head[10];
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 4) {
        struct ltx_header h = snapshot_header(page_size, 2000);
        struct writer w = {0};
        struct events a = {0}, b = {0};
        uint32_t pgno = 0;
        h.txid_min = h.txid_max = 5;
        writer_begin(&w, &h);
        for (unsigned kind = 0; kind < 3 * 2 * 2 * 2 * 2 * 2 * 2; kind++) {
            LZ4F_preferences_t prefs = {0};
            fill_page(page, page_size, kind % 3);
            prefs.frameInfo.blockMode = kind / 3 & 1 ? LZ4F_blockIndependent : LZ4F_blockLinked;
            prefs.frameInfo.blockChecksumFlag = kind / 3 >> 1 & 1;
            prefs.frameInfo.contentChecksumFlag = kind / 3 >> 2 & 1;
            prefs.frameInfo.contentSize = kind / 3 >> 3 & 1 ? page_size : 0;
            prefs.frameInfo.blockSizeID = kind / 3 >> 4 & 1 ? LZ4F_max4MB : LZ4F_max64KB;
            prefs.compressionLevel = kind / 3 >> 5 & 1 ? 9 : 0;
            size_t size =
                foreign_frame(&prefs, page, page_size, kind / 3 >> 2 & 1, payload, sizeof payload);
            put_be32(head, ++pgno);
            put_be16(head + 4, LTX_ENC_FRAME);
            writer_frame(&w, head, 6, payload, size, page, page_size);
            if (kind % 5 == 0) writer_page(&w, ++pgno, page, page_size);
        }
        writer_end(&w, 0);
        if (decode(&w.file, &a) != RC_OK) fail_msg("%s", a.err.text);
        if (decode_by_index(w.file.data, w.file.size, &b) != RC_OK) fail_msg("%s", b.err.text);
        assert_int_equal(a.pages, pgno);
        assert_int_equal(a.log.size, b.log.size);
        assert_memory_equal(a.log.data, b.log.data, a.log.size);
        writer_fini(&w);
        events_fini(&a);
        events_fini(&b);
    }
}

static enum rc unpack(const void *frame, size_t size, const char **ret_text)
{
    static struct err err;
    struct ltx_unpacker *u = NULL;
    uint8_t page[512];
    uint32_t pgno = 77;
    uint64_t crc = 78;
    must(ltx_unpacker_new(512, &u, &err));
    enum rc rc = ltx_unpack(u, frame, size, &pgno, page, &crc, &err);
    ltx_unpacker_free(u);
    if (rc == RC_OK) return rc;
    assert_int_equal(pgno, 77);
    assert_int_equal(crc, 78);
    *ret_text = err.text;
    return rc;
}

static void refuse_frame(const void *frame, size_t size, const char *word)
{
    const char *text = "";
    assert_int_equal(unpack(frame, size, &text), RC_CORRUPT);
    if (strstr(text, word) == NULL) fail_msg("'%s' lacks '%s'", text, word);
}

static void test_unpack_refusals(void **state)
{
    (void)state;
    uint8_t page[1024], f[1400];
    const char *text;
    struct ltx_unpacker *u;
    struct err err;
    assert_int_equal(ltx_unpacker_new(511, &u, &err), RC_INVALID);
    fill_noise(page, sizeof page);
    put_be32(f, 9);
    put_be16(f + 4, LTX_ENC_BLOCK);
    size_t block = literal_block(page, 512, f + 10);
    put_be32(f + 6, (uint32_t)block);
    assert_int_equal(unpack(f, 10 + block, &text), RC_OK);
    for (size_t size = 0; size < 10 + block; size++)
        refuse_frame(f, size, "cut short");
    refuse_frame(f, 10 + block + 1, "after its end");
    put_be16(f + 4, 2);
    refuse_frame(f, 10 + block, "flags");
    put_be16(f + 4, LTX_ENC_BLOCK);
    put_be32(f, 0);
    refuse_frame(f, 10 + block, "no file has");
    put_be32(f, ltx_lock_page(512));
    refuse_frame(f, 10 + block, "no file has");
    put_be32(f, 9);
    put_be32(f + 6, 0);
    refuse_frame(f, 10, "impossible size");
    put_be32(f + 6, 0xFFFFFFFF);
    refuse_frame(f, 10 + block, "impossible size");
    block = literal_block(page, 511, f + 10);
    put_be32(f + 6, (uint32_t)block);
    refuse_frame(f, 10 + block, "one page");
    block = literal_block(page, 513, f + 10);
    put_be32(f + 6, (uint32_t)block);
    refuse_frame(f, 10 + block, "one page");
}

/* A frame of LZ4, 512 bytes of page, one stored block. */
static size_t make_lz4(const LZ4F_preferences_t *prefs, const uint8_t *page, size_t size,
                       uint8_t *f)
{
    put_be32(f, 9);
    put_be16(f + 4, LTX_ENC_FRAME);
    return 6 + foreign_frame(prefs, page, size, false, f + 6, 70000);
}

static void test_lz4_refusals(void **state)
{
    (void)state;
    static uint8_t page[1024], f[71000];
    const char *text;
    fill_noise(page, sizeof page);
    LZ4F_preferences_t prefs = {.frameInfo = {.blockSizeID = LZ4F_max64KB,
                                              .blockMode = LZ4F_blockIndependent,
                                              .blockChecksumFlag = LZ4F_blockChecksumEnabled,
                                              .contentChecksumFlag = LZ4F_contentChecksumEnabled}};
    size_t size = make_lz4(&prefs, page, 512, f);
    assert_int_equal(unpack(f, size, &text), RC_OK);
    for (size_t cut = 0; cut < size; cut++)
        refuse_frame(f, cut, "cut short");
    refuse_frame(f, size + 1, "after its end");
    static const struct {
        size_t off;
        uint8_t flip;
        const char *word;
    } rows[] = {
        {6, 1, "no LZ4"},           {10, 0x80, "unknown kind"},     {10, 0x02, "unknown kind"},
        {10, 0x01, "unknown kind"}, {10, 0x20, "its checksum"},     {11, 0x80, "unknown kind"},
        {11, 0x01, "unknown kind"}, {11, 0x40, "unknown kind"},     {11, 0x10, "its checksum"},
        {12, 0xFF, "its checksum"}, {20, 0x01, "block that fails"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        f[rows[i].off] ^= rows[i].flip;
        refuse_frame(f, size, rows[i].word);
        f[rows[i].off] ^= rows[i].flip;
    }
    f[size - 1] ^= 1;
    refuse_frame(f, size, "content checksum");
    put_le32(f + 13, 0x80000000);
    refuse_frame(f, size, "impossible size");
    put_le32(f + 13, 65537);
    refuse_frame(f, size, "impossible size");
    /* More, or less, than a page. */
    size = make_lz4(&prefs, page, 513, f);
    refuse_frame(f, size, "one page");
    size = make_lz4(&prefs, page, 511, f);
    refuse_frame(f, size, "one page");
    prefs.frameInfo.contentSize = 511;
    size = make_lz4(&prefs, page, 511, f);
    refuse_frame(f, size, "one page");
    /* Blocks without an end: what would let a file eat all memory. */
    prefs.frameInfo.contentSize = 0;
    prefs.frameInfo.blockChecksumFlag = LZ4F_noBlockChecksum;
    make_lz4(&prefs, page, 512, f);
    for (size_t at = 13; at + 5 < sizeof f; at += 5)
        memcpy(f + at, "\1\0\0\0\0", 5);
    refuse_frame(f, sizeof f, "longer than any page");
}

/* ---- Streaming decoder ---- */

static struct writer w;
static struct events ev;
static uint8_t pages[8 * 512];

static void refuse_file(const char *word)
{
    if (decode(&w.file, &ev) != RC_CORRUPT) fail_msg("a file with bad %s was taken", word);
    assert_non_null(strstr(ev.err.text, "LTX byte "));
    if (strstr(ev.err.text, word) == NULL) fail_msg("'%s' lacks '%s'", ev.err.text, word);
}

static void begin(const struct ltx_header *h, uint32_t count, const uint32_t *pgnos)
{
    writer_begin(&w, h);
    for (uint32_t i = 0; i < count; i++)
        writer_page(&w, pgnos[i], pages + i * 512, 512);
}

static void test_decoder_refuses_pages(void **state)
{
    (void)state;
    struct ltx_header snap = snapshot_header(512, 3), inc = snap;
    const uint32_t lock = ltx_lock_page(512);
    fill_noise(pages, sizeof pages);
    inc.txid_min = inc.txid_max = 2;

    begin(&snap, 3, (uint32_t[]){1, 2, 3}), writer_end(&w, 0);
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    begin(&snap, 2, (uint32_t[]){1, 2}), writer_end(&w, 0), refuse_file("ends at page 2 of 3");
    begin(&snap, 2, (uint32_t[]){1, 3}), writer_end(&w, 0), refuse_file("from page 1 to 3");
    begin(&snap, 2, (uint32_t[]){2, 3}), writer_end(&w, 0), refuse_file("from page 0 to 2");
    begin(&snap, 0, NULL), writer_end(&w, 0), refuse_file("ends at page 0 of 3");
    begin(&inc, 2, (uint32_t[]){3, 2}), writer_end(&w, 0), refuse_file("page 2 after page 3");
    begin(&inc, 2, (uint32_t[]){2, 2}), writer_end(&w, 0), refuse_file("page 2 after page 2");
    begin(&inc, 1, (uint32_t[]){4}), writer_end(&w, 0), refuse_file("page 4 in a database of 3");
    begin(&inc, 0, NULL), writer_end(&w, 0);
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    inc.page_count = lock + 5;
    begin(&inc, 1, (uint32_t[]){lock}), writer_end(&w, 0), refuse_file("no file has");
    begin(&inc, 2, (uint32_t[]){lock - 1, lock + 1}), writer_end(&w, 0);
    assert_int_equal(decode(&w.file, &ev), RC_OK);

    begin(&inc, 1, (uint32_t[]){1});
    w.file.data[LTX_HEADER_SIZE + 5] = 2;
    refuse_file("flags");
    w.file.data[LTX_HEADER_SIZE + 5] = 1;
    w.file.data[LTX_HEADER_SIZE + 10] = 0; /* the first token of the block */
    refuse_file("one page");
    writer_begin(&w, &snap);
    put(&w.file, "\0\0\0\0\0\1", 6); /* no end mark */
    refuse_file("page 0 after page 0");
    inc.flags = 1;
    begin(&inc, 0, NULL);
    refuse_file("flags");
}

/* Two pages at 100 and 625, whatever the index then says; its size is the only other truth. */
static void with_index(const char *index, size_t size)
{
    struct ltx_header h = snapshot_header(512, 9);
    h.txid_min = h.txid_max = 2;
    begin(&h, 2, (uint32_t[]){3, 5});
    if (index != NULL) {
        buf_reset(&w.index);
        put(&w.index, index, size);
    }
    writer_end(&w, 0);
}

static void test_decoder_refuses_index(void **state)
{
    (void)state;
    with_index(NULL, 0);
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    assert_memory_equal(w.index.data, "\x03\x64\x8D\x04\x05\xF1\x04\x8D\x04\x00", 10);
    with_index("\x03\x64\x8D\x84\x00\x05\xF1\x04\x8D\x04", 10); /* a longer way to say it */
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    with_index("", 0), refuse_file("does not list");
    with_index("\x03\x64\x8D\x04", 4), refuse_file("does not list");
    with_index("\x04\x64\x8D\x04\x05\xF1\x04\x8D\x04", 9), refuse_file("does not list");
    with_index("\x03\x65\x8C\x04\x05\xF1\x04\x8D\x04", 9), refuse_file("does not list");
    with_index("\x03\x64\x8C\x04\x05\xF1\x04\x8D\x04", 9), refuse_file("does not list");
    with_index("\x03\x64\x8D\x04\x05\xF1\x04\x8E\x04", 9), refuse_file("cannot be at");
    with_index("\x05\xF1\x04\x8D\x04\x03\x64\x8D\x04", 9), refuse_file("page 3 after page 5");
    with_index("\x0A\x64\x8D\x04", 4), refuse_file("no page 10");
    with_index("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11), refuse_file("varint");
    with_index(NULL, 0);
    w.file.data[w.file.size - 17]++;
    refuse_file("the index has 10 bytes and claims 11");
    with_index(NULL, 0);
    w.file.data[w.file.size - 1]++;
    refuse_file("file checksum");
    with_index(NULL, 0);
    put(&w.file, "x", 1);
    refuse_file("follows the trailer");
    with_index("\x03\x64\x8D\x04\x05\xF1\x04\x8D\x04\x00", 10); /* and another 0 */
    refuse_file("the index has 10 bytes and claims 0");
}

static void test_tracked_checksums(void **state)
{
    (void)state;
    struct ltx_header snap = snapshot_header(512, 3), inc = snap;
    uint64_t post = rolling(512, pages, 3);
    snap.flags = inc.flags = 0;
    inc.txid_min = inc.txid_max = 2, inc.pre_sum = LTX_SUM_FLAG | 5;
    begin(&snap, 3, (uint32_t[]){1, 2, 3}), writer_end(&w, post);
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    assert_memory_equal(ev.log.data + ev.log.size - 8, &post, 8);
    begin(&snap, 3, (uint32_t[]){1, 2, 3}), writer_end(&w, post ^ 1), refuse_file("post-apply");
    begin(&snap, 3, (uint32_t[]){1, 2, 3}), writer_end(&w, 0), refuse_file("post-apply");
    /* Of an increment nobody can say more than that the flag must be there. */
    begin(&inc, 1, (uint32_t[]){2}), writer_end(&w, LTX_SUM_FLAG | 99);
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    begin(&inc, 1, (uint32_t[]){2}), writer_end(&w, 99), refuse_file("flag bit");
    /* Except that an empty database has the empty sum. */
    inc.page_count = 0;
    begin(&inc, 0, NULL), writer_end(&w, LTX_SUM_FLAG);
    assert_int_equal(decode(&w.file, &ev), RC_OK);
    begin(&inc, 0, NULL), writer_end(&w, LTX_SUM_FLAG | 1), refuse_file("post-apply");
    snap.flags = LTX_FLAG_NO_CHECKSUM;
    begin(&snap, 3, (uint32_t[]){1, 2, 3}), writer_end(&w, post), refuse_file("unexpected");
}

static int fini(void **state)
{
    (void)state;
    writer_fini(&w);
    events_fini(&ev);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_sums),
        cmocka_unit_test(test_lock_page_and_sizes),
        cmocka_unit_test(test_header_bytes),
        cmocka_unit_test(test_header_refusals),
        cmocka_unit_test(test_frame_bytes),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_against_simple_writer),
        cmocka_unit_test(test_drain_and_reset),
        cmocka_unit_test(test_encoder_refusals),
        cmocka_unit_test(test_index_locate),
        cmocka_unit_test(test_index_refusals),
        cmocka_unit_test(test_index_in_pieces),
        cmocka_unit_test(test_foreign_frames),
        cmocka_unit_test(test_unpack_refusals),
        cmocka_unit_test(test_lz4_refusals),
        cmocka_unit_test(test_decoder_refuses_pages),
        cmocka_unit_test(test_decoder_refuses_index),
        cmocka_unit_test(test_tracked_checksums),
    };
    noise_seed();
    return cmocka_run_group_tests(tests, NULL, fini);
}
