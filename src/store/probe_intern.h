/*
 * probe_intern.h -- what the parts of the probe share: probe.c (order, verdicts, cleaning up),
 * probe_check.c (promises to one writer), probe_race.c (promises between writers), probe_speed.c.
 */
#ifndef STORE_PROBE_INTERN_H
#define STORE_PROBE_INTERN_H
#include "store/probe.h"

#define PROBE_KEYS_MAX 512
#define PROBE_TEXT_MAX 192 /* a small object */

struct probe {
    const struct probe_opts *opts;
    struct probe_report *r;
    struct store *stores[PROBE_HANDLES];
    unsigned store_count;
    struct call call;
    uint64_t seed;
    int64_t start_ms;
    /* Keys that may exist by now: noted before the put. */
    pthread_mutex_t lock;
    size_t key_count;                          /* [lock] */
    char keys[PROBE_KEYS_MAX][PROBE_KEY_SIZE]; /* [lock] */
};

/* Make a key below the prefix and note it for the cleaning up. */
void probe__key(struct probe *p, char out[PROBE_KEY_SIZE], const char *fmt, ...) FMT(3, 4);
struct store *probe__store(const struct probe *p, uint64_t i); /* a handle, in turn */

/* Put a text with the call's limits; opts and ret_obj may be NULL. Fails: as store_put. */
MUST_CHECK enum rc probe__put(struct probe *p, struct store *s, const char *key, const char *text,
                              const struct store_put_opts *opts, struct store_obj *ret_obj,
                              struct err *err);
/* Get a small object as a text. Fails: as store_get; RC_TOO_BIG no text of ours is that long. */
MUST_CHECK enum rc probe__get(struct probe *p, struct store *s, const char *key,
                              char out[PROBE_TEXT_MAX], struct store_obj *ret_obj, struct err *err);

/* Write down what a check has seen. */
void probe__set(struct probe *p, enum probe_id id, enum probe_result res, const char *advice,
                const char *fmt, ...) FMT(5, 6);
/* The same for a failed request: the result and the advice follow from its code. */
void probe__fail(struct probe *p, enum probe_id id, const struct err *err, const char *what);
void probe__figure(struct probe *p, enum probe_id id, const char *name, int64_t value);
/* Announce a check. False: it cannot be run any more, and says so. */
bool probe__begin(struct probe *p, enum probe_id id);
bool probe__passed(const struct probe *p, enum probe_id id); /* ok, or with a warning */
int64_t probe__left_ms(const struct probe *p);               /* until the time is over */

/* The parts. Each does nothing but fill in checks. */
void probe__seen(struct probe *p);    /* get and list after put, timestamps, clock */
void probe__changed(struct probe *p); /* overwrite, delete, range */
void probe__races(struct probe *p);
void probe__speed(struct probe *p);
#endif
