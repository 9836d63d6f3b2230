/* http_tls_test.c -- the HTTP server with TLS: requests, streams, upgrade, refusals, certificates
 * that are replaced while connections are open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include "base/thr.h"
#include "server/http.h"
#include "server/http_client.h"
#include "server/http_handler.h"
#include "server/tls_pair.h"

static char cert_file[64], key_file[64];

static struct http_server *serve_tls(struct http_opts opts)
{
    opts.tls_cert = cert_file;
    opts.tls_key = key_file;
    return serve(&opts);
}

static struct client tls_connect(void)
{
    struct client c = client_connect(address);
    client_tls(&c);
    return c;
}

static uint8_t serial_of(const struct client *c)
{
    unsigned count;
    uint8_t serial[32] = {0};
    size_t size = sizeof serial;
    gnutls_x509_crt_t crt;
    const gnutls_datum_t *der = gnutls_certificate_get_peers(c->tls, &count);
    gnutls_x509_crt_init(&crt);
    assert_int_equal(gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER), 0);
    assert_int_equal(gnutls_x509_crt_get_serial(crt, serial, &size), 0);
    gnutls_x509_crt_deinit(crt);
    return serial[0];
}

static void test_requests(void **state)
{
    (void)state;
    struct http_server *s = serve_tls((struct http_opts){.threads = 2, .body_max = 100000});
    struct client c = tls_connect();
    static char post[90000];
    int head = snprintf(post, sizeof post,
                        "POST /echo HTTP/1.1\r\nHost: h\r\n"
                        "Content-Length: 80000\r\n\r\n");
    memset(post + head, 'q', 80000);
    for (int i = 0; i < 3; i++) {
        struct answer a = ask(&c, "GET /late?ms=30 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_true(answer_is(&a, "late"));
        answer_free(&a);
        a = ask(&c, "GET /stream?n=500&size=1000 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(a.body.size, 500000);
        answer_free(&a);
        assert_true(client_send(&c, post, (size_t)head + 80000));
        a = client_answer(&c, false);
        assert_int_equal(a.body.size, 80000);
        answer_free(&a);
        /* Several requests in one record, with sleeps between them. */
        client_say(&c,
                   "GET /late?ms=1 HTTP/1.1\r\nHost: h\r\n\r\nGET /ok HTTP/1.1\r\nHost: h\r\n\r\n"
                   "GET /late?ms=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        for (int k = 0; k < 3; k++) {
            a = client_answer(&c, false);
            assert_true(answer_is(&a, k == 1 ? "{\"ok\":1}" : "late"));
            answer_free(&a);
        }
    }
    client_close(&c);
    stop(s);
}

static void test_refused(void **state)
{
    (void)state;
    struct http_server *s = serve_tls((struct http_opts){.body_max = 3000, .receive_ms = 1500});
    struct client c = tls_connect();
    struct buf req = BUF_INIT;
    struct err err;
    (void)!buf_printf(&req, &err,
                      "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked"
                      "\r\n\r\n");
    for (int i = 0; i < 10; i++)
        (void)!buf_printf(&req, &err, "3e8\r\n%01000d\r\n", i);
    (void)client_send(&c, req.data, req.size);
    struct answer a = client_answer(&c, false);
    assert_int_equal(a.status, 413);
    assert_true(answer_has(&a, "\"code\":\"BODY_TOO_LARGE\""));
    answer_free(&a);
    buf_fini(&req);
    client_close(&c);
    c = tls_connect(); /* a head that never ends */
    int64_t start = os_mono_ms();
    while (client_send(&c, "G", 1) && os_mono_ms() - start < 60000)
        os_sleep_ms(20);
    assert_true(os_mono_ms() - start < 30000);
    client_close(&c);
    c = client_connect(address); /* and one that never speaks TLS */
    start = os_mono_ms();
    while (client_send(&c, "\x16", 1) && os_mono_ms() - start < 60000)
        os_sleep_ms(20);
    assert_true(os_mono_ms() - start < 30000);
    client_close(&c);
    stop(s);
}

