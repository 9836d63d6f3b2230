/*
 * webdav_test.c -- the driver against a small WebDAV server in this process (over peer.h): the
 * suite, and answers that a real server gives only on bad days.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/conformance.h"
#include "store/peer.h"

#define RESOURCE_MAX 512

struct resource {
    char path[700]; /* decoded, without '/' at its end */
    bool folder;
    uint8_t *data;
    size_t size;
    int64_t mtime_ms;
};

/* [lock] The server's tree. Old bytes stay until the end: an answer may still be sending them. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct resource tree[RESOURCE_MAX];
static size_t tree_count;
static void *garbage[4096];
static size_t garbage_count;
/* [lock] What goes wrong: MOVEs whose answers are lost, PUTs that find the resource locked, what
 * PROPFIND answers (NULL: the truth; %s: the path), the class of DAV. */
static unsigned lose_moves, locked_puts;
static const char *propfind_text, *dav;
static bool full_hrefs;

static struct peer *peer;
static struct err err;

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static void unescape(const char *text, char out[700])
{
    size_t used = 0;
    for (; *text != '\0' && used < 699; text++) {
        unsigned value = (uint8_t)*text;
        if (*text == '%' && sscanf(text + 1, "%2x", &value) == 1) text += 2;
        out[used++] = (char)value;
    }
    while (used > 0 && out[used - 1] == '/')
        used--;
    out[used] = '\0';
}

static struct resource *find(const char *path)
{
    static struct resource root = {.folder = true};
    if (path[0] == '\0') return &root;
    for (size_t i = 0; i < tree_count; i++)
        if (strcmp(tree[i].path, path) == 0) return &tree[i];
    return NULL;
}

static bool has_parent(const char *path)
{
    char parent[700];
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    const struct resource *r = find(parent);
    return r != NULL && r->folder;
}

static struct resource *find_or_add(const char *path)
{
    struct resource *r = find(path);
    if (r != NULL) return r;
    assert_true(tree_count < RESOURCE_MAX);
    r = &tree[tree_count++];
    *r = (struct resource){.mtime_ms = os_now_ms()};
    snprintf(r->path, sizeof r->path, "%s", path);
    return r;
}

static void forget(struct resource *r)
{
    *r = tree[--tree_count];
}

static void describe(struct peer_resp *resp, const struct resource *r)
{
    char date[64], size[64] = "";
    struct tm tm;
    time_t at = (time_t)(r->mtime_ms / 1000);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &tm));
    if (!r->folder)
        snprintf(size, sizeof size, "<d:getcontentlength>%zu</d:getcontentlength>", r->size);
    peer_text(resp, "<d:response><d:href>%s", full_hrefs ? "https://elsewhere:1234" : "");
    if (r->path[0] == '\0') peer_text(resp, "/");
    for (const char *p = r->path; *p != '\0'; p++)
        peer_text(resp, strchr("/-_.abcdefghijklmnopqrstuvwxyz0123456789", *p) ? "%c" : "%%%02X",
                  (uint8_t)*p);
    peer_text(resp,
              "%s</d:href><d:propstat><d:prop><d:resourcetype>%s</d:resourcetype>%s"
              "<d:getlastmodified>%s</d:getlastmodified></d:prop><d:status>HTTP/1.1 200 OK"
              "</d:status></d:propstat></d:response>",
              r->folder ? "/" : "", r->folder ? "<d:collection/>" : "", size, date);
}

static int answer_propfind(const struct peer_req *req, struct peer_resp *resp, const char *path)
{
    const struct resource *r = find(path);
    size_t size = strlen(path);
    if (propfind_text != NULL) {
        const char *hole = strstr(propfind_text, "%s");
        peer_text(resp, "%.*s%s%s", hole ? (int)(hole - propfind_text) : 9999, propfind_text,
                  hole ? path : "", hole ? hole + 2 : "");
        return 207;
    }
    if (r == NULL) return 404;
    peer_text(resp, "<?xml version=\"1.0\"?><d:multistatus xmlns:d=\"DAV:\">");
    describe(resp, r);
    for (size_t i = 0; i < tree_count && strcmp(peer_header(req, "Depth"), "1") == 0; i++)
        if (strncmp(tree[i].path, path, size) == 0 && tree[i].path[size] == '/' &&
            strchr(tree[i].path + size + 1, '/') == NULL)
            describe(resp, &tree[i]);
    peer_text(resp, "</d:multistatus>");
    return 207;
}

