/*
 * disk.c -- see disk.h. disk_build() goes through the log up to the cut (struct replay), which
 * makes nodes with their changes, and a list of changes of names; then it decides which names there
 * are, and writes each node that has one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "disk.h"
#include "record.h"

#define FD_MAX    65536
#define SYNCS_MAX 512 /* at work at the same time */
#define HASH_SIZE 4096
#define FILE_MAX  (256u << 20)
#define DEPTH_MAX 16

struct entry {
    char *name;
    struct node *node;
};
struct edit { /* of a file */
    enum record_kind kind;
    uint64_t at; /* offset or size */
    const uint8_t *data;
    uint32_t size;
};
struct node {
    bool is_folder;
    uint8_t *base; /* before the recording */
    size_t base_size;
    struct edit *edits;
    size_t count, cap, durable; /* the first `durable` are on disk */
    struct entry *live, *kept;  /* of a folder: as the program sees it, as it is on disk */
    size_t live_count, kept_count;
    uint64_t size; /* as the program sees it */
};
struct change { /* of names */
    enum record_kind kind;
    struct node *node, *from_dir, *to_dir; /* to_dir: where it appears, from_dir: where it goes */
    char *from, *to;
    size_t from_before, to_before; /* the change of that name before it, + 1 */
    bool must, did;
};
struct sync {
    uint64_t which;
    struct node *node;
    size_t edits, changes;
};
struct key {
    const struct node *dir;
    char *name;
    size_t last; /* change + 1 */
    struct key *next;
};
struct replay {
    const struct disk *disk;
    struct node *root;
    struct node **nodes;
    size_t node_count;
    struct change *changes;
    size_t change_count, journal; /* in DISK_JOURNAL the first `journal` are on disk */
    struct key *keys[HASH_SIZE];
    struct node *fds[FD_MAX];
    struct sync syncs[SYNCS_MAX];
    size_t sync_count;
    bool strict;
};
struct image { /* of one file, while it is built */
    uint8_t *data;
    uint8_t *stopped; /* a block: no later change of it is there */
    size_t size, cap, block, synced;
    int percent;
    bool garbage; /* in blocks that belong to the file before their bytes do */
    struct rng *rng;
};
struct disk {
    struct replay *begin; /* holds the tree before the recording */
    uint8_t *log;
    uint64_t log_size;
    struct disk_stats stats;
    uint64_t *ends; /* of records */
    bool *notable;
    size_t count;
};

static void *grow(void *list, size_t count, size_t one);
static void read_tree(struct replay *p, struct node *dir, const char *path);
static struct node *new_node(struct replay *p, bool is_folder);
static struct node *copy_node(struct replay *p, const struct node *from);
static struct replay *replay_new(const struct disk *d);
static void replay_free(struct replay *p);
static const struct record *record_at(const struct disk *d, uint64_t at); /* NULL: the end */
static void step(struct replay *p, const struct record *r, const char *data);
static void open_fd(struct replay *p, const struct record *r, const char *name);
static void edit(struct replay *p, const struct record *r, const uint8_t *data);
static void change(struct replay *p, enum record_kind kind, struct node *node, const char *from,
                   const char *to);
static size_t key_swap(struct replay *p, const struct node *dir, const char *name, size_t last);
static void sync_begin(struct replay *p, const struct record *r);
static void sync_end(struct replay *p, uint64_t which);
static struct node *walk(struct replay *p, const char *path, char *ret_name);
static struct node *entry_find(const struct entry *list, size_t count, const char *name);
static void entry_put(struct entry **list, size_t *count, const char *name, struct node *node);
static void entry_drop(struct entry *list, size_t *count, const char *name);
static void choose_strict(struct replay *p, struct rng *r);
static void choose_journal(struct replay *p, struct rng *r);
static void apply_names(struct replay *p);
static void write_folder(const struct replay *p, const struct node *dir, const char *path,
                         int depth, struct rng *r);
static void write_file(const struct replay *p, const struct node *n, const char *path,
                       struct rng *r);
static uint64_t size_after(const struct edit *e, uint64_t size);
static void image_reserve(struct image *im, uint64_t size);
static void image_do(struct image *im, const struct edit *e);
static void image_maybe(struct image *im, const struct edit *e, bool resize);

