/*
 * wire.c -- the streams of a WebSocket connection: each runs its messages one after another, and
 * streams do not wait for each other. See wire.h.
 *
 * A stream that has work is `running`: its first message belongs to whoever runs it. What is done
 * at once is run in a loop by the thread that brought it; what ends on another thread goes on by
 * the working crew, because that other thread is a writer's, with a group of its own to care for.
 */
#include "server/wire.h"
#include <string.h>
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"

#define FETCH_MAX  65536 /* entries of one answer */
#define COUNT_STEP 4096  /* bytes of entries that are counted at once */

static void open_stream(struct client *c, struct msg *m);
static void at_once(struct client *c, struct msg *m);
static void answer_error(struct msg *m, const char *code, const char *text);
static struct wstream *stream_of(struct client *c, const struct msg *m);
static struct wstream *find_stream(struct client *c, int32_t id);
static struct cursor *find_cursor(struct client *c, int32_t id);
static enum rc resolve_all(struct client *c, struct msg *m, struct err *err);
static enum rc resolve(struct client *c, struct msg *m, const struct hrana_sql *sql,
                       struct hrana_sql *last, struct err *err);
static bool enqueue(struct client *c, struct msg *m);
static void run_stream(struct wstream *st, struct msg *m);
static bool run_one(struct wstream *st, struct msg *m);
static bool begin_exec(struct msg *m);
static void exec_done(struct exec *x);
static void go_on_job(struct crew_job *job);
static struct msg *next_msg(struct wstream *st);
static void complete(struct msg *m);
static void close_stream(struct client *c, struct wstream *st);
static enum rc add_cursor(struct client *c, struct msg *m, struct err *err);
static enum rc count_entries(struct exec *x, struct err *err);
static uint64_t beyond_free(uint64_t bytes);
static void drop_entries(struct client *c, struct cursor *cur);
static void fetch(struct msg *m);
static void close_cursor(struct client *c, const struct wstream *st, int32_t id);
static void cursor_free(struct client *c, struct cursor *cur);

void wire_take(struct client *c, struct msg *m)
{
    const struct hrana_request *r = &m->m.request;
    switch (r->type) {
    case HRANA_OPEN_STREAM:
        open_stream(c, m);
        return;
    case HRANA_STORE_SQL:
    case HRANA_CLOSE_SQL:
        at_once(c, m);
        return;
    default:
        break;
    }
    struct err err;
    enum rc rc = resolve_all(c, m, &err);
    if (rc != RC_OK) {
        wire_violation(c, rc == RC_NOT_FOUND ? 1008 : rc == RC_TOO_BIG ? 1009 : 1011, err.text);
        wire_msg_free(m);
        return;
    }
    if (r->type == HRANA_OPEN_CURSOR && add_cursor(c, m, &err) != RC_OK)
        answer_error(m, err.rc == RC_NO_MEM ? "SQLITE_NOMEM" : "CURSOR_LIMIT", err.text);
    else if (enqueue(c, m))
        return;
    else if (r->type == HRANA_CLOSE_STREAM || r->type == HRANA_CLOSE_CURSOR)
        wire_answer_ok(m); /* what is not there is closed */
    else if (r->type == HRANA_FETCH_CURSOR)
        answer_error(m, "CURSOR_NOT_OPEN", "The cursor is not open");
    else
        answer_error(m, "STREAM_NOT_OPEN", "The stream is not open");
}

void wire_send(struct msg *m)
{
    struct err err;
    struct client *c = m->client;
    enum rc rc = hrana_put_end(m->enc, &err);
    if (rc == RC_OK) rc = ws_send(c->conn, c->proto, m->out.data, m->out.size, &err);
    if (rc != RC_OK && rc != RC_CANCELED) wire_violation(c, 1011, "out of memory");
    struct stats *stats = c->server->stats;
    stats_ask(stats, stats_class(stats, c->tenant), STATS_WEBSOCKET, 0, os_mono_us() - m->since_us,
              m->size, m->out.size);
    wire_msg_free(m);
}

void wire_answer_ok(struct msg *m)
{
    struct err err;
    enum rc rc = hrana_put_result_begin(m->enc, m->m.request.type, m->m.request_id, &err);
    if (rc == RC_OK) rc = hrana_put_result_end(m->enc, &err);
    if (rc == RC_OK) {
        wire_send(m);
        return;
    }
    wire_violation(m->client, 1011, "out of memory");
    wire_msg_free(m);
}

