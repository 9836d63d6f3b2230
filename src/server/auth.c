/*
 * auth.c -- see auth.h: headers and tokens against what is configured, and what was verified.
 *
 *   token + keys of the tenant ──hash──► set (one of SETS) ──► WAYS places ──► grant
 *
 * A place is found by a hash with a random seed, and then by comparing all of the token and of the
 * keys. Only tokens that were verified get a place, so who has none cannot push others out. Each
 * set has a lock of its own that readers share, and a hand that goes round for places to reuse.
 * What was read from the configuration is a `setup` with a number; a place from an earlier number
 * counts as empty. Passwords are compared by their hashes, in constant time.
 */
#include "server/auth_intern.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "fmt/jwt.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#define SETS       256
#define WAYS       16   /* 4096 tokens in all */
#define REMEMBERED 8192 /* bytes of a token with the keys; longer ones are verified each time */
#define LOGIN_MAX  1024 /* bytes of a password in base64 */

struct place {
    uint64_t number; /* of the setup */
    struct grant *grant;
    atomic_bool used; /* since the hand was here */
    size_t token_size, keys_size;
    char text[]; /* both, one after the other */
};
struct set {
    pthread_rwlock_t lock;
    uint64_t hash[WAYS];
    struct place *place[WAYS];
    unsigned hand;
};
struct auth {
    uint64_t seed;
    pthread_rwlock_t lock; /* of setup and number */
    struct setup *setup;
    _Atomic uint64_t number;
    struct set sets[SETS];
};
struct asked { /* a token, and what it is verified with */
    const char *token, *keys;
    size_t token_size, keys_size;
    uint64_t hash, number;
    int64_t now_s;
};

static enum rc setup_new(const struct auth_opts *opts, struct setup **ret, struct err *err);
static enum rc read_keys(const struct auth_opts *opts, struct setup *s, struct err *err);
static enum rc read_login(const char *http_auth, struct setup *s, struct err *err);
static void hash_login(const char *text, size_t size, uint8_t out[32]);
static struct setup *current(struct auth *a, uint64_t *ret_number);
static enum rc by_scheme(const struct setup *s, const char *header, const char *keys,
                         struct grant **ret, struct sql_error *sql_err, struct err *err);
static bool split_header(const char *header, size_t *ret_scheme, const char **ret_rest,
                         size_t *ret_size);
static enum rc by_token(struct auth *a, const char *token, size_t size, const char *keys,
                        struct grant **ret, struct sql_error *sql_err, struct err *err);
static enum rc by_login(const struct setup *s, const char *login, size_t size, const char *keys,
                        struct grant **ret, struct sql_error *sql_err, struct err *err);
static enum rc verify(const struct asked *q, struct setup *s, struct grant **ret,
                      struct sql_error *sql_err, struct err *err);
static struct grant *recall(struct auth *a, const struct asked *q);
static bool is_place(const struct place *p, const struct asked *q);
static void remember(struct auth *a, const struct asked *q, struct grant *g);
static unsigned pick(struct auth *a, struct set *set, const struct asked *q);
static void place_free(struct place *p);
static void forget_all(struct auth *a);
static enum rc deny(struct sql_error *sql_err, struct err *err, const char *code, const char *text);
static enum rc deny_jwt(struct sql_error *sql_err, enum jwt_problem problem);
static void share(pthread_rwlock_t *lock);
static void own(pthread_rwlock_t *lock);
static void let_go(pthread_rwlock_t *lock);
static void secret_fini(struct buf *b);
static void setup_freep(struct setup **s);

/* ---- Configuration ---- */

enum rc auth_new(const struct auth_opts *opts, struct auth **ret_a, struct err *err)
{
    CLEANUP(setup_freep) struct setup *s = NULL;
    TRY(setup_new(opts, &s, err));
    struct auth *a = mem_calloc(1, sizeof *a);
    if (a == NULL) return err_mem(err, "tokens that were verified");
    a->seed = os_random();
    a->setup = s;
    s = NULL;
    atomic_init(&a->number, 1);
    ASSERT(pthread_rwlock_init(&a->lock, NULL) == 0);
    for (size_t i = 0; i < SETS; i++)
        ASSERT(pthread_rwlock_init(&a->sets[i].lock, NULL) == 0);
    *ret_a = a;
    return RC_OK;
}

