/*
 * file.c -- a store in a folder: key "a/b" is the file <root>/a/b, as Litestream lays it out.
 *
 * Put: write <folder>/.sluice-tmp-<pid>-<random>, set its mtime, fsync it, give it its name, fsync
 * the folder. So an object is there whole or not at all, and when a put returns RC_OK both its
 * bytes and its name survive a power cut, as far as the file system and the disk keep fsync's
 * promise. New folders (0700) are fsynced into their parents in the same way. Deletes are not
 * fsynced: one that a power cut takes back is repeated by whoever wanted it.
 *
 * Create only: an exclusive rename; where the file system has none (NFS), link and unlink, which is
 * as atomic. Where it has neither, the put is RC_UNSUPPORTED: reserving the name with an empty file
 * would show readers half an object, and leave it there after a crash.
 *
 * Replace by etag: under a lock on the version that is replaced, which every such put takes. It
 * arbitrates between processes of one machine, and over NFS as far as its locks go.
 *
 * Temporary files are never listed. A crash can leave one; the first put of a store handle into a
 * folder removes those whose inode has not changed for a day.
 *
 * Symbolic links are followed, for the root and below it: they are the operator's wish. Keys cannot
 * contain "..", so no key leads out of the root by itself.
 *
 * Threads: any; `lock` guards only the memory of swept folders.
 */
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"
#include "store/walk.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_SIZE  (256u << 10) /* bytes a read or write call moves */
#define SMALL_SIZE  (16u << 10)  /* up to this, the buffer is on the stack */
#define PATH_SIZE   (OS_PATH_MAX / 2)
#define ROOT_MAX    960 /* so that "file://" + root fits store.name */
#define FOLDER_SIZE (ROOT_MAX + STORE_KEY_MAX + 2)
#define SEGMENT_MAX 255
#define STALE_MS    (24 * 3600 * 1000ll)
#define SWEPT_COUNT 32
#define CLOCK_TRIES 1000

_Static_assert(FOLDER_SIZE + SEGMENT_MAX + 1 < PATH_SIZE, "every path fits");

struct file_store {
    struct store base;
    char root[ROOT_MAX + 1]; /* absolute */
    pthread_mutex_t lock;
    uint64_t swept[SWEPT_COUNT]; /* [lock] hashes of folders, a ring */
    unsigned swept_next;         /* [lock] */
};

/* One listing. */
struct listing {
    struct walk walk;
    char path[PATH_SIZE]; /* scratch */
};

struct stale {
    char *path; /* folder and '/', room for a name */
    size_t dir_size;
    int64_t now_ms;
};

static enum rc file_open(struct store_settings *set, struct store **ret_store, struct err *err);
static void file_close(struct store *s);
static enum rc file_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err);
static enum rc file_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err);
static enum rc file_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err);
static enum rc file_del(struct store *s, const struct call *c, const char *key, struct err *err);
static enum rc file_del_many(struct store *s, const struct call *c, const char *const *keys,
                             size_t key_count, struct err *err);
static enum rc del_seal(const char *folder, struct err *err);

static void path_clean(char *path);
static void object_path(const struct file_store *f, const char *key, char path[PATH_SIZE]);
static void folder_of(const char *path, char folder[FOLDER_SIZE]);
static enum rc put_err(struct err *err, const char *path);
static enum rc tmp_open(const char *folder, char tmp[PATH_SIZE], int *ret_fd, struct err *err);
static enum rc body_write(int fd, const struct call *c, const char *path,
                          const struct store_body *body, struct err *err);
static enum rc seal(int fd, const char *path, const struct store_put_opts *opts, struct err *err);
static void describe(struct store_obj *obj, const char *key, const struct stat *st);
static void etag_put(const struct stat *st, char out[STORE_ETAG_MAX]);
static enum rc replace(int tmp_fd, const char *tmp, const char *path, const char *etag,
                       const struct call *c, struct err *err);
