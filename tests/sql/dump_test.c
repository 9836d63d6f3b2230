/* dump_test.c -- a dump makes an equal database: every value, type and object; faults; the splitter
 * that takes a dump apart again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "sql/bed.h"
#include "sql/dump.h"
#include "sql/token.h"

/* Debian 12 has 3.40, without geopoly, and some reals do not come back from the 17 digits of its
 * texts: docs/PLAN.md. */
#ifdef SLUICE_SYSTEM_SQLITE
#define SYSTEM_SQLITE true
#else
#define SYSTEM_SQLITE false
#endif

struct text {
    struct buf buf;
    size_t pieces, largest, notes;
    size_t fail_at;    /* this piece is refused; 0: none */
    struct bed *other; /* writes when the first piece comes */
};

static enum rc take(void *ctx, const void *data, size_t size, struct err *err)
{
    struct text *t = ctx;
    if (size > t->largest) t->largest = size;
    if (t->pieces == 0 && t->other != NULL) bed_ok(t->other, "INSERT INTO t VALUES('meanwhile')");
    if (++t->pieces == t->fail_at) return err_set(err, RC_AGAIN, "the reader is gone");
    return buf_append(&t->buf, data, size, err);
}

static void note(void *ctx, const char *sentence)
{
    struct text *t = ctx;
    assert_non_null(strstr(sentence, "keeps no content"));
    t->notes++;
}

static enum rc dump(struct bed *b, struct sql_dump_opts opts, struct text *t)
{
    opts.note = note;
    opts.note_ctx = t;
    return sql_dump(b->conn, NULL, &opts, take, t, &b->err);
}

static const char *dump_ok(struct bed *b, struct sql_dump_opts opts, struct text *t)
{
    struct err err;
    if (dump(b, opts, t) != RC_OK) fail_msg("%s", b->err.text);
    assert_int_equal(buf_append(&t->buf, "", 1, &err), RC_OK);
    t->buf.size--;
    return (const char *)t->buf.data;
}

/* Statement by statement, as the splitter finds them. Returns how many. */
static size_t load(struct bed *b, const char *sql, size_t size)
{
    struct sql_split s = {0};
    size_t at = 0, from = 0, count = 0;
    while (sql_split_next(&s, sql, size, &at)) {
        struct sql_stmt stmt = {.sql = sql + from, .sql_size = at - from, .want_rows = true};
        struct sql_sink sink = bed_sink(&b->rows);
        buf_reset(&b->rows);
        if (sql_conn_run(b->conn, NULL, NULL, &stmt, &sink, &b->done, &b->sql_err, &b->err) !=
            RC_OK)
            fail_msg("%.*s: %s", (int)stmt.sql_size, stmt.sql, b->sql_err.message);
        from = at;
        count++;
    }
    assert_false(s.any);
    return count;
}

/* All rows of one table with types, as text that shows every bit. */
static char *content(struct bed *b, const char *table, bool rowids)
{
    char sql[4096], columns[2048] = "";
    snprintf(sql, sizeof sql, "SELECT name FROM pragma_table_xinfo('%s') WHERE hidden <> 1", table);
    char *list = strdup(bed_ok(b, sql)), *save = NULL;
    for (char *name = strtok_r(list, "\n", &save); name != NULL; name = strtok_r(NULL, "\n", &save))
        snprintf(columns + strlen(columns), sizeof columns - strlen(columns),
                 "||typeof(\"%s\")||hex(CAST(quote(\"%s\") AS BLOB))", name, name);
    snprintf(sql, sizeof sql, "SELECT %s ''%s FROM \"%s\" ORDER BY 1", rowids ? "rowid," : "",
             columns, table);
    free(list);
    return strdup(bed_ok(b, sql));
}

static void same_table(struct bed *a, struct bed *b, const char *table, bool rowids)
{
    char *x = content(a, table, rowids), *y = content(b, table, rowids);
    assert_true(strlen(x) > 0);
    if (strcmp(x, y) != 0) fail_msg("table %s differs:\n%s\n%s", table, x, y);
    free(x);
    free(y);
}

