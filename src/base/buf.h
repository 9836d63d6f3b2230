/*
 * buf.h -- growable bytes. A buffer may start on the caller's stack (BUF_ON) and moves to the heap
 * when it must grow. Threads: one owner.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H
#include "base/err.h"

struct buf {
    uint8_t *data;
    size_t size, cap;
    bool heap; /* data came from mem_alloc */
};

#define BUF_INIT      ((struct buf){0})
#define BUF_ON(array) ((struct buf){.data = (uint8_t *)(array), .cap = sizeof(array)})

void buf_fini(struct buf *b); /* usable with CLEANUP; leaves an empty buffer */
void buf_reset(struct buf *b); /* size 0, memory kept */
/* Make room for `more` bytes after size. Fails: RC_NO_MEM. */
MUST_CHECK enum rc buf_reserve(struct buf *b, size_t more, struct err *err);
MUST_CHECK enum rc buf_append(struct buf *b, const void *data, size_t size, struct err *err);
MUST_CHECK enum rc buf_printf(struct buf *b, struct err *err, const char *fmt, ...) FMT(3, 4);
void buf_drop_front(struct buf *b, size_t size);
#endif
