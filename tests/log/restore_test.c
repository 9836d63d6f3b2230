/* restore_test.c -- restores against whole images kept beside the log; see restore_bed.h. */
#include "log/restore_bed.h"
#include "store/driver.h"
#include <errno.h>

/* ---- A store that lets a test do something just before a get ---- */

struct hook_store {
    struct store base;
    struct store_ops ops;
    struct store *inner;
    void (*before)(struct bed *b, const char *key);
    struct bed *bed;
};

static enum rc hook_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    h->before(h->bed, key);
    return h->inner->ops->get(h->inner, c, key, opts, sink, ctx, err);
}

static enum rc hook_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    return h->inner->ops->list(h->inner, c, prefix, opts, fn, ctx, err);
}

static void hook_on(struct bed *b, struct hook_store *h,
                    void (*before)(struct bed *b, const char *key))
{
    *h = (struct hook_store){.inner = b->store, .before = before, .bed = b};
    h->ops = (struct store_ops){.type = "hook", .caps = b->store->caps};
    h->ops.get = hook_get;
    h->ops.list = hook_list;
    store_init(&h->base, &h->ops, "hook");
    b->log.store = &h->base;
}

/* ---- Random logs ---- */

static void random_log(struct bed *b)
{
    uint32_t size = 1 + pick(b, 20), count = 1 + pick(b, 12);
    for (uint32_t i = 0; i < count; i++) {
        if (pick(b, 2)) size = 1 + pick(b, 2 * size + 3) % 60;
        bed_commit(b, size);
    }
    for (uint64_t t = 1; t <= b->txid; t++)
        if (pick(b, 5) != 0) put_file(b, 0, t, t);
    for (uint32_t n = pick(b, 8); n > 0; n--) {
        uint64_t min = 1 + pick(b, (uint32_t)b->txid);
        uint64_t max = min + pick(b, (uint32_t)(b->txid - min + 1));
        put_file(b, 1 + pick(b, 8), min, max);
    }
    for (uint32_t n = pick(b, 3); n > 0; n--)
        put_file(b, 9, 1, 1 + pick(b, (uint32_t)b->txid));
}

/* Which transaction does a target lead to, by the planner alone? 0: none. */
static uint64_t planned(struct bed *b, struct plan_target target)
{
    struct log_files plan = {0};
    struct err err;
    if (restore_plan(&b->log, NULL, &target, &plan, &err) != RC_OK) return 0;
    uint64_t txid = plan.items[plan.count - 1].txid_max;
    log_files_fini(&plan);
    return txid;
}

static void check_target(struct bed *b, struct plan_target target)
{
    struct restore_result res;
    struct err err;
    uint64_t txid = planned(b, target);
    if (txid > 0) {
        expect_state(b, target, txid);
        return;
    }
    enum rc rc = restore_to(b, target, &res, &err);
    assert_true(rc == RC_NOT_FOUND || (rc == RC_GAP && target.kind == PLAN_LATEST));
}

static void test_random_logs_at_every_point(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    int reached = 0;
    for (int round = 0; round < 60; round++) {
        struct bed b;
        bed_open(&b, 512u << round % 8, seed + (unsigned)round, "mem://");
        b.digests = round / 8 % 2;
        random_log(&b);
        for (uint64_t t = 1; t <= b.txid; t++) {
            check_target(&b, TXID(t));
            check_target(&b, TIME((int64_t)t * 1000 + 1));
            reached += planned(&b, TXID(t)) == t;
        }
        check_target(&b, LATEST);
        bed_close(&b);
    }
    assert_true(reached > 100);
}

static void test_every_parallelism_restores_alike(void **state)
{
    (void)state;
    struct bed b;
    struct restore_result res;
    struct err err;
    bed_open(&b, 65536, seed_get(), "mem://");
    for (int i = 0; i < 2; i++) {
        b.digests = i == 0;
        bed_commit(&b, 100);
        bed_commit(&b, 90);
        bed_commit(&b, 110);
        put_file(&b, 9, 1, 2); /* larger than what is fetched in one request */
        put_file(&b, 0, 3, 3);
        for (unsigned n = 1; n <= 1000; n = n * 3 + 1) {
            struct restore_opts opts = {.target = LATEST, .out_path = b.out, .parallelism = n};
            OK(restore_run(&b.log, NULL, &opts, &res, &err));
            assert_true(out_is(&b, &b.states[3]));
            unlink(b.out);
        }
        bed_forget(&b);
    }
    bed_close(&b);
}

