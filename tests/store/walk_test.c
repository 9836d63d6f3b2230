/* walk_test.c -- random trees, walked both ways, against a sorted list of their keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/mem.h"
#include "store/driver.h"
#include "store/walk.h"

#define ok(expr)  assert_ok((expr), __LINE__)
#define NODES_MAX 600
#define ROUNDS    150

/* A node of the tree: its path, and what it is. Node 0 is the root. */
struct node {
    char key[STORE_KEY_MAX + 300];
    enum walk_kind kind;
    int parent;
};

static struct node nodes[NODES_MAX];
static int node_count;
static uint64_t seed, dice;
static struct store store = {.name = "test://tree"};
static struct err err;
static unsigned looks, reads;
static bool bare; /* how the names are handed over */

/* What a walk has given. */
struct got {
    struct buf text; /* keys, each with a line feed */
    unsigned count, fail_at;
};

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static unsigned roll(unsigned sides)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(dice >> 33) % sides;
}

static const char *node_name(int i)
{
    return nodes[i].key + (nodes[i].parent > 0 ? strlen(nodes[nodes[i].parent].key) + 1 : 0);
}

static int find(const char *key)
{
    for (int i = 1; i < node_count; i++)
        if (strcmp(nodes[i].key, key) == 0) return i;
    return -1;
}

/* The number of the new node, or -1 when there is one of that name. */
static int add(int parent, const char *name, enum walk_kind kind)
{
    struct node n = {.kind = kind, .parent = parent};
    snprintf(n.key, sizeof n.key, "%s%s%s", nodes[parent].key, parent > 0 ? "/" : "", name);
    if (node_count == NODES_MAX || find(n.key) >= 0) return -1;
    nodes[node_count] = n;
    return node_count++;
}

static void clear(void)
{
    nodes[0] = (struct node){.kind = WALK_FOLDER, .parent = -1};
    node_count = 1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(node_name(*(const int *)a), node_name(*(const int *)b));
}

static int by_key(const void *a, const void *b)
{
    return strcmp(nodes[*(const int *)a].key, nodes[*(const int *)b].key);
}

static uint64_t size_of(const char *key)
{
    return strlen(key) * 3 + (uint8_t)key[0];
}

static enum rc read_tree(struct walk *w, struct walk_folder *d, const char *key, struct err *e)
{
    CLEANUP(walk_list_fini) struct walk_list list = {0};
    int folder = 0, children[NODES_MAX], count = 0;
    char path[STORE_KEY_MAX + 1];
    (void)w;
    reads++;
    assert_true(strlen(key) < STORE_KEY_MAX); /* room for a name below it */
    snprintf(path, sizeof path, "%.*s", (int)strlen(key) - 1, key);
    if (key[0] != '\0') {
        assert_int_equal(key[strlen(key) - 1], '/');
        folder = find(path);
        if (folder < 0 || nodes[folder].kind != WALK_FOLDER) return RC_OK;
    }
    for (int i = 1; i < node_count; i++)
        if (nodes[i].parent == folder) children[count++] = i;
    assert_false(walk_entered(d));
    if (!bare) {
        for (int i = 0; i < count; i++) {
            const struct node *n = &nodes[children[i]];
            struct walk_item item = {.size = size_of(n->key), .mtime_ms = 7, .kind = n->kind};
            if (!walk_wants(d, node_name(children[i]))) continue;
            TRY(walk_list_add(&list, node_name(children[i]), node_name(children[i]), item, e));
        }
        return walk_names(d, &list, e);
    }
    qsort(children, (size_t)count, sizeof children[0], by_name);
    for (int i = 0; i < count; i++) {
        TRY(walk_name(d, node_name(children[i]), e));
        assert_true(walk_entered(d));
    }
    return RC_OK;
}

