/*
 * ltx.h -- encode and decode LTX, the file that carries a run of transactions as whole pages.
 *
 *   +--------+ +------------------+     +--------+ +---------+ +---------+
 *   | header | | page frame       | ... | 0 (6B) | | index   | | trailer |   docs/formats/ltx.md
 *   | 100 B  | | 6 [+4] + payload |     | = end  | | + u64   | |  16 B   |   is normative
 *   +--------+ +------------------+     +--------+ +---------+ +---------+
 *
 * Integers are big-endian, frames ascend by page number. A frame's flags say how its page is
 * packed: 0 = one LZ4 frame with content checksum (every Litestream 0.5 reads it), 1 = u32 size and
 * a raw LZ4 block (0.5.16 and later). Both may stand in one file. Checksums: CRC-64/ISO | 1<<63
 * over the uncompressed content.
 *
 * Bytes in, bytes out: nothing here opens, waits, locks or logs. Threads: one owner at a time.
 */
#ifndef FMT_LTX_H
#define FMT_LTX_H
#include "base/buf.h"
#include "base/err.h"
#include "fmt/digest.h"

#define LTX_HEADER_SIZE      100
#define LTX_TRAILER_SIZE     16
#define LTX_FLAG_NO_CHECKSUM (1u << 1)
#define LTX_PAGE_SIZE_MIN    512
#define LTX_PAGE_SIZE_MAX    65536
#define LTX_SUM_FLAG         (1ull << 63)
#define LTX_WAL_OFF_MIN      32

enum ltx_encoding { LTX_ENC_FRAME, LTX_ENC_BLOCK };

struct ltx_header {
    uint32_t flags;
    uint32_t page_size;  /* bytes; power of two, 512..65536 */
    uint32_t page_count; /* database size in pages after applying; "commit" in the format */
    uint64_t txid_min;   /* 1 makes the file a snapshot: every page but the lock page */
    uint64_t txid_max;
    int64_t timestamp_ms;
    uint64_t pre_sum; /* 0 with NO_CHECKSUM */
    int64_t wal_off, wal_size;
    uint32_t wal_salt1, wal_salt2;
    uint64_t node_id;
    bool has_digest; /* reserved bytes hold "SLD1" and the digest of the database after applying */
    struct digest digest;
};

/* The page that SQLite never uses: it holds the lock bytes at 1 GiB. */
uint32_t ltx_lock_page(uint32_t page_size);
bool ltx_page_size_ok(uint32_t page_size);
/* LTX page checksum: flag | CRC(page number big-endian, page). */
uint64_t ltx_page_sum(uint32_t pgno, const void *page, uint32_t page_size);

/* Both sides call it. Fails: RC_INVALID, naming the field. */
MUST_CHECK enum rc ltx_header_check(const struct ltx_header *h, struct err *err);
void ltx_header_put(const struct ltx_header *h, uint8_t out[LTX_HEADER_SIZE]);
/* Fails: RC_CORRUPT bad magic, flags or fields. */
MUST_CHECK enum rc ltx_header_get(const uint8_t in[LTX_HEADER_SIZE], struct ltx_header *ret_h,
                                  struct err *err);

/*
 * Encoder: init, page*, finish. Frames and index grow in two buffers, which the caller may drain
 * between calls (a huge file's index then waits in a side file). The header comes last, because it
 * carries the digest; write it at offset 0. The file is: header, frames, index, trailer.
 */
struct ltx_encoder;
/* Fails: RC_INVALID page size; RC_NO_MEM. */
MUST_CHECK enum rc ltx_encoder_new(uint32_t page_size, enum ltx_encoding encoding,
                                   struct ltx_encoder **ret_enc, struct err *err);
void ltx_encoder_reset(struct ltx_encoder *enc); /* ready for another file of that page size */
void ltx_encoder_free(struct ltx_encoder *enc);  /* NULL is fine; unfinished is fine */
/* Append one page. Ascending pgno, never 0, never the lock page. `frames` and `index` must have
 * been empty or only drained since the start. Allocates only when a buffer must grow.
 * Fails: RC_INVALID order; RC_NO_MEM. */
MUST_CHECK enum rc ltx_encoder_page(struct ltx_encoder *enc, uint32_t pgno, const void *page,
                                    struct buf *frames, struct buf *index, struct err *err);
/* Take over a frame of another file as it is, in the place of a page: frame[0..size), of which
 * ltx_unpack made `sum` from a crc of 0. The frame itself is the caller's to write, at the end of
 * the frames so far. Fails: RC_INVALID order; RC_NO_MEM. */
MUST_CHECK enum rc ltx_encoder_frame(struct ltx_encoder *enc, const uint8_t *frame, size_t size,
                                     uint64_t sum, struct buf *index, struct err *err);
