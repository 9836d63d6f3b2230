/*
 * wal_sqlite_test.c -- the WAL decoders against files that SQLite writes, and SQLite against a WAL
 * whose checksums were made here in the other byte order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <sqlite3.h>
#include "base/buf.h"
#include "base/bytes.h"
#include "base/os.h"
#include "fmt/noise.h"
#include "fmt/wal.h"

#define FILE_MAX_SIZE (64u << 20)

static char dir[] = "/tmp/sluice-wal-XXXXXX";

static void path_of(const char *name, char out[64])
{
    snprintf(out, 64, "%s/%s", dir, name);
}

static struct buf slurp(const char *name)
{
    struct buf b = BUF_INIT;
    struct err err;
    char path[64];
    path_of(name, path);
    assert_int_equal(os_read_file(path, FILE_MAX_SIZE, &b, &err), RC_OK);
    return b;
}

static void spill(const char *name, const struct buf *b)
{
    struct err err;
    char path[64];
    path_of(name, path);
    assert_int_equal(os_write_file(path, b->data, b->size, 0600, &err), RC_OK);
}

static void run(sqlite3 *db, const char *sql)
{
    char *text = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK) fail_msg("%s: %s", sql, text);
}

static sqlite3 *open_db(const char *name, uint32_t page_size)
{
    sqlite3 *db;
    char path[64], sql[64];
    path_of(name, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    snprintf(sql, sizeof sql, "PRAGMA page_size=%u", page_size);
    run(db, sql);
    run(db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
    return db;
}

static void write_some(sqlite3 *db)
{
    char sql[256];
    run(db, "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x BLOB)");
    for (int i = 0; i < 20; i++) {
        snprintf(sql, sizeof sql,
                 "INSERT INTO t (x) VALUES (randomblob(%d)); DELETE FROM t WHERE id %% 7 = %d",
                 (int)(noise() % 3000), (int)(noise() % 9));
        run(db, sql);
    }
}

struct walk {
    struct wal_header h;
    uint32_t committed; /* frames up to the last commit */
    struct wal_sum sum; /* there */
    uint32_t page_count;
};

/* Walk a WAL by the rules, putting committed pages into image (may be NULL). */
static struct walk walk_wal(const struct buf *wal, struct buf *image)
{
    struct walk w = {0};
    struct err err;
    assert_int_equal(wal_header_get(wal->data, &w.h, &err), RC_OK);
    struct wal_sum chain = w.h.sum;
    for (uint32_t n = 1;; n++) {
        struct wal_frame f;
        uint64_t off = wal_frame_off(w.h.page_size, n);
        if (wal_frame_off(w.h.page_size, n + 1) > wal->size) break;
        if (!wal_frame_check(&w.h, &chain, wal->data + off, &f)) break;
        if (f.commit == 0) continue;
        for (uint32_t i = w.committed + 1; image != NULL && i <= n; i++) {
            const uint8_t *frame = wal->data + wal_frame_off(w.h.page_size, i);
            size_t at = (size_t)(get_be32(frame) - 1) * w.h.page_size, end = at + w.h.page_size;
            if (end > image->size) {
                assert_int_equal(buf_reserve(image, end - image->size, &err), RC_OK);
                image->size = end;
            }
            memcpy(image->data + at, frame + WAL_FRAME_HEADER_SIZE, w.h.page_size);
        }
        w.committed = n;
        w.sum = f.sum;
        w.page_count = f.commit;
        if (image != NULL) image->size = (size_t)f.commit * w.h.page_size;
    }
    return w;
}

static void compare_with_shm(const struct walk *w)
{
    struct buf shm = slurp("a.db-shm");
    struct wal_index x;
    assert_true(shm.size >= WAL_INDEX_HEADER_SIZE);
    wal_index_get(shm.data, &x);
    assert_true(x.valid);
    assert_int_equal(x.big_endian, w->h.big_endian);
    assert_int_equal(x.page_size, w->h.page_size);
    assert_int_equal(x.salt1, w->h.salt1);
    assert_int_equal(x.salt2, w->h.salt2);
    assert_int_equal(x.frame_max, w->committed);
    assert_int_equal(x.page_count, w->page_count);
    assert_int_equal(x.sum.s1, w->sum.s1);
    assert_int_equal(x.sum.s2, w->sum.s2);
    buf_fini(&shm);
}

static struct wal_index index_now(void)
{
    struct buf shm = slurp("a.db-shm");
    struct wal_index x;
    wal_index_get(shm.data, &x);
    buf_fini(&shm);
    return x;
}

