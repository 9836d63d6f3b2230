/*
 * jwt.c -- see jwt.h. OpenSSL's EVP interface does the mathematics.
 *
 *   token  = base64url(header) "." base64url(claims) "." base64url(signature)
 *   header = {"alg": "EdDSA" | "Ed25519" | "ES256" | "HS256", "typ": any text, "kid": any text}
 *
 * base64url is strict here: no padding, no blanks, and unused bits are zero, so that one token has
 * one spelling. A signature covers the text before the last dot as it stands: EdDSA and ES256 are
 * 64 bytes (ES256: r and s, 32 each, which OpenSSL wants as DER), HS256 is 32.
 *
 * Whoever can connect can send a token, so it is read in the order of trust: its form, the header,
 * the signature, and the claims only when that is right. JSON is measured before it is parsed,
 * because the parser recurses, on the stack of a thread that may have little.
 */
#include "fmt/jwt.h"
#include "base/mem.h"
#include "fmt/text.h"
#include "fmt/base64.h"
#include <jansson.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#define ED_KEY_SIZE      32
#define SIG_MAX          64 /* EdDSA, ES256 */
#define HALF             32 /* of an ES256 signature: r, then s */
#define MAC_SIZE         32
#define SIG_DER_MAX      (2 + 2 * (2 + 1 + HALF))
#define SECRET_MIN       32
#define SECRET_MAX       256
#define SECRET_MARK      "hs256:"
#define HEADER_MAX       2048 /* bytes of the JSON */
#define HEADER_DEPTH_MAX 8
#define CLAIMS_DEPTH_MAX 32
#define LABEL_MAX        40
#define TIME_MAX_S       253402300799 /* the last second of the year 9999 */
#define PEM_BEGIN        "-----BEGIN "
#define PEM_END          "-----END "
#define PEM_DASHES       "-----"

struct key {
    enum jwt_alg alg;
    EVP_PKEY *pkey;             /* NULL for HS256 */
    uint8_t secret[SECRET_MAX]; /* HS256 */
    size_t secret_size;
};

struct jwt_keys {
    size_t count;
    struct key keys[JWT_KEYS_MAX];
};

/* A text of keys, piece by piece. */
struct scan {
    const char *at, *end;
    size_t number; /* of the piece, from 1 */
};
struct piece {
    const char *text;
    size_t size;
    char label[LABEL_MAX + 1]; /* of a PEM block; "": a word */
};

/* The parts of a token, as it spells them. */
struct parts {
    const char *header, *claims, *sig;
    size_t header_size, claims_size, sig_size;
    size_t signed_size; /* from header on */
};

static enum rc next_piece(struct scan *s, struct piece *ret, bool *ret_more, struct err *err);
static enum rc next_pem(struct scan *s, struct piece *ret, struct err *err);
static enum rc add_key(struct jwt_keys *keys, const struct piece *p, size_t number,
                       struct err *err);
static enum rc add_pem(struct key *k, const struct piece *p, size_t number, struct err *err);
static enum rc add_raw(struct key *k, const struct piece *p, size_t number, struct err *err);
static enum rc get_secret(struct key *k, const struct piece *p, size_t number, struct err *err);
static const char *looks_like(const struct piece *p);
static enum rc private_key(const char *text, struct key *k, struct err *err);
static enum rc private_pem(const struct piece *p, struct key *k, struct err *err);
static bool alg_of(const EVP_PKEY *pkey, enum jwt_alg *ret_alg);
static void key_fini(struct key *k);
static bool split(const char *token, size_t size, struct parts *ret);
static enum rc check_header(const struct parts *t, enum jwt_alg *ret_alg, enum jwt_problem *problem,
                            struct err *err);
static enum rc check_signature(const struct jwt_keys *keys, const struct parts *t, enum jwt_alg alg,
                               struct err *err);
static enum rc matches(const struct key *k, const struct parts *t, const uint8_t *sig, bool *ret,
                       struct err *err);
static enum rc check_claims(const struct parts *t, int64_t now_s, struct buf *claims,
                            enum jwt_problem *problem, struct err *err);
static enum rc parse_claims(const void *text, size_t size, json_t **ret, struct err *err);
static enum rc parse_json(const void *text, size_t size, unsigned depth_max, json_t **ret,
                          struct err *err);
