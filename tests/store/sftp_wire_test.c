/* sftp_wire_test.c -- SFTP packets over a stream that is an array: what is asked, byte for byte;
 * what honest answers become, however they are cut; and that no answer can do harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/bytes.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/sftp_wire.h"

#define ok(expr) assert_ok((expr), __LINE__)

/* The server: what it sends is fixed beforehand, what it gets is kept. */
struct peer {
    struct buf in, out; /* in: to the client */
    size_t at, cut;     /* up to cut comes in one piece, what follows byte by byte or whole */
    size_t step;
    atomic_bool *cancel_at_end;
    unsigned sends_left; /* then sending fails; 0: never */
};

static struct err err;

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static enum rc peer_send(void *ctx, const struct call *c, const void *data, size_t size,
                         size_t *ret_size, struct err *e)
{
    struct peer *p = ctx;
    TRY(call_check(c, e));
    if (p->sends_left > 0 && --p->sends_left == 0) return err_set(e, RC_AGAIN, "cut");
    *ret_size = p->step > 0 && size > p->step ? p->step : size;
    return buf_append(&p->out, data, *ret_size, e);
}

static enum rc peer_recv(void *ctx, const struct call *c, void *dst, size_t size, size_t *ret_size,
                         struct err *e)
{
    struct peer *p = ctx;
    TRY(call_check(c, e));
    size_t left = p->in.size - p->at;
    if (left == 0 && p->cancel_at_end != NULL) {
        atomic_store(p->cancel_at_end, true);
        return call_check(c, e);
    }
    if (left == 0) return err_set(e, RC_AGAIN, "the end");
    if (p->at < p->cut && left > p->cut - p->at) left = p->cut - p->at;
    if (p->step > 0 && left > p->step) left = p->step;
    if (left > size) left = size;
    memcpy(dst, p->in.data + p->at, left);
    p->at += left;
    *ret_size = left;
    return RC_OK;
}

static void peer_fini(struct peer *p)
{
    buf_fini(&p->in);
    buf_fini(&p->out);
}

static struct sftp_io io_of(struct peer *p)
{
    return (struct sftp_io){.send = peer_send, .recv = peer_recv, .ctx = p};
}

/* ---- Packets of the server ---- */

static void u32(struct buf *b, uint32_t v)
{
    uint8_t bytes[4];
    put_be32(bytes, v);
    ok(buf_append(b, bytes, 4, &err));
}

static void u64(struct buf *b, uint64_t v)
{
    u32(b, (uint32_t)(v >> 32));
    u32(b, (uint32_t)v);
}

static void text(struct buf *b, const char *s)
{
    u32(b, (uint32_t)strlen(s));
    ok(buf_append(b, s, strlen(s), &err));
}

static size_t begin(struct buf *b, uint8_t type, uint32_t id)
{
    size_t at = b->size;
    u32(b, 0);
    ok(buf_append(b, &type, 1, &err));
    u32(b, id);
    return at;
}

static void end(struct buf *b, size_t at)
{
    put_be32(b->data + at, (uint32_t)(b->size - at - 4));
}

static void hello(struct buf *b)
{
    size_t at = begin(b, SFTP_VERSION, 3);
    text(b, "posix-rename@openssh.com"), text(b, "1");
    text(b, "someone@example.com"), text(b, "");
    text(b, "hardlink@openssh.com"), text(b, "1");
    end(b, at);
}

static void status(struct buf *b, uint32_t id, uint32_t code, const char *words)
{
    size_t at = begin(b, SFTP_STATUS, id);
    u32(b, code);
    text(b, words), text(b, "en");
    end(b, at);
}

static void handle(struct buf *b, uint32_t id, const char *h)
{
    size_t at = begin(b, SFTP_HANDLE, id);
    text(b, h);
    end(b, at);
}

static void data(struct buf *b, uint32_t id, const char *bytes)
{
    size_t at = begin(b, SFTP_DATA, id);
    text(b, bytes);
    end(b, at);
}

static void attrs_fields(struct buf *b, uint64_t size, uint32_t mode)
{
    u32(b, 0x8000000fu);
    u64(b, size);
    u32(b, 1000), u32(b, 1000);
    u32(b, mode);
    u32(b, 11), u32(b, 22);
    u32(b, 1);
    text(b, "x@example.com"), text(b, "y");
}

