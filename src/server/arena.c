/*
 * arena.c -- memory of one request (hrana.h): pieces are cut from a block until it is used up, then
 * comes a block that is at least twice as large. Nothing is given back one by one.
 *
 * After a reset the newest block stays: it is the largest one, so that a connection whose requests
 * are alike soon works in one block, without allocations. A block beyond KEEP_MAX goes back: one
 * large request must not cost memory for as long as its connection lives.
 */
#include "base/mem.h"
#include "server/hrana_intern.h"
#include <string.h>

#define FIRST_SIZE 4096u
#define KEEP_MAX   (1u << 20)
#define ALIGN      16u

struct block {
    struct block *older;
    size_t cap, used; /* bytes after this header */
};
_Static_assert(sizeof(struct block) % 8 == 0, "what follows is aligned by hand");
struct arena {
    struct block *newest;
    size_t bytes_max, bytes; /* all blocks */
};

static enum rc block_add(struct arena *a, size_t need, struct err *err);
static uint8_t *block_at(struct block *b, size_t off);

enum rc arena_new(size_t bytes_max, struct arena **ret_a, struct err *err)
{
    struct arena *a = mem_calloc(1, sizeof *a);
    if (a == NULL) return err_mem(err, "a request");
    a->bytes_max = bytes_max;
    *ret_a = a;
    return RC_OK;
}

void arena_free(struct arena *a)
{
    if (a == NULL) return;
    while (a->newest != NULL) {
        struct block *older = a->newest->older;
        mem_free(a->newest);
        a->newest = older;
    }
    mem_free(a);
}

void arena_reset(struct arena *a)
{
    struct block *keep = a->newest;
    if (keep == NULL) return;
    if (keep->cap > KEEP_MAX) keep = NULL;
    for (struct block *b = a->newest, *older; b != NULL; b = older) {
        older = b->older;
        if (b != keep) mem_free(b);
    }
    a->newest = keep;
    a->bytes = 0;
    if (keep != NULL) {
        keep->older = NULL;
        keep->used = 0;
        a->bytes = keep->cap;
    }
}

enum rc arena_take(struct arena *a, size_t size, void **ret_p, struct err *err)
{
    if (size > a->bytes_max)
        return err_set(err, RC_TOO_BIG, "the request needs more than %zu bytes of memory",
                       a->bytes_max);
    size_t need = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (a->newest == NULL || need > a->newest->cap - a->newest->used) TRY(block_add(a, need, err));
    *ret_p = memset(block_at(a->newest, a->newest->used), 0, size);
    a->newest->used += need;
    return RC_OK;
}

enum rc arena_room(struct arena *a, void *pointer_to_array, size_t count, size_t *cap, size_t size,
                   struct err *err)
{
    if (count < *cap) return RC_OK;
    void **array = pointer_to_array, *larger;
    size_t more = *cap == 0 ? 4 : *cap * 2;
    TRY(arena_take(a, more * size, &larger, err));
    if (count > 0) memcpy(larger, *array, count * size);
    *array = larger;
    *cap = more;
    return RC_OK;
}

enum rc arena_text(struct arena *a, const void *data, size_t size, const char **ret_text,
                   struct err *err)
{
    void *copy;
    TRY(arena_take(a, size + 1, &copy, err));
    if (size > 0) memcpy(copy, data, size);
    *ret_text = copy;
    return RC_OK;
}

static enum rc block_add(struct arena *a, size_t need, struct err *err)
{
    size_t left = a->bytes_max - a->bytes, cap = FIRST_SIZE;
    if (a->newest != NULL && a->newest->cap >= FIRST_SIZE / 2) cap = 2 * a->newest->cap;
    if (cap < need) cap = need;
    if (cap > left) cap = left;
    if (cap < need)
        return err_set(err, RC_TOO_BIG, "the request needs more than %zu bytes of memory",
                       a->bytes_max);
    struct block *b = mem_alloc(sizeof *b + ALIGN + cap);
    if (b == NULL) return err_mem(err, "a request");
    *b = (struct block){.older = a->newest, .cap = cap};
    a->newest = b;
    a->bytes += cap;
    return RC_OK;
}

static uint8_t *block_at(struct block *b, size_t off)
{
    uintptr_t start = (uintptr_t)(b + 1);
    return (uint8_t *)(b + 1) + (ALIGN - start % ALIGN) % ALIGN + off;
}
