/*
 * admin_tokens.c -- tokens for a tenant's clients, minted with the server's private key, and keys
 * of a tenant's own.
 *
 * "Rotate" gives a tenant a key of its own (its jwt_key), so that every token from before is void.
 * The private half is kept nowhere: it is derived from the server's private key and a random number
 * that stands in the first line of jwt_key,
 *
 *   # rotation <32 hex digits>
 *   <public key, base64url>
 *
 * so the same line makes the same key as long as the server's private key is the same.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "fmt/base64.h"
#include "fmt/jwt.h"
#include "fmt/text.h"
#include "server/admin_intern.h"

#define MARK        "# rotation "
#define MARK_SIZE   (sizeof MARK - 1)
#define NONCE_SIZE  32 /* hex digits */
#define SEED_SIZE   32
#define KEY_PURPOSE "sluice: key of a tenant"
#define CLAIM_ROLES 16

static enum rc read_key(struct admin *a, struct buf *ret, struct err *err);
static void wipe_fini(struct buf *b);
static enum rc mint(struct admin *a, const char *tenant_keys, json_t **ret, struct err *err);
static enum rc build_claims(struct admin *a, int64_t now_s, int64_t life_s, char **ret,
                            struct err *err);
static const char *asked(const struct admin *a, const char *key, const char *other);
static enum rc check(struct admin *a, const char *token, const char *tenant_keys, struct err *err);
static bool nonce_of(const char *tenant_keys, char nonce[NONCE_SIZE + 1]);
static enum rc derive(const struct buf *key, const char *nonce, struct buf *ret_private,
                      struct buf *ret_public, struct err *err);
static enum rc put_private(const uint8_t seed[SEED_SIZE], struct buf *out, struct err *err);

enum rc admin_tokens(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    struct tenant *t;
    json_t *answer = NULL;
    TRY(o->ops->open_wait(o->tenants, a->name, &t, err));
    enum rc rc = mint(a, atomic_load(&t->conf)->jwt_key, &answer, err);
    o->ops->release(o->tenants, t);
    return rc == RC_OK ? admin_json_put(answer, out, err) : rc;
}

enum rc admin_rotate(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    CLEANUP(wipe_fini) struct buf key = BUF_INIT, private = BUF_INIT;
    CLEANUP(buf_fini) struct buf public = BUF_INIT;
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    char nonce[NONCE_SIZE + 1];
    struct tenant *t;
    TRY(read_key(a, &key, err));
    snprintf(nonce, sizeof nonce, "%016llx%016llx", (unsigned long long)os_random(),
             (unsigned long long)os_random());
    TRY(derive(&key, nonce, &private, &public, err));
    TRY(buf_printf(&text, err, MARK "%s\n%.*s\n", nonce, (int)public.size, (char *)public.data));
    TRY(buf_append(&text, "", 1, err));
    TRY(o->ops->open_wait(o->tenants, a->name, &t, err));
    struct tenant_conf conf = *atomic_load(&t->conf);
    conf.jwt_key = (const char *)text.data;
    enum rc rc = o->ops->configure(o->tenants, a->name, &conf, err);
    o->ops->release(o->tenants, t);
    TRY(rc);
    admin_evict(a->server, a->name); /* they came with tokens that are void now */
    return admin_json_put(json_pack("{s:s,s:s}", "rotation", nonce, "jwt_key", conf.jwt_key), out,
                          err);
}

enum rc admin_rotation(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    char nonce[NONCE_SIZE + 1];
    struct tenant *t;
    TRY(o->ops->open_wait(o->tenants, a->name, &t, err));
    const char *keys = atomic_load(&t->conf)->jwt_key;
    json_t *answer =
        json_pack("{s:s?,s:s?}", "rotation", nonce_of(keys, nonce) ? nonce : NULL, "jwt_key", keys);
    o->ops->release(o->tenants, t);
    return admin_json_put(answer, out, err);
}

static enum rc read_key(struct admin *a, struct buf *ret, struct err *err)
{
    const char *path = a->server->opts.signing_key_file;
    if (path == NULL)
        return err_set(err, RC_UNSUPPORTED,
                       "this server makes no tokens: start it with -auth-signing-key-file FILE, a "
                       "private key of 'sluice token key', or use 'sluice token new'");
    TRY(os_read_file(path, JWT_KEY_TEXT_MAX, ret, err));
    return buf_append(ret, "", 1, err);
}

static void wipe_fini(struct buf *b)
{
    if (b->data != NULL) mem_wipe(b->data, b->cap);
    buf_fini(b);
}

static enum rc mint(struct admin *a, const char *tenant_keys, json_t **ret, struct err *err)
{
    CLEANUP(wipe_fini) struct buf key = BUF_INIT, private = BUF_INIT;
    CLEANUP(buf_fini) struct buf public = BUF_INIT;
    CLEANUP(buf_fini) struct buf token = BUF_INIT;
    CLEANUP(mem_freep) char *claims = NULL;
    char nonce[NONCE_SIZE + 1], end[TIME_TEXT_SIZE];
    int64_t now_s = os_now_ms() / 1000, life_s = 0;
    const char *life = asked(a, "expiration", NULL);
    TRY(admin_lifetime(life != NULL ? life : "never", &life_s, err));
    TRY(read_key(a, &key, err));
    TRY(build_claims(a, now_s, life_s, &claims, err));
    const char *signer = (const char *)key.data;
    if (nonce_of(tenant_keys, nonce)) {
        TRY(derive(&key, nonce, &private, &public, err));
        signer = (const char *)private.data;
    }
    if (jwt_sign(signer, claims, &token, err) != RC_OK) return err_wrap(err, "the signing key");
    TRY(buf_append(&token, "", 1, err));
    TRY(check(a, (const char *)token.data, tenant_keys, err));
    time_put((now_s + life_s) * 1000, false, end);
    *ret = json_pack("{s:s,s:s?}", "jwt", (const char *)token.data, "expires",
                     life_s > 0 ? end : NULL);
    return *ret != NULL ? RC_OK : err_mem(err, "a token");
}

