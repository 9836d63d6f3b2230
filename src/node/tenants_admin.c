/* tenants_admin.c -- what administrators do with tenants; see tenants_intern.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/image.h"
#include "node/tenants_intern.h"
#include "sql/token.h"

#define CHUNK_SIZE    (1u << 20)
#define STATEMENT_MAX (16u << 20) /* bytes of one statement of a dump */
#define CHECKPOINT_MS 10000

struct dump { /* being read */
    struct sql_conn *conn;
    const struct call *call;
    struct buf text; /* from the beginning of a statement on */
    size_t at;       /* the splitter has seen so much of it */
    struct sql_split split;
    uint64_t line; /* of text's first byte */
};
struct looks { /* copied under a lock, told without */
    struct tenant_look *list;
    size_t count, cap;
};
struct listing {
    struct tenants *ts;
    const char *from;
    tenant_list_fn *fn;
    void *ctx;
};

static enum rc claim_new(struct tenants *ts, const char *name, struct slot **ret_s,
                         struct err *err);
static enum rc build_import(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                            const char *path, bool dump, struct err *err);
static enum rc take_file(const char *from, const char *to, struct err *err);
static enum rc run_dump(const struct tenants *ts, const char *path, const char *data,
                        const struct tenant_conf *conf, struct err *err);
static enum rc read_dump(struct dump *d, int fd, struct err *err);
static enum rc run_statements(struct dump *d, bool last, struct err *err);
static enum rc run_statement(struct dump *d, const char *sql, size_t size, struct err *err);
static uint64_t count_lines(const char *text, size_t size);
static enum rc forget(struct slot *s, bool keep_backup, struct err *err);
static enum rc move(struct slot *a, struct slot *b, struct err *err);
static bool move_log(struct slot *a, struct slot *b);
static enum rc save_former(const struct slot *a, const char *name, bool more, struct err *err);
static enum rc look_shard(struct shard *sh, struct looks *l, struct err *err);
static enum rc list_one(void *ctx, const char *name, struct err *err);
static enum rc stream_file(const char *path, tenant_bytes_fn *fn, void *ctx, struct err *err);

enum rc tenants_create(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                       struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char tmp[OS_PATH_MAX];
    struct slot *s;
    struct err ignored;
    TRY(tenants_conf_new(conf, os_now_ms(), &c, err));
    TRY(claim_new(ts, name, &s, err));
    enum rc rc = tenants_build(ts, c, tmp, err);
    if (rc == RC_OK) {
        rc = tenants_put_in_place(ts, tmp, name, err);
        if (rc != RC_OK) (void)!tenants_delete_tree(tmp, &ignored);
    }
    tenants_unclaim(s);
    return rc == RC_OK ? rc : err_wrap(err, "create namespace `%s`", name);
}

enum rc tenants_import(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                       const char *path, bool dump, struct err *err)
{
    struct slot *s;
    struct err ignored;
    enum rc rc = claim_new(ts, name, &s, err);
    if (rc == RC_OK) {
        rc = build_import(ts, name, conf, path, dump, err);
        if (rc == RC_OK) tenants_begin_log(s);
        tenants_unclaim(s);
    }
    (void)!os_unlink(path, &ignored); /* not there: it was taken over */
    return rc == RC_OK ? rc : err_wrap(err, "import namespace `%s`", name);
}

enum rc tenants_remove(struct tenants *ts, const char *name, bool keep_backup, struct err *err)
{
    struct slot *s;
    TRY(tenants_claim_old(ts, name, &s, err));
    enum rc rc = forget(s, keep_backup, err);
    return rc == RC_OK ? rc : err_wrap(err, "delete namespace `%s`", name);
}

enum rc tenants_rename(struct tenants *ts, const char *from, const char *to, struct err *err)
{
    struct slot *a, *b;
    TRY(tenants_claim_old(ts, from, &a, err));
    enum rc rc = claim_new(ts, to, &b, err);
    if (rc == RC_OK) {
        rc = move(a, b, err);
        if (rc == RC_OK) tenants_begin_log(b);
        tenants_unclaim(b);
    }
    tenants_unclaim(a);
    return rc == RC_OK ? rc : err_wrap(err, "rename namespace `%s`", from);
}

/* Who has it open sees it at once, but for what its engine was opened with: it is opened anew as
 * soon as nobody uses it. */
