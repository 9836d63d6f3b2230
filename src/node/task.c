/* task.c -- see task.h. */
#include "node/task.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/mem.h"
#include "log/plan.h"
#include "node/waits.h"

#define BACKOFF_MIN_MS   1000
#define BACKOFF_MAX_MS   30000  /* so soon after a store is back, all of it goes on */
#define FENCED_MAX_MS    300000 /* between two looks whether the other writer's log is gone */
#define LOG_EVERY_MS     30000
#define SETTLE_MS        5      /* from the first write of a transaction to a look at the WAL */
#define LINGER_MS        600000 /* so long a commit may take from its last write to its end */
#define BUSY_LOOK_MS     100    /* how often an active WAL's length is looked at */
#define BEHIND_LOOK_MS   2000   /* the same at most, while the store is slow or away */
#define EARLY_FACTOR     4      /* cut early from this many times the checkpoint length */
#define SLEEP_AFTER_MS   10000  /* unless the pools say otherwise */
#define SLEEP_PAGES_MAX  2048   /* waking up means to compare all of it: some milliseconds */
#define TRIM_AFTER_MS    2000
#define STORE_TIMEOUT_MS 120000
#define WAITED_FOR_MS    2000   /* the longest pause between tries while somebody waits */
#define LONG_AGO_MS      300000 /* no interval that begins there holds up the first time */

struct failures { /* a run of failures is logged once, then at most every LOG_EVERY_MS */
    uint32_t count;
    bool shared; /* it is part of the outage */
    int64_t since_ms, logged_ms, backoff_ms;
};

struct remote { /* the newest that the store has */
    uint64_t txid;
    struct ltx_header h;
    bool broken; /* but it cannot be restored */
};

struct task {
    const struct config_db *db;
    struct task_pools pools;
    bool pooled;
    struct store *store;
    struct log log;
    struct capture_opts capture_opts;
    int64_t interval_ms, poll_ms, sleep_after_ms;

    /* capture job only */
    struct sched_job capture_job;
    struct capture *cap;
    bool announced; /* "replicating" was logged */
    bool absent;    /* the database does not exist; logged */
    bool no_bell;   /* poll; logged */
    bool asleep;    /* let go of, until the bell rings */
    bool force;     /* a checkpoint was asked for */
    int64_t cut_ms, checkpoint_ms;
    int wal_watch, gone_watch, folder_watch;
    struct failures capture_fails;
    bool asked;      /* the upload job was told to look at the log */
    int64_t news_ms; /* when a capture last found something */

    /* upload job only */
    struct sched_job upload_job;
    struct failures upload_fails, look_fails;
    struct task_outage *outage, own_outage;
    struct remote remote; /* once `looked` is set the capture job's */

    /* both */
    atomic_bool looked;                /* at the log; `remote` is filled in */
    atomic_bool placed;                /* the place in the log is known; no upload before */
    _Atomic uint64_t staged, uploaded; /* newest TXID here, newest in the store */
    atomic_bool snapshot;              /* a whole image waits, too */
    atomic_bool waiting;               /* capture waits for the upload */
    atomic_bool rung;                  /* the bell rang since the last capture */
    _Atomic int64_t rung_ms;           /* when it last did */
    struct waits waits;
    struct sched_job waits_job; /* in capture's pool: for those whose time passes */
    atomic_uint capturing;      /* 1 while a capture may have looked at the WAL already */
    atomic_uint checkpoints;    /* that were asked for */
    atomic_uint checkpointed;   /* of them, done */
    atomic_bool failing;        /* the store does */
    atomic_bool ending;         /* wakes nothing any more */
};

static enum rc check_folder(const char *path, struct err *err);
static int64_t run_capture(struct sched_job *job, void *worker);
static bool nothing_new(struct task *t);
static enum rc capture_asked(struct task *t, struct batch_scratch *s, struct err *err);
static void answer_waits(struct task *t, uint64_t ticket);
static int64_t run_waits(struct sched_job *job, void *worker);
static int64_t run_upload(struct sched_job *job, void *worker);
static void announce(struct task *t);
static void ask_for_place(struct task *t);
static enum rc look(struct task *t, const struct call *c, struct err *err);
static enum rc take_place(struct task *t, struct err *err);
static enum rc check_chain(const struct log_files *files, bool *ret_broken, struct err *err);
static const struct log_file *newest_below(const struct log_files *files, uint32_t level);
static bool staged_here(struct task *t, uint64_t txid, const struct ltx_header *remote);
static enum rc known_here(struct task *t, uint64_t txid, const struct ltx_header *remote,
                          bool *ret_known, struct err *err);
