/* peer.c -- a client; see load.h. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "load.h"

#define ANSWER_MS 30000

struct peer {
    CURL *curl;
    char *body;
    size_t size, cap;
};

static size_t take(char *data, size_t one, size_t count, void *ctx);

struct peer *peer_new(const char *socket_path)
{
    struct peer *p = calloc(1, sizeof *p);
    if (p == NULL || (p->curl = curl_easy_init()) == NULL) die("out of memory");
    curl_easy_setopt(p->curl, CURLOPT_UNIX_SOCKET_PATH, socket_path);
    curl_easy_setopt(p->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(p->curl, CURLOPT_TIMEOUT_MS, (long)ANSWER_MS);
    curl_easy_setopt(p->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(p->curl, CURLOPT_WRITEDATA, p);
    return p;
}

void peer_free(struct peer *p)
{
    if (p == NULL) return;
    curl_easy_cleanup(p->curl);
    free(p->body);
    free(p);
}

long peer_ask(struct peer *p, const char *method, const char *path, const char *body,
              const char **ret_body)
{
    char url[512];
    long status = 0;
    snprintf(url, sizeof url, "http://localhost%s", path);
    p->size = 0;
    curl_easy_setopt(p->curl, CURLOPT_URL, url);
    curl_easy_setopt(p->curl, CURLOPT_HTTPGET, 1L);
    if (body != NULL) curl_easy_setopt(p->curl, CURLOPT_COPYPOSTFIELDS, body);
    curl_easy_setopt(p->curl, CURLOPT_CUSTOMREQUEST, method);
    CURLcode code = curl_easy_perform(p->curl);
    if (code == CURLE_OK) curl_easy_getinfo(p->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)take((char[]){0}, 1, 1, p);
    if (ret_body != NULL) *ret_body = p->body;
    return status;
}

bool peer_value(struct peer *p, const char *tenant, const char *sql, char *out, size_t size)
{
    char path[64], body[512];
    const char *answer;
    snprintf(path, sizeof path, "/dev/%s/v2/pipeline", tenant);
    snprintf(
        body, sizeof body,
        "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"%s\"}},{\"type\":\"close\"}]}",
        sql);
    if (peer_ask(p, "POST", path, body, &answer) != 200) return false;
    const char *rows = strstr(answer, "\"rows\":[[");
    if (rows == NULL || strstr(answer, "\"type\":\"error\"") != NULL) return false;
    const char *value = strstr(rows, "\"value\":\"");
    *out = '\0';
    if (value == NULL) return strstr(rows, "\"type\":\"null\"") != NULL;
    value += strlen("\"value\":\"");
    size_t length = strcspn(value, "\"");
    if (length >= size) die("an answer of %zu bytes", length);
    memcpy(out, value, length);
    out[length] = '\0';
    return true;
}

bool peer_ids(struct peer *p, const char *tenant, struct ids *ret)
{
    static const char any[] = "SELECT count(*) FROM sqlite_schema WHERE name='t'";
    size_t size = 8u << 20;
    char *text = malloc(size), *at = text;
    if (text == NULL) die("out of memory");
    ids_free(ret);
    bool ok = peer_value(p, tenant, any, text, size);
    if (ok && strcmp(text, "0") != 0) {
        ok = peer_value(p, tenant, "SELECT group_concat(id) FROM (SELECT DISTINCT id FROM t)", text,
                        size);
        while (ok && *at != '\0') {
            ids_add(ret, (uint32_t)strtoul(at, &at, 10));
            at += *at == ',';
        }
    }
    free(text);
    return ok;
}

/* What is there always ends in a zero. */
static size_t take(char *data, size_t one, size_t count, void *ctx)
{
    struct peer *p = ctx;
    size_t size = one * count;
    if (p->size + size + 1 > p->cap) {
        p->cap = 2 * (p->size + size + 1);
        p->body = realloc(p->body, p->cap);
        if (p->body == NULL) die("out of memory");
    }
    memcpy(p->body + p->size, data, size);
    p->size += size;
    p->body[p->size] = '\0';
    return size;
}
