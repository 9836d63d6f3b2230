/*
 * compact_test.c -- merged files against whole images kept beside the log (restore_bed.h), against
 * damage, against sources that vanish and against others who were first.
 */
#include "log/compact_bed.h"
#include "store/driver.h"

#define LEVEL(n) (&(struct compact_opts){.level = (n)})

/* ---- Random logs ---- */

static void random_commits(struct bed *b, uint32_t count)
{
    uint32_t size = 1 + pick(b, 20);
    for (uint32_t i = 0; i < count; i++) {
        if (pick(b, 2)) size = 1 + pick(b, 2 * size + 3) % 60;
        bed_commit(b, size);
    }
}

/* What can be restored, is; the rest is refused. */
static int restore_all(struct bed *b)
{
    CLEANUP(log_files_fini) struct log_files all = {0};
    int count = 0;
    struct err err;
    OK(log_list_all(&b->log, NULL, &all, &err));
    for (uint64_t t = 1; t <= b->txid; t++) {
        struct log_files plan = {0};
        struct plan_target target = TXID(t);
        if (plan_make(&all, &target, &plan, &err) != RC_OK) continue;
        log_files_fini(&plan);
        expect_state(b, TXID(t), t);
        count++;
    }
    return count;
}

static bool planned_at(struct bed *b, uint64_t txid)
{
    struct plan_target target = TXID(txid);
    struct log_files plan = {0};
    struct err err;
    if (restore_plan(&b->log, NULL, &target, &plan, &err) != RC_OK) return false;
    log_files_fini(&plan);
    return true;
}

/* Merge all files of a level into the next in random runs, and delete the sources. */
static void climb(struct bed *b, uint32_t level)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct err err;
    OK(log_list(&b->log, NULL, level, &files, &err));
    for (size_t i = 0, n; i < files.count; i += n) {
        n = 1 + pick(b, 6);
        if (n > files.count - i) n = files.count - i;
        uint64_t min = files.items[i].txid_min, max = files.items[i + n - 1].txid_max;
        struct compact_opts opts = {.level = level + 1, .parallelism = pick(b, 5)};
        struct compact_result res = {0};
        if (pick(b, 2)) opts.index_max = 1;
        if (pick(b, 2)) opts.held_max = 1 + pick(b, 20000);
        OK(merge_run(b, level, min, max, &opts, &res, &err));
        assert_false(res.existed);
        assert_int_equal(res.file.level, level + 1);
        assert_int_equal(res.file.txid_min, min);
        assert_int_equal(res.file.txid_max, max);
        assert_int_equal(res.file.created_ms, (int64_t)max * 1000);
        check_file(b, level + 1, min, max);
        for (size_t k = i; k < i + n; k++)
            del_file(b, level, files.items[k].txid_min, files.items[k].txid_max);
    }
}

static void test_random_logs_climb(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    int restored = 0;
    for (int round = 0; round < 24; round++) {
        struct bed b;
        struct err err;
        struct compact_result res;
        bed_open(&b, 512u << round % 8, seed + (unsigned)round, "mem://");
        b.digests = round / 8 % 2;
        random_commits(&b, 2 + pick(&b, 16));
        for (uint64_t t = 1; t <= b.txid; t++)
            put_file(&b, 0, t, t);
        for (uint32_t level = 0; level < 3; level++) {
            climb(&b, level);
            restored += restore_all(&b);
        }
        uint64_t mid = 1 + pick(&b, (uint32_t)b.txid - 1);
        if (planned_at(&b, mid)) {
            OK(compact_snapshot(&b.log, NULL, mid, LEVEL(0), &res, &err));
            check_file(&b, 9, 1, mid);
        }
        OK(compact_snapshot(&b.log, NULL, 0, LEVEL(0), &res, &err));
        assert_int_equal(res.pages, b.states[b.txid].page_count);
        check_file(&b, 9, 1, b.txid);
        restored += restore_all(&b);
        OK(compact_snapshot(&b.log, NULL, 0, LEVEL(0), &res, &err));
        assert_true(res.existed && res.pages == 0);
        expect_state(&b, LATEST, b.txid);
        bed_close(&b);
    }
    assert_true(restored > 100);
}

