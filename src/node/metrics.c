/* metrics.c -- see metrics.h. */
#include "node/metrics.h"
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/mem.h"

#define CONNECTIONS_MAX 16
#define TIMEOUT_S       10
#define HOST_MAX        256

struct metrics {
    struct MHD_Daemon *daemon;
    metrics_fn *fn;
    void *ctx;
};

static enum rc find_address(const char *addr, int family, struct addrinfo **ret_info,
                            struct err *err);
static enum rc listen_at(struct metrics *m, const char *addr, int family, struct err *err);
static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload_data,
                              size_t *upload_data_size, void **state);
static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type,
                             const void *text, size_t size);

enum rc metrics_start(const char *addr, metrics_fn *fn, void *ctx, struct metrics **ret_metrics,
                      struct err *err)
{
    struct metrics *m = mem_calloc(1, sizeof *m);
    if (m == NULL) return err_mem(err, "the metrics page");
    *m = (struct metrics){.fn = fn, .ctx = ctx};
    bool any = addr[0] == ':';
    enum rc rc = listen_at(m, addr, any ? AF_INET6 : AF_UNSPEC, err);
    /* Both families by one socket, or the older one where the system has no IPv6. */
    if (rc == RC_IO && any) rc = listen_at(m, addr, AF_INET, err);
    if (rc == RC_OK)
        *ret_metrics = m;
    else
        mem_free(m);
    return rc;
}

void metrics_stop(struct metrics *m)
{
    if (m == NULL) return;
    MHD_stop_daemon(m->daemon);
    mem_free(m);
}

static enum rc listen_at(struct metrics *m, const char *addr, int family, struct err *err)
{
    struct addrinfo *info = NULL;
    TRY(find_address(addr, family, &info, err));
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD;
    if (info->ai_family == AF_INET6) flags |= MHD_USE_DUAL_STACK;
    m->daemon = MHD_start_daemon(flags, 0, NULL, NULL, answer, m, MHD_OPTION_SOCK_ADDR,
                                 info->ai_addr, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_END);
    freeaddrinfo(info);
    if (m->daemon != NULL) return RC_OK;
    return err_set(err, RC_IO, "cannot listen at '%s' for metrics; is the port in use?", addr);
}

static enum rc find_address(const char *addr, int family, struct addrinfo **ret_info,
                            struct err *err)
{
    char host[HOST_MAX];
    const char *colon = strrchr(addr, ':');
    char *end = NULL;
    long port = colon != NULL ? strtol(colon + 1, &end, 10) : 0;
    if (colon == NULL || end == colon + 1 || *end != '\0' || port < 1 || port > 65535 ||
        (size_t)(colon - addr) >= sizeof host)
        return err_set(err, RC_INVALID, "addr '%s': it wants [host]:port, as \":9090\"", addr);
    size_t size = (size_t)(colon - addr);
    bool bracketed = size >= 2 && addr[0] == '[' && addr[size - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? size - 2 : size), addr + bracketed);
    const struct addrinfo hints = {
        .ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int rc = getaddrinfo(host[0] == '\0' ? NULL : host, colon + 1, &hints, ret_info);
    if (rc == 0) return RC_OK;
    return err_set(err, RC_INVALID, "addr '%s': %s", addr, gai_strerror(rc));
}

static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload_data,
                              size_t *upload_data_size, void **state)
{
    static const char missing[] = "not found; the page is /metrics\n";
    struct metrics *m = cls;
    CLEANUP(buf_fini) struct buf page = BUF_INIT;
    struct err err;
    (void)version, (void)upload_data, (void)upload_data_size, (void)state;
    bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (!reads) return MHD_NO; /* whatever it wants to send: not here */
    if (strcmp(url, "/metrics") != 0)
        return reply(connection, MHD_HTTP_NOT_FOUND, "text/plain", missing, sizeof missing - 1);
    if (m->fn(m->ctx, &page, &err) != RC_OK)
        return reply(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "text/plain", err.text,
                     strlen(err.text));
    return reply(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", page.data,
                 page.size);
}

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type,
                             const void *text, size_t size)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(size, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (r == NULL) return MHD_NO;
    enum MHD_Result ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (ok == MHD_YES) ok = MHD_queue_response(connection, status, r);
    MHD_destroy_response(r);
    return ok;
}
