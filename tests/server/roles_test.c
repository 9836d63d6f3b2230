/* roles_test.c -- rules against real statements: what a role may do, and every way round it that we
 * could think of. The seed of random patterns: SLUICE_SEED. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fnmatch.h>
#include "base/fault.h"
#include "base/os.h"
#include "server/roles_bed.h"
#include "sql/actions.h"

/* Debian 12 has 3.40, without sqlite_stat4, and its table-valued functions ask for more. */
#ifdef SLUICE_SYSTEM_SQLITE
#define SYSTEM_SQLITE true
#else
#define SYSTEM_SQLITE false
#endif

#define COUNT(list)       (sizeof(list) / sizeof((list)[0]))
#define ALLOW(acts, more) "{\"effect\":\"allow\",\"actions\":[" acts "]" more "}"
#define DENY(acts, more)  "{\"effect\":\"deny\",\"actions\":[" acts "]" more "}"
#define TABLES(names)     ",\"tables\":[" names "]"
#define COLUMNS(names)    ",\"columns\":[" names "]"
#define EACH(fn, bed, ...)                                                                         \
    do {                                                                                           \
        static const char *const each_[] = {__VA_ARGS__};                                          \
        for (size_t i_ = 0; i_ < COUNT(each_); i_++)                                               \
            fn(bed, each_[i_]);                                                                    \
    } while (0)

static const char *const shop =
    "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, email TEXT,"
    "  mask AS (substr(email, 1, 1)));"
    "CREATE TABLE orders(id INTEGER PRIMARY KEY, user REFERENCES users(id), sum INT);"
    "CREATE TABLE kv(k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID;"
    "CREATE TABLE audit(id INTEGER PRIMARY KEY, what TEXT, who TEXT DEFAULT 'x');"
    "CREATE TABLE \"Odd Name\"(\"a b\" INT, secret INT);"
    "CREATE TABLE plain(a, b);"
    "CREATE VIEW people AS SELECT id, name FROM users;"
    "CREATE VIEW mails AS SELECT email AS address FROM users;"
    "CREATE INDEX by_email ON users(email);"
    "INSERT INTO users(name, email) VALUES('ann', 'a@x'), ('bob', 'b@x');"
    "INSERT INTO orders(user, sum) VALUES(1, 10), (2, 20);"
    "INSERT INTO kv VALUES('k', 'v');"
    "INSERT INTO audit(what) VALUES('old');"
    "INSERT INTO plain VALUES(1, 2);"
    "INSERT INTO \"Odd Name\" VALUES(1, 2);";

static void drain(struct rbed *b, const char *sql)
{
    (void)rbed_ok(b, sql);
}

/* ---- A column that nobody shall see ---- */

static void test_all_but_one_column(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" DENY("\"read\"", TABLES("\"users\"") COLUMNS("\"email\"")) "," ALLOW("\"read\"",
                                                                                         "") "]");
    EACH(drain, &b, "SELECT id, name FROM users", "SELECT count(*) FROM users",
         "SELECT rowid, oid, _rowid_ FROM users", "SELECT * FROM people",
         "SELECT max(id) FROM users",
         "SELECT o.sum FROM orders o JOIN users u ON u.id = o.user WHERE u.name = 'x'",
         "SELECT mask FROM users", "SELECT name FROM sqlite_schema", "SELECT 1",
         "WITH u AS (SELECT name FROM users) SELECT * FROM u");
    EACH(rbed_no, &b, "SELECT email FROM users", "SELECT * FROM users", "SELECT EMAIL FROM Users",
         "SELECT \"email\" FROM \"users\"", "SELECT [eMail] FROM main.[USERS]",
         "SELECT `email` FROM users AS u", "SELECT u.\"Email\" FROM users u",
         "SELECT id FROM users WHERE email = 'a@x'", "SELECT id FROM users ORDER BY email",
         "SELECT count(*) FROM users GROUP BY email", "SELECT count(email) FROM users",
         "SELECT 1 FROM users GROUP BY id HAVING max(email) > 'a'",
         "SELECT sum(id) OVER (ORDER BY email) FROM users",
         "SELECT sum(id) OVER w FROM users WINDOW w AS (PARTITION BY email)", "SELECT * FROM mails",
         "SELECT count(*) FROM mails WHERE address > 'a'",
         "WITH u AS (SELECT * FROM users) SELECT name FROM u",
         "WITH u(a) AS (SELECT email FROM users) SELECT a FROM u",
         "WITH RECURSIVE r(x) AS (SELECT email FROM users UNION SELECT x || '1' FROM r LIMIT 9) "
         "SELECT x FROM r",
         "SELECT (SELECT email FROM users LIMIT 1)",
         "SELECT 1 WHERE 'a@x' IN (SELECT email FROM users)",
         "SELECT 1 WHERE (1, 'ann', 'a@x', 'a') IN users",
         "SELECT o.id FROM orders o JOIN users u ON u.email = o.sum",
         "SELECT id FROM orders LIMIT (SELECT length(email) FROM users)",
         "SELECT id FROM orders UNION SELECT email FROM users",
         "SELECT CASE WHEN email > 'b' THEN 1 END FROM users",
         "SELECT value FROM users, json_each(json_array(users.email))",
         "SELECT name FROM users INDEXED BY by_email WHERE email > ''",
         "VALUES((SELECT email FROM users))", "EXPLAIN SELECT email FROM users",
         "EXPLAIN QUERY PLAN SELECT email FROM users", "SELECT EXISTS (SELECT * FROM users)",
         "SELECT a FROM (SELECT email AS a FROM users)");
    rbed_free(&b);
}

