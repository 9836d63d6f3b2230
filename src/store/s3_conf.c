/*
 * s3_conf.c -- see s3_conf.h. The order of authority for each fact: a setting, the name of the
 * host, the default. What Litestream does with a URL was measured; what it would only misread
 * (a host that is an IP address, say) is given the meaning that its writer had in mind.
 *
 *   s3://bucket/root                          AWS
 *   s3://bucket.<host of a service>/root      the services below and AWS
 *   s3://bucket.host:port/root                http, by path: MinIO and the like
 *   s3://host:port/bucket/root                the same, for an IP address or a name without dots
 *   s3://arn:aws:s3:region:account:accesspoint/name/root
 *   oss://bucket[.oss-region[-internal].aliyuncs.com]/root
 */
#include "store/s3_conf.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/hash.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PART_SIZE_MIN   (5ull << 20)
#define PART_SIZE_MAX   (5ull << 30)
#define CONCURRENCY_MAX 256
#define SSE_KEY_SIZE    32
#define SSE_FILE_MAX    1024

/*
 * Services that are known by the end of their host names. `head` is what stands between the bucket
 * and the suffix: "*" is a label that names the region (or, when `region` is given, anything).
 */
struct service {
    const char *suffix, *head;
    const char *region;   /* NULL: the label in place of '*', else us-east-1 */
    uint32_t concurrency; /* 0: the default */
    bool path_style, tigris, google;
};
static const struct service services[] = {
    {.suffix = "digitaloceanspaces.com", .head = "*"},
    {.suffix = "backblazeb2.com", .head = "s3.*", .path_style = true},
    {.suffix = "filebase.com", .head = "s3", .path_style = true},
    {.suffix = "scw.cloud", .head = "s3.*"},
    {.suffix = "your-objectstorage.com", .head = "*"},
    {.suffix = "wasabisys.com", .head = "s3.*"},
    {.suffix = "linodeobjects.com", .head = "*"},
    {.suffix = "eu.r2.cloudflarestorage.com", .head = "*", .region = "auto", .concurrency = 2},
    {.suffix = "fedramp.r2.cloudflarestorage.com", .head = "*", .region = "auto", .concurrency = 2},
    {.suffix = "r2.cloudflarestorage.com", .head = "*", .region = "auto", .concurrency = 2},
    {.suffix = "fly.storage.tigris.dev", .head = "", .region = "auto", .tigris = true},
    {.suffix = "t3.storage.dev", .head = "", .region = "auto", .tigris = true},
    {.suffix = "storage.googleapis.com", .head = "", .region = "auto", .google = true},
};
#define SERVICE_COUNT (sizeof services / sizeof services[0])

static enum rc take_text(struct store_settings *set, const char *key, char *out, size_t out_size,
                         struct err *err);
static enum rc copy_text(const char *what, const char *from, size_t size, char *out,
                         size_t out_size, struct err *err);
static enum rc take_keys(struct store_settings *set, struct s3_conf *c, struct err *err);
static enum rc place_by_settings(struct store_settings *set, struct s3_conf *c, struct err *err);
static enum rc place_by_url(struct store_settings *set, struct s3_conf *c, bool oss,
                            struct err *err);
static enum rc place_arn(const struct url *url, struct s3_conf *c, struct err *err);
static enum rc place_local(const struct url *url, struct s3_conf *c, const char **ret_path,
                           struct err *err);
static enum rc place_known(const struct url *url, bool oss, struct s3_conf *c,
                           const char **ret_path, struct err *err);
static enum rc split_host(const char *host, size_t bucket_size, struct s3_conf *c,
                          const char **ret_path, struct err *err);
static enum rc first_segment(struct s3_conf *c, const char **ret_path, struct err *err);
static enum rc root_put(const char *path, struct s3_conf *c, struct err *err);
static enum rc path_decode(const char *path, char *out, size_t out_size, struct err *err);
static void path_clean(char *path);
static enum rc bucket_check(struct s3_conf *c, struct err *err);
static enum rc arn_check(struct s3_conf *c, struct err *err);
static enum rc take_endpoint(struct store_settings *set, struct s3_conf *c, bool oss,
                             struct err *err);
static enum rc endpoint_put(const char *text, struct s3_conf *c, struct url *ret_url,
                            struct err *err);
