/*
 * shell_import.c -- CSV into a table; see shell.h.
 *
 * RFC 4180: fields are separated by commas, records by line feeds with or without a carriage
 * return; a field in quotes may hold all of these, and quotes that are written twice. The first
 * record names the columns. An empty field is NULL, "" is the empty text.
 */
#include "cli/shell.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"

#define RECORD_MAX  (64u << 20)
#define FIELDS_MAX  2000
#define BATCH_ROWS  250
#define BATCH_BYTES (1u << 20)

struct field { /* of a record: its text is in csv.text */
    size_t off, size;
    bool quoted;
};
struct csv {
    const char *path;
    int fd;
    uint64_t off;
    uint8_t *buf;
    size_t at, size;
    bool at_end;
    bool single;                /* one column: a line with nothing on it is a NULL */
    uint64_t line, record_line; /* from 1 */
    struct buf text, fields;    /* of the record, or of a batch of them */
};
struct import {
    struct shell *s;
    const char *table;
    struct csv csv;
    struct buf names; /* of the columns, each ended by NUL */
    size_t cols;
    struct buf insert;
    uint64_t rows;
};
enum guess { GUESS_NONE, GUESS_INTEGER, GUESS_REAL, GUESS_TEXT };

static enum rc csv_open(struct csv *c, const char *path, struct err *err);
static void csv_close(struct csv *c);
static enum rc csv_rewind(struct csv *c, struct err *err);
static enum rc csv_record(struct csv *c, bool *ret_any, struct err *err);
static enum rc csv_field(struct csv *c, int *ret_end, struct err *err);
static enum rc csv_quoted(struct csv *c, struct err *err);
static enum rc csv_byte(struct csv *c, int *ret_ch, struct err *err);
static enum rc csv_put(struct csv *c, int ch, struct err *err);
static enum rc read_names(struct import *i, struct err *err);
static enum rc inside(struct import *i, struct err *err);
static enum rc make_table(struct import *i, struct err *err);
static enum rc guess_types(struct import *i, uint8_t *guesses, struct err *err);
static enum guess guess_field(const char *text, size_t size);
static enum rc insert_all(struct import *i, struct err *err);
static enum rc insert_batch(struct import *i, const uint64_t *lines, size_t rows, struct err *err);
static enum rc append_columns(struct import *i, struct buf *b, const uint8_t *guesses,
                              struct err *err);
static enum rc run(struct import *i, const char *sql, struct err *err);
static enum rc table_exists(struct import *i, bool *ret, struct err *err);

enum rc shell_import(struct shell *s, const char *path, const char *table, struct err *err)
{
    struct import i = {.s = s, .table = table};
    struct err ignored;
    enum rc rc = csv_open(&i.csv, path, err);
    if (rc == RC_OK) rc = read_names(&i, err);
    /* Inside of the user's transaction it is a part of it. */
    bool own = rc == RC_OK && s->db->ops->autocommit(s->db);
    bool open = false;
    if (rc == RC_OK) {
        rc = run(&i, own ? "BEGIN IMMEDIATE" : "SAVEPOINT sluice_import", err);
        open = rc == RC_OK;
    }
    if (rc == RC_OK) rc = inside(&i, err);
    if (rc == RC_OK) rc = run(&i, own ? "COMMIT" : "RELEASE sluice_import", err);
    /* A statement that is canceled must not cancel the way back, too. */
    if (rc != RC_OK && open && !s->db->ops->autocommit(s->db)) {
        struct call call = s->call;
        s->call.cancel = NULL;
        if (run(&i, own ? "ROLLBACK" : "ROLLBACK TO sluice_import", &ignored) == RC_OK && !own &&
            run(&i, "RELEASE sluice_import", &ignored) != RC_OK)
            rc = err_wrap(err, "the transaction is still open");
        s->call = call;
    }
    if (rc == RC_OK && s->out.counts)
        fprintf(s->out.file, "%llu row%s imported\n", (unsigned long long)i.rows,
                i.rows == 1 ? "" : "s");
    buf_fini(&i.names);
    buf_fini(&i.insert);
    csv_close(&i.csv);
    return rc;
}

enum rc shell_name_append(struct buf *b, const char *name, size_t size, struct err *err)
{
    TRY(buf_append(b, "\"", 1, err));
    for (size_t i = 0; i < size; i++) {
        TRY(buf_append(b, &name[i], 1, err));
        if (name[i] == '"') TRY(buf_append(b, "\"", 1, err));
    }
    return buf_append(b, "\"", 1, err);
}

