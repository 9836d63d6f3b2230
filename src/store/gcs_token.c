/* gcs_token.c -- see gcs_token.h. */
#include "store/gcs_token.h"
#include "base/mem.h"
#include "base/os.h"
#include "fmt/text.h"
#include "store/hash.h"
#include "store/http.h"
#include "store/token.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FILE_MAX       (64u << 10)
#define TOKEN_MAX      (16u << 10)
#define ANSWER_MAX     (64u << 10)
#define LIFE_S         3600  /* of a token whose answer does not say */
#define LIFE_MIN_S     1     /* shorter ones would be fetched all the time */
#define METADATA_MS    10000 /* for the metadata server, with all tries */
#define METADATA_HOST  "169.254.169.254"
#define GOOGLE_TOKENS  "https://oauth2.googleapis.com/token"
#define GOOGLE_STS     "https://sts.googleapis.com/v1/token"
#define SCOPE          "https://www.googleapis.com/auth/devstorage.read_write"
#define SCOPE_PLATFORM "https://www.googleapis.com/auth/cloud-platform"
#define GRANT          "urn:ietf:params:oauth:grant-type:"
#define TYPE_FORM      "application/x-www-form-urlencoded"
#define TYPE_JSON      "application/json"

struct gcs_token {
    struct gcs_token *next;    /* [list_lock] */
    unsigned refs;             /* [list_lock] */
    char path[OS_PATH_MAX];    /* [const] of the credentials file; "": there can be none */
    bool path_given;           /* [const] by the environment, so it must be there */
    char metadata[256];        /* [const] host and port */
    bool metadata_given;       /* [const] by the environment */
    atomic_bool metadata_seen; /* it has answered before */
    struct token token;
};

/* One token on its way. */
struct fetch {
    struct gcs_token *t;
    const struct call *c;
    struct buf *token; /* \0-terminated */
    int64_t life_ms;
};

/* One request for it. */
struct ask {
    const char *method, *url, *what;
    const char *type, *body; /* NULL: none */
    const char *bearer;      /* NULL: none */
    json_t *headers;         /* NULL, or an object of more headers */
    bool metadata;
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gcs_token *list; /* [list_lock] */

static void find_places(struct gcs_token *t);
static bool same_places(const struct gcs_token *a, const struct gcs_token *b);
static token_fetch_fn fetch_token;
static enum rc fetch_by_type(struct fetch *f, struct err *err);
static enum rc read_file(struct gcs_token *t, json_t **ret, struct err *err);
static enum rc need(struct gcs_token *t, const json_t *file, const char *key, const char **ret,
                    struct err *err);
static enum rc by_key(struct fetch *f, const json_t *file, struct err *err);
static enum rc jwt(struct gcs_token *t, const json_t *file, const char *audience, struct buf *out,
                   struct err *err);
static enum rc jwt_part(struct buf *out, json_t *part, struct err *err);
static enum rc by_refresh(struct fetch *f, const json_t *file, struct err *err);
static enum rc by_subject(struct fetch *f, const json_t *file, struct err *err);
static enum rc subject(struct fetch *f, const json_t *source, struct buf *out, struct err *err);
static enum rc impersonate(struct fetch *f, const char *url, struct err *err);
static enum rc by_metadata(struct fetch *f, struct err *err);
static enum rc add(struct buf *form, const char *name, const char *value, struct err *err);
static enum rc ask(struct fetch *f, const struct ask *a, struct buf *ret_text, struct err *err);
static enum rc ask_headers(const struct ask *a, struct http_req *req, struct err *err);
static enum rc ask_judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                         struct retry_hint *hint, struct err *err);
static enum rc ask_token(struct fetch *f, const struct ask *a, struct err *err);
static enum rc take_token(struct fetch *f, const char *token, int64_t life_s, const char *what,
                          struct err *err);
static int into_buf(const char *data, size_t size, void *b);

enum rc gcs_token_open(struct gcs_token **ret, struct err *err)
{
    struct gcs_token *t = mem_calloc(1, sizeof *t), *p;
    if (t == NULL) return err_mem(err, "a source of tokens");
    find_places(t);
    thr_lock(&list_lock);
    for (p = list; p != NULL && !same_places(p, t); p = p->next)
        continue;
    if (p == NULL) {
        token_init(&t->token, fetch_token, t);
        t->next = list;
        list = p = t;
        t = NULL;
    }
    p->refs++;
    thr_unlock(&list_lock);
    mem_free(t);
    *ret = p;
    return RC_OK;
}

