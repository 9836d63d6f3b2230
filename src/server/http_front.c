/*
 * http_front.c -- TLS in front of the loops.
 *
 *   client ◄──TLS──► net [front_conn] pair ◄──plain──► a loop of the HTTP library
 *
 * The library could do TLS itself, but a socket that it gives away with TLS is forwarded by it with
 * lost wake-ups and without telling the end of the client. Behind a pair of sockets everything is
 * plain: refusals, upgrades, and the watcher, which sees the end of the client as that of the pair.
 *
 * Each direction ends by itself: the end of net is passed on by shutdown(pair, SHUT_WR), the end of
 * the pair by a TLS closure alert and shutdown(net, SHUT_WR). Nothing is held here but one piece:
 * what does not fit into the pair, or the one record that the TLS library could not send.
 *
 * Threads: a few, each with an epoll set and connections of its own; they share the listening
 * socket.
 */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/http_intern.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define FRONT_MAX 4
#define PIECE     16384 /* a TLS record */
#define EVENTS    64
#define ROUNDS    16
#define TICK_MS   100
#define CLOSE_MS  2000
#define COUNTERS  (1u << 16)
#define TAG_PAIR  1u

struct front_conn {
    struct front_thread *thread;
    struct front_conn *next, *prev;
    int net, pair, far; /* far: the number of the loop's end, for the count of bytes */
    gnutls_session_t tls;
    struct http_tls_pair *cert;
    int64_t accepted_ms;
    bool shaken, net_end, pair_end, pair_off, flushing, dead, again;
    uint32_t net_events, pair_events;
    struct sockaddr_storage addr;
    socklen_t addr_size;
    struct buf in; /* for the pair, which is full */
};

struct front_thread {
    struct http_front *front;
    pthread_t id;
    bool started, listening;
    int epoll_fd;
    struct front_conn *conns, *dead;
    uint8_t piece[PIECE];
};

struct http_front {
    struct http_server *server;
    int listen_fd, bell_fd;
    atomic_bool quiet, stop;
    pthread_mutex_t join_lock;
    bool closing; /* [lock:join_lock] */
    atomic_uint conn_count;
    atomic_uint_fast64_t *bytes; /* by the number of the loop's end */
    struct front_thread threads[FRONT_MAX];
    unsigned thread_count;
};

static void *front_main(void *arg);
static void listen_or_not(struct front_thread *t);
static void accept_some(struct front_thread *t);
static bool conn_open(struct front_thread *t, int fd, const struct sockaddr_storage *addr,
                      socklen_t addr_size);
static void conn_kill(struct front_conn *c);
static void bury(struct front_thread *t);
static void drop_slow_handshakes(struct front_thread *t, int64_t now);
static void on_event(struct front_conn *c, bool pair, uint32_t events);
static bool shake(struct front_conn *c);
static bool join(struct front_conn *c);
static bool pump_in(struct front_conn *c);
static bool push_in(struct front_conn *c, const uint8_t *data, size_t size);
static bool pump_out(struct front_conn *c);
static void want(struct front_conn *c);

enum rc http__front_start(struct http_server *s, struct err *err)
{
    struct http_front *f = mem_calloc(1, sizeof *f);
    if (f == NULL) return err_mem(err, "the TLS threads");
    s->front = f;
    f->server = s;
    f->listen_fd = s->listen_fd;
    pthread_mutex_init(&f->join_lock, NULL);
    f->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->bytes = mem_calloc(COUNTERS, sizeof *f->bytes);
    f->thread_count = s->opts.threads < FRONT_MAX ? s->opts.threads : FRONT_MAX;
    for (unsigned i = 0; i < FRONT_MAX; i++)
        f->threads[i].epoll_fd = -1;
    if (f->bytes == NULL) return err_mem(err, "the TLS threads");
    if (f->bell_fd < 0) return err_sys(err, errno, "make an event descriptor");
    for (unsigned i = 0; i < f->thread_count; i++) {
        struct front_thread *t = &f->threads[i];
        struct epoll_event bell = {.events = EPOLLIN, .data.ptr = NULL};
        t->front = f;
        t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (t->epoll_fd < 0 || epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, f->bell_fd, &bell) != 0)
            return err_sys(err, errno, "make an epoll set");
        TRY(thr_start(&t->id, "http-tls", front_main, t, err));
        t->started = true;
    }
    return RC_OK;
}