static void attrs(struct buf *b, uint32_t id, uint64_t size, uint32_t mode)
{
    size_t at = begin(b, SFTP_ATTRS, id);
    attrs_fields(b, size, mode);
    end(b, at);
}

static void names(struct buf *b, uint32_t id, const char *const *list, uint32_t count)
{
    size_t at = begin(b, SFTP_NAME, id);
    u32(b, count);
    for (uint32_t i = 0; i < count; i++) {
        text(b, list[i]), text(b, "-rw-r--r-- 1 a b 5 Jan 1 00:00 x");
        attrs_fields(b, i, 0100644);
    }
    end(b, at);
}

/* ---- One conversation with everything in it ---- */

static const char *const listing[] = {".", "..", "a", "a/b", "", "b"};

static void script(struct buf *b)
{
    hello(b);
    handle(b, 1, "h1");
    attrs(b, 2, 5000000000, 0100600);
    data(b, 4, "world"); /* the second read's answer comes first */
    data(b, 3, "hello");
    status(b, 5, SFTP_EOF, "End of file");
    names(b, 6, listing, 6);
    status(b, 7, SFTP_FAILURE, "disk\x1b[2J full");
    status(b, 8, SFTP_OK, "");
}

/* What the client makes of it, as text; RC_OK or the first failure. */
static enum rc converse(struct sftp *s, const struct call *c, struct buf *log)
{
    struct sftp_reply r;
    struct sftp_attrs a;
    char name[SFTP_NAME_MAX + 1];
    uint8_t *room;
    TRY(sftp_ask_open(s, 100, "/d/f", SFTP_O_READ, &err));
    TRY(sftp_expect(s, c, SFTP_HANDLE, &r, &err));
    struct sftp_handle h = r.handle;
    TRY(buf_printf(log, &err, "handle %.*s;", (int)h.size, h.bytes));
    TRY(sftp_ask_handle(s, SFTP_FSTAT, 101, &h, &err));
    TRY(sftp_expect(s, c, SFTP_ATTRS, &r, &err));
    TRY(buf_printf(log, &err, "size %llu mode %o times %u %u;", (unsigned long long)r.attrs.size,
                   r.attrs.mode, r.attrs.atime, r.attrs.mtime));
    TRY(sftp_ask_read(s, 3, &h, 0, 5, &err));
    TRY(sftp_ask_read(s, 4, &h, 5, 5, &err));
    for (int i = 0; i < 2; i++) {
        TRY(sftp_recv(s, c, &r, &err));
        TRY(buf_printf(log, &err, "read %d: %.*s;", (int)r.tag, (int)r.size, r.data));
    }
    TRY(sftp_ask_read(s, 5, &h, 10, 5, &err));
    TRY(sftp_recv(s, c, &r, &err));
    TRY(buf_printf(log, &err, "code %d;", r.code));
    TRY(sftp_ask_handle(s, SFTP_READDIR, 6, &h, &err));
    TRY(sftp_recv(s, c, &r, &err));
    while (sftp_name(&r, name, &a))
        TRY(buf_printf(log, &err, "name %s %d;", name, (int)a.size));
    TRY(sftp_ask_write(s, 7, &h, 0, 3, &room, &err));
    memcpy(room, "abc", 3);
    TRY(sftp_recv(s, c, &r, &err));
    TRY(buf_printf(log, &err, "write %d '%s';", r.code, r.text));
    TRY(sftp_ask_handle(s, SFTP_CLOSE, 8, &h, &err));
    TRY(sftp_expect(s, c, SFTP_STATUS, &r, &err));
    return buf_printf(log, &err, "close %d", r.code);
}

#define LOG                                                                                        \
    "handle h1;size 5000000000 mode 100600 times 11 22;read 4: world;read 3: hello;code 1;"        \
    "name a 2;name b 5;write 4 'disk [2J full';close 0"

static enum rc run(struct peer *p, const struct call *c, struct buf *log)
{
    struct sftp s;
    struct sftp_io io = io_of(p);
    enum rc rc = sftp_start(&s, &io, c, &err);
    if (rc == RC_OK) rc = converse(&s, c, log);
    if (rc == RC_CORRUPT || rc == RC_AGAIN) assert_true(s.broken);
    sftp_fini(&s);
    return rc;
}

