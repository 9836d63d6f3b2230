/* http_test.c -- requests against a scripted peer: every fault and its stated outcome. */
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
#include "peer.h"
#include "store/http.h"
#include "store/http_pool.h"

#define STALL_MS 500

static struct err err;
static struct peer *p;
static struct http *h;
static struct store *counted;
static struct http_resp resp;
static struct store_obj obj;
static char url[256];
static uint8_t pattern[300000];

/* What the sink has had. */
static uint8_t got[sizeof pattern];
static size_t got_size, got_calls;
static enum rc sink_rc;

static enum rc sink(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx;
    got_calls++;
    if (sink_rc != RC_OK) return err_set(e, sink_rc, "the sink is full");
    assert_true(got_size + size <= sizeof got);
    memcpy(got + got_size, data, size);
    got_size += size;
    return RC_OK;
}

static int begin(void **state)
{
    (void)state;
    p = peer_start(NULL, NULL);
    counted = calloc(1, sizeof *counted);
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 2654435761u >> 13);
    struct http_conf conf = {.service = peer_url(p), .store = counted};
    assert_int_equal(http_open(&conf, &h, &err), RC_OK);
    resp = (struct http_resp){0};
    obj = (struct store_obj){0};
    got_size = got_calls = 0;
    sink_rc = RC_OK;
    return 0;
}

static int end(void **state)
{
    (void)state;
    http_resp_fini(&resp);
    http_close(h);
    peer_stop(p);
    free(counted);
    struct http_state pool;
    http_look(&pool);
    assert_int_equal(pool.idle, 0);
    assert_int_equal(pool.busy, 0);
    return 0;
}

static struct http_req request(const char *method, const char *path)
{
    snprintf(url, sizeof url, "%s%s", peer_url(p), path);
    return (struct http_req){
        .method = method, .url = url, .what = "ask 'x'", .op = STORE_OP_GET, .idempotent = true};
}

static enum rc ask(const char *method, const char *path)
{
    CLEANUP(http_req_fini) struct http_req req = request(method, path);
    return http_send(h, NULL, &req, &resp, &err);
}

static enum rc put(const void *data, size_t size, bool idempotent)
{
    CLEANUP(http_req_fini) struct http_req req = request("PUT", "/put");
    req.data = data;
    req.data_size = size;
    req.idempotent = idempotent;
    return http_send(h, NULL, &req, &resp, &err);
}

static enum rc get(uint64_t off, uint64_t size)
{
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/get");
    req.sink = sink;
    req.ranged = true;
    req.range_off = off;
    req.range_size = size;
    req.ret_obj = &obj;
    got_size = got_calls = 0;
    obj = (struct store_obj){0};
    return http_send(h, NULL, &req, &resp, &err);
}

static void push(int status, const char *headers, const char *body)
{
    peer_push(p, &(struct peer_resp){.status = status,
                                     .headers = headers,
                                     .body = body,
                                     .body_size = body != NULL ? strlen(body) : 0});
}

/* A peer that serves an object, in place of the scripted one. */
struct object {
    const char *etag;
    struct peer_resp fault; /* for the first `faults` requests */
    atomic_uint faults;
};

static void serve(void *ctx, const struct peer_req *req, struct peer_resp *r)
{
    struct object *o = ctx;
    if (atomic_load(&o->faults) > 0) {
        atomic_fetch_sub(&o->faults, 1);
        *r = o->fault;
    }
    peer_serve(req, r, pattern, sizeof pattern, o->etag);
}

static void use_peer(struct object *o)
{
    peer_stop(p);
    http_close(h);
    p = peer_start(serve, o);
    struct http_conf conf = {.service = peer_url(p), .store = counted};
    assert_int_equal(http_open(&conf, &h, &err), RC_OK);
}

static void assert_got(uint64_t off, uint64_t size)
{
    assert_int_equal(got_size, size);
    if (size > 0) assert_memory_equal(got, pattern + off, size);
}

/* -------------------------------------------------------------------------------- requests */

