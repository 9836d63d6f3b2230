/*
 * http_watch.c -- the one thread beside the loops. It looks for
 *
 *   clients who have gone    sockets of requests that have waited for 20 ms, by poll; with none, it
 *                            sleeps until the first waits (bell_fd)
 *   clients who are too slow connections whose head or body takes longer than receive_ms: once in a
 *                            while all of them are visited
 *   refused clients          who still send: what comes is dropped for a moment (lingering)
 *
 * Threads: one, and the loops for what they add and take out under the lock of their shard. A
 * socket may be closed, and its number used again, while it is polled; that is why a find is
 * believed only if the same request is still in its list.
 */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/http_intern.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define GONE_MS       20
#define BODY_RATE     (16u << 10) /* bytes/s that excuse a body which takes long */
#define REAP_MIN_MS   20
#define REAP_MAX_MS   1000
#define POLL_MAX      16384
#define LINGER_MS     2000
#define LINGER_BYTES  (8u << 20)
#define LINGER_ROUNDS 16

struct found {
    struct http_shard *shard;
    uint64_t id;
};

/* What one round of the thread polls: the bell, lingering sockets, waiting requests. */
struct round {
    struct pollfd *fds; /* POLL_MAX + HTTP_LINGER_MAX + 1 */
    struct found *who;
    size_t count;
    bool any_waits;
};

static void *watch_main(void *arg);
static int64_t reap_every(const struct http_server *s);
static void collect_waiting(struct http_server *s, struct round *round, int64_t now);
static void mark_gone(const struct found *who);
static void reap(struct http_server *s, int64_t now);
static bool too_slow(struct http_conn *c, int64_t now);
static bool head_too_slow(struct http_conn *c, int64_t now);
static bool bytes_received(const struct http_conn *c, uint64_t *ret_bytes);
static void cut_off(struct http_conn *c);
static void linger_round(struct http_server *s, int64_t now);
static bool linger_over(struct http_linger *l, int64_t now);
static void ring(struct http_server *s);

enum rc http__watch_start(struct http_server *s, struct err *err)
{
    s->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->bell_fd < 0) return err_sys(err, errno, "make an event descriptor");
    TRY(thr_start(&s->watcher, "http-watch", watch_main, s, err));
    s->watching = true;
    return RC_OK;
}

void http__watch_stop(struct http_server *s)
{
    if (s->watching) {
        atomic_store(&s->watch_stop, true);
        ring(s);
        pthread_join(s->watcher, NULL);
        s->watching = false;
        for (size_t i = 0; i < s->linger_count; i++)
            os_close(s->linger[i].fd);
        s->linger_count = 0;
    }
    os_close(s->bell_fd);
    s->bell_fd = -1;
}

void http__watch_conn(struct http_conn *c)
{
    struct http_shard *sh = c->shard;
    thr_lock(&sh->lock);
    c->next = sh->conns;
    if (c->next != NULL) c->next->prev = c;
    sh->conns = c;
    thr_unlock(&sh->lock);
}

void http__unwatch_conn(struct http_conn *c)
{
    struct http_shard *sh = c->shard;
    thr_lock(&sh->lock);
    if (c->next != NULL) c->next->prev = c->prev;
    *(c->prev != NULL ? &c->prev->next : &sh->conns) = c->next;
    thr_unlock(&sh->lock);
}

void http__watch_req(struct http_req *r)
{
    struct http_server *s = r->conn->server;
    struct http_shard *sh = r->conn->shard;
    if (r->listed) return;
    thr_lock(&sh->lock);
    r->id = ++sh->ids;
    r->waits_since_ms = os_mono_ms();
    r->next = NULL;
    r->prev = sh->waiting_tail;
    *(r->prev != NULL ? &r->prev->next : &sh->waiting) = r;
    sh->waiting_tail = r;
    thr_unlock(&sh->lock);
    r->listed = true;
    if (atomic_load(&s->stopping)) atomic_store(&r->gone, true);
    if (atomic_load(&s->napping) && atomic_exchange(&s->napping, false)) ring(s);
}

