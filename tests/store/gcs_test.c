/* gcs_test.c -- the driver for Google Cloud Storage against a small one in memory (gcs_peer.h), and
 * its credentials against a scripted token service. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include "base/mem.h"
#include "base/os.h"
#include "store/conformance.h"
#include "store/driver.h"
#include "store/gcs_peer.h"
#include "store/gcs_token.h"
#include "store/hash.h"

#define PART     (512u << 10)
#define LARGE    (5 * PART / 2 + 12345)
#define ok(expr) assert_ok((expr), __LINE__)

static struct err err;
static struct gcs_peer *cloud;
static struct store *store; /* an emulator's */
static EVP_PKEY *key;
static char key_pem[4096], folder[64];

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static void assert_fails(enum rc rc, enum rc want, const char *text)
{
    if (rc != want || strstr(err.text, text) == NULL)
        fail_msg("%s, not %s: '%s', not '%s'", rc_name(rc), rc_name(want), err.text, text);
}

static void set_env(const char *name, const char *value)
{
    if (value != NULL)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static void clear_env(void)
{
    static const char *const names[] = {"STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS",
                                        "CLOUDSDK_CONFIG", "GCE_METADATA_HOST"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    set_env("HOME", folder);
}

static int setup(void **state)
{
    (void)state;
    clear_env();
    cloud = gcs_peer_start();
    set_env("STORAGE_EMULATOR_HOST", gcs_peer_url(cloud));
    ok(store_open("gs://bucket/root?part-size=512KiB", &store, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    store = NULL;
    gcs_peer_stop(cloud);
    clear_env();
    return 0;
}

/* A body whose byte i is a function of i. */
static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)((off * 2654435761u >> 13) + (off >> 20));
}

static enum rc body_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = byte_at(off + i);
    return RC_OK;
}

struct stream {
    uint64_t off, size, fail_at;
};

static enum rc body_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct stream *s = ctx;
    if (s->fail_at != 0 && s->off >= s->fail_at) return err_set(e, RC_AGAIN, "the source failed");
    if (size > 100001) size = 100001;
    if (size > s->size - s->off) size = (size_t)(s->size - s->off);
    TRY(body_read(NULL, s->off, dst, size, e));
    s->off += size;
    *ret_size = size;
    return RC_OK;
}

static enum rc check_take(void *ctx, const void *data, size_t size, struct err *e)
{
    uint64_t *off = ctx;
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)data)[i] != byte_at(*off + i))
            return err_set(e, RC_CORRUPT, "byte %llu differs", (unsigned long long)(*off + i));
    *off += size;
    return RC_OK;
}

static void assert_stored(const char *name, uint64_t size)
{
    uint64_t off = 0;
    ok(store_get(store, NULL, name, NULL, check_take, &off, &err));
    assert_int_equal(off, size);
    assert_int_equal(gcs_peer_sessions(cloud), 0);
}

static enum rc put_size(const char *name, uint64_t size)
{
    struct store_body body = {.size = size, .read = body_read};
    return store_put(store, NULL, name, &body, NULL, NULL, &err);
}

static enum rc put_stream(const char *name, struct stream *s)
{
    struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = body_next, .ctx = s};
    return store_put(store, NULL, name, &body, NULL, NULL, &err);
}

static enum rc put_text(struct store *s, const char *name, const char *text,
                        const struct store_put_opts *opts, struct store_obj *ret)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, NULL, name, &body, opts, ret, &err);
}

static enum rc count_obj(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    (*(unsigned *)ctx)++;
    return RC_OK;
}

static enum rc drop(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size, (void)e;
    return RC_OK;
}

static const struct peer_req *request(unsigned i)
{
    return peer_at(gcs_peer_http(cloud), i);
}

/* ---- the suite ---- */

static void row_prepare(unsigned unique, char url[256])
{
    snprintf(url, 256, "gs://bucket/suite/test-%u", unique);
}

static struct store *row_open(const char *url)
{
    struct store *s = NULL;
    ok(store_open(url, &s, &err));
    return s;
}

static void row_clean(const char *url)
{
    assert_int_equal(gcs_peer_sessions(cloud), 0); /* each one was finished or given up */
    gcs_peer_clear(cloud, url + strlen("gs://bucket/"));
    assert_int_equal(gcs_peer_clear(cloud, ""), 0); /* nothing was put anywhere else */
}

static const struct conformance_row row = {
    .name = "gs", .prepare = row_prepare, .open = row_open, .clean = row_clean};

/* ---- opening ---- */

static void test_open(void **state)
{
    (void)state;
    static const struct {
        const char *url, *name;
    } good[] = {
        {"gs://my-bucket", "gs://my-bucket"},
        {"gs://my-bucket/", "gs://my-bucket"},
        {"gs://my-bucket/a//b/./c/", "gs://my-bucket/a/b/c"},
        {"gs://my-bucket/a%20b", "gs://my-bucket/a b"},
        {"gs://my-bucket?path=/x/y", "gs://my-bucket//x/y"},
        {"gs://b_1.example.org/p?bucket=other", "gs://other/p"},
    };
    static const char *const bad[] = {
        "gs://",
        "gs:///path",
        "gs://a",
        "gs://bucket/a/../b",
        "gs://Bucket/x",
        "gs://u:p@bucket/x",
        "gs://bucket:80/x",
        "gs://bucket/x?nope=1",
        "gs://-/../x?b=c",
        "gs://bucket?path=..",
        "gs://bucket?part-size=100KiB",
        "gs://bucket?part-size=2GiB",
    };
    struct store *s = NULL;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ok(store_open(good[i].url, &s, &err));
        assert_string_equal(store_name(s), good[i].name);
        assert_string_equal(store_type(s), "gs");
        store_close(s);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(store_open(bad[i], &s, &err), RC_INVALID);
    char longest[700] = "gs://bucket/";
    memset(longest + 12, 'p', 600);
    assert_fails(store_open(longest, &s, &err), RC_INVALID, "longer than");
    assert_fails(store_open("gs://bucket?endpoint=http://example.com", &s, &err), RC_INVALID,
                 "in the clear");
}

