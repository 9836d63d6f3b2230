/* hrana_oracle.h -- a slow second decoder of a pipeline, on jansson's tree, in words of
 * hrana_dump.h. Slow and plain, so that it can be trusted. */
#ifndef TESTS_SERVER_HRANA_ORACLE_H
#define TESTS_SERVER_HRANA_ORACLE_H
#include <jansson.h>
#include "server/hrana_dump.h"

struct oracle {
    uint64_t index; /* of the request at hand */
};

static json_t *oracle_get(const json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    return v == NULL || json_is_null(v) ? NULL : v;
}

static bool oracle_int(const json_t *v, bool is_unsigned, long long min, long long max,
                       long long *ret)
{
    char *end, again[32];
    if (json_is_integer(v)) {
        *ret = json_integer_value(v);
        return *ret >= min && *ret <= max;
    }
    if (!json_is_string(v)) return false;
    const char *s = json_string_value(v), *digits = s + (*s == '-' && !is_unsigned);
    size_t size = json_string_length(v);
    if (*digits == '\0' || strspn(digits, "0123456789") != size - (size_t)(digits - s))
        return false;
    while (*digits == '0' && digits[1] != '\0')
        digits++;
    unsigned long long u = strtoull(digits, &end, 10);
    snprintf(again, sizeof again, "%llu", u);
    if (strcmp(again, digits) != 0) return false; /* saturated */
    if (is_unsigned) {
        *ret = (long long)u;
        return true;
    }
    if (*s == '-' ? u > 1ull << 63 : u > INT64_MAX) return false;
    *ret = (long long)(*s == '-' ? 0 - u : u);
    return *ret >= min && *ret <= max;
}

static bool oracle_index(struct oracle *x, const json_t *o)
{
    const json_t *v = oracle_get(o, "replication_index");
    long long n;
    if (v == NULL) return true;
    if (!oracle_int(v, true, 0, INT64_MAX, &n)) return false;
    if ((uint64_t)n > x->index) x->index = (uint64_t)n;
    return true;
}

static bool oracle_id(const json_t *o, const char *key, long long min, long long max,
                      long long *ret, bool *ret_found)
{
    const json_t *v = oracle_get(o, key);
    *ret = 0;
    *ret_found = v != NULL;
    return v == NULL || oracle_int(v, false, min, max, ret);
}

static bool oracle_base64(struct buf *b, const json_t *v)
{
    static const char *const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                       "0123456789+/-_";
    unsigned bits = 0, count = 0;
    size_t size = json_string_length(v);
    const char *s = json_string_value(v);
    for (int i = 0; i < 2 && size > 0 && s[size - 1] == '='; i++)
        size--;
    if (size % 4 == 1) return false;
    say(b, " B");
    for (size_t i = 0; i < size; i++) {
        const char *at = s[i] == '\0' ? NULL : strchr(letters, s[i]);
        if (at == NULL) return false;
        unsigned n = (unsigned)(at - letters);
        bits = bits << 6 | (n < 64 ? n : n - 2);
        count += 6;
        if (count < 8) continue;
        count -= 8;
        say(b, "%02x", bits >> count & 255);
    }
    return true;
}

static bool oracle_value(struct buf *b, const json_t *v)
{
    const json_t *type = json_object_get(v, "type"), *value = json_object_get(v, "value");
    const json_t *base64 = json_object_get(v, "base64");
    const char *t = json_string_value(type);
    long long n;
    if (!json_is_object(v) || t == NULL || strlen(t) != json_string_length(type)) return false;
    if (json_is_object(value) || json_is_array(value) || json_is_object(base64) ||
        json_is_array(base64))
        return false;
    struct sql_value got = {0};
    if (strcmp(t, "integer") == 0) {
        if (!oracle_int(value, false, INT64_MIN, INT64_MAX, &n)) return false;
        got = (struct sql_value){.type = SQL_INTEGER, .integer = n};
    } else if (strcmp(t, "float") == 0) {
        if (value != NULL && !json_is_null(value) && !json_is_number(value)) return false;
        got = (struct sql_value){.type = SQL_FLOAT, .real = __builtin_nan("")};
        if (json_is_number(value)) got.real = json_number_value(value);
    } else if (strcmp(t, "text") == 0) {
        if (!json_is_string(value)) return false;
        got = (struct sql_value){
            .type = SQL_TEXT, .data = json_string_value(value), .size = json_string_length(value)};
    } else if (strcmp(t, "blob") == 0) {
        return json_is_string(base64) && oracle_base64(b, base64);
    } else if (strcmp(t, "null") != 0) {
        return false;
    }
    dump_value(b, &got);
    return true;
}

