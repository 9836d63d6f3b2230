/*
 * ws.c -- see ws.h. Threads with an epoll each; a connection belongs to one of them.
 *
 *   socket ──► receive ──► ws_read ──► message()        on the connection's thread only
 *                 ▲           │ held back: stash
 *   ws_send ──► socket        ▼
 *      └──► out queue ──► flush (EPOLLOUT) ──► settle: over? ──► closed()
 *
 * What other threads may touch of a connection is guarded by its lock: the out queue, the flags and
 * what epoll is asked for. Whoever changes something that the connection's thread must look at puts
 * it on that thread's list (post) and rings its eventfd. Order of locks: connection, then thread;
 * none is held during a call out.
 *
 * The end: our close goes out and the client's comes in, in either order, or CLOSE_MS pass. A
 * client that broke the rules is not listened to any more; its bytes are drained until it hangs up,
 * because closing a socket with unread bytes would reset it, and our close with the reason with it.
 */
#include "server/ws.h"
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include "base/bytes.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/ws_read.h"

#define THREADS_MAX 64
#define EVENTS_MAX  64    /* of one epoll_wait */
#define IN_SIZE     65536 /* bytes of one recv */
#define IOV_MAX_OUT 16
#define CLOSE_MS    3000 /* for the closing handshake, and for each step of output before it */
#define REASON_MAX  120
#define HEAD_MAX    10
#define NEVER       INT64_C(-1)

struct out { /* a frame, or what the socket did not take of it */
    struct out *next;
    size_t size, at;
    bool begun;
    uint8_t data[];
};

struct stash { /* bytes that came and could not be delivered, from `at` on */
    size_t size, at;
    uint8_t data[];
};

/* Connections in the order in which their time comes: all of a queue wait equally long. */
struct queue {
    struct ws_conn *first, *last;
    int64_t limit_ms; /* NEVER */
};

struct hub_thread {
    struct ws_hub *hub;
    pthread_t id;
    int epoll, bell;
    atomic_uint count;
    /* its own */
    struct queue quiet, pinged, ending;
    int64_t now_ms, stop_ms; /* stop_ms: 0, or when all must have ended */
    struct ws_parts parts;
    uint8_t in[IN_SIZE];
    /* guarded by lock */
    pthread_mutex_t lock;
    struct ws_conn *todo;
};

struct ws_hub {
    size_t send_max;
    unsigned conn_max, thread_count;
    int64_t stop_wait_ms;
    atomic_bool stop;
    atomic_uint count;
    atomic_size_t message_sum;
    struct hub_thread *threads[THREADS_MAX];
};

struct ws_conn { /* as small as can be: most of them wait */
    struct hub_thread *home;
    const struct ws_events *events;
    void *ctx;
    int fd;
    atomic_uint refs;
    /* of the home thread */
    struct queue *queue; /* NULL: not seen yet */
    struct ws_conn *prev, *next;
    int64_t since_ms;
    struct ws_reader reader;
    struct stash *stash; /* NULL: nothing is held back */
    /* guarded by lock */
    pthread_mutex_t lock;
    struct out *out_first, *out_last;
    size_t out_size;
    struct ws_conn *todo_next; /* guarded by home->lock */
    unsigned pauses;
    uint32_t interest; /* what epoll is asked for */
    bool listed;       /* on home's list */
    bool choked;       /* the client leaves too much untaken */
    bool held;         /* the home thread stopped delivering: it must be told to go on */
    bool closing;      /* our close is sent or queued: nothing may follow */
    bool got_close;
    bool drain; /* bytes that come mean nothing any more */
    bool shut;
    bool broken; /* to be ended at once */
    bool dead;
};

enum take {
    HOLD,  /* not now */
    DROP,  /* they mean nothing */
    PARSE, /* only a close is of interest */
    DELIVER
};

static _Thread_local struct hub_thread *here; /* whose thread this is; NULL: nobody's */

