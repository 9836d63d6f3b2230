/* hrana_dump.h -- decoded messages as text that tests can compare with what they expect:
 *
 *   execute(#3 %2 stmt("SELECT ?" args I1 F1.5 T"x" Bff N :n=I2 norows)) @7
 */
#ifndef TESTS_SERVER_HRANA_DUMP_H
#define TESTS_SERVER_HRANA_DUMP_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "server/hrana_intern.h"

__attribute__((format(printf, 2, 3), unused)) static void say(struct buf *b, const char *fmt, ...)
{
    char text[512];
    struct err err;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text || buf_append(b, text, (size_t)n, &err) != RC_OK) abort();
}

__attribute__((unused)) static void dump_text(struct buf *b, const void *data, size_t size)
{
    const uint8_t *s = data;
    say(b, "\"");
    for (size_t i = 0; i < size; i++)
        if (s[i] >= 0x20 && s[i] < 0x7f && s[i] != '"' && s[i] != '\\')
            say(b, "%c", s[i]);
        else
            say(b, "\\%02x", s[i]);
    say(b, "\"");
}

__attribute__((unused)) static void dump_value(struct buf *b, const struct sql_value *v)
{
    switch (v->type) {
    case SQL_INTEGER:
        say(b, " I%lld", (long long)v->integer);
        break;
    case SQL_FLOAT:
        say(b, v->real != v->real ? " Fnan" : " F%.17g", v->real);
        break;
    case SQL_TEXT:
        say(b, " T");
        dump_text(b, v->data, v->size);
        break;
    case SQL_BLOB:
        say(b, " B");
        for (size_t i = 0; i < v->size; i++)
            say(b, "%02x", ((const uint8_t *)v->data)[i]);
        break;
    default:
        say(b, " N");
    }
}

__attribute__((unused)) static void dump_sql(struct buf *b, const struct hrana_sql *sql)
{
    if (sql->text != NULL)
        dump_text(b, sql->text, sql->size);
    else
        say(b, "id %d", sql->id);
}

__attribute__((unused)) static void dump_stmt(struct buf *b, const struct hrana_stmt *s)
{
    say(b, "stmt(");
    dump_sql(b, &s->sql);
    if (s->arg_count > 0) say(b, " args");
    for (size_t i = 0; i < s->arg_count; i++) {
        if ((s->args[i].name != NULL) != (i >= s->arg_count - s->named_count)) abort();
        if (s->args[i].name != NULL) say(b, " %s=", s->args[i].name);
        dump_value(b, &s->args[i].value);
    }
    say(b, s->want_rows ? ")" : " norows)");
}

__attribute__((unused)) static void dump_cond(struct buf *b, const struct hrana_cond *c)
{
    static const char *const names[] = {"always", "ok", "error", "not", "and", "or", "autocommit"};
    say(b, "%s", names[c->type]);
    if (c->type == HRANA_COND_OK || c->type == HRANA_COND_ERROR) say(b, " %u", c->step);
    if (c->type < HRANA_COND_NOT || c->type > HRANA_COND_OR) return;
    say(b, "(");
    for (size_t i = 0; i < c->count; i++) {
        if (i > 0) say(b, ", ");
        dump_cond(b, &c->inner[i]);
    }
    say(b, ")");
}

__attribute__((unused)) static void dump_batch(struct buf *b, const struct hrana_batch *batch)
{
    say(b, "batch(");
    for (size_t i = 0; i < batch->count; i++) {
        if (i > 0) say(b, "; ");
        if (batch->steps[i].cond.type != HRANA_COND_NONE) {
            say(b, "if ");
            dump_cond(b, &batch->steps[i].cond);
            say(b, ": ");
        }
        dump_stmt(b, &batch->steps[i].stmt);
    }
    say(b, ")");
}

__attribute__((unused)) static void dump_request(struct buf *b, const struct hrana_request *r)
{
    say(b, "%s(", hrana_type_name(r->type));
    if (r->stream_id != 0) say(b, "#%d ", r->stream_id);
    if (r->cursor_id != 0) say(b, "%%%d ", r->cursor_id);
    if (r->type == HRANA_FETCH_CURSOR) say(b, "max %u", r->max_count);
    if (r->type == HRANA_EXECUTE) dump_stmt(b, &r->stmt);
    if (r->type == HRANA_BATCH || r->type == HRANA_OPEN_CURSOR) dump_batch(b, &r->batch);
    if (r->type == HRANA_SEQUENCE || r->type == HRANA_DESCRIBE) dump_sql(b, &r->sql);
    if (r->type == HRANA_STORE_SQL || r->type == HRANA_CLOSE_SQL) say(b, "id %d", r->sql.id);
    if (r->type == HRANA_STORE_SQL) say(b, " ");
    if (r->type == HRANA_STORE_SQL) dump_text(b, r->sql.text, r->sql.size);
    say(b, ")");
    if (r->replication_index != 0) say(b, " @%llu", (unsigned long long)r->replication_index);
}

__attribute__((unused)) static void dump_pipeline(struct buf *b, const struct hrana_pipeline *p)
{
    say(b, "baton ");
    if (p->baton != NULL) dump_text(b, p->baton, strlen(p->baton));
    for (size_t i = 0; i < p->count; i++) {
        say(b, "\n");
        dump_request(b, &p->requests[i]);
    }
}

__attribute__((unused)) static void dump_cursor(struct buf *b, const struct hrana_cursor_body *c)
{
    say(b, "baton ");
    if (c->baton != NULL) dump_text(b, c->baton, strlen(c->baton));
    say(b, "\n");
    dump_batch(b, &c->batch);
    if (c->replication_index != 0) say(b, " @%llu", (unsigned long long)c->replication_index);
}

__attribute__((unused)) static void dump_ws(struct buf *b, const struct hrana_ws_msg *m)
{
    if (m->hello) {
        say(b, "hello ");
        if (m->jwt != NULL) dump_text(b, m->jwt, strlen(m->jwt));
        return;
    }
    say(b, "%d ", m->request_id);
    dump_request(b, &m->request);
}
#endif
