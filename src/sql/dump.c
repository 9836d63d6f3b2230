/* dump.c -- see dump.h. */
#include "sql/dump.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/buf.h"
#include "base/mem.h"
#include "sql/token.h"

#define OUT_SIZE (64u << 10) /* is gathered before it is given on */

enum kind { KIND_TABLE, KIND_INDEX, KIND_VIEW, KIND_TRIGGER };
enum module { MODULE_NONE, MODULE_FTS5, MODULE_FTS5VOCAB, MODULE_RTREE, MODULE_GEOPOLY };
enum content { CONTENT_OWN, CONTENT_OTHER, CONTENT_NONE }; /* of a full text index */

struct item { /* of the schema */
    enum kind kind;
    enum module module;
    enum content content;
    bool without_rowid;
    char *name, *sql; /* sql: in the same block of memory */
    size_t sql_size;
};
struct dump {
    struct sql_conn *conn;
    const struct call *call;
    const struct sql_dump_opts *opts;
    sql_dump_fn *fn;
    void *ctx;
    struct buf out;
    struct item *items;
    size_t count, cap;
    bool has_stat1, has_sequence;
    size_t found; /* tables and views, when only one is wanted */
};
struct shape { /* of a table: what its rows are read and written with */
    struct dump *d;
    const struct item *item;
    struct buf names; /* "a","b": the columns that can be written */
    size_t key_columns;
    bool more;        /* it has others */
    bool integer_key; /* of a column that is the key: its declared type */
    bool taken[3];    /* a column has this alias of rowid as its name */
};
typedef enum rc row_fn(void *ctx, const struct sql_value *values, size_t count, struct err *err);
struct rows { /* ctx of one statement that goes to the text */
    struct dump *d;
    const char *prefix;
    size_t prefix_size;
};

static const char *const rowid_names[] = {"rowid", "_rowid_", "oid"};

static enum rc dump_all(struct dump *d, struct err *err);
static enum rc load_items(struct dump *d, struct err *err);
static enum rc add_item(void *ctx, const struct sql_value *v, size_t count, struct err *err);
static bool wanted(struct dump *d, enum kind kind, const struct sql_value *v);
static enum rc classify(struct dump *d, struct item *item, struct err *err);
static enum content content_of(const char *at, const char *end);
static enum rc put_head(struct dump *d, struct err *err);
static enum rc put_pragma(struct dump *d, const char *name, struct err *err);
static enum rc put_table(struct dump *d, const struct item *item, struct err *err);
static enum rc put_config(struct dump *d, const struct item *item, struct err *err);
static enum rc put_rows(struct dump *d, const struct item *item, struct err *err);
static enum rc load_shape(struct shape *s, struct err *err);
static enum rc add_column(void *ctx, const struct sql_value *v, size_t count, struct err *err);
static enum rc has_hidden_rowid(struct shape *s, bool *ret, struct err *err);
static enum rc set_flag(void *ctx, const struct sql_value *v, size_t count, struct err *err);
static enum rc put_row(void *ctx, const struct sql_value *v, size_t count, struct err *err);
static enum rc put_sequence(struct dump *d, struct err *err);
static enum rc put_stat1(struct dump *d, struct err *err);
static enum rc put_query(struct dump *d, const char *sql, const struct sql_value *arg,
                         const char *prefix, struct err *err);
static enum rc put_kind(struct dump *d, enum kind kind, struct err *err);
static enum rc put_schema(struct dump *d, const struct item *item, struct err *err);
static enum rc put_rebuilds(struct dump *d, struct err *err);
static enum rc put_missing(struct dump *d, const struct item *item, struct err *err);
static enum rc put_value(struct dump *d, const struct sql_value *v, struct err *err);
static enum rc put_real(struct dump *d, double real, struct err *err);
static enum rc put_text(struct dump *d, const char *text, size_t size, struct err *err);
static enum rc put_hex(struct dump *d, const uint8_t *data, size_t size, struct err *err);
static enum rc put(struct dump *d, const void *data, size_t size, struct err *err);
static enum rc puts_(struct dump *d, const char *text, struct err *err);
static enum rc flush(struct dump *d, struct err *err);
static enum rc run(struct dump *d, const char *sql, const struct sql_value *arg, row_fn *fn,
                   void *ctx, struct err *err);
static struct sql_value text_value(const char *text);
static enum rc no_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err);
static enum rc append_name(struct buf *b, const char *name, size_t size, struct err *err);
static bool plain(const char *text, size_t size);
static bool value_is(const struct sql_value *v, const char *text);

