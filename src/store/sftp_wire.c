/* sftp_wire.c -- see sftp_wire.h. */
#include "store/sftp_wire.h"
#include "base/bytes.h"
#include "base/os.h"
#include <stdio.h>
#include <string.h>

#define VERSION      3
#define HEAD_SIZE    4            /* the length of a packet */
#define IN_STEP      (128u << 10) /* room for at least this much to come */
#define ATTR_SIZE    0x00000001u
#define ATTR_IDS     0x00000002u
#define ATTR_MODE    0x00000004u
#define ATTR_TIMES   0x00000008u
#define ATTR_MORE    0x80000000u
#define MODE_TYPE    0170000u
#define MODE_FOLDER  0040000u
#define MODE_FILE    0100000u
#define MODE_NEW     0600u
#define MODE_NEW_DIR 0700u

_Static_assert(SFTP_FLIGHT * 2 <= UINT8_MAX + 1, "a table that is searched is small");

struct fields { /* what is left of a packet */
    const uint8_t *p;
    size_t size;
    bool bad; /* a field was longer than the packet: all that was taken is worth nothing */
};

static enum rc ask(struct sftp *s, enum sftp_type type, uint64_t tag, size_t size, uint32_t expect,
                   struct err *err);
static void put_u32(struct sftp *s, uint32_t v);
static void put_u64(struct sftp *s, uint64_t v);
static void put_bytes(struct sftp *s, const void *data, size_t size);
static void put_text(struct sftp *s, const char *text);
static size_t text_size(const char *text);
static enum rc send_all(struct sftp *s, const struct call *c, struct err *err);
static enum rc packet(struct sftp *s, const struct call *c, struct fields *ret_fields,
                      struct err *err);
static enum rc fill(struct sftp *s, const struct call *c, size_t size, struct err *err);
static enum rc length_bad(const uint8_t *p, struct err *err);
static enum rc hello_take(struct sftp *s, struct fields f, struct err *err);
static enum rc take(struct sftp *s, struct fields f, struct sftp_reply *r, bool *ret_mine,
                    struct err *err);
static bool fits(uint8_t asked, const struct sftp_reply *r);
static enum rc body_take(struct fields *f, uint32_t data_max, struct sftp_reply *r,
                         struct err *err);
static void status_take(struct fields *f, struct sftp_reply *r);
static uint8_t take_u8(struct fields *f);
static uint32_t take_u32(struct fields *f);
static uint64_t take_u64(struct fields *f);
static struct fields take_string(struct fields *f);
static void take_attrs(struct fields *f, struct sftp_attrs *a);
static struct fields take_name(struct fields *f, struct sftp_attrs *a);
static bool same(const struct fields *f, const char *text);

bool sftp_is_folder(const struct sftp_attrs *a)
{
    return a->has_mode && (a->mode & MODE_TYPE) == MODE_FOLDER;
}

bool sftp_is_file(const struct sftp_attrs *a)
{
    return !a->has_mode || (a->mode & MODE_TYPE) == 0 || (a->mode & MODE_TYPE) == MODE_FILE;
}

enum rc sftp_start(struct sftp *s, const struct sftp_io *io, const struct call *c, struct err *err)
{
    struct fields f;
    *s = (struct sftp){.io = *io, .broken = true};
    TRY(buf_reserve(&s->out, HEAD_SIZE + 5, err));
    put_u32(s, 5);
    s->out.data[s->out.size++] = SFTP_INIT;
    put_u32(s, VERSION);
    TRY(send_all(s, c, err));
    if (packet(s, c, &f, err) != RC_OK || hello_take(s, f, err) != RC_OK)
        return err_wrap(err, "begin SFTP");
    s->broken = false;
    return RC_OK;
}

void sftp_fini(struct sftp *s)
{
    buf_fini(&s->in);
    buf_fini(&s->out);
    s->broken = true;
}

