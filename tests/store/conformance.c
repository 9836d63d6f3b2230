/* conformance.c -- see conformance.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/conformance.h"

#define LARGE_SIZE  (9u << 20)
#define RACER_COUNT 32
#define ok(expr)    assert_ok((expr), &err, __LINE__)

static const struct conformance_row *row; /* the driver under test */
static char url[256];
static struct store *store;
static struct err err;

static void assert_ok(enum rc rc, const struct err *e, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), e->text);
}

static int setup(void **state)
{
    static unsigned unique;
    (void)state;
    row->prepare(++unique, url);
    store = row->open(url);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    row->clean(url);
    return 0;
}

static enum rc put(struct store *s, const char *key, const void *data, size_t size)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, data, size);
    return store_put(s, NULL, key, &body, NULL, NULL, &err);
}

static enum rc put_text(const char *key, const char *text)
{
    return put(store, key, text, strlen(text));
}

static enum rc create_text(struct store *s, const char *key, const char *text, struct err *e)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, NULL, key, &body, &(struct store_put_opts){.if_absent = true}, NULL, e);
}

static enum rc into_buf(void *ctx, const void *data, size_t size, struct err *e)
{
    assert_true(size > 0);
    return buf_append(ctx, data, size, e);
}

static void assert_object(struct store *s, const char *key, const void *data, size_t size)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(store_get(s, NULL, key, NULL, into_buf, &b, &err));
    assert_int_equal(b.size, size);
    if (size > 0) assert_memory_equal(b.data, data, size);
}

static void assert_text(const char *key, const char *text)
{
    assert_object(store, key, text, strlen(text));
}

static void assert_missing(const char *key)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    assert_int_equal(store_get(store, NULL, key, NULL, into_buf, &b, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, key));
}

/* A listing as text: one line a key. */
static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s\n", obj->key);
}

static enum rc into_obj(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)e;
    *(struct store_obj *)ctx = *obj;
    return RC_OK;
}

static void assert_list(const char *prefix, const char *after, uint32_t count_max,
                        const char *lines)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct store_list_opts opts = {.after = after, .count_max = count_max};
    ok(store_list(store, NULL, prefix, &opts, into_lines, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_string_equal((char *)b.data, lines);
}

static void test_put_get(void **state)
{
    (void)state;
    struct store_obj obj;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "hello", 5);
    int64_t now = os_now_ms();
    ok(store_put(store, NULL, "ltx/0/one", &body, NULL, &obj, &err));
    assert_string_equal(obj.key, "ltx/0/one");
    assert_int_equal(obj.size, 5);
    assert_in_range(obj.mtime_ms, now - 60000, now + 60000);
    assert_text("ltx/0/one", "hello");
    assert_missing("ltx/0/two");
    assert_missing("ltx/0");
    assert_missing("ltx/0/one/more");
    assert_missing("other/0/one");
}

static void test_overwrite(void **state)
{
    (void)state;
    ok(put_text("k", "the first and longer one"));
    ok(put_text("k", "second"));
    assert_text("k", "second");
    assert_list("", NULL, 0, "k\n");
}

static void test_create(void **state)
{
    (void)state;
    if (!store_can(store, STORE_CAP_CREATE)) {
        assert_int_equal(create_text(store, "a/k", "x", &err), RC_UNSUPPORTED);
        assert_list("", NULL, 0, "");
        skip();
    }
    ok(create_text(store, "a/k", "first", &err));
    assert_int_equal(create_text(store, "a/k", "second", &err), RC_CONFLICT);
    assert_non_null(strstr(err.text, "a/k"));
    assert_text("a/k", "first");
    ok(put_text("a/k", "third"));
    assert_int_equal(create_text(store, "a/k", "fourth", &err), RC_CONFLICT);
    assert_text("a/k", "third");
    ok(store_del(store, NULL, &(const char *){"a/k"}, 1, &err));
    ok(create_text(store, "a/k", "fifth", &err));
    assert_text("a/k", "fifth");
}

struct racer {
    struct store *s;
    pthread_barrier_t *start;
    const char *key;
    char text[16];
    enum rc rc;
};

static void *racer_main(void *arg)
{
    struct racer *r = arg;
    struct err mine;
    pthread_barrier_wait(r->start);
    r->rc = create_text(r->s, r->key, r->text, &mine);
    return NULL;
}

