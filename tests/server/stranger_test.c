/* stranger_test.c -- what somebody with a token that is not good can learn: nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "server/serve_bed.h"

#define BODY  "{\"requests\":[]}"
#define WRONG "Authorization: Bearer nonsense\r\n"
#define RIGHT "Authorization: Basic eDp5\r\n"

/* Which names there are. */
static void test_names(void **state)
{
    (void)state;
    static const char *const paths[] = {"/dev/one/v2/pipeline", "/dev/missing/v2/pipeline"};
    struct sbed b;
    sbed_prepare(&b);
    b.opts.auth = (struct auth_opts){.http_auth = "basic:eDp5"};
    sbed_start(&b);
    /* Closed, then open: one of them is found without a look at the disk. */
    for (int round = 0; round < 2; round++) {
        struct answer there = sbed_ask(&b, paths[0], WRONG, BODY);
        struct answer missing = sbed_ask(&b, paths[1], WRONG, BODY);
        assert_int_equal(there.status, 401);
        assert_int_equal(missing.status, 401);
        assert_string_equal((char *)there.body.data, (char *)missing.body.data);
        buf_fini(&there.body);
        buf_fini(&missing.body);
        sbed_expect(&b, paths[0], RIGHT, BODY, 200, "results");
        sbed_expect(&b, paths[1], RIGHT, BODY, 404, "NAMESPACE_NOT_FOUND");
    }
    static const char hello[] = "{\"type\":\"hello\",\"jwt\":\"nonsense\"}";
    static const char *const names[] = {"/dev/one/", "/dev/missing/"};
    for (size_t i = 0; i < 2; i++) {
        struct peer p;
        sbed_ws(&b, &p, names[i]);
        ws_say(&p, hello);
        ws_expect(&p, "hello_error", "AUTH_JWT_NOT_ALLOWED");
        peer_fini(&p);
    }
    sbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
