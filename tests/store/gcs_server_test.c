/* gcs_server_test.c -- the suite over a Google Cloud Storage that others wrote (tests/servers/gcs).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "store/conformance.h"
#include "store/http.h"
#include "store/server.h"

#define ok(expr) assert_ok((expr), __LINE__)

static struct server server;
static char endpoint[128];
static struct err err;

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static void make_bucket(const char *name)
{
    char url[200], body[100];
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    struct http *http = NULL;
    snprintf(url, sizeof url, "%s/storage/v1/b?project=p", endpoint);
    snprintf(body, sizeof body, "{\"name\":\"%s\"}", name);
    CLEANUP(http_req_fini)
    struct http_req req = {.method = "POST",
                           .url = url,
                           .what = "make a bucket",
                           .data = body,
                           .data_size = strlen(body)};
    ok(http_answer_header(&req, &err, "Content-Type", "application/json"));
    ok(http_open(&(struct http_conf){.service = endpoint}, &http, &err));
    ok(http_send(http, NULL, &req, &resp, &err));
    http_close(http);
}

static void prepare(unsigned unique, char url[256])
{
    char name[32];
    snprintf(name, sizeof name, "bucket-%u", unique);
    make_bucket(name);
    snprintf(url, 256, "gs://%s/a root/db", name);
}

static struct store *open_plain(const char *url)
{
    struct store *s = NULL;
    ok(store_open(url, &s, &err));
    return s;
}

static enum rc remove_it(void *ctx, const struct store_obj *obj, struct err *e)
{
    return store_del(ctx, NULL, &(const char *){obj->key}, 1, e);
}

static void clean(const char *url)
{
    struct store *s = open_plain(url);
    ok(store_list(s, NULL, "", NULL, remove_it, s, &err));
    store_close(s);
}

static int run(void)
{
    const struct conformance_row row = {
        .name = "gs", .prepare = prepare, .open = open_plain, .clean = clean};
    server_value(&server, "ENDPOINT", endpoint, sizeof endpoint);
    setenv("STORAGE_EMULATOR_HOST", endpoint, 1);
    return conformance_run(&row);
}

int main(void)
{
    return server_test(&server, "gcs", run);
}
