/* serve_conf_test.c -- sluice.yml: what it may look like, every complaint, every allocation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "node/serve_conf.h"

static struct serve_conf *good(const char *text)
{
    struct err err = {0};
    struct serve_conf *conf = NULL;
    if (serve_conf_parse(text, strlen(text), "/x.yml", &conf, &err) != RC_OK)
        fail_msg("%s\nin:\n%s", err.text, text);
    return conf;
}

static void bad(const char *text, const char *message)
{
    struct err err = {0};
    struct serve_conf *conf = NULL;
    enum rc rc = serve_conf_parse(text, strlen(text), "/x.yml", &conf, &err);
    if (rc == RC_OK) fail_msg("accepted:\n%s", text);
    assert_null(conf);
    assert_string_equal(err.text, message);
}

static void check_entry(const struct serve_conf *conf, size_t i, const char *key, const char *value,
                        unsigned line)
{
    assert_true(i < conf->count);
    assert_string_equal(conf->entries[i].key, key);
    assert_string_equal(conf->entries[i].value, value);
    assert_int_equal(conf->entries[i].line, line);
    assert_true(conf->entries[i].literal);
}

static void test_keys_and_values(void **state)
{
    (void)state;
    struct serve_conf *conf = good("# first\n"
                                   "listen: 127.0.0.1:8080\n"
                                   "\n"
                                   "'max-open': 12\n"
                                   "relaxed: yes # why not\n"
                                   "store:\n"
                                   "cache: ~\n"
                                   "slow-query: null\n"
                                   "http-auth: ''\n"
                                   "admin-key: \"a: b # c\"\n"
                                   "roles: /etc/roles.json\n");
    assert_string_equal(conf->file, "/x.yml");
    assert_int_equal(conf->count, 6); /* without those that have no value */
    check_entry(conf, 0, "listen", "127.0.0.1:8080", 2);
    check_entry(conf, 1, "max-open", "12", 4);
    check_entry(conf, 2, "relaxed", "yes", 5);
    check_entry(conf, 3, "http-auth", "", 9);
    check_entry(conf, 4, "admin-key", "a: b # c", 10);
    check_entry(conf, 5, "roles", "/etc/roles.json", 11);
    assert_false(conf->entries[5].mapping || conf->shared);
    serve_conf_free(conf);
}

static void test_nothing_in_it(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\n", "# only words\n", "---\n", "~\n", "{}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct serve_conf *conf = good(texts[i]);
        assert_int_equal(conf->count, 0);
        serve_conf_free(conf);
    }
    serve_conf_free(NULL);
}

static void test_roles_become_json(void **state)
{
    (void)state;
    struct serve_conf *conf = good("roles:\n"
                                   "  none: []\n"
                                   "  one:\n"
                                   "    - {effect: allow, actions: [read], tables: &t [2024, no]}\n"
                                   "    - effect: deny\n"
                                   "      tables: *t\n"
                                   "  'a \"b\" \\':\n"
                                   "    - \"line\\nbreak\\0\"\n");
    assert_int_equal(conf->count, 1);
    assert_true(conf->entries[0].mapping);
    check_entry(conf, 0, "roles",
                "{\"none\":[],"
                "\"one\":[{\"effect\":\"allow\",\"actions\":[\"read\"],\"tables\":[\"2024\",\"no\"]"
                "},{\"effect\":\"deny\",\"tables\":[\"2024\",\"no\"]}],"
                "\"a \\\"b\\\" \\\\\":[\"line\\u000abreak\\u0000\"]}",
                1);
    serve_conf_free(conf);
}

static void test_complaints(void **state)
{
    (void)state;
    bad("- a\n", "/x.yml:1: the file must consist of \"key: value\" lines");
    bad("just words\n", "/x.yml:1: the file must consist of \"key: value\" lines");
    bad("a: b\nc: d: e\n",
        "/x.yml:2: not valid YAML: mapping values are not allowed in this context");
    bad("a: *b\n", "/x.yml:1: not valid YAML: found undefined alias");
    bad("\n[a]: b\n", "/x.yml:2: a key that is no text");
    bad("a: b\nb: c\na: d\n", "/x.yml:3: a: given twice, first in line 1");
    bad("a:\nb: c\na: d\n", "/x.yml:3: a: given twice, first in line 1");
    bad("listen: [a, b]\n", "/x.yml:1: listen: must be a single value, not a list");
    bad("tenants:\n  a: b\n", "/x.yml:2: tenants: must be a single value, not a mapping");
    bad("roles: [a]\n", "/x.yml:1: roles: must be a single value, not a list");
    bad("a: \"b\\0c\"\n", "/x.yml:1: a: must not hold a NUL character");
    bad("roles:\n  a: []\n  a: []\n", "/x.yml:3: a: given twice, first in line 2");
    bad("roles:\n  a: [{[b]: c}]\n", "/x.yml:2: a key that is no text");
    bad("roles:\n  a: &a [*a]\n", "/x.yml:2: nested too deep");
}

