/*
 * s3_multi.c -- uploads in parts of the S3 driver. See s3_intern.h.
 *
 *   POST ?uploads -> id;  PUT ?partNumber=n&uploadId=id, several at a time;  POST ?uploadId=id
 *
 * The object exists once the last request has succeeded, whole; until then there is nothing but
 * parts, which a failure of any kind takes back (DELETE ?uploadId=id, with a deadline of its own,
 * since the call's may be what has passed). A crash leaves parts behind that no listing shows: the
 * bucket wants a rule that ends incomplete uploads after some days.
 *
 * Each worker holds the bytes of one part. Parts are of one size (some services insist) as long as
 * 10,000 of them are enough; of a body of unknown size they begin to grow after the first thousand,
 * so that 5 TiB fit with parts of 5 MiB to begin with. As they grow, workers retire, so that all of
 * them together stay within concurrency x part size.
 *
 * A completion may answer 200 and say in its body that it has failed.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/hash.h"
#include "store/s3_intern.h"
#include "store/xml.h"
#include <inttypes.h>
#include <endian.h>
#include <stdio.h>
#include <string.h>

#define ABORT_MS 10000
#define EQUAL_PARTS                                                                                \
    1000 /* of a body of unknown size: then part n is 1 + (n - 1000)/38 times it                   \
          */
#define GROW_PARTS 38
#define PART_UNIT  (1u << 20)
#define UPLOAD_ID  2048

struct multi {
    struct s3 *s;
    const struct call *c;
    const char *key;
    const struct store_body *body;
    struct s3_feed *feed; /* NULL: the size is known */
    char id[UPLOAD_ID];   /* percent-encoded */
    uint64_t part_size;   /* at first */
    uint64_t budget;      /* bytes that all workers together may hold */
    bool equal;           /* parts must not grow */
    pthread_mutex_t lock;
    void *first;                   /* [lock] the first part, read already */
    uint64_t size;                 /* [lock] bytes handed out */
    uint32_t count;                /* [lock] parts handed out */
    bool done, failed;             /* [lock] no more parts */
    char (*etags)[STORE_ETAG_MAX]; /* [lock] of part n at n - 1 */
    uint32_t etags_cap;            /* [lock] */
};

struct part {
    uint32_t number; /* from 1; 0: there is none */
    uint64_t off;
    size_t size;
};

struct completion {
    struct multi *m;
    const struct store_put_opts *opts;
    const struct buf *xml;
    char *etag;
};

static enum rc begin(struct multi *m, const struct store_put_opts *opts, struct err *err);
static enum rc worker(void *ctx, uint64_t i, struct err *err);
static enum rc part_next(struct multi *m, uint64_t worker_index, void **data, size_t *data_cap,
                         struct part *ret, struct err *err);
static enum rc part_known(struct multi *m, uint64_t most, struct part *ret, struct err *err);
static enum rc part_fed(struct multi *m, void **data, uint64_t most, struct part *ret,
                        struct err *err);
static enum rc part_add(struct multi *m, size_t size, struct part *ret, struct err *err);
static enum rc part_put(struct multi *m, const struct part *p, const void *data, struct err *err);
static enum rc complete(struct multi *m, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err);
static enum rc look_first(struct multi *m, const struct store_put_opts *opts, struct err *err);
static enum rc complete_try(void *ctx, struct retry_hint *hint, struct err *err);
static void take_back(struct multi *m);

