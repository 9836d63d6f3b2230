/*
 * mem.h -- allocation that may fail, is counted, and can be made to fail (fault.h).
 *
 * Lifetimes: scope (CLEANUP on a local), object (x_new/x_free). Sizes that come from outside are
 * checked against a limit before they get here. Threads: any.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H
#include "base/err.h"

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* NULL when memory is short (or size overflows); zeroed by mem_calloc. size 0 is treated as 1. */
MUST_CHECK void *mem_alloc(size_t size);
MUST_CHECK void *mem_calloc(size_t count, size_t size);
MUST_CHECK void *mem_realloc(void *p, size_t size); /* on NULL the old block lives on */
MUST_CHECK char *mem_strdup(const char *s);
MUST_CHECK char *mem_printf(const char *fmt, ...) FMT(1, 2);
void mem_free(void *p); /* NULL is fine */
/* For CLEANUP: frees what the local pointer points at. */
void mem_freep(void *pointer_to_pointer);

void mem_wipe(void *p, size_t size); /* zero, also when nobody reads it again: secrets */

/* RC_NO_MEM with a text that names the thing. */
enum rc err_mem(struct err *err, const char *what);
/* Give free memory back to the system. Takes some milliseconds. */
void mem_trim(void);
uint64_t mem_alloc_count(void); /* allocations since the start; tests assert that hot paths add 0 */
#endif
