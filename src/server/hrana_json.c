/*
 * hrana_json.c -- Hrana's messages from JSON, straight into an arena. See hrana.h.
 *
 * Members come in any order, so `type` may follow what it explains: a value, a condition or a
 * request is first collected from all members of known names and understood at its end. Of members
 * that come twice the last counts; null is as good as absent; unknown members are skipped.
 */
#include "server/json_pull.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JSON_DEPTH_MAX (2 * HRANA_DEPTH_MAX + 16) /* a list of conditions takes two levels */

struct dec {
    struct pull p;
    struct arena *a;
    struct err *err;
    enum hrana_version v;
    unsigned cond_depth;
    size_t cond_count; /* of the batch at hand */
    uint64_t index;    /* the largest replication_index of the request at hand */
};
struct scalar { /* a value whose type is not known yet */
    enum pull_type type;
    struct pull_text text; /* STRING, NUMBER */
};
struct cond_parts {
    struct pull_text type;
    bool has_step, has_one, has_list;
    int64_t step;
    struct hrana_cond *one, *list;
    size_t count;
};

static enum rc pipeline(struct arena *a, enum hrana_version v, const void *data, size_t size,
                        struct hrana_pipeline *ret, struct err *err);
static enum rc cursor(struct arena *a, const void *data, size_t size, struct hrana_cursor_body *ret,
                      struct err *err);
static enum rc ws(struct arena *a, enum hrana_version v, const void *data, size_t size,
                  struct hrana_ws_msg *ret, struct err *err);
static struct dec dec_of(struct arena *a, enum hrana_version v, const void *data, size_t size,
                         struct err *err);
static enum rc enter(struct dec *d, enum pull_type want, const char *what, bool *ret_null);
static bool is(const struct pull_text *key, const char *name);
static enum rc get_requests(struct dec *d, struct hrana_pipeline *ret, bool *ret_found);
static enum rc get_request(struct dec *d, bool over_ws, struct hrana_request *r, bool *ret_null);
static enum rc get_member(struct dec *d, const struct pull_text *key, struct hrana_request *r,
                          struct hrana_seen *seen, struct pull_text *type);
static enum rc get_batch(struct dec *d, struct hrana_batch *b, bool *ret_null);
static enum rc get_steps(struct dec *d, struct hrana_batch *b, bool *ret_found);
static enum rc get_step(struct dec *d, struct hrana_step *step);
static enum rc get_cond(struct dec *d, struct hrana_cond *c, bool *ret_null);
static enum rc get_cond_member(struct dec *d, const struct pull_text *key,
                               struct cond_parts *parts);
static enum rc get_conds(struct dec *d, struct cond_parts *parts);
static enum rc cond_of(struct dec *d, const struct cond_parts *parts, struct hrana_cond *c);
static enum rc get_stmt(struct dec *d, struct hrana_stmt *s, bool *ret_null);
static enum rc get_args(struct dec *d, bool named, const struct sql_arg **ret_args,
                        size_t *ret_count);
static enum rc get_named(struct dec *d, struct sql_arg *arg);
static enum rc get_value(struct dec *d, struct sql_value *v);
static enum rc value_of(struct dec *d, const struct pull_text *type, const struct scalar *value,
                        const struct scalar *base64, struct sql_value *v);
static enum rc get_scalar(struct dec *d, const char *what, struct scalar *ret);
static enum rc get_text(struct dec *d, const char *what, struct pull_text *ret);
static enum rc get_name(struct dec *d, const char *what, const char **ret);
static enum rc get_bool(struct dec *d, const char *what, bool *ret);
static enum rc get_int(struct dec *d, const char *what, int64_t min, int64_t max, int64_t *ret,
                       bool *ret_found);
static enum rc get_id(struct dec *d, const char *what, int32_t *ret, bool *ret_found);
static enum rc get_index(struct dec *d);
static bool int_of(const struct pull_text *s, int64_t *ret_v);
static bool uint_of(const struct pull_text *s, uint64_t *ret_v);
static enum rc float_of(struct dec *d, const struct pull_text *s, double *ret_v);
static enum rc base64_of(struct dec *d, const struct pull_text *s, struct sql_value *v);

