/*
 * azure.c -- a store in a container of Azure Blob Storage, through its REST interface.
 *
 *   abs://account@container/path                               as Litestream writes it
 *   abs://account.blob.core.windows.net/container/path         as the service writes it
 *
 * The object `key` is the block blob "<path>/<key>", path without slashes at its ends and cleaned
 * of "." and "..". Its time is the metadata litestreamtimestamp, else when it was created.
 *
 * An object of at most one part is one request, Put Blob. A larger one, or one of unknown size, is
 * a set of blocks that nobody sees, put by several threads ("lanes") with a buffer each, and a list
 * that makes a blob of them in one step, with the condition of the put. Blocks that no list names
 * are dropped by the service after a week, so nothing has to be cleaned up.
 *
 * Each request with a body carries its MD5, which the service checks.
 *
 * Threads: any; after open nothing changes but what azure_auth and http guard.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/azure_auth.h"
#include "store/hash.h"
#include "store/xml.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PART_DEFAULT  (8ull << 20)
#define PART_MIN      (64ull << 10)
#define PART_MAX      (512ull << 20)
#define BLOCKS_MAX    50000 /* of a blob */
#define BLOCK_MAX     (4000ull << 20)
#define STEP_BLOCKS   10000          /* of unknown size: blocks of twice the size after so many */
#define MEMORY_MAX    (256ull << 20) /* of all lanes; one lane may use more */
#define CHUNK_SIZE    (1u << 20)     /* bytes between two looks at the deadline */
#define DELETES       8              /* under way at one time */
#define NAME_MAX_     1024           /* bytes of a blob's name */
#define ROOT_MAX      (NAME_MAX_ - 1 - STORE_KEY_MAX)
#define PAGE_SIZE     2000 /* blobs in one answer of a listing, each about 1 KB of XML */
#define PAGE_TEXT_MAX (16u << 20)
#define EMPTY_MAX     1000   /* pages in a row without an object that say that there is more */
#define SKEW_MS       300000 /* clocks this far apart are worth a word */
#define TIME_NAME     "litestreamtimestamp"
#define BLOCK_ID_SIZE 89 /* with the terminating 0 */

struct azure {
    struct store base;
    struct http *http;
    struct azure_auth *auth;
    char account[64], container[64];
    char root[ROOT_MAX + 1]; /* "" or without slashes at its ends */
    char endpoint[320];      /* without a slash at its end */
    uint64_t part_size;
    unsigned concurrency;
};

/* One call of the store's interface, for the callbacks of its requests. */
struct op {
    struct azure *a;
    const struct call *c;
    const struct store_put_opts *put; /* NULL: not a put */
    struct store_obj *obj;            /* a get's, with the time of its metadata; or NULL */
    bool del;
    atomic_bool renewed; /* the token was refused once */
    char what[STORE_KEY_MAX + 32];
};

/* A put in blocks. */
struct upload {
    struct op *op;
    const char *key;
    const struct store_body *body;
    uint64_t block_size;
    uint64_t salt; /* tells our blocks from those of others that write the same blob */
    pthread_mutex_t lock;
    struct buf *first; /* [lock] the block that was read already, for whoever comes first */
    uint64_t off;      /* [lock] of the next block */
    uint32_t count;    /* [lock] blocks handed out */
    bool ended;        /* [lock] by the end of the body or by a failure */
};

struct page {
    struct op *op;
    store_list_fn *fn;
    void *ctx;
    const char *after;
    struct store_obj obj;                          /* being read */
    int64_t timestamp_ms, created_ms, modified_ms; /* -1: none */
    bool skip; /* not an object of ours: a folder, a name that cannot be a key */
    bool has_size, is_listing;
    unsigned empty;               /* pages in a row without an object */
    char last[STORE_KEY_MAX + 1]; /* the key before */
    char marker[XML_TEXT_MAX + 1];
};

static enum rc azure_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void azure_close(struct store *s);
static enum rc azure_put(struct store *s, const struct call *c, const char *key,
                         const struct store_body *body, const struct store_put_opts *opts,
                         struct store_obj *ret_obj, struct err *err);
static enum rc azure_get(struct store *s, const struct call *c, const char *key,
                         const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                         struct err *err);
static enum rc azure_list(struct store *s, const struct call *c, const char *prefix,
                          const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                          struct err *err);
static enum rc azure_del(struct store *s, const struct call *c, const char *key, struct err *err);
static enum rc azure_del_many(struct store *s, const struct call *c, const char *const *keys,
                              size_t key_count, struct err *err);
static enum rc azure_presign(struct store *s, const struct call *c, const char *key, bool put,
                             int64_t expires_s, struct buf *out, struct err *err);

static enum rc conf_get(struct azure *a, struct store_settings *set, struct err *err);
static enum rc conf_names(struct azure *a, struct store_settings *set, struct err *err);
static enum rc conf_auth(struct azure *a, struct store_settings *set, struct err *err);
static enum rc endpoint_set(struct azure *a, const char *text, struct err *err);
static enum rc root_set(struct azure *a, const char *path, bool escaped, struct err *err);
static bool name_ok(const char *name, size_t size_min, size_t size_max);
static enum rc connect_to(struct azure *a, const struct store_settings *set, struct err *err);
static const char *either(const char *a, const char *b);
static const char *env(const char *name);
static bool is_private(const char *host);

static struct op op_begin(struct azure *a, const struct call *c, const char *verb, const char *key);
static enum rc send_req(struct op *op, struct http_req *req, struct http_resp *resp,
                        struct err *err);
static enum rc sign(void *ctx, struct http_req *req, struct err *err);
static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err);
static enum rc put_url(const struct azure *a, const char *key, const char *query, struct buf *out,
                       struct err *err);
