/*
 * hrana_put_json.c -- Hrana's answers as JSON. See hrana.h.
 *
 * Values are written straight into the answer. A text whose bytes are no UTF-8 gets U+FFFD where
 * they are wrong, so that it spoils nothing but itself.
 */
#include "base/mem.h"
#include "server/hrana_intern.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIT(b, text, err) buf_append(b, text, sizeof text - 1, err)
#define NUMBER_TEXT_MAX   32u

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
static enum rc put_baton(struct hrana_encoder *e, struct err *err);
static enum rc put_cols(struct buf *b, const struct sql_col *list, size_t count, bool decltypes,
                        struct err *err);
static enum rc put_value(struct buf *b, const struct sql_value *v, struct err *err);
static enum rc put_error(struct buf *b, const struct sql_error *error, bool http, struct err *err);
static enum rc put_errors_null(struct hrana_encoder *e, struct err *err);
static enum rc put_text(struct buf *b, const void *data, size_t size, struct err *err);
static enum rc put_string(struct buf *b, const char *text, struct err *err);
static enum rc put_escape(struct buf *b, uint8_t c, struct err *err);
static enum rc put_base64(struct buf *b, const uint8_t *data, size_t size, struct err *err);
static enum rc put_uint(struct buf *b, uint64_t v, struct err *err);
static enum rc put_bool(struct buf *b, bool v, struct err *err);
static size_t uint_text(uint64_t v, char *out);
static size_t int_text(int64_t v, char *out);
static size_t float_text(double v, char *out);
static size_t fixed_text(double v, char *out);

const struct hrana_put_ops hrana_put_json = {
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

enum rc hrana_put_http_error(struct buf *out, const struct sql_error *error, struct err *err)
{
    return put_error(out, error, true, err);
}

/* ---- Frames ---- */

static enum rc begin(struct hrana_encoder *e, struct err *err)
{
    if (e->frame == HRANA_FRAME_PIPELINE) return LIT(e->out, "{\"results\":[", err);
    if (e->frame != HRANA_FRAME_CURSOR) return RC_OK;
    TRY(LIT(e->out, "{", err));
    TRY(put_baton(e, err));
    return LIT(e->out, "}\n", err);
}

static enum rc end(struct hrana_encoder *e, struct err *err)
{
    if (e->frame != HRANA_FRAME_PIPELINE) return RC_OK;
    TRY(LIT(e->out, "],", err));
    TRY(put_baton(e, err));
    return LIT(e->out, "}", err);
}

static enum rc put_baton(struct hrana_encoder *e, struct err *err)
{
    TRY(LIT(e->out, "\"baton\":", err));
    TRY(put_string(e->out, e->baton, err));
    TRY(LIT(e->out, ",\"base_url\":", err));
    return put_string(e->out, e->base_url, err);
}

static enum rc result_begin(struct hrana_encoder *e, struct err *err)
{
    struct buf *b = e->out;
    bool result = e->type == HRANA_EXECUTE || e->type == HRANA_BATCH || e->type == HRANA_DESCRIBE;
    e->row_count = 0;
    if (e->frame == HRANA_FRAME_V1) return LIT(b, "{\"result\":", err);
    if (e->frame == HRANA_FRAME_WS) {
        char id[NUMBER_TEXT_MAX];
        TRY(LIT(b, "{\"type\":\"response_ok\",\"request_id\":", err));
        TRY(buf_append(b, id, int_text(e->request_id, id), err));
    } else {
        if (e->count > 0) TRY(LIT(b, ",", err));
        TRY(LIT(b, "{\"type\":\"ok\"", err));
    }
    TRY(LIT(b, ",\"response\":{\"type\":", err));
    TRY(put_string(b, hrana_type_name(e->type), err));
    if (e->type == HRANA_FETCH_CURSOR) return LIT(b, ",\"entries\":[", err);
    return result ? LIT(b, ",\"result\":", err) : RC_OK;
}

static enum rc result_end(struct hrana_encoder *e, struct err *err)
{
    return e->frame == HRANA_FRAME_V1 ? LIT(e->out, "}", err) : LIT(e->out, "}}", err);
}

static enum rc result_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    struct buf *b = e->out;
    char id[NUMBER_TEXT_MAX];
    if (e->frame == HRANA_FRAME_V1) return put_error(b, error, true, err);
    if (e->frame == HRANA_FRAME_WS) {
        TRY(LIT(b, "{\"type\":\"response_error\",\"request_id\":", err));
        TRY(buf_append(b, id, int_text(e->request_id, id), err));
        TRY(LIT(b, ",\"error\":", err));
    } else {
        if (e->count > 0) TRY(LIT(b, ",", err));
        TRY(LIT(b, "{\"type\":\"error\",\"error\":", err));
    }
    TRY(put_error(b, error, false, err));
    return LIT(b, "}", err);
}

