/* server.c -- start, stop, and the clock of the service. See server.h. */
#include "server/server.h"
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/server_intern.h"
#include "server/sync_desk.h"

#define TICK_MS        100
#define HEAD_MAX       (16u << 10) /* of it depends what an idle connection costs */
#define BODY_MAX       (64u << 20)
#define BYTE_MAX       (64u << 20)
#define QUERY_MS       60000
#define TXN_MS         5000
#define TURN_MS        10000
#define DURABLE_MS     30000
#define STREAM_IDLE_MS 10000
#define OPEN_MS        5000
#define CLOSING_MS     1000 /* for the closing handshakes of WebSockets */

/* Threads of the crews. Few for a tenant, so that its queries do not take the processors from all
 * others; many in all, so that some tenants with endless work leave one for the next. */
#define WORK_THREADS     64
#define WORK_SHARE_MIN   8
#define SLOW_THREADS_MIN 12
#define SLOW_SHARE_MIN   2
#define SLOW_NICE        10
#define RUSH             1000 /* WebSockets */

static void set_defaults(struct server_opts *o);
static enum rc start(struct server *s, struct err *err);
static enum rc start_fronts(struct server *s, struct err *err);
static void *tick(void *arg);
static void trim_after_rush(const struct server *s, uint64_t *trimmed);
static void note(void *ctx, struct tenant *t, const char *sql, size_t size, int64_t us,
                 const struct sql_done *done, const struct sql_error *sql_err);
static void log_slow(void *ctx, const struct stats_slow *slow);
static void log_dropped(void *ctx, uint64_t count);
static void log_full(void *ctx, const char *name);
static void release_tenant(void *ctx, struct tenant *t);
static void wait_idle(struct server *s, int64_t wait_ms);

enum rc server_start(const struct server_opts *opts, struct server **ret_s, struct err *err)
{
    struct server *s = mem_calloc(1, sizeof *s);
    if (s == NULL) return err_mem(err, "the server");
    s->opts = *opts;
    set_defaults(&s->opts);
    s->started_ms = os_mono_ms();
    pthread_mutex_init(&s->clients_lock, NULL);
    exec_env_init(&s->env);
    enum rc rc = start(s, err);
    if (rc != RC_OK) {
        server_stop(s, 0);
        return rc;
    }
    *ret_s = s;
    return RC_OK;
}

void server_addresses(const struct server *s, char *out, size_t size, char *admin_out,
                      size_t admin_size)
{
    http_server_address(s->http, out, size);
    admin_out[0] = '\0';
    if (s->admin != NULL) http_server_address(s->admin, admin_out, admin_size);
}

void server_stop(struct server *s, int64_t wait_ms)
{
    if (s == NULL) return;
    if (s->http != NULL) http_server_quiesce(s->http);
    if (s->admin != NULL) http_server_quiesce(s->admin);
    sync_desk_close(s->sync);
    wait_idle(s, wait_ms);
    /* Now they are told to end: what they wait for comes no more. */
    http_server_stop(s->admin); /* it looks at the hub */
    thr_lock(&s->clients_lock); /* connections that are left may still ask for an upgrade */
    struct ws_hub *hub = s->hub;
    s->hub = NULL;
    thr_unlock(&s->clients_lock);
    ws_hub_free(hub, CLOSING_MS);
    if (s->batons != NULL) batons_drop_tenant(s->batons, NULL);
    http_server_stop(s->http);
    while (atomic_load(&s->ws_open) > 0)
        os_sleep_ms(5);
    atomic_store(&s->stop, true);
    if (s->ticking) pthread_join(s->ticker, NULL);
    sync_desk_free(s->sync);
    crew_free(s->env.work);
    crew_free(s->env.slow);
    batons_free(s->batons);
    exec_env_fini(&s->env);
    auth_free(s->auth);
    stats_free(s->stats);
    pthread_mutex_destroy(&s->clients_lock);
    mem_free(s);
}

enum rc server_reload(struct server *s, const struct auth_opts *auth, struct err *err)
{
    /* What is wrong with either is found before anything changes. */
    TRY(auth_check(auth, err));
    bool tls = s->opts.tls_cert != NULL;
    if (tls) TRY(http_server_reload_tls(s->http, err));
    if (tls && s->admin != NULL) TRY(http_server_reload_tls(s->admin, err));
    return auth_reload(s->auth, auth, err);
}

static void set_defaults(struct server_opts *o)
{
    if (o->threads == 0) o->threads = (unsigned)os_cpu_count();
    if (o->work_threads == 0) o->work_threads = WORK_THREADS;
    if (o->body_max == 0) o->body_max = BODY_MAX;
    if (o->byte_max == 0) o->byte_max = BYTE_MAX;
    if (o->query_ms == 0) o->query_ms = QUERY_MS;
    if (o->txn_ms == 0) o->txn_ms = TXN_MS;
    if (o->turn_ms == 0) o->turn_ms = TURN_MS;
    if (o->durable_ms == 0) o->durable_ms = DURABLE_MS;
    if (o->stream_idle_ms == 0) o->stream_idle_ms = STREAM_IDLE_MS;
    if (o->open_ms == 0) o->open_ms = OPEN_MS;
    if (o->open_ms > o->query_ms) o->open_ms = o->query_ms;
}

