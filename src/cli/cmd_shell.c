/* cmd_shell.c -- `sluice shell`: SQL for people, on a file or a server; see shell.h. */
#include "cli/cli.h"
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/mem.h"
#include "cli/shell.h"

#define TOKEN_FILE_MAX (16u << 10)

static enum rc run_command(struct cli *c, struct err *err);
static enum rc check_args(struct cli *c, struct shell *s, struct err *err);
static enum rc open_db(struct cli *c, struct shell_db **ret_db, struct err *err);
static enum rc get_token(struct cli *c, struct buf *token, struct err *err);
static enum rc run_all(struct cli *c, struct shell *s, struct err *err);
static bool run_argument(struct shell *s, const char *text, size_t number);
static enum rc talk(struct shell *s, struct err *err);
static void prepare_terminal(struct shell *s);
static unsigned terminal_width(void);
static void on_interrupt(int sig);
static void wipe_fini(struct buf *b);

static atomic_bool canceled; /* set by SIGINT */

static const char *const usage[] = {"[options] FILE [SQL...]", "[options] URL [SQL...]", NULL};
static const struct opt options[] = {
    {.name = "readonly", .kind = OPT_BOOL, .help = "FILE: no statement may write."},
    {.name = "create", .kind = OPT_BOOL, .help = "FILE: make the database when there is none."},
    {.name = "token",
     .kind = OPT_STR,
     .arg = "TOKEN",
     .env = "SLUICE_TOKEN",
     .help = "URL: the token to show to the server. On the command line everybody on this machine "
             "can see it, so better use -token-file or the environment; LIBSQL_AUTH_TOKEN is "
             "taken, too."},
    {.name = "token-file",
     .kind = OPT_STR,
     .arg = "FILE",
     .help = "URL: a file that holds the token."},
    {.name = "namespace",
     .kind = OPT_STR,
     .arg = "NAME",
     .help = "URL: the database on a server that has many."},
    {.name = "json",
     .kind = OPT_BOOL,
     .help = "Print the rows of a statement as a JSON array of objects. Integers are exact, blobs "
             "are texts in base64."},
    {.name = "csv",
     .kind = OPT_BOOL,
     .help = "Print rows as CSV, lines ended by a line feed. NULL is empty, the empty text is "
             "\"\", blobs are in base64."},
    {.name = "line", .kind = OPT_BOOL, .help = "Print a line for each value."},
    {.name = "no-header", .kind = OPT_BOOL, .help = "No names of columns in tables and CSV."},
    {.name = "bail",
     .kind = OPT_BOOL,
     .help = "On a terminal, too: end with the first statement that fails."},
    {.name = "timer", .kind = OPT_BOOL, .help = "Say on standard error how long statements take."},
};
static const struct opt_example examples[] = {
    {"Look around in a database", "sluice shell -readonly app.db"},
    {"One statement, for a program", "sluice shell -json app.db \"SELECT * FROM users\""},
    {"A server, with a token from a file",
     "sluice shell -token-file token.txt libsql://shop.example.com"},
    {"A copy of a server's database as a file",
     "sluice shell https://shop.example.com .dump | sluice shell -create copy.db"},
    {"A table from CSV", "sluice shell app.db \".import users.csv users\""},
    {NULL, NULL},
};

const struct command cmd_shell = {
    .name = "shell",
    .summary = "run SQL on a file or a server",
    .usage = usage,
    .about =
        "Runs SQL on a database file, or on a server that libSQL clients can use. URL is http://, "
        "https:// or libsql://, which means https, or with ?tls=0 http; a path in it stays in "
        "front of the protocol's own.\n\n"
        "With SQL on the command line that is run, each argument by itself; otherwise standard "
        "input is. On a terminal lines can be edited, the history is kept in "
        "$XDG_STATE_HOME/sluice/history or ~/.local/state/sluice/history, Ctrl-C ends what runs "
        "and Ctrl-D the shell. A statement ends with a semicolon; a line that begins with a dot "
        "is a command, and .help lists them.\n\n"
        "A file is put in WAL mode, foreign keys are enforced, and refused is what a server "
        "refuses its tenants: ATTACH, VACUUM INTO, load_extension, writable_schema and the "
        "like.\n\n"
        ".import reads CSV as RFC 4180 has it; an empty field is NULL, and \"\" the empty text. A "
        "table that is missing is made, and its columns are INTEGER or REAL where all fields are "
        "such numbers, else TEXT. All rows come in one transaction, or none.\n\n"
        ".dump prints a database as SQL that makes an equal one. Statements may be up to 16 MiB "
        "long in most places, so a value of more than some MiB may not come back by them.\n\n"
        "The first statement or command that fails ends the shell with status 1; on a terminal "
        "only with -bail, and the status is 0 without. A transaction that is still open at the end "
        "is rolled back, and counts as a failure.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_command,
};

