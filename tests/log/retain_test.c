/*
 * retain_test.c -- what is merged and what is deleted, against examples and against histories.
 *
 * The histories know nothing of the planner's reasons: they remember each transaction and each file
 * that was ever made, and ask the restore planner for what was promised, after each single delete.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "log/compact.h"
#include "log/retain.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != RC_OK) fail_msg("%s: %s %s", #expr, rc_name(err.rc), err.text);              \
    } while (0)
#define ENDS_MAX 4096

/* One listing, and what was promised of it. */
struct end { /* of a file that was made */
    uint64_t txid;
    int64_t ms;
    bool merged; /* of level 1 or higher */
};
struct world {
    unsigned seed;
    struct retain_conf conf;
    int64_t now_ms;
    uint64_t txid;
    struct log_file items[ENDS_MAX];
    struct log_files files;
    struct end ends[ENDS_MAX];
    size_t end_count;
    uint64_t jobs, deletes;
    bool holes; /* level 0 alone may not lead anywhere */
};

static unsigned seed_get(void)
{
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)os_random();
    print_message("SLUICE_SEED=%u\n", seed);
    return seed;
}

static uint32_t pick(struct world *w, uint32_t below)
{
    return (uint32_t)rand_r(&w->seed) % below;
}

static struct log_file file(uint32_t level, uint64_t min, uint64_t max, int64_t created_ms)
{
    return (struct log_file){level, min, max, 1000, created_ms};
}

static const char *files_text(const struct log_files *files)
{
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < files->count && at < sizeof text - 64; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u:%d-%d", i > 0 ? " " : "",
                               files->items[i].level, (int)files->items[i].txid_min,
                               (int)files->items[i].txid_max);
    return text;
}

/* ---- Examples ---- */

/* Levels of 10 and 60 s, snapshots each 100 s for 200 s, level 0 for 20 s. */
static const struct retain_conf usual = {.level_count = 2,
                                         .interval_ms = {10000, 60000},
                                         .snapshot_interval_ms = 100000,
                                         .snapshot_retention_ms = 200000,
                                         .l0_retention_ms = 20000};

/* "1 < 0:2-2 0:3-3", or "" */
static const char *next_text(struct log_file *items, size_t count, const struct retain_conf *conf,
                             int64_t now_ms)
{
    static char text[4200];
    struct log_files files = {.items = items, .count = count};
    struct retain_job job = {0};
    struct err err;
    OK(retain_next(&files, conf, now_ms, &job, &err));
    text[0] = '\0';
    if (job.level != 0) snprintf(text, sizeof text, "%u < %s", job.level, files_text(&job.sources));
    retain_job_fini(&job);
    return text;
}

static const char *expired_text(struct log_file *items, size_t count,
                                const struct retain_conf *conf, int64_t now_ms)
{
    struct log_files files = {.items = items, .count = count}, expired = {0};
    struct err err;
    OK(retain_expired(&files, conf, now_ms, &expired, &err));
    const char *text = files_text(&expired);
    log_files_fini(&expired);
    return text;
}

static void test_an_interval_is_merged_when_it_is_over(void **state)
{
    (void)state;
    struct log_file f[] = {file(0, 1, 1, 1000), file(0, 2, 2, 3000), file(0, 3, 3, 9999),
                           file(0, 4, 4, 10000)};
    /* The base stays where it is. Without a later file the last ones of the interval may be on
     * their way still. */
    assert_string_equal(next_text(f, 3, &usual, 9999), "");
    assert_string_equal(next_text(f, 3, &usual, 12499), "");
    assert_string_equal(next_text(f, 3, &usual, 12500), "1 < 0:2-2 0:3-3");
    assert_string_equal(next_text(f, 4, &usual, 10000), "1 < 0:2-2 0:3-3");
    struct log_file g[] = {f[0], f[1], f[2], f[3], file(1, 2, 3, 9999)};
    assert_string_equal(next_text(g, 5, &usual, 20000), "");
    assert_string_equal(next_text(g, 5, &usual, 22500), "1 < 0:4-4");
    assert_string_equal(next_text(f, 0, &usual, 22500), "");
    assert_string_equal(next_text(f, 1, &usual, 90000), "");
}