static bool oracle_args(struct buf *b, const json_t *list, bool named)
{
    if (list == NULL) return true;
    if (!json_is_array(list)) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (named) {
            const json_t *name = oracle_get(v, "name");
            if (!json_is_string(name)) return false;
            if (strlen(json_string_value(name)) != json_string_length(name)) return false;
            say(b, " %.400s=", json_string_value(name));
            v = json_object_get(v, "value");
        }
        if (!oracle_value(b, v)) return false;
    }
    return true;
}

static bool oracle_stmt(struct oracle *x, struct buf *b, const json_t *s)
{
    const json_t *sql = oracle_get(s, "sql"), *rows = oracle_get(s, "want_rows");
    const json_t *args = oracle_get(s, "args"), *named = oracle_get(s, "named_args");
    long long id;
    bool has_id;
    if (!json_is_object(s) || !oracle_index(x, s)) return false;
    if (!oracle_id(s, "sql_id", INT32_MIN, INT32_MAX, &id, &has_id)) return false;
    if (sql != NULL && !json_is_string(sql)) return false;
    if (rows != NULL && !json_is_boolean(rows)) return false;
    if (has_id == (sql != NULL)) return false;
    struct hrana_sql got = {json_string_value(sql), json_string_length(sql), (int32_t)id};
    say(b, "stmt(");
    dump_sql(b, &got);
    if (json_array_size(args) + json_array_size(named) > 0) say(b, " args");
    if (!oracle_args(b, args, false) || !oracle_args(b, named, true)) return false;
    say(b, json_is_false(rows) ? " norows)" : ")");
    return true;
}

static bool oracle_cond(struct buf *b, const json_t *c, size_t below)
{
    static const char *const names[] = {"", "ok", "error", "not", "and", "or", "is_autocommit"};
    const json_t *type = json_object_get(c, "type"), *list = oracle_get(c, "conds");
    const json_t *one = oracle_get(c, "cond");
    const char *t = json_string_value(type);
    long long step;
    bool has_step, ok = true;
    size_t which = 1;
    if (!json_is_object(c) || t == NULL || strlen(t) != json_string_length(type)) return false;
    if (!oracle_id(c, "step", 0, UINT32_MAX, &step, &has_step)) return false;
    if (list != NULL && !json_is_array(list)) return false;
    while (which < 7 && strcmp(t, names[which]) != 0)
        which++;
    if (which == 7) return false;
    /* Members that do not matter must be right all the same. */
    struct buf unwanted = BUF_INIT;
    if (one != NULL && which != HRANA_COND_NOT) ok = oracle_cond(&unwanted, one, SIZE_MAX);
    if (which != HRANA_COND_AND && which != HRANA_COND_OR)
        for (size_t i = 0; ok && i < json_array_size(list); i++)
            ok = oracle_cond(&unwanted, json_array_get(list, i), SIZE_MAX);
    buf_fini(&unwanted);
    if (!ok) return false;
    say(b, "%s", which == HRANA_COND_AUTOCOMMIT ? "autocommit" : names[which]);
    if (which == HRANA_COND_OK || which == HRANA_COND_ERROR) {
        say(b, " %lld", step);
        return has_step && (unsigned long long)step < below;
    }
    if (which == HRANA_COND_AUTOCOMMIT) return true;
    say(b, "(");
    if (which == HRANA_COND_NOT) {
        ok = one != NULL && oracle_cond(b, one, below);
    } else {
        ok = list != NULL;
        for (size_t i = 0; ok && i < json_array_size(list); i++) {
            if (i > 0) say(b, ", ");
            ok = oracle_cond(b, json_array_get(list, i), below);
        }
    }
    say(b, ")");
    return ok;
}

static bool oracle_batch(struct oracle *x, struct buf *b, const json_t *batch)
{
    const json_t *steps = oracle_get(batch, "steps");
    if (!json_is_object(batch) || !json_is_array(steps) || !oracle_index(x, batch)) return false;
    say(b, "batch(");
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *step = json_array_get(steps, i), *cond = oracle_get(step, "condition");
        if (i > 0) say(b, "; ");
        if (!json_is_object(step)) return false;
        if (cond != NULL) {
            say(b, "if ");
            if (!oracle_cond(b, cond, i)) return false;
            say(b, ": ");
        }
        if (!oracle_stmt(x, b, oracle_get(step, "stmt"))) return false;
    }
    say(b, ")");
    return true;
}

