/*
 * updates.h -- the messages of POST /pull-updates, protobuf by hand: how Turso's clients fetch
 * pages.
 *
 *   request    1 encoding (0 raw, 1 zstd)  2 server_revision  3 client_revision
 *              4 long_poll_timeout_ms  5 server_pages_selector  6 client_pages
 *              7 server_query_selector  8 stream_kind
 *   answer     messages, each behind its length (varint): one header {1 server_revision, 2 db_size,
 *              3 raw_encoding {}, 6 apply_mode (1: a whole database), 8 protocol (1: pages)}, then
 *              pages {1 page_id from 0, 2 encoded_page}
 *
 * A selector is a roaring bitmap of page ids, in its portable form. A revision is a text of ours
 * that the client keeps: a TXID and the tag of that transaction, "12.0f1e2d3c4b5a6978".
 *
 * Pure. Threads: any.
 */
#ifndef SERVER_UPDATES_H
#define SERVER_UPDATES_H
#include "base/buf.h"

struct updates_text {
    const char *data;
    size_t size;
};
struct updates_request { /* points into the body */
    uint64_t encoding, long_poll_ms, stream_kind;
    struct updates_text server_revision, client_revision, selector;
};
/* Unknown fields are skipped. Fails: RC_INVALID. */
MUST_CHECK enum rc updates_get(const void *body, size_t size, struct updates_request *ret,
                               struct err *err);

struct updates_revision {
    uint64_t txid, tag;
};
#define UPDATES_REVISION_MAX 40
void updates_revision_put(const struct updates_revision *r, char out[UPDATES_REVISION_MAX]);
bool updates_revision_get(struct updates_text text,
                          struct updates_revision *ret); /* false: not ours */

/* Append one message. Fails: RC_NO_MEM. */
MUST_CHECK enum rc updates_put_header(const char *revision, uint64_t page_count, bool whole,
                                      struct buf *out, struct err *err);
MUST_CHECK enum rc updates_put_page(uint64_t page_id, const void *page, size_t size,
                                    struct buf *out, struct err *err);

/* Set the bit of each page id below page_count that the selector names; bits: (page_count + 7) / 8
 * bytes. Fails: RC_INVALID no roaring bitmap. */
MUST_CHECK enum rc updates_select(struct updates_text selector, uint64_t page_count, uint8_t *bits,
                                  struct err *err);
#endif
