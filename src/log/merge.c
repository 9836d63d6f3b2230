/*
 * merge.c -- see compact.h.
 *
 *   sources, oldest .. newest           each: an index, read in chunks, and a cursor in it
 *     |  a heap by page number, newest first: the first to name a page wins it
 *     v
 *   a batch of places of pages          neighbours of one source become ranges
 *     |  ranges, in parallel: fetch, unpack, checksum
 *     v
 *   frames of the winners, in order  -> the body of one put, pulled by the store
 *                                       header | frames | end mark | index | trailer
 *
 * A page is hashed once: its checksum is appended to that of its source and to that of the new file
 * (crc64_combine). So the header, which is known first, is sent first, and whether the sources were
 * sound is known before the last bytes are: a body that fails leaves no object.
 *
 * Small sources are held whole, smallest first, up to HELD_BYTES; of the others there is a chunk of
 * the index, and what the current batch takes.
 *
 * Threads: the store's, which pulls, walks indexes; thr_each runs openings and ranges, which share
 * only what `lock` guards.
 */
#include "log/compact.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/crc64.h"
#include "log/restore.h"
#include "log/source.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define PARALLEL_DEFAULT 4
#define PARALLEL_MAX     64
#define HELD_BYTES       (16u << 20)
#define CHUNKS_BYTES     (8u << 20) /* of all indexes that are read in chunks */
#define CHUNK_MIN        (2u << 10)
#define CHUNK_MAX        (256u << 10)
#define ARENA_SIZE       (8u << 20) /* fetched for one batch */
#define BATCH_REFS       16384
#define BATCH_RANGES     4096
#define RANGE_MAX        (1u << 20)
#define GAP_MAX          (64u << 10) /* cheaper to read through than to ask again */
#define INDEX_MAX        (1u << 20)
#define REPLANS_MAX      10
#define NO_RANGE         UINT32_MAX

_Static_assert(COMPACT_FILES_MAX *CHUNK_MIN <= CHUNKS_BYTES, "each source gets a chunk");

struct input {
    struct log_source src;
    struct ltx_index_reader reader;
    struct ltx_index_entry entry; /* the next one to be taken */
    uint8_t *chunk;               /* of the index; NULL when the source is held whole */
    const uint8_t *at;            /* index bytes that are in memory and not yet understood */
    size_t left;
    uint64_t next_off; /* in the file, of the index bytes that are not in memory yet */
    uint32_t range;    /* the last one in this batch, or NO_RANGE */
    bool whole;        /* it is read whole, and its checksum verified */
};
struct ref { /* a page that is read */
    const uint8_t *frame;
    uint64_t off, sum; /* sum: of the bytes that a file checksum covers, alone */
    uint32_t pgno, size;
    uint32_t input;
    uint32_t next; /* of the same range, or NO_RANGE */
    bool wins;
};
struct range { /* neighbouring frames of one source */
    uint32_t input, first, last;
    uint64_t off, end;
    uint8_t *mem; /* NULL when the source is held whole */
};
enum stage { ST_HEADER, ST_PAGES, ST_END_MARK, ST_SPILLED, ST_INDEX, ST_TRAILER, ST_DONE };
struct merge {
    /* [const] */
    const struct log *lg;
    const struct call *c;
    const struct log_files *files;
    const struct compact_opts *opts;
    unsigned threads;
    /* [const] once all sources are open */
    const struct log_source *last; /* the newest: it says what the result is */
    struct ltx_header header;      /* of the new file */
    uint64_t last_post;            /* post-apply checksum of a snapshot, 0 when not tracked */
    bool by_digest;                /* it covers all pages of a snapshot: losers are not even read */
    size_t chunk_size;
    /* [owner] */
    struct input *inputs;
    uint8_t *held, *chunks, *arena;
    uint32_t *heap;
    uint32_t heap_count;
    struct ref *refs;
    struct range *ranges;
    uint32_t ref_count, range_count;
    size_t arena_used;
    uint32_t last_pgno;
    uint32_t next_win, missing; /* the page that a snapshot must have next, and one it has not */
    uint64_t pages;
    struct ltx_encoder *encoder;
    struct buf index, frames; /* frames: the end mark only */
    int spill_fd;
    uint64_t spilled, spill_read;
    uint8_t head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    enum stage stage; /* what comes after the current piece */
    uint32_t emit;    /* next ref to send */
    const uint8_t *piece;
    size_t piece_left;
    uint64_t sent;
    /* [lock] */
    pthread_mutex_t lock;
    struct digest digest;
    uint64_t page_sums;
    size_t gone;
};

