/* store_test.c -- opening by URL, and the fault wrapper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"

static struct err err;

static void assert_opens(const char *url, const char *type, const char *name)
{
    struct store *s = NULL;
    if (store_open(url, &s, &err) != RC_OK) fail_msg("'%s': %s", url, err.text);
    assert_string_equal(store_type(s), type);
    assert_string_equal(store_name(s), name);
    store_close(s);
}

static void test_urls(void **state)
{
    (void)state;
    char cwd[OS_PATH_MAX], name[OS_PATH_MAX + 64];
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_opens("file:///srv/backup", "file", "file:///srv/backup");
    assert_opens("FILE:///srv/backup/", "file", "file:///srv/backup");
    assert_opens("/srv/backup", "file", "file:///srv/backup");
    assert_opens("file:///srv//x/./y/../backup//", "file", "file:///srv/x/backup");
    assert_opens("/../../srv", "file", "file:///srv");
    assert_opens("/", "file", "file:///");
    assert_opens("file:///a%20b%2Fc", "file", "file:///a%20b%2Fc");
    assert_opens("file:///srv/backup?retention=1h", "file", "file:///srv/backup");
    assert_opens("file://host/backup", "file", "file:///host/backup");
    assert_opens("/odd?name#here", "file", "file:///odd?name#here");
    snprintf(name, sizeof name, "file://%s/rel/path", cwd);
    assert_opens("rel/path", "file", name);
    assert_opens("./rel/path/", "file", name);
    snprintf(name, sizeof name, "file://%s", cwd);
    assert_opens(".", "file", name);
    assert_opens("mem://name", "mem", "mem://name");
    assert_opens("mem://", "mem", "mem://");
}

static void test_bad_urls(void **state)
{
    (void)state;
    char longer[2000] = "file:///";
    memset(longer + 8, 'x', sizeof longer - 9);
    struct store *s = NULL;
    assert_int_equal(store_open("", &s, &err), RC_INVALID);
    assert_int_equal(store_open("file://", &s, &err), RC_INVALID);
    assert_int_equal(store_open("file:///", &s, &err), RC_INVALID);
    assert_int_equal(store_open(longer, &s, &err), RC_INVALID);
    assert_int_equal(store_open(longer + 7, &s, &err), RC_INVALID);
    longer[8 + 1000] = '\0';
    assert_int_equal(store_open(longer, &s, &err), RC_INVALID);
    memcpy(longer, "mem:", 4);
    assert_int_equal(store_open("ftp://user:sesame@host/x", &s, &err), RC_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'ftp'"));
    assert_non_null(strstr(err.text, "file, mem"));
    assert_non_null(strstr(err.text, "file:///path"));
    assert_null(strstr(err.text, "sesame"));
    assert_null(s);
    store_close(NULL);
}

/* What a driver sees of a URL's query and of settings. */
static void test_settings(void **state)
{
    (void)state;
    struct store_settings *set = mem_calloc(1, sizeof *set);
    const struct store_setting given[] = {{"region", "eu-2"}, {"part-size", "8MiB"}};
    struct store_conf conf = {
        .url =
            "s3://b/p?region=eu-1&forcePathStyle=true&requireContentMD5=no&sse-customer-key=a%2Bb"
            "&concurrency=7&odd",
        .settings = given,
        .setting_count = 2};
    bool path_style = false, md5 = true, other = true;
    int64_t n = 3, ms = 5;
    uint64_t size = 1;
    assert_int_equal(store_settings_fill(set, &conf, &err), RC_OK);
    assert_string_equal(store_setting(set, "region"), "eu-2");
    assert_string_equal(store_setting(set, "sse-customer-key"), "a+b");
    assert_string_equal(store_setting(set, "nothing"), "");
    assert_int_equal(store_setting_bool(set, "force-path-style", &path_style, &err), RC_OK);
    assert_int_equal(store_setting_bool(set, "require-content-md5", &md5, &err), RC_OK);
    assert_int_equal(store_setting_bool(set, "skip-verify", &other, &err), RC_OK);
    assert_true(path_style && !md5 && other);
    assert_int_equal(store_setting_int(set, "concurrency", 1, 6, &n, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "concurrency"));
    assert_int_equal(n, 3);
    assert_int_equal(store_setting_int(set, "concurrency", 1, 7, &n, &err), RC_OK);
    assert_int_equal(n, 7);
    assert_int_equal(store_setting_size(set, "part-size", &size, &err), RC_OK);
    assert_int_equal(size, 8 << 20);
    assert_int_equal(store_setting_ms(set, "region", &ms, &err), RC_INVALID);
    assert_int_equal(store_settings_check(set, "s3", &err), RC_INVALID);
    assert_non_null(strstr(err.text, "'odd'"));
    (void)store_setting(set, "odd");
    assert_int_equal(store_settings_check(set, "s3", &err), RC_OK);
    conf.url = "s3://b/?a=%4";
    assert_int_equal(store_settings_fill(set, &conf, &err), RC_INVALID);
    mem_free(set);
    struct store *s = NULL;
    assert_int_equal(store_open("mem://x?y=1", &s, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "'y'"));
}