static void test_plain(void **state)
{
    (void)state;
    push(200, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Odd:\t a  b \r\n", "hello");
    assert_int_equal(ask("GET", "/a/../b%2Fc/./d?x=%20&y"), RC_OK);
    assert_int_equal(resp.status, 200);
    assert_int_equal(resp.text.size, 5);
    assert_string_equal(resp.text.data, "hello");
    assert_string_equal(http_resp_header(&resp, "x-odd"), "a  b");
    assert_null(http_resp_header(&resp, "x-od"));
    assert_int_equal(resp.date_ms, 784111777000);
    assert_false(resp.lost);
    const struct peer_req *req = peer_at(p, 0);
    assert_string_equal(req->method, "GET");
    assert_string_equal(req->target, "/a/../b%2Fc/./d?x=%20&y");
    assert_null(peer_header(req, "Content-Length"));
    assert_string_equal(peer_header(req, "User-Agent"), "sluice/" SLUICE_VERSION);
    assert_int_equal(counted->counts.requests[STORE_OP_GET], 1);
    assert_int_equal(counted->counts.failed[STORE_OP_GET], 0);
    assert_int_equal(counted->counts.bytes_up, 0);

    push(204, NULL, NULL);
    assert_int_equal(ask("DELETE", "/d"), RC_OK);
    assert_string_equal(peer_at(p, 1)->method, "DELETE");
    assert_int_equal(resp.text.size, 0);
    assert_string_equal(resp.text.data, "");
    peer_push(p, &(struct peer_resp){.body_size = 1000});
    assert_int_equal(ask("HEAD", "/h"), RC_OK);
    assert_string_equal(peer_at(p, 2)->method, "HEAD");
    assert_string_equal(http_resp_header(&resp, "Content-Length"), "1000");
    push(207, NULL, "x");
    assert_int_equal(ask("PROPFIND", "/h"), RC_OK);
    assert_string_equal(peer_at(p, 3)->method, "PROPFIND");
    assert_int_equal(peer_connections(p), 1);
}

static void test_upload(void **state)
{
    (void)state;
    peer_push_many(p, 4, &(struct peer_resp){0});
    assert_int_equal(put(pattern, sizeof pattern, true), RC_OK);
    const struct peer_req *req = peer_at(p, 0);
    assert_int_equal(req->body_total, sizeof pattern);
    assert_memory_equal(req->body, pattern, sizeof pattern);
    assert_null(peer_header(req, "Expect"));
    assert_null(peer_header(req, "Content-Type"));
    assert_null(peer_header(req, "Transfer-Encoding"));
    assert_int_equal(put("", 0, true), RC_OK);
    assert_string_equal(peer_header(peer_at(p, 1), "Content-Length"), "0");
    assert_int_equal(ask("POST", "/p"), RC_OK);
    assert_string_equal(peer_at(p, 2)->method, "POST");
    assert_string_equal(peer_header(peer_at(p, 2), "Content-Length"), "0");
    assert_null(peer_header(peer_at(p, 2), "Content-Type"));

    CLEANUP(http_req_fini) struct http_req more = request("POST", "/p");
    more.data = "abc";
    more.data_size = 3;
    assert_int_equal(http_answer_header(&more, &err, "Content-Type", "text/%s", "x"), RC_OK);
    assert_int_equal(http_answer_header(&more, &err, "X-Empty", "%s", ""), RC_OK);
    assert_int_equal(http_answer_header(&more, &err, "User-Agent", "me"), RC_OK);
    assert_int_equal(http_answer_header(&more, &err, "X-Bad", "a\r\nInjected: 1"), RC_INVALID);
    assert_int_equal(http_answer_header(&more, &err, "X-Bad\n", "a"), RC_INVALID);
    assert_int_equal(http_answer_header(&more, &err, "X Bad", "a"), RC_INVALID);
    assert_int_equal(http_answer_header(&more, &err, "", "a"), RC_INVALID);
    assert_int_equal(http_send(h, NULL, &more, &resp, &err), RC_OK);
    req = peer_at(p, 3);
    assert_string_equal(req->body, "abc");
    assert_string_equal(peer_header(req, "Content-Type"), "text/x");
    assert_string_equal(peer_header(req, "X-Empty"), "");
    assert_string_equal(peer_header(req, "User-Agent"), "me");
    assert_null(peer_header(req, "X-Bad"));
    assert_null(peer_header(req, "Injected"));
}

static void test_judge(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum rc rc;
        bool throttled;
    } rows[] = {
        {301, RC_INVALID, false},  {400, RC_INVALID, false},   {401, RC_DENIED, false},
        {403, RC_DENIED, false},   {404, RC_NOT_FOUND, false}, {408, RC_AGAIN, false},
        {409, RC_CONFLICT, false}, {412, RC_CONFLICT, false},  {413, RC_TOO_BIG, false},
        {429, RC_AGAIN, true},     {500, RC_AGAIN, false},     {501, RC_UNSUPPORTED, false},
        {502, RC_AGAIN, false},    {503, RC_AGAIN, true},      {504, RC_AGAIN, false},
        {507, RC_NO_SPACE, false}, {304, RC_INVALID, false},
    };
    struct http_req req = {.what = "put 'k'"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_resp r = {.status = rows[i].status};
        struct retry_hint hint = {0};
        char text[40];
        assert_int_equal(http_judge(&req, &r, NULL, &hint, &err), rows[i].rc);
        assert_int_equal(hint.throttled, rows[i].throttled);
        snprintf(text, sizeof text, "put 'k': %d", rows[i].status);
        assert_string_equal(err.text, text);
    }
    struct http_resp r = {.status = 404};
    struct retry_hint hint = {0};
    const char line[] = "HTTP/1.1 404 Not\x1b[31mHere";
    r.headers = (struct buf){.data = (uint8_t *)line, .size = sizeof line};
    assert_int_equal(http_judge(&req, &r, "NoSuch\nKey", &hint, &err), RC_NOT_FOUND);
    assert_string_equal(err.text, "put 'k': 404 Not [31mHere: NoSuch Key");
}

static enum rc judge_odd(void *ctx, const struct http_req *req, const struct http_resp *r,
                         struct retry_hint *hint, struct err *e)
{
    ++*(int *)ctx;
    assert_int_equal(hint->after_ms, 0);
    if (strstr((const char *)r->text.data, "fine") != NULL) return RC_OK;
    if (strstr((const char *)r->text.data, "wait") != NULL)
        return err_set(e, RC_AGAIN, "%s: wait", req->what);
    hint->final = true;
    return err_set(e, RC_BUSY, "%s: never", req->what);
}

