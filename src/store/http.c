/*
 * http.c -- see http.h. A request is a struct trip that lives as long as http_send; each of its
 * tries goes
 *
 *   dress    headers: the driver's, Range and If-Match of what is left to get, what sign adds
 *   equip    a libcurl handle from the pool, its options
 *   drive    libcurl's loop, by hand: cancellation, the deadline and the stall limit are looked at
 *            every SLICE_MS, whatever the network does
 *   conclude what the answer, or its absence, means
 *
 * and retry_run decides whether there is another one.
 *
 * libcurl itself sends a request again, on a new connection, when an idle one turns out to be dead.
 * The service may have had the first one, so each sending is noticed (on_issue): one that was whole
 * makes the answer `lost`, and what is not idempotent is not sent again.
 */
#include "store/http.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/http_pool.h"
#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define SLICE_MS     50
#define BUFFER_SIZE  (128L << 10)
#define RATE_MIN     1024        /* bytes per second that a try must reach, beside stall_ms */
#define PROGRESS_MIN (8u << 20)  /* got with all tries of a run: there is another run */
#define REST_MAX     (64u << 10) /* bytes that are read for nothing, to keep a connection */
#define DETAIL_MAX   240         /* bytes of a service's own words in a text */

struct http {
    struct pacer *pacer;
    struct store *store;
    bool skip_verify, no_proxy;
    char *ca_file, *ca_folder, *unix_socket; /* NULL: none given */
    int64_t connect_ms, stall_ms;
};

struct trip {
    struct http *h;
    const struct call *c;
    struct http_req *req;
    struct http_resp *resp;
    char origin[280];
    const char *host; /* in origin */
    bool revived;     /* a dead idle connection was met already */

    /* The object, from the first answer that began to deliver it. */
    char etag[STORE_ETAG_MAX], modified[64];
    uint64_t total, want; /* bytes of the object, bytes for the sink */
    bool total_known, want_known;

    /* This try. */
    struct http_link *link;
    struct curl_slist *lines;
    enum rc rc; /* a failure that is not libcurl's, its text in err */
    struct err err;
    bool own;                /* it came from the sink, the body or a limit: no other try */
    bool asked, conditional; /* Range, If-Match were sent by us */
    unsigned issued;         /* times that libcurl began to send */
    uint64_t body_size, sent, sent_most;
    int64_t start_ms, moved_ms, apart_ms; /* apart: spent in the sink and the body */
    curl_off_t up_seen;
    size_t head_bytes;
    bool head_done, sinking, enough, http1;
    uint64_t skip, left, announced, received; /* left: of a 206 */
    bool left_known, announced_known;
};

static void http_free(struct http *h);
static const char *env(const char *name);
static bool keep(const char *text, char **ret_copy);
static enum rc check(const struct http_req *req, struct trip *t, struct err *err);
static enum rc try_once(void *ctx, struct retry_hint *hint, struct err *err);
static enum rc dress(struct trip *t, struct err *err);
static enum rc equip(struct trip *t, struct err *err);
static CURLcode set_options(struct trip *t, CURL *e);
static CURLcode set_callbacks(struct trip *t, CURL *e);
static CURLcode drive(struct trip *t);
static enum rc watch(struct trip *t);
static int64_t limit_ms(const struct trip *t);
static int on_issue(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port);
static size_t on_read(char *dst, size_t one, size_t count, void *arg);
static int on_seek(void *arg, curl_off_t off, int origin);
static size_t on_line(char *line, size_t one, size_t count, void *arg);
static size_t on_body(char *data, size_t one, size_t count, void *arg);
static bool collect(struct trip *t, const char *data, size_t size);
static bool deliver(struct trip *t, const char *data, size_t size);
static bool long_rest(const struct trip *t);
static enum rc head_end(struct trip *t);
static enum rc sink_begin(struct trip *t);
static enum rc same_object(struct trip *t, const char *etag, const char *modified, bool known,
                           uint64_t total);
static void remember(struct trip *t, const char *etag, const char *modified);
static bool fail(struct trip *t, enum rc rc);
static enum rc conclude(struct trip *t, CURLcode code, struct retry_hint *hint, struct err *err);
static bool got_all(const struct trip *t);
static enum rc past_the_end(struct trip *t, struct err *err);
static enum rc no_answer(struct trip *t, CURLcode code, struct retry_hint *hint, struct err *err);
static enum rc rc_of_curl(const struct trip *t, CURLcode code);
static void account(struct trip *t, enum rc rc, const struct retry_hint *hint);
static bool range_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last,
                        bool *ret_total_known, uint64_t *ret_total);
static bool number(const char **at, uint64_t *ret);
static int64_t date_parse(const char *text);
static void clean(char *text);
static bool is(const struct http_req *req, const char *method);
static bool has_header(const struct http_req *req, const char *name);

