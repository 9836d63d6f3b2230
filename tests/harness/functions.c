/* functions.c -- see functions.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "functions.h"
#include "model.h"

struct context {
    uint64_t seed;
    int log_fd;
    int64_t *noted;
};

static uint64_t hash_bytes(uint64_t h, const void *data, size_t size);
static uint64_t hash_value(uint64_t h, sqlite3_value *v);
static void add(sqlite3 *db, const char *name, int args, struct context *c,
                void (*fn)(sqlite3_context *, int, sqlite3_value **));
static void fn_word(sqlite3_context *out, int count, sqlite3_value **args);
static void fn_content(sqlite3_context *out, int count, sqlite3_value **args);
static void fn_hash_row(sqlite3_context *out, int count, sqlite3_value **args);
static void fn_hash_add(sqlite3_context *out, int count, sqlite3_value **args);
static void fn_hash_sub(sqlite3_context *out, int count, sqlite3_value **args);
static void fn_schema_hash(sqlite3_context *out, int count, sqlite3_value **args);
static void fn_note(sqlite3_context *out, int count, sqlite3_value **args);
static void sum_step(sqlite3_context *out, int count, sqlite3_value **args);
static void sum_final(sqlite3_context *out);

void functions_add(sqlite3 *db, uint64_t seed, int log_fd, int64_t *noted)
{
    struct context *c = malloc(sizeof *c);
    if (c == NULL) die("out of memory");
    *c = (struct context){seed, log_fd, noted};
    add(db, "word", 2, c, fn_word);
    add(db, "content", 3, c, fn_content);
    add(db, "hash_row", -1, c, fn_hash_row);
    add(db, "hash_add", 2, c, fn_hash_add);
    add(db, "hash_sub", 2, c, fn_hash_sub);
    add(db, "schema_hash", 0, c, fn_schema_hash);
    /* The last registration owns the context, so it ends with the connection. */
    if (sqlite3_create_function_v2(db, "note", 3, SQLITE_UTF8, c, fn_note, NULL, NULL, free) ||
        sqlite3_create_function_v2(db, "hash_sum", 1, SQLITE_UTF8, NULL, NULL, sum_step, sum_final,
                                   NULL)) {
        die("register functions: %s", sqlite3_errmsg(db));
    }
}

uint64_t functions_hash_rows(sqlite3 *db)
{
    static const char each[] = "SELECT hash_sum(hash_row(id, seq, slot, k, body)) FROM \"%w\"";
    uint64_t sum = 0;
    char *names[64];
    int count = 0;
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(db,
                           "SELECT name FROM sqlite_schema WHERE type = 'table' AND"
                           " (name IN ('small', 'wide', 'pair') OR name GLOB 'x_*')",
                           -1, &stmt, NULL) != SQLITE_OK) {
        die("list tables: %s", sqlite3_errmsg(db));
    }
    while (sqlite3_step(stmt) == SQLITE_ROW && count < 64) {
        names[count++] = sqlite3_mprintf("%s", sqlite3_column_text(stmt, 0));
    }
    if (sqlite3_finalize(stmt) != SQLITE_OK) die("list tables: %s", sqlite3_errmsg(db));
    for (int i = 0; i < count; i++) {
        sum += (uint64_t)model_query(db, each, names[i]);
        sqlite3_free(names[i]);
    }
    return sum;
}

uint64_t functions_hash_schema(sqlite3 *db)
{
    return (uint64_t)model_query(db, "SELECT hash_sum(hash_row(type, name, tbl_name, sql))"
                                     " FROM sqlite_schema WHERE substr(tbl_name, 1, 1) <> '_'");
}

/* Speed matters more than quality here: every byte of every restored copy passes it. */
static uint64_t hash_bytes(uint64_t h, const void *data, size_t size)
{
    const unsigned char *p = data;
    h ^= size * 0x9e3779b97f4a7c15u;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; size > 0; p++, size--)
        h = (h ^ *p) * 0x100000001b3u;
    return h ^ (h >> 29);
}