enum rc sql_dump(struct sql_conn *conn, const struct call *call, const struct sql_dump_opts *opts,
                 sql_dump_fn *fn, void *ctx, struct err *err)
{
    struct dump d = {.conn = conn, .call = call, .opts = opts, .fn = fn, .ctx = ctx};
    bool own = sql_conn_autocommit(conn);
    enum rc rc = buf_reserve(&d.out, OUT_SIZE, err);
    if (rc == RC_OK && own) rc = sql_conn_begin(conn, false, err);
    if (rc == RC_OK) {
        rc = dump_all(&d, err);
        if (own) sql_conn_rollback(conn);
    }
    for (size_t i = 0; i < d.count; i++)
        mem_free(d.items[i].name);
    mem_free(d.items);
    buf_fini(&d.out);
    return rc;
}

static enum rc dump_all(struct dump *d, struct err *err)
{
    TRY(load_items(d, err));
    if (d->opts->table != NULL && d->found == 0)
        return err_set(err, RC_NOT_FOUND, "no table '%s'", d->opts->table);
    TRY(put_head(d, err));
    for (size_t i = 0; i < d->count; i++)
        if (d->items[i].kind == KIND_TABLE && put_table(d, &d->items[i], err) != RC_OK)
            return err_wrap(err, "dump '%s'", d->items[i].name);
    TRY(put_sequence(d, err));
    TRY(put_kind(d, KIND_INDEX, err));
    TRY(put_stat1(d, err));
    TRY(put_kind(d, KIND_VIEW, err));
    TRY(put_rebuilds(d, err)); /* what they read may be a view */
    TRY(put_kind(d, KIND_TRIGGER, err));
    TRY(puts_(d, "COMMIT;\n", err));
    return flush(d, err);
}

/* ---- The schema ---- */

static enum rc load_items(struct dump *d, struct err *err)
{
    return run(d,
               "WITH l AS MATERIALIZED"
               " (SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main')"
               "SELECT s.type, s.name, s.tbl_name, s.sql, l.type, l.wr"
               " FROM main.sqlite_schema AS s"
               " LEFT JOIN l ON l.name = s.name AND s.type IN ('table', 'view')"
               " WHERE s.sql IS NOT NULL ORDER BY s.rowid",
               NULL, add_item, d, err);
}

static enum rc add_item(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct dump *d = ctx;
    struct item item = {.kind = value_is(&v[0], "table")   ? KIND_TABLE
                                : value_is(&v[0], "index") ? KIND_INDEX
                                : value_is(&v[0], "view")  ? KIND_VIEW
                                                           : KIND_TRIGGER};
    (void)count;
    if (value_is(&v[1], "sqlite_stat1")) d->has_stat1 = true;
    if (value_is(&v[1], "sqlite_sequence")) d->has_sequence = true;
    bool system = v[1].size >= 7 && strncasecmp(v[1].data, "sqlite_", 7) == 0;
    if (system || value_is(&v[4], "shadow") || !wanted(d, item.kind, v)) return RC_OK;
    if (d->count == d->cap) {
        size_t cap = d->cap > 0 ? d->cap * 2 : 64;
        struct item *grown = mem_realloc(d->items, cap * sizeof *grown);
        if (grown == NULL) return err_mem(err, "a schema");
        d->items = grown;
        d->cap = cap;
    }
    item.name = mem_alloc(v[1].size + v[3].size + 2);
    if (item.name == NULL) return err_mem(err, "a schema");
    memcpy(item.name, v[1].data, v[1].size);
    item.name[v[1].size] = '\0';
    item.sql = item.name + v[1].size + 1;
    item.sql_size = v[3].size;
    memcpy(item.sql, v[3].data, v[3].size);
    item.sql[v[3].size] = '\0';
    item.without_rowid = v[5].integer != 0;
    d->items[d->count++] = item;
    if (!value_is(&v[4], "virtual")) return RC_OK;
    return classify(d, &d->items[d->count - 1], err);
}

static bool wanted(struct dump *d, enum kind kind, const struct sql_value *v)
{
    const char *table = d->opts->table;
    const struct sql_value *name = kind == KIND_TABLE || kind == KIND_VIEW ? &v[1] : &v[2];
    if (table == NULL) return true;
    if (name->size != strlen(table) || strncasecmp(name->data, table, name->size) != 0)
        return false;
    d->found += name == &v[1];
    return true;
}

