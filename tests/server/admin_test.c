/* admin_test.c -- the administrator's port, with tenants in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <jansson.h>
#include "server/admin_bed.h"
#include "base/fault.h"
#include "fmt/jwt.h"
#include "server/admin_intern.h"
#include "server/server.h"

#define BIG (3u << 20) /* a body that goes to a file */

static struct err err;
static struct server *server;
static char dir[64], address[128], admin_address[128], import_dir[96], key_path[96];
static uint8_t baton_key[BATON_KEY_SIZE];
static struct buf private_key, public_key;

static void start(const char *admin_key, bool keys)
{
    char ignored[128];
    struct server_opts opts = {
        .listen = "127.0.0.1:0",
        .admin_listen = "127.0.0.1:0",
        .listen_fd = -1,
        .admin_fd = -1,
        .admin_key = admin_key,
        .baton_key = baton_key,
        .ops = &bed_ops,
        .tenants = &bed,
        .threads = 1,
        .work_threads = 1, /* the tenants in memory have no locks */
        .body_max = 1 << 20,
        .spill_dir = dir,
        .import_max = 8 << 20,
    };
    if (keys) {
        opts.auth.key_text = (const char *)public_key.data;
        opts.signing_key_file = key_path;
        opts.import_dir = import_dir;
    }
    bed_clear();
    assert_int_equal(server_start(&opts, &server, &err), RC_OK);
    server_addresses(server, ignored, sizeof ignored, admin_address, sizeof admin_address);
    snprintf(address, sizeof address, "%s", ignored);
}

static void stop(void)
{
    server_stop(server, 1000);
    assert_int_equal(bed.counted, 0);
}

static struct answer ask_with(const char *method, const char *path, const char *headers,
                              const void *body, size_t size)
{
    char head[2048];
    struct client c = client_connect(admin_address);
    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%sContent-Length: %zu\r\n"
             "\r\n",
             method, path, headers, size);
    client_say(&c, head);
    (void)client_send(&c, body, size);
    struct answer a = client_answer(&c, false);
    client_close(&c);
    return a;
}

/* Ask, and expect a status and a piece of the answer's body. */
static void expect_at(int line, const char *method, const char *path, const char *body,
                      unsigned status, const char *has)
{
    struct answer a = ask_with(method, path, "", body, strlen(body));
    if (a.status != status || (has[0] != '\0' && !answer_has(&a, has)))
        fail_msg("line %d: %s %s: %u %.*s", line, method, path, a.status, (int)a.body.size,
                 (char *)a.body.data);
    const char *type = answer_header(&a, "Content-Type");
    if (status >= 400) {
        assert_string_equal(type, "application/json");
        assert_true(answer_has(&a, "\"message\":") && answer_has(&a, "\"error\":") &&
                    answer_has(&a, "\"code\":"));
    }
    answer_free(&a);
}
#define expect(...) expect_at(__LINE__, __VA_ARGS__)

static json_t *get(const char *path)
{
    struct answer a = ask_with("GET", path, "", "", 0);
    assert_int_equal(a.status, 200);
    json_t *o = json_loadb((const char *)a.body.data, a.body.size, 0, NULL);
    assert_non_null(o);
    answer_free(&a);
    return o;
}

static void test_plain(void **state)
{
    (void)state;
    start(NULL, false);
    expect("GET", "/", "", 200, "sluice");
    expect("GET", "/health", "", 200, "");
    expect("GET", "/nowhere", "", 404, "NOT_FOUND");
    expect("POST", "/", "", 404, "NOT_FOUND");
    expect("POST", "/v1/namespaces", "", 405, "METHOD_NOT_ALLOWED");
    expect("GET", "/v1/namespaces/a/create", "", 405, "");
    expect("GET", "/v1/namespaces/a/b/c", "", 404, "");
    expect("GET", "/v1/namespaces//config", "", 400, "1 to 64 bytes");
    expect("GET", "/v1/namespaces/..", "", 400, "does not start with '.'");
    expect("GET", "/v1/namespaces/a%2Fb", "", 404, "");
    expect("GET", "/v1/namespaces/%c3%a4", "", 400, "only letters");
    expect("GET", "/v1/diagnostics", "", 200, "\"websockets\":0");
    stop();
}

