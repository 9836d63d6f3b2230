/*
 * restore_v3.c -- restore what Litestream 0.3 left behind: a copy of the database and the WAL files
 * that followed it.
 *
 *   generations/<16 hex>/snapshots/<8 hex index>.snapshot.lz4           whole database
 *   generations/<16 hex>/wal/<8 hex index>_<8..16 hex offset>.wal.lz4   a piece of WAL file <index>
 *
 * Each payload is an LZ4 frame stream. A restore takes the newest fitting snapshot, then each WAL
 * file from the snapshot's index on: its pieces are put together in a nameless local file, checked
 * (header, salts, checksum chain) and its committed frames written into the database, which leaves
 * what SQLite's own checkpoint would leave. A WAL that 0.3 uploaded holds only whole commits, so a
 * frame that does not continue the chain is damage here, never a torn tail to pass over.
 */
#include "base/mem.h"
#include "base/os.h"
#include "fmt/ltx.h"
#include "fmt/wal.h"
#include "log/restore.h"
#include "log/restore_out.h"
#include "log/restore_pages.h"
#include <fcntl.h>
#include <lz4frame.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V3_ROOT     "generations/"
#define IO_SIZE     (256u << 10)
#define PROGRESS_MS 100

struct v3_file {
    bool snapshot;
    uint8_t off_digits; /* as in its key */
    uint64_t generation, off;
    uint32_t index;
    uint64_t size; /* compressed */
    int64_t created_ms;
};
struct v3_files {
    struct v3_file *items;
    size_t count, cap;
};
struct v3_run {
    const struct log *lg;
    const struct call *c;
    const struct restore_opts *opts;
    struct out_file out;
    uint8_t *io;        /* IO_SIZE: what LZ4 gives, or what the WAL file holds */
    uint32_t page_size; /* 0 until a file has told */
    uint64_t db_size;   /* bytes */
    uint64_t bytes_done, bytes_total;
    int64_t progress_ms;
};
struct unpack { /* one object on its way into a local file */
    struct v3_run *run;
    LZ4F_dctx *lz4;
    int fd;
    uint64_t taken;   /* compressed bytes */
    uint64_t written; /* next offset in fd */
    size_t hint;      /* 0: LZ4 stands at the end of a frame */
};

static enum rc list_files(const struct log *lg, const struct call *c, struct v3_files *files,
                          struct err *err);
static void files_fini(struct v3_files *files);
static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err);
static bool key_get(const char *key, struct v3_file *ret_f);
static bool hex_get(const char **at, int digits_min, int digits_max, uint64_t *ret_v);
static void key_put(const struct v3_file *f, char key[STORE_KEY_MAX + 1]);
static const struct v3_file *best_snapshot(const struct v3_files *files,
                                           const struct plan_target *target);
static bool fits(const struct v3_file *f, const struct plan_target *target);
static enum rc keep_segments(struct v3_files *files, const struct v3_file *snapshot,
                             const struct plan_target *target, struct err *err);
static int segment_order(const void *a, const void *b);
static enum rc run_all(struct v3_run *run, const struct v3_file *snapshot,
                       const struct v3_files *segments, struct err *err);
static enum rc spool_open(struct v3_run *run, int *ret_fd, struct err *err);
static enum rc unpack_object(struct v3_run *run, const struct v3_file *f, int fd, uint64_t off,
                             uint64_t *ret_end, struct err *err);
static enum rc unpack_bytes(void *ctx, const void *data, size_t size, struct err *err);
static enum rc learn_page_size(struct v3_run *run, struct err *err);
static enum rc apply_wal(struct v3_run *run, int fd, uint64_t size, struct err *err);
static enum rc scan_wal(struct v3_run *run, int fd, uint64_t size, uint64_t *ret_frames,
                        uint32_t *ret_commit, struct err *err);
static enum rc copy_pages(struct v3_run *run, int fd, uint64_t frames, struct err *err);
static enum rc read_all(int fd, void *dst, size_t size, uint64_t off, struct err *err);
static void progress(struct v3_run *run, uint64_t bytes, bool last);

