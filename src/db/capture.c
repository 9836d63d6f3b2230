/*
 * capture.c -- see capture.h for what is proved, source.h for the locks it rests on.
 *
 *              sync, no database           attach: write lock, hold, wal-index
 *   DETACHED ---------------------> error  ------------------------------------> FOLLOWING
 *      ^                                      continues?  yes -> sync the WAL       |
 *      |                                                  no  -> compare pages      |
 *      +---- replaced, lock lost, chain broken (then: compare at the next sync) ----+
 */
#include "db/capture.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"

#define CHECKPOINT_PAGES 1000
#define COPY_ROUNDS      4
#define WAIT_FACTOR      4   /* readers are waited for from this many times the checkpoint length */
#define FREE_COPY_FRAMES 256 /* fewer frames are not worth a checkpoint of their own */

struct capture {
    char *path, *meta_dir;
    struct capture_opts opts;
    struct state *st;      /* lives as long as the capture; others hold on to it */
    bool reload;           /* a seal failed: table and position must be brought together */
    struct source *src;    /* NULL: detached */
    struct db_pos pos;     /* captured up to here; the state's, plus moves without a batch */
    bool compare;          /* the next sync compares pages with `pos`, as of `base` */
    struct wal_index base; /* the wal-index when the hold began; its frames are pinned by it */
    uint32_t base_count;   /* database size in pages then */
    bool expecting;        /* capture_expect: maybe the log ends with this database */
    struct digest expected;
    int64_t expected_ms;
    bool want_snapshot;     /* that sync also writes a whole image */
    uint32_t log_page_size; /* of the log before a capture_restart_at; 0: unknown */
    bool restart_ok;        /* one WAL restart would lose nothing (capture.h) */
    bool drained;           /* captured at least up to the commit that the hold stands at */
    bool switched;
    bool wal_named;        /* the name of the WAL is durable (relaxed) */
    uint32_t wait_frames;  /* readers stayed too long: not before this many are they waited for */
    uint32_t retry_frames; /* readers held the last checkpoint back: not before this many */
};

static enum rc wal_ends_at(const char *path, const struct db_pos *pos, bool *ret_yes,
                           struct err *err);
static bool frame_is_at(const struct db_pos *pos, const uint8_t raw[WAL_FRAME_HEADER_SIZE]);
static enum rc ready_state(struct capture *cap, struct err *err);
static enum rc attach(struct capture *cap, struct err *err);
static enum rc attach_locked(struct capture *cap, struct err *err);
static enum rc continues(struct capture *cap, const struct wal_index *x, bool *ret_yes,
                         struct err *err);
static enum rc page_count_now(struct capture *cap, const struct wal_index *x, uint32_t *ret_count,
                              struct err *err);
static enum rc follow_generation(struct capture *cap, const struct wal_index *x, bool *ret_lost,
                                 struct err *err);
static enum rc chain_start(struct capture *cap, const struct wal_index *x, struct wal_sum *ret_sum,
                           struct err *err);
static void note_position(struct capture *cap, const struct wal_index *x);
static enum rc sync_once(struct capture *cap, struct batch_scratch *s, struct capture_result *res,
                         struct err *err);
static enum rc sync_wal(struct capture *cap, struct batch_scratch *s, const struct wal_index *x,
                        struct capture_result *res, struct err *err);
static enum rc write_wal(struct capture *cap, struct batch_scratch *s, const struct wal_index *x,
                         uint64_t bytes_max, struct batch_done *ret_done, struct err *err);
static enum rc compare_base(struct capture *cap, struct batch_scratch *s,
                            struct capture_result *res, struct err *err);
static enum rc sync_compare(struct capture *cap, struct batch_scratch *s,
                            struct capture_result *res, struct err *err);
static enum rc adopt(struct capture *cap, struct batch_scratch *s, const struct batch_spec *batch,
                     struct capture_result *res, struct err *err);
static enum rc collect_base(struct capture *cap, struct batch_scratch *s, struct err *err);
static enum rc write_snapshot(struct capture *cap, struct batch_scratch *s,
                              const struct batch_spec *batch, const struct db_pos *at,
                              struct err *err);
