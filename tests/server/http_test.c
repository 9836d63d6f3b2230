/* http_test.c -- the HTTP server under well-behaved, odd and hostile clients, over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <zlib.h>
#include "base/thr.h"
#include "server/http.h"
#include "server/http_client.h"
#include "server/http_handler.h"
#include "server/http_intern.h"

/* ---- Whole requests ---- */

static void test_simple(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    for (int i = 0; i < 3; i++) {
        struct answer a = ask(&c, "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_int_equal(a.status, 200);
        assert_true(answer_is(&a, "{\"ok\":1}"));
        assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
        assert_null(answer_header(&a, "Access-Control-Allow-Origin"));
        answer_free(&a);
    }
    struct answer a = ask(&c, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.status, 404);
    answer_free(&a);
    a = ask(&c, "GET /late?ms=40 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(a.status, 200);
    assert_true(answer_is(&a, "late"));
    answer_free(&a);
    client_close(&c);
    stop(s);
}

static void test_parts(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    struct answer a = ask(&c, "GET /parts/a%20b?x=1%2B1&y&z=a+b HTTP/1.1\r\nHost: h.example\r\n"
                              "X-One: first value\r\nx-one: second\r\n\r\n");
    assert_true(answer_is(&a, "GET /parts/a b x=1+1 y= z=a b none=NULL host=h.example "
                              "one=first value loop=1"));
    answer_free(&a);
    a = ask(&c, "GET http://other/parts/?x= HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(answer_is(&a, "GET /parts/ x= y=NULL z=NULL none=NULL host=h one=NULL loop=1"));
    answer_free(&a);
    a = ask(&c, "GET http://other HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 404); /* "/" */
    answer_free(&a);
    client_close(&c);
    static const char *const bad[] = {"/parts/a%00b", "/parts?x=%00"};
    for (size_t i = 0; i < 2; i++) {
        char text[128];
        c = client_connect(address);
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", bad[i]);
        a = ask(&c, text);
        assert_int_equal(a.status, 400);
        assert_true(answer_has(&a, "\"code\":\"BAD_REQUEST\""));
        answer_free(&a);
        client_close(&c);
    }
    stop(s);
}

static void test_head(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    client_say(&c, "HEAD /ok HTTP/1.1\r\nHost: h\r\n\r\nHEAD /parts/ HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        struct answer a = client_answer(&c, true);
        assert_int_equal(a.status, 200);
        assert_non_null(answer_header(&a, "Content-Length"));
        answer_free(&a);
    }
    /* Nothing of a body came: the next answer is in step. */
    struct answer a = ask(&c, "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(answer_is(&a, "{\"ok\":1}"));
    answer_free(&a);
    client_say(&c, "HEAD /stream?n=3&size=10 HTTP/1.1\r\nHost: h\r\n\r\n");
    a = client_answer(&c, true);
    assert_int_equal(a.status, 200);
    assert_null(answer_header(&a, "Content-Length"));
    answer_free(&a);
    client_expect_end(&c);
    client_close(&c);
    stop(s);
}

static void test_bytewise(void **state)
{
    (void)state;
    static const char text[] =
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n";
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        assert_true(client_send(&c, text + i, 1));
        if (i % 16 == 0) os_sleep_us(500);
    }
    struct answer a = client_answer(&c, false);
    assert_true(answer_is(&a, "hello"));
    answer_free(&a);
    a = client_answer(&c, false);
    assert_true(answer_is(&a, "abcde"));
    answer_free(&a);
    client_close(&c);
    stop(s);
}

static void test_pipelined(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.threads = 2});
    struct client c = client_connect(address);
    struct buf all = BUF_INIT;
    struct err err;
    for (int i = 0; i < 100; i++) {
        const char *path = i % 3 == 0 ? "/late?ms=1" : i % 3 == 1 ? "/echo" : "/stream?n=2&size=3";
        assert_int_equal(buf_printf(&all, &err,
                                    "POST %s HTTP/1.1\r\nHost: h\r\n"
                                    "Content-Length: 3\r\n\r\n%03d",
                                    path, i),
                         RC_OK);
    }
    assert_true(client_send(&c, all.data, all.size));
    for (int i = 0; i < 100; i++) {
        char want[8];
        snprintf(want, sizeof want, "%03d", i);
        struct answer a = client_answer(&c, false);
        assert_int_equal(a.status, 200);
        assert_true(answer_is(&a, i % 3 == 0 ? "late" : i % 3 == 1 ? want : "aaabbb"));
        answer_free(&a);
    }
    buf_fini(&all);
    client_close(&c);
    stop(s);
}

static void test_bodies(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.body_max = 4 << 20});
    struct client c = client_connect(address);
    static const size_t sizes[] = {0, 1, 4095, 4096, 5000, 300000, 4 << 20};
    uint8_t *data = mem_alloc(4 << 20);
    struct err err;
    for (size_t i = 0; i < 4 << 20; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        for (int chunked = 0; chunked < 2; chunked++) {
            struct buf req = BUF_INIT;
            assert_int_equal(buf_printf(&req, &err, "POST /echo HTTP/1.1\r\nHost: h\r\n"), RC_OK);
            size_t step = chunked ? 70000 : sizes[k];
            if (!chunked)
                (void)!buf_printf(&req, &err, "Content-Length: %zu\r\n\r\n", sizes[k]);
            else
                (void)!buf_printf(&req, &err, "Transfer-Encoding: Chunked\r\n\r\n");
            for (size_t off = 0; off < sizes[k]; off += step) {
                size_t n = sizes[k] - off < step ? sizes[k] - off : step;
                if (chunked) (void)!buf_printf(&req, &err, "%zx\r\n", n);
                (void)!buf_append(&req, data + off, n, &err);
                if (chunked) (void)!buf_printf(&req, &err, "\r\n");
            }
            if (chunked) (void)!buf_printf(&req, &err, "0\r\n\r\n");
            assert_true(client_send(&c, req.data, req.size));
            struct answer a = client_answer(&c, false);
            assert_int_equal(a.status, 200);
            assert_int_equal(a.body.size, sizes[k]);
            if (sizes[k] > 0) assert_memory_equal(a.body.data, data, sizes[k]);
            answer_free(&a);
            buf_fini(&req);
        }
    }
    mem_free(data);
    client_close(&c);
    stop(s);
}

