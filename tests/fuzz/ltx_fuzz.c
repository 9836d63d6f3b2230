/*
 * ltx_fuzz.c -- LTX decoders on nonsense. The first byte chooses:
 *
 *   0  a file: the streaming decoder says the same however the input is cut; what it accepts reads
 *      the same through the index, and encodes and decodes to the same again. A wrong file checksum
 *      is repaired first, or nothing would ever get past it.
 *   1  a page frame: what ltx_unpack accepts, the streaming decoder accepts in a file
 *   2  pages: decode(encode(x)) == x
 */
#include "fuzz/fuzz.h"
#include "fmt/ltx_util.h"

#define FILE_MAX_SIZE (1u << 20)

static void fuzz_file(const uint8_t *data, size_t size);
static void fuzz_frame(const uint8_t *data, size_t size);
static void fuzz_pages(const uint8_t *data, size_t size);
static void check_same(const struct events *a, const struct events *b);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    switch (data[0] % 3) {
    case 0:
        fuzz_file(data + 1, size - 1);
        break;
    case 1:
        fuzz_frame(data + 1, size - 1);
        break;
    default:
        fuzz_pages(data + 1, size - 1);
        break;
    }
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    const uint32_t page_size = n & 4 ? 1024 : 512, count = 1 + n / 8 % 3;
    uint8_t pages[3 * 1024];
    struct buf file = BUF_INIT;
    struct ltx_header h = snapshot_header(page_size, count);
    for (uint32_t i = 0; i < count; i++)
        fill_page(pages + i * page_size, page_size, (n + i) % FILL_COUNT);
    if (n & 1) h.txid_min = h.txid_max = 2;
    encode(&h, n & 2 ? LTX_ENC_BLOCK : LTX_ENC_FRAME, NULL, count, pages, &file);
    out[0] = (uint8_t)(n % 3);
    if (n % 3 == 1) {
        /* The first frame, after a byte that tells the page size. */
        struct ltx_index_reader r = {0};
        struct ltx_index_entry e;
        struct err err;
        uint64_t off, index_size;
        bool more;
        must(ltx_index_locate(file.data + file.size - 24, file.size, &off, &index_size, &err));
        size_t took = index_size;
        must(ltx_index_next(&r, file.data + off, &took, &e, &more, &err));
        out[1] = n & 4 ? 1 : 0;
        memcpy(out + 2, file.data + e.off, e.size);
        n = (unsigned)e.size + 2;
    } else {
        memcpy(out + 1, file.data, file.size);
        n = (unsigned)file.size + 1;
    }
    buf_fini(&file);
    return n;
}

/* When all but the file checksum is right, make that right too. */
static enum rc decode_repaired(uint8_t *file, size_t size, struct events *e)
{
    unsigned long long tail, sum, want;
    enum rc rc = decode_cut(file, size, size, e);
    if (rc == RC_OK ||
        sscanf(e->err.text, "LTX byte %llu: the file checksum is %llx, its content gives %llx",
               &tail, &sum, &want) != 3)
        return rc;
    put_be64(file + tail + 16, want);
    return decode_cut(file, size, size, e);
}

/* The pages that a decoder has reported, written by our encoder, must read as they did. */
static void check_again(const struct events *e, enum ltx_encoding encoding)
{
    struct ltx_header h;
    struct err err;
    struct buf file = BUF_INIT, pages = BUF_INIT;
    struct events again = {0};
    must(ltx_header_get(e->log.data, &h, &err));
    if (h.flags != LTX_FLAG_NO_CHECKSUM) return;
    uint32_t *pgnos = calloc(e->pages + 1, sizeof *pgnos);
    CHECK(pgnos != NULL);
    for (uint32_t i = 0; i < e->pages; i++) {
        const uint8_t *at = e->log.data + LTX_HEADER_SIZE + i * (4 + (size_t)h.page_size);
        memcpy(&pgnos[i], at, 4);
        put(&pages, at + 4, h.page_size);
    }
    encode(&h, encoding, pgnos, e->pages, pages.data, &file);
    CHECK(decode(&file, &again) == RC_OK);
    check_same(&again, e);
    free(pgnos);
    buf_fini(&file);
    buf_fini(&pages);
    events_fini(&again);
}

