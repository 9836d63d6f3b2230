/*
 * replicate.c -- start, run and stop replication; see task.c for what happens to one database.
 *
 * - Start: restore what is missing, open every database's state (refuse if another process has it),
 *   start the pools and the bell, let every capture job run once.
 * - Run: the main thread waits for signals and for the child.
 * - Stop: end the pools, then capture and upload once more, within the shutdown timeout.
 */
#include "node/replicate.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include "base/log.h"
#include "base/mem.h"
#include "log/restore.h"
#include "node/counts.h"
#include "node/exec.h"
#include "node/metrics.h"
#include "node/task.h"

#define UPLOAD_THREADS_MAX 16     /* of one service */
#define FINAL_THREADS      4      /* of one service, at the end */
#define SERVICES_MAX       16     /* those that are more share threads with others */
#define LAST_ATTEMPT_MS    120000 /* limit of a single attempt, when there is only one */
#define HURRY_LOOK_MS      20

/* What one service is asked for has threads of its own: when it hangs, the others do not wait. */
struct service {
    struct node *n;
    char *name;
    size_t db_count;
    struct task_outage outage;
    struct sched *upload;
    pthread_t final;
    bool final_runs;
};

struct node {
    const struct config *cfg;
    const struct node_opts *opts;
    struct task **tasks;
    size_t task_count;
    struct service services[SERVICES_MAX];
    size_t service_count;
    unsigned char *service_of; /* by index of the database */
    struct task_pools pools;   /* less `upload` */
    struct sched_job trim_job;
    struct metrics *metrics; /* NULL: no addr */
    pid_t child;             /* 0: none */
    atomic_bool hurry;       /* stop waiting for the store */
    int64_t end_ms;          /* of the shutdown */
    atomic_bool ended;

    pthread_mutex_t lock;
    size_t failed;         /* [lock] databases whose final sync failed */
    struct err first_fail; /* [lock] */
};

static enum rc open_tasks(struct node *n, struct err *err);
static void close_tasks(struct node *n);
static void log_counts(struct node *n);
static enum rc metrics_page(void *ctx, struct buf *out, struct err *err);
static enum rc restore_missing(const struct config_db *db, struct err *err);
static enum rc run_once(struct node *n, struct err *err);
static enum rc run_until_signal(struct node *n, const sigset_t *set, struct err *err);
static enum rc find_services(struct node *n, struct err *err);
static enum rc start_pools(struct node *n, struct err *err);
static void stop_pools(struct node *n);
static enum rc wait_for_end(struct node *n, const sigset_t *set, struct err *err);
static enum rc reap_child(struct node *n, struct err *err);
static enum rc shut_down(struct node *n, struct err *err);
static void *watch_shutdown(void *arg);
static enum rc final_sync(struct node *n, struct err *err);
static void *final_sync_service(void *arg);
static enum rc final_sync_nth(void *ctx, uint64_t i, struct err *err);
static enum rc final_sync_one(struct node *n, struct task *t, struct batch_scratch *s,
                              struct err *err);

