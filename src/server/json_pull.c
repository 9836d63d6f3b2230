/* json_pull.c -- see json_pull.h. */
#include "server/json_pull.h"
#include <string.h>

static enum rc fail(struct pull *p, const char *what);
static void blanks(struct pull *p);
static enum rc string_end(struct pull *p, bool *ret_escaped);
static enum rc unescape(struct pull *p, const uint8_t *from, size_t size, struct pull_text *ret_s);
static enum rc escape(struct pull *p, const uint8_t **at, uint8_t **to);
static bool hex4(const uint8_t *s, const uint8_t *end, uint32_t *ret_v);
static uint8_t *utf8_put(uint32_t c, uint8_t *to);
static size_t digits(struct pull *p);

void pull_init(struct pull *p, struct arena *a, const void *data, size_t size, unsigned depth_max,
               struct err *err)
{
    *p = (struct pull){.at = data, .start = data, .depth_max = depth_max, .arena = a, .err = err};
    p->end = size > 0 ? p->at + size : p->at;
}

enum rc pull_peek(struct pull *p, enum pull_type *ret_type)
{
    blanks(p);
    if (p->at == p->end) return fail(p, "it ends too early");
    switch (*p->at) {
    case '{':
    case '[':
    case '"':
    case 't':
    case 'f':
    case 'n':
        *ret_type = (enum pull_type) * p->at;
        return RC_OK;
    default:
        if (*p->at != '-' && (*p->at < '0' || *p->at > '9')) return fail(p, "expected a value");
        *ret_type = PULL_NUMBER;
        return RC_OK;
    }
}

enum rc pull_enter(struct pull *p)
{
    if (++p->depth > p->depth_max)
        return err_set(p->err, RC_TOO_BIG, "JSON is nested deeper than %u levels", p->depth_max);
    p->at++;
    p->fresh = true;
    return RC_OK;
}

enum rc pull_next_item(struct pull *p, bool *ret_more)
{
    bool first = p->fresh;
    p->fresh = false;
    blanks(p);
    *ret_more = true;
    if (p->at < p->end && *p->at == ']') {
        p->at++;
        p->depth--;
        *ret_more = false;
        return RC_OK;
    }
    if (first) return RC_OK;
    if (p->at == p->end || *p->at != ',') return fail(p, "expected ',' or ']'");
    p->at++;
    return RC_OK;
}

enum rc pull_next_key(struct pull *p, bool *ret_more, struct pull_text *key)
{
    bool first = p->fresh;
    p->fresh = false;
    blanks(p);
    *ret_more = true;
    if (p->at < p->end && *p->at == '}') {
        p->at++;
        p->depth--;
        *ret_more = false;
        return RC_OK;
    }
    if (!first) {
        if (p->at == p->end || *p->at != ',') return fail(p, "expected ',' or '}'");
        p->at++;
        blanks(p);
    }
    if (p->at == p->end || *p->at != '"') return fail(p, "expected a key");
    TRY(pull_string(p, key));
    if (memchr(key->data, 0, key->size) != NULL) return fail(p, "a key holds a NUL");
    blanks(p);
    if (p->at == p->end || *p->at != ':') return fail(p, "expected ':'");
    p->at++;
    return RC_OK;
}

enum rc pull_string(struct pull *p, struct pull_text *ret_s)
{
    const uint8_t *from = p->at + 1;
    bool escaped;
    TRY(string_end(p, &escaped));
    size_t size = (size_t)(p->at - from) - 1;
    if (escaped) return unescape(p, from, size, ret_s);
    *ret_s = (struct pull_text){(const char *)from, size};
    return RC_OK;
}

enum rc pull_number(struct pull *p, struct pull_text *ret_s)
{
    const uint8_t *from = p->at;
    if (*p->at == '-') p->at++;
    bool zero = p->at < p->end && *p->at == '0';
    size_t whole = digits(p);
    if (whole == 0 || (zero && whole > 1)) return fail(p, "a number is malformed");
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        if (digits(p) == 0) return fail(p, "a number is malformed");
    }
    if (p->at < p->end && (*p->at | 0x20) == 'e') {
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
        if (digits(p) == 0) return fail(p, "a number is malformed");
    }
    *ret_s = (struct pull_text){(const char *)from, (size_t)(p->at - from)};
    return RC_OK;
}

enum rc pull_literal(struct pull *p)
{
    const char *word = *p->at == 't' ? "true" : *p->at == 'f' ? "false" : "null";
    size_t size = strlen(word);
    if ((size_t)(p->end - p->at) < size || memcmp(p->at, word, size) != 0)
        return fail(p, "expected a value");
    p->at += size;
    return RC_OK;
}