/* ---- conditions ---- */

static void test_conditions(void **state)
{
    (void)state;
    struct store_obj a, b;
    ok(put_text(store, "lease", "one", NULL, &a));
    struct store_put_opts opts = {.if_etag = a.etag};
    ok(put_text(store, "lease", "two", &opts, &b));
    assert_string_not_equal(a.etag, b.etag);
    assert_fails(put_text(store, "lease", "three", &opts, NULL), RC_CONFLICT, "lease");
    opts.if_etag = "0"; /* must not become "create" */
    assert_int_equal(put_text(store, "lease", "three", &opts, NULL), RC_CONFLICT);
    assert_int_equal(put_text(store, "other", "three", &opts, NULL), RC_NOT_FOUND);
    opts.if_etag = "\"abc\"";
    assert_int_equal(put_text(store, "lease", "three", &opts, NULL), RC_CONFLICT);
    opts.if_etag = b.etag;
    assert_int_equal(put_text(store, "other", "three", &opts, NULL), RC_NOT_FOUND);
    char got[4] = "";
    ok(store_read(store, NULL, "lease", 0, got, 3, &err));
    assert_string_equal(got, "two");

    /* The same through a session. */
    struct store_body body = {.size = LARGE, .read = body_read};
    assert_int_equal(store_put(store, NULL, "lease", &body,
                               &(struct store_put_opts){.if_absent = true}, NULL, &err),
                     RC_CONFLICT);
    opts.if_etag = a.etag;
    assert_int_equal(store_put(store, NULL, "lease", &body, &opts, NULL, &err), RC_CONFLICT);
    opts.if_etag = b.etag;
    ok(store_put(store, NULL, "lease", &body, &opts, &a, &err));
    assert_int_equal(a.size, LARGE);
    assert_stored("lease", LARGE);
}

static void test_metadata(void **state)
{
    (void)state;
    char stamp[64];
    struct store_obj obj = {0};
    ok(put_text(store, "t", "x", &(struct store_put_opts){.timestamp_ms = 1767323045678}, NULL));
    assert_true(gcs_peer_stamp(cloud, "root/t", stamp));
    assert_string_equal(stamp, "2026-01-02T03:04:05.678Z");
    struct store_get_opts opts = {.ret_obj = &obj};
    ok(store_get(store, NULL, "t", &opts, drop, NULL, &err));
    assert_string_equal(obj.key, "t");
    assert_int_equal(obj.size, 1);
    assert_true(strlen(obj.etag) >= 16);
    /* Past the end: no bytes come, and the object is described all the same. */
    obj = (struct store_obj){0};
    opts.off = 100;
    ok(store_get(store, NULL, "t", &opts, drop, NULL, &err));
    assert_int_equal(obj.size, 1);
    assert_true(strlen(obj.etag) >= 16);
    assert_int_equal(obj.mtime_ms, 1767323045678);
}

/* ---- listing ---- */

static void test_list_is_a_seek(void **state)
{
    (void)state;
    struct peer *http = gcs_peer_http(cloud);
    unsigned count = 0;
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "ltx/0/%02d", i);
        ok(put_text(store, name, "x", NULL, NULL));
    }
    peer_forget(http);
    struct store_list_opts opts = {.after = "ltx/0/14"};
    ok(store_list(store, NULL, "ltx/0/", &opts, count_obj, &count, &err));
    assert_int_equal(count, 5);
    assert_int_equal(peer_count(http), 1);
    assert_non_null(strstr(request(0)->target, "startOffset=root%2Fltx%2F0%2F14"));
    assert_non_null(strstr(request(0)->target, "prefix=root%2Fltx%2F0%2F&"));
    gcs_peer_page(cloud, 7);
    count = 0;
    ok(store_list(store, NULL, "", NULL, count_obj, &count, &err));
    assert_int_equal(count, 20);
    assert_int_equal(peer_count(http), 4);
    count = 0;
    opts.count_max = 2;
    ok(store_list(store, NULL, "", &opts, count_obj, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(peer_count(http), 5);
    assert_non_null(strstr(request(4)->target, "maxResults=3"));
}

static void push_text(int status, const char *text)
{
    peer_push(gcs_peer_http(cloud),
              &(struct peer_resp){.status = status, .body = text, .body_size = strlen(text)});
}

#define ITEM(name)                                                                                 \
    "{\"name\":\"" name "\",\"generation\":\"1\",\"size\":\"1\","                                  \
    "\"timeCreated\":\"2026-01-02T03:04:05Z\"}"

static void page_forever(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    (void)ctx;
    peer_text(resp, "{\"nextPageToken\":\"%u\"}", req->number);
}

/* No key twice, none out of order, none that was not asked for, and an end. */
static void test_list_surprises(void **state)
{
    (void)state;
    static const char *const bad[] = {ITEM("root/l/b") "," ITEM("root/l/b"),
                                      ITEM("root/l/b") "," ITEM("root/l/a"),
                                      ITEM("root/l/b") "," ITEM("root/m")};
    char text[1000];
    unsigned count = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "{\"items\":[%s]}", bad[i]);
        push_text(200, text);
        count = 0;
        assert_int_equal(store_list(store, NULL, "l/", NULL, count_obj, &count, &err), RC_CORRUPT);
        assert_int_equal(count, 1);
    }
    struct peer *endless = peer_start(page_forever, NULL);
    struct call c = {.deadline_ms = os_mono_ms() + 60000};
    set_env("STORAGE_EMULATOR_HOST", peer_url(endless));
    store_close(store);
    ok(store_open("gs://bucket/root", &store, &err));
    assert_fails(store_list(store, &c, "", NULL, count_obj, &count, &err), RC_CORRUPT,
                 "without end");
    peer_stop(endless);
}