/* Only asked for what the prefix and `after` leave open. */
static enum rc look(struct walk *w, struct store_obj *obj, enum walk_kind *ret_kind, struct err *e)
{
    int i = find(obj->key);
    size_t size = strlen(obj->key), prefix_size = strlen(w->prefix);
    char last[STORE_KEY_MAX + 3];
    (void)e;
    looks++;
    assert_true(i > 0);
    assert_false(walk_is_tmp(node_name(i)));
    assert_memory_equal(obj->key, w->prefix, size < prefix_size ? size : prefix_size);
    snprintf(last, sizeof last, "%s/\xff", obj->key); /* behind all that could be in it */
    assert_true(strcmp(last, w->after) > 0);
    obj->size = size_of(obj->key);
    obj->mtime_ms = 7;
    /* As long as an etag may be. */
    snprintf(obj->etag, sizeof obj->etag, "%.127s", node_name(i));
    *ret_kind = nodes[i].kind;
    return RC_OK;
}

static enum rc into_got(void *ctx, const struct store_obj *obj, struct err *e)
{
    struct got *g = ctx;
    char etag[STORE_ETAG_MAX];
    snprintf(etag, sizeof etag, "%s", node_name(find(obj->key)));
    assert_int_equal(obj->size, size_of(obj->key));
    assert_int_equal(obj->mtime_ms, 7);
    assert_string_equal(obj->etag, etag);
    if (++g->count == g->fail_at) return err_set(e, RC_BUSY, "enough");
    return buf_printf(&g->text, e, "%s\n", obj->key);
}

static enum rc walk(const char *prefix, const char *after, struct got *g, const struct call *c)
{
    struct walk w = {.store = &store,
                     .c = c,
                     .prefix = prefix,
                     .after = after,
                     .fn = into_got,
                     .ctx = g,
                     .read = read_tree,
                     .look = bare ? look : NULL};
    looks = reads = 0;
    return walk_tree(&w, &err);
}

/* Is a name of the key passed over? Not those of the folder that the prefix names. */
static bool hidden(const char *key, const char *prefix)
{
    const char *slash = strrchr(prefix, '/');
    for (size_t at = slash ? (size_t)(slash - prefix) + 1 : 0;;) {
        if (walk_is_tmp(key + at)) return true;
        at += strcspn(key + at, "/") + 1;
        if (at > strlen(key)) return false;
    }
}

static void expect(const char *prefix, const char *after, struct buf *out)
{
    int sorted[NODES_MAX], count = 0;
    for (int i = 1; i < node_count; i++)
        if (nodes[i].kind == WALK_OBJECT) sorted[count++] = i;
    qsort(sorted, (size_t)count, sizeof sorted[0], by_key);
    for (int i = 0; i < count; i++) {
        const char *key = nodes[sorted[i]].key;
        if (strlen(key) <= STORE_KEY_MAX && strncmp(key, prefix, strlen(prefix)) == 0 &&
            strcmp(key, after) > 0 && !hidden(key, prefix))
            ok(buf_printf(out, &err, "%s\n", key));
    }
}

static void compare(const char *prefix, const char *after)
{
    CLEANUP(buf_fini) struct buf want = BUF_INIT;
    expect(prefix, after, &want);
    for (int way = 0; way < 2; way++) {
        struct got g = {0};
        bare = way == 0;
        ok(walk(prefix, after, &g, NULL));
        if (g.text.size != want.size ||
            (want.size > 0 && memcmp(g.text.data, want.data, want.size) != 0))
            fail_msg("SLUICE_SEED=%llu, prefix '%s', after '%s', %s names: got %.*s, want %.*s",
                     (unsigned long long)seed, prefix, after, bare ? "bare" : "known",
                     (int)g.text.size, (char *)g.text.data, (int)want.size, (char *)want.data);
        buf_fini(&g.text);
    }
}

/* Short names of few letters on both sides of '/', so that many begin alike; now and then one of
 * 255 bytes, or of a temporary file. */
static void random_name(char name[256])
{
    static const char letters[] = "a-.b 0\xc3";
    size_t size = roll(25) == 0 ? 255 : 1 + roll(3);
    for (size_t i = 0; i < size; i++)
        name[i] = letters[roll(sizeof letters - 1)];
    name[size] = '\0';
    if (name[0] == '.') name[0] = 'b';
    if (roll(20) == 0) snprintf(name, 256, STORE_TMP_PREFIX "%u", roll(5));
}

