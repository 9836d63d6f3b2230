/*
 * claims_fuzz.c -- the claims of a token that was verified, from whoever may sign: what they allow
 * is what a plain look at the JSON says, and roles never allow more than their rules say.
 */
#include <jansson.h>
#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "server/auth_intern.h"
#include "sql/actions.h"

static const char roles_text[] =
    "{\"reader\":[{\"effect\":\"allow\",\"actions\":[\"read\"]}],"
    "\"clerk\":[{\"effect\":\"deny\",\"actions\":[\"read\"],\"tables\":[\"s*\"]},"
    "{\"effect\":\"allow\",\"actions\":[\"*\"],\"tables\":[\"orders\",\"a*b\"]}]}";
static struct setup setup;

static void set_up(void)
{
    struct err err;
    if (setup.roles != NULL) return;
    atomic_init(&setup.refs, 1);
    CHECK(roles_parse(roles_text, &setup.roles, &err) == RC_OK);
}

/* What the claims say of one tenant, in the plainest way. */
static enum grant_level plain_level(const json_t *claims, const char *tenant, bool *ret_attach)
{
    static const char *const names[] = {"ro", "rw", "roa", "rwa", "ddl"};
    const json_t *p = json_object_get(claims, "p"), *id = json_object_get(claims, "id"), *ns, *name;
    enum grant_level level = GRANT_NONE;
    *ret_attach = false;
    for (size_t k = 0; k < 5; k++) {
        size_t i;
        bool hit = false;
        ns = json_object_get(json_object_get(p, names[k]), "ns");
        json_array_foreach(ns, i, name) hit = hit || strcmp(json_string_value(name), tenant) == 0;
        if (p == NULL) {
            const char *a = json_string_value(json_object_get(claims, "a"));
            hit = strcmp(a != NULL ? a : "rw", names[k]) == 0 &&
                  (id == NULL || strcmp(json_string_value(id), tenant) == 0);
        }
        if (!hit) continue;
        enum grant_level here = names[k][1] == 'o' ? GRANT_READ : GRANT_WRITE;
        if (here > level) level = here;
        if (strlen(names[k]) == 3 && names[k][2] == 'a') *ret_attach = true;
    }
    return level;
}

static void check_tenants(const struct grant *g, const json_t *claims)
{
    static const char *const tenants[] = {"shop", "blog", "", "a"};
    for (size_t i = 0; i < sizeof tenants / sizeof tenants[0]; i++) {
        bool attach;
        CHECK(grant_for(g, tenants[i]) == plain_level(claims, tenants[i], &attach));
        CHECK(grant_attach(g, tenants[i]) == attach);
    }
}

static void check_policy(const struct grant *g, const json_t *claims)
{
    static const char *const names[] = {"orders", "secret", "a_b", "sqlite_schema", "x_data"};
    bool restricted = false;
    static const char *const keys[] = {"role", "roles", "rules"};
    for (size_t i = 0; i < 3; i++)
        restricted = restricted || json_object_get(claims, keys[i]) != NULL;
    const struct sql_policy *p = grant_policy(g);
    CHECK((p != NULL) == restricted);
    if (p == NULL) return;
    for (int action = 0; action < 40; action++)
        for (size_t i = 0; i < 5; i++)
            (void)p->allows(p, action, names[i], names[(i + 1) % 5], i == 3 ? NULL : "main");
    /* Whoever may see what SQLite does not ask for may read everything. */
    if (p->allows(p, SQL_ACTION_UNSEEN, NULL, NULL, NULL))
        for (size_t i = 0; i < 5; i++)
            CHECK(p->allows(p, 20, names[i], "c", "main"));
    /* One of a single role without rules of its own: exactly that role. */
    const char *role = json_string_value(json_object_get(claims, "role"));
    if (role == NULL || json_object_get(claims, "roles") != NULL ||
        json_object_get(claims, "rules") != NULL)
        return;
    bool reader = strcmp(role, "reader") == 0;
    CHECK(p->allows(p, 20, "secret", "c", "main") == reader);
    CHECK(p->allows(p, 18, "orders", NULL, "main") == !reader);
    CHECK(!p->allows(p, 18, "other", NULL, "main"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grant *g = NULL;
    struct err err = {0};
    if (size > FUZZ_SIZE_MAX) return 0;
    set_up();
    enum rc rc = grant_parse(data, size, &setup, &g, &err);
    CHECK(rc == RC_OK || rc == RC_DENIED);
    CHECK((rc == RC_OK) == (g != NULL));
    for (const char *p = err.text; *p != '\0'; p++)
        CHECK((uint8_t)*p >= ' ' && (uint8_t)*p < 0x7f);
    CHECK(rc == RC_OK || err.text[0] != '\0');
    if (rc != RC_OK) return 0;
    json_t *claims = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    CHECK(claims != NULL);
    check_tenants(g, claims);
    check_policy(g, claims);
    const json_t *exp = json_object_get(claims, "exp");
    if (exp == NULL) CHECK(!grant_expired(g, INT64_MAX - 1));
    if (json_is_integer(exp) && json_integer_value(exp) < 4000000000)
        CHECK(grant_expired(g, 4000000060) && grant_expired(g, 4000000061));
    json_decref(claims);
    grant_unref(g);
    CHECK(atomic_load(&setup.refs) == 1);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    static const char *const seeds[] = {
        "{}",
        "{\"a\":\"ro\",\"id\":\"shop\",\"exp\":1300819380}",
        "{\"a\":\"rwa\",\"exp\":1.5e9}",
        "{\"p\":{\"ro\":{\"ns\":[\"shop\",\"blog\"],\"tags\":[\"x\"]},\"rwa\":{\"ns\":[\"a\"]},"
        "\"ddl\":{\"ns\":[\"shop\"]}}}",
        "{\"role\":\"reader\"}",
        "{\"role\":\"clerk\",\"id\":\"blog\"}",
        "{\"roles\":[\"clerk\",\"reader\"],\"a\":\"roa\"}",
        "{\"rules\":[{\"effect\":\"deny\",\"actions\":[\"read\",\"update\"],\"tables\":[\"x*\"],"
        "\"columns\":[\"c\"]},{\"effect\":\"allow\",\"actions\":[\"*\"]}]}",
        "{\"rules\":[{\"effect\":\"allow\",\"actions\":[\"schema\",\"pragma\",\"function\","
        "\"transaction\",\"insert\",\"delete\"],\"tables\":[\"a*b*\",\"*\"]}],\"role\":\"reader\"}",
    };
    n %= (unsigned)(sizeof seeds / sizeof seeds[0]);
    memcpy(out, seeds[n], strlen(seeds[n]));
    return strlen(seeds[n]);
}
