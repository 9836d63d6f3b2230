/* bed.c -- see bed.h. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/log.h"
#include "base/mem.h"
#include "log/restore.h"
#include "node/bed.h"
#include "store/driver.h"

struct spy spy;

/* The application is in this process, and its SQLite changes the wal-index, which is shared memory
 * without locks, under our eyes; and it runs when the daemon sets SQLite's global settings. Neither
 * happens outside of these tests. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:source_index\nrace:unixSetSystemCall\nrace:unixRandomness\nrace:^wal[A-Z]\n"
           "race:^sqlite3Wal\n";
}

struct spy_store {
    struct store base;
    struct store_ops ops;
    struct store *inner;
};
static char mem_url[112]; /* not "": replicas are there */

/* The linker sends calls of config_replica_open here. */
enum rc __real_config_replica_open(const struct config_replica *r, struct store **ret_store,
                                   struct err *err);
enum rc __wrap_config_replica_open(const struct config_replica *r, struct store **ret_store,
                                   struct err *err);

static enum rc make_spy(struct store *inner, struct store **ret_store, struct err *err);
static void spy_close(struct store *s);
static enum rc spy_put(struct store *s, const struct call *c, const char *key,
                       const struct store_body *body, const struct store_put_opts *opts,
                       struct store_obj *ret_obj, struct err *err);
static enum rc spy_get(struct store *s, const struct call *c, const char *key,
                       const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                       struct err *err);
static enum rc spy_list(struct store *s, const struct call *c, const char *prefix,
                        const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                        struct err *err);
static enum rc spy_del(struct store *s, const struct call *c, const char *key, struct err *err);
static void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void read_file(const char *path, struct bytes *ret);
static void image(struct bed *b, struct bytes *ret);
static int count_fds(const char *path);
static struct log peek_log(struct bed *b);
static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err);
static int64_t run_trim(struct sched_job *job, void *worker);

