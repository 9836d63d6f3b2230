/* cmd_version.c -- `sluice version`. */
#include "cli/cli.h"
#include "db/source.h"
#include <sys/utsname.h>

static enum rc run_version(struct cli *c, struct err *err);

static const char *const usage[] = {"[options]", NULL};
static const struct opt options[] = {
    {.name = "verbose",
     .kind = OPT_BOOL,
     .help = "Also show the version of SQLite inside, the compiler and the platform."},
};

const struct command cmd_version = {
    .name = "version",
    .summary = "print the version of the program",
    .usage = usage,
    .about = "Prints the version.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .run = run_version,
};

static enum rc run_version(struct cli *c, struct err *err)
{
    struct utsname u;
    (void)err;
    if (!opts_bool(&c->opts, "verbose")) {
        printf("v%s\n", SLUICE_VERSION);
        return RC_OK;
    }
    printf("Version:     v%s\n", SLUICE_VERSION);
    printf("SQLite:      %s\n", db_sqlite_version());
    printf("Compiler:    %s\n", __VERSION__);
    printf("OS/Arch:     %s/%s\n", uname(&u) == 0 ? u.sysname : "?",
           uname(&u) == 0 ? u.machine : "?");
#ifdef SLUICE_TEST_HOOKS
    printf("Build:       with test hooks\n");
#else
    printf("Build:       release\n");
#endif
    return RC_OK;
}
