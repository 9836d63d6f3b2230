/* opts_test.c -- every form in which options may be written, and what is said about the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "cli/cli.h"
#include "cli/progress.h"

static const struct opt options[] = {
    {.name = "s",
     .kind = OPT_STR,
     .arg = "TEXT",
     .def = "fallback",
     .env = "SLUICE_TEST_S",
     .example = "x",
     .help = "A text."},
    {.name = "b", .alias = "bee", .kind = OPT_BOOL, .help = "A switch."},
    {.name = "long-name", .kind = OPT_BOOL, .help = "Another."},
    {.name = "n", .kind = OPT_UINT, .arg = "NUM", .def = "8", .help = "A number."},
    {.name = "d", .kind = OPT_DURATION, .arg = "DURATION", .help = "A duration."},
    {.name = "t", .kind = OPT_TXID, .arg = "TXID", .help = "A transaction."},
    {.name = "config", .alias = "c", .kind = OPT_STR, .arg = "P", .line_only = true, .help = "F."},
};
static const char *const usage[] = {"[options] A", NULL};
static const struct opt_example examples[] = {{"Why", "sluice test -b"}, {NULL, NULL}};
static const struct command command = {.name = "test",
                                       .usage = usage,
                                       .about = "About it.\n\nMore about it.",
                                       .opts = options,
                                       .opt_count = sizeof options / sizeof options[0],
                                       .examples = examples};

/* Words separated by spaces; "''" is an empty one. */
static enum rc parse(const char *line, struct opts *o, struct err *err)
{
    static char copy[512];
    char *argv[32], *save = NULL;
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = strcmp(w, "''") == 0 ? w + 2 : w;
    return opts_parse(&command, argc, argv, o, err);
}

static void ok(const char *line, struct opts *o)
{
    struct err err = {0};
    if (parse(line, o, &err) != RC_OK) fail_msg("'%s': %s", line, err.text);
}

static void bad(const char *line, const char *message)
{
    struct err err = {0};
    struct opts o;
    assert_int_equal(parse(line, &o, &err), RC_INVALID);
    assert_string_equal(err.text, message);
}

static void test_value_forms(void **state)
{
    (void)state;
    static const char *const forms[] = {"-s v a", "-s=v a",  "--s v a",     "--s=v a",
                                        "a -s v", "a --s=v", "-s w -s v a", "-b -s v a"};
    struct opts o;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        ok(forms[i], &o);
        assert_string_equal(opts_str(&o, "s"), "v");
        assert_true(opts_given(&o, "s"));
        assert_int_equal(o.arg_count, 1);
        assert_string_equal(o.args[0], "a");
    }
    ok("-s=a=b", &o);
    assert_string_equal(opts_str(&o, "s"), "a=b");
    ok("-s -b", &o); /* the value may look like an option */
    assert_string_equal(opts_str(&o, "s"), "-b");
    assert_false(opts_bool(&o, "b"));
    ok("-s=", &o);
    assert_string_equal(opts_str(&o, "s"), "");
    ok("-s ''", &o);
    assert_string_equal(opts_str(&o, "s"), "");
}

static void test_switches(void **state)
{
    (void)state;
    struct opts o;
    static const char *const yes[] = {"-b", "--b", "-b=true", "--b=1", "-b=T", "-b=TRUE", "x -b"};
    static const char *const no[] = {"", "-b=false", "--b=0", "-b=F", "-b -b=False", "-- -b"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        ok(yes[i], &o);
        assert_true(opts_bool(&o, "b"));
    }
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        ok(no[i], &o);
        assert_false(opts_bool(&o, "b"));
    }
    ok("-long-name false", &o); /* a switch takes no value from the next word */
    assert_true(opts_bool(&o, "long-name"));
    assert_string_equal(o.args[0], "false");
}

static void test_kinds(void **state)
{
    (void)state;
    struct opts o;
    ok("-n 0x10 -d 1m30s -t 00000000000000ff", &o);
    assert_int_equal(opts_number(&o, "n"), 16);
    assert_int_equal(opts_number(&o, "d"), 90000000000);
    assert_int_equal(opts_number(&o, "t"), 255);
    ok("", &o);
    assert_int_equal(opts_number(&o, "n"), 8);
    assert_false(opts_given(&o, "n"));
    assert_int_equal(opts_number(&o, "d"), 0);
}

static void test_positionals(void **state)
{
    (void)state;
    struct opts o;
    ok("-b a - -- -s -b", &o);
    assert_int_equal(o.arg_count, 4);
    assert_string_equal(o.args[1], "-");
    assert_string_equal(o.args[2], "-s");
    assert_string_equal(o.args[3], "-b");
    ok("1 2 3 4 5 6 7 8 9 10", &o);
    assert_int_equal(o.arg_count, 10); /* counted, though only ARGS_MAX are kept */
    assert_string_equal(o.args[ARGS_MAX - 1], "8");
}

