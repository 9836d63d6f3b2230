/* serve_bed.h -- a server on a port of its own over the tenants of fake_tenants.h, and clients of
 * both kinds. Include after cmocka.h. */
#ifndef TESTS_SERVER_SERVE_BED_H
#define TESTS_SERVER_SERVE_BED_H
#include "fmt/jwt.h"
#include "server/exec_bed.h"
#include "server/http_client.h"
#include "server/server_intern.h"
#include "server/ws_peer.h"

/* Wait for it, on a machine that may be busy. */
#define SOON_MS 60000
#define SOON(expr)                                                                                 \
    do {                                                                                           \
        int64_t soon_end_ = os_mono_ms() + SOON_MS;                                                \
        while (!(expr)) {                                                                          \
            if (os_mono_ms() > soon_end_) fail_msg("waited in vain for: %s", #expr);               \
            os_sleep_ms(1);                                                                        \
        }                                                                                          \
    } while (0)

struct sbed {
    struct tenants *ts;
    struct server_opts opts;
    struct server *server;
    uint8_t key[BATON_KEY_SIZE];
    char address[100];
    const char *token; /* of requests; NULL: none */
};

static inline void sbed_start(struct sbed *b)
{
    char admin[100];
    struct err err;
    if (server_start(&b->opts, &b->server, &err) != RC_OK) fail_msg("%s", err.text);
    server_addresses(b->server, b->address, sizeof b->address, admin, sizeof admin);
}

static inline void sbed_prepare(struct sbed *b)
{
    *b = (struct sbed){.ts = fake_new()};
    memset(b->key, 5, sizeof b->key);
    b->opts = (struct server_opts){.listen = "127.0.0.1:0",
                                   .admin_listen = "",
                                   .listen_fd = -1,
                                   .admin_fd = -1,
                                   .baton_key = b->key,
                                   .ops = &fake_ops,
                                   .tenants = b->ts,
                                   .threads = 2,
                                   .work_threads = 4};
}

static inline void sbed_new(struct sbed *b)
{
    sbed_prepare(b);
    sbed_start(b);
}

/* Nothing may be left behind. */
static inline void sbed_free(struct sbed *b)
{
    server_stop(b->server, 1000);
    fake_free(b->ts);
}

static inline void sbed_send(struct sbed *b, struct client *c, const char *path,
                             const char *headers, const char *body)
{
    char *text;
    char token[2000] = "";
    if (b->token != NULL) snprintf(token, sizeof token, "Authorization: Bearer %s\r\n", b->token);
    bool post = body != NULL;
    if (asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%sContent-Length: %zu\r\n\r\n%s",
                 post ? "POST" : "GET", path, token, headers, post ? strlen(body) : 0,
                 post ? body : "") < 0)
        abort();
    (void)client_send(c, text, strlen(text));
    free(text);
}

/* One request on a connection of its own; the body is terminated. */
static inline struct answer sbed_ask(struct sbed *b, const char *path, const char *headers,
                                     const char *body)
{
    struct err err;
    struct client c = client_connect(b->address);
    sbed_send(b, &c, path, headers, body);
    struct answer a = client_answer(&c, false);
    client_close(&c);
    assert_int_equal(buf_append(&a.body, "", 1, &err), RC_OK);
    return a;
}

/* status 0: any. */
static inline void sbed_expect(struct sbed *b, const char *path, const char *headers,
                               const char *body, unsigned status, const char *part)
{
    struct answer a = sbed_ask(b, path, headers, body);
    const char *text = (const char *)a.body.data;
    if ((status != 0 && a.status != status) || strstr(text, part) == NULL)
        fail_msg("%s %s: %u, not %u with %s: %s", path, body == NULL ? "" : body, a.status, status,
                 part, text);
    answer_free(&a);
}

#define PIPE "/v3/pipeline"
/* Requests on a stream; its baton is in and out, "" at first and when there is none any more. */
static inline void sbed_pipe(struct sbed *b, char baton[8000], const char *requests,
                             unsigned status, const char *part)
{
    char *body, quoted[8010] = "null";
    if (baton[0] != '\0') snprintf(quoted, sizeof quoted, "\"%s\"", baton);
    if (asprintf(&body, "{\"baton\":%s,\"requests\":[%s]}", quoted, requests) < 0) abort();
    struct answer a = sbed_ask(b, PIPE, "", body);
    const char *text = (const char *)a.body.data;
    if (a.status != status || strstr(text, part) == NULL)
        fail_msg("%s: %u, not %u with %s: %s", requests, a.status, status, part, text);
    const char *at = strstr(text, "\"baton\":\"");
    baton[0] = '\0';
    if (at != NULL) {
        at += strlen("\"baton\":\"");
        snprintf(baton, 8000, "%.*s", (int)strcspn(at, "\""), at);
    }
    answer_free(&a);
    free(body);
}

