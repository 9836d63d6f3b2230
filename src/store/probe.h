/*
 * probe.h -- will this store do? Short tests of what a backup and two nodes that share a store rely
 * on, and some measurements, over the store API alone.
 *
 * The point of it is the races. A store that checks a condition and then acts on it passes any test
 * made of one request after another, so the probe lets 32 writers of different bodies go for one
 * key at the same time, over several handles, and looks who was told that he had won and whose body
 * is there.
 *
 * All objects live below one fresh prefix and are deleted at the end, whatever happened before.
 *
 * Threads: one caller; the probe starts its own and ends them before it returns.
 */
#ifndef STORE_PROBE_H
#define STORE_PROBE_H
#include "store/store.h"

/* In the order in which they are run and printed: those that decide come before those that measure,
 * so that a slow store runs out of time for the measurements only.
 *   BACKUP   the verdict on backup needs it
 *   HA       the verdict on high availability needs it, too
 *   MOVE     the verdict on backup allows it to be skipped, but not to fail
 *   INFO     no verdict looks at it */
#define PROBE_CHECKS(X)                                                                            \
    X(ACCESS, "access", BACKUP)                                                                    \
    X(LIST, "list", BACKUP)                                                                        \
    X(PUT, "put", BACKUP)                                                                          \
    X(GET, "get", BACKUP)                                                                          \
    X(DELETE, "delete", BACKUP)                                                                    \
    X(GET_AFTER_PUT, "get-after-put", BACKUP)                                                      \
    X(LIST_AFTER_PUT, "list-after-put", BACKUP)                                                    \
    X(OVERWRITE, "get-after-overwrite", BACKUP)                                                    \
    X(GET_AFTER_DELETE, "get-after-delete", BACKUP)                                                \
    X(LIST_AFTER_DELETE, "list-after-delete", BACKUP)                                              \
    X(RANGE, "ranged-get", BACKUP)                                                                 \
    X(TIMESTAMP, "timestamps", INFO)                                                               \
    X(CLOCK, "clock", INFO)                                                                        \
    X(CREATE_RULES, "create-rules", HA)                                                            \
    X(CREATE_RACE, "create-race", HA)                                                              \
    X(REPLACE_RULES, "replace-rules", HA)                                                          \
    X(REPLACE_RACE, "replace-race", HA)                                                            \
    X(PUT_LATENCY, "put-latency", MOVE)                                                            \
    X(GET_LATENCY, "get-latency", MOVE)                                                            \
    X(LIST_LATENCY, "list-latency", MOVE)                                                          \
    X(UPLOAD, "upload", MOVE)                                                                      \
    X(DOWNLOAD, "download", MOVE)                                                                  \
    X(UPLOAD_MANY, "upload-4-at-once", MOVE)                                                       \
    X(DOWNLOAD_MANY, "download-4-at-once", MOVE)                                                   \
    X(STREAM, "upload-unknown-size", MOVE)                                                         \
    X(CLEANUP, "cleanup", INFO)

enum probe_id {
#define X(NAME, name, need) PROBE_##NAME,
    PROBE_CHECKS(X)
#undef X
        PROBE_COUNT
};

enum probe_result {
    PROBE_SKIPPED, /* not run: something before it failed, or the time was over */
    PROBE_OK,
    PROBE_WARNING,
    PROBE_FAILED,
    PROBE_NOT_OFFERED, /* the store never claimed it */
};

struct probe_figure {
    const char *name; /* with its unit: "p50_us" */
    int64_t value;
};
#define PROBE_FIGURES_MAX 8
struct probe_check {
    enum probe_result result;
    char text[384];   /* what was seen, one line */
    char advice[256]; /* what to do; "" when there is nothing to do */
    struct probe_figure figures[PROBE_FIGURES_MAX];
    size_t figure_count;
};

#define PROBE_KEY_SIZE 80
#define PROBE_LEFT_MAX 32
#define PROBE_HANDLES  8  /* opened at most, for requests over several connections */
#define PROBE_RACERS   32 /* writers of one key at the same time */
#define PROBE_ROUNDS   8

struct probe_report {
    struct probe_check checks[PROBE_COUNT];
    char store[STORE_KEY_MAX * 2], type[16], prefix[PROBE_KEY_SIZE];
    bool for_backup, for_ha;                   /* the verdicts */
    char why_not_backup[512], why_not_ha[512]; /* "" when the verdict is yes */
    bool interrupted;                          /* the cancel flag ended it */
    struct store_stats stats;                  /* of all handles together */
    int64_t elapsed_ms;
    size_t left_count;                         /* objects that could not be deleted */
    char left[PROBE_LEFT_MAX][PROBE_KEY_SIZE]; /* the first of them */
};

struct probe_opts {
    /* Open the store once more. Each handle should have its own connections. */
    enum rc (*open)(void *ctx, struct store **ret_store, struct err *err);
    void *open_ctx;
    int64_t duration_ms;                          /* nothing is begun after that, but cleaning */
    uint64_t size_max;                            /* bytes of a large object; 0: 8 MiB */
    const atomic_bool *cancel;                    /* NULL, or ends it early; it still cleans up */
    void (*on_step)(void *ctx, const char *name); /* NULL, or called before each check */
    void *on_step_ctx;
};

/* What the store did wrong is in the report, not a failure of this function.
 * Fails: as opts->open; RC_NO_MEM. */
MUST_CHECK enum rc probe_run(const struct probe_opts *opts, struct probe_report *ret_report,
                             struct err *err);
const char *probe_name(enum probe_id id);             /* "create-race" */
const char *probe_result_name(enum probe_result res); /* "not offered" */
#endif
