/* auth_test.c -- who gets in and with what, what is remembered and for how long, from many threads,
 * and with every allocation failing in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "fmt/jwt.h"
#include "fmt/jwt_keys.h"
#include "server/auth.h"
#include "server/roles_bed.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))
#define MISSING     "Unauthorized: `Expected authorization header but none given`"
#define INVALID     "Unauthorized: `The JWT is invalid`"
#define EXPIRED     "Unauthorized: `The JWT has expired`"
#define ROLES                                                                                      \
    "{\"reader\":[{\"effect\":\"allow\",\"actions\":[\"read\"]}],"                                 \
    "\"clerk\":[{\"effect\":\"allow\",\"actions\":[\"insert\"],\"tables\":[\"orders\"]}]}"

/* A token of these claims; "Bearer " in front of it. Static memory, overwritten by the fourth. */
static const char *bearer_by(const char *key, const char *claims)
{
    static char text[4][JWT_TEXT_MAX + 16];
    static unsigned turn;
    struct buf token = BUF_INIT;
    struct err err;
    char *out = text[turn++ % 4];
    if (jwt_sign(key, claims, &token, &err) != RC_OK) fail_msg("%s: %s", claims, err.text);
    snprintf(out, sizeof text[0], "Bearer %.*s", (int)token.size, (char *)token.data);
    buf_fini(&token);
    return out;
}

static const char *bearer(const char *claims)
{
    return bearer_by(ED_PRIVATE, claims);
}

static struct auth *make(const struct auth_opts *opts)
{
    struct auth *a = NULL;
    struct err err;
    if (auth_new(opts, &a, &err) != RC_OK) fail_msg("%s", err.text);
    return a;
}

static struct grant *enter(struct auth *a, const char *header, const char *keys)
{
    struct grant *g = NULL;
    struct sql_error e;
    struct err err;
    if (auth_header(a, header, keys, &g, &e, &err) != RC_OK)
        fail_msg("%s: %s", e.message, err.text);
    assert_non_null(g);
    return g;
}

static void refused(struct auth *a, const char *header, const char *keys, const char *code,
                    const char *message)
{
    struct grant *g = NULL;
    struct sql_error e = {0};
    struct err err = {0};
    assert_int_equal(auth_header(a, header, keys, &g, &e, &err), RC_DENIED);
    assert_null(g);
    assert_string_equal(e.code, code);
    assert_string_equal(e.extended, "");
    assert_string_equal(e.message, message);
    assert_true(err.text[0] != '\0');
    for (const char *c = err.text; *c != '\0'; c++)
        assert_in_range(*c, ' ', '~');
}

static void test_open(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){0});
    const char *const headers[] = {NULL, "", "Bearer", "Bearer x", "Basic x", "nonsense"};
    struct sql_error e;
    struct err err;
    assert_true(auth_open(a));
    for (size_t i = 0; i < COUNT(headers); i++) {
        struct grant *g = enter(a, headers[i], NULL);
        assert_int_equal(grant_for(g, "any"), GRANT_WRITE);
        assert_true(grant_attach(g, "any"));
        assert_false(grant_expired(g, INT64_MAX - 1));
        grant_unref(g);
    }
    struct grant *g = NULL;
    assert_int_equal(auth_token(a, NULL, NULL, &g, &e, &err), RC_OK);
    grant_unref(g);
    /* A tenant with keys of its own is not open. */
    refused(a, NULL, ED_PUBLIC, "AUTH_HTTP_HEADER_MISSING", MISSING);
    refused(a, "Bearer x", ED_PUBLIC, "AUTH_JWT_INVALID", INVALID);
    g = NULL;
    assert_int_equal(auth_token(a, NULL, ED_PUBLIC, &g, &e, &err), RC_DENIED);
    assert_string_equal(e.code, "AUTH_JWT_MISSING");
    grant_unref(enter(a, bearer("{}"), ED_PUBLIC));
    auth_free(a);
    auth_free(NULL);
    grant_unref(NULL);
}

