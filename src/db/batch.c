/* batch.c -- see batch.h. */
#include "db/batch.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"

#define READ_BYTES    (1u << 20)   /* one read of WAL frames */
#define WINDOW_BYTES  (256u << 10) /* one read of the database file or of hashes */
#define FLUSH_BYTES   (1u << 20)   /* encoded frames are written in pieces of this size */
#define SPILL_BYTES   (8u << 20)   /* a longer page index waits in a side file */
#define FRESH_MAX     (2u << 20)   /* new hashes kept in memory; more are replayed from the file */
#define WINDOW_HASHES (WINDOW_BYTES / DIGEST_SIZE)
#define FEW_HASHES    256u /* scattered pages: read little around each */

struct fresh {
    uint32_t pgno;
    struct digest hash;
};

struct batch_scratch {
    struct buf read;   /* WAL frames */
    struct buf refs;   /* uint64_t: page number << 32 | ~frame; sorted, newest frame of a page */
    struct buf window; /* pages of the database file */
    struct buf hashes; /* struct digest: part of the recorded table */
    struct buf page;   /* one page from the WAL */
    struct buf frames, index;      /* encoded output */
    struct buf fresh;              /* struct fresh, ascending */
    bool fresh_lost;               /* too many: replay the staged file instead */
    struct ltx_encoder *enc[2][8]; /* by encoding and page size, made at first use */
};

struct writer { /* one batch_write */
    struct batch_scratch *s;
    struct source *src;
    struct state *st;
    const struct batch_spec *spec;
    struct ltx_encoder *enc;
    size_t ref_at;
    uint32_t window_first, window_count; /* pages in s->window */
    uint32_t hash_first, hash_count;     /* pages in s->hashes */
    int fd, index_fd;
    uint64_t off, index_off; /* bytes written to them */
    struct digest digest;
    uint32_t pages;
};

static int ref_order(const void *a, const void *b);
static void keep_newest(struct buf *refs, uint32_t page_count);
static enum rc get_encoder(struct batch_scratch *s, uint32_t page_size, enum ltx_encoding encoding,
                           struct ltx_encoder **ret_enc, struct err *err);
static enum rc open_output(struct writer *w, struct err *err);
static enum rc write_pages(struct writer *w, struct err *err);
static uint32_t next_page(struct writer *w, uint32_t after, uint32_t *ret_frame);
static enum rc load_page(struct writer *w, uint32_t pgno, uint32_t frame, const uint8_t **ret_page,
                         struct err *err);
static enum rc old_hash(struct writer *w, uint32_t pgno, struct digest *ret, struct err *err);
static enum rc add_page(struct writer *w, uint32_t pgno, const uint8_t *page, struct err *err);
static enum rc write_fresh(struct batch_scratch *s, struct state *st, struct err *err);
static enum rc record_fresh(struct writer *w, struct err *err);
static enum rc subtract_dropped(struct writer *w, struct err *err);
static enum rc flush(struct buf *b, int fd, uint64_t *off, struct err *err);
static enum rc spill_index(struct writer *w, struct err *err);
static enum rc finish_output(struct writer *w, struct batch_done *done, struct err *err);
static enum rc publish_snapshot(struct writer *w, struct err *err);
static enum rc copy_index(struct writer *w, struct err *err);

enum rc batch_scratch_new(struct batch_scratch **ret_s, struct err *err)
{
    struct batch_scratch *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "scratch memory");
    *ret_s = s;
    return RC_OK;
}

void batch_scratch_free(struct batch_scratch *s)
{
    if (s == NULL) return;
    struct buf *all[] = {&s->read, &s->refs,   &s->window, &s->hashes,
                         &s->page, &s->frames, &s->index,  &s->fresh};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        buf_fini(all[i]);
    for (int e = 0; e < 2; e++) {
        for (int i = 0; i < 8; i++)
            ltx_encoder_free(s->enc[e][i]);
    }
    mem_free(s);
}

