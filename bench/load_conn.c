/*
 * load_conn.c -- connections of the load generator: one epoll and one share of the connections a
 * thread; a connection sends its next request when an answer has come (a closed loop, --depth of
 * them at a time).
 *
 *   CONN_UPGRADE --101--> CONN_HELLO --hello_ok--> CONN_STREAM --response_ok--> CONN_READY
 *                                                                  HTTP starts here: ^
 *
 * A connection that breaks is opened again. A server that takes no connections ends the program.
 *
 * Threads: a worker owns its connections; workers share only the phase, which is constant but for
 * its counter and its barrier.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include "load.h"

#define EVENTS_MAX   256
#define READ_SIZE    4096u
#define HANDSHAKE_NS (60 * 1000000000ll)
#define CLOSING_NS   (10 * 1000000000ll) /* for the last answers after the window */

/* What is at the front of the input: not whole yet, an answer, or nonsense. */
enum found { FOUND_PART, FOUND_WHOLE, FOUND_BAD };
struct answer {
    int status;
    char *body;
    size_t size, consumed;
    bool close;     /* the server closes the connection behind it */
    uint8_t opcode; /* of a WebSocket frame */
};
enum { WS_TEXT = 1, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

static void *worker_main(void *arg);
static void worker_loop(struct worker *w, int64_t until_ns, bool (*done)(const struct worker *w));
static bool start_due(struct worker *w, int64_t now);
static bool all_ready(const struct worker *w);
static bool none_busy(const struct worker *w);
static void conn_open(struct conn *c);
static void conn_reopen(struct conn *c, const char *why);
static void conn_send_next(struct conn *c);
static void conn_flush(struct conn *c);
static void conn_watch(struct conn *c, bool want_write);
static void conn_read(struct conn *c);
static bool conn_take(struct conn *c, struct answer *a);
static bool conn_shake_hands(struct conn *c, const struct answer *a);
static void conn_say(struct conn *c, const char *text);
static struct flight *conn_flight_of(struct conn *c, const struct answer *a);
static void conn_answered(struct conn *c, struct flight *f, const struct answer *a);
static enum found find_http(struct conn *c, struct answer *a);
static enum found find_chunked(char *body, size_t size, struct answer *a);
static enum found find_frame(struct conn *c, struct answer *a);
static void put_frame(struct conn *c, uint8_t opcode, const char *data, size_t size);

int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

void bytes_room(struct bytes *b, size_t more)
{
    if (b->cap - b->size >= more) return;
    size_t cap = b->cap < 256 ? 256 : b->cap;
    while (cap - b->size < more)
        cap *= 2;
    b->data = realloc(b->data, cap);
    if (b->data == NULL) die("no memory for %zu bytes", cap);
    b->cap = cap;
}

void bytes_put(struct bytes *b, const void *data, size_t size)
{
    bytes_room(b, size);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

void bytes_u64(struct bytes *b, uint64_t number)
{
    char digits[20];
    size_t n = sizeof digits;
    do
        digits[--n] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    bytes_put(b, digits + n, sizeof digits - n);
}

void target_parse(struct target *t, const char *url)
{
    const char *rest = strstr(url, "://");
    if (rest == NULL || (strncmp(url, "http:", 5) != 0 && strncmp(url, "ws:", 3) != 0)) {
        die("'%s' is no http:// or ws:// URL", url);
    }
    rest += 3;
    size_t size = strcspn(rest, "/");
    if (size == 0 || size >= LOAD_NAME_MAX || strlen(rest + size) >= LOAD_NAME_MAX) {
        die("'%s' has no host, or is too long", url);
    }
    snprintf(t->authority, sizeof t->authority, "%.*s", (int)size, rest);
    snprintf(t->base, sizeof t->base, "%s", rest + size);
    size_t base = strlen(t->base);
    if (base > 0 && t->base[base - 1] == '/') t->base[base - 1] = '\0';
    snprintf(t->host, sizeof t->host, "%.255s", t->authority);
    char *colon = strrchr(t->host, ':');
    if (colon != NULL) *colon++ = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int failed = getaddrinfo(t->host, colon != NULL ? colon : "80", &hints, &found);
    if (failed != 0) die("%s: %s", t->authority, gai_strerror(failed));
    memcpy(&t->addr, found->ai_addr, found->ai_addrlen);
    t->addr_size = found->ai_addrlen;
    freeaddrinfo(found);
}

void phase_run(struct phase *p, struct worker *sum)
{
    struct worker *workers = calloc(p->threads, sizeof *workers);
    if (workers == NULL) die("no memory for %u threads", p->threads);
    if (pthread_barrier_init(&p->ready, NULL, p->threads) != 0) die("no barrier");
    for (unsigned i = 0; i < p->threads; i++) {
        struct worker *w = &workers[i];
        w->phase = p;
        w->rng = rng_of(p->opts->seed, i);
        w->conn_count = p->conns / p->threads + (i < p->conns % p->threads ? 1 : 0);
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) die("no thread %u", i);
    }
    for (unsigned i = 0; i < p->threads; i++) {
        struct worker *w = &workers[i];
        pthread_join(w->thread, NULL);
        hist_merge(&sum->hist, &w->hist);
        sum->ops += w->ops;
        sum->trips += w->trips;
        sum->errors += w->errors;
        sum->reconnects += w->reconnects;
        if (sum->first_error[0] == '\0') {
            memcpy(sum->first_error, w->first_error, sizeof sum->first_error);
        }
    }
    pthread_barrier_destroy(&p->ready);
    free(workers);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    const struct load_opts *o = w->phase->opts;
    bool endless = w->phase->work_count == 0;
    w->conns = calloc(w->conn_count + 1, sizeof *w->conns);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->conns == NULL || w->epoll < 0) die("no memory for %u connections", w->conn_count);
    for (unsigned i = 0; i < w->conn_count; i++) {
        w->conns[i].worker = w;
        w->conns[i].fd = -1;
        conn_open(&w->conns[i]);
    }
    w->closing = true; /* nobody starts before all stand */
    worker_loop(w, mono_ns() + HANDSHAKE_NS, all_ready);
    if (!all_ready(w)) die("the connections do not stand after 60 s: %s", w->first_error);
    if (pthread_barrier_wait(&w->phase->ready) == PTHREAD_BARRIER_SERIAL_THREAD &&
        w->phase->on_ready != NULL) {
        w->phase->on_ready();
    }
    w->from_ns = mono_ns() + (endless ? (int64_t)(o->warm * 1e9) : 0);
    w->to_ns = endless ? w->from_ns + (int64_t)(o->seconds * 1e9) : INT64_MAX;
    if (w->phase->mode == LOAD_HOLD) {
        worker_loop(w, w->to_ns, NULL);
    } else {
        if (endless && o->rate > 0) {
            w->pace_ns = (int64_t)(1e9 * w->phase->threads / o->rate);
            w->due_ns = mono_ns();
        }
        w->closing = false;
        for (unsigned i = 0; i < w->conn_count; i++)
            conn_send_next(&w->conns[i]);
        worker_loop(w, w->to_ns, endless ? NULL : none_busy);
        w->closing = true;
        worker_loop(w, mono_ns() + CLOSING_NS, none_busy);
    }
    for (unsigned i = 0; i < w->conn_count; i++) {
        if (w->phase->ws) {
            put_frame(&w->conns[i], WS_CLOSE, "\x03\xe8", 2); /* 1000: done */
            conn_flush(&w->conns[i]);
        }
        close(w->conns[i].fd);
        free(w->conns[i].in.data);
        free(w->conns[i].out.data);
    }
    close(w->epoll);
    free(w->conns);
    free(w->body.data);
    return NULL;
}

