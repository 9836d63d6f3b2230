/*
 * hrana_put_proto.c -- Hrana's answers as protobuf. See hrana.h, and hrana_proto.c for the wire.
 *
 * The length of a message stands before it. Of small ones (a row, a column, an error) it is
 * computed in a pass over the values. Of those that are open while rows come in, five bytes are
 * reserved; at the end a short message moves up to its length, and a long one stays where it is,
 * with its length written in five bytes: a varint may be longer than it must. So no large answer is
 * ever moved.
 */
#include "base/bytes.h"
#include "server/hrana_intern.h"
#include <string.h>

#define VARINT(n)  ((n) << 3)
#define FIXED64(n) ((n) << 3 | 1)
#define BYTES(n)   ((n) << 3 | 2)
#define RESERVED   5u
#define MOVE_MAX   4096u
#define HEAD_MAX   11u /* a key of one byte and a varint */

static enum rc begin(struct hrana_encoder *e, struct err *err);
static enum rc end(struct hrana_encoder *e, struct err *err);
static enum rc result_begin(struct hrana_encoder *e, struct err *err);
static enum rc result_end(struct hrana_encoder *e, struct err *err);
static enum rc result_error(struct hrana_encoder *e, const struct sql_error *error,
                            struct err *err);
static enum rc cols(struct hrana_encoder *e, const struct sql_col *list, size_t count,
                    struct err *err);
static enum rc row(struct hrana_encoder *e, const struct sql_value *values, size_t count,
                   struct err *err);
static enum rc done(struct hrana_encoder *e, const struct sql_done *d, uint64_t index,
                    struct err *err);
static enum rc batch_begin(struct hrana_encoder *e, struct err *err);
static enum rc batch_end(struct hrana_encoder *e, struct err *err);
static enum rc step_begin(struct hrana_encoder *e, struct err *err);
static enum rc step_end(struct hrana_encoder *e, struct err *err);
static enum rc step_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err);
static enum rc step_skip(struct hrana_encoder *e, struct err *err);
static enum rc cursor_error(struct hrana_encoder *e, const struct sql_error *error,
                            struct err *err);
static enum rc entry(struct hrana_encoder *e, const uint8_t *data, size_t size, size_t *ret_used,
                     struct err *err);
static enum rc fetched(struct hrana_encoder *e, bool is_done, struct err *err);
static enum rc autocommit(struct hrana_encoder *e, bool on, struct err *err);
static enum rc describe(struct hrana_encoder *e, const struct sql_description *d, struct err *err);
static enum rc hello(struct hrana_encoder *e, const struct sql_error *error, struct err *err);
static enum rc open_msg(struct hrana_encoder *e, uint32_t number, struct err *err);
static void close_msg(struct hrana_encoder *e);
static uint32_t type_number(const struct hrana_encoder *e);
static size_t varint_size(uint64_t v);
static size_t held(size_t size);
static size_t text_size(const char *text);
static size_t error_size(const struct sql_error *error);
static size_t value_size(const struct sql_value *v);
static uint64_t zigzag(int64_t v);
static enum rc put_varint(struct buf *b, uint64_t v, struct err *err);
static enum rc put_field(struct buf *b, uint32_t key, uint64_t v, struct err *err);
static enum rc put_text(struct buf *b, uint32_t number, const char *text, struct err *err);
static enum rc put_double(struct buf *b, uint32_t number, double v, struct err *err);
static enum rc put_error(struct buf *b, uint32_t number, const struct sql_error *error,
                         struct err *err);
static enum rc put_col(struct buf *b, uint32_t number, const struct sql_col *col, struct err *err);
static uint8_t *varint_at(uint8_t *to, uint64_t v);
static uint8_t *value_at(uint8_t *to, const struct sql_value *v);

const struct hrana_put_ops hrana_put_proto = {
    .begin = begin,
    .end = end,
    .result_begin = result_begin,
    .result_end = result_end,
    .result_error = result_error,
    .cols = cols,
    .row = row,
    .done = done,
    .batch_begin = batch_begin,
    .batch_end = batch_end,
    .step_begin = step_begin,
    .step_end = step_end,
    .step_error = step_error,
    .step_skip = step_skip,
    .cursor_error = cursor_error,
    .entry = entry,
    .fetched = fetched,
    .autocommit = autocommit,
    .describe = describe,
    .hello = hello,
};

/* ---- Frames ---- */

static enum rc begin(struct hrana_encoder *e, struct err *err)
{
    if (e->frame != HRANA_FRAME_CURSOR) return RC_OK;
    TRY(put_varint(e->out, text_size(e->baton) + text_size(e->base_url), err));
    TRY(put_text(e->out, 1, e->baton, err));
    return put_text(e->out, 2, e->base_url, err);
}

