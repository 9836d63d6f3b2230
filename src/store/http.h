/*
 * http.h -- HTTP requests for drivers, over libcurl: one call is one request with all its tries.
 *
 * What is decided here, once: connections are kept alive and shared by the whole process (HTTP/2
 * where TLS offers it); tries, pauses and throttling (retry.h); a get that breaks off goes on where
 * it stopped, with the etag as its condition; a body that is shorter or longer than announced is a
 * failure; nothing waits for ever. What a driver decides: URL and headers, how a try is signed,
 * what an answer means.
 *
 * Redirects are not followed (a signature is for one host): they come back as an answer. Only http
 * and https. Proxies as libcurl's environment variables say, never for loopback metadata services.
 *
 * Threads: a struct http may be used by many; a request and its response belong to one.
 */
#ifndef STORE_HTTP_H
#define STORE_HTTP_H
#include "base/buf.h"
#include "store/driver.h"
#include "store/retry.h"

#define HTTP_TEXT_MAX    (1u << 20)  /* of an answer that is collected, unless text_max says less */
#define HTTP_HEADERS_MAX (64u << 10) /* of all headers of an answer */
#define HTTP_CONNECT_MS  10000
#define HTTP_STALL_MS    30000 /* no byte moved for so long: the try has failed */

struct http;
struct http_conf {
    const char *service; /* "https://host:port": names the pacer; requests may go elsewhere, too */
    struct store *store; /* requests are counted there; NULL: nowhere */
    const struct store_conf *conf; /* for on_trouble; may be NULL */
    bool skip_verify;              /* do not check certificates */
    const char *ca_file;           /* NULL: SSL_CERT_FILE and SSL_CERT_DIR, or the system's */
    bool no_proxy;                 /* metadata services */
    const char *unix_socket;       /* NULL */
    int64_t connect_ms, stall_ms;  /* 0: the defaults above */
};
MUST_CHECK enum rc http_open(const struct http_conf *conf, struct http **ret_http, struct err *err);
void http_close(struct http *h); /* NULL is fine */

struct http_req;
struct http_resp;

/* Before each try: set the headers that depend on time, credentials and the bytes left to get (all
 * others are there already). Headers set by it are removed again before the next try.
 * Fails: as it likes; RC_AGAIN is tried again. */
typedef enum rc http_sign_fn(void *ctx, struct http_req *req, struct err *err);
/* After each answer that is not 2xx: its meaning, as a code and a text in err. RC_AGAIN and RC_BUSY
 * are tried again unless hint->final; RC_OK takes the answer as a success. hint->after_ms holds the
 * answer's Retry-After already. */
typedef enum rc http_judge_fn(void *ctx, const struct http_req *req, const struct http_resp *resp,
                              struct retry_hint *hint, struct err *err);
/* The usual meaning of a status: 401 403 DENIED; 404 NOT_FOUND; 409 CONFLICT; 412 CONFLICT; 408 429
 * 5xx AGAIN (429 and 503 throttled; 501 UNSUPPORTED; 507 NO_SPACE), 413 TOO_BIG, others INVALID.
 * The text: "<what>: <status> <reason or code>", and `detail` (may be NULL) behind it. */
enum rc http_judge(const struct http_req *req, const struct http_resp *resp, const char *detail,
                   struct retry_hint *hint, struct err *err);

struct http_req {
    const char *method;   /* "GET" */
    const char *url;      /* complete and encoded; dot segments stay as they are */
    const char *what;     /* for messages: "get 'ltx/0/...'"; never a secret */
    enum store_op op;     /* for accounting */
    bool idempotent;      /* false: a try whose fate is unknown is not repeated, it is RC_AGAIN */
    http_sign_fn *sign;   /* may be NULL */
    http_judge_fn *judge; /* NULL: http_judge */
    void *ctx;            /* of sign and judge */

    /* The body of the request: none, bytes, or a part of a store body. */
    const void *data;
    uint64_t data_size;
    const struct store_body *body; /* wins over data */
    uint64_t body_off, body_size;

    /* Where a 2xx body goes: to the sink, or (sink NULL) into resp->text. With ranged, exactly the
     * bytes of [range_off, range_off + range_size) that the object has (size 0: to its end), also
     * when the service ignores ranges, and none with 416 and when the object ends before them.
     * Progress through a range survives a broken transfer; the second try's bytes go on. */
    store_sink_fn *sink;
    void *sink_ctx;
    bool ranged;
    uint64_t range_off, range_size;
    struct store_obj
        *ret_obj; /* with sink: etag, size, mtime_ms before the first byte; may be NULL */
    void (*on_head)(void *ctx, const struct http_resp *resp); /* with sink: 2xx headers are there */
    size_t text_max;                                          /* 0: HTTP_TEXT_MAX */

    /* Set by http_answer_header only. */
    struct buf headers; /* "Name: value\0" ... */
    size_t headers_fixed;
    uint64_t delivered; /* bytes that the sink has had */
};
/* Append a header (name and value must hold no line breaks). Fails: RC_INVALID; RC_NO_MEM. */
MUST_CHECK enum rc http_answer_header(struct http_req *req, struct err *err, const char *name,
                                      const char *fmt, ...) FMT(4, 5);
/* Walk the headers that the next try will send ("Range" and "If-Match" of a resumed get included),
 * for signing. *at starts at 0; false at the end. */
bool http_header_next(const struct http_req *req, size_t *at, const char **ret_name,
                      size_t *ret_name_size, const char **ret_value);
void http_req_fini(struct http_req *req); /* for CLEANUP */

struct http_resp {
    int status;
    struct buf headers; /* as received, lines end in \0; HTTP_HEADERS_MAX */
    struct buf text;    /* a collected body, \0-terminated (not counted in size) */
    bool lost;          /* some try may have taken effect although its answer never came, or was
                         * 5xx or 408; set on success, too */
    int64_t date_ms;    /* the Date header; 0: none */
};
const char *http_resp_header(const struct http_resp *resp, const char *name); /* NULL: none */
void http_resp_fini(struct http_resp *resp);                                  /* for CLEANUP */

/* Send with all tries. resp (zeroed by the caller) holds the last answer, also on failure.
 * A get that was broken has RETRY_TRIES tries again whenever they brought it 8 MiB further.
 * Fails: the judge's, sign's, the sink's and the body's codes (the latter two are final); RC_AGAIN
 * network trouble, a name that cannot be resolved (nobody can tell a typing error from a resolver
 * that is down); RC_DENIED a certificate that cannot be trusted; RC_INVALID a URL; RC_TOO_BIG the
 * answer or its headers; RC_CORRUPT the object changed during a get, another range than asked for,
 * no way to tell where the object ends; RC_CANCELED; RC_NO_MEM. */
MUST_CHECK enum rc http_send(struct http *h, const struct call *c, struct http_req *req,
                             struct http_resp *resp, struct err *err);

struct http_state { /* for tests, metrics: connections' handles of the process */
    unsigned idle, busy;
};
void http_look(struct http_state *ret);
#endif
