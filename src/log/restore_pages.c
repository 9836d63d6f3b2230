/*
 * restore_pages.c -- see restore_pages.h.
 *
 *   plan (oldest .. newest)
 *     |  from the newest file back, some files at a time (a group): headers and tails, in parallel
 *     v
 *   index entries, in order -> first file to name a page wins it (one bit a page)
 *     |  neighbours become ranges; enough of them make a batch
 *     v
 *   ranges, in parallel: fetch, decode, digest, pwrite at (page number - 1) * page size
 *
 * Nothing here grows with the database but the bitmap: an index is read in chunks, the next chunk
 * while the ranges of the last one run. Memory (docs/ARCHITECTURE.md): bitmap + GROUP_BYTES for
 * small files + 2 chunks + the batch (about 1 MiB) + IN_BYTES + threads * OUT_SIZE.
 *
 * Which check holds the result together: a digest in the newest file covers each page of the
 * result, so nothing else is needed and losing pages are never fetched. Without one (Litestream
 * wrote the file) each file that adds a page is read whole and must match its own checksum; a range
 * then runs its piece of the checksum and the pieces are combined in order.
 *
 * Threads: the caller's walks indexes; thr_each runs fetches and ranges, which share only what
 * `lock` guards.
 */
#include "log/restore_pages.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/crc64.h"
#include "fmt/ltx.h"
#include "log/source.h"
#include <string.h>

#define PARALLEL_DEFAULT 8
#define PARALLEL_MAX     64
#define SMALL_SIZE       (256u << 10) /* a file up to this size is fetched in one request */
#define GROUP_BYTES      (8u << 20)   /* small files held at a time */
#define GROUP_FILES      64
#define IN_BYTES         (16u << 20) /* fetched ranges held at a time, all threads */
#define RANGE_MIN        (256u << 10)
#define RANGE_MAX        (2u << 20)
#define GAP_MAX          (64u << 10) /* cheaper to read through than to ask again */
#define OUT_SIZE         (256u << 10)
#define CHUNK_SIZE       (512u << 10) /* of an index */
#define CHUNK_CARRY      32           /* an entry cut by the chunk's end: three varints at most */
#define BATCH_PAGES      32768
#define BATCH_RANGES     4096
#define FRAME_MIN        14 /* the least bytes a page takes in a file, index entry included */
#define WRITE_BEHIND     (64u << 10) /* smaller writes are left for the system to collect */
#define PROGRESS_MS      100

struct page_ref {
    uint64_t off;
    uint32_t pgno, size;
    bool wins;
};
struct range { /* neighbouring frames of one file */
    const struct log_source *source;
    size_t index; /* of the source in the group */
    uint64_t off, end;
    uint32_t first, count;  /* into the batch's pages */
    uint64_t sum, sum_size; /* what this range adds to the file checksum */
};
struct chunk {    /* a piece of an index */
    uint8_t *mem; /* CHUNK_CARRY + CHUNK_SIZE */
    uint64_t off; /* in the file */
    size_t size;
    bool ready;
};
struct slot { /* what one thread works with */
    uint8_t *in, *out;
    struct ltx_unpacker *unpacker;
    bool busy;
};
struct pages {
    /* [const] */
    const struct log *lg;
    const struct call *c;
    const struct restore_opts *opts;
    const struct log_files *plan;
    int fd;
    unsigned threads;
    size_t range_size;
    /* [const] once the newest file is open */
    struct ltx_header last;
    uint32_t lock_page;
    uint64_t last_post; /* its post-apply checksum, 0 when not tracked */
    uint64_t wanted;    /* pages of the result that a file must provide */
    bool whole;         /* no digest: read everything */
    /* [owner] */
    uint64_t claimed;
    uint8_t *bitmap;
    struct log_source *group;
    size_t group_first, group_count; /* index of group[0] in the plan */
    uint8_t *group_mem;
    struct page_ref *refs;
    struct range *ranges;
    uint32_t ref_count, range_count;
    struct chunk chunks[2];
    struct chunk *ahead; /* the chunk to fetch beside the next batch, NULL for none */
    const struct log_source *ahead_source;
    /* [lock] */
    pthread_mutex_t lock;
    struct slot slots[PARALLEL_MAX];
    struct digest digest;
    uint64_t page_sums; /* XOR of page checksums, when the newest file tracks them */
    size_t gone;
    uint64_t bytes_total, bytes_before, bytes_group; /* before: of finished groups */
    int64_t progress_ms;
};

