/*
 * ltx_decode.c -- the streaming LTX decoder; see ltx.h.
 *
 *   HEADER --> FRAMES --(end mark)--> INDEX --(0)--> TAIL --> REST --(no more input)--> END event
 *              ^    |
 *              +----+ PAGE event
 *
 * Bytes are looked at where the caller has them. Only a piece that the input cuts in two is put
 * together in `hold`. The index must list the frames that were seen: a checksum over what it should
 * say and one over what it says are compared, so that no list of pages has to be kept.
 */
#include "fmt/ltx.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "fmt/crc64.h"
#include "fmt/ltx_private.h"
#include <stdarg.h>
#include <stdio.h>

#define TAIL_SIZE       (8 + LTX_TRAILER_SIZE)
#define INDEX_ENTRY_MAX (3 * LTX__VARINT_MAX)

enum state { AT_HEADER, AT_FRAMES, AT_INDEX, AT_TAIL, AT_REST, STATE_COUNT };

struct ltx_decoder {
    enum state state;
    struct err failed; /* rc is RC_OK while nothing has */
    struct buf hold;
    uint64_t off; /* in the file, of the first byte that is not consumed */
    uint64_t crc; /* of all that the file checksum covers so far */
    struct ltx_header header;
    uint8_t *page;
    uint32_t last_pgno;
    struct ltx__scan scan;
    uint64_t rolling; /* XOR of page checksums, when the file tracks them */
    struct ltx_index_reader index;
    uint64_t index_off;
    uint64_t list_seen, list_told; /* checksums over the frames, and over what the index says */
    uint64_t post_sum;
};

/* What is left of the caller's bytes. */
struct feed {
    const uint8_t *p; /* never NULL */
    size_t size;
};

/* A state takes one piece. *ret_idle: it needs more bytes than there are. */
typedef enum rc state_fn(struct ltx_decoder *dec, struct feed *f, struct ltx_event *ev,
                         bool *ret_idle, struct err *err);
static state_fn take_header, take_frame, take_index, take_tail, take_rest;

static const struct {
    state_fn *take;
    const char *name;
} states[STATE_COUNT] = {
    [AT_HEADER] = {take_header, "header"}, [AT_FRAMES] = {take_frame, "page frames"},
    [AT_INDEX] = {take_index, "index"},    [AT_TAIL] = {take_tail, "trailer"},
    [AT_REST] = {take_rest, "end"},
};

static enum rc peek(struct ltx_decoder *dec, struct feed *f, size_t want, const uint8_t **ret_p,
                    struct err *err);
static void consume(struct ltx_decoder *dec, struct feed *f, size_t size);
static enum rc corrupt(const struct ltx_decoder *dec, struct err *err, const char *fmt, ...)
    FMT(3, 4);
static enum rc page_check(const struct ltx_decoder *dec, uint32_t pgno, struct err *err);
static enum rc end_mark(struct ltx_decoder *dec, struct err *err);
static enum rc sums_check(const struct ltx_decoder *dec, uint64_t file_sum, struct err *err);
static uint32_t page_after(uint32_t page_size, uint32_t pgno);
static uint64_t list_add(uint64_t list, uint32_t pgno, uint64_t off, uint64_t size);

enum rc ltx_decoder_new(struct ltx_decoder **ret_dec, struct err *err)
{
    struct ltx_decoder *dec = mem_calloc(1, sizeof *dec);
    if (dec == NULL) return err_mem(err, "an LTX decoder");
    *ret_dec = dec;
    return RC_OK;
}

void ltx_decoder_free(struct ltx_decoder *dec)
{
    if (dec == NULL) return;
    buf_fini(&dec->hold);
    mem_free(dec->page);
    mem_free(dec);
}

enum rc ltx_decoder_step(struct ltx_decoder *dec, const void *in, size_t *size,
                         struct ltx_event *ret_ev, struct err *err)
{
    struct feed f = {in != NULL ? in : "", *size};
    struct ltx_event ev = {.kind = LTX_EV_MORE};
    bool idle = false;
    if (dec->failed.rc != RC_OK) {
        *err = dec->failed;
        return err->rc;
    }
    enum rc rc = RC_OK;
    while (rc == RC_OK && ev.kind == LTX_EV_MORE && !idle)
        rc = states[dec->state].take(dec, &f, &ev, &idle, err);
    if (rc == RC_OK && *size == 0 && ev.kind == LTX_EV_MORE) {
        if (dec->state == AT_REST)
            ev = (struct ltx_event){LTX_EV_END, .post_sum = dec->post_sum};
        else
            rc = corrupt(dec, err, "the file ends in its %s", states[dec->state].name);
    }
    if (rc != RC_OK) {
        dec->failed = *err;
        return rc;
    }
    *size -= f.size;
    *ret_ev = ev;
    return RC_OK;
}