static enum rc put_text(struct buf *out, struct err *err);
static enum rc key_ok(const char *key, struct err *err);
static enum rc put_md5(struct http_req *req, const struct buf *data, struct err *err);
static enum rc put_headers(struct op *op, struct http_req *req, struct err *err);
static enum rc put_done(const struct op *op, const char *key, uint64_t size,
                        const struct http_resp *resp, struct store_obj *ret_obj, struct err *err);
static enum rc put_missing(struct op *op, const char *key, struct err *err);

static enum rc put_whole(struct op *op, const char *key, const struct buf *data,
                         struct store_obj *ret_obj, struct err *err);
static enum rc put_blocks(struct op *op, const char *key, const struct store_body *body,
                          struct buf *first, struct store_obj *ret_obj, struct err *err);
static enum rc put_list(struct upload *u, struct store_obj *ret_obj, struct err *err);
static enum rc lane(void *ctx, uint64_t i, struct err *err);
static enum rc lane_take(struct upload *u, struct buf *data, uint32_t *ret_index, struct err *err);
static enum rc lane_put(struct upload *u, const struct buf *data, uint32_t index, struct err *err);
static void block_id(const struct upload *u, uint32_t index, char out[BLOCK_ID_SIZE]);
static uint64_t block_next(const struct upload *u);
static enum rc body_fill(const struct op *op, const struct store_body *body, uint64_t off,
                         uint64_t size, struct buf *data, struct err *err);

static void get_head(void *ctx, const struct http_resp *resp);
static enum rc list_page(struct op *op, const char *prefix, uint32_t count, struct page *page,
                         struct err *err);
static void page_next(struct page *page);
static enum rc list_item(void *ctx, const char *path, const char *text, struct err *err);
static enum rc list_object(struct page *page, struct err *err);
static void etag_set(struct store_obj *obj, const char *text);
static int64_t date_get(const char *text);
static enum rc del_one(void *ctx, uint64_t i, struct err *err);

const struct store_ops store_azure_ops = {
    .type = "abs",
    .caps =
        STORE_CAP_CREATE | STORE_CAP_CAS | STORE_CAP_RANGE | STORE_CAP_TIMESTAMP | STORE_CAP_STREAM,
    .open = azure_open,
    .close = azure_close,
    .put = azure_put,
    .get = azure_get,
    .list = azure_list,
    .del = azure_del,
    .del_many = azure_del_many,
    .presign = azure_presign,
};

static enum rc azure_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    struct azure *a = mem_calloc(1, sizeof *a);
    if (a == NULL) return err_mem(err, "a store");
    enum rc rc = conf_get(a, set, err);
    if (rc == RC_OK) rc = connect_to(a, set, err);
    if (rc == RC_OK)
        *ret_store = &a->base;
    else
        azure_close(&a->base);
    return rc;
}

static void azure_close(struct store *s)
{
    struct azure *a = (struct azure *)s;
    http_close(a->http);
    azure_auth_close(a->auth);
    mem_free(a);
}

static enum rc azure_put(struct store *s, const struct call *c, const char *key,
                         const struct store_body *body, const struct store_put_opts *opts,
                         struct store_obj *ret_obj, struct err *err)
{
    struct azure *a = (struct azure *)s;
    struct op op = op_begin(a, c, "put", key);
    CLEANUP(buf_fini) struct buf first = BUF_INIT;
    struct store_put_opts mine = *opts;
    enum rc rc;
    if (mine.timestamp_ms == 0) mine.timestamp_ms = os_now_ms();
    op.put = &mine;
    if (body->size == STORE_SIZE_UNKNOWN || body->size <= a->part_size)
        TRY(body_fill(&op, body, 0, body->size < a->part_size ? body->size : a->part_size, &first,
                      err));
    if (body->size == STORE_SIZE_UNKNOWN ? first.size < a->part_size : body->size <= a->part_size)
        rc = put_whole(&op, key, &first, ret_obj, err);
    else
        rc = put_blocks(&op, key, body, &first, ret_obj, err);
    /* The service says the same about another version and none at all. */
    if (rc == RC_CONFLICT && opts->if_etag != NULL) return put_missing(&op, key, err);
    return rc;
}

static enum rc azure_get(struct store *s, const struct call *c, const char *key,
                         const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                         struct err *err)
{
    struct azure *a = (struct azure *)s;
    struct op op = op_begin(a, c, "get", key);
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "GET", .op = STORE_OP_GET};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    TRY(put_url(a, key, "", &url, err));
    req.url = (const char *)url.data;
    req.sink = sink;
    req.sink_ctx = ctx;
    req.ranged = opts->off != 0 || opts->size != 0;
    req.range_off = opts->off;
    req.range_size = opts->size;
    req.ret_obj = op.obj = opts->ret_obj;
    if (op.obj != NULL) {
        snprintf(op.obj->key, sizeof op.obj->key, "%s", key);
        req.on_head = get_head;
    }
    return send_req(&op, &req, &resp, err);
}

static enum rc azure_list(struct store *s, const struct call *c, const char *prefix,
                          const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                          struct err *err)
{
    struct azure *a = (struct azure *)s;
    struct op op = op_begin(a, c, "list", prefix);
    CLEANUP(mem_freep) struct page *page = mem_calloc(1, sizeof *page);
    if (page == NULL) return err_mem(err, "a listing");
    page->op = &op;
    page->fn = fn;
    page->ctx = ctx;
    page->after = opts->after;
    /* What `after` skips cannot be known before. */
    uint32_t count = opts->after[0] == '\0' && opts->count_max > 0 && opts->count_max < PAGE_SIZE
                         ? opts->count_max
                         : PAGE_SIZE;
    do {
        if (call_check(c, err) != RC_OK) return err_wrap(err, "list '%s'", prefix);
        if (page->empty++ == EMPTY_MAX)
            return err_set(err, RC_CORRUPT, "list '%s': empty pages without end", prefix);
        TRY(list_page(&op, prefix, count, page, err));
    } while (page->marker[0] != '\0');
    return RC_OK;
}

