/* config_keys.c -- the option table at work: defaults, one value's syntax and range; see
 * config_intern.h. */
#include "node/config_intern.h"
#include "base/mem.h"
#include "fmt/text.h"
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX            INT64_MAX

#define STRUCT_GLOBAL  struct config
#define STRUCT_DB      struct config_db
#define STRUCT_REPLICA struct config_replica

static const struct config_key keys[] = {
#define OPT(scope, key, field, kind, def, min, max, help)                                          \
    {CONFIG_##scope, key,  CONFIG_##kind, offsetof(STRUCT_##scope, field), def, min, max,          \
     NULL,           NULL, help},
#define CHOICE(scope, key, field, def, choices, help)                                              \
    {CONFIG_##scope, key,  CONFIG_STR, offsetof(STRUCT_##scope, field), def, 0, 0,                 \
     choices,        NULL, help},
#define REPLICA_OWN(key, field, help)                                                              \
    {CONFIG_REPLICA_OWN,                                                                           \
     key,                                                                                          \
     CONFIG_STR,                                                                                   \
     offsetof(struct config_replica, field),                                                       \
     "",                                                                                           \
     0,                                                                                            \
     0,                                                                                            \
     NULL,                                                                                         \
     NULL,                                                                                         \
     help},
#define STORE_OPT(key, types, kind, help)                                                          \
    {CONFIG_STORE, key, CONFIG_##kind, 0, "", -MAX, MAX, NULL, types, help},
#include "node/options.def"
#undef OPT
#undef CHOICE
#undef REPLICA_OWN
#undef STORE_OPT
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static const char *const kind_names[] = {
    [CONFIG_STR] = "text",      [CONFIG_BOOL] = "true or false", [CONFIG_INT] = "number",
    [CONFIG_MS] = "duration",   [CONFIG_SIZE] = "size",          [CONFIG_LIST] = "list of texts",
    [CONFIG_SECRET] = "secret",
};

static enum rc check_value(const struct config_key *k, const char *text, int64_t *ret_number,
                           const struct config_where *at, struct err *err);
static bool get_bool(const char *text, bool *ret);
static bool get_int(const char *text, int64_t *ret);
static bool get_fraction(const char *text, int64_t *ret);
static enum rc get_ms(const struct config_key *k, const char *text, int64_t *ret_ms,
                      const struct config_where *at, struct err *err);
static enum rc check_range(const struct config_key *k, int64_t v, const char *text,
                           const struct config_where *at, struct err *err);
static enum rc check_choice(const struct config_key *k, const char *text,
                            const struct config_where *at, struct err *err);
static bool same_name(const char *key, const char *name, size_t name_size);
static enum rc set_pair(struct config_replica *r, const char *key, const char *value, bool secret,
                        struct err *err);

const struct config_key *config__key(enum config_scope scope, const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].scope == scope && strcmp(keys[i].key, name) == 0) return &keys[i];
    return NULL;
}

/* Only what is known to be harmless; and a URL in a setting may hold a password. */
bool config__may_show(const char *name, size_t name_size, const char *end)
{
    size_t value_size = (size_t)(end - name) - name_size;
    if (memchr(name + name_size, '@', value_size) != NULL) return false;
    if (memmem(name + name_size, value_size, "%40", 3) != NULL) return false;
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].scope == CONFIG_STORE && keys[i].kind != CONFIG_SECRET &&
            same_name(keys[i].key, name, name_size))
            return true;
    return false;
}

bool config__section(enum config_scope scope, const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].scope == scope && strncmp(keys[i].key, name, size) == 0 &&
            keys[i].key[size] == '.')
            return true;
    return false;
}

enum rc config__defaults(enum config_scope scope, void *base, struct err *err)
{
    static const struct config_where nowhere = {.file = "defaults", .context = ""};
    for (size_t i = 0; i < KEY_COUNT; i++) {
        const struct config_key *k = &keys[i];
        if (k->scope != scope) continue;
        void *field = (char *)base + k->off;
        /* Not through config__set: a default may stand outside the range, as "not given". */
        int64_t number = 0;
        bool yes = false;
        switch (k->kind) {
        case CONFIG_BOOL:
            ASSERT(get_bool(k->def, &yes));
            *(bool *)field = yes;
            break;
        case CONFIG_INT:
            ASSERT(get_int(k->def, &number));
            *(int64_t *)field = number;
            break;
        case CONFIG_MS:
            TRY(get_ms(k, k->def, &number, &nowhere, err));
            *(int64_t *)field = number;
            break;
        default:
            TRY(config__str((char **)field, k->def, err));
        }
    }
    return RC_OK;
}

void config__fini(enum config_scope scope, void *base)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].scope != scope || keys[i].kind != CONFIG_STR) continue;
        char **field = (char **)(void *)((char *)base + keys[i].off);
        mem_free(*field);
        *field = NULL;
    }
}

