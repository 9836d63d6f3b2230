/* os.c -- see os.h. */
#include "base/os.h"
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* The injected failure is a full disk: the one that users meet, and every path must take. */
#define FAULT_ERRNO ENOSPC
#define FAILS(what) (fault_hit(FAULT_SYSCALL, what) ? (errno = FAULT_ERRNO, true) : false)

static enum rc make_dir(const char *path, unsigned mode, struct err *err);
static int name_order(const void *a, const void *b);

enum rc os_open(const char *path, int flags, unsigned mode, int *ret_fd, struct err *err)
{
    int fd = -1;
    if (!FAILS("open")) {
        do
            fd = open(path, flags | O_CLOEXEC, mode);
        while (fd < 0 && errno == EINTR);
    }
    if (fd < 0) return err_sys(err, errno, "open '%s'", path);
    *ret_fd = fd;
    return RC_OK;
}

void os_close(int fd)
{
    if (fd >= 0) close(fd);
}

void os_closep(int *fd)
{
    os_close(*fd);
    *fd = -1;
}

enum rc os_pread(int fd, void *dst, size_t size, uint64_t off, size_t *ret_size, struct err *err)
{
    size_t done = 0;
    if (FAILS("pread")) return err_sys(err, EIO, "read");
    while (done < size) {
        ssize_t n = pread(fd, (char *)dst + done, size - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_sys(err, errno, "read %zu bytes at %llu", size, (long long)off);
        if (n == 0) break;
        done += (size_t)n;
    }
    *ret_size = done;
    return RC_OK;
}

enum rc os_pwrite(int fd, const void *src, size_t size, uint64_t off, struct err *err)
{
    size_t done = 0;
    if (FAILS("pwrite")) return err_sys(err, errno, "write");
    while (done < size) {
        ssize_t n = pwrite(fd, (const char *)src + done, size - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_sys(err, errno, "write %zu bytes at %llu", size, (long long)off);
        done += (size_t)n;
    }
    return RC_OK;
}

void os_advise_stream(int fd)
{
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void os_write_behind(int fd, uint64_t off, uint64_t size)
{
    sync_file_range(fd, (off_t)off, (off_t)size, SYNC_FILE_RANGE_WRITE);
}

int64_t os_read_some(int fd, void *dst, size_t size)
{
    ssize_t n;
    do
        n = read(fd, dst, size);
    while (n < 0 && errno == EINTR);
    return n;
}

int64_t os_write_some(int fd, const void *src, size_t size)
{
    ssize_t n;
    do
        n = write(fd, src, size);
    while (n < 0 && errno == EINTR);
    return n;
}

enum rc os_fsync(int fd, struct err *err)
{
    if (FAILS("fsync") || fsync(fd) != 0) return err_sys(err, errno, "fsync");
    return RC_OK;
}

enum rc os_truncate(int fd, uint64_t size, struct err *err)
{
    if (FAILS("ftruncate") || ftruncate(fd, (off_t)size) != 0)
        return err_sys(err, errno, "truncate to %llu bytes", (unsigned long long)size);
    return RC_OK;
}

enum rc os_allocate(int fd, uint64_t size, struct err *err)
{
    struct stat st;
    if (FAILS("fallocate")) return err_sys(err, errno, "reserve space");
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size >= size) return RC_OK;
    if (fallocate(fd, 0, 0, (off_t)size) == 0) return RC_OK;
    if (errno == EOPNOTSUPP || errno == ENOSYS) return os_truncate(fd, size, err);
    return err_sys(err, errno, "reserve %llu bytes", (unsigned long long)size);
}

enum rc os_fstat(int fd, struct stat *ret_st, struct err *err)
{
    if (FAILS("fstat") || fstat(fd, ret_st) != 0) return err_sys(err, errno, "fstat");
    return RC_OK;
}

enum rc os_stat(const char *path, struct stat *ret_st, struct err *err)
{
    if (FAILS("stat") || stat(path, ret_st) != 0) return err_sys(err, errno, "stat '%s'", path);
    return RC_OK;
}

enum rc os_rename(const char *from, const char *to, struct err *err)
{
    if (FAILS("rename") || rename(from, to) != 0)
        return err_sys(err, errno, "rename '%s' to '%s'", from, to);
    return RC_OK;
}

enum rc os_rename_new(const char *from, const char *to, struct err *err)
{
    if (!FAILS("rename_new") && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return RC_OK;
    if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)
        return err_set(err, RC_UNSUPPORTED, "rename '%s': no exclusive rename here", to);
    return err_sys(err, errno, "rename '%s' to '%s'", from, to);
}

enum rc os_link(const char *from, const char *to, struct err *err)
{
    if (!FAILS("link") && link(from, to) == 0) return RC_OK;
    if (errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK)
        return err_set(err, RC_UNSUPPORTED, "link '%s': no hard links here", to);
    return err_sys(err, errno, "link '%s'", to);
}

enum rc os_unlink(const char *path, struct err *err)
{
    if (FAILS("unlink") || unlink(path) != 0) return err_sys(err, errno, "delete '%s'", path);
    return RC_OK;
}

enum rc os_mkdirs(const char *path, unsigned mode, struct err *err)
{
    char part[OS_PATH_MAX];
    struct stat st;
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof part) return err_set(err, RC_INVALID, "bad path '%s'", path);
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return RC_OK;
    memcpy(part, path, size + 1);
    for (char *p = part + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        TRY(make_dir(part, mode, err));
        *p = '/';
    }
    return make_dir(part, mode, err);
}

enum rc os_rmdir(const char *path, struct err *err)
{
    if (FAILS("rmdir") || rmdir(path) != 0) return err_sys(err, errno, "remove '%s'", path);
    return RC_OK;
}

enum rc os_fsync_dir(const char *path, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    TRY(os_open(path, O_RDONLY | O_DIRECTORY, 0, &fd, err));
    if (os_fsync(fd, err) == RC_OK) return RC_OK;
    if (err->sys == EINVAL) return RC_OK; /* a file system that cannot: nothing more to do */
    return err_wrap(err, "folder '%s'", path);
}

enum rc os_set_mtime(int fd, int64_t mtime_ms, struct err *err)
{
    struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
                            {.tv_sec = mtime_ms / 1000, .tv_nsec = (mtime_ms % 1000) * 1000000}};
    if (FAILS("futimens") || futimens(fd, t) != 0) return err_sys(err, errno, "set mtime");
    return RC_OK;
}

