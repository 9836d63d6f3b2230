/* ws_peer.h -- the client's end of a WebSocket, byte by byte, for tests of ws.h. Include after
 * cmocka.h. */
#ifndef TESTS_SERVER_WS_PEER_H
#define TESTS_SERVER_WS_PEER_H
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/buf.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "fmt/noise.h"
#include "server/ws.h"

#define FIN    0x80
#define TEXT   0x81
#define BINARY 0x82
#define CLOSE  0x88
#define PING   0x89
#define PONG   0x8a
#ifndef WAIT_MS
#define WAIT_MS 60000
#endif

struct peer {
    int fd;
    struct buf in;
};
struct frame {
    uint8_t first; /* FIN and opcode */
    uint8_t *data; /* in the peer's buffer, until the next frame is read */
    size_t size;
};

/* Append a masked frame. */
__attribute__((unused)) static void frame_put(struct buf *out, unsigned first, const void *data,
                                              size_t size)
{
    struct err err;
    uint8_t head[14] = {(uint8_t)first}, mask[4];
    size_t n = 2;
    head[1] = (uint8_t)(0x80 | (size < 126 ? size : size <= UINT16_MAX ? 126 : 127));
    if (size > UINT16_MAX) {
        put_be64(head + 2, size);
        n = 10;
    } else if (size >= 126) {
        put_be16(head + 2, (uint16_t)size);
        n = 4;
    }
    fill_noise(mask, 4);
    memcpy(head + n, mask, 4);
    assert_int_equal(buf_append(out, head, n + 4, &err), RC_OK);
    assert_int_equal(buf_reserve(out, size, &err), RC_OK);
    for (size_t i = 0; i < size; i++)
        out->data[out->size++] = ((const uint8_t *)data)[i] ^ mask[i % 4];
}

__attribute__((unused)) static void peer_write(struct peer *p, const void *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = send(p->fd, (const uint8_t *)data + at, size - at, MSG_NOSIGNAL);
        if (n < 0) fail_msg("the server has gone: %s", strerror(errno));
        at += (size_t)n;
    }
}

__attribute__((unused)) static void peer_send(struct peer *p, unsigned first, const void *data,
                                              size_t size)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    frame_put(&out, first, data, size);
    peer_write(p, out.data, out.size);
}

/* False: the server has hung up. */
__attribute__((unused)) static bool peer_fill(struct peer *p, size_t want)
{
    struct err err;
    while (p->in.size < want) {
        struct pollfd f = {.fd = p->fd, .events = POLLIN};
        assert_int_equal(buf_reserve(&p->in, 65536, &err), RC_OK);
        if (poll(&f, 1, WAIT_MS) != 1) fail_msg("the server says nothing");
        ssize_t n = recv(p->fd, p->in.data + p->in.size, 65536, 0);
        if (n <= 0) return false;
        p->in.size += (size_t)n;
    }
    return true;
}

/* The next frame; false: the server has hung up. p->in begins with it, its size is in *ret_whole */
__attribute__((unused)) static bool peer_next(struct peer *p, struct frame *ret, size_t *ret_whole)
{
    size_t head = 2;
    if (!peer_fill(p, 2)) return false;
    assert_false(p->in.data[1] & 0x80); /* a server does not mask */
    uint64_t size = p->in.data[1];
    if (size == 126) head = 4;
    if (size == 127) head = 10;
    if (!peer_fill(p, head)) return false;
    if (head > 2) size = head == 4 ? get_be16(p->in.data + 2) : get_be64(p->in.data + 2);
    if (!peer_fill(p, head + size)) return false;
    *ret = (struct frame){.first = p->in.data[0], .data = p->in.data + head, .size = size};
    *ret_whole = head + size;
    return true;
}

__attribute__((unused)) static void peer_expect(struct peer *p, unsigned first, const void *data,
                                                size_t size)
{
    struct frame f;
    size_t whole;
    assert_true(peer_next(p, &f, &whole));
    if (f.first == CLOSE && first != CLOSE)
        fail_msg("closed: %u %.*s", get_be16(f.data), (int)f.size - 2, f.data + 2);
    assert_int_equal(f.first, first);
    assert_int_equal(f.size, size);
    if (size > 0) assert_memory_equal(f.data, data, size);
    buf_drop_front(&p->in, whole);
}

