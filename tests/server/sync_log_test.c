/*
 * sync_log_test.c -- generations and frames of a log that is made up here, against frames that are
 * counted in the simplest way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/bytes.h"
#include "base/fault.h"
#include "base/mem.h"
#include "server/sync_log.h"

#define TXID_MAX 3000

/* A log: transaction i has sizes[i] pages, numbered from starts[i]; the database has page_count. */
struct bed {
    uint32_t sizes[TXID_MAX], starts[TXID_MAX];
    uint64_t first, newest, salt; /* transactions below first are gone */
    uint32_t page_count, page_size;
    uint64_t fetched;
    struct buf kept;
    bool no_disk;
    const char *dir;
    struct tenant t;
    struct sync_log *l;
};
static struct bed *bed;

static uint64_t tag_at(uint64_t txid)
{
    return txid * 1000003 + bed->salt + 1;
}

static void make_page(uint64_t txid, uint32_t pgno, uint8_t *page)
{
    memset(page, (int)(txid * 7 + pgno), SYNC_PAGE_SIZE);
    put_le32(page, pgno);
    put_le32(page + 4, (uint32_t)txid);
}

static enum rc fake_batch(struct tenants *ts, struct tenant *t, uint64_t txid,
                          const struct call *call, struct tenant_batch *ret, tenant_page_fn *fn,
                          void *ctx, struct err *err)
{
    uint8_t page[2 * SYNC_PAGE_SIZE] = {0};
    (void)ts, (void)t, (void)call;
    if (txid < bed->first || txid > bed->newest) return err_set(err, RC_NOT_FOUND, "no such");
    CLEANUP(mem_freep) void *p = mem_alloc(8); /* a step that a sweep can fail */
    if (p == NULL) return err_mem(err, "a batch");
    bed->fetched++;
    *ret = (struct tenant_batch){.txid = txid,
                                 .page_size = bed->page_size,
                                 .page_count = bed->page_count,
                                 .pages = bed->sizes[txid],
                                 .tag = tag_at(txid)};
    for (uint32_t i = 0; i < bed->sizes[txid] && fn != NULL; i++) {
        make_page(txid, bed->starts[txid] + i, page);
        TRY(fn(ctx, ret, bed->starts[txid] + i, page, err));
    }
    return RC_OK;
}

static enum rc fake_keep(struct tenants *ts, struct tenant *t, const struct buf *text,
                         struct err *err)
{
    (void)ts, (void)t;
    if (bed->no_disk) return err_set(err, RC_NO_SPACE, "full");
    buf_reset(&bed->kept);
    return buf_append(&bed->kept, text->data, text->size, err);
}

static enum rc fake_kept(struct tenants *ts, struct tenant *t, struct buf *out, struct err *err)
{
    (void)ts, (void)t;
    if (bed->kept.size == 0) return err_set(err, RC_NOT_FOUND, "none");
    return buf_append(out, bed->kept.data, bed->kept.size, err);
}

static const struct tenants_ops ops = {.batch = fake_batch, .keep = fake_keep, .kept = fake_kept};

static void add(uint32_t pages)
{
    bed->newest++;
    assert_true(bed->newest < TXID_MAX);
    bed->sizes[bed->newest] = pages;
    bed->starts[bed->newest] = 1 + (uint32_t)(bed->newest % 5);
}

/* As after a restart. */
static void reopen(void)
{
    struct err err;
    sync_log_free(bed->l);
    atomic_store(&bed->t.extra, NULL);
    assert_int_equal(sync_log_of(&ops, NULL, &bed->t, bed->dir, &bed->l, &err), RC_OK);
}

static int set_up(void **state)
{
    bed = calloc(1, sizeof *bed);
    bed->first = 1;
    bed->page_size = SYNC_PAGE_SIZE;
    bed->page_count = 100;
    strcpy(bed->t.name, "x");
    reopen();
    *state = bed;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sync_log_free(bed->l);
    buf_fini(&bed->kept);
    free(bed);
    return 0;
}