static void pages_fini(struct pages *p);
static enum rc pages_init(struct pages *p, struct err *err);
static enum rc pages_begin(struct pages *p, struct err *err);
static enum rc pages_end(struct pages *p, struct restore_result *ret_result, struct err *err);
static enum rc name_missing(const struct pages *p, struct err *err);
static enum rc group_run(struct pages *p, size_t end, struct err *err);
static enum rc source_open(void *ctx, uint64_t i, struct err *err);
static enum rc source_walk(struct pages *p, struct log_source *s, struct err *err);
static enum rc source_walk_chunks(struct pages *p, struct log_source *s, struct ltx_index_reader *r,
                                  size_t *ret_left, struct err *err);
static void chunk_set(struct chunk *ch, uint64_t off, uint64_t end);
static enum rc chunk_fetch(struct pages *p, const struct log_source *s, struct chunk *ch,
                           struct err *err);
static enum rc source_feed(struct pages *p, struct log_source *s, struct ltx_index_reader *r,
                           const uint8_t *data, size_t *size, struct err *err);
static enum rc take_entry(struct pages *p, struct log_source *s, const struct ltx_index_entry *e,
                          struct err *err);
static void claim(struct pages *p, uint32_t pgno, bool *ret_wins);
static enum rc batch_run(struct pages *p, struct err *err);
static enum rc batch_job(void *ctx, uint64_t i, struct err *err);
static enum rc range_run(struct pages *p, struct range *r, struct slot *slot, struct err *err);
static enum rc range_pages(struct pages *p, struct range *r, struct slot *slot, const uint8_t *in,
                           struct digest *digest, uint64_t *page_sums, struct err *err);
static enum rc run_write(const struct pages *p, uint32_t first, uint32_t count, const uint8_t *data,
                         struct err *err);
static bool all_zero(const uint8_t *data, size_t size);
static enum rc slot_take(struct pages *p, struct slot **ret_slot, struct err *err);
static void slot_give(struct pages *p, struct slot *slot);
static enum rc fetch(struct pages *p, const struct log_source *s, uint64_t off, void *dst,
                     size_t size, struct err *err);
static enum rc note_gone(struct pages *p, const struct log_source *s, enum rc rc);
static void progress(struct pages *p, uint64_t bytes, bool last);

enum rc restore_pages(const struct log *lg, const struct call *c, const struct restore_opts *opts,
                      const struct log_files *plan, int fd, struct restore_result *ret_result,
                      size_t *reterr_gone, struct err *err)
{
    struct pages p = {.lg = lg, .c = c, .opts = opts, .plan = plan, .fd = fd, .gone = plan->count};
    pthread_mutex_init(&p.lock, NULL);
    enum rc rc = pages_init(&p, err);
    for (size_t end = plan->count; rc == RC_OK && end > 0; end -= p.group_count) {
        rc = group_run(&p, end, err);
        if (p.claimed == p.wanted) break; /* older files have nothing to add */
    }
    if (rc == RC_OK) rc = pages_end(&p, ret_result, err);
    *reterr_gone = p.gone;
    pages_fini(&p);
    pthread_mutex_destroy(&p.lock);
    return rc;
}

/* ---- Start and end ---- */

static enum rc pages_init(struct pages *p, struct err *err)
{
    p->threads = p->opts->parallelism == 0 ? PARALLEL_DEFAULT : p->opts->parallelism;
    if (p->threads > PARALLEL_MAX) p->threads = PARALLEL_MAX;
    p->range_size = IN_BYTES / p->threads;
    if (p->range_size < RANGE_MIN) p->range_size = RANGE_MIN;
    if (p->range_size > RANGE_MAX) p->range_size = RANGE_MAX;
    for (size_t i = 0; i < p->plan->count; i++)
        p->bytes_total += p->plan->items[i].size;
    p->group = mem_calloc(GROUP_FILES, sizeof *p->group);
    p->group_mem = mem_alloc(GROUP_BYTES);
    p->refs = mem_alloc(BATCH_PAGES * sizeof *p->refs);
    p->ranges = mem_alloc(BATCH_RANGES * sizeof *p->ranges);
    for (int i = 0; i < 2; i++)
        p->chunks[i].mem = mem_alloc(CHUNK_CARRY + CHUNK_SIZE);
    if (p->group == NULL || p->group_mem == NULL || p->refs == NULL || p->ranges == NULL ||
        p->chunks[0].mem == NULL || p->chunks[1].mem == NULL)
        return err_mem(err, "the restore's buffers");
    return RC_OK;
}