static void test_headers(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.key_text = ED_PUBLIC ES_PUBLIC HS_KEY});
    char text[JWT_TEXT_MAX + 64];
    assert_false(auth_open(a));
    const char *good = bearer("{}") + strlen("Bearer ");
    const char *const shapes[] = {"Bearer %s", "bearer %s", "BEARER   %s", "Bearer\t%s \t"};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        snprintf(text, sizeof text, shapes[i], good);
        grant_unref(enter(a, text, NULL));
    }
    grant_unref(enter(a, bearer_by(ES_PRIVATE, "{}"), NULL));
    grant_unref(enter(a, bearer_by(HS_KEY, "{}"), NULL));
    static const char malformed[] =
        "Unauthorized: `The authorization header is not a scheme and a value`";
    const char *const broken[] = {"", " ", "Bearer", "Bearer ", "Bearer a b", " Bearer x", good};
    for (size_t i = 0; i < COUNT(broken); i++)
        refused(a, broken[i], NULL, "AUTH_HTTP_HEADER_INVALID", malformed);
    refused(a, NULL, NULL, "AUTH_HTTP_HEADER_MISSING", MISSING);
    refused(a, "Digest x", NULL, "AUTH_HTTP_HEADER_UNSUPPORTED_SCHEME",
            "Unauthorized: `The scheme of the authorization header is not supported`");
    refused(a, "Basic eDp5", NULL, "AUTH_BASIC_NOT_ALLOWED",
            "Unauthorized: `Basic authentication is not allowed here`");
    memset(text, 'a', sizeof text);
    memcpy(text, "Bearer ", 7);
    text[sizeof text - 1] = '\0';
    refused(a, text, NULL, "AUTH_JWT_INVALID", INVALID);
    auth_free(a);
}

static void test_tokens(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.key_text = ED_PUBLIC, .roles = ROLES});
    int64_t now = os_now_ms() / 1000;
    char claims[256];
    static const char *const wrong[] = {
        "{\"a\":\"x\"}",
        "{\"a\":null}",
        "{\"a\":7}",
        "{\"id\":null}",
        "{\"id\":7}",
        "{\"id\":\"\"}",
        "{\"p\":null}",
        "{\"p\":[]}",
        "{\"p\":{\"ro\":null}}",
        "{\"p\":{\"ro\":{\"ns\":\"x\"}}}",
        "{\"p\":{\"ro\":{\"ns\":[7]}}}",
        "{\"role\":null}",
        "{\"role\":\"Reader\"}",
        "{\"role\":[\"reader\"]}",
        "{\"roles\":\"reader\"}",
        "{\"roles\":[]}",
        "{\"roles\":null}",
        "{\"roles\":[\"reader\",\"nobody\"]}",
        "{\"rules\":{}}",
        "{\"rules\":[{}]}",
        "{\"rules\":null}",
        "{\"rules\":[{\"effect\":\"allow\",\"actions\":[\"\\u00e4\"]}]}",
    };
    for (size_t i = 0; i < COUNT(wrong); i++)
        refused(a, bearer(wrong[i]), NULL, "AUTH_JWT_INVALID", INVALID);
    refused(a, bearer_by(ES_PRIVATE, "{}"), NULL, "AUTH_JWT_INVALID", INVALID);
    snprintf(claims, sizeof claims, "{\"exp\":%lld}", (long long)now - JWT_LEEWAY_S - 1);
    refused(a, bearer(claims), NULL, "AUTH_JWT_EXPIRED", EXPIRED);
    snprintf(claims, sizeof claims, "{\"nbf\":%lld}", (long long)now + JWT_LEEWAY_S + 60);
    refused(a, bearer(claims), NULL, "AUTH_JWT_IMMATURE",
            "Unauthorized: `The JWT is not valid yet`");
    snprintf(claims, sizeof claims, "{\"exp\":%lld,\"aud\":\"x\",\"sub\":null}", (long long)now);
    struct grant *g = enter(a, bearer(claims), NULL);
    assert_false(grant_expired(g, now + JWT_LEEWAY_S - 1));
    assert_true(grant_expired(g, now + JWT_LEEWAY_S));
    grant_unref(g);
    snprintf(claims, sizeof claims, "{\"exp\":%lld.5}", (long long)now);
    g = enter(a, bearer(claims), NULL);
    assert_false(grant_expired(g, now + JWT_LEEWAY_S));
    assert_true(grant_expired(g, now + JWT_LEEWAY_S + 1));
    grant_unref(g);
    g = enter(a, bearer("{\"exp\":1e300}"), NULL);
    assert_false(grant_expired(g, INT64_MAX - 1));
    grant_unref(g);
    auth_free(a);
}