/* The reverse: some columns of one table and nothing else. */
static void test_some_columns(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" ALLOW("\"read\"", TABLES("\"USERS\"") COLUMNS("\"Id\",\"name\"")) "," ALLOW(
                    "\"update\"", TABLES("\"users\"") COLUMNS("\"name\"")) "]");
    assert_string_equal(rbed_ok(&b, "SELECT id, name FROM users"), "1|ann\n2|bob");
    assert_string_equal(rbed_ok(&b, "SELECT count(*) FROM users"), "2");
    assert_string_equal(rbed_ok(&b, "SELECT upper(name) FROM users WHERE rowid = 1"), "ANN");
    drain(&b, "UPDATE users SET name = 'cid' WHERE id = 2");
    drain(&b, "BEGIN IMMEDIATE");
    drain(&b, "UPDATE Users SET NAME = name || '!' WHERE oid = 2 RETURNING id, name");
    drain(&b, "COMMIT");
    EACH(rbed_no, &b, "SELECT email FROM users", "SELECT mask FROM users", "SELECT * FROM users",
         "UPDATE users SET email = 'x'", "UPDATE users SET name = email",
         "UPDATE users SET name = 'x' WHERE email = ''", "UPDATE users SET id = 9",
         "UPDATE users SET rowid = 9 WHERE id = 1", "UPDATE users SET name = 'x', oid = 9",
         "UPDATE users SET (name, email) = ('x', 'y')",
         "UPDATE users SET name = 'x' RETURNING email", "UPDATE users SET name = 'x' RETURNING *",
         "UPDATE users SET name = o.sum FROM orders o WHERE o.user = users.id",
         "UPDATE users SET name = (SELECT v FROM kv)", "INSERT INTO users(name) VALUES('x')",
         "DELETE FROM users", "SELECT count(*) FROM orders", "SELECT 1 FROM orders",
         "SELECT count(*) FROM main.orders", "SELECT 1 WHERE EXISTS (SELECT 1 FROM kv)",
         "SELECT count(*) FROM sqlite_schema", "SELECT sql FROM sqlite_master",
         "SELECT name FROM pragma_table_info('users')", "PRAGMA table_info(users)",
         "SELECT value FROM json_each('[1]')", "CREATE TABLE x(a)", "CREATE TEMP TABLE x(a)",
         "PRAGMA user_version", "PRAGMA user_version = 1", "VACUUM", "ANALYZE", "REINDEX",
         "ATTACH '' AS x", "SELECT * FROM people", "INSERT INTO plain SELECT id, name FROM users");
    rbed_as(&b, NULL);
    assert_string_equal(rbed_ok(&b, "SELECT id, name, email FROM users"), "1|ann|a@x\n2|cid!|b@x");
    rbed_free(&b);
}

/* A rowid can be set by names that SQLite does not translate for us. */
static void test_rowid_aliases(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" DENY("\"update\"", TABLES("\"users\"") COLUMNS("\"id\"")) "," ALLOW(
                    "\"update\",\"read\"", "") "]");
    EACH(rbed_no, &b, "UPDATE users SET id = 7 WHERE id = 1",
         "UPDATE users SET rowid = 7 WHERE id = 1", "UPDATE users SET _rowid_ = 7 WHERE id = 1",
         "UPDATE users SET OID = 7 WHERE id = 1", "UPDATE users SET \"rowid\" = 7 WHERE id = 1");
    drain(&b, "UPDATE users SET name = 'x', email = 'y' WHERE id = 1");
    drain(&b, "UPDATE plain SET rowid = 7");
    rbed_as(&b, "[" DENY("\"read\"", TABLES("\"users\"") COLUMNS("\"id\"")) "," ALLOW("\"read\"",
                                                                                      "") "]");
    EACH(rbed_no, &b, "SELECT id FROM users", "SELECT rowid FROM users", "SELECT oid FROM users",
         "SELECT _rowid_ FROM people, users", "SELECT name FROM users ORDER BY rowid");
    drain(&b, "SELECT rowid FROM plain");
    rbed_free(&b);
}

/* ---- Append only ---- */