const struct hrana_decoder hrana_json_decoder = {.pipeline = pipeline, .cursor = cursor, .ws = ws};

/* ---- Bodies and messages ---- */

enum rc hrana_json_v1(struct arena *a, const void *data, size_t size, bool batch,
                      struct hrana_request *ret, struct err *err)
{
    struct dec d = dec_of(a, HRANA_1, data, size, err);
    struct hrana_request r = {.type = batch ? HRANA_BATCH : HRANA_EXECUTE};
    struct hrana_seen seen = {0};
    struct pull_text key, type = {0};
    TRY(enter(&d, PULL_OBJECT, "the body", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d.p, &more, &key));
        if (!more) break;
        if (is(&key, batch ? "batch" : "stmt"))
            TRY(get_member(&d, &key, &r, &seen, &type));
        else
            TRY(pull_skip(&d.p));
    }
    TRY(pull_end(&d.p));
    TRY(hrana_request_check(&r, &seen, HRANA_1, false, err));
    r.replication_index = d.index;
    *ret = r;
    return RC_OK;
}

static enum rc pipeline(struct arena *a, enum hrana_version v, const void *data, size_t size,
                        struct hrana_pipeline *ret, struct err *err)
{
    struct dec d = dec_of(a, v, data, size, err);
    struct hrana_pipeline body = {0};
    struct pull_text key;
    bool found = false;
    TRY(enter(&d, PULL_OBJECT, "the body", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d.p, &more, &key));
        if (!more) break;
        if (is(&key, "requests"))
            TRY(get_requests(&d, &body, &found));
        else if (is(&key, "baton"))
            TRY(get_name(&d, "baton", &body.baton));
        else
            TRY(pull_skip(&d.p));
    }
    TRY(pull_end(&d.p));
    if (!found) return err_set(err, RC_INVALID, "the body has no requests");
    *ret = body;
    return RC_OK;
}

static enum rc cursor(struct arena *a, const void *data, size_t size, struct hrana_cursor_body *ret,
                      struct err *err)
{
    struct dec d = dec_of(a, HRANA_3, data, size, err);
    struct hrana_cursor_body body = {0};
    struct pull_text key;
    bool null = true;
    TRY(enter(&d, PULL_OBJECT, "the body", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d.p, &more, &key));
        if (!more) break;
        if (is(&key, "batch"))
            TRY(get_batch(&d, &body.batch, &null));
        else if (is(&key, "baton"))
            TRY(get_name(&d, "baton", &body.baton));
        else if (is(&key, "replication_index"))
            TRY(get_index(&d));
        else
            TRY(pull_skip(&d.p));
    }
    TRY(pull_end(&d.p));
    if (null) return err_set(err, RC_INVALID, "the body has no batch");
    body.replication_index = d.index;
    *ret = body;
    return RC_OK;
}

static enum rc ws(struct arena *a, enum hrana_version v, const void *data, size_t size,
                  struct hrana_ws_msg *ret, struct err *err)
{
    struct dec d = dec_of(a, v, data, size, err);
    struct hrana_ws_msg msg = {0};
    struct pull_text key, type = {0};
    bool id = false, null = true;
    TRY(enter(&d, PULL_OBJECT, "the message", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d.p, &more, &key));
        if (!more) break;
        if (is(&key, "type"))
            TRY(get_text(&d, "type", &type));
        else if (is(&key, "request_id"))
            TRY(get_id(&d, "request_id", &msg.request_id, &id));
        else if (is(&key, "request"))
            TRY(get_request(&d, true, &msg.request, &null));
        else if (is(&key, "jwt"))
            TRY(get_name(&d, "jwt", &msg.jwt));
        else
            TRY(pull_skip(&d.p));
    }
    TRY(pull_end(&d.p));
    msg.hello = is(&type, "hello");
    if (!msg.hello && !is(&type, "request"))
        return err_set(err, RC_INVALID, "a message has the type 'hello' or 'request', not '%.*s'",
                       (int)(type.size < 40 ? type.size : 40), type.data != NULL ? type.data : "");
    if (!msg.hello && (!id || null))
        return err_set(err, RC_INVALID, "a request needs request_id and request");
    *ret = msg;
    return RC_OK;
}

