/* exec.c -- see exec.h. */
#include "node/exec.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/os.h"

#define WORDS_MAX 256

static enum rc split(char *cmd, char *words[WORDS_MAX + 1], struct err *err);
static const char *take_word(const char *in, char **out);
_Noreturn static void run_child(char *words[], int report_fd);

enum rc exec_start(const char *cmd, pid_t *ret_pid, struct err *err)
{
    char *words[WORDS_MAX + 1];
    int pipe_fds[2], sys = 0;
    CLEANUP(mem_freep) char *copy = mem_strdup(cmd);
    if (copy == NULL) return err_mem(err, "a command");
    TRY(split(copy, words, err));
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) return err_sys(err, errno, "pipe");
    pid_t pid = fork();
    if (pid == 0) run_child(words, pipe_fds[1]);
    int fork_errno = errno;
    os_close(pipe_fds[1]);
    /* The pipe closes when exec succeeds; otherwise it carries errno. */
    int64_t n = pid > 0 ? os_read_some(pipe_fds[0], &sys, sizeof sys) : 0;
    os_close(pipe_fds[0]);
    if (pid < 0) return err_sys(err, fork_errno, "start '%s'", words[0]);
    if (n == sizeof sys) {
        waitpid(pid, NULL, 0);
        return err_sys(err, sys, "start '%s'", words[0]);
    }
    *ret_pid = pid;
    return RC_OK;
}

static enum rc split(char *cmd, char *words[WORDS_MAX + 1], struct err *err)
{
    size_t count = 0;
    char *out = cmd;
    const char *in = cmd;
    for (;;) {
        while (*in == ' ' || *in == '\t' || *in == '\n')
            in++;
        if (*in == '\0') break;
        if (count == WORDS_MAX) return err_set(err, RC_INVALID, "the command has too many words");
        words[count++] = out;
        in = take_word(in, &out);
        if (in == NULL) return err_set(err, RC_INVALID, "the command has an open quote");
    }
    words[count] = NULL;
    if (count == 0) return err_set(err, RC_INVALID, "the command is empty");
    return RC_OK;
}

/* Unquote one word in place. Returns what follows it, or NULL for an open quote. */
static const char *take_word(const char *in, char **out)
{
    char quote = 0;
    for (; *in && (quote || !strchr(" \t\n", *in)); in++) {
        if (*in == quote)
            quote = 0;
        else if (!quote && (*in == '\'' || *in == '"'))
            quote = *in;
        else if (*in == '\\' && quote != '\'' && in[1])
            *(*out)++ = *++in;
        else
            *(*out)++ = *in;
    }
    if (quote) return NULL;
    if (*in) in++; /* the separator makes room for the terminating 0 */
    *(*out)++ = '\0';
    return in;
}

_Noreturn static void run_child(char *words[], int report_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(words[0], words);
    int sys = errno;
    if (os_write_some(report_fd, &sys, sizeof sys) != sizeof sys) _exit(126);
    _exit(127);
}