/* Files of any level, overlapping, with times and digests mixed. */
static void test_overlaps(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    bed_open(&b, 1024, seed_get(), "mem://");
    random_commits(&b, 12);
    put_file(&b, 1, 2, 5);
    put_file(&b, 1, 4, 8);
    put_file(&b, 1, 8, 12);
    OK(merge_run(&b, 1, 2, 12, LEVEL(2), &res, &err));
    check_file(&b, 2, 2, 12);
    put_file(&b, 0, 1, 1);
    b.digests = true;
    put_file(&b, 0, 12, 12); /* the only one that has one: the others are not needed whole */
    b.digests = false;
    del_file(&b, 2, 2, 12);
    OK(merge_run(&b, 1, 2, 8, LEVEL(3), &res, &err));
    b.digests = true;
    put_file(&b, 2, 9, 12);
    del_file(&b, 1, 8, 12);
    OK(compact_snapshot(&b.log, NULL, 0, LEVEL(0), &res, &err));
    check_file(&b, 9, 1, 12);
    bed_close(&b);
}

/* ---- Sizes ---- */

/* Sources that do not fit into memory, an index of several chunks, a new index on disk. */
static void test_large_sources(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    bed_open(&b, 512, seed_get(), "mem://");
    bed_commit(&b, 150000);
    bed_commit(&b, 140000);
    bed_commit(&b, 150000);
    for (int i = 0; i < 2; i++) {
        b.digests = i == 0;
        put_file(&b, 9, 1, 1);
        put_file(&b, 0, 2, 2);
        put_file(&b, 0, 3, 3);
        struct compact_opts opts = {.parallelism = (unsigned)i * 8};
        OK(compact_snapshot(&b.log, NULL, 0, &opts, &res, &err));
        assert_int_equal(res.pages, 150000);
        check_file(&b, 9, 1, 3);
        OK(merge_run(&b, 0, 2, 3, LEVEL(1), &res, &err));
        check_file(&b, 1, 2, 3);
        del_file(&b, 9, 1, 3);
        del_file(&b, 1, 2, 3);
    }
    bed_close(&b);
}

/* As many as may be, each with the same few pages. */
static void test_many_small_sources(void **state)
{
    (void)state;
    struct bed b;
    struct err err = {0};
    struct compact_result res = {0};
    CLEANUP(log_files_fini) struct log_files run = {0};
    CLEANUP(buf_fini) struct buf file = BUF_INIT, frames = BUF_INIT, index = BUF_INIT;
    struct ltx_encoder *enc;
    uint8_t head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE], page[512] = {0};
    const uint64_t count = COMPACT_FILES_MAX;
    bed_open(&b, 512, 1, "mem://");
    OK(ltx_encoder_new(512, LTX_ENC_BLOCK, &enc, &err));
    for (uint64_t t = 2; t < 2 + count; t++) {
        struct ltx_header h = {.flags = LTX_FLAG_NO_CHECKSUM, .page_size = 512, .page_count = 9};
        h.txid_min = h.txid_max = t;
        h.timestamp_ms = (int64_t)t;
        ltx_encoder_reset(enc);
        buf_reset(&frames);
        buf_reset(&index);
        buf_reset(&file);
        put_be64(page, t);
        for (uint32_t pgno = 1; pgno <= 9; pgno++)
            if (pgno == 1 || t % 9 == pgno - 1)
                OK(ltx_encoder_page(enc, pgno, page, &frames, &index, &err));
        OK(ltx_encoder_finish(enc, &h, &frames, &index, head, trailer, &err));
        OK(buf_append(&file, head, sizeof head, &err));
        OK(buf_append(&file, frames.data, frames.size, &err));
        OK(buf_append(&file, index.data, index.size, &err));
        OK(buf_append(&file, trailer, sizeof trailer, &err));
        put_bytes(&b, key_of(0, t, t), file.data, file.size, (int64_t)t);
    }
    ltx_encoder_free(enc);
    OK(log_list(&b.log, NULL, 0, &run, &err));
    size_t gone = 0;
    OK(compact_run(&b.log, NULL, &run, LEVEL(1), &res, &gone, &err));
    assert_int_equal(res.pages, 9);
    buf_reset(&file);
    OK(store_get(b.store, NULL, key_of(1, 2, 1 + count), NULL, grow, &file, &err));
    assert_int_equal(file.size, res.file.size);
    struct ltx_decoder *dec;
    struct ltx_event ev = {0};
    OK(ltx_decoder_new(&dec, &err));
    for (size_t at = 0; ev.kind != LTX_EV_END;) {
        size_t took = file.size - at;
        OK(ltx_decoder_step(dec, file.data + at, &took, &ev, &err));
        at += took;
        if (ev.kind != LTX_EV_PAGE) continue;
        uint64_t t = get_be64(ev.page.data), last = 1 + count;
        while (ev.page.pgno != 1 && last % 9 != ev.page.pgno - 1)
            last--;
        assert_int_equal(t, last);
    }
    ltx_decoder_free(dec);
    run.count = count;
    struct log_file *more = mem_realloc(run.items, (count + 1) * sizeof *more);
    assert_non_null(more);
    run.items = more;
    run.items[run.count++] = (struct log_file){0, count + 2, count + 2, 1000, 1};
    assert_int_equal(compact_run(&b.log, NULL, &run, LEVEL(1), &res, &gone, &err), RC_TOO_BIG);
    bed_close(&b);
}

