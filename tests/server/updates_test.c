/* updates_test.c -- messages of /pull-updates, and selectors of pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "server/updates.h"

static enum rc get(const char *bytes, size_t size, struct updates_request *r)
{
    struct err err;
    return updates_get(bytes, size, r, &err);
}
#define GET(bytes, r) get(bytes, sizeof(bytes) - 1, r)

static void requests(void **state)
{
    struct updates_request r;
    (void)state;
    assert_int_equal(get(NULL, 0, &r), RC_OK);
    assert_int_equal(r.client_revision.size, 0);
    static const char full[] = "\x08\x01\x12\x02sr\x1a\x02"
                               "cr\x20\xac\x02\x2a\x01s\x32\x01x\x3a\x01q\x40\x01"
                               "\x49"
                               "12345678"
                               "\x55"
                               "1234\xfa\x7f\x00";
    assert_int_equal(GET(full, &r), RC_OK);
    assert_int_equal(r.encoding, 1);
    assert_int_equal(r.long_poll_ms, 300);
    assert_int_equal(r.stream_kind, 1);
    assert_memory_equal(r.server_revision.data, "sr", 2);
    assert_memory_equal(r.client_revision.data, "cr", 2);
    assert_int_equal(r.selector.size, 1);
    /* Cut anywhere it is refused, or it is what the whole fields say. */
    for (size_t i = 1; i < sizeof full - 1; i++) {
        char *copy = malloc(i);
        memcpy(copy, full, i);
        if (get(copy, i, &r) == RC_OK) assert_true(r.encoding == 1);
        free(copy);
    }
    assert_int_equal(GET("\x0b", &r), RC_INVALID);       /* a group */
    assert_int_equal(GET("\x1a\x05xx", &r), RC_INVALID); /* too short */
    assert_int_equal(GET("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &r), RC_INVALID);
}

static void revisions(void **state)
{
    static const char *const bad[] = {"",
                                      "12",
                                      "12.",
                                      "12.abc",
                                      " 12.0123456789abcdef",
                                      "012.0123456789abcdef",
                                      "12.0123456789ABCDEF",
                                      "-1.0123456789abcdef",
                                      "12.0123456789abcdefx",
                                      "99999999999999999999999.0123456789abcdef"};
    struct updates_revision r = {.txid = UINT64_MAX, .tag = UINT64_MAX}, again;
    char text[UPDATES_REVISION_MAX];
    (void)state;
    updates_revision_put(&r, text);
    struct updates_text t = {.data = text, .size = strlen(text)};
    assert_true(updates_revision_get(t, &again));
    assert_true(again.txid == r.txid && again.tag == r.tag);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        t = (struct updates_text){.data = bad[i], .size = strlen(bad[i])};
        assert_false(updates_revision_get(t, &again));
    }
    t = (struct updates_text){.data = "12.0123456789abcdef\0", .size = 20};
    assert_false(updates_revision_get(t, &again));
}

static void answers(void **state)
{
    struct err err;
    struct buf out = BUF_INIT;
    (void)state;
    assert_int_equal(updates_put_header("7.x", 300, true, &out, &err), RC_OK);
    static const char head[] = "\x0e\x0a\x03"
                               "7.x\x10\xac\x02\x1a\x00\x30\x01\x40\x01";
    assert_int_equal(out.size, sizeof head - 1);
    assert_memory_equal(out.data, head, sizeof head - 1);
    buf_reset(&out);
    assert_int_equal(updates_put_header("7.x", 300, false, &out, &err), RC_OK);
    assert_int_equal(out.data[0], 12);
    buf_reset(&out);
    uint8_t page[4096] = {1, 2, 3};
    assert_int_equal(updates_put_page(130, page, sizeof page, &out, &err), RC_OK);
    assert_memory_equal(out.data, "\x86\x20\x08\x82\x01\x12\x80\x20\x01\x02\x03", 11);
    assert_int_equal(out.size, 2 + 6 + sizeof page);
    buf_fini(&out);
    fault_arm(FAULT_ALLOC, 1, true);
    assert_int_equal(updates_put_page(1, page, sizeof page, &out, &err), RC_NO_MEM);
    assert_int_equal(updates_put_header("7.x", 300, false, &out, &err), RC_NO_MEM);
    fault_arm(0, 0, false);
}

