/*
 * hrana_bench.c -- how fast are Hrana's messages? One JSON line a question, best of several runs.
 *
 *   hrana_bench [milliseconds a run, default 300]
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/mem.h"
#include "server/hrana.h"

#define RUNS 5
#define ROWS 1000u

/* What the client of JavaScript sends for one point read. */
static const char json_body[] =
    "{\"baton\":null,\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT id, name, "
    "balance FROM accounts WHERE id = ?\",\"args\":[{\"type\":\"integer\",\"value\":\"4711\"}],"
    "\"named_args\":[],\"want_rows\":true}},{\"type\":\"close\"}]}";
static const char proto_body[] =
    "\x12\x3e\x12\x3c\x0a\x3a\x0a\x31SELECT id, name, balance FROM accounts WHERE id=?"
    "\x1a\x03\x10\xce\x49\x28\x01\x12\x02\x0a\x00";

struct bench {
    struct arena *arena;
    struct buf out;
    bool proto;
    const char *text;
    double real;
};
typedef void bench_fn(struct bench *b);

static struct err err;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void need(enum rc rc)
{
    if (rc == RC_OK) return;
    fprintf(stderr, "hrana_bench: %s\n", err.text);
    exit(1);
}

static void decode(struct bench *b)
{
    struct hrana_pipeline p;
    arena_reset(b->arena);
    need(b->proto ? hrana_proto_decoder.pipeline(b->arena, HRANA_3, proto_body,
                                                 sizeof proto_body - 1, &p, &err)
                  : hrana_json_decoder.pipeline(b->arena, HRANA_2, json_body, sizeof json_body - 1,
                                                &p, &err));
    if (p.count != 2 || p.requests[0].stmt.arg_count != 1) abort();
}

/* Only the tree, which would have to be walked after this. */
static void decode_tree(struct bench *b)
{
    (void)b;
    json_t *tree = json_loadb(json_body, sizeof json_body - 1, JSON_ALLOW_NUL, NULL);
    if (tree == NULL) abort();
    json_decref(tree);
}

/* One answer; rows of an integer, a text and a float. */
static void encode(struct bench *b, unsigned rows)
{
    static const struct sql_col cols[] = {{"id", "INTEGER"}, {"name", "TEXT"}, {"balance", "REAL"}};
    static const struct sql_done done = {.rows_read = 1, .us = 12};
    struct hrana_encoder *e;
    struct sql_value v[] = {
        {.type = SQL_INTEGER, .integer = 4711},
        {.type = SQL_TEXT, .data = b->text, .size = strlen(b->text)},
        {.type = SQL_FLOAT, .real = b->real},
    };
    buf_reset(&b->out);
    need(hrana_encoder_new(b->proto, HRANA_FRAME_PIPELINE, HRANA_3, &b->out, &e, &err));
    need(hrana_put_begin(e, NULL, NULL, &err));
    need(hrana_put_result_begin(e, HRANA_EXECUTE, 0, &err));
    need(hrana_put_cols(e, cols, 3, &err));
    for (unsigned i = 0; i < rows; i++) {
        v[0].integer += i;
        need(hrana_put_row(e, v, 3, &err));
    }
    need(hrana_put_done(e, &done, 0, &err));
    need(hrana_put_result_end(e, &err));
    need(hrana_put_result_begin(e, HRANA_CLOSE, 0, &err));
    need(hrana_put_result_end(e, &err));
    need(hrana_put_end(e, &err));
    hrana_encoder_free(e);
}

static void encode_one(struct bench *b)
{
    encode(b, 1);
}

static void encode_many(struct bench *b)
{
    encode(b, ROWS);
}

static void run(const char *name, struct bench *b, bench_fn *fn, unsigned each, double seconds)
{
    double best = 0;
    fn(b);
    for (int i = 0; i < RUNS; i++) {
        uint64_t count = 0;
        double start = now(), end;
        do {
            for (int j = 0; j < 64; j++)
                fn(b);
            count += 64;
            end = now();
        } while (end - start < seconds);
        double rate = (double)(count * each) / (end - start);
        if (rate > best) best = rate;
    }
    printf("{\"bench\":\"%s\",\"per_second\":%.0f,\"ns\":%.0f}\n", name, best, 1e9 / best);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) / 1000 : 0.3;
    struct bench b = {.text = "Ada Lovelace, Countess", .real = 1234.5};
    need(arena_new(1u << 20, &b.arena, &err));
    run("json_decode_request", &b, decode, 1, seconds);
    run("json_decode_request_jansson_tree", &b, decode_tree, 1, seconds);
    run("json_encode_answer_of_one_row", &b, encode_one, 1, seconds);
    run("json_encode_rows", &b, encode_many, ROWS, seconds);
    b.real = 0.1 + 0.2;
    run("json_encode_rows_17_digits", &b, encode_many, ROWS, seconds);
    b.proto = true;
    run("proto_decode_request", &b, decode, 1, seconds);
    run("proto_encode_answer_of_one_row", &b, encode_one, 1, seconds);
    run("proto_encode_rows", &b, encode_many, ROWS, seconds);
    arena_free(b.arena);
    buf_fini(&b.out);
    return 0;
}
