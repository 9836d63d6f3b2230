/* azure_sweep_test.c -- every allocation of each call on Azure's driver fails in turn: the call
 * fails with RC_NO_MEM or does without, nothing leaks (under AddressSanitizer), and the same call
 * works afterwards. The service is another process, so that only ours runs out of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "store/peer.h"
#include "store/store.h"

#define BIG_SIZE (3 * 65536 + 1)

static char endpoint[64];
static const char *key; /* NULL: with a token */
static struct err err;

/* Says yes to everything. */
static void handler(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    (void)ctx;
    if (strstr(req->target, "oauth2/token") != NULL) {
        peer_text(resp, "{\"access_token\":\"t\",\"expires_in\":3600}");
    } else if (strstr(req->target, "comp=list") != NULL && strcmp(req->method, "GET") == 0) {
        bool more = strstr(req->target, "marker=") == NULL;
        peer_text(resp,
                  "<EnumerationResults><Blobs><Blob><Name>db/%s</Name><Properties>"
                  "<Content-Length>5</Content-Length></Properties></Blob></Blobs>"
                  "<NextMarker>%s</NextMarker></EnumerationResults>",
                  more ? "a" : "b", more ? "m" : "");
    } else if (strcmp(req->method, "GET") == 0) {
        peer_serve(req, resp, "hello", 5, "\"1\"");
    } else {
        resp->status = req->method[0] == 'D' ? 202 : 201;
        peer_head(resp, "ETag", "\"1\"");
    }
}

/* Starts the process with the service; it ends when we close the pipe's other end, or end. */
static pid_t serve(int *ret_hold)
{
    int tell[2], hold[2];
    assert_int_equal(pipe(tell), 0);
    assert_int_equal(pipe(hold), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char byte;
        close(hold[1]);
        struct peer *p = peer_start(handler, NULL);
        dprintf(tell[1], "%s", peer_url(p));
        close(tell[1]);
        (void)!read(hold[0], &byte, 1);
        peer_stop(p);
        _exit(0);
    }
    close(hold[0]);
    close(tell[1]);
    ssize_t got = read(tell[0], endpoint, sizeof endpoint - 1);
    assert_true(got > 0);
    close(tell[0]);
    *ret_hold = hold[1];
    return pid;
}

static enum rc open_it(struct store **ret_store)
{
    struct store_setting settings[] = {{"endpoint", endpoint},
                                       {"part-size", "64KiB"},
                                       {"concurrency", "1"},
                                       {"account-key", key ? key : ""}};
    struct store_conf conf = {.url = "abs://acct@box/db", .settings = settings, .setting_count = 4};
    return store_open_conf(&conf, ret_store, &err);
}

static enum rc zeros(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)off, (void)e;
    memset(dst, 0, size);
    return RC_OK;
}

static enum rc more_zeros(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    uint64_t *left = ctx;
    if (size > *left) size = (size_t)*left;
    *left -= size;
    *ret_size = size;
    return zeros(NULL, 0, dst, size, e);
}

static enum rc drop(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size, (void)e;
    return RC_OK;
}

static enum rc count_up(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

static enum rc do_open(struct store *s)
{
    struct store *other;
    (void)s;
    enum rc rc = open_it(&other);
    if (rc == RC_OK) store_close(other);
    return rc;
}

static enum rc do_put(struct store *s)
{
    struct store_body body = {.size = 5, .read = zeros};
    return store_put(s, NULL, "a", &body, NULL, NULL, &err);
}

static enum rc do_put_blocks(struct store *s)
{
    struct store_body body = {.size = BIG_SIZE, .read = zeros};
    return store_put(s, NULL, "a", &body, NULL, NULL, &err);
}

static enum rc do_put_unknown(struct store *s)
{
    uint64_t left = BIG_SIZE;
    struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = more_zeros, .ctx = &left};
    return store_put(s, NULL, "a", &body, NULL, NULL, &err);
}

static enum rc do_get(struct store *s)
{
    return store_get(s, NULL, "a", &(struct store_get_opts){.off = 1, .size = 2}, drop, NULL, &err);
}

static enum rc do_list(struct store *s)
{
    unsigned count = 0;
    enum rc rc = store_list(s, NULL, "", NULL, count_up, &count, &err);
    if (rc == RC_OK) assert_int_equal(count, 2);
    return rc;
}

static enum rc do_del(struct store *s)
{
    return store_del(s, NULL, (const char *const[]){"a", "b"}, 2, &err);
}

static enum rc do_link(struct store *s)
{
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    enum rc rc = store_presign(s, NULL, "a", false, 60, &link, &err);
    if (key == NULL && rc == RC_UNSUPPORTED) rc = RC_OK;
    return rc;
}

/* A new store each time, so that what is kept from call to call is made again. */
static void sweep(enum rc (*fn)(struct store *s))
{
    uint64_t steps = 0;
    for (uint64_t nth = 1;; nth++) {
        struct store *s = NULL;
        assert_int_equal(open_it(&s), RC_OK);
        fault_arm(FAULT_ALLOC, nth, false);
        enum rc rc = fn(s);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        if (rc != RC_OK && rc != RC_NO_MEM)
            fail_msg("allocation %llu: %s: %s", (unsigned long long)nth, rc_name(rc), err.text);
        assert_int_equal(fn(s), RC_OK);
        store_close(s);
        if (!fired) break;
        steps++;
    }
    assert_true(steps > 0);
}

static void sweep_all(void)
{
    sweep(do_open);
    sweep(do_put);
    sweep(do_put_blocks);
    sweep(do_put_unknown);
    sweep(do_get);
    sweep(do_list);
    sweep(do_del);
    sweep(do_link);
}

static void test_with_key(void **state)
{
    (void)state;
    key = "c2VjcmV0IG9mIHRoZSBhY2NvdW50";
    sweep_all();
}

static void test_with_token(void **state)
{
    (void)state;
    setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", endpoint, 1);
    key = NULL;
    sweep_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_with_key),
                                       cmocka_unit_test(test_with_token)};
    static const char *const unwanted[] = {"AZURE_TENANT_ID",
                                           "AZURE_CLIENT_ID",
                                           "IDENTITY_ENDPOINT",
                                           "AZURE_STORAGE_KEY",
                                           "LITESTREAM_AZURE_ACCOUNT_KEY",
                                           "LITESTREAM_AZURE_SAS_TOKEN",
                                           "AZURE_STORAGE_SAS_TOKEN"};
    int hold, status = 0;
    for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
        unsetenv(unwanted[i]);
    pid_t pid = serve(&hold);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close(hold);
    waitpid(pid, &status, 0);
    return failed + (status != 0);
}
