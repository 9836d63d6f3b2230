/* legacy.c -- see legacy.h. */
#include "server/legacy.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "server/json_pull.h"

#define LIT(b, text, err) buf_append(b, text, sizeof(text) - 1, err)

struct span { /* of a value, as it stands there */
    enum pull_type type;
    const uint8_t *at;
    size_t size;
};
struct request {
    struct buf steps; /* of the statements */
    size_t count;
    bool writes; /* one does, or may */
};

static enum rc enter(struct pull *p, enum pull_type type);
static enum rc take_span(struct pull *p, struct span *ret);
static bool is(const struct pull_text *key, const char *name);
static enum rc get_statements(struct pull *p, struct request *r);
static enum rc get_statement(struct pull *p, struct request *r);
static enum rc note_sql(struct pull *p, struct request *r, const struct span *sql);
static enum rc get_params(struct pull *p, const struct span *params, struct buf *out);
static enum rc get_named(struct pull *p, struct buf *out);
static enum rc get_value(struct pull *p, struct buf *out);
static enum rc get_number(struct pull *p, struct buf *out);
static enum rc get_blob(struct pull *p, struct buf *out);
static enum rc make_batch(const struct request *r, struct buf *out, struct err *err);
static enum rc decode(struct arena *a, const struct buf *text, struct hrana_request *ret,
                      struct err *err);
static enum rc find(struct pull *p, const char *name, bool *ret_found);
static enum rc find_steps(struct arena *a, const struct span *result, const char *name,
                          size_t count, struct span *spans, struct err *err);
static enum rc put_error(struct arena *a, const struct span *error, struct buf *out,
                         struct err *err);
static enum rc put_result(struct arena *a, const struct span *result, struct buf *out,
                          struct err *err);
static enum rc put_columns(struct pull *p, struct buf *out);
static enum rc put_rows(struct pull *p, struct buf *out);
static enum rc put_value(struct pull *p, struct buf *out);
static bool is_integer(const uint8_t *text, size_t size);

enum rc legacy_get(struct arena *a, const void *data, size_t size, struct hrana_request *ret,
                   size_t *ret_count, struct err *err)
{
    struct pull p;
    bool more, found = false;
    struct pull_text key;
    struct request r = {.steps = BUF_INIT};
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    pull_init(&p, a, data, size, LEGACY_DEPTH_MAX, err);
    enum rc rc = enter(&p, PULL_OBJECT);
    while (rc == RC_OK && (rc = pull_next_key(&p, &more, &key)) == RC_OK && more) {
        if (is(&key, "statements") && !found) {
            found = true;
            rc = get_statements(&p, &r);
        } else {
            rc = pull_skip(&p);
        }
    }
    if (rc == RC_OK) rc = pull_end(&p);
    if (rc == RC_OK && !found) rc = err_set(err, RC_INVALID, "there are no `statements`");
    if (rc == RC_OK) rc = make_batch(&r, &text, err);
    buf_fini(&r.steps);
    if (rc == RC_OK) rc = decode(a, &text, ret, err);
    if (rc == RC_OK) *ret_count = r.count;
    return rc;
}

enum rc legacy_put(struct arena *a, const struct buf *answer, size_t count, struct buf *out,
                   bool *ret_whole, struct err *err)
{
    struct pull p;
    struct span response, *results, *errors;
    bool more, ok = false;
    size_t steps = count > 1 ? count + 3 : count, first = count > 1 ? 1 : 0;
    void *spans;
    TRY(arena_take(a, 2 * (steps + 1) * sizeof *results, &spans, err));
    results = spans;
    errors = results + steps + 1;
    pull_init(&p, a, answer->data, answer->size, HRANA_DEPTH_MAX, err);
    TRY(find(&p, "results", &ok));
    if (ok) TRY(enter(&p, PULL_ARRAY));
    if (ok) TRY(pull_next_item(&p, &more));
    if (!ok || !more) return err_set(err, RC_INVALID, "an answer without results");
    const struct pull item = p;
    *ret_whole = false;
    TRY(find(&p, "error", &ok));
    if (ok) {
        TRY(take_span(&p, &response));
        return put_error(a, &response, out, err);
    }
    p = item;
    TRY(find(&p, "response", &ok));
    if (ok) TRY(find(&p, "result", &ok));
    if (!ok) return err_set(err, RC_INVALID, "an answer without a result");
    TRY(take_span(&p, &response));
    TRY(find_steps(a, &response, "step_results", steps, results, err));
    TRY(find_steps(a, &response, "step_errors", steps, errors, err));
    if (first == 1 && errors[0].type == PULL_OBJECT) return put_error(a, &errors[0], out, err);
    if (first == 1 && errors[count + 1].type == PULL_OBJECT) { /* COMMIT */
        results[count].type = PULL_NULL;
        errors[count] = errors[count + 1];
    }
    *ret_whole = true;
    TRY(LIT(out, "[", err));
    for (size_t i = first; i < first + count; i++) {
        if (i > first) TRY(LIT(out, ",", err));
        if (results[i].type == PULL_OBJECT)
            TRY(put_result(a, &results[i], out, err));
        else if (errors[i].type == PULL_OBJECT)
            TRY(put_error(a, &errors[i], out, err));
        else
            TRY(LIT(out, "null", err));
    }
    return LIT(out, "]", err);
}