static bool depth_fits(const uint8_t *text, size_t size, unsigned depth_max);
static int number_compare(const json_t *number, int64_t to);
static enum rc deny_time(const char *what, const json_t *at, struct err *err);
static enum rc sign(const struct key *k, const void *data, size_t size, uint8_t *out,
                    size_t *ret_size, struct err *err);
static bool der_split(const uint8_t *der, size_t size, uint8_t out[2 * HALF]);
static size_t der_join(const uint8_t sig[2 * HALF], uint8_t out[SIG_DER_MAX]);
static size_t der_int(const uint8_t half[HALF], uint8_t *out);
static enum rc pem_append(BIO *bio, struct buf *b, struct err *err);
static void wipe_fini(struct buf *b);
static void json_freep(json_t **json);
static void bio_freep(BIO **bio);
static void pkey_freep(EVP_PKEY **pkey);
static void md_ctx_freep(EVP_MD_CTX **ctx);
static void errors_clear(const int *unused);

/* OpenSSL queues its complaints for the thread; what we have said about them is enough, and others
 * who look at the queue must not find them. */
#define QUIET CLEANUP(errors_clear) __attribute__((unused)) const int quiet_ = 0

static const struct {
    const char *name;
    enum jwt_alg alg;
} algs[] = {
    {"EdDSA", JWT_EDDSA},
    {"Ed25519", JWT_EDDSA}, /* its name since RFC 9864 */
    {"ES256", JWT_ES256},
    {"HS256", JWT_HS256},
};

/* ---- Keys ---- */

enum rc jwt_keys_parse(const char *text, size_t size, struct jwt_keys **ret_keys, struct err *err)
{
    QUIET;
    if (size > JWT_KEY_TEXT_MAX)
        return err_set(err, RC_TOO_BIG, "keys for tokens: %zu bytes, at most %d", size,
                       JWT_KEY_TEXT_MAX);
    CLEANUP(jwt_keys_freep) struct jwt_keys *keys = mem_calloc(1, sizeof *keys);
    if (keys == NULL) return err_mem(err, "keys for tokens");
    struct scan s = {.at = text, .end = text + size};
    struct piece p;
    bool more = false;
    for (;;) {
        TRY(next_piece(&s, &p, &more, err));
        if (!more) break;
        TRY(add_key(keys, &p, s.number, err));
    }
    if (keys->count == 0) return err_set(err, RC_INVALID, "keys for tokens: there is none");
    *ret_keys = keys;
    keys = NULL;
    return RC_OK;
}

void jwt_keys_free(struct jwt_keys *keys)
{
    if (keys == NULL) return;
    for (size_t i = 0; i < keys->count; i++)
        key_fini(&keys->keys[i]);
    mem_free(keys);
}

void jwt_keys_freep(struct jwt_keys **keys)
{
    jwt_keys_free(*keys);
}

enum rc jwt_key_new(enum jwt_alg alg, struct buf *ret_private, struct buf *ret_public,
                    struct err *err)
{
    QUIET;
    CLEANUP(wipe_fini) struct buf private = BUF_INIT;
    CLEANUP(buf_fini) struct buf public = BUF_INIT;
    if (alg == JWT_HS256) {
        uint8_t secret[SECRET_MIN];
        if (RAND_priv_bytes(secret, sizeof secret) != 1)
            return err_set(err, RC_IO, "no random numbers for a key");
        enum rc rc = buf_printf(&private, err, SECRET_MARK);
        if (rc == RC_OK) rc = base64url_put(&private, secret, sizeof secret, err);
        if (rc == RC_OK) rc = buf_printf(&private, err, "\n");
        explicit_bzero(secret, sizeof secret);
        TRY(rc);
    } else {
        CLEANUP(bio_freep) BIO *bio = BIO_new(BIO_s_mem());
        CLEANUP(bio_freep) BIO *bio_public = BIO_new(BIO_s_mem());
        CLEANUP(pkey_freep)
        EVP_PKEY *pkey =
            alg == JWT_ES256 ? EVP_EC_gen("P-256") : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        if (pkey == NULL) return err_set(err, RC_IO, "cannot make a key: no random numbers?");
        if (bio == NULL || bio_public == NULL ||
            !PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) ||
            !PEM_write_bio_PUBKEY(bio_public, pkey))
            return err_mem(err, "a key");
        TRY(pem_append(bio, &private, err));
        TRY(pem_append(bio_public, &public, err));
    }
    const struct buf *second = alg == JWT_HS256 ? &private : &public;
    TRY(buf_reserve(ret_private, private.size, err));
    TRY(buf_append(ret_public, second->data, second->size, err));
    return buf_append(ret_private, private.data, private.size, err);
}