static void random_tree(void)
{
    clear();
    int count = 1 + (int)roll(120), folders[NODES_MAX] = {0}, folder_count = 1;
    for (int i = 0; i < count; i++) {
        char name[256];
        /* Among the last ones, often: deep trees. */
        unsigned among = (unsigned)folder_count;
        int parent = folders[roll(2) == 0 ? (unsigned)folder_count - 1 : roll(among)];
        unsigned side = roll(10);
        random_name(name);
        if (strlen(nodes[parent].key) + 300 > sizeof nodes[0].key) continue;
        int n = add(parent, name, side < 6 ? WALK_OBJECT : side < 9 ? WALK_FOLDER : WALK_NEITHER);
        if (n > 0 && nodes[n].kind == WALK_FOLDER) folders[folder_count++] = n;
    }
}

/* A key of the tree, whole, cut, with something behind it, or something else. */
static void random_key(char out[STORE_KEY_MAX + 1])
{
    const char *key = nodes[roll((unsigned)node_count)].key;
    snprintf(out, STORE_KEY_MAX + 1, "%s", key);
    size_t size = strlen(out);
    switch (roll(6)) {
    case 0:
        out[0] = '\0';
        break;
    case 1:
        out[roll((unsigned)size + 1)] = '\0';
        break;
    case 2:
        if (size < STORE_KEY_MAX) memcpy(out + size, roll(2) ? "/" : "-", 2);
        break;
    case 3:
        if (size > 0) out[size - 1] = (char)(out[size - 1] + 1);
        break;
    }
}

static void test_random_trees(void **state)
{
    (void)state;
    const char *given = getenv("SLUICE_SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    dice = seed;
    print_message("SLUICE_SEED=%llu\n", (unsigned long long)seed);
    for (int round = 0; round < ROUNDS; round++) {
        char prefix[STORE_KEY_MAX + 1], after[STORE_KEY_MAX + 1];
        random_tree();
        compare("", "");
        for (int i = 0; i < 12; i++) {
            random_key(prefix);
            random_key(after);
            compare(prefix, "");
            compare("", after);
            compare(prefix, after);
        }
    }
}

static void assert_walk(const char *prefix, const char *after, const char *want)
{
    for (int way = 0; way < 2; way++) {
        struct got g = {0};
        bare = way == 0;
        ok(walk(prefix, after, &g, NULL));
        ok(buf_append(&g.text, "", 1, &err));
        assert_string_equal((char *)g.text.data, want);
        buf_fini(&g.text);
    }
}

static void test_order(void **state)
{
    (void)state;
    clear();
    int a = add(0, "a", WALK_FOLDER), a1 = add(0, "a-", WALK_FOLDER);
    int a2 = add(0, "a--", WALK_FOLDER);
    add(a, "x", WALK_OBJECT);
    add(a1, "x", WALK_OBJECT);
    add(a2, "x", WALK_OBJECT);
    add(0, "a-b", WALK_OBJECT);
    add(0, "a0", WALK_OBJECT);
    add(0, "a---", WALK_OBJECT);
    add(0, "empty", WALK_FOLDER);
    add(0, "pipe", WALK_NEITHER);
    assert_walk("", "", "a---\na--/x\na-/x\na-b\na/x\na0\n");
    assert_walk("a/", "", "a/x\n");
    assert_walk("a-", "", "a---\na--/x\na-/x\na-b\n");
    assert_walk("", "a-/x", "a-b\na/x\na0\n");
    assert_walk("", "a/", "a/x\na0\n");
    assert_walk("", "a/x", "a0\n");
    assert_walk("empty/", "", "");
    assert_walk("missing/x", "", "");
    assert_walk("pipe", "", "");
}

static void test_nothing_in_vain(void **state)
{
    (void)state;
    struct got g = {0};
    clear();
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "%02d", i);
        int n = add(0, name, WALK_FOLDER);
        for (int k = 0; k < 4; k++)
            add(n, &"abcd"[k], WALK_OBJECT);
    }
    bare = true;
    uint64_t before = mem_alloc_count();
    g.text = BUF_ON((uint8_t[4000]){0});
    ok(walk("42/", "", &g, NULL));
    assert_int_equal(g.count, 4);
    assert_int_equal(looks, 4);
    assert_int_equal(reads, 1);
    g.count = 0;
    ok(walk("", "97/abcd", &g, NULL)); /* 97 and its names from "bcd", then 98, 99 */
    assert_int_equal(g.count, 3 + 8);
    assert_int_equal(looks, 3 + 4 + 8);
    assert_int_equal(reads, 4);
    assert_int_equal(mem_alloc_count(), before);
}

