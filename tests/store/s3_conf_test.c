/* s3_conf_test.c -- from URLs and settings to what the S3 driver needs to know. The rows marked
 * "as Litestream" were compared with the requests that Litestream 0.5.16 makes for the same URL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "store/s3_conf.h"

#define ARN "arn:aws:s3:us-west-2:123456789012:accesspoint/name"
/* 32 times 'k', its base64, and the base64 of its MD5. */
#define KEY          "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define KEY_64       "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
#define KEY_MD5      "mT2HRsMGJ5IX5C+0rreZ8Q=="

#define SETTINGS_MAX 6
struct row {
    const char *url;
    const char *want; /* "bucket root endpoint style region", or a part of the error's text */
    struct store_setting settings[SETTINGS_MAX];
};

static struct err err;
static struct s3_conf conf;

static enum rc get(const char *url, const struct store_setting *settings, bool oss)
{
    struct store_settings set = {0};
    struct store_conf from = {.url = url, .settings = settings};
    while (from.setting_count < SETTINGS_MAX && settings[from.setting_count].key != NULL)
        from.setting_count++;
    err_clear(&err);
    memset(&conf, 0xa5, sizeof conf);
    enum rc rc = store_settings_fill(&set, &from, &err);
    if (rc == RC_OK) rc = s3_conf_get(&set, oss, &conf, &err);
    if (rc == RC_OK) rc = store_settings_check(&set, oss ? "oss" : "s3", &err);
    return rc;
}

static void assert_row(const struct row *row, bool oss)
{
    char got[2048];
    enum rc rc = get(row->url, row->settings, oss);
    if (rc != RC_OK) fail_msg("%s: %s", row->url, err.text);
    snprintf(got, sizeof got, "%s '%s' %s %s %s", conf.bucket, conf.root,
             conf.endpoint[0] ? conf.endpoint : "-", conf.path_style ? "path" : "host",
             conf.region[0] ? conf.region : "-");
    if (strcmp(got, row->want) != 0) fail_msg("%s\n is   %s\n want %s", row->url, got, row->want);
}

