/*
 * api_hrana.c -- Hrana over HTTP: /v2/pipeline, /v3/pipeline, /v3/cursor, /v1/execute, /v1/batch.
 *
 * A pipeline's stream is a session that comes from its baton, or a new one. When the requests are
 * done it goes into a new baton, unless it was closed. A cursor's baton stands in front of its
 * entries: a small cursor is written as a whole and gets its baton at the end; a large one is sent
 * while it runs and gets the baton of a live stream in advance.
 */
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "server/server_intern.h"

#define JSON     "application/json"
#define PROTOBUF "application/x-protobuf"
#define LINES    "text/plain"
#define MESSAGES "application/octet-stream"
#define LEFT_MS  3000 /* a request waits so long for a cursor to end that its client has left */

static const struct hrana_decoder *decoder_of(const struct ask *a);
static enum rc take_session(struct ask *a, const char *baton, struct sql_error *e, struct err *err);
static enum rc prepare(struct ask *a, enum hrana_frame frame, const char *baton, struct err *err);
static void stream_came(struct baton_wait *w);
static void start(struct ask *a, const struct hrana_request *requests, size_t count,
                  void (*done)(struct exec *x));
static void pipeline_done(struct exec *x);
static enum rc pipeline_end(struct ask *a, struct buf *baton, struct err *err);
static bool nobody_waits(const struct ask *a);
static void fail_exec(struct ask *a);
static enum rc cursor_flush(struct exec *x, struct err *err);
static enum rc cursor_head(struct ask *a, const char *baton, struct buf *out, struct err *err);
static void cursor_done(struct exec *x);
static enum rc cursor_reply(struct ask *a, struct err *err);
static void cursor_end(struct ask *a);
static void v1_done(struct exec *x);
static unsigned v1_status(const struct sql_error *e);
static void add_index(struct ask *a);
static void add_timing(struct ask *a);

void api_pipeline(struct ask *a)
{
    struct err err;
    size_t size;
    struct hrana_pipeline p;
    const void *body = http_body(a->http, &size);
    enum rc rc = decoder_of(a)->pipeline(a->arena, a->target.version, body, size, &p, &err);
    if (rc == RC_OK) rc = prepare(a, HRANA_FRAME_PIPELINE, p.baton, &err);
    if (rc == RC_AGAIN) return; /* its stream's cursor has not ended; from here it may be gone */
    if (rc == RC_OK) rc = hrana_put_begin(a->enc, NULL, NULL, &err);
    if (rc == RC_OK)
        start(a, p.requests, p.count, pipeline_done);
    else if (a->x.sql_err.code[0] != '\0')
        ask_fail(a, strcmp(a->x.sql_err.code, "STREAM_EXPIRED") == 0 ? 410 : 404, &a->x.sql_err);
    else
        ask_fail_rc(a, rc, &err);
}

void api_cursor(struct ask *a)
{
    struct err err;
    size_t size;
    struct hrana_cursor_body c;
    const void *body = http_body(a->http, &size);
    enum rc rc = decoder_of(a)->cursor(a->arena, body, size, &c, &err);
    if (rc == RC_OK) rc = prepare(a, HRANA_FRAME_CURSOR, c.baton, &err);
    if (rc == RC_AGAIN) return; /* its stream's cursor has not ended; from here it may be gone */
    if (rc != RC_OK && a->x.sql_err.code[0] != '\0') {
        ask_fail(a, strcmp(a->x.sql_err.code, "STREAM_EXPIRED") == 0 ? 410 : 404, &a->x.sql_err);
        return;
    }
    if (rc != RC_OK) {
        ask_fail_rc(a, rc, &err);
        return;
    }
    a->request = (struct hrana_request){
        .type = HRANA_BATCH, .batch = c.batch, .replication_index = c.replication_index};
    a->x.cursor = true;
    a->x.flush = cursor_flush;
    start(a, &a->request, 1, cursor_done);
}

void api_v1(struct ask *a)
{
    struct err err;
    size_t size;
    const void *body = http_body(a->http, &size);
    bool batch = a->target.route == ROUTE_V1_BATCH;
    enum rc rc = hrana_json_v1(a->arena, body, size, batch, &a->request, &err);
    if (rc == RC_OK) rc = prepare(a, HRANA_FRAME_V1, NULL, &err);
    if (rc == RC_OK) rc = hrana_put_begin(a->enc, NULL, NULL, &err);
    if (rc == RC_OK)
        start(a, &a->request, 1, v1_done);
    else
        ask_fail_rc(a, rc, &err);
}

