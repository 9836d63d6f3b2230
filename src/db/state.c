/*
 * state.c -- see state.h. Header slot, little-endian, 128 bytes, at offset 0 and 512 of `state`:
 *
 *   0 magic "SLST0001"   8 sequence   16 txid   24 digest (16)   40 page size   44 page count
 *   48 timestamp ms   56 salt1   60 salt2   64 frame   68 sum s1   72 sum s2   120 CRC-64 of 0..119
 *
 * The valid slot with the higher sequence counts. A staged batch's footer is fields 40..75 in the
 * same form, 8 bytes in: magic "SLFT0001", page size ... sum s2, CRC-64 in the last four bytes'
 * place.
 */
#include "db/state.h"
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "fmt/crc64.h"
#include "fmt/ltx.h"
#include "fmt/text.h"

#define SLOT_SIZE      128
#define SLOT_STRIDE    512
#define COMMIT_BATCHES 32
#define COMMIT_BYTES   (64ull << 20)
#define QUICK_BATCHES  4
#define QUICK_BYTES    (256u << 10)
#define STAGED_SUFFIX  ".staged"
#define RUN_PAGES      256
#define READ_CHUNK     (256u << 10)

struct state {
    char *dir;
    int lock_fd, state_fd, pages_fd;
    bool was_reset;
    uint64_t seq;
    struct db_pos pos;
    _Atomic uint64_t durable_txid; /* position of the newest header on disk */
    uint64_t batches, bytes;       /* staged since then */
};

static enum rc peek(const char *dir, struct db_pos *ret_pos, uint64_t *ret_last, struct err *err);
static enum rc open_staged(const struct state *st, uint64_t txid, int *ret_fd, uint64_t *ret_size,
                           uint8_t footer[STATE_FOOTER_SIZE], struct err *err);
static enum rc pos_of_staged(uint64_t txid, const struct ltx_header *h,
                             const uint8_t footer[STATE_FOOTER_SIZE], struct db_pos *ret_pos,
                             struct err *err);
static enum rc peek_staged(const struct state *st, uint64_t txid, struct db_pos *ret_pos,
                           struct err *err);
static enum rc open_files(struct state *st, struct err *err);
static enum rc open_file(struct state *st, const char *name, int *fd, struct err *err);
static enum rc take_lock(struct state *st, struct err *err);
static enum rc read_header(int fd, struct db_pos *ret_pos, uint64_t *ret_seq, struct err *err);
static enum rc start_empty(struct state *st, struct err *err);
static void slot_put(const struct db_pos *pos, uint64_t seq, uint8_t slot[SLOT_SIZE]);
static bool slot_get(const uint8_t slot[SLOT_SIZE], struct db_pos *ret_pos, uint64_t *ret_seq);
static void wal_fields_put(const struct db_pos *pos, uint8_t *at);
static void wal_fields_get(const uint8_t *at, struct db_pos *pos);
static enum rc replay_all(struct state *st, struct err *err);
static enum rc decode_staged(struct state *st, int fd, uint64_t size, struct ltx_header *ret_h,
                             struct err *err);
static enum rc take_event(struct state *st, struct ltx_decoder *dec, const uint8_t *in,
                          size_t *size, struct ltx_header *h, struct ltx_event *ev,
                          struct err *err);
static enum rc drop_early_snapshot(const struct state *st, struct err *err);
static enum rc drop_snapshot(const struct state *st, struct err *err);
static enum rc drop_all_staged(struct state *st, uint64_t from_txid, struct err *err);

enum rc state_open(const char *dir, struct state **ret_st, struct err *err)
{
    struct state *st = mem_calloc(1, sizeof *st);
    if (st == NULL) return err_mem(err, "a state");
    st->lock_fd = st->state_fd = st->pages_fd = -1;
    st->dir = mem_strdup(dir);
    enum rc rc = st->dir ? open_files(st, err) : err_mem(err, "a state");
    if (rc == RC_OK) rc = state_reload(st, err);
    if (rc != RC_OK) {
        state_close(st);
        return err_wrap(err, "local state '%s'", dir);
    }
    *ret_st = st;
    return RC_OK;
}

enum rc state_reload(struct state *st, struct err *err)
{
    enum rc rc = read_header(st->state_fd, &st->pos, &st->seq, err);
    /* From the first moment there is a header, so that staged batches always have one before them.
     */
    if (rc == RC_CORRUPT) rc = start_empty(st, err);
    if (rc != RC_OK) return rc;
    atomic_store(&st->durable_txid, st->pos.txid);
    st->batches = st->bytes = 0;
    TRY(replay_all(st, err));
    return drop_early_snapshot(st, err);
}