static enum rc thread_new(struct ws_hub *h, const struct ws_opts *opts, struct err *err);
static void thread_free(struct hub_thread *t);
static void *thread_main(void *arg);
static void ring(struct hub_thread *t);
static int wait_ms(struct hub_thread *t);
static bool all_over(struct hub_thread *t);
static void todo_run(struct hub_thread *t);
static void close_all(struct hub_thread *t);
static void timeouts(struct hub_thread *t);
static bool due(const struct hub_thread *t, const struct queue *q);
static bool ping(struct ws_conn *c);
static bool waits_for_us(struct ws_conn *c);
static void on_event(struct hub_thread *t, struct ws_conn *c, uint32_t events);
static void receive(struct hub_thread *t, struct ws_conn *c);
static bool unstash(struct hub_thread *t, struct ws_conn *c);
static enum rc stash(struct ws_conn *c, const void *data, size_t size, struct err *err);
static size_t pump(struct hub_thread *t, struct ws_conn *c, const uint8_t *data, size_t size);
static enum take takes(struct ws_conn *c);
static void handle(struct ws_conn *c, const struct ws_event *ev, bool deliver);
static void settle(struct hub_thread *t, struct ws_conn *c);
static void end(struct hub_thread *t, struct ws_conn *c);
static void move(struct hub_thread *t, struct ws_conn *c, struct queue *q);
static void unlink_conn(struct ws_conn *c);
static bool reads_locked(const struct ws_conn *c);
static void sync_locked(struct ws_conn *c);
static void post_locked(struct ws_conn *c);
static void close_locked(struct ws_conn *c, unsigned code, const char *reason);
static void overflow_locked(struct ws_conn *c);
static enum rc put_locked(struct ws_conn *c, unsigned opcode, const void *data, size_t size,
                          struct err *err);
static bool flush_locked(struct ws_conn *c);
static int64_t send_locked(struct ws_conn *c, struct iovec *iov, size_t count);
static size_t head_make(uint8_t head[HEAD_MAX], unsigned opcode, size_t size);
static struct hub_thread *thread_pick(struct ws_hub *h);

enum rc ws_hub_new(const struct ws_opts *opts, struct ws_hub **ret_h, struct err *err)
{
    struct ws_hub *h = mem_calloc(1, sizeof *h);
    if (h == NULL) return err_mem(err, "the WebSocket hub");
    unsigned threads = opts->threads > 0 ? opts->threads : (unsigned)os_cpu_count();
    h->send_max = opts->send_max > 0 ? opts->send_max : (size_t)1 << 20;
    h->conn_max = opts->conn_max > 0 ? opts->conn_max : 100000;
    enum rc rc = RC_OK;
    while (rc == RC_OK && h->thread_count < threads && h->thread_count < THREADS_MAX)
        rc = thread_new(h, opts, err);
    if (rc != RC_OK) {
        ws_hub_free(h, 0);
        return rc;
    }
    *ret_h = h;
    return RC_OK;
}

void ws_hub_free(struct ws_hub *h, int64_t wait_ms)
{
    if (h == NULL) return;
    h->stop_wait_ms = wait_ms;
    atomic_store(&h->stop, true);
    for (unsigned i = 0; i < h->thread_count; i++)
        ring(h->threads[i]);
    for (unsigned i = 0; i < h->thread_count; i++) {
        pthread_join(h->threads[i]->id, NULL);
        thread_free(h->threads[i]);
    }
    mem_free(h);
}

size_t ws_hub_count(const struct ws_hub *h)
{
    return atomic_load(&h->count);
}

