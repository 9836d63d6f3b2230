/* opts.c -- parsing and printing of option tables; see opts.h. */
#include "cli/opts.h"
#include "fmt/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_WIDTH 80
#define KEY_MAX    64 /* of a name that another is compared with */

static enum rc parse_one(struct opts *o, int argc, char *const *argv, int *i, struct err *err);
static enum rc set_value(struct opts *o, size_t index, const char *text, struct err *err);
static enum rc set_defaults(struct opts *o, struct err *err);
static bool get_bool(const char *text, uint64_t *ret);
static enum rc get_uint(const struct opt *opt, const char *text, uint64_t *ret, struct err *err);
static enum rc bad_value(const struct opt *opt, const char *text, const char *why, struct err *err);
static size_t find(const struct command *cmd, const char *name, size_t size);
static const char *plain_bool(const char *text);
static bool is_name(const char *name, const char *text, size_t size);
static const char *nearest_key(const struct command *cmd, const char *key);
static size_t distance(const char *a, const char *b);
static const struct opt_value *value(const struct opts *o, const char *name);

enum rc opts_parse(const struct command *cmd, int argc, char *const *argv, struct opts *ret_opts,
                   struct err *err)
{
    struct opts o = {.cmd = cmd};
    bool ended = false;
    ASSERT(cmd->opt_count <= OPTS_MAX);
    for (int i = 0; i < argc && !o.help; i++) {
        const char *arg = argv[i];
        if (ended || arg[0] != '-' || arg[1] == '\0') {
            if (o.arg_count < ARGS_MAX) o.args[o.arg_count] = arg;
            o.arg_count++;
        } else if (strcmp(arg, "--") == 0) {
            ended = true;
        } else {
            TRY(parse_one(&o, argc, argv, &i, err));
        }
    }
    if (!o.help) TRY(set_defaults(&o, err));
    *ret_opts = o;
    return RC_OK;
}

