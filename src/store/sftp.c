/*
 * sftp.c -- a store on an SFTP server: key "a/b" is the file <root>/a/b, as Litestream lays it out.
 *
 *   sftp://user:password@host:port/abs/path     settings: host user password key-path host-key
 *                                                         path concurrent-writes
 * The path of a URL is absolute; the setting `path` may also be relative to the log-in's folder.
 * How the server and we prove who we are: store/ssh_link.h. ~/.ssh/config is not read.
 *
 * Put: write <folder>/.sluice-tmp-<random>, set its times, fsync it (fsync@openssh.com, where the
 * server has it), close it, give it its name. So no reader sees half an object. What follows the
 * open of the temporary file goes out in one go, so a small put costs three round trips.
 *
 *   overwrite   posix-rename@openssh.com, atomic. A server without it: the plain RENAME, and where
 *               that refuses, remove and rename. Between these two there is no object, and a crash
 *               there loses the old one.
 *   create      hardlink@openssh.com and remove, which arbitrates between writers. A server without
 *               it: the plain RENAME if that refuses to overwrite, which is tried out with two
 *               temporary files once per connection; if it does not, RC_UNSUPPORTED. (How atomic
 *               such a refusal is, only that server's authors know.)
 *
 * Folders are made as needed (0700) and never removed. SFTP has no fsync for folders: a name that a
 * put has given survives a crash of the server's system as its file system wills.
 *
 * Times: SFTP has whole seconds. A put's timestamp is rounded down, as Litestream does, and so the
 * store does not claim STORE_CAP_TIMESTAMP, which promises milliseconds.
 *
 * Temporary files are never listed. A lost connection or a crash can leave one; the first put of a
 * store handle into a folder removes those older than a day. Their atime is the writer's clock,
 * since the mtime is the object's timestamp and may lie far back.
 *
 * A get whose connection breaks goes on where it was, if size and mtime are still what they were.
 *
 * Threads: any. Each call has a connection of its own for as long as it needs it (sftp_pool.h).
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"
#include "store/retry.h"
#include "store/sftp_pool.h"
#include "store/walk.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT            22
#define CHUNK_SIZE      (8 * SFTP_BLOCK) /* what a body is asked for at a time */
#define LOOK_FIRST_SIZE (256u << 10)     /* a larger object is not sent in vain: see put_try */
#define READDIR_FLIGHT  8
#define DEL_FLIGHT      (SFTP_FLIGHT / 2)
#define ROOT_MAX        600
#define PATH_SIZE       (ROOT_MAX + STORE_KEY_MAX + 64)
#define STALE_S         (24 * 3600)
#define SWEPT_COUNT     32

_Static_assert(DEL_FLIGHT <= SFTP_ROOM_MIN && READDIR_FLIGHT <= SFTP_ROOM_MIN, "always room");

struct sftp_store {
    struct store base;
    char root[ROOT_MAX + 1]; /* "", or without a '/' at its end */
    unsigned writes;         /* under way at a time */
    struct pacer *pacer;
    struct sftp_pool *pool;
    pthread_mutex_t lock;
    uint64_t swept[SWEPT_COUNT]; /* [lock] hashes of folders, a ring */
    unsigned swept_next;         /* [lock] */
};

/* One call on one connection; what each kind of call adds comes behind it. */
struct job {
    struct sftp_store *f;
    const struct call *c;
    enum store_op op;
    enum rc (*run)(struct job *j, struct sftp_link *l, struct err *err);
    uint64_t up, down; /* bytes moved by this try */
    bool final;        /* a callback failed, or a repetition could harm */
};

struct put {
    struct job job;
    const struct store_body *body;
    const struct store_put_opts *opts;
    struct store_obj *obj;
    char path[PATH_SIZE], tmp[PATH_SIZE]; /* tmp: "" or a file that may be there */
    struct sftp_handle h;
    bool is_open;
};
/* What the answers at the end of a put belong to. */
enum { TAG_WRITE, TAG_TIMES, TAG_STAT, TAG_FSYNC, TAG_CLOSE };

struct get {
    struct job job;
    const struct store_get_opts *opts;
    store_sink_fn *sink;
    void *ctx;
    char path[PATH_SIZE];
    const char *key;
    bool begun; /* first says what the object was when the sink got its first byte */
    struct sftp_attrs first;
    uint64_t off, left; /* what the sink still wants */
};

typedef enum rc name_fn(void *ctx, const char *name, const struct sftp_attrs *a, struct err *err);

/* Reads under way, in the order of their offsets; slots[head] is the next one for the sink. */
struct slot {
    uint64_t off;
    uint32_t want, got; /* bytes still to come, bytes in data */
    uint8_t *data;      /* for answers that came before their turn */
};
struct window {
    struct slot slots[SFTP_FLIGHT];
    unsigned head, count;
    uint64_t off, left; /* what has not been asked for */
};

/* The names in a folder that a listing wants. */
struct load {
    struct job job;
    struct walk_folder *d;
    char path[PATH_SIZE];
    struct walk_list names;
    bool is_root;
};

struct del {
    struct job job;
    const char *const *keys;
    size_t count, done; /* done: deleted for good, from the front */
    char path[PATH_SIZE];
};

static enum rc sftp_store_open(struct store_settings *set, struct store **ret_store,
                               struct err *err);
static void sftp_store_close(struct store *s);
static enum rc sftp_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err);
static enum rc sftp_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err);
static enum rc sftp_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err);
static enum rc sftp_del(struct store *s, const struct call *c, const char *key, struct err *err);
static enum rc sftp_del_many(struct store *s, const struct call *c, const char *const *keys,
                             size_t key_count, struct err *err);

static enum rc conf_take(struct store_settings *set, struct ssh_conf *conf, struct err *err);
static enum rc host_take(const char *host, struct ssh_conf *conf, struct err *err);
static enum rc copy(const char *key, const char *value, char *out, size_t size, struct err *err);
static enum rc root_take(struct store_settings *set, char root[ROOT_MAX + 1], struct err *err);
static void store_path(const struct sftp_store *f, const char *key, char path[PATH_SIZE]);