static void test_own_judge(void **state)
{
    (void)state;
    int calls = 0;
    push(409, NULL, "wait");
    push(409, NULL, "fine");
    push(500, NULL, "never");
    CLEANUP(http_req_fini) struct http_req req = request("POST", "/");
    req.judge = judge_odd;
    req.ctx = &calls;
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_OK);
    assert_int_equal(resp.status, 409);
    assert_false(resp.lost);
    assert_int_equal(calls, 2);
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_BUSY);
    assert_int_equal(calls, 3);
    assert_int_equal(peer_count(p), 3);
    push(404, NULL, "nobody");
    push(302, "Location: /else\r\n", NULL);
    assert_int_equal(ask("GET", "/"), RC_NOT_FOUND);
    assert_int_equal(ask("GET", "/"), RC_INVALID); /* a redirect is an answer */
    assert_string_equal(http_resp_header(&resp, "location"), "/else");
    assert_int_equal(counted->counts.failed[STORE_OP_GET], 3); /* 409 wait, 500, 302 */
    assert_int_equal(counted->counts.requests[STORE_OP_GET], 5);
}

static void test_framing(void **state)
{
    (void)state;
    peer_push(p, &(struct peer_resp){.chunked = true,
                                     .body = pattern,
                                     .body_size = 100000,
                                     .before = "HTTP/1.1 100 Continue\r\n\r\n"
                                               "HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\n",
                                     .headers = "X-Real: 2\r\n",
                                     .trailers = "X-Trail: 3\r\nX-Real: 4\r\n"});
    assert_int_equal(ask("GET", "/"), RC_OK);
    assert_int_equal(resp.status, 200);
    assert_int_equal(resp.text.size, 100000);
    assert_memory_equal(resp.text.data, pattern, 100000);
    assert_string_equal(http_resp_header(&resp, "X-Real"), "2");
    assert_null(http_resp_header(&resp, "X-Hint"));
    assert_null(http_resp_header(&resp, "X-Trail"));
    push(200, NULL, "next"); /* and the connection is in step */
    assert_int_equal(ask("GET", "/"), RC_OK);
    assert_string_equal(resp.text.data, "next");
    assert_int_equal(peer_connections(p), 1);
    peer_push(p, &(struct peer_resp){.no_length = true, .body = "closed", .body_size = 6});
    assert_int_equal(ask("GET", "/"), RC_OK);
    assert_string_equal(resp.text.data, "closed");
    /* To a sink, the end of a connection is no proof of the end of an object. */
    peer_push(p, &(struct peer_resp){.no_length = true, .body = "closed", .body_size = 6});
    assert_int_equal(get(0, 0), RC_CORRUPT);
    assert_int_equal(got_size, 0);
    peer_push(p, &(struct peer_resp){.chunked = true, .body = pattern, .body_size = 90000});
    assert_int_equal(get(0, 0), RC_OK);
    assert_got(0, 90000);
    assert_true(obj.size == STORE_SIZE_UNKNOWN);
}

/* ------------------------------------------------------------------------------ connections */

static void test_keep_alive(void **state)
{
    (void)state;
    struct http_state pool;
    peer_push_many(p, 40, &(struct peer_resp){.body = "x", .body_size = 1});
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask("GET", "/"), RC_OK);
    assert_int_equal(peer_connections(p), 1);
    http_look(&pool);
    assert_int_equal(pool.busy, 0);
    assert_int_equal(pool.idle, 1);
    /* An idle connection that died costs nothing. */
    for (int i = 0; i < 5; i++) {
        peer_drop_idle(p);
        assert_int_equal(ask(i % 2 ? "GET" : "DELETE", "/"), RC_OK);
    }
    assert_int_equal(peer_connections(p), 6);
    assert_int_equal(counted->counts.requests[STORE_OP_GET], 25);
    assert_int_equal(counted->counts.failed[STORE_OP_GET], 0);
    /* Closed right behind an answer that promised otherwise. */
    peer_forget(p);
    peer_push_many(p, 6, &(struct peer_resp){.close_silently = true});
    for (int i = 0; i < 6; i++)
        assert_int_equal(put(pattern, 1000, true), RC_OK);
    assert_int_equal(peer_count(p), 6);
}

static void count_busy(void *ctx, const struct peer_req *req, struct peer_resp *r)
{
    (void)ctx;
    r->delay_ms = 20;
    peer_text(r, "%s", req->target);
}

static enum rc one_of_many(void *ctx, uint64_t i, struct err *e)
{
    CLEANUP(http_resp_fini) struct http_resp r = {0};
    char own[128];
    snprintf(own, sizeof own, "%s/n%llu", peer_url(p), (unsigned long long)i);
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "GET", .url = own, .what = "many", .idempotent = true};
    TRY(http_send(ctx, NULL, &req, &r, e));
    if (strcmp((char *)r.text.data, strrchr(own, '/')) == 0) return RC_OK;
    return err_set(e, RC_CORRUPT, "'%s' got '%s'", own, (char *)r.text.data);
}

