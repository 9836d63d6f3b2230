/*
 * load.h -- clients of the server under test, and what they do to it.
 *
 * Fixed tenants: "a" (several clients) and "s" (synchronous). One more client is the administrator:
 * it makes, forks, renames, restores and deletes tenants of a few names, and writes to them.
 *
 * A transaction is `parts` rows of table t, all with its number; a trigger counts rows in table c.
 */
#ifndef POWER_LOAD_H
#define POWER_LOAD_H
#include "journal.h"

struct peer; /* one client: a connection that is kept */
struct peer *peer_new(const char *socket_path);
void peer_free(struct peer *p);
/* Status, 0 when there was no answer; *ret_body lives until the next call. body NULL: GET. */
long peer_ask(struct peer *p, const char *method, const char *path, const char *body,
              const char **ret_body);
/* One statement with one value as its answer ("" for NULL). False: there was none. */
bool peer_value(struct peer *p, const char *tenant, const char *sql, char *out, size_t size);
/* Numbers of the transactions in t. */
bool peer_ids(struct peer *p, const char *tenant, struct ids *ret);

struct load_opts {
    const char *socket, *admin_socket;
    struct journal *journal;
    uint64_t seed;
    int clients_a, clients_s;
};
struct load;
/* Note the tenants that are there, and make the fixed ones. Then let clients work. */
struct load *load_begin(const struct load_opts *opts);
/* No more requests; call it before the server ends, or after it was killed. */
void load_end(struct load *l);
/* Still running? Ask everybody to stop, without waiting. */
void load_stop(struct load *l);

/* The text that row `part` of a transaction has. */
#define BODY_MAX 9000
size_t load_body(uint32_t id, int part, char out[BODY_MAX]);
#define PARTS_MAX 12
int load_parts(uint32_t id);
#endif
