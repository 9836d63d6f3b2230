/*
 * shell_remote.c -- a server, by Hrana over HTTP (POST v3/pipeline); see shell.h.
 *
 * One stream for the whole session: transactions, temporary tables and settings live in it. A
 * server may forget a stream that is idle. Outside of a transaction nothing was lost then but such
 * settings, so the statement, which was not run, goes to a new stream.
 */
#include "cli/shell.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/mem.h"
#include "base/os.h"
#include "fmt/text.h"
#include "store/hash.h"

#define TOKEN_MAX     (16u << 10)
#define NAMESPACE_MAX 255
#define CLOSE_MS      2000 /* saying goodbye must not take long */

struct remote {
    struct shell_db base;
    struct shell_http *http;
    char *url;       /* without a '/' at the end */
    char *elsewhere; /* where the server wants this stream's requests; NULL: at url */
    char *authorization, *name, *name_bin; /* headers; NULL: none */
    char *baton;                           /* NULL: no stream is open */
    bool autocommit;
    struct sql_value *values; /* of a row */
    size_t value_cap;
    struct buf blobs;
};
struct dump_sink {
    sql_dump_fn *fn;
    void *ctx;
    char tail[16]; /* the last bytes that came */
    size_t tail_size;
};

static void remote_close(struct shell_db *db);
static enum rc remote_run(struct shell_db *db, const struct call *call, const struct sql_stmt *stmt,
                          const struct sql_sink *sink, struct sql_done *done,
                          struct sql_error *sql_err, struct err *err);
static enum rc remote_run_many(struct shell_db *db, const struct call *call, const char *sql,
                               const struct sql_arg *args, size_t cols, size_t rows,
                               size_t *ret_done, struct sql_error *sql_err, struct err *err);
static bool remote_autocommit(struct shell_db *db);
static enum rc remote_dump(struct shell_db *db, const struct call *call,
                           const struct sql_dump_opts *opts, sql_dump_fn *fn, void *ctx,
                           struct err *err);

static enum rc set_url(struct remote *r, const char *text, char *token, struct err *err);
static bool query_get(const char *query, const char *name, char *out, size_t out_size);
static enum rc set_headers(struct remote *r, const char *token, const char *name, struct err *err);
static enum rc pipeline(struct remote *r, const struct call *call, json_t *requests,
                        json_t **ret_answer, struct err *err);
static enum rc post(struct remote *r, const struct call *call, json_t *requests,
                    struct shell_answer *answer, struct err *err);
static enum rc refused(struct remote *r, const struct shell_answer *answer, bool *ret_again,
                       struct err *err);
static enum rc take_stream(struct remote *r, const json_t *answer, struct err *err);
static void forget_stream(struct remote *r);
static enum rc result_of(const json_t *answer, size_t index, const json_t **ret_response,
                         struct sql_error *sql_err, struct err *err);
static enum rc take_error(const json_t *error, struct sql_error *sql_err, struct err *err);
static enum rc give_result(struct remote *r, const json_t *result, const struct sql_sink *sink,
                           struct err *err);
static enum rc give_cols(const json_t *cols, const struct sql_sink *sink, struct err *err);
static enum rc give_row(struct remote *r, const json_t *row, const struct sql_sink *sink,
                        struct err *err);
static enum rc get_value(struct remote *r, const json_t *json, struct sql_value *ret,
                         struct err *err);
static enum rc get_blob(struct remote *r, const char *text, struct sql_value *ret, struct err *err);
static json_t *statement(const char *sql, size_t size, const struct sql_arg *args, size_t count,
                         bool want_rows);
static json_t *value_json(const struct sql_value *v);
static int64_t integer_of(const json_t *json);
static const char *text_of(const json_t *object, const char *key);
static enum rc odd(struct err *err, const char *what);
static enum rc take_dump(void *ctx, const void *data, size_t size, struct err *err);
static void json_freep(json_t **json);
static void answer_fini(struct shell_answer *a);