enum rc restore_v3_find(const struct log *lg, const struct call *c,
                        const struct plan_target *target, struct v3_summary *ret_sum,
                        struct err *err)
{
    CLEANUP(files_fini) struct v3_files files = {0};
    struct v3_summary sum = {0};
    TRY(list_files(lg, c, &files, err));
    const struct v3_file *snapshot = best_snapshot(&files, target);
    for (size_t i = 0; i < files.count; i++)
        if (files.items[i].created_ms > sum.newest_ms) sum.newest_ms = files.items[i].created_ms;
    sum.any = snapshot != NULL;
    if (sum.any) sum.snapshot_ms = snapshot->created_ms;
    *ret_sum = sum;
    return RC_OK;
}

enum rc restore_v3_run(const struct log *lg, const struct call *c, const struct restore_opts *opts,
                       struct restore_result *ret_result, struct err *err)
{
    CLEANUP(files_fini) struct v3_files files = {0};
    CLEANUP(mem_freep) uint8_t *io = NULL;
    struct v3_run run = {.lg = lg, .c = c, .opts = opts, .out = OUT_FILE_INIT};
    TRY(list_files(lg, c, &files, err));
    const struct v3_file *best = best_snapshot(&files, &opts->target);
    if (best == NULL)
        return err_set(err, RC_NOT_FOUND, "no Litestream 0.3 snapshot fits the target");
    struct v3_file snapshot = *best;
    TRY(keep_segments(&files, &snapshot, &opts->target, err));
    run.bytes_total = snapshot.size;
    for (size_t i = 0; i < files.count; i++)
        run.bytes_total += files.items[i].size;
    run.io = io = mem_alloc(IO_SIZE);
    if (io == NULL) return err_mem(err, "a buffer for pages");
    TRY(out_create(&run.out, opts->out_path, opts->mode, err));
    enum rc rc = run_all(&run, &snapshot, &files, err);
    if (rc == RC_OK) rc = out_commit(&run.out, err);
    out_discard(&run.out);
    if (rc != RC_OK) return rc;
    progress(&run, 0, true);
    *ret_result = (struct restore_result){.page_size = run.page_size};
    if (run.page_size != 0) ret_result->page_count = (uint32_t)(run.db_size / run.page_size);
    return RC_OK;
}

/* ---- Objects and their choice ---- */

static enum rc list_files(const struct log *lg, const struct call *c, struct v3_files *files,
                          struct err *err)
{
    return store_list(lg->store, c, V3_ROOT, NULL, take_object, files, err);
}

static void files_fini(struct v3_files *files)
{
    mem_free(files->items);
    *files = (struct v3_files){0};
}

static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err)
{
    struct v3_files *files = ctx;
    struct v3_file f = {.size = obj->size, .created_ms = obj->mtime_ms};
    if (!key_get(obj->key, &f)) return RC_OK;
    if (files->count == files->cap) {
        size_t cap = files->cap == 0 ? 64 : 2 * files->cap;
        struct v3_file *items = mem_realloc(files->items, cap * sizeof *items);
        if (items == NULL) return err_mem(err, "a list of Litestream 0.3 files");
        files->items = items;
        files->cap = cap;
    }
    files->items[files->count++] = f;
    return RC_OK;
}

static bool key_get(const char *key, struct v3_file *ret_f)
{
    const char *at = key + strlen(V3_ROOT);
    uint64_t index;
    if (!hex_get(&at, 16, 16, &ret_f->generation)) return false;
    ret_f->snapshot = strncmp(at, "/snapshots/", 11) == 0;
    if (!ret_f->snapshot && strncmp(at, "/wal/", 5) != 0) return false;
    at += ret_f->snapshot ? 11 : 5;
    if (!hex_get(&at, 8, 8, &index)) return false;
    ret_f->index = (uint32_t)index;
    if (ret_f->snapshot) return strcmp(at, ".snapshot.lz4") == 0;
    if (*at++ != '_') return false;
    const char *digits = at;
    if (!hex_get(&at, 8, 16, &ret_f->off)) return false;
    ret_f->off_digits = (uint8_t)(at - digits);
    return strcmp(at, ".wal.lz4") == 0;
}