static enum rc azure_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    struct azure *a = (struct azure *)s;
    struct op op = op_begin(a, c, "delete", key);
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "DELETE", .op = STORE_OP_DEL};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    op.del = true;
    TRY(put_url(a, key, "", &url, err));
    req.url = (const char *)url.data;
    return send_req(&op, &req, &resp, err);
}

struct deletion {
    struct store *s;
    const struct call *c;
    const char *const *keys;
};

static enum rc azure_del_many(struct store *s, const struct call *c, const char *const *keys,
                              size_t key_count, struct err *err)
{
    struct deletion d = {s, c, keys};
    return thr_each(DELETES, key_count, del_one, &d, err);
}

static enum rc azure_presign(struct store *s, const struct call *c, const char *key, bool put,
                             int64_t expires_s, struct buf *out, struct err *err)
{
    struct azure *a = (struct azure *)s;
    char blob[NAME_MAX_ + sizeof a->container + 2];
    (void)c;
    snprintf(blob, sizeof blob, "%s/%s%s%s", a->container, a->root, a->root[0] != '\0' ? "/" : "",
             key);
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    TRY(put_url(a, key, "", &url, err));
    size_t size = strcspn((const char *)url.data, "?");
    TRY(buf_append(out, url.data, size, err));
    TRY(buf_append(out, "?", 1, err));
    return azure_auth_link(a->auth, blob, put, strncmp(a->endpoint, "https:", 6) == 0,
                           os_now_ms() + expires_s * 1000, out, err);
}

static enum rc conf_get(struct azure *a, struct store_settings *set, struct err *err)
{
    int64_t concurrency = 4;
    a->part_size = PART_DEFAULT;
    TRY(store_setting_size(set, "part-size", &a->part_size, err));
    TRY(store_setting_int(set, "concurrency", 1, 64, &concurrency, err));
    a->concurrency = (unsigned)concurrency;
    if (a->part_size < PART_MIN || a->part_size > PART_MAX)
        return err_set(err, RC_INVALID, "part-size must be between 64KiB and 512MiB");
    TRY(conf_names(a, set, err));
    return conf_auth(a, set, err);
}

/* Account, container, path and endpoint: settings win over the URL. */
static enum rc conf_names(struct azure *a, struct store_settings *set, struct err *err)
{
    const struct url *url = &set->url;
    const char *account = url->user, *container = url->host, *path = url->path;
    const char *endpoint = store_setting(set, "endpoint"), *dot = strstr(url->host, ".blob.");
    char at[sizeof a->endpoint], folder[256];
    if (url->password[0] != '\0')
        return err_set(err, RC_INVALID,
                       "no key in the URL of a store, please: it would be seen in "
                       "lists of processes; give account-key or "
                       "LITESTREAM_AZURE_ACCOUNT_KEY");
    if (dot != NULL) {
        path += path[0] == '/';
        size_t size = strcspn(path, "/");
        snprintf(folder, sizeof folder, "%.*s", (int)size, path);
        snprintf(at, sizeof at, "https://%s", url->host);
        snprintf(a->account, sizeof a->account, "%.*s", (int)(dot - url->host), url->host);
        account = a->account;
        container = folder;
        endpoint = either(endpoint, at);
        path += size;
    } else if (url->port != 0) {
        return err_set(err, RC_INVALID,
                       "'%s' is the name of a container and takes no port; give "
                       "the service as endpoint",
                       url->host);
    }
    account =
        either(store_setting(set, "account-name"), either(account, env("AZURE_STORAGE_ACCOUNT")));
    container = either(store_setting(set, "bucket"), container);
    if (account[0] == '\0')
        return err_set(err, RC_INVALID,
                       "which storage account? Give abs://account@container/path "
                       "or account-name");
    if (!name_ok(account, 1, sizeof a->account - 1))
        return err_set(err, RC_INVALID, "'%s' is not the name of a storage account", account);
    if (container[0] == '\0')
        return err_set(err, RC_INVALID,
                       "which container? Give abs://account@container/path or "
                       "bucket");
    if (!name_ok(container, 3, sizeof a->container - 1))
        return err_set(err, RC_INVALID,
                       "'%s' is not the name of a container: 3 to 63 lower-case "
                       "letters, digits and hyphens",
                       container);
    memmove(a->account, account, strlen(account) + 1);
    memcpy(a->container, container, strlen(container) + 1);
    const char *given = store_setting(set, "path");
    TRY(root_set(a, either(given, path), given[0] == '\0', err));
    TRY(key_ok(a->root, err));
    if (endpoint[0] == '\0') {
        snprintf(at, sizeof at, "https://%s.blob.core.windows.net", a->account);
        endpoint = at;
    }
    return endpoint_set(a, endpoint, err);
}

/* A key of the environment is for the account that the environment names, if it does. */
static enum rc conf_auth(struct azure *a, struct store_settings *set, struct err *err)
{
    struct azure_auth_conf conf = {.account = a->account};
    struct url url;
    const char *named = env("AZURE_STORAGE_ACCOUNT");
    bool ours = named[0] == '\0' || strcmp(named, a->account) == 0;
    conf.sas = either(store_setting(set, "sas-token"), env("LITESTREAM_AZURE_SAS_TOKEN"));
    conf.key = either(store_setting(set, "account-key"), env("LITESTREAM_AZURE_ACCOUNT_KEY"));
    if (conf.sas[0] == '\0' && conf.key[0] == '\0' && ours) {
        conf.sas = env("AZURE_STORAGE_SAS_TOKEN");
        conf.key = env("AZURE_STORAGE_KEY");
    }
    TRY(url_get(a->endpoint, &url, err));
    conf.encrypted = strcmp(url.scheme, "https") == 0 || is_private(url.host);
    return azure_auth_open(&conf, &a->auth, err);
}

