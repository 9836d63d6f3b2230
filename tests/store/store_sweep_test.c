/* store_sweep_test.c -- every syscall and every allocation of a store call fails in turn: the
 * object is old or new, whole; no temporary file and no descriptor stays; the store works
 * afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <dirent.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/driver.h"

#define BIG_SIZE (600u << 10) /* three chunks, so that steps in the middle fail too */

static struct err err;
static char dir[64];
static struct store *store;
static uint8_t old_bytes[BIG_SIZE], new_bytes[BIG_SIZE + 1], got_bytes[BIG_SIZE + 1];

static unsigned count_names(const char *path, bool only_tmp)
{
    unsigned count = 0;
    DIR *d = opendir(path);
    if (d == NULL) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (!only_tmp || strstr(e->d_name, STORE_TMP_PREFIX) != NULL) count++;
    closedir(d);
    return count;
}

static void clear(void)
{
    char command[128];
    store_close(store);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* A new handle each time, so that the first put of a folder, with its sweep, is part of it. */
static void fresh(const char *url)
{
    assert_int_equal(store_open(url, &store, &err), RC_OK);
}

static enum rc put(const void *data, size_t size, bool if_absent)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, data, size);
    struct store_put_opts opts = {.if_absent = if_absent, .timestamp_ms = 1234567890123};
    return store_put(store, NULL, "a/b/k", &body, &opts, NULL, &err);
}

static enum rc append(void *ctx, const void *data, size_t size, struct err *e)
{
    size_t *used = ctx;
    if (*used + size > sizeof got_bytes) return err_set(e, RC_TOO_BIG, "too many bytes");
    memcpy(got_bytes + *used, data, size);
    *used += size;
    return RC_OK;
}

/* 'o' old, 'n' new, '-' missing; anything else fails the test. */
static char look(void)
{
    size_t used = 0;
    enum rc rc = store_get(store, NULL, "a/b/k", NULL, append, &used, &err);
    if (rc == RC_NOT_FOUND) return '-';
    if (rc != RC_OK) fail_msg("%s", err.text);
    if (used == sizeof old_bytes && memcmp(got_bytes, old_bytes, used) == 0) return 'o';
    if (used == sizeof new_bytes && memcmp(got_bytes, new_bytes, used) == 0) return 'n';
    fail_msg("neither old nor new: %zu bytes", used);
    return '?';
}

static void assert_clean(unsigned fd_count)
{
    char path[80];
    assert_int_equal(count_names("/proc/self/fd", false), fd_count);
    snprintf(path, sizeof path, "%s/a/b", dir);
    assert_int_equal(count_names(path, true), 0);
}

/* `trace`: the syscalls of the put in their order, each with what its failure leads to: '!' the put
 * fails, '~' it does not matter. It is the durability protocol: bytes, time and name in this order,
 * and an fsync whose failure is kept quiet would be a lie. */
struct plan {
    const char *name;
    bool exists, if_absent;
    const char *trace;
};

static void sweep_put(const char *url, unsigned class, const struct plan *p)
{
    CLEANUP(buf_fini) struct buf trace = BUF_INIT;
    unsigned steps = 0, fd_count = count_names("/proc/self/fd", false);
    char before = p->exists ? 'o' : '-';
    for (uint64_t nth = 1;; nth++) {
        fresh(url);
        if (p->exists) assert_int_equal(put(old_bytes, sizeof old_bytes, false), RC_OK);
        store_close(store);
        fresh(url);
        fault_arm(class, nth, false);
        enum rc rc = put(new_bytes, sizeof new_bytes, p->if_absent);
        enum rc rc_first = rc;
        bool fired = fault_fired();
        const char *step = fault_last();
        char text[ERR_TEXT_MAX];
        memcpy(text, err.text, sizeof text);
        fault_arm(0, 0, false);
        assert_clean(fd_count);
        char now = look();
        bool conflict = p->exists && p->if_absent;
        if (rc == RC_OK)
            assert_int_equal(now, 'n');
        else if (rc == RC_CONFLICT)
            assert_true(conflict);
        else if (rc != RC_IO)
            assert_int_equal(now, before); /* IO: may or may not have happened */
        if (conflict) assert_int_equal(now, 'o');
        assert_true(now == before || now == 'n');
        if (rc != RC_OK) assert_non_null(strstr(text, "a/b/"));
        /* The same put again, as a caller would. */
        if (rc != RC_OK && !conflict) {
            rc = put(new_bytes, sizeof new_bytes, p->if_absent);
            assert_true(rc == RC_OK || (rc == RC_CONFLICT && p->if_absent && now == 'n'));
            assert_int_equal(look(), 'n');
        }
        clear();
        if (!fired) break;
        steps++;
        bool matters = conflict ? now != 'o' : rc_first != RC_OK;
        assert_int_equal(buf_printf(&trace, &err, "%s%c ", step, matters ? '!' : '~'), RC_OK);
    }
    print_message("%s: %u steps\n", p->name, steps);
    assert_int_equal(buf_append(&trace, "", 1, &err), RC_OK);
    if (class == FAULT_SYSCALL) assert_string_equal((char *)trace.data, p->trace);
    /* A create of what exists stops before it needs memory. */
    assert_true(steps > 0 || (class == FAULT_ALLOC && p->exists && p->if_absent));
}