static bool hex_get(const char **at, int digits_min, int digits_max, uint64_t *ret_v)
{
    uint64_t v = 0;
    int n = 0;
    for (; n < digits_max; n++, (*at)++) {
        char ch = **at;
        if (ch >= '0' && ch <= '9')
            v = v << 4 | (uint64_t)(ch - '0');
        else if (ch >= 'a' && ch <= 'f')
            v = v << 4 | (uint64_t)(ch - 'a' + 10);
        else
            break;
    }
    *ret_v = v;
    return n >= digits_min;
}

static void key_put(const struct v3_file *f, char key[STORE_KEY_MAX + 1])
{
    int n =
        snprintf(key, STORE_KEY_MAX + 1, V3_ROOT "%016llx/%s/%08x",
                 (unsigned long long)f->generation, f->snapshot ? "snapshots" : "wal", f->index);
    if (f->snapshot)
        snprintf(key + n, STORE_KEY_MAX + 1 - (size_t)n, ".snapshot.lz4");
    else
        snprintf(key + n, STORE_KEY_MAX + 1 - (size_t)n, "_%0*llx.wal.lz4", f->off_digits,
                 (unsigned long long)f->off);
}

/* The newest one that fits, of any generation; NULL for none. */
static const struct v3_file *best_snapshot(const struct v3_files *files,
                                           const struct plan_target *target)
{
    const struct v3_file *best = NULL;
    for (size_t i = 0; i < files->count; i++) {
        const struct v3_file *f = &files->items[i];
        if (!f->snapshot || !fits(f, target)) continue;
        if (best == NULL || f->created_ms > best->created_ms ||
            (f->created_ms == best->created_ms && f->generation == best->generation &&
             f->index > best->index))
            best = f;
    }
    return best;
}

/* 0.3 knows no transaction numbers, and takes what was made at the very moment, too. */
static bool fits(const struct v3_file *f, const struct plan_target *target)
{
    if (target->kind == PLAN_TXID) return false;
    return target->kind == PLAN_LATEST || f->created_ms <= target->time_ms;
}

/* Leave in files what follows the snapshot, in order. Fails: RC_GAP. */
static enum rc keep_segments(struct v3_files *files, const struct v3_file *snapshot,
                             const struct plan_target *target, struct err *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < files->count; i++) {
        const struct v3_file *f = &files->items[i];
        if (f->snapshot || f->generation != snapshot->generation || !fits(f, target)) continue;
        if (f->index >= snapshot->index) files->items[kept++] = *f;
    }
    files->count = kept;
    if (kept > 1) qsort(files->items, kept, sizeof *files->items, segment_order);
    uint32_t index = snapshot->index;
    for (size_t i = 0; i < kept; i++) {
        const struct v3_file *f = &files->items[i];
        if (i > 0 && f->index != files->items[i - 1].index) index++;
        if (f->index != index)
            return err_set(err, RC_GAP, "missing WAL index %08x of generation %016llx", index,
                           (unsigned long long)snapshot->generation);
        if (f->off != 0 && (i == 0 || f->index != files->items[i - 1].index))
            return err_set(err, RC_GAP,
                           "missing WAL segment: index %08x of generation %016llx begins at "
                           "offset %llu",
                           index, (unsigned long long)snapshot->generation,
                           (unsigned long long)f->off);
    }
    return RC_OK;
}

static int segment_order(const void *a, const void *b)
{
    const struct v3_file *x = a, *y = b;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    return (x->off > y->off) - (x->off < y->off);
}

/* ---- Carrying it out ---- */

