/* shell_local.c -- a database file, through the connection that a server would use; see shell.h. */
#include "cli/shell.h"
#include "base/mem.h"
#include "base/os.h"
#include <string.h>

#define WRITES_BETWEEN 256 /* checkpoints */

struct local {
    struct shell_db base;
    struct sql_conn *conn;
    uint64_t writes;
};

static void local_close(struct shell_db *db);
static enum rc local_run(struct shell_db *db, const struct call *call, const struct sql_stmt *stmt,
                         const struct sql_sink *sink, struct sql_done *done,
                         struct sql_error *sql_err, struct err *err);
static enum rc local_run_many(struct shell_db *db, const struct call *call, const char *sql,
                              const struct sql_arg *args, size_t cols, size_t rows,
                              size_t *ret_done, struct sql_error *sql_err, struct err *err);
static bool local_autocommit(struct shell_db *db);
static enum rc local_dump(struct shell_db *db, const struct call *call,
                          const struct sql_dump_opts *opts, sql_dump_fn *fn, void *ctx,
                          struct err *err);
static void checkpoint(struct local *l);

static const struct shell_db_ops local_ops = {
    .close = local_close,
    .run = local_run,
    .run_many = local_run_many,
    .autocommit = local_autocommit,
    .dump = local_dump,
};

enum rc shell_local_open(const char *path, bool read_only, bool create, struct shell_db **ret_db,
                         struct err *err)
{
    struct stat st;
    struct sql_conn_opts opts = {.path = path,
                                 .read_only = read_only,
                                 .full_sync = true,
                                 .foreign_keys = true,
                                 .temp_in_file = true};
    enum rc rc = os_stat(path, &st, err);
    if (rc == RC_OK && S_ISDIR(st.st_mode))
        return err_set(err, RC_INVALID, "'%s' is a folder", path);
    if (rc == RC_NOT_FOUND && !create)
        return err_set(err, RC_NOT_FOUND, "there is no file '%s'", path);
    if (rc != RC_OK && rc != RC_NOT_FOUND) return rc;
    struct local *l = mem_calloc(1, sizeof *l);
    if (l == NULL) return err_mem(err, "a shell");
    l->base.ops = &local_ops;
    rc = sql_conn_open(&opts, &l->conn, err);
    if (rc != RC_OK) {
        mem_free(l);
        return rc;
    }
    *ret_db = &l->base;
    return RC_OK;
}

static void local_close(struct shell_db *db)
{
    struct local *l = (struct local *)(void *)db;
    sql_conn_rollback(l->conn);
    if (l->writes > 0) checkpoint(l);
    sql_conn_close(l->conn);
    mem_free(l);
}

static enum rc local_run(struct shell_db *db, const struct call *call, const struct sql_stmt *stmt,
                         const struct sql_sink *sink, struct sql_done *done,
                         struct sql_error *sql_err, struct err *err)
{
    struct local *l = (struct local *)(void *)db;
    enum rc rc = sql_conn_run(l->conn, call, NULL, stmt, sink, done, sql_err, err);
    if (sql_kind_of(stmt->sql, stmt->sql_size) == SQL_KIND_READ) return rc;
    if (++l->writes % WRITES_BETWEEN == 0) checkpoint(l);
    return rc;
}

static enum rc local_run_many(struct shell_db *db, const struct call *call, const char *sql,
                              const struct sql_arg *args, size_t cols, size_t rows,
                              size_t *ret_done, struct sql_error *sql_err, struct err *err)
{
    struct local *l = (struct local *)(void *)db;
    struct sql_done done;
    struct sql_stmt stmt = {.sql = sql, .sql_size = strlen(sql), .arg_count = cols};
    for (*ret_done = 0; *ret_done < rows; ++*ret_done) {
        stmt.args = args + *ret_done * cols;
        TRY(sql_conn_run(l->conn, call, NULL, &stmt, NULL, &done, sql_err, err));
    }
    l->writes++;
    return RC_OK;
}

static bool local_autocommit(struct shell_db *db)
{
    struct local *l = (struct local *)(void *)db;
    return sql_conn_autocommit(l->conn);
}

static enum rc local_dump(struct shell_db *db, const struct call *call,
                          const struct sql_dump_opts *opts, sql_dump_fn *fn, void *ctx,
                          struct err *err)
{
    struct local *l = (struct local *)(void *)db;
    return sql_dump(l->conn, call, opts, fn, ctx, err);
}

/* Only keeps the -wal small; whoever comes next can do it as well. */
static void checkpoint(struct local *l)
{
    uint32_t left;
    struct err ignored;
    if (sql_conn_autocommit(l->conn) && sql_conn_checkpoint(l->conn, &left, &ignored) != RC_OK)
        return;
}