enum rc http_open(const struct http_conf *conf, struct http **ret_http, struct err *err)
{
    struct http *h = mem_calloc(1, sizeof *h);
    if (h == NULL) return err_mem(err, conf->service);
    *h = (struct http){.store = conf->store,
                       .skip_verify = conf->skip_verify,
                       .no_proxy = conf->no_proxy,
                       .connect_ms = conf->connect_ms > 0 ? conf->connect_ms : HTTP_CONNECT_MS,
                       .stall_ms = conf->stall_ms > 0 ? conf->stall_ms : HTTP_STALL_MS};
    enum rc rc = RC_OK;
    if (!keep(conf->ca_file != NULL ? conf->ca_file : env("SSL_CERT_FILE"), &h->ca_file) ||
        !keep(conf->ca_file == NULL ? env("SSL_CERT_DIR") : NULL, &h->ca_folder) ||
        !keep(conf->unix_socket, &h->unix_socket))
        rc = err_mem(err, conf->service);
    const struct store_conf *sc = conf->conf;
    if (rc == RC_OK)
        rc = pacer_open(conf->service, sc != NULL ? sc->on_trouble : NULL,
                        sc != NULL ? sc->on_trouble_ctx : NULL, &h->pacer, err);
    if (rc == RC_OK && (rc = http_pool_ref(err)) == RC_OK) {
        *ret_http = h;
        return RC_OK;
    }
    http_free(h);
    return rc;
}

void http_close(struct http *h)
{
    if (h == NULL) return;
    http_pool_unref();
    http_free(h);
}

enum rc http_judge(const struct http_req *req, const struct http_resp *resp, const char *detail,
                   struct retry_hint *hint, struct err *err)
{
    enum rc rc = RC_INVALID;
    switch (resp->status) {
    case 401:
    case 403:
        rc = RC_DENIED;
        break;
    case 404:
        rc = RC_NOT_FOUND;
        break;
    case 409:
    case 412:
        rc = RC_CONFLICT;
        break;
    case 413:
        rc = RC_TOO_BIG;
        break;
    case 501:
        rc = RC_UNSUPPORTED;
        break;
    case 507:
        rc = RC_NO_SPACE;
        break;
    case 408:
    case 429:
        rc = RC_AGAIN;
        break;
    default:
        rc = resp->status >= 500 ? RC_AGAIN : RC_INVALID;
        break;
    }
    if (resp->status == 429 || resp->status == 503) hint->throttled = true;
    char words[DETAIL_MAX] = "", reason[64] = "";
    if (detail != NULL) snprintf(words, sizeof words, "%s", detail);
    const char *line = resp->headers.size > 0 ? (const char *)resp->headers.data : "";
    const char *blank = strchr(line, ' ');
    if (blank != NULL) blank = strchr(blank + 1, ' ');
    if (blank != NULL) snprintf(reason, sizeof reason, "%s", blank);
    clean(words);
    clean(reason);
    return err_set(err, rc, "%s: %d%s%s%s", req->what, resp->status, reason[1] ? reason : "",
                   words[0] ? ": " : "", words);
}

enum rc http_answer_header(struct http_req *req, struct err *err, const char *name, const char *fmt,
                           ...)
{
    struct buf *b = &req->headers;
    size_t before = b->size;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) return err_set(err, RC_INVALID, "%s: header '%s'", req->what, name);
    size_t name_size = strlen(name), value_size = (size_t)n;
    if (before + name_size + value_size > HTTP_HEADERS_MAX)
        return err_set(err, RC_INVALID, "%s: the header '%s' is too long", req->what, name);
    TRY(buf_reserve(b, name_size + value_size + 3, err));
    char *at = (char *)b->data + before;
    memcpy(at, name, name_size);
    memcpy(at + name_size, ": ", 2);
    va_start(ap, fmt);
    vsnprintf(at + name_size + 2, value_size + 1, fmt, ap);
    va_end(ap);
    if (name_size == 0 || strpbrk(at, "\r\n") != NULL || strpbrk(name, ": \t") != NULL)
        return err_set(err, RC_INVALID, "%s: a header cannot hold that", req->what);
    b->size += name_size + value_size + 3;
    return RC_OK;
}

bool http_header_next(const struct http_req *req, size_t *at, const char **ret_name,
                      size_t *ret_name_size, const char **ret_value)
{
    if (*at >= req->headers.size) return false;
    const char *line = (const char *)req->headers.data + *at;
    const char *colon = strchr(line, ':');
    *ret_name = line;
    *ret_name_size = (size_t)(colon - line);
    *ret_value = colon + 2;
    *at += strlen(line) + 1;
    return true;
}

void http_req_fini(struct http_req *req)
{
    buf_fini(&req->headers);
}

const char *http_resp_header(const struct http_resp *resp, const char *name)
{
    size_t name_size = strlen(name);
    const char *at = (const char *)resp->headers.data;
    for (size_t off = 0; off < resp->headers.size; off += strlen(at + off) + 1) {
        const char *line = at + off;
        if (strncasecmp(line, name, name_size) != 0 || line[name_size] != ':') continue;
        line += name_size + 1;
        return line + strspn(line, " \t");
    }
    return NULL;
}

void http_resp_fini(struct http_resp *resp)
{
    buf_fini(&resp->headers);
    buf_fini(&resp->text);
}