static void assert_log(const struct buf *log, const char *want)
{
    assert_int_equal(log->size, strlen(want));
    assert_memory_equal(log->data, want, log->size);
}

static void test_cut_everywhere(void **state)
{
    (void)state;
    CLEANUP(peer_fini) struct peer p = {0};
    script(&p.in);
    for (size_t cut = 0; cut <= p.in.size; cut++) {
        CLEANUP(buf_fini) struct buf log = BUF_INIT;
        p.at = 0;
        p.cut = cut;
        buf_reset(&p.out);
        ok(run(&p, NULL, &log));
        assert_log(&log, LOG);
        assert_int_equal(p.at, p.in.size);
    }
    CLEANUP(buf_fini) struct buf log = BUF_INIT, whole = BUF_INIT;
    ok(buf_append(&whole, p.out.data, p.out.size, &err));
    p.at = 0;
    p.step = 1; /* byte by byte, both ways */
    buf_reset(&p.out);
    ok(run(&p, NULL, &log));
    assert_log(&log, LOG);
    assert_int_equal(p.out.size, whole.size);
    assert_memory_equal(p.out.data, whole.data, whole.size);
}

/* The stream ends at every offset. */
static void test_end_everywhere(void **state)
{
    (void)state;
    CLEANUP(peer_fini) struct peer p = {0};
    script(&p.in);
    size_t whole = p.in.size;
    for (size_t size = 0; size < whole; size++) {
        CLEANUP(buf_fini) struct buf log = BUF_INIT;
        p.at = 0;
        p.in.size = size;
        assert_int_equal(run(&p, NULL, &log), RC_AGAIN);
        assert_true(log.size < strlen(LOG));
    }
    p.in.size = whole;
    for (unsigned sends = 1; sends <= 8; sends++) {
        CLEANUP(buf_fini) struct buf log = BUF_INIT;
        p.at = 0;
        p.sends_left = sends;
        assert_int_equal(run(&p, NULL, &log), RC_AGAIN);
    }
}

/* Bytes of honest answers are replaced: whatever comes of it, no harm is done (the sanitizers
 * watch), and it ends. */
static void test_noise(void **state)
{
    (void)state;
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff, 101, 102, 103, 104, 105};
    CLEANUP(peer_fini) struct peer p = {0};
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)os_random();
    unsigned corrupt = 0;
    print_message("seed %u\n", seed);
    script(&p.in);
    for (size_t at = 0; at < p.in.size; at++) {
        for (size_t i = 0; i < sizeof values; i++) {
            CLEANUP(buf_fini) struct buf log = BUF_INIT;
            uint8_t old = p.in.data[at];
            p.in.data[at] = values[i];
            p.at = 0;
            buf_reset(&p.out);
            corrupt += run(&p, NULL, &log) == RC_CORRUPT;
            p.in.data[at] = old;
        }
    }
    for (int round = 0; round < 20000; round++) {
        CLEANUP(peer_fini) struct peer q = {0};
        CLEANUP(buf_fini) struct buf log = BUF_INIT;
        ok(buf_append(&q.in, p.in.data, p.in.size, &err));
        for (int n = 1 + rand_r(&seed) % 6; n > 0; n--)
            q.in.data[(size_t)rand_r(&seed) % q.in.size] = (uint8_t)rand_r(&seed);
        corrupt += run(&q, NULL, &log) == RC_CORRUPT;
    }
    assert_true(corrupt > 100);
}

/* ---- Single lies ---- */

/* Start, ask with `ask`, take what `tell` has put on the wire. */
static enum rc lie(void (*tell)(struct buf *), enum rc (*ask)(struct sftp *))
{
    CLEANUP(peer_fini) struct peer p = {0};
    struct sftp s;
    struct sftp_reply r;
    hello(&p.in);
    tell(&p.in);
    struct sftp_io io = io_of(&p);
    ok(sftp_start(&s, &io, NULL, &err));
    ok(ask(&s));
    enum rc rc = sftp_recv(&s, NULL, &r, &err);
    assert_int_equal(s.broken, rc != RC_OK);
    sftp_fini(&s);
    return rc;
}

static const struct sftp_handle some_handle = {.size = 1, .bytes = "h"};

