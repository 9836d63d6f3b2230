/*
 * settings.c -- what a store is told: its URL in parts, and settings from two places with one
 * spelling. "?forcePathStyle=true" and `force-path-style: true` are the same. See driver.h.
 */
#include "base/mem.h"
#include "store/driver.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static enum rc take_query(struct store_settings *set, struct err *err);
static enum rc take_pair(struct store_settings *set, const char *pair, size_t size,
                         struct err *err);
static enum rc add(struct store_settings *set, const char *key, const char *value, struct err *err);
static void kebab(const char *name, size_t name_size, char *out, size_t out_size);
static enum rc decode(const char *text, size_t size, struct store_settings *set,
                      const char **ret_value, struct err *err);
static enum rc bad(const char *key, const char *value, const char *want, struct err *err);

enum rc store_settings_fill(struct store_settings *set, const struct store_conf *conf,
                            struct err *err)
{
    set->conf = conf;
    set->url_given = conf->url != NULL && conf->url[0] != '\0';
    if (set->url_given) {
        if (url_get(conf->url, &set->url, err) != RC_OK) {
            err->rc = RC_INVALID;
            return err_wrap(err, "store URL");
        }
        /* The name of a folder may hold a '?', and Litestream drops what follows one in a URL. */
        bool folder = set->url.scheme[0] == '\0' || strcmp(set->url.scheme, "file") == 0;
        if (!folder) TRY(take_query(set, err));
    }
    for (size_t i = 0; i < conf->setting_count; i++)
        TRY(add(set, conf->settings[i].key, conf->settings[i].value, err));
    return RC_OK;
}

enum rc store_settings_check(const struct store_settings *set, const char *type, struct err *err)
{
    for (size_t i = 0; i < set->count; i++)
        if (!set->items[i].used)
            return err_set(err, RC_INVALID, "stores of type '%s' have no setting '%s'", type,
                           set->items[i].key);
    return RC_OK;
}

const char *store_setting(struct store_settings *set, const char *key)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strcmp(set->items[i].key, key) != 0) continue;
        set->items[i].used = true;
        return set->items[i].value;
    }
    return "";
}

enum rc store_setting_bool(struct store_settings *set, const char *key, bool *ret, struct err *err)
{
    static const char *const yes[] = {"true", "1", "t", "yes", "on"};
    static const char *const no[] = {"false", "0", "f", "no", "off"};
    const char *value = store_setting(set, key);
    if (value[0] == '\0') return RC_OK;
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcasecmp(value, yes[i]) != 0 && strcasecmp(value, no[i]) != 0) continue;
        *ret = strcasecmp(value, yes[i]) == 0;
        return RC_OK;
    }
    return bad(key, value, "true or false", err);
}

enum rc store_setting_int(struct store_settings *set, const char *key, int64_t min, int64_t max,
                          int64_t *ret, struct err *err)
{
    const char *value = store_setting(set, key);
    char *end, want[64];
    if (value[0] == '\0') return RC_OK;
    long long n = strtoll(value, &end, 10); /* saturates, and the limits are below that */
    if (*end == '\0' && n >= min && n <= max) {
        *ret = n;
        return RC_OK;
    }
    snprintf(want, sizeof want, "a number from %lld to %lld", (long long)min, (long long)max);
    return bad(key, value, want, err);
}

enum rc store_setting_size(struct store_settings *set, const char *key, uint64_t *ret,
                           struct err *err)
{
    const char *value = store_setting(set, key);
    if (value[0] == '\0' || size_get(value, ret, err) == RC_OK) return RC_OK;
    return bad(key, value, "a size such as 5MiB", err);
}

enum rc store_setting_ms(struct store_settings *set, const char *key, int64_t *ret, struct err *err)
{
    const char *value = store_setting(set, key);
    int64_t ns;
    if (value[0] == '\0') return RC_OK;
    if (duration_get(value, &ns, err) != RC_OK) return bad(key, value, "a time such as 2s", err);
    *ret = ns / 1000000;
    return RC_OK;
}

static enum rc take_query(struct store_settings *set, struct err *err)
{
    for (const char *p = set->url.query; *p != '\0';) {
        size_t size = strcspn(p, "&");
        if (size > 0) TRY(take_pair(set, p, size, err));
        p += size + (p[size] == '&');
    }
    return RC_OK;
}

static enum rc take_pair(struct store_settings *set, const char *pair, size_t size, struct err *err)
{
    char key[sizeof set->items[0].key];
    const char *value = NULL, *eq = memchr(pair, '=', size);
    size_t name_size = eq ? (size_t)(eq - pair) : size;
    kebab(pair, name_size, key, sizeof key);
    const char *from = eq ? eq + 1 : pair + size;
    TRY(decode(from, (size_t)(pair + size - from), set, &value, err));
    return add(set, key, value, err);
}

/* A later one wins: settings come after the query. */
static enum rc add(struct store_settings *set, const char *key, const char *value, struct err *err)
{
    size_t i = 0;
    while (i < set->count && strcmp(set->items[i].key, key) != 0)
        i++;
    if (i == STORE_SETTING_MAX || strlen(key) >= sizeof set->items[0].key)
        return err_set(err, RC_INVALID,
                       "too many settings for a store, or a name too long: '%.64s'", key);
    snprintf(set->items[i].key, sizeof set->items[i].key, "%s", key);
    set->items[i].value = value;
    if (i == set->count) set->count++;
    return RC_OK;
}

/* "requireContentMD5" to "require-content-md5": a dash where lower case turns to upper case. */
static void kebab(const char *name, size_t name_size, char *out, size_t out_size)
{
    size_t used = 0;
    for (size_t i = 0; i < name_size && used + 2 < out_size; i++) {
        unsigned char ch = (unsigned char)name[i];
        if (i > 0 && isupper(ch) && islower((unsigned char)name[i - 1])) out[used++] = '-';
        out[used++] = (char)tolower(ch);
    }
    out[used] = '\0';
}

static enum rc decode(const char *text, size_t size, struct store_settings *set,
                      const char **ret_value, struct err *err)
{
    char *out = set->text + set->text_used;
    size_t room = sizeof set->text - set->text_used;
    if (size >= room) return err_set(err, RC_TOO_BIG, "the query of a store URL is too long");
    *ret_value = out;
    for (size_t i = 0; i < size; i++) {
        char hex[3] = {0};
        if (text[i] == '+') {
            *out++ = ' ';
        } else if (text[i] != '%') {
            *out++ = text[i];
        } else {
            if (i + 2 < size) memcpy(hex, text + i + 1, 2);
            if (!isxdigit((unsigned char)hex[0]) || !isxdigit((unsigned char)hex[1]))
                return err_set(err, RC_INVALID, "a store URL's query has a broken '%%' escape");
            *out++ = (char)strtol(hex, NULL, 16);
            i += 2;
        }
    }
    *out++ = '\0';
    set->text_used = (size_t)(out - set->text);
    return RC_OK;
}

/* The value is shown: numbers, sizes and switches are no secrets. */
static enum rc bad(const char *key, const char *value, const char *want, struct err *err)
{
    return err_set(err, RC_INVALID, "setting '%s' is '%.64s': it wants %s", key, value, want);
}