static void test_continue(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.body_max = 1000});
    struct client c = client_connect(address);
    struct answer a = ask(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n"
                              "Expect: 100-Continue\r\n\r\n");
    assert_int_equal(a.status, 100);
    answer_free(&a);
    a = ask(&c, "data");
    assert_int_equal(a.status, 200);
    assert_true(answer_is(&a, "data"));
    answer_free(&a);
    a = ask(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n"
                "Expect: 100-continue\r\n\r\n");
    assert_int_equal(a.status, 413); /* and nobody was asked to go on */
    answer_free(&a);
    client_close(&c);
    stop(s);
}

/* ---- Answers ---- */

static void test_gzip(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        bool zipped;
    } cases[] = {{"gzip", true},
                 {"deflate, gzip;q=0.5", true},
                 {"*", true},
                 {"gzip;q=0", false},
                 {"gzip; q=0.0, *", false},
                 {"identity", false},
                 {"br", false},
                 {"GZIP", true},
                 {"gzip;q=0.001", true},
                 {"xgzip, gzipx", false},
                 {"*;q=0", false},
                 {"", false}};
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET /big HTTP/1.1\r\nHost: h\r\nAccept-Encoding: %s\r\n\r\n",
                 cases[i].accept);
        struct answer a = ask(&c, text);
        const char *coding = answer_header(&a, "Content-Encoding");
        if ((coding != NULL) != cases[i].zipped) print_error("'%s'\n", cases[i].accept);
        assert_int_equal(coding != NULL, cases[i].zipped);
        assert_string_equal(answer_header(&a, "Vary"), "Accept-Encoding");
        assert_string_equal(answer_header(&a, "Content-Type"), "text/x-big; a=\"b\"");
        if (cases[i].zipped) {
            static uint8_t out[BIG_SIZE + 1];
            z_stream z = {.next_in = a.body.data,
                          .avail_in = (unsigned)a.body.size,
                          .next_out = out,
                          .avail_out = sizeof out};
            assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
            assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
            assert_int_equal(z.total_out, BIG_SIZE);
            for (size_t k = 0; k < BIG_SIZE; k++)
                assert_int_equal(out[k], big_byte(k));
            inflateEnd(&z);
            assert_true(a.body.size < BIG_SIZE / 2);
        } else {
            assert_int_equal(a.body.size, BIG_SIZE);
        }
        answer_free(&a);
    }
    /* Small answers, errors and what does not get smaller stay as they are. */
    static const char *const plain[] = {"/ok", "/big?status=404", "/big?noise=1", "/big?coded=1"};
    for (size_t i = 0; i < 4; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n",
                 plain[i]);
        struct answer a = ask(&c, text);
        const char *coding = answer_header(&a, "Content-Encoding");
        if (i == 3)
            assert_string_equal(coding, "own");
        else
            assert_null(coding);
        answer_free(&a);
    }
    client_close(&c);
    stop(s);
}

