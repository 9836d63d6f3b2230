/* functions.h -- the SQL functions of the model: content from (seed, seq), hashes, the log. */
#ifndef HARNESS_FUNCTIONS_H
#define HARNESS_FUNCTIONS_H
#include <sqlite3.h>
#include <stdint.h>

/*
 * word(seq, slot)            a short text
 * content(seq, slot, size)   a blob; every third slot is incompressible
 * hash_row(...)              64-bit hash of its arguments; hash_add and hash_sub combine them
 * hash_sum(h)                aggregate of hash_add
 * schema_hash()              hash of the schema, without tables that start with an underscore
 * note(seq, hash, schema)    append "C seq hash schema" to log_fd, remember seq in *noted
 *
 * Dies on failure. noted may be NULL when note() is not used.
 */
void functions_add(sqlite3 *db, uint64_t seed, int log_fd, int64_t *noted);
/* Hash over all rows of all tables of the model, as this connection sees them now. */
uint64_t functions_hash_rows(sqlite3 *db);
uint64_t functions_hash_schema(sqlite3 *db);
#endif