struct disk *disk_new(const char *folder)
{
    struct disk *d = calloc(1, sizeof *d);
    if (d == NULL) die("out of memory");
    d->begin = calloc(1, sizeof *d->begin);
    if (d->begin == NULL) die("out of memory");
    d->begin->root = new_node(d->begin, true);
    read_tree(d->begin, d->begin->root, folder);
    return d;
}

void disk_free(struct disk *d)
{
    if (d == NULL) return;
    replay_free(d->begin);
    free(d->log);
    free(d->ends);
    free(d->notable);
    free(d);
}

void disk_load(struct disk *d, const char *log)
{
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) die("open '%s': %s", log, strerror(errno));
    d->log = malloc((size_t)st.st_size + 1);
    if (d->log == NULL) die("out of memory");
    while (d->log_size < (uint64_t)st.st_size) {
        ssize_t got = read(fd, d->log + d->log_size, (size_t)st.st_size - d->log_size);
        if (got <= 0) break;
        d->log_size += (uint64_t)got;
    }
    close(fd);
    const struct record *r;
    for (uint64_t at = 0; (r = record_at(d, at)) != NULL;) {
        at += RECORD_SPACE(r->size);
        d->ends = grow(d->ends, d->count, sizeof *d->ends);
        d->notable = grow(d->notable, d->count, sizeof *d->notable);
        d->ends[d->count] = at;
        d->notable[d->count++] = r->kind >= RECORD_BEGIN;
        d->stats.records++;
        d->stats.bytes += r->kind == RECORD_WRITE ? r->size : 0;
        d->stats.syncs += r->kind == RECORD_END;
        d->stats.names += r->kind >= RECORD_RENAME;
        if (r->kind == RECORD_UNKNOWN)
            die("the program did what cannot be recorded: %s", (const char *)(r + 1));
    }
    if (d->count == 0) die("'%s' has no records", log);
    d->log_size = d->ends[d->count - 1]; /* who was killed may have left half a record */
}

uint64_t disk_size(const struct disk *d)
{
    return d->log_size;
}

struct disk_stats disk_stats(const struct disk *d)
{
    return d->stats;
}

uint64_t disk_pick(const struct disk *d, uint64_t low, uint64_t high, bool interesting,
                   struct rng *r)
{
    size_t first = 0, last = d->count;
    while (first < d->count && d->ends[first] <= low)
        first++;
    while (last > 0 && d->ends[last - 1] > high)
        last--;
    if (first >= last)
        die("there is no record in (%llu, %llu]", (unsigned long long)low,
            (unsigned long long)high);
    size_t at = first + rng_below(r, last - first);
    for (size_t i = at; interesting && i < last; i++) {
        if (d->notable[i]) return d->ends[i > first && rng_percent(r, 50) ? i - 1 : i];
    }
    return d->ends[at];
}

void disk_build(const struct disk *d, uint64_t cut, enum disk_mode mode, struct rng *r,
                const char *folder)
{
    struct replay *p = replay_new(d);
    const struct record *rec;
    for (uint64_t at = 0; at < cut && (rec = record_at(d, at)) != NULL;
         at += RECORD_SPACE(rec->size))
        step(p, rec, (const char *)(rec + 1));
    p->strict = mode == DISK_STRICT;
    if (p->strict)
        choose_strict(p, r);
    else
        choose_journal(p, r);
    apply_names(p);
    write_folder(p, p->root, folder, 0, r);
    replay_free(p);
}

/* ---- the tree before the recording ---- */

/* Room for one more. */
static void *grow(void *list, size_t count, size_t one)
{
    if (count != 0 && (count & (count - 1)) != 0) return list;
    list = realloc(list, (count == 0 ? 1 : 2 * count) * one);
    if (list == NULL) die("out of memory");
    return list;
}

