/*
 * record.c -- a library for LD_PRELOAD that writes down every change below a folder; see record.h.
 *
 * One lock makes one order of everything: a change and its record happen together. Only an fsync
 * waits without it. The calls go straight to the kernel, so there is no order of loading to mind.
 * fsync itself is left out: what it would have done is decided by whoever reads the log.
 *
 * What is not intercepted must not change a file below the folder; imports.c has the list, and
 * compares it with what the program imports.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "record.h"

#define FD_MAX    65536
#define NAME_SIZE 4096
#define EXPORT    __attribute__((visibility("default")))

enum { FD_FILE = 1, FD_SHM = 2, FD_LIES = 4 };
static atomic_uchar kinds[FD_MAX]; /* of descriptors below the folder; 0: another one */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[NAME_SIZE];
static size_t root_size;
static const char *lie = "";
static uint64_t syncs;
static unsigned fsync_us;

static const char *below(const char *path, char full[NAME_SIZE]);
static void put(enum record_kind kind, int fd, uint64_t a, const void *data, size_t size);
static void put_names(enum record_kind kind, uint64_t a, const char *from, const char *to);
static void unknown(const char *what);
static int kind_of(int fd);
static bool lies(const char *name, bool is_folder);
static int open_it(int dir, const char *path, int flags, mode_t mode);
static ssize_t write_it(int fd, const struct iovec *iov, int count, bool at_end, off_t off);
static int sync_it(int fd);
static int pair(enum record_kind kind, const char *from, const char *to, unsigned flags);
static int single(enum record_kind kind, const char *path, mode_t mode);
static void *map_it(void *at, size_t size, int prot, int flags, int fd, off_t off);

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv(POWER_ROOT), *to = getenv(POWER_LOG);
    const char *us = getenv(POWER_FSYNC_US);
    if (folder == NULL || to == NULL || strlen(folder) >= sizeof root) return;
    if (getenv(POWER_LIE) != NULL) lie = getenv(POWER_LIE);
    fsync_us = us != NULL ? (unsigned)strtoul(us, NULL, 10) : 0;
    root_size = strlen(folder);
    memcpy(root, folder, root_size + 1);
    int fd =
        (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fd < 0 ? -1 : (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
    if (log_fd < 0) _exit(126);
}

/* ---- what the program calls ---- */

EXPORT int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_it(AT_FDCWD, path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_it(AT_FDCWD, path, flags, mode);
}

EXPORT int __open_2(const char *path, int flags)
{
    return open_it(AT_FDCWD, path, flags, 0);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return open_it(AT_FDCWD, path, flags, 0);
}

EXPORT int close(int fd)
{
    if (kind_of(fd) == 0) return (int)syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    put(RECORD_CLOSE, fd, 0, NULL, 0);
    atomic_store(&kinds[fd], 0);
    int rc = (int)syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return rc;
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec one = {(void *)(uintptr_t)data, size};
    return kind_of(fd) == 0 ? syscall(SYS_write, fd, data, size) : write_it(fd, &one, 1, true, 0);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off64_t off)
{
    struct iovec one = {(void *)(uintptr_t)data, size};
    return kind_of(fd) == 0 ? syscall(SYS_pwrite64, fd, data, size, off)
                            : write_it(fd, &one, 1, false, off);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t off)
{
    return pwrite64(fd, data, size, off);
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
    return kind_of(fd) == 0 ? syscall(SYS_writev, fd, iov, count)
                            : write_it(fd, iov, count, true, 0);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t off)
{
    return kind_of(fd) == 0 ? syscall(SYS_pwritev, fd, iov, count, off, 0)
                            : write_it(fd, iov, count, false, off);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t off)
{
    return pwritev64(fd, iov, count, off);
}

EXPORT int ftruncate64(int fd, off64_t size)
{
    if (kind_of(fd) == 0) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_ftruncate, fd, size);
    if (rc == 0) put(RECORD_TRUNCATE, fd, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return rc;
}

EXPORT int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

EXPORT int fallocate64(int fd, int mode, off64_t off, off64_t size)
{
    if (kind_of(fd) == 0) return (int)syscall(SYS_fallocate, fd, mode, off, size);
    pthread_mutex_lock(&lock);
    int rc = (int)syscall(SYS_fallocate, fd, mode, off, size);
    if (rc == 0 && mode != 0) unknown("fallocate with a mode");
    if (rc == 0) put(RECORD_EXTEND, fd, (uint64_t)(off + size), NULL, 0);
    pthread_mutex_unlock(&lock);
    return rc;
}

EXPORT int fallocate(int fd, int mode, off_t off, off_t size)
{
    return fallocate64(fd, mode, off, size);
}

EXPORT int posix_fallocate64(int fd, off64_t off, off64_t size)
{
    return fallocate64(fd, 0, off, size) == 0 ? 0 : errno;
}

EXPORT int posix_fallocate(int fd, off_t off, off_t size)
{
    return posix_fallocate64(fd, off, size);
}

EXPORT int fsync(int fd)
{
    return sync_it(fd);
}

EXPORT int fdatasync(int fd)
{
    return sync_it(fd);
}

/* A hint that promises nothing. */
EXPORT int sync_file_range(int fd, off64_t off, off64_t size, unsigned flags)
{
    (void)fd, (void)off, (void)size, (void)flags;
    return 0;
}

EXPORT int rename(const char *from, const char *to)
{
    return pair(RECORD_RENAME, from, to, 0);
}

EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    if (from_dir == AT_FDCWD && to_dir == AT_FDCWD && (flags & ~(unsigned)RENAME_NOREPLACE) == 0)
        return pair(RECORD_RENAME, from, to, flags);
    unknown("renameat2 with a folder or a flag");
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

EXPORT int link(const char *from, const char *to)
{
    return pair(RECORD_LINK, from, to, 0);
}

EXPORT int unlink(const char *path)
{
    return single(RECORD_UNLINK, path, 0);
}

EXPORT int rmdir(const char *path)
{
    return single(RECORD_RMDIR, path, 0);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    return single(RECORD_MKDIR, path, mode);
}

/* A mapping that can be written would change the file unseen. The wal-index is one, and is worth
 * nothing after a power failure. */
EXPORT void *mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t off)
{
    return map_it(at, size, prot, flags, fd, off);
}

