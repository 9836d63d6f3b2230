/*
 * api_pull.c -- POST /pull-updates: pages that have changed since the client's revision, or all of
 * them. See updates.h.
 *
 * Of all transactions since then each page is sent once, as it is now. A client whose revision is
 * not of this log gets all pages of the database, and so does one that is too far behind: as news,
 * not as a new base, because clients take that only when they have nothing yet.
 *
 * A whole database is a copy of what is here, which may be newer than the revision it is sent with:
 * it is a state of one moment all the same, and the client is sent those pages once more.
 */
#include <fcntl.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "server/sync_desk.h"

#define PROTOBUF     "application/protobuf"
#define BEHIND_MAX   4096 /* transactions; beyond that, all pages */
#define POLL_MS_MAX  60000
#define CHUNK_PAGES  64
#define ENCODING_RAW 0

struct pages { /* on their way out */
    struct sync_ask *y;
    uint8_t *bits; /* of page ids: wanted, or sent; NULL: all are wanted */
    uint64_t page_count;
};

static void begin(struct crew_job *job);
static void answer(struct sync_ask *y);
static enum rc find(struct sync_ask *y, const struct call *call, struct tenant_batch *ret,
                    struct err *err);
static enum rc look(struct sync_ask *y, const struct call *call, uint64_t txid,
                    struct tenant_batch *ret, struct err *err);
static enum rc is_known(struct sync_ask *y, const struct call *call,
                        const struct updates_revision *have, bool *ret_known, struct err *err);
static enum rc put_head(struct sync_ask *y, const struct tenant_batch *at, uint64_t page_count,
                        bool whole, struct err *err);
static enum rc send_changes(struct sync_ask *y, const struct call *call, uint64_t since,
                            const struct tenant_batch *at, struct err *err);
static enum rc send_changed(void *ctx, const struct tenant_batch *b, uint32_t pgno,
                            const void *page, struct err *err);
static enum rc send_all(struct sync_ask *y, const struct call *call, const struct tenant_batch *at,
                        bool newest, struct err *err);
static enum rc send_file(struct sync_ask *y, const struct tenant_batch *at, const char *path,
                         struct err *err);
static enum rc bits_new(struct sync_ask *y, uint64_t page_count, uint8_t **ret, struct err *err);

void api_pull(struct ask *a)
{
    struct sync_ask *y;
    struct err err;
    size_t size;
    const void *body = http_body(a->http, &size);
    if (!sync_admit(a, &y)) return;
    enum rc rc = updates_get(body, size, &y->request, &err);
    if (rc == RC_OK && y->request.encoding != ENCODING_RAW)
        rc = err_set(&err, RC_INVALID, "pages are sent raw, no other encoding is known here");
    if (rc != RC_OK) {
        ask_fail_rc(a, rc, &err);
        return;
    }
    uint64_t poll_ms =
        y->request.long_poll_ms < POLL_MS_MAX ? y->request.long_poll_ms : POLL_MS_MAX;
    if (y->until_ms == 0) y->until_ms = os_mono_ms() + (int64_t)poll_ms;
    y->what = SYNC_PULL;
    y->answer = answer;
    sync_to_work(y, begin);
}

static void begin(struct crew_job *job)
{
    struct sync_ask *y = ask_of(job)->sync;
    const struct server_opts *o = &y->ask->server->opts;
    if (!sync_take_log(y)) return;
    y->seen = o->ops->commits(o->tenants, y->ask->tenant->name);
    sync_wait(y);
}

static void answer(struct sync_ask *y)
{
    struct tenant_batch at = {0};
    struct updates_revision have = {0};
    struct err err;
    bool known = false;
    struct call call = sync_call(y);
    enum rc rc = find(y, &call, &at, &err);
    if (rc == RC_OK && at.tag != 0 && updates_revision_get(y->request.client_revision, &have) &&
        have.txid <= at.txid)
        rc = is_known(y, &call, &have, &known, &err);
    if (rc == RC_OK && known && have.txid == at.txid && sync_park(y)) return;
    call.deadline_ms = 0;
    if (rc == RC_OK && known)
        rc = send_changes(y, &call, have.txid, &at, &err);
    else if (rc == RC_OK)
        rc = send_all(y, &call, &at, at.txid == y->wait.txid, &err);
    sync_send_end(y, PROTOBUF, rc, &err);
}

/* The transaction to tell of: the newest, or the one that is asked for. */
static enum rc find(struct sync_ask *y, const struct call *call, struct tenant_batch *ret,
                    struct err *err)
{
    struct updates_revision want;
    TRY(look(y, call, y->wait.txid, ret, err));
    if (y->request.server_revision.size == 0) return RC_OK;
    if (!updates_revision_get(y->request.server_revision, &want) || want.txid == 0 ||
        want.txid > ret->txid)
        return err_set(err, RC_CONFLICT, "server_revision is not one of this database");
    if (want.txid == ret->txid) return RC_OK;
    TRY(look(y, call, want.txid, ret, err));
    if (ret->tag == want.tag && ret->tag != 0) return RC_OK;
    return err_set(err, RC_CONFLICT, "server_revision is not one of this database");
}

