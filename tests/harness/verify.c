/* verify.c -- the proof of a copy; see model.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "functions.h"
#include "model.h"

struct log_facts {
    bool known;             /* a line for the wanted seq was found */
    uint64_t hash, schema;  /* its last line: an earlier one was never committed */
    int64_t acked, started; /* highest of each */
};

static void read_log(const char *log, int64_t seq, struct log_facts *ret_facts);
static bool check_integrity(sqlite3 *db, struct model_state *state);
static void check_rows(sqlite3 *db, struct model_state *state);
static void check_log(const char *log, struct model_state *state);

#define PROBLEM(state, ...) snprintf((state)->problem, sizeof(state)->problem, __VA_ARGS__)

void model_verify(const char *path, const char *log, struct model_state *ret_state)
{
    struct model_state *state = ret_state;
    *state = (struct model_state){0};
    sqlite3 *db = NULL;
    if (!file_exists(path)) {
        PROBLEM(state, "'%s' does not exist", path);
        return;
    }
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        PROBLEM(state, "open '%s': %s", path, sqlite3_errmsg(db));
    } else {
        functions_add(db, 0, -1, NULL);
        sqlite3_busy_timeout(db, 5000);
        if (check_integrity(db, state)) check_rows(db, state);
        if (state->problem[0] == '\0' && log != NULL) check_log(log, state);
    }
    if (sqlite3_close(db) != SQLITE_OK) die("close '%s': %s", path, sqlite3_errmsg(db));
}

int64_t model_log_acked(const char *log)
{
    struct log_facts facts;
    read_log(log, -1, &facts);
    return facts.acked;
}

void model_fold(const char *path)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        die("open '%s': %s", path, sqlite3_errmsg(db));
    }
    sqlite3_busy_timeout(db, 5000);
    /* Nothing is in WAL mode yet when no page exists. */
    (void)model_query(db, "SELECT count(*) FROM sqlite_schema");
    int rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc != SQLITE_OK) die("fold '%s': %s", path, sqlite3_errmsg(db));
    if (sqlite3_close(db) != SQLITE_OK) die("close '%s': %s", path, sqlite3_errmsg(db));
}

static void read_log(const char *log, int64_t seq, struct log_facts *ret_facts)
{
    *ret_facts = (struct log_facts){0};
    FILE *f = fopen(log, "re");
    if (f == NULL) die("open '%s': %s", log, strerror(errno));
    char line[128];
    while (fgets(line, sizeof line, f) != NULL) {
        long long number;
        unsigned long long hash, schema;
        /* A writer that was killed may leave half a line; only whole ones count. */
        if (strchr(line, '\n') == NULL) break;
        if (sscanf(line, "C %lld %llx %llx", &number, &hash, &schema) == 3) {
            if (number > ret_facts->started) ret_facts->started = number;
            if (number != seq) continue;
            ret_facts->known = true;
            ret_facts->hash = hash;
            ret_facts->schema = schema;
        } else if (sscanf(line, "A %lld", &number) == 1 && number > ret_facts->acked) {
            ret_facts->acked = number;
        }
    }
    fclose(f);
}

static bool check_integrity(sqlite3 *db, struct model_state *state)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA integrity_check(5)", -1, &stmt, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW) {
        PROBLEM(state, "integrity_check: %s", sqlite3_errmsg(db));
    } else if (strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") != 0) {
        PROBLEM(state, "integrity_check: %s", sqlite3_column_text(stmt, 0));
    }
    sqlite3_finalize(stmt);
    return state->problem[0] == '\0';
}

static void check_rows(sqlite3 *db, struct model_state *state)
{
    /* Before the schema exists there is nothing to compare: that is commit 0. */
    if (model_query(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'acked'") == 0) return;
    state->seq = model_query(db, "SELECT seq FROM acked");
    state->hash = (uint64_t)model_query(db, "SELECT hash FROM acked");
    state->schema = (uint64_t)model_query(db, "SELECT schema FROM acked");
    uint64_t rows = functions_hash_rows(db), schema = functions_hash_schema(db);
    if (rows != state->hash || schema != state->schema) {
        PROBLEM(state,
                "seq %lld: rows hash to %016llx (stored %016llx), schema to %016llx (%016llx)",
                (long long)state->seq, (unsigned long long)rows, (unsigned long long)state->hash,
                (unsigned long long)schema, (unsigned long long)state->schema);
    }
}

static void check_log(const char *log, struct model_state *state)
{
    struct log_facts facts;
    read_log(log, state->seq, &facts);
    if (state->seq < 0 || state->seq > facts.started) {
        PROBLEM(state, "seq %lld was never started (last is %lld)", (long long)state->seq,
                (long long)facts.started);
    } else if (state->seq > 0 && !facts.known) {
        PROBLEM(state, "seq %lld is not in the log", (long long)state->seq);
    } else if (state->seq > 0 && (facts.hash != state->hash || facts.schema != state->schema)) {
        PROBLEM(state, "seq %lld: the copy's hash is %016llx, the writer's was %016llx",
                (long long)state->seq, (unsigned long long)state->hash,
                (unsigned long long)facts.hash);
    }
}