static enum rc endpoint_facts(const struct url *url, bool oss, struct s3_conf *c, struct err *err);
static enum rc take_region(struct store_settings *set, struct s3_conf *c, bool oss,
                           struct err *err);
static enum rc take_transfer(struct store_settings *set, struct s3_conf *c, bool oss,
                             struct err *err);
static enum rc take_sse(struct store_settings *set, struct s3_conf *c, struct err *err);
static enum rc sse_key_put(const char *key_text, const char *path, struct s3_conf *c,
                           struct err *err);
static const struct service *service_of(const char *host, size_t *ret_bucket_size, char region[64]);
static bool aws_host(const char *host, size_t *ret_bucket_size, char region[64], bool *ret_plain);
static bool oss_host(const char *host, size_t *ret_bucket_size, char region[64]);
static bool ends_with(const char *text, const char *end);
static bool host_is_local(const char *host);
static bool host_is_ip(const char *host);

enum rc s3_conf_get(struct store_settings *set, bool oss, struct s3_conf *ret, struct err *err)
{
    struct s3_conf c = {.dialect = oss ? S3_OSS : S3_AWS,
                        .sign_payload = true,
                        .content_md5 = true,
                        .concurrency = oss ? 3 : 5,
                        .part_size = PART_SIZE_MIN};
    TRY(take_keys(set, &c, err));
    if (set->url_given)
        TRY(place_by_url(set, &c, oss, err));
    else
        TRY(place_by_settings(set, &c, err));
    TRY(bucket_check(&c, err));
    TRY(take_endpoint(set, &c, oss, err));
    TRY(take_region(set, &c, oss, err));
    TRY(take_transfer(set, &c, oss, err));
    if (!oss) TRY(take_sse(set, &c, err));
    *ret = c;
    return RC_OK;
}

/* ---- Texts ---- */

static enum rc take_text(struct store_settings *set, const char *key, char *out, size_t out_size,
                         struct err *err)
{
    const char *value = store_setting(set, key);
    if (value[0] == '\0') return RC_OK;
    for (const char *p = value; *p != '\0'; p++)
        if (iscntrl((unsigned char)*p))
            return err_set(err, RC_INVALID, "setting '%s' holds a control character", key);
    return copy_text(key, value, strlen(value), out, out_size, err);
}

/* The text is not shown: it may be a secret. */
static enum rc copy_text(const char *what, const char *from, size_t size, char *out,
                         size_t out_size, struct err *err)
{
    if (size >= out_size)
        return err_set(err, RC_INVALID, "'%s' is longer than %zu bytes", what, out_size - 1);
    memcpy(out, from, size);
    out[size] = '\0';
    return RC_OK;
}

static enum rc take_keys(struct store_settings *set, struct s3_conf *c, struct err *err)
{
    const struct url *u = &set->url;
    TRY(copy_text("access key in the URL", u->user, strlen(u->user), c->access_key,
                  sizeof c->access_key, err));
    TRY(copy_text("secret key in the URL", u->password, strlen(u->password), c->secret_key,
                  sizeof c->secret_key, err));
    if ((c->access_key[0] == '\0') != (c->secret_key[0] == '\0'))
        return err_set(err, RC_INVALID,
                       "the URL has only one of two keys: write s3://KEY:SECRET@bucket, with "
                       "special characters as %%XX, or use settings");
    bool key = store_setting(set, "access-key-id")[0] != '\0';
    bool secret = store_setting(set, "secret-access-key")[0] != '\0';
    if (key != secret)
        return err_set(err, RC_INVALID, "'%s' is given without '%s'",
                       key ? "access-key-id" : "secret-access-key",
                       key ? "secret-access-key" : "access-key-id");
    TRY(take_text(set, "access-key-id", c->access_key, sizeof c->access_key, err));
    return take_text(set, "secret-access-key", c->secret_key, sizeof c->secret_key, err);
}

/* ---- Bucket and root ---- */

static enum rc place_by_settings(struct store_settings *set, struct s3_conf *c, struct err *err)
{
    if (store_setting(set, "bucket")[0] == '\0')
        return err_set(err, RC_INVALID,
                       "no bucket: give the setting 'bucket', or a URL such as "
                       "s3://bucket/path");
    TRY(take_text(set, "bucket", c->bucket, sizeof c->bucket, err));
    return take_text(set, "path", c->root, sizeof c->root, err);
}

