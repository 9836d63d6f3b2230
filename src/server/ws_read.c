/*
 * ws_read.c -- see ws_read.h. wslay takes frames apart and unmasks them; which frames may come, and
 * what they mean, is decided here.
 *
 * A parser (4 KiB of wslay's) can serve another connection when it stands between two frames and
 * holds no bytes. It does not say so, hence the account: `ahead` is what it was fed minus what it
 * has given out, headers included.
 */
#include "server/ws_read.h"
#include <string.h>
#include <wslay/wslay.h>
#include "base/bytes.h"
#include "base/fault.h"
#include "base/mem.h"
#include "server/hrana_intern.h"

#define COUNTED_FROM 4096      /* shorter messages are too many to count, and too short to matter */
#define SPARE_MAX    (1 << 18) /* a larger buffer is not kept for the next message */

struct ws_frames {
    wslay_frame_context_ptr ctx;
    const uint8_t *in; /* bytes that it has not taken yet */
    size_t in_size;
    size_t ahead;
    uint64_t left; /* of the frame's payload */
    bool in_frame;
    uint8_t control_size;
    uint8_t control[WS_CONTROL_MAX];
};

static struct ws_frames *frames_take(struct ws_parts *p);
static void frames_free(struct ws_frames *f);
static ssize_t feed(uint8_t *to, size_t size, int flags, void *frames);
static bool chunk(struct ws_reader *r, struct ws_parts *p, struct ws_event *ev);
static bool frame_begin(struct ws_reader *r, struct ws_parts *p, const struct wslay_frame_iocb *io,
                        struct ws_event *ev);
static bool data_add(struct ws_reader *r, struct ws_parts *p, const struct wslay_frame_iocb *io,
                     struct ws_event *ev);
static bool data_end(struct ws_reader *r, struct ws_event *ev);
static void control_end(const struct ws_frames *f, unsigned opcode, struct ws_event *ev);
static void message_drop(struct ws_reader *r, struct ws_parts *p);
static bool bad(struct ws_event *ev, unsigned code, const char *why);

void ws_parts_fini(struct ws_parts *p)
{
    frames_free(p->frames);
    p->frames = NULL;
    buf_fini(&p->msg);
}

void ws_reader_fini(struct ws_reader *r, struct ws_parts *p)
{
    message_drop(r, p);
    buf_fini(&r->msg);
    frames_free(r->frames);
    r->frames = NULL;
}

void ws_reader_step(struct ws_reader *r, struct ws_parts *p, const uint8_t **data, size_t *size,
                    struct ws_event *ret_ev)
{
    *ret_ev = (struct ws_event){.kind = WS_EV_MORE};
    if (r->done) message_drop(r, p);
    if (r->frames == NULL) {
        if (*size == 0) return;
        r->frames = frames_take(p);
        if (r->frames == NULL) {
            bad(ret_ev, 1011, "out of memory");
            return;
        }
    }
    struct ws_frames *f = r->frames;
    f->in = *data;
    f->in_size = *size;
    while (!chunk(r, p, ret_ev))
        continue;
    *data = f->in;
    *size = f->in_size;
    f->in = NULL;
    f->in_size = 0;
}

void ws_reader_rest(struct ws_reader *r, struct ws_parts *p)
{
    if (r->done) message_drop(r, p);
    if (r->opcode == 0 && r->msg.data != NULL) {
        if (p->msg.data == NULL && r->msg.cap <= SPARE_MAX) {
            p->msg = r->msg;
            r->msg = BUF_INIT;
        } else {
            buf_fini(&r->msg);
        }
    }
    struct ws_frames *f = r->frames;
    if (f == NULL || f->ahead > 0 || f->in_frame) return;
    r->frames = NULL;
    if (p->frames == NULL)
        p->frames = f;
    else
        frames_free(f);
}