static void test_threads(void **state)
{
    (void)state;
    peer_stop(p);
    p = peer_start(count_busy, NULL);
    if (thr_each(32, 320, one_of_many, h, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(peer_count(p), 320);
    assert_in_range(peer_connections(p), 1, 33);
    assert_in_range(peer_busy_max(p), 8, 32);
    struct http_state pool;
    http_look(&pool);
    assert_int_equal(pool.busy, 0);
    assert_in_range(pool.idle, 1, 33);
}

/* After a rush the idle handles go, one with each request that ends. */
static void test_pool_shrinks(void **state)
{
    (void)state;
    struct http_state before, after;
    peer_stop(p);
    p = peer_start(count_busy, NULL);
    assert_int_equal(thr_each(8, 40, one_of_many, h, &err), RC_OK);
    http_look(&before);
    assert_in_range(before.idle, 3, 8);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask("GET", "/"), RC_OK);
    http_look(&after);
    assert_int_equal(after.idle, before.idle);
    http_pool_patience(1);
    for (unsigned i = 1; i < before.idle; i++) {
        os_sleep_ms(3);
        assert_int_equal(ask("GET", "/"), RC_OK);
        http_look(&after);
        assert_int_equal(after.idle, before.idle - i);
    }
    http_pool_patience(0);
}

static struct pacer *spend(int left);

static void test_unreachable(void **state)
{
    (void)state;
    struct pacer *pacer = spend(RETRY_COST); /* one more try */
    CLEANUP(http_req_fini) struct http_req req = request("PUT", "/");
    req.idempotent = false;
    req.url = "http://127.0.0.1:1/x?signature=sesame";
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_AGAIN);
    pacer_close(pacer);
    assert_false(resp.lost);
    assert_non_null(strstr(err.text, "ask 'x': cannot connect to 127.0.0.1:1: Connection refused"));
    assert_non_null(strstr(err.text, "(2 tries in "));
    assert_null(strstr(err.text, "sesame"));
    static const char *const bad[] = {
        "ftp://127.0.0.1/",
        "127.0.0.1",
        "http://",
        "http://u:sesame@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "file:///etc/passwd",
        "http://a b/",
        "",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        req.url = bad[i];
        assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_INVALID);
        assert_null(strstr(err.text, "sesame"));
    }
    assert_int_equal(peer_connections(p), 0);
}

/* ------------------------------------------------------------------------------------ faults */

static void stall_after(int64_t ms) /* 0: the default, which is long */
{
    struct http_conf conf = {.service = peer_url(p), .store = counted, .stall_ms = ms};
    http_close(h);
    assert_int_equal(http_open(&conf, &h, &err), RC_OK);
}

/* One fault, then a good answer: an idempotent request succeeds with its second try; one that is
 * not is repeated only if the first try cannot have taken effect. */
static void test_faults(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct peer_resp resp;
        int lost;          /* -1: the request may or may not have been sent before the reset */
        unsigned recorded; /* of the try that fails */
    } rows[] = {
        {"unread", {.fault = PEER_RESET_UNREAD}, -1, 0},
        {"lose", {.fault = PEER_LOSE}, 1, 1},
        {"reset", {.fault = PEER_RESET}, 1, 1},
        {"cut head", {.fault = PEER_CUT_HEAD, .headers = "X-A: b\r\n"}, 1, 1},
        {"cut body", {.fault = PEER_CUT_BODY, .fault_at = 5, .body_size = 99}, 1, 1},
        {"reset body", {.fault = PEER_RESET_BODY, .fault_at = 5, .body_size = 99}, 1, 1},
        {"cut chunk",
         {.fault = PEER_CUT_BODY, .fault_at = 5, .body_size = 9, .chunked = true},
         1,
         1},
        {"short", {.body_size = 9, .length_set = true, .length = 10, .close = true}, 1, 1},
        {"hang", {.fault = PEER_HANG_BODY, .fault_at = 5, .body_size = 99}, 1, 1},
        {"delay", {.delay_ms = 60000}, 1, 1},
        {"500", {.status = 500}, 1, 1},
        {"503", {.status = 503}, 1, 1},
        {"408", {.status = 408}, 1, 1},
        {"429", {.status = 429}, 0, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int way = 0; way < 2; way++) {
            peer_forget(p);
            peer_push(p, &rows[i].resp);
            push(200, NULL, "fine");
            stall_after(rows[i].resp.fault == PEER_HANG_BODY || rows[i].resp.delay_ms > 0 ? STALL_MS
                                                                                          : 0);
            enum rc rc = put("abc", 3, way == 0);
            bool again = way == 0 || !resp.lost;
            if (rc != (again ? RC_OK : RC_AGAIN) ||
                (rows[i].lost >= 0 && resp.lost != (rows[i].lost == 1)) ||
                peer_count(p) != rows[i].recorded + (again ? 1 : 0))
                fail_msg("%s, way %d: %s, lost %d, %u requests: %s", rows[i].name, way, rc_name(rc),
                         resp.lost, peer_count(p), err.text);
            for (unsigned k = 0; k < peer_count(p); k++)
                assert_string_equal(peer_at(p, k)->body, "abc");
            if (!again) assert_non_null(strstr(err.text, "ask 'x'"));
        }
    }
}