enum rc http_send(struct http *h, const struct call *c, struct http_req *req,
                  struct http_resp *resp, struct err *err)
{
    struct trip t = {.h = h, .c = c, .req = req, .resp = resp};
    TRY(check(req, &t, err));
    req->headers_fixed = req->headers.size;
    req->delivered = 0;
    resp->lost = false;
    enum rc rc;
    uint64_t before;
    do { /* A long get that breaks now and then, but goes on, has tries enough. */
        before = req->delivered;
        rc = retry_run(h->pacer, c, try_once, &t, err);
    } while (rc == RC_AGAIN && !t.own && (c == NULL || c->deadline_ms == 0) && is(req, "GET") &&
             req->delivered - before >= PROGRESS_MIN);
    req->headers.size = req->headers_fixed;
    return rc;
}

static void http_free(struct http *h)
{
    pacer_close(h->pacer);
    mem_free(h->ca_file);
    mem_free(h->ca_folder);
    mem_free(h->unix_socket);
    mem_free(h);
}

/* NULL: not set, or to nothing. */
static const char *env(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* False: no memory. */
static bool keep(const char *text, char **ret_copy)
{
    if (text != NULL) *ret_copy = mem_strdup(text);
    return text == NULL || *ret_copy != NULL;
}

/* The URL in parts that may be told. */
static enum rc check(const struct http_req *req, struct trip *t, struct err *err)
{
    const char *host = strstr(req->url, "://");
    if (host == NULL || (strncasecmp(req->url, "http:", 5) && strncasecmp(req->url, "https:", 6)))
        return err_set(err, RC_INVALID, "%s: neither an http nor an https URL", req->what);
    host += 3;
    size_t head = (size_t)(host - req->url), size = strcspn(host, "/?#");
    if (memchr(host, '@', size) != NULL)
        return err_set(err, RC_INVALID, "%s: a URL with a user in it", req->what);
    if (size == 0 || head + size >= sizeof t->origin || req->url[head + size] == '#')
        return err_set(err, RC_INVALID, "%s: a URL without a usable host", req->what);
    memcpy(t->origin, req->url, head + size);
    t->origin[head + size] = '\0';
    t->host = t->origin + head;
    return RC_OK;
}

static enum rc try_once(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct trip *t = ctx;
    struct http_req *req = t->req;
    struct http_resp *resp = t->resp;
    t->rc = RC_OK;
    t->own = t->asked = t->conditional = false;
    t->issued = 0;
    t->body_size = req->body != NULL ? req->body_size : req->data_size;
    t->sent = t->sent_most = t->skip = t->left = t->announced = t->received = 0;
    t->start_ms = t->moved_ms = t->apart_ms = 0;
    t->up_seen = 0;
    t->head_bytes = 0;
    t->head_done = t->sinking = t->enough = t->http1 = false;
    t->left_known = t->announced_known = false;
    resp->status = 0;
    resp->date_ms = 0;
    buf_reset(&resp->headers);
    buf_reset(&resp->text);
    TRY(buf_reserve(&resp->text, 1, err));
    resp->text.data[0] = '\0';
    TRY(dress(t, err));
    TRY(http_link_take(t->origin, &t->link, err));
    enum rc rc = equip(t, err);
    if (rc == RC_OK) {
        CURLcode code = drive(t);
        /* libcurl 7.88 takes a handle that met an unknown name for one with a bad option. */
        t->link->spent = code == CURLE_COULDNT_RESOLVE_HOST;
        rc = conclude(t, code, hint, err);
        account(t, rc, hint);
    }
    curl_slist_free_all(t->lines);
    t->lines = NULL;
    http_link_give(t->link);
    t->link = NULL;
    return rc;
}

static enum rc dress(struct trip *t, struct err *err)
{
    struct http_req *req = t->req;
    req->headers.size = req->headers_fixed;
    uint64_t off = (req->ranged ? req->range_off : 0) + req->delivered;
    if (req->sink != NULL && (off > 0 || (req->ranged && req->range_size > 0))) {
        t->asked = true;
        if (req->ranged && req->range_size > 0)
            TRY(http_answer_header(req, err, "Range", "bytes=%" PRIu64 "-%" PRIu64, off,
                                   req->range_off + req->range_size - 1));
        else
            TRY(http_answer_header(req, err, "Range", "bytes=%" PRIu64 "-", off));
        /* A weak etag cannot be a condition for a part; it is compared with the answer's. */
        if (req->delivered > 0 && t->etag[0] == '"' && !has_header(req, "If-Match")) {
            t->conditional = true;
            TRY(http_answer_header(req, err, "If-Match", "%s", t->etag));
        }
    }
    return req->sign != NULL ? req->sign(req->ctx, req, err) : RC_OK;
}

static enum rc equip(struct trip *t, struct err *err)
{
    CURL *e = t->link->easy;
    const char *line, *value, *more[] = {"Expect:", "Content-Type:"};
    size_t at = 0, name_size, count = has_header(t->req, "Content-Type") ? 1 : 2;
    CLEANUP(buf_fini) struct buf bare = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        struct curl_slist *lines = curl_slist_append(t->lines, more[i]);
        if (lines == NULL) return err_mem(err, "HTTP headers");
        t->lines = lines;
    }
    while (http_header_next(t->req, &at, &line, &name_size, &value)) {
        if (value[0] == '\0') { /* libcurl's way to say: this header, empty */
            buf_reset(&bare);
            TRY(buf_printf(&bare, err, "%.*s;", (int)name_size, line));
            line = (const char *)bare.data;
        }
        struct curl_slist *lines = curl_slist_append(t->lines, line);
        if (lines == NULL) return err_mem(err, "HTTP headers");
        t->lines = lines;
    }
    CURLcode code = set_options(t, e);
    if (code == CURLE_OK) code = set_callbacks(t, e);
    if (code == CURLE_OK) return RC_OK;
    if (code == CURLE_OUT_OF_MEMORY) return err_mem(err, "an HTTP request");
    return err_set(err, RC_UNSUPPORTED, "%s: libcurl: %s", t->req->what, curl_easy_strerror(code));
}

