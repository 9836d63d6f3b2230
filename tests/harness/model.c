/* model.c -- see model.h. The proof of a copy is in verify.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "functions.h"
#include "model.h"

#define BUSY_MS          60000
#define ID_STEP          100000 /* ids of commit n start at n * ID_STEP */
#define SIZE_MAX_DEFAULT (6 << 20)

const char *const model_mode_names[] = {"mix", "auto", "batch", "big", "ddl", "vacuum", NULL};
const char *const model_checkpoint_names[] = {"auto",    "none",     "passive", "full",
                                              "restart", "truncate", "mixed",   NULL};
static const char *const tables[] = {"small", "wide", "pair"};

static const char schema_sql[] =
    "CREATE TABLE acked(id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL,"
    " hash INTEGER NOT NULL, schema INTEGER NOT NULL);"
    "INSERT INTO acked VALUES (1, 0, 0, 0);"
    "CREATE TABLE small(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, slot INTEGER NOT NULL,"
    " k TEXT NOT NULL, body BLOB);"
    "CREATE INDEX small_k ON small(k);"
    "CREATE TABLE wide(id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, slot INTEGER NOT NULL,"
    " k TEXT NOT NULL, body BLOB);"
    "CREATE UNIQUE INDEX wide_k ON wide(k, id);"
    "CREATE INDEX wide_seq ON wide(seq) WHERE slot % 2 = 0;"
    "CREATE TABLE pair(id INTEGER NOT NULL, seq INTEGER NOT NULL, slot INTEGER NOT NULL,"
    " k TEXT NOT NULL, body BLOB, PRIMARY KEY (k, id)) WITHOUT ROWID;"
    "CREATE VIEW auto_op(kind) AS SELECT 0;"
    "CREATE TRIGGER auto_op_i INSTEAD OF INSERT ON auto_op BEGIN"
    "  UPDATE acked SET seq = seq + 1;"
    "  INSERT INTO small SELECT seq * 100000, seq, 0, word(seq, 0), content(seq, 0, 40) FROM acked;"
    "  UPDATE wide SET seq = (SELECT seq FROM acked), body = content((SELECT seq FROM acked), slot,"
    "    120) WHERE new.kind = 1 AND id = (SELECT max(id) FROM wide);"
    "  DELETE FROM pair WHERE new.kind = 2 AND (k, id) = (SELECT k, id FROM pair LIMIT 1);"
    "  SELECT note(seq, hash, schema) FROM acked;"
    "END;";

static void exec(struct model *m, const char *fmt, ...);
static int try_exec(struct model *m, const char *sql);
static void create(struct model *m);
static void add_triggers(struct model *m, const char *table);
static void insert_rows(struct model *m, const char *table, int64_t seq, int first, int count,
                        int size);
static void change_rows(struct model *m, struct rng *r, int64_t seq);
static void one_change(struct model *m, struct rng *r, int64_t seq, int part);
static void shrink(struct model *m, struct rng *r);
static int64_t used_bytes(struct model *m);
static int64_t finish(struct model *m, struct rng *r, int64_t seq);
static int64_t step_auto(struct model *m, struct rng *r);
static int64_t step_batch(struct model *m, struct rng *r);
static int64_t step_big(struct model *m, struct rng *r);
static int64_t step_ddl(struct model *m, struct rng *r);
static void step_vacuum(struct model *m, struct rng *r);
static int64_t begin(struct model *m);
static void acknowledge(struct model *m, int64_t seq);
static int count_frames(void *ctx, sqlite3 *db, const char *schema, int frames);

void model_open(struct model *m, const char *path, const char *log, struct model_opts opts)
{
    *m = (struct model){.opts = opts, .log_fd = -1};
    if (opts.size_max == 0) m->opts.size_max = SIZE_MAX_DEFAULT;
    if (log != NULL) {
        m->log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (m->log_fd < 0) die("open '%s': %s", log, strerror(errno));
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &m->db, flags, NULL) != SQLITE_OK) {
        die("open '%s': %s", path, sqlite3_errmsg(m->db));
    }
    functions_add(m->db, opts.seed, m->log_fd, &m->noted_seq);
    sqlite3_busy_timeout(m->db, BUSY_MS);
    if (model_query(m->db, "PRAGMA page_count") == 0) {
        if (opts.page_size > 0) exec(m, "PRAGMA page_size = %d", opts.page_size);
        if (opts.auto_vacuum != NULL) exec(m, "PRAGMA auto_vacuum = %s", opts.auto_vacuum);
    }
    exec(m, "PRAGMA journal_mode = wal");
    exec(m, "PRAGMA synchronous = %s", opts.sync != NULL ? opts.sync : "normal");
    exec(m, "PRAGMA wal_autocheckpoint = %d", opts.autocheckpoint);
    if (opts.autocheckpoint == 0) sqlite3_wal_hook(m->db, count_frames, &m->wal_frames);
    exec(m, "BEGIN IMMEDIATE");
    if (model_query(m->db, "SELECT count(*) FROM sqlite_schema WHERE name = 'acked'") == 0) {
        create(m);
    }
    exec(m, "COMMIT");
}

