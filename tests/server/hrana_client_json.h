/* hrana_client_json.h -- requests as some client might write them: blanks, members in either order,
 * numbers as numbers or as texts. */
#ifndef TESTS_SERVER_HRANA_CLIENT_JSON_H
#define TESTS_SERVER_HRANA_CLIENT_JSON_H
#include "server/hrana_make.h"

static const char *blank(void)
{
    static const char *const blanks[] = {"", "", "", " ", "\r\n\t"};
    return blanks[noise() % 5];
}

static void json_text(struct buf *b, const char *text, size_t size)
{
    say(b, "\"");
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)text[i];
        if (size - i >= 4 && memcmp(text + i, "\xF0\x9F\x98\x80", 4) == 0 && noise() % 2 == 0) {
            say(b, "\\uD83d\\ude00");
            i += 3;
        } else if (c == '\n' && noise() % 2 == 0) {
            say(b, "\\n");
        } else if (c < 0x20 || (c < 0x7f && noise() % 16 == 0)) {
            say(b, noise() % 2 == 0 ? "\\u%04x" : "\\u%04X", c);
        } else if (c == '"' || c == '\\' || (c == '/' && noise() % 2 == 0)) {
            say(b, "\\%c", c);
        } else {
            say(b, "%c", c);
        }
    }
    say(b, "\"");
}

static void json_value(struct buf *b, const struct sql_value *v)
{
    static const char *const letters[] = {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"};
    static const char *const types[] = {"null", "integer", "float", "text", "blob"};
    const char *alphabet = letters[noise() % 2], *quote = noise() % 2 == 0 ? "\"" : "";
    const uint8_t *data = v->data;
    bool last = noise() % 2 == 0;
    uint32_t bits = 0;
    say(b, "{%s", blank());
    if (!last) say(b, "\"type\"%s:%s\"%s\",", blank(), blank(), types[v->type]);
    say(b, v->type == SQL_BLOB ? "\"base64\":" : "\"value\":");
    switch (v->type) {
    case SQL_INTEGER:
        say(b, "%s%lld%s", quote, (long long)v->integer, quote);
        break;
    case SQL_FLOAT:
        say(b, "%.17g", v->real);
        break;
    case SQL_TEXT:
        json_text(b, v->data, v->size);
        break;
    case SQL_BLOB:
        say(b, "\"");
        for (size_t i = 0; i < v->size; i++) {
            bits = bits << 8 | data[i];
            if (i % 3 == 0) say(b, "%c", alphabet[data[i] >> 2]);
            if (i % 3 == 1) say(b, "%c", alphabet[bits >> 4 & 63]);
            if (i % 3 == 2) say(b, "%c%c", alphabet[bits >> 6 & 63], alphabet[bits & 63]);
        }
        if (v->size % 3 == 1) say(b, "%c%s", alphabet[bits << 4 & 63], *quote ? "==" : "");
        if (v->size % 3 == 2) say(b, "%c%s", alphabet[bits << 2 & 63], *quote ? "=" : "");
        say(b, "\"");
        break;
    default:
        say(b, "null");
    }
    if (last) say(b, ",%s\"type\":\"%s\"", blank(), types[v->type]);
    say(b, "}");
}

static void json_sql(struct buf *b, const struct hrana_sql *sql)
{
    if (sql->text == NULL) {
        say(b, "\"sql_id\":%d", sql->id);
        return;
    }
    say(b, "\"sql\":%s", blank());
    json_text(b, sql->text, sql->size);
}

static void json_stmt(struct buf *b, const struct hrana_stmt *s)
{
    size_t plain = s->arg_count - s->named_count;
    say(b, "{");
    if (s->named_count > 0) say(b, "\"named_args\":[");
    for (size_t i = plain; i < s->arg_count; i++) {
        say(b, "%s{\"name\":\"%s\",\"value\":", i > plain ? "," : "", s->args[i].name);
        json_value(b, &s->args[i].value);
        say(b, "}");
    }
    if (s->named_count > 0) say(b, "],");
    json_sql(b, &s->sql);
    if (plain > 0 || noise() % 2 == 0) {
        say(b, ",\"args\":[");
        for (size_t i = 0; i < plain; i++) {
            if (i > 0) say(b, "%s,%s", blank(), blank());
            json_value(b, &s->args[i].value);
        }
        say(b, "]");
    }
    if (!s->want_rows || noise() % 2 == 0)
        say(b, ",\"want_rows\"%s:%s", blank(), s->want_rows ? "true" : "false");
    say(b, "}");
}

static void json_cond(struct buf *b, const struct hrana_cond *c)
{
    static const char *const names[] = {"", "ok", "error", "not", "and", "or", "is_autocommit"};
    say(b, "{");
    if (c->type == HRANA_COND_NOT) say(b, "\"cond\":");
    if (c->type == HRANA_COND_AND || c->type == HRANA_COND_OR) say(b, "\"conds\":[");
    for (size_t i = 0; i < c->count; i++) {
        if (i > 0) say(b, ",");
        json_cond(b, &c->inner[i]);
    }
    if (c->type == HRANA_COND_AND || c->type == HRANA_COND_OR) say(b, "]");
    if (c->type >= HRANA_COND_NOT && c->type <= HRANA_COND_OR) say(b, ",");
    if (c->type <= HRANA_COND_ERROR) say(b, "\"step\":%u,", c->step);
    say(b, "\"type\":\"%s\"}", names[c->type]);
}

static void json_batch(struct buf *b, const struct hrana_batch *batch)
{
    say(b, "{\"steps\":[");
    for (size_t i = 0; i < batch->count; i++) {
        say(b, i > 0 ? ",{" : "{");
        if (batch->steps[i].cond.type != HRANA_COND_NONE) {
            say(b, "\"condition\":");
            json_cond(b, &batch->steps[i].cond);
            say(b, ",");
        } else if (noise() % 2 == 0) {
            say(b, "\"condition\":null,");
        }
        say(b, "\"stmt\":");
        json_stmt(b, &batch->steps[i].stmt);
        say(b, "}");
    }
    say(b, "]}");
}

__attribute__((unused)) static void json_request(struct buf *b, const struct hrana_request *r)
{
    say(b, "{%s", blank());
    if (r->stream_id != 0) say(b, "\"stream_id\":%d,", r->stream_id);
    if (r->cursor_id != 0) say(b, "\"cursor_id\":%d,", r->cursor_id);
    if (r->max_count != 0) say(b, "\"max_count\":%u,", r->max_count);
    if (r->replication_index != 0)
        say(b, "\"replication_index\":\"%llu\",", (unsigned long long)r->replication_index);
    if (noise() % 4 == 0) say(b, "\"unknown\":[{\"x\":1.5e3},[],{},\"\\u0041\"],");
    if (r->type == HRANA_EXECUTE) {
        say(b, "\"stmt\":");
        json_stmt(b, &r->stmt);
        say(b, ",");
    }
    if (r->type == HRANA_BATCH || r->type == HRANA_OPEN_CURSOR) {
        say(b, "\"batch\":");
        json_batch(b, &r->batch);
        say(b, ",");
    }
    if (r->type == HRANA_SEQUENCE || r->type == HRANA_DESCRIBE || r->type == HRANA_STORE_SQL) {
        json_sql(b, &r->sql);
        say(b, ",");
    }
    if (r->type == HRANA_STORE_SQL || r->type == HRANA_CLOSE_SQL)
        say(b, "\"sql_id\":\"%d\",", r->sql.id);
    say(b, "\"type\":\"%s\"%s}", hrana_type_name(r->type), blank());
}
#endif