static void test_insert_only(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"audit\"")) "]");
    drain(&b, "INSERT INTO audit(what) VALUES('a'), ('b')");
    drain(&b, "INSERT INTO AUDIT VALUES(NULL, upper('c'), 'd')");
    drain(&b, "INSERT OR IGNORE INTO audit(id, what) VALUES(1, 'e')");
    drain(&b, "INSERT INTO audit(id, what) VALUES(1, 'e') ON CONFLICT DO NOTHING");
    drain(&b, "INSERT INTO audit DEFAULT VALUES");
    EACH(
        rbed_no, &b, "INSERT INTO audit(what) VALUES('x') RETURNING id",
        "INSERT INTO audit(what) VALUES('x') RETURNING *",
        "INSERT INTO audit(id, what) VALUES(1, 'x') ON CONFLICT(id) DO UPDATE SET what = 'y'",
        "INSERT INTO audit(id, what) VALUES(1, 'x') ON CONFLICT DO UPDATE SET what = excluded.what",
        "INSERT INTO audit(what) SELECT what FROM audit",
        "INSERT INTO audit(what) SELECT v FROM kv",
        "INSERT INTO audit(what) VALUES((SELECT v FROM kv))",
        "INSERT INTO audit(what) SELECT count(*) FROM users",
        "WITH x AS (SELECT v FROM kv) INSERT INTO audit(what) SELECT v FROM x",
        "SELECT what FROM audit", "SELECT count(*) FROM audit", "UPDATE audit SET what = 'x'",
        "DELETE FROM audit", "DELETE FROM audit WHERE 0", "INSERT INTO kv VALUES('x', 'y')",
        "INSERT INTO people(name) VALUES('x')", "DROP TABLE audit", "ALTER TABLE audit ADD x");
    rbed_as(&b, NULL);
    assert_string_equal(rbed_ok(&b, "SELECT group_concat(ifnull(what, '-'), '') FROM audit"),
                        "oldabC-");
    /* To read what one has just written, or to replace it, takes those rights. */
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"audit\"")) "," ALLOW(
                    "\"read\"",
                    TABLES("\"audit\"") COLUMNS("\"id\"")) "," ALLOW("\"update\"",
                                                                     TABLES("\"audit\"")
                                                                         COLUMNS("\"what\"")) "]");
    drain(&b, "INSERT INTO audit(what) VALUES('x') RETURNING id");
    drain(&b,
          "INSERT INTO audit(id, what) VALUES(1, 'y') ON CONFLICT(id) DO UPDATE SET what = 'y'");
    rbed_no(&b, "INSERT INTO audit(what) VALUES('x') RETURNING what");
    rbed_no(&b, "INSERT INTO audit(id) VALUES(1) ON CONFLICT(id) DO UPDATE SET who = 'y'");
    rbed_free(&b);
}

static void test_no_delete_no_schema(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" DENY("\"delete\",\"schema\"", "") "," ALLOW("\"*\"", "") "]");
    EACH(drain, &b, "SELECT * FROM users", "UPDATE users SET name = 'z'",
         "PRAGMA table_info(users)", "INSERT INTO plain VALUES(1, 2)",
         "SELECT sql FROM sqlite_schema", "PRAGMA foreign_keys", "SELECT * FROM pragma_table_list",
         "SELECT key FROM json_each('{\"a\":1}')", "SAVEPOINT a", "RELEASE a");
    EACH(rbed_no, &b, "DELETE FROM plain", "DELETE FROM plain WHERE a = 1 RETURNING b",
         "CREATE TABLE x(a)", "CREATE TABLE x AS SELECT 1", "CREATE TEMP TABLE x(a)",
         "CREATE TABLE IF NOT EXISTS new(a)", "DROP TABLE plain", "DROP TABLE IF EXISTS plain",
         "CREATE INDEX x ON plain(a)", "DROP INDEX by_email", "CREATE VIEW x AS SELECT 1",
         "CREATE TEMP VIEW x AS SELECT 1", "DROP VIEW people", "ALTER TABLE plain RENAME TO x",
         "ALTER TABLE plain RENAME a TO x", "ALTER TABLE plain ADD COLUMN c",
         "ALTER TABLE plain DROP COLUMN a", "REINDEX", "ANALYZE", "VACUUM", "PRAGMA optimize",
         "PRAGMA user_version = 5", "PRAGMA incremental_vacuum",
         "CREATE TRIGGER x AFTER INSERT ON plain BEGIN DELETE FROM kv; END",
         "CREATE TEMP TRIGGER x AFTER INSERT ON plain BEGIN DELETE FROM kv; END",
         "CREATE VIRTUAL TABLE x USING fts5(a)");
    assert_string_equal(rbed_ok(&b, "PRAGMA user_version"), "0");
    rbed_free(&b);
}

/* ---- Things that act for others ---- */

