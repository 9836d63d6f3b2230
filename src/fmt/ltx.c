/* ltx.c -- LTX headers, checksums and the page index; see ltx.h and docs/formats/ltx.md. */
#include "fmt/ltx.h"
#include "base/bytes.h"
#include "fmt/crc64.h"
#include "fmt/ltx_private.h"

#define MAGIC        0x4C545831u /* "LTX1" */
#define DIGEST_TAG   0x534C4431u /* "SLD1" */
#define RESERVED_OFF 80
#define LOCK_OFF     0x40000000u /* where SQLite puts its lock bytes */

enum varint_state { VARINT_OK, VARINT_SHORT, VARINT_BAD };
static enum varint_state varint_get(const uint8_t **p, const uint8_t *end, uint64_t *ret_v);
static enum rc entry_check(const struct ltx_index_reader *r, const uint64_t v[3], struct err *err);

uint32_t ltx_lock_page(uint32_t page_size)
{
    return LOCK_OFF / page_size + 1;
}

bool ltx_page_size_ok(uint32_t page_size)
{
    return page_size >= LTX_PAGE_SIZE_MIN && page_size <= LTX_PAGE_SIZE_MAX &&
           (page_size & (page_size - 1)) == 0;
}

uint64_t ltx_page_sum(uint32_t pgno, const void *page, uint32_t page_size)
{
    uint8_t number[4];
    put_be32(number, pgno);
    return LTX_SUM_FLAG | crc64(crc64(0, number, sizeof number), page, page_size);
}

enum rc ltx_header_check(const struct ltx_header *h, struct err *err)
{
    bool tracked = (h->flags & LTX_FLAG_NO_CHECKSUM) == 0;
    if ((h->flags & ~LTX_FLAG_NO_CHECKSUM) != 0)
        return err_set(err, RC_INVALID, "LTX header: unknown flags 0x%x", h->flags);
    if (!ltx_page_size_ok(h->page_size))
        return err_set(err, RC_INVALID, "LTX header: page size %u is not legal", h->page_size);
    if (h->txid_min < 1 || h->txid_max < h->txid_min)
        return err_set(err, RC_INVALID, "LTX header: transaction IDs %llu to %llu are no range",
                       (unsigned long long)h->txid_min, (unsigned long long)h->txid_max);
    if (h->wal_off < 0 || h->wal_size < 0)
        return err_set(err, RC_INVALID, "LTX header: WAL offset %lld or size %lld is negative",
                       (long long)h->wal_off, (long long)h->wal_size);
    if (h->wal_off == 0 && (h->wal_salt1 != 0 || h->wal_salt2 != 0 || h->wal_size != 0))
        return err_set(err, RC_INVALID, "LTX header: WAL size or salts without a WAL offset");
    if (h->txid_min == 1 || !tracked) {
        if (h->pre_sum != 0)
            return err_set(err, RC_INVALID, "LTX header: unexpected pre-apply checksum");
    } else if ((h->pre_sum & LTX_SUM_FLAG) == 0) {
        return err_set(err, RC_INVALID, "LTX header: pre-apply checksum is missing its flag bit");
    }
    return RC_OK;
}

void ltx_header_put(const struct ltx_header *h, uint8_t out[LTX_HEADER_SIZE])
{
    memset(out, 0, LTX_HEADER_SIZE);
    put_be32(out, MAGIC);
    put_be32(out + 4, h->flags);
    put_be32(out + 8, h->page_size);
    put_be32(out + 12, h->page_count);
    put_be64(out + 16, h->txid_min);
    put_be64(out + 24, h->txid_max);
    put_be64(out + 32, (uint64_t)h->timestamp_ms);
    put_be64(out + 40, h->pre_sum);
    put_be64(out + 48, (uint64_t)h->wal_off);
    put_be64(out + 56, (uint64_t)h->wal_size);
    put_be32(out + 64, h->wal_salt1);
    put_be32(out + 68, h->wal_salt2);
    put_be64(out + 72, h->node_id);
    if (h->has_digest) {
        put_be32(out + RESERVED_OFF, DIGEST_TAG);
        digest_put(h->digest, out + RESERVED_OFF + 4);
    }
}