static enum rc capture_all(struct task *t, struct batch_scratch *s, struct err *err);
static enum rc note_staged(struct task *t, const struct capture_result *res, struct err *err);
static void drop_watches(struct task *t);
static int64_t capture_failed(struct task *t, const struct err *err);
static int64_t rest(struct task *t, int64_t now);
static int64_t watch_absent(struct task *t);
static enum rc upload_all(struct task *t, const struct call *c, struct err *err);
static enum rc upload_batch(struct task *t, const struct call *c, uint64_t txid, struct err *err);
static enum rc upload_snapshot(struct task *t, const struct call *c, struct err *err);
static void wake(struct task *t, struct sched *s, struct sched_job *job, int64_t due_ms);
static int64_t note_failure(struct failures *f, const struct task *t, const char *what,
                            const struct err *err);
static void note_success(struct failures *f, const struct task *t, const char *what);
static int64_t count_failure(struct failures *f, const struct err *err, int64_t now);
static int64_t note_store_failure(struct failures *f, struct task *t, const char *what,
                                  const struct err *err);
static void note_store_success(struct failures *f, struct task *t, const char *what);

enum rc task_new(const struct config *cfg, const struct config_db *db,
                 const struct task_pools *pools, struct task **ret_t, struct err *err)
{
    struct task *t = mem_calloc(1, sizeof *t);
    if (t == NULL) return err_mem(err, "a database's task");
    t->db = db;
    t->pooled = pools != NULL;
    if (pools != NULL) t->pools = *pools;
    t->own_outage = (struct task_outage)TASK_OUTAGE_INIT;
    t->outage = t->pools.outage != NULL ? t->pools.outage : &t->own_outage;
    t->capture_job.run = run_capture;
    t->upload_job.run = run_upload;
    t->waits_job.run = run_waits;
    waits_init(&t->waits);
    t->interval_ms = db->replica.sync_interval_ms;
    t->poll_ms = db->monitor_interval_ms > 0 ? db->monitor_interval_ms : t->interval_ms;
    t->sleep_after_ms = t->pools.sleep_after_ms > 0 ? t->pools.sleep_after_ms : SLEEP_AFTER_MS;
    t->cut_ms = t->checkpoint_ms = os_mono_ms() - LONG_AGO_MS;
    t->wal_watch = t->gone_watch = t->folder_watch = BELL_NONE;
    int64_t truncate = db->truncate_page_n == 0 ? 121359 : db->truncate_page_n;
    t->capture_opts = (struct capture_opts){
        .busy_timeout_ms = (int)(db->busy_timeout_ms < INT32_MAX ? db->busy_timeout_ms : INT32_MAX),
        .encoding = strcmp(cfg->ltx_encoding, "block") == 0 ? LTX_ENC_BLOCK : LTX_ENC_FRAME,
        .checkpoint_pages = (uint32_t)db->min_checkpoint_page_count,
        .truncate_pages = truncate < 0 ? 0 : (uint32_t)truncate,
        .readers_wait_ms = t->pools.readers_wait_ms,
        .sync_bytes_max = (uint64_t)db->max_sync_wal_bytes,
        .relaxed = t->pools.relaxed,
    };
    enum rc rc = config_replica_open(&db->replica, &t->store, err);
    t->log.store = t->store;
    if (rc == RC_OK) rc = check_folder(db->path, err);
    if (rc == RC_OK) rc = capture_open(db->path, db->meta_path, &t->capture_opts, &t->cap, err);
    if (rc != RC_OK) {
        task_free(t);
        return err_wrap(err, "database '%s'", db->path);
    }
    if (state_was_reset(capture_state(t->cap)))
        log_warn("the local state was damaged and is started anew", "db", db->path, "folder",
                 db->meta_path);
    atomic_store(&t->staged, state_pos(capture_state(t->cap))->txid);
    *ret_t = t;
    return RC_OK;
}

/* The database may still come, its folder must be there: made by us, with our user and mode, it
 * would keep the application out. */
static enum rc check_folder(const char *path, struct err *err)
{
    char folder[OS_PATH_MAX];
    struct stat st;
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL) return RC_OK;
    slash[slash == folder] = '\0';
    if (os_stat(folder, &st, err) == RC_OK) return RC_OK;
    return err_wrap(err, "the database's folder must exist");
}

void task_free(struct task *t)
{
    if (t == NULL) return;
    capture_close(t->cap);
    store_close(t->store);
    waits_fini(&t->waits);
    mem_free(t);
}

const char *task_path(const struct task *t)
{
    return t->db->path;
}

void task_counts(const struct task *t, struct task_counts *ret)
{
    uint64_t uploaded = atomic_load(&t->uploaded), staged = atomic_load(&t->staged);
    *ret = (struct task_counts){.store_type = store_type(t->store),
                                .behind = staged > uploaded ? staged - uploaded : 0};
    store_stats(t->store, &ret->stats);
}

enum rc task_start(struct task *t, struct err *err)
{
    return sched_wake(t->pools.capture, &t->capture_job, os_mono_ms(), err);
}

