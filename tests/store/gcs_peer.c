/* gcs_peer.c -- see gcs_peer.h. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "fmt/text.h"
#include "store/gcs_peer.h"
#include "store/hash.h"

#define OBJECTS_MAX  4096
#define SESSIONS_MAX 256
#define NAME_SIZE    1100
#define STEP         (256u << 10)

struct object { /* one version */
    char *name;
    uint8_t *data;
    size_t size;
    uint64_t generation;
    int64_t created_ms;
    char stamp[64], md5[32];
    bool live;
};

struct session {
    bool open, lost, done;
    json_t *meta;
    char condition[32];
    uint8_t *data;
    size_t size;
    uint64_t announced; /* X-Upload-Content-Length, or UINT64_MAX */
    uint64_t generation;
};

struct gcs_peer {
    struct peer *http;
    pthread_mutex_t lock;               /* guards all below */
    struct object objects[OBJECTS_MAX]; /* sorted by name; versions of a name by generation */
    unsigned object_count;
    struct session sessions[SESSIONS_MAX];
    unsigned session_count, queries, chunks, break_at, lose_at, lose_seen, page_max;
    uint64_t break_keep, generation;
    enum peer_fault break_fault;
    int break_status;
    char lose_method[8];
    char token[128];
    bool damage;
};

/* One request in parts. */
struct call_parts {
    struct gcs_peer *g;
    const struct peer_req *req;
    struct peer_resp *resp;
    char bucket[64], name[NAME_SIZE];
};

static void handle(void *ctx, const struct peer_req *req, struct peer_resp *resp);
static void route(struct call_parts *p);
static void answer(struct call_parts *p, int status, json_t *json);
static void refuse(struct call_parts *p, int status, const char *reason, const char *text);
static bool param(const char *target, const char *name, char *out, size_t size);
static void decode(const char *text, size_t text_size, char *out, size_t size);
static struct object *find(struct gcs_peer *g, const char *name);
static bool condition_holds(struct gcs_peer *g, const char *name, const char *condition);
static json_t *describe(const struct object *o);
static struct object *store_object(struct call_parts *p, json_t *meta, const char *condition,
                                   const void *data, size_t size);
static void multipart(struct call_parts *p);
static void session_begin(struct call_parts *p);
static void session_put(struct call_parts *p, struct session *s);
static void session_more(struct call_parts *p, struct session *s);
static void session_end(struct call_parts *p, struct session *s);
static void list(struct call_parts *p);
static void get(struct call_parts *p);

struct gcs_peer *gcs_peer_start(void)
{
    struct gcs_peer *g = mem_calloc(1, sizeof *g);
    if (g == NULL) abort();
    pthread_mutex_init(&g->lock, NULL);
    g->generation = 1700000000000000;
    g->page_max = 1000;
    g->http = peer_start(handle, g);
    return g;
}

