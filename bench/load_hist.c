/* load_hist.c -- see load.h. */
#include "load.h"

static unsigned bucket_of(uint64_t value);
static uint64_t bucket_top(unsigned bucket);

void hist_add(struct hist *h, uint64_t value)
{
    h->count++;
    h->max = value > h->max ? value : h->max;
    h->buckets[bucket_of(value)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    into->count += from->count;
    into->max = from->max > into->max ? from->max : into->max;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t hist_at(const struct hist *h, double share)
{
    uint64_t wanted = (uint64_t)((double)h->count * share), seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted) return bucket_top(i) < h->max ? bucket_top(i) : h->max;
    }
    return h->max;
}

/* Values below HIST_SUB have a bucket each; above, each power of two is cut into HIST_SUB parts. */
static unsigned bucket_of(uint64_t value)
{
    if (value < HIST_SUB) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - 7u;
    return (shift + 1) * HIST_SUB + (unsigned)((value >> shift) - HIST_SUB);
}

static uint64_t bucket_top(unsigned bucket)
{
    if (bucket < HIST_SUB) return bucket;
    unsigned shift = bucket / HIST_SUB - 1;
    return ((uint64_t)(bucket % HIST_SUB + HIST_SUB + 1) << shift) - 1;
}