static enum rc version_lock(const char *path, const char *etag, const struct call *c, int *ret_fd,
                            struct stat *ret_st, struct err *err);
static enum rc publish(const char *tmp, const char *path, bool if_absent, struct err *err);
static enum rc publish_by_link(const char *tmp, const char *path, struct err *err);
static void sweep_once(struct file_store *f, const char *folder);
static enum rc sweep_name(void *ctx, const char *name, struct err *err);
static enum rc list_read(struct walk *w, struct walk_folder *d, const char *key, struct err *err);
static enum rc list_look(struct walk *w, struct store_obj *obj, enum walk_kind *ret_kind,
                         struct err *err);
static int64_t stat_ms(const struct timespec *t);

const struct store_ops store_file_ops = {
    .type = "file",
    .caps = STORE_CAP_CREATE | STORE_CAP_RANGE | STORE_CAP_LIST_AFTER | STORE_CAP_TIMESTAMP |
            STORE_CAP_CAS | STORE_CAP_STREAM,
    .open = file_open,
    .close = file_close,
    .put = file_put,
    .get = file_get,
    .list = file_list,
    .del = file_del,
    .del_many = file_del_many,
};

/* A host part becomes the first folder, as in Litestream: "file://a/b" is "/a/b". */
static enum rc file_open(struct store_settings *set, struct store **ret_store, struct err *err)
{
    const struct url *url = &set->url;
    char path[OS_PATH_MAX], given[sizeof url->host + sizeof url->path + 2];
    bool plain = url->scheme[0] == '\0';
    snprintf(given, sizeof given, "%s%s%s", plain ? "" : "/", url->host, url->path);
    if (!plain && strspn(given, "/") == strlen(given))
        return err_set(err, RC_INVALID, "store URL names no folder: give file:///path");
    TRY(os_abspath(given, path, err));
    path_clean(path);
    if (strlen(path) > ROOT_MAX)
        return err_set(err, RC_INVALID, "store path is longer than %d bytes: '%.64s...'", ROOT_MAX,
                       path);
    struct file_store *f = mem_calloc(1, sizeof *f);
    if (f == NULL) return err_mem(err, "a file store");
    memcpy(f->root, path, strlen(path) + 1);
    store_init(&f->base, &store_file_ops, "file://%s", f->root);
    pthread_mutex_init(&f->lock, NULL);
    *ret_store = &f->base;
    return RC_OK;
}

static void file_close(struct store *s)
{
    struct file_store *f = (struct file_store *)s;
    pthread_mutex_destroy(&f->lock);
    mem_free(f);
}

static enum rc file_put(struct store *s, const struct call *c, const char *key,
                        const struct store_body *body, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err)
{
    struct file_store *f = (struct file_store *)s;
    char path[PATH_SIZE], folder[FOLDER_SIZE], tmp[PATH_SIZE];
    CLEANUP(os_closep) int fd = -1;
    struct err ignored;
    struct stat st;
    object_path(f, key, path);
    folder_of(path, folder);
    /* Spares the writing and the fsync; who is late by less finds out in publish. */
    if (opts->if_absent && os_stat(path, &st, &ignored) == RC_OK)
        return err_set(err, RC_CONFLICT, "create '%s': it exists", path);
    TRY(tmp_open(folder, tmp, &fd, err));
    sweep_once(f, folder);
    enum rc rc = body_write(fd, c, path, body, err);
    if (rc == RC_OK) rc = seal(fd, path, opts, err);
    if (rc == RC_OK && opts->if_etag != NULL)
        rc = replace(fd, tmp, path, opts->if_etag, c, err);
    else if (rc == RC_OK)
        rc = publish(tmp, path, opts->if_absent, err);
    if (rc != RC_OK) {
        /* A temporary file that cannot be deleted now is swept in a day. */
        if (os_unlink(tmp, &ignored) != RC_OK) err_clear(&ignored);
        return rc;
    }
    rc = os_fstat(fd, &st, err); /* the rename has changed its change time */
    if (rc == RC_OK) {
        describe(ret_obj, key, &st);
        store_count(s, STORE_OP_PUT, true, ret_obj->size, 0);
        rc = os_fsync_dir(folder, err);
    }
    if (rc == RC_OK) return RC_OK;
    err->rc = RC_IO; /* whatever the errno says: the object is there, but may not last */
    return err_wrap(err, "put '%s'", path);
}

