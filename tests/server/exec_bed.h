/* exec_bed.h -- executions without a server: JSON of a pipeline in, its results as text out.
 * Include after cmocka.h. */
#ifndef TESTS_SERVER_EXEC_BED_H
#define TESTS_SERVER_EXEC_BED_H
#include "server/exec.h"
#include "server/fake_tenants.h"

#define XBED_WAIT_MS 60000

struct xbed {
    struct tenants *ts;
    struct tenant *t;
    struct exec_env env;
    struct auth *auth;
    struct grant *grant;
    pthread_t ticker;
    atomic_bool stop;
};
struct xcall { /* one message on its way */
    struct exec x;
    struct arena *arena;
    struct hrana_encoder *enc;
    struct buf out; /* terminated, when it is done */
    char *body;
    struct hrana_pipeline p;
    atomic_bool gone;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

static inline void *xbed_tick(void *arg)
{
    struct xbed *b = arg;
    while (!atomic_load(&b->stop)) {
        exec_env_tick(&b->env);
        os_sleep_ms(10);
    }
    return NULL;
}

static inline void xbed_new(struct xbed *b, const struct sql_engine_opts *engine)
{
    struct err err;
    *b = (struct xbed){.ts = fake_new()};
    if (engine != NULL) b->ts->engine = *engine;
    if (fake_open(b->ts, "default", &b->t, &err) != RC_OK) fail_msg("%s", err.text);
    b->env = (struct exec_env){.ops = &fake_ops,
                               .tenants = b->ts,
                               .query_ms = 10000,
                               .turn_ms = 5000,
                               .txn_ms = 5000,
                               .durable_ms = 1000,
                               .byte_max = 1 << 20};
    exec_env_init(&b->env);
    assert_int_equal(
        crew_new(&(struct crew_opts){.name = "work", .threads = 4}, &b->env.work, &err), RC_OK);
    assert_int_equal(
        crew_new(&(struct crew_opts){.name = "slow", .threads = 2}, &b->env.slow, &err), RC_OK);
    assert_int_equal(auth_new(&(struct auth_opts){0}, &b->auth, &err), RC_OK);
    struct sql_error e;
    assert_int_equal(auth_header(b->auth, NULL, NULL, &b->grant, &e, &err), RC_OK);
    assert_int_equal(pthread_create(&b->ticker, NULL, xbed_tick, b), 0);
}

static inline void xbed_free(struct xbed *b)
{
    atomic_store(&b->stop, true);
    pthread_join(b->ticker, NULL);
    crew_free(b->env.work);
    crew_free(b->env.slow);
    exec_env_fini(&b->env);
    grant_unref(b->grant);
    auth_free(b->auth);
    fake_release(b->ts, b->t);
    fake_free(b->ts);
}

static inline void xbed_session(struct xbed *b, struct session *s)
{
    session_init(s, b->t);
    session_grant(s, b->grant);
}

static inline void xcall_done(struct exec *x)
{
    struct xcall *c = x->ctx;
    thr_lock(&c->lock);
    c->done = true;
    pthread_cond_broadcast(&c->cond);
    thr_unlock(&c->lock);
}

/* False: not even its message could be read. requests: the list's elements. */
static inline bool xcall_begin(struct xbed *b, struct xcall *c, struct session *s,
                               const char *requests)
{
    struct err err;
    *c = (struct xcall){0};
    pthread_mutex_init(&c->lock, NULL);
    thr_cond_init(&c->cond);
    if (asprintf(&c->body, "{\"requests\":[%s]}", requests) < 0) abort();
    enum rc rc = arena_new(1 << 22, &c->arena, &err);
    if (rc == RC_OK)
        rc = hrana_json_decoder.pipeline(c->arena, HRANA_3, c->body, strlen(c->body), &c->p, &err);
    if (rc == RC_INVALID) fail_msg("%s: %s", requests, err.text);
    if (rc == RC_OK)
        rc = hrana_encoder_new(false, HRANA_FRAME_PIPELINE, HRANA_3, &c->out, &c->enc, &err);
    if (rc == RC_OK) rc = hrana_put_begin(c->enc, NULL, NULL, &err);
    if (rc != RC_OK) {
        c->x.rc = rc;
        return false;
    }
    c->x.env = &b->env;
    c->x.ses = s;
    c->x.requests = c->p.requests;
    c->x.count = c->p.count;
    c->x.enc = c->enc;
    c->x.out = &c->out;
    c->x.arena = c->arena;
    c->x.gone = &c->gone;
    c->x.done = xcall_done;
    c->x.ctx = c;
    return true;
}

static inline bool xcall_is_done(struct xcall *c)
{
    thr_lock(&c->lock);
    bool done = c->done;
    thr_unlock(&c->lock);
    return done;
}

/* The results, or "" when all has failed. */
static inline const char *xcall_wait(struct xcall *c)
{
    struct err err;
    int64_t until = os_mono_ms() + XBED_WAIT_MS;
    thr_lock(&c->lock);
    while (!c->done)
        if (!thr_wait(&c->cond, &c->lock, until)) fail_msg("it hangs: %s", c->body);
    thr_unlock(&c->lock);
    if (c->x.rc != RC_OK || hrana_put_end(c->enc, &err) != RC_OK) return "";
    if (buf_append(&c->out, "", 1, &err) != RC_OK) return "";
    return (const char *)c->out.data;
}

static inline void xcall_fini(struct xcall *c)
{
    hrana_encoder_free(c->enc);
    arena_free(c->arena);
    buf_fini(&c->out);
    free(c->body);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->cond);
}

