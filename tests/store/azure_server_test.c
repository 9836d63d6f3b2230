/* azure_server_test.c -- the suite, and what is special about Azure, on azurite
 * (tests/servers/azure). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/os.h"
#include "fmt/text.h"
#include "store/azure_auth.h"
#include "store/conformance.h"
#include "store/hash.h"
#include "store/server.h"

#define MIB      (1u << 20)
#define PART     (64u << 10) /* of stores with small parts */
#define MANY     2050        /* more than a page of a listing */
#define ok(expr) assert_ok((expr), __LINE__)

static struct server server;
static char endpoint[128], account[64], key[128];
static struct http *http;
static struct azure_auth *auth;
static struct err err;

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static enum rc sign(void *ctx, struct http_req *req, struct err *e)
{
    return azure_auth_sign(ctx, NULL, req, e);
}

/* One request by hand: a container is made or removed, a link is used. */
static int request(const char *method, const char *url, const char *body, bool signed_,
                   struct buf *ret_text)
{
    CLEANUP(http_req_fini) struct http_req req = {.method = method, .url = url, .what = "request"};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    if (signed_) req.sign = sign;
    req.ctx = auth;
    req.judge = NULL;
    if (body != NULL) {
        req.data = body;
        req.data_size = strlen(body);
        ok(http_answer_header(&req, &err, "x-ms-blob-type", "BlockBlob"));
    }
    (void)!http_send(http, NULL, &req, &resp, &err);
    if (ret_text != NULL) ok(buf_append(ret_text, resp.text.data, resp.text.size + 1, &err));
    return resp.status;
}

static void container(const char *method, const char *name, int status)
{
    char url[256];
    snprintf(url, sizeof url, "%s/%s?restype=container", endpoint, name);
    assert_int_equal(request(method, url, NULL, true, NULL), status);
}

static struct store *open_with(const char *url, const char *name, const char *value)
{
    struct store *s = NULL;
    struct store_setting settings[] = {
        {"endpoint", endpoint}, {"account-key", key}, {name ? name : "part-size", value}};
    struct store_conf conf = {
        .url = url, .settings = settings, .setting_count = name != NULL ? 3 : 2};
    if (name != NULL && strcmp(name, "sas-token") == 0) settings[1].value = "";
    if (name != NULL && strcmp(name, "account-key") == 0) settings[1] = settings[2];
    ok(store_open_conf(&conf, &s, &err));
    return s;
}

static struct store *open_plain(const char *url)
{
    return open_with(url, NULL, NULL);
}

static void prepare(unsigned unique, char url[256])
{
    char name[32];
    snprintf(name, sizeof name, "c-%u", unique);
    container("PUT", name, 201);
    snprintf(url, 256, "abs://%s@%s/a%%20root/db", account, name);
}

static void clean(const char *url)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(strchr(url, '@') + 1, "/"),
             strchr(url, '@') + 1);
    container("DELETE", name, 202);
}

/* A body whose byte i is a function of i, of known and of unknown size. */
struct pattern {
    uint64_t size, off;
};

static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)((off * 2654435761u >> 11) + (off >> 16));
}

static enum rc pattern_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = byte_at(off + i);
    return RC_OK;
}

/* In pieces of odd sizes, as a stream has them. */
static enum rc pattern_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct pattern *p = ctx;
    uint64_t left = p->size - p->off;
    if (size > 99991) size = 99991;
    if (size > left) size = (size_t)left;
    (void)!pattern_read(NULL, p->off, dst, size, e);
    p->off += size;
    *ret_size = size;
    return RC_OK;
}

static enum rc pattern_sink(void *ctx, const void *data, size_t size, struct err *e)
{
    struct pattern *p = ctx;
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)data)[i] != byte_at(p->off + i))
            return err_set(e, RC_CORRUPT, "byte %llu differs", (unsigned long long)(p->off + i));
    p->off += size;
    return RC_OK;
}

static enum rc put_sized(struct store *s, const char *name, uint64_t size, bool known,
                         const struct store_put_opts *opts, struct store_obj *ret_obj)
{
    struct pattern p = {.size = size};
    struct store_body body = {.size = size, .read = pattern_read, .ctx = &p};
    if (!known) body = (struct store_body){STORE_SIZE_UNKNOWN, .next = pattern_next, .ctx = &p};
    return store_put(s, NULL, name, &body, opts, ret_obj, &err);
}

