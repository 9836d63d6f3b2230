/* grant.c -- from the claims of a token to what it allows; see auth.h. */
#include "server/auth_intern.h"
#include "base/mem.h"
#include "fmt/jwt.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct access {
    const char *name;
    enum grant_level level;
    bool attach;
} accesses[] = {
    {"ro", GRANT_READ, false},  {"rw", GRANT_WRITE, false},  {"roa", GRANT_READ, true},
    {"rwa", GRANT_WRITE, true}, {"ddl", GRANT_WRITE, false}, /* libSQL's shared schemas; its other
                                                                meaning is to write */
};

static enum rc parse(const json_t *claims, struct setup *setup, struct grant *g, struct err *err);
static enum rc parse_id(const json_t *claims, struct grant *g, struct err *err);
static enum rc parse_access(const json_t *claims, struct grant *g, struct err *err);
static enum rc count_names(const json_t *permissions, size_t *ret_count, size_t *ret_size,
                           struct err *err);
static const json_t *names_of(const json_t *permissions, const struct access *a);
static void merge(struct grant *g);
static int by_name(const void *a, const void *b);
static enum rc parse_roles(const json_t *claims, struct setup *setup, struct grant *g,
                           struct err *err);
static enum rc add_role(const struct roles *roles, const json_t *name, const struct role **list,
                        size_t *count, struct err *err);
static int64_t end_of(const json_t *exp);
static const struct access *access_of(const char *name);
static const struct grant_tenant *find(const struct grant *g, const char *tenant);
static void json_freep(json_t **json);
static void grant_freep(struct grant **g);

enum rc grant_parse(const void *claims, size_t size, struct setup *setup, struct grant **ret_grant,
                    struct err *err)
{
    json_error_t why;
    CLEANUP(json_freep) json_t *json = json_loadb(claims, size, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(json)) {
        bool no_mem = json == NULL &&
                      (why.text[0] == '\0' || json_error_code(&why) == json_error_out_of_memory);
        if (no_mem) return err_mem(err, "the claims of a token");
        return err_set(err, RC_DENIED, "the claims of the token are not a JSON object");
    }
    CLEANUP(grant_freep) struct grant *g = NULL;
    TRY(grant_all(&g, err));
    TRY(parse(json, setup, g, err));
    *ret_grant = g;
    g = NULL;
    return RC_OK;
}

enum rc grant_all(struct grant **ret_grant, struct err *err)
{
    struct grant *g = mem_calloc(1, sizeof *g);
    if (g == NULL) return err_mem(err, "a grant");
    atomic_init(&g->refs, 1);
    g->end_s = INT64_MAX;
    g->every = g->attach = true;
    g->level = GRANT_WRITE;
    *ret_grant = g;
    return RC_OK;
}

struct grant *grant_ref(struct grant *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void grant_unref(struct grant *g)
{
    if (g == NULL || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) > 1) return;
    policy_free(g->own_policy);
    role_free(g->own_role);
    mem_free(g->tenants);
    mem_free(g->names);
    setup_unref(g->setup);
    mem_free(g);
}

enum grant_level grant_for(const struct grant *g, const char *tenant)
{
    if (g->every) return g->level;
    const struct grant_tenant *t = find(g, tenant);
    return t != NULL ? t->level : GRANT_NONE;
}

bool grant_attach(const struct grant *g, const char *tenant)
{
    if (g->every) return g->attach;
    const struct grant_tenant *t = find(g, tenant);
    return t != NULL && t->attach;
}

bool grant_expired(const struct grant *g, int64_t now_s)
{
    return now_s >= g->end_s;
}

const struct sql_policy *grant_policy(const struct grant *g)
{
    return g->policy;
}

static enum rc parse(const json_t *claims, struct setup *setup, struct grant *g, struct err *err)
{
    g->end_s = end_of(json_object_get(claims, "exp"));
    if (json_object_get(claims, "p") != NULL)
        TRY(parse_access(claims, g, err));
    else
        TRY(parse_id(claims, g, err));
    return parse_roles(claims, setup, g, err);
}