static void test_environment_and_default(void **state)
{
    (void)state;
    struct opts o;
    ok("", &o);
    assert_string_equal(opts_str(&o, "s"), "fallback");
    assert_int_equal(setenv("SLUICE_TEST_S", "from-env", 1), 0);
    ok("", &o);
    assert_string_equal(opts_str(&o, "s"), "from-env");
    assert_false(opts_given(&o, "s"));
    ok("-s mine", &o);
    assert_string_equal(opts_str(&o, "s"), "mine");
    assert_int_equal(setenv("SLUICE_TEST_S", "", 1), 0); /* empty counts as not set */
    ok("", &o);
    assert_string_equal(opts_str(&o, "s"), "fallback");
    assert_int_equal(unsetenv("SLUICE_TEST_S"), 0);
}

static void test_aliases(void **state)
{
    (void)state;
    struct opts o;
    static const char *const forms[] = {"-c x", "--c=x", "-config x", "-config y -c x"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        ok(forms[i], &o);
        assert_string_equal(opts_str(&o, "config"), "x");
        assert_true(opts_given(&o, "config"));
    }
    ok("-bee", &o);
    assert_true(opts_bool(&o, "b"));
}

static void fills(struct opts *o, const char *key, const char *text)
{
    struct err err = {0};
    if (opts_fill(o, key, text, "x.yml:3", &err) != RC_OK) fail_msg("%s", err.text);
}

static void test_a_file_fills_gaps(void **state)
{
    (void)state;
    struct opts o;
    ok("-n 5", &o);
    fills(&o, "n", "6"); /* the line is stronger */
    assert_int_equal(opts_number(&o, "n"), 5);
    fills(&o, "s", "file"); /* than the table's default */
    assert_string_equal(opts_str(&o, "s"), "file");
    fills(&o, "d", "2s");
    assert_int_equal(opts_number(&o, "d"), 2000000000);
    assert_false(opts_given(&o, "s") || opts_given(&o, "d"));
    assert_int_equal(setenv("SLUICE_TEST_S", "from-env", 1), 0);
    ok("", &o);
    fills(&o, "s", "file"); /* weaker than the environment */
    assert_string_equal(opts_str(&o, "s"), "from-env");
    assert_int_equal(unsetenv("SLUICE_TEST_S"), 0);
    static const char *const yes[] = {"true", "yes", "On", "1"};
    static const char *const no[] = {"false", "No", "off", "0"};
    for (size_t i = 0; i < 4; i++) {
        fills(&o, "b", yes[i]);
        assert_true(opts_bool(&o, "b"));
        fills(&o, "b", no[i]);
        assert_false(opts_bool(&o, "b"));
    }
}

static void fill_fails(const char *key, const char *text, const char *message)
{
    struct err err = {0};
    struct opts o;
    ok("-n 5", &o);
    assert_int_equal(opts_fill(&o, key, text, "x.yml:3", &err), RC_INVALID);
    assert_string_equal(err.text, message);
    assert_int_equal(opts_number(&o, "n"), 5);
}

static void test_a_file_is_checked(void **state)
{
    (void)state;
    fill_fails("n", "x", "x.yml:3: invalid value \"x\" for flag -n: parse error");
    fill_fails("b", "maybe", "x.yml:3: invalid boolean value \"maybe\" for -b: parse error");
    fill_fails("long_name", "1", "x.yml:3: unknown key 'long_name'; did you mean 'long-name'?");
    fill_fails("longname", "1", "x.yml:3: unknown key 'longname'; did you mean 'long-name'?");
    fill_fails("log-names", "1", "x.yml:3: unknown key 'log-names'; did you mean 'long-name'?");
    fill_fails("nothing-like-it", "1", "x.yml:3: unknown key 'nothing-like-it'");
    fill_fails("", "1", "x.yml:3: unknown key ''");
    fill_fails("config", "1", "x.yml:3: unknown key 'config'"); /* on the line only */
    fill_fails("bee", "1", "x.yml:3: unknown key 'bee'; did you mean 'b'?");
    fill_fails("a-key-of-more-than-sixty-four-letters-is-not-compared-with-anything-at-all", "1",
               "x.yml:3: unknown key "
               "'a-key-of-more-than-sixty-four-letters-is-not-compared-with-anyth'");
    assert_non_null(opts_key(&command, "n"));
    assert_null(opts_key(&command, "config"));
    assert_null(opts_key(&command, "bee"));
}

static void test_errors(void **state)
{
    (void)state;
    bad("-x", "flag provided but not defined: -x");
    bad("--x=1", "flag provided but not defined: -x");
    bad("a -bs", "flag provided but not defined: -bs");
    bad("-s", "flag needs an argument: -s");
    bad("---s v", "bad flag syntax: ---s");
    bad("-=v", "bad flag syntax: -=v");
    bad("--=v", "bad flag syntax: --=v");
    bad("-b=maybe", "invalid boolean value \"maybe\" for -b: parse error");
    bad("-n x", "invalid value \"x\" for flag -n: parse error");
    bad("-n -1", "invalid value \"-1\" for flag -n: parse error");
    bad("-n 5x", "invalid value \"5x\" for flag -n: parse error");
    bad("-n ''", "invalid value \"\" for flag -n: parse error");
    bad("-n 4294967296", "invalid value \"4294967296\" for flag -n: value out of range");
    bad("-d 1x", "invalid value \"1x\" for flag -d: parse error");
    bad("-d -1s", "invalid value \"-1s\" for flag -d: parse error");
    bad("-t 1", "invalid value \"1\" for flag -t: invalid txid format");
    bad("-t 000000000000000g",
        "invalid value \"000000000000000g\" for flag -t: invalid txid format");
}