enum rc config__set(const struct config_key *k, void *base, const char *text,
                    const struct config_where *at, struct err *err)
{
    int64_t number = 0;
    TRY(check_value(k, text, &number, at, err));
    if (k->scope == CONFIG_STORE)
        return set_pair(base, k->key, text, k->kind == CONFIG_SECRET, err);
    void *field = (char *)base + k->off;
    switch (k->kind) {
    case CONFIG_BOOL:
        *(bool *)field = number != 0;
        return RC_OK;
    case CONFIG_INT:
    case CONFIG_MS:
        *(int64_t *)field = number;
        return RC_OK;
    default:
        return config__str((char **)field, text, err);
    }
}

enum rc config__str(char **field, const char *text, struct err *err)
{
    char *copy = mem_strdup(text);
    if (copy == NULL) return err_mem(err, "a configuration value");
    mem_free(*field);
    *field = copy;
    return RC_OK;
}

enum rc config__replica_inherit(const struct config_replica *from, struct config_replica *ret,
                                struct err *err)
{
    TRY(config__defaults(CONFIG_REPLICA_OWN, ret, err));
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].scope != CONFIG_REPLICA) continue;
        /* The inheritable fields are numbers and booleans. */
        size_t size = keys[i].kind == CONFIG_BOOL ? sizeof(bool) : sizeof(int64_t);
        ASSERT(keys[i].kind != CONFIG_STR);
        memcpy((char *)ret + keys[i].off, (const char *)from + keys[i].off, size);
    }
    for (size_t i = 0; i < from->pair_count; i++)
        TRY(set_pair(ret, from->pairs[i].key, from->pairs[i].value, from->pairs[i].secret, err));
    return RC_OK;
}

enum rc config__bad(const struct config_where *at, const char *key, struct err *err,
                    const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char text[ERR_TEXT_MAX];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(err, RC_INVALID, "%.*s", ERR_TEXT_MAX - 1, text);
    if (at->context[0] != '\0' || key[0] != '\0') err_wrap(err, "%s%s", at->context, key);
    if (at->file[0] != '\0') err_wrap(err, "%s:%u", at->file, at->line);
    return err->rc;
}

enum rc config__warn(const struct config_where *at, const char *key, struct err *err,
                     const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char text[ERR_TEXT_MAX];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (at->cfg == NULL) return RC_OK;
    struct config *cfg = at->cfg;
    char **grown = mem_realloc(cfg->warnings, (cfg->warning_count + 1) * sizeof *grown);
    if (grown == NULL) return err_mem(err, "a warning");
    cfg->warnings = grown;
    char *line = mem_printf("%s:%u: %s%s: %s", at->file, at->line, at->context, key, text);
    if (line == NULL) return err_mem(err, "a warning");
    cfg->warnings[cfg->warning_count++] = line;
    return RC_OK;
}

size_t config_docs(const struct config_doc **ret_docs)
{
    static const char *const scopes[] = {
        [CONFIG_GLOBAL] = "",
        [CONFIG_DB] = "dbs[]",
        [CONFIG_REPLICA] = "dbs[].replica",
        [CONFIG_REPLICA_OWN] = "dbs[].replica",
        [CONFIG_STORE] = "dbs[].replica",
    };
    static struct config_doc docs[KEY_COUNT];
    for (size_t i = 0; i < KEY_COUNT; i++)
        docs[i] = (struct config_doc){.scope = scopes[keys[i].scope],
                                      .key = keys[i].key,
                                      .kind = kind_names[keys[i].kind],
                                      .def = keys[i].def,
                                      .choices = keys[i].choices,
                                      .types = keys[i].types,
                                      .help = keys[i].help};
    *ret_docs = docs;
    return KEY_COUNT;
}

/* Syntax and range, the same for fields and pairs. */
static enum rc check_value(const struct config_key *k, const char *text, int64_t *ret_number,
                           const struct config_where *at, struct err *err)
{
    bool yes = false;
    uint64_t bytes;
    switch (k->kind) {
    case CONFIG_BOOL:
        if (!get_bool(text, &yes))
            return config__bad(at, k->key, err, "must be true or false (got '%s')", text);
        *ret_number = yes;
        return RC_OK;
    case CONFIG_INT:
        if (!get_int(text, ret_number)) {
            if (!get_fraction(text, ret_number))
                return config__bad(at, k->key, err, "must be a whole number (got '%s')", text);
            TRY(config__warn(at, k->key, err, "'%s' is no whole number; it counts as %lld", text,
                             (long long)*ret_number));
        }
        return check_range(k, *ret_number, text, at, err);
    case CONFIG_MS:
        TRY(get_ms(k, text, ret_number, at, err));
        return check_range(k, *ret_number, text, at, err);
    case CONFIG_SIZE:
        if (size_get(text, &bytes, err) != RC_OK)
            return config__bad(at, k->key, err, "must be a size such as 5MiB (got '%s')", text);
        return RC_OK;
    default:
        return k->choices == NULL ? RC_OK : check_choice(k, text, at, err);
    }
}