static void test_views_and_triggers(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_script(&b, "CREATE TRIGGER log AFTER INSERT ON plain BEGIN INSERT INTO audit(what) "
                    "SELECT v FROM kv; END;"
                    "CREATE TRIGGER people_in INSTEAD OF INSERT ON people BEGIN "
                    "INSERT INTO users(name) VALUES(new.name); END;");
    /* A view gives no right to its tables. */
    rbed_as(&b, "[" ALLOW("\"read\"", TABLES("\"people\",\"mails\"")) "]");
    EACH(rbed_no, &b, "SELECT * FROM people", "SELECT count(*) FROM people");
    rbed_as(&b, "[" ALLOW("\"read\"", TABLES("\"users\"")) "]");
    rbed_no(&b, "SELECT * FROM people");
    rbed_as(&b, "[" ALLOW("\"read\"", TABLES("\"people\"")) "," ALLOW(
                    "\"read\"", TABLES("\"users\"") COLUMNS("\"id\",\"name\"")) "]");
    assert_string_equal(rbed_ok(&b, "SELECT name FROM people"), "ann\nbob");
    /* A trigger does nothing that one may not. */
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"plain\"")) "]");
    rbed_no(&b, "INSERT INTO plain VALUES(1, 2)");
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"plain\",\"audit\"")) "]");
    rbed_no(&b, "INSERT INTO plain VALUES(1, 2)");
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"plain\",\"audit\"")) "," ALLOW(
                    "\"read\"", TABLES("\"kv\"")) "]");
    drain(&b, "INSERT INTO plain VALUES(1, 2)");
    rbed_as(&b, "[" ALLOW("\"insert\",\"read\"", TABLES("\"people\"")) "]");
    rbed_no(&b, "INSERT INTO people(name) VALUES('cid')");
    rbed_as(&b, "[" ALLOW("\"insert\",\"read\"", TABLES("\"people\",\"users\"")) "," ALLOW(
                    "\"read\"", TABLES("\"orders\"")) "]"); /* which refers to users */
    drain(&b, "INSERT INTO people(name) VALUES('cid')");
    /* One's own temporary ones neither. */
    rbed_as(&b,
            "[" ALLOW("\"schema\",\"insert\"", TABLES("\"plain\",\"mine\",\"audit\"")) "," ALLOW(
                "\"read\"", TABLES("\"kv\",\"mine\"")) "]");
    drain(&b, "CREATE TEMP VIEW mine AS SELECT * FROM users");
    rbed_no(&b, "SELECT email FROM mine");
    rbed_no(&b, "SELECT count(*) FROM mine");
    drain(&b, "DROP VIEW mine");
    drain(&b, "CREATE TEMP TRIGGER mine AFTER INSERT ON plain BEGIN DELETE FROM users; END");
    rbed_no(&b, "INSERT INTO plain VALUES(1, 2)");
    rbed_as(&b, NULL);
    assert_string_equal(rbed_ok(&b, "SELECT count(*) FROM users"), "3");
    rbed_free(&b);
}

static void test_foreign_keys(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, "CREATE TABLE p(k TEXT PRIMARY KEY, v);"
                 "CREATE TABLE gone(k REFERENCES p(k) ON DELETE CASCADE);"
                 "CREATE TABLE kept(k REFERENCES p(k) ON DELETE SET NULL ON UPDATE CASCADE);"
                 "INSERT INTO p VALUES('a', 1), ('b', 2), ('c', 3);"
                 "INSERT INTO gone VALUES('a'); INSERT INTO kept VALUES('b');");
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"gone\"")) "]");
    rbed_no(&b, "INSERT INTO gone VALUES('b')"); /* else it would tell which keys there are */
    rbed_as(&b, "[" ALLOW("\"insert\"", TABLES("\"gone\"")) "," ALLOW(
                    "\"read\"", TABLES("\"p\"") COLUMNS("\"k\"")) "]");
    drain(&b, "INSERT INTO gone VALUES('b')");
    rbed_as(&b, "[" ALLOW("\"delete\",\"read\"", TABLES("\"p\"")) "]");
    rbed_no(&b, "DELETE FROM p WHERE v = 1"); /* would delete from the other tables */
    rbed_as(&b, "[" DENY("\"delete\"", TABLES("\"gone\"")) "," ALLOW("\"*\"", "") "]");
    rbed_no(&b, "DELETE FROM p WHERE v = 1");
    rbed_as(&b, "[" DENY("\"update\"", TABLES("\"kept\"")) "," ALLOW("\"*\"", "") "]");
    EACH(rbed_no, &b, "DELETE FROM p WHERE v = 2", "UPDATE p SET k = 'z' WHERE v = 2");
    rbed_as(&b,
            "[" ALLOW("\"read\"", "") "," ALLOW("\"delete\"", TABLES("\"p\",\"gone\"")) "," ALLOW(
                "\"update\"", TABLES("\"kept\"")) "]");
    drain(&b, "DELETE FROM p");
    rbed_as(&b, NULL);
    assert_string_equal(rbed_ok(&b, "SELECT (SELECT count(*) FROM gone), k FROM kept"), "0|NULL");
    rbed_free(&b);
}

/* ---- The schema ---- */