/* One job for each interval that was missed, not one for all. */
static void test_behind_means_more_jobs(void **state)
{
    (void)state;
    struct log_file f[16] = {file(9, 1, 1, 0)};
    size_t n = 1;
    for (int64_t t = 2; t <= 7; t++)
        f[n++] = file(0, (uint64_t)t, (uint64_t)t, t * 5000);
    assert_string_equal(next_text(f, n, &usual, 50000), "1 < 0:2-2 0:3-3");
    f[n++] = file(1, 2, 3, 15000);
    assert_string_equal(next_text(f, n, &usual, 50000), "1 < 0:4-4 0:5-5");
    f[n++] = file(1, 4, 5, 25000);
    assert_string_equal(next_text(f, n, &usual, 50000), "1 < 0:6-6 0:7-7");
    f[n++] = file(1, 6, 7, 35000);
    assert_string_equal(next_text(f, n, &usual, 50000), "");
    assert_string_equal(next_text(f, n, &usual, 75000), "2 < 1:2-3 1:4-5 1:6-7");
    f[n++] = file(2, 2, 7, 35000);
    assert_string_equal(next_text(f, n, &usual, 99999), "");
    assert_string_equal(next_text(f, n, &usual, 100000), "9 < 9:1-1 2:2-7");
    f[n++] = file(9, 1, 7, 35000);
    assert_string_equal(next_text(f, n, &usual, 900000), "");
}

static void test_jobs_have_bounds(void **state)
{
    (void)state;
    struct retain_conf conf = usual;
    struct log_file f[] = {file(0, 1, 1, 0),    file(0, 2, 2, 1000), file(0, 3, 3, 2000),
                           file(0, 4, 4, 3000), file(0, 5, 5, 4000), file(0, 6, 6, 5000)};
    conf.files_max = 3;
    /* What is full need not wait for the end of the interval. */
    assert_string_equal(next_text(f, 6, &conf, 5000), "1 < 0:2-2 0:3-3 0:4-4");
    assert_string_equal(next_text(f, 4, &conf, 5000), "");
    conf.files_max = 0;
    conf.bytes_max = 2500;
    assert_string_equal(next_text(f, 6, &conf, 5000), "1 < 0:2-2 0:3-3");
    f[1].size = 100000; /* alone */
    assert_string_equal(next_text(f, 6, &conf, 5000), "1 < 0:2-2");
    /* A snapshot of a part of what there is leads to a transaction as well. */
    conf = (struct retain_conf){.snapshot_interval_ms = 1000, .files_max = 4};
    assert_string_equal(next_text(f, 6, &conf, 9000), "9 < 0:1-1 0:2-2 0:3-3 0:4-4");
}

/* Holes end a run; what is contained in another file is no part of one. */
static void test_odd_listings(void **state)
{
    (void)state;
    struct log_file f[] = {file(9, 1, 3, 0),    file(0, 2, 2, 100),  file(0, 5, 6, 200),
                           file(0, 6, 6, 250),  file(0, 7, 7, 300),  file(0, 9, 9, 400),
                           file(0, 8, 8, 5000), file(10, 4, 4, 100), file(0, 0, 9, 100)};
    f[6].size = 100; /* cut off */
    assert_string_equal(next_text(f, COUNT(f), &usual, 11000), "1 < 0:2-2");
    f[1] = file(1, 2, 4, 100);
    assert_string_equal(next_text(f, COUNT(f), &usual, 9000), "");
    assert_string_equal(next_text(f, COUNT(f), &usual, 15000), "1 < 0:5-6 0:7-7");
    f[1] = file(1, 2, 7, 100);
    assert_string_equal(next_text(f, COUNT(f), &usual, 15000), "1 < 0:9-9");
}

