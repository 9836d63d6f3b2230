/*
 * jwt_test.c -- the examples of the RFCs, tokens of our own, and all that must be refused: every
 * change of a byte, every cut, every confusion of algorithms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/thr.h"
#include "fmt/jwt.h"
#include "fmt/jwt_keys.h"
#include "fmt/noise.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define NOW          1300819000 /* before the exp of RFC 7515's examples */
#define RFC_CLAIMS                                                                                 \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"
#define RFC_HS                                                                                     \
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC_CLAIMS                                         \
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define RFC_ES                                                                                     \
    "eyJhbGciOiJFUzI1NiJ9." RFC_CLAIMS                                                             \
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
#define RFC_ED                                                                                     \
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvM" \
    "g3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
#define SECRET_TEXT "0123456789abcdef0123456789ABCDEF" /* below in base64url */
#define SECRET      "hs256:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY"

static struct jwt_keys *keys_of(const char *text)
{
    struct err err = {0};
    struct jwt_keys *keys = NULL;
    if (jwt_keys_parse(text, strlen(text), &keys, &err) != RC_OK) fail_msg("%s", err.text);
    return keys;
}

/* The verdict; the claims must be as expected when it is JWT_OK. */
static enum jwt_problem verdict(const struct jwt_keys *keys, const char *token, size_t size,
                                int64_t now_s, const char *claims)
{
    struct err err = {0};
    enum jwt_problem problem = JWT_OK;
    struct buf out = BUF_INIT;
    assert_int_equal(buf_append(&out, "x", 1, &err), RC_OK);
    enum rc rc = jwt_verify(keys, token, size, now_s, &out, &problem, &err);
    assert_true((rc == RC_OK) == (problem == JWT_OK));
    assert_int_equal(out.data[0], 'x');
    if (rc == RC_OK) {
        assert_int_equal(out.size, strlen(claims) + 1);
        assert_memory_equal(out.data + 1, claims, strlen(claims));
    } else {
        assert_int_equal(rc, RC_DENIED);
        assert_int_equal(out.size, 1);
        assert_true(strncmp(err.text, "the ", 4) == 0);
    }
    buf_fini(&out);
    return problem;
}

static enum jwt_problem verdict_of(const char *key_text, const char *token, int64_t now_s,
                                   const char *claims)
{
    struct jwt_keys *keys = keys_of(key_text);
    enum jwt_problem problem = verdict(keys, token, strlen(token), now_s, claims);
    jwt_keys_free(keys);
    return problem;
}

static void b64(const void *data, size_t size, char *out)
{
    EVP_EncodeBlock((unsigned char *)out, data, (int)size);
    for (; *out != '\0'; out++)
        *out = (char)(*out == '+' ? '-' : *out == '/' ? '_' : *out == '=' ? '\0' : *out);
}

/* A token with any header and any bytes for claims, signed with SECRET. */
static const char *made(const char *header, const void *claims, size_t size)
{
    static char token[4 * JWT_TEXT_MAX];
    uint8_t mac[32];
    b64(header, strlen(header), token);
    strcat(token, ".");
    b64(claims, size, token + strlen(token));
    assert_non_null(
        HMAC(EVP_sha256(), SECRET_TEXT, 32, (const uint8_t *)token, strlen(token), mac, NULL));
    strcat(token, ".");
    b64(mac, sizeof mac, token + strlen(token));
    return token;
}

static enum jwt_problem made_verdict(const char *header, const char *claims, int64_t now_s)
{
    return verdict_of(SECRET, made(header, claims, strlen(claims)), now_s, claims);
}

#define HS_HEADER "{\"alg\":\"HS256\"}"