void wire_answer_error(struct msg *m, const struct sql_error *e)
{
    struct err err;
    if (hrana_put_result_error(m->enc, m->m.request_id, e, &err) == RC_OK) {
        wire_send(m);
        return;
    }
    wire_violation(m->client, 1011, "out of memory");
    wire_msg_free(m);
}

void wire_push(struct msg **last, struct msg *m)
{
    m->next = m;
    if (*last != NULL) {
        m->next = (*last)->next;
        (*last)->next = m;
    }
    *last = m;
}

struct msg *wire_pop(struct msg **last)
{
    if (*last == NULL) return NULL;
    struct msg *first = (*last)->next;
    if (first == *last)
        *last = NULL;
    else
        (*last)->next = first->next;
    return first;
}

/* Those of some streams may all wait for another one's, which must come through. */
size_t wire_pending_max(const struct client *c)
{
    return WIRE_PENDING_MAX + WIRE_PENDING_STREAM * c->stream_count;
}

void wire_msg_free(struct msg *m)
{
    struct client *c = m->client;
    hrana_encoder_free(m->enc);
    arena_free(m->arena);
    buf_fini(&m->out);
    mem_free(m);
    thr_lock(&c->lock);
    c->pending--;
    if (c->paused && c->pending <= wire_pending_max(c) / 2) {
        c->paused = false;
        ws_resume(c->conn);
    }
    thr_unlock(&c->lock);
    atomic_fetch_sub(&c->server->ws_busy, 1);
    client_unref(c);
}

void wire_violation(struct client *c, unsigned code, const char *reason)
{
    ws_close(c->conn, code, reason);
}

/* Messages may still be on their way, and wait for what an idle stream holds: it lets go now. */
void wire_gone(struct client *c)
{
    for (;;) {
        thr_lock(&c->lock);
        struct wstream *st = c->streams;
        while (st != NULL && (st->running || st->left))
            st = st->next;
        if (st != NULL) st->running = st->left = true;
        thr_unlock(&c->lock);
        if (st == NULL) return;
        struct msg *m = next_msg(st);
        if (m != NULL) run_stream(st, m);
    }
}

void wire_fini(struct client *c)
{
    for (struct cursor *next; c->cursors != NULL; c->cursors = next) {
        next = c->cursors->next;
        cursor_free(c, c->cursors);
    }
    for (struct wstream *next; c->streams != NULL; c->streams = next) {
        next = c->streams->next;
        session_fini(&c->streams->session);
        mem_free(c->streams);
    }
}

/* ---- Who gets it ---- */

static void open_stream(struct client *c, struct msg *m)
{
    int32_t id = m->m.request.stream_id;
    struct wstream *st = mem_calloc(1, sizeof *st);
    bool known = false, many = false;
    thr_lock(&c->lock);
    known = find_stream(c, id) != NULL;
    many = c->stream_count >= WIRE_STREAMS_MAX;
    if (st != NULL && !known && !many) {
        st->client = c;
        st->id = id;
        session_init(&st->session, c->tenant);
        session_grant(&st->session, c->grant);
        st->session.stored = &c->stored;
        st->next = c->streams;
        c->streams = st;
        c->stream_count++;
    }
    thr_unlock(&c->lock);
    if (st != NULL && !known && !many) {
        wire_answer_ok(m);
        return;
    }
    mem_free(st);
    if (known) {
        wire_violation(c, 1008, "stream_id is in use");
        wire_msg_free(m);
        return;
    }
    answer_error(m, many ? "STREAM_LIMIT" : "SQLITE_NOMEM",
                 many ? "Too many streams" : "No memory");
}

/* What belongs to the connection and is known to the messages behind it. */
static void at_once(struct client *c, struct msg *m)
{
    const struct hrana_request *r = &m->m.request;
    struct err err;
    enum rc rc = RC_OK;
    if (r->type == HRANA_STORE_SQL)
        rc = stored_set(&c->stored, r->sql.id, r->sql.text, r->sql.size, &err);
    else
        stored_drop(&c->stored, r->sql.id);
    if (rc == RC_OK)
        wire_answer_ok(m);
    else
        answer_error(m, "SQL_STORE_TOO_MANY", err.text);
}

static void answer_error(struct msg *m, const char *code, const char *text)
{
    struct sql_error e;
    sql_error_own(&e, code, "%s", text);
    wire_answer_error(m, &e);
}

/* Under the lock. */
static struct wstream *stream_of(struct client *c, const struct msg *m)
{
    const struct hrana_request *r = &m->m.request;
    if (r->type != HRANA_FETCH_CURSOR && r->type != HRANA_CLOSE_CURSOR)
        return find_stream(c, r->stream_id);
    struct cursor *cur = find_cursor(c, r->cursor_id);
    return cur != NULL ? cur->stream : NULL;
}

