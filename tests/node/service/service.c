/*
 * service.c -- what stands around a service in its tests: the manager that starts it, the store
 * that does not answer, a client that stays connected.
 *
 *   service pass ADDR... -- PROGRAM ARG...   start it with these sockets, as systemd does
 *   service notified PATH                    print what the service tells its manager
 *   service hang                             print a port; take connections, and say nothing
 *   service talk HOST:PORT                   standard input to a connection, its answers to output
 *
 * ADDR is an IPv4 HOST:PORT or unix:PATH. Output is not buffered.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tool.h"

#define FIRST_FD 3

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    };
    socklen_t size;
};

static void pass(char **argv);
static void notified(const char *path);
static void hang(void);
static void talk(const char *where);
static struct address address_of(const char *text);
static int bound(const char *text, int type);
static void copy(int from, int to, const char *what);

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    setvbuf(stdout, NULL, _IONBF, 0);
    if (strcmp(what, "pass") == 0 && argc > 4) pass(argv + 2);
    if (strcmp(what, "notified") == 0 && argc == 3) notified(argv[2]);
    if (strcmp(what, "hang") == 0 && argc == 2) hang();
    if (strcmp(what, "talk") == 0 && argc == 3) talk(argv[2]);
    die("service: wrong arguments; see the head of service.c");
}

/* The descriptors below 3 are taken, so the sockets come out in order. */
static void pass(char **argv)
{
    char text[32];
    int count = 0;
    for (int fd = FIRST_FD; fd < FIRST_FD + 16; fd++)
        close(fd);
    for (; *argv != NULL && strcmp(*argv, "--") != 0; argv++, count++) {
        int fd = bound(*argv, SOCK_STREAM);
        if (fd != FIRST_FD + count || listen(fd, 16) != 0) die("listen at %s", *argv);
    }
    if (*argv == NULL || argv[1] == NULL) die("service pass: no program");
    snprintf(text, sizeof text, "%d", count);
    setenv("LISTEN_FDS", text, 1);
    snprintf(text, sizeof text, "%ld", (long)getpid());
    setenv("LISTEN_PID", text, 1);
    execv(argv[1], argv + 1);
    die("start %s: %s", argv[1], strerror(errno));
}

static void notified(const char *path)
{
    char where[TOOL_PATH_MAX], text[512];
    path_join(where, "unix:%s", path);
    int fd = bound(where, SOCK_DGRAM);
    for (;;) {
        ssize_t n = recv(fd, text, sizeof text, 0);
        if (n < 0) die("receive: %s", strerror(errno));
        printf("%.*s\n", (int)n, text);
    }
}

/* The system takes the connections, as long as its queue has room. */
static void hang(void)
{
    struct address a;
    int fd = bound("127.0.0.1:0", SOCK_STREAM);
    a.size = sizeof a.in;
    if (listen(fd, 1024) != 0 || getsockname(fd, &a.any, &a.size) != 0) die("listen");
    printf("%d\n", ntohs(a.in.sin_port));
    for (;;)
        pause();
}

static void talk(const char *where)
{
    struct address a = address_of(where);
    int fd = socket(a.any.sa_family, SOCK_STREAM, 0);
    if (connect(fd, &a.any, a.size) != 0) die("connect to %s: %s", where, strerror(errno));
    struct pollfd ends[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    while (poll(ends, 2, -1) > 0) {
        if (ends[0].revents != 0) copy(STDIN_FILENO, fd, "the input");
        if (ends[1].revents != 0) copy(fd, STDOUT_FILENO, "the connection");
    }
    die("poll: %s", strerror(errno));
}

static struct address address_of(const char *text)
{
    struct address a = {.size = 0};
    char host[64];
    const char *colon = strrchr(text, ':');
    if (strncmp(text, "unix:", 5) == 0) {
        a.un.sun_family = AF_UNIX;
        snprintf(a.un.sun_path, sizeof a.un.sun_path, "%s", text + 5);
        a.size = sizeof a.un;
        return a;
    }
    if (colon == NULL) die("no address: %s", text);
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    a.in.sin_family = AF_INET;
    a.in.sin_port = htons((uint16_t)parse_u64("port", colon + 1));
    if (inet_pton(AF_INET, host, &a.in.sin_addr) != 1) die("no IPv4 address: %s", host);
    a.size = sizeof a.in;
    return a;
}

static int bound(const char *text, int type)
{
    struct address a = address_of(text);
    int fd = socket(a.any.sa_family, type, 0);
    if (fd < 0 || bind(fd, &a.any, a.size) != 0) die("bind %s: %s", text, strerror(errno));
    return fd;
}

/* Ends the program at the end of either. */
static void copy(int from, int to, const char *what)
{
    char bytes[4096];
    ssize_t n = read(from, bytes, sizeof bytes);
    if (n <= 0) {
        fprintf(stderr, "the end of %s\n", what);
        exit(0);
    }
    if (write(to, bytes, (size_t)n) != n) die("write: %s", strerror(errno));
}
