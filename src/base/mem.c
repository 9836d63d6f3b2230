/* mem.c -- see mem.h. The only caller of malloc in the program. */
#include "base/mem.h"
#include "base/fault.h"
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t allocs;

static bool refuse(void)
{
    atomic_fetch_add_explicit(&allocs, 1, memory_order_relaxed);
    return fault_hit(FAULT_ALLOC, "alloc");
}

void *mem_alloc(size_t size)
{
    if (refuse()) return NULL;
    return malloc(size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    if (refuse()) return NULL;
    return calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *p, size_t size)
{
    if (refuse()) return NULL;
    return realloc(p, size ? size : 1);
}

char *mem_strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    char *copy = mem_alloc(size);
    if (copy != NULL) memcpy(copy, s, size);
    return copy;
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = n < 0 ? NULL : mem_alloc((size_t)n + 1);
    if (text != NULL) vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

void mem_free(void *p)
{
    free(p);
}

void mem_freep(void *pointer_to_pointer)
{
    void **p = pointer_to_pointer;
    free(*p);
    *p = NULL;
}

void mem_wipe(void *p, size_t size)
{
    explicit_bzero(p, size);
}

enum rc err_mem(struct err *err, const char *what)
{
    return err_set(err, RC_NO_MEM, "out of memory for %s", what);
}

void mem_trim(void)
{
    malloc_trim(0);
}

uint64_t mem_alloc_count(void)
{
    return atomic_load(&allocs);
}
