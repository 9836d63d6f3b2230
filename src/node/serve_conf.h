/*
 * serve_conf.h -- the configuration file of `sluice serve`, sluice.yml: one mapping of keys and
 * values. Which keys there are is the command's business; here it is their syntax.
 *
 *   listen: 0.0.0.0:8080
 *   admin-key: $ADMIN_KEY          # of the environment
 *   roles:                         # a path, or the roles themselves
 *     analyst:
 *       - {effect: allow, actions: [read]}
 *
 * Threads: constant once it was loaded.
 */
#ifndef NODE_SERVE_CONF_H
#define NODE_SERVE_CONF_H
#include "base/err.h"

#define SERVE_CONF_ROLES "roles" /* the one key that may have a mapping */

struct serve_conf_entry {
    char *key, *value; /* of a mapping: as JSON, all scalars as texts */
    unsigned line;
    bool mapping;
    bool literal; /* the value stands in the file as it is, and not in the environment */
};
struct serve_conf {
    char *file; /* absolute */
    struct serve_conf_entry *entries;
    size_t count;
    bool shared; /* users other than owner and group can read the file */
};

/* A key without a value is left out. expand_env: as config_expand_env has it.
 * Fails: RC_NOT_FOUND "config file not found: P"; RC_INVALID with file, line and key: no YAML, no
 * mapping, a key twice, a list or a mapping where a text is wanted; RC_TOO_BIG; RC_NO_MEM; by
 * errno. */
MUST_CHECK enum rc serve_conf_load(const char *path, bool expand_env, struct serve_conf **ret_conf,
                                   struct err *err);
/* The same from memory; `file` is for the messages. Nothing is expanded, all is literal. */
MUST_CHECK enum rc serve_conf_parse(const char *text, size_t size, const char *file,
                                    struct serve_conf **ret_conf, struct err *err);
void serve_conf_free(struct serve_conf *conf);   /* NULL is fine */
void serve_conf_freep(struct serve_conf **conf); /* for CLEANUP */
#endif