static enum rc run_command(struct cli *c, struct err *err)
{
    struct shell s = {.call = {.cancel = &canceled},
                      .bail = opts_bool(&c->opts, "bail"),
                      .timer = opts_bool(&c->opts, "timer"),
                      .out = {.file = stdout, .headers = !opts_bool(&c->opts, "no-header")}};
    cli_hint(c, "sluice help shell");
    TRY(check_args(c, &s, err));
    c->hint[0] = '\0';
    prepare_terminal(&s);
    TRY(open_db(c, &s.db, err));
    enum rc rc = run_all(c, &s, err);
    bool open = !s.db->ops->autocommit(s.db);
    s.db->ops->close(s.db);
    shell_out_fini(&s.out);
    if (rc == RC_OK && open) {
        fflush(stdout);
        fprintf(stderr, "Error: a transaction was open at the end; it was rolled back\n");
    }
    /* Who sat before the terminal has seen it. */
    if ((s.failed || open) && (!s.interactive || s.bail)) c->status = 1;
    return rc;
}

static enum rc check_args(struct cli *c, struct shell *s, struct err *err)
{
    static const char *const modes[] = {"json", "csv", "line"};
    static const char *const remote[] = {"token", "token-file", "namespace"};
    const struct opts *o = &c->opts;
    unsigned count = 0;
    if (o->arg_count == 0) return err_set(err, RC_INVALID, "a file or a URL required");
    if (o->arg_count > ARGS_MAX)
        return err_set(err, RC_INVALID,
                       "more than %d arguments; SQL may also come by standard input", ARGS_MAX);
    for (size_t i = 0; i < 3; i++) {
        if (!opts_bool(o, modes[i])) continue;
        count++;
        if (!shell_mode_get(modes[i], &s->out.mode)) s->out.mode = SHELL_TABLE;
    }
    if (count > 1) return err_set(err, RC_INVALID, "one of -json, -csv and -line");
    if (shell_is_url(o->args[0])) {
        if (opts_bool(o, "readonly") || opts_bool(o, "create"))
            return err_set(err, RC_INVALID, "-readonly and -create are for files");
        if (opts_given(o, "token") && opts_given(o, "token-file"))
            return err_set(err, RC_INVALID, "one of -token and -token-file");
        return RC_OK;
    }
    for (size_t i = 0; i < 3; i++)
        if (opts_given(o, remote[i]))
            return err_set(err, RC_INVALID, "-%s is for servers, and '%s' is a file", remote[i],
                           o->args[0]);
    if (opts_bool(o, "readonly") && opts_bool(o, "create"))
        return err_set(err, RC_INVALID, "one of -readonly and -create");
    return RC_OK;
}

static enum rc open_db(struct cli *c, struct shell_db **ret_db, struct err *err)
{
    const struct opts *o = &c->opts;
    CLEANUP(wipe_fini) struct buf token = BUF_INIT;
    if (!shell_is_url(o->args[0])) {
        enum rc rc = shell_local_open(o->args[0], opts_bool(o, "readonly"), opts_bool(o, "create"),
                                      ret_db, err);
        if (rc == RC_NOT_FOUND && !opts_bool(o, "readonly"))
            cli_hint(c, "sluice shell -create %s", o->args[0]);
        return rc;
    }
    TRY(get_token(c, &token, err));
    struct shell_remote_opts r = {
        .url = o->args[0], .token = (const char *)token.data, .name = opts_str(o, "namespace")};
    return shell_remote_open(&r, ret_db, err);
}