/* An index of several chunks, and more pages than one batch takes. */
static void test_an_index_larger_than_its_buffer(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 150000);
    bed_commit(&b, 140000);
    for (int i = 0; i < 2; i++) {
        b.digests = i == 0;
        put_file(&b, 9, 1, 1);
        put_file(&b, 0, 2, 2);
        expect_state(&b, TXID(1), 1);
        expect_state(&b, LATEST, 2);
    }
    bed_close(&b);
}

/* More files than one group takes. */
static void test_many_small_files(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 1024, seed_get(), "mem://");
    for (uint32_t i = 0; i < STATES_MAX; i++)
        bed_commit(&b, 20 + i % 7);
    /* The same page set again and again, so that ties and losers abound. */
    for (uint64_t t = 1; t <= b.txid; t++)
        put_file(&b, 0, t, t);
    expect_state(&b, LATEST, b.txid);
    b.digests = true;
    put_file(&b, 0, b.txid, b.txid);
    expect_state(&b, LATEST, b.txid);
    bed_close(&b);
}

/* ---- The lock page: a database just past 1 GiB, nearly all of it zeros ---- */

static const uint8_t *lock_bed_page(uint32_t pgno)
{
    static uint8_t page[65536];
    memset(page, 0, sizeof page);
    if (pgno == 1 || pgno >= 16383) put_be32(page + 100, pgno);
    return page;
}

static void put_lock_bed(struct bed *b, bool digests)
{
    struct ltx_header h = {.flags = LTX_FLAG_NO_CHECKSUM,
                           .page_size = 65536,
                           .page_count = 16388,
                           .txid_min = 1,
                           .txid_max = 1,
                           .has_digest = digests};
    struct buf frames = BUF_INIT, index = BUF_INIT, file = BUF_INIT;
    uint8_t head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    struct ltx_encoder *enc;
    struct err err;
    assert_int_equal(ltx_lock_page(65536), 16385);
    OK(ltx_encoder_new(65536, LTX_ENC_BLOCK, &enc, &err));
    for (uint32_t pgno = 1; pgno <= h.page_count; pgno++) {
        if (pgno == 16385) continue;
        const uint8_t *page = lock_bed_page(pgno);
        OK(ltx_encoder_page(enc, pgno, page, &frames, &index, &err));
        if (digests) h.digest = digest_add(h.digest, digest_page(pgno, page, 65536));
    }
    OK(ltx_encoder_finish(enc, &h, &frames, &index, head, trailer, &err));
    OK(buf_append(&file, head, sizeof head, &err));
    OK(buf_append(&file, frames.data, frames.size, &err));
    OK(buf_append(&file, index.data, index.size, &err));
    OK(buf_append(&file, trailer, sizeof trailer, &err));
    put_bytes(b, key_of(9, 1, 1), file.data, file.size, 1);
    ltx_encoder_free(enc);
    buf_fini(&frames);
    buf_fini(&index);
    buf_fini(&file);
}

static void test_lock_page_stays_empty(void **state)
{
    (void)state;
    struct bed b;
    struct restore_result res;
    struct stat st;
    struct err err;
    uint8_t page[65536];
    size_t got;
    bed_open(&b, 65536, 1, "mem://");
    for (int digests = 0; digests < 2; digests++) {
        put_lock_bed(&b, digests);
        OK(restore_to(&b, LATEST, &res, &err));
        assert_int_equal(res.page_count, 16388);
        OK(os_stat(b.out, &st, &err));
        assert_int_equal(st.st_size, 16388ll * 65536);
        assert_true(st.st_blocks < 8192); /* pages of zeros take no room */
        CLEANUP(os_closep) int fd = -1;
        OK(os_open(b.out, O_RDONLY, 0, &fd, &err));
        for (uint32_t pgno = 16380; pgno <= 16388; pgno++) {
            OK(os_pread(fd, page, sizeof page, (pgno - 1) * 65536ull, &got, &err));
            assert_int_equal(get_be32(page + 100), pgno >= 16383 && pgno != 16385 ? pgno : 0);
        }
        unlink(b.out);
    }
    bed_close(&b);
}