void http__unwatch_req(struct http_req *r)
{
    struct http_shard *sh = r->conn->shard;
    if (!r->listed) return;
    thr_lock(&sh->lock);
    *(r->next != NULL ? &r->next->prev : &sh->waiting_tail) = r->prev;
    *(r->prev != NULL ? &r->prev->next : &sh->waiting) = r->next;
    thr_unlock(&sh->lock);
    r->listed = false;
}

void http__hurry(struct http_server *s)
{
    for (size_t i = 0; i < HTTP_SHARDS; i++) {
        thr_lock(&s->shards[i].lock);
        for (struct http_req *r = s->shards[i].waiting; r != NULL; r = r->next)
            atomic_store(&r->gone, true);
        thr_unlock(&s->shards[i].lock);
    }
}

void http__linger(struct http_conn *c)
{
    struct http_server *s = c->server;
    thr_lock(&s->linger_lock);
    if (s->linger_count < HTTP_LINGER_MAX) {
        int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
        if (fd >= 0)
            s->linger[s->linger_count++] =
                (struct http_linger){fd, os_mono_ms() + LINGER_MS, LINGER_BYTES};
    }
    thr_unlock(&s->linger_lock);
    ring(s);
}

static void *watch_main(void *arg)
{
    struct http_server *s = arg;
    struct round round = {.fds = mem_calloc(POLL_MAX + HTTP_LINGER_MAX + 1, sizeof *round.fds),
                          .who = mem_calloc(POLL_MAX, sizeof *round.who)};
    int64_t reap_ms = reap_every(s), reap_at = os_mono_ms() + reap_ms;
    /* Without memory nobody is watched; slow clients still meet the library's own limit. */
    while (round.fds != NULL && round.who != NULL && !atomic_load(&s->watch_stop)) {
        uint64_t rung;
        int64_t now = os_mono_ms();
        /* Before the lists are read: who waits from now on rings. */
        atomic_store(&s->napping, true);
        round.fds[0] = (struct pollfd){.fd = s->bell_fd, .events = POLLIN};
        size_t lingering = 0;
        thr_lock(&s->linger_lock);
        for (; lingering < s->linger_count; lingering++)
            round.fds[1 + lingering] =
                (struct pollfd){.fd = s->linger[lingering].fd, .events = POLLIN};
        thr_unlock(&s->linger_lock);
        struct round waiting = {.fds = round.fds + 1 + lingering, .who = round.who};
        collect_waiting(s, &waiting, now);
        if (waiting.any_waits) atomic_store(&s->napping, false);
        int64_t nap = reap_at - now;
        if (lingering > 0 && nap > LINGER_MS / 4) nap = LINGER_MS / 4;
        if (waiting.any_waits && nap > GONE_MS) nap = GONE_MS;
        int n = poll(round.fds, 1 + lingering + waiting.count, nap < 0 ? 0 : (int)nap);
        if (n > 0 && round.fds[0].revents != 0) (void)os_read_some(s->bell_fd, &rung, sizeof rung);
        for (size_t i = 0; n > 0 && i < waiting.count; i++)
            if (waiting.fds[i].revents != 0) mark_gone(&waiting.who[i]);
        now = os_mono_ms();
        if (lingering > 0) linger_round(s, now);
        if (now < reap_at) continue;
        reap(s, now);
        reap_at = now + reap_ms;
    }
    mem_free(round.fds);
    mem_free(round.who);
    return NULL;
}

static int64_t reap_every(const struct http_server *s)
{
    int64_t ms = s->opts.receive_ms / 8;
    return ms < REAP_MIN_MS ? REAP_MIN_MS : ms > REAP_MAX_MS ? REAP_MAX_MS : ms;
}

static void collect_waiting(struct http_server *s, struct round *round, int64_t now)
{
    for (size_t i = 0; i < HTTP_SHARDS; i++) {
        struct http_shard *sh = &s->shards[i];
        thr_lock(&sh->lock);
        if (sh->waiting != NULL) round->any_waits = true;
        for (struct http_req *r = sh->waiting; r != NULL && round->count < POLL_MAX; r = r->next) {
            if (now - r->waits_since_ms < GONE_MS) break;
            if (atomic_load(&r->gone)) continue;
            round->fds[round->count] = (struct pollfd){.fd = r->conn->fd, .events = POLLRDHUP};
            round->who[round->count++] = (struct found){sh, r->id};
        }
        thr_unlock(&sh->lock);
    }
}