static enum rc run_all(struct v3_run *run, const struct v3_file *snapshot,
                       const struct v3_files *segments, struct err *err)
{
    CLEANUP(os_closep) int spool = -1;
    uint64_t end = 0;
    TRY(unpack_object(run, snapshot, run->out.fd, 0, &run->db_size, err));
    TRY(learn_page_size(run, err));
    for (size_t i = 0; i < segments->count; i++) {
        const struct v3_file *f = &segments->items[i];
        if (spool < 0) TRY(spool_open(run, &spool, err));
        if (f->off == 0) {
            TRY(os_truncate(spool, 0, err));
            end = 0;
        }
        if (f->off != end)
            return err_set(err, RC_GAP,
                           "missing WAL segment: index %08x of generation %016llx has %llu bytes, "
                           "but goes on at %llu",
                           f->index, (unsigned long long)f->generation, (unsigned long long)end,
                           (unsigned long long)f->off);
        TRY(unpack_object(run, f, spool, end, &end, err));
        if (i + 1 < segments->count && segments->items[i + 1].index == f->index) continue;
        if (apply_wal(run, spool, end, err) != RC_OK)
            return err_wrap(err, "WAL index %08x of generation %016llx", f->index,
                            (unsigned long long)f->generation);
    }
    return RC_OK;
}

/* A file without a name: nothing to remove, whatever happens. */
static enum rc spool_open(struct v3_run *run, int *ret_fd, struct err *err)
{
    char path[OS_PATH_MAX + 8];
    snprintf(path, sizeof path, "%s-wal", run->out.tmp);
    TRY(os_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600, ret_fd, err));
    return os_unlink(path, err);
}

/* Decompress one object into fd at off. *ret_end: where it ends there. */
static enum rc unpack_object(struct v3_run *run, const struct v3_file *f, int fd, uint64_t off,
                             uint64_t *ret_end, struct err *err)
{
    char key[STORE_KEY_MAX + 1];
    struct unpack u = {.run = run, .fd = fd, .written = off, .hint = 1};
    key_put(f, key);
    if (LZ4F_isError(LZ4F_createDecompressionContext(&u.lz4, LZ4F_VERSION)))
        return err_mem(err, "LZ4 state");
    enum rc rc = store_get(run->lg->store, run->c, key, NULL, unpack_bytes, &u, err);
    LZ4F_freeDecompressionContext(u.lz4);
    if (rc == RC_OK && u.hint != 0)
        rc = err_set(err, RC_CORRUPT, "its LZ4 stream is cut off at %llu bytes",
                     (unsigned long long)u.taken);
    if (rc != RC_OK) return err_wrap(err, "'%s'", key);
    *ret_end = u.written;
    return RC_OK;
}

static enum rc unpack_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    struct unpack *u = ctx;
    const uint8_t *in = data;
    size_t left = size, out = IO_SIZE;
    /* LZ4 may still hold output when all input is taken: go on until it fills no buffer. */
    while (left > 0 || out == IO_SIZE) {
        size_t took = left;
        out = IO_SIZE;
        size_t hint = LZ4F_decompress(u->lz4, u->run->io, &out, in, &took, NULL);
        if (LZ4F_isError(hint))
            return err_set(err, RC_CORRUPT, "LZ4 near byte %llu: %s", (unsigned long long)u->taken,
                           LZ4F_getErrorName(hint));
        if (took > 0 || out > 0) u->hint = hint;
        in += took;
        left -= took;
        u->taken += took;
        if (out > 0 && os_pwrite(u->fd, u->run->io, out, u->written, err) != RC_OK)
            return err_wrap(err, "'%s'", u->run->out.tmp);
        u->written += out;
    }
    progress(u->run, size, false);
    return RC_OK;
}

static enum rc learn_page_size(struct v3_run *run, struct err *err)
{
    uint8_t h[2];
    if (run->db_size == 0) return RC_OK; /* a database that had only a WAL yet */
    if (run->db_size < LTX_PAGE_SIZE_MIN)
        return err_set(err, RC_CORRUPT, "the snapshot has only %llu bytes",
                       (unsigned long long)run->db_size);
    TRY(read_all(run->out.fd, h, sizeof h, 16, err));
    run->page_size = (uint32_t)h[0] << 8 | h[1];
    if (run->page_size == 1) run->page_size = LTX_PAGE_SIZE_MAX;
    if (!ltx_page_size_ok(run->page_size) || run->db_size % run->page_size != 0)
        return err_set(err, RC_CORRUPT, "the snapshot is no database: %llu bytes, page size %u",
                       (unsigned long long)run->db_size, run->page_size);
    return RC_OK;
}

