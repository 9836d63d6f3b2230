/* shell_test.c -- the shell's output, CSV, commands and inputs on a file; allocations that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/fault.h"
#include "base/mem.h"
#include "base/os.h"
#include "cli/shell.h"
#include "db/source.h"

struct bed {
    char dir[64], path[96], file[96];
    struct shell s;
    char *text; /* what was printed since the last look */
    size_t size;
    struct sql_error sql_err;
    struct err err;
};

static void bed_new(struct bed *b)
{
    *b = (struct bed){0};
    snprintf(b->dir, sizeof b->dir, "/tmp/sluice-shell-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->path, sizeof b->path, "%s/t.db", b->dir);
    snprintf(b->file, sizeof b->file, "%s/input", b->dir);
    b->s.out.headers = true;
    b->s.out.file = open_memstream(&b->text, &b->size);
    assert_int_equal(shell_local_open(b->path, false, true, &b->s.db, &b->err), RC_OK);
}

static void bed_free(struct bed *b)
{
    char command[128];
    b->s.db->ops->close(b->s.db);
    shell_out_fini(&b->s.out);
    fclose(b->s.out.file);
    free(b->text);
    snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
    assert_int_equal(system(command), 0);
}

static const char *printed(struct bed *b)
{
    fflush(b->s.out.file);
    return b->text;
}

static void forget(struct bed *b)
{
    fclose(b->s.out.file);
    free(b->text);
    b->text = NULL;
    b->s.out.file = open_memstream(&b->text, &b->size);
}

static enum rc run(struct bed *b, const char *sql)
{
    return sql[0] == '.' ? shell_dot(&b->s, sql, strlen(sql), &b->err)
                         : shell_run(&b->s, sql, strlen(sql), &b->sql_err, &b->err);
}

static void gives(struct bed *b, const char *sql, const char *want)
{
    forget(b);
    if (run(b, sql) != RC_OK) fail_msg("%s: %s", sql, b->err.text);
    assert_string_equal(printed(b), want);
}

static void fails(struct bed *b, const char *sql, const char *text)
{
    if (run(b, sql) == RC_OK) fail_msg("%s: must fail", sql);
    if (strstr(b->err.text, text) == NULL) fail_msg("%s: %s, not %s", sql, b->err.text, text);
}

static void write_file(struct bed *b, const char *text)
{
    size_t size = strlen(text);
    assert_int_equal(os_write_file(b->file, text, size, 0600, &b->err), RC_OK);
}

#define VALUES                                                                                     \
    "SELECT 1 AS i, NULL AS n, -0.5 AS \"r\", 'it''s \"q\", x' AS t, x'00ff' AS b, 9e999 AS inf, " \
    "9223372036854775807 AS big, 'a' || char(10) || 'b' AS l, '' AS e"

static void test_modes(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    gives(&b, "SELECT 1 AS a, 'x' AS bcd UNION ALL SELECT -10, NULL",
          "+-----+------+\n|   a | bcd  |\n+-----+------+\n|   1 | x    |\n| -10 | NULL |\n"
          "+-----+------+\n");
    b.s.out.unicode = true;
    gives(&b, "SELECT 'ä漢' AS ü", "┌─────┐\n│ ü   │\n├─────┤\n│ ä漢 │\n└─────┘\n");
    b.s.out.unicode = false;
    gives(&b, "SELECT 1 AS a WHERE 0", "+---+\n| a |\n+---+\n+---+\n");
    gives(&b, "CREATE TABLE t(a)", "");
    b.s.out.headers = false;
    gives(&b, "SELECT char(27) || '[1m' || char(0, 133, 127) || CAST(x'ff' AS TEXT) AS a",
          "+-------------------------+\n| \\x1b[1m\\0\\u0085\\x7f\\xff |\n"
          "+-------------------------+\n");
    b.s.out.headers = true;
    b.s.out.mode = SHELL_JSON;
    gives(&b, VALUES,
          "[\n{\"i\": 1, \"n\": null, \"r\": -0.5, \"t\": \"it's \\\"q\\\", x\", \"b\": \"AP8=\", "
          "\"inf\": 1e999, \"big\": 9223372036854775807, \"l\": \"a\\nb\", \"e\": \"\"}\n]\n");
    gives(&b, "SELECT 0.1 AS a, 3.0 AS a, CAST(x'61ff' AS TEXT) AS \"\\\"",
          "[\n{\"a\": 0.1, \"a\": 3.0, \"\\\\\": \"a\\ufffd\"}\n]\n");
    gives(&b, "SELECT 1 AS a WHERE 0", "[]\n");
    b.s.out.mode = SHELL_CSV;
    gives(&b, VALUES,
          "i,n,r,t,b,inf,big,l,e\n"
          "1,,-0.5,\"it's \"\"q\"\", x\",AP8=,9e999,9223372036854775807,\"a\nb\",\"\"\n");
    b.s.out.mode = SHELL_LINE;
    gives(&b, "SELECT 1 AS a, 'x' || char(10, 7) AS bcd UNION ALL SELECT 2, x'01'",
          "  a = 1\nbcd = x\n\\a\n\n  a = 2\nbcd = x'01'\n");
    b.s.out.counts = true;
    gives(&b, "SELECT 1 AS a", "a = 1\n1 row\n");
    bed_free(&b);
}

static void test_width_of_the_terminal(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    b.s.out.width = 30;
    gives(&b, "SELECT 1 AS n, 'abcdefghijklmnopqrstuvwxyz' AS a, 'abcdefghijklmnop' AS b",
          "+---+-----------+-----------+\n| n | a         | b         |\n"
          "+---+-----------+-----------+\n| 1 | abcdefgh~ | abcdefgh~ |\n"
          "+---+-----------+-----------+\n");
    /* As many columns do not fit: lines. */
    gives(&b,
          "SELECT 'aaaaaaaa' a, 'bbbbbbbb' b, 'cccccccc' c, 'dddddddd' d UNION ALL SELECT 1, 2, 3, "
          "4",
          "a = aaaaaaaa\nb = bbbbbbbb\nc = cccccccc\nd = dddddddd\n\na = 1\nb = 2\nc = 3\nd = 4\n");
    /* What comes after the first rows keeps to their widths. */
    b.s.out.width = 0;
    forget(&b);
    assert_int_equal(run(&b, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                             "i < 2500) SELECT i FROM n"),
                     RC_OK);
    const char *text = printed(&b);
    assert_non_null(strstr(text, "\n| 2500 |\n"));
    size_t lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines, 2500 + 4);
    bed_free(&b);
}

