/* base64.c -- see base64.h. */
#include "fmt/base64.h"

static int digit_of(char c);

bool base64url_get(const char *text, size_t size, uint8_t *out)
{
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = digit_of(text[i]);
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        *out++ = (uint8_t)(bits >> count);
    }
    return size % 4 != 1 && (bits & ((1u << count) - 1)) == 0;
}

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

enum rc base64url_put(struct buf *b, const void *data, size_t size, struct err *err)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *p = data;
    uint32_t bits = 0;
    unsigned count = 0;
    TRY(buf_reserve(b, BASE64URL_SIZE(size), err));
    for (size_t i = 0; i < size; i++) {
        bits = bits << 8 | p[i];
        for (count += 8; count >= 6; count -= 6)
            b->data[b->size++] = (uint8_t)digits[bits >> (count - 6) & 63];
    }
    if (count > 0) b->data[b->size++] = (uint8_t)digits[bits << (6 - count) & 63];
    return RC_OK;
}
