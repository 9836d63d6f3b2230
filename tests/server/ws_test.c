/* ws_test.c -- WebSocket connections over socketpairs and TCP, against a client of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <malloc.h>
#include "server/ws_peer.h"
#include "server/ws_read.h"

static struct err err;
static uint8_t noise_bytes[1 << 20];

static struct ws_hub *hub_new(const struct ws_opts *opts)
{
    const struct ws_opts two = {.threads = 2};
    struct ws_hub *h;
    assert_int_equal(ws_hub_new(opts != NULL ? opts : &two, &h, &err), RC_OK);
    return h;
}

static void leave(struct side *s)
{
    peer_send(&s->peer, CLOSE, "\x03\xe8", 2);
    peer_expect(&s->peer, CLOSE, "\x03\xe8", 2);
    peer_expect_end(&s->peer);
    side_fini(s);
}

static void test_accept_key(void **state)
{
    (void)state;
    char out[WS_ACCEPT_SIZE];
    static const char *const wrong[] = {"",
                                        "dGhlIHNhbXBsZSBub25jZQ",
                                        "dGhlIHNhbXBsZSBub25jZQ=",
                                        "dGhlIHNhbXBsZSBub25jZQ===",
                                        "dGhlIHNhbXBsZSBub25jZQAA",
                                        "dGhlIHNhbXBsZSBub25jZ ==",
                                        "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="};
    assert_int_equal(ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", out, &err), RC_OK);
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(ws_accept_key(wrong[i], out, &err), RC_INVALID);
}

static void test_echo(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 125, 126, 127, 4082, 4096, 65535, 65536, 1 << 20};
    static uint8_t text[1 << 20];
    struct ws_hub *h = hub_new(NULL);
    memset(text, 'x', sizeof text);
    memcpy(text + 4094, "\xe2\x82\xac", 3);
    for (int tcp = 0; tcp < 2; tcp++) {
        struct side s;
        side_start(&s, h, tcp);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            size_t size = sizes[i] == 4096 ? 4097 : sizes[i]; /* not inside of a character */
            peer_send(&s.peer, BINARY, noise_bytes, sizes[i]);
            peer_expect(&s.peer, BINARY, noise_bytes, sizes[i]);
            peer_send(&s.peer, TEXT, text, size);
            peer_expect(&s.peer, TEXT, text, size);
        }
        assert_int_equal(ws_hub_count(h), 1);
        leave(&s);
    }
    ws_hub_free(h, 1000);
}

static void test_fragments(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    struct side s;
    side_start(&s, h, true);
    for (size_t piece = 1; piece < 5000; piece = piece * 3 + 1) {
        CLEANUP(buf_fini) struct buf out = BUF_INIT;
        unsigned pings = 0;
        const size_t size = piece < 20 ? 600 : 100000;
        for (size_t at = 0; at < size; at += piece, pings++) {
            size_t n = size - at < piece ? size - at : piece;
            unsigned first = (at == 0 ? 2 : 0) | (at + n == size ? FIN : 0);
            frame_put(&out, first, noise_bytes + at, n);
            frame_put(&out, PING, noise_bytes + at, n < 125 ? n : 125);
            frame_put(&out, PONG, NULL, 0);
            if (at + n < size) frame_put(&out, 0, NULL, 0);
        }
        peer_write(&s.peer, out.data, out.size);
        for (size_t i = 0, at = 0; i < pings; i++, at += piece) {
            size_t n = size - at < piece ? size - at : piece;
            if (i + 1 == pings) peer_expect(&s.peer, BINARY, noise_bytes, size);
            peer_expect(&s.peer, PONG, noise_bytes + at, n < 125 ? n : 125);
        }
    }
    /* A character may be cut by a frame. */
    peer_send(&s.peer, 1, "\xe2", 1);
    peer_send(&s.peer, 0, "\x82", 1);
    peer_send(&s.peer, FIN, "\xac", 1);
    peer_expect(&s.peer, TEXT, "\xe2\x82\xac", 3);
    leave(&s);
    ws_hub_free(h, 1000);
}

static void test_byte_at_a_time(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    struct side s;
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    side_start(&s, h, true);
    frame_put(&out, TEXT, "hello", 5);
    frame_put(&out, 2, noise_bytes, 300);
    frame_put(&out, PING, "p", 1);
    frame_put(&out, FIN, noise_bytes + 300, 0);
    frame_put(&out, CLOSE, "\x0f\xa0yes", 5);
    for (size_t i = 0; i < out.size; i++) {
        peer_write(&s.peer, out.data + i, 1);
        os_sleep_us(20);
    }
    peer_expect(&s.peer, TEXT, "hello", 5);
    peer_expect(&s.peer, PONG, "p", 1);
    peer_expect(&s.peer, BINARY, noise_bytes, 300);
    peer_expect(&s.peer, CLOSE, "\x0f\xa0", 2);
    peer_expect_end(&s.peer);
    side_fini(&s);
    ws_hub_free(h, 1000);
}