static void urls_name_bucket_root_and_service(void **state)
{
    (void)state;
    static const struct row rows[] = {
        /* As Litestream. */
        {"s3://bkt/p", "bkt 'p' - host -", {{0}}},
        {"s3://bkt", "bkt '.' - host -", {{0}}},
        {"s3://bkt/", "bkt '' - host -", {{0}}},
        {"s3://bkt/a//b/../c/", "bkt 'a/c' - host -", {{0}}},
        {"s3://bkt/./..//../a", "bkt 'a' - host -", {{0}}},
        {"s3://bkt/my%20path%2Fx+y", "bkt 'my path/x+y' - host -", {{0}}},
        {"s3://bkt.s3.amazonaws.com/p", "bkt 'p' - host -", {{0}}},
        {"s3://bkt.s3.eu-west-1.amazonaws.com/p", "bkt 'p' - host eu-west-1", {{0}}},
        {"s3://bkt.fra1.digitaloceanspaces.com/p",
         "bkt 'p' https://fra1.digitaloceanspaces.com host fra1",
         {{0}}},
        {"s3://bkt.s3.eu-central-003.backblazeb2.com/p",
         "bkt 'p' https://s3.eu-central-003.backblazeb2.com path eu-central-003",
         {{0}}},
        {"s3://bkt.s3.filebase.com/p", "bkt 'p' https://s3.filebase.com path us-east-1", {{0}}},
        {"s3://bkt.s3.fr-par.scw.cloud/p",
         "bkt 'p' https://s3.fr-par.scw.cloud host fr-par",
         {{0}}},
        {"s3://bkt.minio:9000/p", "bkt 'p' http://minio:9000 path us-east-1", {{0}}},
        {"s3://bkt.x.minio.lan:9000/p", "bkt 'p' http://x.minio.lan:9000 path us-east-1", {{0}}},
        {"s3://bkt.10.0.0.1:9000/p/q", "bkt 'p/q' http://10.0.0.1:9000 path us-east-1", {{0}}},
        {"s3://bkt.localhost/p", "bkt 'p' http://localhost path us-east-1", {{0}}},
        {"s3://" ARN, ARN " '' - host us-west-2", {{0}}},
        {"s3://" ARN "/a//b", ARN " 'a/b' - host us-west-2", {{0}}},
        /* What Litestream does not know. */
        {"s3://b.u.c/p", "b.u.c 'p' - host -", {{0}}},
        {"s3://b.s3.k.s3-us-west-2.amazonaws.com/p", "b.s3.k 'p' - host us-west-2", {{0}}},
        {"s3://s3.eu-west-1.amazonaws.com/bkt/p", "bkt 'p' - host eu-west-1", {{0}}},
        {"s3://bkt.s3.dualstack.eu-west-1.amazonaws.com/p",
         "bkt 'p' https://s3.dualstack.eu-west-1.amazonaws.com host eu-west-1",
         {{0}}},
        {"s3://bkt.s3-fips.us-gov-west-1.amazonaws.com/p",
         "bkt 'p' https://s3-fips.us-gov-west-1.amazonaws.com host us-gov-west-1",
         {{0}}},
        {"s3://bkt.s3-accelerate.amazonaws.com/p",
         "bkt 'p' https://s3-accelerate.amazonaws.com host -",
         {{0}}},
        {"s3://bkt.s3.cn-north-1.amazonaws.com.cn/p",
         "bkt 'p' https://s3.cn-north-1.amazonaws.com.cn host cn-north-1",
         {{0}}},
        {"s3://10.0.0.1:9000/bkt/p/q", "bkt 'p/q' http://10.0.0.1:9000 path us-east-1", {{0}}},
        {"s3://localhost:9000/bkt", "bkt '.' http://localhost:9000 path us-east-1", {{0}}},
        {"s3://[::1]:9000/bkt/p", "bkt 'p' http://[::1]:9000 path us-east-1", {{0}}},
        {"s3://bkt.acc.r2.cloudflarestorage.com/p",
         "bkt 'p' https://acc.r2.cloudflarestorage.com host auto",
         {{0}}},
        {"s3://bkt.acc.eu.r2.cloudflarestorage.com/p",
         "bkt 'p' https://acc.eu.r2.cloudflarestorage.com host auto",
         {{0}}},
        {"s3://fly.storage.tigris.dev/bkt/p",
         "bkt 'p' https://fly.storage.tigris.dev host auto",
         {{0}}},
        {"s3://b.kt.storage.googleapis.com/p",
         "b.kt 'p' https://storage.googleapis.com host auto",
         {{0}}},
        {"s3://" ARN "?region=eu-west-1", ARN " '' - host us-west-2", {{0}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_row(&rows[i], false);
}

static void endpoints_and_settings_win(void **state)
{
    (void)state;
    static const struct row rows[] = {
        /* As Litestream. */
        {"s3://bkt/p?endpoint=http://e.example.com",
         "bkt 'p' http://e.example.com path us-east-1",
         {{0}}},
        {"s3://bkt/p?endpoint=e.example.com",
         "bkt 'p' https://e.example.com path us-east-1",
         {{0}}},
        {"s3://bkt/p?endpoint=minio:9000", "bkt 'p' https://minio:9000 path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=minio.local:9000",
         "bkt 'p' http://minio.local:9000 path us-east-1",
         {{0}}},
        {"s3://bkt/p?endpoint=10.1.2.3:9000", "bkt 'p' http://10.1.2.3:9000 path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=172.31.2.3", "bkt 'p' http://172.31.2.3 path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=172.32.2.3", "bkt 'p' https://172.32.2.3 path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=192.168.0.1", "bkt 'p' http://192.168.0.1 path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=169.254.1.1", "bkt 'p' https://169.254.1.1 path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=http://e.example.com/base/",
         "bkt 'p' http://e.example.com/base path us-east-1",
         {{0}}},
        {"s3://bkt/p?endpoint=http%3A%2F%2Fe.example.com&forcePathStyle=false",
         "bkt 'p' http://e.example.com host us-east-1",
         {{0}}},
        {"s3://bkt/p?endpoint=https://s3.fr-par.scw.cloud&region=x",
         "bkt 'p' https://s3.fr-par.scw.cloud path x",
         {{0}}},
        {NULL, "bkt '' - host -", {{"bucket", "bkt"}}},
        {NULL, "bkt '/a/b/' - host -", {{"bucket", "bkt"}, {"path", "/a/b/"}}},
        {NULL,
         "bkt '' http://e.x path eu-1",
         {{"bucket", "bkt"}, {"endpoint", "http://e.x"}, {"region", "eu-1"}}},
        {"s3://" ARN "/p", ARN " 'p' http://e.x host us-west-2", {{"endpoint", "http://e.x"}}},
        /* The setting beats the query, and both beat the host. */
        {"s3://bkt/p?region=a&endpoint=http://q.x",
         "bkt 'p' http://e.x path b",
         {{"endpoint", "http://e.x"}, {"region", "b"}}},
        {"s3://bkt.s3.eu-west-1.amazonaws.com/p?region=us-east-2",
         "bkt 'p' - host us-east-2",
         {{0}}},
        {"s3://bkt/p?force-path-style=true", "bkt 'p' - path -", {{0}}},
        /* The region that an endpoint names. */
        {"s3://bkt/p?endpoint=https://s3.eu-central-003.backblazeb2.com",
         "bkt 'p' https://s3.eu-central-003.backblazeb2.com path eu-central-003",
         {{0}}},
        {"s3://bkt/p?endpoint=https://s3.eu-west-3.amazonaws.com",
         "bkt 'p' https://s3.eu-west-3.amazonaws.com path eu-west-3",
         {{0}}},
        {"s3://bkt/p?endpoint=HTTPS://[2001:db8::1]:9000/",
         "bkt 'p' https://[2001:db8::1]:9000 path us-east-1",
         {{0}}},
        {"s3://bkt/p?endpoint=https://e.x:443", "bkt 'p' https://e.x path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=http://e.x:80/", "bkt 'p' http://e.x path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=http://e.x:443", "bkt 'p' http://e.x:443 path us-east-1", {{0}}},
        {"s3://bkt.minio:80/p", "bkt 'p' http://minio path us-east-1", {{0}}},
        {"s3://bkt/p?endpoint=[::1]:9000", "bkt 'p' http://[::1]:9000 path us-east-1", {{0}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_row(&rows[i], false);
}

static void oss_has_hosts_of_its_own(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"oss://bkt/p", "bkt 'p' https://oss-cn-hangzhou.aliyuncs.com host cn-hangzhou", {{0}}},
        {"oss://bkt", "bkt '.' https://oss-cn-hangzhou.aliyuncs.com host cn-hangzhou", {{0}}},
        {"oss://bkt?region=eu-central-1",
         "bkt '.' https://oss-eu-central-1.aliyuncs.com host eu-central-1",
         {{0}}},
        {"oss://bkt/p",
         "bkt 'p' https://oss-eu-central-1.aliyuncs.com host eu-central-1",
         {{"region", "oss-eu-central-1"}}},
        {"oss://bkt.oss-cn-beijing.aliyuncs.com/p",
         "bkt 'p' https://oss-cn-beijing.aliyuncs.com host cn-beijing",
         {{0}}},
        {"oss://bkt.oss-cn-beijing-internal.aliyuncs.com/p",
         "bkt 'p' https://oss-cn-beijing-internal.aliyuncs.com host cn-beijing",
         {{0}}},
        {"oss://bkt/p?endpoint=oss-us-west-1.aliyuncs.com",
         "bkt 'p' https://oss-us-west-1.aliyuncs.com host us-west-1",
         {{0}}},
        {"oss://bkt/p?endpoint=http://127.0.0.1:1234",
         "bkt 'p' http://127.0.0.1:1234 path cn-hangzhou",
         {{0}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_row(&rows[i], true);
        assert_int_equal(conf.dialect, S3_OSS);
        assert_int_equal(conf.concurrency, 3);
    }
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {NULL, "no bucket", {{"path", "x"}}},
        {"s3:///p", "no bucket in the URL", {{0}}},
        {"s3://ab/p", "'ab' is no name of a bucket", {{0}}},
        {"s3://a%20b/p", "is no name of a bucket", {{0}}},
        {"s3://bkt/p", "setting 'bucket' exclude", {{"bucket", "bkt"}}},
        {"s3://bkt/p", "setting 'path' exclude", {{"path", "x"}}},
        {"s3://bkt/p%zz", "broken '%' escape", {{0}}},
        {"s3://bkt/p%2", "broken '%' escape", {{0}}},
        {"s3://bkt/p%00", "broken '%' escape", {{0}}},
        {"s3://localhost:9000", "no bucket in the URL", {{0}}},
        {"s3://localhost:9000/", "no bucket in the URL", {{0}}},
        {"s3://s3.amazonaws.com//x", "no bucket in the URL", {{0}}},
        {"s3://bkt.minio.com:9000/p", "is 'bkt.minio.com:9000' a bucket", {{0}}},
        {"s3://arn:aws:s3:us-west-2:123456789012:bucket/name",
         "does not name an access point",
         {{0}}},
        {"s3://arn:aws:s3:us-west-2:123456789012:accesspoint",
         "does not name an access point",
         {{0}}},
        {"s3://arn:aws:s3:us-west-2::accesspoint/name", "does not name an access point", {{0}}},
        {"s3://arn:aws:s3::123456789012:accesspoint/name.mrap", "several regions", {{0}}},
        {"s3://" ARN, "exclude each", {{"force-path-style", "true"}}},
        {"s3://bkt?endpoint=ftp://x", "'endpoint' is 'ftp://x'", {{0}}},
        {"s3://bkt?endpoint=http://", "'endpoint' is 'http://'", {{0}}},
        {"s3://bkt?endpoint=http://x?a", "'endpoint' is", {{0}}},
        {"s3://bkt?endpoint=http://a%20b", "'endpoint' is", {{0}}},
        {"s3://bkt?endpoint=http://x:99999", "bad port", {{0}}},
        {"s3://bkt?endpoint=http://k:s@x", "holds credentials", {{0}}},
        {"s3://bkt?region=a.b/c", "'region' is 'a.b/c'", {{0}}},
        {"s3://bkt?region=a%0ab", "'region' holds a control character", {{0}}},
        {"s3://bkt?forcePathStyle=maybe", "'force-path-style' is 'maybe'", {{0}}},
        {"s3://bkt?concurrency=0", "'concurrency' is '0'", {{0}}},
        {"s3://bkt?part-size=5MB", "write 5MiB, not 5MB", {{0}}},
        {"s3://bkt?part-size=6GiB", "'part-size' is 6442450944 bytes", {{0}}},
        {"s3://bkt?partSize=much", "'part-size'", {{0}}},
        {"s3://k@bkt", "only one of two keys", {{0}}},
        {"s3://bkt",
         "'access-key-id' is given without 'secret-access-key'",
         {{"access-key-id", "k"}}},
        {"s3://bkt", "'secret-access-key' is given without", {{"secret-access-key", "k"}}},
        {"s3://bkt", "'sse-customer-key' is not 32 bytes", {{"sse-customer-key", "a2s="}}},
        {"s3://bkt", "'sse-customer-key' is not 32 bytes", {{"sse-customer-key", "*"}}},
        {"s3://bkt",
         "it wants AES256",
         {{"sse-customer-key", KEY_64}, {"sse-customer-algorithm", "DES"}}},
        {"s3://bkt", "exclude each other", {{"sse-customer-key", KEY_64}, {"sse-kms-key-id", "x"}}},
        {"s3://bkt",
         "is not the MD5",
         {{"sse-customer-key", KEY_64}, {"sse-customer-key-md5", "AAAA"}}},
        {"s3://bkt", "without 'sse-customer-key'", {{"sse-customer-algorithm", "AES256"}}},
        {"s3://bkt?endpoint=http://e.example.com", "unencrypted", {{"sse-customer-key", KEY_64}}},
        {"s3://bkt", "no setting 'nonsense'", {{"nonsense", "1"}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (get(rows[i].url, rows[i].settings, false) != RC_INVALID)
            fail_msg("%s, row %zu: rc %s, wanted: %s", rows[i].url, i, rc_name(err.rc),
                     rows[i].want);
        if (strstr(err.text, rows[i].want) == NULL)
            fail_msg("%s: '%s' says not: %s", rows[i].url, err.text, rows[i].want);
        assert_null(strstr(err.text, KEY_64));
        assert_null(strstr(err.text, "k:s"));
    }
    /* OSS knows nothing of encryption with keys of S3. */
    static const struct store_setting sse[SETTINGS_MAX] = {{"sse-kms-key-id", "x"}};
    assert_int_equal(get("oss://bkt", sse, true), RC_INVALID);
    assert_non_null(strstr(err.text, "sse-kms-key-id"));
}

static void services_have_habits(void **state)
{
    (void)state;
    static const struct store_setting none[SETTINGS_MAX],
        more[SETTINGS_MAX] = {{"concurrency", "9"}, {"require-content-md5", "true"}};
    assert_int_equal(get("s3://bkt", none, false), RC_OK);
    assert_true(conf.sign_payload && conf.content_md5 && !conf.skip_verify && !conf.tigris);
    assert_int_equal(conf.concurrency, 5);
    assert_int_equal(conf.part_size, 5 << 20);
    assert_int_equal(conf.dialect, S3_AWS);
    assert_string_equal(conf.access_key, "");
    static const char r2[] = "s3://bkt/p?endpoint=https://acc.r2.cloudflarestorage.com";
    assert_int_equal(get(r2, none, false), RC_OK);
    assert_int_equal(conf.concurrency, 2);
    assert_string_equal(conf.region, "auto");
    assert_int_equal(get(r2, more, false), RC_OK);
    assert_int_equal(conf.concurrency, 9);
    static const char tigris[] = "s3://bkt/p?endpoint=https://t3.storage.dev";
    assert_int_equal(get(tigris, none, false), RC_OK);
    assert_true(conf.tigris && !conf.content_md5);
    assert_int_equal(get(tigris, more, false), RC_OK);
    assert_true(conf.tigris && conf.content_md5);
    static const char *const google[] = {"https://storage.googleapis.com",
                                         "https://storage.me-central2.rep.googleapis.com",
                                         "https://storage-me.p.googleapis.com"};
    for (size_t i = 0; i < 3; i++) {
        char url[256];
        snprintf(url, sizeof url, "s3://bkt/p?endpoint=%s", google[i]);
        assert_int_equal(get(url, none, false), RC_OK);
        assert_int_equal(conf.dialect, S3_GOOGLE);
    }
    /* A name that only ends in the same letters is somebody else. */
    assert_int_equal(get("s3://bkt/p?endpoint=https://fat3.storage.dev", none, false), RC_OK);
    assert_false(conf.tigris);
}

static void keys_come_from_url_or_settings(void **state)
{
    (void)state;
    static const struct store_setting none[SETTINGS_MAX],
        keys[SETTINGS_MAX] = {{"access-key-id", "ID"},
                              {"secret-access-key", "S/E"},
                              {"storage-class", "GLACIER_IR"},
                              {"sign-payload", "false"},
                              {"skip-verify", "yes"}};
    assert_int_equal(get("s3://id:s%2Fe%40c@bkt/p", none, false), RC_OK);
    assert_string_equal(conf.access_key, "id");
    assert_string_equal(conf.secret_key, "s/e@c");
    assert_string_equal(conf.bucket, "bkt");
    assert_int_equal(get("s3://id:s%2Fe%40c@bkt/p", keys, false), RC_OK);
    assert_string_equal(conf.access_key, "ID");
    assert_string_equal(conf.secret_key, "S/E");
    assert_string_equal(conf.storage_class, "GLACIER_IR");
    assert_true(!conf.sign_payload && conf.skip_verify);
    char secret[400];
    memset(secret, 'q', sizeof secret - 1);
    secret[sizeof secret - 1] = '\0';
    struct store_setting lengthy[SETTINGS_MAX] = {{"access-key-id", "k"},
                                                  {"secret-access-key", secret}};
    assert_int_equal(get("s3://bkt", lengthy, false), RC_INVALID);
    assert_non_null(strstr(err.text, "'secret-access-key' is longer than 255"));
    assert_null(strstr(err.text, "qqq"));
}

static void customer_keys_come_as_text_or_file(void **state)
{
    (void)state;
    static const struct store_setting text[SETTINGS_MAX] = {{"sse-customer-key", KEY_64},
                                                            {"sse-customer-key-md5", KEY_MD5}};
    assert_int_equal(get("s3://bkt?endpoint=http://127.0.0.1:1", text, false), RC_OK);
    assert_string_equal(conf.sse_key, KEY_64);
    assert_string_equal(conf.sse_key_md5, KEY_MD5);
    assert_string_equal(conf.sse_algorithm, "AES256");
    static const char *const files[] = {KEY, KEY_64 "\r\n"};
    for (size_t i = 0; i < 2; i++) {
        char path[] = "/tmp/sluice-sse-XXXXXX";
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, files[i], strlen(files[i])), (ssize_t)strlen(files[i]));
        close(fd);
        struct store_setting file[SETTINGS_MAX] = {{"sse-customer-key", "wrong"},
                                                   {"sse-customer-key-path", path}};
        enum rc rc = get("s3://bkt", file, false);
        unlink(path);
        assert_int_equal(rc, RC_OK);
        assert_string_equal(conf.sse_key, KEY_64);
        assert_int_equal(get("s3://bkt", file, false), RC_NOT_FOUND);
        assert_non_null(strstr(err.text, "'sse-customer-key-path'"));
    }
    static const struct store_setting kms[SETTINGS_MAX] = {{"sse-kms-key-id", "alias/x"}};
    assert_int_equal(get("s3://bkt", kms, false), RC_OK);
    assert_string_equal(conf.sse_kms_key_id, "alias/x");
    assert_string_equal(conf.sse_key, "");
}

/* Anything may stand in a URL: an answer or RC_INVALID, and no byte out of place (sanitizers). */
static void nonsense_is_refused_in_peace(void **state)
{
    (void)state;
    static const char *const pieces[] = {"bkt",
                                         ".",
                                         "..",
                                         "/",
                                         ":",
                                         "9000",
                                         "arn:",
                                         "s3",
                                         "%",
                                         "%2f",
                                         "[::1]",
                                         "localhost",
                                         "-",
                                         "@",
                                         "?",
                                         "region=",
                                         "endpoint=",
                                         "&",
                                         "http",
                                         "://",
                                         "oss",
                                         "amazonaws.com",
                                         "aliyuncs.com",
                                         "r2.cloudflarestorage.com",
                                         "backblazeb2.com"};
    static const struct store_setting none[SETTINGS_MAX];
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)getpid();
    print_message("SLUICE_SEED=%u\n", seed);
    unsigned good = 0;
    for (int i = 0; i < 20000; i++) {
        char url[512] = "s3://";
        size_t used = strlen(url);
        for (int n = rand_r(&seed) % 9; n >= 0; n--) {
            unsigned k = (unsigned)rand_r(&seed) % (sizeof pieces / sizeof pieces[0]);
            used += (size_t)snprintf(url + used, sizeof url - used, "%s", pieces[k]);
        }
        enum rc rc = get(url, none, i % 4 == 0);
        if (rc != RC_OK && rc != RC_INVALID) fail_msg("%s: %s", url, err.text);
        if (rc == RC_OK) {
            good++;
            assert_true(strlen(conf.bucket) >= 3);
        } else {
            assert_true(err.text[0] != '\0');
        }
    }
    assert_true(good > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_name_bucket_root_and_service),
        cmocka_unit_test(endpoints_and_settings_win),
        cmocka_unit_test(oss_has_hosts_of_its_own),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(services_have_habits),
        cmocka_unit_test(keys_come_from_url_or_settings),
        cmocka_unit_test(customer_keys_come_as_text_or_file),
        cmocka_unit_test(nonsense_is_refused_in_peace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
