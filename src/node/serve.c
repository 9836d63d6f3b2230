/*
 * serve.c -- see serve.h.
 *
 * Start: pools and bell, tenants, front ends; in that order, and back at the end: first nobody asks
 * any more, then the logs are stored, then the threads end.
 */
#include "node/serve.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "db/batch.h"
#include "node/tenants.h"
#include "node/task.h"
#include "server/batons.h"
#include "server/server.h"

#define UPLOAD_THREADS 16
#define WRITE_THREADS  8
#define DRAIN_MS       10000 /* for requests that are at work */
#define ROLES_MAX      (1u << 20)
#define FIRST_FD       3 /* of a service manager */

struct serve {
    const struct serve_opts *opts;
    struct sched *capture, *upload, *write;
    struct bell *bell;
    struct tenants *tenants;
    struct server *server;
    struct buf roles;
    uint8_t baton_key[BATON_KEY_SIZE];
    atomic_bool cancel;
    atomic_bool ended;
};

static enum rc start(struct serve *s, struct err *err);
static enum rc start_pools(struct serve *s, struct err *err);
static enum rc start_tenants(struct serve *s, struct err *err);
static enum rc start_server(struct serve *s, struct err *err);
static enum rc fill_auth(struct serve *s, struct auth_opts *auth, struct err *err);
static enum rc check_exposure(const struct serve_opts *o, struct err *err);
static bool is_local(const char *listen);
static enum rc load_baton_key(struct serve *s, struct err *err);
static int passed_sockets(void);
static void announce(struct serve *s);
static void run(struct serve *s, const sigset_t *set);
static enum rc stop(struct serve *s, struct err *err);
static void *watch_stop(void *arg);
static const char *or_null(const char *text);

enum rc node_serve(const struct serve_opts *opts, struct err *err)
{
    struct serve s = {.opts = opts};
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    TRY(check_exposure(opts, err));
    os_raise_fd_limit();
    source_global_init();
    pthread_sigmask(SIG_BLOCK, &set, &old); /* before any thread starts */
    enum rc rc = start(&s, err);
    if (rc == RC_OK) {
        announce(&s);
        run(&s, &set);
    }
    struct err stop_err;
    enum rc stop_rc = stop(&s, &stop_err);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != RC_OK) return rc;
    *err = stop_err;
    return stop_rc;
}

static enum rc start(struct serve *s, struct err *err)
{
    TRY(os_mkdirs(s->opts->data, 0700, err));
    TRY(load_baton_key(s, err));
    TRY(start_pools(s, err));
    TRY(start_tenants(s, err));
    return start_server(s, err);
}

static enum rc start_pools(struct serve *s, struct err *err)
{
    unsigned cpus = (unsigned)os_cpu_count();
    TRY(bell_new(task_ring, &s->bell, err));
    TRY(sched_new("capture", cpus, batch_worker_new, batch_worker_free, &s->capture, err));
    TRY(sched_new("upload", UPLOAD_THREADS, NULL, NULL, &s->upload, err));
    return sched_new("write", WRITE_THREADS, NULL, NULL, &s->write, err);
}

static enum rc start_tenants(struct serve *s, struct err *err)
{
    const struct serve_opts *o = s->opts;
    const struct tenants_opts opts = {
        .dir = o->data,
        .store_url = o->store_url,
        .capture = s->capture,
        .upload = s->upload,
        .write = s->write,
        .bell = s->bell,
        .cancel = &s->cancel,
        .open_max = o->open_max,
        .full_sync = !o->relaxed,
        .txn_ms = o->txn_ms,
        .cache_kib = o->cache_kib,
        .sync_interval_ms = o->sync_interval_ms,
        .idle_close_ms = o->idle_close_ms,
        .flush_ms = o->shutdown_ms,
    };
    return tenants_new(&opts, &s->tenants, err);
}

static enum rc start_server(struct serve *s, struct err *err)
{
    const struct serve_opts *o = s->opts;
    int passed = passed_sockets();
    struct server_opts opts = {
        .listen = o->listen,
        .admin_listen = o->admin_listen,
        .listen_fd = passed > 0 ? FIRST_FD : -1,
        .admin_fd = passed > 1 ? FIRST_FD + 1 : -1,
        .tls_cert = or_null(o->tls_cert),
        .tls_key = or_null(o->tls_key),
        .admin_key = or_null(o->admin_key),
        .baton_key = s->baton_key,
        .ops = &tenants_ops,
        .tenants = s->tenants,
        .no_default = o->no_default,
        .threads = o->threads,
        .conn_max = o->conn_max,
        .body_max = o->body_max,
        .query_ms = o->query_ms,
        .txn_ms = o->txn_ms,
        .stream_idle_ms = o->stream_idle_ms,
        .slow_query_ms = o->slow_query_ms,
    };
    TRY(fill_auth(s, &opts.auth, err));
    return server_start(&opts, &s->server, err);
}