unsigned sftp_room(const struct sftp *s)
{
    unsigned free_slots = SFTP_FLIGHT * 2 - s->waiting - s->orphans;
    return free_slots < SFTP_FLIGHT - s->waiting ? free_slots : SFTP_FLIGHT - s->waiting;
}

enum rc sftp_ask_path(struct sftp *s, enum sftp_type type, uint64_t tag, const char *path,
                      struct err *err)
{
    bool mkdir_too = type == SFTP_MKDIR;
    TRY(ask(s, type, tag, text_size(path) + (mkdir_too ? 8 : 0), 0, err));
    put_text(s, path);
    if (!mkdir_too) return RC_OK;
    put_u32(s, ATTR_MODE);
    put_u32(s, MODE_NEW_DIR);
    return RC_OK;
}

enum rc sftp_ask_open(struct sftp *s, uint64_t tag, const char *path, unsigned flags,
                      struct err *err)
{
    TRY(ask(s, SFTP_OPEN, tag, text_size(path) + 12, 0, err));
    put_text(s, path);
    put_u32(s, flags);
    put_u32(s, ATTR_MODE);
    put_u32(s, MODE_NEW);
    return RC_OK;
}

enum rc sftp_ask_handle(struct sftp *s, enum sftp_type type, uint64_t tag,
                        const struct sftp_handle *h, struct err *err)
{
    TRY(ask(s, type, tag, 4 + (size_t)h->size, 0, err));
    put_bytes(s, h->bytes, h->size);
    return RC_OK;
}

enum rc sftp_ask_times(struct sftp *s, uint64_t tag, const struct sftp_handle *h, uint32_t atime,
                       uint32_t mtime, struct err *err)
{
    TRY(ask(s, SFTP_FSETSTAT, tag, 4 + (size_t)h->size + 12, 0, err));
    put_bytes(s, h->bytes, h->size);
    put_u32(s, ATTR_TIMES);
    put_u32(s, atime);
    put_u32(s, mtime);
    return RC_OK;
}

enum rc sftp_ask_fsync(struct sftp *s, uint64_t tag, const struct sftp_handle *h, struct err *err)
{
    static const char name[] = "fsync@openssh.com";
    TRY(ask(s, SFTP_EXTENDED, tag, text_size(name) + 4 + h->size, 0, err));
    put_text(s, name);
    put_bytes(s, h->bytes, h->size);
    return RC_OK;
}

enum rc sftp_ask_move(struct sftp *s, unsigned ext, uint64_t tag, const char *from, const char *to,
                      struct err *err)
{
    const char *name =
        ext == SFTP_EXT_HARDLINK ? "hardlink@openssh.com" : "posix-rename@openssh.com";
    size_t size = text_size(from) + text_size(to);
    if (ext == 0) {
        TRY(ask(s, SFTP_RENAME, tag, size, 0, err));
    } else {
        TRY(ask(s, SFTP_EXTENDED, tag, size + text_size(name), 0, err));
        put_text(s, name);
    }
    put_text(s, from);
    put_text(s, to);
    return RC_OK;
}

enum rc sftp_ask_read(struct sftp *s, uint64_t tag, const struct sftp_handle *h, uint64_t off,
                      uint32_t size, struct err *err)
{
    TRY(ask(s, SFTP_READ, tag, 4 + (size_t)h->size + 12, size, err));
    put_bytes(s, h->bytes, h->size);
    put_u64(s, off);
    put_u32(s, size);
    return RC_OK;
}

enum rc sftp_ask_write(struct sftp *s, uint64_t tag, const struct sftp_handle *h, uint64_t off,
                       uint32_t size, uint8_t **ret_room, struct err *err)
{
    TRY(ask(s, SFTP_WRITE, tag, 4 + (size_t)h->size + 12 + size, 0, err));
    put_bytes(s, h->bytes, h->size);
    put_u64(s, off);
    put_u32(s, size);
    *ret_room = s->out.data + s->out.size;
    s->out.size += size;
    return RC_OK;
}