static const struct shell_db_ops remote_ops = {
    .close = remote_close,
    .run = remote_run,
    .run_many = remote_run_many,
    .autocommit = remote_autocommit,
    .dump = remote_dump,
};

enum rc shell_remote_open(const struct shell_remote_opts *opts, struct shell_db **ret_db,
                          struct err *err)
{
    char token[TOKEN_MAX] = "";
    struct remote *r = mem_calloc(1, sizeof *r);
    if (r == NULL) return err_mem(err, "a shell");
    r->base.ops = &remote_ops;
    r->autocommit = true;
    enum rc rc = set_url(r, opts->url, token, err);
    if (rc == RC_OK)
        rc = set_headers(r, opts->token[0] != '\0' ? opts->token : token, opts->name, err);
    if (rc == RC_OK) rc = shell_http_open(&r->http, err);
    mem_wipe(token, sizeof token);
    if (rc != RC_OK)
        remote_close(&r->base);
    else
        *ret_db = &r->base;
    return rc;
}

bool shell_is_url(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && strncmp(text + n, "://", 3) == 0;
}

/* An open transaction would hold its lock until the server has enough of it. */
static void remote_close(struct shell_db *db)
{
    struct remote *r = (struct remote *)(void *)db;
    struct err ignored;
    if (r->baton != NULL) {
        struct call soon = {.deadline_ms = os_mono_ms() + CLOSE_MS};
        CLEANUP(json_freep) json_t *requests = json_pack("[{s:s}]", "type", "close");
        CLEANUP(answer_fini) struct shell_answer answer = {0};
        if (requests != NULL && post(r, &soon, requests, &answer, &ignored) != RC_OK)
            answer.status = 0; /* it will find out by itself */
    }
    forget_stream(r);
    shell_http_close(r->http);
    if (r->authorization != NULL) mem_wipe(r->authorization, strlen(r->authorization));
    mem_free(r->authorization);
    mem_free(r->name);
    mem_free(r->name_bin);
    mem_free(r->url);
    mem_free(r->values);
    buf_fini(&r->blobs);
    mem_free(r);
}

static enum rc remote_run(struct shell_db *db, const struct call *call, const struct sql_stmt *stmt,
                          const struct sql_sink *sink, struct sql_done *done,
                          struct sql_error *sql_err, struct err *err)
{
    struct remote *r = (struct remote *)(void *)db;
    CLEANUP(json_freep) json_t *requests = NULL, *answer = NULL;
    const json_t *response;
    int64_t start_us = os_mono_us();
    *sql_err = (struct sql_error){.offset = -1};
    json_t *s = statement(stmt->sql, stmt->sql_size, stmt->args, stmt->arg_count, stmt->want_rows);
    requests =
        json_pack("[{s:s, s:o}, {s:s}]", "type", "execute", "stmt", s, "type", "get_autocommit");
    if (requests == NULL)
        return err_set(err, RC_INVALID, "the statement is not UTF-8, or there is no memory for it");
    TRY(pipeline(r, call, requests, &answer, err));
    TRY(result_of(answer, 0, &response, sql_err, err));
    const json_t *result = json_object_get(response, "result");
    if (!json_is_object(result)) return odd(err, "a statement has no result");
    *done = (struct sql_done){
        .affected = (uint64_t)integer_of(json_object_get(result, "affected_row_count")),
        .last_rowid = integer_of(json_object_get(result, "last_insert_rowid")),
        .inserted = json_is_string(json_object_get(result, "last_insert_rowid")),
        .us = os_mono_us() - start_us};
    return sink != NULL ? give_result(r, result, sink, err) : RC_OK;
}

