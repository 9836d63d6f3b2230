/*
 * ws.h -- WebSocket connections (RFC 6455): a few threads, epoll, frames by wslay.
 *
 * The HTTP side does the handshake (ws_accept_key) and gives the socket away. A connection that
 * waits costs one small allocation and its socket: buffers exist only while a message is on its
 * way. Pings are answered, fragments joined, masks and UTF-8 checked, sizes bounded.
 *
 * A client that shuts down its side while ws_pause holds its messages back has gone: what it sent
 * is not delivered. Broken rules end a connection with 1002, 1007, 1008 or 1009, and the close says
 * which rule.
 *
 * Threads: `message` and `closed` of one connection come one after another from one thread of the
 * hub. ws_send, ws_close, ws_pause, ws_resume: any thread, also from inside `message`.
 */
#ifndef SERVER_WS_H
#define SERVER_WS_H
#include "base/buf.h"

struct ws_hub;
struct ws_conn;

struct ws_opts {
    unsigned threads;       /* 0: one a CPU */
    size_t message_max;     /* bytes; 0: 64 MiB; more: closed with 1009 */
    size_t message_sum_max; /* of all messages above 4 KiB that are coming in at once; 0: 512 MiB;
                               more: closed with 1013 */
    size_t send_max;        /* bytes that a client leaves untaken before `message` pauses for it;
                               0: 1 MiB. With more than four times as much, a further ws_send closes
                               with 1008; one message may have any size */
    int64_t ping_ms;        /* ping after so long a silence, close after twice that; 0: never */
    unsigned conn_max;      /* 0: 100000 */
};
struct ws_events {
    /* One whole message; data is valid during the call and terminated by a NUL that is not counted.
     */
    void (*message)(void *ctx, struct ws_conn *c, bool binary, const void *data, size_t size);
    /* The last call for this connection, its socket is closed: the client went away or ws_close is
     * through. After it returns, c must not be used, except by threads that hold ws_ref. */
    void (*closed)(void *ctx, struct ws_conn *c);
};

/* Fails: RC_NO_MEM; RC_BUSY; RC_IO no descriptor. */
MUST_CHECK enum rc ws_hub_new(const struct ws_opts *opts, struct ws_hub **ret_h, struct err *err);
/* Close all with 1001; wait up to wait_ms for their closing handshakes. Nobody may call ws_add any
 * more; the rest stays harmless for those who hold ws_ref. NULL is fine. */
void ws_hub_free(struct ws_hub *h, int64_t wait_ms);
size_t ws_hub_count(const struct ws_hub *h);

/* Take over a socket after the handshake; extra: bytes that came behind it; events: must stay.
 * `message` and `closed` may come before this returns: hence ret_c, which may be NULL, holds a
 * reference of the caller's (ws_unref). On failure the caller keeps fd, and there are no calls.
 * Fails: RC_BUSY conn_max; RC_NO_MEM; RC_IO. */
MUST_CHECK enum rc ws_add(struct ws_hub *h, int fd, const void *extra, size_t extra_size,
                          const struct ws_events *events, void *ctx, struct ws_conn **ret_c,
                          struct err *err);
void ws_ref(struct ws_conn *c);   /* keep the memory; sends to a closed one do nothing */
void ws_unref(struct ws_conn *c); /* NULL is fine */

/* Sent at once as far as the socket takes it, the rest when it can. Fails: RC_NO_MEM; RC_CANCELED
 * closed, also because of this message (send_max). */
MUST_CHECK enum rc ws_send(struct ws_conn *c, bool binary, const void *data, size_t size,
                           struct err *err);
/* code: RFC 6455, 7.4; 0: none. reason: at most 120 bytes (more is cut) of UTF-8 (or it is left
 * out); NULL: none.
 * Messages sent before go out before. Further messages are not delivered. */
void ws_close(struct ws_conn *c, unsigned code, const char *reason);
/* No `message` until resumed as often as paused; one that is being delivered goes on. */
void ws_pause(struct ws_conn *c);
void ws_resume(struct ws_conn *c);

/* Value of Sec-WebSocket-Accept. Fails: RC_INVALID key is not 16 bytes in base64; RC_NO_MEM. */
#define WS_ACCEPT_SIZE 29
MUST_CHECK enum rc ws_accept_key(const char *key, char out[WS_ACCEPT_SIZE], struct err *err);
#endif
