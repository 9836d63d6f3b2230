/* http_server_test.c -- TLS, with OpenSSL's own test server and certificates made on the spot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/os.h"
#include "peer.h"
#include "store/http.h"

static char dir[] = "/tmp/sluice-tls-XXXXXX";
static pid_t server;
static unsigned port;
static struct err err;

static bool make_certificate(void)
{
    char command[600];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost "
             "-addext subjectAltName=DNS:localhost -keyout %s/key -out %s/cert >%s/log 2>&1",
             dir, dir, dir);
    return system(command) == 0;
}

/* The server prints "ACCEPT 127.0.0.1:PORT" when it is ready. */
static bool start_server(void)
{
    int out[2];
    if (pipe(out) != 0 || (server = fork()) < 0) return false;
    if (server == 0) {
        char key[64], cert[64];
        snprintf(key, sizeof key, "%s/key", dir);
        snprintf(cert, sizeof cert, "%s/cert", dir);
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-key", key, "-cert",
               cert, "-www", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *lines = fdopen(out[0], "r");
    char line[256];
    while (port == 0 && lines != NULL && fgets(line, sizeof line, lines) != NULL)
        sscanf(line, "ACCEPT %*[^:]:%u", &port);
    return port != 0; /* the pipe stays open: the server goes on writing to it */
}

static int start(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL && make_certificate() && start_server() ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    static const char *const names[] = {"key", "cert", "log"};
    if (server > 0) {
        kill(server, SIGTERM);
        waitpid(server, NULL, 0);
    }
    for (size_t i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return 0;
}

static enum rc ask(struct http_conf *conf, const char *host, int64_t limit_ms,
                   struct http_resp *resp)
{
    struct http *h = NULL;
    char url[80];
    struct call c = {.deadline_ms = os_mono_ms() + limit_ms};
    snprintf(url, sizeof url, "https://%s:%u/", host, port);
    conf->service = url;
    assert_int_equal(http_open(conf, &h, &err), RC_OK);
    struct http_req req = {.method = "GET", .url = url, .what = "ask"};
    enum rc rc = http_send(h, &c, &req, resp, &err);
    http_close(h);
    return rc;
}

static enum rc drop(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size, (void)e;
    return RC_OK;
}

static void test_certificates(void **state)
{
    (void)state;
    char cert[64];
    snprintf(cert, sizeof cert, "%s/cert", dir);
    for (int i = 0; i < 5; i++) {
        CLEANUP(http_resp_fini) struct http_resp resp = {0};
        struct http_conf conf = {.ca_file = i == 1 || i == 2 ? cert
                                            : i == 4         ? "/none"
                                                             : NULL,
                                 .skip_verify = i == 3};
        /* unknown; known; another name; unchecked; no such file */
        static const enum rc want[] = {RC_DENIED, RC_OK, RC_DENIED, RC_OK, RC_INVALID};
        enum rc rc = ask(&conf, i == 2 ? "127.0.0.1" : "localhost", 10000, &resp);
        if (rc != want[i]) fail_msg("%d: %s: %s", i, rc_name(rc), err.text);
        assert_false(resp.lost);
        if (rc == RC_OK) assert_non_null(strstr((char *)resp.text.data, "s_server"));
        if (rc == RC_DENIED) assert_non_null(strstr(err.text, "ertificate"));
    }
}

/* As every program with OpenSSL or Go in it: the environment may name other authorities. */
static void test_environment(void **state)
{
    (void)state;
    char cert[64], text[80];
    struct store *s = NULL;
    snprintf(cert, sizeof cert, "%s/cert", dir);
    setenv("SSL_CERT_FILE", cert, 1);
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    enum rc rc = ask(&(struct http_conf){0}, "localhost", 10000, &resp);
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
    unsetenv("SSL_CERT_FILE");
    snprintf(text, sizeof text, "https://localhost:%u", port);
    const struct store_setting settings[] = {
        {"endpoint", text}, {"access-key-id", "A"}, {"secret-access-key", "B"}};
    const struct store_conf conf = {.url = "s3://bkt", .settings = settings, .setting_count = 3};
    static const enum rc want[] = {RC_DENIED, RC_CORRUPT}; /* this server knows no lengths */
    for (int i = 0; i < 2; i++) {
        if (i == 1) setenv("AWS_CA_BUNDLE", cert, 1);
        assert_int_equal(store_open_conf(&conf, &s, &err), RC_OK);
        rc = store_get(s, NULL, "k", NULL, drop, NULL, &err);
        if (rc != want[i]) fail_msg("%d: %s: %s", i, rc_name(rc), err.text);
        store_close(s);
    }
    unsetenv("AWS_CA_BUNDLE");
}

/* TLS to one who does not speak it. */
static void hang_up(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    (void)ctx, (void)req, (void)resp;
}

static void test_no_tls(void **state)
{
    (void)state;
    struct peer *p = peer_start(hang_up, NULL);
    unsigned tls_port = port;
    port = peer_port(p);
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    peer_push_many(p, 9, &(struct peer_resp){.fault = PEER_RESET_UNREAD});
    struct http_conf conf = {0};
    enum rc rc = ask(&conf, "127.0.0.1", 300, &resp);
    port = tls_port;
    peer_stop(p);
    if (rc != RC_AGAIN && rc != RC_CANCELED) fail_msg("%s: %s", rc_name(rc), err.text);
    assert_false(resp.lost);
}

int main(void)
{
    if (system("openssl version >/dev/null 2>&1") != 0) {
        puts("skipped: there is no openssl program here");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_no_tls),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