/* A database just past 1 GiB, nearly all of it zeros: no file has the lock page. */
static void test_lock_page(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    static uint8_t page[65536];
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    bed_open(&b, 65536, 1, "mem://");
    for (uint64_t t = 1; t <= 2; t++) {
        CLEANUP(buf_fini) struct buf frames = BUF_INIT, index = BUF_INIT;
        struct ltx_encoder *enc;
        uint8_t head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
        struct ltx_header h = {.flags = LTX_FLAG_NO_CHECKSUM, .page_size = 65536};
        h.page_count = t == 1 ? 16388 : 16385; /* it ends with the lock page, then */
        h.txid_min = h.txid_max = t;
        OK(ltx_encoder_new(65536, LTX_ENC_BLOCK, &enc, &err));
        for (uint32_t pgno = t == 1 ? 1 : 16384; pgno <= h.page_count; pgno++) {
            put_be32(page + 100, pgno > 16380 ? pgno + (uint32_t)t : 0);
            if (pgno != 16385) OK(ltx_encoder_page(enc, pgno, page, &frames, &index, &err));
        }
        OK(ltx_encoder_finish(enc, &h, &frames, &index, head, trailer, &err));
        buf_reset(&file);
        OK(buf_append(&file, head, sizeof head, &err));
        OK(buf_append(&file, frames.data, frames.size, &err));
        OK(buf_append(&file, index.data, index.size, &err));
        OK(buf_append(&file, trailer, sizeof trailer, &err));
        put_bytes(&b, key_of(0, t, t), file.data, file.size, 1);
        ltx_encoder_free(enc);
    }
    OK(compact_snapshot(&b.log, NULL, 1, LEVEL(0), &res, &err));
    assert_int_equal(res.pages, 16387);
    OK(compact_snapshot(&b.log, NULL, 2, LEVEL(0), &res, &err));
    assert_int_equal(res.pages, 16384);
    struct restore_result restored;
    del_file(&b, 0, 1, 1);
    del_file(&b, 0, 2, 2);
    OK(restore_to(&b, LATEST, &restored, &err));
    assert_int_equal(restored.page_count, 16385);
    bed_close(&b);
}

/* ---- Damage ---- */

static void damage_bed(struct bed *b, unsigned seed, bool digests)
{
    bed_open(b, 512, seed, "mem://");
    b->digests = digests;
    for (uint32_t i = 0; i < 4; i++)
        bed_commit(b, 6 + i);
    for (uint64_t t = 1; t <= 4; t++)
        put_file(b, 0, t, t);
}

/* Nothing but level 0 is there. */
static void expect_nothing(struct bed *b)
{
    CLEANUP(log_files_fini) struct log_files files = {0};
    struct err err;
    OK(log_list_all(&b->log, NULL, &files, &err));
    for (size_t i = 0; i < files.count; i++)
        assert_int_equal(files.items[i].level, 0);
}

/* Merge a log with this file in it: it must be refused by its name, or do no harm. Returns whether
 * it was refused. */
