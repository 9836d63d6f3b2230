/* s3_server_test.c -- the suite, and trouble, on Ceph's gateway (tests/servers/s3). With
 * S3_ENDPOINT, S3_BUCKET, S3_REGION, S3_ACCESS_KEY and S3_SECRET_KEY in the environment: on that
 * service; what needs power over the server is skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/os.h"
#include "store/conformance.h"
#include "store/hash.h"
#include "store/s3_intern.h"
#include "store/server.h"
#include "store/xml.h"

#define PART      (5u << 20)
#define PAGE_KEYS 1005
#define RACERS    16

static struct server server;
static char endpoint[256], region[64], access_key[128], secret_key[256], bucket[128];
static struct err err;
static bool ours; /* the server was started here */

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static bool from_environment(void)
{
    const char *e = getenv("S3_ENDPOINT"), *b = getenv("S3_BUCKET"), *r = getenv("S3_REGION");
    const char *a = getenv("S3_ACCESS_KEY"), *s = getenv("S3_SECRET_KEY");
    if (e == NULL || b == NULL || a == NULL || s == NULL) return false;
    snprintf(endpoint, sizeof endpoint, "%s", e);
    snprintf(bucket, sizeof bucket, "%s", b);
    snprintf(region, sizeof region, "%s", r ? r : "us-east-1");
    snprintf(access_key, sizeof access_key, "%s", a);
    snprintf(secret_key, sizeof secret_key, "%s", s);
    return true;
}

/* With one more setting; secret NULL: the right one. */
static struct store *open_with(const char *url, const char *secret, const char *key,
                               const char *value)
{
    struct store *s = NULL;
    const struct store_setting settings[] = {{"endpoint", endpoint},
                                             {"region", region},
                                             {"access-key-id", access_key},
                                             {"secret-access-key", secret ? secret : secret_key},
                                             {key, value}};
    const struct store_conf conf = {.url = url, .settings = settings, .setting_count = key ? 5 : 4};
    ok(store_open_conf(&conf, &s, &err));
    return s;
}

static struct store *open_right(const char *url)
{
    return open_with(url, NULL, NULL, NULL);
}

static struct store *open_unsigned(const char *url)
{
    return open_with(url, NULL, "sign-payload", "false");
}

static void prepare(unsigned unique, char url[256])
{
    snprintf(url, 256, "s3://%s/run-%d/%u/a root+", bucket, (int)getpid(), unique);
}

/* "bucket.localhost:port" names this machine, too. */
static struct store *open_by_host(const char *url)
{
    char saved[sizeof endpoint];
    if (strncmp(endpoint, "http://127.0.0.1:", 17) != 0) return NULL;
    memcpy(saved, endpoint, sizeof saved);
    snprintf(endpoint, sizeof endpoint, "http://localhost:%s", saved + 17);
    struct store *s = open_with(url, NULL, "force-path-style", "false");
    memcpy(endpoint, saved, sizeof saved);
    return s;
}

struct keys {
    struct store *s;
    unsigned count, tmp;
    char last[STORE_KEY_MAX + 1];
};

static enum rc delete_it(void *ctx, const struct store_obj *obj, struct err *e)
{
    struct keys *k = ctx;
    k->tmp += strstr(obj->key, STORE_TMP_PREFIX) != NULL;
    return k->s->ops->del(k->s, NULL, obj->key, e);
}

static enum rc count_it(void *ctx, const struct store_obj *obj, struct err *e)
{
    struct keys *k = ctx;
    (void)e;
    assert_true(strcmp(obj->key, k->last) > 0);
    memcpy(k->last, obj->key, sizeof k->last);
    k->count++;
    return RC_OK;
}

/* Does an upload in parts below this store's root hang about? */
static bool uploads_left(struct store *st)
{
    struct s3 *s = (struct s3 *)st;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s, .method = "GET", .query = "uploads", .verb = "list uploads"};
    CLEANUP(buf_fini) struct buf query = BUF_INIT;
    char key[64];
    r.http.op = STORE_OP_LIST;
    ok(buf_printf(&query, &err, "uploads&prefix="));
    ok(uri_append(&query, s->conf.root, false, &err));
    r.query = (char *)query.data;
    ok(s3_send(&r, &resp, &err));
    return xml_find(resp.text.data, resp.text.size, "ListMultipartUploadsResult/Upload/Key", key,
                    sizeof key);
}