static enum rc endpoint_set(struct azure *a, const char *text, struct err *err)
{
    struct url url;
    char whole[sizeof a->endpoint + 8];
    bool plain = strstr(text, "://") == NULL, fine = strlen(text) + 8 < sizeof a->endpoint;
    if (plain && fine) {
        char host[sizeof a->endpoint];
        snprintf(host, sizeof host, "%.*s", (int)strcspn(text, ":/"), text);
        snprintf(whole, sizeof whole, "%s://%s", is_private(host) ? "http" : "https", text);
    } else if (fine) {
        snprintf(whole, sizeof whole, "%s", text);
    }
    fine = fine && url_get(whole, &url, err) == RC_OK && url.host[0] != '\0' &&
           (strcmp(url.scheme, "https") == 0 || strcmp(url.scheme, "http") == 0);
    for (const char *p = whole; fine && *p != '\0'; p++)
        if (*p <= ' ' || *p > '~' || *p == '?' || *p == '#' || *p == '@') fine = false;
    if (!fine)
        return err_set(err, RC_INVALID,
                       "endpoint must be like "
                       "https://account.blob.core.windows.net, without '?' and "
                       "'@'");
    size_t size = strlen(whole);
    while (whole[size - 1] == '/')
        size--;
    snprintf(a->endpoint, sizeof a->endpoint, "%.*s", (int)size, whole);
    return RC_OK;
}

/* Segments without "." and "..", as Litestream cleans a path; `..` stops at the top. */
static enum rc root_set(struct azure *a, const char *path, bool escaped, struct err *err)
{
    size_t used = 0;
    for (const char *p = path; *p != '\0';) {
        size_t start = used, size = strcspn(p, "/");
        if (size > 0 && used > 0) a->root[used++] = '/';
        size_t begin = used;
        for (size_t i = 0; i < size; i++) {
            char c = p[i];
            if (escaped && c == '%' && i + 2 < size) {
                char hex[3] = {p[i + 1], p[i + 2], '\0'}, *end;
                c = (char)strtoul(hex, &end, 16);
                if (*end != '\0' || c == '\0')
                    return err_set(err, RC_INVALID, "'%%%s' in the path of the URL is no escape",
                                   hex);
                i += 2;
            }
            if (used + 2 >= sizeof a->root)
                return err_set(err, RC_INVALID, "the path is longer than %d bytes", ROOT_MAX);
            a->root[used++] = c;
        }
        a->root[used] = '\0';
        if (strcmp(a->root + begin, ".") == 0) used = start;
        if (strcmp(a->root + begin, "..") == 0) {
            used = start;
            while (used > 0 && a->root[--used] != '/')
                continue;
        }
        a->root[used] = '\0';
        p += size + (p[size] == '/');
    }
    return RC_OK;
}

/* Lower-case letters, digits and hyphens; "$web" and the like are containers, too. */
static bool name_ok(const char *name, size_t size_min, size_t size_max)
{
    size_t size = strlen(name);
    size_t fine = strspn(name + (name[0] == '$'), "abcdefghijklmnopqrstuvwxyz0123456789-");
    return size >= size_min && size <= size_max && fine + (name[0] == '$') == size;
}

/* The store's name is a URL that could be given again. */
static enum rc connect_to(struct azure *a, const struct store_settings *set, struct err *err)
{
    char service[sizeof a->endpoint];
    const char *host = strstr(a->endpoint, "://") + 3;
    CLEANUP(buf_fini) struct buf root = BUF_INIT;
    TRY(uri_append(&root, a->root, true, err));
    TRY(put_text(&root, err));
    store_init(&a->base, &store_azure_ops, "abs://%s@%s%s%s", a->account, a->container,
               root.size > 0 ? "/" : "", (const char *)root.data);
    snprintf(service, sizeof service, "%.*s",
             (int)(host - a->endpoint + (ptrdiff_t)strcspn(host, "/")), a->endpoint);
    struct http_conf conf = {.service = service, .store = &a->base, .conf = set->conf};
    return http_open(&conf, &a->http, err);
}

static const char *either(const char *a, const char *b)
{
    return a[0] != '\0' ? a : b;
}

static const char *env(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

static bool is_private(const char *host)
{
    struct in_addr ip;
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "[::1]") == 0 ||
           (inet_pton(AF_INET, host, &ip) == 1 && ntohl(ip.s_addr) >> 24 == 127);
}

static struct op op_begin(struct azure *a, const struct call *c, const char *verb, const char *key)
{
    struct op op = {.a = a, .c = c};
    snprintf(op.what, sizeof op.what, "%s '%s'", verb, key);
    return op;
}

static enum rc send_req(struct op *op, struct http_req *req, struct http_resp *resp,
                        struct err *err)
{
    req->what = op->what;
    req->sign = sign;
    req->judge = judge;
    req->ctx = op;
    /* Conditional ones as well: the contract lets a repeated create end in a conflict. */
    req->idempotent = true;
    if (azure_auth_ready(op->a->auth, op->c, err) != RC_OK) return err_wrap(err, "%s", op->what);
    return http_send(op->a->http, op->c, req, resp, err);
}

static enum rc sign(void *ctx, struct http_req *req, struct err *err)
{
    struct op *op = ctx;
    return azure_auth_sign(op->a->auth, op->c, req, err);
}