static void read_tree(struct replay *p, struct node *dir, const char *path)
{
    char **names, full[TOOL_PATH_MAX];
    struct stat st;
    size_t count = list_names(path, &names);
    for (size_t i = 0; i < count; i++) {
        path_join(full, "%s/%s", path, names[i]);
        if (stat(full, &st) != 0) die("stat '%s': %s", full, strerror(errno));
        struct node *n = new_node(p, S_ISDIR(st.st_mode));
        entry_put(&dir->live, &dir->live_count, names[i], n);
        if (n->is_folder) {
            read_tree(p, n, full);
            continue;
        }
        n->base_size = (size_t)st.st_size;
        n->base = malloc(n->base_size + 1);
        FILE *f = fopen(full, "re");
        if (n->base == NULL || f == NULL) die("read '%s': %s", full, strerror(errno));
        if (fread(n->base, 1, n->base_size, f) != n->base_size) die("read '%s'", full);
        fclose(f);
    }
    free_names(names, count);
}

static struct node *new_node(struct replay *p, bool is_folder)
{
    struct node *n = calloc(1, sizeof *n);
    if (n == NULL) die("out of memory");
    n->is_folder = is_folder;
    p->nodes = grow(p->nodes, p->node_count, sizeof(struct node *));
    p->nodes[p->node_count++] = n;
    return n;
}

static struct node *copy_node(struct replay *p, const struct node *from)
{
    struct node *n = new_node(p, from->is_folder);
    n->base = from->base;
    n->base_size = from->base_size;
    n->size = from->base_size;
    for (size_t i = 0; i < from->live_count; i++) {
        struct node *child = copy_node(p, from->live[i].node);
        entry_put(&n->live, &n->live_count, from->live[i].name, child);
        entry_put(&n->kept, &n->kept_count, from->live[i].name, child);
    }
    return n;
}

static struct replay *replay_new(const struct disk *d)
{
    struct replay *p = calloc(1, sizeof *p);
    if (p == NULL) die("out of memory");
    p->disk = d;
    p->root = copy_node(p, d->begin->root);
    return p;
}

static void replay_free(struct replay *p)
{
    for (size_t i = 0; i < p->node_count; i++) {
        struct node *n = p->nodes[i];
        for (size_t k = 0; k < n->live_count; k++)
            free(n->live[k].name);
        for (size_t k = 0; k < n->kept_count; k++)
            free(n->kept[k].name);
        free(n->live);
        free(n->kept);
        free(n->edits);
        if (p->disk == NULL) free(n->base);
        free(n);
    }
    for (size_t i = 0; i < p->change_count; i++) {
        free(p->changes[i].from);
        free(p->changes[i].to);
    }
    for (size_t i = 0; i < HASH_SIZE; i++) {
        for (struct key *k; (k = p->keys[i]) != NULL; free(k)) {
            p->keys[i] = k->next;
            free(k->name);
        }
    }
    free(p->nodes);
    free(p->changes);
    free(p);
}

/* ---- the log ---- */

static const struct record *record_at(const struct disk *d, uint64_t at)
{
    if (d->log_size - at < sizeof(struct record)) return NULL;
    const struct record *r = (const struct record *)(const void *)(d->log + at);
    if (r->magic != RECORD_MAGIC) die("the log is damaged at %llu", (unsigned long long)at);
    return d->log_size - at < RECORD_SPACE(r->size) ? NULL : r;
}

static void step(struct replay *p, const struct record *r, const char *data)
{
    char name[TOOL_PATH_MAX];
    struct node *dir;
    switch ((enum record_kind)r->kind) {
    case RECORD_OPEN:
        open_fd(p, r, data);
        break;
    case RECORD_CLOSE:
        p->fds[r->fd] = NULL;
        break;
    case RECORD_WRITE:
    case RECORD_TRUNCATE:
    case RECORD_EXTEND:
        edit(p, r, (const uint8_t *)data);
        break;
    case RECORD_BEGIN:
        sync_begin(p, r);
        break;
    case RECORD_END:
        sync_end(p, r->a);
        break;
    case RECORD_MKDIR:
        change(p, RECORD_MKDIR, new_node(p, true), NULL, data);
        break;
    case RECORD_RENAME:
    case RECORD_LINK:
    case RECORD_UNLINK:
    case RECORD_RMDIR:
        dir = walk(p, data, name);
        struct node *n = entry_find(dir->live, dir->live_count, name);
        if (n == NULL) die("the log changes '%s', which is not there", data);
        bool two = r->kind == RECORD_RENAME || r->kind == RECORD_LINK;
        change(p, (enum record_kind)r->kind, n, data, two ? data + strlen(data) + 1 : NULL);
        break;
    case RECORD_UNKNOWN:
        break;
    }
}

