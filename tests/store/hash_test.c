/* hash_test.c -- known answers, and round trips of the encodings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include "base/mem.h"
#include "base/os.h"
#include "store/hash.h"

static struct err err;

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static void assert_hex(const void *data, size_t size, const char *hex)
{
    char text[HEX_SIZE(64)];
    hex_put(data, size, text);
    assert_string_equal(text, hex);
}

/* FIPS 180-4's "abc", RFC 1321's "abc", RFC 4231's second case. */
static void test_digests(void **state)
{
    (void)state;
    uint8_t out[SHA256_SIZE];
    struct hash h;
    ok(hash_sha256("abc", 3, out, &err));
    assert_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ok(hash_md5("abc", 3, out, &err));
    assert_hex(out, 16, "900150983cd24fb0d6963f7d28e17f72");
    ok(hash_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, out, &err));
    assert_hex(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    ok(hash_begin(&h, HASH_SHA256, &err));
    ok(hash_add(&h, "a", 1, &err));
    ok(hash_add(&h, "bc", 2, &err));
    ok(hash_end(&h, out, &err));
    hash_fini(&h);
    assert_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_crc64nvme(void **state)
{
    (void)state;
    uint8_t data[1000];
    assert_int_equal(hash_crc64nvme(0, "123456789", 9), 0xAE8B14860A799888);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7919 >> 3);
    uint64_t whole = hash_crc64nvme(0, data, sizeof data);
    for (size_t cut = 0; cut <= 40; cut++) /* any alignment, any tail */
        assert_int_equal(
            hash_crc64nvme(hash_crc64nvme(0, data, cut), data + cut, sizeof data - cut), whole);
}

static void test_base64(void **state)
{
    (void)state;
    char text[BASE64_SIZE(300)];
    uint8_t data[300], back[300];
    size_t size;
    for (size_t n = 0; n < sizeof data; n++) {
        data[n] = (uint8_t)(n * 151 + 3);
        CLEANUP(buf_fini) struct buf b = BUF_INIT;
        base64_put(data, n, text);
        ok(base64_get(text, back, sizeof back, &size, &err));
        assert_int_equal(size, n);
        assert_memory_equal(back, data, n);
        ok(base64url_append(&b, data, n, &err));
        ok(buf_append(&b, "", 1, &err));
        assert_null(strpbrk((char *)b.data, "+/="));
        ok(base64_get((char *)b.data, back, sizeof back, &size, &err));
        assert_int_equal(size, n);
        assert_memory_equal(back, data, n);
    }
    static const char *const broken[] = {"a", "abcde", "ab!d", "ab=c", "abcd===", "\xff"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        assert_int_equal(base64_get(broken[i], back, sizeof back, &size, &err), RC_INVALID);
    assert_int_equal(base64_get("abcdabcd", back, 5, &size, &err), RC_TOO_BIG);
}

static void test_uri(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(uri_append(&b, "a/b c~é+%", true, &err));
    ok(uri_append(&b, "/A-z_.9", false, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_string_equal((char *)b.data, "a/b%20c~%C3%A9%2B%25%2FA-z_.9");
}

static void test_rs256(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf sig = BUF_INIT;
    EVP_PKEY *key = EVP_RSA_gen(2048);
    BIO *bio = BIO_new(BIO_s_mem());
    char *pem;
    assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    BIO_write(bio, "", 1);
    BIO_get_mem_data(bio, &pem);
    ok(hash_rs256(pem, "message", 7, &sig, &err));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(ctx, sig.data, sig.size, (const uint8_t *)"message", 7), 1);
    EVP_MD_CTX_free(ctx);
    BIO_free(bio);
    EVP_PKEY_free(key);
    assert_int_equal(hash_rs256("no key", "message", 7, &sig, &err), RC_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests), cmocka_unit_test(test_crc64nvme),
        cmocka_unit_test(test_base64),  cmocka_unit_test(test_uri),
        cmocka_unit_test(test_rs256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
