/*
 * gcs_put.c -- writing objects to Google Cloud Storage.
 *
 * Small ones (up to a part, 8 MiB) go in one multipart/related request: the metadata as JSON, then
 * the bytes. Larger ones, and those whose size is not known, through a resumable session:
 *
 *   POST ?uploadType=resumable     metadata, conditions  -> 200, Location: the session
 *   PUT session, bytes 0-99/300    308, Range: bytes=0-99: so far it is with the service
 *        (broken)   bytes * /300   308 as above: go on from there; or the object, if it is done
 *   PUT session, bytes 200-299/300 200, the object
 *   DELETE session                 499: nothing is left of it
 *
 * The total is '*' until the last chunk. The object appears with the answer to the last one, all at
 * once, and that is when the conditions are checked for good.
 *
 * The MD5 goes with the metadata, so that the service refuses what was damaged on its way; of a
 * body of unknown size it is known only at the end, and is compared with the service's.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/gcs_ask.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HASH_CHUNK    (128u << 10)
#define SESSION_MAX   8192 /* bytes of a session's URI */
#define SESSION_TRIES 3    /* one that the service has lost is begun again */
#define ABANDON_MS    2000 /* for telling the service that a session has ended */
#define UPLOAD_API    "/upload/storage/v1"

/* The body of a small upload: head, the object, tail. */
struct parts {
    const struct store_body *object;
    struct buf head, tail;
};

/* What a put is about. */
struct put {
    struct gcs *g;
    const struct call *c;
    const char *key;
    const struct store_body *body;
    const struct store_put_opts *opts;
    const char *condition; /* a generation, or "" */
    struct store_obj *ret_obj;
};

/* A resumable upload: [0, off) is with the service. */
struct upload {
    const struct put *p;
    uint64_t total; /* or STORE_SIZE_UNKNOWN until the end has been read */
    uint64_t off;
    uint64_t most;    /* that was ever with the service: less again is no progress */
    uint64_t end;     /* of the chunk in hand */
    bool last;        /* it is the last one */
    struct buf uri;   /* of the session, ends in \0; empty: there is none */
    struct buf chunk; /* of a body of unknown size: its bytes from chunk_off */
    uint64_t chunk_off;
    struct store_obj obj;
    char md5[GCS_MD5_TEXT]; /* by the service */
    bool done;              /* obj is there */
    bool broken;            /* how far it got must be asked */
    bool body_failed;       /* the last failure is the body's */
    bool gone;              /* the service does not know the session */
};

static enum rc put_any(const struct put *p, struct err *err);
static enum rc refused(const struct put *p, struct err *err);
static enum rc meta_make(const struct put *p, const char *md5, struct buf *out, struct err *err);
static enum rc md5_of(const struct put *p, char out[GCS_MD5_TEXT], struct err *err);
static enum rc object_check(const struct put *p, const struct store_obj *obj, uint64_t size,
                            struct err *err);
static enum rc put_small(const struct put *p, struct err *err);
static enum rc parts_make(struct parts *m, const struct buf *meta, const char *boundary,
                          struct err *err);
static enum rc parts_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);
static void parts_fini(struct parts *m);
static enum rc put_known(const struct put *p, struct err *err);
static enum rc put_stream(const struct put *p, struct err *err);
static enum rc stream_fill(struct upload *u, struct hash *h, bool *ret_end, struct err *err);
static enum rc stream_whole(struct upload *u, struct err *err);
static enum rc stream_check(struct upload *u, struct hash *h, struct err *err);
static enum rc upload_begin(struct upload *u, const char *md5, struct err *err);
static enum rc upload_send(struct upload *u, uint64_t end, bool last, struct err *err);
static enum rc upload_try(void *ctx, struct retry_hint *hint, struct err *err);
static enum rc upload_chunk(struct upload *u, struct retry_hint *hint, struct err *err);
static enum rc upload_ask(struct upload *u, struct err *err);
static enum rc upload_init(struct upload *u, struct gcs_ask *a, const char *method,
                           const char *verb, struct err *err);
static enum rc upload_take(struct upload *u, struct gcs_ask *a, uint64_t sent, struct err *err);
static enum rc upload_take_range(struct upload *u, struct gcs_ask *a, uint64_t sent,
                                 struct err *err);
static enum rc upload_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);
static void upload_abandon(struct upload *u);
static void upload_fini(struct upload *u);