/* ---- The table ---- */

static enum rc read_names(struct import *i, struct err *err)
{
    bool any = false;
    TRY(csv_record(&i->csv, &any, err));
    const struct field *f = (const struct field *)(void *)i->csv.fields.data;
    i->cols = i->csv.fields.size / sizeof *f;
    if (!any) return err_set(err, RC_INVALID, "'%s' is empty: no names of columns", i->csv.path);
    for (size_t k = 0; k < i->cols; k++) {
        const char *text = (const char *)i->csv.text.data + f[k].off;
        if (f[k].size == 0 || memchr(text, '\0', f[k].size) != NULL)
            return err_set(err, RC_INVALID, "'%s': the first line gives column %zu no name",
                           i->csv.path, k + 1);
        TRY(buf_append(&i->names, text, f[k].size, err));
        TRY(buf_append(&i->names, "", 1, err));
    }
    i->csv.single = i->cols == 1;
    return RC_OK;
}

static enum rc inside(struct import *i, struct err *err)
{
    bool exists = false;
    TRY(table_exists(i, &exists, err));
    if (!exists) TRY(make_table(i, err));
    TRY(buf_printf(&i->insert, err, "INSERT INTO "));
    TRY(shell_name_append(&i->insert, i->table, strlen(i->table), err));
    TRY(append_columns(i, &i->insert, NULL, err));
    TRY(buf_printf(&i->insert, err, " VALUES("));
    for (size_t k = 0; k < i->cols; k++)
        TRY(buf_append(&i->insert, k == 0 ? "?" : ",?", k == 0 ? 1 : 2, err));
    TRY(buf_append(&i->insert, ")", 2, err));
    return insert_all(i, err);
}

static enum rc make_table(struct import *i, struct err *err)
{
    CLEANUP(buf_fini) struct buf sql = BUF_INIT;
    CLEANUP(mem_freep) uint8_t *guesses = mem_calloc(i->cols, 1);
    if (guesses == NULL) return err_mem(err, "a table");
    TRY(guess_types(i, guesses, err));
    TRY(buf_printf(&sql, err, "CREATE TABLE "));
    TRY(shell_name_append(&sql, i->table, strlen(i->table), err));
    TRY(append_columns(i, &sql, guesses, err));
    TRY(buf_append(&sql, "", 1, err));
    return run(i, (const char *)sql.data, err);
}

/* Reads the file once more: a column gets the type that all its fields have. */
static enum rc guess_types(struct import *i, uint8_t *guesses, struct err *err)
{
    bool any = true;
    for (;;) {
        TRY(call_check(&i->s->call, err));
        TRY(csv_record(&i->csv, &any, err));
        if (!any) break;
        const struct field *f = (const struct field *)(void *)i->csv.fields.data;
        size_t count = i->csv.fields.size / sizeof *f;
        for (size_t k = 0; k < count && k < i->cols; k++) {
            if (f[k].size == 0 && !f[k].quoted) continue;
            enum guess g = guess_field((const char *)i->csv.text.data + f[k].off, f[k].size);
            if (g > guesses[k]) guesses[k] = (uint8_t)g;
        }
    }
    TRY(csv_rewind(&i->csv, err));
    return csv_record(&i->csv, &any, err); /* the names */
}

/* A number only if nothing is lost by taking it for one: no zeros in front, not too many digits. */
static enum guess guess_field(const char *text, size_t size)
{
    char copy[32], *end;
    size_t at = size > 0 && text[0] == '-', digits = 0;
    bool point = false;
    if (size == 0 || size > 20) return GUESS_TEXT;
    for (size_t k = at; k < size; k++) {
        if (text[k] == '.' && !point && k > at)
            point = true;
        else if (text[k] >= '0' && text[k] <= '9')
            digits++;
        else
            return GUESS_TEXT;
    }
    if (digits == 0 || text[size - 1] == '.') return GUESS_TEXT;
    if (text[at] == '0' && size > at + 1 && text[at + 1] != '.') return GUESS_TEXT;
    if (point) return digits <= 15 ? GUESS_REAL : GUESS_TEXT;
    memcpy(copy, text, size);
    copy[size] = '\0';
    errno = 0;
    long long v = strtoll(copy, &end, 10);
    return errno != 0 || (v == 0 && at == 1) ? GUESS_TEXT : GUESS_INTEGER;
}

