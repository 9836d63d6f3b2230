/*
 * serve_conf.c -- see serve_conf.h.
 *
 * The whole text becomes a tree first (libyaml resolves aliases, so the tree may be a graph, even
 * one with circles); depth and size of what is made of it have limits.
 */
#include "node/serve_conf.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>
#include "base/buf.h"
#include "base/mem.h"
#include "node/config.h"

#define FILE_MAX  (1u << 20)
#define ENTRY_MAX 1024 /* keys of one mapping */
#define JSON_MAX  (1u << 20)
#define DEPTH_MAX 16
#define SHOWN     64 /* bytes of a key in a message */

struct walk {
    yaml_document_t *doc;
    struct serve_conf *conf;
};

static enum rc parse(const char *text, size_t size, struct serve_conf *conf, struct err *err);
static enum rc read_root(struct walk *w, yaml_node_t *root, struct err *err);
static enum rc read_entry(struct walk *w, yaml_node_t *key, yaml_node_t *value, struct err *err);
static enum rc take_value(struct walk *w, struct serve_conf_entry *e, yaml_node_t *value,
                          struct err *err);
static enum rc put_json(struct walk *w, yaml_node_t *node, unsigned depth, struct buf *out,
                        struct err *err);
static enum rc put_mapping(struct walk *w, yaml_node_t *node, unsigned depth, struct buf *out,
                           struct err *err);
static enum rc put_text(const yaml_node_t *node, struct buf *out, struct err *err);
static enum rc check_once(struct walk *w, const yaml_node_pair_t *first,
                          const yaml_node_pair_t *pair, struct err *err);
static enum rc bad(const struct walk *w, const yaml_node_t *node, struct err *err, const char *fmt,
                   ...) FMT(4, 5);
static yaml_node_t *node_at(const struct walk *w, int index);
static bool is_null(const yaml_node_t *node);
static const char *scalar(const yaml_node_t *node);
static void secret_fini(struct buf *b);

enum rc serve_conf_load(const char *path, bool expand_env, struct serve_conf **ret_conf,
                        struct err *err)
{
    CLEANUP(secret_fini) struct buf raw = BUF_INIT, text = BUF_INIT;
    CLEANUP(serve_conf_freep) struct serve_conf *conf = NULL;
    char file[OS_PATH_MAX];
    struct stat st;
    TRY(config_expand_path(path, file, err));
    if (os_read_file(file, FILE_MAX, &raw, err) != RC_OK) {
        if (err->rc == RC_NOT_FOUND)
            return err_set(err, RC_NOT_FOUND, "config file not found: %s", file);
        return err_wrap(err, "configuration");
    }
    if (expand_env)
        TRY(config_expand_env((const char *)raw.data, raw.size, &text, err));
    else
        TRY(buf_append(&text, raw.data, raw.size, err));
    TRY(serve_conf_parse((const char *)text.data, text.size, file, &conf, err));
    TRY(os_stat(file, &st, err));
    conf->shared = (st.st_mode & S_IROTH) != 0;
    for (size_t i = 0; i < conf->count; i++) {
        struct serve_conf_entry *e = &conf->entries[i];
        e->literal = e->mapping || memmem(raw.data, raw.size, e->value, strlen(e->value)) != NULL;
    }
    *ret_conf = conf;
    conf = NULL;
    return RC_OK;
}

enum rc serve_conf_parse(const char *text, size_t size, const char *file,
                         struct serve_conf **ret_conf, struct err *err)
{
    CLEANUP(serve_conf_freep) struct serve_conf *conf = mem_calloc(1, sizeof *conf);
    if (conf == NULL) return err_mem(err, "the configuration");
    conf->file = mem_strdup(file);
    if (conf->file == NULL) return err_mem(err, "the configuration");
    if (size > 0) TRY(parse(text, size, conf, err));
    *ret_conf = conf;
    conf = NULL;
    return RC_OK;
}