static const struct hrana_decoder *decoder_of(const struct ask *a)
{
    return a->target.proto ? &hrana_proto_decoder : &hrana_json_decoder;
}

static enum rc prepare(struct ask *a, enum hrana_frame frame, const char *baton, struct err *err)
{
    TRY(take_session(a, baton, &a->x.sql_err, err));
    session_grant(a->session, a->grant);
    return hrana_encoder_new(a->target.proto, frame, a->target.version, &a->out, &a->enc, err);
}

static enum rc take_session(struct ask *a, const char *baton, struct sql_error *e, struct err *err)
{
    struct stored stored = {0};
    struct sql_last last = {0};
    if (baton != NULL) {
        a->wait.fn = stream_came;
        a->wait.gone = http_gone(a->http);
        if (a->wait.deadline_ms == 0) a->wait.deadline_ms = os_mono_ms() + LEFT_MS;
        TRY(batons_take(a->server->batons, a->tenant->name, baton, &a->wait, &a->session, &stored,
                        &last, e, err));
    }
    if (a->session != NULL) {
        /* It has the tenant counted already, the very same one: it is open because of that. */
        a->server->opts.ops->release(a->server->opts.tenants, a->tenant);
        a->tenant = a->session->tenant;
        return RC_OK;
    }
    a->session = mem_calloc(1, sizeof *a->session);
    if (a->session == NULL) {
        stored_fini(&stored);
        return err_mem(err, "a stream");
    }
    session_init(a->session, a->tenant);
    a->session->own = stored;
    a->session->stream.last = last;
    return RC_OK;
}

static void stream_came(struct baton_wait *w)
{
    ask_resume((struct ask *)((char *)w - offsetof(struct ask, wait)));
}

static void start(struct ask *a, const struct hrana_request *requests, size_t count,
                  void (*done)(struct exec *x))
{
    struct exec *x = &a->x;
    x->env = &a->server->env;
    x->ses = a->session;
    x->requests = requests;
    x->count = count;
    x->enc = a->enc;
    x->out = &a->out;
    x->arena = a->arena;
    x->gone = http_gone(a->http);
    x->done = done;
    x->ctx = a;
    const char *durability = http_header(a->http, "x-sluice-durability");
    x->sync = durability != NULL && strcmp(durability, "sync") == 0;
    exec_begin(x);
}

/* Nothing could be answered; what is open is rolled back. */
static void fail_exec(struct ask *a)
{
    struct exec *x = &a->x;
    if (x->sql_err.code[0] != '\0')
        ask_fail(a, 503, &x->sql_err);
    else
        ask_fail_rc(a, x->rc, &x->err);
}

static void add_index(struct ask *a)
{
    char text[24];
    struct err ignored;
    if (a->x.index == 0) return;
    snprintf(text, sizeof text, "%llu", (unsigned long long)a->x.index);
    if (http_add_header(a->http, "x-sluice-txid", text, &ignored) != RC_OK) return;
}

static void add_timing(struct ask *a)
{
    char text[40];
    struct err ignored;
    int64_t us = os_mono_us() - a->since_us;
    snprintf(text, sizeof text, "query;dur=%lld.%03d", (long long)(us / 1000), (int)(us % 1000));
    if (http_add_header(a->http, "Server-Timing", text, &ignored) != RC_OK) return;
}

static void pipeline_done(struct exec *x)
{
    struct ask *a = x->ctx;
    struct err err;
    CLEANUP(buf_fini) struct buf baton = BUF_INIT;
    if (x->rc != RC_OK) {
        fail_exec(a);
        return;
    }
    enum rc rc = pipeline_end(a, &baton, &err);
    if (rc != RC_OK) {
        ask_fail_rc(a, rc, &err);
        return;
    }
    add_index(a);
    add_timing(a);
    http_reply(a->http, 200, a->target.proto ? PROTOBUF : JSON, &a->out);
}

static enum rc pipeline_end(struct ask *a, struct buf *baton, struct err *err)
{
    bool kept = false;
    if (nobody_waits(a)) ask_drop_session(a);
    if (!a->x.closed && a->session != NULL) {
        TRY(batons_give(a->server->batons, a->session, baton, &kept, err));
        if (kept) {
            a->session = NULL;
            a->tenant = NULL; /* counted for the session */
        }
        hrana_put_baton(a->enc, (const char *)baton->data, NULL);
    }
    return hrana_put_end(a->enc, err);
}

/* Nobody will come back with a baton that was told to nobody, and what the stream has open would
 * be in the way of others until its time is over. */