/* Bytes, up to 16; the mask is zero. */
static const struct {
    unsigned code;
    size_t size;
    const char *bytes;
} bad_frames[] = {
    {1002, 3, "\x81\x01x"},                             /* no mask */
    {1002, 7, "\xc1\x81\0\0\0\0x"},                     /* reserved bits */
    {1002, 6, "\xa1\x80\0\0\0\0"},                      /**/
    {1002, 6, "\x91\x80\0\0\0\0"},                      /**/
    {1002, 6, "\x83\x80\0\0\0\0"},                      /* reserved opcodes */
    {1002, 6, "\x87\x80\0\0\0\0"},                      /**/
    {1002, 6, "\x8b\x80\0\0\0\0"},                      /**/
    {1002, 6, "\x8f\x80\0\0\0\0"},                      /**/
    {1002, 6, "\x80\x80\0\0\0\0"},                      /* continues nothing */
    {1002, 6, "\x00\x80\0\0\0\0"},                      /**/
    {1002, 12, "\x01\x80\0\0\0\0\x81\x80\0\0\0\0"},     /* begins inside */
    {1002, 12, "\x02\x80\0\0\0\0\x02\x80\0\0\0\0"},     /**/
    {1002, 6, "\x09\x80\0\0\0\0"},                      /* a ping in fragments */
    {1002, 8, "\x89\xfe\x00\x7e\0\0\0\0"},              /* a long ping */
    {1002, 8, "\x81\xfe\x00\x7d\0\0\0\0"},              /* a length in more bytes than it takes */
    {1002, 14, "\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0"}, /**/
    {1002, 15, "\x81\xff\x80\0\0\0\0\1\0\0\0\0\0\0x"},  /* a negative length */
    {1009, 15, "\x82\xff\x7f\0\0\0\0\0\0\0\0\0\0\0x"},  /* more than anybody has */
    {1007, 7, "\x81\x81\0\0\0\0\x80"},                  /* not UTF-8 */
    {1007, 8, "\x81\x82\0\0\0\0\xc0\x80"},              /* a NUL in two bytes */
    {1007, 9, "\x81\x83\0\0\0\0\xed\xa0\x80"},          /* half of a pair */
    {1007, 10, "\x81\x84\0\0\0\0\xf4\x90\x80\x80"},     /* beyond Unicode */
    {1007, 8, "\x81\x82\0\0\0\0\xe2\x82"},              /* cut */
    {1002, 7, "\x88\x81\0\0\0\0\x03"},                  /* half a code */
    {1002, 8, "\x88\x82\0\0\0\0\x03\xe7"},              /* 999 */
    {1002, 8, "\x88\x82\0\0\0\0\x03\xec"},              /* 1004 */
    {1002, 8, "\x88\x82\0\0\0\0\x03\xed"},              /* 1005 */
    {1002, 8, "\x88\x82\0\0\0\0\x03\xee"},              /* 1006 */
    {1002, 8, "\x88\x82\0\0\0\0\x03\xf7"},              /* 1015 */
    {1002, 8, "\x88\x82\0\0\0\0\x0b\xb7"},              /* 2999 */
    {1002, 8, "\x88\x82\0\0\0\0\x13\x88"},              /* 5000 */
    {1007, 9, "\x88\x83\0\0\0\0\x03\xe8\xff"},          /* a reason that is not UTF-8 */
};

static void test_bad_frames(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    for (size_t i = 0; i < sizeof bad_frames / sizeof bad_frames[0]; i++) {
        struct side s;
        side_start(&s, h, i % 2 == 0);
        peer_send(&s.peer, TEXT, "before", 6);
        peer_expect(&s.peer, TEXT, "before", 6);
        peer_write(&s.peer, bad_frames[i].bytes, bad_frames[i].size);
        /* What comes behind it must not reset the connection before the close is read. */
        peer_write(&s.peer, noise_bytes, 1000);
        peer_expect_close(&s.peer, bad_frames[i].code);
        peer_expect_end(&s.peer);
        assert_int_equal(side_count(&s, &s.closed), 0);
        peer_write(&s.peer, noise_bytes, 1000);
        peer_fini(&s.peer);
        side_fini(&s);
        assert_int_equal(s.messages, 1);
    }
    ws_hub_free(h, 1000);
}