/* What is said on the command line comes before what the environment says. */
static enum rc get_token(struct cli *c, struct buf *token, struct err *err)
{
    const struct opts *o = &c->opts;
    const char *path = opts_str(o, "token-file"), *text = opts_str(o, "token");
    const char *libsql = getenv("LIBSQL_AUTH_TOKEN");
    if (path[0] != '\0') {
        TRY(os_read_file(path, TOKEN_FILE_MAX, token, err));
        while (token->size > 0 && strchr(" \t\r\n", token->data[token->size - 1]) != NULL)
            token->size--;
        if (token->size == 0) return err_set(err, RC_INVALID, "'%s' holds no token", path);
        return buf_append(token, "", 1, err);
    }
    bool in_url = strstr(o->args[0], "authToken=") != NULL && !opts_given(o, "token");
    if (text[0] == '\0' && libsql != NULL) text = libsql;
    if (in_url) text = "";
    return buf_append(token, text, strlen(text) + 1, err);
}

static enum rc run_all(struct cli *c, struct shell *s, struct err *err)
{
    const struct opts *o = &c->opts;
    bool on = true;
    if (o->arg_count == 1 && s->interactive) return talk(s, err);
    s->interactive = s->out.counts = false;
    for (size_t i = 1; i < o->arg_count && on; i++)
        on = run_argument(s, o->args[i], i);
    if (o->arg_count > 1) return RC_OK;
    enum rc rc = shell_read_fd(s, STDIN_FILENO, "standard input", err);
    return s->failed ? RC_OK : rc; /* it was told already */
}

static bool run_argument(struct shell *s, const char *text, size_t number)
{
    char name[32];
    CLEANUP(shell_input_fini) struct shell_input in = {.name = name};
    snprintf(name, sizeof name, "argument %zu", number);
    return shell_feed(s, &in, text, strlen(text)) && shell_feed_end(s, &in);
}

/* ---- On a terminal ---- */

static enum rc talk(struct shell *s, struct err *err)
{
    CLEANUP(shell_input_fini) struct shell_input in = {0};
    struct sigaction act = {.sa_handler = on_interrupt}, old;
    struct shell_edit *edit;
    char history[OS_PATH_MAX];
    bool on = true;
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, &old);
    enum rc rc =
        shell_edit_open(shell_history_path(history) ? history : NULL, &canceled, &edit, err);
    if (rc == RC_OK) printf("Statements end with a semicolon; .help lists commands.\n");
    while (rc == RC_OK && on) {
        size_t size;
        bool inside = !s->db->ops->autocommit(s->db);
        atomic_store(&canceled, false);
        const char *line = shell_edit_line(edit,
                                           in.text.size > 0 ? "   ...> "
                                           : inside         ? "sluice*> "
                                                            : "sluice> ",
                                           &size);
        if (line == NULL && atomic_load(&canceled)) {
            /* What was typed so far is not wanted. */
            printf("^C\n");
            shell_input_fini(&in);
            in = (struct shell_input){0};
            continue;
        }
        if (line == NULL) break;
        shell_edit_remember(edit, line);
        s->out.width = terminal_width();
        on = shell_feed(s, &in, line, size);
    }
    if (rc == RC_OK && !s->quit) putchar('\n');
    if (rc == RC_OK) shell_edit_close(edit);
    sigaction(SIGINT, &old, NULL);
    return rc;
}

static void prepare_terminal(struct shell *s)
{
    bool out = isatty(STDOUT_FILENO) == 1;
    s->interactive = out && isatty(STDIN_FILENO) == 1;
    s->out.counts = s->interactive;
    if (out) s->out.width = terminal_width();
    if (setlocale(LC_CTYPE, "") != NULL)
        s->out.unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    /* For the width of characters; the lines of tables stay simple then. */
    if (!s->out.unicode && setlocale(LC_CTYPE, "C.UTF-8") == NULL) s->out.unicode = false;
}

static unsigned terminal_width(void)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

static void on_interrupt(int sig)
{
    (void)sig;
    atomic_store(&canceled, true);
}

static void wipe_fini(struct buf *b)
{
    if (b->data != NULL) mem_wipe(b->data, b->cap);
    buf_fini(b);
}