static int answer_move(const struct peer_req *req, struct peer_resp *resp, const char *path)
{
    char to[700];
    const char *target = peer_header(req, "Destination");
    if (strncmp(target, peer_url(peer), strlen(peer_url(peer))) != 0) return 502;
    unescape(target + strlen(peer_url(peer)), to);
    struct resource *from = find(path);
    if (from == NULL) return 404;
    struct resource moved = *from;
    forget(from);
    struct resource *r = find_or_add(to);
    memcpy(moved.path, r->path, sizeof moved.path);
    *r = moved;
    if (lose_moves > 0) {
        lose_moves--;
        resp->fault = PEER_LOSE;
    }
    return 201;
}

static int answer_put(const struct peer_req *req, const char *path)
{
    struct resource *r = find(path);
    if (locked_puts > 0) {
        locked_puts--;
        return 423;
    }
    if (!has_parent(path)) return 409;
    if (r != NULL && r->folder) return 405;
    r = find_or_add(path);
    r->data = malloc(req->body_size + 1);
    r->size = req->body_size;
    r->mtime_ms = os_now_ms();
    assert_true(garbage_count < sizeof garbage / sizeof garbage[0]);
    garbage[garbage_count++] = r->data;
    memcpy(r->data, req->body, req->body_size);
    return 201;
}

static int answer_mkcol(const char *path)
{
    if (find(path) != NULL) return 405;
    if (!has_parent(path)) return 409;
    find_or_add(path)->folder = true;
    return 201;
}

/* DELETE of a collection takes all that is in it, as it does everywhere. */
static int answer_delete(const char *path)
{
    size_t size = strlen(path), before = tree_count;
    for (size_t i = 0; i < tree_count;)
        if (strncmp(tree[i].path, path, size) == 0 &&
            (tree[i].path[size] == '/' || tree[i].path[size] == '\0'))
            forget(&tree[i]);
        else
            i++;
    return tree_count < before ? 204 : 404;
}

static void serve(void *ctx, const struct peer_req *req, struct peer_resp *resp)
{
    char path[700];
    (void)ctx;
    unescape(req->target, path);
    thr_lock(&lock);
    const struct resource *r = find(path);
    resp->status = 400;
    if (strcmp(req->method, "OPTIONS") == 0) {
        resp->status = 200;
        peer_head(resp, "DAV", "%s", dav);
    } else if (strcmp(req->method, "PROPFIND") == 0) {
        resp->status = answer_propfind(req, resp, path);
    } else if (strcmp(req->method, "MOVE") == 0) {
        resp->status = answer_move(req, resp, path);
    } else if (strcmp(req->method, "PUT") == 0) {
        resp->status = answer_put(req, path);
    } else if (strcmp(req->method, "MKCOL") == 0) {
        resp->status = answer_mkcol(path);
    } else if (strcmp(req->method, "DELETE") == 0) {
        resp->status = answer_delete(path);
    } else if (strcmp(req->method, "GET") == 0 && r == NULL) {
        resp->status = 404;
    } else if (strcmp(req->method, "GET") == 0 && r->folder) {
        resp->status = 405;
    } else if (strcmp(req->method, "GET") == 0) {
        resp->status = 0;
        peer_serve(req, resp, r->data, r->size, NULL);
    }
    thr_unlock(&lock);
}

static int start(void **state)
{
    (void)state;
    lose_moves = locked_puts = 0;
    propfind_text = NULL;
    dav = "1, 2";
    full_hrefs = false;
    peer = peer_start(serve, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    peer_stop(peer);
    tree_count = 0;
    while (garbage_count > 0)
        free(garbage[--garbage_count]);
    return 0;
}

static void prepare(unsigned unique, char url[256])
{
    start(NULL);
    full_hrefs = unique % 2;
    snprintf(url, 256, "webdav%s/dav/c%u", peer_url(peer) + strlen("http"), unique);
}

static struct store *open_it(const char *url)
{
    struct store *s = NULL;
    ok(store_open(url, &s, &err));
    return s;
}

static void clean(const char *url)
{
    (void)url;
    for (size_t i = 0; i < tree_count; i++)
        assert_null(strstr(tree[i].path, STORE_TMP_PREFIX));
    stop(NULL);
}

static struct store *open_root(const char *user_at)
{
    char url[256];
    snprintf(url, sizeof url, "webdav://%s%s/root", user_at, peer_url(peer) + strlen("http://"));
    return open_it(url);
}

static enum rc put_text(struct store *s, const char *key, const char *text)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, NULL, key, &body, NULL, NULL, &err);
}