void model_close(struct model *m)
{
    if (sqlite3_close(m->db) != SQLITE_OK) die("close: %s", sqlite3_errmsg(m->db));
    if (m->log_fd >= 0) close(m->log_fd);
    *m = (struct model){.log_fd = -1};
}

int64_t model_step(struct model *m, enum model_mode mode)
{
    /* The kind of the next operation depends on the seq seen now; which rows it touches on the
     * seq that it gets under the write lock. */
    int64_t next = model_query(m->db, "SELECT seq + 1 FROM acked");
    struct rng r = rng_of(m->opts.seed, (uint64_t)next * 2 + 1);
    if (mode == MODEL_MIX) {
        static const enum model_mode weights[] = {
            MODEL_AUTO,  MODEL_AUTO,  MODEL_AUTO,  MODEL_AUTO,  MODEL_AUTO,
            MODEL_AUTO,  MODEL_AUTO,  MODEL_AUTO,  MODEL_AUTO,  MODEL_AUTO,
            MODEL_AUTO,  MODEL_AUTO,  MODEL_BATCH, MODEL_BATCH, MODEL_BATCH,
            MODEL_BATCH, MODEL_BATCH, MODEL_BATCH, MODEL_BIG,   MODEL_DDL};
        mode = weights[rng_below(&r, sizeof weights / sizeof weights[0])];
        if (rng_percent(&r, 1)) mode = MODEL_VACUUM;
    }
    switch (mode) {
    case MODEL_MIX:
    case MODEL_BATCH:
        return step_batch(m, &r);
    case MODEL_AUTO:
        return step_auto(m, &r);
    case MODEL_BIG:
        return step_big(m, &r);
    case MODEL_DDL:
        return step_ddl(m, &r);
    case MODEL_VACUUM:
        step_vacuum(m, &r);
        /* A vacuum is no commit of ours; a change after it makes it visible. */
        return step_batch(m, &r);
    }
    return 0;
}

void model_checkpoint(struct model *m, enum model_checkpoint kind, struct rng *r)
{
    static const int modes[] = {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_FULL,
                                SQLITE_CHECKPOINT_RESTART, SQLITE_CHECKPOINT_TRUNCATE};
    if (kind == MODEL_CKPT_AUTO || kind == MODEL_CKPT_NONE) return;
    if (kind == MODEL_CKPT_MIXED)
        kind = MODEL_CKPT_PASSIVE + (enum model_checkpoint)rng_below(r, 4);
    /* A long reader must not hold this writer, and with it all others, for long. */
    sqlite3_busy_timeout(m->db, 200);
    int rc = sqlite3_wal_checkpoint_v2(m->db, NULL, modes[kind - MODEL_CKPT_PASSIVE], NULL, NULL);
    sqlite3_busy_timeout(m->db, BUSY_MS);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED) {
        die("checkpoint %s: %s", model_checkpoint_names[kind], sqlite3_errmsg(m->db));
    }
}

void model_check_snapshot(struct model *m)
{
    uint64_t found = functions_hash_rows(m->db);
    int64_t seq = model_query(m->db, "SELECT seq FROM acked");
    uint64_t kept = (uint64_t)model_query(m->db, "SELECT hash FROM acked");
    if (found != kept) {
        die("the live database at seq %lld: rows hash to %016llx, running hash is %016llx",
            (long long)seq, (unsigned long long)found, (unsigned long long)kept);
    }
}

int64_t model_query(sqlite3 *db, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *sql = sqlite3_vmprintf(fmt, args);
    va_end(args);
    sqlite3_stmt *stmt = NULL;
    int64_t value = 0;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
            value = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_DONE) die("%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_free(sql);
    return value;
}

static void exec(struct model *m, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *sql = sqlite3_vmprintf(fmt, args);
    va_end(args);
    char *message = NULL;
    int rc = sqlite3_exec(m->db, sql, NULL, NULL, &message);
    if (rc != SQLITE_OK) {
        die("%.300s: %s (%d)", sql, message ? message : "?", sqlite3_extended_errcode(m->db));
    }
    sqlite3_free(sql);
}

