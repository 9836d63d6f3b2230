/*
 * session.h -- a stream of Hrana: the SQL stream of its tenant and the texts that the client has
 * stored under numbers. Over HTTP it lives from baton to baton, over a WebSocket as long as that.
 *
 * Threads: one at a time.
 */
#ifndef SERVER_SESSION_H
#define SERVER_SESSION_H
#include "server/hrana.h"
#include "server/tenant.h"
#include "sql/stream.h"

#define SESSION_ATTACHED_MAX     4
#define SESSION_STORED_MAX       1024      /* texts */
#define SESSION_STORED_BYTES_MAX (4 << 20) /* of all of them */

struct stored_sql {
    int32_t id;
    size_t size;
    char *text;
};
struct stored { /* by ascending id */
    struct stored_sql *list;
    uint32_t count, cap, bytes;
};
/* Replaces an old one of that number. Fails: RC_TOO_BIG; RC_NO_MEM. */
MUST_CHECK enum rc stored_set(struct stored *s, int32_t id, const char *text, size_t size,
                              struct err *err);
void stored_drop(struct stored *s, int32_t id); /* an unknown one is fine */
const struct stored_sql *stored_find(const struct stored *s, int32_t id); /* NULL: none */
void stored_fini(struct stored *s);

struct session {
    struct sql_stream stream;
    struct tenant *tenant; /* counted; released by session_fini's caller */
    struct grant *grant;   /* who asks now; counted */
    struct stored own;
    struct stored *stored;     /* its own, or that of the WebSocket */
    struct attached *attached; /* other tenants that it reads; NULL: none */
};
void session_init(struct session *s, struct tenant *tenant);
/* Who asks with this request. */
void session_grant(struct session *s, struct grant *grant);
/* Keep another tenant, counted, until the session ends. Fails: RC_TOO_BIG; RC_NO_MEM. */
MUST_CHECK enum rc session_attach(struct session *s, const struct tenants_ops *ops,
                                  struct tenants *tenants, struct tenant *other, struct err *err);
/* Ends the stream: rolls back. */
void session_fini(struct session *s);
#endif