/* What a code of the service means for a caller, where its status does not say it all. */
struct meaning {
    const char *code;
    enum rc rc;
    const char *advice; /* NULL: about the credentials */
};
static const struct meaning meanings[] = {
    {"AuthenticationFailed", RC_DENIED, NULL},
    {"InvalidAuthenticationInfo", RC_DENIED, NULL},
    {"NoAuthenticationInformation", RC_DENIED, NULL},
    {"AuthorizationPermissionMismatch", RC_DENIED, NULL},
    {"AuthorizationResourceTypeMismatch", RC_DENIED, NULL},
    {"AuthorizationServiceMismatch", RC_DENIED, NULL},
    {"InsufficientAccountPermissions", RC_DENIED, NULL},
    {"AuthorizationFailure", RC_DENIED, "check the credentials and the account's network rules"},
    {"AuthorizationSourceIPMismatch", RC_DENIED, "sas-token is for other addresses"},
    {"AuthorizationProtocolMismatch", RC_DENIED, "sas-token is for https only"},
    {"KeyBasedAuthenticationNotPermitted", RC_DENIED,
     "the account takes no keys: leave account-key out and give this machine an identity"},
    {"AccountIsDisabled", RC_DENIED, "look at the subscription of the storage account"},
    {"ContainerNotFound", RC_INVALID, "create the container, or correct its name"},
    {"ContainerDisabled", RC_DENIED, "look at the container in the portal"},
    {"ContainerBeingDeleted", RC_AGAIN, "it can be created again when that is done"},
    {"ResourceNotFound", RC_INVALID, "check the names of account and container"},
    {"BlobImmutableDueToPolicy", RC_DENIED, "a policy of the container forbids the change"},
    {"LeaseIdMissing", RC_DENIED, "somebody holds a lease on the blob: break it"},
    {"BlobArchived", RC_INVALID, "move the blob to another access tier first"},
    {"BlobBeingRehydrated", RC_INVALID, "wait until the blob has left the archive"},
    {"SnapshotsPresent", RC_DENIED, "delete the blob's snapshots first"},
    {"InvalidBlobType", RC_INVALID, "the name belongs to a page or an append blob"},
    {"Md5Mismatch", RC_AGAIN, "the bytes changed on their way"},
    {"InvalidBlockList", RC_AGAIN, "somebody else wrote the same blob meanwhile"},
    {"InvalidBlobOrBlock", RC_AGAIN, "somebody else wrote the same blob meanwhile"},
};

static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err)
{
    struct op *op = ctx;
    char code[64] = "", message[160] = "", skew[64] = "", detail[400];
    const struct meaning *m = meanings, *end = m + sizeof meanings / sizeof meanings[0];
    const char *head = http_resp_header(resp, "x-ms-error-code");
    xml_find(resp->text.data, resp->text.size, "Error/Code", code, sizeof code);
    xml_find(resp->text.data, resp->text.size, "Error/Message", message, sizeof message);
    if (head != NULL) snprintf(code, sizeof code, "%s", head);
    message[strcspn(message, "\r\n")] = '\0'; /* the rest is numbers for Microsoft's support */
    if (resp->headers.size > 0 && strstr((const char *)resp->headers.data, message) != NULL)
        message[0] = '\0'; /* the status line says it already */
    while (m < end && strcmp(m->code, code) != 0)
        m++;
    int64_t ahead_ms = resp->date_ms != 0 ? os_now_ms() - resp->date_ms : 0;
    bool denied = resp->status == 401 || resp->status == 403;
    if (denied && (ahead_ms > SKEW_MS || ahead_ms < -SKEW_MS))
        snprintf(skew, sizeof skew, "; this machine's clock is %lld s %s",
                 (long long)(ahead_ms > 0 ? ahead_ms : -ahead_ms) / 1000,
                 ahead_ms > 0 ? "ahead" : "behind");
    const char *advice = m < end && m->advice ? m->advice
                         : denied             ? azure_auth_advice(op->a->auth)
                                              : "";
    snprintf(detail, sizeof detail, "%s%s%s%s%s%s", code, advice[0] != '\0' ? "; " : "", advice,
             skew, message[0] != '\0' ? ": " : "", message);
    enum rc rc = http_judge(req, resp, detail[0] != '\0' ? detail : NULL, hint, err);
    if (m < end) rc = m->rc;
    bool conditional = op->put != NULL && (op->put->if_absent || op->put->if_etag != NULL);
    bool overtaken =
        strcmp(code, "InvalidBlockList") == 0 || strcmp(code, "InvalidBlobOrBlock") == 0;
    bool kept = strcmp(code, "BlobImmutableDueToPolicy") == 0;
    if (conditional && (overtaken || (kept && op->put->if_absent))) rc = RC_CONFLICT;
    if (overtaken) hint->final = true; /* the same request again would fail again */
    /* Other conflicts pass, and say nothing about a condition. */
    if (m == end && resp->status == 409 && code[0] != '\0' &&
        strcmp(code, "BlobAlreadyExists") != 0)
        rc = RC_AGAIN;
    if (op->del && rc == RC_NOT_FOUND) rc = RC_OK;
    if (resp->status == 401 && azure_auth_refused(op->a->auth, req) &&
        !atomic_exchange(&op->renewed, true)) {
        rc = RC_AGAIN;
        hint->at_once = true;
    }
    err->rc = rc;
    return rc;
}

/* The URL of a blob, or with key NULL of the container; query without '?', may be "". */
static enum rc put_url(const struct azure *a, const char *key, const char *query, struct buf *out,
                       struct err *err)
{
    const char *sas = azure_auth_query(a->auth), *mark = "?";
    TRY(buf_printf(out, err, "%s/%s", a->endpoint, a->container));
    if (key != NULL) {
        TRY(key_ok(key, err));
        TRY(buf_append(out, "/", 1, err));
        TRY(uri_append(out, a->root, true, err));
        if (a->root[0] != '\0') TRY(buf_append(out, "/", 1, err));
        TRY(uri_append(out, key, true, err));
    }
    if (query[0] != '\0') TRY(buf_printf(out, err, "?%s", query));
    if (query[0] != '\0') mark = "&";
    if (sas[0] != '\0') TRY(buf_printf(out, err, "%s%s", mark, sas));
    return put_text(out, err);
}

/* The service turns a backslash into a slash, which would make one object of two. */
static enum rc key_ok(const char *key, struct err *err)
{
    if (strchr(key, '\\') == NULL) return RC_OK;
    return err_set(err, RC_INVALID, "'%s': Azure knows no backslash in names", key);
}

/* Make a string of it, not counting the 0. */
static enum rc put_text(struct buf *out, struct err *err)
{
    TRY(buf_append(out, "", 1, err));
    out->size--;
    return RC_OK;
}

