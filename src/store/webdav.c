/*
 * webdav.c -- a store on a WebDAV server: key "a/b" is the resource <root>/a/b, as Litestream lays
 * it out.
 *
 *   put   PUT <folder>/.sluice-tmp-<random>, then MOVE it to its name. A plain PUT shows readers
 *         half an object on servers that write in place, and leaves it there when it breaks off.
 *         Apache's mod_dav_fs (asked once, by OPTIONS) gets a plain PUT: it renames by itself, but
 *         deletes the target of a MOVE first, so that readers of an old object would see none.
 *   get   GET with a range
 *   list  PROPFIND with Depth 1, one collection after the other ("infinity" is often refused)
 *   del   PROPFIND, then DELETE, which would take a whole collection of that name with it
 *
 * Apache takes an object's size before it opens it: a get that begins within the microseconds of an
 * overwrite by an object of another size may get the new bytes up to the old length. Objects of the
 * log are not overwritten by other ones, and have checksums.
 *
 * Missing collections are made when a PUT meets one. Temporary files are never listed; those that a
 * crash has left are removed once they are a day old by the server's own clock, at the first put of
 * a store handle into their folder.
 *
 * No create: RFC 4918 has "Overwrite: F" and "If-None-Match: *", but servers look first and rename
 * then. Apache's mod_dav_fs lets several of 32 concurrent MOVEs with "Overwrite: F" succeed, and
 * the same with a conditional PUT and with LOCK. Only MKCOL arbitrates there, and a claim made of a
 * collection would have to be broken by somebody after a crash. So nothing is promised.
 *
 * No timestamps: Last-Modified is the server's own time, in whole seconds.
 *
 * Threads: any; `lock` guards only the memory of swept folders.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"
#include "store/hash.h"
#include "store/http.h"
#include "store/walk.h"
#include "store/xml.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ROOT_MAX     700 /* so that name, scheme and host fit store.name */
#define PATH_SIZE    (ROOT_MAX + STORE_KEY_MAX + 64)
#define SERVICE_SIZE 300
#define AUTH_SIZE    (BASE64_SIZE(sizeof((struct url *)0)->user + 2048) + 8)
#define HREF_MAX     4096
#define LISTING_MAX  (64u << 20) /* of one collection's answer: some 100,000 objects */
#define PUT_ROUNDS   3
#define DISCARD_MS   2000
#define STALE_MS     (24 * 3600 * 1000ll)
#define SWEPT_COUNT  32

struct webdav {
    struct store base;
    struct http *http;
    char service[SERVICE_SIZE]; /* "https://host:port" */
    char root[ROOT_MAX + 1];    /* decoded, "" or "/a/b" */
    char auth[AUTH_SIZE];       /* "Basic ..." or "" */
    atomic_int writer;          /* enum writer */
    pthread_mutex_t lock;
    uint64_t swept[SWEPT_COUNT]; /* [lock] hashes of folders, a ring */
    unsigned swept_next;         /* [lock] */
};

/* One request and its answer. */
struct ask {
    struct http_req req;
    struct http_resp resp;
    struct buf url;
    char what[PATH_SIZE + 32];
};

/* What is in a collection. */
struct entries {
    struct walk_list names;
    bool folder;     /* the resource itself is a collection */
    int64_t date_ms; /* the server's clock; 0: unknown */
};

/* The <response> in hand. */
struct parse {
    const char *path; /* of the collection, without a '/' at its end */
    struct entries *out;
    char href[HREF_MAX];
    bool href_seen, odd; /* odd: the name holds what no key can */
    bool folder, refused, sized;
    uint64_t size;
    int64_t mtime_ms;
    char etag[STORE_ETAG_MAX];
};

/* How the server writes a PUT. */
enum writer { WRITER_UNKNOWN, WRITER_RENAMES, WRITER_MAYBE_IN_PLACE };
enum kind { KIND_NONE, KIND_OBJECT, KIND_FOLDER };

static enum rc webdav_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void webdav_close(struct store *s);
static enum rc webdav_put(struct store *s, const struct call *c, const char *key,
                          const struct store_body *body, const struct store_put_opts *opts,
                          struct store_obj *ret_obj, struct err *err);
static enum rc webdav_get(struct store *s, const struct call *c, const char *key,
                          const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                          struct err *err);
static enum rc webdav_list(struct store *s, const struct call *c, const char *prefix,
                           const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                           struct err *err);
static enum rc webdav_del(struct store *s, const struct call *c, const char *key, struct err *err);

