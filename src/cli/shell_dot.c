/* shell_dot.c -- the commands that begin with a dot; see shell.h. */
#include "cli/shell.h"
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"

#define WORDS_MAX 8

struct words { /* of one line */
    char *text;
    char *items[WORDS_MAX];
    size_t count;
};
struct dot {
    const char *name, *args, *help;
    size_t min, max; /* words besides the name */
    enum rc (*run)(struct shell *s, const struct words *w, struct err *err);
};

static enum rc split(const char *line, size_t size, struct words *w, struct err *err);
static enum rc run_help(struct shell *s, const struct words *w, struct err *err);
static enum rc run_tables(struct shell *s, const struct words *w, struct err *err);
static enum rc run_indexes(struct shell *s, const struct words *w, struct err *err);
static enum rc run_schema(struct shell *s, const struct words *w, struct err *err);
static enum rc run_dump(struct shell *s, const struct words *w, struct err *err);
static enum rc run_import(struct shell *s, const struct words *w, struct err *err);
static enum rc run_read(struct shell *s, const struct words *w, struct err *err);
static enum rc run_mode(struct shell *s, const struct words *w, struct err *err);
static enum rc run_headers(struct shell *s, const struct words *w, struct err *err);
static enum rc run_timer(struct shell *s, const struct words *w, struct err *err);
static enum rc run_quit(struct shell *s, const struct words *w, struct err *err);
static enum rc query(struct shell *s, const char *sql, const char *arg, const struct sql_sink *sink,
                     struct err *err);
static enum rc get_switch(const char *word, bool *ret, struct err *err);

static const struct dot dots[] = {
    {"dump", "[-data] [-rowids] [TABLE]", "the database, or one table, as SQL", 0, 3, run_dump},
    {"exit", "", "leave", 0, 0, run_quit},
    {"headers", "on|off", "names of columns in tables and CSV", 1, 1, run_headers},
    {"help", "", "this list", 0, 0, run_help},
    {"import", "[-csv] FILE TABLE", "rows from a CSV file; its first line names the columns", 2, 3,
     run_import},
    {"indexes", "[TABLE]", "list indexes", 0, 1, run_indexes},
    {"mode", "table|json|csv|line", "how rows are shown", 1, 1, run_mode},
    {"quit", "", "leave", 0, 0, run_quit},
    {"read", "FILE", "run the statements of a file", 1, 1, run_read},
    {"schema", "[TABLE]", "the statements that made the tables, indexes, views and triggers", 0, 1,
     run_schema},
    {"tables", "", "list tables and views", 0, 0, run_tables},
    {"timer", "on|off", "say how long a statement takes", 1, 1, run_timer},
};

enum rc shell_dot(struct shell *s, const char *line, size_t size, struct err *err)
{
    struct words w = {0};
    enum rc rc = split(line, size, &w, err);
    const struct dot *d = NULL;
    for (size_t i = 0; rc == RC_OK && i < sizeof dots / sizeof dots[0]; i++)
        if (strcmp(dots[i].name, w.items[0] + 1) == 0) d = &dots[i];
    if (rc == RC_OK && d == NULL)
        rc = err_set(err, RC_INVALID, "unknown command %s; .help lists them", w.items[0]);
    else if (rc == RC_OK && (w.count - 1 < d->min || w.count - 1 > d->max))
        rc = err_set(err, RC_INVALID, "usage: .%s %s", d->name, d->args);
    else if (rc == RC_OK)
        rc = d->run(s, &w, err);
    mem_free(w.text);
    return rc;
}

/* Words are separated by blanks; one in quotes, ' or ", may have some inside. */
static enum rc split(const char *line, size_t size, struct words *w, struct err *err)
{
    w->text = mem_alloc(size + 1);
    if (w->text == NULL) return err_mem(err, "a command");
    char *to = w->text;
    for (size_t at = 0; at < size;) {
        if (strchr(" \t\r\n", line[at]) != NULL) {
            at++;
            continue;
        }
        if (w->count == WORDS_MAX) return err_set(err, RC_INVALID, "more than %d words", WORDS_MAX);
        w->items[w->count++] = to;
        while (at < size && strchr(" \t\r\n", line[at]) == NULL) {
            char quote = line[at];
            if (quote != '\'' && quote != '"') {
                *to++ = line[at++];
                continue;
            }
            const char *end = memchr(line + at + 1, quote, size - at - 1);
            if (end == NULL) return err_set(err, RC_INVALID, "a quote is not closed");
            size_t n = (size_t)(end - line) - at - 1;
            memcpy(to, line + at + 1, n);
            to += n;
            at += n + 2;
        }
        *to++ = '\0';
    }
    return w->count > 0 ? RC_OK : err_set(err, RC_INVALID, "an empty command");
}

static enum rc run_help(struct shell *s, const struct words *w, struct err *err)
{
    (void)w, (void)err;
    for (size_t i = 0; i < sizeof dots / sizeof dots[0]; i++) {
        int used = fprintf(s->out.file, ".%s %s", dots[i].name, dots[i].args);
        fprintf(s->out.file, "%*s %s\n", used < 32 ? 32 - used : 0, "", dots[i].help);
    }
    fprintf(s->out.file, "Statements end with a semicolon.\n");
    return RC_OK;
}

static enum rc no_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    (void)ctx, (void)cols, (void)count, (void)err;
    return RC_OK;
}