static enum rc append_columns(struct import *i, struct buf *b, const uint8_t *guesses,
                              struct err *err)
{
    static const char *const types[] = {"TEXT", "INTEGER", "REAL", "TEXT"};
    const char *name = (const char *)i->names.data;
    for (size_t k = 0; k < i->cols; k++, name += strlen(name) + 1) {
        TRY(buf_append(b, k == 0 ? "(" : ",", 1, err));
        TRY(shell_name_append(b, name, strlen(name), err));
        if (guesses != NULL) TRY(buf_printf(b, err, " %s", types[guesses[k]]));
    }
    return buf_append(b, ")", 1, err);
}

static enum rc take_any(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    bool *any = ctx;
    (void)v, (void)count, (void)err;
    *any = true;
    return RC_OK;
}

static enum rc no_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

static enum rc table_exists(struct import *i, bool *ret, struct err *err)
{
    static const char sql[] = "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND "
                              "name = ? COLLATE NOCASE";
    struct sql_arg arg = {.value = {.type = SQL_TEXT, .data = i->table, .size = strlen(i->table)}};
    struct sql_stmt stmt = {
        .sql = sql, .sql_size = sizeof sql - 1, .args = &arg, .arg_count = 1, .want_rows = true};
    struct sql_sink sink = {.cols = no_cols, .row = take_any, .ctx = ret};
    struct sql_done done;
    struct sql_error ignored; /* err says the same */
    return i->s->db->ops->run(i->s->db, &i->s->call, &stmt, &sink, &done, &ignored, err);
}

static enum rc run(struct import *i, const char *sql, struct err *err)
{
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql)};
    struct sql_done done;
    struct sql_error ignored;
    return i->s->db->ops->run(i->s->db, &i->s->call, &stmt, NULL, &done, &ignored, err);
}

static enum rc insert_all(struct import *i, struct err *err)
{
    uint64_t lines[BATCH_ROWS];
    struct csv *c = &i->csv;
    bool any = true;
    while (any) {
        struct buf text = BUF_INIT, fields = BUF_INIT;
        size_t rows = 0;
        enum rc rc = RC_OK;
        while (rc == RC_OK && any && rows < BATCH_ROWS && text.size < BATCH_BYTES) {
            rc = csv_record(c, &any, err);
            if (rc != RC_OK || !any) break;
            struct field *f = (struct field *)(void *)c->fields.data;
            size_t count = c->fields.size / sizeof *f;
            if (count != i->cols)
                rc = err_set(err, RC_INVALID, "'%s' line %llu: %zu fields, but %zu columns",
                             c->path, (unsigned long long)c->record_line, count, i->cols);
            for (size_t k = 0; k < count; k++)
                f[k].off += text.size;
            if (rc == RC_OK) rc = buf_append(&text, c->text.data, c->text.size, err);
            if (rc == RC_OK) rc = buf_append(&fields, f, c->fields.size, err);
            lines[rows++] = c->record_line;
        }
        /* The batch takes the place of the record. */
        buf_fini(&c->text);
        buf_fini(&c->fields);
        c->text = text;
        c->fields = fields;
        TRY(rc);
        if (rows > 0) TRY(insert_batch(i, lines, rows, err));
    }
    return RC_OK;
}

static enum rc insert_batch(struct import *i, const uint64_t *lines, size_t rows, struct err *err)
{
    const struct field *f = (const struct field *)(void *)i->csv.fields.data;
    size_t count = rows * i->cols, done = 0;
    struct sql_error sql_err = {0};
    CLEANUP(mem_freep) struct sql_arg *args = mem_calloc(count, sizeof *args);
    if (args == NULL) return err_mem(err, "rows");
    for (size_t k = 0; k < count; k++) {
        if (f[k].size == 0 && !f[k].quoted) continue; /* NULL */
        args[k].value = (struct sql_value){
            .type = SQL_TEXT, .data = i->csv.text.data + f[k].off, .size = f[k].size};
    }
    enum rc rc = i->s->db->ops->run_many(i->s->db, &i->s->call, (const char *)i->insert.data, args,
                                         i->cols, rows, &done, &sql_err, err);
    i->rows += done;
    if (rc == RC_OK || done >= rows) return rc;
    return err_wrap(err, "'%s' line %llu", i->csv.path, (unsigned long long)lines[done]);
}

/* ---- CSV ---- */

static enum rc csv_open(struct csv *c, const char *path, struct err *err)
{
    *c = (struct csv){.path = path, .fd = -1, .line = 1};
    struct stat st;
    TRY(os_open(path, O_RDONLY, 0, &c->fd, err));
    TRY(os_fstat(c->fd, &st, err));
    if (!S_ISREG(st.st_mode)) return err_set(err, RC_INVALID, "'%s' is not a file", path);
    c->buf = mem_alloc(64u << 10);
    if (c->buf == NULL) return err_mem(err, "a file");
    return csv_rewind(c, err);
}