/* ---- Files that vanish ---- */

static void compact_before_8(struct bed *b, const char *key)
{
    if (strcmp(key, key_of(0, 8, 8)) != 0) return;
    put_file(b, 1, 6, 9);
    for (uint64_t t = 6; t <= 9; t++)
        del_file(b, 0, t, t);
}

static void drop_newest(struct bed *b, const char *key)
{
    (void)key;
    for (uint64_t t = b->txid; t > 0; t--)
        del_file(b, 0, t, t);
}

static void drop_that(struct bed *b, const char *key)
{
    struct err err;
    OK(store_del(b->store, NULL, &key, 1, &err));
}

static void test_a_compaction_meanwhile_leads_to_a_new_plan(void **state)
{
    (void)state;
    struct bed b;
    struct hook_store h;
    bed_open(&b, 1024, seed_get(), "mem://");
    for (int i = 0; i < 2; i++) {
        b.digests = i == 1;
        for (uint32_t t = 1; t <= 10; t++)
            bed_commit(&b, 3 * t);
        put_file(&b, 9, 1, 5);
        for (uint64_t t = 6; t <= 10; t++)
            put_file(&b, 0, t, t);
        hook_on(&b, &h, compact_before_8);
        assert_true(expect_state(&b, LATEST, 10).replans >= 1);
        assert_int_equal(expect_state(&b, LATEST, 10).replans, 0);
        b.log.store = b.store;
        del_file(&b, 1, 6, 9);
        bed_forget(&b);
    }
    bed_close(&b);
}

/* One after another, the files of a log with many ways to the end disappear. */
static void test_a_log_that_dissolves(void **state)
{
    (void)state;
    struct bed b;
    struct hook_store h;
    bed_open(&b, 1024, seed_get(), "mem://");
    b.digests = true;
    for (uint32_t t = 1; t <= 4; t++)
        bed_commit(&b, 10);
    for (uint64_t t = 1; t <= 4; t++)
        put_file(&b, 0, t, t);
    hook_on(&b, &h, drop_newest);
    expect_failure(&b, LATEST, RC_NOT_FOUND, "vanished");
    b.log.store = b.store;
    for (uint32_t level = 0; level < 8; level++)
        put_file(&b, level, 1, 4);
    hook_on(&b, &h, drop_that);
    expect_failure(&b, LATEST, RC_NOT_FOUND, "8 planned files have vanished");
    b.log.store = b.store;
    for (uint32_t level = 0; level < 10; level++)
        put_file(&b, level, 1, 4);
    put_file(&b, 0, 1, 3);
    put_file(&b, 0, 4, 4);
    hook_on(&b, &h, drop_that);
    expect_failure(&b, LATEST, RC_NOT_FOUND, "gave up after 10 new plans");
    bed_close(&b);
}

static enum rc ghost_get(struct store *s, const struct call *c, const char *key,
                         const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                         struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    if (strcmp(key, key_of(0, 3, 3)) == 0) return err_set(err, RC_NOT_FOUND, "no '%s'", key);
    return h->inner->ops->get(h->inner, c, key, opts, sink, ctx, err);
}

/* A listing that names a file the store does not have: never silently the state before it. */
static void test_a_ghost_is_no_reason_to_restore_less(void **state)
{
    (void)state;
    struct bed b;
    struct hook_store h;
    bed_open(&b, 1024, seed_get(), "mem://");
    for (uint32_t t = 1; t <= 3; t++)
        bed_commit(&b, 10);
    for (uint64_t t = 1; t <= 3; t++)
        put_file(&b, 0, t, t);
    hook_on(&b, &h, NULL);
    h.ops.get = ghost_get;
    expect_failure(&b, LATEST, RC_GAP, "cannot deliver it");
    expect_state(&b, TXID(2), 2);
    assert_int_equal(expect_state(&b, TIME(9999), 2).replans, 1);
    put_file(&b, 1, 1, 3);
    assert_int_equal(expect_state(&b, LATEST, 3).replans, 0);
    bed_close(&b);
}

/* ---- How much is fetched ---- */

static atomic_uint_fast64_t asked_bytes, asked_gets;

