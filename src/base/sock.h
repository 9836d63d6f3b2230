/*
 * sock.h -- TCP for libraries that want a connected descriptor and leave the waiting to us.
 * Threads: any.
 */
#ifndef BASE_SOCK_H
#define BASE_SOCK_H
#include "base/thr.h"

/* How often a wait looks at its call's cancel flag. */
#define SOCK_SLICE_MS 100

/* A connected descriptor: non-blocking, without Nagle's delay, with keepalive, closed on exec. The
 * addresses of a name are tried in turn, each for a fair share of the time that the call has left
 * (10 s when it has no deadline). What cannot be cut short is the look-up of the name.
 * Fails: RC_AGAIN nobody answers, unknown name; RC_CANCELED; RC_IO. */
MUST_CHECK enum rc sock_connect(const char *host, uint16_t port, const struct call *c, int *ret_fd,
                                struct err *err);
/* Wait until fd can be read (out: or written), or has failed, or wait_ms have passed. True: one of
 * the first. */
bool sock_wait(int fd, bool out, int64_t wait_ms);

/*
 * A write to a connection that the peer has closed raises SIGPIPE, which ends a program. Libraries
 * that write without MSG_NOSIGNAL are called between these two; the pair may be nested.
 */
struct sock_quiet {
    bool was_blocked;
};
void sock_quiet_begin(struct sock_quiet *q);
void sock_quiet_end(const struct sock_quiet *q);
#endif
