/*
 * json_pull.h -- JSON read in place, one token after another, without a tree: the caller asks for
 * what it expects, and skips what it does not know (which is checked all the same).
 *
 * Strict as RFC 8259 in form and in UTF-8; lone surrogates are refused, NUL in a string is fine but
 * not in a key. Texts point into the input unless they hold escapes; then they are in the arena.
 * A number is given as its text, so that nothing is lost.
 */
#ifndef SERVER_JSON_PULL_H
#define SERVER_JSON_PULL_H
#include "server/hrana_intern.h"

struct pull {
    const uint8_t *at, *end, *start;
    unsigned depth, depth_max;
    bool fresh; /* nothing of the object or array at hand has been read */
    struct arena *arena;
    struct err *err;
};
struct pull_text {
    const char *data; /* not terminated */
    size_t size;
};
enum pull_type { /* the value of a literal is its first letter */
                 PULL_OBJECT = '{',
                 PULL_ARRAY = '[',
                 PULL_STRING = '"',
                 PULL_NUMBER = '0',
                 PULL_TRUE = 't',
                 PULL_FALSE = 'f',
                 PULL_NULL = 'n'
};

/* All fail with RC_INVALID (the text says where), RC_TOO_BIG (depth, arena) or RC_NO_MEM. */
void pull_init(struct pull *p, struct arena *a, const void *data, size_t size, unsigned depth_max,
               struct err *err);
/* What comes next? Only its first byte is looked at. */
MUST_CHECK enum rc pull_peek(struct pull *p, enum pull_type *ret_type);
/* Walk an object or an array that peek has announced: enter, then `next` until *ret_more is false;
 * each time the value must be read or skipped. */
MUST_CHECK enum rc pull_enter(struct pull *p);
MUST_CHECK enum rc pull_next_key(struct pull *p, bool *ret_more, struct pull_text *key);
MUST_CHECK enum rc pull_next_item(struct pull *p, bool *ret_more);
MUST_CHECK enum rc pull_string(struct pull *p, struct pull_text *ret_s);
MUST_CHECK enum rc pull_number(struct pull *p, struct pull_text *ret_s);
MUST_CHECK enum rc pull_literal(struct pull *p); /* true, false or null */
MUST_CHECK enum rc pull_skip(struct pull *p);
MUST_CHECK enum rc pull_end(struct pull *p); /* nothing but blanks may follow */
#endif