void gcs_token_close(struct gcs_token *t)
{
    if (t == NULL) return;
    thr_lock(&list_lock);
    bool last = --t->refs == 0;
    for (struct gcs_token **p = &list; last && *p != NULL; p = &(*p)->next) {
        if (*p != t) continue;
        *p = t->next;
        break;
    }
    thr_unlock(&list_lock);
    if (!last) return;
    token_fini(&t->token);
    mem_free(t);
}

enum rc gcs_token_get(struct gcs_token *t, const struct call *c, struct buf *out, struct err *err)
{
    return token_get(&t->token, c, out, err);
}

void gcs_token_expired(struct gcs_token *t, const char *token)
{
    token_expired(&t->token, token);
}

enum rc gcs_token_signer(struct gcs_token *t, struct gcs_signer *ret, struct err *err)
{
    CLEANUP(gcs_json_freep) json_t *file = NULL;
    const char *email, *key;
    TRY(read_file(t, &file, err));
    if (file == NULL || strcmp(gcs_text(file, "type"), "service_account") != 0)
        return err_set(err, RC_UNSUPPORTED,
                       "links are signed with a service account's key, and the credentials here "
                       "are of another kind: let GOOGLE_APPLICATION_CREDENTIALS name a key file");
    TRY(need(t, file, "client_email", &email, err));
    TRY(need(t, file, "private_key", &key, err));
    TRY(buf_append(&ret->email, email, strlen(email) + 1, err));
    return buf_append(&ret->key, key, strlen(key) + 1, err);
}

void gcs_signer_fini(struct gcs_signer *s)
{
    buf_fini(&s->email);
    token_wipe(&s->key);
}

enum rc gcs_origin(const char *url, const char *what, char out[GCS_ORIGIN_MAX], struct err *err)
{
    struct url u;
    struct in_addr ip;
    if (url_get(url, &u, err) != RC_OK) return err_wrap(err, "%s", what);
    bool local = strcmp(u.host, "localhost") == 0 || strcmp(u.host, "::1") == 0 ||
                 strcmp(u.host, "[::1]") == 0 ||
                 (inet_pton(AF_INET, u.host, &ip) == 1 && ntohl(ip.s_addr) >> 24 == 127);
    bool plain = strcasecmp(u.scheme, "http") == 0;
    if (u.host[0] == '\0' || u.user[0] != '\0' || (!plain && strcasecmp(u.scheme, "https") != 0))
        return err_set(err, RC_INVALID, "%s: '%.100s' is not a URL of the form https://host", what,
                       url);
    if (plain && !local)
        return err_set(err, RC_INVALID,
                       "%s: '%.100s' would send secrets in the clear; it must begin with https://",
                       what, url);
    bool six = strchr(u.host, ':') != NULL && u.host[0] != '[';
    size_t used = (size_t)snprintf(out, GCS_ORIGIN_MAX, "%s://%s%s%s", plain ? "http" : "https",
                                   six ? "[" : "", u.host, six ? "]" : "");
    if (u.port != 0) snprintf(out + used, GCS_ORIGIN_MAX - used, ":%u", u.port);
    return RC_OK;
}

void gcs_tidy_text(const char *text, char *out, size_t size)
{
    size_t used = 0;
    for (const char *p = text; *p != '\0' && used + 1 < size; p++) {
        bool blank = isspace((uint8_t)*p);
        if (blank && (used == 0 || out[used - 1] == ' ')) continue;
        if (!blank && ((uint8_t)*p < ' ' || *p == 0x7f)) continue;
        out[used++] = blank ? ' ' : *p;
    }
    while (used > 0 && (out[used - 1] == ' ' || out[used - 1] == '.'))
        used--;
    out[used] = '\0';
}

const char *gcs_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

enum rc gcs_dump(json_t *json, struct buf *out, struct err *err)
{
    CLEANUP(gcs_json_freep) json_t *mine = json;
    if (mine == NULL || json_dump_callback(mine, into_buf, out, JSON_COMPACT) != 0)
        return err_mem(err, "JSON");
    return RC_OK;
}

void gcs_json_freep(json_t **j)
{
    json_decref(*j);
}