/* A clock that was wrong for a while. */
static void test_times_from_the_future(void **state)
{
    (void)state;
    struct log_file f[] = {file(0, 1, 1, 0), file(0, 2, 2, 1ll << 50), file(0, 3, 3, 2000),
                           file(0, 4, 4, 12000)};
    assert_string_equal(next_text(f, 4, &usual, 12000), "1 < 0:2-2 0:3-3");
    f[3].created_ms = INT64_MAX;
    f[2].created_ms = -5;
    assert_string_equal(next_text(f, 4, &usual, 12500), "1 < 0:2-2 0:3-3");
}

static void test_level_0_goes_once_it_is_not_needed(void **state)
{
    (void)state;
    struct log_file f[] = {file(0, 1, 1, 1000),  file(0, 2, 2, 2000),  file(0, 3, 3, 3000),
                           file(0, 4, 4, 12000), file(0, 5, 5, 13000), file(0, 6, 6, 22000),
                           file(1, 2, 3, 3000),  file(1, 4, 5, 13000)};
    size_t n = COUNT(f);
    assert_string_equal(expired_text(f, n, &usual, 23000), "");
    assert_string_equal(expired_text(f, n, &usual, 23001), "0:2-2 0:3-3");
    /* 4 has expired, but 5 has not, and only level 0 leads there. */
    assert_string_equal(expired_text(f, n, &usual, 32500), "0:2-2 0:3-3");
    assert_string_equal(expired_text(f, n, &usual, 33001), "0:2-2 0:3-3 0:4-4 0:5-5");
    /* Nobody else has 6; and were it merged, the newest file stays. */
    assert_string_equal(expired_text(f, n, &usual, 90000), "0:2-2 0:3-3 0:4-4 0:5-5");
    struct log_file g = file(1, 6, 6, 22000);
    struct log_file all[] = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], g};
    assert_string_equal(expired_text(all, 9, &usual, 90000), "0:2-2 0:3-3 0:4-4 0:5-5");
    assert_string_equal(expired_text(f, 6, &usual, 90000), ""); /* not merged: all is needed */
    struct retain_conf ever = usual;
    ever.l0_retention_ms = 0;
    assert_string_equal(expired_text(all, 9, &ever, 900000), "");
}

/* A snapshot has 3 and 4, but level 1 has not got their moments yet. */
static void test_level_0_waits_for_level_1(void **state)
{
    (void)state;
    struct log_file f[] = {file(0, 1, 1, 1000), file(0, 2, 2, 2000), file(0, 3, 3, 3000),
                           file(0, 4, 4, 4000), file(0, 5, 5, 5000), file(9, 1, 4, 4000),
                           file(1, 2, 2, 2000)};
    struct retain_conf no_levels = usual;
    no_levels.level_count = 0;
    assert_string_equal(expired_text(f, COUNT(f), &usual, 90000), "0:2-2");
    assert_string_equal(expired_text(f, COUNT(f), &no_levels, 90000), "0:2-2 0:3-3 0:4-4");
}

/* Level 1 begins only where level 0 leads to. */
static void test_a_higher_level_may_need_level_0(void **state)
{
    (void)state;
    struct log_file f[] = {file(0, 1, 1, 1), file(0, 2, 2, 2), file(0, 3, 3, 3), file(0, 4, 4, 4),
                           file(0, 5, 5, 5), file(1, 4, 4, 4), file(2, 2, 5, 5)};
    struct retain_conf conf = {.l0_retention_ms = 10};
    assert_string_equal(expired_text(f, COUNT(f), &conf, 1000), "");
    f[5] = file(1, 2, 4, 4);
    assert_string_equal(expired_text(f, COUNT(f), &conf, 1000), "0:2-2 0:3-3 0:4-4");
}