static void clean(const char *url)
{
    struct keys k = {.s = open_right(url)};
    static const struct store_list_opts all = {.after = ""};
    /* The driver's own listing: with temporary objects. */
    ok(k.s->ops->list(k.s, NULL, "", &all, delete_it, &k, &err));
    assert_int_equal(k.tmp, 0);
    assert_false(uploads_left(k.s));
    store_close(k.s);
}

static enum rc put_text(struct store *s, const struct call *c, const char *key, const char *text,
                        const struct store_put_opts *opts, struct store_obj *ret)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, c, key, &body, opts, ret, &err);
}

static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)((off * 2654435761u) >> 11);
}

struct stream {
    uint64_t off, size;
    enum rc rc; /* what the end of the stream says */
};

static enum rc body_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = byte_at(off + i);
    return RC_OK;
}

/* Odd pieces, so that parts and pieces do not end together. */
static enum rc body_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct stream *st = ctx;
    if (size > 100003) size = 100003;
    if (size > st->size - st->off) size = (size_t)(st->size - st->off);
    if (size == 0 && st->rc != RC_OK) return err_set(e, st->rc, "the stream broke");
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = byte_at(st->off + i);
    st->off += size;
    *ret_size = size;
    return RC_OK;
}

static enum rc check_bytes(void *ctx, const void *data, size_t size, struct err *e)
{
    uint64_t *off = ctx;
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++)
        if (p[i] != byte_at(*off + i))
            return err_set(e, RC_CORRUPT, "byte %llu is wrong", (unsigned long long)(*off + i));
    *off += size;
    return RC_OK;
}

static void assert_bytes(struct store *s, const char *key, uint64_t size)
{
    uint64_t off = 0;
    struct store_obj obj = {0};
    ok(store_get(s, NULL, key, &(struct store_get_opts){.ret_obj = &obj}, check_bytes, &off, &err));
    assert_int_equal(off, size);
    assert_int_equal(obj.size, size);
    assert_string_not_equal(obj.etag, "");
}

static void part_sizes(struct store *(*open)(const char *), unsigned unique)
{
    static const uint64_t sizes[] = {0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 7};
    char url[256];
    prepare(unique, url);
    struct store *s = open(url);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct store_obj obj = {0};
        struct store_body known = {.size = sizes[i], .read = body_read};
        struct stream st = {.size = sizes[i]};
        struct store_body stream = {.size = STORE_SIZE_UNKNOWN, .next = body_next, .ctx = &st};
        struct store_put_opts opts = {.timestamp_ms = 1767323045678};
        ok(store_put(s, NULL, "known", &known, &opts, &obj, &err));
        assert_int_equal(obj.size, sizes[i]);
        assert_bytes(s, "known", sizes[i]);
        ok(store_put(s, NULL, "stream", &stream, &opts, &obj, &err));
        assert_int_equal(obj.size, sizes[i]);
        assert_bytes(s, "stream", sizes[i]);
        ok(store_get(s, NULL, "stream", &(struct store_get_opts){.size = 1, .ret_obj = &obj},
                     check_bytes, &(uint64_t){0}, &err));
        assert_int_equal(obj.mtime_ms, sizes[i] > 0 ? 1767323045678 : obj.mtime_ms);
    }
    store_close(s);
    clean(url);
}

static void test_part_sizes(void **state)
{
    (void)state;
    part_sizes(open_right, 900);
}

static void test_part_sizes_unsigned(void **state)
{
    (void)state;
    part_sizes(open_unsigned, 901);
}

/* A stream that breaks after three parts leaves neither object nor parts. */
static void test_broken_stream(void **state)
{
    (void)state;
    char url[256];
    prepare(902, url);
    struct store *s = open_right(url);
    atomic_bool cancel = false;
    struct call c = {.cancel = &cancel};
    struct stream st = {.size = 3 * PART + 5, .rc = RC_CORRUPT};
    struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = body_next, .ctx = &st};
    struct keys k = {0};
    assert_int_equal(store_put(s, &c, "k", &body, NULL, NULL, &err), RC_CORRUPT);
    assert_false(uploads_left(s));
    ok(store_list(s, NULL, "", NULL, count_it, &k, &err));
    assert_int_equal(k.count, 0);
    store_close(s);
    clean(url);
}

