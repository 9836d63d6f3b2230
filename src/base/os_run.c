/* os_run.c -- a command and what it writes; see os_run_capture in os.h. */
#include "base/os.h"
#include "base/buf.h"
#include "base/fault.h"
#include "base/thr.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS 100 /* the caller's cancel flag is looked at so often */

extern char **environ;

static enum rc spawn(const char *command, int out_fd, pid_t *ret_pid, struct err *err);
static enum rc collect(int fd, int pid_fd, size_t size_max, int64_t end_ms, const struct call *c,
                       struct buf *out, struct err *err);

enum rc os_run_capture(const char *command, size_t size_max, int64_t timeout_ms,
                       const struct call *c, struct buf *out, int *ret_status, struct err *err)
{
    int fds[2], status = 0;
    pid_t pid = 0, reaped;
    if (fault_hit(FAULT_SYSCALL, "pipe")) return err_sys(err, EMFILE, "pipe");
    if (pipe2(fds, O_CLOEXEC) != 0) return err_sys(err, errno, "pipe");
    enum rc rc = spawn(command, fds[1], &pid, err);
    os_close(fds[1]);
    if (rc == RC_OK) {
        int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
        rc = pid_fd >= 0 ? collect(fds[0], pid_fd, size_max, os_mono_ms() + timeout_ms, c, out, err)
                         : err_sys(err, errno, "pidfd_open");
        /* It is a group of its own, which also ends what it left running. */
        if (rc != RC_OK) kill(-pid, SIGKILL);
        os_close(pid_fd);
        do
            reaped = waitpid(pid, &status, 0);
        while (reaped < 0 && errno == EINTR);
        *ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    os_close(fds[0]);
    return rc;
}

static enum rc spawn(const char *command, int out_fd, pid_t *ret_pid, struct err *err)
{
    char sh[] = "sh", flag[] = "-c";
    char *argv[] = {sh, flag, (char *)(uintptr_t)command, NULL};
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t files;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int sys = posix_spawnattr_init(&attr);
    if (sys != 0) return err_sys(err, sys, "start a command");
    sys = posix_spawn_file_actions_init(&files);
    if (sys == 0) {
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                            POSIX_SPAWN_SETSIGDEF);
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setsigdefault(&attr, &all);
        sys = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
        if (sys == 0) sys = posix_spawn_file_actions_adddup2(&files, out_fd, 1);
        if (sys == 0 && fault_hit(FAULT_SYSCALL, "posix_spawn")) sys = EAGAIN;
        if (sys == 0) sys = posix_spawn(ret_pid, "/bin/sh", &files, &attr, argv, environ);
        posix_spawn_file_actions_destroy(&files);
    }
    posix_spawnattr_destroy(&attr);
    return sys == 0 ? RC_OK : err_sys(err, sys, "start /bin/sh");
}

/* Until the command has ended and all that it wrote is read. What it started in the background may
 * hold its output open; nobody waits for that. */
static enum rc collect(int fd, int pid_fd, size_t size_max, int64_t end_ms, const struct call *c,
                       struct buf *out, struct err *err)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = pid_fd, .events = POLLIN}};
    size_t total = 0;
    for (;;) {
        TRY(call_check(c, err));
        int64_t left = end_ms - os_mono_ms();
        if (left <= 0) return err_set(err, RC_AGAIN, "the command takes too long");
        int n = poll(fds, 2, (int)(left < LOOK_MS ? left : LOOK_MS));
        if (n < 0 && errno != EINTR) return err_sys(err, errno, "poll");
        if (n <= 0) continue;
        if (fds[0].revents != 0) {
            char chunk[4096];
            int64_t got = os_read_some(fd, chunk, sizeof chunk);
            if (got < 0) return err_sys(err, errno, "read from a command");
            if (got == 0) fds[0].fd = -1;
            total += (size_t)got;
            if (total > size_max)
                return err_set(err, RC_TOO_BIG, "the command writes more than %zu bytes", size_max);
            TRY(buf_append(out, chunk, (size_t)got, err));
        } else if (fds[1].revents != 0) {
            return RC_OK;
        }
    }
}