static void find_places(struct gcs_token *t)
{
    const char *given = getenv("GOOGLE_APPLICATION_CREDENTIALS");
    const char *folder = getenv("CLOUDSDK_CONFIG"), *home = getenv("HOME");
    const char *host = getenv("GCE_METADATA_HOST");
    static const char name[] = "application_default_credentials.json";
    t->path_given = given != NULL && given[0] != '\0';
    t->metadata_given = host != NULL && host[0] != '\0';
    if (t->path_given)
        snprintf(t->path, sizeof t->path, "%s", given);
    else if (folder != NULL && folder[0] != '\0')
        snprintf(t->path, sizeof t->path, "%s/%s", folder, name);
    else if (home != NULL && home[0] != '\0')
        snprintf(t->path, sizeof t->path, "%s/.config/gcloud/%s", home, name);
    snprintf(t->metadata, sizeof t->metadata, "%s", t->metadata_given ? host : METADATA_HOST);
}

static bool same_places(const struct gcs_token *a, const struct gcs_token *b)
{
    return a->path_given == b->path_given && strcmp(a->path, b->path) == 0 &&
           strcmp(a->metadata, b->metadata) == 0;
}

static enum rc fetch_token(void *ctx, const struct call *c, struct buf *out, int64_t *ret_life_ms,
                           struct err *err)
{
    struct fetch f = {.t = ctx, .c = c, .token = out};
    enum rc rc = fetch_by_type(&f, err);
    *ret_life_ms = f.life_ms;
    return rc;
}

static enum rc fetch_by_type(struct fetch *f, struct err *err)
{
    CLEANUP(gcs_json_freep) json_t *file = NULL;
    TRY(read_file(f->t, &file, err));
    if (file == NULL) return by_metadata(f, err);
    const char *type = gcs_text(file, "type");
    if (strcmp(type, "service_account") == 0) return by_key(f, file, err);
    if (strcmp(type, "authorized_user") == 0) return by_refresh(f, file, err);
    if (strcmp(type, "external_account") == 0) return by_subject(f, file, err);
    return err_set(err, RC_UNSUPPORTED,
                   "'%s' holds credentials of type '%.40s'; known are service_account, "
                   "authorized_user and external_account",
                   f->t->path, type);
}

/* *ret stays NULL when there is no such file and none was promised. */
static enum rc read_file(struct gcs_token *t, json_t **ret, struct err *err)
{
    CLEANUP(token_wipe) struct buf b = BUF_INIT;
    json_error_t why;
    if (t->path[0] == '\0') return RC_OK;
    enum rc rc = os_read_file(t->path, FILE_MAX, &b, err);
    if (rc == RC_NOT_FOUND && !t->path_given) {
        err_clear(err);
        return RC_OK;
    }
    if (rc == RC_NOT_FOUND) {
        err->rc = RC_DENIED; /* what is missing is not an object */
        return err_wrap(err, "GOOGLE_APPLICATION_CREDENTIALS");
    }
    if (rc != RC_OK) return err_wrap(err, "Google's credentials");
    /* The parser's own message would quote what it could not read. */
    *ret = json_loadb((const char *)b.data, b.size, 0, &why);
    if (*ret == NULL)
        return err_set(err, RC_INVALID, "'%s' is not JSON: line %d, column %d", t->path, why.line,
                       why.column);
    if (!json_is_object(*ret))
        return err_set(err, RC_INVALID, "'%s' is not a JSON object", t->path);
    return RC_OK;
}

static enum rc need(struct gcs_token *t, const json_t *file, const char *key, const char **ret,
                    struct err *err)
{
    *ret = gcs_text(file, key);
    if ((*ret)[0] != '\0') return RC_OK;
    return err_set(err, RC_INVALID, "'%s' has no \"%s\"", t->path, key);
}

/* Service account: RFC 7523, a JWT signed with the private key. */
static enum rc by_key(struct fetch *f, const json_t *file, struct err *err)
{
    CLEANUP(token_wipe) struct buf assertion = BUF_INIT, form = BUF_INIT;
    const char *url = gcs_text(file, "token_uri");
    if (url[0] == '\0') url = GOOGLE_TOKENS;
    TRY(jwt(f->t, file, url, &assertion, err));
    TRY(add(&form, "grant_type", GRANT "jwt-bearer", err));
    TRY(add(&form, "assertion", (const char *)assertion.data, err));
    return ask_token(f,
                     &(struct ask){.method = "POST",
                                   .url = url,
                                   .what = "exchange a service account's signature for a token",
                                   .type = TYPE_FORM,
                                   .body = (const char *)form.data},
                     err);
}