static enum rc take_header(struct ltx_decoder *dec, struct feed *f, struct ltx_event *ev,
                           bool *ret_idle, struct err *err)
{
    const uint8_t *p;
    TRY(peek(dec, f, LTX_HEADER_SIZE, &p, err));
    if (p == NULL) return *ret_idle = true, RC_OK;
    if (ltx_header_get(p, &dec->header, err) != RC_OK) return err_wrap(err, "LTX byte 0");
    dec->page = mem_alloc(dec->header.page_size);
    if (dec->page == NULL) return err_mem(err, "an LTX page");
    dec->crc = crc64(0, p, LTX_HEADER_SIZE);
    consume(dec, f, LTX_HEADER_SIZE);
    dec->state = AT_FRAMES;
    *ev = (struct ltx_event){LTX_EV_HEADER, .header = dec->header};
    return RC_OK;
}

static enum rc take_frame(struct ltx_decoder *dec, struct feed *f, struct ltx_event *ev,
                          bool *ret_idle, struct err *err)
{
    const uint8_t *p;
    const uint32_t page_size = dec->header.page_size;
    TRY(peek(dec, f, LTX__PAGE_HEADER_SIZE, &p, err));
    if (p == NULL) return *ret_idle = true, RC_OK;
    uint32_t pgno = get_be32(p);
    if (pgno == 0 && get_be16(p + 4) == 0) {
        TRY(end_mark(dec, err));
        dec->crc = crc64(dec->crc, p, LTX__PAGE_HEADER_SIZE);
        consume(dec, f, LTX__PAGE_HEADER_SIZE);
        return RC_OK;
    }
    if (dec->scan.at == 0) TRY(page_check(dec, pgno, err));
    for (size_t want = LTX__PAGE_HEADER_SIZE; !dec->scan.done;) {
        size_t size = dec->hold.size > 0 ? dec->hold.size : f->size;
        const char *bad = ltx__scan_step(&dec->scan, page_size, p, size, &want);
        if (bad != NULL) return corrupt(dec, err, "the frame of page %u %s", pgno, bad);
        if (dec->scan.done) want = dec->scan.at;
        TRY(peek(dec, f, want, &p, err));
        if (p == NULL) return *ret_idle = true, RC_OK;
    }
    TRY(peek(dec, f, dec->scan.at, &p, err));
    if (p == NULL) return *ret_idle = true, RC_OK;

    const size_t size = dec->scan.at;
    const char *bad = ltx__unpack(page_size, p, size, dec->page);
    if (bad != NULL) return corrupt(dec, err, "the frame of page %u %s", pgno, bad);
    size_t head = LTX__PAGE_HEADER_SIZE;
    if (get_be16(p + 4) == LTX_ENC_BLOCK) head += LTX__BLOCK_SIZE_SIZE;
    dec->crc = crc64(crc64(dec->crc, p, head), dec->page, page_size);
    if ((dec->header.flags & LTX_FLAG_NO_CHECKSUM) == 0 && dec->header.txid_min == 1)
        dec->rolling ^= ltx_page_sum(pgno, dec->page, page_size);
    dec->list_seen = list_add(dec->list_seen, pgno, dec->off, size);
    dec->last_pgno = pgno;
    dec->scan = (struct ltx__scan){0};
    consume(dec, f, size);
    *ev = (struct ltx_event){LTX_EV_PAGE, .page = {.pgno = pgno, .data = dec->page}};
    return RC_OK;
}

static enum rc take_index(struct ltx_decoder *dec, struct feed *f, struct ltx_event *ev,
                          bool *ret_idle, struct err *err)
{
    (void)ev;
    struct ltx_index_entry e;
    bool more;
    const uint8_t *p = f->p;
    size_t have = f->size, took = have;
    if (dec->hold.size > 0) {
        /* An entry began in the last input: complete it byte by byte. */
        have = dec->hold.size + 1;
        TRY(peek(dec, f, have, &p, err));
        if (p == NULL) return *ret_idle = true, RC_OK;
        took = have;
    }
    if (have == 0) return *ret_idle = true, RC_OK;
    if (ltx_index_next(&dec->index, p, &took, &e, &more, err) != RC_OK)
        return err_wrap(err, "LTX byte %llu", (unsigned long long)dec->off);
    if (took == 0) {
        ASSERT(have < INDEX_ENTRY_MAX);
        if (dec->hold.size == 0) TRY(peek(dec, f, have + 1, &p, err));
        return RC_OK;
    }
    if (more)
        dec->list_told = list_add(dec->list_told, e.pgno, e.off, e.size);
    else if (dec->list_told != dec->list_seen)
        return corrupt(dec, err, "the index does not list the pages that are in the file");
    else
        dec->state = AT_TAIL;
    dec->crc = crc64(dec->crc, p, took);
    consume(dec, f, took);
    return RC_OK;
}

