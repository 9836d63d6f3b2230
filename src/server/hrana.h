/*
 * hrana.h -- the messages of libSQL's Hrana protocols, once for all versions and encodings.
 *
 * A decoder turns bytes into the structs below, in memory of an arena that lives as long as the
 * request; an encoder is fed results as they come and writes them at once, so a large answer is
 * never held twice. JSON and protobuf are two implementations of the same two tables of functions
 * (hrana_json.c, hrana_proto.c); what a request means is decided elsewhere, for both alike.
 *
 * Decoding is lenient (integers as JSON numbers, escaped '/', base64 with or without padding
 * and in the URL alphabet, unknown fields) and bounded: depth, number of requests, steps,
 * conditions and arguments, size of the arena.
 *
 * Sources: HRANA_1/2/3_SPEC.md of libsql, PROTOCOL.md of tursodatabase/turso (SQL over HTTP v3).
 * Threads: a decoder's result and an encoder belong to one thread.
 */
#ifndef SERVER_HRANA_H
#define SERVER_HRANA_H
#include "base/buf.h"
#include "sql/conn.h"

#define HRANA_REQUESTS_MAX 1024
#define HRANA_STEPS_MAX    65536
#define HRANA_ARGS_MAX     32766
#define HRANA_CONDS_MAX    65536
#define HRANA_DEPTH_MAX    64

enum hrana_version { HRANA_1 = 1, HRANA_2, HRANA_3 };

/* SQL by text or by an id that store_sql has given. */
struct hrana_sql {
    const char *text; /* NULL: by id */
    size_t size;
    int32_t id;
};
struct hrana_stmt {
    struct hrana_sql sql;
    const struct sql_arg *args;    /* positional ones first */
    size_t arg_count, named_count; /* named_count of them have names */
    bool want_rows;                /* default true */
};
enum hrana_cond_type {
    HRANA_COND_NONE, /* always */
    HRANA_COND_OK,
    HRANA_COND_ERROR,
    HRANA_COND_NOT,
    HRANA_COND_AND,
    HRANA_COND_OR,
    HRANA_COND_AUTOCOMMIT
};
struct hrana_cond {
    enum hrana_cond_type type;
    uint32_t step;                  /* OK, ERROR */
    const struct hrana_cond *inner; /* NOT: one; AND, OR: count */
    size_t count;
};
struct hrana_step {
    struct hrana_cond cond;
    struct hrana_stmt stmt;
};
struct hrana_batch {
    const struct hrana_step *steps;
    size_t count;
};

enum hrana_type {
    HRANA_CLOSE,
    HRANA_EXECUTE,
    HRANA_BATCH,
    HRANA_SEQUENCE,
    HRANA_DESCRIBE,
    HRANA_STORE_SQL,
    HRANA_CLOSE_SQL,
    HRANA_GET_AUTOCOMMIT,
    /* WebSocket only */
    HRANA_OPEN_STREAM,
    HRANA_CLOSE_STREAM,
    HRANA_OPEN_CURSOR,
    HRANA_CLOSE_CURSOR,
    HRANA_FETCH_CURSOR,
};
struct hrana_request {
    enum hrana_type type;
    struct hrana_stmt stmt;       /* EXECUTE */
    struct hrana_batch batch;     /* BATCH, OPEN_CURSOR */
    struct hrana_sql sql;         /* SEQUENCE, DESCRIBE, STORE_SQL, CLOSE_SQL (id) */
    int32_t stream_id, cursor_id; /* WebSocket */
    uint32_t max_count;           /* FETCH_CURSOR */
    uint64_t replication_index;   /* read only at or after this one; 0: any */
};
struct hrana_pipeline { /* body of /vN/pipeline */
    const char *baton;  /* NULL: a new stream */
    const struct hrana_request *requests;
    size_t count;
};
struct hrana_cursor_body { /* body of /v3/cursor */
    const char *baton;
    struct hrana_batch batch;
    uint64_t replication_index;
};
struct hrana_ws_msg { /* what a client says over a WebSocket */
    bool hello;
    const char *jwt; /* hello; NULL: none */
    int32_t request_id;
    struct hrana_request request;
};

