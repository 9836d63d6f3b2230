/* sock.c -- see sock.h. */
#include "base/sock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CONNECT_MS 10000

static enum rc connect_one(const struct addrinfo *a, const struct call *c, int64_t until_ms,
                           int *ret_fd, struct err *err);
static enum rc connect_wait(int fd, const struct call *c, int64_t until_ms, struct err *err);

enum rc sock_connect(const char *host, uint16_t port, const struct call *c, int *ret_fd,
                     struct err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    char service[8];
    int64_t left = 0, end = os_mono_ms() + CONNECT_MS;
    if (c != NULL && c->deadline_ms != 0) end = c->deadline_ms;
    snprintf(service, sizeof service, "%u", port);
    int found = fault_hit(FAULT_SYSCALL, "getaddrinfo") ? EAI_AGAIN
                                                        : getaddrinfo(host, service, &hints, &list);
    if (found != 0)
        return err_set(err, RC_AGAIN, "look up host '%s': %s", host, gai_strerror(found));
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next)
        left++;
    enum rc rc = err_set(err, RC_AGAIN, "host '%s' has no address", host);
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        int64_t now = os_mono_ms();
        rc = connect_one(a, c, now + (end - now) / left--, ret_fd, err);
        if (rc == RC_OK || rc == RC_CANCELED) break;
    }
    freeaddrinfo(list);
    return rc == RC_OK ? RC_OK : err_wrap(err, "connect to %s port %u", host, port);
}

bool sock_wait(int fd, bool out, int64_t wait_ms)
{
    struct pollfd p = {.fd = fd, .events = out ? POLLIN | POLLOUT : POLLIN};
    /* A signal ends the wait early, which every caller takes for the end of a slice. */
    return poll(&p, 1, wait_ms < 0 ? 0 : (int)wait_ms) > 0;
}

void sock_quiet_begin(struct sock_quiet *q)
{
    sigset_t pipe_only, old;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &old);
    q->was_blocked = sigismember(&old, SIGPIPE) == 1;
}

void sock_quiet_end(const struct sock_quiet *q)
{
    const struct timespec at_once = {0};
    sigset_t pipe_only;
    if (q->was_blocked) return;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    while (sigtimedwait(&pipe_only, NULL, &at_once) == SIGPIPE)
        continue;
    pthread_sigmask(SIG_UNBLOCK, &pipe_only, NULL);
}

static enum rc connect_one(const struct addrinfo *a, const struct call *c, int64_t until_ms,
                           int *ret_fd, struct err *err)
{
    const int on = 1;
    CLEANUP(os_closep) int fd = -1;
    TRY(call_check(c, err));
    if (fault_hit(FAULT_SYSCALL, "socket"))
        errno = EMFILE;
    else
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0) {
        err_sys(err, errno, "make a socket");
        return err->rc = RC_AGAIN;
    }
    /* Both are hints: a connection without them works too. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
        if (errno != EINPROGRESS && errno != EINTR) {
            err_sys(err, errno, "connect");
            return err->rc = RC_AGAIN;
        }
        TRY(connect_wait(fd, c, until_ms, err));
    }
    *ret_fd = fd;
    fd = -1;
    return RC_OK;
}

static enum rc connect_wait(int fd, const struct call *c, int64_t until_ms, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int64_t left = until_ms - os_mono_ms();
        TRY(call_check(c, err));
        if (left <= 0) return err_set(err, RC_AGAIN, "no answer");
        if (poll(&p, 1, (int)(left < SOCK_SLICE_MS ? left : SOCK_SLICE_MS)) <= 0) continue;
        int sys = 0;
        socklen_t size = sizeof sys;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &size) != 0) sys = errno;
        if (sys == 0) return RC_OK;
        err_sys(err, sys, "connect");
        return err->rc = RC_AGAIN;
    }
}