/* CREATE VIRTUAL TABLE name USING module(arguments) */
static enum rc classify(struct dump *d, struct item *item, struct err *err)
{
    static const struct {
        const char *name;
        enum module module;
    } modules[] = {{"fts5", MODULE_FTS5},
                   {"fts5vocab", MODULE_FTS5VOCAB},
                   {"rtree", MODULE_RTREE},
                   {"rtree_i32", MODULE_RTREE},
                   {"geopoly", MODULE_GEOPOLY}};
    const char *at = item->sql, *end = item->sql + item->sql_size;
    struct sql_token t = sql_token_next(&at, end);
    (void)d;
    while (t.type != SQL_TOKEN_END && !sql_token_is(&t, "USING"))
        t = sql_token_next(&at, end);
    t = sql_token_next(&at, end);
    if (t.type == SQL_TOKEN_QUOTED && t.size >= 2) t.type = SQL_TOKEN_WORD, t.text++, t.size -= 2;
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++)
        if (sql_token_is(&t, modules[i].name)) item->module = modules[i].module;
    if (item->module == MODULE_NONE)
        return err_set(err, RC_UNSUPPORTED, "dump '%s': its module '%.*s' is not in this build",
                       item->name, (int)t.size, t.text);
    if (item->module == MODULE_FTS5) item->content = content_of(at, end);
    return RC_OK;
}

/* The arguments are separated by commas; one of them may be content=name or content=''. */
static enum content content_of(const char *at, const char *end)
{
    bool first = true;
    for (struct sql_token t = sql_token_next(&at, end); t.type != SQL_TOKEN_END;
         t = sql_token_next(&at, end)) {
        bool begins = first;
        first = t.type == SQL_TOKEN_OTHER && (*t.text == ',' || *t.text == '(');
        if (!begins || !sql_token_is(&t, "content")) continue;
        t = sql_token_next(&at, end);
        if (t.type != SQL_TOKEN_OTHER || *t.text != '=') continue;
        t = sql_token_next(&at, end);
        bool empty = t.type == SQL_TOKEN_QUOTED ? t.size == 2 : t.type != SQL_TOKEN_WORD;
        return empty ? CONTENT_NONE : CONTENT_OTHER;
    }
    return CONTENT_OWN;
}

/* ---- The text, from top to bottom ---- */