static enum rc hello(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    if (error == NULL) return LIT(e->out, "{\"type\":\"hello_ok\"}", err);
    TRY(LIT(e->out, "{\"type\":\"hello_error\",\"error\":", err));
    TRY(put_error(e->out, error, false, err));
    return LIT(e->out, "}", err);
}

/* ---- Statements ---- */

static enum rc cols(struct hrana_encoder *e, const struct sql_col *list, size_t count,
                    struct err *err)
{
    struct buf *b = e->out;
    if (e->frame == HRANA_FRAME_CURSOR) {
        TRY(LIT(b, "{\"type\":\"step_begin\",\"step\":", err));
        TRY(put_uint(b, e->step, err));
        TRY(LIT(b, ",\"cols\":", err));
        TRY(put_cols(b, list, count, true, err));
        return LIT(b, "}\n", err);
    }
    TRY(LIT(b, "{\"cols\":", err));
    TRY(put_cols(b, list, count, e->version >= HRANA_2, err));
    return LIT(b, ",\"rows\":[", err);
}

static enum rc row(struct hrana_encoder *e, const struct sql_value *values, size_t count,
                   struct err *err)
{
    struct buf *b = e->out;
    bool in_cursor = e->frame == HRANA_FRAME_CURSOR;
    if (in_cursor)
        TRY(LIT(b, "{\"type\":\"row\",\"row\":[", err));
    else if (e->row_count > 0)
        TRY(LIT(b, ",[", err));
    else
        TRY(LIT(b, "[", err));
    for (size_t i = 0; i < count; i++) {
        if (i > 0) TRY(LIT(b, ",", err));
        TRY(put_value(b, &values[i], err));
    }
    return in_cursor ? LIT(b, "]}\n", err) : LIT(b, "]", err);
}

static enum rc done(struct hrana_encoder *e, const struct sql_done *d, uint64_t index,
                    struct err *err)
{
    struct buf *b = e->out;
    char text[NUMBER_TEXT_MAX];
    bool in_cursor = e->frame == HRANA_FRAME_CURSOR;
    TRY(in_cursor ? LIT(b, "{\"type\":\"step_end\"", err) : LIT(b, "]", err));
    TRY(LIT(b, ",\"affected_row_count\":", err));
    TRY(put_uint(b, d->affected, err));
    TRY(LIT(b, ",\"last_insert_rowid\":", err));
    if (d->inserted) {
        TRY(LIT(b, "\"", err));
        TRY(buf_append(b, text, int_text(d->last_rowid, text), err));
        TRY(LIT(b, "\"", err));
    } else {
        TRY(LIT(b, "null", err));
    }
    if (in_cursor) return LIT(b, "}\n", err);
    TRY(LIT(b, ",\"replication_index\":", err));
    if (index != 0) {
        TRY(LIT(b, "\"", err));
        TRY(put_uint(b, index, err));
        TRY(LIT(b, "\"", err));
    } else {
        TRY(LIT(b, "null", err));
    }
    TRY(LIT(b, ",\"rows_read\":", err));
    TRY(put_uint(b, d->rows_read, err));
    TRY(LIT(b, ",\"rows_written\":", err));
    TRY(put_uint(b, d->rows_written, err));
    TRY(LIT(b, ",\"query_duration_ms\":", err));
    TRY(buf_append(b, text, float_text((double)d->us / 1000, text), err));
    return LIT(b, "}", err);
}