static void test_create_race(void **state)
{
    (void)state;
    struct racer racers[RACER_COUNT];
    pthread_t threads[RACER_COUNT];
    pthread_barrier_t start;
    struct store *second = row->open(url);
    if (!store_can(store, STORE_CAP_CREATE)) {
        store_close(second);
        skip();
    }
    pthread_barrier_init(&start, NULL, RACER_COUNT);
    for (int round = 0; round < 4; round++) {
        char key[32];
        int winner = -1;
        snprintf(key, sizeof key, "round-%d/slot", round);
        for (int i = 0; i < RACER_COUNT; i++) {
            racers[i] = (struct racer){.s = i % 2 ? store : second, .start = &start, .key = key};
            snprintf(racers[i].text, sizeof racers[i].text, "racer %d", i);
            ok(thr_start(&threads[i], "racer", racer_main, &racers[i], &err));
        }
        for (int i = 0; i < RACER_COUNT; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < RACER_COUNT; i++) {
            if (racers[i].rc == RC_CONFLICT) continue;
            assert_int_equal(racers[i].rc, RC_OK);
            assert_int_equal(winner, -1);
            winner = i;
        }
        assert_int_not_equal(winner, -1);
        assert_text(key, racers[winner].text);
    }
    pthread_barrier_destroy(&start);
    store_close(second);
}

static void assert_range(uint64_t off, uint64_t size, const char *text)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(store_get(store, NULL, "k", &(struct store_get_opts){.off = off, .size = size}, into_buf, &b,
                 &err));
    assert_int_equal(b.size, strlen(text));
    if (b.size > 0) assert_memory_equal(b.data, text, b.size);
}

static void test_ranges(void **state)
{
    (void)state;
    ok(put_text("k", "0123456789"));
    assert_range(0, 3, "012");
    assert_range(4, 2, "45");
    assert_range(7, 3, "789");
    assert_range(9, 1, "9");
    assert_range(7, 100, "789");
    assert_range(3, 0, "3456789");
    assert_range(0, 0, "0123456789");
    assert_range(10, 1, "");
    assert_range(10, 0, "");
    assert_range(1000, 5, "");
    assert_range(UINT64_MAX, 0, "");
    assert_range(8, UINT64_MAX, "89");
    assert_range(UINT64_MAX - 1, UINT64_MAX, "");
}

static void test_read(void **state)
{
    (void)state;
    char got[16] = "................";
    ok(put_text("k", "0123456789"));
    ok(store_read(store, NULL, "k", 2, got, 4, &err));
    assert_memory_equal(got, "2345....", 8);
    ok(store_read(store, NULL, "k", 0, got, 10, &err));
    assert_memory_equal(got, "0123456789......", 16);
    ok(store_read(store, NULL, "k", 3, got, 0, &err));
    assert_int_equal(store_read(store, NULL, "k", 8, got, 3, &err), RC_CORRUPT);
    assert_int_equal(store_read(store, NULL, "k", 10, got, 1, &err), RC_CORRUPT);
    assert_int_equal(store_read(store, NULL, "j", 0, got, 1, &err), RC_NOT_FOUND);
}

static void test_empty_object(void **state)
{
    (void)state;
    ok(put(store, "empty", "", 0));
    assert_object(store, "empty", "", 0);
    assert_list("", NULL, 0, "empty\n");
}

static uint8_t large_byte(uint64_t off, unsigned version)
{
    return (uint8_t)((off * 2654435761u >> 13) + (off >> 20) + version);
}

/* A large object that needs no memory: byte i is a function of i. */
static enum rc large_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = large_byte(off + i, *(unsigned *)ctx);
    return RC_OK;
}

struct large_check {
    uint64_t off;
    unsigned version;
    bool known, torn; /* version was taken from the first byte; a later byte disagrees */
};

static enum rc large_take(void *ctx, const void *data, size_t size, struct err *e)
{
    struct large_check *c = ctx;
    const uint8_t *p = data;
    (void)e;
    if (!c->known) c->version = (uint8_t)(p[0] - large_byte(c->off, 0));
    c->known = true;
    for (size_t i = 0; i < size; i++)
        c->torn |= p[i] != large_byte(c->off + i, c->version);
    c->off += size;
    return RC_OK;
}