static enum rc place_by_url(struct store_settings *set, struct s3_conf *c, bool oss,
                            struct err *err)
{
    const struct url *u = &set->url;
    const char *path = u->path;
    static const char *const excluded[] = {"bucket", "path"};
    for (size_t i = 0; i < 2; i++)
        if (store_setting(set, excluded[i])[0] != '\0')
            return err_set(err, RC_INVALID,
                           "a URL and the setting '%s' exclude each other: the URL names bucket "
                           "and path",
                           excluded[i]);
    if (u->host[0] == '\0')
        return err_set(err, RC_INVALID, "no bucket in the URL: write %s://bucket/path", u->scheme);
    if (!oss && strncasecmp(u->host, "arn:", 4) == 0) return place_arn(u, c, err);
    if (u->port != 0 || ends_with(u->host, ".localhost"))
        TRY(place_local(u, c, &path, err));
    else
        TRY(place_known(u, oss, c, &path, err));
    return root_put(path, c, err);
}

/* "arn:aws:s3:us-west-2:123456789012:accesspoint/name/root": url_get has cut at the first '/'. */
static enum rc place_arn(const struct url *url, struct s3_conf *c, struct err *err)
{
    const char *path = url->path;
    if (ends_with(url->host, ":accesspoint")) {
        size_t size = path[0] == '/' ? 1 + strcspn(path + 1, "/") : 0;
        int n = snprintf(c->bucket, sizeof c->bucket, "%s%.*s", url->host, (int)size, path);
        if (n < 0 || (size_t)n >= sizeof c->bucket)
            return err_set(err, RC_INVALID, "the name of the access point is too long");
        path += size;
    } else {
        TRY(copy_text("bucket", url->host, strlen(url->host), c->bucket, sizeof c->bucket, err));
    }
    TRY(root_put(path, c, err));
    if (strcmp(c->root, ".") == 0) c->root[0] = '\0'; /* an access point has no "./" */
    return RC_OK;
}

static enum rc place_local(const struct url *url, struct s3_conf *c, const char **ret_path,
                           struct err *err)
{
    const char *dot = strchr(url->host, '.');
    bool v6 = strchr(url->host, ':') != NULL;
    const char *host = url->host;
    if (strcasestr(host, ".com") != NULL)
        return err_set(err, RC_INVALID,
                       "is '%s:%u' a bucket and a host, or a host alone? Write "
                       "s3://bucket/path?endpoint=https://host:port",
                       host, url->port);
    if (host_is_ip(host) || dot == NULL) {
        TRY(first_segment(c, ret_path, err));
    } else {
        TRY(copy_text("bucket", host, (size_t)(dot - host), c->bucket, sizeof c->bucket, err));
        host = dot + 1;
    }
    char port[8] = "";
    if (url->port != 0 && url->port != 80) snprintf(port, sizeof port, ":%u", url->port);
    snprintf(c->endpoint, sizeof c->endpoint, v6 ? "http://[%s]%s" : "http://%s%s", host, port);
    c->path_style = true;
    return RC_OK;
}

static enum rc place_known(const struct url *url, bool oss, struct s3_conf *c,
                           const char **ret_path, struct err *err)
{
    size_t bucket_size;
    char region[64] = "";
    bool plain = false;
    const struct service *s = NULL;
    if (oss) {
        if (oss_host(url->host, &bucket_size, region))
            return split_host(url->host, bucket_size, c, ret_path, err);
    } else if (aws_host(url->host, &bucket_size, region, &plain)) {
        TRY(split_host(url->host, bucket_size, c, ret_path, err));
        if (plain) c->endpoint[0] = '\0';
        memcpy(c->region, region, sizeof region);
        return RC_OK;
    } else if ((s = service_of(url->host, &bucket_size, region)) != NULL) {
        TRY(split_host(url->host, bucket_size, c, ret_path, err));
        c->path_style = c->path_style || s->path_style;
        return RC_OK;
    }
    return copy_text("bucket", url->host, strlen(url->host), c->bucket, sizeof c->bucket, err);
}

