/* azure_test.c -- Azure's driver against a scripted service: what it asks, and what it makes of
 * answers that a real service gives too rarely. Includes azure_auth.c to reach its statics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "../../src/store/azure_auth.c"
#include "store/peer.h"

#define KEY      "c2VjcmV0IG9mIHRoZSBhY2NvdW50" /* "secret of the account" */
#define URL      "abs://acct@box/db"
#define ok(expr) assert_ok((expr), __LINE__)
#define ASKED(i) assert_asked((i), __LINE__)

static struct peer *peer;
static struct store *store;
static struct err err;

static const char *const variables[] = {"AZURE_TENANT_ID",
                                        "AZURE_CLIENT_ID",
                                        "AZURE_CLIENT_SECRET",
                                        "AZURE_FEDERATED_TOKEN_FILE",
                                        "AZURE_AUTHORITY_HOST",
                                        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
                                        "AZURE_STORAGE_ACCOUNT",
                                        "AZURE_STORAGE_KEY",
                                        "AZURE_STORAGE_SAS_TOKEN",
                                        "IDENTITY_ENDPOINT",
                                        "IDENTITY_HEADER",
                                        "LITESTREAM_AZURE_ACCOUNT_KEY",
                                        "LITESTREAM_AZURE_SAS_TOKEN",
                                        "http_proxy",
                                        "all_proxy"};

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static enum rc open_full(const char *url, struct store_setting *settings, size_t count)
{
    struct store_conf conf = {.url = url, .settings = settings, .setting_count = count};
    return store_open_conf(&conf, &store, &err);
}

/* With the peer as its service, and one more setting. */
static void open_peer(const char *name, const char *value)
{
    struct store_setting settings[] = {{"endpoint", peer_url(peer)}, {name, value}};
    ok(open_full(URL, settings, name ? 2 : 1));
}

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        unsetenv(variables[i]);
    peer = peer_start(NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    store = NULL;
    peer_stop(peer);
    return 0;
}

static void answer(int status, const char *headers, const char *body)
{
    struct peer_resp resp = {
        .status = status, .headers = headers, .body = body, .body_size = body ? strlen(body) : 0};
    peer_push(peer, &resp);
}

static const struct peer_req *assert_asked(unsigned i, int line)
{
    if (peer_count(peer) <= i) fail_msg("line %d: only %u requests", line, peer_count(peer));
    return peer_at(peer, i);
}

static enum rc put_opts(const char *key, const char *text, const struct store_put_opts *opts)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(store, NULL, key, &body, opts, NULL, &err);
}

static enum rc put_text(const char *key, const char *text)
{
    return put_opts(key, text, NULL);
}

static enum rc drop(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size, (void)e;
    return RC_OK;
}

static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s %llu %s %lld\n", obj->key, (unsigned long long)obj->size,
                      obj->etag, (long long)obj->mtime_ms);
}

/* The same signature by another road: the text as Microsoft's page on Shared Key writes it down. */
static void test_text_to_sign(void **state)
{
    (void)state;
    struct azure_auth a = {.account = "acct"};
    CLEANUP(http_req_fini)
    struct http_req req = {
        .method = "PUT",
        .url = "https://acct.blob.core.windows.net/box/a%20b?comp=block&blockid=QUE%3D%3D",
        .what = "x",
        .data_size = 11};
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    char date[DATE_SIZE];
    date_put(1795224230000, date);
    assert_string_equal(date, "Sat, 21 Nov 2026 01:23:50 GMT");
    date_put(951782400000, date);
    assert_string_equal(date, "Tue, 29 Feb 2000 00:00:00 GMT");
    ok(http_answer_header(&req, &err, "x-ms-version", "2021-08-06"));
    ok(http_answer_header(&req, &err, "Content-Type", "text/plain"));
    ok(http_answer_header(&req, &err, "x-ms-date", "now"));
    ok(http_answer_header(&req, &err, "x-ms-blob-type", "BlockBlob"));
    ok(http_answer_header(&req, &err, "If-None-Match", "*"));
    ok(http_answer_header(&req, &err, "Content-MD5", "md5"));
    ok(http_answer_header(&req, &err, "Range", "bytes=1-2"));
    ok(text_to_sign(&a, &req, &text, &err));
    ok(buf_append(&text, "", 1, &err));
    assert_string_equal((char *)text.data, "PUT\n\n\n11\nmd5\ntext/plain\n\n\n\n*\n\nbytes=1-2\n"
                                           "x-ms-blob-type:BlockBlob\nx-ms-date:now\n"
                                           "x-ms-version:2021-08-06\n"
                                           "/acct/box/a%20b\nblockid:QUE==\ncomp:block");
    /* Without a body the length is empty; an emulator has the account in the path, too. */
    req.data_size = 0;
    req.method = "GET";
    req.headers.size = 0;
    req.url = "http://127.0.0.1:1/acct/box?comp=list&prefix=a%2Fb&marker=";
    buf_reset(&text);
    ok(text_to_sign(&a, &req, &text, &err));
    ok(buf_append(&text, "", 1, &err));
    assert_string_equal(
        (char *)text.data,
        "GET\n\n\n\n\n\n\n\n\n\n\n\n/acct/acct/box\ncomp:list\nmarker:\nprefix:a/b");
}

