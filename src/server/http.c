/*
 * http.c -- see http.h and http_intern.h.
 *
 * The library (libmicrohttpd) calls take() for a request several times: once when its head is
 * there, once for every piece of its body, once when it is whole, and again after a connection that
 * slept was woken for its answer. An answer may be given at the first of these (the library then
 * closes the connection: refusals) and from the third on.
 */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/http_intern.h"
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define POOL_MORE     (8u << 10)
#define THREADS_MAX   64
#define BODY_KEPT     (4u << 10) /* bytes of a body's buffer that stay with the connection */
#define BODY_FREE     (4u << 10) /* smaller bodies are not counted, so that loops share nothing */
#define BODY_FIRST    (256u << 10)
#define SEND_AHEAD    (128 << 10)
#define SEND_MS       2000
#define STOP_SLICE_MS 2
#define IDLE_S_MAX    (24 * 3600)

struct framing {
    unsigned lengths, encodings, hosts;
    const char *length, *encoding;
    bool odd_name;
};

static enum rc fill_opts(struct http_server *s, const struct http_opts *opts, struct err *err);
static enum rc start_daemon(struct http_server *s, struct err *err);
static void server_free(struct http_server *s);
static bool stop_waits(struct http_server *s, bool for_sending);
static void conn_event(void *cls, struct MHD_Connection *mhd, void **ctx,
                       enum MHD_ConnectionNotificationCode code);
static struct http_conn *conn_of(struct MHD_Connection *mhd);
static bool is_loopback(const struct sockaddr *addr);
static void *see_target(void *cls, const char *target, struct MHD_Connection *mhd);
static enum MHD_Result take(void *cls, struct MHD_Connection *mhd, const char *url,
                            const char *method, const char *version, const char *data,
                            size_t *data_size, void **ctx);
static enum MHD_Result begin(struct http_req *r, const char *url, const char *method,
                             const char *version);
static void check_head(struct http_req *r);
static enum MHD_Result see_framing(void *cls, enum MHD_ValueKind kind, const char *key,
                                   size_t key_size, const char *value, size_t value_size);
static bool expect_body(struct http_req *r, uint64_t size);
static enum MHD_Result add_body(struct http_req *r, const char *data, size_t size);
static bool count_body(struct http_req *r, size_t size);
static enum MHD_Result serve(struct http_req *r);
static enum MHD_Result queue(struct http_req *r);
static void completed(void *cls, struct MHD_Connection *mhd, void **ctx,
                      enum MHD_RequestTerminationCode why);

enum rc http_server_start(const struct http_opts *opts, struct http_server **ret_s, struct err *err)
{
    struct http_server *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "the HTTP server");
    s->bell_fd = s->listen_fd = -1;
    pthread_mutex_init(&s->zip_lock, NULL);
    pthread_mutex_init(&s->linger_lock, NULL);
    for (size_t i = 0; i < HTTP_SHARDS; i++)
        pthread_mutex_init(&s->shards[i].lock, NULL);
    enum rc rc = fill_opts(s, opts, err);
    if (rc == RC_OK && opts->tls_cert != NULL)
        rc = http__tls_new(s->opts.tls_cert, s->opts.tls_key, &s->tls, err);
    if (rc == RC_OK) rc = http__listen(s, &s->listen_fd, err);
    if (rc == RC_OK) rc = http__watch_start(s, err);
    if (rc == RC_OK) rc = start_daemon(s, err);
    /* On failure the caller keeps what he gave. */
    if (rc != RC_OK && opts->listen_fd >= 0) s->listen_fd = -1;
    if (rc == RC_OK)
        *ret_s = s;
    else
        server_free(s);
    return rc;
}

void http_server_quiesce(struct http_server *s)
{
    struct err ignored;
    if (atomic_exchange(&s->quiesced, true)) return;
    if (s->front != NULL) http__front_quiesce(s->front);
    /* The loops may just be accepting: the descriptor is closed when they have ended. A socket that
     * was handed over has another owner, and its connections wait for the next server. */
    (void)MHD_quiesce_daemon(s->daemon);
    if (s->opts.listen_fd < 0) (void)shutdown(s->listen_fd, SHUT_RDWR);
    if (s->unix_path != NULL) (void)!os_unlink(s->unix_path, &ignored);
}

