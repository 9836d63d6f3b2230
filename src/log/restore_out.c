/*
 * restore_out.c -- see restore_out.h.
 *
 * Two restores to one path must not mix: the second could truncate the first one's file, or rename
 * its own half of a file. So whoever writes <path>.tmp holds a lock on it from its creation to its
 * rename, and a lock counts only while the locked file still has that name.
 */
#include "log/restore_out.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define STALE_TRIES 10

static void folder_of(const char *path, char dir[OS_PATH_MAX]);
static enum rc refuse_data(const char *path, const char *suffix, const char *why, struct err *err);
static enum rc create_new(struct out_file *out, unsigned mode, struct err *err);
static enum rc remove_stale(const char *tmp, struct err *err);
static enum rc lock_named(int fd, const char *tmp, struct err *err);

enum rc out_create(struct out_file *out, const char *path, unsigned mode, struct err *err)
{
    char dir[OS_PATH_MAX];
    out->path = path;
    if ((size_t)snprintf(out->tmp, sizeof out->tmp, "%s.tmp", path) >= sizeof out->tmp - 8)
        return err_set(err, RC_INVALID, "output path too long: '%s'", path);
    TRY(refuse_data(path, "", "restoring would overwrite it", err));
    TRY(refuse_data(path, "-wal", "SQLite would replay it into the restored database", err));
    TRY(refuse_data(path, "-journal", "SQLite would roll it back into the restored database", err));
    folder_of(path, dir);
    TRY(os_mkdirs(dir, 0700, err));
    for (int i = 0; i < STALE_TRIES; i++) {
        enum rc rc = create_new(out, mode, err);
        if (rc != RC_CONFLICT) return rc;
        TRY(remove_stale(out->tmp, err));
    }
    return err_set(err, RC_BUSY, "'%s' is being written by another restore", out->tmp);
}

enum rc out_commit(struct out_file *out, struct err *err)
{
    char dir[OS_PATH_MAX];
    if (os_fsync(out->fd, err) != RC_OK) return err_wrap(err, "'%s'", out->tmp);
    TRY(os_rename(out->tmp, out->path, err));
    os_closep(&out->fd);
    folder_of(out->path, dir);
    return os_fsync_dir(dir, err);
}

void out_discard(struct out_file *out)
{
    struct err ignored;
    if (out->fd < 0) return;
    /* The failure that brought us here is the one to report. */
    (void)!os_unlink(out->tmp, &ignored);
    os_closep(&out->fd);
}

static void folder_of(const char *path, char dir[OS_PATH_MAX])
{
    snprintf(dir, OS_PATH_MAX, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        memcpy(dir, ".", 2);
    else
        slash[slash == dir] = '\0';
}

static enum rc refuse_data(const char *path, const char *suffix, const char *why, struct err *err)
{
    char name[OS_PATH_MAX + 16];
    struct stat st;
    snprintf(name, sizeof name, "%s%s", path, suffix);
    enum rc rc = os_stat(name, &st, err);
    if (rc == RC_NOT_FOUND || (rc == RC_OK && S_ISREG(st.st_mode) && st.st_size == 0)) return RC_OK;
    if (rc != RC_OK) return rc;
    return err_set(err, RC_CONFLICT, "'%s' exists: %s; move it away first", name, why);
}

static enum rc create_new(struct out_file *out, unsigned mode, struct err *err)
{
    TRY(os_open(out->tmp, O_RDWR | O_CREAT | O_EXCL, mode ? mode : 0600, &out->fd, err));
    enum rc rc = lock_named(out->fd, out->tmp, err);
    if (rc == RC_OK) return RC_OK;
    if (rc == RC_BUSY)
        os_closep(&out->fd); /* it is the other's now */
    else
        out_discard(out);
    return rc;
}

static enum rc remove_stale(const char *tmp, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    enum rc rc = os_open(tmp, O_RDWR, 0, &fd, err);
    if (rc == RC_NOT_FOUND) return RC_OK;
    if (rc == RC_OK) rc = lock_named(fd, tmp, err);
    return rc == RC_OK ? os_unlink(tmp, err) : rc;
}

/* Lock the file, and make sure that it is the one that has the name. */
static enum rc lock_named(int fd, const char *tmp, struct err *err)
{
    struct stat mine, named;
    enum rc rc = os_lock(fd, err);
    if (rc == RC_OK) {
        TRY(os_fstat(fd, &mine, err));
        rc = os_stat(tmp, &named, err);
        if (rc == RC_NOT_FOUND || (rc == RC_OK && mine.st_ino != named.st_ino)) rc = RC_BUSY;
    }
    if (rc == RC_BUSY)
        return err_set(err, RC_BUSY, "'%s' is being written by another restore", tmp);
    return rc;
}
