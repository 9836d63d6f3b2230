/*
 * fmt_bench.c -- how fast are the codecs? One JSON line a question, best of several runs.
 *
 *   fmt_bench [megabytes for each run, default 64]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "../src/fmt/crc64.c" /* both ways to compute are static */
#include "base/buf.h"
#include "base/mem.h"
#include "fmt/digest.h"
#include "fmt/ltx.h"
#include "fmt/wal.h"

#define PAGE_SIZE 4096u
#define RUNS      5

struct bench {
    uint8_t *pages; /* half text, half noise, as in a table of rows */
    uint32_t page_count;
    struct buf frames[2], index[2]; /* the pages, encoded both ways */
};
typedef uint64_t bench_fn(struct bench *b); /* returns something that depends on all the work */

static volatile uint64_t sink;

static void bench_run(const char *name, struct bench *b, bench_fn *fn);
static void fill(struct bench *b);

static uint64_t crc_portable(struct bench *b)
{
    uint64_t reg = 0;
    for (uint32_t i = 0; i < b->page_count; i++)
        reg = update_portable(reg, b->pages + (size_t)i * PAGE_SIZE, PAGE_SIZE);
    return reg;
}

#ifdef __x86_64__
static uint64_t crc_clmul(struct bench *b)
{
    uint64_t reg = 0;
    for (uint32_t i = 0; i < b->page_count; i++)
        reg = update_clmul(reg, b->pages + (size_t)i * PAGE_SIZE, PAGE_SIZE);
    return reg;
}
#endif

static uint64_t digest_pages(struct bench *b)
{
    struct digest sum = {0};
    for (uint32_t i = 0; i < b->page_count; i++)
        sum = digest_add(sum, digest_page(i + 1, b->pages + (size_t)i * PAGE_SIZE, PAGE_SIZE));
    return sum.lo ^ sum.hi;
}

static uint64_t wal_sum(struct bench *b, bool big_endian)
{
    struct wal_sum sum = {0};
    for (uint32_t i = 0; i < b->page_count; i++)
        wal_sum_add(&sum, big_endian, b->pages + (size_t)i * PAGE_SIZE, PAGE_SIZE);
    return sum.s1 ^ sum.s2;
}

static uint64_t wal_sum_native(struct bench *b)
{
    return wal_sum(b, false);
}

static uint64_t wal_sum_swapped(struct bench *b)
{
    return wal_sum(b, true);
}

static uint64_t pack(struct bench *b, enum ltx_encoding encoding)
{
    struct err err;
    struct ltx_encoder *enc = NULL;
    struct buf *frames = &b->frames[encoding], *index = &b->index[encoding];
    buf_reset(frames);
    buf_reset(index);
    if (ltx_encoder_new(PAGE_SIZE, encoding, &enc, &err) != RC_OK) exit(1);
    for (uint32_t i = 0; i < b->page_count; i++) {
        const uint8_t *page = b->pages + (size_t)i * PAGE_SIZE;
        if (ltx_encoder_page(enc, i + 1, page, frames, index, &err) != RC_OK) exit(1);
    }
    ltx_encoder_free(enc);
    return frames->size;
}

static uint64_t pack_frame(struct bench *b)
{
    return pack(b, LTX_ENC_FRAME);
}

static uint64_t pack_block(struct bench *b)
{
    return pack(b, LTX_ENC_BLOCK);
}

static uint64_t unpack(struct bench *b, enum ltx_encoding encoding, uint64_t *crc)
{
    struct err err;
    struct ltx_unpacker *u = NULL;
    struct ltx_index_reader r = {0};
    const struct buf *frames = &b->frames[encoding], *index = &b->index[encoding];
    uint8_t page[PAGE_SIZE];
    uint64_t sum = 0;
    if (ltx_unpacker_new(PAGE_SIZE, &u, &err) != RC_OK) exit(1);
    for (size_t at = 0; at < index->size;) {
        struct ltx_index_entry e;
        size_t size = index->size - at;
        uint32_t pgno;
        bool more;
        if (ltx_index_next(&r, index->data + at, &size, &e, &more, &err) != RC_OK || !more) exit(1);
        at += size;
        const uint8_t *frame = frames->data + (e.off - LTX_HEADER_SIZE);
        if (ltx_unpack(u, frame, (size_t)e.size, &pgno, page, crc, &err) != RC_OK) exit(1);
        sum += pgno + page[PAGE_SIZE - 1];
    }
    ltx_unpacker_free(u);
    return sum;
}

static uint64_t unpack_frame(struct bench *b)
{
    return unpack(b, LTX_ENC_FRAME, NULL);
}

static uint64_t unpack_block(struct bench *b)
{
    return unpack(b, LTX_ENC_BLOCK, NULL);
}

static uint64_t unpack_block_crc(struct bench *b)
{
    uint64_t crc = 0;
    return unpack(b, LTX_ENC_BLOCK, &crc) ^ crc;
}

int main(int argc, char **argv)
{
    struct bench b = {.page_count = (argc > 1 ? (uint32_t)atoi(argv[1]) : 64u) * 256};
    b.pages = mem_alloc((size_t)b.page_count * PAGE_SIZE);
    if (b.pages == NULL || b.page_count == 0) return 1;
    fill(&b);
    bench_run("crc64_portable", &b, crc_portable);
#ifdef __x86_64__
    if (have_clmul) bench_run("crc64_clmul", &b, crc_clmul);
#endif
    bench_run("digest", &b, digest_pages);
    bench_run("wal_sum_native", &b, wal_sum_native);
    bench_run("wal_sum_swapped", &b, wal_sum_swapped);
    bench_run("ltx_pack_frame", &b, pack_frame);
    bench_run("ltx_pack_block", &b, pack_block);
    bench_run("ltx_unpack_frame", &b, unpack_frame);
    bench_run("ltx_unpack_block", &b, unpack_block);
    bench_run("ltx_unpack_block_crc", &b, unpack_block_crc);
    double raw = (double)b.page_count * PAGE_SIZE;
    printf("{\"bench\":\"ltx_ratio\",\"frame\":%.3f,\"block\":%.3f}\n",
           (double)b.frames[LTX_ENC_FRAME].size / raw, (double)b.frames[LTX_ENC_BLOCK].size / raw);
    return 0;
}

static void bench_run(const char *name, struct bench *b, bench_fn *fn)
{
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        sink = fn(b);
        clock_gettime(CLOCK_MONOTONIC, &to);
        double took = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
        if (took < best) best = took;
    }
    double bytes = (double)b->page_count * PAGE_SIZE;
    printf("{\"bench\":\"%s\",\"gb_per_s\":%.2f,\"pages_per_s\":%.0f}\n", name, bytes / best / 1e9,
           (double)b->page_count / best);
}

static void fill(struct bench *b)
{
    static const char words[] = "insert into orders values customer 2026-01-02 pending shipped ";
    uint64_t x = 0x9E3779B97F4A7C15;
    size_t size = (size_t)b->page_count * PAGE_SIZE;
    for (size_t i = 0; i < size;) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        size_t from = x % (sizeof words - 17), run = 1 + (x >> 32) % 16;
        for (size_t j = 0; j < run && i < size; j++)
            b->pages[i++] = (uint8_t)words[from + j];
        for (size_t j = 0; j < run && j < 8 && i < size; j++)
            b->pages[i++] = (uint8_t)(x >> (8 * j));
    }
}