void task_ring(void *owner)
{
    struct task *t = owner;
    atomic_store(&t->rung_ms, os_mono_ms());
    atomic_store(&t->rung, true);
    wake(t, t->pools.capture, &t->capture_job, os_mono_ms() + SETTLE_MS);
}

/* The commit is done: nothing lingers, so rung_ms is not for this. If it has rung already, a
 * capture is to come that has not looked at the WAL yet. */
void task_committed(struct task *t)
{
    if (atomic_exchange(&t->rung, true)) return;
    wake(t, t->pools.capture, &t->capture_job, os_mono_ms() + SETTLE_MS);
}

void task_wait(struct task *t, struct tenant_wait *w)
{
    int64_t deadline_ms = w->deadline_ms; /* it may be over as soon as it is added */
    waits_add(&t->waits, w);
    if (deadline_ms != 0) wake(t, t->pools.capture, &t->waits_job, deadline_ms);
    if (atomic_load(&t->failing))
        wake(t, t->pools.upload, &t->upload_job, os_mono_ms() + WAITED_FOR_MS);
    wake(t, t->pools.capture, &t->capture_job, os_mono_ms());
}

/*
 * A commit from before this call is in the next batch. But if a capture runs, it may have looked at
 * the WAL before the commit: then in the one after. The other way round, a capture that begins
 * after the first line has the commit, whether its batch is counted in the second or not.
 */
uint64_t task_index(struct task *t)
{
    unsigned capturing = atomic_fetch_add(&t->capturing, 0); /* also a fence behind the commit */
    if (!atomic_load(&t->placed)) return 0;
    return atomic_load(&t->staged) + 1 + capturing;
}

void task_place(struct task *t, struct task_place *ret)
{
    uint64_t uploaded = atomic_load(&t->uploaded);
    ret->known = atomic_load(&t->placed);
    ret->uploaded = ret->known ? uploaded : 0;
    ret->staged = atomic_load(&t->staged);
    ret->failing = atomic_load(&t->failing);
}

enum rc task_checkpoint(struct task *t, int64_t timeout_ms, struct err *err)
{
    int64_t end_ms = os_mono_ms() + timeout_ms;
    unsigned mine = atomic_fetch_add(&t->checkpoints, 1) + 1;
    wake(t, t->pools.capture, &t->capture_job, os_mono_ms());
    while ((int)(atomic_load(&t->checkpointed) - mine) < 0) {
        if (os_mono_ms() >= end_ms)
            return err_set(err, RC_BUSY, "no checkpoint of '%s' for %" PRId64 " ms", t->db->path,
                           timeout_ms);
        os_sleep_ms(1);
    }
    return RC_OK;
}

const struct log *task_log(const struct task *t)
{
    return &t->log;
}

void task_staged_path(const struct task *t, uint64_t txid, char ret_path[OS_PATH_MAX])
{
    state_staged_path(capture_state(t->cap), txid, ret_path);
}

/* The jobs wake each other: what began before `ending` was seen is over after the first round, and
 * what it has woken after the second. */
void task_stop(struct task *t)
{
    atomic_store(&t->ending, true);
    for (int round = 0; round < 2; round++) {
        sched_drop(t->pools.upload, &t->upload_job);
        sched_drop(t->pools.capture, &t->capture_job);
        sched_drop(t->pools.capture, &t->waits_job);
        bell_drop(t->pools.bell, t);
    }
    waits_fail_all(&t->waits, RC_CANCELED, "the database is being closed");
}

enum rc task_once(struct task *t, struct batch_scratch *s, const struct call *c, bool snapshot,
                  struct err *err)
{
    t->pooled = false;
    if (t->asleep && !atomic_load(&t->rung) && !snapshot) return upload_all(t, c, err);
    if (!atomic_load(&t->placed)) {
        if (!atomic_load(&t->looked)) TRY(look(t, c, err));
        TRY(take_place(t, err));
    }
    if (snapshot) capture_want_snapshot(t->cap);
    enum rc rc = capture_all(t, s, err);
    if (rc == RC_REPLACED) rc = capture_all(t, s, err); /* opens the new file */
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    /* Batches of a database that was deleted since are not forgotten. */
    struct err upload_err;
    if (upload_all(t, c, &upload_err) == RC_OK) return rc;
    *err = upload_err;
    return err->rc;
}

/* ---- capture ---- */

