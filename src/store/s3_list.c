/*
 * s3_list.c -- listings, and deletes of many, of the S3 driver. See s3_intern.h.
 *
 * A listing is a sequence of pages, each an XML document that is read twice: first for its marks
 * (is there more, where, are keys encoded), then for its objects, which go to the caller one by
 * one. Nothing of a page is believed: keys must lie below the prefix, decode, and ascend, also from
 * one page to the next, so a listing that goes round in circles ends as corrupt.
 */
#include "base/mem.h"
#include "store/hash.h"
#include "store/s3_intern.h"
#include "store/xml.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_KEYS 1000 /* the most that services give and take */
#define PAGE_TEXT_MAX                                                                              \
    (16u << 20)          /* a page of 1000 keys of 1024 bytes, percent-encoded, and more           \
                          */
#define EMPTY_MAX   1000 /* pages in a row without a key that say that there is more */
#define TOKEN_SIZE  (XML_TEXT_MAX + 1)
#define KEY_MAX     1024 /* bytes of a key in S3 */
#define DELETE_TEXT (2u << 20)

struct lister {
    struct s3 *s;
    const struct call *c;
    const char *prefix;
    store_list_fn *fn;
    void *ctx;
    size_t root_size;       /* of root and '/' in front of each key */
    struct buf full;        /* root "/" prefix */
    char last[KEY_MAX + 1]; /* key in the bucket */
    size_t last_size;
    unsigned empty; /* pages in a row */

    /* this page */
    bool encoded, truncated;
    uint64_t keys;
    char *token; /* TOKEN_SIZE */
    struct store_obj obj;
    char key[KEY_MAX + 1];
    size_t key_size;
    bool has_key, has_size;
};

struct failure {
    char key[KEY_MAX + 1], code[64], message[200];
};
struct deleter {
    struct buf failed;     /* keys in the bucket, each with \0 */
    uint64_t count;        /* failures */
    struct failure worst;  /* the first, or the first that is final */
    struct failure record; /* that is being read */
};

static enum rc page(struct lister *l, const char *query, struct err *err);
static enum rc page_query(struct lister *l, const struct store_list_opts *opts, struct buf *out,
                          struct err *err);
static enum rc read_marks(void *ctx, const char *path, const char *text, struct err *err);
static enum rc read_objects(void *ctx, const char *path, const char *text, struct err *err);
static enum rc read_key(struct lister *l, const char *text, struct err *err);
static enum rc object(struct lister *l, struct err *err);
static enum rc page_next(struct lister *l, const char *old_token, struct err *err);
static enum rc corrupt(const struct lister *l, struct err *err, const char *what);
static enum rc delete_chunk(struct s3 *s, const struct call *c, const char *const *keys,
                            size_t count, struct err *err);
static enum rc delete_each(struct s3 *s, const struct call *c, const char *const *keys,
                           size_t count, struct err *err);
static enum rc delete_send(struct s3 *s, const struct call *c, struct buf *xml, size_t count,
                           struct deleter *d, struct err *err);
static enum rc delete_again(struct s3 *s, const struct call *c, struct deleter *d, struct err *err);
static bool is_final(const char *code);
static enum rc read_deletes(void *ctx, const char *path, const char *text, struct err *err);
static bool fits_xml(const char *key);

enum rc s3_list(struct store *st, const struct call *c, const char *prefix,
                const struct store_list_opts *opts, store_list_fn *fn, void *ctx, struct err *err)
{
    CLEANUP(mem_freep) struct lister *l = mem_calloc(1, sizeof *l);
    CLEANUP(mem_freep) char *tokens = mem_calloc(2, TOKEN_SIZE);
    CLEANUP(buf_fini) struct buf full = BUF_INIT, query = BUF_INIT;
    if (l == NULL || tokens == NULL) return err_mem(err, "a listing");
    *l = (struct lister){.s = (struct s3 *)st, .c = c, .prefix = prefix, .fn = fn, .ctx = ctx};
    TRY(s3_object_key(l->s, prefix, &full, err));
    TRY(buf_append(&full, "", 1, err));
    l->full = full;
    l->root_size = strlen(l->s->conf.root) + 1;
    l->token = tokens;
    for (;;) {
        char *old = tokens + TOKEN_SIZE;
        memcpy(old, tokens, TOKEN_SIZE);
        buf_reset(&query);
        TRY(page_query(l, opts, &query, err));
        TRY(page(l, (char *)query.data, err));
        if (!l->truncated) return RC_OK;
        TRY(page_next(l, old, err));
    }
}

