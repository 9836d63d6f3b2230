/* http_time_test.c -- cancellation, deadlines, limits of time and throttling of HTTP requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/os.h"
#include "peer.h"
#include "store/http.h"

#define STALL_MS 700
#define LATE_MS  10000 /* for a busy machine; what is not kept to lasts longer */

static struct err err;
static struct peer *p;
static struct http *h;
static struct http_resp resp;
static char url[256];

static int begin(void **state)
{
    (void)state;
    p = peer_start(NULL, NULL);
    struct http_conf conf = {.service = peer_url(p)};
    assert_int_equal(http_open(&conf, &h, &err), RC_OK);
    resp = (struct http_resp){0};
    return 0;
}

static int end(void **state)
{
    (void)state;
    http_resp_fini(&resp);
    http_close(h);
    peer_stop(p);
    return 0;
}

static struct http_req request(const char *method, const char *path)
{
    snprintf(url, sizeof url, "%s%s", peer_url(p), path);
    return (struct http_req){
        .method = method, .url = url, .what = "ask 'x'", .op = STORE_OP_GET, .idempotent = true};
}

static unsigned told;

static void on_trouble(void *ctx, const char *name, const struct store_trouble *t)
{
    assert_ptr_equal(ctx, &told);
    assert_string_equal(name, peer_url(p));
    assert_int_equal(t->count, 2);
    assert_non_null(strstr(t->first.text, "503 Slow Down"));
    assert_non_null(strstr(t->last.text, "429"));
    told++;
}

static void test_throttled(void **state)
{
    (void)state;
    struct store_conf sc = {.on_trouble = on_trouble, .on_trouble_ctx = &told};
    struct http_conf conf = {.service = peer_url(p), .conf = &sc};
    struct http *own = NULL;
    struct pacer *pacer = NULL;
    struct pacer_state st;
    assert_int_equal(http_open(&conf, &own, &err), RC_OK);
    assert_int_equal(pacer_open(peer_url(p), NULL, NULL, &pacer, &err), RC_OK);
    peer_push(p, &(struct peer_resp){
                     .status = 503, .reason = "Slow Down", .headers = "Retry-After: 1\r\n"});
    peer_push(p, &(struct peer_resp){.status = 429});
    peer_push_many(p, 2, &(struct peer_resp){0});
    int64_t from_ms = os_mono_ms();
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_OK);
    assert_in_range(os_mono_ms() - from_ms, 1000, 2000 + LATE_MS);
    assert_in_range(peer_at(p, 1)->at_ms - peer_at(p, 0)->at_ms, 1000, 1500 + LATE_MS);
    assert_int_equal(told, 1);
    pacer_look(pacer, &st);
    assert_int_equal(st.slots, RETRY_SLOTS / 4);
    assert_int_equal(st.busy, 0);
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_OK);
    assert_int_equal(told, 1);
    http_close(own);
    pacer_close(pacer);
}

struct later {
    atomic_bool flag;
    int64_t after_ms, set_ms;
};

static void *set_later(void *arg)
{
    struct later *l = arg;
    os_sleep_ms(l->after_ms);
    l->set_ms = os_mono_ms();
    atomic_store(&l->flag, true);
    return NULL;
}

static int full_port(int fds[20])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fds[0], (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fds[0], 0), 0);
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&addr, &size), 0);
    for (int i = 1; i < 20; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fds[i], (struct sockaddr *)&addr, sizeof addr);
    }
    return ntohs(addr.sin_port);
}

/* Cancelled, or out of time, while it connects, hangs or drips: seen long before anything else
 * would end it. */
static void test_cancel(void **state)
{
    (void)state;
    int fds[20], port = full_port(fds);
    struct peer_resp hang = {.delay_ms = 60000};
    struct peer_resp drip = {.body_size = 100000, .drip_size = 100, .drip_ms = 20};
    char full[64];
    snprintf(full, sizeof full, "http://127.0.0.1:%d/", port);
    for (int i = 0; i < 6; i++) {
        struct later l = {.after_ms = 400};
        struct call c = {.cancel = &l.flag};
        pthread_t thread;
        CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
        if (i % 3 == 0) req.url = full;
        if (i % 3 == 1) peer_push(p, &hang);
        if (i % 3 == 2) peer_push(p, &drip);
        if (i >= 3) {
            c = (struct call){.deadline_ms = os_mono_ms() + 400};
            l.set_ms = c.deadline_ms;
        } else {
            assert_int_equal(thr_start(&thread, "later", set_later, &l, &err), RC_OK);
        }
        enum rc rc = http_send(h, &c, &req, &resp, &err);
        int64_t now_ms = os_mono_ms();
        if (i < 3) pthread_join(thread, NULL);
        if (rc != RC_CANCELED) fail_msg("%d: %s: %s", i, rc_name(rc), err.text);
        assert_in_range(now_ms - l.set_ms, 0, HTTP_CONNECT_MS / 2);
        assert_int_equal(resp.lost, i % 3 != 0);
        assert_non_null(strstr(err.text, "ask 'x'"));
    }
    for (int i = 0; i < 20; i++)
        close(fds[i]);
}