static void test_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url, *key, *value, *name; /* name: of the store, or what the error says */
    } cases[] = {
        {"abs://acct@box/a/b", NULL, NULL, "abs://acct@box/a/b"},
        {"abs://acct@box", NULL, NULL, "abs://acct@box"},
        {"abs://acct@box/", NULL, NULL, "abs://acct@box"},
        {"abs://acct@box//a/./b/../c/", NULL, NULL, "abs://acct@box/a/c"},
        {"abs://acct@box/../../a", NULL, NULL, "abs://acct@box/a"},
        {"abs://acct@box/a%20b%2Fc", NULL, NULL, "abs://acct@box/a%20b/c"},
        {"abs://acct.blob.core.windows.net/box/a/b", NULL, NULL, "abs://acct@box/a/b"},
        {"abs://other@acct.blob.core.chinacloudapi.cn/box", NULL, NULL, "abs://acct@box"},
        {"abs://box/a", "account-name", "acct", "abs://acct@box/a"},
        {"abs://acct@box/a", "account-name", "mine", "abs://mine@box/a"},
        {"abs://acct@box/a", "bucket", "pail", "abs://acct@pail/a"},
        {"abs://acct@box/a", "path", "/x//y%20/", "abs://acct@box/x/y%2520"},
        {"abs://acct@$web/a", NULL, NULL, "abs://acct@$web/a"},
        {"abs://acct@box/a?endpoint=localhost:10000/acct", NULL, NULL, "abs://acct@box/a"},
        {"abs://acct@box/a", "endpoint", "https://blob.example.com/", "abs://acct@box/a"},
        {"abs://box/a", NULL, NULL, "!which storage account"},
        {"abs://acct@/a", NULL, NULL, "!which container"},
        {"abs://acct@Box/a", NULL, NULL, "!3 to 63 lower-case"},
        {"abs://ac%2Fct@box/a", NULL, NULL, "!name of a storage account"},
        {"abs://acct:" KEY "@box/a", NULL, NULL, "!no key in the URL"},
        {"abs://acct@box:80/a", NULL, NULL, "!takes no port"},
        {"abs://acct@box/a%zz", NULL, NULL, "!is no escape"},
        {"abs://acct@box/a%00", NULL, NULL, "!is no escape"},
        {"abs://acct@box/a%5Cb", NULL, NULL, "!backslash"},
        {"abs://acct@box/a", "endpoint", "ftp://x", "!endpoint must be"},
        {"abs://acct@box/a", "endpoint", "https://x?sig=1", "!endpoint must be"},
        {"abs://acct@box/a", "endpoint", "https://u@x", "!endpoint must be"},
        {"abs://acct@box/a", "account-key", "not base64!", "!account-key is not"},
        {"abs://acct@box/a", "sas-token", "hello", "!sas-token is not"},
        {"abs://acct@box/a", "sas-token", "sv=1&sig=a b", "!sas-token is not"},
        {"abs://acct@box/a", "part-size", "1KiB", "!part-size must be"},
        {"abs://acct@box/a", "concurrency", "0", "!concurrency"},
        {"abs://acct@box/a", "region", "x", "!no setting 'region'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_setting settings[] = {{"account-key", KEY}, {cases[i].key, cases[i].value}};
        enum rc rc = open_full(cases[i].url, settings, cases[i].key ? 2 : 1);
        if (cases[i].name[0] == '!') {
            if (rc != RC_INVALID) fail_msg("'%s' was taken", cases[i].url);
            if (strstr(err.text, cases[i].name + 1) == NULL)
                fail_msg("'%s' says: %s", cases[i].url, err.text);
            assert_null(strstr(err.text, KEY));
            continue;
        }
        ok(rc);
        assert_string_equal(store_name(store), cases[i].name);
        assert_string_equal(store_type(store), "abs");
        store_close(store);
        store = NULL;
    }
}

/* Settings alone, and who we are from the environment. */
static void test_environment(void **state)
{
    (void)state;
    struct store_setting settings[] = {
        {"endpoint", peer_url(peer)}, {"bucket", "box"}, {"path", "db"}};
    struct store_conf conf = {.type = "abs", .settings = settings, .setting_count = 3};
    setenv("AZURE_STORAGE_ACCOUNT", "acct", 1);
    setenv("AZURE_STORAGE_KEY", KEY, 1);
    ok(store_open_conf(&conf, &store, &err));
    assert_string_equal(store_name(store), URL);
    answer(201, "ETag: \"1\"\r\n", "");
    ok(put_text("k", "x"));
    assert_non_null(strstr(peer_header(ASKED(0), "Authorization"), "SharedKey acct:"));
    store_close(store);
    store = NULL;
    /* A key for another account is not ours; a signature goes before a key. */
    setenv("AZURE_STORAGE_ACCOUNT", "other", 1);
    setenv("LITESTREAM_AZURE_ACCOUNT_KEY", KEY, 1);
    setenv("LITESTREAM_AZURE_SAS_TOKEN", "?sv=1&sig=hush", 1);
    open_peer(NULL, NULL);
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_text("k", "x"));
    assert_string_equal(ASKED(1)->target, "/box/db/k?sv=1&sig=hush");
    assert_null(peer_header(ASKED(1), "Authorization"));
    assert_null(strstr(store_name(store), "hush"));
    answer(403, "x-ms-error-code: AuthorizationFailure\r\n", "");
    assert_int_equal(put_text("k", "x"), RC_DENIED);
    assert_null(strstr(err.text, "hush"));
    /* With a query of our own. */
    answer(200, NULL, "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>");
    CLEANUP(buf_fini) struct buf lines = BUF_INIT;
    ok(store_list(store, NULL, "", NULL, into_lines, &lines, &err));
    assert_non_null(strstr(ASKED(3)->target, "&prefix=db%2F&sv=1&sig=hush"));
}

