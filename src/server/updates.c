/* updates.c -- see updates.h. */
#include "server/updates.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define VARINT_MAX 10 /* bytes */
/* Roaring's portable form: https://github.com/RoaringBitmap/RoaringFormatSpec */
#define COOKIE_RUNS    12347u
#define COOKIE_PLAIN   12346u
#define OFFSETS_FROM   4 /* containers: with runs, fewer have no table of offsets */
#define ARRAY_MAX      4096
#define BITSET_SIZE    8192
#define CONTAINER_BITS 65536
#define CONTAINERS_MAX 65536

struct in {
    const uint8_t *at, *end;
};

static bool varint(struct in *in, uint64_t *ret);
static bool take(struct in *in, uint64_t size, const uint8_t **ret);
static bool field(struct in *in, struct updates_request *r);
static void take_text(struct updates_request *r, uint32_t number, const uint8_t *data,
                      uint64_t size);
static size_t put_varint(uint8_t *out, uint64_t v);
static size_t varint_size(uint64_t v);
static bool take16(struct in *in, uint32_t *ret);
static bool take32(struct in *in, uint32_t *ret);
static bool select_container(struct in *in, bool runs, uint32_t count, uint64_t first,
                             uint64_t page_count, uint8_t *bits);
static void set_bit(uint8_t *bits, uint64_t i, uint64_t count);

enum rc updates_get(const void *body, size_t size, struct updates_request *ret, struct err *err)
{
    *ret = (struct updates_request){0};
    if (size == 0) return RC_OK; /* and there may be no body */
    struct in in = {.at = body, .end = (const uint8_t *)body + size};
    while (in.at < in.end)
        if (!field(&in, ret))
            return err_set(err, RC_INVALID, "the body is not a request of /pull-updates");
    return RC_OK;
}

void updates_revision_put(const struct updates_revision *r, char out[UPDATES_REVISION_MAX])
{
    snprintf(out, UPDATES_REVISION_MAX, "%" PRIu64 ".%016" PRIx64, r->txid, r->tag);
}

bool updates_revision_get(struct updates_text text, struct updates_revision *ret)
{
    char copy[UPDATES_REVISION_MAX], again[UPDATES_REVISION_MAX];
    struct updates_revision r;
    if (text.size == 0 || text.size >= sizeof copy) return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    if (sscanf(copy, "%" SCNu64 ".%" SCNx64, &r.txid, &r.tag) != 2) return false;
    updates_revision_put(&r, again);
    if (text.size != strlen(again) || memcmp(copy, again, text.size) != 0) return false;
    *ret = r;
    return true;
}

enum rc updates_put_header(const char *revision, uint64_t page_count, bool whole, struct buf *out,
                           struct err *err)
{
    uint8_t head[UPDATES_REVISION_MAX + 64];
    size_t at = 0, size = strlen(revision);
    head[at++] = 1 << 3 | 2;
    at += put_varint(head + at, size);
    memcpy(head + at, revision, size);
    at += size;
    head[at++] = 2 << 3;
    at += put_varint(head + at, page_count);
    head[at++] = 3 << 3 | 2;
    head[at++] = 0;
    if (whole) {
        head[at++] = 6 << 3;
        head[at++] = 1;
    }
    head[at++] = 8 << 3;
    head[at++] = 1;
    uint8_t length[VARINT_MAX];
    TRY(buf_append(out, length, put_varint(length, at), err));
    return buf_append(out, head, at, err);
}

enum rc updates_put_page(uint64_t page_id, const void *page, size_t size, struct buf *out,
                         struct err *err)
{
    uint8_t head[4 * VARINT_MAX];
    size_t inner = 1 + varint_size(page_id) + 1 + varint_size(size) + size;
    size_t at = put_varint(head, inner);
    head[at++] = 1 << 3;
    at += put_varint(head + at, page_id);
    head[at++] = 2 << 3 | 2;
    at += put_varint(head + at, size);
    TRY(buf_append(out, head, at, err));
    return buf_append(out, page, size, err);
}

