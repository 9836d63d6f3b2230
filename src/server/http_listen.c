/* http_listen.c -- addresses and listening sockets, see http_intern.h. */
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "server/http_intern.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define HOST_MAX 256
#define BACKLOG  1024

static enum rc take_over(struct http_server *s, int *ret_fd, struct err *err);
static enum rc listen_unix(struct http_server *s, const char *path, int *ret_fd, struct err *err);
static enum rc unlink_stale(const struct sockaddr_un *addr, struct err *err);
static enum rc listen_tcp(struct http_server *s, int *ret_fd, struct err *err);
static enum rc split(const char *text, char host[HOST_MAX], const char **ret_port, struct err *err);
static enum rc listen_at(const struct sockaddr *addr, socklen_t size, int *ret_fd, struct err *err);
static enum rc sys_failure(int sys, const char *what, struct err *err);
static void name_it(struct http_server *s, int fd);

enum rc http__listen(struct http_server *s, int *ret_fd, struct err *err)
{
    const char *text = s->opts.listen;
    if (s->opts.listen_fd >= 0) return take_over(s, ret_fd, err);
    enum rc rc = text == NULL                     ? err_set(err, RC_INVALID, "no address is given")
                 : strncmp(text, "unix:", 5) == 0 ? listen_unix(s, text + 5, ret_fd, err)
                                                  : listen_tcp(s, ret_fd, err);
    if (rc != RC_OK) return err_wrap(err, "listen at '%.128s'", text == NULL ? "" : text);
    name_it(s, *ret_fd);
    return RC_OK;
}

static enum rc take_over(struct http_server *s, int *ret_fd, struct err *err)
{
    int fd = s->opts.listen_fd, on = 0;
    socklen_t size = sizeof on;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) != 0 || on == 0)
        return err_set(err, RC_INVALID, "descriptor %d is no listening socket", fd);
    /* A loop that accepts until there is no more must not be held up by the last accept. */
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return sys_failure(errno, "use the descriptor", err);
    name_it(s, fd);
    *ret_fd = fd;
    return RC_OK;
}

static enum rc listen_unix(struct http_server *s, const char *path, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (path[0] == '\0' || strlen(path) >= sizeof addr.sun_path)
        return err_set(err, RC_INVALID, "a path of 1 to %zu bytes is wanted after \"unix:\"",
                       sizeof addr.sun_path - 1);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    char *copy = mem_strdup(path);
    if (copy == NULL) return err_mem(err, "the path of a socket");
    enum rc rc = unlink_stale(&addr, err);
    if (rc == RC_OK) rc = listen_at((const struct sockaddr *)&addr, sizeof addr, ret_fd, err);
    if (rc == RC_OK)
        s->unix_path = copy;
    else
        mem_free(copy);
    return rc;
}

/* A socket file outlives a server that was killed; one that answers belongs to somebody. */
static enum rc unlink_stale(const struct sockaddr_un *addr, struct err *err)
{
    struct stat st;
    struct err ignored;
    if (os_stat(addr->sun_path, &st, &ignored) != RC_OK || !S_ISSOCK(st.st_mode)) return RC_OK;
    CLEANUP(os_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return sys_failure(errno, "make a socket", err);
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno != ECONNREFUSED)
        return err_set(err, RC_BUSY, "another process listens there");
    return os_unlink(addr->sun_path, err);
}

static enum rc listen_tcp(struct http_server *s, int *ret_fd, struct err *err)
{
    char host[HOST_MAX];
    const char *port = NULL;
    struct addrinfo *list = NULL;
    TRY(split(s->opts.listen, host, &port, err));
    bool any = host[0] == '\0';
    const struct addrinfo hints = {.ai_family = any ? AF_INET6 : AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int found = getaddrinfo(any ? NULL : host, port, &hints, &list);
    if (found != 0) return err_set(err, RC_INVALID, "host '%s': %s", host, gai_strerror(found));
    enum rc rc = listen_at(list->ai_addr, list->ai_addrlen, ret_fd, err);
    freeaddrinfo(list);
    if (rc != RC_IO || !any) return rc;
    /* Both families by one socket, or the older one where the system has no IPv6. */
    struct sockaddr_in old = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    return listen_at((const struct sockaddr *)&old, sizeof old, ret_fd, err);
}

static enum rc split(const char *text, char host[HOST_MAX], const char **ret_port, struct err *err)
{
    const char *colon = strrchr(text, ':');
    size_t digits = colon == NULL ? 0 : strspn(colon + 1, "0123456789");
    bool ok = digits >= 1 && digits <= 5 && colon[1 + digits] == '\0' &&
              strtoul(colon + 1, NULL, 10) <= UINT16_MAX;
    size_t size = ok ? (size_t)(colon - text) : 0;
    bool bracketed = ok && size >= 2 && text[0] == '[' && text[size - 1] == ']';
    /* A bare IPv6 address would lose its last group to the port. */
    ok = ok && size < HOST_MAX && (bracketed || memchr(text, ':', size) == NULL);
    if (!ok)
        return err_set(err, RC_INVALID,
                       "it wants HOST:PORT, as 127.0.0.1:8080, :8080 or "
                       "[::1]:8080, or unix:/path");
    snprintf(host, HOST_MAX, "%.*s", (int)(bracketed ? size - 2 : size), text + bracketed);
    *ret_port = colon + 1;
    return RC_OK;
}

static enum rc listen_at(const struct sockaddr *addr, socklen_t size, int *ret_fd, struct err *err)
{
    const int on = 1, off = 0;
    if (fault_hit(FAULT_SYSCALL, "socket")) return sys_failure(EMFILE, "make a socket", err);
    CLEANUP(os_closep)
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return sys_failure(errno, "make a socket", err);
    if (addr->sa_family != AF_UNIX) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (addr->sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, addr, size) != 0) return sys_failure(errno, "take the address", err);
    if (listen(fd, BACKLOG) != 0) return sys_failure(errno, "listen", err);
    *ret_fd = fd;
    fd = -1;
    return RC_OK;
}

static enum rc sys_failure(int sys, const char *what, struct err *err)
{
    err_sys(err, sys, "%s", what);
    if (sys == EADDRINUSE) err->rc = RC_BUSY;
    if (sys == EACCES || sys == EPERM) err->rc = RC_DENIED;
    if (sys == EADDRNOTAVAIL) err->rc = RC_INVALID;
    if (sys == EAFNOSUPPORT || sys == EMFILE || sys == ENFILE) err->rc = RC_IO;
    return err->rc;
}

static void name_it(struct http_server *s, int fd)
{
    struct sockaddr_storage addr = {0};
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr;
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr;
    socklen_t size = sizeof addr;
    char host[INET6_ADDRSTRLEN] = "";
    if (getsockname(fd, (struct sockaddr *)&addr, &size) != 0) return;
    if (addr.ss_family == AF_INET) {
        inet_ntop(AF_INET, &in4->sin_addr, host, sizeof host);
        snprintf(s->address, sizeof s->address, "%s:%u", host, ntohs(in4->sin_port));
    } else if (addr.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(s->address, sizeof s->address, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else if (addr.ss_family == AF_UNIX) {
        snprintf(s->address, sizeof s->address, "unix:%s", un->sun_path);
    }
}