static void test_limits(void **state)
{
    (void)state;
    const struct ws_opts opts = {
        .threads = 1, .message_max = 10000, .message_sum_max = 20000, .conn_max = 3};
    struct ws_hub *h = hub_new(&opts);
    struct side s[4];
    for (int i = 0; i < 3; i++)
        side_start(&s[i], h, true);
    side_init(&s[3], false);
    assert_int_equal(ws_add(h, s[3].fd, "x", 1, &side_events, &s[3], &s[3].conn, &err), RC_BUSY);
    os_close(s[3].fd); /* which is still ours */
    peer_fini(&s[3].peer);
    peer_send(&s[0].peer, 2, noise_bytes, 9999);
    peer_send(&s[0].peer, FIN, noise_bytes + 9999, 1);
    peer_expect(&s[0].peer, BINARY, noise_bytes, 10000);
    /* Two halves of messages are held, and a third is too much for the sum of all. */
    for (int i = 0; i < 2; i++) {
        peer_send(&s[i].peer, 2, noise_bytes, 9999);
        peer_send(&s[i].peer, PING, NULL, 0);
        peer_expect(&s[i].peer, PONG, NULL, 0);
    }
    peer_send(&s[2].peer, 2, noise_bytes, 4000); /* short ones are not counted */
    peer_send(&s[2].peer, PING, NULL, 0);
    peer_expect(&s[2].peer, PONG, NULL, 0);
    peer_send(&s[2].peer, FIN, noise_bytes, 4000);
    peer_expect_close(&s[2].peer, 1013);
    peer_expect_end(&s[2].peer);
    peer_fini(&s[2].peer);
    side_fini(&s[2]);
    /* What is too big alone; and what was counted before is free again. */
    peer_send(&s[1].peer, FIN, noise_bytes, 2);
    peer_expect_close(&s[1].peer, 1009);
    peer_expect_end(&s[1].peer);
    peer_fini(&s[1].peer);
    side_fini(&s[1]);
    peer_send(&s[0].peer, FIN, noise_bytes + 9999, 1);
    peer_expect(&s[0].peer, BINARY, noise_bytes, 10000);
    side_start(&s[1], h, false);
    peer_send(&s[1].peer, 2, noise_bytes, 9000);
    peer_send(&s[0].peer, BINARY, noise_bytes, 10000);
    peer_expect(&s[0].peer, BINARY, noise_bytes, 10000);
    peer_send(&s[1].peer, FIN, noise_bytes + 9000, 10);
    peer_expect(&s[1].peer, BINARY, noise_bytes, 9010);
    leave(&s[0]);
    leave(&s[1]);
    ws_hub_free(h, 1000);
}

#define SENDERS 8
#define SENDS   400
struct sender {
    struct ws_conn *c;
    uint32_t id;
    pthread_t thread;
};

static size_t send_size(uint32_t id, uint32_t n)
{
    return 8 + (id * 7919u + n * 104729u) % 6000;
}

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    uint8_t msg[8192];
    struct err mine;
    for (uint32_t n = 0; n < SENDS; n++) {
        memset(msg, (int)(s->id + n), sizeof msg);
        put_le32(msg, s->id);
        put_le32(msg + 4, n);
        if (ws_send(s->c, true, msg, send_size(s->id, n), &mine) != RC_OK) abort();
    }
    return NULL;
}

static void test_send_threads(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1, .send_max = 64 << 20});
    struct sender senders[SENDERS];
    uint32_t next[SENDERS] = {0};
    struct side s;
    struct frame f;
    size_t whole;
    side_start(&s, h, true);
    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.c = s.conn, .id = i};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]), 0);
    }
    for (unsigned n = 0; n < SENDERS * SENDS; n++) {
        if (n % 100 == 0) os_sleep_ms(5);
        assert_true(peer_next(&s.peer, &f, &whole));
        assert_int_equal(f.first, BINARY);
        uint32_t id = get_le32(f.data);
        assert_in_range(id, 0, SENDERS - 1);
        assert_int_equal(get_le32(f.data + 4), next[id]);
        assert_int_equal(f.size, send_size(id, next[id]));
        for (size_t i = 8; i < f.size; i++)
            if (f.data[i] != (uint8_t)(id + next[id])) fail_msg("a byte is wrong");
        next[id]++;
        buf_drop_front(&s.peer.in, whole);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    leave(&s);
    ws_hub_free(h, 1000);
}

static void test_large_and_slow(void **state)
{
    (void)state;
    enum { SIZE = 12 << 20 };
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1, .send_max = 65536});
    uint8_t *big = mem_alloc(SIZE);
    struct side s;
    for (size_t i = 0; i < SIZE; i++)
        big[i] = (uint8_t)(i * 31 >> 3);
    for (int tcp = 0; tcp < 2; tcp++) {
        side_start(&s, h, tcp);
        assert_int_equal(ws_send(s.conn, true, big, SIZE, &err), RC_OK);    /* of any size */
        assert_int_equal(ws_send(s.conn, true, big, 3, &err), RC_CANCELED); /* behind that, no */
        peer_expect(&s.peer, BINARY, big, SIZE);
        peer_expect_close(&s.peer, 1008);
        peer_fini(&s.peer);
        side_fini(&s);
    }
    mem_free(big);
    ws_hub_free(h, 1000);
}