static int64_t run_capture(struct sched_job *job, void *worker)
{
    struct task *t = (struct task *)((char *)job - offsetof(struct task, capture_job));
    struct err err;
    int64_t now = os_mono_ms();
    if (!atomic_load(&t->placed)) {
        if (!atomic_load(&t->looked))
            ask_for_place(t);
        else if (take_place(t, &err) != RC_OK)
            return capture_failed(t, &err);
    }
    /* Without any position nothing can be numbered; with one, capture goes on meanwhile. */
    if (!atomic_load(&t->placed) && atomic_load(&t->staged) == 0) return SCHED_NEVER;
    if (nothing_new(t)) return SCHED_NEVER;
    bool asked =
        waits_urgent(&t->waits) || atomic_load(&t->checkpoints) != atomic_load(&t->checkpointed);
    uint32_t early = EARLY_FACTOR * t->capture_opts.checkpoint_pages;
    bool long_wal = capture_pending(t->cap) >= early;
    bool behind = atomic_load(&t->staged) > atomic_load(&t->uploaded);
    if (!long_wal && !asked && now < t->cut_ms + t->interval_ms) {
        int64_t cut = t->cut_ms + t->interval_ms;
        return now + BUSY_LOOK_MS < cut ? now + BUSY_LOOK_MS : cut;
    }
    if (!long_wal && behind) {
        atomic_store(&t->waiting, true);
        if (atomic_load(&t->staged) > atomic_load(&t->uploaded)) {
            int64_t look_ms = (now - t->cut_ms) / 8; /* thousands may wait for one store */
            if (look_ms > BEHIND_LOOK_MS) look_ms = BEHIND_LOOK_MS;
            return now + (look_ms > BUSY_LOOK_MS ? look_ms : BUSY_LOOK_MS);
        }
        atomic_store(&t->waiting, false);
    }
    if (capture_asked(t, worker, &err) != RC_OK) return capture_failed(t, &err);
    if (t->capture_fails.count > 0) waits_note(&t->waits, NULL, NULL);
    note_success(&t->capture_fails, t, "capture");
    return rest(t, os_mono_ms());
}

/* Asleep, and it has not rung: whoever asks need not wake it. */
static bool nothing_new(struct task *t)
{
    if (!t->asleep || atomic_load(&t->rung) || !atomic_load(&t->placed)) return false;
    atomic_store(&t->checkpointed, atomic_load(&t->checkpoints));
    answer_waits(t, waits_wanted(&t->waits));
    return true;
}

static enum rc capture_asked(struct task *t, struct batch_scratch *s, struct err *err)
{
    uint64_t ticket = waits_wanted(&t->waits); /* before the WAL is looked at */
    unsigned checkpoints = atomic_load(&t->checkpoints);
    t->force = checkpoints != atomic_load(&t->checkpointed);
    atomic_store(&t->capturing, 1);
    enum rc rc = capture_all(t, s, err);
    atomic_store(&t->capturing, 0);
    if (rc == RC_OK) atomic_store(&t->checkpointed, checkpoints);
    /* No database: nothing was ever committed to it. */
    if (rc == RC_OK || rc == RC_NOT_FOUND) answer_waits(t, ticket);
    return rc;
}

static void answer_waits(struct task *t, uint64_t ticket)
{
    if (!atomic_load(&t->placed)) return; /* what is staged may get another TXID */
    waits_captured(&t->waits, ticket, atomic_load(&t->staged));
    waits_stored(&t->waits, atomic_load(&t->uploaded));
}

static int64_t run_waits(struct sched_job *job, void *worker)
{
    struct task *t = (struct task *)((char *)job - offsetof(struct task, waits_job));
    (void)worker;
    int64_t next_ms = waits_expire(&t->waits, os_mono_ms());
    return next_ms == INT64_MAX ? SCHED_NEVER : next_ms;
}

/* Sync until the WAL's end, then checkpoint if it is time. */
static enum rc capture_all(struct task *t, struct batch_scratch *s, struct err *err)
{
    struct capture_result res;
    int64_t now = os_mono_ms();
    t->asleep = false;
    atomic_store(&t->rung, false);
    do {
        TRY(capture_sync(t->cap, s, &res, err));
        TRY(note_staged(t, &res, err));
        if (res.staged) t->cut_ms = t->news_ms = now;
    } while (res.more);
    if (t->absent) drop_watches(t); /* the folder's; now there are better ones */
    t->absent = false;
    int64_t every = t->db->checkpoint_interval_ms;
    bool force = t->force || (every > 0 && now - t->checkpoint_ms >= every);
    if (force) t->checkpoint_ms = now;
    TRY(capture_checkpoint(t->cap, s, force, &res, err));
    return note_staged(t, &res, err);
}

