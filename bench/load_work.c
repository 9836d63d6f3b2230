/*
 * load_work.c -- what is asked: the statements of each mode in Hrana's JSON, and a look at the
 * answers that finds wrong ones without parsing: a right answer says "ok", nowhere "error", and
 * holds a text that only this answer has ("user 4711", one affected row, a COMMIT's baton).
 *
 * A transaction (txn) is four requests, each waiting for the answer before it:
 *
 *   STEP_BEGIN -> STEP_READ -> STEP_WRITE -> STEP_COMMIT -> (the next operation)
 *        \____________\____________\______________\
 *                   an error ------------------------> STEP_ROLLBACK -> (the next operation)
 *
 * Over HTTP the baton ties them together; the last one closes the stream.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "load.h"

#define SQL_POINT  "SELECT id, name, val, ts FROM bench WHERE id = ?"
#define SQL_TEN    "SELECT id, name, val, ts FROM bench WHERE id BETWEEN ? AND ?"
#define SQL_INSERT "INSERT INTO bench (name, val, ts) VALUES (?, ?, ?)"
#define SQL_UPDATE "UPDATE bench SET val = val + ? WHERE id = ?"
#define SQL_CREATE "CREATE TABLE bench (id INTEGER PRIMARY KEY, name TEXT, val INTEGER, ts INTEGER)"
#define SQL_FILL                                                                                   \
    "INSERT INTO bench WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n"             \
    " WHERE i < ?) SELECT i, 'user ' || i, i * 7 % 1000, 1700000000000 + i FROM n"
#define SQL_SLOW                                                                                   \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"                  \
    " SELECT count(*), sum(i * 7 % 1000) FROM n"

/* A part of a setup that fails is tried again: sqld sometimes does not know a tenant at first. */
#define RETRIES 5

enum { STEP_BEGIN, STEP_READ, STEP_WRITE, STEP_COMMIT, STEP_ROLLBACK };
struct arg {
    const char *text; /* NULL: the number */
    uint64_t number;
};
#define ARGS(...)                                                                                  \
    (const struct arg[]){__VA_ARGS__},                                                             \
        sizeof((const struct arg[]){__VA_ARGS__}) / sizeof(struct arg)

static bool is_setup(enum load_mode mode);
static void begin_op(struct conn *c);
static void make_op(struct conn *c, struct flight *f, enum load_mode mode);
static void make_txn(struct conn *c, struct flight *f);
static bool make_setup(struct conn *c, struct flight *f);
static void open_trip(struct conn *c);
static void put_execute(struct conn *c, const char *sql, const struct arg *args, size_t count);
static void close_trip(struct conn *c, bool close);
static void ask(struct conn *c, const char *sql, const struct arg *args, size_t count);
static void take_baton(struct conn *c, const char *body, size_t size);
static bool contains(const char *body, size_t size, const char *text);
static unsigned pick_tenant(struct worker *w);
static uint64_t pick_row(struct worker *w, uint64_t less);
static const char *tenant_name(const struct conn *c, char out[LOAD_NAME_MAX]);
static void put_common_head(struct conn *c, struct bytes *out, const char *tenant);
static void encode_base64(const char *text, char *out);

bool work_next(struct conn *c, struct flight *f)
{
    struct worker *w = c->worker;
    enum load_mode mode = w->phase->mode;
    *f = (struct flight){.ends_op = true};
    c->request_id++;
    if (c->step == STEP_BEGIN) begin_op(c);
    f->op_start_ns = c->op_start_ns;
    w->body.size = 0;
    if (is_setup(mode)) return make_setup(c, f);
    if (mode == LOAD_TXN)
        make_txn(c, f);
    else
        make_op(c, f, mode);
    return true;
}