static void test_cors(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.cors = true});
    struct client c = client_connect(address);
    struct answer a = ask(&c, "OPTIONS /ok HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n"
                              "Access-Control-Request-Method: POST\r\n"
                              "Access-Control-Request-Headers: authorization, x-b\r\n\r\n");
    assert_int_equal(a.status, 204);
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Origin"), "*");
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Headers"), "authorization, x-b");
    assert_non_null(strstr(answer_header(&a, "Access-Control-Allow-Methods"), "POST"));
    answer_free(&a);
    a = ask(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Origin"), "*");
    answer_free(&a);
    client_close(&c);
    stop(s);
    s = serve(&(struct http_opts){0});
    c = client_connect(address);
    a = ask(&c, "OPTIONS /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 200); /* the handler's */
    answer_free(&a);
    client_close(&c);
    stop(s);
}

static void test_headers(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    struct answer a = ask(&c, "GET /headers HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 201);
    assert_string_equal(answer_header(&a, "X-A"), "1");
    assert_string_equal(answer_header(&a, "X-B"), "two words");
    assert_null(answer_header(&a, "X-Evil"));
    assert_null(answer_header(&a, "Content-Type"));
    answer_free(&a);
    client_close(&c);
    stop(s);
    assert_int_equal(atomic_load(&finis), 1); /* the data of the request was given back */
}

/* ---- Limits ---- */

static void expect_refusal(const char *request, size_t size, unsigned status, const char *code)
{
    struct client c = client_connect(address);
    char want[64];
    (void)client_send(&c, request, size);
    struct answer a = client_answer(&c, false);
    snprintf(want, sizeof want, "\"code\":\"%s\"", code);
    if (a.status != status) print_error("'%.60s' gave %u\n", request, a.status);
    assert_int_equal(a.status, status);
    assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
    assert_string_equal(answer_header(&a, "Connection"), "close");
    assert_true(answer_has(&a, want));
    assert_true(answer_has(&a, "\"message\":\"") && answer_has(&a, "\"error\":\""));
    answer_free(&a);
    client_expect_end(&c);
    client_close(&c);
}

static void expect_refusal_of(const char *request, unsigned status, const char *code)
{
    expect_refusal(request, strlen(request), status, code);
}

static void test_too_large(void **state)
{
    (void)state;
    struct http_server *s =
        serve(&(struct http_opts){.body_max = 10000, .head_max = 2000, .body_sum_max = 30000});
    expect_refusal_of("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10001\r\n\r\n", 413,
                      "BODY_TOO_LARGE");
    /* The client sends a lot, all at once, and still gets the answer. */
    struct buf req = BUF_INIT;
    struct err err;
    (void)!buf_printf(&req, &err,
                      "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n");
    assert_int_equal(buf_reserve(&req, 3000000, &err), RC_OK);
    memset(req.data + req.size, 'x', 3000000);
    req.size += 3000000;
    expect_refusal((char *)req.data, req.size, 413, "BODY_TOO_LARGE");
    buf_reset(&req);
    (void)!buf_printf(&req, &err,
                      "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked"
                      "\r\n\r\n");
    for (int i = 0; i < 300; i++)
        (void)!buf_printf(&req, &err, "3e8\r\n%01000d\r\n", i);
    expect_refusal((char *)req.data, req.size, 413, "BODY_TOO_LARGE");
    buf_reset(&req);
    (void)!buf_printf(&req, &err, "GET /ok HTTP/1.1\r\nHost: h\r\nX-Long: %02500d\r\n\r\n", 0);
    expect_refusal((char *)req.data, req.size, 431, "HEAD_TOO_LARGE");
    /* Far beyond the buffer: the library's own answer. */
    buf_reset(&req);
    (void)!buf_printf(&req, &err, "GET /ok HTTP/1.1\r\nHost: h\r\nX-Long: %050000d\r\n\r\n", 0);
    struct client c = client_connect(address);
    (void)client_send(&c, req.data, req.size);
    struct answer a = client_answer(&c, false);
    assert_int_equal(a.status, 431);
    answer_free(&a);
    client_close(&c);
    /* 8000 bytes each, two of them half sent and counted with their buffers: no place for more. */
    struct client half[4];
    for (int i = 0; i < 4; i++) {
        half[i] = client_connect(address);
        if (i == 3) break;
        client_say(&half[i], "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 8000\r\n\r\nxyz");
        size_t sum = (size_t)(i + 1) * 8000;
        for (int k = 0; k < 6000 && atomic_load(&s->body_sum) < sum; k++)
            os_sleep_ms(10);
        assert_true(atomic_load(&s->body_sum) >= sum);
    }
    a = ask(&half[3], "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 8000\r\n\r\nxyz");
    assert_int_equal(a.status, 503);
    assert_true(answer_has(&a, "\"code\":\"SERVER_BUSY\""));
    answer_free(&a);
    for (int i = 0; i < 4; i++)
        client_close(&half[i]);
    /* And when they have gone there is. */
    for (int i = 0; i < 3000; i++) {
        c = client_connect(address);
        buf_reset(&req);
        (void)!buf_printf(&req, &err,
                          "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 8000\r\n"
                          "\r\n%08000d",
                          7);
        assert_true(client_send(&c, req.data, req.size));
        a = client_answer(&c, false);
        unsigned status = a.status;
        answer_free(&a);
        client_close(&c);
        if (status == 200) break;
        assert_true(i < 2999);
        os_sleep_ms(20);
    }
    buf_fini(&req);
    stop(s);
}

static void test_malformed(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){0});
    expect_refusal_of("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n"
                      "\r\nabcd",
                      400, "BAD_REQUEST");
    expect_refusal_of("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                      400, "BAD_REQUEST");
    expect_refusal_of("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n"
                      "Content-Length: 3\r\n\r\nabc",
                      400, "BAD_REQUEST");
    expect_refusal_of("GET /ok HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "BAD_REQUEST");
    expect_refusal_of("GET /o k HTTP/1.1\r\nHost: h\r\n\r\n", 400, "BAD_REQUEST");
    expect_refusal("GET /ok\0x HTTP/1.1\r\nHost: h\r\n\r\n", 31, 400, "BAD_REQUEST");
    expect_refusal_of("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
                      "0\r\n\r\n",
                      501, "UNSUPPORTED_ENCODING");
    /* What the library refuses itself, in its own words: one answer, then the end. */
    static const char *const bad[] = {
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3x\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /ok HTTP/9.1\r\nHost: h\r\n\r\n",
        "\x16\x03\x01\x02\r\n\r\n",
        "GET\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct client c = client_connect(address);
        client_say(&c, bad[i]);
        struct answer a = client_answer(&c, false);
        if (a.status != 0 && a.status / 100 != 4 && a.status != 505)
            print_error("'%.40s' gave %u\n", bad[i], a.status);
        assert_true(a.status == 0 || a.status / 100 == 4 || a.status == 505);
        answer_free(&a);
        while (!a.closed && client_more(&c))
            continue;
        client_close(&c);
    }
    assert_int_equal(atomic_load(&handled), 0);
    stop(s);
}

static void test_slow(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.receive_ms = 300, .idle_ms = 3000});
    static const char head[] =
        "GET /ok HTTP/1.1\r\nHost: h\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char body[] = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n";
    struct client c[3];
    for (int i = 0; i < 3; i++)
        c[i] = client_connect(address);
    /* One has had a request before, the next trickles its first head, the third its body. */
    struct answer a = ask(&c[0], "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    os_sleep_ms(100);
    client_say(&c[2], body);
    int64_t start = os_mono_ms();
    bool open[3] = {true, true, true};
    for (size_t i = 0; i < sizeof head - 1 && os_mono_ms() - start < 250; i++) {
        for (int k = 0; k < 3; k++)
            assert_true(client_send(&c[k], k == 2 ? "x" : head + i, 1) ||
                        os_mono_ms() - start >= 300);
        os_sleep_ms(20);
    }
    for (int i = 0; i < 1000 && (open[0] || open[1] || open[2]); i++) {
        for (int k = 0; k < 3; k++) {
            struct pollfd p = {.fd = c[k].fd, .events = POLLIN};
            if (!open[k]) continue;
            (void)client_send(&c[k], "a", 1);
            if (poll(&p, 1, 0) != 1) continue;
            a = client_answer(&c[k], false);
            assert_int_equal(a.status, 408);
            assert_true(answer_has(&a, "\"code\":\"REQUEST_TIMEOUT\""));
            answer_free(&a);
            open[k] = false;
        }
        os_sleep_ms(20);
    }
    int64_t took = os_mono_ms() - start;
    for (int k = 0; k < 3; k++) {
        assert_false(open[k]);
        client_close(&c[k]);
    }
    assert_true(took >= 300 && took < 20000);
    /* A quiet connection is not a slow one, until idle_ms. */
    c[0] = client_connect(address);
    c[1] = client_connect(address);
    a = ask(&c[1], "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    answer_free(&a);
    os_sleep_ms(600);
    for (int k = 0; k < 2; k++) {
        a = ask(&c[k], "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(a.status, 200);
        answer_free(&a);
    }
    start = os_mono_ms();
    client_expect_end(&c[0]);
    took = os_mono_ms() - start;
    assert_true(took > 500 && took < 30000);
    client_close(&c[0]);
    client_close(&c[1]);
    stop(s);
}

static void test_connection_limits(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.conn_max = 4, .threads = 2});
    struct client c[5];
    for (int i = 0; i < 4; i++) {
        c[i] = client_connect(address);
        struct answer a = ask(&c[i], "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(a.status, 200);
        answer_free(&a);
    }
    c[4] = client_connect(address);
    client_say(&c[4], "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    struct pollfd p = {.fd = c[4].fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 100), 0); /* it waits */
    client_close(&c[0]);
    struct answer a = client_answer(&c[4], false);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    for (int i = 1; i < 5; i++)
        client_close(&c[i]);
    stop(s);
    s = serve(&(struct http_opts){.conn_max_per_ip = 2, .threads = 2});
    for (int i = 0; i < 2; i++) {
        c[i] = client_connect(address);
        a = ask(&c[i], "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        answer_free(&a);
    }
    c[2] = client_connect(address);
    client_expect_end(&c[2]);
    for (int i = 0; i < 3; i++)
        client_close(&c[i]);
    stop(s);
}

/* ---- Clients who go away ---- */

static void test_gone(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.threads = 1});
    struct client c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = client_connect(address);
        client_say(&c[i], "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_parked(i + 1);
    }
    assert_int_equal(http_server_active(s), 3);
    os_sleep_ms(60);
    for (int i = 0; i < 3; i++)
        assert_false(atomic_load(http_gone(parked[i])));
    client_close(&c[1]);
    assert_true(becomes(http_gone(parked[1])));
    assert_false(atomic_load(http_gone(parked[0])));
    assert_false(atomic_load(http_gone(parked[2])));
    for (int i = 0; i < 3; i++)
        http_reply_text(parked[i], 200, "text/plain", "at last");
    for (int i = 0; i < 3; i += 2) {
        struct answer a = client_answer(&c[i], false);
        assert_true(answer_is(&a, "at last"));
        answer_free(&a);
        client_close(&c[i]);
    }
    stop(s);
}

static void test_stop_with_waiting(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.threads = 2});
    struct client c[4], idle = client_connect(address);
    struct answer a = ask(&idle, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    answer_free(&a);
    for (int i = 0; i < 4; i++) {
        c[i] = client_connect(address);
        client_say(&c[i], i == 3 ? "GET /forever HTTP/1.1\r\nHost: h\r\n\r\n"
                                 : "GET /obedient HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for (int i = 0; i < 6000 && http_server_active(s) < 4; i++)
        os_sleep_ms(10);
    http_server_quiesce(s);
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), -1);
    os_close(fd);
    /* Those who are connected are served, and told to go. */
    a = ask(&idle, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Connection"), "close");
    answer_free(&a);
    client_close(&idle);
    assert_int_equal(http_server_active(s), 4);
    stop(s); /* tells them to hurry, and waits */
    for (int i = 0; i < 3; i++) {
        a = client_answer(&c[i], false);
        assert_true(answer_is(&a, "stopped"));
        answer_free(&a);
    }
    a = client_answer(&c[3], false);
    assert_int_equal(a.status, 200);
    assert_true(a.closed); /* a stream that was broken off */
    answer_free(&a);
    for (int i = 0; i < 4; i++)
        client_close(&c[i]);
}

/* ---- Streams ---- */

static void test_stream(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.cors = true});
    struct client c = client_connect(address);
    struct answer a = ask(&c, "GET /stream?n=100&size=1000 HTTP/1.1\r\nHost: h\r\n"
                              "Accept-Encoding: gzip\r\n\r\n");
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Transfer-Encoding"), "chunked");
    assert_null(answer_header(&a, "Content-Encoding"));
    assert_int_equal(a.body.size, 100000);
    for (size_t i = 0; i < a.body.size; i++)
        assert_int_equal(a.body.data[i], 'a' + i / 1000 % 26);
    answer_free(&a);
    a = ask(&c, "GET /stream?n=0&size=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.body.size, 0);
    assert_false(a.closed);
    answer_free(&a);
    a = ask(&c, "GET /stream?n=3&size=10&broken=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 200);
    assert_true(a.closed);
    answer_free(&a);
    client_close(&c);
    c = client_connect(address); /* an old client gets it until the end of the connection */
    a = ask(&c, "GET /stream?n=30&size=10 HTTP/1.0\r\n\r\n");
    assert_true(a.until_close);
    assert_int_equal(a.body.size, 300);
    answer_free(&a);
    client_close(&c);
    stop(s);
}

/* Pieces that are flushed arrive one by one. */
static void test_stream_flush(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){0});
    struct client c = client_connect(address);
    client_say(&c, "GET /steps HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 1; i <= 3; i++) {
        char want[16];
        snprintf(want, sizeof want, "step %d\n", i);
        while (c.in.size == 0 || memmem(c.in.data, c.in.size, want, strlen(want)) == NULL)
            assert_true(client_more(&c));
        atomic_fetch_add(&steps_seen, 1); /* only now the next is written */
    }
    client_close(&c);
    stop(s);
}