static void test_large_object(void **state)
{
    (void)state;
    unsigned version = 7;
    struct store_body body = {.size = LARGE_SIZE + 1, .read = large_read, .ctx = &version};
    struct store_obj obj;
    ok(store_put(store, NULL, "deep/er/large", &body, NULL, &obj, &err));
    assert_int_equal(obj.size, LARGE_SIZE + 1);
    struct large_check c = {0};
    ok(store_get(store, NULL, "deep/er/large", NULL, large_take, &c, &err));
    assert_int_equal(c.off, LARGE_SIZE + 1);
    assert_false(c.torn);
    assert_int_equal(c.version, 7);
    c = (struct large_check){.off = 5u << 20, .version = 7, .known = true};
    ok(store_get(store, NULL, "deep/er/large",
                 &(struct store_get_opts){.off = 5u << 20, .size = 1 << 20}, large_take, &c, &err));
    assert_int_equal(c.off, 6u << 20);
    assert_false(c.torn);
}

static void test_list_order(void **state)
{
    (void)state;
    static const char *const keys[] = {"a/b", "a-b",     "a.b",     "a0",    "a-/x", "a-/y/z",
                                       "a!",  "b/c/d/e", "b/c/d-e", "b/c.x", "zz"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        ok(put_text(keys[i], keys[i]));
    assert_list("", NULL, 0, "a!\na-/x\na-/y/z\na-b\na.b\na/b\na0\nb/c.x\nb/c/d-e\nb/c/d/e\nzz\n");
    assert_list("a", NULL, 0, "a!\na-/x\na-/y/z\na-b\na.b\na/b\na0\n");
    assert_list("a-", NULL, 0, "a-/x\na-/y/z\na-b\n");
    assert_list("a-/", NULL, 0, "a-/x\na-/y/z\n");
    assert_list("a/", NULL, 0, "a/b\n");
    assert_list("a/b", NULL, 0, "a/b\n");
    assert_list("a/b/", NULL, 0, "");
    assert_list("a/bc", NULL, 0, "");
    assert_list("none/at/all/", NULL, 0, "");
    assert_list("b/c/d", NULL, 0, "b/c/d-e\nb/c/d/e\n");
    assert_list("", "a-b", 0, "a.b\na/b\na0\nb/c.x\nb/c/d-e\nb/c/d/e\nzz\n");
    assert_list("", "a-c", 3, "a.b\na/b\na0\n");
    assert_list("", "a/", 1, "a/b\n");
    assert_list("b", "a-b", 2, "b/c.x\nb/c/d-e\n");
    assert_list("a", "b", 0, "");
    assert_list("", NULL, 1, "a!\n");
    assert_list("", "zz", 0, "");
    assert_list("", "zy", 9, "zz\n");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* A listing against a sorted array, over random keys of letters that sort around '/'. */
static void test_list_random(void **state)
{
    (void)state;
    static const char letters[] = "a-.0/b";
    enum { KEYS = 60, SIZE = 12 };
    char keys[KEYS][SIZE] = {0};
    const char *env = getenv("SLUICE_SEED");
    unsigned seed = env ? (unsigned)strtoul(env, NULL, 10) : (unsigned)os_random();
    print_message("seed %u\n", seed);
    for (int i = 0; i < KEYS; i++) {
        size_t used = 0;
        int segments = 1 + rand_r(&seed) % 3;
        for (int k = 0; k < segments; k++) {
            /* A folder starts with 'd' and an object with 'o', so none is both. */
            if (k > 0) keys[i][used++] = '/';
            keys[i][used++] = k + 1 < segments ? 'd' : 'o';
            for (int n = rand_r(&seed) % 3; n > 0; n--) {
                char letter = letters[(size_t)rand_r(&seed) % (sizeof letters - 1)];
                if (letter != '/') keys[i][used++] = letter;
            }
        }
        ok(put_text(keys[i], "x"));
    }
    qsort(keys, KEYS, SIZE, by_text);
    for (int round = 0; round < 60; round++) {
        CLEANUP(buf_fini) struct buf want = BUF_INIT;
        char prefix[SIZE], after[SIZE];
        uint32_t count_max = (uint32_t)rand_r(&seed) % 5, count = 0;
        snprintf(prefix, sizeof prefix, "%.*s", rand_r(&seed) % 5, keys[rand_r(&seed) % KEYS]);
        snprintf(after, sizeof after, "%.*s", rand_r(&seed) % 12, keys[rand_r(&seed) % KEYS]);
        for (int i = 0; i < KEYS && (count_max == 0 || count < count_max); i++) {
            if (i > 0 && strcmp(keys[i], keys[i - 1]) == 0) continue;
            if (strncmp(keys[i], prefix, strlen(prefix)) != 0 || strcmp(keys[i], after) <= 0)
                continue;
            ok(buf_printf(&want, &err, "%s\n", keys[i]));
            count++;
        }
        ok(buf_append(&want, "", 1, &err));
        assert_list(prefix, after, count_max, (char *)want.data);
    }
}

static enum rc delete_it(void *ctx, const struct store_obj *obj, struct err *e)
{
    (*(int *)ctx)++;
    return store_del(store, NULL, &(const char *){obj->key}, 1, e);
}

static void test_list_fn_calls_the_store(void **state)
{
    (void)state;
    int count = 0;
    for (int i = 0; i < 20; i++) {
        char key[32];
        snprintf(key, sizeof key, "%d/%d", i % 3, i);
        ok(put_text(key, "x"));
    }
    ok(store_list(store, NULL, "", NULL, delete_it, &count, &err));
    assert_int_equal(count, 20);
    assert_list("", NULL, 0, "");
}

static void test_odd_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"a b",       "ü/日本",  "%41%2F",  "a?b=c&d#e",
                                       "...",       ".hidden", "..x/y..", "+~$(){}[]",
                                       "tab\there", "q'\"\\*", "x.tmp",   "-rf"};
    struct store_obj listed = {0};
    char longest[STORE_KEY_MAX + 1];
    memset(longest, 'k', STORE_KEY_MAX);
    longest[200] = longest[400] = '/';
    longest[STORE_KEY_MAX] = '\0';
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char line[64];
        enum rc rc = put_text(keys[i], keys[i]);
        /* Some services take a backslash for a slash: their drivers refuse it. */
        if (rc == RC_INVALID && strchr(keys[i], '\\') != NULL) continue;
        ok(rc);
        assert_text(keys[i], keys[i]);
        snprintf(line, sizeof line, "%s\n", keys[i]);
        assert_list(keys[i], NULL, 0, line);
        ok(store_del(store, NULL, &keys[i], 1, &err));
        assert_list("", NULL, 0, "");
    }
    ok(put_text(longest, "long"));
    assert_text(longest, "long");
    ok(store_list(store, NULL, longest, NULL, into_obj, &listed, &err));
    assert_string_equal(listed.key, longest);
}