static enum rc where(struct webdav *w, struct store_settings *set, struct err *err);
static enum rc where_url(struct webdav *w, const struct url *u, struct err *err);
static enum rc root_add(char root[ROOT_MAX + 1], const char *path, bool escaped, struct err *err);
static enum rc credentials(struct webdav *w, const char *user, const char *password,
                           struct err *err);
static void object_path(const struct webdav *w, const char *key, char path[PATH_SIZE]);
static enum rc ask_begin(struct webdav *w, struct ask *a, const char *method, enum store_op op,
                         const char *path, const char *tail, struct err *err);
static enum rc ask_send(struct webdav *w, const struct call *c, struct ask *a, const int *fine,
                        struct err *err);
static void ask_fini(struct ask *a);
static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err);
static bool is_redirect(int status);
static enum rc writer_learn(struct webdav *w, const struct call *c, const char *path,
                            struct err *err);
static enum rc put_and_move(struct webdav *w, const struct call *c, const char *path,
                            const struct store_body *body, struct store_obj *obj, struct err *err);
static enum rc upload(struct webdav *w, const struct call *c, const char *path, const char *as,
                      const struct store_body *body, struct store_obj *obj, struct err *err);
static enum rc publish(struct webdav *w, const struct call *c, const char *path, const char *tmp,
                       struct store_obj *obj, bool *ret_moved, struct err *err);
static void discard(struct webdav *w, const char *tmp);
static enum rc folders_make(struct webdav *w, const struct call *c, const char *path,
                            struct err *err);
static enum rc folder_make(struct webdav *w, const struct call *c, const char *path,
                           bool *ret_orphan, struct err *err);
static enum rc look(struct webdav *w, const struct call *c, const char *path, enum kind *ret_kind,
                    struct err *err);
static enum rc propfind(struct webdav *w, const struct call *c, struct ask *a, const char *path,
                        int depth, const int *fine, struct err *err);
static void sweep_once(struct webdav *w, const struct call *c, const char *path);
static enum rc folder_read(struct webdav *w, const struct call *c, const char *path,
                           struct entries *out, struct err *err);
static enum rc entries_parse(const char *path, const struct http_resp *resp, struct entries *out,
                             struct err *err);
static enum rc parse_element(void *ctx, const char *path, const char *text, struct err *err);
static enum rc parse_href(struct parse *p, const char *text, struct err *err);
static enum rc parse_response(struct parse *p, struct err *err);
static void entries_fini(struct entries *e);
static enum rc list_read(struct walk *k, struct walk_folder *d, const char *key, struct err *err);
static bool unescape(const char *text, char *out, size_t out_size, bool *ret_odd);
static int64_t http_date(const char *text);

const struct store_ops store_webdav_ops = {
    .type = "webdav",
    .alias = "webdavs",
    .caps = STORE_CAP_RANGE,
    .open = webdav_open,
    .close = webdav_close,
    .put = webdav_put,
    .get = webdav_get,
    .list = webdav_list,
    .del = webdav_del,
};

static enum rc webdav_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    struct webdav *w = mem_calloc(1, sizeof *w);
    if (w == NULL) return err_mem(err, "a WebDAV store");
    pthread_mutex_init(&w->lock, NULL);
    enum rc rc = where(w, set, err);
    struct http_conf conf = {.service = w->service, .store = &w->base, .conf = set->conf};
    if (rc == RC_OK) rc = http_open(&conf, &w->http, err);
    if (rc == RC_OK) {
        *ret_store = &w->base;
        return RC_OK;
    }
    webdav_close(&w->base);
    return rc;
}

static void webdav_close(struct store *s)
{
    struct webdav *w = (struct webdav *)s;
    http_close(w->http);
    pthread_mutex_destroy(&w->lock);
    mem_wipe(w->auth, sizeof w->auth);
    mem_free(w);
}

static enum rc webdav_put(struct store *s, const struct call *c, const char *key,
                          const struct store_body *body, const struct store_put_opts *opts,
                          struct store_obj *ret_obj, struct err *err)
{
    struct webdav *w = (struct webdav *)s;
    char path[PATH_SIZE];
    (void)opts;
    object_path(w, key, path);
    TRY(writer_learn(w, c, path, err));
    if (atomic_load(&w->writer) == WRITER_RENAMES)
        TRY(upload(w, c, path, path, body, ret_obj, err));
    else
        TRY(put_and_move(w, c, path, body, ret_obj, err));
    memcpy(ret_obj->key, key, strlen(key) + 1);
    return RC_OK;
}

