/* compact_bed.h -- what the tests of merging share, over restore_bed.h. */
#ifndef TESTS_LOG_COMPACT_BED_H
#define TESTS_LOG_COMPACT_BED_H
#include "log/compact.h"
#include "log/restore_bed.h"

/* The sources min..max of one level that stand in the store, as a listing gives them. */
static UNUSED void run_of(struct bed *b, uint32_t level, uint64_t min, uint64_t max,
                          struct log_files *ret)
{
    struct err err;
    size_t kept = 0;
    *ret = (struct log_files){0};
    OK(log_list(&b->log, NULL, level, ret, &err));
    for (size_t i = 0; i < ret->count; i++)
        if (ret->items[i].txid_min >= min && ret->items[i].txid_max <= max)
            ret->items[kept++] = ret->items[i];
    ret->count = kept;
}

static UNUSED enum rc merge_run(struct bed *b, uint32_t from, uint64_t min, uint64_t max,
                                const struct compact_opts *opts, struct compact_result *ret,
                                struct err *err)
{
    CLEANUP(log_files_fini) struct log_files run = {0};
    size_t gone;
    run_of(b, from, min, max, &run);
    enum rc rc = compact_run(&b->log, NULL, &run, opts, ret, &gone, err);
    if (rc != RC_NOT_FOUND) assert_int_equal(gone, run.count);
    return rc;
}

static UNUSED enum rc grow(void *ctx, const void *data, size_t size, struct err *err)
{
    return buf_append(ctx, data, size, err);
}

/* Every byte of a file is as the format says, by the decoder that verifies all; its pages are those
 * of the state after its last transaction, and all that it must have. */
static UNUSED void check_file(struct bed *b, uint32_t level, uint64_t min, uint64_t max)
{
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    const struct state *s = &b->states[max];
    struct ltx_header want = header_of(b, min, max);
    struct ltx_decoder *dec;
    struct ltx_event ev = {0};
    struct err err;
    uint8_t head[LTX_HEADER_SIZE];
    uint8_t *has = calloc(s->page_count + 1, 1);
    assert_non_null(has);
    OK(store_get(b->store, NULL, key_of(level, min, max), NULL, grow, &file, &err));
    ltx_header_put(&want, head);
    assert_memory_equal(file.data, head, sizeof head);
    OK(ltx_decoder_new(&dec, &err));
    for (size_t at = 0; ev.kind != LTX_EV_END;) {
        size_t took = file.size - at;
        OK(ltx_decoder_step(dec, file.data + at, &took, &ev, &err));
        at += took;
        if (ev.kind == LTX_EV_END) assert_int_equal(at, file.size);
        if (ev.kind != LTX_EV_PAGE) continue;
        assert_memory_equal(ev.page.data, s->image + (size_t)(ev.page.pgno - 1) * b->page_size,
                            b->page_size);
        has[ev.page.pgno] = 1;
    }
    for (uint32_t pgno = 1; pgno <= s->page_count; pgno++) {
        bool must = min == 1;
        for (uint64_t t = min; t <= max; t++)
            must |= pgno <= b->states[t].page_count && b->states[t].wrote[pgno];
        assert_int_equal(has[pgno], must);
    }
    ltx_decoder_free(dec);
    free(has);
}
#endif