size_t http_server_active(const struct http_server *s)
{
    long sum = 0;
    for (size_t i = 0; i < HTTP_SHARDS; i++)
        sum += atomic_load(&s->shards[i].active);
    return sum > 0 ? (size_t)sum : 0;
}

void http_server_stop(struct http_server *s)
{
    if (s == NULL) return;
    http_server_quiesce(s);
    atomic_store(&s->stopping, true);
    http__hurry(s);
    while (stop_waits(s, false))
        os_sleep_ms(STOP_SLICE_MS);
    for (int64_t end = os_mono_ms() + SEND_MS; stop_waits(s, true) && os_mono_ms() < end;)
        os_sleep_ms(STOP_SLICE_MS);
    server_free(s);
}

void http_server_address(const struct http_server *s, char *out, size_t size)
{
    snprintf(out, size, "%s", s->address);
}

enum rc http_server_reload_tls(struct http_server *s, struct err *err)
{
    if (s->tls == NULL) return err_set(err, RC_INVALID, "the server runs without TLS");
    return http__tls_load(s->tls, err);
}

/* ---- The request ---- */

const char *http_method(const struct http_req *r)
{
    return r->method;
}

const char *http_path(const struct http_req *r)
{
    return r->path;
}

const char *http_header(const struct http_req *r, const char *name)
{
    return MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name);
}

const char *http_query(const struct http_req *r, const char *name)
{
    const char *value = NULL;
    size_t size;
    enum MHD_Result found = MHD_lookup_connection_value_n(r->conn->mhd, MHD_GET_ARGUMENT_KIND, name,
                                                          strlen(name), &value, &size);
    return found == MHD_YES && value == NULL ? "" : value; /* "?name" without "=" */
}

const void *http_body(const struct http_req *r, size_t *ret_size)
{
    *ret_size = r->body.size;
    return r->body.data;
}

bool http_from_loopback(const struct http_req *r)
{
    return r->conn->loopback;
}

const atomic_bool *http_gone(struct http_req *r)
{
    return &r->gone;
}

void http_set_data(struct http_req *r, void *data, void (*fini)(void *data))
{
    r->data = data;
    r->data_fini = fini;
}

void *http_data(const struct http_req *r)
{
    return r->data;
}

unsigned http_answered(const struct http_req *r, int64_t *ret_us, uint64_t *ret_bytes)
{
    *ret_us = r->stream != NULL || r->status == 0 ? os_mono_us() : r->answered_us;
    *ret_bytes = r->sent;
    return r->status;
}

/* ---- Inside ---- */

void http__req_over(struct http_req *r)
{
    struct http_conn *c = r->conn;
    if (r->listed) http__unwatch_req(r);
    if (r->data_fini != NULL) r->data_fini(r->data);
    r->data = NULL;
    r->data_fini = NULL;
    if (r->body_counted > 0) atomic_fetch_sub(&c->server->body_sum, r->body_counted);
    r->body_counted = 0;
    http__spill_free(r);
    buf_reset(&r->body);
    if (r->body.cap > BODY_KEPT) buf_fini(&r->body);
    buf_reset(&r->headers);
    if (r->headers.cap > BODY_KEPT) buf_fini(&r->headers);
    if (r->response != NULL) MHD_destroy_response(r->response);
    r->response = NULL;
    bool streamed = r->stream != NULL;
    http__stream_free(r->stream);
    r->stream = NULL;
    r->upgrade = NULL;
    r->status = 0;
    r->sent = 0;
    r->known = r->served = r->queued = r->unread = false;
    atomic_store(&r->gone, false);
    atomic_store(&r->turn, HTTP_TURN_HANDLER);
    atomic_store(&c->body_since_ms, 0);
    atomic_store(&c->body_size, 0);
    atomic_fetch_add(&c->answered, 1);
    /* A connection that was found too slow stays LATE: it is about to be closed. */
    unsigned phase = atomic_load(&c->phase);
    if (phase != HTTP_LATE) (void)!atomic_compare_exchange_strong(&c->phase, &phase, HTTP_HEAD);
    atomic_fetch_sub(&c->shard->live, 1);
    if (streamed) http__conn_unref(c);
}