static enum rc into_obj(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)e;
    *(struct store_obj *)ctx = *obj;
    return RC_OK;
}

static void assert_sized(struct store *s, const char *name, uint64_t size)
{
    struct pattern p = {0};
    struct store_obj got = {0}, listed = {0};
    struct store_get_opts opts = {.ret_obj = &got};
    ok(store_get(s, NULL, name, &opts, pattern_sink, &p, &err));
    assert_int_equal(p.off, size);
    assert_int_equal(got.size, size);
    ok(store_list(s, NULL, name, NULL, into_obj, &listed, &err));
    assert_string_equal(listed.key, name);
    assert_int_equal(listed.size, size);
    assert_string_equal(listed.etag, got.etag);
    assert_int_equal(listed.mtime_ms, got.mtime_ms);
}

static enum rc put_text(struct store *s, const char *name, const char *text)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, NULL, name, &body, NULL, NULL, &err);
}

static enum rc count_up(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

static uint64_t puts_of(struct store *s)
{
    struct store_stats stats;
    store_stats(s, &stats);
    return stats.requests[STORE_OP_PUT];
}

static void test_block_borders(void **state)
{
    (void)state;
    static const struct {
        uint64_t size, known, unknown; /* bytes, requests that a put needs */
    } cases[] = {{0, 1, 1},        {1, 1, 1},        {PART - 1, 1, 1},     {PART, 1, 2},
                 {PART + 1, 3, 3}, {2 * PART, 3, 3}, {2 * PART + 1, 4, 4}, {7 * PART - 1, 8, 8}};
    char url[256];
    prepare(500, url);
    struct store *s = open_with(url, "part-size", "64KiB");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int known = 0; known < 2; known++) {
            struct store_put_opts opts = {.timestamp_ms = 1700000000123 + (int64_t)i};
            struct store_obj made;
            uint64_t before = puts_of(s);
            ok(put_sized(s, "border/k", cases[i].size, known, &opts, &made));
            assert_int_equal(made.size, cases[i].size);
            assert_int_equal(made.mtime_ms, opts.timestamp_ms);
            assert_int_equal(puts_of(s) - before, known ? cases[i].known : cases[i].unknown);
            assert_sized(s, "border/k", cases[i].size);
        }
    }
    store_close(s);
    clean(url);
}

static void test_large(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {8 * MIB, 8 * MIB + 1, 40 * MIB - 1};
    char url[256];
    prepare(501, url);
    struct store *s = open_plain(url);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int known = 0; known < 2; known++) {
            int64_t from_ms = os_mono_ms();
            ok(put_sized(s, "large", sizes[i], known, NULL, NULL));
            int64_t put_ms = os_mono_ms() - from_ms;
            assert_sized(s, "large", sizes[i]);
            print_message("%llu bytes: put %lld ms, get and compared %lld ms\n",
                          (unsigned long long)sizes[i], (long long)put_ms,
                          (long long)(os_mono_ms() - from_ms - put_ms));
        }
    }
    store_close(s);
    clean(url);
}

/* Conditions, for objects of one request and of several. */
static void test_conditions(void **state)
{
    (void)state;
    char url[256];
    prepare(502, url);
    struct store *s = open_with(url, "part-size", "64KiB");
    for (uint64_t size = 10; size < 3 * PART; size += 2 * PART) {
        struct store_obj first, second, listed;
        struct store_put_opts create = {.if_absent = true};
        ok(put_sized(s, "c", size, true, &create, &first));
        assert_int_equal(put_sized(s, "c", size, true, &create, NULL), RC_CONFLICT);
        assert_int_equal(put_sized(s, "c", size, false, &create, NULL), RC_CONFLICT);
        assert_non_null(strstr(err.text, "BlobAlreadyExists"));
        ok(put_sized(s, "c", size, true, &(struct store_put_opts){.if_etag = first.etag}, &second));
        assert_string_not_equal(first.etag, second.etag);
        struct store_put_opts stale = {.if_etag = first.etag};
        assert_int_equal(put_sized(s, "c", size, true, &stale, NULL), RC_CONFLICT);
        assert_int_equal(put_sized(s, "none", size, true, &stale, NULL), RC_NOT_FOUND);
        ok(store_list(s, NULL, "c", NULL, into_obj, &listed, &err));
        struct store_put_opts fresh = {.if_etag = listed.etag};
        ok(put_sized(s, "c", size, true, &fresh, NULL));
        assert_int_equal(put_sized(s, "c", size, true, &fresh, NULL), RC_CONFLICT);
        assert_sized(s, "c", size);
        ok(store_del(s, NULL, &(const char *){"c"}, 1, &err));
    }
    store_close(s);
    clean(url);
}