static void sign_into(const char *key, const char *claims, struct buf *token)
{
    struct err err = {0};
    *token = BUF_INIT;
    if (jwt_sign(key, claims, token, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(buf_append(token, "", 1, &err), RC_OK);
    token->size--;
}

static void test_rfc(void **state)
{
    (void)state;
    static const char claims[] = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n "
                                 "\"http://example.com/is_root\":true}";
    assert_int_equal(verdict_of(HS_KEY, RFC_HS, NOW, claims), JWT_OK);
    assert_int_equal(verdict_of(ES_PUBLIC, RFC_ES, NOW, claims), JWT_OK);
    assert_int_equal(verdict_of(ES_PUBLIC, RFC_ES, NOW + 1000, NULL), JWT_EXPIRED);
    /* What RFC 8037 signs is no JSON: its signature is right, and its claims are none. */
    assert_int_equal(verdict_of(ED_PUBLIC, RFC_ED, NOW, NULL), JWT_MALFORMED);
    char other[] = RFC_ED;
    other[25] ^= 1;
    assert_int_equal(verdict_of(ED_PUBLIC, other, NOW, NULL), JWT_BAD_SIGNATURE);
}

static const struct {
    const char *private, *public;
} pairs[] = {{ED_PRIVATE, ED_PUBLIC},
             {ED_PRIVATE, ED_RAW},
             {ES_PRIVATE, ES_PUBLIC},
             {ES_PRIVATE_SEC1, ES_PUBLIC},
             {HS_KEY, HS_KEY}};

static void test_own(void **state)
{
    (void)state;
    static const char *const claims[] = {"{}", "{\"id\":\"shop\",\"a\":\"rw\",\"iat\":1300819000}",
                                         "{ \"\xC3\xBC\" : [1.5, null] }\n", "{\"a\":1}"};
    for (size_t i = 0; i < COUNT(pairs); i++)
        for (size_t j = 0; j < COUNT(claims); j++) {
            struct buf token;
            sign_into(pairs[i].private, claims[j], &token);
            const char *text = (const char *)token.data;
            assert_int_equal(verdict_of(pairs[i].public, text, NOW, claims[j]), JWT_OK);
            for (size_t k = 0; k < COUNT(pairs); k++)
                if (strcmp(pairs[k].public, pairs[i].public) != 0 && i / 2 != k / 2)
                    assert_int_equal(verdict_of(pairs[k].public, text, NOW, NULL),
                                     JWT_BAD_SIGNATURE);
            buf_fini(&token);
        }
}

/* Numbers in DER have no leading zeros, so a signature that begins with some takes care; sign until
 * there were a few, one in 256. */
static void test_es256_lengths(void **state)
{
    (void)state;
    struct jwt_keys *keys = keys_of(ES_PUBLIC);
    int zero_count = 0, tries = 0;
    for (; zero_count < 3 && tries < 20000; tries++) {
        char claims[32];
        struct buf token;
        snprintf(claims, sizeof claims, "{\"n\":%d}", tries);
        sign_into(ES_PRIVATE, claims, &token);
        const char *text = (const char *)token.data, *sig = strrchr(text, '.') + 1;
        assert_int_equal(strlen(sig), 86);
        bool zero = sig[0] == 'A' && sig[1] >= 'A' && sig[1] <= 'P';
        zero_count += zero;
        if (zero || tries < 100)
            assert_int_equal(verdict(keys, text, token.size, NOW, claims), JWT_OK);
        buf_fini(&token);
    }
    assert_int_equal(zero_count, 3);
    jwt_keys_free(keys);
}

static void test_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i += 2) { /* one of each algorithm */
        struct jwt_keys *keys = keys_of(pairs[i].public);
        struct buf token;
        sign_into(pairs[i].private, "{\"id\":\"a\",\"a\":\"ro\"}", &token);
        char *text = (char *)token.data;
        for (size_t at = 0; at < token.size; at++) {
            char was = text[at];
            for (int c = 0; c < 256; c += i == 4 ? 1 : 5) { /* the slow ones: a fifth each run */
                text[at] = (char)(c + (i == 4 ? 0 : (int)(noise() % 5)));
                if (text[at] != was)
                    assert_int_not_equal(verdict(keys, text, token.size, NOW, NULL), JWT_OK);
            }
            for (int bit = 0; bit < 8; bit++) {
                text[at] = (char)(was ^ 1 << bit);
                assert_int_not_equal(verdict(keys, text, token.size, NOW, NULL), JWT_OK);
            }
            text[at] = was;
            assert_int_not_equal(verdict(keys, text, at, NOW, NULL), JWT_OK);
            assert_int_not_equal(verdict(keys, text + at + 1, token.size - at - 1, NOW, NULL),
                                 JWT_OK);
        }
        /* The byte behind it is a NUL here. */
        assert_int_equal(verdict(keys, text, token.size + 1, NOW, NULL), JWT_BAD_SIGNATURE);
        assert_int_equal(verdict(keys, text, token.size, NOW, "{\"id\":\"a\",\"a\":\"ro\"}"),
                         JWT_OK);
        buf_fini(&token);
        jwt_keys_free(keys);
    }
}