static enum rc seal(struct capture *cap, struct batch_scratch *s, const struct batch_done *done,
                    struct capture_result *res, struct err *err);
static enum rc commits_to_disk(struct capture *cap, struct err *err);
static void next_batch(const struct capture *cap, struct batch_spec *spec);
static enum rc checkpoint_now(struct capture *cap, struct batch_scratch *s,
                              const struct wal_index *x, struct capture_result *res,
                              struct err *err);
static void await_readers(struct capture *cap, uint32_t frames);
static bool may_wait(const struct capture *cap, uint32_t frames);
static enum rc checkpoint_locked(struct capture *cap, struct batch_scratch *s,
                                 struct batch_done *ret_done, struct err *err);

enum rc capture_open(const char *path, const char *meta_dir, const struct capture_opts *opts,
                     struct capture **ret_cap, struct err *err)
{
    struct capture *cap = mem_calloc(1, sizeof *cap);
    if (cap == NULL) return err_mem(err, "a capture");
    cap->opts = *opts;
    if (cap->opts.checkpoint_pages == 0) cap->opts.checkpoint_pages = CHECKPOINT_PAGES;
    cap->path = mem_strdup(path);
    cap->meta_dir = mem_strdup(meta_dir);
    enum rc rc = cap->path && cap->meta_dir ? RC_OK : err_mem(err, "a capture");
    if (rc == RC_OK) rc = ready_state(cap, err);
    if (rc != RC_OK) {
        capture_close(cap);
        return rc;
    }
    *ret_cap = cap;
    return RC_OK;
}

void capture_close(struct capture *cap)
{
    if (cap == NULL) return;
    /* A position that is not in the header is replayed from the staged batches. */
    struct err ignored;
    capture_detach(cap);
    if (cap->st != NULL && !state_replays_quickly(cap->st) &&
        state_sleep(cap->st, &ignored) != RC_OK)
        ignored.rc = RC_OK;
    state_close(cap->st);
    mem_free(cap->path);
    mem_free(cap->meta_dir);
    mem_free(cap);
}

void capture_detach(struct capture *cap)
{
    source_close(cap->src);
    cap->src = NULL;
    cap->compare = cap->restart_ok = cap->drained = cap->wal_named = false;
    cap->retry_frames = cap->wait_frames = 0;
    if (cap->st != NULL) cap->pos = *state_pos(cap->st);
}

enum rc capture_sleep(struct capture *cap, uint32_t pages_max, bool *ret_asleep, struct err *err)
{
    *ret_asleep = false;
    if (cap->src == NULL || !cap->restart_ok || cap->pos.page_count > pages_max) return RC_OK;
    TRY(state_sleep(cap->st, err));
    capture_detach(cap);
    *ret_asleep = true;
    return RC_OK;
}

uint64_t capture_settled(const char *path, const char *meta_dir)
{
    struct db_pos pos;
    struct err ignored; /* whatever it is, a sync will meet it */
    bool yes = false;
    if (state_peek_settled(meta_dir, &pos, &ignored) != RC_OK) return 0;
    if (wal_ends_at(path, &pos, &yes, &ignored) != RC_OK) return 0;
    return yes ? pos.txid : 0;
}

struct state *capture_state(struct capture *cap)
{
    return cap->st;
}

const char *capture_wal_path(const struct capture *cap)
{
    return cap->src ? source_wal_path(cap->src) : NULL;
}

enum rc capture_restart_at(struct capture *cap, uint64_t txid, struct err *err)
{
    capture_detach(cap);
    TRY(ready_state(cap, err));
    TRY(state_reset(cap->st, txid, err));
    cap->pos = *state_pos(cap->st);
    return RC_OK;
}

void capture_log_page_size(struct capture *cap, uint32_t page_size)
{
    cap->log_page_size = page_size;
}

void capture_expect(struct capture *cap, struct digest digest, int64_t timestamp_ms)
{
    cap->expecting = true;
    cap->expected = digest;
    cap->expected_ms = timestamp_ms;
}