static enum rc next_piece(struct scan *s, struct piece *ret, bool *ret_more, struct err *err)
{
    while (s->at < s->end && memchr(" \t\r\n#", *s->at, 5) != NULL) {
        if (*s->at != '#') {
            s->at++;
            continue;
        }
        const char *end = memchr(s->at, '\n', (size_t)(s->end - s->at));
        s->at = end != NULL ? end : s->end;
    }
    size_t left = (size_t)(s->end - s->at), n = 0;
    *ret_more = left > 0;
    if (left == 0) return RC_OK;
    s->number++;
    if (left >= strlen(PEM_BEGIN) && memcmp(s->at, PEM_BEGIN, strlen(PEM_BEGIN)) == 0)
        return next_pem(s, ret, err);
    while (n < left && memchr(" \t\r\n", s->at[n], 4) == NULL)
        n++;
    *ret = (struct piece){.text = s->at, .size = n};
    s->at += n;
    return RC_OK;
}

static enum rc next_pem(struct scan *s, struct piece *ret, struct err *err)
{
    const char *label = s->at + strlen(PEM_BEGIN);
    size_t left = (size_t)(s->end - label);
    const char *dashes = memmem(label, left, PEM_DASHES, strlen(PEM_DASHES));
    size_t size = dashes != NULL ? (size_t)(dashes - label) : SIZE_MAX;
    if (size > LABEL_MAX)
        return err_set(err, RC_INVALID, "key %zu: a PEM block with a broken first line", s->number);
    char last[LABEL_MAX + sizeof PEM_END + sizeof PEM_DASHES];
    *ret = (struct piece){.text = s->at};
    for (size_t i = 0; i < size; i++) {
        if (label[i] < ' ' || label[i] > '~')
            return err_set(err, RC_INVALID, "key %zu: a PEM block with a broken first line",
                           s->number);
        ret->label[i] = label[i];
    }
    snprintf(last, sizeof last, PEM_END "%s" PEM_DASHES, ret->label);
    const char *end = memmem(dashes, (size_t)(s->end - dashes), last, strlen(last));
    if (end == NULL)
        return err_set(err, RC_INVALID, "key %zu: the PEM block has no line '%s'", s->number, last);
    s->at = end + strlen(last);
    ret->size = (size_t)(s->at - ret->text);
    return RC_OK;
}

static enum rc add_key(struct jwt_keys *keys, const struct piece *p, size_t number, struct err *err)
{
    if (keys->count == JWT_KEYS_MAX)
        return err_set(err, RC_TOO_BIG, "keys for tokens: more than %d", JWT_KEYS_MAX);
    struct key *k = &keys->keys[keys->count++]; /* from here on, freed with the others */
    if (p->label[0] != '\0') return add_pem(k, p, number, err);
    size_t mark = strlen(SECRET_MARK);
    if (p->size >= mark && memcmp(p->text, SECRET_MARK, mark) == 0)
        return get_secret(k, p, number, err);
    return add_raw(k, p, number, err);
}

static enum rc add_pem(struct key *k, const struct piece *p, size_t number, struct err *err)
{
    if (strstr(p->label, "PRIVATE KEY") != NULL)
        return err_set(err, RC_INVALID,
                       "key %zu: a private key, and who checks tokens must not have it; give the "
                       "public key (openssl pkey -in FILE -pubout)",
                       number);
    if (strcmp(p->label, "CERTIFICATE") == 0)
        return err_set(err, RC_INVALID,
                       "key %zu: a certificate; give its public key (openssl x509 -in FILE -noout "
                       "-pubkey)",
                       number);
    if (strcmp(p->label, "PUBLIC KEY") != 0)
        return err_set(err, RC_INVALID, "key %zu: a PEM block '%s'; expected 'PUBLIC KEY'", number,
                       p->label);
    CLEANUP(bio_freep) BIO *bio = BIO_new_mem_buf(p->text, (int)p->size);
    if (bio == NULL) return err_mem(err, "a key for tokens");
    /* The user pointer stands for a passphrase: a key that has one must fail, not prompt. */
    k->pkey = PEM_read_bio_PUBKEY(bio, NULL, NULL, (void *)"");
    if (k->pkey == NULL)
        return err_set(err, RC_INVALID, "key %zu: the PEM block holds no public key", number);
    if (!alg_of(k->pkey, &k->alg)) {
        const char *type = EVP_PKEY_get0_type_name(k->pkey);
        return err_set(err, RC_INVALID,
                       "key %zu: the public key is of type %s with %d bits; expected Ed25519 or EC "
                       "on the curve P-256",
                       number, type != NULL ? type : "unknown", EVP_PKEY_get_bits(k->pkey));
    }
    return RC_OK;
}

