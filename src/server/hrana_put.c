/*
 * hrana_put.c -- the order of an encoder's calls, whatever the encoding. See hrana.h.
 *
 *                 begin            result_begin(execute)     cols (once, made up if need be)
 *   (new) ──────► begun ─────────► in_result ──────────────► has_cols ──► row* ──► done
 *     ▲             │ ▲               │   │ batch                ▲                   │
 *     └──── end ────┘ └─ result_end ──┘   ▼                      │                   │
 *                     result_error      in_batch ─ step_begin ─ in_step ◄─ step_end ─┘
 *
 * In a cursor there are no results: steps stand alone.
 */
#include "base/mem.h"
#include "server/hrana_intern.h"

static bool in_cursor(const struct hrana_encoder *e);
static bool in_stmt(const struct hrana_encoder *e);
static enum rc need_cols(struct hrana_encoder *e, struct err *err);
static void step_over(struct hrana_encoder *e);

enum rc hrana_encoder_new(bool proto, enum hrana_frame frame, enum hrana_version v, struct buf *out,
                          struct hrana_encoder **ret_e, struct err *err)
{
    if (proto && v < HRANA_3)
        return err_set(err, RC_INVALID, "Hrana %d has no protobuf encoding", (int)v);
    struct hrana_encoder *e = mem_calloc(1, sizeof *e);
    if (e == NULL) return err_mem(err, "an answer");
    e->ops = proto ? &hrana_put_proto : &hrana_put_json;
    e->frame = frame;
    e->version = v;
    e->out = out;
    *ret_e = e;
    return RC_OK;
}

void hrana_encoder_free(struct hrana_encoder *e)
{
    if (e == NULL) return;
    buf_fini(&e->errors);
    mem_free(e);
}

enum rc hrana_put_begin(struct hrana_encoder *e, const char *baton, const char *base_url,
                        struct err *err)
{
    ASSERT(!e->begun && !e->in_step);
    e->baton = baton;
    e->base_url = base_url;
    e->count = 0;
    TRY(e->ops->begin(e, err));
    e->begun = true;
    return RC_OK;
}

void hrana_put_baton(struct hrana_encoder *e, const char *baton, const char *base_url)
{
    ASSERT(e->frame == HRANA_FRAME_PIPELINE);
    e->baton = baton;
    e->base_url = base_url;
}

void hrana_put_mark(struct hrana_encoder *e)
{
    ASSERT(!e->in_step && (!e->in_result || e->in_batch));
    e->mark.out = e->out->size;
    e->mark.errors = e->errors.size;
    e->mark.count = e->count;
    e->mark.row_count = e->row_count;
    e->mark.open_count = e->open_count;
    e->mark.step = e->step;
    e->mark.index = e->index;
    e->mark.in_result = e->in_result;
    e->mark.in_batch = e->in_batch;
}

void hrana_put_rewind(struct hrana_encoder *e)
{
    ASSERT(e->out->size >= e->mark.out);
    e->out->size = e->mark.out;
    if (e->errors.size > e->mark.errors) e->errors.size = e->mark.errors;
    e->count = e->mark.count;
    e->row_count = e->mark.row_count;
    e->open_count = e->mark.open_count;
    e->step = e->mark.step;
    e->index = e->mark.index;
    e->in_result = e->mark.in_result;
    e->in_batch = e->mark.in_batch;
    e->in_step = e->has_cols = e->has_done = false;
}

enum rc hrana_put_end(struct hrana_encoder *e, struct err *err)
{
    ASSERT(e->begun && !e->in_result && !e->in_step);
    TRY(e->ops->end(e, err));
    e->begun = false;
    return RC_OK;
}

/* ---- Results ---- */

enum rc hrana_put_result_begin(struct hrana_encoder *e, enum hrana_type type, int32_t request_id,
                               struct err *err)
{
    ASSERT(e->begun && !in_cursor(e) && !e->in_result);
    e->type = type;
    e->request_id = request_id;
    e->result_mark = e->out->size;
    e->in_result = true;
    e->has_cols = e->has_done = false;
    e->index = 0;
    return e->ops->result_begin(e, err);
}

enum rc hrana_put_result_end(struct hrana_encoder *e, struct err *err)
{
    ASSERT(e->in_result && !e->in_batch && !e->in_step);
    ASSERT(e->type != HRANA_EXECUTE || e->has_done);
    TRY(e->ops->result_end(e, err));
    e->in_result = false;
    e->count++;
    return RC_OK;
}

enum rc hrana_put_result_error(struct hrana_encoder *e, int32_t request_id,
                               const struct sql_error *error, struct err *err)
{
    ASSERT(e->begun && !in_cursor(e));
    if (e->in_result) e->out->size = e->result_mark;
    size_t mark = e->out->size;
    e->in_result = e->in_batch = e->in_step = false;
    e->open_count = 0;
    e->request_id = request_id;
    enum rc rc = e->ops->result_error(e, error, err);
    if (rc != RC_OK) {
        e->out->size = mark;
        return rc;
    }
    e->count++;
    return RC_OK;
}

/* ---- Statements ---- */

enum rc hrana_put_cols(struct hrana_encoder *e, const struct sql_col *cols, size_t count,
                       struct err *err)
{
    ASSERT(in_stmt(e) && !e->has_cols);
    e->has_cols = true;
    e->row_count = 0;
    return e->ops->cols(e, cols, count, err);
}

enum rc hrana_put_row(struct hrana_encoder *e, const struct sql_value *values, size_t count,
                      struct err *err)
{
    ASSERT(in_stmt(e) && !e->has_done);
    TRY(need_cols(e, err));
    TRY(e->ops->row(e, values, count, err));
    e->row_count++;
    return RC_OK;
}