/* A client that takes nothing is cut off, and what it reads at last is in order. */
static void test_overflow(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1, .send_max = 1 << 20});
    struct side s;
    struct frame f;
    size_t whole;
    uint32_t sent = 0, got = 0;
    uint8_t msg[10000] = {0};
    side_start(&s, h, false);
    enum rc rc;
    do {
        put_le32(msg, sent);
        rc = ws_send(s.conn, true, msg, sizeof msg, &err);
        if (rc == RC_OK) sent++;
        if (sent == 100) peer_fill(&s.peer, 333333); /* so that a later frame is half sent */
    } while (rc == RC_OK && sent < 5000);
    assert_int_equal(rc, RC_CANCELED);
    assert_in_range(sent, 4 * (1 << 20) / 10000, 6 * (1 << 20) / 10000);
    assert_int_equal(ws_send(s.conn, true, msg, 1, &err), RC_CANCELED);
    for (; peer_next(&s.peer, &f, &whole) && f.first == BINARY; got++) {
        assert_int_equal(f.size, sizeof msg);
        assert_int_equal(get_le32(f.data), got);
        buf_drop_front(&s.peer.in, whole);
    }
    assert_true(got > 0 && got < sent);
    peer_expect_close(&s.peer, 1008);
    peer_fini(&s.peer);
    side_fini(&s);
    ws_hub_free(h, 1000);
}

/* Requests whose answers are not taken wait in the kernel, and all are answered at last. */
static void test_backpressure(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1, .send_max = 100000});
    struct side s;
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    side_start(&s, h, false);
    unsigned sent = 0;
    for (; sent < 300; sent++)
        frame_put(&out, BINARY, noise_bytes + sent, 9000);
    size_t at = 0;
    bool drained = false;
    while (at < out.size) {
        ssize_t n = send(s.peer.fd, out.data + at, out.size - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        os_sleep_ms(5);
        if (n < 0 && !drained) { /* both directions are full: it has stopped reading */
            struct pollfd p = {.fd = s.peer.fd, .events = POLLOUT};
            if (poll(&p, 1, 50) == 1 || side_count(&s, &s.messages) < 11) continue;
            assert_in_range(side_count(&s, &s.messages), 11, 100);
            drained = true;
        }
        peer_fill(&s.peer, s.peer.in.size + 1);
    }
    assert_true(drained);
    for (unsigned i = 0; i < sent; i++)
        peer_expect(&s.peer, BINARY, noise_bytes + i, 9000);
    leave(&s);
    ws_hub_free(h, 1000);
}

static void test_pause(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    /* Small ones come with one read, large ones partly stay in the kernel. */
    for (int i = 0; i < 4; i++) {
        struct side s;
        const size_t unit = i < 2 ? 10 : 100;
        side_start(&s, h, i % 2);
        peer_send(&s.peer, PING, NULL, 0); /* the thread has looked at it, and looks elsewhere */
        peer_expect(&s.peer, PONG, NULL, 0);
        os_sleep_ms(20);
        ws_pause(s.conn);
        ws_pause(s.conn);
        CLEANUP(buf_fini) struct buf out = BUF_INIT;
        for (size_t n = 0; n < 50; n++)
            frame_put(&out, BINARY, noise_bytes + n, n * unit);
        peer_write(&s.peer, out.data, out.size);
        os_sleep_ms(20);
        ws_resume(s.conn);
        os_sleep_ms(20);
        assert_int_equal(side_count(&s, &s.messages), 0);
        /* One at a time, however many came with one read. */
        s.pauses = true;
        for (unsigned n = 0; n < 20; n++) {
            ws_resume(s.conn);
            side_wait(&s, &s.messages, n + 1);
            if (n % 8 == 0) os_sleep_ms(5);
            assert_int_equal(side_count(&s, &s.messages), n + 1);
        }
        s.pauses = false;
        ws_resume(s.conn);
        for (size_t n = 0; n < 50; n++)
            peer_expect(&s.peer, BINARY, noise_bytes + n, n * unit);
        leave(&s);
    }
    ws_hub_free(h, 1000);
}

struct hesitant {
    struct ws_conn *c;
    pthread_t thread;
    atomic_bool stop;
};

static void *hesitant_main(void *arg)
{
    struct hesitant *h = arg;
    while (!atomic_load(&h->stop)) {
        ws_pause(h->c);
        ws_resume(h->c);
    }
    return NULL;
}

/* Another thread pauses and resumes at any moment: all come, in their order. */
static void test_pause_order(void **state)
{
    (void)state;
    enum { COUNT = 40000, STEP = 500 };
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1});
    struct side s;
    side_start(&s, h, true);
    s.echo = false;
    s.keeps = true;
    struct hesitant other = {.c = s.conn};
    assert_int_equal(pthread_create(&other.thread, NULL, hesitant_main, &other), 0);
    for (uint32_t n = 0; n < COUNT;) {
        CLEANUP(buf_fini) struct buf out = BUF_INIT;
        for (uint32_t end = n + STEP; n < end; n++) {
            uint8_t number[4];
            put_le32(number, n);
            frame_put(&out, BINARY, number, 4);
        }
        peer_write(&s.peer, out.data, out.size);
    }
    side_wait(&s, &s.messages, COUNT);
    atomic_store(&other.stop, true);
    pthread_join(other.thread, NULL);
    for (uint32_t n = 0; n < COUNT; n++)
        assert_int_equal(get_le32(s.got.data + (size_t)n * 5), n);
    leave(&s);
    ws_hub_free(h, 1000);
}

