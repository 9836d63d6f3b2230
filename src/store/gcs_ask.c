/* gcs_ask.c -- see gcs_ask.h. */
#include "store/gcs_ask.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

#define DETAIL_MAX 200

static enum rc sign(void *ctx, struct http_req *req, struct err *err);
static enum rc pin_url(struct gcs_ask *a, struct http_req *req, struct err *err);
static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err);
static enum rc judge_other(struct gcs_ask *a, const struct http_resp *resp, struct retry_hint *hint,
                           struct err *err);
static void read_detail(const struct http_resp *resp, char reason[40], char out[DETAIL_MAX]);

void gcs_ask_init(struct gcs_ask *a, struct gcs *g, const struct call *c, const char *method,
                  enum store_op op, const char *verb, const char *key)
{
    *a = (struct gcs_ask){.g = g, .c = c};
    a->req = (struct http_req){.method = method, .op = op, .idempotent = true};
    if (key != NULL)
        snprintf(a->what, sizeof a->what, "%s '%s'", verb, key);
    else
        snprintf(a->what, sizeof a->what, "%s", verb);
}

void gcs_ask_fini(struct gcs_ask *a)
{
    http_req_fini(&a->req);
    http_resp_fini(&a->resp);
    buf_fini(&a->url);
    if (a->token.data != NULL) mem_wipe(a->token.data, a->token.cap);
    buf_fini(&a->token);
}

enum rc gcs_ask_url(struct gcs_ask *a, const char *api, const char *key, struct err *err)
{
    struct gcs *g = a->g;
    TRY(buf_printf(&a->url, err, "%s%s/b/%s/o", g->origin, api, g->bucket));
    if (key != NULL) {
        TRY(buf_append(&a->url, "/", 1, err));
        TRY(uri_append(&a->url, g->root, false, err));
        TRY(uri_append(&a->url, key, false, err));
    }
    return buf_append(&a->url, "", 1, err);
}

enum rc gcs_ask_query(struct gcs_ask *a, const char *name, const char *value, struct err *err)
{
    bool more = strchr((const char *)a->url.data, '?') != NULL;
    a->url.size--; /* the \0 */
    TRY(buf_printf(&a->url, err, "%c%s=", more ? '&' : '?', name));
    TRY(uri_append(&a->url, value, false, err));
    return buf_append(&a->url, "", 1, err);
}

enum rc gcs_ask_send(struct gcs_ask *a, struct err *err)
{
    struct http_req *req = &a->req;
    req->url = (const char *)a->url.data;
    req->what = a->what;
    req->sign = sign;
    req->judge = judge;
    req->ctx = a;
    /* Here, so that a failure to get a token is not tried again as one of the request. */
    if (a->g->token != NULL && !a->bare)
        if (gcs_token_get(a->g->token, a->c, &a->token, err) != RC_OK)
            return err_wrap(err, "%s", a->what);
    return http_send(a->g->http, a->c, req, &a->resp, err);
}

enum rc gcs_ask_json(const struct gcs_ask *a, json_t **ret, struct err *err)
{
    json_t *json = NULL;
    if (a->resp.text.size > 0)
        json = json_loadb((const char *)a->resp.text.data, a->resp.text.size, 0, NULL);
    if (json_is_object(json)) {
        *ret = json;
        return RC_OK;
    }
    json_decref(json);
    return err_set(err, RC_AGAIN, "%s: the answer is not a JSON object", a->what);
}

enum rc gcs_object(const struct gcs_ask *a, const json_t *json, struct store_obj *ret,
                   char md5[GCS_MD5_TEXT], struct err *err)
{
    const char *name = gcs_text(json, "name"), *generation = gcs_text(json, "generation");
    const char *stamp = gcs_text(json_object_get(json, "metadata"), GCS_STAMP);
    const char *root = a->g->root;
    struct store_obj obj = {0};
    uint64_t number;
    if (name[0] == '\0' || !gcs_digits(generation, &number) ||
        !gcs_digits(gcs_text(json, "size"), &obj.size) ||
        time_get(gcs_text(json, "timeCreated"), &obj.mtime_ms, err) != RC_OK)
        return err_set(err, RC_AGAIN, "%s: the answer describes no object", a->what);
    /* What the metadata say, unless somebody else wrote them in another form. */
    struct err ignored;
    int64_t ms;
    if (stamp[0] != '\0' && time_get(stamp, &ms, &ignored) == RC_OK) obj.mtime_ms = ms;
    size_t root_size = strlen(root);
    if (strncmp(name, root, root_size) == 0 && strlen(name + root_size) <= STORE_KEY_MAX)
        snprintf(obj.key, sizeof obj.key, "%s", name + root_size);
    snprintf(obj.etag, sizeof obj.etag, "%llu", (unsigned long long)number);
    if (md5 != NULL) snprintf(md5, GCS_MD5_TEXT, "%s", gcs_text(json, "md5Hash"));
    *ret = obj;
    return RC_OK;
}

