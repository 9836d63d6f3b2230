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

struct ws_message {
    struct buf data;
    size_t counted; /* its part of ws_parts.sum */
    size_t whole;   /* bytes of a text that are whole characters */
    uint32_t fragments;
    bool text;
    bool done; /* it has been given out */
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
static bool message_begin(struct ws_reader *r, struct ws_parts *p, bool text);
static void message_drop(struct ws_reader *r, struct ws_parts *p);
static void message_free(struct ws_message *m);
static bool utf8_skip(const uint8_t *s, size_t size, size_t *at);
static bool bad(struct ws_event *ev, unsigned code, const char *why);

void ws_parts_fini(struct ws_parts *p)
{
    frames_free(p->frames);
    p->frames = NULL;
    message_free(p->message);
    p->message = NULL;
}

void ws_reader_fini(struct ws_reader *r, struct ws_parts *p)
{
    message_drop(r, p);
    frames_free(r->frames);
    r->frames = NULL;
}

void ws_reader_step(struct ws_reader *r, struct ws_parts *p, const uint8_t **data, size_t *size,
                    struct ws_event *ret_ev)
{
    *ret_ev = (struct ws_event){.kind = WS_EV_MORE};
    if (r->message != NULL && r->message->done) message_drop(r, p);
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
    if (r->message != NULL && r->message->done) message_drop(r, p);
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
    size_t at = 0;
    return utf8_skip(s, size, &at) && at == size;
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
        if (io->opcode == WS_CONTINUATION && r->message == NULL)
            return !bad(ev, 1002, "a continuation of nothing");
        if (io->opcode != WS_CONTINUATION && r->message != NULL)
            return !bad(ev, 1002, "a message begins inside of another");
        size_t size = r->message != NULL ? r->message->data.size : 0;
        if (io->payload_length > p->message_max - size)
            return !bad(ev, 1009, "the message is too big");
        if (r->message == NULL && !message_begin(r, p, io->opcode == WS_TEXT))
            return !bad(ev, 1011, "out of memory");
        if (++r->message->fragments > WS_FRAGMENTS_MAX)
            return !bad(ev, 1008, "the message has too many fragments");
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
    struct ws_message *m = r->message;
    size_t size = m->data.size + io->data_length;
    if (size > COUNTED_FROM && size > m->counted) {
        size_t more = size - m->counted;
        m->counted = size;
        if (atomic_fetch_add(p->sum, more) + more > p->sum_max)
            return !bad(ev, 1013, "too many long messages come at once; try again later");
    }
    /* One byte more, for the NUL. */
    if (buf_reserve(&m->data, io->data_length + 1, &ignored) != RC_OK)
        return !bad(ev, 1011, "out of memory");
    if (io->data_length > 0) memcpy(m->data.data + m->data.size, io->data, io->data_length);
    m->data.size = size;
    if (m->text && !utf8_skip(m->data.data, size, &m->whole))
        return !bad(ev, 1007, "the text is not UTF-8");
    return true;
}

/* The message is whole. */
static bool data_end(struct ws_reader *r, struct ws_event *ev)
{
    struct ws_message *m = r->message;
    if (m->text && m->whole < m->data.size)
        return bad(ev, 1007, "the text ends inside of a character");
    m->data.data[m->data.size] = '\0';
    m->done = true;
    ev->kind = WS_EV_MESSAGE;
    ev->binary = !m->text;
    ev->data = m->data.data;
    ev->size = m->data.size;
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

/* False: out of memory. */
static bool message_begin(struct ws_reader *r, struct ws_parts *p, bool text)
{
    struct ws_message *m = p->message != NULL ? p->message : mem_calloc(1, sizeof *m);
    if (m == NULL) return false;
    p->message = NULL;
    m->text = text;
    r->message = m;
    return true;
}

static void message_drop(struct ws_reader *r, struct ws_parts *p)
{
    struct ws_message *m = r->message;
    if (m == NULL) return;
    r->message = NULL;
    if (m->counted > 0) atomic_fetch_sub(p->sum, m->counted);
    if (p->message != NULL || m->data.cap > SPARE_MAX) {
        message_free(m);
        return;
    }
    struct buf data = m->data;
    buf_reset(&data);
    *m = (struct ws_message){.data = data};
    p->message = m;
}

static void message_free(struct ws_message *m)
{
    if (m == NULL) return;
    buf_fini(&m->data);
    mem_free(m);
}

/* Move *at behind the last whole character. False: what comes there cannot be the beginning of
 * another one. */
static bool utf8_skip(const uint8_t *s, size_t size, size_t *at)
{
    size_t good;
    while (*at < size) {
        if (size - *at >= 8 && (get_le64(s + *at) & 0x8080808080808080) == 0) {
            *at += 8;
            continue;
        }
        size_t n = hrana_utf8(s + *at, size - *at, &good);
        if (n == 0) {
            bool leads = s[*at] >= 0xc2 && s[*at] <= 0xf4;
            return leads && good == size - *at; /* cut, but good so far */
        }
        *at += n;
    }
    return true;
}

static bool bad(struct ws_event *ev, unsigned code, const char *why)
{
    *ev = (struct ws_event){.kind = WS_EV_BAD, .code = code, .why = why};
    return true;
}