static enum rc add_raw(struct key *k, const struct piece *p, size_t number, struct err *err)
{
    uint8_t raw[ED_KEY_SIZE];
    size_t want = BASE64URL_SIZE(ED_KEY_SIZE);
    const char *what = looks_like(p);
    if (p->size == want || p->size == want + 1) /* one '=' of padding */
        what = "a key that is not in base64url without padding (A-Z a-z 0-9 - _)";
    if (p->size != want || !base64url_get(p->text, p->size, raw))
        return err_set(err, RC_INVALID,
                       "key %zu: %s; expected a public key in PEM, or the 43 characters of an "
                       "Ed25519 key in base64url, or '" SECRET_MARK "' and a secret",
                       number, what);
    k->alg = JWT_EDDSA;
    k->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, sizeof raw);
    return k->pkey != NULL ? RC_OK : err_mem(err, "a key for tokens");
}

static enum rc get_secret(struct key *k, const struct piece *p, size_t number, struct err *err)
{
    const char *text = p->text + strlen(SECRET_MARK);
    size_t size = p->size - strlen(SECRET_MARK);
    k->alg = JWT_HS256;
    if (BASE64URL_BYTES(size) < SECRET_MIN || BASE64URL_BYTES(size) > SECRET_MAX)
        return err_set(err, RC_INVALID, "key %zu: a secret of %zu bytes; expected %d to %d", number,
                       BASE64URL_BYTES(size), SECRET_MIN, SECRET_MAX);
    if (!base64url_get(text, size, k->secret))
        return err_set(err, RC_INVALID,
                       "key %zu: the secret is not in base64url without padding (A-Z a-z 0-9 - _)",
                       number);
    k->secret_size = BASE64URL_BYTES(size);
    return RC_OK;
}

/* What a word that is no key may be. The word itself stays out of messages: it may be a secret. */
static const char *looks_like(const struct piece *p)
{
    static const struct {
        const char *start, *what;
    } known[] = {
        {"{", "JSON"},
        {"[", "JSON"},
        {"eyJ", "a token"},
        {"ssh-", "an SSH key"},
        {"ecdsa-sha2-", "an SSH key"},
        {"-----", "a broken PEM block"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t n = strlen(known[i].start);
        if (p->size >= n && memcmp(p->text, known[i].start, n) == 0) return known[i].what;
    }
    return "something else";
}

/* The first key of a text, for signing. */
static enum rc private_key(const char *text, struct key *k, struct err *err)
{
    struct scan s = {.at = text, .end = text + strnlen(text, JWT_KEY_TEXT_MAX + 1)};
    struct piece p;
    bool more = false;
    size_t mark = strlen(SECRET_MARK);
    if (s.end - s.at > JWT_KEY_TEXT_MAX)
        return err_set(err, RC_TOO_BIG, "private key: more than %d bytes", JWT_KEY_TEXT_MAX);
    do {
        TRY(next_piece(&s, &p, &more, err));
    } while (more && strcmp(p.label, "EC PARAMETERS") == 0); /* openssl ecparam -genkey */
    if (!more) return err_set(err, RC_INVALID, "private key: there is none");
    if (p.label[0] != '\0') return private_pem(&p, k, err);
    if (p.size >= mark && memcmp(p.text, SECRET_MARK, mark) == 0)
        return get_secret(k, &p, s.number, err);
    return err_set(err, RC_INVALID,
                   "private key: %s; expected a private key in PEM, or '" SECRET_MARK
                   "' and a secret",
                   looks_like(&p));
}

static enum rc private_pem(const struct piece *p, struct key *k, struct err *err)
{
    if (strcmp(p->label, "PUBLIC KEY") == 0)
        return err_set(err, RC_INVALID,
                       "private key: a public key, which only checks tokens; signing needs the "
                       "private one");
    if (strcmp(p->label, "ENCRYPTED PRIVATE KEY") == 0 ||
        memmem(p->text, p->size, "4,ENCRYPTED", strlen("4,ENCRYPTED")) != NULL)
        return err_set(err, RC_INVALID,
                       "private key: it is encrypted; take the passphrase off (openssl pkey)");
    CLEANUP(bio_freep) BIO *bio = BIO_new_mem_buf(p->text, (int)p->size);
    if (bio == NULL) return err_mem(err, "a private key");
    k->pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)""); /* as add_pem */
    if (k->pkey == NULL)
        return err_set(err, RC_INVALID, "private key: the PEM block '%s' holds none", p->label);
    if (!alg_of(k->pkey, &k->alg))
        return err_set(err, RC_INVALID,
                       "private key: expected Ed25519 or EC on the curve P-256, and this is "
                       "another type");
    return RC_OK;
}

