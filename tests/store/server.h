/*
 * server.h -- a real server for a test program: the script tests/servers/<name>, which keeps its
 * state in a folder of its own below /tmp. Threads: one.
 */
#ifndef TESTS_STORE_SERVER_H
#define TESTS_STORE_SERVER_H
#include <stddef.h>

struct server {
    const char *name; /* of the script */
    char dir[80];
    char text[2048]; /* the KEY=VALUE lines of the last start */
};

/* Start it, call run, which returns how many tests failed, end it and remove its folder. What main
 * returns: 0 or 1; 77 when the script says, with its reason printed, that there is no such server
 * here. s is filled in. */
int server_test(struct server *s, const char *name, int (*run)(void));

/* "start", "stop" or whatever else the script can do; `more`: "", or further words behind the
 * folder. Its lines that are no KEY=VALUE are printed. Returns its exit status, -1 when it has
 * none.
 */
int server_run(struct server *s, const char *verb, const char *more);
/* The value that the last start gave; "", with a word about it, when it gave none or a longer one.
 */
void server_value(const struct server *s, const char *key, char *out, size_t out_size);

/* Remove a folder and all in it. Returns how many temporary files of stores were there. */
unsigned tree_remove(const char *path);
#endif
