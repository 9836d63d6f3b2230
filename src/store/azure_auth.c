/*
 * azure_auth.c -- see azure_auth.h.
 *
 * Shared Key. Authorization is "SharedKey <account>:<base64 of HMAC-SHA256(key, text)>", where the
 * text has one line for each of
 *
 *   the method; Content-Encoding; Content-Language; Content-Length (empty for 0); Content-MD5;
 *   Content-Type; Date (empty, since x-ms-date is sent); If-Modified-Since; If-Match;
 *   If-None-Match; If-Unmodified-Since; Range           (the value alone, empty when not sent)
 *   every x-ms-* header as "name:value", by name
 *   "/<account><path of the URL as sent>"
 *   every parameter of the query as "name:value", decoded, by name
 *
 * without a line break at the end. An emulator that has the account in the path shows it twice.
 *
 * Service SAS. The query holds what is allowed, and the HMAC of it together with the blob's name,
 * each on its line (azure_auth_link).
 */
#include "store/azure_auth.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "store/hash.h"
#include "store/token.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SAS_MAX     2048
#define KEY_MAX     128 /* bytes; Azure's have 64 */
#define TOKEN_MAX   (32u << 10)
#define METADATA_MS 5000 /* a metadata service is near: no answer by then means there is none */
#define SIGN_MAX    32   /* headers or parameters that are sorted */
#define RESOURCE    "https://storage.azure.com/"
#define DATE_SIZE   32

enum source { FROM_SECRET, FROM_FILE, FROM_APP, FROM_MACHINE };

struct azure_auth {
    char account[64];
    char sas[SAS_MAX];
    uint8_t key[KEY_MAX];
    size_t key_size;

    /* [const] where tokens come from */
    struct http *http; /* NULL: none are needed */
    enum source source;
    char *url, *client_id, *secret; /* secret: of the source: the secret, the file, the header */

    struct token token;
    atomic_bool seen; /* whoever hands tokens out has answered before */
};

/* Name and value inside another text. */
struct field {
    const char *name, *value;
    size_t name_size, value_size;
};

static enum rc key_take(struct azure_auth *a, const char *key, struct err *err);
static enum rc sas_take(struct azure_auth *a, const char *sas, struct err *err);
static enum rc token_setup(struct azure_auth *a, bool encrypted, struct err *err);
static enum rc token_source(struct azure_auth *a, struct err *err);
static const char *env(const char *name);
static bool is_safe(const char *url);
static void wipe(void *secret, size_t size);
static void wipe_free(char *secret);

static enum rc text_to_sign(const struct azure_auth *a, const struct http_req *req, struct buf *out,
                            struct err *err);
static enum rc put_headers(const struct http_req *req, struct buf *out, struct err *err);
static enum rc put_resource(const char *account, const char *url, struct buf *out, struct err *err);
static enum rc put_decoded(struct buf *out, const char *text, size_t size, struct err *err);
static enum rc put_signature(const struct azure_auth *a, const struct buf *text,
                             char out[BASE64_SIZE(SHA256_SIZE)], struct err *err);
static int by_name(const void *a, const void *b);
static void date_put(int64_t ms, char out[DATE_SIZE]);

static token_fetch_fn token_fetch;
static enum rc token_ask(struct azure_auth *a, struct http_req *req, struct buf *form,
                         struct buf *url, struct err *err);
static enum rc token_read(const struct http_resp *resp, struct buf *out, int64_t *ret_life_ms,
                          struct err *err);
static enum rc token_judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                           struct retry_hint *hint, struct err *err);

enum rc azure_auth_open(const struct azure_auth_conf *conf, struct azure_auth **ret,
                        struct err *err)
{
    struct azure_auth *a = mem_calloc(1, sizeof *a);
    if (a == NULL) return err_mem(err, "credentials");
    token_init(&a->token, token_fetch, a);
    snprintf(a->account, sizeof a->account, "%s", conf->account);
    enum rc rc;
    if (conf->sas[0] != '\0')
        rc = sas_take(a, conf->sas, err);
    else if (conf->key[0] != '\0')
        rc = key_take(a, conf->key, err);
    else
        rc = token_setup(a, conf->encrypted, err);
    if (rc == RC_OK)
        *ret = a;
    else
        azure_auth_close(a);
    return rc;
}