static enum rc check_run(const struct log_files *files, uint32_t level, struct err *err);
static void merge_fini(struct merge *m);
static enum rc merge_open(struct merge *m, struct err *err);
static enum rc place_sources(struct merge *m, struct err *err);
static int size_order(const void *a, const void *b);
static enum rc input_open(void *ctx, uint64_t i, struct err *err);
static enum rc merge_begin(struct merge *m, struct err *err);
static enum rc merge_put(struct merge *m, struct compact_result *ret_result, struct err *err);
static enum rc same_there(struct merge *m, const char *key, struct err *err);
static enum rc ignore_bytes(void *ctx, const void *data, size_t size, struct err *err);
static enum rc merge_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err);
static enum rc next_piece(struct merge *m, struct err *err);
static enum rc next_page(struct merge *m, struct err *err);
static enum rc next_spilled(struct merge *m, struct err *err);
static enum rc batch_load(struct merge *m, struct err *err);
static enum rc batch_fill(struct merge *m, struct err *err);
static bool batch_take(struct merge *m, uint32_t i, bool wins);
static void count_win(struct merge *m, uint32_t pgno);
static enum rc range_run(void *ctx, uint64_t i, struct err *err);
static enum rc range_pages(struct merge *m, const struct range *r, struct err *err);
static enum rc batch_seal(struct merge *m, struct err *err);
static enum rc index_spill(struct merge *m, struct err *err);
static enum rc open_nameless(const struct merge *m, int *ret_fd, struct err *err);
static enum rc merge_finish(struct merge *m, struct err *err);
static enum rc input_next(struct merge *m, struct input *in, bool *ret_more, struct err *err);
static enum rc input_refill(struct merge *m, struct input *in, struct err *err);
static bool before(const struct merge *m, uint32_t a, uint32_t b);
static void heap_down(struct merge *m, uint32_t at);
static void unpacker_freep(struct ltx_unpacker **u);
static enum rc note_gone(struct merge *m, const struct input *in, enum rc rc);

enum rc compact_run(const struct log *lg, const struct call *c, const struct log_files *sources,
                    const struct compact_opts *opts, struct compact_result *ret_result,
                    size_t *reterr_gone, struct err *err)
{
    struct merge m = {.lg = lg, .c = c, .files = sources, .opts = opts, .spill_fd = -1};
    m.gone = *reterr_gone = sources->count;
    TRY(check_run(sources, opts->level, err));
    pthread_mutex_init(&m.lock, NULL);
    enum rc rc = merge_open(&m, err);
    if (rc == RC_OK) rc = merge_begin(&m, err);
    if (rc == RC_OK) rc = merge_put(&m, ret_result, err);
    *reterr_gone = m.gone;
    merge_fini(&m);
    pthread_mutex_destroy(&m.lock);
    return rc;
}

enum rc compact_snapshot(const struct log *lg, const struct call *c, uint64_t txid,
                         const struct compact_opts *opts, struct compact_result *ret_result,
                         struct err *err)
{
    const struct plan_target target = {.kind = txid == 0 ? PLAN_LATEST : PLAN_TXID, .txid = txid};
    struct compact_opts whole = *opts;
    whole.level = LOG_LEVEL_SNAPSHOT;
    for (uint32_t replans = 0;; replans++) {
        CLEANUP(log_files_fini) struct log_files plan = {0};
        struct compact_result result = {0};
        size_t gone;
        TRY(restore_plan(lg, c, &target, &plan, err));
        if (plan.count == 1 && plan.items[0].level == LOG_LEVEL_SNAPSHOT) {
            *ret_result = (struct compact_result){.file = plan.items[0], .existed = true};
            return RC_OK;
        }
        enum rc rc = compact_run(lg, c, &plan, &whole, &result, &gone, err);
        result.replans = replans;
        if (rc == RC_OK) *ret_result = result;
        if (rc != RC_NOT_FOUND || gone == plan.count) return rc;
        if (replans == REPLANS_MAX) return err_wrap(err, "gave up after %d new plans", REPLANS_MAX);
    }
}

