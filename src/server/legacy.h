/*
 * legacy.h -- bodies of the statements API of libSQL's first days, POST /:
 *
 *   {"statements": ["SQL" | {"q": "SQL", "params": [VALUE, ...] | {"name": VALUE, ...}}, ...]}
 *   [{"results": {"columns": [...], "rows": [[VALUE, ...], ...], ...}} | {"error": "..."} | null,
 *    ...]
 *
 * A VALUE is a scalar of JSON, or {"base64": "..."}. All statements are one transaction: when one
 * fails, nothing stays, and those behind it are null. So the request becomes a batch of Hrana
 * (BEGIN, the statements, COMMIT or ROLLBACK), and its answer becomes the old one: text for text,
 * without a tree.
 *
 * Pure.
 */
#ifndef SERVER_LEGACY_H
#define SERVER_LEGACY_H
#include "server/hrana.h"

#define LEGACY_DEPTH_MAX 32

/* *ret: the batch, in the arena. *ret_count: of statements. Fails: RC_INVALID what is wrong, also
 * with statements that begin or end transactions; RC_TOO_BIG; RC_NO_MEM. */
MUST_CHECK enum rc legacy_get(struct arena *a, const void *data, size_t size,
                              struct hrana_request *ret, size_t *ret_count, struct err *err);
/* answer: of a pipeline with that request, in JSON. *ret_whole false: nothing was run at all, and
 * out has {"error": ...}. Fails: RC_NO_MEM; RC_INVALID answer makes no sense. */
MUST_CHECK enum rc legacy_put(struct arena *a, const struct buf *answer, size_t count,
                              struct buf *out, bool *ret_whole, struct err *err);
#endif
