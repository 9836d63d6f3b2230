/*
 * tbed.h -- tenants with their pools in a folder of their own, and ways to look at them. Their
 * stores are wrapped by the spy of bed.h.
 */
#ifndef TESTS_NODE_TBED_H
#define TESTS_NODE_TBED_H
#include "node/bed.h"
#include "node/tenants.h"

struct tbed {
    char dir[64], data[80];
    struct tenants_opts opts; /* changed between tbed_new and tbed_start; dir is data */
    struct tenants *ts;
};
void tbed_new(struct tbed *b);
void tbed_start(struct tbed *b);
enum rc tbed_try_start(struct tbed *b, struct err *err);
enum rc tbed_stop(struct tbed *b, struct err *err);
void tbed_stop_ok(struct tbed *b);
/* As after a kill: without a flush, what is in memory is lost. */
void tbed_free(struct tbed *b);

struct tenant *tbed_open(struct tbed *b, const char *name);
/* Open, run, release. */
enum rc tbed_try_sql(struct tbed *b, const char *name, const char *sql, struct err *err);
void tbed_sql(struct tbed *b, const char *name, const char *sql);
int64_t tbed_int(struct tbed *b, const char *name, const char *sql);
enum rc tbed_try_int(struct tbed *b, const char *name, const char *sql, int64_t *ret_value,
                     struct err *err);
/* Until the store has all; its TXID. */
uint64_t tbed_stored(struct tbed *b, const char *name);
enum rc tbed_try_stored(struct tbed *b, const char *name, int64_t wait_ms, uint64_t *ret_txid,
                        struct err *err);
/* From the log of the embedded store. txid 0: the newest. -1: cannot be restored. */
int64_t tbed_log_int(struct tbed *b, const char *name, uint64_t txid, const char *sql);
bool tbed_exists(struct tbed *b, const char *path); /* below the data folder */
unsigned tbed_entries(struct tbed *b, const char *folder);
#endif
