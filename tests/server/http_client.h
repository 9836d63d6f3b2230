/* http_client.h -- a raw HTTP client for tests: sends any bytes, reads one answer at a time. */
#ifndef TESTS_SERVER_HTTP_CLIENT_H
#define TESTS_SERVER_HTTP_CLIENT_H
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <gnutls/gnutls.h>
#include "base/mem.h"
#include "base/os.h"

#define CLIENT_WAIT_MS 60000

struct client {
    int fd;
    gnutls_session_t tls;
    gnutls_certificate_credentials_t cred;
    struct buf in; /* not yet consumed */
};

struct answer {
    unsigned status;
    bool closed;      /* the connection ended before the answer did */
    bool until_close; /* its length was given by the end of the connection */
    char head[8192];
    struct buf body;
};

static inline struct client client_connect(const char *address)
{
    struct client c = {.fd = -1};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET};
    if (strncmp(address, "unix:", 5) == 0) {
        c.fd = socket(AF_UNIX, SOCK_STREAM, 0);
        snprintf(un.sun_path, sizeof un.sun_path, "%.107s", address + 5);
        assert_int_equal(connect(c.fd, (struct sockaddr *)&un, sizeof un), 0);
        return c;
    }
    c.fd = socket(AF_INET, SOCK_STREAM, 0);
    in.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&in, sizeof in), 0);
    return c;
}

static inline void client_tls(struct client *c)
{
    gnutls_certificate_allocate_credentials(&c->cred);
    gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
    gnutls_set_default_priority(c->tls);
    gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, c->cred);
    gnutls_transport_set_int(c->tls, c->fd);
    gnutls_handshake_set_timeout(c->tls, CLIENT_WAIT_MS);
    int rc;
    do
        rc = gnutls_handshake(c->tls);
    while (rc < 0 && !gnutls_error_is_fatal(rc));
    if (rc < 0) print_error("handshake: %s\n", gnutls_strerror(rc));
    assert_int_equal(rc, 0);
}

static inline void client_close(struct client *c)
{
    if (c->tls != NULL) {
        gnutls_deinit(c->tls);
        gnutls_certificate_free_credentials(c->cred);
    }
    os_close(c->fd);
    buf_fini(&c->in);
    *c = (struct client){.fd = -1};
}

/* False when the server takes no more. */
static inline bool client_send(struct client *c, const void *data, size_t size)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = c->tls != NULL ? gnutls_record_send(c->tls, p, size)
                                   : send(c->fd, p, size, MSG_NOSIGNAL);
        if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static inline void client_say(struct client *c, const char *text)
{
    assert_true(client_send(c, text, strlen(text)));
}

/* Wait for more bytes; false at the end of the connection, fails the test after a while. */
static inline bool client_more(struct client *c)
{
    struct err err;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    assert_int_equal(buf_reserve(&c->in, 65536, &err), RC_OK);
    bool ready = c->tls != NULL && gnutls_record_check_pending(c->tls) > 0;
    if (!ready && poll(&p, 1, CLIENT_WAIT_MS) <= 0) fail_msg("no bytes from the server");
    uint8_t *to = c->in.data + c->in.size;
    ssize_t n;
    do
        n = c->tls != NULL ? gnutls_record_recv(c->tls, to, 65536) : recv(c->fd, to, 65536, 0);
    while (c->tls != NULL && (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED));
    if (n <= 0) return false;
    c->in.size += (size_t)n;
    return true;
}

/* Value of a header of an answer, up to the end of its line, in static memory; NULL: none. */
static inline const char *answer_header(const struct answer *a, const char *name)
{
    static _Thread_local char value[512];
    size_t size = strlen(name);
    for (const char *p = strstr(a->head, "\r\n"); p != NULL; p = strstr(p, "\r\n")) {
        p += 2;
        if (strncasecmp(p, name, size) != 0 || p[size] != ':') continue;
        snprintf(value, sizeof value, "%.*s", (int)strcspn(p + size + 2, "\r"), p + size + 2);
        return value;
    }
    return NULL;
}

static inline bool client_body(struct client *c, struct answer *a, size_t size)
{
    struct err err;
    while (c->in.size < size)
        if (!client_more(c)) return false;
    assert_int_equal(buf_append(&a->body, c->in.data, size, &err), RC_OK);
    buf_drop_front(&c->in, size);
    return true;
}

static inline bool client_chunks(struct client *c, struct answer *a)
{
    for (;;) {
        char *end;
        while (c->in.size < 3 || memmem(c->in.data, c->in.size, "\r\n", 2) == NULL)
            if (!client_more(c)) return false;
        char *line_end = memmem(c->in.data, c->in.size, "\r\n", 2);
        size_t size = strtoul((const char *)c->in.data, &end, 16);
        assert_ptr_equal(end, line_end);
        buf_drop_front(&c->in, (size_t)(line_end + 2 - (char *)c->in.data));
        if (!client_body(c, a, size)) return false;
        while (c->in.size < 2)
            if (!client_more(c)) return false;
        assert_memory_equal(c->in.data, "\r\n", 2);
        buf_drop_front(&c->in, 2);
        if (size == 0) return true;
    }
}

/* Read an answer (to HEAD: without a body). status 0: the connection ended before its head. */
static inline struct answer client_answer(struct client *c, bool head)
{
    struct answer a = {0};
    char *end;
    struct err err;
    while ((end = c->in.size == 0 ? NULL : memmem(c->in.data, c->in.size, "\r\n\r\n", 4)) == NULL)
        if (!client_more(c)) {
            a.closed = true;
            return a;
        }
    size_t size = (size_t)(end + 2 - (char *)c->in.data);
    assert_true(size < sizeof a.head);
    memcpy(a.head, c->in.data, size);
    buf_drop_front(&c->in, size + 2);
    assert_int_equal(sscanf(a.head, "HTTP/1.%*d %u", &a.status), 1);
    if (head || a.status == 204 || a.status / 100 == 1) return a;
    if (answer_header(&a, "Transfer-Encoding") != NULL) {
        a.closed = !client_chunks(c, &a);
    } else if (answer_header(&a, "Content-Length") != NULL) {
        a.closed = !client_body(c, &a, strtoul(answer_header(&a, "Content-Length"), NULL, 10));
    } else {
        a.until_close = true;
        while (client_more(c))
            continue;
        assert_int_equal(buf_append(&a.body, c->in.data, c->in.size, &err), RC_OK);
        buf_reset(&c->in);
    }
    return a;
}

static inline void answer_free(struct answer *a)
{
    buf_fini(&a->body);
}

static inline bool answer_is(const struct answer *a, const char *text)
{
    return a->body.size == strlen(text) &&
           (a->body.size == 0 || memcmp(a->body.data, text, a->body.size) == 0);
}

static inline bool answer_has(const struct answer *a, const char *text)
{
    return a->body.size > 0 && memmem(a->body.data, a->body.size, text, strlen(text)) != NULL;
}

/* The connection ends without another byte. */
static inline void client_expect_end(struct client *c)
{
    assert_int_equal(c->in.size, 0);
    assert_false(client_more(c));
}
#endif
