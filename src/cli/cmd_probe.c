/* cmd_probe.c -- `sluice probe`: whether a store will do, measured; see store/probe.h. */
#include "cli/cli.h"
#include "base/mem.h"
#include "cli/progress.h"
#include "store/probe.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_MIN_NS UINT64_C(1000000000)
#define DURATION_MAX_NS (3600 * DURATION_MIN_NS)
#define STATUS_NO_HA    3 /* documented: usable for backup only */
#define SHOWN_LEFT      10

static enum rc run_probe(struct cli *c, struct err *err);
static enum rc measure(const struct cli_replica *r, int64_t duration_ms, struct probe_report *ret,
                       struct err *err);
static enum rc open_handle(void *ctx, struct store **ret_store, struct err *err);
static void on_step(void *ctx, const char *name);
static void remove_folder(const struct config_replica *replica, const struct probe_report *r);
static enum rc print_report(const struct probe_report *r, struct err *err);
static bool same(const struct probe_check *a, const struct probe_check *b);
static void print_advice(const struct probe_report *r, enum probe_id id);
static void print_requests(const struct probe_report *r);
static enum rc print_report_json(const struct probe_report *r, struct err *err);
static json_t *check_json(const struct probe_report *r, enum probe_id id);
static json_t *requests_json(const struct store_stats *s);
static void on_signal(int sig);

static atomic_bool canceled; /* set by SIGINT and SIGTERM */

static const char *const usage[] = {"[options] REPLICA_URL", "[options] DB_PATH",
                                    "[options] FOLDER", NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "duration",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "10s",
     .example = "1m",
     .help = "How long it may take, 1s to 1h. Then nothing more is begun but deleting what was "
             "made. A store is often quicker."},
    {.name = "json", .kind = OPT_BOOL, .help = "Print JSON."},
};
static const struct opt_example examples[] = {
    {"Before trusting a bucket with backups", "sluice probe s3://bucket/test"},
    {"The replica of a configured database", "sluice probe /var/lib/app.db"},
    {"In a script that wants a store for high availability",
     "sluice probe -json s3://bucket/test >probe.json || exit 1"},
    {NULL, NULL},
};

const struct command cmd_probe = {
    .name = "probe",
    .summary = "test whether a store will do, and measure it",
    .usage = usage,
    .about =
        "Tries out the store of a replica: permissions; whether what was written, overwritten or "
        "deleted is seen at once, also through another connection; ranges, timestamps and clocks; "
        "latency and throughput. Then it lets 32 writers go for the same key at once, 8 times, "
        "once to create it and once to replace it: a store that lets two of them win cannot be "
        "shared by two nodes, whatever its description says.\n\n"
        "The objects are made below one new prefix, sluice-probe-<random>/, and deleted at the "
        "end, also after a failure or Ctrl-C; over SFTP and WebDAV an empty folder may stay. "
        "Nothing "
        "else is touched. It moves about 60 MB each "
        "way at most and counts its requests, which the service may charge for.\n\n"
        "usable for backup: put, get, list and delete work and are seen at once, and no upload "
        "failed. usable for high availability: besides, conditional creates and conditional "
        "replaces let exactly one writer win.\n\n"
        "The exit status is 0 when the store is usable for both, 3 when for backup only, 1 when "
        "it is not usable or could not be tested, which includes a wrong command line.\n\n"
        "-json prints one object: store, type, prefix, elapsed_ms; usable_for_backup and "
        "usable_for_high_availability (true or false) with why_not_backup and why_not_ha (text, "
        "empty when true); interrupted; checks, a list of objects with name, result (ok, warning, "
        "failed, skipped or not offered), text, advice and figures, an object of whole numbers "
        "whose names end in their unit; requests, an object with the number of put, get, list, "
        "delete and other, of those that failed and those throttled, bytes_up and bytes_down; "
        "left_count and left, the keys that could not be deleted (the first 32 of them).",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_probe,
};

