/* check.c -- see check.h. */
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "check.h"
#include "load.h"

#define START_MS 60000
#define STOP_MS  60000

struct content {
    bool any; /* it has its tables */
    struct ids ids;
    uint64_t hash;
    uint64_t rows;
};
struct moment { /* of a log, as the store had it before the start */
    char tenant[NAME_MAX_SIZE], txid[17];
    struct content was;
};

static const char *logs(const struct check *c);
static void check_store(const struct check *c, struct expects *x, struct check_stats *stats);
static size_t pick_moments(const struct check *c, struct moment *list, size_t max);
static void check_names(const struct check *c, struct peer *admin, struct expects *x,
                        bool exists[TENANTS_MAX]);
/* Who deleted a log wants it not to come back. Its deletion may wait for another start. */
static void check_gone(const struct check *c, const struct expects *x)
{
    char path[TOOL_PATH_MAX], waits[64], **names;
    path_join(path, "%s/tmp", c->server->root);
    size_t count = list_names(path, &names);
    for (size_t i = 0; i < x->gone_count; i++) {
        bool later = false;
        snprintf(waits, sizeof waits, "forget.%s.", x->gone[i]);
        for (size_t k = 0; k < count; k++)
            later |= strncmp(names[k], waits, strlen(waits)) == 0;
        for (int level = 0; level <= 9 && !later; level++) {
            char **files;
            path_join(path, "%s/%s/ltx/%d", logs(c), x->gone[i], level);
            size_t left = list_names(path, &files);
            /* What was being written when the power failed has a name that begins with a dot. */
            for (size_t k = 0; k < left; k++) {
                if (files[k][0] != '.')
                    lost("the log of '%s' was deleted, and has '%s'", x->gone[i], files[k]);
            }
            free_names(files, left);
        }
    }
    free_names(names, count);
}

static void check_gone(const struct check *c, const struct expects *x);
static void look_in(struct peer *admin, const struct expect *e);
static void write_probe(struct peer *client, const char *name);
static void check_tenant(const struct check *c, const struct expect *e, bool probed, bool restored,
                         struct check_stats *stats);
static bool restore(const struct check *c, const char *tenant, const char *txid,
                    struct content *ret);
static void content_read(const char *what, const char *path, struct content *ret);
static void read_rows(const char *what, sqlite3 *db, struct content *ret);
static void whole(const char *what, uint32_t id, int parts, int found, int said);
static int64_t number(const char *what, sqlite3 *db, const char *sql);
static void content_free(struct content *c);
static void hash_add(uint64_t *hash, const void *data, size_t size);

void lost(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("LOST: ", stdout);
    vfprintf(stdout, fmt, args);
    va_end(args);
    fputc('\n', stdout);
    if (tool_on_die != NULL) tool_on_die();
    fflush(stdout);
    _exit(LOST_STATUS);
}

void server_spawn(struct server *s)
{
    char listen[TOOL_PATH_MAX], admin[TOOL_PATH_MAX];
    path_join(listen, "unix:%s", s->socket);
    path_join(admin, "unix:%s", s->admin_socket);
    const char *argv[20] = {s->program,   "serve", "-data",          s->root,
                            "-listen",    listen,  "-admin-listen",  admin,
                            "-log-level", "debug", "-sync-interval", "100ms"};
    size_t count = 12;
    if (s->store != NULL) argv[count++] = "-store", argv[count++] = s->store;
    for (int i = 0; i < 4 && s->extra[i] != NULL; i++)
        argv[count++] = s->extra[i];

    remove_file(s->socket);
    remove_file(s->admin_socket);
    s->pid = spawn(argv, (struct spawn_opts){.log = s->log});
}

void server_ready(struct server *s)
{
    struct peer *p = peer_new(s->admin_socket);
    int status = 0;
    for (int64_t end = now_ms() + START_MS; peer_ask(p, "GET", "/health", NULL, NULL) != 200;) {
        if (!still_running(s->pid, &status))
            lost("the server does not start: exit status %d", status);
        if (now_ms() > end) lost("the server does not serve after %d ms", START_MS);
        sleep_ms(2);
    }
    peer_free(p);
}

void server_end(struct server *s)
{
    kill(s->pid, SIGTERM);
    int status = wait_exit(s->pid, STOP_MS);
    if (status != 0) lost("the server ends with status %d instead of 0", status);
    s->pid = 0;
}