static bool nobody_waits(const struct ask *a)
{
    return atomic_load(a->x.gone);
}

/* ---- Cursors ---- */

static enum rc cursor_flush(struct exec *x, struct err *err)
{
    struct ask *a = x->ctx;
    enum rc rc = RC_OK;
    if (!a->streaming) {
        CLEANUP(buf_fini) struct buf baton = BUF_INIT;
        CLEANUP(buf_fini) struct buf head = BUF_INIT;
        TRY(batons_promise(a->server->batons, a->tenant->name, &a->promise, &baton, err));
        rc = cursor_head(a, (const char *)baton.data, &head, err);
        if (rc == RC_OK)
            rc = http_stream_begin(a->http, 200, a->target.proto ? MESSAGES : LINES, err);
        if (rc != RC_OK) {
            batons_keep(a->server->batons, &a->promise, NULL);
            return rc;
        }
        a->streaming = true;
        rc = http_stream_write(a->http, head.data, head.size, false, err);
    }
    if (rc == RC_OK) rc = http_stream_write(a->http, a->out.data, a->out.size, false, err);
    if (rc != RC_OK) a->broken = true;
    buf_reset(&a->out);
    return rc;
}

static enum rc cursor_head(struct ask *a, const char *baton, struct buf *out, struct err *err)
{
    struct hrana_encoder *enc = NULL;
    TRY(hrana_encoder_new(a->target.proto, HRANA_FRAME_CURSOR, a->target.version, out, &enc, err));
    enum rc rc = hrana_put_begin(enc, baton, NULL, err);
    hrana_encoder_free(enc);
    return rc;
}

static void cursor_done(struct exec *x)
{
    struct ask *a = x->ctx;
    struct err err;
    if (a->streaming) {
        cursor_end(a);
        return;
    }
    if (x->rc != RC_OK) {
        fail_exec(a);
        return;
    }
    enum rc rc = cursor_reply(a, &err);
    if (rc != RC_OK) ask_fail_rc(a, rc, &err);
}

static enum rc cursor_reply(struct ask *a, struct err *err)
{
    CLEANUP(buf_fini) struct buf baton = BUF_INIT;
    CLEANUP(buf_fini) struct buf whole = BUF_INIT;
    bool kept = false;
    if (nobody_waits(a)) return err_set(err, RC_CANCELED, "the client has gone");
    TRY(batons_give(a->server->batons, a->session, &baton, &kept, err));
    if (kept) {
        a->session = NULL;
        a->tenant = NULL;
    }
    TRY(cursor_head(a, (const char *)baton.data, &whole, err));
    TRY(buf_append(&whole, a->out.data, a->out.size, err));
    add_index(a);
    http_reply(a->http, 200, a->target.proto ? MESSAGES : LINES, &whole);
    return RC_OK;
}

/* The session is put away before the last entry is sent: a client that has that may come back at
 * once. So may one that has left the cursor in the middle, for it has the baton. */
static void cursor_end(struct ask *a)
{
    struct err err;
    enum rc rc = a->x.rc;
    bool whole = rc == RC_OK && !a->broken;
    bool keep = rc == RC_OK || rc == RC_CANCELED;
    batons_keep(a->server->batons, &a->promise, keep ? a->session : NULL);
    if (keep) {
        a->session = NULL;
        a->tenant = NULL; /* counted for the session */
    }
    if (whole) whole = http_stream_write(a->http, a->out.data, a->out.size, true, &err) == RC_OK;
    ask_drop_session(a);
    http_stream_end(a->http, whole);
}

/* ---- Version 1 ---- */

static void v1_done(struct exec *x)
{
    struct ask *a = x->ctx;
    struct err err;
    enum rc rc = x->rc;
    if (rc != RC_OK) {
        fail_exec(a);
        return;
    }
    unsigned status = x->bad.code[0] != '\0' ? v1_status(&x->bad) : 200;
    rc = hrana_put_end(a->enc, &err);
    ask_drop_session(a);
    if (rc != RC_OK)
        ask_fail_rc(a, rc, &err);
    else
        http_reply(a->http, status, JSON, &a->out);
}

static unsigned v1_status(const struct sql_error *e)
{
    if (strcmp(e->code, "TRANSACTION_TIMEOUT") == 0 || strcmp(e->code, "SQLITE_BUSY") == 0)
        return 503;
    if (strcmp(e->code, "ARGS_BOTH_POSITIONAL_AND_NAMED") == 0) return 501;
    return strncmp(e->code, "SQLITE_", 7) == 0 ? 500 : 400;
}