static void test_access(void **state)
{
    static const struct {
        const char *headers;
        unsigned status;
    } keyed[] =
        {
            {"", 401},
            {"Authorization: Bearer secret\r\n", 200},
            {"Authorization: basic secret\r\n", 200},
            {"Authorization: Bearer secre\r\n", 401},
            {"Authorization: Bearer secrett\r\n", 401},
            {"Authorization: secret\r\n", 401},
            {"Authorization: Bearer secret\r\nOrigin: http://elsewhere\r\n", 200},
        },
      open[] = {
          {"", 200},
          {"Origin: http://elsewhere\r\n", 403},
          {"Origin: null\r\n", 403},
      };
    (void)state;
    start("secret", false);
    for (size_t i = 0; i < sizeof keyed / sizeof keyed[0]; i++) {
        struct answer a = ask_with("GET", "/v1/namespaces", keyed[i].headers, "", 0);
        assert_int_equal(a.status, keyed[i].status);
        answer_free(&a);
        a = ask_with("GET", "/metrics", keyed[i].headers, "", 0);
        assert_int_equal(a.status, keyed[i].status);
        answer_free(&a);
        a = ask_with("GET", "/health", keyed[i].headers, "", 0);
        assert_int_equal(a.status, 200);
        answer_free(&a);
    }
    stop();
    start(NULL, false);
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        struct answer a = ask_with("GET", "/v1/namespaces", open[i].headers, "", 0);
        assert_int_equal(a.status, open[i].status);
        answer_free(&a);
    }
    static const char *const hosts[] = {"evil.example", "localhost.evil", "1.2.3.4.evil"};
    static const char *const mine[] = {"localhost", "LOCALHOST:81", "127.0.0.1:9", "[::1]:8"};
    char text[256];
    for (size_t i = 0; i < 7; i++) {
        struct client c = client_connect(admin_address);
        snprintf(text, sizeof text, "GET /v1/namespaces HTTP/1.1\r\nHost: %s\r\n\r\n",
                 i < 3 ? hosts[i] : mine[i - 3]);
        client_say(&c, text);
        struct answer a = client_answer(&c, false);
        assert_int_equal(a.status, i < 3 ? 403 : 200);
        answer_free(&a);
        client_close(&c);
    }
    stop();
}

static void test_create(void **state)
{
    (void)state;
    start(NULL, false);
    expect("POST", "/v1/namespaces/a/create", "", 200, "{}");
    expect("POST", "/v1/namespaces/a/create", "{}", 400, "already exists");
    expect("POST", "/v1/namespaces/b/create/", " \n", 200, "{}");
    expect("POST", "/v1/namespaces/Big/create", "{}", 400, "no capitals");
    expect("POST", "/v1/namespaces/c/create", "{", 400, "not JSON");
    expect("POST", "/v1/namespaces/c/create", "[1]", 400, "object");
    expect("POST", "/v1/namespaces/c/create", "{\"max_db_size\":-1}", 400, "max_db_size");
    expect("POST", "/v1/namespaces/c/create", "{\"max_db_size\":\"huge\"}", 400, "max_db_size");
    expect("POST", "/v1/namespaces/c/create", "{\"max_row_size\":\"5GB\"}", 400, "max_row_size");
    expect("POST", "/v1/namespaces/c/create", "{\"txn_timeout_s\":\"1\"}", 400, "txn_timeout_s");
    expect("POST", "/v1/namespaces/c/create", "{\"txn_timeout_s\":1e9}", 400, "txn_timeout_s");
    expect("POST", "/v1/namespaces/c/create", "{\"block_reads\":\"x\"}", 400, "block_reads");
    expect("POST", "/v1/namespaces/c/create", "{\"jwt_key\":\"x\"}", 400, "jwt_key");
    expect("POST", "/v1/namespaces/c/create", "{\"durability_mode\":\"x\"}", 400, "extra, strong");
    expect("POST", "/v1/namespaces/c/create", "{\"shared_schema\":true}", 501, "shared");
    expect("POST", "/v1/namespaces/c/create", "{\"shared_schema_name\":\"x\"}", 501, "shared");
    expect("POST", "/v1/namespaces/c/create", "{\"dump_url\":\"http://x/\"}", 501, "network");
    expect("POST", "/v1/namespaces/c/create", "{\"dump_url\":\"file:/x\"}", 501, "-import-dir");
    assert_null(bed_find("c"));
    expect("POST", "/v1/namespaces/c/create",
           "{\"max_db_size\":\"10MB\",\"txn_timeout_s\":0.5,\"max_row_size\":5000000,"
           "\"allow_attach\":true,\"durability_mode\":\"extra\",\"bottomless_db_id\":\"x\","
           "\"heartbeat_url\":\"http://h\",\"dump_url\":null,\"shared_schema\":false}",
           200, "{}");
    const struct tenant_conf *c = &bed_find("c")->conf;
    assert_int_equal(c->size_max, 10000000);
    assert_int_equal(c->txn_ms, 500);
    assert_int_equal(c->row_max, 5000000);
    assert_true(c->allow_attach && c->sync && !c->block_reads);
    assert_string_equal(c->heartbeat_url, "http://h");
    bed.fail = RC_IO;
    expect("POST", "/v1/namespaces/d/create", "{}", 500, "the disk is on fire");
    bed.fail = RC_NO_SPACE;
    expect("POST", "/v1/namespaces/d/create", "{}", 507, "NO_SPACE");
    stop();
}

