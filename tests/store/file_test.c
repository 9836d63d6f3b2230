/* file_test.c -- what is special about the store in a folder. Includes file.c to reach its statics:
 * the two ways to create, and the sweep with a clock of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "../../src/store/file.c"
#include "base/fault.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

static struct err err;
static char dir[64];
static struct store *store;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/sluice-file-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(store_open(dir, &store, &err), RC_OK);
    return 0;
}

static void run(const char *fmt, const char *arg)
{
    char command[512];
    snprintf(command, sizeof command, fmt, arg);
    assert_int_equal(system(command), 0);
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    run("rm -rf '%s'", dir);
    return 0;
}

static const char *at(const char *name)
{
    static char path[4][256];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static enum rc put(const char *key, const char *text, bool if_absent)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(store, NULL, key, &body, &(struct store_put_opts){.if_absent = if_absent},
                     NULL, &err);
}

static void write_file(const char *name, const char *text)
{
    assert_int_equal(os_write_file(at(name), text, strlen(text), 0600, &err), RC_OK);
}

static void assert_file(const char *name, const char *text)
{
    char got[64] = "";
    FILE *f = fopen(at(name), "rb");
    assert_non_null(f);
    size_t n = fread(got, 1, sizeof got - 1, f);
    fclose(f);
    assert_int_equal(n, strlen(text));
    assert_string_equal(got, text);
}

static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s ", obj->key);
}

static void assert_list(struct store *s, const char *prefix, const char *keys)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    if (store_list(s, NULL, prefix, NULL, into_lines, &b, &err) != RC_OK) fail_msg("%s", err.text);
    assert_int_equal(buf_append(&b, "", 1, &err), RC_OK);
    assert_string_equal((char *)b.data, keys);
}

static unsigned count_names(const char *folder)
{
    char command[300], line[32] = "";
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(line, sizeof line, f));
    pclose(f);
    return (unsigned)atoi(line);
}

static void test_files_are_plain(void **state)
{
    (void)state;
    struct stat st;
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "bytes", 5);
    struct store_put_opts opts = {.timestamp_ms = 1767323045678};
    assert_int_equal(store_put(store, NULL, "ltx/0/x.ltx", &body, &opts, NULL, &err), RC_OK);
    assert_file("ltx/0/x.ltx", "bytes");
    assert_int_equal(stat(at("ltx/0/x.ltx"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_mtim.tv_sec, 1767323045);
    assert_int_equal(st.st_mtim.tv_nsec, 678000000);
    assert_int_equal(stat(at("ltx"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(count_names(at("ltx/0")), 1);
}

static void test_foreign_names(void **state)
{
    (void)state;
    assert_int_equal(put("k", "x", false), RC_OK);
    run("mkfifo '%s'", at("pipe"));
    run("ln -s nowhere '%s'", at("dangling"));
    run("mkdir -p '%s'", at("empty/folder"));
    write_file(STORE_TMP_PREFIX "1-2", "half");
    write_file("empty/" STORE_TMP_PREFIX "1-2", "half");
    assert_list(store, "", "k ");
    assert_list(store, ".", "");
    char byte;
    assert_int_equal(store_read(store, NULL, "pipe", 0, &byte, 1, &err), RC_NOT_FOUND);
    assert_int_equal(store_read(store, NULL, "empty", 0, &byte, 1, &err), RC_NOT_FOUND);
    assert_int_equal(store_read(store, NULL, "dangling", 0, &byte, 1, &err), RC_NOT_FOUND);
    assert_int_equal(store_del(store, NULL, &(const char *){"empty"}, 1, &err), RC_OK);
    assert_int_equal(access(at("empty/folder"), F_OK), 0);
}

/* What is deleted must not come back after a power failure: once a folder, and also for what is not
 * there any more, since who deleted it may have failed after that. */