#define ONE(sql)  "{\"requests\":[" SQL(sql) "]}"
#define CREATE(b) sbed_expect(b, PIPE, "", ONE("CREATE TABLE t(a INTEGER PRIMARY KEY)"), 200, GOOD)

static inline int64_t sbed_count(struct sbed *b)
{
    struct answer a = sbed_ask(b, PIPE, "", ONE("SELECT count(*) FROM t"));
    long long n = -1;
    const char *at = strstr((char *)a.body.data, "[[{");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "[[{\"type\":\"integer\",\"value\":\"%lld", &n), 1);
    answer_free(&a);
    return n;
}

/* ---- WebSocket ---- */

static inline void sbed_ws(struct sbed *b, struct peer *p, const char *path)
{
    char head[400];
    struct err err;
    struct client c = client_connect(b->address);
    snprintf(head, sizeof head,
             "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
             "Sec-WebSocket-Protocol: hrana3\r\n\r\n",
             path);
    client_say(&c, head);
    char *end;
    while (c.in.size == 0 || (end = memmem(c.in.data, c.in.size, "\r\n\r\n", 4)) == NULL)
        assert_true(client_more(&c));
    assert_memory_equal(c.in.data, "HTTP/1.1 101", 12);
    size_t size = (size_t)(end + 4 - (char *)c.in.data);
    *p = (struct peer){.fd = c.fd};
    assert_int_equal(buf_append(&p->in, c.in.data + size, c.in.size - size, &err), RC_OK);
    buf_fini(&c.in);
}

static inline void ws_say(struct peer *p, const char *text)
{
    peer_send(p, TEXT, text, strlen(text));
}

/* The next message must have these parts, in order; *ret_text NULL: not wanted. */
static inline void ws_expect(struct peer *p, const char *one, const char *two)
{
    struct frame f = {0};
    size_t whole = 0;
    char *text, *at;
    if (!peer_next(p, &f, &whole)) fail_msg("no answer with %s", one);
    if (f.first == CLOSE) fail_msg("closed: %.*s, and no %s", (int)f.size - 2, f.data + 2, one);
    if (asprintf(&text, "%.*s", (int)f.size, f.data) < 0) abort();
    at = strstr(text, one);
    if (at == NULL || strstr(at, two) == NULL) fail_msg("no %s, %s in %s", one, two, text);
    /* One message, and nothing behind it. */
    int depth = 0;
    for (char *c = text; *c != '\0'; c++) {
        depth += *c == '{' || *c == '[' ? 1 : *c == '}' || *c == ']' ? -1 : 0;
        if (depth == 0 && c[1] != '\0') fail_msg("two messages in one: %s", text);
    }
    free(text);
    buf_drop_front(&p->in, whole);
}

#define HELLO      "{\"type\":\"hello\"}"
#define REQ(id, r) "{\"type\":\"request\",\"request_id\":" #id ",\"request\":" r "}"
#define OPEN(s)    "{\"type\":\"open_stream\",\"stream_id\":" #s "}"
#define SHUT(s)    "{\"type\":\"close_stream\",\"stream_id\":" #s "}"
#define DO(s, sql) "{\"type\":\"execute\",\"stream_id\":" #s ",\"stmt\":{\"sql\":\"" sql "\"}}"
#define CURSOR(s, c, steps)                                                                        \
    "{\"type\":\"open_cursor\",\"stream_id\":" #s ",\"cursor_id\":" #c                             \
    ",\"batch\":{\"steps\":[" steps "]}}"
#define FETCH(c)    "{\"type\":\"fetch_cursor\",\"cursor_id\":" #c ",\"max_count\":100}"
#define UNCURSOR(c) "{\"type\":\"close_cursor\",\"cursor_id\":" #c "}"
#define ID(n)       "\"request_id\":" #n
#endif
