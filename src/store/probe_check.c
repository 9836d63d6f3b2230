/*
 * probe_check.c -- what a store promises to one writer: what was put is read and listed, what was
 * deleted is gone, at once and through any connection. Several keys are looked at in parallel. What
 * is not so at once is looked at again for a while, to tell a lag from a loss.
 */
#include "base/os.h"
#include "store/probe_intern.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KEYS          8 /* of each test */
#define LAG_MAX_MS    1000
#define LAG_FIRST_MS  10 /* pause before the second look; doubles */
#define LAG_NEVER     INT64_MAX
#define RANGE_SIZE    (64u << 10)
#define SKEW_MAX_MS   5000
#define OLD_TIME_MS   INT64_C(1577934245678) /* 2020-01-02T03:04:05.678Z */
#define PRECISE_LIMIT 1000                   /* times in whole seconds are half that wrong */

/* One look at one key: is it as it should be? */
struct look {
    const char *key;
    const char *text; /* NULL: it should be gone */
    struct store *store;
    bool by_list;
    bool impatient;       /* do not wait: it has been too late before */
    struct store_obj obj; /* as it was listed */
};

struct sample { /* of one key */
    int64_t get_lag_ms, list_lag_ms;
    int64_t put_ms, done_ms, mtime_ms; /* our clock before and after the put; the store's */
    enum rc rc;                        /* of the last request; the first failure ends it */
    const char *what;                  /* which one that was */
    struct err err;
};

struct batch {
    struct probe *p;
    struct sample samples[KEYS];
    char keys[KEYS][PROBE_KEY_SIZE];
    const char *folder;
};

static enum rc see_one(void *ctx, uint64_t i, struct err *err);
static enum rc overwrite_one(void *ctx, uint64_t i, struct err *err);
static enum rc delete_one(void *ctx, uint64_t i, struct err *err);
static bool step(struct sample *s, const char *what, enum rc rc);
static void run_batch(struct batch *b, thr_each_fn *fn);
static enum rc look_at(struct probe *p, struct look *l, int64_t *lag_ms, struct err *err);
static enum rc look_once(struct probe *p, struct look *l, bool *ret_right, struct err *err);
static enum rc match(void *ctx, const struct store_obj *obj, struct err *err);
static void report_lag(struct batch *b, enum probe_id id, bool by_list, const char *wrong,
                       const char *advice);
static void check_clock(struct batch *b);
static void check_timestamp(struct probe *p);
static void check_range(struct probe *p);
static enum rc read_ranges(struct probe *p, const char *key, const uint8_t *data, bool *ret_right,
                           struct err *err);
static void sample_text(char out[PROBE_TEXT_MAX], const char *what, uint64_t i);

/* A listing that looks for one key. */
struct matcher {
    struct look *l;
    bool found;
};

void probe__seen(struct probe *p)
{
    struct batch b = {.p = p, .folder = "seen"};
    if (!probe__begin(p, PROBE_GET_AFTER_PUT)) {
        for (int id = PROBE_LIST_AFTER_PUT; id <= PROBE_CLOCK; id++)
            probe__begin(p, (enum probe_id)id);
        return;
    }
    run_batch(&b, see_one);
    report_lag(&b, PROBE_GET_AFTER_PUT, false, "an object that was put could not be read",
               "A backup could not read back what it wrote. Do not use this store, or its "
               "eventually consistent mode.");
    report_lag(&b, PROBE_LIST_AFTER_PUT, true, "an object that was put was not in the list",
               "A restore could miss the newest changes. Do not use this store, or its eventually "
               "consistent mode.");
    check_timestamp(p);
    check_clock(&b);
}

void probe__changed(struct probe *p)
{
    struct batch b = {.p = p, .folder = "over"};
    if (probe__begin(p, PROBE_OVERWRITE)) {
        run_batch(&b, overwrite_one);
        report_lag(&b, PROBE_OVERWRITE, false, "an old version was read after an overwrite",
                   "Look for a cache between here and the store, and switch it off.");
    }
    b = (struct batch){.p = p, .folder = "gone"};
    if (probe__begin(p, PROBE_GET_AFTER_DELETE)) {
        run_batch(&b, delete_one);
        report_lag(&b, PROBE_GET_AFTER_DELETE, false, "an object was read after it was deleted",
                   "Deletes must take effect: allow them, and look for a retention lock.");
        report_lag(&b, PROBE_LIST_AFTER_DELETE, true, "an object was listed after it was deleted",
                   "Deletes must take effect: allow them, and look for a retention lock.");
    } else {
        probe__begin(p, PROBE_LIST_AFTER_DELETE);
    }
    check_range(p);
}

