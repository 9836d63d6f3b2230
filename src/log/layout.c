/*
 * layout.c -- keys of a log's files in a store; see layout.h.
 *
 * Litestream's layout: "ltx/<level>/<min>-<max>.ltx" below the store's root, the level as one
 * decimal digit, both TXIDs as 16 lower-case hex digits; on s3 and oss "<level>/<min>-<max>.ltx",
 * the level as four hex digits. So the byte order of keys, in which stores list, is the order
 * (level, min, max). Other names, and files in folders below a level, are not ours and are passed
 * over.
 *
 * Threads: any.
 */
#include "log/layout.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/ltx.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_SIZE (64u << 10)

/* A local file that is uploaded or compared. */
struct local {
    int fd;
    const char *path;
    uint64_t size, done;
    struct buf buf;
    bool differs;
};

/* A listing under way. */
struct taker {
    struct log_files *files;
    const char *prefix; /* what stands before the digit of the level */
};

static const char *levels_prefix(const struct log *lg);
static enum rc part_level(const struct log *lg, const struct call *c, int64_t time_ms,
                          struct log_file *items, size_t count, struct err *err);
static enum rc header_time(const struct log *lg, const struct call *c, struct log_file *f,
                           struct err *err);
static enum rc list_prefix(const struct log *lg, const struct call *c, const char *prefix,
                           struct log_files *files, struct err *err);
static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err);
static enum rc local_trim(struct local *l, const struct log_file *f, const char *path,
                          struct err *err);
static enum rc local_open(struct local *l, const char *path, struct err *err);
static void local_close(struct local *l);
static enum rc local_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err);
static enum rc compare(void *ctx, const void *data, size_t size, struct err *err);

void log_files_fini(struct log_files *f)
{
    mem_free(f->items);
    *f = (struct log_files){0};
}

enum rc log_files_push(struct log_files *files, const struct log_file *f, struct err *err)
{
    if (files->count == files->cap) {
        size_t cap = files->cap ? files->cap * 2 : 64;
        struct log_file *items = mem_realloc(files->items, cap * sizeof *items);
        if (items == NULL) return err_mem(err, "a list of log files");
        files->items = items;
        files->cap = cap;
    }
    files->items[files->count++] = *f;
    return RC_OK;
}

void log_key(const struct log *lg, uint32_t level, uint64_t txid_min, uint64_t txid_max, char *key)
{
    char name[LTX_NAME_SIZE];
    ASSERT(level < LOG_LEVEL_COUNT);
    ltx_name_put(txid_min, txid_max, name);
    snprintf(key, STORE_KEY_MAX + 1, "%s%u/%s", levels_prefix(lg), level, name);
}

enum rc log_list(const struct log *lg, const struct call *c, uint32_t level,
                 struct log_files *files, struct err *err)
{
    char prefix[sizeof "ltx/0/"];
    if (level >= LOG_LEVEL_COUNT) return err_set(err, RC_INVALID, "no such level: %u", level);
    snprintf(prefix, sizeof prefix, "%s%c/", levels_prefix(lg), (char)('0' + level));
    return list_prefix(lg, c, prefix, files, err);
}

/* One listing for all levels: on object stores each listing is a paid request. */
enum rc log_list_all(const struct log *lg, const struct call *c, struct log_files *files,
                     struct err *err)
{
    return list_prefix(lg, c, levels_prefix(lg), files, err);
}

enum rc log_list_at(const struct log *lg, const struct call *c, int64_t time_ms,
                    struct log_files *files, struct err *err)
{
    size_t old_count = files->count;
    TRY(log_list_all(lg, c, files, err));
    if (time_ms == 0 || store_can(lg->store, STORE_CAP_TIMESTAMP)) return RC_OK;
    enum rc rc = RC_OK;
    for (size_t from = old_count, to; from < files->count && rc == RC_OK; from = to) {
        for (to = from; to < files->count && files->items[to].level == files->items[from].level;)
            to++;
        rc = part_level(lg, c, time_ms, files->items + from, to - from, err);
    }
    if (rc != RC_OK) files->count = old_count;
    return rc;
}

enum rc log_put_file(const struct log *lg, const struct call *c, const struct log_file *f,
                     const char *path, bool if_absent, struct err *err)
{
    CLEANUP(local_close) struct local l = {.fd = -1};
    char key[STORE_KEY_MAX + 1];
    TRY(local_open(&l, path, err));
    TRY(local_trim(&l, f, path, err));
    log_key(lg, f->level, f->txid_min, f->txid_max, key);
    struct store_body body = {.size = l.size, .read = local_read, .ctx = &l};
    struct store_put_opts opts = {.if_absent = if_absent, .timestamp_ms = f->created_ms};
    return store_put(lg->store, c, key, &body, &opts, NULL, err);
}

/* There is no call for the size of one remote object, and none is needed: files that differ in size
 * differ in their first hundred bytes (TXIDs, time), and the download ends where they do. */
