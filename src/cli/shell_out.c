/*
 * shell_out.c -- rows as people and programs like them; see shell.h.
 *
 * A table is drawn when its first rows are there: they decide how wide its columns are. Whatever is
 * in a text, a terminal gets no control characters: they are shown as \n, \x1b and the like.
 */
#include "cli/shell.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include "base/mem.h"
#include "store/hash.h"

#define ROWS_FIRST  1000       /* that decide about the widths */
#define BYTES_FIRST (4u << 20) /* of their cells */
#define PAD_MAX     200        /* a column of a table that is not cut is not padded further */
#define COLUMN_MIN  5          /* narrower than that, lines read better */
#define CELL_MAX    4096       /* bytes of a cell that is cut anyway */

struct cell { /* in `cells`; its text is in `text` */
    size_t off, size, width;
    bool number;
};
struct frame { /* pieces of a line: left, between, right, and what fills it */
    const char *left, *middle, *right, *fill;
};

static enum rc take_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err);
static enum rc take_row(void *ctx, const struct sql_value *v, size_t count, struct err *err);
static enum rc add_row(struct shell_out *o, const struct sql_value *v, struct err *err);
static enum rc add_cell(struct shell_out *o, const char *text, size_t size,
                        const struct sql_value *v, struct err *err);
static void draw(struct shell_out *o);
static void measure(struct shell_out *o);
static bool fit(struct shell_out *o);
static void draw_frame(const struct shell_out *o, const struct frame *f);
static void draw_cells(const struct shell_out *o, const struct cell *cells);
static void draw_cell(const struct shell_out *o, const struct cell *c, size_t width);
static void draw_lines(struct shell_out *o);
static void put_json(struct shell_out *o, const struct sql_value *v);
static void put_json_value(struct shell_out *o, const struct sql_value *v);
static void put_json_text(FILE *f, const char *text, size_t size);
static void put_csv(struct shell_out *o, const struct sql_value *v);
static void put_csv_text(FILE *f, const char *text, size_t size);
static void put_csv_names(struct shell_out *o);
static void put_base64(FILE *f, const void *data, size_t size);
static enum rc shown(struct buf *b, const struct sql_value *v, size_t max, bool lines,
                     struct err *err);
static enum rc escape(struct buf *b, const char *text, size_t size, bool lines, struct err *err);
static const char *real_text(double real, char out[40]);
static size_t char_width(const char *text, size_t size);
static enum rc written(const struct shell_out *o, struct err *err);

struct sql_sink shell_out_sink(struct shell_out *o)
{
    return (struct sql_sink){.cols = take_cols, .row = take_row, .ctx = o};
}

enum rc shell_out_end(struct shell_out *o, struct err *err)
{
    if (!o->open) return RC_OK;
    o->open = false;
    switch (o->mode) {
    case SHELL_JSON:
        fputs(o->rows > 0 ? "\n]\n" : "[]\n", o->file);
        break;
    case SHELL_TABLE:
        draw(o);
        if (!o->by_line)
            draw_frame(o, o->unicode ? &(struct frame){"└", "┴", "┘", "─"}
                                     : &(struct frame){"+", "+", "+", "-"});
        break;
    default:
        break;
    }
    if (o->counts && (o->mode == SHELL_TABLE || o->mode == SHELL_LINE))
        fprintf(o->file, "%llu row%s\n", (unsigned long long)o->rows, o->rows == 1 ? "" : "s");
    return written(o, err);
}

void shell_out_fini(struct shell_out *o)
{
    buf_fini(&o->names);
    buf_fini(&o->text);
    buf_fini(&o->cells);
    mem_free(o->widths);
    o->widths = NULL;
}

bool shell_mode_get(const char *name, enum shell_mode *ret)
{
    static const char *const names[] = {"table", "json", "csv", "line"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) != 0) continue;
        *ret = (enum shell_mode)i;
        return true;
    }
    return false;
}

size_t shell_text_width(const char *text, size_t size)
{
    size_t width = 0;
    for (size_t at = 0; at < size;) {
        size_t n = sql_char_size(text + at, size - at);
        if (n == 0) n = 1;
        width += char_width(text + at, n);
        at += n;
    }
    return width;
}

