/* cmd_help.c -- `sluice help` and the hidden `sluice gen-docs`: both print the tables. */
#include "cli/cli.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

static enum rc run_help(struct cli *c, struct err *err);
static enum rc run_gen_docs(struct cli *c, struct err *err);
static void write_index(const struct cli *c, FILE *out);
static void write_config(FILE *out);
static void write_config_table(FILE *out, const char *scope, bool stores);

static const char *const help_usage[] = {"[COMMAND]", NULL};
const struct command cmd_help = {
    .name = "help",
    .summary = "explain a command",
    .usage = help_usage,
    .about = "Lists the commands, or explains one of them.",
    .run = run_help,
};

static const char *const docs_usage[] = {"DIR", NULL};
const struct command cmd_gen_docs = {
    .name = "gen-docs",
    .summary = "write the reference in Markdown",
    .usage = docs_usage,
    .about = "Writes one Markdown file for each command, one for the configuration file and an "
             "index into a folder.",
    .hidden = true,
    .run = run_gen_docs,
};

/* A page in memory, then on disk in one step. */
struct page {
    char *text;
    size_t size;
    FILE *out;
};
static enum rc page_open(struct page *p, struct err *err);
static enum rc page_save(struct page *p, const char *dir, const char *name, struct err *err);

static enum rc run_help(struct cli *c, struct err *err)
{
    const char *name = c->opts.arg_count > 0 ? c->opts.args[0] : NULL;
    const struct command *cmd = name ? cli_find(c, name) : NULL;
    if (cmd != NULL) {
        opts_print_help(cmd, stdout);
    } else if (name == NULL) {
        cli_usage(c, stdout);
    } else {
        cli_hint(c, "sluice help");
        return err_set(err, RC_NOT_FOUND, "sluice help: no command '%s'", name);
    }
    return RC_OK;
}

static enum rc run_gen_docs(struct cli *c, struct err *err)
{
    struct page page;
    if (c->opts.arg_count != 1) {
        cli_hint(c, "sluice gen-docs docs/cli");
        return err_set(err, RC_INVALID, "one folder required");
    }
    const char *dir = c->opts.args[0];
    TRY(os_mkdirs(dir, 0777, err));
    for (const struct command *const *p = c->commands; *p; p++) {
        if ((*p)->hidden) continue;
        TRY(page_open(&page, err));
        opts_print_markdown(*p, page.out);
        TRY(page_save(&page, dir, (*p)->name, err));
    }
    TRY(page_open(&page, err));
    write_config(page.out);
    TRY(page_save(&page, dir, "config", err));
    TRY(page_open(&page, err));
    write_index(c, page.out);
    return page_save(&page, dir, "README", err);
}

static enum rc page_open(struct page *p, struct err *err)
{
    *p = (struct page){0};
    p->out = open_memstream(&p->text, &p->size);
    return p->out ? RC_OK : err_mem(err, "a page");
}

static enum rc page_save(struct page *p, const char *dir, const char *name, struct err *err)
{
    char path[OS_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s.md", dir, name);
    bool whole = !ferror(p->out);
    whole = fclose(p->out) == 0 && whole;
    enum rc rc;
    if (!whole)
        rc = err_mem(err, "a page");
    else if (n < 0 || (size_t)n >= sizeof path)
        rc = err_set(err, RC_INVALID, "path too long: '%s'", dir);
    else
        rc = os_write_file(path, p->text, p->size, 0644, err);
    mem_free(p->text); /* open_memstream's own */
    return rc;
}

static void write_index(const struct cli *c, FILE *out)
{
    fprintf(out, "# The command line\n\nWritten by `sluice gen-docs docs/cli`; do not edit.\n\n"
                 "| Command | |\n|---|---|\n");
    for (const struct command *const *p = c->commands; *p; p++)
        if (!(*p)->hidden)
            fprintf(out, "| [%s](%s.md) | %s |\n", (*p)->name, (*p)->name, (*p)->summary);
    fprintf(out, "\nThe configuration file is described in [config.md](config.md).\n\n");
    opts_print_wrapped(
        out,
        "Options are written -name value or -name=value, with one dash or two, before or after the "
        "other arguments; \"--\" ends them. The exit status is 0 when the job was done, and 1 "
        "otherwise, with \"Error: ...\" on standard error; probe also has 3.",
        0);
}

static void write_config(FILE *out)
{
    fprintf(out, "# The configuration file\n\nWritten by `sluice gen-docs docs/cli`; do not "
                 "edit.\n\n");
    opts_print_wrapped(
        out,
        "A YAML file, the same that Litestream 0.5 reads. It is looked for at the path given by "
        "-config, then $LITESTREAM_CONFIG, then " CONFIG_DEFAULT_PATH ".\n\n"
        "Unless -no-expand-env is given, $NAME and ${NAME} are replaced by the environment, in "
        "comments, too; a name that is not set becomes empty, and $PID the number of the process. "
        "A dollar sign before one of * # $ @ ! ? - or a digit disappears together with it; before "
        "anything else it stays.\n\n"
        "Durations are written 500ms, 10s, 1h30m; there are no days, and a bare number means "
        "nanoseconds. Sizes are written 5MB (millions) or 5MiB (1024 x 1024). Paths may begin with "
        "~/ or sqlite://, and are made absolute. Keys that are not listed here are ignored; "
        "replicate logs them.",
        0);
    fprintf(out, "\n```yaml\ndbs:\n  - path: /var/lib/app.db\n    replica:\n"
                 "      url: file:///backup/app\n```\n");
    fprintf(out, "\n## Top level\n");
    write_config_table(out, "", false);
    fprintf(out, "\n`levels` is a list of `interval` (a duration), one for each level of merged "
                 "files; the default\nis 30s, 5m and 1h. `dbs` is the list of databases. Settings "
                 "of a replica may stand here, too,\nand are then the default of all replicas, "
                 "except `type`, `url` and `path`.\n");
    fprintf(out, "\n## Entries of dbs\n");
    write_config_table(out, "dbs[]", false);
    fprintf(out, "\n`replica` holds the keys below. `replicas` with a list of one is the same.\n");
    fprintf(out, "\n## dbs[].replica\n");
    write_config_table(out, "dbs[].replica", false);
    fprintf(out, "\n### By type of store\n");
    write_config_table(out, "dbs[].replica", true);
}

static void write_config_table(FILE *out, const char *scope, bool stores)
{
    const struct config_doc *docs;
    size_t count = config_docs(&docs);
    fprintf(out, "\n| Key | %s | Value | |\n|---|---|---|---|\n", stores ? "Types" : "Default");
    for (size_t i = 0; i < count; i++) {
        const struct config_doc *d = &docs[i];
        const char *second = stores ? d->types : d->def;
        if (strcmp(d->scope, scope) != 0 || (d->types != NULL) != stores) continue;
        fprintf(out, "| `%s` | %s%s%s | %s | %s", d->key, *second && !stores ? "`" : "", second,
                *second && !stores ? "`" : "", d->kind, d->help);
        if (d->choices) {
            fprintf(out, " One of ");
            for (const char *p = d->choices; *p; p++) {
                if (*p == '|')
                    fputs(", ", out);
                else
                    fputc(*p, out);
            }
            fputc('.', out);
        }
        fprintf(out, " |\n");
    }
}
