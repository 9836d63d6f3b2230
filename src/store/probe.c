/* probe.c -- the order of the checks, the verdicts, and cleaning up; see probe.h. */
#include "store/probe.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/probe_intern.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CLEAN_MS 15000 /* how long cleaning up may take after the time is over */

enum need { NEED_INFO, NEED_MOVE, NEED_BACKUP, NEED_HA };
static const struct {
    const char *name;
    enum need need;
} checks[PROBE_COUNT] = {
#define X(NAME, name, need) [PROBE_##NAME] = {name, NEED_##need},
    PROBE_CHECKS(X)
#undef X
};

/* Getting a small text. */
struct taker {
    char *out;
    size_t size;
};
/* What is left after cleaning up. */
struct leavings {
    char (*keys)[PROBE_KEY_SIZE];
    size_t count;
};

static enum rc open_all(struct probe *p, struct err *err);
static void close_all(struct probe *p);
static void run_checks(struct probe *p);
static void check_permissions(struct probe *p);
static void note_access(struct probe *p, enum probe_id id, enum rc rc, const struct err *err,
                        int64_t us);
static bool reached(enum rc rc);
static void clean_up(struct probe *p);
static void find_left(struct probe *p, const struct call *c, struct leavings *left);
static enum rc take_left(void *ctx, const struct store_obj *obj, struct err *err);
static void judge(struct probe *p);
static bool missed(const struct probe_check *c, enum need need);
static const char *advice_for(enum rc rc);
static enum rc take_text(void *ctx, const void *data, size_t size, struct err *err);
static enum rc take_any(void *ctx, const struct store_obj *obj, struct err *err);

enum rc probe_run(const struct probe_opts *opts, struct probe_report *ret_report, struct err *err)
{
    CLEANUP(mem_freep) struct probe *p = mem_calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "the probe");
    *ret_report = (struct probe_report){0};
    p->opts = opts;
    p->r = ret_report;
    p->seed = os_random();
    p->start_ms = os_mono_ms();
    p->call = (struct call){.cancel = opts->cancel, .deadline_ms = p->start_ms + opts->duration_ms};
    pthread_mutex_init(&p->lock, NULL);
    snprintf(p->r->prefix, sizeof p->r->prefix, "sluice-probe-%016llx/",
             (unsigned long long)p->seed);
    enum rc rc = open_all(p, err);
    if (rc == RC_OK) run_checks(p);
    close_all(p);
    pthread_mutex_destroy(&p->lock);
    return rc;
}

const char *probe_name(enum probe_id id)
{
    return checks[id].name;
}

const char *probe_result_name(enum probe_result res)
{
    static const char *const names[] = {[PROBE_SKIPPED] = "skipped",
                                        [PROBE_OK] = "ok",
                                        [PROBE_WARNING] = "warning",
                                        [PROBE_FAILED] = "failed",
                                        [PROBE_NOT_OFFERED] = "not offered"};
    return names[res];
}

static enum rc open_all(struct probe *p, struct err *err)
{
    while (p->store_count < PROBE_HANDLES) {
        TRY(p->opts->open(p->opts->open_ctx, &p->stores[p->store_count], err));
        p->store_count++;
    }
    snprintf(p->r->store, sizeof p->r->store, "%s", store_name(p->stores[0]));
    snprintf(p->r->type, sizeof p->r->type, "%s", store_type(p->stores[0]));
    return RC_OK;
}

static void close_all(struct probe *p)
{
    struct store_stats one, *all = &p->r->stats;
    for (unsigned i = 0; i < p->store_count; i++) {
        store_stats(p->stores[i], &one);
        for (int op = 0; op < STORE_OP_COUNT; op++) {
            all->requests[op] += one.requests[op];
            all->failed[op] += one.failed[op];
        }
        all->throttled += one.throttled;
        all->bytes_up += one.bytes_up;
        all->bytes_down += one.bytes_down;
        store_close(p->stores[i]);
    }
}