/* Skip to the close; code 0: any. */
__attribute__((unused)) static void peer_expect_close(struct peer *p, unsigned code)
{
    struct frame f;
    size_t whole;
    do {
        if (!peer_next(p, &f, &whole)) fail_msg("no close %u, but an end", code);
        if (f.first == CLOSE) {
            unsigned got = f.size >= 2 ? get_be16(f.data) : 0;
            if (code != 0 && got != code)
                fail_msg("closed with %u (%.*s), not %u", got, f.size < 2 ? 0 : (int)f.size - 2,
                         f.data + 2, code);
        }
        buf_drop_front(&p->in, whole);
    } while (f.first != CLOSE);
}

__attribute__((unused)) static void peer_expect_end(struct peer *p)
{
    assert_false(peer_fill(p, p->in.size + 1));
}

__attribute__((unused)) static void peer_fini(struct peer *p)
{
    os_close(p->fd);
    p->fd = -1;
    buf_fini(&p->in);
}

/* Two ends of a connection: over TCP, or of a socketpair. */
__attribute__((unused)) static void wire(bool tcp, int *ret_server, int *ret_client)
{
    int pair[2];
    if (!tcp) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        *ret_server = pair[0];
        *ret_client = pair[1];
        return;
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (void *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (void *)&at, &size), 0);
    *ret_client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(*ret_client, (void *)&at, sizeof at), 0);
    *ret_server = accept(listener, NULL, NULL);
    assert_true(*ret_server >= 0);
    os_close(listener);
}

/* ---- The server's end ---- */

struct side {
    struct ws_conn *conn;
    struct peer peer;
    int fd;
    /* What `message` does. */
    bool echo, pauses, keeps;
    int64_t slow_ms;
    pthread_mutex_t lock; /* guards what follows */
    struct buf got;       /* messages, each with a NUL, when it keeps them */
    unsigned messages, closed;
    uint64_t bytes;
};

__attribute__((unused)) static void side_message(void *ctx, struct ws_conn *c, bool binary,
                                                 const void *data, size_t size)
{
    struct side *s = ctx;
    struct err err;
    if (((const char *)data)[size] != '\0') abort();
    if (s->slow_ms > 0) os_sleep_ms(s->slow_ms);
    if (s->pauses) ws_pause(c);
    if (s->echo && ws_send(c, binary, data, size, &err) == RC_INVALID) abort();
    thr_lock(&s->lock);
    if (s->closed > 0) abort();
    s->messages++;
    s->bytes += size;
    if (s->keeps && buf_append(&s->got, data, size + 1, &err) != RC_OK) abort();
    thr_unlock(&s->lock);
}

__attribute__((unused)) static void side_closed(void *ctx, struct ws_conn *c)
{
    struct side *s = ctx;
    (void)c;
    thr_lock(&s->lock);
    s->closed++;
    thr_unlock(&s->lock);
}

static const struct ws_events side_events = {.message = side_message, .closed = side_closed};

__attribute__((unused)) static void side_init(struct side *s, bool tcp)
{
    *s = (struct side){.echo = true};
    pthread_mutex_init(&s->lock, NULL);
    wire(tcp, &s->fd, &s->peer.fd);
}

__attribute__((unused)) static void side_start(struct side *s, struct ws_hub *h, bool tcp)
{
    struct err err;
    side_init(s, tcp);
    assert_int_equal(ws_add(h, s->fd, NULL, 0, &side_events, s, &s->conn, &err), RC_OK);
}

__attribute__((unused)) static unsigned side_count(struct side *s, const unsigned *what)
{
    thr_lock(&s->lock);
    unsigned n = *what;
    thr_unlock(&s->lock);
    return n;
}

__attribute__((unused)) static void side_wait(struct side *s, const unsigned *what, unsigned n)
{
    int64_t until = os_mono_ms() + WAIT_MS;
    while (side_count(s, what) < n) {
        if (os_mono_ms() > until) fail_msg("waited for %u, got %u", n, side_count(s, what));
        os_sleep_us(200);
    }
}

/* After the connection's end, or the hub's. */
__attribute__((unused)) static void side_fini(struct side *s)
{
    side_wait(s, &s->closed, 1);
    assert_int_equal(s->closed, 1);
    ws_unref(s->conn);
    peer_fini(&s->peer);
    buf_fini(&s->got);
    pthread_mutex_destroy(&s->lock);
}
#endif
