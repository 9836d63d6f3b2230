/* http_sweep_test.c -- random breaks, cuts at every byte, and every allocation that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "peer.h"
#include "store/http.h"

#define OBJECT_SIZE (600u << 10)
#define GETS        120u
#define BREAKS_MAX  3u /* of one get */

static uint8_t object[OBJECT_SIZE];
static uint64_t seed;
static struct err err;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static void open_http(struct peer *p, const char *name, struct http **ret)
{
    char service[80];
    snprintf(service, sizeof service, "%s/%s", peer_url(p), name);
    struct http_conf conf = {.service = service, .stall_ms = 2000};
    assert_int_equal(http_open(&conf, ret, &err), RC_OK);
}

/* --------------------------------------------------------------------------- random breaks */

struct crowd {
    struct http *h;
    struct peer *p;
    atomic_uint tries[GETS], breaks;
};

static void serve_and_break(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    struct crowd *crowd = ctx;
    unsigned i = (unsigned)strtoul(req->target + 1, NULL, 10);
    unsigned try = atomic_fetch_add(&crowd->tries[i], 1);
    uint64_t r = mix(seed ^ (i * 16u + try + 1));
    bool etag = mix(seed ^ i) % 4 != 0; /* the same in all tries of one get */
    if ((r >> 16) % 5 == 0) {           /* ignores ranges */
        if (etag) peer_head(resp, "ETag", "\"v%u\"", i);
        resp->body = object;
        resp->body_size = sizeof object;
    } else {
        char text[32];
        snprintf(text, sizeof text, "\"v%u\"", i);
        peer_serve(req, resp, object, sizeof object, etag ? text : NULL);
        if (resp->status == 412) return;
    }
    resp->chunked = (r >> 24) % 3 == 0;
    if (try >= BREAKS_MAX || r % 10 >= 4) return;
    static const enum peer_fault faults[] = {PEER_CUT_BODY, PEER_RESET_BODY, PEER_CUT_HEAD,
                                             PEER_LOSE, PEER_RESET};
    atomic_fetch_add(&crowd->breaks, 1);
    resp->fault = faults[(r >> 32) % 8 < 5 ? (r >> 32) % 8 : 0];
    resp->fault_at = (r >> 40) % (resp->body_size + 1);
}

struct taker {
    uint8_t *data;
    size_t size, cap;
};

static enum rc take(void *ctx, const void *data, size_t size, struct err *e)
{
    struct taker *t = ctx;
    if (size > t->cap - t->size) return err_set(e, RC_INVALID, "more than was asked for");
    memcpy(t->data + t->size, data, size);
    t->size += size;
    return RC_OK;
}

static enum rc get_one(void *ctx, uint64_t i, struct err *e)
{
    struct crowd *crowd = ctx;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    char url[80];
    uint64_t r = mix(seed + i * 7919);
    uint64_t off = r % 3 == 0 ? 0 : (r >> 8) % (OBJECT_SIZE + 1000);
    uint64_t size = (r >> 4) % 3 == 0 ? 0 : 1 + (r >> 36) % OBJECT_SIZE;
    uint64_t want = off >= OBJECT_SIZE ? 0 : OBJECT_SIZE - off;
    if (size > 0 && size < want) want = size;
    snprintf(url, sizeof url, "%s/%u", peer_url(crowd->p), (unsigned)i);
    struct taker t = {.data = malloc(OBJECT_SIZE), .cap = OBJECT_SIZE};
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "GET",
                           .url = url,
                           .what = url,
                           .idempotent = true,
                           .sink = take,
                           .sink_ctx = &t,
                           .ranged = true,
                           .range_off = off,
                           .range_size = size};
    enum rc rc = http_send(crowd->h, NULL, &req, &resp, e);
    if (rc == RC_OK && (t.size != want || memcmp(t.data, object + off, want) != 0))
        rc = err_set(e, RC_CORRUPT, "get %u: %zu bytes, wanted %llu at %llu", (unsigned)i, t.size,
                     (unsigned long long)want, (unsigned long long)off);
    free(t.data);
    return rc;
}

