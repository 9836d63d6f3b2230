/* conn_bind.c -- arguments into a statement, rows out of it, SQLite's failures into ours. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "sql/conn_intern.h"

static enum rc bind_positional(struct sql_conn *c, sqlite3_stmt *stmt, const struct call *call,
                               const struct sql_arg *args, size_t count, struct sql_error *sql_err,
                               struct err *err);
static enum rc bind_named(struct sql_conn *c, sqlite3_stmt *stmt, const struct call *call,
                          const struct sql_arg *args, size_t count, struct sql_error *sql_err,
                          struct err *err);
static enum rc check_names(sqlite3_stmt *stmt, const struct call *call, const struct sql_arg *args,
                           size_t count, struct sql_error *sql_err, struct err *err);
static enum rc bind_value(struct sql_conn *c, sqlite3_stmt *stmt, int i, const struct sql_value *v,
                          struct sql_error *sql_err, struct err *err);
static bool same_name(const char *param, const char *arg);
static enum rc args_invalid(struct sql_error *sql_err, struct err *err, const char *fmt, ...)
    FMT(3, 4);
static enum rc code_rc(int code, int sys);
static bool may_not_be(const char *message);

enum rc conn_bind(struct sql_conn *c, sqlite3_stmt *stmt, const struct call *call,
                  const struct sql_arg *args, size_t count, struct sql_error *sql_err,
                  struct err *err)
{
    size_t named = 0;
    for (size_t i = 0; i < count; i++)
        named += args[i].name != NULL;
    if (named != 0 && named != count)
        return conn_fail_own(sql_err, err, RC_INVALID, "ARGS_BOTH_POSITIONAL_AND_NAMED",
                             "Specifying both positional and named arguments is not supported");
    return named != 0 ? bind_named(c, stmt, call, args, count, sql_err, err)
                      : bind_positional(c, stmt, call, args, count, sql_err, err);
}

enum rc conn_room(struct sql_conn *c, size_t cols, struct err *err)
{
    if (cols <= c->value_cap) return RC_OK;
    struct sql_value *values = mem_realloc(c->values, cols * sizeof *values);
    if (values == NULL) return err_mem(err, "a row");
    c->values = values;
    struct sql_col *names = mem_realloc(c->cols, cols * sizeof *names);
    if (names == NULL) return err_mem(err, "the columns of a result");
    c->cols = names;
    c->value_cap = cols;
    return RC_OK;
}

void conn_cols(struct sql_conn *c, sqlite3_stmt *stmt, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = sqlite3_column_name(stmt, (int)i);
        c->cols[i] = (struct sql_col){.name = name != NULL ? name : "",
                                      .decltype = sqlite3_column_decltype(stmt, (int)i)};
    }
}

uint64_t conn_row(struct sql_conn *c, sqlite3_stmt *stmt, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        int at = (int)i;
        struct sql_value *v = &c->values[i];
        *v = (struct sql_value){.type = SQL_NULL};
        switch (sqlite3_column_type(stmt, at)) {
        case SQLITE_INTEGER:
            v->type = SQL_INTEGER;
            v->integer = sqlite3_column_int64(stmt, at);
            break;
        case SQLITE_FLOAT:
            v->type = SQL_FLOAT;
            v->real = sqlite3_column_double(stmt, at);
            break;
        case SQLITE_TEXT:
            v->type = SQL_TEXT;
            /* As a blob it needs no copy to get a NUL byte at its end. */
            v->data = c->utf8 ? sqlite3_column_blob(stmt, at)
                              : (const void *)sqlite3_column_text(stmt, at);
            break;
        case SQLITE_BLOB:
            v->type = SQL_BLOB;
            v->data = sqlite3_column_blob(stmt, at);
            break;
        default:
            break;
        }
        if (v->type == SQL_TEXT || v->type == SQL_BLOB) {
            v->size = (size_t)sqlite3_column_bytes(stmt, at);
            if (v->data == NULL) v->data = "", v->size = 0;
        }
        bytes += v->size + 8;
    }
    return bytes;
}

enum rc conn_fail(struct sql_conn *c, int code, int offset, struct sql_error *sql_err,
                  struct err *err)
{
    int base = code & 0xff, sys = sqlite3_system_errno(c->db);
    const char *text = sqlite3_errmsg(c->db);
    if (base == SQLITE_MISUSE || base == SQLITE_OK) text = sqlite3_errstr(code);
    if (c->guard.denied && (base == SQLITE_ERROR || base == SQLITE_AUTH)) {
        sql_error_set(sql_err, SQLITE_AUTH, -1, "not authorized");
        size_t used = strlen(sql_err->message);
        snprintf(sql_err->message + used, sizeof sql_err->message - used, " (%s)", c->guard.why);
        return err_set(err, RC_INVALID, "not authorized: %s", c->guard.why);
    }
    if (base == SQLITE_ERROR && may_not_be(text)) {
        sql_error_set(sql_err, SQLITE_AUTH, offset, text);
        return err_set(err, RC_INVALID, "%s", text);
    }
    sql_error_set(sql_err, code, offset, text);
    enum rc rc = code_rc(code, sys);
    if (rc == RC_INVALID || sys == 0)
        err_set(err, rc, "%s", text);
    else
        err_set(err, rc, "%s (SQLite %d, %s)", text, code, strerror(sys));
    err->sys = code;
    return rc;
}

enum rc conn_fail_own(struct sql_error *sql_err, struct err *err, enum rc rc, const char *code,
                      const char *text)
{
    sql_error_own(sql_err, code, "%s", text);
    return err_set(err, rc, "%s", text);
}