static void test_delete(void **state)
{
    (void)state;
    const char *const keys[] = {"d/1", "d/2", "d/missing", "x/missing", "d/1/below"};
    ok(put_text("d/1", "1"));
    ok(put_text("d/2", "2"));
    ok(put_text("d/3", "3"));
    ok(store_del(store, NULL, keys, 5, &err));
    assert_list("", NULL, 0, "d/3\n");
    ok(store_del(store, NULL, keys, 5, &err));
    ok(store_del(store, NULL, &(const char *){"d"}, 1, &err));
    ok(store_del(store, NULL, NULL, 0, &err));
    assert_list("", NULL, 0, "d/3\n");
    assert_missing("d/1");
    ok(put_text("d/1", "again"));
    assert_text("d/1", "again");
}

static enum rc never_sink(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)ctx, (void)data, (void)size;
    return err_set(e, RC_DENIED, "must not be called");
}

static enum rc never_fn(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)ctx, (void)obj;
    return err_set(e, RC_DENIED, "must not be called");
}

static void test_invalid_keys(void **state)
{
    (void)state;
    char longer[STORE_KEY_MAX + 2];
    memset(longer, 'k', sizeof longer - 1);
    longer[100] = longer[300] = longer[500] = '/';
    longer[sizeof longer - 1] = '\0';
    const char *const keys[] = {"",
                                "/",
                                "/abs",
                                "a/",
                                "a//b",
                                ".",
                                "..",
                                "../up",
                                "a/../up",
                                "a/..",
                                "./a",
                                "a/./b",
                                "a/b/..",
                                longer,
                                STORE_TMP_PREFIX "1",
                                "a/" STORE_TMP_PREFIX "1"};
    const char *const prefixes[] = {"/", "../", "a/../", "./", "a//", longer};
    char byte;
    ok(put_text("a/b", "x"));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_int_equal(put_text(keys[i], "x"), RC_INVALID);
        assert_int_equal(store_get(store, NULL, keys[i], NULL, never_sink, NULL, &err), RC_INVALID);
        assert_int_equal(store_read(store, NULL, keys[i], 0, &byte, 1, &err), RC_INVALID);
        const char *const pair[] = {"a/b", keys[i]};
        assert_int_equal(store_del(store, NULL, pair, 2, &err), RC_INVALID);
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        assert_int_equal(store_list(store, NULL, prefixes[i], NULL, never_fn, NULL, &err),
                         RC_INVALID);
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    assert_int_equal(store_put(store, NULL, "t", &body,
                               &(struct store_put_opts){.timestamp_ms = -1}, NULL, &err),
                     RC_INVALID);
    assert_list("", NULL, 0, "a/b\n");
}