static void test_config(void **state)
{
    (void)state;
    start(NULL, false);
    char body[1024];
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    expect("GET", "/v1/namespaces/a/config", "", 200, "\"max_db_size\":null");
    expect("GET", "/v1/namespaces/no/config", "", 404, "Namespace `no` doesn't exist");
    expect("POST", "/v1/namespaces/no/config", "{\"block_reads\":false,\"block_writes\":false}",
           404, "");
    expect("POST", "/v1/namespaces/a/config", "{\"block_reads\":true}", 400, "must be given");
    snprintf(body, sizeof body,
             "{\"block_reads\":true,\"block_writes\":1,\"block_reason\":\"moving \\u00e4\","
             "\"max_db_size\":123456789012,\"jwt_key\":\"%.*s\"}",
             43, "bhJwBP6JxW6A6Jq4jzF7Zb7pGKy0XQ8bPY1aI8S1g3M");
    expect("POST", "/v1/namespaces/a/config", body, 200, "{}");
    json_t *o = get("/v1/namespaces/a/config");
    assert_true(json_is_true(json_object_get(o, "block_reads")));
    assert_true(json_is_true(json_object_get(o, "block_writes")));
    assert_string_equal(json_string_value(json_object_get(o, "block_reason")), "moving \xc3\xa4");
    assert_string_equal(json_string_value(json_object_get(o, "max_db_size")), "123456789012 B");
    assert_string_equal(json_string_value(json_object_get(o, "durability_mode")), "strong");
    /* What GET gave is what POST takes. */
    char *text = json_dumps(o, 0);
    expect("POST", "/v1/namespaces/a/config", text, 200, "{}");
    json_t *again = get("/v1/namespaces/a/config");
    assert_true(json_equal(o, again));
    json_decref(o);
    json_decref(again);
    free(text);
    /* Key and size stay unless they are named; the rest is replaced. */
    expect("POST", "/v1/namespaces/a/config", "{\"block_reads\":false,\"block_writes\":false}", 200,
           "{}");
    const struct tenant_conf *c = &bed_find("a")->conf;
    assert_string_equal(c->block_reason, "");
    assert_int_equal(c->size_max, 123456789012);
    assert_non_null(c->jwt_key);
    expect("POST", "/v1/namespaces/a/config",
           "{\"block_reads\":false,\"block_writes\":false,\"jwt_key\":null,\"max_db_size\":null}",
           200, "{}");
    assert_null(c->jwt_key);
    assert_int_equal(c->size_max, 0);
    stop();
}

static void test_class(void **state)
{
    (void)state;
    start(NULL, false);
    const char *path = "/v1/namespaces/a/config";
    expect("POST", "/v1/namespaces/a/create", "{\"class\":\"Gold\"}", 400, "small letters");
    assert_null(bed_find("a"));
    expect("POST", "/v1/namespaces/a/create", "{\"class\":\"gold\"}", 200, "{}");
    expect("GET", path, "", 200, "\"class\":\"gold\"");
    expect("POST", path, "{\"block_reads\":false,\"block_writes\":false}", 200, "{}");
    expect("GET", path, "", 200, "\"class\":\"gold\"");
    expect("POST", path, "{\"block_reads\":false,\"block_writes\":false,\"class\":\"other\"}", 400,
           "class 'other'");
    expect("POST", path, "{\"block_reads\":false,\"block_writes\":false,\"class\":7}", 400,
           "class must be a text");
    expect("GET", path, "", 200, "\"class\":\"gold\"");
    expect("POST", path, "{\"block_reads\":false,\"block_writes\":false,\"class\":null}", 200,
           "{}");
    expect("GET", path, "", 200, "\"class\":\"default\"");
    assert_null(bed_find("a")->conf.class);
    stop();
}

static void test_life(void **state)
{
    (void)state;
    start(NULL, false);
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    expect(
        "GET", "/v1/namespaces/a", "", 200,
        "{\"name\":\"a\",\"open\":true,\"created\":\"2026-01-02T03:04:05Z\",\"bytes\":8192,"
        "\"wal_bytes\":4152,\"txid\":\"000000000000001f\",\"txid_stored\":\"000000000000001e\"}");
    expect("GET", "/v1/namespaces/no", "", 404, "Namespace `no` doesn't exist");
    expect("POST", "/v1/namespaces/a/checkpoint", "", 200, "{}");
    expect("POST", "/v1/namespaces/no/checkpoint", "", 404, "");
    assert_int_equal(bed.checkpoints, 1);
    expect("POST", "/v1/namespaces/a/rename/b", "", 200, "{}");
    expect("POST", "/v1/namespaces/a/rename/b", "", 404, "");
    expect("POST", "/v1/namespaces/b/rename/B", "", 400, "capitals");
    expect("POST", "/v1/namespaces/b/fork/c", "", 200, "{}");
    assert_int_equal(bed.at.txid + (uint64_t)bed.at.time_ms, 0);
    expect("POST", "/v1/namespaces/b/fork/c", "{}", 400, "already exists");
    expect("POST", "/v1/namespaces/b/rename/c", "", 409, "already exists");
    expect("POST", "/v1/namespaces/no/fork/d", "{}", 404, "");
    expect("POST", "/v1/namespaces/b/fork/.d", "{}", 400, "");
    expect("DELETE", "/v1/namespaces/c", "{\"keep_backup\":1}", 400, "keep_backup");
    expect("DELETE", "/v1/namespaces/c", "{\"keep_backup\":true}", 200, "{}");
    assert_true(bed.keep_backup);
    expect("DELETE", "/v1/namespaces/b", "", 200, "{}");
    assert_false(bed.keep_backup);
    expect("DELETE", "/v1/namespaces/b", "", 404, "");
    expect("POST", "/v1/namespaces/b/restore", "{\"txid\":1}", 404, "");
    stop();
}