enum rc opts_fill(struct opts *o, const char *key, const char *text, const char *where,
                  struct err *err)
{
    const struct opt *opt = opts_key(o->cmd, key);
    if (opt == NULL) {
        const char *near = nearest_key(o->cmd, key);
        return err_set(err, RC_INVALID, "%s: unknown key '%.*s'%s%s%s", where, KEY_MAX, key,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    size_t index = (size_t)(opt - o->cmd->opts);
    struct opt_value *v = &o->values[index], before = *v;
    if (opt->kind == OPT_BOOL) text = plain_bool(text);
    enum rc rc = set_value(o, index, text, err);
    if (rc != RC_OK || before.given || before.from_env) *v = before;
    return rc == RC_OK ? RC_OK : err_wrap(err, "%s", where);
}

const struct opt *opts_key(const struct command *cmd, const char *key)
{
    for (size_t i = 0; i < cmd->opt_count; i++)
        if (strcmp(cmd->opts[i].name, key) == 0 && !cmd->opts[i].line_only) return &cmd->opts[i];
    return NULL;
}

const char *opts_str(const struct opts *o, const char *name)
{
    const char *text = value(o, name)->text;
    return text ? text : "";
}

bool opts_bool(const struct opts *o, const char *name)
{
    return value(o, name)->number != 0;
}

uint64_t opts_number(const struct opts *o, const char *name)
{
    return value(o, name)->number;
}

bool opts_given(const struct opts *o, const char *name)
{
    return value(o, name)->given;
}

void opts_print_help(const struct command *cmd, FILE *out)
{
    opts_print_wrapped(out, cmd->about, 0);
    fprintf(out, "\nUsage:\n\n");
    for (const char *const *form = cmd->usage; *form; form++)
        fprintf(out, "    sluice %s%s%s\n", cmd->name, **form ? " " : "", *form);
    if (cmd->opt_count > 0) fprintf(out, "\nOptions:\n");
    for (size_t i = 0; i < cmd->opt_count; i++) {
        const struct opt *opt = &cmd->opts[i];
        fprintf(out, "\n    -%s%s%s\n", opt->name, opt->arg ? " " : "", opt->arg ? opt->arg : "");
        opts_print_wrapped(out, opt->help, 8);
        if (opt->alias) fprintf(out, "        Also: -%s\n", opt->alias);
        if (opt->def) fprintf(out, "        Default: %s\n", opt->def);
        if (opt->env) fprintf(out, "        Environment: %s\n", opt->env);
        if (opt->example) fprintf(out, "        Example: -%s %s\n", opt->name, opt->example);
    }
    if (cmd->examples) fprintf(out, "\nExamples:\n");
    for (const struct opt_example *e = cmd->examples; e && e->line; e++)
        fprintf(out, "\n    # %s\n    $ %s\n", e->why, e->line);
}

void opts_print_markdown(const struct command *cmd, FILE *out)
{
    fprintf(out, "# sluice %s\n\n", cmd->name);
    opts_print_wrapped(out, cmd->about, 0);
    fprintf(out, "\n## Usage\n\n```\n");
    for (const char *const *form = cmd->usage; *form; form++)
        fprintf(out, "sluice %s%s%s\n", cmd->name, **form ? " " : "", *form);
    fprintf(out, "```\n");
    if (cmd->opt_count > 0) fprintf(out, "\n## Options\n");
    for (size_t i = 0; i < cmd->opt_count; i++) {
        const struct opt *opt = &cmd->opts[i];
        fprintf(out, "\n### `-%s%s%s`\n\n", opt->name, opt->arg ? " " : "",
                opt->arg ? opt->arg : "");
        opts_print_wrapped(out, opt->help, 0);
        if (opt->alias || opt->def || opt->env || opt->example) fprintf(out, "\n");
        if (opt->alias) fprintf(out, "- Also: `-%s`\n", opt->alias);
        if (opt->def) fprintf(out, "- Default: `%s`\n", opt->def);
        if (opt->env) fprintf(out, "- Environment: `%s`\n", opt->env);
        if (opt->example) fprintf(out, "- Example: `-%s %s`\n", opt->name, opt->example);
    }
    if (cmd->examples) fprintf(out, "\n## Examples\n");
    for (const struct opt_example *e = cmd->examples; e && e->line; e++)
        fprintf(out, "\n%s\n\n```\n%s\n```\n", e->why, e->line);
}

void opts_print_wrapped(FILE *out, const char *text, unsigned indent)
{
    unsigned column = 0;
    for (const char *p = text; *p != '\0';) {
        if (strncmp(p, "\n\n", 2) == 0) {
            fprintf(out, "%s\n", column > 0 ? "\n" : "");
            column = 0;
        }
        p += strspn(p, " \n");
        size_t n = strcspn(p, " \n");
        if (n == 0) break;
        if (column > 0 && column + 1 + n > LINE_WIDTH) {
            fprintf(out, "\n");
            column = 0;
        }
        if (column == 0)
            column += (unsigned)fprintf(out, "%*s", (int)indent, "");
        else
            column += (unsigned)fprintf(out, " ");
        column += (unsigned)fprintf(out, "%.*s", (int)n, p);
        p += n;
    }
    if (column > 0) fprintf(out, "\n");
}

/* argv[*i] begins with a dash; *i moves on when the value is the next argument. */
static enum rc parse_one(struct opts *o, int argc, char *const *argv, int *i, struct err *err)
{
    const char *arg = argv[*i];
    const char *name = arg + (arg[1] == '-' ? 2 : 1);
    if (name[0] == '\0' || name[0] == '-' || name[0] == '=')
        return err_set(err, RC_INVALID, "bad flag syntax: %s", arg);
    size_t size = strcspn(name, "=");
    const char *text = name[size] == '=' ? name + size + 1 : NULL;
    size_t index = find(o->cmd, name, size);
    if (index == SIZE_MAX) {
        o->help = (size == 1 && *name == 'h') || (size == 4 && memcmp(name, "help", 4) == 0);
        if (o->help) return RC_OK;
        return err_set(err, RC_INVALID, "flag provided but not defined: -%.*s", (int)size, name);
    }
    if (text == NULL && o->cmd->opts[index].kind == OPT_BOOL) text = "true";
    if (text == NULL) {
        if (*i + 1 >= argc)
            return err_set(err, RC_INVALID, "flag needs an argument: -%.*s", (int)size, name);
        text = argv[++*i];
    }
    o->values[index].given = true;
    return set_value(o, index, text, err);
}

static enum rc set_value(struct opts *o, size_t index, const char *text, struct err *err)
{
    const struct opt *opt = &o->cmd->opts[index];
    struct opt_value *v = &o->values[index];
    int64_t ns = 0;
    switch (opt->kind) {
    case OPT_BOOL:
        if (!get_bool(text, &v->number))
            return err_set(err, RC_INVALID, "invalid boolean value \"%s\" for -%s: parse error",
                           text, opt->name);
        break;
    case OPT_UINT:
        TRY(get_uint(opt, text, &v->number, err));
        break;
    case OPT_DURATION:
        if (duration_get(text, &ns, err) != RC_OK || ns < 0)
            return bad_value(opt, text, "parse error", err);
        v->number = (uint64_t)ns;
        break;
    case OPT_TXID:
        if (txid_get(text, &v->number, err) != RC_OK)
            return bad_value(opt, text, "invalid txid format", err);
        break;
    case OPT_STR:
        break;
    }
    v->text = text;
    return RC_OK;
}

static enum rc set_defaults(struct opts *o, struct err *err)
{
    for (size_t i = 0; i < o->cmd->opt_count; i++) {
        const struct opt *opt = &o->cmd->opts[i];
        if (o->values[i].given) continue;
        const char *text = opt->env ? getenv(opt->env) : NULL;
        o->values[i].from_env = text != NULL && text[0] != '\0';
        if (!o->values[i].from_env) text = opt->def;
        if (text != NULL) TRY(set_value(o, i, text, err));
    }
    return RC_OK;
}

static bool get_bool(const char *text, uint64_t *ret)
{
    static const char *const words[] = {"0", "f", "F", "false", "FALSE", "False",
                                        "1", "t", "T", "true",  "TRUE",  "True"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) != 0) continue;
        *ret = i >= 6;
        return true;
    }
    return false;
}