static void test_stream_slow_reader(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.idle_ms = 20000});
    struct client c = client_connect(address);
    const int small = 32768;
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    client_say(&c, "GET /stream?n=30000&size=1000 HTTP/1.1\r\nHost: h\r\n\r\n");
    long last = -1;
    for (int i = 0; i < 100; i++) { /* until the writer stands still */
        os_sleep_ms(50);
        long now = atomic_load(&written);
        if (now == last && now > 0) break;
        last = now;
    }
    assert_true(last < 8 << 20); /* what the kernel and our 256 KiB hold, of 30 MB */
    struct answer a = client_answer(&c, false);
    assert_int_equal(a.body.size, 30000000);
    answer_free(&a);
    client_close(&c);
    stop(s);
}

static void test_stream_gone(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.threads = 2});
    for (int i = 0; i < 6; i++) {
        struct client c = client_connect(address);
        client_say(&c, i % 2 == 0 ? "GET /stream?n=1000000&size=1000 HTTP/1.1\r\nHost: h\r\n\r\n"
                                  : "GET /forever HTTP/1.1\r\nHost: h\r\n\r\n");
        while (c.in.size < 100)
            assert_true(client_more(&c));
        client_close(&c);
    }
    for (int i = 0; i < 6000 && http_server_active(s) > 0; i++)
        os_sleep_ms(10);
    assert_int_equal(http_server_active(s), 0);
    assert_int_equal(atomic_load(&canceled), 6);
    stop(s);
}