static void test_extra(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    for (int i = 0; i < 100; i++)
        frame_put(&out, BINARY, noise_bytes + i, (size_t)i * 10);
    for (size_t cut = 0; cut <= out.size; cut += cut < 100 ? 7 : 1999) {
        struct side s;
        side_init(&s, cut % 2);
        /* Without a reference: it may be over when this returns. */
        assert_int_equal(
            ws_add(h, s.fd, out.data, cut, &side_events, &s, cut % 3 == 0 ? NULL : &s.conn, &err),
            RC_OK);
        peer_write(&s.peer, out.data + cut, out.size - cut);
        for (int i = 0; i < 100; i++)
            peer_expect(&s.peer, BINARY, noise_bytes + i, (size_t)i * 10);
        leave(&s);
    }
    ws_hub_free(h, 1000);
}

static void test_close(void **state)
{
    (void)state;
    static char reason[200];
    struct ws_hub *h = hub_new(NULL);
    struct side s;
    side_start(&s, h, true); /* without a code */
    peer_send(&s.peer, CLOSE, NULL, 0);
    peer_expect(&s.peer, CLOSE, NULL, 0);
    peer_expect_end(&s.peer);
    side_fini(&s);

    side_start(&s, h, false); /* what is on its way goes out before */
    assert_int_equal(ws_send(s.conn, true, noise_bytes, 600000, &err), RC_OK);
    peer_send(&s.peer, CLOSE, "\x03\xe8", 2);
    os_sleep_ms(20);
    peer_expect(&s.peer, BINARY, noise_bytes, 600000);
    peer_expect(&s.peer, CLOSE, "\x03\xe8", 2);
    peer_expect_end(&s.peer);
    side_fini(&s);

    side_start(&s, h, true); /* ours; what comes behind it is not delivered */
    memset(reason, 'r', 118);
    memcpy(reason + 118, "\xe2\x82\xac...", 6);
    assert_int_equal(ws_send(s.conn, false, "bye", 3, &err), RC_OK);
    ws_close(s.conn, 4000, reason);
    ws_close(s.conn, 1011, "too late");
    assert_int_equal(ws_send(s.conn, false, "too late", 8, &err), RC_CANCELED);
    peer_expect(&s.peer, TEXT, "bye", 3);
    peer_send(&s.peer, TEXT, "not wanted", 10);
    peer_send(&s.peer, PING, NULL, 0);
    uint8_t want[120] = {0x0f, 0xa0};
    memset(want + 2, 'r', 118);
    peer_expect(&s.peer, CLOSE, want, sizeof want);
    peer_send(&s.peer, CLOSE, want, 2);
    peer_expect_end(&s.peer);
    ws_ref(s.conn);
    struct ws_conn *dead = s.conn;
    side_fini(&s);
    assert_int_equal(s.messages, 0);
    assert_int_equal(ws_send(dead, true, "x", 1, &err), RC_CANCELED);
    ws_close(dead, 1000, NULL);
    ws_pause(dead);
    ws_resume(dead);
    ws_unref(dead);

    side_start(&s, h, true); /* a reason that would break the close */
    ws_close(s.conn, 1011, "what \xff");
    peer_expect(&s.peer, CLOSE, "\x03\xf3", 2);
    peer_send(&s.peer, CLOSE, "\x03\xf3", 2);
    peer_expect_end(&s.peer);
    side_fini(&s);

    side_start(&s, h, true); /* a paused connection can be closed */
    ws_pause(s.conn);
    peer_send(&s.peer, TEXT, "not wanted", 10);
    ws_close(s.conn, 1000, NULL);
    peer_send(&s.peer, CLOSE, NULL, 0);
    peer_expect(&s.peer, CLOSE, "\x03\xe8", 2);
    side_fini(&s);
    assert_int_equal(s.messages, 0);
    assert_int_equal(ws_hub_count(h), 0);
    ws_hub_free(h, 1000);
}

static void *closer_main(void *arg)
{
    struct side *s = arg;
    os_sleep_us((int64_t)(s->slow_ms * 10));
    s->slow_ms = 0;
    ws_close(s->conn, 1000, "both");
    return NULL;
}

static void test_close_both(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    for (int i = 0; i < 200; i++) {
        struct side s;
        pthread_t thread;
        side_start(&s, h, i % 2);
        s.slow_ms = i % 20;
        assert_int_equal(pthread_create(&thread, NULL, closer_main, &s), 0);
        if (i % 3 == 0) os_sleep_us(50);
        peer_send(&s.peer, CLOSE, "\x03\xe8", 2);
        peer_expect_close(&s.peer, 1000);
        peer_expect_end(&s.peer);
        pthread_join(thread, NULL);
        side_fini(&s);
    }
    ws_hub_free(h, 1000);
}