static enum rc check_run(const struct log_files *files, uint32_t level, struct err *err)
{
    if (level < 1 || level > LOG_LEVEL_SNAPSHOT || files->count == 0)
        return err_set(err, RC_INVALID, "nothing can be merged into level %u from %zu files", level,
                       files->count);
    if (files->count > COMPACT_FILES_MAX)
        return err_set(err, RC_TOO_BIG, "%zu files cannot be merged at once, only %d", files->count,
                       COMPACT_FILES_MAX);
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i], *prev = i > 0 ? f - 1 : NULL;
        bool fits = f->txid_min >= 1 && f->txid_min <= f->txid_max && f->level < LOG_LEVEL_COUNT;
        if (level < LOG_LEVEL_SNAPSHOT) fits &= f->level < level;
        if (level == LOG_LEVEL_SNAPSHOT && prev == NULL) fits &= f->txid_min == 1;
        if (prev != NULL) fits &= f->txid_min - 1 <= prev->txid_max && f->txid_max > prev->txid_max;
        if (!fits)
            return err_set(err, RC_INVALID,
                           "the file of transactions %016llx to %016llx, level %u, does not fit "
                           "into a run for level %u",
                           (unsigned long long)f->txid_min, (unsigned long long)f->txid_max,
                           f->level, level);
    }
    return RC_OK;
}

/* ---- Start ---- */

static void merge_fini(struct merge *m)
{
    ltx_encoder_free(m->encoder);
    buf_fini(&m->index);
    buf_fini(&m->frames);
    os_closep(&m->spill_fd);
    mem_free(m->ranges);
    mem_free(m->refs);
    mem_free(m->heap);
    mem_free(m->arena);
    mem_free(m->chunks);
    mem_free(m->held);
    mem_free(m->inputs);
}

static enum rc merge_open(struct merge *m, struct err *err)
{
    const size_t count = m->files->count;
    m->threads = m->opts->parallelism == 0 ? PARALLEL_DEFAULT : m->opts->parallelism;
    if (m->threads > PARALLEL_MAX) m->threads = PARALLEL_MAX;
    m->inputs = mem_calloc(count, sizeof *m->inputs);
    m->heap = mem_alloc(count * sizeof *m->heap);
    m->refs = mem_alloc(BATCH_REFS * sizeof *m->refs);
    m->ranges = mem_alloc(BATCH_RANGES * sizeof *m->ranges);
    m->arena = mem_alloc(ARENA_SIZE);
    if (m->inputs == NULL || m->heap == NULL || m->refs == NULL || m->ranges == NULL ||
        m->arena == NULL)
        return err_mem(err, "the buffers of a merge");
    for (size_t i = 0; i < count; i++) {
        m->inputs[i].src.file = &m->files->items[i];
        log_source_name(m->lg, &m->inputs[i].src);
    }
    TRY(place_sources(m, err));
    return thr_each(m->threads, count, input_open, m, err);
}

/* Which sources are held whole? The smallest ones: that saves the most requests. */
static enum rc place_sources(struct merge *m, struct err *err)
{
    const size_t count = m->files->count;
    const uint32_t want = m->opts->held_max, max = want - 1 < HELD_BYTES ? want : HELD_BYTES;
    uint64_t size = 0, at = 0;
    size_t held = 0;
    CLEANUP(mem_freep) struct input **order = mem_alloc(count * sizeof *order);
    if (order == NULL) return err_mem(err, "the sources of a merge");
    for (size_t i = 0; i < count; i++)
        order[i] = &m->inputs[i];
    qsort(order, count, sizeof *order, size_order);
    while (held < count && order[held]->src.file->size <= max - size)
        size += order[held++]->src.file->size;
    m->chunk_size = held < count ? CHUNKS_BYTES / (count - held) : 0;
    if (m->chunk_size > CHUNK_MAX) m->chunk_size = CHUNK_MAX;
    m->held = mem_alloc((size_t)size);
    m->chunks = mem_alloc((count - held) * m->chunk_size);
    if (m->held == NULL || m->chunks == NULL) return err_mem(err, "the sources of a merge");
    for (size_t i = 0; i < count; i++) {
        if (i < held) {
            order[i]->src.whole = m->held + at;
            at += order[i]->src.file->size;
        } else {
            order[i]->chunk = m->chunks + (i - held) * m->chunk_size;
        }
    }
    return RC_OK;
}