enum rc capture_sync(struct capture *cap, struct batch_scratch *s,
                     struct capture_result *ret_result, struct err *err)
{
    struct capture_result res = {0};
    enum rc rc = ready_state(cap, err);
    if (rc == RC_OK && cap->src == NULL) rc = attach(cap, err);
    if (rc == RC_OK) rc = source_check_same(cap->src, err);
    if (rc == RC_OK) rc = sync_once(cap, s, &res, err);
    /* Only the database may be missing; other files are ours. */
    if (rc == RC_NOT_FOUND && cap->src != NULL)
        rc = err_set(err, RC_CORRUPT, "part of the local state '%s' is missing; restart sluice",
                     cap->meta_dir);
    /* With a full disk the hold stays, so that nothing has to be compared later. */
    if (rc != RC_OK && rc != RC_NO_SPACE && rc != RC_NO_MEM && rc != RC_BUSY) capture_detach(cap);
    if (rc != RC_OK) return err_wrap(err, "sync '%s'", cap->path);
    res.switched = cap->switched;
    cap->switched = false;
    res.txid = cap->pos.txid;
    *ret_result = res;
    return RC_OK;
}

void capture_want_snapshot(struct capture *cap)
{
    capture_detach(cap);
    cap->want_snapshot = true;
}

uint32_t capture_pending(struct capture *cap)
{
    struct wal_index x;
    struct err ignored;
    if (cap->src == NULL || source_index(cap->src, &x, &ignored) != RC_OK) return 0;
    bool same = x.salt1 == cap->pos.wal_salt1 && x.salt2 == cap->pos.wal_salt2;
    if (same && x.frame_max < cap->pos.wal_frame) return 1; /* let a sync find out why */
    return same ? x.frame_max - cap->pos.wal_frame : x.frame_max;
}

bool capture_in_flight(struct capture *cap)
{
    struct wal_index x;
    struct wal_frame f;
    struct err ignored;
    uint8_t raw[WAL_FRAME_HEADER_SIZE];
    if (cap->src == NULL || source_index(cap->src, &x, &ignored) != RC_OK) return false;
    uint64_t off = wal_frame_off(source_page_size(cap->src), x.frame_max + 1);
    if (source_read_wal(cap->src, off, raw, sizeof raw, &ignored) != RC_OK) return false;
    wal_frame_get(raw, &f);
    return f.pgno != 0 && f.salt1 == x.salt1 && f.salt2 == x.salt2;
}

bool capture_wants_checkpoint(struct capture *cap)
{
    return cap->src != NULL && !cap->restart_ok && cap->pos.wal_frame > 0;
}

/*
 * Two steps, so that writers wait as little as possible. First, without any lock of theirs, copy
 * what the hold permits. Then take the write lock, write the last frames into a batch (no fsync),
 * copy the rest, and let the hold begin anew at mark 0, so that the next writer restarts the WAL.
 * The batch is sealed after the lock is gone: should that fail, the frames are in the database, and
 * the next sync, unable to prove continuity, finds them by comparison.
 */
enum rc capture_checkpoint(struct capture *cap, struct batch_scratch *s, bool force,
                           struct capture_result *ret_result, struct err *err)
{
    struct wal_index x;
    struct capture_result res = {.txid = cap->pos.txid};
    *ret_result = res;
    if (cap->src == NULL || !cap->drained || cap->restart_ok) return RC_OK;
    TRY(source_index(cap->src, &x, err));
    if (x.frame_max == 0 || (!force && x.frame_max < cap->opts.checkpoint_pages)) return RC_OK;
    if (!force && x.frame_max < cap->retry_frames) return RC_OK;
    enum rc rc = checkpoint_now(cap, s, &x, &res, err);
    if (rc != RC_OK || !source_held(cap->src)) capture_detach(cap);
    /* SQLite opens a -wal read-only when a moment's trouble (no descriptor left) keeps it from
     * more, and stays so. Open anew; if it is more than a moment's, that will tell. */
    if (rc == RC_DENIED) rc = attach(cap, err);
    if (rc != RC_OK) return err_wrap(err, "checkpoint '%s'", cap->path);
    res.txid = cap->pos.txid;
    *ret_result = res;
    return RC_OK;
}

