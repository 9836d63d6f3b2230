/* probe_test.c -- the probe over good stores, and over stores that break one promise each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ftw.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"
#include "store/probe.h"

#define LAG_MS     150
#define PATIENT_MS 120000 /* long enough for all, on a busy machine */
#define SKEW_MS    3600000
#define SIZE       (256u << 10)

enum breakage {
    NOTHING,
    CREATE_RACES,  /* looks whether the key is there, then puts */
    CREATE_BLIND,  /* if_absent is not looked at */
    REPLACE_RACES, /* compares the etag, then puts */
    REPLACE_BLIND, /* if_etag is not looked at */
    GHOSTS,        /* if_etag makes what is missing */
    MIXES,         /* the body of a loser, though one winner was told */
    LIST_LAGS,
    GET_STALE,
    GET_LAGS,
    DELETE_IGNORED,
    PUT_DENIED,
    GET_DENIED,
    LIST_DENIED,
    DELETE_DENIED,
    ALL_DENIED,
    AWAY,
    CLOCK_AHEAD,
    TIMES_LOST,
    RANGE_IGNORED,
    LARGE_REFUSED,
    LARGE_GARBLED,
    WINNERS_UNSURE,
    NOBODY_SURE,
    NO_CREATE,
    NO_CAS,
    SLOW,
};

struct fake {
    struct store base;
    struct store_ops ops;
    struct store *inner, *old; /* old: former bodies, for GET_STALE */
};

static enum breakage broken;
static unsigned url_count;
static char url[64], old_url[64];
static atomic_bool cancel;
static const char *cancel_at; /* NULL, or the check at which the cancel flag turns true */
static struct probe_report report;
static struct err err;

static enum rc denied(const char *what, struct err *e)
{
    return err_set(e, RC_DENIED, "%s: no", what);
}

static void fake_close(struct store *s)
{
    struct fake *f = (struct fake *)s;
    store_close(f->inner);
    store_close(f->old);
    mem_free(f);
}

static enum rc to_buf(void *ctx, const void *data, size_t size, struct err *e)
{
    return buf_append(ctx, data, size, e);
}

static enum rc nowhere(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size, (void)e;
    return RC_OK;
}

static bool is_there(struct store *s, const char *key, struct store_obj *obj)
{
    struct err e;
    return store_get(s, NULL, key, &(struct store_get_opts){.size = 1, .ret_obj = obj}, nowhere,
                     NULL, &e) == RC_OK;
}

/* Keep what is there before it is overwritten. */
static void keep_old(struct fake *f, const char *key)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct store_bytes bytes;
    struct err e;
    if (store_get(f->inner, NULL, key, NULL, to_buf, &b, &e) != RC_OK) return;
    struct store_body body = store_body_bytes(&bytes, b.data, b.size);
    assert_int_equal(store_put(f->old, NULL, key, &body, NULL, NULL, &e), RC_OK);
}

/* True: the put was dealt with, and *ret_rc is how. */
static bool put_wrongly(struct fake *f, const char *key, const struct store_body *body,
                        const struct store_put_opts *opts, struct store_put_opts *ret_opts,
                        enum rc *ret_rc, struct err *e)
{
    struct store_obj obj = {0};
    bool there = is_there(f->inner, key, &obj);
    bool race = strstr(key, "race-round") != NULL;
    *ret_rc = RC_OK;
    if (broken == PUT_DENIED || broken == ALL_DENIED) *ret_rc = denied("put", e);
    if (broken == AWAY) *ret_rc = err_set(e, RC_AGAIN, "put: nobody answers");
    if (broken == LARGE_REFUSED && body->size > 100000)
        *ret_rc = err_set(e, RC_TOO_BIG, "put: that is too large");
    if (broken == SLOW) os_sleep_ms(40);
    if (broken == GET_STALE) keep_old(f, key);
    if (broken == TIMES_LOST) ret_opts->timestamp_ms = 0;
    if (opts->if_absent && broken == CREATE_RACES) {
        if (there) *ret_rc = err_set(e, RC_CONFLICT, "create: it exists");
        os_sleep_ms(race ? 5 : 0);
        ret_opts->if_absent = false;
    }
    if (opts->if_absent && broken == CREATE_BLIND) ret_opts->if_absent = false;
    if (opts->if_absent && broken == MIXES && race && there) { /* it fails, but leaves its body */
        ret_opts->if_absent = false;
        struct store_obj ignored;
        *ret_rc = store_put(f->inner, NULL, key, body, ret_opts, &ignored, e);
        if (*ret_rc == RC_OK) *ret_rc = err_set(e, RC_CONFLICT, "create: it exists");
    }
    if (opts->if_etag && broken == REPLACE_RACES) {
        if (!there) *ret_rc = err_set(e, RC_NOT_FOUND, "replace: there is none");
        if (there && strcmp(obj.etag, opts->if_etag) != 0)
            *ret_rc = err_set(e, RC_CONFLICT, "replace: another version");
        os_sleep_ms(race ? 5 : 0);
        ret_opts->if_etag = NULL;
    }
    if (opts->if_etag && (broken == REPLACE_BLIND || (broken == GHOSTS && !there)))
        ret_opts->if_etag = NULL;
    return *ret_rc != RC_OK;
}

