/*
 * config_yaml.c -- the structure of litestream.yml: which mapping a key stands in.
 *
 * The whole text becomes a tree first (libyaml resolves aliases); then each mapping is read against
 * the keys of its scope. Unknown keys are no error, as in Litestream, but each leaves a warning.
 * Merge keys ("<<") give defaults for the keys beside them.
 */
#include "node/config_intern.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define NAME_SIZE    128
#define CONTEXT_SIZE 64
#define MERGE_DEPTH  8 /* "<<" inside "<<"; an anchor may refer to itself */
#define LEVEL_MAX    8

struct walk;
struct mapping;

/* A key with a meaning of its own. True: taken care of. */
typedef bool special_fn(struct walk *w, struct mapping *m, const char *name, yaml_node_t *value,
                        enum rc *ret_rc, struct err *err);

/* What the keys of one mapping are read into. */
struct mapping {
    enum config_scope scope; /* CONFIG_REPLICA stands for all three replica scopes */
    void *base;
    special_fn *special;
    const char *context;
};

struct walk {
    yaml_document_t *doc;
    struct config *cfg;
    struct config_replica defaults; /* replica settings at the top level */
    yaml_node_t *dbs;               /* read last, when the defaults are known */
    uint32_t dbs_line;
};

static enum rc read_document(struct config *cfg, yaml_document_t *doc, struct err *err);
static enum rc read_mapping(struct walk *w, struct mapping *m, const char *prefix,
                            yaml_node_t *node, unsigned depth, struct err *err);
static enum rc read_merge(struct walk *w, struct mapping *m, const char *prefix, yaml_node_t *node,
                          unsigned depth, struct err *err);
static enum rc read_key(struct walk *w, struct mapping *m, const char *name, yaml_node_t *key,
                        yaml_node_t *value, unsigned depth, struct err *err);
static enum rc read_value(struct walk *w, struct mapping *m, const struct config_key *k, void *base,
                          yaml_node_t *value, struct err *err);
static enum rc read_list(struct walk *w, struct mapping *m, const struct config_key *k, void *base,
                         yaml_node_t *value, struct err *err);
static special_fn special_global, special_db, special_replica;
static enum rc read_levels(struct walk *w, yaml_node_t *node, struct err *err);
static enum rc read_dbs(struct walk *w, struct err *err);
static enum rc read_db(struct walk *w, size_t index, yaml_node_t *node, struct err *err);
static enum rc read_replica(struct walk *w, struct mapping *m, yaml_node_t *node, struct err *err);
static enum rc read_replicas(struct walk *w, struct mapping *m, yaml_node_t *node, struct err *err);
static enum rc promote_snapshot(struct config *cfg, size_t off, size_t db_off, const char *what,
                                struct err *err);
static enum rc check_age(struct walk *w, yaml_node_t *node, struct err *err);
static struct config_where where(const struct walk *w, const struct mapping *m,
                                 const yaml_node_t *node);
static bool is_null(const yaml_node_t *node);
static size_t item_count(const yaml_node_t *seq);
static yaml_node_t *item(struct walk *w, yaml_node_t *seq, size_t i);
static const char *scalar(const yaml_node_t *node);

enum rc config__yaml(struct config *cfg, const char *text, size_t size, struct err *err)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    if (!yaml_parser_initialize(&parser)) return err_mem(err, "the YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    enum rc rc;
    if (!yaml_parser_load(&parser, &doc)) {
        if (parser.error == YAML_MEMORY_ERROR)
            rc = err_mem(err, "the configuration");
        else
            rc = err_set(err, RC_INVALID, "%s:%zu: not valid YAML: %s", cfg->file,
                         parser.problem_mark.line + 1,
                         parser.problem ? parser.problem : "unreadable");
        yaml_parser_delete(&parser);
        return rc;
    }
    rc = read_document(cfg, &doc, err);
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    return rc;
}