static void run_batch(struct batch *b, thr_each_fn *fn)
{
    struct err ignored;
    for (unsigned i = 0; i < KEYS; i++) {
        probe__key(b->p, b->keys[i], "%s-key-%u", b->folder, i);
        b->samples[i] = (struct sample){.what = ""};
    }
    if (thr_each(KEYS, KEYS, fn, b, &ignored) != RC_OK) err_clear(&ignored); /* never fails */
}

/* False: the request failed, and that is noted. */
static bool step(struct sample *s, const char *what, enum rc rc)
{
    s->what = what;
    s->rc = rc;
    return rc == RC_OK;
}

/* Odd keys are asked for before they are there, since a cache may remember a "no". */
static enum rc see_one(void *ctx, uint64_t i, struct err *err)
{
    struct batch *b = ctx;
    struct probe *p = b->p;
    struct sample *s = &b->samples[i];
    struct store *own = probe__store(p, i), *other = probe__store(p, i + 1);
    char text[PROBE_TEXT_MAX], old[PROBE_TEXT_MAX];
    enum rc rc = RC_NOT_FOUND;
    (void)err;
    sample_text(text, "seen", i);
    if (i % 2 == 1) rc = probe__get(p, other, b->keys[i], old, NULL, &s->err);
    if (rc == RC_OK) rc = err_set(&s->err, RC_CORRUPT, "a new key is there already");
    if (rc != RC_NOT_FOUND) {
        step(s, "get of a missing key", rc);
        return RC_OK;
    }
    s->put_ms = os_now_ms();
    if (!step(s, "put", probe__put(p, own, b->keys[i], text, NULL, NULL, &s->err))) return RC_OK;
    s->done_ms = os_now_ms();
    struct look l = {.key = b->keys[i], .text = text, .store = own};
    if (!step(s, "get", look_at(p, &l, &s->get_lag_ms, &s->err))) return RC_OK;
    l.store = other;
    if (!step(s, "get", look_at(p, &l, &s->get_lag_ms, &s->err))) return RC_OK;
    l.by_list = true;
    if (i % 4 == 0) l.store = own;
    if (step(s, "list", look_at(p, &l, &s->list_lag_ms, &s->err))) s->mtime_ms = l.obj.mtime_ms;
    return RC_OK;
}

static enum rc overwrite_one(void *ctx, uint64_t i, struct err *err)
{
    struct batch *b = ctx;
    struct probe *p = b->p;
    struct sample *s = &b->samples[i];
    char text[PROBE_TEXT_MAX];
    struct look l = {.key = b->keys[i], .text = text};
    (void)err;
    for (uint64_t version = 0; version < 2; version++) {
        sample_text(text, version ? "the second version, longer than the first" : "first", i);
        l.store = probe__store(p, i);
        if (!step(s, "put", probe__put(p, l.store, l.key, text, NULL, NULL, &s->err))) break;
        if (!step(s, "get", look_at(p, &l, &s->get_lag_ms, &s->err))) break;
        l.store = probe__store(p, i + 1);
        if (!step(s, "get", look_at(p, &l, &s->get_lag_ms, &s->err))) break;
    }
    return RC_OK;
}

static enum rc delete_one(void *ctx, uint64_t i, struct err *err)
{
    struct batch *b = ctx;
    struct probe *p = b->p;
    struct sample *s = &b->samples[i];
    char text[PROBE_TEXT_MAX];
    struct store *own = probe__store(p, i), *other = probe__store(p, i + 1);
    struct look l = {.key = b->keys[i], .store = own};
    (void)err;
    sample_text(text, "gone", i);
    if (!step(s, "put", probe__put(p, own, l.key, text, NULL, NULL, &s->err))) return RC_OK;
    enum rc rc = store_del(own, &p->call, &l.key, 1, &s->err);
    if (!step(s, "delete", rc)) return RC_OK;
    if (!step(s, "get", look_at(p, &l, &s->get_lag_ms, &s->err))) return RC_OK;
    l.store = other;
    if (!step(s, "get", look_at(p, &l, &s->get_lag_ms, &s->err))) return RC_OK;
    l.by_list = true;
    if (i % 4 == 0) l.store = own;
    step(s, "list", look_at(p, &l, &s->list_lag_ms, &s->err));
    return RC_OK;
}