void http__conn_unref(struct http_conn *c)
{
    if (atomic_fetch_sub(&c->refs, 1) != 1) return;
    buf_fini(&c->req.body);
    buf_fini(&c->req.headers);
    mem_free(c);
}

static enum rc fill_opts(struct http_server *s, const struct http_opts *opts, struct err *err)
{
    struct http_opts *o = &s->opts;
    *o = *opts;
    o->tls_cert = o->tls_key = NULL; /* copies, below */
    if ((opts->tls_cert == NULL) != (opts->tls_key == NULL))
        return err_set(err, RC_INVALID, "TLS wants both a certificate and a key");
    if (o->threads == 0) o->threads = (unsigned)os_cpu_count();
    if (o->threads > THREADS_MAX) o->threads = THREADS_MAX;
    if (o->head_max == 0) o->head_max = 32u << 10;
    if (o->body_max == 0) o->body_max = 64u << 20;
    if (o->spill_max == 0) o->spill_max = UINT64_C(16) << 30;
    if (o->body_sum_max == 0) o->body_sum_max = 512u << 20;
    if (o->conn_max == 0) o->conn_max = 10000;
    if (o->threads > o->conn_max) o->threads = o->conn_max;
    if (o->idle_ms <= 0) o->idle_ms = 60000;
    if (o->idle_ms > (int64_t)IDLE_S_MAX * 1000) o->idle_ms = (int64_t)IDLE_S_MAX * 1000;
    if (o->receive_ms <= 0) o->receive_ms = 60000;
    /* The caller's texts need not live as long as the server. */
    if (opts->tls_cert == NULL) return RC_OK;
    o->tls_cert = mem_strdup(opts->tls_cert);
    o->tls_key = mem_strdup(opts->tls_key);
    if (o->tls_cert == NULL || o->tls_key == NULL) return err_mem(err, "the names of certificates");
    return RC_OK;
}

static enum rc start_daemon(struct http_server *s, struct err *err)
{
    const struct http_opts *o = &s->opts;
    size_t more = o->head_max / 2 > POOL_MORE ? o->head_max / 2 : POOL_MORE;
    unsigned flags =
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ITC;
    struct MHD_OptionItem items[8];
    size_t n = 0;
    if (s->tls != NULL)
        flags |= MHD_USE_NO_LISTEN_SOCKET;
    else
        items[n++] = (struct MHD_OptionItem){MHD_OPTION_LISTEN_SOCKET, s->listen_fd, NULL};
    if (o->threads > 1)
        items[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, o->threads, NULL};
    if (o->conn_max_per_ip > 0)
        items[n++] =
            (struct MHD_OptionItem){MHD_OPTION_PER_IP_CONNECTION_LIMIT, o->conn_max_per_ip, NULL};
    items[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    /* Signals belong to the program's main thread, not to the loops. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, take, s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->head_max + more,
        MHD_OPTION_CONNECTION_LIMIT, o->conn_max, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)((o->idle_ms + 999) / 1000), MHD_OPTION_NOTIFY_COMPLETED, completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, conn_event, s, MHD_OPTION_URI_LOG_CALLBACK, see_target, s,
        MHD_OPTION_ARRAY, items, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (s->daemon != NULL) {
        if (s->tls == NULL) return RC_OK;
        return http__front_start(s, err);
    }
    return err_set(err, RC_NO_MEM,
                   "the HTTP server at '%s' cannot start: too few descriptors, "
                   "threads or memory",
                   s->address);
}

static void server_free(struct http_server *s)
{
    struct err ignored;
    if (s->front != NULL) http__front_close(s->front);
    if (s->daemon != NULL) {
        (void)MHD_quiesce_daemon(s->daemon); /* it would close the socket */
        MHD_stop_daemon(s->daemon);
    }
    http__watch_stop(s);
    http__front_free(s->front); /* what the loops wrote last went through it */
    os_close(s->listen_fd);
    http__zips_free(s);
    http__tls_free(s->tls);
    if (s->unix_path != NULL && !atomic_load(&s->quiesced))
        (void)!os_unlink(s->unix_path, &ignored);
    mem_free(s->unix_path);
    mem_free((void *)(uintptr_t)s->opts.tls_cert);
    mem_free((void *)(uintptr_t)s->opts.tls_key);
    for (size_t i = 0; i < HTTP_SHARDS; i++)
        pthread_mutex_destroy(&s->shards[i].lock);
    pthread_mutex_destroy(&s->linger_lock);
    pthread_mutex_destroy(&s->zip_lock);
    mem_free(s);
}