static void test_schema_of_own_tables(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" ALLOW("\"schema\",\"insert\",\"update\",\"delete\",\"read\"",
                          TABLES("\"app_*\"")) "]");
    EACH(drain, &b, "CREATE TABLE app_t(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE, b)",
         "INSERT INTO app_t(a, b) VALUES(1, 2)", "CREATE INDEX any_name ON app_t(b)",
         "REINDEX any_name", "REINDEX", "ALTER TABLE app_t ADD COLUMN c",
         "SELECT sql FROM sqlite_schema",
         "ALTER TABLE app_t ADD COLUMN d NOT NULL DEFAULT 1 CHECK(d > 0)",
         "ALTER TABLE app_t RENAME COLUMN c TO cc", "ALTER TABLE app_t DROP COLUMN cc",
         "ALTER TABLE app_t RENAME TO app_u", "CREATE VIEW app_v AS SELECT a FROM app_u",
         "CREATE TRIGGER any_t AFTER INSERT ON app_u BEGIN DELETE FROM app_u WHERE id < 0; END",
         "INSERT INTO app_u(a) VALUES(5)", "SELECT * FROM app_v", "DROP TRIGGER any_t",
         "DROP INDEX any_name", "DROP VIEW app_v", "CREATE TABLE app_c AS SELECT a FROM app_u",
         "CREATE TEMP TABLE app_tmp(a)", "INSERT INTO app_tmp VALUES(1)", "DROP TABLE app_tmp",
         "SELECT seq FROM sqlite_sequence", "PRAGMA user_version = 7", "DROP TABLE app_c",
         "DROP TABLE app_u");
    EACH(rbed_no, &b, "CREATE TABLE other(a)", "CREATE INDEX app_i ON plain(a)",
         "DROP INDEX by_email", "DROP TABLE plain", "ALTER TABLE plain RENAME TO app_x",
         "DROP VIEW people", "ALTER TABLE users RENAME COLUMN email TO x",
         "CREATE TABLE app_x AS SELECT * FROM users",
         "CREATE TRIGGER app_x AFTER INSERT ON plain BEGIN SELECT 1; END",
         "CREATE VIRTUAL TABLE docs USING fts5(a)", "CREATE TEMP TABLE x(a)",
         "CREATE INDEX app_i ON users(email)", "SELECT * FROM users", "ANALYZE users",
         "DELETE FROM plain", "UPDATE sqlite_schema SET sql = ''", "DELETE FROM sqlite_schema",
         "PRAGMA table_info(users)");
    rbed_free(&b);
}

/* A statement that only SQLite itself may run is refused by SQLite, whatever a role says. */
static void test_schema_tables_stay_closed(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" ALLOW("\"*\"", "") "]");
    EACH(drain, &b, "VACUUM", "ANALYZE", "PRAGMA optimize", "PRAGMA integrity_check",
         "SELECT * FROM users NATURAL JOIN orders", "CREATE TABLE x(a)", "DROP TABLE x");
    if (!SYSTEM_SQLITE) drain(&b, "SELECT count(sample) FROM sqlite_stat4");
    assert_int_equal(rbed_run(&b, "UPDATE sqlite_schema SET sql = ''"), RC_INVALID);
    assert_int_equal(rbed_run(&b, "DELETE FROM sqlite_master"), RC_INVALID);
    assert_int_equal(rbed_run(&b, "INSERT INTO sqlite_temp_schema VALUES(1,2,3,4,5)"), RC_INVALID);
    rbed_no(&b, "ATTACH '/tmp/x' AS x");
    /* Values of indexed columns stay in statistics. */
    rbed_as(&b, "[" DENY("\"read\"", TABLES("\"users\"") COLUMNS("\"email\"")) "," ALLOW("\"*\"",
                                                                                         "") "]");
    if (!SYSTEM_SQLITE)
        EACH(rbed_no, &b, "SELECT sample FROM sqlite_stat4", "SELECT * FROM sqlite_stat4",
             "SELECT hex(SAMPLE) FROM main.\"SQLite_Stat4\"");
    drain(&b, "SELECT stat FROM sqlite_stat1");
    rbed_free(&b);
}

/* Whoever may read little still gets plans from statistics. */
static void test_statistics_do_not_disturb(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_script(&b, "ANALYZE");
    struct sql_conn *old = b.conn;
    struct sql_conn_opts o = {.path = b.path};
    assert_int_equal(sql_conn_open(&o, &b.conn, &b.err), RC_OK);
    sql_conn_close(old);
    rbed_as(&b, "[" ALLOW("\"read\"", TABLES("\"users\"") COLUMNS("\"name\"")) "]");
    assert_string_equal(rbed_ok(&b, "SELECT name FROM users"), "ann\nbob");
    rbed_no(&b, "SELECT email FROM users");
    rbed_free(&b);
}

static void test_temporary_tables_are_free(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" ALLOW("\"schema\"", TABLES("\"tmp\",\"users\"")) "," ALLOW(
                    "\"read\"", TABLES("\"plain\"")) "]");
    drain(&b, "CREATE TEMP TABLE tmp(a, b)");
    drain(&b, "INSERT INTO tmp SELECT a, b FROM plain WHERE true");
    assert_string_equal(rbed_ok(&b, "SELECT a, b FROM tmp"), "1|2");
    drain(&b, "UPDATE temp.tmp SET a = 3");
    drain(&b, "DELETE FROM tmp WHERE a = 3");
    /* A name that hides another does not open it. */
    drain(&b, "CREATE TEMP TABLE users(email)");
    assert_string_equal(rbed_ok(&b, "SELECT email FROM users"), "");
    EACH(rbed_no, &b, "SELECT email FROM main.users", "SELECT count(*) FROM main.users",
         "INSERT INTO tmp SELECT id, email FROM main.users WHERE true",
         "INSERT INTO main.users(name) VALUES(1)");
    rbed_free(&b);
}

