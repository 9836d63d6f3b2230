/* util.c -- see cli.h. */
#include "cli/cli.h"
#include "base/log.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COLUMNS_MAX 8
#define PLAIN       /* what a shell leaves as it is */                                             \
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_"

const struct command *cli_find(const struct cli *c, const char *name)
{
    for (const struct command *const *p = c->commands; *p; p++)
        if (strcmp((*p)->name, name) == 0) return *p;
    return NULL;
}

void cli_usage(const struct cli *c, FILE *out)
{
    fprintf(out, "sluice replicates SQLite databases to object stores and restores them.\n\n"
                 "Usage:\n\n    sluice <command> [arguments]\n\nThe commands are:\n\n");
    for (const struct command *const *p = c->commands; *p; p++)
        if (!(*p)->hidden) fprintf(out, "    %-12s %s\n", (*p)->name, (*p)->summary);
    fprintf(out, "\n\"sluice help <command>\" explains a command and its options.\n");
}

void cli_hint(struct cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->hint, sizeof c->hint, fmt, ap);
    va_end(ap);
}

void cli_shown_url(const char *url, char *out, size_t size)
{
    char shown[512];
    config_url_redact(url, shown, sizeof shown);
    bool plain = strspn(shown, PLAIN) == strlen(shown) || strchr(shown, '\'') != NULL;
    snprintf(out, size, plain ? "%s" : "'%s'", shown);
}

enum rc cli_load_config(struct cli *c, struct config **ret_cfg, struct err *err)
{
    const char *path = opts_str(&c->opts, "config");
    enum rc rc = config_load(path, !opts_bool(&c->opts, "no-expand-env"), ret_cfg, err);
    if (rc == RC_NOT_FOUND)
        cli_hint(c, "sluice %s -config /path/to/litestream.yml", c->opts.cmd->name);
    return rc;
}

void cli_start_log(const struct config *cfg, const char *level, bool to_stderr)
{
    struct err err;
    enum log_level lv = LOG_INFO;
    bool json = cfg && strcmp(cfg->log_type, "json") == 0;
    if (level[0] == '\0' && getenv("LOG_LEVEL")) level = getenv("LOG_LEVEL");
    if (level[0] == '\0' && cfg) level = cfg->log_level;
    enum rc rc = level[0] == '\0' ? RC_OK : log_level_parse(level, &lv, &err);
    to_stderr = to_stderr || (cfg && cfg->log_stderr);
    log_setup(lv, json ? LOG_TYPE_JSON : LOG_TYPE_TEXT, to_stderr ? STDERR_FILENO : STDOUT_FILENO);
    /* Litestream takes any word, so a wrong one must not end the program. */
    if (rc != RC_OK) log_warn("unknown log level, using info", "level", level);
}

/* A URL, or an existing folder: a database is a file, so a folder can only be a file store. */
static bool names_replica(const struct cli *c, const char *name)
{
    struct stat st;
    struct err ignored;
    if (config_is_url(name)) return true;
    if (opts_given(&c->opts, "config")) return false;
    return os_stat(name, &st, &ignored) == RC_OK && S_ISDIR(st.st_mode);
}

enum rc cli_open_replica(struct cli *c, const char *name, struct cli_replica *ret, struct err *err)
{
    CLEANUP(cli_close_replica) struct cli_replica r = {.name = name};
    r.by_url = names_replica(c, name);
    if (r.by_url) {
        if (opts_given(&c->opts, "config"))
            return err_set(err, RC_INVALID, "cannot specify a replica URL and the -config flag");
        TRY(config_replica_from_url(name, &r.own, err));
    } else {
        enum rc rc = cli_load_config(c, &r.cfg, err);
        if (rc == RC_NOT_FOUND && !opts_given(&c->opts, "config"))
            return err_wrap(err,
                            "'%s' is no URL and no folder, so it must be a database of the "
                            "configuration",
                            name);
        TRY(rc);
        if (config_find_db(r.cfg, name, &r.db, err) != RC_OK) {
            cli_hint(c, "sluice databases -config %s", r.cfg->file);
            return err->rc;
        }
    }
    TRY(config_replica_open(r.by_url ? &r.own : &r.db->replica, &r.store, err));
    *ret = r;
    ret->replica = r.by_url ? &ret->own : &r.db->replica;
    ret->log = (struct log){.store = r.store};
    r = (struct cli_replica){0}; /* it is the caller's now */
    return RC_OK;
}

void cli_close_replica(struct cli_replica *r)
{
    store_close(r->store);
    config_free(r->cfg);
    config_replica_fini(&r->own);
    *r = (struct cli_replica){0};
}

void table_fini(struct table *t)
{
    for (size_t i = 0; i < t->cell_count; i++)
        mem_free(t->cells[i]);
    mem_free(t->cells);
    *t = (struct table){0};
}

enum rc table_row(struct table *t, struct err *err, ...)
{
    enum rc rc = RC_OK;
    ASSERT(t->columns <= COLUMNS_MAX);
    if (t->cell_count + t->columns > t->cell_cap) {
        size_t cap = t->cell_cap == 0 ? 64 : t->cell_cap * 2;
        char **grown = mem_realloc(t->cells, cap * sizeof *grown);
        if (grown == NULL) return err_mem(err, "a table");
        t->cells = grown;
        t->cell_cap = cap;
    }
    va_list ap;
    va_start(ap, err);
    for (size_t i = 0; i < t->columns && rc == RC_OK; i++) {
        char *copy = mem_strdup(va_arg(ap, const char *));
        if (copy == NULL)
            rc = err_mem(err, "a table");
        else
            t->cells[t->cell_count++] = copy;
    }
    va_end(ap);
    return rc;
}

void table_print(const struct table *t, FILE *out)
{
    size_t width[COLUMNS_MAX] = {0};
    for (size_t i = 0; i < t->cell_count; i++) {
        size_t n = strlen(t->cells[i]);
        if (n > width[i % t->columns]) width[i % t->columns] = n;
    }
    for (size_t i = 0; i < t->cell_count; i++) {
        size_t column = i % t->columns;
        if (column + 1 == t->columns)
            fprintf(out, "%s\n", t->cells[i]);
        else
            fprintf(out, "%-*s  ", (int)width[column], t->cells[i]);
    }
}

enum rc cli_print_json(json_t *value, struct err *err)
{
    if (value == NULL)
        return err_set(err, RC_INVALID,
                       "cannot build the JSON output: out of memory, or a path is "
                       "not UTF-8; leave out -json");
    int failed = json_dumpf(value, stdout, JSON_INDENT(2));
    json_decref(value);
    if (failed) return err_set(err, RC_IO, "write JSON to standard output");
    fputc('\n', stdout);
    return RC_OK;
}

json_t *cli_file_json(const struct log_file *f, bool with_name)
{
    char name[LTX_NAME_SIZE], min[17], max[17], when[TIME_TEXT_SIZE];
    ltx_name_put(f->txid_min, f->txid_max, name);
    txid_put(f->txid_min, min);
    txid_put(f->txid_max, max);
    time_put(f->created_ms, false, when);
    json_int_t level = f->level, size = (json_int_t)f->size;
    if (with_name)
        return json_pack("{s:I, s:s, s:s, s:s, s:I, s:s}", "level", level, "name", name, "min_txid",
                         min, "max_txid", max, "size", size, "timestamp", when);
    return json_pack("{s:I, s:s, s:s, s:I, s:s}", "level", level, "min_txid", min, "max_txid", max,
                     "size", size, "timestamp", when);
}