static void test_tenants(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.key_text = ED_PUBLIC});
    static const struct {
        const char *claims;
        enum grant_level shop, blog;
        bool shop_attach, blog_attach;
    } cases[] = {
        {"{}", GRANT_WRITE, GRANT_WRITE, false, false},
        {"{\"a\":\"rw\"}", GRANT_WRITE, GRANT_WRITE, false, false},
        {"{\"a\":\"ro\"}", GRANT_READ, GRANT_READ, false, false},
        {"{\"a\":\"roa\"}", GRANT_READ, GRANT_READ, true, true},
        {"{\"a\":\"rwa\"}", GRANT_WRITE, GRANT_WRITE, true, true},
        {"{\"id\":\"shop\"}", GRANT_WRITE, GRANT_NONE, false, false},
        {"{\"id\":\"Shop\"}", GRANT_NONE, GRANT_NONE, false, false},
        {"{\"id\":\"blog\",\"a\":\"roa\"}", GRANT_NONE, GRANT_READ, false, true},
        {"{\"p\":{}}", GRANT_NONE, GRANT_NONE, false, false},
        {"{\"p\":{\"rw\":{\"tags\":[\"x\"]}},\"id\":\"shop\",\"a\":\"rwa\"}", GRANT_NONE,
         GRANT_NONE, false, false},
        {"{\"p\":{\"ro\":{\"ns\":[\"blog\",\"shop\"]},\"rw\":{\"ns\":[\"a\",\"shop\",\"z\"]}}}",
         GRANT_WRITE, GRANT_READ, false, false},
        {"{\"p\":{\"roa\":{\"ns\":[\"shop\"]},\"rw\":{\"ns\":[\"shop\"]},\"x\":{\"ns\":[\"blog\"]}}"
         "}",
         GRANT_WRITE, GRANT_NONE, true, false},
        {"{\"p\":{\"ddl\":{\"ns\":[\"shop\"]},\"rwa\":{\"ns\":[\"blog\",\"blog\"]}},\"a\":\"ro\"}",
         GRANT_WRITE, GRANT_WRITE, false, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct grant *g = enter(a, bearer(cases[i].claims), NULL);
        assert_int_equal(grant_for(g, "shop"), cases[i].shop);
        assert_int_equal(grant_for(g, "blog"), cases[i].blog);
        assert_int_equal(grant_attach(g, "shop"), cases[i].shop_attach);
        assert_int_equal(grant_attach(g, "blog"), cases[i].blog_attach);
        assert_null(grant_policy(g));
        grant_unref(g);
    }
    auth_free(a);
}

static bool may(const struct grant *g, int action, const char *table)
{
    const struct sql_policy *p = grant_policy(g);
    return p->allows(p, action, table, NULL, "main");
}

