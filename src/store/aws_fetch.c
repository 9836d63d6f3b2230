/*
 * aws_fetch.c -- access keys from services: a container's agent, the metadata of an instance, and
 * STS for roles.
 *
 *   container   GET <URI>, with an authorization token      JSON
 *   instance    PUT /latest/api/token; GET .../security-credentials/, then .../<role>      JSON
 *   STS         POST Action=AssumeRoleWithWebIdentity (unsigned: the token is the proof) or
 *               AssumeRole (signed with the keys of whoever asks)                           XML
 *
 * Keys and tokens go only to loopback, to the addresses that AWS reserves on a link, or over https;
 * an endpoint for STS is the exception when its operator says http.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/aws_intern.h"
#include "store/hash.h"
#include "store/http.h"
#include "store/sigv4.h"
#include "store/xml.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ANSWER_MAX     (64u << 10)
#define TOKEN_FILE_MAX (64u << 10)
#define ASK_MS         30000 /* one question, with all its tries */
#define PROBE_MS       1200  /* is there an instance's metadata at all? */
#define PROBE_WAIT_MS  1000
#define METADATA_TTL   "21600"
#define URL_MAX        1024

/* One request. */
struct ask {
    const char *what; /* "instance metadata" */
    const char *method, *url;
    const char *header, *value; /* NULL, or one more header; the value may be secret */
    bool local;                 /* no proxy */
    int64_t limit_ms, connect_ms;
};

/* A request to STS. */
struct sts {
    struct aws_search *s;
    const char *action;
    const struct aws_keys *base; /* NULL: not signed */
    struct buf form;
    struct url url;
    char region[AWS_REGION_MAX];
};

static enum rc ask(struct aws_search *s, const struct ask *a, struct http_resp *resp,
                   struct err *err);
static struct call limited(const struct call *c, int64_t limit_ms);
static enum rc settle(const struct call *c, enum rc rc, int status, const char *what,
                      struct err *err);
static enum rc origin_put(const struct url *u, char out[URL_MAX], struct err *err);
static enum rc answer_keys(const char *what, const struct http_resp *resp, struct aws_keys *ret,
                           struct err *err);
static enum rc container_url(char out[URL_MAX], struct err *err);
static bool container_host(const struct url *u);
static enum rc container_token(struct buf *out, struct err *err);
static enum rc metadata_keys(struct aws_search *s, const char *base, struct aws_keys *ret,
                             bool *ret_found, struct err *err);
static enum rc metadata_role(const struct http_resp *resp, char out[AWS_NAME_MAX], struct err *err);
static enum rc sts_begin(struct sts *t, struct aws_search *s, const char *action,
                         const struct aws_role *role, struct err *err);
static enum rc sts_param(struct sts *t, const char *name, const char *value, struct err *err);
static enum rc sts_url(struct sts *t, char out[URL_MAX], struct err *err);
static enum rc sts_send(struct sts *t, struct aws_keys *ret, struct err *err);
static http_sign_fn sts_sign;
static http_judge_fn sts_judge;
static enum rc sts_answer(const struct sts *t, const struct http_resp *resp, struct aws_keys *ret,
                          struct err *err);
static void sts_fini(struct sts *t);
static void wiped(struct buf *b);
static void resp_wiped(struct http_resp *resp);
static bool json_text(const json_t *object, const char *name, char *out, size_t out_size);

/* ---- Container ---- */

enum rc aws_from_container(struct aws_search *s, struct aws_keys *ret, bool *ret_found,
                           struct err *err)
{
    char url[URL_MAX];
    CLEANUP(wiped) struct buf token = BUF_INIT;
    CLEANUP(resp_wiped) struct http_resp resp = {0};
    *ret_found = false;
    TRY(container_url(url, err));
    if (url[0] == '\0')
        return aws_looked(s, err, "container (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, _FULL_URI)");
    TRY(container_token(&token, err));
    bool has_token = token.size > 1;
    struct ask a = {.what = "container credentials",
                    .method = "GET",
                    .url = url,
                    .header = has_token ? "Authorization" : NULL,
                    .value = (const char *)token.data,
                    .local = strncmp(url, "http:", 5) == 0,
                    .limit_ms = ASK_MS};
    TRY(ask(s, &a, &resp, err));
    TRY(answer_keys(a.what, &resp, ret, err));
    *ret_found = true;
    return RC_OK;
}