enum rc batch_worker_new(void **ret_worker, struct err *err)
{
    struct batch_scratch *s = NULL;
    TRY(batch_scratch_new(&s, err));
    *ret_worker = s;
    return RC_OK;
}

void batch_worker_free(void *worker)
{
    batch_scratch_free(worker);
}

void batch_collect_none(struct batch_scratch *s)
{
    buf_reset(&s->refs);
}

enum rc batch_collect(struct batch_scratch *s, struct source *src, const struct db_pos *pos,
                      const struct wal_index *x, uint64_t bytes_max, struct batch_range *ret_range,
                      struct err *err)
{
    const uint64_t frame_size = WAL_FRAME_HEADER_SIZE + (uint64_t)x->page_size;
    const struct wal_header h = {.big_endian = x->big_endian,
                                 .page_size = x->page_size,
                                 .salt1 = x->salt1,
                                 .salt2 = x->salt2};
    const uint32_t step = (uint32_t)(READ_BYTES / frame_size) + 1;
    struct batch_range r = {.first = pos->wal_frame + 1};
    struct wal_sum chain = pos->wal_sum;
    size_t committed = 0;
    buf_reset(&s->refs);
    TRY(buf_reserve(&s->read, step * frame_size, err));
    for (uint32_t n = r.first; n <= x->frame_max;) {
        uint32_t count = x->frame_max - n + 1 < step ? x->frame_max - n + 1 : step;
        TRY(source_read_wal(src, wal_frame_off(x->page_size, n), s->read.data, count * frame_size,
                            err));
        for (uint32_t i = 0; i < count; i++, n++) {
            struct wal_frame f;
            if (!wal_frame_check(&h, &chain, s->read.data + i * frame_size, &f))
                return err_set(err, RC_CORRUPT, "the WAL's checksum chain breaks at frame %u", n);
            uint64_t ref = (uint64_t)f.pgno << 32 | (uint32_t)~n;
            TRY(buf_append(&s->refs, &ref, sizeof ref, err));
            if (f.commit == 0) continue;
            committed = s->refs.size;
            r.last = n;
            r.page_count = f.commit;
            r.sum = chain;
            if (bytes_max != 0 && (n - r.first + 1) * frame_size >= bytes_max) goto full;
        }
    }
    if (r.last != x->frame_max || r.sum.s1 != x->sum.s1 || r.sum.s2 != x->sum.s2)
        return err_set(err, RC_CORRUPT, "the WAL does not end as its index says (frame %u of %u)",
                       r.last, x->frame_max);
full:
    s->refs.size = committed;
    keep_newest(&s->refs, r.page_count);
    *ret_range = r;
    return RC_OK;
}

enum rc batch_write(struct batch_scratch *s, struct source *src, struct state *st,
                    const struct batch_spec *spec, struct batch_done *ret_done, struct err *err)
{
    struct batch_done done = {.after = spec->after};
    struct writer w = {.s = s, .src = src, .st = st, .spec = spec, .fd = -1, .index_fd = -1};
    w.digest = spec->kind == BATCH_WAL ? spec->before.digest : (struct digest){0};
    buf_reset(&s->frames);
    buf_reset(&s->index);
    buf_reset(&s->fresh);
    s->fresh_lost = false;
    enum rc rc = get_encoder(s, spec->after.page_size, spec->encoding, &w.enc, err);
    if (rc == RC_OK) rc = open_output(&w, err);
    if (rc == RC_OK) rc = write_pages(&w, err);
    if (rc == RC_OK && spec->kind == BATCH_HASH) rc = record_fresh(&w, err);
    if (rc == RC_OK && spec->kind == BATCH_WAL) rc = subtract_dropped(&w, err);
    if (rc == RC_OK) {
        done.after.digest = w.digest;
        done.pages = w.pages;
        /* A diff without pages still is a batch when the database only became shorter. */
        if (spec->kind != BATCH_HASH &&
            (w.pages > 0 || spec->before.page_count != spec->after.page_count))
            rc = finish_output(&w, &done, err);
    }
    os_close(w.fd);
    os_close(w.index_fd);
    if (rc != RC_OK) return err_wrap(err, "stage a batch");
    *ret_done = done;
    return RC_OK;
}