void azure_auth_close(struct azure_auth *a)
{
    if (a == NULL) return;
    http_close(a->http);
    mem_free(a->url);
    mem_free(a->client_id);
    wipe_free(a->secret);
    token_fini(&a->token);
    wipe(a, sizeof *a);
    mem_free(a);
}

const char *azure_auth_query(const struct azure_auth *a)
{
    return a->sas;
}

enum rc azure_auth_ready(struct azure_auth *a, const struct call *c, struct err *err)
{
    CLEANUP(token_wipe) struct buf token = BUF_INIT;
    return a->http != NULL ? token_get(&a->token, c, &token, err) : RC_OK;
}

enum rc azure_auth_sign(struct azure_auth *a, const struct call *c, struct http_req *req,
                        struct err *err)
{
    char date[DATE_SIZE], signature[BASE64_SIZE(SHA256_SIZE)];
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    date_put(os_now_ms(), date);
    TRY(http_answer_header(req, err, "x-ms-version", "%s", AZURE_VERSION));
    TRY(http_answer_header(req, err, "x-ms-date", "%s", date));
    if (a->key_size > 0) {
        TRY(text_to_sign(a, req, &text, err));
        TRY(put_signature(a, &text, signature, err));
        return http_answer_header(req, err, "Authorization", "SharedKey %s:%s", a->account,
                                  signature);
    }
    if (a->http == NULL) return RC_OK;
    CLEANUP(token_wipe) struct buf token = BUF_INIT;
    TRY(token_get(&a->token, c, &token, err));
    return http_answer_header(req, err, "Authorization", "Bearer %s", (const char *)token.data);
}

bool azure_auth_refused(struct azure_auth *a, const struct http_req *req)
{
    const char *name, *value;
    size_t name_size;
    if (a->http == NULL) return false;
    for (size_t at = 0; http_header_next(req, &at, &name, &name_size, &value);) {
        if (name_size != 13 || strncasecmp(name, "Authorization", 13) != 0) continue;
        if (strncmp(value, "Bearer ", 7) == 0) token_expired(&a->token, value + 7);
    }
    return true;
}

enum rc azure_auth_link(const struct azure_auth *a, const char *blob, bool put, bool https_only,
                        int64_t expires_ms, struct buf *out, struct err *err)
{
    char expires[TIME_TEXT_SIZE], signature[BASE64_SIZE(SHA256_SIZE)];
    const char *allowed = put ? "cw" : "r", *protocol = https_only ? "https" : "";
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    if (a->key_size == 0)
        return err_set(err, RC_UNSUPPORTED, "a link needs the account's key: give account-key");
    time_put(expires_ms, false, expires);
    /* Between the type of resource ("b", a blob) and the end are seven that we leave empty:
     * snapshot, encryption scope and five headers of the answer. */
    TRY(buf_printf(&text, err, "%s\n\n%s\n/blob/%s/%s\n\n\n%s\n%s\nb\n\n\n\n\n\n\n", allowed,
                   expires, a->account, blob, protocol, AZURE_VERSION));
    TRY(put_signature(a, &text, signature, err));
    TRY(buf_printf(out, err, "sv=%s&sr=b&sp=%s&se=", AZURE_VERSION, allowed));
    TRY(uri_append(out, expires, false, err));
    if (https_only) TRY(buf_printf(out, err, "&spr=%s", protocol));
    TRY(buf_printf(out, err, "&sig="));
    return uri_append(out, signature, false, err);
}

const char *azure_auth_advice(const struct azure_auth *a)
{
    if (a->sas[0] != '\0')
        return "check that sas-token is for this account and container, has not expired and allows "
               "read, write, delete and list";
    if (a->key_size > 0) return "check account-name and account-key, and this machine's clock";
    return "check that the identity has the role 'Storage Blob Data Contributor'";
}

