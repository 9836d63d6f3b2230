/* ws_sweep_test.c -- every allocation and every syscall of a WebSocket's life fails in turn: the
 * client sees an answer, a close or an end, never silence; nothing leaks, nothing is freed twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/fault.h"
#include "server/ws_peer.h"

#define BIG (150 * 1024) /* fits into the socket, but its echo has to queue behind it */

static struct err err;
static uint8_t big[BIG];

/* What the client has read when it ended: all of it, a close with a code, or nothing. */
static unsigned listen_to(struct side *s, bool *ret_all)
{
    struct frame f;
    size_t whole;
    unsigned frames = 0, code = 0;
    while (code == 0 && peer_next(&s->peer, &f, &whole)) {
        if (f.first == CLOSE) {
            assert_true(f.size >= 2);
            code = get_be16(f.data);
            shutdown(s->peer.fd, SHUT_WR);
        } else if (f.size == BIG) {
            assert_memory_equal(f.data, big, BIG);
        }
        frames++;
        buf_drop_front(&s->peer.in, whole);
    }
    *ret_all = code == 1000 && frames == 5;
    return code;
}

static void client(struct side *s, const struct buf *out, size_t from, bool fired)
{
    bool all;
    for (size_t at = from; at < out->size;) {
        ssize_t n = send(s->peer.fd, out->data + at, out->size - at, MSG_NOSIGNAL);
        if (n < 0) break;
        at += (size_t)n;
    }
    os_sleep_ms(1);
    ws_resume(s->conn);
    unsigned code = listen_to(s, &all);
    if (!fired) fired = fault_fired();
    if (!all && !fired) fail_msg("code %u without a fault", code);
    assert_true(code == 0 || code == 1000 || code == 1011);
    if (code != 0) peer_expect_end(&s->peer);
}

/* Returns whether the fault fired. */
static bool life(unsigned classes, uint64_t n, const struct buf *out)
{
    struct ws_hub *h = NULL;
    struct side s;
    const struct ws_opts opts = {.threads = 1, .send_max = BIG / 2};
    const size_t extra = 300;
    side_init(&s, false);
    assert_int_equal(buf_reserve(&s.peer.in, 4 * BIG, &err), RC_OK);
    fault_arm(classes, n, false);
    enum rc rc = ws_hub_new(&opts, &h, &err);
    if (rc == RC_OK) rc = ws_add(h, s.fd, out->data, extra, &side_events, &s, &s.conn, &err);
    if (rc == RC_OK) {
        ws_pause(s.conn);
        client(&s, out, extra, false);
    } else {
        assert_true(fault_fired());
        assert_true(rc == RC_NO_MEM || classes == FAULT_SYSCALL);
        assert_int_equal(s.closed, 0);
        assert_true(err.text[0] != '\0');
        os_close(s.fd); /* it is still ours */
    }
    peer_fini(&s.peer);
    ws_hub_free(h, 100);
    bool fired = fault_fired();
    fault_arm(0, 0, false);
    if (rc == RC_OK) side_fini(&s);
    return fired;
}

static void sweep(unsigned classes, uint64_t at_least)
{
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    uint64_t n = 1;
    frame_put(&out, TEXT, "one", 3);
    frame_put(&out, 2, big, 1000);
    frame_put(&out, PING, "p", 1);
    frame_put(&out, FIN, big + 1000, 9000);
    frame_put(&out, BINARY, big, BIG);
    frame_put(&out, CLOSE, "\x03\xe8", 2);
    while (life(classes, n, &out))
        n++;
    if (n <= at_least) fail_msg("only %u faults", (unsigned)n - 1);
}

static void test_allocations(void **state)
{
    (void)state;
    sweep(FAULT_ALLOC, 8);
}

static void test_syscalls(void **state)
{
    (void)state;
    sweep(FAULT_SYSCALL, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_allocations),
                                       cmocka_unit_test(test_syscalls)};
    noise_seed();
    fill_noise(big, sizeof big);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
