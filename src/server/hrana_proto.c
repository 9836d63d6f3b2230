/*
 * hrana_proto.c -- Hrana's messages from protobuf, by hand. See hrana.h.
 *
 *   message = { key value }*;  key = varint (field number << 3 | wire type)
 *   wire types: 0 varint, 1 eight bytes, 2 length (varint) and bytes, 5 four bytes; 3 and 4 are
 *   groups, which nobody sends and we refuse
 *
 * A varint has up to ten bytes of seven bits, the lowest first. A field that is unknown, or known
 * with another wire type, is skipped. Of fields that come twice the last counts, as does the last
 * one of a oneof. None of the repeated fields is a number, so nothing comes packed.
 *
 * Arrays are exact: their elements are counted in a pass before, which costs little because a pass
 * over one message jumps over those in it.
 */
#include "base/bytes.h"
#include "server/hrana_intern.h"
#include <string.h>

struct in { /* the rest of one message */
    const uint8_t *at, *end;
};
struct field {
    uint32_t number, wire;
    uint64_t varint; /* wire types 0, 1, 5 */
    struct in bytes; /* wire type 2 */
};
struct dec {
    struct arena *a;
    struct err *err;
    enum hrana_version v;
    unsigned cond_depth;
    size_t cond_count; /* of the batch at hand */
    uint64_t index;    /* the largest replication_index of the request at hand */
};
#define VARINT(n)  ((n) << 3)
#define FIXED64(n) ((n) << 3 | 1)
#define BYTES(n)   ((n) << 3 | 2)
#define KEY(f)     ((f).number << 3 | (f).wire)

static enum rc pipeline(struct arena *a, enum hrana_version v, const void *data, size_t size,
                        struct hrana_pipeline *ret, struct err *err);
static enum rc cursor(struct arena *a, const void *data, size_t size, struct hrana_cursor_body *ret,
                      struct err *err);
static enum rc ws(struct arena *a, enum hrana_version v, const void *data, size_t size,
                  struct hrana_ws_msg *ret, struct err *err);
static struct in in_of(const void *data, size_t size);
static enum rc next(struct dec *d, struct in *in, struct field *f, bool *ret_more);
static bool varint(struct in *in, uint64_t *ret_v);
static enum rc count_of(struct dec *d, struct in in, uint32_t key, size_t max, const char *what,
                        size_t *ret_count);
static enum rc array_of(struct dec *d, struct in in, uint32_t key, size_t max, const char *what,
                        size_t size, void *pointer_to_array);
static enum rc get_ws_request(struct dec *d, struct in in, struct hrana_ws_msg *msg);
static enum rc get_http_request(struct dec *d, struct in in, struct hrana_request *r);
static enum rc get_body(struct dec *d, struct in in, bool over_ws, struct hrana_request *r);
static void get_number(const struct field *f, bool over_ws, struct hrana_request *r,
                       struct hrana_seen *seen);
static uint32_t main_field(enum hrana_type type, bool over_ws);
static enum rc get_main(struct dec *d, struct in in, struct hrana_request *r,
                        struct hrana_seen *seen);
static enum rc get_batch(struct dec *d, struct in in, struct hrana_batch *b);
static enum rc get_step(struct dec *d, struct in in, struct hrana_step *step);
static enum rc get_cond(struct dec *d, struct in in, struct hrana_cond *c);
static enum rc get_cond_field(struct dec *d, const struct field *f, struct hrana_cond *c);
static enum rc get_conds(struct dec *d, struct in in, struct hrana_cond *c);
static enum rc get_stmt(struct dec *d, struct in in, struct hrana_stmt *s);
static enum rc get_named(struct dec *d, struct in in, struct sql_arg *arg);
static enum rc get_value(struct dec *d, struct in in, struct sql_value *v);
static enum rc get_name(struct dec *d, struct in in, const char *what, const char **ret);
static void note_index(struct dec *d, uint64_t index);

const struct hrana_decoder hrana_proto_decoder = {.pipeline = pipeline, .cursor = cursor, .ws = ws};

/* ---- Bodies and messages ---- */

