/* auth_intern.h -- what auth.c and grant.c share, and the fuzzer of claims; not for callers. */
#ifndef SERVER_AUTH_INTERN_H
#define SERVER_AUTH_INTERN_H
#include <stdatomic.h>
#include "server/auth.h"
#include "server/roles.h"

/* What was configured at one time; shared by the grants whose roles it holds, and counted. */
struct jwt_keys;
struct setup {
    atomic_uint refs;
    struct jwt_keys *keys; /* NULL: none */
    struct roles *roles;
    struct grant *all; /* for everybody when open, and for who knows the password */
    bool open;
    bool basic;             /* a password is set: */
    uint8_t basic_hash[32]; /* SHA-256 of its base64 */
};
struct setup *setup_ref(struct setup *s);
void setup_unref(struct setup *s); /* NULL is fine */

struct grant_tenant {
    const char *name;
    enum grant_level level;
    bool attach;
};
struct grant {
    atomic_uint refs;
    int64_t end_s;       /* expired from then on; INT64_MAX: never */
    struct setup *setup; /* kept for its roles; NULL: not needed */
    bool every;          /* every tenant, with: */
    enum grant_level level;
    bool attach;
    struct grant_tenant *tenants; /* else these, by name */
    size_t tenant_count;
    char *names;                     /* their memory */
    struct role *own_role;           /* from the token's rules; or NULL */
    struct sql_policy *own_policy;   /* of several roles; or NULL */
    const struct sql_policy *policy; /* NULL: no restriction */
};
/* From the claims of a token that was verified. setup: of its roles, kept if they are used.
 * Fails: RC_DENIED what is wrong with the claims, in printable ASCII; RC_NO_MEM. */
MUST_CHECK enum rc grant_parse(const void *claims, size_t size, struct setup *setup,
                               struct grant **ret_grant, struct err *err);
/* For everything, and for ever. Fails: RC_NO_MEM. */
MUST_CHECK enum rc grant_all(struct grant **ret_grant, struct err *err);
#endif