static enum rc take_cols(void *ctx, const struct sql_col *cols, size_t count, struct err *err)
{
    struct shell_out *o = ctx;
    o->open = false;
    o->headed = o->by_line = false;
    o->cols = count;
    o->rows = o->drawn = 0;
    buf_reset(&o->names);
    buf_reset(&o->text);
    buf_reset(&o->cells);
    for (size_t i = 0; i < count; i++)
        TRY(buf_append(&o->names, cols[i].name, strlen(cols[i].name) + 1, err));
    if (count > o->width_cap) {
        size_t *grown = mem_realloc(o->widths, count * sizeof *grown);
        if (grown == NULL) return err_mem(err, "the columns of a result");
        o->widths = grown;
        o->width_cap = count;
    }
    if (o->mode == SHELL_CSV && o->headers && count > 0) put_csv_names(o);
    const char *name = (const char *)o->names.data;
    bool cells = o->mode == SHELL_TABLE || o->mode == SHELL_LINE;
    for (size_t i = 0; i < count && cells; i++, name += strlen(name) + 1)
        TRY(add_cell(o, name, strlen(name), NULL, err));
    o->open = count > 0;
    return written(o, err);
}

static enum rc take_row(void *ctx, const struct sql_value *v, size_t count, struct err *err)
{
    struct shell_out *o = ctx;
    (void)count;
    switch (o->mode) {
    case SHELL_JSON:
        put_json(o, v);
        break;
    case SHELL_CSV:
        put_csv(o, v);
        break;
    default:
        TRY(add_row(o, v, err));
        break;
    }
    o->rows++;
    return written(o, err);
}

/* ---- Tables and lines ---- */

static enum rc add_row(struct shell_out *o, const struct sql_value *v, struct err *err)
{
    size_t whole = o->cells.size;
    for (size_t i = 0; i < o->cols; i++) {
        if (add_cell(o, NULL, 0, &v[i], err) == RC_OK) continue;
        o->cells.size = whole;
        return err->rc;
    }
    if (o->mode == SHELL_LINE || o->by_line) {
        draw_lines(o);
        return RC_OK;
    }
    size_t rows = o->cells.size / sizeof(struct cell) / o->cols;
    if (rows > ROWS_FIRST || o->text.size > BYTES_FIRST) draw(o);
    return RC_OK;
}

/* A value, or (v NULL) the name of a column. */
static enum rc add_cell(struct shell_out *o, const char *text, size_t size,
                        const struct sql_value *v, struct err *err)
{
    struct cell c = {.off = o->text.size};
    bool lines = o->mode == SHELL_LINE && v != NULL;
    size_t max = o->mode == SHELL_TABLE && o->width > 0 ? CELL_MAX : SIZE_MAX;
    if (v == NULL) {
        TRY(escape(&o->text, text, size, false, err));
    } else {
        c.number = v->type == SQL_INTEGER || v->type == SQL_FLOAT;
        TRY(shown(&o->text, v, max, lines, err));
    }
    c.size = o->text.size - c.off;
    c.width = shell_text_width((const char *)o->text.data + c.off, c.size);
    return buf_append(&o->cells, &c, sizeof c, err);
}

/* What has been gathered; the first time with the names on top. */
static void draw(struct shell_out *o)
{
    bool first = !o->headed;
    size_t count = o->cells.size / sizeof(struct cell);
    if (first) {
        measure(o);
        o->by_line = !fit(o);
        o->headed = true;
        if (o->by_line) {
            draw_lines(o);
            return;
        }
        draw_frame(o, o->unicode ? &(struct frame){"┌", "┬", "┐", "─"}
                                 : &(struct frame){"+", "+", "+", "-"});
    }
    const struct cell *cells = (const struct cell *)(void *)o->cells.data;
    for (size_t i = first ? 0 : o->cols; i < count; i += o->cols) {
        if (i > 0 || o->headers) draw_cells(o, cells + i);
        if (i == 0 && o->headers)
            draw_frame(o, o->unicode ? &(struct frame){"├", "┼", "┤", "─"}
                                     : &(struct frame){"+", "+", "+", "-"});
    }
    /* The names stay, for a result whose rest is shown as lines. */
    o->cells.size = o->cols * sizeof(struct cell);
    o->text.size = cells[o->cols - 1].off + cells[o->cols - 1].size;
}