static void test_confusion(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{\"alg\":\"none\"}",  "{\"alg\":\"None\"}",  "{\"alg\":\"hs256\"}", "{\"alg\":\"HS384\"}",
        "{\"alg\":\"EdDSA\"}", "{\"alg\":\"ES256\"}", "{\"alg\":\"RS256\"}", "{\"alg\":\"\"}"};
    char key[512] = "hs256:", unsigned_token[64];
    struct buf token;
    static const char *const publics[] = {ED_PUBLIC, ED_RAW, ES_PUBLIC};
    /* A public key is known to all, so its bytes must be no secret for HS256. */
    for (size_t i = 0; i < COUNT(publics); i++) {
        size_t size = strlen(publics[i]);
        for (size_t cut = 0; cut < 2; cut++) { /* with and without the last newline */
            b64(publics[i], size - cut, key + 6);
            sign_into(key, "{}", &token);
            assert_int_equal(verdict_of(key, (char *)token.data, NOW, "{}"), JWT_OK);
            assert_int_equal(verdict_of(publics[i], (char *)token.data, NOW, NULL),
                             JWT_BAD_SIGNATURE);
            buf_fini(&token);
        }
    }
    for (size_t i = 0; i < COUNT(headers); i++) {
        assert_int_equal(made_verdict(headers[i], "{}", NOW), JWT_BAD_SIGNATURE);
        assert_int_equal(
            verdict_of(SECRET "\n" ED_PUBLIC ES_PUBLIC, made(headers[i], "{}", 2), NOW, NULL),
            JWT_BAD_SIGNATURE);
        b64(headers[i], strlen(headers[i]), unsigned_token);
        strcat(unsigned_token, ".e30.");
        assert_int_equal(verdict_of(SECRET "\n" ED_PUBLIC ES_PUBLIC, unsigned_token, NOW, NULL),
                         JWT_BAD_SIGNATURE);
    }
    /* Zeros are a signature of anything where nobody looks. */
    char zeros[200] = "eyJhbGciOiJFUzI1NiJ9.e30.";
    memset(zeros + strlen(zeros), 'A', 86);
    assert_int_equal(verdict_of(ES_PUBLIC, zeros, NOW, NULL), JWT_BAD_SIGNATURE);
    memcpy(zeros, "eyJhbGciOiJFZERTQSJ9", 20);
    assert_int_equal(verdict_of(ED_PUBLIC, zeros, NOW, NULL), JWT_BAD_SIGNATURE);
}

static void test_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        enum jwt_problem problem;
    } rows[] = {
        {HS_HEADER, JWT_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"7\",\"x\":[1,{\"y\":2}]}", JWT_OK},
        {" { \"alg\" : \"HS\\u003256\" } ", JWT_OK},
        {"{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"crit\":null}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"typ\":1}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":null}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"alg\":\"HS256\"}", JWT_MALFORMED},
        {"{\"alg\":[\"HS256\"]}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\\u0000\"}", JWT_MALFORMED},
        {"{\"alg\":null}", JWT_MALFORMED},
        {"{\"typ\":\"JWT\"}", JWT_MALFORMED},
        {"{}", JWT_MALFORMED},
        {"", JWT_MALFORMED},
        {"\"HS256\"", JWT_MALFORMED},
        {"[\"HS256\"]", JWT_MALFORMED},
        {"{\"alg\":\"HS256\"", JWT_MALFORMED},
        {"{\"alg\":\"HS256\"}}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\"}x", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":\"\xff\"}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":[[[[[[[[1]]]]]]]]}", JWT_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":\"[[[[[[[[1\\\"[\"}", JWT_OK},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (made_verdict(rows[i].header, "{}", NOW) != rows[i].problem) fail_msg("row %zu", i);
    char big[3000] = "{\"alg\":\"HS256\",\"x\":\"";
    for (size_t n = 0; n < 2; n++) { /* 2048 bytes fit */
        size_t end = 2046 + n;
        memset(big + 20, 'x', end - 20);
        memcpy(big + end, "\"}", 3);
        assert_int_equal(made_verdict(big, "{}", NOW), n == 0 ? JWT_OK : JWT_MALFORMED);
    }
}