static enum rc count_get(struct store *s, const struct call *c, const char *key,
                         const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                         struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    asked_bytes += opts->size;
    asked_gets++;
    return h->inner->ops->get(h->inner, c, key, opts, sink, ctx, err);
}

/* With a digest only winning pages are fetched; without one, everything, and once. */
static void test_losing_pages_are_not_fetched(void **state)
{
    (void)state;
    struct bed b;
    struct hook_store h;
    struct log_files files = {0};
    uint64_t total = 0;
    struct err err;
    bed_open(&b, 65536, seed_get(), "mem://");
    for (int i = 0; i < 2; i++) {
        b.digests = i == 0;
        bed_commit(&b, 60);
        for (size_t k = 0; k < 60 * 65536; k++)
            b.states[1].image[k] = (uint8_t)pick(&b, 256);
        bed_commit(&b, 60);
        memset(b.states[2].wrote + 1, 1, 60);
        b.states[2].wrote[7] = b.states[2].wrote[30] = 0;
        memcpy(b.states[2].image + 6 * 65536, b.states[1].image + 6 * 65536, 65536);
        memcpy(b.states[2].image + 29 * 65536, b.states[1].image + 29 * 65536, 65536);
        put_file(&b, 9, 1, 1);
        put_file(&b, 0, 2, 2);
        hook_on(&b, &h, NULL);
        h.ops.get = count_get;
        asked_bytes = asked_gets = total = 0;
        expect_state(&b, LATEST, 2);
        OK(log_list_all(&b.log, NULL, &files, &err));
        for (size_t k = 0; k < files.count; k++)
            total += files.items[k].size;
        if (b.digests)
            assert_true(asked_bytes < total - 57 * 65536);
        else
            assert_true(asked_bytes == total);
        assert_true(asked_gets < 16);
        log_files_fini(&files);
        b.log.store = b.store;
        bed_forget(&b);
    }
    bed_close(&b);
}

/* ---- Wrong bytes ---- */

/* Every byte of every file of a small log, three ways; then every length. */
static void corrupt_all(struct bed *b, uint32_t level, uint64_t min, uint64_t max)
{
    struct ltx_header h = header_of(b, min, max);
    struct buf file = BUF_INIT;
    const char *key = key_of(level, min, max);
    uint64_t index_off, index_size;
    struct err err;
    encode(b, &h, &file);
    OK(ltx_index_locate(file.data + file.size - 24, file.size, &index_off, &index_size, &err));
    for (size_t i = 0; i < 3 * file.size + file.size; i++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xFF};
        struct restore_result res;
        size_t at = i / 3;
        err_clear(&err);
        if (i < 3 * file.size) file.data[at] ^= flips[i % 3];
        put_bytes(b, key, file.data, i < 3 * file.size ? file.size : i - 3 * file.size, 1);
        if (i < 3 * file.size) file.data[at] ^= flips[i % 3];
        enum rc rc = restore_to(b, LATEST, &res, &err);
        if (rc == RC_OK) {
            if (!out_is(b, &b->states[b->txid])) fail_msg("%s: byte %zu: wrong restore", key, at);
            unlink(b->out);
            /* Other compressed bytes may mean the same page. */
            assert_true(b->digests || (at >= LTX_HEADER_SIZE && at < index_off));
        } else {
            /* A file cut to less than a header counts as missing. */
            assert_true(rc == RC_CORRUPT || (i >= 3 * file.size && rc == RC_GAP) ||
                        (i >= 3 * file.size && rc == RC_NOT_FOUND));
            assert_true(err.text[0] != '\0');
        }
        assert_int_equal(files_in(b->dir), 0);
    }
    put_bytes(b, key, file.data, file.size, 1);
    buf_fini(&file);
}

static void test_no_corrupt_byte_goes_unnoticed(void **state)
{
    (void)state;
    struct bed b;
    unsigned seed = seed_get();
    for (int i = 0; i < 2; i++) {
        bed_open(&b, 512, seed, "mem://");
        b.digests = i == 0;
        bed_commit(&b, 3);
        bed_commit(&b, 4);
        bed_commit(&b, 3);
        b.states[1].image[0] = 1; /* not a page of zeros */
        put_file(&b, 9, 1, 2);
        put_file(&b, 0, 3, 3);
        put_file(&b, 0, 4 - 1, 3);
        corrupt_all(&b, 9, 1, 2);
        if (i == 1) corrupt_all(&b, 0, 3, 3);
        expect_state(&b, LATEST, 3);
        bed_close(&b);
    }
}

