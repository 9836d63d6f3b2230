/*
 * server.h -- the database service: HTTP and WebSocket on one port, an administrator's port beside
 * it. The tenants and their logs belong to whoever starts it (tenant.h).
 *
 * Threads: one owner.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H
#include "server/auth.h"
#include "server/tenant.h"

struct server;
struct server_opts {
    const char *listen, *admin_listen; /* as http_opts.listen; admin "": none */
    int listen_fd, admin_fd;           /* sockets that somebody else has made; -1: none */
    const char *tls_cert, *tls_key;    /* NULL: plain */
    struct auth_opts auth;
    const char *admin_key;    /* NULL: only those on this machine may come */
    const uint8_t *baton_key; /* BATON_KEY_SIZE bytes */
    const struct tenants_ops *ops;
    struct tenants *tenants;
    /* For the administrator; NULL: not allowed. A folder for large bodies, in the tenants' file
     * system; the folder that dump_url may name files of; the private key of tokens. */
    const char *spill_dir, *import_dir, *signing_key_file;
    uint64_t import_max;   /* bytes of a file that is imported; 0: 16 GiB */
    bool no_default;       /* a host name without a dot names no tenant */
    unsigned threads;      /* of each front end; 0: one a CPU */
    unsigned work_threads; /* 0: 64 */
    size_t body_max;       /* bytes; 0: 64 MiB */
    uint64_t byte_max;     /* of values in one result; 0: 64 MiB */
    unsigned conn_max;
    int64_t query_ms, txn_ms, turn_ms, durable_ms, stream_idle_ms, slow_query_ms; /* 0: defaults */
    int64_t idle_ms; /* of a connection */
    int64_t open_ms; /* a request waits so long when too many databases are in use; 0: 5 s */
};
/* Fails: as http_server_start, auth_new. */
MUST_CHECK enum rc server_start(const struct server_opts *opts, struct server **ret_s,
                                struct err *err);
void server_addresses(const struct server *s, char *out, size_t size, char *admin_out,
                      size_t admin_size);
/* Take no new connections, let those requests end that are at work, for at most wait_ms; then cut
 * the rest. Transactions that are open are rolled back. */
void server_stop(struct server *s, int64_t wait_ms);
/* Read keys, roles and certificates again. Fails: as auth_reload; then all of the old ones stay. */
MUST_CHECK enum rc server_reload(struct server *s, const struct auth_opts *auth, struct err *err);
/* Numbers in Prometheus' text form, appended. */
MUST_CHECK enum rc server_metrics(struct server *s, struct buf *out, struct err *err);
#endif