enum rc ltx_header_get(const uint8_t in[LTX_HEADER_SIZE], struct ltx_header *ret_h, struct err *err)
{
    if (get_be32(in) != MAGIC)
        return err_set(err, RC_CORRUPT, "LTX header: magic 0x%08x is not \"LTX1\"", get_be32(in));
    struct ltx_header h = {
        .flags = get_be32(in + 4),
        .page_size = get_be32(in + 8),
        .page_count = get_be32(in + 12),
        .txid_min = get_be64(in + 16),
        .txid_max = get_be64(in + 24),
        .timestamp_ms = (int64_t)get_be64(in + 32),
        .pre_sum = get_be64(in + 40),
        .wal_off = (int64_t)get_be64(in + 48),
        .wal_size = (int64_t)get_be64(in + 56),
        .wal_salt1 = get_be32(in + 64),
        .wal_salt2 = get_be32(in + 68),
        .node_id = get_be64(in + 72),
        .has_digest = get_be32(in + RESERVED_OFF) == DIGEST_TAG,
    };
    if (h.has_digest) h.digest = digest_get(in + RESERVED_OFF + 4);
    if (ltx_header_check(&h, err) != RC_OK) return err->rc = RC_CORRUPT;
    *ret_h = h;
    return RC_OK;
}

enum rc ltx_index_locate(const uint8_t tail[8 + LTX_TRAILER_SIZE], uint64_t file_size,
                         uint64_t *ret_off, uint64_t *ret_size, struct err *err)
{
    const uint64_t before = LTX_HEADER_SIZE + LTX__PAGE_HEADER_SIZE, after = 8 + LTX_TRAILER_SIZE;
    uint64_t size = get_be64(tail);
    if (file_size < before + 1 + after)
        return err_set(err, RC_CORRUPT, "LTX file of %llu bytes is too small",
                       (unsigned long long)file_size);
    if (size < 1 || size > file_size - before - after)
        return err_set(err, RC_CORRUPT, "LTX file of %llu bytes claims an index of %llu",
                       (unsigned long long)file_size, (unsigned long long)size);
    *ret_off = file_size - after - size;
    *ret_size = size;
    return RC_OK;
}

enum rc ltx_index_next(struct ltx_index_reader *r, const uint8_t *in, size_t *size,
                       struct ltx_index_entry *ret_e, bool *ret_more, struct err *err)
{
    if (*size == 0) return *ret_more = false, RC_OK;
    const uint8_t *p = in, *end = in + *size;
    uint64_t v[3] = {0};
    for (int i = 0; i < 3 && !r->done; i++) {
        switch (varint_get(&p, end, &v[i])) {
        case VARINT_OK:
            break;
        case VARINT_SHORT:
            *size = 0;
            return *ret_more = false, RC_OK;
        case VARINT_BAD:
            return err_set(err, RC_CORRUPT, "LTX index: a varint exceeds 64 bits");
        }
        if (i == 0 && v[0] == 0) r->done = true;
    }
    if (!r->done) {
        TRY(entry_check(r, v, err));
        *ret_e = (struct ltx_index_entry){.pgno = (uint32_t)v[0], .off = v[1], .size = v[2]};
        r->last_pgno = (uint32_t)v[0];
        r->last_end = v[1] + v[2];
    }
    *size = (size_t)(p - in);
    *ret_more = !r->done;
    return RC_OK;
}

size_t ltx__varint_put(uint64_t v, uint8_t out[LTX__VARINT_MAX])
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)v;
    return n;
}

/* As lenient as Go's reader (zero groups at the end are fine) and as strict (64 bits, 10 bytes). */
static enum varint_state varint_get(const uint8_t **p, const uint8_t *end, uint64_t *ret_v)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < LTX__VARINT_MAX; i++) {
        if (*p + i == end) return VARINT_SHORT;
        uint8_t b = (*p)[i];
        if (i == LTX__VARINT_MAX - 1 && b > 1) return VARINT_BAD;
        v |= (uint64_t)(b & 0x7F) << (7 * i);
        if (b < 0x80) {
            *p += i + 1;
            *ret_v = v;
            return VARINT_OK;
        }
    }
    return VARINT_BAD;
}

static enum rc entry_check(const struct ltx_index_reader *r, const uint64_t v[3], struct err *err)
{
    unsigned long long pgno = v[0], off = v[1], size = v[2];
    uint64_t end, from = r->last_end == 0 ? LTX_HEADER_SIZE : r->last_end;
    if (pgno > UINT32_MAX || (r->page_count != 0 && pgno > r->page_count))
        return err_set(err, RC_CORRUPT, "LTX index: no page %llu can be here", pgno);
    if (pgno <= r->last_pgno)
        return err_set(err, RC_CORRUPT, "LTX index: page %llu after page %u", pgno, r->last_pgno);
    if (off < from || size <= LTX__PAGE_HEADER_SIZE || __builtin_add_overflow(off, size, &end) ||
        (r->frames_end != 0 && end > r->frames_end))
        return err_set(err, RC_CORRUPT, "LTX index: page %llu cannot be at %llu, size %llu", pgno,
                       off, size);
    return RC_OK;
}