static enum rc webdav_get(struct store *s, const struct call *c, const char *key,
                          const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                          struct err *err)
{
    struct webdav *w = (struct webdav *)s;
    CLEANUP(ask_fini) struct ask a = {0};
    char path[PATH_SIZE];
    object_path(w, key, path);
    TRY(ask_begin(w, &a, "GET", STORE_OP_GET, path, "", err));
    a.req.sink = sink;
    a.req.sink_ctx = ctx;
    a.req.ranged = opts->off > 0 || opts->size > 0;
    a.req.range_off = opts->off;
    a.req.range_size = opts->size;
    a.req.ret_obj = opts->ret_obj;
    if (opts->ret_obj != NULL) memcpy(opts->ret_obj->key, key, strlen(key) + 1);
    enum rc rc = ask_send(w, c, &a, NULL, err);
    /* What servers say when the name is a collection's. */
    if (rc == RC_INVALID && (is_redirect(a.resp.status) || a.resp.status == 405))
        return err_set(err, RC_NOT_FOUND, "get '%s': no such object in '%s' (%d)", key, s->name,
                       a.resp.status);
    return rc;
}

static enum rc webdav_list(struct store *s, const struct call *c, const char *prefix,
                           const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                           struct err *err)
{
    struct walk k = {.store = s,
                     .c = c,
                     .prefix = prefix,
                     .after = opts->after,
                     .fn = fn,
                     .ctx = ctx,
                     .read = list_read};
    return walk_tree(&k, err);
}

static enum rc webdav_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    static const int fine[] = {404, 410, 0};
    struct webdav *w = (struct webdav *)s;
    CLEANUP(ask_fini) struct ask a = {0};
    char path[PATH_SIZE];
    enum kind kind;
    object_path(w, key, path);
    TRY(look(w, c, path, &kind, err));
    if (kind != KIND_OBJECT) return RC_OK;
    TRY(ask_begin(w, &a, "DELETE", STORE_OP_DEL, path, "", err));
    TRY(ask_send(w, c, &a, fine, err));
    if (a.resp.status != 207) return RC_OK;
    return err_set(err, RC_INVALID, "%s: the server did not delete it", a.what);
}

/* Server, root and name, either from webdav://user:password@host:port/path, or from the settings
 * webdav-url (with a path of its own) and path. */
static enum rc where(struct webdav *w, struct store_settings *set, struct err *err)
{
    const char *url = store_setting(set, "webdav-url"), *path = store_setting(set, "path");
    const char *user = store_setting(set, "webdav-username");
    const char *password = store_setting(set, "webdav-password");
    struct url own = set->url;
    if (set->url_given && (url[0] != '\0' || path[0] != '\0'))
        return err_set(err, RC_INVALID, "webdav: give a URL, or webdav-url and path, not both");
    if (!set->url_given) {
        if (url[0] == '\0') return err_set(err, RC_INVALID, "webdav: the webdav-url is missing");
        if (url_get(url, &own, err) != RC_OK) {
            err->rc = RC_INVALID;
            return err_wrap(err, "webdav-url");
        }
    }
    TRY(where_url(w, &own, err));
    TRY(root_add(w->root, own.path, true, err));
    TRY(root_add(w->root, path, false, err));
    TRY(credentials(w, user[0] ? user : own.user, user[0] || password[0] ? password : own.password,
                    err));
    CLEANUP(buf_fini) struct buf root = BUF_INIT;
    TRY(uri_append(&root, w->root, true, err));
    store_init(&w->base, &store_webdav_ops, "webdav%s%.*s", w->service + strlen("http"),
               (int)root.size, root.size ? (char *)root.data : "");
    return RC_OK;
}

static enum rc where_url(struct webdav *w, const struct url *u, struct err *err)
{
    bool plain = strcasecmp(u->scheme, "webdav") == 0 || strcasecmp(u->scheme, "http") == 0;
    bool tls = strcasecmp(u->scheme, "webdavs") == 0 || strcasecmp(u->scheme, "https") == 0;
    bool v6 = strchr(u->host, ':') != NULL;
    char port[8] = "";
    if (!plain && !tls)
        return err_set(err, RC_INVALID, "webdav: the URL must begin with http:// or https://");
    if (u->host[0] == '\0') return err_set(err, RC_INVALID, "webdav: the URL names no host");
    if (u->port != 0) snprintf(port, sizeof port, ":%u", u->port);
    snprintf(w->service, sizeof w->service, "http%s://%s%s%s%s", tls ? "s" : "", v6 ? "[" : "",
             u->host, v6 ? "]" : "", port);
    return RC_OK;
}

