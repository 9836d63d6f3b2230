/* bell_test.c -- every kind of ring, and none that is missed. */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/thr.h"
#include "node/bell.h"
#include "node/wait.h"

#define QUIET_MS 30 /* after that, nothing more is expected to come */

struct owner {
    atomic_int rings;
    int watch, gone;
    char path[128]; /* as a WAL: armed */
    char base[128]; /* as its database: watched for its end. One file cannot be both. */
};
static char dir[64];
static atomic_bool freed;        /* no ring may come any more */
static atomic_bool hold_ringing; /* the bell's thread stays in its ring */

static void ring(void *arg)
{
    struct owner *o = arg;
    if (atomic_load(&freed)) abort();
    atomic_fetch_add(&o->rings, 1);
    while (atomic_load(&hold_ringing))
        os_sleep_ms(1);
}

static int rings(struct owner *o)
{
    return atomic_load(&o->rings);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static struct owner owner(const char *name)
{
    struct owner o = {.watch = BELL_NONE, .gone = BELL_NONE};
    snprintf(o.path, sizeof o.path, "%s/%s", dir, name);
    snprintf(o.base, sizeof o.base, "%s/%s.base", dir, name);
    write_file(o.path, "x");
    write_file(o.base, "x");
    return o;
}

static void arm(struct bell *b, struct owner *o)
{
    struct err err;
    if (bell_arm(b, o->path, o, &o->watch, &err) != RC_OK) fail_msg("%s", err.text);
}

static struct bell *bell(void)
{
    struct bell *b;
    struct err err;
    assert_int_equal(bell_new(ring, &b, &err), RC_OK);
    return b;
}

static int setup(void **arg)
{
    (void)arg;
    atomic_store(&freed, false);
    snprintf(dir, sizeof dir, "/tmp/sluice-bell-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int teardown(void **arg)
{
    char cmd[128];
    (void)arg;
    fault_arm(0, 0, false);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void test_once_per_arm(void **arg)
{
    struct bell *b = bell();
    struct owner o = owner("a"), other = owner("b");
    char c;
    (void)arg;
    arm(b, &o);
    arm(b, &other);
    int fd = open(o.path, O_RDONLY); /* a reader is no news */
    assert_int_equal(read(fd, &c, 1), 1);
    close(fd);
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&o), 0);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 5; i++)
            write_file(o.path, "news");
        WAIT_FOR(rings(&o) == round);
        os_sleep_ms(QUIET_MS);
        assert_int_equal(rings(&o), round);
        arm(b, &o);
        arm(b, &o); /* arming twice is one ring, too */
    }
    assert_int_equal(rings(&other), 0);
    bell_free(b);
    bell_free(NULL);
}

static void test_end_of_file(void **arg)
{
    struct bell *b = bell();
    struct owner deleted = owner("deleted"), moved = owner("moved"), cut = owner("cut");
    char to[160];
    (void)arg;
    arm(b, &deleted);
    arm(b, &moved);
    arm(b, &cut);
    snprintf(to, sizeof to, "%s.old", moved.path);
    assert_int_equal(unlink(deleted.path), 0);
    assert_int_equal(rename(moved.path, to), 0);
    assert_int_equal(truncate(cut.path, 0), 0);
    WAIT_FOR(rings(&deleted) == 1 && rings(&moved) == 1 && rings(&cut) == 1);

    /* Another file of the same name: the old watch is of no use any more. */
    write_file(deleted.path, "y");
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&deleted), 1);
    arm(b, &deleted);
    write_file(deleted.path, "z");
    WAIT_FOR(rings(&deleted) == 2);
    bell_free(b);
}

static void test_gone(void **arg)
{
    struct bell *b = bell();
    struct owner o = owner("open"), m = owner("moved");
    char to[160];
    struct err err;
    (void)arg;
    assert_int_equal(bell_watch_gone(b, o.base, &o, &o.gone, &err), RC_OK);
    assert_int_equal(bell_watch_gone(b, m.base, &m, &m.gone, &err), RC_OK);
    for (int i = 1; i <= 3; i++) { /* it stays armed */
        assert_int_equal(chmod(o.base, i % 2 ? 0640 : 0600), 0);
        WAIT_FOR(rings(&o) == i);
    }
    write_file(o.base, "a write is not its end");
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&o), 3);
    int fd = open(o.base, O_RDONLY); /* as an application would have it */
    assert_int_equal(unlink(o.base), 0);
    WAIT_FOR(rings(&o) >= 4);
    close(fd);
    snprintf(to, sizeof to, "%s.old", m.base);
    assert_int_equal(rename(m.base, to), 0);
    WAIT_FOR(rings(&m) >= 1);
    bell_free(b);
}