void http__front_quiesce(struct http_front *f)
{
    atomic_store(&f->quiet, true);
}

void http__front_close(struct http_front *f)
{
    atomic_store(&f->quiet, true);
    thr_lock(&f->join_lock);
    f->closing = true;
    thr_unlock(&f->join_lock);
}

void http__front_free(struct http_front *f)
{
    const uint64_t one = 1;
    if (f == NULL) return;
    /* The loops have closed their ends: connections end by themselves when all was sent. */
    for (int64_t end = os_mono_ms() + CLOSE_MS;
         atomic_load(&f->conn_count) > 0 && os_mono_ms() < end;)
        os_sleep_ms(2);
    atomic_store(&f->stop, true);
    if (f->bell_fd >= 0) (void)os_write_some(f->bell_fd, &one, sizeof one);
    for (unsigned i = 0; i < f->thread_count; i++) {
        struct front_thread *t = &f->threads[i];
        if (t->started) pthread_join(t->id, NULL);
        while (t->conns != NULL)
            conn_kill(t->conns);
        bury(t);
        os_close(t->epoll_fd);
    }
    os_close(f->bell_fd);
    pthread_mutex_destroy(&f->join_lock);
    mem_free(f->bytes);
    mem_free(f);
}

bool http__front_bytes(const struct http_front *f, int fd, uint64_t *ret_bytes)
{
    if (fd < 0 || (unsigned)fd >= COUNTERS) return false;
    *ret_bytes = atomic_load(&f->bytes[fd]);
    return true;
}

static void *front_main(void *arg)
{
    struct front_thread *t = arg;
    struct http_front *f = t->front;
    struct epoll_event events[EVENTS];
    int64_t tick = os_mono_ms() + TICK_MS;
    while (!atomic_load(&f->stop)) {
        listen_or_not(t);
        int n = epoll_wait(t->epoll_fd, events, EVENTS, TICK_MS);
        for (int i = 0; i < n; i++) {
            uintptr_t tagged = (uintptr_t)events[i].data.ptr;
            struct front_conn *c = (struct front_conn *)(tagged & ~(uintptr_t)TAG_PAIR);
            if (tagged == 0) continue; /* the bell: it is rung once, to stop */
            if (tagged == (uintptr_t)t) {
                accept_some(t);
            } else if (!c->dead) {
                on_event(c, (tagged & TAG_PAIR) != 0, events[i].events);
            }
        }
        bury(t);
        int64_t now = os_mono_ms();
        if (now < tick) continue;
        drop_slow_handshakes(t, now);
        tick = now + TICK_MS;
    }
    return NULL;
}

/* At the limit, and after http_server_quiesce, nobody is accepted. */
static void listen_or_not(struct front_thread *t)
{
    struct http_front *f = t->front;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = t};
    bool should = !atomic_load(&f->quiet) && atomic_load(&f->conn_count) < f->server->opts.conn_max;
    if (should == t->listening) return;
    if (epoll_ctl(t->epoll_fd, should ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, f->listen_fd, &e) == 0)
        t->listening = should;
}

