/* shell_edit.c -- lines from a terminal, by libedit; see shell.h. */
#include "cli/shell.h"
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/os.h"
#include "base/sock.h"

#define HISTORY_LINES 2000
#define LOOK_MS       100 /* the cancel flag is looked at so often */

struct shell_edit {
    EditLine *el;
    History *history;
    const char *prompt;
    const atomic_bool *cancel;
    bool utf8, changed;
    char path[OS_PATH_MAX]; /* "": the history is not kept */
};

static int get_char(EditLine *el, wchar_t *ret);
static int get_byte(struct shell_edit *e, uint8_t *ret);
static char *get_prompt(EditLine *el);
static void load(struct shell_edit *e, const char *path);
static void save(struct shell_edit *e);

enum rc shell_edit_open(const char *history_path, const atomic_bool *cancel,
                        struct shell_edit **ret_e, struct err *err)
{
    HistEvent ev;
    struct shell_edit *e = mem_calloc(1, sizeof *e);
    if (e == NULL) return err_mem(err, "a line editor");
    e->cancel = cancel;
    e->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    e->prompt = "";
    e->history = history_init();
    e->el = el_init("sluice", stdin, stdout, stderr);
    if (e->history == NULL || e->el == NULL) {
        shell_edit_close(e);
        return err_mem(err, "a line editor");
    }
    history(e->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(e->history, &ev, H_SETUNIQUE, 1);
    if (history_path != NULL) load(e, history_path);
    el_set(e->el, EL_CLIENTDATA, e);
    el_set(e->el, EL_PROMPT, get_prompt);
    el_set(e->el, EL_EDITOR, "emacs");
    el_set(e->el, EL_SIGNAL, 1);
    el_set(e->el, EL_HIST, history, e->history);
    el_set(e->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(e->el, EL_GETCFN, get_char);
    el_source(e->el, NULL);
    *ret_e = e;
    return RC_OK;
}

void shell_edit_close(struct shell_edit *e)
{
    if (e == NULL) return;
    if (e->changed && e->path[0] != '\0') save(e);
    if (e->el != NULL) el_end(e->el);
    if (e->history != NULL) history_end(e->history);
    mem_free(e);
}

const char *shell_edit_line(struct shell_edit *e, const char *prompt, size_t *ret_size)
{
    int size = 0;
    e->prompt = prompt;
    const char *line = el_gets(e->el, &size);
    if (atomic_load(e->cancel)) {
        el_reset(e->el);
        line = NULL;
    }
    *ret_size = line != NULL && size > 0 ? (size_t)size : 0;
    return *ret_size > 0 ? line : NULL;
}

void shell_edit_remember(struct shell_edit *e, const char *text)
{
    HistEvent ev;
    if (text[strspn(text, " \t\r\n")] == '\0') return;
    history(e->history, &ev, H_ENTER, text);
    e->changed = true;
}

bool shell_history_path(char out[OS_PATH_MAX])
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state != NULL && state[0] == '/')
        n = snprintf(out, OS_PATH_MAX, "%s/sluice/history", state);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, OS_PATH_MAX, "%s/.local/state/sluice/history", home);
    return n > 0 && n < OS_PATH_MAX;
}

/* One character. 0: the end; -1: canceled. A read that waits would not notice the flag when a
 * signal comes just before it. */
static int get_char(EditLine *el, wchar_t *ret)
{
    struct shell_edit *e = NULL;
    uint8_t bytes[4];
    el_get(el, EL_CLIENTDATA, &e);
    int got = get_byte(e, &bytes[0]);
    if (got != 1) return got;
    *ret = bytes[0];
    if (!e->utf8 || bytes[0] < 0xc2) return 1;
    int more = bytes[0] >= 0xf0 ? 3 : bytes[0] >= 0xe0 ? 2 : 1;
    uint32_t ch = bytes[0] & (0x3fu >> more);
    for (int i = 0; i < more; i++) {
        got = get_byte(e, &bytes[1]);
        if (got != 1) return got;
        ch = ch << 6 | (bytes[1] & 0x3f);
    }
    *ret = (wchar_t)ch;
    return 1;
}

static int get_byte(struct shell_edit *e, uint8_t *ret)
{
    while (!atomic_load(e->cancel)) {
        if (!sock_wait(STDIN_FILENO, false, LOOK_MS)) continue;
        int64_t n = os_read_some(STDIN_FILENO, ret, 1);
        return n == 1 ? 1 : 0;
    }
    return -1;
}

static char *get_prompt(EditLine *el)
{
    struct shell_edit *e = NULL;
    el_get(el, EL_CLIENTDATA, &e);
    union {
        const char *in;
        char *out; /* libedit does not write to it */
    } prompt = {.in = e->prompt};
    return prompt.out;
}

/* Nobody else may read it: a statement may hold what is secret. */
static void load(struct shell_edit *e, const char *path)
{
    HistEvent ev;
    snprintf(e->path, sizeof e->path, "%s", path);
    history(e->history, &ev, H_LOAD, path);
}

/* Without a history the shell is as good, so failures are not told. libedit wants a real file. */
static void save(struct shell_edit *e)
{
    HistEvent ev;
    struct err ignored;
    char dir[OS_PATH_MAX], fresh[OS_PATH_MAX + 8];
    int fd = -1;
    snprintf(dir, sizeof dir, "%s", e->path);
    snprintf(fresh, sizeof fresh, "%s.tmp", e->path);
    char *slash = strrchr(dir, '/');
    if (slash != NULL) *slash = '\0';
    if (os_mkdirs(dir, 0700, &ignored) != RC_OK) return;
    if (os_open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, &ignored) != RC_OK) return;
    FILE *f = fdopen(fd, "w");
    if (f == NULL) {
        os_close(fd);
        return;
    }
    bool ok = history(e->history, &ev, H_SAVE_FP, f) >= 0;
    ok = fclose(f) == 0 && ok;
    e->changed = !ok || os_rename(fresh, e->path, &ignored) != RC_OK;
}