enum rc s3_del_many(struct store *st, const struct call *c, const char *const *keys,
                    size_t key_count, struct err *err)
{
    struct s3 *s = (struct s3 *)st;
    for (size_t done = 0; done < key_count;) {
        size_t count = key_count - done < PAGE_KEYS ? key_count - done : PAGE_KEYS;
        bool single = count == 1 || s->conf.dialect == S3_GOOGLE || atomic_load(&s->no_delete_many);
        for (size_t i = 0; i < count && !single; i++)
            single = !fits_xml(keys[done + i]);
        enum rc rc = single ? RC_UNSUPPORTED : delete_chunk(s, c, keys + done, count, err);
        if (rc == RC_UNSUPPORTED) rc = delete_each(s, c, keys + done, count, err);
        if (rc != RC_OK) return rc;
        done += count;
    }
    return RC_OK;
}

static enum rc page(struct lister *l, const char *query, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = l->s, .c = l->c, .method = "GET", .query = query, .verb = "list"};
    r.http.op = STORE_OP_LIST;
    r.http.text_max = PAGE_TEXT_MAX;
    TRY(s3_send(&r, &resp, err));
    l->encoded = l->truncated = l->has_key = l->has_size = false;
    l->keys = 0;
    l->token[0] = '\0';
    if (xml_walk(resp.text.data, resp.text.size, read_marks, l, err) != RC_OK)
        return err_wrap(err, "list '%s' in '%.200s'", l->prefix, l->s->base.name);
    return xml_walk(resp.text.data, resp.text.size, read_objects, l, err);
}

static enum rc page_query(struct lister *l, const struct store_list_opts *opts, struct buf *out,
                          struct err *err)
{
    CLEANUP(buf_fini) struct buf after = BUF_INIT;
    uint32_t count = opts->count_max;
    TRY(buf_printf(out, err, "list-type=2&encoding-type=url&max-keys=%u&prefix=",
                   count > 0 && count < PAGE_KEYS ? count : PAGE_KEYS));
    TRY(uri_append(out, (char *)l->full.data, false, err));
    if (l->token[0] != '\0') {
        TRY(buf_printf(out, err, "&continuation-token="));
        TRY(uri_append(out, l->token, false, err));
    } else if (l->last_size > 0) {
        TRY(buf_printf(out, err, "&start-after="));
        TRY(uri_append(out, l->last, false, err));
    } else if (opts->after[0] != '\0') {
        TRY(s3_object_key(l->s, opts->after, &after, err));
        TRY(buf_printf(out, err, "&start-after="));
        TRY(uri_append(out, (char *)after.data, false, err));
    }
    return buf_append(out, "", 1, err);
}

static enum rc read_marks(void *ctx, const char *path, const char *text, struct err *err)
{
    struct lister *l = ctx;
    if (strncmp(path, "ListBucketResult", 16) != 0 || (path[16] != '/' && path[16] != '\0'))
        return err_set(err, RC_CORRUPT, "the answer is not a listing but <%.64s>", path);
    if (path[16] == '\0') return RC_OK;
    path += 17;
    if (strcmp(path, "EncodingType") == 0)
        l->encoded = strcmp(text, "url") == 0;
    else if (strcmp(path, "IsTruncated") == 0)
        l->truncated = strcmp(text, "true") == 0;
    else if (strcmp(path, "NextContinuationToken") == 0)
        snprintf(l->token, TOKEN_SIZE, "%s", text);
    return RC_OK;
}

static enum rc read_objects(void *ctx, const char *path, const char *text, struct err *err)
{
    struct lister *l = ctx;
    const char *name = path + sizeof "ListBucketResult/Contents" - 1;
    if (strncmp(path, "ListBucketResult/Contents", (size_t)(name - path)) != 0) return RC_OK;
    if (*name == '\0') return object(l, err);
    if (strcmp(name, "/Key") == 0) return read_key(l, text, err);
    if (strcmp(name, "/Size") == 0) {
        char *end;
        l->obj.size = strtoull(text, &end, 10);
        l->has_size = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    } else if (strcmp(name, "/ETag") == 0) {
        /* One that does not fit is left out: half an etag would match nothing. */
        s3_etag_quote(text, l->obj.etag);
    } else if (strcmp(name, "/LastModified") == 0) {
        if (time_get(text, &l->obj.mtime_ms, err) != RC_OK)
            return corrupt(l, err, "a time that is none");
    }
    return RC_OK;
}

static int hex_value(char c)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    if (at == NULL) return -1;
    return (int)(at - digits) < 16 ? (int)(at - digits) : (int)(at - digits) - 6;
}

