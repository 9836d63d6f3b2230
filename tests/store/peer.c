/*
 * peer.c -- see peer.h. One thread accepts, one serves each connection. Memory comes from libc and
 * not from base/mem, since a test may be making that fail for the code under test.
 */
#include "peer.h"
#include "base/os.h"
#include "base/thr.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct script {
    struct script *next;
    struct peer_resp resp; /* owns what it points to */
};

struct record {
    struct record *next;
    struct peer_req req;
};

struct conn {
    struct conn *next, **link; /* [lock] */
    struct peer *p;
    int fd;
    unsigned number;
    bool idle; /* [lock] between two requests */
    char *in;  /* bytes that came and are not used yet */
    size_t in_size, in_cap;
};

struct peer {
    peer_fn *fn;
    void *ctx;
    int fd, wake[2];
    uint16_t port;
    char url[40];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool stopping; /* [lock], and all that follows */
    struct conn *conns;
    struct script *script, **script_end;
    struct record *records, **records_end;
    unsigned count, connections, live, numbers, busy, busy_max;
};

static void must(bool ok, const char *what);
static void *accept_main(void *arg);
static void *conn_main(void *arg);
static bool serve_one(struct conn *c);
static bool more(struct conn *c);
static size_t read_head(struct conn *c);
static bool read_head_parts(struct conn *c, size_t head, struct peer_req *req, uint64_t *ret_size);
static bool read_body(struct conn *c, uint64_t until, struct peer_req *req);
static void drop(struct conn *c, size_t size);
static struct script *take_script(struct peer *p, bool only_unread);
static void script_free(struct script *s);
static void record(struct conn *c, const struct peer_req *req);
static bool answer(struct conn *c, const struct peer_req *req, struct peer_resp *resp);
static bool send_head(struct conn *c, const struct peer_req *req, const struct peer_resp *resp);
static bool send_body(struct conn *c, const struct peer_req *req, const struct peer_resp *resp);
static bool send_all(struct conn *c, const void *data, size_t size);
static void linger(struct conn *c);
static bool reset(struct conn *c);
static bool pause_ms(struct peer *p, int64_t ms);
static void grow(struct buf *b, const void *data, size_t size);
static void grow_va(struct buf *b, const char *fmt, va_list ap);
static void grow_fmt(struct buf *b, const char *fmt, ...) FMT(2, 3);

struct peer *peer_start(peer_fn *fn, void *ctx)
{
    struct err err;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    struct peer *p = calloc(1, sizeof *p);
    must(p != NULL, "memory");
    setenv("no_proxy", "127.0.0.1,localhost", 1); /* whatever the machine is set up for */
    p->fn = fn;
    p->ctx = ctx;
    p->script_end = &p->script;
    p->records_end = &p->records;
    pthread_mutex_init(&p->lock, NULL);
    thr_cond_init(&p->change);
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(p->fd >= 0 && bind(p->fd, (struct sockaddr *)&addr, sizeof addr) == 0, "bind");
    must(listen(p->fd, 256) == 0 && pipe(p->wake) == 0, "listen");
    must(getsockname(p->fd, (struct sockaddr *)&addr, &size) == 0, "getsockname");
    p->port = ntohs(addr.sin_port);
    snprintf(p->url, sizeof p->url, "http://127.0.0.1:%u", p->port);
    must(thr_start(&p->thread, "peer", accept_main, p, &err) == RC_OK, "thread");
    return p;
}

void peer_stop(struct peer *p)
{
    if (p == NULL) return;
    thr_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->change);
    thr_unlock(&p->lock);
    must(write(p->wake[1], "x", 1) == 1, "wake");
    pthread_join(p->thread, NULL);
    thr_lock(&p->lock);
    for (struct conn *c = p->conns; c != NULL; c = c->next)
        shutdown(c->fd, SHUT_RDWR);
    while (p->live > 0)
        thr_wait(&p->change, &p->lock, 0);
    thr_unlock(&p->lock);
    peer_forget(p);
    close(p->fd);
    close(p->wake[0]);
    close(p->wake[1]);
    pthread_cond_destroy(&p->change);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

