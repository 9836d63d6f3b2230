/* load.c -- see load.h. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "load.h"

#define CLIENTS_MAX 8
#define TEXT_SIZE   (4 * PARTS_MAX * (BODY_MAX + 512) + 4096)
#define NAMES       4 /* of the administrator's tenants */
#define SCHEMA                                                                                     \
    "CREATE TABLE t(id INTEGER, part INTEGER, parts INTEGER, body TEXT);"                          \
    "CREATE INDEX t_id ON t(id);"                                                                  \
    "CREATE TABLE c(n INTEGER); INSERT INTO c VALUES(0);"                                          \
    "CREATE TRIGGER t_c AFTER INSERT ON t BEGIN UPDATE c SET n = n + 1; END"

struct client {
    struct load *load;
    const char *tenant;
    struct peer *peer, *admin;
    struct rng rng;
    char *text; /* of a request */
    size_t used;
    pthread_t thread;
};
struct load {
    struct load_opts opts;
    struct client clients[CLIENTS_MAX];
    int count;
    bool there[NAMES]; /* the administrator's */
    atomic_bool stop;
};

static _Atomic uint32_t next_id = 1;

static void add_client(struct load *l, const char *tenant);
static void note_tenants(struct load *l, struct client *c);
static bool make_tenant(struct client *c, const char *name, bool sync);
static void *run_writer(void *arg);
static void checkpoint(struct client *c, const char *tenant);
static void *run_admin(void *arg);
static void write_some(struct client *c, const char *tenant);
static enum event_end write_lone(struct client *c, const char *tenant, uint32_t id);
static enum event_end write_batch(struct client *c, const char *tenant, uint32_t id);
static enum event_end write_slowly(struct client *c, const char *tenant, uint32_t id, bool undo);
static bool step_slowly(struct client *c, const char *tenant, char baton[256]);
static void put(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put_insert(struct client *c, uint32_t id, int part);
static void begin_text(struct client *c, const char *baton);
static enum event_end send_text(struct client *c, const char *tenant, const char **ret_answer);
static bool admin(struct client *c, struct event *e, const char *method, const char *body,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void look(struct client *c, struct event *e, const char *name);
static void admin_step(struct client *c);
static bool admin_import(struct client *c, const char *name);
static void admin_configure(struct client *c, const char *name);
static void admin_restore(struct client *c, const char *name);

size_t load_body(uint32_t id, int part, char out[BODY_MAX])
{
    struct rng r = rng_of(id, (uint64_t)part + 1);
    size_t size = rng_percent(&r, 80) ? rng_below(&r, 300) : rng_below(&r, BODY_MAX - 32);
    for (size_t i = 0; i < size; i++)
        out[i] = (char)('a' + rng_next(&r) % 26);
    out[size] = '\0';
    return size;
}

int load_parts(uint32_t id)
{
    struct rng r = rng_of(id, 0);
    return rng_percent(&r, 50) ? 1 : rng_between(&r, 2, PARTS_MAX);
}

struct load *load_begin(const struct load_opts *opts)
{
    struct load *l = calloc(1, sizeof *l);
    if (l == NULL) die("out of memory");
    l->opts = *opts;
    add_client(l, "");
    for (int i = 0; i < opts->clients_a; i++)
        add_client(l, "a");
    for (int i = 0; i < opts->clients_s; i++)
        add_client(l, "s");
    note_tenants(l, &l->clients[0]);
    for (int i = 0; i < l->count; i++) {
        struct client *c = &l->clients[i];
        if (pthread_create(&c->thread, NULL, i == 0 ? run_admin : run_writer, c) != 0)
            die("a thread for a client");
    }
    return l;
}

void load_stop(struct load *l)
{
    atomic_store(&l->stop, true);
}

void load_end(struct load *l)
{
    load_stop(l);
    for (int i = 0; i < l->count; i++) {
        struct client *c = &l->clients[i];
        pthread_join(c->thread, NULL);
        peer_free(c->peer);
        peer_free(c->admin);
        free(c->text);
    }
    free(l);
}

static void add_client(struct load *l, const char *tenant)
{
    if (l->count == CLIENTS_MAX) die("too many clients");
    struct client *c = &l->clients[l->count++];
    *c = (struct client){.load = l, .tenant = tenant};
    c->rng = rng_of(l->opts.seed, (uint64_t)l->count);
    c->peer = peer_new(l->opts.socket);
    c->admin = peer_new(l->opts.admin_socket);
    c->text = malloc(TEXT_SIZE);
    if (c->text == NULL) die("out of memory");
}

/* What an earlier power failure has left is known by looking, and is on disk. */
static void note_tenants(struct load *l, struct client *c)
{
    const char *answer;
    char list[8192];
    bool fixed_a = false, fixed_s = false;
    if (peer_ask(c->admin, "GET", "/v1/namespaces", NULL, &answer) != 200)
        die("the list of namespaces: %s", answer);
    snprintf(list, sizeof list, "%s", answer);
    for (const char *at = list; (at = strstr(at, "\"name\":\"")) != NULL;) {
        char name[NAME_MAX_SIZE] = "";
        at += strlen("\"name\":\"");
        size_t size = strcspn(at, "\"");
        if (strncmp(at + size, "\",\"open\":", 9) != 0) continue; /* of a log that it had */
        snprintf(name, sizeof name, "%.*s", (int)size, at);
        struct event *e = journal_begin(l->opts.journal, EVENT_CREATE, name, NULL, 0);
        e->since = e->told = 0;
        e->end = END_OK;
        e->mode = strcmp(name, "s") == 0 ? MODE_SYNC : MODE_UNKNOWN;
        look(c, e, name);
        if (!e->seen_known) die("namespace '%s' cannot be read", name);
        fixed_a |= strcmp(name, "a") == 0;
        fixed_s |= strcmp(name, "s") == 0;
        if (name[0] == 'd' && name[1] >= '0' && name[1] < '0' + NAMES)
            l->there[name[1] - '0'] = true;
        char answer_n[32];
        static const char any[] = "SELECT count(*) FROM sqlite_schema WHERE name='t'";
        if (!peer_value(c->peer, name, any, answer_n, sizeof answer_n)) die("'%s'", name);
        if (strcmp(answer_n, "0") != 0) continue;
        begin_text(c, NULL);
        put(c,
            "{\"type\":\"sequence\",\"sql\":\"BEGIN;" SCHEMA ";COMMIT\"},{\"type\":\"close\"}]}");
        if (send_text(c, name, NULL) != END_OK) die("the schema of '%s'", name);
    }
    if (!fixed_a && !make_tenant(c, "a", false)) die("namespace 'a' cannot be made");
    if (!fixed_s && !make_tenant(c, "s", true)) die("namespace 's' cannot be made");
}

/* The schema is one transaction, so t is there with everything else, or not. */
static bool make_tenant(struct client *c, const char *name, bool sync)
{
    struct event *e = journal_begin(c->load->opts.journal, EVENT_CREATE, name, NULL, 0);
    e->mode = sync ? MODE_SYNC : MODE_ASYNC;
    if (!admin(c, e, "POST", sync ? "{\"durability_mode\":\"extra\"}" : "{}", "%s/create", name))
        return false;
    begin_text(c, NULL);
    put(c, "{\"type\":\"sequence\",\"sql\":\"BEGIN;" SCHEMA ";COMMIT\"},{\"type\":\"close\"}]}");
    return send_text(c, name, NULL) == END_OK;
}

static void *run_writer(void *arg)
{
    struct client *c = arg;
    while (!atomic_load(&c->load->stop)) {
        write_some(c, c->tenant);
        if (rng_percent(&c->rng, 10)) sleep_ms((int64_t)rng_below(&c->rng, 60));
        if (rng_percent(&c->rng, 1)) checkpoint(c, c->tenant);
    }
    return NULL;
}

static void checkpoint(struct client *c, const char *tenant)
{
    char path[64];
    snprintf(path, sizeof path, "/v1/namespaces/%s/checkpoint", tenant);
    (void)peer_ask(c->admin, "POST", path, "{}", NULL);
}

static void *run_admin(void *arg)
{
    struct client *c = arg;
    while (!atomic_load(&c->load->stop))
        admin_step(c);
    return NULL;
}

/* ---- rows ---- */

static void write_some(struct client *c, const char *tenant)
{
    uint32_t id = atomic_fetch_add(&next_id, 1);
    struct event *e = journal_begin(c->load->opts.journal, EVENT_ROWS, tenant, NULL, id);
    enum event_end end;
    if (load_parts(id) == 1)
        end = write_lone(c, tenant, id);
    else if (rng_percent(&c->rng, 60))
        end = write_batch(c, tenant, id);
    else
        end = write_slowly(c, tenant, id, rng_percent(&c->rng, 15));
    if (end != END_NONE) journal_end(c->load->opts.journal, e, end);
    if (end == END_NONE) sleep_ms(1); /* the server is gone */
}

static enum event_end write_lone(struct client *c, const char *tenant, uint32_t id)
{
    begin_text(c, NULL);
    put(c, "{\"type\":\"execute\",\"stmt\":{");
    put_insert(c, id, 0);
    put(c, "}},{\"type\":\"close\"}]}");
    return send_text(c, tenant, NULL);
}

/* As clients send it: each step on condition that the one before it was done. */
static enum event_end write_batch(struct client *c, const char *tenant, uint32_t id)
{
    int parts = load_parts(id), done = 0;
    const char *answer;
    begin_text(c, NULL);
    put(c, "{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"BEGIN IMMEDIATE\"}}");
    for (int i = 0; i <= parts; i++) {
        put(c, ",{\"condition\":{\"type\":\"ok\",\"step\":%d},\"stmt\":{", i);
        if (i < parts)
            put_insert(c, id, i);
        else
            put(c, "\"sql\":\"COMMIT\"");
        put(c, "}}");
    }
    put(c, "]}},{\"type\":\"close\"}]}");
    enum event_end end = send_text(c, tenant, &answer);
    if (end != END_OK) return end;
    for (const char *at = answer; (at = strstr(at, "\"affected_row_count\"")) != NULL; at++)
        done++;
    return done == parts + 2 ? END_OK : END_FAILED;
}

static enum event_end write_slowly(struct client *c, const char *tenant, uint32_t id, bool undo)
{
    int parts = load_parts(id);
    char baton[256] = "";
    begin_text(c, NULL);
    put(c, "{\"type\":\"execute\",\"stmt\":{\"sql\":\"BEGIN%s\"}}]}",
        rng_percent(&c->rng, 50) ? " IMMEDIATE" : "");
    if (!step_slowly(c, tenant, baton)) return *baton == '\0' ? END_NONE : END_FAILED;
    for (int i = 0; i < parts;) {
        int now = rng_between(&c->rng, 1, 5);
        begin_text(c, baton);
        for (int k = 0; k < now && i < parts; k++, i++) {
            put(c, "%s{\"type\":\"execute\",\"stmt\":{", k > 0 ? "," : "");
            put_insert(c, id, i);
            put(c, "}}");
        }
        put(c, "]}");
        if (!step_slowly(c, tenant, baton)) return END_NONE;
    }
    begin_text(c, baton);
    put(c, "{\"type\":\"execute\",\"stmt\":{\"sql\":\"%s\"}},{\"type\":\"close\"}]}",
        undo ? "ROLLBACK" : "COMMIT");
    enum event_end end = send_text(c, tenant, NULL);
    return undo ? (end == END_NONE ? END_NONE : END_UNDONE) : end;
}

/* What is in the stream's transaction only. A step that fails ends the transaction with its
 * stream, sooner or later, and what was in it counts as not known. */
static bool step_slowly(struct client *c, const char *tenant, char baton[256])
{
    const char *answer;
    if (send_text(c, tenant, &answer) != END_OK) return false;
    const char *at = strstr(answer, "\"baton\":\"");
    if (at == NULL) return false;
    at += strlen("\"baton\":\"");
    snprintf(baton, 256, "%.*s", (int)strcspn(at, "\""), at);
    return true;
}

static void put(struct client *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int size = vsnprintf(c->text + c->used, TEXT_SIZE - c->used, fmt, args);
    va_end(args);
    if (size < 0 || (size_t)size >= TEXT_SIZE - c->used) die("a request is too long");
    c->used += (size_t)size;
}

static void put_insert(struct client *c, uint32_t id, int part)
{
    char body[BODY_MAX];
    load_body(id, part, body);
    put(c,
        "\"sql\":\"INSERT INTO t "
        "VALUES(?,?,?,?)\",\"args\":[{\"type\":\"integer\",\"value\":\"%u\"},"
        "{\"type\":\"integer\",\"value\":\"%d\"},{\"type\":\"integer\",\"value\":\"%d\"},"
        "{\"type\":\"text\",\"value\":\"%s\"}]",
        id, part, load_parts(id), body);
}

static void begin_text(struct client *c, const char *baton)
{
    c->used = 0;
    if (baton != NULL)
        put(c, "{\"baton\":\"%s\",\"requests\":[", baton);
    else
        put(c, "{\"requests\":[");
}

static enum event_end send_text(struct client *c, const char *tenant, const char **ret_answer)
{
    char path[64];
    const char *answer;
    snprintf(path, sizeof path, "/dev/%s/v2/pipeline", tenant);
    long status = peer_ask(c->peer, "POST", path, c->text, &answer);
    if (ret_answer != NULL) *ret_answer = answer;
    if (status == 0) return END_NONE;
    return status == 200 && strstr(answer, "\"type\":\"error\"") == NULL ? END_OK : END_FAILED;
}

/* ---- the administrator ---- */

/* The event ends with the answer. */
static bool admin(struct client *c, struct event *e, const char *method, const char *body,
                  const char *fmt, ...)
{
    char rest[128], path[192];
    const char *answer;
    va_list args;
    va_start(args, fmt);
    vsnprintf(rest, sizeof rest, fmt, args);
    va_end(args);
    snprintf(path, sizeof path, "/v1/namespaces/%s", rest);
    long status = peer_ask(c->admin, method, path, body, &answer);
    if (status == 0) return atomic_store(&c->load->stop, true), false;
    if (status != 200 && status != 503) die("%s %s: %ld %s", method, path, status, answer);
    journal_end(c->load->opts.journal, e, status == 200 ? END_OK : END_FAILED);
    return status == 200;
}

/* What is in a tenant that nobody else writes to. */
static void look(struct client *c, struct event *e, const char *name)
{
    e->seen_known = peer_ids(c->peer, name, &e->seen);
}

static void admin_step(struct client *c)
{
    struct load *l = c->load;
    struct journal *j = l->opts.journal;
    int one = (int)rng_below(&c->rng, NAMES), two = (int)rng_below(&c->rng, NAMES);
    char name[4] = {'d', (char)('0' + one), 0}, to[4] = {'d', (char)('0' + two), 0};
    uint64_t dice = rng_below(&c->rng, 100);
    if (!l->there[one]) {
        if (rng_percent(&c->rng, 30))
            l->there[one] = admin_import(c, name);
        else
            l->there[one] = make_tenant(c, name, rng_percent(&c->rng, 30));
    } else if (dice < 50) {
        for (int i = rng_between(&c->rng, 1, 8); i > 0 && !atomic_load(&l->stop); i--)
            write_some(c, name);
    } else if (dice < 60 && !l->there[two]) {
        struct event *e = journal_begin(j, EVENT_RENAME, name, to, 0);
        if (!admin(c, e, "POST", "{}", "%s/rename/%s", name, to)) return;
        l->there[one] = false;
        l->there[two] = true;
    } else if (dice < 75 && !l->there[two]) {
        const char *from = rng_percent(&c->rng, 50) ? "a" : name;
        struct event *e = journal_begin(j, EVENT_FORK, from, to, 0);
        if (!admin(c, e, "POST", "{}", "%s/fork/%s", from, to)) return;
        l->there[two] = true;
        look(c, e, to);
    } else if (dice < 85) {
        struct event *e = journal_begin(j, EVENT_DELETE, name, NULL, 0);
        e->forget = rng_percent(&c->rng, 70);
        const char *body = e->forget ? "{}" : "{\"keep_backup\":true}";
        if (!admin(c, e, "DELETE", body, "%s", name)) return;
        l->there[one] = false;
    } else if (dice < 90) {
        admin_configure(c, name);
    } else {
        admin_restore(c, name);
    }
}

/* A dump with some rows. */
static bool admin_import(struct client *c, const char *name)
{
    char body[BODY_MAX];
    struct event *e = journal_begin(c->load->opts.journal, EVENT_CREATE, name, NULL, 0);
    e->mode = MODE_ASYNC;
    e->seen_known = true;
    c->used = 0;
    put(c, "%s;\n", SCHEMA);
    for (int n = rng_between(&c->rng, 0, 3); n > 0; n--) {
        uint32_t id = atomic_fetch_add(&next_id, 1);
        ids_add(&e->seen, id);
        for (int part = 0; part < load_parts(id) && part < PARTS_MAX; part++) {
            load_body(id, part, body);
            if (c->used + BODY_MAX + 512 > TEXT_SIZE) die("an import is too long");
            put(c, "INSERT INTO t VALUES(%u,%d,%d,'%s');\n", id, part, load_parts(id), body);
        }
    }
    return admin(c, e, "PUT", c->text, "%s/import", name);
}

static void admin_configure(struct client *c, const char *name)
{
    char body[128];
    struct event *e = journal_begin(c->load->opts.journal, EVENT_CONFIGURE, name, NULL, 0);
    e->mode = rng_percent(&c->rng, 50) ? MODE_SYNC : MODE_ASYNC;
    snprintf(body, sizeof body,
             "{\"block_reads\":false,\"block_writes\":false,\"durability_mode\":\"%s\"}",
             e->mode == MODE_SYNC ? "extra" : "strong");
    (void)admin(c, e, "POST", body, "%s/config", name);
}

/* To a moment that the store has. */
static void admin_restore(struct client *c, const char *name)
{
    char path[64], body[64];
    const char *answer;
    snprintf(path, sizeof path, "/v1/namespaces/%s", name);
    if (peer_ask(c->admin, "GET", path, NULL, &answer) != 200) return;
    const char *at = strstr(answer, "\"txid_stored\":\"");
    if (at == NULL) return;
    uint64_t newest = strtoull(at + strlen("\"txid_stored\":\""), NULL, 16);
    if (newest == 0) return;
    snprintf(body, sizeof body, "{\"txid\":%llu}",
             (unsigned long long)(1 + rng_below(&c->rng, newest)));
    struct event *e = journal_begin(c->load->opts.journal, EVENT_RESTORE, name, NULL, 0);
    if (admin(c, e, "POST", body, "%s/restore", name)) look(c, e, name);
}