EXPORT void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
    return map_it(at, size, prot, flags, fd, off);
}

/* ---- how it is done ---- */

/* The part of the path below the folder ("" for itself), or NULL. */
static const char *below(const char *path, char full[NAME_SIZE])
{
    if (log_fd < 0) return NULL;
    if (path[0] != '/') {
        if (getcwd(full, NAME_SIZE) == NULL) return NULL;
        size_t size = strlen(full);
        if ((size_t)snprintf(full + size, NAME_SIZE - size, "/%s", path) >= NAME_SIZE - size)
            return NULL;
    } else if ((size_t)snprintf(full, NAME_SIZE, "%s", path) >= NAME_SIZE) {
        return NULL;
    }
    if (strncmp(full, root, root_size) != 0) return NULL;
    const char *rest = full + root_size;
    if (*rest != '/' && *rest != '\0') return NULL;
    while (*rest == '/')
        rest++;
    return rest;
}

static void put(enum record_kind kind, int fd, uint64_t a, const void *data, size_t size)
{
    struct record r = {RECORD_MAGIC, (uint32_t)kind, fd, (uint32_t)size, a};
    char zeros[8] = {0};
    struct iovec iov[3] = {{&r, sizeof r}, {(void *)(uintptr_t)data, size}, {zeros, -size % 8}};
    int sys = errno;
    if (syscall(SYS_writev, log_fd, iov, 3) != (long)RECORD_SPACE(size)) _exit(125);
    errno = sys;
}

static void put_names(enum record_kind kind, uint64_t a, const char *from, const char *to)
{
    char both[2 * NAME_SIZE];
    size_t size = strlen(from) + 1;
    memcpy(both, from, size);
    if (to != NULL) {
        memcpy(both + size, to, strlen(to) + 1);
        size += strlen(to) + 1;
    }
    put(kind, -1, a, both, size);
}

static void unknown(const char *what)
{
    if (log_fd >= 0) put(RECORD_UNKNOWN, -1, 0, what, strlen(what) + 1);
}

static int kind_of(int fd)
{
    return fd < 0 || fd >= FD_MAX ? 0 : atomic_load(&kinds[fd]);
}

