/* hrana_suite.h -- what the tests of both codecs do with a body: decode it, and expect a text of
 * what was understood (hrana_dump.h) or a word of why it was not. */
#ifndef TESTS_SERVER_HRANA_SUITE_H
#define TESTS_SERVER_HRANA_SUITE_H
#include "server/hrana_make.h"

static struct arena *arena;
static struct err err;

static int setup(void **state)
{
    (void)state;
    return arena_new(64u << 20, &arena, &err) == RC_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

/* 'p' pipeline of version 3, '2' of version 2, 'c' cursor, 'w' WebSocket 3, 'x' 2, 'y' 1; JSON
 * only: 'e' v1 execute, 'b' v1 batch. The input has no byte after its end. */
static enum rc decode_as(const struct hrana_decoder *d, char how, const void *data, size_t size,
                         struct buf *text)
{
    struct hrana_pipeline p;
    struct hrana_cursor_body c;
    struct hrana_ws_msg m;
    struct hrana_request r;
    enum rc rc;
    arena_reset(arena);
    err.text[0] = '\0';
    void *copy = malloc(size > 0 ? size : 1);
    if (size > 0) memcpy(copy, data, size);
    if (how == 'p' || how == '2') {
        rc = d->pipeline(arena, how == 'p' ? HRANA_3 : HRANA_2, copy, size, &p, &err);
        if (rc == RC_OK && text != NULL) dump_pipeline(text, &p);
    } else if (how == 'c') {
        rc = d->cursor(arena, copy, size, &c, &err);
        if (rc == RC_OK && text != NULL) dump_cursor(text, &c);
    } else if (how == 'e' || how == 'b') {
        rc = hrana_json_v1(arena, copy, size, how == 'b', &r, &err);
        if (rc == RC_OK && text != NULL) dump_request(text, &r);
    } else {
        enum hrana_version v = how == 'w' ? HRANA_3 : how == 'x' ? HRANA_2 : HRANA_1;
        rc = d->ws(arena, v, copy, size, &m, &err);
        if (rc == RC_OK && text != NULL) dump_ws(text, &m);
    }
    if (rc != RC_OK) assert_true(err.text[0] != '\0');
    free(copy);
    return rc;
}

static void good_as(const struct hrana_decoder *d, char how, const void *data, size_t size,
                    const char *want, int line)
{
    struct buf text = BUF_INIT;
    if (decode_as(d, how, data, size, &text) != RC_OK) fail_msg("line %d: %s", line, err.text);
    say(&text, "%c", 0);
    assert_string_equal((char *)text.data, want);
    buf_fini(&text);
}

static void bad_as(const struct hrana_decoder *d, char how, const void *data, size_t size,
                   const char *want, int line)
{
    enum rc rc = decode_as(d, how, data, size, NULL);
    if (rc != RC_INVALID) fail_msg("line %d: %s", line, rc_name(rc));
    if (strstr(err.text, want) == NULL) fail_msg("line %d: '%s', not '%s'", line, err.text, want);
}
#endif
