/* token.c -- see token.h. */
#include "sql/token.h"
#include <ctype.h>
#include <string.h>
#include <strings.h>

enum lex { LEX_PLAIN, LEX_QUOTE, LEX_DOUBLE, LEX_BACK, LEX_BRACKET, LEX_LINE, LEX_BLOCK };
/* CREATE TRIGGER is the one statement with others inside; its end is "; END ;". */
enum phase { START, NORMAL, EXPLAIN, CREATE, TRIGGER, TRIGGER_SEMI, TRIGGER_END };

static void skip_blank(const char **at, const char *end);
static size_t scan_plain(struct sql_split *s, const char *text, size_t size, size_t at,
                         bool *ret_ends);
static size_t skip_to(struct sql_split *s, const char *text, size_t size, size_t at);
static void end_word(struct sql_split *s);
static bool semicolon(struct sql_split *s);
static bool word_is(const struct sql_split *s, const char *word);
static bool blank(char ch);
static bool word_byte(char ch);

struct sql_token sql_token_next(const char **at, const char *end)
{
    skip_blank(at, end);
    struct sql_token t = {SQL_TOKEN_END, *at, 0};
    if (*at == end) return t;
    char first = **at;
    t.type = SQL_TOKEN_OTHER;
    if (word_byte(first)) {
        t.type = SQL_TOKEN_WORD;
        while (*at < end && word_byte(**at))
            ++*at;
    } else if (first == '\'' || first == '"' || first == '`' || first == '[') {
        char close = first == '[' ? ']' : first;
        t.type = SQL_TOKEN_QUOTED;
        for (++*at; *at < end; ++*at) {
            if (**at != close) continue;
            /* A quote that is written twice stands for itself; brackets know no such thing. */
            if (close == ']' || *at + 1 == end || (*at)[1] != close) break;
            ++*at;
        }
        if (*at < end) ++*at;
    } else {
        ++*at;
    }
    t.size = (size_t)(*at - t.text);
    return t;
}

bool sql_token_is(const struct sql_token *t, const char *word)
{
    return t->type == SQL_TOKEN_WORD && t->size == strlen(word) &&
           strncasecmp(t->text, word, t->size) == 0;
}

bool sql_split_next(struct sql_split *s, const char *text, size_t size, size_t *at)
{
    bool ends = false;
    while (*at < size && !ends) {
        if (s->lex == LEX_PLAIN)
            *at = scan_plain(s, text, size, *at, &ends);
        else
            *at = skip_to(s, text, size, *at);
    }
    if (ends) *s = (struct sql_split){0};
    return ends;
}

bool sql_split_idle(const struct sql_split *s)
{
    return !s->any && s->lex == LEX_PLAIN;
}

const char *sql_text_end(const char *sql, size_t size)
{
    struct sql_split s = {0};
    for (size_t at = 0; at < size;)
        sql_split_next(&s, sql, size, &at);
    if (s.lex == LEX_LINE) return "\n;";
    return s.lex == LEX_BLOCK ? "*/;" : ";";
}

size_t sql_char_size(const void *text, size_t size)
{
    const uint8_t *p = text;
    if (size == 0) return 0;
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || size < n) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    /* Longer than need be, a surrogate, beyond the last one. */
    bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
               (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : n;
}

static void skip_blank(const char **at, const char *end)
{
    while (*at < end) {
        size_t left = (size_t)(end - *at);
        if (blank(**at)) {
            ++*at;
        } else if (left >= 2 && memcmp(*at, "--", 2) == 0) {
            const char *line = memchr(*at, '\n', left);
            *at = line != NULL ? line + 1 : end;
        } else if (left >= 2 && memcmp(*at, "/*", 2) == 0) {
            const char *close = memmem(*at + 2, left - 2, "*/", 2);
            *at = close != NULL ? close + 2 : end;
        } else {
            return;
        }
    }
}

/* Up to a quote, a comment or the end of a statement, and over its first byte. */
static size_t scan_plain(struct sql_split *s, const char *text, size_t size, size_t at,
                         bool *ret_ends)
{
    static const char quotes[] = "'\"`[";
    for (; at < size; at++) {
        char ch = text[at], next = at + 1 < size ? text[at + 1] : '\0';
        if (word_byte(ch)) {
            if (s->word_size < sizeof s->word) s->word[s->word_size++] = ch;
            s->any = true;
            continue;
        }
        end_word(s);
        if (blank(ch)) continue;
        if (ch == '-' && next == '-') {
            s->lex = LEX_LINE;
            return at + 2;
        }
        if (ch == '/' && next == '*') {
            s->lex = LEX_BLOCK;
            return at + 2;
        }
        if (ch == ';') {
            *ret_ends = semicolon(s);
            if (*ret_ends) return at + 1;
            continue;
        }
        s->any = true;
        s->phase = s->phase >= TRIGGER ? TRIGGER : NORMAL;
        const char *quote = ch != '\0' ? strchr(quotes, ch) : NULL;
        if (quote == NULL) continue;
        s->lex = (uint8_t)(LEX_QUOTE + (quote - quotes));
        return at + 1;
    }
    /* Pieces end with lines, so a word does not go on in the next one. */
    end_word(s);
    return at;
}

/* Over the end of what is open. A quote that is written twice closes and opens again. */
static size_t skip_to(struct sql_split *s, const char *text, size_t size, size_t at)
{
    static const char close[] = "?'\"`]\n";
    const char *found = s->lex == LEX_BLOCK ? memmem(text + at, size - at, "*/", 2)
                                            : memchr(text + at, close[s->lex], size - at);
    if (found == NULL) return size;
    at = (size_t)(found - text) + (s->lex == LEX_BLOCK ? 2 : 1);
    s->lex = LEX_PLAIN;
    return at;
}

static void end_word(struct sql_split *s)
{
    if (s->word_size == 0) return;
    switch ((enum phase)s->phase) {
    case START:
        s->phase = word_is(s, "CREATE") ? CREATE : word_is(s, "EXPLAIN") ? EXPLAIN : NORMAL;
        break;
    case EXPLAIN:
        if (word_is(s, "CREATE"))
            s->phase = CREATE;
        else if (!word_is(s, "QUERY") && !word_is(s, "PLAN"))
            s->phase = NORMAL;
        break;
    case CREATE:
        if (word_is(s, "TRIGGER"))
            s->phase = TRIGGER;
        else if (!word_is(s, "TEMP") && !word_is(s, "TEMPORARY"))
            s->phase = NORMAL;
        break;
    case TRIGGER_SEMI:
        s->phase = word_is(s, "END") ? TRIGGER_END : TRIGGER;
        break;
    case TRIGGER_END:
        s->phase = TRIGGER;
        break;
    case NORMAL:
    case TRIGGER:
        break;
    }
    s->word_size = 0;
}

static bool semicolon(struct sql_split *s)
{
    if (s->phase != TRIGGER && s->phase != TRIGGER_SEMI) return true;
    s->phase = TRIGGER_SEMI;
    return false;
}

/* A longer word than there is room for is none of ours. */
static bool word_is(const struct sql_split *s, const char *word)
{
    return s->word_size == strlen(word) && strncasecmp(s->word, word, s->word_size) == 0;
}

static bool blank(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r' && ch != '\v');
}

static bool word_byte(char ch)
{
    return isalnum((unsigned char)ch) || ch == '_' || ch == '$' || (ch & 0x80) != 0;
}