enum rc s3_put_parts(struct s3 *s, const struct call *c, const char *key,
                     const struct store_body *body, struct s3_feed *feed, void *first,
                     const struct store_put_opts *opts, struct store_obj *ret_obj, struct err *err)
{
    struct multi m = {.s = s, .c = c, .key = key, .body = body, .feed = feed, .first = first};
    uint64_t workers = s->conf.concurrency;
    m.part_size = s->conf.part_size;
    m.equal = strstr(s->conf.endpoint, ".r2.cloudflarestorage.com") != NULL;
    m.budget = m.part_size * workers;
    if (feed == NULL) {
        uint64_t least = body->size / S3_PARTS_MAX + 1;
        if (least > m.part_size) m.part_size = (least + PART_UNIT - 1) / PART_UNIT * PART_UNIT;
        uint64_t parts = (body->size + m.part_size - 1) / m.part_size;
        if (workers > parts) workers = parts;
    }
    pthread_mutex_init(&m.lock, NULL);
    enum rc rc = RC_OK;
    if (m.part_size > S3_PART_MAX) {
        rc = err_set(err, RC_TOO_BIG, "put '%s': %" PRIu64 " bytes are more than S3 can hold", key,
                     body->size);
    } else {
        rc = begin(&m, opts, err);
    }
    if (rc == RC_OK) {
        rc = thr_each((unsigned)workers, workers, worker, &m, err);
        if (rc == RC_OK) rc = complete(&m, opts, ret_obj, err);
        if (rc != RC_OK) take_back(&m);
    }
    mem_free(m.first);
    mem_free(m.etags);
    pthread_mutex_destroy(&m.lock);
    return rc;
}

uint64_t s3_stream_part(uint64_t part_size, uint32_t number)
{
    if (number <= EQUAL_PARTS) return part_size;
    uint64_t size = part_size * (1 + (number - EQUAL_PARTS) / GROW_PARTS);
    return size < S3_PART_MAX ? size : S3_PART_MAX;
}

static enum rc begin(struct multi *m, const struct store_put_opts *opts, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = m->s,
                       .c = m->c,
                       .method = "POST",
                       .key = m->key,
                       .query = "uploads",
                       .verb = "begin to put"};
    CLEANUP(buf_fini) struct buf id = BUF_INIT;
    char text[XML_TEXT_MAX + 1];
    r.declare_crc = !m->s->conf.sign_payload && m->s->conf.dialect == S3_AWS;
    r.http.op = STORE_OP_PUT;
    TRY(s3_object_headers(&r, opts, false, err));
    TRY(s3_send(&r, &resp, err));
    if (!xml_find(resp.text.data, resp.text.size, "InitiateMultipartUploadResult/UploadId", text,
                  sizeof text) ||
        text[0] == '\0')
        return err_set(err, RC_AGAIN, "%s: the service's answer has no upload id", r.what);
    TRY(uri_append(&id, text, false, err));
    if (id.size >= sizeof m->id)
        return err_set(err, RC_AGAIN, "%s: the upload id is too long", r.what);
    memcpy(m->id, id.data, id.size);
    m->id[id.size] = '\0';
    return RC_OK;
}

static enum rc worker(void *ctx, uint64_t i, struct err *err)
{
    struct multi *m = ctx;
    CLEANUP(mem_freep) void *data = NULL;
    size_t data_cap = 0;
    for (;;) {
        struct part p = {0};
        enum rc rc = part_next(m, i, &data, &data_cap, &p, err);
        if (rc == RC_OK && p.number == 0) return RC_OK;
        if (rc == RC_OK && m->feed == NULL)
            rc = s3_body_read(m->c, m->body, p.off, data, p.size, err);
        if (rc == RC_OK) rc = part_put(m, &p, data, err);
        if (rc == RC_OK) continue;
        thr_lock(&m->lock);
        m->failed = true;
        thr_unlock(&m->lock);
        return rc;
    }
}

/* Take the next part. Of a body of unknown size it is read here, under the lock that keeps it in
 * order. */
static enum rc part_next(struct multi *m, uint64_t worker_index, void **data, size_t *data_cap,
                         struct part *ret, struct err *err)
{
    enum rc rc = call_check(m->c, err);
    thr_lock(&m->lock);
    bool grows = m->feed != NULL && !m->equal;
    uint64_t most = grows ? s3_stream_part(m->part_size, m->count + 1) : m->part_size;
    bool retire = worker_index > 0 && (worker_index + 1) * most > m->budget;
    bool end = m->failed || m->done || retire || rc != RC_OK;
    if (!end && *data_cap < most) {
        mem_free(*data);
        *data_cap = 0;
        *data = mem_alloc((size_t)most);
        if (*data == NULL)
            rc = err_mem(err, "the bytes of a part");
        else
            *data_cap = (size_t)most;
    }
    if (!end && rc == RC_OK)
        rc = m->feed == NULL ? part_known(m, most, ret, err) : part_fed(m, data, most, ret, err);
    thr_unlock(&m->lock);
    return rc;
}