enum rc node_replicate(const struct config *cfg, const struct node_opts *opts, struct err *err)
{
    struct node n = {.cfg = cfg, .opts = opts, .lock = PTHREAD_MUTEX_INITIALIZER};
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    os_raise_fd_limit();
    source_global_init();
    /* Until there is something to shut down, a signal just ends the process. Threads block all. */
    enum rc rc = open_tasks(&n, err);
    pthread_sigmask(opts->once ? SIG_UNBLOCK : SIG_BLOCK, &set, &old);
    if (rc == RC_OK) rc = opts->once ? run_once(&n, err) : run_until_signal(&n, &set, err);
    close_tasks(&n);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static enum rc open_tasks(struct node *n, struct err *err)
{
    if (n->cfg->db_count == 0) log_warn("no databases are configured");
    n->tasks = mem_calloc(n->cfg->db_count, sizeof *n->tasks);
    if (n->tasks == NULL) return err_mem(err, "the databases");
    if (!n->opts->once) TRY(start_pools(n, err));
    for (size_t i = 0; i < n->cfg->db_count; i++) {
        const struct config_db *db = &n->cfg->dbs[i];
        if (n->opts->restore_if_missing || db->restore_if_db_not_exists)
            TRY(restore_missing(db, err));
        struct task_pools pools = n->pools;
        if (!n->opts->once) {
            struct service *s = &n->services[n->service_of[i]];
            pools.upload = s->upload;
            pools.outage = &s->outage;
        }
        TRY(task_new(n->cfg, db, n->opts->once ? NULL : &pools, &n->tasks[i], err));
        n->task_count = i + 1;
    }
    return RC_OK;
}

static void close_tasks(struct node *n)
{
    metrics_stop(n->metrics);
    stop_pools(n);
    log_counts(n);
    for (size_t i = 0; i < n->task_count; i++)
        task_free(n->tasks[i]);
    for (size_t i = 0; i < n->service_count; i++)
        mem_free(n->services[i].name);
    mem_free(n->service_of);
    mem_free(n->tasks);
}

/* The bill, by type of store. */
static void log_counts(struct node *n)
{
    struct counts c;
    counts_sum(n->tasks, n->task_count, &c);
    for (size_t i = 0; i < c.type_count; i++) {
        char ops[STORE_OP_COUNT][24], up[32], down[32];
        const struct store_stats *s = &c.types[i].stats;
        for (int op = 0; op < STORE_OP_COUNT; op++)
            snprintf(ops[op], sizeof ops[op], "%" PRIu64, s->requests[op]);
        size_put(s->bytes_up, up);
        size_put(s->bytes_down, down);
        log_info("requests to stores", "type", c.types[i].type, "put", ops[STORE_OP_PUT], "get",
                 ops[STORE_OP_GET], "list", ops[STORE_OP_LIST], "delete", ops[STORE_OP_DEL],
                 "other", ops[STORE_OP_OTHER], "sent", up, "received", down);
    }
}

static enum rc metrics_page(void *ctx, struct buf *out, struct err *err)
{
    struct node *n = ctx;
    struct counts c;
    counts_sum(n->tasks, n->task_count, &c);
    return counts_page(&c, out, err);
}

static enum rc restore_missing(const struct config_db *db, struct err *err)
{
    struct stat st;
    struct store *store = NULL;
    struct restore_result res;
    const struct restore_opts opts = {.out_path = db->path, .mode = 0644}; /* less the umask */
    if (os_stat(db->path, &st, err) == RC_OK) {
        log_info("database already exists, skipping restore", "db", db->path);
        return RC_OK;
    }
    TRY(config_replica_open(&db->replica, &store, err));
    const struct log lg = {.store = store};
    enum rc rc = restore_run(&lg, NULL, &opts, &res, err);
    store_close(store);
    if (rc == RC_NOT_FOUND) {
        log_info("no backup to restore, starting with what the application creates", "db",
                 db->path);
        return RC_OK;
    }
    if (rc != RC_OK) return err_wrap(err, "restore '%s'", db->path);
    log_info("restored from the replica", "db", db->path);
    return RC_OK;
}

static enum rc run_once(struct node *n, struct err *err)
{
    void *scratch = NULL;
    TRY(batch_worker_new(&scratch, err));
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n->task_count && rc == RC_OK; i++) {
        rc = task_once(n->tasks[i], scratch, NULL, n->opts->force_snapshot, err);
        if (rc == RC_OK)
            log_info("replicated", "db", task_path(n->tasks[i]));
        else
            err_wrap(err, "replicate '%s'", task_path(n->tasks[i]));
    }
    batch_worker_free(scratch);
    return rc;
}

static enum rc run_until_signal(struct node *n, const sigset_t *set, struct err *err)
{
    if (n->cfg->addr[0] != '\0') {
        TRY(metrics_start(n->cfg->addr, metrics_page, n, &n->metrics, err));
        log_info("serving metrics", "addr", n->cfg->addr, "path", "/metrics");
    }
    for (size_t i = 0; i < n->task_count; i++)
        TRY(task_start(n->tasks[i], err));
    if (n->opts->exec_cmd != NULL && n->opts->exec_cmd[0] != '\0')
        TRY(exec_start(n->opts->exec_cmd, &n->child, err));
    struct err child_err;
    enum rc rc = wait_for_end(n, set, &child_err);
    enum rc last = shut_down(n, err);
    if (last != RC_OK) return last;
    if (rc != RC_OK) *err = child_err;
    return rc;
}