enum rc hrana_put_done(struct hrana_encoder *e, const struct sql_done *done,
                       uint64_t replication_index, struct err *err)
{
    ASSERT(in_stmt(e) && !e->has_done);
    TRY(need_cols(e, err));
    if (replication_index > e->index) e->index = replication_index;
    TRY(e->ops->done(e, done, replication_index, err));
    e->has_done = true;
    if (in_cursor(e)) e->in_step = false;
    return RC_OK;
}

/* ---- Batches and cursors ---- */

enum rc hrana_put_batch_begin(struct hrana_encoder *e, struct err *err)
{
    if (in_cursor(e)) return RC_OK;
    ASSERT(e->in_result && e->type == HRANA_BATCH && !e->in_batch);
    e->in_batch = true;
    e->step = 0;
    buf_reset(&e->errors);
    return e->ops->batch_begin(e, err);
}

enum rc hrana_put_batch_end(struct hrana_encoder *e, struct err *err)
{
    if (in_cursor(e)) return RC_OK;
    ASSERT(e->in_batch && !e->in_step);
    TRY(e->ops->batch_end(e, err));
    e->in_batch = false;
    return RC_OK;
}

void hrana_put_batch_index(struct hrana_encoder *e, uint64_t replication_index)
{
    if (replication_index > e->index) e->index = replication_index;
}

enum rc hrana_put_step_begin(struct hrana_encoder *e, uint32_t step, struct err *err)
{
    ASSERT(!e->in_step && (in_cursor(e) || (e->in_batch && step == e->step)));
    e->step = step;
    e->in_step = true;
    e->has_cols = e->has_done = false;
    e->step_mark = e->out->size;
    e->step_open = e->open_count;
    return in_cursor(e) ? RC_OK : e->ops->step_begin(e, err);
}

enum rc hrana_put_step_end(struct hrana_encoder *e, struct err *err)
{
    if (in_cursor(e)) return RC_OK;
    ASSERT(e->in_step && e->has_done);
    TRY(e->ops->step_end(e, err));
    step_over(e);
    return RC_OK;
}

enum rc hrana_put_step_error(struct hrana_encoder *e, uint32_t step, const struct sql_error *error,
                             struct err *err)
{
    if (in_cursor(e)) {
        e->step = step;
    } else {
        ASSERT(e->in_batch && step == e->step);
        if (e->in_step) {
            e->out->size = e->step_mark;
            e->open_count = e->step_open;
        }
    }
    TRY(e->ops->step_error(e, error, err));
    step_over(e);
    return RC_OK;
}

enum rc hrana_put_step_skip(struct hrana_encoder *e, uint32_t step, struct err *err)
{
    if (in_cursor(e)) return RC_OK;
    ASSERT(e->in_batch && !e->in_step && step == e->step);
    TRY(e->ops->step_skip(e, err));
    step_over(e);
    return RC_OK;
}

enum rc hrana_put_cursor_error(struct hrana_encoder *e, const struct sql_error *error,
                               struct err *err)
{
    ASSERT(in_cursor(e));
    TRY(e->ops->cursor_error(e, error, err));
    e->in_step = false;
    return RC_OK;
}

enum rc hrana_put_entries(struct hrana_encoder *e, const void *data, size_t size,
                          uint32_t count_max, size_t *ret_used, struct err *err)
{
    const uint8_t *from = data;
    size_t used = 0, one;
    ASSERT(e->in_result && e->type == HRANA_FETCH_CURSOR && !e->has_done);
    for (uint32_t n = 0; n < count_max && used < size; n++) {
        TRY(e->ops->entry(e, from + used, size - used, &one, err));
        e->row_count++;
        used += one;
    }
    *ret_used = used;
    return RC_OK;
}

enum rc hrana_put_fetched(struct hrana_encoder *e, bool done, struct err *err)
{
    ASSERT(e->in_result && e->type == HRANA_FETCH_CURSOR && !e->has_done);
    TRY(e->ops->fetched(e, done, err));
    e->has_done = true;
    return RC_OK;
}

/* ---- The others ---- */

enum rc hrana_put_autocommit(struct hrana_encoder *e, bool autocommit, struct err *err)
{
    ASSERT(e->in_result && e->type == HRANA_GET_AUTOCOMMIT);
    return e->ops->autocommit(e, autocommit, err);
}

enum rc hrana_put_describe(struct hrana_encoder *e, const struct sql_description *d,
                           struct err *err)
{
    ASSERT(e->in_result && e->type == HRANA_DESCRIBE);
    return e->ops->describe(e, d, err);
}

enum rc hrana_put_hello(struct hrana_encoder *e, const struct sql_error *error, struct err *err)
{
    ASSERT(e->begun && e->frame == HRANA_FRAME_WS && !e->in_result);
    return e->ops->hello(e, error, err);
}

/* ---- Private ---- */

static bool in_cursor(const struct hrana_encoder *e)
{
    return e->frame == HRANA_FRAME_CURSOR;
}

static bool in_stmt(const struct hrana_encoder *e)
{
    return e->in_step || (e->in_result && e->type == HRANA_EXECUTE);
}

/* A statement without columns may come without their list. */
static enum rc need_cols(struct hrana_encoder *e, struct err *err)
{
    return e->has_cols ? RC_OK : hrana_put_cols(e, NULL, 0, err);
}

static void step_over(struct hrana_encoder *e)
{
    e->in_step = false;
    e->step++;
}