/* Serve events until then, or until done says so. */
static void worker_loop(struct worker *w, int64_t until_ns, bool (*done)(const struct worker *w))
{
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int64_t now = mono_ns(), left = until_ns - now;
        if (left < 0 || (done != NULL && done(w))) return;
        if (left > 20000000) left = 20000000;
        if (w->pace_ns > 0 && start_due(w, now)) left = 0;
        if (w->pace_ns > 0 && w->due_ns > now && w->due_ns - now < left) left = w->due_ns - now;
        struct timespec wait = {.tv_nsec = left};
        int count = epoll_pwait2(w->epoll, events, EVENTS_MAX, &wait, NULL);
        if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) != 0) conn_flush(c);
            if ((events[i].events & ~(unsigned)EPOLLOUT) != 0) conn_read(c);
        }
    }
}

/* Give operations that are due to connections that have nothing to do. */
static bool start_due(struct worker *w, int64_t now)
{
    bool any = false;
    for (unsigned i = 0; i < w->conn_count && w->due_ns <= now && !w->closing; i++) {
        struct conn *c = &w->conns[w->turn++ % w->conn_count];
        if (c->flight_count > 0) continue;
        conn_send_next(c);
        any = true;
    }
    return any;
}

static bool all_ready(const struct worker *w)
{
    for (unsigned i = w->conn_count; i > 0; i--)
        if (w->conns[i - 1].state != CONN_READY) return false;
    return true;
}

