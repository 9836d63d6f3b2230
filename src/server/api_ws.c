/*
 * api_ws.c -- Hrana over WebSocket: the handshake, connections, hello.
 *
 * A connection is counted: once for its socket, once for each message on its way. Its streams end
 * with the last of them.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/wire.h"

struct subprotocol {
    const char *name;
    enum hrana_version version;
    bool proto;
};
static const struct subprotocol subprotocols[] = {
    /* the best first */
    {"hrana3-protobuf", HRANA_3, true},
    {"hrana3", HRANA_3, false},
    {"hrana2", HRANA_2, false},
    {"hrana1", HRANA_1, false},
};
static const struct subprotocol unnamed = {NULL, HRANA_1, false};

struct hello { /* its tenant must be opened first */
    struct crew_job job;
    struct msg *m;
};

static void enlist(struct client *c);
static const struct subprotocol *choose(const char *offered);
static bool offers(const char *list, const char *name);
static enum rc put_headers(struct ask *a, const struct subprotocol *p, struct err *err);
static void upgraded(void *ctx, int fd, const void *extra, size_t extra_size);
static void on_message(void *ctx, struct ws_conn *conn, bool binary, const void *data, size_t size);
static void on_closed(void *ctx, struct ws_conn *conn);
static enum rc msg_new(struct client *c, const void *data, size_t size, struct msg **ret_m,
                       struct err *err);
static void hello(struct client *c, struct msg *m);
static void open_tenant(struct crew_job *job);
static void open_again(struct tenant_place *p);
static void greet(struct msg *m);
static void refuse(struct msg *m, const struct sql_error *e);
static void take_held(struct client *c);
static void drop_held(struct client *c);

void api_websocket(struct ask *a)
{
    struct err err;
    struct server *s = a->server;
    const char *offered = http_header(a->http, "sec-websocket-protocol");
    const struct subprotocol *p = offered != NULL ? choose(offered) : &unnamed;
    if (p == NULL) {
        http_reply_text(a->http, 400, "text/plain",
                        "Only these WebSocket subprotocols are spoken here: hrana3-protobuf, "
                        "hrana3, hrana2, hrana1");
        return;
    }
    enum rc rc = put_headers(a, p, &err);
    if (rc != RC_OK) {
        ask_fail_rc(a, rc, &err);
        return;
    }
    size_t name_size = strlen(a->target.tenant) + 1;
    struct client *c = mem_calloc(1, offsetof(struct client, tenant_name) + name_size);
    if (c == NULL) {
        ask_fail_text(a, 500, "INTERNAL", "out of memory");
        return;
    }
    c->server = s;
    c->version = p->version;
    c->proto = p->proto;
    memcpy(c->tenant_name, a->target.tenant, name_size);
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    atomic_fetch_add(&s->ws_open, 1);
    enlist(c);
    a->client = c; /* when the client has gone, the upgrade never comes */
    http_upgrade(a->http, upgraded, a);
}

void api_ws_drop_tenant(struct server *s, const char *name)
{
    thr_lock(&s->clients_lock);
    for (struct client *c = s->clients; c != NULL; c = c->next) {
        if (strcmp(c->tenant_name, name) != 0) continue;
        thr_lock(&c->lock);
        struct ws_conn *conn = c->conn; /* stays as long as c, which is in the list */
        thr_unlock(&c->lock);
        if (conn != NULL) ws_close(conn, 1012, "the namespace is being changed");
    }
    thr_unlock(&s->clients_lock);
}

