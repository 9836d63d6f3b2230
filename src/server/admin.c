/*
 * admin.c -- the administrator's port: which URL means what, who may come, what is answered.
 *
 * The routes are libSQL's and some of our own (docs/admin-api.md). All that touches tenants runs on
 * the working crew.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "base/mem.h"
#include "server/admin_intern.h"

#define JSON "application/json"

enum { TAKES_JSON = 1, NEW_NAME = 2, NEW_TO = 4, EXISTS_400 = 8, LOOKS = 16 };
struct admin_route {
    const char *method, *path; /* ":ns" and ":to" stand for a name */
    admin_fn *run;
    unsigned flags;
};
static const struct admin_route routes[] = {
    {"GET", "/metrics", admin_metrics, LOOKS},
    {"GET", "/v1/diagnostics", admin_diagnostics, LOOKS},
    {"GET", "/v1/namespaces", admin_list, LOOKS},
    {"GET", "/v1/namespaces/:ns", admin_describe, LOOKS},
    {"DELETE", "/v1/namespaces/:ns", admin_remove, TAKES_JSON},
    {"POST", "/v1/namespaces/:ns/create", admin_create, TAKES_JSON | NEW_NAME | EXISTS_400},
    {"POST", "/v1/namespaces/:ns/fork/:to", admin_fork, TAKES_JSON | NEW_TO | EXISTS_400},
    {"POST", "/v1/namespaces/:ns/rename/:to", admin_rename, NEW_TO},
    {"POST", "/v1/namespaces/:ns/restore", admin_restore, TAKES_JSON},
    {"GET", "/v1/namespaces/:ns/config", admin_get_config, 0},
    {"POST", "/v1/namespaces/:ns/config", admin_set_config, TAKES_JSON},
    {"POST", "/v1/namespaces/:ns/checkpoint", admin_checkpoint, 0},
    {"GET", "/v1/namespaces/:ns/stats", admin_stats, LOOKS},
    {"DELETE", "/v1/namespaces/:ns/stats/top", admin_clear_top, 0},
    {"DELETE", "/v1/namespaces/:ns/stats/slowest", admin_clear_slowest, 0},
    {"GET", "/v1/namespaces/:ns/export", admin_export, 0},
    {"PUT", "/v1/namespaces/:ns/import", admin_import, NEW_NAME},
    {"POST", "/v1/namespaces/:ns/import", admin_import, NEW_NAME},
    {"POST", "/v1/namespaces/:ns/tokens", admin_tokens, TAKES_JSON},
    {"GET", "/v1/namespaces/:ns/tokens/rotate", admin_rotation, 0},
    {"POST", "/v1/namespaces/:ns/tokens/rotate", admin_rotate, 0},
};
struct piece {
    const char *text;
    size_t size;
};

static void free_admin(void *admin);
static bool answer_plain(struct http_req *r);
static void find(struct admin *a, bool *ret_known);
static bool matches(const char *pattern, const char *path, struct piece *ns, struct piece *to);
static enum rc take_name(const struct piece *p, bool create, char out[AUTH_NAME_MAX + 1],
                         struct err *err);
static bool safe_from_browsers(const struct http_req *r);
static bool is_numeric(const char *host, size_t size);
static void run(struct crew_job *job);
static void fail(struct http_req *r, unsigned status, const char *code, const char *text);

void admin_handle(void *server, struct http_req *r)
{
    struct server *s = server;
    unsigned status;
    const char *why;
    bool known = false;
    if (answer_plain(r)) return;
    if (!admin_may(s, r, &status, &why)) {
        fail(r, status, status == 401 ? "UNAUTHORIZED" : "FORBIDDEN", why);
        return;
    }
    struct admin *a = mem_calloc(1, sizeof *a);
    if (a == NULL) {
        fail(r, 500, "NO_MEM", "out of memory");
        return;
    }
    a->server = s;
    a->http = r;
    http_set_data(r, a, free_admin);
    find(a, &known);
    if (a->route == NULL) {
        fail(r, known ? 405 : 404, known ? "METHOD_NOT_ALLOWED" : "NOT_FOUND",
             known ? "This path wants another method; see docs/admin-api.md"
                   : "There is nothing at this path; see docs/admin-api.md");
        return;
    }
    a->job.run = run;
    /* Those that may wait for a tenant have their own share of threads; these are no names. */
    crew_submit(s->env.work, &a->job, crew_key((a->route->flags & LOOKS) != 0 ? "" : "*"));
}

const char *admin_spill(void *server, const struct http_req *r)
{
    struct server *s = server;
    unsigned status;
    const char *why;
    struct admin a = {.server = s, .http = (struct http_req *)(uintptr_t)r};
    bool known;
    if (s->opts.spill_dir == NULL || !admin_may(s, r, &status, &why)) return NULL;
    find(&a, &known);
    return a.route != NULL && a.route->run == admin_import ? s->opts.spill_dir : NULL;
}