void gcs_peer_stop(struct gcs_peer *g)
{
    peer_stop(g->http);
    for (unsigned i = 0; i < g->object_count; i++) {
        mem_free(g->objects[i].name);
        mem_free(g->objects[i].data);
    }
    for (unsigned i = 0; i < g->session_count; i++) {
        json_decref(g->sessions[i].meta);
        mem_free(g->sessions[i].data);
    }
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

struct peer *gcs_peer_http(struct gcs_peer *g)
{
    return g->http;
}

const char *gcs_peer_url(struct gcs_peer *g)
{
    return peer_url(g->http);
}

void gcs_peer_token(struct gcs_peer *g, const char *token)
{
    thr_lock(&g->lock);
    snprintf(g->token, sizeof g->token, "%s", token ? token : "");
    thr_unlock(&g->lock);
}

void gcs_peer_break(struct gcs_peer *g, unsigned nth, uint64_t keep, enum peer_fault fault,
                    int status)
{
    thr_lock(&g->lock);
    g->chunks = 0;
    g->break_at = nth;
    g->break_keep = keep;
    g->break_fault = fault;
    g->break_status = status;
    thr_unlock(&g->lock);
}

void gcs_peer_lose(struct gcs_peer *g, const char *method, unsigned nth)
{
    thr_lock(&g->lock);
    snprintf(g->lose_method, sizeof g->lose_method, "%s", method);
    g->lose_at = nth;
    g->lose_seen = 0;
    thr_unlock(&g->lock);
}

void gcs_peer_damage(struct gcs_peer *g)
{
    thr_lock(&g->lock);
    g->damage = true;
    thr_unlock(&g->lock);
}

void gcs_peer_lose_sessions(struct gcs_peer *g)
{
    thr_lock(&g->lock);
    for (unsigned i = 0; i < g->session_count; i++) {
        g->sessions[i].lost = true;
        g->sessions[i].open = false;
    }
    thr_unlock(&g->lock);
}

void gcs_peer_page(struct gcs_peer *g, unsigned count)
{
    thr_lock(&g->lock);
    g->page_max = count;
    thr_unlock(&g->lock);
}

unsigned gcs_peer_sessions(struct gcs_peer *g)
{
    unsigned count = 0;
    thr_lock(&g->lock);
    for (unsigned i = 0; i < g->session_count; i++)
        count += g->sessions[i].open;
    thr_unlock(&g->lock);
    return count;
}

unsigned gcs_peer_queries(struct gcs_peer *g)
{
    thr_lock(&g->lock);
    unsigned count = g->queries;
    thr_unlock(&g->lock);
    return count;
}

unsigned gcs_peer_clear(struct gcs_peer *g, const char *prefix)
{
    unsigned count = 0;
    thr_lock(&g->lock);
    for (unsigned i = 0; i < g->object_count; i++) {
        struct object *o = &g->objects[i];
        if (!o->live || strncmp(o->name, prefix, strlen(prefix)) != 0) continue;
        o->live = false;
        count++;
    }
    thr_unlock(&g->lock);
    return count;
}

bool gcs_peer_stamp(struct gcs_peer *g, const char *name, char out[64])
{
    thr_lock(&g->lock);
    struct object *o = find(g, name);
    snprintf(out, 64, "%s", o ? o->stamp : "");
    thr_unlock(&g->lock);
    return o != NULL;
}

static void handle(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    struct gcs_peer *g = ctx;
    struct call_parts p = {.g = g, .req = req, .resp = resp};
    const char *auth = peer_header(req, "Authorization");
    thr_lock(&g->lock);
    bool bad = g->token[0] != '\0' && (auth == NULL || strncmp(auth, "Bearer ", 7) != 0 ||
                                       strcmp(auth + 7, g->token) != 0);
    if (bad)
        refuse(&p, 401, "authError", "Invalid Credentials");
    else
        route(&p);
    if (strcmp(req->method, g->lose_method) == 0 && ++g->lose_seen == g->lose_at)
        resp->fault = PEER_LOSE;
    thr_unlock(&g->lock);
}

static void route(struct call_parts *p)
{
    struct gcs_peer *g = p->g;
    const char *t = p->req->target, *method = p->req->method, *rest;
    bool upload = strncmp(t, "/upload/storage/v1/b/", 21) == 0;
    unsigned number = 0;
    if (sscanf(t, "/session/%u", &number) == 1 && number < g->session_count) {
        session_put(p, &g->sessions[number]);
        return;
    }
    if (!upload && strncmp(t, "/storage/v1/b/", 14) != 0) {
        refuse(p, 404, "notFound", "Not Found");
        return;
    }
    t += upload ? 21 : 14;
    rest = strstr(t, "/o");
    if (rest == NULL) {
        refuse(p, 404, "notFound", "Not Found");
        return;
    }
    snprintf(p->bucket, sizeof p->bucket, "%.*s", (int)(rest - t), t);
    if (strcmp(p->bucket, GCS_PEER_MISSING) == 0) {
        refuse(p, 404, "notFound", "The specified bucket does not exist.");
        return;
    }
    rest += 2;
    char kind[16] = "";
    if (upload && strcmp(method, "POST") == 0 && *rest == '?' &&
        param(p->req->target, "uploadType", kind, sizeof kind)) {
        if (strcmp(kind, "multipart") == 0)
            multipart(p);
        else
            session_begin(p);
    } else if (*rest == '/') {
        rest++;
        if (strcspn(rest, "?") != strcspn(rest, "?/"))
            refuse(p, 400, "invalid", "a slash in a name must be escaped");
        decode(rest, strcspn(rest, "?"), p->name, sizeof p->name);
        if (p->resp->status == 0) get(p);
    } else if (strcmp(method, "GET") == 0) {
        list(p);
    } else {
        refuse(p, 400, "invalid", "what is that?");
    }
}

static void answer(struct call_parts *p, int status, json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(1));
    p->resp->status = status;
    peer_head(p->resp, "Content-Type", "application/json; charset=UTF-8");
    peer_text(p->resp, "%s\n", text);
    free(text);
    json_decref(json);
}

