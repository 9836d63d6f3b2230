/* tenants_conf.c -- conf.json of a tenant; see tenants_intern.h. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/mem.h"
#include "node/tenants_intern.h"
#include "server/stats.h"

#define FILE_MAX   (256u << 10)
#define REASON_MAX 1024
#define KEY_MAX    (64u << 10)
#define URL_MAX    4096

/* What is in the file, once. */
#define BOOLS(X)   X(block_reads) X(block_writes) X(allow_attach) X(sync)
#define TEXTS(X)   X(block_reason) X(jwt_key) X(heartbeat_url) X(class)
#define NUMBERS(X) X(txn_ms) X(size_max) X(row_max)

static enum rc copy_text(const char **to, const char *from, size_t max, const char *what,
                         struct err *err);
static enum rc copy_class(const char **to, const char *from, struct err *err);
static void free_text(const char *text);
static enum rc take(const json_t *o, struct tenants_conf **ret_c, struct err *err);
static enum rc take_former(const json_t *list, struct tenants_conf *c, struct err *err);
static json_t *give_former(const struct tenants_conf *c);
static json_t *give(const struct tenants_conf *c);
static int append(const char *data, size_t size, void *text);

enum rc tenants_conf_new(const struct tenant_conf *conf, int64_t created_ms,
                         struct tenants_conf **ret_c, struct err *err)
{
    static const struct tenant_conf defaults = {.block_reason = ""};
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = mem_calloc(1, sizeof *c);
    if (c == NULL) return err_mem(err, "a tenant's configuration");
    if (conf == NULL) conf = &defaults;
    c->created_ms = created_ms;
    c->conf = *conf;
    if (c->conf.size_max > INT64_MAX) c->conf.size_max = INT64_MAX;
    c->conf.block_reason = c->conf.jwt_key = c->conf.heartbeat_url = c->conf.class = NULL;
    const char *reason = conf->block_reason != NULL ? conf->block_reason : "";
    TRY(copy_text(&c->conf.block_reason, reason, REASON_MAX, "block_reason", err));
    TRY(copy_text(&c->conf.jwt_key, conf->jwt_key, KEY_MAX, "jwt_key", err));
    TRY(copy_text(&c->conf.heartbeat_url, conf->heartbeat_url, URL_MAX, "heartbeat_url", err));
    TRY(copy_class(&c->conf.class, conf->class, err));
    *ret_c = c;
    c = NULL;
    return RC_OK;
}

void tenants_conf_former(struct tenants_conf *c, const struct tenants_conf *from, const char *name)
{
    struct tenant_former *list = c->former;
    memcpy(list, from->former, sizeof from->former);
    c->former_count = from->former_count;
    if (name == NULL) return;
    if (c->former_count == TENANT_FORMER_MAX)
        memmove(list, list + 1, --c->former_count * sizeof list[0]);
    struct tenant_former *f = &list[c->former_count++];
    snprintf(f->name, sizeof f->name, "%s", name);
    f->until_ms = os_now_ms();
}

void tenants_conf_free(struct tenants_conf *c)
{
    while (c != NULL) {
        struct tenants_conf *older = c->older;
        free_text(c->conf.block_reason);
        free_text(c->conf.jwt_key);
        free_text(c->conf.heartbeat_url);
        free_text(c->conf.class);
        mem_free(c);
        c = older;
    }
}

void tenants_conf_freep(struct tenants_conf **c)
{
    tenants_conf_free(*c);
    *c = NULL;
}

enum rc tenants_conf_load(const char *path, struct tenants_conf **ret_c, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    json_error_t where;
    enum rc rc = os_read_file(path, FILE_MAX, &text, err);
    if (rc == RC_NOT_FOUND) return tenants_conf_new(NULL, 0, ret_c, err);
    TRY(rc);
    json_t *o = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &where);
    if (o == NULL)
        return err_set(err, RC_CORRUPT, "'%s' line %d: %s", path, where.line, where.text);
    rc = json_is_object(o) ? take(o, ret_c, err) : err_set(err, RC_CORRUPT, "not an object");
    json_decref(o);
    return rc == RC_OK ? rc : err_wrap(err, "'%s'", path);
}

enum rc tenants_conf_save(const char *path, const struct tenants_conf *c, struct err *err)
{
    json_t *o = give(c);
    if (o == NULL)
        return err_set(err, RC_INVALID, "a tenant's configuration holds what is not UTF-8");
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    int failed = json_dump_callback(o, append, &text, JSON_INDENT(2));
    json_decref(o);
    if (failed != 0 || append("\n", 1, &text) != 0) return err_mem(err, "a tenant's configuration");
    return os_write_file(path, text.data, text.size, 0600, err);
}

static int append(const char *data, size_t size, void *text)
{
    struct err ignored;
    return buf_append(text, data, size, &ignored) == RC_OK ? 0 : -1;
}