static enum rc run_probe(struct cli *c, struct err *err)
{
    CLEANUP(cli_close_replica) struct cli_replica r = {0};
    const struct opts *o = &c->opts;
    uint64_t duration_ns = opts_number(o, "duration");
    cli_hint(c, "sluice help probe");
    if (o->arg_count == 0)
        return err_set(err, RC_INVALID, "replica URL, database path or folder required");
    if (o->arg_count > 1) return err_set(err, RC_INVALID, "too many arguments");
    if (duration_ns < DURATION_MIN_NS || duration_ns > DURATION_MAX_NS)
        return err_set(err, RC_INVALID, "-duration must be between 1s and 1h");
    c->hint[0] = '\0';
    TRY(cli_open_replica(c, o->args[0], &r, err));
    const char *level = getenv("LOG_LEVEL");
    cli_start_log(r.cfg, level && level[0] ? level : "error", true); /* the report says it all */
    CLEANUP(mem_freep) struct probe_report *report = mem_calloc(1, sizeof *report);
    if (report == NULL) return err_mem(err, "a report");
    TRY(measure(&r, (int64_t)(duration_ns / 1000000), report, err));
    if (opts_bool(o, "json"))
        TRY(print_report_json(report, err));
    else
        TRY(print_report(report, err));
    if (report->interrupted) return err_set(err, RC_CANCELED, "interrupted");
    if (!report->for_backup)
        return err_set(err, RC_UNSUPPORTED, "not usable for backup: %s", report->why_not_backup);
    c->status = report->for_ha ? 0 : STATUS_NO_HA;
    return RC_OK;
}

static enum rc measure(const struct cli_replica *r, int64_t duration_ms, struct probe_report *ret,
                       struct err *err)
{
    struct progress progress;
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    const struct config_replica *replica = r->replica;
    const struct probe_opts opts = {.open = open_handle,
                                    .open_ctx = &replica,
                                    .duration_ms = duration_ms,
                                    .cancel = &canceled,
                                    .on_step = on_step,
                                    .on_step_ctx = &progress};
    progress_init(&progress);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    enum rc rc = probe_run(&opts, ret, err);
    progress_end(&progress);
    remove_folder(replica, ret);
    return rc;
}

/* A store has keys, not folders, so it leaves those of a file store behind. */
static void remove_folder(const struct config_replica *replica, const struct probe_report *r)
{
    char path[OS_PATH_MAX];
    struct err ignored;
    if (strcmp(replica->type, "file") != 0 || r->prefix[0] == '\0') return;
    int n = snprintf(path, sizeof path, "%s/%s", replica->path, r->prefix);
    if (n > 0 && (size_t)n < sizeof path && os_rmdir(path, &ignored) != RC_OK) err_clear(&ignored);
}

static enum rc open_handle(void *ctx, struct store **ret_store, struct err *err)
{
    const struct config_replica *const *replica = ctx;
    return config_replica_open(*replica, ret_store, err);
}

static void on_step(void *ctx, const char *name)
{
    progress_step(ctx, name);
}

static enum rc print_report(const struct probe_report *r, struct err *err)
{
    CLEANUP(table_fini) struct table t = {.columns = 3};
    TRY(table_row(&t, err, "check", "result", "measured"));
    for (enum probe_id id = 0, last; id < PROBE_COUNT; id = last + 1) {
        const struct probe_check *c = &r->checks[id];
        char name[64];
        last = id;
        while (c->result == PROBE_SKIPPED && last + 1 < PROBE_COUNT && same(c, c + 1 + last - id))
            last++;
        snprintf(name, sizeof name, "%s%s%s", probe_name(id), last > id ? " .. " : "",
                 last > id ? probe_name(last) : "");
        TRY(table_row(&t, err, name, probe_result_name(c->result), c->text));
    }
    printf("store: %s\nprefix: %s\n\n", r->store, r->prefix);
    table_print(&t, stdout);
    printf("\n");
    for (enum probe_id id = 0; id < PROBE_COUNT; id++)
        print_advice(r, id);
    for (size_t i = 0; i < r->left_count && i < SHOWN_LEFT; i++)
        printf("left: %s\n", r->left[i]);
    if (r->left_count > SHOWN_LEFT)
        printf("left: and %zu more below %s\n", r->left_count - SHOWN_LEFT, r->prefix);
    print_requests(r);
    printf("usable for backup: %s%s%s%s\n", r->for_backup ? "yes" : "no", r->for_backup ? "" : " (",
           r->why_not_backup, r->for_backup ? "" : ")");
    printf("usable for high availability: %s%s%s%s\n", r->for_ha ? "yes" : "no",
           r->for_ha ? "" : " (", r->why_not_ha, r->for_ha ? "" : ")");
    return RC_OK;
}