enum rc sftp_flush(struct sftp *s, const struct call *c, struct err *err)
{
    if (s->out.size == 0) return RC_OK;
    if (s->broken) return err_set(err, RC_AGAIN, "the connection is lost");
    TRY(call_check(c, err));
    return send_all(s, c, err);
}

enum rc sftp_recv(struct sftp *s, const struct call *c, struct sftp_reply *ret_reply,
                  struct err *err)
{
    struct fields f;
    bool mine = false;
    ASSERT(s->waiting > 0);
    TRY(sftp_flush(s, c, err));
    while (!mine) {
        TRY(packet(s, c, &f, err));
        if (take(s, f, ret_reply, &mine, err) != RC_OK) {
            s->broken = true;
            return err_wrap(err, "answer of the SFTP server");
        }
    }
    return RC_OK;
}

enum rc sftp_expect(struct sftp *s, const struct call *c, enum sftp_type type,
                    struct sftp_reply *ret_reply, struct err *err)
{
    ASSERT(s->waiting == 1);
    enum rc rc = sftp_recv(s, c, ret_reply, err);
    if (rc != RC_OK) sftp_orphan(s);
    if (rc != RC_OK || type == ret_reply->type) return rc;
    return sftp_status(ret_reply, err);
}

void sftp_orphan(struct sftp *s)
{
    for (unsigned i = 0; i < SFTP_FLIGHT * 2; i++) {
        if (s->flight[i].type == 0 || s->flight[i].orphan) continue;
        if (s->flight[i].type == SFTP_OPEN || s->flight[i].type == SFTP_OPENDIR) s->broken = true;
        s->flight[i].orphan = true;
        s->orphans++;
        s->waiting--;
    }
    /* A server that answers new requests first must not fill the table with old ones. */
    if (s->orphans > SFTP_FLIGHT * 2 - SFTP_ROOM_MIN) s->broken = true;
}

bool sftp_name(struct sftp_reply *r, char ret_name[SFTP_NAME_MAX + 1], struct sftp_attrs *ret_attrs)
{
    struct fields f = {.p = r->data, .size = r->size};
    while (r->name_count > 0) {
        struct fields name = take_name(&f, ret_attrs);
        r->name_count--;
        r->data = f.p;
        r->size = f.size;
        if (name.size == 0 || name.size > SFTP_NAME_MAX || same(&name, ".") || same(&name, ".."))
            continue;
        if (memchr(name.p, '/', name.size) != NULL || memchr(name.p, '\0', name.size) != NULL)
            continue;
        memcpy(ret_name, name.p, name.size);
        ret_name[name.size] = '\0';
        return true;
    }
    return false;
}

enum rc sftp_status(const struct sftp_reply *r, struct err *err)
{
    static const struct {
        enum rc rc;
        const char *text;
    } map[] = {
        [SFTP_OK] = {RC_OK, ""},
        [SFTP_EOF] = {RC_IO, "end of file"},
        [SFTP_NO_FILE] = {RC_NOT_FOUND, "no such file"},
        [SFTP_NO_PERMISSION] = {RC_DENIED, "permission denied"},
        [SFTP_FAILURE] = {RC_IO, "failure"},
        [SFTP_BAD_MESSAGE] = {RC_IO, "bad message"},
        [SFTP_NO_CONNECTION] = {RC_AGAIN, "no connection"},
        [SFTP_LOST] = {RC_AGAIN, "connection lost"},
        [SFTP_NO_SUPPORT] = {RC_UNSUPPORTED, "operation unsupported"},
    };
    if (r->code == SFTP_OK) return RC_OK;
    return err_set(err, map[r->code].rc, "the server says: %s",
                   r->text[0] != '\0' ? r->text : map[r->code].text);
}

/* ---- Private ---- */