static enum rc copy_text(const char **to, const char *from, size_t max, const char *what,
                         struct err *err)
{
    if (from == NULL) return RC_OK;
    if (strlen(from) > max)
        return err_set(err, RC_INVALID, "%s is longer than %zu bytes", what, max);
    *to = mem_strdup(from);
    return *to != NULL ? RC_OK : err_mem(err, "a tenant's configuration");
}

/* The usual class is none, so that there is one way to say it. */
static enum rc copy_class(const char **to, const char *from, struct err *err)
{
    if (from == NULL || strcmp(from, TENANT_CLASS) == 0) return RC_OK;
    TRY(stats_check_class(from, err));
    return copy_text(to, from, STATS_CLASS_MAX, "class", err);
}

static void free_text(const char *text)
{
    char *ours = (char *)(uintptr_t)text; /* from copy_text */
    mem_free(ours);
}

/* Unknown keys are those of a later version; a known one of the wrong type is damage, and to take
 * the default for it could open what was blocked. */
static enum rc take(const json_t *o, struct tenants_conf **ret_c, struct err *err)
{
    struct tenant_conf conf = {.block_reason = ""};
    int64_t created_ms = 0, txn_ms = 0, size_max = 0, row_max = 0;
    const char *bad = NULL;
    const json_t *v;
#define TAKE_BOOL(key)                                                                             \
    if ((v = json_object_get(o, #key)) != NULL) {                                                  \
        if (!json_is_boolean(v)) bad = #key;                                                       \
        conf.key = json_is_true(v);                                                                \
    }
#define TAKE_TEXT(key)                                                                             \
    if ((v = json_object_get(o, #key)) != NULL) {                                                  \
        if (!json_is_string(v)) bad = #key;                                                        \
        conf.key = json_string_value(v);                                                           \
    }
#define TAKE_NUMBER(key)                                                                           \
    if ((v = json_object_get(o, #key)) != NULL) {                                                  \
        if (!json_is_integer(v) || json_integer_value(v) < 0) bad = #key;                          \
        key = json_integer_value(v);                                                               \
    }
    BOOLS(TAKE_BOOL)
    TEXTS(TAKE_TEXT)
    NUMBERS(TAKE_NUMBER)
    TAKE_NUMBER(created_ms)
    if (row_max > UINT32_MAX) bad = "row_max";
    if (bad != NULL) return err_set(err, RC_CORRUPT, "%s has not the right type", bad);
    conf.txn_ms = txn_ms;
    conf.size_max = (uint64_t)size_max;
    conf.row_max = (uint32_t)row_max;
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    enum rc rc = tenants_conf_new(&conf, created_ms, &c, err);
    if (rc == RC_OK) rc = take_former(json_object_get(o, "former_logs"), c, err);
    if (rc == RC_INVALID) rc = err->rc = RC_CORRUPT;
    TRY(rc);
    *ret_c = c;
    c = NULL;
    return RC_OK;
}

static enum rc take_former(const json_t *list, struct tenants_conf *c, struct err *err)
{
    if (list == NULL) return RC_OK;
    if (!json_is_array(list) || json_array_size(list) > TENANT_FORMER_MAX)
        return err_set(err, RC_CORRUPT, "former_logs has not the right type");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *until = json_object_get(one, "until_ms");
        if (name == NULL || !json_is_integer(until))
            return err_set(err, RC_CORRUPT, "former_logs has not the right type");
        TRY(tenants_check_name(name, false, err)); /* it becomes a part of paths */
        snprintf(c->former[i].name, sizeof c->former[i].name, "%s", name);
        c->former[i].until_ms = json_integer_value(until);
        c->former_count++;
    }
    return RC_OK;
}

static json_t *give_former(const struct tenants_conf *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->former_count && list != NULL; i++) {
        const struct tenant_former *f = &c->former[i];
        json_t *one = json_pack("{s:s,s:I}", "name", f->name, "until_ms", (json_int_t)f->until_ms);
        if (json_array_append_new(list, one) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

static json_t *give(const struct tenants_conf *c)
{
    json_t *o = json_object();
    bool ok = o != NULL;
    const struct tenant_conf *conf = &c->conf;
#define GIVE_BOOL(key) ok = ok && json_object_set_new(o, #key, json_boolean(conf->key)) == 0;
#define GIVE_TEXT(key)                                                                             \
    if (conf->key != NULL) ok = ok && json_object_set_new(o, #key, json_string(conf->key)) == 0;
#define GIVE_NUMBER(key)                                                                           \
    ok = ok && json_object_set_new(o, #key, json_integer((json_int_t)conf->key)) == 0;
    ok = ok && json_object_set_new(o, "created_ms", json_integer(c->created_ms)) == 0;
    BOOLS(GIVE_BOOL)
    TEXTS(GIVE_TEXT)
    NUMBERS(GIVE_NUMBER)
    if (c->former_count > 0) ok = ok && json_object_set_new(o, "former_logs", give_former(c)) == 0;
    if (ok) return o;
    json_decref(o);
    return NULL;
}