static enum rc ask_read(struct sftp *s)
{
    return sftp_ask_read(s, 0, &some_handle, 0, 4, &err);
}
static enum rc ask_open(struct sftp *s)
{
    return sftp_ask_open(s, 0, "f", SFTP_O_READ, &err);
}
static enum rc ask_names(struct sftp *s)
{
    return sftp_ask_handle(s, SFTP_READDIR, 0, &some_handle, &err);
}
static enum rc ask_stat(struct sftp *s)
{
    return sftp_ask_path(s, SFTP_LSTAT, 0, "f", &err);
}
static enum rc ask_remove(struct sftp *s)
{
    return sftp_ask_path(s, SFTP_REMOVE, 0, "f", &err);
}
static void tell_right(struct buf *b)
{
    data(b, 1, "abcd");
}
static void tell_more(struct buf *b)
{
    data(b, 1, "abcde");
}
static void tell_nothing(struct buf *b)
{
    data(b, 1, "");
}
static void tell_other_id(struct buf *b)
{
    data(b, 2, "abcd");
}
static void tell_ok(struct buf *b)
{
    status(b, 1, SFTP_OK, "");
}
static void tell_attrs(struct buf *b)
{
    attrs(b, 1, 1, 1);
}
static void tell_empty_handle(struct buf *b)
{
    handle(b, 1, "");
}
static void tell_long_handle(struct buf *b)
{
    char h[SFTP_HANDLE_MAX + 2];
    memset(h, 'h', sizeof h);
    h[sizeof h - 1] = '\0';
    handle(b, 1, h);
}
static void tell_count(struct buf *b)
{
    size_t at = begin(b, SFTP_NAME, 1);
    u32(b, UINT32_MAX);
    end(b, at);
}
static void tell_extended(struct buf *b)
{
    size_t at = begin(b, SFTP_ATTRS, 1);
    u32(b, 0x80000000u);
    u32(b, UINT32_MAX);
    end(b, at);
}
static void tell_string(struct buf *b)
{
    size_t at = begin(b, SFTP_DATA, 1);
    u32(b, UINT32_MAX);
    end(b, at);
}
static void tell_huge(struct buf *b)
{
    u32(b, SFTP_PACKET_MAX + 1);
    u32(b, 0);
}
static void tell_short(struct buf *b)
{
    u32(b, 4);
    u32(b, 0);
}
static void tell_type(struct buf *b)
{
    end(b, begin(b, 77, 1));
}
static void tell_bare_status(struct buf *b) /* as servers before version 3 did */
{
    size_t at = begin(b, SFTP_STATUS, 1);
    u32(b, SFTP_OK);
    end(b, at);
}

static void test_lies(void **state)
{
    (void)state;
    static const struct {
        void (*tell)(struct buf *);
        enum rc (*ask)(struct sftp *);
        enum rc want;
    } rows[] = {
        {tell_right, ask_read, RC_OK},
        {tell_more, ask_read, RC_CORRUPT},
        {tell_nothing, ask_read, RC_CORRUPT},
        {tell_other_id, ask_read, RC_CORRUPT},
        {tell_ok, ask_read, RC_CORRUPT},
        {tell_ok, ask_open, RC_CORRUPT},
        {tell_ok, ask_names, RC_CORRUPT},
        {tell_ok, ask_stat, RC_CORRUPT},
        {tell_ok, ask_remove, RC_OK},
        {tell_bare_status, ask_remove, RC_OK},
        {tell_attrs, ask_remove, RC_CORRUPT},
        {tell_attrs, ask_open, RC_CORRUPT},
        {tell_attrs, ask_stat, RC_OK},
        {tell_empty_handle, ask_open, RC_CORRUPT},
        {tell_long_handle, ask_open, RC_CORRUPT},
        {tell_count, ask_names, RC_CORRUPT},
        {tell_extended, ask_stat, RC_CORRUPT},
        {tell_string, ask_read, RC_CORRUPT},
        {tell_huge, ask_read, RC_CORRUPT},
        {tell_short, ask_read, RC_CORRUPT},
        {tell_type, ask_read, RC_CORRUPT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum rc rc = lie(rows[i].tell, rows[i].ask);
        if (rc != rows[i].want) fail_msg("row %zu: %s", i, rc_name(rc));
    }
}

static enum rc greet(const void *bytes, size_t size)
{
    CLEANUP(peer_fini) struct peer p = {0};
    struct sftp s;
    ok(buf_append(&p.in, bytes, size, &err));
    struct sftp_io io = io_of(&p);
    enum rc rc = sftp_start(&s, &io, NULL, &err);
    assert_true(s.broken || rc == RC_OK);
    sftp_fini(&s);
    return rc;
}

static void test_greetings(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    hello(&b);
    ok(greet(b.data, b.size));
    b.data[8] = 2;
    assert_int_equal(greet(b.data, b.size), RC_UNSUPPORTED);
    b.data[8] = 3;
    b.data[4] = SFTP_STATUS;
    assert_int_equal(greet(b.data, b.size), RC_CORRUPT);
    static const char motd[] = "Welcome to this machine!\n";
    assert_int_equal(greet(motd, sizeof motd - 1), RC_CORRUPT);
    assert_non_null(strstr(err.text, "shell"));
}

/* ---- The codes ---- */

static void test_codes(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        enum rc rc;
    } rows[] = {{0, RC_OK},          {1, RC_IO}, {2, RC_NOT_FOUND},  {3, RC_DENIED},
                {4, RC_IO},          {5, RC_IO}, {6, RC_AGAIN},      {7, RC_AGAIN},
                {8, RC_UNSUPPORTED}, {9, RC_IO}, {4000000000, RC_IO}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CLEANUP(peer_fini) struct peer p = {0};
        struct sftp s;
        struct sftp_reply r;
        hello(&p.in);
        status(&p.in, 1, rows[i].code, i % 2 ? "its own words" : "");
        struct sftp_io io = io_of(&p);
        ok(sftp_start(&s, &io, NULL, &err));
        ok(ask_remove(&s));
        ok(sftp_recv(&s, NULL, &r, &err));
        assert_int_equal(sftp_status(&r, &err), rows[i].rc);
        if (i % 2) assert_non_null(strstr(err.text, "its own words"));
        sftp_fini(&s);
    }
}