/* The first bucket_size bytes of host are the bucket, what follows the next '.' is the service.
 * Without a bucket there the path starts with it. */
static enum rc split_host(const char *host, size_t bucket_size, struct s3_conf *c,
                          const char **ret_path, struct err *err)
{
    const char *service = bucket_size == 0 ? host : host + bucket_size + 1;
    snprintf(c->endpoint, sizeof c->endpoint, "https://%s", service);
    if (bucket_size == 0) return first_segment(c, ret_path, err);
    return copy_text("bucket", host, bucket_size, c->bucket, sizeof c->bucket, err);
}

static enum rc first_segment(struct s3_conf *c, const char **ret_path, struct err *err)
{
    const char *path = *ret_path;
    size_t size = path[0] == '/' ? strcspn(path + 1, "/") : 0;
    if (size == 0)
        return err_set(err, RC_INVALID,
                       "no bucket in the URL: its host is that of a service, so "
                       "write scheme://host/bucket/path");
    *ret_path = path + 1 + size;
    return copy_text("bucket", path + 1, size, c->bucket, sizeof c->bucket, err);
}

/* Litestream's root for a URL's path: decoded, cleaned, without the first '/'. So "" becomes "."
 * and "/" becomes "", and the keys of a replica start with "./" or "/": these are facts by now. */
static enum rc root_put(const char *path, struct s3_conf *c, struct err *err)
{
    char clean[sizeof((struct url *)NULL)->path + 2];
    TRY(path_decode(path, clean, sizeof clean - 1, err));
    path_clean(clean);
    const char *from = clean[0] == '/' ? clean + 1 : clean;
    return copy_text("path", from, strlen(from), c->root, sizeof c->root, err);
}

static enum rc path_decode(const char *path, char *out, size_t out_size, struct err *err)
{
    size_t n = 0;
    for (const char *p = path; *p != '\0' && n + 1 < out_size; p++) {
        unsigned value = (unsigned char)*p;
        if (*p == '%') {
            if (!isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]) ||
                sscanf(p + 1, "%2x", &value) != 1 || value == 0)
                return err_set(err, RC_INVALID,
                               "the path of the URL has a broken '%%' escape: "
                               "write %%25 for a '%%'");
            p += 2;
        }
        out[n++] = (char)value;
    }
    out[n] = '\0';
    return RC_OK;
}

/* Resolve "//", "." and ".." by text alone, in place; nothing left is ".". path has room for one
 * byte more than it holds. */
static void path_clean(char *path)
{
    bool rooted = path[0] == '/';
    size_t used = rooted, floor = rooted; /* output; below floor no ".." can climb */
    for (const char *p = path + rooted; *p != '\0';) {
        size_t size = strcspn(p, "/");
        const char *segment = p;
        p += size + (p[size] == '/');
        if (size == 0 || (size == 1 && segment[0] == '.')) continue;
        bool up = size == 2 && segment[0] == '.' && segment[1] == '.';
        if (up && used > floor) {
            while (used > floor && path[--used] != '/') {
            }
            continue;
        }
        if (up && rooted) continue;
        if (used > rooted) path[used++] = '/';
        memmove(path + used, segment, size);
        used += size;
        if (up) floor = used;
    }
    if (used == 0) path[used++] = '.';
    path[used] = '\0';
}

static enum rc bucket_check(struct s3_conf *c, struct err *err)
{
    size_t size = strlen(c->bucket);
    if (strncasecmp(c->bucket, "arn:", 4) == 0) return arn_check(c, err);
    bool good = size >= 3;
    for (const char *p = c->bucket; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr(".-_", *p) == NULL) good = false;
    if (good && strcmp(c->bucket, "...") != 0) return RC_OK;
    return err_set(err, RC_INVALID,
                   "'%s' is no name of a bucket: it has 3 to 255 letters, digits, '.', '-', '_'",
                   c->bucket);
}

