/* http_jobs.h -- the threads behind http_handler.h: answers that come late, in pieces, or after an
 * upgrade. */
#ifndef TESTS_SERVER_HTTP_JOBS_H
#define TESTS_SERVER_HTTP_JOBS_H
#include <unistd.h>
#include "base/thr.h"
#include "server/http_client.h"
#include "server/http.h"

#define BIG_SIZE   100000
#define JOBS_MAX   8192
#define PARKED_MAX 16

static char address[128];
static atomic_int finis, handled, canceled, steps_seen;
static atomic_long written;
static atomic_bool upgrade_late;
static struct http_req *parked[PARKED_MAX];
static atomic_int parked_count;
static pthread_t jobs[JOBS_MAX];
static atomic_int job_count;
static struct err setup_err;

static inline uint8_t big_byte(size_t i)
{
    return (uint8_t)('a' + i * i / 7 % 5);
}

static inline long number(const struct http_req *r, const char *name)
{
    const char *text = http_query(r, name);
    return text == NULL ? 0 : atol(text);
}

static inline void count_fini(void *data)
{
    assert_ptr_equal(data, &finis);
    atomic_fetch_add(&finis, 1);
}

static inline void job(void *(*fn)(void *), struct http_req *r)
{
    int i = atomic_fetch_add(&job_count, 1);
    assert_true(i < JOBS_MAX);
    assert_int_equal(thr_start(&jobs[i], "job", fn, r, &setup_err), RC_OK);
}

static inline void *late_main(void *arg)
{
    struct http_req *r = arg;
    os_sleep_ms(number(r, "ms"));
    http_reply_text(r, 200, "text/plain", "late");
    return NULL;
}

static inline void *obedient_main(void *arg)
{
    struct http_req *r = arg;
    const atomic_bool *gone = http_gone(r);
    while (!atomic_load(gone))
        os_sleep_ms(5);
    http_reply_text(r, 200, "text/plain", "stopped");
    return NULL;
}

static inline void *stream_main(void *arg)
{
    struct http_req *r = arg;
    struct err err;
    char piece[4096];
    long n = number(r, "n"), size = number(r, "size");
    bool broken = number(r, "broken") != 0;
    enum rc rc = http_stream_begin(r, 200, "text/plain", &err);
    assert_int_equal(rc, RC_OK);
    for (long i = 0; i < n && rc == RC_OK; i++) {
        memset(piece, (int)('a' + i % 26), (size_t)size);
        rc = http_stream_write(r, piece, (size_t)size, i % 7 == 0, &err);
        atomic_fetch_add(&written, size);
    }
    if (rc != RC_OK) {
        assert_int_equal(rc, RC_CANCELED);
        atomic_fetch_add(&canceled, 1);
    }
    http_stream_end(r, !broken);
    return NULL;
}

static inline void *forever_main(void *arg)
{
    struct http_req *r = arg;
    struct err err;
    enum rc rc = http_stream_begin(r, 200, "text/plain", &err);
    while (rc == RC_OK) {
        rc = http_stream_write(r, "tick tock ", 10, true, &err);
        os_sleep_ms(10);
    }
    assert_int_equal(rc, RC_CANCELED);
    atomic_fetch_add(&canceled, 1);
    http_stream_end(r, false);
    return NULL;
}

static inline void *steps_main(void *arg)
{
    struct http_req *r = arg;
    struct err err;
    char text[32];
    assert_int_equal(http_stream_begin(r, 200, "text/plain", &err), RC_OK);
    for (int i = 1; i <= 3; i++) {
        snprintf(text, sizeof text, "step %d\n", i);
        assert_int_equal(http_stream_write(r, text, strlen(text), true, &err), RC_OK);
        for (int k = 0; k < 6000 && atomic_load(&steps_seen) < i; k++)
            os_sleep_ms(10);
    }
    http_stream_end(r, true);
    return NULL;
}

struct talk {
    int fd;
    struct buf got;
};

static inline void *talk_main(void *arg)
{
    struct talk *t = arg;
    struct err err;
    uint8_t some[256];
    while (t->got.size == 0 || t->got.data[t->got.size - 1] != '.') {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, CLIENT_WAIT_MS), 1);
        int64_t n = os_read_some(t->fd, some, sizeof some);
        assert_true(n > 0);
        assert_int_equal(buf_append(&t->got, some, (size_t)n, &err), RC_OK);
    }
    os_sleep_ms(800); /* longer than a head may take: that is over */
    for (int i = 0; i < 2; i++)
        assert_int_equal(os_write_some(t->fd, t->got.data, t->got.size), (int64_t)t->got.size);
    os_close(t->fd);
    buf_fini(&t->got);
    mem_free(t);
    return NULL;
}

static inline void on_upgrade(void *ctx, int fd, const void *extra, size_t extra_size)
{
    struct talk *t = mem_calloc(1, sizeof *t);
    struct err err;
    assert_non_null(t);
    assert_ptr_equal(ctx, &finis);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    t->fd = fd;
    assert_int_equal(buf_append(&t->got, extra, extra_size, &err), RC_OK);
    int i = atomic_fetch_add(&job_count, 1);
    assert_int_equal(thr_start(&jobs[i], "talk", talk_main, t, &err), RC_OK);
}

static inline void *up_main(void *arg)
{
    os_sleep_ms(40);
    http_upgrade(arg, on_upgrade, &finis);
    return NULL;
}
#endif