/* Every alias doubles what came before. */
static void test_limits(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    struct err err;
    struct serve_conf *conf = NULL;
    assert_int_equal(buf_printf(&text, &err, "roles:\n  a0: &a0 [%040d, x]\n", 1), RC_OK);
    for (int i = 1; i < 15; i++)
        assert_int_equal(
            buf_printf(&text, &err, "  a%d: &a%d [*a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1),
            RC_OK);
    assert_int_equal(serve_conf_parse((char *)text.data, text.size, "/x.yml", &conf, &err),
                     RC_TOO_BIG);
    assert_string_equal(err.text, "/x.yml: roles: more than 1048576 bytes");
    buf_reset(&text);
    for (int i = 0; i < 1025; i++)
        assert_int_equal(buf_printf(&text, &err, "k%d: v\n", i), RC_OK);
    assert_int_equal(serve_conf_parse((char *)text.data, text.size, "/x.yml", &conf, &err),
                     RC_INVALID);
    assert_string_equal(err.text, "/x.yml:1: more than 1024 keys");
    assert_null(conf);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/serve_conf.XXXXXX", path[64], message[128];
    struct err err;
    struct serve_conf *conf = NULL;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/sluice.yml", dir);
    snprintf(message, sizeof message, "config file not found: %s", path);
    assert_int_equal(serve_conf_load(path, true, &conf, &err), RC_NOT_FOUND);
    assert_string_equal(err.text, message);
    assert_int_equal(setenv("SLUICE_TEST_KEY", "from the environment", 1), 0);
    write_file(path, "admin-key: $SLUICE_TEST_KEY\nlisten: here\nroles: {a: []}\n", 0600);
    assert_int_equal(serve_conf_load(path, true, &conf, &err), RC_OK);
    assert_string_equal(conf->file, path);
    assert_string_equal(conf->entries[0].value, "from the environment");
    assert_false(conf->entries[0].literal);
    assert_true(conf->entries[1].literal && conf->entries[2].literal);
    assert_false(conf->shared);
    serve_conf_freep(&conf);
    assert_null(conf);
    assert_int_equal(chmod(path, 0604), 0);
    assert_int_equal(serve_conf_load(path, false, &conf, &err), RC_OK);
    check_entry(conf, 0, "admin-key", "$SLUICE_TEST_KEY", 1);
    assert_true(conf->shared);
    serve_conf_freep(&conf);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(serve_conf_load(path, true, &conf, &err), RC_OK);
    assert_false(conf->shared);
    serve_conf_freep(&conf);
    assert_int_equal(truncate(path, (1 << 20) + 1), 0);
    assert_int_equal(serve_conf_load(path, true, &conf, &err), RC_TOO_BIG);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(serve_conf_load(dir, true, &conf, &err), RC_INVALID);
    assert_int_equal(rmdir(dir), 0);
    assert_null(conf);
}

/* libyaml has an allocator of its own, which is not under test. */
static void test_every_step_may_fail(void **state)
{
    (void)state;
    char dir[] = "/tmp/serve_conf.XXXXXX", path[64];
    struct err err;
    uint64_t n = 0;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/sluice.yml", dir);
    write_file(path, "admin-key: $HOME\nlisten: here\nroles: {a: [{b: [c, d]}], e: []}\n", 0600);
    for (bool fired = true; fired; n++) {
        struct serve_conf *conf = NULL;
        fault_arm(FAULT_ALLOC | FAULT_SYSCALL, n + 1, false);
        enum rc rc = serve_conf_load(path, true, &conf, &err);
        fired = fault_fired();
        fault_arm(0, 0, false);
        assert_int_equal(rc == RC_OK, !fired);
        assert_int_equal(conf != NULL, !fired);
        if (fired) assert_true(err.rc == rc && err.text[0] != '\0');
        serve_conf_free(conf);
    }
    assert_true(n > 10);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_and_values),
        cmocka_unit_test(test_nothing_in_it),
        cmocka_unit_test(test_roles_become_json),
        cmocka_unit_test(test_complaints),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_every_step_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