static void test_random_breaks(void **state)
{
    (void)state;
    struct crowd *crowd = calloc(1, sizeof *crowd);
    crowd->p = peer_start(serve_and_break, crowd);
    open_http(crowd->p, "breaks", &crowd->h);
    if (thr_each(16, GETS, get_one, crowd, &err) != RC_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    assert_true(atomic_load(&crowd->breaks) > GETS / 8);
    http_close(crowd->h);
    peer_stop(crowd->p);
    free(crowd);
}

/* More breaks than there are tries: a get that goes on has as many as it needs. */
#define LONG_SIZE (13u << 20)
#define LONG_CUT  (3u << 19)

static void serve_long(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    peer_serve(req, resp, ctx, LONG_SIZE, "\"v\"");
    resp->fault = PEER_CUT_BODY;
    resp->fault_at = LONG_CUT;
}

static void test_long(void **state)
{
    (void)state;
    struct http *h = NULL;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    uint8_t *data = malloc(LONG_SIZE);
    for (size_t i = 0; i < LONG_SIZE; i++)
        data[i] = (uint8_t)mix(i / 8 + i);
    struct peer *p = peer_start(serve_long, data);
    open_http(p, "long", &h);
    struct taker t = {.data = malloc(LONG_SIZE), .cap = LONG_SIZE};
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "GET",
                           .url = peer_url(p),
                           .what = "long",
                           .idempotent = true,
                           .sink = take,
                           .sink_ctx = &t};
    if (http_send(h, NULL, &req, &resp, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(t.size, LONG_SIZE);
    assert_memory_equal(t.data, data, LONG_SIZE);
    assert_int_equal(peer_count(p), (LONG_SIZE + LONG_CUT - 1) / LONG_CUT);
    assert_true(peer_count(p) > RETRY_TRIES);
    http_close(h);
    peer_stop(p);
    free(t.data);
    free(data);
}

/* ------------------------------------------------------------------------- cut at every byte */

#define HEAD_SIZE 52u /* of the answer below, roughly: a cut past its end is one in the body */

static void serve_and_cut(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    struct crowd *crowd = ctx;
    unsigned at = (unsigned)strtoul(req->target + 1, NULL, 10);
    bool first = atomic_fetch_add(&crowd->tries[at], 1) == 0;
    peer_serve(req, resp, "hello", 5, "\"v\"");
    if (!first) return;
    resp->fault = at < HEAD_SIZE ? PEER_CUT_HEAD : PEER_CUT_BODY;
    resp->fault_at = at < HEAD_SIZE ? at + 1 : at - HEAD_SIZE;
}

static enum rc cut_one(void *ctx, uint64_t i, struct err *e)
{
    struct crowd *crowd = ctx;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    char url[80];
    uint8_t data[6] = "";
    struct taker t = {.data = data, .cap = 5};
    snprintf(url, sizeof url, "%s/%u", peer_url(crowd->p), (unsigned)i);
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "GET", .url = url, .what = url, .idempotent = true};
    if (i % 2 == 0) {
        req.sink = take;
        req.sink_ctx = &t;
    }
    TRY(http_send(crowd->h, NULL, &req, &resp, e));
    const char *text = i % 2 == 0 ? (char *)data : (char *)resp.text.data;
    if (strcmp(text, "hello") != 0) return err_set(e, RC_CORRUPT, "%s: '%s'", url, text);
    if (atomic_load(&crowd->tries[i]) == 2) return RC_OK;
    return err_set(e, RC_CORRUPT, "%s: %u tries", url, atomic_load(&crowd->tries[i]));
}

static void test_cut_everywhere(void **state)
{
    (void)state;
    struct crowd *crowd = calloc(1, sizeof *crowd);
    crowd->p = peer_start(serve_and_cut, crowd);
    open_http(crowd->p, "cut", &crowd->h);
    if (thr_each(16, HEAD_SIZE + 5, cut_one, crowd, &err) != RC_OK) fail_msg("%s", err.text);
    http_close(crowd->h);
    peer_stop(crowd->p);
    free(crowd);
}

/* ----------------------------------------------------------------- every allocation that fails */

static enum rc once(struct peer *p, struct http_resp *resp)
{
    struct http *h = NULL;
    char url[80];
    struct http_conf conf = {.service = peer_url(p), .ca_file = "/none", .unix_socket = NULL};
    uint8_t data[5];
    struct taker t = {.data = data, .cap = 5};
    snprintf(url, sizeof url, "%s/x", peer_url(p));
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "PUT", .url = url, .what = "sweep", .idempotent = true};
    TRY(http_open(&conf, &h, &err));
    req.sink = take;
    req.sink_ctx = &t;
    req.data = "abc";
    req.data_size = 3;
    enum rc rc = http_answer_header(&req, &err, "X-One", "%d", 1);
    if (rc == RC_OK) rc = http_answer_header(&req, &err, "X-Empty", "%s", "");
    if (rc == RC_OK) rc = http_send(h, NULL, &req, resp, &err);
    if (rc == RC_OK) assert_memory_equal(data, "hello", 5);
    http_close(h);
    return rc;
}

static void test_no_memory(void **state)
{
    (void)state;
    struct peer *p = peer_start(NULL, NULL);
    struct peer_resp answer = {.body = "hello", .body_size = 5, .headers = "ETag: \"v\"\r\n"};
    bool fired = true;
    unsigned n = 0;
    while (fired) {
        CLEANUP(http_resp_fini) struct http_resp resp = {0};
        peer_forget(p);
        peer_push(p, &answer);
        fault_arm(FAULT_ALLOC, ++n, false);
        enum rc rc = once(p, &resp);
        fired = fault_fired();
        fault_arm(0, 0, false);
        if (rc != (fired ? RC_NO_MEM : RC_OK)) fail_msg("%u: %s: %s", n, rc_name(rc), err.text);
        struct http_state pool;
        http_look(&pool);
        assert_int_equal(pool.busy, 0);
        assert_int_equal(pool.idle, 0);
    }
    assert_true(n > 6);
    peer_stop(p);
}

int main(void)
{
    const char *text = getenv("SLUICE_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : os_random();
    printf("SLUICE_SEED=%llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof object; i++)
        object[i] = (uint8_t)mix(seed + i / 8 * 31 + i);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_breaks),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