static void test_moments(void **state)
{
    static const struct {
        const char *body;
        uint64_t txid;
        int64_t time_ms; /* both 0: refused */
    } moments[] = {
        {"{\"txid\":\"00000000000000ff\"}", 255, 0},
        {"{\"txid\":31}", 31, 0},
        {"{\"txid\":\"31\",\"timestamp\":null}", 31, 0},
        {"{\"timestamp\":\"2024-01-01T00:00:00\"}", 0, 1704067200000},
        {"{\"timestamp\":\"2024-01-01 00:00:00.5\"}", 0, 1704067200500},
        {"{\"timestamp\":\"2024-01-01T01:00:00+01:00\"}", 0, 1704067200000},
        {"{\"timestamp\":\"2024-01-01T00:00:00Z\"}", 0, 1704067200000},
        {"{\"timestamp\":1704067200}", 0, 1704067200000},
        {"{\"timestamp\":1704067200.25}", 0, 1704067200250},
        {"{\"timestamp\":\"1704067200\"}", 0, 1704067200000},
        {"{\"timestamp\":1704067200123}", 0, 1704067200123},
        {"{}", 0, 0},
        {"{\"txid\":1,\"timestamp\":1}", 0, 0},
        {"{\"txid\":0}", 0, 0},
        {"{\"txid\":-1}", 0, 0},
        {"{\"txid\":1.5}", 0, 0},
        {"{\"txid\":\"\"}", 0, 0},
        {"{\"txid\":\"xyz\"}", 0, 0},
        {"{\"txid\":\"0000000000000000\"}", 0, 0},
        {"{\"timestamp\":true}", 0, 0},
        {"{\"timestamp\":\"\"}", 0, 0},
        {"{\"timestamp\":\"yesterday\"}", 0, 0},
        {"{\"timestamp\":\"2024-13-01T00:00:00\"}", 0, 0},
        {"{\"timestamp\":-5}", 0, 0},
        {"{\"timestamp\":1e300}", 0, 0},
    };
    (void)state;
    start(NULL, false);
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        bool good = moments[i].txid != 0 || moments[i].time_ms != 0;
        bed.at = (struct tenant_at){0};
        expect("POST", "/v1/namespaces/a/restore", moments[i].body, good ? 200 : 400, "");
        assert_int_equal(bed.at.txid, moments[i].txid);
        assert_int_equal(bed.at.time_ms, moments[i].time_ms);
        if (!good) continue;
        expect("POST", "/v1/namespaces/a/fork/b", moments[i].body, 200, "");
        expect("DELETE", "/v1/namespaces/b", "", 200, "");
        assert_int_equal(bed.at.txid, moments[i].txid);
        assert_int_equal(bed.at.time_ms, moments[i].time_ms);
    }
    stop();
}

static void test_list(void **state)
{
    (void)state;
    start(NULL, false);
    char path[128], name[32], next[80] = "";
    expect("GET", "/v1/namespaces", "", 200, "{\"namespaces\":[],\"next\":null}");
    for (int i = 0; i < 1205; i++) {
        snprintf(name, sizeof name, "n%04d", i);
        assert_int_equal(bed_create(&bed, name, NULL, &err), RC_OK);
    }
    size_t seen = 0, pages = 0;
    do {
        snprintf(path, sizeof path, "/v1/namespaces?limit=500&from=%s", next);
        json_t *o = get(path);
        const json_t *list = json_object_get(o, "namespaces");
        for (size_t i = 0; i < json_array_size(list); i++, seen++) {
            snprintf(name, sizeof name, "n%04zu", seen);
            assert_string_equal(json_string_value(json_object_get(json_array_get(list, i), "name")),
                                name);
        }
        const char *more = json_string_value(json_object_get(o, "next"));
        snprintf(next, sizeof next, "%s", more != NULL ? more : "");
        json_decref(o);
        pages++;
    } while (next[0] != '\0');
    assert_int_equal(seen, 1205);
    assert_int_equal(pages, 3);
    json_t *o = get("/v1/namespaces");
    assert_int_equal(json_array_size(json_object_get(o, "namespaces")), 100);
    json_decref(o);
    o = get("/v1/namespaces?limit=999999");
    assert_int_equal(json_array_size(json_object_get(o, "namespaces")), 1000);
    json_decref(o);
    expect("GET", "/v1/namespaces?limit=0", "", 400, "limit");
    expect("GET", "/v1/namespaces?limit=-1", "", 400, "limit");
    expect("GET", "/v1/namespaces?limit=1x", "", 400, "limit");
    stop();
}