/* Without its wal-index, which is of the last one that had it open: the next will make it anew from
 * the frames that have the salts of the header, as far as their checksums go. */
static enum rc wal_ends_at(const char *path, const struct db_pos *pos, bool *ret_yes,
                           struct err *err)
{
    char wal[OS_PATH_MAX];
    uint8_t raw[WAL_HEADER_SIZE], frame[WAL_FRAME_HEADER_SIZE];
    struct wal_header h;
    struct wal_frame next;
    struct stat sb;
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    *ret_yes = false;
    if (pos->wal_frame == 0 || strlen(path) + 5 > sizeof wal) return RC_OK;
    snprintf(wal, sizeof wal, "%s-wal", path);
    TRY(os_open(wal, O_RDONLY, 0, &fd, err));
    TRY(os_pread(fd, raw, sizeof raw, 0, &got, err));
    if (got < sizeof raw) return RC_OK;
    TRY(wal_header_get(raw, &h, err));
    if (h.page_size != pos->page_size || h.salt1 != pos->wal_salt1 || h.salt2 != pos->wal_salt2)
        return RC_OK;
    uint64_t off = wal_frame_off(pos->page_size, pos->wal_frame);
    TRY(os_pread(fd, frame, sizeof frame, off, &got, err));
    if (got < sizeof frame || !frame_is_at(pos, frame)) return RC_OK;
    TRY(os_fstat(fd, &sb, err));
    off = wal_frame_off(pos->page_size, (uint64_t)pos->wal_frame + 1);
    if ((uint64_t)sb.st_size < off) return RC_OK; /* the last page is cut */
    TRY(os_pread(fd, frame, sizeof frame, off, &got, err));
    if (got == sizeof frame) wal_frame_get(frame, &next);
    *ret_yes = got < sizeof frame || next.salt1 != h.salt1 || next.salt2 != h.salt2;
    return RC_OK;
}

/* Its checksum covers everything before it in this generation. */
static bool frame_is_at(const struct db_pos *pos, const uint8_t raw[WAL_FRAME_HEADER_SIZE])
{
    struct wal_frame f;
    wal_frame_get(raw, &f);
    return f.salt1 == pos->wal_salt1 && f.salt2 == pos->wal_salt2 && f.sum.s1 == pos->wal_sum.s1 &&
           f.sum.s2 == pos->wal_sum.s2;
}

static enum rc ready_state(struct capture *cap, struct err *err)
{
    if (cap->st != NULL) TRY(state_wake(cap->st, err));
    if (cap->st == NULL)
        TRY(state_open(cap->meta_dir, &cap->st, err));
    else if (cap->reload)
        TRY(state_reload(cap->st, err));
    else
        return RC_OK;
    cap->reload = false;
    cap->pos = *state_pos(cap->st);
    return RC_OK;
}

static enum rc attach(struct capture *cap, struct err *err)
{
    const struct source_opts opts = {.busy_timeout_ms = cap->opts.busy_timeout_ms};
    TRY(source_open(cap->path, &opts, &cap->src, err));
    cap->switched = source_was_switched(cap->src);
    enum rc rc = source_lock(cap->src, err);
    if (rc == RC_OK) rc = attach_locked(cap, err);
    source_unlock(cap->src);
    if (rc != RC_OK) capture_detach(cap);
    return rc;
}

/* Under the write lock: nothing moves between the hold, the wal-index and the decision. */
static enum rc attach_locked(struct capture *cap, struct err *err)
{
    struct wal_index x;
    bool yes = false;
    TRY(source_hold(cap->src, err));
    TRY(source_index(cap->src, &x, err));
    /* An image needs a hold whose base is known. */
    if (!cap->want_snapshot) TRY(continues(cap, &x, &yes, err));
    cap->compare = !yes;
    if (yes) return RC_OK;
    TRY(page_count_now(cap, &x, &cap->base_count, err));
    cap->base = x;
    cap->pos.wal_salt1 = x.salt1;
    cap->pos.wal_salt2 = x.salt2;
    cap->pos.wal_frame = x.frame_max;
    cap->pos.wal_sum = x.sum;
    note_position(cap, &x);
    return RC_OK;
}