static void test_folder(void **arg)
{
    struct bell *b = bell();
    struct owner one = owner("one"), two = owner("two");
    char path[128], outside[128];
    struct err err;
    (void)arg;
    assert_int_equal(bell_watch_folder(b, dir, &one, &one.watch, &err), RC_OK);
    assert_int_equal(bell_watch_folder(b, dir, &two, &two.watch, &err), RC_OK);
    snprintf(path, sizeof path, "%s/new", dir);
    write_file(path, "created");
    WAIT_FOR(rings(&one) == 1 && rings(&two) == 1);
    write_file(path, "written, not created");
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&one), 1);

    snprintf(outside, sizeof outside, "%s.outside", dir);
    write_file(outside, "x");
    snprintf(path, sizeof path, "%s/came", dir);
    assert_int_equal(rename(outside, path), 0);
    WAIT_FOR(rings(&one) == 2 && rings(&two) == 2);

    bell_drop(b, &one); /* the other one keeps the shared watch */
    snprintf(path, sizeof path, "%s/new2", dir);
    write_file(path, "created");
    WAIT_FOR(rings(&two) == 3);
    assert_int_equal(rings(&one), 2);
    bell_drop(b, &two);
    snprintf(path, sizeof path, "%s/new3", dir);
    write_file(path, "created");
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&two), 3);
    assert_int_equal(bell_watch_folder(b, dir, &two, &two.watch, &err), RC_OK);
    assert_int_equal(unlink(path), 0); /* deletions do not ring */
    write_file(path, "created");
    WAIT_FOR(rings(&two) == 4);
    bell_free(b);
}

static void test_drop(void **arg)
{
    struct bell *b = bell();
    struct owner o = owner("a"), stranger = owner("b");
    struct err err;
    (void)arg;
    bell_drop(b, &stranger);
    arm(b, &o);
    arm(b, &stranger);
    assert_int_equal(bell_watch_gone(b, o.base, &o, &o.gone, &err), RC_OK);
    bell_drop(b, &o);
    write_file(o.path, "x");
    assert_int_equal(chmod(o.base, 0400), 0);
    assert_int_equal(unlink(o.base), 0);
    write_file(stranger.path, "x");
    WAIT_FOR(rings(&stranger) == 1);
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&o), 0);
    o = owner("a"); /* and it can be armed again */
    arm(b, &o);
    write_file(o.path, "x");
    WAIT_FOR(rings(&o) == 1);
    bell_free(b);
}

static void test_failures(void **arg)
{
    struct bell *b = NULL;
    struct owner o = owner("a");
    char gone[128];
    int watch = BELL_NONE;
    struct err err;
    (void)arg;
    fault_arm(FAULT_ALLOC, 1, false);
    assert_int_equal(bell_new(ring, &b, &err), RC_NO_MEM);
    assert_null(b);
    fault_arm(0, 0, false);
    b = bell();
    snprintf(gone, sizeof gone, "%s/none", dir);
    assert_int_equal(bell_arm(b, gone, &o, &watch, &err), RC_NOT_FOUND);
    assert_non_null(strstr(err.text, gone));
    assert_int_equal(bell_watch_gone(b, gone, &o, &watch, &err), RC_NOT_FOUND);
    assert_int_equal(bell_watch_folder(b, gone, &o, &watch, &err), RC_NOT_FOUND);
    assert_int_equal(watch, BELL_NONE);
    bell_free(b);
    b = bell();
    fault_arm(FAULT_ALLOC, 1, false);
    assert_int_equal(bell_arm(b, o.path, &o, &o.watch, &err), RC_NO_MEM);
    fault_arm(0, 0, false);
    write_file(o.path, "x");
    os_sleep_ms(QUIET_MS);
    assert_int_equal(rings(&o), 0);
    arm(b, &o);
    write_file(o.path, "x");
    WAIT_FOR(rings(&o) == 1);
    bell_free(b);
}