/* libcurl sends again by itself when an idle connection dies: that must show. */
static void test_lost_on_idle_connection(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        for (size_t size = 0; size < 4; size += 3) {
            peer_forget(p);
            push(200, NULL, "warm");
            peer_push(p, &(struct peer_resp){.fault = PEER_LOSE});
            push(412, NULL, "exists");
            assert_int_equal(ask("GET", "/"), RC_OK);
            assert_int_equal(put("abc", size, way == 0), way == 0 ? RC_CONFLICT : RC_AGAIN);
            assert_true(resp.lost);
            assert_int_equal(peer_count(p), way == 0 ? 3 : 2);
            peer_forget(p);
        }
    }
}

static void test_upload_broken(void **state)
{
    (void)state;
    size_t size = 24u << 20;
    char *big = calloc(1, size);
    struct http_conf patient = {.service = peer_url(p)}; /* so much takes the peer a while */
    http_close(h);
    assert_int_equal(http_open(&patient, &h, &err), RC_OK);
    /* Too little was read for the request to count: not lost, so repeated. */
    peer_push(p, &(struct peer_resp){.fault = PEER_RESET_UPLOAD, .fault_at = 1000});
    push(200, NULL, "fine");
    assert_int_equal(put(big, size, false), RC_OK);
    assert_false(resp.lost);
    assert_int_equal(peer_count(p), 1);
    /* An idle connection that dies under a long body is sent again by libcurl or, if that sees no
     * more than a failed send, by us: it is nobody's fault, so it costs no pause and no budget. */
    struct pacer *pacer = NULL;
    struct pacer_state st;
    assert_int_equal(pacer_open(peer_url(p), NULL, NULL, &pacer, &err), RC_OK);
    pacer_look(pacer, &st);
    int budget = st.budget;
    peer_push(p, &(struct peer_resp){.fault = PEER_RESET_UPLOAD, .fault_at = 1000});
    push(200, NULL, "fine");
    assert_int_equal(put(big, size, false), RC_OK);
    pacer_look(pacer, &st);
    assert_in_range(st.budget, budget, RETRY_BUDGET);
    assert_int_equal(peer_connections(p), 3);
    pacer_close(pacer);
    peer_forget(p);
    /* An answer that comes before the body was sent is an answer. */
    peer_push(
        p, &(struct peer_resp){.fault = PEER_EARLY, .status = 403, .body = "no", .body_size = 2});
    assert_int_equal(put(big, size, true), RC_DENIED);
    assert_int_equal(peer_count(p), 1);
    free(big);
    /* And a refusal whose text broke off is a refusal. */
    peer_push(p, &(struct peer_resp){
                     .fault = PEER_RESET_BODY, .fault_at = 3, .status = 403, .body_size = 9});
    assert_int_equal(ask("GET", "/"), RC_DENIED);
    assert_int_equal(peer_count(p), 2);
}

struct source {
    unsigned reads;
    uint64_t end; /* where reading fails */
    enum rc rc;
};

static enum rc source_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    struct source *s = ctx;
    s->reads++;
    if (s->rc != RC_OK && off + size > s->end) return err_set(e, s->rc, "the source is dry");
    memcpy(dst, pattern + off, size);
    return RC_OK;
}

static void test_body(void **state)
{
    (void)state;
    struct source s = {0};
    struct store_body body = {.size = sizeof pattern, .read = source_read, .ctx = &s};
    peer_push_many(p, 2, &(struct peer_resp){.status = 503});
    peer_push(p, &(struct peer_resp){0});
    CLEANUP(http_req_fini) struct http_req req = request("PUT", "/");
    req.op = STORE_OP_PUT;
    req.body = &body;
    req.body_off = 1000;
    req.body_size = 200000;
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_OK);
    assert_int_equal(peer_count(p), 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(peer_at(p, i)->body_total, 200000);
        assert_memory_equal(peer_at(p, i)->body, pattern + 1000, 200000);
    }
    assert_int_equal(counted->counts.requests[STORE_OP_PUT], 3);
    assert_int_equal(counted->counts.failed[STORE_OP_PUT], 2);
    assert_int_equal(counted->counts.throttled, 2);
    assert_int_equal(counted->counts.bytes_up, 600000);
    /* The body's own failure is final, even one that sounds temporary. */
    s = (struct source){.end = 150000, .rc = RC_AGAIN};
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_AGAIN);
    assert_string_equal(err.text, "the source is dry");
    assert_false(resp.lost);
    assert_int_equal(peer_count(p), 3);
    assert_int_equal(counted->counts.requests[STORE_OP_PUT], 4);
}

