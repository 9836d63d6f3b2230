/* bed.c -- see bed.h. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "db/bed.h"

static void apply(struct bed *b, uint64_t txid);
static void read_all(const char *path, struct image *ret);

void bed_new(struct bed *b, int page_size, const char *auto_vacuum)
{
    memset(b, 0, sizeof *b);
    snprintf(b->dir, sizeof b->dir, "/tmp/sluice-db-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->path, sizeof b->path, "%s/app.db", b->dir);
    snprintf(b->meta, sizeof b->meta, "%s/.app.db-sluice", b->dir);
    source_global_init();
    bed_app_open(b);
    bed_sql(b, "PRAGMA page_size=%d", page_size);
    bed_sql(b, "PRAGMA auto_vacuum=%s", auto_vacuum);
    bed_sql(b, "PRAGMA journal_mode=wal");
    bed_sql(b, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
    struct err err;
    assert_int_equal(batch_scratch_new(&b->scratch, &err), RC_OK);
}

void bed_free(struct bed *b)
{
    char cmd[128];
    bed_capture_close(b);
    bed_app_close(b);
    batch_scratch_free(b->scratch);
    free(b->applied.data);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", b->dir);
    assert_int_equal(system(cmd), 0);
}

void bed_app_open(struct bed *b)
{
    assert_int_equal(sqlite3_open(b->path, &b->app), SQLITE_OK);
    sqlite3_busy_timeout(b->app, 2000);
}

void bed_app_close(struct bed *b)
{
    assert_int_equal(sqlite3_close(b->app), SQLITE_OK);
    b->app = NULL;
}

void bed_sql(struct bed *b, const char *fmt, ...)
{
    va_list ap;
    char *msg = NULL;
    va_start(ap, fmt);
    char *sql = sqlite3_vmprintf(fmt, ap);
    va_end(ap);
    if (sqlite3_exec(b->app, sql, NULL, NULL, &msg) != SQLITE_OK) fail_msg("%s: %s", sql, msg);
    sqlite3_free(sql);
}

void bed_rows(struct bed *b, int count, int size)
{
    bed_sql(b,
            "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<%d) "
            "INSERT INTO t(v) SELECT randomblob(%d) FROM c",
            count, size);
}

void bed_capture_open(struct bed *b)
{
    const struct capture_opts opts = {
        .busy_timeout_ms = 500, .checkpoint_pages = 50, .relaxed = b->relaxed};
    struct err err = {0};
    if (capture_open(b->path, b->meta, &opts, &b->cap, &err) != RC_OK) fail_msg("%s", err.text);
}

void bed_capture_close(struct bed *b)
{
    capture_close(b->cap);
    b->cap = NULL;
}

void bed_sync(struct bed *b)
{
    struct err err;
    do {
        if (capture_sync(b->cap, b->scratch, &b->last, &err) != RC_OK) fail_msg("%s", err.text);
        bed_catch_up(b);
    } while (b->last.more);
}

void bed_start(struct bed *b, int count, int size)
{
    bed_new(b, 4096, "none");
    bed_rows(b, count, size);
    bed_capture_open(b);
    bed_sync(b);
}

void bed_checkpoint(struct bed *b, bool force)
{
    struct err err;
    if (capture_checkpoint(b->cap, b->scratch, force, &b->last, &err) != RC_OK)
        fail_msg("%s", err.text);
    bed_catch_up(b);
}

void bed_catch_up(struct bed *b)
{
    uint64_t newest = state_pos(capture_state(b->cap))->txid;
    while (b->applied_txid < newest)
        apply(b, b->applied_txid + 1);
}

void bed_check(struct bed *b)
{
    struct image now = bed_image(b);
    const struct db_pos *pos = state_pos(capture_state(b->cap));
    struct digest d = {0};
    uint32_t lock_page = ltx_lock_page(pos->page_size);
    if (now.size != b->applied.size) fail_msg("size %zu, applied %zu", now.size, b->applied.size);
    for (size_t off = 0; off < now.size; off += pos->page_size) {
        uint32_t pgno = (uint32_t)(off / pos->page_size) + 1;
        if (pgno == lock_page) continue;
        if (memcmp(now.data + off, b->applied.data + off, pos->page_size) != 0)
            fail_msg("page %u differs at txid %llu", pgno, (unsigned long long)pos->txid);
        d = digest_add(d, digest_page(pgno, now.data + off, pos->page_size));
    }
    assert_true(digest_equal(d, pos->digest));
    free(now.data);
}

/* Through SQLite, in a copy: what an application would find after a full checkpoint. */
struct image bed_image(struct bed *b)
{
    char copy[128], wal[160], cmd[1024];
    struct image img = {0};
    sqlite3 *db;
    snprintf(copy, sizeof copy, "%s/copy.db", b->dir);
    snprintf(wal, sizeof wal, "%s-wal", copy);
    snprintf(cmd, sizeof cmd, "rm -f %s*; cp %s %s; test ! -e %s-wal || cp %s-wal %s", copy,
             b->path, copy, b->path, b->path, wal);
    assert_int_equal(system(cmd), 0);
    assert_int_equal(sqlite3_open(copy, &db), SQLITE_OK);
    if (sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", 0, 0, 0) != SQLITE_OK)
        fail_msg("copy: %s (%d, errno %d)", sqlite3_errmsg(db), sqlite3_extended_errcode(db),
                 sqlite3_system_errno(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    read_all(copy, &img);
    return img;
}

long bed_count(struct bed *b)
{
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_prepare_v2(b->app, "SELECT count(*) FROM t", -1, &st, 0), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    long n = (long)sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

static void apply(struct bed *b, uint64_t txid)
{
    char path[OS_PATH_MAX];
    struct image file;
    struct ltx_decoder *dec;
    struct ltx_event ev = {.kind = LTX_EV_MORE};
    struct ltx_header h = {0};
    struct err err = {0};
    state_staged_path(capture_state(b->cap), txid, path);
    read_all(path, &file);
    size_t off = 0, size = file.size - STATE_FOOTER_SIZE;
    assert_int_equal(ltx_decoder_new(&dec, &err), RC_OK);
    while (ev.kind != LTX_EV_END) {
        size_t taken = size - off;
        if (ltx_decoder_step(dec, file.data + off, &taken, &ev, &err) != RC_OK)
            fail_msg("%s", err.text);
        off += taken;
        if (ev.kind == LTX_EV_HEADER) {
            h = ev.header;
            assert_int_equal(h.txid_max, txid);
            assert_int_equal(h.txid_min, txid);
            assert_true(h.wal_off >= 32 && (h.wal_off - 32) % (24 + h.page_size) == 0);
            assert_true(h.wal_size % (24 + h.page_size) == 0);
            size_t bytes = (size_t)h.page_count * h.page_size;
            b->applied.data = realloc(b->applied.data, bytes + 1);
            if (bytes > b->applied.size)
                memset(b->applied.data + b->applied.size, 0xEE, bytes - b->applied.size);
            b->applied.size = bytes;
        }
        if (ev.kind == LTX_EV_PAGE)
            memcpy(b->applied.data + (size_t)(ev.page.pgno - 1) * h.page_size, ev.page.data,
                   h.page_size);
    }
    ltx_decoder_free(dec);
    free(file.data);
    b->applied_txid = txid;
}

static void read_all(const char *path, struct image *ret)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail_msg("open %s", path);
    fstat(fd, &st);
    ret->size = (size_t)st.st_size;
    ret->data = malloc(ret->size + 1);
    assert_int_equal(read(fd, ret->data, ret->size), (ssize_t)ret->size);
    close(fd);
}