/* A service SAS of a container, by hand. */
static void make_sas(const char *name, const char *allowed, int64_t life_s, char out[512])
{
    char expires[TIME_TEXT_SIZE], text[512], sig[BASE64_SIZE(SHA256_SIZE)];
    uint8_t bytes[128], mac[SHA256_SIZE];
    size_t size;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    time_put(os_now_ms() + life_s * 1000, false, expires);
    snprintf(text, sizeof text, "%s\n\n%s\n/blob/%s/%s\n\n\n\n%s\nc\n\n\n\n\n\n\n", allowed,
             expires, account, name, AZURE_VERSION);
    ok(base64_get(key, bytes, sizeof bytes, &size, &err));
    ok(hash_hmac_sha256(bytes, size, text, strlen(text), mac, &err));
    base64_put(mac, sizeof mac, sig);
    ok(uri_append(&b, sig, false, &err));
    snprintf(out, 512, "?sv=%s&sr=c&sp=%s&se=%s&sig=%.*s", AZURE_VERSION, allowed, expires,
             (int)b.size, (char *)b.data);
}

static void test_sas(void **state)
{
    (void)state;
    char url[256], sas[512], byte;
    unsigned count = 0;
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    prepare(503, url);
    make_sas("c-503", "rcwdl", 600, sas);
    struct store *s = open_with(url, "sas-token", sas);
    ok(put_text(s, "a/k", "x"));
    ok(put_sized(s, "a/l", 9 * MIB, true, NULL, NULL));
    assert_sized(s, "a/l", 9 * MIB);
    ok(store_list(s, NULL, "a/", NULL, count_up, &count, &err));
    assert_int_equal(count, 2);
    ok(store_del(s, NULL, &(const char *){"a/l"}, 1, &err));
    assert_int_equal(store_presign(s, NULL, "a/k", false, 60, &link, &err), RC_UNSUPPORTED);
    assert_null(strstr(store_name(s), "sig"));
    store_close(s);

    make_sas("c-503", "r", 600, sas);
    s = open_with(url, "sas-token", sas);
    ok(store_read(s, NULL, "a/k", 0, &byte, 1, &err));
    assert_int_equal(put_text(s, "a/k", "x"), RC_DENIED);
    assert_non_null(strstr(err.text, "sas-token"));
    assert_null(strstr(err.text, strstr(sas, "sig=")));
    store_close(s);

    make_sas("c-503", "rl", -600, sas);
    s = open_with(url, "sas-token", sas);
    assert_int_equal(store_read(s, NULL, "a/k", 0, &byte, 1, &err), RC_DENIED);
    assert_int_equal(store_list(s, NULL, "", NULL, count_up, &count, &err), RC_DENIED);
    store_close(s);
    clean(url);
}

static void assert_all(struct store *s, enum rc rc, const char *advice)
{
    char byte;
    unsigned count = 0;
    assert_int_equal(put_text(s, "a/k", "x"), rc);
    assert_non_null(strstr(err.text, advice));
    assert_int_equal(put_sized(s, "a/k", 9 * MIB, true, NULL, NULL), rc);
    assert_int_equal(store_read(s, NULL, "a/k", 0, &byte, 1, &err), rc);
    assert_int_equal(store_list(s, NULL, "", NULL, count_up, &count, &err), rc);
    assert_int_equal(store_del(s, NULL, &(const char *){"a/k"}, 1, &err), rc);
    assert_non_null(strstr(err.text, advice));
    assert_int_equal(count, 0);
}

static void test_wrong_key(void **state)
{
    (void)state;
    char url[256];
    prepare(504, url);
    static const char wrong[] = "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50";
    struct store *s = open_with(url, "account-key", wrong);
    assert_all(s, RC_DENIED, "credentials");
    assert_null(strstr(err.text, wrong));
    store_close(s);
    clean(url);
}

static void test_no_container(void **state)
{
    (void)state;
    char url[256];
    snprintf(url, sizeof url, "abs://%s@nowhere/x", account);
    struct store *s = open_plain(url);
    assert_all(s, RC_INVALID, "create the container");
    store_close(s);
}