/* Begin a request whose fields after the id have `size` bytes; room for them is made. */
static enum rc ask(struct sftp *s, enum sftp_type type, uint64_t tag, size_t size, uint32_t expect,
                   struct err *err)
{
    unsigned i = 0;
    ASSERT(sftp_room(s) > 0 && size < SFTP_PACKET_MAX - 5);
    TRY(buf_reserve(&s->out, HEAD_SIZE + 5 + size, err));
    while (s->flight[i].type != 0)
        i++;
    s->flight[i].type = (uint8_t)type;
    s->flight[i].id = ++s->next_id;
    s->flight[i].size = expect;
    s->flight[i].tag = tag;
    s->flight[i].orphan = false;
    s->waiting++;
    put_u32(s, (uint32_t)(5 + size));
    s->out.data[s->out.size++] = (uint8_t)type;
    put_u32(s, s->next_id);
    return RC_OK;
}

static void put_u32(struct sftp *s, uint32_t v)
{
    put_be32(s->out.data + s->out.size, v);
    s->out.size += 4;
}

static void put_u64(struct sftp *s, uint64_t v)
{
    put_be64(s->out.data + s->out.size, v);
    s->out.size += 8;
}

static void put_bytes(struct sftp *s, const void *data, size_t size)
{
    put_u32(s, (uint32_t)size);
    memcpy(s->out.data + s->out.size, data, size);
    s->out.size += size;
}

static void put_text(struct sftp *s, const char *text)
{
    put_bytes(s, text, strlen(text));
}

static size_t text_size(const char *text)
{
    return 4 + strlen(text);
}

static enum rc send_all(struct sftp *s, const struct call *c, struct err *err)
{
    struct call grace = {0};
    enum rc rc = RC_OK, late = RC_OK;
    size_t done = 0, sent;
    while (done < s->out.size) {
        const struct call *now = late == RC_OK ? c : &grace;
        rc = s->io.send(s->io.ctx, now, s->out.data + done, s->out.size - done, &sent, err);
        if (rc == RC_CANCELED && late == RC_OK) {
            late = rc;
            grace.deadline_ms = os_mono_ms() + SFTP_GRACE_MS;
            continue;
        }
        if (rc != RC_OK) break;
        done += sent;
    }
    buf_reset(&s->out);
    if (rc != RC_OK) s->broken = true;
    return late != RC_OK ? err_set(err, late, "canceled while sending") : rc;
}

/* The fields of the next packet: in s->in until the next call. */
static enum rc packet(struct sftp *s, const struct call *c, struct fields *ret_fields,
                      struct err *err)
{
    TRY(fill(s, c, HEAD_SIZE, err));
    uint32_t size = get_be32(s->in.data + s->in_off);
    if (size < 5 || size > SFTP_PACKET_MAX) {
        s->broken = true;
        return length_bad(s->in.data + s->in_off, err);
    }
    TRY(fill(s, c, HEAD_SIZE + size, err));
    *ret_fields = (struct fields){.p = s->in.data + s->in_off + HEAD_SIZE, .size = size};
    s->in_off += HEAD_SIZE + size;
    return RC_OK;
}

/* Have at least `size` bytes that are not used yet. A call that ends early loses none. */
static enum rc fill(struct sftp *s, const struct call *c, size_t size, struct err *err)
{
    if (s->in.size - s->in_off >= size) return RC_OK;
    if (s->in_off > 0) buf_drop_front(&s->in, s->in_off);
    s->in_off = 0;
    TRY(buf_reserve(&s->in, (size > IN_STEP ? size : IN_STEP) - s->in.size, err));
    while (s->in.size < size) {
        size_t got = 0;
        enum rc rc =
            s->io.recv(s->io.ctx, c, s->in.data + s->in.size, s->in.cap - s->in.size, &got, err);
        if (rc != RC_OK) {
            if (rc != RC_CANCELED) s->broken = true;
            return rc;
        }
        s->in.size += got;
    }
    return RC_OK;
}