static struct dec dec_of(struct arena *a, enum hrana_version v, const void *data, size_t size,
                         struct err *err)
{
    struct dec d = {.a = a, .v = v, .err = err};
    pull_init(&d.p, a, data, size, JSON_DEPTH_MAX, err);
    return d;
}

/* Enter an object or an array. ret_null not NULL: null may stand in its place. */
static enum rc enter(struct dec *d, enum pull_type want, const char *what, bool *ret_null)
{
    enum pull_type type;
    TRY(pull_peek(&d->p, &type));
    if (ret_null != NULL) {
        *ret_null = type == PULL_NULL;
        if (type == PULL_NULL) return pull_literal(&d->p);
    }
    if (type != want)
        return err_set(d->err, RC_INVALID, "%s: expected %s", what,
                       want == PULL_OBJECT ? "an object" : "an array");
    return pull_enter(&d->p);
}

static inline bool is(const struct pull_text *key, const char *name)
{
    size_t size = strlen(name);
    return key->size == size && memcmp(key->data, name, size) == 0;
}

/* ---- Requests ---- */

static enum rc get_requests(struct dec *d, struct hrana_pipeline *ret, bool *ret_found)
{
    struct hrana_request *list = NULL;
    size_t count = 0, cap = 0;
    bool more, null;
    *ret = (struct hrana_pipeline){.baton = ret->baton};
    TRY(enter(d, PULL_ARRAY, "requests", &null));
    *ret_found = !null;
    if (null) return RC_OK;
    for (;; count++) {
        TRY(pull_next_item(&d->p, &more));
        if (!more) break;
        if (count == HRANA_REQUESTS_MAX)
            return err_set(d->err, RC_TOO_BIG, "a pipeline has at most %d requests",
                           HRANA_REQUESTS_MAX);
        TRY(arena_room(d->a, &list, count, &cap, sizeof *list, d->err));
        if (get_request(d, false, &list[count], NULL) != RC_OK)
            return err_wrap(d->err, "requests[%zu]", count);
    }
    ret->requests = list;
    ret->count = count;
    return RC_OK;
}

static enum rc get_request(struct dec *d, bool over_ws, struct hrana_request *r, bool *ret_null)
{
    struct hrana_seen seen = {0};
    struct pull_text key, type = {0};
    *r = (struct hrana_request){0};
    d->index = 0;
    TRY(enter(d, PULL_OBJECT, "a request", ret_null));
    if (ret_null != NULL && *ret_null) return RC_OK;
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        TRY(get_member(d, &key, r, &seen, &type));
    }
    if (type.data == NULL) return err_set(d->err, RC_INVALID, "a request has no type");
    if (!hrana_type_of(type.data, type.size, &r->type))
        return err_set(d->err, RC_INVALID, "unknown type of request '%.*s'",
                       (int)(type.size < 40 ? type.size : 40), type.data);
    r->replication_index = d->index;
    return hrana_request_check(r, &seen, d->v, over_ws, d->err);
}