static int64_t run_trim(struct sched_job *job, void *worker)
{
    (void)job, (void)worker;
    mem_trim();
    return SCHED_NEVER;
}

/* Who talks to whom. */
static enum rc find_services(struct node *n, struct err *err)
{
    char name[CONFIG_SERVICE_MAX];
    n->service_of = mem_calloc(n->cfg->db_count, sizeof *n->service_of);
    if (n->service_of == NULL) return err_mem(err, "the databases");
    for (size_t i = 0; i < n->cfg->db_count; i++) {
        config_replica_service(&n->cfg->dbs[i].replica, name);
        size_t at = 0;
        while (at < n->service_count && strcmp(n->services[at].name, name) != 0)
            at++;
        if (at == SERVICES_MAX) {
            at = i % SERVICES_MAX;
        } else if (at == n->service_count) {
            struct service *s = &n->services[at];
            *s = (struct service){.n = n, .name = mem_strdup(name), .outage = TASK_OUTAGE_INIT};
            if (s->name == NULL) return err_mem(err, "the services");
            n->service_count++;
        }
        n->services[at].db_count++;
        n->service_of[i] = (unsigned char)at;
    }
    return RC_OK;
}

static enum rc start_pools(struct node *n, struct err *err)
{
    size_t captures = (size_t)os_cpu_count();
    if (captures > n->cfg->db_count) captures = n->cfg->db_count;
    n->trim_job.run = run_trim;
    n->pools.trim = &n->trim_job;
    n->pools.cancel = &n->hurry;
    TRY(bell_new(task_ring, &n->pools.bell, err));
    TRY(find_services(n, err));
    for (size_t i = 0; i < n->service_count; i++) {
        struct service *s = &n->services[i];
        size_t threads = s->db_count < UPLOAD_THREADS_MAX ? s->db_count : UPLOAD_THREADS_MAX;
        TRY(sched_new("upload", (unsigned)threads, NULL, NULL, &s->upload, err));
    }
    return sched_new("capture", (unsigned)captures, batch_worker_new, batch_worker_free,
                     &n->pools.capture, err);
}

/* The bell rings into the pools and jobs arm the bell: first all threads end, then all is freed. */
static void stop_pools(struct node *n)
{
    if (n->pools.capture != NULL) sched_stop(n->pools.capture);
    for (size_t i = 0; i < n->service_count; i++)
        if (n->services[i].upload != NULL) sched_stop(n->services[i].upload);
    bell_free(n->pools.bell);
    sched_free(n->pools.capture);
    for (size_t i = 0; i < n->service_count; i++) {
        sched_free(n->services[i].upload);
        n->services[i].upload = NULL;
    }
    n->pools = (struct task_pools){0};
}

static enum rc wait_for_end(struct node *n, const sigset_t *set, struct err *err)
{
    enum rc rc = RC_OK;
    bool ending = false;
    while (!ending || n->child != 0) {
        int sig = sigwaitinfo(set, NULL);
        if (sig < 0) continue;
        if (sig == SIGCHLD) {
            if (n->child == 0) continue; /* what a shell left us before it became us */
            enum rc child_rc = reap_child(n, err);
            if (n->child != 0) continue;
            if (!ending) log_info("the command has ended, shutting down");
            /* A command that we told to end may say so by its status. */
            if (!ending) rc = child_rc;
            return rc;
        }
        log_info("signal received, shutting down", "signal", strsignal(sig));
        if (n->child != 0) kill(n->child, sig);
        if (ending) break;
        ending = true;
    }
    return rc;
}

static enum rc reap_child(struct node *n, struct err *err)
{
    int status;
    if (n->child == 0 || waitpid(n->child, &status, WNOHANG) != n->child) return RC_OK;
    n->child = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return RC_OK;
    if (WIFEXITED(status))
        return err_set(err, RC_IO, "the command exited with status %d", WEXITSTATUS(status));
    return err_set(err, RC_IO, "the command was ended by signal %d", WTERMSIG(status));
}