static void test_del_lasts(void **state)
{
    const char *keys[] = {"d/a", "d/b", "d/gone", "e/c"};
    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(put("d/a", "x", false), RC_OK);
        assert_int_equal(put("d/b", "x", false), RC_OK);
        assert_int_equal(put("e/c", "x", false), RC_OK);
        /* 4 deletions, and for each folder open and fsync. */
        fault_arm(FAULT_SYSCALL, round == 0 ? 6 : 8, false);
        assert_int_not_equal(store_del(store, NULL, keys, 4, &err), RC_OK);
        assert_true(fault_fired());
        assert_string_equal(fault_last(), "fsync");
        fault_arm(0, 0, false);
        assert_int_equal(store_del(store, NULL, keys, 4, &err), RC_OK);
        assert_list(store, "", "");
    }
    fault_arm(FAULT_SYSCALL, 1000, false);
    assert_int_equal(store_del(store, NULL, keys, 4, &err), RC_OK);
    assert_int_equal(fault_count(), 8);
    fault_arm(0, 0, false);
}

/* None of these may look as if another writer had won, or as if something were missing. */
static void test_put_in_the_way(void **state)
{
    (void)state;
    assert_int_equal(put("a", "x", false), RC_OK);
    assert_int_equal(put("d/x", "x", false), RC_OK);
    for (int if_absent = 0; if_absent < 2; if_absent++) {
        enum rc rc = put("a/b", "x", if_absent);
        assert_true(rc != RC_OK && rc != RC_CONFLICT && rc != RC_NOT_FOUND);
        assert_non_null(strstr(err.text, at("a")));
        rc = put("a/b/c", "x", if_absent);
        assert_true(rc != RC_OK && rc != RC_CONFLICT && rc != RC_NOT_FOUND);
    }
    run("ln -s nowhere '%s'", at("dangling"));
    assert_int_equal(put("dangling/x", "x", true), RC_IO);
    assert_int_equal(unlink(at("dangling")), 0);
    assert_int_equal(put("d", "x", false), RC_INVALID);
    char longer[300];
    memset(longer, 'n', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(put(longer, "x", false), RC_INVALID);
    assert_list(store, "", "a d/x ");
    assert_int_equal(count_names(dir), 2);
}

static enum rc remove_tmp(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)off, (void)e;
    memset(dst, 'x', size);
    run("rm '%s/'" STORE_TMP_PREFIX "*", dir);
    return RC_OK;
}

static void test_tmp_vanishes(void **state)
{
    (void)state;
    struct store_body body = {.size = 1, .read = remove_tmp};
    for (int if_absent = 0; if_absent < 2; if_absent++) {
        struct store_put_opts opts = {.if_absent = if_absent};
        assert_int_equal(store_put(store, NULL, "k", &body, &opts, NULL, &err), RC_IO);
        assert_non_null(strstr(err.text, at("k")));
    }
    assert_list(store, "", "");
}

static void test_root_is_a_file(void **state)
{
    (void)state;
    struct store *s = NULL;
    write_file("file", "x");
    assert_int_equal(store_open(at("file"), &s, &err), RC_OK);
    assert_int_equal(store_list(s, NULL, "", NULL, into_lines, NULL, &err), RC_INVALID);
    assert_int_equal(store_list(s, NULL, "ltx/0/", NULL, into_lines, NULL, &err), RC_INVALID);
    assert_non_null(strstr(err.text, at("file")));
    store_close(s);
}

static void test_symbolic_links(void **state)
{
    (void)state;
    struct store *s = NULL;
    run("mkdir '%s'", at("real"));
    run("ln -s real '%s'", at("root"));
    run("ln -s . '%s'", at("real/loop"));
    assert_int_equal(store_open(at("root"), &s, &err), RC_OK);
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    assert_int_equal(store_put(s, NULL, "a/k", &body, NULL, NULL, &err), RC_OK);
    assert_file("real/a/k", "x");
    assert_list(s, "a/", "a/k ");
    /* A loop ends as an error of the system, not never. */
    CLEANUP(buf_fini) struct buf lines = BUF_INIT;
    assert_int_equal(store_list(s, NULL, "", NULL, into_lines, &lines, &err), RC_IO);
    assert_int_equal(err.sys, ELOOP);
    store_close(s);
}