static void test_import(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    char command[160];
    snprintf(command, sizeof command, ".import '%s' \"my table\"", b.file);
    static const char csv[] =
        "\xef\xbb\xbfid,\"na\"\"me\",r,zip,mix\r\n1,\"a,\"\"b\"\"\",1.5,007,1\r\n-2,,,,\"\"\r\n"
        "3,\"two\r\nlines\",-0.25,1,9223372036854775808\n\n4,x\"y,2,2,z";
    write_file(&b, csv);
    b.s.out.counts = true;
    gives(&b, command, "4 rows imported\n");
    b.s.out.counts = false;
    b.s.out.mode = SHELL_CSV;
    gives(&b, "SELECT *, typeof(id) ti, typeof(r) tr, typeof(zip) tz FROM \"my table\"",
          "id,\"na\"\"me\",r,zip,mix,ti,tr,tz\n1,\"a,\"\"b\"\"\",1.5,007,1,integer,real,text\n"
          "-2,,,,\"\",integer,null,null\n"
          "3,\"two\r\nlines\",-0.25,1,9223372036854775808,integer,real,text\n"
          "4,\"x\"\"y\",2.0,2,z,integer,real,text\n");
    gives(&b, ".schema 'MY TABLE'",
          "CREATE TABLE \"my table\"(\"id\" INTEGER,\"na\"\"me\" TEXT,\"r\" REAL,\"zip\" TEXT,"
          "\"mix\" TEXT);\n");
    /* By name into a table that is there; all rows or none. */
    gives(&b, "CREATE TABLE there(b UNIQUE, a, c DEFAULT 'd')", "");
    snprintf(command, sizeof command, ".import %s there", b.file);
    write_file(&b, "a,b\n1,x\n2,y\n3,x\n");
    fails(&b, command, "line 4: UNIQUE constraint failed: there.b");
    gives(&b, "SELECT count(*) AS n FROM there", "n\n0\n");
    write_file(&b, "a,b\n1,x\n2,y\n");
    gives(&b, "BEGIN", "");
    gives(&b, command, "");
    fails(&b, command, "line 2: UNIQUE");
    gives(&b, "SELECT * FROM there", "b,a,c\nx,1,d\ny,2,d\n");
    gives(&b, "ROLLBACK", "");
    gives(&b, "SELECT count(*) AS n FROM there", "n\n0\n");
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "is empty"},
        {"a,\n1,2\n", "gives column 2 no name"},
        {"a,b\n1\n", "line 2: 1 f"},
        {"a\n\"x", "line 2: a quote is not closed"},
        {"a\n\"x\"y\n", "line 2: something follows"},
        {"zz\n1\n", "no column named zz"},
        {"a,b\n1,\"2\n3\"\n4,5,6\n", "line 4: 3 fields"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(&b, bad[i].text);
        fails(&b, command, bad[i].error);
        assert_true(b.s.db->ops->autocommit(b.s.db));
    }
    fails(&b, ".import /nowhere/at/all t", "/nowhere/at/all");
    fails(&b, ".import /tmp t", "is not a file");
    fails(&b, ".import -tsv /tmp t", "usage: .import [-csv] FILE TABLE");
    fails(&b, ".import -csv t", "usage: .import [-csv] FILE TABLE");
    /* Our own CSV comes back as it was, NULL and the empty text too, with one column as well. */
    write_file(&b, "only\n\n\"\"\nx\n");
    snprintf(command, sizeof command, ".import %s single", b.file);
    gives(&b, command, "");
    gives(&b, "SELECT only FROM single", "only\n\n\"\"\nx\n");
    /* More than a batch, and across the pieces in which the file is read. */
    FILE *f = fopen(b.file, "w");
    fprintf(f, "n,t\n");
    for (int i = 0; i < 30000; i++)
        fprintf(f, "%d,\"%05d\"\n", i, i);
    fclose(f);
    snprintf(command, sizeof command, ".import %s many", b.file);
    gives(&b, command, "");
    gives(&b, "SELECT count(*) n, sum(n) s, sum(CAST(t AS INT) = n AND length(t) = 5) k FROM many",
          "n,s,k\n30000,449985000,30000\n");
    bed_free(&b);
}