static enum rc file_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *err)
{
    uint8_t small[SMALL_SIZE];
    CLEANUP(buf_fini) struct buf b = BUF_ON(small);
    CLEANUP(os_closep) int fd = -1;
    char path[PATH_SIZE];
    struct stat st;
    object_path((struct file_store *)s, key, path);
    /* O_NONBLOCK: a pipe of that name must not hold us up. */
    if (os_open(path, O_RDONLY | O_NONBLOCK, 0, &fd, err) != RC_OK) {
        if (err->sys == ENOTDIR) err->rc = RC_NOT_FOUND;
        return err->rc;
    }
    if (os_fstat(fd, &st, err) != RC_OK) return err_wrap(err, "get '%s'", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, RC_NOT_FOUND, "get '%s': not a regular file", path);
    if (opts->ret_obj != NULL) describe(opts->ret_obj, key, &st);
    uint64_t left = store_range(opts, (uint64_t)st.st_size), off = opts->off;
    store_count(s, STORE_OP_GET, true, 0, left);
    if (left > CHUNK_SIZE) os_advise_stream(fd);
    if (buf_reserve(&b, left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE, err) != RC_OK)
        return err_wrap(err, "get '%s'", path);
    while (left > 0) {
        size_t got, want = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
        if (call_check(c, err) != RC_OK || os_pread(fd, b.data, want, off, &got, err) != RC_OK)
            return err_wrap(err, "get '%s'", path);
        if (got < want) return err_set(err, RC_IO, "get '%s': it shrank while being read", path);
        TRY(sink(ctx, b.data, got, err));
        off += got;
        left -= got;
    }
    return RC_OK;
}

static enum rc file_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *err)
{
    struct listing l = {.walk = {.store = s,
                                 .c = c,
                                 .prefix = prefix,
                                 .after = opts->after,
                                 .fn = fn,
                                 .ctx = ctx,
                                 .read = list_read,
                                 .look = list_look}};
    store_count(s, STORE_OP_LIST, true, 0, 0);
    return walk_tree(&l.walk, err);
}

static enum rc file_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    return file_del_many(s, c, &key, 1, err);
}

/* What was deleted stays so, also where an earlier try had come that far and no further. Keys of
 * one folder mostly stand together, so it is made durable once. */
static enum rc file_del_many(struct store *s, const struct call *c, const char *const *keys,
                             size_t key_count, struct err *err)
{
    char path[PATH_SIZE], folder[FOLDER_SIZE], before[FOLDER_SIZE] = "";
    for (size_t i = 0; i < key_count; i++) {
        TRY(call_check(c, err));
        store_count(s, STORE_OP_DEL, true, 0, 0);
        object_path((struct file_store *)s, keys[i], path);
        enum rc rc = os_unlink(path, err);
        bool none =
            rc != RC_OK && (err->sys == ENOENT || err->sys == ENOTDIR || err->sys == EISDIR);
        if (rc != RC_OK && !none) return rc;
        folder_of(path, folder);
        if (before[0] != '\0' && strcmp(folder, before) != 0) TRY(del_seal(before, err));
        memcpy(before, folder, strlen(folder) + 1);
    }
    return before[0] != '\0' ? del_seal(before, err) : RC_OK;
}