static void run_checks(struct probe *p)
{
    check_permissions(p);
    bool can_all = probe__passed(p, PROBE_PUT) && probe__passed(p, PROBE_GET) &&
                   probe__passed(p, PROBE_LIST) && probe__passed(p, PROBE_DELETE);
    if (can_all) {
        probe__seen(p);
        probe__changed(p);
        probe__races(p);
        probe__speed(p);
    } else {
        for (int id = PROBE_DELETE + 1; id < PROBE_CLEANUP; id++)
            if (p->r->checks[id].text[0] == '\0')
                probe__set(p, (enum probe_id)id, PROBE_SKIPPED, "",
                           "not tried: put, get, list and delete are needed for it");
    }
    p->r->interrupted = p->call.cancel != NULL && atomic_load(p->call.cancel);
    clean_up(p);
    judge(p);
    p->r->elapsed_ms = os_mono_ms() - p->start_ms;
}

/* The four kinds of requests, each told apart; the first one also tells whether anybody is there.
 */
static void check_permissions(struct probe *p)
{
    struct store *s = probe__store(p, 0);
    char key[PROBE_KEY_SIZE], text[PROBE_TEXT_MAX];
    struct err err = {0};
    probe__begin(p, PROBE_ACCESS);
    int64_t us = os_mono_us();
    enum rc rc = store_list(s, &p->call, p->r->prefix, NULL, take_any, NULL, &err);
    us = os_mono_us() - us;
    if (!reached(rc)) {
        probe__fail(p, PROBE_ACCESS, &err, "");
        for (int id = PROBE_LIST; id < PROBE_CLEANUP; id++)
            probe__set(p, (enum probe_id)id, PROBE_SKIPPED, "", "not tried: there is no access");
        return;
    }
    probe__set(p, PROBE_ACCESS, PROBE_OK, "", "the first answer took %.1f ms", (double)us / 1000);
    probe__figure(p, PROBE_ACCESS, "first_answer_us", us);
    note_access(p, PROBE_LIST, rc, &err, us);
    probe__key(p, key, "access");
    us = os_mono_us();
    rc = probe__put(p, s, key, "may I?", NULL, NULL, &err);
    if (rc == RC_DENIED) p->key_count = 0; /* nothing to clean up */
    note_access(p, PROBE_PUT, rc, &err, os_mono_us() - us);
    us = os_mono_us();
    rc = probe__get(p, s, key, text, NULL, &err);
    if (rc == RC_NOT_FOUND) rc = RC_OK; /* an answer, too; whether in time is another check */
    note_access(p, PROBE_GET, rc, &err, os_mono_us() - us);
    us = os_mono_us();
    rc = store_del(s, &p->call, (const char *[]){key}, 1, &err);
    note_access(p, PROBE_DELETE, rc, &err, os_mono_us() - us);
    for (int id = PROBE_LIST; id <= PROBE_DELETE; id++)
        if (p->r->checks[id].result == PROBE_OK) return;
    probe__set(p, PROBE_ACCESS, PROBE_FAILED, advice_for(RC_DENIED),
               "the store answers, but refuses everything");
}

static void note_access(struct probe *p, enum probe_id id, enum rc rc, const struct err *err,
                        int64_t us)
{
    if (rc != RC_OK) {
        probe__fail(p, id, err, "");
        return;
    }
    probe__set(p, id, PROBE_OK, "", "permitted");
    probe__figure(p, id, "us", us);
}

/* Did the store itself answer? */
static bool reached(enum rc rc)
{
    return rc == RC_OK || rc == RC_DENIED;
}

/* Not bound by the time of the checks, nor by their cancel flag: what was made is taken away. */
static void clean_up(struct probe *p)
{
    const char *keys[PROBE_KEYS_MAX];
    struct err err = {0};
    size_t count = p->key_count;
    const struct call c = {.deadline_ms = os_mono_ms() + CLEAN_MS};
    CLEANUP(mem_freep) char(*space)[PROBE_KEY_SIZE] = mem_calloc(PROBE_KEYS_MAX, PROBE_KEY_SIZE);
    struct leavings left = {.keys = space};
    if (p->opts->on_step) p->opts->on_step(p->opts->on_step_ctx, checks[PROBE_CLEANUP].name);
    for (size_t i = 0; i < count; i++)
        keys[i] = p->keys[i];
    enum rc rc = count == 0 ? RC_OK : store_del(probe__store(p, 0), &c, keys, count, &err);
    if (space != NULL && count > 0) find_left(p, &c, &left);
    if (rc == RC_OK && left.count == 0) {
        probe__set(p, PROBE_CLEANUP, PROBE_OK, "", count ? "nothing is left" : "nothing was made");
        return;
    }
    p->r->left_count = left.count;
    for (size_t i = 0; i < left.count && i < PROBE_LEFT_MAX; i++)
        memcpy(p->r->left[i], left.keys[i], PROBE_KEY_SIZE);
    if (left.count > 0) {
        probe__set(p, PROBE_CLEANUP, PROBE_FAILED, "Delete what is below the prefix by hand.",
                   "%zu objects are left below %s%s%s", left.count, p->r->prefix,
                   rc == RC_OK ? "" : ": ", rc == RC_OK ? "" : err.text);
    } else {
        probe__fail(p, PROBE_CLEANUP, &err, "");
    }
}