static void test_no_corrupt_byte_of_the_newest_file(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 512, seed_get(), "mem://");
    b.digests = true;
    bed_commit(&b, 3);
    bed_commit(&b, 4);
    put_file(&b, 9, 1, 2);
    corrupt_all(&b, 9, 1, 2);
    bed_close(&b);
}

static void test_texts_of_corrupt_logs(void **state)
{
    (void)state;
    struct bed b;
    struct buf file = BUF_INIT;
    struct ltx_header h;
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 3);
    bed_commit(&b, 8);
    put_file(&b, 9, 1, 1);
    /* A page that nobody wrote. */
    b.states[2].wrote[6] = 0;
    put_file(&b, 0, 2, 2);
    expect_failure(&b, LATEST, RC_CORRUPT, "page 6 of 8 is in none of the 2 log files");
    /* A database larger than all bytes of its log. */
    h = header_of(&b, 2, 2);
    h.page_count = 4000000000;
    encode(&b, &h, &file);
    put_bytes(&b, key_of(0, 2, 2), file.data, file.size, 1);
    expect_failure(&b, LATEST, RC_CORRUPT, "4000000000 pages, more than");
    buf_reset(&file);
    /* A wrong digest. */
    b.states[2].wrote[6] = 1;
    h = header_of(&b, 2, 2);
    h.has_digest = true;
    h.digest = (struct digest){.lo = 7};
    encode(&b, &h, &file);
    put_bytes(&b, key_of(0, 2, 2), file.data, file.size, 1);
    expect_failure(&b, LATEST, RC_CORRUPT, "had 00000000000000000000000000000007");
    /* A file under another's name. */
    put_bytes(&b, key_of(0, 2, 3), file.data, file.size, 1);
    expect_failure(&b, LATEST, RC_CORRUPT,
                   "its header says transactions 0000000000000002 to 0000000000000002");
    del_file(&b, 0, 2, 3);
    /* Another page size. */
    b.page_size = 1024;
    b.states[2].page_count = 4;
    put_file(&b, 0, 2, 2);
    expect_failure(&b, LATEST, RC_CORRUPT, "has pages of 512 bytes, newer files have 1024");
    b.page_size = 512;
    buf_fini(&file);
    bed_close(&b);
}

/* ---- Files that agree with their own checksum, and still lie ---- */

static void put_varint(struct buf *out, uint64_t v)
{
    struct err err;
    for (;; v >>= 7) {
        uint8_t byte = (uint8_t)(v < 0x80 ? v : v | 0x80);
        OK(buf_append(out, &byte, 1, &err));
        if (v < 0x80) return;
    }
}

/* The file without the index entry of one page; its frame stays. */
static void drop_entry(uint32_t page_size, struct buf *file, uint32_t pgno)
{
    struct buf index = BUF_INIT;
    struct ltx_index_reader r = {0};
    struct ltx_index_entry e;
    uint64_t off, size;
    uint8_t tail[24];
    bool more;
    struct err err;
    memcpy(tail, file->data + file->size - 24, 24);
    OK(ltx_index_locate(tail, file->size, &off, &size, &err));
    for (uint64_t at = 0; !r.done;) {
        size_t took = size - at;
        OK(ltx_index_next(&r, file->data + off + at, &took, &e, &more, &err));
        at += took;
        if (!more || e.pgno == pgno) continue;
        put_varint(&index, e.pgno);
        put_varint(&index, e.off);
        put_varint(&index, e.size);
    }
    put_varint(&index, 0);
    put_be64(tail, index.size);
    file->size = off;
    OK(buf_append(file, index.data, index.size, &err));
    OK(buf_append(file, tail, sizeof tail, &err));
    reseal(page_size, file->data, file->size);
    buf_fini(&index);
}

static void expect_lie(struct bed *b, struct buf *file, const char *words)
{
    put_bytes(b, key_of(0, 2, 2), file->data, file->size, 1);
    expect_failure(b, LATEST, RC_CORRUPT, words);
    struct ltx_header h = header_of(b, 2, 2);
    buf_reset(file);
    encode(b, &h, file);
}