/* `a` and `id`. A claim of the wrong type is never taken for one that is not there: that would
 * give more than was meant. */
static enum rc parse_id(const json_t *claims, struct grant *g, struct err *err)
{
    const json_t *id = json_object_get(claims, "id"), *a = json_object_get(claims, "a");
    const char *name = json_string_value(id);
    const struct access *access = access_of(a != NULL ? json_string_value(a) : "rw");
    if (access == NULL)
        return err_set(err, RC_DENIED, "claim 'a' must be \"ro\", \"rw\", \"roa\" or \"rwa\"");
    g->level = access->level;
    g->attach = access->attach;
    if (id == NULL) return RC_OK;
    if (name == NULL || name[0] == '\0')
        return err_set(err, RC_DENIED, "claim 'id' must be the name of a namespace");
    g->every = false;
    g->names = mem_strdup(name);
    g->tenants = mem_calloc(1, sizeof *g->tenants);
    if (g->names == NULL || g->tenants == NULL) return err_mem(err, "a grant");
    g->tenants[0] = (struct grant_tenant){g->names, g->level, g->attach};
    g->tenant_count = 1;
    return RC_OK;
}

/* `p`. What it has besides the accesses that we know, and besides `ns`, gives nothing. */
static enum rc parse_access(const json_t *claims, struct grant *g, struct err *err)
{
    const json_t *p = json_object_get(claims, "p");
    size_t count = 0, size = 0;
    if (!json_is_object(p)) return err_set(err, RC_DENIED, "claim 'p' must be an object");
    TRY(count_names(p, &count, &size, err));
    g->every = false;
    g->level = GRANT_NONE;
    g->attach = false;
    g->names = mem_alloc(size);
    g->tenants = mem_calloc(count, sizeof *g->tenants);
    if (g->names == NULL || g->tenants == NULL) return err_mem(err, "a grant");
    char *at = g->names;
    for (size_t k = 0; k < sizeof accesses / sizeof accesses[0]; k++) {
        const json_t *ns = names_of(p, &accesses[k]);
        for (size_t i = 0; i < json_array_size(ns); i++) {
            const char *name = json_string_value(json_array_get(ns, i));
            size_t n = strlen(name) + 1;
            memcpy(at, name, n);
            g->tenants[g->tenant_count++] =
                (struct grant_tenant){at, accesses[k].level, accesses[k].attach};
            at += n;
        }
    }
    merge(g);
    return RC_OK;
}

static enum rc count_names(const json_t *permissions, size_t *ret_count, size_t *ret_size,
                           struct err *err)
{
    for (size_t k = 0; k < sizeof accesses / sizeof accesses[0]; k++) {
        const json_t *scope = json_object_get(permissions, accesses[k].name);
        if (scope == NULL) continue;
        const json_t *ns = json_object_get(scope, "ns");
        if (!json_is_object(scope) || (ns != NULL && !json_is_array(ns)))
            return err_set(err, RC_DENIED, "claim 'p': '%s' must be {\"ns\": [names]}",
                           accesses[k].name);
        for (size_t i = 0; i < json_array_size(ns); i++) {
            const char *name = json_string_value(json_array_get(ns, i));
            if (name == NULL)
                return err_set(err, RC_DENIED, "claim 'p': '%s' names something else than a text",
                               accesses[k].name);
            *ret_size += strlen(name) + 1;
            (*ret_count)++;
        }
    }
    return RC_OK;
}

static const json_t *names_of(const json_t *permissions, const struct access *a)
{
    return json_object_get(json_object_get(permissions, a->name), "ns");
}