static enum rc garble(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    const struct store_body *body = ctx;
    TRY(body->read(body->ctx, off, dst, size, e));
    if (size > 10) ((uint8_t *)dst)[10] ^= 1;
    return RC_OK;
}

static enum rc fake_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *e)
{
    struct fake *f = (struct fake *)s;
    struct store_put_opts o = *opts;
    struct store_body bad = {.size = body->size, .read = garble, .ctx = (void *)(uintptr_t)body};
    enum rc rc;
    store_count(s, STORE_OP_PUT, true, body->size, 0);
    if (put_wrongly(f, key, body, opts, &o, &rc, e)) return rc;
    bool spoil = broken == LARGE_GARBLED && body->size > 100000;
    TRY(store_put(f->inner, c, key, spoil ? &bad : body, &o, ret_obj, e));
    bool odd = (key[strlen(key) - 1] & 1) != 0;
    if (strstr(key, "race-round") != NULL && (opts->if_absent || opts->if_etag) &&
        (broken == NOBODY_SURE || (broken == WINNERS_UNSURE && odd)))
        return err_set(e, RC_AGAIN, "put: the answer was lost");
    return RC_OK;
}

static enum rc fake_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *e)
{
    struct fake *f = (struct fake *)s;
    struct store_obj obj;
    struct store_get_opts o = *opts;
    store_count(s, STORE_OP_GET, true, 0, 0);
    if (broken == GET_DENIED || broken == ALL_DENIED) return denied("get", e);
    if (broken == SLOW) os_sleep_ms(40);
    bool late =
        broken == GET_STALE && is_there(f->old, key, &obj) && os_now_ms() - obj.mtime_ms < LAG_MS;
    if (broken == GET_LAGS && is_there(f->inner, key, &obj) && os_now_ms() - obj.mtime_ms < LAG_MS)
        return err_set(e, RC_NOT_FOUND, "get '%s': there is none", key);
    if (broken == RANGE_IGNORED) o.off = 0;
    return store_get(late ? f->old : f->inner, c, key, &o, sink, ctx, e);
}

struct filter {
    store_list_fn *fn;
    void *ctx;
};

static enum rc filter_one(void *ctx, const struct store_obj *obj, struct err *e)
{
    const struct filter *f = ctx;
    struct store_obj o = *obj;
    if (broken == LIST_LAGS && os_now_ms() - o.mtime_ms < LAG_MS) return RC_OK;
    if (broken == CLOCK_AHEAD) o.mtime_ms += SKEW_MS;
    return f->fn(f->ctx, &o, e);
}

static enum rc fake_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *e)
{
    struct filter f = {fn, ctx};
    (void)opts;
    store_count(s, STORE_OP_LIST, true, 0, 0);
    if (broken == LIST_DENIED || broken == ALL_DENIED) return denied("list", e);
    if (broken == AWAY) return err_set(e, RC_AGAIN, "list: nobody answers");
    if (broken == SLOW) os_sleep_ms(40);
    return store_list(((struct fake *)s)->inner, c, prefix, NULL, filter_one, &f, e);
}