static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s %d %lld\n", obj->key, (int)obj->size,
                      (long long)obj->mtime_ms / 1000);
}

static enum rc list(struct store *s, const char *prefix, char out[1024])
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    enum rc rc = store_list(s, NULL, prefix, NULL, into_lines, &b, &err);
    snprintf(out, 1024, "%.*s", (int)b.size, b.size ? (char *)b.data : "");
    return rc;
}

static void assert_requests(const char *want)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    for (unsigned i = 0; i < peer_count(peer); i++) {
        const char *target = peer_at(peer, i)->target, *tmp = strstr(target, STORE_TMP_PREFIX);
        int size = tmp ? (int)(tmp - target) : (int)strlen(target);
        ok(buf_printf(&b, &err, "%s %.*s%s\n", peer_at(peer, i)->method, size, target,
                      tmp ? "TMP" : ""));
    }
    assert_string_equal((char *)b.data, want);
}

/* What a put, and the collections that it needs, cost. */
static void test_requests(void **state)
{
    (void)state;
    struct store *s = open_root("");
    ok(put_text(s, "a/b c/k", "x"));
    assert_requests("OPTIONS /root/a/b%20c/k\n"
                    "PUT /root/a/b%20c/TMP\n"
                    "MKCOL /root/a/b%20c/\n"
                    "MKCOL /root/a/\n"
                    "MKCOL /root/\n"
                    "MKCOL /root/a/\n"
                    "MKCOL /root/a/b%20c/\n"
                    "PUT /root/a/b%20c/TMP\n"
                    "MOVE /root/a/b%20c/TMP\n"
                    "PROPFIND /root/a/b%20c/\n");
    peer_forget(peer);
    ok(put_text(s, "a/b c/l", "x"));
    ok(store_del(s, NULL, &(const char *){"a/b c/l"}, 1, &err));
    assert_requests("PUT /root/a/b%20c/TMP\n"
                    "MOVE /root/a/b%20c/TMP\n"
                    "PROPFIND /root/a/b%20c/l\n"
                    "DELETE /root/a/b%20c/l\n");
    store_close(s);
}

/* A server that renames by itself gets one request. */
static void test_requests_of_mod_dav_fs(void **state)
{
    (void)state;
    struct store *s = open_root("");
    dav = "1,2\r\nDAV: <http://apache.org/dav/propset/fs/1>";
    ok(put_text(s, "k", "x"));
    ok(put_text(s, "k", "y"));
    assert_requests("OPTIONS /root/k\nPUT /root/k\nMKCOL /root/\nPUT /root/k\nPUT /root/k\n");
    store_close(s);
}

static void test_lost_move(void **state)
{
    (void)state;
    char got[4];
    struct store *s = open_root("");
    ok(put_text(s, "k", "old"));
    lose_moves = 1;
    ok(put_text(s, "k", "new!"));
    ok(store_read(s, NULL, "k", 0, got, 4, &err));
    assert_memory_equal(got, "new!", 4);
    assert_int_equal(lose_moves, 0);
    /* Lost each time: no success is claimed. */
    lose_moves = 100;
    assert_int_equal(put_text(s, "k", "more"), RC_AGAIN);
    assert_non_null(strstr(err.text, "'k'"));
    store_close(s);
}

static void test_locked(void **state)
{
    (void)state;
    struct store *s = open_root("");
    locked_puts = 2;
    ok(put_text(s, "k", "x"));
    assert_int_equal(locked_puts, 0);
    store_close(s);
}

static void test_credentials(void **state)
{
    (void)state;
    struct store *s = open_root("Al%20ice:open%3Asesame@");
    ok(put_text(s, "k", "x"));
    assert_string_equal(peer_header(peer_at(peer, 1), "Authorization"),
                        "Basic QWwgaWNlOm9wZW46c2VzYW1l");
    assert_null(strstr(store_name(s), "sesame"));
    assert_null(strstr(store_name(s), "ice"));
    peer_push(peer, &(struct peer_resp){.status = 401,
                                        .headers = "WWW-Authenticate: Digest realm=\"x\"\r\n"});
    assert_int_equal(put_text(s, "k", "x"), RC_DENIED);
    assert_non_null(strstr(err.text, "Digest"));
    assert_null(strstr(err.text, "sesame"));
    store_close(s);
}