static void test_long_keys(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf want = BUF_INIT;
    char name[256], deep[2] = "d";
    memset(name, 'n', 255);
    name[255] = '\0';
    clear();
    int a = add(0, name, WALK_FOLDER), b = add(a, name, WALK_FOLDER); /* 255, 511 */
    assert_true(add(a, "x", WALK_OBJECT) > 0);
    assert_true(add(b, "x", WALK_OBJECT) > 0); /* 513 bytes: no key */
    name[254] = '\0';
    int c = add(a, name, WALK_FOLDER);         /* 510 */
    assert_true(add(c, "y", WALK_OBJECT) > 0); /* 512 */
    assert_true(add(c, "z", WALK_FOLDER) > 0);
    for (int i = 0, n = 0; i < 255; i++) /* the deepest that can be: 256 segments */
        n = add(n, deep, WALK_FOLDER);
    assert_true(add(node_count - 1, "z", WALK_OBJECT) > 0);
    compare("", "");
    expect("", "", &want);
    assert_int_equal(want.size, 512 + 258 + 513);
}

/* A server that names a folder, and an object, again and again; names that begin with each other.
 */
static enum rc read_odd(struct walk *w, struct walk_folder *d, const char *key, struct err *e)
{
    CLEANUP(walk_list_fini) struct walk_list list = {0};
    char name[600] = "";
    (void)w;
    if (key[0] != '\0') return RC_OK;
    if (bare) {
        TRY(walk_name(d, "x", e));
        return walk_name(d, "x", e);
    }
    for (size_t i = 0; i < sizeof name - 1; i++) {
        name[i] = '!';
        TRY(walk_list_add(&list, name, "", (struct walk_item){.kind = WALK_FOLDER}, e));
        TRY(walk_list_add(&list, "!!", "", (struct walk_item){.kind = WALK_FOLDER}, e));
        TRY(walk_list_add(&list, "", "", (struct walk_item){.kind = WALK_FOLDER}, e));
    }
    TRY(walk_list_add(&list, "x", "", (struct walk_item){.kind = WALK_OBJECT}, e));
    TRY(walk_list_add(&list, "x", "", (struct walk_item){.kind = WALK_OBJECT}, e));
    TRY(walk_list_add(&list, "x", "", (struct walk_item){.kind = WALK_FOLDER}, e));
    return walk_names(d, &list, e);
}

static enum rc count_one(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)e;
    assert_string_equal(obj->key, "x");
    ++*(unsigned *)ctx;
    return RC_OK;
}

static void test_odd_server(void **state)
{
    (void)state;
    clear();
    add(0, "x", WALK_OBJECT);
    for (int way = 0; way < 2; way++) {
        unsigned count = 0;
        struct walk w = {.store = &store,
                         .prefix = "",
                         .after = "",
                         .fn = count_one,
                         .ctx = &count,
                         .read = read_odd,
                         .look = look};
        bare = way == 0;
        looks = 0;
        ok(walk_tree(&w, &err));
        assert_int_equal(count, 1);
        assert_int_equal(looks, bare ? 1 : 0);
    }
}

static void test_failures(void **state)
{
    (void)state;
    clear();
    int a = add(0, "a", WALK_FOLDER);
    add(a, "x", WALK_OBJECT);
    add(0, "b", WALK_OBJECT);
    for (int way = 0; way < 2; way++) {
        struct got g = {.fail_at = 1};
        struct call late = {.deadline_ms = 1};
        bare = way == 0;
        assert_int_equal(walk("", "", &g, NULL), RC_BUSY);
        assert_string_equal(err.text, "enough");
        assert_int_equal(g.count, 1);
        assert_int_equal(walk("", "", &g, &late), RC_CANCELED);
        assert_non_null(strstr(err.text, "test://tree"));
        assert_int_equal(g.count, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),           cmocka_unit_test(test_random_trees),
        cmocka_unit_test(test_nothing_in_vain), cmocka_unit_test(test_long_keys),
        cmocka_unit_test(test_odd_server),      cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
