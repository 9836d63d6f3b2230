/*
 * replicate.h -- the daemon behind `sluice replicate`.
 */
#ifndef NODE_REPLICATE_H
#define NODE_REPLICATE_H
#include "node/config.h"

struct node_opts {
    const char *exec_cmd;    /* run while replicating; NULL: none */
    bool once;               /* capture and upload once, then return */
    bool force_snapshot;     /* with once: write a full snapshot, too */
    bool restore_if_missing; /* for all databases, whatever the configuration says */
};

/* Replicate all databases of cfg until a signal ends it, or once. Logs on its own; what it returns
 * is the reason why the job was not done.
 * Fails: RC_NOT_FOUND, RC_FENCED, RC_DENIED, RC_INVALID, store and local I/O errors. */
MUST_CHECK enum rc node_replicate(const struct config *cfg, const struct node_opts *opts,
                                  struct err *err);
#endif