bool work_answer(struct conn *c, const struct flight *f, int status, const char *body, size_t size)
{
    bool ok = status == 200 &&
              contains(body, size, c->worker->phase->ws ? "\"response_ok\"" : "\"ok\"") &&
              !contains(body, size, "error\"") && contains(body, size, f->expect);
    if (c->worker->phase->mode == LOAD_CREATE) {
        ok = status == 200 || contains(body, size, "already exists");
    }
    if (c->worker->phase->mode == LOAD_TXN) {
        if (!c->worker->phase->ws) take_baton(c, body, size);
        if (f->ends_op)
            c->step = STEP_BEGIN;
        else
            c->step = ok ? c->step + 1 : STEP_ROLLBACK;
        /* With the baton gone the server has rolled back already. */
        if (c->step != STEP_BEGIN && c->baton[0] == '\0' && !c->worker->phase->ws) {
            c->step = STEP_BEGIN;
        }
    }
    bool again = is_setup(c->worker->phase->mode) && !ok && c->retries < RETRIES;
    c->retries = again ? c->retries + 1 : 0;
    if (!ok && !f->may_fail) {
        char what[32];
        snprintf(what, sizeof what, "answer %d", status);
        work_failed(c->worker, what, body, size);
    }
    return ok || f->may_fail;
}

void work_broken(struct conn *c)
{
    c->step = STEP_BEGIN;
    c->baton[0] = '\0';
}

void work_http_head(struct conn *c, struct bytes *out)
{
    char name[LOAD_NAME_MAX];
    struct phase *p = c->worker->phase;
    const char *tenant = tenant_name(c, name);
    bytes_str(out, "POST ");
    bytes_str(out, p->target->base);
    if (p->mode == LOAD_CREATE) {
        bytes_str(out, "/v1/namespaces/");
        bytes_str(out, tenant);
        bytes_str(out, "/create");
        tenant = NULL;
    } else {
        if (tenant != NULL && p->opts->style == TENANT_PATH) {
            bytes_str(out, "/dev/");
            bytes_str(out, tenant);
        }
        bytes_str(out, "/v2/pipeline");
    }
    put_common_head(c, out, tenant);
    bytes_str(out, "Content-Type: application/json\r\nContent-Length: ");
    bytes_u64(out, c->worker->body.size);
    bytes_str(out, "\r\n\r\n");
}

void work_upgrade_head(struct conn *c, struct bytes *out)
{
    char name[LOAD_NAME_MAX];
    struct phase *p = c->worker->phase;
    if (p->zipf_sums != NULL) c->tenant = pick_tenant(c->worker);
    const char *tenant = tenant_name(c, name);
    bytes_str(out, "GET ");
    bytes_str(out, p->target->base);
    if (tenant != NULL && p->opts->style == TENANT_PATH) {
        bytes_str(out, "/dev/");
        bytes_str(out, tenant);
    }
    bytes_str(out, "/");
    put_common_head(c, out, tenant);
    bytes_str(out, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: bG9hZCBnZW5lcmF0b3IgIQ==\r\n"
                   "Sec-WebSocket-Protocol: hrana2\r\n\r\n");
}

void work_failed(struct worker *w, const char *what, const char *text, size_t size)
{
    if (w->first_error[0] != '\0') return;
    snprintf(w->first_error, sizeof w->first_error, "%s: %.*s", what, size < 200 ? (int)size : 200,
             text);
    for (char *p = w->first_error; *p != '\0'; p++)
        if ((unsigned char)*p < ' ') *p = ' ';
}

double *work_zipf(unsigned count, double exponent)
{
    double *sums = calloc(count, sizeof *sums), sum = 0;
    if (sums == NULL) die("no memory for %u tenants", count);
    for (unsigned i = 0; i < count; i++)
        sums[i] = sum += 1 / pow(i + 1, exponent);
    for (unsigned i = 0; i < count; i++)
        sums[i] /= sum;
    return sums;
}

static bool is_setup(enum load_mode mode)
{
    return mode == LOAD_CREATE || mode == LOAD_FILL;
}

static void begin_op(struct conn *c)
{
    struct phase *p = c->worker->phase;
    c->op_start_ns = mono_ns();
    c->id = pick_row(c->worker, 0);
    if (p->mode == LOAD_TENANTS && !p->ws) c->tenant = pick_tenant(c->worker);
}