void bed_new(struct bed *b, enum bed_kind kind, const char *extra)
{
    struct err err;
    memset(b, 0, sizeof *b);
    spy = (struct spy){0};
    b->kind = kind;
    snprintf(b->dir, sizeof b->dir, "/tmp/sluice-node-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->path, sizeof b->path, "%s/app.db", b->dir);
    snprintf(b->meta, sizeof b->meta, "%s/.app.db-sluice", b->dir);
    snprintf(b->replica, sizeof b->replica, "%s/replica", b->dir);
    snprintf(b->url, sizeof b->url, kind == BED_MEM ? "mem://%s" : "%s", b->replica);
    snprintf(mem_url, sizeof mem_url, "%s", kind == BED_MEM ? b->url : "");
    const char *level = getenv("SLUICE_TEST_LOG");
    log_setup(level != NULL ? LOG_DEBUG : LOG_ERROR + 1, LOG_TYPE_TEXT, STDERR_FILENO);
    source_global_init();
    bed_config(b, extra);
    assert_int_equal(store_open(b->url, &b->peek, &err), RC_OK);
    assert_int_equal(batch_scratch_new(&b->scratch, &err), RC_OK);
}

void bed_config(struct bed *b, const char *extra)
{
    char text[1024];
    struct err err = {0};
    config_free(b->cfg);
    int n = snprintf(text, sizeof text,
                     "shutdown-sync-timeout: 300ms\nshutdown-sync-interval: 20ms\n"
                     "dbs:\n  - path: %s\n%s    replica: {path: %s, sync-interval: 10ms}\n",
                     b->path, extra, b->replica);
    if (config_parse(text, (size_t)n, "test.yml", &b->cfg, &err) != RC_OK) fail_msg("%s", err.text);
}

void bed_free(struct bed *b)
{
    bed_task_close(b);
    if (b->app != NULL) bed_app_close(b);
    batch_scratch_free(b->scratch);
    store_close(b->peek);
    config_free(b->cfg);
    mem_url[0] = '\0';
    shell("rm -rf '%s'", b->dir);
}

void bed_app_open(struct bed *b, const char *setup_sql)
{
    assert_int_equal(sqlite3_open(b->path, &b->app), SQLITE_OK);
    sqlite3_busy_timeout(b->app, 5000);
    if (setup_sql != NULL) bed_sql(b, "%s", setup_sql);
}

void bed_app_close(struct bed *b)
{
    assert_int_equal(sqlite3_close(b->app), SQLITE_OK);
    b->app = NULL;
}

void bed_sql(struct bed *b, const char *fmt, ...)
{
    va_list ap;
    char *msg = NULL;
    va_start(ap, fmt);
    char *sql = sqlite3_vmprintf(fmt, ap);
    va_end(ap);
    if (sqlite3_exec(b->app, sql, NULL, NULL, &msg) != SQLITE_OK) fail_msg("%s: %s", sql, msg);
    sqlite3_free(sql);
}

void bed_rows(struct bed *b, int count)
{
    for (int i = 0; i < count; i++)
        bed_sql(b, "INSERT INTO t(v) VALUES(randomblob(300))");
}

void bed_delete_db(struct bed *b)
{
    assert_null(b->app);
    shell("rm -f '%s' '%s-wal' '%s-shm'", b->path, b->path, b->path);
}

void bed_task_open(struct bed *b)
{
    struct err err = {0};
    const struct task_pools *pools = b->pools.capture ? &b->pools : NULL;
    if (task_new(b->cfg, &b->cfg->dbs[0], pools, &b->task, &err) != RC_OK) fail_msg("%s", err.text);
}

void bed_task_close(struct bed *b)
{
    task_free(b->task);
    b->task = NULL;
}

enum rc bed_once(struct bed *b, bool snapshot, struct err *err)
{
    if (b->task == NULL) TRY(task_new(b->cfg, &b->cfg->dbs[0], NULL, &b->task, err));
    return task_once(b->task, b->scratch, NULL, snapshot, err);
}

void bed_once_ok(struct bed *b)
{
    struct err err = {0};
    if (bed_once(b, false, &err) != RC_OK) fail_msg("%s", err.text);
}

enum rc bed_scratch_new(void **ret_worker, struct err *err)
{
    struct batch_scratch *s;
    TRY(batch_scratch_new(&s, err));
    *ret_worker = s;
    return RC_OK;
}

void bed_scratch_free(void *worker)
{
    batch_scratch_free(worker);
}

void bed_block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void bed_pools_start(struct bed *b, int64_t sleep_after_ms)
{
    struct err err;
    b->trim.run = run_trim;
    b->pools.trim = &b->trim;
    b->pools.sleep_after_ms = sleep_after_ms;
    assert_int_equal(bell_new(task_ring, &b->pools.bell, &err), RC_OK);
    assert_int_equal(sched_new("upload", 1, NULL, NULL, &b->pools.upload, &err), RC_OK);
    assert_int_equal(
        sched_new("capture", 2, bed_scratch_new, bed_scratch_free, &b->pools.capture, &err), RC_OK);
    bed_task_open(b);
    assert_int_equal(task_start(b->task, &err), RC_OK);
}

void bed_pools_stop(struct bed *b)
{
    sched_stop(b->pools.capture);
    sched_stop(b->pools.upload);
    bell_free(b->pools.bell);
    sched_free(b->pools.capture);
    sched_free(b->pools.upload);
    b->pools = (struct task_pools){0};
    bed_task_close(b);
}

uint64_t bed_newest(struct bed *b)
{
    struct log lg = peek_log(b);
    struct log_files files = {0};
    struct err err;
    uint64_t newest = 0;
    assert_int_equal(log_list(&lg, NULL, 0, &files, &err), RC_OK);
    for (size_t i = 0; i < files.count; i++) {
        assert_int_equal(files.items[i].txid_min, files.items[i].txid_max);
        if (i > 0) assert_int_equal(files.items[i].txid_min, newest + 1);
        newest = files.items[i].txid_max;
    }
    log_files_fini(&files);
    return newest;
}

size_t bed_count_level(struct bed *b, uint32_t level)
{
    struct log lg = peek_log(b);
    struct log_files files = {0};
    struct err err;
    assert_int_equal(log_list(&lg, NULL, level, &files, &err), RC_OK);
    size_t count = files.count;
    log_files_fini(&files);
    return count;
}

void bed_object(struct bed *b, uint32_t level, uint64_t txid_min, uint64_t txid_max,
                struct bytes *ret)
{
    struct log lg = peek_log(b);
    char key[STORE_KEY_MAX + 1];
    struct err err = {0};
    *ret = (struct bytes){0};
    log_key(&lg, level, txid_min, txid_max, key);
    if (store_get(b->peek, NULL, key, NULL, take_bytes, ret, &err) != RC_OK)
        fail_msg("%s", err.text);
}

void bed_delete_objects(struct bed *b, uint64_t after_txid)
{
    struct log lg = peek_log(b);
    struct log_files files = {0};
    char key[STORE_KEY_MAX + 1];
    const char *keys[] = {key};
    struct err err;
    assert_int_equal(log_list_all(&lg, NULL, &files, &err), RC_OK);
    for (size_t i = 0; i < files.count; i++) {
        const struct log_file *f = &files.items[i];
        if (f->txid_max <= after_txid) continue;
        log_key(&lg, f->level, f->txid_min, f->txid_max, key);
        assert_int_equal(store_del(b->peek, NULL, keys, 1, &err), RC_OK);
    }
    log_files_fini(&files);
}

size_t bed_staged(struct bed *b, uint64_t *ret_first, uint64_t *ret_last)
{
    char folder[160];
    size_t count = 0;
    snprintf(folder, sizeof folder, "%s/ltx", b->meta);
    *ret_first = *ret_last = 0;
    DIR *d = opendir(folder);
    if (d == NULL) return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        uint64_t txid;
        if (strstr(e->d_name, ".staged") == NULL) continue;
        assert_int_equal(sscanf(e->d_name, "%16" SCNx64 ".staged", &txid), 1);
        if (count == 0 || txid < *ret_first) *ret_first = txid;
        if (txid > *ret_last) *ret_last = txid;
        count++;
    }
    closedir(d);
    return count;
}

