/* err.c -- error texts and codes; see err.h. */
#include "base/err.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool retry;
    int http, exit;
    const char *meaning;
} rc_table[] = {
#define X(name, retry, http, exit, meaning) {#name, retry, http, exit, meaning},
    RC_MAP(X)
#undef X
};

static void mark_cut(char *text, size_t wanted);
static enum rc rc_of_errno(int sys);

void assert_fail(const char *cond, const char *file, int line)
{
    fprintf(stderr, "sluice: bug: assertion failed: %s (%s:%d)\n", cond, file, line);
    abort();
}

enum rc err_set(struct err *err, enum rc rc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    mark_cut(err->text, (size_t)(n < 0 ? 0 : n));
    err->rc = rc;
    err->sys = 0;
    return rc;
}

enum rc err_sys(struct err *err, int sys, const char *fmt, ...)
{
    char reason[128];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n;
    if (used >= sizeof err->text) used = sizeof err->text - 1;
    const char *text = strerror_r(sys, reason, sizeof reason);
    int m = snprintf(err->text + used, sizeof err->text - used, ": %s", text);
    mark_cut(err->text, used + (size_t)(m < 0 ? 0 : m));
    err->rc = rc_of_errno(sys);
    err->sys = sys;
    return err->rc;
}

enum rc err_wrap(struct err *err, const char *fmt, ...)
{
    char front[ERR_TEXT_MAX], whole[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(front, sizeof front, fmt, ap);
    va_end(ap);
    int n = snprintf(whole, sizeof whole, "%.*s: %s", (int)(sizeof front - 1), front, err->text);
    mark_cut(whole, (size_t)(n < 0 ? 0 : n));
    memcpy(err->text, whole, sizeof whole);
    return err->rc;
}

void err_clear(struct err *err)
{
    *err = (struct err){0};
}

const char *rc_name(enum rc rc)
{
    return rc_table[rc].name;
}

const char *rc_meaning(enum rc rc)
{
    return rc_table[rc].meaning;
}

bool rc_retryable(enum rc rc)
{
    return rc_table[rc].retry;
}

int rc_exit(enum rc rc)
{
    return rc_table[rc].exit;
}

unsigned rc_http(enum rc rc)
{
    return (unsigned)rc_table[rc].http;
}

static void mark_cut(char *text, size_t wanted)
{
    if (wanted >= ERR_TEXT_MAX) memcpy(text + ERR_TEXT_MAX - 4, "...", 4);
}

static enum rc rc_of_errno(int sys)
{
    switch (sys) {
    case ENOENT: return RC_NOT_FOUND;
    case EEXIST: return RC_CONFLICT;
    case EACCES:
    case EPERM:
    case EROFS: return RC_DENIED;
    case ENOSPC:
    case EDQUOT: return RC_NO_SPACE;
    case ENOMEM: return RC_NO_MEM;
    case EINVAL:
    case EISDIR:
    case ENOTDIR:
    case ENAMETOOLONG: return RC_INVALID;
    case EAGAIN:
    case EBUSY: return RC_BUSY;
    default: return RC_IO;
    }
}