static enum rc put_head(struct dump *d, struct err *err)
{
    TRY(puts_(d, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", err));
    if (d->opts->table != NULL || d->opts->data_only) return RC_OK;
    TRY(put_pragma(d, "application_id", err));
    return put_pragma(d, "user_version", err);
}

static enum rc take_number(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    int64_t *number = ctx;
    (void)err;
    if (count > 0) *number = v[0].integer;
    return RC_OK;
}

static enum rc put_pragma(struct dump *d, const char *name, struct err *err)
{
    char text[64];
    int64_t number = 0;
    snprintf(text, sizeof text, "PRAGMA %s", name);
    TRY(run(d, text, NULL, take_number, &number, err));
    if (number == 0) return RC_OK;
    snprintf(text, sizeof text, "PRAGMA %s=%lld;\n", name, (long long)number);
    return puts_(d, text, err);
}

static enum rc put_table(struct dump *d, const struct item *item, struct err *err)
{
    if (!d->opts->data_only) TRY(put_schema(d, item, err));
    switch (item->module) {
    case MODULE_FTS5:
        if (!d->opts->data_only) TRY(put_config(d, item, err));
        if (item->content == CONTENT_NONE) return put_missing(d, item, err);
        return item->content == CONTENT_OWN ? put_rows(d, item, err) : RC_OK;
    case MODULE_FTS5VOCAB: /* a view of an index */
        return RC_OK;
    default:
        return put_rows(d, item, err);
    }
}

/* A full text index has settings, which are rows of a special kind. */
static enum rc put_config(struct dump *d, const struct item *item, struct err *err)
{
    CLEANUP(buf_fini) struct buf sql = BUF_INIT, prefix = BUF_INIT;
    CLEANUP(mem_freep) char *config = mem_printf("%s_config", item->name);
    if (config == NULL) return err_mem(err, "a name");
    TRY(buf_printf(&sql, err, "SELECT k, v FROM main."));
    TRY(append_name(&sql, config, strlen(config), err));
    TRY(buf_printf(&sql, err, " WHERE k <> 'version' ORDER BY k%c", '\0'));
    TRY(buf_printf(&prefix, err, "INSERT INTO "));
    TRY(append_name(&prefix, item->name, strlen(item->name), err));
    TRY(buf_append(&prefix, "(", 1, err));
    TRY(append_name(&prefix, item->name, strlen(item->name), err));
    TRY(buf_printf(&prefix, err, ",rank) VALUES(%c", '\0'));
    return put_query(d, (const char *)sql.data, NULL, (const char *)prefix.data, err);
}

static enum rc put_rows(struct dump *d, const struct item *item, struct err *err)
{
    CLEANUP(buf_fini) struct buf sql = BUF_INIT, prefix = BUF_INIT, names = BUF_INIT;
    struct shape s = {.d = d, .item = item};
    size_t alias = 0;
    bool with = false;
    enum rc rc = load_shape(&s, err);
    if (rc == RC_OK) rc = has_hidden_rowid(&s, &with, err);
    names = s.names; /* freed here, whatever comes */
    TRY(rc);
    while (alias < 3 && s.taken[alias])
        alias++;
    bool has_rowid = !item->without_rowid && alias < 3;
    const char *rowid = has_rowid ? rowid_names[alias] : "";
    with = with && has_rowid;
    const char *columns = (const char *)names.data;
    TRY(buf_printf(&sql, err, "SELECT %s%s%s FROM main.", with ? rowid : "", with ? "," : "",
                   columns));
    TRY(append_name(&sql, item->name, strlen(item->name), err));
    /* An index that has all columns would give the rows in another order. */
    if (item->module == MODULE_NONE) TRY(buf_printf(&sql, err, " NOT INDEXED"));
    if (has_rowid && item->module != MODULE_RTREE)
        TRY(buf_printf(&sql, err, " ORDER BY %s", rowid));
    TRY(buf_append(&sql, "", 1, err));
    TRY(buf_printf(&prefix, err, "INSERT INTO "));
    TRY(append_name(&prefix, item->name, strlen(item->name), err));
    if (with || s.more)
        TRY(buf_printf(&prefix, err, "(%s%s%s)", with ? rowid : "", with ? "," : "", columns));
    TRY(buf_printf(&prefix, err, " VALUES(%c", '\0'));
    return put_query(d, (const char *)sql.data, NULL, (const char *)prefix.data, err);
}

static enum rc load_shape(struct shape *s, struct err *err)
{
    struct sql_value name = text_value(s->item->name);
    TRY(run(s->d,
            "SELECT name, hidden, pk, upper(type) = 'INTEGER' FROM pragma_table_xinfo(?1, 'main')"
            " ORDER BY cid",
            &name, add_column, s, err));
    if (s->names.size == 0)
        return err_set(err, RC_CORRUPT, "table '%s' has no columns", s->item->name);
    return buf_append(&s->names, "", 1, err);
}

static enum rc add_column(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct shape *s = ctx;
    (void)count;
    for (size_t i = 0; i < 3; i++)
        if (value_is(&v[0], rowid_names[i])) s->taken[i] = true;
    if (v[2].integer > 0) {
        s->key_columns++;
        s->integer_key = v[3].integer != 0;
    }
    if (v[1].integer != 0) { /* generated, or an argument of a virtual table */
        s->more = true;
        return RC_OK;
    }
    if (s->names.size > 0) TRY(buf_append(&s->names, ",", 1, err));
    return append_name(&s->names, v[0].data, v[0].size, err);
}

/* Must rows be written with a rowid that none of their columns is? INTEGER PRIMARY KEY is one,
 * unless it says DESC: then it has an index of its own. */
static enum rc has_hidden_rowid(struct shape *s, bool *ret, struct err *err)
{
    bool indexed = false;
    enum module m = s->item->module;
    struct sql_value name = text_value(s->item->name);
    *ret = m == MODULE_FTS5 || m == MODULE_GEOPOLY;
    if (m != MODULE_NONE || !s->d->opts->preserve_row_ids) return RC_OK;
    if (s->key_columns == 1 && s->integer_key)
        TRY(run(s->d, "SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'", &name,
                set_flag, &indexed, err));
    *ret = s->key_columns != 1 || !s->integer_key || indexed;
    return RC_OK;
}

static enum rc set_flag(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    bool *flag = ctx;
    (void)v, (void)count, (void)err;
    *flag = true;
    return RC_OK;
}

/* Without an AUTOINCREMENT table the other side has no sqlite_sequence. */
static enum rc put_sequence(struct dump *d, struct err *err)
{
    bool any = false;
    struct sql_value table = text_value(d->opts->table);
    for (size_t i = 0; i < d->count && d->has_sequence; i++)
        any = any || (d->items[i].kind == KIND_TABLE &&
                      strcasestr(d->items[i].sql, "autoincrement") != NULL);
    if (!any) return RC_OK;
    if (d->opts->table != NULL) {
        TRY(puts_(d, "DELETE FROM sqlite_sequence WHERE name=", err));
        TRY(put_text(d, d->items[0].name, strlen(d->items[0].name), err));
        TRY(puts_(d, ";\n", err));
    } else {
        TRY(puts_(d, "DELETE FROM sqlite_sequence;\n", err));
    }
    return put_query(d,
                     "SELECT name, seq FROM main.sqlite_sequence WHERE ?1 IS NULL OR "
                     "name = ?1 COLLATE NOCASE ORDER BY rowid",
                     &table, "INSERT INTO sqlite_sequence VALUES(", err);
}

/* ANALYZE of what has no statistics makes the table of statistics, and nothing else. */
static enum rc put_stat1(struct dump *d, struct err *err)
{
    struct sql_value table = text_value(d->opts->table);
    if (!d->has_stat1 || d->opts->data_only) return RC_OK;
    TRY(puts_(d, "ANALYZE sqlite_schema;\n", err));
    return put_query(d,
                     "SELECT tbl, idx, stat FROM main.sqlite_stat1 WHERE ?1 IS NULL OR "
                     "tbl = ?1 COLLATE NOCASE ORDER BY rowid",
                     &table, "INSERT INTO sqlite_stat1 VALUES(", err);
}

static enum rc put_kind(struct dump *d, enum kind kind, struct err *err)
{
    for (size_t i = 0; i < d->count && !d->opts->data_only; i++)
        if (d->items[i].kind == kind) TRY(put_schema(d, &d->items[i], err));
    return RC_OK;
}

static enum rc put_schema(struct dump *d, const struct item *item, struct err *err)
{
    TRY(put(d, item->sql, item->sql_size, err));
    TRY(puts_(d, sql_text_end(item->sql, item->sql_size), err));
    return puts_(d, "\n", err);
}

static enum rc put_rebuilds(struct dump *d, struct err *err)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct item *item = &d->items[i];
        CLEANUP(buf_fini) struct buf b = BUF_INIT;
        if (item->module != MODULE_FTS5 || item->content != CONTENT_OTHER) continue;
        TRY(buf_printf(&b, err, "INSERT INTO "));
        TRY(append_name(&b, item->name, strlen(item->name), err));
        TRY(buf_append(&b, "(", 1, err));
        TRY(append_name(&b, item->name, strlen(item->name), err));
        TRY(buf_printf(&b, err, ") VALUES('rebuild');\n"));
        TRY(put(d, b.data, b.size, err));
    }
    return RC_OK;
}