/* One name a line, whatever the mode. */
static enum rc put_name(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct shell *s = ctx;
    (void)count, (void)err;
    fwrite(v[0].data, 1, v[0].size, s->out.file);
    fputc('\n', s->out.file);
    return RC_OK;
}

static enum rc put_statement(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct shell *s = ctx;
    (void)count, (void)err;
    fwrite(v[0].data, 1, v[0].size, s->out.file);
    fprintf(s->out.file, "%s\n", sql_text_end(v[0].data, v[0].size));
    return RC_OK;
}

/* Without the tables that virtual tables keep for themselves. */
static enum rc run_tables(struct shell *s, const struct words *w, struct err *err)
{
    struct sql_sink sink = {.cols = no_cols, .row = put_name, .ctx = s};
    (void)w;
    return query(s,
                 "SELECT name FROM pragma_table_list WHERE schema IN ('main', 'temp') AND type IN "
                 "('table', 'view', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
                 "ORDER BY name",
                 NULL, &sink, err);
}

static enum rc run_indexes(struct shell *s, const struct words *w, struct err *err)
{
    struct sql_sink sink = {.cols = no_cols, .row = put_name, .ctx = s};
    return query(s,
                 w->count > 1 ? "SELECT name FROM sqlite_schema WHERE type = 'index' AND "
                                "tbl_name = ? COLLATE NOCASE ORDER BY name"
                              : "SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY name",
                 w->items[1], &sink, err);
}

static enum rc run_schema(struct shell *s, const struct words *w, struct err *err)
{
    struct sql_sink sink = {.cols = no_cols, .row = put_statement, .ctx = s};
    return query(s,
                 w->count > 1
                     ? "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name = ? "
                       "COLLATE NOCASE ORDER BY rowid"
                     : "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE "
                       "'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
                 w->items[1], &sink, err);
}

static enum rc put_dump(void *ctx, const void *data, size_t size, struct err *err)
{
    struct shell *s = ctx;
    if (fwrite(data, 1, size, s->out.file) != size)
        return err_set(err, RC_IO, "write to standard output");
    return RC_OK;
}

static void put_note(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "Note: %s\n", text);
}

static enum rc run_dump(struct shell *s, const struct words *w, struct err *err)
{
    struct sql_dump_opts opts = {.note = put_note};
    for (size_t i = 1; i < w->count; i++) {
        if (strcmp(w->items[i], "-data") == 0)
            opts.data_only = true;
        else if (strcmp(w->items[i], "-rowids") == 0)
            opts.preserve_row_ids = true;
        else if (w->items[i][0] == '-' || opts.table != NULL)
            return err_set(err, RC_INVALID, "usage: .dump [-data] [-rowids] [TABLE]");
        else
            opts.table = w->items[i];
    }
    return s->db->ops->dump(s->db, &s->call, &opts, put_dump, s, err);
}

static enum rc run_import(struct shell *s, const struct words *w, struct err *err)
{
    /* SQLite's shell has to be told the format; those who are used to it say so here, too. */
    bool told = strcmp(w->items[1], "-csv") == 0 || strcmp(w->items[1], "--csv") == 0;
    if (told != (w->count == 4))
        return err_set(err, RC_INVALID, "usage: .import [-csv] FILE TABLE");
    return shell_import(s, w->items[w->count - 2], w->items[w->count - 1], err);
}

static enum rc run_read(struct shell *s, const struct words *w, struct err *err)
{
    if (s->depth >= SHELL_READ_DEPTH)
        return err_set(err, RC_INVALID, "files that read files, %d deep", SHELL_READ_DEPTH);
    s->depth++;
    enum rc rc = shell_read_file(s, w->items[1], err);
    s->depth--;
    s->told = rc == RC_CANCELED;
    return rc;
}

static enum rc run_mode(struct shell *s, const struct words *w, struct err *err)
{
    if (shell_mode_get(w->items[1], &s->out.mode)) return RC_OK;
    return err_set(err, RC_INVALID, "mode '%s': expected table, json, csv or line", w->items[1]);
}

static enum rc run_headers(struct shell *s, const struct words *w, struct err *err)
{
    return get_switch(w->items[1], &s->out.headers, err);
}

static enum rc run_timer(struct shell *s, const struct words *w, struct err *err)
{
    return get_switch(w->items[1], &s->timer, err);
}

static enum rc run_quit(struct shell *s, const struct words *w, struct err *err)
{
    (void)w, (void)err;
    s->quit = true;
    return RC_OK;
}

/* arg: the value of the parameter, if the statement has one. */
static enum rc query(struct shell *s, const char *sql, const char *arg, const struct sql_sink *sink,
                     struct err *err)
{
    struct sql_arg value = {.value = {.type = SQL_TEXT, .data = arg}};
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .args = &value, .want_rows = true};
    struct sql_done done;
    struct sql_error ignored; /* err says the same */
    if (arg != NULL) value.value.size = strlen(arg);
    stmt.arg_count = arg != NULL;
    return s->db->ops->run(s->db, &s->call, &stmt, sink, &done, &ignored, err);
}

static enum rc get_switch(const char *word, bool *ret, struct err *err)
{
    if (strcmp(word, "on") == 0)
        *ret = true;
    else if (strcmp(word, "off") == 0)
        *ret = false;
    else
        return err_set(err, RC_INVALID, "'%s': expected on or off", word);
    return RC_OK;
}