/* What an account's start-up files print comes first and is taken for a length. */
static enum rc length_bad(const uint8_t *p, struct err *err)
{
    bool text = true;
    for (int i = 0; i < HEAD_SIZE; i++)
        text = text && ((p[i] >= ' ' && p[i] < 127) || p[i] == '\n' || p[i] == '\r');
    if (text)
        return err_set(err, RC_CORRUPT,
                       "it sent text where SFTP should begin: does the account's shell print "
                       "something when it starts?");
    return err_set(err, RC_CORRUPT, "a packet of %u bytes, at least 5 and at most %u make sense",
                   get_be32(p), SFTP_PACKET_MAX);
}

static enum rc hello_take(struct sftp *s, struct fields f, struct err *err)
{
    uint8_t type = take_u8(&f);
    uint32_t version = take_u32(&f);
    if (type != SFTP_VERSION)
        return err_set(err, RC_CORRUPT, "the server's first packet has type %u, not VERSION", type);
    if (version < VERSION)
        return err_set(err, RC_UNSUPPORTED, "the server speaks version %u; 3 is needed", version);
    while (f.size > 0 && !f.bad) {
        struct fields name = take_string(&f);
        take_string(&f);
        if (f.bad) break;
        if (same(&name, "posix-rename@openssh.com")) s->exts |= SFTP_EXT_POSIX_RENAME;
        if (same(&name, "hardlink@openssh.com")) s->exts |= SFTP_EXT_HARDLINK;
        if (same(&name, "fsync@openssh.com")) s->exts |= SFTP_EXT_FSYNC;
    }
    return f.bad ? err_set(err, RC_CORRUPT, "the server's VERSION packet is cut") : RC_OK;
}

static enum rc take(struct sftp *s, struct fields f, struct sftp_reply *r, bool *ret_mine,
                    struct err *err)
{
    unsigned i = 0;
    r->type = (enum sftp_type)take_u8(&f);
    r->data = NULL;
    r->size = 0;
    uint32_t id = take_u32(&f);
    while (i < SFTP_FLIGHT * 2 && (s->flight[i].type == 0 || s->flight[i].id != id))
        i++;
    if (i == SFTP_FLIGHT * 2)
        return err_set(err, RC_CORRUPT, "it has number %u, which nothing was asked with", id);
    uint8_t asked = s->flight[i].type;
    s->flight[i].type = 0;
    *ret_mine = !s->flight[i].orphan;
    r->tag = s->flight[i].tag;
    if (*ret_mine)
        s->waiting--;
    else
        s->orphans--;
    TRY(body_take(&f, s->flight[i].size, r, err));
    if (f.bad) return err_set(err, RC_CORRUPT, "its fields (type %d) do not fit in it", r->type);
    if (!fits(asked, r))
        return err_set(err, RC_CORRUPT, "type %d code %d to a request of type %d", r->type, r->code,
                       asked);
    return RC_OK;
}

/* A STATUS may answer anything, but "OK" is no answer to whoever wanted more. */
static bool fits(uint8_t asked, const struct sftp_reply *r)
{
    enum sftp_type want = SFTP_STATUS;
    if (asked == SFTP_OPEN || asked == SFTP_OPENDIR) want = SFTP_HANDLE;
    if (asked == SFTP_READ) want = SFTP_DATA;
    if (asked == SFTP_READDIR) want = SFTP_NAME;
    if (asked == SFTP_LSTAT || asked == SFTP_STAT || asked == SFTP_FSTAT) want = SFTP_ATTRS;
    if (r->type == SFTP_STATUS) return want == SFTP_STATUS || r->code != SFTP_OK;
    return r->type == want;
}