static int size_order(const void *a, const void *b)
{
    const struct input *const *x = a, *const *y = b;
    uint64_t i = (*x)->src.file->size, k = (*y)->src.file->size;
    return (i > k) - (i < k);
}

static enum rc input_open(void *ctx, uint64_t i, struct err *err)
{
    struct merge *m = ctx;
    struct input *in = &m->inputs[i];
    TRY(call_check(m->c, err));
    enum rc rc = log_source_open(m->lg, m->c, &in->src, err);
    if (rc != RC_OK) return note_gone(m, in, rc);
    in->reader = log_source_reader(&in->src);
    return RC_OK;
}

/* All sources are open: what will the new file be? */
static enum rc merge_begin(struct merge *m, struct err *err)
{
    const struct log_source *first = &m->inputs[0].src, *last = &m->inputs[m->files->count - 1].src;
    m->last = last;
    m->header = (struct ltx_header){.flags = LTX_FLAG_NO_CHECKSUM,
                                    .page_size = last->header.page_size,
                                    .page_count = last->header.page_count,
                                    .txid_min = first->header.txid_min,
                                    .txid_max = last->header.txid_max,
                                    .timestamp_ms = last->header.timestamp_ms,
                                    .has_digest = last->header.has_digest,
                                    .digest = last->header.digest};
    m->by_digest = m->header.txid_min == 1 && m->header.has_digest;
    if (m->header.txid_min == 1 && !(last->header.flags & LTX_FLAG_NO_CHECKSUM))
        m->last_post = get_be64(last->tail + 8);
    m->next_win = 1;
    ltx_header_put(&m->header, m->head);
    TRY(ltx_encoder_new(m->header.page_size, LTX_ENC_FRAME, &m->encoder, err));
    for (size_t i = 0; i < m->files->count; i++) {
        struct input *in = &m->inputs[i];
        const struct log_source *s = &in->src;
        bool more;
        if (s->header.page_size != m->header.page_size)
            return err_set(err, RC_CORRUPT, "'%s' has pages of %u bytes, newer files have %u",
                           s->key, s->header.page_size, m->header.page_size);
        /* All pages of the last one win anyway, and its header becomes ours. */
        in->whole = !m->by_digest || s == last;
        in->next_off = s->index_off - LOG_SOURCE_END_MARK;
        TRY(input_refill(m, in, err));
        in->at += LOG_SOURCE_END_MARK;
        in->left -= LOG_SOURCE_END_MARK;
        TRY(input_next(m, in, &more, err));
        if (more) m->heap[m->heap_count++] = (uint32_t)i;
    }
    for (uint32_t i = m->heap_count / 2; i > 0; i--)
        heap_down(m, i - 1);
    return RC_OK;
}

/* ---- The put ---- */

static enum rc merge_put(struct merge *m, struct compact_result *ret_result, struct err *err)
{
    const struct ltx_header *h = &m->header;
    const struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = merge_next, .ctx = m};
    struct store *store = m->lg->store;
    bool existed = false;
    char key[STORE_KEY_MAX + 1];
    log_key(m->lg, m->opts->level, h->txid_min, h->txid_max, key);
    struct store_put_opts put = {.if_absent = store_can(store, STORE_CAP_CREATE)};
    if (h->timestamp_ms > 0) put.timestamp_ms = h->timestamp_ms;
    enum rc rc = store_put(store, m->c, key, &body, &put, NULL, err);
    if (rc == RC_CONFLICT) {
        TRY(same_there(m, key, err));
        existed = true;
    } else if (rc != RC_OK) {
        return rc;
    }
    *ret_result = (struct compact_result){.pages = m->pages, .existed = existed};
    ret_result->file = (struct log_file){.level = m->opts->level,
                                         .txid_min = h->txid_min,
                                         .txid_max = h->txid_max,
                                         .size = m->sent,
                                         .created_ms = h->timestamp_ms};
    return RC_OK;
}

