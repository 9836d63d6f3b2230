/*
 * http.h -- the HTTP side of the server over libmicrohttpd: whole requests in, answers out, from
 * any thread.
 *
 *   connection ──► head and body read (bounded, timed) ──► handle(req) ──► http_reply now, or later
 *                                                          from any thread: the connection sleeps
 *
 * A handler runs on the thread of its connection and of hundreds of others: it answers at once or
 * gives the work away. Every request is answered exactly once: http_reply, or http_stream_begin
 * ... http_stream_end, or http_upgrade. Until then its body stays valid, and until http_reply,
 * http_stream_begin or http_upgrade its head does, too.
 *
 * Done here for everybody: limits on heads, bodies and connections, timeouts for slow clients,
 * CORS, compression of large answers, HEAD, 100-continue, chunked bodies, TLS with reload.
 *
 * Threads: http_server_* belong to one owner; what takes a request: any thread, one at a time.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H
#include <stdatomic.h>
#include "base/buf.h"

struct http_server;
struct http_req;

struct http_opts {
    const char *listen; /* "HOST:PORT" (":8080": all addresses; "[::1]:0": any free port) or
                           "unix:/path"; ignored with listen_fd */
    int listen_fd;      /* a listening socket that somebody else has made; -1: none */
    unsigned threads;   /* 0: one a CPU */
    size_t head_max; /* bytes of a request's head; 0: 32 KiB -> 431. Every connection has this and
                        half of it, at least 8 KiB more, as its buffer */
    size_t body_max; /* 0: 64 MiB -> 413 */
    size_t body_sum_max;      /* of all bodies held at once; 0: 512 MiB -> 503 */
    unsigned conn_max;        /* connections; 0: 10000; more wait until one is closed */
    unsigned conn_max_per_ip; /* 0: no limit */
    int64_t idle_ms;    /* between requests, and between two bytes of one; in whole seconds, rounded
                           up; 0: 60 s */
    int64_t receive_ms; /* for a whole request, from its first byte: slow clients; 0: 60 s; a body
                           may take longer while it comes faster than 16 KiB/s */
    const char *tls_cert, *tls_key; /* files, PEM; NULL: plain */
    /* Asked when a body goes beyond body_max: the folder where a file may hold it, or NULL: 413. On
     * the connection's thread, with the head at hand. May be NULL: none may. */
    const char *(*spill)(void *ctx, const struct http_req *req);
    uint64_t spill_max; /* bytes of such a body; 0: 16 GiB */
    bool cors;          /* answer OPTIONS and add Access-Control-* for any origin */
    void (*handle)(void *ctx, struct http_req *req);
    void *ctx;
};
/* Fails: RC_INVALID the address, the certificate; RC_DENIED, RC_BUSY the port is taken; RC_NO_MEM
 */
MUST_CHECK enum rc http_server_start(const struct http_opts *opts, struct http_server **ret_s,
                                     struct err *err);
/* Stop accepting; requests that came go on. From now on a client that takes nothing of its answer
 * in pieces for 2 s is cut off. */
void http_server_quiesce(struct http_server *s);
size_t http_server_active(const struct http_server *s); /* requests handled and not yet answered */
/* Turn http_gone true for every request that is not answered, and for those to come; waits until
 * all are answered and sent (up to 2 s for the sending). NULL is fine. */
void http_server_stop(struct http_server *s);
void http_server_address(const struct http_server *s, char *out,
                         size_t size); /* "127.0.0.1:8080" */
/* Read certificate and key again, for new connections. Fails: RC_INVALID and the old ones stay. */
MUST_CHECK enum rc http_server_reload_tls(struct http_server *s, struct err *err);

/* ---- The request ---- */
const char *http_method(const struct http_req *r); /* "GET"; HEAD comes as "GET" */
const char *http_path(const struct http_req *r);   /* "/v2/pipeline", %XX decoded; NUL is refused */
const char *http_header(const struct http_req *r, const char *name); /* NULL: none */
const char *http_query(const struct http_req *r, const char *name);  /* ?name=value; NULL: none */
const void *http_body(const struct http_req *r, size_t *ret_size);
/* The file with a body that went there (opts.spill), NULL: it is in memory. Deleted at the end of
 * the request, unless it was renamed. */
const char *http_body_file(struct http_req *r, uint64_t *ret_size);
bool http_from_loopback(const struct http_req *r);
/* Turns true when the client has gone away or the server stops in a hurry: for struct call. Looked
 * after by a watcher only for requests that are not answered within 20 ms. */
const atomic_bool *http_gone(struct http_req *r);
/* Memory of the handler that lives as long as the request; fini (may be NULL) runs at its end. */
void http_set_data(struct http_req *r, void *data, void (*fini)(void *data));
void *http_data(const struct http_req *r);

/* For the fini of http_set_data: the status that was given, 0: none; when (os_mono_us; of an answer
 * in pieces: now); bytes of its body, before compression. */
unsigned http_answered(const struct http_req *r, int64_t *ret_us, uint64_t *ret_bytes);

/* ---- The answer ---- */
/* Name and value are copied. Fails: RC_NO_MEM; RC_INVALID a line break in them. */
MUST_CHECK enum rc http_add_header(struct http_req *r, const char *name, const char *value,
                                   struct err *err);
/* Takes over the contents of body (which is empty afterwards); type NULL: no Content-Type. Never
 * fails for the caller: without memory the connection is closed. */
void http_reply(struct http_req *r, unsigned status, const char *type, struct buf *body);
/* The same with a constant text. */
void http_reply_text(struct http_req *r, unsigned status, const char *type, const char *text);
/* An answer in pieces, by a thread that may block (for a HEAD request the pieces are dropped):
 * write waits while the client has more than 256 KiB to take. Fails: RC_CANCELED the client has
 * gone (end must be called all the same); RC_NO_MEM. flush: send what there is, now. */
MUST_CHECK enum rc http_stream_begin(struct http_req *r, unsigned status, const char *type,
                                     struct err *err);
MUST_CHECK enum rc http_stream_write(struct http_req *r, const void *data, size_t size, bool flush,
                                     struct err *err);
/* whole false: break the connection, so that the client knows that something is missing. */
void http_stream_end(struct http_req *r, bool whole);
/* 101. fn gets the socket (non-blocking; with TLS one that is en- and decrypted by us) and
 * bytes that came already; it is fn's, who closes it some day. Called on a thread of the server;
 * not called when the client has gone before, only the fini of http_set_data is. The request is
 * over when fn returns. "Upgrade: websocket" is added when no Upgrade was. Without TLS the socket
 * no longer belongs to the server: it does not count as a connection and survives http_server_stop.
 */
typedef void http_upgrade_fn(void *ctx, int fd, const void *extra, size_t extra_size);
void http_upgrade(struct http_req *r, http_upgrade_fn *fn, void *ctx);
#endif