/* Forgets again what it has taken: one chunk's gain is the next one's loss. */
static atomic_uint chunks;
static void forgetful(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    (void)ctx;
    const char *range = peer_header(req, "Content-Range");
    if (strcmp(req->method, "POST") == 0) {
        peer_head(resp, "Location", "http://%s/session", peer_header(req, "Host"));
        return;
    }
    bool chunk = range != NULL && strstr(range, "*/") == NULL;
    bool more = chunk && atomic_fetch_add(&chunks, 1) % 2 == 0;
    resp->status = 308;
    peer_head(resp, "Range", "bytes=0-%u", more ? 524287u : 262143u);
}

static void test_forgetful(void **state)
{
    (void)state;
    struct peer *p = peer_start(forgetful, NULL);
    struct call c = {.deadline_ms = os_mono_ms() + 1000};
    struct store_body body = {.size = 2u << 20, .read = body_read};
    set_env("STORAGE_EMULATOR_HOST", peer_url(p));
    store_close(store);
    ok(store_open("gs://bucket/root?part-size=512KiB", &store, &err));
    enum rc rc = store_put(store, &c, "k", &body, NULL, NULL, &err);
    if (rc != RC_AGAIN && rc != RC_CANCELED) fail_msg("%s: %s", rc_name(rc), err.text);
    assert_in_range(atomic_load(&chunks), 2, 9); /* with pauses that grow */
    peer_stop(p);
}

static void test_bad_answers(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "not JSON",
        "[]",
        "{\"items\":{}}",
        "{\"items\":[1]}",
        "{\"items\":[{\"name\":\"root/a\"}]}",
        "{\"items\":[{\"name\":\"root/a\",\"generation\":\"x\",\"size\":\"1\","
        "\"timeCreated\":\"2026-01-02T03:04:05Z\"}]}",
        "{\"items\":[{\"name\":\"root/a\",\"generation\":\"1\",\"size\":\"-1\","
        "\"timeCreated\":\"2026-01-02T03:04:05Z\"}]}",
        "{\"items\":[{\"name\":\"root/a\",\"generation\":\"1\",\"size\":\"1\","
        "\"timeCreated\":\"yesterday\"}]}",
    };
    unsigned count = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        push_text(200, bad[i]);
        assert_int_equal(store_list(store, NULL, "", NULL, count_obj, &count, &err), RC_AGAIN);
        push_text(200, bad[i]);
        assert_int_equal(put_text(store, "k", "x", NULL, NULL), RC_AGAIN);
    }
    CLEANUP(buf_fini) struct buf deep = BUF_INIT;
    for (int i = 0; i < 100000; i++)
        ok(buf_append(&deep, "[", 1, &err));
    ok(buf_append(&deep, "", 1, &err));
    push_text(200, (char *)deep.data);
    assert_int_equal(store_list(store, NULL, "", NULL, count_obj, &count, &err), RC_AGAIN);
    /* Names of other stores in the bucket are passed over, and such a page is no endless loop. */
    push_text(200, "{\"nextPageToken\":\"p\",\"items\":[{\"name\":\"root/../x\","
                   "\"generation\":\"1\",\"size\":\"1\","
                   "\"timeCreated\":\"2026-01-02T03:04:05Z\"}]}");
    push_text(200, "{\"nextPageToken\":\"p\"}");
    assert_fails(store_list(store, NULL, "", NULL, count_obj, &count, &err), RC_AGAIN, "twice");
    assert_int_equal(count, 0);
    /* Too much of it: shorter pages are tried, and then it is a failure. */
    struct peer_resp huge = {.body_size = 2u << 20};
    peer_push_many(gcs_peer_http(cloud), 6, &huge);
    assert_int_equal(store_list(store, NULL, "", NULL, count_obj, &count, &err), RC_TOO_BIG);
    assert_int_equal(peer_left(gcs_peer_http(cloud)), 0);
    /* Sessions at places where no secret must go. */
    static const char *const places[] = {"", "Location: ftp://x/\r\n", "Location: /relative\r\n",
                                         "Location: http://192.0.2.1/session\r\n"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        peer_push(gcs_peer_http(cloud), &(struct peer_resp){.headers = places[i]});
        assert_fails(put_size("big", LARGE), RC_AGAIN, "no session");
    }
}

/* ---- trouble ---- */

static void test_statuses(void **state)
{
    (void)state;
    struct store *s = NULL;
    unsigned count = 0;
    char byte;
    push_text(403, "{\"error\":{\"code\":403,\"message\":\"me@x does not have "
                   "storage.objects.create access\\n\",\"errors\":[{\"reason\":\"forbidden\"}]}}");
    assert_fails(put_text(store, "k", "x", NULL, NULL), RC_DENIED, "Storage Object User");
    assert_non_null(strstr(err.text, "me@x does not have storage.objects.create access;"));
    push_text(403, "{\"error\":{\"code\":403,\"message\":\"slow\",\"errors\":"
                   "[{\"reason\":\"userRateLimitExceeded\"}]}}");
    ok(put_text(store, "k", "x", NULL, NULL));
    push_text(409, "{\"error\":{\"code\":409,\"message\":\"another one is under way\"}}");
    ok(put_text(store, "k", "x", &(struct store_put_opts){.timestamp_ms = 1}, NULL));
    ok(store_open("gs://" GCS_PEER_MISSING, &s, &err));
    assert_fails(put_text(s, "k", "x", NULL, NULL), RC_INVALID, GCS_PEER_MISSING);
    assert_fails(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_INVALID, GCS_PEER_MISSING);
    assert_fails(store_list(s, NULL, "", NULL, count_obj, &count, &err), RC_INVALID,
                 GCS_PEER_MISSING);
    assert_fails(store_del(s, NULL, &(const char *){"k"}, 1, &err), RC_INVALID, GCS_PEER_MISSING);
    store_close(s);
}