/* Fields come in any order, so the first two of a pipeline's answer stand at its end. */
static enum rc end(struct hrana_encoder *e, struct err *err)
{
    if (e->frame != HRANA_FRAME_PIPELINE) return RC_OK;
    TRY(put_text(e->out, 1, e->baton, err));
    return put_text(e->out, 2, e->base_url, err);
}

static enum rc result_begin(struct hrana_encoder *e, struct err *err)
{
    bool result = e->type == HRANA_EXECUTE || e->type == HRANA_BATCH || e->type == HRANA_DESCRIBE;
    TRY(open_msg(e, 3, err)); /* of a pipeline: StreamResult; of a WebSocket: ResponseOkMsg */
    if (e->frame == HRANA_FRAME_PIPELINE)
        TRY(open_msg(e, 1, err));
    else
        TRY(put_field(e->out, VARINT(1), (uint64_t)(int64_t)e->request_id, err));
    TRY(open_msg(e, type_number(e), err));
    return result ? open_msg(e, 1, err) : RC_OK;
}

static enum rc result_end(struct hrana_encoder *e, struct err *err)
{
    (void)err;
    while (e->open_count > 0)
        close_msg(e);
    return RC_OK;
}

static enum rc result_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    size_t size = held(error_size(error));
    uint64_t id = (uint64_t)(int64_t)e->request_id; /* ten bytes when it is negative */
    if (e->frame == HRANA_FRAME_PIPELINE) {
        TRY(put_field(e->out, BYTES(3), size, err));
    } else {
        TRY(put_field(e->out, BYTES(4), 1 + varint_size(id) + size, err));
        TRY(put_field(e->out, VARINT(1), id, err));
    }
    return put_error(e->out, 2, error, err);
}

static enum rc hello(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    if (error == NULL) return put_field(e->out, BYTES(1), 0, err);
    TRY(put_field(e->out, BYTES(2), held(error_size(error)), err));
    return put_error(e->out, 1, error, err);
}

/* ---- Statements ---- */

static enum rc cols(struct hrana_encoder *e, const struct sql_col *list, size_t count,
                    struct err *err)
{
    struct buf *b = e->out;
    uint32_t number = 1;
    if (e->frame == HRANA_FRAME_CURSOR) {
        size_t size = 1 + varint_size(e->step);
        for (size_t i = 0; i < count; i++)
            size += held(text_size(list[i].name) + text_size(list[i].decltype));
        TRY(put_varint(b, held(size), err));
        TRY(put_field(b, BYTES(1), size, err));
        TRY(put_field(b, VARINT(1), e->step, err));
        number = 2;
    }
    for (size_t i = 0; i < count; i++)
        TRY(put_col(b, number, &list[i], err));
    return RC_OK;
}

static enum rc row(struct hrana_encoder *e, const struct sql_value *values, size_t count,
                   struct err *err)
{
    struct buf *b = e->out;
    bool in_cursor = e->frame == HRANA_FRAME_CURSOR;
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += held(value_size(&values[i]));
    TRY(buf_reserve(b, size + 2 * HEAD_MAX, err));
    uint8_t *to = b->data + b->size;
    if (in_cursor) to = varint_at(to, held(size));
    *to++ = in_cursor ? BYTES(4) : BYTES(2);
    to = varint_at(to, size);
    for (size_t i = 0; i < count; i++)
        to = value_at(to, &values[i]);
    b->size = (size_t)(to - b->data);
    return RC_OK;
}

static enum rc done(struct hrana_encoder *e, const struct sql_done *d, uint64_t index,
                    struct err *err)
{
    struct buf *b = e->out;
    bool in_cursor = e->frame == HRANA_FRAME_CURSOR;
    uint64_t rowid = zigzag(d->last_rowid);
    if (in_cursor) {
        size_t size = 1 + varint_size(d->affected) + (d->inserted ? 1 + varint_size(rowid) : 0);
        TRY(put_varint(b, held(size), err));
        TRY(put_field(b, BYTES(2), size, err));
        TRY(put_field(b, VARINT(1), d->affected, err));
        return d->inserted ? put_field(b, VARINT(2), rowid, err) : RC_OK;
    }
    TRY(put_field(b, VARINT(3), d->affected, err));
    if (d->inserted) TRY(put_field(b, VARINT(4), rowid, err));
    if (index != 0) TRY(put_field(b, VARINT(5), index, err));
    TRY(put_field(b, VARINT(6), d->rows_read, err));
    TRY(put_field(b, VARINT(7), d->rows_written, err));
    return put_double(b, 8, (double)d->us / 1000, err);
}

