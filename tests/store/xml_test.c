/* xml_test.c -- what services send, and what nobody should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/fault.h"
#include "base/mem.h"
#include "store/xml.h"

static struct err err;

static enum rc lines(void *ctx, const char *path, const char *text, struct err *e)
{
    return buf_printf(ctx, e, "%s=%s\n", path, text);
}

static enum rc walk(const char *xml, size_t size, struct buf *out)
{
    enum rc rc = xml_walk(xml, size, lines, out, &err);
    assert_int_equal(buf_append(out, "", 1, &err), RC_OK);
    return rc;
}

static void test_records(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    static const char xml[] = "<?xml version='1.0'?><a:List xmlns:a='urn:x' q='1'>\n"
                              " <Item><Key>x&amp;y &lt;&#233;&gt;</Key><Empty/></Item>"
                              " <Item><Key><![CDATA[<raw>]]></Key></Item> tail</a:List>";
    assert_int_equal(walk(xml, sizeof xml - 1, &b), RC_OK);
    assert_string_equal((char *)b.data, "List/Item/Key=x&y <\xc3\xa9>\nList/Item/Empty=\n"
                                        "List/Item=\nList/Item/Key=<raw>\nList/Item=\nList=\n");
}

static void test_refused(void **state)
{
    (void)state;
    char deep[XML_DEPTH * 3 + 4] = "";
    CLEANUP(buf_fini) struct buf big = BUF_INIT;
    for (int i = 0; i <= XML_DEPTH; i++)
        memcpy(deep + i * 3, "<a>", 4);
    assert_int_equal(buf_printf(&big, &err, "<a>%*s</a>", XML_TEXT_MAX + 1, "x"), RC_OK);
    const struct {
        const char *xml;
        size_t size;
    } cases[] = {
        {"", 0},
        {"<a>", 3},
        {"<a></b>", 7},
        {"<a/><b/>", 8},
        {"not xml", 7},
        {"<a>\0</a>", 8},
        {"<a>&b;</a>", 10},
        {"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", 40},
        {"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", 44},
        {"<a>\xff\xfe</a>", 9},
        {deep, strlen(deep)},
        {(char *)big.data, big.size},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CLEANUP(buf_fini) struct buf b = BUF_INIT;
        assert_int_equal(walk(cases[i].xml, cases[i].size, &b), RC_CORRUPT);
    }
}

/* Cut anywhere, a document is broken, and nothing but an error comes of it. */
static void test_cut(void **state)
{
    (void)state;
    static const char xml[] = "<?xml version='1.0'?><l><i><k>a&amp;b</k></i></l>";
    for (size_t size = 0; size < sizeof xml - 1; size++) {
        CLEANUP(buf_fini) struct buf b = BUF_INIT;
        assert_int_equal(walk(xml, size, &b), RC_CORRUPT);
    }
}

static void test_find(void **state)
{
    (void)state;
    char out[5];
    static const char xml[] = "<Error><Code>NoSuchKey</Code><Code>x</Code><broken";
    assert_true(xml_find(xml, sizeof xml - 1, "Error/Code", out, sizeof out));
    assert_string_equal(out, "NoSu");
    assert_false(xml_find(xml, sizeof xml - 1, "Code", out, sizeof out));
}

static void test_append(void **state)
{
    (void)state;
    CLEANUP(buf_fini) struct buf b = BUF_INIT, out = BUF_INIT;
    assert_int_equal(buf_append(&b, "<k>", 3, &err), RC_OK);
    assert_int_equal(xml_append(&b, "a<b>&\"'", &err), RC_OK);
    assert_int_equal(buf_append(&b, "</k>", 4, &err), RC_OK);
    assert_int_equal(walk((char *)b.data, b.size, &out), RC_OK);
    assert_string_equal((char *)out.data, "k=a<b>&\"'\n");
}

static void test_allocations(void **state)
{
    (void)state;
    static const char xml[] = "<l><i><k>a</k></i></l>";
    for (uint64_t nth = 1;; nth++) {
        CLEANUP(buf_fini) struct buf b = BUF_INIT;
        assert_int_equal(buf_reserve(&b, 200, &err), RC_OK);
        fault_arm(FAULT_ALLOC, nth, false);
        enum rc rc = xml_walk(xml, sizeof xml - 1, lines, &b, &err);
        bool fired = fault_fired();
        fault_arm(0, 0, false);
        assert_int_equal(rc, fired ? RC_NO_MEM : RC_OK);
        if (!fired) return;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cut),     cmocka_unit_test(test_find),
        cmocka_unit_test(test_append),  cmocka_unit_test(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
