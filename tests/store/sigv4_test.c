/* sigv4_test.c -- signatures against the examples that the services publish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "store/hash.h"
#include "store/sigv4.h"

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define MAY_24_2013  1369353600000
#define AUG_30_2015  1440938160000

static struct err err;

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static void assert_signature(const struct sigv4 *s, const char *signature)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(sigv4_authorization(s, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    const char *at = strstr((char *)b.data, "Signature=");
    assert_non_null(at);
    assert_string_equal(at + strlen("Signature="), signature);
}

#define HEADERS(...)                                                                               \
    .headers = (const struct sigv4_header[]){__VA_ARGS__},                                         \
    .header_count =                                                                                \
        sizeof((const struct sigv4_header[]){__VA_ARGS__}) / sizeof(struct sigv4_header)
#define H(n, v)                                                                                    \
    {                                                                                              \
        .name = (n), .name_size = sizeof(n) - 1, .value = (v)                                      \
    }

/* "Examples: Signature Calculations in AWS Signature Version 4" of the S3 API reference. */
static const struct sigv4 s3_example = {.access_key = "AKIAIOSFODNN7EXAMPLE",
                                        .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                        .region = "us-east-1",
                                        .service = "s3",
                                        .time_ms = MAY_24_2013,
                                        .method = "GET",
                                        .path = "/",
                                        .query = "",
                                        .payload = EMPTY_SHA256,
                                        HEADERS(H("Host", "examplebucket.s3.amazonaws.com"),
                                                H("x-amz-content-sha256", EMPTY_SHA256),
                                                H("x-amz-date", "20130524T000000Z"))};

