/* text_test.c -- names, times, durations, sizes and URLs: tables of what goes in and comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "fmt/text.h"
#include "fmt/noise.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_names(void **state)
{
    (void)state;
    char name[LTX_NAME_SIZE];
    uint64_t min = 77, max = 78;
    ltx_name_put(1, UINT64_MAX, name);
    assert_string_equal(name, "0000000000000001-ffffffffffffffff.ltx");
    assert_true(ltx_name_get(name, &min, &max));
    assert_int_equal(min, 1);
    assert_int_equal(max, UINT64_MAX);
    static const char *const bad[] = {
        "",
        ".ltx",
        "0000000000000001-0000000000000001.ltx.tmp",
        "0000000000000001-0000000000000001.LTX",
        "0000000000000001-0000000000000001.lt",
        "0000000000000001-0000000000000001xltx",
        "0000000000000001_0000000000000001.ltx",
        "000000000000000A-000000000000000A.ltx",
        "000000000000000g-000000000000000g.ltx",
        "000000000000001-00000000000000011.ltx",
        "0000000000000000-0000000000000001.ltx",
        "0000000000000002-0000000000000001.ltx",
        "+000000000000001-0000000000000001.ltx",
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(ltx_name_get(bad[i], &min, &max));
    assert_int_equal(max, UINT64_MAX); /* untouched */
}

static void test_txids(void **state)
{
    (void)state;
    struct err err;
    char text[17];
    uint64_t txid;
    txid_put(0xABCDEF, text);
    assert_string_equal(text, "0000000000abcdef");
    assert_int_equal(txid_get("0000000000ABCDEF", &txid, &err), RC_OK);
    assert_int_equal(txid, 0xABCDEF);
    static const char *const bad[] = {
        "", "1", "00000000000000001", "000000000000000x", "0x00000000000001", " 00000000000000a"};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(txid_get(bad[i], &txid, &err), RC_INVALID);
    assert_int_equal(txid, 0xABCDEF);
}

static void test_time_put(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *seconds, *millis;
    } rows[] = {
        {0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
        {1, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.001Z"},
        {-1, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999Z"},
        {1767323045678, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z"},
        {1767323045600, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.6Z"},
        {951782400000, "2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z"},
        {253402300799990, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.99Z"},
        {-62167219200000, "0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"},
    };
    char text[TIME_TEXT_SIZE];
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct err err;
        int64_t ms;
        time_put(rows[i].ms, false, text);
        assert_string_equal(text, rows[i].seconds);
        time_put(rows[i].ms, true, text);
        assert_string_equal(text, rows[i].millis);
        assert_int_equal(time_get(text, &ms, &err), RC_OK);
        assert_int_equal(ms, rows[i].ms);
    }
    time_put(INT64_MIN, true, text); /* must fit */
    time_put(INT64_MAX, true, text);
    assert_string_equal(text, "292278994-08-17T07:12:55.807Z");
}

/* Every day of four centuries and more, against the C library's calendar. */
static void test_time_days(void **state)
{
    (void)state;
    for (int64_t day = -200000; day < 200000; day++) {
        char text[TIME_TEXT_SIZE], want[TIME_TEXT_SIZE];
        struct tm tm;
        struct err err;
        time_t s = day * 86400 + day % 86400;
        int64_t ms;
        assert_non_null(gmtime_r(&s, &tm));
        strftime(want, sizeof want, "%Y-%m-%dT%H:%M:%SZ", &tm);
        time_put(s * 1000, true, text);
        assert_string_equal(text, want);
        assert_int_equal(time_get(text, &ms, &err), RC_OK);
        assert_int_equal(ms, s * 1000);
    }
}

static void test_time_get(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        {"2026-01-02T03:04:05Z", 1767323045000},
        {"2026-01-02t03:04:05z", 1767323045000},
        {"2026-01-02T03:04:05.1Z", 1767323045100},
        {"2026-01-02T03:04:05.123999999Z", 1767323045123},
        {"2026-01-02T04:34:05+01:30", 1767323045000},
        {"2026-01-01T19:04:05.5-08:00", 1767323045500},
        {"1969-12-31T23:59:59.999Z", -1},
    };
    struct err err;
    int64_t ms = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(time_get(rows[i].text, &ms, &err), RC_OK);
        assert_int_equal(ms, rows[i].ms);
    }
    static const char *const bad[] = {
        "",
        "2026",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.1234567890Z",
        "2026-01-02T03:04:05Z ",
        "2026-13-02T03:04:05Z",
        "2026-00-02T03:04:05Z",
        "2026-02-29T03:04:05Z",
        "2100-02-29T03:04:05Z",
        "2026-01-00T03:04:05Z",
        "2026-01-02T24:04:05Z",
        "2026-01-02T03:60:05Z",
        "2026-01-02T03:04:60Z",
        "2026-01-02T03:04:05+0100",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+01:60",
        "2026-1-02T03:04:05Z",
        "+026-01-02T03:04:05Z",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        ms = 42;
        assert_int_equal(time_get(bad[i], &ms, &err), RC_INVALID);
        assert_int_equal(ms, 42);
        assert_non_null(strstr(err.text, bad[i]));
    }
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
        const char *canonical; /* NULL: text itself */
    } rows[] = {
        {"0s", 0, NULL},
        {"0", 0, "0s"},
        {"-0", 0, "0s"},
        {"1000000000", 1000000000, "1s"},
        {"-5", -5, "-5ns"},
        {"5ns", 5, NULL},
        {"1us", 1000, "1\xC2\xB5s"},
        {"1\xC2\xB5s", 1000, NULL},
        {"1\xCE\xBCs", 1000, "1\xC2\xB5s"},
        {"1.1\xC2\xB5s", 1100, NULL},
        {"2.2ms", 2200000, NULL},
        {"250ms", 250000000, NULL},
        {"1.5s", 1500000000, NULL},
        {"3.3s", 3300000000, NULL},
        {"-1.5s", -1500000000, NULL},
        {"+.5s", 500000000, "500ms"},
        {"1.s", 1000000000, "1s"},
        {"4m5s", 245000000000, NULL},
        {"4m5.001s", 245001000000, NULL},
        {"90s", 90000000000, "1m30s"},
        {"1h", 3600000000000, "1h0m0s"},
        {"1h30m", 5400000000000, "1h30m0s"},
        {"1.5h", 5400000000000, "1h30m0s"},
        {"1s1h", 3601000000000, "1h0m1s"},
        {"24h", 86400000000000, "24h0m0s"},
        {"0.3333333333333333333h", 1199999999999, "19m59.999999999s"},
        {"9223372036854775807ns", INT64_MAX, "2562047h47m16.854775807s"},
        {"-9223372036854775808ns", INT64_MIN, "-2562047h47m16.854775808s"},
        {"1ns1ns", 2, "2ns"},
    };
    struct err err;
    char text[32];
    int64_t ns;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(duration_get(rows[i].text, &ns, &err), RC_OK);
        assert_int_equal(ns, rows[i].ns);
        duration_put(ns, text);
        assert_string_equal(text, rows[i].canonical != NULL ? rows[i].canonical : rows[i].text);
    }
    for (int i = 0; i < 20000; i++) {
        int64_t want = (int64_t)noise() >> (i % 64);
        duration_put(want, text);
        assert_int_equal(duration_get(text, &ns, &err), RC_OK);
        assert_int_equal(ns, want);
    }
}