static enum rc note_staged(struct task *t, const struct capture_result *res, struct err *err)
{
    char txid[17], pages[16];
    const struct config_db *db = t->db;
    if (res->switched)
        log_warn("the database was switched to WAL mode, which replication needs", "db", db->path);
    if (res->why == CAPTURE_ADOPTED)
        log_info("the database is the newest state of the replica, going on from there", "db",
                 db->path);
    if (res->why == CAPTURE_COMPARED)
        log_debug("continuity could not be proved, compared the database page by page", "db",
                  db->path);
    if (res->snapshot) atomic_store(&t->snapshot, true);
    if (res->txid < atomic_load(&t->staged)) {
        /* A local state that was damaged under our hands counts from the start again. */
        atomic_store(&t->placed, false);
        atomic_store(&t->looked, false);
        t->asked = false;
        waits_forget(&t->waits);
        atomic_store(&t->staged, res->txid);
        return err_set(err, RC_BUSY,
                       "the local state was started anew; looking for the place in "
                       "the log again");
    }
    /* A batch whose seal failed late is found by the replay: nobody has been told of it. */
    if (res->txid > atomic_load(&t->staged)) {
        txid_put(res->txid, txid);
        snprintf(pages, sizeof pages, "%" PRIu32, res->pages);
        log_debug("batch staged", "db", db->path, "txid", txid, "pages", pages);
        atomic_store(&t->staged, res->txid);
    } else if (!res->snapshot) {
        return RC_OK;
    }
    if (t->pooled) wake(t, t->pools.upload, &t->upload_job, os_mono_ms());
    return RC_OK;
}

static int64_t capture_failed(struct task *t, const struct err *err)
{
    if (err->rc == RC_NOT_FOUND) return watch_absent(t);
    if (err->rc == RC_REPLACED) {
        log_warn("the database file was deleted or replaced; its log continues with what is there "
                 "now, as a new transaction",
                 "db", t->db->path);
        drop_watches(t); /* they are on files that nobody finds any more */
        return os_mono_ms() + t->poll_ms;
    }
    waits_note(&t->waits, "the log cannot be written", err);
    return note_failure(&t->capture_fails, t, "capture", err);
}

/* Nothing to do for now: arm the bell, then make sure that nothing came before it was armed. */
static int64_t rest(struct task *t, int64_t now)
{
    struct err err;
    const char *wal = capture_wal_path(t->cap);
    if (wal == NULL) return now + t->poll_ms;
    enum rc rc = bell_arm(t->pools.bell, wal, t, &t->wal_watch, &err);
    bool first = t->gone_watch == BELL_NONE;
    if (rc == RC_OK && first)
        rc = bell_watch_gone(t->pools.bell, t->db->path, t, &t->gone_watch, &err);
    if (rc != RC_OK) {
        if (!t->no_bell)
            log_warn("no change notification here, looking at the WAL every monitor-interval", "db",
                     t->db->path, "reason", err.text);
        t->no_bell = true;
        return now + t->poll_ms;
    }
    bool in_flight = capture_in_flight(t->cap); /* first: it may be pending right after */
    /* The watch is on what has the name now: is that still the file that is captured? */
    if (first || capture_pending(t->cap) > 0) return now + SETTLE_MS;
    /* It rang, but there is nothing, or frames were written while the bell was not armed: a commit
     * on its way through an fsync to the wal-index, which rings no more, or a transaction that is
     * rolled back. Look again, at growing intervals. */
    int64_t rung_ms = atomic_load(&t->rung_ms), since_ms = now - rung_ms;
    bool waits = rung_ms >= t->news_ms;
    if (!waits && in_flight) {
        waits = true;
        since_ms = now - t->news_ms;
    }
    if (waits && since_ms < LINGER_MS) return now + (since_ms > SETTLE_MS ? since_ms : SETTLE_MS);
    if (t->db->checkpoint_interval_ms > 0 && capture_wants_checkpoint(t->cap))
        return t->checkpoint_ms + t->db->checkpoint_interval_ms;
    if (now < t->cut_ms + t->sleep_after_ms) return t->cut_ms + t->sleep_after_ms;
    if (capture_sleep(t->cap, SLEEP_PAGES_MAX, &t->asleep, &err) != RC_OK)
        log_debug("cannot rest", "db", t->db->path, "error", err.text);
    if (t->asleep) wake(t, t->pools.capture, t->pools.trim, now + TRIM_AFTER_MS);
    return SCHED_NEVER;
}

static void drop_watches(struct task *t)
{
    if (t->pooled) bell_drop(t->pools.bell, t);
    t->wal_watch = t->gone_watch = t->folder_watch = BELL_NONE;
}

static int64_t watch_absent(struct task *t)
{
    char folder[OS_PATH_MAX];
    struct err err;
    if (!t->absent)
        log_write(t->pools.quiet ? LOG_DEBUG : LOG_INFO,
                  "the database does not exist, waiting for it", "db", t->db->path, NULL);
    t->absent = true;
    drop_watches(t);
    snprintf(folder, sizeof folder, "%s", t->db->path);
    char *slash = strrchr(folder, '/');
    if (slash != NULL) slash[slash == folder] = '\0';
    struct stat st;
    enum rc rc = bell_watch_folder(t->pools.bell, folder, t, &t->folder_watch, &err);
    /* It may have come before the watch, or be there and still empty: look again soon. */
    if (rc != RC_OK || os_stat(t->db->path, &st, &err) == RC_OK) return os_mono_ms() + t->poll_ms;
    return SCHED_NEVER;
}

/* ---- where in the log are we? ---- */