static enum rc body_take(struct fields *f, uint32_t data_max, struct sftp_reply *r, struct err *err)
{
    struct fields part = {0};
    struct sftp_attrs ignored;
    r->code = SFTP_OK;
    r->text[0] = '\0';
    r->name_count = 0;
    switch (r->type) {
    case SFTP_STATUS:
        status_take(f, r);
        break;
    case SFTP_HANDLE:
        part = take_string(f);
        if (part.size == 0 || part.size > SFTP_HANDLE_MAX)
            return err_set(err, RC_CORRUPT, "a handle of %zu bytes", part.size);
        memcpy(r->handle.bytes, part.p, part.size);
        r->handle.size = (uint32_t)part.size;
        break;
    case SFTP_DATA:
        part = take_string(f);
        if (part.size == 0 || part.size > data_max)
            return err_set(err, RC_CORRUPT, "%zu bytes to a read of %u", part.size, data_max);
        break;
    case SFTP_NAME:
        r->name_count = take_u32(f);
        part = *f;
        for (uint32_t n = r->name_count; n > 0 && !f->bad; n--)
            take_name(f, &ignored);
        break;
    case SFTP_ATTRS:
        take_attrs(f, &r->attrs);
        break;
    default:
        return err_set(err, RC_CORRUPT, "it has the unknown type %d", r->type);
    }
    r->data = part.p;
    r->size = part.size;
    return RC_OK;
}

/* The text and its language came with version 3; old servers may end after the code. */
static void status_take(struct fields *f, struct sftp_reply *r)
{
    uint32_t code = take_u32(f);
    r->code = code <= SFTP_NO_SUPPORT ? (enum sftp_code)code : SFTP_FAILURE;
    if (f->size == 0) return;
    struct fields text = take_string(f);
    size_t size = text.size < SFTP_TEXT_MAX ? text.size : SFTP_TEXT_MAX - 1;
    for (size_t i = 0; i < size; i++) /* UTF-8 stays, what moves a terminal's cursor does not */
        r->text[i] = (char)(text.p[i] < ' ' || text.p[i] == 127 ? ' ' : text.p[i]);
    r->text[size] = '\0';
}

static uint8_t take_u8(struct fields *f)
{
    if (f->size < 1) f->bad = true;
    if (f->bad) return 0;
    f->size--;
    return *f->p++;
}

static uint32_t take_u32(struct fields *f)
{
    if (f->size < 4) f->bad = true;
    if (f->bad) return 0;
    uint32_t v = get_be32(f->p);
    f->p += 4;
    f->size -= 4;
    return v;
}

static uint64_t take_u64(struct fields *f)
{
    uint64_t high = take_u32(f);
    return high << 32 | take_u32(f);
}

static struct fields take_string(struct fields *f)
{
    uint32_t size = take_u32(f);
    if (size > f->size) f->bad = true;
    if (f->bad) return (struct fields){0};
    struct fields part = {.p = f->p, .size = size};
    f->p += size;
    f->size -= size;
    return part;
}

static void take_attrs(struct fields *f, struct sftp_attrs *a)
{
    uint32_t flags = take_u32(f);
    *a = (struct sftp_attrs){.has_size = (flags & ATTR_SIZE) != 0,
                             .has_mode = (flags & ATTR_MODE) != 0,
                             .has_times = (flags & ATTR_TIMES) != 0};
    if (a->has_size) a->size = take_u64(f);
    if (flags & ATTR_IDS) take_u64(f);
    if (a->has_mode) a->mode = take_u32(f);
    if (a->has_times) a->atime = take_u32(f);
    if (a->has_times) a->mtime = take_u32(f);
    if ((flags & ATTR_MORE) == 0) return;
    for (uint32_t n = take_u32(f); n > 0 && !f->bad; n--) {
        take_string(f);
        take_string(f);
    }
}

/* One entry of a NAME: the name, the line that "ls -l" would print, attributes. */
static struct fields take_name(struct fields *f, struct sftp_attrs *a)
{
    struct fields name = take_string(f);
    take_string(f);
    take_attrs(f, a);
    return name;
}

static bool same(const struct fields *f, const char *text)
{
    return f->size == strlen(text) && memcmp(f->p, text, f->size) == 0;
}