/* Memory of one request. */
struct arena;
MUST_CHECK enum rc arena_new(size_t bytes_max, struct arena **ret_a, struct err *err);
void arena_free(struct arena *a);
void arena_reset(struct arena *a); /* keep some memory, forget what is in it */
/* Aligned for any type, zeroed. Fails: RC_TOO_BIG; RC_NO_MEM. */
MUST_CHECK enum rc arena_take(struct arena *a, size_t size, void **ret_p, struct err *err);

/* Decoders. Texts and blobs point into data where they can, which must outlive the result.
 * Fails: RC_INVALID with a text for the client; RC_TOO_BIG a bound; RC_NO_MEM. */
struct hrana_decoder {
    enum rc (*pipeline)(struct arena *a, enum hrana_version v, const void *data, size_t size,
                        struct hrana_pipeline *ret, struct err *err);
    enum rc (*cursor)(struct arena *a, const void *data, size_t size, struct hrana_cursor_body *ret,
                      struct err *err);
    enum rc (*ws)(struct arena *a, enum hrana_version v, const void *data, size_t size,
                  struct hrana_ws_msg *ret, struct err *err);
};
extern const struct hrana_decoder hrana_json_decoder, hrana_proto_decoder;
/* Bodies of Hrana 1 over HTTP, JSON only: {"stmt":...} and {"batch":...}. */
MUST_CHECK enum rc hrana_json_v1(struct arena *a, const void *data, size_t size, bool batch,
                                 struct hrana_request *ret, struct err *err);

/* Is every step of the conditions below the index of its own step? Fails: RC_INVALID. */
MUST_CHECK enum rc hrana_batch_check(const struct hrana_batch *b, struct err *err);

/* What kind of answer an encoder writes. */
enum hrana_frame {
    HRANA_FRAME_PIPELINE, /* {baton, base_url, results: [...]} */
    HRANA_FRAME_V1,       /* {result: ...} of /v1/execute and /v1/batch */
    HRANA_FRAME_WS,       /* response_ok, response_error: one message a call of begin/end */
    HRANA_FRAME_CURSOR,   /* lines, or length-prefixed messages */
};
/* An encoder appends to `out` of hrana_encoder_new. Order of calls, by frame:
 *   pipeline: begin { result_begin(type) [stmt | batch | describe | autocommit] result_end
 *             | result_error }* [baton] end
 *   V1, WS:   begin { result_begin ... result_end | result_error } end; WS also: begin hello end
 *   a stmt:   [cols] row* done
 *   a batch:  batch_begin { step_begin stmt step_end | step_error | step_skip }* batch_end
 *   cursor:   [begin(baton)] { step_begin stmt | [step_begin [cols row*]] step_error
 *             | cursor_error }* [end]; batch_begin, batch_end, step_end, step_skip do nothing
 *   fetch:    result_begin(HRANA_FETCH_CURSOR) entries* fetched result_end
 * In JSON's BatchResult errors come after all results: the encoder keeps them aside. A result that
 * has begun can be taken back with result_error: what was written of it disappears; so does, with
 * step_error, a step that has begun (not in a cursor, whose entries may have been sent). V1 has no
 * frame around an error: result_error writes the body of an HTTP error.
 * The steps of a batch come in order, without gaps. A wrong order is a bug and ends the program;
 * after any failure (RC_NO_MEM) only hrana_put_result_error and hrana_encoder_free may follow. */
struct hrana_encoder;
MUST_CHECK enum rc hrana_encoder_new(bool proto, enum hrana_frame frame, enum hrana_version v,
                                     struct buf *out, struct hrana_encoder **ret_e,
                                     struct err *err);