static enum rc get_member(struct dec *d, const struct pull_text *key, struct hrana_request *r,
                          struct hrana_seen *seen, struct pull_text *type)
{
    struct pull_text sql;
    bool null, found;
    int64_t n;
    if (is(key, "type")) return get_text(d, "type", type);
    if (is(key, "stmt")) {
        if (get_stmt(d, &r->stmt, &null) != RC_OK) return err_wrap(d->err, "stmt");
        seen->stmt = !null;
        return RC_OK;
    }
    if (is(key, "batch")) {
        if (get_batch(d, &r->batch, &null) != RC_OK) return err_wrap(d->err, "batch");
        seen->batch = !null;
        return RC_OK;
    }
    if (is(key, "sql")) {
        TRY(get_text(d, "sql", &sql));
        seen->sql = sql.data != NULL;
        r->sql.text = sql.data;
        r->sql.size = sql.size;
        return RC_OK;
    }
    if (is(key, "sql_id")) return get_id(d, "sql_id", &r->sql.id, &seen->sql_id);
    if (is(key, "stream_id")) return get_id(d, "stream_id", &r->stream_id, &found);
    if (is(key, "cursor_id")) return get_id(d, "cursor_id", &r->cursor_id, &found);
    if (is(key, "replication_index")) return get_index(d);
    if (!is(key, "max_count")) return pull_skip(&d->p);
    TRY(get_int(d, "max_count", 0, UINT32_MAX, &n, &found));
    r->max_count = (uint32_t)n;
    return RC_OK;
}

/* ---- Batches ---- */

static enum rc get_batch(struct dec *d, struct hrana_batch *b, bool *ret_null)
{
    struct pull_text key;
    bool found = false;
    d->cond_count = 0;
    *b = (struct hrana_batch){0};
    TRY(enter(d, PULL_OBJECT, "batch", ret_null));
    if (*ret_null) return RC_OK;
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        if (is(&key, "steps"))
            TRY(get_steps(d, b, &found));
        else if (is(&key, "replication_index"))
            TRY(get_index(d));
        else
            TRY(pull_skip(&d->p));
    }
    if (!found) return err_set(d->err, RC_INVALID, "a batch has no steps");
    return hrana_batch_check(b, d->err);
}

static enum rc get_steps(struct dec *d, struct hrana_batch *b, bool *ret_found)
{
    struct hrana_step *list = NULL;
    size_t count = 0, cap = 0;
    bool more, null;
    *b = (struct hrana_batch){0};
    TRY(enter(d, PULL_ARRAY, "steps", &null));
    *ret_found = !null;
    if (null) return RC_OK;
    for (;; count++) {
        TRY(pull_next_item(&d->p, &more));
        if (!more) break;
        if (count == HRANA_STEPS_MAX)
            return err_set(d->err, RC_TOO_BIG, "a batch has at most %d steps", HRANA_STEPS_MAX);
        TRY(arena_room(d->a, &list, count, &cap, sizeof *list, d->err));
        if (get_step(d, &list[count]) != RC_OK) return err_wrap(d->err, "steps[%zu]", count);
    }
    b->steps = list;
    b->count = count;
    return RC_OK;
}

static enum rc get_step(struct dec *d, struct hrana_step *step)
{
    struct pull_text key;
    bool no_stmt = true, no_cond;
    *step = (struct hrana_step){0};
    TRY(enter(d, PULL_OBJECT, "a step", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        if (is(&key, "stmt")) {
            if (get_stmt(d, &step->stmt, &no_stmt) != RC_OK) return err_wrap(d->err, "stmt");
        } else if (is(&key, "condition")) {
            TRY(get_cond(d, &step->cond, &no_cond));
        } else {
            TRY(pull_skip(&d->p));
        }
    }
    if (no_stmt) return err_set(d->err, RC_INVALID, "a step has no stmt");
    return RC_OK;
}

static enum rc get_cond(struct dec *d, struct hrana_cond *c, bool *ret_null)
{
    struct cond_parts parts = {0};
    struct pull_text key;
    *c = (struct hrana_cond){0};
    TRY(enter(d, PULL_OBJECT, "condition", ret_null));
    if (ret_null != NULL && *ret_null) return RC_OK;
    if (++d->cond_count > HRANA_CONDS_MAX)
        return err_set(d->err, RC_TOO_BIG, "a batch has at most %d conditions", HRANA_CONDS_MAX);
    if (++d->cond_depth > HRANA_DEPTH_MAX)
        return err_set(d->err, RC_TOO_BIG, "a condition is nested deeper than %d levels",
                       HRANA_DEPTH_MAX);
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        TRY(get_cond_member(d, &key, &parts));
    }
    d->cond_depth--;
    return cond_of(d, &parts, c);
}