static void test_claims(void **state)
{
    (void)state;
    static const struct {
        const char *claims;
        int64_t now_s;
        enum jwt_problem problem;
    } rows[] = {
        {"{\"exp\":1000}", 1059, JWT_OK},
        {"{\"exp\":1000}", 1060, JWT_EXPIRED},
        {"{\"exp\":1000.5}", 1060, JWT_OK},
        {"{\"exp\":1000.5}", 1061, JWT_EXPIRED},
        {"{\"exp\":1e3}", 1059, JWT_OK},
        {"{\"exp\":1e3}", 1060, JWT_EXPIRED},
        {"{\"exp\":-1}", 0, JWT_OK},
        {"{\"exp\":-1}", 59, JWT_EXPIRED},
        {"{\"exp\":-1e300}", 0, JWT_EXPIRED},
        {"{\"exp\":1e300}", INT64_MAX, JWT_OK},
        {"{\"exp\":9223372036854775807}", INT64_MAX - 1, JWT_OK},
        {"{\"exp\":9223372036854775807}", INT64_MIN, JWT_OK},
        {"{\"exp\":-9223372036854775808}", INT64_MIN, JWT_EXPIRED},
        {"{\"nbf\":1000}", 940, JWT_OK},
        {"{\"nbf\":1000}", 939, JWT_NOT_YET},
        {"{\"nbf\":1000.25}", 940, JWT_NOT_YET},
        {"{\"nbf\":9223372036854775807}", INT64_MAX, JWT_OK},
        {"{\"nbf\":1e300}", INT64_MAX, JWT_NOT_YET},
        {"{\"nbf\":2000,\"exp\":1000}", 1500, JWT_EXPIRED},
        {"{\"aud\":\"somebody\",\"iat\":99999999999}", 0, JWT_OK},
        {"{\"exp\":\"1000\"}", 0, JWT_MALFORMED},
        {"{\"exp\":null}", 0, JWT_MALFORMED},
        {"{\"exp\":true}", 0, JWT_MALFORMED},
        {"{\"nbf\":[1]}", 0, JWT_MALFORMED},
        {"{\"exp\":99999999999999999999}", 0, JWT_MALFORMED},
        {"{\"exp\":1e999}", 0, JWT_MALFORMED},
        {"{\"exp\":NaN}", 0, JWT_MALFORMED},
        {"{\"exp\":1000,\"exp\":2000}", 0, JWT_MALFORMED},
        {"[]", 0, JWT_MALFORMED},
        {"1", 0, JWT_MALFORMED},
        {"null", 0, JWT_MALFORMED},
        {"", 0, JWT_MALFORMED},
        {"{}{}", 0, JWT_MALFORMED},
        {"{\"a\":\"\\u0000\"}", 0, JWT_MALFORMED},
        {"{\"a\":\"\xff\"}", 0, JWT_MALFORMED},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (made_verdict(HS_HEADER, rows[i].claims, rows[i].now_s) != rows[i].problem)
            fail_msg("row %zu", i);
    assert_int_equal(verdict_of(SECRET, made(HS_HEADER, "{\"a\":\"\0\"}", 9), 0, NULL),
                     JWT_MALFORMED);
    assert_int_equal(verdict_of(SECRET, made(HS_HEADER, "{}\0", 3), 0, NULL), JWT_MALFORMED);
}

/* What the text says, which the command line shows. */
static void test_words(void **state)
{
    (void)state;
    static const struct {
        const char *claims, *text;
    } rows[] = {
        {"{\"exp\":1000000000}", "the token has expired: 2001-09-09T01:46:40Z"},
        {"{\"exp\":-1e300}", "the token has expired"},
        {"{\"nbf\":4000000000}", "the token is not valid yet, but later: 2096-10-02T07:06:40Z"},
        {"{\"nbf\":1e300}", "the token is not valid yet, but later"},
    };
    struct err err = {0};
    enum jwt_problem problem;
    struct buf out = BUF_INIT;
    struct jwt_keys *keys = keys_of(SECRET);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *token = made(HS_HEADER, rows[i].claims, strlen(rows[i].claims));
        assert_int_equal(jwt_verify(keys, token, strlen(token), 2000000000, &out, &problem, &err),
                         RC_DENIED);
        assert_string_equal(err.text, rows[i].text);
    }
    jwt_keys_free(keys);
}

static void test_sizes(void **state)
{
    (void)state;
    static char claims[2 * JWT_TEXT_MAX], text[JWT_TEXT_MAX + 2];
    struct jwt_keys *keys = keys_of(SECRET);
    struct buf token = BUF_INIT;
    struct err err;
    /* Grow until it is too long, once as a string, once as brackets. */
    size_t longest = 0;
    for (size_t n = 12000; n < 12300; n++) {
        memcpy(claims, "{\"a\":\"", 6);
        memset(claims + 6, 'x', n - 8);
        memcpy(claims + n - 2, "\"}", 3);
        token.size = 0;
        enum rc rc = jwt_sign(SECRET, claims, &token, &err);
        const char *same = made("{\"alg\":\"HS256\",\"typ\":\"JWT\"}", claims, n);
        bool fits = strlen(same) <= JWT_TEXT_MAX;
        assert_int_equal(verdict(keys, same, strlen(same), NOW, claims),
                         fits ? JWT_OK : JWT_MALFORMED);
        if (rc == RC_OK) {
            assert_true(fits);
            assert_int_equal(token.size, strlen(same));
            assert_memory_equal(token.data, same, token.size);
            longest = n;
        } else {
            assert_int_equal(rc, RC_TOO_BIG);
        }
    }
    assert_true(longest > 12000 && longest < 12299);
    buf_fini(&token);
    static char deep[8001] = "{\"a\":";
    for (size_t depth = 30; depth <= 3900; depth = depth < 32 ? depth + 1 : depth * 2) {
        memset(deep + 5, '[', depth);
        memset(deep + 5 + depth, ']', depth);
        memcpy(deep + 5 + 2 * depth, "}", 2);
        const char *t = made(HS_HEADER, deep, strlen(deep));
        assert_int_equal(verdict(keys, t, strlen(t), NOW, deep),
                         depth < 32 ? JWT_OK : JWT_MALFORMED);
        memset(deep + 5 + depth, '[', depth); /* never closed */
        t = made(HS_HEADER, deep, 5 + 2 * depth);
        assert_int_equal(verdict(keys, t, strlen(t), NOW, NULL), JWT_MALFORMED);
    }
    static const char fills[] = ".A\0{\xff";
    for (size_t i = 0; i < sizeof fills; i++) {
        memset(text, fills[i], sizeof text);
        for (size_t n = 0; n < sizeof text; n = n < 64 ? n + 1 : n * 2 + 1)
            assert_int_equal(verdict(keys, text, n, NOW, NULL), JWT_MALFORMED);
        assert_int_equal(verdict(keys, text, sizeof text, NOW, NULL), JWT_MALFORMED);
    }
    assert_int_equal(verdict(keys, NULL, 0, NOW, NULL), JWT_MALFORMED);
    jwt_keys_free(keys);
}