static void test_duration_refusals(void **state)
{
    (void)state;
    struct err err;
    int64_t ns;
    static const char *const bad[] = {
        "",
        "-",
        "+",
        "s",
        ".",
        ".s",
        "1.5",
        "1d",
        "1x",
        "1 s",
        " 1s",
        "1s ",
        "--1s",
        "1s-1s",
        "1h30",
        "0s0",
        "1..5s",
        "1e3s",
        "3000000h",
        "9223372036854775808ns",
        "18446744073709551616",
        "99999999999999999999999s",
        "2562047h47m16.854775808s",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        ns = 42;
        assert_int_equal(duration_get(bad[i], &ns, &err), RC_INVALID);
        assert_int_equal(ns, 42);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        {"0", 0},
        {"4096", 4096},
        {"1B", 1},
        {"5MB", 5000000},
        {"5MiB", 5242880},
        {"5 mb", 5000000},
        {"5 MIB", 5242880},
        {"5M", 5000000},
        {"5Mi", 5242880},
        {"1.5k", 1500},
        {"1.5KiB", 1536},
        {"0.5b", 0},
        {".5kb", 500},
        {"2GB", 2000000000},
        {"1T", 1000000000000},
        {"1PiB", 1125899906842624},
        {"1E", 1000000000000000000},
        {"15EiB", 17293822569102704640u},
        {"18446744073709551615", UINT64_MAX},
    };
    struct err err;
    uint64_t bytes;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(size_get(rows[i].text, &bytes, &err), RC_OK);
        assert_int_equal(bytes, rows[i].bytes);
    }
    static const char *const bad[] = {
        "",
        "MB",
        "-1",
        "5XB",
        "5MBB",
        "5 M B",
        "5iB",
        "5bb",
        "1.2.3",
        "16EiB",
        "18446744073709551616",
        "5MiBs",
        "1e3",
        "0x10",
        ".",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        bytes = 42;
        assert_int_equal(size_get(bad[i], &bytes, &err), RC_INVALID);
        assert_int_equal(bytes, 42);
    }
}