static enum rc get_cond_member(struct dec *d, const struct pull_text *key, struct cond_parts *parts)
{
    void *one;
    bool null;
    if (is(key, "type")) return get_text(d, "type of a condition", &parts->type);
    if (is(key, "step")) return get_int(d, "step", 0, UINT32_MAX, &parts->step, &parts->has_step);
    if (is(key, "conds")) return get_conds(d, parts);
    if (!is(key, "cond")) return pull_skip(&d->p);
    TRY(arena_take(d->a, sizeof *parts->one, &one, d->err));
    parts->one = one;
    TRY(get_cond(d, parts->one, &null));
    parts->has_one = !null;
    return RC_OK;
}

static enum rc get_conds(struct dec *d, struct cond_parts *parts)
{
    size_t cap = 0;
    bool more, null;
    parts->list = NULL;
    parts->count = 0;
    TRY(enter(d, PULL_ARRAY, "conds", &null));
    parts->has_list = !null;
    if (null) return RC_OK;
    for (;; parts->count++) {
        TRY(pull_next_item(&d->p, &more));
        if (!more) return RC_OK;
        TRY(arena_room(d->a, &parts->list, parts->count, &cap, sizeof *parts->list, d->err));
        TRY(get_cond(d, &parts->list[parts->count], NULL));
    }
}

static enum rc cond_of(struct dec *d, const struct cond_parts *parts, struct hrana_cond *c)
{
    static const struct {
        const char *name;
        enum hrana_cond_type type;
    } names[] = {{"ok", HRANA_COND_OK},   {"error", HRANA_COND_ERROR},
                 {"not", HRANA_COND_NOT}, {"and", HRANA_COND_AND},
                 {"or", HRANA_COND_OR},   {"is_autocommit", HRANA_COND_AUTOCOMMIT}};
    const char *missing = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (is(&parts->type, names[i].name)) c->type = names[i].type;
    switch (c->type) {
    case HRANA_COND_OK:
    case HRANA_COND_ERROR:
        if (!parts->has_step) missing = "step";
        c->step = (uint32_t)parts->step;
        break;
    case HRANA_COND_NOT:
        if (!parts->has_one) missing = "cond";
        c->inner = parts->one;
        c->count = 1;
        break;
    case HRANA_COND_AND:
    case HRANA_COND_OR:
        if (!parts->has_list) missing = "conds";
        c->inner = parts->list;
        c->count = parts->count;
        break;
    case HRANA_COND_AUTOCOMMIT:
        if (d->v < HRANA_2)
            return err_set(d->err, RC_INVALID, "the condition 'is_autocommit' came with Hrana 2");
        break;
    case HRANA_COND_NONE:
        return err_set(d->err, RC_INVALID, "unknown type of condition '%.*s'",
                       (int)(parts->type.size < 40 ? parts->type.size : 40),
                       parts->type.data != NULL ? parts->type.data : "");
    }
    if (missing != NULL)
        return err_set(d->err, RC_INVALID, "a condition of type '%.*s' has no %s",
                       (int)parts->type.size, parts->type.data, missing);
    return RC_OK;
}

/* ---- Statements ---- */

