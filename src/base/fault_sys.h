/*
 * fault_sys.h -- syscalls with the signatures that SQLite's VFS takes in place of its own, each
 * with the fault seam in front. Only in builds with SLUICE_TEST_HOOKS. Threads: any.
 */
#ifndef BASE_FAULT_SYS_H
#define BASE_FAULT_SYS_H
#include <sys/types.h>

int fault_open(const char *path, int flags, int mode);
ssize_t fault_pread(int fd, void *dst, size_t size, off_t off);
ssize_t fault_pwrite(int fd, const void *src, size_t size, off_t off);
int fault_ftruncate(int fd, off_t size);
void *fault_mmap(void *at, size_t size, int prot, int flags, int fd, off_t off);
#endif