#define HEAD "<m:multistatus xmlns:m='DAV:'>"
#define SELF                                                                                       \
    "<m:response><m:href>%s/</m:href><m:propstat><m:prop><m:resourcetype><m:collection/>"          \
    "</m:resourcetype></m:prop></m:propstat></m:response>"
#define FILE_(href, props)                                                                         \
    "<m:response><m:href>" href "</m:href><m:propstat><m:prop>" props "</m:prop></m:propstat>"     \
    "</m:response>"
#define SIZE "<m:getcontentlength>7</m:getcontentlength>"
#define TAIL "</m:multistatus>"

static void test_listings(void **state)
{
    (void)state;
    static const struct {
        const char *text, *lines;
    } good[] = {
        {HEAD SELF TAIL, ""},
        {HEAD SELF FILE_("/root/b%20c", SIZE) FILE_("/root/b", SIZE) TAIL, "b 7 0\nb c 7 0\n"},
        {HEAD SELF FILE_("//root///b", SIZE) TAIL, "b 7 0\n"},
        {HEAD FILE_("http://x/root/b", SIZE) SELF TAIL, "b 7 0\n"},
        {HEAD SELF FILE_("/root/b%2Fc", SIZE) FILE_("/root/b%00c", SIZE) TAIL, ""},
        {HEAD SELF FILE_("/root/deeper/b", SIZE) TAIL, ""},
        {HEAD SELF FILE_("/root/" STORE_TMP_PREFIX "1", SIZE) TAIL, ""},
        {HEAD SELF "<m:response><m:href>/root/b</m:href><m:status>HTTP/1.1 403 Forbidden"
                   "</m:status></m:response>" TAIL,
         ""},
        {HEAD SELF FILE_("/root/b", SIZE "<m:getlastmodified>Tue, 06 Jan 1970 00:00:01 GMT"
                                         "</m:getlastmodified>") TAIL,
         "b 7 432001\n"},
        {HEAD SELF FILE_("/root/b", SIZE "<m:getlastmodified>soon</m:getlastmodified>") TAIL,
         "b 7 0\n"},
    };
    static const char *const bad[] = {
        "",
        "<html>",
        HEAD SELF FILE_("/other/b", SIZE) TAIL,
        HEAD SELF FILE_("/rootless", SIZE) TAIL,
        HEAD SELF FILE_("/root/b%2", SIZE) TAIL,
        HEAD SELF FILE_("/root/b%zz", SIZE) TAIL,
        HEAD SELF FILE_("/root/b", "") TAIL,
        HEAD SELF FILE_("/root/b", "<m:getcontentlength>-7</m:getcontentlength>") TAIL,
        HEAD SELF FILE_("/root/b", "<m:getcontentlength>7x</m:getcontentlength>") TAIL,
        HEAD SELF FILE_("b", SIZE) TAIL,
        HEAD SELF "<m:response><m:propstat/></m:response>" TAIL,
        "<!DOCTYPE m [<!ENTITY e 'x'>]>" HEAD SELF TAIL,
        HEAD SELF,
    };
    char lines[1024];
    struct store *s = open_root("");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        propfind_text = good[i].text;
        ok(list(s, "", lines));
        assert_string_equal(lines, good[i].lines);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        propfind_text = bad[i];
        assert_int_equal(list(s, "", lines), RC_CORRUPT);
    }
    store_close(s);
}

/* What is not a WebDAV collection must not look like an empty one. */
static void test_not_webdav(void **state)
{
    (void)state;
    char lines[1024];
    struct store *s = open_root("");
    peer_push(peer, &(struct peer_resp){.status = 200, .body = "<p>hi", .body_size = 5});
    assert_int_equal(list(s, "", lines), RC_INVALID);
    assert_non_null(strstr(err.text, "no WebDAV"));
    peer_push(peer, &(struct peer_resp){.status = 405});
    assert_int_equal(list(s, "", lines), RC_INVALID);
    peer_push(peer, &(struct peer_resp){.status = 301, .headers = "Location: /x/\r\n"});
    assert_int_equal(list(s, "", lines), RC_INVALID);
    propfind_text = HEAD FILE_("%s", SIZE) TAIL;
    assert_int_equal(list(s, "", lines), RC_INVALID);
    ok(list(s, "below/", lines)); /* it is about a missing collection then */
    store_close(s);
}