/* Look until it is right. *lag_ms: raised to the time that took; LAG_NEVER after a while. */
static enum rc look_at(struct probe *p, struct look *l, int64_t *lag_ms, struct err *err)
{
    int64_t start = os_mono_ms(), pause = LAG_FIRST_MS, lag = 0;
    bool right;
    TRY(look_once(p, l, &right, err));
    while (!right) {
        lag = os_mono_ms() - start;
        if (l->impatient || lag + pause > LAG_MAX_MS || pause > probe__left_ms(p)) {
            lag = LAG_NEVER;
            break;
        }
        os_sleep_ms(pause);
        pause *= 2;
        enum rc rc = look_once(p, l, &right, err);
        if (rc == RC_CANCELED) lag = LAG_NEVER; /* wrong is what it was seen to be */
        if (rc == RC_CANCELED) break;
        TRY(rc);
        lag = os_mono_ms() - start;
    }
    if (lag > *lag_ms) *lag_ms = lag;
    if (lag == LAG_NEVER) l->impatient = true;
    return RC_OK;
}

static enum rc look_once(struct probe *p, struct look *l, bool *ret_right, struct err *err)
{
    char text[PROBE_TEXT_MAX];
    if (l->by_list) {
        struct matcher m = {.l = l};
        TRY(store_list(l->store, &p->call, p->r->prefix, NULL, match, &m, err));
        *ret_right = m.found == (l->text != NULL);
        return RC_OK;
    }
    enum rc rc = probe__get(p, l->store, l->key, text, NULL, err);
    if (rc != RC_OK && rc != RC_NOT_FOUND && rc != RC_TOO_BIG) return rc;
    *ret_right = rc == RC_OK ? l->text != NULL && strcmp(text, l->text) == 0
                             : rc == RC_NOT_FOUND && l->text == NULL;
    return RC_OK;
}

static enum rc match(void *ctx, const struct store_obj *obj, struct err *err)
{
    struct matcher *m = ctx;
    (void)err;
    if (strcmp(obj->key, m->l->key) != 0) return RC_OK;
    m->found = true;
    m->l->obj = *obj;
    return RC_OK;
}

static void report_lag(struct batch *b, enum probe_id id, bool by_list, const char *wrong,
                       const char *advice)
{
    int64_t worst = 0;
    unsigned late = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        const struct sample *s = &b->samples[i];
        int64_t lag = by_list ? s->list_lag_ms : s->get_lag_ms;
        if (lag > 0) late++;
        if (lag > worst) worst = lag;
    }
    probe__figure(b->p, id, "keys", KEYS);
    probe__figure(b->p, id, "keys_late", late);
    if (worst == LAG_NEVER) {
        probe__set(b->p, id, PROBE_FAILED, advice, "%s (%u of %u keys), nor some time later", wrong,
                   late, KEYS);
        return;
    }
    probe__figure(b->p, id, "lag_max_ms", worst);
    if (worst > 0) {
        probe__set(b->p, id, PROBE_FAILED, advice,
                   "%s at once (%u of %u keys), only %" PRId64 " ms later", wrong, late, KEYS,
                   worst);
        return;
    }
    for (unsigned i = 0; i < KEYS; i++) {
        const struct sample *s = &b->samples[i];
        if (s->rc == RC_OK) continue;
        probe__fail(b->p, id, &s->err, s->what);
        return;
    }
    probe__set(b->p, id, PROBE_OK, "", "at once, %u keys, also through a second handle", KEYS);
}

/* The store's time of a put lies between our times before and after it, if both clocks agree. */
static void check_clock(struct batch *b)
{
    const struct sample *best = NULL;
    struct probe *p = b->p;
    bool whole = true;
    if (!probe__begin(p, PROBE_CLOCK)) return;
    for (unsigned i = 0; i < KEYS; i++) {
        const struct sample *s = &b->samples[i];
        if (s->mtime_ms == 0) continue;
        if (s->mtime_ms % PRECISE_LIMIT != 0) whole = false;
        if (best == NULL || s->done_ms - s->put_ms < best->done_ms - best->put_ms) best = s;
    }
    if (best == NULL) {
        probe__set(p, PROBE_CLOCK, PROBE_NOT_OFFERED, "", "listings have no times");
        return;
    }
    int64_t cut = whole ? PRECISE_LIMIT : 1; /* a time that was cut off is that much early */
    int64_t skew = best->mtime_ms + cut / 2 - (best->put_ms + best->done_ms) / 2;
    int64_t error = (best->done_ms - best->put_ms + cut + 1) / 2;
    int64_t size = skew < 0 ? -skew : skew;
    bool off = size - error > SKEW_MAX_MS;
    probe__figure(p, PROBE_CLOCK, "skew_ms", skew);
    probe__figure(p, PROBE_CLOCK, "precision_ms", error);
    probe__set(p, PROBE_CLOCK, off ? PROBE_WARNING : PROBE_OK,
               off ? "Set both clocks with NTP. Signatures may be refused, and a restore to a time "
                     "may be off by as much."
                   : "",
               "the store's clock is %.3f s %s ours, +-%.3f s", (double)size / 1000,
               skew < 0 ? "behind" : "ahead of", (double)error / 1000);
}