const char *peer_url(const struct peer *p)
{
    return p->url;
}

uint16_t peer_port(const struct peer *p)
{
    return p->port;
}

void peer_push(struct peer *p, const struct peer_resp *resp)
{
    struct script *s = calloc(1, sizeof *s);
    must(s != NULL, "memory");
    s->resp = *resp;
    struct peer_resp *r = &s->resp;
    if (r->reason != NULL) r->reason = strdup(r->reason);
    if (r->headers != NULL) r->headers = strdup(r->headers);
    if (r->before != NULL) r->before = strdup(r->before);
    if (r->trailers != NULL) r->trailers = strdup(r->trailers);
    void *body = calloc(1, r->body_size + 1);
    must(body != NULL, "memory");
    if (r->body != NULL) memcpy(body, r->body, r->body_size);
    r->body = body;
    thr_lock(&p->lock);
    *p->script_end = s;
    p->script_end = &s->next;
    thr_unlock(&p->lock);
}

void peer_push_many(struct peer *p, unsigned count, const struct peer_resp *resp)
{
    for (unsigned i = 0; i < count; i++)
        peer_push(p, resp);
}

unsigned peer_left(struct peer *p)
{
    unsigned n = 0;
    thr_lock(&p->lock);
    for (struct script *s = p->script; s != NULL; s = s->next)
        n++;
    thr_unlock(&p->lock);
    return n;
}

unsigned peer_count(struct peer *p)
{
    thr_lock(&p->lock);
    unsigned n = p->count;
    thr_unlock(&p->lock);
    return n;
}

const struct peer_req *peer_at(struct peer *p, unsigned i)
{
    thr_lock(&p->lock);
    struct record *r = p->records;
    while (r != NULL && i-- > 0)
        r = r->next;
    thr_unlock(&p->lock);
    must(r != NULL, "peer_at: no such request");
    return &r->req;
}

unsigned peer_connections(struct peer *p)
{
    thr_lock(&p->lock);
    unsigned n = p->connections;
    thr_unlock(&p->lock);
    return n;
}

unsigned peer_busy_max(struct peer *p)
{
    thr_lock(&p->lock);
    unsigned n = p->busy_max;
    thr_unlock(&p->lock);
    return n;
}

void peer_forget(struct peer *p)
{
    struct script *s;
    struct record *r, *next;
    while ((s = take_script(p, false)) != NULL)
        script_free(s);
    thr_lock(&p->lock);
    for (r = p->records; r != NULL; r = next) {
        next = r->next;
        free(r->req.target);
        free(r->req.headers);
        free((void *)r->req.body);
        free(r);
    }
    p->records = NULL;
    p->records_end = &p->records;
    p->count = p->connections = p->numbers = p->busy_max = 0;
    thr_unlock(&p->lock);
}

void peer_drop_idle(struct peer *p)
{
    int64_t end_ms = os_mono_ms() + 60000;
    thr_lock(&p->lock);
    for (struct conn *c = p->conns; c != NULL && os_mono_ms() < end_ms;) {
        c = c->next;
        for (struct conn *o = p->conns; o != NULL; o = o->next) {
            if (o->idle) continue;
            thr_wait(&p->change, &p->lock, end_ms);
            c = p->conns; /* the list may be another one now */
            break;
        }
    }
    for (struct conn *c = p->conns; c != NULL; c = c->next)
        if (c->idle) shutdown(c->fd, SHUT_RDWR);
    thr_unlock(&p->lock);
}

const char *peer_header(const struct peer_req *req, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = req->headers; *line != '\0'; line += strlen(line) + 1)
        if (strncasecmp(line, name, size) == 0 && line[size] == ':')
            return line + size + 1 + strspn(line + size + 1, " \t");
    return NULL;
}