static bool same(const struct probe_check *a, const struct probe_check *b)
{
    return a->result == b->result && strcmp(a->text, b->text) == 0;
}

/* Once for all checks that have the same. */
static void print_advice(const struct probe_report *r, enum probe_id id)
{
    const char *advice = r->checks[id].advice;
    if (advice[0] == '\0') return;
    for (enum probe_id before = 0; before < id; before++)
        if (strcmp(r->checks[before].advice, advice) == 0) return;
    printf("%s", probe_name(id));
    for (enum probe_id after = id + 1; after < PROBE_COUNT; after++)
        if (strcmp(r->checks[after].advice, advice) == 0) printf(", %s", probe_name(after));
    printf(": %s\n", advice);
}

static void print_requests(const struct probe_report *r)
{
    const struct store_stats *s = &r->stats;
    char up[32], down[32], took[32];
    uint64_t failed = 0;
    size_put(s->bytes_up, up);
    size_put(s->bytes_down, down);
    duration_put(r->elapsed_ms * 1000000, took);
    printf("requests:");
    for (enum store_op op = 0; op < STORE_OP_COUNT; op++) {
        printf("%s %llu %s", op ? "," : "", (unsigned long long)s->requests[op], store_op_name(op));
        failed += s->failed[op];
    }
    printf("; %llu failed, %llu throttled; %s up, %s down; took %s\n", (unsigned long long)failed,
           (unsigned long long)s->throttled, up, down, took);
}

static enum rc print_report_json(const struct probe_report *r, struct err *err)
{
    json_t *list = json_array(), *left = json_array();
    for (enum probe_id id = 0; id < PROBE_COUNT; id++)
        json_array_append_new(list, check_json(r, id));
    for (size_t i = 0; i < r->left_count && i < PROBE_LEFT_MAX; i++)
        json_array_append_new(left, json_string(r->left[i]));
    if (json_array_size(list) != PROBE_COUNT) { /* one of them could not be built */
        json_decref(list);
        list = NULL;
    }
    return cli_print_json(
        json_pack("{s:s, s:s, s:s, s:I, s:b, s:s, s:b, s:s, s:b, s:o, s:o, s:I, s:o}", "store",
                  r->store, "type", r->type, "prefix", r->prefix, "elapsed_ms",
                  (json_int_t)r->elapsed_ms, "usable_for_backup", r->for_backup, "why_not_backup",
                  r->why_not_backup, "usable_for_high_availability", r->for_ha, "why_not_ha",
                  r->why_not_ha, "interrupted", r->interrupted, "checks", list, "requests",
                  requests_json(&r->stats), "left_count", (json_int_t)r->left_count, "left", left),
        err);
}

static json_t *check_json(const struct probe_report *r, enum probe_id id)
{
    const struct probe_check *c = &r->checks[id];
    json_t *figures = json_object();
    for (size_t i = 0; i < c->figure_count; i++)
        json_object_set_new(figures, c->figures[i].name, json_integer(c->figures[i].value));
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", probe_name(id), "result",
                     probe_result_name(c->result), "text", c->text, "advice", c->advice, "figures",
                     figures);
}

static json_t *requests_json(const struct store_stats *s)
{
    json_t *o = json_object();
    uint64_t failed = 0;
    for (enum store_op op = 0; op < STORE_OP_COUNT; op++) {
        json_object_set_new(o, store_op_name(op), json_integer((json_int_t)s->requests[op]));
        failed += s->failed[op];
    }
    json_object_set_new(o, "failed", json_integer((json_int_t)failed));
    json_object_set_new(o, "throttled", json_integer((json_int_t)s->throttled));
    json_object_set_new(o, "bytes_up", json_integer((json_int_t)s->bytes_up));
    json_object_set_new(o, "bytes_down", json_integer((json_int_t)s->bytes_down));
    return o;
}

static void on_signal(int sig)
{
    (void)sig;
    atomic_store(&canceled, true);
}