enum rc auth_check(const struct auth_opts *opts, struct err *err)
{
    struct setup *s = NULL;
    TRY(setup_new(opts, &s, err));
    setup_unref(s);
    return RC_OK;
}

enum rc auth_reload(struct auth *a, const struct auth_opts *opts, struct err *err)
{
    struct setup *s = NULL;
    TRY(setup_new(opts, &s, err));
    own(&a->lock);
    struct setup *old = a->setup;
    a->setup = s;
    atomic_fetch_add(&a->number, 1);
    let_go(&a->lock);
    setup_unref(old);
    forget_all(a);
    return RC_OK;
}

void auth_free(struct auth *a)
{
    if (a == NULL) return;
    forget_all(a);
    for (size_t i = 0; i < SETS; i++)
        pthread_rwlock_destroy(&a->sets[i].lock);
    pthread_rwlock_destroy(&a->lock);
    setup_unref(a->setup);
    mem_free(a);
}

bool auth_open(const struct auth *auth)
{
    struct auth *a = (struct auth *)auth; /* only its lock changes */
    share(&a->lock);
    bool open = a->setup->open;
    let_go(&a->lock);
    return open;
}

struct setup *setup_ref(struct setup *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void setup_unref(struct setup *s)
{
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1) return;
    jwt_keys_free(s->keys);
    roles_free(s->roles);
    grant_unref(s->all);
    mem_wipe(s->basic_hash, sizeof s->basic_hash);
    mem_free(s);
}

static enum rc setup_new(const struct auth_opts *opts, struct setup **ret, struct err *err)
{
    CLEANUP(setup_freep) struct setup *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "access control");
    atomic_init(&s->refs, 1);
    TRY(read_keys(opts, s, err));
    TRY(read_login(opts->http_auth, s, err));
    TRY(roles_parse(opts->roles, &s->roles, err));
    TRY(grant_all(&s->all, err));
    s->open = s->keys == NULL && !s->basic;
    *ret = s;
    s = NULL;
    return RC_OK;
}

static enum rc read_keys(const struct auth_opts *opts, struct setup *s, struct err *err)
{
    CLEANUP(secret_fini) struct buf text = BUF_INIT;
    if (opts->key_file != NULL && opts->key_text != NULL)
        return err_set(err, RC_INVALID, "keys for tokens: both a file and a text are given");
    if (opts->key_text != NULL)
        return jwt_keys_parse(opts->key_text, strnlen(opts->key_text, JWT_KEY_TEXT_MAX + 1),
                              &s->keys, err);
    if (opts->key_file == NULL) return RC_OK;
    TRY(os_read_file(opts->key_file, JWT_KEY_TEXT_MAX, &text, err));
    if (jwt_keys_parse((const char *)text.data, text.size, &s->keys, err) == RC_OK) return RC_OK;
    return err_wrap(err, "file '%s'", opts->key_file);
}

/* "basic:" and the base64 of "user:password". */
static enum rc read_login(const char *http_auth, struct setup *s, struct err *err)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=";
    if (http_auth == NULL) return RC_OK;
    const char *login = strchr(http_auth, ':');
    size_t size = login != NULL ? strnlen(login + 1, LOGIN_MAX + 1) : 0;
    if (strncasecmp(http_auth, "basic:", strlen("basic:")) != 0 || size == 0 || size > LOGIN_MAX ||
        strspn(login + 1, digits) != size)
        return err_set(err, RC_INVALID,
                       "HTTP authentication: expected 'basic:' and the base64 of user:password, at "
                       "most %d bytes",
                       LOGIN_MAX);
    hash_login(login + 1, size, s->basic_hash);
    s->basic = true;
    return RC_OK;
}

/* Padding does not count. */
static void hash_login(const char *text, size_t size, uint8_t out[32])
{
    while (size > 0 && text[size - 1] == '=')
        size--;
    SHA256((const uint8_t *)text, size, out);
}

static struct setup *current(struct auth *a, uint64_t *ret_number)
{
    share(&a->lock);
    struct setup *s = setup_ref(a->setup);
    *ret_number = atomic_load(&a->number);
    let_go(&a->lock);
    return s;
}

/* ---- Requests ---- */