static enum rc enter(struct pull *p, enum pull_type type)
{
    enum pull_type found;
    TRY(pull_peek(p, &found));
    if (found == type) return pull_enter(p);
    return err_set(p->err, RC_INVALID,
                   "the body of a request is {\"statements\": [...]}, with texts "
                   "or objects in it");
}

static enum rc take_span(struct pull *p, struct span *ret)
{
    TRY(pull_peek(p, &ret->type));
    ret->at = p->at;
    TRY(pull_skip(p));
    ret->size = (size_t)(p->at - ret->at);
    return RC_OK;
}

static bool is(const struct pull_text *key, const char *name)
{
    return key->size == strlen(name) && memcmp(key->data, name, key->size) == 0;
}

/* ---- The request ---- */

static enum rc get_statements(struct pull *p, struct request *r)
{
    bool more;
    TRY(enter(p, PULL_ARRAY));
    for (;;) {
        TRY(pull_next_item(p, &more));
        if (!more) return RC_OK;
        if (r->count == HRANA_STEPS_MAX - 3)
            return err_set(p->err, RC_TOO_BIG, "more than %d statements", HRANA_STEPS_MAX - 3);
        TRY(get_statement(p, r));
    }
}

static enum rc get_statement(struct pull *p, struct request *r)
{
    struct span sql = {.type = PULL_NULL}, params = {.type = PULL_NULL};
    enum pull_type type;
    struct pull_text key;
    bool more = true;
    TRY(pull_peek(p, &type));
    if (type == PULL_STRING) {
        TRY(take_span(p, &sql));
    } else {
        TRY(enter(p, PULL_OBJECT));
        while (more) {
            TRY(pull_next_key(p, &more, &key));
            if (more)
                TRY(is(&key, "q")        ? take_span(p, &sql)
                    : is(&key, "params") ? take_span(p, &params)
                                         : pull_skip(p));
        }
    }
    if (sql.type != PULL_STRING)
        return err_set(p->err, RC_INVALID, "statement %zu has no text", r->count + 1);
    TRY(note_sql(p, r, &sql));
    struct buf *b = &r->steps;
    TRY(buf_printf(b, p->err,
                   ",{\"condition\":{\"type\":\"ok\",\"step\":%zu},\"stmt\":{\"sql\":", r->count));
    TRY(buf_append(b, sql.at, sql.size, p->err));
    if (params.type != PULL_NULL) TRY(get_params(p, &params, b));
    r->count++;
    return LIT(b, "}}", p->err);
}

static enum rc note_sql(struct pull *p, struct request *r, const struct span *sql)
{
    struct pull one;
    struct pull_text text;
    pull_init(&one, p->arena, sql->at, sql->size, LEGACY_DEPTH_MAX, p->err);
    TRY(pull_string(&one, &text));
    enum sql_kind kind = sql_kind_of(text.data, text.size);
    if (kind != SQL_KIND_READ) r->writes = true;
    if (kind != SQL_KIND_BEGIN && kind != SQL_KIND_END) return RC_OK;
    return err_set(
        p->err, RC_INVALID,
        "interactive transactions are not possible here: all statements of a request are "
        "one transaction");
}

