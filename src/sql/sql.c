/* sql.c -- failures in the words that clients of libSQL know; see sql.h. */
#include "sql/sql.h"
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct name {
    int code;
    const char *text;
};

static const char *base_name(int code);
static const char *extended_name(int code);
static bool is_syntax(const char *message);
static bool ends_with(const char *text, const char *end);

#define N(code)                                                                                    \
    {                                                                                              \
        SQLITE_##code, "SQLITE_" #code                                                             \
    }
static const struct name base_names[] = {
    N(INTERNAL), N(PERM),      N(ABORT),  N(BUSY),    N(LOCKED),     N(NOMEM),
    N(READONLY), N(INTERRUPT), N(IOERR),  N(CORRUPT), N(NOTFOUND),   N(FULL),
    N(CANTOPEN), N(PROTOCOL),  N(SCHEMA), N(TOOBIG),  N(CONSTRAINT), N(MISMATCH),
    N(MISUSE),   N(NOLFS),     N(AUTH),   N(RANGE),   N(NOTADB),
};
static const struct name extended_names[] = {
    N(ERROR_MISSING_COLLSEQ),
    N(ERROR_RETRY),
    N(ERROR_SNAPSHOT),
    N(ABORT_ROLLBACK),
    N(AUTH_USER),
    N(BUSY_RECOVERY),
    N(BUSY_SNAPSHOT),
    N(BUSY_TIMEOUT),
    N(CANTOPEN_NOTEMPDIR),
    N(CANTOPEN_ISDIR),
    N(CANTOPEN_FULLPATH),
    N(CANTOPEN_CONVPATH),
    N(CANTOPEN_SYMLINK),
    N(CONSTRAINT_CHECK),
    N(CONSTRAINT_COMMITHOOK),
    N(CONSTRAINT_DATATYPE),
    N(CONSTRAINT_FOREIGNKEY),
    N(CONSTRAINT_FUNCTION),
    N(CONSTRAINT_NOTNULL),
    N(CONSTRAINT_PINNED),
    N(CONSTRAINT_PRIMARYKEY),
    N(CONSTRAINT_ROWID),
    N(CONSTRAINT_TRIGGER),
    N(CONSTRAINT_UNIQUE),
    N(CONSTRAINT_VTAB),
    N(CORRUPT_VTAB),
    N(CORRUPT_SEQUENCE),
    N(CORRUPT_INDEX),
    N(IOERR_READ),
    N(IOERR_SHORT_READ),
    N(IOERR_WRITE),
    N(IOERR_FSYNC),
    N(IOERR_DIR_FSYNC),
    N(IOERR_TRUNCATE),
    N(IOERR_FSTAT),
    N(IOERR_UNLOCK),
    N(IOERR_RDLOCK),
    N(IOERR_DELETE),
    N(IOERR_NOMEM),
    N(IOERR_ACCESS),
    N(IOERR_CHECKRESERVEDLOCK),
    N(IOERR_LOCK),
    N(IOERR_CLOSE),
    N(IOERR_SHMOPEN),
    N(IOERR_SHMSIZE),
    N(IOERR_SHMLOCK),
    N(IOERR_SHMMAP),
    N(IOERR_SEEK),
    N(IOERR_DELETE_NOENT),
    N(IOERR_MMAP),
    N(IOERR_GETTEMPPATH),
    N(IOERR_VNODE),
    N(IOERR_AUTH),
    N(IOERR_CORRUPTFS),
    N(LOCKED_SHAREDCACHE),
    N(LOCKED_VTAB),
    N(READONLY_RECOVERY),
    N(READONLY_CANTLOCK),
    N(READONLY_ROLLBACK),
    N(READONLY_DBMOVED),
    N(READONLY_CANTINIT),
    N(READONLY_DIRECTORY),
};
#undef N

void sql_error_set(struct sql_error *e, int sqlite_code, int offset, const char *message)
{
    int base = sqlite_code & 0xff;
    const char *code = base_name(base), *front = "SQLite error: ";
    if (base == SQLITE_ERROR && is_syntax(message)) {
        code = "SQL_PARSE_ERROR";
        front = "SQL string could not be parsed: ";
    } else if (base == SQLITE_ERROR && offset >= 0) {
        code = "SQL_INPUT_ERROR";
        front = "SQL input error: ";
    }
    snprintf(e->code, sizeof e->code, "%s", code);
    snprintf(e->extended, sizeof e->extended, "%s", extended_name(sqlite_code));
    e->offset = offset >= 0 ? offset : -1;
    /* A text may hold a name as long as the client liked; the offset shall survive the cut. */
    char tail[40] = "";
    if (base == SQLITE_ERROR && offset >= 0) snprintf(tail, sizeof tail, " (at offset %d)", offset);
    int room = (int)(sizeof e->message - strlen(front) - strlen(tail)) - 1;
    snprintf(e->message, sizeof e->message, "%s%.*s%s", front, room, message, tail);
}

void sql_error_foreign_key(struct sql_error *e)
{
    sql_error_set(e, SQLITE_CONSTRAINT_FOREIGNKEY, -1, "FOREIGN KEY constraint failed");
}

void sql_error_own(struct sql_error *e, const char *code, const char *fmt, ...)
{
    va_list ap;
    snprintf(e->code, sizeof e->code, "%s", code);
    e->extended[0] = '\0';
    e->offset = -1;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
}

static const char *base_name(int code)
{
    for (size_t i = 0; i < sizeof base_names / sizeof base_names[0]; i++)
        if (base_names[i].code == code) return base_names[i].text;
    return "SQLITE_UNKNOWN";
}

static const char *extended_name(int code)
{
    if (code <= 0xff) return "";
    for (size_t i = 0; i < sizeof extended_names / sizeof extended_names[0]; i++)
        if (extended_names[i].code == code) return extended_names[i].text;
    return "";
}

/* SQLite has one code for what its parser refuses and for names that do not exist. */
static bool is_syntax(const char *message)
{
    return ends_with(message, ": syntax error") || strcmp(message, "incomplete input") == 0 ||
           strncmp(message, "unrecognized token", 18) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && memcmp(text + size - end_size, end, end_size) == 0;
}