static void test_roles(void **state)
{
    (void)state;
    enum { READ = 20, INSERT = 18, DELETE = 9 };
    struct auth_opts opts = {.key_text = ED_PUBLIC, .roles = ROLES};
    struct auth *a = make(&opts);
    static const struct {
        const char *claims;
        bool read, insert, delete;
    } cases[] = {
        {"{\"role\":\"reader\"}", true, false, false},
        {"{\"roles\":[\"clerk\"]}", false, true, false},
        {"{\"roles\":[\"clerk\",\"reader\"]}", true, true, false},
        {"{\"role\":\"clerk\",\"roles\":[\"reader\"]}", true, true, false},
        {"{\"rules\":[]}", false, false, false},
        {"{\"rules\":[{\"effect\":\"allow\",\"actions\":[\"delete\"]}]}", false, false, true},
        {"{\"rules\":[{\"effect\":\"deny\",\"actions\":[\"insert\"]}],"
         "\"roles\":[\"reader\",\"clerk\"]}",
         true, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct grant *g = enter(a, bearer(cases[i].claims), NULL);
        assert_int_equal(may(g, READ, "orders"), cases[i].read);
        assert_int_equal(may(g, INSERT, "orders"), cases[i].insert);
        assert_int_equal(may(g, DELETE, "orders"), cases[i].delete);
        grant_unref(g);
    }
    /* Tokens of one role share its policy. */
    struct grant *one = enter(a, bearer("{\"role\":\"reader\",\"sub\":\"ann\"}"), NULL);
    struct grant *two = enter(a, bearer("{\"role\":\"reader\",\"sub\":\"bob\"}"), NULL);
    assert_ptr_equal(grant_policy(one), grant_policy(two));
    grant_unref(two);
    /* A role that changes binds the next request; who has the old grant keeps what he has. */
    struct err err;
    opts.roles = "{\"clerk\":[],\"reader\":[]}";
    assert_int_equal(auth_reload(a, &opts, &err), RC_OK);
    two = enter(a, bearer("{\"role\":\"reader\",\"sub\":\"ann\"}"), NULL);
    assert_false(may(two, READ, "orders"));
    assert_true(may(one, READ, "orders"));
    opts.roles = NULL;
    assert_int_equal(auth_reload(a, &opts, &err), RC_OK);
    refused(a, bearer("{\"role\":\"reader\",\"sub\":\"ann\"}"), NULL, "AUTH_JWT_INVALID", INVALID);
    auth_free(a);
    assert_true(may(one, READ, "orders"));
    grant_unref(one);
    grant_unref(two);
}

static void test_basic(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.http_auth = "basic:dXNlcjpwYXNz"});
    static const char no[] = "Unauthorized: `The user or the password is wrong`";
    assert_false(auth_open(a));
    grant_unref(enter(a, "Basic dXNlcjpwYXNz", NULL));
    grant_unref(enter(a, "basic  dXNlcjpwYXNz==", NULL));
    refused(a, "Basic dXNlcjpwYXN0", NULL, "AUTH_BASIC_REJECTED", no);
    refused(a, "Basic dXNlcjpwYXN", NULL, "AUTH_BASIC_REJECTED", no);
    refused(a, "Basic =", NULL, "AUTH_BASIC_REJECTED", no);
    refused(a, NULL, NULL, "AUTH_HTTP_HEADER_MISSING", MISSING);
    refused(a, bearer("{}"), NULL, "AUTH_JWT_NOT_ALLOWED",
            "Unauthorized: `Authentication by a JWT is not allowed here`");
    /* The server's password is not one of a tenant that has keys. */
    refused(a, "Basic dXNlcjpwYXNz", ED_PUBLIC, "AUTH_BASIC_NOT_ALLOWED",
            "Unauthorized: `Basic authentication is not allowed here`");
    grant_unref(enter(a, bearer("{}"), ED_PUBLIC));
    auth_free(a);
    a = make(&(struct auth_opts){.http_auth = "Basic:dXNlcjpwYXNz", .key_text = ED_PUBLIC});
    grant_unref(enter(a, "Basic dXNlcjpwYXNz", NULL));
    grant_unref(enter(a, bearer("{}"), NULL));
    auth_free(a);
}

static void test_options(void **state)
{
    (void)state;
    static const struct {
        struct auth_opts opts;
        enum rc rc;
        const char *text;
    } bad[] = {
        {{.key_text = "x", .key_file = "y"}, RC_INVALID, "both a file and a text"},
        {{.key_text = ""}, RC_INVALID, "there is none"},
        {{.key_text = ED_PRIVATE}, RC_INVALID, "a private key"},
        {{.key_file = "/nowhere/key"}, RC_NOT_FOUND, "/nowhere/key"},
        {{.http_auth = "basic:"}, RC_INVALID, "expected 'basic:'"},
        {{.http_auth = "dXNlcjpwYXNz"}, RC_INVALID, "expected 'basic:'"},
        {{.http_auth = "basic:a b"}, RC_INVALID, "expected 'basic:'"},
        {{.key_text = ED_PUBLIC, .roles = "{\"r\":[7]}"}, RC_INVALID, "role 'r', rule 1"},
    };
    struct err err;
    struct auth *kept = make(&(struct auth_opts){.key_text = ED_PUBLIC});
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct auth *a = NULL;
        assert_int_equal(auth_new(&bad[i].opts, &a, &err), bad[i].rc);
        assert_null(a);
        if (strstr(err.text, bad[i].text) == NULL) fail_msg("%s", err.text);
        assert_int_equal(auth_reload(kept, &bad[i].opts, &err), bad[i].rc);
    }
    grant_unref(enter(kept, bearer("{}"), NULL)); /* the old stayed */
    auth_free(kept);
    char path[] = "/tmp/sluice-auth-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, ED_PUBLIC, strlen(ED_PUBLIC)), strlen(ED_PUBLIC));
    kept = make(&(struct auth_opts){.key_file = path});
    grant_unref(enter(kept, bearer("{}"), NULL));
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(auth_reload(kept, &(struct auth_opts){.key_file = path}, &err), RC_INVALID);
    assert_non_null(strstr(err.text, path));
    close(fd);
    unlink(path);
    auth_free(kept);
}

