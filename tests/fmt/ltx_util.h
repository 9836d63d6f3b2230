/*
 * ltx_util.h -- for tests of LTX: a second, simple writer that can also write nonsense, and a
 * reader that collects what the streaming decoder reports.
 */
#ifndef TESTS_FMT_LTX_UTIL_H
#define TESTS_FMT_LTX_UTIL_H
#include <string.h>
#include "base/buf.h"
#include "base/bytes.h"
#include "fmt/crc64.h"
#include "fmt/ltx.h"
#include "fmt/noise.h"

#define UTIL __attribute__((unused)) static

UTIL void must(enum rc rc)
{
    if (rc != RC_OK) fail_msg("unexpected %s", rc_name(rc));
}

UTIL void put(struct buf *b, const void *data, size_t size)
{
    struct err err;
    must(buf_append(b, data, size, &err));
}

enum fill { FILL_ZERO, FILL_TEXT, FILL_NOISE, FILL_COUNT };

UTIL void fill_page(uint8_t *page, uint32_t size, enum fill fill)
{
    memset(page, 0, size);
    if (fill == FILL_NOISE) fill_noise(page, size);
    if (fill == FILL_TEXT)
        for (uint32_t i = 0; i < size; i++)
            page[i] = (uint8_t)("the log "[i % 8] + (int)(noise() % 2));
}

UTIL struct ltx_header snapshot_header(uint32_t page_size, uint32_t page_count)
{
    return (struct ltx_header){.flags = LTX_FLAG_NO_CHECKSUM,
                               .page_size = page_size,
                               .page_count = page_count,
                               .txid_min = 1,
                               .txid_max = 1,
                               .timestamp_ms = 1767323045678,
                               .wal_off = LTX_WAL_OFF_MIN,
                               .wal_salt1 = 0x01020304,
                               .wal_salt2 = 0x05060708};
}

/* ---- The simple writer: says what it is told. ---- */
struct writer {
    struct buf file;
    struct buf hashed; /* all that the file checksum covers */
    struct buf index;
};

UTIL void writer_fini(struct writer *w)
{
    buf_fini(&w->file);
    buf_fini(&w->hashed);
    buf_fini(&w->index);
}

UTIL void writer_begin(struct writer *w, const struct ltx_header *h)
{
    uint8_t bytes[LTX_HEADER_SIZE];
    buf_reset(&w->file);
    buf_reset(&w->hashed);
    buf_reset(&w->index);
    ltx_header_put(h, bytes);
    put(&w->file, bytes, sizeof bytes);
    put(&w->hashed, bytes, sizeof bytes);
}

UTIL void writer_varint(struct writer *w, uint64_t v)
{
    do {
        uint8_t b = (uint8_t)((v & 0x7F) | (v > 0x7F ? 0x80 : 0));
        put(&w->index, &b, 1);
        v >>= 7;
    } while (v != 0);
}

/* head: the 6 or 10 bytes that are hashed as they are. */
UTIL void writer_frame(struct writer *w, const uint8_t *head, size_t head_size, const void *payload,
                       size_t size, const void *page, uint32_t page_size)
{
    writer_varint(w, get_be32(head));
    writer_varint(w, w->file.size);
    writer_varint(w, head_size + size);
    put(&w->file, head, head_size);
    put(&w->file, payload, size);
    put(&w->hashed, head, head_size);
    put(&w->hashed, page, page_size);
}

/* A page as literals: the dullest LZ4 block there is. */
UTIL size_t literal_block(const void *page, uint32_t page_size, uint8_t *out)
{
    size_t n = 0;
    uint32_t rest = page_size - 15;
    out[n++] = 0xF0;
    for (; rest >= 255; rest -= 255)
        out[n++] = 255;
    out[n++] = (uint8_t)rest;
    memcpy(out + n, page, page_size);
    return n + page_size;
}

UTIL void writer_page(struct writer *w, uint32_t pgno, const void *page, uint32_t page_size)
{
    uint8_t head[10], block[66000];
    size_t size = literal_block(page, page_size, block);
    put_be32(head, pgno);
    put_be16(head + 4, LTX_ENC_BLOCK);
    put_be32(head + 6, (uint32_t)size);
    writer_frame(w, head, sizeof head, block, size, page, page_size);
}

UTIL void writer_end(struct writer *w, uint64_t post_sum)
{
    uint8_t end[6] = {0}, number[8];
    put(&w->file, end, sizeof end);
    put(&w->hashed, end, sizeof end);
    put(&w->index, end, 1);
    put(&w->file, w->index.data, w->index.size);
    put(&w->hashed, w->index.data, w->index.size);
    put_be64(number, w->index.size);
    put(&w->file, number, 8);
    put(&w->hashed, number, 8);
    put_be64(number, post_sum);
    put(&w->file, number, 8);
    put(&w->hashed, number, 8);
    put_be64(number, LTX_SUM_FLAG | crc64(0, w->hashed.data, w->hashed.size));
    put(&w->file, number, 8);
}

