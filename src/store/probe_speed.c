/*
 * probe_speed.c -- how fast: latencies of small requests, one after another, and rates of large
 * objects, alone and four at once. Each part gets a share of the time that is left; what would not
 * fit is made smaller, then left out.
 */
#include "base/os.h"
#include "store/probe_intern.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_SIZE  4096
#define SAMPLES_MAX 100
#define SAMPLES_FEW 20 /* fewer say little about the slowest */
#define WARM_SIZE   (512u << 10)
#define LARGE_MAX   (8u << 20)
#define LARGE_MIN   (64u << 10)
#define MANY        4
#define MOVES       11 /* objects that the four measurements move, and a bit */

enum small { SMALL_PUT, SMALL_GET, SMALL_LIST };

/* A body that is made up as it is read, and compared as it comes back. */
struct blob {
    uint64_t seed, size;
    uint64_t at;  /* how far it was read in order, or compared */
    bool differs; /* from what was put */
};

struct mover {
    struct probe *p;
    uint64_t size;
    bool down;
    struct blob blobs[MANY];
    char keys[MANY][PROBE_KEY_SIZE];
};

static void measure_small(struct probe *p, enum probe_id id, enum small kind, char *key,
                          int64_t until_us);
static enum rc small_request(struct probe *p, enum small kind, const char *key, unsigned i,
                             struct err *err);
static void report_small(struct probe *p, enum probe_id id, int64_t *us, unsigned count);
static int by_value(const void *a, const void *b);
static uint64_t choose_size(struct probe *p, uint64_t *ret_rate);
static void measure_large(struct mover *m, enum probe_id id, unsigned count, bool down);
static void measure_stream(struct probe *p, uint64_t size);
static enum rc check_stream(struct probe *p, const char *key, const struct blob *want,
                            struct err *err);
static enum rc move_one(void *ctx, uint64_t i, struct err *err);
static void skip(struct probe *p, enum probe_id first, enum probe_id last);
static void fill(uint64_t seed, uint64_t off, uint8_t *dst, size_t size);
static enum rc blob_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);
static enum rc blob_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err);
static enum rc blob_compare(void *ctx, const void *data, size_t size, struct err *err);
static enum rc count_any(void *ctx, const struct store_obj *obj, struct err *err);
static enum rc drop(void *ctx, const void *data, size_t size, struct err *err);

void probe__speed(struct probe *p)
{
    char key[PROBE_KEY_SIZE] = "";
    struct mover m = {.p = p};
    uint64_t rate = 0;
    for (enum small kind = SMALL_PUT; kind <= SMALL_LIST; kind++) {
        enum probe_id id = PROBE_PUT_LATENCY + kind;
        int64_t share_us = probe__left_ms(p) * 1000 / 8;
        if (probe__begin(p, id)) measure_small(p, id, kind, key, os_mono_us() + share_us);
    }
    m.size = probe__begin(p, PROBE_UPLOAD) ? choose_size(p, &rate) : 0;
    if (m.size == 0) {
        skip(p, PROBE_UPLOAD, PROBE_STREAM);
        return;
    }
    for (unsigned i = 0; i < MANY; i++) {
        probe__key(p, m.keys[i], "large-%u", i);
        m.blobs[i] = (struct blob){.seed = p->seed + i, .size = m.size};
    }
    measure_large(&m, PROBE_UPLOAD, 1, false);
    measure_large(&m, PROBE_DOWNLOAD, 1, true);
    measure_large(&m, PROBE_UPLOAD_MANY, MANY, false);
    measure_large(&m, PROBE_DOWNLOAD_MANY, MANY, true);
    uint64_t stream = m.size + m.size / 2;
    if (probe__left_ms(p) > (int64_t)(stream * 1500 / rate))
        measure_stream(p, stream);
    else
        skip(p, PROBE_STREAM, PROBE_STREAM);
}

/* key: the first put's, for the gets. */
static void measure_small(struct probe *p, enum probe_id id, enum small kind, char *key,
                          int64_t until_us)
{
    int64_t us[SAMPLES_MAX], begin;
    struct err err = {0};
    enum rc rc = RC_OK;
    unsigned count = 0;
    while (count < SAMPLES_MAX && (count == 0 || os_mono_us() < until_us)) {
        if (kind == SMALL_PUT) probe__key(p, key, "small-%u", count);
        begin = os_mono_us();
        rc = small_request(p, kind, key, count, &err);
        if (rc != RC_OK) break;
        us[count++] = os_mono_us() - begin;
    }
    if (rc != RC_OK && (count == 0 || rc != RC_CANCELED))
        probe__fail(p, id, &err, "");
    else
        report_small(p, id, us, count);
}

