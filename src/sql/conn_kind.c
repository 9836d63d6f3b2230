/* conn_kind.c -- what a statement is, by its first words; see conn.h and conn_intern.h. */
#include <ctype.h>
#include <string.h>
#include <strings.h>
#include "sql/conn.h"
#include "sql/conn_intern.h"

enum token_type { TOKEN_END, TOKEN_WORD, TOKEN_OTHER };
struct token {
    enum token_type type;
    const char *text;
    size_t size;
};
struct scan {
    const char *at, *end;
};
struct word_kind {
    const char *word;
    enum sql_kind kind;
};

static const struct word_kind kinds[] = {
    {"SELECT", SQL_KIND_READ},         {"VALUES", SQL_KIND_READ},       {"EXPLAIN", SQL_KIND_READ},
    {"INSERT", SQL_KIND_WRITE},        {"UPDATE", SQL_KIND_WRITE},      {"DELETE", SQL_KIND_WRITE},
    {"REPLACE", SQL_KIND_WRITE},       {"CREATE", SQL_KIND_WRITE},      {"DROP", SQL_KIND_WRITE},
    {"ALTER", SQL_KIND_WRITE},         {"REINDEX", SQL_KIND_WRITE},     {"ANALYZE", SQL_KIND_WRITE},
    {"BEGIN", SQL_KIND_BEGIN},         {"COMMIT", SQL_KIND_END},        {"END", SQL_KIND_END},
    {"SAVEPOINT", SQL_KIND_SAVEPOINT}, {"RELEASE", SQL_KIND_SAVEPOINT},
};

static struct token next(struct scan *s);
static void skip_blank(struct scan *s);
static void skip_quoted(struct scan *s);
static bool is(const struct token *t, const char *word);
static enum sql_kind kind_of_with(struct scan *s);
static enum sql_kind kind_of_rollback(struct scan *s);
static bool word_byte(char ch);

enum sql_kind sql_kind_of(const char *sql, size_t size)
{
    struct scan s = {sql, sql + size};
    struct token t = next(&s);
    while (t.type == TOKEN_OTHER && t.text[0] == ';')
        t = next(&s);
    if (t.type != TOKEN_WORD) return SQL_KIND_OTHER;
    if (is(&t, "WITH")) return kind_of_with(&s);
    if (is(&t, "ROLLBACK")) return kind_of_rollback(&s);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (is(&t, kinds[i].word)) return kinds[i].kind;
    return SQL_KIND_OTHER;
}

enum conn_dialect conn_dialect_of(const char *sql, size_t size, size_t *ret_size)
{
    struct scan s = {sql, sql + size};
    struct token t = next(&s);
    while (t.type == TOKEN_OTHER && t.text[0] == ';')
        t = next(&s);
    if (is(&t, "VACUUM")) return DIALECT_VACUUM;
    if (!is(&t, "BEGIN")) return DIALECT_NONE;
    t = next(&s);
    enum conn_dialect found = DIALECT_NONE;
    /* libSQL has TRANSACTION before the word, SQLite after it; both are understood. */
    if (is(&t, "TRANSACTION")) t = next(&s);
    if (is(&t, "READONLY")) found = DIALECT_BEGIN_READONLY;
    if (is(&t, "CONCURRENT")) found = DIALECT_BEGIN_CONCURRENT;
    if (found == DIALECT_NONE) return DIALECT_NONE;
    t = next(&s);
    if (is(&t, "TRANSACTION")) t = next(&s);
    if (t.type != TOKEN_END && !(t.type == TOKEN_OTHER && t.text[0] == ';')) return DIALECT_NONE;
    *ret_size = (size_t)(s.at - sql);
    return found;
}

enum conn_end conn_end_of(const char *sql, size_t size, size_t *ret_size)
{
    struct scan s = {sql, sql + size};
    struct token t = next(&s);
    while (t.type == TOKEN_OTHER && t.text[0] == ';')
        t = next(&s);
    enum conn_end found = CONN_END_NONE;
    if (is(&t, "COMMIT") || is(&t, "END")) found = CONN_END_COMMIT;
    if (is(&t, "ROLLBACK")) found = CONN_END_ROLLBACK;
    if (found == CONN_END_NONE) return found;
    t = next(&s);
    if (is(&t, "TRANSACTION")) {
        t = next(&s);
        /* SQLite takes a name here and ignores it. */
        if (t.type == TOKEN_WORD && !is(&t, "TO")) t = next(&s);
    }
    if (t.type != TOKEN_END && !(t.type == TOKEN_OTHER && t.text[0] == ';')) return CONN_END_NONE;
    *ret_size = (size_t)(s.at - sql);
    return found;
}

