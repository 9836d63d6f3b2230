/* imports.h -- is every call by which the program can change a file one that the recorder has? */
#ifndef POWER_IMPORTS_H
#define POWER_IMPORTS_H

/* Both are ELF files. Dies with the names that are missing. */
void imports_check(const char *program, const char *recorder);
#endif
