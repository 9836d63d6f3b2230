/*
 * auth.h -- who asks, and what may they do: tokens as libSQL's server takes them, and roles.
 *
 * Claims of a token, as libSQL's server has them: `a` "ro" | "rw" (default) | "roa" | "rwa"; `id`
 * the one tenant it is for; or `p`: { "ro"|"rw"|"roa"|"rwa": {"ns": [names], "tags": [...]} },
 * which replaces `id` and `a`; `exp`, `nbf`. Ours: `role` or `roles`: names of roles of the
 * configuration (each must exist; several: what any of them allows and none denies), and `rules`:
 * the rules of a role in the token itself. Unknown claims are ignored.
 *
 * A role is a list of rules, tried in order; the first that matches decides; none: functions and
 * transactions are allowed, the rest is denied.
 *   {"effect": "allow"|"deny", "actions": ["read","insert","update","delete","schema","pragma",
 *    "transaction","function","*"], "tables": ["orders","audit_*","*"], "columns": ["email"]}
 * `tables` and `columns` are optional (any), case-insensitive, with '*' as the only wildcard;
 * `columns` for read and update only. A column that is denied for reading fails the statement.
 * Without any role nothing is restricted; with an empty one all is. More in roles.h.
 *
 * Verified tokens are remembered until they expire or auth_reload: a signature costs 90 µs, a
 * token that is remembered 0.4.
 *
 * Threads: any; auth_reload from one at a time.
 */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H
#include "base/buf.h"
#include "sql/conn.h"

#define AUTH_NAME_MAX 64 /* bytes of a tenant's name */

struct auth;  /* keys, roles, what was verified */
struct grant; /* what one token allows; shared, counted */

struct auth_opts {
    const char *key_file;  /* keys as jwt.h describes; NULL: none */
    const char *key_text;  /* the same as a text; NULL: none. With neither, all is allowed */
    const char *http_auth; /* libSQL's old "basic:BASE64"; NULL: none */
    const char *roles;     /* JSON: {"name": [rules], ...}; NULL: none */
};
/* Fails: RC_INVALID with the name of the role and what is wrong; RC_TOO_BIG; as jwt_keys_parse; by
 * errno. */
MUST_CHECK enum rc auth_new(const struct auth_opts *opts, struct auth **ret_a, struct err *err);
/* Would auth_reload read them? Fails: as auth_new. */
MUST_CHECK enum rc auth_check(const struct auth_opts *opts, struct err *err);
/* Read everything again. On failure the old stays. Roles and keys that were taken away bind at the
 * next request. Fails: as auth_new. */
MUST_CHECK enum rc auth_reload(struct auth *a, const struct auth_opts *opts, struct err *err);
void auth_free(struct auth *a);
bool auth_open(const struct auth *a); /* nothing is configured: everybody may do everything */

/* header: the value of Authorization or NULL; a token of a WebSocket's hello: auth_token. keys_text
 * (may be NULL): keys of the tenant, which replace the server's and its password. *ret_grant is
 * never NULL on RC_OK.
 * Fails: RC_DENIED with *ret_sql_err: code AUTH_HTTP_HEADER_MISSING, AUTH_HTTP_HEADER_INVALID,
 * AUTH_HTTP_HEADER_UNSUPPORTED_SCHEME, AUTH_BASIC_REJECTED, AUTH_BASIC_NOT_ALLOWED,
 * AUTH_JWT_MISSING, AUTH_JWT_NOT_ALLOWED, AUTH_JWT_INVALID, AUTH_JWT_EXPIRED, AUTH_JWT_IMMATURE and
 * libSQL's messages ("Unauthorized: `...`"); err has the reason for the log, without secrets;
 * RC_NO_MEM. */
MUST_CHECK enum rc auth_header(struct auth *a, const char *header, const char *keys_text,
                               struct grant **ret_grant, struct sql_error *ret_sql_err,
                               struct err *err);
MUST_CHECK enum rc auth_token(struct auth *a, const char *token, const char *keys_text,
                              struct grant **ret_grant, struct sql_error *ret_sql_err,
                              struct err *err);
struct grant *grant_ref(struct grant *g);
void grant_unref(struct grant *g); /* NULL is fine */

enum grant_level { GRANT_NONE, GRANT_READ, GRANT_WRITE };
enum grant_level grant_for(const struct grant *g, const char *tenant);
bool grant_attach(const struct grant *g, const char *tenant); /* may attach it, to read */
bool grant_expired(const struct grant *g, int64_t now_s);     /* for connections that stay open */
/* The policy of its roles for sql_conn_policy; NULL: no restriction. It lives as long as the grant:
 * take it off a connection before that goes. All tokens with one and the same role have the same
 * one (until auth_reload), so that they share a connection's statements; with several roles or
 * rules of its own, a token has one while it is remembered. */
const struct sql_policy *grant_policy(const struct grant *g);

/* libSQL's admin key: "basic KEY" or "Bearer KEY", compared in constant time. key NULL: true. */
bool auth_admin(const char *header, const char *key);
/* A name of a tenant: 1 to AUTH_NAME_MAX of [a-z0-9A-Z_-.], not starting with '.' or '-', not
 * differing from another only by case (so capitals are refused for new ones: `create` true).
 * Fails: RC_INVALID saying why. */
MUST_CHECK enum rc auth_check_name(const char *name, size_t size, bool create, struct err *err);
#endif