static enum rc start(struct server *s, struct err *err)
{
    const struct server_opts *o = &s->opts;
    struct exec_env *env = &s->env;
    env->ops = o->ops;
    env->tenants = o->tenants;
    env->query_ms = o->query_ms;
    env->txn_ms = o->txn_ms;
    env->turn_ms = o->turn_ms;
    env->durable_ms = o->durable_ms;
    env->byte_max = o->byte_max;
    env->note = note;
    env->note_ctx = s;
    const struct stats_opts stats = {.slow_us = o->slow_query_ms * 1000,
                                     .slow = log_slow,
                                     .dropped = log_dropped,
                                     .full = log_full};
    TRY(stats_new(&stats, &s->stats, err));
    struct batons_opts batons = {
        .txn_idle_ms = o->stream_idle_ms, .release = release_tenant, .ctx = s};
    memcpy(batons.key, o->baton_key, sizeof batons.key);
    unsigned cpus = (unsigned)os_cpu_count();
    const struct crew_opts work = {.name = "work",
                                   .threads = o->work_threads,
                                   .share = 2 * cpus > WORK_SHARE_MIN ? 2 * cpus : WORK_SHARE_MIN};
    const struct crew_opts slow = {.name = "slow",
                                   .threads = 2 * cpus + SLOW_THREADS_MIN,
                                   .share = cpus > SLOW_SHARE_MIN ? cpus : SLOW_SHARE_MIN,
                                   .nice = SLOW_NICE};
    TRY(auth_new(&o->auth, &s->auth, err));
    TRY(batons_new(&batons, &s->batons, err));
    TRY(crew_new(&work, &env->work, err));
    TRY(crew_new(&slow, &env->slow, err));
    TRY(sync_desk_new(s, &s->sync, err));
    TRY(ws_hub_new(&(struct ws_opts){.threads = o->threads, .message_max = o->body_max}, &s->hub,
                   err));
    TRY(thr_start(&s->ticker, "ticker", tick, s, err));
    s->ticking = true;
    return start_fronts(s, err);
}

static enum rc start_fronts(struct server *s, struct err *err)
{
    const struct server_opts *o = &s->opts;
    struct http_opts http = {
        .listen = o->listen,
        .listen_fd = o->listen_fd,
        .threads = o->threads,
        .head_max = HEAD_MAX,
        .body_max = o->body_max,
        .conn_max = o->conn_max,
        .idle_ms = o->idle_ms,
        .tls_cert = o->tls_cert,
        .tls_key = o->tls_key,
        .cors = true,
        .handle = ask_handle,
        .ctx = s,
    };
    TRY(http_server_start(&http, &s->http, err));
    if (o->admin_listen[0] == '\0' && o->admin_fd < 0) return RC_OK;
    http.listen = o->admin_listen;
    http.listen_fd = o->admin_fd;
    http.threads = 1;
    http.cors = false;
    http.handle = admin_handle;
    http.spill = admin_spill;
    http.spill_max = o->import_max;
    return http_server_start(&http, &s->admin, err);
}

/* What is due without anybody asking: streams whose time is over, turns waited for too long. */
static void *tick(void *arg)
{
    struct server *s = arg;
    uint64_t trimmed = 0;
    while (!atomic_load(&s->stop)) {
        exec_env_tick(&s->env);
        batons_tick(s->batons);
        sync_desk_tick(s->sync);
        stats_tick(s->stats);
        trim_after_rush(s, &trimmed);
        os_sleep_ms(TICK_MS);
    }
    return NULL;
}

/* What many WebSockets need when they come at once, and what they leave when they go, stays free in
 * the heap and would be needed by nobody until the next rush. *trimmed: how many there were. */
static void trim_after_rush(const struct server *s, uint64_t *trimmed)
{
    uint64_t open = atomic_load(&s->ws_open);
    uint64_t change = open > *trimmed ? open - *trimmed : *trimmed - open;
    if (change < RUSH || atomic_load(&s->ws_busy) > 0) return;
    mem_trim();
    *trimmed = open;
}

static void note(void *ctx, struct tenant *t, const char *sql, size_t size, int64_t us,
                 const struct sql_done *done, const struct sql_error *sql_err)
{
    struct server *s = ctx;
    stats_stmt(s->stats, t, sql, size, us, done, sql_err);
}

static void log_slow(void *ctx, const struct stats_slow *slow)
{
    char ms[32], read[24], written[24];
    (void)ctx;
    snprintf(ms, sizeof ms, "%lld.%03d", (long long)(slow->us / 1000), (int)(slow->us % 1000));
    snprintf(read, sizeof read, "%llu", (unsigned long long)slow->rows_read);
    snprintf(written, sizeof written, "%llu", (unsigned long long)slow->rows_written);
    log_warn("slow statement", "namespace", slow->tenant, "ms", ms, "rows_read", read,
             "rows_written", written, "error", slow->code[0] != '\0' ? slow->code : "none", "sql",
             slow->sql);
}

static void log_dropped(void *ctx, uint64_t count)
{
    char text[24];
    (void)ctx;
    snprintf(text, sizeof text, "%llu", (unsigned long long)count);
    log_warn("more slow statements were not logged", "count", text);
}

static void log_full(void *ctx, const char *name)
{
    char text[8];
    (void)ctx;
    snprintf(text, sizeof text, "%d", STATS_NAMED_MAX);
    log_warn("too many classes of namespaces: this one and further ones are counted as \"other\"",
             "class", name, "classes_max", text);
}

static void release_tenant(void *ctx, struct tenant *t)
{
    struct server *s = ctx;
    s->opts.ops->release(s->opts.tenants, t);
}

static void wait_idle(struct server *s, int64_t wait_ms)
{
    int64_t end_ms = os_mono_ms() + wait_ms;
    while (os_mono_ms() < end_ms) {
        size_t active = s->http != NULL ? http_server_active(s->http) : 0;
        if (s->admin != NULL) active += http_server_active(s->admin);
        if (active == 0 && atomic_load(&s->ws_busy) == 0) return;
        os_sleep_ms(5);
    }
}