enum rc state_sleep(struct state *st, struct err *err)
{
    if (atomic_load(&st->durable_txid) != st->pos.txid) TRY(state_commit(st, err));
    os_close(st->pages_fd);
    os_close(st->state_fd);
    st->pages_fd = st->state_fd = -1;
    return RC_OK;
}

enum rc state_wake(struct state *st, struct err *err)
{
    if (st->state_fd < 0) TRY(open_file(st, "state", &st->state_fd, err));
    return st->pages_fd < 0 ? open_file(st, "pages", &st->pages_fd, err) : RC_OK;
}

void state_close(struct state *st)
{
    if (st == NULL) return;
    os_close(st->pages_fd);
    os_close(st->state_fd);
    os_close(st->lock_fd);
    mem_free(st->dir);
    mem_free(st);
}

bool state_was_reset(const struct state *st)
{
    return st->was_reset;
}

const struct db_pos *state_pos(const struct state *st)
{
    return &st->pos;
}

void state_advance(struct state *st, const struct db_pos *pos)
{
    st->pos = *pos;
}

enum rc state_commit(struct state *st, struct err *err)
{
    uint8_t slot[SLOT_SIZE];
    slot_put(&st->pos, st->seq + 1, slot);
    TRY(os_fsync(st->pages_fd, err));
    TRY(os_pwrite(st->state_fd, slot, sizeof slot, ((st->seq + 1) % 2) * SLOT_STRIDE, err));
    TRY(os_fsync(st->state_fd, err));
    st->seq++;
    atomic_store(&st->durable_txid, st->pos.txid);
    st->batches = st->bytes = 0;
    return RC_OK;
}

bool state_wants_commit(const struct state *st)
{
    return st->batches >= COMMIT_BATCHES || st->bytes >= COMMIT_BYTES;
}

bool state_replays_quickly(const struct state *st)
{
    return st->batches <= QUICK_BATCHES && st->bytes <= QUICK_BYTES;
}

enum rc state_reset(struct state *st, uint64_t txid, struct err *err)
{
    TRY(drop_snapshot(st, err));
    /* Position first: a crash after it finds an empty table, which is what a reset means. */
    st->pos = (struct db_pos){.txid = txid};
    TRY(state_commit(st, err));
    TRY(os_truncate(st->pages_fd, 0, err));
    return drop_all_staged(st, 0, err);
}

enum rc state_read_pages(struct state *st, uint32_t first, uint32_t count, struct digest *ret,
                         struct err *err)
{
    _Static_assert(sizeof(struct digest) == DIGEST_SIZE, "the table is read in place");
    size_t size = (size_t)count * DIGEST_SIZE, got;
    TRY(os_pread(st->pages_fd, ret, size, (uint64_t)(first - 1) * DIGEST_SIZE, &got, err));
    memset((uint8_t *)ret + got, 0, size - got);
    return RC_OK;
}

enum rc state_write_fresh(struct state *st, size_t count, const uint32_t *pgnos,
                          const struct digest *hashes, size_t stride, struct err *err)
{
    struct digest run[RUN_PAGES];
    uint32_t first = 0, size = 0;
    for (size_t i = 0; i <= count; i++) {
        uint32_t pgno = i < count ? *(const uint32_t *)((const char *)pgnos + i * stride) : 0;
        if (size > 0 && (size == RUN_PAGES || pgno != first + size)) {
            TRY(os_pwrite(st->pages_fd, run, size * DIGEST_SIZE,
                          (uint64_t)(first - 1) * DIGEST_SIZE, err));
            size = 0;
        }
        if (i == count) break;
        if (size == 0) first = pgno;
        run[size++] = *(const struct digest *)(const void *)((const char *)hashes + i * stride);
    }
    return RC_OK;
}

enum rc state_reserve_pages(struct state *st, uint32_t count, struct err *err)
{
    return os_allocate(st->pages_fd, (uint64_t)count * DIGEST_SIZE, err);
}

void state_footer_put(const struct db_pos *pos, uint8_t out[STATE_FOOTER_SIZE])
{
    memset(out, 0, STATE_FOOTER_SIZE);
    memcpy(out, "SLFT0001", 8);
    wal_fields_put(pos, out + 8);
    put_le64(out + 40, crc64(0, out, 40));
}