static enum rc job_do(struct job *j, struct err *err);
static enum rc job_try(void *ctx, struct retry_hint *hint, struct err *err);
static enum rc attrs_get(struct sftp_link *l, const struct call *c, enum sftp_type type,
                         const char *path, struct sftp_attrs *ret_attrs, struct err *err);
static struct call grace_of(void);

static enum rc put_try(struct job *j, struct sftp_link *l, struct err *err);
static enum rc put_open(struct put *p, struct sftp_link *l, struct err *err);
static enum rc make_tmp(struct put *p, struct sftp_link *l, char tmp[PATH_SIZE], struct err *err);
static enum rc make_folders(struct put *p, struct sftp_link *l, struct err *err);
static enum rc put_body(struct put *p, struct sftp_link *l, struct err *err);
static enum rc put_chunk(struct put *p, struct sftp_link *l, uint64_t off, const uint8_t *data,
                         size_t size, struct err *err);
static enum rc put_end(struct put *p, struct sftp_link *l, struct err *err);
static enum rc put_answer(struct put *p, struct sftp_link *l, struct err *err);
static enum rc publish(struct put *p, struct sftp_link *l, struct err *err);
static enum rc overwrite(struct put *p, struct sftp_link *l, struct err *err);
static enum rc create(struct put *p, struct sftp_link *l, struct err *err);
static enum rc create_by_link(struct put *p, struct sftp_link *l, struct err *err);
static enum rc rename_probe(struct put *p, struct sftp_link *l, struct err *err);
static enum rc exists_or(struct put *p, struct sftp_link *l, struct err *err);
static void put_undo(struct put *p, struct sftp_link *l);
static void sweep_once(struct put *p, struct sftp_link *l);
static enum rc sweep(struct put *p, struct sftp_link *l, const char *folder, struct err *err);
static enum rc sweep_name(void *ctx, const char *name, const struct sftp_attrs *a, struct err *err);

static enum rc read_folder(struct sftp_link *l, const struct call *c, const char *path, name_fn *fn,
                           void *ctx, struct err *err);
static enum rc take_names(struct sftp_reply *r, name_fn *fn, void *ctx, struct err *err);
static void handle_close(struct sftp_link *l, const struct sftp_handle *h);

static enum rc get_try(struct job *j, struct sftp_link *l, struct err *err);
static enum rc get_begin(struct get *g, struct sftp_link *l, const struct sftp_handle *h,
                         struct err *err);
static enum rc get_bytes(struct get *g, struct sftp_link *l, const struct sftp_handle *h,
                         struct window *w, struct err *err);
static enum rc get_answer(struct get *g, struct sftp_link *l, const struct sftp_handle *h,
                          struct window *w, struct err *err);
static enum rc deliver_waiting(struct get *g, struct window *w, struct err *err);
static enum rc deliver(struct get *g, const void *data, size_t size, struct err *err);
static void window_fini(struct window *w);

static enum rc list_read(struct walk *w, struct walk_folder *d, const char *key, struct err *err);
static enum rc load_try(struct job *j, struct sftp_link *l, struct err *err);
static enum rc load_missing(struct load *n, struct sftp_link *l, struct err *err);
static enum rc load_name(void *ctx, const char *name, const struct sftp_attrs *a, struct err *err);
static enum rc load_ask(struct load *n, struct sftp_link *l, struct err *err);
static struct walk_item item_of(const struct sftp_attrs *a);

static enum rc del_try(struct job *j, struct sftp_link *l, struct err *err);
static enum rc del_refused(struct del *d, struct sftp_link *l, size_t i,
                           const struct sftp_reply *refusal, struct err *err);

const struct store_ops store_sftp_ops = {
    .type = "sftp",
    .caps = STORE_CAP_CREATE | STORE_CAP_RANGE | STORE_CAP_LIST_AFTER,
    .open = sftp_store_open,
    .close = sftp_store_close,
    .put = sftp_put,
    .get = sftp_get,
    .list = sftp_list,
    .del = sftp_del,
    .del_many = sftp_del_many,
};

static enum rc sftp_store_open(struct store_settings *set, struct store **ret_store,
                               struct err *err)
{
    CLEANUP(mem_freep) struct ssh_conf *conf = mem_calloc(1, sizeof *conf);
    char root[ROOT_MAX + 1], service[300], port[8] = "";
    bool concurrent = true;
    if (conf == NULL) return err_mem(err, "an SFTP store");
    TRY(conf_take(set, conf, err));
    TRY(root_take(set, root, err));
    TRY(store_setting_bool(set, "concurrent-writes", &concurrent, err));
    struct sftp_store *f = mem_calloc(1, sizeof *f);
    if (f == NULL) return err_mem(err, "an SFTP store");
    pthread_mutex_init(&f->lock, NULL);
    memcpy(f->root, root, sizeof root);
    f->writes = concurrent ? SFTP_FLIGHT - 8 : 1;
    snprintf(service, sizeof service, "sftp://%s:%u", conf->host, conf->port);
    if (conf->port != PORT) snprintf(port, sizeof port, ":%u", conf->port);
    store_init(&f->base, &store_sftp_ops, "sftp://%s%s%s%s%s%s", conf->user,
               conf->user[0] != '\0' ? "@" : "", conf->host, port, root[0] == '/' ? "" : "/~/",
               root);
    enum rc rc = sftp_pool_new(conf, &f->pool, err);
    if (rc == RC_OK)
        rc = pacer_open(service, set->conf->on_trouble, set->conf->on_trouble_ctx, &f->pacer, err);
    mem_wipe(conf, sizeof *conf);
    if (rc != RC_OK) {
        sftp_store_close(&f->base);
        return rc;
    }
    *ret_store = &f->base;
    return RC_OK;
}

static void sftp_store_close(struct store *s)
{
    struct sftp_store *f = (struct sftp_store *)s;
    sftp_pool_free(f->pool);
    pacer_close(f->pacer);
    pthread_mutex_destroy(&f->lock);
    mem_free(f);
}

