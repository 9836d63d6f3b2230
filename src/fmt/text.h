/*
 * text.h -- names, times, durations and sizes as people and Litestream write them. Pure.
 */
#ifndef FMT_TEXT_H
#define FMT_TEXT_H
#include "base/err.h"

#define LTX_NAME_SIZE 38 /* "%016x-%016x.ltx" and the terminating 0 */

void ltx_name_put(uint64_t txid_min, uint64_t txid_max, char out[LTX_NAME_SIZE]);
/* False: not an LTX name (^[0-9a-f]{16}-[0-9a-f]{16}\.ltx$, min <= max, min >= 1). */
bool ltx_name_get(const char *name, uint64_t *ret_min, uint64_t *ret_max);
void txid_put(uint64_t txid, char out[17]); /* 16 lower-case hex digits */
/* Fails: RC_INVALID unless exactly 16 hex digits. */
MUST_CHECK enum rc txid_get(const char *text, uint64_t *ret_txid, struct err *err);

#define TIME_TEXT_SIZE 32
/* RFC 3339 in UTC: "2026-01-02T03:04:05Z"; with millis: fraction with trailing zeros trimmed. */
void time_put(int64_t ms, bool millis, char out[TIME_TEXT_SIZE]);
/* RFC 3339 with any offset and up to 9 fractional digits. Fails: RC_INVALID. */
MUST_CHECK enum rc time_get(const char *text, int64_t *ret_ms, struct err *err);

/* Go syntax ("1.5s", "1h30m", "250ms", "0"); a bare integer is nanoseconds. Fails: RC_INVALID. */
MUST_CHECK enum rc duration_get(const char *text, int64_t *ret_ns, struct err *err);
void duration_put(int64_t ns, char out[32]); /* as Go prints it: "1m30s", "500ms" */
/* "5MB" = 5,000,000; "5MiB" = 5,242,880; bare number: bytes; any case, decimals, optional space.
 * Fails: RC_INVALID. */
MUST_CHECK enum rc size_get(const char *text, uint64_t *ret_bytes, struct err *err);
void size_put(uint64_t bytes, char out[32]); /* as humanize.Bytes prints: "4.1 kB" */

/* scheme://user:password@host:port/path?query; a plain path has scheme "". Percent-escapes in user
 * and password are decoded, in path they stay. */
struct url {
    char scheme[16];
    char user[128], password[256];
    char host[256];
    uint16_t port; /* 0: none given */
    char path[1024];
    char query[1024]; /* without '?' */
};
/* Fails: RC_INVALID, RC_TOO_BIG. */
MUST_CHECK enum rc url_get(const char *text, struct url *ret_url, struct err *err);
#endif