void state_staged_path(const struct state *st, uint64_t txid, char ret_path[OS_PATH_MAX])
{
    char name[17];
    txid_put(txid, name);
    snprintf(ret_path, OS_PATH_MAX, "%s/ltx/%s" STAGED_SUFFIX, st->dir, name);
}

void state_snapshot_path(const struct state *st, char ret_path[OS_PATH_MAX])
{
    snprintf(ret_path, OS_PATH_MAX, "%s/snapshot.ltx", st->dir);
}

void state_temp_path(const struct state *st, char ret_path[OS_PATH_MAX])
{
    snprintf(ret_path, OS_PATH_MAX, "%s/ltx/batch.tmp", st->dir);
}

enum rc state_promote_temp(struct state *st, uint64_t txid, uint64_t size, struct err *err)
{
    char temp[OS_PATH_MAX], path[OS_PATH_MAX];
    state_temp_path(st, temp);
    state_staged_path(st, txid, path);
    TRY(os_rename(temp, path, err));
    *strrchr(temp, '/') = '\0';
    TRY(os_fsync_dir(temp, err));
    st->batches++;
    st->bytes += size;
    return RC_OK;
}

enum rc state_replay(struct state *st, uint64_t txid, struct err *err)
{
    uint8_t footer[STATE_FOOTER_SIZE];
    struct ltx_header h = {0};
    uint64_t size;
    CLEANUP(os_closep) int fd = -1;
    TRY(open_staged(st, txid, &fd, &size, footer, err));
    TRY(decode_staged(st, fd, size, &h, err));
    TRY(pos_of_staged(txid, &h, footer, &st->pos, err));
    st->batches++;
    st->bytes += size;
    return RC_OK;
}

/* With its footer, which is valid. */
static enum rc open_staged(const struct state *st, uint64_t txid, int *ret_fd, uint64_t *ret_size,
                           uint8_t footer[STATE_FOOTER_SIZE], struct err *err)
{
    char path[OS_PATH_MAX];
    struct stat sb;
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    state_staged_path(st, txid, path);
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(os_fstat(fd, &sb, err));
    if (sb.st_size < LTX_HEADER_SIZE + STATE_FOOTER_SIZE)
        return err_set(err, RC_CORRUPT, "'%s' is cut", path);
    uint64_t size = (uint64_t)sb.st_size - STATE_FOOTER_SIZE;
    TRY(os_pread(fd, footer, STATE_FOOTER_SIZE, size, &got, err));
    if (got < STATE_FOOTER_SIZE || memcmp(footer, "SLFT0001", 8) != 0 ||
        get_le64(footer + 40) != crc64(0, footer, 40))
        return err_set(err, RC_CORRUPT, "'%s' has no valid footer", path);
    *ret_fd = fd;
    fd = -1;
    *ret_size = size;
    return RC_OK;
}

static enum rc pos_of_staged(uint64_t txid, const struct ltx_header *h,
                             const uint8_t footer[STATE_FOOTER_SIZE], struct db_pos *ret_pos,
                             struct err *err)
{
    if (h->txid_max != txid)
        return err_set(err, RC_CORRUPT, "a staged batch holds another one's pages");
    *ret_pos = (struct db_pos){
        .txid = txid,
        .digest = h->digest,
        .page_size = h->page_size,
        .page_count = h->page_count,
        .timestamp_ms = h->timestamp_ms,
    };
    wal_fields_get(footer + 8, ret_pos);
    return RC_OK;
}

static enum rc peek_staged(const struct state *st, uint64_t txid, struct db_pos *ret_pos,
                           struct err *err)
{
    uint8_t raw[LTX_HEADER_SIZE], footer[STATE_FOOTER_SIZE];
    struct ltx_header h;
    uint64_t size;
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    TRY(open_staged(st, txid, &fd, &size, footer, err));
    TRY(os_pread(fd, raw, sizeof raw, 0, &got, err)); /* it is that long */
    TRY(ltx_header_get(raw, &h, err));
    return pos_of_staged(txid, &h, footer, ret_pos, err);
}

struct range {
    uint64_t first, last;
};