struct client *client_ref(struct client *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void client_unref(struct client *c)
{
    if (atomic_fetch_sub(&c->refs, 1) != 1) return;
    struct server *s = c->server;
    thr_lock(&s->clients_lock);
    *c->prev_next = c->next;
    if (c->next != NULL) c->next->prev_next = c->prev_next;
    thr_unlock(&s->clients_lock);
    wire_fini(c);
    stored_fini(&c->stored);
    grant_unref(c->grant);
    if (c->tenant != NULL) s->opts.ops->release(s->opts.tenants, c->tenant);
    if (c->conn != NULL) ws_unref(c->conn);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
    atomic_fetch_sub(&s->ws_open, 1);
}

static void enlist(struct client *c)
{
    struct server *s = c->server;
    thr_lock(&s->clients_lock);
    c->next = s->clients;
    if (c->next != NULL) c->next->prev_next = &c->next;
    s->clients = c;
    c->prev_next = &s->clients;
    thr_unlock(&s->clients_lock);
}

/* ---- Handshake ---- */

static const struct subprotocol *choose(const char *offered)
{
    for (size_t i = 0; i < sizeof subprotocols / sizeof subprotocols[0]; i++)
        if (offers(offered, subprotocols[i].name)) return &subprotocols[i];
    return NULL;
}

static bool offers(const char *list, const char *name)
{
    size_t size = strlen(name);
    while (*list != '\0') {
        list += strspn(list, " \t,");
        size_t one = strcspn(list, " \t,");
        if (one == size && strncasecmp(list, name, size) == 0) return true;
        list += one;
    }
    return false;
}

static enum rc put_headers(struct ask *a, const struct subprotocol *p, struct err *err)
{
    char accept[WS_ACCEPT_SIZE];
    const char *version = http_header(a->http, "sec-websocket-version");
    if (version == NULL || strcmp(version, "13") != 0)
        return err_set(err, RC_INVALID, "Sec-WebSocket-Version must be 13");
    const char *key = http_header(a->http, "sec-websocket-key");
    if (key == NULL) return err_set(err, RC_INVALID, "Sec-WebSocket-Key is missing");
    TRY(ws_accept_key(key, accept, err));
    TRY(http_add_header(a->http, "Upgrade", "websocket", err));
    TRY(http_add_header(a->http, "Sec-WebSocket-Accept", accept, err));
    if (p->name == NULL) return RC_OK;
    return http_add_header(a->http, "Sec-WebSocket-Protocol", p->name, err);
}

static void upgraded(void *ctx, int fd, const void *extra, size_t extra_size)
{
    static const struct ws_events events = {on_message, on_closed};
    struct ask *a = ctx;
    struct client *c = a->client;
    struct err err;
    /* on_message may come before ws_add has returned: it counts the connection for us. */
    struct server *s = c->server;
    thr_lock(&s->clients_lock);
    bool added =
        s->hub != NULL && ws_add(s->hub, fd, extra, extra_size, &events, c, NULL, &err) == RC_OK;
    thr_unlock(&s->clients_lock);
    if (added)
        a->client = NULL;
    else
        os_close(fd);
}

/* ---- Messages ---- */

static void on_message(void *ctx, struct ws_conn *conn, bool binary, const void *data, size_t size)
{
    struct client *c = ctx;
    struct err err;
    struct msg *m = NULL;
    if (c->conn == NULL) {
        ws_ref(conn);
        thr_lock(&c->lock);
        c->conn = conn;
        thr_unlock(&c->lock);
    }
    if (binary != c->proto) {
        ws_close(conn, 1003, c->proto ? "binary messages are expected" : "text is expected");
        return;
    }
    if (msg_new(c, data, size, &m, &err) != RC_OK) {
        ws_close(conn, err.rc == RC_NO_MEM ? 1011 : err.rc == RC_TOO_BIG ? 1009 : 1007, err.text);
        return;
    }
    if (m->m.hello) {
        hello(c, m);
        return;
    }
    thr_lock(&c->lock);
    bool early = c->hello == WIRE_ASKING, greeted = c->hello == WIRE_GREETED;
    if (early) wire_push(&c->held, m);
    thr_unlock(&c->lock);
    if (early) return;
    if (greeted) {
        wire_take(c, m);
        return;
    }
    wire_violation(c, 1008, "a request came before hello");
    wire_msg_free(m);
}

static void on_closed(void *ctx, struct ws_conn *conn)
{
    struct client *c = ctx;
    (void)conn;
    atomic_store(&c->gone, true);
    wire_gone(c);
    client_unref(c);
}

static enum rc msg_new(struct client *c, const void *data, size_t size, struct msg **ret_m,
                       struct err *err)
{
    struct msg *m = mem_calloc(1, sizeof *m + size + 1);
    if (m == NULL) return err_mem(err, "a message");
    memcpy(m->data, data, size);
    m->size = size;
    m->since_us = os_mono_us();
    m->client = client_ref(c);
    atomic_fetch_add(&c->server->ws_busy, 1);
    thr_lock(&c->lock); /* also for ws_pause: whoever resumes must come after it */
    if (++c->pending > wire_pending_max(c) && !c->paused) {
        c->paused = true;
        ws_pause(c->conn);
    }
    thr_unlock(&c->lock);
    const struct hrana_decoder *d = c->proto ? &hrana_proto_decoder : &hrana_json_decoder;
    enum rc rc = arena_new(c->server->opts.body_max, &m->arena, err);
    if (rc == RC_OK) rc = d->ws(m->arena, c->version, m->data, size, &m->m, err);
    if (rc == RC_OK)
        rc = hrana_encoder_new(c->proto, HRANA_FRAME_WS, c->version, &m->out, &m->enc, err);
    if (rc == RC_OK) rc = hrana_put_begin(m->enc, NULL, NULL, err);
    if (rc != RC_OK) {
        wire_msg_free(m);
        return rc;
    }
    *ret_m = m;
    return RC_OK;
}

/* ---- Hello ---- */

static void hello(struct client *c, struct msg *m)
{
    struct server *s = c->server;
    thr_lock(&c->lock);
    bool again = c->hello != WIRE_NEW;
    bool allowed = !again || (c->hello == WIRE_GREETED && c->version >= HRANA_2);
    if (allowed && !again) c->hello = WIRE_ASKING;
    thr_unlock(&c->lock);
    if (!allowed) {
        wire_violation(c, 1008, "hello was said already");
        wire_msg_free(m);
        return;
    }
    if (c->tenant == NULL) c->tenant = s->opts.ops->peek(s->opts.tenants, c->tenant_name);
    if (c->tenant != NULL) {
        greet(m);
        return;
    }
    m->place = (struct tenant_place){
        .fn = open_again, .gone = &c->gone, .deadline_ms = os_mono_ms() + s->opts.open_ms};
    open_again(&m->place);
}

static void open_again(struct tenant_place *p)
{
    struct msg *m = (struct msg *)((char *)p - offsetof(struct msg, place));
    m->job.run = open_tenant;
    crew_submit(m->client->server->env.work, &m->job, crew_key(m->client->tenant_name));
}

static void open_tenant(struct crew_job *job)
{
    struct msg *m = (struct msg *)((char *)job - offsetof(struct msg, job));
    struct client *c = m->client;
    struct err err;
    struct sql_error e;
    const struct server_opts *o = &c->server->opts;
    enum rc rc = RC_OK;
    if (!auth_open(c->server->auth) && m->m.jwt == NULL && c->grant == NULL)
        rc = auth_token(c->server->auth, NULL, NULL, &c->grant, &e, &err);
    if (rc != RC_OK && rc != RC_DENIED) sql_error_own(&e, "INTERNAL", "%s", err.text);
    if (rc != RC_OK) {
        refuse(m, &e);
        return;
    }
    rc = o->ops->open_soon(o->tenants, c->tenant_name, &m->place, &c->tenant, &err);
    if (rc == RC_AGAIN) return; /* from here it may be gone */
    if (rc == RC_OK) {
        greet(m);
        return;
    }
    bool missing = rc == RC_NOT_FOUND;
    /* A stranger hears the same as about one that exists. */
    if (missing && c->grant == NULL)
        rc = auth_token(c->server->auth, m->m.jwt, NULL, &c->grant, &e, &err);
    if (missing && rc != RC_DENIED)
        sql_error_own(&e, "NAMESPACE_NOT_FOUND", "Namespace `%s` doesn't exist", c->tenant_name);
    else if (!missing)
        sql_error_own(&e, rc == RC_BUSY ? "NAMESPACE_BUSY" : "INTERNAL", "%s", err.text);
    refuse(m, &e);
}

static void greet(struct msg *m)
{
    struct client *c = m->client;
    struct grant *grant = NULL;
    struct err err;
    struct sql_error e;
    const struct tenant_conf *conf = atomic_load(&c->tenant->conf);
    enum rc rc = auth_token(c->server->auth, m->m.jwt, conf->jwt_key, &grant, &e, &err);
    if (rc != RC_OK && rc != RC_DENIED) sql_error_own(&e, "INTERNAL", "%s", err.text);
    if (rc == RC_OK && grant_for(grant, c->tenant->name) == GRANT_NONE) {
        sql_error_own(&e, "NAMESPACE_NOT_FOUND", "Namespace `%s` doesn't exist", c->tenant_name);
        grant_unref(grant);
        rc = RC_DENIED;
    }
    if (rc != RC_OK) {
        refuse(m, &e);
        return;
    }
    if (hrana_put_hello(m->enc, NULL, &err) != RC_OK) {
        grant_unref(grant);
        wire_violation(c, 1011, "out of memory");
        drop_held(c);
        wire_msg_free(m);
        return;
    }
    thr_lock(&c->lock);
    struct grant *old = c->grant;
    c->grant = grant;
    thr_unlock(&c->lock);
    grant_unref(old);
    client_ref(c);
    wire_send(m);
    take_held(c);
    client_unref(c);
}

static void refuse(struct msg *m, const struct sql_error *e)
{
    struct client *c = client_ref(m->client);
    struct err ignored;
    if (hrana_put_hello(m->enc, e, &ignored) == RC_OK)
        wire_send(m);
    else
        wire_msg_free(m);
    drop_held(c);
    ws_close(c->conn, 1008, "hello was refused");
    client_unref(c);
}

/* What came while hello was on its way; what comes meanwhile queues up behind it. */
static void take_held(struct client *c)
{
    for (;;) {
        thr_lock(&c->lock);
        struct msg *m = wire_pop(&c->held);
        if (m == NULL) c->hello = WIRE_GREETED;
        thr_unlock(&c->lock);
        if (m == NULL) return;
        wire_take(c, m);
    }
}

/* Hello went wrong: nobody will answer what came behind it. */
static void drop_held(struct client *c)
{
    thr_lock(&c->lock);
    c->hello = WIRE_REFUSED;
    struct msg *held = c->held;
    c->held = NULL;
    thr_unlock(&c->lock);
    for (struct msg *m; (m = wire_pop(&held)) != NULL;)
        wire_msg_free(m);
}