static void test_create_by_link(void **state)
{
    (void)state;
    write_file("tmp", "first");
    assert_int_equal(publish_by_link(at("tmp"), at("k"), &err), RC_OK);
    assert_file("k", "first");
    assert_int_not_equal(access(at("tmp"), F_OK), 0);
    write_file("tmp", "second");
    assert_int_equal(publish_by_link(at("tmp"), at("k"), &err), RC_CONFLICT);
    assert_file("k", "first");
    assert_file("tmp", "second"); /* put removes it */
    /* As NFS can do it: the link was made, and the answer says it was there before. */
    assert_int_equal(link(at("tmp"), at("l")), 0);
    assert_int_equal(publish_by_link(at("tmp"), at("l"), &err), RC_OK);
    assert_file("l", "second");
    assert_int_not_equal(access(at("tmp"), F_OK), 0);
}

static void test_sweep(void **state)
{
    (void)state;
    char path[PATH_SIZE];
    struct stale s = {.path = path, .dir_size = strlen(dir) + 1, .now_ms = os_now_ms()};
    snprintf(path, sizeof path, "%s/", dir);
    write_file(STORE_TMP_PREFIX "1-2", "half");
    write_file("x.tmp", "an object");
    /* The file's time is the object's and may be years ago: it must not count. */
    run("touch -d 2001-01-01 '%s'", at(STORE_TMP_PREFIX "1-2"));
    assert_int_equal(put("k", "x", false), RC_OK);
    assert_int_equal(access(at(STORE_TMP_PREFIX "1-2"), F_OK), 0);
    s.now_ms += STALE_MS - 60000;
    assert_int_equal(os_list(dir, sweep_name, &s, &err), RC_OK);
    assert_int_equal(access(at(STORE_TMP_PREFIX "1-2"), F_OK), 0);
    s.now_ms += 120000;
    assert_int_equal(os_list(dir, sweep_name, &s, &err), RC_OK);
    assert_int_not_equal(access(at(STORE_TMP_PREFIX "1-2"), F_OK), 0);
    assert_list(store, "", "k x.tmp ");
}

/* A small read, as restore makes them by the thousand, takes its buffer from the stack. */
static void test_small_calls_allocate_nothing(void **state)
{
    (void)state;
    char byte;
    assert_int_equal(put("k", "x", false), RC_OK);
    uint64_t before = mem_alloc_count();
    assert_int_equal(store_read(store, NULL, "k", 0, &byte, 1, &err), RC_OK);
    assert_int_equal(put("k", "y", false), RC_OK);
    assert_int_equal(put("l", "y", true), RC_OK);
    assert_int_equal(mem_alloc_count(), before);
}

static enum rc zeros(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)off, (void)e;
    memset(dst, 0, size);
    return RC_OK;
}

/* In a child process with mounts of its own. Exit 77: mounting is not allowed here. */
static int full_disk_child(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", dir, "tmpfs", 0, "size=1m") != 0)
        return 77;
    struct store_body body = {.size = 4 << 20, .read = zeros};
    if (put("k", "old", false) != RC_OK) return 1;
    if (store_put(store, NULL, "k", &body, NULL, NULL, &err) != RC_NO_SPACE) return 2;
    if (strstr(err.text, at("k")) == NULL) return 3;
    if (store_put(store, NULL, "new/k", &body, NULL, NULL, &err) != RC_NO_SPACE) return 4;
    if (count_names(dir) != 2 || count_names(at("new")) != 0) return 5;
    char text[3];
    if (store_read(store, NULL, "k", 0, text, 3, &err) != RC_OK) return 6;
    if (memcmp(text, "old", 3) != 0) return 7;
    body.size = 512 << 10; /* what the failed puts took must be free again */
    return store_put(store, NULL, "new/k", &body, NULL, NULL, &err) == RC_OK ? 0 : 8;
}

static void test_full_disk(void **state)
{
    (void)state;
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(full_disk_child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: no right to mount a tmpfs\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_files_are_plain), CASE(test_foreign_names),
        CASE(test_del_lasts),       CASE(test_put_in_the_way),
        CASE(test_tmp_vanishes),    CASE(test_root_is_a_file),
        CASE(test_symbolic_links),  CASE(test_create_by_link),
        CASE(test_sweep),           CASE(test_small_calls_allocate_nothing),
        CASE(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
