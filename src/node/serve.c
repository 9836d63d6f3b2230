/*
 * serve.c -- see serve.h.
 *
 * Start: pools and bell, tenants, front ends; in that order, and back at the end: first nobody asks
 * any more, then the logs are stored, then the threads end.
 */
#include "node/serve.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "db/batch.h"
#include "node/manager.h"
#include "node/tenants.h"
#include "node/task.h"
#include "server/batons.h"
#include "server/server.h"

#define UPLOAD_THREADS 16
#define WRITE_THREADS  8
#define DRAIN_MS       10000 /* for requests that are at work */
#define STUCK_MS       10000 /* more for them to end, when they were told to */
#define ROLES_MAX      (1u << 20)
#define OPEN_MAX       1000
#define CONN_MAX       10000
#define OPEN_FDS       12 /* descriptors of an open tenant, a second reader's included */
#define DRAIN_FDS      6  /* of one whose log is on its way to the store */
#define FIXED_FDS      128
#define CONN_MIN       16
#define DRAINS         64    /* so many of these there may be, or as many as are open */
#define PROBE_MS       15000 /* for the store's first answer */

struct serve {
    const struct serve_opts *opts;
    struct sched *capture, *upload, *write;
    struct bell *bell;
    struct tenants *tenants;
    struct server *server;
    struct buf roles;
    unsigned open_max, conn_max;
    pthread_t prober;
    bool probing;
    atomic_bool probe_cancel;
    uint8_t baton_key[BATON_KEY_SIZE];
    char spill_dir[OS_PATH_MAX + 8], import_dir[OS_PATH_MAX];
    atomic_bool cancel;
    atomic_bool answered; /* no request is at work any more */
    atomic_bool ended;
};

static void fit_limits(struct serve *s);
static enum rc start(struct serve *s, struct err *err);
static enum rc find_folders(struct serve *s, struct err *err);
static enum rc start_pools(struct serve *s, struct err *err);
static enum rc start_tenants(struct serve *s, struct err *err);
static enum rc start_server(struct serve *s, struct err *err);
static enum rc fill_auth(struct serve *s, const struct serve_auth *from, struct auth_opts *auth,
                         struct err *err);
static enum rc check_exposure(const struct serve_opts *o, const struct serve_auth *auth,
                              struct err *err);
static bool is_local(const char *listen);
static enum rc load_baton_key(struct serve *s, struct err *err);
static void start_probe(struct serve *s);
static void *probe_store(void *arg);
static enum rc look_at_store(const char *url, const struct call *c, struct err *err);
static store_list_fn ignore_object;
static void announce(struct serve *s);
static void run(struct serve *s, const sigset_t *set);
static void reload(struct serve *s);
static enum rc read_again(struct serve *s, struct err *err);
static enum rc stop(struct serve *s, struct err *err);
static void *watch_stop(void *arg);
static _Noreturn void give_up(void);
static const char *or_null(const char *text);

