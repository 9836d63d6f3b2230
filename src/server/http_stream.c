/*
 * http_stream.c -- answers in pieces, and sockets given away. See http.h and http_intern.h.
 *
 *   writer ──► data (bounded: the writer waits) ──► pull(), on the loop's thread ──► socket
 *              empty: the connection sleeps, and the writer wakes it
 *
 * The writer's side ends with http_stream_end, the loop's when everything was sent or the client
 * has gone. If the writer is the first, it must not touch the request any more: the loop may
 * already serve the next one with it. If it is the last, it frees the request.
 */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/http_intern.h"
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define BACKLOG_MAX   (256u << 10)
#define SLICE         (64u << 10)
#define WAKE_BYTES    (16u << 10) /* without flush: so much is worth a wake-up */
#define BLOCK         (4u << 10)
#define WAIT_SLICE_MS 50
#define LAST_MS       2000 /* the server ends: who has taken nothing for so long takes nothing */

struct taking { /* how far the client was when it last took something */
    size_t backlog;
    int unsent;
    int64_t since_ms; /* 0: nothing is known yet */
};

static enum rc append(struct http_req *r, const void *data, size_t size, bool flush,
                      struct err *err);
static enum rc wait_for_room(struct http_req *r, struct err *err);
static bool takes_nothing(const struct http_req *r, struct taking *t);
static void wake(struct http_req *r);
static ssize_t pull(void *cls, uint64_t pos, char *out, size_t max);
static void give_away(void *cls, struct MHD_Connection *mhd, void *ctx, const char *extra,
                      size_t extra_size, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle);

enum rc http_stream_begin(struct http_req *r, unsigned status, const char *type, struct err *err)
{
    struct http_stream *st = mem_calloc(1, sizeof *st);
    if (st == NULL) return err_mem(err, "a stream");
    pthread_mutex_init(&st->lock, NULL);
    thr_cond_init(&st->room);
    st->headless =
        r->head || status < 200 || status == MHD_HTTP_NO_CONTENT || status == MHD_HTTP_NOT_MODIFIED;
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, pull, r, NULL);
    if (response == NULL || !http__dress(r, response, type)) {
        if (response != NULL) MHD_destroy_response(response);
        http__stream_free(st);
        return err_mem(err, "a stream");
    }
    atomic_fetch_add(&r->conn->refs, 1);
    r->stream = st;
    r->response = response;
    r->status = status;
    /* Chunked, the library would send the end of a body that has no beginning. */
    if (st->headless) MHD_set_response_options(response, MHD_RF_HTTP_1_0_SERVER, MHD_RO_END);
    if (st->headless) return RC_OK; /* queued when it ends: the library would end it at once */
    /* Answered for the loop, but active until it ends. */
    atomic_fetch_add(&r->conn->shard->active, 1);
    http__answer(r);
    return RC_OK;
}

enum rc http_stream_write(struct http_req *r, const void *data, size_t size, bool flush,
                          struct err *err)
{
    const uint8_t *p = data;
    if (r->stream->headless) return RC_OK;
    do {
        size_t part = size < SLICE ? size : SLICE;
        TRY(append(r, p, part, flush && part == size, err));
        p += part;
        size -= part;
    } while (size > 0);
    return RC_OK;
}

void http_stream_end(struct http_req *r, bool whole)
{
    struct http_stream *st = r->stream;
    if (st->headless) {
        st->ended = true;
        st->dead = true;
        http__answer(r);
        return;
    }
    struct http_shard *shard = r->conn->shard;
    thr_lock(&st->lock);
    st->ended = true;
    st->broken = !whole;
    bool mine = st->dead;
    if (!mine) wake(r);
    thr_unlock(&st->lock);
    if (mine) http__req_over(r);
    atomic_fetch_sub(&shard->active, 1);
}

bool http__stream_dead(struct http_req *r)
{
    struct http_stream *st = r->stream;
    thr_lock(&st->lock);
    bool ended = st->ended;
    st->dead = true;
    if (!ended) atomic_store(&r->gone, true);
    pthread_cond_signal(&st->room);
    thr_unlock(&st->lock);
    return ended;
}

void http__stream_free(struct http_stream *st)
{
    if (st == NULL) return;
    buf_fini(&st->data);
    pthread_cond_destroy(&st->room);
    pthread_mutex_destroy(&st->lock);
    mem_free(st);
}