static void test_s3_get(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct sigv4 s = s3_example;
    s.path = "/test.txt";
    const struct sigv4_header headers[] = {
        H("x-amz-date", "20130524T000000Z"), H("RANGE", "bytes=0-9"),
        H("x-amz-content-sha256", EMPTY_SHA256), H("Host", "examplebucket.s3.amazonaws.com")};
    s.headers = headers;
    s.header_count = 4;
    ok(sigv4_authorization(&s, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_string_equal(
        (char *)b.data,
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void test_s3_put(void **state)
{
    (void)state;
    static const char sha[] = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    struct sigv4 s = s3_example;
    const struct sigv4_header headers[] = {
        H("date", "Fri, 24 May 2013 00:00:00 GMT"), H("host", "examplebucket.s3.amazonaws.com"),
        H("x-amz-content-sha256", sha), H("x-amz-date", "20130524T000000Z"),
        H("x-amz-storage-class", "REDUCED_REDUNDANCY")};
    s.method = "PUT";
    s.path = "/test%24file.text";
    s.payload = sha;
    s.headers = headers;
    s.header_count = 5;
    assert_signature(&s, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void test_s3_queries(void **state)
{
    (void)state;
    static const char list[] = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
    static const char *const same[] = {"max-keys=2&prefix=J", "prefix=J&max-keys=2",
                                       "prefix=%4a&&max-keys=2&"};
    struct sigv4 s = s3_example;
    s.query = "lifecycle";
    assert_signature(&s, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    s.query = "lifecycle=";
    assert_signature(&s, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    for (size_t i = 0; i < 3; i++) {
        s.query = same[i];
        assert_signature(&s, list);
    }
}

static void test_s3_link(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct sigv4 s = s3_example;
    s.path = "/test.txt";
    s.payload = SIGV4_UNSIGNED;
    s.header_count = 1;
    ok(sigv4_presign(&s, "", 86400, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_string_equal(
        (char *)b.data,
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524"
        "%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
        "&X-Amz-SignedHeaders=host&X-Amz-Signature="
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    assert_int_equal(sigv4_presign(&s, "", 0, &b, &err), RC_INVALID);
    assert_int_equal(sigv4_presign(&s, "", SIGV4_EXPIRES_S + 1, &b, &err), RC_INVALID);
    buf_reset(&b);
    ok(sigv4_presign(&s, "a/b+c=", SIGV4_EXPIRES_S, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_non_null(strstr((char *)b.data, "&X-Amz-Security-Token=a%2Fb%2Bc%3D&"));
}

/* Cases of AWS's test suite for Signature Version 4. */
static const struct sigv4 suite = {
    .access_key = "AKIDEXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    .region = "us-east-1",
    .service = "service",
    .time_ms = AUG_30_2015,
    .method = "GET",
    .path = "/",
    .query = "",
    .payload = EMPTY_SHA256,
    HEADERS(H("Host", "example.amazonaws.com"), H("X-Amz-Date", "20150830T123600Z"))};

static void test_suite(void **state)
{
    (void)state;
    struct sigv4 s = suite;
    assert_signature(&s, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    s.query = "Param2=value2&Param1=value1";
    assert_signature(&s, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    s.query = "";
    s.method = "POST";
    assert_signature(&s, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    s.method = "GET";
    s.path = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    assert_signature(&s, "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
}

static void test_suite_headers(void **state)
{
    (void)state;
    struct sigv4 s = suite;
    const struct sigv4_header trimmed[] = {
        H("Host", "example.amazonaws.com"), H("My-Header1", "  value1"),
        H("My-Header2", " \"a   b   c\" "), H("X-Amz-Date", "20150830T123600Z")};
    const struct sigv4_header twice[] = {
        H("My-Header1", "value2"), H("Host", "example.amazonaws.com"), H("My-Header1", "value2"),
        H("X-Amz-Date", "20150830T123600Z"), H("my-header1", "value1")};
    s.headers = trimmed;
    s.header_count = 4;
    assert_signature(&s, "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
    s.headers = twice;
    s.header_count = 5;
    assert_signature(&s, "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea");
}

/* The path is signed as it stands: what others fold is part of a key here. */
static void test_path_is_kept(void **state)
{
    (void)state;
    static const char *const paths[] = {"/a", "/./a", "//a", "/b/../a", "/a/", "/%61"};
    char seen[6][65] = {0};
    struct sigv4 s = s3_example;
    for (size_t i = 0; i < 6; i++) {
        CLEANUP(buf_fini) struct buf b = BUF_INIT;
        s.path = paths[i];
        ok(sigv4_authorization(&s, &b, &err));
        assert_true(b.size > 64);
        memcpy(seen[i], b.data + b.size - 64, 64);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(seen[i], seen[k]);
    }
}

/* Alibaba's own client libraries share these examples. */
static void test_oss(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct sigv4 s = {.kind = SIGV4_OSS,
                      .access_key = "ak",
                      .secret_key = "sk",
                      .region = "cn-hangzhou",
                      .service = "s3",
                      .time_ms = 1702743657000,
                      .method = "PUT",
                      .path = "/bucket/1234%2B-/123/1.txt",
                      .query = "param1=value1&%2Bparam1=value3&%7Cparam1=value4&%2Bparam2=&"
                               "%7Cparam2&param2",
                      .payload = SIGV4_UNSIGNED};
    const struct sigv4_header headers[] = {H("x-oss-head1", "value"),
                                           H("abc", "value"),
                                           H("ZAbc", "value"),
                                           H("XYZ", "value"),
                                           H("content-type", "text/plain"),
                                           H("x-oss-content-sha256", SIGV4_UNSIGNED),
                                           H("x-oss-date", "20231216T162057Z")};
    struct sigv4_header with_token[8];
    s.headers = headers;
    s.header_count = 7;
    ok(sigv4_authorization(&s, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_string_equal(
        (char *)b.data,
        "OSS4-HMAC-SHA256 Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,"
        "Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe");
    memcpy(with_token, headers, sizeof headers);
    with_token[6].value = "20231217T034736Z";
    with_token[7] = (struct sigv4_header)H("x-oss-security-token", "token");
    s.headers = with_token;
    s.header_count = 8;
    s.time_ms = 1702784856000;
    assert_signature(&s, "b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea");
}

static void test_oss_link(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    const struct sigv4_header headers[] = {H("x-oss-head1", "value"), H("abc", "value"),
                                           H("content-type", "application/octet-stream")};
    struct sigv4 s = {.kind = SIGV4_OSS,
                      .access_key = "ak",
                      .secret_key = "sk",
                      .region = "cn-hangzhou",
                      .service = "s3",
                      .time_ms = 1702781677000,
                      .method = "PUT",
                      .path = "/bucket/1234%2B-/123/1.txt",
                      .query = "param1=value1&%2Bparam1=value3&%7Cparam1=value4&%2Bparam2=&"
                               "%7Cparam2=&param2=",
                      .payload = SIGV4_UNSIGNED,
                      .headers = headers,
                      .header_count = 3};
    ok(sigv4_presign(&s, "", 599, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_non_null(strstr((char *)b.data,
                           "&x-oss-expires=599&x-oss-signature="
                           "a39966c61718be0d5b14e668088b3fa07601033f6518ac7b523100014"
                           "269c0fe"));
}

static void test_google(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct sigv4 s = s3_example;
    s.kind = SIGV4_GOOGLE;
    s.region = "auto";
    ok(sigv4_authorization(&s, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_non_null(strstr((char *)b.data, "GOOG4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/"
                                           "20130524/auto/storage/goog4_request,SignedHeaders="));
}

static void test_limits(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT, query = BUF_INIT;
    struct sigv4 s = s3_example;
    struct sigv4_header many[SIGV4_HEADERS_MAX + 1];
    char region[200];
    for (size_t i = 0; i <= SIGV4_HEADERS_MAX; i++)
        many[i] = (struct sigv4_header)H("x", "y");
    s.headers = many;
    s.header_count = SIGV4_HEADERS_MAX + 1;
    assert_int_equal(sigv4_authorization(&s, &b, &err), RC_INVALID);
    s.header_count = SIGV4_HEADERS_MAX;
    ok(sigv4_authorization(&s, &b, &err));
    for (size_t i = 0; i <= SIGV4_PARAMS_MAX; i++)
        ok(buf_append(&query, "a&", 2, &err));
    ok(buf_append(&query, "", 1, &err));
    s.query = (char *)query.data;
    assert_int_equal(sigv4_authorization(&s, &b, &err), RC_INVALID);
    memset(region, 'r', sizeof region - 1);
    region[sizeof region - 1] = '\0';
    s.query = "";
    s.region = region;
    assert_int_equal(sigv4_authorization(&s, &b, &err), RC_INVALID);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s3_get),       cmocka_unit_test(test_s3_put),
        cmocka_unit_test(test_s3_queries),   cmocka_unit_test(test_s3_link),
        cmocka_unit_test(test_suite),        cmocka_unit_test(test_suite_headers),
        cmocka_unit_test(test_path_is_kept), cmocka_unit_test(test_oss),
        cmocka_unit_test(test_oss_link),     cmocka_unit_test(test_google),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