enum rc log_same(const struct log *lg, const struct call *c, const struct log_file *f,
                 const char *path, bool *ret_same, struct err *err)
{
    CLEANUP(local_close) struct local l = {.fd = -1};
    char key[STORE_KEY_MAX + 1];
    TRY(local_open(&l, path, err));
    TRY(local_trim(&l, f, path, err));
    TRY(buf_reserve(&l.buf, CHUNK_SIZE, err));
    log_key(lg, f->level, f->txid_min, f->txid_max, key);
    enum rc rc = store_get(lg->store, c, key, NULL, compare, &l, err);
    if (rc != RC_OK && !l.differs) return rc;
    *ret_same = !l.differs && l.done == l.size;
    return RC_OK;
}

/* What stands before the digit of the level. */
static const char *levels_prefix(const struct log *lg)
{
    const char *type = store_type(lg->store);
    return strcmp(type, "s3") == 0 || strcmp(type, "oss") == 0 ? "000" : "ltx/";
}

/* Find the first file of a level whose header says time_ms or later. */
static enum rc part_level(const struct log *lg, const struct call *c, int64_t time_ms,
                          struct log_file *items, size_t count, struct err *err)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        TRY(header_time(lg, c, &items[mid], err));
        if (items[mid].created_ms < time_ms)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t i = 0; i < count; i++) {
        if (i < low && items[i].created_ms >= time_ms) items[i].created_ms = time_ms - 1;
        if (i >= low && items[i].created_ms < time_ms) items[i].created_ms = time_ms;
    }
    return RC_OK;
}

/* A file that is too small, broken or gone keeps its time of upload: whoever needs it finds out. */
static enum rc header_time(const struct log *lg, const struct call *c, struct log_file *f,
                           struct err *err)
{
    uint8_t bytes[LTX_HEADER_SIZE];
    char key[STORE_KEY_MAX + 1];
    struct ltx_header h;
    log_key(lg, f->level, f->txid_min, f->txid_max, key);
    enum rc rc = store_read(lg->store, c, key, 0, bytes, sizeof bytes, err);
    if (rc == RC_OK) rc = ltx_header_get(bytes, &h, err);
    if (rc == RC_OK) f->created_ms = h.timestamp_ms;
    if (rc != RC_CORRUPT && rc != RC_NOT_FOUND) return rc;
    err_clear(err);
    return RC_OK;
}

static enum rc list_prefix(const struct log *lg, const struct call *c, const char *prefix,
                           struct log_files *files, struct err *err)
{
    size_t old_count = files->count;
    struct taker t = {files, levels_prefix(lg)};
    enum rc rc = store_list(lg->store, c, prefix, NULL, take_object, &t, err);
    if (rc != RC_OK) files->count = old_count;
    return rc;
}

static enum rc take_object(void *ctx, const struct store_obj *obj, struct err *err)
{
    const struct taker *t = ctx;
    const char *p = obj->key + strlen(t->prefix);
    if (p[0] < '0' || p[0] > '9' || p[1] != '/') return RC_OK;
    struct log_file f = {
        .level = (uint32_t)(p[0] - '0'), .size = obj->size, .created_ms = obj->mtime_ms};
    if (!ltx_name_get(p + 2, &f.txid_min, &f.txid_max)) return RC_OK;
    return log_files_push(t->files, &f, err);
}

static enum rc local_open(struct local *l, const char *path, struct err *err)
{
    struct stat st;
    l->path = path;
    TRY(os_open(path, O_RDONLY, 0, &l->fd, err));
    if (os_fstat(l->fd, &st, err) != RC_OK) return err_wrap(err, "'%s'", path);
    if (!S_ISREG(st.st_mode)) return err_set(err, RC_INVALID, "'%s' is not a regular file", path);
    l->size = (uint64_t)st.st_size;
    return RC_OK;
}

static void local_close(struct local *l)
{
    os_closep(&l->fd);
    buf_fini(&l->buf);
}

static enum rc local_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *err)
{
    struct local *l = ctx;
    size_t got;
    if (os_pread(l->fd, dst, size, off, &got, err) != RC_OK) return err_wrap(err, "'%s'", l->path);
    if (got == size) return RC_OK;
    return err_set(err, RC_IO, "'%s' shrank while being read", l->path);
}

static enum rc compare(void *ctx, const void *data, size_t size, struct err *err)
{
    struct local *l = ctx;
    l->differs = size > l->size - l->done;
    for (size_t at = 0; at < size && !l->differs;) {
        size_t piece = size - at < CHUNK_SIZE ? size - at : CHUNK_SIZE;
        TRY(local_read(l, l->done, l->buf.data, piece, err));
        l->differs = memcmp(l->buf.data, (const uint8_t *)data + at, piece) != 0;
        l->done += piece;
        at += piece;
    }
    return l->differs ? err_set(err, RC_CONFLICT, "the files differ") : RC_OK;
}

/* A staged batch carries local bytes behind the LTX file: only the first f->size bytes count. */
static enum rc local_trim(struct local *l, const struct log_file *f, const char *path,
                          struct err *err)
{
    if (f->size > l->size)
        return err_set(err, RC_CORRUPT, "upload '%s': it has %llu bytes, expected %llu", path,
                       (unsigned long long)l->size, (unsigned long long)f->size);
    if (f->size != 0) l->size = f->size;
    return RC_OK;
}