static enum rc key_take(struct azure_auth *a, const char *key, struct err *err)
{
    if (base64_get(key, a->key, sizeof a->key, &a->key_size, err) == RC_OK && a->key_size > 0)
        return RC_OK;
    return err_set(err, RC_INVALID,
                   "account-key is not the key of a storage account: that is "
                   "base64, 88 characters");
}

/* It goes into URLs as it is, so it must be one. */
static enum rc sas_take(struct azure_auth *a, const char *sas, struct err *err)
{
    if (sas[0] == '?') sas++;
    bool fine = strlen(sas) < sizeof a->sas && strstr(sas, "sig=") != NULL;
    for (const char *p = sas; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~' || *p == '#' || *p == '?') fine = false;
    if (!fine)
        return err_set(err, RC_INVALID,
                       "sas-token is not a shared access signature: that is a "
                       "query, 'sv=...&sig=...'");
    snprintf(a->sas, sizeof a->sas, "%s", sas);
    return RC_OK;
}

static enum rc token_setup(struct azure_auth *a, bool encrypted, struct err *err)
{
    if (!encrypted)
        return err_set(err, RC_INVALID,
                       "no account-key and no sas-token is given, and a token of "
                       "an identity is not sent to an endpoint without https");
    TRY(token_source(a, err));
    if (!is_safe(a->url) && a->source != FROM_APP && a->source != FROM_MACHINE)
        return err_set(err, RC_INVALID, "AZURE_AUTHORITY_HOST must begin with https://");
    /* The identity services of a machine are as near as its loopback. */
    bool near = a->source == FROM_APP || a->source == FROM_MACHINE;
    struct http_conf conf = {
        .service = a->url, .no_proxy = near, .connect_ms = near ? METADATA_MS / 4 : 0};
    return http_open(&conf, &a->http, err);
}

static enum rc token_source(struct azure_auth *a, struct err *err)
{
    const char *tenant = env("AZURE_TENANT_ID"), *client = env("AZURE_CLIENT_ID");
    const char *host = env("AZURE_AUTHORITY_HOST"), *secret = "";
    bool whole = tenant[0] != '\0' && client[0] != '\0';
    if (host[0] == '\0') host = "https://login.microsoftonline.com";
    size_t host_size = strlen(host);
    while (host_size > 0 && host[host_size - 1] == '/')
        host_size--;
    if (whole && env("AZURE_CLIENT_SECRET")[0] != '\0') {
        a->source = FROM_SECRET;
        secret = env("AZURE_CLIENT_SECRET");
    } else if (whole && env("AZURE_FEDERATED_TOKEN_FILE")[0] != '\0') {
        a->source = FROM_FILE;
        secret = env("AZURE_FEDERATED_TOKEN_FILE");
    } else if (env("IDENTITY_ENDPOINT")[0] != '\0' && env("IDENTITY_HEADER")[0] != '\0') {
        a->source = FROM_APP;
        secret = env("IDENTITY_HEADER");
    } else {
        a->source = FROM_MACHINE;
    }
    const char *machine = env("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    if (a->source == FROM_APP)
        a->url = mem_strdup(env("IDENTITY_ENDPOINT"));
    else if (a->source == FROM_MACHINE)
        a->url = mem_printf("%s/metadata/identity/oauth2/token",
                            machine[0] != '\0' ? machine : "http://169.254.169.254");
    else
        a->url = mem_printf("%s%.*s/%s/oauth2/v2.0/token", strstr(host, "://") ? "" : "https://",
                            (int)host_size, host, tenant);
    a->client_id = mem_strdup(client);
    a->secret = mem_strdup(secret);
    if (a->url == NULL || a->client_id == NULL || a->secret == NULL)
        return err_mem(err, "credentials");
    return RC_OK;
}

static const char *env(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

static bool is_safe(const char *url)
{
    return strncmp(url, "https://", 8) == 0 || strncmp(url, "http://127.0.0.1:", 17) == 0;
}

static void wipe(void *secret, size_t size)
{
    mem_wipe(secret, size);
}

static void wipe_free(char *secret)
{
    if (secret != NULL) wipe(secret, strlen(secret));
    mem_free(secret);
}

static enum rc text_to_sign(const struct azure_auth *a, const struct http_req *req, struct buf *out,
                            struct err *err)
{
    static const char *const names[] = {"Content-Encoding",
                                        "Content-Language",
                                        "Content-Length",
                                        "Content-MD5",
                                        "Content-Type",
                                        "Date",
                                        "If-Modified-Since",
                                        "If-Match",
                                        "If-None-Match",
                                        "If-Unmodified-Since",
                                        "Range"};
    uint64_t length = req->body ? req->body_size : req->data_size;
    TRY(buf_printf(out, err, "%s\n", req->method));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *name, *value;
        size_t name_size;
        if (i == 2 && length > 0) TRY(buf_printf(out, err, "%llu", (unsigned long long)length));
        for (size_t at = 0; i != 2 && http_header_next(req, &at, &name, &name_size, &value);)
            if (name_size == strlen(names[i]) && strncasecmp(name, names[i], name_size) == 0)
                TRY(buf_printf(out, err, "%s", value));
        TRY(buf_append(out, "\n", 1, err));
    }
    TRY(put_headers(req, out, err));
    return put_resource(a->account, req->url, out, err);
}

static enum rc put_headers(const struct http_req *req, struct buf *out, struct err *err)
{
    struct field list[SIGN_MAX], f;
    size_t count = 0;
    for (size_t at = 0; http_header_next(req, &at, &f.name, &f.name_size, &f.value);) {
        if (f.name_size < 5 || strncmp(f.name, "x-ms-", 5) != 0) continue;
        ASSERT(count < SIGN_MAX); /* ours alone, all in lower case */
        list[count++] = f;
    }
    qsort(list, count, sizeof list[0], by_name);
    for (size_t i = 0; i < count; i++)
        TRY(buf_printf(out, err, "%.*s:%s\n", (int)list[i].name_size, list[i].name, list[i].value));
    return RC_OK;
}

static enum rc put_resource(const char *account, const char *url, struct buf *out, struct err *err)
{
    struct field list[SIGN_MAX];
    size_t count = 0;
    const char *path = strstr(url, "://");
    ASSERT(path != NULL);
    path += 3 + strcspn(path + 3, "/?");
    size_t path_size = strcspn(path, "?");
    TRY(buf_printf(out, err, "/%s%.*s", account, (int)path_size, path));
    for (const char *p = path + path_size; *p != '\0';) {
        struct field *f = &list[count++];
        ASSERT(count < SIGN_MAX);
        f->name = p + 1;
        size_t size = strcspn(f->name, "&");
        f->name_size = strcspn(f->name, "=&");
        f->value = f->name + f->name_size + (f->name[f->name_size] == '=');
        f->value_size = size - (size_t)(f->value - f->name);
        p = f->name + size;
    }
    qsort(list, count, sizeof list[0], by_name);
    for (size_t i = 0; i < count; i++) {
        TRY(buf_printf(out, err, "\n%.*s:", (int)list[i].name_size, list[i].name));
        TRY(put_decoded(out, list[i].value, list[i].value_size, err));
    }
    return RC_OK;
}

/* Our own encoding, so there are no escapes that are not two digits, and no '+' for a blank. */
static enum rc put_decoded(struct buf *out, const char *text, size_t size, struct err *err)
{
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '%' && i + 2 < size) {
            char hex[3] = {text[i + 1], text[i + 2], '\0'};
            c = (char)strtoul(hex, NULL, 16);
            i += 2;
        }
        TRY(buf_append(out, &c, 1, err));
    }
    return RC_OK;
}