static void make_op(struct conn *c, struct flight *f, enum load_mode mode)
{
    struct worker *w = c->worker;
    const struct load_opts *o = w->phase->opts;
    if (mode == LOAD_MIXED || mode == LOAD_TENANTS) {
        mode = rng_percent(&w->rng, 80) ? LOAD_POINT : LOAD_INSERT;
    }
    if (mode == LOAD_POINT) {
        snprintf(f->expect, sizeof f->expect, "\"user %llu\"", (unsigned long long)c->id);
        ask(c, SQL_POINT, ARGS({NULL, c->id}));
    } else if (mode == LOAD_TEN) {
        c->id = pick_row(w, 9);
        snprintf(f->expect, sizeof f->expect, "\"user %llu\"", (unsigned long long)c->id + 9);
        ask(c, SQL_TEN, ARGS({NULL, c->id}, {NULL, c->id + 9}));
    } else if (mode == LOAD_INSERT) {
        snprintf(f->expect, sizeof f->expect, "\"affected_row_count\":1");
        ask(c, SQL_INSERT,
            ARGS({"a name of twenty bytes", 0}, {NULL, c->id}, {NULL, (uint64_t)now_ms()}));
    } else if (mode == LOAD_SLOW) {
        ask(c, SQL_SLOW, ARGS({NULL, o->slow_rows}));
    } else {
        ask(c, "SELECT 1", NULL, 0);
    }
}

static void make_txn(struct conn *c, struct flight *f)
{
    f->ends_op = c->step == STEP_COMMIT || c->step == STEP_ROLLBACK;
    open_trip(c);
    if (c->step == STEP_BEGIN) {
        put_execute(c, "BEGIN IMMEDIATE", NULL, 0);
    } else if (c->step == STEP_READ) {
        snprintf(f->expect, sizeof f->expect, "\"user %llu\"", (unsigned long long)c->id);
        put_execute(c, SQL_POINT, ARGS({NULL, c->id}));
    } else if (c->step == STEP_WRITE) {
        snprintf(f->expect, sizeof f->expect, "\"affected_row_count\":1");
        put_execute(c, SQL_UPDATE, ARGS({NULL, 1}, {NULL, c->id}));
    } else if (c->step == STEP_COMMIT) {
        put_execute(c, "COMMIT", NULL, 0);
    } else {
        f->may_fail = true; /* nothing may be open any more */
        put_execute(c, "ROLLBACK", NULL, 0);
    }
    close_trip(c, f->ends_op);
}

/* Tenants are made and filled one an operation; a single database in batches, on one connection. */
static bool make_setup(struct conn *c, struct flight *f)
{
    struct phase *p = c->worker->phase;
    uint64_t rows = p->opts->rows, i = c->part;
    if (c->retries == 0) i = c->part = atomic_fetch_add(&p->work_next, 1);
    if (i >= p->work_count) return false;
    c->tenant = (unsigned)i;
    if (p->mode == LOAD_CREATE) {
        bytes_str(&c->worker->body, "{}");
        return true;
    }
    bool tenants = p->opts->tenants > 0;
    open_trip(c);
    if (tenants || i == 0) {
        put_execute(c, "DROP TABLE IF EXISTS bench", NULL, 0);
        put_execute(c, SQL_CREATE, NULL, 0);
    }
    if (tenants) {
        put_execute(c, SQL_FILL, ARGS({NULL, 1}, {NULL, rows}));
    } else if (i > 0) {
        uint64_t first = (i - 1) * LOAD_FILL_BATCH + 1, last = i * LOAD_FILL_BATCH;
        put_execute(c, SQL_FILL, ARGS({NULL, first}, {NULL, last < rows ? last : rows}));
    }
    close_trip(c, true);
    f->expect[0] = '\0';
    return true;
}

static void ask(struct conn *c, const char *sql, const struct arg *args, size_t count)
{
    open_trip(c);
    put_execute(c, sql, args, count);
    close_trip(c, true);
}

static void open_trip(struct conn *c)
{
    struct bytes *b = &c->worker->body;
    if (c->worker->phase->ws) {
        bytes_str(b, "{\"type\":\"request\",\"request_id\":");
        bytes_u64(b, (uint64_t)c->request_id);
        bytes_str(b, ",\"request\":");
        return;
    }
    bytes_str(b, "{\"baton\":");
    if (c->baton[0] == '\0') {
        bytes_str(b, "null");
    } else {
        bytes_str(b, "\"");
        bytes_str(b, c->baton);
        bytes_str(b, "\"");
    }
    bytes_str(b, ",\"requests\":[");
}

