/* route.c -- which URL means what, and which tenant is asked. See libSQL's server. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "fmt/base64.h"
#include "server/server_intern.h"

struct entry {
    const char *method, *path; /* a path that ends with '*': and all behind it */
    enum route route;
    enum hrana_version version;
    bool proto;
};
static const struct entry entries[] = {
    {"GET", "/health", ROUTE_HEALTH, 0, false},
    {"GET", "/version", ROUTE_VERSION, 0, false},
    {"GET", "/v1", ROUTE_PROBE, HRANA_1, false},
    {"GET", "/v2", ROUTE_PROBE, HRANA_2, false},
    {"GET", "/v3", ROUTE_PROBE, HRANA_3, false},
    {"GET", "/v3-protobuf", ROUTE_PROBE, HRANA_3, true},
    {"POST", "/v2/pipeline", ROUTE_PIPELINE, HRANA_2, false},
    {"POST", "/v3/pipeline", ROUTE_PIPELINE, HRANA_3, false},
    {"POST", "/v3-protobuf/pipeline", ROUTE_PIPELINE, HRANA_3, true},
    {"POST", "/v3/cursor", ROUTE_CURSOR, HRANA_3, false},
    {"POST", "/v3-protobuf/cursor", ROUTE_CURSOR, HRANA_3, true},
    {"POST", "/v1/execute", ROUTE_V1_EXECUTE, HRANA_1, false},
    {"POST", "/v1/batch", ROUTE_V1_BATCH, HRANA_1, false},
    {"POST", "/", ROUTE_LEGACY, 0, false},
    {"GET", "/dump", ROUTE_DUMP, 0, false},
    {"GET", "/info", ROUTE_SYNC, 0, false},
    {"GET", "/export/*", ROUTE_SYNC, 0, false},
    {"GET", "/sync/*", ROUTE_SYNC, 0, false},
    {"POST", "/sync/*", ROUTE_SYNC, 0, false},
    {"POST", "/pull-updates", ROUTE_PULL, 0, false},
};

static bool matches(const char *pattern, const char *path);
static enum rc take_name(struct target *t, const char *name, size_t size, struct err *err);
static enum rc from_binary(struct target *t, const char *text, struct err *err);
static bool is_address(const char *host, size_t size);

enum rc route_find(const char *method, const char *path, bool upgrade, struct target *ret,
                   struct err *err)
{
    static const char prefix[] = "/dev/";
    *ret = (struct target){.route = ROUTE_NONE};
    if (strncmp(path, prefix, sizeof prefix - 1) == 0) {
        const char *name = path + sizeof prefix - 1;
        size_t size = strcspn(name, "/");
        TRY(take_name(ret, name, size, err));
        path = name[size] != '\0' ? name + size : "/";
    }
    ret->rest = path;
    if (upgrade && strcmp(method, "GET") == 0) {
        ret->route = ROUTE_WEBSOCKET;
        return RC_OK;
    }
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const struct entry *e = &entries[i];
        if (strcmp(e->method, method) != 0 || !matches(e->path, path)) continue;
        ret->route = e->route;
        ret->version = e->version;
        ret->proto = e->proto;
        break;
    }
    return RC_OK;
}

enum rc route_tenant(const struct http_req *r, bool no_default, struct target *t, struct err *err)
{
    if (t->tenant[0] != '\0') return RC_OK;
    const char *text = http_header(r, "x-namespace-bin");
    if (text != NULL) return from_binary(t, text, err);
    text = http_header(r, "x-namespace");
    if (text != NULL) return take_name(t, text, strlen(text), err);
    const char *host = http_header(r, "host");
    size_t size = host != NULL ? strcspn(host, ":") : 0;
    const char *dot = size > 0 ? memchr(host, '.', size) : NULL;
    if (host != NULL && host[0] != '[' && dot != NULL && dot != host && !is_address(host, size))
        return take_name(t, host, (size_t)(dot - host), err);
    if (no_default)
        return err_set(err, RC_NOT_FOUND,
                       "Missing namespace: neither path, header nor host name say which");
    return take_name(t, TENANT_DEFAULT, sizeof TENANT_DEFAULT - 1, err);
}

static bool matches(const char *pattern, const char *path)
{
    size_t size = strlen(pattern);
    if (pattern[size - 1] == '*') return strncmp(pattern, path, size - 1) == 0;
    if (strncmp(pattern, path, size) != 0) return false;
    return path[size] == '\0' || (path[size] == '/' && path[size + 1] == '\0');
}

static enum rc take_name(struct target *t, const char *name, size_t size, struct err *err)
{
    TRY(auth_check_name(name, size, false, err));
    memcpy(t->tenant, name, size);
    t->tenant[size] = '\0';
    return RC_OK;
}

/* Base64 of any kind: as libSQL's clients send it, with or without padding. */
static enum rc from_binary(struct target *t, const char *text, struct err *err)
{
    char plain[BASE64URL_SIZE(AUTH_NAME_MAX) + 4];
    uint8_t name[AUTH_NAME_MAX + 3];
    size_t size = strlen(text);
    while (size > 0 && text[size - 1] == '=')
        size--;
    if (size < sizeof plain) {
        for (size_t i = 0; i < size; i++)
            plain[i] = (char)(text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]);
        if (BASE64URL_BYTES(size) <= AUTH_NAME_MAX && base64url_get(plain, size, name))
            return take_name(t, (const char *)name, BASE64URL_BYTES(size), err);
    }
    return err_set(err, RC_INVALID, "x-namespace-bin is not the base64 of a namespace's name");
}

/* Numbers and dots: nobody has named a tenant by it. */
static bool is_address(const char *host, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!isdigit((unsigned char)host[i]) && host[i] != '.') return false;
    return true;
}