static void test_spelling(void **state)
{
    (void)state;
    /* "e30" is {}; the last digit carries two bits that must be zero. */
    static const char *const bad[] = {"e31", "e30=", "e30\n", " e30", "e3",
                                      "e",   "",     "e3+0",  "e3/0"};
    char token[256];
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint8_t mac[32];
        snprintf(token, sizeof token, "eyJhbGciOiJIUzI1NiJ9.%s", bad[i]);
        HMAC(EVP_sha256(), SECRET_TEXT, 32, (const uint8_t *)token, strlen(token), mac, NULL);
        strcat(token, ".");
        b64(mac, sizeof mac, token + strlen(token));
        assert_int_equal(verdict_of(SECRET, token, NOW, NULL), JWT_MALFORMED);
    }
    const char *good = made(HS_HEADER, "{}", 2);
    assert_int_equal(verdict_of(SECRET, good, NOW, "{}"), JWT_OK);
    static const char *const frames[] = {" %s", "%s ", "%s\n", "%s=", "%s.", ".%s", "%s.e30"};
    for (size_t i = 0; i < COUNT(frames); i++) {
        char before[4] = "";
        memcpy(before, frames[i], strcspn(frames[i], "%"));
        snprintf(token, sizeof token, "%s%s%s", before, good, strchr(frames[i], 's') + 1);
        assert_int_not_equal(verdict_of(SECRET, token, NOW, NULL), JWT_OK);
    }
}

static void test_rotation(void **state)
{
    (void)state;
    static const char all[] = "# the old ones\n" ES_PUBLIC "\r\n  " ED_RAW " # not a comment? it "
                              "is\n" SECRET "\n\n" HS_KEY "\n" ED_PUBLIC "#";
    struct buf token;
    struct jwt_keys *keys = keys_of(all);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        sign_into(pairs[i].private, "{}", &token);
        assert_int_equal(verdict(keys, (char *)token.data, token.size, NOW, "{}"), JWT_OK);
        buf_fini(&token);
    }
    const char *hs = made(HS_HEADER, "{}", 2);
    assert_int_equal(verdict(keys, hs, strlen(hs), NOW, "{}"), JWT_OK);
    jwt_keys_free(keys);
    /* A text with other line ends. */
    char crlf[400] = "", *end = crlf;
    for (const char *p = ED_PUBLIC; *p != '\0'; p++) {
        if (*p == '\n') *end++ = '\r';
        *end++ = *p;
    }
    sign_into(ED_PRIVATE, "{}", &token);
    assert_int_equal(verdict_of(crlf, (char *)token.data, NOW, "{}"), JWT_OK);
    /* Two new keys, and one that has nothing to do with it. */
    struct buf priv = BUF_INIT, pub = BUF_INIT;
    struct err err;
    for (enum jwt_alg alg = JWT_EDDSA; alg <= JWT_HS256; alg++)
        assert_int_equal(jwt_key_new(alg, &priv, &pub, &err), RC_OK);
    assert_int_equal(jwt_key_new(JWT_EDDSA, &priv, &pub, &err), RC_OK);
    assert_int_equal(buf_append(&pub, "", 1, &err), RC_OK);
    assert_int_equal(verdict_of((char *)pub.data, (char *)token.data, NOW, NULL),
                     JWT_BAD_SIGNATURE);
    buf_fini(&priv);
    buf_fini(&pub);
    buf_fini(&token);
}