static enum rc sftp_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err)
{
    struct put p = {.job = {.f = (struct sftp_store *)s, .c = c, .op = STORE_OP_PUT},
                    .body = body,
                    .opts = opts,
                    .obj = ret_obj};
    p.job.run = put_try;
    store_path(p.job.f, key, p.path);
    if (job_do(&p.job, err) != RC_OK) {
        if (p.job.final) return err->rc; /* the body's own words */
        return err_wrap(err, "put '%s'", p.path);
    }
    memcpy(ret_obj->key, key, strlen(key) + 1);
    return RC_OK;
}

static enum rc sftp_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err)
{
    struct get g = {.job = {.f = (struct sftp_store *)s, .c = c, .op = STORE_OP_GET},
                    .opts = opts,
                    .sink = sink,
                    .ctx = ctx,
                    .key = key};
    g.job.run = get_try;
    store_path(g.job.f, key, g.path);
    if (job_do(&g.job, err) == RC_OK) return RC_OK;
    if (g.job.final) return err->rc; /* the sink's own words */
    return err_wrap(err, "get '%s'", g.path);
}

static enum rc sftp_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err)
{
    struct walk w = {.store = s,
                     .c = c,
                     .prefix = prefix,
                     .after = opts->after,
                     .fn = fn,
                     .ctx = ctx,
                     .read = list_read};
    return walk_tree(&w, err);
}

static enum rc sftp_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    return sftp_del_many(s, c, &key, 1, err);
}

static enum rc sftp_del_many(struct store *s, const struct call *c, const char *const *keys,
                             size_t key_count, struct err *err)
{
    struct del d = {.job = {.f = (struct sftp_store *)s, .c = c, .op = STORE_OP_DEL},
                    .keys = keys,
                    .count = key_count};
    d.job.run = del_try;
    if (job_do(&d.job, err) == RC_OK) return RC_OK;
    store_path(d.job.f, keys[d.done], d.path);
    return err_wrap(err, "delete '%s'", d.path);
}

/* ---- Settings ---- */

static enum rc conf_take(struct store_settings *set, struct ssh_conf *conf, struct err *err)
{
    const char *host = store_setting(set, "host"), *user = store_setting(set, "user"),
               *password = store_setting(set, "password");
    TRY(copy("user", user[0] != '\0' ? user : set->url.user, conf->user, sizeof conf->user, err));
    TRY(copy("password", password[0] != '\0' ? password : set->url.password, conf->password,
             sizeof conf->password, err));
    TRY(copy("key-path", store_setting(set, "key-path"), conf->key_path, sizeof conf->key_path,
             err));
    TRY(copy("host-key", store_setting(set, "host-key"), conf->host_key, sizeof conf->host_key,
             err));
    TRY(ssh_host_key_check(conf->host_key, err));
    conf->port = set->url.port != 0 ? set->url.port : PORT;
    TRY(copy("host", set->url.host, conf->host, sizeof conf->host, err));
    if (host[0] != '\0') TRY(host_take(host, conf, err));
    if (conf->host[0] == '\0')
        return err_set(err, RC_INVALID, "an SFTP store needs a host: sftp://user@host/path");
    return RC_OK;
}

/* "host", "host:port", "[::1]:port". */
static enum rc host_take(const char *host, struct ssh_conf *conf, struct err *err)
{
    char text[300];
    struct url u;
    conf->port = PORT;
    const char *colon = strchr(host, ':');
    if (host[0] != '[' && colon != NULL && strchr(colon + 1, ':') != NULL) /* a bare "::1" */
        return copy("host", host, conf->host, sizeof conf->host, err);
    int n = snprintf(text, sizeof text, "sftp://%s/", host);
    if (n >= (int)sizeof text || url_get(text, &u, err) != RC_OK || u.user[0] != '\0')
        return err_set(err, RC_INVALID, "host '%.100s': give a name and, if not 22, :port", host);
    if (u.port != 0) conf->port = u.port;
    return copy("host", u.host, conf->host, sizeof conf->host, err);
}

static enum rc copy(const char *key, const char *value, char *out, size_t size, struct err *err)
{
    if (strlen(value) >= size)
        return err_set(err, RC_INVALID, "%s is longer than %zu bytes", key, size - 1);
    memcpy(out, value, strlen(value) + 1);
    return RC_OK;
}

/* Percent-escapes of a URL are decoded, as Litestream does here; "//", "/./" and a '/' at the end
 * are dropped. A relative path stays one. */
static enum rc root_take(struct store_settings *set, char root[ROOT_MAX + 1], struct err *err)
{
    const char *path = store_setting(set, "path");
    bool escaped = path[0] == '\0';
    size_t used = 0;
    if (escaped) path = set->url.path;
    if (strlen(path) > ROOT_MAX)
        return err_set(err, RC_INVALID, "path is longer than %d bytes: '%.64s...'", ROOT_MAX, path);
    for (const char *p = path; *p != '\0'; p++) {
        unsigned v = (uint8_t)*p;
        int taken = 0;
        if (escaped && v == '%') {
            if (sscanf(p, "%%%2x%n", &v, &taken) != 1 || taken != 3 || v == 0)
                return err_set(err, RC_INVALID, "path '%s': bad escape", path);
            p += 2;
        }
        bool slash = used > 0 && root[used - 1] == '/';
        if (v == '/' && slash) continue;
        if (v == '/' && used > 1 && root[used - 1] == '.' && root[used - 2] == '/') {
            used--;
            continue;
        }
        root[used++] = (char)v;
    }
    while (used > 1 && root[used - 1] == '/')
        used--;
    root[used] = '\0';
    return RC_OK;
}

static void store_path(const struct sftp_store *f, const char *key, char path[PATH_SIZE])
{
    bool slash = f->root[0] != '\0' && strcmp(f->root, "/") != 0;
    snprintf(path, PATH_SIZE, "%s%s%s", f->root, slash ? "/" : "", key);
}

/* ---- One call ---- */

static enum rc job_do(struct job *j, struct err *err)
{
    return retry_run(j->f->pacer, j->c, job_try, j, err);
}