static enum rc get_params(struct pull *p, const struct span *params, struct buf *out)
{
    struct pull one;
    bool more;
    pull_init(&one, p->arena, params->at, params->size, LEGACY_DEPTH_MAX, p->err);
    if (params->type == PULL_OBJECT) return get_named(&one, out);
    if (params->type != PULL_ARRAY)
        return err_set(p->err, RC_INVALID, "`params` must be an array or an object");
    TRY(LIT(out, ",\"args\":[", p->err));
    TRY(enter(&one, PULL_ARRAY));
    for (bool first = true;; first = false) {
        TRY(pull_next_item(&one, &more));
        if (!more) return LIT(out, "]", p->err);
        if (!first) TRY(LIT(out, ",", p->err));
        TRY(get_value(&one, out));
    }
}

static enum rc get_named(struct pull *p, struct buf *out)
{
    bool more;
    struct pull_text key;
    TRY(LIT(out, ",\"named_args\":[", p->err));
    TRY(enter(p, PULL_OBJECT));
    for (bool first = true;; first = false) {
        TRY(pull_next_key(p, &more, &key));
        if (!more) return LIT(out, "]", p->err);
        for (size_t i = 0; i < key.size; i++)
            if ((unsigned char)key.data[i] < ' ' || key.data[i] == '"' || key.data[i] == '\\')
                return err_set(p->err, RC_INVALID, "a parameter cannot have that name");
        TRY(buf_printf(out, p->err, "%s{\"name\":\"%.*s\",\"value\":", first ? "" : ",",
                       (int)key.size, key.data));
        TRY(get_value(p, out));
        TRY(LIT(out, "}", p->err));
    }
}

static enum rc get_value(struct pull *p, struct buf *out)
{
    struct span v;
    enum pull_type type;
    TRY(pull_peek(p, &type));
    if (type == PULL_NUMBER) return get_number(p, out);
    if (type == PULL_OBJECT) return get_blob(p, out);
    TRY(take_span(p, &v));
    switch (type) {
    case PULL_NULL:
        return LIT(out, "{\"type\":\"null\"}", p->err);
    case PULL_TRUE:
        return LIT(out, "{\"type\":\"integer\",\"value\":\"1\"}", p->err);
    case PULL_FALSE:
        return LIT(out, "{\"type\":\"integer\",\"value\":\"0\"}", p->err);
    case PULL_STRING:
        TRY(LIT(out, "{\"type\":\"text\",\"value\":", p->err));
        TRY(buf_append(out, v.at, v.size, p->err));
        return LIT(out, "}", p->err);
    default:
        return err_set(p->err, RC_INVALID, "a parameter cannot be an array");
    }
}

/* What is no 64-bit integer is a float. */
static enum rc get_number(struct pull *p, struct buf *out)
{
    char copy[32];
    struct pull_text text;
    TRY(pull_number(p, &text));
    bool integer = text.size < sizeof copy;
    for (size_t i = 0; i < text.size && integer; i++)
        integer = strchr(".eE", text.data[i]) == NULL;
    if (integer) {
        memcpy(copy, text.data, text.size);
        copy[text.size] = '\0';
        errno = 0;
        (void)strtoll(copy, NULL, 10);
        integer = errno == 0;
    }
    TRY(integer ? LIT(out, "{\"type\":\"integer\",\"value\":\"", p->err)
                : LIT(out, "{\"type\":\"float\",\"value\":", p->err));
    TRY(buf_append(out, text.data, text.size, p->err));
    return integer ? LIT(out, "\"}", p->err) : LIT(out, "}", p->err);
}

static enum rc get_blob(struct pull *p, struct buf *out)
{
    struct span v = {.type = PULL_NULL};
    struct pull_text key;
    bool more = true;
    TRY(enter(p, PULL_OBJECT));
    while (more) {
        TRY(pull_next_key(p, &more, &key));
        if (more) TRY(is(&key, "base64") ? take_span(p, &v) : pull_skip(p));
    }
    if (v.type != PULL_STRING)
        return err_set(p->err, RC_INVALID, "a parameter that is an object needs `base64`");
    TRY(LIT(out, "{\"type\":\"blob\",\"base64\":", p->err));
    TRY(buf_append(out, v.at, v.size, p->err));
    return LIT(out, "}", p->err);
}