void serve_conf_free(struct serve_conf *conf)
{
    if (conf == NULL) return;
    for (size_t i = 0; i < conf->count; i++) {
        struct serve_conf_entry *e = &conf->entries[i];
        if (e->value != NULL) mem_wipe(e->value, strlen(e->value)); /* it may be a key */
        mem_free(e->key);
        mem_free(e->value);
    }
    mem_free(conf->entries);
    mem_free(conf->file);
    mem_free(conf);
}

void serve_conf_freep(struct serve_conf **conf)
{
    serve_conf_free(*conf);
    *conf = NULL;
}

static enum rc parse(const char *text, size_t size, struct serve_conf *conf, struct err *err)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    enum rc rc;
    if (!yaml_parser_initialize(&parser)) return err_mem(err, "the YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    if (yaml_parser_load(&parser, &doc)) {
        struct walk w = {.doc = &doc, .conf = conf};
        yaml_node_t *root = yaml_document_get_root_node(&doc);
        rc = root == NULL || is_null(root) ? RC_OK : read_root(&w, root, err);
        yaml_document_delete(&doc);
    } else if (parser.error == YAML_MEMORY_ERROR) {
        rc = err_mem(err, "the configuration");
    } else {
        rc = err_set(err, RC_INVALID, "%s:%zu: not valid YAML: %s", conf->file,
                     parser.problem_mark.line + 1, parser.problem ? parser.problem : "unreadable");
    }
    yaml_parser_delete(&parser);
    return rc;
}

static enum rc read_root(struct walk *w, yaml_node_t *root, struct err *err)
{
    struct serve_conf *conf = w->conf;
    if (root->type != YAML_MAPPING_NODE)
        return bad(w, root, err, "the file must consist of \"key: value\" lines");
    yaml_node_pair_t *first = root->data.mapping.pairs.start, *top = root->data.mapping.pairs.top;
    if (top - first > ENTRY_MAX) return bad(w, root, err, "more than %d keys", ENTRY_MAX);
    if (top == first) return RC_OK;
    conf->entries = mem_calloc((size_t)(top - first), sizeof *conf->entries);
    if (conf->entries == NULL) return err_mem(err, "the configuration");
    for (yaml_node_pair_t *p = first; p < top; p++) {
        TRY(check_once(w, first, p, err));
        TRY(read_entry(w, node_at(w, p->key), node_at(w, p->value), err));
    }
    return RC_OK;
}

static enum rc read_entry(struct walk *w, yaml_node_t *key, yaml_node_t *value, struct err *err)
{
    struct serve_conf_entry *e = &w->conf->entries[w->conf->count];
    if (is_null(value)) return RC_OK;
    *e = (struct serve_conf_entry){.line = (unsigned)key->start_mark.line + 1, .literal = true};
    w->conf->count++; /* serve_conf_free takes a half-built one */
    e->key = mem_strdup(scalar(key));
    if (e->key == NULL) return err_mem(err, "the configuration");
    return take_value(w, e, value, err);
}

static enum rc take_value(struct walk *w, struct serve_conf_entry *e, yaml_node_t *value,
                          struct err *err)
{
    CLEANUP(buf_fini) struct buf json = BUF_INIT;
    e->mapping = value->type == YAML_MAPPING_NODE && strcmp(e->key, SERVE_CONF_ROLES) == 0;
    if (e->mapping) {
        if (put_json(w, value, 0, &json, err) != RC_OK || buf_append(&json, "", 1, err) != RC_OK)
            return err->rc;
        e->value = mem_strdup((const char *)json.data);
    } else if (value->type != YAML_SCALAR_NODE) {
        return bad(w, value, err, "%.*s: must be a single value, not a %s", SHOWN, e->key,
                   value->type == YAML_MAPPING_NODE ? "mapping" : "list");
    } else if (strlen(scalar(value)) != value->data.scalar.length) {
        return bad(w, value, err, "%.*s: must not hold a NUL character", SHOWN, e->key);
    } else {
        e->value = mem_strdup(scalar(value));
    }
    return e->value != NULL ? RC_OK : err_mem(err, "the configuration");
}