static void test_lies_under_a_right_checksum(void **state)
{
    (void)state;
    struct bed b;
    struct buf file = BUF_INIT;
    struct ltx_header h;
    uint64_t off, size;
    struct err err;
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 6);
    bed_commit(&b, 6);
    memset(b.states[2].wrote + 1, 1, 6);
    put_file(&b, 9, 1, 1);
    h = header_of(&b, 2, 2);
    encode(&b, &h, &file);
    drop_entry(512, &file, 6);
    expect_lie(&b, &file, "its index misses frames at the end");
    drop_entry(512, &file, 3);
    expect_lie(&b, &file, "the frame of page 4 begins at");
    put_be32(file.data + LTX_HEADER_SIZE, 6);
    reseal(512, file.data, file.size);
    expect_lie(&b, &file, "page 1: it is the frame of page 6");
    OK(ltx_index_locate(file.data + file.size - 24, file.size, &off, &size, &err));
    file.data[off - 1] = 1;
    reseal(512, file.data, file.size);
    expect_lie(&b, &file, "no end mark");
    put_be32(file.data + 12, 5);
    reseal(512, file.data, file.size);
    expect_lie(&b, &file, "page 6");
    put_bytes(&b, key_of(0, 2, 2), file.data, file.size, 1);
    expect_state(&b, LATEST, 2);
    buf_fini(&file);
    bed_close(&b);
}

/* A log that tracks checksums (header flag 0) is checked by them. */
static void test_tracked_checksum(void **state)
{
    (void)state;
    struct bed b;
    struct buf file = BUF_INIT;
    struct ltx_header h;
    uint64_t sum = 0;
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 5);
    h = header_of(&b, 1, 1);
    encode(&b, &h, &file);
    for (uint32_t i = 0; i < 5; i++)
        sum ^= ltx_page_sum(i + 1, b.states[1].image + (size_t)i * 512, 512);
    put_be32(file.data + 4, 0);
    put_be64(file.data + file.size - 16, sum | LTX_SUM_FLAG);
    reseal(512, file.data, file.size);
    put_bytes(&b, key_of(9, 1, 1), file.data, file.size, 1);
    expect_state(&b, LATEST, 1);
    file.data[file.size - 9] ^= 1;
    reseal(512, file.data, file.size);
    put_bytes(&b, key_of(9, 1, 1), file.data, file.size, 1);
    expect_failure(&b, LATEST, RC_CORRUPT, "the restored pages have checksum");
    buf_fini(&file);
    bed_close(&b);
}

/* ---- The output and the caller ---- */

static void write_small(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_what_stands_at_the_output(void **state)
{
    (void)state;
    struct bed b;
    struct restore_result res;
    struct stat st;
    struct err err;
    char tmp[128], wal[128], deep[128];
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 5);
    put_file(&b, 0, 1, 1);
    snprintf(tmp, sizeof tmp, "%s.tmp", b.out);
    snprintf(wal, sizeof wal, "%s-wal", b.out);
    write_small(tmp, "left by a crash");
    write_small(b.out, "");
    write_small(wal, "");
    expect_state(&b, LATEST, 1);
    assert_int_equal(access(tmp, F_OK), -1);
    write_small(b.out, "precious");
    expect_failure(&b, LATEST, RC_CONFLICT, "out.db' exists: restoring would overwrite it");
    unlink(b.out);
    write_small(wal, "old frames");
    expect_failure(&b, LATEST, RC_CONFLICT, "out.db-wal' exists: SQLite would replay it");
    unlink(wal);
    snprintf(wal, sizeof wal, "%s-journal", b.out);
    write_small(wal, "old pages");
    expect_failure(&b, LATEST, RC_CONFLICT, "out.db-journal' exists: SQLite would roll it back");
    unlink(wal);

    snprintf(deep, sizeof deep, "%s/a/b/out.db", b.dir);
    struct restore_opts opts = {.target = LATEST, .out_path = deep, .mode = 0640};
    OK(restore_run(&b.log, NULL, &opts, &res, &err));
    OK(os_stat(deep, &st, &err));
    assert_int_equal(st.st_mode & 0777, 0640);
    unlink(deep);
    for (char *slash; (slash = strrchr(deep, '/')) > deep + strlen(b.dir);) {
        *slash = '\0';
        assert_int_equal(rmdir(deep), 0);
    }
    bed_close(&b);
}

