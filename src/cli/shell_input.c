/*
 * shell_input.c -- from lines to statements, one after another, and what went wrong with one; see
 * shell.h.
 */
#include "cli/shell.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"

#define PIECE_SIZE  (64u << 10)
#define SHOWN_WIDTH 72 /* columns of a statement's line that are shown with a failure */

static bool feed_line(struct shell *s, struct shell_input *in, const char *text, size_t size);
static bool run_ready(struct shell *s, struct shell_input *in);
static bool run_statement(struct shell *s, struct shell_input *in, const char *sql, size_t size,
                          uint64_t line);
static bool run_dot(struct shell *s, struct shell_input *in, const char *line, size_t size);
static bool failed(struct shell *s, const struct shell_input *in);
static void report(const struct shell_input *in, uint64_t line, const char *sql, size_t size,
                   const struct sql_error *sql_err, const struct err *err);
static void show_place(const char *sql, size_t size, size_t offset);
static void say(const struct shell_input *in, uint64_t line, const char *text, size_t size);
static uint64_t count_lines(const char *from, const char *to);

bool shell_feed(struct shell *s, struct shell_input *in, const char *text, size_t size)
{
    while (size > 0 && !s->quit) {
        const char *end = memchr(text, '\n', size);
        size_t n = end != NULL ? (size_t)(end - text) + 1 : size;
        if (!feed_line(s, in, text, n)) return false;
        text += n;
        size -= n;
    }
    return !s->quit;
}

bool shell_feed_end(struct shell *s, struct shell_input *in)
{
    bool ok = true;
    if (in->split.any && !s->quit)
        ok = run_statement(s, in, (const char *)in->text.data, in->text.size, in->start);
    buf_reset(&in->text);
    in->split = (struct sql_split){0};
    in->at = 0;
    return ok && !s->quit;
}

void shell_input_fini(struct shell_input *in)
{
    buf_fini(&in->text);
}

enum rc shell_read_file(struct shell *s, const char *path, struct err *err)
{
    int fd = -1;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    enum rc rc = shell_read_fd(s, fd, path, err);
    os_close(fd);
    return rc;
}

enum rc shell_read_fd(struct shell *s, int fd, const char *name, struct err *err)
{
    CLEANUP(shell_input_fini) struct shell_input in = {.name = name};
    CLEANUP(buf_fini) struct buf piece = BUF_INIT;
    bool on = true;
    while (on) {
        TRY(buf_reserve(&piece, PIECE_SIZE, err));
        int64_t n = os_read_some(fd, piece.data + piece.size, PIECE_SIZE);
        if (n < 0) return err_sys(err, errno, "read '%s'", name);
        if (n == 0) break;
        piece.size += (size_t)n;
        /* Whole lines only. */
        const char *last = memrchr(piece.data, '\n', piece.size);
        if (last == NULL && piece.size <= SHELL_STATEMENT_MAX) continue;
        size_t whole = last != NULL ? (size_t)(last - (char *)piece.data) + 1 : piece.size;
        on = shell_feed(s, &in, (const char *)piece.data, whole);
        buf_drop_front(&piece, whole);
    }
    if (on) on = shell_feed(s, &in, (const char *)piece.data, piece.size);
    if (on) on = shell_feed_end(s, &in);
    if (on || s->quit) return RC_OK;
    return err_set(err, RC_CANCELED, "'%s': stopped at the failure", name);
}

enum rc shell_run(struct shell *s, const char *sql, size_t size, struct sql_error *sql_err,
                  struct err *err)
{
    struct sql_sink sink = shell_out_sink(&s->out);
    struct sql_stmt stmt = {.sql = sql, .sql_size = size, .want_rows = true};
    struct sql_done done = {0};
    struct err ignored;
    int64_t start_us = os_mono_us();
    enum rc rc = s->db->ops->run(s->db, &s->call, &stmt, &sink, &done, sql_err, err);
    bool rows = s->out.open;
    if (rc == RC_OK)
        rc = shell_out_end(&s->out, err);
    else if (shell_out_end(&s->out, &ignored) != RC_OK)
        return rc;
    if (rc == RC_OK && s->out.counts && !rows && done.affected > 0)
        printf("%llu row%s changed\n", (unsigned long long)done.affected,
               done.affected == 1 ? "" : "s");
    if (s->timer) {
        fflush(s->out.file);
        fprintf(stderr, "Time: %.3f ms\n", (double)(os_mono_us() - start_us) / 1000);
    }
    return rc;
}

static bool feed_line(struct shell *s, struct shell_input *in, const char *text, size_t size)
{
    struct err err;
    in->line++;
    if (sql_split_idle(&in->split) && text[0] == '.') return run_dot(s, in, text, size);
    if (in->text.size == 0) in->start = in->line;
    enum rc rc = RC_OK;
    if (in->text.size + size > SHELL_STATEMENT_MAX)
        rc =
            err_set(&err, RC_TOO_BIG, "a statement of more than %u MiB", SHELL_STATEMENT_MAX >> 20);
    else
        rc = buf_append(&in->text, text, size, &err);
    if (rc == RC_OK) return run_ready(s, in);
    say(in, in->start, err.text, strlen(err.text));
    buf_reset(&in->text);
    in->split = (struct sql_split){0};
    in->at = 0;
    return failed(s, in);
}