/* A column of numbers has its name on the right, too. */
static void measure(struct shell_out *o)
{
    struct cell *cells = (struct cell *)(void *)o->cells.data;
    size_t count = o->cells.size / sizeof(struct cell);
    for (size_t i = 0; i < count; i++) {
        size_t col = i % o->cols, width = cells[i].width;
        if (o->width == 0 && width > PAD_MAX) width = PAD_MAX;
        if (i < o->cols)
            o->widths[col] = o->headers ? width : 1;
        else if (width > o->widths[col])
            o->widths[col] = width;
    }
    for (size_t col = 0; col < o->cols && count >= 2 * o->cols; col++)
        cells[col].number = cells[o->cols + col].number;
}

/* Cut the widest columns until the table is no wider than the terminal. False: that is not
 * possible. */
static bool fit(struct shell_out *o)
{
    size_t total = 3 * o->cols + 1;
    if (o->width == 0) return true;
    for (size_t i = 0; i < o->cols; i++)
        total += o->widths[i];
    while (total > o->width) {
        size_t widest = 0, second = COLUMN_MIN, same = 0;
        for (size_t i = 0; i < o->cols; i++)
            if (o->widths[i] > widest) widest = o->widths[i];
        if (widest <= COLUMN_MIN) return false;
        for (size_t i = 0; i < o->cols; i++) {
            if (o->widths[i] == widest)
                same++;
            else if (o->widths[i] > second)
                second = o->widths[i];
        }
        size_t each = (total - o->width + same - 1) / same;
        if (each > widest - second) each = widest - second;
        for (size_t i = 0; i < o->cols; i++)
            if (o->widths[i] == widest) o->widths[i] -= each;
        total -= each * same;
    }
    return true;
}

static void draw_frame(const struct shell_out *o, const struct frame *f)
{
    for (size_t i = 0; i < o->cols; i++) {
        fputs(i == 0 ? f->left : f->middle, o->file);
        for (size_t k = 0; k < o->widths[i] + 2; k++)
            fputs(f->fill, o->file);
    }
    fprintf(o->file, "%s\n", f->right);
}

static void draw_cells(const struct shell_out *o, const struct cell *cells)
{
    const char *bar = o->unicode ? "│" : "|";
    for (size_t i = 0; i < o->cols; i++) {
        fprintf(o->file, "%s ", bar);
        draw_cell(o, &cells[i], o->widths[i]);
        fputc(' ', o->file);
    }
    fprintf(o->file, "%s\n", bar);
}

static void draw_cell(const struct shell_out *o, const struct cell *c, size_t width)
{
    const char *text = (const char *)o->text.data + c->off;
    size_t size = c->size, used = c->width;
    bool cut = o->width > 0 && used > width;
    if (cut) {
        used = size = 0;
        while (size < c->size) {
            size_t n = sql_char_size(text + size, c->size - size);
            size_t w = char_width(text + size, n);
            if (used + w + 1 > width) break;
            used += w;
            size += n;
        }
        used++;
    }
    size_t pad = used < width ? width - used : 0;
    if (c->number && pad > 0) fprintf(o->file, "%*s", (int)pad, "");
    fwrite(text, 1, size, o->file);
    if (cut) fputs(o->unicode ? "…" : "~", o->file);
    if (!c->number && pad > 0) fprintf(o->file, "%*s", (int)pad, "");
}

/* "name = value", the names aligned, an empty line between rows. */
static void draw_lines(struct shell_out *o)
{
    const struct cell *cells = (const struct cell *)(void *)o->cells.data;
    size_t count = o->cells.size / sizeof *cells, widest = 0;
    for (size_t i = 0; i < o->cols; i++)
        if (cells[i].width > widest) widest = cells[i].width;
    if (widest > PAD_MAX) widest = PAD_MAX;
    for (size_t i = o->cols; i < count; i++) {
        const struct cell *name = &cells[i % o->cols], *c = &cells[i];
        if (i % o->cols == 0 && o->drawn++ > 0) fputc('\n', o->file);
        int pad = name->width < widest ? (int)(widest - name->width) : 0;
        fprintf(o->file, "%*s", pad, "");
        fwrite(o->text.data + name->off, 1, name->size, o->file);
        fputs(" = ", o->file);
        fwrite(o->text.data + c->off, 1, c->size, o->file);
        fputc('\n', o->file);
    }
    o->cells.size = o->cols * sizeof *cells;
    o->text.size = cells[o->cols - 1].off + cells[o->cols - 1].size;
}