static enum rc read_document(struct config *cfg, yaml_document_t *doc, struct err *err)
{
    struct walk w = {.doc = doc, .cfg = cfg};
    struct mapping m = {
        .scope = CONFIG_GLOBAL, .base = cfg, .special = special_global, .context = ""};
    yaml_node_t *root = yaml_document_get_root_node(doc);
    int64_t interval = cfg->snapshot_interval_ms, retention = cfg->snapshot_retention_ms;
    cfg->snapshot_interval_ms = cfg->snapshot_retention_ms = 0; /* "not given" */
    enum rc rc = config__defaults(CONFIG_REPLICA, &w.defaults, err);
    if (rc == RC_OK) rc = config__defaults(CONFIG_REPLICA_OWN, &w.defaults, err);
    if (rc == RC_OK && root != NULL && !is_null(root)) {
        struct config_where at = where(&w, &m, root);
        rc = root->type == YAML_MAPPING_NODE
                 ? read_mapping(&w, &m, "", root, 0, err)
                 : config__bad(&at, "", err, "the file must consist of \"key: value\" lines");
    }
    if (rc == RC_OK && w.dbs != NULL) rc = read_dbs(&w, err);
    config_replica_fini(&w.defaults);
    TRY(rc);
    TRY(promote_snapshot(cfg, offsetof(struct config, snapshot_interval_ms),
                         offsetof(struct config_db, snapshot_interval_ms), "intervals", err));
    TRY(promote_snapshot(cfg, offsetof(struct config, snapshot_retention_ms),
                         offsetof(struct config_db, snapshot_retention_ms), "retentions", err));
    if (cfg->snapshot_interval_ms == 0) cfg->snapshot_interval_ms = interval;
    if (cfg->snapshot_retention_ms == 0) cfg->snapshot_retention_ms = retention;
    return RC_OK;
}

/* All keys of one mapping; prefix is "" or "section.". */
static enum rc read_mapping(struct walk *w, struct mapping *m, const char *prefix,
                            yaml_node_t *node, unsigned depth, struct err *err)
{
    yaml_node_pair_t *first = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    struct config_where at = where(w, m, node);
    if (depth > MERGE_DEPTH) return config__bad(&at, "<<", err, "nested too deep");
    for (yaml_node_pair_t *p = first; p < top; p++) {
        yaml_node_t *key = yaml_document_get_node(w->doc, p->key);
        if (key->type == YAML_SCALAR_NODE && strcmp(scalar(key), "<<") == 0)
            TRY(read_merge(w, m, prefix, yaml_document_get_node(w->doc, p->value), depth, err));
    }
    for (yaml_node_pair_t *p = first; p < top; p++) {
        yaml_node_t *key = yaml_document_get_node(w->doc, p->key);
        yaml_node_t *value = yaml_document_get_node(w->doc, p->value);
        char name[NAME_SIZE];
        at = where(w, m, key);
        if (key->type != YAML_SCALAR_NODE) {
            TRY(config__warn(&at, prefix, err, "a key that is no text; it is ignored"));
            continue;
        }
        if (strcmp(scalar(key), "<<") == 0) continue;
        snprintf(name, sizeof name, "%s%s", prefix, scalar(key));
        for (yaml_node_pair_t *q = first; q < p; q++) {
            yaml_node_t *other = yaml_document_get_node(w->doc, q->key);
            if (other->type != YAML_SCALAR_NODE || strcmp(scalar(other), scalar(key)) != 0)
                continue;
            TRY(config__warn(&at, name, err, "given twice; the last one counts"));
            break;
        }
        TRY(read_key(w, m, name, key, value, depth, err));
    }
    return RC_OK;
}

static enum rc read_merge(struct walk *w, struct mapping *m, const char *prefix, yaml_node_t *node,
                          unsigned depth, struct err *err)
{
    struct config_where at = where(w, m, node);
    if (node->type == YAML_MAPPING_NODE) return read_mapping(w, m, prefix, node, depth + 1, err);
    if (node->type != YAML_SEQUENCE_NODE)
        return config__bad(&at, "<<", err, "must be a mapping or a list of mappings");
    /* Earlier mappings are stronger, so they come last. */
    for (size_t i = item_count(node); i-- > 0;) {
        yaml_node_t *one = item(w, node, i);
        if (one->type != YAML_MAPPING_NODE)
            return config__bad(&at, "<<", err, "must be a mapping or a list of mappings");
        TRY(read_mapping(w, m, prefix, one, depth + 1, err));
    }
    return RC_OK;
}

