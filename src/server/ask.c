/*
 * ask.c -- one request over HTTP: find its tenant and who asks, then hand it to its API.
 *
 * All of that happens on the connection's thread, unless the tenant has to be opened first.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "server/server_intern.h"

#define ARENA_FACTOR 4 /* memory for a decoded body, in sizes of the largest body */
#define PROBE_TEXT   "Hello, this is HTTP API v%d (Hrana over HTTP)"

static bool answer_plain(struct ask *a);
static void free_ask(void *ask);
static void note(struct ask *a);
static void open_tenant(struct crew_job *job);
static void open_again(struct tenant_place *p);
static void resume(struct crew_job *job);
static void go(struct ask *a);
static bool wants_upgrade(const struct http_req *r);
static bool may_enter(struct ask *a);
static bool is_known(struct ask *a);
static void no_such_tenant(struct ask *a);

void ask_handle(void *server, struct http_req *r)
{
    struct server *s = server;
    struct err err;
    struct ask *a = mem_calloc(1, sizeof *a);
    if (a == NULL) {
        http_reply_text(r, 500, "application/json", "{\"message\":\"out of memory\"}");
        return;
    }
    a->server = s;
    a->http = r;
    a->since_us = os_mono_us();
    a->class = stats_class(s->stats, NULL);
    http_set_data(r, a, free_ask);
    atomic_fetch_add_explicit(&s->asks, 1, memory_order_relaxed);
    enum rc rc = route_find(http_method(r), http_path(r), wants_upgrade(r), &a->target, &err);
    if (rc != RC_OK) {
        ask_fail_text(a, 404, "NAMESPACE_INVALID", "%s", err.text);
        return;
    }
    if (answer_plain(a)) return;
    rc = route_tenant(r, s->opts.no_default, &a->target, &err);
    if (rc != RC_OK) {
        ask_fail_text(a, rc == RC_NOT_FOUND ? 404 : 400, "NAMESPACE_INVALID", "%s", err.text);
        return;
    }
    if (a->target.route == ROUTE_WEBSOCKET) {
        api_websocket(a);
        return;
    }
    a->tenant = s->opts.ops->peek(s->opts.tenants, a->target.tenant);
    if (a->tenant != NULL)
        go(a);
    else if (!may_enter(a))
        return;
    else
        ask_to_work(a, open_tenant);
}

void ask_to_work(struct ask *a, void (*run)(struct crew_job *job))
{
    a->job.run = run;
    crew_submit(a->server->env.work, &a->job, crew_key(a->target.tenant));
}

struct ask *ask_of(struct crew_job *job)
{
    return (struct ask *)((char *)job - offsetof(struct ask, job));
}

void ask_again(struct ask *a)
{
    arena_free(a->arena);
    a->arena = NULL;
    ask_to_work(a, open_tenant);
}

void ask_resume(struct ask *a)
{
    ask_to_work(a, resume);
}

void ask_fail(struct ask *a, unsigned status, const struct sql_error *e)
{
    struct err err;
    struct buf body = BUF_INIT;
    ask_drop_session(a);
    if (hrana_put_http_error(&body, e, &err) == RC_OK) {
        http_reply(a->http, status, "application/json", &body);
        return;
    }
    buf_fini(&body);
    http_reply_text(a->http, 500, "application/json", "{\"message\":\"out of memory\"}");
}