enum rc auth_header(struct auth *a, const char *header, const char *keys_text,
                    struct grant **ret_grant, struct sql_error *sql_err, struct err *err)
{
    static const char bearer[] = "bearer";
    size_t scheme, size;
    const char *rest;
    /* The usual case, without a look at the configuration. */
    if (header != NULL && split_header(header, &scheme, &rest, &size) && scheme == strlen(bearer) &&
        strncasecmp(header, bearer, scheme) == 0)
        return by_token(a, rest, size, keys_text, ret_grant, sql_err, err);
    uint64_t number;
    CLEANUP(setup_freep) struct setup *s = current(a, &number);
    if (s->open && keys_text == NULL) {
        *ret_grant = grant_ref(s->all);
        return RC_OK;
    }
    return by_scheme(s, header, keys_text, ret_grant, sql_err, err);
}

enum rc auth_token(struct auth *a, const char *token, const char *keys_text,
                   struct grant **ret_grant, struct sql_error *sql_err, struct err *err)
{
    if (token == NULL) {
        uint64_t number;
        CLEANUP(setup_freep) struct setup *s = current(a, &number);
        if (!s->open || keys_text != NULL)
            return deny(sql_err, err, "AUTH_JWT_MISSING", "Expected a JWT but none given");
        *ret_grant = grant_ref(s->all);
        return RC_OK;
    }
    return by_token(a, token, strnlen(token, JWT_TEXT_MAX + 1), keys_text, ret_grant, sql_err, err);
}

bool auth_admin(const char *header, const char *key)
{
    size_t scheme, size;
    const char *rest;
    uint8_t want[32], got[32];
    if (key == NULL) return true;
    if (header == NULL || !split_header(header, &scheme, &rest, &size)) return false;
    bool known = (scheme == 5 && strncasecmp(header, "basic", 5) == 0) ||
                 (scheme == 6 && strncasecmp(header, "bearer", 6) == 0);
    SHA256((const uint8_t *)key, strlen(key), want);
    SHA256((const uint8_t *)rest, size, got);
    return CRYPTO_memcmp(want, got, sizeof want) == 0 && known && key[0] != '\0';
}

enum rc auth_check_name(const char *name, size_t size, bool create, struct err *err)
{
    if (size == 0 || size > AUTH_NAME_MAX)
        return err_set(err, RC_INVALID, "a namespace's name has 1 to %d bytes, not %zu",
                       AUTH_NAME_MAX, size);
    for (size_t i = 0; i < size; i++) {
        char c = name[i];
        bool capital = c >= 'A' && c <= 'Z';
        if (!capital && (c == '\0' || strchr("abcdefghijklmnopqrstuvwxyz0123456789_-.", c) == NULL))
            return err_set(err, RC_INVALID,
                           "a namespace's name has only letters, digits, '_', '-' and '.', not "
                           "byte 0x%02x (at offset %zu)",
                           (unsigned char)c, i);
        if (capital && create)
            return err_set(err, RC_INVALID,
                           "namespace '%.*s': a new one has no capitals, because two names must "
                           "not differ by case only",
                           (int)size, name);
    }
    if (name[0] == '.' || name[0] == '-')
        return err_set(err, RC_INVALID, "namespace '%.*s': a name does not start with '%c'",
                       (int)size, name, name[0]);
    return RC_OK;
}

/* Anything but a bearer's token. */
static enum rc by_scheme(const struct setup *s, const char *header, const char *keys,
                         struct grant **ret, struct sql_error *sql_err, struct err *err)
{
    size_t scheme, size;
    const char *rest;
    if (header == NULL)
        return deny(sql_err, err, "AUTH_HTTP_HEADER_MISSING",
                    "Expected authorization header but none given");
    if (!split_header(header, &scheme, &rest, &size))
        return deny(sql_err, err, "AUTH_HTTP_HEADER_INVALID",
                    "The authorization header is not a scheme and a value");
    if (scheme == strlen("basic") && strncasecmp(header, "basic", scheme) == 0)
        return by_login(s, rest, size, keys, ret, sql_err, err);
    return deny(sql_err, err, "AUTH_HTTP_HEADER_UNSUPPORTED_SCHEME",
                "The scheme of the authorization header is not supported");
}

/* False: not a scheme, blanks, and a value without blanks. */
static bool split_header(const char *header, size_t *ret_scheme, const char **ret_rest,
                         size_t *ret_size)
{
    size_t n = strcspn(header, " \t");
    const char *rest = header + n + strspn(header + n, " \t");
    size_t size = strcspn(rest, " \t");
    if (n == 0 || size == 0 || rest[size + strspn(rest + size, " \t")] != '\0') return false;
    *ret_scheme = n;
    *ret_rest = rest;
    *ret_size = size;
    return true;
}