static void test_new_keys(void **state)
{
    (void)state;
    struct err err;
    for (enum jwt_alg alg = JWT_EDDSA; alg <= JWT_HS256; alg++) {
        struct buf priv = BUF_INIT, pub = BUF_INIT, again = BUF_INIT, token;
        assert_int_equal(jwt_key_new(alg, &priv, &pub, &err), RC_OK);
        assert_int_equal(jwt_key_new(alg, &again, &again, &err), RC_OK);
        assert_int_equal(buf_append(&priv, "", 1, &err), RC_OK);
        assert_int_equal(buf_append(&pub, "", 1, &err), RC_OK);
        assert_true(strcmp((char *)priv.data, (char *)pub.data) == 0 ? alg == JWT_HS256
                                                                     : alg != JWT_HS256);
        assert_null(memmem(again.data, again.size, priv.data, priv.size - 1));
        sign_into((char *)priv.data, "{\"id\":\"x\"}", &token);
        assert_int_equal(verdict_of((char *)pub.data, (char *)token.data, NOW, "{\"id\":\"x\"}"),
                         JWT_OK);
        buf_fini(&priv);
        buf_fini(&pub);
        buf_fini(&again);
        buf_fini(&token);
    }
}

static const char rsa[] = "-----BEGIN PUBLIC KEY-----\n"
                          "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMPpkcklLQ9LKYM5qfoSe9KZQIKr8zMK"
                          "iuQ1+BjdbQX5OLSWL2cs+++3NcEe+3X+u9kIemS0z25AGdW+mF8C21cCAwEAAQ==\n"
                          "-----END PUBLIC KEY-----\n";
static const char k256[] = "-----BEGIN PUBLIC KEY-----\n"
                           "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEWdv0b4yUdZuiEnfDN4T0FkX3tE9sWWpY\n"
                           "zpLmZhkavj7FNK1EF1+8MA9Ops5kgwmgQs5zmnkZeYzYXiFsSjB/bg==\n"
                           "-----END PUBLIC KEY-----\n";

static void test_bad_keys(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "there is none"},
        {" \r\n# nothing\n\t", "there is none"},
        {ED_PRIVATE, "key 1: a private key, and who checks tokens must not have it; give the "
                     "public key (openssl pkey -in FILE -pubout)"},
        {ED_PUBLIC ES_PRIVATE_SEC1, "key 2: a private key"},
        {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
         "key 1: a private key"},
        {"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n", "key 1: a certificate"},
        {"-----BEGIN EC PARAMETERS-----\nAA\n-----END EC PARAMETERS-----\n",
         "key 1: a PEM block 'EC PARAMETERS'; expected 'PUBLIC KEY'"},
        {"-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n",
         "the PEM block holds no public key"},
        {"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
         "the PEM block holds no public key"},
        {"-----BEGIN PUBLIC KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
         "00112233445566778899AABBCCDDEEFF\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END PUBLIC KEY-----",
         "the PEM block holds no public key"},
        {"-----BEGIN -----\nAA\n-----END -----", "a broken PEM block; expected"},
        {"-----BEGIN PUBLIC KEY-----\nMCow", "no line '-----END PUBLIC KEY-----'"},
        {"-----BEGIN PUBLIC KEY", "broken first line"},
        {"-----BEGIN PUBLIC\x01KEY-----\n", "broken first line"},
        {"-----BEGIN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-----",
         "broken first line"},
        {"----BEGIN PUBLIC KEY-----", "something else; expected"},
        {"-----END PUBLIC KEY-----", "a broken PEM block; expected"},
        {rsa, "of type RSA with 512 bits; expected Ed25519 or EC on the curve P-256"},
        {k256, "of type EC with 256 bits; expected Ed25519 or EC on the curve P-256"},
        {ED_RAW "=", "a key that is not in base64url without padding"},
        {"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo", "not in base64url without padding"},
        {"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp", "not in base64url without padding"},
        {"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR", "something else"},
        {"hunter2", "key 1: something else; expected a public key in PEM"},
        {RFC_HS, "key 1: a token; expected"},
        {"{\"kty\":\"OKP\"}", "key 1: JSON; expected"},
        {"ssh-ed25519 AAAAC3Nz", "key 1: an SSH key; expected"},
        {"hs256:", "a secret of 0 bytes; expected 32 to 256"},
        {"hs256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "a secret of 30 bytes"},
        {"hs256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+A", "the secret is not in base64url"},
        {"hs256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB", "the secret is not in base64url"},
    };
    struct jwt_keys *keys = NULL;
    struct err err = {0};
    for (size_t i = 0; i < COUNT(rows); i++) {
        enum rc rc = jwt_keys_parse(rows[i].text, strlen(rows[i].text), &keys, &err);
        if (rc != RC_INVALID || strstr(err.text, rows[i].why) == NULL)
            fail_msg("row %zu: %s: %s", i, rc_name(rc), err.text);
        assert_null(strstr(err.text, "hunter2"));
    }
    assert_int_equal(jwt_keys_parse(ED_RAW "\0" ED_RAW, 87, &keys, &err), RC_INVALID);
    char many[JWT_KEYS_MAX * 45 + 45] = "";
    for (int i = 1; i <= JWT_KEYS_MAX + 1; i++) {
        strcat(many, ED_RAW "\n");
        enum rc rc = jwt_keys_parse(many, strlen(many), &keys, &err);
        assert_int_equal(rc, i <= JWT_KEYS_MAX ? RC_OK : RC_TOO_BIG);
        if (rc == RC_OK) jwt_keys_free(keys);
        keys = NULL;
    }
    static char huge[JWT_KEY_TEXT_MAX + 1];
    memset(huge, ' ', sizeof huge);
    assert_int_equal(jwt_keys_parse(huge, sizeof huge, &keys, &err), RC_TOO_BIG);
    assert_int_equal(jwt_keys_parse(huge, sizeof huge - 1, &keys, &err), RC_INVALID);
    assert_null(keys);
    jwt_keys_free(NULL);
}