static void open_fd(struct replay *p, const struct record *r, const char *name)
{
    char last[TOOL_PATH_MAX];
    struct node *dir = walk(p, name, last), *n = dir;
    if (*last != '\0') n = entry_find(dir->live, dir->live_count, last);
    if (n == NULL && (r->a & O_CREAT) == 0) die("the log opens '%s', which is not there", name);
    if (n == NULL) {
        n = new_node(p, false);
        change(p, RECORD_OPEN, n, NULL, name);
    }
    p->fds[r->fd] = n;
    struct record cut = {.kind = RECORD_TRUNCATE, .fd = r->fd};
    if ((r->a & O_TRUNC) != 0 && n->size > 0) edit(p, &cut, NULL);
}

static void edit(struct replay *p, const struct record *r, const uint8_t *data)
{
    struct node *n = p->fds[r->fd];
    if (n == NULL || n->is_folder) die("the log writes to descriptor %d, which is none", r->fd);
    uint64_t end = r->kind == RECORD_WRITE ? r->a + r->size : r->a;
    if (end > FILE_MAX) die("the log has a file of %llu bytes", (unsigned long long)end);
    if (r->kind == RECORD_TRUNCATE || end > n->size) n->size = end;
    n->edits = grow(n->edits, n->count, sizeof *n->edits);
    n->edits[n->count++] = (struct edit){(enum record_kind)r->kind, r->a, data, r->size};
}

/* of names, as the program sees them; what of it is on disk is decided at the end. */
static void change(struct replay *p, enum record_kind kind, struct node *node, const char *from,
                   const char *to)
{
    char name[TOOL_PATH_MAX];
    struct change c = {.kind = kind, .node = node};
    p->changes = grow(p->changes, p->change_count, sizeof *p->changes);
    size_t now = p->change_count + 1;
    if (from != NULL) {
        struct node *dir = walk(p, from, name);
        if (kind != RECORD_LINK) {
            c.from_dir = dir;
            c.from = strdup(name);
            c.from_before = key_swap(p, dir, name, now);
            entry_drop(dir->live, &dir->live_count, name);
        }
    }
    if (to != NULL) {
        c.to_dir = walk(p, to, name);
        c.to = strdup(name);
        c.to_before = key_swap(p, c.to_dir, name, now);
        entry_put(&c.to_dir->live, &c.to_dir->live_count, name, node);
    }
    p->changes[p->change_count++] = c;
}

/* The change that touched this name before, + 1. */
static size_t key_swap(struct replay *p, const struct node *dir, const char *name, size_t last)
{
    uint64_t hash = (uintptr_t)dir >> 4;
    for (const char *s = name; *s != '\0'; s++)
        hash = hash * 31 + (uint8_t)*s;
    struct key **slot = &p->keys[hash % HASH_SIZE], *k = *slot;
    while (k != NULL && (k->dir != dir || strcmp(k->name, name) != 0))
        k = k->next;
    if (k == NULL) {
        k = calloc(1, sizeof *k);
        if (k == NULL || (k->name = strdup(name)) == NULL) die("out of memory");
        k->dir = dir;
        k->next = *slot;
        *slot = k;
    }
    size_t before = k->last;
    k->last = last;
    return before;
}

static void sync_begin(struct replay *p, const struct record *r)
{
    struct node *n = p->fds[r->fd];
    if (n == NULL) die("the log syncs descriptor %d, which is none", r->fd);
    if (p->sync_count == SYNCS_MAX) die("too many fsyncs at the same time");
    p->syncs[p->sync_count++] = (struct sync){r->a, n, n->count, p->change_count};
}

