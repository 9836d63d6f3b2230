/*
 * peer.h -- a scripted HTTP/1.1 server on real sockets, for tests of drivers and of store/http.
 *
 *   struct peer *p = peer_start(handler, ctx);     or NULL, NULL: scripted answers only
 *   peer_push(p, &(struct peer_resp){.status = 503, .headers = "Retry-After: 1\r\n"});
 *   peer_push(p, &(struct peer_resp){.body = "hello", .body_size = 5});
 *   ... requests to peer_url(p) ...
 *   assert_int_equal(peer_count(p), 2);
 *   assert_string_equal(peer_at(p, 0)->method, "PUT");
 *   peer_stop(p);
 *
 * Each request takes the oldest scripted answer; when there is none the handler is asked, and
 * without a handler the answer is 599 (so a forgotten script shows). Faults are members of the
 * answer, all off when zero. Every request that was read is recorded, also when its answer is lost.
 *
 * Failures of the server itself (no socket, no memory) abort the test program.
 * Threads: one for each connection; the handler must lock what it shares (one call at a time per
 * connection). peer_push, peer_count, peer_at, ... may be called at any time.
 */
#ifndef TESTS_STORE_PEER_H
#define TESTS_STORE_PEER_H
#include <stdbool.h>
#include "base/buf.h"

#define PEER_HEADERS_MAX (128u << 10) /* of a request */
#define PEER_BODY_MAX    (64u << 20)  /* of a request; a larger one is answered with 413 */
#define PEER_KEEP_MAX    (1u << 20)   /* bytes of a body that are kept in the record */

struct peer;

struct peer_req {
    char method[16];
    char *target;        /* as sent: path and query */
    char *headers;       /* "Name: value\0Name: value\0\0" */
    const uint8_t *body; /* \0-terminated; in the record at most PEER_KEEP_MAX bytes */
    size_t body_size;    /* bytes at body */
    uint64_t body_total; /* bytes that came */
    unsigned number;     /* of the request, from 1; a duplicate delivery has the same */
    unsigned connection; /* its number, from 1 */
    unsigned delivery;   /* 1, or 2 when an answer asked for `again` */
    int64_t at_ms;       /* os_mono_ms when it had been read */
};

enum peer_fault {
    PEER_FINE,
    /* Scripted answers only, since these come before a handler could be asked: */
    PEER_RESET_UNREAD, /* reset once the request's first byte is there; it is not recorded */
    PEER_RESET_UPLOAD, /* reset after fault_at bytes of the request's body; not recorded */
    PEER_EARLY,        /* answer after the headers, read no body, close; recorded without body */
    /* After the request was read, recorded and handled: */
    PEER_LOSE,       /* close without any answer: success whose answer is lost */
    PEER_RESET,      /* the same with a reset */
    PEER_CUT_HEAD,   /* close after fault_at bytes of the head (0: half of it) */
    PEER_CUT_BODY,   /* close after fault_at bytes of the body (truncated) */
    PEER_RESET_BODY, /* reset after fault_at bytes of the body */
    PEER_HANG_BODY,  /* send no more after fault_at bytes of the body, until the client goes */
};

/* An answer. What it points to must live until peer_push has copied it or the handler's answer was
 * sent; a handler that makes its texts uses peer_head() and peer_text() instead. */
struct peer_resp {
    int status;         /* 0: 200 */
    const char *reason; /* NULL: "Text" */
    const char
        *headers;     /* "Name: value\r\n" lines; Content-Length and the like come by themselves */
    const void *body; /* NULL with a size: that many bytes of zero */
    size_t body_size;

    enum peer_fault fault;
    uint64_t fault_at;
    int64_t delay_ms; /* hang so long before the first byte of the answer */
    size_t drip_size; /* send the body in pieces of so many bytes ... */
    int64_t drip_ms;  /* ... with this pause between two */
    bool chunked;     /* chunked encoding instead of Content-Length */
    bool no_length;   /* neither: the body ends with the connection */
    bool length_set; /* announce `length`, not the true size (too short: the rest follows anyway) */
    uint64_t length;
    bool close;          /* "Connection: close", and close */
    bool close_silently; /* keep-alive is promised, but the connection is closed afterwards */
    bool again; /* duplicate delivery: the handler is called again, its 2nd answer is sent */
    const char *before;   /* bytes sent in front: "HTTP/1.1 103 Early Hints\r\n...\r\n\r\n" */
    const char *trailers; /* with chunked: "Name: value\r\n" lines after the last chunk */

    struct buf head, text; /* by peer_head and peer_text: come after headers and body */
};
/* Called without locks. resp is all zero. */
typedef void peer_fn(void *ctx, const struct peer_req *req, struct peer_resp *resp);

struct peer *peer_start(peer_fn *fn, void *ctx);
void peer_stop(struct peer *p);             /* ends all connections; NULL is fine */
const char *peer_url(const struct peer *p); /* "http://127.0.0.1:PORT" */
uint16_t peer_port(const struct peer *p);

void peer_push(struct peer *p, const struct peer_resp *resp); /* copies all that it points to */
void peer_push_many(struct peer *p, unsigned count, const struct peer_resp *resp);
unsigned peer_left(struct peer *p); /* scripted answers that nobody has taken yet */

unsigned peer_count(struct peer *p);                        /* requests recorded */
const struct peer_req *peer_at(struct peer *p, unsigned i); /* from 0; lives until peer_stop */
unsigned peer_connections(struct peer *p);                  /* accepted so far */
unsigned peer_busy_max(struct peer *p); /* most requests being answered at one time */
void peer_forget(struct peer *p); /* no record, no script; counts start again. While idle only. */
void peer_drop_idle(
    struct peer *p); /* close the connections, once their answers are sent (or 1 s) */

/* The value of a request's header, any case, or NULL. */
const char *peer_header(const struct peer_req *req, const char *name);
/* Add to an answer. */
void peer_head(struct peer_resp *resp, const char *name, const char *fmt, ...) FMT(3, 4);
void peer_text(struct peer_resp *resp, const char *fmt, ...) FMT(2, 3);
void peer_bytes(struct peer_resp *resp, const void *data, size_t size);
/* A whole answer to a GET or HEAD of one object: 200, or 206 with Content-Range, 416, 412 for an
 * If-Match that does not fit, with `etag` (NULL: none). data must live until it is sent. */
void peer_serve(const struct peer_req *req, struct peer_resp *resp, const void *data, size_t size,
                const char *etag);
#endif
