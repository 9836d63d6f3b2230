/* api_misc.c -- dump, and the statements API of libSQL's first days. */
#include <string.h>
#include "base/mem.h"
#include "server/legacy.h"
#include "server/server_intern.h"
#include "sql/dump.h"

#define LEGACY_BODY_MAX (2u << 20)
#define JSON            "application/json"
#define DUMP_CHUNK      (64u << 10)

static enum rc legacy_start(struct ask *a, struct err *err);
static void legacy_done(struct exec *x);
static void run_dump(struct crew_job *job);
static enum rc dump(struct ask *a, struct sql_conn *conn, struct err *err);
static enum rc write_dump(void *ctx, const void *data, size_t size, struct err *err);
static enum rc send_dump(struct ask *a, struct err *err);

/* ---- POST / ---- */

void api_legacy(struct ask *a)
{
    struct err err;
    enum rc rc = legacy_start(a, &err);
    if (rc != RC_OK)
        ask_fail_rc(a, rc, &err);
    else
        exec_begin(&a->x);
}

static enum rc legacy_start(struct ask *a, struct err *err)
{
    size_t size, count;
    struct exec *x = &a->x;
    const void *body = http_body(a->http, &size);
    if (size > LEGACY_BODY_MAX)
        return err_set(err, RC_TOO_BIG, "a body of more than %u bytes", LEGACY_BODY_MAX);
    TRY(legacy_get(a->arena, body, size, &a->request, &count, err));
    a->session = mem_calloc(1, sizeof *a->session);
    if (a->session == NULL) return err_mem(err, "a stream");
    session_init(a->session, a->tenant);
    session_grant(a->session, a->grant);
    TRY(hrana_encoder_new(false, HRANA_FRAME_PIPELINE, HRANA_3, &a->out, &a->enc, err));
    TRY(hrana_put_begin(a->enc, NULL, NULL, err));
    x->env = &a->server->env;
    x->ses = a->session;
    x->requests = &a->request;
    x->count = 1;
    x->enc = a->enc;
    x->out = &a->out;
    x->arena = a->arena;
    x->gone = http_gone(a->http);
    x->done = legacy_done;
    x->ctx = a;
    const char *durability = http_header(a->http, "x-sluice-durability");
    x->sync = durability != NULL && strcmp(durability, "sync") == 0;
    return RC_OK;
}

static void legacy_done(struct exec *x)
{
    struct ask *a = x->ctx;
    struct err err;
    struct buf out = BUF_INIT;
    bool whole = false;
    size_t steps = a->request.batch.count, count = steps > 1 ? steps - 3 : steps;
    if (x->rc != RC_OK) {
        if (x->sql_err.code[0] != '\0')
            ask_fail(a, 503, &x->sql_err);
        else
            ask_fail_rc(a, x->rc, &x->err);
        return;
    }
    enum rc rc = hrana_put_end(a->enc, &err);
    if (rc == RC_OK) rc = legacy_put(a->arena, &a->out, count, &out, &whole, &err);
    ask_drop_session(a);
    if (rc != RC_OK) {
        buf_fini(&out);
        ask_fail_text(a, 500, rc_name(rc), "%s", err.text);
    } else {
        http_reply(a->http, whole ? 200 : 503, JSON, &out);
    }
}

/* ---- GET /dump ---- */

void api_dump(struct ask *a)
{
    const struct tenant_conf *conf = atomic_load(&a->tenant->conf);
    if (conf->block_reads)
        ask_fail_text(a, 403, "BLOCKED", "Operation was blocked: %s",
                      conf->block_reason[0] != '\0' ? conf->block_reason : "reads are blocked");
    else if (grant_for(a->grant, a->tenant->name) < GRANT_READ)
        ask_fail_text(a, 403, "AUTH_FORBIDDEN",
                      "Authorization forbidden: no Read permission for namespace %s",
                      a->tenant->name);
    else
        ask_to_work(a, run_dump);
}

static void run_dump(struct crew_job *job)
{
    struct ask *a = ask_of(job);
    struct err err;
    struct sql_conn *conn;
    enum rc rc = sql_engine_get(a->tenant->engine, &conn, &err);
    if (rc == RC_OK) {
        rc = dump(a, conn, &err);
        sql_conn_policy(conn, NULL); /* before the grant goes */
        sql_engine_put(a->tenant->engine, conn);
    }
    if (rc == RC_OK && a->streaming) rc = send_dump(a, &err);
    if (a->streaming)
        http_stream_end(a->http, rc == RC_OK);
    else if (rc == RC_OK)
        http_reply(a->http, 200, "text/plain", &a->out);
    else
        ask_fail_rc(a, rc, &err);
}

static enum rc dump(struct ask *a, struct sql_conn *conn, struct err *err)
{
    const char *row_ids = http_query(a->http, "preserve_row_ids");
    const struct sql_dump_opts opts = {.preserve_row_ids =
                                           row_ids != NULL && strcmp(row_ids, "true") == 0};
    const struct call call = {.cancel = http_gone(a->http)};
    sql_conn_policy(conn, grant_policy(a->grant));
    return sql_dump(conn, &call, &opts, write_dump, a, err);
}

static enum rc write_dump(void *ctx, const void *data, size_t size, struct err *err)
{
    struct ask *a = ctx;
    TRY(buf_append(&a->out, data, size, err));
    return a->out.size < DUMP_CHUNK ? RC_OK : send_dump(a, err);
}

static enum rc send_dump(struct ask *a, struct err *err)
{
    if (!a->streaming) TRY(http_stream_begin(a->http, 200, "text/plain", err));
    a->streaming = true;
    TRY(http_stream_write(a->http, a->out.data, a->out.size, false, err));
    buf_reset(&a->out);
    return RC_OK;
}