static enum rc read_key(struct walk *w, struct mapping *m, const char *name, yaml_node_t *key,
                        yaml_node_t *value, unsigned depth, struct err *err)
{
    enum rc rc = RC_OK;
    struct config_where at = where(w, m, key);
    if (m->special(w, m, name, value, &rc, err)) return rc;
    const struct config_key *k = config__key(m->scope, name);
    if (k == NULL && m->scope == CONFIG_REPLICA) k = config__key(CONFIG_REPLICA_OWN, name);
    if (k == NULL && m->scope == CONFIG_REPLICA) k = config__key(CONFIG_STORE, name);
    if (k != NULL) return read_value(w, m, k, m->base, value, err);
    if (config__section(m->scope, name)) {
        char prefix[NAME_SIZE + 1];
        if (is_null(value)) return RC_OK;
        if (value->type != YAML_MAPPING_NODE)
            return config__bad(&at, name, err, "must hold \"key: value\" lines of its own");
        snprintf(prefix, sizeof prefix, "%s.", name);
        return read_mapping(w, m, prefix, value, depth, err);
    }
    if (m->scope == CONFIG_GLOBAL) { /* a default for all replicas? */
        k = config__key(CONFIG_REPLICA, name);
        if (k == NULL) k = config__key(CONFIG_STORE, name);
        if (k != NULL) return read_value(w, m, k, &w->defaults, value, err);
    }
    return config__warn(&at, name, err, "unknown key; it is ignored");
}

static enum rc read_value(struct walk *w, struct mapping *m, const struct config_key *k, void *base,
                          yaml_node_t *value, struct err *err)
{
    struct config_where at = where(w, m, value);
    if (is_null(value)) return RC_OK;
    if (k->kind == CONFIG_LIST) return read_list(w, m, k, base, value, err);
    if (value->type != YAML_SCALAR_NODE)
        return config__bad(&at, k->key, err, "must be a single value, not a %s",
                           value->type == YAML_MAPPING_NODE ? "mapping" : "list");
    if (strlen(scalar(value)) != value->data.scalar.length)
        return config__bad(&at, k->key, err, "must not hold a NUL character");
    return config__set(k, base, scalar(value), &at, err);
}

/* A sequence of texts becomes one text with a line each. */
static enum rc read_list(struct walk *w, struct mapping *m, const struct config_key *k, void *base,
                         yaml_node_t *value, struct err *err)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct config_where at = where(w, m, value);
    if (value->type != YAML_SEQUENCE_NODE) return config__bad(&at, k->key, err, "must be a list");
    for (size_t i = 0; i < item_count(value); i++) {
        yaml_node_t *one = item(w, value, i);
        if (one->type != YAML_SCALAR_NODE)
            return config__bad(&at, k->key, err, "must be a list of texts");
        TRY(buf_printf(&b, err, "%s%s", i > 0 ? "\n" : "", scalar(one)));
    }
    TRY(buf_append(&b, "", 1, err));
    return config__set(k, base, (const char *)b.data, &at, err);
}

static bool special_global(struct walk *w, struct mapping *m, const char *name, yaml_node_t *value,
                           enum rc *ret_rc, struct err *err)
{
    (void)m;
    if (strcmp(name, "dbs") == 0)
        w->dbs = value;
    else if (strcmp(name, "levels") == 0)
        *ret_rc = read_levels(w, value, err);
    else if (strcmp(name, "age") == 0)
        *ret_rc = check_age(w, value, err);
    else
        return false;
    return true;
}

static bool special_db(struct walk *w, struct mapping *m, const char *name, yaml_node_t *value,
                       enum rc *ret_rc, struct err *err)
{
    if (strcmp(name, "replica") == 0)
        *ret_rc = read_replica(w, m, value, err);
    else if (strcmp(name, "replicas") == 0)
        *ret_rc = read_replicas(w, m, value, err);
    else
        return false;
    return true;
}