/*
 *   the store alone       synchronous tenants; some moments of logs, for later
 *   start, look, write    which tenants there are, and that each opens and takes a transaction
 *   stop                  the logs are complete
 *   files and logs        what is in them
 */
void check_all(const struct check *c, struct check_stats *stats)
{
    struct expects x;
    struct moment moments[4] = {0};
    struct content now = {0};
    bool exists[TENANTS_MAX] = {0};
    journal_expect(c->journal, c->cut, c->relaxed, &x);
    check_store(c, &x, stats);
    size_t count = pick_moments(c, moments, (size_t)c->restores);
    server_spawn(c->server);
    server_ready(c->server);
    struct peer *admin = peer_new(c->server->admin_socket);
    struct peer *client = peer_new(c->server->socket);
    check_names(c, admin, &x, exists);
    for (size_t i = 0; i < x.count; i++) {
        if (!exists[i] || c->no_peek) continue;
        look_in(admin, &x.list[i]);
        write_probe(client, x.list[i].name);
    }
    peer_free(admin);
    peer_free(client);
    server_end(c->server);
    check_gone(c, &x);
    size_t first = rng_below(c->rng, x.count + 1);
    int restores = c->no_peek ? TENANTS_MAX : c->restores;
    for (size_t i = 0; i < x.count; i++) {
        size_t at = (i + first) % x.count;
        if (!exists[at]) continue;
        stats->tenants++;
        check_tenant(c, &x.list[at], !c->no_peek, restores-- > 0, stats);
    }
    for (size_t i = 0; i < count; i++) {
        struct moment *m = &moments[i];
        const struct expect *e = expects_find(&x, m->tenant);
        if (e != NULL && e->must_exist && *e->or_else == '\0') {
            if (!restore(c, m->tenant, m->txid, &now))
                lost("'%s' was to be had at %s from the store, and now is not", m->tenant, m->txid);
            if (now.hash != m->was.hash) lost("'%s' at %s has changed", m->tenant, m->txid);
            stats->restores++;
        }
        content_free(&m->was);
    }
    content_free(&now);
    expects_free(&x);
}

static const char *logs(const struct check *c)
{
    static char own[TOOL_PATH_MAX];
    if (c->server->store != NULL) return c->server->store;
    path_join(own, "%s/backup", c->server->root);
    return own;
}

/* Before anybody starts: what a synchronous tenant has answered is in the store. */
static void check_store(const struct check *c, struct expects *x, struct check_stats *stats)
{
    for (size_t i = 0; i < x->count; i++) {
        const struct expect *e = &x->list[i];
        struct content found = {0};
        if (e->must_store.count == 0 || !e->must_exist || *e->or_else != '\0') continue;
        if (!restore(c, e->name, NULL, &found))
            lost("'%s' is synchronous, and the store alone has nothing of it", e->name);
        for (size_t k = 0; k < e->must_store.count; k++) {
            uint32_t id = e->must_store.list[k];
            /* A restore to an earlier moment, since, has taken it back. */
            if (ids_have(&e->may, id) && ids_have(&e->must, id) && !ids_have(&found.ids, id))
                lost("'%s' has answered transaction %u, and the store does not have it", e->name,
                     id);
        }
        stats->restores++;
        content_free(&found);
    }
}

/* What could be restored before must be restored after, and be the same. */
static size_t pick_moments(const struct check *c, struct moment *list, size_t max)
{
    char **tenants, **files, path[TOOL_PATH_MAX];
    size_t found = 0;
    path_join(path, "%s", logs(c));
    size_t count = list_names(path, &tenants);
    for (size_t tries = 0; count > 0 && found < max && found < 4 && tries < max; tries++) {
        const char *name = tenants[rng_below(c->rng, count)];
        path_join(path, "%s/%s/ltx/0", logs(c), name);
        size_t n = list_names(path, &files);
        struct moment *m = &list[found];
        snprintf(m->tenant, sizeof m->tenant, "%s", name);
        if (n > 0) {
            const char *file = files[rng_below(c->rng, n)];
            bool whole_file = strlen(file) == 37 && file[0] != '.';
            snprintf(m->txid, sizeof m->txid, "%.16s", whole_file ? file + 17 : "");
            if (whole_file && restore(c, name, m->txid, &m->was)) found++;
        }
        free_names(files, n);
    }
    free_names(tenants, count);
    return found;
}