/*
 * The store says what exists; the local state says what we know. If the newest transaction in the
 * store is one that we made (same digest), go on from there. If it is unknown, somebody else made
 * it, or our state is lost: the next batch follows it and holds the whole database.
 *
 * Only the upload job looks at the store: a store that hangs must not keep the few threads of the
 * capture pool from the databases of another one. Then the capture job draws the conclusion.
 */
static void ask_for_place(struct task *t)
{
    if (t->asked) return;
    t->asked = true;
    wake(t, t->pools.upload, &t->upload_job, os_mono_ms());
}

static enum rc take_place(struct task *t, struct err *err)
{
    uint64_t first, last, remote = t->remote.txid;
    const struct ltx_header *h = &t->remote.h;
    bool known;
    struct state *st = capture_state(t->cap);
    uint64_t local = state_pos(st)->txid;
    TRY(known_here(t, remote, h, &known, err));
    TRY(state_staged_range(st, &first, &last, err));
    bool bridged = remote == local || (first != 0 && first <= remote + 1 && last == local);
    if (!known || !bridged) {
        if (local != 0)
            log_warn("local state and replica do not fit together, uploading the whole database",
                     "db", t->db->path);
        TRY(capture_restart_at(t->cap, remote, err));
        capture_log_page_size(t->cap, h->page_size);
        if (h->has_digest) capture_expect(t->cap, h->digest, h->timestamp_ms);
        local = remote;
    }
    if (t->remote.broken) {
        log_warn("files are missing in the replica, uploading a whole image so that it can be "
                 "restored again",
                 "db", t->db->path);
        capture_want_snapshot(t->cap);
    }
    struct stat sb;
    char path[OS_PATH_MAX];
    struct err ignored;
    state_snapshot_path(st, path);
    atomic_store(&t->snapshot, os_stat(path, &sb, &ignored) == RC_OK);
    atomic_store(&t->staged, local);
    atomic_store(&t->uploaded, remote);
    atomic_store(&t->placed, true);
    announce(t);
    if (t->pooled && local > remote) wake(t, t->pools.upload, &t->upload_job, os_mono_ms());
    return RC_OK;
}

/* Said once, when the place in the log is known. */
static void announce(struct task *t)
{
    if (t->announced) return;
    t->announced = true;
    log_write(t->pools.quiet ? LOG_DEBUG : LOG_INFO, "replicating", "db", t->db->path, "type",
              store_type(t->store), "to", store_name(t->store), NULL);
    if (!store_can(t->store, STORE_CAP_CREATE))
        log_warn("this store cannot refuse a second writer: see to it that nothing else replicates "
                 "to the same place",
                 "db", t->db->path, "to", store_name(t->store));
}

/* Can the newest state be restored from these files? */
static enum rc check_chain(const struct log_files *files, bool *ret_broken, struct err *err)
{
    const struct plan_target latest = {.kind = PLAN_LATEST};
    CLEANUP(log_files_fini) struct log_files plan = {0};
    *ret_broken = false;
    if (files->count == 0) return RC_OK;
    enum rc rc = plan_make(files, &latest, &plan, err);
    *ret_broken = rc == RC_GAP || rc == RC_NOT_FOUND;
    return *ret_broken ? RC_OK : rc;
}

static enum rc look(struct task *t, const struct call *c, struct err *err)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    char key[STORE_KEY_MAX + 1];
    uint8_t raw[LTX_HEADER_SIZE];
    struct remote r = {0};
    TRY(log_list_all(&t->log, c, &files, err));
    TRY(check_chain(&files, &r.broken, err));
    const struct log_file *f = newest_below(&files, LOG_LEVEL_COUNT);
    while (f != NULL) {
        log_key(&t->log, f->level, f->txid_min, f->txid_max, key);
        TRY(store_read(t->store, c, key, 0, raw, sizeof raw, err));
        TRY(ltx_header_get(raw, &r.h, err));
        r.txid = f->txid_max;
        if (f->level != LOG_LEVEL_SNAPSHOT || !staged_here(t, f->txid_max, &r.h)) break;
        f = newest_below(&files, LOG_LEVEL_SNAPSHOT); /* our image, whose batch comes next */
    }
    if (f == NULL) r = (struct remote){.broken = r.broken};
    if (f == NULL || f->level != 0) r.h.has_digest = false; /* 0 was emptied: known to nobody */
    t->remote = r;
    atomic_store(&t->looked, true);
    return RC_OK;
}

static const struct log_file *newest_below(const struct log_files *files, uint32_t level)
{
    const struct log_file *newest = NULL;
    for (size_t i = 0; i < files->count; i++) {
        const struct log_file *f = &files->items[i];
        if (f->level < level && (newest == NULL || f->txid_max > newest->txid_max)) newest = f;
    }
    return newest;
}