static void test_put(void **state)
{
    (void)state;
    struct store_put_opts opts = {.timestamp_ms = 1767323045120, .if_absent = true};
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "hello", 5);
    struct store_obj obj;
    struct store_stats stats;
    open_peer("account-key", KEY);
    answer(503, "x-ms-error-code: ServerBusy\r\n", "");
    answer(500, "x-ms-error-code: OperationTimedOut\r\n", "");
    answer(400, "x-ms-error-code: Md5Mismatch\r\n", "");
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(store_put(store, NULL, "ltx/0/a b", &body, &opts, &obj, &err));
    assert_string_equal(obj.etag, "\"0x8D\"");
    assert_string_equal(obj.key, "ltx/0/a b");
    assert_int_equal(obj.size, 5);
    assert_int_equal(obj.mtime_ms, opts.timestamp_ms);
    assert_int_equal(peer_count(peer), 4);
    const struct peer_req *req = ASKED(3);
    assert_string_equal(req->method, "PUT");
    assert_string_equal(req->target, "/box/db/ltx/0/a%20b");
    assert_string_equal((const char *)req->body, "hello");
    assert_string_equal(peer_header(req, "x-ms-blob-type"), "BlockBlob");
    assert_string_equal(peer_header(req, "x-ms-version"), AZURE_VERSION);
    assert_string_equal(peer_header(req, "x-ms-meta-litestreamtimestamp"),
                        "2026-01-02T03:04:05.12Z");
    assert_string_equal(peer_header(req, "Content-MD5"), "XUFAKrxLKna5cZ2REBfFkg==");
    assert_string_equal(peer_header(req, "If-None-Match"), "*");
    assert_null(peer_header(req, "If-Match"));
    store_stats(store, &stats);
    assert_int_equal(stats.requests[STORE_OP_PUT], 4);
    assert_int_equal(stats.throttled, 1);
}

static void test_conditions(void **state)
{
    (void)state;
    struct store_put_opts create = {.if_absent = true}, replace = {.if_etag = "\"7\""};
    open_peer("account-key", KEY);
    answer(409, "x-ms-error-code: BlobAlreadyExists\r\n", "");
    assert_int_equal(put_opts("k", "x", &create), RC_CONFLICT);
    answer(409, "x-ms-error-code: BlobImmutableDueToPolicy\r\n", "");
    assert_int_equal(put_opts("k", "x", &create), RC_CONFLICT);
    /* The first try took effect, its answer was lost. */
    peer_push(peer, &(struct peer_resp){.status = 201, .fault = PEER_LOSE});
    answer(409, "x-ms-error-code: BlobAlreadyExists\r\n", "");
    assert_int_equal(put_opts("k", "x", &create), RC_CONFLICT);
    assert_int_equal(peer_count(peer), 4);
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_opts("k", "x", &replace));
    assert_string_equal(peer_header(ASKED(4), "If-Match"), "\"7\"");
    /* Another version, none at all, and not known. */
    answer(412, "x-ms-error-code: ConditionNotMet\r\n", "");
    answer(200, "ETag: \"8\"\r\n", "");
    assert_int_equal(put_opts("k", "x", &replace), RC_CONFLICT);
    assert_non_null(strstr(err.text, "ConditionNotMet"));
    assert_string_equal(ASKED(6)->method, "HEAD");
    answer(412, "x-ms-error-code: ConditionNotMet\r\n", "");
    answer(404, "x-ms-error-code: BlobNotFound\r\n", "");
    assert_int_equal(put_opts("k", "x", &replace), RC_NOT_FOUND);
    answer(412, "x-ms-error-code: ConditionNotMet\r\n", "");
    answer(403, "x-ms-error-code: AuthorizationPermissionMismatch\r\n", "");
    assert_int_equal(put_opts("k", "x", &replace), RC_CONFLICT);
    answer(412, "x-ms-error-code: LeaseIdMissing\r\n", "");
    assert_int_equal(put_opts("k", "x", &replace), RC_DENIED);
    /* A policy that forbids it is no other writer: whoever reads and tries again goes in circles.
     */
    answer(409, "x-ms-error-code: BlobImmutableDueToPolicy\r\n", "");
    assert_int_equal(put_opts("k", "x", &replace), RC_DENIED);
    /* Nor is a state that passes. */
    answer(409, "x-ms-error-code: PendingCopyOperation\r\n", "");
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_opts("k", "x", &create));
    assert_int_equal(peer_left(peer), 0);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *code;
        enum rc rc;
        const char *says;
    } cases[] = {
        {403, "AuthenticationFailed", RC_DENIED, "check account-name and account-key"},
        {403, "AuthorizationFailure", RC_DENIED, "network rules"},
        {403, "AccountIsDisabled", RC_DENIED, "subscription"},
        {403, "KeyBasedAuthenticationNotPermitted", RC_DENIED, "takes no keys"},
        {403, "SomethingNew", RC_DENIED, "SomethingNew"},
        {404, "ContainerNotFound", RC_INVALID, "create the container"},
        {404, "ResourceNotFound", RC_INVALID, "account and container"},
        {404, "BlobNotFound", RC_NOT_FOUND, "BlobNotFound"},
        {404, "", RC_NOT_FOUND, "get 'k'"},
        {409, "ContainerDisabled", RC_DENIED, "portal"},
        {409, "BlobArchived", RC_INVALID, "access tier"},
        {400, "InvalidQueryParameterValue", RC_INVALID, "InvalidQueryParameterValue"},
    };
    open_peer("account-key", KEY);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char head[256], body[256];
        /* With the code in the header, and in the body alone. */
        for (int way = 0; way < 2; way++) {
            snprintf(head, sizeof head, "x-ms-error-code: %s\r\n", cases[i].code);
            snprintf(body, sizeof body,
                     "\xEF\xBB\xBF<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>It is so."
                     "\nRequestId:1</Message></Error>",
                     cases[i].code);
            answer(cases[i].status, way || !cases[i].code[0] ? "" : head, way ? body : "");
            assert_int_equal(store_get(store, NULL, "k", NULL, drop, NULL, &err), cases[i].rc);
            if (strstr(err.text, cases[i].says) == NULL) fail_msg("it says: %s", err.text);
            if (way) assert_non_null(strstr(err.text, "It is so."));
            assert_null(strstr(err.text, "RequestId"));
        }
    }
    assert_int_equal(peer_count(peer), 2 * sizeof cases / sizeof cases[0]);
    /* A deleted blob is deleted; one in no container is a mistake. */
    answer(404, "x-ms-error-code: BlobNotFound\r\n", "");
    ok(store_del(store, NULL, &(const char *){"k"}, 1, &err));
    answer(404, "x-ms-error-code: ContainerNotFound\r\n", "");
    assert_int_equal(store_del(store, NULL, &(const char *){"k"}, 1, &err), RC_INVALID);
    answer(409, "x-ms-error-code: SnapshotsPresent\r\n", "");
    assert_int_equal(store_del(store, NULL, &(const char *){"k"}, 1, &err), RC_DENIED);
    assert_int_equal(put_text("a\\b", "x"), RC_INVALID);
    assert_int_equal(peer_left(peer), 0);
}

