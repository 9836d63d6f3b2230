/* admin_files.c -- databases in and out as files: import of a SQLite file or an SQL dump, export.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "server/admin_intern.h"

#define MAGIC      "SQLite format 3" /* with its NUL */
#define CHUNK      (1u << 20)
#define MAX_IMPORT (UINT64_C(16) << 30)

static enum rc name_file(struct admin *a, struct err *err);
static enum rc new_path(struct admin *a, char path[OS_PATH_MAX], struct err *err);
static enum rc is_dump(const char *path, bool *ret_yes, struct err *err);
static enum rc copy_file(const char *from, const char *to, uint64_t max, struct err *err);
static enum rc check_url(const struct server_opts *o, const char *url, const char **ret_path,
                         struct err *err);
static bool is_below(const char *path, const char *folder);
static enum rc send_bytes(void *ctx, const void *data, size_t size, struct err *err);

enum rc admin_import(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    char path[OS_PATH_MAX];
    uint64_t file_size;
    size_t size;
    bool dump = false, exists = false;
    struct tenant_info info;
    struct err ignored;
    (void)out;
    exists = o->ops->info(o->tenants, a->name, &info, &ignored) == RC_OK;
    if (exists) return err_set(err, RC_CONFLICT, "Namespace `%s` already exists", a->name);
    const char *spilled = http_body_file(a->http, &file_size);
    const void *body = http_body(a->http, &size);
    if (spilled == NULL && size == 0)
        return err_set(err, RC_INVALID, "the body must be a SQLite file or an SQL dump");
    if (spilled == NULL) {
        TRY(new_path(a, path, err));
        TRY(os_write_file(path, body, size, 0600, err));
        spilled = path;
    }
    if (is_dump(spilled, &dump, err) != RC_OK) {
        (void)!os_unlink(spilled, &ignored);
        return err->rc;
    }
    return o->ops->import(o->tenants, a->name, NULL, spilled, dump, err);
}

enum rc admin_import_url(struct admin *a, const char *url, const struct tenant_conf *conf,
                         struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    char copy[OS_PATH_MAX];
    const char *path = NULL;
    bool dump = false;
    struct err ignored;
    TRY(check_url(o, url, &path, err));
    TRY(new_path(a, copy, err));
    uint64_t max = o->import_max != 0 ? o->import_max : MAX_IMPORT;
    enum rc rc = copy_file(path, copy, max, err);
    if (rc == RC_OK) rc = is_dump(copy, &dump, err);
    if (rc == RC_OK) return o->ops->import(o->tenants, a->name, conf, copy, dump, err);
    (void)!os_unlink(copy, &ignored);
    return err_wrap(err, "dump_url");
}

enum rc admin_export(struct admin *a, struct buf *out, struct err *err)
{
    const struct server_opts *o = &a->server->opts;
    (void)out;
    TRY(o->ops->image(o->tenants, a->name, send_bytes, a, err));
    /* An empty database has no bytes. */
    return a->streaming ? RC_OK : name_file(a, err);
}

static enum rc name_file(struct admin *a, struct err *err)
{
    char text[AUTH_NAME_MAX + 48];
    snprintf(text, sizeof text, "attachment; filename=\"%s.db\"", a->name);
    a->type = "application/vnd.sqlite3";
    return http_add_header(a->http, "Content-Disposition", text, err);
}

static enum rc new_path(struct admin *a, char path[OS_PATH_MAX], struct err *err)
{
    const char *folder = a->server->opts.spill_dir;
    if (folder == NULL) return err_set(err, RC_UNSUPPORTED, "this server imports no files");
    int n =
        snprintf(path, OS_PATH_MAX, "%s/import.%016llx", folder, (unsigned long long)os_random());
    if (n < 0 || n >= OS_PATH_MAX) return err_set(err, RC_INVALID, "a path is too long");
    return RC_OK;
}

static enum rc is_dump(const char *path, bool *ret_yes, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    char head[sizeof MAGIC];
    size_t got = 0;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(os_pread(fd, head, sizeof head, 0, &got, err));
    *ret_yes = got < sizeof head || memcmp(head, MAGIC, sizeof head) != 0;
    return RC_OK;
}

static enum rc copy_file(const char *from, const char *to, uint64_t max, struct err *err)
{
    CLEANUP(os_closep) int in = -1;
    CLEANUP(os_closep) int out = -1;
    CLEANUP(mem_freep) void *chunk = mem_alloc(CHUNK);
    size_t got = CHUNK;
    struct stat st;
    if (chunk == NULL) return err_mem(err, "a copy");
    TRY(os_open(from, O_RDONLY | O_NONBLOCK, 0, &in, err));
    TRY(os_fstat(in, &st, err));
    if (!S_ISREG(st.st_mode)) return err_set(err, RC_INVALID, "'%s' is no file", from);
    if ((uint64_t)st.st_size > max)
        return err_set(err, RC_TOO_BIG, "'%s' has more than %llu bytes", from,
                       (unsigned long long)max);
    TRY(os_open(to, O_WRONLY | O_CREAT | O_EXCL, 0600, &out, err));
    for (uint64_t off = 0; got == CHUNK; off += got) {
        TRY(os_pread(in, chunk, CHUNK, off, &got, err));
        if (off + got > max) return err_set(err, RC_TOO_BIG, "'%s' is growing", from);
        TRY(os_pwrite(out, chunk, got, off, err));
    }
    return RC_OK;
}

/* Whoever administers databases does not thereby read all files of the machine, nor fetch from the
 * network that the server is in. */
static enum rc check_url(const struct server_opts *o, const char *url, const char **ret_path,
                         struct err *err)
{
    if (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0)
        return err_set(err, RC_UNSUPPORTED,
                       "dump_url: this server fetches nothing from the network; send the dump as "
                       "the body of PUT /v1/namespaces/NAME/import");
    if (strncasecmp(url, "file:/", 6) != 0)
        return err_set(err, RC_INVALID, "dump_url must begin with file:/");
    const char *path = url + 5;
    while (path[0] == '/' && path[1] == '/')
        path++;
    if (o->import_dir == NULL)
        return err_set(err, RC_UNSUPPORTED,
                       "dump_url: no folder for imports is configured (-import-dir); send the dump "
                       "as the body of PUT /v1/namespaces/NAME/import");
    if (!is_below(path, o->import_dir))
        return err_set(err, RC_DENIED, "dump_url: '%.300s' is not in the folder for imports", path);
    *ret_path = path;
    return RC_OK;
}

static bool is_below(const char *path, const char *folder)
{
    size_t size = strlen(folder);
    while (size > 0 && folder[size - 1] == '/')
        size--;
    if (strncmp(path, folder, size) != 0 || path[size] != '/') return false;
    for (const char *p = path; (p = strstr(p, "..")) != NULL; p++)
        if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0')) return false;
    return true;
}

static enum rc send_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    struct admin *a = ctx;
    if (!a->streaming) {
        TRY(name_file(a, err));
        TRY(http_stream_begin(a->http, 200, a->type, err));
        a->streaming = true;
    }
    return http_stream_write(a->http, data, size, false, err);
}