void bed_staged_bytes(struct bed *b, uint64_t txid, struct bytes *ret)
{
    char path[192];
    snprintf(path, sizeof path, "%s/ltx/%016" PRIx64 ".staged", b->meta, txid);
    read_file(path, ret);
    assert_true(ret->size > STATE_FOOTER_SIZE);
    ret->size -= STATE_FOOTER_SIZE;
}

void bed_check_restore(struct bed *b)
{
    char out[128];
    struct bytes now, restored;
    struct restore_result res;
    struct err err = {0};
    struct log lg = peek_log(b);
    snprintf(out, sizeof out, "%s/restored.db", b->dir);
    shell("rm -f '%s'*", out);
    const struct restore_opts opts = {.out_path = out};
    if (restore_run(&lg, NULL, &opts, &res, &err) != RC_OK) fail_msg("restore: %s", err.text);
    assert_true(res.digest_checked);
    image(b, &now);
    read_file(out, &restored);
    assert_int_equal(restored.size, now.size);
    assert_int_equal(memcmp(restored.data, now.data, now.size), 0);
    free(now.data);
    free(restored.data);
}

bool bed_restore_is_current(struct bed *b)
{
    char out[128];
    struct bytes now, restored;
    struct restore_result res;
    struct err err;
    struct log lg = peek_log(b);
    snprintf(out, sizeof out, "%s/restored.db", b->dir);
    shell("rm -f '%s'*", out);
    const struct restore_opts opts = {.out_path = out};
    if (restore_run(&lg, NULL, &opts, &res, &err) != RC_OK) return false;
    image(b, &now);
    read_file(out, &restored);
    bool same = restored.size == now.size && memcmp(restored.data, now.data, now.size) == 0;
    free(now.data);
    free(restored.data);
    return same;
}

int bed_open_fds(const struct bed *b)
{
    return count_fds(b->path);
}

/* Of the state, only the lock is open. */
bool bed_asleep(const struct bed *b)
{
    return count_fds(b->meta) == 1;
}

/* ---- the spy ---- */

enum rc __wrap_config_replica_open(const struct config_replica *r, struct store **ret_store,
                                   struct err *err)
{
    struct store *s;
    if (mem_url[0] != '\0')
        TRY(store_open(mem_url, &s, err));
    else
        TRY(__real_config_replica_open(r, &s, err));
    if (spy.faults) {
        struct store *inner = s;
        if (store_fault_new(inner, &s, err) != RC_OK) return store_close(inner), err->rc;
        store_fault_mode(s, spy.fault_loses ? STORE_FAULT_LOSE : STORE_FAULT_REFUSE);
    }
    return make_spy(s, ret_store, err);
}

static enum rc make_spy(struct store *inner, struct store **ret_store, struct err *err)
{
    struct spy_store *p = calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "a spy");
    p->inner = inner;
    p->ops = *inner->ops;
    if (spy.no_create) p->ops.caps &= ~(uint32_t)STORE_CAP_CREATE;
    p->ops.close = spy_close;
    p->ops.put = spy_put;
    p->ops.get = spy_get;
    p->ops.list = spy_list;
    p->ops.del = spy_del;
    p->ops.del_many = NULL;
    store_init(&p->base, &p->ops, "%s", inner->name);
    *ret_store = &p->base;
    return RC_OK;
}