/* arn:PARTITION:s3:REGION:ACCOUNT:accesspoint/NAME (or :NAME). The region is the ARN's. */
static enum rc arn_check(struct s3_conf *c, struct err *err)
{
    const char *part[6];
    size_t count = 0;
    for (const char *p = c->bucket; p != NULL && count < 6; p = p ? p + 1 : NULL) {
        part[count++] = p;
        p = strchr(p, ':');
    }
    const char *name = count == 6 && strncmp(part[5], "accesspoint", 11) == 0 ? part[5] + 11 : "";
    if (count < 6 || strncmp(part[2], "s3", 2) != 0 || (*name != '/' && *name != ':') ||
        name[1] == '\0' || part[5] - part[4] < 2)
        return err_set(err, RC_INVALID,
                       "'%s' does not name an access point: write "
                       "arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME",
                       c->bucket);
    for (const char *p = c->bucket; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr(":/-._", *p) == NULL)
            return err_set(err, RC_INVALID, "'%s' has a character that no ARN has", c->bucket);
    size_t region = (size_t)(part[4] - part[3]) - 1;
    if (region == 0)
        return err_set(err, RC_INVALID,
                       "'%s' is an access point of several regions, which needs a signature that "
                       "is not built in: use the access point of one region",
                       c->bucket);
    return copy_text("region", part[3], region, c->region, sizeof c->region, err);
}

/* ---- Endpoint and region ---- */

static enum rc take_endpoint(struct store_settings *set, struct s3_conf *c, bool oss,
                             struct err *err)
{
    struct url url = {0};
    const char *given = store_setting(set, "endpoint");
    if (given[0] != '\0') {
        TRY(endpoint_put(given, c, &url, err));
        c->path_style = !oss || host_is_ip(url.host) || host_is_local(url.host);
        if (strncasecmp(c->bucket, "arn:", 4) == 0) c->path_style = false;
    } else if (c->endpoint[0] != '\0') {
        TRY(url_get(c->endpoint, &url, err));
    }
    TRY(endpoint_facts(&url, oss, c, err));
    return store_setting_bool(set, "force-path-style", &c->path_style, err);
}

static enum rc endpoint_put(const char *text, struct s3_conf *c, struct url *ret_url,
                            struct err *err)
{
    char full[sizeof c->endpoint];
    bool schemed = strstr(text, "://") != NULL;
    int n = snprintf(full, sizeof full, "%s%s", schemed ? "" : "https://", text);
    if (n < 0 || (size_t)n >= sizeof full)
        return err_set(err, RC_INVALID, "'endpoint' is longer than %zu bytes", sizeof full - 9);
    if (url_get(full, ret_url, err) != RC_OK) {
        err->rc = RC_INVALID;
        return err_wrap(err, "'endpoint'");
    }
    struct url *u = ret_url;
    if (u->user[0] != '\0' || u->password[0] != '\0' || strchr(text, '@') != NULL)
        return err_set(err, RC_INVALID,
                       "'endpoint' holds credentials: use 'access-key-id' and "
                       "'secret-access-key'");
    bool http = strcmp(u->scheme, "http") == 0;
    bool good = u->host[0] != '\0' && u->query[0] == '\0' && strchr(u->path, '#') == NULL &&
                (http || strcmp(u->scheme, "https") == 0);
    for (const char *p = u->host; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr("-._:", *p) == NULL) good = false;
    for (const char *p = u->path; *p != '\0'; p++)
        if (!isgraph((unsigned char)*p)) good = false;
    if (!good)
        return err_set(err, RC_INVALID, "'endpoint' is '%.100s': it wants https://host[:port]",
                       text);
    if (!schemed && host_is_local(u->host)) snprintf(u->scheme, sizeof u->scheme, "http");
    for (size_t size = strlen(u->path); size > 0 && u->path[size - 1] == '/';)
        u->path[--size] = '\0';
    char port[8] = "";
    /* A default port is not part of the Host header, and so of no signature. */
    if (u->port != 0 && u->port != (u->scheme[4] == 's' ? 443 : 80))
        snprintf(port, sizeof port, ":%u", u->port);
    bool v6 = strchr(u->host, ':') != NULL;
    n = snprintf(c->endpoint, sizeof c->endpoint, "%s://%s%s%s%s%s", u->scheme, v6 ? "[" : "",
                 u->host, v6 ? "]" : "", port, u->path);
    return n > 0 && (size_t)n < sizeof c->endpoint
               ? RC_OK
               : err_set(err, RC_INVALID, "'endpoint' is too long");
}