#define SET(option, value)                                                                         \
    do {                                                                                           \
        CURLcode set_code_ = curl_easy_setopt(e, option, value);                                   \
        if (set_code_ != CURLE_OK) return set_code_;                                               \
    } while (0)

static CURLcode set_options(struct trip *t, CURL *e)
{
    const struct http_req *req = t->req;
    const struct http *h = t->h;
    SET(CURLOPT_URL, req->url);
    SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    SET(CURLOPT_QUICK_EXIT, 1L); /* a cancelled request does not wait for a slow name server */
#endif
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)h->connect_ms);
    SET(CURLOPT_BUFFERSIZE, BUFFER_SIZE);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_SIZE);
    SET(CURLOPT_ERRORBUFFER, t->link->trouble);
    SET(CURLOPT_HTTPHEADER, t->lines);
    if (!has_header(req, "User-Agent")) SET(CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
    if (h->no_proxy) SET(CURLOPT_NOPROXY, "*");
    if (h->unix_socket != NULL) SET(CURLOPT_UNIX_SOCKET_PATH, h->unix_socket);
    if (h->ca_file != NULL) SET(CURLOPT_CAINFO, h->ca_file);
    if (h->ca_folder != NULL) SET(CURLOPT_CAPATH, h->ca_folder);
    SET(CURLOPT_SSL_VERIFYPEER, h->skip_verify ? 0L : 1L);
    SET(CURLOPT_SSL_VERIFYHOST, h->skip_verify ? 0L : 2L);
    if (is(req, "HEAD")) {
        SET(CURLOPT_NOBODY, 1L);
        return CURLE_OK;
    }
    if (t->body_size > 0 || is(req, "PUT") || is(req, "POST")) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->body_size);
    }
    SET(CURLOPT_CUSTOMREQUEST, req->method);
    return CURLE_OK;
}

static CURLcode set_callbacks(struct trip *t, CURL *e)
{
    SET(CURLOPT_PREREQFUNCTION, on_issue);
    SET(CURLOPT_PREREQDATA, t);
    SET(CURLOPT_READFUNCTION, on_read);
    SET(CURLOPT_READDATA, t);
    SET(CURLOPT_SEEKFUNCTION, on_seek);
    SET(CURLOPT_SEEKDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_line);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    return CURLE_OK;
}

/* A TLS library writes to a socket that may be closed, so SIGPIPE waits while this goes on; one
 * that came meanwhile is taken away. Threads of thr_start have it blocked anyway. */
static CURLcode drive(struct trip *t)
{
    CURLM *m = t->link->multi;
    CURL *e = t->link->easy;
    sigset_t pipe_only, old, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &old);
    CURLcode code = CURLE_OUT_OF_MEMORY;
    bool added = curl_multi_add_handle(m, e) == CURLM_OK;
    for (int running = 1, queued; added;) {
        if (curl_multi_perform(m, &running) != CURLM_OK) break;
        if (running == 0) {
            CURLMsg *msg = curl_multi_info_read(m, &queued);
            if (msg != NULL) code = msg->data.result;
            break;
        }
        if (t->rc == RC_OK) t->rc = watch(t);
        if (t->rc != RC_OK) {
            code = CURLE_ABORTED_BY_CALLBACK;
            break;
        }
        if (curl_multi_poll(m, NULL, 0, SLICE_MS, NULL) != CURLM_OK) break;
    }
    if (added) curl_multi_remove_handle(m, e);
    if (!sigismember(&old, SIGPIPE)) {
        const struct timespec none = {0};
        if (sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE))
            sigtimedwait(&pipe_only, NULL, &none);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    return code;
}