static enum rc pipeline(struct arena *a, enum hrana_version v, const void *data, size_t size,
                        struct hrana_pipeline *ret, struct err *err)
{
    struct dec d = {.a = a, .err = err, .v = v};
    struct in in = in_of(data, size);
    struct hrana_pipeline body = {0};
    struct hrana_request *list;
    struct field f;
    TRY(array_of(&d, in, BYTES(2), HRANA_REQUESTS_MAX, "requests", sizeof *list, &list));
    body.requests = list;
    for (bool more;;) {
        TRY(next(&d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == BYTES(1)) {
            TRY(get_name(&d, f.bytes, "baton", &body.baton));
        } else if (KEY(f) == BYTES(2)) {
            if (get_http_request(&d, f.bytes, &list[body.count]) != RC_OK)
                return err_wrap(err, "requests[%zu]", body.count);
            body.count++;
        }
    }
    *ret = body;
    return RC_OK;
}

static enum rc cursor(struct arena *a, const void *data, size_t size, struct hrana_cursor_body *ret,
                      struct err *err)
{
    struct dec d = {.a = a, .err = err, .v = HRANA_3};
    struct in in = in_of(data, size);
    struct hrana_cursor_body body = {0};
    struct field f;
    bool found = false;
    for (bool more;;) {
        TRY(next(&d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == BYTES(1)) {
            TRY(get_name(&d, f.bytes, "baton", &body.baton));
        } else if (KEY(f) == BYTES(2)) {
            TRY(get_batch(&d, f.bytes, &body.batch));
            found = true;
        }
    }
    if (!found) return err_set(err, RC_INVALID, "the body has no batch");
    body.replication_index = d.index;
    *ret = body;
    return RC_OK;
}

static enum rc ws(struct arena *a, enum hrana_version v, const void *data, size_t size,
                  struct hrana_ws_msg *ret, struct err *err)
{
    struct dec d = {.a = a, .err = err, .v = v};
    struct in in = in_of(data, size), hello;
    struct hrana_ws_msg msg = {0};
    struct field f;
    bool found = false;
    for (bool more;;) {
        TRY(next(&d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) != BYTES(1) && KEY(f) != BYTES(2)) continue;
        found = true;
        msg = (struct hrana_ws_msg){.hello = f.number == 1};
        if (msg.hello) {
            for (hello = f.bytes;;) {
                TRY(next(&d, &hello, &f, &more));
                if (!more) break;
                if (KEY(f) == BYTES(1)) TRY(get_name(&d, f.bytes, "jwt", &msg.jwt));
            }
        } else if (get_ws_request(&d, f.bytes, &msg) != RC_OK) {
            return err_wrap(err, "request");
        }
    }
    if (!found) return err_set(err, RC_INVALID, "a message is neither hello nor request");
    *ret = msg;
    return RC_OK;
}

/* ---- Wire ---- */

static struct in in_of(const void *data, size_t size)
{
    const uint8_t *at = data;
    return (struct in){at, size > 0 ? at + size : at};
}

static enum rc next(struct dec *d, struct in *in, struct field *f, bool *ret_more)
{
    uint64_t key, size;
    *ret_more = in->at != in->end;
    if (!*ret_more) return RC_OK;
    *f = (struct field){0};
    if (!varint(in, &key)) return err_set(d->err, RC_INVALID, "protobuf: a varint is malformed");
    if (key >> 3 == 0 || key > UINT32_MAX)
        return err_set(d->err, RC_INVALID, "protobuf: a field has no valid number");
    f->number = (uint32_t)key >> 3;
    f->wire = (uint32_t)key & 7;
    size_t left = (size_t)(in->end - in->at);
    switch (f->wire) {
    case 0:
        if (varint(in, &f->varint)) return RC_OK;
        return err_set(d->err, RC_INVALID, "protobuf: a varint is malformed");
    case 1:
    case 5:
        size = f->wire == 1 ? 8 : 4;
        if (size > left) break;
        f->varint = f->wire == 1 ? get_le64(in->at) : get_le32(in->at);
        in->at += size;
        return RC_OK;
    case 2:
        if (!varint(in, &size))
            return err_set(d->err, RC_INVALID, "protobuf: a length is malformed");
        if (size > (size_t)(in->end - in->at)) break;
        f->bytes = in_of(in->at, (size_t)size);
        in->at += size;
        return RC_OK;
    default:
        return err_set(d->err, RC_INVALID,
                       "protobuf: field %u is of wire type %u, which is not supported", f->number,
                       f->wire);
    }
    return err_set(d->err, RC_INVALID, "protobuf: field %u is longer than what holds it",
                   f->number);
}

static bool varint(struct in *in, uint64_t *ret_v)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        v |= (uint64_t)(byte & 0x7f) << shift; /* the tenth byte has one bit that counts */
        if (byte < 0x80) {
            *ret_v = v;
            return true;
        }
    }
    return false;
}