/* ---- The module's encoder, into one buffer. pages: page 1, 2, ...; NULL pgnos means all. ---- */
UTIL void encode(const struct ltx_header *h, enum ltx_encoding encoding, const uint32_t *pgnos,
                 uint32_t count, const uint8_t *pages, struct buf *out)
{
    struct ltx_encoder *enc = NULL;
    struct buf frames = BUF_INIT, index = BUF_INIT;
    struct err err;
    uint8_t header[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    must(ltx_encoder_new(h->page_size, encoding, &enc, &err));
    for (uint32_t i = 0; i < count; i++)
        must(ltx_encoder_page(enc, pgnos != NULL ? pgnos[i] : i + 1,
                              pages + (size_t)i * h->page_size, &frames, &index, &err));
    must(ltx_encoder_finish(enc, h, &frames, &index, header, trailer, &err));
    buf_reset(out);
    put(out, header, sizeof header);
    put(out, frames.data, frames.size);
    put(out, index.data, index.size);
    put(out, trailer, sizeof trailer);
    buf_fini(&frames);
    buf_fini(&index);
    ltx_encoder_free(enc);
}

/* ---- The streaming decoder, its events as a string of bytes. ---- */
struct events {
    struct buf log; /* header fields; pgno and page each; the post-apply checksum */
    uint32_t pages;
    bool ended;
    struct err err;
};

UTIL void events_fini(struct events *e)
{
    buf_fini(&e->log);
}

UTIL void events_reset(struct events *e)
{
    buf_reset(&e->log);
    e->pages = 0;
    e->ended = false;
    err_clear(&e->err);
}

/* Feed one piece; size 0 tells the end. */
UTIL enum rc feed(struct ltx_decoder *dec, const uint8_t *in, size_t size, struct events *e)
{
    uint32_t page_size = 0;
    for (const uint8_t *end = size > 0 ? in + size : in;;) {
        struct ltx_event ev;
        size_t took = (size_t)(end - in);
        enum rc rc = ltx_decoder_step(dec, in, &took, &ev, &e->err);
        if (rc != RC_OK) return rc;
        if (took > 0) in += took;
        switch (ev.kind) {
        case LTX_EV_MORE:
            assert_ptr_equal(in, end);
            return RC_OK;
        case LTX_EV_HEADER: {
            uint8_t bytes[LTX_HEADER_SIZE];
            ltx_header_put(&ev.header, bytes);
            put(&e->log, bytes, sizeof bytes);
            break;
        }
        case LTX_EV_PAGE:
            page_size = get_be32(e->log.data + 8);
            put(&e->log, &ev.page.pgno, 4);
            put(&e->log, ev.page.data, page_size);
            e->pages++;
            break;
        case LTX_EV_END:
            put(&e->log, &ev.post_sum, 8);
            e->ended = true;
            return RC_OK;
        }
        if (size > 0 && in == end) return RC_OK;
    }
}

/* Decode a file that arrives in two pieces. */
UTIL enum rc decode_cut(const uint8_t *file, size_t size, size_t cut, struct events *e)
{
    struct ltx_decoder *dec = NULL;
    events_reset(e);
    must(ltx_decoder_new(&dec, &e->err));
    enum rc rc = cut > 0 ? feed(dec, file, cut, e) : RC_OK;
    if (rc == RC_OK && cut < size) rc = feed(dec, file + cut, size - cut, e);
    if (rc == RC_OK) rc = feed(dec, file, 0, e);
    if (rc != RC_OK) {
        struct ltx_event ev;
        struct err again;
        size_t none = 0;
        assert_int_equal(ltx_decoder_step(dec, file, &none, &ev, &again), rc);
        assert_string_equal(again.text, e->err.text);
    }
    assert_int_equal(rc == RC_OK, e->ended);
    ltx_decoder_free(dec);
    return rc;
}

UTIL enum rc decode(const struct buf *file, struct events *e)
{
    return decode_cut(file->data, file->size, file->size, e);
}

/* The same through the page index and ltx_unpack; the file checksum is verified by hand. */
UTIL enum rc decode_by_index(const uint8_t *file, size_t size, struct events *e)
{
    struct ltx_header h;
    struct err *err = &e->err;
    struct ltx_index_reader r = {0};
    struct ltx_unpacker *u = NULL;
    uint64_t off, index_size, from;
    uint8_t page[LTX_PAGE_SIZE_MAX], bytes[LTX_HEADER_SIZE];
    events_reset(e);
    if (size < LTX_HEADER_SIZE + 24) return err_set(err, RC_CORRUPT, "too small");
    TRY(ltx_header_get(file, &h, err));
    TRY(ltx_index_locate(file + size - 24, size, &off, &index_size, err));
    ltx_header_put(&h, bytes);
    put(&e->log, bytes, sizeof bytes);
    must(ltx_unpacker_new(h.page_size, &u, err));
    uint64_t crc = crc64(0, file, LTX_HEADER_SIZE);
    r.frames_end = off - 6;
    r.page_count = h.page_count;
    enum rc rc = RC_OK;
    for (from = 0; rc == RC_OK && !r.done;) {
        struct ltx_index_entry entry;
        size_t took = index_size - from;
        uint32_t pgno;
        bool more;
        rc = ltx_index_next(&r, file + off + from, &took, &entry, &more, err);
        if (rc == RC_OK && took == 0) rc = err_set(err, RC_CORRUPT, "the index is cut short");
        if (rc != RC_OK || r.done) break;
        from += took;
        rc = ltx_unpack(u, file + entry.off, entry.size, &pgno, page, &crc, err);
        if (rc == RC_OK && pgno != entry.pgno) rc = err_set(err, RC_CORRUPT, "another page");
        put(&e->log, &entry.pgno, 4);
        put(&e->log, page, h.page_size);
        e->pages++;
    }
    ltx_unpacker_free(u);
    if (rc != RC_OK) return rc;
    crc = crc64(crc, file + off - 6, size - 8 - (off - 6));
    if (get_be64(file + size - 8) != (LTX_SUM_FLAG | crc))
        return err_set(err, RC_CORRUPT, "file checksum");
    uint64_t post = get_be64(file + size - 16);
    put(&e->log, &post, 8);
    e->ended = true;
    return RC_OK;
}
#endif