static bool oracle_request(struct buf *out, const json_t *o, enum hrana_version v)
{
    struct oracle x = {0};
    struct hrana_request r = {0};
    const json_t *type = oracle_get(o, "type"), *sql = oracle_get(o, "sql");
    const json_t *stmt = oracle_get(o, "stmt"), *batch = oracle_get(o, "batch");
    struct buf stmt_text = BUF_INIT, batch_text = BUF_INIT;
    long long n[4];
    bool found, ok;
    struct err err;
    struct hrana_seen seen = {.stmt = stmt != NULL, .batch = batch != NULL, .sql = sql != NULL};
    ok = json_is_object(o) && json_is_string(type) && (sql == NULL || json_is_string(sql)) &&
         oracle_id(o, "sql_id", INT32_MIN, INT32_MAX, &n[0], &seen.sql_id) &&
         oracle_id(o, "stream_id", INT32_MIN, INT32_MAX, &n[1], &found) &&
         oracle_id(o, "cursor_id", INT32_MIN, INT32_MAX, &n[2], &found) &&
         oracle_id(o, "max_count", 0, UINT32_MAX, &n[3], &found) && oracle_index(&x, o) &&
         (stmt == NULL || oracle_stmt(&x, &stmt_text, stmt)) &&
         (batch == NULL || oracle_batch(&x, &batch_text, batch)) &&
         hrana_type_of(json_string_value(type), json_string_length(type), &r.type) &&
         hrana_request_check(&r, &seen, v, false, &err) == RC_OK;
    if (ok) {
        say(out, "%s(", hrana_type_name(r.type));
        if (n[1] != 0) say(out, "#%lld ", n[1]);
        if (n[2] != 0) say(out, "%%%lld ", n[2]);
        struct buf *part = r.type == HRANA_EXECUTE ? &stmt_text
                           : r.type == HRANA_BATCH ? &batch_text
                                                   : NULL;
        if (part != NULL && buf_append(out, part->data, part->size, &err) != RC_OK) abort();
        struct hrana_sql got = {json_string_value(sql), json_string_length(sql), (int32_t)n[0]};
        if (r.type == HRANA_SEQUENCE || r.type == HRANA_DESCRIBE) dump_sql(out, &got);
        if (r.type == HRANA_STORE_SQL || r.type == HRANA_CLOSE_SQL) say(out, "id %lld", n[0]);
        if (r.type == HRANA_STORE_SQL) say(out, " ");
        if (r.type == HRANA_STORE_SQL) dump_text(out, got.text, got.size);
        say(out, ")");
        if (x.index != 0) say(out, " @%llu", (unsigned long long)x.index);
    }
    buf_fini(&stmt_text);
    buf_fini(&batch_text);
    return ok;
}

/* 1: accepted, and dumped; 0: refused; -1: jansson has limits of its own, nothing is known. */
__attribute__((unused)) static int oracle_pipeline(struct buf *out, const void *data, size_t size,
                                                   enum hrana_version v)
{
    json_error_t e;
    if (memchr(data, 0, size) != NULL) return 0; /* jansson may overlook one between tokens */
    /* It reads "-0" as the integer 0, whose sign is lost. */
    for (const char *at = data, *end = at + size; (at = memmem(at, (size_t)(end - at), "-0", 2));)
        if ((at += 2) == end || *at != '.') return -1;
    json_t *body = json_loadb(data, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &e);
    if (body == NULL) {
        enum json_error_code code = json_error_code(&e);
        return code == json_error_numeric_overflow || code == json_error_duplicate_key ||
                       code == json_error_stack_overflow
                   ? -1
                   : 0;
    }
    const json_t *baton = oracle_get(body, "baton"), *list = oracle_get(body, "requests");
    bool ok = json_is_object(body) && json_is_array(list) &&
              (baton == NULL || (json_is_string(baton) &&
                                 strlen(json_string_value(baton)) == json_string_length(baton)));
    if (ok) say(out, "baton ");
    if (ok && baton != NULL) dump_text(out, json_string_value(baton), json_string_length(baton));
    for (size_t i = 0; ok && i < json_array_size(list); i++) {
        say(out, "\n");
        ok = oracle_request(out, json_array_get(list, i), v);
    }
    json_decref(body);
    return ok;
}
#endif