enum rc batch_seal(struct batch_scratch *s, struct state *st, const struct batch_done *done,
                   struct err *err)
{
    char temp[OS_PATH_MAX];
    state_temp_path(st, temp);
    {
        CLEANUP(os_closep) int fd = -1;
        TRY(os_open(temp, O_RDWR, 0, &fd, err));
        TRY(os_fsync(fd, err));
    }
    TRY(state_promote_temp(st, done->after.txid, done->size, err));
    if (s->fresh_lost) {
        TRY(state_replay(st, done->after.txid, err));
    } else {
        TRY(write_fresh(s, st, err));
    }
    state_advance(st, &done->after);
    return state_wants_commit(st) ? state_commit(st, err) : RC_OK;
}

static int ref_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void keep_newest(struct buf *refs, uint32_t page_count)
{
    uint64_t *v = (void *)refs->data;
    size_t count = refs->size / sizeof *v, kept = 0;
    if (count > 1) qsort(v, count, sizeof *v, ref_order);
    for (size_t i = 0; i < count; i++) {
        if (v[i] >> 32 > page_count) break;
        if (kept == 0 || v[kept - 1] >> 32 != v[i] >> 32) v[kept++] = v[i];
    }
    refs->size = kept * sizeof *v;
}

static enum rc get_encoder(struct batch_scratch *s, uint32_t page_size, enum ltx_encoding encoding,
                           struct ltx_encoder **ret_enc, struct err *err)
{
    int slot = __builtin_ctz(page_size) - 9;
    ASSERT(slot >= 0 && slot < 8);
    struct ltx_encoder **enc = &s->enc[encoding == LTX_ENC_BLOCK][slot];
    if (*enc == NULL)
        TRY(ltx_encoder_new(page_size, encoding, enc, err));
    else
        ltx_encoder_reset(*enc);
    *ret_enc = *enc;
    return RC_OK;
}

static enum rc open_output(struct writer *w, struct err *err)
{
    char temp[OS_PATH_MAX];
    state_temp_path(w->st, temp);
    TRY(os_open(temp, O_RDWR | O_CREAT | O_TRUNC, 0600, &w->fd, err));
    w->off = LTX_HEADER_SIZE;
    return buf_reserve(&w->s->page, w->spec->after.page_size, err);
}

static enum rc write_pages(struct writer *w, struct err *err)
{
    const uint32_t lock_page = ltx_lock_page(w->spec->after.page_size);
    uint32_t frame, pgno = 0;
    const uint8_t *page;
    while ((pgno = next_page(w, pgno, &frame)) != 0) {
        if (pgno == lock_page) continue;
        TRY(load_page(w, pgno, frame, &page, err));
        TRY(add_page(w, pgno, page, err));
    }
    return RC_OK;
}

/* The next page of the batch after `after`, and the WAL frame that holds it (0: the database file).
 * 0 at the end. */
static uint32_t next_page(struct writer *w, uint32_t after, uint32_t *ret_frame)
{
    const struct batch_spec *spec = w->spec;
    const uint64_t *refs = (const void *)w->s->refs.data;
    size_t count = w->s->refs.size / sizeof *refs;
    uint32_t in_wal = w->ref_at < count ? (uint32_t)(refs[w->ref_at] >> 32) : UINT32_MAX;
    uint32_t in_file = after + 1;
    /* SQLite may extend the database without writing the pages between (free-list leaves). */
    if (spec->kind == BATCH_WAL && in_file <= spec->before.page_count)
        in_file = spec->before.page_count + 1;
    uint32_t pgno = in_wal < in_file ? in_wal : in_file;
    if (pgno > spec->after.page_count) return 0;
    *ret_frame = pgno == in_wal ? (uint32_t)~refs[w->ref_at++] : 0;
    return pgno;
}