static enum rc put_json(struct walk *w, yaml_node_t *node, unsigned depth, struct buf *out,
                        struct err *err)
{
    if (depth > DEPTH_MAX) return bad(w, node, err, "nested too deep");
    if (out->size > JSON_MAX)
        return err_set(err, RC_TOO_BIG, "%s: roles: more than %u bytes", w->conf->file, JSON_MAX);
    if (node->type == YAML_SCALAR_NODE) return put_text(node, out, err);
    if (node->type == YAML_MAPPING_NODE) return put_mapping(w, node, depth, out, err);
    TRY(buf_append(out, "[", 1, err));
    yaml_node_item_t *first = node->data.sequence.items.start;
    for (yaml_node_item_t *i = first; i < node->data.sequence.items.top; i++) {
        if (i > first) TRY(buf_append(out, ",", 1, err));
        TRY(put_json(w, node_at(w, *i), depth + 1, out, err));
    }
    return buf_append(out, "]", 1, err);
}

static enum rc put_mapping(struct walk *w, yaml_node_t *node, unsigned depth, struct buf *out,
                           struct err *err)
{
    yaml_node_pair_t *first = node->data.mapping.pairs.start, *top = node->data.mapping.pairs.top;
    if (top - first > ENTRY_MAX) return bad(w, node, err, "more than %d keys", ENTRY_MAX);
    TRY(buf_append(out, "{", 1, err));
    for (yaml_node_pair_t *p = first; p < top; p++) {
        TRY(check_once(w, first, p, err));
        if (p > first) TRY(buf_append(out, ",", 1, err));
        TRY(put_text(node_at(w, p->key), out, err));
        TRY(buf_append(out, ":", 1, err));
        TRY(put_json(w, node_at(w, p->value), depth + 1, out, err));
    }
    return buf_append(out, "}", 1, err);
}

/* A scalar is a text, whatever it looks like: a table may be called 2024 or no. */
static enum rc put_text(const yaml_node_t *node, struct buf *out, struct err *err)
{
    const char *text = scalar(node);
    TRY(buf_append(out, "\"", 1, err));
    for (size_t i = 0; i < node->data.scalar.length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < ' ')
            TRY(buf_printf(out, err, "\\u%04x", c));
        else if (c == '"' || c == '\\')
            TRY(buf_printf(out, err, "\\%c", c));
        else
            TRY(buf_append(out, &c, 1, err));
    }
    return buf_append(out, "\"", 1, err);
}

static enum rc check_once(struct walk *w, const yaml_node_pair_t *first,
                          const yaml_node_pair_t *pair, struct err *err)
{
    yaml_node_t *key = node_at(w, pair->key);
    if (key->type != YAML_SCALAR_NODE) return bad(w, key, err, "a key that is no text");
    for (const yaml_node_pair_t *p = first; p < pair; p++) {
        yaml_node_t *other = node_at(w, p->key);
        if (strcmp(scalar(other), scalar(key)) == 0)
            return bad(w, key, err, "%.*s: given twice, first in line %zu", SHOWN, scalar(key),
                       other->start_mark.line + 1);
    }
    return RC_OK;
}

static enum rc bad(const struct walk *w, const yaml_node_t *node, struct err *err, const char *fmt,
                   ...)
{
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(err, RC_INVALID, "%s:%zu: %s", w->conf->file, node->start_mark.line + 1, text);
}

static yaml_node_t *node_at(const struct walk *w, int index)
{
    return yaml_document_get_node(w->doc, index);
}

/* "key:" with nothing behind it, or YAML's words for that. */
static bool is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = scalar(node);
    return text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

static const char *scalar(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static void secret_fini(struct buf *b)
{
    if (b->data != NULL) mem_wipe(b->data, b->cap);
    buf_fini(b);
}
