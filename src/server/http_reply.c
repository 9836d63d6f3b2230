/* http_reply.c -- answers: headers, compression, CORS, refusals. See http.h and http_intern.h. */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/http_intern.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <zlib.h>

#define ZIP_MIN     1024
#define ZIP_LEVEL   1
#define ZIP_WINDOW  (15 + 16) /* a gzip header and trailer */
#define ZIP_MEMORY  8
#define REFUSAL_MAX 1024
#define ASKED_MAX   1024

/* A compressor: a quarter of a megabyte, so they are used again. */
struct http_zip {
    struct http_zip *next;
    z_stream z;
};

static const char *next_header(const struct http_req *r, size_t *off, const char **ret_value);
static bool takes_gzip(const struct http_req *r);
static bool coding_allowed(const char *p, size_t size);
static bool zip_body(struct http_req *r, struct buf *body);
static struct http_zip *zip_get(struct http_server *s);
static void *zip_alloc(void *ctx, unsigned count, unsigned size);
static void zip_release(void *ctx, void *p);
static struct MHD_Response *response_of(struct buf *body);
static int refusal_text(char *out, size_t size, const char *code, const char *message);

enum rc http_add_header(struct http_req *r, const char *name, const char *value, struct err *err)
{
    if (name[0] == '\0' || strpbrk(name, "\r\n\t: ") != NULL || strpbrk(value, "\r\n") != NULL)
        return err_set(err, RC_INVALID, "header '%.64s': a line break or blank in it", name);
    size_t old = r->headers.size;
    enum rc rc = buf_append(&r->headers, name, strlen(name) + 1, err);
    if (rc == RC_OK) rc = buf_append(&r->headers, value, strlen(value) + 1, err);
    if (rc != RC_OK) r->headers.size = old;
    return rc;
}

void http_reply(struct http_req *r, unsigned status, const char *type, struct buf *body)
{
    r->sent = body->size;
    bool zipped = false, apt = body->size > ZIP_MIN && status == MHD_HTTP_OK &&
                               !http__has_header(r, MHD_HTTP_HEADER_CONTENT_ENCODING);
    if (apt && takes_gzip(r)) zipped = zip_body(r, body);
    struct MHD_Response *response = response_of(body);
    bool ok = response != NULL && http__dress(r, response, type);
    if (ok && apt)
        ok = MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, "Accept-Encoding") == MHD_YES;
    if (ok && zipped)
        ok = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip") == MHD_YES;
    if (!ok && response != NULL) {
        MHD_destroy_response(response);
        response = NULL;
    }
    r->response = response;
    r->status = status;
    http__answer(r);
}

void http_reply_text(struct http_req *r, unsigned status, const char *type, const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (response != NULL && !http__dress(r, response, type)) {
        MHD_destroy_response(response);
        response = NULL;
    }
    r->response = response;
    r->status = status;
    r->sent = strlen(text);
    http__answer(r);
}

void http__answer(struct http_req *r)
{
    struct MHD_Connection *mhd = r->conn->mhd;
    struct http_shard *shard = r->conn->shard;
    r->answered_us = os_mono_us();
    /* The last touch of the request. Of its connection, too, unless it sleeps: nobody else wakes
     * it. Of the server: the count, for which http_server_stop waits. */
    if (atomic_exchange(&r->turn, HTTP_TURN_ANSWERED) == HTTP_TURN_ASLEEP)
        MHD_resume_connection(mhd);
    atomic_fetch_sub(&shard->active, 1);
}

bool http__dress(struct http_req *r, struct MHD_Response *response, const char *type)
{
    const struct http_server *s = r->conn->server;
    enum MHD_Result ok = MHD_YES;
    if (type != NULL) ok = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (ok == MHD_YES && s->opts.cors)
        ok = MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
    if (ok == MHD_YES && s->opts.cors)
        ok = MHD_add_response_header(response, "Access-Control-Expose-Headers", "*");
    if (ok == MHD_YES && atomic_load_explicit(&s->quiesced, memory_order_relaxed))
        ok = MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    size_t off = 0;
    const char *name, *value;
    while (ok == MHD_YES && (name = next_header(r, &off, &value)) != NULL)
        /* The library knows no header without a value. */
        if (value[0] != '\0') ok = MHD_add_response_header(response, name, value);
    return ok == MHD_YES;
}

bool http__has_header(const struct http_req *r, const char *name)
{
    size_t off = 0;
    const char *given, *value;
    while ((given = next_header(r, &off, &value)) != NULL)
        if (strcasecmp(given, name) == 0) return true;
    return false;
}

void http__refuse(struct http_req *r, unsigned status, const char *code, const char *message)
{
    char text[REFUSAL_MAX];
    int size = refusal_text(text, sizeof text, code, message);
    struct MHD_Response *response =
        MHD_create_response_from_buffer((size_t)size, text, MHD_RESPMEM_MUST_COPY);
    if (response != NULL && !http__dress(r, response, "application/json")) {
        MHD_destroy_response(response);
        response = NULL;
    }
    r->response = response;
    r->status = status;
}