void peer_head(struct peer_resp *resp, const char *name, const char *fmt, ...)
{
    va_list ap;
    grow_fmt(&resp->head, "%s: ", name);
    va_start(ap, fmt);
    grow_va(&resp->head, fmt, ap);
    va_end(ap);
    grow(&resp->head, "\r\n", 2);
}

void peer_text(struct peer_resp *resp, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    grow_va(&resp->text, fmt, ap);
    va_end(ap);
}

void peer_bytes(struct peer_resp *resp, const void *data, size_t size)
{
    grow(&resp->text, data, size);
}

void peer_serve(const struct peer_req *req, struct peer_resp *resp, const void *data, size_t size,
                const char *etag)
{
    const char *range = peer_header(req, "Range"), *match = peer_header(req, "If-Match");
    size_t first = 0, last = 0;
    if (etag != NULL) peer_head(resp, "ETag", "%s", etag);
    if (match != NULL && (etag == NULL || strcmp(match, etag) != 0)) {
        resp->status = 412;
        return;
    }
    resp->body = data;
    resp->body_size = size;
    if (range == NULL) return;
    int n = sscanf(range, "bytes=%zu-%zu", &first, &last);
    if (n < 1) return;
    if (n == 1 || last >= size) last = size - 1;
    if (first >= size || last < first) {
        resp->status = 416;
        resp->body_size = 0;
        peer_head(resp, "Content-Range", "bytes */%zu", size);
        return;
    }
    resp->status = 206;
    resp->body = (const char *)data + first;
    resp->body_size = last - first + 1;
    peer_head(resp, "Content-Range", "bytes %zu-%zu/%zu", first, last, size);
}

static void must(bool ok, const char *what)
{
    if (ok) return;
    perror(what);
    abort();
}

static void *accept_main(void *arg)
{
    struct peer *p = arg;
    struct pollfd fds[2] = {{.fd = p->fd, .events = POLLIN}, {.fd = p->wake[0], .events = POLLIN}};
    for (;;) {
        must(poll(fds, 2, -1) > 0, "poll");
        if (fds[1].revents != 0) return NULL;
        int fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC), on = 1;
        if (fd < 0) continue; /* the client has gone again */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        pthread_t thread;
        struct err err;
        must(c != NULL, "memory");
        c->p = p;
        c->fd = fd;
        thr_lock(&p->lock);
        c->number = ++p->connections;
        c->next = p->conns;
        c->link = &p->conns;
        if (c->next != NULL) c->next->link = &c->next;
        p->conns = c;
        p->live++;
        thr_unlock(&p->lock);
        must(thr_start(&thread, "peer-conn", conn_main, c, &err) == RC_OK, "thread");
        pthread_detach(thread);
    }
}

static void *conn_main(void *arg)
{
    struct conn *c = arg;
    struct peer *p = c->p;
    while (serve_one(c))
        continue;
    thr_lock(&p->lock);
    *c->link = c->next;
    if (c->next != NULL) c->next->link = c->link;
    if (c->fd >= 0) close(c->fd);
    p->live--;
    free(c->in);
    free(c);
    pthread_cond_broadcast(&p->change);
    thr_unlock(&p->lock);
    return NULL;
}