/* Does the WAL still hold the frame we stopped at, with the checksum it had? An empty position
 * proves nothing: a deleted WAL looks the same. */
static enum rc continues(struct capture *cap, const struct wal_index *x, bool *ret_yes,
                         struct err *err)
{
    const struct db_pos *pos = &cap->pos;
    uint8_t raw[WAL_FRAME_HEADER_SIZE];
    if (pos->page_size != source_page_size(cap->src) || pos->wal_frame == 0 ||
        pos->wal_frame > x->frame_max || pos->wal_salt1 != x->salt1 || pos->wal_salt2 != x->salt2)
        return RC_OK;
    TRY(source_read_wal(cap->src, wal_frame_off(pos->page_size, pos->wal_frame), raw, sizeof raw,
                        err));
    *ret_yes = frame_is_at(pos, raw);
    return RC_OK;
}

static enum rc page_count_now(struct capture *cap, const struct wal_index *x, uint32_t *ret_count,
                              struct err *err)
{
    uint64_t size;
    *ret_count = x->page_count;
    if (x->frame_max > 0 && x->page_count > 0) return RC_OK;
    TRY(source_db_size(cap->src, &size, err));
    *ret_count = (uint32_t)(size / source_page_size(cap->src));
    return RC_OK;
}

static enum rc sync_once(struct capture *cap, struct batch_scratch *s, struct capture_result *res,
                         struct err *err)
{
    struct wal_index x;
    bool lost = false;
    if (cap->compare) return compare_base(cap, s, res, err);
    TRY(source_index(cap->src, &x, err));
    res->wal_bytes = wal_frame_off(source_page_size(cap->src), (uint64_t)x.frame_max + 1);
    TRY(follow_generation(cap, &x, &lost, err));
    if (!lost && x.frame_max > cap->pos.wal_frame) {
        enum rc rc = sync_wal(cap, s, &x, res, err);
        if (rc != RC_CORRUPT || cap->reload) return rc;
        lost = true;
    }
    if (!lost) {
        note_position(cap, &x);
        return RC_OK;
    }
    /* Start over from the locks: what we believed about this WAL is not so. */
    capture_detach(cap);
    cap->pos.wal_frame = 0;
    TRY(attach(cap, err));
    return compare_base(cap, s, res, err);
}

/* Move to the WAL generation that the index shows, if nothing can be lost between. */
static enum rc follow_generation(struct capture *cap, const struct wal_index *x, bool *ret_lost,
                                 struct err *err)
{
    struct db_pos *pos = &cap->pos;
    bool same = pos->wal_salt1 == x->salt1 && pos->wal_salt2 == x->salt2;
    if (same && pos->wal_frame > 0) {
        *ret_lost = x->frame_max < pos->wal_frame ||
                    (x->frame_max == pos->wal_frame &&
                     (x->sum.s1 != pos->wal_sum.s1 || x->sum.s2 != pos->wal_sum.s2));
        return RC_OK;
    }
    if (!same && !cap->restart_ok) return *ret_lost = true, RC_OK;
    pos->wal_salt1 = x->salt1;
    pos->wal_salt2 = x->salt2;
    pos->wal_frame = 0;
    pos->wal_sum = (struct wal_sum){0};
    return x->frame_max > 0 ? chain_start(cap, x, &pos->wal_sum, err) : RC_OK;
}

static enum rc chain_start(struct capture *cap, const struct wal_index *x, struct wal_sum *ret_sum,
                           struct err *err)
{
    uint8_t raw[WAL_HEADER_SIZE];
    struct wal_header h;
    TRY(source_read_wal(cap->src, 0, raw, sizeof raw, err));
    TRY(wal_header_get(raw, &h, err));
    if (h.salt1 != x->salt1 || h.salt2 != x->salt2)
        return err_set(err, RC_BUSY, "the WAL and its index are of different generations");
    *ret_sum = h.sum;
    return RC_OK;
}