/* ---- Answers that nobody wants ---- */

static void test_orphans(void **state)
{
    (void)state;
    CLEANUP(peer_fini) struct peer p = {0};
    struct sftp s;
    struct sftp_reply r;
    hello(&p.in);
    for (uint32_t id = 1; id <= SFTP_FLIGHT; id++)
        data(&p.in, id, "late");
    status(&p.in, SFTP_FLIGHT + 1, SFTP_OK, "");
    struct sftp_io io = io_of(&p);
    ok(sftp_start(&s, &io, NULL, &err));
    assert_int_equal(sftp_room(&s), SFTP_FLIGHT);
    for (unsigned i = 0; i < SFTP_FLIGHT; i++)
        ok(ask_read(&s));
    assert_int_equal(sftp_room(&s), 0);
    ok(sftp_flush(&s, NULL, &err));
    sftp_orphan(&s);
    assert_false(s.broken);
    assert_true(sftp_room(&s) >= SFTP_ROOM_MIN);
    ok(ask_remove(&s));
    ok(sftp_expect(&s, NULL, SFTP_STATUS, &r, &err)); /* behind all that came late */
    assert_int_equal(s.orphans, 0);
    ok(ask_open(&s));
    sftp_orphan(&s);
    assert_true(s.broken); /* a handle that nobody would close */
    sftp_fini(&s);
}

/* A call that is cancelled between two pieces of an answer: the next one finds the stream whole. */
static void test_cancel(void **state)
{
    (void)state;
    atomic_bool cancel = false;
    struct call c = {.cancel = &cancel};
    CLEANUP(peer_fini) struct peer p = {.cancel_at_end = &cancel};
    struct sftp s;
    struct sftp_reply r;
    hello(&p.in);
    data(&p.in, 1, "abcd");
    status(&p.in, 2, SFTP_OK, "");
    size_t whole = p.in.size;
    struct sftp_io io = io_of(&p);
    p.step = 3; /* so that the start does not read ahead */
    p.in.size = whole - 20;
    ok(sftp_start(&s, &io, NULL, &err));
    ok(ask_read(&s));
    ok(sftp_recv(&s, NULL, &r, &err));
    ok(ask_remove(&s));
    assert_int_equal(sftp_expect(&s, &c, SFTP_STATUS, &r, &err), RC_CANCELED);
    assert_false(s.broken);
    assert_int_equal(s.orphans, 1);
    p.in.size = whole;
    status(&p.in, 3, SFTP_OK, "");
    cancel = false;
    ok(ask_remove(&s));
    ok(sftp_expect(&s, &c, SFTP_STATUS, &r, &err));
    assert_int_equal(s.orphans, 0);
    sftp_fini(&s);
}