static void test_files(void **state)
{
    (void)state;
    start(NULL, true);
    CLEANUP(mem_freep) uint8_t *big = mem_calloc(1, BIG);
    assert_non_null(big);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (uint8_t)(i * 31 >> 3);
    memcpy(big, "SQLite format 3", 16);
    static const struct {
        const char *method;
        size_t size;
    } ways[] = {{"PUT", 4096}, {"POST", 4096}, {"PUT", BIG}, {"POST", 1 << 20}};
    for (size_t i = 0; i < 4; i++) {
        struct answer a =
            ask_with(ways[i].method, "/v1/namespaces/a/import", "", big, ways[i].size);
        assert_int_equal(a.status, 200);
        answer_free(&a);
        assert_false(bed_find("a")->dump);
        assert_int_equal(bed_find("a")->bytes.size, ways[i].size);
        assert_memory_equal(bed_find("a")->bytes.data, big, ways[i].size);
        a = ask_with("GET", "/v1/namespaces/a/export", "", "", 0);
        assert_int_equal(a.status, 200);
        assert_string_equal(answer_header(&a, "Content-Disposition"),
                            "attachment; filename=\"a.db\"");
        assert_int_equal(a.body.size, ways[i].size);
        assert_memory_equal(a.body.data, big, ways[i].size);
        answer_free(&a);
        expect("PUT", "/v1/namespaces/a/import", "BEGIN; COMMIT;", 409, "already exists");
        expect("DELETE", "/v1/namespaces/a", "", 200, "");
    }
    expect("PUT", "/v1/namespaces/a/import", "CREATE TABLE t(x);", 200, "{}");
    assert_true(bed_find("a")->dump);
    expect("PUT", "/v1/namespaces/b/import", "", 400, "SQLite file or an SQL dump");
    expect("PUT", "/v1/namespaces/B/import", "x", 400, "capitals");
    expect("GET", "/v1/namespaces/no/export", "", 404, "");
    stop();
}

static void test_long_bodies(void **state)
{
    (void)state;
    start(NULL, false);
    CLEANUP(mem_freep) uint8_t *big = mem_calloc(1, BIG);
    assert_non_null(big);
    for (size_t i = 0; i < BIG; i++)
        big[i] = (uint8_t)(i * 31 >> 3);
    /* A body in chunks, of a length that is not known before; and one that is too large. */
    struct client c = client_connect(admin_address);
    client_say(&c, "PUT /v1/namespaces/ch/import HTTP/1.1\r\nHost: localhost\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n");
    char line[32];
    for (size_t at = 0; at < BIG; at += 100000) {
        size_t n = BIG - at < 100000 ? BIG - at : 100000;
        snprintf(line, sizeof line, "%zx\r\n", n);
        client_say(&c, line);
        assert_true(client_send(&c, big + at, n));
        client_say(&c, "\r\n");
    }
    client_say(&c, "0\r\n\r\n");
    struct answer a = client_answer(&c, false);
    assert_int_equal(a.status, 200);
    assert_int_equal(bed_find("ch")->bytes.size, BIG);
    assert_memory_equal(bed_find("ch")->bytes.data, big, BIG);
    answer_free(&a);
    client_close(&c);
    a = ask_with("PUT", "/v1/namespaces/x/import", "Content-Length: 99999999\r\nX: y\r\n", "", 0);
    assert_int_equal(a.status, 400); /* two lengths */
    answer_free(&a);
    c = client_connect(admin_address);
    client_say(&c, "PUT /v1/namespaces/x/import HTTP/1.1\r\nHost: localhost\r\n"
                   "Content-Length: 99999999\r\n\r\n");
    a = client_answer(&c, false);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    client_close(&c);
    c = client_connect(admin_address); /* only imports may be large */
    client_say(&c, "POST /v1/namespaces/x/create HTTP/1.1\r\nHost: localhost\r\n"
                   "Content-Length: 2000000\r\n\r\n");
    a = client_answer(&c, false);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    client_close(&c);
    /* An export that fails half-way must not look whole. */
    bed.image_fails_after = 1 << 20;
    a = ask_with("GET", "/v1/namespaces/ch/export", "", "", 0);
    assert_true(a.closed);
    answer_free(&a);
    stop();
}