/* ---- Virtual tables and functions ---- */

static void test_virtual_tables(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, "CREATE VIRTUAL TABLE docs USING fts5(body);"
                 "INSERT INTO docs VALUES('the quick fox');"
                 "CREATE TABLE posts_data(a); CREATE TABLE plain(a);");
    rbed_as(&b, "[" ALLOW("\"read\",\"insert\"", TABLES("\"docs\"")) "]");
    assert_string_equal(rbed_ok(&b, "SELECT body FROM docs WHERE docs MATCH 'fox'"),
                        "the quick fox");
    drain(&b, "INSERT INTO docs VALUES('slow')");
    rbed_no(&b, "SELECT c0 FROM docs_content");
    rbed_no(&b, "SELECT block FROM docs_data");
    rbed_no(&b, "SELECT v FROM docs_config");
    rbed_no(&b, "DELETE FROM docs");
    /* What denies a virtual table denies the tables it is made of. */
    rbed_as(&b, "[" DENY("\"read\"", TABLES("\"docs\"")) "," ALLOW("\"*\"", "") "]");
    EACH(rbed_no, &b, "SELECT body FROM docs", "SELECT * FROM docs('fox')",
         "SELECT c0 FROM docs_content", "SELECT block FROM DOCS_DATA", "SELECT * FROM docs_idx",
         "SELECT count(*) FROM docs_docsize", "SELECT count(*) FROM docs");
    drain(&b, "SELECT * FROM posts_data");
    /* And an ordinary table with such a name is opened by a rule of its own. */
    rbed_as(&b,
            "[" DENY("\"read\"", TABLES("\"posts\"") COLUMNS("\"x\"")) "," ALLOW("\"*\"", "") "]");
    rbed_no(&b, "SELECT * FROM posts_data");
    rbed_as(&b, "[" ALLOW("\"read\"", TABLES("\"posts_data\"")) "," DENY(
                    "\"read\"", TABLES("\"posts\"") COLUMNS("\"x\"")) "," ALLOW("\"*\"", "") "]");
    drain(&b, "SELECT * FROM posts_data");
    rbed_free(&b);
}

static void test_functions_and_pragmas(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(
        &b,
        "[" DENY("\"function\"", TABLES("\"rand*\"")) "," DENY(
            "\"transaction\"",
            TABLES(
                "\"SAVEPOINT\",\"begin\"")) "," ALLOW("\"pragma\"",
                                                      TABLES(
                                                          "\"table_*\"")) "," ALLOW("\"read\"",
                                                                                    TABLES(
                                                                                        "\"json_"
                                                                                        "each\","
                                                                                        "\"pragma_*"
                                                                                        "\"")) "]");
    EACH(drain, &b, "SELECT upper('x'), count(*), 'a' LIKE 'b'", "PRAGMA table_info(users)",
         "PRAGMA TABLE_LIST");
    if (!SYSTEM_SQLITE)
        EACH(drain, &b, "SELECT value FROM json_each('[1]')",
             "SELECT count(*) FROM json_each('[1]')",
             "SELECT name FROM pragma_table_info('users')");
    EACH(rbed_no, &b, "SELECT random()", "SELECT hex(RANDOMBLOB(9))", "BEGIN", "SAVEPOINT x",
         "PRAGMA index_list(users)", "SELECT * FROM pragma_index_list('users')",
         "SELECT key FROM json_tree('[1]')", "SELECT value FROM users, json_each(email)",
         "SELECT * FROM pragma_table_info('users'), users", "PRAGMA foreign_keys = 0");
    rbed_as(&b, "[]");
    drain(&b, "SELECT 1 + abs(-1)");
    EACH(rbed_no, &b, "SELECT * FROM kv", "PRAGMA user_version", "INSERT INTO plain VALUES(1, 2)");
    rbed_as(&b, "[" DENY("\"*\"", "") "]");
    drain(&b, "SELECT 1 + 1");
    EACH(rbed_no, &b, "SELECT abs(-1)", "BEGIN", "SELECT * FROM kv");
    rbed_free(&b);
}

static void test_odd_names(void **state)
{
    (void)state;
    struct rbed b;
    rbed_new(&b, shop);
    rbed_as(&b, "[" DENY("\"read\"", TABLES("\"odd*\"") COLUMNS("\"SEC*T\"")) "," ALLOW(
                    "\"read\"", TABLES("\"O*N*e\",\"*v\"")) "]");
    assert_string_equal(rbed_ok(&b, "SELECT \"A B\" FROM \"odd name\""), "1");
    assert_string_equal(rbed_ok(&b, "SELECT v FROM KV WHERE K = 'k'"), "v");
    EACH(rbed_no, &b, "SELECT secret FROM \"Odd Name\"", "SELECT Secret FROM [ODD NAME]",
         "SELECT * FROM `odd name`", "SELECT n.secret FROM \"Odd Name\" AS n",
         "SELECT a FROM plain", "SELECT \"A B\" FROM \"odd name\" WHERE SECRET = 2",
         "UPDATE kv SET v = 1");
    rbed_free(&b);
}