enum rc updates_select(struct updates_text selector, uint64_t page_count, uint8_t *bits,
                       struct err *err)
{
    struct in in = {.at = (const uint8_t *)selector.data};
    const uint8_t *runs = NULL, *heads, *offsets;
    uint32_t cookie, count = 0, least = 0;
    in.end = in.at + selector.size;
    bool ok = take32(&in, &cookie);
    if (ok && (cookie & 0xffff) == COOKIE_RUNS) {
        count = (cookie >> 16) + 1;
        ok = take(&in, (count + 7) / 8, &runs);
    } else {
        ok = ok && cookie == COOKIE_PLAIN && take32(&in, &count) && count <= CONTAINERS_MAX;
    }
    ok = ok && take(&in, (uint64_t)count * 4, &heads);
    if (ok && (runs == NULL || count >= OFFSETS_FROM))
        ok = take(&in, (uint64_t)count * 4, &offsets);
    struct in head = {0};
    if (ok) head = (struct in){.at = heads, .end = heads + (size_t)count * 4};
    for (uint32_t i = 0; ok && i < count; i++) {
        uint32_t key = 0, last = 0;
        bool is_runs = runs != NULL && (runs[i / 8] >> (i % 8) & 1) != 0;
        ok = take16(&head, &key) && take16(&head, &last) && key >= least &&
             select_container(&in, is_runs, last + 1, (uint64_t)key * CONTAINER_BITS, page_count,
                              bits);
        least = key + 1;
    }
    return ok ? RC_OK : err_set(err, RC_INVALID, "server_pages_selector is no roaring bitmap");
}

static bool varint(struct in *in, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < VARINT_MAX && in->at < in->end; i++) {
        uint8_t b = *in->at++;
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (b < 0x80) return *ret = v, true;
    }
    return false;
}

static bool take(struct in *in, uint64_t size, const uint8_t **ret)
{
    if (size > (uint64_t)(in->end - in->at)) return false;
    *ret = in->at;
    in->at += size;
    return true;
}

static bool field(struct in *in, struct updates_request *r)
{
    uint64_t key, v;
    const uint8_t *data;
    if (!varint(in, &key)) return false;
    uint32_t number = key >> 3 < 16 ? (uint32_t)(key >> 3) : 16;
    switch (key & 7) {
    case 0:
        if (!varint(in, &v)) return false;
        if (number == 1) r->encoding = v;
        if (number == 4) r->long_poll_ms = v;
        if (number == 8) r->stream_kind = v;
        return true;
    case 1:
        return take(in, 8, &data);
    case 2:
        if (!varint(in, &v) || !take(in, v, &data)) return false;
        take_text(r, number, data, v);
        return true;
    case 5:
        return take(in, 4, &data);
    default:
        return false;
    }
}

static void take_text(struct updates_request *r, uint32_t number, const uint8_t *data,
                      uint64_t size)
{
    const struct updates_text text = {.data = (const char *)data, .size = (size_t)size};
    if (number == 2) r->server_revision = text;
    if (number == 3) r->client_revision = text;
    if (number == 5) r->selector = text;
}

static size_t put_varint(uint8_t *out, uint64_t v)
{
    size_t size = 0;
    for (; v >= 0x80; v >>= 7)
        out[size++] = (uint8_t)(v | 0x80);
    out[size++] = (uint8_t)v;
    return size;
}

static size_t varint_size(uint64_t v)
{
    uint8_t ignored[VARINT_MAX];
    return put_varint(ignored, v);
}

static bool take16(struct in *in, uint32_t *ret)
{
    const uint8_t *p;
    if (!take(in, 2, &p)) return false;
    *ret = (uint32_t)(p[0] | p[1] << 8);
    return true;
}

static bool take32(struct in *in, uint32_t *ret)
{
    uint32_t low, high;
    if (!take16(in, &low) || !take16(in, &high)) return false;
    *ret = low | high << 16;
    return true;
}

/* One of up to 65536 neighbours: as runs, as a list, or as bits. */
static bool select_container(struct in *in, bool runs, uint32_t count, uint64_t first,
                             uint64_t page_count, uint8_t *bits)
{
    uint32_t n, start, more;
    if (runs) {
        if (!take16(in, &n)) return false;
        for (uint32_t next = 0; n > 0; n--) { /* in order, or their work would have no limit */
            if (!take16(in, &start) || !take16(in, &more)) return false;
            if (start < next || start + more >= CONTAINER_BITS) return false;
            next = start + more + 1;
            for (uint64_t i = first + start; i <= first + start + more && i < page_count; i++)
                set_bit(bits, i, page_count);
        }
        return true;
    }
    if (count <= ARRAY_MAX) {
        for (; count > 0; count--) {
            if (!take16(in, &start)) return false;
            set_bit(bits, first + start, page_count);
        }
        return true;
    }
    const uint8_t *set;
    if (!take(in, BITSET_SIZE, &set)) return false;
    for (uint64_t i = 0; i < CONTAINER_BITS && first + i < page_count; i++)
        if ((set[i / 8] >> (i % 8) & 1) != 0) set_bit(bits, first + i, page_count);
    return true;
}

static void set_bit(uint8_t *bits, uint64_t i, uint64_t count)
{
    if (i < count) bits[i / 8] |= (uint8_t)(1u << (i % 8));
}
