/*
 * sftp_pool.h -- the connections of one SFTP store: made when needed, at most SFTP_POOL_MAX of
 * them, each used by one call at a time.
 *
 * A thread that holds one and wants another (its sink or body uses the same store) gets one beyond
 * the limit, since who waits for himself waits for ever. Such a one is closed afterwards. Those
 * that were idle for SFTP_IDLE_MS are closed at the next call.
 *
 * Threads: any.
 */
#ifndef STORE_SFTP_POOL_H
#define STORE_SFTP_POOL_H
#include "store/sftp_wire.h"
#include "store/ssh_link.h"

#define SFTP_POOL_MAX     4
#define SFTP_IDLE_MS      60000
#define SFTP_POOL_WAIT_MS 60000 /* for one to become free */

struct sftp_pool;
struct sftp_link {
    struct sftp wire;
    bool reused;         /* it was idle before: its first failure says nothing about the server */
    bool rename_known;   /* is the plain RENAME, ... */
    bool rename_refuses; /* ... onto a file that exists, refused? */
    struct ssh_link *ssh;
    int64_t idle_ms; /* since when, by os_mono_ms */
    struct sftp_link *next;
};

/* Fails: RC_NO_MEM. conf is copied. */
MUST_CHECK enum rc sftp_pool_new(const struct ssh_conf *conf, struct sftp_pool **ret_pool,
                                 struct err *err);
void sftp_pool_free(struct sftp_pool *p); /* NULL is fine; none may be in use */
/* Fails: as ssh_link_open and sftp_start; RC_AGAIN all are in use for too long. */
MUST_CHECK enum rc sftp_pool_take(struct sftp_pool *p, const struct call *c,
                                  struct sftp_link **ret_link, struct err *err);
/* One that is broken is closed, and the idle ones with it: their server is most likely gone. */
void sftp_pool_give(struct sftp_pool *p, struct sftp_link *l);
#endif