static enum rc by_login(const struct setup *s, const char *login, size_t size, const char *keys,
                        struct grant **ret, struct sql_error *sql_err, struct err *err)
{
    uint8_t got[32];
    if (!s->basic || keys != NULL)
        return deny(sql_err, err, "AUTH_BASIC_NOT_ALLOWED",
                    "Basic authentication is not allowed here");
    hash_login(login, size, got);
    if (CRYPTO_memcmp(got, s->basic_hash, sizeof got) != 0)
        return deny(sql_err, err, "AUTH_BASIC_REJECTED", "The user or the password is wrong");
    *ret = grant_ref(s->all);
    return RC_OK;
}

static enum rc by_token(struct auth *a, const char *token, size_t size, const char *keys,
                        struct grant **ret, struct sql_error *sql_err, struct err *err)
{
    struct asked q = {.token = token, .token_size = size, .keys = keys};
    q.now_s = os_now_ms() / 1000;
    q.number = atomic_load(&a->number);
    q.keys_size = keys != NULL ? strnlen(keys, JWT_KEY_TEXT_MAX + 1) : 0;
    bool fits = size + q.keys_size <= REMEMBERED;
    if (fits) {
        q.hash = XXH3_64bits_withSeed(token, size, a->seed);
        if (keys != NULL) q.hash ^= XXH3_64bits_withSeed(keys, q.keys_size, ~a->seed);
    }
    struct grant *g = fits ? recall(a, &q) : NULL;
    if (g != NULL) {
        if (!grant_expired(g, q.now_s)) {
            *ret = g;
            return RC_OK;
        }
        grant_unref(g);
        (void)deny_jwt(sql_err, JWT_EXPIRED);
        return err_set(err, RC_DENIED, "the token has expired");
    }
    CLEANUP(setup_freep) struct setup *s = current(a, &q.number);
    if (s->open && keys == NULL) {
        *ret = grant_ref(s->all);
        return RC_OK;
    }
    if (s->keys == NULL && keys == NULL)
        return deny(sql_err, err, "AUTH_JWT_NOT_ALLOWED",
                    "Authentication by a JWT is not allowed here");
    TRY(verify(&q, s, &g, sql_err, err));
    if (fits) remember(a, &q, g);
    *ret = g;
    return RC_OK;
}

static enum rc verify(const struct asked *q, struct setup *s, struct grant **ret,
                      struct sql_error *sql_err, struct err *err)
{
    CLEANUP(jwt_keys_freep) struct jwt_keys *mine = NULL;
    CLEANUP(buf_fini) struct buf claims = BUF_INIT;
    enum jwt_problem problem = JWT_MALFORMED;
    enum rc rc = RC_OK;
    if (q->keys != NULL) {
        rc = jwt_keys_parse(q->keys, q->keys_size, &mine, err);
        if (rc != RC_OK && rc != RC_NO_MEM) {
            err_wrap(err, "the namespace's own keys");
            rc = err->rc = RC_DENIED; /* and not the server's instead of them */
        }
    }
    if (rc == RC_OK)
        rc = jwt_verify(mine != NULL ? mine : s->keys, q->token, q->token_size, q->now_s, &claims,
                        &problem, err);
    if (rc == RC_OK) {
        problem = JWT_MALFORMED;
        rc = grant_parse(claims.data, claims.size, s, ret, err);
    }
    if (rc == RC_DENIED) (void)deny_jwt(sql_err, problem);
    return rc;
}

/* ---- What was verified ---- */

static struct grant *recall(struct auth *a, const struct asked *q)
{
    struct set *set = &a->sets[q->hash % SETS];
    struct grant *g = NULL;
    share(&set->lock);
    for (unsigned i = 0; i < WAYS && g == NULL; i++) {
        struct place *p = set->place[i];
        if (set->hash[i] != q->hash || p == NULL || !is_place(p, q)) continue;
        g = grant_ref(p->grant);
        /* Written only when it changes: the place is shared by many. */
        if (!atomic_load_explicit(&p->used, memory_order_relaxed))
            atomic_store_explicit(&p->used, true, memory_order_relaxed);
    }
    let_go(&set->lock);
    return g;
}

