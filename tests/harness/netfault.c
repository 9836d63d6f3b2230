/*
 * netfault.c -- a network that breaks: a TCP relay on loopback between a client and a server.
 *
 *   netfault --to PORT [--seed N] [--percent N] [--log FILE]
 *
 * Prints "PORT=<n>", then a line "# fault" for each fault, and relays until its parent ends. Each
 * piece of data that passes may (percent for those that begin a request or an answer, a twentieth
 * of it for others, so that large bodies pass, too) meet one of: a reset of both sides; half of the
 * piece and then the end; the client's piece is delivered and the server's answer is lost; a pause.
 * New connections may be refused. FILE gets the first line of each HTTP request, for counting.
 *
 * Threads: one a connection. The seed decides the faults of each connection, not their timing.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <signal.h>
#include "tool.h"

#define PIECE_SIZE 16384

enum fault { PASS, RESET, HALF, LOSE, PAUSE, FAULT_COUNT };

struct link {
    int client, server;
    struct rng rng;
    bool lose; /* what the server says next is lost */
};

static uint16_t to_port;
static int percent = 3;
static FILE *request_log; /* NULL: none */

static int listen_any(uint16_t *ret_port);
static void *relay(void *arg);
static bool pass_piece(struct link *l, bool from_client);
static uint64_t chance(const char *piece, size_t size);
static const char *method_of(const char *piece, size_t size);
static void log_request(const char *piece, size_t size);
static bool send_all(int fd, const char *data, size_t size);
static void end_link(struct link *l, bool reset);

int main(int argc, char **argv)
{
    uint64_t seed = tool_random_seed(), count = 0;
    uint16_t port;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--to") == 0) to_port = (uint16_t)parse_u64(argv[i], argv[i + 1]);
        if (strcmp(argv[i], "--seed") == 0) seed = parse_u64(argv[i], argv[i + 1]);
        if (strcmp(argv[i], "--percent") == 0) percent = (int)parse_u64(argv[i], argv[i + 1]);
        if (strcmp(argv[i], "--log") == 0) request_log = fopen(argv[i + 1], "we");
    }
    if (to_port == 0) die("netfault wants --to PORT");
    if (request_log != NULL) setvbuf(request_log, NULL, _IOLBF, 0);
    int fd = listen_any(&port);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("PORT=%u\n", port);
    fprintf(stderr, "netfault: seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    for (;;) {
        int client = accept(fd, NULL, NULL);
        if (client < 0) continue;
        struct link *l = calloc(1, sizeof *l);
        pthread_t thread;
        if (l == NULL) die("out of memory");
        *l = (struct link){.client = client, .rng = rng_of(seed, count++)};
        if (pthread_create(&thread, NULL, relay, l) != 0) die("no more threads");
        pthread_detach(thread);
    }
}

static int listen_any(uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) != 0)
        die("netfault cannot listen: %s", strerror(errno));
    *ret_port = ntohs(at.sin_port);
    return fd;
}

static void *relay(void *arg)
{
    struct link *l = arg;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(to_port)};
    l->server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (rng_percent(&l->rng, percent) ||
        connect(l->server, (struct sockaddr *)&to, sizeof to) != 0) {
        end_link(l, true);
        return NULL;
    }
    for (;;) {
        struct pollfd fds[] = {{.fd = l->client, .events = POLLIN},
                               {.fd = l->server, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0) break;
        if (fds[0].revents != 0 && !pass_piece(l, true)) break;
        if (fds[1].revents != 0 && !pass_piece(l, false)) break;
    }
    return NULL;
}

/* False: the link has ended. */
static bool pass_piece(struct link *l, bool from_client)
{
    char piece[PIECE_SIZE];
    int from = from_client ? l->client : l->server, to = from_client ? l->server : l->client;
    ssize_t size = read(from, piece, sizeof piece);
    enum fault fault = PASS;
    if (from_client && size > 0) log_request(piece, (size_t)size);
    if (size > 0 && rng_below(&l->rng, 2000) < chance(piece, (size_t)size))
        fault = (enum fault)rng_between(&l->rng, RESET, FAULT_COUNT - 1);
    if (fault != PASS) puts("# fault"); /* so that who runs this knows that it did something */
    if (size <= 0 || (l->lose && !from_client)) {
        end_link(l, l->lose);
        return false;
    }
    if (fault == RESET) {
        end_link(l, true);
        return false;
    }
    if (fault == LOSE && from_client) l->lose = true;
    if (fault == PAUSE) sleep_ms(rng_between(&l->rng, 1, 300));
    bool sent = send_all(to, piece, fault == HALF ? (size_t)size / 2 : (size_t)size);
    if (sent && fault != HALF) return true;
    end_link(l, false);
    return false;
}

/* Of 2000. */
static uint64_t chance(const char *piece, size_t size)
{
    bool begins = (size > 5 && strncmp(piece, "HTTP/", 5) == 0) || method_of(piece, size) != NULL;
    return (uint64_t)percent * (begins ? 20 : 1);
}

static const char *method_of(const char *piece, size_t size)
{
    static const char *const methods[] = {"GET ", "PUT ", "POST ", "HEAD ", "DELETE "};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (size > strlen(methods[i]) && strncmp(piece, methods[i], strlen(methods[i])) == 0)
            return methods[i];
    return NULL;
}

/* Clients here send nothing before they have the answer, so a request starts a piece. */
static void log_request(const char *piece, size_t size)
{
    const char *end = memchr(piece, '\r', size);
    if (request_log != NULL && end != NULL && method_of(piece, size) != NULL)
        fprintf(request_log, "%.*s\n", (int)(end - piece), piece);
}

static bool send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static void end_link(struct link *l, bool reset)
{
    struct linger now = {.l_onoff = 1};
    if (reset) setsockopt(l->client, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(l->client);
    if (l->server >= 0) close(l->server);
    free(l);
}
