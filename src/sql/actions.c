/* actions.c -- see actions.h. */
#include "sql/actions.h"
#include <sqlite3.h>
#include <string.h>
#include <strings.h>

/* Words before the present one, and how deep in brackets. */
struct scan {
    const char *at, *end;
    const char *word; /* NULL: not a word */
    size_t size;
    char sign; /* what it is instead; 0: the end */
};
struct state {
    char before[3][8]; /* the latest first; "" for what is no short word */
    bool into;         /* INTO was there in this statement */
    int depth, copy_depth;
    bool star, copy; /* SELECT * was there; INSERT INTO ... SELECT * FROM was there */
    bool copy_star;  /* this SELECT * may be a copy */
    unsigned tricks;
};

static struct sql_action pragma_of(const char *name, const char *value);
static const char *user_table(const char *name);
static void next(struct scan *s);
static void skip_quoted(struct scan *s, char end);
static bool skip_blank(struct scan *s);
static void skip_variable(struct scan *s);
static bool is_word(char c);
static void on_word(struct state *st, const struct scan *s);
static void on_sign(struct state *st, char sign);
static void end_statement(struct state *st);
static void remember(struct state *st, const char *word, size_t size);
static bool is(const char *a, const char *b);

struct sql_action sql_action_of(int code, const char *a, const char *b)
{
    switch (code) {
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
        return (struct sql_action){.act = SQL_ACT_NOTHING};
    case SQLITE_READ:
        return (struct sql_action){.act = SQL_ACT_READ, .name = a, .column = b != NULL ? b : ""};
    case SQLITE_INSERT:
        return (struct sql_action){.act = SQL_ACT_INSERT, .name = a};
    case SQLITE_UPDATE:
        return (struct sql_action){.act = SQL_ACT_UPDATE,
                                   .name = a,
                                   .column = b != NULL ? b : "ROWID",
                                   .any_column = b == NULL || is(b, "rowid")};
    case SQLITE_DELETE:
        return (struct sql_action){.act = SQL_ACT_DELETE, .name = a};
    case SQLITE_CREATE_TABLE:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_VIEW:
    case SQLITE_CREATE_TEMP_VIEW:
    case SQLITE_CREATE_VTABLE:
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_TEMP_TABLE:
    case SQLITE_DROP_VIEW:
    case SQLITE_DROP_TEMP_VIEW:
    case SQLITE_DROP_VTABLE:
    case SQLITE_ANALYZE:
        return (struct sql_action){.act = SQL_ACT_SCHEMA, .name = user_table(a)};
    case SQLITE_CREATE_INDEX: /* a: the index, the trigger */
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TRIGGER:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_DROP_INDEX:
    case SQLITE_DROP_TEMP_INDEX:
    case SQLITE_DROP_TRIGGER:
    case SQLITE_DROP_TEMP_TRIGGER:
    case SQLITE_ALTER_TABLE: /* a: the database */
        return (struct sql_action){.act = SQL_ACT_SCHEMA, .name = user_table(b)};
    case SQLITE_REINDEX: /* tells the index only */
        return (struct sql_action){.act = SQL_ACT_SCHEMA};
    case SQLITE_PRAGMA:
        return pragma_of(a, b);
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
        return (struct sql_action){.act = SQL_ACT_TRANSACTION, .name = a};
    case SQLITE_FUNCTION:
        return (struct sql_action){.act = SQL_ACT_FUNCTION, .name = b};
    case SQL_ACTION_UNSEEN:
        return (struct sql_action){.act = SQL_ACT_UNSEEN};
    default:
        return (struct sql_action){.act = SQL_ACT_ATTACH, .name = a};
    }
}

unsigned sql_tricks_of(const char *sql, size_t size)
{
    struct scan s = {.at = sql, .end = sql + size};
    struct state st = {0};
    for (;;) {
        next(&s);
        if (s.word == NULL && s.sign == '\0') break;
        if (s.word != NULL)
            on_word(&st, &s);
        else
            on_sign(&st, s.sign);
    }
    end_statement(&st);
    return st.tricks;
}

static struct sql_action pragma_of(const char *name, const char *value)
{
    static const char *const with_value[] = {"application_id", "auto_vacuum", "user_version", NULL};
    static const char *const always[] = {"incremental_vacuum", "optimize", "vacuum", NULL};
    if (name == NULL) return (struct sql_action){.act = SQL_ACT_PRAGMA};
    /* A virtual table asks for it before it reads what it has cached. */
    if (is(name, "data_version")) return (struct sql_action){.act = SQL_ACT_NOTHING};
    for (size_t i = 0; always[i] != NULL; i++)
        if (is(name, always[i])) return (struct sql_action){.act = SQL_ACT_SCHEMA};
    for (size_t i = 0; with_value[i] != NULL && value != NULL; i++)
        if (is(name, with_value[i])) return (struct sql_action){.act = SQL_ACT_SCHEMA};
    return (struct sql_action){.act = SQL_ACT_PRAGMA, .name = name};
}

