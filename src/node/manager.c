/* manager.c -- see manager.h. */
#include "node/manager.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/os.h"

#define SOCKETS_MAX 16

unsigned manager_sockets(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != (long)getpid()) return 0;
    long n = strtol(count, NULL, 10);
    if (n <= 0) return 0;
    if (n > SOCKETS_MAX) n = SOCKETS_MAX;
    for (int i = 0; i < n; i++)
        (void)fcntl(MANAGER_FIRST_FD + i, F_SETFD, FD_CLOEXEC);
    return (unsigned)n;
}

bool manager_socket_local(int fd)
{
    struct sockaddr_storage addr = {0};
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr;
    socklen_t size = sizeof addr;
    if (getsockname(fd, (struct sockaddr *)&addr, &size) != 0) return false;
    switch (addr.ss_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(in4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    default:
        return false;
    }
}

/* Nothing depends on it, so that nobody listens is no failure. */
void manager_notify(const char *state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t size = path != NULL ? strlen(path) : 0;
    if (size < 2 || size >= sizeof addr.sun_path || (path[0] != '/' && path[0] != '@')) return;
    memcpy(addr.sun_path, path, size);
    if (path[0] == '@') addr.sun_path[0] = '\0'; /* a name without a file */
    CLEANUP(os_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    socklen_t used = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&addr, used);
}