/* "+" is a blank in what Amazon encodes, and a plus is never left as it is. */
static enum rc read_key(struct lister *l, const char *text, struct err *err)
{
    size_t size = 0;
    for (const char *p = text; *p != '\0'; p++) {
        int byte = (unsigned char)*p;
        if (size == KEY_MAX) return corrupt(l, err, "a key that is too long");
        if (l->encoded && *p == '+') byte = ' ';
        if (l->encoded && *p == '%') {
            int high = hex_value(p[1]), low = high >= 0 ? hex_value(p[2]) : -1;
            if (low < 0) return corrupt(l, err, "a key that cannot be decoded");
            byte = high << 4 | low;
            p += 2;
        }
        l->key[size++] = (char)byte;
    }
    l->key[size] = '\0';
    l->key_size = size;
    l->has_key = true;
    return RC_OK;
}

/* One object is complete. */
static enum rc object(struct lister *l, struct err *err)
{
    size_t full_size = strlen((char *)l->full.data);
    if (!l->has_key || !l->has_size) return corrupt(l, err, "an object without key or size");
    if (l->key_size < full_size || memcmp(l->key, l->full.data, full_size) != 0)
        return corrupt(l, err, "a key that was not asked for");
    size_t both = l->key_size < l->last_size ? l->key_size : l->last_size;
    int order = memcmp(l->key, l->last, both);
    if (order == 0) order = l->key_size > l->last_size ? 1 : -1;
    if (l->last_size > 0 && order <= 0)
        return corrupt(l, err,
                       "keys out of order (directory buckets are not sorted, and cannot be used)");
    memcpy(l->last, l->key, l->key_size + 1);
    l->last_size = l->key_size;
    l->keys++;
    struct store_obj obj = l->obj;
    l->obj = (struct store_obj){0};
    l->has_key = l->has_size = false;
    /* What no call here can name is not an object of this store. */
    size_t size = l->key_size - l->root_size;
    if (size > STORE_KEY_MAX || memchr(l->key, '\0', l->key_size) != NULL) return RC_OK;
    memcpy(obj.key, l->key + l->root_size, size + 1);
    if (call_check(l->c, err) != RC_OK) return err_wrap(err, "list '%s'", l->prefix);
    return l->fn(l->ctx, &obj, err);
}

/* A truncated page must lead somewhere. */
static enum rc page_next(struct lister *l, const char *old_token, struct err *err)
{
    if (l->token[0] != '\0' && strcmp(l->token, old_token) == 0)
        return corrupt(l, err, "the same continuation token again");
    if (l->token[0] == '\0' && l->keys == 0)
        return corrupt(l, err, "more to come, but nothing that says where");
    l->empty = l->keys == 0 ? l->empty + 1 : 0;
    if (l->empty == EMPTY_MAX) return corrupt(l, err, "empty pages without end");
    return RC_OK;
}

static enum rc corrupt(const struct lister *l, struct err *err, const char *what)
{
    return err_set(err, RC_CORRUPT, "list '%s' in '%.200s': the service's listing has %s",
                   l->prefix, l->s->base.name, what);
}

static enum rc delete_each(struct s3 *s, const struct call *c, const char *const *keys,
                           size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        TRY(call_check(c, err));
        TRY(s3_del(&s->base, c, keys[i], err));
    }
    return RC_OK;
}

/* Fails: RC_UNSUPPORTED the service cannot do this. */
static enum rc delete_chunk(struct s3 *s, const struct call *c, const char *const *keys,
                            size_t count, struct err *err)
{
    CLEANUP(buf_fini) struct buf xml = BUF_INIT, key = BUF_INIT, failed = BUF_INIT;
    CLEANUP(mem_freep) struct deleter *d = mem_calloc(1, sizeof *d);
    if (d == NULL) return err_mem(err, "a delete");
    TRY(buf_printf(&xml, err,
                   "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete%s>"
                   "<Quiet>true</Quiet>",
                   s->conf.dialect == S3_AWS ? " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
                                             : ""));
    for (size_t i = 0; i < count; i++) {
        buf_reset(&key);
        TRY(s3_object_key(s, keys[i], &key, err));
        TRY(buf_printf(&xml, err, "<Object><Key>"));
        TRY(xml_append(&xml, (char *)key.data, err));
        TRY(buf_printf(&xml, err, "</Key></Object>"));
    }
    TRY(buf_printf(&xml, err, "</Delete>"));
    enum rc rc = delete_send(s, c, &xml, count, d, err);
    failed = d->failed; /* freed with this scope */
    if (rc != RC_OK || d->count == 0) return rc;
    return delete_again(s, c, d, err);
}