/* Is what stands there what we wanted to put? Its size, its first bytes and its last ones, the
 * checksum of all of it among them, tell. RC_CONFLICT: it is not. */
static enum rc same_there(struct merge *m, const char *key, struct err *err)
{
    uint8_t scratch[4096], head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    struct store *store = m->lg->store;
    struct store_obj obj = {0};
    for (size_t got = 1; got > 0;) /* the store may have refused before it had all of it */
        TRY(merge_next(m, scratch, sizeof scratch, &got, err));
    TRY(store_get(store, m->c, key, &(struct store_get_opts){.size = 1, .ret_obj = &obj},
                  ignore_bytes, NULL, err));
    bool same = obj.size == m->sent;
    if (same) {
        TRY(store_read(store, m->c, key, 0, head, sizeof head, err));
        TRY(store_read(store, m->c, key, m->sent - sizeof trailer, trailer, sizeof trailer, err));
        same = memcmp(head, m->head, sizeof head) == 0 &&
               memcmp(trailer, m->trailer, sizeof trailer) == 0;
    }
    if (same) return RC_OK;
    return err_set(err, RC_CONFLICT, "'%s' exists already, and is not what these files merge into",
                   key);
}

static enum rc ignore_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    (void)ctx, (void)data, (void)size, (void)err;
    return RC_OK;
}

static enum rc merge_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err)
{
    struct merge *m = ctx;
    size_t done = 0;
    while (done < size) {
        if (m->piece_left == 0) TRY(next_piece(m, err));
        if (m->piece_left == 0) break;
        size_t n = m->piece_left < size - done ? m->piece_left : size - done;
        memcpy((uint8_t *)dst + done, m->piece, n);
        m->piece += n;
        m->piece_left -= n;
        done += n;
    }
    m->sent += done;
    *ret_size = done;
    return RC_OK;
}

/* The bytes that come next; none: all was sent. */
static enum rc next_piece(struct merge *m, struct err *err)
{
    while (m->piece_left == 0 && m->stage != ST_DONE) {
        switch (m->stage) {
        case ST_HEADER:
            m->piece = m->head;
            m->piece_left = sizeof m->head;
            m->stage = ST_PAGES;
            break;
        case ST_PAGES:
            TRY(next_page(m, err));
            break;
        case ST_END_MARK:
            m->piece = m->frames.data;
            m->piece_left = m->frames.size;
            m->stage = ST_SPILLED;
            break;
        case ST_SPILLED:
            TRY(next_spilled(m, err));
            break;
        case ST_INDEX:
            m->piece = m->index.data;
            m->piece_left = m->index.size;
            m->stage = ST_TRAILER;
            break;
        case ST_TRAILER:
            m->piece = m->trailer;
            m->piece_left = sizeof m->trailer;
            m->stage = ST_DONE;
            break;
        case ST_DONE:
            break;
        }
    }
    return RC_OK;
}

static enum rc next_page(struct merge *m, struct err *err)
{
    while (m->emit < m->ref_count && !m->refs[m->emit].wins)
        m->emit++;
    if (m->emit < m->ref_count) {
        const struct ref *r = &m->refs[m->emit++];
        m->piece = r->frame;
        m->piece_left = r->size;
        return RC_OK;
    }
    TRY(batch_load(m, err));
    if (m->ref_count > 0) return RC_OK;
    TRY(merge_finish(m, err));
    m->stage = ST_END_MARK;
    return RC_OK;
}