static struct wstream *find_stream(struct client *c, int32_t id)
{
    struct wstream *st = c->streams;
    while (st != NULL && st->id != id)
        st = st->next;
    return st;
}

static struct cursor *find_cursor(struct client *c, int32_t id)
{
    struct cursor *cur = c->cursors;
    while (cur != NULL && cur->id != id)
        cur = cur->next;
    return cur;
}

/* A text that is dropped by the next message must still be there for this one: it is copied. */
static enum rc resolve_all(struct client *c, struct msg *m, struct err *err)
{
    struct hrana_request *r = &m->m.request;
    struct hrana_sql last = {0};
    if (r->type == HRANA_EXECUTE) return resolve(c, m, &r->stmt.sql, &last, err);
    if (r->type == HRANA_SEQUENCE || r->type == HRANA_DESCRIBE)
        return resolve(c, m, &r->sql, &last, err);
    if (r->type != HRANA_BATCH && r->type != HRANA_OPEN_CURSOR) return RC_OK;
    for (size_t i = 0; i < r->batch.count; i++)
        TRY(resolve(c, m, &r->batch.steps[i].stmt.sql, &last, err));
    return RC_OK;
}

/* last: the one that was copied before. Many steps with one and the same text share its copy. */
static enum rc resolve(struct client *c, struct msg *m, const struct hrana_sql *sql,
                       struct hrana_sql *last, struct err *err)
{
    if (sql->text != NULL) return RC_OK;
    if (last->text == NULL || last->id != sql->id) {
        void *copy;
        const struct stored_sql *s = stored_find(&c->stored, sql->id);
        if (s == NULL)
            return err_set(err, RC_NOT_FOUND, "SQL text %d does not exist", (int)sql->id);
        TRY(arena_take(m->arena, s->size + 1, &copy, err));
        memcpy(copy, s->text, s->size);
        *last = (struct hrana_sql){.text = copy, .size = s->size, .id = sql->id};
    }
    *(struct hrana_sql *)(uintptr_t)sql = *last; /* in our own arena */
    return RC_OK;
}

/* ---- One after another ---- */

/* False: its stream is not open. Found and taken in one step, because another thread may be closing
 * it, and frees it when nothing waits for it any more. */
static bool enqueue(struct client *c, struct msg *m)
{
    bool idle = false;
    thr_lock(&c->lock);
    struct wstream *st = stream_of(c, m);
    if (st != NULL) {
        m->stream = st;
        if (m->cursor != NULL) m->cursor->stream = st;
        idle = !st->running;
        st->running = true;
        if (!idle) wire_push(&st->waiting, m);
    }
    thr_unlock(&c->lock);
    if (idle) run_stream(st, m);
    if (st == NULL && m->cursor != NULL) close_cursor(c, NULL, m->cursor->id);
    return st != NULL;
}

static void run_stream(struct wstream *st, struct msg *m)
{
    struct client *c = client_ref(st->client);
    while (m != NULL && run_one(st, m))
        m = next_msg(st);
    client_unref(c);
}

/* True: it is answered, and gone. False: somebody else goes on with it. */
static bool run_one(struct wstream *st, struct msg *m)
{
    struct client *c = m->client;
    switch (m->m.request.type) {
    case HRANA_CLOSE_STREAM:
        close_stream(c, st);
        break;
    case HRANA_CLOSE_CURSOR:
        close_cursor(c, st, m->m.request.cursor_id);
        break;
    case HRANA_FETCH_CURSOR:
        fetch(m);
        return true;
    default:
        return begin_exec(m);
    }
    wire_answer_ok(m);
    return true;
}

static bool begin_exec(struct msg *m)
{
    struct client *c = m->client;
    struct exec *x = &m->x;
    /* A connection may stay open for longer than its token is good, and get another one. */
    thr_lock(&c->lock);
    struct grant *grant = grant_ref(c->grant);
    thr_unlock(&c->lock);
    if (grant != m->stream->session.grant) session_grant(&m->stream->session, grant);
    bool expired = grant_expired(grant, os_now_ms() / 1000);
    grant_unref(grant);
    if (expired) {
        if (m->cursor != NULL) close_cursor(c, m->stream, m->cursor->id);
        answer_error(m, "AUTH_JWT_EXPIRED", "Unauthorized: `The JWT has expired`");
        return true;
    }
    x->enc = m->enc;
    x->out = &m->out;
    x->cursor = m->m.request.type == HRANA_OPEN_CURSOR;
    if (x->cursor) {
        x->enc = m->cursor->enc;
        x->out = &m->cursor->entries;
        x->grown = count_entries;
    }
    x->env = &c->server->env;
    x->ses = &m->stream->session;
    x->requests = &m->m.request;
    x->count = 1;
    x->arena = m->arena;
    x->gone = &c->gone;
    x->request_id = m->m.request_id;
    x->done = exec_done;
    x->ctx = m;
    atomic_store(&m->state, MSG_STARTING);
    exec_begin(x);
    if (atomic_exchange(&m->state, MSG_LEFT) != MSG_DONE) return false;
    complete(m);
    return true;
}