static enum rc count_of(struct dec *d, struct in in, uint32_t key, size_t max, const char *what,
                        size_t *ret_count)
{
    struct field f;
    size_t count = 0;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == key && ++count > max)
            return err_set(d->err, RC_TOO_BIG, "%s: at most %zu", what, max);
    }
    *ret_count = count;
    return RC_OK;
}

/* Room for all elements of a repeated field; NULL for none. */
static enum rc array_of(struct dec *d, struct in in, uint32_t key, size_t max, const char *what,
                        size_t size, void *pointer_to_array)
{
    void **array = pointer_to_array;
    size_t count = 0;
    *array = NULL;
    TRY(count_of(d, in, key, max, what, &count));
    return count == 0 ? RC_OK : arena_take(d->a, count * size, array, d->err);
}

/* ---- Requests ---- */

static enum rc get_http_request(struct dec *d, struct in in, struct hrana_request *r)
{
    static const enum hrana_type types[] = {
        [1] = HRANA_CLOSE,     [2] = HRANA_EXECUTE,       [3] = HRANA_BATCH,
        [4] = HRANA_SEQUENCE,  [5] = HRANA_DESCRIBE,      [6] = HRANA_STORE_SQL,
        [7] = HRANA_CLOSE_SQL, [8] = HRANA_GET_AUTOCOMMIT};
    struct in body = {0};
    struct field f;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (f.wire != 2 || f.number >= sizeof types / sizeof types[0]) continue;
        r->type = types[f.number];
        body = f.bytes;
    }
    if (body.at == NULL) return err_set(d->err, RC_INVALID, "a request of unknown type");
    return get_body(d, body, false, r);
}

static enum rc get_ws_request(struct dec *d, struct in in, struct hrana_ws_msg *msg)
{
    static const enum hrana_type types[] = {
        [2] = HRANA_OPEN_STREAM,  [3] = HRANA_CLOSE_STREAM, [4] = HRANA_EXECUTE,
        [5] = HRANA_BATCH,        [6] = HRANA_OPEN_CURSOR,  [7] = HRANA_CLOSE_CURSOR,
        [8] = HRANA_FETCH_CURSOR, [9] = HRANA_SEQUENCE,     [10] = HRANA_DESCRIBE,
        [11] = HRANA_STORE_SQL,   [12] = HRANA_CLOSE_SQL,   [13] = HRANA_GET_AUTOCOMMIT};
    struct in body = {0};
    struct field f;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == VARINT(1)) msg->request_id = (int32_t)(uint32_t)f.varint;
        if (f.wire != 2 || f.number < 2 || f.number >= sizeof types / sizeof types[0]) continue;
        msg->request.type = types[f.number];
        body = f.bytes;
    }
    if (body.at == NULL) return err_set(d->err, RC_INVALID, "a request of unknown type");
    return get_body(d, body, true, &msg->request);
}

/* The bodies of all types are alike: numbers that name things, and a statement, a batch or SQL. */
static enum rc get_body(struct dec *d, struct in in, bool over_ws, struct hrana_request *r)
{
    struct hrana_seen seen = {0};
    struct field f;
    uint32_t main = main_field(r->type, over_ws);
    d->index = 0;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (f.wire == 0)
            get_number(&f, over_ws, r, &seen);
        else if (main != 0 && KEY(f) == BYTES(main))
            TRY(get_main(d, f.bytes, r, &seen));
        bool script = r->type == HRANA_SEQUENCE || r->type == HRANA_DESCRIBE;
        if (script && KEY(f) == VARINT(main + 2)) note_index(d, f.varint);
    }
    /* An empty text is left out, as all that is zero. */
    seen.sql_id |= r->type == HRANA_CLOSE_SQL; /* a zero is not sent */
    if (r->type == HRANA_STORE_SQL && !seen.sql) {
        r->sql.text = "";
        seen.sql = true;
    }
    r->replication_index = d->index;
    return hrana_request_check(r, &seen, d->v, over_ws, d->err);
}

static void get_number(const struct field *f, bool over_ws, struct hrana_request *r,
                       struct hrana_seen *seen)
{
    int32_t v = (int32_t)(uint32_t)f->varint;
    switch (r->type) {
    case HRANA_STORE_SQL:
    case HRANA_CLOSE_SQL:
        if (f->number == 1) r->sql.id = v;
        return;
    case HRANA_CLOSE_CURSOR:
        if (f->number == 1) r->cursor_id = v;
        return;
    case HRANA_FETCH_CURSOR:
        if (f->number == 1) r->cursor_id = v;
        if (f->number == 2) r->max_count = (uint32_t)f->varint;
        return;
    case HRANA_SEQUENCE:
    case HRANA_DESCRIBE:
        if (f->number == main_field(r->type, over_ws) + 1) {
            r->sql.id = v;
            seen->sql_id = true;
        }
        break;
    case HRANA_OPEN_CURSOR:
        if (f->number == 2) r->cursor_id = v;
        break;
    default:
        break;
    }
    if (over_ws && f->number == 1) r->stream_id = v;
}