enum rc ws_add(struct ws_hub *h, int fd, const void *extra, size_t extra_size,
               const struct ws_events *events, void *ctx, struct ws_conn **ret_c, struct err *err)
{
    const int on = 1;
    if (atomic_fetch_add(&h->count, 1) >= h->conn_max) {
        atomic_fetch_sub(&h->count, 1);
        return err_set(err, RC_BUSY, "too many WebSocket connections (%u)", h->conn_max);
    }
    struct hub_thread *t = thread_pick(h);
    struct ws_conn *c = mem_calloc(1, sizeof *c);
    enum rc rc = c == NULL ? err_mem(err, "a WebSocket connection") : RC_OK;
    if (rc == RC_OK && extra_size > 0) rc = stash(c, extra, extra_size, err);
    if (rc == RC_OK) {
        c->home = t;
        c->events = events;
        c->ctx = ctx;
        c->fd = fd;
        atomic_store(&c->refs, ret_c != NULL ? 2 : 1);
        pthread_mutex_init(&c->lock, NULL);
        /* Both are hints; a socket that is not TCP has neither. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        struct epoll_event ev = {.data.ptr = c};
        /* The lock keeps the home thread waiting, should the socket have failed already. */
        thr_lock(&c->lock);
        bool fails = fault_hit(FAULT_SYSCALL, "epoll_ctl") && (errno = EIO);
        if (fails || epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &ev) != 0) {
            rc = errno == ENOSPC ? err_set(err, RC_BUSY, "fs.epoll.max_user_watches are in use")
                                 : err_sys(err, errno, "watch a WebSocket");
        } else {
            atomic_fetch_add(&t->count, 1);
            if (ret_c != NULL) *ret_c = c;
            post_locked(c);
        }
        thr_unlock(&c->lock);
        if (rc == RC_OK) return RC_OK;
        pthread_mutex_destroy(&c->lock);
    }
    if (c != NULL) mem_free(c->stash);
    mem_free(c);
    atomic_fetch_sub(&h->count, 1);
    return rc;
}

void ws_ref(struct ws_conn *c)
{
    atomic_fetch_add(&c->refs, 1);
}

void ws_unref(struct ws_conn *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) > 1) return;
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

enum rc ws_send(struct ws_conn *c, bool binary, const void *data, size_t size, struct err *err)
{
    enum rc rc;
    thr_lock(&c->lock);
    if (c->closing || c->broken || c->dead) {
        rc = err_set(err, RC_CANCELED, "the WebSocket is closed");
    } else if (c->out_size / 4 > c->home->hub->send_max) {
        overflow_locked(c);
        rc = err_set(err, RC_CANCELED, "the WebSocket's client does not take its messages");
    } else {
        rc = put_locked(c, binary ? WS_BINARY : WS_TEXT, data, size, err);
    }
    if (c->broken) post_locked(c);
    sync_locked(c);
    thr_unlock(&c->lock);
    return rc;
}

void ws_close(struct ws_conn *c, unsigned code, const char *reason)
{
    thr_lock(&c->lock);
    if (!c->dead && !c->closing) {
        close_locked(c, code, reason);
        post_locked(c);
        sync_locked(c);
    }
    thr_unlock(&c->lock);
}

void ws_pause(struct ws_conn *c)
{
    thr_lock(&c->lock);
    c->pauses++;
    sync_locked(c);
    thr_unlock(&c->lock);
}

void ws_resume(struct ws_conn *c)
{
    thr_lock(&c->lock);
    ASSERT(c->pauses > 0);
    c->pauses--;
    if (c->pauses == 0 && c->held) post_locked(c);
    sync_locked(c);
    thr_unlock(&c->lock);
}

enum rc ws_accept_key(const char *key, char out[WS_ACCEPT_SIZE], struct err *err)
{
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t digest[SHA_DIGEST_LENGTH];
    char text[24 + sizeof guid];
    /* 16 bytes: 22 characters, of which the last has four bits to spare, and "==". */
    if (strspn(key, base64) != 22 || strcmp(key + 22, "==") != 0)
        return err_set(err, RC_INVALID, "Sec-WebSocket-Key is not 16 bytes in base64");
    snprintf(text, sizeof text, "%s%s", key, guid);
    if (SHA1((const uint8_t *)text, strlen(text), digest) == NULL) return err_mem(err, "a digest");
    EVP_EncodeBlock((uint8_t *)out, digest, sizeof digest);
    return RC_OK;
}

/* ---- Threads ---- */

