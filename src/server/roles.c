/*
 * roles.c -- see roles.h. Rules are kept as they were written, names in lower case one after
 * another in one block; a policy is asked only while a statement is prepared, so a walk through all
 * rules is cheap enough.
 */
#include "server/roles.h"
#include "base/mem.h"
#include "sql/actions.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct words {
    char *text; /* each with its 0 */
    size_t count;
};
struct rule {
    bool deny;
    unsigned acts; /* 1 << enum sql_act */
    struct words tables, columns;
};
struct policy {
    struct sql_policy sql; /* first: a pointer to it is one to the whole */
    const struct role *const *roles;
    size_t count;
    bool changes_schema, reads_all;
};
struct role {
    struct rule *rules;
    size_t count;
    const struct role *self;
    struct policy policy; /* of this one alone */
};
struct named {
    char name[ROLE_NAME_MAX + 1];
    struct role *role;
};
struct roles {
    struct named *list;
    size_t count;
};

enum verdict { SILENT, ALLOWED, DENIED };

/* One action, with the other names that its table goes by. */
struct question {
    struct sql_action a;
    const char *alias;             /* sqlite_schema and sqlite_master; or NULL */
    char owner[ROLE_WORD_MAX + 1]; /* a virtual table whose shadow this may be; or "" */
};

#define BIT(act)  (1u << (act))
#define DATA_ACTS (BIT(SQL_ACT_READ) | CHANGES)
#define CHANGES   (BIT(SQL_ACT_INSERT) | BIT(SQL_ACT_UPDATE) | BIT(SQL_ACT_DELETE))
#define ALL_ACTS                                                                                   \
    (DATA_ACTS | BIT(SQL_ACT_SCHEMA) | BIT(SQL_ACT_PRAGMA) | BIT(SQL_ACT_TRANSACTION) |            \
     BIT(SQL_ACT_FUNCTION) | BIT(SQL_ACT_ATTACH))

static const struct {
    const char *name;
    unsigned acts;
} act_names[] = {
    {"read", BIT(SQL_ACT_READ)},
    {"insert", BIT(SQL_ACT_INSERT)},
    {"update", BIT(SQL_ACT_UPDATE)},
    {"delete", BIT(SQL_ACT_DELETE)},
    {"schema", BIT(SQL_ACT_SCHEMA)},
    {"pragma", BIT(SQL_ACT_PRAGMA)},
    {"transaction", BIT(SQL_ACT_TRANSACTION)},
    {"function", BIT(SQL_ACT_FUNCTION)},
    {"*", ALL_ACTS},
};

static enum rc parse_roles(json_t *json, struct roles *roles, struct err *err);
static enum rc parse_json(const char *text, json_t **ret, struct err *err);
static bool is_name(const char *name);
static enum rc parse_rule(json_t *json, struct rule *rule, struct err *err);
static enum rc parse_acts(const json_t *json, unsigned *ret_acts, struct err *err);
static enum rc parse_words(const json_t *json, const char *what, struct words *words,
                           struct err *err);
static void policy_init(struct policy *p, const struct role *const *roles, size_t count);
static bool allows(const struct sql_policy *policy, int action, const char *a, const char *b,
                   const char *db);
static void sum_up(struct policy *p);
static struct question question_of(int action, const char *a, const char *b);
static enum verdict judge(const struct role *role, const struct question *q);
static bool covers(const struct rule *r, const struct question *q);
static bool covers_column(const struct rule *r, const struct question *q);
static bool has(const struct words *words, const char *name);
static bool matches(const char *pattern, const char *text);
static char lower(char c);
static bool is_schema_table(const char *name);
static bool shows_samples(const struct sql_action *a);
static bool goes_with_schema(const struct sql_action *a);
static void name_owner(const char *table, char *owner, size_t size);
static bool one_of(const char *const *list, const char *name);
static void json_freep(json_t **json);
static void role_freep(struct role **role);
static void roles_freep(struct roles **roles);

/* ---- Parsing ---- */