static enum rc part_known(struct multi *m, uint64_t most, struct part *ret, struct err *err)
{
    uint64_t left = m->body->size - m->size;
    TRY(part_add(m, (size_t)(left < most ? left : most), ret, err));
    m->done = m->size == m->body->size;
    return RC_OK;
}

static enum rc part_fed(struct multi *m, void **data, uint64_t most, struct part *ret,
                        struct err *err)
{
    size_t size = (size_t)most;
    if (m->first != NULL) {
        void *own = *data;
        *data = m->first;
        m->first = NULL;
        mem_free(own);
    } else {
        TRY(s3_feed(m->feed, *data, size, &size, err));
        m->done = m->feed->ended;
        if (size == 0) return RC_OK;
    }
    return part_add(m, size, ret, err);
}

static enum rc part_add(struct multi *m, size_t size, struct part *ret, struct err *err)
{
    if (m->count == S3_PARTS_MAX)
        return err_set(err, RC_TOO_BIG,
                       "put '%s': more than %d parts of %" PRIu64 " bytes: raise part-size", m->key,
                       S3_PARTS_MAX, m->part_size);
    if (m->count == m->etags_cap) {
        uint32_t cap = m->etags_cap ? m->etags_cap * 2 : 16;
        void *etags = mem_realloc(m->etags, cap * sizeof m->etags[0]);
        if (etags == NULL) return err_mem(err, "a list of parts");
        m->etags = etags;
        m->etags_cap = cap;
    }
    *ret = (struct part){.number = ++m->count, .off = m->size, .size = size};
    m->size += size;
    return RC_OK;
}

static enum rc part_put(struct multi *m, const struct part *p, const void *data, struct err *err)
{
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = m->s, .c = m->c, .method = "PUT", .key = m->key};
    CLEANUP(buf_fini) struct buf query = BUF_INIT;
    char crc[BASE64_SIZE(8)], verb[40], etag[STORE_ETAG_MAX];
    TRY(buf_printf(&query, err, "partNumber=%u&uploadId=%s", p->number, m->id));
    snprintf(verb, sizeof verb, "put part %u of", p->number);
    r.query = (char *)query.data;
    r.verb = verb;
    r.object = data;
    r.object_size = p->size;
    r.http.op = STORE_OP_PUT;
    if (!m->s->conf.sign_payload && m->s->conf.dialect == S3_AWS) {
        uint64_t sum = htobe64(hash_crc64nvme(0, data, p->size));
        base64_put(&sum, sizeof sum, crc);
        r.crc = crc;
    }
    TRY(s3_object_headers(&r, NULL, true, err));
    TRY(s3_send(&r, &resp, err));
    TRY(s3_etag(&r, http_resp_header(&resp, "ETag"), etag, err));
    thr_lock(&m->lock);
    memcpy(m->etags[p->number - 1], etag, sizeof etag);
    thr_unlock(&m->lock);
    return RC_OK;
}