static void test_a_window_keeps_its_base(void **state)
{
    (void)state;
    struct log_file f[] = {file(9, 1, 10, 100000),  file(9, 1, 20, 200000),
                           file(9, 1, 30, 300000),  file(1, 11, 15, 150000),
                           file(1, 16, 21, 210000), file(1, 22, 30, 300000),
                           file(2, 11, 21, 210000), file(0, 30, 30, 300000)};
    size_t n = COUNT(f);
    /* The window begins at 200000: what was there at its begin is the state of 10. */
    assert_string_equal(expired_text(f, n, &usual, 400000), "");
    assert_string_equal(expired_text(f, n, &usual, 400001), "9:1-10 1:11-15");
    /* All is older: the newest base, and the newest file of each level. */
    assert_string_equal(expired_text(f, n, &usual, 900000), "9:1-10 1:11-15 9:1-20 1:16-21");
    struct retain_conf ever = usual;
    ever.snapshot_retention_ms = 0;
    assert_string_equal(expired_text(f, n, &ever, 900000), "");
}

static void test_configurations_are_checked(void **state)
{
    (void)state;
    struct retain_conf conf = usual;
    struct err err;
    OK(retain_conf_check(&conf, &err));
    OK(retain_conf_check(&(struct retain_conf){0}, &err));
    conf.level_count = 3;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "level 3"));
    conf.level_count = 9;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
    conf = usual;
    conf.snapshot_interval_ms = -1;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
    conf = usual;
    conf.snapshot_retention_ms = -1;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "snapshots"));
    conf = usual;
    conf.l0_retention_ms = -1;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "level 0"));
    conf = usual;
    conf.files_max = 1;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
    conf.files_max = COMPACT_FILES_MAX + 1;
    assert_int_equal(retain_conf_check(&conf, &err), RC_INVALID);
}

/* ---- Histories ---- */

/* Where does a target lead to? 0: nowhere. */
static uint64_t reached(const struct world *w, struct plan_target target)
{
    struct log_files plan = {0};
    struct err err;
    if (plan_make(&w->files, &target, &plan, &err) != RC_OK) return 0;
    uint64_t txid = plan.items[plan.count - 1].txid_max;
    log_files_fini(&plan);
    return txid;
}

static bool promised(const struct world *w, const struct end *e)
{
    int64_t keep = e->merged ? w->conf.snapshot_retention_ms : w->conf.l0_retention_ms;
    if (keep == 0 && w->holes) keep = w->conf.snapshot_retention_ms;
    return keep == 0 || e->ms >= w->now_ms - keep;
}

/* all: each end and some moments; else a few of them. */
static void check_promises(struct world *w, const char *after, bool all)
{
    if (w->txid == 0) return;
    uint64_t got = reached(w, (struct plan_target){.kind = PLAN_LATEST});
    if (got != w->txid)
        fail_msg("after %s: newest is %d, not %d: %s", after, (int)got, (int)w->txid,
                 files_text(&w->files));
    for (size_t i = 0; i < w->end_count; i++) {
        const struct end *e = &w->ends[i];
        if (!promised(w, e) || (!all && pick(w, 16) != 0)) continue;
        if (reached(w, (struct plan_target){.kind = PLAN_TXID, .txid = e->txid}) != e->txid)
            fail_msg("after %s: %d is lost at %d ms: %s", after, (int)e->txid, (int)w->now_ms,
                     files_text(&w->files));
    }
    int64_t window = w->conf.snapshot_retention_ms;
    int64_t from = window == 0 || w->now_ms - window < 1 ? 1 : w->now_ms - window;
    for (int k = all ? 8 : 1; k > 0; k--) {
        int64_t ms = from + pick(w, (uint32_t)(w->now_ms - from + 2));
        uint64_t least = ms > w->ends[0].ms ? 1 : 0;
        for (size_t i = 0; i < w->end_count; i++)
            if (w->ends[i].ms < ms && promised(w, &w->ends[i]) && w->ends[i].txid > least)
                least = w->ends[i].txid;
        got = reached(w, (struct plan_target){.kind = PLAN_TIME, .time_ms = ms});
        if (got < least)
            fail_msg("after %s: %d ms leads to %d, not %d: %s", after, (int)ms, (int)got,
                     (int)least, files_text(&w->files));
    }
}