static enum rc job_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct job *j = ctx;
    struct sftp_link *l = NULL;
    j->up = j->down = 0;
    enum rc rc = sftp_pool_take(j->f->pool, j->c, &l, err);
    if (rc == RC_OK) {
        rc = j->run(j, l, err);
        hint->final = j->final;
        /* The server has closed it, or was restarted, while nobody looked. */
        hint->at_once = l->wire.broken && l->reused;
        sftp_pool_give(j->f->pool, l);
    }
    bool usable = rc == RC_OK || rc == RC_NOT_FOUND || rc == RC_CONFLICT || j->final;
    store_count(&j->f->base, j->op, usable, j->up, j->down);
    return rc;
}

/* type: STAT or LSTAT. */
static enum rc attrs_get(struct sftp_link *l, const struct call *c, enum sftp_type type,
                         const char *path, struct sftp_attrs *ret_attrs, struct err *err)
{
    struct sftp_reply r;
    TRY(sftp_ask_path(&l->wire, type, 0, path, err));
    TRY(sftp_expect(&l->wire, c, SFTP_ATTRS, &r, err));
    *ret_attrs = r.attrs;
    return RC_OK;
}

/* For tidying up after a call that may have been cancelled. */
static struct call grace_of(void)
{
    return (struct call){.deadline_ms = os_mono_ms() + SFTP_GRACE_MS};
}

/* ---- Put ---- */

static enum rc put_try(struct job *j, struct sftp_link *l, struct err *err)
{
    struct put *p = (struct put *)j;
    struct sftp_attrs a;
    p->is_open = false;
    put_undo(p, l); /* of a try whose connection broke */
    /* Spares the sending; who is late by less finds out in publish. */
    if (p->opts->if_absent && p->body->size > LOOK_FIRST_SIZE) {
        enum rc rc = attrs_get(l, j->c, SFTP_LSTAT, p->path, &a, err);
        if (rc == RC_OK) return err_set(err, RC_CONFLICT, "it exists");
        if (rc != RC_NOT_FOUND) return rc;
    }
    enum rc rc = put_open(p, l, err);
    if (rc == RC_OK) {
        sweep_once(p, l);
        rc = put_body(p, l, err);
        if (rc == RC_OK) rc = put_end(p, l, err);
    }
    /* Both mean something to the caller of a put: not what happened to a folder on the way. */
    if (!j->final && (rc == RC_CONFLICT || rc == RC_NOT_FOUND)) rc = err->rc = RC_IO;
    if (rc == RC_OK) rc = publish(p, l, err);
    if (rc != RC_OK) put_undo(p, l);
    return rc;
}

static enum rc put_open(struct put *p, struct sftp_link *l, struct err *err)
{
    enum rc rc = make_tmp(p, l, p->tmp, err);
    if (rc == RC_NOT_FOUND) {
        TRY(make_folders(p, l, err));
        rc = make_tmp(p, l, p->tmp, err);
    }
    if (rc == RC_OK) return RC_OK;
    err_wrap(err, "create '%s'", p->tmp);
    if (!l->wire.broken) p->tmp[0] = '\0'; /* it was refused: there is nothing to remove */
    return rc;
}

/* A new file beside the object, open in p->h. */
static enum rc make_tmp(struct put *p, struct sftp_link *l, char tmp[PATH_SIZE], struct err *err)
{
    struct sftp_reply r;
    const char *slash = strrchr(p->path, '/');
    int folder = slash ? (int)(slash - p->path) + 1 : 0;
    snprintf(tmp, PATH_SIZE, "%.*s" STORE_TMP_PREFIX "%016" PRIx64, folder, p->path, os_random());
    TRY(sftp_ask_open(&l->wire, 0, tmp, SFTP_O_WRITE | SFTP_O_CREAT | SFTP_O_EXCL, err));
    TRY(sftp_expect(&l->wire, p->job.c, SFTP_HANDLE, &r, err));
    p->h = r.handle;
    p->is_open = true;
    return RC_OK;
}

/* From the top: what exists answers FAILURE, as it does when it cannot be made, so whether it
 * worked is for the next open to tell. All go out together; the server takes them in order. */
static enum rc make_folders(struct put *p, struct sftp_link *l, struct err *err)
{
    char path[PATH_SIZE];
    struct sftp_reply r = {0};
    enum rc rc = RC_OK;
    bool denied = false;
    memcpy(path, p->path, sizeof path);
    for (char *slash = strchr(path + 1, '/'); rc == RC_OK && slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (sftp_room(&l->wire) == 0) rc = sftp_recv(&l->wire, p->job.c, &r, err);
        denied |= r.code == SFTP_NO_PERMISSION;
        if (rc == RC_OK) rc = sftp_ask_path(&l->wire, SFTP_MKDIR, 0, path, err);
        *slash = '/';
    }
    while (rc == RC_OK && l->wire.waiting > 0) {
        rc = sftp_recv(&l->wire, p->job.c, &r, err);
        denied |= r.code == SFTP_NO_PERMISSION;
    }
    if (rc != RC_OK) {
        sftp_orphan(&l->wire);
        return rc;
    }
    bool there = r.code == SFTP_OK || r.code == SFTP_FAILURE;
    return denied && !there ? err_set(err, RC_DENIED, "the server lets us make no folder there")
                            : RC_OK;
}

static enum rc put_body(struct put *p, struct sftp_link *l, struct err *err)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    uint64_t size = p->body->size;
    TRY(buf_reserve(&b, size < CHUNK_SIZE ? (size_t)size : CHUNK_SIZE, err));
    for (uint64_t off = 0; off < size;) {
        size_t n = size - off < CHUNK_SIZE ? (size_t)(size - off) : CHUNK_SIZE;
        TRY(call_check(p->job.c, err));
        if (p->body->read(p->body->ctx, off, b.data, n, err) != RC_OK) {
            p->job.final = true;
            return err->rc;
        }
        TRY(put_chunk(p, l, off, b.data, n, err));
        off += n;
    }
    return RC_OK;
}

static enum rc put_chunk(struct put *p, struct sftp_link *l, uint64_t off, const uint8_t *data,
                         size_t size, struct err *err)
{
    while (size > 0) {
        uint32_t n = size < SFTP_BLOCK ? (uint32_t)size : SFTP_BLOCK;
        uint8_t *room;
        /* Room for the end of the put is kept. */
        while (l->wire.waiting >= p->job.f->writes || sftp_room(&l->wire) < 8)
            TRY(put_answer(p, l, err));
        TRY(sftp_ask_write(&l->wire, TAG_WRITE, &p->h, off, n, &room, err));
        memcpy(room, data, n);
        p->job.up += n;
        off += n;
        data += n;
        size -= n;
    }
    return sftp_flush(&l->wire, p->job.c, err);
}