/* One request and its answer. False: this connection is over. */
static bool serve_one(struct conn *c)
{
    struct peer *p = c->p;
    struct peer_req req = {.connection = c->number};
    uint64_t size = 0;
    bool on = false;
    thr_lock(&p->lock);
    c->idle = c->in_size == 0;
    pthread_cond_broadcast(&p->change);
    thr_unlock(&p->lock);
    if (c->in_size == 0 && !more(c)) return false;
    thr_lock(&p->lock);
    c->idle = false;
    thr_unlock(&p->lock);
    struct script *s = take_script(p, true);
    if (s != NULL) {
        script_free(s);
        return reset(c);
    }
    size_t head = read_head(c);
    if (head == 0 || !read_head_parts(c, head, &req, &size)) return false;
    s = take_script(p, false);
    enum peer_fault fault = s != NULL ? s->resp.fault : PEER_FINE;
    if (fault == PEER_RESET_UNREAD) {
        on = reset(c);
    } else if (fault == PEER_RESET_UPLOAD) {
        on = read_body(c, s->resp.fault_at < size ? s->resp.fault_at : size, &req) && reset(c);
    } else if (fault == PEER_EARLY || read_body(c, size, &req)) {
        req.at_ms = os_mono_ms();
        thr_lock(&p->lock);
        req.number = ++p->numbers;
        if (++p->busy > p->busy_max) p->busy_max = p->busy;
        thr_unlock(&p->lock);
        struct peer_resp made = {0}, *resp = s != NULL ? &s->resp : &made;
        for (req.delivery = 1; req.delivery <= 2; req.delivery++) {
            record(c, &req);
            if (s == NULL && p->fn != NULL) p->fn(p->ctx, &req, resp);
            if (s == NULL && p->fn == NULL) resp->status = 599;
            if (s != NULL || !resp->again || req.delivery == 2) break;
            free(made.head.data);
            free(made.text.data);
            made = (struct peer_resp){0};
        }
        on = answer(c, &req, resp) && fault != PEER_EARLY;
        if (fault == PEER_EARLY) linger(c);
        free(made.head.data);
        free(made.text.data);
        thr_lock(&p->lock);
        p->busy--;
        thr_unlock(&p->lock);
    }
    script_free(s);
    free(req.target);
    free(req.headers);
    free((void *)req.body);
    return on;
}

/* Some more bytes into the buffer. */
static bool more(struct conn *c)
{
    if (c->in_cap - c->in_size < 65536) {
        c->in_cap = c->in_cap * 2 + 131072;
        c->in = realloc(c->in, c->in_cap);
        must(c->in != NULL, "memory");
    }
    ssize_t n = recv(c->fd, c->in + c->in_size, c->in_cap - c->in_size - 1, 0);
    if (n <= 0) return false;
    c->in_size += (size_t)n;
    c->in[c->in_size] = '\0';
    return true;
}

/* Size of a head with its empty line; 0: the connection ended, or too much. */
static size_t read_head(struct conn *c)
{
    for (;;) {
        char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
        if (end != NULL) return (size_t)(end - c->in) + 4;
        if (c->in_size > PEER_HEADERS_MAX || !more(c)) return 0;
    }
}