static enum rc delete_send(struct s3 *s, const struct call *c, struct buf *xml, size_t count,
                           struct deleter *d, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = s, .c = c, .method = "POST", .query = "delete"};
    uint8_t md5[MD5_SIZE];
    char text[BASE64_SIZE(MD5_SIZE)], verb[40];
    snprintf(verb, sizeof verb, "delete %zu objects", count);
    r.verb = verb;
    r.http.op = STORE_OP_DEL;
    r.http.data = xml->data;
    r.http.data_size = xml->size;
    r.http.text_max = DELETE_TEXT;
    TRY(http_answer_header(&r.http, err, "Content-Type", "application/xml"));
    if (s->conf.content_md5 || s->conf.endpoint[0] == '\0') { /* Amazon insists */
        TRY(hash_md5(xml->data, xml->size, md5, err));
        base64_put(md5, sizeof md5, text);
        TRY(http_answer_header(&r.http, err, "Content-MD5", "%s", text));
    }
    enum rc rc = s3_send(&r, &resp, err);
    if (rc == RC_UNSUPPORTED) atomic_store(&s->no_delete_many, true);
    if (rc != RC_OK) return rc;
    /* OSS answers so when all is well. Of others it says nothing, so they are deleted one by one.
     */
    if (resp.text.size == 0 && s->conf.dialect == S3_OSS) return RC_OK;
    if (resp.text.size == 0)
        return err_set(err, RC_UNSUPPORTED, "%s: an answer without a document", r.what);
    rc = xml_walk(resp.text.data, resp.text.size, read_deletes, d, err);
    return rc == RC_OK ? RC_OK : err_wrap(err, "%s", r.what);
}

/* Those that failed once more, one by one, where that may help: a single delete has all the usual
 * tries. */
static enum rc delete_again(struct s3 *s, const struct call *c, struct deleter *d, struct err *err)
{
    size_t root_size = strlen(s->conf.root) + 1;
    const char *keys = (char *)d->failed.data;
    if (is_final(d->worst.code))
        return err_set(err, s3_code_rc(d->worst.code),
                       "delete '%.200s' in '%.100s': %s: %s (and %llu more)", d->worst.key,
                       s->base.name, d->worst.code, d->worst.message,
                       (unsigned long long)d->count - 1);
    for (size_t off = 0; off < d->failed.size; off += strlen(keys + off) + 1) {
        const char *key = keys + off;
        TRY(call_check(c, err));
        if (strlen(key) <= root_size || strncmp(key, s->conf.root, root_size - 1) != 0)
            return err_set(err, RC_CORRUPT, "delete in '%.200s': a failure of a strange key",
                           s->base.name);
        if (s3_del(&s->base, c, key + root_size, err) != RC_OK)
            return err_wrap(err, "%llu of the deletes failed", (unsigned long long)d->count);
    }
    return RC_OK;
}

static bool is_final(const char *code)
{
    enum rc rc = s3_code_rc(code);
    return rc != RC_OK && rc != RC_AGAIN;
}

/* DeleteResult/Error {Key, Code, Message}. */
static enum rc read_deletes(void *ctx, const char *path, const char *text, struct err *err)
{
    struct deleter *d = ctx;
    struct failure *f = &d->record;
    static const char error[] = "DeleteResult/Error";
    if (strncmp(path, "DeleteResult", 12) != 0 || (path[12] != '/' && path[12] != '\0'))
        return err_set(err, RC_CORRUPT, "the answer is not about deletes but <%.64s>", path);
    if (strncmp(path, error, sizeof error - 1) != 0) return RC_OK;
    const char *name = path + sizeof error - 1;
    if (strcmp(name, "/Key") == 0) snprintf(f->key, sizeof f->key, "%s", text);
    if (strcmp(name, "/Code") == 0) snprintf(f->code, sizeof f->code, "%s", text);
    if (strcmp(name, "/Message") == 0) snprintf(f->message, sizeof f->message, "%s", text);
    if (*name != '\0') return RC_OK;
    if (strcmp(f->code, "NoSuchKey") != 0) {
        s3_plain(f->code);
        s3_plain(f->message);
        TRY(buf_append(&d->failed, f->key, strlen(f->key) + 1, err));
        if (d->count++ == 0 || (is_final(f->code) && !is_final(d->worst.code))) d->worst = *f;
    }
    *f = (struct failure){0};
    return RC_OK;
}

/* XML 1.0 cannot say control characters, and turns some of them into others; bytes that are not
 * UTF-8, and U+FFFE and U+FFFF, make the whole document malformed. So only ASCII is sure, and keys
 * of ours are. */
static bool fits_xml(const char *key)
{
    for (; *key != '\0'; key++)
        if (*key < 0x20 || *key == 0x7f) return false;
    return true;
}