static bool staged_here(struct task *t, uint64_t txid, const struct ltx_header *remote)
{
    struct ltx_header h;
    struct err ignored;
    uint64_t size;
    return remote->has_digest &&
           state_staged_info(capture_state(t->cap), txid, &h, &size, &ignored) == RC_OK &&
           digest_equal(remote->digest, h.digest);
}

static enum rc known_here(struct task *t, uint64_t txid, const struct ltx_header *remote,
                          bool *ret_known, struct err *err)
{
    struct state *st = capture_state(t->cap);
    const struct db_pos *pos = state_pos(st);
    struct ltx_header h;
    uint64_t size;
    *ret_known = false;
    if (txid == 0) return *ret_known = pos->txid == 0 || pos->page_size != 0, RC_OK;
    if (!remote->has_digest || txid > pos->txid || pos->page_size == 0) return RC_OK;
    if (txid == pos->txid) return *ret_known = digest_equal(remote->digest, pos->digest), RC_OK;
    enum rc rc = state_staged_info(st, txid, &h, &size, err);
    if (rc == RC_NOT_FOUND || rc == RC_CORRUPT) return RC_OK;
    TRY(rc);
    *ret_known = digest_equal(remote->digest, h.digest);
    return RC_OK;
}

/* ---- upload ---- */

static int64_t run_upload(struct sched_job *job, void *worker)
{
    struct task *t = (struct task *)((char *)job - offsetof(struct task, upload_job));
    struct call c = {.cancel = t->pools.cancel, .deadline_ms = os_mono_ms() + STORE_TIMEOUT_MS};
    struct err err;
    (void)worker;
    if (!atomic_load(&t->placed)) { /* take_place wakes this job */
        const char *what = "find the place in the log";
        if (!atomic_load(&t->looked)) {
            if (look(t, &c, &err) != RC_OK)
                return note_store_failure(&t->look_fails, t, what, &err);
            note_store_success(&t->look_fails, t, what);
        }
        wake(t, t->pools.capture, &t->capture_job, os_mono_ms());
        return SCHED_NEVER;
    }
    if (upload_all(t, &c, &err) != RC_OK)
        return note_store_failure(&t->upload_fails, t, "upload", &err);
    note_store_success(&t->upload_fails, t, "upload");
    if (atomic_exchange(&t->waiting, false))
        wake(t, t->pools.capture, &t->capture_job, os_mono_ms());
    return SCHED_NEVER;
}

static enum rc upload_all(struct task *t, const struct call *c, struct err *err)
{
    while (atomic_load(&t->uploaded) < atomic_load(&t->staged)) {
        uint64_t txid = atomic_load(&t->uploaded) + 1;
        TRY(call_check(c, err));
        if (atomic_load(&t->snapshot)) TRY(upload_snapshot(t, c, err));
        TRY(upload_batch(t, c, txid, err));
        atomic_store(&t->uploaded, txid);
        waits_stored(&t->waits, txid);
    }
    if (atomic_load(&t->snapshot)) TRY(upload_snapshot(t, c, err));
    return state_drop_staged(capture_state(t->cap), atomic_load(&t->uploaded), err);
}

static enum rc upload_batch(struct task *t, const struct call *c, uint64_t txid, struct err *err)
{
    char path[OS_PATH_MAX], hex[17];
    struct ltx_header h;
    struct log_file f = {.level = 0, .txid_min = txid, .txid_max = txid};
    struct state *st = capture_state(t->cap);
    state_staged_path(st, txid, path);
    TRY(state_staged_info(st, txid, &h, &f.size, err));
    f.created_ms = h.timestamp_ms;
    enum rc rc = log_put_file(&t->log, c, &f, path, store_can(t->store, STORE_CAP_CREATE), err);
    txid_put(txid, hex);
    if (rc == RC_CONFLICT) {
        /* Our own upload whose answer was lost, or somebody else's transaction? */
        bool same = false;
        TRY(log_same(&t->log, c, &f, path, &same, err));
        if (!same)
            return err_set(err, RC_FENCED,
                           "the replica has another transaction %s: a second process writes to it. "
                           "Stop one of them, then restart this one",
                           hex);
        rc = RC_OK;
    }
    if (rc == RC_OK) log_debug("ltx file uploaded", "db", t->db->path, "txid", hex);
    return rc;
}

/* A whole image goes to level 9, before the batch of the same position. */
static enum rc upload_snapshot(struct task *t, const struct call *c, struct err *err)
{
    char path[OS_PATH_MAX];
    uint8_t raw[LTX_HEADER_SIZE];
    struct ltx_header h;
    struct stat sb;
    size_t got;
    state_snapshot_path(capture_state(t->cap), path);
    {
        CLEANUP(os_closep) int fd = -1;
        TRY(os_open(path, 0, 0, &fd, err));
        TRY(os_fstat(fd, &sb, err));
        TRY(os_pread(fd, raw, sizeof raw, 0, &got, err));
        if (got < sizeof raw) return err_set(err, RC_CORRUPT, "'%s' is cut", path);
        TRY(ltx_header_get(raw, &h, err));
    }
    struct log_file f = {.level = LOG_LEVEL_SNAPSHOT,
                         .txid_min = h.txid_min,
                         .txid_max = h.txid_max,
                         .size = (uint64_t)sb.st_size,
                         .created_ms = h.timestamp_ms};
    TRY(log_put_file(&t->log, c, &f, path, false, err));
    TRY(os_unlink(path, err));
    atomic_store(&t->snapshot, false);
    log_info("snapshot uploaded", "db", t->db->path);
    return RC_OK;
}

