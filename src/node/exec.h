/*
 * exec.h -- the application that runs beside replication (`-exec`). Threads: the main thread.
 */
#ifndef NODE_EXEC_H
#define NODE_EXEC_H
#include <sys/types.h>
#include "base/err.h"

/* Split like a shell's words (quotes and backslashes; no expansion) and start it, with the signal
 * mask of a fresh process. Fails: RC_INVALID unbalanced quotes or nothing to run; RC_NOT_FOUND,
 * RC_DENIED the program; RC_NO_MEM. */
MUST_CHECK enum rc exec_start(const char *cmd, pid_t *ret_pid, struct err *err);
#endif