static bool refused(struct bed *b, uint64_t t, bool snapshot)
{
    struct err err = {0};
    struct compact_result res = {0};
    uint64_t min = snapshot ? 1 : 2;
    enum rc rc = merge_run(b, 0, min, 4, snapshot ? LEVEL(9) : LEVEL(1), &res, &err);
    if (rc == RC_OK) {
        check_file(b, snapshot ? 9 : 1, min, 4);
        del_file(b, snapshot ? 9 : 1, min, 4);
        return false;
    }
    assert_int_equal(rc, RC_CORRUPT);
    assert_int_equal(res.file.txid_max, 0);
    /* With digests what is wrong may show in the sum only. */
    if (strstr(err.text, key_of(0, t, t)) == NULL && !(snapshot && b->digests))
        fail_msg("'%s' does not name %s", err.text, key_of(0, t, t));
    expect_nothing(b);
    return true;
}

static void test_every_byte_matters(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    for (int part = 0; part < 4; part++) {
        struct bed b;
        struct err err;
        CLEANUP(buf_fini) struct buf file = BUF_INIT;
        int harmless = 0;
        bool snapshot = part & 1;
        damage_bed(&b, seed, part & 2);
        const uint64_t t = 2 + pick(&b, 3);
        OK(store_get(b.store, NULL, key_of(0, t, t), NULL, grow, &file, &err));
        for (size_t at = 0; at < file.size; at++) {
            uint8_t was = file.data[at];
            file.data[at] = (uint8_t)(was ^ 1u << pick(&b, 8));
            put_bytes(&b, key_of(0, t, t), file.data, file.size, (int64_t)t * 1000);
            harmless += !refused(&b, t, snapshot);
            file.data[at] = was;
        }
        /* A few bits of compressed data mean nothing; with a digest, nor do, of any but the newest
         * source, the pages that lose, the checksum and most of the header. */
        if (!(snapshot && b.digests && t < 4) && harmless > (int)file.size / 50)
            fail_msg("%d of %zu bytes do not matter", harmless, file.size);
        for (size_t size = 0; size < file.size; size += 1 + pick(&b, 30)) {
            put_bytes(&b, key_of(0, t, t), file.data, size, (int64_t)t * 1000);
            assert_true(refused(&b, t, snapshot));
        }
        bed_close(&b);
    }
}

static void swap_file(struct bed *b, uint64_t t, const struct ltx_header *h)
{
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    encode(b, h, &file);
    put_bytes(b, key_of(0, t, t), file.data, file.size, 1);
}

static void expect_refusal(struct bed *b, uint32_t level, uint64_t min, const char *words)
{
    struct err err = {0};
    struct compact_result res;
    enum rc rc = merge_run(b, 0, min, 4, LEVEL(level), &res, &err);
    if (rc != RC_CORRUPT || strstr(err.text, words) == NULL)
        fail_msg("%s '%s', not '%s'", rc_name(rc), err.text, words);
    expect_nothing(b);
}

/* Files that are whole, and yet do not belong together. */
static void test_sound_files_that_do_not_fit(void **state)
{
    (void)state;
    struct bed b, other;
    unsigned seed = seed_get();
    damage_bed(&b, seed, true);
    struct ltx_header h = header_of(&b, 3, 3);
    h.digest.lo ^= 1;
    swap_file(&b, 3, &h);
    struct err err;
    struct compact_result res;
    OK(merge_run(&b, 0, 1, 4, LEVEL(9), &res, &err)); /* nobody needs the digest in between */
    del_file(&b, 9, 1, 4);
    h = header_of(&b, 4, 4);
    h.digest.hi ^= 1;
    swap_file(&b, 4, &h);
    expect_refusal(&b, 9, 1, "have digest");
    h = header_of(&b, 3, 4);
    swap_file(&b, 4, &h);
    expect_refusal(&b, 1, 2, "its header says");
    bed_open(&other, 1024, seed, "mem://");
    for (int i = 0; i < 4; i++)
        bed_commit(&other, 6);
    h = header_of(&other, 4, 4);
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    encode(&other, &h, &file);
    put_bytes(&b, key_of(0, 4, 4), file.data, file.size, 1);
    expect_refusal(&b, 1, 2, "has pages of 512 bytes, newer files have 1024");
    bed_close(&other);
    /* A page by which the database grew is nowhere. */
    b.states[4].wrote[9] = 0;
    b.digests = false;
    swap_file(&b, 4,
              &(struct ltx_header){.flags = LTX_FLAG_NO_CHECKSUM,
                                   .page_size = 512,
                                   .page_count = 9,
                                   .txid_min = 4,
                                   .txid_max = 4});
    expect_refusal(&b, 9, 1, "speaks of 9 pages, but page 9 is in none of the 4 log files");
    bed_close(&b);
}