static enum rc load_page(struct writer *w, uint32_t pgno, uint32_t frame, const uint8_t **ret_page,
                         struct err *err)
{
    const uint32_t size = w->spec->after.page_size;
    if (frame != 0) {
        *ret_page = w->s->page.data;
        return source_read_wal(w->src, wal_frame_off(size, frame) + WAL_FRAME_HEADER_SIZE,
                               w->s->page.data, size, err);
    }
    if (pgno - w->window_first >= w->window_count) {
        uint32_t left = w->spec->after.page_count - pgno + 1, want = WINDOW_BYTES / size;
        w->window_count = w->spec->kind == BATCH_WAL ? 1 : want < left ? want : left;
        w->window_first = pgno;
        TRY(buf_reserve(&w->s->window, (size_t)w->window_count * size, err));
        TRY(source_read_db(w->src, (uint64_t)(pgno - 1) * size, w->s->window.data,
                           (size_t)w->window_count * size, err));
    }
    *ret_page = w->s->window.data + (size_t)(pgno - w->window_first) * size;
    return RC_OK;
}

/* The recorded hash of a page; zero for a page that the database did not have. */
static enum rc old_hash(struct writer *w, uint32_t pgno, struct digest *ret, struct err *err)
{
    const struct db_pos *before = &w->spec->before;
    *ret = (struct digest){0};
    if (pgno > before->page_count) return RC_OK;
    if (pgno - w->hash_first >= w->hash_count) {
        uint32_t left = before->page_count - pgno + 1;
        uint32_t want = w->spec->kind == BATCH_WAL ? FEW_HASHES : WINDOW_HASHES;
        w->hash_count = left < want ? left : want;
        w->hash_first = pgno;
        TRY(buf_reserve(&w->s->hashes, WINDOW_BYTES, err));
        TRY(state_read_pages(w->st, pgno, w->hash_count, (void *)w->s->hashes.data, err));
    }
    *ret = ((const struct digest *)(const void *)w->s->hashes.data)[pgno - w->hash_first];
    return RC_OK;
}

static enum rc add_page(struct writer *w, uint32_t pgno, const uint8_t *page, struct err *err)
{
    struct fresh f = {.pgno = pgno, .hash = digest_page(pgno, page, w->spec->after.page_size)};
    struct digest old = {0};
    w->digest = digest_add(w->digest, f.hash);
    if (w->spec->kind != BATCH_FULL) TRY(old_hash(w, pgno, &old, err));
    if (w->spec->kind == BATCH_WAL) w->digest = digest_sub(w->digest, old);
    if (w->spec->kind == BATCH_DIFF && pgno <= w->spec->before.page_count &&
        digest_equal(old, f.hash))
        return RC_OK;
    if (w->spec->kind == BATCH_HASH && w->s->fresh.size / sizeof f >= WINDOW_HASHES)
        TRY(record_fresh(w, err));
    if (w->s->fresh.size / sizeof f >= FRESH_MAX)
        w->s->fresh_lost = true;
    else
        TRY(buf_append(&w->s->fresh, &f, sizeof f, err));
    w->pages++;
    if (w->spec->kind == BATCH_HASH) return RC_OK;
    TRY(ltx_encoder_page(w->enc, pgno, page, &w->s->frames, &w->s->index, err));
    if (w->s->index.size >= SPILL_BYTES) TRY(spill_index(w, err));
    if (w->s->frames.size < FLUSH_BYTES) return RC_OK;
    return flush(&w->s->frames, w->fd, &w->off, err);
}

static enum rc write_fresh(struct batch_scratch *s, struct state *st, struct err *err)
{
    const struct fresh *f = (const void *)s->fresh.data;
    size_t count = s->fresh.size / sizeof *f;
    if (count == 0) return RC_OK;
    return state_write_fresh(st, count, &f->pgno, &f->hash, sizeof *f, err);
}

