/* s3_test.c -- the S3 driver against a scripted service: what it sends, and every answer that a
 * service, or something that only looks like one, may give. */
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
#include "store/peer.h"
#include "store/s3_intern.h"

#define SECRET "SecretSecretSecret"
#define PART   (5u << 20)
#define ERR_XML(code, message)                                                                     \
    "<?xml version=\"1.0\"?><Error><Code>" code "</Code><Message>" message "</Message></Error>"
#define PAGE(marks, contents)                                                                      \
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult "                               \
    "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" marks contents "</ListBucketResult>"
#define OBJ(key)                                                                                   \
    "<Contents><Key>" key "</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"            \
    "<ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>"
#define URL_MARK  "<EncodingType>url</EncodingType>"
#define MORE_MARK "<IsTruncated>true</IsTruncated>"

static struct err err;
static struct peer *peer;
static struct store *store;

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static struct store *open_with(const char *url, const char *key, const char *value)
{
    struct store *s = NULL;
    const struct store_setting settings[] = {{"endpoint", peer_url(peer)},
                                             {"access-key-id", "AKEY"},
                                             {"secret-access-key", SECRET},
                                             {key, value}};
    const struct store_conf conf = {.url = url, .settings = settings, .setting_count = key ? 4 : 3};
    ok(store_open_conf(&conf, &s, &err));
    return s;
}

static int setup(void **state)
{
    (void)state;
    peer = peer_start(NULL, NULL);
    store = open_with("s3://bkt/root", NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    peer_stop(peer);
    return 0;
}

static void reopen(peer_fn *fn, void *ctx, const char *key, const char *value)
{
    store_close(store);
    peer_stop(peer);
    peer = peer_start(fn, ctx);
    store = open_with("s3://bkt/root", key, value);
}

static void answer(int status, const char *headers, const char *body)
{
    peer_push(peer, &(struct peer_resp){.status = status,
                                        .headers = headers,
                                        .body = body,
                                        .body_size = body ? strlen(body) : 0});
}

static void fault(enum peer_fault how)
{
    peer_push(peer, &(struct peer_resp){.headers = "ETag: \"e\"\r\n", .fault = how});
}

static enum rc put(const struct call *c, const struct store_put_opts *opts, struct store_obj *ret)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "hello", 5);
    return store_put(store, c, "k/1", &body, opts, ret, &err);
}

static enum rc zero_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)off, (void)e;
    memset(dst, 'z', size);
    return RC_OK;
}

static enum rc put_large(const struct call *c, const struct store_put_opts *opts, uint64_t size)
{
    struct store_body body = {.size = size, .read = zero_read};
    return store_put(store, c, "k/1", &body, opts, NULL, &err);
}

static enum rc into_buf(void *ctx, const void *data, size_t size, struct err *e)
{
    return buf_append(ctx, data, size, e);
}

static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s %s %llu\n", obj->key, obj->etag, (unsigned long long)obj->size);
}

static const char *sent(unsigned i, const char *name)
{
    const char *value = peer_header(peer_at(peer, i), name);
    return value ? value : "";
}

static const char put_ok[] = "ETag: \"e1\"\r\n";
static const struct store_put_opts create = {.if_absent = true};
static const struct store_put_opts replace = {.if_etag = "\"e1\""};

static void test_put(void **state)
{
    (void)state;
    struct store_obj obj = {0};
    answer(200, put_ok, NULL);
    ok(put(NULL, &(struct store_put_opts){.timestamp_ms = 1767323045670}, &obj));
    assert_string_equal(obj.etag, "\"e1\"");
    assert_string_equal(obj.key, "k/1");
    assert_int_equal(obj.size, 5);
    const struct peer_req *req = peer_at(peer, 0);
    assert_string_equal(req->method, "PUT");
    assert_string_equal(req->target, "/bkt/root/k/1");
    assert_int_equal(req->body_size, 5);
    assert_string_equal(sent(0, "x-amz-meta-litestream-timestamp"), "2026-01-02T03:04:05.67Z");
    assert_string_equal(sent(0, "x-amz-content-sha256"),
                        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_string_equal(sent(0, "if-none-match"), "");
    assert_non_null(strstr(sent(0, "authorization"), "/us-east-1/s3/aws4_request,SignedHeaders="
                                                     "host;x-amz-content-sha256;x-amz-date;"
                                                     "x-amz-meta-litestream-timestamp,"));
    struct store_stats stats;
    store_stats(store, &stats);
    assert_int_equal(stats.requests[STORE_OP_PUT], 1);
    assert_int_equal(stats.bytes_up, 5);
}

/* Each of these is tried again, with the whole body. */
static void test_put_again(void **state)
{
    (void)state;
    static const enum peer_fault faults[] = {PEER_RESET_UNREAD, PEER_LOSE, PEER_RESET,
                                             PEER_CUT_HEAD};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        fault(faults[i]);
        answer(200, put_ok, NULL);
        ok(put(NULL, NULL, NULL));
        assert_int_equal(peer_at(peer, peer_count(peer) - 1)->body_size, 5);
        assert_int_equal(peer_left(peer), 0);
    }
    static const char *const codes[] = {ERR_XML("InternalError", "x"),
                                        ERR_XML("OperationAborted", "x"),
                                        ERR_XML("RequestTimeout", "x"),
                                        ERR_XML("BadDigest", "x"),
                                        "",
                                        "<html>gateway</html>"};
    static const int statuses[] = {500, 409, 400, 400, 502, 504};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        answer(statuses[i], NULL, codes[i]);
        answer(200, put_ok, NULL);
        ok(put(NULL, NULL, NULL));
        assert_int_equal(peer_left(peer), 0);
    }
}