static uint64_t hash_value(uint64_t h, sqlite3_value *v)
{
    int type = sqlite3_value_type(v);
    h = (h ^ (uint64_t)type) * 0xc4ceb9fe1a85ec53u;
    if (type == SQLITE_INTEGER) {
        int64_t value = sqlite3_value_int64(v);
        return hash_bytes(h, &value, sizeof value);
    }
    if (type == SQLITE_NULL) return h;
    const void *data = sqlite3_value_blob(v);
    return hash_bytes(h, data, (size_t)sqlite3_value_bytes(v));
}

static void add(sqlite3 *db, const char *name, int args, struct context *c,
                void (*fn)(sqlite3_context *, int, sqlite3_value **))
{
    if (sqlite3_create_function_v2(db, name, args, SQLITE_UTF8, c, fn, NULL, NULL, NULL)) {
        die("register '%s': %s", name, sqlite3_errmsg(db));
    }
}

static void fn_word(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count;
    struct context *c = sqlite3_user_data(out);
    uint64_t part = (uint64_t)sqlite3_value_int64(args[0]) * 1000003u;
    struct rng r = rng_of(c->seed, part + (uint64_t)sqlite3_value_int64(args[1]));
    char text[32];
    int size = snprintf(text, sizeof text, "%c%c-%llu", 'a' + (int)rng_below(&r, 26),
                        'a' + (int)rng_below(&r, 26), (unsigned long long)rng_below(&r, 100000));
    sqlite3_result_text(out, text, size, SQLITE_TRANSIENT);
}

static void fn_content(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count;
    struct context *c = sqlite3_user_data(out);
    int64_t slot = sqlite3_value_int64(args[1]);
    uint64_t part = (uint64_t)sqlite3_value_int64(args[0]) * 1000033u + (uint64_t)slot;
    struct rng r = rng_of(c->seed ^ 0x5bd1e995u, part);
    size_t size = (size_t)sqlite3_value_int(args[2]);
    size_t rounded = (size + 8) & ~(size_t)7;
    unsigned char *data = sqlite3_malloc64(rounded);
    if (data == NULL) {
        sqlite3_result_error_nomem(out);
        return;
    }
    uint64_t word = rng_next(&r);
    for (size_t at = 0; at < rounded; at += 8) {
        if (slot % 3 == 0 || at % 512 == 0) word = rng_next(&r);
        memcpy(data + at, &word, 8);
    }
    sqlite3_result_blob64(out, data, size, sqlite3_free);
}

static void fn_hash_row(sqlite3_context *out, int count, sqlite3_value **args)
{
    uint64_t h = 0x243f6a8885a308d3u;
    for (int i = 0; i < count; i++)
        h = hash_value(h, args[i]);
    sqlite3_result_int64(out, (int64_t)h);
}

static void fn_hash_add(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count;
    uint64_t a = (uint64_t)sqlite3_value_int64(args[0]);
    sqlite3_result_int64(out, (int64_t)(a + (uint64_t)sqlite3_value_int64(args[1])));
}

static void fn_hash_sub(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count;
    uint64_t a = (uint64_t)sqlite3_value_int64(args[0]);
    sqlite3_result_int64(out, (int64_t)(a - (uint64_t)sqlite3_value_int64(args[1])));
}

static void fn_schema_hash(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count, (void)args;
    sqlite3_result_int64(out, (int64_t)functions_hash_schema(sqlite3_context_db_handle(out)));
}

static void fn_note(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count;
    struct context *c = sqlite3_user_data(out);
    char line[96];
    *c->noted = sqlite3_value_int64(args[0]);
    int size = snprintf(line, sizeof line, "C %lld %016llx %016llx\n", (long long)*c->noted,
                        (unsigned long long)sqlite3_value_int64(args[1]),
                        (unsigned long long)sqlite3_value_int64(args[2]));
    if (c->log_fd >= 0 && write(c->log_fd, line, (size_t)size) != size) {
        die("append to the log: %s", strerror(errno));
    }
    sqlite3_result_null(out);
}

static void sum_step(sqlite3_context *out, int count, sqlite3_value **args)
{
    (void)count;
    uint64_t *sum = sqlite3_aggregate_context(out, sizeof *sum);
    if (sum != NULL) *sum += (uint64_t)sqlite3_value_int64(args[0]);
}

static void sum_final(sqlite3_context *out)
{
    uint64_t *sum = sqlite3_aggregate_context(out, 0);
    sqlite3_result_int64(out, sum != NULL ? (int64_t)*sum : 0);
}