static bool stop_waits(struct http_server *s, bool for_sending)
{
    long sum = 0;
    for (size_t i = 0; i < HTTP_SHARDS; i++)
        sum += atomic_load(for_sending ? &s->shards[i].live : &s->shards[i].active);
    return sum > 0;
}

static void conn_event(void *cls, struct MHD_Connection *mhd, void **ctx,
                       enum MHD_ConnectionNotificationCode code)
{
    static _Thread_local unsigned my_shard; /* 0: none yet */
    const int ahead = SEND_AHEAD;
    struct http_server *s = cls;
    struct http_conn *c = *ctx;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c = mem_calloc(1, sizeof *c);
        if (c == NULL) return; /* its first request is refused */
        if (my_shard == 0) my_shard = 1 + atomic_fetch_add(&s->shard_next, 1) % HTTP_SHARDS;
        c->server = s;
        c->shard = &s->shards[my_shard - 1];
        c->mhd = mhd;
        c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        /* What the kernel takes ahead of a slow reader: the library counts only what the kernel
         * takes as progress, and megabytes at once look like none for minutes. */
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &ahead, sizeof ahead);
        c->loopback = is_loopback(
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
        atomic_store(&c->refs, 1);
        c->req.conn = c;
        *ctx = c;
        http__watch_conn(c);
    } else if (c != NULL) {
        *ctx = NULL;
        http__unwatch_conn(c);
        http__conn_unref(c);
    }
}

static struct http_conn *conn_of(struct MHD_Connection *mhd)
{
    return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static bool is_loopback(const struct sockaddr *addr)
{
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)addr;
    if (addr == NULL || addr->sa_family == AF_UNIX || addr->sa_family == AF_UNSPEC) return true;
    if (addr->sa_family == AF_INET) return ntohl(in4->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) && in6->sin6_addr.s6_addr[12] == 127);
}

/* The target as it was sent: afterwards a NUL in it would look like its end. */
static void *see_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
    struct http_conn *c = conn_of(mhd);
    (void)cls;
    if (c == NULL) return NULL;
    c->target_end = target == NULL ? NULL : target + strlen(target);
    c->bad_target = target == NULL || strchr(target, ' ') != NULL || strstr(target, "%00") != NULL;
    return NULL;
}

static enum MHD_Result take(void *cls, struct MHD_Connection *mhd, const char *url,
                            const char *method, const char *version, const char *data,
                            size_t *data_size, void **ctx)
{
    struct http_req *r = *ctx;
    (void)cls;
    if (r == NULL) {
        struct http_conn *c = conn_of(mhd);
        if (c == NULL) return MHD_NO;
        *ctx = &c->req;
        return begin(&c->req, url, method, version);
    }
    if (*data_size > 0) {
        size_t size = *data_size;
        *data_size = 0;
        return add_body(r, data, size);
    }
    return r->served ? queue(r) : serve(r);
}