/* The mtime comes before the fsync, so that both last. */
static enum rc put_end(struct put *p, struct sftp_link *l, struct err *err)
{
    int64_t mtime = p->opts->timestamp_ms / 1000, now = os_now_ms() / 1000;
    struct sftp *s = &l->wire;
    p->obj->size = UINT64_MAX;
    p->obj->mtime_ms = os_now_ms() / 1000 * 1000;
    if (p->opts->timestamp_ms != 0 && mtime <= UINT32_MAX)
        TRY(sftp_ask_times(s, TAG_TIMES, &p->h, (uint32_t)now, (uint32_t)mtime, err));
    TRY(sftp_ask_handle(s, SFTP_FSTAT, TAG_STAT, &p->h, err));
    if (s->exts & SFTP_EXT_FSYNC) TRY(sftp_ask_fsync(s, TAG_FSYNC, &p->h, err));
    TRY(sftp_ask_handle(s, SFTP_CLOSE, TAG_CLOSE, &p->h, err));
    p->is_open = false;
    while (s->waiting > 0)
        TRY(put_answer(p, l, err));
    if (p->obj->size != UINT64_MAX && p->obj->size != p->body->size)
        return err_set(err, RC_IO, "the server kept %" PRIu64 " of %" PRIu64 " bytes", p->obj->size,
                       p->body->size);
    p->obj->size = p->body->size;
    return RC_OK;
}

static enum rc put_answer(struct put *p, struct sftp_link *l, struct err *err)
{
    struct sftp_reply r;
    TRY(sftp_recv(&l->wire, p->job.c, &r, err));
    if (r.tag == TAG_STAT && r.type == SFTP_ATTRS) {
        if (r.attrs.has_size) p->obj->size = r.attrs.size;
        if (r.attrs.has_times) p->obj->mtime_ms = (int64_t)r.attrs.mtime * 1000;
        return RC_OK;
    }
    if (r.code == SFTP_OK) return RC_OK;
    /* Some servers let nobody set times; the object is none the worse. */
    if (r.tag == TAG_TIMES || r.tag == TAG_STAT) return RC_OK;
    if (r.tag == TAG_FSYNC && r.code == SFTP_NO_SUPPORT) return RC_OK;
    if (sftp_status(&r, err) == RC_IO && r.code == SFTP_FAILURE)
        return err_wrap(err, "write (is the disk or quota full?)");
    return err_wrap(err, "write");
}

/* ---- Put: the name ---- */

static enum rc publish(struct put *p, struct sftp_link *l, struct err *err)
{
    return p->opts->if_absent ? create(p, l, err) : overwrite(p, l, err);
}

static enum rc overwrite(struct put *p, struct sftp_link *l, struct err *err)
{
    struct sftp *s = &l->wire;
    struct sftp_reply r;
    bool atomic = (s->exts & SFTP_EXT_POSIX_RENAME) != 0;
    TRY(sftp_ask_move(s, atomic ? SFTP_EXT_POSIX_RENAME : 0, 0, p->tmp, p->path, err));
    TRY(sftp_expect(s, p->job.c, SFTP_STATUS, &r, err));
    if (r.code == SFTP_FAILURE && !atomic) {
        TRY(sftp_ask_path(s, SFTP_REMOVE, 0, p->path, err));
        TRY(sftp_expect(s, p->job.c, SFTP_STATUS, &r, err));
        TRY(sftp_ask_move(s, 0, 0, p->tmp, p->path, err));
        TRY(sftp_expect(s, p->job.c, SFTP_STATUS, &r, err));
    }
    if (r.code == SFTP_OK) {
        p->tmp[0] = '\0';
        return RC_OK;
    }
    if (sftp_status(&r, err) == RC_NOT_FOUND) err->rc = RC_IO;
    return err_wrap(err, "rename");
}

static enum rc create(struct put *p, struct sftp_link *l, struct err *err)
{
    struct sftp_reply r;
    if (l->wire.exts & SFTP_EXT_HARDLINK) return create_by_link(p, l, err);
    if (!l->rename_known) TRY(rename_probe(p, l, err));
    if (!l->rename_refuses)
        return err_set(err, RC_UNSUPPORTED,
                       "the SFTP server has neither hardlink@openssh.com nor a rename that does "
                       "not overwrite, so it cannot arbitrate between writers");
    TRY(sftp_ask_move(&l->wire, 0, 0, p->tmp, p->path, err));
    TRY(sftp_expect(&l->wire, p->job.c, SFTP_STATUS, &r, err));
    if (r.code == SFTP_OK) {
        p->tmp[0] = '\0';
        return RC_OK;
    }
    if (sftp_status(&r, err) == RC_NOT_FOUND) err->rc = RC_IO;
    return exists_or(p, l, err);
}

/* Whether the link could be made or not, the first name is not needed any more. */
static enum rc create_by_link(struct put *p, struct sftp_link *l, struct err *err)
{
    enum { TAG_LINK, TAG_REMOVE };
    struct sftp *s = &l->wire;
    struct sftp_reply r;
    struct err why = {0};
    bool linked = false;
    TRY(sftp_ask_move(s, SFTP_EXT_HARDLINK, TAG_LINK, p->tmp, p->path, err));
    TRY(sftp_ask_path(s, SFTP_REMOVE, TAG_REMOVE, p->tmp, err));
    while (s->waiting > 0) {
        enum rc rc = sftp_recv(s, p->job.c, &r, err);
        /* With the answer to the link in hand, the other one's can wait for the sweep. */
        if (rc != RC_OK && linked) break;
        if (rc != RC_OK) return rc;
        if (r.tag == TAG_LINK) linked = sftp_status(&r, &why) == RC_OK;
        if (r.tag == TAG_REMOVE && r.code == SFTP_OK) p->tmp[0] = '\0';
    }
    sftp_orphan(s);
    if (linked) {
        p->tmp[0] = '\0';
        err_clear(err);
        return RC_OK;
    }
    *err = why;
    if (err->rc == RC_NOT_FOUND) err->rc = RC_IO;
    if (err->rc == RC_UNSUPPORTED)
        return err_wrap(err, "the server's file system has no hard links");
    return exists_or(p, l, err);
}