/* ---- JSON and CSV ---- */

static void put_json(struct shell_out *o, const struct sql_value *v)
{
    const char *name = (const char *)o->names.data;
    fputs(o->rows == 0 ? "[\n{" : ",\n{", o->file);
    for (size_t i = 0; i < o->cols; i++, name += strlen(name) + 1) {
        if (i > 0) fputs(", ", o->file);
        put_json_text(o->file, name, strlen(name));
        fputs(": ", o->file);
        put_json_value(o, &v[i]);
    }
    fputc('}', o->file);
}

static void put_json_value(struct shell_out *o, const struct sql_value *v)
{
    char number[40];
    switch (v->type) {
    case SQL_NULL:
        fputs("null", o->file);
        break;
    case SQL_INTEGER:
        fprintf(o->file, "%lld", (long long)v->integer);
        break;
    case SQL_FLOAT: /* JSON has no infinity, but numbers that are read as one */
        if (isnan(v->real))
            fputs("null", o->file);
        else if (isinf(v->real))
            fputs(v->real > 0 ? "1e999" : "-1e999", o->file);
        else
            fputs(real_text(v->real, number), o->file);
        break;
    case SQL_TEXT:
        put_json_text(o->file, v->data, v->size);
        break;
    case SQL_BLOB:
        fputc('"', o->file);
        put_base64(o->file, v->data, v->size);
        fputc('"', o->file);
        break;
    }
}

/* What is not UTF-8 cannot be in JSON: U+FFFD stands for it. */
static void put_json_text(FILE *f, const char *text, size_t size)
{
    fputc('"', f);
    for (size_t at = 0; at < size;) {
        unsigned char ch = (unsigned char)text[at];
        size_t n = sql_char_size(text + at, size - at);
        if (n == 0)
            fputs("\\ufffd", f);
        else if (ch == '"' || ch == '\\')
            fprintf(f, "\\%c", ch);
        else if (ch == '\n')
            fputs("\\n", f);
        else if (ch < ' ' || ch == 0x7f)
            fprintf(f, "\\u%04x", ch);
        else
            fwrite(text + at, 1, n, f);
        at += n > 0 ? n : 1;
    }
    fputc('"', f);
}

/* NULL is nothing at all, the empty text is "". */
static void put_csv(struct shell_out *o, const struct sql_value *v)
{
    char number[40];
    for (size_t i = 0; i < o->cols; i++) {
        if (i > 0) fputc(',', o->file);
        switch (v[i].type) {
        case SQL_NULL:
            break;
        case SQL_INTEGER:
            fprintf(o->file, "%lld", (long long)v[i].integer);
            break;
        case SQL_FLOAT:
            fputs(isinf(v[i].real) ? (v[i].real > 0 ? "9e999" : "-9e999")
                                   : real_text(v[i].real, number),
                  o->file);
            break;
        case SQL_TEXT:
            put_csv_text(o->file, v[i].data, v[i].size);
            break;
        case SQL_BLOB:
            put_base64(o->file, v[i].data, v[i].size);
            break;
        }
    }
    fputc('\n', o->file);
}

static void put_csv_text(FILE *f, const char *text, size_t size)
{
    bool quoted = size == 0 || text[0] == ' ' || text[size - 1] == ' ';
    for (size_t i = 0; i < size && !quoted; i++)
        quoted = text[i] == ',' || text[i] == '"' || text[i] == '\n' || text[i] == '\r';
    if (!quoted) {
        fwrite(text, 1, size, f);
        return;
    }
    fputc('"', f);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') fputc('"', f);
        fputc(text[i], f);
    }
    fputc('"', f);
}