static void spy_close(struct store *s)
{
    struct spy_store *p = (struct spy_store *)s;
    store_close(p->inner);
    free(p);
}

static enum rc refuse_all(struct err *err)
{
    atomic_fetch_add(&spy.calls, 1);
    if (atomic_load(&spy.mode) != SPY_REFUSE_ALL) return RC_OK;
    return err_set(err, RC_AGAIN, "the store is away");
}

static enum rc spy_put(struct store *s, const struct call *c, const char *key,
                       const struct store_body *body, const struct store_put_opts *opts,
                       struct store_obj *ret_obj, struct err *err)
{
    struct store *inner = ((struct spy_store *)s)->inner;
    TRY(refuse_all(err));
    while (atomic_load(&spy.mode) == SPY_HANG_PUT) {
        TRY(call_check(c, err));
        os_sleep_ms(1);
    }
    int mode = atomic_load(&spy.mode);
    if (mode == SPY_REFUSE_PUT) return err_set(err, RC_AGAIN, "put '%s': refused", key);
    TRY(inner->ops->put(inner, c, key, body, opts, ret_obj, err));
    atomic_fetch_add(&spy.puts, 1);
    if (mode == SPY_LOSE_PUT) return err_set(err, RC_AGAIN, "put '%s': no answer", key);
    return RC_OK;
}

static enum rc spy_get(struct store *s, const struct call *c, const char *key,
                       const struct store_get_opts *opts, store_sink_fn *sink, void *ctx,
                       struct err *err)
{
    struct store *inner = ((struct spy_store *)s)->inner;
    TRY(refuse_all(err));
    return inner->ops->get(inner, c, key, opts, sink, ctx, err);
}

static enum rc spy_list(struct store *s, const struct call *c, const char *prefix,
                        const struct store_list_opts *opts, store_list_fn *fn, void *ctx,
                        struct err *err)
{
    struct store *inner = ((struct spy_store *)s)->inner;
    atomic_fetch_add(&spy.lists, 1);
    TRY(refuse_all(err));
    return inner->ops->list(inner, c, prefix, opts, fn, ctx, err);
}

static enum rc spy_del(struct store *s, const struct call *c, const char *key, struct err *err)
{
    struct store *inner = ((struct spy_store *)s)->inner;
    TRY(refuse_all(err));
    return inner->ops->del(inner, c, key, err);
}

/* ---- small things ---- */

static void shell(const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    if (system(cmd) != 0) fail_msg("%s", cmd);
}

static void read_file(const char *path, struct bytes *ret)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail_msg("cannot open '%s'", path);
    assert_int_equal(fstat(fd, &st), 0);
    ret->size = (size_t)st.st_size;
    ret->data = malloc(ret->size + 1);
    assert_int_equal(read(fd, ret->data, ret->size), (ssize_t)ret->size);
    close(fd);
}

/* In a copy, which cp makes: descriptors of this process would take SQLite's locks away. */
static void image(struct bed *b, struct bytes *ret)
{
    char copy[128];
    sqlite3 *db;
    snprintf(copy, sizeof copy, "%s/copy.db", b->dir);
    shell("rm -f %s*; cp %s %s; test ! -e %s-wal || cp %s-wal %s-wal", copy, b->path, copy, b->path,
          b->path, copy);
    assert_int_equal(sqlite3_open(copy, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", 0, 0, 0), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    read_file(copy, ret);
}

static int count_fds(const char *path)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        char link[64], to[256];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, to, sizeof to - 1);
        if (n <= 0) continue;
        to[n] = '\0';
        count += strncmp(to, path, strlen(path)) == 0;
    }
    return count;
}

static struct log peek_log(struct bed *b)
{
    return (struct log){.store = b->peek};
}

static enum rc take_bytes(void *ctx, const void *data, size_t size, struct err *err)
{
    struct bytes *out = ctx;
    (void)err;
    out->data = realloc(out->data, out->size + size + 1);
    memcpy(out->data + out->size, data, size);
    out->size += size;
    return RC_OK;
}

static int64_t run_trim(struct sched_job *job, void *worker)
{
    struct bed *b = (struct bed *)((char *)job - offsetof(struct bed, trim));
    (void)worker;
    atomic_fetch_add(&b->trims, 1);
    mem_trim();
    return SCHED_NEVER;
}