static enum rc fill_auth(struct serve *s, struct auth_opts *auth, struct err *err)
{
    const struct serve_opts *o = s->opts;
    *auth = (struct auth_opts){.key_file = or_null(o->auth_key_file),
                               .key_text = or_null(o->auth_key),
                               .http_auth = or_null(o->http_auth)};
    if (o->roles_file[0] == '\0') return RC_OK;
    buf_reset(&s->roles);
    TRY(os_read_file(o->roles_file, ROLES_MAX, &s->roles, err));
    TRY(buf_append(&s->roles, "", 1, err));
    auth->roles = (const char *)s->roles.data;
    return RC_OK;
}

/* An open database on the network is nobody's wish. */
static enum rc check_exposure(const struct serve_opts *o, struct err *err)
{
    bool keys = o->auth_key_file[0] != '\0' || o->auth_key[0] != '\0' || o->http_auth[0] != '\0';
    if (o->allow_anonymous) return RC_OK;
    if (!keys && !is_local(o->listen))
        return err_set(err, RC_DENIED,
                       "-listen %s would let everybody on the network read and write; give "
                       "-auth-jwt-key-file (see 'sluice token'), or say -allow-anonymous",
                       o->listen);
    if (o->admin_listen[0] != '\0' && o->admin_key[0] == '\0' && !is_local(o->admin_listen))
        return err_set(err, RC_DENIED,
                       "-admin-listen %s would let everybody on the network delete databases; "
                       "give -admin-key, or say -allow-anonymous",
                       o->admin_listen);
    return RC_OK;
}

static bool is_local(const char *listen)
{
    static const char *const local[] = {"127.", "localhost:", "[::1]:", "unix:"};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        if (strncmp(listen, local[i], strlen(local[i])) == 0) return true;
    return false;
}

/* Seals batons; kept, so that clean streams survive a restart. */
static enum rc load_baton_key(struct serve *s, struct err *err)
{
    char path[OS_PATH_MAX];
    CLEANUP(buf_fini) struct buf key = BUF_INIT;
    if (snprintf(path, sizeof path, "%s/baton.key", s->opts->data) >= (int)sizeof path)
        return err_set(err, RC_INVALID, "the path of the data folder is too long");
    enum rc rc = os_read_file(path, 4096, &key, err);
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    if (rc == RC_OK && key.size == sizeof s->baton_key) {
        memcpy(s->baton_key, key.data, key.size);
        return RC_OK;
    }
    if (rc == RC_OK) log_warn("the key of batons was damaged and is made anew", "path", path);
    for (size_t i = 0; i < sizeof s->baton_key; i += 8) {
        uint64_t random = os_random();
        memcpy(s->baton_key + i, &random, 8);
    }
    return os_write_file(path, s->baton_key, sizeof s->baton_key, 0600, err);
}

/* sd_listen_fds(3). */
static int passed_sockets(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != (long)getpid()) return 0;
    int n = (int)strtol(count, NULL, 10);
    return n > 2 ? 2 : n;
}

static void announce(struct serve *s)
{
    char listen[256], admin[256];
    server_addresses(s->server, listen, sizeof listen, admin, sizeof admin);
    log_info("serving", "addr", listen, "admin", admin[0] != '\0' ? admin : "off", "data",
             s->opts->data);
}

static void run(struct serve *s, const sigset_t *set)
{
    int sig = 0;
    while (sigwait(set, &sig) == 0 && sig == SIGHUP) {
        struct err err;
        struct auth_opts auth;
        enum rc rc = fill_auth(s, &auth, &err);
        if (rc == RC_OK) rc = server_reload(s->server, &auth, &err);
        if (rc == RC_OK)
            log_info("keys, roles and certificates were read again");
        else
            log_error("reload failed, the old keys stay in use", "error", err.text);
    }
    log_info("signal received, shutting down", "signal", strsignal(sig));
}

static enum rc stop(struct serve *s, struct err *err)
{
    pthread_t watcher;
    struct err ignored;
    bool watched = thr_start(&watcher, "shutdown", watch_stop, s, &ignored) == RC_OK;
    server_stop(s->server, DRAIN_MS);
    enum rc rc = tenants_free(s->tenants, err);
    atomic_store(&s->ended, true);
    if (watched) pthread_join(watcher, NULL);
    bell_free(s->bell);
    sched_free(s->write);
    sched_free(s->capture);
    sched_free(s->upload);
    buf_fini(&s->roles);
    return rc;
}

/* A second signal: the store can wait no longer. */
static void *watch_stop(void *arg)
{
    struct serve *s = arg;
    const struct timespec look = {.tv_nsec = 20000000};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    while (!atomic_load(&s->ended))
        if (sigtimedwait(&set, NULL, &look) > 0) atomic_store(&s->cancel, true);
    return NULL;
}

static const char *or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}