static void note_position(struct capture *cap, const struct wal_index *x)
{
    bool at_end = x->salt1 == cap->pos.wal_salt1 && x->salt2 == cap->pos.wal_salt2 &&
                  x->frame_max == cap->pos.wal_frame;
    cap->restart_ok = at_end && x->backfill == x->frame_max;
    if (at_end) cap->drained = true;
}

static enum rc sync_wal(struct capture *cap, struct batch_scratch *s, const struct wal_index *x,
                        struct capture_result *res, struct err *err)
{
    struct batch_done done;
    TRY(write_wal(cap, s, x, cap->opts.sync_bytes_max, &done, err));
    TRY(seal(cap, s, &done, res, err));
    res->more = cap->pos.wal_frame < x->frame_max;
    cap->restart_ok = false;
    cap->drained = !res->more;
    return RC_OK;
}

static enum rc write_wal(struct capture *cap, struct batch_scratch *s, const struct wal_index *x,
                         uint64_t bytes_max, struct batch_done *ret_done, struct err *err)
{
    const int64_t frame_size = WAL_FRAME_HEADER_SIZE + (int64_t)x->page_size;
    struct wal_index now;
    struct batch_range r;
    struct batch_spec spec = {.kind = BATCH_WAL};
    TRY(batch_collect(s, cap->src, &cap->pos, x, bytes_max, &r, err));
    next_batch(cap, &spec);
    spec.after.page_count = r.page_count;
    spec.after.wal_frame = r.last;
    spec.after.wal_sum = r.sum;
    spec.wal_off = (int64_t)wal_frame_off(x->page_size, r.first);
    spec.wal_size = (int64_t)(r.last - r.first + 1) * frame_size;
    TRY(batch_write(s, cap->src, cap->st, &spec, ret_done, err));
    /* With a hold at mark 0 the WAL may restart under our eyes. The index says so before the first
     * frame is overwritten: if it still shows the same generation, all that we read was of it. */
    TRY(source_index(cap->src, &now, err));
    if (now.salt1 == x->salt1 && now.salt2 == x->salt2) return RC_OK;
    return err_set(err, RC_CORRUPT, "the WAL was restarted while it was read");
}

/* A base may be old: an earlier attempt may have failed after it took the hold. */
static enum rc compare_base(struct capture *cap, struct batch_scratch *s,
                            struct capture_result *res, struct err *err)
{
    TRY(sync_compare(cap, s, res, err));
    res->more = capture_pending(cap) > 0;
    return RC_OK;
}

/* Everything as of the hold: frames that were in the WAL then and not yet in the database file, and
 * the file for all other pages; neither can change while the hold lasts. */
static enum rc sync_compare(struct capture *cap, struct batch_scratch *s,
                            struct capture_result *res, struct err *err)
{
    const uint32_t page_size = source_page_size(cap->src);
    bool first = cap->pos.page_size != page_size;
    struct batch_spec spec = {.kind = first ? BATCH_FULL : BATCH_DIFF};
    struct batch_done done;
    if (cap->base_count == 0)
        return err_set(err, RC_BUSY, "the database is empty; nothing to replicate yet");
    uint32_t size_before = cap->pos.page_size != 0 ? cap->pos.page_size : cap->log_page_size;
    if (first && size_before != 0 && size_before != page_size) cap->want_snapshot = true;
    TRY(collect_base(cap, s, err));
    next_batch(cap, &spec);
    if (first) spec.before = (struct db_pos){.txid = cap->pos.txid};
    spec.after.page_size = page_size;
    spec.after.page_count = cap->base_count;
    spec.wal_off = LTX_WAL_OFF_MIN;
    if (cap->pos.wal_frame > 0) {
        spec.wal_off = (int64_t)wal_frame_off(page_size, cap->pos.wal_frame);
        spec.wal_size = WAL_FRAME_HEADER_SIZE + (int64_t)page_size;
    }
    if (cap->expecting && first && !cap->want_snapshot) {
        TRY(adopt(cap, s, &spec, res, err));
        if (res->why == CAPTURE_ADOPTED) return RC_OK;
    }
    /* Files of another page size are only restorable with the image below them: it comes first. */
    if (first && cap->want_snapshot) TRY(write_snapshot(cap, s, &spec, &spec.after, err));
    TRY(batch_write(s, cap->src, cap->st, &spec, &done, err));
    res->why = first ? CAPTURE_FIRST : CAPTURE_COMPARED;
    if (done.size > 0)
        TRY(seal(cap, s, &done, res, err));
    else
        state_advance(cap->st, &cap->pos);
    if (!first && cap->want_snapshot) TRY(write_snapshot(cap, s, &spec, &cap->pos, err));
    res->snapshot = cap->want_snapshot;
    cap->want_snapshot = cap->compare = false;
    return RC_OK;
}