static void test_clock(void **state)
{
    (void)state;
    open_peer("account-key", KEY);
    char head[128], date[DATE_SIZE];
    date_put(os_now_ms() + 3600000, date);
    snprintf(head, sizeof head, "x-ms-error-code: AuthenticationFailed\r\nDate: %s\r\n", date);
    answer(403, head, "");
    assert_int_equal(put_text("k", "x"), RC_DENIED);
    assert_non_null(strstr(err.text, "this machine's clock is 3"));
    assert_non_null(strstr(err.text, " s behind"));
    date_put(os_now_ms() - 60000, date);
    snprintf(head, sizeof head, "x-ms-error-code: AuthenticationFailed\r\nDate: %s\r\n", date);
    answer(403, head, "");
    assert_int_equal(put_text("k", "x"), RC_DENIED);
    assert_null(strstr(err.text, " s ahead"));
}

static void test_get(void **state)
{
    (void)state;
    struct store_obj obj = {0};
    struct store_get_opts opts = {.off = 2, .size = 3, .ret_obj = &obj};
    open_peer("account-key", KEY);
    answer(206,
           "Content-Range: bytes 2-4/10\r\nETag: \"5\"\r\n"
           "Last-Modified: Fri, 02 Jan 2026 03:04:06 GMT\r\n"
           "x-ms-creation-time: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
           "x-ms-meta-litestreamtimestamp: 2026-01-01T00:00:00.007Z\r\n",
           "234");
    ok(store_get(store, NULL, "k", &opts, drop, NULL, &err));
    assert_string_equal(peer_header(ASKED(0), "Range"), "bytes=2-4");
    assert_string_equal(obj.key, "k");
    assert_string_equal(obj.etag, "\"5\"");
    assert_int_equal(obj.size, 10);
    assert_int_equal(obj.mtime_ms, 1767225600007);
    answer(200,
           "ETag: \"5\"\r\nLast-Modified: Fri, 02 Jan 2026 03:04:06 GMT\r\n"
           "x-ms-creation-time: Fri, 02 Jan 2026 03:04:05 GMT\r\n",
           "234");
    opts = (struct store_get_opts){.ret_obj = &obj};
    ok(store_get(store, NULL, "k", &opts, drop, NULL, &err));
    assert_null(peer_header(ASKED(1), "Range"));
    assert_int_equal(obj.mtime_ms, 1767323045000);
}

