/* config.c -- finding, reading and checking a configuration as a whole; see config.h. */
#include "node/config.h"
#include "base/mem.h"
#include "node/config_intern.h"
#include <ctype.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define FILE_SIZE_MAX (16u << 20)
#define VAR_NAME_MAX  256

static enum rc new_config(const char *file, struct config **ret_cfg, struct err *err);
static enum rc check_heartbeat(const struct config *cfg, struct err *err);
static enum rc put_var(const char *name, size_t size, struct buf *out, struct err *err);
static size_t var_name(const char *s, size_t size, const char **ret_name, size_t *ret_size);
static bool is_special(char c);
static enum rc find_home(const char **ret_home, struct err *err);
static void clean_path(char *path);
static enum rc expand_field(char **field, const struct config_where *at, const char *key,
                            struct err *err);
static enum rc check_dir_keys(const struct config_db *db, const struct config_where *at,
                              struct err *err);
static enum rc fill_meta_path(struct config_db *db, struct err *err);
static enum rc set_place(struct config_replica *r, const char *url, struct err *err);
static enum rc find_type(struct config_replica *r, const struct config_where *at, struct err *err);
static enum rc take_file_url(struct config_replica *r, const struct config_where *at,
                             struct err *err);
static bool has_pair(const struct config_replica *r, const char *key);
static bool broken_port(const char *host, const char *end);
static void put_part(char *out, size_t size, const char *part, size_t part_size);

enum rc config_file_path(const char *path, char ret_path[OS_PATH_MAX], struct err *err)
{
    if (path == NULL || path[0] == '\0') path = getenv("LITESTREAM_CONFIG");
    if (path == NULL || path[0] == '\0') path = CONFIG_DEFAULT_PATH;
    return config_expand_path(path, ret_path, err);
}

enum rc config_load(const char *path, bool expand_env, struct config **ret_cfg, struct err *err)
{
    CLEANUP(buf_fini) struct buf raw = BUF_INIT, text = BUF_INIT;
    char file[OS_PATH_MAX];
    TRY(config_file_path(path, file, err));
    if (os_read_file(file, FILE_SIZE_MAX, &raw, err) != RC_OK) {
        if (err->rc == RC_NOT_FOUND)
            return err_set(err, RC_NOT_FOUND, "config file not found: %s", file);
        return err_wrap(err, "configuration");
    }
    if (!expand_env) return config_parse((const char *)raw.data, raw.size, file, ret_cfg, err);
    TRY(config_expand_env((const char *)raw.data, raw.size, &text, err));
    return config_parse((const char *)text.data, text.size, file, ret_cfg, err);
}

enum rc config_parse(const char *text, size_t size, const char *file, struct config **ret_cfg,
                     struct err *err)
{
    CLEANUP(config_freep) struct config *cfg = NULL;
    TRY(new_config(file, &cfg, err));
    if (size > 0) TRY(config__yaml(cfg, text, size, err));
    TRY(check_heartbeat(cfg, err));
    *ret_cfg = cfg;
    cfg = NULL;
    return RC_OK;
}

enum rc config_from_args(const char *db_path, const char *url, struct config **ret_cfg,
                         struct err *err)
{
    CLEANUP(config_freep) struct config *cfg = NULL;
    struct config_where at = {.file = "", .context = ""};
    TRY(new_config("", &cfg, err));
    cfg->dbs = mem_calloc(1, sizeof *cfg->dbs);
    if (cfg->dbs == NULL) return err_mem(err, "a database");
    cfg->db_count = 1;
    struct config_db *db = &cfg->dbs[0];
    TRY(config__defaults(CONFIG_DB, db, err));
    TRY(config__defaults(CONFIG_REPLICA, &db->replica, err));
    TRY(config__defaults(CONFIG_REPLICA_OWN, &db->replica, err));
    TRY(config__str(&db->path, db_path, err));
    TRY(set_place(&db->replica, url, err));
    db->replica.given = true;
    TRY(config__db_finish(db, &at, err));
    *ret_cfg = cfg;
    cfg = NULL;
    return RC_OK;
}