static enum rc count_name(void *ctx, const char *name, struct err *e)
{
    (void)e;
    if (strncmp(name, "body.", 5) == 0 || strncmp(name, "import.", 7) == 0) ++*(int *)ctx;
    return RC_OK;
}

/* Nothing is left of bodies; not of those that were broken off, either. */
static void test_no_leftovers(void **state)
{
    (void)state;
    start(NULL, false);
    int files = 0;
    CLEANUP(mem_freep) uint8_t *big = mem_calloc(1, BIG);
    assert_non_null(big);
    struct client c = client_connect(admin_address);
    client_say(&c, "PUT /v1/namespaces/x/import HTTP/1.1\r\nHost: localhost\r\n"
                   "Content-Length: 3500000\r\n\r\n");
    assert_true(client_send(&c, big, BIG));
    for (int i = 0; i < 6000 && files == 0; i++) {
        os_sleep_ms(10);
        assert_int_equal(os_list(dir, count_name, &files, &err), RC_OK);
    }
    assert_int_equal(files, 1);
    client_close(&c);
    bed.fail = RC_IO;
    struct answer a = ask_with("PUT", "/v1/namespaces/x/import", "", big, BIG);
    assert_int_equal(a.status, 500);
    answer_free(&a);
    stop();
    files = 0;
    assert_int_equal(os_list(dir, count_name, &files, &err), RC_OK);
    assert_int_equal(files, 0);
}

static void test_dump_url(void **state)
{
    (void)state;
    start(NULL, true);
    char path[160], body[512];
    snprintf(path, sizeof path, "%s/d.sql", import_dir);
    assert_int_equal(os_write_file(path, "SELECT 1;", 9, 0600, &err), RC_OK);
    snprintf(body, sizeof body, "{\"dump_url\":\"file://%s\",\"max_db_size\":\"1MB\"}", path);
    expect("POST", "/v1/namespaces/a/create", body, 200, "{}");
    assert_true(bed_find("a")->dump);
    assert_int_equal(bed_find("a")->conf.size_max, 1000000);
    struct stat st;
    assert_int_equal(os_stat(path, &st, &err), RC_OK); /* the original stays */
    expect("POST", "/v1/namespaces/a/create", body, 400, "already exists");
    static const char *const bad[] = {"%s/../../etc/passwd", "%s/..", "%sx/d.sql", "/etc/passwd",
                                      "%s/./../x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char to[160];
        size_t n = strncmp(bad[i], "%s", 2) == 0 ? 2 : 0;
        snprintf(to, sizeof to, "%s%s", n > 0 ? import_dir : "", bad[i] + n);
        snprintf(body, sizeof body, "{\"dump_url\":\"file://%s\"}", to);
        expect("POST", "/v1/namespaces/b/create", body, 403, "not in the folder");
    }
    snprintf(body, sizeof body, "{\"dump_url\":\"file:%s/none\"}", import_dir);
    expect("POST", "/v1/namespaces/b/create", body, 404, "");
    snprintf(body, sizeof body, "{\"dump_url\":\"file:%s/\"}", import_dir);
    expect("POST", "/v1/namespaces/b/create", body, 400, "is no file");
    expect("POST", "/v1/namespaces/b/create", "{\"dump_url\":\"ftp://x\"}", 400, "file:/");
    stop();
}

static bool good_for(const char *token, const char *keys, const char *claim)
{
    struct jwt_keys *k = NULL;
    struct buf claims = BUF_INIT;
    enum jwt_problem problem;
    assert_int_equal(jwt_keys_parse(keys, strlen(keys), &k, &err), RC_OK);
    bool good =
        jwt_verify(k, token, strlen(token), os_now_ms() / 1000, &claims, &problem, &err) == RC_OK;
    if (good && memmem(claims.data, claims.size, claim, strlen(claim)) == NULL)
        fail_msg("claims %.*s", (int)claims.size, (char *)claims.data);
    buf_fini(&claims);
    jwt_keys_free(k);
    return good;
}

static void mint(const char *path, const char *body, char token[2048], bool expires)
{
    struct answer a = ask_with("POST", path, "", body, strlen(body));
    if (a.status != 200) fail_msg("%u %.*s", a.status, (int)a.body.size, (char *)a.body.data);
    json_t *o = json_loadb((const char *)a.body.data, a.body.size, 0, NULL);
    snprintf(token, 2048, "%s", json_string_value(json_object_get(o, "jwt")));
    assert_int_equal(json_is_string(json_object_get(o, "expires")), expires);
    json_decref(o);
    answer_free(&a);
}