static void test_bad_signing(void **state)
{
    (void)state;
    static const struct {
        const char *key, *claims, *why;
    } rows[] = {
        {ED_PUBLIC, "{}", "private key: a public key, which only checks tokens"},
        {ED_RAW, "{}", "private key: something else; expected a private key in PEM"},
        {"", "{}", "private key: there is none"},
        {"hs256:AAAA", "{}", "a secret of 3 bytes"},
        {"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n", "{}",
         "private key: the PEM block 'PRIVATE KEY' holds none"},
        {"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,A2\n\nAA\n"
         "-----END EC PRIVATE KEY-----\n",
         "{}", "private key: it is encrypted"},
        {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "{}",
         "private key: it is encrypted"},
        {"-----BEGIN PRIVATE KEY-----\n"
         "MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgAAAAAAAAAAAAAAAAAAAA\n"
         "AAAAAAAAAAAAAAAAAAAAAE2hRANCAARZ2/RvjJR1m6ISd8M3hPQWRfe0T2xZaljO\n"
         "kuZmGRq+PsU0rUQXX7wwD06mzmSDCaBCznOaeRl5jNheIWxKMH9u\n"
         "-----END PRIVATE KEY-----\n",
         "{}", "expected Ed25519 or EC on the curve P-256"},
        {ED_PRIVATE, "", "the claims of the token: not a JSON object"},
        {ED_PRIVATE, "[]", "the claims of the token: not a JSON object"},
        {ED_PRIVATE, "{\"a\":1,\"a\":2}", "the claims of the token: not a JSON object"},
        {ED_PRIVATE, "{\"exp\":\"soon\"}", "the claims of the token: 'exp' is not a number"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct err err = {0};
        struct buf token = BUF_INIT;
        enum rc rc = jwt_sign(rows[i].key, rows[i].claims, &token, &err);
        if (rc != RC_INVALID || strstr(err.text, rows[i].why) == NULL)
            fail_msg("row %zu: %s: %s", i, rc_name(rc), err.text);
        assert_int_equal(token.size, 0);
    }
    struct buf token;
    sign_into("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC "
              "PARAMETERS-----\n" ES_PRIVATE_SEC1,
              "{}", &token);
    assert_int_equal(verdict_of(ES_PUBLIC, (char *)token.data, NOW, "{}"), JWT_OK);
    buf_fini(&token);
}

/* One round of everything. The first failure is the result. */
static enum rc round_trip(const char *private, const char *public, struct err *err)
{
    CLEANUP(jwt_keys_freep) struct jwt_keys *keys = NULL;
    CLEANUP(buf_fini) struct buf token = BUF_INIT, claims = BUF_INIT, k1 = BUF_INIT, k2 = BUF_INIT;
    enum jwt_problem problem = JWT_OK;
    for (enum jwt_alg alg = JWT_EDDSA; alg <= JWT_HS256; alg++) {
        enum rc rc = jwt_key_new(alg, &k1, &k2, err);
        assert_true(rc == RC_OK || k1.size == k2.size || alg > 0);
        if (rc != RC_OK) return rc;
    }
    enum rc rc =
        jwt_sign(private, "{\"id\":\"shop\",\"p\":{\"rw\":{\"ns\":[\"a\"]}}}", &token, err);
    if (rc != RC_OK) assert_int_equal(token.size, 0);
    if (rc != RC_OK) return rc;
    rc = jwt_keys_parse(public, strlen(public), &keys, err);
    if (rc != RC_OK) assert_null(keys);
    if (rc != RC_OK) return rc;
    rc = jwt_verify(keys, (const char *)token.data, token.size, NOW, &claims, &problem, err);
    assert_true((rc == RC_OK) == (problem == JWT_OK));
    if (rc != RC_OK) assert_int_equal(claims.size, 0);
    return rc;
}

struct shared {
    struct jwt_keys *keys;
    struct buf tokens[COUNT(pairs)];
};

static enum rc verify_shared(void *ctx, uint64_t i, struct err *err)
{
    struct shared *s = ctx;
    const struct buf *token = &s->tokens[i % COUNT(pairs)];
    enum jwt_problem problem;
    CLEANUP(buf_fini) struct buf claims = BUF_INIT, copy = BUF_INIT;
    TRY(buf_append(&copy, token->data, token->size, err));
    if (i % 3 == 0) copy.data[copy.size - 20] ^= 1;
    enum rc rc = jwt_verify(s->keys, (char *)copy.data, copy.size, NOW, &claims, &problem, err);
    if (i % 3 == 0 && problem == JWT_BAD_SIGNATURE) return RC_OK;
    return i % 3 == 0 ? err_set(err, RC_CORRUPT, "a broken token was taken") : rc;
}

static void test_threads(void **state)
{
    (void)state;
    struct err err = {0};
    struct shared s = {.keys = keys_of(HS_KEY "\n" ED_PUBLIC ES_PUBLIC)};
    for (size_t i = 0; i < COUNT(pairs); i++)
        sign_into(pairs[i].private, "{}", &s.tokens[i]);
    if (thr_each(4, 2000, verify_shared, &s, &err) != RC_OK) fail_msg("%s", err.text);
    for (size_t i = 0; i < COUNT(pairs); i++)
        buf_fini(&s.tokens[i]);
    jwt_keys_free(s.keys);
}

/* Where memory can be made to fail: in our code, there and in the JSON library, there and in
 * OpenSSL. The libraries cannot always tell what went wrong, and some do without. */
static bool ssl_faults;

static void *ssl_alloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    if (size == 0 || (ssl_faults && fault_hit(FAULT_ALLOC, "OpenSSL"))) return NULL;
    return malloc(size);
}