/* ---- Selectors ---- */

static void le(struct buf *b, uint32_t v, size_t size)
{
    struct err err;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(v >> (8 * i));
        assert_int_equal(buf_append(b, &byte, 1, &err), RC_OK);
    }
}

static enum rc select_pages(const struct buf *b, size_t size, uint64_t count, uint8_t *bits)
{
    struct err err;
    uint8_t *copy = malloc(size + 1); /* so that a read too far is seen */
    memcpy(copy, b->data, size);
    struct updates_text t = {.data = (const char *)copy, .size = size};
    enum rc rc = updates_select(t, count, bits, &err);
    free(copy);
    return rc;
}

static bool has(const uint8_t *bits, size_t i)
{
    return (bits[i / 8] >> (i % 8) & 1) != 0;
}

static void arrays_and_bits(void **state)
{
    struct buf b = BUF_INIT;
    static uint8_t bits[140000 / 8];
    (void)state;
    le(&b, 12346, 4);
    le(&b, 2, 4);
    le(&b, 0, 2), le(&b, 2 - 1, 2);    /* container 0: two values */
    le(&b, 2, 2), le(&b, 5000 - 1, 2); /* container 2: bits */
    le(&b, 0, 4), le(&b, 0, 4);        /* offsets, not looked at */
    le(&b, 3, 2), le(&b, 65535, 2);
    for (size_t i = 0; i < 8192; i++)
        le(&b, i < 625 ? 0xff : 0, 1);
    assert_int_equal(select_pages(&b, b.size, 135000, bits), RC_OK);
    for (size_t i = 0; i < 135000; i++) {
        bool want = i == 3 || i == 65535 || (i >= 131072 && i < 131072 + 5000);
        assert_int_equal(has(bits, i), want && i < 135000);
    }
    for (size_t cut = 0; cut < b.size; cut += cut < 40 ? 1 : 997)
        assert_int_equal(select_pages(&b, cut, 135000, bits), RC_INVALID);
    /* Page numbers beyond the database are nothing. */
    uint8_t few[2] = {0};
    assert_int_equal(select_pages(&b, b.size, 10, few), RC_OK);
    assert_int_equal(few[0], 1 << 3);
    assert_int_equal(few[1], 0);
    buf_fini(&b);
}

static void runs(void **state)
{
    struct buf b = BUF_INIT;
    uint8_t bits[9000] = {0};
    (void)state;
    le(&b, 12347 | 0 << 16, 4); /* one container */
    le(&b, 1, 1);               /* it has runs */
    le(&b, 0, 2), le(&b, 30 - 1, 2);
    le(&b, 2, 2);
    le(&b, 10, 2), le(&b, 19, 2); /* 10..29 */
    le(&b, 100, 2), le(&b, 9, 2); /* 100..109 */
    assert_int_equal(select_pages(&b, b.size, 65536, bits), RC_OK);
    for (size_t i = 0; i < 65536; i++)
        assert_int_equal(has(bits, i), (i >= 10 && i < 30) || (i >= 100 && i < 110));
    b.data[b.size - 4] = 20; /* over the first */
    assert_int_equal(select_pages(&b, b.size, 65536, bits), RC_INVALID);
    b.data[b.size - 4] = 100;
    b.data[b.size - 1] = 0xff;
    b.data[b.size - 2] = 0xff; /* beyond the container */
    assert_int_equal(select_pages(&b, b.size, 65536, bits), RC_INVALID);
    buf_reset(&b);
    le(&b, 12345, 4);
    assert_int_equal(select_pages(&b, b.size, 65536, bits), RC_INVALID);
    buf_reset(&b);
    le(&b, 12346, 4), le(&b, 65537, 4);
    assert_int_equal(select_pages(&b, b.size, 65536, bits), RC_INVALID);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),        cmocka_unit_test(revisions), cmocka_unit_test(answers),
        cmocka_unit_test(arrays_and_bits), cmocka_unit_test(runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