/* Less at once would not open the window of what the kernel holds. */
static void take_some(struct client *c, int64_t *gap_ms)
{
    static char some[16384];
    int64_t since = os_mono_ms();
    os_sleep_ms(20);
    int64_t n = os_read_some(c->fd, some, sizeof some), took = os_mono_ms() - since;
    if (took > *gap_ms) *gap_ms = took;
    assert_true(n > 0 || *gap_ms >= 1000);
}

/* The server ends: who takes nothing of his answer is cut off, who takes a little is not. */
static void test_stream_stuck(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.idle_ms = 600000, .threads = 2});
    struct client c[2];
    const int small = 4096;
    long last = -1;
    for (int i = 0; i < 2; i++) {
        c[i] = client_connect(address);
        setsockopt(c[i].fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        client_say(&c[i], "GET /stream?n=1000000&size=1000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for (long now; (now = atomic_load(&written)) != last || now == 0; last = now)
        os_sleep_ms(100); /* until both writers stand still */
    assert_int_equal(http_server_active(s), 2);
    http_server_quiesce(s);
    int64_t since = os_mono_ms(), end = since + 30000, gap = 0;
    while (http_server_active(s) == 2 && os_mono_ms() < end)
        take_some(&c[1], &gap);
    assert_true(os_mono_ms() - since >= 1900);
    if (gap < 1000) { /* else this machine was too busy to take anything */
        assert_int_equal(http_server_active(s), 1);
        assert_int_equal(atomic_load(&canceled), 1);
        end = os_mono_ms() + 2500;
        while (os_mono_ms() < end && gap < 1000)
            take_some(&c[1], &gap);
        assert_true(http_server_active(s) == 1 || gap >= 1000);
    }
    client_close(&c[1]);
    client_close(&c[0]);
    stop(s);
}

/* ---- Upgrade ---- */

static void upgrade_talk(struct client *c)
{
    client_say(c, "GET /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                  "early ");
    struct answer a = client_answer(c, false);
    assert_int_equal(a.status, 101);
    assert_string_equal(answer_header(&a, "Upgrade"), "websocket");
    assert_non_null(strcasestr(answer_header(&a, "Connection"), "upgrade"));
    assert_string_equal(answer_header(&a, "X-Key"), "k");
    answer_free(&a);
    client_say(c, "bytes.");
    /* The other side echoes all up to the point, doubled, and closes. */
    while (c->in.size < 24)
        assert_true(client_more(c));
    assert_int_equal(c->in.size, 24);
    assert_memory_equal(c->in.data, "early bytes.early bytes.", 24);
    buf_reset(&c->in);
    client_expect_end(c);
}

static void test_upgrade(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.threads = 2, .receive_ms = 600});
    for (int i = 0; i < 4; i++) {
        struct client c = client_connect(address);
        struct answer a = ask(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        answer_free(&a);
        if (i == 3) atomic_store(&upgrade_late, true); /* from another thread */
        upgrade_talk(&c);
        client_close(&c);
    }
    assert_int_equal(atomic_load(&finis), 4);
    stop(s);
}

/* ---- Where to listen ---- */

static void test_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",       "8080",    "localhost:", "localhost:x", "1.2.3.4:70000",
        "::1:80", "[::1:80", "unix:",      "a b:80",      "192.0.2.1:0"};
    struct http_server *s;
    struct err err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct http_opts opts = {.listen = bad[i], .listen_fd = -1, .handle = on_request};
        enum rc rc = http_server_start(&opts, &s, &err);
        if (rc != RC_INVALID) print_error("'%s'\n", bad[i]);
        assert_int_equal(rc, RC_INVALID);
        assert_non_null(strstr(err.text, bad[i]));
    }
    s = serve(&(struct http_opts){.listen = ":0"});
    assert_true(strncmp(address, "[::]:", 5) == 0 || strncmp(address, "0.0.0.0:", 8) == 0);
    struct client c = client_connect(address);
    struct answer a = ask(&c, "GET /parts/ HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(answer_has(&a, "loop=1")); /* by the mapped address, too */
    answer_free(&a);
    client_close(&c);
    struct http_server *second;
    struct http_opts opts = {.listen = address, .listen_fd = -1, .handle = on_request};
    assert_int_equal(http_server_start(&opts, &second, &err), RC_BUSY);
    assert_non_null(strstr(err.text, address));
    stop(s);
}