/* ---- Several roles ---- */

static void test_roles_together(void **state)
{
    (void)state;
    struct roles *roles = NULL;
    struct sql_policy *policy = NULL;
    struct err err;
    static const char json[] = "{\"reader\":[" ALLOW(
        "\"read\"",
        "") "],"
            "\"clerk\":[" ALLOW("\"insert\"",
                                TABLES("\"orders\"")) "],"
                                                      "\"blind\":[" DENY("\"read\"",
                                                                         TABLES("\"users\"")) "]}";
    assert_int_equal(roles_parse(json, &roles, &err), RC_OK);
    const struct role *list[] = {roles_find(roles, "reader"), roles_find(roles, "clerk"),
                                 roles_find(roles, "blind")};
    assert_null(roles_find(roles, "Reader"));
    assert_null(roles_find(roles, ""));
    enum { READ = 20, INSERT = 18, DELETE = 9 };
    for (size_t count = 0; count <= 3; count++) {
        assert_int_equal(policy_new(list, count, &policy, &err), RC_OK);
        assert_int_equal(policy->allows(policy, READ, "kv", "v", "main"), count >= 1);
        assert_int_equal(policy->allows(policy, READ, "users", "id", "main"),
                         count >= 1 && count < 3);
        assert_int_equal(policy->allows(policy, INSERT, "orders", NULL, "main"), count >= 2);
        assert_false(policy->allows(policy, DELETE, "orders", NULL, "main"));
        assert_int_equal(policy->allows(policy, SQL_ACTION_UNSEEN, NULL, NULL, NULL),
                         count >= 1 && count < 3);
        assert_false(policy->allows(policy, 4711, "x", "y", "main"));
        policy_free(policy);
    }
    assert_ptr_equal(role_policy(list[0]), role_policy(roles_find(roles, "reader")));
    roles_free(roles);
}

/* ---- Text ---- */