static enum rc put_missing(struct dump *d, const struct item *item, struct err *err)
{
    char text[256];
    snprintf(text, sizeof text,
             "The full text index '%.100s' keeps no content, so what was indexed is not in the "
             "dump: it comes back empty.",
             item->name);
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
    if (d->opts->note != NULL) d->opts->note(d->opts->note_ctx, text);
    TRY(puts_(d, "-- ", err));
    TRY(puts_(d, text, err));
    return puts_(d, "\n", err);
}

/* ---- Rows and values ---- */

static enum rc put_query(struct dump *d, const char *sql, const struct sql_value *arg,
                         const char *prefix, struct err *err)
{
    struct rows r = {.d = d, .prefix = prefix, .prefix_size = strlen(prefix)};
    return run(d, sql, arg, put_row, &r, err);
}

static enum rc put_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct rows *r = ctx;
    TRY(put(r->d, r->prefix, r->prefix_size, err));
    for (size_t i = 0; i < count; i++) {
        if (i > 0) TRY(put(r->d, ",", 1, err));
        TRY(put_value(r->d, &v[i], err));
    }
    return put(r->d, ");\n", 3, err);
}

static enum rc put_value(struct dump *d, const struct sql_value *v, struct err *err)
{
    char number[32];
    switch (v->type) {
    case SQL_NULL:
        return put(d, "NULL", 4, err);
    case SQL_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)v->integer);
        return puts_(d, number, err);
    case SQL_FLOAT:
        return put_real(d, v->real, err);
    case SQL_TEXT:
        return put_text(d, v->data, v->size, err);
    default:
        return put_hex(d, v->data, v->size, err);
    }
}