static void sync_end(struct replay *p, uint64_t which)
{
    size_t i = 0;
    while (i < p->sync_count && p->syncs[i].which != which)
        i++;
    if (i == p->sync_count) die("an fsync ends that has not begun");
    struct sync s = p->syncs[i];
    p->syncs[i] = p->syncs[--p->sync_count];
    if (s.edits > s.node->durable) s.node->durable = s.edits;
    if (s.changes > p->journal) p->journal = s.changes;
    for (size_t k = 0; s.node->is_folder && k < s.changes; k++) {
        struct change *c = &p->changes[k];
        c->must |= c->from_dir == s.node || c->to_dir == s.node;
    }
}

/* ---- names ---- */

/* The folder in which the path's last name stands, as the program sees it; "" is the root. */
static struct node *walk(struct replay *p, const char *path, char *ret_name)
{
    struct node *dir = p->root;
    *ret_name = '\0';
    for (;;) {
        path += strspn(path, "/");
        size_t size = strcspn(path, "/");
        if (size == 0) return dir;
        if (*ret_name != '\0') {
            dir = entry_find(dir->live, dir->live_count, ret_name);
            if (dir == NULL || !dir->is_folder) die("the log has no folder '%s'", ret_name);
        }
        if (size >= TOOL_PATH_MAX) die("the log has a long name");
        memcpy(ret_name, path, size);
        ret_name[size] = '\0';
        path += size;
    }
}

static struct node *entry_find(const struct entry *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0) return list[i].node;
    }
    return NULL;
}

static void entry_put(struct entry **list, size_t *count, const char *name, struct node *node)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp((*list)[i].name, name) != 0) continue;
        (*list)[i].node = node;
        return;
    }
    /* Names go as well, so the count is no hint of the room. */
    *list = realloc(*list, (*count + 1) * sizeof **list);
    if (*list == NULL) die("out of memory");
    (*list)[(*count)++] = (struct entry){strdup(name), node};
}

static void entry_drop(struct entry *list, size_t *count, const char *name)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(list[i].name, name) != 0) continue;
        free(list[i].name);
        list[i] = list[--*count];
        return;
    }
}

/* What an fsync covers draws with it whatever came before under the same names. */
static void choose_strict(struct replay *p, struct rng *r)
{
    static const int percents[] = {0, 10, 50, 90, 100};
    int percent = percents[rng_below(r, 5)];
    for (size_t i = p->change_count; i-- > 0;) {
        const struct change *c = &p->changes[i];
        if (!c->must) continue;
        if (c->from_before > 0) p->changes[c->from_before - 1].must = true;
        if (c->to_before > 0) p->changes[c->to_before - 1].must = true;
    }
    for (size_t i = 0; i < p->change_count; i++) {
        struct change *c = &p->changes[i];
        bool may = (c->from_before == 0 || p->changes[c->from_before - 1].did) &&
                   (c->to_before == 0 || p->changes[c->to_before - 1].did);
        c->did = c->must || (may && rng_percent(r, percent));
    }
}

static void choose_journal(struct replay *p, struct rng *r)
{
    size_t open = p->change_count - p->journal, count = p->change_count;
    switch (rng_below(r, 3)) {
    case 0:
        count = p->journal;
        break;
    case 1:
        count = p->journal + rng_below(r, open + 1);
        break;
    default:
        break;
    }
    for (size_t i = 0; i < count; i++)
        p->changes[i].did = true;
}

static void apply_names(struct replay *p)
{
    for (size_t i = 0; i < p->change_count; i++) {
        const struct change *c = &p->changes[i];
        if (!c->did) continue;
        if (c->from_dir != NULL) entry_drop(c->from_dir->kept, &c->from_dir->kept_count, c->from);
        if (c->to_dir != NULL) entry_put(&c->to_dir->kept, &c->to_dir->kept_count, c->to, c->node);
    }
}

/* ---- what is written ---- */

static void write_folder(const struct replay *p, const struct node *dir, const char *path,
                         int depth, struct rng *r)
{
    char full[TOOL_PATH_MAX];
    if (depth > DEPTH_MAX) die("folders too deep: '%s'", path);
    make_dir(path);
    for (size_t i = 0; i < dir->kept_count; i++) {
        const struct entry *e = &dir->kept[i];
        size_t size = strlen(e->name);
        path_join(full, "%s/%s", path, e->name);
        if (e->node->is_folder)
            write_folder(p, e->node, full, depth + 1, r);
        else if (size < 4 || strcmp(e->name + size - 4, "-shm") != 0)
            write_file(p, e->node, full, r);
    }
}

