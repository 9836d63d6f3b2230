/* route_test.c -- which URL means what, and whose it is; over a server, as only it makes requests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/buf.h"
#include "server/http_client.h"
#include "server/server_intern.h"

static void expect(const char *method, const char *path, enum route route, int version, bool proto,
                   const char *tenant)
{
    struct target t;
    struct err err;
    if (route_find(method, path, false, &t, &err) != RC_OK) fail_msg("%s: %s", path, err.text);
    if (t.route != route || (int)t.version != version || t.proto != proto)
        fail_msg("%s %s: route %d, version %d", method, path, (int)t.route, (int)t.version);
    assert_string_equal(t.tenant, tenant);
}

static void test_paths(void **state)
{
    (void)state;
    struct target t;
    struct err err;
    expect("GET", "/health", ROUTE_HEALTH, 0, false, "");
    expect("GET", "/health/", ROUTE_HEALTH, 0, false, "");
    expect("GET", "/healthy", ROUTE_NONE, 0, false, "");
    expect("POST", "/health", ROUTE_NONE, 0, false, "");
    expect("GET", "/v3-protobuf", ROUTE_PROBE, 3, true, "");
    expect("POST", "/v2/pipeline", ROUTE_PIPELINE, 2, false, "");
    expect("POST", "/v2/pipeline/x", ROUTE_NONE, 0, false, "");
    expect("POST", "/v3-protobuf/cursor", ROUTE_CURSOR, 3, true, "");
    expect("POST", "/v2/cursor", ROUTE_NONE, 0, false, "");
    expect("POST", "/v1/batch", ROUTE_V1_BATCH, 1, false, "");
    expect("POST", "/", ROUTE_LEGACY, 0, false, "");
    expect("GET", "/", ROUTE_NONE, 0, false, "");
    expect("GET", "/export/1", ROUTE_SYNC, 0, false, "");
    expect("POST", "/dev/a.b-c/v3/pipeline", ROUTE_PIPELINE, 3, false, "a.b-c");
    expect("POST", "/dev/one", ROUTE_LEGACY, 0, false, "one");
    expect("POST", "/dev/one/", ROUTE_LEGACY, 0, false, "one");
    expect("GET", "/dev", ROUTE_NONE, 0, false, "");
    assert_int_equal(route_find("GET", "/dev/x/any", true, &t, &err), RC_OK);
    assert_int_equal(t.route, ROUTE_WEBSOCKET);
    assert_int_equal(route_find("POST", "/v2/pipeline", true, &t, &err), RC_OK);
    assert_int_equal(t.route, ROUTE_PIPELINE);
    char path[200] = "/dev/";
    memset(path + 5, 'a', 65);
    static const char *const bad[] = {"/dev/",      "/dev//v2", "/dev/../v2",
                                      "/dev/-a/v2", "/dev/a b", "/dev/a%00"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(route_find("GET", bad[i], false, &t, &err), RC_INVALID);
    assert_int_equal(route_find("GET", path, false, &t, &err), RC_INVALID);
    path[5 + 64] = '\0';
    assert_int_equal(route_find("GET", path, false, &t, &err), RC_OK);
}

static bool no_default;

static void handle(void *ctx, struct http_req *r)
{
    struct target t = {.route = ROUTE_PIPELINE};
    struct err err;
    struct buf body = BUF_INIT;
    (void)ctx;
    enum rc rc = route_tenant(r, no_default, &t, &err);
    assert_int_equal(buf_printf(&body, &err, "%s %s", rc_name(rc), t.tenant), RC_OK);
    http_reply(r, 200, NULL, &body);
}

static void test_tenants(void **state)
{
    (void)state;
    struct http_server *s;
    struct err err;
    char address[100], text[300];
    static const char *const asks[][2] = {
        {"Host: shop.example.com", "OK shop"},
        {"Host: shop.example.com:8080", "OK shop"},
        {"Host: SHOP.example.com", "?"},
        {"Host: localhost", "OK default"},
        {"Host: localhost:8080", "OK default"},
        {"Host: 127.0.0.1:8080", "OK default"},
        {"Host: 10.1", "OK default"},
        {"Host: [::1]:8080", "OK default"},
        {"Host: [fe80::1.2.3.4]", "OK default"},
        {"Host: .example.com", "OK default"},
        {"Host: 1db.example.com", "OK 1db"},
        {"Host: -a.example.com", "INVALID "},
        {"Host: a.b\r\nx-namespace: other", "OK other"},
        {"Host: a.b\r\nx-namespace: ", "INVALID "},
        {"Host: a.b\r\nx-namespace: ../etc", "INVALID "},
        {"Host: a.b\r\nx-namespace-bin: b25l", "OK one"},
        {"Host: a.b\r\nx-namespace-bin: b25lMg==", "OK one2"},
        {"Host: a.b\r\nx-namespace-bin: b25lMg", "OK one2"},
        {"Host: a.b\r\nx-namespace: x\r\nx-namespace-bin: b25l", "OK one"},
        {"Host: a.b\r\nx-namespace-bin: ====", "INVALID "},
        {"Host: a.b\r\nx-namespace-bin: b", "INVALID "},
        {"Host: a.b\r\nx-namespace-bin: b25l!", "INVALID "},
        {"Host: a.b\r\nx-namespace-bin: "
         "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh",
         "INVALID "},
    };
    struct http_opts o = {.listen = "127.0.0.1:0", .listen_fd = -1, .threads = 1, .handle = handle};
    assert_int_equal(http_server_start(&o, &s, &err), RC_OK);
    http_server_address(s, address, sizeof address);
    for (int round = 0; round < 2; round++, no_default = true) {
        struct client c = client_connect(address);
        for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
            const char *want = asks[i][1];
            if (no_default && strcmp(want, "OK default") == 0) want = "NOT_FOUND ";
            snprintf(text, sizeof text, "GET /x HTTP/1.1\r\n%s\r\n\r\n", asks[i][0]);
            client_say(&c, text);
            struct answer a = client_answer(&c, false);
            if (want[0] != '?' && !answer_is(&a, want))
                fail_msg("%s: %.*s", asks[i][0], (int)a.body.size, a.body.data);
            answer_free(&a);
        }
        client_close(&c);
    }
    http_server_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_tenants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