/* A folder that is not there has nothing to keep. */
static enum rc del_seal(const char *folder, struct err *err)
{
    if (os_fsync_dir(folder, err) == RC_OK) return RC_OK;
    return err->sys == ENOENT || err->sys == ENOTDIR ? RC_OK : err->rc;
}

/* Drop "//", "/./", "/../" and a slash at the end, by the letters alone as Litestream does. */
static void path_clean(char *path)
{
    size_t used = 0;
    for (const char *p = path; *p != '\0';) {
        p += strspn(p, "/");
        size_t size = strcspn(p, "/");
        if (size == 2 && memcmp(p, "..", 2) == 0) {
            while (used > 0 && path[--used] != '/')
                continue;
        } else if (size > 0 && !(size == 1 && *p == '.')) {
            path[used] = '/';
            memmove(path + used + 1, p, size);
            used += size + 1;
        }
        p += size;
    }
    if (used == 0) path[used++] = '/';
    path[used] = '\0';
}

static void object_path(const struct file_store *f, const char *key, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s/%s", f->root, key);
}

/* folder = path up to its last '/', without it. */
static void folder_of(const char *path, char folder[FOLDER_SIZE])
{
    size_t size = (size_t)(strrchr(path, '/') - path);
    memcpy(folder, path, size);
    folder[size] = '\0';
}

/* RC_CONFLICT and RC_NOT_FOUND mean something to the caller of a put: a folder that is a file, or
 * one that was removed under our feet, must not look like another writer's object. */
static enum rc put_err(struct err *err, const char *path)
{
    if (err->rc == RC_CONFLICT || err->rc == RC_NOT_FOUND) err->rc = RC_IO;
    return err_wrap(err, "put '%s'", path);
}

static enum rc tmp_open(const char *folder, char tmp[PATH_SIZE], int *ret_fd, struct err *err)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    snprintf(tmp, PATH_SIZE, "%s/" STORE_TMP_PREFIX "%d-%016" PRIx64, folder, (int)getpid(),
             os_random());
    if (os_open(tmp, flags, 0600, ret_fd, err) == RC_OK) return RC_OK;
    if (err->rc != RC_NOT_FOUND) return put_err(err, tmp);
    if (os_mkdirs(folder, 0700, err) != RC_OK) return put_err(err, tmp);
    if (os_open(tmp, flags, 0600, ret_fd, err) != RC_OK) return put_err(err, tmp);
    return RC_OK;
}

static enum rc body_write(int fd, const struct call *c, const char *path,
                          const struct store_body *body, struct err *err)
{
    uint8_t small[SMALL_SIZE];
    CLEANUP(buf_fini) struct buf b = BUF_ON(small);
    bool stream = body->size == STORE_SIZE_UNKNOWN;
    if (buf_reserve(&b, body->size < CHUNK_SIZE ? (size_t)body->size : CHUNK_SIZE, err) != RC_OK)
        return put_err(err, path);
    for (uint64_t off = 0; off < body->size;) {
        uint64_t left = body->size - off;
        size_t size = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
        if (call_check(c, err) != RC_OK) return err_wrap(err, "put '%s'", path);
        if (stream)
            TRY(body->next(body->ctx, b.data, size, &size, err));
        else
            TRY(body->read(body->ctx, off, b.data, size, err));
        if (size == 0) break; /* the end of a stream */
        if (os_pwrite(fd, b.data, size, off, err) != RC_OK) return put_err(err, path);
        off += size;
    }
    return RC_OK;
}

/* The mtime comes before the fsync, so that both last. */
static enum rc seal(int fd, const char *path, const struct store_put_opts *opts, struct err *err)
{
    enum rc rc = RC_OK;
    if (opts->timestamp_ms != 0) rc = os_set_mtime(fd, opts->timestamp_ms, err);
    if (rc == RC_OK) rc = os_fsync(fd, err);
    return rc == RC_OK ? RC_OK : put_err(err, path);
}