#define BLOB(name, more)                                                                           \
    "<Blob><Name>" name "</Name><Properties><Creation-Time>Fri, 02 Jan 2026 03:04:05 "             \
    "GMT</Creation-Time><Last-Modified>Sat, 03 Jan 2026 03:04:05 GMT</Last-Modified>"              \
    "<Etag>0x8D</Etag><Content-Length>7</Content-Length></Properties>" more "</Blob>"
#define PAGE(blobs, next)                                                                          \
    "\xEF\xBB\xBF<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName="     \
    "\"box\"><Prefix>db/</Prefix><Blobs>" blobs "</Blobs><NextMarker>" next                        \
    "</NextMarker></EnumerationResults>"

static void test_list(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf lines = BUF_INIT;
    open_peer("account-key", KEY);
    answer(200, NULL,
           PAGE(BLOB("db/ltx/0/a&amp;b", "<Metadata><Litestreamtimestamp>2026-01-02T03:04:05.678Z"
                                         "</Litestreamtimestamp></Metadata>")
                    BLOB("db/ltx/0/c", "<Metadata/>"),
                "2!92!MDAw/+="));
    answer(200, NULL, PAGE("", "more"));
    answer(200, NULL,
           PAGE(BLOB("db/ltx/0/d",
                     "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>") BLOB("elsewhere", "")
                    BLOB("db/ltx/0/e",
                         "<Metadata><litestreamtimestamp>soon</litestreamtimestamp></Metadata>"),
                ""));
    ok(store_list(store, NULL, "ltx/0/", NULL, into_lines, &lines, &err));
    ok(buf_append(&lines, "", 1, &err));
    assert_string_equal((char *)lines.data, "ltx/0/a&b 7 \"0x8D\" 1767323045678\n"
                                            "ltx/0/c 7 \"0x8D\" 1767323045000\n"
                                            "ltx/0/e 7 \"0x8D\" 1767323045000\n");
    assert_string_equal(ASKED(0)->target, "/box?restype=container&comp=list&include=metadata"
                                          "&maxresults=2000&prefix=db%2Fltx%2F0%2F");
    assert_non_null(
        strstr(ASKED(1)->target, "&prefix=db%2Fltx%2F0%2F&marker=2%2192%21MDAw%2F%2B%3D"));
    assert_non_null(strstr(ASKED(2)->target, "&marker=more"));
}

/* `after` is a filter: it must not become a part of the prefix, or what follows would be missed. */
static void test_list_after(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf lines = BUF_INIT;
    struct store_list_opts opts = {.after = "ltx/0/b", .count_max = 1};
    open_peer("account-key", KEY);
    assert_false(store_can(store, STORE_CAP_LIST_AFTER));
    answer(200, NULL, PAGE(BLOB("db/ltx/0/b", "") BLOB("db/ltx/0/c", ""), "x"));
    ok(store_list(store, NULL, "ltx/0/", &opts, into_lines, &lines, &err));
    assert_memory_equal(lines.data, "ltx/0/c ", 8);
    assert_int_equal(peer_count(peer), 1);
    assert_non_null(strstr(ASKED(0)->target, "&maxresults=2000&prefix=db%2Fltx%2F0%2F"));
    opts.after = NULL;
    answer(200, NULL, PAGE(BLOB("db/ltx/0/b", ""), "x"));
    ok(store_list(store, NULL, "ltx/0/", &opts, into_lines, &lines, &err));
    assert_non_null(strstr(ASKED(1)->target, "&maxresults=1&"));
    /* Another order than ours would break whoever relies on it. */
    answer(200, NULL, PAGE(BLOB("db/ltx/0/b", "") BLOB("db/ltx/0-", ""), ""));
    assert_int_equal(store_list(store, NULL, "ltx/", NULL, into_lines, &lines, &err),
                     RC_UNSUPPORTED);
    answer(200, NULL, "<EnumerationResults><Blobs>");
    assert_int_equal(store_list(store, NULL, "", NULL, into_lines, &lines, &err), RC_CORRUPT);
}

/* Pages without a blob, each of which names another one. */
static void page_forever(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    (void)ctx;
    peer_text(resp, PAGE("", "%u"), req->number);
}

static void test_list_surprises(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf lines = BUF_INIT;
    open_peer("account-key", KEY);
    static const char *const bad[] = {
        "<html><body/></html>", "<EnumerationResultsX/>", "",
        PAGE("<Blob><Name>db/a</Name><Properties/></Blob>", ""),
        PAGE("<Blob><Name>db/a</Name><Properties><Content-Length>1x</Content-Length></Properties>"
             "</Blob>",
             "")};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        answer(200, NULL, bad[i]);
        if (store_list(store, NULL, "", NULL, into_lines, &lines, &err) != RC_CORRUPT)
            fail_msg("%s: %s", bad[i], err.text);
    }
    store_close(store);
    peer_stop(peer);
    peer = peer_start(page_forever, NULL);
    open_peer("account-key", KEY);
    struct call c = {.deadline_ms = os_mono_ms() + 60000};
    assert_int_equal(store_list(store, &c, "", NULL, into_lines, &lines, &err), RC_CORRUPT);
    assert_non_null(strstr(err.text, "without end"));
    assert_int_equal(lines.size, 0);
}