static enum rc container_url(char out[URL_MAX], struct err *err)
{
    const char *relative = aws_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = aws_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    struct url u;
    out[0] = '\0';
    if (relative[0] != '\0') {
        if (relative[0] != '/')
            return err_set(err, RC_INVALID,
                           "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not start with '/'");
        int n = snprintf(out, URL_MAX, "http://169.254.170.2%s", relative);
        if (n < 0 || n >= URL_MAX)
            return err_set(err, RC_INVALID, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is too long");
        return RC_OK;
    }
    if (full[0] == '\0') return RC_OK;
    if (strlen(full) >= URL_MAX || url_get(full, &u, err) != RC_OK || !container_host(&u))
        return err_set(err, RC_INVALID,
                       "AWS_CONTAINER_CREDENTIALS_FULL_URI wants to be https, or http at this "
                       "machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]");
    snprintf(out, URL_MAX, "%s", full);
    return RC_OK;
}

static bool container_host(const struct url *u)
{
    static const char *const hosts[] = {"localhost", "169.254.170.2", "169.254.170.23"};
    struct in_addr v4;
    struct in6_addr v6, eks;
    if (u->user[0] != '\0' || u->password[0] != '\0' || u->host[0] == '\0') return false;
    if (strcmp(u->scheme, "https") == 0) return true;
    if (strcmp(u->scheme, "http") != 0) return false;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        if (strcasecmp(u->host, hosts[i]) == 0) return true;
    if (inet_pton(AF_INET, u->host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, u->host, &v6) != 1) return false;
    if (inet_pton(AF_INET6, "fd00:ec2::23", &eks) != 1) return false;
    return IN6_IS_ADDR_LOOPBACK(&v6) || memcmp(&v6, &eks, sizeof v6) == 0;
}

/* With a \0; empty: there is none. The file is read each time, since its content changes. */
static enum rc container_token(struct buf *out, struct err *err)
{
    const char *path = aws_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = aws_env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    if (path[0] == '\0') return buf_append(out, token, strlen(token) + 1, err);
    if (os_read_file(path, TOKEN_FILE_MAX, out, err) != RC_OK)
        return err_wrap(err, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    while (out->size > 0 && isspace(out->data[out->size - 1]))
        out->size--;
    return buf_append(out, "", 1, err);
}

/* ---- Instance ---- */

enum rc aws_from_metadata(struct aws_search *s, struct aws_keys *ret, bool *ret_found,
                          struct err *err)
{
    const char *given = aws_env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    bool v6 = strcasecmp(aws_env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"), "ipv6") == 0;
    char base[URL_MAX];
    struct url u;
    *ret_found = false;
    if (strcasecmp(aws_env("AWS_EC2_METADATA_DISABLED"), "true") == 0)
        return aws_looked(s, err, "instance metadata (AWS_EC2_METADATA_DISABLED)");
    if (given[0] == '\0') given = v6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
    if (url_get(given, &u, err) != RC_OK || origin_put(&u, base, err) != RC_OK) {
        err->rc = RC_INVALID;
        return err_wrap(err, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
    }
    return metadata_keys(s, base, ret, ret_found, err);
}

static enum rc metadata_keys(struct aws_search *s, const char *base, struct aws_keys *ret,
                             bool *ret_found, struct err *err)
{
    static const char what[] = "instance metadata", folder[] = "/latest/meta-data/iam";
    char url[URL_MAX * 2], role[AWS_NAME_MAX];
    CLEANUP(resp_wiped) struct http_resp token = {0}, name = {0}, keys = {0};
    struct ask a = {.what = what,
                    .method = "PUT",
                    .url = url,
                    .local = true,
                    .header = "X-aws-ec2-metadata-token-ttl-seconds",
                    .value = METADATA_TTL,
                    .limit_ms = PROBE_MS,
                    .connect_ms = PROBE_WAIT_MS};
    /* Who is not on such an instance finds nobody there, or a stranger: no reason to fail. One that
     * is there and in trouble answers. */
    snprintf(url, sizeof url, "%s/latest/api/token", base);
    enum rc rc = ask(s, &a, &token, err);
    bool refused = token.status >= 400 && token.status < 500 && token.status != 429;
    bool silent = token.status == 0 && (rc == RC_AGAIN || rc == RC_INVALID || rc == RC_DENIED);
    if (rc != RC_OK && (silent || refused)) {
        err_clear(err);
        return silent ? aws_looked(s, err, "%s (no answer from %s)", what, base)
                      : aws_looked(s, err, "%s (status %d from %s)", what, token.status, base);
    }
    if (rc != RC_OK) return rc;
    if (token.text.size == 0)
        return err_set(err, RC_AGAIN, "%s: an empty session token from %s", what, base);
    a = (struct ask){.what = what,
                     .method = "GET",
                     .url = url,
                     .local = true,
                     .header = "X-aws-ec2-metadata-token",
                     .value = (const char *)token.text.data,
                     .limit_ms = ASK_MS,
                     .connect_ms = PROBE_WAIT_MS};
    snprintf(url, sizeof url, "%s%s/security-credentials/", base, folder);
    rc = ask(s, &a, &name, err);
    if (rc != RC_OK && name.status != 404) return rc;
    err_clear(err);
    if (rc != RC_OK) return aws_looked(s, err, "%s (the instance has no role)", what);
    TRY(metadata_role(&name, role, err));
    snprintf(url, sizeof url, "%s%s/security-credentials/%s", base, folder, role);
    TRY(ask(s, &a, &keys, err));
    TRY(answer_keys(what, &keys, ret, err));
    *ret_found = true;
    return RC_OK;
}

/* The first line, a word of the letters that IAM takes. */
static enum rc metadata_role(const struct http_resp *resp, char out[AWS_NAME_MAX], struct err *err)
{
    const char *text = resp->text.size > 0 ? (const char *)resp->text.data : "";
    size_t size = strcspn(text, "\r\n");
    bool good = size > 0 && size < AWS_NAME_MAX;
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("+=,.@_-", text[i]) == NULL) good = false;
    if (!good)
        return err_set(err, RC_AGAIN, "instance metadata: the answer is not the name of a role");
    snprintf(out, AWS_NAME_MAX, "%.*s", (int)size, text);
    return RC_OK;
}

/* ---- STS ---- */

enum rc aws_assume_web(struct aws_search *s, const struct aws_role *role, const char *token_path,
                       struct aws_keys *ret, struct err *err)
{
    CLEANUP(sts_fini) struct sts t = {0};
    CLEANUP(wiped) struct buf token = BUF_INIT;
    TRY(sts_begin(&t, s, "AssumeRoleWithWebIdentity", role, err));
    if (os_read_file(token_path, TOKEN_FILE_MAX, &token, err) != RC_OK)
        return err_wrap(err, "web identity token");
    while (token.size > 0 && isspace(token.data[token.size - 1]))
        token.size--;
    if (token.size == 0)
        return err_set(err, RC_INVALID, "web identity token: '%s' is empty", token_path);
    TRY(buf_append(&token, "", 1, err));
    TRY(sts_param(&t, "WebIdentityToken", (const char *)token.data, err));
    return sts_send(&t, ret, err);
}

enum rc aws_assume(struct aws_search *s, const struct aws_role *role, const struct aws_keys *base,
                   struct aws_keys *ret, struct err *err)
{
    CLEANUP(sts_fini) struct sts t = {.base = base};
    TRY(sts_begin(&t, s, "AssumeRole", role, err));
    TRY(sts_param(&t, "ExternalId", role->external_id, err));
    return sts_send(&t, ret, err);
}

static enum rc sts_begin(struct sts *t, struct aws_search *s, const char *action,
                         const struct aws_role *role, struct err *err)
{
    char session[64];
    t->s = s;
    t->action = action;
    snprintf(session, sizeof session, "sluice-%lld", (long long)os_now_ms());
    TRY(buf_printf(&t->form, err, "Action=%s&Version=2011-06-15", action));
    TRY(sts_param(t, "RoleArn", role->arn, err));
    TRY(sts_param(t, "RoleSessionName", role->session[0] ? role->session : session, err));
    return sts_param(t, "DurationSeconds", role->duration_s, err);
}

static enum rc sts_param(struct sts *t, const char *name, const char *value, struct err *err)
{
    if (value[0] == '\0') return RC_OK;
    TRY(buf_printf(&t->form, err, "&%s=", name));
    return uri_append(&t->form, value, false, err);
}

static enum rc sts_url(struct sts *t, char out[URL_MAX], struct err *err)
{
    const char *given = aws_env("AWS_ENDPOINT_URL_STS");
    if (given[0] == '\0') given = aws_env("AWS_ENDPOINT_URL");
    aws_region(t->region);
    /* The store's own region may be a word that only its service knows. */
    if (t->region[0] == '\0' && strchr(t->s->region, '-') != NULL)
        snprintf(t->region, sizeof t->region, "%s", t->s->region);
    for (const char *p = t->region; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && *p != '-')
            return err_set(err, RC_INVALID, "'%s' is not the name of a region", t->region);
    bool china = strncmp(t->region, "cn-", 3) == 0;
    if (given[0] != '\0')
        snprintf(out, URL_MAX, "%s", given);
    else if (t->region[0] != '\0')
        snprintf(out, URL_MAX, "https://sts.%s.amazonaws.com%s", t->region, china ? ".cn" : "");
    else
        snprintf(out, URL_MAX, "https://sts.amazonaws.com");
    if (t->region[0] == '\0') snprintf(t->region, sizeof t->region, "us-east-1");
    if (url_get(out, &t->url, err) != RC_OK) {
        err->rc = RC_INVALID;
        return err_wrap(err, "AWS_ENDPOINT_URL_STS or AWS_ENDPOINT_URL");
    }
    TRY(origin_put(&t->url, out, err));
    if (t->url.path[0] == '\0') snprintf(t->url.path, sizeof t->url.path, "/");
    return RC_OK;
}

static enum rc sts_send(struct sts *t, struct aws_keys *ret, struct err *err)
{
    char origin[URL_MAX], url[URL_MAX * 2 + 2], what[64];
    const char *ca_file = aws_env("AWS_CA_BUNDLE");
    struct http *h = NULL;
    CLEANUP(resp_wiped) struct http_resp resp = {0};
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "POST",
                           .url = url,
                           .what = what,
                           .op = STORE_OP_OTHER,
                           .idempotent = true,
                           .sign = t->base ? sts_sign : NULL,
                           .judge = sts_judge,
                           .ctx = t,
                           .data = t->form.data,
                           .data_size = t->form.size,
                           .text_max = ANSWER_MAX};
    struct call c = limited(t->s->c, ASK_MS);
    TRY(sts_url(t, origin, err));
    snprintf(url, sizeof url, "%s%s", origin, t->url.path);
    snprintf(what, sizeof what, "STS %s", t->action);
    TRY(http_answer_header(&req, err, "Content-Type", "application/x-www-form-urlencoded"));
    struct http_conf conf = {.service = origin, .ca_file = ca_file[0] ? ca_file : NULL};
    TRY(http_open(&conf, &h, err));
    enum rc rc = http_send(h, &c, &req, &resp, err);
    http_close(h);
    TRY(settle(t->s->c, rc, resp.status, what, err));
    if (sts_answer(t, &resp, ret, err) == RC_OK) return RC_OK;
    if (err->rc == RC_CORRUPT) err->rc = RC_AGAIN;
    return err_wrap(err, "%s", what);
}

static enum rc sts_sign(void *ctx, struct http_req *req, struct err *err)
{
    struct sts *t = ctx;
    char date[SIGV4_DATE_SIZE], payload[HEX_SIZE(SHA256_SIZE)], host[sizeof t->url.host + 10];
    uint8_t digest[SHA256_SIZE];
    int64_t now_ms = os_now_ms();
    const char *origin = strstr(req->url, "://") + 3;
    snprintf(host, sizeof host, "%.*s", (int)strcspn(origin, "/"), origin);
    sigv4_date(now_ms, date);
    TRY(hash_sha256(t->form.data, t->form.size, digest, err));
    hex_put(digest, sizeof digest, payload);
    struct sigv4_header headers[] = {
        {"host", 4, host}, {"x-amz-date", 10, date}, {"x-amz-security-token", 20, t->base->token}};
    struct sigv4 v4 = {.kind = SIGV4_AWS,
                       .access_key = t->base->access_key,
                       .secret_key = t->base->secret_key,
                       .region = t->region,
                       .service = "sts",
                       .time_ms = now_ms,
                       .method = "POST",
                       .path = t->url.path,
                       .query = "",
                       .payload = payload,
                       .headers = headers,
                       .header_count = t->base->token[0] ? 3 : 2};
    CLEANUP(buf_fini) struct buf value = BUF_INIT;
    TRY(sigv4_authorization(&v4, &value, err));
    TRY(http_answer_header(req, err, "x-amz-date", "%s", date));
    if (t->base->token[0] != '\0')
        TRY(http_answer_header(req, err, "x-amz-security-token", "%s", t->base->token));
    return http_answer_header(req, err, "Authorization", "%.*s", (int)value.size,
                              (const char *)value.data);
}

/* Its errors are XML, and most of them status 400. */
static enum rc sts_judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                         struct retry_hint *hint, struct err *err)
{
    char code[64] = "", message[160] = "", detail[256];
    (void)ctx;
    (void)xml_find(resp->text.data, resp->text.size, "ErrorResponse/Error/Code", code, sizeof code);
    (void)xml_find(resp->text.data, resp->text.size, "ErrorResponse/Error/Message", message,
                   sizeof message);
    snprintf(detail, sizeof detail, "%s%s%s", code, message[0] ? ": " : "", message);
    for (char *p = detail; *p != '\0'; p++)
        if (iscntrl((unsigned char)*p)) *p = ' ';
    (void)http_judge(req, resp, detail[0] ? detail : NULL, hint, err);
    if (strcmp(code, "Throttling") == 0 || strcmp(code, "IDPCommunicationError") == 0) {
        hint->throttled = code[0] == 'T';
        err->rc = RC_AGAIN;
    } else if (resp->status == 400) {
        err->rc = RC_DENIED;
    }
    return err->rc;
}

static enum rc sts_answer(const struct sts *t, const struct http_resp *resp, struct aws_keys *ret,
                          struct err *err)
{
    CLEANUP(aws_keys_wipe) struct aws_keys keys = {0};
    char path[XML_PATH_MAX], expires[64] = "";
    const struct {
        const char *name;
        char *out;
        size_t size;
    } parts[] = {{"AccessKeyId", keys.access_key, sizeof keys.access_key},
                 {"SecretAccessKey", keys.secret_key, sizeof keys.secret_key},
                 {"SessionToken", keys.token, sizeof keys.token},
                 {"Expiration", expires, sizeof expires}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        snprintf(path, sizeof path, "%sResponse/%sResult/Credentials/%s", t->action, t->action,
                 parts[i].name);
        if (!xml_find(resp->text.data, resp->text.size, path, parts[i].out, parts[i].size))
            return err_set(err, RC_CORRUPT, "the answer has no %s", parts[i].name);
        if (strlen(parts[i].out) + 1 == parts[i].size)
            return err_set(err, RC_CORRUPT, "the answer's %s is too long", parts[i].name);
    }
    TRY(aws_keys_check(&keys, err));
    if (time_get(expires, &keys.expires_ms, err) != RC_OK)
        return err_set(err, RC_CORRUPT, "the answer's Expiration is not a time");
    *ret = keys;
    return RC_OK;
}

static void sts_fini(struct sts *t)
{
    wiped(&t->form);
}

/* ---- Shared ---- */

enum rc aws_keys_from_json(const void *text, size_t size, const char *token_name,
                           struct aws_keys *ret, struct err *err)
{
    CLEANUP(aws_keys_wipe) struct aws_keys keys = {0};
    char expires[64] = "", code[64] = "";
    json_error_t ignored; /* its text quotes the input */
    json_t *root = json_loadb(text ? text : "", size, 0, &ignored);
    bool object = json_is_object(root);
    bool fits = json_text(root, "AccessKeyId", keys.access_key, sizeof keys.access_key) &&
                json_text(root, "SecretAccessKey", keys.secret_key, sizeof keys.secret_key) &&
                json_text(root, token_name, keys.token, sizeof keys.token) &&
                json_text(root, "Expiration", expires, sizeof expires) &&
                json_text(root, "Code", code, sizeof code);
    json_decref(root);
    if (!object) return err_set(err, RC_CORRUPT, "the answer is not a JSON object");
    if (!fits) return err_set(err, RC_CORRUPT, "a part of the answer is too long, or no text");
    for (const char *p = code; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p)) return err_set(err, RC_CORRUPT, "the answer has no code");
    if (code[0] != '\0' && strcmp(code, "Success") != 0)
        return err_set(err, RC_DENIED, "the answer is '%s'", code);
    TRY(aws_keys_check(&keys, err));
    if (expires[0] != '\0' && time_get(expires, &keys.expires_ms, err) != RC_OK)
        return err_set(err, RC_CORRUPT, "the answer's Expiration is not a time");
    *ret = keys;
    return RC_OK;
}

