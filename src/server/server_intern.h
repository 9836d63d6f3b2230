/*
 * server_intern.h -- what the front ends share.
 *
 *   server.c      start, stop, the clock       route.c     which URL means what, and which tenant
 *   ask.c         a request: tenant, grant      api_hrana.c pipeline, cursor, v1
 *   api_ws.c      Hrana over WebSocket          api_misc.c  dump, the old POST /
 *   admin.c       the administrator's port
 *   api_sync.c, api_pull.c, sync_desk.c  replicas
 */
#ifndef SERVER_SERVER_INTERN_H
#define SERVER_SERVER_INTERN_H
#include "server/batons.h"
#include "server/exec.h"
#include "server/http.h"
#include "server/server.h"
#include "server/stats.h"
#include "server/ws.h"

enum route {
    ROUTE_NONE,
    ROUTE_HEALTH,
    ROUTE_VERSION,
    ROUTE_PROBE, /* GET /v2 and the like: "this version is spoken here" */
    ROUTE_PIPELINE,
    ROUTE_CURSOR,
    ROUTE_V1_EXECUTE,
    ROUTE_V1_BATCH,
    ROUTE_WEBSOCKET,
    ROUTE_LEGACY, /* POST / */
    ROUTE_DUMP,
    ROUTE_SYNC, /* /info, /export, /sync */
    ROUTE_PULL, /* /pull-updates */
};
struct target {
    enum route route;
    enum hrana_version version;
    bool proto;
    const char *rest;               /* of the path, behind what names the route */
    char tenant[AUTH_NAME_MAX + 1]; /* of the path; "": none */
};
/* Fails: RC_INVALID a name of a tenant that cannot be. */
MUST_CHECK enum rc route_find(const char *method, const char *path, bool upgrade,
                              struct target *ret, struct err *err);
/* From header or host name, unless the path has said it. Fails: RC_INVALID; RC_NOT_FOUND none. */
MUST_CHECK enum rc route_tenant(const struct http_req *r, bool no_default, struct target *t,
                                struct err *err);

struct client;
struct sync_desk;
struct sync_ask;
struct server {
    struct server_opts opts;
    struct http_server *http, *admin;
    struct ws_hub *hub;
    struct auth *auth;
    struct batons *batons;
    struct exec_env env;
    struct stats *stats;
    struct sync_desk *sync;
    pthread_t ticker;
    bool ticking;
    atomic_bool stop;
    int64_t started_ms;
    _Atomic uint64_t asks, ws_open;
    pthread_mutex_t clients_lock;
    struct client *clients;   /* [clients_lock] connections over WebSocket */
    _Atomic uint64_t ws_busy; /* messages that are not answered */
    _Atomic uint64_t entries; /* bytes of cursors over WebSocket, beyond what is free (wire.h) */
};

/* One request over HTTP, from its arrival to its answer. */
struct ask {
    struct server *server;
    struct http_req *http;
    struct target target;
    struct tenant *tenant; /* counted */
    struct grant *grant;
    struct arena *arena;
    struct session *session;
    struct hrana_encoder *enc;
    struct buf out;
    struct exec x;
    struct hrana_request request; /* cursor, v1 */
    struct baton_id promise;
    struct client *client;  /* WebSocket: until its upgrade has come */
    bool streaming, broken; /* broken: something is missing from what was streamed */
    unsigned class;         /* of its tenant, which may have gone with a stream when this ends */
    int64_t since_us;
    struct sync_ask *sync; /* replicas */
    struct crew_job job;
    struct tenant_place place;
    struct baton_wait wait; /* for its stream */
};
void ask_handle(void *server, struct http_req *r); /* for http_opts.handle */
/* With tenant and grant known: on a thread that must not wait. */
void ask_serve(struct ask *a);
void ask_to_work(struct ask *a, void (*run)(struct crew_job *job));
struct ask *ask_of(struct crew_job *job);
/* From its beginning: its tenant was released meanwhile. */
void ask_again(struct ask *a);
/* Once more, with its tenant. */
void ask_resume(struct ask *a);
/* Answers. */
void ask_fail(struct ask *a, unsigned status, const struct sql_error *e);
void ask_fail_text(struct ask *a, unsigned status, const char *code, const char *fmt, ...)
    FMT(4, 5);
/* Status for what has no sql_error, by rc. */
void ask_fail_rc(struct ask *a, enum rc rc, const struct err *err);
void ask_drop_session(struct ask *a);

void api_pipeline(struct ask *a);
void api_cursor(struct ask *a);
void api_v1(struct ask *a);
void api_legacy(struct ask *a);
void api_dump(struct ask *a);
void api_sync(struct ask *a);
void api_pull(struct ask *a);
void api_websocket(struct ask *a);
/* Close those of a tenant, because it goes, or its keys do. */
void api_ws_drop_tenant(struct server *s, const char *name);
void client_unref(struct client *c);
void sync_ask_free(struct sync_ask *y); /* NULL is fine */
void admin_handle(void *server, struct http_req *r);
const char *admin_spill(void *server, const struct http_req *r); /* for http_opts.spill */
#endif
