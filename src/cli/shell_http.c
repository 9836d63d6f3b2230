/*
 * shell_http.c -- requests of the shell; see shell.h.
 *
 * Not store/http: a statement must not be sent twice, may take as long as it likes, and who sits
 * before a terminal wants to hear at once that a server is not there.
 */
#include "cli/shell.h"
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/sock.h"

#define CONNECT_MS 10000L
#define TEXT_MAX   (256u << 20) /* of an answer that is collected */

struct shell_http {
    CURL *easy;
};
struct transfer {
    CURL *easy;
    const struct call *call;
    shell_http_fn *fn;
    void *ctx;
    struct shell_answer *answer;
    enum rc rc; /* of what a callback did */
    struct err *err;
};

static enum rc set_up(struct transfer *t, const char *url, struct curl_slist *list,
                      const struct buf *body, char *reason);
static size_t on_data(char *data, size_t one, size_t size, void *ctx);
static int on_progress(void *ctx, curl_off_t down_all, curl_off_t down, curl_off_t up_all,
                       curl_off_t up);
static enum rc fail(struct transfer *t, CURLcode code, const char *reason);
static void free_list(struct curl_slist **list);

enum rc shell_http_open(struct shell_http **ret_h, struct err *err)
{
    struct shell_http *h = mem_calloc(1, sizeof *h);
    if (h == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        mem_free(h);
        return err_mem(err, "HTTP");
    }
    h->easy = curl_easy_init();
    if (h->easy == NULL) {
        shell_http_close(h);
        return err_mem(err, "HTTP");
    }
    *ret_h = h;
    return RC_OK;
}

void shell_http_close(struct shell_http *h)
{
    if (h == NULL) return;
    curl_easy_cleanup(h->easy);
    curl_global_cleanup();
    mem_free(h);
}

enum rc shell_http_send(struct shell_http *h, const struct call *call, const char *url,
                        const char *const *headers, const struct buf *body, shell_http_fn *fn,
                        void *ctx, struct shell_answer *ret, struct err *err)
{
    CLEANUP(free_list) struct curl_slist *list = NULL;
    char reason[CURL_ERROR_SIZE] = "";
    struct sock_quiet quiet;
    struct transfer t = {
        .easy = h->easy, .call = call, .fn = fn, .ctx = ctx, .answer = ret, .err = err};
    ret->status = 0;
    buf_reset(&ret->text);
    TRY(call_check(call, err));
    for (; *headers != NULL; headers++) {
        struct curl_slist *longer = curl_slist_append(list, *headers);
        if (longer == NULL) return err_mem(err, "a request");
        list = longer;
    }
    curl_easy_reset(h->easy); /* connections stay */
    if (set_up(&t, url, list, body, reason) != RC_OK) return err_mem(err, "a request");
    sock_quiet_begin(&quiet);
    CURLcode code = curl_easy_perform(h->easy);
    sock_quiet_end(&quiet);
    curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &ret->status);
    if (code != CURLE_OK || t.rc != RC_OK) return fail(&t, code, reason);
    return RC_OK;
}

static enum rc set_up(struct transfer *t, const char *url, struct curl_slist *list,
                      const struct buf *body, char *reason)
{
    CURL *e = t->easy;
    const char *ca = getenv("SSL_CERT_FILE");
    bool ok = curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_HTTPHEADER, list) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_ERRORBUFFER, reason) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "") == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_WRITEDATA, t) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_XFERINFODATA, t) == CURLE_OK;
    if (ok && ca != NULL && ca[0] != '\0') ok = curl_easy_setopt(e, CURLOPT_CAINFO, ca) == CURLE_OK;
    if (ok && body != NULL) {
        ok = curl_easy_setopt(e, CURLOPT_POST, 1L) == CURLE_OK;
        ok = ok && curl_easy_setopt(e, CURLOPT_POSTFIELDS, body->data) == CURLE_OK;
        ok = ok &&
             curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->size) == CURLE_OK;
    }
    return ok ? RC_OK : RC_NO_MEM;
}

static size_t on_data(char *data, size_t one, size_t size, void *ctx)
{
    struct transfer *t = ctx;
    long status = 0;
    (void)one;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status == 200 && t->fn != NULL)
        t->rc = t->fn(t->ctx, data, size, t->err);
    else if (t->answer->text.size + size > TEXT_MAX)
        t->rc = err_set(t->err, RC_TOO_BIG, "the answer has more than %u MiB", TEXT_MAX >> 20);
    else
        t->rc = buf_append(&t->answer->text, data, size, t->err);
    return t->rc == RC_OK ? size : 0;
}

static int on_progress(void *ctx, curl_off_t down_all, curl_off_t down, curl_off_t up_all,
                       curl_off_t up)
{
    struct transfer *t = ctx;
    (void)down_all, (void)down, (void)up_all, (void)up;
    if (t->rc == RC_OK) t->rc = call_check(t->call, t->err);
    return t->rc != RC_OK;
}

static enum rc fail(struct transfer *t, CURLcode code, const char *reason)
{
    const char *text = reason[0] != '\0' ? reason : curl_easy_strerror(code);
    if (t->rc != RC_OK) return t->rc;
    switch (code) {
    case CURLE_OUT_OF_MEMORY:
        return err_mem(t->err, "a request");
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_set(t->err, RC_INVALID, "%s", text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return err_set(t->err, RC_DENIED, "%s", text);
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return err_set(t->err, RC_AGAIN, "no whole answer came, so nobody knows what was done: %s",
                       text);
    default:
        return err_set(t->err, RC_AGAIN, "%s", text);
    }
}

static void free_list(struct curl_slist **list)
{
    curl_slist_free_all(*list);
}