static enum rc get_stmt(struct dec *d, struct hrana_stmt *s, bool *ret_null)
{
    const struct sql_arg *args = NULL, *named = NULL;
    size_t arg_count = 0, named_count = 0;
    struct pull_text key, sql = {0};
    bool has_id = false;
    *s = (struct hrana_stmt){.want_rows = true};
    TRY(enter(d, PULL_OBJECT, "stmt", ret_null));
    if (*ret_null) return RC_OK;
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        if (is(&key, "sql"))
            TRY(get_text(d, "sql", &sql));
        else if (is(&key, "args"))
            TRY(get_args(d, false, &args, &arg_count));
        else if (is(&key, "want_rows"))
            TRY(get_bool(d, "want_rows", &s->want_rows));
        else if (is(&key, "named_args"))
            TRY(get_args(d, true, &named, &named_count));
        else if (is(&key, "sql_id"))
            TRY(get_id(d, "sql_id", &s->sql.id, &has_id));
        else if (is(&key, "replication_index"))
            TRY(get_index(d));
        else
            TRY(pull_skip(&d->p));
    }
    TRY(hrana_sql_check(sql.data != NULL, has_id, d->err));
    s->sql.text = sql.data;
    s->sql.size = sql.size;
    return hrana_args_join(d->a, s, args, arg_count, named, named_count, d->err);
}

static enum rc get_args(struct dec *d, bool named, const struct sql_arg **ret_args,
                        size_t *ret_count)
{
    const char *what = named ? "named_args" : "args";
    struct sql_arg *list = NULL;
    size_t count = 0, cap = 0;
    bool more, null;
    *ret_args = NULL;
    *ret_count = 0;
    TRY(enter(d, PULL_ARRAY, what, &null));
    if (null) return RC_OK;
    for (;; count++) {
        TRY(pull_next_item(&d->p, &more));
        if (!more) break;
        if (count == HRANA_ARGS_MAX)
            return err_set(d->err, RC_TOO_BIG, "a statement has at most %d arguments",
                           HRANA_ARGS_MAX);
        TRY(arena_room(d->a, &list, count, &cap, sizeof *list, d->err));
        enum rc rc = named ? get_named(d, &list[count]) : get_value(d, &list[count].value);
        if (rc != RC_OK) return err_wrap(d->err, "%s[%zu]", what, count);
    }
    *ret_args = list;
    *ret_count = count;
    return RC_OK;
}

