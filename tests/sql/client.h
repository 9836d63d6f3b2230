/* client.h -- an engine with its threads, and clients that do as the server does: ask for turns,
 * wait for them, hand lone writes to the writer. */
#ifndef TESTS_SQL_CLIENT_H
#define TESTS_SQL_CLIENT_H
#include "base/buf.h"
#include "sql/bed.h"
#include "sql/stream.h"

struct house {
    struct bed bed; /* with a connection of its own, "another process" */
    struct sched *pool;
    struct sql_engine *engine;
    atomic_int committed; /* calls */
};
/* The path is filled in, and pool and committed. */
void house_open(struct house *h, struct sql_engine_opts opts);
void house_close(struct house *h); /* checks the database */

struct client {
    struct sql_stream s;
    struct call call;
    struct sql_limits limits;
    struct buf rows; /* terminated, see bed_sink */
    struct sql_done done;
    struct sql_error sql_err;
    struct err err;
    int asked; /* times */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool told;
};
void client_init(struct client *c, struct house *h);
void client_fini(struct client *c); /* ends the stream */
/* sql_stream_run once. */
enum rc client_once(struct client *c, const char *sql);
/* sql_stream_run, and wait for turns as needed. */
enum rc client_run(struct client *c, const char *sql);
enum rc client_script(struct client *c, const char *sql);
/* The way that the text takes. */
enum rc client_do(struct client *c, const char *sql);
enum rc client_write(struct client *c, const char *sql); /* a lone write */
void client_ask(struct client *c);
bool client_told(struct client *c); /* was it granted? */
void client_wait(struct client *c);
const char *client_ok(struct client *c, const char *sql); /* client_run must succeed; the rows */
void client_fails(struct client *c, const char *sql, const char *code);
#endif