static void *ssl_realloc(void *p, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    if (ssl_faults && size > 0 && fault_hit(FAULT_ALLOC, "OpenSSL")) return NULL;
    return realloc(p, size);
}

static void ssl_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}

/* step: how many allocations to skip at most; OpenSSL makes more than ten thousand. */
static uint64_t sweep(size_t pair, bool strict, uint64_t step)
{
    static const char all[] = HS_KEY "\n" ED_PUBLIC ES_PUBLIC;
    struct err err = {0};
    uint64_t nth = 0;
    assert_int_equal(round_trip(pairs[pair].private, all, &err), RC_OK);
    for (bool fired = true; fired;) {
        nth += 1 + noise() % step;
        fault_arm(FAULT_ALLOC, nth, false);
        enum rc rc = round_trip(pairs[pair].private, all, &err);
        fired = fault_fired();
        fault_arm(0, 0, false);
        if (!fired) assert_int_equal(rc, RC_OK);
        if (fired && strict) assert_int_equal(rc, RC_NO_MEM);
    }
    return nth;
}

static void test_no_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++) {
        uint64_t own = sweep(i, true, 1);
        json_set_alloc_funcs(mem_alloc, mem_free);
        uint64_t with_json = sweep(i, false, 1);
        ssl_faults = true;
        uint64_t with_ssl = sweep(i, false, 150);
        ssl_faults = false;
        json_set_alloc_funcs(malloc, free);
        printf("%llu, %llu, %llu steps\n", (unsigned long long)own, (unsigned long long)with_json,
               (unsigned long long)with_ssl);
        assert_true(own > 10 && with_json > own && with_ssl > with_json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc),           cmocka_unit_test(test_own),
        cmocka_unit_test(test_es256_lengths), cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_confusion),     cmocka_unit_test(test_headers),
        cmocka_unit_test(test_claims),        cmocka_unit_test(test_words),
        cmocka_unit_test(test_sizes),         cmocka_unit_test(test_spelling),
        cmocka_unit_test(test_rotation),      cmocka_unit_test(test_new_keys),
        cmocka_unit_test(test_bad_keys),      cmocka_unit_test(test_bad_signing),
        cmocka_unit_test(test_threads),       cmocka_unit_test(test_no_memory),
    };
    noise_seed();
    if (!CRYPTO_set_mem_functions(ssl_alloc, ssl_realloc, ssl_free)) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
