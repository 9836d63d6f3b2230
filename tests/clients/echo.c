/* echo.c -- a WebSocket server that sends back what it gets, on the same frames and connections as
 * the real one: for test suites of RFC 6455, which want an echo. Prints its URL, ends by a signal.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "base/os.h"
#include "server/ws.h"

#define HEAD_MAX 16384

static int listen_somewhere(void);
static void greet(struct ws_hub *hub, int fd);
static void echo(void *ctx, struct ws_conn *c, bool binary, const void *data, size_t size);
static void gone(void *ctx, struct ws_conn *c);

int main(void)
{
    struct err err;
    struct ws_hub *hub;
    /* One of the cases sends and takes 16 MiB at once. */
    struct ws_opts opts = {.threads = 1, .send_max = 32u << 20};
    int fd = listen_somewhere();
    if (fd < 0 || ws_hub_new(&opts, &hub, &err) != RC_OK) return 1;
    for (;;) {
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0) greet(hub, client);
    }
}

static int listen_somewhere(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &size) != 0)
        return -1;
    printf("ws://127.0.0.1:%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

/* The handshake, for a client that does nothing wrong there. */
static void greet(struct ws_hub *hub, int fd)
{
    static const struct ws_events events = {echo, gone};
    char head[HEAD_MAX + 1] = "", key[64] = "", accepted[WS_ACCEPT_SIZE];
    char *end = NULL;
    struct err err;
    size_t size = 0;
    while (end == NULL && size < HEAD_MAX) {
        ssize_t n = recv(fd, head + size, HEAD_MAX - size, 0);
        if (n <= 0) break;
        size += (size_t)n;
        head[size] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    const char *line = end != NULL ? strcasestr(head, "\r\nsec-websocket-key:") : NULL;
    bool ok = line != NULL && sscanf(line, "%*[^:]: %63[^\r ]", key) == 1 &&
              ws_accept_key(key, accepted, &err) == RC_OK;
    if (ok)
        ok = dprintf(fd,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     accepted) > 0;
    if (ok)
        ok = ws_add(hub, fd, end + 4, size - (size_t)(end + 4 - head), &events, NULL, NULL, &err) ==
             RC_OK;
    if (!ok) os_close(fd);
}

static void echo(void *ctx, struct ws_conn *c, bool binary, const void *data, size_t size)
{
    struct err ignored;
    (void)ctx;
    if (ws_send(c, binary, data, size, &ignored) != RC_OK) return; /* it has gone */
}

static void gone(void *ctx, struct ws_conn *c)
{
    (void)ctx, (void)c;
}