static enum rc small_request(struct probe *p, enum small kind, const char *key, unsigned i,
                             struct err *err)
{
    struct store *s = probe__store(p, 0);
    struct blob blob = {.seed = p->seed ^ i, .size = SMALL_SIZE};
    const struct store_body body = {.size = SMALL_SIZE, .read = blob_read, .ctx = &blob};
    char prefix[PROBE_KEY_SIZE + 16];
    uint64_t found = 0;
    switch (kind) {
    case SMALL_PUT:
        return store_put(s, &p->call, key, &body, NULL, NULL, err);
    case SMALL_GET:
        return store_get(s, &p->call, key, NULL, drop, NULL, err);
    case SMALL_LIST:
        break;
    }
    snprintf(prefix, sizeof prefix, "%ssmall-", p->r->prefix);
    return store_list(s, &p->call, prefix, NULL, count_any, &found, err);
}

static void report_small(struct probe *p, enum probe_id id, int64_t *us, unsigned count)
{
    qsort(us, count, sizeof us[0], by_value);
    int64_t p50 = us[count / 2], p99 = us[(count * 99 + 99) / 100 - 1];
    probe__figure(p, id, "samples", count);
    probe__figure(p, id, "p50_us", p50);
    probe__figure(p, id, "p99_us", p99);
    probe__set(p, id, PROBE_OK, "", "p50 %.2f ms, p99 %.2f ms, %u samples%s", (double)p50 / 1000,
               (double)p99 / 1000, count,
               count < SAMPLES_FEW ? " (few: -duration gives it more time)" : "");
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* As large as fits the time that is left, judged by a first one. 0: none fits, or it failed. */
static uint64_t choose_size(struct probe *p, uint64_t *ret_rate)
{
    struct mover m = {.p = p, .size = WARM_SIZE, .blobs[0] = {.seed = p->seed, .size = WARM_SIZE}};
    struct err err = {0};
    probe__key(p, m.keys[0], "first");
    int64_t us = os_mono_us();
    if (move_one(&m, 0, &err) != RC_OK) {
        probe__fail(p, PROBE_UPLOAD, &err, "");
        return 0;
    }
    us = os_mono_us() - us + 1;
    uint64_t rate = (uint64_t)WARM_SIZE * 1000000 / (uint64_t)us; /* bytes a second */
    uint64_t fits = (uint64_t)probe__left_ms(p) * rate / 1000 / MOVES;
    uint64_t size = p->opts->size_max ? p->opts->size_max : LARGE_MAX;
    *ret_rate = rate + 1;
    while (size > fits && size >= LARGE_MIN)
        size /= 2;
    return size >= LARGE_MIN ? size : 0;
}

static void measure_large(struct mover *m, enum probe_id id, unsigned count, bool down)
{
    struct err err = {0};
    char size[32];
    if (!probe__begin(m->p, id)) return;
    m->down = down;
    for (unsigned i = 0; i < count; i++)
        m->blobs[i].at = 0;
    int64_t us = os_mono_us();
    enum rc rc = thr_each(count, count, move_one, m, &err);
    us = os_mono_us() - us + 1;
    if (rc != RC_OK) {
        probe__fail(m->p, id, &err, "");
        return;
    }
    uint64_t rate = m->size * count * 1000000 / (uint64_t)us;
    snprintf(size, sizeof size, "%.4g MiB", (double)m->size / (1 << 20));
    probe__figure(m->p, id, "bytes_per_s", (int64_t)rate);
    probe__figure(m->p, id, "object_bytes", (int64_t)m->size);
    probe__figure(m->p, id, "objects", count);
    probe__set(m->p, id, PROBE_OK, "", "%.1f MB/s, %u of %s", (double)rate / 1e6, count, size);
}

static enum rc move_one(void *ctx, uint64_t i, struct err *err)
{
    struct mover *m = ctx;
    struct blob *b = &m->blobs[i];
    struct store *s = probe__store(m->p, i);
    const struct store_body body = {.size = m->size, .read = blob_read, .ctx = b};
    if (!m->down) return store_put(s, &m->p->call, m->keys[i], &body, NULL, NULL, err);
    TRY(store_get(s, &m->p->call, m->keys[i], NULL, blob_compare, b, err));
    if (b->differs || b->at != b->size)
        return err_set(err, RC_CORRUPT, "'%s' is not what was put", m->keys[i]);
    return RC_OK;
}

/* In parts, or through a temporary file. */
static void measure_stream(struct probe *p, uint64_t size)
{
    char key[PROBE_KEY_SIZE];
    struct err err = {0};
    struct blob blob = {.seed = p->seed, .size = size};
    const struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = blob_next, .ctx = &blob};
    if (!probe__begin(p, PROBE_STREAM)) return;
    probe__key(p, key, "stream");
    int64_t us = os_mono_us();
    enum rc rc = store_put(probe__store(p, 0), &p->call, key, &body, NULL, NULL, &err);
    us = os_mono_us() - us + 1;
    if (rc == RC_OK) rc = check_stream(p, key, &blob, &err);
    if (rc != RC_OK) {
        probe__fail(p, PROBE_STREAM, &err, "");
        return;
    }
    uint64_t rate = size * 1000000 / (uint64_t)us;
    probe__figure(p, PROBE_STREAM, "bytes_per_s", (int64_t)rate);
    probe__figure(p, PROBE_STREAM, "object_bytes", (int64_t)size);
    probe__set(p, PROBE_STREAM, PROBE_OK, "", "%.1f MB/s, %.4g MiB%s", (double)rate / 1e6,
               (double)size / (1 << 20),
               store_can(probe__store(p, 0), STORE_CAP_STREAM) ? "" : ", by way of a local file");
}