static void test_own_keys(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.key_text = ED_PUBLIC});
    char ed[JWT_TEXT_MAX], es[JWT_TEXT_MAX];
    snprintf(ed, sizeof ed, "%s", bearer("{}"));
    snprintf(es, sizeof es, "%s", bearer_by(ES_PRIVATE, "{}"));
    for (int round = 0; round < 3; round++) { /* also when they are remembered */
        grant_unref(enter(a, ed, NULL));
        grant_unref(enter(a, es, ES_PUBLIC));
        refused(a, ed, ES_PUBLIC, "AUTH_JWT_INVALID", INVALID);
        refused(a, es, NULL, "AUTH_JWT_INVALID", INVALID);
        refused(a, es, "broken", "AUTH_JWT_INVALID", INVALID);
        refused(a, ed, "", "AUTH_JWT_INVALID", INVALID);
    }
    auth_free(a);
}

/* ---- What is remembered ---- */

static void test_remembers(void **state)
{
    (void)state;
    struct auth_opts opts = {.key_text = ED_PUBLIC};
    struct auth *a = make(&opts);
    char header[JWT_TEXT_MAX], other[JWT_TEXT_MAX];
    struct err err;
    snprintf(header, sizeof header, "%s", bearer("{\"id\":\"shop\"}"));
    struct grant *first = enter(a, header, NULL), *again = enter(a, header, NULL);
    assert_ptr_equal(first, again);
    grant_unref(again);
    uint64_t allocs = mem_alloc_count();
    for (int i = 0; i < 100; i++)
        grant_unref(enter(a, header, NULL));
    assert_int_equal(mem_alloc_count(), allocs);
    /* The claims of one token under the signature of another. */
    snprintf(other, sizeof other, "%s", bearer("{\"id\":\"blog\"}"));
    size_t n = strlen(header);
    char *dot = strrchr(other, '.');
    snprintf(dot, sizeof other - (size_t)(dot - other), "%s", strrchr(header, '.'));
    refused(a, other, NULL, "AUTH_JWT_INVALID", INVALID);
    for (size_t i = strlen("Bearer "); i < n; i++) {
        snprintf(other, sizeof other, "%s", header);
        other[i] = other[i] == 'A' ? 'B' : 'A';
        refused(a, other, NULL, "AUTH_JWT_INVALID", INVALID);
    }
    header[n - 1] = '\0';
    refused(a, header, NULL, "AUTH_JWT_INVALID", INVALID);
    opts.key_text = ES_PUBLIC;
    assert_int_equal(auth_reload(a, &opts, &err), RC_OK);
    refused(a, bearer("{\"id\":\"shop\"}"), NULL, "AUTH_JWT_INVALID", INVALID);
    opts.key_text = NULL;
    assert_int_equal(auth_reload(a, &opts, &err), RC_OK);
    assert_true(auth_open(a));
    grant_unref(enter(a, "Bearer x", NULL));
    grant_unref(first);
    auth_free(a);
}

static void test_forgets_what_expires(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.key_text = HS_KEY});
    char claims[64], header[JWT_TEXT_MAX];
    int64_t end = os_now_ms() / 1000 + 3;
    snprintf(claims, sizeof claims, "{\"exp\":%lld}", (long long)end - JWT_LEEWAY_S);
    snprintf(header, sizeof header, "%s", bearer_by(HS_KEY, claims));
    struct grant *g = enter(a, header, NULL), *again = enter(a, header, NULL);
    assert_ptr_equal(g, again);
    while (os_now_ms() / 1000 < end)
        os_sleep_ms(20);
    assert_true(grant_expired(g, end));
    refused(a, header, NULL, "AUTH_JWT_EXPIRED", EXPIRED);
    grant_unref(g);
    grant_unref(again);
    auth_free(a);
}

