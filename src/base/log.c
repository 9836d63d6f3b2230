/* log.c -- see log.h. */
#include "base/log.h"
#include "base/buf.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR"};
static enum log_level min_level = LOG_INFO;
static enum log_type line_type = LOG_TYPE_TEXT;
static int out_fd = STDOUT_FILENO;

static enum rc put_value(struct buf *b, const char *value, bool always_quote, struct err *err);
static enum rc put_pair(struct buf *b, const char *key, const char *value, struct err *err);

void log_setup(enum log_level level, enum log_type type, int fd)
{
    min_level = level;
    line_type = type;
    out_fd = fd;
}

bool log_enabled(enum log_level level)
{
    return level >= min_level;
}

enum rc log_level_parse(const char *name, enum log_level *ret_level, struct err *err)
{
    for (int i = LOG_TRACE; i <= LOG_ERROR; i++) {
        if (strcasecmp(name, level_names[i]) == 0) return *ret_level = (enum log_level)i, RC_OK;
    }
    if (strcasecmp(name, "warning") == 0) return *ret_level = LOG_WARN, RC_OK;
    return err_set(err, RC_INVALID, "unknown log level '%s': use trace, debug, info, warn or error",
                   name);
}

void log_write(enum log_level level, const char *msg, ...)
{
    if (level < min_level) return;
    char stack[1024], when[64];
    CLEANUP(buf_fini) struct buf b = BUF_ON(stack);
    struct err err;
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(when + n, sizeof when - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
    enum rc rc = line_type == LOG_TYPE_JSON ? buf_append(&b, "{", 1, &err) : RC_OK;
    if (rc == RC_OK) rc = put_pair(&b, "time", when, &err);
    if (rc == RC_OK) rc = put_pair(&b, "level", level_names[level], &err);
    if (rc == RC_OK) rc = put_pair(&b, "msg", msg, &err);
    va_list ap;
    va_start(ap, msg);
    const char *key;
    while (rc == RC_OK && (key = va_arg(ap, const char *)) != NULL) {
        const char *value = va_arg(ap, const char *);
        rc = put_pair(&b, key, value ? value : "", &err);
    }
    va_end(ap);
    if (rc == RC_OK) rc = buf_append(&b, line_type == LOG_TYPE_JSON ? "}\n" : "\n",
                                     line_type == LOG_TYPE_JSON ? 2 : 1, &err);
    /* Nobody is left to tell when the log itself cannot be written. */
    if (rc == RC_OK && write(out_fd, b.data, b.size) < 0) return;
}

static enum rc put_pair(struct buf *b, const char *key, const char *value, struct err *err)
{
    bool json = line_type == LOG_TYPE_JSON;
    if (b->size > 1) TRY(buf_append(b, json ? "," : " ", 1, err));
    TRY(buf_printf(b, err, json ? "\"%s\":" : "%s=", key));
    return put_value(b, value, json, err);
}

static enum rc put_value(struct buf *b, const char *value, bool always_quote, struct err *err)
{
    bool quote = always_quote || *value == '\0';
    for (const char *p = value; *p && !quote; p++)
        quote = (unsigned char)*p <= ' ' || *p == '"' || *p == '=' || *p == '\\' || *p == 127;
    if (!quote) return buf_append(b, value, strlen(value), err);
    TRY(buf_append(b, "\"", 1, err));
    for (const char *p = value; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\') TRY(buf_printf(b, err, "\\%c", c));
        else if (c == '\n') TRY(buf_append(b, "\\n", 2, err));
        else if (c < ' ' || c == 127) TRY(buf_printf(b, err, "\\u%04x", c));
        else TRY(buf_append(b, p, 1, err));
    }
    return buf_append(b, "\"", 1, err);
}
