/*
 * scenario.h -- run named, scripted tests, each in a process and a folder of its own.
 *
 *   PROGRAM_NAME [--program PATH] [--peer PATH] [--writer PATH] [--dir DIR] [--seed N] [--full 1]
 *                [--list 1] [SCENARIO...]
 *
 * A scenario that fails keeps its folder and says how to run it again.
 */
#ifndef HARNESS_SCENARIO_H
#define HARNESS_SCENARIO_H
#include "bed.h"

struct scenario_env {
    const char *program; /* under test */
    const char *peer;    /* what it must get along with, or NULL */
    const char *writer;
    char dir[TOOL_PATH_MAX - 64]; /* of this scenario */
    uint64_t seed;
};
struct scenario {
    const char *name;
    void (*fn)(struct scenario_env *env, struct bed *bed);
    bool full_only; /* minutes or gigabytes: only with --full 1, or by name */
};
/* Statuses: 0 all passed, 1 some failed, 77 nothing could run because the peer is missing. */
#define SCENARIO_SKIPPED 77
int scenario_main(int argc, char **argv, const struct scenario *all, struct scenario_env defaults);
/* Start the scenario's bed with these options; the seed is the scenario's. */
void scenario_bed(struct scenario_env *env, struct bed *b, struct bed_opts opts);
/* Run n operations of the mode on an open connection. */
void scenario_steps(struct model *m, enum model_mode mode, int count);
/* Until a writer has begun a WAL in little-endian order: on a busy machine its first commit takes
 * long, and the WAL of before may still be there. */
void scenario_await_wal(const char *wal);
/* Rewrite a WAL so that its checksums are computed in big-endian order, as on another machine. */
void scenario_flip_wal(const char *wal);
#endif