/* One statement is a transaction by itself, and may be one that must not be in any. */
static enum rc make_batch(const struct request *r, struct buf *out, struct err *err)
{
    const char *begin = r->writes ? "BEGIN IMMEDIATE" : "BEGIN DEFERRED";
    TRY(LIT(out, "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[", err));
    if (r->count > 1) {
        TRY(buf_printf(out, err, "{\"stmt\":{\"sql\":\"%s\",\"want_rows\":false}}", begin));
        TRY(buf_append(out, r->steps.data, r->steps.size, err));
        TRY(buf_printf(
            out, err,
            ",{\"condition\":{\"type\":\"ok\",\"step\":%zu},\"stmt\":{\"sql\":\"COMMIT\"}}"
            ",{\"condition\":{\"type\":\"and\",\"conds\":[{\"type\":\"ok\",\"step\":0},"
            "{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":%zu}}]},"
            "\"stmt\":{\"sql\":\"ROLLBACK\"}}",
            r->count, r->count + 1));
    } else if (r->count == 1) {
        static const char condition[] = ",{\"condition\":{\"type\":\"ok\",\"step\":0},";
        TRY(LIT(out, "{", err));
        TRY(buf_append(out, r->steps.data + sizeof condition - 1,
                       r->steps.size - (sizeof condition - 1), err));
    }
    return LIT(out, "]}}]}", err);
}

/* It points into the text. */
static enum rc decode(struct arena *a, const struct buf *text, struct hrana_request *ret,
                      struct err *err)
{
    struct hrana_pipeline pipeline;
    void *copy;
    TRY(arena_take(a, text->size, &copy, err));
    memcpy(copy, text->data, text->size);
    TRY(hrana_json_decoder.pipeline(a, HRANA_3, copy, text->size, &pipeline, err));
    *ret = pipeline.requests[0];
    return RC_OK;
}

/* ---- The answer ---- */

/* Enter an object and go to the value of that name. */
static enum rc find(struct pull *p, const char *name, bool *ret_found)
{
    bool more = true;
    struct pull_text key;
    *ret_found = false;
    TRY(enter(p, PULL_OBJECT));
    while (!*ret_found) {
        TRY(pull_next_key(p, &more, &key));
        if (!more) return RC_OK;
        *ret_found = is(&key, name);
        if (!*ret_found) TRY(pull_skip(p));
    }
    return RC_OK;
}

static enum rc find_steps(struct arena *a, const struct span *result, const char *name,
                          size_t count, struct span *spans, struct err *err)
{
    struct pull p;
    bool ok, more = true;
    pull_init(&p, a, result->at, result->size, HRANA_DEPTH_MAX, err);
    TRY(find(&p, name, &ok));
    for (size_t i = 0; i < count; i++)
        spans[i] = (struct span){.type = PULL_NULL};
    if (!ok) return RC_OK;
    TRY(enter(&p, PULL_ARRAY));
    for (size_t i = 0; i < count; i++) {
        TRY(pull_next_item(&p, &more));
        if (!more) return RC_OK;
        TRY(take_span(&p, &spans[i]));
    }
    return RC_OK;
}

static enum rc put_error(struct arena *a, const struct span *error, struct buf *out,
                         struct err *err)
{
    struct pull p;
    struct span message;
    bool ok;
    pull_init(&p, a, error->at, error->size, HRANA_DEPTH_MAX, err);
    TRY(find(&p, "message", &ok));
    if (!ok) return err_set(err, RC_INVALID, "an error without a message");
    TRY(take_span(&p, &message));
    /* This API has SQLite's text alone. */
    static const char prefix[] = "\"SQLite error: ";
    TRY(LIT(out, "{\"error\":", err));
    if (message.size >= sizeof prefix && memcmp(message.at, prefix, sizeof prefix - 1) == 0) {
        TRY(LIT(out, "\"", err));
        message.at += sizeof prefix - 1;
        message.size -= sizeof prefix - 1;
    }
    TRY(buf_append(out, message.at, message.size, err));
    return LIT(out, "}", err);
}

