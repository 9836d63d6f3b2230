/* http_handler.h -- the handler behind the tests of the HTTP server: a path for every way to
 * answer. */
#ifndef TESTS_SERVER_HTTP_HANDLER_H
#define TESTS_SERVER_HTTP_HANDLER_H
#include "server/http_jobs.h"

static inline void on_parts(struct http_req *r)
{
    struct buf b = BUF_INIT;
    struct err err;
    static const char *const names[] = {"x", "y", "z", "none"};
    (void)!buf_printf(&b, &err, "%s %s", http_method(r), http_path(r));
    for (size_t i = 0; i < 4; i++) {
        const char *v = http_query(r, names[i]);
        (void)!buf_printf(&b, &err, " %s=%s", names[i], v == NULL ? "NULL" : v);
    }
    const char *host = http_header(r, "HOST"), *one = http_header(r, "x-oNe");
    (void)!buf_printf(&b, &err, " host=%s one=%s loop=%d", host, one == NULL ? "NULL" : one,
                      http_from_loopback(r));
    http_reply(r, 200, "text/plain", &b);
}

static inline void on_big(struct http_req *r)
{
    struct buf b = BUF_INIT;
    struct err err;
    assert_int_equal(buf_reserve(&b, BIG_SIZE, &err), RC_OK);
    for (size_t i = 0; i < BIG_SIZE; i++)
        b.data[i] = number(r, "noise") ? (uint8_t)os_random() : big_byte(i);
    b.size = BIG_SIZE;
    if (number(r, "coded"))
        assert_int_equal(http_add_header(r, "content-encoding", "own", &err), RC_OK);
    long status = number(r, "status");
    http_reply(r, status == 0 ? 200 : (unsigned)status, "text/x-big; a=\"b\"", &b);
    assert_int_equal(b.size, 0);
}

static inline void on_headers(struct http_req *r)
{
    struct err err;
    struct buf none = BUF_INIT;
    http_set_data(r, &finis, count_fini);
    assert_ptr_equal(http_data(r), &finis);
    assert_int_equal(http_add_header(r, "X-A", "1", &err), RC_OK);
    assert_int_equal(http_add_header(r, "X-B", "two words", &err), RC_OK);
    assert_int_equal(http_add_header(r, "X-C", "a\r\nX-Evil: 1", &err), RC_INVALID);
    assert_int_equal(http_add_header(r, "X-D: 1\nX-Evil", "1", &err), RC_INVALID);
    http_reply(r, 201, NULL, &none);
}

static inline void on_echo(struct http_req *r)
{
    char small[100];
    struct buf b = BUF_ON(small);
    struct err err;
    size_t size;
    const void *body = http_body(r, &size);
    assert_int_equal(buf_append(&b, body, size, &err), RC_OK);
    http_reply(r, 200, "application/octet-stream", &b);
}

static inline void on_up(struct http_req *r)
{
    struct err err;
    assert_int_equal(http_add_header(r, "X-Key", "k", &err), RC_OK);
    http_set_data(r, &finis, count_fini);
    if (atomic_load(&upgrade_late))
        job(up_main, r);
    else
        http_upgrade(r, on_upgrade, &finis);
}

static inline void on_request(void *ctx, struct http_req *r)
{
    static const struct {
        const char *path;
        void (*now)(struct http_req *r);
        void *(*later)(void *r);
    } routes[] = {{"/late", NULL, late_main},
                  {"/obedient", NULL, obedient_main},
                  {"/stream", NULL, stream_main},
                  {"/forever", NULL, forever_main},
                  {"/steps", NULL, steps_main},
                  {"/echo", on_echo, NULL},
                  {"/headers", on_headers, NULL},
                  {"/big", on_big, NULL},
                  {"/up", on_up, NULL}};
    const char *path = http_path(r);
    (void)ctx;
    atomic_fetch_add(&handled, 1);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(path, routes[i].path) != 0) continue;
        if (routes[i].now != NULL)
            routes[i].now(r);
        else
            job(routes[i].later, r);
        return;
    }
    if (strcmp(path, "/ok") == 0) {
        http_reply_text(r, 200, "application/json", "{\"ok\":1}");
    } else if (strncmp(path, "/parts/", 7) == 0 || strcmp(path, "/parts") == 0) {
        on_parts(r);
    } else if (strcmp(path, "/park") == 0) {
        parked[atomic_load(&parked_count)] = r;
        atomic_fetch_add(&parked_count, 1);
    } else {
        http_reply_text(r, 404, "text/plain", "no such path");
    }
}

static inline void wait_parked(int count)
{
    for (int i = 0; i < 6000 && atomic_load(&parked_count) < count; i++)
        os_sleep_ms(10);
    assert_int_equal(atomic_load(&parked_count), count);
}

static inline bool becomes(const atomic_bool *flag)
{
    for (int i = 0; i < 6000 && !atomic_load(flag); i++)
        os_sleep_ms(10);
    return atomic_load(flag);
}

static inline int setup(void **state)
{
    (void)state;
    atomic_store(&finis, 0);
    atomic_store(&handled, 0);
    atomic_store(&canceled, 0);
    atomic_store(&steps_seen, 0);
    atomic_store(&written, 0);
    atomic_store(&upgrade_late, false);
    atomic_store(&parked_count, 0);
    atomic_store(&job_count, 0);
    return 0;
}

static inline struct http_server *serve(const struct http_opts *given)
{
    struct http_opts opts = *given;
    struct http_server *s = NULL;
    struct err err;
    if (opts.listen_fd == 0) opts.listen_fd = -1;
    if (opts.listen == NULL) opts.listen = "127.0.0.1:0";
    opts.handle = on_request;
    enum rc rc = http_server_start(&opts, &s, &err);
    if (rc != RC_OK) print_error("start: %s\n", err.text);
    assert_int_equal(rc, RC_OK);
    http_server_address(s, address, sizeof address);
    return s;
}

static inline void stop(struct http_server *s)
{
    http_server_stop(s);
    for (int i = 0; i < atomic_load(&job_count); i++)
        pthread_join(jobs[i], NULL);
    atomic_store(&job_count, 0);
}

static inline struct answer ask(struct client *c, const char *text)
{
    client_say(c, text);
    return client_answer(c, false);
}
#endif