static void test_if_etag(void **state)
{
    (void)state;
    char url[256];
    struct store_obj first, second, third;
    prepare(903, url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "head", "one", NULL, &first));
    assert_int_equal(
        put_text(s, NULL, "none", "x", &(struct store_put_opts){.if_etag = first.etag}, NULL),
        RC_NOT_FOUND);
    ok(put_text(s, NULL, "head", "two", &(struct store_put_opts){.if_etag = first.etag}, &second));
    assert_string_not_equal(first.etag, second.etag);
    assert_int_equal(
        put_text(s, NULL, "head", "three", &(struct store_put_opts){.if_etag = first.etag}, NULL),
        RC_CONFLICT);
    assert_int_equal(
        put_text(s, NULL, "none", "x", &(struct store_put_opts){.if_etag = first.etag}, NULL),
        RC_NOT_FOUND);
    ok(put_text(s, NULL, "head", "3", &(struct store_put_opts){.if_etag = second.etag}, &third));
    struct store_obj listed = {0};
    ok(store_get(s, NULL, "head", &(struct store_get_opts){.ret_obj = &listed, .size = 1},
                 check_bytes, &(uint64_t){0}, &err) == RC_CORRUPT
           ? RC_OK
           : RC_CORRUPT);
    assert_string_equal(listed.etag, third.etag);
    store_close(s);
    clean(url);
}

struct racer {
    struct store *s;
    pthread_barrier_t *start;
    const char *etag;
    char text[16];
    enum rc rc;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct err mine;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, r->text, strlen(r->text));
    struct store_put_opts opts = {.if_etag = r->etag};
    pthread_barrier_wait(r->start);
    r->rc = store_put(r->s, NULL, "head", &body, &opts, NULL, &mine);
    return NULL;
}

static enum rc into_text(void *ctx, const void *data, size_t size, struct err *e)
{
    char *text = ctx;
    size_t used = strlen(text);
    if (used + size > 63) return err_set(e, RC_TOO_BIG, "too long");
    memcpy(text + used, data, size);
    return RC_OK;
}

/* One of many replaces a version; who is told that it did, did. */
static void test_if_etag_race(void **state)
{
    (void)state;
    char url[256];
    prepare(904, url);
    struct store *s = open_right(url);
    for (int round = 0; round < 4; round++) {
        struct racer racers[RACERS];
        pthread_t threads[RACERS];
        pthread_barrier_t start;
        struct store_obj head;
        char text[64] = "", first[16];
        int winner = -1;
        snprintf(first, sizeof first, "first %d", round);
        ok(put_text(s, NULL, "head", first, NULL, &head));
        pthread_barrier_init(&start, NULL, RACERS);
        for (int i = 0; i < RACERS; i++) {
            racers[i] = (struct racer){.s = s, .start = &start, .etag = head.etag};
            snprintf(racers[i].text, sizeof racers[i].text, "racer %d %d", round, i);
            ok(thr_start(&threads[i], "racer", race, &racers[i], &err));
        }
        for (int i = 0; i < RACERS; i++) {
            pthread_join(threads[i], NULL);
            if (racers[i].rc == RC_CONFLICT || racers[i].rc == RC_AGAIN) continue;
            assert_int_equal(racers[i].rc, RC_OK);
            assert_int_equal(winner, -1);
            winner = i;
        }
        pthread_barrier_destroy(&start);
        ok(store_get(s, NULL, "head", NULL, into_text, text, &err));
        if (winner >= 0) assert_string_equal(text, racers[winner].text);
    }
    store_close(s);
    clean(url);
}

/* Conditions on what is too large for one request, also where a completion ignores them. */
static void test_large_conditions(void **state)
{
    (void)state;
    char url[256];
    struct store_obj first = {0}, second = {0};
    prepare(905, url);
    struct store *s = open_with(url, NULL, "concurrency", "2");
    struct store_body body = {.size = 3 * PART, .read = body_read};
    struct store_put_opts create = {.if_absent = true};
    ok(store_put(s, NULL, "k", &body, &create, &first, &err));
    assert_int_equal(store_put(s, NULL, "k", &body, &create, NULL, &err), RC_CONFLICT);
    body.size = 3 * PART + 1;
    struct store_put_opts replace = {.if_etag = first.etag};
    ok(store_put(s, NULL, "k", &body, &replace, &second, &err));
    assert_int_equal(store_put(s, NULL, "k", &body, &replace, NULL, &err), RC_CONFLICT);
    assert_int_equal(store_put(s, NULL, "j", &body, &replace, NULL, &err), RC_NOT_FOUND);
    assert_bytes(s, "k", 3 * PART + 1);
    store_close(s);
    clean(url);
}