static bool lies(const char *name, bool is_folder)
{
    if (strcmp(lie, "all") == 0) return true;
    if (strcmp(lie, "dir") == 0 || strcmp(lie, "file") == 0) return (*lie == 'd') == is_folder;
    return *lie != '\0' && fnmatch(lie, name, 0) == 0;
}

static int open_it(int dir, const char *path, int flags, mode_t mode)
{
    char full[NAME_SIZE];
    struct stat st;
    const char *name = below(path, full);
    if (name == NULL) return (int)syscall(SYS_openat, dir, path, flags, mode);
    size_t size = strlen(name);
    pthread_mutex_lock(&lock);
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= FD_MAX || (flags & O_TMPFILE) == O_TMPFILE || (flags & O_APPEND) != 0)
        unknown("a descriptor of a kind that the recorder does not know");
    if (fd >= 0 && fd < FD_MAX && fstat(fd, &st) == 0) {
        put(RECORD_OPEN, fd, (uint64_t)(unsigned)flags, name, size + 1);
        bool shm = size > 4 && strcmp(name + size - 4, "-shm") == 0;
        int kind = shm ? FD_SHM : FD_FILE;
        if (lies(name, S_ISDIR(st.st_mode))) kind |= FD_LIES;
        atomic_store(&kinds[fd], (unsigned char)kind);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static ssize_t write_it(int fd, const struct iovec *iov, int count, bool at_end, off_t off)
{
    pthread_mutex_lock(&lock);
    if (at_end) off = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t done =
        at_end ? syscall(SYS_writev, fd, iov, count) : syscall(SYS_pwritev, fd, iov, count, off, 0);
    size_t left = done > 0 ? (size_t)done : 0;
    for (int i = 0; i < count && left > 0; i++) {
        size_t size = iov[i].iov_len < left ? iov[i].iov_len : left;
        put(RECORD_WRITE, fd, (uint64_t)off, iov[i].iov_base, size);
        off += (off_t)size;
        left -= size;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static int sync_it(int fd)
{
    int kind = kind_of(fd);
    if (kind == 0) return (int)syscall(SYS_fsync, fd);
    if ((kind & FD_LIES) != 0) return 0;
    pthread_mutex_lock(&lock);
    uint64_t which = ++syncs;
    put(RECORD_BEGIN, fd, which, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (fsync_us > 0) {
        uint64_t mix = which * 0x9E3779B97F4A7C15u >> 33;
        struct timespec t = {.tv_nsec = (long)(mix % fsync_us) * 1000};
        syscall(SYS_nanosleep, &t, NULL);
    }
    pthread_mutex_lock(&lock);
    put(RECORD_END, -1, which, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

static int pair(enum record_kind kind, const char *from, const char *to, unsigned flags)
{
    char a[NAME_SIZE], b[NAME_SIZE];
    const char *name_a = below(from, a), *name_b = below(to, b);
    bool ours = name_a != NULL || name_b != NULL;
    if (ours) pthread_mutex_lock(&lock);
    if ((name_a == NULL) != (name_b == NULL)) unknown("a name that comes in or leaves");
    int rc = kind == RECORD_LINK ? (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)
                                 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
    if (rc == 0 && name_a != NULL && name_b != NULL) put_names(kind, flags, name_a, name_b);
    if (ours) pthread_mutex_unlock(&lock);
    return rc;
}

static int single(enum record_kind kind, const char *path, mode_t mode)
{
    char full[NAME_SIZE];
    const char *name = below(path, full);
    if (name != NULL) pthread_mutex_lock(&lock);
    int rc = kind == RECORD_MKDIR ? (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode)
                                  : (int)syscall(SYS_unlinkat, AT_FDCWD, path,
                                                 kind == RECORD_RMDIR ? AT_REMOVEDIR : 0);
    if (rc == 0 && name != NULL) put_names(kind, 0, name, NULL);
    if (name != NULL) pthread_mutex_unlock(&lock);
    return rc;
}

static void *map_it(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
    if ((kind_of(fd) & FD_FILE) != 0 && (flags & MAP_TYPE) != MAP_PRIVATE &&
        (prot & PROT_WRITE) != 0) {
        pthread_mutex_lock(&lock);
        unknown("a mapping that can be written");
        pthread_mutex_unlock(&lock);
    }
    return (void *)syscall(SYS_mmap, at, size, prot, flags, fd, off);
}