static void test_slow_down(void **state)
{
    (void)state;
    struct store_stats stats;
    answer(503, "Retry-After: 1\r\n", ERR_XML("SlowDown", "Please reduce your request rate."));
    answer(200, put_ok, NULL);
    int64_t begin_ms = os_mono_ms();
    ok(put(NULL, NULL, NULL));
    assert_true(os_mono_ms() - begin_ms >= 900);
    store_stats(store, &stats);
    assert_int_equal(stats.throttled, 1);
}

struct verdict {
    int status;
    const char *body;
    enum rc rc;
    const char *text;
};

static void test_put_verdicts(void **state)
{
    (void)state;
    static const struct verdict verdicts[] = {
        {403, ERR_XML("AccessDenied", "Access Denied"), RC_DENIED, "policy"},
        {403, ERR_XML("SignatureDoesNotMatch", "no"), RC_DENIED, "check the secret key"},
        {403, ERR_XML("InvalidAccessKeyId", "no"), RC_DENIED, "check the access key"},
        {403, ERR_XML("QuotaExceeded", "no"), RC_NO_SPACE, "QuotaExceeded"},
        {404, ERR_XML("NoSuchBucket", "no"), RC_INVALID, "bucket 'bkt' does not exist"},
        {404, "", RC_INVALID, "404"},
        {400, ERR_XML("EntityTooLarge", "no"), RC_TOO_BIG, "EntityTooLarge"},
        {400, ERR_XML("InvalidStorageClass", "a&#10;b"), RC_INVALID, "InvalidStorageClass: a b"},
        {301, ERR_XML("PermanentRedirect", "no"), RC_INVALID, "check region and endpoint"},
        {405, ERR_XML("MethodNotAllowed", "no"), RC_UNSUPPORTED, "MethodNotAllowed"},
        {507, "", RC_NO_SPACE, "507"},
        {400, ERR_XML("ExpiredToken", "no"), RC_DENIED, "session token has expired"},
        {403, ERR_XML("InvalidObjectState", "no"), RC_DENIED, "archived"},
        {403, "<!DOCTYPE e [<!ENTITY a 'b'>]><Error><Code>&a;</Code></Error>", RC_DENIED, "403"},
        {403, "<Error><Code>Half", RC_DENIED, "403"},
    };
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++) {
        const struct verdict *v = &verdicts[i];
        answer(v->status, NULL, v->body);
        assert_int_equal(put(NULL, NULL, NULL), v->rc);
        if (strstr(err.text, v->text) == NULL) fail_msg("%zu: %s", i, err.text);
        assert_non_null(strstr(err.text, "bkt"));
        assert_null(strstr(err.text, SECRET));
        assert_int_equal(peer_left(peer), 0);
    }
    /* A success without an etag is none. */
    answer(200, NULL, NULL);
    assert_int_equal(put(NULL, NULL, NULL), RC_AGAIN);
    /* A sermon of a megabyte is cut. */
    peer_push(peer, &(struct peer_resp){.status = 403, .body_size = 3u << 20});
    assert_int_equal(put(NULL, NULL, NULL), RC_DENIED);
}

static void test_create(void **state)
{
    (void)state;
    answer(200, put_ok, NULL);
    ok(put(NULL, &create, NULL));
    assert_string_equal(sent(0, "if-none-match"), "*");
    assert_non_null(strstr(sent(0, "authorization"), "if-none-match;"));
    answer(412, NULL, ERR_XML("PreconditionFailed", "x"));
    assert_int_equal(put(NULL, &create, NULL), RC_CONFLICT);
    answer(412, NULL, NULL);
    assert_int_equal(put(NULL, &create, NULL), RC_CONFLICT);
    /* A race in progress is no verdict. */
    answer(409, NULL, ERR_XML("ConditionalRequestConflict", "x"));
    answer(200, put_ok, NULL);
    ok(put(NULL, &create, NULL));
    answer(409, NULL, ERR_XML("ConditionalRequestConflict", "x"));
    answer(412, NULL, NULL);
    assert_int_equal(put(NULL, &create, NULL), RC_CONFLICT);
    /* The first try may have been ours. */
    fault(PEER_LOSE);
    answer(412, NULL, NULL);
    assert_int_equal(put(NULL, &create, NULL), RC_CONFLICT);
    assert_int_equal(peer_left(peer), 0);
    /* All answers lost: nobody knows. */
    peer_push_many(peer, 100, &(struct peer_resp){.headers = put_ok, .fault = PEER_LOSE});
    struct call c = {.deadline_ms = os_mono_ms() + 250};
    enum rc rc = put(&c, &create, NULL);
    assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
}

static void test_replace(void **state)
{
    (void)state;
    answer(200, "ETag: \"e2\"\r\n", NULL);
    ok(put(NULL, &replace, NULL));
    assert_string_equal(sent(0, "if-match"), "\"e1\"");
    answer(404, NULL, ERR_XML("NoSuchKey", "x"));
    assert_int_equal(put(NULL, &replace, NULL), RC_NOT_FOUND);
    answer(412, NULL, NULL);
    answer(404, NULL, NULL); /* HEAD */
    assert_int_equal(put(NULL, &replace, NULL), RC_NOT_FOUND);
    assert_string_equal(peer_at(peer, 3)->method, "HEAD");
    answer(412, NULL, NULL);
    answer(200, "ETag: \"other\"\r\n", NULL);
    assert_int_equal(put(NULL, &replace, NULL), RC_CONFLICT);
    answer(412, NULL, NULL);
    answer(403, NULL, NULL); /* the verdict stands, whatever HEAD says */
    assert_int_equal(put(NULL, &replace, NULL), RC_CONFLICT);
    assert_int_equal(peer_left(peer), 0);
}