static void test_links(void **state)
{
    (void)state;
    char url[256];
    prepare(505, url);
    struct store *s = open_plain(url);
    CLEANUP(buf_fini) struct buf get = BUF_INIT, put = BUF_INIT, text = BUF_INIT;
    ok(store_presign(s, NULL, "a b/k%+", true, 600, &put, &err));
    ok(store_presign(s, NULL, "a b/k%+", false, 600, &get, &err));
    ok(buf_append(&put, "", 1, &err));
    ok(buf_append(&get, "", 1, &err));
    assert_int_equal(request("PUT", (char *)put.data, "by link", false, NULL), 201);
    assert_int_equal(request("GET", (char *)get.data, NULL, false, &text), 200);
    assert_string_equal((char *)text.data, "by link");
    assert_int_equal(request("PUT", (char *)get.data, "by link", false, NULL), 403);
    assert_int_equal(request("GET", (char *)put.data, NULL, false, NULL), 403);
    char *sig = strstr((char *)get.data, "sig=") + 4;
    *sig = *sig == 'A' ? 'B' : 'A';
    assert_int_equal(request("GET", (char *)get.data, NULL, false, NULL), 403);
    store_close(s);
    clean(url);
}

static void many_key(uint64_t i, char out[32])
{
    snprintf(out, 32, "ltx/0/%06llu", (unsigned long long)i);
}

static enum rc put_one(void *ctx, uint64_t i, struct err *e)
{
    char name[32];
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    many_key(i, name);
    return store_put(ctx, NULL, name, &body, NULL, NULL, e);
}

static enum rc in_order(void *ctx, const struct store_obj *obj, struct err *e)
{
    char name[32];
    many_key((*(unsigned *)ctx)++, name);
    return strcmp(name, obj->key) == 0 ? RC_OK : err_set(e, RC_CORRUPT, "not '%s'", name);
}

/* A listing of several pages, whole and from a key on; and Litestream's mistake with the latter. */
static void test_pages(void **state)
{
    (void)state;
    char url[256], names[MANY][32];
    const char *keys[MANY];
    unsigned count = 0;
    struct store_stats stats;
    prepare(506, url);
    struct store *s = open_plain(url);
    int64_t from_ms = os_mono_ms();
    ok(thr_each(8, MANY, put_one, s, &err));
    int64_t put_ms = os_mono_ms() - from_ms;
    ok(store_list(s, NULL, "ltx/0/", NULL, in_order, &count, &err));
    assert_int_equal(count, MANY);
    store_stats(s, &stats);
    assert_int_equal(stats.requests[STORE_OP_LIST], 2);
    count = 7;
    ok(store_list(s, NULL, "ltx/0/", &(struct store_list_opts){.after = "ltx/0/000006"}, in_order,
                  &count, &err));
    assert_int_equal(count, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        many_key(i, names[i]);
        keys[i] = names[i];
    }
    from_ms = os_mono_ms();
    ok(store_del(s, NULL, keys, MANY, &err));
    print_message("%d objects: put %lld ms, deleted %lld ms\n", MANY, (long long)put_ms,
                  (long long)(os_mono_ms() - from_ms));
    count = 0;
    ok(store_list(s, NULL, "", NULL, count_up, &count, &err));
    assert_int_equal(count, 0);
    store_close(s);
    clean(url);
}

static const struct conformance_row row = {"azurite", prepare, open_plain, clean};

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_borders), cmocka_unit_test(test_large),
        cmocka_unit_test(test_conditions),    cmocka_unit_test(test_sas),
        cmocka_unit_test(test_wrong_key),     cmocka_unit_test(test_no_container),
        cmocka_unit_test(test_links),         cmocka_unit_test(test_pages),
    };
    server_value(&server, "ENDPOINT", endpoint, sizeof endpoint);
    server_value(&server, "ACCOUNT", account, sizeof account);
    server_value(&server, "KEY", key, sizeof key);
    struct http_conf conf = {.service = endpoint};
    struct azure_auth_conf who = {.account = account, .sas = "", .key = key};
    int failed =
        http_open(&conf, &http, &err) != RC_OK || azure_auth_open(&who, &auth, &err) != RC_OK;
    if (failed == 0) failed = conformance_run(&row) + cmocka_run_group_tests(tests, NULL, NULL);
    azure_auth_close(auth);
    http_close(http);
    return failed;
}

int main(void)
{
    return server_test(&server, "azure", run);
}
