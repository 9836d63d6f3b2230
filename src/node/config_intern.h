/*
 * config_intern.h -- shared between the three files of the configuration; nobody else includes it.
 *
 *   config_keys.c  the table: defaults, parsing and checking one value
 *   config_yaml.c  the file's structure: mappings, sequences, where a key belongs
 *   config.c       the public calls, and what can be checked only when everything is read
 */
#ifndef NODE_CONFIG_INTERN_H
#define NODE_CONFIG_INTERN_H
#include "node/config.h"

enum config_scope { CONFIG_GLOBAL, CONFIG_DB, CONFIG_REPLICA, CONFIG_REPLICA_OWN, CONFIG_STORE };
enum config_kind {
    CONFIG_STR,
    CONFIG_BOOL,
    CONFIG_INT,
    CONFIG_MS,
    CONFIG_SIZE,
    CONFIG_LIST,
    CONFIG_SECRET
};

struct config_key {
    enum config_scope scope;
    const char *key;
    enum config_kind kind;
    size_t off; /* of the field in the scope's struct; not for CONFIG_STORE */
    const char *def;
    int64_t min, max;
    const char *choices, *types, *help; /* choices, types: NULL unless used */
};

/* Where a value stands, for messages. */
struct config_where {
    struct config *cfg; /* takes the warnings */
    const char *file;
    uint32_t line;
    const char *context; /* "", "dbs[0].", "dbs[0].replica." */
};

/* NULL when the scope has no such key. */
#define STORE_SETTINGS_MAX 40 /* more than there are keys of stores */
const struct config_key *config__key(enum config_scope scope, const char *name);
/* May the value of this setting of a URL's query, which ends at `end`, be shown? `name` in either
 * spelling. */
bool config__may_show(const char *name, size_t name_size, const char *end);
/* Does the scope have keys "name.something"? */
bool config__section(enum config_scope scope, const char *name);

/* Fill a zeroed struct of the scope with its defaults; free its strings. */
MUST_CHECK enum rc config__defaults(enum config_scope scope, void *base, struct err *err);
void config__fini(enum config_scope scope, void *base);
/* Parse text into a field (or, for CONFIG_STORE, into the pairs of a struct config_replica). */
MUST_CHECK enum rc config__set(const struct config_key *k, void *base, const char *text,
                               const struct config_where *at, struct err *err);
/* Replace a string field. */
MUST_CHECK enum rc config__str(char **field, const char *text, struct err *err);
/* ret is zeroed; afterwards it has the inheritable settings of `from`. */
MUST_CHECK enum rc config__replica_inherit(const struct config_replica *from,
                                           struct config_replica *ret, struct err *err);
/* "file:line: context" + key + ": " + message */
enum rc config__bad(const struct config_where *at, const char *key, struct err *err,
                    const char *fmt, ...) FMT(4, 5);
MUST_CHECK enum rc config__warn(const struct config_where *at, const char *key, struct err *err,
                                const char *fmt, ...) FMT(4, 5);

/* Fill cfg (defaults are in) from a YAML text. */
MUST_CHECK enum rc config__yaml(struct config *cfg, const char *text, size_t size, struct err *err);
/* Fill in what follows from the other settings of a replica. */
MUST_CHECK enum rc config__replica_finish(struct config_replica *r, const struct config_where *at,
                                          struct err *err);
/* The same for an entry of dbs, its replica included. */
MUST_CHECK enum rc config__db_finish(struct config_db *db, const struct config_where *at,
                                     struct err *err);
#endif
