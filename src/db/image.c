/* image.c -- see image.h. */
#include "db/image.h"
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "db/source.h"

#define BUSY_MS     10000
#define HOLD_TRIES  200
#define CHUNK_SIZE  (1u << 20)
#define HEADER_SIZE 100 /* of a database */

struct ref { /* a page whose newest version is in the WAL */
    uint32_t pgno, frame;
};
struct image {
    struct source *src;
    struct wal_index x; /* as of the hold */
    uint32_t page_size, page_count;
    struct ref *refs; /* ascending; one a page */
    size_t count;
};

static enum rc begin(struct image *im, const char *path, struct err *err);
static enum rc collect(struct image *im, struct err *err);
static int ref_order(const void *a, const void *b);
static void end(struct image *im);
static enum rc write_all(struct image *im, int fd, const struct call *c, struct err *err);
static enum rc overlay(struct image *im, uint8_t *chunk, uint32_t first, uint32_t count, size_t *at,
                       struct err *err);
static enum rc drop_file(const char *path, const char *suffix, bool only_empty, struct err *err);
static enum rc check_header(const char *path, struct err *err);

enum rc image_copy(const char *path, const char *out_path, const struct call *c, struct err *err)
{
    struct image im = {0};
    int fd = -1;
    struct err ignored;
    enum rc rc = os_open(out_path, O_WRONLY | O_CREAT | O_EXCL, 0600, &fd, err);
    if (rc != RC_OK) return err_wrap(err, "copy '%s'", path);
    rc = begin(&im, path, err);
    if (rc == RC_OK) rc = write_all(&im, fd, c, err);
    end(&im);
    if (rc == RC_OK) rc = os_fsync(fd, err);
    os_close(fd);
    if (rc == RC_OK) return RC_OK;
    (void)!os_unlink(out_path, &ignored);
    return err_wrap(err, "copy '%s'", path);
}

/* The last connection that closes copies the WAL and deletes it. */
enum rc image_settle(const char *path, struct err *err)
{
    struct stat st;
    sqlite3 *conn = NULL;
    char folder[OS_PATH_MAX];
    enum rc rc = os_stat(path, &st, err);
    bool there = rc == RC_OK;
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    if (there) {
        int code = sqlite3_open_v2(path, &conn, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
        if (code == SQLITE_OK)
            code = sqlite3_exec(conn, "PRAGMA synchronous=FULL; PRAGMA schema_version", 0, 0, 0);
        if (code != SQLITE_OK)
            rc = err_set(err, (code & 0xff) == SQLITE_BUSY ? RC_BUSY : RC_CORRUPT, "close '%s': %s",
                         path, conn ? sqlite3_errmsg(conn) : "no memory");
        sqlite3_close_v2(conn);
        TRY(rc);
    }
    TRY(drop_file(path, "-wal", there, err));
    TRY(drop_file(path, "-shm", false, err));
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL) return os_fsync_dir(".", err);
    slash[slash == folder] = '\0';
    return os_fsync_dir(folder, err);
}

enum rc image_adopt(const char *path, struct err *err)
{
    const struct source_opts opts = {.busy_timeout_ms = BUSY_MS};
    struct source *src = NULL;
    enum rc rc = check_header(path, err);
    if (rc == RC_OK) rc = db_integrity_check(path, false, err);
    if (rc == RC_OK) rc = source_open(path, &opts, &src, err);
    source_close(src);
    if (rc == RC_OK) rc = image_settle(path, err);
    /* Also what SQLite cannot make sense of: collations it does not know, a newer format. */
    bool odd = rc == RC_IO && (err->sys & 0xff) == SQLITE_ERROR;
    if (rc == RC_CORRUPT || rc == RC_UNSUPPORTED || odd) err->rc = RC_INVALID;
    return rc == RC_OK ? RC_OK : err->rc;
}

/*
 * A hold of which we know where it stands. Without the write lock, which a busy application hardly
 * leaves to others: if the wal-index shows the same commit before and after the hold began, it
 * began there. A checkpoint in between does no harm: what it has copied is in the file for good,
 * and it copies nothing newer while the hold lasts.
 */
static enum rc begin(struct image *im, const char *path, struct err *err)
{
    const struct source_opts opts = {.busy_timeout_ms = BUSY_MS};
    struct wal_index before;
    TRY(source_open(path, &opts, &im->src, err));
    im->page_size = source_page_size(im->src);
    for (int i = 0; i < HOLD_TRIES; i++) {
        TRY(source_index(im->src, &before, err));
        TRY(source_hold(im->src, err));
        TRY(source_index(im->src, &im->x, err));
        if (before.change == im->x.change && before.salt1 == im->x.salt1 &&
            before.salt2 == im->x.salt2 && before.frame_max == im->x.frame_max)
            return collect(im, err);
        source_unhold(im->src);
    }
    TRY(source_lock(im->src, err)); /* nothing moves */
    enum rc rc = source_hold(im->src, err);
    if (rc == RC_OK) rc = source_index(im->src, &im->x, err);
    source_unlock(im->src);
    return rc == RC_OK ? collect(im, err) : rc;
}