/* "Failure" is all that version 3 has for "it exists": look. err has what the server said. */
static enum rc exists_or(struct put *p, struct sftp_link *l, struct err *err)
{
    struct sftp_attrs a;
    struct err other;
    enum rc rc = attrs_get(l, p->job.c, SFTP_LSTAT, p->path, &a, &other);
    if (rc == RC_OK) return err_set(err, RC_CONFLICT, "it exists");
    if (rc == RC_NOT_FOUND) return err_wrap(err, "give it its name");
    *err = other;
    return rc;
}

/* Does RENAME overwrite? Tried on p->tmp and a second temporary file, which it may take the place
 * of; then p->tmp is gone and so is the answer's worth, but the put has failed anyway. */
static enum rc rename_probe(struct put *p, struct sftp_link *l, struct err *err)
{
    char other[PATH_SIZE];
    struct sftp *s = &l->wire;
    struct sftp_reply r;
    if (make_tmp(p, l, other, err) != RC_OK) return err_wrap(err, "create '%s'", other);
    TRY(sftp_ask_handle(s, SFTP_CLOSE, 0, &p->h, err));
    p->is_open = false;
    TRY(sftp_expect(s, p->job.c, SFTP_STATUS, &r, err));
    TRY(sftp_ask_move(s, 0, 0, other, p->tmp, err));
    TRY(sftp_expect(s, p->job.c, SFTP_STATUS, &r, err));
    l->rename_known = true;
    l->rename_refuses = r.code != SFTP_OK;
    if (!l->rename_refuses) return RC_OK;
    TRY(sftp_ask_path(s, SFTP_REMOVE, 0, other, err));
    return sftp_expect(s, p->job.c, SFTP_STATUS, &r, err);
}

/* Close and remove the temporary file, if there is one, whatever has happened to the call. What
 * cannot be removed now is in the next try, or swept in a day. */
static void put_undo(struct put *p, struct sftp_link *l)
{
    struct call grace = grace_of();
    struct sftp_reply r;
    struct err ignored;
    if (p->tmp[0] == '\0' || l->wire.broken) return;
    sftp_orphan(&l->wire);
    if (l->wire.broken) return;
    if (p->is_open && sftp_ask_handle(&l->wire, SFTP_CLOSE, 0, &p->h, &ignored) != RC_OK) return;
    p->is_open = false;
    sftp_orphan(&l->wire);
    if (sftp_ask_path(&l->wire, SFTP_REMOVE, 0, p->tmp, &ignored) != RC_OK) return;
    if (sftp_expect(&l->wire, &grace, SFTP_STATUS, &r, &ignored) == RC_OK) p->tmp[0] = '\0';
}

/* Remove what crashed writers left in a folder, the first time it is written to. Trouble is
 * ignored, unless the connection is lost by it, which the put will notice. */
static void sweep_once(struct put *p, struct sftp_link *l)
{
    struct sftp_store *f = p->job.f;
    char folder[PATH_SIZE];
    struct err ignored;
    bool known = false;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a; a collision only skips a sweep */
    const char *slash = strrchr(p->path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - p->path) + 1 : 0, p->path);
    for (const char *c = folder; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    thr_lock(&f->lock);
    for (unsigned i = 0; i < SWEPT_COUNT; i++)
        known |= f->swept[i] == hash;
    if (!known) f->swept[f->swept_next++ % SWEPT_COUNT] = hash;
    thr_unlock(&f->lock);
    if (!known && sweep(p, l, folder, &ignored) != RC_OK) err_clear(&ignored);
}

static enum rc sweep(struct put *p, struct sftp_link *l, const char *folder, struct err *err)
{
    struct sftp *s = &l->wire;
    struct sftp_reply r;
    char path[PATH_SIZE];
    CLEANUP(buf_fini) struct buf stale = BUF_INIT;
    TRY(read_folder(l, p->job.c, folder[0] != '\0' ? folder : ".", sweep_name, &stale, err));
    for (size_t at = 0; at < stale.size;) {
        const char *one = (const char *)stale.data + at;
        at += strlen(one) + 1;
        if (snprintf(path, sizeof path, "%s%s", folder, one) >= (int)sizeof path) continue;
        TRY(sftp_ask_path(s, SFTP_REMOVE, 0, path, err));
        TRY(sftp_expect(s, p->job.c, SFTP_STATUS, &r, err));
    }
    return RC_OK;
}

static enum rc sweep_name(void *ctx, const char *name, const struct sftp_attrs *a, struct err *err)
{
    int64_t last = a->atime > a->mtime ? a->atime : a->mtime;
    if (!walk_is_tmp(name) || !a->has_times || os_now_ms() / 1000 - last < STALE_S) return RC_OK;
    return buf_append(ctx, name, strlen(name) + 1, err);
}

/* ---- Folders ---- */

/* Call fn for each name in a folder. Several READDIR are under way, since one brings but a hundred
 * names. */
static enum rc read_folder(struct sftp_link *l, const struct call *c, const char *path, name_fn *fn,
                           void *ctx, struct err *err)
{
    struct sftp *s = &l->wire;
    struct sftp_reply r;
    struct sftp_handle h;
    bool end = false;
    TRY(sftp_ask_path(s, SFTP_OPENDIR, 0, path, err));
    TRY(sftp_expect(s, c, SFTP_HANDLE, &r, err));
    h = r.handle;
    enum rc rc = RC_OK;
    while (rc == RC_OK && (!end || s->waiting > 0)) {
        while (rc == RC_OK && !end && s->waiting < READDIR_FLIGHT)
            rc = sftp_ask_handle(s, SFTP_READDIR, 0, &h, err);
        if (rc == RC_OK) rc = sftp_recv(s, c, &r, err);
        if (rc != RC_OK) break;
        if (r.type == SFTP_NAME)
            rc = take_names(&r, fn, ctx, err);
        else if (r.code == SFTP_EOF)
            end = true;
        else
            rc = sftp_status(&r, err);
    }
    handle_close(l, &h);
    return rc;
}