/* Checksums that are tracked are verified where they can be, and not passed on. */
static void test_tracked_checksums(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    damage_bed(&b, seed_get(), false);
    struct ltx_header h = header_of(&b, 4, 4);
    uint64_t post = 0;
    for (uint32_t i = 0; i < h.page_count; i++)
        post ^= ltx_page_sum(i + 1, b.states[4].image + (size_t)i * 512, 512);
    encode(&b, &h, &file);
    for (uint64_t i = 0; i < 2; i++) {
        h.flags = 0;
        h.pre_sum = LTX_SUM_FLAG | 7;
        ltx_header_put(&h, file.data);
        put_be64(file.data + file.size - 16, (post | LTX_SUM_FLAG) ^ i);
        reseal(512, file.data, file.size);
        put_bytes(&b, key_of(0, 4, 4), file.data, file.size, 1);
        if (i == 1) break;
        OK(merge_run(&b, 0, 1, 4, LEVEL(9), &res, &err));
        check_file(&b, 9, 1, 4);
        del_file(&b, 9, 1, 4);
        OK(merge_run(&b, 0, 2, 4, LEVEL(1), &res, &err));
        check_file(&b, 1, 2, 4);
        del_file(&b, 1, 2, 4);
    }
    expect_refusal(&b, 9, 1, "have checksum");
    bed_close(&b);
}

static void test_runs_are_checked(void **state)
{
    (void)state;
    static const struct {
        uint32_t level, a_level, b_level;
        uint64_t a_min, a_max, b_min, b_max;
    } bad[] = {
        {0, 0, 0, 2, 2, 3, 3}, {10, 0, 0, 2, 2, 3, 3}, {1, 1, 0, 2, 2, 3, 3},
        {1, 0, 9, 2, 2, 3, 3}, {1, 0, 0, 2, 2, 4, 4},  {1, 0, 0, 2, 3, 3, 3},
        {1, 0, 0, 3, 3, 2, 2}, {9, 0, 0, 2, 2, 3, 3},  {1, 0, 0, 0, 2, 3, 3},
        {1, 0, 0, 3, 2, 3, 3}, {9, 0, 10, 1, 2, 3, 3},
    };
    struct bed b;
    struct err err;
    struct compact_result res;
    size_t gone = 0;
    bed_open(&b, 512, 1, "mem://");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct log_file f[] = {{bad[i].a_level, bad[i].a_min, bad[i].a_max, 1000, 1},
                               {bad[i].b_level, bad[i].b_min, bad[i].b_max, 1000, 1}};
        struct log_files run = {.items = f, .count = 2};
        assert_int_equal(compact_run(&b.log, NULL, &run, LEVEL(bad[i].level), &res, &gone, &err),
                         RC_INVALID);
        assert_int_equal(gone, 2);
    }
    struct log_files none = {0};
    assert_int_equal(compact_run(&b.log, NULL, &none, LEVEL(1), &res, &gone, &err), RC_INVALID);
    assert_int_equal(compact_snapshot(&b.log, NULL, 0, LEVEL(0), &res, &err), RC_NOT_FOUND);
    bed_close(&b);
}

/* ---- Others ---- */

/* A store that lets a test do something before a get, and before the answer to a put. */
struct hook_store {
    struct store base;
    struct store_ops ops;
    struct bed *bed;
    struct store *inner;
    void (*before_get)(struct bed *b, const char *key);
    bool lose_put; /* it takes effect, and the answer to the second try comes back */
};

static enum rc hook_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    if (h->before_get != NULL) h->before_get(h->bed, key);
    return h->inner->ops->get(h->inner, c, key, opts, sink, ctx, err);
}

static enum rc hook_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    return h->inner->ops->list(h->inner, c, prefix, opts, fn, ctx, err);
}