static enum rc put_signature(const struct azure_auth *a, const struct buf *text,
                             char out[BASE64_SIZE(SHA256_SIZE)], struct err *err)
{
    uint8_t mac[SHA256_SIZE];
    TRY(hash_hmac_sha256(a->key, a->key_size, text->data, text->size, mac, err));
    base64_put(mac, sizeof mac, out);
    return RC_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct field *x = a, *y = b;
    size_t size = x->name_size < y->name_size ? x->name_size : y->name_size;
    int order = memcmp(x->name, y->name, size);
    return order != 0 ? order : (x->name_size > y->name_size) - (x->name_size < y->name_size);
}

/* "Sat, 21 Nov 2026 01:23:50 GMT", whatever the locale. */
static void date_put(int64_t ms, char out[DATE_SIZE])
{
    static const char days[][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    char text[TIME_TEXT_SIZE];
    time_put(ms, false, text); /* YYYY-MM-DDThh:mm:ssZ */
    unsigned month = (unsigned)(text[5] - '0') * 10 + (unsigned)(text[6] - '0');
    snprintf(out, DATE_SIZE, "%s, %.2s %s %.4s %.8s GMT", days[ms / 86400000 % 7], text + 8,
             months[(month - 1) % 12], text, text + 11);
}

static enum rc token_fetch(void *ctx, const struct call *c, struct buf *out, int64_t *ret_life_ms,
                           struct err *err)
{
    struct azure_auth *a = ctx;
    CLEANUP(buf_fini) struct buf form = BUF_INIT;
    CLEANUP(buf_fini) struct buf url = BUF_INIT;
    CLEANUP(http_req_fini)
    struct http_req req = {
        .what = "get a token for Azure", .op = STORE_OP_OTHER, .idempotent = true};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    struct call mine = c ? *c : (struct call){0};
    if (a->source == FROM_MACHINE) {
        int64_t until = os_mono_ms() + METADATA_MS;
        if (mine.deadline_ms == 0 || mine.deadline_ms > until) mine.deadline_ms = until;
    }
    req.judge = token_judge;
    req.ctx = a;
    req.text_max = 2 * TOKEN_MAX;
    TRY(token_ask(a, &req, &form, &url, err));
    enum rc rc = http_send(a->http, &mine, &req, &resp, err);
    if (form.data != NULL) wipe(form.data, form.size);
    if (rc == RC_OK) atomic_store(&a->seen, true);
    if (rc == RC_OK) return token_read(&resp, out, ret_life_ms, err);
    TRY(call_check(c, err));
    if (a->source != FROM_MACHINE || (rc != RC_AGAIN && rc != RC_CANCELED)) return rc;
    if (rc == RC_CANCELED) err->rc = rc = RC_AGAIN; /* by our deadline, not the caller's */
    if (resp.status != 0 || atomic_load(&a->seen)) return rc;
    return err_set(
        err, RC_DENIED,
        "no credentials for account '%s': none of account-key, sas-token, "
        "AZURE_CLIENT_SECRET, AZURE_FEDERATED_TOKEN_FILE and IDENTITY_ENDPOINT is given, "
        "and no metadata service of a virtual machine answers",
        a->account);
}

/* The request for each source; the texts that it points to are in form and url. */
static enum rc token_ask(struct azure_auth *a, struct http_req *req, struct buf *form,
                         struct buf *url, struct err *err)
{
    bool near = a->source == FROM_APP || a->source == FROM_MACHINE;
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    TRY(buf_printf(url, err, "%s", a->url));
    struct buf *to = near ? url : form;
    if (near)
        TRY(buf_printf(to, err, "%capi-version=%s&resource=", strchr(a->url, '?') ? '&' : '?',
                       a->source == FROM_APP ? "2019-08-01" : "2018-02-01"));
    else
        TRY(buf_printf(to, err, "grant_type=client_credentials&scope="));
    TRY(uri_append(to, near ? RESOURCE : RESOURCE ".default", false, err));
    if (a->client_id[0] != '\0') {
        TRY(buf_printf(to, err, "&client_id="));
        TRY(uri_append(to, a->client_id, false, err));
    }
    if (a->source == FROM_APP)
        TRY(http_answer_header(req, err, "X-IDENTITY-HEADER", "%s", a->secret));
    if (a->source == FROM_MACHINE) TRY(http_answer_header(req, err, "Metadata", "true"));
    if (a->source == FROM_SECRET) {
        TRY(buf_printf(to, err, "&client_secret="));
        TRY(uri_append(to, a->secret, false, err));
    } else if (a->source == FROM_FILE) {
        if (os_read_file(a->secret, TOKEN_MAX, &file, err) != RC_OK)
            return err_wrap(err, "AZURE_FEDERATED_TOKEN_FILE");
        while (file.size > 0 && file.data[file.size - 1] <= ' ')
            file.size--;
        TRY(buf_append(&file, "", 1, err));
        TRY(buf_printf(to, err,
                       "&client_assertion_type="
                       "urn%%3Aietf%%3Aparams%%3Aoauth%%3Aclient-assertion-type"
                       "%%3Ajwt-bearer&client_assertion="));
        TRY(uri_append(to, (const char *)file.data, false, err));
    }
    TRY(buf_append(url, "", 1, err));
    req->url = (const char *)url->data;
    req->method = near ? "GET" : "POST";
    if (near) return RC_OK;
    req->data = form->data;
    req->data_size = form->size;
    return http_answer_header(req, err, "Content-Type", "application/x-www-form-urlencoded");
}

/* The life comes as a number or, from metadata services, as a text; App Service gives the end. */
static enum rc token_read(const struct http_resp *resp, struct buf *out, int64_t *ret_life_ms,
                          struct err *err)
{
    const char *const names[] = {"expires_in", "expires_on"};
    int64_t seconds = 0;
    json_t *root = json_loadb((const char *)resp->text.data, resp->text.size, 0, NULL);
    const char *token = json_string_value(json_object_get(root, "access_token"));
    size_t size = token ? strlen(token) : 0;
    for (int i = 0; i < 2 && seconds == 0; i++) {
        const json_t *value = json_object_get(root, names[i]);
        const char *text = json_string_value(value);
        seconds = text ? strtoll(text, NULL, 10) : (int64_t)json_integer_value(value);
        if (i == 1 && seconds > 0) seconds -= os_now_ms() / 1000;
    }
    bool fine = size > 0 && size <= TOKEN_MAX && seconds > 0 && seconds < 10 * 86400;
    for (size_t i = 0; i < size; i++)
        if (token[i] <= ' ' || token[i] > '~') fine = false;
    enum rc rc =
        fine ? buf_append(out, token, size + 1, err)
             : err_set(err, RC_AGAIN, "get a token for Azure: the answer holds no usable token");
    json_decref(root);
    *ret_life_ms = seconds * 1000;
    return rc;
}

/* A metadata service that is just starting says 404 or 410. What it says about a refusal is worth
 * reading; answers hold no secrets then. */
static enum rc token_judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                           struct retry_hint *hint, struct err *err)
{
    const struct azure_auth *a = ctx;
    char detail[240] = "";
    json_t *root = json_loadb((const char *)resp->text.data, resp->text.size, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "error_description"));
    if (text == NULL) text = json_string_value(json_object_get(root, "error"));
    /* Lines after the first hold numbers for Microsoft's support. */
    if (text != NULL) snprintf(detail, sizeof detail, "%.*s", (int)strcspn(text, "\r\n"), text);
    json_decref(root);
    enum rc rc = http_judge(req, resp, detail[0] != '\0' ? detail : NULL, hint, err);
    bool starting = resp->status == 404 || resp->status == 410;
    if (a->source == FROM_MACHINE && starting)
        rc = RC_AGAIN;
    else if (!rc_retryable(rc) && rc != RC_OK)
        rc = RC_DENIED;
    err->rc = rc;
    return rc;
}
