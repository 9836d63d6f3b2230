/*
 * serve.h -- the service behind `sluice serve`: a folder of tenants, their logs, the front ends.
 */
#ifndef NODE_SERVE_H
#define NODE_SERVE_H
#include "base/err.h"

struct serve_opts {        /* texts are never NULL; "" means not given */
    const char *data;      /* folder, made when missing */
    const char *store_url; /* "": DIR/backup */
    const char *listen, *admin_listen;
    const char *auth_key_file, *auth_key, *http_auth, *admin_key, *roles_file;
    const char *tls_cert, *tls_key;
    bool allow_anonymous; /* listen beyond this machine without authentication */
    bool no_default;      /* requests that name no tenant are refused */
    bool relaxed;         /* synchronous=NORMAL */
    unsigned threads, open_max, conn_max;
    int64_t sync_interval_ms, idle_close_ms, query_ms, txn_ms, stream_idle_ms, slow_query_ms,
        shutdown_ms; /* 0: default */
    int64_t cache_kib;
    uint64_t body_max;
};
/* Serve until a signal ends it: SIGTERM or SIGINT let requests end and the logs be stored; SIGHUP
 * reads keys, roles and certificates again. Sockets of a service manager are taken (LISTEN_FDS:
 * the first for clients, the second for the administrator).
 * Fails: RC_INVALID an option; RC_FENCED the folder is in use; RC_DENIED; RC_BUSY a port is taken;
 * RC_CANCELED not everything is in the store; by errno. */
MUST_CHECK enum rc node_serve(const struct serve_opts *opts, struct err *err);
#endif
