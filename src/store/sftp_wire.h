/*
 * sftp_wire.h -- the client's side of SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's
 * extensions, over any stream of bytes. No sockets here: store/ssh_link is the stream in real life,
 * an array in the tests.
 *
 * A packet is   uint32 length (of what follows)  byte type  uint32 id  fields...
 * A field is a uint32, a uint64 or a string (uint32 length, bytes), all of them big-endian.
 * Attributes are uint32 flags and then, each when its flag is set: uint64 size; uint32 uid, gid;
 * uint32 mode; uint32 atime, mtime; uint32 count and as many pairs of strings.
 *
 * Requests are gathered by sftp_ask_* and go out with the next sftp_recv or sftp_flush; up to
 * SFTP_FLIGHT may wait for their answers, which come in any order and are told
 * apart by the caller's tag. The server works on the requests for one file in the order sent.
 *
 * Everything that comes in is checked here: the length of a packet (SFTP_PACKET_MAX) and of each
 * field, that the id is one that waits, that the answer fits the request, that a read brings no
 * more than was asked for. What fails a check is RC_CORRUPT. After that, or when the stream fails,
 * `broken` is set: nothing but sftp_fini makes sense then.
 *
 * Threads: one at a time.
 */
#ifndef STORE_SFTP_WIRE_H
#define STORE_SFTP_WIRE_H
#include "base/buf.h"
#include "base/thr.h"

#define SFTP_PACKET_MAX (256u << 10)
#define SFTP_BLOCK      (32u << 10) /* bytes of a file in one packet, as every server takes them */
#define SFTP_FLIGHT     64          /* requests that wait for their answers */
#define SFTP_HANDLE_MAX 256
#define SFTP_TEXT_MAX   160 /* of a server's sentence */
#define SFTP_NAME_MAX   255 /* longer names are skipped: no key has them */

struct sftp_io {
    /* Take some of the bytes, at least one. Fails: RC_AGAIN, RC_CANCELED. */
    enum rc (*send)(void *ctx, const struct call *c, const void *data, size_t size,
                    size_t *ret_size, struct err *err);
    /* Give some bytes, at least one. Fails: RC_AGAIN, also at the end; RC_CANCELED. */
    enum rc (*recv)(void *ctx, const struct call *c, void *dst, size_t size, size_t *ret_size,
                    struct err *err);
    void *ctx;
};

enum sftp_type {
    SFTP_INIT = 1,
    SFTP_VERSION = 2,
    SFTP_OPEN = 3,
    SFTP_CLOSE = 4,
    SFTP_READ = 5,
    SFTP_WRITE = 6,
    SFTP_LSTAT = 7,
    SFTP_FSTAT = 8,
    SFTP_FSETSTAT = 10,
    SFTP_OPENDIR = 11,
    SFTP_READDIR = 12,
    SFTP_REMOVE = 13,
    SFTP_MKDIR = 14,
    SFTP_STAT = 17,
    SFTP_RENAME = 18,
    SFTP_STATUS = 101,
    SFTP_HANDLE = 102,
    SFTP_DATA = 103,
    SFTP_NAME = 104,
    SFTP_ATTRS = 105,
    SFTP_EXTENDED = 200,
};
enum sftp_code {
    SFTP_OK = 0,
    SFTP_EOF = 1,
    SFTP_NO_FILE = 2,
    SFTP_NO_PERMISSION = 3,
    SFTP_FAILURE = 4,
    SFTP_BAD_MESSAGE = 5,
    SFTP_NO_CONNECTION = 6,
    SFTP_LOST = 7,
    SFTP_NO_SUPPORT = 8,
};
enum sftp_open_flags { SFTP_O_READ = 1, SFTP_O_WRITE = 2, SFTP_O_CREAT = 8, SFTP_O_EXCL = 32 };
enum sftp_ext { /* what the server offers beyond version 3 */
                SFTP_EXT_POSIX_RENAME = 1,
                SFTP_EXT_HARDLINK = 2,
                SFTP_EXT_FSYNC = 4,
};

struct sftp_attrs {
    bool has_size, has_mode, has_times;
    uint64_t size;
    uint32_t mode, atime, mtime; /* s since 1970 */
};
bool sftp_is_folder(const struct sftp_attrs *a);
bool sftp_is_file(
    const struct sftp_attrs *a); /* a server that gives no mode is taken at its word */

struct sftp_handle {
    uint32_t size;
    uint8_t bytes[SFTP_HANDLE_MAX];
};

struct sftp_reply {
    enum sftp_type type; /* STATUS, HANDLE, DATA, NAME or ATTRS; one that fits the request */
    uint64_t tag;
    enum sftp_code code;      /* STATUS; codes above 8 are turned into FAILURE */
    char text[SFTP_TEXT_MAX]; /* STATUS: what the server says; printable */
    struct sftp_handle handle;
    struct sftp_attrs attrs;
    const uint8_t *data; /* DATA, NAME: until the next call */
    size_t size;
    uint32_t name_count; /* NAME: what sftp_name has yet to give */
};