enum rc tenants_configure(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                          struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char path[OS_PATH_MAX];
    struct tenant *t;
    TRY(tenants_open_wait(ts, name, &t, err));
    struct slot *s = (struct slot *)t;
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&ts->configure_lock);
    enum rc rc = tenants_conf_new(conf, s->confs->created_ms, &c, err);
    if (rc == RC_OK) tenants_conf_former(c, s->confs, NULL);
    tenants_path(ts, name, TENANT_CONF, path);
    if (rc == RC_OK) rc = tenants_conf_save(path, c, err);
    if (rc == RC_OK) {
        thr_lock(&sh->lock);
        const struct tenant_conf *old = &s->confs->conf;
        s->stale |= old->txn_ms != c->conf.txn_ms || old->size_max != c->conf.size_max ||
                    old->row_max != c->conf.row_max;
        c->older = s->confs;
        s->confs = c;
        atomic_store(&t->conf, &c->conf);
        thr_unlock(&sh->lock);
        c = NULL;
    }
    thr_unlock(&ts->configure_lock);
    tenants_release(ts, t);
    return rc == RC_OK ? rc : err_wrap(err, "configure namespace `%s`", name);
}

enum rc tenants_list(struct tenants *ts, const char *from, tenant_list_fn *fn, void *ctx,
                     struct err *err)
{
    struct listing l = {.ts = ts, .from = from != NULL ? from : "", .fn = fn, .ctx = ctx};
    CLEANUP(mem_freep) char *path = mem_printf("%s/tenants", ts->dir);
    if (path == NULL) return err_mem(err, "a path");
    return os_list(path, list_one, &l, err);
}

enum rc tenants_info(struct tenants *ts, const char *name, struct tenant_info *ret, struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char path[OS_PATH_MAX + 8];
    struct stat st;
    bool there = false;
    struct tenant_info info = {.name = name};
    TRY(tenants_check_name(name, false, err));
    TRY(tenants_exists(ts, name, &there, err));
    if (!there) return tenants_no_such(err, name);
    tenants_path(ts, name, TENANT_CONF, path);
    TRY(tenants_conf_load(path, &c, err));
    info.created_ms = c->created_ms;
    info.former_count = c->former_count;
    memcpy(info.former, c->former, sizeof info.former);
    tenants_path(ts, name, TENANT_DATA, path);
    if (os_stat(path, &st, err) == RC_OK) info.bytes = (uint64_t)st.st_size;
    strncat(path, "-wal", sizeof path - strlen(path) - 1);
    if (os_stat(path, &st, err) == RC_OK) info.wal_bytes = (uint64_t)st.st_size;
    struct shard *sh = tenants_shard(ts, name);
    thr_lock(&sh->lock);
    const struct slot *s = tenants_find(sh, name);
    info.open = s != NULL && s->state == SLOT_OPEN;
    if (info.open || (s != NULL && s->state == SLOT_DRAINING)) {
        struct task_place p;
        slot_place(s, &p);
        info.txid = p.staged;
        info.txid_stored = p.uploaded;
    }
    thr_unlock(&sh->lock);
    *ret = info;
    return RC_OK;
}

enum rc tenants_look_each(struct tenants *ts, tenant_look_fn *fn, void *ctx,
                          struct sql_writer_stats *ret_past, struct err *err)
{
    struct looks l = {0};
    enum rc rc = RC_OK;
    for (int i = 0; i < TENANTS_SHARDS && rc == RC_OK; i++) {
        rc = look_shard(&ts->shards[i], &l, err);
        for (size_t k = 0; k < l.count && rc == RC_OK; k++) {
            char path[OS_PATH_MAX + 8];
            struct stat st;
            struct err ignored;
            tenants_path(ts, l.list[k].name, TENANT_DATA, path);
            strncat(path, "-wal", sizeof path - strlen(path) - 1);
            if (os_stat(path, &st, &ignored) == RC_OK) l.list[k].wal_bytes = (uint64_t)st.st_size;
            rc = fn(ctx, &l.list[k], err);
        }
    }
    mem_free(l.list);
    thr_lock(&ts->past_lock);
    *ret_past = ts->past;
    thr_unlock(&ts->past_lock);
    return rc;
}

enum rc tenants_checkpoint(struct tenants *ts, const char *name, struct err *err)
{
    struct tenant *t;
    TRY(tenants_open_wait(ts, name, &t, err));
    struct task *task;
    enum rc rc = slot_task((struct slot *)t, &task, err);
    if (rc == RC_OK) rc = task_checkpoint(task, CHECKPOINT_MS, err);
    tenants_release(ts, t);
    return rc;
}