/* Append a path's segments to the root, without empty ones and dots. */
static enum rc root_add(char root[ROOT_MAX + 1], const char *path, bool escaped, struct err *err)
{
    char text[2048];
    bool odd = false;
    size_t used = strlen(root);
    if (strlen(path) >= sizeof text || (escaped && !unescape(path, text, sizeof text, &odd)) || odd)
        return err_set(err, RC_INVALID, "webdav: bad path '%.64s'", path);
    if (!escaped) memcpy(text, path, strlen(path) + 1);
    for (const char *p = text + strspn(text, "/"); *p != '\0'; p += strspn(p, "/")) {
        size_t size = strcspn(p, "/");
        bool dot = size == 1 && p[0] == '.';
        if (size == 2 && memcmp(p, "..", 2) == 0)
            return err_set(err, RC_INVALID, "webdav: '..' in the path '%.64s'", path);
        if (!dot && size + 1 > ROOT_MAX - used)
            return err_set(err, RC_INVALID, "webdav: the path is longer than %d bytes", ROOT_MAX);
        if (!dot) {
            root[used] = '/';
            memcpy(root + used + 1, p, size);
            used += size + 1;
            root[used] = '\0';
        }
        p += size;
    }
    return RC_OK;
}

static enum rc credentials(struct webdav *w, const char *user, const char *password,
                           struct err *err)
{
    char pair[sizeof((struct url *)0)->user + 1024];
    if (user[0] == '\0' && password[0] == '\0') return RC_OK;
    if (strchr(user, ':') != NULL)
        return err_set(err, RC_INVALID, "webdav: a user name must not contain ':'");
    int size = snprintf(pair, sizeof pair, "%s:%s", user, password);
    if (size >= (int)sizeof pair)
        return err_set(err, RC_INVALID, "webdav: user name or password is too long");
    memcpy(w->auth, "Basic ", 6);
    base64_put(pair, (size_t)size, w->auth + 6);
    mem_wipe(pair, sizeof pair);
    return RC_OK;
}

static void object_path(const struct webdav *w, const char *key, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s/%s", w->root, key);
}

/* tail: "" or, for collections, "/". */
static enum rc ask_begin(struct webdav *w, struct ask *a, const char *method, enum store_op op,
                         const char *path, const char *tail, struct err *err)
{
    size_t root = strlen(w->root);
    const char *key = path[root] == '/' ? path + root + 1 : path;
    snprintf(a->what, sizeof a->what, "%s '%s'", method, key);
    TRY(buf_printf(&a->url, err, "%s", w->service));
    TRY(uri_append(&a->url, path, true, err));
    TRY(buf_append(&a->url, tail, strlen(tail) + 1, err));
    a->req = (struct http_req){.method = method,
                               .url = (char *)a->url.data,
                               .what = a->what,
                               .op = op,
                               .idempotent = true,
                               .judge = judge};
    if (w->auth[0] == '\0') return RC_OK;
    return http_answer_header(&a->req, err, "Authorization", "%s", w->auth);
}

/* fine: statuses that are answers, too; ended by 0. NULL: none. */
static enum rc ask_send(struct webdav *w, const struct call *c, struct ask *a, const int *fine,
                        struct err *err)
{
    a->req.ctx = &fine;
    return http_send(w->http, c, &a->req, &a->resp, err);
}

static void ask_fini(struct ask *a)
{
    http_req_fini(&a->req);
    http_resp_fini(&a->resp);
    buf_fini(&a->url);
}

static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err)
{
    const int *const *fine = ctx;
    const char *detail = NULL;
    for (const int *p = *fine; p != NULL && *p != 0; p++)
        if (*p == resp->status) return RC_OK;
    if (resp->status == 423)
        return err_set(err, RC_BUSY, "%s: 423, locked by another client", req->what);
    const char *offer = http_resp_header(resp, "WWW-Authenticate");
    if (resp->status == 401 && offer != NULL && strncasecmp(offer, "Digest", 6) == 0)
        detail = "the server asks for Digest authentication; Basic is what we have";
    return http_judge(req, resp, detail, hint, err);
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 307 || status == 308;
}