/* Append the end mark to frames and the tail to index; fill header and trailer bytes. h must carry
 * LTX_FLAG_NO_CHECKSUM: a file that Litestream can compact has no other form.
 * Fails: RC_INVALID header, a snapshot that misses pages, a page above page_count; RC_NO_MEM. */
MUST_CHECK enum rc ltx_encoder_finish(struct ltx_encoder *enc, const struct ltx_header *h,
                                      struct buf *frames, struct buf *index,
                                      uint8_t ret_header[LTX_HEADER_SIZE],
                                      uint8_t ret_trailer[LTX_TRAILER_SIZE], struct err *err);

/* ---- Page index: where each page frame stands. ---- */
struct ltx_index_entry {
    uint32_t pgno;
    uint64_t off;  /* of the 6-byte page header, from the start of the file */
    uint64_t size; /* header, [size], payload */
};
/* From a file's last 24 bytes (u64 index size, trailer) and its size: where the varint area is.
 * ret_size excludes the u64. Fails: RC_CORRUPT. */
MUST_CHECK enum rc ltx_index_locate(const uint8_t tail[8 + LTX_TRAILER_SIZE], uint64_t file_size,
                                    uint64_t *ret_off, uint64_t *ret_size, struct err *err);
/* Pull parser over the varint area; it may be fed in pieces. Zero-initialise, then set the limits
 * that are known: frames_end is 6 bytes (the end mark) before what ltx_index_locate found. */
struct ltx_index_reader {
    uint64_t frames_end; /* entries must lie in [100, frames_end); 0: unchecked */
    uint32_t page_count; /* and name pages up to this one; 0: unchecked */
    uint32_t last_pgno;
    uint64_t last_end;
    bool done; /* the terminating 0 was read */
};
/* Take one entry from in[0..*size); *size becomes the bytes taken. ret_more false: feed more bytes,
 * nothing was taken. After the end mark r->done is set and ret_more is false.
 * Fails: RC_CORRUPT order, overlap, range or varint. */
MUST_CHECK enum rc ltx_index_next(struct ltx_index_reader *r, const uint8_t *in, size_t *size,
                                  struct ltx_index_entry *ret_e, bool *ret_more, struct err *err);

/* ---- Page frames from memory, for random access. ---- */
/* The most bytes that a valid page frame has, header included. An index entry that claims more is
 * corrupt: check before making room for it. */
uint64_t ltx_frame_size_max(uint32_t page_size);
struct ltx_unpacker;
MUST_CHECK enum rc ltx_unpacker_new(uint32_t page_size, struct ltx_unpacker **ret_u,
                                    struct err *err);
void ltx_unpacker_free(struct ltx_unpacker *u);
/* Decode the frame at in[0..size), exactly one whole frame, into page[page_size]. crc (may be
 * NULL): updated with the bytes that the file checksum covers. Fails: RC_CORRUPT. */
MUST_CHECK enum rc ltx_unpack(struct ltx_unpacker *u, const uint8_t *in, size_t size,
                              uint32_t *ret_pgno, uint8_t *page, uint64_t *crc, struct err *err);

/* ---- Streaming decoder: feed bytes, take events; verifies everything. ---- */
enum ltx_event_kind { LTX_EV_MORE, LTX_EV_HEADER, LTX_EV_PAGE, LTX_EV_END };
struct ltx_event {
    enum ltx_event_kind kind;
    union {
        struct ltx_header header; /* HEADER: already checked */
        struct {
            uint32_t pgno;
            const uint8_t *data; /* valid until the next step */
        } page;
        uint64_t post_sum; /* END: file checksum verified; 0 when not tracked */
    };
};
struct ltx_decoder;
MUST_CHECK enum rc ltx_decoder_new(struct ltx_decoder **ret_dec, struct err *err);
void ltx_decoder_free(struct ltx_decoder *dec);
/* Take bytes from in[0..*size) and report one event; *size becomes the number taken.
 * LTX_EV_MORE: all taken, come back with more, or with *size = 0 when there is no more: then a file
 * that is not complete fails, and LTX_EV_END comes. Trust no page before that. After a failure
 * every further step fails the same way. Checks: header, order, lock page, page_count, snapshot
 * completeness, index against the frames, file checksum, post-apply checksum when tracked and
 * txid_min is 1, nothing after the trailer. Fails: RC_CORRUPT with the byte offset in the text;
 * RC_NO_MEM. */
MUST_CHECK enum rc ltx_decoder_step(struct ltx_decoder *dec, const void *in, size_t *size,
                                    struct ltx_event *ret_ev, struct err *err);
#endif