/* ---- failures ---- */

static void wake(struct task *t, struct sched *s, struct sched_job *job, int64_t due_ms)
{
    struct err err;
    if (atomic_load(&t->ending)) return;
    if (sched_wake(s, job, due_ms, &err) != RC_OK) log_error(err.text);
}

static int64_t note_failure(struct failures *f, const struct task *t, const char *what,
                            const struct err *err)
{
    int64_t now = os_mono_ms(), again = count_failure(f, err, now);
    char count[16];
    if (f->count > 1 && now - f->logged_ms < LOG_EVERY_MS) return again;
    snprintf(count, sizeof count, "%" PRIu32, f->count);
    log_error(what, "db", t->db->path, "failures", count, "error", err->text);
    f->logged_ms = now;
    return again;
}

static void note_success(struct failures *f, const struct task *t, const char *what)
{
    char count[16], elapsed[32];
    if (f->count == 0) return;
    snprintf(count, sizeof count, "%" PRIu32, f->count);
    snprintf(elapsed, sizeof elapsed, "%" PRId64 "s", (os_mono_ms() - f->since_ms) / 1000);
    log_info("works again", "db", t->db->path, "what", what, "failures", count, "after", elapsed);
    *f = (struct failures){0};
}

/* Returns when to try again. */
static int64_t count_failure(struct failures *f, const struct err *err, int64_t now)
{
    int64_t most_ms = err->rc == RC_FENCED ? FENCED_MAX_MS : BACKOFF_MAX_MS;
    if (f->count++ == 0) f->since_ms = now;
    f->backoff_ms = f->backoff_ms == 0 ? BACKOFF_MIN_MS : f->backoff_ms * 2;
    if (f->backoff_ms > most_ms) f->backoff_ms = most_ms;
    return now + f->backoff_ms;
}

/* A refusal is about one database. But a store that does not answer is said once for all of them,
 * and again when the last one works. */
static int64_t note_store_failure(struct failures *f, struct task *t, const char *what,
                                  const struct err *err)
{
    struct task_outage *o = t->outage;
    char count[24], dbs[24];
    /* Hurried by the shutdown: its last attempt says what is missing. */
    if (t->pools.cancel != NULL && atomic_load(t->pools.cancel)) return SCHED_NEVER;
    bool away = rc_retryable(err->rc) || err->rc == RC_CANCELED; /* the deadline */
    waits_note(&t->waits, away ? "the store does not answer" : "the store refuses", err);
    atomic_store(&t->failing, true);
    if (!away) return note_failure(f, t, what, err);
    int64_t now = os_mono_ms(), again = count_failure(f, err, now);
    if (again > now + WAITED_FOR_MS && waits_any(&t->waits)) again = now + WAITED_FOR_MS;
    thr_lock(&o->lock);
    if (o->db_count == 0) o->most = o->count = 0, o->since_ms = now;
    if (!f->shared) o->db_count++, o->most++;
    f->shared = true;
    bool say = o->count++ == 0 || now - o->logged_ms >= LOG_EVERY_MS;
    if (say) o->logged_ms = now;
    snprintf(count, sizeof count, "%zu", o->count);
    snprintf(dbs, sizeof dbs, "%zu", o->db_count);
    thr_unlock(&o->lock);
    if (say)
        log_error(what, "db", t->db->path, "failures", count, "databases", dbs, "error", err->text);
    return again;
}

static void note_store_success(struct failures *f, struct task *t, const char *what)
{
    struct task_outage *o = t->outage;
    char count[24], dbs[24], elapsed[32];
    if (f->count > 0) {
        waits_note(&t->waits, NULL, NULL);
        atomic_store(&t->failing, false);
    }
    if (!f->shared) return note_success(f, t, what);
    thr_lock(&o->lock);
    bool last = --o->db_count == 0;
    snprintf(count, sizeof count, "%zu", o->count);
    snprintf(dbs, sizeof dbs, "%zu", o->most);
    snprintf(elapsed, sizeof elapsed, "%" PRId64 "s", (os_mono_ms() - o->since_ms) / 1000);
    thr_unlock(&o->lock);
    if (last)
        log_info("works again", "db", t->db->path, "what", what, "failures", count, "databases",
                 dbs, "after", elapsed);
    *f = (struct failures){0};
}
