/*
 * check.h -- is everything there after a power failure that must be, and nothing else?
 *
 * What is missing ends the program with LOST_STATUS, so that it can be told from trouble of the
 * test's own, which ends in die().
 */
#ifndef POWER_CHECK_H
#define POWER_CHECK_H
#include "journal.h"

#define LOST_STATUS 3
_Noreturn void lost(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct server { /* one on the folder */
    const char *program, *root, *socket, *admin_socket, *log;
    const char *spare;    /* a folder for what is restored */
    const char *store;    /* a folder below root; NULL: its own */
    const char *extra[4]; /* more options; NULL ends them */
    pid_t pid;
};
void server_spawn(struct server *s);
/* Until it answers. Ends in lost() when it does not, or ends. */
void server_ready(struct server *s);
void server_end(struct server *s); /* SIGTERM; ends in lost() unless it exits with 0 */

struct check {
    struct server *server;
    const struct journal *journal;
    uint64_t cut;
    bool relaxed;
    struct rng *rng;
    int restores; /* of tenants and of moments, at most so many each */
    bool no_peek; /* this time no client comes before the end: the logs complete themselves */
};
struct check_stats {
    uint64_t tenants, rows, restores, unopened;
};
/* The folder is as the power failure left it. */
void check_all(const struct check *c, struct check_stats *stats);
#endif