static enum rc take_names(struct sftp_reply *r, name_fn *fn, void *ctx, struct err *err)
{
    char name[SFTP_NAME_MAX + 1];
    struct sftp_attrs a;
    if (r->name_count == 0) return err_set(err, RC_CORRUPT, "the server sent names, but none");
    while (sftp_name(r, name, &a))
        TRY(fn(ctx, name, &a, err));
    return RC_OK;
}

/* Nobody waits for the answers: they are dropped when they come. */
static void handle_close(struct sftp_link *l, const struct sftp_handle *h)
{
    struct call grace = grace_of();
    struct err ignored;
    if (l->wire.broken) return;
    sftp_orphan(&l->wire);
    if (sftp_room(&l->wire) == 0 ||
        sftp_ask_handle(&l->wire, SFTP_CLOSE, 0, h, &ignored) != RC_OK ||
        sftp_flush(&l->wire, &grace, &ignored) != RC_OK)
        l->wire.broken = true; /* with it go its handles */
    sftp_orphan(&l->wire);
}

/* ---- Get ---- */

static enum rc get_try(struct job *j, struct sftp_link *l, struct err *err)
{
    struct get *g = (struct get *)j;
    CLEANUP(window_fini) struct window w = {0};
    struct sftp_reply r;
    TRY(sftp_ask_open(&l->wire, 0, g->path, SFTP_O_READ, err));
    TRY(sftp_expect(&l->wire, j->c, SFTP_HANDLE, &r, err));
    struct sftp_handle h = r.handle;
    enum rc rc = get_begin(g, l, &h, err);
    w.off = g->off;
    w.left = g->left;
    while (rc == RC_OK && g->left > 0)
        rc = get_bytes(g, l, &h, &w, err);
    handle_close(l, &h);
    return rc;
}

static enum rc get_begin(struct get *g, struct sftp_link *l, const struct sftp_handle *h,
                         struct err *err)
{
    struct sftp_reply r;
    TRY(sftp_ask_handle(&l->wire, SFTP_FSTAT, 0, h, err));
    TRY(sftp_expect(&l->wire, g->job.c, SFTP_ATTRS, &r, err));
    const struct sftp_attrs *a = &r.attrs;
    if (!sftp_is_file(a)) return err_set(err, RC_NOT_FOUND, "not a regular file");
    if (!a->has_size) return err_set(err, RC_UNSUPPORTED, "the server does not tell its size");
    if (g->begun) {
        if (a->size == g->first.size && a->mtime == g->first.mtime) return RC_OK;
        return err_set(err, RC_IO, "it was replaced while the connection was lost");
    }
    g->begun = true;
    g->first = *a;
    g->off = g->opts->off;
    g->left = store_range(g->opts, a->size);
    struct store_obj *obj = g->opts->ret_obj;
    if (obj == NULL) return RC_OK;
    *obj = (struct store_obj){.size = a->size, .mtime_ms = (int64_t)a->mtime * 1000};
    memcpy(obj->key, g->key, strlen(g->key) + 1);
    return RC_OK;
}

/* Ask for more when there is room for a good part of a flight, then take one answer. */
static enum rc get_bytes(struct get *g, struct sftp_link *l, const struct sftp_handle *h,
                         struct window *w, struct err *err)
{
    if (w->count <= SFTP_FLIGHT - SFTP_FLIGHT / 4) {
        while (w->left > 0 && w->count < SFTP_FLIGHT && sftp_room(&l->wire) > 0) {
            unsigned i = (w->head + w->count) % SFTP_FLIGHT;
            uint32_t want = w->left < SFTP_BLOCK ? (uint32_t)w->left : SFTP_BLOCK;
            TRY(sftp_ask_read(&l->wire, i, h, w->off, want, err));
            w->slots[i].off = w->off;
            w->slots[i].want = want;
            w->slots[i].got = 0;
            w->count++;
            w->off += want;
            w->left -= want;
        }
    }
    return get_answer(g, l, h, w, err);
}

static enum rc get_answer(struct get *g, struct sftp_link *l, const struct sftp_handle *h,
                          struct window *w, struct err *err)
{
    struct sftp_reply r;
    TRY(sftp_recv(&l->wire, g->job.c, &r, err));
    if (r.type == SFTP_STATUS && r.code == SFTP_EOF)
        return err_set(err, RC_IO, "it shrank while being read");
    if (r.type == SFTP_STATUS) return sftp_status(&r, err);
    struct slot *s = &w->slots[r.tag % SFTP_FLIGHT];
    uint32_t size = (uint32_t)r.size; /* at most what was asked for: sftp_wire looks at that */
    bool first = s == &w->slots[w->head] && s->got == 0;
    if (!first) {
        if (s->data == NULL) s->data = mem_alloc(SFTP_BLOCK);
        if (s->data == NULL) return err_mem(err, "a block that came early");
        memcpy(s->data + s->got, r.data, size);
        s->got += size;
    }
    s->off += size;
    s->want -= size;
    /* A server may send less than it was asked for. */
    if (s->want > 0) TRY(sftp_ask_read(&l->wire, r.tag, h, s->off, s->want, err));
    if (first) TRY(deliver(g, r.data, size, err));
    return deliver_waiting(g, w, err);
}

/* Pass on what has come before its turn and whose turn it is now. */
static enum rc deliver_waiting(struct get *g, struct window *w, struct err *err)
{
    while (w->count > 0) {
        struct slot *s = &w->slots[w->head];
        uint32_t got = s->got;
        s->got = 0;
        if (got > 0) TRY(deliver(g, s->data, got, err));
        if (s->want > 0) break;
        w->head = (w->head + 1) % SFTP_FLIGHT;
        w->count--;
    }
    return RC_OK;
}