/* Every statement that is complete. */
static bool run_ready(struct shell *s, struct shell_input *in)
{
    size_t from = 0;
    const char *text = (const char *)in->text.data;
    while (sql_split_next(&in->split, text, in->text.size, &in->at)) {
        size_t end = in->at;
        uint64_t line = in->start;
        in->start += count_lines(text + from, text + end);
        if (!run_statement(s, in, text + from, end - from, line)) return false;
        from = end;
    }
    if (!in->split.any && sql_split_idle(&in->split)) from = in->text.size; /* blanks */
    if (from > 0) buf_drop_front(&in->text, from);
    in->at -= from;
    return !s->quit;
}

static bool run_statement(struct shell *s, struct shell_input *in, const char *sql, size_t size,
                          uint64_t line)
{
    const char *at = sql, *end = sql + size;
    struct sql_error sql_err = {.offset = -1};
    struct err err = {0};
    struct sql_token t = sql_token_next(&at, end);
    if (t.type == SQL_TOKEN_END || (t.type == SQL_TOKEN_OTHER && t.text[0] == ';')) return true;
    line += count_lines(sql, t.text);
    while (end > t.text && strchr(" \t\r\n", end[-1]) != NULL && end[-1] != '\0')
        end--;
    size = (size_t)(end - t.text);
    if (shell_run(s, t.text, size, &sql_err, &err) == RC_OK) return true;
    fflush(s->out.file); /* what was printed came first */
    report(in, line, t.text, size, &sql_err, &err);
    return failed(s, in);
}

static bool run_dot(struct shell *s, struct shell_input *in, const char *line, size_t size)
{
    struct err err = {0};
    if (shell_dot(s, line, size, &err) == RC_OK) return !s->quit;
    fflush(s->out.file);
    if (!s->told) say(in, in->line, err.text, strlen(err.text));
    s->told = false;
    return failed(s, in);
}

/* Only who sits before a terminal may want to go on. */
static bool failed(struct shell *s, const struct shell_input *in)
{
    s->failed = true;
    return s->interactive && in->name == NULL && !s->bail;
}

/* ---- Failures ---- */

const char *shell_message(const char *message)
{
    static const char *const fronts[] = {
        "SQLite error: ", "SQL input error: ", "SQL string could not be parsed: "};
    for (size_t i = 0; i < sizeof fronts / sizeof fronts[0]; i++)
        if (strncmp(message, fronts[i], strlen(fronts[i])) == 0) return message + strlen(fronts[i]);
    return message;
}

static void report(const struct shell_input *in, uint64_t line, const char *sql, size_t size,
                   const struct sql_error *sql_err, const struct err *err)
{
    const char *text = sql_err->code[0] != '\0' ? shell_message(sql_err->message) : err->text;
    if (err->rc == RC_CANCELED && sql_err->code[0] != '\0') text = "interrupted";
    size_t text_size = strlen(text);
    bool placed = sql_err->offset >= 0 && (size_t)sql_err->offset <= size;
    /* The caret says it better. */
    const char *mark = strstr(text, " (at offset ");
    if (placed && mark != NULL) text_size = (size_t)(mark - text);
    if (placed) line += count_lines(sql, sql + sql_err->offset);
    say(in, line, text, text_size);
    if (placed) show_place(sql, size, (size_t)sql_err->offset);
}

/* The line of the statement, cut around the place, and a caret below. */
static void show_place(const char *sql, size_t size, size_t offset)
{
    size_t from = offset, to = offset;
    while (from > 0 && sql[from - 1] != '\n')
        from--;
    while (to < size && sql[to] != '\n')
        to++;
    if (shell_text_width(sql + from, offset - from) > SHOWN_WIDTH / 2) {
        from = offset - SHOWN_WIDTH / 2;
        while (from < offset && ((uint8_t)sql[from] & 0xc0) == 0x80)
            from++;
    }
    if (to - from > SHOWN_WIDTH) {
        to = from + SHOWN_WIDTH;
        while (to > offset && ((uint8_t)sql[to] & 0xc0) == 0x80)
            to--;
    }
    fputs("    ", stderr);
    for (size_t i = from; i < to; i++)
        fputc((uint8_t)sql[i] < ' ' || sql[i] == 0x7f ? ' ' : sql[i], stderr);
    fprintf(stderr, "\n    %*s^\n", (int)shell_text_width(sql + from, offset - from), "");
}

/* "Error: file:12: text"; control characters of a text from elsewhere do not reach the terminal. */
static void say(const struct shell_input *in, uint64_t line, const char *text, size_t size)
{
    fputs("Error: ", stderr);
    if (in->name != NULL) fprintf(stderr, "%s:%llu: ", in->name, (unsigned long long)line);
    for (size_t i = 0; i < size; i++)
        fputc((uint8_t)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i], stderr);
    fputc('\n', stderr);
}

static uint64_t count_lines(const char *from, const char *to)
{
    uint64_t lines = 0;
    while (from < to && (from = memchr(from, '\n', (size_t)(to - from))) != NULL)
        lines++, from++;
    return lines;
}