void config_free(struct config *cfg)
{
    if (cfg == NULL) return;
    for (size_t i = 0; i < cfg->db_count; i++) {
        config__fini(CONFIG_DB, &cfg->dbs[i]);
        config_replica_fini(&cfg->dbs[i].replica);
    }
    for (size_t i = 0; i < cfg->warning_count; i++)
        mem_free(cfg->warnings[i]);
    config__fini(CONFIG_GLOBAL, cfg);
    mem_free(cfg->warnings);
    mem_free(cfg->dbs);
    mem_free(cfg->levels);
    mem_free(cfg->file);
    mem_free(cfg);
}

void config_freep(struct config **cfg)
{
    config_free(*cfg);
    *cfg = NULL;
}

enum rc config_set(struct config *cfg, const char *key, const char *text, struct err *err)
{
    const struct config_key *k = config__key(CONFIG_GLOBAL, key);
    struct config_where at = {.cfg = cfg, .file = "", .context = ""};
    ASSERT(k != NULL);
    return config__set(k, cfg, text, &at, err);
}

/* On the command line a plain path is a folder; in the file that is what `path` is for. */
static enum rc set_place(struct config_replica *r, const char *url, struct err *err)
{
    bool plain = !config_is_url(url) && strncmp(url, "file:", 5) != 0;
    return config__str(plain ? &r->path : &r->url, url, err);
}

enum rc config_replica_from_url(const char *url, struct config_replica *ret_replica,
                                struct err *err)
{
    struct config_replica r = {.given = true};
    struct config_where at = {.file = "", .context = ""};
    enum rc rc = config__defaults(CONFIG_REPLICA, &r, err);
    if (rc == RC_OK) rc = config__defaults(CONFIG_REPLICA_OWN, &r, err);
    if (rc == RC_OK) rc = set_place(&r, url, err);
    if (rc == RC_OK) rc = config__replica_finish(&r, &at, err);
    if (rc == RC_OK)
        *ret_replica = r;
    else
        config_replica_fini(&r);
    return rc;
}

void config_replica_fini(struct config_replica *r)
{
    config__fini(CONFIG_REPLICA, r);
    config__fini(CONFIG_REPLICA_OWN, r);
    for (size_t i = 0; i < r->pair_count; i++) {
        mem_free(r->pairs[i].key);
        mem_free(r->pairs[i].value);
    }
    mem_free(r->pairs);
    *r = (struct config_replica){0};
}

enum rc config_find_db(const struct config *cfg, const char *path, const struct config_db **ret_db,
                       struct err *err)
{
    char full[OS_PATH_MAX];
    TRY(config_expand_path(path, full, err));
    for (size_t i = 0; i < cfg->db_count; i++) {
        if (strcmp(cfg->dbs[i].path, full) != 0) continue;
        *ret_db = &cfg->dbs[i];
        return RC_OK;
    }
    return err_set(err, RC_NOT_FOUND, "database not found in config: %s", full);
}

enum rc config_refuse_dirs(const struct config *cfg, struct err *err)
{
    for (size_t i = 0; i < cfg->db_count; i++) {
        if (cfg->dbs[i].dir[0] == '\0') continue;
        return err_set(err, RC_UNSUPPORTED,
                       "%s:%u: dbs[%zu]: directory databases are not supported yet; list each "
                       "database of '%s' with 'path'",
                       cfg->file, cfg->dbs[i].line, i, cfg->dbs[i].dir);
    }
    return RC_OK;
}

enum rc config_expand_env(const char *text, size_t size, struct buf *out, struct err *err)
{
    size_t done = 0;
    for (size_t i = 0; i + 1 < size; i++) {
        if (text[i] != '$') continue;
        const char *name;
        size_t name_size;
        size_t used = var_name(text + i + 1, size - i - 1, &name, &name_size);
        if (used == 0) continue; /* a '$' that begins no name stays */
        TRY(buf_append(out, text + done, i - done, err));
        if (name_size > 0) TRY(put_var(name, name_size, out, err));
        i += used;
        done = i + 1;
    }
    return buf_append(out, text + done, size - done, err);
}

enum rc config_expand_path(const char *path, char ret_path[OS_PATH_MAX], struct err *err)
{
    char joined[OS_PATH_MAX];
    if (strncmp(path, "sqlite://", 9) == 0)
        path += 9;
    else if (strncmp(path, "sqlite3://", 10) == 0)
        path += 10;
    if (path[0] == '~' && (path[1] == '/' || path[1] == '\0')) {
        const char *home = NULL;
        TRY(find_home(&home, err));
        int n = snprintf(joined, sizeof joined, "%s/%s", home, path + 1);
        if (n < 0 || (size_t)n >= sizeof joined)
            return err_set(err, RC_INVALID, "path too long: '%s'", path);
        path = joined;
    }
    TRY(os_abspath(path, ret_path, err));
    clean_path(ret_path);
    return RC_OK;
}