static enum rc hook_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err)
{
    struct hook_store *h = (struct hook_store *)s;
    assert_true(opts->if_absent);
    if (h->lose_put) TRY(h->inner->ops->put(h->inner, c, key, body, opts, ret_obj, err));
    return h->inner->ops->put(h->inner, c, key, body, opts, ret_obj, err);
}

static void hook_on(struct bed *b, struct hook_store *h)
{
    h->bed = b;
    h->inner = b->store;
    h->ops = (struct store_ops){.type = "hook", .caps = b->store->caps};
    h->ops.get = hook_get;
    h->ops.list = hook_list;
    h->ops.put = hook_put;
    store_init(&h->base, &h->ops, "hook");
    b->log.store = &h->base;
}

static void drop_3(struct bed *b, const char *key)
{
    if (strcmp(key, key_of(0, 3, 3)) == 0) del_file(b, 0, 3, 3);
}

static void merge_before_3(struct bed *b, const char *key)
{
    if (strcmp(key, key_of(0, 3, 3)) != 0) return;
    put_file(b, 1, 2, 4);
    for (uint64_t t = 2; t <= 4; t++)
        del_file(b, 0, t, t);
}

static void test_sources_that_vanish(void **state)
{
    (void)state;
    struct bed b;
    struct err err = {0};
    struct compact_result res = {0};
    struct hook_store hook = {.before_get = drop_3};
    CLEANUP(log_files_fini) struct log_files run = {0};
    size_t gone = 0;
    damage_bed(&b, seed_get(), false);
    run_of(&b, 0, 2, 4, &run);
    hook_on(&b, &hook);
    assert_int_equal(compact_run(&b.log, NULL, &run, LEVEL(1), &res, &gone, &err), RC_NOT_FOUND);
    assert_int_equal(gone, 1);
    assert_non_null(strstr(err.text, key_of(0, 3, 3)));
    expect_nothing(&b);
    assert_int_equal(compact_snapshot(&b.log, NULL, 4, LEVEL(0), &res, &err), RC_NOT_FOUND);
    expect_nothing(&b);
    put_file(&b, 0, 3, 3);
    hook.before_get = merge_before_3;
    OK(compact_snapshot(&b.log, NULL, 4, LEVEL(0), &res, &err));
    assert_int_equal(res.replans, 1);
    check_file(&b, 9, 1, 4);
    b.log.store = b.store;
    bed_close(&b);
}

/* A large one is read in ranges: it may vanish when it is half read. */
static void drop_large(struct bed *b, const char *key)
{
    static atomic_int gets;
    if (strcmp(key, key_of(0, 1, 1)) == 0 && atomic_fetch_add(&gets, 1) == 5) del_file(b, 0, 1, 1);
}

static void test_a_source_that_vanishes_half_read(void **state)
{
    (void)state;
    struct bed b;
    struct err err = {0};
    struct compact_result res = {0};
    struct hook_store hook = {.before_get = drop_large};
    CLEANUP(log_files_fini) struct log_files run = {0};
    size_t gone = 0;
    bed_open(&b, 65536, seed_get(), "mem://");
    bed_commit(&b, 300);
    bed_commit(&b, 3);
    bed_commit(&b, 300);
    put_file(&b, 0, 1, 1);
    put_file(&b, 0, 2, 2);
    put_file(&b, 0, 3, 3);
    run_of(&b, 0, 1, 3, &run);
    assert_true(run.items[0].size > 3u << 20);
    hook_on(&b, &hook);
    struct compact_opts opts = {.level = 9, .held_max = 1};
    assert_int_equal(compact_run(&b.log, NULL, &run, &opts, &res, &gone, &err), RC_NOT_FOUND);
    assert_int_equal(gone, 0);
    expect_nothing(&b);
    b.log.store = b.store;
    bed_close(&b);
}

