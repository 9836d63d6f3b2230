/*
 * text_fuzz.c -- every parser of text.h on one string; what is accepted is printed and parsed to
 * the same value. The first 8 bytes also serve as a number to print.
 */
#include "base/bytes.h"
#include "fmt/noise.h"
#include "fmt/text.h"
#include "fuzz/fuzz.h"

#define TEXT_MAX 4000

static void check_numbers(uint64_t n);
static void check_parsers(const char *text);
static void check_url(const char *text);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8 || size > TEXT_MAX) return 0;
    char *text = malloc(size - 8 + 1);
    CHECK(text != NULL);
    memcpy(text, data + 8, size - 8);
    text[size - 8] = '\0';
    check_numbers(get_le64(data));
    check_parsers(text);
    check_url(text);
    free(text);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    static const char *const seeds[] = {
        "0000000000000001-00000000000000ff.ltx",
        "00000000000000ff",
        "2026-01-02T03:04:05.678Z",
        "2024-02-29T23:59:59.123456789+05:30",
        "1h30m5.25s",
        "-2562047h47m16.854775808s",
        "1.5\xC2\xB5s",
        "9223372036854775807",
        "1.5 MiB",
        "18.4EB",
        "s3://key:pa%2Fss@bucket.host:9000/a/b?region=x&y=z",
        "sftp://u@[::1]:22/path",
        "s3://arn:aws:s3:r:1:accesspoint/n/k",
        "/a/plain/path",
    };
    const char *text = seeds[n % (sizeof seeds / sizeof seeds[0])];
    put_le64(out, noise() >> n % 64);
    memcpy(out + 8, text, strlen(text));
    return 8 + strlen(text);
}

static void check_numbers(uint64_t n)
{
    char name[LTX_NAME_SIZE], text[32];
    struct err err;
    int64_t back;
    uint64_t txid, min, max;
    ltx_name_put(n / 2, n, name);
    CHECK(ltx_name_get(name, &min, &max) == (n / 2 >= 1));
    if (n / 2 >= 1) CHECK(min == n / 2 && max == n);
    txid_put(n, name);
    CHECK(txid_get(name, &txid, &err) == RC_OK && txid == n);
    duration_put((int64_t)n, text);
    CHECK(duration_get(text, &back, &err) == RC_OK && back == (int64_t)n);
    int64_t ms = (int64_t)n >> 18; /* years 970 to 3087 */
    time_put(ms, true, text);
    CHECK(time_get(text, &back, &err) == RC_OK && back == ms);
    time_put((int64_t)n, true, text);
    CHECK(strlen(text) < sizeof text);

    /* A printed size has two digits, rounded twice: 10.549 -> 10.5 -> 10. */
    size_put(n, text);
    CHECK(size_get(text, &txid, &err) == RC_OK);
    uint64_t off = txid > n ? txid - n : n - txid;
    CHECK(off <= n / 18);
}

static void check_parsers(const char *text)
{
    struct err err;
    uint64_t min = 0, max = 0, v, again;
    int64_t t, back;
    char out[LTX_NAME_SIZE];
    if (ltx_name_get(text, &min, &max)) {
        ltx_name_put(min, max, out);
        CHECK(strcmp(out, text) == 0);
    }
    if (txid_get(text, &v, &err) == RC_OK) {
        txid_put(v, out);
        CHECK(strcasecmp(out, text) == 0);
    }
    if (time_get(text, &t, &err) == RC_OK) {
        time_put(t, true, out);
        /* An offset may lead a little out of the years that have four digits. */
        if (strlen(out) < 25 && out[0] != '-')
            CHECK(time_get(out, &back, &err) == RC_OK && back == t);
    }
    if (duration_get(text, &t, &err) == RC_OK) {
        duration_put(t, out);
        CHECK(duration_get(out, &back, &err) == RC_OK && back == t);
    }
    if (size_get(text, &v, &err) == RC_OK) {
        snprintf(out, sizeof out, "%llu", (unsigned long long)v);
        CHECK(size_get(out, &again, &err) == RC_OK && again == v);
    }
}

static void check_url(const char *text)
{
    struct url u, again;
    struct err err;
    enum rc rc = url_get(text, &u, &err);
    CHECK(rc == RC_OK || rc == RC_INVALID || rc == RC_TOO_BIG);
    if (rc != RC_OK) return;
    if (u.scheme[0] == '\0') {
        CHECK(strcmp(u.path, text) == 0);
        return;
    }
    /* Put together from its parts, it is taken apart to the same. */
    char whole[TEXT_MAX];
    bool v6 = strchr(u.host, ':') != NULL && strncmp(u.host, "arn:", 4) != 0;
    int n = snprintf(whole, sizeof whole, "%s://%s%s%s", u.scheme, v6 ? "[" : "", u.host,
                     v6 ? "]" : "");
    if (u.port != 0) n += snprintf(whole + n, sizeof whole - (size_t)n, ":%u", u.port);
    snprintf(whole + n, sizeof whole - (size_t)n, "%s%s%s", u.path, u.query[0] != '\0' ? "?" : "",
             u.query);
    CHECK(url_get(whole, &again, &err) == RC_OK);
    CHECK(strcmp(again.host, u.host) == 0 && again.port == u.port);
    CHECK(strcmp(again.path, u.path) == 0 && strcmp(again.query, u.query) == 0);
}