/* Write the committed frames of the WAL in fd[0, size) into the database. */
static enum rc apply_wal(struct v3_run *run, int fd, uint64_t size, struct err *err)
{
    uint64_t frames = 0;
    uint32_t commit = 0;
    if (size == 0) return RC_OK;
    TRY(scan_wal(run, fd, size, &frames, &commit, err));
    if (frames == 0) return RC_OK;
    TRY(copy_pages(run, fd, frames, err));
    run->db_size = (uint64_t)commit * run->page_size;
    if (os_truncate(run->out.fd, run->db_size, err) == RC_OK) return RC_OK;
    return err_wrap(err, "'%s'", run->out.tmp);
}

/* Check the chain; find the last commit: its frame number and database size in pages. */
static enum rc scan_wal(struct v3_run *run, int fd, uint64_t size, uint64_t *ret_frames,
                        uint32_t *ret_commit, struct err *err)
{
    uint8_t head[WAL_HEADER_SIZE];
    struct wal_header h;
    struct wal_frame f;
    if (size < sizeof head) return err_set(err, RC_CORRUPT, "only %d bytes", (int)size);
    TRY(read_all(fd, head, sizeof head, 0, err));
    TRY(wal_header_get(head, &h, err));
    if (run->page_size == 0) run->page_size = h.page_size;
    if (h.page_size != run->page_size)
        return err_set(err, RC_CORRUPT, "its page size is %u, the database has %u", h.page_size,
                       run->page_size);
    size_t frame_size = WAL_FRAME_HEADER_SIZE + h.page_size;
    uint64_t count = (size - sizeof head) / frame_size;
    struct wal_sum chain = h.sum;
    for (uint64_t n = 1; n <= count; n++) {
        TRY(call_check(run->c, err));
        TRY(read_all(fd, run->io, frame_size, wal_frame_off(h.page_size, n), err));
        if (!wal_frame_check(&h, &chain, run->io, &f))
            return err_set(err, RC_CORRUPT, "frame %llu of %llu fails its salts or checksum",
                           (unsigned long long)n, (unsigned long long)count);
        if (f.pgno == 0) return err_set(err, RC_CORRUPT, "a frame of page 0");
        if (f.commit == 0) continue;
        *ret_frames = n;
        *ret_commit = f.commit;
    }
    return RC_OK;
}

static enum rc copy_pages(struct v3_run *run, int fd, uint64_t frames, struct err *err)
{
    struct wal_frame f;
    for (uint64_t n = 1; n <= frames; n++) {
        TRY(call_check(run->c, err));
        size_t frame_size = WAL_FRAME_HEADER_SIZE + run->page_size;
        TRY(read_all(fd, run->io, frame_size, wal_frame_off(run->page_size, n), err));
        wal_frame_get(run->io, &f);
        uint64_t off = (uint64_t)(f.pgno - 1) * run->page_size;
        const uint8_t *page = run->io + WAL_FRAME_HEADER_SIZE;
        if (os_pwrite(run->out.fd, page, run->page_size, off, err) != RC_OK)
            return err_wrap(err, "'%s'", run->out.tmp);
    }
    return RC_OK;
}

static enum rc read_all(int fd, void *dst, size_t size, uint64_t off, struct err *err)
{
    size_t got;
    TRY(os_pread(fd, dst, size, off, &got, err));
    if (got == size) return RC_OK;
    return err_set(err, RC_IO, "read: the file ends at %llu", (unsigned long long)(off + got));
}

static void progress(struct v3_run *run, uint64_t bytes, bool last)
{
    int64_t now = os_mono_ms();
    run->bytes_done += bytes;
    if (run->opts->progress == NULL) return;
    if (!last && now - run->progress_ms < PROGRESS_MS) return;
    run->progress_ms = now;
    struct restore_progress at = {last ? run->bytes_total : run->bytes_done, run->bytes_total};
    run->opts->progress(run->opts->progress_ctx, &at);
}