/* Run and compare: each of `want`, up to a NULL, must be in the answer, in this order. */
static inline void xbed_expect(struct xbed *b, struct session *s, const char *requests,
                               const char *const *want)
{
    struct xcall c;
    assert_true(xcall_begin(b, &c, s, requests));
    exec_begin(&c.x);
    const char *out = xcall_wait(&c), *at = out;
    for (; *want != NULL; want++) {
        at = strstr(at, *want);
        if (at == NULL)
            fail_msg("no %s in the answer to %s:\n%s (%d %s)", *want, requests, out, (int)c.x.rc,
                     c.x.rc != RC_OK ? c.x.err.text : "");
        at += strlen(*want);
    }
    xcall_fini(&c);
}
#define EXPECT(b, s, requests, ...)                                                                \
    xbed_expect(b, s, requests, (const char *const[]){__VA_ARGS__, NULL})

#define SQL(text)           "{\"type\":\"execute\",\"stmt\":{\"sql\":\"" text "\"}}"
#define SCRIPT(text)        "{\"type\":\"sequence\",\"sql\":\"" text "\"}"
#define STEP(text)          "{\"stmt\":{\"sql\":\"" text "\"}}"
#define STEP_IF(cond, text) "{\"condition\":" cond ",\"stmt\":{\"sql\":\"" text "\"}}"
#define OK_IF(n)            "{\"type\":\"ok\",\"step\":" #n "}"
#define BATCH(steps)        "{\"type\":\"batch\",\"batch\":{\"steps\":[" steps "]}}"
#define BAD                 "\"type\":\"error\""
#define GOOD                "\"type\":\"ok\""
#define INT(n)              "{\"type\":\"integer\",\"value\":\"" #n "\"}"

/* One integer of the database, by a session of its own. */
static inline int64_t xbed_int(struct xbed *b, const char *sql)
{
    struct session s;
    struct xcall c;
    char *text;
    long long value = 0;
    xbed_session(b, &s);
    if (asprintf(&text, "{\"type\":\"execute\",\"stmt\":{\"sql\":\"%s\"}}", sql) < 0) abort();
    assert_true(xcall_begin(b, &c, &s, text));
    exec_begin(&c.x);
    const char *out = xcall_wait(&c), *at = strstr(out, "\"rows\":[[");
    if (at == NULL || sscanf(at, "\"rows\":[[{\"type\":\"integer\",\"value\":\"%lld", &value) != 1)
        fail_msg("%s: %s", sql, out);
    xcall_fini(&c);
    session_fini(&s);
    free(text);
    return value;
}
#endif
