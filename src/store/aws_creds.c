/*
 * aws_creds.c -- see aws_creds.h. The keys in hand, and who looks for new ones.
 *
 *   have && fresh         everybody takes them
 *   have && soon to end   the first caller fetches; the others, and it too when it fails, go on
 *                         with the old ones until these have expired; the next try is a minute on
 *   no keys               the first caller fetches, the others wait and share what came of it, be
 *                         it a failure: ten thousand databases ask once
 *
 * Threads: any; `lock` guards the members marked with it and is never held during I/O.
 */
#include "store/aws_creds.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/aws_intern.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EARLY_MS 300000 /* so long before their end keys are replaced */
#define PAUSE_MS 60000  /* between two fetches while there are valid keys */
#define WAIT_MS  100    /* a waiting thread looks at its cancel flag so often */

struct aws_creds {
    struct aws_creds *next; /* [registry] */
    unsigned refs;          /* [registry] */
    bool oss, given;        /* [const] given: by the configuration, so there are no others */
    char region[AWS_REGION_MAX];
    pthread_mutex_t lock;
    pthread_cond_t done;     /* a fetch has ended */
    struct aws_keys keys;    /* [lock] */
    struct aws_keys refused; /* [lock] by the service, last */
    bool have, fetching;     /* [lock] */
    int64_t pause_until_ms;  /* [lock] by os_mono_ms: no fetch ahead of need before that */
    uint64_t rounds;         /* [lock] fetches that have ended */
    struct err failure;      /* [lock] of the last round; RC_OK: none */
};

/* Keys that are not given are the same for all stores of the process, so they share them. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct aws_creds *registry; /* [registry_lock] */

static struct aws_creds *make(bool oss, const char *region);
static struct aws_creds *share(bool oss, const char *region);
static enum rc fetch(struct aws_creds *a, const struct call *c, struct aws_keys *ret,
                     struct err *err);
static enum rc wait_for_round(struct aws_creds *a, const struct call *c, struct err *err);
static enum rc search(struct aws_creds *a, const struct call *c, struct aws_keys *ret,
                      struct err *err);
static enum rc search_oss(struct aws_keys *ret, struct err *err);
static bool good_until(const struct aws_creds *a, int64_t margin_ms);
static bool same(const struct aws_keys *a, const struct aws_keys *b);
static bool take_env(const char *name, char *out, size_t out_size);

enum rc aws_creds_open(const struct aws_creds_conf *conf, struct aws_creds **ret, struct err *err)
{
    const char *access = conf->access_key ? conf->access_key : "";
    const char *secret = conf->secret_key ? conf->secret_key : "";
    if ((access[0] == '\0') != (secret[0] == '\0'))
        return err_set(err, RC_INVALID, "'%s' is given without '%s'",
                       access[0] ? "access-key-id" : "secret-access-key",
                       access[0] ? "secret-access-key" : "access-key-id");
    const char *region = conf->region ? conf->region : "";
    bool given = access[0] != '\0';
    struct aws_creds *a = given ? make(conf->oss, region) : share(conf->oss, region);
    if (a == NULL) return err_mem(err, "access keys");
    if (given) {
        bool fits = strlen(access) < sizeof a->keys.access_key &&
                    strlen(secret) < sizeof a->keys.secret_key;
        a->given = a->have = true;
        snprintf(a->keys.access_key, sizeof a->keys.access_key, "%s", access);
        snprintf(a->keys.secret_key, sizeof a->keys.secret_key, "%s", secret);
        if (!fits || aws_keys_check(&a->keys, err) != RC_OK) {
            aws_creds_close(a);
            return err_set(err, RC_INVALID,
                           "'access-key-id' or 'secret-access-key' is too long, "
                           "or holds a character that no key has");
        }
    }
    *ret = a;
    return RC_OK;
}

void aws_creds_close(struct aws_creds *a)
{
    if (a == NULL) return;
    thr_lock(&registry_lock);
    bool last = --a->refs == 0;
    struct aws_creds **link = &registry;
    while (last && *link != NULL && *link != a)
        link = &(*link)->next;
    if (last && *link == a) *link = a->next;
    thr_unlock(&registry_lock);
    if (!last) return;
    pthread_cond_destroy(&a->done);
    pthread_mutex_destroy(&a->lock);
    mem_wipe(a, sizeof *a);
    mem_free(a);
}

enum rc aws_creds_get(struct aws_creds *a, const struct call *c, struct aws_keys *ret,
                      struct err *err)
{
    enum rc rc = RC_OK;
    TRY(call_check(c, err));
    thr_lock(&a->lock);
    for (;;) {
        bool valid = good_until(a, 0);
        bool due = !good_until(a, EARLY_MS) && (!valid || os_mono_ms() >= a->pause_until_ms);
        if (valid && (!due || a->fetching)) {
            *ret = a->keys;
            break;
        }
        if (!a->fetching) {
            rc = fetch(a, c, ret, err);
            break;
        }
        rc = wait_for_round(a, c, err);
        if (rc != RC_OK) break;
    }
    thr_unlock(&a->lock);
    return rc;
}

