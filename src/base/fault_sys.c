/* fault_sys.c -- see fault_sys.h. */
#include "base/fault_sys.h"
#include "base/fault.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int fault_open(const char *path, int flags, int mode)
{
    if (fault_hit(FAULT_SYSCALL, "sqlite open")) return errno = EIO, -1;
    return open(path, flags, mode);
}

ssize_t fault_pread(int fd, void *dst, size_t size, off_t off)
{
    if (fault_hit(FAULT_SYSCALL, "sqlite pread")) return errno = EIO, -1;
    return pread(fd, dst, size, off);
}

ssize_t fault_pwrite(int fd, const void *src, size_t size, off_t off)
{
    if (fault_hit(FAULT_SYSCALL, "sqlite pwrite")) return errno = ENOSPC, -1;
    return pwrite(fd, src, size, off);
}

int fault_ftruncate(int fd, off_t size)
{
    if (fault_hit(FAULT_SYSCALL, "sqlite ftruncate")) return errno = EIO, -1;
    return ftruncate(fd, size);
}

void *fault_mmap(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
    if (fault_hit(FAULT_SYSCALL, "sqlite mmap")) return errno = ENOMEM, MAP_FAILED;
    return mmap(at, size, prot, flags, fd, off);
}