static uint32_t info(void)
{
    struct err err;
    uint32_t number;
    if (sync_log_info(bed->l, NULL, bed->newest, &number, &err) != RC_OK) fail_msg("%s", err.text);
    return number;
}

static uint64_t base_of(uint32_t number)
{
    struct err err;
    uint64_t txid;
    if (sync_log_base(bed->l, NULL, number, &txid, &err) != RC_OK) fail_msg("%s", err.text);
    return txid;
}

static enum rc frames(uint64_t newest, uint32_t number, uint64_t from, uint64_t to, struct buf *out,
                      uint32_t *ret_number, bool *ret_final)
{
    struct err err;
    const struct sync_range r = {.number = number, .from = from, .to = to};
    buf_reset(out);
    return sync_log_frames(bed->l, NULL, newest, &r, out, ret_number, ret_final, &err);
}

/* Read a whole generation in pieces of `step`, and compare. Returns its frames. */
static uint64_t check_generation(uint32_t number, uint64_t step)
{
    struct buf out = BUF_INIT;
    uint8_t page[SYNC_PAGE_SIZE];
    uint32_t newest = 0, i = 0;
    bool final;
    uint64_t txid = base_of(number) + 1, at = 1;
    for (;;) {
        assert_int_equal(frames(bed->newest, number, at, at + step, &out, &newest, &final), RC_OK);
        if (out.size == 0) break;
        assert_int_equal(out.size % SYNC_FRAME_SIZE, 0);
        for (const uint8_t *f = out.data; f < out.data + out.size; f += SYNC_FRAME_SIZE, at++) {
            bool last = i + 1 == bed->sizes[txid];
            make_page(txid, bed->starts[txid] + i, page);
            assert_int_equal(get_be32(f), bed->starts[txid] + i);
            assert_int_equal(get_be32(f + 4), last ? bed->page_count : 0);
            assert_memory_equal(f + 24, page, sizeof page);
            i = last ? 0 : i + 1;
            txid += last;
        }
    }
    assert_int_equal(i, 0); /* it ends with a transaction */
    if (newest > number)
        assert_int_equal(base_of(number + 1), txid - 1);
    else
        assert_int_equal(txid - 1, bed->newest);
    buf_fini(&out);
    return at - 1;
}

static void one_generation(void **state)
{
    struct buf out = BUF_INIT;
    uint32_t newest;
    bool final;
    (void)state;
    add(3);
    assert_int_equal(frames(1, 1, 1, 2, &out, &newest, &final), RC_CONFLICT); /* nobody asked */
    uint32_t g = info();
    assert_int_equal(base_of(g), 1);
    assert_int_equal(check_generation(g, 128), 0);
    for (uint32_t i = 0; i < 200; i++)
        add(1 + i % 7);
    uint64_t all = check_generation(g, 128);
    assert_int_equal(all, check_generation(g, 1));
    assert_int_equal(info(), g);
    /* What is known is had without the newest; what may grow is not final. */
    assert_int_equal(frames(0, g, 5, 9, &out, &newest, &final), RC_OK);
    assert_int_equal(out.size, 4 * SYNC_FRAME_SIZE);
    assert_true(final);
    assert_int_equal(frames(0, g, all, all + 9, &out, &newest, &final), RC_OK);
    assert_int_equal(out.size, SYNC_FRAME_SIZE);
    assert_false(final);
    assert_int_equal(frames(0, g, all + 5, all + 9, &out, &newest, &final), RC_OK);
    assert_int_equal(out.size, 0);
    assert_false(final);
    assert_int_equal(frames(bed->newest, g, all + 2, all + 9, &out, &newest, &final), RC_CONFLICT);
    assert_int_equal(frames(bed->newest, g + 1, 1, 9, &out, &newest, &final), RC_CONFLICT);
    assert_int_equal(frames(bed->newest, g - 1, 1, 9, &out, &newest, &final), RC_CONFLICT);
    /* A request that was overtaken. */
    assert_int_equal(frames(bed->newest - 10, g, 1, 9, &out, &newest, &final), RC_OK);
    uint32_t number;
    struct err err;
    assert_int_equal(sync_log_info(bed->l, NULL, bed->newest - 10, &number, &err), RC_OK);
    assert_int_equal(number, g);
    buf_fini(&out);
}

