/*
 * layout.h -- the objects of one database's log and their keys: Litestream's replica layout.
 *
 *   <root>/ltx/<level, decimal>/<min>-<max>.ltx      file, gs, abs, sftp, webdav, nats
 *   <root>/<level, %04x>/<min>-<max>.ltx             s3, oss
 *   <root>/generations/...                           written by Litestream 0.3, read only
 *
 * Level 0: one file a batch (min = max). Levels 1..8: merged. Level 9: full snapshots (min = 1).
 * Threads: any; a struct log is constant after log_open.
 */
#ifndef LOG_LAYOUT_H
#define LOG_LAYOUT_H
#include "fmt/text.h"
#include "store/store.h"

#define LOG_LEVEL_SNAPSHOT 9
#define LOG_LEVEL_COUNT    10

struct log_file {
    uint32_t level;
    uint64_t txid_min, txid_max;
    uint64_t size;      /* bytes */
    int64_t created_ms; /* header time where the store keeps it, else the store's clock */
};
struct log_files { /* growable array, sorted by (level, min, max) after log_list */
    struct log_file *items;
    size_t count, cap;
};
void log_files_fini(struct log_files *f); /* for CLEANUP too */
/* At the end. Fails: RC_NO_MEM. */
MUST_CHECK enum rc log_files_push(struct log_files *files, const struct log_file *f,
                                  struct err *err);

/* The log of one database in an open store. The store is borrowed. */
struct log {
    struct store *store;
};

/* Fills key[STORE_KEY_MAX + 1]. */
void log_key(const struct log *lg, uint32_t level, uint64_t txid_min, uint64_t txid_max, char *key);
/* Append the files of one level (0..9), or of all, sorted; other names are ignored. On failure
 * `files` is as it was. Fails: as store_list; RC_INVALID no such level; RC_NO_MEM. */
MUST_CHECK enum rc log_list(const struct log *lg, const struct call *c, uint32_t level,
                            struct log_files *files, struct err *err);
MUST_CHECK enum rc log_list_all(const struct log *lg, const struct call *c, struct log_files *files,
                                struct err *err);
/* As log_list_all, but created_ms may be compared with time_ms (0: need not). Where listings give
 * the time of the upload only, the place of time_ms in each level is looked for in the headers of a
 * few files: time grows with the TXIDs. Fails: as log_list_all and store_get. */
MUST_CHECK enum rc log_list_at(const struct log *lg, const struct call *c, int64_t time_ms,
                               struct log_files *files, struct err *err);
/* Upload the first f->size bytes (0: all) of a local file as LTX file f. if_absent: create only. On
 * RC_CONFLICT the caller decides (log_same tells whether the remote object has the same bytes).
 * Fails: as store_put; by errno for the local file; RC_CORRUPT it has fewer bytes. */
MUST_CHECK enum rc log_put_file(const struct log *lg, const struct call *c,
                                const struct log_file *f, const char *path, bool if_absent,
                                struct err *err);
/* Does the remote object of f have exactly the bytes of the local file?
 * Fails: as store_get; by errno for the local file. */
MUST_CHECK enum rc log_same(const struct log *lg, const struct call *c, const struct log_file *f,
                            const char *path, bool *ret_same, struct err *err);
#endif