static const char *const nasty[] = {
    "CREATE TABLE plain(a, b INTEGER, c TEXT, d REAL, e BLOB, f NUMERIC)",
    "INSERT INTO plain VALUES(1, 2, 'three', 4.0, x'05', 6), (NULL, NULL, NULL, NULL, NULL, NULL),"
    "(9223372036854775807, -9223372036854775808, '', 0.1, x'', 9e18),"
    "(9e999, -9e999, 'it''s', -9e999, x'00ff', 9e999),"
    "(3.0, 1e300, char(10)||'two lines', 5e-324, x'27', 1.7976931348623157e308),"
    "(-0.0, 1.5, CAST(x'610062' AS TEXT), -0.0, CAST('text' AS BLOB), 0.30000000000000004),"
    "(123456789012345678, 0, CAST(x'ff00fe' AS TEXT), 2.2250738585072014e-308, x'0d0a', '12x'),"
    "('1', '2x', 'a'||char(13,10)||'b', 'text', '', '''\"`[;--/*'),"
    "('\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80', 1, CAST(x'eda080' AS TEXT), 1e15, zeroblob(3000), "
    "1e-7),"
    "(CAST(x'3100' AS TEXT), CAST(x'3100' AS TEXT), CAST(x'00' AS TEXT), CAST(x'3200' AS TEXT),"
    " 0.1, CAST(x'3500' AS TEXT))",
    "CREATE TABLE gen(a INTEGER, b AS (a * 2) VIRTUAL, c TEXT AS ('x' || a) STORED, d)",
    "INSERT INTO gen(a, d) VALUES(1, 'p'), (2, 'q')",
    "CREATE TABLE wr(k TEXT, v, PRIMARY KEY(k, v)) WITHOUT ROWID",
    "INSERT INTO wr VALUES('b', 1), ('a', 2), ('a', x'01')",
    "CREATE TABLE strict_one(i INT, r REAL, t TEXT, b BLOB, y ANY) STRICT",
    "INSERT INTO strict_one VALUES(1, 2.0, '3', x'04', '5'), (2, 0.1, '', x'', 6.0)",
    "CREATE TABLE \"we\"\"ird 'name'; --\"(\"c;1\", \"c\"\"2\", \"select\", \"?1\", [x y])",
    "INSERT INTO \"we\"\"ird 'name'; --\" VALUES(1, 2, 3, 4, 5)",
    "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
    "INSERT INTO auto VALUES(7, 'seven'), (100, 'gone')",
    "DELETE FROM auto WHERE id = 100",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY, CHECK(id > 0))",
    "CREATE TABLE child(p REFERENCES parent(id), rowid, _rowid_ -- a comment\n)",
    "INSERT INTO parent VALUES(5)",
    "INSERT INTO child VALUES(5, 'not the rowid', 'neither')",
    "CREATE TABLE aliases(rowid, v UNIQUE)",
    "INSERT INTO aliases(_rowid_, rowid, v) VALUES(50, 1, 2), (60, 3, 4)",
    "CREATE TABLE gaps(v INTEGER, w, UNIQUE(v, w))",
    "INSERT INTO gaps(rowid, v) VALUES(10, 9), (20, 5), (-3, 7)",
    "CREATE TABLE descending(id INTEGER PRIMARY KEY DESC, v)",
    "INSERT INTO descending(rowid, id, v) VALUES(10, 3, 'a'), (11, 2, 'b')",
    "CREATE INDEX gaps_w ON gaps(w DESC, v) WHERE v > 1 -- partial",
    "CREATE UNIQUE INDEX \"od;d\" ON plain(c, lower(c), e)",
    "CREATE VIEW late AS SELECT id FROM early",
    "CREATE VIEW early AS SELECT id FROM auto -- closed",
    ("CREATE TRIGGER log AFTER INSERT ON auto BEGIN INSERT INTO plain(a) VALUES('fired;'); "
     "SELECT CASE WHEN 1 THEN 2 END; END"),
    "CREATE TRIGGER instead INSTEAD OF INSERT ON early BEGIN SELECT 1; END",
    "PRAGMA user_version=-42",
    "PRAGMA application_id=77",
    "CREATE TABLE log(message)",
    "INSERT INTO log VALUES('a log')",
};
static const char *const nasty_virtual[] = {
    "CREATE VIRTUAL TABLE docs USING fts5(title, body UNINDEXED, tokenize = 'porter unicode61')",
    "INSERT INTO docs(rowid, title, body) VALUES(5, 'running cats', 'b1'), (3, 'it''s', NULL)",
    "INSERT INTO docs(docs, rank) VALUES('pgsz', 512), ('rank', 'bm25(10.0)')",
    "CREATE TABLE articles(id INTEGER PRIMARY KEY, body)",
    "INSERT INTO articles VALUES(1, 'alpha beta'), (9, 'beta gamma')",
    "CREATE VIEW content_view AS SELECT id AS rowid, body FROM articles",
    "CREATE VIRTUAL TABLE ext USING fts5(body, content='content_view', content_rowid=rowid)",
    "INSERT INTO ext(ext) VALUES('rebuild')",
    "CREATE VIRTUAL TABLE bare USING \"fts5\"(body, content = \"\")",
    "INSERT INTO bare(rowid, body) VALUES(1, 'lost')",
    "CREATE VIRTUAL TABLE vocab USING fts5vocab(docs, row)",
    "CREATE VIRTUAL TABLE \"bo xes\" USING rtree(id, x0, x1, +label)",
    "INSERT INTO \"bo xes\" VALUES(4, 0.1, 0.3, 'four'), (2, -5, 1e10, x'00')",
    "CREATE VIRTUAL TABLE ints USING rtree_i32(id, x0, x1)",
    "INSERT INTO ints VALUES(1, -7, 7)",
#ifndef SLUICE_SYSTEM_SQLITE
    "CREATE VIRTUAL TABLE shapes USING geopoly(label)",
    "INSERT INTO shapes(rowid, _shape, label) VALUES(8, '[[0,0],[1,0],[0,1],[0,0]]', 'l')",
#endif
};
static const char *const tables[] = {"plain", "gen", "wr",      "strict_one", "auto",      "parent",
                                     "child", "log", "aliases", "gaps",       "descending"};