enum rc gcs_put(struct store *s, const struct call *c, const char *key,
                const struct store_body *body, const struct store_put_opts *opts,
                struct store_obj *ret_obj, struct err *err)
{
    struct put p = {.g = (struct gcs *)s,
                    .c = c,
                    .key = key,
                    .body = body,
                    .opts = opts,
                    .condition = opts->if_absent ? "0" : "",
                    .ret_obj = ret_obj};
    uint64_t generation = 0;
    if (opts->if_etag != NULL) {
        /* Another store's etag; and 0 would mean something else. */
        if (!gcs_digits(opts->if_etag, &generation) || generation == 0) return refused(&p, err);
        p.condition = opts->if_etag;
    }
    enum rc rc = put_any(&p, err);
    return rc == RC_CONFLICT && opts->if_etag != NULL ? refused(&p, err) : rc;
}

static enum rc put_any(const struct put *p, struct err *err)
{
    if (p->body->size == STORE_SIZE_UNKNOWN) return put_stream(p, err);
    return p->body->size <= p->g->part_size ? put_small(p, err) : put_known(p, err);
}

/* The condition does not hold, and the service does not say whether that is since there is no
 * object. */
static enum rc refused(const struct put *p, struct err *err)
{
    struct store_obj obj;
    TRY(gcs_look(p->g, p->c, p->key, &obj, err)); /* RC_NOT_FOUND */
    return err_set(err, RC_CONFLICT, "replace '%s': it is not the version expected any more",
                   p->key);
}

static enum rc meta_make(const struct put *p, const char *md5, struct buf *out, struct err *err)
{
    CLEANUP(gcs_json_freep) json_t *name = json_sprintf("%s%s", p->g->root, p->key);
    char stamp[TIME_TEXT_SIZE];
    json_t *extra = NULL;
    if (name == NULL)
        return err_set(err, RC_INVALID, "put '%s': names of objects must be UTF-8", p->key);
    if (p->opts->timestamp_ms != 0) {
        time_put(p->opts->timestamp_ms, true, stamp);
        extra = json_pack("{s:s}", GCS_STAMP, stamp);
        if (extra == NULL) return err_mem(err, "metadata");
    }
    return gcs_dump(json_pack("{s:O, s:s, s:s*, s:o*}", "name", name, "contentType",
                              "application/octet-stream", "md5Hash", md5, "metadata", extra),
                    out, err);
}

static enum rc md5_of(const struct put *p, char out[GCS_MD5_TEXT], struct err *err)
{
    CLEANUP(hash_fini) struct hash h = {0};
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    uint8_t md5[MD5_SIZE];
    uint64_t size = p->body->size;
    TRY(hash_begin(&h, HASH_MD5, err));
    TRY(buf_reserve(&b, size < HASH_CHUNK ? (size_t)size : HASH_CHUNK, err));
    for (uint64_t off = 0; off < size;) {
        size_t step = size - off < HASH_CHUNK ? (size_t)(size - off) : HASH_CHUNK;
        TRY(call_check(p->c, err));
        TRY(p->body->read(p->body->ctx, off, b.data, step, err));
        TRY(hash_add(&h, b.data, step, err));
        off += step;
    }
    TRY(hash_end(&h, md5, err));
    base64_put(md5, sizeof md5, out);
    return RC_OK;
}

static enum rc object_check(const struct put *p, const struct store_obj *obj, uint64_t size,
                            struct err *err)
{
    if (strcmp(obj->key, p->key) == 0 && obj->size == size) return RC_OK;
    return err_set(err, RC_CORRUPT,
                   "put '%s': the service says that it has stored '%.100s' of %" PRIu64
                   " bytes, not %" PRIu64,
                   p->key, obj->key, obj->size, size);
}

static enum rc put_small(const struct put *p, struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    CLEANUP(buf_fini) struct buf meta = BUF_INIT;
    CLEANUP(parts_fini) struct parts m = {.object = p->body};
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    char md5[GCS_MD5_TEXT], boundary[64];
    struct store_obj obj;
    struct store_body whole = {.read = parts_read, .ctx = &m};
    gcs_ask_init(&a, p->g, p->c, "POST", STORE_OP_PUT, p->opts->if_absent ? "create" : "put",
                 p->key);
    TRY(md5_of(p, md5, err));
    TRY(meta_make(p, md5, &meta, err));
    snprintf(boundary, sizeof boundary, "part-%016" PRIx64 "%016" PRIx64, os_random(), os_random());
    TRY(parts_make(&m, &meta, boundary, err));
    whole.size = m.head.size + p->body->size + m.tail.size;
    TRY(gcs_ask_url(&a, UPLOAD_API, NULL, err));
    TRY(gcs_ask_query(&a, "uploadType", "multipart", err));
    if (p->condition[0] != '\0') TRY(gcs_ask_query(&a, "ifGenerationMatch", p->condition, err));
    TRY(gcs_ask_query(&a, "fields", GCS_FIELDS, err));
    TRY(http_answer_header(&a.req, err, "Content-Type", "multipart/related; boundary=%s",
                           boundary));
    a.req.body = &whole;
    a.req.body_size = whole.size;
    TRY(gcs_ask_send(&a, err));
    TRY(gcs_ask_json(&a, &json, err));
    TRY(gcs_object(&a, json, &obj, NULL, err));
    TRY(object_check(p, &obj, p->body->size, err));
    *p->ret_obj = obj;
    return RC_OK;
}