static void test_limits(void **state)
{
    (void)state;
    char *line = malloc(200001);
    memset(line, 'a', 200000);
    memcpy(line, "X-Long: ", 8);
    memcpy(line + 69998, "\r\n", 3);
    push(200, line, "x");
    assert_int_equal(ask("GET", "/"), RC_TOO_BIG);
    line[69998] = line[69999] = 'a';
    line[70000] = 'a';
    memcpy(line + 199998, "\r\n", 3);
    peer_push_many(p, RETRY_TRIES, &(struct peer_resp){.headers = line});
    enum rc rc = ask("GET", "/");
    if (rc != RC_TOO_BIG) fail_msg("%s: %s", rc_name(rc), err.text);
    peer_forget(p);
    for (int i = 0; i < 2000; i++)
        memcpy(line + i * 100 + 90, "\r\nX-Many: ", 10);
    memcpy(line + 199998, "\r\n", 3);
    push(200, line, "x");
    assert_int_equal(ask("GET", "/"), RC_TOO_BIG);
    assert_in_range(resp.headers.cap, 0, 4 * HTTP_HEADERS_MAX);
    free(line);

    peer_push(p, &(struct peer_resp){.body_size = 8u << 20, .chunked = true});
    assert_int_equal(ask("GET", "/"), RC_TOO_BIG);
    assert_in_range(resp.text.cap, 0, 2 * HTTP_TEXT_MAX + 2);
    peer_push(p, &(struct peer_resp){.body_size = 8u << 20, .status = 404});
    assert_int_equal(ask("GET", "/"), RC_NOT_FOUND);
    assert_int_equal(resp.text.size, HTTP_TEXT_MAX);
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    req.text_max = 5;
    push(200, NULL, "12345");
    push(200, NULL, "123456");
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_OK);
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_TOO_BIG);
    assert_non_null(strstr(err.text, "more than 5 bytes"));
}

/* ------------------------------------------------------------------------------------ ranges */

static unsigned heads;

static void on_head(void *ctx, const struct http_resp *r)
{
    (void)ctx;
    assert_int_equal(r->status / 100, 2);
    assert_int_equal(got_calls, 0);
    heads++;
}

static void test_ranges(void **state)
{
    (void)state;
    struct object o = {.etag = "\"v1\""};
    use_peer(&o);
    static const uint64_t rows[][3] = {
        /* off, size, delivered */
        {0, 0, sizeof pattern},
        {0, 1, 1},
        {5, 0, sizeof pattern - 5},
        {5, 70000, 70000},
        {sizeof pattern - 1, 0, 1},
        {sizeof pattern - 1, 9, 1},
        {sizeof pattern, 0, 0},
        {sizeof pattern + 9, 5, 0},
        {0, sizeof pattern, sizeof pattern},
        {1, sizeof pattern + 1, sizeof pattern - 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(get(rows[i][0], rows[i][1]), RC_OK);
        assert_got(rows[i][0], rows[i][2]);
        assert_int_equal(obj.size, sizeof pattern);
        if (rows[i][2] == 0) assert_int_equal(got_calls, 0);
        if (rows[i][2] > 0) assert_string_equal(obj.etag, "\"v1\"");
    }
    assert_null(peer_header(peer_at(p, 0), "Range"));
    assert_string_equal(peer_header(peer_at(p, 3), "Range"), "bytes=5-70004");
    assert_string_equal(peer_header(peer_at(p, 2), "Range"), "bytes=5-");
    assert_int_equal(peer_connections(p), 1);
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/get");
    req.sink = sink;
    req.on_head = on_head;
    heads = 0;
    got_size = got_calls = 0;
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_OK);
    assert_got(0, sizeof pattern);
    assert_int_equal(heads, 1);
    assert_int_equal(req.delivered, sizeof pattern);
    /* The sink's failure ends it, whatever its code. */
    sink_rc = RC_AGAIN;
    assert_int_equal(get(0, 0), RC_AGAIN);
    assert_string_equal(err.text, "the sink is full");
    assert_int_equal(got_calls, 1);
}