/* 15 digits where they are enough: 0.1 reads better than 0.10000000000000001. */
static enum rc put_real(struct dump *d, double real, struct err *err)
{
    char number[40];
    if (isinf(real)) return puts_(d, real > 0 ? "9.0e+999" : "-9.0e+999", err);
    snprintf(number, sizeof number, "%.15g", real);
    if (strtod(number, NULL) != real) snprintf(number, sizeof number, "%.17g", real);
    TRY(puts_(d, number, err));
    return strpbrk(number, ".e") == NULL ? puts_(d, ".0", err) : RC_OK;
}

static enum rc put_text(struct dump *d, const char *text, size_t size, struct err *err)
{
    if (!plain(text, size)) {
        TRY(puts_(d, "CAST(", err));
        TRY(put_hex(d, (const uint8_t *)text, size, err));
        return puts_(d, " AS TEXT)", err);
    }
    TRY(put(d, "'", 1, err));
    for (const char *quote; (quote = memchr(text, '\'', size)) != NULL;) {
        size_t n = (size_t)(quote - text) + 1;
        TRY(put(d, text, n, err));
        TRY(put(d, "'", 1, err));
        text += n;
        size -= n;
    }
    TRY(put(d, text, size, err));
    return put(d, "'", 1, err);
}

static enum rc put_hex(struct dump *d, const uint8_t *data, size_t size, struct err *err)
{
    static const char digits[] = "0123456789abcdef";
    char piece[1024];
    TRY(put(d, "X'", 2, err));
    while (size > 0) {
        size_t n = size < sizeof piece / 2 ? size : sizeof piece / 2;
        for (size_t i = 0; i < n; i++) {
            piece[2 * i] = digits[data[i] >> 4];
            piece[2 * i + 1] = digits[data[i] & 15];
        }
        TRY(put(d, piece, 2 * n, err));
        data += n;
        size -= n;
    }
    return put(d, "'", 1, err);
}

static enum rc put(struct dump *d, const void *data, size_t size, struct err *err)
{
    if (d->out.size + size > OUT_SIZE) TRY(flush(d, err));
    if (size > OUT_SIZE) return d->fn(d->ctx, data, size, err);
    return buf_append(&d->out, data, size, err);
}

static enum rc puts_(struct dump *d, const char *text, struct err *err)
{
    return put(d, text, strlen(text), err);
}

static enum rc flush(struct dump *d, struct err *err)
{
    if (d->out.size == 0) return RC_OK;
    TRY(call_check(d->call, err));
    enum rc rc = d->fn(d->ctx, d->out.data, d->out.size, err);
    buf_reset(&d->out);
    return rc;
}

/* arg: the value of ?1; NULL: the statement has none. */
static enum rc run(struct dump *d, const char *sql, const struct sql_value *arg, row_fn *fn,
                   void *ctx, struct err *err)
{
    struct sql_arg arg1 = {0};
    struct sql_sink sink = {.cols = no_cols, .row = fn, .ctx = ctx};
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .args = &arg1, .want_rows = true};
    struct sql_done done;
    struct sql_error ignored; /* err says the same */
    if (arg != NULL) arg1.value = *arg;
    stmt.arg_count = arg != NULL;
    return sql_conn_run(d->conn, d->call, NULL, &stmt, &sink, &done, &ignored, err);
}

static struct sql_value text_value(const char *text)
{
    if (text == NULL) return (struct sql_value){.type = SQL_NULL};
    return (struct sql_value){.type = SQL_TEXT, .data = text, .size = strlen(text)};
}

static enum rc no_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc append_name(struct buf *b, const char *name, size_t size, struct err *err)
{
    TRY(buf_append(b, "\"", 1, err));
    for (size_t i = 0; i < size; i++) {
        TRY(buf_append(b, &name[i], 1, err));
        if (name[i] == '"') TRY(buf_append(b, "\"", 1, err));
    }
    return buf_append(b, "\"", 1, err);
}

/* May it stand in quotes, and come unharmed through what moves texts line by line? */
static bool plain(const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t n = sql_char_size(text + at, size - at);
        if (n == 0 || text[at] == '\0' || text[at] == '\r') return false;
        at += n;
    }
    return true;
}

static bool value_is(const struct sql_value *v, const char *text)
{
    return v->type == SQL_TEXT && v->size == strlen(text) &&
           strncasecmp(v->data, text, v->size) == 0;
}