static enum rc parts_make(struct parts *m, const struct buf *meta, const char *boundary,
                          struct err *err)
{
    TRY(buf_printf(&m->head, err, "--%s\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n",
                   boundary));
    TRY(buf_append(&m->head, meta->data, meta->size, err));
    TRY(buf_printf(&m->head, err, "\r\n--%s\r\nContent-Type: application/octet-stream\r\n\r\n",
                   boundary));
    return buf_printf(&m->tail, err, "\r\n--%s--\r\n", boundary);
}

static enum rc parts_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err)
{
    const struct parts *m = ctx;
    const uint64_t ends[] = {m->head.size, m->head.size + m->object->size,
                             m->head.size + m->object->size + m->tail.size};
    uint8_t *out = dst;
    for (int i = 0; i < 3 && size > 0; i++) {
        if (off >= ends[i]) continue;
        uint64_t at = i > 0 ? off - ends[i - 1] : off;
        size_t step = ends[i] - off < size ? (size_t)(ends[i] - off) : size;
        if (i == 1)
            TRY(m->object->read(m->object->ctx, at, out, step, err));
        else
            memcpy(out, (i == 0 ? m->head.data : m->tail.data) + at, step);
        out += step;
        off += step;
        size -= step;
    }
    return RC_OK;
}

static void parts_fini(struct parts *m)
{
    buf_fini(&m->head);
    buf_fini(&m->tail);
}

static enum rc put_known(const struct put *p, struct err *err)
{
    char md5[GCS_MD5_TEXT];
    enum rc rc = RC_OK;
    TRY(md5_of(p, md5, err));
    for (int i = 0; i < SESSION_TRIES; i++) {
        CLEANUP(upload_fini) struct upload u = {.p = p, .total = p->body->size};
        rc = upload_begin(&u, md5, err);
        while (rc == RC_OK && !u.done) {
            uint64_t left = u.total - u.off;
            bool last = left <= p->g->part_size;
            rc = upload_send(&u, last ? u.total : u.off + p->g->part_size, last, err);
        }
        if (rc == RC_OK) *p->ret_obj = u.obj;
        if (!u.gone) return rc;
    }
    return rc;
}

static enum rc put_stream(const struct put *p, struct err *err)
{
    CLEANUP(upload_fini) struct upload u = {.p = p, .total = STORE_SIZE_UNKNOWN};
    CLEANUP(hash_fini) struct hash h = {0};
    bool end = false;
    TRY(hash_begin(&h, HASH_MD5, err));
    TRY(stream_fill(&u, &h, &end, err));
    if (end) return stream_whole(&u, err);
    TRY(upload_begin(&u, NULL, err));
    while (!u.done) {
        uint64_t chunk_end = u.chunk_off + u.chunk.size;
        if (end) u.total = chunk_end;
        TRY(upload_send(&u, chunk_end, end, err));
        if (u.done) break;
        u.chunk_off = chunk_end;
        buf_reset(&u.chunk);
        TRY(stream_fill(&u, &h, &end, err));
    }
    TRY(stream_check(&u, &h, err));
    *p->ret_obj = u.obj;
    return RC_OK;
}

/* Read until the chunk is full or the body has ended. */
static enum rc stream_fill(struct upload *u, struct hash *h, bool *ret_end, struct err *err)
{
    const struct store_body *body = u->p->body;
    while (u->chunk.size < u->p->g->part_size) {
        size_t got = 0, room = u->p->g->part_size - u->chunk.size;
        if (room > HASH_CHUNK) room = HASH_CHUNK;
        TRY(call_check(u->p->c, err));
        TRY(buf_reserve(&u->chunk, room, err));
        TRY(body->next(body->ctx, u->chunk.data + u->chunk.size, room, &got, err));
        if (got == 0) {
            *ret_end = true;
            return RC_OK;
        }
        TRY(hash_add(h, u->chunk.data + u->chunk.size, got, err));
        u->chunk.size += got;
    }
    return RC_OK;
}