/* A member that is missing or null is "". False: too long, or something else. */
static bool json_text(const json_t *object, const char *name, char *out, size_t out_size)
{
    const json_t *member = json_object_get(object, name);
    if (member == NULL || json_is_null(member)) return true;
    if (!json_is_string(member) || json_string_length(member) >= out_size) return false;
    snprintf(out, out_size, "%s", json_string_value(member));
    return true;
}

static enum rc answer_keys(const char *what, const struct http_resp *resp, struct aws_keys *ret,
                           struct err *err)
{
    if (aws_keys_from_json(resp->text.data, resp->text.size, "Token", ret, err) == RC_OK)
        return RC_OK;
    if (err->rc == RC_CORRUPT) err->rc = RC_AGAIN;
    return err_wrap(err, "%s", what);
}

static enum rc ask(struct aws_search *s, const struct ask *a, struct http_resp *resp,
                   struct err *err)
{
    char origin[URL_MAX];
    struct url u;
    struct http *h = NULL;
    struct call c = limited(s->c, a->limit_ms);
    CLEANUP(http_req_fini)
    struct http_req req = {.method = a->method,
                           .url = a->url,
                           .what = a->what,
                           .op = STORE_OP_OTHER,
                           .idempotent = true,
                           .text_max = ANSWER_MAX};
    TRY(url_get(a->url, &u, err));
    TRY(origin_put(&u, origin, err));
    struct http_conf conf = {.service = origin, .no_proxy = a->local, .connect_ms = a->connect_ms};
    if (a->header != NULL) TRY(http_answer_header(&req, err, a->header, "%s", a->value));
    TRY(http_open(&conf, &h, err));
    enum rc rc = http_send(h, &c, &req, resp, err);
    http_close(h);
    return settle(s->c, rc, resp->status, a->what, err);
}