static void accept_some(struct front_thread *t)
{
    struct http_front *f = t->front;
    for (int i = 0; i < ROUNDS; i++) {
        struct sockaddr_storage addr = {0};
        socklen_t size = sizeof addr;
        if (atomic_load(&f->quiet)) return;
        if (atomic_fetch_add(&f->conn_count, 1) < f->server->opts.conn_max) {
            int fd = accept4(f->listen_fd, (struct sockaddr *)&addr, &size,
                             SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (fd >= 0 && conn_open(t, fd, &addr, size)) continue;
            os_close(fd);
            if (fd >= 0) {
                atomic_fetch_sub(&f->conn_count, 1);
                continue;
            }
        }
        atomic_fetch_sub(&f->conn_count, 1);
        return;
    }
}

static bool conn_open(struct front_thread *t, int fd, const struct sockaddr_storage *addr,
                      socklen_t addr_size)
{
    const int on = 1;
    struct front_conn *c = mem_calloc(1, sizeof *c);
    if (c == NULL) return false;
    *c = (struct front_conn){.thread = t, .net = fd, .pair = -1, .far = -1, .addr = *addr};
    c->addr_size = addr_size;
    c->accepted_ms = os_mono_ms();
    c->net_events = EPOLLIN | EPOLLRDHUP;
    c->tls = http__tls_session(t->front->server->tls, fd, &c->cert);
    struct epoll_event e = {.events = c->net_events, .data.ptr = c};
    if (c->tls == NULL || epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
        if (c->tls != NULL) gnutls_deinit(c->tls);
        http__tls_unref(c->cert);
        mem_free(c);
        return false;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->next = t->conns;
    if (c->next != NULL) c->next->prev = c;
    t->conns = c;
    return true;
}

/* Its memory stays until the events at hand are through. */
static void conn_kill(struct front_conn *c)
{
    struct front_thread *t = c->thread;
    if (c->dead) return;
    c->dead = true;
    if (c->next != NULL) c->next->prev = c->prev;
    *(c->prev != NULL ? &c->prev->next : &t->conns) = c->next;
    c->next = t->dead;
    t->dead = c;
    gnutls_deinit(c->tls);
    http__tls_unref(c->cert);
    os_close(c->net);
    os_close(c->pair);
    buf_fini(&c->in);
    atomic_fetch_sub(&t->front->conn_count, 1);
}

static void bury(struct front_thread *t)
{
    while (t->dead != NULL) {
        struct front_conn *c = t->dead;
        t->dead = c->next;
        mem_free(c);
    }
}

static void drop_slow_handshakes(struct front_thread *t, int64_t now)
{
    int64_t limit = t->front->server->opts.receive_ms;
    thr_lock(&t->front->join_lock);
    bool closing = t->front->closing;
    thr_unlock(&t->front->join_lock);
    for (struct front_conn *c = t->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (!c->shaken && (closing || now - c->accepted_ms > limit)) conn_kill(c);
    }
    bury(t);
}

static void on_event(struct front_conn *c, bool pair, uint32_t events)
{
    /* A client who has gone in both directions: nothing can be sent any more. */
    if (!pair && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        conn_kill(c);
        return;
    }
    if (pair && (events & (EPOLLHUP | EPOLLERR)) != 0 && !c->pair_off) {
        /* What is still in it is read below; as an event it would come again and again. */
        (void)epoll_ctl(c->thread->epoll_fd, EPOLL_CTL_DEL, c->pair, NULL);
        c->pair_off = true;
    }
    c->again = false;
    bool ok = c->shaken || shake(c);
    if (ok && c->shaken) ok = pump_in(c) && pump_out(c);
    /* The loop has closed its end, and all was passed on. */
    if (ok && c->pair_off && c->pair_end && !c->flushing) ok = false;
    if (ok && c->net_end && c->pair_end && !c->flushing) ok = false;
    if (ok)
        want(c);
    else
        conn_kill(c);
}

/* False: the connection is over. */
static bool shake(struct front_conn *c)
{
    int rc;
    do
        rc = gnutls_handshake(c->tls);
    while (rc < 0 && rc != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(rc));
    if (rc == GNUTLS_E_AGAIN) return true;
    if (rc < 0) {
        (void)gnutls_alert_send_appropriate(c->tls, rc);
        return false;
    }
    c->shaken = true;
    return join(c);
}

/* Give the other end of a pair to the HTTP library, as a connection from the client's address. */
static bool join(struct front_conn *c)
{
    struct http_front *f = c->thread->front;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return false;
    c->pair = ends[0];
    c->far = ends[1];
    c->pair_events = EPOLLIN | EPOLLRDHUP;
    struct epoll_event e = {.events = c->pair_events,
                            .data.ptr = (void *)((uintptr_t)c | TAG_PAIR)};
    if (epoll_ctl(c->thread->epoll_fd, EPOLL_CTL_ADD, c->pair, &e) != 0) {
        os_close(ends[1]);
        return false;
    }
    if ((unsigned)c->far < COUNTERS) atomic_store(&f->bytes[c->far], 0);
    /* The daemon ends after `closing`, not while it is given a connection. */
    thr_lock(&f->join_lock);
    bool closing = f->closing;
    bool added =
        !closing && MHD_add_connection(f->server->daemon, ends[1],
                                       (const struct sockaddr *)&c->addr, c->addr_size) == MHD_YES;
    thr_unlock(&f->join_lock);
    if (closing) os_close(ends[1]);
    return added;
}

static bool pump_in(struct front_conn *c)
{
    struct front_thread *t = c->thread;
    if (c->in.size > 0) {
        ssize_t n = send(c->pair, c->in.data, c->in.size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) c->net_end = true; /* nobody reads it */
        if (n > 0) buf_drop_front(&c->in, (size_t)n);
        if (c->net_end || c->in.size == 0) buf_fini(&c->in);
    }
    for (int i = 0; c->in.size == 0 && !c->net_end; i++) {
        if (i == ROUNDS) {
            c->again = true; /* the TLS library may hold bytes that no event tells of */
            break;
        }
        ssize_t n = gnutls_record_recv(c->tls, t->piece, sizeof t->piece);
        if (n == GNUTLS_E_AGAIN) break;
        if (n == GNUTLS_E_INTERRUPTED ||
            (n < 0 && !gnutls_error_is_fatal((int)n) && n != GNUTLS_E_REHANDSHAKE))
            continue;
        if (n <= 0) {
            c->net_end = true;
            (void)shutdown(c->pair, SHUT_WR);
        } else if (!push_in(c, t->piece, (size_t)n)) {
            return false;
        }
    }
    return true;
}

static bool push_in(struct front_conn *c, const uint8_t *data, size_t size)
{
    struct err ignored;
    if ((unsigned)c->far < COUNTERS)
        atomic_fetch_add_explicit(&c->thread->front->bytes[c->far], size, memory_order_relaxed);
    ssize_t n = send(c->pair, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        c->net_end = true; /* the loop reads no more; what it wrote may still be there */
        return true;
    }
    size_t sent = n < 0 ? 0 : (size_t)n;
    return sent == size || buf_append(&c->in, data + sent, size - sent, &ignored) == RC_OK;
}

static bool pump_out(struct front_conn *c)
{
    struct front_thread *t = c->thread;
    for (int i = 0; i < ROUNDS; i++) {
        ssize_t n = 0;
        if (c->pair_end && !c->flushing) return true;
        if (!c->flushing) {
            n = recv(c->pair, t->piece, sizeof t->piece, 0);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        }
        if (!c->flushing && n <= 0) {
            c->pair_end = true;
            (void)gnutls_bye(c->tls, GNUTLS_SHUT_WR);
            (void)shutdown(c->net, SHUT_WR);
            return true;
        }
        /* A record that could not be sent is kept by the library and sent by a call without data.
         */
        ssize_t sent = gnutls_record_send(c->tls, c->flushing ? NULL : t->piece, (size_t)n);
        c->flushing = sent == GNUTLS_E_AGAIN || sent == GNUTLS_E_INTERRUPTED;
        if (sent == GNUTLS_E_AGAIN) return true;
        if (sent < 0 && !c->flushing) return false;
    }
    c->again = true;
    return true;
}

/* Ask for the events that can bring it on. */
static void want(struct front_conn *c)
{
    int epoll_fd = c->thread->epoll_fd;
    uint32_t net = 0, pair = 0;
    if (!c->shaken) {
        net = gnutls_record_get_direction(c->tls) == 0 ? EPOLLIN : EPOLLOUT;
    } else {
        if (c->in.size == 0 && !c->net_end) net |= EPOLLIN;
        if (c->flushing || c->again) net |= EPOLLOUT;
        if (c->in.size > 0) pair |= EPOLLOUT;
        if (!c->flushing && !c->pair_end) pair |= EPOLLIN;
    }
    struct epoll_event e = {.events = net, .data.ptr = c};
    if (net != c->net_events && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->net, &e) == 0)
        c->net_events = net;
    e = (struct epoll_event){.events = pair, .data.ptr = (void *)((uintptr_t)c | TAG_PAIR)};
    if (c->pair >= 0 && !c->pair_off && pair != c->pair_events &&
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->pair, &e) == 0)
        c->pair_events = pair;
}