static void check_names(const struct check *c, struct peer *admin, struct expects *x,
                        bool exists[TENANTS_MAX])
{
    const char *answer;
    size_t known = 0, all = 0;
    char want[64];
    (void)c;
    if (peer_ask(admin, "GET", "/v1/namespaces", NULL, &answer) != 200)
        lost("the list of namespaces: %s", answer);
    for (const char *at = answer; (at = strstr(at, "\"open\":")) != NULL; at++)
        all++;
    for (size_t i = 0; i < x->count; i++) {
        snprintf(want, sizeof want, "\"name\":\"%s\",\"open\":", x->list[i].name);
        exists[i] = strstr(answer, want) != NULL;
        known += exists[i];
        if (x->list[i].must_exist && !exists[i]) lost("tenant '%s' is gone", x->list[i].name);
    }
    if (known != all) lost("there are tenants that should not be: %s", answer);
    for (size_t i = 0; i < x->count; i++) {
        const struct expect *e = &x->list[i], *other = expects_find(x, e->or_else);
        if (other != NULL && exists[i] == exists[other - x->list])
            lost("of '%s' and '%s' there are %s", e->name, e->or_else, exists[i] ? "both" : "none");
    }
}

static void look_in(struct peer *admin, const struct expect *e)
{
    char path[64];
    const char *answer;
    snprintf(path, sizeof path, "/v1/namespaces/%s/config", e->name);
    long status = peer_ask(admin, "GET", path, NULL, &answer);
    if (status != 200) lost("the configuration of '%s': %ld %s", e->name, status, answer);
    const char *want =
        e->mode == MODE_SYNC ? "\"durability_mode\":\"extra\"" : "\"durability_mode\":\"strong\"";
    if (e->mode != MODE_UNKNOWN && strstr(answer, want) == NULL)
        lost("'%s' has another configuration: %s", e->name, answer);
}

/* One more transaction, so that the log has to go on. */
static void write_probe(struct peer *client, const char *name)
{
    char sql[128], text[64];
    snprintf(sql, sizeof sql, "CREATE TABLE IF NOT EXISTS probe(n)");
    if (!peer_value(client, name, "SELECT count(*) FROM sqlite_schema", text, sizeof text))
        lost("tenant '%s' cannot be read", name);
    snprintf(sql, sizeof sql,
             "{\"requests\":[{\"type\":\"sequence\",\"sql\":\"CREATE TABLE IF NOT "
             "EXISTS probe(n);INSERT INTO probe VALUES(1)\"},");
    char body[256], path[64];
    const char *answer;
    snprintf(body, sizeof body, "%s{\"type\":\"close\"}]}", sql);
    snprintf(path, sizeof path, "/dev/%s/v2/pipeline", name);
    long status = peer_ask(client, "POST", path, body, &answer);
    if (status != 200 || strstr(answer, "\"type\":\"error\"") != NULL)
        lost("tenant '%s' cannot be written: %ld %s", name, status, answer);
}

static void check_tenant(const struct check *c, const struct expect *e, bool probed, bool restored,
                         struct check_stats *stats)
{
    char path[TOOL_PATH_MAX];
    struct content here = {0}, there = {0};
    path_join(path, "%s/tenants/%s/data", c->server->root, e->name);
    bool any = file_exists(path);
    if (any) content_read(e->name, path, &here);
    for (size_t i = 0; i < e->must.count; i++) {
        if (!ids_have(&here.ids, e->must.list[i]))
            lost("'%s' has answered transaction %u, and it is not there", e->name, e->must.list[i]);
    }
    for (size_t i = 0; i < here.ids.count; i++) {
        if (!ids_have(&e->may, here.ids.list[i]))
            lost("'%s' has transaction %u, which cannot be there", e->name, here.ids.list[i]);
    }
    if (strcmp(e->name, "a") == 0 || strcmp(e->name, "s") == 0) {
        uint32_t hole = journal_hole(c->journal, e->name, &here.ids);
        if (hole != 0) lost("'%s' has a hole: %u is missing, later ones are there", e->name, hole);
    }
    stats->rows += here.rows;
    stats->unopened += !probed;
    if (file_size(path) > 0 && restored) { /* one that is empty has no log yet */
        if (!restore(c, e->name, NULL, &there)) lost("'%s' cannot be restored", e->name);
        if (there.hash != here.hash)
            lost("'%s' and what is restored from its log are not the same", e->name);
        stats->restores++;
    }
    content_free(&here);
    content_free(&there);
}

