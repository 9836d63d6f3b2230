/* hrana_make.h -- random requests. */
#ifndef TESTS_SERVER_HRANA_MAKE_H
#define TESTS_SERVER_HRANA_MAKE_H
#include "fmt/noise.h"
#include "server/hrana_dump.h"

static void *make(struct arena *a, size_t size)
{
    struct err err;
    void *p;
    if (arena_take(a, size, &p, &err) != RC_OK) abort();
    return p;
}

static void make_text(struct arena *a, const char **ret, size_t *ret_size)
{
    static const char *const pieces[] = {
        "SELECT ",          "\"", "\\",  "\n", "\x01", "\xC3\xA9", "/", "x", "\xE2\x82\xAC",
        "\xF0\x9F\x98\x80", "0",  "\x7f"};
    struct buf b = BUF_INIT;
    struct err err;
    for (uint64_t n = noise() % 12; n > 0; n--)
        say(&b, "%s", pieces[noise() % 12]);
    if (noise() % 8 == 0 && buf_append(&b, "", 1, &err) != RC_OK) abort();
    char *text = make(a, b.size + 1);
    if (b.size > 0) memcpy(text, b.data, b.size);
    *ret = text;
    *ret_size = b.size;
    buf_fini(&b);
}

static void make_value(struct arena *a, struct sql_value *v)
{
    const char *text;
    uint64_t bits = noise();
    *v = (struct sql_value){.type = noise() % 5};
    switch (v->type) {
    case SQL_INTEGER:
        v->integer = (int64_t)(noise() % 2 == 0 ? bits : 1ull << bits % 64);
        break;
    case SQL_FLOAT:
        v->real = noise() % 2 == 0 ? (double)(int)bits / 1000 : 0;
        if (v->real == 0) memcpy(&v->real, &bits, sizeof v->real);
        if (v->real - v->real != 0) v->real = -0.0;
        break;
    case SQL_TEXT:
    case SQL_BLOB:
        make_text(a, &text, &v->size);
        v->data = text;
        break;
    default:
        break;
    }
}

static void make_sql(struct arena *a, struct hrana_sql *sql)
{
    if (noise() % 4 == 0)
        sql->id = (int32_t)noise();
    else
        make_text(a, &sql->text, &sql->size);
}

static void make_stmt(struct arena *a, struct hrana_stmt *s)
{
    static const char *const names[] = {"a", ":b", "@c", "$d"};
    *s = (struct hrana_stmt){.want_rows = noise() % 4 != 0};
    make_sql(a, &s->sql);
    size_t count = noise() % 6;
    struct sql_arg *args = make(a, (count + 1) * sizeof *args);
    s->args = args;
    s->arg_count = count;
    s->named_count = count > 0 && noise() % 2 == 0 ? noise() % (count + 1) : 0;
    for (size_t i = 0; i < count; i++) {
        if (i >= count - s->named_count) args[i].name = names[noise() % 4];
        make_value(a, &args[i].value);
    }
}

static void make_cond(struct arena *a, struct hrana_cond *c, size_t below, unsigned depth)
{
    do
        c->type = HRANA_COND_OK + (enum hrana_cond_type)(noise() % 6);
    while ((below == 0 && c->type <= HRANA_COND_ERROR) ||
           (depth == 0 && c->type >= HRANA_COND_NOT && c->type <= HRANA_COND_OR));
    if (c->type <= HRANA_COND_ERROR) c->step = (uint32_t)(noise() % below);
    if (c->type < HRANA_COND_NOT || c->type > HRANA_COND_OR) return;
    c->count = c->type == HRANA_COND_NOT ? 1 : noise() % 4;
    struct hrana_cond *inner = make(a, (c->count + 1) * sizeof *inner);
    c->inner = inner;
    for (size_t i = 0; i < c->count; i++)
        make_cond(a, &inner[i], below, depth - 1);
}

static void make_batch(struct arena *a, struct hrana_batch *b)
{
    b->count = noise() % 6;
    struct hrana_step *steps = make(a, (b->count + 1) * sizeof *steps);
    b->steps = steps;
    for (size_t i = 0; i < b->count; i++) {
        if (noise() % 2 == 0) make_cond(a, &steps[i].cond, i, 3);
        make_stmt(a, &steps[i].stmt);
    }
}

static void make_request(struct arena *a, bool ws, struct hrana_request *r)
{
    *r = (struct hrana_request){0};
    do
        r->type = noise() % (HRANA_FETCH_CURSOR + 1);
    while (ws ? r->type == HRANA_CLOSE : r->type >= HRANA_OPEN_STREAM);
    bool sql = r->type == HRANA_SEQUENCE || r->type == HRANA_DESCRIBE;
    if (ws && r->type != HRANA_STORE_SQL && r->type != HRANA_CLOSE_SQL &&
        r->type != HRANA_CLOSE_CURSOR && r->type != HRANA_FETCH_CURSOR)
        r->stream_id = (int32_t)noise();
    if (r->type >= HRANA_OPEN_CURSOR) r->cursor_id = (int32_t)noise();
    if (r->type == HRANA_FETCH_CURSOR) r->max_count = (uint32_t)noise();
    if (r->type == HRANA_EXECUTE) make_stmt(a, &r->stmt);
    if (r->type == HRANA_BATCH || r->type == HRANA_OPEN_CURSOR) make_batch(a, &r->batch);
    if (sql) make_sql(a, &r->sql);
    if (r->type == HRANA_STORE_SQL) make_text(a, &r->sql.text, &r->sql.size);
    if (r->type == HRANA_STORE_SQL || r->type == HRANA_CLOSE_SQL) r->sql.id = (int32_t)noise();
    bool stmt = r->type == HRANA_EXECUTE || r->type == HRANA_BATCH || r->type == HRANA_OPEN_CURSOR;
    if ((sql || stmt) && noise() % 2 == 0) r->replication_index = noise() >> noise() % 64;
}
#endif
