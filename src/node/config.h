/*
 * config.h -- the configuration file: litestream.yml, unchanged, plus a few keys of our own.
 *
 * options.def lists every key; the fields below come from it (a duration `x-interval` is a field
 * x_interval_ms). Strings are never NULL; "" means not given. Durations below one millisecond count
 * as one.
 *
 * Threads: a struct config is constant after it was loaded.
 */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H
#include "base/buf.h"
#include "base/os.h"
#include "store/store.h"

#define CONFIG_DEFAULT_PATH "/etc/litestream.yml"

#define CONFIG_TYPE_STR     char *
#define CONFIG_TYPE_BOOL    bool
#define CONFIG_TYPE_INT     int64_t
#define CONFIG_TYPE_MS      int64_t

/* One setting of a store that has no field of its own: "bucket", "endpoint", ... */
struct config_pair {
    char *key, *value;
    bool secret; /* never print the value */
};

struct config_replica {
#define OPT(scope, key, field, kind, ...) CONFIG_FIELD_##scope(field, kind)
#define CHOICE(scope, key, field, ...)    CONFIG_FIELD_##scope(field, STR)
#define REPLICA_OWN(key, field, help)     char *field;
#define STORE_OPT(key, types, kind, help)
#define CONFIG_FIELD_GLOBAL(field, kind)
#define CONFIG_FIELD_DB(field, kind)
#define CONFIG_FIELD_REPLICA(field, kind) CONFIG_TYPE_##kind field;
#include "node/options.def"
#undef CONFIG_FIELD_GLOBAL
#undef CONFIG_FIELD_DB
#undef CONFIG_FIELD_REPLICA
#undef REPLICA_OWN
    /* type is always filled in. url may hold a password: print it through config_url_redact.
     * With type "file", path is the absolute folder, wherever it came from. */
    struct config_pair *pairs; /* the other settings, those of the top level included */
    size_t pair_count;
    bool given; /* the entry has a replica */
    uint32_t line;
};

struct config_db {
#define REPLICA_OWN(key, field, help)
#define CONFIG_FIELD_GLOBAL(field, kind)
#define CONFIG_FIELD_DB(field, kind) CONFIG_TYPE_##kind field;
#define CONFIG_FIELD_REPLICA(field, kind)
#include "node/options.def"
#undef CONFIG_FIELD_GLOBAL
#undef CONFIG_FIELD_DB
#undef CONFIG_FIELD_REPLICA
    /* path, dir, meta_path and meta_dir are absolute; meta_path is always filled in for a path.
     * snapshot_*_ms: use those of struct config; here they only say what the entry had. */
    struct config_replica replica;
    uint32_t line;
};

struct config_level { /* L1, L2, ... */
    int64_t interval_ms;
};

struct config {
#define CONFIG_FIELD_GLOBAL(field, kind) CONFIG_TYPE_##kind field;
#define CONFIG_FIELD_DB(field, kind)
#define CONFIG_FIELD_REPLICA(field, kind)
#include "node/options.def"
#undef CONFIG_FIELD_GLOBAL
#undef CONFIG_FIELD_DB
#undef CONFIG_FIELD_REPLICA
#undef REPLICA_OWN
#undef OPT
#undef CHOICE
#undef STORE_OPT
    struct config_level *levels;
    size_t level_count; /* default: 30s, 5m, 1h */
    struct config_db *dbs;
    size_t db_count;
    char **warnings; /* keys that are ignored, values that look wrong: for the log */
    size_t warning_count;
    char *file; /* where it was read from; "" for config_from_args */
};

/* Which file: `path` if given (may be ""), else $LITESTREAM_CONFIG, else the default; absolute.
 * Fails: RC_INVALID too long. */
MUST_CHECK enum rc config_file_path(const char *path, char ret_path[OS_PATH_MAX], struct err *err);
/* Read and check a file. Fails: RC_NOT_FOUND "config file not found: P"; RC_INVALID with file, line
 * and key; RC_UNSUPPORTED age encryption; RC_TOO_BIG; RC_NO_MEM; by errno. */
MUST_CHECK enum rc config_load(const char *path, bool expand_env, struct config **ret_cfg,
                               struct err *err);
/* The same from memory; `file` is for the messages. Nothing is expanded. */
MUST_CHECK enum rc config_parse(const char *text, size_t size, const char *file,
                                struct config **ret_cfg, struct err *err);
/* One database and one replica, by URL or as a plain folder; everything else at its default.
 * Fails: RC_INVALID. */
MUST_CHECK enum rc config_from_args(const char *db_path, const char *url, struct config **ret_cfg,
                                    struct err *err);
/* Change a top-level key, as if the file had it. An unknown key is a bug. Fails: RC_INVALID. */
MUST_CHECK enum rc config_set(struct config *cfg, const char *key, const char *text,
                              struct err *err);
void config_free(struct config *cfg);   /* NULL is fine */
void config_freep(struct config **cfg); /* for CLEANUP */

/* A replica by URL, or a plain folder, alone. Fails: RC_INVALID. */
MUST_CHECK enum rc config_replica_from_url(const char *url, struct config_replica *ret_replica,
                                           struct err *err);
void config_replica_fini(struct config_replica *r);
/* Open the store of a replica; no I/O. What goes wrong with it later is logged once it is over.
 * Fails: as store_open_conf. */
MUST_CHECK enum rc config_replica_open(const struct config_replica *r, struct store **ret_store,
                                       struct err *err);

/* The service that a replica talks to: replicas with the same name share its limits. Not to be
 * shown, it may hold secrets. */
#define CONFIG_SERVICE_MAX 512
void config_replica_service(const struct config_replica *r, char ret_name[CONFIG_SERVICE_MAX]);

/* The entry with this path (as the user wrote it). Only `path:` entries are looked at.
 * Fails: RC_NOT_FOUND "database not found in config: P"; RC_INVALID. */
MUST_CHECK enum rc config_find_db(const struct config *cfg, const char *path,
                                  const struct config_db **ret_db, struct err *err);
/* Fails: RC_UNSUPPORTED when an entry has dir:, which cannot be expanded yet. */
MUST_CHECK enum rc config_refuse_dirs(const struct config *cfg, struct err *err);

/* $NAME and ${NAME} of the environment, everywhere in the text; docs/cli/config.md has the rules.
 * Fails: RC_NO_MEM. */
MUST_CHECK enum rc config_expand_env(const char *text, size_t size, struct buf *out,
                                     struct err *err);
/* A path as the file's rules have it: no sqlite:// in front, ~ expanded, absolute, "." and ".."
 * resolved by their names. Fails: RC_INVALID too long, or no home directory. */
MUST_CHECK enum rc config_expand_path(const char *path, char ret_path[OS_PATH_MAX],
                                      struct err *err);
bool config_is_url(const char *text); /* "scheme://..." */
/* A URL that may be shown: a password and the values of settings that are not known to be harmless
 * are starred. Cut to fit. */
void config_url_redact(const char *url, char *out, size_t size);

/* The option table, for documentation. `types` only for settings of a store. */
struct config_doc {
    const char *scope; /* "", "dbs[]", "dbs[].replica" */
    const char *key, *kind, *def, *choices, *types, *help;
};
size_t config_docs(const struct config_doc **ret_docs); /* returns their number */
#endif