/* A success without an etag is whoever's: a proxy's, a log-in page's. */
static void test_put_success(void **state)
{
    (void)state;
    open_peer("account-key", KEY);
    answer(200, NULL, "<html/>");
    assert_int_equal(put_text("k", "x"), RC_AGAIN);
    assert_non_null(strstr(err.text, "ETag"));
}

/* Only this machine gets tokens, and links, without TLS; a name that begins like its address is
 * somebody else's. */
static void test_not_this_machine(void **state)
{
    (void)state;
    static const char *const hosts[] = {"http://127.0.0.1.example.com", "http://127.example.com",
                                        "http://localhost.example.com"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct store_setting settings[] = {{"endpoint", hosts[i]}};
        assert_int_equal(open_full(URL, settings, 1), RC_INVALID);
        assert_non_null(strstr(err.text, "without https"));
    }
}

/* Bodies: byte i is i, and reads are counted. */
static enum rc body_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = (uint8_t)(off + i);
    return RC_OK;
}

static enum rc put_sized(uint64_t size, const struct store_put_opts *opts)
{
    struct store_body body = {.size = size, .read = body_read};
    return store_put(store, NULL, "k", &body, opts, NULL, &err);
}

static void open_small(const char *concurrency)
{
    struct store_setting settings[] = {{"endpoint", peer_url(peer)},
                                       {"account-key", KEY},
                                       {"part-size", "64KiB"},
                                       {"concurrency", concurrency}};
    ok(open_full(URL, settings, 4));
}

static void test_blocks(void **state)
{
    (void)state;
    struct store_put_opts opts = {.timestamp_ms = 1767323045000, .if_absent = true};
    char id[2][128];
    open_small("4");
    for (unsigned i = 0; i < 11; i++)
        peer_push(peer, &(struct peer_resp){.status = 201,
                                            .headers = "ETag: \"0x8D\"\r\n",
                                            .delay_ms = i < 8 ? 100 : 0});
    ok(put_sized(10 * 65536 - 1, &opts));
    assert_int_equal(peer_count(peer), 11);
    assert_in_range(peer_busy_max(peer), 2, 4);
    const struct peer_req *list = ASKED(10);
    assert_string_equal(list->target, "/box/db/k?comp=blocklist");
    assert_string_equal(peer_header(list, "If-None-Match"), "*");
    assert_string_equal(peer_header(list, "x-ms-meta-litestreamtimestamp"), "2026-01-02T03:04:05Z");
    const char *at = (const char *)list->body;
    /* The list names the blocks in order; each came with its bytes and without the condition. */
    for (unsigned i = 0; i < 10; i++) {
        unsigned found = 0;
        at = strstr(at, "<Latest>");
        assert_non_null(at);
        at += strlen("<Latest>");
        snprintf(id[0], 96, "%.*s", (int)strcspn(at, "<"), at);
        assert_int_equal(strlen(id[0]), 88);
        assert_string_equal(id[0] + 86, "==");
        snprintf(id[1], sizeof id[1], "blockid=%.86s%%3D%%3D", id[0]);
        for (unsigned k = 0; k < 10; k++) {
            const struct peer_req *block = ASKED(k);
            assert_null(peer_header(block, "If-None-Match"));
            if (strstr(block->target, id[1]) == NULL) continue;
            found++;
            assert_int_equal(block->body_total, i < 9 ? 65536 : 65535);
        }
        assert_int_equal(found, 1);
    }
    assert_null(strstr(at, "<Latest>"));
}

static void test_blocks_fail(void **state)
{
    (void)state;
    struct store_put_opts create = {.if_absent = true};
    open_small("1");
    /* A block is refused: no more of them, no list. */
    answer(201, "ETag: \"0x8D\"\r\n", "");
    answer(403, "x-ms-error-code: AuthorizationFailure\r\n", "");
    assert_int_equal(put_sized(10 * 65536, NULL), RC_DENIED);
    assert_int_equal(peer_count(peer), 2);
    /* Somebody else's list made our blocks vanish: asking again would not help. */
    for (int way = 0; way < 2; way++) {
        peer_forget(peer);
        for (int i = 0; i < 3; i++)
            answer(i < 2 ? 201 : 400, "x-ms-error-code: InvalidBlockList\r\n", "");
        assert_int_equal(put_sized(2 * 65536, way ? &create : NULL), way ? RC_CONFLICT : RC_AGAIN);
        assert_non_null(strstr(err.text, "somebody else"));
        assert_int_equal(peer_count(peer), 3);
    }
    /* The list's answer was lost: the same list again finds the blocks where they are now. */
    peer_forget(peer);
    answer(201, "ETag: \"0x8D\"\r\n", "");
    answer(201, "ETag: \"0x8D\"\r\n", "");
    peer_push(peer, &(struct peer_resp){.status = 201, .fault = PEER_LOSE});
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_sized(2 * 65536, NULL));
    assert_int_equal(peer_count(peer), 4);
    assert_string_equal((const char *)ASKED(2)->body, (const char *)ASKED(3)->body);
    /* A blob has 50,000 blocks, of 4000 MiB at most. */
    assert_int_equal(put_sized(UINT64_MAX / 4, NULL), RC_TOO_BIG);
}

/* Service and identity service in one. */
static void answer_token(const char *token, int seconds)
{
    char body[256];
    snprintf(body, sizeof body,
             "{\"token_type\":\"Bearer\",\"expires_in\":\"%d\",\"access_token\":\"%s\"}", seconds,
             token);
    answer(200, "Content-Type: application/json\r\n", body);
}