/* ---- Batches and cursors ---- */

static enum rc batch_begin(struct hrana_encoder *e, struct err *err)
{
    (void)e, (void)err;
    return RC_OK;
}

static enum rc batch_end(struct hrana_encoder *e, struct err *err)
{
    (void)e, (void)err;
    return RC_OK;
}

/* Results and errors are two maps from the step's number; who is in neither was skipped. */
static enum rc step_begin(struct hrana_encoder *e, struct err *err)
{
    TRY(open_msg(e, 1, err));
    TRY(put_field(e->out, VARINT(1), e->step, err));
    return open_msg(e, 2, err);
}

static enum rc step_end(struct hrana_encoder *e, struct err *err)
{
    (void)err;
    close_msg(e);
    close_msg(e);
    return RC_OK;
}

static enum rc step_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    struct buf *b = e->out;
    bool in_cursor = e->frame == HRANA_FRAME_CURSOR;
    size_t size = 1 + varint_size(e->step) + held(error_size(error));
    if (in_cursor) TRY(put_varint(b, held(size), err));
    TRY(put_field(b, in_cursor ? BYTES(3) : BYTES(2), size, err));
    TRY(put_field(b, VARINT(1), e->step, err));
    return put_error(b, 2, error, err);
}

static enum rc step_skip(struct hrana_encoder *e, struct err *err)
{
    (void)e, (void)err;
    return RC_OK;
}

static enum rc cursor_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    TRY(put_varint(e->out, held(error_size(error)), err));
    return put_error(e->out, 5, error, err);
}

/* An entry is a length and a message; as an element of a list it gets a key before them. */
static enum rc entry(struct hrana_encoder *e, const uint8_t *data, size_t size, size_t *ret_used,
                     struct err *err)
{
    uint64_t length = 0;
    size_t n = 0;
    bool more = true;
    for (; more && n < size && n < 9; n++) {
        length |= (uint64_t)(data[n] & 0x7f) << 7 * n;
        more = data[n] >= 0x80;
    }
    if (more || length > size - n)
        return err_set(err, RC_CORRUPT, "an entry of a cursor has no end");
    *ret_used = n + (size_t)length;
    TRY(put_varint(e->out, BYTES(1), err));
    return buf_append(e->out, data, *ret_used, err);
}

static enum rc fetched(struct hrana_encoder *e, bool is_done, struct err *err)
{
    return put_field(e->out, VARINT(2), is_done, err);
}

/* ---- The others ---- */

static enum rc autocommit(struct hrana_encoder *e, bool on, struct err *err)
{
    return put_field(e->out, VARINT(1), on, err);
}

static enum rc describe(struct hrana_encoder *e, const struct sql_description *d, struct err *err)
{
    struct buf *b = e->out;
    for (size_t i = 0; i < d->param_count; i++) {
        TRY(put_field(b, BYTES(1), text_size(d->params[i].name), err));
        TRY(put_text(b, 1, d->params[i].name, err));
    }
    for (size_t i = 0; i < d->col_count; i++)
        TRY(put_col(b, 2, &d->cols[i], err));
    TRY(put_field(b, VARINT(3), d->is_explain, err));
    return put_field(b, VARINT(4), d->is_readonly, err);
}

/* The number of the answer in the oneof of all answers. */
static uint32_t type_number(const struct hrana_encoder *e)
{
    static const struct {
        uint8_t http, ws;
    } numbers[] = {
        [HRANA_CLOSE] = {1, 0},        [HRANA_EXECUTE] = {2, 4},
        [HRANA_BATCH] = {3, 5},        [HRANA_SEQUENCE] = {4, 9},
        [HRANA_DESCRIBE] = {5, 10},    [HRANA_STORE_SQL] = {6, 11},
        [HRANA_CLOSE_SQL] = {7, 12},   [HRANA_GET_AUTOCOMMIT] = {8, 13},
        [HRANA_OPEN_STREAM] = {0, 2},  [HRANA_CLOSE_STREAM] = {0, 3},
        [HRANA_OPEN_CURSOR] = {0, 6},  [HRANA_CLOSE_CURSOR] = {0, 7},
        [HRANA_FETCH_CURSOR] = {0, 8},
    };
    uint32_t n = e->frame == HRANA_FRAME_WS ? numbers[e->type].ws : numbers[e->type].http;
    ASSERT(n != 0);
    return n;
}

/* ---- Messages of unknown length ---- */

