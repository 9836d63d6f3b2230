/* tenants_disk.c -- paths of tenants, and what is done with whole folders; see tenants_intern.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "node/tenants_intern.h"

#define COPY_SIZE (1u << 20)

static enum rc delete_one(void *ctx, const char *name, struct err *err);

void tenants_path(const struct tenants *ts, const char *name, enum tenants_file which,
                  char ret_path[OS_PATH_MAX])
{
    static const char *const below[] = {
        [TENANT_FOLDER] = "",         [TENANT_DATA] = "/data", [TENANT_CONF] = "/conf.json",
        [TENANT_META] = "/log-state", [TENANT_MARK] = "",
    };
    snprintf(ret_path, OS_PATH_MAX, "%s/%s/%s%s", ts->dir,
             which == TENANT_MARK ? "open" : "tenants", name, below[which]);
}

/* Before any path is built with it. */
enum rc tenants_check_name(const char *name, bool create, struct err *err)
{
    return auth_check_name(name, strlen(name), create, err);
}

enum rc tenants_no_such(struct err *err, const char *name)
{
    return err_set(err, RC_NOT_FOUND, "Namespace `%s` doesn't exist", name);
}

enum rc tenants_exists(const struct tenants *ts, const char *name, bool *ret_yes, struct err *err)
{
    static const enum tenants_file either[] = {TENANT_CONF, TENANT_DATA};
    char path[OS_PATH_MAX];
    struct stat st;
    *ret_yes = false;
    for (size_t i = 0; i < 2 && !*ret_yes; i++) {
        tenants_path(ts, name, either[i], path);
        enum rc rc = os_stat(path, &st, err);
        if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
        *ret_yes = rc == RC_OK;
    }
    return RC_OK;
}

enum rc tenants_mark(const struct tenants *ts, const char *name, struct err *err)
{
    char mark[OS_PATH_MAX], folder[OS_PATH_MAX];
    CLEANUP(os_closep) int fd = -1;
    tenants_path(ts, name, TENANT_MARK, mark);
    enum rc rc = os_open(mark, O_WRONLY | O_CREAT | O_EXCL, 0600, &fd, err);
    if (rc == RC_CONFLICT) return RC_OK;
    TRY(rc);
    snprintf(folder, sizeof folder, "%s/open", ts->dir);
    return os_fsync_dir(folder, err);
}

void tenants_tmp(const struct tenants *ts, const char *prefix, char ret_path[OS_PATH_MAX])
{
    snprintf(ret_path, OS_PATH_MAX, "%s/tmp/%s%016" PRIx64, ts->dir, prefix, os_random());
}

enum rc tenants_mkdir(const char *path, struct err *err)
{
    return os_mkdirs(path, 0700, err);
}

/* A symbolic link is a name like another: what it leads to is not ours. */
enum rc tenants_delete_tree(const char *path, struct err *err)
{
    enum rc rc = os_unlink(path, err);
    if (rc == RC_OK || err->sys == ENOENT) return RC_OK;
    if (err->sys != EISDIR && err->sys != EPERM) return rc;
    rc = os_list(path, delete_one, (char *)(uintptr_t)path, err);
    if (rc == RC_OK) rc = os_rmdir(path, err);
    return rc;
}

static enum rc delete_one(void *ctx, const char *name, struct err *err)
{
    CLEANUP(mem_freep) char *path = mem_printf("%s/%s", (const char *)ctx, name);
    if (path == NULL) return err_mem(err, "a path");
    return tenants_delete_tree(path, err);
}

/* A folder is never renamed onto one that holds something, whatever the file system offers. */
enum rc tenants_put_in_place(const struct tenants *ts, const char *tmp, const char *name,
                             struct err *err)
{
    char to[OS_PATH_MAX], parent[OS_PATH_MAX];
    snprintf(parent, sizeof parent, "%s/tenants", ts->dir);
    tenants_path(ts, name, TENANT_FOLDER, to);
    TRY(os_fsync_dir(tmp, err));
    enum rc rc = os_rename_new(tmp, to, err);
    if (rc == RC_UNSUPPORTED) rc = os_rename(tmp, to, err);
    if (rc != RC_OK && (err->sys == EEXIST || err->sys == ENOTEMPTY || err->sys == ENOTDIR))
        return err_set(err, RC_CONFLICT, "the folder of namespace `%s` exists already", name);
    TRY(rc);
    return os_fsync_dir(parent, err);
}

enum rc tenants_fsync_file(const char *path, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    if (os_fsync(fd, err) == RC_OK) return RC_OK;
    return err_wrap(err, "'%s'", path);
}

enum rc tenants_copy_file(const char *from, const char *to, struct err *err)
{
    CLEANUP(os_closep) int in = -1;
    CLEANUP(os_closep) int out = -1;
    CLEANUP(mem_freep) void *chunk = mem_alloc(COPY_SIZE);
    size_t got = COPY_SIZE;
    if (chunk == NULL) return err_mem(err, "a copy");
    TRY(os_open(from, O_RDONLY, 0, &in, err));
    TRY(os_open(to, O_WRONLY | O_CREAT | O_EXCL, 0600, &out, err));
    os_advise_stream(in);
    for (uint64_t off = 0; got == COPY_SIZE; off += got) {
        TRY(os_pread(in, chunk, COPY_SIZE, off, &got, err));
        TRY(os_pwrite(out, chunk, got, off, err));
    }
    return os_fsync(out, err);
}

enum rc tenants_build(const struct tenants *ts, const struct tenants_conf *c,
                      char ret_path[OS_PATH_MAX], struct err *err)
{
    char conf[OS_PATH_MAX + 16];
    struct err ignored;
    tenants_tmp(ts, "", ret_path);
    TRY(tenants_mkdir(ret_path, err));
    snprintf(conf, sizeof conf, "%s/conf.json", ret_path);
    if (tenants_conf_save(conf, c, err) == RC_OK) return RC_OK;
    (void)!tenants_delete_tree(ret_path, &ignored); /* else the next start does */
    return err->rc;
}