static enum rc widen_range(void *ctx, const char *name, struct err *err)
{
    struct range *r = ctx;
    char hex[17] = "";
    uint64_t txid;
    struct err ignored;
    (void)err;
    if (strlen(name) != 16 + strlen(STAGED_SUFFIX) || strcmp(name + 16, STAGED_SUFFIX) != 0)
        return RC_OK;
    memcpy(hex, name, 16);
    if (txid_get(hex, &txid, &ignored) != RC_OK) return RC_OK;
    if (r->first == 0) r->first = txid;
    r->last = txid;
    return RC_OK;
}

enum rc state_staged_range(const struct state *st, uint64_t *ret_first, uint64_t *ret_last,
                           struct err *err)
{
    char dir[OS_PATH_MAX];
    struct range r = {0};
    snprintf(dir, sizeof dir, "%s/ltx", st->dir);
    TRY(os_list(dir, widen_range, &r, err));
    *ret_first = r.first;
    *ret_last = r.last;
    return RC_OK;
}

enum rc state_staged_info(const struct state *st, uint64_t txid, struct ltx_header *ret_h,
                          uint64_t *ret_size, struct err *err)
{
    char path[OS_PATH_MAX];
    uint8_t raw[LTX_HEADER_SIZE];
    struct stat sb;
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    state_staged_path(st, txid, path);
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(os_fstat(fd, &sb, err));
    TRY(os_pread(fd, raw, sizeof raw, 0, &got, err));
    if (got < sizeof raw || sb.st_size < LTX_HEADER_SIZE + STATE_FOOTER_SIZE)
        return err_set(err, RC_CORRUPT, "'%s' is cut", path);
    TRY(ltx_header_get(raw, ret_h, err));
    *ret_size = (uint64_t)sb.st_size - STATE_FOOTER_SIZE;
    return RC_OK;
}

enum rc state_drop_staged(struct state *st, uint64_t below_txid, struct err *err)
{
    char path[OS_PATH_MAX];
    uint64_t first, last, durable = atomic_load(&st->durable_txid);
    TRY(state_staged_range(st, &first, &last, err));
    for (uint64_t t = first; t != 0 && t < below_txid && t <= durable && t < last; t++) {
        state_staged_path(st, t, path);
        TRY(os_unlink(path, err));
    }
    return RC_OK;
}

enum rc state_peek(const char *dir, struct db_pos *ret_pos, struct err *err)
{
    uint64_t last;
    TRY(peek(dir, ret_pos, &last, err));
    if (last > ret_pos->txid) ret_pos->txid = last;
    return RC_OK;
}

enum rc state_peek_settled(const char *dir, struct db_pos *ret_pos, struct err *err)
{
    char path[OS_PATH_MAX];
    struct stat sb;
    struct db_pos pos;
    uint64_t last;
    const struct state st = {.dir = (char *)(uintptr_t)dir};
    TRY(peek(dir, &pos, &last, err));
    if (last > pos.txid) TRY(peek_staged(&st, last, &pos, err));
    state_snapshot_path(&st, path);
    enum rc rc = os_stat(path, &sb, err);
    if (rc == RC_OK) return err_set(err, RC_BUSY, "'%s' waits", path);
    if (rc != RC_NOT_FOUND) return rc;
    *ret_pos = pos;
    return RC_OK;
}

/* *ret_last: the newest staged batch, 0: none is there. */
static enum rc peek(const char *dir, struct db_pos *ret_pos, uint64_t *ret_last, struct err *err)
{
    char path[OS_PATH_MAX];
    uint64_t seq, first;
    CLEANUP(os_closep) int fd = -1;
    const struct state st = {.dir = (char *)(uintptr_t)dir};
    snprintf(path, sizeof path, "%s/state", dir);
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(read_header(fd, ret_pos, &seq, err));
    return state_staged_range(&st, &first, ret_last, err);
}

static enum rc open_files(struct state *st, struct err *err)
{
    char path[OS_PATH_MAX];
    struct stat sb;
    if (strlen(st->dir) + 64 > sizeof path) return err_set(err, RC_INVALID, "path too long");
    snprintf(path, sizeof path, "%s/ltx", st->dir);
    TRY(os_mkdirs(path, 0700, err));
    TRY(take_lock(st, err));
    TRY(state_wake(st, err));
    /* There is no header before all names are durable, so with one they are. */
    TRY(os_fstat(st->state_fd, &sb, err));
    return sb.st_size == 0 ? os_fsync_dir(st->dir, err) : RC_OK;
}