static void test_two_restores_do_not_mix(void **state)
{
    (void)state;
    struct bed b;
    char tmp[128];
    struct err err;
    int fd;
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 5);
    put_file(&b, 0, 1, 1);
    snprintf(tmp, sizeof tmp, "%s.tmp", b.out);
    OK(os_open(tmp, O_RDWR | O_CREAT, 0600, &fd, &err));
    OK(os_lock(fd, &err));
    expect_failure(&b, LATEST, RC_BUSY, "is being written by another restore");
    os_close(fd);
    expect_state(&b, LATEST, 1);
    bed_close(&b);
}

struct watch {
    uint64_t last, total;
    int calls;
    atomic_bool cancel, cancel_at_once;
};

static void watch_progress(void *ctx, const struct restore_progress *p)
{
    struct watch *w = ctx;
    assert_true(p->bytes_done >= w->last && p->bytes_done <= p->bytes_total);
    w->last = p->bytes_done;
    w->total = p->bytes_total;
    w->calls++;
    if (w->cancel_at_once) w->cancel = true;
}

static void test_progress_and_cancel(void **state)
{
    (void)state;
    struct bed b;
    struct watch w = {0};
    struct restore_result res;
    struct err err;
    bed_open(&b, 65536, seed_get(), "mem://");
    for (uint32_t t = 1; t <= 9; t++)
        bed_commit(&b, 20);
    put_file(&b, 9, 1, 3);
    for (uint64_t t = 4; t <= 9; t++)
        put_file(&b, 0, t, t);
    struct restore_opts opts = {
        .target = LATEST, .out_path = b.out, .progress = watch_progress, .progress_ctx = &w};
    struct call call = {.cancel = &w.cancel};
    OK(restore_run(&b.log, &call, &opts, &res, &err));
    assert_true(w.calls >= 2 && w.last == w.total && w.total > 100000);
    unlink(b.out);
    w = (struct watch){.cancel_at_once = true};
    assert_int_equal(restore_run(&b.log, &call, &opts, &res, &err), RC_CANCELED);
    assert_int_equal(files_in(b.dir), 0);
    call = (struct call){.deadline_ms = 1};
    assert_int_equal(restore_run(&b.log, &call, &opts, &res, &err), RC_CANCELED);
    assert_int_equal(files_in(b.dir), 0);
    bed_close(&b);
}

static void test_nothing_to_restore(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 512, 1, "mem://");
    expect_failure(&b, LATEST, RC_NOT_FOUND, "holds no files");
    expect_failure(&b, TXID(1), RC_NOT_FOUND, "0000000000000001 is not available");
    put_bytes(&b, "ltx/0/readme.txt", "hello", 5, 1);
    expect_failure(&b, TIME(1), RC_NOT_FOUND, "no snapshot");
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_logs_at_every_point),
        cmocka_unit_test(test_every_parallelism_restores_alike),
        cmocka_unit_test(test_an_index_larger_than_its_buffer),
        cmocka_unit_test(test_many_small_files),
        cmocka_unit_test(test_lock_page_stays_empty),
        cmocka_unit_test(test_a_compaction_meanwhile_leads_to_a_new_plan),
        cmocka_unit_test(test_a_log_that_dissolves),
        cmocka_unit_test(test_a_ghost_is_no_reason_to_restore_less),
        cmocka_unit_test(test_no_corrupt_byte_goes_unnoticed),
        cmocka_unit_test(test_no_corrupt_byte_of_the_newest_file),
        cmocka_unit_test(test_texts_of_corrupt_logs),
        cmocka_unit_test(test_lies_under_a_right_checksum),
        cmocka_unit_test(test_losing_pages_are_not_fetched),
        cmocka_unit_test(test_tracked_checksum),
        cmocka_unit_test(test_what_stands_at_the_output),
        cmocka_unit_test(test_two_restores_do_not_mix),
        cmocka_unit_test(test_progress_and_cancel),
        cmocka_unit_test(test_nothing_to_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
