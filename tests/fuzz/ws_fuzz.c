/*
 * ws_fuzz.c -- what a WebSocket client may send: the reader says what a simple second reader says,
 * however the bytes are cut. The first byte says how: 0 whole, else in pieces of up to so many.
 */
#include "base/bytes.h"
#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "server/hrana_intern.h"
#include "server/ws_read.h"

#define MESSAGE_MAX 5000

struct said {
    size_t count, size;
    unsigned code; /* of what is bad; 0: nothing */
    uint8_t bytes[2 * FUZZ_SIZE_MAX];
};

static void say(struct said *s, enum ws_event_kind kind, unsigned detail, const void *data,
                size_t size)
{
    CHECK(s->size + size + 6 <= sizeof s->bytes);
    s->count++;
    s->bytes[s->size++] = (uint8_t)kind;
    put_be16(s->bytes + s->size, (uint16_t)detail);
    put_be16(s->bytes + s->size + 2, (uint16_t)size);
    s->size += 4;
    if (size > 0) memcpy(s->bytes + s->size, data, size);
    s->size += size;
}

static void read_pieces(const uint8_t *data, size_t size, size_t piece, struct said *s)
{
    atomic_size_t sum = 0;
    struct ws_parts parts = {.message_max = MESSAGE_MAX, .sum = &sum, .sum_max = 1 << 20};
    struct ws_reader r = {0};
    struct ws_event ev = {0};
    for (size_t at = 0; at < size && ev.kind != WS_EV_BAD;) {
        size_t n = piece == 0 || size - at < piece ? size - at : 1 + (at * 7 + piece) % piece;
        const uint8_t *from = data + at;
        at += n;
        do {
            ws_reader_step(&r, &parts, &from, &n, &ev);
            if (ev.kind == WS_EV_MORE) break;
            if (ev.kind == WS_EV_BAD) {
                CHECK(ev.why != NULL && ws_code_valid(ev.code));
                s->code = ev.code;
                break;
            }
            if (ev.kind == WS_EV_MESSAGE) CHECK(((const uint8_t *)ev.data)[ev.size] == '\0');
            say(s, ev.kind, ev.kind == WS_EV_MESSAGE ? ev.binary : ev.code, ev.data, ev.size);
            if (at % 3 == 0) ws_reader_rest(&r, &parts);
        } while (true);
        if (ev.kind == WS_EV_MORE) CHECK(n == 0);
        if (ev.kind == WS_EV_MORE && at % 2 == 0) ws_reader_rest(&r, &parts);
    }
    ws_reader_fini(&r, &parts);
    ws_parts_fini(&parts);
    CHECK(atomic_load(&sum) == 0);
}

static bool utf8(const uint8_t *s, size_t size)
{
    size_t ignored, n;
    for (size_t at = 0; at < size; at += n)
        if ((n = hrana_utf8(s + at, size - at, &ignored)) == 0) return false;
    return true;
}

/* Could it become a text? Whatever the second byte of its last character will be. */
static bool utf8_begins(const uint8_t *s, size_t size)
{
    uint8_t more[MESSAGE_MAX + 4];
    memcpy(more, s, size);
    for (size_t missing = 0; missing < 4; missing++)
        for (unsigned next = 0x80; next < 0xc0; next++) {
            memset(more + size, 0x80, 4);
            more[size] = (uint8_t)next;
            if (utf8(more, size + missing)) return true;
        }
    return false;
}

static unsigned close_code(const uint8_t *data, size_t size, struct said *s)
{
    unsigned code = size > 1 ? get_be16(data) : 0;
    bool known = code != 1004 && code != 1005 && code != 1006 && code != 1015 && code >= 1000;
    if (size == 1 || (size > 1 && (!known || (code > 1015 && code < 3000) || code > 4999)))
        return 1002;
    if (size > 2 && !utf8(data + 2, size - 2)) return 1007;
    say(s, WS_EV_CLOSE, code, data + 2, size > 2 ? size - 2 : 0);
    return 0;
}

/* The second reader: the whole input, one frame after the other. A frame's head is judged when the
 * first of its payload is there. */