static void exec_done(struct exec *x)
{
    struct msg *m = x->ctx;
    if (atomic_exchange(&m->state, MSG_DONE) == MSG_STARTING) return; /* begin_exec goes on */
    struct wstream *st = m->stream;
    struct client *c = client_ref(m->client);
    complete(m);
    struct msg *next = next_msg(st);
    if (next != NULL) {
        next->job.run = go_on_job;
        crew_submit(c->server->env.work, &next->job, crew_key(c->tenant_name));
    }
    client_unref(c);
}

static void go_on_job(struct crew_job *job)
{
    struct msg *m = (struct msg *)((char *)job - offsetof(struct msg, job));
    run_stream(m->stream, m);
}

/* The stream's next message, or NULL: it is idle, or, if it was closed, gone. */
static struct msg *next_msg(struct wstream *st)
{
    struct client *c = st->client;
    for (;;) {
        thr_lock(&c->lock);
        struct msg *m = wire_pop(&st->waiting);
        bool closed = st->closed; /* once it does not run, it is another's */
        bool leave =
            m == NULL && !closed && atomic_load(&c->gone) && !sql_stream_clean(&st->session.stream);
        if (m == NULL && !leave) st->running = false;
        thr_unlock(&c->lock);
        if (leave) {
            sql_stream_end(&st->session.stream);
            continue;
        }
        if (m == NULL && closed) mem_free(st);
        if (m == NULL || !closed) return m;
        if (m->m.request.type == HRANA_FETCH_CURSOR)
            answer_error(m, "CURSOR_NOT_OPEN", "The cursor is not open");
        else
            answer_error(m, "STREAM_NOT_OPEN", "The stream is not open");
    }
}

static void complete(struct msg *m)
{
    struct exec *x = &m->x;
    enum rc rc = x->rc;
    if (rc == RC_OK && m->cursor != NULL) {
        wire_answer_ok(m);
        return;
    }
    if (rc == RC_OK) {
        wire_send(m);
        return;
    }
    if (m->cursor != NULL) close_cursor(m->client, m->stream, m->cursor->id);
    if (x->sql_err.code[0] == '\0')
        sql_error_own(&x->sql_err, rc == RC_INVALID ? "BAD_REQUEST" : "INTERNAL", "%s",
                      x->err.text);
    buf_reset(&m->out); /* of a result that is good, but not in the store */
    wire_answer_error(m, &x->sql_err);
}

static void close_stream(struct client *c, struct wstream *st)
{
    thr_lock(&c->lock);
    struct wstream **at = &c->streams;
    while (*at != st)
        at = &(*at)->next;
    *at = st->next;
    c->stream_count--;
    st->closed = true;
    struct cursor **cur = &c->cursors, *gone = NULL;
    while (*cur != NULL) {
        if ((*cur)->stream != st) {
            cur = &(*cur)->next;
            continue;
        }
        struct cursor *one = *cur;
        *cur = one->next;
        one->next = gone;
        gone = one;
        c->cursor_count--;
    }
    thr_unlock(&c->lock);
    for (struct cursor *next; gone != NULL; gone = next) {
        next = gone->next;
        cursor_free(c, gone);
    }
    session_fini(&st->session);
}

/* ---- Cursors ---- */