/* mod_dav_fs names itself among the classes of "DAV". It renames since Apache 2.4. */
static enum rc writer_learn(struct webdav *w, const struct call *c, const char *path,
                            struct err *err)
{
    static const int fine[] = {301, 302, 307, 308, 400, 403, 404, 405, 409, 410, 501, 0};
    static const char mod_dav_fs[] = "<http://apache.org/dav/propset/fs/1>";
    CLEANUP(ask_fini) struct ask a = {0};
    if (atomic_load(&w->writer) != WRITER_UNKNOWN) return RC_OK;
    TRY(ask_begin(w, &a, "OPTIONS", STORE_OP_OTHER, path, "", err));
    TRY(ask_send(w, c, &a, fine, err));
    int writer = WRITER_MAYBE_IN_PLACE;
    const char *line = (const char *)a.resp.headers.data, *end = line + a.resp.headers.size;
    for (; line < end; line += strlen(line) + 1)
        if (strncasecmp(line, "DAV:", 4) == 0 && strstr(line, mod_dav_fs) != NULL)
            writer = WRITER_RENAMES;
    atomic_store(&w->writer, writer);
    return RC_OK;
}

/* A lost answer of a MOVE shows as a missing source at its second try: then either the first one
 * was done, or the file is gone for another reason. To put once more is right in both cases. */
static enum rc put_and_move(struct webdav *w, const struct call *c, const char *path,
                            const struct store_body *body, struct store_obj *obj, struct err *err)
{
    char tmp[PATH_SIZE];
    bool moved = false;
    for (int round = 0; round < PUT_ROUNDS && !moved; round++) {
        int folder = (int)(strrchr(path, '/') - path);
        snprintf(tmp, sizeof tmp, "%.*s/" STORE_TMP_PREFIX "%016" PRIx64, folder, path,
                 os_random());
        enum rc rc = upload(w, c, path, tmp, body, obj, err);
        bool mute = rc == RC_AGAIN || rc == RC_DENIED; /* the server will not do that either */
        if (rc == RC_OK) rc = publish(w, c, path, tmp, obj, &moved, err);
        if (rc != RC_OK && !mute) discard(w, tmp);
        if (rc != RC_OK) return rc;
    }
    if (!moved)
        return err_set(err, RC_AGAIN, "put '%s': what was uploaded is gone when it is to be moved",
                       path + strlen(w->root) + 1);
    sweep_once(w, c, path);
    return RC_OK;
}

/* The body becomes the resource `as`, an object's path or the temporary one beside it. */
static enum rc upload(struct webdav *w, const struct call *c, const char *path, const char *as,
                      const struct store_body *body, struct store_obj *obj, struct err *err)
{
    static const int refused[] = {404, 409, 412, 0};
    for (bool again = false;; again = true) {
        CLEANUP(ask_fini) struct ask a = {0};
        TRY(ask_begin(w, &a, "PUT", STORE_OP_PUT, as, "", err));
        snprintf(a.what, sizeof a.what, "put '%s'", path + strlen(w->root) + 1);
        a.req.body = body;
        a.req.body_size = body->size;
        TRY(http_answer_header(&a.req, err, "Content-Type", "application/octet-stream"));
        TRY(ask_send(w, c, &a, refused, err));
        if (a.resp.status < 300) {
            obj->size = body->size;
            obj->mtime_ms = a.resp.date_ms ? a.resp.date_ms : os_now_ms();
            return RC_OK;
        }
        if (again)
            return err_set(err, RC_IO, "%s: %d, though its collection is there", a.what,
                           a.resp.status);
        TRY(folders_make(w, c, path, err));
    }
}

/* *ret_moved false: there was nothing to move. */
static enum rc publish(struct webdav *w, const struct call *c, const char *path, const char *tmp,
                       struct store_obj *obj, bool *ret_moved, struct err *err)
{
    static const int gone[] = {404, 0};
    CLEANUP(ask_fini) struct ask a = {0};
    CLEANUP(buf_fini) struct buf to = BUF_INIT;
    TRY(ask_begin(w, &a, "MOVE", STORE_OP_PUT, tmp, "", err));
    snprintf(a.what, sizeof a.what, "put '%s': MOVE", path + strlen(w->root) + 1);
    TRY(uri_append(&to, path, true, err));
    TRY(http_answer_header(&a.req, err, "Destination", "%s%.*s", w->service, (int)to.size,
                           (char *)to.data));
    TRY(http_answer_header(&a.req, err, "Overwrite", "T"));
    enum rc rc = ask_send(w, c, &a, gone, err);
    if (rc == RC_CONFLICT || rc == RC_NOT_FOUND) return err->rc = RC_IO; /* not another's object */
    if (rc != RC_OK) return rc;
    if (a.resp.status == 207) return err_set(err, RC_IO, "%s: the server did not move it", a.what);
    *ret_moved = a.resp.status != 404;
    const char *etag = http_resp_header(&a.resp, "ETag");
    snprintf(obj->etag, sizeof obj->etag, "%s", etag && strlen(etag) < STORE_ETAG_MAX ? etag : "");
    return RC_OK;
}