/* One batch, whose steps run as long as the one before has succeeded. */
static enum rc remote_run_many(struct shell_db *db, const struct call *call, const char *sql,
                               const struct sql_arg *args, size_t cols, size_t rows,
                               size_t *ret_done, struct sql_error *sql_err, struct err *err)
{
    struct remote *r = (struct remote *)(void *)db;
    CLEANUP(json_freep) json_t *requests = NULL, *answer = NULL;
    const json_t *response, *error;
    *sql_err = (struct sql_error){.offset = -1};
    *ret_done = 0;
    json_t *steps = json_array();
    bool ok = steps != NULL;
    for (size_t i = 0; i < rows && ok; i++) {
        json_t *s = statement(sql, strlen(sql), args + i * cols, cols, false), *step;
        if (i == 0)
            step = json_pack("{s:o}", "stmt", s);
        else
            step = json_pack("{s:o, s:{s:s, s:I}}", "stmt", s, "condition", "type", "ok", "step",
                             (json_int_t)i - 1);
        ok = json_array_append_new(steps, step) == 0;
    }
    if (!ok) {
        json_decref(steps);
        return err_set(err, RC_INVALID, "a text is not UTF-8, or there is no memory for it");
    }
    requests = json_pack("[{s:s, s:{s:o}}, {s:s}]", "type", "batch", "batch", "steps", steps,
                         "type", "get_autocommit");
    if (requests == NULL) return err_mem(err, "a request");
    TRY(pipeline(r, call, requests, &answer, err));
    TRY(result_of(answer, 0, &response, sql_err, err));
    const json_t *result = json_object_get(response, "result");
    const json_t *results = json_object_get(result, "step_results");
    const json_t *errors = json_object_get(result, "step_errors");
    if (json_array_size(results) != rows || json_array_size(errors) != rows)
        return odd(err, "a batch has results of other steps");
    for (; *ret_done < rows; ++*ret_done) {
        error = json_array_get(errors, *ret_done);
        if (json_is_object(error)) return take_error(error, sql_err, err);
        if (!json_is_object(json_array_get(results, *ret_done)))
            return odd(err, "a step was left out");
    }
    return RC_OK;
}

static bool remote_autocommit(struct shell_db *db)
{
    struct remote *r = (struct remote *)(void *)db;
    return r->autocommit;
}

static enum rc remote_dump(struct shell_db *db, const struct call *call,
                           const struct sql_dump_opts *opts, sql_dump_fn *fn, void *ctx,
                           struct err *err)
{
    struct remote *r = (struct remote *)(void *)db;
    struct dump_sink sink = {.fn = fn, .ctx = ctx};
    CLEANUP(answer_fini) struct shell_answer answer = {0};
    const char *headers[6];
    size_t n = 0;
    bool again;
    if (opts->table != NULL || opts->data_only)
        return err_set(err, RC_UNSUPPORTED,
                       "a server gives the dump of a whole database, not of one table or of the "
                       "rows alone");
    CLEANUP(mem_freep)
    char *url =
        mem_printf("%s/dump%s", r->url, opts->preserve_row_ids ? "?preserve_row_ids=true" : "");
    if (url == NULL) return err_mem(err, "a URL");
    if (r->authorization != NULL) headers[n++] = r->authorization;
    if (r->name != NULL) headers[n++] = r->name;
    if (r->name_bin != NULL) headers[n++] = r->name_bin;
    headers[n++] = "User-Agent: sluice/" SLUICE_VERSION;
    headers[n] = NULL;
    TRY(shell_http_send(r->http, call, url, headers, NULL, take_dump, &sink, &answer, err));
    if (answer.status != 200) return refused(r, &answer, &again, err);
    while (sink.tail_size > 0 && strchr("\r\n", sink.tail[sink.tail_size - 1]) != NULL)
        sink.tail_size--;
    if (sink.tail_size < 7 || memcmp(sink.tail + sink.tail_size - 7, "COMMIT;", 7) != 0)
        return err_set(err, RC_CORRUPT, "the dump does not end in COMMIT; it is not complete");
    return RC_OK;
}

/* ---- Where, and who we are ---- */