/* Many more tokens than places: all get in, those in use stay. */
static void test_bounded(void **state)
{
    (void)state;
    enum { TOKENS = 9000 };
    struct auth *a = make(&(struct auth_opts){.key_text = HS_KEY});
    char hot[JWT_TEXT_MAX], claims[64];
    snprintf(hot, sizeof hot, "%s", bearer_by(HS_KEY, "{\"id\":\"hot\"}"));
    struct grant *first = enter(a, hot, NULL);
    unsigned same = 0;
    for (int i = 0; i < TOKENS; i++) {
        snprintf(claims, sizeof claims, "{\"id\":\"t%d\"}", i);
        struct grant *g = enter(a, bearer_by(HS_KEY, claims), NULL), *h = enter(a, hot, NULL);
        assert_int_equal(grant_for(g, claims + 7), GRANT_NONE);
        same += h == first;
        grant_unref(g);
        grant_unref(h);
    }
    assert_int_equal(same, TOKENS);
    uint64_t allocs = mem_alloc_count();
    unsigned kept = 0;
    for (int i = 0; i < TOKENS; i++) {
        snprintf(claims, sizeof claims, "{\"id\":\"t%d\"}", i);
        const char *header = bearer_by(HS_KEY, claims);
        allocs = mem_alloc_count();
        grant_unref(enter(a, header, NULL));
        kept += mem_alloc_count() == allocs;
    }
    assert_in_range(kept, 0, 4096);
    grant_unref(first);
    auth_free(a);
}

struct crowd {
    struct auth *a;
    char header[8][512];
    char expect[8][16];
    atomic_bool stop;
    atomic_uint lookups;
};