/* What the listing shows and a get confirms, since a listing may lag; without a listing, all those
 * that a get finds. */
static void find_left(struct probe *p, const struct call *c, struct leavings *left)
{
    char text[PROBE_TEXT_MAX];
    struct err err;
    struct store *s = probe__store(p, 1);
    struct leavings seen = {.keys = left->keys};
    if (store_list(s, c, p->r->prefix, NULL, take_left, &seen, &err) != RC_OK) {
        seen.count = p->key_count;
        memcpy(seen.keys, p->keys, seen.count * PROBE_KEY_SIZE);
    }
    for (size_t i = 0; i < seen.count; i++) {
        struct taker t = {.out = text};
        const struct store_get_opts first = {.size = 1};
        if (store_get(s, c, seen.keys[i], &first, take_text, &t, &err) == RC_NOT_FOUND) continue;
        memmove(left->keys[left->count++], seen.keys[i], PROBE_KEY_SIZE);
    }
}

static enum rc take_left(void *ctx, const struct store_obj *obj, struct err *err)
{
    struct leavings *seen = ctx;
    (void)err;
    if (seen->count == PROBE_KEYS_MAX || strlen(obj->key) >= PROBE_KEY_SIZE) return RC_OK;
    snprintf(seen->keys[seen->count++], PROBE_KEY_SIZE, "%.*s", PROBE_KEY_SIZE - 1, obj->key);
    return RC_OK;
}

static void judge(struct probe *p)
{
    struct probe_report *r = p->r;
    for (int id = 0; id < PROBE_COUNT; id++) {
        const struct probe_check *c = &r->checks[id];
        enum need need = checks[id].need;
        char why[sizeof r->why_not_ha];
        if (!missed(c, need)) continue;
        snprintf(why, sizeof why, "%s: %s: %s", checks[id].name, probe_result_name(c->result),
                 c->text);
        if (need != NEED_HA && r->why_not_backup[0] == '\0')
            snprintf(r->why_not_backup, sizeof r->why_not_backup, "%s", why);
        if (r->why_not_ha[0] == '\0') snprintf(r->why_not_ha, sizeof r->why_not_ha, "%s", why);
    }
    r->for_backup = r->why_not_backup[0] == '\0';
    r->for_ha = r->why_not_ha[0] == '\0';
}

static bool missed(const struct probe_check *c, enum need need)
{
    bool passed = c->result == PROBE_OK || c->result == PROBE_WARNING;
    switch (need) {
    case NEED_INFO:
        return false;
    case NEED_MOVE:
        return c->result == PROBE_FAILED;
    case NEED_BACKUP:
        return !passed && c->result != PROBE_NOT_OFFERED;
    case NEED_HA:
        break;
    }
    return !passed;
}

void probe__key(struct probe *p, char out[PROBE_KEY_SIZE], const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(out, PROBE_KEY_SIZE, "%s", p->r->prefix);
    va_start(ap, fmt);
    n = vsnprintf(out + n, PROBE_KEY_SIZE - (size_t)n, fmt, ap) + n;
    va_end(ap);
    ASSERT(n > 0 && n < PROBE_KEY_SIZE);
    thr_lock(&p->lock);
    ASSERT(p->key_count < PROBE_KEYS_MAX);
    memcpy(p->keys[p->key_count++], out, PROBE_KEY_SIZE);
    thr_unlock(&p->lock);
}