static enum rc jwt(struct gcs_token *t, const json_t *file, const char *audience, struct buf *out,
                   struct err *err)
{
    CLEANUP(buf_fini) struct buf signature = BUF_INIT;
    const char *email, *key, *id = gcs_text(file, "private_key_id");
    json_int_t now = os_now_ms() / 1000;
    TRY(need(t, file, "client_email", &email, err));
    TRY(need(t, file, "private_key", &key, err));
    TRY(jwt_part(out,
                 json_pack("{s:s, s:s, s:s*}", "alg", "RS256", "typ", "JWT", "kid",
                           id[0] != '\0' ? id : NULL),
                 err));
    TRY(buf_append(out, ".", 1, err));
    TRY(jwt_part(out,
                 json_pack("{s:s, s:s, s:s, s:I, s:I}", "iss", email, "scope", SCOPE, "aud",
                           audience, "iat", now, "exp", now + LIFE_S),
                 err));
    if (hash_rs256(key, out->data, out->size, &signature, err) != RC_OK)
        return err_wrap(err, "private_key of '%s'", t->path);
    TRY(buf_append(out, ".", 1, err));
    TRY(base64url_append(out, signature.data, signature.size, err));
    return buf_append(out, "", 1, err);
}

/* Takes part, which may be NULL. */
static enum rc jwt_part(struct buf *out, json_t *part, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    TRY(gcs_dump(part, &text, err));
    return base64url_append(out, text.data, text.size, err);
}

static enum rc by_refresh(struct fetch *f, const json_t *file, struct err *err)
{
    static const char *const keys[] = {"client_id", "client_secret", "refresh_token"};
    CLEANUP(token_wipe) struct buf form = BUF_INIT;
    const char *value, *url = gcs_text(file, "token_uri");
    TRY(add(&form, "grant_type", "refresh_token", err));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        TRY(need(f->t, file, keys[i], &value, err));
        TRY(add(&form, keys[i], value, err));
    }
    return ask_token(f,
                     &(struct ask){.method = "POST",
                                   .url = url[0] != '\0' ? url : GOOGLE_TOKENS,
                                   .what = "exchange a user's refresh token",
                                   .type = TYPE_FORM,
                                   .body = (const char *)form.data},
                     err);
}

/* Workload identity: RFC 8693, somebody else's token for one of Google's. */
static enum rc by_subject(struct fetch *f, const json_t *file, struct err *err)
{
    CLEANUP(token_wipe) struct buf form = BUF_INIT, token = BUF_INIT;
    const char *audience, *type, *url = gcs_text(file, "token_url");
    const char *next = gcs_text(file, "service_account_impersonation_url");
    TRY(need(f->t, file, "audience", &audience, err));
    TRY(need(f->t, file, "subject_token_type", &type, err));
    TRY(subject(f, json_object_get(file, "credential_source"), &token, err));
    TRY(add(&form, "grant_type", GRANT "token-exchange", err));
    TRY(add(&form, "requested_token_type", "urn:ietf:params:oauth:token-type:access_token", err));
    TRY(add(&form, "audience", audience, err));
    TRY(add(&form, "scope", next[0] != '\0' ? SCOPE_PLATFORM : SCOPE, err));
    TRY(add(&form, "subject_token_type", type, err));
    TRY(add(&form, "subject_token", (const char *)token.data, err));
    TRY(ask_token(f,
                  &(struct ask){.method = "POST",
                                .url = url[0] != '\0' ? url : GOOGLE_STS,
                                .what = "exchange a subject token",
                                .type = TYPE_FORM,
                                .body = (const char *)form.data},
                  err));
    return next[0] != '\0' ? impersonate(f, next, err) : RC_OK;
}