/* ---- Batches and cursors ---- */

static enum rc batch_begin(struct hrana_encoder *e, struct err *err)
{
    return LIT(e->out, "{\"step_results\":[", err);
}

static enum rc batch_end(struct hrana_encoder *e, struct err *err)
{
    struct buf *b = e->out;
    TRY(LIT(b, "],\"step_errors\":[", err));
    TRY(buf_append(b, e->errors.data, e->errors.size, err));
    TRY(LIT(b, "],\"replication_index\":", err));
    if (e->index == 0) return LIT(b, "null}", err);
    TRY(LIT(b, "\"", err));
    TRY(put_uint(b, e->index, err));
    return LIT(b, "\"}", err);
}

static enum rc step_begin(struct hrana_encoder *e, struct err *err)
{
    return e->step > 0 ? LIT(e->out, ",", err) : RC_OK;
}

static enum rc step_end(struct hrana_encoder *e, struct err *err)
{
    return put_errors_null(e, err);
}

static enum rc step_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    struct buf *b = e->out;
    if (e->frame == HRANA_FRAME_CURSOR) {
        TRY(LIT(b, "{\"type\":\"step_error\",\"step\":", err));
        TRY(put_uint(b, e->step, err));
        TRY(LIT(b, ",\"error\":", err));
        TRY(put_error(b, error, false, err));
        return LIT(b, "}\n", err);
    }
    TRY(step_begin(e, err));
    TRY(LIT(b, "null", err));
    if (e->step > 0) TRY(LIT(&e->errors, ",", err));
    return put_error(&e->errors, error, false, err);
}

static enum rc step_skip(struct hrana_encoder *e, struct err *err)
{
    TRY(step_begin(e, err));
    TRY(LIT(e->out, "null", err));
    return put_errors_null(e, err);
}

static enum rc put_errors_null(struct hrana_encoder *e, struct err *err)
{
    return e->step > 0 ? LIT(&e->errors, ",null", err) : LIT(&e->errors, "null", err);
}

static enum rc cursor_error(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    TRY(LIT(e->out, "{\"type\":\"error\",\"error\":", err));
    TRY(put_error(e->out, error, false, err));
    return LIT(e->out, "}\n", err);
}

/* An entry is a line. */
static enum rc entry(struct hrana_encoder *e, const uint8_t *data, size_t size, size_t *ret_used,
                     struct err *err)
{
    const uint8_t *line_end = memchr(data, '\n', size);
    if (line_end == NULL) return err_set(err, RC_CORRUPT, "an entry of a cursor has no end");
    *ret_used = (size_t)(line_end - data) + 1;
    if (e->row_count > 0) TRY(LIT(e->out, ",", err));
    return buf_append(e->out, data, *ret_used - 1, err);
}

static enum rc fetched(struct hrana_encoder *e, bool is_done, struct err *err)
{
    TRY(LIT(e->out, "],\"done\":", err));
    return put_bool(e->out, is_done, err);
}

/* ---- The others ---- */

static enum rc autocommit(struct hrana_encoder *e, bool on, struct err *err)
{
    TRY(LIT(e->out, ",\"is_autocommit\":", err));
    return put_bool(e->out, on, err);
}

static enum rc describe(struct hrana_encoder *e, const struct sql_description *d, struct err *err)
{
    struct buf *b = e->out;
    TRY(LIT(b, "{\"params\":[", err));
    for (size_t i = 0; i < d->param_count; i++) {
        TRY(i > 0 ? LIT(b, ",{\"name\":", err) : LIT(b, "{\"name\":", err));
        TRY(put_string(b, d->params[i].name, err));
        TRY(LIT(b, "}", err));
    }
    TRY(LIT(b, "],\"cols\":", err));
    TRY(put_cols(b, d->cols, d->col_count, true, err));
    TRY(LIT(b, ",\"is_explain\":", err));
    TRY(put_bool(b, d->is_explain, err));
    TRY(LIT(b, ",\"is_readonly\":", err));
    TRY(put_bool(b, d->is_readonly, err));
    return LIT(b, "}", err);
}

