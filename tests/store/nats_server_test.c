/* nats_server_test.c -- the suite, and trouble, on a NATS server (tests/servers/nats). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <nats/nats.h>
#include "base/buf.h"
#include "base/mem.h"
#include "store/password_server.h"

/* A connection of the tests' own, to make buckets and to look behind the driver. */
struct eye {
    natsConnection *nc;
    jsCtx *js;
};

static struct eye eye_open(void)
{
    struct eye e = {0};
    natsOptions *opts = NULL;
    assert_int_equal(natsOptions_Create(&opts), NATS_OK);
    assert_int_equal(natsOptions_SetURL(opts, server_url), NATS_OK);
    assert_int_equal(natsOptions_SetUserInfo(opts, user, password), NATS_OK);
    assert_int_equal(natsConnection_Connect(&e.nc, opts), NATS_OK);
    assert_int_equal(natsConnection_JetStream(&e.js, e.nc, NULL), NATS_OK);
    natsOptions_Destroy(opts);
    return e;
}

static void eye_close(struct eye *e)
{
    jsCtx_Destroy(e->js);
    natsConnection_Destroy(e->nc);
}

/* As "nats object add" makes it. */
static void bucket_make(const char *bucket, bool direct)
{
    char name[64], chunks[64], metas[64];
    const char *subjects[] = {chunks, metas};
    jsStreamConfig config;
    jsErrCode code = 0;
    struct eye e = eye_open();
    snprintf(name, sizeof name, "OBJ_%s", bucket);
    snprintf(chunks, sizeof chunks, "$O.%s.C.>", bucket);
    snprintf(metas, sizeof metas, "$O.%s.M.>", bucket);
    jsStreamConfig_Init(&config);
    config.Name = name;
    config.Subjects = subjects;
    config.SubjectsLen = 2;
    config.AllowRollup = true;
    config.AllowDirect = direct;
    config.Discard = js_DiscardNew;
    assert_int_equal(js_AddStream(NULL, e.js, &config, NULL, &code), NATS_OK);
    eye_close(&e);
}

static void prepare(unsigned unique, char url[256])
{
    char bucket[32];
    snprintf(bucket, sizeof bucket, "b-%u", unique);
    bucket_make(bucket, unique % 5 != 0);
    snprintf(url, 256, "%s/%s", server_url, bucket);
}

static struct store *open_as(const char *url, const char *name, const char *secret)
{
    struct store *s = NULL;
    const struct store_setting settings[] = {{"username", name}, {"password", secret}};
    const struct store_conf conf = {.url = url, .settings = settings, .setting_count = 2};
    ok(store_open_conf(&conf, &s, &err));
    return s;
}

static enum rc add_chunks(void *ctx, const struct store_obj *obj, struct err *e)
{
    uint64_t *count = ctx;
    (void)e;
    count[0]++;
    count[1] += (obj->size + (128u << 10) - 1) / (128u << 10);
    return RC_OK;
}

/* One message for each object, and one for each of its chunks. */
static void assert_tidy(const char *url)
{
    uint64_t count[2] = {0};
    char stream[64];
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    struct eye e = eye_open();
    struct store *s = open_right(url);
    ok(store_list(s, NULL, "", NULL, add_chunks, count, &err));
    store_close(s);
    snprintf(stream, sizeof stream, "OBJ_%s", strrchr(url, '/') + 1);
    assert_int_equal(js_GetStreamInfo(&info, e.js, stream, NULL, &code), NATS_OK);
    assert_int_equal(info->State.Msgs, count[0] + count[1]);
    jsStreamInfo_Destroy(info);
    eye_close(&e);
}

static void clean(const char *url)
{
    char stream[64];
    jsErrCode code = 0;
    assert_tidy(url);
    struct eye e = eye_open();
    snprintf(stream, sizeof stream, "OBJ_%s", strrchr(url, '/') + 1);
    assert_int_equal(js_DeleteStream(e.js, stream, NULL, &code), NATS_OK);
    eye_close(&e);
}

static void test_wrong_password(void **state)
{
    (void)state;
    char url[256];
    prepare(901, url);
    assert_wrong_password(url);
    clean(url);
}

static void test_missing_bucket(void **state)
{
    (void)state;
    char url[256];
    snprintf(url, sizeof url, "%s/nowhere", server_url);
    struct store *s = open_right(url);
    assert_int_equal(put_text(s, NULL, "a/k", "x"), RC_INVALID);
    assert_non_null(strstr(err.text, "nats object add nowhere"));
    store_close(s);
}