static enum rc put_result(struct arena *a, const struct span *result, struct buf *out,
                          struct err *err)
{
    struct pull p;
    struct pull_text key;
    struct span v;
    bool more, first = true;
    pull_init(&p, a, result->at, result->size, HRANA_DEPTH_MAX, err);
    TRY(enter(&p, PULL_OBJECT));
    TRY(LIT(out, "{\"results\":{", err));
    for (;;) {
        TRY(pull_next_key(&p, &more, &key));
        if (!more) return LIT(out, "}}", err);
        bool cols = is(&key, "cols"), rows = is(&key, "rows");
        if (!cols && !rows && !is(&key, "rows_read") && !is(&key, "rows_written") &&
            !is(&key, "query_duration_ms")) {
            TRY(pull_skip(&p));
            continue;
        }
        if (cols) key = (struct pull_text){.data = "columns", .size = sizeof "columns" - 1};
        TRY(buf_printf(out, err, "%s\"%.*s\":", first ? "" : ",", (int)key.size, key.data));
        first = false;
        if (cols) {
            TRY(put_columns(&p, out));
        } else if (rows) {
            TRY(put_rows(&p, out));
        } else {
            TRY(take_span(&p, &v));
            TRY(buf_append(out, v.at, v.size, err));
        }
    }
}

static enum rc put_columns(struct pull *p, struct buf *out)
{
    struct span col, name;
    struct pull one;
    bool more, ok;
    TRY(LIT(out, "[", p->err));
    TRY(enter(p, PULL_ARRAY));
    for (bool first = true;; first = false) {
        TRY(pull_next_item(p, &more));
        if (!more) return LIT(out, "]", p->err);
        TRY(take_span(p, &col));
        pull_init(&one, p->arena, col.at, col.size, HRANA_DEPTH_MAX, p->err);
        TRY(find(&one, "name", &ok));
        if (!ok) return err_set(p->err, RC_INVALID, "a column without a name");
        TRY(take_span(&one, &name));
        if (!first) TRY(LIT(out, ",", p->err));
        TRY(buf_append(out, name.at, name.size, p->err));
    }
}

static enum rc put_rows(struct pull *p, struct buf *out)
{
    bool more, more_values;
    TRY(LIT(out, "[", p->err));
    TRY(enter(p, PULL_ARRAY));
    for (bool first = true;; first = false) {
        TRY(pull_next_item(p, &more));
        if (!more) return LIT(out, "]", p->err);
        TRY(first ? LIT(out, "[", p->err) : LIT(out, ",[", p->err));
        TRY(enter(p, PULL_ARRAY));
        for (bool first_value = true;; first_value = false) {
            TRY(pull_next_item(p, &more_values));
            if (!more_values) break;
            if (!first_value) TRY(LIT(out, ",", p->err));
            TRY(put_value(p, out));
        }
        TRY(LIT(out, "]", p->err));
    }
}

/* An integer without its quotes; the others as they are. */
static enum rc put_value(struct pull *p, struct buf *out)
{
    struct span v = {.type = PULL_NULL}, blob = {.type = PULL_NULL};
    struct pull_text key, type = {0};
    bool more = true;
    TRY(enter(p, PULL_OBJECT));
    while (more) {
        TRY(pull_next_key(p, &more, &key));
        if (!more) break;
        if (is(&key, "type"))
            TRY(pull_string(p, &type));
        else if (is(&key, "value"))
            TRY(take_span(p, &v));
        else if (is(&key, "base64"))
            TRY(take_span(p, &blob));
        else
            TRY(pull_skip(p));
    }
    if (blob.type == PULL_STRING) {
        TRY(LIT(out, "{\"base64\":", p->err));
        TRY(buf_append(out, blob.at, blob.size, p->err));
        return LIT(out, "}", p->err);
    }
    if (v.type == PULL_NULL) return LIT(out, "null", p->err);
    if (!is(&type, "integer") || v.type != PULL_STRING)
        return buf_append(out, v.at, v.size, p->err);
    if (!is_integer(v.at + 1, v.size - 2)) return err_set(p->err, RC_INVALID, "not an integer");
    return buf_append(out, v.at + 1, v.size - 2, p->err);
}

/* As JSON has them. */
static bool is_integer(const uint8_t *text, size_t size)
{
    if (size > 0 && text[0] == '-') text++, size--;
    if (size == 0 || (text[0] == '0' && size > 1)) return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return true;
}