/* Through a file of its own: whoever takes the bytes slowly must not keep the WAL from ending. */
enum rc tenants_image(struct tenants *ts, const char *name, tenant_bytes_fn *fn, void *ctx,
                      struct err *err)
{
    char tmp[OS_PATH_MAX];
    struct tenant *t;
    struct err ignored;
    tenants_tmp(ts, "", tmp);
    TRY(tenants_open_wait(ts, name, &t, err));
    enum rc rc = slot_copy((struct slot *)t, tmp, err);
    tenants_release(ts, t);
    if (rc == RC_OK) rc = stream_file(tmp, fn, ctx, err);
    (void)!os_unlink(tmp, &ignored);
    return rc == RC_OK ? rc : err_wrap(err, "image of namespace `%s`", name);
}

static enum rc claim_new(struct tenants *ts, const char *name, struct slot **ret_s, struct err *err)
{
    bool there = false;
    TRY(tenants_check_name(name, true, err));
    TRY(tenants_exists(ts, name, &there, err)); /* an open one is not to be disturbed */
    if (!there) {
        TRY(tenants_claim(ts, name, ret_s, err));
        enum rc rc = tenants_exists(ts, name, &there, err);
        if (rc == RC_OK && !there) return RC_OK;
        tenants_unclaim(*ret_s);
        TRY(rc);
    }
    return err_set(err, RC_CONFLICT, "Namespace `%s` already exists", name);
}

enum rc tenants_claim_old(struct tenants *ts, const char *name, struct slot **ret_s,
                          struct err *err)
{
    bool there = false;
    TRY(tenants_check_name(name, false, err));
    TRY(tenants_claim(ts, name, ret_s, err));
    enum rc rc = tenants_exists(ts, name, &there, err);
    if (rc == RC_OK && there) return RC_OK;
    tenants_unclaim(*ret_s);
    return rc == RC_OK ? tenants_no_such(err, name) : rc;
}

/* ---- import ---- */

static enum rc build_import(struct tenants *ts, const char *name, const struct tenant_conf *conf,
                            const char *path, bool dump, struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char tmp[OS_PATH_MAX], data[OS_PATH_MAX + 8];
    struct err ignored;
    TRY(tenants_conf_new(conf, os_now_ms(), &c, err));
    TRY(tenants_build(ts, c, tmp, err));
    snprintf(data, sizeof data, "%s/data", tmp);
    enum rc rc = dump ? run_dump(ts, path, data, &c->conf, err) : take_file(path, data, err);
    if (rc == RC_OK) rc = tenants_fsync_file(data, err);
    if (rc == RC_OK) rc = tenants_mark(ts, name, err);
    if (rc == RC_OK) rc = tenants_put_in_place(ts, tmp, name, err);
    if (rc != RC_OK) (void)!tenants_delete_tree(tmp, &ignored);
    return rc;
}

static enum rc take_file(const char *from, const char *to, struct err *err)
{
    enum rc rc = os_rename(from, to, err);
    if (rc != RC_OK && err->sys == EXDEV) rc = tenants_copy_file(from, to, err);
    return rc == RC_OK ? image_adopt(to, err) : rc;
}

/* Foreign keys may point to what comes later. Without an fsync a commit: there is one at the end.
 */
static enum rc run_dump(const struct tenants *ts, const char *path, const char *data,
                        const struct tenant_conf *conf, struct err *err)
{
    const struct call c = {.cancel = ts->opts.cancel};
    const struct sql_conn_opts opts = {
        .path = data, .temp_in_file = true, .value_max = conf->row_max};
    struct dump d = {.call = &c, .line = 1};
    CLEANUP(os_closep) int fd = -1;
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    TRY(sql_conn_open(&opts, &d.conn, err));
    enum rc rc = read_dump(&d, fd, err);
    if (rc == RC_OK && !sql_conn_autocommit(d.conn))
        rc = err_set(err, RC_INVALID, "the dump does not end its transaction");
    sql_conn_close(d.conn);
    buf_fini(&d.text);
    return rc == RC_OK ? image_settle(data, err) : rc;
}

static enum rc read_dump(struct dump *d, int fd, struct err *err)
{
    size_t got = CHUNK_SIZE;
    os_advise_stream(fd);
    for (uint64_t off = 0; got == CHUNK_SIZE; off += got) {
        if (d->text.size > STATEMENT_MAX)
            return err_set(err, RC_INVALID, "line %llu: a statement of more than %u bytes",
                           (unsigned long long)d->line, STATEMENT_MAX);
        TRY(buf_reserve(&d->text, CHUNK_SIZE, err));
        TRY(os_pread(fd, d->text.data + d->text.size, CHUNK_SIZE, off, &got, err));
        d->text.size += got;
        TRY(run_statements(d, got < CHUNK_SIZE, err));
    }
    return RC_OK;
}