/* The name of a collection is no object: it is not deleted with all that is in it. */
static void test_del_of_a_folder(void **state)
{
    (void)state;
    char lines[1024];
    struct store *s = open_root("");
    ok(put_text(s, "a/k", "x"));
    peer_forget(peer);
    ok(store_del(s, NULL, &(const char *){"a"}, 1, &err));
    assert_requests("PROPFIND /root/a\n");
    ok(list(s, "a/", lines));
    assert_int_equal(strncmp(lines, "a/k 1 ", 6), 0);
    store_close(s);
}

static void test_refusals(void **state)
{
    (void)state;
    struct store *s = open_root("");
    ok(put_text(s, "k", "x"));
    peer_push(peer, &(struct peer_resp){.status = 507});
    assert_int_equal(put_text(s, "k", "y"), RC_NO_SPACE);
    peer_push(peer, &(struct peer_resp){.status = 412});
    ok(put_text(s, "k", "y")); /* taken for a missing collection, and tried again */
    peer_push(peer, &(struct peer_resp){.status = 201});
    peer_push(peer, &(struct peer_resp){.status = 207, .body = "<x/>", .body_size = 4});
    assert_int_equal(put_text(s, "k", "z"), RC_IO);
    peer_push(peer, &(struct peer_resp){.status = 201});
    peer_push(peer, &(struct peer_resp){.status = 409});
    assert_int_equal(put_text(s, "k", "z"), RC_IO);
    store_close(s);
}

static void test_open(void **state)
{
    (void)state;
    static const struct store_setting url_only[] = {{"webdav-url", "https://[::1]:8443/dav/"},
                                                    {"path", "/my//db/./x/"}},
                                      up[] = {{"webdav-url", "http://h"}, {"path", "a/../b"}},
                                      ftp[] = {{"webdav-url", "ftp://h/x"}},
                                      colon[] = {{"webdav-username", "a:b"}},
                                      typo[] = {{"webdav-user", "a"}}, path[] = {{"path", "x"}};
    static const struct {
        const char *url;
        const struct store_setting *settings;
        size_t count;
        const char *name; /* NULL: RC_INVALID */
    } cases[] = {
        {"webdav://host/db", NULL, 0, "webdav://host/db"},
        {"WebDAVs://me:pw@host:1/a%20b/", NULL, 0, "webdavs://host:1/a%20b"},
        {NULL, url_only, 2, "webdavs://[::1]:8443/dav/my/db/x"},
        {NULL, up, 2, NULL},
        {NULL, ftp, 1, NULL},
        {NULL, path, 1, NULL},
        {"webdav://host/db", path, 1, NULL},
        {"webdav://host/db", colon, 1, NULL},
        {"webdav://host/db", typo, 1, NULL},
        {"webdav:///db", NULL, 0, NULL},
        {"webdav://host/a%2Fb", NULL, 0, NULL},
        {"webdav://host/a%", NULL, 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store *s = NULL;
        struct store_conf conf = {.type = "webdav",
                                  .url = cases[i].url,
                                  .settings = cases[i].settings,
                                  .setting_count = cases[i].count};
        enum rc rc = store_open_conf(&conf, &s, &err);
        if (cases[i].name != NULL) {
            ok(rc);
            assert_string_equal(store_name(s), cases[i].name);
        } else if (rc != RC_INVALID) {
            fail_msg("case %zu: %s", i, rc_name(rc));
        }
        store_close(s);
    }
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, start, stop)

int main(void)
{
    static const struct conformance_row row = {
        .name = "webdav", .prepare = prepare, .open = open_it, .clean = clean};
    const struct CMUnitTest tests[] = {
        CASE(test_requests),    CASE(test_requests_of_mod_dav_fs),
        CASE(test_lost_move),   CASE(test_locked),
        CASE(test_credentials), CASE(test_listings),
        CASE(test_not_webdav),  CASE(test_del_of_a_folder),
        CASE(test_refusals),    CASE(test_open),
    };
    int failed = conformance_run(&row);
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
