/*
 * admin_intern.h -- what the files of the administrator's port share.
 *
 *   admin.c          routes, access, answers          admin_json.c     bodies and JSON
 *   admin_tenants.c  create, fork, configure, ...     admin_files.c    import, export
 *   admin_tokens.c   tokens of clients                admin_metrics.c  numbers
 */
#ifndef SERVER_ADMIN_INTERN_H
#define SERVER_ADMIN_INTERN_H
#include <jansson.h>
#include "server/server_intern.h"

struct admin { /* one request */
    struct server *server;
    struct http_req *http;
    const struct admin_route *route;
    struct crew_job job;
    char name[AUTH_NAME_MAX + 1]; /* :ns of the path; "": none */
    char to[AUTH_NAME_MAX + 1];   /* :to */
    json_t *body;                 /* an object, for routes that take one */
    const char *type;             /* of the answer; NULL: JSON */
    bool streaming, answered;     /* by the handler itself */
};
/* Run it, on a thread that may wait; what is put into out is the answer, nothing: "{}". */
typedef enum rc admin_fn(struct admin *a, struct buf *out, struct err *err);

/* ---- admin_json.c ---- */
/* An object; blank is an empty one. Fails: RC_INVALID; RC_NO_MEM. */
MUST_CHECK enum rc admin_json_read(const void *data, size_t size, json_t **ret, struct err *err);
/* Takes over o. NULL: RC_NO_MEM. */
MUST_CHECK enum rc admin_json_put(json_t *o, struct buf *out, struct err *err);
/* conf: the defaults, or what is to be replaced; what o has no word of stays, or is reset, as
 * docs/admin-api.md says. Texts point into o. Fails: RC_INVALID; RC_UNSUPPORTED. */
MUST_CHECK enum rc admin_json_conf(const json_t *o, bool create, struct tenant_conf *conf,
                                   struct err *err);
json_t *admin_json_of_conf(const struct tenant_conf *conf); /* NULL: no memory */
/* "timestamp" or "txid"; neither: all zero. Fails: RC_INVALID. */
MUST_CHECK enum rc admin_json_at(const json_t *o, struct tenant_at *ret, struct err *err);
/* "2026-01-02T03:04:05" is UTC; else RFC 3339 or seconds since 1970. Fails: RC_INVALID. */
MUST_CHECK enum rc admin_time(const char *text, int64_t *ret_ms, struct err *err);
/* "2w", "7d12h", "90s", "never": 0. Fails: RC_INVALID. */
MUST_CHECK enum rc admin_lifetime(const char *text, int64_t *ret_s, struct err *err);

/* ---- handlers ---- */
admin_fn admin_create, admin_remove, admin_fork, admin_rename, admin_restore, admin_list,
    admin_describe, admin_get_config, admin_set_config, admin_checkpoint, admin_stats,
    admin_clear_top, admin_clear_slowest;            /* admin_tenants.c */
admin_fn admin_import, admin_export;                 /* admin_files.c */
admin_fn admin_tokens, admin_rotate, admin_rotation; /* admin_tokens.c */
admin_fn admin_metrics, admin_diagnostics;           /* admin_metrics.c */

/* For admin_create: what a dump_url names becomes the tenant. */
MUST_CHECK enum rc admin_import_url(struct admin *a, const char *url,
                                    const struct tenant_conf *conf, struct err *err);
/* May who asks? *ret_why: for people. */
bool admin_may(const struct server *s, const struct http_req *r, unsigned *ret_status,
               const char **ret_why);
/* Let go of what keeps the tenant open: streams that wait, WebSockets. */
void admin_evict(struct server *s, const char *name);
#endif