static void test_tokens(void **state)
{
    (void)state;
    start(NULL, true);
    char token[2048], old[2048];
    const char *public = (const char *)public_key.data, *path = "/v1/namespaces/a/tokens";
    expect("POST", path, "{}", 404, "");
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    mint(path, "", token, false);
    assert_true(good_for(token, public, "\"id\":\"a\",\"a\":\"rw\""));
    mint(path, "{\"access\":\"read-only\",\"expiration\":\"2w\"}", token, true);
    assert_true(good_for(token, public, "\"a\":\"ro\""));
    assert_true(good_for(token, public, "\"exp\":"));
    mint("/v1/namespaces/a/tokens?expiration=7d12h&authorization=read-only", "", token, true);
    assert_true(good_for(token, public, "\"a\":\"ro\""));
    expect("POST", path, "{\"access\":\"all\"}", 400, "full-access");
    expect("POST", path, "{\"expiration\":\"2\"}", 400, "expiration");
    expect("POST", path, "{\"expiration\":\"\"}", 400, "expiration");
    expect("POST", path, "{\"expiration\":\"99999y\"}", 400, "expiration");
    expect("POST", path, "{\"role\":3}", 400, "role");
    expect("POST", path, "{\"role\":\"unknown\"}", 409, "role");
    /* A key of the tenant's own. */
    expect("GET", "/v1/namespaces/a/tokens/rotate", "", 200,
           "{\"rotation\":null,\"jwt_key\":null}");
    mint(path, "{}", old, false);
    expect("POST", "/v1/namespaces/a/tokens/rotate", "", 200, "# rotation ");
    char first[4096];
    snprintf(first, sizeof first, "%s", bed_find("a")->jwt_key);
    assert_false(good_for(old, first, ""));
    mint(path, "{}", token, false);
    assert_true(good_for(token, first, "\"id\":\"a\""));
    assert_false(good_for(token, public, ""));
    expect("POST", "/v1/namespaces/a/tokens/rotate", "", 200, "# rotation ");
    assert_false(good_for(token, bed_find("a")->jwt_key, ""));
    mint(path, "{}", token, false);
    assert_true(good_for(token, bed_find("a")->jwt_key, ""));
    /* A key that nobody here can sign for. */
    expect("POST", "/v1/namespaces/a/config",
           "{\"block_reads\":false,\"block_writes\":false,"
           "\"jwt_key\":\"bhJwBP6JxW6A6Jq4jzF7Zb7pGKy0XQ8bPY1aI8S1g3M\"}",
           200, "");
    expect("POST", path, "{}", 409, "would not be taken");
    stop();
    start(NULL, false);
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    expect("POST", path, "{}", 501, "-auth-signing-key-file");
    expect("POST", "/v1/namespaces/a/tokens/rotate", "", 501, "-auth-signing-key-file");
    stop();
}

static void test_numbers(void **state)
{
    (void)state;
    start(NULL, false);
    struct client c = client_connect(address);
    client_say(&c, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    struct answer a = client_answer(&c, false);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    client_close(&c);
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    expect("POST", "/v1/namespaces/b/create", "{}", 200, "");
    expect("GET", "/v1/namespaces/a/stats", "", 200, "\"query_count\":0");
    expect("GET", "/v1/namespaces/a/stats", "", 200, "\"replication_index\":31");
    expect("GET", "/v1/namespaces/no/stats", "", 404, "");
    expect("DELETE", "/v1/namespaces/a/stats/top", "", 200, "{}");
    expect("DELETE", "/v1/namespaces/a/stats/slowest", "", 200, "{}");
    expect("DELETE", "/v1/namespaces/no/stats/slowest", "", 404, "");
    static const char *const lines[] = {
        "\nsluice_namespaces_open 2\n",
        "\nsluice_namespaces_in_use 1\n",
        "\nsluice_writer_writes_total 1020\n",
        "\nsluice_writer_groups_total 104\n",
        "\nsluice_writer_group_max 77\n",
        "\nsluice_wal_bytes 200\n",
        "\nsluice_log_behind 4\n",
        "\nsluice_namespace_txid{namespace=\"b\"} 9\n",
        "\nsluice_namespace_statements_total{namespace=\"a\"} 0\n",
        "\nsluice_request_duration_seconds_count{class=\"none\",route=\"other\"} 1\n",
        "\nsluice_responses_total{class=\"none\",status=\"2xx\"} 1\n",
    };
    /* The answer was sent a moment before it is counted. */
    for (int i = 0;; i++) {
        a = ask_with("GET", "/metrics", "", "", 0);
        assert_int_equal(a.status, 200);
        if (answer_has(&a, lines[10]) || i == 6000) break;
        answer_free(&a);
        os_sleep_ms(10);
    }
    assert_string_equal(answer_header(&a, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!answer_has(&a, lines[i]))
            fail_msg("no %s in %.*s", lines[i], (int)a.body.size, (char *)a.body.data);
    answer_free(&a);
    a = ask_with("GET", "/metrics?namespaces=0", "", "", 0);
    assert_false(answer_has(&a, "namespace=\""));
    assert_true(answer_has(&a, "\nsluice_namespaces_open 2\n"));
    answer_free(&a);
    expect("GET", "/metrics?namespaces=x", "", 400, "namespaces");
    stop();
}

/* Of many, those have series of their own whose logs are behind most; of equals, the larger. */
static void test_worst(void **state)
{
    enum { MANY = 60 };
    uint64_t ranks[MANY];
    char path[64], line[64];
    (void)state;
    start(NULL, false);
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof path, "/v1/namespaces/n%02d/create", i);
        expect("POST", path, "{}", 200, "");
    }
    for (size_t i = 0; i < MANY; i++) {
        struct bed_tenant *b = &bed.list[i];
        b->behind = 1 + i * 7919 % 13;
        b->wal_bytes = 1000 + i * 7907 % 997;
        ranks[i] = b->behind * 10000 + b->wal_bytes;
    }
    static const size_t limits[] = {1, 2, 7, 30, MANY, 100};
    for (size_t n = 0; n < sizeof limits / sizeof limits[0]; n++) {
        snprintf(path, sizeof path, "/metrics?namespaces=%zu", limits[n]);
        struct answer a = ask_with("GET", path, "", "", 0);
        assert_int_equal(a.status, 200);
        for (size_t i = 0; i < MANY; i++) {
            size_t worse = 0;
            for (size_t k = 0; k < MANY; k++)
                worse += ranks[k] > ranks[i];
            snprintf(line, sizeof line, "\nsluice_namespace_wal_bytes{namespace=\"n%02zu\"} ", i);
            if (answer_has(&a, line) != (worse < limits[n]))
                fail_msg("of %zu: n%02zu, place %zu", limits[n], i, worse);
        }
        answer_free(&a);
    }
    stop();
}