struct pingpong {
    struct owner o;
    struct bell *b;
    pthread_t writer, reader;
    atomic_long seen;
    atomic_bool stop;
    long rounds;
};

static void *write_rounds(void *arg)
{
    struct pingpong *p = arg;
    int fd = open(p->o.path, O_WRONLY);
    while (!atomic_load(&p->stop)) {
        long value = ++p->rounds;
        if (pwrite(fd, &value, sizeof value, 0) != sizeof value) abort();
        /* The next write follows at once: the watch may be in any moment of its life. */
        while (atomic_load(&p->seen) != value && !atomic_load(&p->stop))
            sched_yield();
    }
    close(fd);
    return NULL;
}

static void *look_rounds(void *arg)
{
    struct pingpong *p = arg;
    struct err err;
    long value;
    int done = 0, fd = open(p->o.path, O_RDONLY);
    while (!atomic_load(&p->stop)) {
        if (atomic_load(&p->o.rings) == done) {
            sched_yield();
            continue;
        }
        done = atomic_load(&p->o.rings);
        if (bell_arm(p->b, p->o.path, &p->o, &p->o.watch, &err) != RC_OK) abort();
        if (pread(fd, &value, sizeof value, 0) == sizeof value) atomic_store(&p->seen, value);
    }
    close(fd);
    return NULL;
}

/* Arm first, look after: whatever a writer does meanwhile, its last write is seen. */
static void test_nothing_missed(void **arg)
{
    enum { PAIRS = 3 };
    struct pingpong p[PAIRS];
    struct bell *b = bell();
    struct err err;
    (void)arg;
    for (int i = 0; i < PAIRS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        p[i] = (struct pingpong){.o = owner(name), .b = b};
        arm(b, &p[i].o);
        assert_int_equal(thr_start(&p[i].reader, "look", look_rounds, &p[i], &err), RC_OK);
        assert_int_equal(thr_start(&p[i].writer, "write", write_rounds, &p[i], &err), RC_OK);
    }
    int64_t end = os_mono_ms() + 600;
    for (bool few = true; few || os_mono_ms() < end;) {
        few = false;
        for (int i = 0; i < PAIRS; i++) {
            long before = atomic_load(&p[i].seen);
            WAIT_FOR(atomic_load(&p[i].seen) > before);
            few = few || before <= 100;
        }
    }
    for (int i = 0; i < PAIRS; i++) {
        atomic_store(&p[i].stop, true);
        pthread_join(p[i].writer, NULL);
        pthread_join(p[i].reader, NULL);
    }
    bell_free(b);
}

static void test_many_owners(void **arg)
{
    enum { COUNT = 2000 };
    struct owner *o = calloc(COUNT, sizeof *o);
    struct bell *b = bell();
    struct err err;
    (void)arg;
    for (int i = 0; i < COUNT; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        o[i] = owner(name);
        arm(b, &o[i]);
        assert_int_equal(bell_watch_gone(b, o[i].base, &o[i], &o[i].gone, &err), RC_OK);
    }
    for (int i = 0; i < COUNT; i++)
        write_file(o[i].path, "news");
    for (int i = 0; i < COUNT; i++)
        WAIT_FOR(rings(&o[i]) == 1);
    int64_t start = os_mono_ms();
    for (int i = 0; i < COUNT; i++) {
        if (i % 2 == 0) bell_drop(b, &o[i]);
    }
    int64_t drops_ms = os_mono_ms() - start;
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(unlink(o[i].base), 0);
    for (int i = 1; i < COUNT; i += 2)
        WAIT_FOR(rings(&o[i]) >= 2);
    for (int i = 0; i < COUNT; i += 2)
        assert_int_equal(rings(&o[i]), 1);
    bell_free(b);
    free(o);
    print_message("%d drops: %d ms\n", COUNT / 2, (int)drops_ms);
}