/*
 * The size is that after `sized` of the changes that no fsync covers. A shorter size in between has
 * cut off blocks for good, or has not cut them yet, and then nothing that came after it can stand
 * in them.
 */
static void write_file(const struct replay *p, const struct node *n, const char *path,
                       struct rng *r)
{
    static const int percents[] = {0, 20, 50, 80, 100};
    struct image im = {.block = rng_percent(r, 50) ? 512 : 4096, .rng = r};
    size_t open = n->count - n->durable;
    size_t sized = n->durable;
    image_reserve(&im, n->base_size + 1);
    if (n->base_size > 0) memcpy(im.data, n->base, n->base_size);
    im.size = n->base_size;
    for (size_t i = 0; i < n->durable; i++)
        image_do(&im, &n->edits[i]);
    im.synced = im.size;
    im.percent = percents[rng_below(r, 5)];
    im.garbage = p->strict && rng_percent(r, 30);
    if (rng_percent(r, 50))
        sized += rng_below(r, open + 1);
    else if (rng_percent(r, 50))
        sized = n->count;
    if (open > 0 && (im.stopped = calloc(1, FILE_MAX / 512)) == NULL) die("out of memory");
    uint64_t size = im.size;
    for (size_t i = n->durable; i < n->count; i++) {
        const struct edit *e = &n->edits[i];
        if (e->kind == RECORD_TRUNCATE && e->at < size && i >= sized) break;
        size = size_after(e, size);
        image_maybe(&im, e, i < sized);
    }
    image_reserve(&im, im.size);
    FILE *f = fopen(path, "we");
    if (f == NULL || fwrite(im.data, 1, im.size, f) != im.size || fclose(f) != 0)
        die("write '%s': %s", path, strerror(errno));
    free(im.data);
    free(im.stopped);
}

static uint64_t size_after(const struct edit *e, uint64_t size)
{
    uint64_t end = e->kind == RECORD_WRITE ? e->at + e->size : e->at;
    return e->kind == RECORD_TRUNCATE || end > size ? end : size;
}

static void image_reserve(struct image *im, uint64_t size)
{
    if (size <= im->cap) return;
    size_t cap = size < 2 * im->cap ? 2 * im->cap : (size_t)size;
    im->data = realloc(im->data, cap);
    if (im->data == NULL) die("out of memory");
    memset(im->data + im->cap, 0, cap - im->cap);
    im->cap = cap;
}

static void image_do(struct image *im, const struct edit *e)
{
    uint64_t size = size_after(e, im->size);
    image_reserve(im, size);
    if (size < im->size) memset(im->data + size, 0, im->cap - size);
    if (e->kind == RECORD_WRITE) memcpy(im->data + e->at, e->data, e->size);
    im->size = (size_t)size;
}

/* resize: its size counts. */
static void image_maybe(struct image *im, const struct edit *e, bool resize)
{
    uint64_t size = size_after(e, im->size);
    if (resize && size < im->size) {
        memset(im->data + size, 0, im->cap - size);
        size_t first = (size_t)(size + im->block - 1) / im->block;
        memset(im->stopped + first, 0, FILE_MAX / 512 - first);
    }
    if (resize) im->size = (size_t)size;
    if (e->kind != RECORD_WRITE) return;
    image_reserve(im, e->at + e->size);
    for (uint64_t at = e->at, end = e->at + e->size; at < end;) {
        uint64_t block = at / im->block, next = (block + 1) * im->block;
        size_t piece = (size_t)((next < end ? next : end) - at);
        if (!im->stopped[block] && rng_percent(im->rng, im->percent)) {
            memcpy(im->data + at, e->data + (at - e->at), piece);
        } else if (!im->stopped[block]) {
            im->stopped[block] = 1;
            for (size_t i = 0; im->garbage && at >= im->synced && i < piece; i++)
                im->data[at + i] = (uint8_t)rng_next(im->rng);
        }
        at += piece;
    }
}
