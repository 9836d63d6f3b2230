/*
 * sync_log.h -- a tenant's log as replicas read it: transaction by transaction, or, for libSQL's
 * clients, as frames of generations.
 *
 *   generation n     begins with a TXID, its base; its export is the database as of that
 *   its frames       1, 2, ...: the pages of the transactions base + 1, base + 2, ... one after the
 *                    other; the last page of each carries the size of the database, a commit
 *   its end          with a transaction, which is the base of generation n + 1
 *
 * What was told once stays so: a replica writes frame i to place i of its WAL. So the bases are
 * kept with the tenant (sync.json), from the first time that somebody asks. A generation ends when
 * its frames outgrow the database, and when a new replica comes that would have to read many.
 *
 * The first number is taken from the clock: replicas of a tenant that was deleted and made anew
 * know numbers that the new one never had, and are refused.
 *
 * Recent transactions stay in memory, at most SYNC_CACHE_MAX bytes a tenant.
 *
 * Threads: any. Calls block on the store.
 */
#ifndef SERVER_SYNC_LOG_H
#define SERVER_SYNC_LOG_H
#include "server/tenant.h"

#define SYNC_PAGE_SIZE  4096 /* libSQL's replicas know no other */
#define SYNC_FRAME_SIZE (24 + SYNC_PAGE_SIZE)
#define SYNC_FRAMES_MAX 1024 /* in one answer */
#define SYNC_CACHE_MAX  (4u << 20)

struct sync_log;
/* It belongs to the tenant. dir: a folder for large transactions while they are read in parts;
 * NULL: they are unpacked anew each time. Fails: RC_NO_MEM. */
MUST_CHECK enum rc sync_log_of(const struct tenants_ops *ops, struct tenants *ts, struct tenant *t,
                               const char *dir, struct sync_log **ret_l, struct err *err);
void sync_log_free(struct sync_log *l); /* NULL is fine; the tenant does it */

/* As tenants_ops.batch, from memory if it was asked for before. */
MUST_CHECK enum rc sync_log_batch(struct sync_log *l, const struct call *call, uint64_t txid,
                                  struct tenant_batch *ret, tenant_page_fn *fn, void *ctx,
                                  struct err *err);

/* The number of the newest generation. newest: the newest TXID in the store, at least 1. Makes the
 * first one. Fails: RC_INVALID the size of the pages; as tenants_ops.batch, keep, kept. */
MUST_CHECK enum rc sync_log_info(struct sync_log *l, const struct call *call, uint64_t newest,
                                 uint32_t *ret_number, struct err *err);
/* The TXID that a generation begins with. Fails: RC_CONFLICT no such generation, so whoever asks
 * follows another database; as sync_log_info. */
MUST_CHECK enum rc sync_log_base(struct sync_log *l, const struct call *call, uint32_t number,
                                 uint64_t *ret_txid, struct err *err);
struct sync_range {
    uint32_t number;   /* of the generation */
    uint64_t from, to; /* frames from 1; `to` is not in it */
};
/* Append what is there of that range, at most SYNC_FRAMES_MAX frames. newest 0: of what is known
 * already. Nothing appended: there is no more; *ret_number: the newest generation. *ret_final: a
 * later transaction would not change the answer. Fails: RC_CONFLICT no such generation, or not so
 * many frames; as sync_log_info. */
MUST_CHECK enum rc sync_log_frames(struct sync_log *l, const struct call *call, uint64_t newest,
                                   const struct sync_range *range, struct buf *out,
                                   uint32_t *ret_number, bool *ret_final, struct err *err);
#endif
