/*
 * fuzz.h -- what a fuzz target looks like: one input in, and a check that aborts when an answer is
 * wrong (not only when it crashes). Includes stand-ins for the assertions that test helpers use.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: fails: %s\n", __FILE__, __LINE__, #cond);                      \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
#define fail_msg(...)             (fprintf(stderr, __VA_ARGS__), abort())
#define assert_int_equal(a, b)    CHECK((a) == (b))
#define assert_ptr_equal(a, b)    CHECK((a) == (b))
#define assert_string_equal(a, b) CHECK(strcmp(a, b) == 0)

#define FUZZ_SIZE_MAX             8192 /* bytes of one input */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Write the n-th good input (n from 0, any) for the mutator to start from; returns its size. */
size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX]);
#endif
