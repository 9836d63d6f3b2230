/*
 * conn_functions.c -- SQL functions in the place of SQLite's own; see conn_intern.h.
 *
 *   changes(), total_changes()                   of the client, not of the connection
 *   instr(), replace(), trim() and so on         the same answers, to the byte
 *
 * SQLite's instr() and its kind take as long as the product of the sizes of their arguments says,
 * hours for two texts of some MB, all of it in one step of the program, where no progress handler
 * is asked: a thread would be lost, with whoever needs it. These here search in linear time, or ask
 * on their way whether anybody still waits.
 */
#include <ctype.h>
#include <string.h>
#include "base/mem.h"
#include "sql/conn_intern.h"

#define ASK_STEPS 65536 /* characters compared between two questions whether to go on */

struct work {
    struct sql_conn *conn;
    uint32_t steps;
    bool over; /* nobody waits any more */
};
enum sides { SIDE_LEFT = 1, SIDE_RIGHT = 2 };
struct text {
    const uint8_t *data; /* NULL: SQL's NULL, or out of memory */
    size_t size;
};

static void fn_changes(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_total_changes(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_instr(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_replace(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_trim(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_ltrim(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_rtrim(sqlite3_context *ctx, int count, sqlite3_value **values);
static void fn_unhex(sqlite3_context *ctx, int count, sqlite3_value **values);
static int64_t position(struct text in, struct text what, bool chars);
static void trim(sqlite3_context *ctx, sqlite3_value **values, enum sides sides);
static size_t edge(struct work *w, struct text set, struct text t, enum sides side);
static bool contains(struct work *w, struct text set, uint32_t ch);
static bool is_over(struct work *w);
static struct text text_of(sqlite3_value *value);
static bool continues(uint8_t byte);
static size_t char_size(const uint8_t *s, size_t left);
static uint32_t char_next(const uint8_t **s);
static uint8_t digit(uint8_t ch);

int conn_functions(struct sql_conn *c, sqlite3 *db)
{
    static const struct {
        const char *name;
        int args, flags;
        void (*fn)(sqlite3_context *ctx, int count, sqlite3_value **values);
    } list[] = {
        {"changes", 0, 0, fn_changes},
        {"total_changes", 0, 0, fn_total_changes},
        {"instr", 2, SQLITE_DETERMINISTIC, fn_instr},
        {"replace", 3, SQLITE_DETERMINISTIC, fn_replace},
        {"trim", 2, SQLITE_DETERMINISTIC, fn_trim},
        {"ltrim", 2, SQLITE_DETERMINISTIC, fn_ltrim},
        {"rtrim", 2, SQLITE_DETERMINISTIC, fn_rtrim},
        {"unhex", 2, SQLITE_DETERMINISTIC, fn_unhex},
    };
    int code = SQLITE_OK;
    for (size_t i = 0; i < sizeof list / sizeof list[0] && code == SQLITE_OK; i++)
        code = sqlite3_create_function_v2(db, list[i].name, list[i].args,
                                          SQLITE_UTF8 | SQLITE_INNOCUOUS | list[i].flags, c,
                                          list[i].fn, NULL, NULL, NULL);
    return code;
}

/* As SQLite's own, but blind to what was before the unit. Inside of a trigger of the unit's first
 * change a number other than the old one must come from this unit. */
static void fn_changes(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    struct sql_conn *c = sqlite3_user_data(ctx);
    (void)count, (void)values;
    int64_t now = sqlite3_changes64(c->db);
    sqlite3_result_int64(ctx, c->unit_changed || now != c->unit_changes ? now : c->base_changes);
}

static void fn_total_changes(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    struct sql_conn *c = sqlite3_user_data(ctx);
    (void)count, (void)values;
    sqlite3_result_int64(ctx, sqlite3_total_changes64(c->db) - c->unit_total + c->base_total);
}

/* Two blobs: bytes are counted. Anything else is text, whose characters are. */
static void fn_instr(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    int type = sqlite3_value_type(values[0]), what_type = sqlite3_value_type(values[1]);
    struct text in, what;
    (void)count;
    if (type == SQLITE_NULL || what_type == SQLITE_NULL) return;
    if (sqlite3_value_bytes(values[1]) == 0) {
        sqlite3_result_int64(ctx, 1);
        return;
    }
    /* The arguments themselves must not change their type: others may look at them, too. */
    bool mixed = (type == SQLITE_BLOB) != (what_type == SQLITE_BLOB);
    bool blobs = type == SQLITE_BLOB && what_type == SQLITE_BLOB;
    sqlite3_value *a = mixed ? sqlite3_value_dup(values[0]) : NULL;
    sqlite3_value *b = mixed ? sqlite3_value_dup(values[1]) : NULL;
    if (blobs) {
        in = (struct text){sqlite3_value_blob(values[0]), (size_t)sqlite3_value_bytes(values[0])};
        what = (struct text){sqlite3_value_blob(values[1]), (size_t)sqlite3_value_bytes(values[1])};
    } else {
        in = text_of(mixed ? a : values[0]);
        what = text_of(mixed ? b : values[1]);
    }
    if (what.data == NULL || (in.data == NULL && !(blobs && in.size == 0)))
        sqlite3_result_error_nomem(ctx);
    else
        sqlite3_result_int64(ctx, position(in, what, !blobs));
    sqlite3_value_free(a);
    sqlite3_value_free(b);
}

static void fn_replace(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    struct text t = text_of(values[0]), what = text_of(values[1]);
    (void)count;
    if (t.data == NULL || what.data == NULL) return;
    if (what.data[0] == '\0') {
        sqlite3_result_text64(ctx, (const char *)t.data, t.size, SQLITE_TRANSIENT, SQLITE_UTF8);
        return;
    }
    struct text with = text_of(values[2]);
    if (with.data == NULL) return;
    const uint8_t *end = t.data + t.size, *at = t.data, *hit;
    uint64_t hits = 0;
    for (; (hit = memmem(at, (size_t)(end - at), what.data, what.size)) != NULL;
         at = hit + what.size)
        hits++;
    uint64_t size = t.size - hits * what.size + hits * with.size;
    if (size > (uint64_t)sqlite3_limit(sqlite3_context_db_handle(ctx), SQLITE_LIMIT_LENGTH, -1)) {
        sqlite3_result_error_toobig(ctx);
        return;
    }
    uint8_t *out = mem_alloc(size + 1), *to = out;
    if (out == NULL) {
        sqlite3_result_error_nomem(ctx);
        return;
    }
    for (at = t.data; hits > 0; hits--, at = hit + what.size) {
        hit = memmem(at, (size_t)(end - at), what.data, what.size);
        to = mempcpy(to, at, (size_t)(hit - at));
        to = mempcpy(to, with.data, with.size);
    }
    memcpy(to, at, (size_t)(end - at));
    sqlite3_result_text64(ctx, (char *)out, size, mem_free, SQLITE_UTF8);
}

static void fn_trim(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    (void)count;
    trim(ctx, values, SIDE_LEFT | SIDE_RIGHT);
}

static void fn_ltrim(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    (void)count;
    trim(ctx, values, SIDE_LEFT);
}

static void fn_rtrim(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    (void)count;
    trim(ctx, values, SIDE_RIGHT);
}

/* Pairs of digits; between them may stand any of the characters of the second argument. */
static void fn_unhex(sqlite3_context *ctx, int count, sqlite3_value **values)
{
    struct text t = text_of(values[0]), pass = text_of(values[1]);
    struct work w = {.conn = sqlite3_user_data(ctx)};
    (void)count;
    if (t.data == NULL || pass.data == NULL) return;
    uint8_t *out = mem_alloc(t.size / 2 + 1);
    if (out == NULL) {
        sqlite3_result_error_nomem(ctx);
        return;
    }
    bool good = true;
    size_t size = 0;
    for (const uint8_t *s = t.data; good && *s != '\0';) {
        if (!isxdigit(s[0])) {
            good = contains(&w, pass, char_next(&s));
        } else if (!isxdigit(s[1])) {
            good = false;
        } else {
            out[size++] = (uint8_t)(digit(s[0]) << 4 | digit(s[1]));
            s += 2;
        }
    }
    if (good)
        sqlite3_result_blob64(ctx, out, size, mem_free);
    else
        mem_free(out);
    if (w.over) sqlite3_result_error_code(ctx, SQLITE_INTERRUPT);
}

/* From 1; 0: it is not there. */
static int64_t position(struct text in, struct text what, bool chars)
{
    const uint8_t *hit = NULL;
    if (in.size < what.size) return 0;
    if (what.size == 0) /* half a character of UTF-16 became no text: SQLite finds the first NUL */
        hit = in.data + strnlen((const char *)in.data, in.size);
    else if (!chars || !continues(what.data[0]))
        hit = memmem(in.data, in.size, what.data, what.size);
    else if (memcmp(in.data, what.data, what.size) == 0)
        hit = in.data; /* the only place where a match may begin inside of a character */
    if (hit == NULL) return 0;
    int64_t at = 1;
    for (const uint8_t *s = in.data; s < hit; s++)
        if (!chars || !continues(s[1])) at++;
    return at;
}

static void trim(sqlite3_context *ctx, sqlite3_value **values, enum sides sides)
{
    struct text t = text_of(values[0]), set = text_of(values[1]);
    struct work w = {.conn = sqlite3_user_data(ctx)};
    if (t.data == NULL || set.data == NULL) return;
    set.size = strlen((const char *)set.data);
    for (size_t n = 1; (sides & SIDE_LEFT) != 0 && n > 0; t.data += n, t.size -= n)
        n = edge(&w, set, t, SIDE_LEFT);
    for (size_t n = 1; (sides & SIDE_RIGHT) != 0 && n > 0; t.size -= n)
        n = edge(&w, set, t, SIDE_RIGHT);
    if (w.over)
        sqlite3_result_error_code(ctx, SQLITE_INTERRUPT);
    else
        sqlite3_result_text64(ctx, (const char *)t.data, t.size, SQLITE_TRANSIENT, SQLITE_UTF8);
}

/* Bytes of the first character of the set that stands at this side of the text; 0: none does. */
static size_t edge(struct work *w, struct text set, struct text t, enum sides side)
{
    if (t.size == 0) return 0;
    for (size_t n; set.size > 0 && !is_over(w); set.data += n, set.size -= n) {
        n = char_size(set.data, set.size);
        if (n > t.size) continue;
        const uint8_t *there = side == SIDE_LEFT ? t.data : t.data + t.size - n;
        if (memcmp(there, set.data, n) == 0) return n;
    }
    return 0;
}

static bool contains(struct work *w, struct text set, uint32_t ch)
{
    for (const uint8_t *s = set.data; s < set.data + set.size;) {
        if (is_over(w)) return false;
        if (char_next(&s) == ch) return true;
    }
    return false;
}

static bool is_over(struct work *w)
{
    if (++w->steps % ASK_STEPS == 0 && conn_unwanted(w->conn)) w->over = true;
    return w->over;
}

static struct text text_of(sqlite3_value *value)
{
    const uint8_t *data = value != NULL ? sqlite3_value_text(value) : NULL;
    return (struct text){data, data != NULL ? (size_t)sqlite3_value_bytes(value) : 0};
}

/* ---- UTF-8 as SQLite reads it, which is any bytes. SQLite ends every text with a NUL. ---- */

static bool continues(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

static size_t char_size(const uint8_t *s, size_t left)
{
    size_t n = 1;
    while (s[0] >= 0xc0 && n < left && continues(s[n]))
        n++;
    return n;
}

static uint32_t char_next(const uint8_t **s)
{
    uint32_t ch = *(*s)++;
    if (ch < 0xc0) return ch;
    ch &= ch < 0xe0 ? 0x1f : ch < 0xf0 ? 0x0f : ch < 0xf8 ? 0x07 : ch < 0xfc ? 0x03 : ch < 0xfe;
    while (continues(**s))
        ch = ch << 6 | (*(*s)++ & 0x3f);
    bool valid = ch >= 0x80 && (ch & 0xfffff800) != 0xd800 && (ch & 0xfffffffe) != 0xfffe;
    return valid ? ch : 0xfffd;
}

static uint8_t digit(uint8_t ch)
{
    return (uint8_t)(isdigit(ch) ? ch - '0' : (ch | 0x20) - 'a' + 10);
}
