/* source.c -- see source.h for the rules of the hold and the write lock. */
#include "db/source.h"
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include "base/fault_sys.h"
#include "base/mem.h"
#include "base/os.h"

#define SHM_REGION_SIZE 32768
#define INDEX_TRIES     100
#define READ_MARKS      5  /* of the wal-index */
#define READ_LOCK       3  /* the shared-memory lock of the first of them */
#define VERSIONS_OFF    18 /* in a database's header: who may write and read it */
#define WAL_VERSION     2

struct file_id {
    dev_t dev;
    ino_t ino;
};

struct source {
    char *path, *wal_path, *shm_path; /* the latter two where a symbolic link leads to */
    struct file_id files[3];          /* what these paths held at the open */
    sqlite3 *holder, *worker;
    sqlite3_file *db_file, *wal_file; /* of the first holder; live until the close */
    volatile const uint8_t *shm;      /* first region of the wal-index */
    uint32_t page_size;
    int busy_timeout_ms;
    int64_t waiting_since_ms; /* in wait_a_little */
    bool held, locked, switched;
};

struct patience {
    struct source *src;
    int64_t end_us;
    bool committed;
};

static enum rc open_conn(struct source *src, sqlite3 **ret_conn, struct err *err);
static bool any_old_reader(struct source *src);
static int wait_for_readers(void *ctx, int tries);
static int wait_a_little(void *ctx, int tries);
static enum rc ensure_wal_mode(struct source *src, struct err *err);
static enum rc look_at_header(struct source *src, bool *ret_wal, struct err *err);
static enum rc switch_to_wal(struct source *src, struct err *err);
static enum rc find_files(struct source *src, struct err *err);
static enum rc identify(const char *path, struct file_id *ret_id, struct err *err);
static enum rc query_text(sqlite3 *conn, const char *sql, char *ret_text, size_t size,
                          struct err *err);
static enum rc exec(sqlite3 *conn, const char *sql, struct err *err);
static enum rc begin_read(sqlite3 *conn, struct err *err);
static void end_tx(sqlite3 *conn);
static enum rc sql_err(struct err *err, sqlite3 *conn, int code, const char *what);
static enum rc read_file(sqlite3_file *f, uint64_t off, void *dst, size_t size, const char *what,
                         struct err *err);
static void install_fault_syscalls(void);

void source_global_init(void)
{
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
    /* A connection takes memory for the pages that it reads, not for twenty at once: most are of
     * databases of a few pages, and those that capture has read one. */
    sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
    sqlite3_config(SQLITE_CONFIG_MMAP_SIZE, (sqlite3_int64)0, (sqlite3_int64)-1);
    sqlite3_initialize();
    install_fault_syscalls();
}

enum rc source_open(const char *path, const struct source_opts *opts, struct source **ret_src,
                    struct err *err)
{
    struct stat st;
    TRY(os_stat(path, &st, err));
    if (!S_ISREG(st.st_mode)) return err_set(err, RC_INVALID, "'%s' is not a regular file", path);
    /* To open it would fix page size and encoding, which its application has still to choose. */
    if (st.st_size == 0) return err_set(err, RC_NOT_FOUND, "'%s' is empty", path);
    struct source *src = mem_calloc(1, sizeof *src);
    if (src == NULL) return err_mem(err, "a database");
    src->busy_timeout_ms = opts->busy_timeout_ms;
    src->path = mem_strdup(path);
    enum rc rc = src->path ? RC_OK : err_mem(err, "a database");
    if (rc == RC_OK) rc = open_conn(src, &src->holder, err);
    if (rc == RC_OK) rc = open_conn(src, &src->worker, err);
    if (rc == RC_OK) rc = ensure_wal_mode(src, err);
    if (rc == RC_OK) rc = find_files(src, err);
    if (rc != RC_OK) {
        source_close(src);
        return err_wrap(err, "open database '%s'", path);
    }
    *ret_src = src;
    return RC_OK;
}

void source_close(struct source *src)
{
    if (src == NULL) return;
    source_unlock(src);
    source_unhold(src);
    /* SQLite unmaps what its WAL layer mapped; an attempt of ours that failed half-way is ours. */
    if (src->db_file != NULL && src->db_file->pMethods != NULL)
        src->db_file->pMethods->xShmUnmap(src->db_file, 0);
    sqlite3_close_v2(src->holder);
    sqlite3_close_v2(src->worker);
    mem_free(src->path);
    mem_free(src->wal_path);
    mem_free(src->shm_path);
    mem_free(src);
}