static void test_somebody_was_first(void **state)
{
    (void)state;
    struct bed b;
    struct err err = {0};
    struct compact_result res = {0}, again = {0};
    struct hook_store hook = {.lose_put = true};
    damage_bed(&b, seed_get(), false);
    OK(merge_run(&b, 0, 2, 4, LEVEL(1), &res, &err));
    OK(merge_run(&b, 0, 2, 4, LEVEL(1), &again, &err));
    assert_true(!res.existed && again.existed);
    assert_int_equal(res.file.size, again.file.size);
    assert_int_equal(res.pages, again.pages);
    check_file(&b, 1, 2, 4);
    /* The first bytes of a file are those that we want: still it is not ours. */
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    OK(store_get(b.store, NULL, key_of(1, 2, 4), NULL, grow, &file, &err));
    for (int i = 0; i < 3; i++) {
        size_t size = i == 0 ? file.size - 1 : i == 1 ? 10 : file.size;
        if (i == 2) file.data[file.size - 1] ^= 1;
        put_bytes(&b, key_of(1, 2, 4), file.data, size, 1);
        assert_int_equal(merge_run(&b, 0, 2, 4, LEVEL(1), &res, &err), RC_CONFLICT);
        assert_non_null(strstr(err.text, key_of(1, 2, 4)));
    }
    del_file(&b, 1, 2, 4);
    hook_on(&b, &hook);
    hook.ops.caps &= ~(unsigned)STORE_CAP_STREAM; /* so that the body can be read twice */
    OK(merge_run(&b, 0, 2, 4, LEVEL(1), &res, &err));
    assert_true(res.existed);
    check_file(&b, 1, 2, 4);
    b.log.store = b.store;
    bed_close(&b);
}

static void test_it_can_be_canceled(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    CLEANUP(log_files_fini) struct log_files run = {0};
    atomic_bool cancel = true;
    struct call call = {.cancel = &cancel};
    size_t gone;
    damage_bed(&b, seed_get(), false);
    run_of(&b, 0, 2, 4, &run);
    assert_int_equal(compact_run(&b.log, &call, &run, LEVEL(1), &res, &gone, &err), RC_CANCELED);
    expect_nothing(&b);
    bed_close(&b);
}

/* Into a folder, where bodies of unknown size are streams: whole, or nothing, no leftovers. */
static void test_folders(void **state)
{
    (void)state;
    struct bed b;
    struct err err;
    struct compact_result res;
    char dir[] = "/tmp/sluice-compact-XXXXXX", path[STORE_KEY_MAX + 64], cmd[64];
    struct stat st;
    assert_non_null(mkdtemp(dir));
    bed_open(&b, 4096, seed_get(), dir);
    random_commits(&b, 6);
    for (uint64_t t = 1; t <= b.txid; t++)
        put_file(&b, 0, t, t);
    OK(merge_run(&b, 0, 2, 6, LEVEL(1), &res, &err));
    check_file(&b, 1, 2, 6);
    snprintf(path, sizeof path, "%s/%s", dir, key_of(1, 2, 6));
    OK(os_stat(path, &st, &err));
    assert_int_equal(st.st_size, res.file.size);
    assert_int_equal(st.st_mtime, 6);
    for (uint64_t t = 2; t <= 6; t++)
        del_file(&b, 0, t, t);
    expect_state(&b, TXID(1), 1);
    expect_state(&b, LATEST, 6);
    snprintf(path, sizeof path, "%s/%s", dir, key_of(0, 1, 1));
    assert_int_equal(truncate(path, 200), 0);
    assert_int_equal(compact_snapshot(&b.log, NULL, 0, LEVEL(0), &res, &err), RC_CORRUPT);
    snprintf(path, sizeof path, "%s/ltx/9", dir);
    if (access(path, F_OK) == 0) assert_int_equal(files_in(path), 0);
    bed_close(&b);
    snprintf(cmd, sizeof cmd, "rm -r '%s'", dir);
    assert_int_equal(system(cmd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_logs_climb),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_large_sources),
        cmocka_unit_test(test_many_small_sources),
        cmocka_unit_test(test_lock_page),
        cmocka_unit_test(test_every_byte_matters),
        cmocka_unit_test(test_sound_files_that_do_not_fit),
        cmocka_unit_test(test_tracked_checksums),
        cmocka_unit_test(test_runs_are_checked),
        cmocka_unit_test(test_sources_that_vanish),
        cmocka_unit_test(test_a_source_that_vanishes_half_read),
        cmocka_unit_test(test_somebody_was_first),
        cmocka_unit_test(test_it_can_be_canceled),
        cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
