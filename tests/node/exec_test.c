/* exec_test.c -- what the application is started with, and what is said when it cannot be. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "node/exec.h"

static char dir[64], script[96], out[96];

static void write_script(const char *path, const char *text, unsigned mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static const char *output(void)
{
    static char text[8192];
    FILE *f = fopen(out, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Start it and wait for its end. Returns the status as waitpid has it. */
static int run(const char *cmd)
{
    struct err err;
    pid_t pid = 0;
    int status;
    if (exec_start(cmd, &pid, &err) != RC_OK) fail_msg("%s: %s", cmd, err.text);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static enum rc refused(const char *cmd, const char *text)
{
    struct err err;
    pid_t pid = 12345;
    enum rc rc = exec_start(cmd, &pid, &err);
    assert_int_equal(pid, 12345);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left over */
    if (rc != RC_OK && strstr(err.text, text) == NULL) fail_msg("'%s': %s", cmd, err.text);
    return rc;
}

static int setup(void **arg)
{
    char text[256];
    (void)arg;
    snprintf(dir, sizeof dir, "/tmp/sluice-exec-XXXXXX");
    if (mkdtemp(dir) == NULL) return 1;
    snprintf(script, sizeof script, "%s/args", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    snprintf(text, sizeof text, "#!/bin/sh\nfor a; do printf '<%%s>' \"$a\"; done >%s\n", out);
    write_script(script, text, 0755);
    return 0;
}

static int teardown(void **arg)
{
    char cmd[96];
    (void)arg;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void test_words(void **arg)
{
    static const struct {
        const char *cmd, *args;
    } cases[] = {
        {"", ""},
        {" a", "<a>"},
        {"\t a \n b  ", "<a><b>"},
        {" 'a b' \"c d\"", "<a b><c d>"},
        {" '' \"\" x", "<><><x>"},
        {" a''b", "<ab>"},
        {" a'b c'd\"e f\"g", "<ab cde fg>"},
        {" \"it's\" 'say \"hi\"'", "<it's><say \"hi\">"},
        {" a\\ b", "<a b>"},
        {" \\'a \\\"b", "<'a><\"b>"},
        {" \"a\\\"b\"", "<a\"b>"},
        {" \"a\\\\b\" a\\\\b", "<a\\b><a\\b>"},
        {" 'a\\b' 'a\\'", "<a\\b><a\\>"},
        {" a\\", "<a\\>"},
        {" $HOME *.c `ls` a;b c|d >e #f ~", "<$HOME><*.c><`ls`><a;b><c|d><>e><#f><~>"},
        {" -port 8080 --x='y z'", "<-port><8080><--x=y z>"},
        {" \xC3\xA4\xE2\x82\xAC", "<\xC3\xA4\xE2\x82\xAC>"},
    };
    char cmd[256];
    (void)arg;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(cmd, sizeof cmd, "%s%s", script, cases[i].cmd);
        assert_int_equal(run(cmd), 0);
        assert_string_equal(output(), cases[i].args);
    }
    snprintf(cmd, sizeof cmd, "  '%.40s'\"/args\" x", dir); /* the program may be quoted, too */
    assert_int_equal(run(cmd), 0);
    assert_string_equal(output(), "<x>");
}

static void test_many_words(void **arg)
{
    char cmd[1024];
    (void)arg;
    int n = snprintf(cmd, sizeof cmd, "%s", script);
    for (int i = 1; i < 256; i++)
        n += snprintf(cmd + n, sizeof cmd - (size_t)n, " w");
    assert_int_equal(run(cmd), 0);
    assert_int_equal(strlen(output()), 255 * 3);
    snprintf(cmd + n, sizeof cmd - (size_t)n, " w");
    assert_int_equal(refused(cmd, "too many words"), RC_INVALID);
}

static void test_refused(void **arg)
{
    char cmd[256], plain[96];
    (void)arg;
    assert_int_equal(refused("", "empty"), RC_INVALID);
    assert_int_equal(refused(" \t\n", "empty"), RC_INVALID);
    assert_int_equal(refused("sh -c 'exit", "open quote"), RC_INVALID);
    assert_int_equal(refused("sh \"", "open quote"), RC_INVALID);
    assert_int_equal(refused("sluice-no-such-program -x", "'sluice-no-such-program'"),
                     RC_NOT_FOUND);
    snprintf(cmd, sizeof cmd, "%s/none x", dir);
    snprintf(plain, sizeof plain, "%s/none'", dir);
    assert_int_equal(refused(cmd, plain), RC_NOT_FOUND);
    snprintf(plain, sizeof plain, "%s/plain", dir);
    write_script(plain, "#!/bin/sh\n", 0644);
    assert_int_equal(refused(plain, plain), RC_DENIED);
    assert_int_equal(refused(dir, dir), RC_DENIED); /* a folder is no program */
    fault_arm(FAULT_ALLOC, 1, false);
    assert_int_equal(refused("true", "command"), RC_NO_MEM);
    fault_arm(0, 0, false);
}

static void test_no_descriptor_left(void **arg)
{
    struct rlimit old, none;
    (void)arg;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum rc rc = refused("true", "pipe");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_not_equal(rc, RC_OK);
    assert_int_equal(run("true"), 0);
}

static void test_status(void **arg)
{
    (void)arg;
    assert_int_equal(WEXITSTATUS(run("true")), 0);
    assert_int_equal(WEXITSTATUS(run("sh -c 'exit 3'")), 3);
    int status = run("sh -c 'kill -9 $$'");
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

/* A fresh process: no signal is blocked, and no descriptor of ours stays open. */
static void test_fresh(void **arg)
{
    sigset_t all, old;
    char cmd[256];
    (void)arg;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    snprintf(cmd, sizeof cmd, "sh -c 'grep SigBlk /proc/self/status >%s'", out);
    int status = run(cmd);
    sigprocmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(status, 0);
    assert_string_equal(output(), "SigBlk:\t0000000000000000\n");

    int before = dup(0);
    close(before);
    for (int fd = before; fd <= before + 1; fd++) { /* where the report pipe was */
        snprintf(cmd, sizeof cmd, "readlink /proc/self/fd/%d", fd);
        assert_int_equal(WEXITSTATUS(run(cmd)), 1);
    }
    int after = dup(0);
    close(after);
    assert_int_equal(after, before); /* and none is left over here */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),   cmocka_unit_test(test_many_words),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_no_descriptor_left),
        cmocka_unit_test(test_status),  cmocka_unit_test(test_fresh),
    };
    return cmocka_run_group_tests_name("node/exec", tests, setup, teardown);
}