static enum rc thread_new(struct ws_hub *h, const struct ws_opts *opts, struct err *err)
{
    struct hub_thread *t = mem_calloc(1, sizeof *t);
    if (t == NULL) return err_mem(err, "a thread of the WebSocket hub");
    t->hub = h;
    t->quiet.limit_ms = t->pinged.limit_ms = opts->ping_ms > 0 ? opts->ping_ms : NEVER;
    t->ending.limit_ms = CLOSE_MS;
    t->parts.message_max = opts->message_max > 0 ? opts->message_max : (size_t)64 << 20;
    t->parts.sum_max = opts->message_sum_max > 0 ? opts->message_sum_max : (size_t)512 << 20;
    t->parts.sum = &h->message_sum;
    pthread_mutex_init(&t->lock, NULL);
    bool fails = fault_hit(FAULT_SYSCALL, "epoll_create") && (errno = EMFILE);
    t->epoll = fails ? -1 : epoll_create1(EPOLL_CLOEXEC);
    t->bell = t->epoll < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN};
    enum rc rc = RC_OK;
    if (t->bell < 0 || epoll_ctl(t->epoll, EPOLL_CTL_ADD, t->bell, &ev) != 0)
        rc = err_sys(err, errno, "prepare a thread of the WebSocket hub");
    if (rc == RC_OK) rc = thr_start(&t->id, "ws", thread_main, t, err);
    if (rc != RC_OK) {
        thread_free(t);
        return rc;
    }
    h->threads[h->thread_count++] = t;
    return RC_OK;
}

static void thread_free(struct hub_thread *t)
{
    os_close(t->epoll);
    os_close(t->bell);
    ws_parts_fini(&t->parts);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

static void *thread_main(void *arg)
{
    struct hub_thread *t = here = arg;
    struct epoll_event ev[EVENTS_MAX];
    uint64_t ignored;
    while (!all_over(t)) {
        int n = epoll_wait(t->epoll, ev, EVENTS_MAX, wait_ms(t));
        t->now_ms = os_mono_ms();
        for (int i = 0; i < n; i++)
            if (ev[i].data.ptr == NULL)
                (void)os_read_some(t->bell, &ignored, sizeof ignored);
            else
                on_event(t, ev[i].data.ptr, ev[i].events);
        /* In this order: connections that were added before the stop are on the list. */
        bool stop = atomic_load(&t->hub->stop);
        todo_run(t);
        if (stop && t->stop_ms == 0) close_all(t);
        timeouts(t);
    }
    return NULL;
}

static void ring(struct hub_thread *t)
{
    const uint64_t one = 1;
    /* A full one rings already; nothing else can fail, but for a test's sake. */
    for (int i = 0; i < 3; i++)
        if (os_write_some(t->bell, &one, sizeof one) > 0) return;
}

static int wait_ms(struct hub_thread *t)
{
    const struct queue *queues[] = {&t->quiet, &t->pinged, &t->ending};
    int64_t until = INT64_MAX;
    thr_lock(&t->lock);
    bool todo = t->todo != NULL;
    thr_unlock(&t->lock);
    if (todo) return 0;
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++) {
        const struct queue *q = queues[i];
        if (q->first == NULL || q->limit_ms == NEVER) continue;
        if (q->first->since_ms + q->limit_ms < until) until = q->first->since_ms + q->limit_ms;
    }
    if (t->stop_ms != 0 && t->stop_ms < until) until = t->stop_ms;
    if (until == INT64_MAX) return -1;
    int64_t left = until - os_mono_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static bool all_over(struct hub_thread *t)
{
    if (t->stop_ms == 0) return false;
    thr_lock(&t->lock);
    bool todo = t->todo != NULL;
    thr_unlock(&t->lock);
    return !todo && t->quiet.first == NULL && t->pinged.first == NULL && t->ending.first == NULL;
}

/* Look at connections that other threads, or `message`, have changed. */
static void todo_run(struct hub_thread *t)
{
    thr_lock(&t->lock);
    struct ws_conn *c = t->todo, *next;
    t->todo = NULL;
    thr_unlock(&t->lock);
    for (; c != NULL; c = next) {
        next = c->todo_next;
        thr_lock(&c->lock);
        c->listed = false;
        bool dead = c->dead;
        thr_unlock(&c->lock);
        if (!dead) on_event(t, c, 0);
        ws_unref(c);
    }
}

/* The server stops. */
static void close_all(struct hub_thread *t)
{
    struct queue *queues[] = {&t->quiet, &t->pinged};
    t->stop_ms = t->now_ms + t->hub->stop_wait_ms;
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++)
        for (struct ws_conn *c = queues[i]->first; c != NULL; c = c->next)
            ws_close(c, 1001, "the server stops");
}