static bool alg_of(const EVP_PKEY *pkey, enum jwt_alg *ret_alg)
{
    char curve[32];
    if (EVP_PKEY_is_a(pkey, "ED25519")) {
        *ret_alg = JWT_EDDSA;
        return true;
    }
    *ret_alg = JWT_ES256;
    return EVP_PKEY_is_a(pkey, "EC") &&
           EVP_PKEY_get_group_name(pkey, curve, sizeof curve, NULL) == 1 &&
           strcmp(curve, "prime256v1") == 0;
}

static void key_fini(struct key *k)
{
    EVP_PKEY_free(k->pkey);
    explicit_bzero(k, sizeof *k);
}

/* ---- Tokens ---- */

enum rc jwt_verify(const struct jwt_keys *keys, const char *token, size_t size, int64_t now_s,
                   struct buf *ret_claims, enum jwt_problem *ret_problem, struct err *err)
{
    QUIET;
    CLEANUP(buf_fini) struct buf claims = BUF_INIT;
    struct parts t;
    enum jwt_alg alg;
    *ret_problem = JWT_MALFORMED;
    if (size > JWT_TEXT_MAX)
        return err_set(err, RC_DENIED, "the token has more than %d bytes", JWT_TEXT_MAX);
    if (!split(token, size, &t))
        return err_set(err, RC_DENIED, "the token is not three parts with dots between them");
    TRY(check_header(&t, &alg, ret_problem, err));
    *ret_problem = JWT_BAD_SIGNATURE;
    TRY(check_signature(keys, &t, alg, err));
    *ret_problem = JWT_MALFORMED;
    TRY(check_claims(&t, now_s, &claims, ret_problem, err));
    TRY(buf_append(ret_claims, claims.data, claims.size, err));
    *ret_problem = JWT_OK;
    return RC_OK;
}

enum rc jwt_sign(const char *key_text, const char *claims, struct buf *ret_token, struct err *err)
{
    static const char *const headers[] = {
        [JWT_EDDSA] = "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}",
        [JWT_ES256] = "{\"alg\":\"ES256\",\"typ\":\"JWT\"}",
        [JWT_HS256] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}",
    };
    QUIET;
    CLEANUP(key_fini) struct key k = {0};
    CLEANUP(buf_fini) struct buf token = BUF_INIT;
    CLEANUP(json_freep) json_t *json = NULL;
    uint8_t sig[SIG_DER_MAX];
    size_t sig_size = 0, claims_size = strnlen(claims, JWT_TEXT_MAX);
    TRY(private_key(key_text, &k, err));
    const char *header = headers[k.alg];
    size_t total = BASE64URL_SIZE(strlen(header)) + BASE64URL_SIZE(claims_size) +
                   BASE64URL_SIZE((size_t)SIG_MAX) + 2;
    if (total > JWT_TEXT_MAX)
        return err_set(err, RC_TOO_BIG, "the claims are too long for a token of %d bytes",
                       JWT_TEXT_MAX);
    if (parse_claims(claims, claims_size, &json, err) != RC_OK) {
        if (err->rc == RC_DENIED) err->rc = RC_INVALID;
        return err->rc;
    }
    TRY(base64url_put(&token, header, strlen(header), err));
    TRY(buf_append(&token, ".", 1, err));
    TRY(base64url_put(&token, claims, claims_size, err));
    TRY(sign(&k, token.data, token.size, sig, &sig_size, err));
    TRY(buf_append(&token, ".", 1, err));
    TRY(base64url_put(&token, sig, sig_size, err));
    return buf_append(ret_token, token.data, token.size, err);
}