bool ws_code_valid(unsigned code)
{
    if (code >= 3000 && code <= 4999) return true;
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

bool ws_utf8_valid(const uint8_t *s, size_t size)
{
    size_t at = 0, ignored;
    while (at < size) {
        if (size - at >= 8 && (get_le64(s + at) & 0x8080808080808080) == 0) {
            at += 8;
            continue;
        }
        size_t n = hrana_utf8(s + at, size - at, &ignored);
        if (n == 0) return false;
        at += n;
    }
    return true;
}

static struct ws_frames *frames_take(struct ws_parts *p)
{
    static const struct wslay_frame_callbacks callbacks = {.recv_callback = feed};
    struct ws_frames *f = p->frames;
    if (f != NULL) {
        p->frames = NULL;
        return f;
    }
    f = mem_calloc(1, sizeof *f);
    if (f == NULL) return NULL;
    /* wslay allocates by itself, so the seam stands in front of it. */
    if (fault_hit(FAULT_ALLOC, "wslay") || wslay_frame_context_init(&f->ctx, &callbacks, f) != 0) {
        mem_free(f);
        return NULL;
    }
    return f;
}

static void frames_free(struct ws_frames *f)
{
    if (f == NULL) return;
    wslay_frame_context_free(f->ctx);
    mem_free(f);
}

/* Bytes for wslay; -1: it has them all. */
static ssize_t feed(uint8_t *to, size_t size, int flags, void *frames)
{
    struct ws_frames *f = frames;
    (void)flags;
    if (size > f->in_size) size = f->in_size;
    if (size == 0) return -1;
    memcpy(to, f->in, size);
    f->in += size;
    f->in_size -= size;
    f->ahead += size;
    return (ssize_t)size;
}

/* Take a piece of a frame. True: *ev is an event, or there are no more bytes. */
static bool chunk(struct ws_reader *r, struct ws_parts *p, struct ws_event *ev)
{
    struct ws_frames *f = r->frames;
    struct wslay_frame_iocb io = {0};
    ssize_t n = wslay_frame_recv(f->ctx, &io);
    if (n == WSLAY_ERR_WANT_READ) return true;
    if (n < 0) return bad(ev, 1002, "a frame's head is broken");
    if (!f->in_frame && !frame_begin(r, p, &io, ev)) return true;
    f->ahead -= io.data_length;
    f->left -= io.data_length;
    bool control = io.opcode >= WS_CLOSE, whole = f->left == 0;
    if (whole) f->in_frame = false;
    if (!control) {
        if (!data_add(r, p, &io, ev)) return true;
        return whole && io.fin && data_end(r, ev);
    }
    /* No control frame is longer than the array: wslay has refused it. */
    if (io.data_length > 0) memcpy(f->control + f->control_size, io.data, io.data_length);
    f->control_size = (uint8_t)(f->control_size + io.data_length);
    if (whole) control_end(f, io.opcode, ev);
    return whole;
}

/* Judge a frame by its head. */
static bool frame_begin(struct ws_reader *r, struct ws_parts *p, const struct wslay_frame_iocb *io,
                        struct ws_event *ev)
{
    struct ws_frames *f = r->frames;
    bool control = io->opcode >= WS_CLOSE;
    if (!io->mask) return !bad(ev, 1002, "a client's frames must be masked");
    if (io->rsv != 0) return !bad(ev, 1002, "a reserved bit is set");
    if (control ? io->opcode > WS_PONG : io->opcode > WS_BINARY)
        return !bad(ev, 1002, "a frame has a reserved opcode");
    if (!control) {
        if (io->opcode == WS_CONTINUATION && r->opcode == 0)
            return !bad(ev, 1002, "a continuation of nothing");
        if (io->opcode != WS_CONTINUATION && r->opcode != 0)
            return !bad(ev, 1002, "a message begins inside of another");
        if (io->payload_length > p->message_max - r->msg.size)
            return !bad(ev, 1009, "the message is too big");
        if (++r->fragments > WS_FRAGMENTS_MAX)
            return !bad(ev, 1008, "the message has too many fragments");
        if (io->opcode != WS_CONTINUATION) r->opcode = io->opcode;
    }
    size_t length_size = io->payload_length < 126 ? 0 : io->payload_length <= UINT16_MAX ? 2 : 8;
    f->ahead -= 2 + length_size + 4;
    f->left = io->payload_length;
    f->in_frame = true;
    f->control_size = 0;
    return true;
}

static bool data_add(struct ws_reader *r, struct ws_parts *p, const struct wslay_frame_iocb *io,
                     struct ws_event *ev)
{
    struct err ignored;
    if (r->msg.data == NULL) {
        r->msg = p->msg;
        p->msg = BUF_INIT;
    }
    size_t size = r->msg.size + io->data_length;
    if (size > COUNTED_FROM && size > r->counted) {
        size_t more = size - r->counted;
        r->counted = size;
        if (atomic_fetch_add(p->sum, more) + more > p->sum_max)
            return !bad(ev, 1013, "too many long messages come at once; try again later");
    }
    /* One byte more, for the NUL. */
    if (buf_reserve(&r->msg, io->data_length + 1, &ignored) != RC_OK)
        return !bad(ev, 1011, "out of memory");
    if (io->data_length > 0) memcpy(r->msg.data + r->msg.size, io->data, io->data_length);
    r->msg.size = size;
    return true;
}

/* The message is whole. */
static bool data_end(struct ws_reader *r, struct ws_event *ev)
{
    ev->binary = r->opcode == WS_BINARY;
    if (!ev->binary && !ws_utf8_valid(r->msg.data, r->msg.size))
        return bad(ev, 1007, "the text is not UTF-8");
    r->msg.data[r->msg.size] = '\0';
    r->done = true;
    ev->kind = WS_EV_MESSAGE;
    ev->data = r->msg.data;
    ev->size = r->msg.size;
    return true;
}

static void control_end(const struct ws_frames *f, unsigned opcode, struct ws_event *ev)
{
    ev->data = f->control;
    ev->size = f->control_size;
    ev->kind = opcode == WS_PING ? WS_EV_PING : opcode == WS_PONG ? WS_EV_PONG : WS_EV_CLOSE;
    if (opcode != WS_CLOSE || ev->size == 0) return;
    ev->code = ev->size > 1 ? get_be16(f->control) : 0;
    if (!ws_code_valid(ev->code)) {
        bad(ev, 1002, "the close has no valid code");
        return;
    }
    ev->data = f->control + 2;
    ev->size -= 2;
    if (!ws_utf8_valid(ev->data, ev->size)) bad(ev, 1007, "the close's reason is not UTF-8");
}

static void message_drop(struct ws_reader *r, struct ws_parts *p)
{
    if (r->counted > 0) atomic_fetch_sub(p->sum, r->counted);
    r->counted = 0;
    r->fragments = 0;
    r->opcode = 0;
    r->done = false;
    buf_reset(&r->msg);
}

static bool bad(struct ws_event *ev, unsigned code, const char *why)
{
    *ev = (struct ws_event){.kind = WS_EV_BAD, .code = code, .why = why};
    return true;
}
