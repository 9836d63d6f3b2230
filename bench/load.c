/*
 * load.c -- a load generator for servers that speak Hrana over HTTP or WebSocket.
 *
 *   load --url http://127.0.0.1:8080 [--proto http|ws] --mode MODE [--conns 64] [--threads 1]
 *        [--seconds 5] [--warm 1] [--depth 1] [--rate R] [--rows 100000] [--token T] [--pid P]
 *        [--json]
 *   load --url URL --setup [--rows N] [--tenants N] [--admin URL]      make and fill the table(s)
 *   load --url URL --idle N [--seconds 5] [--pid P]      open N WebSockets with a stream and hold
 *
 *   point    SELECT of one row by its key
 *   ten      ten rows in a row
 *   insert   one row, autocommit
 *   mixed    80 % point, 20 % insert
 *   txn      BEGIN IMMEDIATE, SELECT, UPDATE, COMMIT: four round trips
 *   select1  SELECT 1
 *   tenants  mixed, each time for a tenant that Zipf's law chooses
 *   slow     a recursive query of --slow-rows rows
 *
 * Many tenants: --tenants N (names t0, t1, ...; --rows is 100 each), --zipf 1.0, --tenant-style
 * path|header|host; over a WebSocket each connection stays with the tenant that it got. One tenant:
 * --tenant NAME. With --admin URL, --setup makes them first by libSQL's admin API.
 *
 * A closed loop: each connection waits for its answer before it asks again (--depth N: it has N
 * requests on their way). With --rate R operations start R times a second instead, whatever the
 * server does, and their times count from when they were to start. Times are from making an
 * operation to its last answer; an operation is one request, or the four of a transaction. What
 * answers wrongly counts as an error and not as an operation. Start the server before, and --setup
 * once.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "load.h"

static const char *const mode_names[] = {"point",   "ten",     "insert", "mixed", "txn",
                                         "select1", "tenants", "slow",   NULL};
static const char *const style_names[] = {"path", "header", "host", NULL};
static const char *const proto_names[] = {"http", "ws", NULL};

/* What a process has used so far. */
struct usage {
    double cpu_s, rss_mb;
};
static struct load_opts opts = {.conns = 64,
                                .threads = 1,
                                .depth = 1,
                                .seconds = 5,
                                .warm = 1,
                                .zipf = 1,
                                .slow_rows = 5000000};
static double idle_before_mb;

static void read_options(int argc, char **argv);
static bool read_flag(const char *name);
static bool read_value(const char *name, const char *value);
static unsigned number(const char *name, const char *value, unsigned low, unsigned high);
static double decimal(const char *name, const char *value);
static void set_up(void);
static void fill(enum load_mode mode, const struct target *target, uint64_t count, unsigned conns);
static void measure(void);
static void hold(void);
static void tell_idle(void);
static double idle_each(double now_mb);
static struct usage usage_of(pid_t pid);
static void report(const struct worker *sum, double client_cpu, double server_cpu, double rss_mb);