/* The subject token and a \0. */
static enum rc subject(struct fetch *f, const json_t *source, struct buf *out, struct err *err)
{
    CLEANUP(token_wipe) struct buf raw = BUF_INIT;
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    const char *path = gcs_text(source, "file"), *url = gcs_text(source, "url");
    const json_t *format = json_object_get(source, "format");
    if (path[0] != '\0') {
        if (os_read_file(path, TOKEN_MAX, &raw, err) != RC_OK) {
            if (err->rc == RC_NOT_FOUND) err->rc = RC_DENIED;
            return err_wrap(err, "subject token");
        }
        TRY(buf_append(&raw, "", 1, err));
    } else if (url[0] != '\0' && gcs_text(source, "environment_id")[0] == '\0') {
        TRY(ask(f,
                &(struct ask){.method = "GET",
                              .url = url,
                              .what = "get a subject token",
                              .headers = json_object_get(source, "headers"),
                              .metadata = true},
                &raw, err));
    } else {
        return err_set(err, RC_UNSUPPORTED,
                       "'%s': the credential_source is neither a \"file\" nor a \"url\"",
                       f->t->path);
    }
    char *text = (char *)raw.data;
    if (strcmp(gcs_text(format, "type"), "json") == 0) {
        json = json_loads(text, 0, NULL);
        text = (char *)(uintptr_t)gcs_text(json, gcs_text(format, "subject_token_field_name"));
    }
    size_t size = strlen(text);
    while (size > 0 && isspace((uint8_t)text[size - 1]))
        size--;
    if (size == 0)
        return err_set(err, RC_INVALID, "'%s': what the credential_source gave holds no token",
                       f->t->path);
    TRY(buf_append(out, text, size, err));
    return buf_append(out, "", 1, err);
}

/* The token in hand for one of another account. */
static enum rc impersonate(struct fetch *f, const char *url, struct err *err)
{
    CLEANUP(token_wipe) struct buf text = BUF_INIT;
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    struct err ignored;
    int64_t until = 0;
    TRY(ask(f,
            &(struct ask){.method = "POST",
                          .url = url,
                          .what = "impersonate a service account",
                          .type = TYPE_JSON,
                          .body = "{\"scope\":[\"" SCOPE "\"],\"lifetime\":\"3600s\"}",
                          .bearer = (const char *)f->token->data},
            &text, err));
    json = json_loads((const char *)text.data, 0, NULL);
    if (time_get(gcs_text(json, "expireTime"), &until, &ignored) != RC_OK)
        until = os_now_ms() + LIFE_S * 1000;
    return take_token(f, gcs_text(json, "accessToken"), (until - os_now_ms()) / 1000,
                      "impersonate a service account", err);
}

static enum rc by_metadata(struct fetch *f, struct err *err)
{
    char url[400];
    const struct call *c = f->c;
    struct call mine = {.deadline_ms = os_mono_ms() + METADATA_MS};
    if (c != NULL) mine.cancel = c->cancel;
    if (c != NULL && c->deadline_ms != 0 && c->deadline_ms < mine.deadline_ms)
        mine.deadline_ms = c->deadline_ms;
    snprintf(url, sizeof url,
             "http://%s/computeMetadata/v1/instance/service-accounts/default/token?scopes=%s",
             f->t->metadata, SCOPE);
    f->c = &mine;
    enum rc rc = ask_token(f,
                           &(struct ask){.method = "GET",
                                         .url = url,
                                         .what = "get a token from the metadata server",
                                         .metadata = true},
                           err);
    f->c = c;
    if (rc == RC_OK) atomic_store(&f->t->metadata_seen, true);
    /* Our own limit has passed, not the caller's. */
    if (rc == RC_CANCELED && call_check(c, &(struct err){0}) == RC_OK) rc = err->rc = RC_AGAIN;
    if (rc != RC_AGAIN && rc != RC_INVALID) return rc;
    if (f->t->metadata_given || atomic_load(&f->t->metadata_seen)) return rc;
    return err_set(err, RC_DENIED,
                   "no credentials for Google Cloud: GOOGLE_APPLICATION_CREDENTIALS is not set, "
                   "there is no file '%s', and no metadata server at %s; give a key file, or run "
                   "'gcloud auth application-default login'",
                   f->t->path, f->t->metadata);
}

static enum rc add(struct buf *form, const char *name, const char *value, struct err *err)
{
    if (form->size > 0) form->size--; /* the \0 of before */
    TRY(buf_printf(form, err, "%s%s=", form->size > 0 ? "&" : "", name));
    TRY(uri_append(form, value, false, err));
    return buf_append(form, "", 1, err);
}

