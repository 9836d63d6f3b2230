/* source.c -- see source.h. */
#include "log/source.h"
#include "base/bytes.h"
#include "fmt/crc64.h"
#include <string.h>

static enum rc parse(struct log_source *s, struct err *err);

void log_source_name(const struct log *lg, struct log_source *s)
{
    const struct log_file *f = s->file;
    log_key(lg, f->level, f->txid_min, f->txid_max, s->key);
}

enum rc log_source_open(const struct log *lg, const struct call *c, struct log_source *s,
                        struct err *err)
{
    const uint64_t size = s->file->size;
    if (size < sizeof s->head + LTX_TRAILER_SIZE)
        return err_set(err, RC_CORRUPT, "'%s' was cut off at %llu bytes", s->key,
                       (unsigned long long)size);
    if (s->whole != NULL) {
        TRY(store_read(lg->store, c, s->key, 0, s->whole, (size_t)size, err));
        memcpy(s->head, s->whole, sizeof s->head);
        memcpy(s->tail, s->whole + size - sizeof s->tail, sizeof s->tail);
    } else {
        TRY(store_read(lg->store, c, s->key, 0, s->head, sizeof s->head, err));
        TRY(store_read(lg->store, c, s->key, size - sizeof s->tail, s->tail, sizeof s->tail, err));
    }
    return parse(s, err) == RC_OK ? RC_OK : err_wrap(err, "'%s'", s->key);
}

struct ltx_index_reader log_source_reader(const struct log_source *s)
{
    return (struct ltx_index_reader){.frames_end = s->index_off - LOG_SOURCE_END_MARK,
                                     .page_count = s->header.page_count};
}

enum rc log_source_entry(struct log_source *s, const struct ltx_index_entry *e, bool dense,
                         struct err *err)
{
    const uint32_t page_size = s->header.page_size;
    if (e->size > ltx_frame_size_max(page_size))
        return err_set(err, RC_CORRUPT, "'%s': the frame of page %u has %llu bytes", s->key,
                       e->pgno, (unsigned long long)e->size);
    if (dense && e->off != s->frames_end)
        return err_set(err, RC_CORRUPT, "'%s': the frame of page %u begins at %llu, not %llu",
                       s->key, e->pgno, (unsigned long long)e->off,
                       (unsigned long long)s->frames_end);
    if (e->pgno == ltx_lock_page(page_size) || e->pgno > s->header.page_count)
        return err_set(err, RC_CORRUPT, "'%s' holds page %u, which cannot be", s->key, e->pgno);
    s->frames_end = e->off + e->size;
    return RC_OK;
}

enum rc log_source_rest(struct log_source *s, const uint8_t *data, size_t size, bool sum,
                        struct err *err)
{
    static const uint8_t mark[LOG_SOURCE_END_MARK];
    if (s->rest_size == 0 && memcmp(data, mark, sizeof mark) != 0)
        return err_set(err, RC_CORRUPT, "'%s': no end mark behind the page frames", s->key);
    if (sum) s->rest_sum = crc64(s->rest_sum, data, size);
    s->rest_size += size;
    return RC_OK;
}

enum rc log_source_end(struct log_source *s, const struct ltx_index_reader *r, uint64_t left,
                       bool sum, struct err *err)
{
    if (!r->done || left > 0)
        return err_set(err, RC_CORRUPT, "'%s': its page index does not end where it should",
                       s->key);
    return log_source_rest(s, s->tail, 8 + 8, sum, err);
}

enum rc log_source_check_sum(const struct log_source *s, struct err *err)
{
    uint64_t want = get_be64(s->tail + 16);
    uint64_t got = crc64_combine(s->sum, s->rest_sum, s->rest_size) | LTX_SUM_FLAG;
    if (s->frames_end != s->index_off - LOG_SOURCE_END_MARK)
        return err_set(err, RC_CORRUPT, "'%s': its index misses frames at the end", s->key);
    if (got == want) return RC_OK;
    return err_set(err, RC_CORRUPT, "'%s': file checksum is %016llx, its content has %016llx",
                   s->key, (unsigned long long)want, (unsigned long long)got);
}

static enum rc parse(struct log_source *s, struct err *err)
{
    const struct ltx_header *h = &s->header;
    TRY(ltx_header_get(s->head, &s->header, err));
    if (h->txid_min != s->file->txid_min || h->txid_max != s->file->txid_max)
        return err_set(err, RC_CORRUPT, "its header says transactions %016llx to %016llx",
                       (unsigned long long)h->txid_min, (unsigned long long)h->txid_max);
    TRY(ltx_index_locate(s->tail, s->file->size, &s->index_off, &s->index_size, err));
    if (s->index_off < LTX_HEADER_SIZE + LOG_SOURCE_END_MARK)
        return err_set(err, RC_CORRUPT, "its page index begins inside the header");
    s->frames_end = LTX_HEADER_SIZE;
    s->sum = crc64(0, s->head, sizeof s->head);
    return RC_OK;
}