static void test_trouble_passes(void **state)
{
    (void)state;
    static const struct peer_resp troubles[] = {
        {.status = 500},
        {.status = 503, .headers = "Retry-After: 0\r\n"},
        {.status = 429},
        {.status = 408},
        {.fault = PEER_RESET},
        {.fault = PEER_CUT_HEAD},
        {.fault = PEER_RESET_UNREAD},
    };
    struct peer *http = gcs_peer_http(cloud);
    for (size_t i = 0; i < sizeof troubles / sizeof troubles[0]; i++) {
        unsigned count = 0;
        uint64_t off = 0;
        peer_push(http, &troubles[i]);
        ok(put_size("k", 1000));
        peer_push(http, &troubles[i]);
        ok(store_get(store, NULL, "k", NULL, check_take, &off, &err));
        assert_int_equal(off, 1000);
        if (i % 2 == 0) continue;
        peer_push(http, &troubles[i]);
        ok(store_list(store, NULL, "", NULL, count_obj, &count, &err));
        assert_int_equal(count, 1);
        peer_push(http, &troubles[i]);
        ok(store_del(store, NULL, &(const char *){"k"}, 1, &err));
        assert_int_equal(peer_left(http), 0);
    }
}

static void test_lost_answers(void **state)
{
    (void)state;
    char got[4] = "";
    struct store_put_opts create = {.if_absent = true};
    gcs_peer_lose(cloud, "POST", 1);
    assert_int_equal(put_text(store, "k", "own", &create, NULL), RC_CONFLICT);
    ok(store_read(store, NULL, "k", 0, got, 3, &err));
    assert_string_equal(got, "own");
    gcs_peer_lose(cloud, "POST", 1);
    ok(put_text(store, "k", "new", NULL, NULL));
    gcs_peer_lose(cloud, "DELETE", 1);
    ok(store_del(store, NULL, &(const char *){"k"}, 1, &err));
    /* The answer to the last chunk: the session knows that it is done. */
    gcs_peer_lose(cloud, "PUT", 3);
    struct store_body body = {.size = LARGE, .read = body_read};
    ok(store_put(store, NULL, "big", &body, &create, NULL, &err));
    assert_int_equal(gcs_peer_queries(cloud), 1);
    assert_string_equal(
        peer_header(request(peer_count(gcs_peer_http(cloud)) - 1), "Content-Length"), "0");
    assert_stored("big", LARGE);
}

static void test_broken_chunks(void **state)
{
    (void)state;
    static const struct {
        unsigned nth;
        uint64_t keep;
        enum peer_fault fault;
        int status;
        unsigned queries;
    } cases[] = {
        {1, 0, PEER_RESET, 0, 1},       {1, PART / 2, PEER_RESET, 0, 1},
        {2, PART / 2, PEER_FINE, 0, 0}, {2, PART, PEER_LOSE, 0, 1},
        {2, 0, PEER_FINE, 503, 1},      {3, PART / 2, PEER_CUT_HEAD, 0, 1},
        {3, 0, PEER_FINE, 500, 1},      {3, PART / 2, PEER_FINE, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned before = gcs_peer_queries(cloud);
        gcs_peer_break(cloud, cases[i].nth, cases[i].keep, cases[i].fault, cases[i].status);
        ok(put_size("known", LARGE));
        assert_int_equal(gcs_peer_queries(cloud), before + cases[i].queries);
        assert_stored("known", LARGE);
        struct stream s = {.size = LARGE};
        gcs_peer_break(cloud, cases[i].nth, cases[i].keep, cases[i].fault, cases[i].status);
        ok(put_stream("unknown", &s));
        assert_int_equal(gcs_peer_queries(cloud), before + 2 * cases[i].queries);
        assert_stored("unknown", LARGE);
    }
}

static void test_streams(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 100001, PART - 1, PART, PART + 1, 2 * PART};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct stream s = {.size = sizes[i]};
        ok(put_stream("s", &s));
        assert_stored("s", sizes[i]);
    }
    /* A source that fails: its own failure, no second try, nothing stored, no session left. */
    static const uint64_t at[] = {1, PART + PART / 2};
    for (size_t i = 0; i < 2; i++) {
        struct stream s = {.size = LARGE, .fail_at = at[i]};
        assert_fails(put_stream("none", &s), RC_AGAIN, "the source failed");
        assert_int_equal(gcs_peer_sessions(cloud), 0);
    }
    const struct peer_req *last = request(peer_count(gcs_peer_http(cloud)) - 1);
    assert_string_equal(last->method, "DELETE");
    assert_string_equal(peer_header(last, "Content-Length"), "0");
    uint64_t off = 0;
    assert_int_equal(store_get(store, NULL, "none", NULL, check_take, &off, &err), RC_NOT_FOUND);
    /* Damaged on its way, which is found out at the end: it must not stay. */
    gcs_peer_damage(cloud);
    struct stream s = {.size = LARGE};
    assert_fails(put_stream("bad", &s), RC_CORRUPT, "damaged");
    assert_int_equal(store_get(store, NULL, "bad", NULL, check_take, &off, &err), RC_NOT_FOUND);
    assert_fails(put_size("bad", LARGE), RC_INVALID, "MD5");
    assert_int_equal(store_get(store, NULL, "bad", NULL, check_take, &off, &err), RC_NOT_FOUND);
}

/* Loses all sessions when a byte of the body is read for the second time (the first is for the
 * hash).
 */
struct loser {
    unsigned seen;
};