static void test_password_in_url(void **state)
{
    (void)state;
    char url[512], plain[256];
    struct store *s = NULL;
    prepare(902, plain);
    snprintf(url, sizeof url, "nats://%s:a%%3Ab%%2Fc%%40d%%20e@%s", user,
             plain + strlen("nats://"));
    ok(store_open(url, &s, &err));
    assert_string_equal(store_name(s), plain);
    ok(put_text(s, NULL, "k", "x"));
    store_close(s);
    clean(plain);
}

/* The key that the server knows, as text and in a file. */
static void test_nkey(void **state)
{
    (void)state;
    static const char seed[] = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    char url[256], path[128];
    prepare(908, url);
    snprintf(path, sizeof path, "%s/seed", server.dir);
    ok(os_write_file(path, seed, sizeof seed - 1, 0600, &err));
    for (int i = 0; i < 2; i++) {
        struct store *s = NULL;
        const struct store_setting setting = {"nkey", i ? path : seed};
        const struct store_conf conf = {.url = url, .settings = &setting, .setting_count = 1};
        ok(store_open_conf(&conf, &s, &err));
        ok(put_text(s, NULL, "k", "x"));
        store_close(s);
    }
    clean(url);
}

static enum rc fill_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = (uint8_t)((off + i) * 7 + *(unsigned *)ctx);
    return RC_OK;
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    for (unsigned i = 0; i < WRITER_COUNT && w->rc == RC_OK; i++) {
        char key[32];
        struct store_body body = {.size = 300000 * (i % 4) + 1, .read = fill_read, .ctx = &i};
        snprintf(key, sizeof key, "d%u/k%u", i % 3, i);
        const struct store_put_opts create = {.if_absent = true};
        w->rc = store_put(w->s, NULL, key, &body, &create, NULL, &w->err);
        for (int n = 0; w->rc == RC_AGAIN && n < 5; n++) {
            w->rc = store_put(w->s, NULL, key, &body, &create, NULL, &w->err);
            if (w->rc == RC_CONFLICT) w->rc = RC_OK; /* the one before did it */
        }
        atomic_store(&w->done, i + 1);
    }
    return NULL;
}

/* The server dies and comes back while a writer works: creates whose answers are lost still
 * succeed, and succeed once. */
static void test_restart(void **state)
{
    (void)state;
    char url[256];
    prepare(903, url);
    struct writer w = {.s = open_right(url)};
    assert_restarts(&w, writer_main);
    for (unsigned i = 0; i < WRITER_COUNT; i++) {
        char key[32];
        uint8_t byte;
        uint64_t last = 300000 * (i % 4);
        snprintf(key, sizeof key, "d%u/k%u", i % 3, i);
        ok(store_read(w.s, NULL, key, last, &byte, 1, &err));
        assert_int_equal(byte, (uint8_t)(last * 7 + i));
    }
    store_close(w.s);
}

static void meta_put(const char *bucket, const char *subject, const char *json)
{
    char full[256];
    jsErrCode code = 0;
    struct eye e = eye_open();
    snprintf(full, sizeof full, "$O.%s.%s", bucket, subject);
    assert_int_equal(js_Publish(NULL, e.js, full, json, (int)strlen(json), NULL, &code), NATS_OK);
    eye_close(&e);
}

/* Objects as other clients write them, good and bad. */
static void test_foreign_objects(void **state)
{
    (void)state;
    char url[256], got[5];
    struct store_obj obj;
    unsigned count = 0;
    prepare(906, url);
    struct store *s = open_right(url);
    meta_put("b-906", "C.abc", "hel");
    meta_put("b-906", "C.abc", "lo");
    /* Litestream's form; "k" is aw==, the digest is of "hello". */
    meta_put(
        "b-906", "M.aw==",
        "{\"name\":\"k\",\"headers\":{\"Litestream-Timestamp\":[\"2026-01-02T03:04:05.678Z\"]},"
        "\"options\":{\"max_chunk_size\":3},\"bucket\":\"b-906\",\"nuid\":\"abc\",\"size\":5,"
        "\"mtime\":\"0001-01-01T00:00:00Z\",\"chunks\":2,\"digest\":"
        "\"SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\"}");
    meta_put("b-906", "M.Z29uZQ==",
             "{\"name\":\"gone\",\"bucket\":\"b-906\",\"nuid\":\"x\",\"size\":0,\"chunks\":0,"
             "\"mtime\":\"0001-01-01T00:00:00Z\",\"deleted\":true}");
    ok(store_list(s, NULL, "", NULL, count_one, &count, &err));
    assert_int_equal(count, 1);
    ok(store_read(s, NULL, "k", 0, got, 5, &err));
    assert_memory_equal(got, "hello", 5);
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    /* A marker is no object, but what follows it is arbitrated by it. */
    assert_int_equal(store_read(s, NULL, "gone", 0, got, 1, &err), RC_NOT_FOUND);
    ok(store_put(s, NULL, "gone", &body, &(struct store_put_opts){.if_absent = true}, &obj, &err));
    ok(store_read(s, NULL, "gone", 0, got, 1, &err));
    ok(store_del(s, NULL, &(const char *){"gone"}, 1, &err));
    /* A digest that is not that of the bytes, chunks that are not there, no JSON. */
    meta_put("b-906", "C.bad", "hello");
    meta_put("b-906", "M.YmFk",
             "{\"name\":\"bad\",\"nuid\":\"bad\",\"size\":5,\"chunks\":1,\"digest\":"
             "\"SHA-256=MPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\"}");
    assert_int_equal(store_read(s, NULL, "bad", 0, got, 5, &err), RC_CORRUPT);
    meta_put("b-906", "M.YmFk",
             "{\"name\":\"bad\",\"nuid\":\"none\",\"size\":5,\"chunks\":1,\"digest\":"
             "\"SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=\"}");
    assert_int_equal(store_read(s, NULL, "bad", 0, got, 5, &err), RC_CORRUPT);
    meta_put("b-906", "M.YmFk", "{");
    assert_int_equal(store_read(s, NULL, "bad", 0, got, 5, &err), RC_CORRUPT);
    assert_int_equal(store_list(s, NULL, "", NULL, count_one, &count, &err), RC_CORRUPT);
    store_close(s);
}