static void fuzz_file(const uint8_t *data, size_t size)
{
    struct events whole = {0}, other = {0};
    if (size > FILE_MAX_SIZE) return;
    uint8_t *file = malloc(size);
    CHECK(file != NULL);
    memcpy(file, data, size);
    enum rc rc = decode_repaired(file, size, &whole);
    CHECK(rc == RC_OK || rc == RC_CORRUPT);
    for (size_t cut = 1 + size % 7; cut < size; cut += 1 + size / 5) {
        CHECK(decode_cut(file, size, cut, &other) == rc);
        if (rc != RC_OK) CHECK(strcmp(other.err.text, whole.err.text) == 0);
        check_same(&other, &whole);
    }
    enum rc by_index = decode_by_index(file, size, &other);
    CHECK(by_index == RC_OK || by_index == RC_CORRUPT);
    if (rc == RC_OK) {
        CHECK(by_index == RC_OK);
        check_same(&other, &whole);
        check_again(&whole, LTX_ENC_FRAME);
        check_again(&whole, LTX_ENC_BLOCK);
    }
    free(file);
    events_fini(&whole);
    events_fini(&other);
}

static void fuzz_frame(const uint8_t *data, size_t size)
{
    static uint8_t page[LTX_PAGE_SIZE_MAX];
    const uint32_t page_size = (uint32_t)LTX_PAGE_SIZE_MIN << data[0] % 8;
    struct ltx_unpacker *u = NULL;
    struct err err;
    uint32_t pgno;
    uint64_t crc = 0;
    uint8_t *frame = malloc(size);
    CHECK(frame != NULL);
    memcpy(frame, data + 1, --size);
    must(ltx_unpacker_new(page_size, &u, &err));
    enum rc rc = ltx_unpack(u, frame, size, &pgno, page, &crc, &err);
    CHECK(rc == RC_OK || rc == RC_CORRUPT);
    if (rc == RC_OK) {
        struct ltx_header h = snapshot_header(page_size, UINT32_MAX);
        struct writer w = {0};
        struct events e = {0};
        size_t head = get_be16(frame + 4) == LTX_ENC_BLOCK ? 10 : 6;
        CHECK(size <= ltx_frame_size_max(page_size));
        h.txid_min = h.txid_max = 2;
        writer_begin(&w, &h);
        writer_frame(&w, frame, head, frame + head, size - head, page, page_size);
        CHECK(crc == crc64(0, w.hashed.data + LTX_HEADER_SIZE, w.hashed.size - LTX_HEADER_SIZE));
        writer_end(&w, 0);
        CHECK(decode(&w.file, &e) == RC_OK);
        CHECK(e.pages == 1);
        CHECK(memcmp(e.log.data + LTX_HEADER_SIZE, &pgno, 4) == 0);
        CHECK(memcmp(e.log.data + LTX_HEADER_SIZE + 4, page, page_size) == 0);
        writer_fini(&w);
        events_fini(&e);
    }
    ltx_unpacker_free(u);
    free(frame);
}

static void fuzz_pages(const uint8_t *data, size_t size)
{
    static uint8_t pages[4 * 4096];
    const uint32_t page_size = (uint32_t)LTX_PAGE_SIZE_MIN << data[0] % 4, count = data[0] / 4 % 5;
    struct ltx_header h = snapshot_header(page_size, count);
    struct buf file = BUF_INIT;
    struct events e = {0};
    for (size_t i = 0; i < count * page_size; i++)
        pages[i] = data[i % size];
    for (int encoding = LTX_ENC_FRAME; encoding <= LTX_ENC_BLOCK; encoding++) {
        encode(&h, (enum ltx_encoding)encoding, NULL, count, pages, &file);
        CHECK(decode(&file, &e) == RC_OK);
        CHECK(e.pages == count);
        for (uint32_t i = 0; i < count; i++)
            CHECK(memcmp(e.log.data + LTX_HEADER_SIZE + 4 + i * (4 + (size_t)page_size),
                         pages + i * page_size, page_size) == 0);
    }
    buf_fini(&file);
    events_fini(&e);
}

static void check_same(const struct events *a, const struct events *b)
{
    CHECK(a->log.size == b->log.size);
    CHECK(a->log.size == 0 || memcmp(a->log.data, b->log.data, a->log.size) == 0);
}