static enum rc losing_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    struct loser *l = ctx;
    bool there = off <= PART + 7 && off + size > PART + 7;
    if (there && ++l->seen == 2) gcs_peer_lose_sessions(cloud);
    return body_read(NULL, off, dst, size, e);
}

static void test_lost_session(void **state)
{
    (void)state;
    struct loser l = {0};
    struct store_body body = {.size = LARGE, .read = losing_read, .ctx = &l};
    ok(store_put(store, NULL, "k", &body, NULL, NULL, &err));
    assert_true(l.seen >= 2);
    assert_stored("k", LARGE);
}

static void test_get_goes_on(void **state)
{
    (void)state;
    static uint8_t data[300000];
    struct peer *http = gcs_peer_http(cloud);
    struct store_obj obj;
    char headers[400];
    uint64_t off = 0;
    ok(body_read(NULL, 0, data, sizeof data, &err));
    struct store_body body = {.size = sizeof data, .read = body_read};
    ok(store_put(store, NULL, "k", &body, NULL, &obj, &err));
    snprintf(headers, sizeof headers, "ETag: \"%s/1\"\r\nx-goog-generation: %s\r\n", obj.etag,
             obj.etag);
    struct peer_resp broken = {.headers = headers,
                               .body = data,
                               .body_size = sizeof data,
                               .fault = PEER_RESET_BODY,
                               .fault_at = 100000};
    peer_forget(http);
    peer_push(http, &broken);
    ok(store_get(store, NULL, "k", NULL, check_take, &off, &err));
    assert_int_equal(off, sizeof data);
    assert_int_equal(peer_count(http), 2);
    assert_null(strstr(request(0)->target, "generation="));
    snprintf(headers, sizeof headers, "&generation=%s", obj.etag);
    assert_non_null(strstr(request(1)->target, headers));

    snprintf(headers, sizeof headers, "x-goog-generation: %s\r\n", obj.etag);
    ok(put_size("k", sizeof data));
    peer_push(http, &broken);
    off = 0;
    assert_fails(store_get(store, NULL, "k", NULL, check_take, &off, &err), RC_CORRUPT, "replaced");
}

/* ---- credentials ---- */

static void write_file(const char *name, const char *text, char path[128])
{
    snprintf(path, 128, "%s/%s", folder, name);
    ok(os_write_file(path, text, strlen(text), 0600, &err));
}

/* A token service: the nth request gets "token-n". */
struct tokens {
    struct peer *http;
    atomic_uint count;
    atomic_int life_s, fail_status;
    int64_t delay_ms;
};

static void tokens_handle(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    struct tokens *t = ctx;
    if (atomic_load(&t->fail_status) != 0) {
        resp->status = atomic_load(&t->fail_status);
        peer_text(resp, "{\"error\":\"invalid_grant\",\"error_description\":\"Bad key.\"}");
        return;
    }
    resp->delay_ms = t->delay_ms;
    if (strcmp(req->target, "/subject") == 0) {
        peer_text(resp, "{\"value\":\"the subject\\n\"}");
        return;
    }
    unsigned n = atomic_fetch_add(&t->count, 1) + 1;
    if (strstr(req->target, ":generateAccessToken") != NULL)
        peer_text(resp, "{\"accessToken\":\"token-%u\",\"expireTime\":\"2099-01-01T00:00:00Z\"}",
                  n);
    else
        peer_text(resp,
                  "{\"access_token\":\"token-%u\",\"token_type\":\"Bearer\",\"expires_in\":%d}", n,
                  atomic_load(&t->life_s));
}

static void tokens_start(struct tokens *t)
{
    *t = (struct tokens){0};
    atomic_store(&t->life_s, 3600);
    t->http = peer_start(tokens_handle, t);
}

static void use_key_file(const struct tokens *t, char path[128])
{
    char uri[100];
    snprintf(uri, sizeof uri, "%s/token", peer_url(t->http));
    json_t *file = json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "service_account", "client_email",
                             "me@project.example", "private_key", key_pem, "private_key_id", "id-7",
                             "token_uri", uri);
    char *text = json_dumps(file, 0);
    write_file("key.json", text, path);
    free(text);
    json_decref(file);
    set_env("GOOGLE_APPLICATION_CREDENTIALS", path);
}

static void get_token(struct gcs_token *t, const char *want)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(gcs_token_get(t, NULL, &b, &err));
    assert_string_equal((char *)b.data, want);
    assert_int_equal(b.size, strlen(want) + 1);
}

static void assert_no_token_in(int64_t ms, enum rc want, const char *text)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct gcs_token *t = NULL;
    struct call c = {.deadline_ms = os_mono_ms() + ms};
    ok(gcs_token_open(&t, &err));
    enum rc rc = gcs_token_get(t, &c, &b, &err);
    /* The last pause may end behind the deadline; its text has the cause all the same. */
    assert_fails(rc == RC_CANCELED && want == RC_AGAIN ? want : rc, want, text);
    assert_null(strstr(err.text, "PRIVATE"));
    gcs_token_close(t);
}

static void assert_no_token(enum rc want, const char *text)
{
    assert_no_token_in(30000, want, text);
}

static void assert_signed(const char *text, size_t size, const uint8_t *signature,
                          size_t signature_size)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(ctx, signature, signature_size, (const uint8_t *)text, size),
                     1);
    EVP_MD_CTX_free(ctx);
}

static json_t *jwt_json(const char *part, size_t size)
{
    char text[1024], json[1024];
    size_t json_size = 0;
    snprintf(text, sizeof text, "%.*s", (int)size, part);
    ok(base64_get(text, (uint8_t *)json, sizeof json, &json_size, &err));
    json_t *out = json_loadb(json, json_size, 0, NULL);
    assert_non_null(out);
    return out;
}