static void describe(struct store_obj *obj, const char *key, const struct stat *st)
{
    memcpy(obj->key, key, strlen(key) + 1);
    obj->size = (uint64_t)st->st_size;
    obj->mtime_ms = stat_ms(&st->st_mtim);
    etag_put(st, obj->etag);
}

/* Each version is an inode of its own, and since inode numbers come back, one with its own change
 * time: replace() sees to that. */
static void etag_put(const struct stat *st, char out[STORE_ETAG_MAX])
{
    snprintf(out, STORE_ETAG_MAX, "%llx-%llx.%09lx-%llx", (unsigned long long)st->st_ino,
             (unsigned long long)st->st_ctim.tv_sec, (unsigned long)st->st_ctim.tv_nsec,
             (unsigned long long)st->st_size);
}

/* Whoever replaces by etag holds a lock on the version to replace, from the comparison to the
 * rename. A plain put takes no lock: who mixes the two arbitrates nothing, as on every store. */
static enum rc replace(int tmp_fd, const char *tmp, const char *path, const char *etag,
                       const struct call *c, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    struct stat old, st;
    if (version_lock(path, etag, c, &fd, &old, err) != RC_OK)
        return err->rc == RC_CONFLICT || err->rc == RC_NOT_FOUND ? err->rc : put_err(err, path);
    for (int i = 0;; i++) { /* the clock of file systems stands still for some milliseconds */
        if (os_fstat(tmp_fd, &st, err) != RC_OK) return put_err(err, path);
        if (st.st_ctim.tv_sec > old.st_ctim.tv_sec) break;
        if (st.st_ctim.tv_sec == old.st_ctim.tv_sec && st.st_ctim.tv_nsec > old.st_ctim.tv_nsec)
            break;
        if (i == CLOCK_TRIES)
            return err_set(err, RC_AGAIN,
                           "replace '%s': the file system's clock stands still or "
                           "was set back",
                           path);
        os_sleep_ms(1);
        if (os_set_mtime(tmp_fd, stat_ms(&st.st_mtim), err) != RC_OK) return put_err(err, path);
    }
    return os_rename(tmp, path, err) == RC_OK ? RC_OK : put_err(err, path);
}

static enum rc version_lock(const char *path, const char *etag, const struct call *c, int *ret_fd,
                            struct stat *ret_st, struct err *err)
{
    char have[STORE_ETAG_MAX];
    for (;;) {
        CLEANUP(os_closep) int fd = -1;
        struct stat now;
        TRY(call_check(c, err));
        TRY(os_open(path, O_RDWR | O_NONBLOCK, 0, &fd, err));
        enum rc rc = os_lock(fd, err);
        if (rc != RC_OK && rc != RC_BUSY) return rc;
        TRY(os_fstat(fd, ret_st, err));
        TRY(os_stat(path, &now, err));
        etag_put(ret_st, have);
        if (now.st_ino == ret_st->st_ino && strcmp(have, etag) != 0)
            return err_set(err, RC_CONFLICT, "replace '%s': another version is there", path);
        if (now.st_ino == ret_st->st_ino && rc == RC_OK) {
            *ret_fd = fd;
            fd = -1;
            return RC_OK;
        }
        os_sleep_ms(1); /* another one replaces it at this moment */
    }
}

static enum rc publish(const char *tmp, const char *path, bool if_absent, struct err *err)
{
    if (!if_absent) {
        if (os_rename(tmp, path, err) != RC_OK) return put_err(err, path);
        return RC_OK;
    }
    enum rc rc = os_rename_new(tmp, path, err);
    if (rc == RC_UNSUPPORTED) rc = publish_by_link(tmp, path, err);
    if (rc == RC_CONFLICT) return err_set(err, rc, "create '%s': it exists", path);
    return rc == RC_OK ? RC_OK : put_err(err, path);
}