/* Those that are whole; `last`: all. */
static enum rc run_statements(struct dump *d, bool last, struct err *err)
{
    const char *text = (const char *)d->text.data;
    size_t size = d->text.size, begin = 0;
    if (!last) {
        const char *end = memrchr(text + d->at, '\n', size - d->at);
        if (end == NULL) return RC_OK;
        size = (size_t)(end + 1 - text);
    }
    while (sql_split_next(&d->split, text, size, &d->at)) {
        TRY(run_statement(d, text + begin, d->at - begin, err));
        begin = d->at;
    }
    if (last && d->split.any) {
        TRY(run_statement(d, text + begin, size - begin, err));
        begin = d->at = size;
    }
    buf_drop_front(&d->text, begin);
    d->at -= begin;
    return RC_OK;
}

static enum rc run_statement(struct dump *d, const char *sql, size_t size, struct err *err)
{
    const struct sql_limits limits = {0};
    struct sql_error sql_err = {.offset = -1};
    size_t blank = 0;
    while (blank < size && strchr(" \t\r\n", sql[blank]) != NULL && sql[blank] != '\0')
        blank++;
    enum rc rc = sql_conn_script(d->conn, d->call, &limits, sql, size, &sql_err, err);
    if (rc != RC_OK) {
        size_t at = sql_err.offset < 0 ? 0 : (size_t)sql_err.offset;
        if (at < blank || at > size) at = blank;
        if (rc == RC_INVALID) err_set(err, rc, "%s", sql_err.message);
        uint64_t line = d->line + count_lines(sql, at);
        return err_wrap(err, "line %llu", (unsigned long long)line);
    }
    d->line += count_lines(sql, size);
    return RC_OK;
}

static uint64_t count_lines(const char *text, size_t size)
{
    uint64_t count = 0;
    const char *end = text + size;
    while ((text = memchr(text, '\n', (size_t)(end - text))) != NULL)
        count++, text++;
    return count;
}

/* ---- remove, rename ---- */

/* s is unclaimed here, unless the housekeeper has to go on with it. */
static enum rc forget(struct slot *s, bool keep_backup, struct err *err)
{
    struct tenants *ts = s->ts;
    char folder[OS_PATH_MAX], tmp[OS_PATH_MAX], parent[OS_PATH_MAX], prefix[128] = "";
    struct err ignored;
    enum rc rc = RC_OK;
    if (keep_backup && s->task == NULL) rc = slot_start_task(s, err);
    slot_close_engine(s);
    if (rc == RC_OK && keep_backup)
        rc = slot_wait_stored(s, os_mono_ms() + TENANTS_STORE_MS, NULL, err);
    if (rc == RC_OK) {
        if (!keep_backup) snprintf(prefix, sizeof prefix, TENANTS_FORGET "%s.", s->t.name);
        slot_end_task(s, false);
        tenants_path(ts, s->t.name, TENANT_FOLDER, folder);
        tenants_tmp(ts, prefix, tmp);
        rc = os_rename(folder, tmp, err);
        *strrchr(folder, '/') = '\0';
        if (rc == RC_OK) rc = os_fsync_dir(folder, err);
    }
    if (rc != RC_OK) {
        tenants_unclaim(s);
        return rc;
    }
    tenants_path(ts, s->t.name, TENANT_MARK, folder);
    (void)!os_unlink(folder, &ignored);
    snprintf(parent, sizeof parent, "%s/tmp", ts->dir);
    if (!keep_backup) rc = os_fsync_dir(parent, err);
    if (rc == RC_OK && !keep_backup) rc = tenants_delete_log(ts, s->t.name, err);
    if (rc != RC_OK) {
        tenants_leave(ts, strrchr(tmp, '/') + 1, s);
        return err_wrap(err, "it is gone, but its log is not yet, which is tried again");
    }
    (void)!tenants_delete_tree(tmp, &ignored); /* the next start does */
    tenants_unclaim(s);
    return RC_OK;
}

/*
 * The log stays under the old name, and a new one begins; only what is in a folder of our own moves
 * along. That there is an old one is written down first: a crash before the log's turn leaves it
 * where it is, and a local state that does not fit the new place, so the new log begins with a
 * whole image, as it does in other stores.
 */