/* A name that comes more than once gets the sum. */
static void merge(struct grant *g)
{
    size_t n = 0;
    qsort(g->tenants, g->tenant_count, sizeof *g->tenants, by_name);
    for (size_t i = 0; i < g->tenant_count; i++) {
        const struct grant_tenant *t = &g->tenants[i];
        struct grant_tenant *last = n > 0 ? &g->tenants[n - 1] : NULL;
        if (last == NULL || strcmp(last->name, t->name) != 0) {
            g->tenants[n++] = *t;
            continue;
        }
        if (t->level > last->level) last->level = t->level;
        last->attach = last->attach || t->attach;
    }
    g->tenant_count = n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct grant_tenant *)a)->name, ((const struct grant_tenant *)b)->name);
}

/* `role`, `roles`, `rules`: each that is there restricts. */
static enum rc parse_roles(const json_t *claims, struct setup *setup, struct grant *g,
                           struct err *err)
{
    const json_t *one = json_object_get(claims, "role"), *many = json_object_get(claims, "roles");
    const json_t *rules = json_object_get(claims, "rules");
    const struct role *list[POLICY_ROLES_MAX];
    size_t count = 0;
    if (one != NULL) TRY(add_role(setup->roles, one, list, &count, err));
    if (many != NULL && json_array_size(many) == 0)
        return err_set(err, RC_DENIED, "claim 'roles' must be an array of at least one name");
    for (size_t i = 0; i < json_array_size(many); i++)
        TRY(add_role(setup->roles, json_array_get(many, i), list, &count, err));
    if (count > 0) g->setup = setup_ref(setup);
    if (rules != NULL) {
        if (role_parse(rules, "of the token", &g->own_role, err) != RC_OK) {
            if (err->rc != RC_NO_MEM) err->rc = RC_DENIED;
            return err->rc;
        }
        if (count == POLICY_ROLES_MAX)
            return err_set(err, RC_DENIED, "more than %d roles", POLICY_ROLES_MAX);
        list[count++] = g->own_role;
    }
    if (count == 0) return RC_OK;
    if (count == 1) { /* so that all tokens of a role share prepared statements */
        g->policy = role_policy(list[0]);
        return RC_OK;
    }
    TRY(policy_new(list, count, &g->own_policy, err));
    g->policy = g->own_policy;
    return RC_OK;
}

static enum rc add_role(const struct roles *roles, const json_t *name, const struct role **list,
                        size_t *count, struct err *err)
{
    char shown[ROLES_SHOWN];
    const char *text = json_string_value(name);
    if (text == NULL) return err_set(err, RC_DENIED, "a role's name in the claims is not a text");
    const struct role *role = roles_find(roles, text);
    if (role == NULL)
        return err_set(err, RC_DENIED, "there is no role '%s'", roles_show(text, shown));
    if (*count == POLICY_ROLES_MAX)
        return err_set(err, RC_DENIED, "more than %d roles", POLICY_ROLES_MAX);
    list[(*count)++] = role;
    return RC_OK;
}

/* The second from which on jwt_verify would refuse it. */
static int64_t end_of(const json_t *exp)
{
    int64_t end = INT64_MAX;
    if (exp == NULL) return end;
    if (json_is_integer(exp)) {
        end = json_integer_value(exp);
    } else {
        double s = ceil(json_number_value(exp)); /* what is no number is 0: long ago */
        end = s >= 9e18 ? INT64_MAX : s <= -9e18 ? INT64_MIN : (int64_t)s;
    }
    return __builtin_add_overflow(end, JWT_LEEWAY_S, &end) ? INT64_MAX : end;
}

static const struct access *access_of(const char *name)
{
    for (size_t i = 0; i < sizeof accesses / sizeof accesses[0] && name != NULL; i++)
        if (strcmp(accesses[i].name, name) == 0) return &accesses[i];
    return NULL;
}

static const struct grant_tenant *find(const struct grant *g, const char *tenant)
{
    if (g->tenant_count == 0) return NULL;
    const struct grant_tenant key = {.name = tenant};
    return bsearch(&key, g->tenants, g->tenant_count, sizeof key, by_name);
}

static void json_freep(json_t **json)
{
    json_decref(*json);
}

static void grant_freep(struct grant **g)
{
    grant_unref(*g);
}