bool aws_creds_expired(struct aws_creds *a, const struct aws_keys *keys)
{
    if (a->given) return false;
    thr_lock(&a->lock);
    bool current = a->have && same(&a->keys, keys);
    bool again = same(&a->refused, keys); /* fetched anew, and still the same */
    if (current) {
        a->refused = *keys;
        aws_keys_wipe(&a->keys);
        a->have = false;
    }
    thr_unlock(&a->lock);
    return !again;
}

void aws_region(char out[AWS_REGION_MAX])
{
    if (take_env("AWS_REGION", out, AWS_REGION_MAX)) return;
    if (take_env("AWS_DEFAULT_REGION", out, AWS_REGION_MAX)) return;
    aws_profile_region(out);
}

/* ---- Inside the folder ---- */

enum rc aws_looked(struct aws_search *s, struct err *err, const char *fmt, ...)
{
    char place[AWS_PATH_MAX + 128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(place, sizeof place, fmt, args);
    va_end(args);
    if (s->looked.size > 0) s->looked.size--; /* the \0 */
    TRY(buf_printf(&s->looked, err, "%s%s", s->looked.size > 0 ? ", " : "", place));
    return buf_append(&s->looked, "", 1, err);
}

const char *aws_env(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

enum rc aws_keys_check(const struct aws_keys *keys, struct err *err)
{
    const char *const texts[] = {keys->access_key, keys->secret_key, keys->token};
    static const char *const names[] = {"access key", "secret key", "session token"};
    for (size_t i = 0; i < 3; i++) {
        if (i < 2 && texts[i][0] == '\0')
            return err_set(err, RC_CORRUPT, "there is no %s", names[i]);
        for (const char *p = texts[i]; *p != '\0'; p++)
            if (!isgraph((unsigned char)*p))
                return err_set(err, RC_CORRUPT, "the %s holds a character that none has", names[i]);
    }
    return RC_OK;
}

void aws_keys_wipe(struct aws_keys *keys)
{
    mem_wipe(keys, sizeof *keys);
}

enum rc aws_from_env(struct aws_search *s, struct aws_keys *ret, bool *ret_found, struct err *err)
{
    struct aws_keys keys = {0};
    bool access = take_env("AWS_ACCESS_KEY_ID", keys.access_key, sizeof keys.access_key) ||
                  take_env("LITESTREAM_ACCESS_KEY_ID", keys.access_key, sizeof keys.access_key);
    bool secret = take_env("AWS_SECRET_ACCESS_KEY", keys.secret_key, sizeof keys.secret_key) ||
                  take_env("LITESTREAM_SECRET_ACCESS_KEY", keys.secret_key, sizeof keys.secret_key);
    *ret_found = access && secret;
    if (access != secret)
        return aws_looked(s, err,
                          "environment (only one of AWS_ACCESS_KEY_ID and "
                          "AWS_SECRET_ACCESS_KEY is set)");
    if (!access) return aws_looked(s, err, "environment (AWS_ACCESS_KEY_ID)");
    if (!take_env("AWS_SESSION_TOKEN", keys.token, sizeof keys.token) &&
        aws_env("AWS_SESSION_TOKEN")[0] != '\0')
        return err_set(err, RC_INVALID, "AWS_SESSION_TOKEN is longer than %zu bytes",
                       sizeof keys.token - 1);
    *ret = keys;
    if (aws_keys_check(&keys, err) == RC_OK) return RC_OK;
    err->rc = RC_INVALID;
    return err_wrap(err, "environment");
}

enum rc aws_from_web_env(struct aws_search *s, struct aws_keys *ret, bool *ret_found,
                         struct err *err)
{
    const char *path = aws_env("AWS_WEB_IDENTITY_TOKEN_FILE");
    struct aws_role role = {.arn = aws_env("AWS_ROLE_ARN"),
                            .session = aws_env("AWS_ROLE_SESSION_NAME"),
                            .external_id = "",
                            .duration_s = ""};
    *ret_found = false;
    if (path[0] == '\0') return aws_looked(s, err, "web identity (AWS_WEB_IDENTITY_TOKEN_FILE)");
    if (role.arn[0] == '\0')
        return err_set(err, RC_INVALID, "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN");
    TRY(aws_assume_web(s, &role, path, ret, err));
    *ret_found = true;
    return RC_OK;
}

/* ---- Private ---- */

/* NULL: no memory. */
static struct aws_creds *make(bool oss, const char *region)
{
    struct aws_creds *a = mem_calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    a->refs = 1;
    a->oss = oss;
    snprintf(a->region, sizeof a->region, "%s", region);
    pthread_mutex_init(&a->lock, NULL);
    thr_cond_init(&a->done);
    return a;
}

static struct aws_creds *share(bool oss, const char *region)
{
    thr_lock(&registry_lock);
    struct aws_creds *a = registry;
    while (a != NULL && (a->oss != oss || strcmp(a->region, region) != 0))
        a = a->next;
    if (a != NULL) {
        a->refs++;
    } else if ((a = make(oss, region)) != NULL) {
        a->next = registry;
        registry = a;
    }
    thr_unlock(&registry_lock);
    return a;
}

/* Called and left with the lock held. */
static enum rc fetch(struct aws_creds *a, const struct call *c, struct aws_keys *ret,
                     struct err *err)
{
    CLEANUP(aws_keys_wipe) struct aws_keys keys = {0};
    a->fetching = true;
    thr_unlock(&a->lock);
    enum rc rc = search(a, c, &keys, err);
    /* A file that is gone must not look like an object that is gone. */
    if (rc == RC_TOO_BIG) rc = err->rc = RC_INVALID;
    if (rc == RC_NOT_FOUND || rc == RC_CONFLICT || rc == RC_UNSUPPORTED) rc = err->rc = RC_DENIED;
    if (rc == RC_OK && keys.expires_ms != 0 && keys.expires_ms <= os_now_ms())
        rc = err_set(err, RC_AGAIN,
                     "the access keys that came have expired already; is the clock "
                     "of this machine right?");
    thr_lock(&a->lock);
    a->fetching = false;
    a->rounds++;
    err_clear(&a->failure);
    a->pause_until_ms = os_mono_ms() + PAUSE_MS;
    if (rc == RC_OK) {
        a->keys = keys;
        a->have = true;
    } else {
        a->failure = *err;
    }
    pthread_cond_broadcast(&a->done);
    if (rc != RC_OK && (rc == RC_CANCELED || !good_until(a, 0))) return rc;
    err_clear(err);
    *ret = a->keys;
    return RC_OK;
}

/* Called and left with the lock held. A failure of the round is the waiter's too, but for one that
 * says that another caller's time was up. */
static enum rc wait_for_round(struct aws_creds *a, const struct call *c, struct err *err)
{
    uint64_t round = a->rounds;
    while (a->rounds == round) {
        thr_wait(&a->done, &a->lock, os_mono_ms() + WAIT_MS);
        TRY(call_check(c, err));
    }
    if (a->failure.rc == RC_OK || a->failure.rc == RC_CANCELED) return RC_OK;
    *err = a->failure;
    return err->rc;
}

static enum rc search(struct aws_creds *a, const struct call *c, struct aws_keys *ret,
                      struct err *err)
{
    static aws_place_fn *const places[] = {aws_from_env, aws_from_web_env, aws_from_files,
                                           aws_from_container, aws_from_metadata};
    if (a->oss) return search_oss(ret, err);
    struct aws_search s = {.c = c, .region = a->region};
    bool found = false;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < sizeof places / sizeof places[0] && rc == RC_OK && !found; i++)
        rc = places[i](&s, ret, &found, err);
    if (rc == RC_OK && !found)
        rc = err_set(err, RC_DENIED, "no access keys: none in the configuration, %s",
                     (const char *)s.looked.data);
    buf_fini(&s.looked);
    return rc;
}

static enum rc search_oss(struct aws_keys *ret, struct err *err)
{
    if (!take_env("OSS_ACCESS_KEY_ID", ret->access_key, sizeof ret->access_key) ||
        !take_env("OSS_ACCESS_KEY_SECRET", ret->secret_key, sizeof ret->secret_key))
        return err_set(err, RC_DENIED,
                       "no access keys: none in the configuration, environment "
                       "(OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET)");
    take_env("OSS_SESSION_TOKEN", ret->token, sizeof ret->token);
    if (aws_keys_check(ret, err) == RC_OK) return RC_OK;
    err->rc = RC_INVALID;
    return err_wrap(err, "environment");
}

/* There are keys, and margin_ms from now they will still be good. */
static bool good_until(const struct aws_creds *a, int64_t margin_ms)
{
    if (!a->have) return false;
    return a->keys.expires_ms == 0 || os_now_ms() < a->keys.expires_ms - margin_ms;
}

static bool same(const struct aws_keys *a, const struct aws_keys *b)
{
    return strcmp(a->access_key, b->access_key) == 0 && strcmp(a->secret_key, b->secret_key) == 0 &&
           strcmp(a->token, b->token) == 0;
}

/* False when it is not set or too long to be one. */
static bool take_env(const char *name, char *out, size_t out_size)
{
    const char *value = aws_env(name);
    size_t size = strlen(value);
    out[0] = '\0';
    if (size == 0 || size >= out_size) return false;
    memcpy(out, value, size + 1);
    return true;
}