static void pages_fini(struct pages *p)
{
    for (unsigned i = 0; i < PARALLEL_MAX; i++) {
        mem_free(p->slots[i].in);
        mem_free(p->slots[i].out);
        ltx_unpacker_free(p->slots[i].unpacker);
    }
    for (int i = 0; i < 2; i++)
        mem_free(p->chunks[i].mem);
    mem_free(p->ranges);
    mem_free(p->refs);
    mem_free(p->group_mem);
    mem_free(p->group);
    mem_free(p->bitmap);
}

/* The newest file is open: it says what the result looks like. */
static enum rc pages_begin(struct pages *p, struct err *err)
{
    const struct log_source *s = &p->group[p->group_count - 1];
    p->last = s->header;
    p->whole = !s->header.has_digest;
    if (!(s->header.flags & LTX_FLAG_NO_CHECKSUM)) p->last_post = get_be64(s->tail + 8);
    p->lock_page = ltx_lock_page(p->last.page_size);
    p->wanted = p->last.page_count;
    if (p->last.page_count >= p->lock_page) p->wanted--;
    if (p->wanted > p->bytes_total / FRAME_MIN)
        return err_set(err, RC_CORRUPT,
                       "'%s' speaks of %u pages, more than the %llu bytes of the log can hold",
                       s->key, p->last.page_count, (unsigned long long)p->bytes_total);
    p->bitmap = mem_calloc((size_t)p->last.page_count / 8 + 1, 1);
    if (p->bitmap == NULL) return err_mem(err, "one bit for each page");
    uint64_t size = (uint64_t)p->last.page_count * p->last.page_size;
    if (os_truncate(p->fd, size, err) == RC_OK) return RC_OK;
    return err_wrap(err, "'%s.tmp'", p->opts->out_path);
}

static enum rc pages_end(struct pages *p, struct restore_result *ret_result, struct err *err)
{
    char want[33], got[33];
    if (p->claimed != p->wanted) return name_missing(p, err);
    digest_hex(p->digest, got);
    digest_hex(p->last.digest, want);
    if (p->last.has_digest && !digest_equal(p->digest, p->last.digest))
        return err_set(err, RC_CORRUPT,
                       "the restored pages have digest %s, but transaction %016llx had %s", got,
                       (unsigned long long)p->last.txid_max, want);
    uint64_t post = p->page_sums | LTX_SUM_FLAG;
    if (p->last_post != 0 && p->last_post != post)
        return err_set(err, RC_CORRUPT,
                       "the restored pages have checksum %016llx, but transaction %016llx had "
                       "%016llx",
                       (unsigned long long)post, (unsigned long long)p->last.txid_max,
                       (unsigned long long)p->last_post);
    progress(p, 0, true);
    *ret_result = (struct restore_result){
        .txid = p->last.txid_max,
        .page_size = p->last.page_size,
        .page_count = p->last.page_count,
        .digest_checked = p->last.has_digest,
    };
    memcpy(ret_result->digest.hex, got, sizeof got);
    return RC_OK;
}

static enum rc name_missing(const struct pages *p, struct err *err)
{
    uint32_t pgno = 1;
    while (pgno == p->lock_page || (p->bitmap[pgno / 8] >> pgno % 8 & 1))
        pgno++;
    return err_set(err, RC_CORRUPT,
                   "page %u of %u is in none of the %zu log files up to transaction %016llx", pgno,
                   p->last.page_count, p->plan->count, (unsigned long long)p->last.txid_max);
}

/* ---- Groups and files ---- */

/* Work on as many files before plan[end] as fit. */
static enum rc group_run(struct pages *p, size_t end, struct err *err)
{
    uint64_t held = 0, bytes = 0;
    size_t first = end;
    while (first > 0 && end - first < GROUP_FILES) {
        uint64_t size = p->plan->items[first - 1].size;
        if (size <= SMALL_SIZE && held + size > GROUP_BYTES) break;
        if (size <= SMALL_SIZE) held += size;
        first--;
        bytes += size;
    }
    p->group_first = first;
    p->group_count = end - first;
    held = 0;
    for (size_t i = 0; i < p->group_count; i++) {
        struct log_source *s = &p->group[i];
        *s = (struct log_source){.file = &p->plan->items[first + i]};
        if (s->file->size > SMALL_SIZE) continue;
        s->whole = p->group_mem + held;
        held += s->file->size;
    }
    TRY(thr_each(p->threads, p->group_count, source_open, p, err));
    if (end == p->plan->count) TRY(pages_begin(p, err));
    for (size_t i = p->group_count; i > 0; i--)
        TRY(source_walk(p, &p->group[i - 1], err));
    TRY(batch_run(p, err));
    for (size_t i = 0; p->whole && i < p->group_count; i++)
        TRY(log_source_check_sum(&p->group[i], err));
    thr_lock(&p->lock);
    p->bytes_before += bytes;
    p->bytes_group = 0;
    thr_unlock(&p->lock);
    return RC_OK;
}