static unsigned expect(const uint8_t *d, size_t size, struct said *s)
{
    static uint8_t msg[MESSAGE_MAX];
    size_t used = 0;
    unsigned begun = 0;
    for (size_t at = 0; size - at >= 2;) {
        unsigned first = d[at], opcode = first & 15, low = d[at + 1] & 127;
        size_t head = low < 126 ? 2 : low == 126 ? 4 : 10;
        bool control = opcode > 7, masked = d[at + 1] > 127;
        uint8_t payload[FUZZ_SIZE_MAX], mask[4] = {0};
        if (control && (low > 125 || first < 128)) return 1002;
        if (size - at < head) return 0;
        uint64_t n = low < 126 ? low : low == 126 ? get_be16(d + at + 2) : get_be64(d + at + 2);
        if ((head == 4 && n < 126) || (head == 10 && (n < 65536 || n >> 63))) return 1002;
        if (size - at < head + (masked ? 4 : 0)) return 0;
        if (masked) memcpy(mask, d + at + head, 4);
        at += head + (masked ? 4 : 0);
        if (at == size && n > 0) return 0;
        if (!masked || (first & 0x70) || (opcode > 2 && opcode < 8) || opcode > 10) return 1002;
        if (!control && (opcode == 0) == (begun == 0)) return 1002;
        if (!control && n > MESSAGE_MAX - used) return 1009;
        size_t there = n < size - at ? (size_t)n : size - at;
        for (size_t i = 0; i < there; i++)
            payload[i] = d[at + i] ^ mask[i % 4];
        if (!control && opcode > 0) begun = opcode;
        if (!control) memcpy(msg + used, payload, there);
        if (!control && begun == 1 && !utf8_begins(msg, used + there)) return 1007;
        if (there < n) return 0;
        at += there;
        if (opcode == 8) {
            unsigned code = close_code(payload, there, s);
            if (code != 0) return code;
        } else if (control) {
            say(s, opcode == 9 ? WS_EV_PING : WS_EV_PONG, 0, payload, there);
        } else {
            used += there;
            if (first < 128) continue;
            if (begun == 1 && !utf8(msg, used)) return 1007;
            say(s, WS_EV_MESSAGE, begun == 2, msg, used);
            used = begun = 0;
        }
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct said said, want;
    if (size == 0 || size > FUZZ_SIZE_MAX) return 0;
    said.count = said.size = said.code = 0;
    want = said;
    read_pieces(data + 1, size - 1, data[0], &said);
    want.code = expect(data + 1, size - 1, &want);
    CHECK(said.code == want.code);
    CHECK(said.count == want.count && said.size == want.size);
    CHECK(memcmp(said.bytes, want.bytes, said.size) == 0);
    return 0;
}

static size_t frame(uint8_t *out, unsigned first, const char *text, size_t size)
{
    size_t n = size < 126 ? 2 : 4;
    out[0] = (uint8_t)first;
    out[1] = (uint8_t)(0x80 | (size < 126 ? size : 126));
    if (n == 4) put_be16(out + 2, (uint16_t)size);
    memcpy(out + n, "\x11\x22\x33\x44", 4);
    for (size_t i = 0; i < size; i++)
        out[n + 4 + i] = (uint8_t)text[i % strlen(text)] ^ out[n + i % 4];
    return n + 4 + size;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    size_t at = 1;
    out[0] = (uint8_t)(n * 5);
    at += frame(out + at, n & 1 ? 0x81 : 0x01, "h\xc3\xa9llo", 6 * (n % 40));
    if (n & 2) at += frame(out + at, 0x89, "ping", n % 126);
    if (!(n & 1)) at += frame(out + at, 0x80, "\xe2\x82\xac", 3 * (n % 50));
    at += frame(out + at, 0x82, "\xff\xfe", 4500 * (n & 1));
    if (n & 4) at += frame(out + at, 0x88, "\x03\xe8 bye", 2 + n % 5);
    at += frame(out + at, 0x8a, "x", n % 2);
    return at;
}