static void refuse(struct call_parts *p, int status, const char *reason, const char *text)
{
    answer(p, status,
           json_pack("{s:{s:i, s:s, s:[{s:s, s:s}]}}", "error", "code", status, "message", text,
                     "errors", "reason", reason, "message", text));
}

static bool param(const char *target, const char *name, char *out, size_t size)
{
    size_t name_size = strlen(name);
    const char *p = strchr(target, '?');
    for (; p != NULL; p = strchr(p, '&')) {
        p++;
        if (strncmp(p, name, name_size) != 0 || p[name_size] != '=') continue;
        p += name_size + 1;
        decode(p, strcspn(p, "&"), out, size);
        return true;
    }
    return false;
}

static void decode(const char *text, size_t text_size, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < text_size && used + 1 < size; i++) {
        char hex[3] = "";
        if (text[i] == '%' && i + 2 < text_size) {
            memcpy(hex, text + i + 1, 2);
            i += 2;
            out[used++] = (char)strtoul(hex, NULL, 16);
        } else {
            out[used++] = text[i] == '+' ? ' ' : text[i];
        }
    }
    out[used] = '\0';
}

static struct object *find(struct gcs_peer *g, const char *name)
{
    for (unsigned i = 0; i < g->object_count; i++)
        if (g->objects[i].live && strcmp(g->objects[i].name, name) == 0) return &g->objects[i];
    return NULL;
}

static bool condition_holds(struct gcs_peer *g, const char *name, const char *condition)
{
    struct object *o = find(g, name);
    uint64_t want = strtoull(condition, NULL, 10);
    return condition[0] == '\0' || want == (o ? o->generation : 0);
}

static json_t *describe(const struct object *o)
{
    char generation[32], size[32], created[TIME_TEXT_SIZE];
    snprintf(generation, sizeof generation, "%" PRIu64, o->generation);
    snprintf(size, sizeof size, "%zu", o->size);
    time_put(o->created_ms, true, created);
    json_t *extra = o->stamp[0] ? json_pack("{s:s}", "litestream-timestamp", o->stamp) : NULL;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o*}", "name", o->name, "generation", generation,
                     "size", size, "timeCreated", created, "md5Hash", o->md5, "metadata", extra);
}

/* NULL: refused, the answer is made. */
static struct object *store_object(struct call_parts *p, json_t *meta, const char *condition,
                                   const void *data, size_t size)
{
    struct gcs_peer *g = p->g;
    struct err err;
    uint8_t sum[MD5_SIZE];
    char md5[32];
    const char *name = json_string_value(json_object_get(meta, "name"));
    const char *want = json_string_value(json_object_get(meta, "md5Hash"));
    const char *stamp = json_string_value(
        json_object_get(json_object_get(meta, "metadata"), "litestream-timestamp"));
    if (name == NULL || g->object_count == OBJECTS_MAX ||
        hash_md5(data, size, sum, &err) != RC_OK) {
        refuse(p, 400, "required", "Required object name");
        return NULL;
    }
    base64_put(sum, sizeof sum, md5);
    if (want != NULL && strcmp(want, md5) != 0) {
        refuse(p, 400, "invalid", "Provided MD5 hash does not match calculated MD5 hash");
        return NULL;
    }
    if (!condition_holds(g, name, condition)) {
        refuse(p, 412, "conditionNotMet",
               "At least one of the pre-conditions you specified did not hold.");
        return NULL;
    }
    struct object *old = find(g, name);
    if (old != NULL) old->live = false;
    unsigned at = 0;
    while (at < g->object_count && strcmp(g->objects[at].name, name) <= 0)
        at++;
    memmove(&g->objects[at + 1], &g->objects[at], (g->object_count - at) * sizeof g->objects[0]);
    g->object_count++;
    struct object *o = &g->objects[at];
    *o = (struct object){.name = mem_strdup(name),
                         .data = mem_alloc(size + 1),
                         .size = size,
                         .generation = ++g->generation,
                         .created_ms = os_now_ms(),
                         .live = true};
    if (o->name == NULL || o->data == NULL) abort();
    memcpy(o->data, data, size);
    snprintf(o->stamp, sizeof o->stamp, "%s", stamp ? stamp : "");
    memcpy(o->md5, md5, sizeof md5);
    return o;
}

