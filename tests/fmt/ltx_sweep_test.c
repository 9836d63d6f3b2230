/*
 * ltx_sweep_test.c -- LTX under every cut, every truncation, every flipped bit and every failing
 * allocation; and a snapshot that reaches beyond the lock page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "fmt/ltx_util.h"

#define PAGE_SIZE 512u

/* Five pages, both encodings in one file, the last page incompressible. */
static void make_mixed(struct writer *w)
{
    struct ltx_header h = snapshot_header(PAGE_SIZE, 5);
    uint8_t pages[5 * PAGE_SIZE];
    struct buf frames = BUF_INIT, index = BUF_INIT;
    struct err err;
    h.has_digest = true;
    writer_begin(w, &h);
    for (uint32_t i = 0; i < 5; i++) {
        struct ltx_encoder *enc = NULL;
        uint8_t *page = pages + i * PAGE_SIZE;
        size_t head = i & 1 ? 10 : 6;
        fill_page(page, PAGE_SIZE, i == 4 ? FILL_NOISE : i % 2 == 0 ? FILL_TEXT : FILL_ZERO);
        must(ltx_encoder_new(PAGE_SIZE, i & 1 ? LTX_ENC_BLOCK : LTX_ENC_FRAME, &enc, &err));
        must(ltx_encoder_page(enc, i + 1, page, &frames, &index, &err));
        writer_frame(w, frames.data, head, frames.data + head, frames.size - head, page, PAGE_SIZE);
        buf_reset(&frames);
        buf_reset(&index);
        ltx_encoder_free(enc);
    }
    writer_end(w, 0);
    buf_fini(&frames);
    buf_fini(&index);
}

static void assert_same(const struct events *a, const struct events *b)
{
    assert_int_equal(a->log.size, b->log.size);
    assert_memory_equal(a->log.data, b->log.data, a->log.size);
}

static void test_every_cut(void **state)
{
    (void)state;
    struct writer w = {0};
    struct events whole = {0}, cut = {0};
    make_mixed(&w);
    must(decode(&w.file, &whole));
    assert_int_equal(whole.pages, 5);
    for (size_t at = 0; at <= w.file.size; at++) {
        must(decode_cut(w.file.data, w.file.size, at, &cut));
        assert_same(&whole, &cut);
    }
    /* And all cuts at once. */
    struct ltx_decoder *dec = NULL;
    events_reset(&cut);
    must(ltx_decoder_new(&dec, &cut.err));
    for (size_t i = 0; i < w.file.size; i++)
        must(feed(dec, w.file.data + i, 1, &cut));
    assert_false(cut.ended);
    must(feed(dec, NULL, 0, &cut));
    assert_same(&whole, &cut);
    ltx_decoder_free(dec);
    /* Random pieces. */
    for (int round = 0; round < 300; round++) {
        events_reset(&cut);
        must(ltx_decoder_new(&dec, &cut.err));
        for (size_t i = 0, n; i < w.file.size; i += n) {
            n = 1 + noise() % 300;
            if (n > w.file.size - i) n = w.file.size - i;
            must(feed(dec, w.file.data + i, n, &cut));
        }
        must(feed(dec, NULL, 0, &cut));
        assert_same(&whole, &cut);
        ltx_decoder_free(dec);
    }
    writer_fini(&w);
    events_fini(&whole);
    events_fini(&cut);
}

static void test_every_truncation(void **state)
{
    (void)state;
    struct writer w = {0};
    struct events ev = {0};
    make_mixed(&w);
    for (size_t size = 0; size < w.file.size; size++) {
        /* From exactly as many bytes, so that a sanitizer sees a read beyond them. */
        uint8_t *copy = mem_alloc(size);
        assert_non_null(copy);
        memcpy(copy, w.file.data, size);
        for (size_t cut = 0; cut <= size; cut += size / 2 + 1)
            assert_int_equal(decode_cut(copy, size, cut, &ev), RC_CORRUPT);
        assert_int_equal(decode_by_index(copy, size, &ev), RC_CORRUPT);
        mem_free(copy);
    }
    writer_fini(&w);
    events_fini(&ev);
}

/*
 * Only compressed bytes are not covered by the file checksum, since it is taken over what they
 * inflate to. Some of their bits do not matter (the match length in the last token of a block, the
 * choice between two equal matches), and then the pages must be the same. All else must fail.
 */
static void test_every_bit(void **state)
{
    (void)state;
    struct writer w = {0};
    struct events whole = {0}, ev = {0};
    uint32_t inert = 0;
    make_mixed(&w);
    must(decode(&w.file, &whole));
    bool *compressed = mem_calloc(w.file.size, sizeof *compressed);
    assert_non_null(compressed);
    size_t at = LTX_HEADER_SIZE;
    for (uint32_t i = 0; i < 5; i++) { /* where are the LZ4 blocks? */
        size_t head = i & 1 ? 10 : 17, tail = i & 1 ? 0 : 8;
        uint32_t size = i & 1 ? get_be32(w.file.data + at + 6) : get_le32(w.file.data + at + 13);
        bool raw = size >> 31;
        size &= 0x7FFFFFFF;
        if (!raw) memset(compressed + at + head, 1, size);
        at += head + size + tail;
    }
    for (size_t i = 0; i < w.file.size; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            w.file.data[i] ^= (uint8_t)(1u << bit);
            enum rc a = decode(&w.file, &ev);
            if (a == RC_OK) assert_same(&whole, &ev);
            enum rc b = decode_by_index(w.file.data, w.file.size, &ev);
            if (b == RC_OK) assert_same(&whole, &ev);
            if (!compressed[i] && a == RC_OK) fail_msg("bit %u of byte %zu is free", bit, i);
            assert_true(a == RC_OK || a == RC_CORRUPT);
            assert_int_equal(a, b);
            inert += a == RC_OK;
            w.file.data[i] ^= (uint8_t)(1u << bit);
        }
    }
    printf("%u of %zu bits do not matter\n", inert, w.file.size * 8);
    assert_true(inert < w.file.size * 8 / 20);
    mem_free(compressed);
    writer_fini(&w);
    events_fini(&whole);
    events_fini(&ev);
}