static const char *const tables_virtual[] = {
    "docs",   "articles", "bo xes", "ints",
#ifndef SLUICE_SYSTEM_SQLITE
    "shapes",
#endif
};

#define RUN_ALL(bed, list)                                                                         \
    for (size_t i_ = 0; i_ < sizeof(list) / sizeof(list)[0]; i_++)                                 \
    bed_ok(bed, (list)[i_])

static void test_restores_equal(void **state)
{
    (void)state;
    struct bed a, b;
    struct text t = {0}, again = {0};
    bed_new(&a), bed_open(&a, NULL);
    bed_new(&b), bed_open(&b, NULL);
    RUN_ALL(&a, nasty);
    RUN_ALL(&a, nasty_virtual);
    bed_ok(&a, "ANALYZE");
    const char *sql = dump_ok(&a, (struct sql_dump_opts){.preserve_row_ids = true}, &t);
    assert_int_equal(t.notes, 1);
    load(&b, sql, t.buf.size);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        bool rowids = strcmp(tables[i], "wr") != 0;
        same_table(&a, &b, tables[i], rowids);
    }
    for (size_t i = 0; i < sizeof tables_virtual / sizeof tables_virtual[0]; i++)
        same_table(&a, &b, tables_virtual[i], strcmp(tables_virtual[i], "bo xes") != 0);
    static const char *const equal[] = {
        "SELECT type, name, tbl_name, rtrim(sql, char(10)) FROM sqlite_schema WHERE name NOT LIKE "
        "'sqlite_stat%' "
        "ORDER BY name, type",
        "SELECT name, seq FROM sqlite_sequence ORDER BY 1",
        "SELECT * FROM sqlite_stat1 ORDER BY 1, 2",
        "SELECT * FROM \"we\"\"ird 'name'; --\"",
        "PRAGMA user_version",
        "PRAGMA application_id",
        "PRAGMA integrity_check",
        "SELECT _rowid_, * FROM aliases",
        "SELECT k, v FROM docs_config ORDER BY 1",
        "SELECT rowid FROM docs WHERE docs MATCH 'run'",
        "SELECT rowid FROM ext WHERE ext MATCH 'beta' ORDER BY 1",
        "SELECT term FROM vocab ORDER BY 1",
    };
    for (size_t i = 0; i < sizeof equal / sizeof equal[0]; i++) {
        char *want = strdup(bed_ok(&a, equal[i]));
        assert_true(strlen(want) > 0);
        const char *got = bed_ok(&b, equal[i]);
        size_t same = 0;
        while (want[same] != '\0' && want[same] == got[same])
            same++;
        if (strcmp(want, got) != 0)
            fail_msg("%s: '%.100s', not '%.100s'", equal[i], got + same, want + same);
        free(want);
    }
    assert_string_equal(bed_ok(&b, "SELECT count(*) FROM bare WHERE bare MATCH 'lost'"), "0");
    /* And its dump is the same text. */
    assert_string_equal(dump_ok(&b, (struct sql_dump_opts){.preserve_row_ids = true}, &again), sql);
    buf_fini(&t.buf);
    buf_fini(&again.buf);
    bed_free(&a);
    bed_free(&b);
}