/* Hash the database as of the hold; if it is the state that the log ends with, take its TXID. */
static enum rc adopt(struct capture *cap, struct batch_scratch *s, const struct batch_spec *batch,
                     struct capture_result *res, struct err *err)
{
    struct batch_spec spec = *batch;
    struct batch_done done;
    spec.kind = BATCH_HASH;
    TRY(batch_write(s, cap->src, cap->st, &spec, &done, err));
    cap->expecting = false;
    if (!digest_equal(done.after.digest, cap->expected)) return RC_OK;
    done.after.txid = cap->pos.txid;
    done.after.timestamp_ms = cap->expected_ms;
    cap->pos = done.after;
    cap->compare = false;
    state_advance(cap->st, &cap->pos);
    res->why = CAPTURE_ADOPTED;
    return state_commit(cap->st, err);
}

static enum rc collect_base(struct capture *cap, struct batch_scratch *s, struct err *err)
{
    struct db_pos from = cap->pos;
    struct batch_range r;
    batch_collect_none(s);
    if (cap->base.backfill == cap->base.frame_max) return RC_OK;
    from.wal_frame = 0;
    TRY(chain_start(cap, &cap->base, &from.wal_sum, err));
    return batch_collect(s, cap->src, &from, &cap->base, 0, &r, err);
}

/* A level 9 image as of `at`, beside the batches. */
static enum rc write_snapshot(struct capture *cap, struct batch_scratch *s,
                              const struct batch_spec *batch, const struct db_pos *at,
                              struct err *err)
{
    char path[OS_PATH_MAX];
    struct batch_spec spec = *batch;
    struct batch_done done;
    state_snapshot_path(cap->st, path);
    spec.kind = BATCH_FULL;
    spec.before = (struct db_pos){0};
    spec.after.txid = at->txid;
    spec.after.timestamp_ms = at->timestamp_ms;
    spec.txid_min = 1;
    spec.snapshot_path = path;
    return batch_write(s, cap->src, cap->st, &spec, &done, err);
}

static void next_batch(const struct capture *cap, struct batch_spec *spec)
{
    int64_t now = os_now_ms();
    spec->encoding = cap->opts.encoding;
    spec->before = spec->after = cap->pos;
    spec->after.txid++;
    spec->txid_min = spec->after.txid;
    /* A clock that jumps back must not make history run backwards: restores by time rely on it. */
    spec->after.timestamp_ms = now > cap->pos.timestamp_ms ? now : cap->pos.timestamp_ms;
}

static enum rc seal(struct capture *cap, struct batch_scratch *s, const struct batch_done *done,
                    struct capture_result *res, struct err *err)
{
    enum rc rc = cap->opts.relaxed ? commits_to_disk(cap, err) : RC_OK;
    if (rc == RC_OK) rc = batch_seal(s, cap->st, done, err);
    if (rc != RC_OK) {
        /* Perhaps the batch is there, perhaps its hashes are half written: replay decides. */
        capture_detach(cap);
        cap->reload = true;
        return rc;
    }
    cap->pos = done->after;
    res->staged = true;
    res->txid = done->after.txid;
    res->pages += done->pages;
    res->size += done->size;
    return RC_OK;
}