static void put_csv_names(struct shell_out *o)
{
    const char *name = (const char *)o->names.data;
    for (size_t i = 0; i < o->cols; i++, name += strlen(name) + 1) {
        if (i > 0) fputc(',', o->file);
        put_csv_text(o->file, name, strlen(name));
    }
    fputc('\n', o->file);
}

static void put_base64(FILE *f, const void *data, size_t size)
{
    char piece[BASE64_SIZE(3072)];
    const uint8_t *at = data;
    while (size > 0) {
        size_t n = size < 3072 ? size : 3072;
        base64_put(at, n, piece);
        fputs(piece, f);
        at += n;
        size -= n;
    }
}

/* ---- Values as text ---- */

/* max: bytes of a text or blob that are looked at; the cell will be cut anyway. */
static enum rc shown(struct buf *b, const struct sql_value *v, size_t max, bool lines,
                     struct err *err)
{
    char number[40];
    const uint8_t *bytes = v->data;
    size_t size = v->size < max ? v->size : max;
    switch (v->type) {
    case SQL_NULL:
        return buf_append(b, "NULL", 4, err);
    case SQL_INTEGER:
        return buf_printf(b, err, "%lld", (long long)v->integer);
    case SQL_FLOAT:
        real_text(v->real, number);
        return buf_append(b, number, strlen(number), err);
    case SQL_TEXT:
        /* Not in the middle of a character. */
        for (int i = 0; i < 3 && size < v->size && size > 0 && (bytes[size] & 0xc0) == 0x80; i++)
            size--;
        return escape(b, v->data, size, lines, err);
    case SQL_BLOB:
        TRY(buf_append(b, "x'", 2, err));
        for (size_t i = 0; i < size; i++)
            TRY(buf_printf(b, err, "%02x", bytes[i]));
        return buf_append(b, "'", 1, err);
    }
    return RC_OK;
}

static enum rc escape(struct buf *b, const char *text, size_t size, bool lines, struct err *err)
{
    static const char names[] = "0......abtnvfr";
    for (size_t at = 0; at < size;) {
        uint8_t ch = (uint8_t)text[at];
        size_t n = sql_char_size(text + at, size - at);
        bool c1 = n == 2 && ch == 0xc2 && (uint8_t)text[at + 1] < 0xa0;
        if (n == 0)
            TRY(buf_printf(b, err, "\\x%02x", ch));
        else if (c1)
            TRY(buf_printf(b, err, "\\u%04x", (uint8_t)text[at + 1]));
        else if (lines && (ch == '\n' || ch == '\t'))
            TRY(buf_append(b, text + at, 1, err));
        else if (ch < sizeof names - 1 && names[ch] != '.')
            TRY(buf_printf(b, err, "\\%c", names[ch]));
        else if (ch < ' ' || ch == 0x7f)
            TRY(buf_printf(b, err, "\\x%02x", ch));
        else
            TRY(buf_append(b, text + at, n, err));
        at += n > 0 ? n : 1;
    }
    return RC_OK;
}

/* As few digits as give the same number again, and always with a point or an exponent. */
static const char *real_text(double real, char out[40])
{
    if (isnan(real)) return memcpy(out, "NaN", 4);
    if (isinf(real)) return memcpy(out, real > 0 ? "Inf" : "-Inf", real > 0 ? 4 : 5);
    snprintf(out, 36, "%.15g", real);
    if (strtod(out, NULL) != real) snprintf(out, 36, "%.17g", real);
    if (strpbrk(out, ".e") == NULL) memcpy(out + strlen(out), ".0", 3);
    return out;
}

/* A character of UTF-8. What a locale does not know takes one column. */
static size_t char_width(const char *text, size_t size)
{
    const uint8_t *p = (const uint8_t *)text;
    wchar_t ch = p[0];
    if (size == 2) ch = (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    if (size == 3) ch = (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    if (size == 4)
        ch = (p[0] & 0x07) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    int width = wcwidth(ch);
    return width >= 0 ? (size_t)width : 1;
}

static enum rc written(const struct shell_out *o, struct err *err)
{
    return ferror(o->file) ? err_set(err, RC_IO, "write to standard output") : RC_OK;
}