/* The number of the field with the statement, the batch or the SQL; 0: none. */
static uint32_t main_field(enum hrana_type type, bool over_ws)
{
    switch (type) {
    case HRANA_EXECUTE:
    case HRANA_BATCH:
    case HRANA_SEQUENCE:
    case HRANA_DESCRIBE:
        return over_ws ? 2 : 1;
    case HRANA_STORE_SQL:
        return 2;
    case HRANA_OPEN_CURSOR:
        return 3;
    default:
        return 0;
    }
}

static enum rc get_main(struct dec *d, struct in in, struct hrana_request *r,
                        struct hrana_seen *seen)
{
    switch (r->type) {
    case HRANA_EXECUTE:
        seen->stmt = true;
        if (get_stmt(d, in, &r->stmt) != RC_OK) return err_wrap(d->err, "stmt");
        return RC_OK;
    case HRANA_BATCH:
    case HRANA_OPEN_CURSOR:
        seen->batch = true;
        if (get_batch(d, in, &r->batch) != RC_OK) return err_wrap(d->err, "batch");
        return RC_OK;
    default:
        seen->sql = true;
        r->sql.text = (const char *)in.at;
        r->sql.size = (size_t)(in.end - in.at);
        return RC_OK;
    }
}

/* ---- Batches ---- */

static enum rc get_batch(struct dec *d, struct in in, struct hrana_batch *b)
{
    struct hrana_step *list;
    struct field f;
    d->cond_count = 0;
    *b = (struct hrana_batch){0};
    TRY(array_of(d, in, BYTES(1), HRANA_STEPS_MAX, "steps", sizeof *list, &list));
    b->steps = list;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == VARINT(2)) note_index(d, f.varint);
        if (KEY(f) != BYTES(1)) continue;
        if (get_step(d, f.bytes, &list[b->count]) != RC_OK)
            return err_wrap(d->err, "steps[%zu]", b->count);
        b->count++;
    }
    return hrana_batch_check(b, d->err);
}

static enum rc get_step(struct dec *d, struct in in, struct hrana_step *step)
{
    struct field f;
    bool found = false;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == BYTES(1)) TRY(get_cond(d, f.bytes, &step->cond));
        if (KEY(f) != BYTES(2)) continue;
        found = true;
        if (get_stmt(d, f.bytes, &step->stmt) != RC_OK) return err_wrap(d->err, "stmt");
    }
    if (!found) return err_set(d->err, RC_INVALID, "a step has no stmt");
    return RC_OK;
}

static enum rc get_cond(struct dec *d, struct in in, struct hrana_cond *c)
{
    struct field f;
    *c = (struct hrana_cond){0};
    if (++d->cond_count > HRANA_CONDS_MAX)
        return err_set(d->err, RC_TOO_BIG, "a batch has at most %d conditions", HRANA_CONDS_MAX);
    if (++d->cond_depth > HRANA_DEPTH_MAX)
        return err_set(d->err, RC_TOO_BIG, "a condition is nested deeper than %d levels",
                       HRANA_DEPTH_MAX);
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        TRY(get_cond_field(d, &f, c));
    }
    d->cond_depth--;
    if (c->type == HRANA_COND_NONE)
        return err_set(d->err, RC_INVALID, "a condition of unknown type");
    return RC_OK;
}

static enum rc get_cond_field(struct dec *d, const struct field *f, struct hrana_cond *c)
{
    void *one;
    switch (KEY(*f)) {
    case VARINT(1):
    case VARINT(2):
        *c = (struct hrana_cond){.type = f->number == 1 ? HRANA_COND_OK : HRANA_COND_ERROR,
                                 .step = (uint32_t)f->varint};
        return RC_OK;
    case BYTES(3):
        TRY(arena_take(d->a, sizeof *c, &one, d->err));
        *c = (struct hrana_cond){.type = HRANA_COND_NOT, .inner = one, .count = 1};
        return get_cond(d, f->bytes, one);
    case BYTES(4):
    case BYTES(5):
        *c = (struct hrana_cond){.type = f->number == 4 ? HRANA_COND_AND : HRANA_COND_OR};
        return get_conds(d, f->bytes, c);
    case BYTES(6):
        *c = (struct hrana_cond){.type = HRANA_COND_AUTOCOMMIT};
        if (d->v < HRANA_2)
            return err_set(d->err, RC_INVALID, "the condition 'is_autocommit' came with Hrana 2");
        return RC_OK;
    default:
        return RC_OK;
    }
}