enum rc roles_parse(const char *text, struct roles **ret_roles, struct err *err)
{
    CLEANUP(json_freep) json_t *json = NULL;
    CLEANUP(roles_freep) struct roles *roles = mem_calloc(1, sizeof *roles);
    if (roles == NULL) return err_mem(err, "roles");
    if (text != NULL) {
        TRY(parse_json(text, &json, err));
        TRY(parse_roles(json, roles, err));
    }
    *ret_roles = roles;
    roles = NULL;
    return RC_OK;
}

void roles_free(struct roles *roles)
{
    if (roles == NULL) return;
    for (size_t i = 0; i < roles->count; i++)
        role_free(roles->list[i].role);
    mem_free(roles->list);
    mem_free(roles);
}

const struct role *roles_find(const struct roles *roles, const char *name)
{
    for (size_t i = 0; i < roles->count; i++)
        if (strcmp(roles->list[i].name, name) == 0) return roles->list[i].role;
    return NULL;
}

enum rc role_parse(const json_t *rules, const char *name, struct role **ret_role, struct err *err)
{
    char shown[ROLES_SHOWN];
    size_t count = json_array_size(rules);
    roles_show(name, shown);
    if (!json_is_array(rules))
        return err_set(err, RC_INVALID, "role '%s': expected an array of rules", shown);
    if (count > ROLE_RULES_MAX)
        return err_set(err, RC_TOO_BIG, "role '%s': more than %d rules", shown, ROLE_RULES_MAX);
    CLEANUP(role_freep) struct role *role = mem_calloc(1, sizeof *role);
    if (role == NULL) return err_mem(err, "a role");
    role->rules = mem_calloc(count, sizeof *role->rules);
    if (role->rules == NULL) return err_mem(err, "the rules of a role");
    for (; role->count < count; role->count++) {
        enum rc rc = parse_rule(json_array_get(rules, role->count), &role->rules[role->count], err);
        if (rc != RC_OK) {
            role->count++; /* what there is of it is freed with the others */
            return err_wrap(err, "role '%s', rule %zu", shown, role->count);
        }
    }
    role->self = role;
    policy_init(&role->policy, &role->self, 1);
    *ret_role = role;
    role = NULL;
    return RC_OK;
}

void role_free(struct role *role)
{
    if (role == NULL) return;
    for (size_t i = 0; i < role->count; i++) {
        mem_free(role->rules[i].tables.text);
        mem_free(role->rules[i].columns.text);
    }
    mem_free(role->rules);
    mem_free(role);
}

const char *roles_show(const char *text, char out[ROLES_SHOWN])
{
    size_t n = 0;
    for (; text[n] != '\0' && n < ROLES_SHOWN - 1; n++)
        out[n] = (char)(text[n] >= ' ' && text[n] <= '~' ? text[n] : '?');
    out[n] = '\0';
    return out;
}

static enum rc parse_roles(json_t *json, struct roles *roles, struct err *err)
{
    char shown[ROLES_SHOWN];
    size_t count = json_object_size(json);
    if (count > ROLES_MAX) return err_set(err, RC_TOO_BIG, "more than %d roles", ROLES_MAX);
    roles->list = mem_calloc(count, sizeof *roles->list);
    if (roles->list == NULL) return err_mem(err, "roles");
    for (void *it = json_object_iter(json); it != NULL; it = json_object_iter_next(json, it)) {
        const char *name = json_object_iter_key(it);
        if (!is_name(name))
            return err_set(err, RC_INVALID,
                           "role '%s': a name is 1 to %d of letters, digits and '_', '-', '.', ':'",
                           roles_show(name, shown), ROLE_NAME_MAX);
        struct named *n = &roles->list[roles->count];
        TRY(role_parse(json_object_iter_value(it), name, &n->role, err));
        snprintf(n->name, sizeof n->name, "%s", name);
        roles->count++;
    }
    return RC_OK;
}