static bool get_bool(const char *text, bool *ret)
{
    static const char *const words[] = {"false", "no", "off", "n", "true", "yes", "on", "y"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) != 0) continue;
        *ret = i >= 4;
        return true;
    }
    return false;
}

/* YAML 1.1 numbers: 0600 and 0o600 are octal, 0x and 0b, "_" between digits, 1e3 and 1.0. */
static bool get_int(const char *text, int64_t *ret)
{
    char digits[64], *end;
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '_') continue;
        if (n + 1 >= sizeof digits || (unsigned char)*p <= ' ') return false;
        digits[n++] = *p;
    }
    digits[n] = '\0';
    if (n == 0) return false;
    size_t sign = digits[0] == '-' || digits[0] == '+';
    errno = 0;
    if (strncasecmp(digits + sign, "0b", 2) == 0 || strncasecmp(digits + sign, "0o", 2) == 0) {
        int base = strncasecmp(digits + sign, "0b", 2) == 0 ? 2 : 8;
        /* strtoll would take a second sign here. */
        if (digits[sign + 2] < '0' || digits[sign + 2] > '9') return false;
        *ret = strtoll(digits + sign + 2, &end, base);
        if (digits[0] == '-') *ret = -*ret;
    } else {
        *ret = strtoll(digits, &end, 0);
    }
    if (*end == '\0' && errno == 0) return true;
    return get_fraction(digits, ret) && strtod(digits, NULL) == (double)*ret;
}

/* YAML lets a fraction stand for the number before its point. */
static bool get_fraction(const char *text, int64_t *ret)
{
    char *end;
    double d = strtod(text, &end);
    if (end == text || *end != '\0' || !(d >= -9e15 && d <= 9e15)) return false;
    *ret = (int64_t)d;
    return true;
}

static enum rc get_ms(const struct config_key *k, const char *text, int64_t *ret_ms,
                      const struct config_where *at, struct err *err)
{
    int64_t ns, number;
    if (duration_get(text, &ns, err) != RC_OK)
        return config__bad(at, k->key, err,
                           "must be a duration such as 500ms, 10s or 1h30m; days "
                           "do not exist (got '%s')",
                           text);
    *ret_ms = ns / 1000000 + (ns % 1000000 > 0) - (ns % 1000000 < 0);
    if (get_int(text, &number) && number != 0)
        return config__warn(at, k->key, err,
                            "'%s' has no unit and means nanoseconds; write 10s or "
                            "500ms",
                            text);
    return RC_OK;
}

static enum rc check_range(const struct config_key *k, int64_t v, const char *text,
                           const struct config_where *at, struct err *err)
{
    if (v >= k->min && v <= k->max) return RC_OK;
    if (v < k->min && k->min == 1)
        return config__bad(at, k->key, err, "must be greater than 0 (got %s)", text);
    if (v < k->min && k->kind == CONFIG_MS && k->min > 0) {
        char least[32];
        duration_put(k->min * 1000000, least);
        return config__bad(at, k->key, err, "must be at least %s (got %s)", least, text);
    }
    if (v < k->min)
        return config__bad(at, k->key, err, "must be at least %lld (got %s)", (long long)k->min,
                           text);
    return config__bad(at, k->key, err, "must be at most %lld (got %s)", (long long)k->max, text);
}

/* "force-path-style" and "forcePathStyle" are the same. */
static bool same_name(const char *key, const char *name, size_t name_size)
{
    const char *end = name + name_size;
    for (; *key != '\0'; key++) {
        if (*key == '-') {
            name += name < end && *name == '-';
        } else {
            if (name == end || tolower((unsigned char)*name) != *key) return false;
            name++;
        }
    }
    return name == end;
}

static enum rc check_choice(const struct config_key *k, const char *text,
                            const struct config_where *at, struct err *err)
{
    size_t size = strlen(text);
    for (const char *p = k->choices; p != NULL; p = strchr(p, '|')) {
        if (*p == '|') p++;
        if (strncmp(p, text, size) == 0 && (p[size] == '|' || p[size] == '\0')) return RC_OK;
    }
    return config__bad(at, k->key, err, "must be one of %s (got '%s')", k->choices, text);
}

static enum rc set_pair(struct config_replica *r, const char *key, const char *value, bool secret,
                        struct err *err)
{
    for (size_t i = 0; i < r->pair_count; i++)
        if (strcmp(r->pairs[i].key, key) == 0) return config__str(&r->pairs[i].value, value, err);
    struct config_pair *grown = mem_realloc(r->pairs, (r->pair_count + 1) * sizeof *grown);
    if (grown == NULL) return err_mem(err, "a store setting");
    r->pairs = grown;
    struct config_pair p = {.key = mem_strdup(key), .value = mem_strdup(value), .secret = secret};
    if (p.key == NULL || p.value == NULL) {
        mem_free(p.key);
        mem_free(p.value);
        return err_mem(err, "a store setting");
    }
    r->pairs[r->pair_count++] = p;
    return RC_OK;
}
