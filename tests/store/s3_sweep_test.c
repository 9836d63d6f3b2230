/* s3_sweep_test.c -- every allocation of each call of the S3 driver fails in turn: the call fails
 * as out of memory or does not need it, an upload that was begun is completed or taken back, and
 * the store works afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/peer.h"
#include "store/s3_intern.h"

#define PART (5u << 20)

static struct err err;
static struct peer *peer;
static struct store *store;
static atomic_uint parts, ended; /* requests of this call */

static void serve(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    const char *target = req->target, *text = "";
    (void)ctx;
    if (strstr(target, "list-type=2") != NULL)
        text = strstr(target, "continuation-token") != NULL
                   ? "<ListBucketResult><Contents><Key>root/b</Key><Size>1</Size></Contents>"
                     "</ListBucketResult>"
                   : "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t"
                     "</NextContinuationToken><Contents><Key>root/a</Key><Size>1</Size></Contents>"
                     "</ListBucketResult>";
    else if (strstr(target, "?delete") != NULL)
        text = "<DeleteResult><Error><Key>root/a</Key><Code>InternalError</Code></Error>"
               "</DeleteResult>";
    else if (strstr(target, "?uploads") != NULL)
        text = "<InitiateMultipartUploadResult><UploadId>id</UploadId>"
               "</InitiateMultipartUploadResult>";
    else if (strcmp(req->method, "POST") == 0)
        text = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    else if (strcmp(req->method, "GET") == 0)
        text = "bytes";
    if (strstr(target, "?partNumber") != NULL) atomic_fetch_add(&parts, 1);
    if (strstr(target, "?uploadId") != NULL) atomic_fetch_add(&ended, 1);
    const char *match = peer_header(req, "if-match");
    if (match != NULL && strcmp(match, "e") != 0) resp->status = 412; /* wants no quotes */
    resp->headers = "ETag: \"e\"\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\n";
    resp->body = text;
    resp->body_size = strlen(text);
}

static enum rc open_store(struct store **ret)
{
    const struct store_setting settings[] = {{"endpoint", peer_url(peer)},
                                             {"access-key-id", "AKEY"},
                                             {"secret-access-key", "SECRETSECRET"},
                                             {"concurrency", "2"}};
    const struct store_conf conf = {
        .url = "s3://bkt/root", .settings = settings, .setting_count = 4};
    return store_open_conf(&conf, ret, &err);
}

static enum rc zero_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)off, (void)e;
    memset(dst, 'z', size);
    return RC_OK;
}

struct stream {
    uint64_t left;
};

static enum rc zero_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct stream *s = ctx;
    if (size > s->left) size = (size_t)s->left;
    s->left -= size;
    *ret_size = size;
    return zero_read(NULL, 0, dst, size, e);
}

static enum rc put_sized(uint64_t size, const struct store_put_opts *opts)
{
    struct store_body body = {.size = size, .read = zero_read};
    return store_put(store, NULL, "k", &body, opts, NULL, &err);
}

static enum rc op_open(void)
{
    struct store *s = NULL;
    enum rc rc = open_store(&s);
    store_close(s);
    return rc;
}

static enum rc op_put(void)
{
    return put_sized(100, &(struct store_put_opts){.timestamp_ms = 1, .if_absent = true});
}

static enum rc op_replace(void)
{
    atomic_store(&((struct s3 *)store)->quotes, S3_QUOTES_UNKNOWN);
    return put_sized(100, &(struct store_put_opts){.if_etag = "\"e\""});
}

static enum rc op_parts(void)
{
    return put_sized(2 * PART + 1, NULL);
}

static enum rc op_stream(void)
{
    struct stream s = {.left = 2 * PART + 1};
    struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = zero_next, .ctx = &s};
    return store_put(store, NULL, "k", &body, NULL, NULL, &err);
}

static enum rc take(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size, (void)e;
    return RC_OK;
}

static enum rc op_get(void)
{
    struct store_obj obj;
    return store_get(store, NULL, "k", &(struct store_get_opts){.ret_obj = &obj}, take, NULL, &err);
}

static enum rc count(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

static enum rc op_list(void)
{
    unsigned n = 0;
    enum rc rc = store_list(store, NULL, "", NULL, count, &n, &err);
    if (rc == RC_OK) assert_int_equal(n, 2);
    return rc;
}

static enum rc op_delete(void)
{
    return store_del(store, NULL, (const char *[]){"a", "b"}, 2, &err);
}

static enum rc op_link(void)
{
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    return store_presign(store, NULL, "k", false, 60, &link, &err);
}

static void test_allocations(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum rc (*op)(void);
    } ops[] = {{"open", op_open},   {"put", op_put},       {"replace", op_replace},
               {"parts", op_parts}, {"stream", op_stream}, {"get", op_get},
               {"list", op_list},   {"delete", op_delete}, {"link", op_link}};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        unsigned failures = 0;
        for (uint64_t n = 1;; n++) {
            atomic_store(&parts, 0);
            atomic_store(&ended, 0);
            fault_arm(FAULT_ALLOC, n, false);
            enum rc rc = ops[i].op();
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            if (rc != RC_OK) failures++;
            /* RC_AGAIN: an answer that could not be read for want of memory. */
            if (rc != RC_OK && rc != RC_NO_MEM && rc != RC_AGAIN)
                fail_msg("%s, allocation %llu (%s): %s: %s", ops[i].name, (unsigned long long)n,
                         fault_last(), rc_name(rc), err.text);
            /* (An upload whose id was never read cannot be ended.) */
            if (atomic_load(&parts) > 0 && atomic_load(&ended) == 0)
                fail_msg("%s, allocation %llu: the upload was not ended", ops[i].name,
                         (unsigned long long)n);
            if (!fired) {
                assert_int_equal(rc, RC_OK);
                break;
            }
        }
        assert_true(failures > 0);
        print_message("%s: %u allocations failed it\n", ops[i].name, failures);
        assert_int_equal(ops[i].op(), RC_OK);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_allocations)};
    peer = peer_start(serve, NULL);
    if (open_store(&store) != RC_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    store_close(store);
    peer_stop(peer);
    return failed;
}