enum rc node_serve(const struct serve_opts *opts, struct err *err)
{
    struct serve s = {.opts = opts};
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    TRY(check_exposure(opts, &opts->auth, err));
    fit_limits(&s);
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

/* To do with fewer than wished is better than failures here and there. Tenants get three quarters
 * of the descriptors, as far as they want them, and connections the rest. */
static void fit_limits(struct serve *s)
{
    const struct serve_opts *o = s->opts;
    unsigned open_wish = o->open_max > 0 ? o->open_max : OPEN_MAX;
    unsigned conn_wish = o->conn_max > 0 ? o->conn_max : CONN_MAX;
    uint64_t limit = os_raise_fd_limit(), drains = (uint64_t)DRAINS * DRAIN_FDS;
    s->open_max = open_wish;
    s->conn_max = conn_wish;
    if (limit == 0) return;
    uint64_t rest = limit - limit / 4, open = rest / (OPEN_FDS + DRAIN_FDS);
    if (open < DRAINS) open = rest > drains + OPEN_FDS ? (rest - drains) / OPEN_FDS : 1;
    if (open > open_wish) open = open_wish;
    uint64_t used = open * OPEN_FDS + (open > DRAINS ? open : DRAINS) * DRAIN_FDS + FIXED_FDS;
    uint64_t conns = limit > used + CONN_MIN ? limit - used : CONN_MIN;
    if (conns > conn_wish) conns = conn_wish;
    s->open_max = (unsigned)open;
    s->conn_max = (unsigned)conns;
    if (open == open_wish && conns == conn_wish) return;
    char nofile[24], open_text[16], conn_text[16];
    snprintf(nofile, sizeof nofile, "%llu", (unsigned long long)limit);
    snprintf(open_text, sizeof open_text, "%u", s->open_max);
    snprintf(conn_text, sizeof conn_text, "%u", s->conn_max);
    log_warn("the limit on open files is low, so these are, too; see LimitNOFILE or ulimit -n",
             "nofile", nofile, "max-open", open_text, "max-connections", conn_text);
}

static enum rc start(struct serve *s, struct err *err)
{
    TRY(os_mkdirs(s->opts->data, 0700, err));
    TRY(load_baton_key(s, err));
    TRY(find_folders(s, err));
    TRY(start_pools(s, err));
    TRY(start_tenants(s, err));
    TRY(start_server(s, err));
    start_probe(s);
    return RC_OK;
}

/* Large bodies go where tenants are built, so that a rename takes them. */
static enum rc find_folders(struct serve *s, struct err *err)
{
    char data[OS_PATH_MAX];
    TRY(os_abspath(s->opts->data, data, err));
    snprintf(s->spill_dir, sizeof s->spill_dir, "%s/tmp", data);
    if (s->opts->import_dir[0] == '\0') return RC_OK;
    return os_abspath(s->opts->import_dir, s->import_dir, err);
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
        .open_max = s->open_max,
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
    unsigned passed = manager_sockets();
    struct server_opts opts = {
        .listen = o->listen,
        .admin_listen = o->admin_listen,
        .listen_fd = passed > 0 ? MANAGER_FIRST_FD : -1,
        .admin_fd = passed > 1 ? MANAGER_FIRST_FD + 1 : -1,
        .tls_cert = or_null(o->tls_cert),
        .tls_key = or_null(o->tls_key),
        .admin_key = or_null(o->admin_key),
        .signing_key_file = or_null(o->signing_key_file),
        .spill_dir = s->spill_dir,
        .import_dir = o->import_dir[0] != '\0' ? s->import_dir : NULL,
        .import_max = o->import_max,
        .baton_key = s->baton_key,
        .ops = &tenants_ops,
        .tenants = s->tenants,
        .no_default = o->no_default,
        .threads = o->threads,
        .conn_max = s->conn_max,
        .body_max = o->body_max,
        .query_ms = o->query_ms,
        .txn_ms = o->txn_ms,
        .stream_idle_ms = o->stream_idle_ms,
        .slow_query_ms = o->slow_query_ms,
    };
    TRY(fill_auth(s, &o->auth, &opts.auth, err));
    return server_start(&opts, &s->server, err);
}

static enum rc fill_auth(struct serve *s, const struct serve_auth *from, struct auth_opts *auth,
                         struct err *err)
{
    *auth = (struct auth_opts){.key_file = or_null(from->key_file),
                               .key_text = or_null(from->key),
                               .http_auth = or_null(from->http_auth),
                               .roles = or_null(from->roles)};
    if (from->roles_file[0] == '\0') return RC_OK;
    buf_reset(&s->roles);
    TRY(os_read_file(from->roles_file, ROLES_MAX, &s->roles, err));
    TRY(buf_append(&s->roles, "", 1, err));
    auth->roles = (const char *)s->roles.data;
    return RC_OK;
}

/* An open database on the network is nobody's wish. */
static enum rc check_exposure(const struct serve_opts *o, const struct serve_auth *auth,
                              struct err *err)
{
    bool keys = auth->key_file[0] != '\0' || auth->key[0] != '\0' || auth->http_auth[0] != '\0';
    unsigned passed = manager_sockets();
    bool near = passed > 0 ? manager_socket_local(MANAGER_FIRST_FD) : is_local(o->listen);
    bool admin = passed > 1 || o->admin_listen[0] != '\0';
    bool admin_near =
        passed > 1 ? manager_socket_local(MANAGER_FIRST_FD + 1) : is_local(o->admin_listen);
    if (o->allow_anonymous) return RC_OK;
    if (!keys && !near)
        return err_set(err, RC_DENIED,
                       "-listen %s would let everybody on the network read and write; give "
                       "-auth-jwt-key-file (see 'sluice token'), or say -allow-anonymous",
                       passed > 0 ? "(the passed socket)" : o->listen);
    if (admin && o->admin_key[0] == '\0' && !admin_near)
        return err_set(err, RC_DENIED,
                       "-admin-listen %s would let everybody on the network delete databases; "
                       "give -admin-key, or say -allow-anonymous",
                       passed > 1 ? "(the passed socket)" : o->admin_listen);
    return RC_OK;
}

static bool is_local(const char *listen)
{
    static const char *const local[] = {"localhost:", "[::1]:", "unix:"};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        if (strncmp(listen, local[i], strlen(local[i])) == 0) return true;
    /* A name may begin with these digits, too. */
    return strncmp(listen, "127.", 4) == 0 && listen[strspn(listen, "0123456789.")] == ':';
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

/* What is wrong with the store is better said now than after the first commit. */
static void start_probe(struct serve *s)
{
    struct err ignored;
    if (s->opts->store_url[0] == '\0') return;
    s->probing = thr_start(&s->prober, "store-probe", probe_store, s, &ignored) == RC_OK;
}

static void *probe_store(void *arg)
{
    struct serve *s = arg;
    struct err err;
    char shown[256];
    const struct call c = {.cancel = &s->probe_cancel, .deadline_ms = os_mono_ms() + PROBE_MS};
    if (look_at_store(s->opts->store_url, &c, &err) == RC_OK || atomic_load(&s->probe_cancel))
        return NULL;
    config_url_redact(s->opts->store_url, shown, sizeof shown);
    log_warn("the store does not answer; databases are served all the same, and their logs wait",
             "store", shown, "error", err.text);
    return NULL;
}

static enum rc look_at_store(const char *url, const struct call *c, struct err *err)
{
    struct config_replica replica = {0};
    struct store *store = NULL;
    enum rc rc = config_replica_from_url(url, &replica, err);
    if (rc == RC_OK) rc = config_replica_open(&replica, &store, err);
    if (rc == RC_OK)
        rc = store_list(store, c, "", &(struct store_list_opts){.count_max = 1}, ignore_object,
                        NULL, err);
    store_close(store);
    config_replica_fini(&replica);
    return rc;
}

static enum rc ignore_object(void *ctx, const struct store_obj *obj, struct err *err)
{
    (void)ctx, (void)obj, (void)err;
    return RC_OK;
}

static void announce(struct serve *s)
{
    char listen[256], admin[256], store[256];
    server_addresses(s->server, listen, sizeof listen, admin, sizeof admin);
    config_url_redact(s->opts->store_url, store, sizeof store);
    log_info("serving", "addr", listen, "admin", admin[0] != '\0' ? admin : "off", "data",
             s->opts->data, "store", store[0] != '\0' ? store : "beside the data");
    manager_notify("READY=1");
}

static void run(struct serve *s, const sigset_t *set)
{
    int sig = 0;
    while (sigwait(set, &sig) == 0 && sig == SIGHUP)
        reload(s);
    manager_notify("STOPPING=1");
    log_info("signal received, shutting down", "signal", strsignal(sig));
}

static void reload(struct serve *s)
{
    char state[64];
    struct err err;
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)os_mono_us());
    manager_notify(state);
    if (read_again(s, &err) == RC_OK)
        log_info("keys, roles and certificates were read again");
    else
        log_error("reload failed, the old keys stay in use", "error", err.text);
    manager_notify("READY=1");
}

