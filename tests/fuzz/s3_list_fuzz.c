/*
 * s3_list_fuzz.c -- a document from an S3 service, as a page of a listing, as the answer to a
 * delete and as an error. Whatever it holds: keys that reach the caller lie below the prefix,
 * ascend and fit; texts for messages hold no control characters.
 */
#include "../../src/store/s3_list.c"
#include "fuzz/fuzz.h"

static enum rc check_object(void *ctx, const struct store_obj *obj, struct err *err)
{
    char *last = ctx;
    (void)err;
    CHECK(strnlen(obj->key, sizeof obj->key) <= STORE_KEY_MAX);
    CHECK(strncmp(obj->key, "a/", 2) == 0);
    CHECK(strcmp(obj->key, last) > 0);
    CHECK(strnlen(obj->etag, sizeof obj->etag) < sizeof obj->etag);
    memcpy(last, obj->key, sizeof obj->key);
    return RC_OK;
}

static void check_plain(const char *text)
{
    for (; *text != '\0'; text++)
        CHECK((unsigned char)*text >= 0x20 && *text != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct s3 s = {.base.name = "s3://bucket/root", .conf.root = "root"};
    static char full[] = "root/a/";
    char last[STORE_KEY_MAX + 1] = "", token[TOKEN_SIZE] = "";
    struct err err;
    struct lister l = {.s = &s, .prefix = "a/", .fn = check_object, .ctx = last, .token = token};
    struct deleter d = {0};
    struct http_resp resp = {.text = {.data = (uint8_t *)data, .size = size}};
    struct s3_error e;
    l.full = (struct buf){.data = (uint8_t *)full, .size = sizeof full};
    l.root_size = strlen("root/");
    if (xml_walk(data, size, read_marks, &l, &err) == RC_OK) {
        enum rc rc = xml_walk(data, size, read_objects, &l, &err);
        CHECK(rc == RC_OK || rc == RC_CORRUPT);
        CHECK(strnlen(token, sizeof token) < sizeof token);
    }
    if (xml_walk(data, size, read_deletes, &d, &err) == RC_OK && d.count > 0) {
        check_plain(d.worst.code);
        check_plain(d.worst.message);
    }
    buf_fini(&d.failed);
    s3_error_get(&resp, "Error", &e);
    check_plain(e.code);
    check_plain(e.message);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t out[FUZZ_SIZE_MAX])
{
#define ITEM(key)                                                                                  \
    "<Contents><Key>root/a/" key "</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"     \
    "<ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>"
    static const char list[] =
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/"
        "\"><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>t</NextContinuationToken>" ITEM("b+%2F%c3%bc") ITEM("c")
            ITEM("d") "</ListBucketResult>";
    static const char bare[] =
        "<ListBucketResult>" ITEM("&lt;&#x41;") ITEM("b") "</ListBucketResult>";
    static const char deletes[] =
        "<DeleteResult><Error><Key>root/a/b</Key><Code>AccessDenied</Code><Message>No&#10;"
        "</Message></Error><Error><Key>root/a/c</Key><Code>NoSuchKey</Code></Error></DeleteResult>";
    static const char error[] =
        "<Error><Code>SlowDown</Code><Message>Please&#9;wait</Message><Region>r</Region></Error>";
    static const char entity[] = "<!DOCTYPE x [<!ENTITY a 'b'>]><Error><Code>&a;</Code></Error>";
    static const char *const seeds[] = {list, bare, deletes, error, entity};
    const char *text = seeds[n % (sizeof seeds / sizeof seeds[0])];
    memcpy(out, text, strlen(text));
    return strlen(text);
}
