/* http_sweep_test.c -- every allocation of start, stop, reload and of serving fails in turn: a
 * sentence or a broken connection, nothing leaks, and the next request is served. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/thr.h"
#include "server/http.h"
#include "server/http_client.h"
#include "server/http_handler.h"

static enum rc pieces(struct http_req *r, struct err *err)
{
    char piece[3000];
    memset(piece, 'p', sizeof piece);
    TRY(http_stream_begin(r, 200, "text/plain", err));
    enum rc rc = RC_OK;
    for (int i = 0; i < 4 && rc == RC_OK; i++)
        rc = http_stream_write(r, piece, sizeof piece, false, err);
    http_stream_end(r, rc == RC_OK);
    return RC_OK;
}

static void raised(void *ctx, int fd, const void *extra, size_t extra_size)
{
    (void)ctx, (void)extra, (void)extra_size;
    (void)os_write_some(fd, "bye", 3);
    os_close(fd);
}

/* Its own allocations may fail, too; it always answers. */
static void on_sweep(void *ctx, struct http_req *r)
{
    const char *path = http_path(r);
    struct buf b = BUF_INIT;
    struct err err;
    enum rc rc = RC_OK;
    size_t size;
    (void)ctx;
    const void *body = http_body(r, &size);
    if (strcmp(path, "/pieces") == 0) {
        if (pieces(r, &err) != RC_OK) http_reply_text(r, 503, NULL, "short of memory");
        return;
    }
    if (strcmp(path, "/raise") == 0) {
        http_upgrade(r, raised, NULL);
        return;
    }
    if (strcmp(path, "/zip") == 0) {
        rc = buf_reserve(&b, 5000, &err);
        if (rc == RC_OK) memset(b.data, 'z', b.size = 5000);
    } else if (strcmp(path, "/headers") == 0) {
        rc = http_add_header(r, "X-Some", "value", &err);
    } else {
        rc = buf_append(&b, body, size, &err);
    }
    http_reply(r, rc == RC_OK ? 200 : 503, "text/plain", &b);
}

static struct http_server *serve_plainly(void)
{
    struct http_opts opts = {
        .listen = "127.0.0.1:0", .listen_fd = -1, .handle = on_sweep, .threads = 1};
    struct http_server *s = NULL;
    struct err err;
    assert_int_equal(http_server_start(&opts, &s, &err), RC_OK);
    http_server_address(s, address, sizeof address);
    return s;
}

static void test_start(void **state)
{
    (void)state;
    struct err err;
    char path[64];
    snprintf(path, sizeof path, "unix:/tmp/http-sweep-%d.sock", (int)getpid());
    for (int where = 0; where < 2; where++) {
        uint64_t n = 0;
        enum rc rc;
        do {
            struct http_server *s = NULL;
            struct http_opts opts = {.listen = where ? path : "127.0.0.1:0",
                                     .listen_fd = -1,
                                     .handle = on_request,
                                     .threads = 2};
            fault_arm(FAULT_ALLOC | FAULT_SYSCALL, ++n, false);
            rc = http_server_start(&opts, &s, &err);
            fault_arm(0, 0, false);
            if (rc == RC_OK) {
                http_server_stop(s);
            } else {
                assert_true(rc == RC_NO_MEM || rc == RC_IO || rc == RC_BUSY);
                assert_true(err.text[0] != '\0');
                assert_null(s);
            }
        } while (rc != RC_OK || n < 4);
        assert_true(n >= 4);
    }
}

/* What comes back is an answer, a refusal or nothing, never something else. */
static void test_requests(void **state)
{
    (void)state;
    static const char *const kinds[] = {
        "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 6000\r\n\r\n",
        "GET /headers HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /zip HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n",
        "GET /pieces HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /raise HTTP/1.1\r\nHost: h\r\n\r\n",
    };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        uint64_t n = 0;
        bool fired;
        do {
            /* A new server each time: its compressors are not there yet. */
            struct http_server *s = serve_plainly();
            char post[8192] = "";
            size_t size = strlen(kinds[k]) + (k == 1 ? 6000 : 0);
            memset(post, 'z', sizeof post);
            memcpy(post, kinds[k], strlen(kinds[k]));
            fault_arm(FAULT_ALLOC, ++n, false); /* the connection needs memory, too */
            struct client c = client_connect(address);
            (void)client_send(&c, post, size);
            struct pollfd p = {.fd = c.fd, .events = POLLIN};
            assert_int_equal(poll(&p, 1, CLIENT_WAIT_MS), 1);
            os_sleep_ms(5); /* the rest of a stream */
            fired = fault_fired();
            fault_arm(0, 0, false);
            struct answer a = client_answer(&c, false);
            unsigned status = a.status;
            answer_free(&a);
            client_close(&c);
            if (!fired) assert_true(status == 200 || status == 201 || status == 101);
            if (fired)
                assert_true(status == 0 || status == 200 || status == 201 || status == 503 ||
                            status == 101);
            c = client_connect(address);
            client_say(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
            a = client_answer(&c, false);
            assert_int_equal(a.status, 200);
            answer_free(&a);
            client_close(&c);
            stop(s);
        } while (fired);
        assert_true(n >= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_start, setup),
        cmocka_unit_test_setup(test_requests, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
