/* noise.h -- random numbers for tests; the seed is printed, and taken from SLUICE_SEED. */
#ifndef TESTS_FMT_NOISE_H
#define TESTS_FMT_NOISE_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t noise_state = 1;

__attribute__((unused)) static void noise_seed(void)
{
    const char *seed = getenv("SLUICE_SEED");
    noise_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("SLUICE_SEED=%llu\n", (unsigned long long)noise_state);
}

__attribute__((unused)) static uint64_t noise(void)
{
    uint64_t x = noise_state += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

__attribute__((unused)) static void fill_noise(uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)noise();
}
#endif