/* Known from now on: what follows may fetch from it before its batch has run. */
static enum rc add_cursor(struct client *c, struct msg *m, struct err *err)
{
    int32_t id = m->m.request.cursor_id;
    struct cursor *cur = mem_calloc(1, sizeof *cur);
    if (cur == NULL) return err_mem(err, "a cursor");
    cur->id = id;
    enum rc rc =
        hrana_encoder_new(c->proto, HRANA_FRAME_CURSOR, c->version, &cur->entries, &cur->enc, err);
    thr_lock(&c->lock);
    if (rc == RC_OK && find_cursor(c, id) != NULL)
        rc = err_set(err, RC_CONFLICT, "cursor %d is open already", (int)id);
    if (rc == RC_OK && c->cursor_count >= WIRE_CURSORS_MAX)
        rc = err_set(err, RC_TOO_BIG, "more than %d cursors", WIRE_CURSORS_MAX);
    if (rc == RC_OK) {
        cur->next = c->cursors;
        c->cursors = cur;
        c->cursor_count++;
    }
    thr_unlock(&c->lock);
    if (rc != RC_OK) {
        cursor_free(c, cur);
        return rc;
    }
    m->cursor = cur;
    return RC_OK;
}

/* A connection that has little gets it, whatever the others have; none gets all. */
static enum rc count_entries(struct exec *x, struct err *err)
{
    struct msg *m = x->ctx;
    struct client *c = m->client;
    struct cursor *cur = m->cursor;
    uint64_t one = c->server->opts.byte_max;
    if (cur->entries.size <= cur->counted) return RC_OK;
    size_t more = cur->entries.size - cur->counted;
    if (more < COUNT_STEP) more = COUNT_STEP;
    thr_lock(&c->lock);
    uint64_t bytes = c->entries + more;
    uint64_t shared = beyond_free(bytes) - beyond_free(c->entries);
    bool fits = beyond_free(bytes) <= WIRE_ENTRIES_CONN * one;
    if (fits && shared > 0) {
        fits = atomic_fetch_add(&c->server->entries, shared) + shared <= WIRE_ENTRIES_ALL * one;
        if (!fits) atomic_fetch_sub(&c->server->entries, shared);
    }
    if (fits) {
        c->entries = bytes;
        cur->counted += more;
    }
    thr_unlock(&c->lock);
    if (fits) return RC_OK;
    return err_set(err, RC_TOO_BIG, "the entries of cursors take too much memory");
}

static uint64_t beyond_free(uint64_t bytes)
{
    return bytes > WIRE_ENTRIES_FREE ? bytes - WIRE_ENTRIES_FREE : 0;
}

static void drop_entries(struct client *c, struct cursor *cur)
{
    buf_fini(&cur->entries);
    cur->at = 0;
    thr_lock(&c->lock);
    uint64_t bytes = c->entries - cur->counted;
    atomic_fetch_sub(&c->server->entries, beyond_free(c->entries) - beyond_free(bytes));
    c->entries = bytes;
    thr_unlock(&c->lock);
    cur->counted = 0;
}

static void fetch(struct msg *m)
{
    struct client *c = m->client;
    struct err err;
    const struct hrana_request *r = &m->m.request;
    thr_lock(&c->lock);
    struct cursor *cur = find_cursor(c, r->cursor_id);
    /* Of another stream: closed since, and its number given to another one. */
    if (cur != NULL && cur->stream != m->stream) cur = NULL;
    thr_unlock(&c->lock);
    if (cur == NULL) {
        answer_error(m, "CURSOR_NOT_OPEN", "The cursor is not open");
        return;
    }
    size_t used = 0;
    uint32_t count = r->max_count < FETCH_MAX ? r->max_count : FETCH_MAX;
    enum rc rc = hrana_put_result_begin(m->enc, HRANA_FETCH_CURSOR, m->m.request_id, &err);
    if (rc == RC_OK)
        rc = hrana_put_entries(m->enc, cur->entries.data + cur->at, cur->entries.size - cur->at,
                               count, &used, &err);
    cur->at += used;
    bool all = cur->at == cur->entries.size;
    if (rc == RC_OK) rc = hrana_put_fetched(m->enc, all, &err);
    if (all) drop_entries(c, cur); /* a client may leave it open */
    if (rc == RC_OK) rc = hrana_put_result_end(m->enc, &err);
    if (rc == RC_OK)
        wire_send(m);
    else
        answer_error(m, "INTERNAL", err.text);
}

static void close_cursor(struct client *c, const struct wstream *st, int32_t id)
{
    struct cursor *gone = NULL;
    thr_lock(&c->lock);
    for (struct cursor **at = &c->cursors; *at != NULL; at = &(*at)->next) {
        if ((*at)->id != id || (*at)->stream != st) continue;
        gone = *at;
        *at = gone->next;
        c->cursor_count--;
        break;
    }
    thr_unlock(&c->lock);
    cursor_free(c, gone);
}

static void cursor_free(struct client *c, struct cursor *cur)
{
    if (cur == NULL) return;
    hrana_encoder_free(cur->enc);
    drop_entries(c, cur);
    mem_free(cur);
}
