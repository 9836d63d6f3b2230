/*
 * conformance.h -- what every store must do, as one suite. A test program gives a table of rows,
 * one a driver, and runs the suite over each. Tests of what a driver says it cannot do are skipped.
 */
#ifndef TESTS_STORE_CONFORMANCE_H
#define TESTS_STORE_CONFORMANCE_H
#include "store/store.h"

struct conformance_row {
    const char *name;
    /* Make room for a new empty store and give its URL; `unique` differs for each test. */
    void (*prepare)(unsigned unique, char url[256]);
    /* Open it; called several times for one URL, for tests with more than one handle. */
    struct store *(*open)(const char *url);
    /* Check that nothing but objects is left, and remove the store. */
    void (*clean)(const char *url);
};

/* Returns the number of tests that failed. */
int conformance_run(const struct conformance_row *row);
/* Copy all objects with their timestamps, then compare both stores. */
void conformance_copy(struct store *from, struct store *to);
#endif