static void test_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } bad[] = {
        {"[]", "roles: not a JSON object"},
        {"{", "roles: not JSON with each name once, in line 1, column 1"},
        {"{\"a\":[],\"a\":[]}", "roles: not JSON with each name once, in line 1, column 11"},
        {"{\"a b\":[]}", "role 'a b': a name is 1 to 64 of letters, digits and '_', '-', '.', ':'"},
        {"{\"\":[]}", "role '': a name is 1 to 64 of letters, digits and '_', '-', '.', ':'"},
        {"{\"a\\n\":[]}", "role 'a?': a name is 1 to 64 of letters, digits and '_', '-', '.', ':'"},
        {"{\"a\":{}}", "role 'a': expected an array of rules"},
        {"{\"a\":[1]}", "role 'a', rule 1: expected an object"},
        {"{\"a\":[" ALLOW("\"read\"", "") ",{}]}",
         "role 'a', rule 2: 'effect' must be \"allow\" or \"deny\""},
        {"{\"a\":[{\"effect\":\"Allow\",\"actions\":[\"read\"]}]}",
         "role 'a', rule 1: 'effect' must be \"allow\" or \"deny\""},
        {"{\"a\":[{\"effect\":\"allow\"}]}",
         "role 'a', rule 1: 'actions' must be an array with at least one action"},
        {"{\"a\":[" ALLOW("", "") "]}",
         "role 'a', rule 1: 'actions' must be an array with at least one action"},
        {"{\"a\":[" ALLOW("\"select\"", "") "]}", "role 'a', rule 1: unknown action 'select'; "
                                                  "expected read, insert, update, delete, schema, "
                                                  "pragma, transaction, function or *"},
        {"{\"a\":[" ALLOW("\"read\",7", "") "]}",
         "role 'a', rule 1: unknown action '(not a text)'; expected read, insert, update, delete, "
         "schema, pragma, transaction, function or *"},
        {"{\"a\":[" ALLOW("\"read\"", ",\"Tables\":[\"x\"]") "]}",
         "role 'a', rule 1: unknown member 'Tables'"},
        {"{\"a\":[" ALLOW("\"read\"", ",\"tables\":\"x\"") "]}",
         "role 'a', rule 1: 'tables' must be an array of 1 to 256 names"},
        {"{\"a\":[" ALLOW("\"read\"", TABLES("")) "]}",
         "role 'a', rule 1: 'tables' must be an array of 1 to 256 names"},
        {"{\"a\":[" ALLOW("\"read\"", COLUMNS("\"\"")) "]}",
         "role 'a', rule 1: 'columns': a name must be a text of 1 to 255 bytes"},
        {"{\"a\":[" ALLOW("\"read\"", COLUMNS("null")) "]}",
         "role 'a', rule 1: 'columns': a name must be a text of 1 to 255 bytes"},
        {"{\"a\":[" ALLOW("\"read\",\"insert\"", COLUMNS("\"x\"")) "]}",
         "role 'a', rule 1: 'columns' goes with the actions \"read\" and \"update\" only"},
        {"{\"a\":[" DENY("\"*\"", COLUMNS("\"x\"")) "]}",
         "role 'a', rule 1: 'columns' goes with the actions \"read\" and \"update\" only"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct roles *roles = NULL;
        struct err err = {0};
        assert_int_equal(roles_parse(bad[i].json, &roles, &err), RC_INVALID);
        assert_null(roles);
        assert_string_equal(err.text, bad[i].text);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct buf json = BUF_INIT;
    struct roles *roles = NULL;
    struct err err;
    for (int over = 0; over < 2; over++) {
        buf_reset(&json);
        assert_int_equal(buf_printf(&json, &err, "{\"a\":["), RC_OK);
        for (int i = 0; i < ROLE_RULES_MAX + over; i++)
            assert_int_equal(
                buf_printf(&json, &err, "%s" ALLOW("\"read\"", TABLES("\"t\"")), i > 0 ? "," : ""),
                RC_OK);
        assert_int_equal(buf_append(&json, "]}", 3, &err), RC_OK);
        assert_int_equal(roles_parse((char *)json.data, &roles, &err), over ? RC_TOO_BIG : RC_OK);
        if (!over) roles_free(roles);
    }
    buf_reset(&json);
    assert_int_equal(
        buf_printf(&json, &err, "{\"a\":[" ALLOW("\"read\"", "") "]%*s}", ROLES_TEXT_MAX, ""),
        RC_OK);
    assert_int_equal(buf_append(&json, "", 1, &err), RC_OK);
    assert_int_equal(roles_parse((char *)json.data, &roles, &err), RC_TOO_BIG);
    buf_fini(&json);
}

/* Against the C library's idea of '*'. */
static void test_patterns(void **state)
{
    (void)state;
    const char *given = getenv("SLUICE_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : os_random() >> 16;
    printf("SLUICE_SEED=%llu\n", (unsigned long long)seed);
    unsigned hits = 0;
    for (int round = 0; round < 20000; round++) {
        char pattern[8], name[10], json[128];
        size_t n = 1, m = 1;
        for (size_t i = 0; i < 7; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            pattern[i] = "ab*B"[seed >> 40 & 3];
            name[i] = "abAB"[seed >> 44 & 3];
            if (seed >> 48 & 3) n = i + 1;
            if (seed >> 52 & 3) m = i + 1;
        }
        pattern[n] = name[m] = '\0';
        snprintf(json, sizeof json, "{\"r\":[" ALLOW("\"delete\"", TABLES("\"%s\"")) "]}", pattern);
        struct roles *roles = NULL;
        struct err err;
        assert_int_equal(roles_parse(json, &roles, &err), RC_OK);
        bool want = fnmatch(pattern, name, FNM_CASEFOLD) == 0;
        hits += want;
        const struct sql_policy *p = role_policy(roles_find(roles, "r"));
        if (p->allows(p, 9, name, NULL, "main") != want) fail_msg("'%s' and '%s'", pattern, name);
        roles_free(roles);
    }
    assert_in_range(hits, 1000, 19000);
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char json[] =
        "{\"a\":[" ALLOW("\"read\"", TABLES("\"t\"") COLUMNS("\"c\",\"d\"")) "," DENY(
            "\"*\"", TABLES("\"t\",\"u\"")) "],\"b\":[]}";
    enum rc rc = RC_NO_MEM;
    uint64_t n = 1;
    for (; rc != RC_OK; n++) {
        struct roles *roles = NULL;
        struct sql_policy *policy = NULL;
        struct err err = {0};
        fault_arm(FAULT_ALLOC, n, false);
        rc = roles_parse(json, &roles, &err);
        if (rc == RC_OK) {
            const struct role *list[] = {roles_find(roles, "a"), roles_find(roles, "b")};
            rc = policy_new(list, 2, &policy, &err);
        }
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_int_equal(rc, fired ? RC_NO_MEM : RC_OK);
        assert_true(rc == RC_OK || err.text[0] != '\0');
        policy_free(policy);
        roles_free(roles);
    }
    assert_in_range(n, 8, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_but_one_column),
        cmocka_unit_test(test_some_columns),
        cmocka_unit_test(test_rowid_aliases),
        cmocka_unit_test(test_insert_only),
        cmocka_unit_test(test_no_delete_no_schema),
        cmocka_unit_test(test_views_and_triggers),
        cmocka_unit_test(test_foreign_keys),
        cmocka_unit_test(test_schema_of_own_tables),
        cmocka_unit_test(test_schema_tables_stay_closed),
        cmocka_unit_test(test_statistics_do_not_disturb),
        cmocka_unit_test(test_temporary_tables_are_free),
        cmocka_unit_test(test_virtual_tables),
        cmocka_unit_test(test_functions_and_pragmas),
        cmocka_unit_test(test_odd_names),
        cmocka_unit_test(test_roles_together),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