static enum MHD_Result begin(struct http_req *r, const char *url, const char *method,
                             const char *version)
{
    struct http_conn *c = r->conn;
    unsigned phase = HTTP_HEAD;
    atomic_fetch_add(&c->shard->live, 1);
    r->known = true;
    r->over = false;
    if (!atomic_compare_exchange_strong(&c->phase, &phase, HTTP_BODY)) return MHD_NO;
    if (atomic_load(&c->server->stopping)) return MHD_NO;
    r->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    r->method = r->head ? MHD_HTTP_METHOD_GET : method;
    /* "GET http://host/path": a proxy's form, which every server must take. */
    const char *path = url[0] == '/' ? NULL : strstr(url, "://");
    if (path != NULL) path = strchr(path + 3, '/');
    r->path = url[0] == '/' || strcmp(url, "*") == 0 ? url : path != NULL ? path : "/";
    /* The version begins one byte behind the target, unless a NUL cut the target short. */
    if (c->target_end == NULL || version != c->target_end + 1) c->bad_target = true;
    check_head(r);
    if (r->response == NULL) return MHD_YES;
    r->unread = true;
    atomic_store(&r->turn, HTTP_TURN_ANSWERED);
    return queue(r);
}

/* Refuse what will not be served before its body is read. */
static void check_head(struct http_req *r)
{
    struct http_conn *c = r->conn;
    struct framing f = {0};
    size_t head =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE)->header_size;
    if (head > c->server->opts.head_max) {
        http__refuse(r, 431, "HEAD_TOO_LARGE", "The head of the request is too large");
        return;
    }
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, see_framing, &f);
    if (c->bad_target) {
        http__refuse(r, 400, "BAD_REQUEST", "The request's target holds a NUL byte or a blank");
    } else if (f.odd_name || f.hosts > 1) {
        http__refuse(r, 400, "BAD_REQUEST", "A header is malformed, or Host is given twice");
    } else if (f.lengths > 1 || f.encodings > 1 || (f.lengths > 0 && f.encodings > 0)) {
        /* Two ways to read where a request ends are a way to hide another in it. */
        http__refuse(r, 400, "BAD_REQUEST", "The request gives its length more than once");
    } else if (f.encodings > 0 && strcasecmp(f.encoding, "chunked") != 0) {
        http__refuse(r, 501, "UNSUPPORTED_ENCODING", "The only known Transfer-Encoding is chunked");
    } else if (f.lengths > 0 || f.encodings > 0) {
        uint64_t size = 0;
        size_t digits = 0;
        for (const char *p = f.length; p != NULL && *p >= '0' && *p <= '9'; p++, digits++)
            size = size > UINT64_MAX / 16 ? UINT64_MAX : size * 10 + (uint64_t)(*p - '0');
        if (f.lengths > 0 && (digits == 0 || f.length[digits] != '\0'))
            http__refuse(r, 400, "BAD_REQUEST", "Content-Length is not a number");
        else if (f.encodings > 0 || size > 0)
            (void)expect_body(r, size);
    }
}

static enum MHD_Result see_framing(void *cls, enum MHD_ValueKind kind, const char *key,
                                   size_t key_size, const char *value, size_t value_size)
{
    struct framing *f = cls;
    (void)kind, (void)value_size;
    if (key_size == 0 || key[key_size - 1] == ' ' || key[key_size - 1] == '\t') {
        f->odd_name = true;
    } else if ((key[0] | 0x20) == 'h' && strcasecmp(key, MHD_HTTP_HEADER_HOST) == 0) {
        f->hosts++;
    } else if ((key[0] | 0x20) == 'c' && strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        f->lengths++;
        f->length = value != NULL ? value : "";
    } else if ((key[0] | 0x20) == 't' && strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        f->encodings++;
        f->encoding = value != NULL ? value : "";
    }
    return MHD_YES;
}

/* size 0: unknown. False when it was refused. */
static bool expect_body(struct http_req *r, uint64_t size)
{
    const struct http_opts *o = &r->conn->server->opts;
    struct err ignored;
    if (size > o->body_max) {
        atomic_store(&r->conn->body_since_ms, os_mono_ms());
        if (size <= o->spill_max && http__spill_begin(r)) return true;
        http__refuse(r, 413, "BODY_TOO_LARGE", "The body of the request is too large");
        return false;
    }
    /* What is announced is not believed at once: memory grows with what comes. */
    size_t first = size > BODY_FIRST ? BODY_FIRST : (size_t)size;
    if (!count_body(r, first) || buf_reserve(&r->body, first, &ignored) != RC_OK) {
        http__refuse(r, 503, "SERVER_BUSY", "Too many requests are being received");
        return false;
    }
    atomic_store(&r->conn->body_since_ms, os_mono_ms());
    return true;
}