static void test_rowids_only_where_asked(void **state)
{
    (void)state;
    struct bed a, b;
    struct text t = {0};
    bed_new(&a), bed_open(&a, NULL);
    bed_new(&b), bed_open(&b, NULL);
    RUN_ALL(&a, nasty);
    const char *sql = dump_ok(&a, (struct sql_dump_opts){0}, &t);
    load(&b, sql, t.buf.size);
    /* In the order of the rowids, not of an index that has all columns. */
    assert_string_equal(bed_ok(&b, "SELECT rowid, v FROM gaps ORDER BY rowid"), "1|7\n2|9\n3|5");
    assert_string_equal(bed_ok(&b, "SELECT id FROM auto"), "7");
    assert_null(strstr((const char *)t.buf.data, "\"(rowid"));
    assert_int_equal(t.notes, 0);
    buf_fini(&t.buf);
    bed_free(&a);
    bed_free(&b);
}

static void test_one_table(void **state)
{
    (void)state;
    struct bed a;
    struct text t = {0};
    bed_new(&a), bed_open(&a, NULL);
    RUN_ALL(&a, nasty);
    assert_string_equal(
        dump_ok(&a, (struct sql_dump_opts){.table = "AUTO"}, &t),
        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
        "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v);\n"
        "INSERT INTO \"auto\" VALUES(7,'seven');\n"
        "DELETE FROM sqlite_sequence WHERE name='auto';\n"
        "INSERT INTO sqlite_sequence VALUES('auto',100);\n"
        "CREATE TRIGGER log AFTER INSERT ON auto BEGIN INSERT INTO plain(a) VALUES('fired;'); "
        "SELECT CASE WHEN 1 THEN 2 END; END;\nCOMMIT;\n");
    buf_fini(&t.buf), t.buf = BUF_INIT;
    assert_string_equal(
        dump_ok(&a, (struct sql_dump_opts){.table = "gaps", .data_only = true}, &t),
        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nINSERT INTO \"gaps\" VALUES(7,NULL);\n"
        "INSERT INTO \"gaps\" VALUES(9,NULL);\nINSERT INTO \"gaps\" VALUES(5,NULL);\nCOMMIT;\n");
    buf_fini(&t.buf), t.buf = BUF_INIT;
    assert_string_equal(dump_ok(&a, (struct sql_dump_opts){.table = "early"}, &t),
                        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE VIEW early AS SELECT "
                        "id FROM auto -- closed\n;\nCREATE TRIGGER instead INSTEAD OF INSERT "
                        "ON early BEGIN SELECT 1; END;\nCOMMIT;\n");
    assert_int_equal(dump(&a, (struct sql_dump_opts){.table = "nowhere"}, &t), RC_NOT_FOUND);
    assert_string_equal(a.err.text, "no table 'nowhere'");
    assert_true(sql_conn_autocommit(a.conn));
    buf_fini(&t.buf);
    bed_free(&a);
}

static void test_one_moment_and_bounded_memory(void **state)
{
    (void)state;
    struct bed a, other;
    struct text t = {0};
    char path[sizeof other.path];
    bed_new(&a), bed_open(&a, NULL);
    bed_ok(&a, "CREATE TABLE t(v)");
    bed_ok(&a, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
               "INSERT INTO t SELECT printf('%0100d', i) FROM n");
    dump_ok(&a, (struct sql_dump_opts){0}, &t);
    assert_true(t.pieces > 20 && t.largest <= 64 << 10);
    assert_true(sql_conn_autocommit(a.conn));
    /* Inside of a transaction it sees that one, and leaves it open. */
    buf_fini(&t.buf), t = (struct text){0};
    bed_ok(&a, "BEGIN");
    bed_ok(&a, "DELETE FROM t");
    bed_ok(&a, "INSERT INTO t VALUES('mine')");
    assert_non_null(strstr(dump_ok(&a, (struct sql_dump_opts){0}, &t), "'mine'"));
    assert_true(t.buf.size < 200);
    assert_false(sql_conn_autocommit(a.conn));
    bed_ok(&a, "ROLLBACK");
    /* A reader that is gone ends it, and so does a call that is over. */
    buf_fini(&t.buf), t = (struct text){.fail_at = 3};
    assert_int_equal(dump(&a, (struct sql_dump_opts){0}, &t), RC_AGAIN);
    assert_int_equal(t.pieces, 3);
    assert_true(sql_conn_autocommit(a.conn));
    atomic_bool cancel = true;
    struct call call = {.cancel = &cancel};
    assert_int_equal(sql_dump(a.conn, &call, &(struct sql_dump_opts){0}, take, &t, &a.err),
                     RC_CANCELED);
    assert_true(sql_conn_autocommit(a.conn));
    /* What another connection writes meanwhile does not show. */
    buf_fini(&t.buf), t = (struct text){.other = &other};
    bed_new(&other);
    snprintf(path, sizeof path, "%s", other.path);
    snprintf(other.path, sizeof other.path, "%s", a.path);
    bed_open(&other, NULL);
    const char *sql = dump_ok(&a, (struct sql_dump_opts){0}, &t);
    assert_non_null(strstr(sql, "00020000')"));
    assert_null(strstr(sql, "meanwhile"));
    assert_string_equal(bed_ok(&a, "SELECT count(*) FROM t WHERE v = 'meanwhile'"), "1");
    snprintf(other.path, sizeof other.path, "%s", path);
    bed_free(&other);
    buf_fini(&t.buf);
    bed_free(&a);
}

