/*
 * restore_v3_test.c -- restores of Litestream 0.3 replicas, made here from a real SQLite's files.
 * The oracle is SQLite itself: it opens a copy of database and WAL, and checkpoints.
 */
#include "log/restore_bed.h"
#include <lz4frame.h>
#include <sqlite3.h>

struct v3 {
    struct bed b; /* for store, output and random numbers only */
    char dir[64], src[96], wal[96], copy[96], copy_wal[96];
    sqlite3 *db;
    unsigned generation, index;
    size_t off;      /* bytes of the WAL that have been uploaded */
    int64_t now_ms;  /* moves with each upload */
    size_t segments; /* split uploads into pieces of at most so many bytes, 0: no */
};

static void sql(struct v3 *v, const char *text)
{
    char *msg = NULL;
    if (sqlite3_exec(v->db, text, NULL, NULL, &msg) != SQLITE_OK) fail_msg("%s: %s", text, msg);
}

static void v3_open(struct v3 *v, uint32_t page_size, unsigned seed)
{
    char text[64];
    *v = (struct v3){.generation = 0xabc, .now_ms = 1000};
    bed_open(&v->b, page_size, seed, "mem://");
    snprintf(v->dir, sizeof v->dir, "/tmp/sluice-v3-XXXXXX");
    assert_non_null(mkdtemp(v->dir));
    snprintf(v->src, sizeof v->src, "%s/src.db", v->dir);
    snprintf(v->wal, sizeof v->wal, "%s/src.db-wal", v->dir);
    snprintf(v->copy, sizeof v->copy, "%s/copy.db", v->dir);
    snprintf(v->copy_wal, sizeof v->copy_wal, "%s/copy.db-wal", v->dir);
    assert_int_equal(sqlite3_open(v->src, &v->db), SQLITE_OK);
    snprintf(text, sizeof text, "PRAGMA page_size = %u", page_size);
    sql(v, text);
    sql(v, "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = off;"
           "CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
}

static void v3_close(struct v3 *v)
{
    char cmd[96];
    sqlite3_close(v->db);
    snprintf(cmd, sizeof cmd, "rm -r '%s'", v->dir);
    assert_int_equal(system(cmd), 0);
    bed_close(&v->b);
}

static void read_whole(const char *path, struct buf *out)
{
    struct err err;
    buf_reset(out);
    OK(os_read_file(path, 1u << 30, out, &err));
}

static void put_lz4(struct v3 *v, const char *key, const uint8_t *data, size_t size)
{
    /* As the Go library does: checksum of the content; here as two frames, which is one stream. */
    LZ4F_preferences_t p = {.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled};
    size_t half = size / 2, cap = 2 * LZ4F_compressFrameBound(size, &p);
    uint8_t *out = malloc(cap);
    size_t used = LZ4F_compressFrame(out, cap, data, half, &p);
    used += LZ4F_compressFrame(out + used, cap - used, data + half, size - half, &p);
    put_bytes(&v->b, key, out, used, v->now_ms);
    v->now_ms += 1000;
    free(out);
}

static const char *segment_key(const struct v3 *v, size_t off)
{
    static char key[STORE_KEY_MAX + 1];
    snprintf(key, sizeof key, "generations/%016x/wal/%08x_%0*zx.wal.lz4", v->generation, v->index,
             v->index % 2 ? 8 : 16, off);
    return key;
}

/* Upload what the WAL has grown by. */
static void put_segment(struct v3 *v)
{
    struct buf wal = BUF_INIT;
    read_whole(v->wal, &wal);
    while (v->off < wal.size) {
        size_t n = wal.size - v->off;
        if (v->segments > 0 && n > v->segments) n = v->segments;
        put_lz4(v, segment_key(v, v->off), wal.data + v->off, n);
        v->off += n;
    }
    buf_fini(&wal);
}

static void next_index(struct v3 *v)
{
    put_segment(v);
    sql(v, "PRAGMA wal_checkpoint(TRUNCATE)");
    if (v->off == 0) return; /* 0.3 writes to each new WAL, so none stays empty */
    v->index++;
    v->off = 0;
}

static void put_snapshot(struct v3 *v)
{
    struct buf db = BUF_INIT;
    char key[STORE_KEY_MAX + 1];
    next_index(v);
    read_whole(v->src, &db);
    snprintf(key, sizeof key, "generations/%016x/snapshots/%08x.snapshot.lz4", v->generation,
             v->index);
    put_lz4(v, key, db.data, db.size);
    buf_fini(&db);
}

/* What SQLite makes of the database as it is on disk now. */
static void by_sqlite(struct v3 *v, struct buf *out)
{
    struct buf bytes = BUF_INIT;
    sqlite3 *db;
    struct err err;
    read_whole(v->src, &bytes);
    OK(os_write_file(v->copy, bytes.data, bytes.size, 0600, &err));
    read_whole(v->wal, &bytes);
    OK(os_write_file(v->copy_wal, bytes.data, bytes.size, 0600, &err));
    assert_int_equal(sqlite3_open(v->copy, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL),
                     SQLITE_OK);
    read_whole(v->copy, out);
    sqlite3_close(db);
    unlink(v->copy);
    buf_fini(&bytes);
}

static enum rc v3_restore(struct v3 *v, struct plan_target target, struct restore_result *ret_res,
                          struct err *err)
{
    struct restore_opts opts = {.target = target, .out_path = v->b.out};
    return restore_v3_run(&v->b.log, NULL, &opts, ret_res, err);
}

static void expect_bytes(struct v3 *v, struct plan_target target, const struct buf *want)
{
    struct restore_result res = {0};
    struct buf got = BUF_INIT;
    struct err err;
    OK(v3_restore(v, target, &res, &err));
    assert_int_equal(res.page_size, v->b.page_size);
    assert_int_equal(res.page_count, want->size / v->b.page_size);
    assert_int_equal(res.txid, 0);
    read_whole(v->b.out, &got);
    assert_int_equal(got.size, want->size);
    assert_memory_equal(got.data, want->data, want->size);
    unlink(v->b.out);
    assert_int_equal(files_in(v->b.dir), 0);
    buf_fini(&got);
}

static void v3_fails(struct v3 *v, struct plan_target target, enum rc want, const char *words)
{
    struct restore_result res;
    struct err err;
    enum rc rc = v3_restore(v, target, &res, &err);
    if (rc != want || strstr(err.text, words) == NULL)
        fail_msg("%s '%s', not %s '%s'", rc_name(rc), err.text, rc_name(want), words);
    assert_int_equal(files_in(v->b.dir), 0);
}

static void change(struct v3 *v)
{
    char text[200];
    switch (pick(&v->b, 6)) {
    case 0:
        sql(v, "DELETE FROM t WHERE id % 3 = 0");
        break;
    case 1:
        sql(v, "VACUUM");
        break;
    case 2:
        sql(v, "UPDATE t SET x = randomblob(length(x) / 2 + 1) WHERE id % 5 = 1");
        break;
    default:
        snprintf(text, sizeof text,
                 "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u)"
                 "INSERT INTO t(x) SELECT randomblob(%u) FROM n",
                 1 + pick(&v->b, 40), 1 + pick(&v->b, 3000));
        sql(v, text);
    }
}

static void test_restores_what_sqlite_would_have(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    for (int round = 0; round < 8; round++) {
        struct v3 v;
        struct buf want[40] = {{0}};
        int64_t times[40];
        int count = 0;
        v3_open(&v, 512u << round, seed + (unsigned)round);
        v.segments = round % 2 ? 0 : 5000;
        put_snapshot(&v);
        for (int i = 0; i < 20; i++) {
            change(&v);
            put_segment(&v);
            by_sqlite(&v, &want[count]);
            times[count++] = v.now_ms - 1000; /* of its last piece */
            if (pick(&v.b, 4) == 0) next_index(&v);
            if (i == 10) put_snapshot(&v);
        }
        expect_bytes(&v, LATEST, &want[count - 1]);
        for (int i = 0; i < count; i++)
            expect_bytes(&v, TIME(times[i]), &want[i]);
        for (int i = 0; i < count; i++)
            buf_fini(&want[i]);
        v3_close(&v);
    }
}

/* The last transaction lacks its commit frame, whole or in part. */
static void test_uncommitted_frames_do_not_count(void **state)
{
    (void)state;
    struct v3 v;
    struct buf wal = BUF_INIT, first = BUF_INIT, second = BUF_INIT;
    v3_open(&v, 1024, seed_get());
    put_snapshot(&v);
    sql(&v, "INSERT INTO t(x) VALUES (randomblob(5000))");
    put_segment(&v);
    size_t off = v.off;
    by_sqlite(&v, &first);
    sql(&v, "INSERT INTO t(x) VALUES (randomblob(9000))");
    by_sqlite(&v, &second);
    read_whole(v.wal, &wal);
    assert_true(wal.size > off + 5 * (24 + 1024));
    put_lz4(&v, segment_key(&v, off), wal.data + off, wal.size - off - 1);
    expect_bytes(&v, LATEST, &first);
    put_lz4(&v, segment_key(&v, off), wal.data + off, wal.size - off - (24 + 1024));
    expect_bytes(&v, LATEST, &first);
    put_lz4(&v, segment_key(&v, off), wal.data + off, wal.size - off);
    expect_bytes(&v, LATEST, &second);
    buf_fini(&wal);
    buf_fini(&first);
    buf_fini(&second);
    v3_close(&v);
}

static void test_choice_of_generation_and_snapshot(void **state)
{
    (void)state;
    struct v3 v;
    struct v3_summary sum;
    struct buf first = BUF_INIT, second = BUF_INIT;
    struct err err;
    v3_open(&v, 1024, seed_get());
    OK(restore_v3_find(&v.b.log, NULL, &LATEST, &sum, &err));
    assert_false(sum.any);
    v3_fails(&v, LATEST, RC_NOT_FOUND, "no Litestream 0.3 snapshot");
    put_snapshot(&v); /* at 1000 or later */
    change(&v);
    put_segment(&v);
    by_sqlite(&v, &first);
    int64_t middle = v.now_ms;
    v.now_ms += 1000;
    v.generation = 0x123;
    put_snapshot(&v);
    int64_t snapshot = v.now_ms - 1000;
    sql(&v, "CREATE TABLE u(y)");
    put_segment(&v);
    by_sqlite(&v, &second);
    put_bytes(&v.b, "generations/0000000000000123/wal/readme", "x", 1, 9999999);
    put_bytes(&v.b, "generations/xyz/wal/00000000_00000000.wal.lz4", "x", 1, 9999999);
    expect_bytes(&v, LATEST, &second);
    expect_bytes(&v, TIME(middle), &first);
    OK(restore_v3_find(&v.b.log, NULL, &LATEST, &sum, &err));
    assert_true(sum.any && sum.snapshot_ms == snapshot && sum.newest_ms == v.now_ms - 1000);
    OK(restore_v3_find(&v.b.log, NULL, &TIME(middle), &sum, &err));
    assert_true(sum.any && sum.snapshot_ms < middle);
    OK(restore_v3_find(&v.b.log, NULL, &TXID(1), &sum, &err));
    assert_false(sum.any);
    v3_fails(&v, TXID(1), RC_NOT_FOUND, "no Litestream 0.3 snapshot");
    v3_fails(&v, TIME(1), RC_NOT_FOUND, "no Litestream 0.3 snapshot");
    buf_fini(&first);
    buf_fini(&second);
    v3_close(&v);
}

static void drop(struct v3 *v, unsigned index, size_t off)
{
    struct err err;
    unsigned old = v->index;
    v->index = index;
    const char *key = segment_key(v, off);
    v->index = old;
    OK(store_del(v->b.store, NULL, &key, 1, &err));
}

static void test_holes_are_named(void **state)
{
    (void)state;
    struct v3 v;
    v3_open(&v, 1024, seed_get());
    put_snapshot(&v);
    unsigned first = v.index;
    v.segments = 1000;
    for (int i = 0; i < 3; i++) {
        sql(&v, "INSERT INTO t(x) VALUES (randomblob(5000))");
        next_index(&v);
    }
    drop(&v, first + 2, 1000);
    v3_fails(&v, LATEST, RC_GAP, "has 1000 bytes, but goes on at 2000");
    drop(&v, first + 2, 0);
    v3_fails(&v, LATEST, RC_GAP, "missing WAL segment: index 00000003");
    for (size_t off = 0; off < 20000; off += 1000)
        drop(&v, first + 1, off);
    v3_fails(&v, LATEST, RC_GAP, "missing WAL index 00000002 of generation 0000000000000abc");
    v3_close(&v);
}

/* Flip bytes of an object, and cut it: an error, or the right file. */
static void corrupt_object(struct v3 *v, const char *name, const struct buf *want)
{
    struct buf object = BUF_INIT;
    struct restore_result res;
    struct err err;
    char key[STORE_KEY_MAX + 1];
    uint8_t bytes[20000];
    snprintf(key, sizeof key, "%s", name);
    size_t size = 0;
    while (store_read(v->b.store, NULL, key, 0, bytes, size + 1, &err) == RC_OK)
        size++;
    assert_true(size > 100);
    OK(store_read(v->b.store, NULL, key, 0, bytes, size, &err));
    for (size_t i = 0; i < 2 * size; i++) {
        if (i < size) bytes[i] ^= (uint8_t)(1 + pick(&v->b, 255));
        put_bytes(&v->b, key, bytes, i < size ? size : i - size, 1);
        OK(store_read(v->b.store, NULL, key, 0, bytes, i < size ? i : 0, &err));
        if (v3_restore(v, LATEST, &res, &err) == RC_OK) {
            read_whole(v->b.out, &object);
            assert_int_equal(object.size, want->size);
            assert_memory_equal(object.data, want->data, want->size);
            unlink(v->b.out);
        } else {
            assert_true(err.rc == RC_CORRUPT || err.rc == RC_GAP);
        }
        assert_int_equal(files_in(v->b.dir), 0);
    }
    buf_fini(&object);
}

static void test_corrupt_objects(void **state)
{
    (void)state;
    struct v3 v;
    struct buf want = BUF_INIT;
    v3_open(&v, 512, seed_get());
    put_snapshot(&v);
    sql(&v, "INSERT INTO t(x) VALUES (zeroblob(700))");
    put_segment(&v);
    by_sqlite(&v, &want);
    corrupt_object(&v, segment_key(&v, 0), &want);
    buf_fini(&want);
    v3_close(&v);
    v3_open(&v, 512, 1);
    put_snapshot(&v);
    by_sqlite(&v, &want);
    corrupt_object(&v, "generations/0000000000000abc/snapshots/00000001.snapshot.lz4", &want);
    buf_fini(&want);
    v3_close(&v);
}

/* Damage that LZ4 cannot see. */
static void test_damaged_wal(void **state)
{
    (void)state;
    struct v3 v;
    struct buf wal = BUF_INIT;
    v3_open(&v, 512, seed_get());
    put_snapshot(&v);
    sql(&v, "INSERT INTO t(x) VALUES (randomblob(3000))");
    read_whole(v.wal, &wal);
    wal.data[32 + 24 + 512 + 100] ^= 1;
    put_lz4(&v, segment_key(&v, 0), wal.data, wal.size);
    v3_fails(&v, LATEST, RC_CORRUPT, "frame 2 of");
    wal.data[3] ^= 0xF0;
    put_lz4(&v, segment_key(&v, 0), wal.data, wal.size);
    v3_fails(&v, LATEST, RC_CORRUPT, "WAL index 00000001 of generation 0000000000000abc: ");
    put_lz4(&v, segment_key(&v, 0), wal.data, 20);
    v3_fails(&v, LATEST, RC_CORRUPT, "only 20 bytes");
    put_lz4(&v, "generations/0000000000000abc/snapshots/00000001.snapshot.lz4", wal.data, 1024);
    v3_fails(&v, LATEST, RC_CORRUPT, "the snapshot is no database");
    put_lz4(&v, "generations/0000000000000abc/snapshots/00000001.snapshot.lz4", wal.data, 100);
    v3_fails(&v, LATEST, RC_CORRUPT, "the snapshot has only 100 bytes");
    buf_fini(&wal);
    v3_close(&v);
}

static void test_every_step_fails_once(void **state)
{
    (void)state;
    struct v3 v;
    struct buf want = BUF_INIT, got = BUF_INIT;
    v3_open(&v, 1024, seed_get());
    put_snapshot(&v);
    sql(&v, "INSERT INTO t(x) VALUES (randomblob(3000))");
    next_index(&v);
    sql(&v, "INSERT INTO t(x) VALUES (randomblob(3000))");
    put_segment(&v);
    by_sqlite(&v, &want);
    unsigned classes[] = {FAULT_ALLOC, FAULT_SYSCALL};
    for (int i = 0; i < 2; i++) {
        bool fired = true;
        for (uint64_t n = 1; fired; n++) {
            struct restore_result res;
            struct err err = {0};
            int fds = files_in("/proc/self/fd");
            fault_arm(classes[i], n, false);
            enum rc rc = v3_restore(&v, LATEST, &res, &err);
            fired = fault_fired();
            fault_arm(0, 0, false);
            assert_true(rc == RC_OK || (fired && err.text[0] != '\0'));
            assert_int_equal(files_in("/proc/self/fd"), fds);
            if (access(v.b.out, F_OK) == 0) {
                read_whole(v.b.out, &got);
                assert_int_equal(got.size, want.size);
                assert_memory_equal(got.data, want.data, want.size);
                unlink(v.b.out);
            } else {
                assert_int_not_equal(rc, RC_OK);
            }
            /* The file without a name keeps one when its unlink is what failed. */
            char spool[128];
            snprintf(spool, sizeof spool, "%s.tmp-wal", v.b.out);
            if (rc != RC_OK) unlink(spool);
            assert_int_equal(files_in(v.b.dir), 0);
            assert_true(n < 1000);
        }
    }
    buf_fini(&want);
    buf_fini(&got);
    v3_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restores_what_sqlite_would_have),
        cmocka_unit_test(test_uncommitted_frames_do_not_count),
        cmocka_unit_test(test_choice_of_generation_and_snapshot),
        cmocka_unit_test(test_holes_are_named),
        cmocka_unit_test(test_corrupt_objects),
        cmocka_unit_test(test_damaged_wal),
        cmocka_unit_test(test_every_step_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