/* The arena is free again: there are no more pages. */
static enum rc next_spilled(struct merge *m, struct err *err)
{
    uint64_t left = m->spilled - m->spill_read;
    size_t size = left < ARENA_SIZE ? (size_t)left : ARENA_SIZE, got = 0;
    if (left == 0) {
        m->stage = ST_INDEX;
        return RC_OK;
    }
    if (os_pread(m->spill_fd, m->arena, size, m->spill_read, &got, err) != RC_OK)
        return err_wrap(err, "temporary file of a page index");
    if (got != size) return err_set(err, RC_IO, "temporary file of a page index: it shrank");
    m->spill_read += got;
    m->piece = m->arena;
    m->piece_left = got;
    return RC_OK;
}

/* ---- Batches ---- */

static enum rc batch_load(struct merge *m, struct err *err)
{
    TRY(call_check(m->c, err));
    TRY(batch_fill(m, err));
    uint8_t *mem = m->arena;
    for (uint32_t i = 0; i < m->range_count; i++) {
        struct range *r = &m->ranges[i];
        if (m->inputs[r->input].src.whole != NULL) continue;
        r->mem = mem;
        mem += r->end - r->off;
    }
    TRY(thr_each(m->threads, m->range_count, range_run, m, err));
    return batch_seal(m, err);
}

static enum rc batch_fill(struct merge *m, struct err *err)
{
    m->ref_count = m->range_count = m->emit = 0;
    m->arena_used = 0;
    for (size_t i = 0; i < m->files->count; i++)
        m->inputs[i].range = NO_RANGE;
    while (m->heap_count > 0) {
        uint32_t i = m->heap[0], pgno = m->inputs[i].entry.pgno;
        bool wins = pgno != m->last_pgno && pgno <= m->header.page_count, more;
        if ((wins || m->inputs[i].whole) && !batch_take(m, i, wins)) break;
        if (wins) count_win(m, pgno);
        m->last_pgno = pgno;
        TRY(input_next(m, &m->inputs[i], &more, err));
        if (!more) m->heap[0] = m->heap[--m->heap_count];
        heap_down(m, 0);
    }
    return RC_OK;
}

/* False: the batch is full. It holds any one frame. */
static bool batch_take(struct merge *m, uint32_t i, bool wins)
{
    struct input *in = &m->inputs[i];
    const struct ltx_index_entry *e = &in->entry;
    const uint64_t end = e->off + e->size;
    struct range *r = in->range != NO_RANGE ? &m->ranges[in->range] : NULL;
    if (r != NULL && (e->off - r->end > GAP_MAX || end - r->off > RANGE_MAX)) r = NULL;
    uint64_t more = in->src.whole != NULL ? 0 : end - (r != NULL ? r->end : e->off);
    if (m->ref_count == BATCH_REFS || more > ARENA_SIZE - m->arena_used) return false;
    if (r == NULL && m->range_count == BATCH_RANGES) return false;
    const uint32_t at = m->ref_count++;
    m->refs[at] = (struct ref){.off = e->off,
                               .pgno = e->pgno,
                               .size = (uint32_t)e->size,
                               .input = i,
                               .next = NO_RANGE,
                               .wins = wins};
    if (r != NULL) {
        m->refs[r->last].next = at;
    } else {
        in->range = m->range_count++;
        r = &m->ranges[in->range];
        *r = (struct range){.input = i, .first = at, .off = e->off};
    }
    r->last = at;
    r->end = end;
    m->arena_used += more;
    return true;
}

/* A snapshot has every page. Which one is missing is said at the end, when no source turned out to
 * be damaged. */
static void count_win(struct merge *m, uint32_t pgno)
{
    m->pages++;
    if (m->header.txid_min > 1 || m->missing != 0) return;
    if (m->next_win == ltx_lock_page(m->header.page_size)) m->next_win++;
    if (pgno != m->next_win) m->missing = m->next_win;
    m->next_win++;
}

static enum rc range_run(void *ctx, uint64_t i, struct err *err)
{
    struct merge *m = ctx;
    const struct range *r = &m->ranges[i];
    const struct input *in = &m->inputs[r->input];
    TRY(call_check(m->c, err));
    if (r->mem != NULL) {
        enum rc rc = store_read(m->lg->store, m->c, in->src.key, r->off, r->mem,
                                (size_t)(r->end - r->off), err);
        if (rc != RC_OK) return note_gone(m, in, rc);
    }
    return range_pages(m, r, err);
}

