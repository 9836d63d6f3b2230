/*
 * shell.h -- what the files of `sluice shell` share; not for other commands.
 *
 *   cmd_shell.c      options, the terminal
 *   shell_input.c    from lines to statements, failures with a caret
 *   shell_dot.c      the commands that begin with a dot
 *   shell_import.c   CSV into a table
 *   shell_out.c      rows as a table, JSON, CSV or lines
 *   shell_edit.c     editing of lines, history
 *   shell_local.c    a file
 *   shell_remote.c   a server, by Hrana over HTTP; shell_http.c: its requests
 *
 * Threads: one; a signal sets the flag that ends what runs.
 */
#ifndef CLI_SHELL_H
#define CLI_SHELL_H
#include <stdio.h>
#include "base/buf.h"
#include "base/thr.h"
#include "sql/dump.h"
#include "sql/token.h"

/* ---- A database, wherever it is ---- */

struct shell_db {
    const struct shell_db_ops *ops;
};
struct shell_db_ops {
    void (*close)(struct shell_db *db);
    /* As sql_conn_run. A failure without a code in sql_err is told by err alone. */
    enum rc (*run)(struct shell_db *db, const struct call *call, const struct sql_stmt *stmt,
                   const struct sql_sink *sink, struct sql_done *done, struct sql_error *sql_err,
                   struct err *err);
    /* One statement for many rows of `cols` arguments, up to the first that fails: *ret_done. */
    enum rc (*run_many)(struct shell_db *db, const struct call *call, const char *sql,
                        const struct sql_arg *args, size_t cols, size_t rows, size_t *ret_done,
                        struct sql_error *sql_err, struct err *err);
    bool (*autocommit)(struct shell_db *db);
    enum rc (*dump)(struct shell_db *db, const struct call *call, const struct sql_dump_opts *opts,
                    sql_dump_fn *fn, void *ctx, struct err *err);
};

/* Fails: RC_NOT_FOUND no file and not `create`; as sql_conn_open. */
MUST_CHECK enum rc shell_local_open(const char *path, bool read_only, bool create,
                                    struct shell_db **ret_db, struct err *err);

struct shell_remote_opts {
    const char *url;   /* http, https, libsql */
    const char *token; /* ""; wins over the URL's authToken */
    const char *name;  /* of the namespace, or "" */
};
/* Nothing is sent yet. Fails: RC_INVALID. */
MUST_CHECK enum rc shell_remote_open(const struct shell_remote_opts *opts, struct shell_db **ret_db,
                                     struct err *err);
bool shell_is_url(const char *text); /* anything with "://" */

/* One request with curl: a GET when body is NULL. Headers are "Name: value" lines, ended by NULL.
 * What comes with status 200 goes to fn, all else into ret->text. */
struct shell_http;
struct shell_answer {
    long status;
    struct buf text;
};
typedef enum rc shell_http_fn(void *ctx, const void *data, size_t size, struct err *err);
MUST_CHECK enum rc shell_http_open(struct shell_http **ret_h, struct err *err);
void shell_http_close(struct shell_http *h); /* NULL is fine */
/* Fails: RC_AGAIN the network; RC_DENIED a certificate; RC_CANCELED; RC_NO_MEM; fn's. */
MUST_CHECK enum rc shell_http_send(struct shell_http *h, const struct call *call, const char *url,
                                   const char *const *headers, const struct buf *body,
                                   shell_http_fn *fn, void *ctx, struct shell_answer *ret,
                                   struct err *err);

/* ---- Output ---- */

enum shell_mode { SHELL_TABLE, SHELL_JSON, SHELL_CSV, SHELL_LINE };

struct shell_out {
    enum shell_mode mode;
    bool headers;   /* CSV and tables */
    bool counts;    /* say how many rows there were */
    bool unicode;   /* lines of tables */
    unsigned width; /* of the terminal; 0: none, cells are not cut */
    FILE *file;
    /* private, of one result */
    bool open, headed, by_line;
    size_t cols;
    uint64_t rows, drawn;
    struct buf names; /* the columns', each ended by NUL */
    struct buf text, cells;
    size_t *widths;
    size_t width_cap;
};
struct sql_sink shell_out_sink(struct shell_out *o);
/* After the statement, whether it succeeded or not. */
MUST_CHECK enum rc shell_out_end(struct shell_out *o, struct err *err);
void shell_out_fini(struct shell_out *o);
bool shell_mode_get(const char *name, enum shell_mode *ret);
/* Columns that the text takes on a terminal. */
size_t shell_text_width(const char *text, size_t size);

/* ---- Lines ---- */

struct shell_edit;
/* history: a file, or NULL. Fails: RC_NO_MEM. */
MUST_CHECK enum rc shell_edit_open(const char *history, const atomic_bool *cancel,
                                   struct shell_edit **ret_e, struct err *err);
void shell_edit_close(struct shell_edit *e); /* saves the history; NULL is fine */
/* The next line with its line feed, valid until the next call; NULL at the end, and when *cancel
 * turned true. */
const char *shell_edit_line(struct shell_edit *e, const char *prompt, size_t *ret_size);
void shell_edit_remember(struct shell_edit *e, const char *text);
/* Where the history is kept; false: nowhere. */
bool shell_history_path(char out[4096]);

/* ---- The shell ---- */

#define SHELL_STATEMENT_MAX (64u << 20)
#define SHELL_READ_DEPTH    8

struct shell {
    struct shell_db *db;
    struct shell_out out;
    struct call call;
    bool interactive, bail, timer, quit;
    bool failed;    /* something did not work, so the status is 1 */
    bool told;      /* a failure inside of .read was */
    unsigned depth; /* of .read */
};
/* Statements and dot commands, fed line by line. */
struct shell_input {
    const char *name; /* of a file for messages; NULL: the terminal */
    uint64_t line;    /* the last one, from 1 */
    uint64_t start;   /* where the statement begins */
    struct buf text;
    struct sql_split split;
    size_t at;
};
/* True: go on. */
bool shell_feed(struct shell *s, struct shell_input *in, const char *text, size_t size);
/* What is left without a ';' is a statement, too. */
bool shell_feed_end(struct shell *s, struct shell_input *in);
void shell_input_fini(struct shell_input *in); /* for CLEANUP */
/* Everything that a file gives, up to the first failure. Fails: by errno; RC_CANCELED a statement
 * has failed, and that was told. */
MUST_CHECK enum rc shell_read_file(struct shell *s, const char *path, struct err *err);
MUST_CHECK enum rc shell_read_fd(struct shell *s, int fd, const char *name, struct err *err);

/* A failure's message without what says where it comes from: "SQLite error: " and the like. */
const char *shell_message(const char *message);
/* One statement, its rows shown. Fails like shell_db_ops.run. */
MUST_CHECK enum rc shell_run(struct shell *s, const char *sql, size_t size,
                             struct sql_error *sql_err, struct err *err);
/* A line that begins with a dot. What fails is said in err. */
MUST_CHECK enum rc shell_dot(struct shell *s, const char *line, size_t size, struct err *err);
MUST_CHECK enum rc shell_import(struct shell *s, const char *path, const char *table,
                                struct err *err);
/* "name", for SQL. */
MUST_CHECK enum rc shell_name_append(struct buf *b, const char *name, size_t size, struct err *err);
#endif
