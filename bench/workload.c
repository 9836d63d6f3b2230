/*
 * workload.c -- the application in the benchmarks: SQLite and nothing else.
 *
 *   work-commit DB SYNC SECONDS        autocommit inserts; prints "rate p50 p99 p999 max" (us)
 *   work-fill DB MEGABYTES             a database of pages that shrink to about half
 *   work-make DIR COUNT                databases <dir>/db<i> with a table and some rows
 *   work-trickle DIR COUNT SECONDS     a hundred commits a second, spread over the databases
 *   work-one DB                        one commit; prints the monotonic time after it (us)
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include "bench.h"

#define LATENCIES_MAX 8000000

static sqlite3 *open_db(const char *path, const char *sync);
static void exec(sqlite3 *db, const char *sql);
static sqlite3_stmt *prepare(sqlite3 *db, const char *sql);
static void step(sqlite3 *db, sqlite3_stmt *stmt);
static int commit(const char *path, const char *sync, int seconds);
static int fill(const char *path, int64_t megabytes);
static int make(const char *dir, int count);
static int trickle(const char *dir, int count, int seconds);
static int by_u32(const void *a, const void *b);

int workload_main(int argc, char **argv)
{
    const char *what = argv[1] + strlen("work-");
    if (strcmp(what, "commit") == 0 && argc == 5) {
        return commit(argv[2], argv[3], (int)parse_u64("seconds", argv[4]));
    }
    if (strcmp(what, "fill") == 0 && argc == 4) {
        return fill(argv[2], (int64_t)parse_u64("megabytes", argv[3]));
    }
    if (strcmp(what, "make") == 0 && argc == 4) {
        return make(argv[2], (int)parse_u64("count", argv[3]));
    }
    if (strcmp(what, "trickle") == 0 && argc == 5) {
        return trickle(argv[2], (int)parse_u64("count", argv[3]),
                       (int)parse_u64("seconds", argv[4]));
    }
    if (strcmp(what, "one") == 0 && argc == 3) {
        sqlite3 *db = open_db(argv[2], "normal");
        exec(db, "INSERT INTO t(k, b) VALUES (random(), randomblob(100))");
        printf("%lld\n", (long long)now_us());
        sqlite3_close(db);
        return 0;
    }
    die("bad workload '%s'", argv[1]);
}

static sqlite3 *open_db(const char *path, const char *sync)
{
    sqlite3 *db;
    char sql[64];
    if (sqlite3_open(path, &db) != SQLITE_OK) die("open '%s': %s", path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 5000);
    snprintf(sql, sizeof sql, "PRAGMA synchronous = %s", sync);
    exec(db, "PRAGMA journal_mode = wal");
    exec(db, sql);
    exec(db, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, k INTEGER, b BLOB);"
             "CREATE INDEX IF NOT EXISTS t_k ON t(k)");
    return db;
}

static void exec(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        die("%s: %s", sql, sqlite3_errmsg(db));
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        die("%s: %s", sql, sqlite3_errmsg(db));
    }
    return stmt;
}

static void step(sqlite3 *db, sqlite3_stmt *stmt)
{
    if (sqlite3_step(stmt) != SQLITE_DONE) die("insert: %s", sqlite3_errmsg(db));
    sqlite3_reset(stmt);
}

static int commit(const char *path, const char *sync, int seconds)
{
    sqlite3 *db = open_db(path, sync);
    sqlite3_stmt *stmt = prepare(db, "INSERT INTO t(k, b) VALUES (random(), randomblob(100))");
    uint32_t *latencies = malloc(LATENCIES_MAX * sizeof *latencies);
    size_t count = 0;
    if (latencies == NULL) die("out of memory");
    int64_t start = now_us(), end = start + seconds * 1000000LL, before = start;
    while (before < end && count < LATENCIES_MAX) {
        step(db, stmt);
        int64_t after = now_us();
        latencies[count++] = (uint32_t)(after - before);
        before = after;
    }
    double rate = (double)count * 1e6 / (double)(before - start);
    qsort(latencies, count, sizeof *latencies, by_u32);
    printf("%.0f %u %u %u %u\n", rate, latencies[count / 2], latencies[count * 99 / 100],
           latencies[count * 999 / 1000], latencies[count - 1]);
    free(latencies);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return 0;
}

static int fill(const char *path, int64_t megabytes)
{
    sqlite3 *db = open_db(path, "off");
    sqlite3_stmt *stmt =
        prepare(db, "INSERT INTO t(k, b) VALUES (random(), CAST(hex(randomblob(400)) AS BLOB))");
    for (int64_t i = 0; i < megabytes; i++) {
        exec(db, "BEGIN");
        for (int row = 0; row < 1150; row++)
            step(db, stmt);
        exec(db, "COMMIT");
    }
    sqlite3_finalize(stmt);
    exec(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    sqlite3_close(db);
    return 0;
}

static int make(const char *dir, int count)
{
    for (int i = 0; i < count; i++) {
        char path[TOOL_PATH_MAX];
        path_join(path, "%s/db%d", dir, i);
        sqlite3 *db = open_db(path, "off");
        exec(db, "BEGIN");
        for (int row = 0; row < 500; row++) {
            exec(db, "INSERT INTO t(k, b) VALUES (random(), randomblob(100))");
        }
        exec(db, "COMMIT");
        sqlite3_close(db);
    }
    return 0;
}

static int trickle(const char *dir, int count, int seconds)
{
    sqlite3 *dbs[128];
    if (count > 128) die("at most 128 databases");
    for (int i = 0; i < count; i++) {
        char path[TOOL_PATH_MAX];
        path_join(path, "%s/db%d", dir, i);
        dbs[i] = open_db(path, "normal");
    }
    int64_t end = now_ms() + seconds * 1000LL;
    for (int i = 0; now_ms() < end; i++, sleep_ms(10)) {
        exec(dbs[i % count], "INSERT INTO t(k, b) VALUES (random(), randomblob(100))");
    }
    for (int i = 0; i < count; i++)
        sqlite3_close(dbs[i]);
    return 0;
}

static int by_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}