static void csv_close(struct csv *c)
{
    os_close(c->fd);
    mem_free(c->buf);
    buf_fini(&c->text);
    buf_fini(&c->fields);
}

/* To the first record, behind a byte order mark. */
static enum rc csv_rewind(struct csv *c, struct err *err)
{
    uint8_t mark[3];
    size_t size = 0;
    c->at = c->size = 0;
    c->at_end = false;
    c->line = 1;
    TRY(os_pread(c->fd, mark, sizeof mark, 0, &size, err));
    c->off = size == 3 && memcmp(mark, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    return RC_OK;
}

/* *ret_any false: the end. A line with nothing on it is skipped if there are more columns. */
static enum rc csv_record(struct csv *c, bool *ret_any, struct err *err)
{
    int end = '\n';
    const struct field *f;
    do {
        buf_reset(&c->text);
        buf_reset(&c->fields);
        c->record_line = c->line;
        *ret_any = false;
        if (c->at_end) return RC_OK;
        do {
            TRY(csv_field(c, &end, err));
            if (c->fields.size > FIELDS_MAX * sizeof *f)
                return err_set(err, RC_TOO_BIG, "'%s' line %llu: more than %u fields", c->path,
                               (unsigned long long)c->record_line, FIELDS_MAX);
        } while (end == ',');
        c->at_end = end < 0;
        f = (const struct field *)(void *)c->fields.data;
    } while (c->fields.size == sizeof *f && f->size == 0 && !f->quoted && (end < 0 || !c->single));
    *ret_any = true;
    return RC_OK;
}

/* *ret_end: what ended it: a comma, a line feed, or -1 for the file. */
static enum rc csv_field(struct csv *c, int *ret_end, struct err *err)
{
    struct field f = {.off = c->text.size};
    int ch;
    TRY(csv_byte(c, &ch, err));
    if (ch == '"') {
        f.quoted = true;
        TRY(csv_quoted(c, err));
        TRY(csv_byte(c, &ch, err));
        if (ch == '\r') TRY(csv_byte(c, &ch, err));
        if (ch >= 0 && ch != ',' && ch != '\n')
            return err_set(err, RC_INVALID, "'%s' line %llu: something follows a closing quote",
                           c->path, (unsigned long long)c->line);
    } else {
        for (; ch >= 0 && ch != ',' && ch != '\n';) {
            TRY(csv_put(c, ch, err));
            TRY(csv_byte(c, &ch, err));
        }
        if (ch != ',' && c->text.size > f.off && c->text.data[c->text.size - 1] == '\r')
            c->text.size--;
    }
    f.size = c->text.size - f.off;
    *ret_end = ch;
    return buf_append(&c->fields, &f, sizeof f, err);
}

static enum rc csv_quoted(struct csv *c, struct err *err)
{
    uint64_t line = c->line;
    for (;;) {
        int ch;
        TRY(csv_byte(c, &ch, err));
        if (ch < 0)
            return err_set(err, RC_INVALID, "'%s' line %llu: a quote is not closed", c->path,
                           (unsigned long long)line);
        if (ch == '"') {
            TRY(csv_byte(c, &ch, err));
            if (ch != '"') {
                if (ch >= 0) c->at--, c->line -= ch == '\n';
                return RC_OK;
            }
        }
        TRY(csv_put(c, ch, err));
    }
}

/* -1: the end of the file. The byte before can be put back. */
static enum rc csv_byte(struct csv *c, int *ret_ch, struct err *err)
{
    if (c->at == c->size) {
        TRY(os_pread(c->fd, c->buf, 64u << 10, c->off, &c->size, err));
        c->off += c->size;
        c->at = 0;
    }
    *ret_ch = c->size > 0 ? c->buf[c->at++] : -1;
    c->line += *ret_ch == '\n';
    return RC_OK;
}

static enum rc csv_put(struct csv *c, int ch, struct err *err)
{
    uint8_t byte = (uint8_t)ch;
    if (c->text.size >= RECORD_MAX)
        return err_set(err, RC_TOO_BIG, "'%s' line %llu: a record of more than %u MiB", c->path,
                       (unsigned long long)c->record_line, RECORD_MAX >> 20);
    return buf_append(&c->text, &byte, 1, err);
}