/* The first mkdir is that of /tmp, which is there. */
#define NEW_FOLDERS                                                                                \
    "open! mkdir~ mkdir! open! fsync! mkdir! open! fsync! mkdir! open! fsync! open! "
#define SEALED "pwrite! pwrite! pwrite! futimens! fsync! "
#define FOLDER "fstat! open! fsync! "

static const struct plan plans[] = {
    {"put into new folders", false, false, NEW_FOLDERS "opendir~ stat~ " SEALED "rename! " FOLDER},
    {"create in new folders", false, true,
     "stat~ " NEW_FOLDERS "opendir~ stat~ " SEALED "rename_new! " FOLDER},
    {"overwrite", true, false, "open! opendir~ stat~ " SEALED "rename! " FOLDER},
    {"create what exists", true, true, "stat~ "},
};

static void test_file_put_syscalls(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++)
        sweep_put(dir, FAULT_SYSCALL, &plans[i]);
}

static void test_file_put_allocations(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++)
        sweep_put(dir, FAULT_ALLOC, &plans[i]);
}

/* From the n-th step on all fail: then nobody can delete the temporary file either, but nothing
 * may be lost or half there, and the next sweep must know the file as temporary. */
static void test_file_put_sticky(void **state)
{
    (void)state;
    unsigned fd_count = count_names("/proc/self/fd", false);
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        fresh(dir);
        assert_int_equal(put(old_bytes, sizeof old_bytes, false), RC_OK);
        fault_arm(FAULT_SYSCALL, nth, true);
        enum rc rc = put(new_bytes, sizeof new_bytes, false);
        fired = fault_fired();
        fault_arm(0, 0, false);
        assert_int_equal(count_names("/proc/self/fd", false), fd_count);
        char now = look();
        assert_true(rc == RC_OK ? now == 'n' : now == 'o' || (rc == RC_IO && now == 'n'));
        clear();
    }
}

static enum rc count_key(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    (*(unsigned *)ctx)++;
    return RC_OK;
}

/* Reads and lists: an honest failure, or the whole answer. */
static void test_file_reads(void **state)
{
    (void)state;
    static const unsigned classes[] = {FAULT_SYSCALL, FAULT_ALLOC};
    unsigned fd_count = count_names("/proc/self/fd", false);
    fresh(dir);
    assert_int_equal(put(old_bytes, sizeof old_bytes, false), RC_OK);
    for (size_t c = 0; c < 2; c++) {
        for (int what = 0; what < 3; what++) {
            unsigned steps = 0;
            for (uint64_t nth = 1;; nth++, steps++) {
                size_t used = 0;
                unsigned keys = 0;
                enum rc rc;
                fault_arm(classes[c], nth, false);
                if (what == 0)
                    rc = store_get(store, NULL, "a/b/k", NULL, append, &used, &err);
                else if (what == 1)
                    rc = store_read(store, NULL, "a/b/k", 9, got_bytes, 99, &err);
                else
                    rc = store_list(store, NULL, "", NULL, count_key, &keys, &err);
                bool fired = fault_fired();
                fault_arm(0, 0, false);
                assert_int_equal(rc == RC_OK, !fired);
                assert_int_not_equal(rc, RC_NOT_FOUND);
                assert_int_equal(count_names("/proc/self/fd", false), fd_count);
                if (fired) continue;
                if (what == 0) assert_int_equal(used, sizeof old_bytes);
                if (what == 2) assert_int_equal(keys, 1);
                break;
            }
            /* A small read needs no memory. */
            assert_int_equal(steps == 0, what == 1 && classes[c] == FAULT_ALLOC);
        }
    }
    clear();
}