static enum rc build_claims(struct admin *a, int64_t now_s, int64_t life_s, char **ret,
                            struct err *err)
{
    const char *access = asked(a, "access", "authorization");
    const json_t *role = json_object_get(a->body, "role"),
                 *roles = json_object_get(a->body, "roles");
    bool reads = access != NULL && (strcmp(access, "read-only") == 0 || strcmp(access, "ro") == 0);
    if (access != NULL && !reads && strcmp(access, "full-access") != 0 && strcmp(access, "rw") != 0)
        return err_set(err, RC_INVALID, "access '%.40s': expected full-access or read-only",
                       access);
    if (role != NULL && !json_is_string(role))
        return err_set(err, RC_INVALID, "role must be the name of a role");
    if (roles != NULL && (!json_is_array(roles) || json_array_size(roles) > CLAIM_ROLES))
        return err_set(err, RC_INVALID, "roles must be at most %d names of roles", CLAIM_ROLES);
    json_t *claims = json_pack("{s:s,s:s,s:I,s:I,s:O*,s:O*}", "id", a->name, "a",
                               reads ? "ro" : "rw", "iat", (json_int_t)now_s, "exp",
                               (json_int_t)(now_s + life_s), "role", role, "roles", roles);
    if (claims == NULL) return err_mem(err, "claims");
    if (life_s == 0) (void)json_object_del(claims, "exp");
    *ret = json_dumps(claims, JSON_COMPACT);
    json_decref(claims);
    return *ret != NULL ? RC_OK : err_mem(err, "claims");
}

/* In the body, or in the query as Turso's API has it. */
static const char *asked(const struct admin *a, const char *key, const char *other)
{
    const char *text = json_string_value(json_object_get(a->body, key));
    if (text == NULL) text = http_query(a->http, key);
    if (text == NULL && other != NULL) return asked(a, other, NULL);
    return text;
}

/* Better no token than one that nobody takes. */
static enum rc check(struct admin *a, const char *token, const char *tenant_keys, struct err *err)
{
    struct grant *grant = NULL;
    struct sql_error sql_err;
    if (tenant_keys == NULL && auth_open(a->server->auth)) return RC_OK;
    enum rc rc = auth_token(a->server->auth, token, tenant_keys, &grant, &sql_err, err);
    grant_unref(grant);
    if (rc != RC_DENIED) return rc;
    err->rc = RC_CONFLICT;
    return err_wrap(err, "the token would not be taken, because the keys that are asked do not "
                         "belong to the signing key, or a role is unknown");
}

/* ---- Keys of a tenant ---- */

static bool nonce_of(const char *tenant_keys, char nonce[NONCE_SIZE + 1])
{
    if (tenant_keys == NULL || strncmp(tenant_keys, MARK, MARK_SIZE) != 0) return false;
    const char *text = tenant_keys + MARK_SIZE;
    if (strspn(text, "0123456789abcdef") != NONCE_SIZE || text[NONCE_SIZE] != '\n') return false;
    memcpy(nonce, text, NONCE_SIZE);
    nonce[NONCE_SIZE] = '\0';
    return true;
}

static enum rc derive(const struct buf *key, const char *nonce, struct buf *ret_private,
                      struct buf *ret_public, struct err *err)
{
    char what[sizeof KEY_PURPOSE + NONCE_SIZE];
    uint8_t seed[SEED_SIZE], public[SEED_SIZE];
    unsigned size = sizeof seed;
    size_t public_size = sizeof public;
    memcpy(what, KEY_PURPOSE, sizeof KEY_PURPOSE);
    memcpy(what + sizeof KEY_PURPOSE, nonce, NONCE_SIZE);
    bool ok = HMAC(EVP_sha256(), key->data, (int)(key->size - 1), (const uint8_t *)what,
                   sizeof what, seed, &size) != NULL;
    EVP_PKEY *pair = NULL;
    if (ok) pair = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    ok = pair != NULL && EVP_PKEY_get_raw_public_key(pair, public, &public_size) == 1;
    EVP_PKEY_free(pair);
    enum rc rc = ok ? put_private(seed, ret_private, err) : err_mem(err, "a tenant's key");
    mem_wipe(seed, sizeof seed);
    return rc == RC_OK ? base64url_put(ret_public, public, sizeof public, err) : rc;
}

/* PKCS #8 (RFC 8410) in PEM. */
static enum rc put_private(const uint8_t seed[SEED_SIZE], struct buf *out, struct err *err)
{
    static const uint8_t head[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                   0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
    uint8_t der[sizeof head + SEED_SIZE], text[sizeof der * 4 / 3 + 4];
    memcpy(der, head, sizeof head);
    memcpy(der + sizeof head, seed, SEED_SIZE);
    EVP_EncodeBlock(text, der, sizeof der);
    enum rc rc =
        buf_printf(out, err, "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n",
                   (const char *)text);
    if (rc == RC_OK) rc = buf_append(out, "", 1, err);
    mem_wipe(der, sizeof der);
    mem_wipe(text, sizeof text);
    return rc;
}