static enum rc parse_json(const char *text, json_t **ret, struct err *err)
{
    json_error_t why;
    size_t size = strnlen(text, ROLES_TEXT_MAX + 1);
    if (size > ROLES_TEXT_MAX)
        return err_set(err, RC_TOO_BIG, "roles: more than %d bytes", ROLES_TEXT_MAX);
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (json_is_object(json)) {
        *ret = json;
        return RC_OK;
    }
    json_decref(json);
    if (json == NULL && (why.text[0] == '\0' || json_error_code(&why) == json_error_out_of_memory))
        return err_mem(err, "roles");
    if (json != NULL) return err_set(err, RC_INVALID, "roles: not a JSON object");
    return err_set(err, RC_INVALID, "roles: not JSON with each name once, in line %d, column %d",
                   why.line, why.column);
}

static bool is_name(const char *name)
{
    size_t size = strlen(name);
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:";
    return size >= 1 && size <= ROLE_NAME_MAX && strspn(name, good) == size;
}

static enum rc parse_rule(json_t *json, struct rule *rule, struct err *err)
{
    static const char *const known[] = {"effect", "actions", "tables", "columns", NULL};
    char shown[ROLES_SHOWN];
    if (!json_is_object(json)) return err_set(err, RC_INVALID, "expected an object");
    for (void *it = json_object_iter(json); it != NULL; it = json_object_iter_next(json, it)) {
        const char *key = json_object_iter_key(it);
        size_t i = 0;
        while (known[i] != NULL && strcmp(known[i], key) != 0)
            i++;
        if (known[i] == NULL) /* a rule that is half understood is worse than none */
            return err_set(err, RC_INVALID, "unknown member '%s'", roles_show(key, shown));
    }
    const char *effect = json_string_value(json_object_get(json, "effect"));
    if (effect == NULL || (strcmp(effect, "allow") != 0 && strcmp(effect, "deny") != 0))
        return err_set(err, RC_INVALID, "'effect' must be \"allow\" or \"deny\"");
    rule->deny = strcmp(effect, "deny") == 0;
    TRY(parse_acts(json_object_get(json, "actions"), &rule->acts, err));
    TRY(parse_words(json_object_get(json, "tables"), "tables", &rule->tables, err));
    TRY(parse_words(json_object_get(json, "columns"), "columns", &rule->columns, err));
    if (rule->columns.count > 0 && (rule->acts & ~(BIT(SQL_ACT_READ) | BIT(SQL_ACT_UPDATE))) != 0)
        return err_set(err, RC_INVALID,
                       "'columns' goes with the actions \"read\" and \"update\" only");
    return RC_OK;
}

static enum rc parse_acts(const json_t *json, unsigned *ret_acts, struct err *err)
{
    const size_t known = sizeof act_names / sizeof act_names[0];
    char shown[ROLES_SHOWN];
    if (json_array_size(json) == 0)
        return err_set(err, RC_INVALID, "'actions' must be an array with at least one action");
    for (size_t i = 0; i < json_array_size(json); i++) {
        const char *name = json_string_value(json_array_get(json, i));
        size_t k = 0;
        while (k < known && (name == NULL || strcmp(name, act_names[k].name) != 0))
            k++;
        if (k == known)
            return err_set(err, RC_INVALID,
                           "unknown action '%s'; expected read, insert, update, delete, schema, "
                           "pragma, transaction, function or *",
                           roles_show(name != NULL ? name : "(not a text)", shown));
        *ret_acts |= act_names[k].acts;
    }
    return RC_OK;
}

