/*
 * serve.h -- the service behind `sluice serve`: a folder of tenants, their logs, the front ends.
 */
#ifndef NODE_SERVE_H
#define NODE_SERVE_H
#include "base/err.h"

/* Who may come in; texts are never NULL, "" means not given. */
struct serve_auth {
    const char *key_file, *key, *http_auth;
    const char *roles_file, *roles; /* the second as JSON; only one of them */
};
struct serve_opts {        /* texts are never NULL; "" means not given */
    const char *data;      /* folder, made when missing */
    const char *store_url; /* "": DIR/backup */
    const char *listen, *admin_listen;
    const char *admin_key, *tls_cert, *tls_key;
    struct serve_auth auth;
    /* What SIGHUP has changed; the texts live until the next call. NULL: it is as before.
     * Fails: RC_INVALID and the like; then nothing is changed. */
    enum rc (*reread)(void *ctx, struct serve_auth *ret_auth, struct err *err);
    void *reread_ctx;
    bool allow_anonymous; /* listen beyond this machine without authentication */
    bool no_default;      /* requests that name no tenant are refused */
    bool relaxed;         /* synchronous=NORMAL */
    unsigned threads, open_max, conn_max;
    int64_t sync_interval_ms, idle_close_ms, query_ms, txn_ms, stream_idle_ms, slow_query_ms,
        shutdown_ms; /* 0: default */
    int64_t cache_kib;
    uint64_t body_max;
    const char *signing_key_file, *import_dir; /* for the administrator; "": not allowed */
    uint64_t import_max;
};
/* Serve until a signal ends it: SIGTERM or SIGINT let requests end and the logs be stored, a second
 * one gives up on the store; SIGHUP reads keys, roles and certificates again. Sockets of a service
 * manager are taken (the first for clients, the second for the administrator), and it is told when
 * the service is ready and when it ends. A store that does not answer is no reason not to serve.
 * Fails: RC_INVALID an option; RC_FENCED the folder is in use; RC_DENIED; RC_BUSY a port is taken;
 * RC_CANCELED not everything is in the store; by errno. */
MUST_CHECK enum rc node_serve(const struct serve_opts *opts, struct err *err);
#endif