static enum rc read_again(struct serve *s, struct err *err)
{
    const struct serve_opts *o = s->opts;
    struct serve_auth now = o->auth;
    struct auth_opts auth;
    if (o->reread != NULL) TRY(o->reread(o->reread_ctx, &now, err));
    TRY(check_exposure(o, &now, err));
    TRY(fill_auth(s, &now, &auth, err));
    return server_reload(s->server, &auth, err);
}

static enum rc stop(struct serve *s, struct err *err)
{
    pthread_t watcher;
    struct err ignored;
    bool watched = thr_start(&watcher, "shutdown", watch_stop, s, &ignored) == RC_OK;
    atomic_store(&s->probe_cancel, true);
    server_stop(s->server, DRAIN_MS);
    atomic_store(&s->answered, true);
    enum rc rc = tenants_free(s->tenants, err);
    atomic_store(&s->ended, true);
    if (watched) pthread_join(watcher, NULL);
    if (s->probing) pthread_join(s->prober, NULL);
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
    int64_t stuck_ms = os_mono_ms() + DRAIN_MS + STUCK_MS;
    const struct timespec look = {.tv_nsec = 20000000};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    while (!atomic_load(&s->ended)) {
        if (sigtimedwait(&set, NULL, &look) > 0) atomic_store(&s->cancel, true);
        if (!atomic_load(&s->answered) && os_mono_ms() >= stuck_ms) give_up();
    }
    return NULL;
}

/* Some of SQLite's functions can take minutes without looking whether anybody waits. Nothing can be
 * taken down under such a thread; but the logs went to the store meanwhile, as always. */
static _Noreturn void give_up(void)
{
    log_error("a statement does not end, so the server ends without it; what was committed is "
              "kept, and the next start looks whether the store has all of it");
    _exit(rc_exit(RC_CANCELED));
}

static const char *or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}