static enum rc plain(const char *method, const char *url, const char *text, struct http_resp *resp)
{
    struct http *h = NULL;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text ? text : "", text ? strlen(text) : 0);
    CLEANUP(http_req_fini)
    struct http_req req = {.method = method, .url = url, .what = "plain", .idempotent = true};
    if (text != NULL) {
        req.body = &body;
        req.body_size = body.size;
    }
    ok(http_open(&(struct http_conf){.service = endpoint}, &h, &err));
    enum rc rc = http_send(h, NULL, &req, resp, &err);
    http_close(h);
    return rc;
}

static void test_links(void **state)
{
    (void)state;
    char url[256];
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    prepare(906, url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "a b/ü+&=", "linked", NULL, NULL));
    ok(store_presign(s, NULL, "a b/ü+&=", false, 60, &link, &err));
    ok(buf_append(&link, "", 1, &err));
    assert_null(strstr((char *)link.data, secret_key));
    ok(plain("GET", (char *)link.data, NULL, &resp));
    assert_string_equal((char *)resp.text.data, "linked");
    http_resp_fini(&resp);
    assert_int_equal(plain("PUT", (char *)link.data, "no", &resp), RC_DENIED);
    buf_reset(&link);
    ok(store_presign(s, NULL, "written", true, 60, &link, &err));
    ok(buf_append(&link, "", 1, &err));
    ok(plain("PUT", (char *)link.data, "by a link", &resp));
    char text[64] = "";
    ok(store_get(s, NULL, "written", NULL, into_text, text, &err));
    assert_string_equal(text, "by a link");
    link.data[link.size - 2] ^= 1;
    assert_int_equal(plain("GET", (char *)link.data, NULL, &resp), RC_DENIED);
    assert_int_equal(store_presign(s, NULL, "k", true, 604801, &link, &err), RC_INVALID);
    store_close(s);
    clean(url);
}

/* Litestream's odd roots: "s3://bucket" is ".", "s3://bucket/" is "". */
static void test_odd_roots(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        char url[256], key[64];
        struct keys k = {0};
        snprintf(url, sizeof url, "s3://%s%s", bucket, i ? "/" : "");
        snprintf(key, sizeof key, "root-%d/0000/x", (int)getpid());
        struct store *s = open_right(url);
        assert_string_equal(store_name(s), url);
        ok(put_text(s, NULL, key, "x", NULL, NULL));
        ok(store_list(s, NULL, "root-", NULL, count_it, &k, &err));
        assert_int_equal(k.count, 1);
        assert_string_equal(k.last, key);
        ok(store_del(s, NULL, &(const char *){key}, 1, &err));
        store_close(s);
    }
}

static void test_bucket_in_host(void **state)
{
    (void)state;
    char url[256], text[64] = "";
    struct keys k = {0};
    prepare(914, url);
    struct store *s = open_by_host(url), *other = open_right(url);
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    if (s == NULL || !ours) skip();
    ok(put_text(s, NULL, "a b", "by host", NULL, NULL));
    ok(store_get(other, NULL, "a b", NULL, into_text, text, &err));
    assert_string_equal(text, "by host");
    ok(store_list(s, NULL, "a", NULL, count_it, &k, &err));
    assert_int_equal(k.count, 1);
    ok(store_presign(s, NULL, "a b", false, 60, &link, &err));
    ok(buf_append(&link, "", 1, &err));
    assert_int_equal(strncmp((char *)link.data, "http://sluice-test.localhost:", 29), 0);
    ok(plain("GET", (char *)link.data, NULL, &resp));
    assert_string_equal((char *)resp.text.data, "by host");
    ok(store_del(s, NULL, (const char *[]){"a b", "none"}, 2, &err));
    store_close(other);
    store_close(s);
    clean(url);
}