static void put_execute(struct conn *c, const char *sql, const struct arg *args, size_t count)
{
    struct bytes *b = &c->worker->body;
    if (!c->worker->phase->ws && b->data[b->size - 1] != '[') bytes_str(b, ",");
    bytes_str(b, "{\"type\":\"execute\",");
    if (c->worker->phase->ws) bytes_str(b, "\"stream_id\":1,");
    bytes_str(b, "\"stmt\":{\"sql\":\"");
    bytes_str(b, sql);
    bytes_str(b, "\",\"args\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0) bytes_str(b, ",");
        if (args[i].text != NULL) {
            bytes_str(b, "{\"type\":\"text\",\"value\":\"");
            bytes_str(b, args[i].text);
        } else {
            bytes_str(b, "{\"type\":\"integer\",\"value\":\"");
            bytes_u64(b, args[i].number);
        }
        bytes_str(b, "\"}");
    }
    bytes_str(b, "],\"want_rows\":true}}");
}

static void close_trip(struct conn *c, bool close)
{
    struct bytes *b = &c->worker->body;
    if (c->worker->phase->ws) {
        bytes_str(b, "}");
        return;
    }
    bytes_str(b, close ? ",{\"type\":\"close\"}]}" : "]}");
}

static void take_baton(struct conn *c, const char *body, size_t size)
{
    static const char key[] = "\"baton\":\"";
    c->baton[0] = '\0';
    const char *at = memmem(body, size, key, sizeof key - 1);
    if (at == NULL) return;
    at += sizeof key - 1;
    const char *end = memchr(at, '"', size - (size_t)(at - body));
    if (end == NULL || end - at >= LOAD_BATON_MAX) return;
    memcpy(c->baton, at, (size_t)(end - at));
    c->baton[end - at] = '\0';
}

static bool contains(const char *body, size_t size, const char *text)
{
    return memmem(body, size, text, strlen(text)) != NULL;
}

static unsigned pick_tenant(struct worker *w)
{
    const double *sums = w->phase->zipf_sums;
    double x = (double)(rng_next(&w->rng) >> 11) * 0x1p-53;
    unsigned low = 0, high = w->phase->opts->tenants - 1;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (sums[middle] > x)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint64_t pick_row(struct worker *w, uint64_t less)
{
    return 1 + rng_below(&w->rng, w->phase->opts->rows - less);
}

/* NULL: the default tenant. */
static const char *tenant_name(const struct conn *c, char out[LOAD_NAME_MAX])
{
    const struct load_opts *o = c->worker->phase->opts;
    if (o->tenant != NULL) return o->tenant;
    if (o->tenants == 0) return NULL;
    snprintf(out, LOAD_NAME_MAX, "t%u", c->tenant);
    return out;
}

static void put_common_head(struct conn *c, struct bytes *out, const char *tenant)
{
    const struct load_opts *o = c->worker->phase->opts;
    bytes_str(out, " HTTP/1.1\r\nHost: ");
    if (tenant != NULL && o->style == TENANT_HOST) {
        bytes_str(out, tenant);
        bytes_str(out, ".localhost");
    } else {
        bytes_str(out, c->worker->phase->target->authority);
    }
    if (tenant != NULL && o->style == TENANT_HEADER) {
        char coded[2 * LOAD_NAME_MAX];
        encode_base64(tenant, coded);
        bytes_str(out, "\r\nx-namespace: ");
        bytes_str(out, tenant);
        bytes_str(out, "\r\nx-namespace-bin: ");
        bytes_str(out, coded);
    }
    if (o->token != NULL) {
        bytes_str(out, "\r\nAuthorization: Bearer ");
        bytes_str(out, o->token);
    }
    bytes_str(out, "\r\n");
}

static void encode_base64(const char *text, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = strlen(text), n = 0;
    for (size_t i = 0; i < size; i += 3) {
        unsigned bits = (unsigned)(unsigned char)text[i] << 16;
        if (i + 1 < size) bits |= (unsigned)(unsigned char)text[i + 1] << 8;
        if (i + 2 < size) bits |= (unsigned char)text[i + 2];
        out[n++] = digits[bits >> 18];
        out[n++] = digits[bits >> 12 & 63];
        out[n++] = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        out[n++] = i + 2 < size ? digits[bits & 63] : '=';
    }
    out[n] = '\0';
}
