/*
 * token.h -- SQL text in pieces, without understanding it: tokens, and where statements end.
 * Pure; any bytes may come.
 */
#ifndef SQL_TOKEN_H
#define SQL_TOKEN_H
#include "base/err.h"

enum sql_token_type { SQL_TOKEN_END, SQL_TOKEN_WORD, SQL_TOKEN_QUOTED, SQL_TOKEN_OTHER };
struct sql_token {
    enum sql_token_type type; /* OTHER: one byte. A QUOTED one has its quotes; an open one ends with
                                 the text */
    const char *text;
    size_t size;
};
/* The next token of [*at, end), behind blanks and comments; *at moves behind it. */
struct sql_token sql_token_next(const char **at, const char *end);
bool sql_token_is(const struct sql_token *t, const char *word); /* in any case */

/*
 * Statements of a text that may come in pieces. Zeroed: before a statement. A ';' inside of quotes,
 * of comments and of a trigger's body does not end one.
 */
struct sql_split {
    bool any; /* of this statement, more than blanks and comments was seen */
    /* private */
    uint8_t lex, phase, word_size;
    char word[10];
};
/* Go on at text[*at], which is what follows on the last call's piece; a piece ends with a line or
 * with the whole text. True: a statement ends before the new *at, and *s is ready for the next.
 * False: *at is size. */
bool sql_split_next(struct sql_split *s, const char *text, size_t size, size_t *at);
/* Nothing of a statement was seen, and no comment is open. */
bool sql_split_idle(const struct sql_split *s);
/* What must follow on one statement of a schema to end it: ";", or more when it ends in a comment.
 */
const char *sql_text_end(const char *sql, size_t size);

/* Bytes of the character of UTF-8 at text, 1 to 4; 0: there is none, or size is 0. */
size_t sql_char_size(const void *text, size_t size);
#endif