static void multipart(struct call_parts *p)
{
    const char *type = peer_header(p->req, "Content-Type"), *body = (const char *)p->req->body;
    char mark[128], condition[32] = "";
    json_t *meta = NULL;
    const char *text = NULL, *data = NULL;
    size_t size = p->req->body_size, tail;
    param(p->req->target, "ifGenerationMatch", condition, sizeof condition);
    if (type != NULL && strncmp(type, "multipart/related; boundary=", 28) == 0) {
        snprintf(mark, sizeof mark, "--%s\r\nContent-Type: application/json", type + 28);
        if (strncmp(body, mark, strlen(mark)) == 0) text = strstr(body, "\r\n\r\n");
        snprintf(mark, sizeof mark, "\r\n--%s\r\n", type + 28);
        if (text != NULL) data = strstr(text + 4, mark);
    }
    if (data != NULL) {
        meta = json_loadb(text + 4, (size_t)(data - text - 4), 0, NULL);
        data = strstr(data + 2, "\r\n\r\n");
    }
    tail = type == NULL ? 0 : (size_t)snprintf(mark, sizeof mark, "\r\n--%s--\r\n", type + 28);
    if (data == NULL || meta == NULL || size < tail || memcmp(body + size - tail, mark, tail)) {
        refuse(p, 400, "badContent", "Malformed multipart body");
    } else {
        data += 4;
        struct object *o =
            store_object(p, meta, condition, data, (size_t)(body + size - tail - data));
        if (o != NULL) answer(p, 200, describe(o));
    }
    json_decref(meta);
}

static void session_begin(struct call_parts *p)
{
    struct gcs_peer *g = p->g;
    const char *size = peer_header(p->req, "X-Upload-Content-Length");
    struct session *s = &g->sessions[g->session_count];
    json_t *meta = json_loadb((const char *)p->req->body, p->req->body_size, 0, NULL);
    const char *name = json_string_value(json_object_get(meta, "name"));
    if (name == NULL || g->session_count + 1 == SESSIONS_MAX) {
        json_decref(meta);
        refuse(p, 400, "required", "Required object name");
        return;
    }
    *s = (struct session){
        .open = true, .meta = meta, .announced = size ? strtoull(size, NULL, 10) : UINT64_MAX};
    param(p->req->target, "ifGenerationMatch", s->condition, sizeof s->condition);
    if (!condition_holds(g, name, s->condition)) {
        json_decref(meta);
        *s = (struct session){0};
        refuse(p, 412, "conditionNotMet", "Precondition Failed");
        return;
    }
    p->resp->status = 200;
    peer_head(p->resp, "Location", "%s/session/%u?upload_id=x", peer_url(g->http),
              g->session_count++);
}

static void session_put(struct call_parts *p, struct session *s)
{
    if (s->lost || (!s->open && !s->done)) {
        refuse(p, s->lost ? 410 : 404, "notFound", "Not Found");
    } else if (strcmp(p->req->method, "DELETE") == 0) {
        s->open = false;
        p->resp->status = 499;
    } else if (s->done) {
        p->g->queries++;
        for (unsigned i = 0; i < p->g->object_count; i++)
            if (p->g->objects[i].generation == s->generation)
                answer(p, 200, describe(&p->g->objects[i]));
    } else {
        session_more(p, s);
    }
}

/* A chunk or a status query. */
static void session_more(struct call_parts *p, struct session *s)
{
    struct gcs_peer *g = p->g;
    const char *range = peer_header(p->req, "Content-Range");
    uint64_t first = 0, last = 0, total = UINT64_MAX;
    size_t size = p->req->body_size;
    bool query = range != NULL && strncmp(range, "bytes */", 8) == 0;
    int used = query ? 8 : 0;
    if (range == NULL ||
        (!query && sscanf(range, "bytes %" SCNu64 "-%" SCNu64 "/%n", &first, &last, &used) != 2)) {
        refuse(p, 400, "badRequest", "Invalid Content-Range");
        return;
    }
    if (range[used] != '*') total = strtoull(range + used, NULL, 10);
    if (query) {
        g->queries++;
        first = s->size;
    } else if (last - first + 1 != size || (total == UINT64_MAX && size % STEP != 0) ||
               (total != UINT64_MAX && last + 1 > total) || first > s->size) {
        refuse(p, 400, "badRequest", "the chunk does not fit");
        return;
    }
    bool broken = !query && ++g->chunks == g->break_at;
    if (broken && g->break_keep < size) size = g->break_keep;
    s->data = mem_realloc(s->data, first + size + 1);
    if (s->data == NULL) abort();
    memcpy(s->data + first, p->req->body, size);
    if (first + size > s->size) s->size = first + size;
    if (broken && (g->break_fault != PEER_FINE || g->break_status != 0)) {
        p->resp->fault = g->break_fault;
        refuse(p, g->break_status ? g->break_status : 500, "backendError", "Backend Error");
        return;
    }
    if (s->size == total) {
        session_end(p, s);
        return;
    }
    p->resp->status = 308;
    if (s->size > 0) peer_head(p->resp, "Range", "bytes=0-%zu", s->size - 1);
}

