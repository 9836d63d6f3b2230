/*
 * engine_intern.h -- what engine.c does for streams; not for callers.
 *
 * A stream's connection may be interrupted by any thread while its owner gives it away, so the
 * pointer to it changes under the engine's lock. Threads: any.
 */
#ifndef SQL_ENGINE_INTERN_H
#define SQL_ENGINE_INTERN_H
#include "sql/engine.h"

/* *place = conn, which may be NULL. */
void engine_place(struct sql_engine *e, struct sql_conn **place, struct sql_conn *conn);
void engine_interrupt(struct sql_engine *e, struct sql_conn *const *place);
/* Nothing of a client's is set there. */
bool engine_is_plain(const struct sql_engine *e, struct sql_conn *conn);
#endif
