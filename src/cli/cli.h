/*
 * cli.h -- what the commands share: one run of the program, and the ways they print.
 *
 * A command returns an error; main prints it, once, with what the command left in `hint`.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H
#include <jansson.h>
#include "cli/opts.h"
#include "log/layout.h"
#include "node/config.h"

struct cli {
    const struct command *const *commands; /* all of them; ends with NULL */
    struct opts opts;
    char hint[1024]; /* a command line that helps: "Try: ..."; "" for none */
    int status;      /* exit status of a command that did its job and has more to say than 0 */
};

extern const struct command cmd_databases, cmd_gen_docs, cmd_help, cmd_ltx, cmd_probe,
    cmd_replicate, cmd_restore, cmd_serve, cmd_shell, cmd_status, cmd_token, cmd_url, cmd_version,
    cmd_wal;

const struct command *cli_find(const struct cli *c, const char *name); /* NULL: none */
void cli_usage(const struct cli *c, FILE *out);                        /* the list of commands */
void cli_hint(struct cli *c, const char *fmt, ...) FMT(2, 3);

/* A replica's URL for a hint: without secrets, and quoted where a shell wants it. Cut to fit. */
void cli_shown_url(const char *url, char *out, size_t size);

/* The options that every command with a configuration has; used inside an option table. */
#define CLI_CONFIG_OPTS                                                                            \
    {.name = "config",                                                                             \
     .kind = OPT_STR,                                                                              \
     .arg = "PATH",                                                                                \
     .def = CONFIG_DEFAULT_PATH,                                                                   \
     .env = "LITESTREAM_CONFIG",                                                                   \
     .help = "The configuration file."},                                                           \
    {                                                                                              \
        .name = "no-expand-env", .kind = OPT_BOOL,                                                 \
        .help = "Leave $NAME and ${NAME} in the configuration file as they are."                   \
    }

/* Read the configuration that the options name. Fails: as config_load. */
MUST_CHECK enum rc cli_load_config(struct cli *c, struct config **ret_cfg, struct err *err);
/* Start logging. level: the option's, or ""; then $LOG_LEVEL, then the configuration, then info.
 * cfg may be NULL. */
void cli_start_log(const struct config *cfg, const char *level, bool to_stderr);

/* A replica, named by its URL or by a database of the configuration. */
struct cli_replica {
    const char *name; /* as the user wrote it */
    bool by_url;
    struct config *cfg; /* NULL when by_url */
    const struct config_db *db;
    struct config_replica own;
    const struct config_replica *replica;
    struct store *store;
    struct log log;
};
/* Find and open; nothing is read yet. Fails: as config_load, config_find_db, config_replica_open.
 */
MUST_CHECK enum rc cli_open_replica(struct cli *c, const char *name, struct cli_replica *ret,
                                    struct err *err);
void cli_close_replica(struct cli_replica *r); /* for CLEANUP; zeroed is fine */

/* ---- Printing ---- */
/* Lines of cells, each column as wide as its widest cell plus two, the last one unpadded. */
struct table {
    size_t columns;
    char **cells;
    size_t cell_count, cell_cap;
};
void table_fini(struct table *t); /* for CLEANUP */
/* Add one line: t->columns texts. Fails: RC_NO_MEM. */
MUST_CHECK enum rc table_row(struct table *t, struct err *err, ...);
void table_print(const struct table *t, FILE *out);

/* Print and free a JSON value (NULL: it could not be built), indented by two, with a newline.
 * Fails: RC_NO_MEM; RC_INVALID a text in it was no UTF-8. */
MUST_CHECK enum rc cli_print_json(json_t *value, struct err *err);
/* The members of a file of the log, in the order of `ltx -json`. NULL when memory is short. */
json_t *cli_file_json(const struct log_file *f, bool with_name);
#endif
