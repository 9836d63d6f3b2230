/*
 * main.c -- `sluice COMMAND ...`: find the command, parse its options, run it, report.
 *
 * Exit status: 0 done; 1 not done, with "Error: ..." on standard error; what else a command's
 * help says.
 */
#include "base/fault.h"
#include "cli/cli.h"
#include "db/source.h"
#include <errno.h>
#include <string.h>

static const struct command *const commands[] = {
    &cmd_databases, &cmd_ltx,   &cmd_probe,  &cmd_replicate, &cmd_restore,
    &cmd_serve,     &cmd_shell, &cmd_status, &cmd_token,     &cmd_url,
    &cmd_version,   &cmd_help,  &cmd_wal,    &cmd_gen_docs,  NULL,
};

static int run(struct cli *c, const struct command *cmd, int argc, char *const *argv);
static int fail(const struct cli *c, const struct err *err);
static int flush(int status);
static bool asks_for(const char *arg, const char *name);

int main(int argc, char **argv)
{
    fault_arm_from_env();
    struct cli c = {.commands = commands};
    const char *name = argc > 1 ? argv[1] : "";
    if (asks_for(name, "h") || asks_for(name, "help")) name = "help";
    if (asks_for(name, "version")) name = "version";
    if (name[0] == '\0' || name[0] == '-') {
        cli_usage(&c, stdout);
        return flush(1);
    }
    const struct command *cmd = cli_find(&c, name);
    if (cmd == NULL) {
        struct err err;
        err_set(&err, RC_INVALID, "sluice %s: unknown command", name);
        cli_hint(&c, "sluice help");
        return flush(fail(&c, &err));
    }
    source_global_init();
    return flush(run(&c, cmd, argc - 2, argv + 2));
}

static int run(struct cli *c, const struct command *cmd, int argc, char *const *argv)
{
    struct err err = {0};
    c->opts.cmd = cmd;
    if (opts_parse(cmd, argc, argv, &c->opts, &err) != RC_OK) {
        cli_hint(c, "sluice help %s", cmd->name);
        return fail(c, &err);
    }
    if (c->opts.help) {
        opts_print_help(cmd, stdout);
        return 0;
    }
    if (cmd->run(c, &err) == RC_OK) return c->status;
    fflush(stdout); /* what was printed came first */
    return fail(c, &err);
}

static int fail(const struct cli *c, const struct err *err)
{
    fprintf(stderr, "Error: %s\n", err->text);
    if (c->hint[0] != '\0') fprintf(stderr, "Try: %s\n", c->hint);
    return rc_exit(err->rc);
}

/* Output that nobody could read is not a job done. */
static int flush(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    fprintf(stderr, "Error: write to standard output: %s\n", strerror(errno));
    return 1;
}

/* "-name" or "--name" */
static bool asks_for(const char *arg, const char *name)
{
    if (arg[0] != '-') return false;
    return strcmp(arg + (arg[1] == '-' ? 2 : 1), name) == 0;
}
