/* imports.c -- see imports.h. */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "imports.h"
#include "tool.h"

struct elf {
    uint8_t *data;
    size_t size;
    const Elf64_Sym *symbols;
    size_t count;
    const char *names;
};

/*
 * Whatever in libc can change a file, a folder or what is in them. Times and permissions are not in
 * it, nor what writes through a FILE: glibc opens it by a call of its own, which no import shows,
 * so the calls that make a FILE from a name are in the list. fdopen needs an open of ours; what is
 * written then is seen only by who reads the file, so it is in the list, too, but for its use on
 * pipes (may_have).
 */
static const char *const changing[] = {
    "open",
    "open64",
    "__open_2",
    "__open64_2",
    "openat",
    "openat64",
    "creat",
    "creat64",
    "fopen",
    "fopen64",
    "freopen",
    "freopen64",
    "mkstemp",
    "mkstemp64",
    "mkostemp",
    "mkostemp64",
    "tmpfile",
    "tmpfile64",
    "write",
    "pwrite",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev64",
    "pwritev2",
    "pwritev64v2",
    "ftruncate",
    "ftruncate64",
    "truncate",
    "truncate64",
    "fallocate",
    "fallocate64",
    "posix_fallocate",
    "posix_fallocate64",
    "copy_file_range",
    "sendfile",
    "sendfile64",
    "splice",
    "vmsplice",
    "tee",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "remove",
    "mkdir",
    "mkdirat",
    "rmdir",
    "mknod",
    "mknodat",
    "mkfifo",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync",
    "sync_file_range",
    "msync",
    "mmap",
    "mmap64",
    "close",
    "close_range",
    "closefrom",
    "dup",
    "dup2",
    "dup3",
    "aio_write",
    "aio_write64",
    "aio_fsync",
    "io_submit",
    "io_uring_enter",
    "open_by_handle_at",
    "mkdtemp",
    "nftw",
    "nftw64",
    "dprintf",
};

static void elf_read(struct elf *e, const char *path);
static bool elf_has(const struct elf *e, const char *name, bool defined);

void imports_check(const char *program, const char *recorder)
{
    struct elf p, r;
    int missing = 0, used = 0;
    elf_read(&p, program);
    elf_read(&r, recorder);
    for (size_t i = 0; i < sizeof changing / sizeof *changing; i++) {
        if (!elf_has(&p, changing[i], false)) continue;
        used++;
        if (elf_has(&r, changing[i], true)) continue;
        printf("the program calls %s(), which the recorder does not see\n", changing[i]);
        missing++;
    }
    if (used < 10)
        die("'%s' imports %d of the calls that change files: a static one?", program, used);
    if (missing > 0) die("the record would not be complete");
    free(p.data);
    free(r.data);
}

static void elf_read(struct elf *e, const char *path)
{
    *e = (struct elf){.size = (size_t)file_size(path)};
    FILE *f = fopen(path, "re");
    e->data = malloc(e->size + 1);
    if (f == NULL || e->data == NULL) die("open '%s': %s", path, strerror(errno));
    if (fread(e->data, 1, e->size, f) != e->size) die("read '%s'", path);
    fclose(f);
    const Elf64_Ehdr *h = (const Elf64_Ehdr *)(const void *)e->data;
    if (e->size < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 ||
        h->e_ident[EI_CLASS] != ELFCLASS64)
        die("'%s' is no 64-bit ELF file", path);
    const Elf64_Shdr *s = (const Elf64_Shdr *)(const void *)(e->data + h->e_shoff);
    for (size_t i = 0; i < h->e_shnum; i++) {
        if (s[i].sh_type != SHT_DYNSYM) continue;
        e->symbols = (const Elf64_Sym *)(const void *)(e->data + s[i].sh_offset);
        e->count = s[i].sh_size / sizeof *e->symbols;
        e->names = (const char *)(e->data + s[s[i].sh_link].sh_offset);
    }
    if (e->symbols == NULL) die("'%s' has no dynamic symbols", path);
}

static bool elf_has(const struct elf *e, const char *name, bool defined)
{
    for (size_t i = 0; i < e->count; i++) {
        if ((e->symbols[i].st_shndx != SHN_UNDEF) == defined &&
            strcmp(e->names + e->symbols[i].st_name, name) == 0)
            return true;
    }
    return false;
}