void http_upgrade(struct http_req *r, http_upgrade_fn *fn, void *ctx)
{
    struct MHD_Response *response = MHD_create_response_for_upgrade(give_away, r);
    bool ok = response != NULL && http__dress(r, response, NULL) &&
              (http__has_header(r, MHD_HTTP_HEADER_UPGRADE) ||
               MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "websocket") == MHD_YES);
    if (!ok && response != NULL) {
        MHD_destroy_response(response);
        response = NULL;
    }
    r->upgrade = fn;
    r->upgrade_ctx = ctx;
    r->response = response;
    r->status = MHD_HTTP_SWITCHING_PROTOCOLS;
    http__answer(r);
}

static enum rc append(struct http_req *r, const void *data, size_t size, bool flush,
                      struct err *err)
{
    struct http_stream *st = r->stream;
    thr_lock(&st->lock);
    enum rc rc = wait_for_room(r, err);
    if (rc == RC_OK) {
        if (st->off > 0 && st->off >= st->data.size / 2) {
            buf_drop_front(&st->data, st->off);
            st->off = 0;
        }
        rc = buf_append(&st->data, data, size, err);
        r->sent += size;
    }
    size_t backlog = st->data.size - st->off;
    if (rc == RC_OK && backlog > 0 && (flush || backlog >= WAKE_BYTES)) wake(r);
    thr_unlock(&st->lock);
    return rc;
}

static enum rc wait_for_room(struct http_req *r, struct err *err)
{
    struct http_stream *st = r->stream;
    struct taking t = {0};
    while (!st->dead && st->data.size - st->off > BACKLOG_MAX) {
        if (atomic_load(&r->gone)) break;
        if (atomic_load(&r->conn->server->quiesced) && takes_nothing(r, &t)) {
            (void)shutdown(r->conn->fd, SHUT_RDWR); /* the loop sees the end */
            return err_set(err, RC_CANCELED, "the client takes nothing, and the server ends");
        }
        /* In slices: the watcher sets the flag without knowing of the stream. */
        (void)thr_wait(&st->room, &st->lock, os_mono_ms() + WAIT_SLICE_MS);
    }
    if (!st->dead && !atomic_load(&r->gone)) return RC_OK;
    return err_set(err, RC_CANCELED, "the client has gone away");
}

/* Under the stream's lock, not dead: so its socket is open. What the client takes leaves the
 * kernel's buffer long before the loop comes for more. */
static bool takes_nothing(const struct http_req *r, struct taking *t)
{
    size_t backlog = r->stream->data.size - r->stream->off;
    int64_t now = os_mono_ms();
    int unsent = 0;
    if (ioctl(r->conn->fd, SIOCOUTQ, &unsent) != 0) unsent = 0;
    if (t->since_ms == 0 || backlog != t->backlog || unsent != t->unsent)
        *t = (struct taking){.backlog = backlog, .unsent = unsent, .since_ms = now};
    return now - t->since_ms >= LAST_MS;
}

/* Under the stream's lock. */
static void wake(struct http_req *r)
{
    if (!r->stream->asleep) return;
    r->stream->asleep = false;
    MHD_resume_connection(r->conn->mhd);
}

static ssize_t pull(void *cls, uint64_t pos, char *out, size_t max)
{
    struct http_req *r = cls;
    struct http_stream *st = r->stream;
    ssize_t n = 0;
    (void)pos;
    thr_lock(&st->lock);
    size_t backlog = st->data.size - st->off;
    if (backlog > 0) {
        if (max > backlog) max = backlog;
        memcpy(out, st->data.data + st->off, max);
        st->off += max;
        n = (ssize_t)max;
        if (st->off == st->data.size) {
            buf_reset(&st->data);
            st->off = 0;
        }
        if (backlog - max <= BACKLOG_MAX) pthread_cond_signal(&st->room);
    } else if (st->ended) {
        n = st->broken ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        st->asleep = true;
        MHD_suspend_connection(r->conn->mhd);
    }
    thr_unlock(&st->lock);
    return n;
}

/* The library would keep its buffers for a connection as long as it is upgraded. A copy of the
 * descriptor lets it forget the connection now. */
static void give_away(void *cls, struct MHD_Connection *mhd, void *ctx, const char *extra,
                      size_t extra_size, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
    const int on = 1;
    struct http_req *r = cls;
    struct http_conn *c = r->conn;
    (void)mhd, (void)ctx;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own >= 0)
        r->upgrade(r->upgrade_ctx, own, extra, extra_size);
    else
        (void)shutdown(fd, SHUT_RDWR);
    http__req_over(r);
    r->over = true;
    atomic_store(&c->phase, HTTP_BUSY); /* no head will come */
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}