static void test_unix(void **state)
{
    (void)state;
    char path[64], listen_at[80];
    struct err err;
    struct stat st;
    snprintf(path, sizeof path, "/tmp/http-test-%d.sock", (int)getpid());
    snprintf(listen_at, sizeof listen_at, "unix:%s", path);
    for (int i = 0; i < 2; i++) {
        struct http_server *s = serve(&(struct http_opts){.listen = listen_at}), *second;
        assert_string_equal(address, listen_at);
        struct client c = client_connect(address);
        struct answer a = ask(&c, "GET /parts/ HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_true(answer_has(&a, "loop=1"));
        answer_free(&a);
        client_close(&c);
        struct http_opts opts = {.listen = listen_at, .listen_fd = -1, .handle = on_request};
        assert_int_equal(http_server_start(&opts, &second, &err), RC_BUSY);
        stop(s);
        assert_int_equal(os_stat(path, &st, &err), RC_NOT_FOUND);
        if (i == 1) break;
        /* What a killed server leaves behind is in nobody's way. */
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
        assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
        os_close(fd);
        assert_int_equal(os_stat(path, &st, &err), RC_OK);
    }
}

static void test_handed_over(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0), plain = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct http_server *s;
    struct err err;
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(fd, 16), 0);
    struct http_opts opts = {.listen_fd = plain, .handle = on_request};
    assert_int_equal(http_server_start(&opts, &s, &err), RC_INVALID);
    os_close(plain); /* it stayed ours */
    s = serve(&(struct http_opts){.listen_fd = fd});
    assert_int_equal(strncmp(address, "127.0.0.1:", 10), 0);
    struct client c = client_connect(address);
    struct answer a = ask(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    client_close(&c);
    stop(s);
}