static void test_vanish(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(NULL);
    const struct linger at_once = {.l_onoff = 1};
    for (int i = 0; i < 40; i++) {
        struct side s;
        bool paused = i & 1, half = i & 2, unread = i & 4, reset = i & 8;
        side_start(&s, h, i % 3 > 0);
        if (unread && !ws_send(s.conn, true, noise_bytes, 1 << 20, &err)) assert_false(s.closed);
        if (paused) ws_pause(s.conn);
        if (half) peer_write(&s.peer, "\x81\xfe\x01", 3);
        if (reset) setsockopt(s.peer.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        if (i == 16)
            shutdown(s.peer.fd, SHUT_WR);
        else
            peer_fini(&s.peer);
        side_fini(&s);
        assert_int_equal(s.messages, 0);
    }
    ws_hub_free(h, 1000);
}

static void test_ping(void **state)
{
    (void)state;
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1, .ping_ms = 800});
    struct side s, mute, paused, slow;
    int64_t begin = os_mono_ms();
    side_start(&s, h, true);
    side_start(&mute, h, true);
    side_start(&paused, h, true);
    side_start(&slow, h, false);
    ws_pause(paused.conn);
    /* It takes a little of a large message now and then, and never says a word. */
    assert_int_equal(ws_send(slow.conn, true, noise_bytes, sizeof noise_bytes, &err), RC_OK);
    for (int i = 0; i < 4; i++) {
        peer_expect(&s.peer, PING, NULL, 0);
        peer_send(&s.peer, PONG, NULL, 0);
        size_t want = slow.peer.in.size + 200000;
        peer_fill(&slow.peer, want < sizeof noise_bytes ? want : sizeof noise_bytes);
    }
    side_wait(&mute, &mute.closed, 1);
    side_fini(&mute);
    assert_int_equal(side_count(&s, &s.closed), 0);
    assert_int_equal(side_count(&paused, &paused.closed), 0);
    assert_int_equal(side_count(&slow, &slow.closed), 0);
    assert_in_range(os_mono_ms() - begin, 3100, 60000);
    peer_expect(&slow.peer, BINARY, noise_bytes, sizeof noise_bytes);
    side_fini(&slow); /* silent from now on */
    ws_resume(paused.conn);
    peer_send(&paused.peer, TEXT, "here", 4);
    peer_expect(&paused.peer, TEXT, "here", 4);
    peer_fini(&paused.peer);
    side_fini(&paused);
    peer_fini(&s.peer);
    side_fini(&s);
    ws_hub_free(h, 1000);
}

static void test_hub_free(void **state)
{
    (void)state;
    struct side s[30];
    for (int polite = 0; polite < 2; polite++) {
        struct ws_hub *h = hub_new(NULL);
        for (int i = 0; i < 30; i++) {
            side_start(&s[i], h, i % 2);
            if (i % 3 == 1) ws_pause(s[i].conn);
            if (i % 5 == 1)
                assert_int_equal(ws_send(s[i].conn, true, noise_bytes, 1 << 20, &err), 0);
            if (i % 4 == 1) peer_write(&s[i].peer, "\x81\xfe\x01", 3);
            if (polite) peer_send(&s[i].peer, CLOSE, "\x03\xe8", 2);
        }
        int64_t begin = os_mono_ms();
        ws_hub_free(h, polite ? 1500 : 500);
        assert_in_range(os_mono_ms() - begin, 0, 20000);
        for (int i = 0; i < 30; i++) {
            /* What was sent before is there up to the socket's buffer; then our close. */
            if (i % 5 != 1 && i % 4 != 1) peer_expect_close(&s[i].peer, polite ? 0 : 1001);
            side_fini(&s[i]);
        }
    }
    ws_hub_free(NULL, 0);
    ws_hub_free(hub_new(NULL), 1000);
}