static enum rc put_md5(struct http_req *req, const struct buf *data, struct err *err)
{
    uint8_t md5[MD5_SIZE];
    char text[BASE64_SIZE(MD5_SIZE)];
    TRY(hash_md5(data->data, data->size, md5, err));
    base64_put(md5, sizeof md5, text);
    return http_answer_header(req, err, "Content-MD5", "%s", text);
}

/* What the request that makes a blob says about it. */
static enum rc put_headers(struct op *op, struct http_req *req, struct err *err)
{
    char when[TIME_TEXT_SIZE];
    time_put(op->put->timestamp_ms, true, when);
    TRY(http_answer_header(req, err, "x-ms-meta-" TIME_NAME, "%s", when));
    if (op->put->if_absent) TRY(http_answer_header(req, err, "If-None-Match", "*"));
    if (op->put->if_etag != NULL)
        TRY(http_answer_header(req, err, "If-Match", "%s", op->put->if_etag));
    return RC_OK;
}

/* A success without an etag is not the service's. */
static enum rc put_done(const struct op *op, const char *key, uint64_t size,
                        const struct http_resp *resp, struct store_obj *ret_obj, struct err *err)
{
    const char *etag = http_resp_header(resp, "ETag");
    etag_set(ret_obj, etag ? etag : "");
    if (ret_obj->etag[0] == '\0')
        return err_set(err, RC_AGAIN, "%s: the service's success has no usable ETag", op->what);
    snprintf(ret_obj->key, sizeof ret_obj->key, "%s", key);
    ret_obj->size = size;
    ret_obj->mtime_ms = op->put->timestamp_ms;
    return RC_OK;
}

/* A condition on a version failed: is there one at all? */
static enum rc put_missing(struct op *op, const char *key, struct err *err)
{
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "HEAD", .op = STORE_OP_OTHER};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    struct err mine;
    TRY(put_url(op->a, key, "", &url, err));
    req.url = (const char *)url.data;
    if (send_req(op, &req, &resp, &mine) != RC_NOT_FOUND) return RC_CONFLICT;
    *err = mine;
    return RC_NOT_FOUND;
}

static enum rc put_whole(struct op *op, const char *key, const struct buf *data,
                         struct store_obj *ret_obj, struct err *err)
{
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "PUT", .op = STORE_OP_PUT};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    struct store_bytes bytes;
    struct store_body body = store_body_bytes(&bytes, data->data, data->size);
    TRY(put_url(op->a, key, "", &url, err));
    req.url = (const char *)url.data;
    req.body = &body;
    req.body_size = data->size;
    TRY(http_answer_header(&req, err, "x-ms-blob-type", "BlockBlob"));
    TRY(http_answer_header(&req, err, "Content-Type", "application/octet-stream"));
    TRY(put_md5(&req, data, err));
    TRY(put_headers(op, &req, err));
    TRY(send_req(op, &req, &resp, err));
    return put_done(op, key, data->size, &resp, ret_obj, err);
}

static enum rc put_blocks(struct op *op, const char *key, const struct store_body *body,
                          struct buf *first, struct store_obj *ret_obj, struct err *err)
{
    struct upload u = {.op = op,
                       .key = key,
                       .body = body,
                       .salt = os_random(),
                       .block_size = op->a->part_size,
                       .first = first->size > 0 ? first : NULL};
    uint64_t lanes = op->a->concurrency;
    if (body->size != STORE_SIZE_UNKNOWN) {
        uint64_t least = (body->size + BLOCKS_MAX - 1) / BLOCKS_MAX;
        if (u.block_size < least) u.block_size = (least + CHUNK_SIZE - 1) / CHUNK_SIZE * CHUNK_SIZE;
        uint64_t blocks = (body->size + u.block_size - 1) / u.block_size;
        if (lanes > blocks) lanes = blocks;
    }
    if (u.block_size > BLOCK_MAX)
        return err_set(err, RC_TOO_BIG, "put '%s': larger than a blob can be", key);
    if (lanes > MEMORY_MAX / u.block_size) lanes = MEMORY_MAX / u.block_size;
    if (lanes == 0) lanes = 1;
    pthread_mutex_init(&u.lock, NULL);
    enum rc rc = thr_each((unsigned)lanes, lanes, lane, &u, err);
    pthread_mutex_destroy(&u.lock);
    if (rc == RC_OK) rc = put_list(&u, ret_obj, err);
    return rc;
}

static enum rc put_list(struct upload *u, struct store_obj *ret_obj, struct err *err)
{
    struct op *op = u->op;
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(buf_fini) struct buf list = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "PUT", .op = STORE_OP_PUT};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    char id[BLOCK_ID_SIZE];
    TRY(put_url(op->a, u->key, "comp=blocklist", &url, err));
    TRY(buf_printf(&list, err, "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>"));
    /* "Latest" finds a block whether a try before has made it part of the blob or not. */
    for (uint32_t i = 0; i < u->count; i++) {
        block_id(u, i, id);
        TRY(buf_printf(&list, err, "<Latest>%s</Latest>", id));
    }
    TRY(buf_printf(&list, err, "</BlockList>"));
    req.url = (const char *)url.data;
    req.data = list.data;
    req.data_size = list.size;
    TRY(http_answer_header(&req, err, "Content-Type", "application/xml"));
    TRY(http_answer_header(&req, err, "x-ms-blob-content-type", "application/octet-stream"));
    TRY(put_md5(&req, &list, err));
    TRY(put_headers(op, &req, err));
    TRY(send_req(op, &req, &resp, err));
    return put_done(op, u->key, u->off, &resp, ret_obj, err);
}

/* Take blocks and put them until there are no more. */
static enum rc lane(void *ctx, uint64_t i, struct err *err)
{
    struct upload *u = ctx;
    CLEANUP(buf_fini) struct buf data = BUF_INIT;
    (void)i;
    for (;;) {
        uint32_t index = 0;
        enum rc rc = lane_take(u, &data, &index, err);
        if (rc == RC_OK && data.size == 0) return RC_OK;
        if (rc == RC_OK) rc = lane_put(u, &data, index, err);
        if (rc == RC_OK) continue;
        thr_lock(&u->lock);
        u->ended = true;
        thr_unlock(&u->lock);
        return rc;
    }
}