enum rc pull_skip(struct pull *p)
{
    enum pull_type type;
    struct pull_text text;
    bool more, escaped;
    TRY(pull_peek(p, &type));
    switch (type) {
    case PULL_STRING: {
        /* The escapes of a text that nobody wants must be right all the same. */
        const uint8_t *from = p->at + 1;
        TRY(string_end(p, &escaped));
        return escaped ? unescape(p, from, (size_t)(p->at - from) - 1, &text) : RC_OK;
    }
    case PULL_NUMBER:
        return pull_number(p, &text);
    case PULL_OBJECT:
        TRY(pull_enter(p));
        for (;;) {
            TRY(pull_next_key(p, &more, &text));
            if (!more) return RC_OK;
            TRY(pull_skip(p));
        }
    case PULL_ARRAY:
        TRY(pull_enter(p));
        for (;;) {
            TRY(pull_next_item(p, &more));
            if (!more) return RC_OK;
            TRY(pull_skip(p));
        }
    case PULL_TRUE:
    case PULL_FALSE:
    case PULL_NULL:
        break;
    }
    return pull_literal(p);
}

enum rc pull_end(struct pull *p)
{
    blanks(p);
    if (p->at != p->end) return fail(p, "something follows its end");
    return RC_OK;
}

static enum rc fail(struct pull *p, const char *what)
{
    return err_set(p->err, RC_INVALID, "JSON at byte %zu: %s", (size_t)(p->at - p->start), what);
}

static void blanks(struct pull *p)
{
    while (p->at < p->end && (*p->at == ' ' || (*p->at >= '\t' && *p->at <= '\r'))) {
        if (*p->at == '\v' || *p->at == '\f') return;
        p->at++;
    }
}

/* From the opening quote to behind the closing one. */
static enum rc string_end(struct pull *p, bool *ret_escaped)
{
    *ret_escaped = false;
    p->at++;
    for (;;) {
        p->at += hrana_plain(p->at, p->end);
        if (p->at == p->end) return fail(p, "a text has no end");
        uint8_t c = *p->at;
        size_t n = 1, bad;
        if (c == '"') break;
        if (c == '\\') {
            if (p->end - p->at < 2) return fail(p, "a text has no end");
            *ret_escaped = true;
            n = 2;
            if (p->at[1] < 0x20 || p->at[1] >= 0x80) return fail(p, "an escape is malformed");
        } else if (c >= 0x80) {
            n = hrana_utf8(p->at, (size_t)(p->end - p->at), &bad);
            if (n == 0) return fail(p, "a text is not UTF-8");
        } else {
            return fail(p, "a text holds a control character");
        }
        p->at += n;
    }
    p->at++;
    return RC_OK;
}

static enum rc unescape(struct pull *p, const uint8_t *from, size_t size, struct pull_text *ret_s)
{
    void *room;
    TRY(arena_take(p->arena, size, &room, p->err)); /* an escape is longer than what it means */
    const uint8_t *at = from, *end = from + size;
    uint8_t *to = room;
    while (at < end) {
        const uint8_t *slash = memchr(at, '\\', (size_t)(end - at));
        size_t n = (size_t)((slash != NULL ? slash : end) - at);
        memcpy(to, at, n);
        to += n;
        at += n;
        if (slash != NULL) TRY(escape(p, &at, &to));
    }
    *ret_s = (struct pull_text){room, (size_t)(to - (uint8_t *)room)};
    return RC_OK;
}

static enum rc escape(struct pull *p, const uint8_t **at, uint8_t **to)
{
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const uint8_t *s = *at + 1, *end = p->at - 1; /* the closing quote */
    if (*s != 'u') {
        const char *name = memchr(names, *s, sizeof names - 1);
        if (name == NULL) return fail(p, "an escape is unknown");
        *(*to)++ = (uint8_t)means[name - names];
        *at = s + 1;
        return RC_OK;
    }
    uint32_t c, low;
    if (!hex4(++s, end, &c)) return fail(p, "an escape is malformed");
    s += 4;
    if (c >= 0xd800 && c <= 0xdfff) {
        bool pair = c <= 0xdbff && end - s >= 6 && s[0] == '\\' && s[1] == 'u' &&
                    hex4(s + 2, end, &low) && low >= 0xdc00 && low <= 0xdfff;
        if (!pair) return fail(p, "half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        s += 6;
    }
    *to = utf8_put(c, *to);
    *at = s;
    return RC_OK;
}

static bool hex4(const uint8_t *s, const uint8_t *end, uint32_t *ret_v)
{
    uint32_t v = 0;
    if (end - s < 4) return false;
    for (int i = 0; i < 4; i++) {
        uint8_t low = s[i] | 0x20;
        uint32_t digit = s[i] >= '0' && s[i] <= '9' ? s[i] - 48u
                         : low >= 'a' && low <= 'f' ? low - 'a' + 10u
                                                    : 16;
        if (digit == 16) return false;
        v = v << 4 | digit;
    }
    *ret_v = v;
    return true;
}

static uint8_t *utf8_put(uint32_t c, uint8_t *to)
{
    if (c < 0x80) {
        *to++ = (uint8_t)c;
        return to;
    }
    unsigned more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3; /* bytes that follow */
    *to++ = (uint8_t)(0xff00 >> (more + 1) | c >> 6 * more);
    while (more-- > 0)
        *to++ = (uint8_t)(0x80 | (c >> 6 * more & 0x3f));
    return to;
}

static size_t digits(struct pull *p)
{
    const uint8_t *from = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9')
        p->at++;
    return (size_t)(p->at - from);
}