static bool split(const char *token, size_t size, struct parts *ret)
{
    const char *first = size > 0 ? memchr(token, '.', size) : NULL;
    if (first == NULL) return false;
    const char *end = token + size, *second = memchr(first + 1, '.', (size_t)(end - first) - 1);
    if (second == NULL || memchr(second + 1, '.', (size_t)(end - second) - 1) != NULL) return false;
    *ret = (struct parts){
        .header = token,
        .header_size = (size_t)(first - token),
        .claims = first + 1,
        .claims_size = (size_t)(second - first) - 1,
        .sig = second + 1,
        .sig_size = (size_t)(end - second) - 1,
        .signed_size = (size_t)(second - token),
    };
    return true;
}

static enum rc check_header(const struct parts *t, enum jwt_alg *ret_alg, enum jwt_problem *problem,
                            struct err *err)
{
    CLEANUP(json_freep) json_t *json = NULL;
    uint8_t text[HEADER_MAX];
    size_t size = BASE64URL_BYTES(t->header_size);
    if (size > sizeof text || !base64url_get(t->header, t->header_size, text))
        return err_set(err, RC_DENIED,
                       "the header of the token is not base64url of at most %d "
                       "bytes",
                       HEADER_MAX);
    if (parse_json(text, size, HEADER_DEPTH_MAX, &json, err) != RC_OK)
        return err_wrap(err, "the header of the token");
    const char *alg = json_string_value(json_object_get(json, "alg"));
    const json_t *typ = json_object_get(json, "typ"), *kid = json_object_get(json, "kid");
    if (alg == NULL) return err_set(err, RC_DENIED, "the header of the token names no algorithm");
    if ((typ != NULL && !json_is_string(typ)) || (kid != NULL && !json_is_string(kid)))
        return err_set(err, RC_DENIED, "the header of the token: typ and kid must be texts");
    if (json_object_get(json, "crit") != NULL)
        return err_set(err, RC_DENIED, "the header of the token demands extensions ('crit')");
    for (size_t i = 0; i < sizeof algs / sizeof algs[0]; i++) {
        if (strcmp(alg, algs[i].name) != 0) continue;
        *ret_alg = algs[i].alg;
        return RC_OK;
    }
    *problem = JWT_BAD_SIGNATURE;
    return err_set(err, RC_DENIED,
                   "the token is signed with an algorithm other than EdDSA, ES256 and HS256");
}

static enum rc check_signature(const struct jwt_keys *keys, const struct parts *t, enum jwt_alg alg,
                               struct err *err)
{
    static const char *const names[] = {"EdDSA", "ES256", "HS256"};
    uint8_t sig[SIG_MAX];
    size_t want = alg == JWT_HS256 ? MAC_SIZE : SIG_MAX, tried = 0;
    bool same = false;
    if (t->sig_size != BASE64URL_SIZE(want) || !base64url_get(t->sig, t->sig_size, sig))
        return err_set(err, RC_DENIED, "the signature of the token is not base64url of %zu bytes",
                       want);
    for (size_t i = 0; i < keys->count && !same; i++) {
        if (keys->keys[i].alg != alg) continue;
        tried++;
        TRY(matches(&keys->keys[i], t, sig, &same, err));
    }
    if (same) return RC_OK;
    if (tried == 0)
        return err_set(err, RC_DENIED, "the token is signed with %s, and there is no key for that",
                       names[alg]);
    return err_set(err, RC_DENIED, "the signature of the token is not by %s",
                   tried == 1 ? "the key" : "any of the keys");
}