/* SQLITE_OK or a kind of busy; dies on anything else. */
static int try_exec(struct model *m, const char *sql)
{
    int rc = sqlite3_exec(m->db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED) {
        die("%.300s: %s (%d)", sql, sqlite3_errmsg(m->db), sqlite3_extended_errcode(m->db));
    }
    return rc;
}

static void create(struct model *m)
{
    exec(m, "%s", schema_sql);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        add_triggers(m, tables[i]);
    exec(m, "UPDATE acked SET schema = schema_hash()");
    exec(m, "SELECT note(seq, hash, schema) FROM acked");
}

static void add_triggers(struct model *m, const char *table)
{
    exec(m,
         "CREATE TRIGGER %s_i AFTER INSERT ON %s BEGIN UPDATE acked SET hash ="
         " hash_add(hash, hash_row(new.id, new.seq, new.slot, new.k, new.body)); END;"
         "CREATE TRIGGER %s_d AFTER DELETE ON %s BEGIN UPDATE acked SET hash ="
         " hash_sub(hash, hash_row(old.id, old.seq, old.slot, old.k, old.body)); END;"
         "CREATE TRIGGER %s_u AFTER UPDATE ON %s BEGIN UPDATE acked SET hash ="
         " hash_add(hash_sub(hash, hash_row(old.id, old.seq, old.slot, old.k, old.body)),"
         " hash_row(new.id, new.seq, new.slot, new.k, new.body)); END;",
         table, table, table, table, table, table);
}

static void insert_rows(struct model *m, const char *table, int64_t seq, int first, int count,
                        int size)
{
    exec(m,
         "INSERT INTO %s(id, seq, slot, k, body)"
         " WITH RECURSIVE n(i) AS (VALUES (%d) UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
         " SELECT %lld + i, %lld, i, word(%lld, i), content(%lld, i, %d) FROM n",
         table, first, first + count - 1, (long long)seq * ID_STEP, (long long)seq, (long long)seq,
         (long long)seq, size);
}

/* One to some dozen changes: inserts, updates and deletes, some of them rolled back again. */
static void change_rows(struct model *m, struct rng *r, int64_t seq)
{
    int parts = rng_between(r, 1, 6);
    for (int part = 1; part <= parts; part++) {
        bool savepoint = rng_percent(r, 20);
        if (savepoint) exec(m, "SAVEPOINT part");
        one_change(m, r, seq, part);
        if (savepoint)
            exec(m, rng_percent(r, 60) ? "ROLLBACK TO part; RELEASE part" : "RELEASE part");
    }
}

static void one_change(struct model *m, struct rng *r, int64_t seq, int part)
{
    const char *table = tables[rng_below(r, 3)];
    int64_t count = model_query(m->db, "SELECT count(*) FROM %s", table);
    int kind = rng_between(r, 0, 9), rows = rng_between(r, 1, 20);
    if (kind < 5 || count == 0) {
        int size = rng_percent(r, 10) ? rng_between(r, 0, 9000) : rng_between(r, 0, 300);
        insert_rows(m, table, seq, part * 1000, rows, size);
        return;
    }
    int64_t off = (int64_t)rng_below(r, (uint64_t)count);
    if (kind < 8) {
        exec(m,
             "UPDATE %s SET seq = %lld, k = word(%lld, slot), body = content(%lld, slot, %d)"
             " WHERE id IN (SELECT id FROM %s ORDER BY id LIMIT %d OFFSET %lld)",
             table, (long long)seq, (long long)seq, (long long)seq, rng_between(r, 0, 400), table,
             rows, (long long)off);
    } else {
        exec(m, "DELETE FROM %s WHERE id IN (SELECT id FROM %s ORDER BY id LIMIT %d OFFSET %lld)",
             table, table, rows * 2, (long long)off);
    }
}

static void shrink(struct model *m, struct rng *r)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        exec(m, "DELETE FROM %s WHERE id %% 10 < %d", tables[i], rng_between(r, 6, 9));
        exec(m, "DELETE FROM %s WHERE id <= (SELECT max(id) - %lld FROM %s)", tables[i],
             (long long)ID_STEP * 3000, tables[i]);
    }
    if (rng_percent(r, 50)) exec(m, "PRAGMA incremental_vacuum(%d)", rng_between(r, 1, 2000));
}

static int64_t used_bytes(struct model *m)
{
    return model_query(m->db, "PRAGMA page_size") *
           (model_query(m->db, "PRAGMA page_count") - model_query(m->db, "PRAGMA freelist_count"));
}