static enum rc range_pages(struct merge *m, const struct range *r, struct err *err)
{
    const uint32_t page_size = m->header.page_size;
    const struct log_source *s = &m->inputs[r->input].src;
    const uint8_t *mem = r->mem != NULL ? r->mem : s->whole + r->off;
    CLEANUP(mem_freep) uint8_t *page = mem_alloc(page_size);
    CLEANUP(unpacker_freep) struct ltx_unpacker *unpacker = NULL;
    struct digest digest = {0};
    uint64_t page_sums = 0;
    if (page == NULL) return err_mem(err, "a page");
    TRY(ltx_unpacker_new(page_size, &unpacker, err));
    for (uint32_t i = r->first; i != NO_RANGE; i = m->refs[i].next) {
        struct ref *ref = &m->refs[i];
        uint32_t pgno;
        ref->frame = mem + (ref->off - r->off);
        enum rc rc = ltx_unpack(unpacker, ref->frame, ref->size, &pgno, page, &ref->sum, err);
        if (rc == RC_OK && pgno != ref->pgno)
            rc = err_set(err, RC_CORRUPT, "it is the frame of page %u", pgno);
        if (rc != RC_OK) return err_wrap(err, "'%s': page %u", s->key, ref->pgno);
        if (!ref->wins) continue;
        if (m->by_digest) digest = digest_add(digest, digest_page(pgno, page, page_size));
        if (m->last_post != 0) page_sums ^= ltx_page_sum(pgno, page, page_size);
    }
    thr_lock(&m->lock);
    m->digest = digest_add(m->digest, digest);
    m->page_sums ^= page_sums;
    thr_unlock(&m->lock);
    return RC_OK;
}

/* In the order of pages: to the checksums of the sources, and into the new file. */
static enum rc batch_seal(struct merge *m, struct err *err)
{
    for (const struct ref *r = m->refs, *end = r + m->ref_count; r < end; r++) {
        struct input *in = &m->inputs[r->input];
        uint64_t hashed = m->header.page_size + (get_be16(r->frame + 4) == 0 ? 6u : 10u);
        if (in->whole) in->src.sum = crc64_combine(in->src.sum, r->sum, hashed);
        if (r->wins) TRY(ltx_encoder_frame(m->encoder, r->frame, r->size, r->sum, &m->index, err));
    }
    uint32_t max = m->opts->index_max != 0 ? m->opts->index_max : INDEX_MAX;
    return m->index.size > max ? index_spill(m, err) : RC_OK;
}

static enum rc index_spill(struct merge *m, struct err *err)
{
    enum rc rc = m->spill_fd < 0 ? open_nameless(m, &m->spill_fd, err) : RC_OK;
    if (rc == RC_OK) rc = os_pwrite(m->spill_fd, m->index.data, m->index.size, m->spilled, err);
    if (rc != RC_OK) return err_wrap(err, "temporary file of a page index");
    m->spilled += m->index.size;
    buf_reset(&m->index);
    return RC_OK;
}

/* /var/tmp before /tmp, which is often memory. */
static enum rc open_nameless(const struct merge *m, int *ret_fd, struct err *err)
{
    const char *const folders[] = {m->opts->tmp_dir, getenv("TMPDIR"), "/var/tmp", "/tmp"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (folders[i] == NULL || folders[i][0] == '\0') continue;
        enum rc rc = os_open(folders[i], O_TMPFILE | O_RDWR, 0600, ret_fd, err);
        if (rc == RC_OK || i == 0) return rc; /* a folder that was asked for, or none */
    }
    return err->rc;
}