static enum rc source_open(void *ctx, uint64_t i, struct err *err)
{
    struct pages *p = ctx;
    struct log_source *s = &p->group[i];
    log_source_name(p->lg, s);
    enum rc rc = log_source_open(p->lg, p->c, s, err);
    if (rc != RC_OK) return note_gone(p, s, rc);
    progress(p, s->whole != NULL ? s->file->size : sizeof s->head + sizeof s->tail, false);
    return RC_OK;
}

/* Read the index from front to back and take what it names. */
static enum rc source_walk(struct pages *p, struct log_source *s, struct err *err)
{
    struct ltx_index_reader r = log_source_reader(s);
    if (s->header.page_size != p->last.page_size)
        return err_set(err, RC_CORRUPT, "'%s' has pages of %u bytes, newer files have %u", s->key,
                       s->header.page_size, p->last.page_size);
    size_t left = (size_t)s->index_size;
    if (s->whole != NULL) {
        const uint8_t *mark = s->whole + s->index_off - LOG_SOURCE_END_MARK;
        TRY(log_source_rest(s, mark, LOG_SOURCE_END_MARK + left, p->whole, err));
        TRY(source_feed(p, s, &r, mark + LOG_SOURCE_END_MARK, &left, err));
    } else {
        TRY(source_walk_chunks(p, s, &r, &left, err));
    }
    return log_source_end(s, &r, left, p->whole, err);
}

/* The same for an index that may be large. *ret_left: bytes after its end. */
static enum rc source_walk_chunks(struct pages *p, struct log_source *s, struct ltx_index_reader *r,
                                  size_t *ret_left, struct err *err)
{
    uint64_t off = s->index_off - LOG_SOURCE_END_MARK, end = s->index_off + s->index_size;
    size_t carry = 0, skip = LOG_SOURCE_END_MARK;
    struct chunk *now = &p->chunks[0], *next = &p->chunks[1];
    p->ahead_source = s;
    chunk_set(now, off, end);
    while (now->size > 0 && !r->done && carry <= CHUNK_CARRY) {
        if (!now->ready) TRY(chunk_fetch(p, s, now, err));
        chunk_set(next, now->off + now->size, end);
        p->ahead = next->size > 0 ? next : NULL;
        const uint8_t *from = now->mem + CHUNK_CARRY - carry + skip;
        const uint8_t *to = now->mem + CHUNK_CARRY + now->size;
        TRY(log_source_rest(s, now->mem + CHUNK_CARRY, now->size, p->whole, err));
        carry = (size_t)(to - from);
        TRY(source_feed(p, s, r, from, &carry, err));
        if (carry <= CHUNK_CARRY) memcpy(next->mem + CHUNK_CARRY - carry, to - carry, carry);
        skip = 0;
        struct chunk *swap = now;
        now = next;
        next = swap;
    }
    p->ahead = NULL;
    *ret_left = carry + now->size;
    return RC_OK;
}

static void chunk_set(struct chunk *ch, uint64_t off, uint64_t end)
{
    ch->ready = false;
    ch->off = off;
    ch->size = end - off < CHUNK_SIZE ? (size_t)(end - off) : CHUNK_SIZE;
}

static enum rc chunk_fetch(struct pages *p, const struct log_source *s, struct chunk *ch,
                           struct err *err)
{
    TRY(fetch(p, s, ch->off, ch->mem + CHUNK_CARRY, ch->size, err));
    ch->ready = true;
    progress(p, ch->size, false);
    return RC_OK;
}

/* *size: in, bytes at data; out, bytes left over: the piece of an entry, or what follows the end.
 */