static void assert_member(const json_t *j, const char *name, const char *want)
{
    assert_non_null(json_object_get(j, name));
    assert_string_equal(json_string_value(json_object_get(j, name)), want);
}

static void test_service_account(void **state)
{
    (void)state;
    struct tokens t;
    struct gcs_token *g = NULL;
    char path[128], jwt[2048], uri[100];
    uint8_t signature[512];
    size_t signature_size = 0;
    tokens_start(&t);
    use_key_file(&t, path);
    ok(gcs_token_open(&g, &err));
    get_token(g, "token-1");
    get_token(g, "token-1");
    assert_int_equal(peer_count(t.http), 1);
    const struct peer_req *req = peer_at(t.http, 0);
    assert_string_equal(req->target, "/token");
    static const char start[] =
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    assert_int_equal(strncmp((const char *)req->body, start, sizeof start - 1), 0);
    snprintf(jwt, sizeof jwt, "%s", (const char *)req->body + sizeof start - 1);
    char *claims = strchr(jwt, '.') + 1, *end = strchr(claims, '.');
    ok(base64_get(end + 1, signature, sizeof signature, &signature_size, &err));
    assert_signed(jwt, (size_t)(end - jwt), signature, signature_size);
    json_t *head = jwt_json(jwt, (size_t)(claims - 1 - jwt));
    json_t *body = jwt_json(claims, (size_t)(end - claims));
    assert_member(head, "alg", "RS256");
    assert_member(head, "kid", "id-7");
    assert_member(body, "iss", "me@project.example");
    assert_member(body, "scope", "https://www.googleapis.com/auth/devstorage.read_write");
    snprintf(uri, sizeof uri, "%s/token", peer_url(t.http));
    assert_member(body, "aud", uri);
    json_int_t iat = json_integer_value(json_object_get(body, "iat"));
    assert_in_range(iat, os_now_ms() / 1000 - 60, os_now_ms() / 1000 + 1);
    assert_int_equal(json_integer_value(json_object_get(body, "exp")), iat + 3600);
    json_decref(head);
    json_decref(body);
    gcs_token_expired(g, "some other token");
    get_token(g, "token-1");
    gcs_token_expired(g, "token-1");
    get_token(g, "token-2");
    gcs_token_close(g);
    peer_stop(t.http);
}

static void test_other_kinds(void **state)
{
    (void)state;
    struct tokens t;
    struct gcs_token *g = NULL;
    char path[128], subject[128], text[2000];
    tokens_start(&t);
    snprintf(text, sizeof text,
             "{\"type\":\"authorized_user\",\"client_id\":\"id\",\"client_secret\":\"s&t\","
             "\"refresh_token\":\"1//r\",\"token_uri\":\"%s/refresh\"}",
             peer_url(t.http));
    /* The well-known place. */
    snprintf(path, sizeof path, "%s/.config/gcloud", folder);
    ok(os_mkdirs(path, 0700, &err));
    write_file(".config/gcloud/application_default_credentials.json", text, path);
    ok(gcs_token_open(&g, &err));
    get_token(g, "token-1");
    assert_string_equal((const char *)peer_at(t.http, 0)->body,
                        "grant_type=refresh_token&client_id=id&client_secret=s%26t&"
                        "refresh_token=1%2F%2Fr");
    gcs_token_close(g);
    ok(os_unlink(path, &err));

    write_file("subject", "from a file\n", subject);
    snprintf(text, sizeof text,
             "{\"type\":\"external_account\",\"audience\":\"aud\",\"subject_token_type\":\"jwt\","
             "\"token_url\":\"%s/sts\",\"credential_source\":{\"file\":\"%s\"}}",
             peer_url(t.http), subject);
    write_file("external.json", text, path);
    set_env("GOOGLE_APPLICATION_CREDENTIALS", path);
    ok(gcs_token_open(&g, &err));
    get_token(g, "token-2");
    assert_non_null(strstr((const char *)peer_at(t.http, 1)->body,
                           "subject_token_type=jwt&subject_token=from%20a%20file"));
    gcs_token_close(g);

    snprintf(text, sizeof text,
             "{\"type\":\"external_account\",\"audience\":\"aud\",\"subject_token_type\":\"jwt\","
             "\"token_url\":\"%s/sts\",\"service_account_impersonation_url\":"
             "\"%s/x:generateAccessToken\",\"credential_source\":{\"url\":\"%s/subject\","
             "\"headers\":{\"X-Who\":\"me\"},\"format\":{\"type\":\"json\","
             "\"subject_token_field_name\":\"value\"}}}",
             peer_url(t.http), peer_url(t.http), peer_url(t.http));
    write_file("external2.json", text, path);
    set_env("GOOGLE_APPLICATION_CREDENTIALS", path);
    ok(gcs_token_open(&g, &err));
    get_token(g, "token-4");
    assert_string_equal(peer_header(peer_at(t.http, 2), "X-Who"), "me");
    assert_non_null(strstr((const char *)peer_at(t.http, 3)->body, "subject_token=the%20subject"));
    assert_string_equal(peer_header(peer_at(t.http, 4), "Authorization"), "Bearer token-3");
    gcs_token_close(g);
    peer_stop(t.http);
}

static void test_metadata_server(void **state)
{
    (void)state;
    struct tokens t;
    struct gcs_token *g = NULL;
    tokens_start(&t);
    set_env("GCE_METADATA_HOST", peer_url(t.http) + strlen("http://"));
    ok(gcs_token_open(&g, &err));
    get_token(g, "token-1");
    const struct peer_req *req = peer_at(t.http, 0);
    assert_string_equal(req->method, "GET");
    assert_string_equal(peer_header(req, "Metadata-Flavor"), "Google");
    assert_non_null(
        strstr(req->target, "/computeMetadata/v1/instance/service-accounts/default/token?scopes="));
    gcs_token_close(g);
    atomic_store(&t.fail_status, 404);
    assert_no_token(RC_DENIED, "metadata server: 404");
    peer_stop(t.http);
    assert_no_token_in(1500, RC_AGAIN, "metadata server"); /* it was named, so it must be there */
}

