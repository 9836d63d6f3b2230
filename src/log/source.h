/*
 * source.h -- one file of a log while its pages are read by way of its index.
 *
 * Opening takes the header and the tail, which says where the index is. Whoever then walks the
 * index reports each entry, and all bytes behind the frames, so that places are checked and, when
 * the file is read whole, its checksum as well.
 *
 * Only restore_pages.c and merge.c include this file. Threads: one owner at a time.
 */
#ifndef LOG_SOURCE_H
#define LOG_SOURCE_H
#include "fmt/ltx.h"
#include "log/layout.h"

#define LOG_SOURCE_TAIL     (8 + LTX_TRAILER_SIZE) /* index size, trailer */
#define LOG_SOURCE_END_MARK 6                      /* zeros between frames and index */

struct log_source {
    const struct log_file *file; /* borrowed */
    char key[STORE_KEY_MAX + 1];
    struct ltx_header header;
    uint8_t head[LTX_HEADER_SIZE], tail[LOG_SOURCE_TAIL];
    uint8_t *whole; /* all of it, in memory of the caller's; NULL when it is read in ranges */
    uint64_t index_off, index_size;
    uint64_t frames_end; /* of those reported so far */
    /* checksum of the whole file, when it is wanted: */
    uint64_t sum;                 /* of header and frames so far */
    uint64_t rest_sum, rest_size; /* of what follows the frames */
};

/* Fill in s->key, for messages too. */
void log_source_name(const struct log *lg, struct log_source *s);
/* s has file, key and whole: read all of it, or head and tail, and understand them.
 * Fails: as store_get (RC_NOT_FOUND it is gone); RC_CORRUPT, naming the file. */
MUST_CHECK enum rc log_source_open(const struct log *lg, const struct call *c, struct log_source *s,
                                   struct err *err);
struct ltx_index_reader log_source_reader(const struct log_source *s);
/* The next entry of the index. dense: the frames must follow one another without holes, as they do
 * in a file whose checksum is wanted. Fails: RC_CORRUPT its size, place or page. */
MUST_CHECK enum rc log_source_entry(struct log_source *s, const struct ltx_index_entry *e,
                                    bool dense, struct err *err);
/* The next bytes behind the frames: end mark, index, and then what log_source_end takes itself.
 * Fails: RC_CORRUPT no end mark. */
MUST_CHECK enum rc log_source_rest(struct log_source *s, const uint8_t *data, size_t size, bool sum,
                                   struct err *err);
/* The index has been walked: it must have ended, `left` bytes before its place did.
 * Fails: RC_CORRUPT. */
MUST_CHECK enum rc log_source_end(struct log_source *s, const struct ltx_index_reader *r,
                                  uint64_t left, bool sum, struct err *err);
/* All was reported, and s->sum holds the frames: is it the file that was written?
 * Fails: RC_CORRUPT. */
MUST_CHECK enum rc log_source_check_sum(const struct log_source *s, struct err *err);
#endif
