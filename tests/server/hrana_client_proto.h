/* hrana_client_proto.h -- requests as some client might write them: long varints, fields of a later
 * version. One message after another, in buffers of its own. */
#ifndef TESTS_SERVER_HRANA_CLIENT_PROTO_H
#define TESTS_SERVER_HRANA_CLIENT_PROTO_H
#include "server/hrana_make.h"

static void pb_varint(struct buf *b, uint64_t v)
{
    /* Now and then longer than it must be. */
    unsigned more = v < 0x40 && noise() % 16 == 0 ? 1 : 0;
    for (; v >= 0x80 || more > 0; v >>= 7) {
        if (v < 0x80) more--;
        say(b, "%c", (int)(v | 0x80) & 0xff);
    }
    say(b, "%c", (int)v);
}

static void pb_bytes(struct buf *b, unsigned number, const void *data, size_t size)
{
    struct err err;
    pb_varint(b, number << 3 | 2);
    pb_varint(b, size);
    if (buf_append(b, data, size, &err) != RC_OK) abort();
}

static void pb_msg(struct buf *b, unsigned number, struct buf *msg)
{
    pb_bytes(b, number, msg->data, msg->size);
    buf_fini(msg);
}

static void pb_number(struct buf *b, unsigned number, uint64_t v)
{
    pb_varint(b, number << 3);
    pb_varint(b, v);
}

/* Fields from a later version of the protocol. */
static void pb_unknown(struct buf *b)
{
    switch (noise() % 16) {
    case 0:
        pb_number(b, 100, noise());
        break;
    case 1:
        pb_varint(b, 101 << 3 | 1);
        say(b, "12345678");
        break;
    case 2:
        pb_bytes(b, 536870911, "unknown", 7);
        break;
    case 3:
        pb_varint(b, 102 << 3 | 5);
        say(b, "1234");
        break;
    default:
        break;
    }
}

static void pb_value(struct buf *b, unsigned number, const struct sql_value *v)
{
    struct buf msg = BUF_INIT;
    struct err err;
    pb_unknown(&msg);
    if (noise() % 16 == 0) pb_number(&msg, 2, 5); /* the last of a oneof counts */
    switch (v->type) {
    case SQL_INTEGER:
        pb_number(&msg, 2, (uint64_t)v->integer << 1 ^ (v->integer < 0 ? UINT64_MAX : 0));
        break;
    case SQL_FLOAT:
        pb_varint(&msg, 3 << 3 | 1);
        if (buf_append(&msg, &v->real, 8, &err) != RC_OK) abort();
        break;
    case SQL_TEXT:
    case SQL_BLOB:
        pb_bytes(&msg, v->type == SQL_TEXT ? 4 : 5, v->data, v->size);
        break;
    default:
        pb_bytes(&msg, 1, NULL, 0);
    }
    pb_msg(b, number, &msg);
}

static void pb_stmt(struct buf *b, unsigned number, const struct hrana_stmt *s)
{
    struct buf msg = BUF_INIT;
    for (size_t i = 0; i < s->arg_count; i++) {
        if (s->args[i].name == NULL) {
            pb_value(&msg, 3, &s->args[i].value);
            continue;
        }
        struct buf named = BUF_INIT;
        pb_bytes(&named, 1, s->args[i].name, strlen(s->args[i].name));
        pb_value(&named, 2, &s->args[i].value);
        pb_msg(&msg, 4, &named);
    }
    if (s->sql.text != NULL)
        pb_bytes(&msg, 1, s->sql.text, s->sql.size);
    else
        pb_number(&msg, 2, (uint64_t)(int64_t)s->sql.id);
    pb_unknown(&msg);
    if (noise() % 8 == 0) pb_number(&msg, 5, noise() % 2);
    if (!s->want_rows || msg.size > 0) pb_number(&msg, 5, s->want_rows);
    pb_msg(b, number, &msg);
}

static void pb_cond(struct buf *b, unsigned number, const struct hrana_cond *c)
{
    struct buf msg = BUF_INIT, list = BUF_INIT;
    if (noise() % 8 == 0) pb_number(&msg, 1, 99); /* overwritten by what follows */
    switch (c->type) {
    case HRANA_COND_OK:
    case HRANA_COND_ERROR:
        pb_number(&msg, c->type == HRANA_COND_OK ? 1 : 2, c->step);
        break;
    case HRANA_COND_NOT:
        pb_cond(&msg, 3, c->inner);
        break;
    case HRANA_COND_AUTOCOMMIT:
        pb_bytes(&msg, 6, NULL, 0);
        break;
    default:
        for (size_t i = 0; i < c->count; i++)
            pb_cond(&list, 1, &c->inner[i]);
        pb_msg(&msg, c->type == HRANA_COND_AND ? 4 : 5, &list);
    }
    pb_unknown(&msg);
    pb_msg(b, number, &msg);
}

static void pb_batch(struct buf *b, unsigned number, const struct hrana_batch *batch)
{
    struct buf msg = BUF_INIT;
    for (size_t i = 0; i < batch->count; i++) {
        struct buf step = BUF_INIT;
        if (batch->steps[i].cond.type != HRANA_COND_NONE) pb_cond(&step, 1, &batch->steps[i].cond);
        pb_stmt(&step, 2, &batch->steps[i].stmt);
        pb_msg(&msg, 1, &step);
    }
    pb_msg(b, number, &msg);
}

/* The request as field `number of its type` of b. */
__attribute__((unused)) static void pb_request(struct buf *b, bool ws,
                                               const struct hrana_request *r)
{
    static const uint8_t http[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t over_ws[] = {0, 4, 5, 9, 10, 11, 12, 13, 2, 3, 6, 7, 8};
    struct buf msg = BUF_INIT;
    unsigned main = ws ? 2 : 1;
    pb_unknown(&msg);
    if (r->stream_id != 0) pb_number(&msg, 1, (uint64_t)(int64_t)r->stream_id);
    if (r->cursor_id != 0)
        pb_number(&msg, r->type == HRANA_OPEN_CURSOR ? 2 : 1, (uint64_t)(int64_t)r->cursor_id);
    if (r->type == HRANA_FETCH_CURSOR) pb_number(&msg, 2, r->max_count);
    if (r->type == HRANA_EXECUTE) pb_stmt(&msg, main, &r->stmt);
    if (r->type == HRANA_BATCH) pb_batch(&msg, main, &r->batch);
    if (r->type == HRANA_OPEN_CURSOR) pb_batch(&msg, 3, &r->batch);
    if (r->type == HRANA_SEQUENCE || r->type == HRANA_DESCRIBE) {
        if (r->sql.text != NULL)
            pb_bytes(&msg, main, r->sql.text, r->sql.size);
        else
            pb_number(&msg, main + 1, (uint64_t)(int64_t)r->sql.id);
        if (r->replication_index != 0) pb_number(&msg, main + 2, r->replication_index);
    }
    if (r->type == HRANA_STORE_SQL || r->type == HRANA_CLOSE_SQL)
        pb_number(&msg, 1, (uint64_t)(int64_t)r->sql.id);
    if (r->type == HRANA_STORE_SQL && (r->sql.size > 0 || noise() % 2 == 0))
        pb_bytes(&msg, 2, r->sql.text, r->sql.size);
    pb_msg(b, ws ? over_ws[r->type] : http[r->type], &msg);
}
#endif