static void test_connect_timeout(void **state)
{
    (void)state;
    int fds[20], port = full_port(fds);
    char full[64];
    struct http_conf conf = {.service = "full", .connect_ms = 150, .stall_ms = 20};
    struct http *own = NULL;
    struct call c = {.deadline_ms = os_mono_ms() + 300};
    assert_int_equal(http_open(&conf, &own, &err), RC_OK);
    snprintf(full, sizeof full, "http://127.0.0.1:%d/", port);
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    req.url = full;
    int64_t from_ms = os_mono_ms();
    enum rc rc = http_send(own, &c, &req, &resp, &err);
    assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
    assert_in_range(os_mono_ms() - from_ms, 150, HTTP_CONNECT_MS / 2);
    assert_false(resp.lost);
    http_close(own);
    for (int i = 0; i < 20; i++)
        close(fds[i]);
}

static void test_stall(void **state)
{
    (void)state;
    struct http *own = NULL;
    struct http_conf conf = {.service = "stall", .stall_ms = STALL_MS};
    assert_int_equal(http_open(&conf, &own, &err), RC_OK);
    CLEANUP(http_req_fini) struct http_req req = request("POST", "/");
    req.idempotent = false; /* one try */
    peer_push(p, &(struct peer_resp){.delay_ms = 60000});
    int64_t from_ms = os_mono_ms();
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_AGAIN);
    assert_in_range(os_mono_ms() - from_ms, STALL_MS, STALL_MS + LATE_MS);
    assert_non_null(strstr(err.text, "no byte moved for"));
    /* A drip that never stalls is too slow in the end: 500 bytes may take STALL_MS + 488 ms. */
    peer_push(p, &(struct peer_resp){.body_size = 500, .drip_size = 1, .drip_ms = 20});
    from_ms = os_mono_ms();
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_AGAIN);
    assert_in_range(os_mono_ms() - from_ms, STALL_MS + 480, STALL_MS + 488 + LATE_MS);
    assert_non_null(strstr(err.text, "too slow"));
    /* Slow, but fast enough. */
    peer_push(p, &(struct peer_resp){.body_size = 4000, .drip_size = 1000, .drip_ms = 250});
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_OK);
    assert_int_equal(resp.text.size, 4000);
    /* Blanks from one who thinks, of unknown size, have all the time of a long text. */
    peer_push(p, &(struct peer_resp){.body = "               ok",
                                     .body_size = 17,
                                     .drip_size = 1,
                                     .drip_ms = 60,
                                     .chunked = true});
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_OK);
    assert_string_equal(resp.text.data, "               ok");
    http_close(own);
}

#define SLOW_STALL_MS 800
#define SLOW_SINK_MS  1200

static enum rc slow_sink(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)data, (void)e;
    os_sleep_ms(SLOW_SINK_MS);
    *(size_t *)ctx += size;
    return RC_OK;
}

/* The time that the sink takes is not the service's, neither for the stall limit nor in all. Each
 * piece comes when the one before has been taken. */
static void test_slow_sink(void **state)
{
    (void)state;
    size_t size = 0;
    struct http *own = NULL;
    struct http_conf conf = {.service = "slow sink", .stall_ms = SLOW_STALL_MS};
    assert_int_equal(http_open(&conf, &own, &err), RC_OK);
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    req.sink = slow_sink;
    req.sink_ctx = &size;
    peer_push(p,
              &(struct peer_resp){.body_size = 60, .drip_size = 30, .drip_ms = SLOW_SINK_MS + 25});
    assert_int_equal(http_send(own, NULL, &req, &resp, &err), RC_OK);
    assert_int_equal(size, 60);
    assert_int_equal(peer_count(p), 1);
    http_close(own);
}

static enum rc fail_and_cancel(void *ctx, struct retry_hint *hint, struct err *e)
{
    (void)hint;
    atomic_store((atomic_bool *)ctx, true);
    return err_set(e, RC_AGAIN, "once more");
}

/* A name that no name server is asked for, since a label has at most 63 characters. Each try fails
 * for that reason, not because of what the one before has left behind. */
static void test_unknown_name(void **state)
{
    (void)state;
    struct pacer *pacer = NULL;
    struct pacer_state st;
    assert_int_equal(pacer_open(peer_url(p), NULL, NULL, &pacer, &err), RC_OK);
    for (pacer_look(pacer, &st); st.budget > 2 * RETRY_COST; pacer_look(pacer, &st)) {
        atomic_bool cancel = false;
        struct call c = {.cancel = &cancel};
        assert_int_equal(retry_run(pacer, &c, fail_and_cancel, &cancel, &err), RC_CANCELED);
    }
    CLEANUP(http_req_fini) struct http_req req = request("GET", "/");
    snprintf(url, sizeof url, "http://%.64s.test/",
             "0123456789012345678901234567890123456789012345678901234567890123456789");
    assert_int_equal(http_send(h, NULL, &req, &resp, &err), RC_AGAIN); /* two more tries */
    pacer_close(pacer);
    assert_non_null(strstr(err.text, "cannot be resolved"));
    assert_null(strstr(err.text, "at first"));
    assert_non_null(strstr(err.text, "(3 tries in "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, begin, end)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(throttled), TEST(cancel),    TEST(connect_timeout),
        TEST(stall),     TEST(slow_sink), TEST(unknown_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
