/*
 * restore_bed.h -- logs of a database that is known page by page, for the tests of restores.
 *
 * The oracle is stupid on purpose: it keeps the whole image after every transaction. A file of
 * transactions min..max holds every page that one of them wrote, as it is after max; that is all
 * this "compaction" knows.
 */
#ifndef TESTS_LOG_RESTORE_BED_H
#define TESTS_LOG_RESTORE_BED_H
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/bytes.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/crc64.h"
#include "fmt/ltx.h"
#include "log/restore.h"

#define UNUSED __attribute__((unused))
#define OK(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != RC_OK) fail_msg("%s: %s %s", #expr, rc_name(err.rc), err.text);              \
    } while (0)
#define LATEST     ((struct plan_target){.kind = PLAN_LATEST})
#define TXID(n)    ((struct plan_target){.kind = PLAN_TXID, .txid = (n)})
#define TIME(ms)   ((struct plan_target){.kind = PLAN_TIME, .time_ms = (ms)})

#define STATES_MAX 40

struct state { /* after one transaction */
    uint32_t page_count;
    uint8_t *image;
    uint8_t *wrote; /* [page_count + 1] */
};
struct bed {
    unsigned seed;
    uint32_t page_size;
    bool digests;
    uint64_t txid; /* newest */
    struct state states[STATES_MAX + 1];
    struct store *store;
    struct log log;
    char dir[64], out[96];
};

static UNUSED uint32_t pick(struct bed *b, uint32_t below)
{
    return (uint32_t)rand_r(&b->seed) % below;
}

static UNUSED unsigned seed_get(void)
{
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)os_random();
    print_message("SLUICE_SEED=%u\n", seed);
    return seed;
}