static enum rc get_named(struct dec *d, struct sql_arg *arg)
{
    struct pull_text key;
    bool found = false;
    TRY(enter(d, PULL_OBJECT, "an argument", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        if (is(&key, "name")) {
            TRY(get_name(d, "name", &arg->name));
        } else if (is(&key, "value")) {
            TRY(get_value(d, &arg->value));
            found = true;
        } else {
            TRY(pull_skip(&d->p));
        }
    }
    if (arg->name == NULL || !found)
        return err_set(d->err, RC_INVALID, "an argument needs name and value");
    return RC_OK;
}

static enum rc get_value(struct dec *d, struct sql_value *v)
{
    struct pull_text key, type = {0};
    struct scalar value = {.type = PULL_NULL}, base64 = {.type = PULL_NULL};
    *v = (struct sql_value){0};
    TRY(enter(d, PULL_OBJECT, "a value", NULL));
    for (bool more;;) {
        TRY(pull_next_key(&d->p, &more, &key));
        if (!more) break;
        if (is(&key, "type"))
            TRY(get_text(d, "type of a value", &type));
        else if (is(&key, "value"))
            TRY(get_scalar(d, "value", &value));
        else if (is(&key, "base64"))
            TRY(get_scalar(d, "base64", &base64));
        else
            TRY(pull_skip(&d->p));
    }
    return value_of(d, &type, &value, &base64, v);
}

static enum rc value_of(struct dec *d, const struct pull_text *type, const struct scalar *value,
                        const struct scalar *base64, struct sql_value *v)
{
    bool string = value->type == PULL_STRING, number = value->type == PULL_NUMBER;
    if (is(type, "null")) return RC_OK;
    if (is(type, "integer")) {
        v->type = SQL_INTEGER;
        if ((string || number) && int_of(&value->text, &v->integer)) return RC_OK;
        return err_set(d->err, RC_INVALID, "an integer is not one of 64 bits: '%.*s'",
                       (int)(value->text.size < 40 ? value->text.size : 40),
                       string || number ? value->text.data : "");
    }
    if (is(type, "float")) {
        v->type = SQL_FLOAT;
        v->real = NAN; /* what JSON cannot say is null */
        if (value->type == PULL_NULL) return RC_OK;
        if (number) return float_of(d, &value->text, &v->real);
        return err_set(d->err, RC_INVALID, "a float is not a number");
    }
    if (is(type, "text")) {
        if (!string) return err_set(d->err, RC_INVALID, "a text is not a string");
        v->type = SQL_TEXT;
        v->data = value->text.data;
        v->size = value->text.size;
        return RC_OK;
    }
    if (is(type, "blob")) {
        v->type = SQL_BLOB;
        if (base64->type == PULL_STRING) return base64_of(d, &base64->text, v);
        return err_set(d->err, RC_INVALID, "a blob has no base64 string");
    }
    return err_set(d->err, RC_INVALID, "unknown type of value '%.*s'",
                   (int)(type->size < 40 ? type->size : 40), type->data != NULL ? type->data : "");
}

/* ---- Members ---- */

static enum rc get_scalar(struct dec *d, const char *what, struct scalar *ret)
{
    TRY(pull_peek(&d->p, &ret->type));
    switch (ret->type) {
    case PULL_STRING:
        return pull_string(&d->p, &ret->text);
    case PULL_NUMBER:
        return pull_number(&d->p, &ret->text);
    case PULL_OBJECT:
    case PULL_ARRAY:
        return err_set(d->err, RC_INVALID, "%s: expected a string or a number", what);
    default:
        return pull_literal(&d->p);
    }
}

static enum rc get_text(struct dec *d, const char *what, struct pull_text *ret)
{
    enum pull_type type;
    *ret = (struct pull_text){0};
    TRY(pull_peek(&d->p, &type));
    if (type == PULL_STRING) return pull_string(&d->p, ret);
    if (type == PULL_NULL) return pull_literal(&d->p);
    return err_set(d->err, RC_INVALID, "%s: expected a string", what);
}

/* A text that goes on as a string of C. */
static enum rc get_name(struct dec *d, const char *what, const char **ret)
{
    struct pull_text text;
    *ret = NULL;
    TRY(get_text(d, what, &text));
    if (text.data == NULL) return RC_OK;
    if (memchr(text.data, 0, text.size) != NULL)
        return err_set(d->err, RC_INVALID, "%s: holds a NUL", what);
    return arena_text(d->a, text.data, text.size, ret, d->err);
}

/* null leaves it as it is. */
static enum rc get_bool(struct dec *d, const char *what, bool *ret)
{
    enum pull_type type;
    TRY(pull_peek(&d->p, &type));
    if (type != PULL_TRUE && type != PULL_FALSE && type != PULL_NULL)
        return err_set(d->err, RC_INVALID, "%s: expected true or false", what);
    if (type != PULL_NULL) *ret = type == PULL_TRUE;
    return pull_literal(&d->p);
}

static enum rc get_int(struct dec *d, const char *what, int64_t min, int64_t max, int64_t *ret,
                       bool *ret_found)
{
    struct scalar s;
    *ret = 0;
    TRY(get_scalar(d, what, &s));
    *ret_found = s.type != PULL_NULL;
    if (s.type == PULL_NULL) return RC_OK;
    if ((s.type != PULL_STRING && s.type != PULL_NUMBER) || !int_of(&s.text, ret) || *ret < min ||
        *ret > max)
        return err_set(d->err, RC_INVALID, "%s: expected an integer from %lld to %lld", what,
                       (long long)min, (long long)max);
    return RC_OK;
}

static enum rc get_id(struct dec *d, const char *what, int32_t *ret, bool *ret_found)
{
    int64_t v;
    TRY(get_int(d, what, INT32_MIN, INT32_MAX, &v, ret_found));
    *ret = (int32_t)v;
    return RC_OK;
}

static enum rc get_index(struct dec *d)
{
    struct scalar s;
    uint64_t v = 0;
    TRY(get_scalar(d, "replication_index", &s));
    if (s.type == PULL_NULL) return RC_OK;
    if ((s.type != PULL_STRING && s.type != PULL_NUMBER) || !uint_of(&s.text, &v))
        return err_set(d->err, RC_INVALID, "replication_index: expected an unsigned integer");
    if (v > d->index) d->index = v;
    return RC_OK;
}

/* ---- Values ---- */

static bool int_of(const struct pull_text *s, int64_t *ret_v)
{
    bool negative = s->size > 0 && s->data[0] == '-';
    struct pull_text rest = {s->data + negative, s->size - negative};
    uint64_t v;
    if (!uint_of(&rest, &v) || v > INT64_MAX + (uint64_t)negative) return false;
    *ret_v = (int64_t)(negative ? 0 - v : v);
    return true;
}

static bool uint_of(const struct pull_text *s, uint64_t *ret_v)
{
    uint64_t v = 0;
    if (s->size == 0) return false;
    for (size_t i = 0; i < s->size; i++) {
        unsigned digit = (unsigned)(uint8_t)s->data[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
            return false;
    }
    *ret_v = v;
    return true;
}

/* Up to 15 digits and a power of ten up to 22 are exact as doubles, so one division rounds as it
 * should; that is what most numbers are. All others go to the C library. */
static enum rc float_of(struct dec *d, const struct pull_text *s, double *ret_v)
{
    static const double powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    bool negative = s->data[0] == '-', point = false;
    uint64_t v = 0;
    size_t i = negative, after = 0, digits = 0;
    for (; i < s->size && digits <= 15; i++) {
        if (s->data[i] == '.' && !point) {
            point = true;
            continue;
        }
        if (s->data[i] < '0' || s->data[i] > '9') break;
        v = v * 10 + (uint64_t)(s->data[i] - '0');
        digits++;
        after += point;
    }
    if (i == s->size && digits <= 15) {
        double real = (double)v / powers[after];
        *ret_v = negative ? -real : real;
        return RC_OK;
    }
    const char *text;
    TRY(arena_text(d->a, s->data, s->size, &text, d->err));
    *ret_v = strtod(text, NULL);
    if (isinf(*ret_v)) return err_set(d->err, RC_INVALID, "a float is too large");
    return RC_OK;
}

/* Either alphabet, padded or not; bits that are left over do not matter. */
static enum rc base64_of(struct dec *d, const struct pull_text *s, struct sql_value *v)
{
    /* The value of a letter plus 1, 0: it is none. */
    static const uint8_t values[256] = {
        ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,
        ['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14,
        ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21,
        ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28,
        ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35,
        ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42,
        ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,
        ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
        ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63,
        ['/'] = 64, ['-'] = 63, ['_'] = 64};
    const uint8_t *from = (const uint8_t *)s->data;
    size_t size = s->size;
    void *room;
    while (size > 0 && s->size - size < 2 && from[size - 1] == '=')
        size--;
    if (size % 4 == 1) return err_set(d->err, RC_INVALID, "base64 is cut off");
    TRY(arena_take(d->a, size / 4 * 3 + 2, &room, d->err));
    uint8_t *to = room;
    uint32_t bits = 0;
    for (size_t i = 0; i < size; i++) {
        uint32_t value = values[from[i]];
        if (value == 0) return err_set(d->err, RC_INVALID, "base64 at %zu: not a letter of it", i);
        bits = bits << 6 | (value - 1);
        if (i % 4 == 3) {
            to[0] = (uint8_t)(bits >> 16);
            to[1] = (uint8_t)(bits >> 8);
            to[2] = (uint8_t)bits;
            to += 3;
        }
    }
    if (size % 4 >= 2) *to++ = (uint8_t)(size % 4 == 2 ? bits >> 4 : bits >> 10);
    if (size % 4 == 3) *to++ = (uint8_t)(bits >> 2);
    v->data = room;
    v->size = (size_t)(to - (uint8_t *)room);
    return RC_OK;
}
