/* ltx_private.h -- what the LTX files share with each other and with nobody else. */
#ifndef FMT_LTX_PRIVATE_H
#define FMT_LTX_PRIVATE_H
#include "fmt/ltx.h"

#define LTX__PAGE_HEADER_SIZE 6 /* u32 page number, u16 flags; all zero is the end mark */
#define LTX__BLOCK_SIZE_SIZE  4 /* follows where the flags say LTX_ENC_BLOCK */
#define LTX__VARINT_MAX       10

#define LTX__LZ4_MAGIC        0x184D2204u /* little-endian, as all of an LZ4 frame */
#define LTX__LZ4_FLG          0x64        /* version 1, independent blocks, content checksum */
#define LTX__LZ4_BD           0x40        /* blocks of up to 64 KiB */
#define LTX__LZ4_HC           0xA7        /* header checksum over the two */
#define LTX__LZ4_RAW          (1u << 31)  /* in a block's size: the block is stored as it is */

/* LEB128, least significant group first. Returns the bytes written. */
size_t ltx__varint_put(uint64_t v, uint8_t out[LTX__VARINT_MAX]);

/* Finds the end of a page frame that arrives in pieces. Zero-initialise. */
struct ltx__scan {
    size_t at; /* all before it is understood; the size of the frame when done */
    bool done;
    bool in_lz4; /* past the LZ4 frame header: the rest below is known */
    bool block_sums, content_sum;
    uint32_t block_max; /* bytes */
};
/* frame[0..size) is what has arrived, from the page header on. Returns NULL, or what is wrong with
 * it. *ret_want: how many bytes must be there for the next call (when not done). */
const char *ltx__scan_step(struct ltx__scan *s, uint32_t page_size, const uint8_t *frame,
                           size_t size, size_t *ret_want);

/* Decode one whole frame. Returns NULL, or what is wrong with it; the page is then garbage. */
const char *ltx__unpack(uint32_t page_size, const uint8_t *frame, size_t size, uint8_t *page);
#endif