/* Each allocation fails once: an answer comes, and it is never half of one. */
static void test_memory(void **state)
{
    static const struct {
        const char *method, *path, *body;
    } asks[] = {
        {"GET", "/v1/namespaces/a/config", ""},
        {"GET", "/v1/namespaces", ""},
        {"GET", "/v1/namespaces/a/stats", ""},
        {"GET", "/metrics", ""},
        {"POST", "/v1/namespaces/a/tokens", "{\"expiration\":\"1d\"}"},
        {"PUT", "/v1/namespaces/c/import", "SELECT 1"},
    };
    (void)state;
    start(NULL, true);
    expect("POST", "/v1/namespaces/a/create", "{}", 200, "");
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        for (uint64_t n = 1; n < 300; n++) {
            struct answer a;
            fault_arm(FAULT_ALLOC, n, false);
            struct client c = client_connect(admin_address);
            char head[512];
            snprintf(head, sizeof head,
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     asks[i].method, asks[i].path, strlen(asks[i].body), asks[i].body);
            client_say(&c, head);
            /* Our own reading must not be what fails. */
            struct pollfd p = {.fd = c.fd, .events = POLLIN};
            assert_int_equal(poll(&p, 1, CLIENT_WAIT_MS), 1);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            a = client_answer(&c, false);
            client_close(&c);
            bool whole = a.status == 200 && !a.closed;
            assert_true(whole || a.status == 0 || a.status == 500 || a.status == 503);
            answer_free(&a);
            if (bed_find("c") != NULL) expect("DELETE", "/v1/namespaces/c", "", 200, "");
            if (!fired) {
                assert_true(whole);
                break;
            }
        }
    }
    stop();
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/sluice-admin-%016llx", (unsigned long long)os_random());
    snprintf(import_dir, sizeof import_dir, "%s/in", dir);
    snprintf(key_path, sizeof key_path, "%s/key", dir);
    assert_int_equal(os_mkdirs(import_dir, 0700, &err), RC_OK);
    assert_int_equal(jwt_key_new(JWT_EDDSA, &private_key, &public_key, &err), RC_OK);
    assert_int_equal(os_write_file(key_path, private_key.data, private_key.size, 0600, &err),
                     RC_OK);
    return buf_append(&public_key, "", 1, &err) == RC_OK ? 0 : -1;
}

static int drop_folder(void **state)
{
    char path[160];
    (void)state;
    snprintf(path, sizeof path, "%s/d.sql", import_dir);
    (void)!os_unlink(path, &err);
    (void)!os_unlink(key_path, &err);
    (void)!os_rmdir(import_dir, &err);
    buf_fini(&private_key);
    buf_fini(&public_key);
    return os_rmdir(dir, &err) == RC_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),        cmocka_unit_test(test_access),
        cmocka_unit_test(test_create),       cmocka_unit_test(test_config),
        cmocka_unit_test(test_class),        cmocka_unit_test(test_life),
        cmocka_unit_test(test_moments),      cmocka_unit_test(test_list),
        cmocka_unit_test(test_files),        cmocka_unit_test(test_long_bodies),
        cmocka_unit_test(test_no_leftovers), cmocka_unit_test(test_dump_url),
        cmocka_unit_test(test_tokens),       cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_worst),        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