static void test_gone(void **state)
{
    (void)state;
    struct http_server *s = serve_tls((struct http_opts){.threads = 1});
    struct client c = tls_connect();
    client_say(&c, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_parked(1);
    os_sleep_ms(60);
    assert_false(atomic_load(http_gone(parked[0])));
    client_close(&c);
    assert_true(becomes(http_gone(parked[0])));
    http_reply_text(parked[0], 200, NULL, "nobody");
    stop(s);
}

static void test_upgrade(void **state)
{
    (void)state;
    struct http_server *s = serve_tls((struct http_opts){.threads = 2, .receive_ms = 600});
    for (int i = 0; i < 4; i++) {
        struct client c = tls_connect();
        client_say(&c, "GET /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
                       "Upgrade: websocket\r\n\r\nearly ");
        struct answer a = client_answer(&c, false);
        assert_int_equal(a.status, 101);
        answer_free(&a);
        client_say(&c, "bytes.");
        while (c.in.size < 24)
            assert_true(client_more(&c));
        assert_memory_equal(c.in.data, "early bytes.early bytes.", 24);
        buf_reset(&c.in);
        client_expect_end(&c);
        client_close(&c);
    }
    assert_int_equal(atomic_load(&finis), 4);
    stop(s);
}

static void test_reload(void **state)
{
    (void)state;
    struct err err;
    make_pair(1, cert_file, key_file);
    struct http_server *s = serve_tls((struct http_opts){.threads = 2});
    struct client old = tls_connect();
    assert_int_equal(serial_of(&old), 1);
    client_say(&old, "GET /late?ms=200 HTTP/1.1\r\nHost: h\r\n\r\n");
    make_pair(2, cert_file, key_file);
    struct client c = tls_connect();
    assert_int_equal(serial_of(&c), 1); /* not before it is asked to */
    client_close(&c);
    assert_int_equal(http_server_reload_tls(s, &err), RC_OK);
    c = tls_connect();
    assert_int_equal(serial_of(&c), 2);
    struct answer a = client_answer(&old, false);
    assert_true(answer_is(&a, "late"));
    answer_free(&a);
    a = ask(&old, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    client_close(&old);
    client_close(&c);
    /* A pair that does not fit, and one that is missing: the old one stays. */
    char other[80];
    snprintf(other, sizeof other, "%s.other", cert_file);
    make_pair(3, cert_file, other);
    assert_int_equal(http_server_reload_tls(s, &err), RC_INVALID);
    assert_non_null(strstr(err.text, cert_file));
    assert_int_equal(os_unlink(other, &err), RC_OK);
    assert_int_equal(os_unlink(cert_file, &err), RC_OK);
    assert_int_equal(http_server_reload_tls(s, &err), RC_INVALID);
    assert_int_equal(os_write_file(cert_file, "nonsense", 8, 0600, &err), RC_OK);
    assert_int_equal(http_server_reload_tls(s, &err), RC_INVALID);
    c = tls_connect();
    assert_int_equal(serial_of(&c), 2);
    client_close(&c);
    stop(s);
    struct http_opts opts = {.listen = "127.0.0.1:0",
                             .listen_fd = -1,
                             .handle = on_request,
                             .tls_cert = cert_file,
                             .tls_key = key_file};
    assert_int_equal(http_server_start(&opts, &s, &err), RC_INVALID);
    opts.tls_key = NULL;
    assert_int_equal(http_server_start(&opts, &s, &err), RC_INVALID);
    make_pair(1, cert_file, key_file);
    s = serve(&(struct http_opts){0});
    assert_int_equal(http_server_reload_tls(s, &err), RC_INVALID);
    stop(s);
}

/* Handshakes and reloads at the same time. */
static void *handshake_main(void *arg)
{
    (void)arg;
    for (int i = 0; i < 15; i++) {
        struct client c = tls_connect();
        struct answer a = ask(&c, "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_int_equal(a.status, 200);
        answer_free(&a);
        client_close(&c);
    }
    return NULL;
}

static void test_reload_busy(void **state)
{
    (void)state;
    struct err err;
    pthread_t ids[4];
    struct http_server *s = serve_tls((struct http_opts){.threads = 2});
    for (int i = 0; i < 4; i++)
        assert_int_equal(thr_start(&ids[i], "hands", handshake_main, NULL, &err), RC_OK);
    for (int i = 0; i < 20; i++) {
        make_pair((uint8_t)(i + 1), cert_file, key_file);
        assert_int_equal(http_server_reload_tls(s, &err), RC_OK);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(ids[i], NULL);
    stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_requests, setup),
        cmocka_unit_test_setup(test_refused, setup),
        cmocka_unit_test_setup(test_gone, setup),
        cmocka_unit_test_setup(test_upgrade, setup),
        cmocka_unit_test_setup(test_reload, setup),
        cmocka_unit_test_setup(test_reload_busy, setup),
    };
    struct err err;
    snprintf(cert_file, sizeof cert_file, "/tmp/http-tls-%d.crt", (int)getpid());
    snprintf(key_file, sizeof key_file, "/tmp/http-tls-%d.key", (int)getpid());
    make_pair(1, cert_file, key_file);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)!os_unlink(cert_file, &err);
    (void)!os_unlink(key_file, &err);
    return failed;
}