static enum rc matches(const struct key *k, const struct parts *t, const uint8_t *sig, bool *ret,
                       struct err *err)
{
    const uint8_t *data = (const uint8_t *)t->header;
    if (k->alg == JWT_HS256) {
        uint8_t mac[MAC_SIZE];
        if (HMAC(EVP_sha256(), k->secret, (int)k->secret_size, data, t->signed_size, mac, NULL) ==
            NULL)
            return err_mem(err, "a check of a token");
        *ret = CRYPTO_memcmp(mac, sig, sizeof mac) == 0;
        return RC_OK;
    }
    uint8_t der[SIG_DER_MAX];
    size_t size = SIG_MAX;
    if (k->alg == JWT_ES256) {
        size = der_join(sig, der);
        sig = der;
    }
    CLEANUP(md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = k->alg == JWT_ES256 ? EVP_sha256() : NULL;
    if (ctx == NULL || EVP_DigestVerifyInit(ctx, NULL, md, NULL, k->pkey) != 1)
        return err_mem(err, "a check of a token");
    *ret = EVP_DigestVerify(ctx, sig, size, data, t->signed_size) == 1;
    return RC_OK;
}

static enum rc check_claims(const struct parts *t, int64_t now_s, struct buf *claims,
                            enum jwt_problem *problem, struct err *err)
{
    CLEANUP(json_freep) json_t *json = NULL;
    int64_t early, late;
    TRY(buf_reserve(claims, BASE64URL_BYTES(t->claims_size), err));
    if (!base64url_get(t->claims, t->claims_size, claims->data))
        return err_set(err, RC_DENIED, "the claims of the token are not base64url");
    claims->size = BASE64URL_BYTES(t->claims_size);
    TRY(parse_claims(claims->data, claims->size, &json, err));
    const json_t *exp = json_object_get(json, "exp"), *nbf = json_object_get(json, "nbf");
    if (__builtin_sub_overflow(now_s, JWT_LEEWAY_S, &early)) early = INT64_MIN;
    if (__builtin_add_overflow(now_s, JWT_LEEWAY_S, &late)) late = INT64_MAX;
    if (exp != NULL && number_compare(exp, early) <= 0) {
        *problem = JWT_EXPIRED;
        return deny_time("the token has expired", exp, err);
    }
    if (nbf != NULL && number_compare(nbf, late) > 0) {
        *problem = JWT_NOT_YET;
        return deny_time("the token is not valid yet, but later", nbf, err);
    }
    return RC_OK;
}

/* Fails: RC_DENIED no claims of a token; RC_NO_MEM. */
static enum rc parse_claims(const void *text, size_t size, json_t **ret, struct err *err)
{
    static const char *const times[] = {"exp", "nbf"};
    CLEANUP(json_freep) json_t *json = NULL;
    if (parse_json(text, size, CLAIMS_DEPTH_MAX, &json, err) != RC_OK)
        return err_wrap(err, "the claims of the token");
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        const json_t *at = json_object_get(json, times[i]);
        if (at != NULL && !json_is_number(at))
            return err_set(err, RC_DENIED, "the claims of the token: '%s' is not a number",
                           times[i]);
    }
    *ret = json;
    json = NULL;
    return RC_OK;
}

/* An object, each name once. Fails: RC_DENIED; RC_NO_MEM. */
static enum rc parse_json(const void *text, size_t size, unsigned depth_max, json_t **ret,
                          struct err *err)
{
    json_error_t why;
    if (!depth_fits(text, size, depth_max))
        return err_set(err, RC_DENIED, "more than %u brackets inside each other", depth_max);
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (json_is_object(json)) {
        *ret = json;
        return RC_OK;
    }
    /* The parser has no words for a lack of memory that it meets between two tokens; one that it
     * meets inside of a token looks like a fault of the text, and what is refused is safe. Its own
     * words may quote the text: not here. */
    bool no_mem =
        json == NULL && (why.text[0] == '\0' || json_error_code(&why) == json_error_out_of_memory);
    json_decref(json);
    if (no_mem) return err_mem(err, "JSON");
    return err_set(err, RC_DENIED, "not a JSON object with each name once, at byte %d",
                   why.position > 0 ? why.position : 0);
}

static bool depth_fits(const uint8_t *text, size_t size, unsigned depth_max)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = false;
            continue;
        }
        in_string = c == '"';
        if ((c == '{' || c == '[') && ++depth > depth_max) return false;
        if ((c == '}' || c == ']') && depth > 0) depth--;
    }
    return true;
}

/* Below 0, 0, above 0: the number is less, equal, more. */
static int number_compare(const json_t *number, int64_t to)
{
    if (json_is_integer(number)) {
        int64_t v = json_integer_value(number);
        return (v > to) - (v < to);
    }
    double v = json_real_value(number);
    return (v > (double)to) - (v < (double)to);
}