/* With everything in the database file, and a hold that keeps it so, the WAL does not matter: it
 * may even restart. */
static enum rc collect(struct image *im, struct err *err)
{
    const struct wal_index *x = &im->x;
    uint64_t size;
    im->page_count = x->page_count;
    if (x->frame_max == 0 || x->page_count == 0) {
        TRY(source_db_size(im->src, &size, err));
        im->page_count = (uint32_t)(size / im->page_size);
    }
    if (x->backfill == x->frame_max) return RC_OK;
    im->refs = mem_alloc((size_t)x->frame_max * sizeof *im->refs);
    if (im->refs == NULL) return err_mem(err, "the frames of a WAL");
    for (uint32_t i = 1; i <= x->frame_max; i++) {
        uint8_t raw[WAL_FRAME_HEADER_SIZE];
        struct wal_frame f;
        TRY(source_read_wal(im->src, wal_frame_off(im->page_size, i), raw, sizeof raw, err));
        wal_frame_get(raw, &f);
        if (f.salt1 != x->salt1 || f.salt2 != x->salt2 || f.pgno == 0)
            return err_set(err, RC_CORRUPT, "frame %u of the WAL is not of its generation", i);
        im->refs[i - 1] = (struct ref){.pgno = f.pgno, .frame = i};
    }
    qsort(im->refs, x->frame_max, sizeof *im->refs, ref_order);
    for (uint32_t i = 0; i < x->frame_max; i++) { /* of each page the last */
        bool last = i + 1 == x->frame_max || im->refs[i + 1].pgno != im->refs[i].pgno;
        if (last) im->refs[im->count++] = im->refs[i];
    }
    return RC_OK;
}

static int ref_order(const void *a, const void *b)
{
    const struct ref *l = a, *r = b;
    if (l->pgno != r->pgno) return l->pgno < r->pgno ? -1 : 1;
    return l->frame < r->frame ? -1 : l->frame > r->frame;
}

static void end(struct image *im)
{
    source_close(im->src);
    mem_free(im->refs);
}

static enum rc write_all(struct image *im, int fd, const struct call *c, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *chunk = mem_alloc(CHUNK_SIZE);
    const uint32_t step = CHUNK_SIZE / im->page_size;
    size_t at = 0;
    if (chunk == NULL) return err_mem(err, "a copy");
    for (uint32_t done = 0; done < im->page_count;) {
        uint32_t count = im->page_count - done < step ? im->page_count - done : step;
        uint64_t off = (uint64_t)done * im->page_size;
        size_t size = (size_t)count * im->page_size;
        TRY(call_check(c, err));
        TRY(source_read_db(im->src, off, chunk, size, err));
        TRY(overlay(im, chunk, done + 1, count, &at, err));
        TRY(os_pwrite(fd, chunk, size, off, err));
        os_write_behind(fd, off, size);
        done += count;
    }
    return RC_OK;
}

static enum rc overlay(struct image *im, uint8_t *chunk, uint32_t first, uint32_t count, size_t *at,
                       struct err *err)
{
    for (; *at < im->count && im->refs[*at].pgno - first < count; (*at)++) {
        const struct ref *r = &im->refs[*at];
        uint64_t off = wal_frame_off(im->page_size, r->frame) + WAL_FRAME_HEADER_SIZE;
        TRY(source_read_wal(im->src, off, chunk + (size_t)(r->pgno - first) * im->page_size,
                            im->page_size, err));
    }
    return RC_OK;
}

static enum rc drop_file(const char *path, const char *suffix, bool only_empty, struct err *err)
{
    char name[OS_PATH_MAX + 8];
    struct stat st;
    snprintf(name, sizeof name, "%s%s", path, suffix);
    enum rc rc = os_stat(name, &st, err);
    if (rc == RC_NOT_FOUND) return RC_OK;
    TRY(rc);
    if (only_empty && st.st_size > 0)
        return err_set(err, RC_BUSY, "'%s' is still in use: somebody else has opened it", path);
    return os_unlink(name, err);
}

static enum rc check_header(const char *path, struct err *err)
{
    uint8_t head[HEADER_SIZE];
    size_t got;
    CLEANUP(os_closep) int fd = -1;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(os_pread(fd, head, sizeof head, 0, &got, err));
    if (got < sizeof head || memcmp(head, "SQLite format 3", 16) != 0)
        return err_set(err, RC_INVALID, "this is not a SQLite database");
    uint32_t encoding = get_be32(head + 56);
    if (encoding > 1) /* 0: nothing in it yet */
        return err_set(err, RC_INVALID,
                       "the database's texts are in UTF-16: make it anew after PRAGMA "
                       "encoding='UTF-8'");
    return RC_OK;
}