static bool none_busy(const struct worker *w)
{
    return w->busy == 0;
}

static void conn_open(struct conn *c)
{
    const struct phase *p = c->worker->phase;
    int one = 1;
    c->fd = socket(p->target->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    if (connect(c->fd, (const struct sockaddr *)&p->target->addr, p->target->addr_size) != 0) {
        die("connect to %s: %s", p->target->authority, strerror(errno));
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(c->worker->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) die("epoll_ctl");
    c->mask = (uint32_t)rng_next(&c->worker->rng);
    c->in.size = c->in_start = c->out.size = c->out_start = 0;
    c->want_write = false;
    c->request_id = c->answered_id = 0;
    c->state = p->ws ? CONN_UPGRADE : CONN_READY;
    if (p->ws) {
        work_upgrade_head(c, &c->out);
        conn_flush(c);
    }
}

/* The connection ended; what was on its way has failed. */
static void conn_reopen(struct conn *c, const char *why)
{
    struct worker *w = c->worker;
    if (c->flight_count > 0) {
        w->errors += c->flight_count;
        w->busy--;
        work_failed(w, "connection", why, strlen(why));
    }
    if (c->state != CONN_READY) {
        die("%s: the connection ends during its handshake: %s", w->phase->target->authority, why);
    }
    w->reconnects++;
    c->flight_count = 0;
    memset(c->flights, 0, sizeof c->flights);
    close(c->fd);
    work_broken(c);
    conn_open(c);
    if (c->state == CONN_READY) conn_send_next(c);
}

/* Fill the connection up with requests. After the window only what ends a transaction is sent. */
static void conn_send_next(struct conn *c)
{
    struct worker *w = c->worker;
    bool was_busy = c->flight_count > 0;
    if (w->phase->mode == LOAD_HOLD) return;
    while (c->flight_count < w->phase->depth && (!w->closing || c->step != 0)) {
        struct flight *f = &c->flights[(unsigned)(c->request_id + 1) % LOAD_DEPTH_MAX];
        bool starts = c->step == 0;
        if (starts && w->pace_ns > 0 && w->due_ns > mono_ns()) break;
        if (f->used || !work_next(c, f)) break;
        f->used = true;
        if (starts && w->pace_ns > 0) {
            /* From when it was due: an answer that comes late also delays those behind it. */
            f->op_start_ns = c->op_start_ns = w->due_ns;
            w->due_ns += w->pace_ns;
        }
        if (w->phase->ws) {
            put_frame(c, WS_TEXT, w->body.data, w->body.size);
        } else {
            work_http_head(c, &c->out);
            bytes_put(&c->out, w->body.data, w->body.size);
        }
        c->flight_count++;
    }
    if (!was_busy && c->flight_count > 0) w->busy++;
    conn_flush(c);
}

static void conn_flush(struct conn *c)
{
    while (c->out_start < c->out.size) {
        ssize_t sent = send(c->fd, c->out.data + c->out_start, c->out.size - c->out_start,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) {
            /* A broken connection shows when it is read. */
            if (errno == EAGAIN) conn_watch(c, true);
            return;
        }
        c->out_start += (size_t)sent;
    }
    c->out_start = c->out.size = 0;
    conn_watch(c, false);
}

static void conn_watch(struct conn *c, bool want_write)
{
    if (c->want_write == want_write) return;
    struct epoll_event event = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(c->worker->epoll, EPOLL_CTL_MOD, c->fd, &event) != 0) die("epoll_ctl");
    c->want_write = want_write;
}

static void conn_read(struct conn *c)
{
    bytes_room(&c->in, READ_SIZE);
    ssize_t got = recv(c->fd, c->in.data + c->in.size, c->in.cap - c->in.size, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        conn_reopen(c, got < 0 ? strerror(errno) : "closed by the server");
        return;
    }
    c->in.size += (size_t)got;
    struct answer a;
    while (c->in_start < c->in.size) {
        bool ws = c->worker->phase->ws && c->state != CONN_UPGRADE;
        a = (struct answer){.status = 200};
        enum found found = ws ? find_frame(c, &a) : find_http(c, &a);
        if (found == FOUND_BAD || c->in.size - c->in_start > LOAD_ANSWER_MAX) {
            conn_reopen(c, "an answer that is no HTTP or WebSocket, or too long");
            return;
        }
        if (found == FOUND_PART) break;
        c->in_start += a.consumed;
        if (!conn_take(c, &a)) return;
    }
    if (c->in_start > 0) {
        memmove(c->in.data, c->in.data + c->in_start, c->in.size - c->in_start);
        c->in.size -= c->in_start;
        c->in_start = 0;
    }
    if (c->state == CONN_READY) conn_send_next(c);
}

/* False: the connection was opened anew. */
static bool conn_take(struct conn *c, struct answer *a)
{
    if (a->opcode == WS_PING) {
        put_frame(c, WS_PONG, a->body, a->size);
        conn_flush(c);
        return true;
    }
    if (a->opcode == WS_PONG) return true;
    if (a->opcode == WS_CLOSE) {
        char why[128];
        snprintf(why, sizeof why, "closed with %.*s", a->size > 2 ? (int)a->size - 2 : 0,
                 a->body + (a->size > 2 ? 2 : 0));
        conn_reopen(c, why);
        return false;
    }
    if (c->state != CONN_READY) return conn_shake_hands(c, a);
    struct flight *f = conn_flight_of(c, a);
    if (!f->used) {
        conn_reopen(c, "an answer that nobody asked for");
        return false;
    }
    conn_answered(c, f, a);
    if (a->close) conn_reopen(c, "closed by the server");
    return !a->close;
}

static bool conn_shake_hands(struct conn *c, const struct answer *a)
{
    bool ok = a->status == 101;
    if (c->state == CONN_HELLO) ok = memmem(a->body, a->size, "hello_ok", 8) != NULL;
    if (c->state == CONN_STREAM) ok = memmem(a->body, a->size, "response_ok", 11) != NULL;
    if (!ok) {
        die("%s: the handshake of Hrana fails: status %d, %.*s", c->worker->phase->target->host,
            a->status, a->size > 200 ? 200 : (int)a->size, a->body);
    }
    if (c->state == CONN_UPGRADE) {
        char hello[LOAD_TOKEN_MAX + 64];
        const char *token = c->worker->phase->opts->token, *quote = token != NULL ? "\"" : "";
        snprintf(hello, sizeof hello, "{\"type\":\"hello\",\"jwt\":%s%s%s}", quote,
                 token != NULL ? token : "null", quote);
        conn_say(c, hello);
        c->state = CONN_HELLO;
    } else if (c->state == CONN_HELLO) {
        conn_say(c, "{\"type\":\"request\",\"request_id\":0,\"request\":"
                    "{\"type\":\"open_stream\",\"stream_id\":1}}");
        c->state = CONN_STREAM;
    } else {
        c->state = CONN_READY;
    }
    return true;
}

static void conn_say(struct conn *c, const char *text)
{
    put_frame(c, WS_TEXT, text, strlen(text));
    conn_flush(c);
}

/* Answers of a WebSocket may come in any order. */
static struct flight *conn_flight_of(struct conn *c, const struct answer *a)
{
    static const char key[] = "\"request_id\":";
    int32_t id = ++c->answered_id;
    if (c->worker->phase->ws) {
        const char *at = memmem(a->body, a->size, key, sizeof key - 1);
        id = at != NULL ? (int32_t)strtol(at + sizeof key - 1, NULL, 10) : -1;
    }
    return &c->flights[(uint32_t)id % LOAD_DEPTH_MAX];
}

static void conn_answered(struct conn *c, struct flight *f, const struct answer *a)
{
    struct worker *w = c->worker;
    int64_t now = mono_ns();
    bool ok = work_answer(c, f, a->status, a->body, a->size);
    bool counts = now >= w->from_ns && now < w->to_ns;
    f->used = false;
    if (--c->flight_count == 0) w->busy--;
    if (!ok) w->errors++;
    if (!counts || !ok || f->may_fail) return;
    w->trips++;
    if (!f->ends_op) return;
    w->ops++;
    hist_add(&w->hist, (uint64_t)(now - f->op_start_ns));
}

static enum found find_http(struct conn *c, struct answer *a)
{
    char *start = c->in.data + c->in_start;
    size_t size = c->in.size - c->in_start, length = 0;
    char *end = memmem(start, size, "\r\n\r\n", 4);
    bool chunked = false;
    if (end == NULL) return FOUND_PART;
    if (size < 13 || memcmp(start, "HTTP/1.", 7) != 0) return FOUND_BAD;
    a->status = (start[9] - '0') * 100 + (start[10] - '0') * 10 + (start[11] - '0');
    for (char *line = memchr(start, '\n', size); line != NULL && line < end;
         line = memchr(line, '\n', size - (size_t)(line - start))) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            length = strtoul(line + 15, NULL, 10); /* stops at the line's end at the latest */
        } else if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) {
            chunked = true;
        } else if (strncasecmp(line, "connection: close", 17) == 0) {
            a->close = true;
        }
    }
    a->body = end + 4;
    size_t head = (size_t)(a->body - start);
    if (chunked) {
        enum found found = find_chunked(a->body, size - head, a);
        a->consumed += head;
        return found;
    }
    if (a->status == 101) length = 0; /* sqld announces a body here, but sends none */
    if (length > LOAD_ANSWER_MAX) return FOUND_BAD;
    if (size - head < length) return FOUND_PART;
    a->size = length;
    a->consumed = head + length;
    return FOUND_WHOLE;
}

