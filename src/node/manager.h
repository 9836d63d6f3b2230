/*
 * manager.h -- what a service manager (systemd) and a service say to each other: sockets that are
 * passed (sd_listen_fds(3)), and news of the service (sd_notify(3)).
 *
 * Threads: any; the environment is only read.
 */
#ifndef NODE_MANAGER_H
#define NODE_MANAGER_H
#include "base/err.h"

#define MANAGER_FIRST_FD 3

/* Sockets that were passed to this process, from MANAGER_FIRST_FD on; children do not get them. */
unsigned manager_sockets(void);
/* Can only this machine reach the listening socket? False when that cannot be said. */
bool manager_socket_local(int fd);
/* "READY=1" and the like. Does nothing where nobody wants to know. */
void manager_notify(const char *state);
#endif