static bool restore(const struct check *c, const char *tenant, const char *txid,
                    struct content *ret)
{
    char from[TOOL_PATH_MAX], to[TOOL_PATH_MAX], what[64];
    path_join(from, "file://%s/%s", logs(c), tenant);
    remove_tree(c->server->spare);
    make_dir(c->server->spare);
    path_join(to, "%s/db", c->server->spare);
    const char *argv[] = {c->server->program, "restore", "-o", to, from, NULL, NULL, NULL};
    if (txid != NULL) argv[4] = "-txid", argv[5] = txid, argv[6] = from;
    int status = run(argv, (struct spawn_opts){.log = c->server->log}, START_MS);
    if (status == 127) die("'%s' cannot be run", argv[0]);
    if (status != 0) return false;
    snprintf(what, sizeof what, "what is restored of '%s' (%s)", tenant, txid ? txid : "newest");
    content_read(what, to, ret);
    return true;
}

/* ---- one database ---- */

static void content_read(const char *what, const char *path, struct content *ret)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    content_free(ret);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        lost("%s cannot be opened: %s", what, sqlite3_errmsg(db));
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        lost("%s: %s", what, sqlite3_errmsg(db));
    if (strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") != 0)
        lost("%s is damaged: %s", what, (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    ret->hash = 0xcbf29ce484222325u;
    ret->any = number(what, db, "SELECT count(*) FROM sqlite_schema WHERE name='t'") > 0;
    int64_t schema = number(what, db, "SELECT count(*) FROM sqlite_schema WHERE name<>'probe'");
    if (schema != (ret->any ? 4 : 0)) lost("%s has part of its schema: %d", what, (int)schema);
    if (number(what, db, "SELECT count(*) FROM sqlite_schema WHERE name='probe'") > 0) {
        int64_t probes = number(what, db, "SELECT count(*) FROM probe");
        hash_add(&ret->hash, &probes, sizeof probes);
    }
    if (ret->any) read_rows(what, db, ret);
    sqlite3_close(db);
}

static void read_rows(const char *what, sqlite3 *db, struct content *ret)
{
    static const char sql[] = "SELECT id, part, parts, body, rowid FROM t ORDER BY id, part";
    char body[BODY_MAX];
    sqlite3_stmt *stmt;
    uint32_t id = 0;
    int found = 0, said = 0, code;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        lost("%s: %s", what, sqlite3_errmsg(db));
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        uint32_t now = (uint32_t)sqlite3_column_int64(stmt, 0);
        int part = sqlite3_column_int(stmt, 1);
        int64_t row = sqlite3_column_int64(stmt, 4);
        if (now != id) whole(what, id, id == 0 ? 0 : load_parts(id), found, said);
        if (now != id)
            id = now, found = 0, said = sqlite3_column_int(stmt, 2), ids_add(&ret->ids, id);
        if (part != found++)
            lost("%s: transaction %u has part %d twice, or not", what, id, found - 1);
        size_t size = load_body(id, part, body);
        if (size != (size_t)sqlite3_column_bytes(stmt, 3) ||
            memcmp(body, sqlite3_column_blob(stmt, 3) != NULL ? sqlite3_column_blob(stmt, 3) : "",
                   size) != 0)
            lost("%s: transaction %u, part %d is not what was written", what, id, part);
        hash_add(&ret->hash, &id, sizeof id);
        hash_add(&ret->hash, &row, sizeof row);
        ret->rows++;
    }
    if (code != SQLITE_DONE) lost("%s: %s", what, sqlite3_errmsg(db));
    whole(what, id, id == 0 ? 0 : load_parts(id), found, said);
    sqlite3_finalize(stmt);
    if (number(what, db, "SELECT n FROM c") != (int64_t)ret->rows)
        lost("%s has %d rows, and its trigger has counted another number", what, (int)ret->rows);
}

static void whole(const char *what, uint32_t id, int parts, int found, int said)
{
    if (found == parts && said == parts) return;
    lost("%s has %d of the %d parts of transaction %u", what, found, parts, id);
}

static int64_t number(const char *what, sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        lost("%s: %s: %s", what, sql, sqlite3_errmsg(db));
    int64_t n = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return n;
}

static void content_free(struct content *c)
{
    ids_free(&c->ids);
    *c = (struct content){0};
}

static void hash_add(uint64_t *hash, const void *data, size_t size)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < size; i++)
        *hash = (*hash ^ at[i]) * 0x100000001b3u;
}