/* "*" among them says nothing, so then there are none. */
static enum rc parse_words(const json_t *json, const char *what, struct words *words,
                           struct err *err)
{
    size_t count = json_array_size(json), size = 0;
    bool any = false;
    if (json == NULL) return RC_OK;
    if (count == 0 || count > ROLE_WORDS_MAX)
        return err_set(err, RC_INVALID, "'%s' must be an array of 1 to %d names", what,
                       ROLE_WORDS_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *word = json_string_value(json_array_get(json, i));
        size_t n = word != NULL ? strlen(word) : 0;
        if (n == 0 || n > ROLE_WORD_MAX)
            return err_set(err, RC_INVALID, "'%s': a name must be a text of 1 to %d bytes", what,
                           ROLE_WORD_MAX);
        any = any || word[strspn(word, "*")] == '\0';
        size += n + 1;
    }
    if (any) return RC_OK;
    words->text = mem_alloc(size);
    if (words->text == NULL) return err_mem(err, "the names of a rule");
    char *at = words->text;
    for (; words->count < count; words->count++) {
        for (const char *c = json_string_value(json_array_get(json, words->count)); *c != '\0'; c++)
            *at++ = lower(*c);
        *at++ = '\0';
    }
    return RC_OK;
}

/* ---- Deciding ---- */

const struct sql_policy *role_policy(const struct role *role)
{
    return &role->policy.sql;
}

enum rc policy_new(const struct role *const *roles, size_t count, struct sql_policy **ret_policy,
                   struct err *err)
{
    struct policy *p = mem_alloc(sizeof *p + count * sizeof(struct role *));
    if (p == NULL) return err_mem(err, "a policy");
    const struct role **list = (const struct role **)(p + 1);
    for (size_t i = 0; i < count; i++)
        list[i] = roles[i];
    policy_init(p, list, count);
    *ret_policy = &p->sql;
    return RC_OK;
}

void policy_free(struct sql_policy *policy)
{
    mem_free(policy);
}

static bool allows(const struct sql_policy *policy, int action, const char *a, const char *b,
                   const char *db)
{
    const struct policy *p = (const struct policy *)policy;
    struct question q = question_of(action, a, b);
    enum sql_act act = q.a.act;
    if (act == SQL_ACT_NOTHING) return true;
    if (act == SQL_ACT_UNSEEN) return p->reads_all;
    if ((BIT(act) & DATA_ACTS) != 0 && db != NULL && strcasecmp(db, "temp") == 0) return true;
    if ((BIT(act) & CHANGES) != 0 && is_schema_table(q.a.name)) return true;
    if (shows_samples(&q.a)) return p->reads_all;
    enum verdict sum = SILENT;
    for (size_t i = 0; i < p->count; i++) {
        enum verdict v = judge(p->roles[i], &q);
        if (v == DENIED) return false;
        if (v == ALLOWED) sum = ALLOWED;
    }
    if (sum == ALLOWED || act == SQL_ACT_FUNCTION || act == SQL_ACT_TRANSACTION) return true;
    return p->changes_schema && goes_with_schema(&q.a);
}

static void policy_init(struct policy *p, const struct role *const *roles, size_t count)
{
    *p = (struct policy){
        .sql = {.allows = allows, .id = sql_policy_id()}, .roles = roles, .count = count};
    sum_up(p);
}

static void sum_up(struct policy *p)
{
    bool denies = false;
    for (size_t i = 0; i < p->count; i++) {
        for (size_t k = 0; k < p->roles[i]->count; k++) {
            const struct rule *r = &p->roles[i]->rules[k];
            bool read = (r->acts & BIT(SQL_ACT_READ)) != 0;
            if (!r->deny && (r->acts & BIT(SQL_ACT_SCHEMA)) != 0) p->changes_schema = true;
            if (read && r->deny) denies = true;
            if (read && r->tables.count == 0 && r->columns.count == 0) p->reads_all = true;
        }
    }
    p->reads_all = p->reads_all && !denies;
}

static struct question question_of(int action, const char *a, const char *b)
{
    struct question q = {.a = sql_action_of(action, a, b)};
    const char *name = q.a.name;
    if (name == NULL || (BIT(q.a.act) & DATA_ACTS) == 0) return q;
    if (is_schema_table(name))
        q.alias = strcasestr(name, "temp") != NULL ? "sqlite_temp_schema" : "sqlite_schema";
    name_owner(name, q.owner, sizeof q.owner);
    return q;
}

