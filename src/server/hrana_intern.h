/* hrana_intern.h -- what the decoders share, and what the encoders share. See hrana.h. */
#ifndef SERVER_HRANA_INTERN_H
#define SERVER_HRANA_INTERN_H
#include "server/hrana.h"

/* ---- Memory ---- */

/* Room for one more element: an array of count elements of `size` bytes, grown by copying. */
MUST_CHECK enum rc arena_room(struct arena *a, void *pointer_to_array, size_t count, size_t *cap,
                              size_t size, struct err *err);
/* A copy that is terminated. */
MUST_CHECK enum rc arena_text(struct arena *a, const void *data, size_t size, const char **ret_text,
                              struct err *err);

/* ---- Texts ---- */

/* The bytes of the UTF-8 character at s, or 0: the bytes there are none; *ret_bad: how many of them
 * one replacement character stands for. */
size_t hrana_utf8(const uint8_t *s, size_t size, size_t *ret_bad);
/* How many bytes from s on are ASCII and stand for themselves in a string of JSON? */
size_t hrana_plain(const uint8_t *s, const uint8_t *end);

/* ---- Decoding ---- */

/* The name in JSON. */
const char *hrana_type_name(enum hrana_type type);
bool hrana_type_of(const char *name, size_t size, enum hrana_type *ret_type);
/* What a message has said, before it is known to make sense. */
struct hrana_seen {
    bool stmt, batch, sql, sql_id;
};
/* Does a request have what its type needs, and may it come here? Fails: RC_INVALID. */
MUST_CHECK enum rc hrana_request_check(const struct hrana_request *r, const struct hrana_seen *seen,
                                       enum hrana_version v, bool ws, struct err *err);
MUST_CHECK enum rc hrana_sql_check(bool text, bool id, struct err *err);
/* Positional arguments and then named ones, in one array. */
MUST_CHECK enum rc hrana_args_join(struct arena *a, struct hrana_stmt *stmt,
                                   const struct sql_arg *args, size_t arg_count,
                                   const struct sql_arg *named, size_t named_count,
                                   struct err *err);

/* ---- Encoding ---- */

struct hrana_encoder {
    const struct hrana_put_ops *ops;
    enum hrana_frame frame;
    enum hrana_version version;
    struct buf *out;
    struct buf errors; /* JSON: step_errors of the batch at hand */
    const char *baton, *base_url;
    enum hrana_type type; /* of the result at hand */
    int32_t request_id;
    uint32_t step;      /* at hand, or the next one */
    size_t count;       /* results so far: is a comma needed? */
    size_t row_count;   /* rows or entries so far */
    size_t result_mark; /* size of out where the result at hand began */
    size_t step_mark;   /* where the step did */
    uint64_t index;     /* the largest replication index of the result */
    bool begun, in_result, in_batch, in_step, has_cols, has_done;
    size_t open[8]; /* protobuf: messages at hand, where they begin */
    size_t open_count, step_open;
    struct { /* of hrana_put_mark */
        size_t out, errors, count, row_count, open_count;
        uint32_t step;
        uint64_t index;
        bool in_result, in_batch;
    } mark;
};

/* One encoding. The order of calls has been checked; has_cols: cols are written already. */
struct hrana_put_ops {
    enum rc (*begin)(struct hrana_encoder *e, struct err *err);
    enum rc (*end)(struct hrana_encoder *e, struct err *err);
    enum rc (*result_begin)(struct hrana_encoder *e, struct err *err);
    enum rc (*result_end)(struct hrana_encoder *e, struct err *err);
    enum rc (*result_error)(struct hrana_encoder *e, const struct sql_error *error,
                            struct err *err);
    enum rc (*cols)(struct hrana_encoder *e, const struct sql_col *cols, size_t count,
                    struct err *err);
    enum rc (*row)(struct hrana_encoder *e, const struct sql_value *values, size_t count,
                   struct err *err);
    enum rc (*done)(struct hrana_encoder *e, const struct sql_done *done,
                    uint64_t replication_index, struct err *err);
    enum rc (*batch_begin)(struct hrana_encoder *e, struct err *err);
    enum rc (*batch_end)(struct hrana_encoder *e, struct err *err);
    enum rc (*step_begin)(struct hrana_encoder *e, struct err *err);
    enum rc (*step_end)(struct hrana_encoder *e, struct err *err);
    enum rc (*step_error)(struct hrana_encoder *e, const struct sql_error *error, struct err *err);
    enum rc (*step_skip)(struct hrana_encoder *e, struct err *err);
    enum rc (*cursor_error)(struct hrana_encoder *e, const struct sql_error *error,
                            struct err *err);
    enum rc (*entry)(struct hrana_encoder *e, const uint8_t *data, size_t size, size_t *ret_used,
                     struct err *err);
    enum rc (*fetched)(struct hrana_encoder *e, bool done, struct err *err);
    enum rc (*autocommit)(struct hrana_encoder *e, bool autocommit, struct err *err);
    enum rc (*describe)(struct hrana_encoder *e, const struct sql_description *d, struct err *err);
    enum rc (*hello)(struct hrana_encoder *e, const struct sql_error *error, struct err *err);
};
extern const struct hrana_put_ops hrana_put_json, hrana_put_proto;

static inline const char *hrana_error_code(const struct sql_error *error)
{
    return error->code[0] != '\0' ? error->code : "SQLITE_UNKNOWN";
}
#endif