static enum rc put_nth(void *ctx, uint64_t i, struct err *e)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    char key[32];
    snprintf(key, sizeof key, "k&<%04llu>\"", (unsigned long long)i);
    return store_put(ctx, NULL, key, &body, NULL, NULL, e);
}

/* More than a page to list, more than a request to delete. */
static void test_pages(void **state)
{
    (void)state;
    static char keys[PAGE_KEYS + 1][32];
    static const char *all[PAGE_KEYS + 1];
    char url[256];
    struct keys k = {0};
    struct store_stats before, after;
    prepare(907, url);
    struct store *s = open_right(url);
    ok(thr_each(8, PAGE_KEYS, put_nth, s, &err));
    store_stats(s, &before);
    ok(store_list(s, NULL, "", NULL, count_it, &k, &err));
    store_stats(s, &after);
    assert_int_equal(k.count, PAGE_KEYS);
    assert_int_equal(after.requests[STORE_OP_LIST] - before.requests[STORE_OP_LIST], 2);
    k = (struct keys){0};
    ok(store_list(s, NULL, "k", &(struct store_list_opts){.after = "k&<0999>\"", .count_max = 3},
                  count_it, &k, &err));
    assert_int_equal(k.count, 3);
    assert_string_equal(k.last, "k&<1002>\"");
    for (int i = 0; i <= PAGE_KEYS; i++) { /* the last one does not exist */
        snprintf(keys[i], sizeof keys[i], "k&<%04d>\"", i);
        all[i] = keys[i];
    }
    store_stats(s, &before);
    ok(store_del(s, NULL, all, PAGE_KEYS + 1, &err));
    store_stats(s, &after);
    assert_int_equal(after.requests[STORE_OP_DEL] - before.requests[STORE_OP_DEL], 2);
    k = (struct keys){0};
    ok(store_list(s, NULL, "", NULL, count_it, &k, &err));
    assert_int_equal(k.count, 0);
    store_close(s);
    clean(url);
}

static void test_refusals(void **state)
{
    (void)state;
    char url[256], byte;
    prepare(908, url);
    struct store *s = open_with(url, "NotTheSecret", NULL, NULL);
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_DENIED);
    assert_non_null(strstr(err.text, "check the secret key"));
    assert_null(strstr(err.text, "NotTheSecret"));
    store_close(s);
    s = open_right("s3://no-such-bucket-anywhere/root");
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "bucket 'no-such-bucket-anywhere' does not exist"));
    assert_int_equal(put_text(s, NULL, "k", "x", NULL, NULL), RC_INVALID);
    assert_int_equal(store_list(s, NULL, "", NULL, count_it, NULL, &err), RC_INVALID);
    store_close(s);
}

/* An hour off: the service refuses once, and is believed. */
static void test_clock(void **state)
{
    (void)state;
    char url[256];
    prepare(909, url);
    struct store *s = open_right(url);
    atomic_store(&((struct s3 *)s)->skew_ms, 3600000);
    ok(put_text(s, NULL, "k", "x", NULL, NULL));
    int64_t skew_ms = atomic_load(&((struct s3 *)s)->skew_ms);
    assert_in_range(skew_ms + 10000, 0, 20000);
    store_close(s);
    clean(url);
}

static void test_customer_key(void **state)
{
    (void)state;
    char url[256], byte;
    struct err ignored;
    if (!ours) skip();
    prepare(910, url);
    assert_int_equal(server_run(&server, "set", "rgw_crypt_require_ssl false"), 0);
    struct store *bare = open_right(url);
    struct store *s =
        open_with(url, NULL, "sse-customer-key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    struct store_body body = {.size = 2 * PART + 3, .read = body_read};
    ok(store_put(s, NULL, "k", &body, NULL, NULL, &err));
    assert_bytes(s, "k", 2 * PART + 3);
    assert_int_not_equal(store_read(bare, NULL, "k", 0, &byte, 1, &ignored), RC_OK);
    ok(put_text(s, NULL, "small", "x", NULL, NULL));
    ok(store_read(s, NULL, "small", 0, &byte, 1, &err));
    assert_int_equal(byte, 'x');
    assert_int_not_equal(store_read(bare, NULL, "small", 0, &byte, 1, &ignored), RC_OK);
    store_close(bare);
    store_close(s);
    clean(url);
}

static void test_suspended(void **state)
{
    (void)state;
    char url[256], byte;
    if (!ours) skip();
    prepare(911, url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "k", "x", NULL, NULL));
    assert_int_equal(server_run(&server, "user", "suspend"), 0);
    int64_t end_ms = os_mono_ms() + 20000; /* the gateway keeps users in a cache */
    enum rc rc = RC_OK;
    while (rc == RC_OK && os_mono_ms() < end_ms) {
        rc = put_text(s, NULL, "k", "y", NULL, NULL);
        if (rc == RC_OK) os_sleep_ms(100);
    }
    assert_int_equal(rc, RC_DENIED);
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_DENIED);
    assert_int_equal(server_run(&server, "user", "enable"), 0);
    end_ms = os_mono_ms() + 20000;
    while ((rc = put_text(s, NULL, "k", "z", NULL, NULL)) != RC_OK && os_mono_ms() < end_ms)
        os_sleep_ms(100);
    ok(rc);
    store_close(s);
    clean(url);
}