/* The same frames at the same places, before and after generations end and restarts. */
static void many_generations(void **state)
{
    const char *seed_text = getenv("SLUICE_SEED");
    unsigned seed = seed_text != NULL ? (unsigned)atoi(seed_text) : (unsigned)os_now_ms();
    (void)state;
    printf("SLUICE_SEED=%u\n", seed);
    srand(seed);
    add(1);
    uint32_t first = info(), last = first;
    uint64_t sums[64] = {0};
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 30 + rand() % 100; i++)
            add(1 + (uint32_t)rand() % (rand() % 10 == 0 ? 400 : 20));
        if (rand() % 2) last = info();
        if (rand() % 3 == 0) reopen();
        for (uint32_t g = first; g <= last; g++) {
            uint64_t sum = check_generation(g, 1 + (uint64_t)rand() % 1500);
            if (g < last && sums[g - first] != 0) assert_int_equal(sums[g - first], sum);
            sums[g - first] = g < last ? sum : 0;
        }
    }
    assert_true(last > first);
}

/* Unpacked once, however small the parts that are asked for. */
static void large_transactions(void **state)
{
    (void)state;
    add(1);
    uint32_t g = info();
    bed->page_count = 2000;
    for (int i = 0; i < 3; i++)
        add(900), add(3);
    uint64_t all = check_generation(g, 1000);
    bed->dir = "/tmp";
    reopen();
    bed->fetched = 0;
    assert_int_equal(check_generation(g, 100), all);
    assert_int_equal(check_generation(g, 77), all);
    assert_in_range(bed->fetched, 6, 40);
}

/* Without anybody new a generation ends, too, by its length. */
static void long_generation(void **state)
{
    (void)state;
    add(1);
    uint32_t g = info();
    for (int i = 0; i < 45; i++)
        add(500);
    uint64_t all = check_generation(g, 1024);
    assert_int_equal(all, 20500); /* the first transaction beyond 20000 ends it */
    assert_int_equal(check_generation(g + 1, 1024), 45 * 500 - 20500);
    reopen();
    assert_int_equal(check_generation(g, 1024), 20500);
    bed->page_count = 6000; /* a large database may have more */
    for (int i = 0; i < 45; i++)
        add(500);
    assert_int_equal(check_generation(g + 1, 1024), 45 * 500 - 20500 + 45 * 500);
}

static void another_log(void **state)
{
    struct buf out = BUF_INIT;
    uint32_t newest;
    bool final;
    (void)state;
    add(2), add(2);
    uint32_t g = info();
    add(2);
    assert_int_equal(check_generation(g, 128), 2);
    /* The same numbers in another log. */
    bed->salt = 99;
    reopen();
    uint32_t other = info();
    assert_true(other > g);
    assert_int_equal(base_of(other), bed->newest);
    /* Transactions that are gone. */
    for (int i = 0; i < 10; i++)
        add(1);
    bed->first = bed->newest - 2;
    reopen();
    assert_int_not_equal(frames(bed->newest, other, 1, 9, &out, &newest, &final), RC_OK);
    uint32_t third = info();
    assert_true(third > other);
    assert_int_equal(frames(bed->newest, other, 1, 9, &out, &newest, &final), RC_CONFLICT);
    add(4);
    assert_int_equal(check_generation(third, 128), 4);
    /* Nonsense on disk. */
    buf_reset(&bed->kept);
    struct err err;
    assert_int_equal(buf_append(&bed->kept, "{\"generations\":[{\"number\":1}]}", 30, &err), RC_OK);
    reopen();
    assert_int_not_equal(info(), 0);
    bed->page_size = 8192;
    reopen();
    uint32_t number;
    assert_int_equal(sync_log_info(bed->l, NULL, bed->newest, &number, &err), RC_INVALID);
    buf_fini(&out);
}