/* libsql: is https:, or with ?tls=0 http:. token: what the URL says, else left alone. */
static enum rc set_url(struct remote *r, const char *text, char *token, struct err *err)
{
    char tls[8] = "";
    size_t scheme = strcspn(text, ":");
    const char *rest = text + scheme + 3;
    size_t size = strcspn(rest, "?#");
    const char *query = rest[size] == '?' ? rest + size + 1 : "";
    bool plain = scheme == 4 && strncasecmp(text, "http", 4) == 0;
    bool libsql = scheme == 6 && strncasecmp(text, "libsql", 6) == 0;
    if (!plain && !libsql && !(scheme == 5 && strncasecmp(text, "https", 5) == 0))
        return err_set(err, RC_INVALID, "the scheme '%.*s' is not one of http, https and libsql",
                       (int)scheme, text);
    size_t host = strcspn(rest, "/?#");
    if (host == 0) return err_set(err, RC_INVALID, "the URL names no host");
    if (memchr(rest, '@', host) != NULL)
        return err_set(err, RC_INVALID, "a user in the URL is not known here; use a token");
    query_get(query, "authToken", token, TOKEN_MAX);
    if (query_get(query, "tls", tls, sizeof tls) && libsql) plain = strcmp(tls, "0") == 0;
    while (size > host && rest[size - 1] == '/')
        size--;
    r->url = mem_printf("%s://%.*s", plain ? "http" : "https", (int)size, rest);
    return r->url != NULL ? RC_OK : err_mem(err, "a URL");
}

/* False: there is none. Escapes are left as they are: a token has none. */
static bool query_get(const char *query, const char *name, char *out, size_t out_size)
{
    size_t name_size = strlen(name);
    while (*query != '\0' && *query != '#') {
        size_t size = strcspn(query, "&#");
        if (size > name_size && strncmp(query, name, name_size) == 0 && query[name_size] == '=' &&
            size - name_size - 1 < out_size) {
            memcpy(out, query + name_size + 1, size - name_size - 1);
            out[size - name_size - 1] = '\0';
            return true;
        }
        query += size + (query[size] == '&');
    }
    return false;
}