static void add(struct world *w, struct log_file f)
{
    assert_true(w->files.count < ENDS_MAX && w->end_count < ENDS_MAX);
    w->items[w->files.count++] = f;
    w->ends[w->end_count++] = (struct end){f.txid_max, f.created_ms, f.level > 0};
}

static void drop(struct world *w, const struct log_file *f)
{
    for (size_t i = 0; i < w->files.count; i++) {
        struct log_file *g = &w->items[i];
        if (g->level != f->level || g->txid_min != f->txid_min || g->txid_max != f->txid_max)
            continue;
        *g = w->items[--w->files.count];
        w->deletes++;
        return;
    }
    fail_msg("%s is to be deleted, but is not there",
             files_text(&(struct log_files){.items = (struct log_file *)(uintptr_t)f, .count = 1}));
}

static void sync_some(struct world *w)
{
    for (uint32_t n = 1 + pick(w, 12); n > 0; n--) {
        w->txid++;
        struct log_file f = file(0, w->txid, w->txid, w->now_ms);
        f.size = 200 + pick(w, 2000);
        add(w, f);
        w->now_ms += pick(w, 3000);
    }
}

/* At most `most` jobs; false: there was nothing left to do. */
static bool merge_some(struct world *w, uint32_t most)
{
    struct err err;
    for (; most > 0; most--) {
        CLEANUP(retain_job_fini) struct retain_job job = {0};
        OK(retain_next(&w->files, &w->conf, w->now_ms, &job, &err));
        if (job.level == 0) return false;
        const struct log_files *s = &job.sources;
        const struct log_file *last = &s->items[s->count - 1];
        uint64_t size = 0;
        assert_true(s->count >= 1 && s->count <= (w->conf.files_max ? w->conf.files_max : 1000));
        for (size_t i = 0; i < s->count; i++) {
            const struct log_file *f = &s->items[i];
            size += f->size;
            assert_true(job.level == 9 ? s->items[0].txid_min == 1 : f->level == job.level - 1);
            if (i > 0) assert_true(f->txid_min <= f[-1].txid_max + 1);
            if (i > 0) assert_true(f->txid_max > f[-1].txid_max);
        }
        if (s->count > 1 && job.level < 9 && w->conf.bytes_max != 0)
            assert_true(size <= w->conf.bytes_max);
        struct log_file made =
            file(job.level, s->items[0].txid_min, last->txid_max, last->created_ms);
        made.size = job.level == 9 ? 5000 : size / 2 + 200;
        for (size_t i = 0; i < w->files.count; i++) /* never the same twice */
            assert_false(w->items[i].level == made.level && w->items[i].txid_min == made.txid_min &&
                         w->items[i].txid_max == made.txid_max);
        add(w, made);
        w->jobs++;
    }
    return true;
}

/* Delete a part of what has expired, in the order given or in any: both must be safe. */
static void delete_some(struct world *w, bool all)
{
    CLEANUP(log_files_fini) struct log_files expired = {0};
    struct err err;
    OK(retain_expired(&w->files, &w->conf, w->now_ms, &expired, &err));
    size_t count = all || expired.count == 0 ? expired.count : pick(w, (uint32_t)expired.count + 1);
    bool shuffle = pick(w, 4) == 0;
    for (size_t i = 1; i < expired.count; i++)
        assert_true(expired.items[i].txid_max >= expired.items[i - 1].txid_max);
    for (size_t i = 0; i < count; i++) {
        size_t k = shuffle ? i + pick(w, (uint32_t)(expired.count - i)) : i;
        struct log_file f = expired.items[k];
        expired.items[k] = expired.items[i];
        drop(w, &f);
        check_promises(w, "a delete", false);
    }
}