/* All pages were sent: was all of it right? */
static enum rc merge_finish(struct merge *m, struct err *err)
{
    const struct ltx_header *h = &m->header;
    char want[33], got[33];
    const uint64_t all = (uint64_t)h->page_count - (h->page_count >= ltx_lock_page(h->page_size));
    for (size_t i = 0; i < m->files->count; i++)
        if (m->inputs[i].whole) TRY(log_source_check_sum(&m->inputs[i].src, err));
    if (h->txid_min == 1 && m->pages != all) {
        count_win(m, UINT32_MAX);
        return err_set(err, RC_CORRUPT,
                       "'%s' speaks of %u pages, but page %u is in none of the %zu log files",
                       m->last->key, h->page_count, m->missing, m->files->count);
    }
    if (m->by_digest && !digest_equal(m->digest, h->digest)) {
        digest_hex(m->digest, got);
        digest_hex(h->digest, want);
        return err_set(err, RC_CORRUPT, "the merged pages have digest %s, but by '%s' it is %s",
                       got, m->last->key, want);
    }
    uint64_t post = m->page_sums | LTX_SUM_FLAG;
    if (m->last_post != 0 && m->last_post != post)
        return err_set(err, RC_CORRUPT,
                       "the merged pages have checksum %016llx, but by '%s' it is %016llx",
                       (unsigned long long)post, m->last->key, (unsigned long long)m->last_post);
    return ltx_encoder_finish(m->encoder, h, &m->frames, &m->index, m->head, m->trailer, err);
}

/* ---- Cursors ---- */

/* Take the next entry of its index. */
static enum rc input_next(struct merge *m, struct input *in, bool *ret_more, struct err *err)
{
    struct log_source *s = &in->src;
    const uint64_t end = s->index_off + s->index_size;
    for (;;) {
        size_t took = in->left;
        if (ltx_index_next(&in->reader, in->at, &took, &in->entry, ret_more, err) != RC_OK)
            return err_wrap(err, "'%s'", s->key);
        if (*ret_more || in->reader.done) {
            in->at += took;
            in->left -= took;
        }
        if (*ret_more) return log_source_entry(s, &in->entry, in->whole, err);
        if (in->reader.done || in->next_off == end) break;
        TRY(input_refill(m, in, err));
    }
    return log_source_end(s, &in->reader, in->left + (end - in->next_off), in->whole, err);
}

/* More bytes of its index behind those that are left: a piece of an entry. The first time there are
 * none, and the end mark comes first. */
static enum rc input_refill(struct merge *m, struct input *in, struct err *err)
{
    struct log_source *s = &in->src;
    uint64_t size = s->index_off + s->index_size - in->next_off;
    if (s->whole != NULL) {
        in->at = s->whole + in->next_off;
        in->left = (size_t)size;
        in->next_off += size;
        return log_source_rest(s, in->at, in->left, in->whole, err);
    }
    if (in->left > 0) memmove(in->chunk, in->at, in->left);
    if (size > m->chunk_size - in->left) size = m->chunk_size - in->left;
    uint8_t *to = in->chunk + in->left;
    enum rc rc = store_read(m->lg->store, m->c, s->key, in->next_off, to, (size_t)size, err);
    if (rc != RC_OK) return note_gone(m, in, rc);
    TRY(log_source_rest(s, to, (size_t)size, in->whole, err));
    in->at = in->chunk;
    in->left += (size_t)size;
    in->next_off += size;
    return RC_OK;
}

/* By page, the newest source first. */
static bool before(const struct merge *m, uint32_t a, uint32_t b)
{
    uint32_t x = m->inputs[a].entry.pgno, y = m->inputs[b].entry.pgno;
    return x != y ? x < y : a > b;
}

static void heap_down(struct merge *m, uint32_t at)
{
    for (;;) {
        uint32_t least = at;
        for (uint32_t k = 2 * at + 1; k <= 2 * at + 2 && k < m->heap_count; k++)
            if (before(m, m->heap[k], m->heap[least])) least = k;
        if (least == at) return;
        uint32_t swap = m->heap[at];
        m->heap[at] = m->heap[least];
        m->heap[least] = swap;
        at = least;
    }
}

static void unpacker_freep(struct ltx_unpacker **u)
{
    ltx_unpacker_free(*u);
}

static enum rc note_gone(struct merge *m, const struct input *in, enum rc rc)
{
    if (rc != RC_NOT_FOUND) return rc;
    thr_lock(&m->lock);
    m->gone = (size_t)(in - m->inputs);
    thr_unlock(&m->lock);
    return rc;
}