static void test_stats(void **state)
{
    (void)state;
    struct store *s = NULL;
    struct store_stats n;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "hello", 5);
    char got[3];
    assert_int_equal(store_open("mem://", &s, &err), RC_OK);
    assert_int_equal(store_put(s, NULL, "k", &body, NULL, NULL, &err), RC_OK);
    assert_int_equal(store_read(s, NULL, "k", 1, got, 3, &err), RC_OK);
    assert_int_equal(store_del(s, NULL, &(const char *){"k"}, 1, &err), RC_OK);
    store_stats(s, &n);
    assert_int_equal(n.requests[STORE_OP_PUT], 1);
    assert_int_equal(n.requests[STORE_OP_GET], 1);
    assert_int_equal(n.requests[STORE_OP_LIST], 0);
    assert_int_equal(n.requests[STORE_OP_DEL], 1);
    assert_int_equal(n.bytes_up, 5);
    assert_int_equal(n.bytes_down, 3);
    assert_string_equal(store_op_name(STORE_OP_DEL), "delete");
    store_close(s);
}

/* A relative path means the folder of the time of opening. */
static void test_chdir(void **state)
{
    (void)state;
    char cwd[OS_PATH_MAX], dir[] = "/tmp/sluice-store-XXXXXX", path[64];
    struct store *s = NULL;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(store_open("here", &s, &err), RC_OK);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(store_put(s, NULL, "k", &body, NULL, NULL, &err), RC_OK);
    store_close(s);
    snprintf(path, sizeof path, "%s/here/k", dir);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/here", dir);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(chdir(cwd), 0);
}

static enum rc never_fn(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)ctx, (void)obj;
    return err_set(e, RC_DENIED, "must not be called");
}

/* mem:// without a name is private; a named one ends with its last handle. */
static void test_mem_sharing(void **state)
{
    (void)state;
    struct store *a, *b;
    struct store_bytes bytes;
    struct store_body body = store_body_bytes(&bytes, "x", 1);
    char byte;
    for (int named = 0; named < 2; named++) {
        const char *url = named ? "mem://shared" : "mem://";
        assert_int_equal(store_open(url, &a, &err), RC_OK);
        assert_int_equal(store_open(url, &b, &err), RC_OK);
        assert_int_equal(store_put(a, NULL, "k", &body, NULL, NULL, &err), RC_OK);
        assert_int_equal(store_read(b, NULL, "k", 0, &byte, 1, &err), named ? RC_OK : RC_NOT_FOUND);
        store_close(a);
        assert_int_equal(store_read(b, NULL, "k", 0, &byte, 1, &err), named ? RC_OK : RC_NOT_FOUND);
        store_close(b);
    }
    assert_int_equal(store_open("mem://shared", &a, &err), RC_OK);
    assert_int_equal(store_list(a, NULL, "", NULL, never_fn, NULL, &err), RC_OK);
    store_close(a);
}

/* A driver of the least kind: no capabilities, an unsorted tail of foreign names, no seek. */
static enum rc poor_list(struct store *s, const struct call *c, const char *prefix,
                         const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                         struct err *e)
{
    static const char *const keys[] = {"/abs", "a", "a/", "b", "b//c", "c", "d"};
    (void)s, (void)c, (void)prefix, (void)opts;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct store_obj obj = {.size = i};
        memcpy(obj.key, keys[i], strlen(keys[i]) + 1);
        TRY(fn(ctx, &obj, e));
    }
    return RC_OK;
}

