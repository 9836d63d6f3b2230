/*
 * spool.h -- a body of unknown size, kept in a file without a name until its size is known.
 * Threads: a struct spool has one owner; the body that it gives may be read by several.
 */
#ifndef STORE_SPOOL_H
#define STORE_SPOOL_H
#include "store/store.h"

struct spool {
    int fd;
};
#define SPOOL_INIT ((struct spool){.fd = -1})

/* Read all of body into a file in $TMPDIR (or /var/tmp, /tmp) and make ret_body one of known size
 * over it, valid until spool_fini. Fails: the body's rc; RC_CANCELED; RC_NO_SPACE; by errno. */
MUST_CHECK enum rc spool_fill(struct spool *sp, const struct call *c, const struct store_body *body,
                              struct store_body *ret_body, struct err *err);
void spool_fini(struct spool *sp); /* for CLEANUP */
#endif