/* A service that ignores ranges. */
static void test_ranges_ignored(void **state)
{
    (void)state;
    struct peer_resp whole = {.body = pattern,
                              .body_size = sizeof pattern,
                              .headers = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"};
    peer_push_many(p, 5, &whole);
    assert_int_equal(get(1000, 50000), RC_OK);
    assert_got(1000, 50000);
    assert_int_equal(obj.mtime_ms, 784111777000);
    assert_int_equal(obj.size, sizeof pattern);
    assert_string_equal(obj.etag, "");
    assert_int_equal(get(sizeof pattern - 7, 50000), RC_OK);
    assert_got(sizeof pattern - 7, 7);
    assert_int_equal(get(sizeof pattern, 0), RC_OK);
    assert_int_equal(got_calls, 0);
    assert_int_equal(get(sizeof pattern + 1, 10), RC_OK);
    assert_int_equal(got_calls, 0);
    whole.chunked = true;
    peer_forget(p);
    peer_push_many(p, 2, &whole);
    assert_int_equal(get(200000, 1000), RC_OK);
    assert_got(200000, 1000);
    assert_int_equal(get(sizeof pattern - 10, 1000), RC_OK);
    assert_got(sizeof pattern - 10, 10);
    /* An empty object. */
    peer_push(p, &(struct peer_resp){0});
    assert_int_equal(get(0, 0), RC_OK);
    assert_int_equal(got_calls, 0);
    assert_int_equal(obj.size, 0);
}

static void test_ranges_wrong(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "Content-Range: bytes 0-9/100\r\n",
        "Content-Range: bytes 11-20/100\r\n",
        "Content-Range: bytes 10-20/100\r\n",
        "Content-Range: bytes 10-19/15\r\n",
        "Content-Range: bytes 10-18/100\r\n",
        "Content-Range: bytes 19-10/100\r\n",
        "Content-Range: lines 10-19/100\r\n",
        "Content-Range: bytes 10-19\r\n",
        "Content-Range: bytes */100\r\n",
        "Content-Range: bytes 10-19/99999999999999999999\r\n",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        push(206, wrong[i], "0123456789");
        if (get(10, 10) != RC_CORRUPT) fail_msg("'%s': %s", wrong[i], err.text);
        assert_int_equal(got_size, 0);
    }
    assert_int_equal(peer_count(p), sizeof wrong / sizeof wrong[0]);
    push(206, "Content-Range: bytes 10-19/*\r\n", "0123456789");
    assert_int_equal(get(10, 10), RC_OK);
    assert_memory_equal(got, "0123456789", 10);
    /* Whether the object ends there, or the answer alone, cannot be told. */
    push(206, "Content-Range: bytes 10-14/*\r\n", "01234");
    assert_int_equal(get(10, 10), RC_CORRUPT);
    push(206, "Content-Range: bytes 10-19/*\r\n", "0123456789");
    assert_int_equal(get(10, 0), RC_CORRUPT);
    assert_int_equal(got_size, 0);
    /* All of the range came, so there is nothing left to ask for. */
    unsigned asked = peer_count(p);
    peer_push(p, &(struct peer_resp){.status = 206,
                                     .headers = "Content-Range: bytes 10-19/*\r\n",
                                     .body = "0123456789",
                                     .body_size = 10,
                                     .chunked = true,
                                     .fault = PEER_CUT_BODY,
                                     .fault_at = 10});
    assert_int_equal(get(10, 10), RC_OK);
    assert_int_equal(got_size, 10);
    assert_int_equal(peer_count(p) - asked, 1);
    push(206, "Content-Range: bytes 0-9/10\r\n", "0123456789"); /* nobody asked */
    assert_int_equal(get(0, 0), RC_CORRUPT);
    peer_push(p, &(struct peer_resp){.status = 206,
                                     .headers = "Content-Range: bytes 10-19/50\r\n",
                                     .body = "0123456789abc",
                                     .body_size = 13,
                                     .chunked = true});
    assert_int_equal(get(10, 10), RC_CORRUPT);
    assert_int_equal(got_size, 0);
    /* A part of what was asked for: the rest is asked for. */
    push(206, "Content-Range: bytes 10-14/50\r\n", "01234");
    push(206, "Content-Range: bytes 15-19/50\r\n", "56789");
    assert_int_equal(get(10, 10), RC_OK);
    assert_int_equal(got_size, 10);
    assert_memory_equal(got, "0123456789", 10);
    push(416, "Content-Range: bytes */50\r\n", NULL); /* but it is longer than that */
    assert_int_equal(get(10, 10), RC_CORRUPT);
}

static void test_resume(void **state)
{
    (void)state;
    struct object o = {.etag = "\"v1\"", .fault = {.fault = PEER_CUT_BODY, .fault_at = 70000}};
    use_peer(&o);
    atomic_store(&o.faults, 3);
    assert_int_equal(get(1000, 260000), RC_OK);
    assert_got(1000, 260000);
    assert_int_equal(peer_count(p), 4);
    assert_string_equal(peer_header(peer_at(p, 0), "Range"), "bytes=1000-260999");
    assert_null(peer_header(peer_at(p, 0), "If-Match"));
    assert_string_equal(peer_header(peer_at(p, 1), "Range"), "bytes=71000-260999");
    assert_string_equal(peer_header(peer_at(p, 1), "If-Match"), "\"v1\"");
    assert_string_equal(peer_header(peer_at(p, 3), "Range"), "bytes=211000-260999");
    assert_int_equal(counted->counts.bytes_down, 260000);
    /* All that was wanted came: the break behind it is nobody's business. */
    atomic_store(&o.faults, 1);
    assert_int_equal(get(0, 70000), RC_OK);
    assert_int_equal(peer_count(p), 5);
    /* A weak etag is compared, not sent. */
    o.etag = "W/\"v1\"";
    atomic_store(&o.faults, 1);
    assert_int_equal(get(0, 0), RC_OK);
    assert_got(0, sizeof pattern);
    assert_null(peer_header(peer_at(p, 6), "If-Match"));
    assert_string_equal(peer_header(peer_at(p, 6), "Range"), "bytes=70000-");
    /* No etag at all. */
    o.etag = NULL;
    atomic_store(&o.faults, 1);
    assert_int_equal(get(0, 0), RC_OK);
    assert_got(0, sizeof pattern);
}