static bool read_head_parts(struct conn *c, size_t head, struct peer_req *req, uint64_t *ret_size)
{
    int target = 0, target_end = 0;
    sscanf(c->in, "%15[^ ] %n%*s%n", req->method, &target, &target_end);
    char *line_end = memmem(c->in, head, "\r\n", 2);
    if (target_end == 0 || c->in + target_end > line_end) return false;
    req->target = strndup(c->in + target, (size_t)(target_end - target));
    req->headers = calloc(1, head + 2);
    must(req->target != NULL && req->headers != NULL, "memory");
    char *out = req->headers;
    for (char *at = line_end + 2; at < c->in + head - 2;) {
        char *end = memmem(at, (size_t)(c->in + head - at), "\r\n", 2);
        memcpy(out, at, (size_t)(end - at));
        out += end - at + 1;
        at = end + 2;
    }
    const char *length = peer_header(req, "Content-Length");
    *ret_size = length != NULL ? strtoull(length, NULL, 10) : 0;
    drop(c, head);
    const char *expect = peer_header(req, "Expect");
    if (expect != NULL && *ret_size > 0) return send_all(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return true;
}

static bool read_body(struct conn *c, uint64_t until, struct peer_req *req)
{
    if (until > PEER_BODY_MAX) {
        const char *text = "HTTP/1.1 413 Too Big\r\nContent-Length: 0\r\n\r\n";
        send_all(c, text, strlen(text));
        return false;
    }
    while (c->in_size < until)
        if (!more(c)) return false;
    uint8_t *body = calloc(1, (size_t)until + 1);
    must(body != NULL, "memory");
    if (until > 0) memcpy(body, c->in, (size_t)until);
    req->body = body;
    req->body_size = (size_t)until;
    req->body_total = until;
    drop(c, (size_t)until);
    return true;
}

static void drop(struct conn *c, size_t size)
{
    memmove(c->in, c->in + size, c->in_size - size);
    c->in_size -= size;
}

static struct script *take_script(struct peer *p, bool only_unread)
{
    thr_lock(&p->lock);
    struct script *s = p->script;
    if (s != NULL && only_unread && s->resp.fault != PEER_RESET_UNREAD) s = NULL;
    if (s != NULL) {
        p->script = s->next;
        if (p->script == NULL) p->script_end = &p->script;
    }
    thr_unlock(&p->lock);
    return s;
}

static void script_free(struct script *s)
{
    if (s == NULL) return;
    free((void *)s->resp.reason);
    free((void *)s->resp.headers);
    free((void *)s->resp.before);
    free((void *)s->resp.trailers);
    free((void *)s->resp.body);
    free(s);
}

static void record(struct conn *c, const struct peer_req *req)
{
    struct record *r = calloc(1, sizeof *r);
    must(r != NULL, "memory");
    size_t headers = 0, body = req->body_size < PEER_KEEP_MAX ? req->body_size : PEER_KEEP_MAX;
    while (req->headers[headers] != '\0')
        headers += strlen(req->headers + headers) + 1;
    r->req = *req;
    r->req.target = strdup(req->target);
    r->req.headers = calloc(1, headers + 2);
    uint8_t *copy = calloc(1, body + 1);
    must(r->req.target != NULL && r->req.headers != NULL && copy != NULL, "memory");
    memcpy(r->req.headers, req->headers, headers);
    if (body > 0) memcpy(copy, req->body, body);
    r->req.body = copy;
    r->req.body_size = body;
    struct peer *p = c->p;
    thr_lock(&p->lock);
    *p->records_end = r;
    p->records_end = &r->next;
    p->count++;
    thr_unlock(&p->lock);
}

/* False: the connection is over. */
static bool answer(struct conn *c, const struct peer_req *req, struct peer_resp *resp)
{
    struct buf whole = {0}; /* body and text as one */
    if (resp->text.size > 0) {
        if (resp->body != NULL) grow(&whole, resp->body, resp->body_size);
        grow(&whole, resp->text.data, resp->text.size);
        resp->body = whole.data;
        resp->body_size = whole.size;
    }
    void *zeros = NULL;
    if (resp->body == NULL) resp->body = zeros = calloc(1, resp->body_size + 1);
    must(resp->body != NULL, "memory");
    bool on = pause_ms(c->p, resp->delay_ms);
    if (on && resp->fault == PEER_RESET) on = reset(c);
    if (on && resp->fault == PEER_LOSE) on = false;
    on = on && send_head(c, req, resp) && send_body(c, req, resp);
    if (resp->close || resp->close_silently || resp->no_length) on = false;
    free(whole.data);
    free(zeros);
    return on;
}

static bool send_head(struct conn *c, const struct peer_req *req, const struct peer_resp *resp)
{
    struct buf b = {0};
    int status = resp->status ? resp->status : 200;
    (void)req;
    if (resp->before != NULL) grow_fmt(&b, "%s", resp->before);
    grow_fmt(&b, "HTTP/1.1 %d %s\r\n", status, resp->reason != NULL ? resp->reason : "Text");
    if (resp->chunked)
        grow_fmt(&b, "Transfer-Encoding: chunked\r\n");
    else if (!resp->no_length && status != 204 && status != 304)
        grow_fmt(&b, "Content-Length: %llu\r\n",
                 (unsigned long long)(resp->length_set ? resp->length : resp->body_size));
    if (resp->close) grow_fmt(&b, "Connection: close\r\n");
    if (resp->headers != NULL) grow_fmt(&b, "%s", resp->headers);
    if (resp->head.size > 0) grow(&b, resp->head.data, resp->head.size);
    grow_fmt(&b, "\r\n");
    bool cut = resp->fault == PEER_CUT_HEAD;
    size_t size = cut && resp->fault_at < b.size ? (size_t)resp->fault_at : b.size;
    if (cut && size == 0) size = b.size / 2;
    bool on = send_all(c, b.data, size);
    free(b.data);
    return on && !cut;
}

static bool send_body(struct conn *c, const struct peer_req *req, const struct peer_resp *resp)
{
    enum peer_fault fault = resp->fault;
    bool broken = fault == PEER_CUT_BODY || fault == PEER_RESET_BODY || fault == PEER_HANG_BODY;
    size_t size = resp->body_size, piece;
    if (strcmp(req->method, "HEAD") == 0 || resp->status == 204 || resp->status == 304) return true;
    if (broken && resp->fault_at < size) size = (size_t)resp->fault_at;
    for (size_t off = 0; off < size; off += piece) {
        piece = resp->drip_size > 0 ? resp->drip_size : resp->chunked ? 65536 : size;
        if (piece > size - off) piece = size - off;
        if (off > 0 && !pause_ms(c->p, resp->drip_ms)) return false;
        char line[32];
        snprintf(line, sizeof line, "%zx\r\n", piece);
        if (resp->chunked && !send_all(c, line, strlen(line))) return false;
        if (!send_all(c, (const char *)resp->body + off, piece)) return false;
        if (resp->chunked && !send_all(c, "\r\n", 2)) return false;
    }
    if (fault == PEER_HANG_BODY) {
        while (more(c))
            continue;
        return false;
    }
    if (fault == PEER_RESET_BODY) {
        /* What was sent before a reset may be thrown away by the receiver's system. */
        pause_ms(c->p, 20);
        return reset(c);
    }
    if (broken) return false;
    if (!resp->chunked) return true;
    return send_all(c, "0\r\n", 3) &&
           (resp->trailers == NULL || send_all(c, resp->trailers, strlen(resp->trailers))) &&
           send_all(c, "\r\n", 2);
}

static bool send_all(struct conn *c, const void *data, size_t size)
{
    for (size_t off = 0; off < size;) {
        ssize_t n = send(c->fd, (const char *)data + off, size - off, MSG_NOSIGNAL);
        if (n <= 0) return false;
        off += (size_t)n;
    }
    return true;
}

/* Let the client read the answer before the unread rest of its request turns into a reset. */
static void linger(struct conn *c)
{
    shutdown(c->fd, SHUT_WR);
    do
        c->in_size = 0;
    while (more(c));
}

/* Always false: the connection is over. */
static bool reset(struct conn *c)
{
    struct linger off = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
    thr_lock(&c->p->lock);
    close(c->fd);
    c->fd = -1;
    thr_unlock(&c->p->lock);
    return false;
}

/* False: the peer stops. */
static bool pause_ms(struct peer *p, int64_t ms)
{
    int64_t end_ms = os_mono_ms() + ms;
    thr_lock(&p->lock);
    while (ms > 0 && !p->stopping && os_mono_ms() < end_ms)
        thr_wait(&p->change, &p->lock, end_ms);
    bool on = !p->stopping;
    thr_unlock(&p->lock);
    return on;
}

static void grow(struct buf *b, const void *data, size_t size)
{
    if (b->cap - b->size < size + 1) {
        b->cap = b->cap * 2 + size + 256;
        b->data = realloc(b->data, b->cap);
        must(b->data != NULL, "memory");
    }
    if (size > 0) memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = '\0';
}

static void grow_va(struct buf *b, const char *fmt, va_list ap)
{
    char *text = NULL;
    int n = vasprintf(&text, fmt, ap);
    must(n >= 0, "memory");
    grow(b, text, (size_t)n);
    free(text);
}

static void grow_fmt(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    grow_va(b, fmt, ap);
    va_end(ap);
}
