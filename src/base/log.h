/*
 * log.h -- the program's log: one line an event, "key=value" text or JSON, to stderr or stdout.
 *
 *   time=2026-01-02T03:04:05.678Z level=INFO msg="replicating to" db=app.db path=/backup/app
 *
 * Only `node` and `cli` write above debug level; libraries return errors instead. Values are
 * quoted where needed; secrets never get here. Threads: any; a line is written whole.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include "base/err.h"

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_type { LOG_TYPE_TEXT, LOG_TYPE_JSON };

/* Call before threads start; the default is INFO, text, stdout. */
void log_setup(enum log_level level, enum log_type type, int fd);
bool log_enabled(enum log_level level);
/* Fails: RC_INVALID. Names: trace debug info warn warning error, any case. */
MUST_CHECK enum rc log_level_parse(const char *name, enum log_level *ret_level, struct err *err);

/* kv: alternating key and value strings, ended by NULL. */
void log_write(enum log_level level, const char *msg, ...) __attribute__((sentinel));
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__, NULL)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__, NULL)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__, NULL)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__, NULL)
#endif