static size_t heap_used(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static void test_idle_memory(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    os_raise_fd_limit();
    struct ws_hub *h = hub_new(&(struct ws_opts){.threads = 1, .ping_ms = 60000});
    struct side *s = mem_calloc(COUNT, sizeof *s);
    struct side first;
    side_start(&first, h, false); /* what the thread keeps is there afterwards */
    peer_send(&first.peer, BINARY, noise_bytes, 3000);
    peer_expect(&first.peer, BINARY, noise_bytes, 3000);
    size_t before = heap_used();
    for (int i = 0; i < COUNT; i++) {
        side_start(&s[i], h, false);
        peer_send(&s[i].peer, BINARY, noise_bytes, 3000);
        peer_expect(&s[i].peer, BINARY, noise_bytes, 3000);
        buf_fini(&s[i].peer.in);
    }
    peer_send(&first.peer, PING, NULL, 0); /* the thread has been around */
    peer_expect(&first.peer, PONG, NULL, 0);
    size_t each = (heap_used() - before) / COUNT;
    printf("heap of an idle connection: %zu bytes\n", each);
#ifndef __SANITIZE_ADDRESS__
    assert_in_range(each, heap_used() > 0 ? 100 : 0, 255);
#endif
    assert_int_equal(ws_hub_count(h), COUNT + 1);
    ws_hub_free(h, 0);
    for (int i = 0; i < COUNT; i++)
        side_fini(&s[i]);
    side_fini(&first);
    mem_free(s);
}

/* Another connection of the same thread, which borrows what the first does not need. */
static void read_other(struct ws_parts *parts)
{
    CLEANUP(buf_fini) struct buf in = BUF_INIT;
    struct ws_reader r = {0};
    struct ws_event ev;
    frame_put(&in, TEXT, "other", 5);
    const uint8_t *data = in.data;
    ws_reader_step(&r, parts, &data, &in.size, &ev);
    assert_int_equal(ev.kind, WS_EV_MESSAGE);
    assert_string_equal(ev.data, "other");
    ws_reader_rest(&r, parts);
    assert_null(r.frames);
    ws_reader_fini(&r, parts);
}

/* The reader alone: whatever way its bytes are cut, it says the same. */
static void read_all(const struct buf *in, size_t cut, struct buf *said)
{
    atomic_size_t sum = 0;
    struct ws_parts parts = {.message_max = 1 << 20, .sum = &sum, .sum_max = 1 << 20};
    struct ws_reader r = {0};
    struct ws_event ev = {0};
    const size_t from[] = {0, cut, in->size};
    for (int i = 0; i < 2 && ev.kind != WS_EV_BAD; i++) {
        const uint8_t *data = in->data + from[i];
        size_t size = from[i + 1] - from[i];
        do {
            ws_reader_step(&r, &parts, &data, &size, &ev);
            if (ev.kind == WS_EV_MORE) break;
            assert_int_equal(
                buf_printf(said, &err, "%d %d %u %zu:", ev.kind, ev.binary, ev.code, ev.size),
                RC_OK);
            assert_int_equal(buf_append(said, ev.data, ev.size, &err), RC_OK);
        } while (ev.kind != WS_EV_BAD);
        if (ev.kind != WS_EV_BAD) ws_reader_rest(&r, &parts);
        read_other(&parts);
        if (ev.kind != WS_EV_BAD && (cut == 0 || cut == in->size)) {
            assert_null(r.frames); /* given back: nothing is under way */
            assert_null(r.message);
        }
    }
    ws_reader_fini(&r, &parts);
    ws_parts_fini(&parts);
    assert_int_equal(atomic_load(&sum), 0);
}

static void test_cuts(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf in = BUF_INIT, whole = BUF_INIT;
    frame_put(&in, TEXT, "a", 1);
    frame_put(&in, PING, noise_bytes, 125);
    frame_put(&in, 2, noise_bytes, 126);
    frame_put(&in, PONG, NULL, 0);
    frame_put(&in, 0, NULL, 0);
    frame_put(&in, FIN, noise_bytes, 5000);
    frame_put(&in, BINARY, NULL, 0);
    frame_put(&in, TEXT, "\xf0\x9f\x98\x80", 4);
    frame_put(&in, CLOSE, "\x03\xe8ok", 4);
    frame_put(&in, CLOSE, "\x03\xe7", 2);
    read_all(&in, in.size, &whole);
    assert_true(whole.size > 5126 + 125);
    for (size_t cut = 0; cut < in.size; cut++) {
        CLEANUP(buf_fini) struct buf said = BUF_INIT;
        read_all(&in, cut, &said);
        assert_int_equal(said.size, whole.size);
        assert_memory_equal(said.data, whole.data, whole.size);
    }
}

/* ---- UTF-8 ---- */

/* bad: the first byte with which it cannot be the beginning of a text any more; the size: it never
 * is wrong; the size + 1: only its end is. */
static const struct {
    const char *text;
    size_t size, bad;
} texts[] = {
    {"", 0, 0},
    {"plain text of more than eight bytes", 35, 35},
    {"\x7f\xc2\x80\xdf\xbf", 5, 5},
    {"\xe0\xa0\x80\xec\xbf\xbf\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf", 15, 15},
    {"\xf0\x90\x80\x80\xf1\x80\x80\x80\xf4\x8f\xbf\xbf", 12, 12},
    {"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", 11, 11},
    {"eight ch\xf0\x9f\x98\x80 and some\xc3\xa9", 23, 23},
    {"a\xc3", 2, 3},
    {"\xe2\x82", 2, 3},
    {"\xf4\x8f\xbf", 3, 4},
    {"ascii \x80", 7, 6},
    {"\xbf"
     "a",
     2, 0},
    {"\xc0\x80", 2, 0},
    {"\xc1\xbf", 2, 0},
    {"a\xf5\x80\x80\x80", 5, 1},
    {"\xff", 1, 0},
    {"\xc3"
     "a more",
     7, 1},
    {"\xc3\xc3\xa9", 3, 1},
    {"\xe0\x9f\xbf", 3, 1},
    {"\xe1\x80"
     "abc",
     5, 2},
    {"\xed\xa0\x80 half of a pair", 18, 1},
    {"\xf0\x8f\xbf\xbf", 4, 1},
    {"\xf0\x90\x80"
     "abc",
     6, 3},
    {"\xf4\x90\x80\x80", 4, 1},
    {"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"
     "edited",
     20, 12},
};

/* Feed bytes one by one: which one is answered by *ev. SIZE_MAX: none is. */
static size_t read_slowly(struct ws_reader *r, struct ws_parts *parts, const struct buf *in,
                          struct ws_event *ev)
{
    for (size_t at = 0; at < in->size; at++) {
        const uint8_t *data = in->data + at;
        size_t size = 1;
        ws_reader_step(r, parts, &data, &size, ev);
        if (ev->kind != WS_EV_MORE) return at;
        ws_reader_rest(r, parts);
    }
    return SIZE_MAX;
}

/* As one frame, one byte after the other: the answer comes with the byte that decides. */
static void test_utf8_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CLEANUP(buf_fini) struct buf in = BUF_INIT;
        atomic_size_t sum = 0;
        struct ws_parts parts = {.message_max = 100, .sum = &sum, .sum_max = 100};
        struct ws_reader r = {0};
        struct ws_event ev;
        size_t size = texts[i].size, bad = texts[i].bad;
        frame_put(&in, TEXT, texts[i].text, size);
        size_t at = read_slowly(&r, &parts, &in, &ev);
        size_t decides = bad >= size ? in.size - 1 : in.size - size + bad;
        if (at != decides) fail_msg("text %zu: at byte %zu, not %zu", i, at, decides);
        assert_int_equal(ev.kind, bad == size ? WS_EV_MESSAGE : WS_EV_BAD);
        assert_int_equal(ev.code, bad == size ? 0 : 1007);
        assert_int_equal(ws_utf8_valid((const uint8_t *)texts[i].text, size), bad == size);
        ws_reader_fini(&r, &parts);
        ws_parts_fini(&parts);
    }
}

