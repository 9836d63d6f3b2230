/* spool.c -- see spool.h. */
#include "store/spool.h"
#include "base/mem.h"
#include "base/os.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_SIZE (256u << 10)

static enum rc open_nameless(int *ret_fd, struct err *err);
static enum rc spool_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);

enum rc spool_fill(struct spool *sp, const struct call *c, const struct store_body *body,
                   struct store_body *ret_body, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *chunk = mem_alloc(CHUNK_SIZE);
    uint64_t size = 0;
    if (chunk == NULL) return err_mem(err, "a temporary file");
    TRY(open_nameless(&sp->fd, err));
    for (;;) {
        size_t got = 0;
        TRY(call_check(c, err));
        TRY(body->next(body->ctx, chunk, CHUNK_SIZE, &got, err));
        if (got == 0) break;
        if (os_pwrite(sp->fd, chunk, got, size, err) != RC_OK)
            return err_wrap(err, "temporary file (TMPDIR says where)");
        size += got;
    }
    *ret_body = (struct store_body){.size = size, .read = spool_read, .ctx = sp};
    return RC_OK;
}

void spool_fini(struct spool *sp)
{
    os_closep(&sp->fd);
}

/* /var/tmp comes first: /tmp is often memory, and a snapshot may be larger than that. */
static enum rc open_nameless(int *ret_fd, struct err *err)
{
    const char *const folders[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (folders[i] == NULL || folders[i][0] == '\0') continue;
        if (os_open(folders[i], O_TMPFILE | O_RDWR, 0600, ret_fd, err) == RC_OK) return RC_OK;
    }
    return err_wrap(err, "no folder for a temporary file");
}

static enum rc spool_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err)
{
    const struct spool *sp = ctx;
    size_t got = 0;
    if (os_pread(sp->fd, dst, size, off, &got, err) != RC_OK)
        return err_wrap(err, "temporary file");
    return got == size ? RC_OK : err_set(err, RC_IO, "a temporary file shrank");
}