static void timeouts(struct hub_thread *t)
{
    struct ws_conn *c;
    while (due(t, &t->quiet)) {
        c = t->quiet.first;
        move(t, c, ping(c) ? &t->pinged : &t->quiet);
        settle(t, c);
    }
    while (due(t, &t->pinged)) {
        c = t->pinged.first;
        if (waits_for_us(c))
            move(t, c, &t->quiet);
        else
            end(t, c);
    }
    while (due(t, &t->ending))
        end(t, t->ending.first);
    if (t->stop_ms == 0 || t->now_ms < t->stop_ms) return;
    struct queue *queues[] = {&t->quiet, &t->pinged, &t->ending};
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++)
        while (queues[i]->first != NULL)
            end(t, queues[i]->first);
}

static bool due(const struct hub_thread *t, const struct queue *q)
{
    if (q->first == NULL || q->limit_ms == NEVER) return false;
    return t->now_ms - q->first->since_ms >= q->limit_ms;
}

/* Ask a silent client whether it lives. False: the silence is ours. */
static bool ping(struct ws_conn *c)
{
    struct err ignored;
    if (waits_for_us(c)) return false;
    thr_lock(&c->lock);
    /* Behind bytes that it does not take, a ping would prove nothing more than they do. */
    if (c->out_first == NULL && !c->closing &&
        put_locked(c, WS_PING, NULL, 0, &ignored) == RC_NO_MEM)
        c->broken = true;
    thr_unlock(&c->lock);
    return true;
}

/* We do not read what it may have said, and it takes what we say. */
static bool waits_for_us(struct ws_conn *c)
{
    thr_lock(&c->lock);
    bool waits = c->pauses > 0 && c->out_first == NULL;
    thr_unlock(&c->lock);
    return waits;
}

/* ---- A connection, on its home thread ---- */

static void on_event(struct hub_thread *t, struct ws_conn *c, uint32_t events)
{
    const uint32_t away = EPOLLHUP | EPOLLRDHUP;
    bool moves = false;
    thr_lock(&c->lock);
    if (events & EPOLLOUT) moves = flush_locked(c);
    bool reads = reads_locked(c);
    /* Without reading there is no end of input to be met, so this has to do. A client that only
     * leaves our bytes untaken may have shut down its side before. */
    bool gone = (events & EPOLLHUP) || ((events & EPOLLRDHUP) && c->pauses > 0);
    if ((events & EPOLLERR) || (gone && !reads)) c->broken = true;
    bool broken = c->broken;
    thr_unlock(&c->lock);
    if (c->queue == NULL) move(t, c, &t->quiet);
    /* Bytes taken are a sign of life, but they do not keep off the end of the server. */
    if (moves && c->queue != &t->ending) move(t, c, &t->quiet);
    if (moves && c->queue == &t->ending && t->stop_ms == 0) move(t, c, &t->ending);
    if (!broken && unstash(t, c) && (events & (EPOLLIN | away))) receive(t, c);
    settle(t, c);
}

static void receive(struct hub_thread *t, struct ws_conn *c)
{
    struct err ignored;
    thr_lock(&c->lock);
    bool reads = reads_locked(c);
    thr_unlock(&c->lock);
    if (!reads) return;
    ssize_t n = -1;
    if (fault_hit(FAULT_SYSCALL, "recv"))
        errno = ECONNRESET;
    else
        n = recv(c->fd, t->in, sizeof t->in, MSG_DONTWAIT);
    bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    if (later) return;
    size_t left = 0;
    bool broken = n <= 0;
    if (n > 0) {
        if (c->queue != &t->ending) move(t, c, &t->quiet);
        left = pump(t, c, t->in, (size_t)n);
    }
    if (left > 0 && stash(c, t->in + ((size_t)n - left), left, &ignored) != RC_OK) broken = true;
    if (!broken) return;
    thr_lock(&c->lock);
    c->broken = true;
    thr_unlock(&c->lock);
}