static void world_init(struct world *w, unsigned seed)
{
    static const int64_t some_ms[] = {0, 2000, 20000, 100000};
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->files.items = w->items;
    w->now_ms = 1 + pick(w, 100000);
    w->conf.level_count = pick(w, 4);
    int64_t interval = 500 + pick(w, 10000);
    for (uint32_t i = 0; i < w->conf.level_count; i++, interval *= 2 + pick(w, 5))
        w->conf.interval_ms[i] = interval;
    w->conf.snapshot_interval_ms = pick(w, 5) == 0 ? 0 : 1000 + pick(w, 100000);
    w->conf.snapshot_retention_ms = some_ms[pick(w, 4)] * (1 + pick(w, 3));
    w->conf.l0_retention_ms = some_ms[pick(w, 4)];
    if (pick(w, 2)) w->conf.files_max = 2 + pick(w, 20);
    if (pick(w, 2)) w->conf.bytes_max = 500 + pick(w, 20000);
}

static void test_random_histories(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    struct world *w = malloc(sizeof *w);
    uint64_t jobs = 0, deletes = 0;
    assert_non_null(w);
    for (unsigned round = 0; round < 150; round++) {
        world_init(w, seed + round);
        for (int step = 0; step < 60; step++) {
            switch (pick(w, 5)) {
            case 0:
            case 1:
                sync_some(w);
                break;
            case 2:
                merge_some(w, 1 + pick(w, 8));
                break;
            case 3:
                delete_some(w, pick(w, 2));
                break;
            default:
                w->now_ms += pick(w, 40000);
            }
            check_promises(w, "a step", step % 8 == 0);
        }
        check_promises(w, "all steps", true);
        jobs += w->jobs;
        deletes += w->deletes;
    }
    free(w);
    assert_true(jobs > 1000 && deletes > 1000);
}

/* Left alone, a log becomes small, and stays so: nothing is merged or deleted for ever. */
static void test_a_log_at_rest_comes_to_rest(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    struct world *w = malloc(sizeof *w);
    assert_non_null(w);
    for (unsigned round = 0; round < 50; round++) {
        world_init(w, seed + round);
        w->conf = usual;
        for (int i = 0; i < 30; i++) {
            sync_some(w);
            if (pick(w, 3) == 0) merge_some(w, 5);
            if (pick(w, 3) == 0) delete_some(w, true);
            w->now_ms += pick(w, 20000);
        }
        for (int i = 0; i < 10; i++) {
            w->now_ms += 100000;
            assert_false(merge_some(w, 1000));
            delete_some(w, true);
            check_promises(w, "rest", true);
        }
        uint64_t jobs = w->jobs, deletes = w->deletes;
        w->now_ms += 1000000;
        assert_false(merge_some(w, 1));
        delete_some(w, true);
        assert_true(w->jobs == jobs && w->deletes == deletes);
        /* The newest file of levels 0, 1, 2, and the newest snapshot. */
        if (w->files.count > 4) fail_msg("%s", files_text(&w->files));
    }
    free(w);
}