void ask_fail_text(struct ask *a, unsigned status, const char *code, const char *fmt, ...)
{
    struct sql_error e;
    char text[sizeof e.message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sql_error_own(&e, code, "%s", text);
    ask_fail(a, status, &e);
}

void ask_fail_rc(struct ask *a, enum rc rc, const struct err *err)
{
    const char *code = rc == RC_INVALID ? "BAD_REQUEST" : rc == RC_TOO_BIG ? "TOO_BIG" : "INTERNAL";
    ask_fail_text(a, rc_http(rc), code, "%s", err->text);
}

/* Rolls back what is open. */
void ask_drop_session(struct ask *a)
{
    if (a->session == NULL) return;
    session_fini(a->session);
    mem_free(a->session);
    a->session = NULL;
}

/* What concerns no tenant, and needs no token. */
static bool answer_plain(struct ask *a)
{
    struct err err;
    switch (a->target.route) {
    case ROUTE_HEALTH:
        http_reply_text(a->http, 200, NULL, "");
        return true;
    case ROUTE_VERSION:
        http_reply_text(a->http, 200, "text/plain", "sluice " SLUICE_VERSION);
        return true;
    case ROUTE_PROBE:
        if (buf_printf(&a->out, &err, PROBE_TEXT, (int)a->target.version) == RC_OK)
            http_reply(a->http, 200, "text/plain", &a->out);
        else
            ask_fail_rc(a, RC_NO_MEM, &err);
        return true;
    case ROUTE_NONE:
        ask_fail_text(a, 404, "NOT_FOUND", "There is nothing at %s %s", http_method(a->http),
                      http_path(a->http));
        return true;
    default:
        return false;
    }
}

static void free_ask(void *ask)
{
    struct ask *a = ask;
    note(a);
    ask_drop_session(a);
    if (a->client != NULL) client_unref(a->client);
    if (a->tenant != NULL) a->server->opts.ops->release(a->server->opts.tenants, a->tenant);
    grant_unref(a->grant);
    hrana_encoder_free(a->enc);
    arena_free(a->arena);
    sync_ask_free(a->sync);
    buf_fini(&a->out);
    mem_free(a);
}

static void note(struct ask *a)
{
    enum stats_route route = STATS_ELSE;
    int64_t end_us;
    uint64_t sent;
    size_t size;
    unsigned status = http_answered(a->http, &end_us, &sent);
    (void)http_body(a->http, &size);
    if (a->target.route == ROUTE_PIPELINE) route = STATS_PIPELINE;
    if (a->target.route == ROUTE_CURSOR) route = STATS_CURSOR;
    if (a->target.route == ROUTE_V1_EXECUTE || a->target.route == ROUTE_V1_BATCH) route = STATS_V1;
    stats_ask(a->server->stats, a->class, route, status, end_us - a->since_us, size, sent);
}

/* Nobody without a token makes us open a database. Which keys are asked is known only then. */
static bool may_enter(struct ask *a)
{
    return http_header(a->http, "authorization") != NULL || is_known(a);
}

/* By the server's own keys; who is not has been answered. */
static bool is_known(struct ask *a)
{
    struct err err;
    struct sql_error e;
    const char *header = http_header(a->http, "authorization");
    if (auth_open(a->server->auth)) return true;
    grant_unref(a->grant);
    a->grant = NULL;
    enum rc rc = auth_header(a->server->auth, header, NULL, &a->grant, &e, &err);
    if (rc == RC_OK) return true;
    if (rc == RC_DENIED)
        ask_fail(a, 401, &e);
    else
        ask_fail_rc(a, rc, &err);
    return false;
}

static void open_tenant(struct crew_job *job)
{
    struct ask *a = ask_of(job);
    struct err err;
    const struct server_opts *o = &a->server->opts;
    struct tenant_place *p = &a->place;
    p->fn = open_again;
    p->gone = http_gone(a->http);
    if (p->deadline_ms == 0) p->deadline_ms = os_mono_ms() + o->open_ms;
    enum rc rc = o->ops->open_soon(o->tenants, a->target.tenant, p, &a->tenant, &err);
    if (rc == RC_AGAIN) return;          /* from here it may be gone */
    a->place = (struct tenant_place){0}; /* its tenant may be let go of, and opened once more */
    if (rc == RC_OK)
        go(a);
    else if (rc == RC_NOT_FOUND)
        no_such_tenant(a);
    else if (rc == RC_BUSY)
        ask_fail_text(a, 503, "NAMESPACE_BUSY", "%s", err.text);
    else
        ask_fail_rc(a, rc, &err);
}

/* A stranger hears the same as about one that exists. */
static void no_such_tenant(struct ask *a)
{
    if (is_known(a))
        ask_fail_text(a, 404, "NAMESPACE_NOT_FOUND", "Namespace `%s` doesn't exist",
                      a->target.tenant);
}

static void open_again(struct tenant_place *p)
{
    struct ask *a = (struct ask *)((char *)p - offsetof(struct ask, place));
    ask_to_work(a, open_tenant);
}

static void resume(struct crew_job *job)
{
    struct ask *a = ask_of(job);
    arena_free(a->arena);
    a->arena = NULL;
    go(a);
}

static void go(struct ask *a)
{
    struct err err;
    struct sql_error e;
    const char *header = http_header(a->http, "authorization");
    const struct tenant_conf *conf = atomic_load(&a->tenant->conf);
    a->class = stats_class(a->server->stats, a->tenant);
    grant_unref(a->grant);
    a->grant = NULL;
    enum rc rc = auth_header(a->server->auth, header, conf->jwt_key, &a->grant, &e, &err);
    if (rc == RC_DENIED) {
        ask_fail(a, 401, &e);
        return;
    }
    if (rc != RC_OK) {
        ask_fail_rc(a, rc, &err);
        return;
    }
    /* The same as for one that is not there: a token must not tell which names exist. */
    if (grant_for(a->grant, a->tenant->name) == GRANT_NONE) {
        ask_fail_text(a, 404, "NAMESPACE_NOT_FOUND", "Namespace `%s` doesn't exist",
                      a->target.tenant);
        return;
    }
    size_t body_max = a->server->opts.body_max * ARENA_FACTOR;
    rc = arena_new(body_max, &a->arena, &err);
    if (rc != RC_OK)
        ask_fail_rc(a, rc, &err);
    else
        ask_serve(a);
}

void ask_serve(struct ask *a)
{
    switch (a->target.route) {
    case ROUTE_PIPELINE:
        api_pipeline(a);
        break;
    case ROUTE_CURSOR:
        api_cursor(a);
        break;
    case ROUTE_V1_EXECUTE:
    case ROUTE_V1_BATCH:
        api_v1(a);
        break;
    case ROUTE_LEGACY:
        api_legacy(a);
        break;
    case ROUTE_DUMP:
        api_dump(a);
        break;
    case ROUTE_SYNC:
        api_sync(a);
        break;
    case ROUTE_PULL:
        api_pull(a);
        break;
    default:
        ask_fail_text(a, 404, "NOT_FOUND", "%s is not served here", a->target.rest);
        break;
    }
}

static bool wants_upgrade(const struct http_req *r)
{
    const char *upgrade = http_header(r, "upgrade");
    return upgrade != NULL && strcasecmp(upgrade, "websocket") == 0;
}
