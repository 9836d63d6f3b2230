/*
 * wire.h -- what the files of Hrana over WebSocket share.
 *
 *   api_ws.c   handshake, connections, hello, who gets which message
 *   wire.c     streams: their messages one after another; cursors
 */
#ifndef SERVER_WIRE_H
#define SERVER_WIRE_H
#include "server/server_intern.h"

#define WIRE_STREAMS_MAX 1024
#define WIRE_CURSORS_MAX 64
/* Messages of a connection that wait: more are not read. */
#define WIRE_PENDING_MAX    128
#define WIRE_PENDING_STREAM 4u /* and so many more for each open stream */
/* Entries of cursors are in memory until they are fetched. So much of each connection does not
 * count; the others have limits, in units of what one answer may have (byte_max). */
#define WIRE_ENTRIES_FREE (64u << 10)
#define WIRE_ENTRIES_CONN 2 /* of one connection */
#define WIRE_ENTRIES_ALL  8

struct client;
struct wstream;
struct cursor { /* the entries of a batch, until they are fetched */
    struct cursor *next;
    int32_t id;
    struct wstream *stream;
    struct buf entries;
    size_t at;      /* of entries: fetched */
    size_t counted; /* bytes of entries */
    struct hrana_encoder *enc;
};
enum { MSG_STARTING, MSG_LEFT, MSG_DONE };
struct msg {          /* one message on its way through a stream */
    struct msg *next; /* in a queue; the last one's is the first */
    struct client *client;
    struct wstream *stream;
    struct arena *arena;
    struct hrana_ws_msg m;
    struct hrana_encoder *enc;
    struct buf out;
    struct cursor *cursor; /* OPEN_CURSOR */
    struct exec x;
    struct crew_job job;
    struct tenant_place place; /* hello */
    atomic_int state;
    int64_t since_us;
    size_t size;    /* of data */
    uint8_t data[]; /* what m points into */
};
struct wstream { /* most of them are idle, as their clients are: keep both small */
    struct wstream *next;
    struct client *client;
    struct session session;
    int32_t id;
    bool running;        /* [client lock] a message is at work, or will be */
    bool left;           /* [client lock] its client has gone, and wire_gone knows */
    bool closed;         /* nobody finds it any more */
    struct msg *waiting; /* [client lock] a queue, by its last */
};
struct client {                       /* one connection */
    struct client *next, **prev_next; /* [server's clients_lock] */
    struct server *server;
    struct ws_conn *conn;
    struct tenant *tenant; /* counted, after hello */
    struct grant *grant;
    struct stored stored;
    pthread_mutex_t lock;
    struct wstream *streams; /* [lock] */
    struct cursor *cursors;  /* [lock] */
    struct msg *held;        /* [lock] a queue, by its last: they wait for hello */
    uint64_t entries;        /* [lock] bytes of all cursors' */
    uint16_t stream_count, cursor_count, pending;
    atomic_int refs;
    atomic_bool gone;
    bool paused;
    enum { WIRE_NEW, WIRE_ASKING, WIRE_GREETED, WIRE_REFUSED } hello : 8;
    bool proto;
    enum hrana_version version : 8;
    char tenant_name[];
};

/* A queue of messages, known by its last one; NULL: empty. */
void wire_push(struct msg **last, struct msg *m);
struct msg *wire_pop(struct msg **last); /* NULL: empty */
/* A message of the connection, decoded; takes it over. On the hub's thread, or the one that has
 * ended hello. */
void wire_take(struct client *c, struct msg *m);
/* Send what was encoded; or that all is well, or not. Take m over. */
void wire_send(struct msg *m);
void wire_answer_ok(struct msg *m);
void wire_answer_error(struct msg *m, const struct sql_error *e);
void wire_msg_free(struct msg *m);
/* Protocol violation, or no memory: close. */
void wire_violation(struct client *c, unsigned code, const char *reason);
struct client *client_ref(struct client *c);
/* The client has gone: end what its streams have open, as soon as they are idle. */
void wire_gone(struct client *c);
size_t wire_pending_max(const struct client *c); /* under the lock */
void wire_fini(struct client *c);                /* streams and cursors; nothing runs any more */
#endif
