/*
 * base64.h -- base64url (RFC 4648, section 5), strict: no padding, no blanks, unused bits zero, so
 * that each sequence of bytes has one text. Pure.
 */
#ifndef FMT_BASE64_H
#define FMT_BASE64_H
#include "base/buf.h"

#define BASE64URL_SIZE(size)  (((size)*4 + 2) / 3) /* without padding */
#define BASE64URL_BYTES(size) ((size)*3 / 4)

/* out: BASE64URL_BYTES(size) bytes. False: not base64url. */
bool base64url_get(const char *text, size_t size, uint8_t *out);
/* Appended. Fails: RC_NO_MEM. */
MUST_CHECK enum rc base64url_put(struct buf *b, const void *data, size_t size, struct err *err);
#endif