/* Whatever lies there: what could be restored and is promised can be restored afterwards. */
static void test_random_listings(void **state)
{
    (void)state;
    unsigned seed = seed_get();
    struct world *w = malloc(sizeof *w);
    uint64_t deletes = 0, lost = 0;
    assert_non_null(w);
    for (unsigned round = 0; round < 1500; round++) {
        world_init(w, seed + round);
        uint64_t top = 3 + pick(w, 40);
        w->holes = true;
        for (uint32_t n = 3 + pick(w, 60); n > 0; n--) {
            uint64_t min = 1 + pick(w, (uint32_t)top),
                     max = min + pick(w, (uint32_t)(top - min) + 1);
            uint32_t level = pick(w, 2) ? 0 : pick(w, 10);
            if (level == 0) max = min;
            if (level == 9) min = 1;
            bool there = false;
            for (size_t i = 0; i < w->files.count; i++)
                there |= w->items[i].level == level && w->items[i].txid_min == min &&
                         w->items[i].txid_max == max;
            if (!there) add(w, file(level, min, max, 1000 * (int64_t)max));
        }
        w->now_ms = 1000 * (int64_t)top + pick(w, 30000);
        /* What is not there to begin with is not promised. */
        size_t kept = 0;
        for (size_t i = 0; i < w->end_count; i++) {
            const struct end *e = &w->ends[i];
            if (reached(w, (struct plan_target){.kind = PLAN_TXID, .txid = e->txid}) == e->txid)
                w->ends[kept++] = *e;
        }
        w->end_count = kept;
        uint64_t newest = reached(w, (struct plan_target){.kind = PLAN_TIME, .time_ms = INT64_MAX});
        uint64_t before = w->deletes;
        for (int again = 0; again < 3; again++) {
            delete_some(w, again == 2);
            w->now_ms += pick(w, 5000);
        }
        assert_int_equal(reached(w, (struct plan_target){.kind = PLAN_TIME, .time_ms = INT64_MAX}),
                         newest);
        for (size_t i = 0; i < w->end_count; i++) {
            const struct end *e = &w->ends[i];
            bool there =
                reached(w, (struct plan_target){.kind = PLAN_TXID, .txid = e->txid}) == e->txid;
            if (promised(w, e) && !there)
                fail_msg("%d is lost: %s", (int)e->txid, files_text(&w->files));
            lost += !there;
        }
        deletes += w->deletes - before;
    }
    free(w);
    assert_true(deletes > 1000 && lost > 100);
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    struct log_file items[200];
    struct log_files files = {.items = items, .count = COUNT(items)};
    struct err err;
    items[0] = file(9, 1, 1, 0);
    for (uint64_t t = 2; t <= COUNT(items); t++)
        items[t - 1] = file(0, t, t, (int64_t)t);
    struct log_file merged[] = {items[0], items[1], items[2], file(1, 2, 2, 2)};
    struct log_files few = {.items = merged, .count = 4};
    struct retain_conf conf = usual;
    for (int part = 0; part < 3; part++) {
        uint64_t n = 1;
        if (part == 1) conf.level_count = 0; /* a snapshot */
        for (bool fired = true; fired; n++) {
            struct retain_job job = {0};
            struct log_files expired = {0};
            fault_arm(FAULT_ALLOC, n, false);
            enum rc rc = part < 2 ? retain_next(&files, &conf, 900000, &job, &err)
                                  : retain_expired(&few, &conf, 900000, &expired, &err);
            fired = fault_fired();
            fault_arm(0, 0, false);
            assert_int_equal(rc, fired ? RC_NO_MEM : RC_OK);
            assert_true(fired || job.level > 0 || expired.count == 1);
            if (fired) assert_true(job.sources.items == NULL && expired.items == NULL);
            retain_job_fini(&job);
            log_files_fini(&expired);
        }
        assert_true(n > 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_interval_is_merged_when_it_is_over),
        cmocka_unit_test(test_behind_means_more_jobs),
        cmocka_unit_test(test_jobs_have_bounds),
        cmocka_unit_test(test_odd_listings),
        cmocka_unit_test(test_times_from_the_future),
        cmocka_unit_test(test_level_0_goes_once_it_is_not_needed),
        cmocka_unit_test(test_level_0_waits_for_level_1),
        cmocka_unit_test(test_a_higher_level_may_need_level_0),
        cmocka_unit_test(test_a_window_keeps_its_base),
        cmocka_unit_test(test_configurations_are_checked),
        cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_a_log_at_rest_comes_to_rest),
        cmocka_unit_test(test_random_listings),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