struct sftp {
    struct sftp_io io;
    struct buf in, out;
    size_t in_off; /* of the first byte in `in` that has not been used */
    uint32_t next_id;
    unsigned exts; /* enum sftp_ext bits */
    bool broken;
    unsigned waiting; /* requests whose answers the caller will get */
    unsigned orphans; /* and those whose answers are dropped */
    struct {
        uint32_t id, size; /* size: READ, how many bytes may come */
        uint8_t type;      /* 0: free; of EXTENDED too only a STATUS is expected */
        bool orphan;
        uint64_t tag;
    } flight[SFTP_FLIGHT * 2];
};

/* Say hello. Fails: RC_AGAIN; RC_CANCELED; RC_CORRUPT not an SFTP server; RC_UNSUPPORTED an older
 * version; RC_NO_MEM. s is to be ended by sftp_fini in any case. */
MUST_CHECK enum rc sftp_start(struct sftp *s, const struct sftp_io *io, const struct call *c,
                              struct err *err);
void sftp_fini(struct sftp *s);

/* Each adds one request; there must be room for it. With nothing waiting there is room for
 * SFTP_ROOM_MIN at least, and mostly for SFTP_FLIGHT. Fails: RC_NO_MEM. */
#define SFTP_ROOM_MIN (SFTP_FLIGHT / 2)
unsigned sftp_room(const struct sftp *s);
/* LSTAT, STAT, OPENDIR, REMOVE, MKDIR (0700). */
MUST_CHECK enum rc sftp_ask_path(struct sftp *s, enum sftp_type type, uint64_t tag,
                                 const char *path, struct err *err);
/* New files are 0600. */
MUST_CHECK enum rc sftp_ask_open(struct sftp *s, uint64_t tag, const char *path, unsigned flags,
                                 struct err *err);
/* CLOSE, FSTAT, READDIR. */
MUST_CHECK enum rc sftp_ask_handle(struct sftp *s, enum sftp_type type, uint64_t tag,
                                   const struct sftp_handle *h, struct err *err);
MUST_CHECK enum rc sftp_ask_times(struct sftp *s, uint64_t tag, const struct sftp_handle *h,
                                  uint32_t atime, uint32_t mtime, struct err *err);
MUST_CHECK enum rc sftp_ask_fsync(struct sftp *s, uint64_t tag, const struct sftp_handle *h,
                                  struct err *err);
/* ext 0: the plain RENAME; or SFTP_EXT_POSIX_RENAME, SFTP_EXT_HARDLINK. */
MUST_CHECK enum rc sftp_ask_move(struct sftp *s, unsigned ext, uint64_t tag, const char *from,
                                 const char *to, struct err *err);
MUST_CHECK enum rc sftp_ask_read(struct sftp *s, uint64_t tag, const struct sftp_handle *h,
                                 uint64_t off, uint32_t size, struct err *err);
/* *ret_room: where the caller puts the size bytes, before the next call. */
MUST_CHECK enum rc sftp_ask_write(struct sftp *s, uint64_t tag, const struct sftp_handle *h,
                                  uint64_t off, uint32_t size, uint8_t **ret_room, struct err *err);

/* Send what was asked. A packet is never left half sent: a cancelled call still has SFTP_GRACE_MS
 * for the rest. Fails: RC_AGAIN, RC_CANCELED. */
#define SFTP_GRACE_MS 2000
MUST_CHECK enum rc sftp_flush(struct sftp *s, const struct call *c, struct err *err);
/* Flush, and the next answer to a request of ours that is no orphan. One must be under way.
 * Fails: RC_AGAIN, RC_CANCELED, RC_CORRUPT, RC_NO_MEM. */
MUST_CHECK enum rc sftp_recv(struct sftp *s, const struct call *c, struct sftp_reply *ret_reply,
                             struct err *err);
/* The same, for a caller with one request under way that wants this type: a STATUS, when it is not
 * what was asked for, becomes a failure (sftp_status). */
MUST_CHECK enum rc sftp_expect(struct sftp *s, const struct call *c, enum sftp_type type,
                               struct sftp_reply *ret_reply, struct err *err);
/* Nobody wants the answers to come any more. With an OPEN or OPENDIR among them the handle would be
 * lost, and the connection counts as broken. */
void sftp_orphan(struct sftp *s);
/* The next name of a NAME answer. False: no more. A name with '/' or a NUL, "." and ".." and those
 * too long are skipped. Its bytes were checked by sftp_recv. */
bool sftp_name(struct sftp_reply *r, char ret_name[SFTP_NAME_MAX + 1],
               struct sftp_attrs *ret_attrs);
/* A failure from a STATUS: RC_OK for SFTP_OK; NO_FILE RC_NOT_FOUND; NO_PERMISSION RC_DENIED;
 * NO_CONNECTION, LOST RC_AGAIN; NO_SUPPORT RC_UNSUPPORTED; else RC_IO. */
MUST_CHECK enum rc sftp_status(const struct sftp_reply *r, struct err *err);
#endif