/* ---- Allocations ---- */

static enum rc encode_checked(const uint8_t *pages, struct buf *out, struct err *err)
{
    struct ltx_header h = snapshot_header(PAGE_SIZE, 5);
    struct ltx_encoder *enc = NULL;
    struct buf frames = BUF_INIT, index = BUF_INIT;
    uint8_t header[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    enum rc rc = ltx_encoder_new(PAGE_SIZE, LTX_ENC_FRAME, &enc, err);
    for (uint32_t i = 0; i < 5 && rc == RC_OK; i++) {
        size_t before = frames.size;
        rc = ltx_encoder_page(enc, i + 1, pages + i * PAGE_SIZE, &frames, &index, err);
        if (rc != RC_OK) {
            /* Nothing has happened: the same page may be tried again. */
            assert_int_equal(frames.size, before);
            fault_arm(0, 0, false);
            must(ltx_encoder_page(enc, i + 1, pages + i * PAGE_SIZE, &frames, &index, err));
        }
    }
    if (rc == RC_OK) rc = ltx_encoder_finish(enc, &h, &frames, &index, header, trailer, err);
    if (rc == RC_OK) {
        put(out, header, sizeof header);
        put(out, frames.data, frames.size);
        put(out, index.data, index.size);
        put(out, trailer, sizeof trailer);
    }
    ltx_encoder_free(enc);
    buf_fini(&frames);
    buf_fini(&index);
    return rc;
}

static enum rc decode_checked(const struct buf *file, size_t piece, uint32_t *ret_pages,
                              struct err *err)
{
    struct ltx_decoder *dec = NULL;
    size_t at = 0;
    bool ended = false;
    enum rc rc = ltx_decoder_new(&dec, err);
    *ret_pages = 0;
    while (rc == RC_OK && !ended) {
        struct ltx_event ev = {.kind = LTX_EV_MORE};
        size_t took = file->size - at < piece ? file->size - at : piece, given = took;
        rc = ltx_decoder_step(dec, file->data + at, &took, &ev, err);
        if (rc != RC_OK)
            assert_int_equal(took, given);
        else
            at += took;
        *ret_pages += ev.kind == LTX_EV_PAGE;
        ended = ev.kind == LTX_EV_END;
    }
    ltx_decoder_free(dec);
    return rc;
}

static void test_every_allocation(void **state)
{
    (void)state;
    uint8_t pages[5 * PAGE_SIZE];
    struct buf file = BUF_INIT;
    struct err err;
    uint64_t n;
    uint32_t count;
    fill_noise(pages, sizeof pages);
    must(buf_reserve(&file, 2 * sizeof pages, &err));
    for (n = 1;; n++) {
        buf_reset(&file);
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc = encode_checked(pages, &file, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        if (!fired && rc == RC_OK) break;
        assert_int_equal(rc, RC_NO_MEM);
        assert_non_null(strstr(err.text, "memory"));
    }
    assert_true(n > 4);
    for (size_t piece = 1; piece < 4000; piece = piece * 5 + 3) {
        for (n = 1;; n++) {
            fault_arm(FAULT_ALLOC, n, false);
            enum rc rc = decode_checked(&file, piece, &count, &err);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            if (!fired) {
                must(rc);
                break;
            }
            assert_int_equal(rc, RC_NO_MEM);
        }
        assert_true(n > 2);
        assert_int_equal(count, 5);
    }
    struct ltx_unpacker *u = NULL;
    fault_arm(FAULT_ALLOC, 1, false);
    assert_int_equal(ltx_unpacker_new(512, &u, &err), RC_NO_MEM);
    fault_arm(0, 0, false);
    buf_fini(&file);
}

/* ---- The lock page ---- */

static void test_beyond_the_lock_page(void **state)
{
    (void)state;
    static uint8_t page[65536];
    const uint32_t lock = ltx_lock_page(sizeof page);
    for (uint32_t last = lock - 1; last <= lock + 1; last++) {
        struct ltx_header h = snapshot_header(sizeof page, last);
        struct ltx_encoder *enc = NULL;
        struct buf file = BUF_INIT, index = BUF_INIT, whole = BUF_INIT;
        struct err err;
        uint32_t count;
        uint8_t header[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
        must(ltx_encoder_new(sizeof page, LTX_ENC_BLOCK, &enc, &err));
        for (uint32_t pgno = 1; pgno <= last; pgno++) {
            put_be32(page, pgno);
            if (pgno != lock) must(ltx_encoder_page(enc, pgno, page, &file, &index, &err));
        }
        must(ltx_encoder_finish(enc, &h, &file, &index, header, trailer, &err));
        put(&whole, header, sizeof header);
        put(&whole, file.data, file.size);
        put(&whole, index.data, index.size);
        put(&whole, trailer, sizeof trailer);
        must(decode_checked(&whole, 1 << 20, &count, &err));
        assert_int_equal(count, last - (last >= lock));
        ltx_encoder_free(enc);
        buf_fini(&file);
        buf_fini(&index);
        buf_fini(&whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_every_allocation),
        cmocka_unit_test(test_beyond_the_lock_page),
    };
    noise_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