static void remove_all(const char *name)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char path[64], file[32];
        snprintf(file, sizeof file, "%s%s", name, ends[i]);
        path_of(file, path);
        unlink(path);
    }
}

static void check_one_size(uint32_t page_size)
{
    sqlite3 *db = open_db("a.db", page_size);
    write_some(db);
    for (int round = 0; round < 3; round++) {
        struct buf wal = slurp("a.db-wal"), image = slurp("a.db");
        struct walk w = walk_wal(&wal, &image);
        assert_int_equal(w.h.page_size, page_size);
        assert_true(w.committed > 0);
        compare_with_shm(&w);

        /* A full checkpoint writes what our reading of the log says. */
        uint32_t change = index_now().change;
        run(db, "PRAGMA wal_checkpoint(FULL)");
        assert_int_equal(index_now().backfill, w.committed);
        struct buf after = slurp("a.db");
        assert_int_equal(after.size, image.size);
        assert_memory_equal(after.data, image.data, image.size);

        /* The next write restarts the log; frames of the old one lie behind the new ones. */
        uint32_t salt1 = w.h.salt1;
        run(db, "BEGIN; INSERT INTO t (x) VALUES ('one'); COMMIT");
        assert_int_equal(index_now().change, change + 1);
        assert_int_equal(index_now().salt1, salt1 + 1);
        assert_true(index_now().frame_max < w.committed);
        buf_fini(&wal);
        wal = slurp("a.db-wal");
        w = walk_wal(&wal, NULL);
        compare_with_shm(&w);
        if (round < 2) write_some(db);
        buf_fini(&wal);
        buf_fini(&image);
        buf_fini(&after);
    }
    sqlite3_close(db);
    remove_all("a.db");
}

static void test_reads_what_sqlite_writes(void **state)
{
    (void)state;
    check_one_size(512);
    check_one_size(4096);
    check_one_size(65536);
}

/* Turn every checksum into the other byte order. */
static void reorder(struct buf *wal, bool big_endian)
{
    uint32_t page_size = get_be32(wal->data + 8);
    struct wal_sum sum = {0};
    put_be32(wal->data, 0x377f0682u + big_endian);
    wal_sum_add(&sum, big_endian, wal->data, 24);
    put_be32(wal->data + 24, sum.s1);
    put_be32(wal->data + 28, sum.s2);
    for (uint32_t n = 1; wal_frame_off(page_size, n + 1) <= wal->size; n++) {
        uint8_t *f = wal->data + wal_frame_off(page_size, n);
        wal_sum_add(&sum, big_endian, f, 8);
        wal_sum_add(&sum, big_endian, f + WAL_FRAME_HEADER_SIZE, page_size);
        put_be32(f + 16, sum.s1);
        put_be32(f + 20, sum.s2);
    }
}

static void test_sqlite_reads_the_other_byte_order(void **state)
{
    (void)state;
    sqlite3 *db = open_db("b.db", 4096), *copy;
    write_some(db);
    run(db, "PRAGMA user_version=4711");
    struct buf wal = slurp("b.db-wal"), image = slurp("b.db");
    struct walk before = walk_wal(&wal, NULL);
    bool big_endian = !before.h.big_endian;
    reorder(&wal, big_endian);
    struct walk w = walk_wal(&wal, NULL);
    assert_int_equal(w.h.big_endian, big_endian);
    assert_int_equal(w.committed, before.committed);
    spill("a.db", &image);
    spill("a.db-wal", &wal);

    char path[64];
    sqlite3_stmt *stmt;
    path_of("a.db", path);
    assert_int_equal(sqlite3_open(path, &copy), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(copy, "PRAGMA user_version", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(stmt, 0), 4711);
    sqlite3_finalize(stmt);
    compare_with_shm(&w); /* rebuilt by SQLite's recovery */
    write_some(copy);     /* goes on in that byte order */
    buf_fini(&wal);
    wal = slurp("a.db-wal");
    w = walk_wal(&wal, NULL);
    assert_true(w.committed > before.committed);
    assert_int_equal(w.h.big_endian, big_endian);
    compare_with_shm(&w);
    sqlite3_close(copy);
    sqlite3_close(db);
    buf_fini(&wal);
    buf_fini(&image);
    remove_all("a.db");
    remove_all("b.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_sqlite_writes),
        cmocka_unit_test(test_sqlite_reads_the_other_byte_order),
    };
    noise_seed();
    if (mkdtemp(dir) == NULL) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