static void test_resume_changed(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *headers;
        size_t size;
    } second[] = {
        {412, "", 0},
        {206, "ETag: \"v2\"\r\nContent-Range: bytes 5-9/10\r\n", 5},
        {206, "ETag: \"v1\"\r\nContent-Range: bytes 5-10/11\r\n", 6},
        {200, "ETag: \"v2\"\r\n", 10},
        {200, "ETag: \"v1\"\r\n", 11},
        {200, "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT\r\n", 10},
        {416, "Content-Range: bytes */5\r\n", 0},
        {416, "", 0},
    };
    for (size_t i = 0; i < sizeof second / sizeof second[0]; i++) {
        peer_forget(p);
        peer_push(p,
                  &(struct peer_resp){.headers = "ETag: \"v1\"\r\n"
                                                 "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                                      .body = "0123456789",
                                      .body_size = 10,
                                      .fault = PEER_CUT_BODY,
                                      .fault_at = 5});
        peer_push(p, &(struct peer_resp){.status = second[i].status,
                                         .headers = second[i].headers,
                                         .body = "0123456789a",
                                         .body_size = second[i].size});
        if (get(0, 0) != RC_CORRUPT) fail_msg("%zu: %s", i, err.text);
        assert_non_null(strstr(err.text, "it changed while it was read"));
        assert_int_equal(got_size, 5);
        assert_int_equal(peer_count(p), 2);
    }
    /* Before the first byte there is nothing to be unfaithful to. */
    peer_push(p, &(struct peer_resp){
                     .headers = "ETag: \"v1\"\r\n", .body_size = 10, .fault = PEER_CUT_BODY});
    push(200, "ETag: \"v2\"\r\n", "abc");
    assert_int_equal(get(0, 0), RC_OK);
    assert_string_equal(obj.etag, "\"v2\"");
    assert_int_equal(obj.size, 3);
    assert_int_equal(got_size, 3);
}

/* ------------------------------------------------------------------- signing, pace, trouble */

static enum rc sign(void *ctx, struct http_req *req, struct err *e)
{
    char *seen = ctx;
    const char *name, *value;
    size_t at = 0, name_size, used = strlen(seen);
    while (http_header_next(req, &at, &name, &name_size, &value))
        used += (size_t)snprintf(seen + used, 400 - used, "%.*s=%s;", (int)name_size, name, value);
    snprintf(seen + used, 400 - used, "|");
    return http_answer_header(req, e, "Authorization", "Signed %zu", used);
}

static void test_sign(void **state)
{
    (void)state;
    char seen[400] = "";
    struct object o = {.etag = "\"v1\"", .fault = {.fault = PEER_CUT_BODY, .fault_at = 10}};
    use_peer(&o);
    atomic_store(&o.faults, 1);
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    req.sink = sink;
    req.sign = sign;
    req.ctx = seen;
    assert_int_equal(http_answer_header(&req, &err, "X-One", "1"), RC_OK);
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_OK);
    assert_string_equal(seen, "X-One=1;|X-One=1;Range=bytes=10-;If-Match=\"v1\";|");
    assert_string_equal(peer_header(peer_at(p, 0), "Authorization"), "Signed 8");
    assert_string_equal(peer_header(peer_at(p, 1), "Authorization"), "Signed 47");
    assert_got(0, sizeof pattern);
}

static enum rc sign_refuse(void *ctx, struct http_req *req, struct err *e)
{
    (void)req;
    return ++*(int *)ctx < 3 ? err_set(e, RC_AGAIN, "no credentials yet")
                             : err_set(e, RC_DENIED, "no credentials");
}

static void test_sign_fails(void **state)
{
    (void)state;
    int calls = 0;
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    req.sign = sign_refuse;
    req.ctx = &calls;
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_DENIED);
    assert_int_equal(calls, 3);
    assert_non_null(strstr(err.text, "no credentials (3 tries"));
    assert_int_equal(peer_connections(p), 0);
}

static enum rc fail_and_cancel(void *ctx, struct retry_hint *hint, struct err *e)
{
    (void)hint;
    atomic_store((atomic_bool *)ctx, true);
    return err_set(e, RC_AGAIN, "down");
}

/* A service that is down is not asked eight times as often: without budget there is one try. */
/* Use the peer's budget up until so much is left. */
static struct pacer *spend(int left)
{
    struct pacer *pacer = NULL;
    struct pacer_state st;
    assert_int_equal(pacer_open(peer_url(p), NULL, NULL, &pacer, &err), RC_OK);
    for (pacer_look(pacer, &st); st.budget > left; pacer_look(pacer, &st)) {
        atomic_bool cancel = false;
        struct call c = {.cancel = &cancel};
        assert_int_equal(retry_run(pacer, &c, fail_and_cancel, &cancel, &err), RC_CANCELED);
    }
    return pacer;
}

static void test_budget(void **state)
{
    (void)state;
    struct pacer *pacer = spend(0);
    push(500, NULL, NULL);
    push(200, NULL, NULL);
    assert_int_equal(ask("GET", "/"), RC_AGAIN);
    assert_int_equal(peer_count(p), 1);
    pacer_close(pacer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain),
        TEST(upload),
        TEST(judge),
        TEST(own_judge),
        TEST(framing),
        TEST(keep_alive),
        TEST(threads),
        TEST(pool_shrinks),
        TEST(unreachable),
        TEST(faults),
        TEST(lost_on_idle_connection),
        TEST(upload_broken),
        TEST(body),
        TEST(limits),
        TEST(ranges),
        TEST(ranges_ignored),
        TEST(ranges_wrong),
        TEST(resume),
        TEST(resume_changed),
        TEST(sign),
        TEST(sign_fails),
        TEST(budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