/* c, with an end of its own. */
static struct call limited(const struct call *c, int64_t limit_ms)
{
    struct call out = c ? *c : (struct call){0};
    int64_t end_ms = os_mono_ms() + limit_ms;
    if (out.deadline_ms == 0 || out.deadline_ms > end_ms) out.deadline_ms = end_ms;
    return out;
}

/* What a failed request means for the search: a service that was too slow is one that does not
 * answer, and one that says anything but "later" refuses. */
static enum rc settle(const struct call *c, enum rc rc, int status, const char *what,
                      struct err *err)
{
    struct err over;
    if (rc == RC_CANCELED) {
        if (call_check(c, &over) != RC_OK) return rc;
        return err_set(err, RC_AGAIN, "%s: no answer in time", what);
    }
    if (rc == RC_BUSY || rc == RC_TOO_BIG || rc == RC_CORRUPT) err->rc = RC_AGAIN;
    if (rc != RC_OK && rc != RC_NO_MEM && status >= 300 && err->rc != RC_AGAIN) err->rc = RC_DENIED;
    return rc == RC_OK ? RC_OK : err->rc;
}

static enum rc origin_put(const struct url *u, char out[URL_MAX], struct err *err)
{
    char port[8] = "";
    bool v6 = strchr(u->host, ':') != NULL;
    bool http = strcmp(u->scheme, "http") == 0 || strcmp(u->scheme, "https") == 0;
    if (!http || u->host[0] == '\0' || u->user[0] != '\0')
        return err_set(err, RC_INVALID, "this wants a URL such as https://host:port");
    /* A default port is not part of the Host header, and so of no signature. */
    if (u->port != 0 && u->port != (u->scheme[4] == 's' ? 443 : 80))
        snprintf(port, sizeof port, ":%u", u->port);
    snprintf(out, URL_MAX, "%s://%s%s%s%s", u->scheme, v6 ? "[" : "", u->host, v6 ? "]" : "", port);
    return RC_OK;
}

/* For CLEANUP of what holds secrets. */
static void wiped(struct buf *b)
{
    if (b->data != NULL) mem_wipe(b->data, b->cap);
    buf_fini(b);
}

static void resp_wiped(struct http_resp *resp)
{
    if (resp->text.data != NULL) mem_wipe(resp->text.data, resp->text.cap);
    http_resp_fini(resp);
}