enum rc gcs_look(struct gcs *g, const struct call *c, const char *key, struct store_obj *ret,
                 struct err *err)
{
    CLEANUP(gcs_ask_fini) struct gcs_ask a = {0};
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    gcs_ask_init(&a, g, c, "GET", STORE_OP_GET, "look at", key);
    TRY(gcs_ask_url(&a, "/storage/v1", key, err));
    TRY(gcs_ask_query(&a, "fields", GCS_FIELDS, err));
    TRY(gcs_ask_send(&a, err));
    TRY(gcs_ask_json(&a, &json, err));
    return gcs_object(&a, json, ret, NULL, err);
}

bool gcs_digits(const char *text, uint64_t *ret)
{
    uint64_t n = 0;
    if (text[0] == '\0') return false;
    for (const char *p = text; *p != '\0'; p++) {
        unsigned digit = (unsigned)(uint8_t)*p - '0';
        if (digit > 9 || n > (UINT64_MAX - digit) / 10) return false;
        n = n * 10 + digit;
    }
    *ret = n;
    return true;
}

static enum rc sign(void *ctx, struct http_req *req, struct err *err)
{
    struct gcs_ask *a = ctx;
    if (a->pin[0] != '\0' && !a->pinned) TRY(pin_url(a, req, err));
    if (a->g->token == NULL || a->bare) return RC_OK;
    buf_reset(&a->token);
    TRY(gcs_token_get(a->g->token, a->c, &a->token, err));
    return http_answer_header(req, err, "Authorization", "Bearer %s", (const char *)a->token.data);
}

static enum rc pin_url(struct gcs_ask *a, struct http_req *req, struct err *err)
{
    TRY(gcs_ask_query(a, "generation", a->pin, err));
    req->url = (const char *)a->url.data;
    a->pinned = true;
    return RC_OK;
}

static enum rc judge(void *ctx, const struct http_req *req, const struct http_resp *resp,
                     struct retry_hint *hint, struct err *err)
{
    struct gcs_ask *a = ctx;
    (void)req;
    if (a->any_ok || (a->session && resp->status == 308)) return RC_OK;
    if (resp->status == 401 && a->token.size > 0 && !a->bare && !a->renewed) {
        gcs_token_expired(a->g->token, (const char *)a->token.data);
        a->renewed = hint->at_once = true;
        return err_set(err, RC_AGAIN, "%s: 401, the token has expired", a->what);
    }
    enum rc rc = judge_other(a, resp, hint, err);
    if (a->once && rc == RC_AGAIN) hint->final = true;
    a->after_ms = hint->after_ms;
    return rc;
}

static enum rc judge_other(struct gcs_ask *a, const struct http_resp *resp, struct retry_hint *hint,
                           struct err *err)
{
    char reason[40], detail[DETAIL_MAX], more[DETAIL_MAX + 200] = "";
    read_detail(resp, reason, detail);
    bool bucket = strstr(detail, "bucket does not exist") != NULL;
    if (resp->status == 404 && a->missing_ok && !bucket) return RC_OK;
    snprintf(more, sizeof more, "%s", detail);
    if (resp->status == 403 && strstr(reason, "ateLimitExceeded") == NULL)
        snprintf(more, sizeof more,
                 "%s%sdoes the account have the role Storage Object User for the bucket '%.64s'?",
                 detail, detail[0] != '\0' ? "; " : "", a->g->bucket);
    enum rc rc = http_judge(&a->req, resp, more[0] != '\0' ? more : NULL, hint, err);
    if (resp->status == 403 && strstr(reason, "ateLimitExceeded") != NULL) {
        hint->throttled = true;
        return err->rc = RC_AGAIN;
    }
    if (a->session && (resp->status == 404 || resp->status == 410)) {
        a->gone = hint->final = true;
        return err_set(err, RC_AGAIN, "%s: %d, the service has lost the upload's session", a->what,
                       resp->status);
    }
    if (resp->status == 404 && a->pinned)
        return err_set(err, RC_CORRUPT, "%s: it was replaced while it was read", a->what);
    if (resp->status == 404 && bucket)
        return err_set(err, RC_INVALID, "%s: there is no bucket '%s'", a->what, a->g->bucket);
    /* Somebody else's request for the same name is under way: no verdict about a condition. */
    if (resp->status == 409) return err->rc = RC_AGAIN;
    return rc;
}

/* From {"error": {"message": ..., "errors": [{"reason": ...}]}}; a media get is refused in plain
 * text. */
static void read_detail(const struct http_resp *resp, char reason[40], char out[DETAIL_MAX])
{
    CLEANUP(gcs_json_freep) json_t *json = NULL;
    const char *text = (const char *)resp->text.data;
    reason[0] = out[0] = '\0';
    if (resp->text.size == 0) return;
    json = json_loads(text, 0, NULL);
    const json_t *error = json_object_get(json, "error");
    const json_t *first = json_array_get(json_object_get(error, "errors"), 0);
    gcs_tidy_text(gcs_text(first, "reason"), reason, 40);
    if (json != NULL)
        gcs_tidy_text(gcs_text(error, "message"), out, DETAIL_MAX);
    else if (text[0] != '<' && text[0] != '{')
        gcs_tidy_text(text, out, DETAIL_MAX);
}