static void test_bad_credentials(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum rc rc;
        const char *message;
    } cases[] = {
        {"", RC_INVALID, "is not JSON"},
        {"-----BEGIN PRIVATE KEY-----", RC_INVALID, "is not JSON: line 1"},
        {"[]", RC_INVALID, "not a JSON object"},
        {"{}", RC_UNSUPPORTED, "of type ''"},
        {"{\"type\":\"gdch_service_account\"}", RC_UNSUPPORTED, "gdch_service_account"},
        {"{\"type\":\"service_account\"}", RC_INVALID, "\"client_email\""},
        {"{\"type\":\"service_account\",\"client_email\":\"e\"}", RC_INVALID, "\"private_key\""},
        {"{\"type\":\"service_account\",\"client_email\":\"e\",\"private_key\":\"PRIVATE\"}",
         RC_INVALID, "private_key of"},
        {"{\"type\":\"authorized_user\",\"client_id\":\"e\"}", RC_INVALID, "\"client_secret\""},
        {"{\"type\":\"authorized_user\",\"client_id\":\"e\",\"client_secret\":\"PRIVATE\","
         "\"refresh_token\":\"PRIVATE\",\"token_uri\":\"http://example.com/\"}",
         RC_INVALID, "in the clear"},
        {"{\"type\":\"external_account\",\"audience\":\"a\",\"subject_token_type\":\"t\","
         "\"credential_source\":{\"environment_id\":\"aws1\",\"url\":\"http://x\"}}",
         RC_UNSUPPORTED, "credential_source"},
    };
    char path[128];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file("bad.json", cases[i].text, path);
        set_env("GOOGLE_APPLICATION_CREDENTIALS", path);
        assert_no_token(cases[i].rc, cases[i].message);
    }
    set_env("GOOGLE_APPLICATION_CREDENTIALS", "/does/not/exist.json");
    assert_no_token(RC_DENIED, "GOOGLE_APPLICATION_CREDENTIALS: ");
    struct tokens t;
    tokens_start(&t);
    use_key_file(&t, path);
    atomic_store(&t.fail_status, 400);
    assert_no_token(RC_DENIED, "invalid_grant Bad key");
    assert_int_equal(peer_count(t.http), 1);
    atomic_store(&t.fail_status, 0);
    static const char *const answers[] = {"", "{}", "{\"access_token\":\"a\\nb\"}",
                                          "{\"access_token\":7}"};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        peer_push(t.http, &(struct peer_resp){.body = answers[i], .body_size = strlen(answers[i])});
        assert_no_token(RC_AGAIN, "no usable token");
    }
    peer_stop(t.http);
}

struct asker {
    struct gcs_token *t;
    const char *want;
    atomic_uint bad;
};

static enum rc ask_one(void *ctx, uint64_t i, struct err *e)
{
    struct asker *a = ctx;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    (void)i;
    TRY(gcs_token_get(a->t, NULL, &b, e));
    if (strcmp((char *)b.data, a->want) != 0) atomic_fetch_add(&a->bad, 1);
    return RC_OK;
}

static void test_one_fetches_for_all(void **state)
{
    (void)state;
    struct tokens t;
    struct asker a = {.want = "token-1"};
    struct gcs_token *second = NULL;
    char path[128];
    tokens_start(&t);
    t.delay_ms = 150;
    use_key_file(&t, path);
    ok(gcs_token_open(&a.t, &err));
    ok(gcs_token_open(&second, &err));
    assert_ptr_equal(a.t, second);
    gcs_token_close(second);
    ok(thr_each(16, 16, ask_one, &a, &err));
    assert_int_equal(atomic_load(&a.bad), 0);
    assert_int_equal(peer_count(t.http), 1);
    /* A failure is everybody's, too. */
    gcs_token_expired(a.t, "token-1");
    atomic_store(&t.fail_status, 403);
    assert_int_equal(thr_each(16, 16, ask_one, &a, &err), RC_DENIED);
    assert_in_range(peer_count(t.http), 2, 17);
    gcs_token_close(a.t);
    peer_stop(t.http);
}

/* Short-lived tokens, so that the renewal's time comes: half of four seconds. */
static void test_renewal(void **state)
{
    (void)state;
    struct tokens t;
    struct asker a = {.want = "token-3"};
    struct gcs_token *b = NULL;
    char path[128];
    tokens_start(&t);
    atomic_store(&t.life_s, 4);
    use_key_file(&t, path);
    ok(gcs_token_open(&a.t, &err));
    get_token(a.t, "token-1");
    set_env("GCE_METADATA_HOST", "another.example"); /* so it is another source */
    ok(gcs_token_open(&b, &err));
    assert_ptr_not_equal(a.t, b);
    get_token(b, "token-2");
    os_sleep_ms(2050);
    /* A renewal that fails is no failure while the old token works. */
    atomic_store(&t.fail_status, 400);
    get_token(b, "token-2");
    get_token(b, "token-2");
    assert_int_equal(peer_count(t.http), 3);
    atomic_store(&t.fail_status, 0);
    gcs_token_close(b);
    /* One goes for the new one, the others do not wait for it. */
    atomic_store(&t.life_s, 3600);
    t.delay_ms = 150;
    ok(thr_each(8, 8, ask_one, &a, &err));
    assert_in_range(atomic_load(&a.bad), 1, 7);
    get_token(a.t, "token-3");
    assert_int_equal(peer_count(t.http), 4);
    gcs_token_close(a.t);
    peer_stop(t.http);
}