/* The kernel drops what its queue cannot hold: then everybody is told. */
static void test_overflow(void **arg)
{
    struct bell *b = bell();
    struct owner noisy[2] = {owner("noisy0"), owner("noisy1")}, quiet = owner("quiet");
    struct err err;
    int max = 0;
    (void)arg;
    FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
    if (f == NULL || fscanf(f, "%d", &max) != 1 || max > 100000) {
        print_message("the queue of inotify is too long to fill (%d), skipping\n", max);
        skip();
    }
    fclose(f);
    arm(b, &quiet);
    for (int i = 0; i < 2; i++)
        assert_int_equal(bell_watch_gone(b, noisy[i].base, &noisy[i], &noisy[i].gone, &err), 0);
    atomic_store(&hold_ringing, true);
    for (int i = 0; i < max + 1000; i++) /* two in turn: equal neighbours would be merged */
        assert_int_equal(chmod(noisy[i % 2].base, 0600), 0);
    write_file(quiet.path, "lost in the crowd");
    atomic_store(&hold_ringing, false);
    WAIT_FOR(rings(&quiet) >= 1);
    int before = rings(&quiet);
    arm(b, &quiet);
    write_file(quiet.path, "x");
    WAIT_FOR(rings(&quiet) > before);
    bell_free(b);
}

/* In a user namespace of its own, whose limit on watches is small. */
static int child_without_watches(void)
{
    struct bell *b;
    struct owner o = owner("a"), p = owner("b");
    struct err err;
    int fd = -1;
    if (unshare(CLONE_NEWUSER) == 0) fd = open("/proc/sys/user/max_inotify_watches", O_WRONLY);
    if (fd < 0 || write(fd, "1\n", 2) != 2) return 77;
    if (bell_new(ring, &b, &err) != RC_OK) return 77;
    if (bell_arm(b, o.path, &o, &o.watch, &err) != RC_OK) return 1;
    if (bell_arm(b, p.path, &p, &p.watch, &err) != RC_UNSUPPORTED) return 2;
    if (strstr(err.text, "max_user_watches") == NULL) return 3;
    bell_drop(b, &o);
    for (int i = 0; i < 1000; i++) { /* the kernel frees watches with some delay */
        if (bell_arm(b, p.path, &p, &p.watch, &err) == RC_OK) return 0;
        os_sleep_ms(5);
    }
    return 4;
}

static void test_no_watch_left(void **arg)
{
    int status;
    (void)arg;
    pid_t pid = fork();
    if (pid == 0) _exit(child_without_watches());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no user namespace with a limit of its own here, skipping\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

struct noise {
    atomic_bool stop;
    const struct owner *o;
};

static void *make_noise(void *arg)
{
    struct noise *n = arg;
    while (!atomic_load(&n->stop)) {
        write_file(n->o->path, "x");
        if (chmod(n->o->base, 0600) != 0) break;
    }
    return NULL;
}

static void test_free_under_fire(void **arg)
{
    struct owner o = owner("a");
    struct noise n = {.o = &o};
    pthread_t thread;
    struct err err;
    (void)arg;
    assert_int_equal(thr_start(&thread, "noise", make_noise, &n, &err), RC_OK);
    for (int i = 0; i < 40; i++) {
        atomic_store(&freed, false);
        struct bell *b = bell();
        o.watch = o.gone = BELL_NONE;
        int before = rings(&o);
        arm(b, &o);
        assert_int_equal(bell_watch_gone(b, o.base, &o, &o.gone, &err), RC_OK);
        if (i % 2) WAIT_FOR(rings(&o) > before + 10);
        if (i % 3 == 0) bell_drop(b, &o);
        bell_free(b);
        atomic_store(&freed, true); /* from here a ring aborts */
    }
    os_sleep_ms(QUIET_MS);
    atomic_store(&n.stop, true);
    pthread_join(thread, NULL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_once_per_arm),
        T(test_end_of_file),
        T(test_gone),
        T(test_folder),
        T(test_drop),
        T(test_failures),
        T(test_overflow),
        T(test_nothing_missed),
        T(test_many_owners),
        T(test_no_watch_left),
        T(test_free_under_fire),
    };
    return cmocka_run_group_tests_name("node/bell", tests, NULL, NULL);
}