static void test_timestamps(void **state)
{
    (void)state;
    static const int64_t times[] = {1, 999, 1767323045678, 4102444800001};
    struct store_obj made, listed = {0};
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    if (!store_can(store, STORE_CAP_TIMESTAMP)) skip();
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct store_put_opts opts = {.timestamp_ms = times[i], .if_absent = i == 0};
        ok(store_put(store, NULL, "t/k", &body, &opts, &made, &err));
        assert_int_equal(made.mtime_ms, times[i]);
        ok(store_list(store, NULL, "t/", NULL, into_obj, &listed, &err));
        assert_string_equal(listed.key, "t/k");
        assert_int_equal(listed.size, 1);
        assert_int_equal(listed.mtime_ms, times[i]);
    }
    ok(store_put(store, NULL, "t/k", &body, NULL, &made, &err));
    assert_in_range(made.mtime_ms, os_now_ms() - 60000, os_now_ms() + 60000);
}

struct overwriter {
    struct store *s;
    atomic_bool done;
    unsigned rounds;
    enum rc rc;
};

static void *overwriter_main(void *arg)
{
    struct overwriter *o = arg;
    struct err mine;
    for (unsigned version = 2; version < 2 + o->rounds && o->rc == RC_OK; version++) {
        /* The size tells the version too, so an old length with new bytes would be seen. */
        struct store_body body = {
            .size = (1u << 20) + version, .read = large_read, .ctx = &version};
        o->rc = store_put(o->s, NULL, "k", &body, NULL, NULL, &mine);
    }
    atomic_store(&o->done, true);
    return NULL;
}

static void test_overwrite_is_atomic(void **state)
{
    (void)state;
    pthread_t thread;
    unsigned version = 1, reads = 0;
    struct overwriter o = {.s = store, .rounds = 20};
    struct store_body body = {.size = (1u << 20) + 1, .read = large_read, .ctx = &version};
    struct store *reader = row->open(url);
    ok(store_put(store, NULL, "k", &body, NULL, NULL, &err));
    ok(thr_start(&thread, "overwriter", overwriter_main, &o, &err));
    do {
        struct large_check c = {0};
        struct store_obj listed = {0};
        ok(store_get(reader, NULL, "k", NULL, large_take, &c, &err));
        assert_false(c.torn);
        assert_int_equal(c.off, (1u << 20) + c.version);
        assert_true(c.version >= version); /* never back to an older one */
        version = c.version;
        ok(store_list(reader, NULL, "", NULL, into_obj, &listed, &err));
        assert_string_equal(listed.key, "k");
        assert_true(listed.size >= (1u << 20) + version);
        reads++;
    } while (!atomic_load(&o.done) || reads < 3);
    pthread_join(thread, NULL);
    store_close(reader);
    assert_int_equal(o.rc, RC_OK);
}

struct tripwire {
    atomic_bool cancel;
    atomic_uint calls; /* bodies may be read by several threads */
    unsigned trip_at;  /* at this call: cancel, or fail with rc */
    enum rc rc;
};

static enum rc trip(struct tripwire *t, struct err *e)
{
    if (atomic_fetch_add(&t->calls, 1) + 1 != t->trip_at) return RC_OK;
    if (t->rc != RC_OK) return err_set(e, t->rc, "tripped");
    atomic_store(&t->cancel, true);
    return RC_OK;
}

static enum rc trip_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)off;
    memset(dst, 'n', size);
    return trip(ctx, e);
}

static enum rc trip_sink(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)data, (void)size;
    return trip(ctx, e);
}

static enum rc trip_fn(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj;
    return trip(ctx, e);
}

static void assert_all_canceled(const struct call *c)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "new", 3);
    char byte;
    assert_int_equal(store_put(store, c, "k", &body, NULL, NULL, &err), RC_CANCELED);
    assert_int_equal(store_get(store, c, "k", NULL, never_sink, NULL, &err), RC_CANCELED);
    assert_int_equal(store_read(store, c, "k", 0, &byte, 1, &err), RC_CANCELED);
    assert_int_equal(store_list(store, c, "", NULL, never_fn, NULL, &err), RC_CANCELED);
    assert_int_equal(store_del(store, c, &(const char *){"k"}, 1, &err), RC_CANCELED);
    assert_text("k", "old");
}