/* Send, and give the answer's text with a \0. */
static enum rc ask(struct fetch *f, const struct ask *a, struct buf *ret_text, struct err *err)
{
    CLEANUP(http_req_fini)
    struct http_req req = {.method = a->method,
                           .url = a->url,
                           .what = a->what,
                           .op = STORE_OP_OTHER,
                           .idempotent = true,
                           .judge = ask_judge,
                           .data = a->body,
                           .data_size = a->body ? strlen(a->body) : 0,
                           .text_max = ANSWER_MAX};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    struct http *http = NULL;
    struct url u;
    char origin[GCS_ORIGIN_MAX];
    struct http_conf conf = {.service = origin};
    if (a->metadata) {
        TRY(url_get(a->url, &u, err));
        snprintf(origin, sizeof origin, "%s://%s", u.scheme, u.host);
        conf.no_proxy = true;
        conf.connect_ms = 1000;
    } else {
        TRY(gcs_origin(a->url, a->what, origin, err));
    }
    TRY(ask_headers(a, &req, err));
    TRY(http_open(&conf, &http, err));
    enum rc rc = http_send(http, f->c, &req, &resp, err);
    http_close(http);
    if (rc == RC_OK) rc = buf_append(ret_text, resp.text.data, resp.text.size, err);
    if (rc == RC_OK) rc = buf_append(ret_text, "", 1, err);
    if (resp.text.data != NULL) mem_wipe(resp.text.data, resp.text.cap);
    return rc;
}

static enum rc ask_headers(const struct ask *a, struct http_req *req, struct err *err)
{
    const char *name;
    json_t *value;
    if (a->type != NULL) TRY(http_answer_header(req, err, "Content-Type", "%s", a->type));
    if (a->bearer != NULL)
        TRY(http_answer_header(req, err, "Authorization", "Bearer %s", a->bearer));
    if (a->metadata && a->headers == NULL)
        TRY(http_answer_header(req, err, "Metadata-Flavor", "Google"));
    json_object_foreach(a->headers, name, value) TRY(http_answer_header(
        req, err, name, "%s", json_string_value(value) ? json_string_value(value) : ""));
    return RC_OK;
}

/* What these services say about a refusal, "error" and "error_description" of RFC 6749 or Google's
 * own form, names no secrets. */
static enum rc ask_judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                         struct retry_hint *hint, struct err *err)
{
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    char code[64], detail[200], both[400];
    (void)ctx;
    if (resp->text.size > 0) json = json_loads((const char *)resp->text.data, 0, NULL);
    const json_t *nested = json_object_get(json, "error");
    if (json_is_object(nested)) {
        gcs_tidy_text(gcs_text(nested, "status"), code, sizeof code);
        gcs_tidy_text(gcs_text(nested, "message"), detail, sizeof detail);
    } else {
        gcs_tidy_text(gcs_text(json, "error"), code, sizeof code);
        gcs_tidy_text(gcs_text(json, "error_description"), detail, sizeof detail);
    }
    snprintf(both, sizeof both, "%s%s%s%s", code, code[0] != '\0' ? " " : "", detail,
             strcmp(code, "invalid_grant") == 0
                 ? " (is the key still valid, and the clock of this machine right?)"
                 : "");
    if (http_judge(req, resp, both[0] != '\0' ? both : NULL, hint, err) != RC_AGAIN)
        err->rc = RC_DENIED;
    return err->rc;
}

static enum rc ask_token(struct fetch *f, const struct ask *a, struct err *err)
{
    CLEANUP(token_wipe) struct buf text = BUF_INIT;
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    TRY(ask(f, a, &text, err));
    json = json_loads((const char *)text.data, 0, NULL);
    const json_t *life = json_object_get(json, "expires_in");
    return take_token(f, gcs_text(json, "access_token"),
                      json_is_integer(life) ? json_integer_value(life) : LIFE_S, a->what, err);
}

/* Only what can stand in a header: RFC 6750's b64token. Google pads some tokens with dots. */
static enum rc take_token(struct fetch *f, const char *token, int64_t life_s, const char *what,
                          struct err *err)
{
    size_t size = strlen(token);
    for (const char *p = token; *p != '\0'; p++)
        if ((uint8_t)*p <= ' ' || (uint8_t)*p > '~') size = 0;
    if (size == 0 || size > TOKEN_MAX)
        return err_set(err, RC_AGAIN, "%s: the answer holds no usable token", what);
    if (life_s < LIFE_MIN_S) life_s = LIFE_MIN_S;
    if (life_s > 24 * 3600) life_s = 24 * 3600;
    f->life_ms = life_s * 1000;
    token_wipe(f->token);
    return buf_append(f->token, token, size + 1, err);
}

static int into_buf(const char *data, size_t size, void *b)
{
    struct err ignored;
    return buf_append(b, data, size, &ignored) == RC_OK ? 0 : -1;
}
