/*
 * ws_read.h -- messages out of the bytes that a WebSocket client sends (RFC 6455, section 5).
 *
 * Bytes in, events out, no sockets. What a reader needs for a frame (the parser with its buffer)
 * and for a message it borrows from its thread's ws_parts, and gives back between two messages: a
 * connection that is silent owns nothing but two pointers.
 *
 * Checked: masks, reserved bits and opcodes, lengths in their shortest form, the order of
 * fragments and their number, control frames, codes of closing, UTF-8 (as soon as the bytes that
 * have come cannot be the beginning of a text), sizes.
 *
 * Threads: one owner; ws_parts belong to one thread.
 */
#ifndef SERVER_WS_READ_H
#define SERVER_WS_READ_H
#include <stdatomic.h>
#include "base/buf.h"

#define WS_FRAGMENTS_MAX (1u << 20) /* of one message */
#define WS_CONTROL_MAX   125        /* bytes of a ping, a pong, a close */

enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10
};

struct ws_frames;
struct ws_message;
struct ws_parts {             /* zero, but for the limits */
    struct ws_frames *frames; /* spare ones, NULL: none */
    struct ws_message *message;
    size_t message_max;
    atomic_size_t *sum; /* bytes of long messages that all readers hold */
    size_t sum_max;
};
void ws_parts_fini(struct ws_parts *p);

struct ws_reader {              /* zero: a new one */
    struct ws_frames *frames;   /* NULL: between two frames */
    struct ws_message *message; /* that has begun; NULL: none */
};
void ws_reader_fini(struct ws_reader *r, struct ws_parts *p);

enum ws_event_kind {
    WS_EV_MORE,    /* all bytes are taken */
    WS_EV_MESSAGE, /* data is terminated by a NUL that is not counted */
    WS_EV_PING,
    WS_EV_PONG,
    WS_EV_CLOSE, /* code 0: none; data: the reason */
    WS_EV_BAD    /* close with code and why; only ws_reader_fini may follow */
};
struct ws_event {
    enum ws_event_kind kind;
    bool binary;
    unsigned code;
    const char *why;
    const void *data; /* until the next step, rest or fini */
    size_t size;
};
/* Take bytes, up to the next event. */
void ws_reader_step(struct ws_reader *r, struct ws_parts *p, const uint8_t **data, size_t *size,
                    struct ws_event *ret_ev);
/* Give back what is not needed until more bytes come. */
void ws_reader_rest(struct ws_reader *r, struct ws_parts *p);

/* May this code stand in a frame? */
bool ws_code_valid(unsigned code);
bool ws_utf8_valid(const uint8_t *s, size_t size);
#endif