static void test_random_values(void **state)
{
    (void)state;
    struct bed a, b;
    struct text t = {0};
    uint64_t seed = bed_seed();
    bed_new(&a), bed_open(&a, NULL);
    bed_new(&b), bed_open(&b, NULL);
    bed_ok(&a, "CREATE TABLE t(a, b NUMERIC, c TEXT)");
    for (int i = 0; i < 2000; i++) {
        uint64_t bits = bed_random(&seed);
        uint8_t bytes[24];
        size_t size = bed_random(&seed) % sizeof bytes;
        for (size_t k = 0; k < size; k++)
            bytes[k] = (uint8_t)("'\"\0\r\n-;/*a\xc3\xa4\xff"[bed_random(&seed) % 14]);
        struct sql_arg args[3] = {{.value = {.type = SQL_FLOAT}},
                                  {.value = {.type = SQL_FLOAT}},
                                  {.value = {.type = SQL_TEXT, .data = bytes, .size = size}}};
        memcpy(&args[0].value.real, &bits, 8);
        args[1].value.real = (double)(int64_t)bed_random(&seed) / (double)(bits % 1000 + 1);
        if (SYSTEM_SQLITE) { /* no more than 15 digits */
            args[0].value.real = (double)(int32_t)bits / 8;
            args[1].value.real = (double)(int32_t)(bits >> 32) / 16;
        }
        if (i % 3 == 0) args[0].value = args[2].value, args[0].value.type = SQL_BLOB;
        struct sql_stmt stmt = {
            .sql = "INSERT INTO t VALUES(?, ?, ?)", .args = args, .arg_count = 3};
        stmt.sql_size = strlen(stmt.sql);
        assert_int_equal(sql_conn_run(a.conn, NULL, NULL, &stmt, NULL, &a.done, &a.sql_err, &a.err),
                         RC_OK);
    }
    const char *sql = dump_ok(&a, (struct sql_dump_opts){0}, &t);
    for (size_t at = 0; at < t.buf.size;) {
        size_t n = sql_char_size(sql + at, t.buf.size - at);
        assert_true(n > 0 && sql[at] != '\r' && sql[at] != '\0');
        at += n;
    }
    load(&b, sql, t.buf.size);
    same_table(&a, &b, "t", true);
    buf_fini(&t.buf);
    bed_free(&a);
    bed_free(&b);
}

static void test_sweep_allocations(void **state)
{
    (void)state;
    struct bed a;
    uint64_t n = 1;
    bed_new(&a), bed_open(&a, NULL);
    RUN_ALL(&a, nasty);
    RUN_ALL(&a, nasty_virtual);
    bed_ok(&a, "ANALYZE");
    struct text whole = {0};
    dump_ok(&a, (struct sql_dump_opts){0}, &whole);
    for (;; n++) {
        struct text t = {0};
        bed_open(&a, NULL); /* nothing is prepared */
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc = dump(&a, (struct sql_dump_opts){0}, &t);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_true(sql_conn_autocommit(a.conn));
        if (rc == RC_OK) {
            assert_int_equal(t.buf.size, whole.buf.size);
            assert_memory_equal(t.buf.data, whole.buf.data, t.buf.size);
        } else if (rc != RC_NO_MEM) {
            fail_msg("allocation %llu: %s", (unsigned long long)n, a.err.text);
        }
        buf_fini(&t.buf);
        if (!fired) break;
    }
    assert_true(n > 100);
    buf_fini(&whole.buf);
    bed_free(&a);
}