static void mark_gone(const struct found *who)
{
    thr_lock(&who->shard->lock);
    for (struct http_req *r = who->shard->waiting; r != NULL; r = r->next)
        if (r->id == who->id) atomic_store(&r->gone, true);
    thr_unlock(&who->shard->lock);
}

static void reap(struct http_server *s, int64_t now)
{
    for (size_t i = 0; i < HTTP_SHARDS; i++) {
        struct http_shard *sh = &s->shards[i];
        thr_lock(&sh->lock);
        for (struct http_conn *c = sh->conns; c != NULL; c = c->next)
            if (too_slow(c, now)) cut_off(c);
        thr_unlock(&sh->lock);
    }
}

static bool too_slow(struct http_conn *c, int64_t now)
{
    uint64_t answered = atomic_load(&c->answered);
    int64_t limit = c->server->opts.receive_ms, since = atomic_load(&c->body_since_ms);
    unsigned phase = atomic_load(&c->phase);
    if (phase == HTTP_HEAD) return head_too_slow(c, now);
    if (phase != HTTP_BODY || since == 0 || now - since <= limit) return false;
    if (atomic_load(&c->body_size) >= (uint64_t)(now - since) * BODY_RATE / 1000) return false;
    return atomic_load(&c->answered) == answered; /* all of that was about one request */
}

/* A head has no beginning that we are told of, so bytes are asked for that came since the last
 * request. Where the kernel does not count them, silence and head together get their limits. */
static bool head_too_slow(struct http_conn *c, int64_t now)
{
    const struct http_opts *o = &c->server->opts;
    uint64_t answered = atomic_load(&c->answered), bytes = 0;
    bool counted = bytes_received(c, &bytes);
    if (!c->seen || answered != c->seen_answered) {
        c->seen_bytes = answered > 0 ? bytes : 0;
        c->seen = true;
        c->seen_answered = answered;
        c->head_since_ms = counted ? 0 : now;
    }
    if (!counted) return now - c->head_since_ms > o->receive_ms + o->idle_ms;
    if (c->head_since_ms == 0 && bytes > c->seen_bytes) c->head_since_ms = now;
    return c->head_since_ms != 0 && now - c->head_since_ms > o->receive_ms;
}

static bool bytes_received(const struct http_conn *c, uint64_t *ret_bytes)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (c->server->front != NULL) return http__front_bytes(c->server->front, c->fd, ret_bytes);
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return false;
    *ret_bytes = info.tcpi_bytes_received;
    return true;
}

/* The loop sees the end of the connection and cleans up. Under the lock of its shard, in whose list
 * the connection is only as long as its socket is open. */
static void cut_off(struct http_conn *c)
{
    unsigned phase = HTTP_HEAD;
    bool mine = atomic_compare_exchange_strong(&c->phase, &phase, HTTP_LATE);
    phase = HTTP_BODY;
    if (!mine) mine = atomic_compare_exchange_strong(&c->phase, &phase, HTTP_LATE);
    if (!mine) return;
    http__refuse_raw(c, 408, "REQUEST_TIMEOUT", "The request took too long to arrive");
    (void)shutdown(c->fd, SHUT_RDWR);
}

static void linger_round(struct http_server *s, int64_t now)
{
    thr_lock(&s->linger_lock);
    for (size_t i = 0; i < s->linger_count;) {
        if (linger_over(&s->linger[i], now)) {
            os_close(s->linger[i].fd);
            s->linger[i] = s->linger[--s->linger_count];
        } else {
            i++;
        }
    }
    thr_unlock(&s->linger_lock);
}

static bool linger_over(struct http_linger *l, int64_t now)
{
    uint8_t scratch[16384];
    for (int i = 0; i < LINGER_ROUNDS && now < l->until_ms; i++) {
        ssize_t n = recv(l->fd, scratch, sizeof scratch, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
        if (n <= 0 || (size_t)n >= l->budget) return true;
        l->budget -= (size_t)n;
    }
    return now >= l->until_ms;
}

static void ring(struct http_server *s)
{
    const uint64_t one = 1;
    (void)os_write_some(s->bell_fd, &one, sizeof one);
}
