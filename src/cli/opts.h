/*
 * opts.h -- the options of a command: one table that is parsed, printed as help and written as
 * documentation.
 *
 * Accepted forms: -x, -x v, -x=v, and the same with two dashes; an option without a value (a
 * switch) also as -x=false. Options may stand before and after the other arguments; "--" ends them;
 * "-" alone is an ordinary argument. -h, -help and --help always ask for help.
 *
 * A configuration file may have the same names as keys (opts_fill); the command line wins over the
 * environment, that over the file, that over the table's defaults.
 *
 * Threads: one; the results point into argv, the environment and what opts_fill was given.
 */
#ifndef CLI_OPTS_H
#define CLI_OPTS_H
#include <stdio.h>
#include "base/err.h"

enum opt_kind { OPT_BOOL, OPT_STR, OPT_UINT, OPT_DURATION, OPT_TXID };

struct opt {
    const char *name;  /* without dashes */
    const char *alias; /* another name, on the command line only; NULL: none */
    enum opt_kind kind;
    const char *arg;     /* name of the value in help; NULL for OPT_BOOL */
    const char *def;     /* as the user would write it; NULL: none */
    const char *env;     /* variable that stands in when the option is not given; NULL: none */
    const char *example; /* a value; NULL: none */
    const char *help;
    bool line_only; /* no key of a configuration file */
    bool secret;    /* better in a file that only its owner can read */
};

struct opt_example {
    const char *why, *line;
};

struct cli;

struct command {
    const char *name, *summary;
    const char *const *usage; /* what may follow the name, one form a line; ends with NULL */
    const char *about;        /* paragraphs, separated by an empty line */
    const struct opt *opts;
    size_t opt_count;
    const struct opt_example *examples; /* ends with {NULL, NULL}; NULL: none */
    bool hidden;                        /* not in the list of commands */
    enum rc (*run)(struct cli *c, struct err *err);
};

#define OPTS_MAX 48
#define ARGS_MAX 8

struct opt_value {
    bool given;       /* on the command line */
    bool from_env;    /* by the environment */
    const char *text; /* from one of them, a file or the table; may be NULL */
    uint64_t number;  /* OPT_BOOL: 0 or 1; OPT_DURATION: nanoseconds */
};

struct opts {
    const struct command *cmd;
    struct opt_value values[OPTS_MAX];
    const char *args[ARGS_MAX]; /* the rest of the line; more than ARGS_MAX are only counted */
    size_t arg_count;
    bool help; /* asked for; nothing else was checked then */
};

/* argv: what follows the name of the command.
 * Fails: RC_INVALID, in the words of Go's flag package, which scripts may look for. */
MUST_CHECK enum rc opts_parse(const struct command *cmd, int argc, char *const *argv,
                              struct opts *ret_opts, struct err *err);

/* What a configuration file says at `where` (for messages: "file:3"); checked, and used unless the
 * command line or the environment has the option. text must live as long as o.
 * Fails: RC_INVALID the value; no such key, with the nearest one that there is. */
MUST_CHECK enum rc opts_fill(struct opts *o, const char *key, const char *text, const char *where,
                             struct err *err);
/* The option with this name as a key of a file; NULL: none. */
const struct opt *opts_key(const struct command *cmd, const char *key);

/* Asking for a name that is not in the table is a bug. */
const char *opts_str(const struct opts *o, const char *name); /* "" when there is none */
bool opts_bool(const struct opts *o, const char *name);
uint64_t opts_number(const struct opts *o, const char *name);
bool opts_given(const struct opts *o, const char *name); /* on the command line */

void opts_print_help(const struct command *cmd, FILE *out);
void opts_print_markdown(const struct command *cmd, FILE *out);
/* Words of text, each line begun with `indent` spaces; an empty line in text stays. */
void opts_print_wrapped(FILE *out, const char *text, unsigned indent);
#endif