bool config_is_url(const char *text)
{
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '_')
        n++;
    return n > 0 && strncmp(text + n, "://", 3) == 0 && strncmp(text, "sqlite://", 9) != 0 &&
           strncmp(text, "sqlite3://", 10) != 0;
}

void config_url_redact(const char *url, char *out, size_t size)
{
    const char *rest = strstr(url, "://");
    const char *query = strchr(url, '?');
    const char *end = query ? query : url + strlen(url);
    bool plain = rest == NULL || rest > end;
    rest = plain ? url : rest + 3;
    const char *slash = rest < end ? memchr(rest, '/', (size_t)(end - rest)) : NULL;
    /* The last '@' before the path ends the user part: a password may hold one, too. */
    const char *host_end = slash ? slash : end;
    const char *at = rest < host_end ? memrchr(rest, '@', (size_t)(host_end - rest)) : NULL;
    const char *colon = at ? memchr(rest, ':', (size_t)(at - rest)) : NULL;
    out[0] = '\0';
    if (!plain && at == NULL && broken_port(rest, host_end)) {
        /* A password with a '/' or '?' that should have been escaped: nobody knows its end. */
        put_part(out, size, url, (size_t)(strchr(rest, ':') - url));
        put_part(out, size, ":***", 4);
        return;
    }
    if (colon != NULL) {
        put_part(out, size, url, (size_t)(colon - url));
        put_part(out, size, ":***", 4);
        put_part(out, size, at, (size_t)(end - at));
    } else {
        put_part(out, size, url, (size_t)(end - url));
    }
    for (const char *p = query; p != NULL && *p != '\0';) {
        size_t piece = 1 + strcspn(p + 1, "&");
        const char *eq = memchr(p, '=', piece);
        bool show = eq == NULL || config__may_show(p + 1, (size_t)(eq - p - 1), p + piece);
        put_part(out, size, p, show ? piece : (size_t)(eq - p));
        if (!show) put_part(out, size, "=***", 4);
        p += piece;
    }
}

/* Does the part behind "://" have a port that is no number? "[::1]" and "arn:..." are none. */
static bool broken_port(const char *host, const char *end)
{
    const char *colon = memchr(host, ':', (size_t)(end - host));
    if (colon == NULL || host[0] == '[' || strncmp(host, "arn:", 4) == 0) return false;
    return colon + 1 + strspn(colon + 1, "0123456789") < end;
}

enum rc config__db_finish(struct config_db *db, const struct config_where *at, struct err *err)
{
    bool dir = db->dir[0] != '\0';
    if (dir && db->path[0] != '\0')
        return config__bad(at, "", err, "cannot specify both 'path' and 'dir'");
    if (!dir && db->path[0] == '\0')
        return config__bad(at, "", err, "must specify either 'path' or 'dir'");
    TRY(check_dir_keys(db, at, err));
    TRY(expand_field(&db->path, at, "path", err));
    TRY(expand_field(&db->dir, at, "dir", err));
    TRY(expand_field(&db->meta_path, at, "meta-path", err));
    TRY(expand_field(&db->meta_dir, at, "meta-dir", err));
    if (!dir && db->meta_path[0] == '\0') TRY(fill_meta_path(db, err));
    if (!db->replica.given) return config__bad(at, "", err, "must specify replica for database");
    struct config_where inner = *at;
    char context[64];
    snprintf(context, sizeof context, "%s%s", at->context, at->context[0] ? ".replica" : "");
    inner.context = context;
    if (db->replica.line > 0) inner.line = db->replica.line;
    return config__replica_finish(&db->replica, &inner, err);
}