enum rc os_lock(int fd, struct err *err)
{
    struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!FAILS("lock") && fcntl(fd, F_OFD_SETLK, &lk) == 0) return RC_OK;
    if (errno == EACCES || errno == EAGAIN)
        return err_set(err, RC_BUSY, "locked by another process");
    return err_sys(err, errno, "lock");
}

enum rc os_list(const char *path, os_name_fn *fn, void *ctx, struct err *err)
{
    DIR *dir = FAILS("opendir") ? NULL : opendir(path);
    if (dir == NULL) return err_sys(err, errno, "list '%s'", path);
    struct buf starts = BUF_INIT;
    enum rc rc = RC_OK;
    struct dirent *e;
    while (rc == RC_OK && (errno = 0, e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *copy = mem_strdup(e->d_name);
        rc = copy ? buf_append(&starts, &copy, sizeof copy, err) : err_mem(err, "a file name");
        if (rc != RC_OK) mem_free(copy);
    }
    if (rc == RC_OK && errno != 0) rc = err_sys(err, errno, "list '%s'", path);
    closedir(dir);
    size_t count = starts.size / sizeof(char *);
    char **names = (char **)(void *)starts.data;
    if (count > 1) qsort(names, count, sizeof *names, name_order);
    for (size_t i = 0; i < count; i++) {
        if (rc == RC_OK) rc = fn(ctx, names[i], err);
        mem_free(names[i]);
    }
    buf_fini(&starts);
    return rc;
}

enum rc os_read_file(const char *path, size_t size_max, struct buf *out, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    struct stat st;
    size_t got;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(os_fstat(fd, &st, err));
    if (S_ISDIR(st.st_mode)) return err_sys(err, EISDIR, "read '%s'", path);
    if ((uint64_t)st.st_size > size_max)
        return err_set(err, RC_TOO_BIG, "'%s' is larger than %zu bytes", path, size_max);
    TRY(buf_reserve(out, (size_t)st.st_size + 1, err));
    TRY(os_pread(fd, out->data + out->size, (size_t)st.st_size, 0, &got, err));
    out->size += got;
    return RC_OK;
}

enum rc os_write_file(const char *path, const void *data, size_t size, unsigned mode,
                      struct err *err)
{
    char tmp[OS_PATH_MAX], dir[OS_PATH_MAX];
    if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp", path) >= sizeof tmp)
        return err_set(err, RC_INVALID, "path too long: '%s'", path);
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        memcpy(dir, ".", 2);
    else
        slash[slash == dir] = '\0';
    CLEANUP(os_closep) int fd = -1;
    TRY(os_open(tmp, O_WRONLY | O_CREAT | O_TRUNC, mode, &fd, err));
    enum rc rc = os_pwrite(fd, data, size, 0, err);
    if (rc == RC_OK) rc = os_fsync(fd, err);
    if (rc == RC_OK) rc = os_rename(tmp, path, err);
    if (rc == RC_OK) return os_fsync_dir(dir, err);
    unlink(tmp);
    return err_wrap(err, "write '%s'", path);
}

int64_t os_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t os_mono_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t os_mono_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void os_sleep_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        continue;
}

void os_sleep_us(int64_t us)
{
    struct timespec t = {.tv_nsec = us * 1000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

uint64_t os_random(void)
{
    uint64_t v = 0;
    if (getrandom(&v, sizeof v, 0) != sizeof v) v = (uint64_t)os_now_ms() * 0x9E3779B97F4A7C15u;
    return v;
}

int os_cpu_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int)n;
}

uint64_t os_raise_fd_limit(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) != 0) return 0;
    uint64_t before = lim.rlim_cur;
    lim.rlim_cur = lim.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &lim) == 0 ? lim.rlim_cur : before;
}

enum rc os_abspath(const char *path, char ret_path[OS_PATH_MAX], struct err *err)
{
    char cwd[OS_PATH_MAX] = "";
    if (path[0] != '/' && getcwd(cwd, sizeof cwd) == NULL) return err_sys(err, errno, "getcwd");
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    int n = snprintf(ret_path, OS_PATH_MAX, "%s%s%s", cwd, path[0] == '/' ? "" : "/", path);
    if (n >= OS_PATH_MAX) return err_set(err, RC_INVALID, "path too long: '%s'", path);
    return RC_OK;
}

static enum rc make_dir(const char *path, unsigned mode, struct err *err)
{
    char parent[OS_PATH_MAX];
    if (!FAILS("mkdir") && mkdir(path, mode) == 0) {
        snprintf(parent, sizeof parent, "%s", path);
        char *slash = strrchr(parent, '/');
        if (slash == NULL)
            memcpy(parent, ".", 2);
        else
            slash[slash == parent] = '\0';
        if (os_fsync_dir(parent, err) == RC_OK) return RC_OK;
        rmdir(path); /* else the next caller finds it there and takes it for durable */
        return err->rc;
    }
    int sys = errno;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return RC_OK;
    return err_sys(err, sys, "create folder '%s'", path);
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}