static void session_end(struct call_parts *p, struct session *s)
{
    if (s->announced != UINT64_MAX && s->announced != s->size) {
        refuse(p, 400, "badRequest", "not as long as announced");
        return;
    }
    if (p->g->damage && s->size > 0) s->data[s->size / 2] ^= 1;
    struct object *o = store_object(p, s->meta, s->condition, s->data, s->size);
    s->open = false;
    if (o == NULL) return;
    s->done = true;
    s->generation = o->generation;
    answer(p, 200, describe(o));
}

static void list(struct call_parts *p)
{
    struct gcs_peer *g = p->g;
    char prefix[NAME_SIZE] = "", start[NAME_SIZE] = "", token[NAME_SIZE] = "", text[16] = "1000";
    param(p->req->target, "prefix", prefix, sizeof prefix);
    param(p->req->target, "startOffset", start, sizeof start);
    param(p->req->target, "pageToken", token, sizeof token);
    param(p->req->target, "maxResults", text, sizeof text);
    unsigned count = (unsigned)strtoul(text, NULL, 10), taken = 0;
    if (count == 0 || count > g->page_max) count = g->page_max;
    json_t *items = json_array();
    const char *next = NULL, *last = NULL;
    for (unsigned i = 0; i < g->object_count && next == NULL; i++) {
        const struct object *o = &g->objects[i];
        if (!o->live || strncmp(o->name, prefix, strlen(prefix)) != 0) continue;
        if (strcmp(o->name, start) < 0 || (token[0] && strcmp(o->name, token + 1) <= 0)) continue;
        if (taken == count) {
            next = last;
            break;
        }
        json_array_append_new(items, describe(o));
        last = o->name;
        taken++;
    }
    json_t *page = json_object();
    if (next != NULL) json_object_set_new(page, "nextPageToken", json_sprintf("@%s", next));
    if (taken > 0) json_object_set(page, "items", items); /* none: no such member, as in reality */
    json_decref(items);
    answer(p, 200, page);
}

static void get(struct call_parts *p)
{
    char alt[16] = "", generation[32] = "", condition[32] = "", etag[48];
    struct object *o = find(p->g, p->name);
    param(p->req->target, "alt", alt, sizeof alt);
    param(p->req->target, "generation", generation, sizeof generation);
    param(p->req->target, "ifGenerationMatch", condition, sizeof condition);
    if (o == NULL || (generation[0] && o->generation != strtoull(generation, NULL, 10))) {
        char text[NAME_SIZE + 200];
        snprintf(text, sizeof text, "No such object: %s/%s", p->bucket, p->name);
        if (strcmp(alt, "media") != 0) {
            refuse(p, 404, "notFound", text);
            return;
        }
        p->resp->status = 404;
        peer_text(p->resp, "%s", text);
    } else if (!condition_holds(p->g, p->name, condition)) {
        refuse(p, 412, "conditionNotMet", "Precondition Failed");
    } else if (strcmp(p->req->method, "DELETE") == 0) {
        o->live = false;
        p->resp->status = 204;
    } else if (strcmp(alt, "media") != 0) {
        answer(p, 200, describe(o));
    } else {
        snprintf(etag, sizeof etag, "\"%" PRIu64 "/1\"", o->generation);
        peer_serve(p->req, p->resp, o->data, o->size, etag);
        if (p->resp->status < 300) {
            peer_head(p->resp, "x-goog-generation", "%" PRIu64, o->generation);
            peer_head(p->resp, "x-goog-stored-content-length", "%zu", o->size);
        }
    }
}