static bool special_replica(struct walk *w, struct mapping *m, const char *name, yaml_node_t *value,
                            enum rc *ret_rc, struct err *err)
{
    (void)m;
    if (strcmp(name, "age") != 0) return false;
    *ret_rc = check_age(w, value, err);
    return true;
}

static enum rc read_levels(struct walk *w, yaml_node_t *node, struct err *err)
{
    static const struct config_key interval = {
        .key = "interval", .kind = CONFIG_MS, .min = 1, .max = INT64_MAX};
    struct mapping m = {.context = "levels"};
    struct config_where at = where(w, &m, node);
    if (is_null(node) || (node->type == YAML_SEQUENCE_NODE && item_count(node) == 0)) return RC_OK;
    if (node->type != YAML_SEQUENCE_NODE) return config__bad(&at, "", err, "must be a list");
    size_t count = item_count(node);
    if (count > LEVEL_MAX)
        return config__bad(&at, "", err, "at most %d levels (got %zu)", LEVEL_MAX, count);
    struct config_level *levels = mem_calloc(count, sizeof *levels);
    if (levels == NULL) return err_mem(err, "levels");
    mem_free(w->cfg->levels);
    w->cfg->levels = levels;
    w->cfg->level_count = count;
    for (size_t i = 0; i < count; i++) {
        char context[CONTEXT_SIZE];
        snprintf(context, sizeof context, "levels[%zu].", i);
        m.context = context;
        yaml_node_t *level = item(w, node, i), *value = NULL;
        at = where(w, &m, level);
        if (level->type != YAML_MAPPING_NODE)
            return config__bad(&at, "interval", err, "must be given");
        for (yaml_node_pair_t *p = level->data.mapping.pairs.start;
             p < level->data.mapping.pairs.top; p++) {
            yaml_node_t *key = yaml_document_get_node(w->doc, p->key);
            bool known = key->type == YAML_SCALAR_NODE && strcmp(scalar(key), "interval") == 0;
            if (known)
                value = yaml_document_get_node(w->doc, p->value);
            else
                TRY(config__warn(&at, scalar(key), err, "unknown key; it is ignored"));
        }
        if (value == NULL || is_null(value))
            return config__bad(&at, "interval", err, "must be given");
        TRY(read_value(w, &m, &interval, &levels[i].interval_ms, value, err));
    }
    return RC_OK;
}

static enum rc read_dbs(struct walk *w, struct err *err)
{
    struct mapping m = {.context = "dbs"};
    struct config_where at = where(w, &m, w->dbs);
    struct config *cfg = w->cfg;
    if (is_null(w->dbs)) return RC_OK;
    if (w->dbs->type != YAML_SEQUENCE_NODE)
        return config__bad(&at, "", err, "must be a list: \"- path: /some/file.db\"");
    size_t count = item_count(w->dbs);
    cfg->dbs = mem_calloc(count, sizeof *cfg->dbs);
    if (cfg->dbs == NULL) return err_mem(err, "the list of databases");
    for (size_t i = 0; i < count; i++) {
        cfg->db_count = i + 1; /* config_free takes a half-built one */
        TRY(read_db(w, i, item(w, w->dbs, i), err));
    }
    return RC_OK;
}

static enum rc read_db(struct walk *w, size_t index, yaml_node_t *node, struct err *err)
{
    char context[CONTEXT_SIZE];
    struct config_db *db = &w->cfg->dbs[index];
    struct mapping m = {.scope = CONFIG_DB, .base = db, .special = special_db, .context = context};
    snprintf(context, sizeof context, "dbs[%zu].", index);
    TRY(config__defaults(CONFIG_DB, db, err));
    TRY(config__replica_inherit(&w->defaults, &db->replica, err));
    struct config_where at = where(w, &m, node);
    db->line = at.line;
    if (node->type == YAML_MAPPING_NODE) TRY(read_mapping(w, &m, "", node, 0, err));
    snprintf(context, sizeof context, "dbs[%zu]", index);
    if (node->type != YAML_MAPPING_NODE)
        return config__bad(&at, "", err, "must specify either 'path' or 'dir'");
    return config__db_finish(db, &at, err);
}