/* Straight into the table: it is empty and its header says so, until the hashes prove useful. */
static enum rc record_fresh(struct writer *w, struct err *err)
{
    TRY(write_fresh(w->s, w->st, err));
    buf_reset(&w->s->fresh);
    return RC_OK;
}

/* Pages beyond the new end leave the digest. */
static enum rc subtract_dropped(struct writer *w, struct err *err)
{
    const uint32_t lock_page = ltx_lock_page(w->spec->after.page_size);
    for (uint64_t p = (uint64_t)w->spec->after.page_count + 1; p <= w->spec->before.page_count;
         p++) {
        struct digest old;
        if (p == lock_page) continue;
        TRY(old_hash(w, (uint32_t)p, &old, err));
        w->digest = digest_sub(w->digest, old);
    }
    return RC_OK;
}

static enum rc flush(struct buf *b, int fd, uint64_t *off, struct err *err)
{
    TRY(os_pwrite(fd, b->data, b->size, *off, err));
    *off += b->size;
    buf_reset(b);
    return RC_OK;
}

static enum rc spill_index(struct writer *w, struct err *err)
{
    char temp[OS_PATH_MAX];
    if (w->index_fd < 0) {
        state_temp_path(w->st, temp);
        memcpy(strrchr(temp, '/'), "/index.tmp", sizeof "/index.tmp");
        TRY(os_open(temp, O_RDWR | O_CREAT | O_TRUNC, 0600, &w->index_fd, err));
        TRY(os_unlink(temp, err));
    }
    return flush(&w->s->index, w->index_fd, &w->index_off, err);
}

static enum rc finish_output(struct writer *w, struct batch_done *done, struct err *err)
{
    const struct batch_spec *spec = w->spec;
    const struct ltx_header h = {
        .flags = LTX_FLAG_NO_CHECKSUM,
        .page_size = spec->after.page_size,
        .page_count = spec->after.page_count,
        .txid_min = spec->txid_min,
        .txid_max = spec->after.txid,
        .timestamp_ms = spec->after.timestamp_ms,
        .wal_off = spec->wal_off,
        .wal_size = spec->wal_size,
        .wal_salt1 = spec->after.wal_salt1,
        .wal_salt2 = spec->after.wal_salt2,
        .has_digest = true,
        .digest = w->digest,
    };
    uint8_t header[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE], footer[STATE_FOOTER_SIZE];
    TRY(ltx_encoder_finish(w->enc, &h, &w->s->frames, &w->s->index, header, trailer, err));
    TRY(flush(&w->s->frames, w->fd, &w->off, err));
    TRY(copy_index(w, err));
    TRY(flush(&w->s->index, w->fd, &w->off, err));
    TRY(os_pwrite(w->fd, trailer, sizeof trailer, w->off, err));
    TRY(os_pwrite(w->fd, header, sizeof header, 0, err));
    done->size = w->off + sizeof trailer;
    if (spec->snapshot_path != NULL) return publish_snapshot(w, err);
    state_footer_put(&spec->after, footer);
    TRY(os_pwrite(w->fd, footer, sizeof footer, done->size, err));
    return state_reserve_pages(w->st, spec->after.page_count, err);
}

static enum rc publish_snapshot(struct writer *w, struct err *err)
{
    char temp[OS_PATH_MAX];
    state_temp_path(w->st, temp);
    TRY(os_fsync(w->fd, err));
    TRY(os_rename(temp, w->spec->snapshot_path, err));
    snprintf(temp, sizeof temp, "%s", w->spec->snapshot_path);
    *strrchr(temp, '/') = '\0';
    return os_fsync_dir(temp, err);
}

static enum rc copy_index(struct writer *w, struct err *err)
{
    size_t got;
    TRY(buf_reserve(&w->s->read, READ_BYTES, err));
    for (uint64_t off = 0; off < w->index_off; off += got) {
        TRY(os_pread(w->index_fd, w->s->read.data, READ_BYTES, off, &got, err));
        TRY(os_pwrite(w->fd, w->s->read.data, got, w->off, err));
        w->off += got;
    }
    return RC_OK;
}