static bool is_place(const struct place *p, const struct asked *q)
{
    return p->number == q->number && p->token_size == q->token_size &&
           p->keys_size == q->keys_size && memcmp(p->text, q->token, q->token_size) == 0 &&
           (q->keys_size == 0 || memcmp(p->text + q->token_size, q->keys, q->keys_size) == 0);
}

/* Without memory the token is verified again next time. */
static void remember(struct auth *a, const struct asked *q, struct grant *g)
{
    struct set *set = &a->sets[q->hash % SETS];
    struct place *p = mem_alloc(sizeof *p + q->token_size + q->keys_size), *old = NULL;
    if (p == NULL) return;
    p->number = q->number;
    p->grant = grant_ref(g);
    p->token_size = q->token_size;
    p->keys_size = q->keys_size;
    memcpy(p->text, q->token, q->token_size);
    if (q->keys_size > 0) memcpy(p->text + q->token_size, q->keys, q->keys_size);
    atomic_init(&p->used, false); /* tokens that come once go first */
    own(&set->lock);
    unsigned i = pick(a, set, q);
    old = set->place[i];
    set->place[i] = p;
    set->hash[i] = q->hash;
    let_go(&set->lock);
    place_free(old);
}

/* The same token, which another thread has verified as well; or a place that is free, outdated or
 * over; or the first one under the hand that nobody used since it came by. */
static unsigned pick(struct auth *a, struct set *set, const struct asked *q)
{
    uint64_t number = atomic_load(&a->number);
    for (unsigned i = 0; i < WAYS; i++)
        if (set->place[i] != NULL && set->hash[i] == q->hash && is_place(set->place[i], q))
            return i;
    for (unsigned i = 0; i < WAYS; i++) {
        const struct place *p = set->place[i];
        if (p == NULL || p->number != number || grant_expired(p->grant, q->now_s)) return i;
    }
    for (;;) {
        unsigned i = set->hand++ % WAYS;
        if (!atomic_exchange_explicit(&set->place[i]->used, false, memory_order_relaxed)) return i;
    }
}

static void place_free(struct place *p)
{
    if (p == NULL) return;
    grant_unref(p->grant);
    mem_wipe(p->text, p->token_size + p->keys_size);
    mem_free(p);
}

static void forget_all(struct auth *a)
{
    for (size_t k = 0; k < SETS; k++) {
        struct place *old[WAYS];
        struct set *set = &a->sets[k];
        own(&set->lock);
        memcpy(old, set->place, sizeof old);
        memset(set->place, 0, sizeof set->place);
        let_go(&set->lock);
        for (unsigned i = 0; i < WAYS; i++)
            place_free(old[i]);
    }
}

/* ---- Failures ---- */

static enum rc deny(struct sql_error *sql_err, struct err *err, const char *code, const char *text)
{
    sql_error_own(sql_err, code, "Unauthorized: `%s`", text);
    return err_set(err, RC_DENIED, "%s", text);
}

static enum rc deny_jwt(struct sql_error *sql_err, enum jwt_problem problem)
{
    static const struct {
        const char *code, *text;
    } words[] = {
        [JWT_MALFORMED] = {"AUTH_JWT_INVALID", "The JWT is invalid"},
        [JWT_BAD_SIGNATURE] = {"AUTH_JWT_INVALID", "The JWT is invalid"},
        [JWT_EXPIRED] = {"AUTH_JWT_EXPIRED", "The JWT has expired"},
        [JWT_NOT_YET] = {"AUTH_JWT_IMMATURE", "The JWT is not valid yet"},
    };
    ASSERT(problem != JWT_OK);
    sql_error_own(sql_err, words[problem].code, "Unauthorized: `%s`", words[problem].text);
    return RC_DENIED;
}

/* ---- Small ---- */

static void share(pthread_rwlock_t *lock)
{
    ASSERT(pthread_rwlock_rdlock(lock) == 0);
}

static void own(pthread_rwlock_t *lock)
{
    ASSERT(pthread_rwlock_wrlock(lock) == 0);
}

static void let_go(pthread_rwlock_t *lock)
{
    ASSERT(pthread_rwlock_unlock(lock) == 0);
}

static void secret_fini(struct buf *b)
{
    if (b->data != NULL) mem_wipe(b->data, b->cap);
    buf_fini(b);
}

static void setup_freep(struct setup **s)
{
    setup_unref(*s);
}