static void test_settings(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        struct store_setting setting;
        const char *name; /* NULL: RC_INVALID */
    } cases[] = {
        {"nats://h/b", {"path", "ignored/by/litestream"}, "nats://h:4222/b"},
        {"nats://[::1]:99/b/", {"timeout", "3s"}, "nats://[::1]:99/b"},
        {"nats://h", {"bucket", "other"}, "nats://h:4222/other"},
        {"nats://token@h/b", {"reconnect-wait", "1s"}, "nats://h:4222/b"},
        {"nats://h/b", {"max-reconnects", "-1"}, "nats://h:4222/b"},
        {"nats://h/b",
         {"nkey", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"},
         "nats://h:4222/b"},
        {"nats://h/b", {"nkey", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3V"}, NULL},
        {"nats://h/b", {"client-cert", "/nowhere"}, NULL},
        {"nats://h/b", {"timeout", "0s"}, NULL},
        {"nats://h/b", {"tls", "perhaps"}, NULL},
        {"nats://h/b/c", {"tls", "false"}, NULL},
        {"nats://h/", {"tls", "false"}, NULL},
        {"nats://h/a.b", {"tls", "false"}, NULL},
        {"nats:///b", {"tls", "false"}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store *s = NULL;
        const struct store_conf conf = {
            .url = cases[i].url, .settings = &cases[i].setting, .setting_count = 1};
        enum rc rc = store_open_conf(&conf, &s, &err);
        if (cases[i].name != NULL) {
            ok(rc);
            assert_string_equal(store_name(s), cases[i].name);
        } else if (rc != RC_INVALID) {
            fail_msg("case %zu: %s", i, rc_name(rc));
        }
        store_close(s);
    }
}

static void test_figures(void **state)
{
    (void)state;
    char url[256];
    unsigned seed = 3;
    prepare(907, url);
    struct store *s = open_right(url);
    put_many(s);
    int64_t t[3] = {os_mono_ms()};
    struct store_body body = {.size = 64u << 20, .read = fill_read, .ctx = &seed};
    ok(store_put(s, NULL, "large", &body, NULL, NULL, &err));
    t[1] = os_mono_ms();
    uint8_t byte;
    ok(store_read(s, NULL, "large", (64u << 20) - 1, &byte, 1, &err));
    t[2] = os_mono_ms();
    assert_int_equal(byte, (uint8_t)(((64u << 20) - 1) * 7 + 3));
    print_message("put 64 MiB %d ms, get %d ms\n", (int)(t[1] - t[0]), (int)(t[2] - t[1]));
    store_close(s);
    clean(url);
}

static int run(void)
{
    static const struct conformance_row row = {
        .name = "nats", .prepare = prepare, .open = open_right, .clean = clean};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_wrong_password),
        cmocka_unit_test(test_missing_bucket),
        cmocka_unit_test(test_password_in_url),
        cmocka_unit_test(test_foreign_objects),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_nkey),
        cmocka_unit_test(test_no_server),
        cmocka_unit_test(test_figures),
    };
    take_values();
    return conformance_run(&row) + cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    int status = server_test(&server, "nats", run);
    nats_Close();
    return status;
}