static enum rc set_headers(struct remote *r, const char *token, const char *name, struct err *err)
{
    char bin[BASE64_SIZE(NAMESPACE_MAX)];
    for (const char *p = token; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~') return err_set(err, RC_INVALID, "the token is not a token");
    if (token[0] != '\0') {
        r->authorization = mem_printf("Authorization: Bearer %s", token);
        if (r->authorization == NULL) return err_mem(err, "a token");
    }
    if (name[0] == '\0') return RC_OK;
    for (const char *p = name; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~' || p - name >= NAMESPACE_MAX)
            return err_set(err, RC_INVALID, "the namespace '%s' is not the name of one", name);
    base64_put(name, strlen(name), bin);
    bin[strcspn(bin, "=")] = '\0';
    /* Older servers only know the second, and want it without padding. */
    r->name = mem_printf("x-namespace: %s", name);
    r->name_bin = mem_printf("x-namespace-bin: %s", bin);
    return r->name != NULL && r->name_bin != NULL ? RC_OK : err_mem(err, "a namespace");
}

/* ---- Requests ---- */

/* On success the stream is as the answer says. Fails: as shell_http_send; what the server says. */
static enum rc pipeline(struct remote *r, const struct call *call, json_t *requests,
                        json_t **ret_answer, struct err *err)
{
    CLEANUP(answer_fini) struct shell_answer answer = {0};
    bool again = false;
    enum rc rc = post(r, call, requests, &answer, err);
    if (rc == RC_OK && answer.status != 200) rc = refused(r, &answer, &again, err);
    if (again) {
        rc = post(r, call, requests, &answer, err);
        if (rc == RC_OK && answer.status != 200) rc = refused(r, &answer, &again, err);
    }
    if (rc != RC_OK) {
        bool lost = !r->autocommit;
        forget_stream(r);
        return lost ? err_wrap(err, "the transaction is lost") : rc;
    }
    json_error_t why;
    *ret_answer =
        json_loadb((const char *)answer.text.data, answer.text.size, JSON_ALLOW_NUL, &why);
    if (*ret_answer == NULL) {
        forget_stream(r);
        return err_set(err, RC_CORRUPT, "the server's answer is not JSON: %s", why.text);
    }
    return take_stream(r, *ret_answer, err);
}

static enum rc post(struct remote *r, const struct call *call, json_t *requests,
                    struct shell_answer *answer, struct err *err)
{
    const char *headers[7];
    size_t n = 0;
    CLEANUP(mem_freep)
    char *url = mem_printf("%s/v3/pipeline", r->elsewhere != NULL ? r->elsewhere : r->url);
    CLEANUP(json_freep)
    json_t *body = json_pack("{s:s?, s:O}", "baton", r->baton, "requests", requests);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    enum rc rc = url != NULL && text != NULL ? RC_OK : err_mem(err, "a request");
    if (r->authorization != NULL) headers[n++] = r->authorization;
    if (r->name != NULL) headers[n++] = r->name;
    if (r->name_bin != NULL) headers[n++] = r->name_bin;
    headers[n++] = "User-Agent: sluice/" SLUICE_VERSION;
    headers[n++] = "Content-Type: application/json";
    headers[n++] = "Expect:"; /* no round trip before a large body */
    headers[n] = NULL;
    if (rc == RC_OK) {
        struct buf bytes = {.data = (uint8_t *)text, .size = strlen(text)};
        rc = shell_http_send(r->http, call, url, headers, &bytes, NULL, NULL, answer, err);
        if (rc == RC_AGAIN) err_wrap(err, "%s", r->url);
    }
    mem_free(text); /* jansson's own */
    return rc;
}

/* *ret_again: nothing was run because the stream was forgotten, and no transaction was in it. */
static enum rc refused(struct remote *r, const struct shell_answer *answer, bool *ret_again,
                       struct err *err)
{
    CLEANUP(json_freep)
    json_t *json = json_loadb((const char *)answer->text.data, answer->text.size, 0, NULL);
    const char *code = text_of(json, "code"), *message = text_of(json, "message");
    if (message[0] == '\0') message = text_of(json, "error");
    CLEANUP(mem_freep) char *plain = NULL;
    if (message[0] == '\0' && answer->text.size > 0) {
        plain = mem_printf("%.*s", answer->text.size < 300 ? (int)answer->text.size : 300,
                           (const char *)answer->text.data);
        if (plain != NULL && plain[0] != '<') message = plain;
    }
    bool forgotten = strncmp(code, "STREAM_", 7) == 0 || strstr(message, "baton") != NULL;
    *ret_again = forgotten && r->baton != NULL && r->autocommit && !*ret_again;
    if (*ret_again) forget_stream(r);
    enum rc rc = answer->status == 401 || answer->status == 403   ? RC_DENIED
                 : answer->status == 404                          ? RC_NOT_FOUND
                 : answer->status >= 500 || answer->status == 429 ? RC_AGAIN
                                                                  : RC_INVALID;
    return err_set(err, rc, "the server answers %ld%s%s", answer->status,
                   message[0] != '\0' ? ": " : "", message);
}

static enum rc take_stream(struct remote *r, const json_t *answer, struct err *err)
{
    const char *baton = text_of(answer, "baton"), *where = text_of(answer, "base_url");
    const json_t *last = json_object_get(answer, "results");
    last = json_array_get(last, json_array_size(last) > 0 ? json_array_size(last) - 1 : 0);
    last = json_object_get(json_object_get(last, "response"), "is_autocommit");
    char *old = r->baton;
    r->baton = baton[0] != '\0' ? mem_strdup(baton) : NULL;
    mem_free(old);
    if (baton[0] != '\0' && r->baton == NULL) {
        forget_stream(r);
        return err_mem(err, "a stream");
    }
    if (r->baton == NULL) forget_stream(r);
    if (json_is_boolean(last) && r->baton != NULL) r->autocommit = json_is_true(last);
    /* The token goes there, too: never from https to http. */
    bool safe = strncmp(where, "https://", 8) == 0 || strncmp(r->url, "http://", 7) == 0;
    if (where[0] == '\0' || r->baton == NULL || !safe || !shell_is_url(where)) return RC_OK;
    size_t size = strlen(where);
    while (size > 0 && where[size - 1] == '/')
        size--;
    mem_free(r->elsewhere);
    r->elsewhere = mem_printf("%.*s", (int)size, where);
    return r->elsewhere != NULL ? RC_OK : err_mem(err, "a URL");
}

static void forget_stream(struct remote *r)
{
    mem_free(r->baton);
    mem_free(r->elsewhere);
    r->baton = r->elsewhere = NULL;
    r->autocommit = true;
}

/* ---- Answers ---- */

static enum rc result_of(const json_t *answer, size_t index, const json_t **ret_response,
                         struct sql_error *sql_err, struct err *err)
{
    const json_t *result = json_array_get(json_object_get(answer, "results"), index);
    const char *type = text_of(result, "type");
    if (strcmp(type, "error") == 0)
        return take_error(json_object_get(result, "error"), sql_err, err);
    *ret_response = json_object_get(result, "response");
    return strcmp(type, "ok") == 0 && *ret_response != NULL ? RC_OK
                                                            : odd(err, "a result is missing");
}

/* The place in the statement is only in the text: "... (at offset 7)". */
static enum rc take_error(const json_t *error, struct sql_error *sql_err, struct err *err)
{
    static const char mark[] = " (at offset ";
    const char *message = text_of(error, "message"), *code = text_of(error, "code");
    sql_error_own(sql_err, code[0] != '\0' ? code : "SERVER_ERROR", "%s",
                  message[0] != '\0' ? message : "the server gives no reason");
    snprintf(sql_err->extended, sizeof sql_err->extended, "%s", text_of(error, "extended_code"));
    const char *at = strstr(sql_err->message, mark);
    if (at != NULL) sql_err->offset = (int)strtol(at + sizeof mark - 1, NULL, 10);
    return err_set(err, RC_INVALID, "%s", shell_message(sql_err->message));
}

static enum rc give_result(struct remote *r, const json_t *result, const struct sql_sink *sink,
                           struct err *err)
{
    const json_t *cols = json_object_get(result, "cols"), *rows = json_object_get(result, "rows");
    const json_t *row;
    size_t i, count = json_array_size(cols);
    TRY(give_cols(cols, sink, err));
    if (count > r->value_cap) {
        struct sql_value *grown = mem_realloc(r->values, count * sizeof *grown);
        if (grown == NULL) return err_mem(err, "a row");
        r->values = grown;
        r->value_cap = count;
    }
    json_array_foreach((json_t *)(uintptr_t)rows, i, row)
    {
        if (json_array_size(row) != count) return odd(err, "a row has other columns");
        TRY(give_row(r, row, sink, err));
    }
    return RC_OK;
}

static enum rc give_cols(const json_t *cols, const struct sql_sink *sink, struct err *err)
{
    size_t count = json_array_size(cols);
    CLEANUP(mem_freep) struct sql_col *list = mem_calloc(count, sizeof *list);
    if (list == NULL) return err_mem(err, "the columns of a result");
    for (size_t i = 0; i < count; i++) {
        const json_t *col = json_array_get(cols, i);
        list[i].name = text_of(col, "name");
        list[i].decltype = json_string_value(json_object_get(col, "decltype"));
    }
    return sink->cols(sink->ctx, list, count, err);
}

static enum rc give_row(struct remote *r, const json_t *row, const struct sql_sink *sink,
                        struct err *err)
{
    size_t count = json_array_size(row), room = 0;
    for (size_t i = 0; i < count; i++)
        room += json_string_length(json_object_get(json_array_get(row, i), "base64")) + 1;
    buf_reset(&r->blobs);
    TRY(buf_reserve(&r->blobs, room, err)); /* so that no blob moves another */
    for (size_t i = 0; i < count; i++)
        TRY(get_value(r, json_array_get(row, i), &r->values[i], err));
    return sink->row(sink->ctx, r->values, count, err);
}

static enum rc get_value(struct remote *r, const json_t *json, struct sql_value *ret,
                         struct err *err)
{
    const char *type = text_of(json, "type");
    const json_t *value = json_object_get(json, "value");
    *ret = (struct sql_value){.type = SQL_NULL};
    if (strcmp(type, "null") == 0) return RC_OK;
    if (strcmp(type, "integer") == 0) {
        ret->type = SQL_INTEGER;
        ret->integer = integer_of(value);
        return RC_OK;
    }
    if (strcmp(type, "float") == 0) {
        ret->type = SQL_FLOAT; /* JSON has no infinities: null stands for them */
        ret->real = json_is_number(value) ? json_number_value(value) : (double)NAN;
        return RC_OK;
    }
    if (strcmp(type, "text") == 0 && json_is_string(value)) {
        ret->type = SQL_TEXT;
        ret->data = json_string_value(value);
        ret->size = json_string_length(value);
        return RC_OK;
    }
    if (strcmp(type, "blob") == 0) return get_blob(r, text_of(json, "base64"), ret, err);
    return odd(err, "a value is of no known type");
}

static enum rc get_blob(struct remote *r, const char *text, struct sql_value *ret, struct err *err)
{
    uint8_t *to = r->blobs.data + r->blobs.size;
    size_t size = 0;
    if (base64_get(text, to, r->blobs.cap - r->blobs.size, &size, err) != RC_OK)
        return odd(err, "a blob is not in base64");
    r->blobs.size += size;
    *ret = (struct sql_value){.type = SQL_BLOB, .data = to, .size = size};
    return RC_OK;
}

/* NULL: no memory, or something is not UTF-8. */
static json_t *statement(const char *sql, size_t size, const struct sql_arg *args, size_t count,
                         bool want_rows)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t i = 0; i < count && ok; i++)
        ok = json_array_append_new(list, value_json(&args[i].value)) == 0;
    json_t *text = json_stringn(sql, size);
    if (!ok || text == NULL) {
        json_decref(list);
        json_decref(text);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:b}", "sql", text, "args", list, "want_rows", (int)want_rows);
}