/* What is not in the WAL any more was made durable by the checkpoint that took it from there. */
static enum rc commits_to_disk(struct capture *cap, struct err *err)
{
    const char *path = source_wal_path(cap->src), *slash = strrchr(path, '/');
    char folder[OS_PATH_MAX];
    CLEANUP(os_closep) int fd = -1;
    enum rc rc = os_open(path, O_RDONLY, 0, &fd, err);
    if (rc == RC_NOT_FOUND) return RC_OK;
    TRY(rc);
    if (os_fsync(fd, err) != RC_OK) return err_wrap(err, "'%s'", path);
    if (cap->wal_named) return RC_OK;
    snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - path) + 1 : 1,
             slash != NULL ? path : ".");
    TRY(os_fsync_dir(folder, err));
    cap->wal_named = true;
    return RC_OK;
}

static enum rc checkpoint_now(struct capture *cap, struct batch_scratch *s,
                              const struct wal_index *x, struct capture_result *res,
                              struct err *err)
{
    struct batch_done done = {0};
    struct wal_index now = *x;
    /* A busy application commits while we copy; each round leaves it less, so that little is left
     * to do under its lock. */
    for (int i = 0; i < COPY_ROUNDS && now.frame_max - now.backfill >= FREE_COPY_FRAMES; i++) {
        cap->drained = false;
        TRY(source_hold_newest(cap->src, err));
        TRY(source_checkpoint(cap->src, err));
        TRY(sync_once(cap, s, res, err));
        TRY(source_index(cap->src, &now, err));
        if (!cap->drained) return RC_OK;
    }
    enum rc rc = source_lock(cap->src, err);
    if (rc == RC_OK && may_wait(cap, x->frame_max)) {
        /* The hold moves to commits that are not captured yet; those come at once. */
        cap->restart_ok = cap->drained = false;
        rc = source_await_old(cap->src, cap->opts.readers_wait_ms, err);
    }
    if (rc == RC_BUSY) return source_unlock(cap->src), RC_OK; /* a long transaction: later, then */
    if (rc == RC_OK) rc = checkpoint_locked(cap, s, &done, err);
    source_unlock(cap->src);
    if (rc == RC_OK && may_wait(cap, x->frame_max)) await_readers(cap, x->frame_max);
    if (rc == RC_OK && done.size > 0) rc = seal(cap, s, &done, res, err);
    if (rc != RC_OK || !cap->restart_ok || cap->opts.truncate_pages == 0) return rc;
    return x->frame_max >= cap->opts.truncate_pages ? source_truncate_wal(cap->src, err) : RC_OK;
}

/* A reader that stays for seconds shall not make writers wait again and again: only when the WAL is
 * half as long again. */
static void await_readers(struct capture *cap, uint32_t frames)
{
    bool committed = false;
    bool gone =
        cap->restart_ok && source_await_readers(cap->src, cap->opts.readers_wait_ms, &committed);
    cap->wait_frames = gone || committed ? 0 : frames + frames / 2;
}

/* Mostly there is a gap between readers by itself. Where there is none, a wait pays at once. */
static bool may_wait(const struct capture *cap, uint32_t frames)
{
    return cap->opts.readers_wait_ms > 0 && frames >= cap->wait_frames &&
           frames >= WAIT_FACTOR * cap->opts.checkpoint_pages;
}

static enum rc checkpoint_locked(struct capture *cap, struct batch_scratch *s,
                                 struct batch_done *ret_done, struct err *err)
{
    struct wal_index x;
    TRY(source_index(cap->src, &x, err));
    if (x.salt1 != cap->pos.wal_salt1 || x.salt2 != cap->pos.wal_salt2) return RC_OK;
    if (x.frame_max > cap->pos.wal_frame) TRY(write_wal(cap, s, &x, 0, ret_done, err));
    /* From here the frames may leave the WAL; the batch that has them is not sealed yet. */
    struct db_pos end = ret_done->size > 0 ? ret_done->after : cap->pos;
    enum rc rc = source_checkpoint(cap->src, err);
    if (rc == RC_OK) rc = source_index(cap->src, &x, err);
    if (rc != RC_OK) return rc;
    cap->drained = true;
    cap->restart_ok = x.frame_max == end.wal_frame && x.backfill == x.frame_max;
    cap->retry_frames = cap->restart_ok ? 0 : x.frame_max + cap->opts.checkpoint_pages;
    return RC_OK;
}