static void test_commands(void **state)
{
    (void)state;
    struct bed b;
    bed_new(&b);
    gives(&b, "CREATE TABLE b(x PRIMARY KEY, y)", "");
    gives(&b, "CREATE INDEX b_y ON b(y)", "");
    gives(&b, "CREATE VIEW a AS SELECT 1 -- one", "");
    gives(&b, "CREATE VIRTUAL TABLE f USING fts5(t)", "");
    gives(&b, "INSERT INTO b VALUES(1, 'o''k')", "");
    gives(&b, ".tables", "a\nb\nf\n");
    gives(&b, ".indexes B", "b_y\nsqlite_autoindex_b_1\n");
    gives(&b, ".schema b", "CREATE TABLE b(x PRIMARY KEY, y);\nCREATE INDEX b_y ON b(y);\n");
    gives(&b, ".schema a", "CREATE VIEW a AS SELECT 1 -- one\n;\n");
    gives(&b, ".dump -data b",
          "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nINSERT INTO \"b\" VALUES(1,'o''k');\n"
          "COMMIT;\n");
    forget(&b);
    assert_int_equal(run(&b, ".dump -rowids"), RC_OK);
    assert_non_null(
        strstr(printed(&b), "INSERT INTO \"b\"(rowid,\"x\",\"y\") VALUES(1,1,'o''k');"));
    gives(&b, ".mode json", "");
    assert_int_equal(b.s.out.mode, SHELL_JSON);
    gives(&b, ".headers off", "");
    assert_false(b.s.out.headers);
    gives(&b, ".timer on", "");
    assert_true(b.s.timer);
    gives(&b, ".quit", "");
    assert_true(b.s.quit);
    fails(&b, ".nope", "unknown command .nope");
    fails(&b, ".mode", "usage: .mode table|json|csv|line");
    fails(&b, ".mode xml", "mode 'xml'");
    fails(&b, ".timer maybe", "expected on or off");
    fails(&b, ".dump nowhere", "no table 'nowhere'");
    fails(&b, ".dump -x", "usage: .dump");
    fails(&b, ".schema 'x", "a quote is not closed");
    fails(&b, ".read 1 2 3 4 5 6 7 8", "more than 8 words");
    fails(&b, ".read /nowhere/at/all", "/nowhere/at/all");
    fails(&b, "ATTACH 'x' AS y", "ATTACH");
    bed_free(&b);
}