/* Best effort, also when the call is cancelled: a file that stays is swept in a day. */
static void discard(struct webdav *w, const char *tmp)
{
    static const int gone[] = {404, 409, 410, 0};
    CLEANUP(ask_fini) struct ask a = {0};
    struct call c = {.deadline_ms = os_mono_ms() + DISCARD_MS};
    struct err ignored;
    if (ask_begin(w, &a, "DELETE", STORE_OP_DEL, tmp, "", &ignored) != RC_OK ||
        ask_send(w, &c, &a, gone, &ignored) != RC_OK)
        err_clear(&ignored);
}

/* The collections above path, from the lowest that has a parent down. */
static enum rc folders_make(struct webdav *w, const struct call *c, const char *path,
                            struct err *err)
{
    char folder[PATH_SIZE];
    bool orphan = true;
    snprintf(folder, sizeof folder, "%s", path);
    size_t size = (size_t)(strrchr(folder, '/') - folder);
    folder[size] = '\0';
    while (folder[0] != '\0') {
        TRY(folder_make(w, c, folder, &orphan, err));
        if (!orphan) break;
        *strrchr(folder, '/') = '\0';
    }
    if (orphan)
        return err_set(err, RC_INVALID, "'%s' has no collection '%s', and none can be made there",
                       w->base.name, path);
    for (size_t at; (at = strlen(folder)) < size;) {
        folder[at] = '/';
        TRY(folder_make(w, c, folder, &orphan, err));
        if (orphan)
            return err_set(err, RC_AGAIN, "MKCOL '%s': its parent has been removed", folder);
    }
    return RC_OK;
}

/* One collection; that it exists is fine. *ret_orphan: its parent does not. */
static enum rc folder_make(struct webdav *w, const struct call *c, const char *path,
                           bool *ret_orphan, struct err *err)
{
    static const int fine[] = {301, 403, 404, 405, 409, 0};
    CLEANUP(ask_fini) struct ask a = {0};
    enum kind kind;
    TRY(ask_begin(w, &a, "MKCOL", STORE_OP_OTHER, path, "/", err));
    TRY(ask_send(w, c, &a, fine, err));
    *ret_orphan = a.resp.status == 404 || a.resp.status == 409;
    if (a.resp.status != 403) return RC_OK;
    /* Apache's word for "somebody else made it just now", too. */
    TRY(look(w, c, path, &kind, err));
    if (kind == KIND_FOLDER) return RC_OK;
    return err_set(err, RC_DENIED, "%s: 403, this user may not make it", a.what);
}

static enum rc look(struct webdav *w, const struct call *c, const char *path, enum kind *ret_kind,
                    struct err *err)
{
    static const int fine[] = {301, 302, 307, 308, 400, 404, 409, 410, 0};
    static const int none[] = {404, 410, 0};
    CLEANUP(ask_fini) struct ask a = {0};
    CLEANUP(ask_fini) struct ask head = {0};
    CLEANUP(entries_fini) struct entries e = {0};
    *ret_kind = KIND_NONE;
    TRY(propfind(w, c, &a, path, 0, fine, err));
    if (is_redirect(a.resp.status)) {
        *ret_kind = KIND_FOLDER; /* with its '/' it would be found */
    } else if (a.resp.status == 207) {
        TRY(entries_parse(path, &a.resp, &e, err));
        *ret_kind = e.folder ? KIND_FOLDER : KIND_OBJECT;
    } else if (a.resp.status == 400) {
        /* Apache's answer for what would be below a file. */
        TRY(ask_begin(w, &head, "HEAD", STORE_OP_OTHER, path, "", err));
        TRY(ask_send(w, c, &head, none, err));
        if (head.resp.status < 300)
            return err_set(err, RC_INVALID, "%s: 400, though it is there", a.what);
    }
    return RC_OK;
}

static enum rc propfind(struct webdav *w, const struct call *c, struct ask *a, const char *path,
                        int depth, const int *fine, struct err *err)
{
    static const char body[] = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"
                               "<D:propfind xmlns:D=\"DAV:\"><D:prop><D:resourcetype/>"
                               "<D:getcontentlength/><D:getlastmodified/><D:getetag/>"
                               "</D:prop></D:propfind>\n";
    TRY(ask_begin(w, a, "PROPFIND", depth ? STORE_OP_LIST : STORE_OP_OTHER, path, depth ? "/" : "",
                  err));
    TRY(http_answer_header(&a->req, err, "Depth", "%d", depth));
    TRY(http_answer_header(&a->req, err, "Content-Type", "application/xml; charset=utf-8"));
    a->req.data = body;
    a->req.data_size = sizeof body - 1;
    a->req.text_max = LISTING_MAX;
    TRY(ask_send(w, c, a, fine, err));
    int status = a->resp.status;
    if (status >= 300 || status == 207) return RC_OK;
    return err_set(err, RC_INVALID, "%s: %d, so '%s' is no WebDAV server", a->what, status,
                   w->base.name);
}