/* Limits of time. The connect timeout is libcurl's; the others count from the connection on. */
static enum rc watch(struct trip *t)
{
    struct err *err = &t->err;
    if (call_check(t->c, err) != RC_OK) return err_wrap(err, "%s", t->req->what);
    if (t->issued == 0) return RC_OK;
    int64_t now_ms = os_mono_ms();
    curl_off_t up = 0;
    if (curl_easy_getinfo(t->link->easy, CURLINFO_SIZE_UPLOAD_T, &up) == CURLE_OK &&
        up != t->up_seen) {
        t->up_seen = up;
        t->moved_ms = now_ms;
    }
    if (now_ms - t->moved_ms > t->h->stall_ms)
        return err_set(err, RC_AGAIN, "%s: %s: no byte moved for %lld ms", t->req->what, t->host,
                       (long long)(now_ms - t->moved_ms));
    int64_t spent_ms = now_ms - t->start_ms - t->apart_ms;
    if (spent_ms > limit_ms(t))
        return err_set(err, RC_AGAIN, "%s: %s: too slow, given up after %lld ms", t->req->what,
                       t->host, (long long)spent_ms);
    return RC_OK;
}

/* A service may keep a connection busy with blanks while it thinks, so a text of unknown size has
 * the time that the longest one may take; an object must come at RATE_MIN. */
static int64_t limit_ms(const struct trip *t)
{
    uint64_t size = t->body_size;
    if (t->head_done && t->announced_known)
        size += t->announced;
    else if (t->head_done)
        size += t->sinking ? t->received : t->req->text_max ? t->req->text_max : HTTP_TEXT_MAX;
    if (size > (UINT64_C(1) << 50)) size = UINT64_C(1) << 50;
    return t->h->stall_ms + (int64_t)(size * 1000 / RATE_MIN);
}