/* Tag 0: the log does not have it by itself. */
static enum rc look(struct sync_ask *y, const struct call *call, uint64_t txid,
                    struct tenant_batch *ret, struct err *err)
{
    enum rc rc = sync_log_batch(y->log, call, txid, ret, NULL, NULL, err);
    if (rc != RC_NOT_FOUND) return rc;
    *ret = (struct tenant_batch){.txid = txid, .page_size = SYNC_PAGE_SIZE};
    return RC_OK;
}

/* Can the client go on from there? What the log gives up, it does from its beginning. */
static enum rc is_known(struct sync_ask *y, const struct call *call,
                        const struct updates_revision *have, bool *ret_known, struct err *err)
{
    struct tenant_batch b;
    TRY(look(y, call, have->txid, &b, err));
    *ret_known = b.tag != 0 && b.tag == have->tag;
    if (!*ret_known || have->txid == y->wait.txid) return RC_OK;
    TRY(look(y, call, have->txid + 1, &b, err));
    *ret_known = b.tag != 0 && y->wait.txid - have->txid <= BEHIND_MAX;
    return RC_OK;
}

static enum rc put_head(struct sync_ask *y, const struct tenant_batch *at, uint64_t page_count,
                        bool whole, struct err *err)
{
    char revision[UPDATES_REVISION_MAX];
    if (at->page_size != SYNC_PAGE_SIZE)
        return err_set(err, RC_INVALID,
                       "replicas need pages of %d bytes, those of namespace `%s` have %u",
                       SYNC_PAGE_SIZE, y->ask->tenant->name, at->page_size);
    const struct updates_revision r = {.txid = at->txid, .tag = at->tag};
    updates_revision_put(&r, revision);
    return updates_put_header(revision, page_count, whole, &y->ask->out, err);
}

/* From the newest back, so that the first version of a page is the one that counts. */
static enum rc send_changes(struct sync_ask *y, const struct call *call, uint64_t since,
                            const struct tenant_batch *at, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *sent = NULL;
    struct pages p = {.y = y, .page_count = at->page_count};
    TRY(put_head(y, at, at->page_count, false, err));
    if (since == at->txid) return RC_OK;
    sent = mem_calloc(1, at->page_count / 8 + 1);
    if (sent == NULL) return err_mem(err, "the pages of a replica");
    p.bits = sent;
    for (uint64_t txid = at->txid; txid > since; txid--) {
        struct tenant_batch b;
        TRY(sync_log_batch(y->log, call, txid, &b, send_changed, &p, err));
    }
    return RC_OK;
}

static enum rc send_changed(void *ctx, const struct tenant_batch *b, uint32_t pgno,
                            const void *page, struct err *err)
{
    struct pages *p = ctx;
    uint64_t id = pgno - 1;
    if (id >= p->page_count || (p->bits[id / 8] >> (id % 8) & 1) != 0) return RC_OK;
    p->bits[id / 8] |= (uint8_t)(1u << (id % 8));
    TRY(updates_put_page(id, page, b->page_size, &p->y->ask->out, err));
    return sync_send(p->y, PROTOBUF, err);
}

static enum rc send_all(struct sync_ask *y, const struct call *call, const struct tenant_batch *at,
                        bool newest, struct err *err)
{
    const struct server_opts *o = &y->ask->server->opts;
    char path[OS_PATH_MAX];
    struct err ignored;
    uint64_t txid = newest ? 0 : at->txid;
    TRY(o->ops->image_file(o->tenants, y->ask->tenant, txid, call, path, err));
    enum rc rc = send_file(y, at, path, err);
    (void)!os_unlink(path, &ignored);
    return rc;
}

static enum rc send_file(struct sync_ask *y, const struct tenant_batch *at, const char *path,
                         struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    CLEANUP(mem_freep) uint8_t *chunk = mem_alloc(CHUNK_PAGES * SYNC_PAGE_SIZE);
    CLEANUP(mem_freep) uint8_t *bits = NULL;
    struct stat st;
    if (chunk == NULL) return err_mem(err, "the pages of a replica");
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(os_fstat(fd, &st, err));
    uint64_t page_count = (uint64_t)st.st_size / SYNC_PAGE_SIZE;
    TRY(put_head(y, at, page_count, y->request.client_revision.size == 0, err));
    TRY(bits_new(y, page_count, &bits, err));
    os_advise_stream(fd);
    for (uint64_t id = 0; id < page_count;) {
        size_t got;
        TRY(os_pread(fd, chunk, CHUNK_PAGES * SYNC_PAGE_SIZE, id * SYNC_PAGE_SIZE, &got, err));
        if (got < SYNC_PAGE_SIZE) return err_set(err, RC_IO, "'%s' was cut", path);
        for (size_t i = 0; i < got / SYNC_PAGE_SIZE; i++, id++) {
            if (bits != NULL && (bits[id / 8] >> (id % 8) & 1) == 0) continue;
            TRY(updates_put_page(id, chunk + i * SYNC_PAGE_SIZE, SYNC_PAGE_SIZE, &y->ask->out,
                                 err));
            TRY(sync_send(y, PROTOBUF, err));
        }
    }
    return RC_OK;
}

static enum rc bits_new(struct sync_ask *y, uint64_t page_count, uint8_t **ret, struct err *err)
{
    if (y->request.selector.size == 0) return RC_OK;
    uint8_t *bits = mem_calloc(1, page_count / 8 + 1);
    if (bits == NULL) return err_mem(err, "the pages of a replica");
    *ret = bits;
    return updates_select(y->request.selector, page_count, bits, err);
}