static enum rc deliver(struct get *g, const void *data, size_t size, struct err *err)
{
    TRY(call_check(g->job.c, err));
    if (g->sink(g->ctx, data, size, err) != RC_OK) {
        g->job.final = true;
        return err->rc;
    }
    g->off += size;
    g->left -= size;
    g->job.down += size;
    return RC_OK;
}

static void window_fini(struct window *w)
{
    for (unsigned i = 0; i < SFTP_FLIGHT; i++)
        mem_free(w->slots[i].data);
}

/* ---- List ---- */

/* Its names are read before fn sees the first one, so fn may use the store. */
static enum rc list_read(struct walk *w, struct walk_folder *d, const char *key, struct err *err)
{
    struct load n = {.job = {.f = (struct sftp_store *)w->store, .c = w->c, .op = STORE_OP_LIST},
                     .d = d,
                     .is_root = key[0] == '\0'};
    n.job.run = load_try;
    store_path(n.job.f, key, n.path);
    size_t size = strlen(n.path);
    while (size > 1 && n.path[size - 1] == '/')
        n.path[--size] = '\0';
    if (size == 0) memcpy(n.path, ".", 2);
    enum rc rc = job_do(&n.job, err);
    if (rc != RC_OK)
        err_wrap(err, "list '%s'", n.path);
    else
        rc = walk_names(d, &n.names, err);
    walk_list_fini(&n.names);
    return rc;
}

static enum rc load_try(struct job *j, struct sftp_link *l, struct err *err)
{
    struct load *n = (struct load *)j;
    walk_list_reset(&n->names);
    enum rc rc = read_folder(l, j->c, n->path, load_name, n, err);
    if (rc == RC_NOT_FOUND || (rc == RC_IO && !l->wire.broken)) return load_missing(n, l, err);
    TRY(rc);
    return load_ask(n, l, err);
}

/* What cannot be read as a folder is empty when it is no folder, but the root must not be a file.
 * err has why. */
static enum rc load_missing(struct load *n, struct sftp_link *l, struct err *err)
{
    struct sftp_attrs a;
    struct err other;
    enum rc rc = attrs_get(l, n->job.c, SFTP_STAT, n->path, &a, &other);
    walk_list_reset(&n->names);
    if (rc == RC_NOT_FOUND) return RC_OK;
    if (rc == RC_OK && a.has_mode && !sftp_is_folder(&a)) {
        if (!n->is_root) return RC_OK;
        return err_set(err, RC_INVALID, "it is not a folder");
    }
    if (rc == RC_OK) return err->rc == RC_NOT_FOUND ? RC_OK : err->rc;
    *err = other;
    return rc;
}

static enum rc load_name(void *ctx, const char *name, const struct sftp_attrs *a, struct err *err)
{
    struct load *n = ctx;
    if (!walk_wants(n->d, name)) return RC_OK;
    struct walk_item item = item_of(a);
    bool told = a->has_mode && a->has_size && a->has_times;
    /* The server did not say, or it is a link, or nothing for us. */
    if (item.kind == WALK_NEITHER || (item.kind == WALK_OBJECT && !told)) item.kind = WALK_UNSURE;
    return walk_list_add(&n->names, name, "", item, err);
}

/* Links are followed, as in a file store. */
static enum rc load_ask(struct load *n, struct sftp_link *l, struct err *err)
{
    size_t count;
    struct walk_item *items = walk_list_items(&n->names, &count);
    char path[PATH_SIZE + SFTP_NAME_MAX + 1];
    for (size_t i = 0; i < count; i++) {
        struct sftp_attrs a;
        if (items[i].kind != WALK_UNSURE) continue;
        snprintf(path, sizeof path, "%s/%s", n->path, walk_list_name(&n->names, &items[i]));
        enum rc rc = attrs_get(l, n->job.c, SFTP_STAT, path, &a, err);
        if (rc == RC_NOT_FOUND || (rc == RC_IO && !l->wire.broken)) continue; /* left out */
        TRY(rc);
        size_t name = items[i].name;
        items[i] = item_of(&a);
        items[i].name = name;
    }
    return RC_OK;
}

static struct walk_item item_of(const struct sftp_attrs *a)
{
    return (struct walk_item){.size = a->size,
                              .mtime_ms = (int64_t)a->mtime * 1000,
                              .kind = sftp_is_folder(a) ? WALK_FOLDER
                                      : sftp_is_file(a) ? WALK_OBJECT
                                                        : WALK_NEITHER};
}

/* ---- Delete ---- */

static enum rc del_try(struct job *j, struct sftp_link *l, struct err *err)
{
    struct del *d = (struct del *)j;
    while (d->done < d->count) {
        struct sftp_reply r, refusals[DEL_FLIGHT];
        size_t refused[DEL_FLIGHT], refused_count = 0, end = d->done;
        enum rc rc = RC_OK;
        for (; rc == RC_OK && end < d->count && end - d->done < DEL_FLIGHT; end++) {
            store_path(j->f, d->keys[end], d->path);
            rc = sftp_ask_path(&l->wire, SFTP_REMOVE, end, d->path, err);
        }
        while (rc == RC_OK && l->wire.waiting > 0) {
            rc = sftp_recv(&l->wire, j->c, &r, err);
            if (rc != RC_OK || r.code == SFTP_OK || r.code == SFTP_NO_FILE) continue;
            refused[refused_count] = (size_t)r.tag;
            refusals[refused_count++] = r;
        }
        if (rc != RC_OK) {
            sftp_orphan(&l->wire);
            return rc;
        }
        for (size_t i = 0; i < refused_count; i++)
            TRY(del_refused(d, l, refused[i], &refusals[i], err));
        d->done = end;
    }
    return RC_OK;
}

/* What is not there, or is a folder, is no object: deleted. */
static enum rc del_refused(struct del *d, struct sftp_link *l, size_t i,
                           const struct sftp_reply *refusal, struct err *err)
{
    struct sftp_attrs a;
    store_path(d->job.f, d->keys[i], d->path);
    enum rc rc = attrs_get(l, d->job.c, SFTP_LSTAT, d->path, &a, err);
    if (rc == RC_NOT_FOUND || (rc == RC_OK && sftp_is_folder(&a))) return RC_OK;
    TRY(rc);
    d->done = i;
    return sftp_status(refusal, err);
}