/* The next block, or none. A body of known size is read by all lanes at once, the other in order.
 */
static enum rc lane_take(struct upload *u, struct buf *data, uint32_t *ret_index, struct err *err)
{
    enum rc rc = RC_OK;
    uint64_t size = 0, off = 0;
    bool known = u->body->size != STORE_SIZE_UNKNOWN;
    buf_reset(data);
    thr_lock(&u->lock);
    if (!u->ended && u->first != NULL) {
        buf_fini(data);
        *data = *u->first;
        *u->first = BUF_INIT;
        u->first = NULL;
        u->off = data->size;
        *ret_index = u->count++;
    } else if (!u->ended) {
        off = u->off;
        size = block_next(u);
        if (u->count == BLOCKS_MAX)
            rc = err_set(err, RC_TOO_BIG, "put '%s': larger than %d blocks", u->key, BLOCKS_MAX);
        else if (!known)
            rc = body_fill(u->op, u->body, off, size, data, err);
        u->off += known ? size : data->size;
        u->ended = rc != RC_OK || (known ? u->off == u->body->size : data->size < size);
        if (known || data->size > 0) *ret_index = u->count++;
    }
    thr_unlock(&u->lock);
    if (rc == RC_OK && known && size > 0) rc = body_fill(u->op, u->body, off, size, data, err);
    return rc;
}

static enum rc lane_put(struct upload *u, const struct buf *data, uint32_t index, struct err *err)
{
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "PUT", .op = STORE_OP_PUT};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    char id[BLOCK_ID_SIZE], query[BLOCK_ID_SIZE + 32];
    struct store_bytes bytes;
    struct store_body body = store_body_bytes(&bytes, data->data, data->size);
    block_id(u, index, id);
    /* The two '=' at its end must be escaped; the rest are letters and digits. */
    snprintf(query, sizeof query, "comp=block&blockid=%.*s%%3D%%3D", BLOCK_ID_SIZE - 3, id);
    TRY(put_url(u->op->a, u->key, query, &url, err));
    req.url = (const char *)url.data;
    req.body = &body;
    req.body_size = data->size;
    TRY(http_answer_header(&req, err, "Content-Type", "application/octet-stream"));
    TRY(put_md5(&req, data, err));
    return send_req(u->op, &req, &resp, err);
}

/* All blocks of a blob, those of a put that was given up included, must have names of one length:
 * we use Litestream's, the base64 of 64 bytes. */
static void block_id(const struct upload *u, uint32_t index, char out[BLOCK_ID_SIZE])
{
    memset(out, 'A', BLOCK_ID_SIZE - 1);
    int n = snprintf(out, BLOCK_ID_SIZE, "%016llx%08x", (unsigned long long)u->salt, index);
    out[n] = 'A';
    memcpy(out + BLOCK_ID_SIZE - 3, "==", 3);
}

/* Size of the next block. */
static uint64_t block_next(const struct upload *u)
{
    if (u->body->size == STORE_SIZE_UNKNOWN) {
        uint64_t size = u->block_size << (u->count / STEP_BLOCKS);
        return size < BLOCK_MAX ? size : BLOCK_MAX;
    }
    uint64_t left = u->body->size - u->off;
    return left < u->block_size ? left : u->block_size;
}

/* Replace data by [off, off + size) of the body; of one of unknown size by its next bytes, fewer
 * only at its end. */
static enum rc body_fill(const struct op *op, const struct store_body *body, uint64_t off,
                         uint64_t size, struct buf *data, struct err *err)
{
    buf_reset(data);
    while (data->size < size) {
        uint64_t left = size - data->size;
        size_t chunk = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE, got = chunk;
        if (call_check(op->c, err) != RC_OK) return err_wrap(err, "%s", op->what);
        TRY(buf_reserve(data, chunk, err));
        if (body->size != STORE_SIZE_UNKNOWN)
            TRY(body->read(body->ctx, off + data->size, data->data + data->size, chunk, err));
        else
            TRY(body->next(body->ctx, data->data + data->size, chunk, &got, err));
        if (got == 0) break;
        data->size += got;
    }
    return RC_OK;
}

static void get_head(void *ctx, const struct http_resp *resp)
{
    struct op *op = ctx;
    struct err ignored;
    const char *when = http_resp_header(resp, "x-ms-meta-" TIME_NAME);
    const char *created = http_resp_header(resp, "x-ms-creation-time");
    int64_t created_ms = created ? date_get(created) : -1;
    if (created_ms >= 0) op->obj->mtime_ms = created_ms;
    if (when != NULL && time_get(when, &op->obj->mtime_ms, &ignored) != RC_OK) return;
}

static enum rc list_page(struct op *op, const char *prefix, uint32_t count, struct page *page,
                         struct err *err)
{
    struct azure *a = op->a;
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(buf_fini) struct buf query = BUF_INIT;
    CLEANUP(http_req_fini) struct http_req req = {.method = "GET", .op = STORE_OP_LIST};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    TRY(buf_printf(&query, err, "restype=container&comp=list&include=metadata&maxresults=%u",
                   count));
    TRY(buf_printf(&query, err, "&prefix="));
    TRY(uri_append(&query, a->root, false, err));
    if (a->root[0] != '\0') TRY(buf_printf(&query, err, "%%2F"));
    TRY(uri_append(&query, prefix, false, err));
    if (page->marker[0] != '\0') {
        TRY(buf_printf(&query, err, "&marker="));
        TRY(uri_append(&query, page->marker, false, err));
    }
    TRY(put_text(&query, err));
    TRY(put_url(a, NULL, (const char *)query.data, &url, err));
    req.url = (const char *)url.data;
    req.text_max = PAGE_TEXT_MAX;
    TRY(send_req(op, &req, &resp, err));
    page->marker[0] = '\0';
    page_next(page);
    page->is_listing = false;
    if (xml_walk(resp.text.data, resp.text.size, list_item, page, err) != RC_OK) return err->rc;
    if (!page->is_listing)
        return err_set(err, RC_CORRUPT, "%s: the answer is not a listing", op->what);
    return RC_OK;
}