static void test_cancel_and_deadline(void **state)
{
    (void)state;
    atomic_bool cancel = true;
    ok(put_text("k", "old"));
    assert_all_canceled(&(struct call){.cancel = &cancel});
    assert_all_canceled(&(struct call){.deadline_ms = os_mono_ms() - 1});
    cancel = false;
    struct call later = {.cancel = &cancel, .deadline_ms = os_mono_ms() + 600000};
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "later", 5);
    ok(store_put(store, &later, "later", &body, NULL, NULL, &err));
    ok(store_del(store, &later, &(const char *){"later"}, 1, &err));
}

static void test_cancel_midway(void **state)
{
    (void)state;
    struct tripwire t = {.trip_at = 1};
    struct call c = {.cancel = &t.cancel};
    struct store_body body = {.size = LARGE_SIZE, .read = trip_read, .ctx = &t};
    ok(put_text("k", "old"));
    assert_int_equal(store_put(store, &c, "k", &body, NULL, NULL, &err), RC_CANCELED);
    assert_text("k", "old");
    assert_int_equal(store_put(store, NULL, "k", &body, NULL, NULL, &err), RC_OK);
    t = (struct tripwire){.trip_at = 1};
    assert_int_equal(store_get(store, &c, "k", NULL, trip_sink, &t, &err), RC_CANCELED);
    ok(put_text("l", "x"));
    t = (struct tripwire){.trip_at = 1};
    assert_int_equal(store_list(store, &c, "", NULL, trip_fn, &t, &err), RC_CANCELED);
    assert_list("", NULL, 0, "k\nl\n");
}

/* Whatever code a callback fails with is what the caller gets, and nothing is left behind. */
static void test_callback_failures(void **state)
{
    (void)state;
    static const enum rc codes[] = {RC_NOT_FOUND, RC_CONFLICT, RC_CORRUPT, RC_CANCELED, RC_AGAIN};
    unsigned version = 3;
    struct store_body large = {.size = LARGE_SIZE, .read = large_read, .ctx = &version};
    ok(put_text("k", "old"));
    ok(store_put(store, NULL, "large", &large, NULL, NULL, &err));
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        for (unsigned at = 1; at <= 2; at++) {
            struct tripwire t = {.rc = codes[i], .trip_at = at};
            struct store_body body = {.size = LARGE_SIZE, .read = trip_read, .ctx = &t};
            assert_int_equal(store_put(store, NULL, "k", &body, NULL, NULL, &err), codes[i]);
            assert_string_equal(err.text + strlen(err.text) - 7, "tripped");
            t.calls = 0;
            assert_int_equal(store_put(store, NULL, "new/k", &body, NULL, NULL, &err), codes[i]);
            t.calls = 0;
            assert_int_equal(store_get(store, NULL, "large", NULL, trip_sink, &t, &err), codes[i]);
            assert_string_equal(err.text + strlen(err.text) - 7, "tripped");
            t.calls = 0;
            assert_int_equal(store_list(store, NULL, "", NULL, trip_fn, &t, &err), codes[i]);
            assert_string_equal(err.text + strlen(err.text) - 7, "tripped");
            assert_int_equal(t.calls, at);
        }
    }
    assert_text("k", "old");
    assert_list("", NULL, 0, "k\nlarge\n");
}

static enum rc replace_it(void *ctx, const void *data, size_t size, struct err *e)
{
    struct buf *b = ctx;
    if (b->size == 0) {
        struct store_bytes bytes;
        struct store_body body = store_body_bytes(&bytes, "new", 3);
        TRY(store_put(store, NULL, "k", &body, NULL, NULL, e));
    }
    return buf_append(b, data, size, e);
}

/* A get that has begun ends with the bytes it began with. */
static void test_get_survives_overwrite(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    unsigned version = 9;
    struct store_body body = {.size = LARGE_SIZE, .read = large_read, .ctx = &version};
    ok(store_put(store, NULL, "k", &body, NULL, NULL, &err));
    ok(store_get(store, NULL, "k", NULL, replace_it, &b, &err));
    struct large_check c = {0};
    ok(large_take(&c, b.data, b.size, &err));
    assert_int_equal(c.off, LARGE_SIZE);
    assert_int_equal(c.version, 9);
    assert_false(c.torn);
    assert_text("k", "new");
}

static void test_two_handles(void **state)
{
    (void)state;
    struct store *second = row->open(url);
    ok(put_text("a", "one"));
    assert_object(second, "a", "one", 3);
    ok(put(second, "a", "two", 3));
    store_close(second);
    assert_text("a", "two");
    /* The name is the URL without secrets and settings. */
    assert_int_equal(strncmp(store_name(store), url, strcspn(url, ":")), 0);
}