/* All of it fits one chunk. */
static enum rc stream_whole(struct upload *u, struct err *err)
{
    struct store_bytes bytes;
    struct store_body body = store_body_bytes(&bytes, u->chunk.data, u->chunk.size);
    struct put p = *u->p;
    p.body = &body;
    return put_small(&p, err);
}

static enum rc stream_check(struct upload *u, struct hash *h, struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    const struct put *p = u->p;
    char md5[GCS_MD5_TEXT];
    uint8_t sum[MD5_SIZE];
    TRY(hash_end(h, sum, err));
    base64_put(sum, sizeof sum, md5);
    if (u->md5[0] == '\0' || strcmp(u->md5, md5) == 0) return RC_OK;
    gcs_ask_init(&a, p->g, p->c, "DELETE", STORE_OP_DEL, "delete the damaged", p->key);
    a.missing_ok = true;
    TRY(gcs_ask_url(&a, "/storage/v1", p->key, err));
    TRY(gcs_ask_query(&a, "ifGenerationMatch", u->obj.etag, err));
    TRY(gcs_ask_send(&a, err));
    return err_set(err, RC_CORRUPT, "put '%s': it was damaged on its way; it is deleted again",
                   p->key);
}

static enum rc upload_begin(struct upload *u, const char *md5, struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    CLEANUP(buf_fini) struct buf meta = BUF_INIT;
    const struct put *p = u->p;
    gcs_ask_init(&a, p->g, p->c, "POST", STORE_OP_PUT, "begin to put", p->key);
    TRY(meta_make(p, md5, &meta, err));
    TRY(gcs_ask_url(&a, UPLOAD_API, NULL, err));
    TRY(gcs_ask_query(&a, "uploadType", "resumable", err));
    if (p->condition[0] != '\0') TRY(gcs_ask_query(&a, "ifGenerationMatch", p->condition, err));
    TRY(gcs_ask_query(&a, "fields", GCS_FIELDS, err));
    TRY(http_answer_header(&a.req, err, "Content-Type", "application/json; charset=UTF-8"));
    TRY(http_answer_header(&a.req, err, "X-Upload-Content-Type", "application/octet-stream"));
    if (u->total != STORE_SIZE_UNKNOWN)
        TRY(http_answer_header(&a.req, err, "X-Upload-Content-Length", "%" PRIu64, u->total));
    a.req.data = meta.data;
    a.req.data_size = meta.size;
    TRY(gcs_ask_send(&a, err));
    const char *uri = http_resp_header(&a.resp, "Location");
    size_t size = uri == NULL ? 0 : strlen(uri);
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)uri[i] <= ' ' || (uint8_t)uri[i] >= 0x7f) size = 0;
    /* It is as good as a password for this object, so it goes over the same kind of road. */
    bool safe =
        size > 0 && size <= SESSION_MAX &&
        (strncmp(uri, "https://", 8) == 0 || strncmp(uri, p->g->origin, strlen(p->g->origin)) == 0);
    if (!safe)
        return err_set(err, RC_AGAIN, "put '%s': the answer names no session for the upload",
                       p->key);
    return buf_append(&u->uri, uri, size + 1, err);
}

/* Send [off, end), all of it; `last`: and the object is there. */
static enum rc upload_send(struct upload *u, uint64_t end, bool last, struct err *err)
{
    u->end = end;
    u->last = last;
    while (!u->done && (u->off < end || last))
        TRY(retry_run(NULL, u->p->c, upload_try, u, err));
    return RC_OK;
}

/* One chunk, or what is left of it; after trouble, how far the service got is asked first. */
static enum rc upload_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct upload *u = ctx;
    enum rc rc = RC_OK;
    if (u->broken) {
        rc = upload_ask(u, err);
        u->broken = rc != RC_OK;
        hint->final = true; /* that was tried often enough */
        if (rc != RC_OK || u->done) return rc;
        if (u->off >= u->end && !u->last) return RC_OK;
        hint->final = false;
    }
    rc = upload_chunk(u, hint, err);
    if (rc == RC_OK && !u->done && u->off <= u->most)
        rc =
            err_set(err, RC_AGAIN, "put '%s': the service has taken nothing of a chunk", u->p->key);
    if (u->off > u->most) u->most = u->off;
    u->broken = rc != RC_OK;
    if (u->body_failed || u->gone) hint->final = true;
    return rc;
}