static enum MHD_Result add_body(struct http_req *r, const char *data, size_t size)
{
    struct http_conn *c = r->conn;
    struct err ignored;
    const char *code = NULL, *text = NULL;
    unsigned status = 0;
    if (atomic_load(&c->phase) == HTTP_LATE) return MHD_NO;
    bool over = r->spill == NULL && size > c->server->opts.body_max - r->body.size;
    if (r->spill != NULL || (over && http__spill_begin(r))) {
        if (http__spill_add(r, data, size)) return MHD_YES;
        over = true;
    }
    if (over) {
        status = 413;
        code = "BODY_TOO_LARGE";
        text = "The body of the request is too large";
    } else if (size > r->body.cap - r->body.size &&
               (!count_body(r, 2 * r->body.cap + size) ||
                buf_reserve(&r->body, size, &ignored) != RC_OK)) {
        status = 503;
        code = "SERVER_BUSY";
        text = "Too many requests are being received";
    }
    if (status != 0) {
        r->unread = true;
        http__refuse_raw(c, status, code, text);
        return MHD_NO;
    }
    memcpy(r->body.data + r->body.size, data, size);
    r->body.size += size;
    atomic_store_explicit(&c->body_size, r->body.size, memory_order_relaxed);
    return MHD_YES;
}

/* Account for a buffer of size bytes. */
static bool count_body(struct http_req *r, size_t size)
{
    struct http_server *s = r->conn->server;
    if (size <= BODY_FREE || size <= r->body_counted) return true;
    size_t more = size - r->body_counted;
    if (atomic_fetch_add(&s->body_sum, more) + more > s->opts.body_sum_max) {
        atomic_fetch_sub(&s->body_sum, more);
        return false;
    }
    r->body_counted = size;
    return true;
}

static enum MHD_Result serve(struct http_req *r)
{
    struct http_conn *c = r->conn;
    struct http_server *s = c->server;
    unsigned phase = HTTP_BODY, turn = HTTP_TURN_HANDLER;
    if (!atomic_compare_exchange_strong(&c->phase, &phase, HTTP_BUSY)) return MHD_NO;
    r->served = true;
    atomic_fetch_add(&c->shard->active, 1);
    if (s->opts.cors && strcmp(r->method, MHD_HTTP_METHOD_OPTIONS) == 0)
        http__answer_options(r);
    else
        s->opts.handle(s->opts.ctx, r);
    if (atomic_load(&r->turn) == HTTP_TURN_ANSWERED) return queue(r);
    http__watch_req(r);
    MHD_suspend_connection(c->mhd);
    /* It may have been answered meanwhile by a thread that found nobody asleep. */
    if (!atomic_compare_exchange_strong(&r->turn, &turn, HTTP_TURN_ASLEEP))
        MHD_resume_connection(c->mhd);
    return MHD_YES;
}

static enum MHD_Result queue(struct http_req *r)
{
    struct MHD_Response *response = r->response;
    if (r->queued || atomic_load(&r->turn) != HTTP_TURN_ANSWERED) return MHD_YES;
    if (response == NULL) return MHD_NO;
    r->response = NULL;
    r->queued = true;
    if (r->stream == NULL)
        http__unwatch_req(r);
    else
        http__watch_req(r);
    enum MHD_Result ok = MHD_queue_response(r->conn->mhd, r->status, response);
    MHD_destroy_response(response);
    return ok;
}

static void completed(void *cls, struct MHD_Connection *mhd, void **ctx,
                      enum MHD_RequestTerminationCode why)
{
    struct http_req *r = *ctx;
    (void)cls, (void)mhd, (void)why;
    *ctx = NULL;
    if (r == NULL || r->over || !r->known) return;
    if (r->unread) http__linger(r->conn);
    if (r->stream != NULL && !http__stream_dead(r)) return; /* the writer ends it */
    http__req_over(r);
}