static enum rc replace_text(const char *key, const char *etag, const char *text,
                            struct store_obj *obj)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(store, NULL, key, &body, &(struct store_put_opts){.if_etag = etag}, obj, &err);
}

static void test_replace(void **state)
{
    (void)state;
    struct store_obj first, second, seen = {0};
    if (!store_can(store, STORE_CAP_CAS)) {
        assert_int_equal(replace_text("a/k", "x", "x", &first), RC_UNSUPPORTED);
        skip();
    }
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "first", 5);
    assert_int_equal(replace_text("a/k", "0123", "x", NULL), RC_NOT_FOUND);
    assert_missing("a/k");
    ok(store_put(store, NULL, "a/k", &body, NULL, &first, &err));
    assert_true(first.etag[0] != '\0');
    ok(replace_text("a/k", first.etag, "second", &second));
    assert_string_not_equal(first.etag, second.etag);
    assert_int_equal(replace_text("a/k", first.etag, "third", NULL), RC_CONFLICT);
    assert_non_null(strstr(err.text, "a/k"));
    assert_text("a/k", "second");
    /* A get and a listing know the same version. */
    CLEANUP(buf_fini) struct buf got = BUF_INIT;
    struct store_get_opts opts = {.ret_obj = &seen};
    ok(store_get(store, NULL, "a/k", &opts, into_buf, &got, &err));
    assert_string_equal(seen.etag, second.etag);
    assert_int_equal(seen.size, 6);
    ok(store_list(store, NULL, "a/", NULL, into_obj, &seen, &err));
    if (seen.etag[0] != '\0') assert_string_equal(seen.etag, second.etag);
    ok(store_del(store, NULL, &(const char *){"a/k"}, 1, &err));
    assert_int_equal(replace_text("a/k", second.etag, "fourth", NULL), RC_NOT_FOUND);
    assert_missing("a/k");
}

struct swapper {
    struct store *s;
    pthread_barrier_t *start;
    const char *etag;
    char text[16];
    enum rc rc;
};

static void *swapper_main(void *arg)
{
    struct swapper *w = arg;
    struct err mine;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, w->text, strlen(w->text));
    struct store_put_opts opts = {.if_etag = w->etag};
    pthread_barrier_wait(w->start);
    w->rc = store_put(w->s, NULL, "race", &body, &opts, NULL, &mine);
    return NULL;
}

/* Of many who replace the same version, at most one is told that it did, and what is there then is
 * its work. Nobody is told only if the winner is in doubt, or, over a network, its answer was lost
 * and its second try met its own work. */
static void test_replace_race(void **state)
{
    (void)state;
    enum { COUNT = 16 };
    struct swapper swappers[COUNT];
    pthread_t threads[COUNT];
    pthread_barrier_t start;
    if (!store_can(store, STORE_CAP_CAS)) skip();
    bool remote = strcmp(store_type(store), "file") != 0 && strcmp(store_type(store), "mem") != 0;
    for (int round = 0; round < 3; round++) {
        struct store_obj obj;
        struct store_bytes b;
        struct store_body body = store_body_bytes(&b, "base", 4);
        ok(store_put(store, NULL, "race", &body, NULL, &obj, &err));
        pthread_barrier_init(&start, NULL, COUNT);
        for (int i = 0; i < COUNT; i++) {
            swappers[i] = (struct swapper){.s = store, .start = &start, .etag = obj.etag};
            snprintf(swappers[i].text, sizeof swappers[i].text, "by %d in %d", i, round);
            assert_int_equal(pthread_create(&threads[i], NULL, swapper_main, &swappers[i]), 0);
        }
        int won = 0, doubt = 0, found = 0;
        CLEANUP(buf_fini) struct buf got = BUF_INIT;
        for (int i = 0; i < COUNT; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&start);
        ok(store_get(store, NULL, "race", NULL, into_buf, &got, &err));
        for (int i = 0; i < COUNT; i++) {
            enum rc rc = swappers[i].rc;
            assert_true(rc == RC_OK || rc == RC_CONFLICT || rc == RC_AGAIN);
            won += rc == RC_OK;
            doubt += rc == RC_AGAIN;
            bool mine = got.size == strlen(swappers[i].text) &&
                        memcmp(got.data, swappers[i].text, got.size) == 0;
            if (rc == RC_OK) assert_true(mine);
            found += mine;
        }
        assert_int_equal(found, 1);
        assert_true(won == 1 || (won == 0 && (doubt > 0 || remote)));
    }
}

