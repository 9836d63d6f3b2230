/* config_store.c -- from a replica's entry in the configuration to an open store. See config.h. */
#include "base/log.h"
#include "node/config_intern.h"
#include <stdio.h>
#include <string.h>

#define TROUBLE_MS 1000 /* a shorter run of failures is for debugging only */

static bool names_type(const char *types, const char *type);
static void on_trouble(void *ctx, const char *store_name, const struct store_trouble *t);

enum rc config_replica_open(const struct config_replica *r, struct store **ret_store,
                            struct err *err)
{
    struct store_setting settings[STORE_SETTINGS_MAX];
    struct store_conf conf = {
        .type = r->type, .url = r->url, .settings = settings, .on_trouble = on_trouble};
    if (strcmp(r->type, "file") == 0) return store_open(r->path, ret_store, err);
    if (r->path[0] != '\0')
        settings[conf.setting_count++] = (struct store_setting){"path", r->path};
    for (size_t i = 0; i < r->pair_count; i++) {
        /* A setting of the top level is for those stores that have it. */
        const struct config_key *k = config__key(CONFIG_STORE, r->pairs[i].key);
        if (k == NULL || !names_type(k->types, r->type)) continue;
        ASSERT(conf.setting_count < STORE_SETTINGS_MAX);
        settings[conf.setting_count++] = (struct store_setting){r->pairs[i].key, r->pairs[i].value};
    }
    return store_open_conf(&conf, ret_store, err);
}

/* The URL less its path, and the settings that name a server. */
void config_replica_service(const struct config_replica *r, char ret_name[CONFIG_SERVICE_MAX])
{
    static const char *const keys[] = {"endpoint", "region", "host", "webdav-url", "account-name"};
    const char *host = strstr(r->url, "://");
    host = host == NULL || strcmp(r->type, "file") == 0 ? "" : host + 3;
    const char *query = strchr(host, '?');
    int used = snprintf(ret_name, CONFIG_SERVICE_MAX, "%s %.*s%s", r->type,
                        (int)strcspn(host, "/?"), host, query == NULL ? "" : query);
    for (size_t i = 0; i < r->pair_count; i++)
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
            if (strcmp(r->pairs[i].key, keys[k]) == 0 && used < CONFIG_SERVICE_MAX)
                used += snprintf(ret_name + used, CONFIG_SERVICE_MAX - (size_t)used, " %s=%s",
                                 keys[k], r->pairs[i].value);
}

/* One of the words of "s3 oss"? */
static bool names_type(const char *types, const char *type)
{
    size_t size = strlen(type);
    for (const char *p = types; (p = strstr(p, type)) != NULL; p += size) {
        bool begins = p == types || p[-1] == ' ';
        if (begins && (p[size] == '\0' || p[size] == ' ')) return true;
    }
    return false;
}

/* One line for a whole run of failures, once it is over, if it was long enough to matter. While it
 * lasts, those who need the store say so themselves. */
static void on_trouble(void *ctx, const char *store_name, const struct store_trouble *t)
{
    char count[24], ms[24];
    (void)ctx;
    snprintf(count, sizeof count, "%llu", (unsigned long long)t->count);
    snprintf(ms, sizeof ms, "%lld", (long long)t->elapsed_ms);
    log_write(t->elapsed_ms < TROUBLE_MS ? LOG_DEBUG : LOG_WARN, "store answers again", "store",
              store_name, "failures", count, "elapsed_ms", ms, "first", t->first.text, "last",
              t->last.text, NULL);
}