/* In three fragments, cut everywhere, each fed whole: the answer comes with the fragment of the
 * byte that decides. A binary message may hold anything. */
static void utf8_cut(size_t i, unsigned opcode, size_t one, size_t two)
{
    const char *text = texts[i].text;
    const size_t cuts[] = {0, one, two, texts[i].size}, size = texts[i].size;
    const bool fine = texts[i].bad == size || opcode == WS_BINARY;
    size_t bad = texts[i].bad;
    atomic_size_t sum = 0;
    struct ws_parts parts = {.message_max = 100, .sum = &sum, .sum_max = 100};
    struct ws_reader r = {0};
    struct ws_event ev = {0};
    for (unsigned f = 0; f < 3; f++) {
        CLEANUP(buf_fini) struct buf in = BUF_INIT;
        frame_put(&in, (f == 0 ? opcode : 0) | (f == 2 ? FIN : 0), text + cuts[f],
                  cuts[f + 1] - cuts[f]);
        const uint8_t *data = in.data;
        ws_reader_step(&r, &parts, &data, &in.size, &ev);
        bool last = f == 2 || (!fine && bad < cuts[f + 1]);
        assert_int_equal(ev.kind, !last ? WS_EV_MORE : fine ? WS_EV_MESSAGE : WS_EV_BAD);
        if (last) break;
        ws_reader_rest(&r, &parts);
        read_other(&parts);
    }
    assert_int_equal(ev.code, fine ? 0 : 1007);
    if (fine) assert_memory_equal(ev.data, text, size);
    ws_reader_fini(&r, &parts);
    ws_parts_fini(&parts);
    assert_int_equal(atomic_load(&sum), 0);
}

static void test_utf8_fragments(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (size_t one = 0; one <= texts[i].size; one++)
            for (size_t two = one; two <= texts[i].size; two++) {
                utf8_cut(i, WS_TEXT, one, two);
                utf8_cut(i, WS_BINARY, one, two);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_key),     cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_echo),           cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_byte_at_a_time), cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_send_threads),
        cmocka_unit_test(test_large_and_slow), cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_backpressure),   cmocka_unit_test(test_pause),
        cmocka_unit_test(test_extra),          cmocka_unit_test(test_close),
        cmocka_unit_test(test_close_both),     cmocka_unit_test(test_vanish),
        cmocka_unit_test(test_ping),           cmocka_unit_test(test_hub_free),
        cmocka_unit_test(test_idle_memory),    cmocka_unit_test(test_utf8_bytes),
        cmocka_unit_test(test_utf8_fragments), cmocka_unit_test(test_pause_order),
    };
    noise_seed();
    fill_noise(noise_bytes, sizeof noise_bytes);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