static void test_size_put(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"},
        {9, "9 B"},
        {10, "10 B"},
        {803, "803 B"},
        {999, "999 B"},
        {1000, "1.0 kB"},
        {1024, "1.0 kB"},
        {4096, "4.1 kB"},
        {9949, "9.9 kB"},
        {9950, "10 kB"},
        {12500, "12 kB"},
        {13500, "14 kB"},
        {999999, "1000 kB"},
        {1000000, "1.0 MB"},
        {8285498, "8.3 MB"},
        {82854982, "83 MB"},
        {5500000000, "5.5 GB"},
        {1000000000000000, "1.0 PB"},
        {UINT64_MAX, "18 EB"},
    };
    char text[32];
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_put(rows[i].bytes, text);
        assert_string_equal(text, rows[i].text);
    }
}

static void test_urls(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        struct url url;
    } rows[] = {
        {"", {.path = ""}},
        {"/var/lib/db?x", {.path = "/var/lib/db?x"}},
        {"relative/a:b@c", {.path = "relative/a:b@c"}},
        {"://x", {.path = "://x"}},
        {"1a://x", {.path = "1a://x"}},
        {"file:///abs/pa%20th", {.scheme = "file", .path = "/abs/pa%20th"}},
        {"S3://bucket", {.scheme = "s3", .host = "bucket"}},
        {"s3://bucket/a/b?endpoint=http://h:1/&x=%20",
         {.scheme = "s3", .host = "bucket", .path = "/a/b", .query = "endpoint=http://h:1/&x=%20"}},
        {"s3://b?x=y", {.scheme = "s3", .host = "b", .query = "x=y"}},
        {"s3://arn:aws:s3:us-east-1:123:accesspoint/name/key",
         {.scheme = "s3", .host = "arn:aws:s3:us-east-1:123:accesspoint", .path = "/name/key"}},
        {"sftp://us%40er:p%3Aa@ss@host:2222/p",
         {.scheme = "sftp",
          .user = "us@er",
          .password = "p:a@ss",
          .host = "host",
          .port = 2222,
          .path = "/p"}},
        {"abs://account@container/",
         {.scheme = "abs", .user = "account", .host = "container", .path = "/"}},
        {"nats://:secret@h", {.scheme = "nats", .password = "secret", .host = "h"}},
        {"http://h:/x", {.scheme = "http", .host = "h", .path = "/x"}},
        {"http://h:65535", {.scheme = "http", .host = "h", .port = 65535}},
        {"http://[::1]:9000/b", {.scheme = "http", .host = "::1", .port = 9000, .path = "/b"}},
        {"http://u@[fe80::1]", {.scheme = "http", .user = "u", .host = "fe80::1"}},
    };
    struct err err;
    struct url u;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct url *w = &rows[i].url;
        assert_int_equal(url_get(rows[i].text, &u, &err), RC_OK);
        assert_string_equal(u.scheme, w->scheme);
        assert_string_equal(u.user, w->user);
        assert_string_equal(u.password, w->password);
        assert_string_equal(u.host, w->host);
        assert_int_equal(u.port, w->port);
        assert_string_equal(u.path, w->path);
        assert_string_equal(u.query, w->query);
    }
    static const char *const bad[] = {
        "http://h:65536", "http://h:1x",     "http://h:-1",   "http://a:b:1",
        "http://[::1",    "http://[::1]x",   "s3://u%4@h",    "s3://u%zz@h",
        "s3://u:%00@h",   "http://[::1]:9x", "http://[[::1]", "http://[host]",
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(url_get(bad[i], &u, &err), RC_INVALID);
    assert_int_equal(url_get("s3://u:hush%zz@h", &u, &err), RC_INVALID);
    assert_null(strstr(err.text, "hush"));
}

static void test_url_limits(void **state)
{
    (void)state;
    static const char *const shapes[] = {"%s://h", "s3://%s@h", "s3://u:%s@h", "s3://%s/",
                                         "/%s",    "s3://h/%s", "s3://h?%s"};
    static const size_t caps[] = {15, 127, 255, 255, 1022, 1022, 1023};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        for (size_t more = 0; more < 2; more++) {
            char part[2048], text[4096];
            struct err err;
            struct url u;
            memset(part, 'a', sizeof part);
            part[caps[i] + more] = '\0';
            const char *slot = strstr(shapes[i], "%s");
            snprintf(text, sizeof text, "%.*s%s%s", (int)(slot - shapes[i]), shapes[i], part,
                     slot + 2);
            assert_int_equal(url_get(text, &u, &err), more ? RC_TOO_BIG : RC_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_txids),
        cmocka_unit_test(test_time_put),
        cmocka_unit_test(test_time_days),
        cmocka_unit_test(test_time_get),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_duration_refusals),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_size_put),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_url_limits),
    };
    noise_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