static enum rc fake_del(struct store *s, const struct call *c, const char *key, struct err *e)
{
    store_count(s, STORE_OP_DEL, true, 0, 0);
    if (broken == DELETE_DENIED || broken == ALL_DENIED) return denied("delete", e);
    if (broken == DELETE_IGNORED) return RC_OK;
    return store_del(((struct fake *)s)->inner, c, &key, 1, e);
}

static enum rc fake_open(void *ctx, struct store **ret_store, struct err *e)
{
    struct fake *f = mem_calloc(1, sizeof *f);
    (void)ctx;
    assert_non_null(f);
    assert_int_equal(store_open(url, &f->inner, e), RC_OK);
    assert_int_equal(store_open(old_url, &f->old, e), RC_OK);
    f->ops = (struct store_ops){.type = "fake",
                                .caps = STORE_CAP_CREATE | STORE_CAP_CAS | STORE_CAP_RANGE |
                                        STORE_CAP_TIMESTAMP,
                                .close = fake_close,
                                .put = fake_put,
                                .get = fake_get,
                                .list = fake_list,
                                .del = fake_del};
    if (broken == NO_CREATE) f->ops.caps &= ~(uint32_t)STORE_CAP_CREATE;
    if (broken == NO_CAS) f->ops.caps &= ~(uint32_t)STORE_CAP_CAS;
    store_init(&f->base, &f->ops, "fake://");
    *ret_store = &f->base;
    return RC_OK;
}

static void on_step(void *ctx, const char *name)
{
    (void)ctx;
    if (cancel_at != NULL && strcmp(name, cancel_at) == 0) atomic_store(&cancel, true);
}