/* Remove what crashed writers left in a folder, the first time it is written to. Trouble is
 * ignored: it is not the put's business. */
static void sweep_once(struct webdav *w, const struct call *c, const char *path)
{
    CLEANUP(entries_fini) struct entries e = {0};
    char folder[PATH_SIZE], tmp[PATH_SIZE + HREF_MAX];
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a; a collision only skips a sweep */
    bool known = false;
    struct err ignored;
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    for (const char *p = folder; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
    thr_lock(&w->lock);
    for (unsigned i = 0; i < SWEPT_COUNT; i++)
        known |= w->swept[i] == hash;
    if (!known) w->swept[w->swept_next++ % SWEPT_COUNT] = hash;
    thr_unlock(&w->lock);
    if (known || folder_read(w, c, folder, &e, &ignored) != RC_OK || e.date_ms == 0) return;
    size_t count;
    const struct walk_item *item = walk_list_items(&e.names, &count);
    for (; count > 0; count--, item++) {
        const char *name = walk_list_name(&e.names, item);
        if (!walk_is_tmp(name) || item->kind != WALK_OBJECT || item->mtime_ms == 0) continue;
        if (e.date_ms - item->mtime_ms < STALE_MS || call_check(c, &ignored) != RC_OK) continue;
        if (snprintf(tmp, sizeof tmp, "%s/%s", folder, name) < PATH_SIZE) discard(w, tmp);
    }
}

/* All that is in a collection. A missing one is empty. */
static enum rc folder_read(struct webdav *w, const struct call *c, const char *path,
                           struct entries *out, struct err *err)
{
    static const int fine[] = {400, 404, 409, 410, 0};
    CLEANUP(ask_fini) struct ask a = {0};
    enum kind kind;
    TRY(propfind(w, c, &a, path, 1, fine, err));
    out->date_ms = a.resp.date_ms;
    if (a.resp.status == 400) {
        /* An object with a '/' behind it, to Apache. */
        TRY(look(w, c, path, &kind, err));
        if (kind == KIND_FOLDER)
            return err_set(err, RC_INVALID, "%s: 400, though it is a collection", a.what);
        return RC_OK;
    }
    if (a.resp.status != 207) return RC_OK;
    TRY(entries_parse(path, &a.resp, out, err));
    if (out->folder) return RC_OK;
    walk_list_reset(&out->names);
    if (strcmp(path, w->root) != 0) return RC_OK;
    return err_set(err, RC_INVALID, "list: '%s' is not a collection", w->base.name);
}

static enum rc entries_parse(const char *path, const struct http_resp *resp, struct entries *out,
                             struct err *err)
{
    CLEANUP(mem_freep) struct parse *p = mem_calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "a listing");
    p->path = path;
    p->out = out;
    if (resp->text.size == 0) return err_set(err, RC_CORRUPT, "PROPFIND '%s': no answer", path);
    if (xml_walk(resp->text.data, resp->text.size, parse_element, p, err) == RC_OK) return RC_OK;
    return err_wrap(err, "PROPFIND '%s'", path);
}

static enum rc parse_element(void *ctx, const char *path, const char *text, struct err *err)
{
    static const char record[] = "multistatus/response";
    struct parse *p = ctx;
    if (strncmp(path, record, sizeof record - 1) != 0) return RC_OK;
    path += sizeof record - 1;
    if (path[0] == '\0') return parse_response(p, err);
    if (strcmp(path, "/href") == 0) return parse_href(p, text, err);
    if (strcmp(path, "/status") == 0) {
        const char *code = strchr(text, ' ');
        p->refused = code == NULL || code[1] != '2';
    } else if (strcmp(path, "/propstat/prop/resourcetype/collection") == 0) {
        p->folder = true;
    } else if (strcmp(path, "/propstat/prop/getcontentlength") == 0 && text[0] != '\0') {
        char *end;
        p->size = strtoull(text, &end, 10);
        p->sized = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    } else if (strcmp(path, "/propstat/prop/getlastmodified") == 0 && text[0] != '\0') {
        p->mtime_ms = http_date(text);
    } else if (strcmp(path, "/propstat/prop/getetag") == 0 && strlen(text) < sizeof p->etag) {
        memcpy(p->etag, text, strlen(text) + 1);
    }
    return RC_OK;
}

