/* reload_test.c -- keys, roles and certificates are read again: all of them or none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "server/serve_bed.h"
#include "server/tls_pair.h"

static void test_all_or_none(void **state)
{
    (void)state;
    struct sbed b;
    struct err err;
    char dir[] = "/tmp/sluice-reload-XXXXXX", cert[64], key[64], command[64];
    const struct auth_opts locked = {.http_auth = "basic:eDp5"};
    const struct auth_opts broken = {.http_auth = "basic:eDp5", .roles = "{"};
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/tls.pem", dir);
    snprintf(key, sizeof key, "%s/tls.key", dir);
    make_pair(1, cert, key);
    sbed_prepare(&b);
    b.opts.tls_cert = cert;
    b.opts.tls_key = key;
    sbed_start(&b);
    assert_true(auth_open(b.server->auth));

    /* The certificate cannot be read: the new password does not count, either. */
    assert_int_equal(os_write_file(key, "x", 1, 0600, &err), RC_OK);
    assert_int_equal(server_reload(b.server, &locked, &err), RC_INVALID);
    assert_non_null(strstr(err.text, key));
    assert_true(auth_open(b.server->auth));

    /* Both are wrong: what is said first is about the roles, before any file is touched. */
    assert_int_equal(server_reload(b.server, &broken, &err), RC_INVALID);
    assert_null(strstr(err.text, key));
    assert_true(auth_open(b.server->auth));

    make_pair(2, cert, key);
    assert_int_equal(server_reload(b.server, &broken, &err), RC_INVALID);
    assert_true(auth_open(b.server->auth));
    assert_int_equal(server_reload(b.server, &locked, &err), RC_OK);
    assert_false(auth_open(b.server->auth));
    sbed_free(&b);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_or_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