static enum rc count_up(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

static enum rc plain_open(void *ctx, struct store **ret_store, struct err *e)
{
    return store_open(ctx, ret_store, e);
}

static void probe(enum breakage how, int64_t duration_ms)
{
    struct probe_opts opts = {.open = fake_open,
                              .duration_ms = duration_ms,
                              .size_max = SIZE,
                              .cancel = &cancel,
                              .on_step = on_step};
    struct store *keep;
    unsigned left = 0;
    broken = how;
    atomic_store(&cancel, false);
    snprintf(url, sizeof url, "mem://probe-%u", ++url_count);
    snprintf(old_url, sizeof old_url, "mem://probe-old-%u", url_count);
    assert_int_equal(store_open(url, &keep, &err), RC_OK);
    if (probe_run(&opts, &report, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(store_list(keep, NULL, "", NULL, count_up, &left, &err), RC_OK);
    assert_int_equal(left, report.left_count);
    store_close(keep);
}

static void assert_result(enum probe_id id, enum probe_result res, const char *words)
{
    const struct probe_check *c = &report.checks[id];
    if (c->result != res || strstr(c->text, words) == NULL)
        fail_msg("breakage %d: %s is '%s': %s", (int)broken, probe_name(id),
                 probe_result_name(c->result), c->text);
}

/* All but this one and `also` are ok, and the advice says something. */
static void assert_only(enum probe_id id, enum probe_id also, enum probe_result res,
                        const char *words, bool backup, bool ha)
{
    assert_result(id, res, words);
    if (res != PROBE_NOT_OFFERED) assert_true(report.checks[id].advice[0] != '\0');
    for (enum probe_id i = 0; i < PROBE_COUNT; i++)
        if (i != id && i != also) assert_result(i, PROBE_OK, "");
    assert_int_equal(report.for_backup, backup);
    assert_int_equal(report.for_ha, ha);
    assert_int_equal(report.why_not_backup[0] == '\0', backup);
    assert_int_equal(report.why_not_ha[0] == '\0', ha);
    if (!ha) assert_non_null(strstr(report.why_not_ha, probe_name(id)));
    assert_int_equal(report.left_count, 0);
}

static int64_t figure(enum probe_id id, const char *name)
{
    const struct probe_check *c = &report.checks[id];
    for (size_t i = 0; i < c->figure_count; i++)
        if (strcmp(c->figures[i].name, name) == 0) return c->figures[i].value;
    fail_msg("%s has no figure %s", probe_name(id), name);
    return 0;
}

static void assert_all_good(void)
{
    for (enum probe_id i = 0; i < PROBE_COUNT; i++) {
        assert_result(i, PROBE_OK, "");
        assert_true(report.checks[i].text[0] != '\0');
        assert_string_equal(report.checks[i].advice, "");
    }
    assert_true(report.for_backup && report.for_ha && !report.interrupted);
    assert_int_equal(report.left_count, 0);
    assert_int_equal(figure(PROBE_CREATE_RACE, "rounds_fair"), PROBE_ROUNDS);
    assert_int_equal(figure(PROBE_REPLACE_RACE, "refused"), PROBE_ROUNDS * (PROBE_RACERS - 1));
    assert_in_range(figure(PROBE_PUT_LATENCY, "samples"), 20, 100);
    assert_true(figure(PROBE_GET_LATENCY, "p50_us") <= figure(PROBE_GET_LATENCY, "p99_us"));
    assert_true(figure(PROBE_DOWNLOAD_MANY, "bytes_per_s") > 0);
    assert_int_equal(figure(PROBE_UPLOAD_MANY, "objects"), 4);
    assert_true(report.stats.requests[STORE_OP_PUT] > 100);
    assert_true(report.stats.bytes_up > 5 * SIZE);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void test_good_stores(void **state)
{
    (void)state;
    struct probe_opts opts = {.duration_ms = PATIENT_MS, .size_max = SIZE, .open = plain_open};
    char dir[] = "/tmp/sluice-probe-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    opts.open_ctx = dir;
    assert_int_equal(probe_run(&opts, &report, &err), RC_OK);
    assert_string_equal(report.type, "file");
    assert_all_good();
    assert_int_equal(nftw(dir, remove_one, 8, FTW_DEPTH), 0);
    char name[] = "mem://probe-good";
    opts.open_ctx = name;
    assert_int_equal(probe_run(&opts, &report, &err), RC_OK);
    assert_string_equal(report.store, "mem://probe-good");
    assert_all_good();
    probe(NOTHING, PATIENT_MS);
    assert_all_good();
}

static void test_open_failure_is_the_callers(void **state)
{
    (void)state;
    char bad[] = "nope://x";
    struct probe_opts opts = {.duration_ms = 1000, .open = plain_open, .open_ctx = bad};
    assert_int_equal(probe_run(&opts, &report, &err), RC_UNSUPPORTED);
}

/* Two writers win. One request after another shows nothing. */
static void test_create_that_races(void **state)
{
    (void)state;
    probe(CREATE_RACES, PATIENT_MS);
    assert_only(PROBE_CREATE_RACE, PROBE_CREATE_RACE, PROBE_FAILED, "had created the same key",
                true, false);
    assert_true(figure(PROBE_CREATE_RACE, "winners_max") > 1);
    assert_true(figure(PROBE_CREATE_RACE, "rounds_broken") > 0);
    assert_non_null(strstr(report.checks[PROBE_CREATE_RACE].advice, "does not arbitrate"));
}

static void test_replace_that_races(void **state)
{
    (void)state;
    probe(REPLACE_RACES, PATIENT_MS);
    assert_only(PROBE_REPLACE_RACE, PROBE_REPLACE_RACE, PROBE_FAILED, "had replaced the same key",
                true, false);
    assert_true(figure(PROBE_REPLACE_RACE, "winners_max") > 1);
}

static void test_conditions_that_are_ignored(void **state)
{
    (void)state;
    probe(CREATE_BLIND, PATIENT_MS);
    assert_only(PROBE_CREATE_RULES, PROBE_CREATE_RACE, PROBE_FAILED, "create what exists", true,
                false);
    assert_result(PROBE_CREATE_RACE, PROBE_FAILED, "32 of 32 writers");
    probe(REPLACE_BLIND, PATIENT_MS);
    assert_only(PROBE_REPLACE_RULES, PROBE_REPLACE_RACE, PROBE_FAILED, "by an old etag", true,
                false);
    assert_result(PROBE_REPLACE_RACE, PROBE_FAILED, "32 of 32 writers");
    probe(GHOSTS, PATIENT_MS);
    assert_only(PROBE_REPLACE_RULES, PROBE_REPLACE_RULES, PROBE_FAILED, "missing key", true, false);
}

static void test_winner_without_its_body(void **state)
{
    (void)state;
    probe(MIXES, PATIENT_MS);
    assert_only(PROBE_CREATE_RACE, PROBE_CREATE_RACE, PROBE_FAILED, "the body of the only winner",
                true, false);
}

static void test_answers_that_are_lost(void **state)
{
    (void)state;
    probe(WINNERS_UNSURE, PATIENT_MS);
    assert_only(PROBE_CREATE_RACE, PROBE_REPLACE_RACE, PROBE_WARNING, "4 with exactly one", true,
                true);
    assert_result(PROBE_REPLACE_RACE, PROBE_WARNING, "4 with exactly one");
    assert_int_equal(figure(PROBE_CREATE_RACE, "unknown"), PROBE_ROUNDS / 2);
    assert_int_equal(figure(PROBE_CREATE_RACE, "rounds_unclear"), PROBE_ROUNDS / 2);
    probe(NOBODY_SURE, PATIENT_MS);
    assert_only(PROBE_CREATE_RACE, PROBE_REPLACE_RACE, PROBE_FAILED, "the answer was lost", true,
                false);
}

static void test_capabilities_that_are_missing(void **state)
{
    (void)state;
    probe(NO_CREATE, PATIENT_MS);
    assert_only(PROBE_CREATE_RULES, PROBE_CREATE_RACE, PROBE_NOT_OFFERED, "no conditional create",
                true, false);
    probe(NO_CAS, PATIENT_MS);
    assert_only(PROBE_REPLACE_RULES, PROBE_REPLACE_RACE, PROBE_NOT_OFFERED,
                "no conditional replace", true, false);
}

static void test_lags(void **state)
{
    (void)state;
    probe(LIST_LAGS, PATIENT_MS);
    assert_only(PROBE_LIST_AFTER_PUT, PROBE_COUNT, PROBE_FAILED, "was not in the list", false,
                false);
    assert_in_range(figure(PROBE_LIST_AFTER_PUT, "lag_max_ms"), LAG_MS / 2, 20000);
    probe(GET_STALE, PATIENT_MS);
    assert_result(PROBE_OVERWRITE, PROBE_FAILED, "old version");
    assert_false(report.for_backup);
    assert_non_null(strstr(report.why_not_backup, "get-after-overwrite"));
    probe(GET_LAGS, PATIENT_MS);
    assert_result(PROBE_GET_AFTER_PUT, PROBE_FAILED, "could not be read at once");
    assert_false(report.for_backup);
}

static void test_deletes_that_are_ignored(void **state)
{
    (void)state;
    probe(DELETE_IGNORED, PATIENT_MS);
    assert_result(PROBE_DELETE, PROBE_OK, "");
    assert_result(PROBE_GET_AFTER_DELETE, PROBE_FAILED, "after it was deleted (8 of 8 keys)");
    assert_result(PROBE_LIST_AFTER_DELETE, PROBE_FAILED, "after it was deleted (8 of 8 keys)");
    assert_result(PROBE_CREATE_RULES, PROBE_FAILED, "create after a delete");
    assert_result(PROBE_CLEANUP, PROBE_FAILED, report.prefix);
    assert_false(report.for_backup);
    assert_true(report.left_count > 100);
    assert_memory_equal(report.left[0], report.prefix, strlen(report.prefix));
}

static void test_permissions_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        enum breakage how;
        enum probe_id id;
        const char *words;
        size_t left;
    } cases[] = {{PUT_DENIED, PROBE_PUT, "put: no", 0},
                 {GET_DENIED, PROBE_GET, "get: no", 0},
                 {LIST_DENIED, PROBE_LIST, "list: no", 0},
                 {DELETE_DENIED, PROBE_DELETE, "delete: no", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        probe(cases[i].how, PATIENT_MS);
        assert_result(cases[i].id, PROBE_FAILED, cases[i].words);
        for (enum probe_id id = PROBE_ACCESS; id <= PROBE_DELETE; id++)
            if (id != cases[i].id) assert_result(id, PROBE_OK, "");
        assert_result(PROBE_REPLACE_RACE, PROBE_SKIPPED, "not tried");
        assert_non_null(strstr(report.checks[cases[i].id].advice, "credentials"));
        assert_int_equal(report.left_count, cases[i].left);
        assert_false(report.for_backup || report.for_ha);
    }
    probe(ALL_DENIED, PATIENT_MS);
    assert_result(PROBE_ACCESS, PROBE_FAILED, "refuses everything");
    probe(AWAY, PATIENT_MS);
    assert_result(PROBE_ACCESS, PROBE_FAILED, "nobody answers");
    assert_result(PROBE_PUT, PROBE_SKIPPED, "no access");
    assert_false(report.for_backup || report.for_ha);
}

static void test_times(void **state)
{
    (void)state;
    probe(CLOCK_AHEAD, PATIENT_MS);
    assert_only(PROBE_CLOCK, PROBE_TIMESTAMP, PROBE_WARNING, "ahead of ours", true, true);
    assert_in_range(figure(PROBE_CLOCK, "skew_ms"), SKEW_MS - 2000, SKEW_MS + 2000);
    assert_true(figure(PROBE_CLOCK, "precision_ms") < 2000);
    probe(TIMES_LOST, PATIENT_MS);
    assert_only(PROBE_TIMESTAMP, PROBE_TIMESTAMP, PROBE_WARNING, "does not", true, true);
}

static void test_bytes_that_are_wrong(void **state)
{
    (void)state;
    probe(RANGE_IGNORED, PATIENT_MS);
    assert_result(PROBE_RANGE, PROBE_FAILED, "a part of an object");
    assert_false(report.for_backup);
    probe(LARGE_GARBLED, PATIENT_MS);
    assert_result(PROBE_DOWNLOAD, PROBE_FAILED, "not what was put");
    assert_false(report.for_backup);
    probe(LARGE_REFUSED, PATIENT_MS);
    assert_result(PROBE_UPLOAD, PROBE_FAILED, "too large");
    assert_result(PROBE_DOWNLOAD, PROBE_SKIPPED, "");
    assert_false(report.for_backup);
}

static void test_time_is_limited(void **state)
{
    (void)state;
    int64_t start = os_mono_ms();
    probe(SLOW, 1500); /* all of it takes ten times as long */
    assert_in_range(os_mono_ms() - start, 400, 9000);
    assert_result(PROBE_LIST_AFTER_PUT, PROBE_OK, "");
    assert_result(PROBE_STREAM, PROBE_SKIPPED, "");
    assert_result(PROBE_CLEANUP, PROBE_OK, "");
    assert_false(report.for_ha); /* what was not seen is not vouched for */
}

static void test_cancel_cleans_up(void **state)
{
    (void)state;
    static const char *const at[] = {"get-after-put", "create-race", "replace-race", "put-latency",
                                     "download"};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        cancel_at = at[i];
        probe(NOTHING, PATIENT_MS);
        assert_true(report.interrupted);
        assert_int_equal(report.left_count, 0);
        assert_result(PROBE_DOWNLOAD, PROBE_SKIPPED, "interrupted");
        assert_result(PROBE_CLEANUP, PROBE_OK, "nothing is left");
    }
    cancel_at = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_stores),
        cmocka_unit_test(test_open_failure_is_the_callers),
        cmocka_unit_test(test_create_that_races),
        cmocka_unit_test(test_replace_that_races),
        cmocka_unit_test(test_conditions_that_are_ignored),
        cmocka_unit_test(test_winner_without_its_body),
        cmocka_unit_test(test_answers_that_are_lost),
        cmocka_unit_test(test_capabilities_that_are_missing),
        cmocka_unit_test(test_lags),
        cmocka_unit_test(test_deletes_that_are_ignored),
        cmocka_unit_test(test_permissions_are_told_apart),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_bytes_that_are_wrong),
        cmocka_unit_test(test_time_is_limited),
        cmocka_unit_test(test_cancel_cleans_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