static void check_timestamp(struct probe *p)
{
    char key[PROBE_KEY_SIZE];
    struct err err = {0};
    const struct store_put_opts opts = {.timestamp_ms = OLD_TIME_MS};
    struct look l = {.key = key, .text = "old", .store = probe__store(p, 0), .by_list = true};
    bool right = false, claimed = store_can(l.store, STORE_CAP_TIMESTAMP);
    if (!probe__begin(p, PROBE_TIMESTAMP)) return;
    probe__key(p, key, "timestamp");
    enum rc rc = probe__put(p, l.store, key, l.text, &opts, NULL, &err);
    if (rc == RC_OK) rc = look_once(p, &l, &right, &err);
    int64_t diff = l.obj.mtime_ms - OLD_TIME_MS;
    if (rc != RC_OK)
        probe__fail(p, PROBE_TIMESTAMP, &err, "");
    else if (!right)
        probe__set(p, PROBE_TIMESTAMP, PROBE_SKIPPED, "", "the object was not listed");
    else if (diff == 0)
        probe__set(p, PROBE_TIMESTAMP, PROBE_OK, "", "kept to the millisecond");
    else if (diff > -PRECISE_LIMIT && diff < 0)
        probe__set(p, PROBE_TIMESTAMP, PROBE_OK, "", "kept to the second");
    else if (claimed)
        probe__set(p, PROBE_TIMESTAMP, PROBE_WARNING,
                   "A restore to a time takes the time of the upload for that of the change.",
                   "the store should keep the time given with a put, but does not");
    else
        probe__set(p, PROBE_TIMESTAMP, PROBE_NOT_OFFERED, "",
                   "listings have the time of the upload; a restore to a time reads headers");
}

static void check_range(struct probe *p)
{
    char key[PROBE_KEY_SIZE];
    struct err err = {0};
    uint8_t data[RANGE_SIZE];
    struct store_bytes bytes;
    bool right = true;
    if (!probe__begin(p, PROBE_RANGE)) return;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    struct store_body body = store_body_bytes(&bytes, data, sizeof data);
    probe__key(p, key, "range");
    enum rc rc = store_put(probe__store(p, 0), &p->call, key, &body, NULL, NULL, &err);
    if (rc == RC_OK) rc = read_ranges(p, key, data, &right, &err);
    if (rc != RC_OK && rc != RC_CORRUPT)
        probe__fail(p, PROBE_RANGE, &err, "");
    else if (rc == RC_CORRUPT || !right)
        probe__set(p, PROBE_RANGE, PROBE_FAILED,
                   "Look for a proxy that changes or ignores ranges. A restore would fail.",
                   "a part of an object was not what was asked for%s%s", rc ? ": " : "",
                   rc ? err.text : "");
    else if (!store_can(probe__store(p, 0), STORE_CAP_RANGE))
        probe__set(p, PROBE_RANGE, PROBE_NOT_OFFERED, "",
                   "a part of an object costs reading from its start");
    else
        probe__set(p, PROBE_RANGE, PROBE_OK, "", "the start, the middle and the end of 64 KiB");
}

static enum rc read_ranges(struct probe *p, const char *key, const uint8_t *data, bool *ret_right,
                           struct err *err)
{
    static const struct {
        uint32_t off, size;
    } ranges[] = {{0, 100}, {12345, 6789}, {RANGE_SIZE - 1, 1}};
    uint8_t part[8192];
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        TRY(store_read(probe__store(p, i), &p->call, key, ranges[i].off, part, ranges[i].size,
                       err));
        if (memcmp(part, data + ranges[i].off, ranges[i].size) != 0) *ret_right = false;
    }
    return RC_OK;
}

static void sample_text(char out[PROBE_TEXT_MAX], const char *what, uint64_t i)
{
    snprintf(out, PROBE_TEXT_MAX, "%s: key %u", what, (unsigned)i);
}