/* Forget the object in hand: another one follows. */
static void page_next(struct page *page)
{
    page->obj = (struct store_obj){0};
    page->timestamp_ms = page->created_ms = page->modified_ms = -1;
    page->skip = page->has_size = false;
}

static enum rc list_item(void *ctx, const char *path, const char *text, struct err *err)
{
    static const char top[] = "EnumerationResults/", blob[] = "Blobs/Blob";
    struct page *page = ctx;
    const struct azure *a = page->op->a;
    struct err ignored;
    if (strcmp(path, "EnumerationResults") == 0) page->is_listing = true;
    if (strncmp(path, top, sizeof top - 1) != 0) return RC_OK;
    path += sizeof top - 1;
    if (strcmp(path, "NextMarker") == 0) snprintf(page->marker, sizeof page->marker, "%s", text);
    if (strncmp(path, blob, sizeof blob - 1) != 0) return RC_OK;
    path += sizeof blob - 1;
    if (path[0] == '\0') return list_object(page, err);
    if (strcmp(path, "/Name") == 0) {
        size_t root = strlen(a->root), size = strlen(text);
        bool under = root == 0 || (strncmp(text, a->root, root) == 0 && text[root] == '/');
        size_t from = root == 0 ? 0 : root + 1;
        page->skip |= !under || size - from > STORE_KEY_MAX;
        if (!page->skip) memcpy(page->obj.key, text + from, size - from + 1);
    } else if (strcasecmp(path, "/Properties/Etag") == 0) {
        etag_set(&page->obj, text);
    } else if (strcmp(path, "/Properties/Content-Length") == 0) {
        char *end;
        page->obj.size = strtoull(text, &end, 10);
        page->has_size = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    } else if (strcmp(path, "/Properties/Creation-Time") == 0) {
        page->created_ms = date_get(text);
    } else if (strcmp(path, "/Properties/Last-Modified") == 0) {
        page->modified_ms = date_get(text);
    } else if (strcmp(path, "/Properties/ResourceType") == 0) {
        page->skip |= strcmp(text, "directory") == 0;
    } else if (strcasecmp(path, "/Metadata/hdi_isfolder") == 0) {
        page->skip |= strcasecmp(text, "true") == 0;
    } else if (strcasecmp(path, "/Metadata/" TIME_NAME) == 0) {
        /* Names are those that came with the put, whose letters some libraries change. */
        if (time_get(text, &page->timestamp_ms, &ignored) != RC_OK) page->timestamp_ms = -1;
    }
    return RC_OK;
}

/* An object is complete. Accounts with folders ("hierarchical namespace") list in their order. */
static enum rc list_object(struct page *page, struct err *err)
{
    struct store_obj obj = page->obj;
    bool skip = page->skip || obj.key[0] == '\0';
    obj.mtime_ms = page->timestamp_ms >= 0 ? page->timestamp_ms
                   : page->created_ms >= 0 ? page->created_ms
                   : page->modified_ms > 0 ? page->modified_ms
                                           : 0;
    bool has_size = page->has_size;
    page_next(page);
    if (skip) return RC_OK;
    if (!has_size)
        return err_set(err, RC_CORRUPT, "%s: the listing does not say how long '%.200s' is",
                       page->op->what, obj.key);
    page->empty = 0;
    if (strcmp(obj.key, page->last) <= 0)
        return err_set(err, RC_UNSUPPORTED,
                       "'%s' lists '%s' behind '%s': an account with hierarchical namespace has "
                       "an order of its own there",
                       page->op->a->base.name, obj.key, page->last);
    snprintf(page->last, sizeof page->last, "%s", obj.key);
    if (call_check(page->op->c, err) != RC_OK) return err_wrap(err, "%s", page->op->what);
    return strcmp(obj.key, page->after) <= 0 ? RC_OK : page->fn(page->ctx, &obj, err);
}

/* Listings have etags without quotes, headers with. */
static void etag_set(struct store_obj *obj, const char *text)
{
    bool quoted = text[0] == '"' || text[0] == '\0';
    int n = snprintf(obj->etag, sizeof obj->etag, quoted ? "%s" : "\"%s\"", text);
    if (n >= (int)sizeof obj->etag) obj->etag[0] = '\0'; /* half an etag would match nothing */
}

/* "Sat, 21 Nov 2026 01:23:50 GMT" or -1. */
static int64_t date_get(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char month[4], plain[TIME_TEXT_SIZE];
    unsigned day, year, hour, minute, second;
    struct err ignored;
    int64_t ms;
    if (sscanf(text, "%*3s, %2u %3s %4u %2u:%2u:%2u GMT", &day, month, &year, &hour, &minute,
               &second) != 6)
        return -1;
    const char *at = strstr(months, month);
    if (at == NULL || strlen(month) != 3 || (at - months) % 3 != 0) return -1;
    snprintf(plain, sizeof plain, "%04u-%02u-%02uT%02u:%02u:%02uZ", year % 10000,
             (unsigned)((at - months) / 3 + 1) % 100, day % 100, hour % 100, minute % 100,
             second % 100);
    return time_get(plain, &ms, &ignored) == RC_OK ? ms : -1;
}

static enum rc del_one(void *ctx, uint64_t i, struct err *err)
{
    const struct deletion *d = ctx;
    if (call_check(d->c, err) != RC_OK) return err_wrap(err, "delete '%s'", d->keys[i]);
    return azure_del(d->s, d->c, d->keys[i], err);
}