bool admin_may(const struct server *s, const struct http_req *r, unsigned *ret_status,
               const char **ret_why)
{
    const char *key = s->opts.admin_key;
    *ret_status = 401;
    *ret_why = "The admin key is missing or wrong: Authorization: Bearer KEY";
    if (key != NULL) return auth_admin(http_header(r, "authorization"), key);
    *ret_status = 403;
    *ret_why = "Without an admin key only those on this machine may come";
    if (!http_from_loopback(r)) return false;
    *ret_why = "Without an admin key no browser may come: Origin or Host is another site's";
    return safe_from_browsers(r);
}

void admin_evict(struct server *s, const char *name)
{
    batons_drop_tenant(s->batons, name);
    api_ws_drop_tenant(s, name);
}

static void free_admin(void *admin)
{
    struct admin *a = admin;
    json_decref(a->body);
    mem_free(a);
}

/* What everybody may see. */
static bool answer_plain(struct http_req *r)
{
    if (strcmp(http_method(r), "GET") != 0) return false;
    if (strcmp(http_path(r), "/") == 0)
        http_reply_text(r, 200, "text/plain", "sluice " SLUICE_VERSION ": administration\n");
    else if (strcmp(http_path(r), "/health") == 0)
        http_reply_text(r, 200, NULL, "");
    else
        return false;
    return true;
}

/* ---- Routes ---- */

static void find(struct admin *a, bool *ret_known)
{
    const char *method = http_method(a->http), *path = http_path(a->http);
    struct piece ns, to;
    *ret_known = false;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!matches(routes[i].path, path, &ns, &to)) continue;
        *ret_known = true;
        if (strcmp(routes[i].method, method) == 0) a->route = &routes[i];
    }
}

static bool matches(const char *pattern, const char *path, struct piece *ns, struct piece *to)
{
    *ns = *to = (struct piece){NULL, 0};
    while (*pattern != '\0') {
        if (*pattern != ':') {
            if (*pattern++ != *path++) return false;
            continue;
        }
        struct piece *p = pattern[1] == 'n' ? ns : to;
        *p = (struct piece){path, strcspn(path, "/")};
        path += p->size;
        pattern += 3;
    }
    if (path[0] == '/' && path[1] == '\0') path++;
    return *path == '\0';
}

static enum rc take_name(const struct piece *p, bool create, char out[AUTH_NAME_MAX + 1],
                         struct err *err)
{
    if (p->text == NULL) return RC_OK;
    TRY(auth_check_name(p->text, p->size, create, err));
    memcpy(out, p->text, p->size);
    out[p->size] = '\0';
    return RC_OK;
}

/* A page of any site can make a browser on this machine send requests here; what cannot be faked is
 * where they come from (Origin), and whom they are for (Host), if a name was made to point here. */
static bool safe_from_browsers(const struct http_req *r)
{
    const char *host = http_header(r, "host");
    if (http_header(r, "origin") != NULL) return false;
    if (host == NULL || host[0] == '[' || host[0] == '\0') return true;
    size_t size = strcspn(host, ":");
    return (size == 9 && strncasecmp(host, "localhost", size) == 0) || is_numeric(host, size);
}

static bool is_numeric(const char *host, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (host[i] != '.' && (host[i] < '0' || host[i] > '9')) return false;
    return true;
}

/* ---- Work ---- */

static enum rc prepare(struct admin *a, struct err *err)
{
    struct piece ns, to;
    unsigned flags = a->route->flags;
    size_t size;
    (void)matches(a->route->path, http_path(a->http), &ns, &to);
    TRY(take_name(&ns, (flags & NEW_NAME) != 0, a->name, err));
    TRY(take_name(&to, (flags & NEW_TO) != 0, a->to, err));
    if ((flags & TAKES_JSON) == 0) return RC_OK;
    const void *body = http_body(a->http, &size);
    return admin_json_read(body, size, &a->body, err);
}

static void run(struct crew_job *job)
{
    struct admin *a = (struct admin *)((char *)job - offsetof(struct admin, job));
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    struct err err;
    enum rc rc = prepare(a, &err);
    if (rc == RC_OK) rc = a->route->run(a, &out, &err);
    if (a->streaming) {
        http_stream_end(a->http, rc == RC_OK);
        return;
    }
    if (rc != RC_OK) {
        unsigned status = rc_http(rc);
        if (rc == RC_CONFLICT && (a->route->flags & EXISTS_400) != 0) status = 400;
        fail(a->http, status, rc_name(rc), err.text);
        return;
    }
    const char *type = a->type != NULL ? a->type : JSON;
    if (out.size == 0 && a->type == NULL)
        http_reply_text(a->http, 200, JSON, "{}");
    else
        http_reply(a->http, 200, type, &out);
}

static void fail(struct http_req *r, unsigned status, const char *code, const char *text)
{
    struct sql_error e;
    struct buf body = BUF_INIT;
    struct err err;
    sql_error_own(&e, code, "%s", text);
    if (hrana_put_http_error(&body, &e, &err) == RC_OK) {
        http_reply(r, status, JSON, &body);
        return;
    }
    buf_fini(&body);
    http_reply_text(r, 500, JSON, "{\"message\":\"out of memory\"}");
}