/* One that sends more than the range asked for. */
static enum rc poor_get(struct store *s, const struct call *c, const char *key,
                        const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                        struct err *e)
{
    (void)s, (void)c, (void)key, (void)opts;
    return sink(ctx, "0123456789", 10, e);
}

static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s ", obj->key);
}

static void test_help_for_poor_drivers(void **state)
{
    (void)state;
    static const struct store_ops ops = {.type = "poor", .list = poor_list, .get = poor_get};
    struct store s = {.ops = &ops, .name = "poor://"};
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    struct store_bytes bytes;
    struct store_body body = store_body_bytes(&bytes, "x", 1);
    char text[4];
    assert_int_equal(store_list(&s, NULL, "", NULL, into_lines, &b, &err), RC_OK);
    assert_memory_equal(b.data, "a b c d ", 9);
    buf_reset(&b);
    struct store_list_opts opts = {.after = "a", .count_max = 2};
    assert_int_equal(store_list(&s, NULL, "", &opts, into_lines, &b, &err), RC_OK);
    assert_memory_equal(b.data, "b c ", 5);
    assert_int_equal(
        store_put(&s, NULL, "k", &body, &(struct store_put_opts){.if_absent = true}, NULL, &err),
        RC_UNSUPPORTED);
    assert_non_null(strstr(err.text, "poor://"));
    assert_int_equal(store_read(&s, NULL, "k", 0, text, 4, &err), RC_CORRUPT);
}

static struct store *faulty(enum store_fault mode)
{
    struct store *inner = NULL, *s = NULL;
    assert_int_equal(store_open("mem://", &inner, &err), RC_OK);
    assert_int_equal(store_fault_new(inner, &s, &err), RC_OK);
    store_fault_mode(s, mode);
    return s;
}

static enum rc put_x(struct store *s, const char *key, bool if_absent)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    return store_put(s, NULL, key, &body, &(struct store_put_opts){.if_absent = if_absent}, NULL,
                     &err);
}

static void test_fault_refuses(void **state)
{
    (void)state;
    struct store *s = faulty(STORE_FAULT_REFUSE);
    const char *key = "k";
    char byte = 0;
    fault_arm(FAULT_STORE, 1, false);
    assert_int_equal(put_x(s, "k", true), RC_AGAIN);
    assert_true(fault_fired());
    assert_string_equal(fault_last(), "put");
    assert_int_equal(put_x(s, "k", true), RC_OK); /* so the first one did nothing */
    fault_arm(FAULT_STORE, 2, true);
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_OK);
    byte = 0;
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_AGAIN);
    assert_int_equal(byte, 0);
    assert_int_equal(store_list(s, NULL, "", NULL, never_fn, NULL, &err), RC_AGAIN);
    assert_int_equal(store_del(s, NULL, &key, 1, &err), RC_AGAIN);
    assert_int_equal(fault_count(), 4);
    fault_arm(0, 0, false);
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_OK);
    store_close(s);
}

static void test_fault_loses_answers(void **state)
{
    (void)state;
    struct store *s = faulty(STORE_FAULT_LOSE);
    const char *key = "k";
    char byte = 0;
    fault_arm(FAULT_STORE, 1, true);
    assert_int_equal(put_x(s, "k", true), RC_AGAIN);
    assert_int_equal(put_x(s, "k", true), RC_CONFLICT); /* it took effect; a failure stays itself */
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_AGAIN);
    assert_int_equal(byte, 'x');
    assert_int_equal(store_del(s, NULL, &key, 1, &err), RC_AGAIN);
    fault_arm(0, 0, false);
    assert_int_equal(store_read(s, NULL, "k", 0, &byte, 1, &err), RC_NOT_FOUND);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_bad_urls),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_chdir),
        cmocka_unit_test(test_mem_sharing),
        cmocka_unit_test(test_help_for_poor_drivers),
        cmocka_unit_test(test_fault_refuses),
        cmocka_unit_test(test_fault_loses_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