struct unsized {
    uint64_t size, done;
    unsigned version;
};

static enum rc unsized_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct unsized *u = ctx;
    uint64_t piece = u->size - u->done < 70001 ? u->size - u->done : 70001;
    *ret_size = piece < size ? (size_t)piece : size;
    TRY(large_read(&u->version, u->done, dst, *ret_size, e));
    u->done += *ret_size;
    return RC_OK;
}

static void test_unknown_size(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 70001, LARGE_SIZE};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        CLEANUP(buf_fini) struct buf got = BUF_INIT, want = BUF_INIT;
        struct unsized u = {.size = sizes[i], .version = i};
        struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = unsized_next, .ctx = &u};
        struct store_obj obj;
        ok(store_put(store, NULL, "s/k", &body, NULL, &obj, &err));
        assert_int_equal(obj.size, sizes[i]);
        ok(store_get(store, NULL, "s/k", NULL, into_buf, &got, &err));
        assert_int_equal(got.size, sizes[i]);
        ok(buf_reserve(&want, (size_t)sizes[i] + 1, &err));
        ok(large_read(&i, 0, want.data, (size_t)sizes[i], &err));
        assert_memory_equal(got.data, want.data, sizes[i]);
    }
}

static enum rc unsized_broken(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct unsized *u = ctx;
    if (u->done > 6u << 20) return err_set(e, RC_CORRUPT, "the source is broken");
    return unsized_next(ctx, dst, size, ret_size, e);
}

static void test_unknown_size_fails(void **state)
{
    (void)state;
    struct unsized u = {.size = LARGE_SIZE};
    struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = unsized_broken, .ctx = &u};
    assert_int_equal(store_put(store, NULL, "s/k", &body, NULL, NULL, &err), RC_CORRUPT);
    assert_missing("s/k");
    assert_list("", NULL, 0, "");
}

static enum rc copy_object(void *ctx, const struct store_obj *obj, struct err *e)
{
    struct store **pair = ctx;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct store_bytes bytes;
    TRY(store_get(pair[0], NULL, obj->key, NULL, into_buf, &b, e));
    struct store_body body = store_body_bytes(&bytes, b.data, b.size);
    struct store_put_opts opts = {.timestamp_ms = obj->mtime_ms, .if_absent = true};
    return store_put(pair[1], NULL, obj->key, &body, &opts, NULL, e);
}

static enum rc into_dump(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s %llu %lld\n", obj->key, (unsigned long long)obj->size,
                      (long long)obj->mtime_ms);
}

static enum rc compare_object(void *ctx, const struct store_obj *obj, struct err *e)
{
    struct store **pair = ctx;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    TRY(store_get(pair[0], NULL, obj->key, NULL, into_buf, &b, e));
    assert_object(pair[1], obj->key, b.data, b.size);
    return RC_OK;
}

void conformance_copy(struct store *from, struct store *to)
{
    struct store *pair[] = {from, to};
    CLEANUP(buf_fini) struct buf a = BUF_INIT, b = BUF_INIT;
    ok(store_list(from, NULL, "", NULL, copy_object, pair, &err));
    ok(store_list(from, NULL, "", NULL, into_dump, &a, &err));
    ok(store_list(to, NULL, "", NULL, into_dump, &b, &err));
    assert_true(a.size > 0);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    ok(store_list(from, NULL, "", NULL, compare_object, pair, &err));
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int conformance_run(const struct conformance_row *r)
{
    static const struct CMUnitTest tests[] = {
        CASE(test_put_get),
        CASE(test_overwrite),
        CASE(test_create),
        CASE(test_create_race),
        CASE(test_ranges),
        CASE(test_read),
        CASE(test_empty_object),
        CASE(test_large_object),
        CASE(test_list_order),
        CASE(test_list_random),
        CASE(test_list_fn_calls_the_store),
        CASE(test_odd_keys),
        CASE(test_delete),
        CASE(test_invalid_keys),
        CASE(test_timestamps),
        CASE(test_overwrite_is_atomic),
        CASE(test_cancel_and_deadline),
        CASE(test_cancel_midway),
        CASE(test_callback_failures),
        CASE(test_get_survives_overwrite),
        CASE(test_two_handles),
        CASE(test_replace),
        CASE(test_replace_race),
        CASE(test_unknown_size),
        CASE(test_unknown_size_fails),
    };
    row = r;
    return cmocka_run_group_tests_name(r->name, tests, NULL, NULL);
}