/* A folder for outputs, in memory where there is such a place: these tests sync a lot. */
static UNUSED void bed_open(struct bed *b, uint32_t page_size, unsigned seed, const char *url)
{
    struct err err;
    *b = (struct bed){.seed = seed, .page_size = page_size};
    snprintf(b->dir, sizeof b->dir, "%s/sluice-restore-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->out, sizeof b->out, "%s/out.db", b->dir);
    OK(store_open(url, &b->store, &err));
    b->log.store = b->store;
}

static UNUSED int files_in(const char *dir)
{
    int n = -2; /* . and .. */
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static UNUSED void bed_forget(struct bed *b)
{
    for (uint64_t i = 0; i <= b->txid; i++) {
        free(b->states[i].image);
        free(b->states[i].wrote);
    }
    memset(b->states, 0, sizeof b->states);
    b->txid = 0;
}

/* Fails when a restore left anything behind. */
static UNUSED void bed_close(struct bed *b)
{
    unlink(b->out);
    assert_int_equal(files_in(b->dir), 0);
    rmdir(b->dir);
    store_close(b->store);
    bed_forget(b);
}

static UNUSED void fill_page(struct bed *b, uint8_t *page)
{
    uint32_t kind = pick(b, 4);
    memset(page, kind == 3 ? 0 : (int)pick(b, 256), b->page_size);
    for (uint32_t i = 0; kind < 2 && i < b->page_size / (kind ? 16 : 1); i++)
        page[i] = (uint8_t)pick(b, 256);
}

/* One more transaction: pages change, the database grows or shrinks. */
static UNUSED void bed_commit(struct bed *b, uint32_t page_count)
{
    struct state *old = &b->states[b->txid], *now = &b->states[++b->txid];
    size_t page_size = b->page_size;
    assert_true(b->txid <= STATES_MAX);
    *now = (struct state){.page_count = page_count};
    now->image = calloc(page_count + 1, page_size);
    now->wrote = calloc(page_count + 1, 1);
    assert_true(now->image != NULL && now->wrote != NULL);
    uint32_t kept = old->page_count < page_count ? old->page_count : page_count;
    if (kept > 0) memcpy(now->image, old->image, kept * page_size);
    for (uint32_t pgno = 1; pgno <= page_count; pgno++) {
        if (pgno <= kept && pick(b, 4) != 0) continue;
        fill_page(b, now->image + (pgno - 1) * page_size);
        now->wrote[pgno] = 1;
    }
}

static UNUSED struct digest digest_of(const struct bed *b, const struct state *s)
{
    struct digest d = {0};
    for (uint32_t i = 0; i < s->page_count; i++)
        d = digest_add(d, digest_page(i + 1, s->image + (size_t)i * b->page_size, b->page_size));
    return d;
}

static UNUSED void put_bytes(struct bed *b, const char *key, const void *data, size_t size,
                             int64_t ms)
{
    struct err err;
    struct store_bytes bytes;
    struct store_body body = store_body_bytes(&bytes, data, size);
    OK(store_put(b->store, NULL, key, &body, &(struct store_put_opts){.timestamp_ms = ms}, NULL,
                 &err));
}

/* The header that the file of min..max deserves. */
static UNUSED struct ltx_header header_of(struct bed *b, uint64_t min, uint64_t max)
{
    const struct state *s = &b->states[max];
    return (struct ltx_header){.flags = LTX_FLAG_NO_CHECKSUM,
                               .page_size = b->page_size,
                               .page_count = s->page_count,
                               .txid_min = min,
                               .txid_max = max,
                               .timestamp_ms = (int64_t)max * 1000,
                               .has_digest = b->digests,
                               .digest = b->digests ? digest_of(b, s) : (struct digest){0}};
}

/* Encode the file of h's transactions into out. */
static UNUSED void encode(struct bed *b, const struct ltx_header *h, struct buf *out)
{
    const struct state *s = &b->states[h->txid_max];
    struct buf frames = BUF_INIT, index = BUF_INIT;
    uint8_t head[LTX_HEADER_SIZE], trailer[LTX_TRAILER_SIZE];
    struct ltx_encoder *enc;
    struct err err;
    OK(ltx_encoder_new(b->page_size, pick(b, 2) ? LTX_ENC_FRAME : LTX_ENC_BLOCK, &enc, &err));
    for (uint32_t pgno = 1; pgno <= s->page_count; pgno++) {
        bool has = h->txid_min == 1;
        for (uint64_t t = h->txid_min; t <= h->txid_max; t++)
            has |= pgno <= b->states[t].page_count && b->states[t].wrote[pgno];
        const uint8_t *page = s->image + (size_t)(pgno - 1) * b->page_size;
        if (has) OK(ltx_encoder_page(enc, pgno, page, &frames, &index, &err));
    }
    OK(ltx_encoder_finish(enc, h, &frames, &index, head, trailer, &err));
    OK(buf_append(out, head, sizeof head, &err));
    OK(buf_append(out, frames.data, frames.size, &err));
    OK(buf_append(out, index.data, index.size, &err));
    OK(buf_append(out, trailer, sizeof trailer, &err));
    ltx_encoder_free(enc);
    buf_fini(&frames);
    buf_fini(&index);
}

static UNUSED const char *key_of(uint32_t level, uint64_t min, uint64_t max)
{
    static _Thread_local char key[STORE_KEY_MAX + 1]; /* store hooks run in any thread */
    snprintf(key, sizeof key, "ltx/%u/%016llx-%016llx.ltx", level, (unsigned long long)min,
             (unsigned long long)max);
    return key;
}

static UNUSED void put_file(struct bed *b, uint32_t level, uint64_t min, uint64_t max)
{
    struct ltx_header h = header_of(b, min, max);
    struct buf file = BUF_INIT;
    encode(b, &h, &file);
    put_bytes(b, key_of(level, min, max), file.data, file.size, (int64_t)max * 1000);
    buf_fini(&file);
}

static UNUSED void del_file(struct bed *b, uint32_t level, uint64_t min, uint64_t max)
{
    struct err err;
    const char *key = key_of(level, min, max);
    OK(store_del(b->store, NULL, &key, 1, &err));
}

/* Give a file that was changed the checksum of what it holds now. */
static UNUSED void reseal(uint32_t page_size, uint8_t *file, size_t size)
{
    uint64_t off, index_size, sum = crc64(0, file, LTX_HEADER_SIZE);
    struct ltx_index_reader r = {0};
    struct ltx_unpacker *u;
    uint8_t *page = malloc(page_size);
    struct err err;
    OK(ltx_index_locate(file + size - 24, size, &off, &index_size, &err));
    OK(ltx_unpacker_new(page_size, &u, &err));
    for (uint64_t at = 0; !r.done;) {
        struct ltx_index_entry e;
        bool more;
        size_t took = index_size - at;
        uint32_t pgno;
        OK(ltx_index_next(&r, file + off + at, &took, &e, &more, &err));
        at += took;
        if (more) OK(ltx_unpack(u, file + e.off, e.size, &pgno, page, &sum, &err));
    }
    sum = crc64(sum, file + off - 6, 6 + index_size + 8 + 8);
    put_be64(file + size - 8, sum | LTX_SUM_FLAG);
    ltx_unpacker_free(u);
    free(page);
}

static UNUSED bool out_is(const struct bed *b, const struct state *s)
{
    size_t size = (size_t)s->page_count * b->page_size;
    struct buf got = BUF_INIT;
    struct err err;
    OK(os_read_file(b->out, 1u << 30, &got, &err));
    bool same = got.size == size && (size == 0 || memcmp(got.data, s->image, size) == 0);
    buf_fini(&got);
    return same;
}

static UNUSED enum rc restore_to(struct bed *b, struct plan_target target,
                                 struct restore_result *ret_result, struct err *err)
{
    struct restore_opts opts = {.target = target, .out_path = b->out};
    return restore_run(&b->log, NULL, &opts, ret_result, err);
}

/* Restore must give this state. */
static UNUSED struct restore_result expect_state(struct bed *b, struct plan_target target,
                                                 uint64_t txid)
{
    struct restore_result res = {0};
    const struct state *s = &b->states[txid];
    char hex[33];
    struct err err;
    OK(restore_to(b, target, &res, &err));
    assert_int_equal(res.txid, txid);
    assert_int_equal(res.page_size, b->page_size);
    assert_int_equal(res.page_count, s->page_count);
    assert_int_equal(res.digest_checked, b->digests);
    digest_hex(digest_of(b, s), hex);
    assert_string_equal(res.digest.hex, hex);
    assert_true(out_is(b, s));
    unlink(b->out);
    return res;
}

/* Restore must fail so, with words in its text, and leave nothing. */
static UNUSED void expect_failure(struct bed *b, struct plan_target target, enum rc want,
                                  const char *words)
{
    struct restore_result res = {0};
    struct err err = {0};
    int before = files_in(b->dir);
    enum rc rc = restore_to(b, target, &res, &err);
    if (rc != want || strstr(err.text, words) == NULL)
        fail_msg("%s '%s', not %s '%s'", rc_name(rc), err.text, rc_name(want), words);
    assert_int_equal(files_in(b->dir), before);
    assert_int_equal(res.page_size, 0);
}
#endif
