/*
 * bed.h -- a database, an application that writes to it, and the stupidest possible oracle: the
 * bytes of the whole database, read through SQLite after each batch.
 */
#ifndef TESTS_DB_BED_H
#define TESTS_DB_BED_H
#include <sqlite3.h>
#include "db/capture.h"

#define BED_BATCHES_MAX 4096

struct image { /* a database as bytes, whole pages */
    uint8_t *data;
    size_t size;
};

struct bed {
    char dir[64], path[96], meta[112], log[96];
    bool relaxed; /* for bed_capture_open */
    sqlite3 *app;
    struct capture *cap;
    struct batch_scratch *scratch;
    struct capture_result last;
    struct image applied; /* what the staged batches give, one after another */
    uint64_t applied_txid;
};

void bed_new(struct bed *b, int page_size, const char *auto_vacuum);
void bed_free(struct bed *b);
void bed_app_open(struct bed *b);
void bed_app_close(struct bed *b);
void bed_sql(struct bed *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bed_rows(struct bed *b, int count, int size); /* in one transaction, random bytes */
void bed_capture_open(struct bed *b);
void bed_capture_close(struct bed *b);
/* Sync until the end of the WAL; each batch is applied to `applied`, and checked. */
void bed_sync(struct bed *b);
/* A new bed with these rows, captured. */
void bed_start(struct bed *b, int count, int size);
void bed_checkpoint(struct bed *b, bool force);
/* Apply batches that another process staged. */
void bed_catch_up(struct bed *b);
/* applied == the database as SQLite sees it, byte for byte; its digest == the state's. */
void bed_check(struct bed *b);
struct image bed_image(struct bed *b);
/* Rows in table t, for messages. */
long bed_count(struct bed *b);
#endif