/* Lines in, statements out; a failure ends it and says so on standard error, which is not seen. */
static void test_input(void **state)
{
    (void)state;
    struct bed b;
    struct shell_input in = {.name = "test"};
    bed_new(&b);
    b.s.out.mode = SHELL_CSV;
    b.s.out.headers = false;
    static const char text[] =
        "SELECT 1; SELECT\n 2;\n-- a comment\n.headers on\n/* open\n.headers off\n*/ SELECT 'a\n"
        ".b;' AS x\n;;\nCREATE TABLE t(a);\nCREATE TRIGGER g AFTER INSERT ON t BEGIN\n"
        " SELECT 1;\nEND;\nSELECT 3 AS y";
    assert_true(shell_feed(&b.s, &in, text, sizeof text - 1));
    assert_string_equal(printed(&b), "1\n2\nx\n\"a\n.b;\"\n");
    assert_true(in.split.any);
    assert_true(shell_feed_end(&b.s, &in));
    assert_string_equal(printed(&b), "1\n2\nx\n\"a\n.b;\"\ny\n3\n");
    assert_false(b.s.failed);
    forget(&b);
    assert_false(shell_feed(&b.s, &in, "SELECT 1 a; SELECT nope; SELECT 2 b;\n", 37));
    assert_string_equal(printed(&b), "a\n1\n");
    assert_true(b.s.failed);
    shell_input_fini(&in);
    /* A terminal goes on. */
    struct shell_input typed = {0};
    forget(&b);
    b.s.interactive = true;
    assert_true(shell_feed(&b.s, &typed, "SELECT nope;\nSELECT 2 b;\n", 24));
    assert_string_equal(printed(&b), "b\n2\n");
    b.s.bail = true;
    assert_false(shell_feed(&b.s, &typed, "SELECT nope;\n", 13));
    shell_input_fini(&typed);
    /* A file that reads itself ends somewhere. */
    char command[160];
    snprintf(command, sizeof command, ".read '%s'\n", b.file);
    write_file(&b, command);
    fails(&b, command, "stopped at the failure");
    bed_free(&b);
}

/* A statement that comes in many lines is not read again for each of them. */
static void test_long_statement(void **state)
{
    (void)state;
    struct bed b;
    struct shell_input in = {.name = "test"};
    bed_new(&b);
    b.s.out.mode = SHELL_CSV;
    int64_t start_ms = os_mono_ms();
    assert_true(shell_feed(&b.s, &in, "SELECT length('\n", 16));
    for (int i = 0; i < 200000; i++)
        assert_true(shell_feed(&b.s, &in, "0123456789 0123456789\n", 22));
    assert_true(shell_feed(&b.s, &in, "') AS n;\n", 9));
    assert_string_equal(printed(&b), "n\n4400001\n");
    assert_true(os_mono_ms() - start_ms < 3000);
    shell_input_fini(&in);
    bed_free(&b);
}

static void test_files(void **state)
{
    (void)state;
    struct bed b;
    struct shell_db *db = NULL;
    char path[128];
    bed_new(&b);
    snprintf(path, sizeof path, "%s/other.db", b.dir);
    assert_int_equal(shell_local_open(path, false, false, &db, &b.err), RC_NOT_FOUND);
    assert_int_equal(shell_local_open(path, true, false, &db, &b.err), RC_NOT_FOUND);
    assert_int_equal(shell_local_open(b.dir, false, true, &db, &b.err), RC_INVALID);
    write_file(&b, "this is no database, whatever one thinks of it, and it is long enough");
    assert_int_equal(shell_local_open(b.file, false, true, &db, &b.err), RC_CORRUPT);
    /* What was written is in the file itself. */
    gives(&b, "CREATE TABLE t AS SELECT 1 AS a", "");
    b.s.db->ops->close(b.s.db);
    assert_int_equal(shell_local_open(b.path, true, false, &b.s.db, &b.err), RC_OK);
    struct stat st;
    assert_int_equal(os_stat(b.path, &st, &b.err), RC_OK);
    assert_true(st.st_size >= 8192);
    fails(&b, "DELETE FROM t", "only reads are allowed");
    bed_free(&b);
}