struct store *probe__store(const struct probe *p, uint64_t i)
{
    return p->stores[i % p->store_count];
}

enum rc probe__put(struct probe *p, struct store *s, const char *key, const char *text,
                   const struct store_put_opts *opts, struct store_obj *ret_obj, struct err *err)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, &p->call, key, &body, opts, ret_obj, err);
}

enum rc probe__get(struct probe *p, struct store *s, const char *key, char out[PROBE_TEXT_MAX],
                   struct store_obj *ret_obj, struct err *err)
{
    struct taker t = {.out = out};
    out[0] = '\0';
    return store_get(s, &p->call, key, &(struct store_get_opts){.ret_obj = ret_obj}, take_text, &t,
                     err);
}

void probe__set(struct probe *p, enum probe_id id, enum probe_result res, const char *advice,
                const char *fmt, ...)
{
    struct probe_check *c = &p->r->checks[id];
    va_list ap;
    c->result = res;
    snprintf(c->advice, sizeof c->advice, "%s", advice);
    va_start(ap, fmt);
    vsnprintf(c->text, sizeof c->text, fmt, ap);
    va_end(ap);
}

void probe__fail(struct probe *p, enum probe_id id, const struct err *err, const char *what)
{
    bool stopped = p->call.cancel != NULL && atomic_load(p->call.cancel);
    bool late = err->rc == RC_CANCELED || (rc_retryable(err->rc) && probe__left_ms(p) == 0);
    if (stopped)
        probe__set(p, id, PROBE_SKIPPED, "", "interrupted");
    else if (late && id > PROBE_DELETE && id < PROBE_CLEANUP)
        probe__set(p, id, PROBE_SKIPPED, "Give it more time with -duration.", "the time was over");
    else
        probe__set(p, id, err->rc == RC_UNSUPPORTED ? PROBE_NOT_OFFERED : PROBE_FAILED,
                   advice_for(err->rc), "%s%s%s", what, what[0] ? ": " : "", err->text);
}

void probe__figure(struct probe *p, enum probe_id id, const char *name, int64_t value)
{
    struct probe_check *c = &p->r->checks[id];
    ASSERT(c->figure_count < PROBE_FIGURES_MAX);
    c->figures[c->figure_count++] = (struct probe_figure){name, value};
}

bool probe__begin(struct probe *p, enum probe_id id)
{
    struct err err = {0};
    if (p->opts->on_step) p->opts->on_step(p->opts->on_step_ctx, checks[id].name);
    if (call_check(&p->call, &err) == RC_OK) return true;
    probe__fail(p, id, &err, "");
    return false;
}

bool probe__passed(const struct probe *p, enum probe_id id)
{
    enum probe_result res = p->r->checks[id].result;
    return res == PROBE_OK || res == PROBE_WARNING;
}

int64_t probe__left_ms(const struct probe *p)
{
    int64_t left = p->call.deadline_ms - os_mono_ms();
    return left > 0 ? left : 0;
}

static const char *advice_for(enum rc rc)
{
    switch (rc) {
    case RC_DENIED:
        return "Check the credentials and what they are allowed to do with this bucket or folder.";
    case RC_NOT_FOUND:
        return "Check the name of the bucket or folder; it must be there.";
    case RC_NO_SPACE:
        return "Make room, or raise the quota.";
    case RC_UNSUPPORTED:
        return "This store cannot do it; choose another if you need it.";
    case RC_CANCELED:
    case RC_AGAIN:
    case RC_BUSY:
        return "Check address, network, TLS and proxy; then try again, with a longer -duration.";
    default:
        return ""; /* the store's own words must do */
    }
}

static enum rc take_text(void *ctx, const void *data, size_t size, struct err *err)
{
    struct taker *t = ctx;
    if (size >= PROBE_TEXT_MAX - t->size)
        return err_set(err, RC_TOO_BIG, "an object is larger than what was put");
    memcpy(t->out + t->size, data, size);
    t->size += size;
    t->out[t->size] = '\0';
    return RC_OK;
}

static enum rc take_any(void *ctx, const struct store_obj *obj, struct err *err)
{
    (void)ctx, (void)obj, (void)err;
    return RC_OK;
}
