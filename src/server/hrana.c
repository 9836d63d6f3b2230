/* hrana.c -- what holds for Hrana's messages in either encoding. See hrana.h, hrana_intern.h. */
#include "server/hrana_intern.h"
#include <string.h>

/* Where a type may come from, and since which version: 0 never. */
static const struct {
    const char *name;
    uint8_t http, ws;
} types[] = {
    [HRANA_CLOSE] = {"close", 2, 0},
    [HRANA_EXECUTE] = {"execute", 1, 1},
    [HRANA_BATCH] = {"batch", 1, 1},
    [HRANA_SEQUENCE] = {"sequence", 2, 2},
    [HRANA_DESCRIBE] = {"describe", 2, 2},
    [HRANA_STORE_SQL] = {"store_sql", 2, 2},
    [HRANA_CLOSE_SQL] = {"close_sql", 2, 2},
    [HRANA_GET_AUTOCOMMIT] = {"get_autocommit", 2, 2},
    [HRANA_OPEN_STREAM] = {"open_stream", 0, 1},
    [HRANA_CLOSE_STREAM] = {"close_stream", 0, 1},
    [HRANA_OPEN_CURSOR] = {"open_cursor", 0, 3},
    [HRANA_CLOSE_CURSOR] = {"close_cursor", 0, 3},
    [HRANA_FETCH_CURSOR] = {"fetch_cursor", 0, 3},
};
#define ONES       0x0101010101010101u
#define TOPS       0x8080808080808080u
#define TYPE_COUNT (sizeof types / sizeof types[0])

static bool cond_below(const struct hrana_cond *c, size_t step);

const char *hrana_type_name(enum hrana_type type)
{
    return types[type].name;
}

bool hrana_type_of(const char *name, size_t size, enum hrana_type *ret_type)
{
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if (strlen(types[i].name) == size && memcmp(types[i].name, name, size) == 0) {
            *ret_type = (enum hrana_type)i;
            return true;
        }
    return false;
}

enum rc hrana_request_check(const struct hrana_request *r, const struct hrana_seen *seen,
                            enum hrana_version v, bool ws, struct err *err)
{
    const char *name = types[r->type].name;
    unsigned since = ws ? types[r->type].ws : types[r->type].http;
    if (since == 0 || since > (unsigned)v)
        return err_set(err, RC_INVALID, "a request of type '%s' is not part of Hrana %d over %s",
                       name, (int)v, ws ? "WebSocket" : "HTTP");
    switch (r->type) {
    case HRANA_EXECUTE:
        if (!seen->stmt) return err_set(err, RC_INVALID, "'%s' needs a stmt", name);
        return RC_OK;
    case HRANA_BATCH:
    case HRANA_OPEN_CURSOR:
        if (!seen->batch) return err_set(err, RC_INVALID, "'%s' needs a batch", name);
        return RC_OK;
    case HRANA_SEQUENCE:
    case HRANA_DESCRIBE:
        if (hrana_sql_check(seen->sql, seen->sql_id, err) != RC_OK)
            return err_wrap(err, "'%s'", name);
        return RC_OK;
    case HRANA_CLOSE_SQL:
        if (!seen->sql_id) return err_set(err, RC_INVALID, "'%s' needs a sql_id", name);
        return RC_OK;
    case HRANA_STORE_SQL:
        if (!seen->sql) return err_set(err, RC_INVALID, "'%s' needs sql", name);
        return RC_OK;
    default:
        return RC_OK;
    }
}

enum rc hrana_sql_check(bool text, bool id, struct err *err)
{
    if (text && id) return err_set(err, RC_INVALID, "sql and sql_id exclude each other");
    if (!text && !id) return err_set(err, RC_INVALID, "sql or sql_id is missing");
    return RC_OK;
}

enum rc hrana_args_join(struct arena *a, struct hrana_stmt *stmt, const struct sql_arg *args,
                        size_t arg_count, const struct sql_arg *named, size_t named_count,
                        struct err *err)
{
    void *both = NULL;
    if (arg_count + named_count > HRANA_ARGS_MAX)
        return err_set(err, RC_TOO_BIG, "a statement has at most %d arguments", HRANA_ARGS_MAX);
    stmt->arg_count = arg_count + named_count;
    stmt->named_count = named_count;
    stmt->args = named_count == 0 ? args : named;
    if (arg_count == 0 || named_count == 0) return RC_OK;
    TRY(arena_take(a, stmt->arg_count * sizeof *args, &both, err));
    struct sql_arg *joined = both;
    memcpy(joined, args, arg_count * sizeof *args);
    memcpy(joined + arg_count, named, named_count * sizeof *named);
    stmt->args = joined;
    return RC_OK;
}

enum rc hrana_batch_check(const struct hrana_batch *b, struct err *err)
{
    for (size_t i = 0; i < b->count; i++)
        if (!cond_below(&b->steps[i].cond, i))
            return err_set(
                err, RC_INVALID,
                "Invalid reference to step in a batch condition: steps[%zu] may only ask "
                "for steps before it",
                i);
    return RC_OK;
}

static bool cond_below(const struct hrana_cond *c, size_t step)
{
    if (c->type == HRANA_COND_OK || c->type == HRANA_COND_ERROR) return c->step < step;
    for (size_t i = 0; i < c->count; i++)
        if (!cond_below(&c->inner[i], step)) return false;
    return true;
}

/* How many bytes stand for themselves? Eight at a time: a byte below 0x20, a quote, a backslash or
 * one above 0x7f sets its top bit (a false alarm after a true one does no harm). */
size_t hrana_plain(const uint8_t *s, const uint8_t *end)
{
    const uint8_t *at = s;
    while (end - at >= 8) {
        uint64_t v, quote, slash;
        memcpy(&v, at, 8);
        quote = v ^ (ONES * '"');
        slash = v ^ (ONES * '\\');
        uint64_t stop = (v | (v - ONES * 0x20) | (quote - ONES) | (slash - ONES)) & TOPS;
        if (stop != 0) {
            at += (unsigned)__builtin_ctzll(stop) / 8;
            break;
        }
        at += 8;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return (size_t)(at - s);
}

size_t hrana_utf8(const uint8_t *s, size_t size, size_t *ret_bad)
{
    uint8_t c = s[0], low = 0x80, high = 0xbf; /* what the second byte may be */
    *ret_bad = 1;
    if (c < 0x80) return 1;
    if (c < 0xc2 || c > 0xf4) return 0;
    size_t need = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (c == 0xe0) low = 0xa0;  /* shorter forms exist */
    if (c == 0xed) high = 0x9f; /* surrogates */
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f; /* beyond U+10FFFF */
    for (size_t i = 1; i < need; i++) {
        if (i >= size || s[i] < low || s[i] > high) {
            *ret_bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return need;
}