static enum rc deny_time(const char *what, const json_t *at, struct err *err)
{
    double s = json_number_value(at);
    char when[TIME_TEXT_SIZE];
    if (!(s >= 0 && s <= TIME_MAX_S)) return err_set(err, RC_DENIED, "%s", what);
    time_put((int64_t)s * 1000, false, when);
    return err_set(err, RC_DENIED, "%s: %s", what, when);
}

/* ---- Signatures ---- */

/* out: SIG_DER_MAX bytes. */
static enum rc sign(const struct key *k, const void *data, size_t size, uint8_t *out,
                    size_t *ret_size, struct err *err)
{
    *ret_size = k->alg == JWT_HS256 ? MAC_SIZE : SIG_MAX;
    if (k->alg == JWT_HS256)
        return HMAC(EVP_sha256(), k->secret, (int)k->secret_size, data, size, out, NULL) != NULL
                   ? RC_OK
                   : err_mem(err, "a signature");
    CLEANUP(md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = k->alg == JWT_ES256 ? EVP_sha256() : NULL;
    uint8_t der[SIG_DER_MAX];
    size_t der_size = sizeof der;
    if (ctx == NULL || EVP_DigestSignInit(ctx, NULL, md, NULL, k->pkey) != 1)
        return err_mem(err, "a signature");
    if (EVP_DigestSign(ctx, der, &der_size, data, size) != 1)
        return err_set(err, RC_INVALID, "the private key does not sign");
    if (k->alg == JWT_EDDSA)
        memcpy(out, der, SIG_MAX);
    else if (!der_split(der, der_size, out))
        return err_set(err, RC_INVALID, "the private key makes no signature of 64 bytes");
    return RC_OK;
}

/* SEQUENCE of two INTEGERs, each without leading zeros but for one that keeps it positive. Our own
 * library made it, but what cannot be true is checked all the same. */
static bool der_split(const uint8_t *der, size_t size, uint8_t out[2 * HALF])
{
    if (size < 2 || size > SIG_DER_MAX || der[0] != 0x30 || der[1] != size - 2) return false;
    const uint8_t *p = der + 2, *end = der + size;
    for (int i = 0; i < 2; i++) {
        if (end - p < 2 || p[0] != 0x02 || p[1] == 0 || p[1] > end - p - 2) return false;
        const uint8_t *digits = p + 2;
        size_t n = p[1];
        p += 2 + n;
        while (n > 0 && *digits == 0)
            digits++, n--;
        if (n > HALF) return false;
        memset(out + i * HALF, 0, HALF - n);
        memcpy(out + i * HALF + HALF - n, digits, n);
    }
    return p == end;
}

static size_t der_join(const uint8_t sig[2 * HALF], uint8_t out[SIG_DER_MAX])
{
    size_t n = der_int(sig, out + 2);
    n += der_int(sig + HALF, out + 2 + n);
    out[0] = 0x30;
    out[1] = (uint8_t)n;
    return n + 2;
}

static size_t der_int(const uint8_t half[HALF], uint8_t *out)
{
    size_t skip = 0;
    while (skip < HALF - 1 && half[skip] == 0)
        skip++;
    size_t pad = half[skip] >> 7, n = HALF - skip;
    out[0] = 0x02;
    out[1] = (uint8_t)(n + pad);
    out[2] = 0;
    memcpy(out + 2 + pad, half + skip, n);
    return 2 + pad + n;
}

/* ---- Text ---- */

static enum rc pem_append(BIO *bio, struct buf *b, struct err *err)
{
    char *text = NULL;
    long size = BIO_get_mem_data(bio, &text);
    return buf_append(b, text, (size_t)size, err);
}

static void wipe_fini(struct buf *b)
{
    if (b->data != NULL) explicit_bzero(b->data, b->cap);
    buf_fini(b);
}

static void json_freep(json_t **json)
{
    json_decref(*json);
}

static void bio_freep(BIO **bio)
{
    BIO_free(*bio);
}

static void pkey_freep(EVP_PKEY **pkey)
{
    EVP_PKEY_free(*pkey);
}

static void md_ctx_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

static void errors_clear(const int *unused)
{
    (void)unused;
    ERR_clear_error();
}