bool conn_is_blank(const char *sql, size_t size)
{
    struct scan s = {sql, sql + size};
    struct token t = next(&s);
    while (t.type == TOKEN_OTHER && t.text[0] == ';')
        t = next(&s);
    return t.type == TOKEN_END;
}

size_t conn_last_piece(const char *sql, size_t size)
{
    struct scan s = {sql, sql + size};
    size_t start = 0;
    for (struct token t = next(&s); t.type != TOKEN_END; t = next(&s))
        if (t.type == TOKEN_OTHER && t.text[0] == ';') start = (size_t)(s.at - sql);
    return start;
}

size_t conn_most_tokens(const char *sql, size_t size)
{
    struct scan s = {sql, sql + size};
    size_t most = 0, count = 0;
    for (struct token t = next(&s); t.type != TOKEN_END; t = next(&s)) {
        count = t.type == TOKEN_OTHER && t.text[0] == ';' ? 0 : count + 1;
        if (count > most) most = count;
    }
    return most;
}

static struct token next(struct scan *s)
{
    skip_blank(s);
    struct token t = {TOKEN_END, s->at, 0};
    if (s->at == s->end) return t;
    t.type = TOKEN_OTHER;
    if (word_byte(*s->at)) {
        t.type = TOKEN_WORD;
        while (s->at < s->end && word_byte(*s->at))
            s->at++;
    } else if (strchr("'\"`[", *s->at) != NULL && *s->at != '\0') {
        skip_quoted(s);
    } else {
        s->at++;
    }
    t.size = (size_t)(s->at - t.text);
    return t;
}

/* White space as SQLite has it, and both kinds of comments; an open one ends with the text. */
static void skip_blank(struct scan *s)
{
    while (s->at < s->end) {
        size_t left = (size_t)(s->end - s->at);
        if (*s->at == ' ' || (*s->at >= '\t' && *s->at <= '\r' && *s->at != '\v')) {
            s->at++;
        } else if (left >= 3 && memcmp(s->at, "\xef\xbb\xbf", 3) == 0) {
            s->at += 3; /* a byte order mark */
        } else if (left >= 2 && memcmp(s->at, "--", 2) == 0) {
            const char *line = memchr(s->at, '\n', left);
            s->at = line != NULL ? line + 1 : s->end;
        } else if (left >= 3 && memcmp(s->at, "/*", 2) == 0) {
            const char *close = memmem(s->at + 2, left - 2, "*/", 2);
            s->at = close != NULL ? close + 2 : s->end;
        } else {
            return;
        }
    }
}

/* A quote inside is written twice; that reads as two quoted tokens in a row, which is fine here. */
static void skip_quoted(struct scan *s)
{
    char close = *s->at == '[' ? ']' : *s->at;
    s->at++;
    const char *end = memchr(s->at, close, (size_t)(s->end - s->at));
    s->at = end != NULL ? end + 1 : s->end;
}

static bool is(const struct token *t, const char *word)
{
    return t->type == TOKEN_WORD && t->size == strlen(word) &&
           strncasecmp(t->text, word, t->size) == 0;
}

/* WITH a AS (...), b AS (...) SELECT | INSERT | ...: the first verb outside of brackets. */
static enum sql_kind kind_of_with(struct scan *s)
{
    int depth = 0;
    for (struct token t = next(s); t.type != TOKEN_END; t = next(s)) {
        if (t.type == TOKEN_OTHER && t.text[0] == '(') depth++;
        if (t.type == TOKEN_OTHER && t.text[0] == ')') depth--;
        if (t.type != TOKEN_WORD || depth != 0) continue;
        if (is(&t, "SELECT") || is(&t, "VALUES")) return SQL_KIND_READ;
        if (is(&t, "INSERT") || is(&t, "UPDATE") || is(&t, "DELETE") || is(&t, "REPLACE"))
            return SQL_KIND_WRITE;
    }
    return SQL_KIND_OTHER;
}

static enum sql_kind kind_of_rollback(struct scan *s)
{
    struct token t = next(s);
    if (is(&t, "TRANSACTION")) t = next(s);
    return is(&t, "TO") ? SQL_KIND_SAVEPOINT : SQL_KIND_END;
}

static bool word_byte(char ch)
{
    return isalnum((unsigned char)ch) || ch == '_' || ch == '$' || (ch & 0x80) != 0;
}