/* A gateway that wants etags without quotes, and says no to a wrong one in that form. */
static void test_quotes_dropped(void **state)
{
    (void)state;
    answer(412, NULL, NULL);   /* PUT, quoted */
    answer(200, put_ok, NULL); /* HEAD: it is the one */
    answer(200, put_ok, NULL); /* scratch */
    answer(412, NULL, NULL);   /* quoted */
    answer(412, NULL, NULL);   /* a wrong one */
    answer(200, put_ok, NULL); /* without quotes */
    answer(204, NULL, NULL);   /* DELETE */
    answer(200, put_ok, NULL); /* PUT again */
    ok(put(NULL, &replace, NULL));
    assert_string_equal(peer_at(peer, 6)->method, "DELETE");
    assert_string_equal(sent(3, "if-match"), "\"e1\"");
    assert_string_equal(sent(4, "if-match"), "00000000000000000000000000000000");
    assert_string_equal(sent(5, "if-match"), "e1");
    assert_string_equal(sent(7, "if-match"), "e1");
    assert_string_equal(peer_at(peer, 7)->target, "/bkt/root/k/1");
    answer(200, put_ok, NULL);
    ok(put(NULL, &replace, NULL)); /* remembered */
    assert_string_equal(sent(8, "if-match"), "e1");
    answer(412, NULL, NULL);
    answer(200, put_ok, NULL);
    assert_int_equal(put(NULL, &replace, NULL), RC_CONFLICT);
    assert_int_equal(peer_left(peer), 0);
}

/* The etag was back when we looked: a race, not a misreading. */
static void test_quotes_kept(void **state)
{
    (void)state;
    answer(412, NULL, NULL);
    answer(200, put_ok, NULL);
    answer(200, put_ok, NULL); /* scratch */
    answer(200, put_ok, NULL); /* quoted: it reads that well */
    answer(204, NULL, NULL);
    assert_int_equal(put(NULL, &replace, NULL), RC_CONFLICT);
    assert_int_equal(peer_left(peer), 0);
    assert_int_equal(peer_count(peer), 5);
}

/* A service that ignores what it cannot read must not look like one that agrees. */
static void test_quotes_ignored(void **state)
{
    (void)state;
    answer(412, NULL, NULL);
    answer(200, put_ok, NULL);
    answer(200, put_ok, NULL); /* scratch */
    answer(412, NULL, NULL);   /* quoted */
    answer(200, put_ok, NULL); /* a wrong one: taken! */
    answer(204, NULL, NULL);
    assert_int_equal(put(NULL, &replace, NULL), RC_UNSUPPORTED);
    assert_int_equal(peer_left(peer), 0);
    for (unsigned i = 0; i < peer_count(peer); i++)
        if (strcmp(peer_at(peer, i)->target, "/bkt/root/k/1") == 0)
            assert_string_not_equal(sent(i, "if-match"), "e1");
}

static void test_region(void **state)
{
    (void)state;
    answer(301, "x-amz-bucket-region: eu-west-1\r\n", ERR_XML("PermanentRedirect", "x"));
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_non_null(strstr(sent(0, "authorization"), "/us-east-1/s3/"));
    assert_non_null(strstr(sent(1, "authorization"), "/eu-west-1/s3/"));
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_non_null(strstr(sent(2, "authorization"), "/eu-west-1/s3/"));
    answer(400, NULL,
           "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'eu-west-1' is "
           "wrong; expecting 'ap-south-1'</Message><Region>ap-south-1</Region></Error>");
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_non_null(strstr(sent(4, "authorization"), "/ap-south-1/s3/"));
    /* Round in circles: given up. */
    answer(301, "x-amz-bucket-region: a\r\n", NULL);
    answer(301, "x-amz-bucket-region: b\r\n", NULL);
    answer(301, "x-amz-bucket-region: c\r\n", NULL);
    assert_int_not_equal(put(NULL, NULL, NULL), RC_OK);
    assert_int_equal(peer_left(peer), 0);
    /* It becomes part of a host's name. */
    answer(301, "x-amz-bucket-region: evil.example/\r\n", NULL);
    assert_int_equal(put(NULL, NULL, NULL), RC_INVALID);
}

static void test_clock(void **state)
{
    (void)state;
    answer(403, "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n", ERR_XML("RequestTimeTooSkewed", "x"));
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_int_equal(strncmp(sent(1, "x-amz-date"), "20260102T0304", 13), 0);
    assert_non_null(strstr(sent(1, "authorization"), "/20260102/"));
    /* Once for a request. */
    answer(403, "Date: Fri, 02 Jan 2026 04:04:05 GMT\r\n", ERR_XML("RequestTimeTooSkewed", "x"));
    answer(403, "Date: Fri, 02 Jan 2026 05:04:05 GMT\r\n", ERR_XML("RequestTimeTooSkewed", "x"));
    assert_int_equal(put(NULL, NULL, NULL), RC_DENIED);
    assert_non_null(strstr(err.text, "clock"));
}

/* The service finds a token expired; by then there is a newer one. */
static void expire(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    const char *token = peer_header(req, "x-amz-security-token");
    (void)ctx;
    if (token != NULL && strcmp(token, "new") == 0) {
        peer_head(resp, "ETag", "\"e1\"");
        return;
    }
    setenv("AWS_SESSION_TOKEN", "new", 1);
    resp->status = 400;
    peer_text(resp, ERR_XML("ExpiredToken", "The provided token has expired."));
}

static void test_expired(void **state)
{
    (void)state;
    store_close(store);
    peer_stop(peer);
    setenv("AWS_ACCESS_KEY_ID", "AKEY", 1);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    setenv("AWS_SESSION_TOKEN", "old", 1);
    peer = peer_start(expire, NULL);
    const struct store_setting settings[] = {{"endpoint", peer_url(peer)}};
    const struct store_conf conf = {
        .url = "s3://bkt/root", .settings = settings, .setting_count = 1};
    ok(store_open_conf(&conf, &store, &err));
    ok(put(NULL, NULL, NULL));
    assert_int_equal(peer_count(peer), 2);
    assert_string_equal(sent(0, "x-amz-security-token"), "old");
    assert_non_null(strstr(sent(1, "authorization"), "x-amz-security-token,"));
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    unsetenv("AWS_SESSION_TOKEN");
}