/* A URL or only its path; slashes are folded, and the last one tells nothing. */
static enum rc parse_href(struct parse *p, const char *text, struct err *err)
{
    const char *slash = strchr(text, '/'), *host = strstr(text, "://");
    if (host != NULL && slash == host + 1) slash = strchr(host + 3, '/');
    if (host != NULL && slash == NULL) slash = "/";
    if (slash == NULL || !unescape(slash, p->href, sizeof p->href, &p->odd))
        return err_set(err, RC_CORRUPT, "bad href '%.64s'", text);
    size_t used = 0;
    for (const char *s = p->href; *s != '\0'; s++)
        if (*s != '/' || used == 0 || p->href[used - 1] != '/') p->href[used++] = *s;
    while (used > 0 && p->href[used - 1] == '/')
        used--;
    p->href[used] = '\0';
    p->href_seen = true;
    return RC_OK;
}

static enum rc parse_response(struct parse *p, struct err *err)
{
    struct parse done = *p;
    struct entries *e = p->out;
    size_t dir_size = strlen(p->path);
    *p = (struct parse){.path = done.path, .out = done.out};
    if (!done.href_seen) return err_set(err, RC_CORRUPT, "a response without an href");
    if (strcmp(done.href, done.path) == 0) {
        e->folder = done.folder;
        return RC_OK;
    }
    const char *name = done.href + dir_size + 1;
    if (strncmp(done.href, done.path, dir_size) != 0 || done.href[dir_size] != '/')
        return err_set(err, RC_CORRUPT, "the answer is about '%.128s'", done.href);
    if (done.odd || done.refused || strchr(name, '/') != NULL) return RC_OK;
    if (!done.folder && !done.sized)
        return err_set(err, RC_CORRUPT, "no size of '%.128s'", done.href);
    struct walk_item item = {.size = done.size,
                             .mtime_ms = done.mtime_ms,
                             .kind = done.folder ? WALK_FOLDER : WALK_OBJECT};
    return walk_list_add(&e->names, name, done.etag, item, err);
}

static void entries_fini(struct entries *e)
{
    walk_list_fini(&e->names);
}

static enum rc list_read(struct walk *k, struct walk_folder *d, const char *key, struct err *err)
{
    CLEANUP(entries_fini) struct entries e = {0};
    struct webdav *w = (struct webdav *)k->store;
    char path[PATH_SIZE];
    object_path(w, key, path);
    path[strlen(path) - 1] = '\0'; /* after the root or a folder's key, there is a '/' */
    TRY(folder_read(w, k->c, path, &e, err));
    return walk_names(d, &e.names, err);
}

/* False: a bad escape, or no room. *ret_odd is set true when a '/' or 0 was escaped. */
static bool unescape(const char *text, char *out, size_t out_size, bool *ret_odd)
{
    size_t used = 0;
    for (const char *p = text; *p != '\0'; p++) {
        unsigned value = (uint8_t)*p;
        if (*p == '%') {
            char hex[3] = {p[1], p[1] ? p[2] : '\0', '\0'}, *end;
            value = (unsigned)strtoul(hex, &end, 16);
            if (hex[0] == '-' || hex[0] == '+' || hex[0] == ' ' || end != hex + 2) return false;
            if (value == 0 || value == '/') *ret_odd = true;
            p += 2;
        }
        if (used + 1 >= out_size) return false;
        out[used++] = value == 0 ? '/' : (char)value;
    }
    out[used] = '\0';
    return true;
}

/* "Sat, 21 Nov 2026 01:30:41 GMT"; 0 for anything else. */
static int64_t http_date(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char month[4], iso[32];
    unsigned day, year, hour, minute, second;
    int64_t ms;
    struct err ignored;
    if (sscanf(text, "%*3s, %2u %3s %4u %2u:%2u:%2u GMT", &day, month, &year, &hour, &minute,
               &second) != 6)
        return 0;
    const char *at = strlen(month) == 3 ? strstr(months, month) : NULL;
    if (at == NULL || (at - months) % 3 != 0) return 0;
    snprintf(iso, sizeof iso, "%04u-%02u-%02uT%02u:%02u:%02uZ", year,
             (unsigned)(at - months) / 3 + 1, day, hour, minute, second);
    return time_get(iso, &ms, &ignored) == RC_OK ? ms : 0;
}