static void test_pause(void **state)
{
    (void)state;
    char url[256], byte;
    if (!ours) skip();
    prepare(912, url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "k", "x", NULL, NULL));
    assert_int_equal(server_run(&server, "pause", ""), 0);
    int64_t begin_ms = os_mono_ms();
    struct call c = {.deadline_ms = begin_ms + 700};
    enum rc rc = put_text(s, &c, "k", "y", NULL, NULL);
    int64_t took_ms = os_mono_ms() - begin_ms;
    assert_int_equal(server_run(&server, "resume", ""), 0);
    assert_true(rc == RC_CANCELED || rc == RC_AGAIN);
    assert_in_range(took_ms, 500, 1500);
    ok(store_read(s, NULL, "k", 0, &byte, 1, &err));
    assert_true(byte == 'x' || byte == 'y');
    store_close(s);
    clean(url);
}

/* What was acknowledged before a crash is there after it. */
static void test_kill(void **state)
{
    (void)state;
    char url[256], key[32], byte;
    if (!ours) skip();
    prepare(913, url);
    struct store *s = open_right(url);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 20; i++) {
            snprintf(key, sizeof key, "%d-%d", round, i);
            ok(put_text(s, NULL, key, "x", &(struct store_put_opts){.if_absent = true}, NULL));
        }
        assert_int_equal(server_run(&server, "kill", ""), 0);
        struct call c = {.deadline_ms = os_mono_ms() + 1000};
        enum rc rc = put_text(s, &c, "down", "x", NULL, NULL);
        assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
        assert_int_equal(server_run(&server, "start", ""), 0);
        for (int i = 0; i < 20; i++) {
            snprintf(key, sizeof key, "%d-%d", round, i);
            ok(store_read(s, NULL, key, 0, &byte, 1, &err));
        }
    }
    store_close(s);
    clean(url);
}

static int run(void)
{
    static const struct conformance_row row = {
        .name = "s3", .prepare = prepare, .open = open_right, .clean = clean};
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part_sizes),     cmocka_unit_test(test_part_sizes_unsigned),
        cmocka_unit_test(test_broken_stream),  cmocka_unit_test(test_if_etag),
        cmocka_unit_test(test_if_etag_race),   cmocka_unit_test(test_large_conditions),
        cmocka_unit_test(test_links),          cmocka_unit_test(test_odd_roots),
        cmocka_unit_test(test_bucket_in_host), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_clock),
        cmocka_unit_test(test_customer_key),   cmocka_unit_test(test_suspended),
        cmocka_unit_test(test_pause),          cmocka_unit_test(test_kill),
    };
    return conformance_run(&row) + cmocka_run_group_tests_name("s3 server", tests, NULL, NULL);
}

static int run_ours(void)
{
    ours = true;
    server_value(&server, "S3_ENDPOINT", endpoint, sizeof endpoint);
    server_value(&server, "S3_REGION", region, sizeof region);
    server_value(&server, "S3_ACCESS_KEY", access_key, sizeof access_key);
    server_value(&server, "S3_SECRET_KEY", secret_key, sizeof secret_key);
    server_value(&server, "S3_BUCKET", bucket, sizeof bucket);
    return run();
}

int main(void)
{
    if (from_environment()) return run() == 0 ? 0 : 1;
    return server_test(&server, "s3", run_ours);
}