static enum rc publish_by_link(const char *tmp, const char *path, struct err *err)
{
    struct err ignored;
    struct stat st;
    enum rc rc = os_link(tmp, path, err);
    /* Over NFS a link that was made can be reported as "exists"; the link count knows better. */
    if (rc == RC_CONFLICT && os_stat(tmp, &st, &ignored) == RC_OK && st.st_nlink > 1) rc = RC_OK;
    if (rc == RC_UNSUPPORTED)
        return err_set(err, rc,
                       "the file system has neither exclusive rename nor hard links; keep "
                       "the store on another one");
    /* The object is there; a second name of it that stays is swept in a day. */
    if (rc == RC_OK && os_unlink(tmp, &ignored) != RC_OK) err_clear(&ignored);
    return rc;
}

/* Remove what crashed writers left in a folder, the first time it is written to. Trouble is
 * ignored: it is not the put's business. */
static void sweep_once(struct file_store *f, const char *folder)
{
    char path[PATH_SIZE];
    struct err ignored;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a; a collision only skips a sweep */
    bool known = false;
    for (const char *p = folder; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
    thr_lock(&f->lock);
    for (unsigned i = 0; i < SWEPT_COUNT; i++)
        known |= f->swept[i] == hash;
    if (!known) f->swept[f->swept_next++ % SWEPT_COUNT] = hash;
    thr_unlock(&f->lock);
    if (known) return;
    snprintf(path, sizeof path, "%s/", folder);
    struct stale st = {.path = path, .dir_size = strlen(path), .now_ms = os_now_ms()};
    if (os_list(folder, sweep_name, &st, &ignored) != RC_OK) err_clear(&ignored);
}

/* The inode's change time cannot be set, unlike the mtime, which is the object's timestamp. */
static enum rc sweep_name(void *ctx, const char *name, struct err *err)
{
    struct stale *s = ctx;
    struct stat st;
    if (!walk_is_tmp(name) || strlen(name) > SEGMENT_MAX) return RC_OK;
    memcpy(s->path + s->dir_size, name, strlen(name) + 1);
    TRY(os_stat(s->path, &st, err));
    if (s->now_ms - stat_ms(&st.st_ctim) < STALE_MS) return RC_OK;
    return os_unlink(s->path, err);
}

static enum rc list_read(struct walk *w, struct walk_folder *d, const char *key, struct err *err)
{
    struct listing *l = (struct listing *)w;
    const struct file_store *f = (struct file_store *)w->store;
    struct stat st;
    bool is_root = key[0] == '\0';
    object_path(f, key, l->path);
    enum rc rc = os_list(l->path, walk_name, d, err);
    if (rc == RC_OK || walk_entered(d)) return rc;
    if (err->sys == ENOENT) return RC_OK;
    if (err->sys != ENOTDIR || is_root) return rc;
    /* A file where a folder could be holds no objects, but the root must not be one. */
    TRY(os_stat(f->root, &st, err));
    if (S_ISDIR(st.st_mode)) return RC_OK;
    return err_set(err, RC_INVALID, "list '%s': it is not a folder", f->root);
}

static enum rc list_look(struct walk *w, struct store_obj *obj, enum walk_kind *ret_kind,
                         struct err *err)
{
    struct listing *l = (struct listing *)w;
    struct stat st;
    object_path((struct file_store *)w->store, obj->key, l->path);
    if (os_stat(l->path, &st, err) != RC_OK) /* gone meanwhile, or a link to nowhere */
        return err->sys == ENOENT ? RC_OK : err->rc;
    if (S_ISDIR(st.st_mode)) {
        *ret_kind = WALK_FOLDER;
    } else if (S_ISREG(st.st_mode)) {
        obj->size = (uint64_t)st.st_size;
        obj->mtime_ms = stat_ms(&st.st_mtim);
        etag_put(&st, obj->etag);
        *ret_kind = WALK_OBJECT;
    }
    return RC_OK;
}

static int64_t stat_ms(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000 + t->tv_nsec / 1000000;
}