static enum rc move(struct slot *a, struct slot *b, struct err *err)
{
    struct tenants *ts = a->ts;
    char path[OS_PATH_MAX];
    struct err ignored;
    if (a->task == NULL) TRY(slot_start_task(a, err));
    slot_close_engine(a);
    TRY(slot_wait_stored(a, os_mono_ms() + TENANTS_STORE_MS, NULL, err));
    slot_end_task(a, false);
    TRY(save_former(a, a->t.name, true, err));
    TRY(tenants_mark(ts, b->t.name, err));
    tenants_path(ts, a->t.name, TENANT_FOLDER, path);
    TRY(tenants_put_in_place(ts, path, b->t.name, err));
    tenants_path(ts, a->t.name, TENANT_MARK, path);
    (void)!os_unlink(path, &ignored);
    if (ts->embedded && move_log(a, b)) {
        (void)!save_former(a, b->t.name, false, &ignored); /* it is looked for there in vain */
        return RC_OK;
    }
    tenants_path(ts, b->t.name, TENANT_META, path);
    (void)!tenants_delete_tree(path, &ignored); /* not needed, but it would be complained of */
    return RC_OK;
}

static bool move_log(struct slot *a, struct slot *b)
{
    const char *folder = a->ts->store_url;
    char from[OS_PATH_MAX], to[OS_PATH_MAX];
    struct stat st;
    struct err ignored;
    snprintf(from, sizeof from, "%s/%s", folder, a->t.name);
    snprintf(to, sizeof to, "%s/%s", folder, b->t.name);
    return os_stat(to, &st, &ignored) == RC_NOT_FOUND && os_rename(from, to, &ignored) == RC_OK &&
           os_fsync_dir(folder, &ignored) == RC_OK;
}

/* The configuration of a, into the folder of this name: more: with its name as one that it had. */
static enum rc save_former(const struct slot *a, const char *name, bool more, struct err *err)
{
    CLEANUP(tenants_conf_freep) struct tenants_conf *c = NULL;
    char path[OS_PATH_MAX];
    TRY(tenants_conf_new(&a->confs->conf, a->confs->created_ms, &c, err));
    tenants_conf_former(c, a->confs, more ? a->t.name : NULL);
    tenants_path(a->ts, name, TENANT_CONF, path);
    return tenants_conf_save(path, c, err);
}

/* ---- list, image ---- */

static enum rc look_shard(struct shard *sh, struct looks *l, struct err *err)
{
    enum rc rc = RC_OK;
    l->count = 0;
    thr_lock(&sh->lock);
    for (const struct slot *s = sh->slots; s != NULL && rc == RC_OK; s = s->next) {
        if (s->state != SLOT_OPEN) continue;
        if (l->count == l->cap) {
            size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
            void *more = mem_realloc(l->list, cap * sizeof *l->list);
            if (more == NULL) {
                rc = err_mem(err, "a look at the tenants");
                break;
            }
            l->list = more;
            l->cap = cap;
        }
        struct tenant_look *one = &l->list[l->count++];
        struct task_place p;
        slot_place(s, &p);
        *one = (struct tenant_look){.used = s->refs > 0, .failing = p.failing, .txid = p.staged};
        one->txid_stored = p.uploaded;
        memcpy(one->name, s->t.name, sizeof one->name);
        sql_engine_look(s->t.engine, &one->engine);
    }
    thr_unlock(&sh->lock);
    return rc;
}

static enum rc list_one(void *ctx, const char *name, struct err *err)
{
    const struct listing *l = ctx;
    struct tenant_info info;
    if (strcmp(name, l->from) < 0 || tenants_check_name(name, false, err) != RC_OK) return RC_OK;
    enum rc rc = tenants_info(l->ts, name, &info, err);
    if (rc == RC_NOT_FOUND) return RC_OK; /* no tenant, or not any more */
    return rc == RC_OK ? l->fn(l->ctx, &info, err) : rc;
}

static enum rc stream_file(const char *path, tenant_bytes_fn *fn, void *ctx, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    CLEANUP(mem_freep) void *chunk = mem_alloc(CHUNK_SIZE);
    size_t got = CHUNK_SIZE;
    if (chunk == NULL) return err_mem(err, "an image");
    TRY(os_open(path, O_RDONLY, 0, &fd, err));
    os_advise_stream(fd);
    for (uint64_t off = 0; got == CHUNK_SIZE; off += got) {
        TRY(os_pread(fd, chunk, CHUNK_SIZE, off, &got, err));
        if (got > 0) TRY(fn(ctx, chunk, got, err));
    }
    return RC_OK;
}