/* What the endpoint's host says about region, dialect and habits of the service. */
static enum rc endpoint_facts(const struct url *url, bool oss, struct s3_conf *c, struct err *err)
{
    char region[64] = "";
    size_t bucket_size = 0;
    bool plain = false;
    if (url->host[0] == '\0') return RC_OK;
    if (oss) {
        (void)oss_host(url->host, &bucket_size, region);
    } else if (!aws_host(url->host, &bucket_size, region, &plain)) {
        const struct service *s = service_of(url->host, &bucket_size, region);
        if (s != NULL && s->concurrency != 0) c->concurrency = s->concurrency;
        if (s != NULL && s->tigris) c->tigris = true;
        if (c->tigris) c->content_md5 = false;
        /* Regional and private hosts of Google's storage have names of their own. */
        if ((s != NULL && s->google) ||
            (ends_with(url->host, ".googleapis.com") && strstr(url->host, "storage") != NULL))
            c->dialect = S3_GOOGLE;
        if (region[0] == '\0') snprintf(region, sizeof region, "us-east-1");
    }
    if (c->region[0] != '\0') return RC_OK;
    return copy_text("region", region, strlen(region), c->region, sizeof c->region, err);
}

static enum rc take_region(struct store_settings *set, struct s3_conf *c, bool oss, struct err *err)
{
    bool arn = strncasecmp(c->bucket, "arn:", 4) == 0;
    if (arn)
        (void)store_setting(set, "region");
    else
        TRY(take_text(set, "region", c->region, sizeof c->region, err));
    if (oss && strncmp(c->region, "oss-", 4) == 0)
        memmove(c->region, c->region + 4, strlen(c->region + 4) + 1);
    if (oss && c->region[0] == '\0') snprintf(c->region, sizeof c->region, "cn-hangzhou");
    for (const char *p = c->region; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_')
            return err_set(err, RC_INVALID, "'region' is '%s': it wants a name such as us-east-1",
                           c->region);
    if (oss && c->endpoint[0] == '\0')
        snprintf(c->endpoint, sizeof c->endpoint, "https://oss-%s.aliyuncs.com", c->region);
    if (arn && c->path_style)
        return err_set(err, RC_INVALID,
                       "'force-path-style' and an access point exclude each "
                       "other");
    return RC_OK;
}

/* ---- The rest ---- */

static enum rc take_transfer(struct store_settings *set, struct s3_conf *c, bool oss,
                             struct err *err)
{
    char least[32];
    int64_t concurrency = c->concurrency;
    TRY(store_setting_bool(set, "sign-payload", &c->sign_payload, err));
    TRY(store_setting_bool(set, "require-content-md5", &c->content_md5, err));
    TRY(store_setting_bool(set, "skip-verify", &c->skip_verify, err));
    TRY(take_text(set, "storage-class", c->storage_class, sizeof c->storage_class, err));
    TRY(store_setting_int(set, "concurrency", 1, CONCURRENCY_MAX, &concurrency, err));
    c->concurrency = (uint32_t)concurrency;
    TRY(store_setting_size(set, "part-size", &c->part_size, err));
    if (c->part_size >= PART_SIZE_MIN && c->part_size <= PART_SIZE_MAX) return RC_OK;
    snprintf(least, sizeof least, "%s", c->part_size == 5000000 ? ": write 5MiB, not 5MB" : "");
    return err_set(err, RC_INVALID,
                   "'part-size' is %llu bytes: %s takes parts from 5 MiB (5242880 bytes) to 5 "
                   "GiB%s",
                   (unsigned long long)c->part_size, oss ? "OSS" : "S3", least);
}

static enum rc take_sse(struct store_settings *set, struct s3_conf *c, struct err *err)
{
    char md5[sizeof c->sse_key_md5] = "";
    struct url url = {0};
    const char *key = store_setting(set, "sse-customer-key");
    const char *path = store_setting(set, "sse-customer-key-path");
    TRY(take_text(set, "sse-customer-algorithm", c->sse_algorithm, sizeof c->sse_algorithm, err));
    TRY(take_text(set, "sse-customer-key-md5", md5, sizeof md5, err));
    TRY(take_text(set, "sse-kms-key-id", c->sse_kms_key_id, sizeof c->sse_kms_key_id, err));
    if (key[0] == '\0' && path[0] == '\0') {
        if (c->sse_algorithm[0] == '\0' && md5[0] == '\0') return RC_OK;
        return err_set(err, RC_INVALID, "'%s' is given without 'sse-customer-key'",
                       md5[0] ? "sse-customer-key-md5" : "sse-customer-algorithm");
    }
    if (c->sse_kms_key_id[0] != '\0')
        return err_set(err, RC_INVALID,
                       "'sse-kms-key-id' and 'sse-customer-key' exclude each "
                       "other: encrypt with one of them");
    if (c->sse_algorithm[0] == '\0') snprintf(c->sse_algorithm, sizeof c->sse_algorithm, "AES256");
    if (strcmp(c->sse_algorithm, "AES256") != 0)
        return err_set(err, RC_INVALID, "'sse-customer-algorithm' is '%s': it wants AES256",
                       c->sse_algorithm);
    TRY(sse_key_put(key, path, c, err));
    if (md5[0] != '\0' && strcmp(md5, c->sse_key_md5) != 0)
        return err_set(err, RC_INVALID,
                       "'sse-customer-key-md5' is not the MD5 of the key, as base64");
    if (c->endpoint[0] != '\0') TRY(url_get(c->endpoint, &url, err));
    if (strcmp(url.scheme, "http") == 0 && !host_is_local(url.host))
        return err_set(err, RC_INVALID,
                       "'sse-customer-key' would travel unencrypted: '%s' wants "
                       "to be https",
                       c->endpoint);
    return RC_OK;
}

/* A file holds the key as base64, or its 32 bytes. */
static enum rc sse_key_put(const char *key_text, const char *path, struct s3_conf *c,
                           struct err *err)
{
    static const char name[] = "sse-customer-key";
    uint8_t key[SSE_KEY_SIZE + 4], md5[MD5_SIZE];
    size_t size = 0;
    enum rc rc = RC_OK;
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    if (path[0] != '\0') {
        if (os_read_file(path, SSE_FILE_MAX, &text, err) != RC_OK)
            return err_wrap(err, "'%s-path'", name);
    } else {
        TRY(buf_append(&text, key_text, strlen(key_text), err));
    }
    if (path[0] != '\0' && text.size == SSE_KEY_SIZE) {
        memcpy(key, text.data, SSE_KEY_SIZE);
        size = SSE_KEY_SIZE;
    } else {
        while (text.size > 0 && isspace(text.data[text.size - 1]))
            text.size--;
        TRY(buf_append(&text, "", 1, err));
        rc = base64_get((const char *)text.data, key, sizeof key, &size, err);
        if (rc == RC_NO_MEM) return rc;
    }
    mem_wipe(text.data, text.size);
    if (rc != RC_OK || size != SSE_KEY_SIZE)
        return err_set(err, RC_INVALID, "'%s%s' is not %d bytes as base64", name,
                       path[0] ? "-path" : "", SSE_KEY_SIZE);
    _Static_assert(sizeof c->sse_key >= BASE64_SIZE(SSE_KEY_SIZE), "room for the key");
    base64_put(key, SSE_KEY_SIZE, c->sse_key);
    rc = hash_md5(key, SSE_KEY_SIZE, md5, err);
    mem_wipe(key, sizeof key);
    if (rc == RC_OK) base64_put(md5, sizeof md5, c->sse_key_md5);
    return rc;
}

/* ---- Hosts ---- */

/* The service that host belongs to, the size of what stands before its own name (a bucket, or 0)
 * and its region. NULL: not known. */
static const struct service *service_of(const char *host, size_t *ret_bucket_size, char region[64])
{
    for (const struct service *s = services; s < services + SERVICE_COUNT; s++) {
        if (!ends_with(host, s->suffix)) continue;
        size_t left = strlen(host) - strlen(s->suffix);
        if (left > 0 && host[left - 1] != '.') continue;
        if (s->region != NULL) snprintf(region, 64, "%s", s->region);
        bool good = true;
        for (size_t head = strlen(s->head); head > 0 && good;) {
            /* One label from the right, of the pattern and of the host. */
            const char *dot = memrchr(s->head, '.', head);
            const char *want = dot ? dot + 1 : s->head;
            size_t want_size = head - (size_t)(want - s->head);
            const char *stop = left > 0 ? memrchr(host, '.', left - 1) : NULL;
            const char *label = stop ? stop + 1 : host;
            size_t size = left > 0 ? left - 1 - (size_t)(label - host) : 0;
            bool star = *want == '*';
            good = size > 0 && (star || (size == want_size && strncasecmp(label, want, size) == 0));
            if (good && star && s->region == NULL && size < 64)
                snprintf(region, 64, "%.*s", (int)size, label);
            left = (size_t)(label - host);
            head = dot ? (size_t)(dot - s->head) : 0;
        }
        if (!good) continue;
        *ret_bucket_size = left > 0 ? left - 1 : 0;
        return s;
    }
    return NULL;
}

/* [bucket.]s3[.|-][region].amazonaws.com[.cn], dual-stack and other variants included. *ret_plain:
 * the region says it all. */
static bool aws_host(const char *host, size_t *ret_bucket_size, char region[64], bool *ret_plain)
{
    static const char *const ends[] = {".amazonaws.com", ".amazonaws.com.cn"};
    const char *end = ends_with(host, ends[0]) ? ends[0] : ends[1];
    const char *service = NULL;
    if (!ends_with(host, end)) return false;
    size_t size = strlen(host) - strlen(end);
    for (const char *p = host; p < host + size; p++) {
        bool start = p == host || p[-1] == '.';
        const char *after = p + 2;
        if (start && strncasecmp(p, "s3", 2) == 0 && strchr(".-", *after) != NULL &&
            after <= host + size)
            service = p;
    }
    if (service == NULL) return false;
    const char *label = memrchr(service, '.', (size_t)(host + size - service));
    label = label ? label + 1 : service;
    size_t label_size = (size_t)(host + size - label);
    bool dashed = label == service && label_size > 3; /* s3-us-west-2 */
    bool accelerate = strncasecmp(label, "s3-accelerate", 13) == 0;
    *ret_plain = end == ends[0] && (label == service || label == service + 3) && !accelerate;
    if (dashed) {
        label += 3;
        label_size -= 3;
    }
    if ((dashed || label > service) && !accelerate && label_size < 64)
        snprintf(region, 64, "%.*s", (int)label_size, label);
    *ret_bucket_size = service == host ? 0 : (size_t)(service - host) - 1;
    return true;
}

/* [bucket.]oss-REGION[-internal].aliyuncs.com */
static bool oss_host(const char *host, size_t *ret_bucket_size, char region[64])
{
    static const char end[] = ".aliyuncs.com", internal[] = "-internal";
    if (!ends_with(host, end)) return false;
    size_t size = strlen(host) - strlen(end);
    const char *dot = memrchr(host, '.', size);
    const char *label = dot ? dot + 1 : host;
    size_t label_size = (size_t)(host + size - label);
    if (label_size < 5 || strncasecmp(label, "oss-", 4) != 0) return false;
    *ret_bucket_size = dot ? (size_t)(dot - host) : 0;
    label += 4;
    label_size -= 4;
    size_t tail = strlen(internal);
    if (label_size > tail && strncasecmp(label + label_size - tail, internal, tail) == 0)
        label_size -= tail;
    bool global = label_size >= 10 && strncasecmp(label, "accelerate", 10) == 0;
    if (label_size < 64 && !global) snprintf(region, 64, "%.*s", (int)label_size, label);
    return true;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && strcasecmp(text + size - end_size, end) == 0;
}

/* This machine, or a private network by address or name: Litestream's rule, so that one
 * configuration means the same to both. */
static bool host_is_local(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (strcasecmp(host, "localhost") == 0 || ends_with(host, ".localhost") ||
        ends_with(host, ".local"))
        return true;
    if (inet_pton(AF_INET6, host, &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
    if (inet_pton(AF_INET, host, &v4) != 1) return false;
    uint32_t a = ntohl(v4.s_addr);
    return a >> 24 == 127 || a >> 24 == 10 || a >> 20 == (172u << 4 | 1) ||
           a >> 16 == (192u << 8 | 168);
}

static bool host_is_ip(const char *host)
{
    uint8_t address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}
