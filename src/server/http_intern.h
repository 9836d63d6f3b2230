/*
 * http_intern.h -- what the files of the HTTP server share.
 *
 *   http.c         start, stop, requests as the library hands them in, limits
 *   http_listen.c  addresses and listening sockets
 *   http_reply.c   answers: headers, compression, CORS, refusals
 *   http_stream.c  answers in pieces, and sockets given away (upgrade)
 *   http_spill.c   bodies that go to a file
 *   http_watch.c   the one thread that looks for clients who have gone, are too slow, or still send
 *                  what nobody will read
 *   http_front.c   TLS, before a connection gets to the library
 *   http_tls.c     certificates
 *
 * A connection has one request at a time, so a request lives inside of its connection and its
 * buffers are used again. Who may touch a request:
 *
 *   its loop's thread      until handle() and after the answer (turn ANSWERED)
 *   whoever has the work   between them; the last touch is http__answer
 *
 * A stream has two sides at once: struct http_stream's lock is between them, and the side that ends
 * last frees the request.
 *
 * Locks: stream -> the library's own; shard and linger are leaves. A request that handle() answers
 * takes none of them.
 */
#ifndef SERVER_HTTP_INTERN_H
#define SERVER_HTTP_INTERN_H
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <pthread.h>
#include "server/http.h"

#define HTTP_SHARDS     32
#define HTTP_LINGER_MAX 256

/* Where a connection stands; only the watcher moves it to LATE, and only from HEAD or BODY. */
enum http_phase { HTTP_HEAD, HTTP_BODY, HTTP_BUSY, HTTP_LATE };
enum http_turn { HTTP_TURN_HANDLER, HTTP_TURN_ASLEEP, HTTP_TURN_ANSWERED };

struct http_stream {
    pthread_mutex_t lock;
    pthread_cond_t room;
    struct buf data; /* [lock:lock] from off on: not yet taken by the loop */
    size_t off;
    bool ended, broken, dead, asleep;
    bool headless; /* [const] nobody will read a body: HEAD */
};

struct http_spill;
struct http_req {
    struct http_conn *conn;
    const char *method, *path;
    struct buf body;
    struct http_spill *spill; /* the body is there; NULL: in memory */
    size_t body_counted;      /* what it adds to the sum of all bodies */
    bool known, served, head;
    bool unread; /* refused before it was read: the client may still be sending */
    bool queued, over;
    bool listed;                  /* in the shard's list of requests that wait */
    uint64_t id;                  /* [lock:shard] */
    int64_t waits_since_ms;       /* [lock:shard] */
    struct http_req *next, *prev; /* [lock:shard] */
    atomic_bool gone;
    atomic_uint turn;
    struct buf headers;            /* name NUL value NUL ... */
    struct MHD_Response *response; /* NULL when answered: break the connection */
    unsigned status;
    int64_t answered_us;
    uint64_t sent; /* bytes of the answer's body, as it was given */
    struct http_stream *stream;
    http_upgrade_fn *upgrade;
    void *upgrade_ctx;
    void *data;
    void (*data_fini)(void *data);
};

struct http_conn {
    struct http_server *server;
    struct http_shard *shard;
    struct MHD_Connection *mhd;
    struct http_conn *next, *prev; /* [lock:shard] */
    int fd;
    bool loopback, bad_target;
    const char *target_end;
    atomic_uint refs; /* the library's, and a stream's */
    atomic_uint phase;
    atomic_uint_fast64_t answered;     /* requests that are over */
    atomic_int_fast64_t body_since_ms; /* 0: no body is on its way */
    atomic_size_t body_size;
    /* [watcher] */
    uint64_t seen_answered, seen_bytes;
    int64_t head_since_ms;
    bool seen;
    struct http_req req;
};

/* Connections of a loop's thread, so that no two threads share a lock. */
struct http_shard {
    pthread_mutex_t lock;
    struct http_conn *conns;
    struct http_req *waiting, *waiting_tail; /* longest first */
    uint64_t ids;
    atomic_long active; /* handled and not answered */
    atomic_long live;   /* begun and not yet sent */
} __attribute__((aligned(128)));

struct http_linger {
    int fd;
    int64_t until_ms;
    size_t budget;
};