static enum rc put_cols(struct buf *b, const struct sql_col *list, size_t count, bool decltypes,
                        struct err *err)
{
    TRY(LIT(b, "[", err));
    for (size_t i = 0; i < count; i++) {
        TRY(i > 0 ? LIT(b, ",{\"name\":", err) : LIT(b, "{\"name\":", err));
        TRY(put_string(b, list[i].name, err));
        if (decltypes) {
            TRY(LIT(b, ",\"decltype\":", err));
            TRY(put_string(b, list[i].decltype, err));
        }
        TRY(LIT(b, "}", err));
    }
    return LIT(b, "]", err);
}

/* The keys `code` and `message` are always there: clients count on texts. */
static enum rc put_error(struct buf *b, const struct sql_error *error, bool http, struct err *err)
{
    TRY(LIT(b, "{\"message\":", err));
    TRY(put_string(b, error->message, err));
    TRY(LIT(b, ",\"code\":", err));
    TRY(put_string(b, hrana_error_code(error), err));
    if (http) {
        TRY(LIT(b, ",\"error\":", err));
        TRY(put_string(b, error->message, err));
    }
    if (error->extended[0] != '\0') {
        TRY(LIT(b, ",\"extended_code\":", err));
        TRY(put_string(b, error->extended, err));
    }
    return LIT(b, "}", err);
}

/* ---- Values ---- */

static enum rc put_value(struct buf *b, const struct sql_value *v, struct err *err)
{
    static const char integer[] = "{\"type\":\"integer\",\"value\":\"";
    static const char real[] = "{\"type\":\"float\",\"value\":";
    char *to;
    switch (v->type) {
    case SQL_INTEGER:
        TRY(buf_reserve(b, sizeof integer + NUMBER_TEXT_MAX, err));
        to = memcpy((char *)b->data + b->size, integer, sizeof integer - 1);
        to += sizeof integer - 1;
        to += int_text(v->integer, to);
        memcpy(to, "\"}", 2);
        b->size = (size_t)((uint8_t *)to - b->data) + 2;
        return RC_OK;
    case SQL_FLOAT:
        TRY(buf_reserve(b, sizeof real + NUMBER_TEXT_MAX, err));
        to = memcpy((char *)b->data + b->size, real, sizeof real - 1);
        to += sizeof real - 1;
        to += float_text(v->real, to);
        *to = '}';
        b->size = (size_t)((uint8_t *)to - b->data) + 1;
        return RC_OK;
    case SQL_TEXT:
        TRY(LIT(b, "{\"type\":\"text\",\"value\":", err));
        TRY(put_text(b, v->data, v->size, err));
        return LIT(b, "}", err);
    case SQL_BLOB:
        TRY(LIT(b, "{\"type\":\"blob\",\"base64\":\"", err));
        TRY(put_base64(b, v->data, v->size, err));
        return LIT(b, "\"}", err);
    default:
        return LIT(b, "{\"type\":\"null\"}", err);
    }
}

static enum rc put_string(struct buf *b, const char *text, struct err *err)
{
    return text != NULL ? put_text(b, text, strlen(text), err) : LIT(b, "null", err);
}

static enum rc put_text(struct buf *b, const void *data, size_t size, struct err *err)
{
    static const uint8_t none = 0;
    const uint8_t *at = size > 0 ? data : &none, *end = at + size, *from = at;
    TRY(buf_reserve(b, size + 2, err)); /* as good as always that is all */
    TRY(LIT(b, "\"", err));
    for (;;) {
        at += hrana_plain(at, end);
        if (at == end) break;
        size_t bad = 1, n = *at < 0x80 ? 0 : hrana_utf8(at, (size_t)(end - at), &bad);
        if (n > 0) {
            at += n;
            continue;
        }
        TRY(buf_append(b, from, (size_t)(at - from), err));
        TRY(*at < 0x80 ? put_escape(b, *at, err) : LIT(b, "\xEF\xBF\xBD", err));
        at += bad;
        from = at;
    }
    TRY(buf_append(b, from, (size_t)(at - from), err));
    return LIT(b, "\"", err);
}