/* What the shell binds are texts, numbers and NULL. */
static json_t *value_json(const struct sql_value *v)
{
    char number[24];
    switch (v->type) {
    case SQL_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)v->integer);
        return json_pack("{s:s, s:s}", "type", "integer", "value", number);
    case SQL_FLOAT:
        return json_pack("{s:s, s:f}", "type", "float", "value", v->real);
    case SQL_TEXT:
        return json_pack("{s:s, s:s%}", "type", "text", "value", (const char *)v->data, v->size);
    default:
        return json_pack("{s:s}", "type", "null");
    }
}

static int64_t integer_of(const json_t *json)
{
    if (json_is_string(json)) return strtoll(json_string_value(json), NULL, 10);
    return json_is_integer(json) ? json_integer_value(json) : 0;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static enum rc odd(struct err *err, const char *what)
{
    return err_set(err, RC_CORRUPT, "the server's answer is odd: %s", what);
}

static enum rc take_dump(void *ctx, const void *data, size_t size, struct err *err)
{
    struct dump_sink *s = ctx;
    size_t keep = sizeof s->tail;
    if (size >= keep) {
        memcpy(s->tail, (const char *)data + size - keep, keep);
        s->tail_size = keep;
    } else if (size > 0) {
        size_t old = s->tail_size + size > keep ? keep - size : s->tail_size;
        memmove(s->tail, s->tail + s->tail_size - old, old);
        memcpy(s->tail + old, data, size);
        s->tail_size = old + size;
    }
    return s->fn(s->ctx, data, size, err);
}

static void json_freep(json_t **json)
{
    json_decref(*json);
}

static void answer_fini(struct shell_answer *a)
{
    buf_fini(&a->text);
}