/* YAML has more words than Go. */
static const char *plain_bool(const char *text)
{
    if (strcasecmp(text, "yes") == 0 || strcasecmp(text, "on") == 0) return "true";
    if (strcasecmp(text, "no") == 0 || strcasecmp(text, "off") == 0) return "false";
    return text;
}

static enum rc get_uint(const struct opt *opt, const char *text, uint64_t *ret, struct err *err)
{
    char *end;
    errno = 0;
    if (text[0] < '0' || text[0] > '9') return bad_value(opt, text, "parse error", err);
    unsigned long long v = strtoull(text, &end, 0);
    if (*end != '\0') return bad_value(opt, text, "parse error", err);
    if (errno != 0 || v > UINT32_MAX) return bad_value(opt, text, "value out of range", err);
    *ret = v;
    return RC_OK;
}

static enum rc bad_value(const struct opt *opt, const char *text, const char *why, struct err *err)
{
    return err_set(err, RC_INVALID, "invalid value \"%s\" for flag -%s: %s", text, opt->name, why);
}

static size_t find(const struct command *cmd, const char *name, size_t size)
{
    for (size_t i = 0; i < cmd->opt_count; i++) {
        const struct opt *opt = &cmd->opts[i];
        if (is_name(opt->name, name, size) || is_name(opt->alias, name, size)) return i;
    }
    return SIZE_MAX;
}

static bool is_name(const char *name, const char *text, size_t size)
{
    return name != NULL && strlen(name) == size && memcmp(name, text, size) == 0;
}

/* What may have been meant: about every third letter may be wrong. */
static const char *nearest_key(const struct command *cmd, const char *key)
{
    const char *near = NULL;
    size_t size = strlen(key), least = size / 3 + 2;
    if (least > size) least = size;
    for (size_t i = 0; i < cmd->opt_count; i++) {
        if (cmd->opts[i].line_only) continue;
        size_t d = distance(cmd->opts[i].name, key);
        if (d >= least) continue;
        least = d;
        near = cmd->opts[i].name;
    }
    return near;
}

/* Letters to be changed, added or taken away to make b of a; '_' is as good as '-'. */
static size_t distance(const char *a, const char *b)
{
    size_t row[KEY_MAX + 1], size = strlen(b);
    if (size > KEY_MAX) return SIZE_MAX;
    for (size_t k = 0; k <= size; k++)
        row[k] = k;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t k = 0; k < size; k++) {
            bool same = a[i] == (b[k] == '_' ? '-' : b[k]);
            size_t best = corner + !same;
            if (row[k] + 1 < best) best = row[k] + 1;
            corner = row[k + 1];
            if (corner + 1 < best) best = corner + 1;
            row[k + 1] = best;
        }
    }
    return row[size];
}

static const struct opt_value *value(const struct opts *o, const char *name)
{
    size_t i = find(o->cmd, name, strlen(name));
    ASSERT(i != SIZE_MAX);
    return &o->values[i];
}
