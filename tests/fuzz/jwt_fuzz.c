/*
 * jwt_fuzz.c -- tokens, claims and keys from anywhere. The first byte says what the rest is.
 *
 *   'k'  a text of keys, and a private key: what parses can be used, what signs can be checked
 *   'c'  claims: a token that we sign is right, unless its time is wrong
 *   't'  a token: only what was signed with our keys is right, with the claims that were signed
 */
#include "base/mem.h"
#include "fmt/jwt.h"
#include "fmt/jwt_keys.h"
#include "fuzz/fuzz.h"

#define NOW 1300819000

static const char claims_signed[] = "{\"id\":\"shop\",\"a\":\"rw\",\"exp\":1300819380}";
static const char *const privates[] = {ED_PRIVATE, ES_PRIVATE, HS_KEY};
static struct jwt_keys *keys;
static struct buf tokens[3];

static void set_up(void)
{
    static const char all[] = ED_PUBLIC ES_PUBLIC HS_KEY;
    struct err err;
    if (keys != NULL) return;
    CHECK(jwt_keys_parse(all, strlen(all), &keys, &err) == RC_OK);
    for (size_t i = 0; i < 3; i++)
        CHECK(jwt_sign(privates[i], claims_signed, &tokens[i], &err) == RC_OK);
}

static void check_words(const struct err *err)
{
    for (const char *p = err->text; *p != '\0'; p++)
        CHECK((uint8_t)*p >= ' ' && (uint8_t)*p < 0x7f);
}

static enum jwt_problem verify(const void *token, size_t size, struct buf *claims)
{
    struct err err = {0};
    enum jwt_problem problem = JWT_OK;
    enum rc rc = jwt_verify(keys, token, size, NOW, claims, &problem, &err);
    CHECK(rc == RC_OK || rc == RC_DENIED);
    CHECK((rc == RC_OK) == (problem == JWT_OK));
    CHECK(rc == RC_OK || claims->size == 0);
    check_words(&err);
    return problem;
}

static void try_keys(const char *text, size_t size)
{
    struct err err = {0};
    struct jwt_keys *mine = NULL;
    CLEANUP(buf_fini) struct buf token = BUF_INIT, claims = BUF_INIT;
    enum jwt_problem problem;
    enum rc rc = jwt_keys_parse(text, size, &mine, &err);
    CHECK(rc == RC_OK || rc == RC_INVALID || rc == RC_TOO_BIG);
    check_words(&err);
    for (size_t i = 0; i < 3 && mine != NULL; i++) {
        rc = jwt_verify(mine, (char *)tokens[i].data, tokens[i].size, NOW, &claims, &problem, &err);
        CHECK(rc == RC_OK || problem == JWT_BAD_SIGNATURE);
    }
    jwt_keys_free(mine);
    char copy[FUZZ_SIZE_MAX + 1];
    memcpy(copy, text, size);
    copy[size] = '\0';
    rc = jwt_sign(copy, "{}", &token, &err);
    CHECK(rc == RC_OK || rc == RC_INVALID);
    if (rc != RC_OK) check_words(&err);
}

static void try_claims(const char *text, size_t size)
{
    struct err err = {0};
    CLEANUP(buf_fini) struct buf token = BUF_INIT, claims = BUF_INIT;
    char copy[FUZZ_SIZE_MAX + 1];
    memcpy(copy, text, size);
    copy[size] = '\0';
    enum rc rc = jwt_sign(HS_KEY, copy, &token, &err);
    CHECK(rc == RC_OK || rc == RC_INVALID);
    if (rc != RC_OK) {
        CHECK(token.size == 0);
        return;
    }
    enum jwt_problem problem = verify(token.data, token.size, &claims);
    CHECK(problem == JWT_OK || problem == JWT_EXPIRED || problem == JWT_NOT_YET);
    if (problem != JWT_OK) return;
    CHECK(claims.size == strlen(copy) && memcmp(claims.data, copy, claims.size) == 0);
}

static void try_token(const uint8_t *data, size_t size)
{
    CLEANUP(buf_fini) struct buf claims = BUF_INIT;
    if (verify(data, size, &claims) != JWT_OK) return;
    CHECK(claims.size == strlen(claims_signed));
    CHECK(memcmp(claims.data, claims_signed, claims.size) == 0);
    /* ES256 has a second signature for each: s may be replaced by its negative. */
    bool known = false;
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *dot = memrchr(tokens[i].data, '.', tokens[i].size);
        size_t n = (size_t)(dot - tokens[i].data) + 1;
        known = known || (size == tokens[i].size && memcmp(data, tokens[i].data, n) == 0);
    }
    CHECK(known);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    set_up();
    if (size == 0 || size > FUZZ_SIZE_MAX) return 0;
    if (data[0] == 'k')
        try_keys((const char *)data + 1, size - 1);
    else if (data[0] == 'c')
        try_claims((const char *)data + 1, size - 1);
    else
        try_token(data + 1, size - 1);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    static const char *const seeds[] = {
        ("k" ED_PUBLIC ES_PUBLIC "# c\n" HS_KEY),
        ("k" ED_RAW "\n" ED_RAW),
        ("k" ED_PRIVATE),
        ("k" ES_PRIVATE),
        ("k" ES_PRIVATE_SEC1),
        ("k" HS_KEY),
        ("c{\"exp\":1300819380,\"nbf\":1.5e3,\"p\":{\"rw\":{\"ns\":[\"a\",\"b\"]}}}"),
        ("c{\"exp\":-1,\"a\":[[[[{\"b\":\"\\u00fc\\\"[\"}]]]]}"),
    };
    const size_t count = sizeof seeds / sizeof seeds[0];
    set_up();
    n %= (unsigned)count + 6;
    if (n < count) {
        memcpy(out, seeds[n], strlen(seeds[n]));
        return strlen(seeds[n]);
    }
    const struct buf *token = &tokens[(n - count) % 3];
    out[0] = 't';
    memcpy(out + 1, token->data, token->size);
    return token->size + 1;
}