static enum rc complete(struct multi *m, const struct store_put_opts *opts,
                        struct store_obj *ret_obj, struct err *err)
{
    CLEANUP(buf_fini) struct buf xml = BUF_INIT;
    struct completion done = {.m = m, .opts = opts, .xml = &xml, .etag = ret_obj->etag};
    TRY(buf_printf(
        &xml, err, "<CompleteMultipartUpload%s>",
        m->s->conf.dialect == S3_AWS ? " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"" : ""));
    for (uint32_t i = 0; i < m->count; i++) {
        TRY(buf_printf(&xml, err, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1));
        TRY(xml_append(&xml, m->etags[i], err));
        TRY(buf_printf(&xml, err, "</ETag></Part>"));
    }
    TRY(buf_printf(&xml, err, "</CompleteMultipartUpload>"));
    for (bool again = false;; again = true) {
        int sent = atomic_load(&m->s->quotes);
        TRY(look_first(m, opts, err));
        enum rc rc = retry_run(NULL, m->c, complete_try, &done, err);
        if (rc == RC_OK) break;
        if (rc != RC_CONFLICT || opts->if_etag == NULL || again) return rc;
        TRY(s3_refused(m->s, m->c, m->key, opts->if_etag, (enum s3_quotes)sent, err));
    }
    memcpy(ret_obj->key, m->key, strlen(m->key) + 1);
    ret_obj->size = m->size;
    ret_obj->mtime_ms = os_now_ms() + atomic_load(&m->s->skew_ms);
    return RC_OK;
}

/* Is the condition still true? For services that ignore it with a completion. */
static enum rc look_first(struct multi *m, const struct store_put_opts *opts, struct err *err)
{
    struct store_obj now = {0};
    if (!opts->if_absent && opts->if_etag == NULL) return RC_OK;
    enum rc rc = s3_stat(m->s, m->c, m->key, &now, err);
    /* Who may not look leaves it to the completion. */
    if ((rc == RC_NOT_FOUND && opts->if_absent) || rc == RC_DENIED) {
        err_clear(err);
        return RC_OK;
    }
    if (rc != RC_OK) return rc;
    if (opts->if_absent)
        return err_set(err, RC_CONFLICT, "create '%s' in '%.200s': it exists", m->key,
                       m->s->base.name);
    if (s3_etag_same(now.etag, opts->if_etag)) return RC_OK;
    return err_set(err, RC_CONFLICT, "replace '%s' in '%.200s': it has changed", m->key,
                   m->s->base.name);
}

static enum rc complete_try(void *ctx, struct retry_hint *hint, struct err *err)
{
    struct completion *done = ctx;
    struct multi *m = done->m;
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = m->s, .c = m->c, .method = "POST", .key = m->key, .verb = "complete"};
    CLEANUP(buf_fini) struct buf query = BUF_INIT;
    struct s3_error e;
    char text[STORE_ETAG_MAX + 1] = "", etag[STORE_ETAG_MAX] = "";
    TRY(buf_printf(&query, err, "uploadId=%s", m->id));
    r.query = (char *)query.data;
    r.http.op = STORE_OP_PUT;
    r.http.data = done->xml->data;
    r.http.data_size = done->xml->size;
    TRY(http_answer_header(&r.http, err, "Content-Type", "application/xml"));
    TRY(s3_object_headers(&r, NULL, true, err));
    TRY(s3_condition(&r, done->opts, err));
    enum rc rc = s3_send(&r, &resp, err);
    if (rc != RC_OK) {
        hint->final = true; /* it has had its tries */
        /* A lost try may have completed it, or a conflict ended it (409): no verdict. */
        if (strcmp(r.code, "NoSuchUpload") == 0) return err->rc = RC_AGAIN;
        return rc;
    }
    s3_error_get(&resp, "Error", &e);
    if (e.code[0] != '\0') {
        enum rc meant = s3_code_rc(e.code);
        return err_set(err, meant == RC_OK ? RC_AGAIN : meant, "%s: %s: %s", r.what, e.code,
                       e.message);
    }
    if (!xml_find(resp.text.data, resp.text.size, "CompleteMultipartUploadResult/ETag", text,
                  sizeof text))
        text[0] = '\0';
    s3_etag_quote(text, etag);
    return s3_etag(&r, etag, done->etag, err);
}

/* Its failure is no news: it is counted, and what stays is what a crash would leave. */
static void take_back(struct multi *m)
{
    struct call c = {.deadline_ms = os_mono_ms() + ABORT_MS};
    CLEANUP(http_resp_fini) struct http_resp resp = {0};
    CLEANUP(s3_req_fini)
    struct s3_req r = {.s = m->s, .c = &c, .method = "DELETE", .key = m->key, .verb = "abort"};
    CLEANUP(buf_fini) struct buf query = BUF_INIT;
    struct err ignored;
    if (buf_printf(&query, &ignored, "uploadId=%s", m->id) != RC_OK) return;
    r.query = (char *)query.data;
    r.http.op = STORE_OP_DEL;
    if (s3_send(&r, &resp, &ignored) != RC_OK) err_clear(&ignored);
}
