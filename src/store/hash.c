/* hash.c -- see hash.h. OpenSSL's EVP interface; its failures here mean that memory is short. */
#include "store/hash.h"
#include "base/mem.h"
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <endian.h>
#include <string.h>

static enum rc digest(const EVP_MD *md, const void *data, size_t size, uint8_t *out,
                      struct err *err);
static void crc_fill(void);
static int base64_digit(char c);

static pthread_once_t crc_once = PTHREAD_ONCE_INIT;
static uint64_t crc_table[8][256]; /* constant after crc_once */

enum rc hash_sha256(const void *data, size_t size, uint8_t out[SHA256_SIZE], struct err *err)
{
    return digest(EVP_sha256(), data, size, out, err);
}

enum rc hash_md5(const void *data, size_t size, uint8_t out[MD5_SIZE], struct err *err)
{
    return digest(EVP_md5(), data, size, out, err);
}

enum rc hash_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                         uint8_t out[SHA256_SIZE], struct err *err)
{
    unsigned out_size = SHA256_SIZE;
    if (HMAC(EVP_sha256(), key, (int)key_size, data, size, out, &out_size) == NULL)
        return err_mem(err, "a message authentication code");
    return RC_OK;
}

enum rc hash_begin(struct hash *h, enum hash_kind kind, struct err *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    h->state = ctx;
    if (ctx != NULL && EVP_DigestInit_ex(ctx, kind == HASH_MD5 ? EVP_md5() : EVP_sha256(), NULL))
        return RC_OK;
    return err_mem(err, "a digest");
}

enum rc hash_add(struct hash *h, const void *data, size_t size, struct err *err)
{
    return EVP_DigestUpdate(h->state, data, size) ? RC_OK : err_mem(err, "a digest");
}

enum rc hash_end(struct hash *h, uint8_t *out, struct err *err)
{
    return EVP_DigestFinal_ex(h->state, out, NULL) ? RC_OK : err_mem(err, "a digest");
}

void hash_fini(struct hash *h)
{
    EVP_MD_CTX_free(h->state);
    h->state = NULL;
}

/* Eight bytes a step: table[k][b] is the effect of byte b that has k bytes behind it. */
uint64_t hash_crc64nvme(uint64_t crc, const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t c = ~crc, word;
    pthread_once(&crc_once, crc_fill);
    for (; size >= 8; size -= 8, p += 8) {
        memcpy(&word, p, 8);
        c ^= le64toh(word);
        uint64_t next = 0;
        for (int k = 0; k < 8; k++)
            next ^= crc_table[7 - k][c >> (8 * k) & 0xff];
        c = next;
    }
    for (; size > 0; size--, p++)
        c = crc_table[0][(c ^ *p) & 0xff] ^ c >> 8;
    return ~c;
}

void hex_put(const void *data, size_t size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = '\0';
}

void base64_put(const void *data, size_t size, char *out)
{
    ASSERT(size < INT32_MAX / 2);
    EVP_EncodeBlock((unsigned char *)out, data, (int)size);
}

enum rc base64_get(const char *text, uint8_t *out, size_t out_size, size_t *ret_size,
                   struct err *err)
{
    uint32_t bits = 0;
    unsigned bit_count = 0;
    size_t used = 0, digits = 0;
    for (; *text != '\0' && *text != '='; text++, digits++) {
        int digit = base64_digit(*text);
        if (digit < 0) return err_set(err, RC_INVALID, "not base64");
        bits = (bits << 6 | (uint32_t)digit) & 0xffffff;
        bit_count += 6;
        if (bit_count < 8) continue;
        bit_count -= 8;
        if (used == out_size)
            return err_set(err, RC_TOO_BIG, "base64 of more than %zu bytes", used);
        out[used++] = (uint8_t)(bits >> bit_count);
    }
    if (strspn(text, "=") != strlen(text) || strlen(text) > 2 || digits % 4 == 1)
        return err_set(err, RC_INVALID, "not base64: it is cut off");
    *ret_size = used;
    return RC_OK;
}

enum rc base64url_append(struct buf *b, const void *data, size_t size, struct err *err)
{
    ASSERT(size < INT32_MAX / 2);
    TRY(buf_reserve(b, BASE64_SIZE(size), err));
    char *out = (char *)b->data + b->size;
    base64_put(data, size, out);
    for (; *out != '\0' && *out != '='; out++)
        *out = *out == '+' ? '-' : *out == '/' ? '_' : *out;
    b->size = (size_t)((uint8_t *)out - b->data);
    return RC_OK;
}

enum rc uri_append(struct buf *b, const char *text, bool keep_slash, struct err *err)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    size_t size = strlen(text);
    TRY(buf_reserve(b, size * 3 + 1, err));
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)text[i];
        if (strchr(plain, c) != NULL || (c == '/' && keep_slash))
            b->data[b->size++] = c;
        else
            TRY(buf_printf(b, err, "%%%02X", c));
    }
    return RC_OK;
}

enum rc hash_rs256(const char *pem, const void *data, size_t size, struct buf *out, struct err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    /* The user pointer stands for a passphrase: an encrypted key must fail, not prompt. */
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t sig_size = 0;
    enum rc rc = RC_OK;
    if (key == NULL || EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA)
        rc = err_set(err, RC_INVALID, "the private key is not an RSA key in PEM form");
    else if (ctx == NULL || !EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) ||
             !EVP_DigestSign(ctx, NULL, &sig_size, data, size))
        rc = err_mem(err, "a signature");
    if (rc == RC_OK) rc = buf_reserve(out, sig_size, err);
    if (rc == RC_OK && !EVP_DigestSign(ctx, out->data + out->size, &sig_size, data, size))
        rc = err_set(err, RC_INVALID, "the private key does not sign");
    if (rc == RC_OK) out->size += sig_size;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    BIO_free(bio);
    return rc;
}

static enum rc digest(const EVP_MD *md, const void *data, size_t size, uint8_t *out,
                      struct err *err)
{
    return EVP_Digest(data, size, out, NULL, md, NULL) ? RC_OK : err_mem(err, "a digest");
}

static void crc_fill(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint64_t c = byte;
        for (int i = 0; i < 8; i++)
            c = c & 1 ? c >> 1 ^ 0x9A6C9329AC4BC9B5 : c >> 1;
        crc_table[0][byte] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint64_t c = crc_table[k - 1][byte];
            crc_table[k][byte] = crc_table[0][c & 0xff] ^ c >> 8;
        }
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    return c == '/' || c == '_' ? 63 : -1;
}