/* Commit, or sometimes roll back and commit something small instead. Returns the seq committed. */
static int64_t finish(struct model *m, struct rng *r, int64_t seq)
{
    if (rng_percent(r, 8)) {
        exec(m, "ROLLBACK");
        /* Without a commit the seed of the next attempt would be the same for ever. */
        exec(m, "BEGIN IMMEDIATE");
        seq = begin(m);
        insert_rows(m, "small", seq, 1, 1, 10);
    }
    exec(m, "SELECT note(seq, hash, schema) FROM acked");
    exec(m, "COMMIT");
    acknowledge(m, seq);
    return seq;
}

static int64_t step_auto(struct model *m, struct rng *r)
{
    if (used_bytes(m) > m->opts.size_max) return step_batch(m, r);
    char sql[64];
    snprintf(sql, sizeof sql, "INSERT INTO auto_op VALUES (%d)", rng_between(r, 0, 2));
    while (try_exec(m, sql) != SQLITE_OK)
        continue;
    acknowledge(m, m->noted_seq);
    return m->noted_seq;
}

static int64_t step_batch(struct model *m, struct rng *r)
{
    exec(m, "BEGIN IMMEDIATE");
    int64_t seq = begin(m);
    *r = rng_of(m->opts.seed, (uint64_t)seq * 2);
    if (used_bytes(m) > m->opts.size_max) shrink(m, r);
    change_rows(m, r, seq);
    return finish(m, r, seq);
}

static int64_t step_big(struct model *m, struct rng *r)
{
    /* A cache of some pages makes SQLite spill uncommitted pages into the WAL. */
    exec(m, "PRAGMA cache_size = %d", rng_between(r, 5, 30));
    exec(m, "BEGIN IMMEDIATE");
    int64_t seq = begin(m);
    *r = rng_of(m->opts.seed, (uint64_t)seq * 2);
    if (used_bytes(m) > m->opts.size_max) shrink(m, r);
    insert_rows(m, "wide", seq, 1, rng_between(r, 20, 200), rng_between(r, 100, 6000));
    change_rows(m, r, seq);
    seq = finish(m, r, seq);
    exec(m, "PRAGMA cache_size = 2000");
    return seq;
}

static int64_t step_ddl(struct model *m, struct rng *r)
{
    exec(m, "BEGIN IMMEDIATE");
    int64_t seq = begin(m);
    *r = rng_of(m->opts.seed, (uint64_t)seq * 2);
    int64_t oldest = model_query(
        m->db, "SELECT coalesce(min(CAST(substr(name, 3) AS INTEGER)), 0) FROM sqlite_schema"
               " WHERE type = 'table' AND name GLOB 'x_*'");
    int64_t count = model_query(
        m->db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name GLOB 'x_*'");
    int kind = count > 8 ? 3 : count == 0 ? 0 : rng_between(r, 0, 3);
    char table[32];
    snprintf(table, sizeof table, "x_%lld", (long long)(kind == 0 ? seq : oldest));
    if (kind == 0) {
        exec(m, "CREATE TABLE %s(id INTEGER PRIMARY KEY, seq, slot, k, body)", table);
        add_triggers(m, table);
        insert_rows(m, table, seq, 0, rng_between(r, 1, 80), 100);
    } else if (kind == 1) {
        exec(m, "ALTER TABLE %s ADD COLUMN c_%lld DEFAULT 7", table, (long long)seq);
    } else if (kind == 2) {
        exec(m, "CREATE INDEX %s_%lld ON %s(k, seq)", table, (long long)seq, table);
    } else {
        exec(m, "DELETE FROM %s; DROP TABLE %s", table, table);
    }
    exec(m, "UPDATE acked SET schema = schema_hash()");
    return finish(m, r, seq);
}

static void step_vacuum(struct model *m, struct rng *r)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA incremental_vacuum(%d)", rng_between(r, 1, 500));
    (void)try_exec(m, rng_percent(r, 50) ? "VACUUM" : sql);
}

/* Inside a write transaction: take the next seq. */
static int64_t begin(struct model *m)
{
    exec(m, "UPDATE acked SET seq = seq + 1");
    return model_query(m->db, "SELECT seq FROM acked");
}

static void acknowledge(struct model *m, int64_t seq)
{
    char line[32];
    int size = snprintf(line, sizeof line, "A %lld\n", (long long)seq);
    if (m->log_fd >= 0 && write(m->log_fd, line, (size_t)size) != size) {
        die("append to the log: %s", strerror(errno));
    }
}

static int count_frames(void *ctx, sqlite3 *db, const char *schema, int frames)
{
    (void)db, (void)schema;
    *(int *)ctx = frames;
    return SQLITE_OK;
}