enum rc config__replica_finish(struct config_replica *r, const struct config_where *at,
                               struct err *err)
{
    TRY(find_type(r, at, err));
    if (config_is_url(r->path)) {
        char shown[256];
        config_url_redact(r->path, shown, sizeof shown);
        return config__bad(at, "", err,
                           "replica path cannot be a url, please use the 'url' field instead: %s",
                           shown);
    }
    if (r->url[0] != '\0' && r->path[0] != '\0')
        return config__bad(at, "", err, "cannot specify url & path for %s replica", r->type);
    if (strcmp(r->type, "file") != 0) {
        const char *const places[] = {"bucket", "host"};
        for (size_t i = 0; i < 2; i++)
            if (r->url[0] != '\0' && has_pair(r, places[i]))
                return config__bad(at, "", err, "cannot specify url & %s for %s replica", places[i],
                                   r->type);
        return RC_OK;
    }
    if (r->url[0] != '\0') TRY(take_file_url(r, at, err));
    if (r->path[0] == '\0')
        return config__bad(at, "", err, "file replica path required: add 'path' or 'url'");
    return expand_field(&r->path, at, "path", err);
}

static enum rc new_config(const char *file, struct config **ret_cfg, struct err *err)
{
    static const struct config_level levels[] = {{30000}, {300000}, {3600000}};
    CLEANUP(config_freep) struct config *cfg = mem_calloc(1, sizeof *cfg);
    if (cfg == NULL) return err_mem(err, "the configuration");
    TRY(config__str(&cfg->file, file, err));
    TRY(config__defaults(CONFIG_GLOBAL, cfg, err));
    cfg->levels = mem_alloc(sizeof levels);
    if (cfg->levels == NULL) return err_mem(err, "levels");
    memcpy(cfg->levels, levels, sizeof levels);
    cfg->level_count = sizeof levels / sizeof levels[0];
    *ret_cfg = cfg;
    cfg = NULL;
    return RC_OK;
}

static enum rc check_heartbeat(const struct config *cfg, struct err *err)
{
    const char *url = cfg->heartbeat_url;
    if (url[0] == '\0') return RC_OK;
    if ((strncasecmp(url, "http://", 7) == 0 && url[7] != '\0') ||
        (strncasecmp(url, "https://", 8) == 0 && url[8] != '\0'))
        return RC_OK;
    /* Not shown: such a URL often carries a token. */
    return err_set(err, RC_INVALID,
                   "%s: heartbeat-url: must begin with http:// or https:// and name a host",
                   cfg->file);
}

static enum rc put_var(const char *name, size_t size, struct buf *out, struct err *err)
{
    char key[VAR_NAME_MAX];
    if (size == 3 && memcmp(name, "PID", 3) == 0) return buf_printf(out, err, "%d", (int)getpid());
    if (size >= sizeof key) return RC_OK; /* nothing is called that */
    memcpy(key, name, size);
    key[size] = '\0';
    const char *value = getenv(key);
    return value == NULL ? RC_OK : buf_append(out, value, strlen(value), err);
}

/* s follows a '$'. Returns how much of it belongs to the variable; 0: it is no variable. An empty
 * name swallows the text. */
static size_t var_name(const char *s, size_t size, const char **ret_name, size_t *ret_size)
{
    *ret_name = s;
    *ret_size = 0;
    if (s[0] == '{') {
        const char *close = memchr(s, '}', size);
        if (close == NULL) return 1;
        *ret_name = s + 1;
        *ret_size = (size_t)(close - s) - 1;
        return *ret_size + 2;
    }
    if (is_special(s[0])) {
        *ret_size = 1;
        return 1;
    }
    size_t n = 0;
    while (n < size && (s[n] == '_' || (isalnum((unsigned char)s[n]) && (unsigned char)s[n] < 128)))
        n++;
    *ret_size = n;
    return n;
}

static bool is_special(char c)
{
    return c != '\0' && strchr("*#$@!?-0123456789", c) != NULL;
}

static enum rc find_home(const char **ret_home, struct err *err)
{
    const char *home = getenv("HOME");
    if (home == NULL || home[0] == '\0') {
        const struct passwd *pw = getpwuid(getuid());
        home = pw ? pw->pw_dir : NULL;
    }
    if (home == NULL || home[0] == '\0')
        return err_set(err, RC_INVALID, "cannot expand '~': no home directory; set HOME");
    *ret_home = home;
    return RC_OK;
}

/* Resolve "//", "." and ".." of an absolute path by their names, in place. */
static void clean_path(char *path)
{
    char *out = path;
    const char *in = path;
    while (*in != '\0') {
        while (*in == '/')
            in++;
        size_t n = strcspn(in, "/");
        if (n == 0) break;
        if (n == 2 && in[0] == '.' && in[1] == '.') {
            while (out > path && *--out != '/')
                continue;
        } else if (n != 1 || in[0] != '.') {
            *out++ = '/';
            memmove(out, in, n);
            out += n;
        }
        in += n;
    }
    if (out == path) *out++ = '/';
    *out = '\0';
}

