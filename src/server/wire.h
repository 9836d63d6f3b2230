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
#define WIRE_PENDING_STREAM 4 /* and so many more for each open stream */

struct client;
struct wstream;
struct cursor { /* the entries of a batch, until they are fetched */
    struct cursor *next;
    int32_t id;
    struct wstream *stream;
    struct buf entries;
    size_t at; /* of entries: fetched */
    struct hrana_encoder *enc;
};
enum { MSG_STARTING, MSG_LEFT, MSG_DONE };
struct msg { /* one message on its way through a stream */
    struct msg *next;
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
struct wstream {
    struct wstream *next;
    struct client *client;
    int32_t id;
    struct session session;
    bool running;             /* [client lock] a message is at work, or will be */
    bool left;                /* [client lock] its client has gone, and wire_gone knows */
    bool closed;              /* nobody finds it any more */
    struct msg *head, **tail; /* [client lock] that wait */
};
struct client {                       /* one connection */
    struct client *next, **prev_next; /* [server's clients_lock] */
    struct server *server;
    struct ws_conn *conn;
    struct tenant *tenant; /* counted, after hello */
    struct grant *grant;
    enum hrana_version version;
    bool proto;
    char tenant_name[AUTH_NAME_MAX + 1];
    atomic_int refs;
    atomic_bool gone;
    struct stored stored;
    pthread_mutex_t lock;
    enum { WIRE_NEW, WIRE_ASKING, WIRE_GREETED, WIRE_REFUSED } hello;
    struct wstream *streams; /* [lock] */
    struct cursor *cursors;  /* [lock] */
    size_t stream_count, cursor_count, pending;
    bool paused;
    struct msg *held, **held_tail; /* wait for hello */
};

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
