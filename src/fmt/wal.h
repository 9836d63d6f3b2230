/*
 * wal.h -- decode SQLite's write-ahead log and wal-index (https://sqlite.org/fileformat2.html#wal
 * and https://sqlite.org/walformat.html).
 *
 *   WAL:   header 32 B, then frames of 24 B + page size. A frame counts when its salts equal the
 *          header's, the cumulative checksum continues, and a commit frame follows at or after it.
 *   Torn tail: the first frame that fails ends the log; what follows belongs to nobody.
 *
 * Pure; threads: any.
 */
#ifndef FMT_WAL_H
#define FMT_WAL_H
#include "base/err.h"

#define WAL_HEADER_SIZE       32
#define WAL_FRAME_HEADER_SIZE 24
#define WAL_INDEX_HEADER_SIZE 136 /* two copies of 48, then checkpoint information */

struct wal_sum { /* the running checksum */
    uint32_t s1, s2;
};
struct wal_header {
    bool big_endian; /* byte order of the checksum words: magic 0x377f0683 */
    uint32_t page_size;
    uint32_t seq; /* checkpoint sequence number */
    uint32_t salt1, salt2;
    struct wal_sum sum; /* of the header: where the chain starts */
};
struct wal_frame {
    uint32_t pgno;
    uint32_t commit; /* database size in pages on a commit frame, else 0 */
    uint32_t salt1, salt2;
    struct wal_sum sum;
};

/* data: a multiple of 8 bytes. */
void wal_sum_add(struct wal_sum *sum, bool big_endian, const void *data, size_t size);
/* Fails: RC_CORRUPT magic, version, page size or checksum. */
MUST_CHECK enum rc wal_header_get(const uint8_t in[WAL_HEADER_SIZE], struct wal_header *ret_h,
                                  struct err *err);
void wal_frame_get(const uint8_t in[WAL_FRAME_HEADER_SIZE], struct wal_frame *ret_f);
/* Does this frame (header and page) continue the log after `chain`? On true chain moves on. */
bool wal_frame_check(const struct wal_header *h, struct wal_sum *chain, const uint8_t *frame,
                     struct wal_frame *ret_f);
/* File offset of frame number n (from 1). */
uint64_t wal_frame_off(uint32_t page_size, uint64_t n);

struct wal_index { /* one consistent reading of the wal-index header */
    bool valid;    /* initialised, both copies equal, checksum right */
    bool big_endian;
    uint32_t change; /* counts commits */
    uint32_t page_size;
    uint32_t frame_max;  /* valid committed frames */
    uint32_t page_count; /* database size in pages */
    struct wal_sum sum;  /* running checksum at frame_max */
    uint32_t salt1, salt2;
    uint32_t backfill; /* frames known to be in the database file */
    uint32_t read_mark[5];
};
/* in: the first WAL_INDEX_HEADER_SIZE bytes of the -shm, native byte order. Never fails: look at
 * valid. The caller copies shared memory first and repeats when !valid. */
void wal_index_get(const uint8_t in[WAL_INDEX_HEADER_SIZE], struct wal_index *ret_x);
#endif