void http__refuse_raw(struct http_conn *c, unsigned status, const char *code, const char *message)
{
    char text[REFUSAL_MAX], out[2 * REFUSAL_MAX];
    int size = refusal_text(text, sizeof text, code, message);
    int n = snprintf(out, sizeof out,
                     "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                     "Connection: close\r\n%s\r\n%s",
                     status, MHD_get_reason_phrase_for(status), size,
                     c->server->opts.cors ? "Access-Control-Allow-Origin: *\r\n" : "", text);
    /* A socket that nothing was written to for a while takes this much; if not, the client learns
     * from the close alone. */
    (void)!send(c->fd, out, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void http__answer_options(struct http_req *r)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    /* "*" does not cover Authorization, so what was asked for is repeated. */
    const char *asked = http_header(r, "Access-Control-Request-Headers");
    if (asked == NULL || strlen(asked) > ASKED_MAX) asked = "*, Authorization";
    bool ok = response != NULL && http__dress(r, response, NULL) &&
              MHD_add_response_header(response, "Access-Control-Allow-Methods",
                                      "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS") == MHD_YES &&
              MHD_add_response_header(response, "Access-Control-Allow-Headers", asked) == MHD_YES &&
              MHD_add_response_header(response, "Access-Control-Max-Age", "86400") == MHD_YES;
    if (!ok && response != NULL) {
        MHD_destroy_response(response);
        response = NULL;
    }
    r->response = response;
    r->status = MHD_HTTP_NO_CONTENT;
    http__answer(r);
}

void http__zips_free(struct http_server *s)
{
    while (s->zips != NULL) {
        struct http_zip *zip = s->zips;
        s->zips = zip->next;
        deflateEnd(&zip->z);
        mem_free(zip);
    }
}

/* NULL after the last. */
static const char *next_header(const struct http_req *r, size_t *off, const char **ret_value)
{
    if (*off >= r->headers.size) return NULL;
    const char *name = (const char *)r->headers.data + *off;
    *ret_value = name + strlen(name) + 1;
    *off = (size_t)(*ret_value + strlen(*ret_value) + 1 - (const char *)r->headers.data);
    return name;
}

/* Accept-Encoding: "gzip, br;q=0.5", "*", "gzip;q=0". */
static bool takes_gzip(const struct http_req *r)
{
    const char *p = http_header(r, MHD_HTTP_HEADER_ACCEPT_ENCODING);
    bool any = false;
    while (p != NULL && *p != '\0') {
        p += strspn(p, " \t,");
        size_t size = strcspn(p, ","), name = strcspn(p, " \t,;");
        if (name == 4 && strncasecmp(p, "gzip", 4) == 0) return coding_allowed(p, size);
        if (name == 1 && *p == '*') any = coding_allowed(p, size);
        p += size;
    }
    return any;
}

/* False for "...;q=0", "q=0.00". */
static bool coding_allowed(const char *p, size_t size)
{
    const char *end = p + size;
    for (p = memchr(p, ';', size); p != NULL && p < end; p = memchr(p, ';', (size_t)(end - p))) {
        p++;
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        if (end - p < 3 || (*p | 0x20) != 'q' || p[1] != '=') continue;
        for (p += 2; p < end && (*p == '0' || *p == '.'); p++)
            continue;
        return p < end && isdigit((unsigned char)*p);
    }
    return true;
}

/* Put the compressed form in place of body, when it is the smaller. */
static bool zip_body(struct http_req *r, struct buf *body)
{
    struct http_server *s = r->conn->server;
    struct err ignored;
    struct buf out = BUF_INIT;
    if (body->size > UINT32_MAX / 2) return false;
    struct http_zip *zip = zip_get(s);
    if (zip == NULL) return false;
    bool ok = buf_reserve(&out, body->size, &ignored) == RC_OK;
    if (ok) {
        zip->z.next_in = body->data;
        zip->z.avail_in = (unsigned)body->size;
        zip->z.next_out = out.data;
        zip->z.avail_out = (unsigned)(body->size - 1); /* no room: it would not pay */
        ok = deflate(&zip->z, Z_FINISH) == Z_STREAM_END;
    }
    if (ok) {
        out.size = body->size - 1 - zip->z.avail_out;
        buf_fini(body);
        *body = out;
    } else {
        buf_fini(&out);
    }
    deflateReset(&zip->z);
    thr_lock(&s->zip_lock);
    zip->next = s->zips;
    s->zips = zip;
    thr_unlock(&s->zip_lock);
    return ok;
}

static struct http_zip *zip_get(struct http_server *s)
{
    thr_lock(&s->zip_lock);
    struct http_zip *zip = s->zips;
    if (zip != NULL) s->zips = zip->next;
    thr_unlock(&s->zip_lock);
    if (zip != NULL) return zip;
    zip = mem_calloc(1, sizeof *zip);
    if (zip == NULL) return NULL;
    zip->z.zalloc = zip_alloc;
    zip->z.zfree = zip_release;
    if (deflateInit2(&zip->z, ZIP_LEVEL, Z_DEFLATED, ZIP_WINDOW, ZIP_MEMORY, Z_DEFAULT_STRATEGY) ==
        Z_OK)
        return zip;
    mem_free(zip);
    return NULL;
}

static void *zip_alloc(void *ctx, unsigned count, unsigned size)
{
    (void)ctx;
    return mem_calloc(count, size);
}

static void zip_release(void *ctx, void *p)
{
    (void)ctx;
    mem_free(p);
}

/* Takes body's memory; only what is not from the heap is copied. NULL: out of memory. */
static struct MHD_Response *response_of(struct buf *body)
{
    struct MHD_Response *response =
        body->heap
            ? MHD_create_response_from_buffer_with_free_callback(body->size, body->data, mem_free)
            : MHD_create_response_from_buffer(body->size, body->data, MHD_RESPMEM_MUST_COPY);
    if (response != NULL && body->heap)
        *body = BUF_INIT;
    else
        buf_fini(body);
    return response;
}

static int refusal_text(char *out, size_t size, const char *code, const char *message)
{
    return snprintf(out, size, "{\"message\":\"%s\",\"code\":\"%s\",\"error\":\"%s\"}", message,
                    code, message);
}