static enum rc expand_field(char **field, const struct config_where *at, const char *key,
                            struct err *err)
{
    char full[OS_PATH_MAX];
    if (**field == '\0') return RC_OK;
    if (config_expand_path(*field, full, err) != RC_OK) {
        struct err why = *err;
        return config__bad(at, "", err, "%s: %s", key, why.text);
    }
    return config__str(field, full, err);
}

static enum rc check_dir_keys(const struct config_db *db, const struct config_where *at,
                              struct err *err)
{
    if (db->dir[0] != '\0') {
        if (db->pattern[0] == '\0')
            return config__bad(at, "", err, "'pattern' is required when using 'dir'");
        if (db->meta_path[0] != '\0' && db->meta_dir[0] != '\0')
            return config__bad(at, "", err, "cannot specify both 'meta-path' and 'meta-dir'");
        return RC_OK;
    }
    if (db->watch) return config__bad(at, "", err, "'watch' can only be enabled with a directory");
    if (db->meta_dir[0] != '\0')
        return config__bad(at, "", err, "'meta-dir' can only be used with a directory");
    return RC_OK;
}

static enum rc fill_meta_path(struct config_db *db, struct err *err)
{
    const char *name = strrchr(db->path, '/') + 1;
    char *meta = mem_printf("%.*s.%s-sluice", (int)(name - db->path), db->path, name);
    if (meta == NULL) return err_mem(err, "a path");
    mem_free(db->meta_path);
    db->meta_path = meta;
    return RC_OK;
}

static enum rc find_type(struct config_replica *r, const struct config_where *at, struct err *err)
{
    static const char *const types[] = {"file", "s3", "gs", "abs", "sftp", "webdav", "nats", "oss"};
    char scheme[32] = "";
    if (r->url[0] != '\0') {
        size_t n = strcspn(r->url, ":");
        char shown[256];
        config_url_redact(r->url, shown, sizeof shown);
        if (r->url[n] == '\0' || n == 0 || memchr(r->url, '/', n) != NULL)
            return config__bad(at, "", err, "replica url scheme required: %s", shown);
        snprintf(scheme, sizeof scheme, "%.*s", (int)(n < 31 ? n : 31), r->url);
        if (strcasecmp(scheme, "webdavs") == 0) snprintf(scheme, sizeof scheme, "webdav");
    } else {
        snprintf(scheme, sizeof scheme, "%s", r->type[0] ? r->type : "file");
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcasecmp(types[i], scheme) == 0) return config__str(&r->type, types[i], err);
    }
    return config__bad(at, "", err,
                       "unknown replica type in config: \"%s\"; use file, s3, gs, abs, sftp, "
                       "webdav, nats or oss",
                       scheme);
}

/* file:///abs, file:/abs, file:rel; escapes stay, a query is dropped. */
static enum rc take_file_url(struct config_replica *r, const struct config_where *at,
                             struct err *err)
{
    const char *p = r->url + strlen("file:");
    if (strncmp(p, "//", 2) == 0) {
        p += 2;
        if (*p != '/') {
            char shown[256];
            config_url_redact(r->url, shown, sizeof shown);
            return config__bad(at, "", err,
                               "'%s' names a host; a local folder has three slashes: "
                               "file:///absolute/path",
                               shown);
        }
    }
    char *path = mem_printf("%.*s", (int)strcspn(p, "?#"), p);
    if (path == NULL) return err_mem(err, "a path");
    mem_free(r->path);
    r->path = path;
    return RC_OK;
}

static bool has_pair(const struct config_replica *r, const char *key)
{
    for (size_t i = 0; i < r->pair_count; i++)
        if (strcmp(r->pairs[i].key, key) == 0 && r->pairs[i].value[0] != '\0') return true;
    return false;
}

/* Append to a text of at most size - 1 characters; what does not fit is left out. */
static void put_part(char *out, size_t size, const char *part, size_t part_size)
{
    size_t used = strlen(out), room = size - used - 1;
    if (part_size > room) part_size = room;
    memcpy(out + used, part, part_size);
    out[used + part_size] = '\0';
}
