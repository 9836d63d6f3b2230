/*
 * api_sync.c -- embedded replicas of libSQL's clients, over HTTP:
 *
 *   GET /info                   {"current_generation": N}
 *   GET /export/N               the database at the beginning of generation N
 *   GET /sync/N/FROM/TO         its frames FROM..TO-1, as in a WAL; no more: 400 {"generation": M},
 *                               and if M > N the replica goes on with generation N + 1
 *   POST /sync/...              frames written without the server: refused
 *
 * All that was committed before a request came is in its answer.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/os.h"
#include "server/sync_desk.h"

#define BYTES      "application/octet-stream"
#define CHUNK_SIZE (256u << 10)

static bool parse(const char *path, struct sync_ask *y);
static bool number(const char **at, uint64_t max, uint64_t *ret);
static void begin(struct crew_job *job);
static bool answer_known(struct sync_ask *y);
static void answer(struct sync_ask *y);
static void answer_info(struct sync_ask *y);
static void answer_export(struct sync_ask *y);
static enum rc send_file(struct sync_ask *y, const char *path, struct err *err);
static void reply_frames(struct sync_ask *y, uint32_t newest);
static void reply_number(struct ask *a, unsigned status, const char *name, uint32_t value);

void api_sync(struct ask *a)
{
    struct sync_ask *y;
    if (!sync_admit(a, &y)) return;
    if (strcmp(http_method(a->http), "POST") == 0) {
        ask_fail_text(
            a, 501, "OFFLINE_WRITES",
            "offline writes of libSQL's clients are not taken here, because other clients "
            "may have written meanwhile: write through the server (without `offline`), or "
            "use a client of /pull-updates, which sends what it has changed");
        return;
    }
    if (!parse(a->target.rest, y)) {
        ask_fail_text(a, 404, "NOT_FOUND", "There is nothing at %s", http_path(a->http));
        return;
    }
    y->answer = answer;
    sync_to_work(y, begin);
}

static bool parse(const char *path, struct sync_ask *y)
{
    static const char export[] = "/export/", sync[] = "/sync/";
    uint64_t n;
    const char *at = path;
    if (strncmp(path, export, sizeof export - 1) == 0) {
        at += sizeof export - 2;
        y->what = SYNC_EXPORT;
    } else if (strncmp(path, sync, sizeof sync - 1) == 0) {
        at += sizeof sync - 2;
        y->what = SYNC_FRAMES;
    } else {
        y->what = SYNC_INFO;
        return true;
    }
    if (!number(&at, UINT32_MAX, &n)) return false;
    y->range.number = (uint32_t)n;
    if (y->what == SYNC_EXPORT) return *at == '\0';
    if (!number(&at, UINT32_MAX, &y->range.from) || !number(&at, UINT32_MAX, &y->range.to))
        return false;
    return *at == '\0' && y->range.from >= 1 && y->range.to > y->range.from;
}

/* "/" and digits. */
static bool number(const char **at, uint64_t max, uint64_t *ret)
{
    char *end;
    if (**at != '/' || (*at)[1] < '0' || (*at)[1] > '9') return false;
    *ret = strtoull(*at + 1, &end, 10);
    *at = end;
    return *ret <= max;
}

static void begin(struct crew_job *job)
{
    struct sync_ask *y = ask_of(job)->sync;
    if (!sync_take_log(y)) return;
    if (y->what == SYNC_FRAMES && answer_known(y)) return;
    sync_wait(y);
}

/* In the middle of a generation nothing has to be waited for. */
static bool answer_known(struct sync_ask *y)
{
    struct err err;
    uint32_t newest;
    bool final = false;
    const struct call call = sync_call(y);
    enum rc rc = sync_log_frames(y->log, &call, 0, &y->range, &y->ask->out, &newest, &final, &err);
    if (rc == RC_OK && final) {
        reply_frames(y, newest);
        return true;
    }
    buf_reset(&y->ask->out); /* once more, then with all that is new */
    return false;
}

static void answer(struct sync_ask *y)
{
    struct err err;
    uint32_t newest;
    bool final;
    if (y->what == SYNC_INFO) {
        answer_info(y);
        return;
    }
    if (y->what == SYNC_EXPORT) {
        answer_export(y);
        return;
    }
    const struct call call = sync_call(y);
    enum rc rc = sync_log_frames(y->log, &call, y->wait.txid, &y->range, &y->ask->out, &newest,
                                 &final, &err);
    if (rc == RC_OK)
        reply_frames(y, newest);
    else
        sync_fail(y, rc, &err);
}

static void reply_frames(struct sync_ask *y, uint32_t newest)
{
    struct ask *a = y->ask;
    if (a->out.size > 0)
        http_reply(a->http, 200, BYTES, &a->out);
    else
        reply_number(a, 400, "generation", newest);
}

static void answer_info(struct sync_ask *y)
{
    struct err err;
    uint32_t generation;
    const struct call call = sync_call(y);
    enum rc rc = sync_log_info(y->log, &call, y->wait.txid, &generation, &err);
    if (rc != RC_OK)
        sync_fail(y, rc, &err);
    else
        reply_number(y->ask, 200, "current_generation", generation);
}

static void reply_number(struct ask *a, unsigned status, const char *name, uint32_t value)
{
    struct err err;
    if (buf_printf(&a->out, &err, "{\"%s\":%" PRIu32 "}", name, value) == RC_OK)
        http_reply(a->http, status, "application/json", &a->out);
    else
        ask_fail_rc(a, RC_NO_MEM, &err);
}

static void answer_export(struct sync_ask *y)
{
    const struct server_opts *o = &y->ask->server->opts;
    struct err err, ignored;
    char path[OS_PATH_MAX];
    uint64_t base = 0;
    struct call call = sync_call(y);
    enum rc rc = sync_log_base(y->log, &call, y->range.number, &base, &err);
    call.deadline_ms = 0; /* it may be large */
    if (rc == RC_OK) rc = o->ops->image_file(o->tenants, y->ask->tenant, base, &call, path, &err);
    if (rc == RC_OK) {
        rc = send_file(y, path, &err);
        (void)!os_unlink(path, &ignored);
    }
    sync_send_end(y, BYTES, rc, &err);
}

static enum rc send_file(struct sync_ask *y, const char *path, struct err *err)
{
    struct buf *out = &y->ask->out;
    CLEANUP(os_closep) int fd = -1;
    size_t got = CHUNK_SIZE;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    os_advise_stream(fd);
    for (uint64_t off = 0; got == CHUNK_SIZE; off += got) {
        TRY(buf_reserve(out, CHUNK_SIZE, err));
        TRY(os_pread(fd, out->data + out->size, CHUNK_SIZE, off, &got, err));
        out->size += got;
        TRY(sync_send(y, BYTES, err));
    }
    return RC_OK;
}