static enum rc source_feed(struct pages *p, struct log_source *s, struct ltx_index_reader *r,
                           const uint8_t *data, size_t *size, struct err *err)
{
    size_t at = 0;
    for (bool more = true; more;) {
        struct ltx_index_entry e;
        size_t took = *size - at;
        if (ltx_index_next(r, data + at, &took, &e, &more, err) != RC_OK)
            return err_wrap(err, "'%s'", s->key);
        if (more || r->done) at += took;
        if (more) TRY(take_entry(p, s, &e, err));
    }
    *size -= at;
    return RC_OK;
}

/* ---- Which file provides a page ---- */

static enum rc take_entry(struct pages *p, struct log_source *s, const struct ltx_index_entry *e,
                          struct err *err)
{
    bool wins = false;
    TRY(log_source_entry(s, e, p->whole, err));
    claim(p, e->pgno, &wins);
    if (!wins && !p->whole) return RC_OK;
    if (p->ref_count == BATCH_PAGES || p->range_count == BATCH_RANGES) TRY(batch_run(p, err));
    struct range *r = p->range_count > 0 ? &p->ranges[p->range_count - 1] : NULL;
    if (r == NULL || r->source != s || e->off < r->end || e->off - r->end > GAP_MAX ||
        s->frames_end - r->off > p->range_size) {
        r = &p->ranges[p->range_count++];
        *r = (struct range){.source = s, .index = (size_t)(s - p->group), .off = e->off};
        r->first = p->ref_count;
    }
    p->refs[p->ref_count++] = (struct page_ref){e->off, e->pgno, (uint32_t)e->size, wins};
    r->count++;
    r->end = s->frames_end;
    return RC_OK;
}

/* The first file, from the newest on, to name a page provides it. Pages past the end of the
 * result were cut off by a later transaction. */
static void claim(struct pages *p, uint32_t pgno, bool *ret_wins)
{
    *ret_wins = false;
    if (pgno > p->last.page_count) return;
    uint8_t *byte = &p->bitmap[pgno / 8], bit = (uint8_t)(1u << pgno % 8);
    if (*byte & bit) return;
    *byte |= bit;
    p->claimed++;
    *ret_wins = true;
}

/* ---- Ranges ---- */

static enum rc batch_run(struct pages *p, struct err *err)
{
    bool ahead = p->ahead != NULL && !p->ahead->ready;
    if (p->range_count == 0) return RC_OK;
    if (!ahead) p->ahead = NULL;
    TRY(thr_each(p->threads, p->range_count + (ahead ? 1 : 0), batch_job, p, err));
    for (uint32_t i = 0; p->whole && i < p->range_count; i++) {
        struct log_source *s = &p->group[p->ranges[i].index];
        s->sum = crc64_combine(s->sum, p->ranges[i].sum, p->ranges[i].sum_size);
    }
    p->ref_count = p->range_count = 0;
    return RC_OK;
}

static enum rc batch_job(void *ctx, uint64_t i, struct err *err)
{
    struct pages *p = ctx;
    struct slot *slot;
    TRY(call_check(p->c, err));
    if (p->ahead != NULL && i == 0) return chunk_fetch(p, p->ahead_source, p->ahead, err);
    TRY(slot_take(p, &slot, err));
    enum rc rc = range_run(p, &p->ranges[p->ahead != NULL ? i - 1 : i], slot, err);
    slot_give(p, slot);
    return rc;
}

static enum rc range_run(struct pages *p, struct range *r, struct slot *slot, struct err *err)
{
    const struct log_source *s = r->source;
    const uint8_t *in;
    struct digest digest = {0};
    uint64_t page_sums = 0;
    if (s->whole != NULL) {
        in = s->whole + r->off;
    } else {
        if (slot->in == NULL) slot->in = mem_alloc(p->range_size);
        if (slot->in == NULL) return err_mem(err, "a buffer for fetched pages");
        TRY(fetch(p, s, r->off, slot->in, (size_t)(r->end - r->off), err));
        in = slot->in;
    }
    TRY(range_pages(p, r, slot, in, &digest, &page_sums, err));
    if (s->whole == NULL) progress(p, r->end - r->off, false);
    thr_lock(&p->lock);
    p->digest = digest_add(p->digest, digest);
    p->page_sums ^= page_sums;
    thr_unlock(&p->lock);
    return RC_OK;
}

/* Decode the range's pages; runs of consecutive winners go out in one write. A page of zeros is
 * what the new file holds there already. */