/* Deliver what was held back. False: something is held back still. */
static bool unstash(struct hub_thread *t, struct ws_conn *c)
{
    struct stash *s = c->stash;
    if (s != NULL) {
        s->at = s->size - pump(t, c, s->data + s->at, s->size - s->at);
        if (s->at == s->size) {
            c->stash = NULL;
            mem_free(s);
        }
    } else if (c->reader.frames != NULL) {
        (void)pump(t, c, NULL, 0);
    }
    /* It may have been resumed just now: what is held back still comes first. */
    return c->stash == NULL && takes(c) != HOLD;
}

/* Hold bytes back; nothing is yet. */
static enum rc stash(struct ws_conn *c, const void *data, size_t size, struct err *err)
{
    ASSERT(c->stash == NULL);
    struct stash *s = mem_alloc(sizeof *s + size);
    if (s == NULL) return err_mem(err, "bytes of a WebSocket");
    *s = (struct stash){.size = size};
    memcpy(s->data, data, size);
    c->stash = s;
    return RC_OK;
}

/* Take messages out of bytes and deliver them, until there are no more or they must wait. Returns
 * how many bytes are left, at the end of data. */
static size_t pump(struct hub_thread *t, struct ws_conn *c, const uint8_t *data, size_t size)
{
    struct ws_event ev = {.kind = WS_EV_MORE};
    enum take take;
    while ((take = takes(c)) != HOLD) {
        if (take == DROP) return 0;
        ws_reader_step(&c->reader, &t->parts, &data, &size, &ev);
        if (ev.kind == WS_EV_MORE) break;
        handle(c, &ev, take == DELIVER);
        if (ev.kind != WS_EV_BAD) continue;
        ws_reader_fini(&c->reader, &t->parts);
        return 0;
    }
    ws_reader_rest(&c->reader, &t->parts);
    return size;
}

/* What to do with bytes that come. After HOLD, whoever lifts it must tell the home thread. */
static enum take takes(struct ws_conn *c)
{
    thr_lock(&c->lock);
    bool reads = reads_locked(c);
    enum take take = !reads ? HOLD : c->drain ? DROP : c->closing ? PARSE : DELIVER;
    c->held = !reads;
    thr_unlock(&c->lock);
    return take;
}

static void handle(struct ws_conn *c, const struct ws_event *ev, bool deliver)
{
    struct err ignored;
    if (ev->kind == WS_EV_PONG) return;
    if (ev->kind == WS_EV_MESSAGE) {
        if (deliver) c->events->message(c->ctx, c, ev->binary, ev->data, ev->size);
        return;
    }
    thr_lock(&c->lock);
    if (ev->kind == WS_EV_PING) {
        if (!c->closing && put_locked(c, WS_PONG, ev->data, ev->size, &ignored) == RC_NO_MEM)
            c->broken = true;
    } else {
        c->got_close = ev->kind == WS_EV_CLOSE;
        c->drain = ev->kind == WS_EV_BAD;
        if (!c->closing) close_locked(c, ev->code, ev->why);
    }
    thr_unlock(&c->lock);
}

/* After anything that may have changed: is it over, and if not, what comes next? */
static void settle(struct hub_thread *t, struct ws_conn *c)
{
    thr_lock(&c->lock);
    bool sent = c->closing && c->out_first == NULL;
    if (sent && c->drain && !c->shut) {
        c->shut = true;
        if (shutdown(c->fd, SHUT_WR) != 0) c->broken = true;
    }
    bool over = c->broken || (sent && c->got_close), closing = c->closing;
    sync_locked(c);
    thr_unlock(&c->lock);
    if (over)
        end(t, c);
    else if (closing && c->queue != &t->ending)
        move(t, c, &t->ending);
}