static int on_issue(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct trip *t = arg;
    (void)peer_ip, (void)own_ip, (void)peer_port, (void)own_port;
    t->moved_ms = os_mono_ms();
    if (t->issued++ == 0) {
        t->start_ms = t->moved_ms;
        return CURL_PREREQFUNC_OK;
    }
    if (t->sent_most < t->body_size) return CURL_PREREQFUNC_OK;
    t->resp->lost = true;
    return t->req->idempotent ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static size_t on_read(char *dst, size_t one, size_t count, void *arg)
{
    struct trip *t = arg;
    const struct http_req *req = t->req;
    size_t size = one * count;
    if (size > t->body_size - t->sent) size = (size_t)(t->body_size - t->sent);
    if (size == 0) return 0;
    if (req->body != NULL) {
        int64_t from_ms = os_mono_ms();
        enum rc rc = req->body->read(req->body->ctx, req->body_off + t->sent, dst, size, &t->err);
        t->moved_ms = os_mono_ms();
        t->apart_ms += t->moved_ms - from_ms;
        if (rc != RC_OK) {
            fail(t, rc);
            return CURL_READFUNC_ABORT;
        }
    } else {
        memcpy(dst, (const char *)req->data + t->sent, size);
    }
    t->sent += size;
    if (t->sent > t->sent_most) t->sent_most = t->sent;
    return size;
}

static int on_seek(void *arg, curl_off_t off, int origin)
{
    struct trip *t = arg;
    if (origin != SEEK_SET || off < 0 || (uint64_t)off > t->body_size) return CURL_SEEKFUNC_FAIL;
    t->sent = (uint64_t)off;
    return CURL_SEEKFUNC_OK;
}

/* One line of the head. Those of 1xx answers and of a proxy are overwritten by the next status
 * line; trailers are passed over. */
static size_t on_line(char *line, size_t one, size_t count, void *arg)
{
    struct trip *t = arg;
    struct buf *b = &t->resp->headers;
    size_t whole = one * count, size = whole;
    t->moved_ms = os_mono_ms();
    t->head_bytes += whole;
    if (t->head_bytes > HTTP_HEADERS_MAX) {
        err_set(&t->err, RC_TOO_BIG, "%s: %s: more than %u bytes of headers", t->req->what, t->host,
                HTTP_HEADERS_MAX);
        return fail(t, RC_TOO_BIG) ? whole : 0;
    }
    if (t->head_done) return whole;
    while (size > 0 && isspace((unsigned char)line[size - 1]))
        size--;
    if (size == 0) {
        if (t->resp->status < 200) return whole;
        enum rc rc = head_end(t);
        return rc == RC_OK || fail(t, rc) ? whole : 0;
    }
    bool status = size >= 9 && strncasecmp(line, "HTTP/", 5) == 0;
    if (status) {
        const char *at = memchr(line, ' ', size);
        uint64_t n = 0;
        t->resp->status = at != NULL && ++at && number(&at, &n) && n < 1000 ? (int)n : 0;
        t->http1 = line[5] == '1';
        buf_reset(b);
    }
    if (buf_append(b, line, size, &t->err) != RC_OK || buf_append(b, "", 1, &t->err) != RC_OK)
        return fail(t, RC_NO_MEM) ? whole : 0;
    return whole;
}

static size_t on_body(char *data, size_t one, size_t count, void *arg)
{
    struct trip *t = arg;
    size_t size = one * count;
    t->moved_ms = os_mono_ms();
    t->received += size;
    if (t->sinking ? deliver(t, data, size) : collect(t, data, size)) return size;
    return size == 0 ? 1 : 0; /* anything but size ends the transfer */
}

static bool collect(struct trip *t, const char *data, size_t size)
{
    struct buf *b = &t->resp->text;
    size_t max = t->req->text_max ? t->req->text_max : HTTP_TEXT_MAX, fits = size;
    if (size > max - b->size) {
        fits = max - b->size;
        if (t->resp->status < 300) {
            err_set(&t->err, RC_TOO_BIG, "%s: %s: an answer of more than %zu bytes", t->req->what,
                    t->host, max);
            return fail(t, RC_TOO_BIG);
        }
        t->enough = true; /* the beginning of a sermon says what is wrong */
    }
    if (buf_reserve(b, fits + 1, &t->err) != RC_OK) return fail(t, RC_NO_MEM);
    memcpy(b->data + b->size, data, fits);
    b->size += fits;
    b->data[b->size] = '\0';
    return !t->enough;
}

static bool deliver(struct trip *t, const char *data, size_t size)
{
    struct http_req *req = t->req;
    if (t->left_known && size > t->left) {
        err_set(&t->err, RC_CORRUPT, "%s: %s: more bytes than announced", req->what, t->host);
        return fail(t, RC_CORRUPT);
    }
    t->left -= t->left_known ? size : 0;
    size_t skip = size < t->skip ? size : (size_t)t->skip;
    t->skip -= skip;
    data += skip;
    size -= skip;
    uint64_t most = t->want_known                    ? t->want
                    : req->ranged && req->range_size ? req->range_size
                                                     : UINT64_MAX;
    if (size > most - req->delivered) {
        size = (size_t)(most - req->delivered);
        t->enough = long_rest(t);
    }
    if (t->want_known && t->want == 0) t->enough = long_rest(t);
    if (size > 0) {
        int64_t from_ms = t->moved_ms;
        if (call_check(t->c, &t->err) != RC_OK) return fail(t, err_wrap(&t->err, "%s", req->what));
        enum rc rc = req->sink(req->sink_ctx, data, size, &t->err);
        t->moved_ms = os_mono_ms();
        t->apart_ms += t->moved_ms - from_ms;
        if (rc != RC_OK) return fail(t, rc);
        req->delivered += size;
    }
    return !t->enough;
}

/* Past the range of a service that ignores ranges: is what follows more than a new connection is
 * worth? */
static bool long_rest(const struct trip *t)
{
    return !t->announced_known || t->announced - t->received > REST_MAX;
}

/* The head is whole and its status is final. */
static enum rc head_end(struct trip *t)
{
    struct http_resp *resp = t->resp;
    t->head_done = true;
    const char *text = http_resp_header(resp, "Date");
    if (text != NULL) resp->date_ms = date_parse(text);
    text = http_resp_header(resp, "Content-Length");
    if (text != NULL && http_resp_header(resp, "Transfer-Encoding") == NULL)
        t->announced_known = number(&text, &t->announced) && *text == '\0';
    if (resp->status == 204 || resp->status == 205) t->announced_known = true, t->announced = 0;
    if (resp->status >= 300 || t->req->sink == NULL || is(t->req, "HEAD")) return RC_OK;
    t->sinking = true;
    return sink_begin(t);
}

/* What of the body that follows is for the sink, and is it of the object that was begun? */
static enum rc sink_begin(struct trip *t)
{
    struct http_req *req = t->req;
    const char *what = req->what, *etag = http_resp_header(t->resp, "ETag");
    const char *modified = http_resp_header(t->resp, "Last-Modified");
    uint64_t from = req->ranged ? req->range_off : 0, at = from + req->delivered, total = 0;
    bool known = t->announced_known;
    if (etag == NULL || strlen(etag) >= sizeof t->etag) etag = "";
    if (modified == NULL || strlen(modified) >= sizeof t->modified) modified = "";
    if (t->resp->status == 206) {
        uint64_t first, last, end = req->ranged ? req->range_off + req->range_size : 0;
        const char *range = http_resp_header(t->resp, "Content-Range");
        if (!t->asked || range == NULL || !range_parse(range, &first, &last, &known, &total) ||
            first != at || (req->ranged && req->range_size > 0 && last >= end) ||
            (t->announced_known && t->announced != last - first + 1))
            return err_set(&t->err, RC_CORRUPT, "%s: %s answers with another range than asked for",
                           what, t->host);
        /* The service may have sent less than was asked for. */
        bool rest = req->delivered > 0 && t->total_known;
        bool whole = req->ranged && req->range_size > 0 && last + 1 == end;
        if (!known && !rest && !whole)
            return err_set(&t->err, RC_CORRUPT, "%s: %s does not say how long the object is", what,
                           t->host);
        t->left_known = true;
        t->left = last - first + 1;
    } else {
        total = t->announced;
        t->skip = at;
        if (!known && t->http1 && http_resp_header(t->resp, "Transfer-Encoding") == NULL)
            return err_set(&t->err, RC_CORRUPT, "%s: %s does not say how long its answer is", what,
                           t->host);
    }
    if (req->delivered > 0) {
        TRY(same_object(t, etag, modified, known, total));
    } else {
        t->total_known = known;
        t->total = total;
        remember(t, etag, modified);
    }
    t->want_known = t->total_known;
    if (t->want_known) {
        t->want = t->total > from ? t->total - from : 0;
        if (req->ranged && req->range_size > 0 && t->want > req->range_size)
            t->want = req->range_size;
    }
    return RC_OK;
}

static enum rc same_object(struct trip *t, const char *etag, const char *modified, bool known,
                           uint64_t total)
{
    if ((etag[0] == '\0' || t->etag[0] == '\0' || strcmp(etag, t->etag) == 0) &&
        (!known || !t->total_known || total == t->total) &&
        (etag[0] != '\0' || modified[0] == '\0' || t->modified[0] == '\0' ||
         strcmp(modified, t->modified) == 0))
        return RC_OK;
    return err_set(&t->err, RC_CORRUPT, "%s: it changed while it was read", t->req->what);
}

static void remember(struct trip *t, const char *etag, const char *modified)
{
    struct http_req *req = t->req;
    snprintf(t->etag, sizeof t->etag, "%s", etag);
    snprintf(t->modified, sizeof t->modified, "%s", modified);
    if (req->ret_obj != NULL) {
        req->ret_obj->size = t->total_known ? t->total : STORE_SIZE_UNKNOWN;
        req->ret_obj->mtime_ms = date_parse(modified);
        memcpy(req->ret_obj->etag, t->etag, sizeof t->etag);
    }
    if (req->on_head != NULL) req->on_head(req->ctx, t->resp);
}

/* End the transfer for a reason that another try does not mend; the text is in t->err. */
static bool fail(struct trip *t, enum rc rc)
{
    t->rc = rc;
    t->own = true;
    return false;
}

static enum rc conclude(struct trip *t, CURLcode code, struct retry_hint *hint, struct err *err)
{
    struct http_req *req = t->req;
    struct http_resp *resp = t->resp;
    int status = resp->status;
    bool all = t->sinking && got_all(t);
    /* A refusal counts even if the connection broke behind its head. */
    bool answered =
        t->rc == RC_OK && t->head_done && (code == CURLE_OK || t->enough || all || status >= 300);
    bool whole = t->issued > 0 && t->sent_most >= t->body_size;
    if (answered ? status >= 500 || status == 408 : whole) resp->lost = true;
    enum rc rc;
    if (t->rc != RC_OK) {
        hint->final = t->own;
        *err = t->err;
        rc = t->rc;
    } else if (!answered) {
        rc = no_answer(t, code, hint, err);
    } else if (t->sinking) {
        rc = RC_OK;
        if (t->want_known && !all)
            rc = err_set(err, RC_AGAIN,
                         "%s: %s: the answer ended after %" PRIu64 " of %" PRIu64 " bytes",
                         req->what, t->host, req->delivered, t->want);
    } else if (status < 300) {
        rc = RC_OK;
    } else if (status == 416 && t->asked) {
        rc = past_the_end(t, err);
    } else if (status == 412 && t->conditional) {
        rc = err_set(err, RC_CORRUPT, "%s: it changed while it was read", req->what);
    } else {
        const char *after = http_resp_header(resp, "Retry-After");
        uint64_t s = 0;
        if (after != NULL && number(&after, &s))
            hint->after_ms = s < 86400 ? (int64_t)s * 1000 : 86400000;
        else if (after != NULL && date_parse(after) > 0)
            hint->after_ms = date_parse(after) - (resp->date_ms ? resp->date_ms : os_now_ms());
        rc = req->judge != NULL ? req->judge(req->ctx, req, resp, hint, err)
                                : http_judge(req, resp, NULL, hint, err);
    }
    bool repeatable = (req->idempotent || !resp->lost) && (req->delivered == 0 || is(req, "GET"));
    if ((rc == RC_AGAIN || rc == RC_BUSY) && !repeatable) hint->final = true;
    return rc;
}

/* Has the sink had all that it wants? */
static bool got_all(const struct trip *t)
{
    const struct http_req *req = t->req;
    if (t->want_known) return req->delivered == t->want;
    return req->ranged && req->range_size > 0 && req->delivered == req->range_size;
}

/* 416: the object ends before what was asked for. */
static enum rc past_the_end(struct trip *t, struct err *err)
{
    struct http_req *req = t->req;
    uint64_t total = 0, at = (req->ranged ? req->range_off : 0) + req->delivered;
    const char *text = http_resp_header(t->resp, "Content-Range");
    bool known = text != NULL && strncasecmp(text, "bytes */", 8) == 0;
    if (known) {
        text += 8;
        known = number(&text, &total) && *text == '\0';
    }
    /* In the middle of a get it can only mean: that was all, of what never said how long it is. */
    if ((known && total > at) || (req->delivered > 0 && (t->want_known || !known || total < at)))
        return err_set(err, RC_CORRUPT, "%s: it changed while it was read", req->what);
    if (req->delivered == 0 && req->ret_obj != NULL)
        req->ret_obj->size = known ? total : STORE_SIZE_UNKNOWN;
    return RC_OK;
}

static enum rc no_answer(struct trip *t, CURLcode code, struct retry_hint *hint, struct err *err)
{
    CURL *e = t->link->easy;
    long sys = 0, connects = 1;
    curl_easy_getinfo(e, CURLINFO_OS_ERRNO, &sys);
    curl_easy_getinfo(e, CURLINFO_NUM_CONNECTS, &connects);
    enum rc rc = rc_of_curl(t, code);
    /* The usual end of an idle connection, met too late for libcurl's own second try. */
    bool died = code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING;
    if (died && connects == 0 && t->head_bytes == 0 && !t->revived)
        hint->at_once = t->revived = true;
    if (code == CURLE_COULDNT_RESOLVE_HOST)
        return err_set(err, rc, "%s: the name '%s' cannot be resolved", t->req->what, t->host);
    if (code == CURLE_COULDNT_CONNECT && sys > 0)
        return err_sys(err, (int)sys, "%s: cannot connect to %s", t->req->what, t->host),
               err->rc = rc;
    if (code == CURLE_OUT_OF_MEMORY && rc == RC_TOO_BIG) /* that is how some libcurl say it */
        return err_set(err, rc, "%s: %s: a header that is too long, or memory is short",
                       t->req->what, t->host);
    if (code == CURLE_OUT_OF_MEMORY) return err_mem(err, "an HTTP request");
    if (code == CURLE_ABORTED_BY_CALLBACK) /* on_issue's refusal */
        return err_set(err, rc, "%s: %s: the connection broke before the answer", t->req->what,
                       t->host);
    char *trouble = t->link->trouble;
    clean(trouble);
    err_set(err, rc, "%s: %s: %s", t->req->what, t->host,
            trouble[0] ? trouble : curl_easy_strerror(code));
    err->sys = (int)sys;
    return rc;
}

static enum rc rc_of_curl(const struct trip *t, CURLcode code)
{
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_LOGIN_DENIED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ENGINE_NOTFOUND:
        return RC_INVALID;
    case CURLE_UNSUPPORTED_PROTOCOL:
        return t->issued > 0 ? RC_AGAIN : RC_INVALID; /* HTTP/0.9 */
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return RC_DENIED;
    case CURLE_OUT_OF_MEMORY:
        return t->issued > 0 && !t->head_done ? RC_TOO_BIG : RC_NO_MEM;
#if LIBCURL_VERSION_NUM >= 0x080600
    case CURLE_TOO_LARGE:
        return RC_TOO_BIG;
#endif
    default:
        return RC_AGAIN;
    }
}