static void test_file_delete(void **state)
{
    (void)state;
    const char *key = "a/b/k";
    fresh(dir);
    assert_int_equal(put(old_bytes, sizeof old_bytes, false), RC_OK);
    fault_arm(FAULT_SYSCALL, 1, false);
    assert_int_not_equal(store_del(store, NULL, &key, 1, &err), RC_OK);
    assert_true(fault_fired());
    assert_int_equal(look(), 'o');
    assert_int_equal(store_del(store, NULL, &key, 1, &err), RC_OK);
    assert_int_equal(look(), '-');
    fault_arm(0, 0, false);
    clear();
}

static void test_mem_allocations(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct store *keep = NULL; /* so that the shared store outlives handles, then goes */
        for (uint64_t nth = 1;; nth++) {
            assert_int_equal(store_open("mem://sweep", &keep, &err), RC_OK);
            fresh("mem://sweep");
            if (plans[i].exists) assert_int_equal(put(old_bytes, sizeof old_bytes, false), RC_OK);
            char before = look();
            fault_arm(FAULT_ALLOC, nth, false);
            enum rc rc = put(new_bytes, sizeof new_bytes, plans[i].if_absent);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            if (fired) assert_int_equal(rc, RC_NO_MEM);
            assert_int_equal(look(), rc == RC_OK ? 'n' : before);
            store_close(store);
            store_close(keep);
            if (!fired) break;
        }
    }
}

struct stream {
    size_t done;
};

static enum rc stream_next(void *ctx, void *dst, size_t size, size_t *ret_size, struct err *e)
{
    struct stream *st = ctx;
    (void)e;
    *ret_size = sizeof new_bytes - st->done < size ? sizeof new_bytes - st->done : size;
    memcpy(dst, new_bytes + st->done, *ret_size);
    st->done += *ret_size;
    return RC_OK;
}

/* A body of unknown size on its way through a temporary file: with a full disk or without memory
 * the old object stays as it is, and no descriptor is left. */
static void test_spool(void **state)
{
    (void)state;
    const unsigned classes[] = {FAULT_ALLOC, FAULT_SYSCALL};
    for (unsigned c = 0; c < 2; c++) {
        unsigned steps = 0, fd_count = count_names("/proc/self/fd", false);
        for (uint64_t nth = 1;; nth++, steps++) {
            struct stream st = {0};
            struct store_body body = {.size = STORE_SIZE_UNKNOWN, .next = stream_next, .ctx = &st};
            fresh("mem://spool-sweep");
            assert_false(store_can(store, STORE_CAP_STREAM));
            assert_int_equal(put(old_bytes, sizeof old_bytes, false), RC_OK);
            fault_arm(classes[c], nth, true);
            enum rc rc = store_put(store, NULL, "a/b/k", &body, NULL, NULL, &err);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            assert_int_equal(count_names("/proc/self/fd", false), fd_count);
            assert_int_equal(rc == RC_OK, !fired);
            if (fired && strstr(err.text, "temporary file") == NULL)
                assert_non_null(strstr(err.text, "a/b/k"));
            assert_int_equal(look(), fired ? 'o' : 'n');
            store_close(store);
            if (!fired) break;
        }
        assert_true(steps > 0);
    }
}

static void test_open(void **state)
{
    (void)state;
    static const char *const urls[] = {"/tmp/x", "file:///tmp/x", "mem://", "mem://open"};
    for (size_t i = 0; i < 4; i++) {
        for (uint64_t nth = 1;; nth++) {
            struct store *s = NULL;
            fault_arm(FAULT_ALLOC, nth, false);
            enum rc rc = store_open(urls[i], &s, &err);
            bool fired = fault_fired();
            fault_arm(0, 0, false);
            assert_int_equal(rc, fired ? RC_NO_MEM : RC_OK);
            assert_int_equal(s != NULL, rc == RC_OK);
            store_close(s);
            if (!fired) break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_put_syscalls),
        cmocka_unit_test(test_file_put_allocations),
        cmocka_unit_test(test_file_put_sticky),
        cmocka_unit_test(test_file_reads),
        cmocka_unit_test(test_file_delete),
        cmocka_unit_test(test_mem_allocations),
        cmocka_unit_test(test_spool),
        cmocka_unit_test(test_open),
    };
    snprintf(dir, sizeof dir, "/tmp/sluice-sweep-%d", (int)getpid());
    memset(old_bytes, 'o', sizeof old_bytes);
    memset(new_bytes, 'n', sizeof new_bytes);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