static enum rc read_replica(struct walk *w, struct mapping *m, yaml_node_t *node, struct err *err)
{
    struct config_db *db = m->base;
    struct config_where at = where(w, m, node);
    if (is_null(node)) return RC_OK;
    if (node->type != YAML_MAPPING_NODE)
        return config__bad(&at, "replica", err, "must hold \"key: value\" lines of its own");
    if (db->replica.given)
        return config__bad(&at, "replica", err,
                           "cannot specify 'replica' and 'replicas' on a database");
    char context[CONTEXT_SIZE];
    snprintf(context, sizeof context, "%sreplica.", m->context);
    struct mapping inner = {.scope = CONFIG_REPLICA,
                            .base = &db->replica,
                            .special = special_replica,
                            .context = context};
    db->replica.given = true;
    db->replica.line = at.line;
    return read_mapping(w, &inner, "", node, 0, err);
}

static enum rc read_replicas(struct walk *w, struct mapping *m, yaml_node_t *node, struct err *err)
{
    struct config_where at = where(w, m, node);
    if (is_null(node)) return RC_OK;
    if (node->type != YAML_SEQUENCE_NODE)
        return config__bad(&at, "replicas", err, "must be a list of one replica; or use 'replica'");
    if (item_count(node) > 1)
        return config__bad(&at, "replicas", err,
                           "multiple replicas on a single database are no longer supported");
    return item_count(node) == 0 ? RC_OK : read_replica(w, m, item(w, node, 0), err);
}

/* A database's own snapshot setting becomes the one of all, so two different ones contradict. */
static enum rc promote_snapshot(struct config *cfg, size_t off, size_t db_off, const char *what,
                                struct err *err)
{
    int64_t *global = (int64_t *)(void *)((char *)cfg + off);
    const struct config_db *first = NULL;
    if (*global != 0) return RC_OK;
    for (size_t i = 0; i < cfg->db_count; i++) {
        const struct config_db *db = &cfg->dbs[i];
        int64_t own = *(const int64_t *)(const void *)((const char *)db + db_off);
        if (own == 0) continue;
        if (first == NULL) first = db;
        if (*global != 0 && *global != own)
            return err_set(err, RC_INVALID,
                           "%s:%u: conflicting database snapshot %s: %s has %lldms, %s has %lldms; "
                           "set one value under 'snapshot' at the top level",
                           cfg->file, db->line, what, first->path[0] ? first->path : first->dir,
                           (long long)*global, db->path[0] ? db->path : db->dir, (long long)own);
        *global = own;
    }
    return RC_OK;
}

static enum rc check_age(struct walk *w, yaml_node_t *node, struct err *err)
{
    if (node->type != YAML_MAPPING_NODE) return RC_OK;
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top;
         p++) {
        yaml_node_t *value = yaml_document_get_node(w->doc, p->value);
        bool empty =
            is_null(value) || (value->type == YAML_SEQUENCE_NODE && item_count(value) == 0);
        if (!empty)
            return err_set(err, RC_UNSUPPORTED,
                           "%s:%zu: age encryption is not currently supported, if you need "
                           "encryption please revert back to Litestream v0.3.x",
                           w->cfg->file, node->start_mark.line + 1);
    }
    return RC_OK;
}

static struct config_where where(const struct walk *w, const struct mapping *m,
                                 const yaml_node_t *node)
{
    return (struct config_where){.cfg = w->cfg,
                                 .file = w->cfg->file,
                                 .line = (uint32_t)node->start_mark.line + 1,
                                 .context = m->context};
}

static bool is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *s = scalar(node);
    return s[0] == '\0' || strcmp(s, "~") == 0 || strcmp(s, "null") == 0 ||
           strcmp(s, "Null") == 0 || strcmp(s, "NULL") == 0;
}

static size_t item_count(const yaml_node_t *seq)
{
    return (size_t)(seq->data.sequence.items.top - seq->data.sequence.items.start);
}

static yaml_node_t *item(struct walk *w, yaml_node_t *seq, size_t i)
{
    return yaml_document_get_node(w->doc, seq->data.sequence.items.start[i]);
}

static const char *scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "?";
}