bool source_was_switched(const struct source *src)
{
    return src->switched;
}

const char *source_wal_path(const struct source *src)
{
    return src->wal_path;
}

uint32_t source_page_size(const struct source *src)
{
    return src->page_size;
}

enum rc source_hold(struct source *src, struct err *err)
{
    ASSERT(!src->held);
    TRY(begin_read(src->holder, err));
    src->held = true;
    return RC_OK;
}

void source_unhold(struct source *src)
{
    if (src->held) end_tx(src->holder);
    src->held = false;
}

bool source_held(const struct source *src)
{
    return src->held;
}

enum rc source_hold_newest(struct source *src, struct err *err)
{
    ASSERT(src->held && !src->locked);
    TRY(begin_read(src->worker, err));
    sqlite3 *old = src->holder;
    src->holder = src->worker;
    src->worker = old;
    end_tx(old);
    return RC_OK;
}

enum rc source_lock(struct source *src, struct err *err)
{
    ASSERT(!src->locked);
    TRY(exec(src->worker, "BEGIN IMMEDIATE", err));
    src->locked = true;
    return RC_OK;
}

void source_unlock(struct source *src)
{
    if (src->locked) end_tx(src->worker);
    src->locked = false;
}

enum rc source_checkpoint(struct source *src, struct err *err)
{
    ASSERT(src->held);
    /* A connection cannot checkpoint inside its own transaction. The worker is free unless it has
     * the write lock; then the holder steps out of the hold, and the lock stands in for it. */
    sqlite3 *conn = src->locked ? src->holder : src->worker;
    if (src->locked) source_unhold(src);
    int code = sqlite3_wal_checkpoint_v2(conn, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    enum rc rc = RC_OK;
    if (code != SQLITE_OK && code != SQLITE_BUSY && code != SQLITE_LOCKED)
        rc = sql_err(err, conn, code, "checkpoint");
    if (src->held) return rc;
    struct err second;
    enum rc held = source_hold(src, &second);
    if (rc == RC_OK && held != RC_OK) *err = second;
    return rc != RC_OK ? rc : held;
}

enum rc source_truncate_wal(struct source *src, struct err *err)
{
    ASSERT(src->held && !src->locked);
    sqlite3_busy_handler(src->worker, NULL, NULL);
    int code =
        sqlite3_wal_checkpoint_v2(src->worker, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_handler(src->worker, wait_a_little, src);
    if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED) return RC_OK;
    return sql_err(err, src->worker, code, "truncate the WAL");
}

/*
 * There are four read marks only; when all are taken, who comes joins an old one, also the worker
 * with its lock, which then stands in its own way. So the hold moves to the newest commit first,
 * and the worker after it, which means to let the lock go for a moment.
 */
enum rc source_await_old(struct source *src, int wait_ms, struct err *err)
{
    int64_t now_us = os_mono_us(), end_us = now_us + wait_ms * 1000, again_us = now_us;
    ASSERT(src->held && src->locked);
    for (;; now_us = os_mono_us()) {
        source_unhold(src); /* the lock stands in for it */
        TRY(source_hold(src, err));
        if (!any_old_reader(src) || now_us >= end_us) return RC_OK;
        if (now_us >= again_us) {
            source_unlock(src);
            TRY(source_lock(src, err));
            again_us = now_us + 2000;
        } else {
            os_sleep_us(50);
        }
    }
}

/* A read mark stays when its readers are gone; whether somebody has it locked tells. */
static bool any_old_reader(struct source *src)
{
    struct wal_index x;
    struct err ignored;
    const sqlite3_io_methods *m = src->db_file->pMethods;
    if (source_index(src, &x, &ignored) != RC_OK) return true;
    for (int i = 1; i < READ_MARKS; i++) {
        if (x.read_mark[i] >= x.frame_max) continue;
        if (m->xShmLock(src->db_file, READ_LOCK + i, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) !=
            SQLITE_OK)
            return true;
        m->xShmLock(src->db_file, READ_LOCK + i, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    }
    return false;
}

bool source_await_readers(struct source *src, int wait_ms, bool *ret_committed)
{
    ASSERT(src->held && !src->locked);
    struct patience p = {.src = src, .end_us = os_mono_us() + wait_ms * 1000};
    sqlite3_busy_handler(src->worker, wait_for_readers, &p);
    int code =
        sqlite3_wal_checkpoint_v2(src->worker, "main", SQLITE_CHECKPOINT_RESTART, NULL, NULL);
    sqlite3_busy_handler(src->worker, wait_a_little, src);
    *ret_committed = p.committed;
    return code == SQLITE_OK;
}

/* With a commit behind our hold there is nothing to wait for: that is us. */
static int wait_for_readers(void *ctx, int tries)
{
    struct patience *p = ctx;
    struct wal_index x;
    struct err ignored;
    (void)tries;
    if (os_mono_us() >= p->end_us || source_index(p->src, &x, &ignored) != RC_OK) return 0;
    p->committed = x.backfill != x.frame_max;
    if (p->committed) return 0;
    os_sleep_us(20);
    return 1;
}

/* Others write while we read; that is the protocol of the wal-index, whose checksum tells. */
__attribute__((no_sanitize("thread"))) static void
copy_shared(uint8_t *to, volatile const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to[i] = from[i];
}

enum rc source_index(struct source *src, struct wal_index *ret_x, struct err *err)
{
    uint8_t copy[WAL_INDEX_HEADER_SIZE];
    for (int i = 0; i < INDEX_TRIES; i++) {
        /* A writer stores copy 2 first, then copy 1; reading in the other order sees it torn. */
        copy_shared(copy, src->shm, sizeof copy);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        wal_index_get(copy, ret_x);
        if (ret_x->valid) return RC_OK;
        if (i >= 2) os_sleep_ms(1);
        if (i % 20 != 10) continue;
        /* Still torn: its writer died in the middle. A new read transaction makes SQLite recover.
         */
        if (src->locked) break;
        TRY(begin_read(src->worker, err));
        end_tx(src->worker);
    }
    return err_set(err, RC_BUSY, "the wal-index of '%s' is not valid yet", src->path);
}

enum rc source_read_wal(struct source *src, uint64_t off, void *dst, size_t size, struct err *err)
{
    return read_file(src->wal_file, off, dst, size, "read the WAL", err);
}

enum rc source_read_db(struct source *src, uint64_t off, void *dst, size_t size, struct err *err)
{
    return read_file(src->db_file, off, dst, size, "read the database", err);
}

enum rc source_db_size(struct source *src, uint64_t *ret_size, struct err *err)
{
    sqlite3_int64 size;
    int code = src->db_file->pMethods->xFileSize(src->db_file, &size);
    if (code != SQLITE_OK) return sql_err(err, NULL, code, "size of the database");
    *ret_size = (uint64_t)size;
    return RC_OK;
}

enum rc source_check_same(struct source *src, struct err *err)
{
    const char *const paths[3] = {src->path, src->wal_path, src->shm_path};
    for (int i = 0; i < 3; i++) {
        struct file_id now;
        enum rc rc = identify(paths[i], &now, err);
        if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
        if (rc == RC_OK && now.dev == src->files[i].dev && now.ino == src->files[i].ino) continue;
        return err_set(err, RC_REPLACED,
                       "'%s' was deleted or replaced while it was being replicated", paths[i]);
    }
    return RC_OK;
}

enum rc db_integrity_check(const char *path, bool full, struct err *err)
{
    sqlite3 *conn = NULL;
    char text[256] = "";
    enum rc rc = RC_OK;
    int code = sqlite3_open_v2(path, &conn, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) rc = sql_err(err, conn, code, "open");
    if (rc == RC_OK)
        rc = query_text(conn, full ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)", text,
                        sizeof text, err);
    sqlite3_close_v2(conn);
    if (rc != RC_OK) return err_wrap(err, "check '%s'", path);
    if (strcmp(text, "ok") == 0) return RC_OK;
    return err_set(err, RC_CORRUPT, "'%s' fails its integrity check: %s", path, text);
}

const char *db_sqlite_version(void)
{
    return sqlite3_libversion();
}

static enum rc open_conn(struct source *src, sqlite3 **ret_conn, struct err *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    int code = sqlite3_open_v2(src->path, ret_conn, flags, NULL);
    if (code != SQLITE_OK) return sql_err(err, *ret_conn, code, "open");
    if (sqlite3_db_readonly(*ret_conn, "main") == 1)
        return err_set(
            err, RC_DENIED,
            "no permission to write: a WAL database needs it even to be read; run sluice "
            "as the user who owns the database");
    sqlite3_busy_handler(*ret_conn, wait_a_little, src);
    sqlite3_db_config(*ret_conn, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_wal_autocheckpoint(*ret_conn, 0);
    return RC_OK;
}

/* An application that commits without pause leaves the write lock free for some microseconds at a
 * time. SQLite's own handler sleeps up to 100 ms between tries and may never meet one of them. */
static int wait_a_little(void *ctx, int tries)
{
    struct source *src = ctx;
    int64_t now = os_mono_ms();
    if (tries == 0) src->waiting_since_ms = now;
    if (now - src->waiting_since_ms >= src->busy_timeout_ms) return 0;
    os_sleep_us(tries < 2000 ? 20 : 1000);
    return 1;
}

/* To ask for the journal mode is to read the schema; the file's header tells for less. Looked at in
 * a read transaction: what a crash has left is rolled back by then. */
static enum rc ensure_wal_mode(struct source *src, struct err *err)
{
    bool wal = false;
    TRY(look_at_header(src, &wal, err));
    if (wal) return RC_OK;
    TRY(switch_to_wal(src, err));
    return look_at_header(src, &wal, err);
}

static enum rc look_at_header(struct source *src, bool *ret_wal, struct err *err)
{
    char size[16];
    uint8_t versions[2] = {0};
    sqlite3_file *file = NULL;
    unsigned v = 0;
    TRY(begin_read(src->holder, err));
    enum rc rc = query_text(src->holder, "PRAGMA page_size", size, sizeof size, err);
    sqlite3_file_control(src->holder, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    if (rc == RC_OK)
        rc = read_file(file, VERSIONS_OFF, versions, sizeof versions, "read the header", err);
    end_tx(src->holder);
    if (rc == RC_OK && sscanf(size, "%u", &v) != 1) rc = err_set(err, RC_CORRUPT, "no page size");
    src->page_size = v;
    *ret_wal = versions[0] == WAL_VERSION && versions[1] == WAL_VERSION;
    return rc;
}

static enum rc switch_to_wal(struct source *src, struct err *err)
{
    char mode[16];
    TRY(query_text(src->holder, "PRAGMA journal_mode", mode, sizeof mode, err));
    if (strcmp(mode, "wal") != 0) {
        TRY(query_text(src->holder, "PRAGMA journal_mode=wal", mode, sizeof mode, err));
        if (strcmp(mode, "wal") != 0)
            return err_set(err, RC_UNSUPPORTED,
                           "cannot switch to WAL mode (journal mode stays '%s'): replication needs "
                           "a WAL database on a local file system",
                           mode);
        src->switched = true;
    }
    return RC_OK;
}

static enum rc find_files(struct source *src, struct err *err)
{
    void volatile *shm = NULL;
    sqlite3_file_control(src->holder, "main", SQLITE_FCNTL_FILE_POINTER, &src->db_file);
    sqlite3_file_control(src->holder, "main", SQLITE_FCNTL_JOURNAL_POINTER, &src->wal_file);
    int code = src->db_file->pMethods->xShmMap(src->db_file, 0, SHM_REGION_SIZE, 0, &shm);
    if (code != SQLITE_OK || shm == NULL) return sql_err(err, NULL, code, "map the wal-index");
    src->shm = shm;
    const char *real = sqlite3_db_filename(src->holder, "main");
    src->wal_path = mem_printf("%s-wal", real);
    src->shm_path = mem_printf("%s-shm", real);
    if (src->wal_path == NULL || src->shm_path == NULL) return err_mem(err, "a database");
    TRY(identify(src->path, &src->files[0], err));
    enum rc rc = identify(src->wal_path, &src->files[1], err);
    if (rc == RC_OK) rc = identify(src->shm_path, &src->files[2], err);
    if (rc == RC_NOT_FOUND)
        rc = err_set(err, RC_BUSY, "somebody deletes the -wal and -shm of '%s' while it is open",
                     src->path);
    return rc;
}

static enum rc identify(const char *path, struct file_id *ret_id, struct err *err)
{
    struct stat st;
    TRY(os_stat(path, &st, err));
    *ret_id = (struct file_id){.dev = st.st_dev, .ino = st.st_ino};
    return RC_OK;
}

static enum rc query_text(sqlite3 *conn, const char *sql, char *ret_text, size_t size,
                          struct err *err)
{
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(conn, sql, -1, &st, NULL);
    if (code == SQLITE_OK) code = sqlite3_step(st);
    if (code == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(st, 0);
        snprintf(ret_text, size, "%s", text ? (const char *)text : "");
        code = SQLITE_OK;
    } else if (code == SQLITE_DONE) {
        ret_text[0] = '\0';
        code = SQLITE_OK;
    }
    enum rc rc = code == SQLITE_OK ? RC_OK : sql_err(err, conn, code, sql);
    sqlite3_finalize(st);
    return rc;
}

static enum rc exec(sqlite3 *conn, const char *sql, struct err *err)
{
    int code = sqlite3_exec(conn, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? RC_OK : sql_err(err, conn, code, sql);
}

/* schema_version reads the header of page 1 without loading the schema: a hold costs no memory. */
static enum rc begin_read(sqlite3 *conn, struct err *err)
{
    char text[24];
    TRY(exec(conn, "BEGIN", err));
    enum rc rc = query_text(conn, "PRAGMA schema_version", text, sizeof text, err);
    if (rc != RC_OK) end_tx(conn);
    return rc;
}

static void end_tx(sqlite3 *conn)
{
    /* Nothing was written, so this only releases locks and cannot fail in a way that matters. */
    sqlite3_exec(conn, "ROLLBACK", NULL, NULL, NULL);
}

static enum rc sql_err(struct err *err, sqlite3 *conn, int code, const char *what)
{
    int ext = conn ? sqlite3_extended_errcode(conn) : code;
    int sys = conn ? sqlite3_system_errno(conn) : 0;
    enum rc rc = RC_IO;
    const char *hint = "";
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        rc = RC_BUSY;
        if (strncmp(what, "BEGIN IMM", 9) != 0)
            hint = "; if this lasts, an application holds it with PRAGMA locking_mode=EXCLUSIVE or "
                   "in a long rollback-journal transaction: use locking_mode=NORMAL and WAL";
        break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        rc = RC_DENIED;
        hint = "; sluice needs write permission on the database and its folder";
        break;
    case SQLITE_CANTOPEN:
        rc = sys == ENOENT ? RC_NOT_FOUND : RC_DENIED;
        hint = "; SQLite must be able to create and open the -wal and -shm files in the folder";
        break;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        rc = RC_CORRUPT;
        break;
    case SQLITE_FULL:
        rc = RC_NO_SPACE;
        break;
    case SQLITE_NOMEM:
        rc = RC_NO_MEM;
        break;
    case SQLITE_IOERR:
        rc = sys == ENOSPC ? RC_NO_SPACE : RC_IO;
        break;
    default:
        break;
    }
    err_set(err, rc, "%s: %s (SQLite %d%s%s)%s", what,
            conn ? sqlite3_errmsg(conn) : sqlite3_errstr(code), ext, sys ? ", " : "",
            sys ? strerror(sys) : "", hint);
    err->sys = ext;
    return rc;
}

static enum rc read_file(sqlite3_file *f, uint64_t off, void *dst, size_t size, const char *what,
                         struct err *err)
{
    while (size > 0) {
        int part = size > (1u << 20) ? 1 << 20 : (int)size;
        int code = f->pMethods->xRead(f, dst, part, (sqlite3_int64)off);
        if (code != SQLITE_OK && code != SQLITE_IOERR_SHORT_READ)
            return sql_err(err, NULL, code, what);
        dst = (char *)dst + part;
        off += (uint64_t)part;
        size -= (size_t)part;
    }
    return RC_OK;
}

#ifdef SLUICE_TEST_HOOKS
/* Tests: SQLite's own syscalls pass the same seam as ours, so that a fault or a kill can fall
 * between any two steps of a sync or a checkpoint. */
static void install_fault_syscalls(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    if (vfs == NULL || vfs->iVersion < 3) return;
    vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr)fault_open);
    vfs->xSetSystemCall(vfs, "pread", (sqlite3_syscall_ptr)fault_pread);
    vfs->xSetSystemCall(vfs, "pwrite", (sqlite3_syscall_ptr)fault_pwrite);
    vfs->xSetSystemCall(vfs, "ftruncate", (sqlite3_syscall_ptr)fault_ftruncate);
    vfs->xSetSystemCall(vfs, "mmap", (sqlite3_syscall_ptr)fault_mmap);
}
#else
static void install_fault_syscalls(void)
{
}
#endif