static void test_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url, *token, *name, *error;
    } bad[] = {
        {"ftp://h", "", "", "the scheme 'ftp'"},
        {"wss://h", "", "", "the scheme 'wss'"},
        {"http://", "", "", "names no host"},
        {"http:///x", "", "", "names no host"},
        {"http://u:p@h/", "", "", "a user"},
        {"http://h", "a b", "", "the token"},
        {"http://h", "a\nX: y", "", "the token"},
        {"http://h", "", "a\r\nb", "the namespace"},
        {"http://h?authToken=a\tb", "", "", "the token"},
    };
    struct err err;
    struct shell_db *db = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct shell_remote_opts opts = {bad[i].url, bad[i].token, bad[i].name};
        assert_int_equal(shell_remote_open(&opts, &db, &err), RC_INVALID);
        if (strstr(err.text, bad[i].error) == NULL) fail_msg("%s: %s", bad[i].url, err.text);
    }
    assert_true(shell_is_url("libsql://x") && shell_is_url("a+b://"));
    assert_false(shell_is_url("file.db") || shell_is_url("://x") || shell_is_url("a/b://c"));
    /* Nobody there: told at once, naming the place. */
    struct shell_remote_opts opts = {"libsql://127.0.0.1:1/dev/x//?tls=0&authToken=abc", "", "n"};
    struct sql_stmt stmt = {.sql = "SELECT 1", .sql_size = 8};
    struct sql_done done;
    struct sql_error sql_err;
    assert_int_equal(shell_remote_open(&opts, &db, &err), RC_OK);
    assert_int_equal(db->ops->run(db, NULL, &stmt, NULL, &done, &sql_err, &err), RC_AGAIN);
    assert_non_null(strstr(err.text, "http://127.0.0.1:1/dev/x: "));
    assert_string_equal(sql_err.code, "");
    assert_true(db->ops->autocommit(db));
    db->ops->close(db);
}

static void test_sweep_allocations(void **state)
{
    (void)state;
    static const char *const steps[] = {VALUES,
                                        VALUES,
                                        VALUES,
                                        VALUES,
                                        ".tables",
                                        ".schema",
                                        ".dump",
                                        "",
                                        "SELECT * FROM imported",
                                        "DROP TABLE imported"};
    struct bed b;
    char import[160], *want = NULL;
    bed_new(&b);
    snprintf(import, sizeof import, ".import %s imported", b.file);
    write_file(&b, "a,b\n1,\"x\ny\"\n,2.5\n");
    for (uint64_t n = 0;; n++) {
        bool ok = true;
        forget(&b);
        fault_arm(FAULT_ALLOC, n, false);
        for (size_t i = 0; i < sizeof steps / sizeof steps[0] && ok; i++) {
            b.s.out.mode = (enum shell_mode)(i % 4);
            ok = run(&b, steps[i][0] != '\0' ? steps[i] : import) == RC_OK;
            if (!ok && b.err.rc != RC_NO_MEM) fail_msg("%s: %s", steps[i], b.err.text);
        }
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_true(b.s.db->ops->autocommit(b.s.db));
        if (!ok) assert_int_equal(run(&b, "DROP TABLE IF EXISTS imported"), RC_OK);
        if (n == 0) want = strdup(printed(&b));
        if (ok) assert_string_equal(printed(&b), want);
        if (n > 0 && !fired) break;
        assert_true(n < 5000);
        /* All that was kept is made anew. */
        shell_out_fini(&b.s.out);
        b.s.out = (struct shell_out){.headers = true, .file = b.s.out.file};
        b.s.db->ops->close(b.s.db);
        assert_int_equal(shell_local_open(b.path, false, true, &b.s.db, &b.err), RC_OK);
    }
    free(want);
    bed_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_width_of_the_terminal),
        cmocka_unit_test(test_import),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_long_statement),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_sweep_allocations),
    };
    if (setlocale(LC_CTYPE, "C.UTF-8") == NULL) return 1;
    source_global_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
