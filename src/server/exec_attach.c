/*
 * exec_attach.c -- ATTACH of another tenant, to read it beside one's own: ATTACH shop AS s.
 *
 * SQLite never sees a client's ATTACH. The text is taken apart here; the tenant must be one that
 * the client's token may attach, and both tenants' configurations must allow it. It stays open for
 * as long as the session lives. A client with roles may not attach: roles speak of tables of one
 * database.
 */
#include <string.h>
#include "server/exec_intern.h"
#include "sql/token.h"

static bool parse(const char *sql, size_t size, char name[AUTH_NAME_MAX + 1],
                  char alias[AUTH_NAME_MAX + 1]);
static bool unquote(const struct sql_token *t, char out[AUTH_NAME_MAX + 1]);
static enum rc attach(struct exec *x, const char *name, const char *alias,
                      struct sql_error *sql_err, struct err *err);
static enum rc refuse(struct sql_error *sql_err, struct err *err, const char *name);

bool exec_attach(struct exec *x, struct sql_error *sql_err, enum rc *ret_rc, struct err *err)
{
    char name[AUTH_NAME_MAX + 1], alias[AUTH_NAME_MAX + 1];
    if (!parse(x->sql, x->sql_size, name, alias)) return false;
    *ret_rc = attach(x, name, alias, sql_err, err);
    return true;
}

/* ATTACH [DATABASE] name AS alias [;] */
static bool parse(const char *sql, size_t size, char name[AUTH_NAME_MAX + 1],
                  char alias[AUTH_NAME_MAX + 1])
{
    const char *at = sql, *end = sql + size;
    struct sql_token t = sql_token_next(&at, end);
    if (!sql_token_is(&t, "ATTACH")) return false;
    t = sql_token_next(&at, end);
    if (sql_token_is(&t, "DATABASE")) t = sql_token_next(&at, end);
    if (!unquote(&t, name)) return false;
    t = sql_token_next(&at, end);
    if (!sql_token_is(&t, "AS")) return false;
    t = sql_token_next(&at, end);
    if (!unquote(&t, alias)) return false;
    t = sql_token_next(&at, end);
    if (t.type == SQL_TOKEN_OTHER && t.text[0] == ';') t = sql_token_next(&at, end);
    return t.type == SQL_TOKEN_END;
}

static bool unquote(const struct sql_token *t, char out[AUTH_NAME_MAX + 1])
{
    size_t quote = t->type == SQL_TOKEN_QUOTED ? 1 : 0;
    if (t->type != SQL_TOKEN_WORD && t->type != SQL_TOKEN_QUOTED) return false;
    if (t->size <= 2 * quote || t->size - 2 * quote > AUTH_NAME_MAX) return false;
    memcpy(out, t->text + quote, t->size - 2 * quote);
    out[t->size - 2 * quote] = '\0';
    return strpbrk(out, "\"'`[]") == NULL;
}

static enum rc attach(struct exec *x, const char *name, const char *alias,
                      struct sql_error *sql_err, struct err *err)
{
    struct session *ses = x->ses;
    struct tenant *other = NULL;
    const struct tenant_conf *conf = atomic_load(&ses->tenant->conf);
    bool allowed = conf->allow_attach && ses->stream.policy == NULL &&
                   grant_attach(ses->grant, name) &&
                   auth_check_name(name, strlen(name), false, err) == RC_OK;
    if (!allowed || x->env->ops->open(x->env->tenants, name, &other, err) != RC_OK)
        return refuse(sql_err, err, name);
    conf = atomic_load(&other->conf);
    enum rc rc = RC_OK;
    if (!conf->allow_attach || conf->block_reads) rc = refuse(sql_err, err, name);
    if (rc == RC_OK) rc = session_attach(ses, x->env->ops, x->env->tenants, other, err);
    if (rc != RC_OK) {
        x->env->ops->release(x->env->tenants, other);
        if (sql_err->code[0] == '\0') sql_error_own(sql_err, "BLOCKED", "%s", err->text);
        return rc;
    }
    const char *path = sql_engine_path(other->engine);
    return sql_stream_attach(&ses->stream, path, alias, sql_err, err);
}

/* The same for one that is not there: names are not told. */
static enum rc refuse(struct sql_error *sql_err, struct err *err, const char *name)
{
    sql_error_own(sql_err, "BLOCKED", "Operation was blocked: ATTACH of '%s' is not allowed", name);
    return err_set(err, RC_INVALID, "ATTACH of '%s' is not allowed", name);
}