static enum rc bind_positional(struct sql_conn *c, sqlite3_stmt *stmt, const struct call *call,
                               const struct sql_arg *args, size_t count, struct sql_error *sql_err,
                               struct err *err)
{
    size_t want = (size_t)sqlite3_bind_parameter_count(stmt);
    (void)call;
    if (count < want)
        return args_invalid(sql_err, err, "value for parameter %zu not found", count + 1);
    if (count > want)
        return args_invalid(sql_err, err, "too many parameters, expected %zu found %zu", want,
                            count);
    for (size_t i = 0; i < count; i++)
        TRY(bind_value(c, stmt, (int)i + 1, &args[i].value, sql_err, err));
    return RC_OK;
}

/* Arguments usually come in the statement's order, so each search begins behind the last find. The
 * worst order costs the square, which the deadline bounds. */
static enum rc bind_named(struct sql_conn *c, sqlite3_stmt *stmt, const struct call *call,
                          const struct sql_arg *args, size_t count, struct sql_error *sql_err,
                          struct err *err)
{
    int want = sqlite3_bind_parameter_count(stmt);
    size_t at = 0;
    for (int i = 1; i <= want; i++) {
        const char *name = sqlite3_bind_parameter_name(stmt, i);
        if (name == NULL) return args_invalid(sql_err, err, "value for parameter %d not found", i);
        size_t tries = 0;
        /* More than there are parameters: one comes twice, and the last counts. */
        if (count > (size_t)want)
            for (at = count - 1; at > 0 && !same_name(name, args[at].name);)
                at--;
        while (tries < count && !same_name(name, args[at].name))
            at = (at + 1) % count, tries++;
        if (tries == count)
            return args_invalid(sql_err, err, "value for parameter %s not found", name);
        TRY(bind_value(c, stmt, i, &args[at].value, sql_err, err));
        at = (at + 1) % count;
        if (tries > 64 && call_check(call, err) != RC_OK)
            return conn_fail_own(sql_err, err, RC_CANCELED, "SQLITE_INTERRUPT",
                                 "SQLite error: interrupted");
    }
    return check_names(stmt, call, args, count, sql_err, err);
}

static enum rc check_names(sqlite3_stmt *stmt, const struct call *call, const struct sql_arg *args,
                           size_t count, struct sql_error *sql_err, struct err *err)
{
    int want = sqlite3_bind_parameter_count(stmt), at = 1;
    for (size_t j = 0; j < count; j++) {
        int tries = 0;
        while (tries < want && !same_name(sqlite3_bind_parameter_name(stmt, at), args[j].name))
            at = at % want + 1, tries++;
        if (tries == want)
            return args_invalid(sql_err, err, "parameter '%.64s' not found", args[j].name);
        if (tries > 64 && call_check(call, err) != RC_OK)
            return conn_fail_own(sql_err, err, RC_CANCELED, "SQLITE_INTERRUPT",
                                 "SQLite error: interrupted");
    }
    return RC_OK;
}

/* The memory of a value outlives the run, and the bindings are cleared after it. */
static enum rc bind_value(struct sql_conn *c, sqlite3_stmt *stmt, int i, const struct sql_value *v,
                          struct sql_error *sql_err, struct err *err)
{
    int code = SQLITE_OK;
    const void *data = v->size > 0 ? v->data : "";
    switch (v->type) {
    case SQL_NULL:
        code = sqlite3_bind_null(stmt, i);
        break;
    case SQL_INTEGER:
        code = sqlite3_bind_int64(stmt, i, v->integer);
        break;
    case SQL_FLOAT:
        code = sqlite3_bind_double(stmt, i, v->real);
        break;
    case SQL_TEXT:
        code = sqlite3_bind_text64(stmt, i, data, v->size, SQLITE_STATIC, SQLITE_UTF8);
        break;
    case SQL_BLOB:
        code = sqlite3_bind_blob64(stmt, i, data, v->size, SQLITE_STATIC);
        break;
    }
    return code == SQLITE_OK ? RC_OK : conn_fail(c, code, -1, sql_err, err);
}

static bool same_name(const char *param, const char *arg)
{
    if (param == NULL) return false;
    return strcmp(param, arg) == 0 || strcmp(param + 1, arg) == 0;
}

static enum rc args_invalid(struct sql_error *sql_err, struct err *err, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sql_error_own(sql_err, "ARGS_INVALID", "Arguments do not match SQL parameters: %s", text);
    return err_set(err, RC_INVALID, "arguments do not match SQL parameters: %s", text);
}

static enum rc code_rc(int code, int sys)
{
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_SCHEMA:
        return RC_BUSY;
    case SQLITE_INTERRUPT:
        return RC_CANCELED;
    case SQLITE_NOMEM:
        return RC_NO_MEM;
    case SQLITE_FULL:
        return RC_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return RC_CORRUPT;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_NOMEM) return RC_NO_MEM;
        return sys == ENOSPC || sys == EDQUOT ? RC_NO_SPACE : RC_IO;
    case SQLITE_CANTOPEN:
        return sys == ENOENT ? RC_NOT_FOUND : RC_IO;
    case SQLITE_PERM:
        return RC_DENIED;
    case SQLITE_MISUSE:
    case SQLITE_INTERNAL:
        return RC_IO;
    default:
        return RC_INVALID;
    }
}

/* "table sqlite_master may not be modified", "... dropped": SQLite has no code of its own for it.
 */
static bool may_not_be(const char *message)
{
    if (strncmp(message, "unsafe use of ", 14) == 0) return true; /* inside of a view or trigger */
    return (strncmp(message, "table ", 6) == 0 || strncmp(message, "view ", 5) == 0) &&
           strstr(message, " may not be ") != NULL;
}