/* ---- Many at once ---- */

static void *client_main(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int round = 0; round < 10; round++) {
        struct client c = client_connect(address);
        for (int i = 0; i < 20; i++) {
            static const char *const kinds[] = {"/ok", "/late?ms=1", "/stream?n=20&size=500",
                                                "/echo", "/late?ms=0"};
            char text[128];
            snprintf(text, sizeof text,
                     "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
                     kinds[rand_r(&seed) % 5]);
            client_say(&c, text);
            if (rand_r(&seed) % 40 == 0) break; /* leaves without a word */
            struct answer a = client_answer(&c, false);
            assert_int_equal(a.status, 200);
            answer_free(&a);
        }
        client_close(&c);
    }
    return NULL;
}

static void test_many(void **state)
{
    (void)state;
    struct http_server *s = serve(&(struct http_opts){.threads = 3});
    const char *env = getenv("SLUICE_SEED");
    uint64_t seed = env != NULL ? strtoull(env, NULL, 10) : os_random() % 1000000;
    pthread_t ids[8];
    struct err err;
    print_message("SLUICE_SEED=%llu\n", (unsigned long long)seed);
    for (uintptr_t i = 0; i < 8; i++)
        assert_int_equal(thr_start(&ids[i], "client", client_main, (void *)(seed + i), &err),
                         RC_OK);
    for (int i = 0; i < 8; i++)
        pthread_join(ids[i], NULL);
    stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_simple, setup),
        cmocka_unit_test_setup(test_parts, setup),
        cmocka_unit_test_setup(test_head, setup),
        cmocka_unit_test_setup(test_bytewise, setup),
        cmocka_unit_test_setup(test_pipelined, setup),
        cmocka_unit_test_setup(test_bodies, setup),
        cmocka_unit_test_setup(test_continue, setup),
        cmocka_unit_test_setup(test_gzip, setup),
        cmocka_unit_test_setup(test_cors, setup),
        cmocka_unit_test_setup(test_headers, setup),
        cmocka_unit_test_setup(test_too_large, setup),
        cmocka_unit_test_setup(test_malformed, setup),
        cmocka_unit_test_setup(test_slow, setup),
        cmocka_unit_test_setup(test_connection_limits, setup),
        cmocka_unit_test_setup(test_gone, setup),
        cmocka_unit_test_setup(test_stop_with_waiting, setup),
        cmocka_unit_test_setup(test_stream, setup),
        cmocka_unit_test_setup(test_stream_flush, setup),
        cmocka_unit_test_setup(test_stream_slow_reader, setup),
        cmocka_unit_test_setup(test_stream_gone, setup),
        cmocka_unit_test_setup(test_stream_stuck, setup),
        cmocka_unit_test_setup(test_upgrade, setup),
        cmocka_unit_test_setup(test_addresses, setup),
        cmocka_unit_test_setup(test_unix, setup),
        cmocka_unit_test_setup(test_handed_over, setup),
        cmocka_unit_test_setup(test_many, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