static enum rc put_escape(struct buf *b, uint8_t c, struct err *err)
{
    static const char means[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    const char *mean = memchr(means, c, sizeof means - 1);
    if (mean != NULL) text[1] = names[mean - means];
    return buf_append(b, text, mean != NULL ? 2 : 6, err);
}

static enum rc put_base64(struct buf *b, const uint8_t *data, size_t size, struct err *err)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (size > SIZE_MAX / 4) return err_mem(err, "a blob");
    TRY(buf_reserve(b, (size + 2) / 3 * 4, err));
    uint8_t *to = b->data + b->size;
    size_t i = 0;
    for (; i + 3 <= size; i += 3, to += 4) {
        uint32_t bits = (uint32_t)data[i] << 16 | (uint32_t)data[i + 1] << 8 | data[i + 2];
        to[0] = (uint8_t)letters[bits >> 18];
        to[1] = (uint8_t)letters[bits >> 12 & 63];
        to[2] = (uint8_t)letters[bits >> 6 & 63];
        to[3] = (uint8_t)letters[bits & 63];
    }
    if (i < size) {
        uint32_t bits = (uint32_t)data[i] << 16 | (i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0);
        *to++ = (uint8_t)letters[bits >> 18];
        *to++ = (uint8_t)letters[bits >> 12 & 63];
        if (i + 1 < size) *to++ = (uint8_t)letters[bits >> 6 & 63];
    }
    b->size = (size_t)(to - b->data);
    return RC_OK;
}

static enum rc put_uint(struct buf *b, uint64_t v, struct err *err)
{
    char text[NUMBER_TEXT_MAX];
    return buf_append(b, text, uint_text(v, text), err);
}

static enum rc put_bool(struct buf *b, bool v, struct err *err)
{
    return v ? LIT(b, "true", err) : LIT(b, "false", err);
}

static size_t uint_text(uint64_t v, char *out)
{
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

static size_t int_text(int64_t v, char *out)
{
    if (v >= 0) return uint_text((uint64_t)v, out);
    *out = '-';
    return 1 + uint_text(0 - (uint64_t)v, out + 1);
}

/* The shortest text that is read back as the same number, and that shows that it is no integer.
 * (Next to a power of two, in one case of thousands, one digit more than that.) */
static size_t float_text(double v, char *out)
{
    if (!isfinite(v)) {
        memcpy(out, "null", 4);
        return 4;
    }
    size_t n = fixed_text(v, out);
    if (n > 0) return n;
    /* What has up to 15 digits is found with 15; only what is below the normal range needs less. */
    int digits = isnormal(v) ? 15 : 1;
    do
        n = (size_t)snprintf(out, NUMBER_TEXT_MAX, "%.*g", digits, v);
    while (digits++ < 17 && strtod(out, NULL) != v);
    if (strpbrk(out, ".e") == NULL) {
        memcpy(out + n, ".0", 3);
        n += 2;
    }
    return n;
}

/* Most numbers have few decimals: v = m / 10^k with m and 10^k exact as doubles is rounded once, by
 * the reader as by us. 0: not one of them. */
static size_t fixed_text(double v, char *out)
{
    static const double powers[] = {1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    double size = fabs(v);
    size_t n = 0;
    if (size >= 1e14 || (v != 0 && size < 1e-5)) return 0;
    for (unsigned k = 0; k < sizeof powers / sizeof powers[0]; k++) {
        double m = rint(size * powers[k]);
        if (m > 9e15) return 0;
        if (m / powers[k] != size) continue;
        uint64_t unit = (uint64_t)powers[k], all = (uint64_t)m, part = all % unit;
        if (signbit(v)) out[n++] = '-';
        n += uint_text(all / unit, out + n);
        out[n++] = '.';
        for (unit /= 10; unit > 0; unit /= 10)
            out[n++] = (char)('0' + part / unit % 10);
        return n;
    }
    return 0;
}
