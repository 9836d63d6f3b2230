/*
 * store_bench.c -- small objects, one thread to many: store_bench URL [SECONDS]
 *
 * Puts objects of 4 KiB below a fresh name, gets them, and deletes them again; prints a row of
 * Markdown for each number of threads. The connections are those of the driver: one a thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "store/store.h"

#define OBJECT_SIZE 4096
#define THREADS_MAX 32
#define SAMPLES_MAX 200000

struct run {
    struct store *store;
    bool put;
    int64_t end_ms;
    char prefix[64];
    atomic_uint next, limit; /* objects begun; get: objects there are */
    atomic_uint done;
    float *us; /* of each call */
};

static void die_of(const struct err *err)
{
    fprintf(stderr, "store_bench: %s\n", err->text);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static enum rc nothing(void *ctx, const void *data, size_t size, struct err *err)
{
    (void)ctx, (void)data, (void)size, (void)err;
    return RC_OK;
}

static enum rc work(void *ctx, uint64_t index, struct err *err)
{
    struct run *r = ctx;
    static const uint8_t bytes[OBJECT_SIZE];
    (void)index;
    for (;;) {
        unsigned i = atomic_fetch_add(&r->next, 1);
        char key[128];
        struct store_bytes b;
        struct store_body body = store_body_bytes(&b, bytes, sizeof bytes);
        if (os_mono_ms() >= r->end_ms || i >= SAMPLES_MAX || (!r->put && i >= r->limit)) break;
        snprintf(key, sizeof key, "%s/%06u", r->prefix, i);
        int64_t start = now_us();
        if (r->put)
            TRY(store_put(r->store, NULL, key, &body, NULL, NULL, err));
        else
            TRY(store_get(r->store, NULL, key, NULL, nothing, NULL, err));
        r->us[atomic_fetch_add(&r->done, 1)] = (float)(now_us() - start);
    }
    return RC_OK;
}

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void measure(struct run *r, unsigned threads, int seconds)
{
    struct err err;
    int64_t start = now_us();
    atomic_store(&r->next, 0);
    atomic_store(&r->done, 0);
    r->end_ms = os_mono_ms() + seconds * 1000;
    if (thr_each(threads, threads, work, r, &err) != RC_OK) die_of(&err);
    double s = (double)(now_us() - start) / 1e6;
    unsigned n = atomic_load(&r->done);
    qsort(r->us, n, sizeof *r->us, by_float);
    printf(" %.0f | %.1f | %.1f |", n / s, (double)r->us[n / 2] / 1000,
           (double)r->us[n * 99ull / 100] / 1000);
}

static void clean(struct run *r)
{
    struct err err;
    char keys[100][128];
    const char *list[100];
    for (unsigned i = 0; i < r->limit; i += 100) {
        size_t n = 0;
        for (; n < 100 && i + n < r->limit; n++) {
            snprintf(keys[n], sizeof keys[n], "%s/%06u", r->prefix, (unsigned)(i + n));
            list[n] = keys[n];
        }
        if (store_del(r->store, NULL, list, n, &err) != RC_OK) die_of(&err);
    }
}

int main(int argc, char **argv)
{
    struct err err;
    struct run r = {.us = mem_calloc(SAMPLES_MAX + THREADS_MAX, sizeof *r.us)};
    if (argc < 2 || r.us == NULL) {
        fprintf(stderr, "usage: store_bench URL [SECONDS]\n");
        return 1;
    }
    int seconds = argc > 2 ? atoi(argv[2]) : 5;
    if (store_open(argv[1], &r.store, &err) != RC_OK) die_of(&err);
    printf("| threads | PUT/s | p50 ms | p99 ms | GET/s | p50 ms | p99 ms |\n"
           "|---|---|---|---|---|---|---|\n");
    for (unsigned threads = 1; threads <= THREADS_MAX; threads *= threads == 1 ? 8 : 4) {
        printf("| %u |", threads);
        snprintf(r.prefix, sizeof r.prefix, "bench-%016llx", (unsigned long long)os_random());
        r.put = true;
        measure(&r, threads, seconds);
        r.limit = atomic_load(&r.done);
        r.put = false;
        measure(&r, threads, seconds);
        printf("\n");
        fflush(stdout);
        clean(&r);
    }
    store_close(r.store);
    mem_free(r.us);
    return 0;
}