static enum rc open_file(struct state *st, const char *name, int *fd, struct err *err)
{
    char path[OS_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", st->dir, name);
    return os_open(path, O_RDWR | O_CREAT, 0600, fd, err);
}

static enum rc take_lock(struct state *st, struct err *err)
{
    char path[OS_PATH_MAX], pid[32] = "";
    size_t got;
    struct err ignored;
    snprintf(path, sizeof path, "%s/lock", st->dir);
    TRY(os_open(path, O_RDWR | O_CREAT, 0600, &st->lock_fd, err));
    enum rc rc = os_lock(st->lock_fd, err);
    if (rc == RC_BUSY) {
        if (os_pread(st->lock_fd, pid, sizeof pid - 1, 0, &got, &ignored) != RC_OK) got = 0;
        pid[got > 0 ? got - 1 : 0] = '\0'; /* without the newline */
        return err_set(err, RC_FENCED,
                       "another sluice process (pid %s) already replicates this database; stop it "
                       "first, or give this one another meta-path",
                       pid);
    }
    if (rc != RC_OK) return rc;
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    TRY(os_truncate(st->lock_fd, 0, err));
    return os_pwrite(st->lock_fd, pid, (size_t)n, 0, err);
}

/* The newer of the two slots. Fails: RC_CORRUPT neither is valid; RC_IO. */
static enum rc read_header(int fd, struct db_pos *ret_pos, uint64_t *ret_seq, struct err *err)
{
    bool found = false;
    *ret_seq = 0;
    for (uint64_t i = 0; i < 2; i++) {
        uint8_t slot[SLOT_SIZE];
        struct db_pos pos;
        uint64_t seq;
        size_t got;
        TRY(os_pread(fd, slot, sizeof slot, i * SLOT_STRIDE, &got, err));
        if (got < sizeof slot || !slot_get(slot, &pos, &seq)) continue;
        if (found && seq < *ret_seq) continue;
        *ret_pos = pos;
        *ret_seq = seq;
        found = true;
    }
    return found ? RC_OK : err_set(err, RC_CORRUPT, "the state has no valid header");
}

static enum rc start_empty(struct state *st, struct err *err)
{
    struct stat sb;
    TRY(os_fstat(st->state_fd, &sb, err));
    st->was_reset = sb.st_size > 0;
    st->pos = (struct db_pos){0};
    TRY(drop_snapshot(st, err));
    TRY(drop_all_staged(st, 0, err));
    return state_commit(st, err);
}

static void slot_put(const struct db_pos *pos, uint64_t seq, uint8_t slot[SLOT_SIZE])
{
    memset(slot, 0, SLOT_SIZE);
    memcpy(slot, "SLST0001", 8);
    put_le64(slot + 8, seq);
    put_le64(slot + 16, pos->txid);
    digest_put(pos->digest, slot + 24);
    put_le32(slot + 40, pos->page_size);
    put_le32(slot + 44, pos->page_count);
    put_le64(slot + 48, (uint64_t)pos->timestamp_ms);
    wal_fields_put(pos, slot + 56);
    put_le64(slot + 120, crc64(0, slot, 120));
}

static bool slot_get(const uint8_t slot[SLOT_SIZE], struct db_pos *ret_pos, uint64_t *ret_seq)
{
    if (memcmp(slot, "SLST0001", 8) != 0 || get_le64(slot + 120) != crc64(0, slot, 120))
        return false;
    *ret_seq = get_le64(slot + 8);
    *ret_pos = (struct db_pos){
        .txid = get_le64(slot + 16),
        .digest = digest_get(slot + 24),
        .page_size = get_le32(slot + 40),
        .page_count = get_le32(slot + 44),
        .timestamp_ms = (int64_t)get_le64(slot + 48),
    };
    wal_fields_get(slot + 56, ret_pos);
    return true;
}

static void wal_fields_put(const struct db_pos *pos, uint8_t *at)
{
    put_le32(at, pos->wal_salt1);
    put_le32(at + 4, pos->wal_salt2);
    put_le32(at + 8, pos->wal_frame);
    put_le32(at + 12, pos->wal_sum.s1);
    put_le32(at + 16, pos->wal_sum.s2);
}

static void wal_fields_get(const uint8_t *at, struct db_pos *pos)
{
    pos->wal_salt1 = get_le32(at);
    pos->wal_salt2 = get_le32(at + 4);
    pos->wal_frame = get_le32(at + 8);
    pos->wal_sum.s1 = get_le32(at + 12);
    pos->wal_sum.s2 = get_le32(at + 16);
}

static enum rc replay_all(struct state *st, struct err *err)
{
    uint64_t first, last;
    TRY(state_staged_range(st, &first, &last, err));
    if (last == 0) return RC_OK;
    if (first > st->pos.txid + 1) return start_empty(st, err); /* a hole: not ours */
    while (st->pos.txid < last) {
        uint64_t txid = st->pos.txid + 1;
        enum rc rc = state_replay(st, txid, err);
        /* It was whole before its hashes went into `pages`, so they may be there: the table is
         * ahead of every position that we could go back to. */
        if (rc == RC_CORRUPT || rc == RC_NOT_FOUND) return start_empty(st, err);
        TRY(rc);
    }
    return RC_OK;
}

/* Two passes: nothing goes into the table before the whole file has been verified. */
static enum rc decode_staged(struct state *st, int fd, uint64_t size, struct ltx_header *ret_h,
                             struct err *err)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    TRY(buf_reserve(&b, READ_CHUNK, err));
    for (int pass = 0; pass < 2; pass++) {
        struct ltx_decoder *dec = NULL;
        struct ltx_event ev = {.kind = LTX_EV_MORE};
        TRY(ltx_decoder_new(&dec, err));
        enum rc rc = RC_OK;
        /* An empty last piece tells the decoder that there is no more; an earlier one would too. */
        for (uint64_t off = 0; rc == RC_OK && ev.kind != LTX_EV_END;) {
            size_t want = size - off < READ_CHUNK ? (size_t)(size - off) : READ_CHUNK, got, pos = 0;
            rc = os_pread(fd, b.data, want, off, &got, err);
            if (rc == RC_OK && got < want) rc = err_set(err, RC_CORRUPT, "a staged batch is cut");
            off += want;
            do {
                size_t taken = want - pos;
                if (rc == RC_OK)
                    rc = take_event(pass == 0 ? NULL : st, dec, b.data + pos, &taken, ret_h, &ev,
                                    err);
                pos += taken;
            } while (rc == RC_OK && pos < want);
        }
        ltx_decoder_free(dec);
        TRY(rc);
    }
    return RC_OK;
}