static void *visit(void *arg)
{
    struct crowd *c = arg;
    for (unsigned i = 0; !atomic_load(&c->stop); i++) {
        struct grant *g = NULL;
        struct sql_error e;
        struct err err;
        enum rc rc = auth_header(c->a, c->header[i % 8], NULL, &g, &e, &err);
        /* Refused between two reloads, or the grant of this very token. */
        if (rc == RC_OK) ASSERT(grant_for(g, c->expect[i % 8]) == GRANT_WRITE);
        if (rc != RC_OK) ASSERT(strcmp(e.code, "AUTH_JWT_INVALID") == 0);
        grant_unref(g);
        atomic_fetch_add(&c->lookups, 1);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct auth_opts with = {.key_text = HS_KEY, .roles = ROLES}, without = {.key_text = ED_PUBLIC};
    static struct crowd c;
    pthread_t threads[4];
    struct err err;
    c.a = make(&with);
    for (unsigned i = 0; i < 8; i++) {
        char claims[64];
        snprintf(c.expect[i], sizeof c.expect[i], "t%u", i);
        snprintf(claims, sizeof claims, "{\"id\":\"t%u\",\"role\":\"reader\"}", i);
        snprintf(c.header[i], sizeof c.header[i], "%s", bearer_by(HS_KEY, claims));
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(thr_start(&threads[i], "visitor", visit, &c, &err), RC_OK);
    for (unsigned i = 0; i < 40; i++) {
        unsigned seen = atomic_load(&c.lookups);
        assert_int_equal(auth_reload(c.a, i % 4 == 3 ? &without : &with, &err), RC_OK);
        while (atomic_load(&c.lookups) < seen + 50)
            os_sleep_ms(1);
    }
    atomic_store(&c.stop, true);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    auth_free(c.a);
}

/* ---- The rest ---- */

static void test_admin(void **state)
{
    (void)state;
    assert_true(auth_admin(NULL, NULL));
    assert_true(auth_admin("basic s3cret", "s3cret"));
    assert_true(auth_admin("Basic s3cret", "s3cret"));
    assert_true(auth_admin("bearer s3cret", "s3cret"));
    assert_true(auth_admin("Bearer  s3cret ", "s3cret"));
    const char *const no[] = {
        NULL,           "",      "s3cret",        "basic s3cre", "basic s3cret2",
        "basic S3cret", "basic", "digest s3cret", "Bearer ",     "basic s3cret x"};
    for (size_t i = 0; i < COUNT(no); i++)
        assert_false(auth_admin(no[i], "s3cret"));
    assert_false(auth_admin("basic ", ""));
    assert_false(auth_admin("basic x", ""));
}

static void test_names(void **state)
{
    (void)state;
    char longest[AUTH_NAME_MAX + 2];
    struct err err;
    memset(longest, 'a', sizeof longest);
    const char *const good[] = {"a", "default", "a-b_c.d", "0", "_x", "a..b", "x-"};
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(auth_check_name(good[i], strlen(good[i]), true, &err), RC_OK);
    assert_int_equal(auth_check_name(longest, AUTH_NAME_MAX, true, &err), RC_OK);
    assert_int_equal(auth_check_name(longest, AUTH_NAME_MAX + 1, true, &err), RC_INVALID);
    const char *const bad[] = {"",    ".",    "..",       ".a", "-a", "a/b",
                               "a b", "a\\b", "\xC3\xA4", "a%", "a\n"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(auth_check_name(bad[i], strlen(bad[i]), false, &err), RC_INVALID);
        for (const char *c = err.text; *c != '\0'; c++)
            assert_in_range(*c, ' ', '~');
    }
    assert_int_equal(auth_check_name("a\0b", 3, false, &err), RC_INVALID);
    assert_int_equal(auth_check_name("Shop", 4, false, &err), RC_OK);
    assert_int_equal(auth_check_name("Shop", 4, true, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "'Shop'"));
}

static void test_on_a_connection(void **state)
{
    (void)state;
    struct auth *a = make(&(struct auth_opts){.key_text = ED_PUBLIC, .roles = ROLES});
    struct rbed b;
    rbed_new(&b, "CREATE TABLE orders(id INTEGER PRIMARY KEY, sum); CREATE TABLE other(a);");
    struct grant *g = enter(a, bearer("{\"roles\":[\"reader\",\"clerk\"]}"), NULL);
    sql_conn_policy(b.conn, grant_policy(g));
    assert_string_equal(rbed_ok(&b, "INSERT INTO orders(sum) VALUES(5) RETURNING id"), "1");
    assert_string_equal(rbed_ok(&b, "SELECT sum(sum) FROM orders"), "5");
    rbed_no(&b, "DELETE FROM orders");
    rbed_no(&b, "INSERT INTO other VALUES(1)");
    sql_conn_policy(b.conn, NULL);
    rbed_as(&b, NULL);
    rbed_free(&b);
    grant_unref(g);
    auth_free(a);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct auth_opts opts = {.key_text = HS_KEY, .http_auth = "basic:eDp5", .roles = ROLES};
    static const char *const claims[] = {
        "{\"id\":\"a\",\"roles\":[\"reader\",\"clerk\"],\"rules\":[{\"effect\":\"allow\","
        "\"actions\":[\"read\"],\"tables\":[\"t\"]}]}",
        "{\"p\":{\"ro\":{\"ns\":[\"a\"]}},\"role\":\"reader\"}"};
    for (size_t k = 0; k < COUNT(claims); k++) {
        char header[JWT_TEXT_MAX];
        snprintf(header, sizeof header, "%s", bearer_by(HS_KEY, claims[k]));
        bool fired = true, lost = false;
        for (uint64_t n = 1; fired; n++) {
            struct auth *a = NULL;
            struct grant *g = NULL;
            struct err err = {0};
            struct sql_error e;
            fault_arm(FAULT_ALLOC, n, false);
            enum rc rc = auth_new(&opts, &a, &err);
            if (rc == RC_OK) rc = auth_header(a, header, NULL, &g, &e, &err);
            if (rc == RC_OK) rc = auth_reload(a, &opts, &err);
            fired = fault_fired();
            fault_arm(0, 0, false);
            /* Only what is remembered may be lost without a word. */
            lost = lost || (fired && rc == RC_OK);
            assert_true(rc == RC_OK || (fired && rc == RC_NO_MEM && err.text[0] != '\0'));
            if (g != NULL) assert_int_not_equal(grant_for(g, "a"), GRANT_NONE);
            grant_unref(g);
            if (a != NULL) grant_unref(enter(a, header, NULL));
            auth_free(a);
        }
        assert_true(lost);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_tenants),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_basic),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_own_keys),
        cmocka_unit_test(test_remembers),
        cmocka_unit_test(test_forgets_what_expires),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_admin),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_on_a_connection),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