/* Its size, and its last bytes. */
static enum rc check_stream(struct probe *p, const char *key, const struct blob *want,
                            struct err *err)
{
    struct store_obj obj = {0};
    uint8_t got[1000], wanted[sizeof got];
    uint64_t off = want->size - sizeof got, found = 0;
    const struct store_get_opts opts = {.off = off, .ret_obj = &obj};
    struct store *s = probe__store(p, 1);
    TRY(store_get(s, &p->call, key, &opts, drop, &found, err));
    if (obj.size != want->size)
        return err_set(err, RC_CORRUPT, "'%s' has %llu bytes instead of %llu", key,
                       (unsigned long long)obj.size, (unsigned long long)want->size);
    TRY(store_read(s, &p->call, key, off, got, sizeof got, err));
    fill(want->seed, off, wanted, sizeof wanted);
    if (memcmp(got, wanted, sizeof got) != 0)
        return err_set(err, RC_CORRUPT, "'%s' is not what was put", key);
    return RC_OK;
}

/* Those of them that have no result yet. */
static void skip(struct probe *p, enum probe_id first, enum probe_id last)
{
    struct err err = {0};
    for (enum probe_id id = first; id <= last; id++) {
        bool no_upload = id > PROBE_UPLOAD && p->r->checks[PROBE_UPLOAD].result == PROBE_FAILED;
        if (p->r->checks[id].text[0] != '\0') continue;
        if (call_check(&p->call, &err) != RC_OK) {
            probe__fail(p, id, &err, "");
            continue;
        }
        probe__set(p, id, PROBE_SKIPPED, no_upload ? "" : "Give it more time with -duration.",
                   no_upload ? "not tried: the upload failed" : "it would take too long");
    }
}

/* Words that do not compress, each from its place alone. */
static void fill(uint64_t seed, uint64_t off, uint8_t *dst, size_t size)
{
    for (size_t done = 0; done < size;) {
        uint64_t at = off + done, word = seed + (at / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15);
        word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
        word ^= word >> 31;
        size_t skip_size = at % 8, n = 8 - skip_size;
        if (n > size - done) n = size - done;
        memcpy(dst + done, (const uint8_t *)&word + skip_size, n);
        done += n;
    }
}

static enum rc blob_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err)
{
    const struct blob *b = ctx;
    (void)err;
    fill(b->seed, off, dst, size);
    return RC_OK;
}

static enum rc blob_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *err)
{
    struct blob *b = ctx;
    (void)err;
    *ret_size = b->size - b->at < size ? (size_t)(b->size - b->at) : size;
    fill(b->seed, b->at, dst, *ret_size);
    b->at += *ret_size;
    return RC_OK;
}

static enum rc blob_compare(void *ctx, const void *data, size_t size, struct err *err)
{
    struct blob *b = ctx;
    const uint8_t *from = data;
    uint8_t wanted[4096];
    (void)err;
    for (size_t done = 0; done < size;) {
        size_t n = size - done < sizeof wanted ? size - done : sizeof wanted;
        fill(b->seed, b->at, wanted, n);
        if (memcmp(wanted, from + done, n) != 0) b->differs = true;
        done += n;
        b->at += n;
    }
    return RC_OK;
}

static enum rc count_any(void *ctx, const struct store_obj *obj, struct err *err)
{
    (void)obj, (void)err;
    ++*(uint64_t *)ctx;
    return RC_OK;
}

static enum rc drop(void *ctx, const void *data, size_t size, struct err *err)
{
    (void)ctx, (void)data, (void)size, (void)err;
    return RC_OK;
}
