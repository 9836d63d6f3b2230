/*
 * http_spill.c -- bodies that are too large for memory and that opts.spill allows: into a file,
 * piece by piece, on the loop's thread. See http.h.
 */
#include "base/mem.h"
#include "base/os.h"
#include "server/http_intern.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct http_spill {
    int fd;
    uint64_t size;
    char path[OS_PATH_MAX];
};

static enum rc open_file(struct http_req *r, const char *folder, struct err *err);

/* Closed before anybody opens it as a database: closing it later would take all of this process's
 * locks away from it. */
const char *http_body_file(struct http_req *r, uint64_t *ret_size)
{
    if (r->spill == NULL) return NULL;
    os_close(r->spill->fd);
    r->spill->fd = -1;
    *ret_size = r->spill->size;
    return r->spill->path;
}

bool http__spill_begin(struct http_req *r)
{
    struct http_server *s = r->conn->server;
    struct err ignored;
    const char *folder = s->opts.spill != NULL ? s->opts.spill(s->opts.ctx, r) : NULL;
    if (folder == NULL) return false;
    r->spill = mem_calloc(1, sizeof *r->spill);
    if (r->spill == NULL) return false;
    r->spill->fd = -1;
    if (open_file(r, folder, &ignored) == RC_OK && http__spill_add(r, r->body.data, r->body.size)) {
        buf_fini(&r->body);
        atomic_fetch_sub(&s->body_sum, r->body_counted);
        r->body_counted = 0;
        return true;
    }
    http__spill_free(r);
    return false;
}

bool http__spill_add(struct http_req *r, const void *data, size_t size)
{
    struct http_spill *sp = r->spill;
    struct err ignored;
    if (size > r->conn->server->opts.spill_max - sp->size) return false;
    if (size > 0 && os_pwrite(sp->fd, data, size, sp->size, &ignored) != RC_OK) return false;
    sp->size += size;
    atomic_store_explicit(&r->conn->body_size, sp->size, memory_order_relaxed);
    return true;
}

void http__spill_free(struct http_req *r)
{
    struct err ignored;
    if (r->spill == NULL) return;
    os_close(r->spill->fd);
    if (r->spill->path[0] != '\0') (void)!os_unlink(r->spill->path, &ignored);
    mem_free(r->spill);
    r->spill = NULL;
}

static enum rc open_file(struct http_req *r, const char *folder, struct err *err)
{
    struct http_spill *sp = r->spill;
    int n = snprintf(sp->path, sizeof sp->path, "%s/body.%016llx", folder,
                     (unsigned long long)os_random());
    enum rc rc = RC_OK;
    if (n < 0 || (size_t)n >= sizeof sp->path) rc = err_set(err, RC_INVALID, "a path is too long");
    if (rc == RC_OK) rc = os_open(sp->path, O_RDWR | O_CREAT | O_EXCL, 0600, &sp->fd, err);
    if (rc != RC_OK) sp->path[0] = '\0';
    return rc;
}
