/* buf.c -- see buf.h. */
#include "base/buf.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_fini(struct buf *b)
{
    if (b->heap) mem_free(b->data);
    *b = BUF_INIT;
}

void buf_reset(struct buf *b)
{
    b->size = 0;
}

enum rc buf_reserve(struct buf *b, size_t more, struct err *err)
{
    if (more <= b->cap - b->size) return RC_OK;
    if (more > SIZE_MAX / 4 || b->size > SIZE_MAX / 4) return err_mem(err, "a buffer");
    size_t cap = b->cap < 256 ? 256 : b->cap;
    while (cap - b->size < more) cap *= 2;
    uint8_t *data = b->heap ? mem_realloc(b->data, cap) : mem_alloc(cap);
    if (data == NULL) return err_mem(err, "a buffer");
    if (!b->heap && b->size > 0) memcpy(data, b->data, b->size);
    b->data = data;
    b->cap = cap;
    b->heap = true;
    return RC_OK;
}

enum rc buf_append(struct buf *b, const void *data, size_t size, struct err *err)
{
    if (size == 0) return RC_OK;
    TRY(buf_reserve(b, size, err));
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return RC_OK;
}

enum rc buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) return err_set(err, RC_INVALID, "bad format");
    TRY(buf_reserve(b, (size_t)n + 1, err));
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->size, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->size += (size_t)n;
    return RC_OK;
}

void buf_drop_front(struct buf *b, size_t size)
{
    ASSERT(size <= b->size);
    memmove(b->data, b->data + size, b->size - size);
    b->size -= size;
}