void hrana_encoder_free(struct hrana_encoder *e);
/* Remember this place, between two results or two steps; rewind: what was written since never was.
 * Valid as long as nobody takes bytes from `out`. */
void hrana_put_mark(struct hrana_encoder *e);
void hrana_put_rewind(struct hrana_encoder *e);
MUST_CHECK enum rc hrana_put_begin(struct hrana_encoder *e, const char *baton, const char *base_url,
                                   struct err *err);
/* A pipeline's baton is written by its end, because only then is it known whether the stream has
 * gone: this replaces what begin was given. The texts must live until then. */
void hrana_put_baton(struct hrana_encoder *e, const char *baton, const char *base_url);
MUST_CHECK enum rc hrana_put_end(struct hrana_encoder *e, struct err *err);
MUST_CHECK enum rc hrana_put_result_begin(struct hrana_encoder *e, enum hrana_type type,
                                          int32_t request_id, struct err *err);
MUST_CHECK enum rc hrana_put_result_end(struct hrana_encoder *e, struct err *err);
MUST_CHECK enum rc hrana_put_result_error(struct hrana_encoder *e, int32_t request_id,
                                          const struct sql_error *error, struct err *err);
MUST_CHECK enum rc hrana_put_cols(struct hrana_encoder *e, const struct sql_col *cols, size_t count,
                                  struct err *err);
MUST_CHECK enum rc hrana_put_row(struct hrana_encoder *e, const struct sql_value *values,
                                 size_t count, struct err *err);
MUST_CHECK enum rc hrana_put_done(struct hrana_encoder *e, const struct sql_done *done,
                                  uint64_t replication_index, struct err *err);
MUST_CHECK enum rc hrana_put_batch_begin(struct hrana_encoder *e, struct err *err);
MUST_CHECK enum rc hrana_put_batch_end(struct hrana_encoder *e, struct err *err);
/* The batch at hand was committed by a transaction of this index, known after its steps. */
void hrana_put_batch_index(struct hrana_encoder *e, uint64_t replication_index);
MUST_CHECK enum rc hrana_put_step_begin(struct hrana_encoder *e, uint32_t step, struct err *err);
MUST_CHECK enum rc hrana_put_step_end(struct hrana_encoder *e, struct err *err);
MUST_CHECK enum rc hrana_put_step_error(struct hrana_encoder *e, uint32_t step,
                                        const struct sql_error *error, struct err *err);
MUST_CHECK enum rc hrana_put_step_skip(struct hrana_encoder *e, uint32_t step, struct err *err);
/* The whole cursor has failed. */
MUST_CHECK enum rc hrana_put_cursor_error(struct hrana_encoder *e, const struct sql_error *error,
                                          struct err *err);
/* Answer a fetch with entries that a cursor's encoder (same encoding, without begin) has written
 * before: at most count_max of them; *ret_used: their bytes. Fails: RC_CORRUPT; RC_NO_MEM. */
MUST_CHECK enum rc hrana_put_entries(struct hrana_encoder *e, const void *data, size_t size,
                                     uint32_t count_max, size_t *ret_used, struct err *err);
MUST_CHECK enum rc hrana_put_fetched(struct hrana_encoder *e, bool done, struct err *err);
MUST_CHECK enum rc hrana_put_autocommit(struct hrana_encoder *e, bool autocommit, struct err *err);
MUST_CHECK enum rc hrana_put_describe(struct hrana_encoder *e, const struct sql_description *d,
                                      struct err *err);
/* WebSocket: hello_ok, or with an error hello_error. */
MUST_CHECK enum rc hrana_put_hello(struct hrana_encoder *e, const struct sql_error *error,
                                   struct err *err);
/* The body of an HTTP error: {"message","code","error"[,"extended_code"]}. */
MUST_CHECK enum rc hrana_put_http_error(struct buf *out, const struct sql_error *error,
                                        struct err *err);
#endif