static enum rc take_event(struct state *st, struct ltx_decoder *dec, const uint8_t *in,
                          size_t *size, struct ltx_header *h, struct ltx_event *ev, struct err *err)
{
    TRY(ltx_decoder_step(dec, in, size, ev, err));
    if (ev->kind == LTX_EV_HEADER) *h = ev->header;
    if (ev->kind != LTX_EV_PAGE || st == NULL) return RC_OK;
    struct digest d = digest_page(ev->page.pgno, ev->page.data, h->page_size);
    return state_write_fresh(st, 1, &ev->page.pgno, &d, 0, err);
}

struct drop {
    struct state *st;
    uint64_t from;
};

static enum rc drop_one(void *ctx, const char *name, struct err *err)
{
    struct drop *d = ctx;
    char path[OS_PATH_MAX];
    struct range r = {0};
    TRY(widen_range(&r, name, err));
    if (r.first != 0 && r.first < d->from) return RC_OK;
    snprintf(path, sizeof path, "%s/ltx/%s", d->st->dir, name);
    return os_unlink(path, err);
}

/* An image whose batch never came to be: another batch will take that TXID. */
static enum rc drop_early_snapshot(const struct state *st, struct err *err)
{
    char path[OS_PATH_MAX];
    uint8_t raw[LTX_HEADER_SIZE];
    struct ltx_header h;
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    state_snapshot_path(st, path);
    enum rc rc = os_open(path, O_RDONLY, 0, &fd, err);
    if (rc != RC_OK) return rc == RC_NOT_FOUND ? RC_OK : rc;
    TRY(os_pread(fd, raw, sizeof raw, 0, &got, err));
    bool ours =
        got == sizeof raw && ltx_header_get(raw, &h, err) == RC_OK && h.txid_max <= st->pos.txid;
    return ours ? RC_OK : drop_snapshot(st, err);
}

static enum rc drop_snapshot(const struct state *st, struct err *err)
{
    char path[OS_PATH_MAX];
    state_snapshot_path(st, path);
    enum rc rc = os_unlink(path, err);
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

static enum rc drop_all_staged(struct state *st, uint64_t from_txid, struct err *err)
{
    char dir[OS_PATH_MAX];
    struct drop d = {.st = st, .from = from_txid};
    snprintf(dir, sizeof dir, "%s/ltx", st->dir);
    return os_list(dir, drop_one, &d, err);
}