/* The chunks are pushed together, but only once all of them are there. */
static enum found find_chunked(char *body, size_t size, struct answer *a)
{
    for (int move = 0; move < 2; move++) {
        size_t at = 0;
        a->size = 0;
        for (;;) {
            char *line = memmem(body + at, size - at, "\r\n", 2);
            if (line == NULL) return FOUND_PART;
            size_t length = strtoul(body + at, NULL, 16);
            size_t head = (size_t)(line - body) - at + 2;
            if (length > LOAD_ANSWER_MAX) return FOUND_BAD;
            if (size - at < head + length + 2) return FOUND_PART;
            if (move == 1) memmove(body + a->size, body + at + head, length);
            a->size += length;
            at += head + length + 2;
            if (length == 0) break;
        }
        a->consumed = at;
    }
    return FOUND_WHOLE;
}

static enum found find_frame(struct conn *c, struct answer *a)
{
    char *at = c->in.data + c->in_start;
    size_t size = c->in.size - c->in_start, head = 2;
    if (size < 2) return FOUND_PART;
    uint8_t first = (uint8_t)at[0], second = (uint8_t)at[1];
    uint64_t length = second & 127u;
    if ((first & 0xf0) != 0x80 || second > 127) return FOUND_BAD; /* in parts, or masked */
    if (length == 126) head = 4;
    if (length == 127) head = 10;
    if (size < head) return FOUND_PART;
    if (head > 2) length = 0;
    for (size_t i = 2; i < head; i++)
        length = length << 8 | (uint8_t)at[i];
    if (length > LOAD_ANSWER_MAX) return FOUND_BAD;
    if (size - head < length) return FOUND_PART;
    *a = (struct answer){.status = 200,
                         .opcode = first & 15,
                         .body = at + head,
                         .size = length,
                         .consumed = head + length};
    return FOUND_WHOLE;
}

static void put_frame(struct conn *c, uint8_t opcode, const char *data, size_t size)
{
    struct bytes *out = &c->out;
    bytes_room(out, size + 14);
    uint8_t head[14], *p = head;
    *p++ = (uint8_t)(0x80 | opcode);
    if (size > UINT16_MAX) die("a request of %zu bytes", size);
    if (size < 126) {
        *p++ = (uint8_t)(0x80 | size);
    } else {
        *p++ = 0x80 | 126;
        *p++ = (uint8_t)(size >> 8);
        *p++ = (uint8_t)size;
    }
    memcpy(p, &c->mask, 4);
    p += 4;
    bytes_put(out, head, (size_t)(p - head));
    char *to = out->data + out->size;
    size_t i = 0;
    for (; i + 4 <= size; i += 4) {
        uint32_t word;
        memcpy(&word, data + i, 4);
        word ^= c->mask;
        memcpy(to + i, &word, 4);
    }
    for (; i < size; i++)
        to[i] = (char)(data[i] ^ (char)(c->mask >> (i % 4 * 8)));
    out->size += size;
}