/* Cancelled before anything is sent: nothing is sent. */
static void test_cancel_sending(void **state)
{
    (void)state;
    atomic_bool cancel = true;
    struct call c = {.cancel = &cancel};
    CLEANUP(peer_fini) struct peer p = {0};
    struct sftp s;
    hello(&p.in);
    struct sftp_io io = io_of(&p);
    ok(sftp_start(&s, &io, NULL, &err));
    buf_reset(&p.out);
    ok(ask_read(&s));
    assert_int_equal(sftp_flush(&s, &c, &err), RC_CANCELED);
    assert_int_equal(p.out.size, 0);
    assert_false(s.broken);
    sftp_fini(&s);
}

/* ---- What goes out ---- */

static void assert_asked(struct sftp *s, struct peer *p, const void *want, size_t size, int line)
{
    buf_reset(&p->out);
    ok(sftp_flush(s, NULL, &err));
    if (p->out.size != size || memcmp(p->out.data, want, size) != 0)
        fail_msg("line %d: other bytes, %zu of them", line, p->out.size);
}
#define asked(bytes) assert_asked(&s, &p, bytes, sizeof(bytes) - 1, __LINE__)

static void test_requests(void **state)
{
    (void)state;
    CLEANUP(peer_fini) struct peer p = {0};
    struct sftp s;
    uint8_t *room;
    hello(&p.in);
    struct sftp_io io = io_of(&p);
    ok(sftp_start(&s, &io, NULL, &err));
    assert_int_equal(p.out.size, 9);
    assert_memory_equal(p.out.data, "\0\0\0\5\1\0\0\0\3", 9);
    assert_int_equal(s.exts, SFTP_EXT_POSIX_RENAME | SFTP_EXT_HARDLINK);
    ok(sftp_ask_open(&s, 0, "/f", SFTP_O_WRITE | SFTP_O_CREAT | SFTP_O_EXCL, &err));
    asked("\0\0\0\27\3\0\0\0\1\0\0\0\2/f\0\0\0\52\0\0\0\4\0\0\1\x80");
    ok(sftp_ask_write(&s, 0, &some_handle, 0x0102030405060708, 2, &room, &err));
    memcpy(room, "ab", 2);
    asked("\0\0\0\30\6\0\0\0\2\0\0\0\1h\1\2\3\4\5\6\7\x08\0\0\0\2ab");
    ok(sftp_ask_read(&s, 0, &some_handle, 256, 9, &err));
    asked("\0\0\0\26\5\0\0\0\3\0\0\0\1h\0\0\0\0\0\0\1\0\0\0\0\x09");
    ok(sftp_ask_times(&s, 0, &some_handle, 7, 8, &err));
    asked("\0\0\0\26\12\0\0\0\4\0\0\0\1h\0\0\0\x08\0\0\0\7\0\0\0\x08");
    ok(sftp_ask_path(&s, SFTP_MKDIR, 0, "d", &err));
    asked("\0\0\0\22\16\0\0\0\5\0\0\0\1d\0\0\0\4\0\0\1\xc0");
    ok(sftp_ask_move(&s, 0, 0, "a", "b", &err));
    asked("\0\0\0\17\22\0\0\0\6\0\0\0\1a\0\0\0\1b");
    ok(sftp_ask_move(&s, SFTP_EXT_HARDLINK, 0, "a", "b", &err));
    asked("\0\0\0\47\xc8\0\0\0\7\0\0\0\24hardlink@openssh.com\0\0\0\1a\0\0\0\1b");
    ok(sftp_ask_fsync(&s, 0, &some_handle, &err));
    asked("\0\0\0\37\xc8\0\0\0\x08\0\0\0\21fsync@openssh.com\0\0\0\1h");
    sftp_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_everywhere), cmocka_unit_test(test_end_everywhere),
        cmocka_unit_test(test_noise),          cmocka_unit_test(test_lies),
        cmocka_unit_test(test_greetings),      cmocka_unit_test(test_codes),
        cmocka_unit_test(test_orphans),        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_sending), cmocka_unit_test(test_requests),
    };
    return cmocka_run_group_tests_name("sftp_wire", tests, NULL, NULL);
}