static void account(struct trip *t, enum rc rc, const struct retry_hint *hint)
{
    struct store *s = t->h->store;
    if (s == NULL) return;
    bool ok = rc == RC_OK || rc == RC_NOT_FOUND || rc == RC_CONFLICT;
    store_count(s, t->req->op, ok, t->req->body != NULL ? t->sent_most : 0,
                t->sinking ? t->received : 0);
    if (hint->throttled) atomic_fetch_add(&s->counts.throttled, 1);
}

/* "bytes 0-9/10" or "bytes 0-9/" and a star. */
static bool range_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last,
                        bool *ret_total_known, uint64_t *ret_total)
{
    if (strncasecmp(text, "bytes", 5) != 0 || (text[5] != ' ' && text[5] != '=')) return false;
    text += 6;
    if (!number(&text, ret_first) || *text++ != '-' || !number(&text, ret_last) || *text++ != '/')
        return false;
    *ret_total_known = *text != '*';
    if (!*ret_total_known) return text[1] == '\0' && *ret_first <= *ret_last;
    /* Some answer for the byte behind the last one with an empty range, "bytes 10-9/10". */
    return number(&text, ret_total) && *text == '\0' && *ret_first <= *ret_last + 1 &&
           *ret_last < *ret_total;
}

static bool number(const char **at, uint64_t *ret)
{
    const char *s = *at;
    uint64_t n = 0;
    for (; *s >= '0' && *s <= '9' && s - *at < 19; s++)
        n = n * 10 + (uint64_t)(*s - '0');
    if (s == *at || (*s >= '0' && *s <= '9')) return false;
    *at = s;
    *ret = n;
    return true;
}

/* Ms since 1970; 0: no date. */
static int64_t date_parse(const char *text)
{
    time_t s = text[0] != '\0' ? curl_getdate(text, NULL) : -1;
    return s < 0 ? 0 : (int64_t)s * 1000;
}

/* What others wrote gets into messages: one line, no escapes for terminals. */
static void clean(char *text)
{
    for (; *text != '\0'; text++)
        if (iscntrl((unsigned char)*text)) *text = ' ';
}

static bool is(const struct http_req *req, const char *method)
{
    return strcmp(req->method, method) == 0;
}

static bool has_header(const struct http_req *req, const char *name)
{
    const char *line, *value;
    size_t at = 0, line_size, name_size = strlen(name);
    while (http_header_next(req, &at, &line, &line_size, &value))
        if (line_size == name_size && strncasecmp(line, name, name_size) == 0) return true;
    return false;
}