static enum verdict judge(const struct role *role, const struct question *q)
{
    for (size_t i = 0; i < role->count; i++)
        if (covers(&role->rules[i], q)) return role->rules[i].deny ? DENIED : ALLOWED;
    return SILENT;
}

static bool covers(const struct rule *r, const struct question *q)
{
    if ((r->acts & BIT(q->a.act)) == 0) return false;
    if (r->tables.count == 0) return covers_column(r, q);
    if (q->a.name == NULL) return !r->deny;
    if (has(&r->tables, q->a.name) || (q->alias != NULL && has(&r->tables, q->alias)))
        return covers_column(r, q);
    return r->deny && q->owner[0] != '\0' && has(&r->tables, q->owner);
}

static bool covers_column(const struct rule *r, const struct question *q)
{
    if (r->columns.count == 0) return true;
    if (q->a.any_column && r->deny) return true;
    if (q->a.column == NULL || q->a.column[0] == '\0') return !r->deny;
    return has(&r->columns, q->a.column);
}

static bool has(const struct words *words, const char *name)
{
    const char *word = words->text;
    for (size_t i = 0; i < words->count; i++, word += strlen(word) + 1)
        if (matches(word, name)) return true;
    return false;
}

/* '*' is any text. Only the last '*' is ever tried again, so there is no blow-up. */
static bool matches(const char *pattern, const char *text)
{
    const char *star = NULL, *again = NULL;
    while (*text != '\0') {
        if (*pattern == '*') {
            star = ++pattern;
            again = text;
        } else if (*pattern == lower(*text)) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star;
            text = ++again;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

/* As SQLite compares names: ASCII only. */
static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static bool is_schema_table(const char *name)
{
    static const char *const list[] = {"sqlite_master", "sqlite_schema", "sqlite_temp_master",
                                       "sqlite_temp_schema", NULL};
    return name != NULL && one_of(list, name);
}

static bool shows_samples(const struct sql_action *a)
{
    static const char *const list[] = {"sqlite_stat4", "sqlite_stat3", NULL};
    return a->act == SQL_ACT_READ && a->name != NULL && one_of(list, a->name) &&
           strcasecmp(a->column, "sample") == 0;
}

/* What statements that change the schema do on the way. ALTER TABLE ... ADD COLUMN checks the
 * table; VACUUM attaches a file without a name. */
static bool goes_with_schema(const struct sql_action *a)
{
    static const char *const books[] = {
        "sqlite_master",      "sqlite_schema",   "sqlite_temp_master",
        "sqlite_temp_schema", "sqlite_stat1",    "sqlite_stat3",
        "sqlite_stat4",       "sqlite_sequence", NULL};
    if (a->name == NULL) return false;
    if (a->act == SQL_ACT_ATTACH) return a->name[0] == '\0';
    if (a->act == SQL_ACT_PRAGMA) return strcasecmp(a->name, "quick_check") == 0;
    if (a->act == SQL_ACT_READ && strcasecmp(a->name, "pragma_quick_check") == 0) return true;
    return (BIT(a->act) & DATA_ACTS) != 0 && one_of(books, a->name);
}

/* "docs" for "docs_content"; "" for most. */
static void name_owner(const char *table, char *owner, size_t size)
{
    static const char *const shadows[] = {"data",  "idx",    "content", "docsize", "config",
                                          "rowid", "parent", "node",    NULL};
    const char *dash = strrchr(table, '_');
    size_t n = dash != NULL ? (size_t)(dash - table) : 0;
    owner[0] = '\0';
    if (n == 0 || n >= size || !one_of(shadows, dash + 1)) return;
    memcpy(owner, table, n);
    owner[n] = '\0';
}

static bool one_of(const char *const *list, const char *name)
{
    for (size_t i = 0; list[i] != NULL; i++)
        if (strcasecmp(list[i], name) == 0) return true;
    return false;
}

static void json_freep(json_t **json)
{
    json_decref(*json);
}

static void role_freep(struct role **role)
{
    role_free(*role);
}

static void roles_freep(struct roles **roles)
{
    roles_free(*roles);
}