static void full_disk(void **state)
{
    struct err err;
    uint32_t number;
    (void)state;
    add(2);
    bed->no_disk = true;
    assert_int_equal(sync_log_info(bed->l, NULL, bed->newest, &number, &err), RC_NO_SPACE);
    bed->no_disk = false;
    uint32_t g = info();
    for (int i = 0; i < 20; i++)
        add(100);
    bed->no_disk = true; /* the end of a generation that nobody may be told of */
    assert_int_equal(sync_log_info(bed->l, NULL, bed->newest, &number, &err), RC_NO_SPACE);
    bed->no_disk = false;
    add(1);
    assert_int_equal(info(), g + 1);
    assert_int_equal(check_generation(g, 300), 20 * 100 + 1);
    assert_int_equal(base_of(g + 1), bed->newest);
}

static enum rc count_page(void *ctx, const struct tenant_batch *b, uint32_t pgno, const void *page,
                          struct err *err)
{
    uint8_t want[SYNC_PAGE_SIZE];
    (void)err;
    make_page(b->txid, pgno, want);
    assert_memory_equal(page, want, sizeof want);
    (*(uint32_t *)ctx)++;
    return RC_OK;
}

static void memory(void **state)
{
    struct err err;
    struct tenant_batch b;
    (void)state;
    for (int i = 0; i < 100; i++)
        add(20);
    add(300); /* too large to be kept */
    for (int again = 0; again < 2; again++) {
        for (uint64_t txid = 1; txid <= 30; txid++) {
            uint32_t pages = 0;
            assert_int_equal(sync_log_batch(bed->l, NULL, txid, &b, count_page, &pages, &err),
                             RC_OK);
            assert_int_equal(pages, 20);
            assert_int_equal(b.tag, tag_at(txid));
        }
        assert_int_equal(bed->fetched, 30);
    }
    for (int again = 0; again < 2; again++)
        assert_int_equal(sync_log_batch(bed->l, NULL, 101, &b, NULL, NULL, &err), RC_OK);
    assert_int_equal(bed->fetched, 32);
    for (uint64_t txid = 31; txid <= 100; txid++)
        assert_int_equal(sync_log_batch(bed->l, NULL, txid, &b, NULL, NULL, &err), RC_OK);
    assert_int_equal(bed->fetched, 102);
    assert_int_equal(sync_log_batch(bed->l, NULL, 100, &b, NULL, NULL, &err), RC_OK);
    assert_int_equal(bed->fetched, 102);
    assert_int_equal(sync_log_batch(bed->l, NULL, 1, &b, NULL, NULL, &err), RC_OK);
    assert_int_equal(bed->fetched, 103); /* 4 MiB are 51 of these */
    assert_int_equal(sync_log_batch(bed->l, NULL, 500, &b, NULL, NULL, &err), RC_NOT_FOUND);
}

/* Each allocation fails once: the answer is an error or the right one, and the next goes well. */
static void sweep(void **state)
{
    struct buf out = BUF_INIT;
    struct err err;
    uint32_t number, newest;
    bool final;
    (void)state;
    add(1);
    uint32_t g = info();
    for (int i = 0; i < 200; i++)
        add(6);
    for (uint64_t n = 1;; n++) {
        const struct sync_range r = {.number = g, .from = 300, .to = 320};
        reopen();
        buf_reset(&out);
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc = sync_log_frames(bed->l, NULL, bed->newest, &r, &out, &newest, &final, &err);
        if (rc == RC_OK) rc = sync_log_info(bed->l, NULL, bed->newest, &number, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_true(rc == RC_OK || rc == RC_NO_MEM);
        if (rc == RC_OK) assert_int_equal(out.size, 20 * SYNC_FRAME_SIZE);
        assert_int_equal(check_generation(g, 500), 1200);
        if (!fired) break;
    }
    assert_int_equal(info(), g + 1);
    buf_fini(&out);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_generation),
        TEST(many_generations),
        TEST(large_transactions),
        TEST(long_generation),
        TEST(another_log),
        TEST(full_disk),
        TEST(memory),
        TEST(sweep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