static void test_link_region(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    atomic_store(&((struct s3 *)store)->region_known, false);
    answer(403, "x-amz-bucket-region: us-east-1\r\n", NULL);
    ok(store_presign(store, NULL, "k", false, 60, &link, &err));
    ok(buf_append(&link, "", 1, &err));
    assert_non_null(strstr((char *)link.data, "%2Fus-east-1%2Fs3%2F"));
    buf_reset(&link);
    atomic_store(&((struct s3 *)store)->region_known, false);
    answer(301, "x-amz-bucket-region: eu-west-1\r\n", NULL);
    answer(200, NULL, NULL);
    ok(store_presign(store, NULL, "k", true, 60, &link, &err));
    ok(buf_append(&link, "", 1, &err));
    assert_non_null(strstr((char *)link.data, "%2Feu-west-1%2Fs3%2F"));
    assert_string_equal(peer_at(peer, 0)->method, "HEAD");
    assert_int_equal(peer_left(peer), 0);
}

static void test_checksums(void **state)
{
    (void)state;
    reopen(NULL, NULL, "sign-payload", "false");
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_string_equal(sent(0, "x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
    assert_int_equal(strlen(sent(0, "x-amz-checksum-crc64nvme")), 12);
    answer(400, NULL, ERR_XML("BadDigest", "The checksum did not match"));
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_string_not_equal(sent(2, "x-amz-checksum-crc64nvme"), "");
    answer(400, NULL, ERR_XML("InvalidArgument", "Unsupported header 'x-amz-checksum-crc64nvme'"));
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_string_equal(sent(4, "x-amz-checksum-crc64nvme"), "");
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_string_equal(sent(5, "x-amz-checksum-crc64nvme"), "");
}

static void test_extra_headers(void **state)
{
    (void)state;
    char byte;
    reopen(NULL, NULL, "sse-customer-key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    struct s3_conf *conf = &((struct s3 *)store)->conf;
    conf->tigris = true;
    snprintf(conf->storage_class, sizeof conf->storage_class, "COLD");
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_string_equal(sent(0, "x-amz-storage-class"), "COLD");
    assert_string_equal(sent(0, "x-tigris-consistent"), "true");
    assert_string_equal(sent(0, "x-amz-server-side-encryption-customer-algorithm"), "AES256");
    assert_string_not_equal(sent(0, "x-amz-server-side-encryption-customer-key-md5"), "");
    answer(200, put_ok, "x");
    ok(store_read(store, NULL, "k", 0, &byte, 1, &err));
    assert_string_equal(sent(1, "x-amz-storage-class"), "");
    assert_string_equal(sent(1, "x-tigris-consistent"), "true");
    assert_string_not_equal(sent(1, "x-amz-server-side-encryption-customer-key"), "");
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    assert_int_equal(store_presign(store, NULL, "k", false, 60, &link, &err), RC_UNSUPPORTED);
    conf->sse_key[0] = conf->sse_algorithm[0] = '\0';
    snprintf(conf->sse_kms_key_id, sizeof conf->sse_kms_key_id, "key-1");
    answer(200, put_ok, NULL);
    ok(put(NULL, NULL, NULL));
    assert_string_equal(sent(2, "x-amz-server-side-encryption"), "aws:kms");
    assert_string_equal(sent(2, "x-amz-server-side-encryption-aws-kms-key-id"), "key-1");
}

static void test_google(void **state)
{
    (void)state;
    ((struct s3 *)store)->conf.dialect = S3_GOOGLE;
    answer(200, put_ok, NULL);
    answer(412, NULL, ERR_XML("PreconditionFailed", "x"));
    ok(put(NULL, &(struct store_put_opts){.if_absent = true, .timestamp_ms = 1000}, NULL));
    assert_int_equal(put(NULL, &create, NULL), RC_CONFLICT);
    assert_string_equal(sent(0, "x-goog-if-generation-match"), "0");
    assert_string_equal(sent(0, "x-goog-meta-litestream-timestamp"), "1970-01-01T00:00:01Z");
    assert_string_equal(sent(0, "if-none-match"), "");
    assert_int_equal(strncmp(sent(0, "authorization"), "GOOG4-HMAC-SHA256 ", 18), 0);
    assert_string_equal(sent(0, "x-amz-date"), "");
    answer(204, NULL, NULL);
    answer(404, NULL, ERR_XML("NoSuchKey", "x"));
    ok(store_del(store, NULL, (const char *[]){"a", "b"}, 2, &err));
    assert_string_equal(peer_at(peer, 2)->method, "DELETE");
    assert_string_equal(peer_at(peer, 3)->method, "DELETE");
}

static void test_oss(void **state)
{
    (void)state;
    store_close(store);
    store = open_with("oss://bkt/root", NULL, NULL);
    assert_false(store_can(store, STORE_CAP_CAS));
    assert_string_equal(store_type(store), "oss");
    answer(200, put_ok, NULL);
    answer(409, NULL, ERR_XML("FileAlreadyExists", "x"));
    ok(put(NULL, &(struct store_put_opts){.if_absent = true, .timestamp_ms = 1000}, NULL));
    assert_int_equal(put(NULL, &create, NULL), RC_CONFLICT);
    assert_string_equal(sent(0, "x-oss-forbid-overwrite"), "true");
    assert_string_equal(sent(0, "x-oss-meta-litestream-timestamp"), "1970-01-01T00:00:01Z");
    assert_string_equal(sent(0, "x-oss-content-sha256"), "UNSIGNED-PAYLOAD");
    assert_string_equal(sent(0, "content-md5"), "XUFAKrxLKna5cZ2REBfFkg=="); /* so by this */
    assert_int_equal(strncmp(sent(0, "authorization"), "OSS4-HMAC-SHA256 ", 17), 0);
    assert_non_null(strstr(sent(0, "authorization"), "/cn-hangzhou/oss/aliyun_v4_request,"));
    assert_string_equal(sent(0, "x-amz-date"), "");
}

struct place {
    struct s3_conf conf;
    const char *region, *url, *path;
};

static void test_urls(void **state)
{
    (void)state;
    static const struct place places[] = {
        {{.bucket = "b", .root = "r"},
         "eu-west-1",
         "https://b.s3.eu-west-1.amazonaws.com/r/k%20+",
         "/r/k%20+"},
        {{.bucket = "b.c", .root = "."},
         "us-east-1",
         "https://s3.us-east-1.amazonaws.com/b.c/./k%20+",
         "/b.c/./k%20+"},
        {{.bucket = "b", .root = ""},
         "cn-north-1",
         "https://b.s3.cn-north-1.amazonaws.com.cn//k%20+",
         "//k%20+"},
        {{.bucket = "arn:aws:s3:us-west-2:123456789012:accesspoint/ap", .root = "r"},
         "us-west-2",
         "https://ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com/r/k%20+",
         "/r/k%20+"},
        {{.bucket = "b", .root = "r", .endpoint = "http://h:9000", .path_style = true},
         "x",
         "http://h:9000/b/r/k%20+",
         "/b/r/k%20+"},
        {{.bucket = "b", .root = "r", .endpoint = "https://h/storage/s3", .path_style = true},
         "x",
         "https://h/storage/s3/b/r/k%20+",
         "/storage/s3/b/r/k%20+"},
        {{.bucket = "b", .root = "r/s", .endpoint = "https://h:443"},
         "x",
         "https://b.h:443/r/s/k%20+",
         "/r/s/k%20+"},
        {{.dialect = S3_OSS, .bucket = "b", .root = "r", .endpoint = "https://oss-x.aliyuncs.com"},
         "x",
         "https://b.oss-x.aliyuncs.com/r/k%20+",
         "/b/r/k%20+"},
        {{.dialect = S3_OSS,
          .bucket = "b",
          .root = "r",
          .endpoint = "http://h",
          .path_style = true},
         "x",
         "http://h/b/r/k%20+",
         "/b/r/k%20+"},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        CLEANUP(buf_fini) struct buf url = BUF_INIT, path = BUF_INIT;
        static struct s3 s;
        char want_url[256], want_path[128];
        s.conf = places[i].conf;
        ok(s3_url(&s, "k +", places[i].region, &url, &path, &err));
        /* The plus of the table is one that is encoded. */
        snprintf(want_url, sizeof want_url, "%.*s%%2B", (int)strlen(places[i].url) - 1,
                 places[i].url);
        snprintf(want_path, sizeof want_path, "%.*s%%2B", (int)strlen(places[i].path) - 1,
                 places[i].path);
        assert_string_equal((char *)url.data, want_url);
        assert_string_equal((char *)path.data, want_path);
    }
    char host[64];
    s3_host("https://b.h:443/x", host, sizeof host);
    assert_string_equal(host, "b.h");
    s3_host("http://h:9000/x", host, sizeof host);
    assert_string_equal(host, "h:9000");
    s3_host("http://h:80", host, sizeof host);
    assert_string_equal(host, "h");
}

static void test_get(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct store_obj obj = {0};
    static const char head[] = "ETag: \"e1\"\r\nLast-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
                               "x-amz-meta-litestream-timestamp: 2026-01-02T01:00:00.5Z\r\n";
    peer_push(peer, &(struct peer_resp){.headers = head,
                                        .body = "0123456789",
                                        .body_size = 10,
                                        .fault = PEER_CUT_BODY,
                                        .fault_at = 4});
    answer(206, "ETag: \"e1\"\r\nContent-Range: bytes 4-9/10\r\n", "456789");
    ok(store_get(store, NULL, "k", &(struct store_get_opts){.ret_obj = &obj}, into_buf, &b, &err));
    assert_int_equal(b.size, 10);
    assert_memory_equal(b.data, "0123456789", 10);
    assert_string_equal(sent(1, "range"), "bytes=4-");
    assert_string_equal(sent(1, "if-match"), "\"e1\"");
    assert_non_null(strstr(sent(1, "authorization"), "host;if-match;range;"));
    assert_string_equal(obj.key, "k");
    assert_string_equal(obj.etag, "\"e1\"");
    assert_int_equal(obj.size, 10);
    assert_int_equal(obj.mtime_ms, 1767315600500);
    /* Another object under the same name. */
    peer_push(peer, &(struct peer_resp){.headers = head,
                                        .body = "0123456789",
                                        .body_size = 10,
                                        .fault = PEER_CUT_BODY,
                                        .fault_at = 4});
    answer(412, NULL, ERR_XML("PreconditionFailed", "x"));
    assert_int_equal(store_get(store, NULL, "k", NULL, into_buf, &b, &err), RC_CORRUPT);
    answer(404, NULL, ERR_XML("NoSuchKey", "x"));
    assert_int_equal(store_get(store, NULL, "k", NULL, into_buf, &b, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, "'k'"));
    answer(404, NULL, ERR_XML("NoSuchBucket", "x"));
    assert_int_equal(store_get(store, NULL, "k", NULL, into_buf, &b, &err), RC_INVALID);
    answer(416, "Content-Range: bytes */10\r\n", ERR_XML("InvalidRange", "x"));
    buf_reset(&b);
    ok(store_get(store, NULL, "k", &(struct store_get_opts){.off = 10}, into_buf, &b, &err));
    assert_int_equal(b.size, 0);
}

static enum rc list(const char *prefix, const struct store_list_opts *opts, struct buf *b)
{
    buf_reset(b);
    TRY(store_list(store, NULL, prefix, opts, into_lines, b, &err));
    return buf_append(b, "", 1, &err);
}

static void test_list(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    answer(200, NULL,
           PAGE(URL_MARK MORE_MARK "<NextContinuationToken>a/+ =</NextContinuationToken>",
                OBJ("root/a%2Fb") OBJ("root/c+d%2B") OBJ("root/folder/")));
    answer(200, NULL, PAGE(MORE_MARK, OBJ("root/k%41&amp;&lt;")));
    answer(200, NULL,
           PAGE("<IsTruncated>false</IsTruncated>",
                "<Contents><Size>0</Size><Key>root/\xc3\xbc</Key></Contents>"));
    ok(list("", &(struct store_list_opts){.after = "A b"}, &b));
    assert_string_equal((char *)b.data, "a/b \"e\" 7\nc d+ \"e\" 7\nk%41&< \"e\" 7\n\xc3\xbc  0\n");
    assert_string_equal(peer_at(peer, 0)->target,
                        "/bkt/?list-type=2&encoding-type=url&max-keys=1000&prefix=root%2F"
                        "&start-after=root%2FA%20b");
    assert_non_null(strstr(peer_at(peer, 1)->target, "&continuation-token=a%2F%2B%20%3D"));
    assert_null(strstr(peer_at(peer, 1)->target, "start-after"));
    /* No token: on from the last key. */
    assert_non_null(strstr(peer_at(peer, 2)->target, "&start-after=root%2Fk%2541%26%3C"));
    answer(200, NULL, PAGE("", ""));
    ok(list("none/", &(struct store_list_opts){.count_max = 2}, &b));
    assert_non_null(strstr(peer_at(peer, 3)->target, "max-keys=2&prefix=root%2Fnone%2F"));
    answer(403, NULL, ERR_XML("AccessDenied", "x"));
    assert_int_equal(list("", NULL, &b), RC_DENIED);
}

static void test_list_surprises(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    static const char *const pages[] = {
        "",
        "not XML",
        "<html><body>please log in</body></html>",
        ERR_XML("AccessDenied", "as a success"),
        "<ListBucketResult>",
        "<ListBucketResult><Contents></ListBucketResult></Contents>",
        "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]>" PAGE("", OBJ("root/&b;")),
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" PAGE("", ""),
        PAGE("", OBJ("root/&undefined;")),
        PAGE("", OBJ("other/a")),
        PAGE("", OBJ("root")),
        PAGE("", OBJ("")),
        PAGE(URL_MARK, OBJ("root/%4")),
        PAGE(URL_MARK, OBJ("root/%zz")),
        PAGE("", OBJ("root/b") OBJ("root/a")),
        PAGE("", OBJ("root/a") OBJ("root/a")),
        PAGE("", "<Contents><Key>root/a</Key></Contents>"),
        PAGE("", "<Contents><Size>1</Size></Contents>"),
        PAGE("", "<Contents><Key>root/a</Key><Size>-1</Size></Contents>"),
        PAGE("", "<Contents><Key>root/a</Key><Size>1x</Size></Contents>"),
        PAGE("", "<Contents><Key>root/a</Key><Size>1</Size><LastModified>now</LastModified>"
                 "</Contents>"),
        PAGE(MORE_MARK, ""),
        "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>",
    };
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        answer(200, NULL, pages[i]);
        if (list("", NULL, &b) != RC_CORRUPT) fail_msg("page %zu: %s", i, err.text);
    }
    assert_int_equal(peer_left(peer), 0);
    peer_push(peer, &(struct peer_resp){.body_size = 17u << 20});
    assert_int_equal(list("", NULL, &b), RC_TOO_BIG);
    /* Round in circles. */
    answer(200, NULL, PAGE(MORE_MARK "<NextContinuationToken>t</NextContinuationToken>", ""));
    answer(200, NULL, PAGE(MORE_MARK "<NextContinuationToken>t</NextContinuationToken>", ""));
    assert_int_equal(list("", NULL, &b), RC_CORRUPT);
    answer(200, NULL, PAGE(MORE_MARK, OBJ("root/a")));
    answer(200, NULL, PAGE(MORE_MARK, OBJ("root/a")));
    assert_int_equal(list("", NULL, &b), RC_CORRUPT);
    assert_int_equal(peer_left(peer), 0);
}

static void empty_page(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    (void)ctx;
    peer_text(resp,
              "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>%u"
              "</NextContinuationToken></ListBucketResult>",
              req->number);
}

static void test_list_without_end(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    reopen(empty_page, NULL, NULL, NULL);
    assert_int_equal(list("", NULL, &b), RC_CORRUPT);
    assert_non_null(strstr(err.text, "without end"));
}

static unsigned seed_get(void)
{
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)os_random();
    print_message("seed %u\n", seed);
    return seed;
}

/* Good documents with some bytes changed: any verdict, no crash, no more keys than there are. */
static void test_random_documents(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    static const char good[] = PAGE(URL_MARK, OBJ("root/a") OBJ("root/b%2F") OBJ("root/c"));
    static const char deletes[] = "<DeleteResult><Error><Key>root/a</Key><Code>AccessDenied</Code>"
                                  "<Message>no</Message></Error></DeleteResult>";
    unsigned seed = seed_get();
    for (int round = 0; round < 400; round++) {
        char page[sizeof good], gone[sizeof deletes];
        memcpy(page, good, sizeof page);
        memcpy(gone, deletes, sizeof gone);
        for (int n = rand_r(&seed) % 4; n >= 0; n--) {
            page[(size_t)rand_r(&seed) % (sizeof page - 1)] = (char)(rand_r(&seed) % 255 + 1);
            gone[(size_t)rand_r(&seed) % (sizeof gone - 1)] = (char)(rand_r(&seed) % 127 + 1);
        }
        page[rand_r(&seed) % 8 == 0 ? (size_t)rand_r(&seed) % sizeof page : sizeof page - 1] = 0;
        answer(200, NULL, page);
        answer(200, NULL, PAGE("", ""));
        enum rc rc = list("", NULL, &b);
        assert_true(rc == RC_OK || rc == RC_CORRUPT);
        peer_forget(peer);
        answer(200, NULL, gone);
        peer_push_many(peer, 2, &(struct peer_resp){.status = 204});
        (void)!store_del(store, NULL, (const char *[]){"a", "b"}, 2, &err);
        peer_forget(peer);
    }
}

static void test_delete_many(void **state)
{
    (void)state;
    static const char *const keys[] = {"a", "b<&>", "c"};
    answer(200, NULL, "<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>");
    ok(store_del(store, NULL, keys, 3, &err));
    const struct peer_req *req = peer_at(peer, 0);
    assert_string_equal(req->target, "/bkt/?delete");
    assert_string_equal(req->method, "POST");
    assert_non_null(strstr((char *)req->body, "<Quiet>true</Quiet><Object><Key>root/a</Key>"));
    assert_non_null(strstr((char *)req->body, "<Key>root/b&#60;&#38;&#62;</Key>"));
    assert_int_equal(strlen(sent(0, "content-md5")), 24);
    /* Missing is fine; what may pass is tried again alone; what is refused is told. */
    answer(200, NULL,
           "<DeleteResult><Error><Key>root/a</Key><Code>NoSuchKey</Code></Error>"
           "<Error><Key>root/c</Key><Code>InternalError</Code></Error></DeleteResult>");
    answer(204, NULL, NULL);
    ok(store_del(store, NULL, keys, 3, &err));
    assert_string_equal(peer_at(peer, 2)->target, "/bkt/root/c");
    answer(200, NULL,
           "<DeleteResult><Error><Key>root/a</Key><Code>SlowDown</Code></Error><Error><Key>root/c"
           "</Key><Code>AccessDenied</Code><Message>No\n</Message></Error></DeleteResult>");
    assert_int_equal(store_del(store, NULL, keys, 3, &err), RC_DENIED);
    assert_non_null(strstr(err.text, "root/c"));
    assert_non_null(strstr(err.text, "and 1 more"));
    assert_null(strchr(err.text, '\n'));
    answer(200, NULL, "<Html/>");
    assert_int_equal(store_del(store, NULL, keys, 3, &err), RC_CORRUPT);
    answer(200, NULL,
           "<DeleteResult><Error><Key>r</Key><Code>InternalError</Code></Error></DeleteResult>");
    assert_int_equal(store_del(store, NULL, keys, 3, &err), RC_CORRUPT);
    /* Control characters do not fit into XML. */
    answer(204, NULL, NULL);
    answer(204, NULL, NULL);
    ok(store_del(store, NULL, (const char *[]){"a\x01", "b"}, 2, &err));
    assert_int_equal(peer_left(peer), 0);
    /* Nor does what is not UTF-8. */
    answer(204, NULL, NULL);
    answer(204, NULL, NULL);
    ok(store_del(store, NULL, (const char *[]){"\xff", "b"}, 2, &err));
    assert_int_equal(peer_left(peer), 0);
    /* An answer that says nothing does not say that they are deleted. */
    answer(200, NULL, NULL);
    peer_push_many(peer, 3, &(struct peer_resp){.status = 204});
    ok(store_del(store, NULL, keys, 3, &err));
    assert_int_equal(peer_left(peer), 0);
    answer(200, NULL, "<DeleteResultX/>");
    assert_int_equal(store_del(store, NULL, keys, 3, &err), RC_CORRUPT);
    /* Not offered: one by one, and remembered. */
    unsigned before = peer_count(peer);
    answer(501, NULL, ERR_XML("NotImplemented", "x"));
    peer_push_many(peer, 6, &(struct peer_resp){.status = 204});
    ok(store_del(store, NULL, keys, 3, &err));
    ok(store_del(store, NULL, keys, 3, &err));
    assert_int_equal(peer_count(peer) - before, 7);
}

/* A service that takes uploads in parts, with faults. */
struct parts {
    atomic_uint begun, puts, completed, aborted, fail_once;
    const char *complete, *complete_once; /* answers */
    bool no_id, no_etag, refuse_part, slow_part, lose_complete;
};

/* Not on a stack: a connection may be served for a while after its test has ended. */
static struct parts served;

static void parts_serve(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    struct parts *p = &served;
    (void)ctx;
    if (strstr(req->target, "?uploads") != NULL) {
        atomic_fetch_add(&p->begun, 1);
        peer_text(resp,
                  "<InitiateMultipartUploadResult><Bucket>bkt</Bucket>%s"
                  "</InitiateMultipartUploadResult>",
                  p->no_id ? "" : "<UploadId>id/+</UploadId>");
    } else if (strstr(req->target, "?partNumber=") != NULL) {
        atomic_fetch_add(&p->puts, 1);
        if (strstr(req->target, "&uploadId=id%2F%2B") == NULL) resp->status = 400;
        if (p->slow_part) resp->delay_ms = 60000;
        if (p->refuse_part && strstr(req->target, "partNumber=2&") != NULL) resp->status = 403;
        if (atomic_exchange(&p->fail_once, 0) != 0) resp->status = 500;
        if (!p->no_etag) peer_head(resp, "ETag", "\"part\"");
    } else if (strcmp(req->method, "POST") == 0) {
        bool first = atomic_fetch_add(&p->completed, 1) == 0;
        if (p->lose_complete) {
            resp->status = first ? 200 : 404;
            resp->fault = first ? PEER_LOSE : PEER_FINE;
            peer_text(resp, ERR_XML("NoSuchUpload", "x"));
            return;
        }
        peer_text(resp, "%s",
                  first && p->complete_once ? p->complete_once
                  : p->complete
                      ? p->complete
                      : "<?xml version=\"1.0\"?>\n\n  <CompleteMultipartUploadResult><ETag>"
                        "&quot;whole-3&quot;</ETag></CompleteMultipartUploadResult>");
    } else if (strcmp(req->method, "DELETE") == 0) {
        atomic_fetch_add(&p->aborted, 1);
        resp->status = 204;
    } else if (strcmp(req->method, "HEAD") == 0) {
        resp->status = 404;
    } else {
        peer_head(resp, "ETag", "\"one\"");
    }
}

static struct parts *serve_parts(const struct parts *how, const char *key, const char *value)
{
    store_close(store);
    peer_stop(peer);
    served = *how;
    peer = peer_start(parts_serve, NULL);
    store = open_with("s3://bkt/root", key, value);
    return &served;
}

static void test_parts(void **state)
{
    (void)state;
    struct store_obj obj = {0};
    struct store_body body = {.size = 3 * PART + 1, .read = zero_read};
    struct parts *p = serve_parts(&(struct parts){.fail_once = 1}, "concurrency", "2");
    ok(store_put(store, NULL, "k", &body, &(struct store_put_opts){.timestamp_ms = 1000}, &obj,
                 &err));
    assert_string_equal(obj.etag, "\"whole-3\"");
    assert_int_equal(obj.size, 3 * PART + 1);
    assert_int_equal(p->begun, 1);
    assert_int_equal(p->puts, 5); /* one of them twice */
    assert_int_equal(p->completed, 1);
    assert_int_equal(p->aborted, 0);
    assert_in_range(peer_busy_max(peer), 1, 2);
    assert_string_equal(sent(0, "x-amz-meta-litestream-timestamp"), "1970-01-01T00:00:01Z");
    const struct peer_req *last = peer_at(peer, peer_count(peer) - 1);
    assert_non_null(strstr((char *)last->body,
                           "<Part><PartNumber>4</PartNumber><ETag>&#34;part&#34;</ETag></Part>"
                           "</CompleteMultipartUpload>"));
    assert_null(strstr((char *)last->body, "<PartNumber>5"));
    /* A condition goes with the completion. */
    ok(put_large(NULL, &create, 3 * PART));
    last = peer_at(peer, peer_count(peer) - 1);
    assert_string_equal(peer_header(last, "if-none-match"), "*");
    assert_string_equal(peer_at(peer, peer_count(peer) - 2)->method, "HEAD");
    /* ... but what fits into memory is one put. */
    unsigned before = p->begun;
    ok(put_large(NULL, &create, 2 * PART));
    assert_int_equal(p->begun, before);
}

static void parts_fail(const struct parts *how, enum rc want, unsigned aborted)
{
    struct parts *p = serve_parts(how, NULL, NULL);
    assert_int_equal(put_large(NULL, NULL, 3 * PART), want);
    assert_int_equal(p->aborted, aborted);
}

static void test_parts_fail(void **state)
{
    (void)state;
    parts_fail(&(struct parts){.no_id = true}, RC_AGAIN, 0);
    parts_fail(&(struct parts){.no_etag = true}, RC_AGAIN, 1);
    parts_fail(&(struct parts){.refuse_part = true}, RC_DENIED, 1);
    parts_fail(&(struct parts){.complete = ERR_XML("AccessDenied", "x")}, RC_DENIED, 1);
    parts_fail(&(struct parts){.complete = ERR_XML("InvalidPart", "x")}, RC_IO, 1);
    /* Completed, and nobody knows by whom: no success, no verdict. */
    parts_fail(&(struct parts){.lose_complete = true}, RC_AGAIN, 1);
    struct parts *p =
        serve_parts(&(struct parts){.complete_once = ERR_XML("InternalError", "x")}, NULL, NULL);
    ok(put_large(NULL, NULL, 3 * PART));
    assert_int_equal(p->completed, 2);
    assert_int_equal(p->aborted, 0);
    p = serve_parts(&(struct parts){.complete = "<CompleteMultipartUploadResult/>"}, NULL, NULL);
    struct call c = {.deadline_ms = os_mono_ms() + 1500};
    enum rc rc = put_large(&c, NULL, 3 * PART);
    assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
    assert_int_equal(p->aborted, 1);
}

/* The call's time has passed; taking back has its own. */
static void test_parts_cancel(void **state)
{
    (void)state;
    struct parts *p = serve_parts(&(struct parts){.slow_part = true}, NULL, NULL);
    struct call c = {.deadline_ms = os_mono_ms() + 1000};
    int64_t begin_ms = os_mono_ms();
    assert_int_equal(put_large(&c, NULL, 3 * PART), RC_CANCELED);
    assert_true(os_mono_ms() - begin_ms < 20000);
    assert_int_equal(p->aborted, 1);
}

/* 10,000 parts of a stream hold what an object can be, and begin as large as was asked for. */
static void test_part_growth(void **state)
{
    (void)state;
    uint64_t total = 0;
    for (uint32_t n = 1; n <= S3_PARTS_MAX; n++) {
        uint64_t size = s3_stream_part(PART, n);
        assert_true(n == 1 || size >= s3_stream_part(PART, n - 1));
        if (n <= 1000) assert_int_equal(size, PART);
        assert_true(size <= S3_PART_MAX);
        total += size;
    }
    assert_true(total >= 5ull << 40);
    assert_int_equal(s3_stream_part(S3_PART_MAX, S3_PARTS_MAX), S3_PART_MAX);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(test_put),
        CASE(test_put_again),
        CASE(test_slow_down),
        CASE(test_put_verdicts),
        CASE(test_create),
        CASE(test_replace),
        CASE(test_quotes_dropped),
        CASE(test_quotes_kept),
        CASE(test_quotes_ignored),
        CASE(test_region),
        CASE(test_clock),
        CASE(test_expired),
        CASE(test_link_region),
        CASE(test_checksums),
        CASE(test_extra_headers),
        CASE(test_google),
        CASE(test_oss),
        CASE(test_urls),
        CASE(test_get),
        CASE(test_list),
        CASE(test_list_surprises),
        CASE(test_list_without_end),
        CASE(test_random_documents),
        CASE(test_delete_many),
        CASE(test_parts),
        CASE(test_parts_fail),
        CASE(test_parts_cancel),
        CASE(test_part_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