static enum rc get_conds(struct dec *d, struct in in, struct hrana_cond *c)
{
    struct hrana_cond *list;
    struct field f;
    TRY(array_of(d, in, BYTES(1), HRANA_CONDS_MAX, "conditions", sizeof *list, &list));
    c->inner = list;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) return RC_OK;
        if (KEY(f) == BYTES(1)) TRY(get_cond(d, f.bytes, &list[c->count++]));
    }
}

/* ---- Statements ---- */

static enum rc get_stmt(struct dec *d, struct in in, struct hrana_stmt *s)
{
    struct sql_arg *args, *named;
    size_t arg_count = 0, named_count = 0;
    struct field f;
    bool has_id = false;
    *s = (struct hrana_stmt){.want_rows = true};
    TRY(array_of(d, in, BYTES(3), HRANA_ARGS_MAX, "arguments", sizeof *args, &args));
    TRY(array_of(d, in, BYTES(4), HRANA_ARGS_MAX, "arguments", sizeof *args, &named));
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        switch (KEY(f)) {
        case BYTES(1):
            s->sql.text = (const char *)f.bytes.at;
            s->sql.size = (size_t)(f.bytes.end - f.bytes.at);
            break;
        case VARINT(2):
            s->sql.id = (int32_t)(uint32_t)f.varint;
            has_id = true;
            break;
        case BYTES(3):
            if (get_value(d, f.bytes, &args[arg_count].value) != RC_OK)
                return err_wrap(d->err, "args[%zu]", arg_count);
            arg_count++;
            break;
        case BYTES(4):
            if (get_named(d, f.bytes, &named[named_count]) != RC_OK)
                return err_wrap(d->err, "named_args[%zu]", named_count);
            named_count++;
            break;
        case VARINT(5):
            s->want_rows = f.varint != 0;
            break;
        case VARINT(6):
            note_index(d, f.varint);
            break;
        default:
            break;
        }
    }
    TRY(hrana_sql_check(s->sql.text != NULL, has_id, d->err));
    return hrana_args_join(d->a, s, args, arg_count, named, named_count, d->err);
}

static enum rc get_named(struct dec *d, struct in in, struct sql_arg *arg)
{
    struct field f;
    bool found = false;
    arg->name = "";
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        if (KEY(f) == BYTES(1)) TRY(get_name(d, f.bytes, "name", &arg->name));
        if (KEY(f) != BYTES(2)) continue;
        found = true;
        TRY(get_value(d, f.bytes, &arg->value));
    }
    if (!found) return err_set(d->err, RC_INVALID, "an argument has no value");
    return RC_OK;
}

static enum rc get_value(struct dec *d, struct in in, struct sql_value *v)
{
    struct field f;
    bool found = false;
    for (bool more;;) {
        TRY(next(d, &in, &f, &more));
        if (!more) break;
        struct sql_value got = {.data = f.bytes.at, .size = (size_t)(f.bytes.end - f.bytes.at)};
        switch (KEY(f)) {
        case BYTES(1):
            got = (struct sql_value){0};
            break;
        case VARINT(2):
            got = (struct sql_value){.type = SQL_INTEGER,
                                     .integer = (int64_t)(f.varint >> 1 ^ (0 - (f.varint & 1)))};
            break;
        case FIXED64(3):
            got = (struct sql_value){.type = SQL_FLOAT};
            memcpy(&got.real, &f.varint, sizeof got.real);
            break;
        case BYTES(4):
            got.type = SQL_TEXT;
            break;
        case BYTES(5):
            got.type = SQL_BLOB;
            break;
        default:
            continue;
        }
        *v = got;
        found = true;
    }
    if (!found) return err_set(d->err, RC_INVALID, "a value of unknown type");
    return RC_OK;
}

/* A text that goes on as a string of C. */
static enum rc get_name(struct dec *d, struct in in, const char *what, const char **ret)
{
    size_t size = (size_t)(in.end - in.at);
    if (size > 0 && memchr(in.at, 0, size) != NULL)
        return err_set(d->err, RC_INVALID, "%s: holds a NUL", what);
    return arena_text(d->a, in.at, size, ret, d->err);
}

static void note_index(struct dec *d, uint64_t index)
{
    if (index > d->index) d->index = index;
}
