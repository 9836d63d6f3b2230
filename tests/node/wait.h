/* wait.h -- things that happen on another thread, soon. Included after cmocka.h. */
#ifndef TESTS_NODE_WAIT_H
#define TESTS_NODE_WAIT_H
#include <stdlib.h>
#include "base/os.h"

#define WAIT_MS 60000 /* a busy machine, not a slow program */

/* Fail the test unless expr becomes true. */
#define WAIT_FOR(expr)                                                                             \
    do {                                                                                           \
        int64_t wait_end_ = os_mono_ms() + WAIT_MS;                                                \
        while (!(expr)) {                                                                          \
            if (os_mono_ms() > wait_end_) fail_msg("waited in vain for: %s", #expr);               \
            os_sleep_ms(1);                                                                        \
        }                                                                                          \
    } while (0)

static inline unsigned test_seed(void)
{
    const char *given = getenv("SLUICE_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)os_random();
    print_message("SLUICE_SEED=%u\n", seed);
    return seed;
}
#endif
