/*
 * updates_fuzz.c -- requests of /pull-updates and selectors of pages, from anybody. The first byte
 * says which. What is found lies in the input; a selector sets no bit beyond the database, and what
 * it sets does not depend on the size of that.
 */
#include "fuzz/fuzz.h"
#include "server/updates.h"

#define PAGES 70000u

static void check_text(struct updates_text t, const uint8_t *data, size_t size)
{
    const uint8_t *at = (const uint8_t *)t.data;
    CHECK(t.size == 0 || (at >= data && at + t.size <= data + size));
}

static void check_request(const uint8_t *data, size_t size)
{
    struct err err;
    struct updates_request r;
    struct updates_revision rev;
    char again[UPDATES_REVISION_MAX];
    if (updates_get(data, size, &r, &err) != RC_OK) return;
    check_text(r.server_revision, data, size);
    check_text(r.client_revision, data, size);
    check_text(r.selector, data, size);
    if (!updates_revision_get(r.client_revision, &rev)) return;
    updates_revision_put(&rev, again);
    CHECK(strlen(again) == r.client_revision.size);
    CHECK(memcmp(again, r.client_revision.data, r.client_revision.size) == 0);
}

static void check_selector(const uint8_t *data, size_t size)
{
    static uint8_t all[PAGES / 8 + 1], few[PAGES / 8 + 1];
    struct err err;
    const struct updates_text t = {.data = (const char *)data, .size = size};
    uint64_t count = size > 0 ? data[size - 1] * 7u : 0;
    memset(all, 0, sizeof all);
    memset(few, 0, sizeof few);
    enum rc rc = updates_select(t, PAGES, all, &err);
    CHECK(rc == RC_OK || rc == RC_INVALID);
    CHECK(updates_select(t, count, few, &err) == rc);
    if (rc != RC_OK) return;
    for (uint64_t i = 0; i < PAGES; i++) {
        bool in_all = (all[i / 8] >> (i % 8) & 1) != 0, in_few = (few[i / 8] >> (i % 8) & 1) != 0;
        CHECK(in_few == (in_all && i < count));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    if (data[0] % 2 == 0)
        check_request(data + 1, size - 1);
    else
        check_selector(data + 1, size - 1);
    return 0;
}

static size_t copy(uint8_t *out, const char *bytes, size_t size)
{
    memcpy(out, bytes, size);
    return size;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
    static const char request[] = "\0\x08\x00\x1a\x13"
                                  "12.0123456789abcdef\x20\xac\x02\x2a\x02xx";
    static const char list[] = "\1\x3a\x30\0\0\1\0\0\0\0\0\2\0\x10\0\0\0\3\0\7\0\x09\0";
    static const char runs[] = "\1\x3b\x30\0\0\1\0\0\x1d\0\2\0\x0a\0\x13\0\x64\0\x09\0";
    if (n % 3 == 0) return copy(out, request, sizeof request - 1);
    return n % 3 == 1 ? copy(out, list, sizeof list - 1) : copy(out, runs, sizeof runs - 1);
}