static void test_machine_identity(void **state)
{
    (void)state;
    setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", peer_url(peer), 1);
    setenv("AZURE_CLIENT_ID", "me&you", 1);
    open_peer(NULL, NULL);
    answer(410, NULL, "");
    answer_token("one", 86400);
    answer(201, "ETag: \"0x8D\"\r\n", "");
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_text("k", "x"));
    ok(put_text("k", "x"));
    assert_int_equal(peer_count(peer), 4);
    assert_string_equal(ASKED(1)->target,
                        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
                        "https%3A%2F%2Fstorage.azure.com%2F&client_id=me%26you");
    assert_string_equal(peer_header(ASKED(1), "Metadata"), "true");
    assert_string_equal(peer_header(ASKED(3), "Authorization"), "Bearer one");
    /* Refused: another one is fetched, once. */
    answer(401, "x-ms-error-code: InvalidAuthenticationInfo\r\n", "");
    answer_token("two", 86400);
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_text("k", "x"));
    assert_string_equal(peer_header(ASKED(6), "Authorization"), "Bearer two");
    answer(401, "x-ms-error-code: InvalidAuthenticationInfo\r\n", "");
    answer_token("three", 86400);
    answer(401, "x-ms-error-code: InvalidAuthenticationInfo\r\n", "");
    assert_int_equal(put_text("k", "x"), RC_DENIED);
    assert_non_null(strstr(err.text, "Storage Blob Data Contributor"));
    assert_null(strstr(err.text, "three"));
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    assert_int_equal(store_presign(store, NULL, "k", false, 60, &link, &err), RC_UNSUPPORTED);
    assert_int_equal(peer_left(peer), 0);
}

static void test_no_identity(void **state)
{
    (void)state;
    /* A port where nobody listens: that of a server that is gone. */
    struct peer *gone = peer_start(NULL, NULL);
    setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", peer_url(gone), 1);
    peer_stop(gone);
    open_peer(NULL, NULL);
    struct call c = {.deadline_ms = os_mono_ms() + 3000};
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    enum rc rc = store_put(store, &c, "k", &body, NULL, NULL, &err);
    assert_int_equal(rc, RC_DENIED);
    assert_non_null(strstr(err.text, "none of account-key, sas-token"));
    store_close(store);
    store = NULL;
    /* Nor is a token shown to whoever listens on the way. */
    struct store_setting settings[] = {{"endpoint", "http://blob.example.com"}};
    assert_int_equal(open_full(URL, settings, 1), RC_INVALID);
    assert_non_null(strstr(err.text, "https"));
}

static void test_app_identity(void **state)
{
    (void)state;
    char url[128], body[128];
    snprintf(url, sizeof url, "%s/msi/token", peer_url(peer));
    setenv("IDENTITY_ENDPOINT", url, 1);
    setenv("IDENTITY_HEADER", "hush", 1);
    open_peer(NULL, NULL);
    snprintf(body, sizeof body, "{\"access_token\":\"app\",\"expires_on\":\"%lld\"}",
             (long long)os_now_ms() / 1000 + 3600);
    answer(200, NULL, body);
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_text("k", "x"));
    assert_string_equal(ASKED(0)->target, "/msi/token?api-version=2019-08-01&resource="
                                          "https%3A%2F%2Fstorage.azure.com%2F");
    assert_string_equal(peer_header(ASKED(0), "X-IDENTITY-HEADER"), "hush");
    assert_string_equal(peer_header(ASKED(1), "Authorization"), "Bearer app");
}

/* Authority on this machine: the rule that it must be https knows that exception. */
static void test_client_secret(void **state)
{
    (void)state;
    setenv("AZURE_AUTHORITY_HOST", peer_url(peer), 1);
    setenv("AZURE_TENANT_ID", "tenant", 1);
    setenv("AZURE_CLIENT_ID", "client", 1);
    setenv("AZURE_CLIENT_SECRET", "s&cret", 1);
    open_peer(NULL, NULL);
    answer(401, NULL,
           "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client "
           "secret provided.\\r\\nTrace ID: 1\"}");
    assert_int_equal(put_text("k", "x"), RC_DENIED);
    assert_non_null(strstr(err.text, "AADSTS7000215"));
    assert_null(strstr(err.text, "Trace"));
    assert_null(strstr(err.text, "cret\""));
    answer(200, NULL, "{\"access_token\":\"two words\",\"expires_in\":3600}");
    assert_int_equal(put_text("k", "x"), RC_AGAIN);
    answer(200, NULL, "{\"access_token\":\"aad\",\"expires_in\":3600}");
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_text("k", "x"));
    assert_string_equal(ASKED(0)->target, "/tenant/oauth2/v2.0/token");
    assert_string_equal(ASKED(0)->method, "POST");
    assert_string_equal((const char *)ASKED(0)->body,
                        "grant_type=client_credentials&scope=https%3A%2F%2Fstorage.azure.com%2F"
                        ".default&client_id=client&client_secret=s%26cret");
    assert_string_equal(peer_header(ASKED(0), "Content-Type"), "application/x-www-form-urlencoded");
    store_close(store);
    store = NULL;
    setenv("AZURE_AUTHORITY_HOST", "http://login.example.com", 1);
    struct store_setting settings[] = {{"endpoint", peer_url(peer)}};
    assert_int_equal(open_full(URL, settings, 1), RC_INVALID);
    assert_non_null(strstr(err.text, "AZURE_AUTHORITY_HOST"));
}