/* ANALYZE creates sqlite_stat1: no one's table, and no one can create such a name by hand. */
static const char *user_table(const char *name)
{
    return name != NULL && strncasecmp(name, "sqlite_", 7) == 0 ? NULL : name;
}

/* ---- Text ---- */

/* Words, and of the rest only what matters: brackets, ';' and '*'. */
static void next(struct scan *s)
{
    s->word = NULL;
    s->sign = '\0';
    while (s->at < s->end) {
        char c = *s->at;
        if (c == '\0') return; /* SQLite reads no further */
        if (skip_blank(s)) continue;
        if (memchr("$@#:", c, 4) != NULL) {
            skip_variable(s);
            s->sign = 'v';
            return;
        }
        if (c == '\'' || c == '"' || c == '`' || c == '[') {
            skip_quoted(s, (char)(c == '[' ? ']' : c));
            s->sign = 'q';
            return;
        }
        if (is_word(c)) {
            s->word = s->at;
            while (s->at < s->end && is_word(*s->at))
                s->at++;
            s->size = (size_t)(s->at - s->word);
            return;
        }
        s->at++;
        s->sign = c;
        return;
    }
}

static void skip_quoted(struct scan *s, char end)
{
    for (s->at++; s->at < s->end; s->at++) {
        if (*s->at != end) continue;
        s->at++;
        /* A quote that is doubled goes on as a second text; for us that is the same. */
        return;
    }
}

/* White space, a comment, or a byte order mark, which SQLite takes for white space. */
static bool skip_blank(struct scan *s)
{
    size_t left = (size_t)(s->end - s->at);
    if (memchr(" \t\r\n\f\v", *s->at, 6) != NULL) {
        s->at++;
        return true;
    }
    if (left >= 3 && memcmp(s->at, "\xEF\xBB\xBF", 3) == 0) {
        s->at += 3;
        return true;
    }
    if (left < 2) return false;
    if (s->at[0] == '-' && s->at[1] == '-') {
        const char *line = memchr(s->at, '\n', left);
        s->at = line != NULL ? line : s->end;
        return true;
    }
    if (s->at[0] != '/' || s->at[1] != '*') return false;
    const char *end = memmem(s->at + 2, left - 2, "*/", 2);
    s->at = end != NULL ? end + 2 : s->end;
    return true;
}

/* A name may go on in brackets, as in Tcl, and a quote in there opens no text: $a('), $a::(') */
static void skip_variable(struct scan *s)
{
    bool named = false;
    for (s->at++; s->at < s->end; s->at++) {
        named = named || is_word(*s->at);
        if (is_word(*s->at) || *s->at == ':') continue;
        if (*s->at != '(' || !named) return;
        while (s->at < s->end && memchr(") \t\r\n\f\v", *s->at, 7) == NULL)
            s->at++;
        if (s->at < s->end && *s->at == ')') s->at++;
        return;
    }
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || ((unsigned char)c & 0x80) != 0;
}

static void on_word(struct state *st, const struct scan *s)
{
    char word[8] = ""; /* longer ones are of no interest */
    if (s->size < sizeof word) memcpy(word, s->word, s->size);
    if (is(word, "natural")) st->tricks |= SQL_TRICK_UNSEEN;
    if (is(word, "into")) {
        st->into = true;
        if (is(st->before[0], "replace")) st->tricks |= SQL_TRICK_REPLACE;
    }
    if (is(word, "replace") && is(st->before[0], "or") &&
        (is(st->before[1], "insert") || is(st->before[1], "update")))
        st->tricks |= SQL_TRICK_REPLACE;
    if (is(word, "select")) st->copy_star = st->into && st->before[0][0] != '(';
    if (is(word, "from") && st->star && st->copy_star) {
        st->copy = true;
        st->copy_depth = st->depth;
    }
    if (is(word, "where") && st->copy && st->depth == st->copy_depth) st->copy = false;
    st->star = false;
    remember(st, word, strlen(word));
}

static void on_sign(struct state *st, char sign)
{
    if (sign == '(' && is(st->before[0], "using")) st->tricks |= SQL_TRICK_UNSEEN;
    if (sign == '(') st->depth++;
    if (sign == ')') st->depth--;
    if (sign == ';') end_statement(st);
    st->star = sign == '*' && (is(st->before[0], "select") ||
                               (is(st->before[0], "all") && is(st->before[1], "select")));
    remember(st, &sign, 1);
}

static void end_statement(struct state *st)
{
    if (st->copy) st->tricks |= SQL_TRICK_UNSEEN;
    st->into = st->copy = st->copy_star = st->star = false;
}

static void remember(struct state *st, const char *word, size_t size)
{
    memmove(st->before[1], st->before[0], 2 * sizeof st->before[0]);
    memset(st->before[0], 0, sizeof st->before[0]);
    memcpy(st->before[0], word, size);
}

static bool is(const char *a, const char *b)
{
    return strcasecmp(a, b) == 0;
}