static enum rc range_pages(struct pages *p, struct range *r, struct slot *slot, const uint8_t *in,
                           struct digest *digest, uint64_t *page_sums, struct err *err)
{
    const uint32_t page_size = p->last.page_size;
    uint32_t run_first = 0, run_count = 0, pgno;
    uint64_t *sum = p->whole ? &r->sum : NULL;
    for (const struct page_ref *e = &p->refs[r->first], *end = e + r->count; e < end; e++) {
        const uint8_t *frame = in + (e->off - r->off);
        if ((run_count > 0 && e->wins && e->pgno != run_first + run_count) ||
            (run_count + 1) * page_size > OUT_SIZE) {
            TRY(run_write(p, run_first, run_count, slot->out, err));
            run_count = 0;
        }
        uint8_t *page = slot->out + (size_t)run_count * page_size;
        enum rc rc = ltx_unpack(slot->unpacker, frame, e->size, &pgno, page, sum, err);
        if (rc == RC_OK && pgno != e->pgno)
            rc = err_set(err, RC_CORRUPT, "it is the frame of page %u", pgno);
        if (rc != RC_OK) return err_wrap(err, "'%s': page %u", r->source->key, e->pgno);
        r->sum_size += page_size + (get_be16(frame + 4) == 0 ? 6 : 10);
        if (!e->wins) continue;
        *digest = digest_add(*digest, digest_page(pgno, page, page_size));
        if (p->last_post != 0) *page_sums ^= ltx_page_sum(pgno, page, page_size);
        if (all_zero(page, page_size)) continue;
        if (run_count == 0) run_first = pgno;
        run_count++;
    }
    return run_write(p, run_first, run_count, slot->out, err);
}

static enum rc run_write(const struct pages *p, uint32_t first, uint32_t count, const uint8_t *data,
                         struct err *err)
{
    if (count == 0) return RC_OK;
    size_t size = (size_t)count * p->last.page_size;
    uint64_t off = (uint64_t)(first - 1) * p->last.page_size;
    if (os_pwrite(p->fd, data, size, off, err) != RC_OK)
        return err_wrap(err, "'%s.tmp'", p->opts->out_path);
    if (size >= WRITE_BEHIND) os_write_behind(p->fd, off, size);
    return RC_OK;
}

static bool all_zero(const uint8_t *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* thr_each runs at most p->threads jobs at a time, so one is free. */
static enum rc slot_take(struct pages *p, struct slot **ret_slot, struct err *err)
{
    struct slot *slot = p->slots;
    thr_lock(&p->lock);
    while (slot->busy)
        slot++;
    slot->busy = true;
    thr_unlock(&p->lock);
    ASSERT(slot < p->slots + p->threads);
    enum rc rc = RC_OK;
    if (slot->out == NULL) slot->out = mem_alloc(OUT_SIZE);
    if (slot->out == NULL) rc = err_mem(err, "a buffer for pages");
    if (rc == RC_OK && slot->unpacker == NULL)
        rc = ltx_unpacker_new(p->last.page_size, &slot->unpacker, err);
    if (rc != RC_OK)
        slot_give(p, slot);
    else
        *ret_slot = slot;
    return rc;
}

static void slot_give(struct pages *p, struct slot *slot)
{
    thr_lock(&p->lock);
    slot->busy = false;
    thr_unlock(&p->lock);
}

/* ---- The store, and the caller ---- */

/* One range of a planned file. The store has tried again already as often as made sense. */
static enum rc fetch(struct pages *p, const struct log_source *s, uint64_t off, void *dst,
                     size_t size, struct err *err)
{
    return note_gone(p, s, store_read(p->lg->store, p->c, s->key, off, dst, size, err));
}

static enum rc note_gone(struct pages *p, const struct log_source *s, enum rc rc)
{
    if (rc != RC_NOT_FOUND) return rc;
    thr_lock(&p->lock);
    p->gone = (size_t)(s->file - p->plan->items);
    thr_unlock(&p->lock);
    return rc;
}

/* bytes more of this group are done. Calls of the callback never overlap. */
static void progress(struct pages *p, uint64_t bytes, bool last)
{
    int64_t now = os_mono_ms();
    if (p->opts->progress == NULL) return;
    thr_lock(&p->lock);
    p->bytes_group += bytes;
    struct restore_progress at = {p->bytes_before + p->bytes_group, p->bytes_total};
    if (last) at.bytes_done = at.bytes_total;
    if (last || now - p->progress_ms >= PROGRESS_MS) {
        p->progress_ms = now;
        p->opts->progress(p->opts->progress_ctx, &at);
    }
    thr_unlock(&p->lock);
}