static void test_workload_identity(void **state)
{
    (void)state;
    char path[] = "/tmp/sluice-token-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "jwt.one\n", 8), 8);
    close(fd);
    char host[128];
    snprintf(host, sizeof host, "%s/", peer_url(peer));
    setenv("AZURE_AUTHORITY_HOST", host, 1);
    setenv("AZURE_TENANT_ID", "tenant", 1);
    setenv("AZURE_CLIENT_ID", "client", 1);
    setenv("AZURE_FEDERATED_TOKEN_FILE", path, 1);
    open_peer(NULL, NULL);
    answer(200, NULL, "{\"access_token\":\"fed\",\"expires_in\":3600}");
    answer(201, "ETag: \"0x8D\"\r\n", "");
    ok(put_text("k", "x"));
    assert_string_equal(ASKED(0)->target, "/tenant/oauth2/v2.0/token");
    assert_non_null(strstr((const char *)ASKED(0)->body, "&client_assertion_type=urn%3Aietf%3A"
                                                         "params%3Aoauth%3Aclient-assertion-type"
                                                         "%3Ajwt-bearer&client_assertion=jwt.one"));
    assert_string_equal(peer_header(ASKED(1), "Authorization"), "Bearer fed");
    unlink(path);
    answer(401, NULL, "");
    assert_int_equal(put_text("k", "x"), RC_DENIED); /* it is no object that is missing */
    assert_non_null(strstr(err.text, "AZURE_FEDERATED_TOKEN_FILE"));
}

struct user {
    struct azure_auth *a;
    enum rc rc;
    pthread_t thread;
};

static void *user_main(void *arg)
{
    struct user *u = arg;
    struct err mine;
    CLEANUP(http_req_fini) struct http_req req = {.method = "GET", .url = "http://x/y"};
    u->rc = azure_auth_sign(u->a, NULL, &req, &mine);
    return NULL;
}

static void use_by_many(struct azure_auth *a, enum rc want)
{
    struct user users[8];
    for (int i = 0; i < 8; i++) {
        users[i] = (struct user){.a = a};
        ok(thr_start(&users[i].thread, "user", user_main, &users[i], &err));
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(users[i].thread, NULL);
        assert_int_equal(users[i].rc, want);
    }
}

/* One thread fetches for all; an old token does while a new one cannot be had. */
static void test_token_shared(void **state)
{
    (void)state;
    struct azure_auth_conf conf = {.account = "acct", .sas = "", .key = "", .encrypted = true};
    struct azure_auth *a = NULL;
    setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", peer_url(peer), 1);
    ok(azure_auth_open(&conf, &a, &err));
    char body[] = "{\"access_token\":\"one\",\"expires_in\":3600}";
    peer_push(peer,
              &(struct peer_resp){.body = body, .body_size = sizeof body - 1, .delay_ms = 100});
    use_by_many(a, RC_OK);
    assert_int_equal(peer_count(peer), 1);
    assert_in_range(a->token.renew_ms, os_mono_ms() + 3200000, os_mono_ms() + 3300000);
    /* Time to refresh: it fails, and is not tried again at once. */
    a->token.renew_ms = os_mono_ms();
    answer(400, NULL, "{\"error\":\"invalid_request\"}");
    use_by_many(a, RC_OK);
    use_by_many(a, RC_OK);
    assert_int_equal(peer_count(peer), 2);
    assert_string_equal((char *)a->token.text.data, "one");
    /* Now it succeeds. */
    a->token.renew_ms = os_mono_ms();
    answer_token("two", 60);
    use_by_many(a, RC_OK);
    assert_int_equal(peer_count(peer), 3);
    assert_string_equal((char *)a->token.text.data, "two");
    /* A failure is everybody's, too: eight that wait do not ask one after the other. */
    a->token.expires_ms = a->token.renew_ms = 0;
    static const char refusal[] = "{\"error\":\"invalid_request\"}";
    peer_push_many(
        peer, 8,
        &(struct peer_resp){
            .status = 400, .body = refusal, .body_size = sizeof refusal - 1, .delay_ms = 1500});
    use_by_many(a, RC_DENIED);
    assert_int_equal(peer_count(peer), 4);
    azure_auth_close(a);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_text_to_sign),
        CASE(test_urls),
        CASE(test_environment),
        CASE(test_put),
        CASE(test_conditions),
        CASE(test_errors),
        CASE(test_clock),
        CASE(test_get),
        CASE(test_list),
        CASE(test_list_after),
        CASE(test_list_surprises),
        CASE(test_put_success),
        CASE(test_not_this_machine),
        CASE(test_blocks),
        CASE(test_blocks_fail),
        CASE(test_machine_identity),
        CASE(test_no_identity),
        CASE(test_app_identity),
        CASE(test_client_secret),
        CASE(test_workload_identity),
        CASE(test_token_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