struct http_front;
struct http_tls;
struct http_tls_pair;
struct http_zip;

struct http_server {
    struct http_opts opts; /* [const] with the defaults filled in */
    struct MHD_Daemon *daemon;
    char address[160];
    char *unix_path;
    int listen_fd;
    struct http_tls *tls;
    struct http_front *front; /* with TLS */
    atomic_size_t body_sum;
    atomic_uint shard_next;
    atomic_bool quiesced, stopping;
    pthread_mutex_t zip_lock;
    struct http_zip *zips; /* [lock:zip_lock] */
    pthread_t watcher;
    bool watching;
    int bell_fd;
    atomic_bool napping, watch_stop;
    pthread_mutex_t linger_lock;
    struct http_linger linger[HTTP_LINGER_MAX]; /* [lock:linger_lock] */
    size_t linger_count;
    struct http_shard shards[HTTP_SHARDS];
};

/* ---- http.c ---- */
void http__req_over(struct http_req *r); /* frees what it holds; ready for the next one */
void http__conn_unref(struct http_conn *c);

/* ---- http_listen.c ---- */
/* Fails: RC_INVALID, RC_BUSY, RC_DENIED, RC_IO. */
MUST_CHECK enum rc http__listen(struct http_server *s, int *ret_fd, struct err *err);

/* ---- http_reply.c ---- */
/* Give the request back to its loop with what is in response. */
void http__answer(struct http_req *r);
/* Add what was asked for by http_add_header, and CORS. False: out of memory. */
bool http__dress(struct http_req *r, struct MHD_Response *response, const char *type);
bool http__has_header(const struct http_req *r, const char *name); /* given by http_add_header */
/* Fill r->response with an error in JSON. */
void http__refuse(struct http_req *r, unsigned status, const char *code, const char *message);
/* The same written to the socket, where the library has no place for an answer. */
void http__refuse_raw(struct http_conn *c, unsigned status, const char *code, const char *message);
void http__answer_options(struct http_req *r);
void http__zips_free(struct http_server *s);

/* ---- http_stream.c ---- */
/* The library is through with the request; true: so is the writer. */
bool http__stream_dead(struct http_req *r);
void http__stream_free(struct http_stream *s);

/* ---- http_spill.c ---- */
/* From now on its body, with what has come of it, goes to a file. False: it may not, or cannot. */
bool http__spill_begin(struct http_req *r);
bool http__spill_add(struct http_req *r, const void *data, size_t size); /* false: too much */
void http__spill_free(struct http_req *r);

/* ---- http_watch.c ---- */
MUST_CHECK enum rc http__watch_start(struct http_server *s, struct err *err);
void http__watch_stop(struct http_server *s);
void http__watch_conn(struct http_conn *c);
void http__unwatch_conn(struct http_conn *c);
void http__watch_req(struct http_req *r);
void http__unwatch_req(struct http_req *r);
/* Keep the socket open and drop what comes for a moment: an early close would reset the connection
 * and with it the answer. */
void http__linger(struct http_conn *c);
void http__hurry(struct http_server *s); /* all that wait: gone */

/* ---- http_tls.c ---- */
MUST_CHECK enum rc http__tls_new(const char *cert_file, const char *key_file,
                                 struct http_tls **ret_t, struct err *err);
MUST_CHECK enum rc http__tls_load(struct http_tls *t, struct err *err);
void http__tls_free(struct http_tls *t);
/* A session with the newest certificate, which is held until http__tls_unref. NULL: no memory. */
gnutls_session_t http__tls_session(struct http_tls *t, int fd, struct http_tls_pair **ret_pair);
void http__tls_unref(struct http_tls_pair *p);

/* ---- http_front.c ---- */
/* Accept TLS connections at the server's listen_fd; its daemon runs. Sets s->front. */
MUST_CHECK enum rc http__front_start(struct http_server *s, struct err *err);
void http__front_quiesce(struct http_front *f);
void http__front_close(struct http_front *f); /* no more connections for the loops from now on */
void http__front_free(struct http_front *f);  /* waits until what is on its way was sent: 2 s */
/* Bytes that came for the connection of this descriptor of a loop. */
bool http__front_bytes(const struct http_front *f, int fd, uint64_t *ret_bytes);
#endif