static enum rc take_tail(struct ltx_decoder *dec, struct feed *f, struct ltx_event *ev,
                         bool *ret_idle, struct err *err)
{
    (void)ev;
    const uint8_t *p;
    TRY(peek(dec, f, TAIL_SIZE, &p, err));
    if (p == NULL) return *ret_idle = true, RC_OK;
    uint64_t told = get_be64(p), size = dec->off - dec->index_off;
    if (told != size)
        return corrupt(dec, err, "the index has %llu bytes and claims %llu",
                       (unsigned long long)size, (unsigned long long)told);
    dec->crc = crc64(dec->crc, p, 16);
    dec->post_sum = get_be64(p + 8);
    TRY(sums_check(dec, get_be64(p + 16), err));
    consume(dec, f, TAIL_SIZE);
    dec->state = AT_REST;
    return RC_OK;
}

static enum rc take_rest(struct ltx_decoder *dec, struct feed *f, struct ltx_event *ev,
                         bool *ret_idle, struct err *err)
{
    (void)ev;
    if (f->size > 0) return corrupt(dec, err, "something follows the trailer");
    *ret_idle = true;
    return RC_OK;
}

/* Look at the next `want` bytes, or NULL when there are fewer; those there are then wait in hold.
 */
static enum rc peek(struct ltx_decoder *dec, struct feed *f, size_t want, const uint8_t **ret_p,
                    struct err *err)
{
    if (dec->hold.size == 0 && f->size >= want) {
        *ret_p = f->p;
        return RC_OK;
    }
    if (dec->hold.size < want) {
        size_t n = want - dec->hold.size;
        if (n > f->size) n = f->size;
        TRY(buf_reserve(&dec->hold, want - dec->hold.size, err));
        TRY(buf_append(&dec->hold, f->p, n, err));
        f->p += n;
        f->size -= n;
    }
    *ret_p = dec->hold.size >= want ? dec->hold.data : NULL;
    return RC_OK;
}

/* Be done with the bytes that peek showed. */
static void consume(struct ltx_decoder *dec, struct feed *f, size_t size)
{
    if (dec->hold.size > 0) {
        ASSERT(dec->hold.size == size);
        buf_reset(&dec->hold);
    } else {
        f->p += size;
        f->size -= size;
    }
    dec->off += size;
}

static enum rc corrupt(const struct ltx_decoder *dec, struct err *err, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(err, RC_CORRUPT, "LTX byte %llu: %s", (unsigned long long)dec->off, text);
}

static enum rc page_check(const struct ltx_decoder *dec, uint32_t pgno, struct err *err)
{
    const struct ltx_header *h = &dec->header;
    if (pgno <= dec->last_pgno)
        return corrupt(dec, err, "page %u after page %u", pgno, dec->last_pgno);
    if (pgno > h->page_count)
        return corrupt(dec, err, "page %u in a database of %u pages", pgno, h->page_count);
    if (h->txid_min == 1 && pgno != page_after(h->page_size, dec->last_pgno))
        return corrupt(dec, err, "the snapshot jumps from page %u to %u", dec->last_pgno, pgno);
    return RC_OK;
}

static enum rc end_mark(struct ltx_decoder *dec, struct err *err)
{
    const struct ltx_header *h = &dec->header;
    if (h->txid_min == 1 && page_after(h->page_size, dec->last_pgno) <= h->page_count)
        return corrupt(dec, err, "the snapshot ends at page %u of %u", dec->last_pgno,
                       h->page_count);
    dec->index = (struct ltx_index_reader){.frames_end = dec->off, .page_count = h->page_count};
    dec->index_off = dec->off + LTX__PAGE_HEADER_SIZE;
    dec->state = AT_INDEX;
    return RC_OK;
}

static enum rc sums_check(const struct ltx_decoder *dec, uint64_t file_sum, struct err *err)
{
    const struct ltx_header *h = &dec->header;
    if (file_sum != (LTX_SUM_FLAG | dec->crc))
        return corrupt(dec, err, "the file checksum is %016llx, its content gives %016llx",
                       (unsigned long long)file_sum, (unsigned long long)(LTX_SUM_FLAG | dec->crc));
    if ((h->flags & LTX_FLAG_NO_CHECKSUM) != 0) {
        if (dec->post_sum != 0) return corrupt(dec, err, "unexpected post-apply checksum");
        return RC_OK;
    }
    if ((dec->post_sum & LTX_SUM_FLAG) == 0)
        return corrupt(dec, err, "the post-apply checksum is missing its flag bit");
    if ((h->txid_min == 1 || h->page_count == 0) && dec->post_sum != (LTX_SUM_FLAG | dec->rolling))
        return corrupt(dec, err, "the post-apply checksum is %016llx, the pages give %016llx",
                       (unsigned long long)dec->post_sum,
                       (unsigned long long)(LTX_SUM_FLAG | dec->rolling));
    return RC_OK;
}

static uint32_t page_after(uint32_t page_size, uint32_t pgno)
{
    return pgno + 1 + (pgno + 1 == ltx_lock_page(page_size));
}

static uint64_t list_add(uint64_t list, uint32_t pgno, uint64_t off, uint64_t size)
{
    uint8_t entry[20];
    put_be32(entry, pgno);
    put_be64(entry + 4, off);
    put_be64(entry + 12, size);
    return crc64(list, entry, sizeof entry);
}