static void test_help_is_asked_for(void **state)
{
    (void)state;
    struct opts o;
    static const char *const forms[] = {"-h", "-help", "--help", "a -b -h", "-h -nonsense", "-h=1"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        ok(forms[i], &o);
        assert_true(o.help);
    }
    ok("-- -h", &o);
    assert_false(o.help);
    ok("-s -h", &o);
    assert_false(o.help);
}

static char *printed(void (*print)(const struct command *, FILE *))
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    print(&command, f);
    fclose(f);
    return text;
}

static void test_help_shows_the_whole_table(void **state)
{
    (void)state;
    char *help = printed(opts_print_help), *md = printed(opts_print_markdown);
    for (size_t i = 0; i < command.opt_count; i++) {
        const struct opt *opt = &options[i];
        char flag[64];
        snprintf(flag, sizeof flag, "-%s%s%s", opt->name, opt->arg ? " " : "",
                 opt->arg ? opt->arg : "");
        assert_non_null(strstr(help, flag));
        assert_non_null(strstr(help, opt->help));
        assert_non_null(strstr(md, flag));
        assert_non_null(strstr(md, opt->help));
    }
    assert_non_null(strstr(help, "Default: fallback"));
    assert_non_null(strstr(help, "Environment: SLUICE_TEST_S"));
    assert_non_null(strstr(help, "Example: -s x"));
    assert_non_null(strstr(help, "Also: -bee"));
    assert_non_null(strstr(md, "- Also: `-bee`"));
    assert_non_null(strstr(help, "$ sluice test -b"));
    assert_non_null(strstr(help, "sluice test [options] A"));
    free(help);
    free(md);
}

static void test_wrapping(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    opts_print_wrapped(f,
                       "a b\n\nc 45678901234567890123456789012345678901234567890123456789012345678"
                       "901234567890",
                       4);
    fclose(f);
    assert_string_equal(text,
                        "    a b\n\n    c\n    45678901234567890123456789012345678901234567890123"
                        "456789012345678901234567890\n");
    free(text);
}

static void test_every_command_is_documented(void **state)
{
    (void)state;
    static const struct command *const all[] = {
        &cmd_databases, &cmd_ltx,    &cmd_replicate, &cmd_probe, &cmd_url, &cmd_restore,
        &cmd_serve,     &cmd_status, &cmd_version,   &cmd_help,  &cmd_wal, &cmd_gen_docs};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_non_null(all[i]->run);
        assert_true(strlen(all[i]->summary) > 5 && strlen(all[i]->about) > 5);
        assert_true(all[i]->opt_count <= OPTS_MAX);
        for (size_t k = 0; k < all[i]->opt_count; k++) {
            const struct opt *opt = &all[i]->opts[k];
            assert_true(opt->help != NULL && opt->help[strlen(opt->help) - 1] == '.');
            assert_int_equal(opt->kind == OPT_BOOL, opt->arg == NULL);
        }
    }
}

static void test_table_layout(void **state)
{
    (void)state;
    struct err err;
    struct table t = {.columns = 3};
    char *text = NULL;
    size_t size;
    assert_int_equal(table_row(&t, &err, "a", "bb", "c"), RC_OK);
    assert_int_equal(table_row(&t, &err, "aaaa", "b", "cccc"), RC_OK);
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    table_print(&t, f);
    fclose(f);
    assert_string_equal(text, "a     bb  c\naaaa  b   cccc\n");
    free(text);
    table_fini(&t);
}

static void test_progress_text(void **state)
{
    (void)state;
    char text[160];
    struct restore_progress p = {.bytes_done = 25000000, .bytes_total = 100000000};
    progress_text(&p, 100, text, sizeof text);
    assert_string_equal(text, "25 MB of 100 MB (25%)");
    progress_text(&p, 1000, text, sizeof text);
    assert_string_equal(text, "25 MB of 100 MB (25%), 25 MB/s, 3 s left");
    p = (struct restore_progress){0};
    progress_text(&p, 1000, text, sizeof text);
    assert_string_equal(text, "0 B of 0 B (0%)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_forms),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_positionals),
        cmocka_unit_test(test_environment_and_default),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_a_file_fills_gaps),
        cmocka_unit_test(test_a_file_is_checked),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_help_is_asked_for),
        cmocka_unit_test(test_help_shows_the_whole_table),
        cmocka_unit_test(test_wrapping),
        cmocka_unit_test(test_every_command_is_documented),
        cmocka_unit_test(test_table_layout),
        cmocka_unit_test(test_progress_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