static void end(struct hub_thread *t, struct ws_conn *c)
{
    thr_lock(&c->lock);
    c->dead = true;
    while (c->out_first != NULL) {
        struct out *o = c->out_first;
        c->out_first = o->next;
        mem_free(o);
    }
    c->out_last = NULL;
    c->out_size = 0;
    (void)epoll_ctl(t->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    thr_unlock(&c->lock);
    unlink_conn(c);
    ws_reader_fini(&c->reader, &t->parts);
    mem_free(c->stash);
    c->stash = NULL;
    os_close(c->fd);
    c->events->closed(c->ctx, c);
    atomic_fetch_sub(&t->count, 1);
    atomic_fetch_sub(&t->hub->count, 1);
    ws_unref(c);
}

/* To the end of q, whose time begins now. */
static void move(struct hub_thread *t, struct ws_conn *c, struct queue *q)
{
    if (c->queue != NULL) unlink_conn(c);
    c->since_ms = t->now_ms;
    c->queue = q;
    c->prev = q->last;
    c->next = NULL;
    if (q->last != NULL)
        q->last->next = c;
    else
        q->first = c;
    q->last = c;
}

static void unlink_conn(struct ws_conn *c)
{
    struct queue *q = c->queue;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        q->first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    else
        q->last = c->prev;
}

/* ---- A connection, under its lock, on any thread ---- */

static bool reads_locked(const struct ws_conn *c)
{
    if (c->closing) return !c->got_close;
    return c->pauses == 0 && !c->choked;
}

/* Ask epoll for what can be used now. */
static void sync_locked(struct ws_conn *c)
{
    struct epoll_event ev = {.data.ptr = c};
    if (c->dead) return;
    if (reads_locked(c))
        ev.events = EPOLLIN | EPOLLRDHUP;
    else if (!c->closing && c->pauses > 0)
        ev.events = EPOLLRDHUP;
    if (c->out_first != NULL) ev.events |= EPOLLOUT;
    if (ev.events == c->interest) return;
    if (epoll_ctl(c->home->epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0) {
        c->interest = ev.events;
    } else {
        c->broken = true;
        post_locked(c);
    }
}

/* Have the home thread look at the connection. */
static void post_locked(struct ws_conn *c)
{
    struct hub_thread *t = c->home;
    if (c->listed || c->dead) return;
    c->listed = true;
    ws_ref(c);
    thr_lock(&t->lock);
    bool first = t->todo == NULL;
    c->todo_next = t->todo;
    t->todo = c;
    thr_unlock(&t->lock);
    if (first && t != here) ring(t);
}

/* code 0: without one. */
static void close_locked(struct ws_conn *c, unsigned code, const char *reason)
{
    struct err ignored;
    uint8_t data[2 + REASON_MAX];
    size_t size = 0;
    if (code != 0) {
        size = reason == NULL ? 0 : strnlen(reason, REASON_MAX + 1);
        if (size > REASON_MAX) /* between two characters */
            for (size = REASON_MAX; size > 0 && ((uint8_t)reason[size] & 0xc0) == 0x80;)
                size--;
        /* A client would fail over the reason instead of reading it. */
        if (size > 0 && !ws_utf8_valid((const uint8_t *)reason, size)) size = 0;
        put_be16(data, (uint16_t)code);
        if (size > 0) memcpy(data + 2, reason, size);
        size += 2;
    }
    c->closing = true;
    if (put_locked(c, WS_CLOSE, data, size, &ignored) == RC_NO_MEM) c->broken = true;
}

/* The client takes too little: all that it has not begun to take is dropped. */
static void overflow_locked(struct ws_conn *c)
{
    struct out *o = c->out_first, *keep = o != NULL && o->begun ? o : NULL, *next;
    for (o = keep != NULL ? keep->next : o; o != NULL; o = next) {
        next = o->next;
        c->out_size -= o->size - o->at;
        mem_free(o);
    }
    c->out_first = c->out_last = keep;
    if (keep != NULL) keep->next = NULL;
    close_locked(c, 1008, "the client does not take its messages");
    post_locked(c);
}

/* Send a frame as far as the socket takes it, and keep the rest. */
static enum rc put_locked(struct ws_conn *c, unsigned opcode, const void *data, size_t size,
                          struct err *err)
{
    uint8_t head[HEAD_MAX];
    size_t head_size = head_make(head, opcode, size), sent = 0;
    if (c->out_first == NULL) {
        struct iovec iov[] = {{head, head_size}, {(void *)(uintptr_t)data, size}};
        int64_t n = send_locked(c, iov, size > 0 ? 2 : 1);
        if (n < 0) return err_set(err, RC_CANCELED, "the WebSocket's client has gone");
        sent = (size_t)n;
        if (sent == head_size + size) return RC_OK;
    }
    size_t head_left = sent < head_size ? head_size - sent : 0;
    size_t from = sent < head_size ? 0 : sent - head_size;
    struct out *o = mem_alloc(sizeof *o + head_left + size - from);
    if (o == NULL) {
        /* Half a frame is out, and nothing can follow it but the other half. */
        if (sent > 0) c->broken = true;
        return err_mem(err, "a WebSocket message");
    }
    *o = (struct out){.size = head_left + size - from, .begun = sent > 0};
    if (head_left > 0) memcpy(o->data, head + head_size - head_left, head_left);
    if (size > from) memcpy(o->data + head_left, (const uint8_t *)data + from, size - from);
    if (c->out_last != NULL)
        c->out_last->next = o;
    else
        c->out_first = o;
    c->out_last = o;
    c->out_size += o->size;
    if (c->out_size > c->home->hub->send_max) c->choked = true;
    return RC_OK;
}

/* Send what is queued. Returns whether the client took anything. */
static bool flush_locked(struct ws_conn *c)
{
    size_t before = c->out_size;
    while (c->out_first != NULL) {
        struct iovec iov[IOV_MAX_OUT];
        size_t count = 0, want = 0;
        for (struct out *o = c->out_first; o != NULL && count < IOV_MAX_OUT; o = o->next) {
            iov[count++] = (struct iovec){o->data + o->at, o->size - o->at};
            want += o->size - o->at;
        }
        int64_t n = send_locked(c, iov, count);
        if (n <= 0) break;
        size_t sent = (size_t)n;
        c->out_size -= sent;
        for (struct out *o; (o = c->out_first) != NULL && sent >= o->size - o->at;) {
            sent -= o->size - o->at;
            c->out_first = o->next;
            mem_free(o);
        }
        if (c->out_first == NULL) {
            c->out_last = NULL;
        } else if (sent > 0) {
            c->out_first->at += sent;
            c->out_first->begun = true;
        }
        if ((size_t)n < want) break;
    }
    if (c->out_size <= c->home->hub->send_max / 2) c->choked = false;
    return c->out_size < before;
}

/* How many bytes the socket took, 0 when it is full, -1 when it is broken. */
static int64_t send_locked(struct ws_conn *c, struct iovec *iov, size_t count)
{
    const struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n = -1;
    if (fault_hit(FAULT_SYSCALL, "sendmsg")) {
        errno = ECONNRESET;
    } else {
        do
            n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
    }
    if (n >= 0) return n;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    c->broken = true;
    return -1;
}

/* A frame of ours: whole, not masked. Returns the size of its head. */
static size_t head_make(uint8_t head[HEAD_MAX], unsigned opcode, size_t size)
{
    head[0] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        head[1] = (uint8_t)size;
        return 2;
    }
    head[1] = size <= UINT16_MAX ? 126 : 127;
    if (size <= UINT16_MAX)
        put_be16(head + 2, (uint16_t)size);
    else
        put_be64(head + 2, size);
    return size <= UINT16_MAX ? 4 : 10;
}

/* The thread with the fewest connections. */
static struct hub_thread *thread_pick(struct ws_hub *h)
{
    struct hub_thread *best = h->threads[0];
    for (unsigned i = 1; i < h->thread_count; i++)
        if (atomic_load(&h->threads[i]->count) < atomic_load(&best->count)) best = h->threads[i];
    return best;
}