int main(int argc, char **argv)
{
    struct rlimit files;
    read_options(argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (opts.setup) set_up();
    if (opts.idle > 0)
        hold();
    else if (opts.mode_given)
        measure();
    return 0;
}

static void read_options(int argc, char **argv)
{
    opts.seed = tool_random_seed();
    for (int i = 1; i < argc; i++) {
        if (read_flag(argv[i])) continue;
        if (i + 1 == argc || !read_value(argv[i], argv[i + 1])) {
            die("'%s' is unknown or lacks its value; see load.c", argv[i]);
        }
        i++;
    }
    if (opts.target.authority[0] == '\0') die("--url is missing; see load.c");
    if (!opts.setup && !opts.mode_given && opts.idle == 0) die("--mode, --setup or --idle?");
    if (opts.mode == LOAD_TENANTS && opts.tenants == 0) opts.tenants = 10000;
    if (opts.rows == 0) opts.rows = opts.tenants > 0 ? 100 : 100000;
    if (opts.rows < 10) die("--rows %llu: at least 10", (unsigned long long)opts.rows);
    if (opts.mode == LOAD_TXN) opts.depth = 1;
    if (opts.threads > opts.conns) opts.threads = opts.conns;
}

static bool read_flag(const char *name)
{
    if (strcmp(name, "--json") == 0)
        opts.json = true;
    else if (strcmp(name, "--setup") == 0)
        opts.setup = true;
    else
        return false;
    return true;
}

static bool read_value(const char *name, const char *value)
{
    if (strcmp(name, "--url") == 0) {
        target_parse(&opts.target, value);
        if (strncmp(value, "ws", 2) == 0) opts.ws = true;
    } else if (strcmp(name, "--admin") == 0) {
        target_parse(&opts.admin, value);
        opts.has_admin = true;
    } else if (strcmp(name, "--proto") == 0) {
        opts.ws = parse_choice(name, value, proto_names) == 1;
    } else if (strcmp(name, "--mode") == 0) {
        opts.mode = (enum load_mode)parse_choice(name, value, mode_names);
        opts.mode_given = true;
    } else if (strcmp(name, "--tenant-style") == 0) {
        opts.style = (enum tenant_style)parse_choice(name, value, style_names);
    } else if (strcmp(name, "--conns") == 0) {
        opts.conns = number(name, value, 1, 100000);
    } else if (strcmp(name, "--threads") == 0) {
        opts.threads = number(name, value, 1, LOAD_THREADS);
    } else if (strcmp(name, "--depth") == 0) {
        opts.depth = number(name, value, 1, LOAD_DEPTH_MAX);
    } else if (strcmp(name, "--idle") == 0) {
        opts.idle = number(name, value, 1, 100000);
    } else if (strcmp(name, "--tenants") == 0) {
        opts.tenants = number(name, value, 1, 10000000);
    } else if (strcmp(name, "--seconds") == 0) {
        opts.seconds = decimal(name, value);
    } else if (strcmp(name, "--warm") == 0) {
        opts.warm = decimal(name, value);
    } else if (strcmp(name, "--zipf") == 0) {
        opts.zipf = decimal(name, value);
    } else if (strcmp(name, "--rate") == 0) {
        opts.rate = (double)number(name, value, 1, 10000000);
    } else if (strcmp(name, "--tenant") == 0) {
        opts.tenant = value;
    } else if (strcmp(name, "--token") == 0) {
        if (strlen(value) >= LOAD_TOKEN_MAX) die("--token is too long");
        opts.token = value;
    } else if (strcmp(name, "--rows") == 0) {
        opts.rows = parse_u64(name, value);
    } else if (strcmp(name, "--slow-rows") == 0) {
        opts.slow_rows = parse_u64(name, value);
    } else if (strcmp(name, "--seed") == 0) {
        opts.seed = parse_u64(name, value);
    } else if (strcmp(name, "--pid") == 0) {
        opts.pid = (pid_t)number(name, value, 1, INT32_MAX);
    } else {
        return false;
    }
    return true;
}

static unsigned number(const char *name, const char *value, unsigned low, unsigned high)
{
    uint64_t n = parse_u64(name, value);
    if (n < low || n > high) die("%s '%s' is not in %u..%u", name, value, low, high);
    return (unsigned)n;
}

static double decimal(const char *name, const char *value)
{
    char *end;
    double d = strtod(value, &end);
    if (end == value || *end != '\0' || !(d >= 0 && d <= 86400)) {
        die("%s '%s' is no number of 0..86400", name, value);
    }
    return d;
}

/* Always over HTTP. A single database is filled in order, tenants side by side. */
static void set_up(void)
{
    unsigned conns = opts.tenants > 0 ? 16 : 1;
    uint64_t count = opts.tenants > 0 ? opts.tenants : 1;
    if (opts.has_admin && (opts.tenants > 0 || opts.tenant != NULL)) {
        fill(LOAD_CREATE, &opts.admin, count, 1); /* sqld loses some that are made side by side */
    }
    if (opts.tenants == 0) count = 1 + (opts.rows + LOAD_FILL_BATCH - 1) / LOAD_FILL_BATCH;
    fill(LOAD_FILL, &opts.target, count, conns);
}

static void fill(enum load_mode mode, const struct target *target, uint64_t count, unsigned conns)
{
    static struct worker sum;
    struct phase p = {.opts = &opts,
                      .target = target,
                      .mode = mode,
                      .conns = conns,
                      .threads = 1,
                      .depth = 1,
                      .work_count = count};
    memset(&sum, 0, sizeof sum);
    phase_run(&p, &sum);
    if (sum.ops != count) {
        die("setup of %s: %llu of %llu steps, %llu failed: %s", target->authority,
            (unsigned long long)sum.ops, (unsigned long long)count, (unsigned long long)sum.errors,
            sum.first_error);
    }
}

static void measure(void)
{
    static struct worker sum;
    struct phase p = {.opts = &opts,
                      .target = &opts.target,
                      .mode = opts.mode,
                      .ws = opts.ws,
                      .conns = opts.conns,
                      .threads = opts.threads,
                      .depth = opts.depth};
    double *zipf_sums = opts.mode == LOAD_TENANTS ? work_zipf(opts.tenants, opts.zipf) : NULL;
    p.zipf_sums = zipf_sums;
    struct usage client = usage_of(getpid()), server = usage_of(opts.pid);
    int64_t start = mono_ns();
    phase_run(&p, &sum);
    double took = (double)(mono_ns() - start) / 1e9;
    struct usage client_end = usage_of(getpid()), server_end = usage_of(opts.pid);
    free(zipf_sums);
    report(&sum, (client_end.cpu_s - client.cpu_s) / took, (server_end.cpu_s - server.cpu_s) / took,
           server_end.rss_mb);
}

static void hold(void)
{
    static struct worker sum;
    struct phase p = {.opts = &opts,
                      .target = &opts.target,
                      .mode = LOAD_HOLD,
                      .ws = true,
                      .conns = opts.idle,
                      .threads = 1,
                      .depth = 1,
                      .on_ready = tell_idle};
    opts.warm = 0;
    idle_before_mb = usage_of(opts.pid).rss_mb;
    double cpu_before = usage_of(opts.pid).cpu_s;
    phase_run(&p, &sum);
    struct usage end = usage_of(opts.pid);
    if (opts.json) {
        printf("\"rested_mb\":%.1f,\"bytes_each_rested\":%.0f,\"reconnects\":%llu}\n", end.rss_mb,
               idle_each(end.rss_mb), (unsigned long long)sum.reconnects);
        return;
    }
    printf("after %.1f s: %.1f MB, %.0f bytes each, %.2f s of CPU in all, "
           "%llu connections ended early\n",
           opts.seconds, end.rss_mb, idle_each(end.rss_mb), end.cpu_s - cpu_before,
           (unsigned long long)sum.reconnects);
}

static void tell_idle(void)
{
    double now_mb = usage_of(opts.pid).rss_mb;
    const char *form =
        opts.json ? "{\"idle\":%u,\"before_mb\":%.1f,\"after_mb\":%.1f,\"bytes_each\":%.0f,"
                  : "%u WebSockets with a stream: %.1f MB before, %.1f MB now, "
                    "%.0f bytes each\n";
    printf(form, opts.idle, idle_before_mb, now_mb, idle_each(now_mb));
    fflush(stdout);
}

static double idle_each(double now_mb)
{
    return (now_mb - idle_before_mb) * 1048576 / opts.idle;
}

/* Zeros where there is no such process. */
static struct usage usage_of(pid_t pid)
{
    struct usage u = {0, 0};
    char path[64], text[1024];
    unsigned long user = 0, kernel = 0;
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    if (f == NULL) return u;
    size_t size = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[size] = '\0';
    const char *rest = strrchr(text, ')');
    if (rest == NULL || sscanf(rest,
                               ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d"
                               " %*d %*d %*d %*d %*u %*u %ld",
                               &user, &kernel, &pages) != 3) {
        return u;
    }
    u.cpu_s = (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
    u.rss_mb = (double)pages * (double)sysconf(_SC_PAGESIZE) / 1048576;
    return u;
}

static void report(const struct worker *sum, double client_cpu, double server_cpu, double rss_mb)
{
    static const double shares[] = {0.5, 0.99, 0.999};
    double us[3], seconds = opts.seconds > 0 ? opts.seconds : 1;
    for (int i = 0; i < 3; i++)
        us[i] = (double)hist_at(&sum->hist, shares[i]) / 1e3;
    double max = (double)sum->hist.max / 1e3;
    const char *mode = mode_names[opts.mode], *proto = proto_names[opts.ws ? 1 : 0];
    unsigned long long errors = sum->errors, reconnects = sum->reconnects;
    if (opts.json) {
        printf("{\"mode\":\"%s\",\"proto\":\"%s\",\"conns\":%u,\"threads\":%u,\"depth\":%u,"
               "\"seconds\":%.2f,\"per_s\":%.1f,\"trips_per_s\":%.1f,\"p50_us\":%.1f,"
               "\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"errors\":%llu,"
               "\"reconnects\":%llu,\"client_cpu\":%.2f,\"server_cpu\":%.2f,\"rss_mb\":%.1f}\n",
               mode, proto, opts.conns, opts.threads, opts.depth, seconds,
               (double)sum->ops / seconds, (double)sum->trips / seconds, us[0], us[1], us[2], max,
               errors, reconnects, client_cpu, server_cpu, rss_mb);
    } else {
        printf("%s over %s, %u connections: %.0f/s (%.0f round trips/s)\n", mode, proto, opts.conns,
               (double)sum->ops / seconds, (double)sum->trips / seconds);
        printf("p50 %.0f us, p99 %.0f us, p99.9 %.0f us, max %.0f us\n", us[0], us[1], us[2], max);
        printf("%llu errors, %llu reconnects; CPUs: %.2f here", errors, reconnects, client_cpu);
        if (opts.pid > 0) printf(", %.2f in the server with %.1f MB", server_cpu, rss_mb);
        printf("\n");
    }
    if (errors > 0) fprintf(stderr, "first error: %s\n", sum->first_error);
}