/* Statements by '|'; what is left over follows behind '~'. */
static void splits(const char *text, const char *want)
{
    char got[1024] = "";
    struct sql_split s = {0};
    size_t size = strlen(text), at = 0, from = 0;
    while (sql_split_next(&s, text, size, &at)) {
        snprintf(got + strlen(got), sizeof got - strlen(got), "%.*s|", (int)(at - from),
                 text + from);
        from = at;
    }
    if (s.any || from < size)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", s.any ? "~" : "",
                 text + from);
    assert_string_equal(got, want);
    /* Line by line it is the same. */
    size_t count = 0, pieces = 0;
    for (const char *p = want; *p != '\0'; p++)
        count += *p == '|';
    s = (struct sql_split){0};
    at = 0;
    for (size_t end = 0; end < size;) {
        const char *line = memchr(text + end, '\n', size - end);
        end = line != NULL ? (size_t)(line - text) + 1 : size;
        while (sql_split_next(&s, text, end, &at))
            pieces++;
    }
    assert_int_equal(pieces, count);
}

static void test_split(void **state)
{
    (void)state;
    splits("", "");
    splits("SELECT 1", "~SELECT 1");
    splits("SELECT 1;SELECT 2;", "SELECT 1;|SELECT 2;|");
    splits(";;", ";|;|");
    splits("SELECT ';', \"a;b\", [c;d], `e;f`; x", "SELECT ';', \"a;b\", [c;d], `e;f`;|~ x");
    splits("SELECT 'it''s;'; y", "SELECT 'it''s;';|~ y");
    splits("-- no; \nSELECT /* ; \n ; */ 1;\n", "-- no; \nSELECT /* ; \n ; */ 1;|\n");
    splits("/* only */ -- this", "/* only */ -- this");
    splits("SELECT 'open;\n;", "~SELECT 'open;\n;");
    splits("CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT 'END;'; END; SELECT 2;",
           "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT 'END;'; END;| SELECT 2;|");
    splits("create temporary\n trigger t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END /* */ ;z",
           "create temporary\n trigger t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END /* */ ;|~z");
    splits("EXPLAIN QUERY PLAN CREATE TRIGGER a BEGIN b; END;;",
           "EXPLAIN QUERY PLAN CREATE TRIGGER a BEGIN b; END;|;|");
    splits("CREATE TABLE trigger(a); END;", "CREATE TABLE trigger(a);| END;|");
    splits("CREATE TRIGGER a BEGIN b; END x; END;", "CREATE TRIGGER a BEGIN b; END x; END;|");
    splits("CREATE \"TRIGGER\" a;", "CREATE \"TRIGGER\" a;|");
    splits("BEGIN; COMMIT;", "BEGIN;| COMMIT;|");
    assert_string_equal(sql_text_end("SELECT 1", 8), ";");
    assert_string_equal(sql_text_end("SELECT '--'", 11), ";");
    assert_string_equal(sql_text_end("SELECT 1 -- x", 13), "\n;");
    assert_string_equal(sql_text_end("SELECT 1 /* x", 13), "*/;");
    assert_string_equal(sql_text_end("x; y; -- z", 10), "\n;");
}

static void test_characters(void **state)
{
    (void)state;
    assert_int_equal(sql_char_size("", 0), 0);
    assert_int_equal(sql_char_size("a", 1), 1);
    assert_int_equal(sql_char_size("\xc3\xa4", 2), 2);
    assert_int_equal(sql_char_size("\xc3\xa4", 1), 0);
    assert_int_equal(sql_char_size("\xe2\x82\xac", 3), 3);
    assert_int_equal(sql_char_size("\xf0\x9f\x98\x80", 4), 4);
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xe2\x28\xa1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sql_char_size(bad[i], strlen(bad[i])), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restores_equal), cmocka_unit_test(test_rowids_only_where_asked),
        cmocka_unit_test(test_one_table),      cmocka_unit_test(test_one_moment_and_bounded_memory),
        cmocka_unit_test(test_random_values),  cmocka_unit_test(test_sweep_allocations),
        cmocka_unit_test(test_split),          cmocka_unit_test(test_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