/* A store that needs tokens, at an endpoint of its own. */
static struct store *authorized(void)
{
    char url[200];
    struct store *s = NULL;
    snprintf(url, sizeof url, "gs://bucket/root?part-size=512KiB&endpoint=%s", gcs_peer_url(cloud));
    ok(store_open(url, &s, &err));
    return s;
}

static void test_token_refused(void **state)
{
    (void)state;
    struct tokens t;
    char path[128];
    tokens_start(&t);
    use_key_file(&t, path);
    struct store *s = authorized();
    gcs_peer_token(cloud, "token-1");
    ok(put_text(s, "k", "x", NULL, NULL));
    gcs_peer_token(cloud, "token-2"); /* revoked long before its end */
    ok(put_text(s, "k", "y", NULL, NULL));
    struct store_body body = {.size = LARGE, .read = body_read};
    ok(store_put(s, NULL, "big", &body, NULL, NULL, &err));
    assert_int_equal(peer_count(t.http), 2);
    gcs_peer_token(cloud, "another one");
    assert_fails(put_text(s, "k", "z", NULL, NULL), RC_DENIED, "put 'k': 401");
    assert_int_equal(peer_count(t.http), 3);
    assert_null(strstr(err.text, "token-"));
    store_close(s);
    peer_stop(t.http);
}

static void test_presign(void **state)
{
    (void)state;
    struct tokens t;
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    char path[128], text[4096], digest[HEX_SIZE(SHA256_SIZE)], stamp[32];
    uint8_t signature[256], sum[SHA256_SIZE];
    tokens_start(&t);
    use_key_file(&t, path);
    struct store *s = authorized();
    ok(store_presign(s, NULL, "a b/ü+c", true, 600, &link, &err));
    ok(buf_append(&link, "", 1, &err));
    char *url = (char *)link.data, *query = strchr(url, '?') + 1;
    char *sig = strstr(query, "&X-Goog-Signature=");
    const char *host = gcs_peer_url(cloud) + strlen("http://");
    assert_non_null(sig);
    assert_int_equal(strlen(sig + 18), 512);
    for (size_t i = 0; i < sizeof signature; i++) {
        unsigned byte = 0;
        assert_int_equal(sscanf(sig + 18 + 2 * i, "%2x", &byte), 1);
        signature[i] = (uint8_t)byte;
    }
    *sig = '\0';
    static const char want_path[] = "/bucket/root/a%20b/%C3%BC%2Bc?";
    assert_int_equal(strncmp(url + 7 + strlen(host), want_path, sizeof want_path - 1), 0);
    assert_non_null(strstr(query, "X-Goog-Credential=me%40project.example%2F"));
    assert_non_null(strstr(query, "&X-Goog-Expires=600&X-Goog-SignedHeaders=host"));
    snprintf(stamp, sizeof stamp, "%.16s", strstr(query, "X-Goog-Date=") + 12);
    snprintf(text, sizeof text, "PUT\n%.*s\n%s\nhost:%s\n\nhost\nUNSIGNED-PAYLOAD",
             (int)sizeof want_path - 2, want_path, query, host);
    ok(hash_sha256(text, strlen(text), sum, &err));
    hex_put(sum, sizeof sum, digest);
    snprintf(text, sizeof text, "GOOG4-RSA-SHA256\n%s\n%.8s/auto/storage/goog4_request\n%s", stamp,
             stamp, digest);
    assert_signed(text, strlen(text), signature, sizeof signature);
    assert_int_equal(peer_count(t.http), 0); /* no token was needed */
    store_close(s);
    buf_reset(&link);
    assert_int_equal(store_presign(store, NULL, "k", false, 60, &link, &err), RC_UNSUPPORTED);
    set_env("GOOGLE_APPLICATION_CREDENTIALS", NULL);
    s = authorized();
    assert_fails(store_presign(s, NULL, "k", false, 60, &link, &err), RC_UNSUPPORTED, "key file");
    store_close(s);
    peer_stop(t.http);
}

static int make_key(void **state)
{
    (void)state;
    BIO *bio = BIO_new(BIO_s_mem());
    key = EVP_RSA_gen(2048);
    assert_non_null(key);
    assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    int size = BIO_read(bio, key_pem, sizeof key_pem - 1);
    assert_in_range(size, 1000, sizeof key_pem - 1);
    key_pem[size] = '\0';
    BIO_free(bio);
    snprintf(folder, sizeof folder, "/tmp/sluice-gcs-%d", (int)getpid());
    ok(os_mkdirs(folder, 0700, &err));
    return 0;
}

static int drop_key(void **state)
{
    (void)state;
    static const char *const files[] = {"key.json", "bad.json", "subject", "external.json",
                                        "external2.json"};
    static const char *const folders[] = {".config/gcloud", ".config"};
    char path[128];
    EVP_PKEY_free(key);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, folders[i]);
        rmdir(path);
    }
    rmdir(folder);
    assert_int_not_equal(access(folder, F_OK), 0);
    return 0;
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_open),
        CASE(test_conditions),
        CASE(test_metadata),
        CASE(test_list_is_a_seek),
        CASE(test_list_surprises),
        CASE(test_forgetful),
        CASE(test_bad_answers),
        CASE(test_statuses),
        CASE(test_trouble_passes),
        CASE(test_lost_answers),
        CASE(test_broken_chunks),
        CASE(test_streams),
        CASE(test_lost_session),
        CASE(test_get_goes_on),
        CASE(test_service_account),
        CASE(test_other_kinds),
        CASE(test_metadata_server),
        CASE(test_bad_credentials),
        CASE(test_one_fetches_for_all),
        CASE(test_renewal),
        CASE(test_token_refused),
        CASE(test_presign),
    };
    int failed = cmocka_run_group_tests(tests, make_key, drop_key);
    setup(NULL);
    failed += conformance_run(&row);
    teardown(NULL);
    return failed;
}