/* However many databases there are and whatever the store does, it ends in time. */
static enum rc shut_down(struct node *n, struct err *err)
{
    int64_t limit = n->cfg->shutdown_sync_timeout_ms;
    pthread_t watcher;
    n->end_ms = os_mono_ms() + (limit > 0 ? limit : LAST_ATTEMPT_MS);
    TRY(thr_start(&watcher, "shutdown", watch_shutdown, n, err));
    sched_stop(n->pools.capture);
    enum rc rc = final_sync(n, err);
    atomic_store(&n->ended, true);
    pthread_join(watcher, NULL);
    return rc;
}

/* The time is up, or a second signal came: let go of the store. */
static void *watch_shutdown(void *arg)
{
    struct node *n = arg;
    const struct timespec look = {.tv_nsec = HURRY_LOOK_MS * 1000000};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    while (!atomic_load(&n->ended)) {
        if (sigtimedwait(&set, NULL, &look) > 0 || os_mono_ms() >= n->end_ms)
            atomic_store(&n->hurry, true);
    }
    return NULL;
}

/* All services at once: one that hangs must not use up the time of the others. */
static enum rc final_sync(struct node *n, struct err *err)
{
    for (size_t i = 0; i < n->service_count; i++) {
        struct service *s = &n->services[i];
        struct err ignored; /* then one after the other */
        s->final_runs = i + 1 < n->service_count &&
                        thr_start(&s->final, "final", final_sync_service, s, &ignored) == RC_OK;
    }
    for (size_t i = 0; i < n->service_count; i++)
        if (!n->services[i].final_runs) final_sync_service(&n->services[i]);
    for (size_t i = 0; i < n->service_count; i++)
        if (n->services[i].final_runs) pthread_join(n->services[i].final, NULL);
    if (n->failed == 0) return RC_OK;
    *err = n->first_fail;
    return err_wrap(err, "final sync failed for %zu of %zu databases", n->failed, n->task_count);
}

static void *final_sync_service(void *arg)
{
    struct service *s = arg;
    sched_stop(s->upload);
    struct err ignored; /* final_sync_nth keeps its failures in the node, and never fails */
    if (thr_each(FINAL_THREADS, s->n->task_count, final_sync_nth, s, &ignored) != RC_OK)
        log_error("final sync", "error", ignored.text);
    return NULL;
}

/* The nth database, if it is of this service. */
static enum rc final_sync_nth(void *ctx, uint64_t i, struct err *err)
{
    struct service *s = ctx;
    struct node *n = s->n;
    void *scratch = NULL;
    if (&n->services[n->service_of[i]] != s) return RC_OK;
    enum rc rc = batch_worker_new(&scratch, err);
    if (rc == RC_OK) rc = final_sync_one(n, n->tasks[i], scratch, err);
    if (scratch != NULL) batch_worker_free(scratch);
    if (rc == RC_OK) return RC_OK;
    log_error("final sync failed", "db", task_path(n->tasks[i]), "error", err->text);
    thr_lock(&n->lock);
    if (n->failed++ == 0) n->first_fail = *err;
    thr_unlock(&n->lock);
    return RC_OK;
}

static enum rc final_sync_one(struct node *n, struct task *t, struct batch_scratch *s,
                              struct err *err)
{
    const struct call c = {.cancel = &n->hurry};
    for (;;) {
        struct stat st;
        struct err gone;
        enum rc rc = task_once(t, s, &c, false, err);
        if (rc == RC_OK) return RC_OK;
        if (rc == RC_NOT_FOUND && os_stat(task_path(t), &st, &gone) == RC_NOT_FOUND)
            return RC_OK; /* no database, and all that was known of it is in the store */
        if (rc == RC_CANCELED)
            return err_set(err, RC_CANCELED,
                           "the store has not taken everything when shutdown-sync-timeout was "
                           "over, or a second signal came; the rest waits for the next start");
        if (!rc_retryable(rc) || n->cfg->shutdown_sync_timeout_ms == 0) return rc;
        int64_t next = os_mono_ms() + n->cfg->shutdown_sync_interval_ms;
        while (os_mono_ms() < next && !atomic_load(&n->hurry))
            os_sleep_ms(HURRY_LOOK_MS);
        if (atomic_load(&n->hurry)) return rc;
    }
}
