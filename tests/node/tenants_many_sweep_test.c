/*
 * tenants_many_sweep_test.c -- far more tenants than may be open at once: nothing is lost, and what
 * is open stays bounded. SLUICE_TENANTS of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/os.h"
#include "node/tbed.h"

#define SETUP "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"

static unsigned open_fds(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 65536; fd++) {
        char link[32], to[8];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        count += readlink(link, to, sizeof to) > 0;
    }
    return count;
}

static long resident_kib(void)
{
    long pages = 0, skip;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &skip, &pages), 2);
    fclose(f);
    return pages * 4;
}

static unsigned count_of(const char *name, unsigned fallback)
{
    const char *given = getenv(name);
    return given != NULL ? (unsigned)strtoul(given, NULL, 10) : fallback;
}

/* Each is opened, written to, and closed again as others come: nothing is lost, here and in the
 * logs, and what is open stays bounded. */
static void test_many(void **arg)
{
    struct tbed b;
    struct tenants_stats st;
    struct err err = {0};
    char name[24], sql[80];
    const unsigned count = count_of("SLUICE_TENANTS", 3000), rounds = 2;
    unsigned most_fds = 0;
    long most_kib = 0;
    (void)arg;
    tbed_new(&b);
    b.opts.open_max = 50;
    b.opts.full_sync = false;
    tbed_start(&b);
    int64_t start = os_mono_ms();
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(tenants_ops.create(b.ts, name, NULL, &err), RC_OK);
    }
    print_message("create: %.2f ms each\n", (double)(os_mono_ms() - start) / count);
    for (unsigned round = 0; round < rounds; round++) {
        start = os_mono_ms();
        for (unsigned i = 0; i < count; i++) {
            snprintf(name, sizeof name, "n%u", (i * 7919u) % count);
            snprintf(sql, sizeof sql, "%s INSERT INTO t VALUES(%u,%u)", round == 0 ? SETUP ";" : "",
                     round, (i * 7919u) % count);
            tbed_sql(&b, name, sql);
            if (i % 100 != 99) continue;
            tenants_look(b.ts, &st);
            assert_true(st.open <= 50);
            assert_true(st.draining <= 65);
            unsigned fds = open_fds();
            long kib = resident_kib();
            if (fds > most_fds) most_fds = fds;
            if (kib > most_kib) most_kib = kib;
        }
        print_message("round %u: %.2f ms each\n", round, (double)(os_mono_ms() - start) / count);
    }
    print_message("at most %u descriptors, %ld KiB\n", most_fds, most_kib);
    assert_true(most_fds < 2000);
    tbed_stop_ok(&b);
    assert_int_equal(tbed_entries(&b, "open"), 0);
    assert_int_equal(tbed_entries(&b, "backup"), count);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(tbed_log_int(&b, name, 0, "SELECT sum(v)*10+count(*) FROM t"),
                         rounds * i * 10 + rounds);
    }
    tbed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