static enum rc upload_chunk(struct upload *u, struct retry_hint *hint, struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    struct store_body body = {.size = u->end, .read = upload_read, .ctx = u};
    char total[24] = "*";
    TRY(upload_init(u, &a, "PUT", u->p->opts->if_absent ? "create" : "put", err));
    if (u->last) snprintf(total, sizeof total, "%" PRIu64, u->end);
    if (u->off < u->end) {
        TRY(http_answer_header(&a.req, err, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%s",
                               u->off, u->end - 1, total));
        a.req.body = &body;
        a.req.body_off = u->off;
        a.req.body_size = u->end - u->off;
    } else {
        TRY(http_answer_header(&a.req, err, "Content-Range", "bytes */%s", total));
    }
    a.req.idempotent = false;
    a.once = true;
    enum rc rc = gcs_ask_send(&a, err);
    u->gone = a.gone;
    hint->after_ms = a.after_ms;
    return rc == RC_OK ? upload_take(u, &a, u->end, err) : rc;
}

static enum rc upload_ask(struct upload *u, struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    TRY(upload_init(u, &a, "PUT", "ask how far the upload got of", err));
    if (u->total == STORE_SIZE_UNKNOWN)
        TRY(http_answer_header(&a.req, err, "Content-Range", "bytes */*"));
    else
        TRY(http_answer_header(&a.req, err, "Content-Range", "bytes */%" PRIu64, u->total));
    enum rc rc = gcs_ask_send(&a, err);
    u->gone = a.gone;
    return rc == RC_OK ? upload_take(u, &a, u->end, err) : rc;
}

static enum rc upload_init(struct upload *u, struct gcs_ask *a, const char *method,
                           const char *verb, struct err *err)
{
    const char *uri = (const char *)u->uri.data, *origin = u->p->g->origin;
    size_t size = strlen(origin);
    gcs_ask_init(a, u->p->g, u->p->c, method, STORE_OP_PUT, verb, u->p->key);
    a->session = true;
    /* The session needs no token, and another host must not see it. */
    a->bare = strncmp(uri, origin, size) != 0 || uri[size] != '/';
    return buf_append(&a->url, uri, u->uri.size, err);
}

/* The answer: the object, or how far the service got. `sent`: no further than that. */
static enum rc upload_take(struct upload *u, struct gcs_ask *a, uint64_t sent, struct err *err)
{
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    if (a->resp.status == 308) return upload_take_range(u, a, sent, err);
    TRY(gcs_ask_json(a, &json, err));
    TRY(gcs_object(a, json, &u->obj, u->md5, err));
    TRY(object_check(u->p, &u->obj, sent, err));
    u->done = true;
    return RC_OK;
}

static enum rc upload_take_range(struct upload *u, struct gcs_ask *a, uint64_t sent,
                                 struct err *err)
{
    const char *range = http_resp_header(&a->resp, "Range");
    uint64_t have = 0;
    if (range != NULL) {
        bool ok = strncmp(range, "bytes=0-", 8) == 0 && gcs_digits(range + 8, &have);
        if (!ok || have >= sent)
            return err_set(err, RC_CORRUPT,
                           "%s: the service claims to have '%.60s' of %" PRIu64 " bytes", a->what,
                           range, sent);
        have++;
    }
    if (u->p->body->size == STORE_SIZE_UNKNOWN && have < u->chunk_off) {
        u->gone = true; /* and these bytes cannot be had again */
        return err_set(err, RC_AGAIN, "%s: the service has lost a part of the upload", a->what);
    }
    u->off = have;
    return RC_OK;
}

static enum rc upload_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err)
{
    struct upload *u = ctx;
    const struct store_body *body = u->p->body;
    if (body->size == STORE_SIZE_UNKNOWN) {
        memcpy(dst, u->chunk.data + (off - u->chunk_off), size);
        return RC_OK;
    }
    enum rc rc = body->read(body->ctx, off, dst, size, err);
    u->body_failed = rc != RC_OK;
    return rc;
}

/* Best effort: the service forgets a session by itself after a week. */
static void upload_abandon(struct upload *u)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    struct put p = *u->p;
    struct call c = {.deadline_ms = os_mono_ms() + ABANDON_MS};
    struct err ignored;
    p.c = &c;
    u->p = &p;
    enum rc rc = upload_init(u, &a, "DELETE", "give up the upload of", &ignored);
    a.req.op = STORE_OP_OTHER;
    a.any_ok = true;
    if (rc == RC_OK)
        rc = http_answer_header(&a.req, &ignored, "Content-Length", "0"); /* it insists */
    if (rc == RC_OK && gcs_ask_send(&a, &ignored) != RC_OK) err_clear(&ignored);
}

static void upload_fini(struct upload *u)
{
    if (u->uri.size > 0 && !u->done && !u->gone) upload_abandon(u);
    buf_fini(&u->uri);
    buf_fini(&u->chunk);
}