static enum rc open_msg(struct hrana_encoder *e, uint32_t number, struct err *err)
{
    static const uint8_t reserved[RESERVED] = {0};
    ASSERT(e->open_count < sizeof e->open / sizeof e->open[0]);
    TRY(put_varint(e->out, BYTES(number), err));
    TRY(buf_append(e->out, reserved, sizeof reserved, err));
    e->open[e->open_count++] = e->out->size;
    return RC_OK;
}

static void close_msg(struct hrana_encoder *e)
{
    struct buf *b = e->out;
    size_t start = e->open[--e->open_count], size = b->size - start;
    uint8_t *head = b->data + start - RESERVED;
    if (size <= MOVE_MAX) {
        uint8_t *to = varint_at(head, size);
        memmove(to, b->data + start, size);
        b->size = (size_t)(to - b->data) + size;
        return;
    }
    ASSERT(size >> 7 * RESERVED == 0);
    for (unsigned i = 0; i < RESERVED; i++)
        head[i] = (uint8_t)(size >> 7 * i & 0x7f) | (i + 1 < RESERVED ? 0x80 : 0);
}

/* ---- Sizes ---- */

static size_t varint_size(uint64_t v)
{
    return (70u - (unsigned)__builtin_clzll(v | 1)) / 7;
}

/* A message of `size` bytes with its key and its length. */
static size_t held(size_t size)
{
    return 1 + varint_size(size) + size;
}

static size_t text_size(const char *text)
{
    return text == NULL ? 0 : held(strlen(text));
}

static size_t error_size(const struct sql_error *error)
{
    return text_size(error->message) + text_size(hrana_error_code(error));
}

static size_t value_size(const struct sql_value *v)
{
    switch (v->type) {
    case SQL_INTEGER:
        return 1 + varint_size(zigzag(v->integer));
    case SQL_FLOAT:
        return 9;
    case SQL_TEXT:
    case SQL_BLOB:
        return held(v->size);
    default:
        return held(0);
    }
}

static uint64_t zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

/* ---- Fields ---- */

static enum rc put_varint(struct buf *b, uint64_t v, struct err *err)
{
    TRY(buf_reserve(b, HEAD_MAX, err));
    b->size = (size_t)(varint_at(b->data + b->size, v) - b->data);
    return RC_OK;
}

/* A number, or the length of the bytes that follow. */
static enum rc put_field(struct buf *b, uint32_t key, uint64_t v, struct err *err)
{
    TRY(put_varint(b, key, err));
    return put_varint(b, v, err);
}

static enum rc put_text(struct buf *b, uint32_t number, const char *text, struct err *err)
{
    if (text == NULL) return RC_OK;
    size_t size = strlen(text);
    TRY(put_field(b, BYTES(number), size, err));
    return buf_append(b, text, size, err);
}

static enum rc put_double(struct buf *b, uint32_t number, double v, struct err *err)
{
    uint8_t bytes[9] = {(uint8_t)FIXED64(number)};
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_le64(bytes + 1, bits);
    return buf_append(b, bytes, sizeof bytes, err);
}

static enum rc put_error(struct buf *b, uint32_t number, const struct sql_error *error,
                         struct err *err)
{
    TRY(put_field(b, BYTES(number), error_size(error), err));
    TRY(put_text(b, 1, error->message, err));
    return put_text(b, 2, hrana_error_code(error), err);
}

static enum rc put_col(struct buf *b, uint32_t number, const struct sql_col *col, struct err *err)
{
    TRY(put_field(b, BYTES(number), text_size(col->name) + text_size(col->decltype), err));
    TRY(put_text(b, 1, col->name, err));
    return put_text(b, 2, col->decltype, err);
}

static uint8_t *varint_at(uint8_t *to, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *to++ = (uint8_t)(v | 0x80);
    *to++ = (uint8_t)v;
    return to;
}

static uint8_t *value_at(uint8_t *to, const struct sql_value *v)
{
    uint64_t bits;
    *to++ = BYTES(1);
    to = varint_at(to, value_size(v));
    switch (v->type) {
    case SQL_INTEGER:
        *to++ = VARINT(2);
        return varint_at(to, zigzag(v->integer));
    case SQL_FLOAT:
        *to++ = FIXED64(3);
        memcpy(&bits, &v->real, sizeof bits);
        put_le64(to, bits);
        return to + 8;
    case SQL_TEXT:
    case SQL_BLOB:
        *to++ = v->type == SQL_TEXT ? BYTES(4) : BYTES(5);
        to = varint_at(to, v->size);
        if (v->size > 0) memcpy(to, v->data, v->size);
        return to + v->size;
    default:
        *to++ = BYTES(1);
        *to++ = 0;
        return to;
    }
}
