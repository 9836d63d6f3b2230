#include "store/walk.h"
#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX 4000000u
#define TEXT_MAX  (256u << 20)

struct walk_folder {
    struct walk *w;
    size_t size;    /* of its key with the '/' */
    size_t waiting; /* where the longest waiting folder ends in obj.key; 0: none waits */
    bool entered;
    bool given; /* the last name was an object that fn has seen: it is in obj.key */
};

static enum rc folder(struct walk *w, size_t size, struct err *err);
static enum rc take(struct walk_folder *d, const char *name, const struct walk_item *item,
                    struct err *err);
static enum rc enter_waiting(struct walk_folder *d, const char *next, struct err *err);
static int by_name(const void *a, const void *b, void *text);

enum rc walk_tree(struct walk *w, struct err *err)
{
    const char *slash = strrchr(w->prefix, '/');
    size_t size = slash ? (size_t)(slash - w->prefix) + 1 : 0;
    if (size >= STORE_KEY_MAX) return RC_OK; /* no room for a name below it */
    memcpy(w->obj.key, w->prefix, size);
    return folder(w, size, err);
}

enum rc walk_name(void *d, const char *name, struct err *err)
{
    return take(d, name, NULL, err);
}

bool walk_entered(const struct walk_folder *d)
{
    return d->entered;
}

/* If it can, it is put into obj.key. Cheap, so that only these are looked at. */
bool walk_wants(struct walk_folder *d, const char *name)
{
    struct walk *w = d->w;
    size_t size = strlen(name), key_size = d->size + size;
    if (walk_is_tmp(name) || size == 0 || key_size > STORE_KEY_MAX) return false;
    /* Only the first folder of the walk can be shorter than the prefix; the rest of it has no '/'.
     */
    size_t prefix_size = strlen(w->prefix);
    if (prefix_size > d->size && strncmp(name, w->prefix + d->size, prefix_size - d->size) != 0)
        return false;
    memcpy(w->obj.key + d->size, name, size + 1);
    /* As a folder its keys go on with '/': are they all before `after`? */
    int order = strncmp(w->obj.key, w->after, key_size);
    return order > 0 || (order == 0 && (uint8_t)w->after[key_size] <= '/');
}

enum rc walk_list_add(struct walk_list *l, const char *name, const char *etag,
                      struct walk_item item, struct err *err)
{
    if (l->items.size / sizeof item >= ITEMS_MAX || l->text.size > TEXT_MAX)
        return err_set(err, RC_TOO_BIG, "more than %u names in one folder", ITEMS_MAX);
    item.name = l->text.size;
    TRY(buf_append(&l->items, &item, sizeof item, err));
    TRY(buf_append(&l->text, name, strlen(name) + 1, err));
    return buf_append(&l->text, etag, strlen(etag) + 1, err);
}

struct walk_item *walk_list_items(const struct walk_list *l, size_t *ret_count)
{
    *ret_count = l->items.size / sizeof(struct walk_item);
    return (struct walk_item *)(void *)l->items.data;
}

const char *walk_list_name(const struct walk_list *l, const struct walk_item *item)
{
    return (const char *)l->text.data + item->name;
}

void walk_list_reset(struct walk_list *l)
{
    buf_reset(&l->items);
    buf_reset(&l->text);
}

void walk_list_fini(struct walk_list *l)
{
    buf_fini(&l->items);
    buf_fini(&l->text);
}

enum rc walk_names(struct walk_folder *d, struct walk_list *l, struct err *err)
{
    size_t count;
    struct walk_item *items = walk_list_items(l, &count);
    if (count > 1) qsort_r(items, count, sizeof *items, by_name, l->text.data);
    for (size_t i = 0; i < count; i++)
        TRY(take(d, walk_list_name(l, &items[i]), &items[i], err));
    return RC_OK;
}

bool walk_is_tmp(const char *name)
{
    return strncmp(name, STORE_TMP_PREFIX, sizeof STORE_TMP_PREFIX - 1) == 0;
}

/* Walk the folder whose key is the first `size` bytes of obj.key. */
static enum rc folder(struct walk *w, size_t size, struct err *err)
{
    struct walk_folder d = {.w = w, .size = size};
    w->obj.key[size] = '\0';
    TRY(w->read(w, &d, w->obj.key, err));
    return enter_waiting(&d, NULL, err);
}

/* The next name; item NULL: look what it is. */
static enum rc take(struct walk_folder *d, const char *name, const struct walk_item *item,
                    struct err *err)
{
    struct walk *w = d->w;
    enum walk_kind kind = item != NULL ? item->kind : WALK_NEITHER;
    size_t size = strlen(name), end = d->size + size;
    d->entered = true;
    /* A folder whose files are renamed while it is read may name one twice. */
    bool again = d->given && strcmp(name, w->obj.key + d->size) == 0;
    if (again && (item == NULL || kind == WALK_OBJECT)) return RC_OK;
    d->given = false;
    TRY(enter_waiting(d, name, err));
    if (!walk_wants(d, name)) return RC_OK;
    if (call_check(w->c, err) != RC_OK) return err_wrap(err, "list '%s'", store_name(w->store));
    if (item == NULL) TRY(w->look(w, &w->obj, &kind, err));
    /* No longer than the last one: a server that names a folder twice. Too long: no room for a name
     * below it. */
    if (kind == WALK_FOLDER && end > d->waiting && end + 1 < STORE_KEY_MAX) {
        w->below[end] = (uint16_t)d->waiting;
        d->waiting = end;
    }
    if (kind != WALK_OBJECT || strcmp(w->obj.key, w->after) <= 0) return RC_OK;
    if (item != NULL) {
        const char *etag = name + size + 1;
        size_t etag_size = strnlen(etag, sizeof w->obj.etag - 1);
        w->obj.size = item->size;
        w->obj.mtime_ms = item->mtime_ms;
        memcpy(w->obj.etag, etag, etag_size);
        w->obj.etag[etag_size] = '\0';
    }
    d->given = true;
    return w->fn(w->ctx, &w->obj, err);
}

/* Walk the waiting folders whose turn is before the name `next`; NULL: all. Those that go on
 * waiting are beginnings of next, so they stay in obj.key when it is put there. */
static enum rc enter_waiting(struct walk_folder *d, const char *next, struct err *err)
{
    struct walk *w = d->w;
    while (d->waiting > 0) {
        size_t end = d->waiting, size = end - d->size;
        if (next != NULL && strncmp(next, w->obj.key + d->size, size) == 0 &&
            (uint8_t)next[size] < '/')
            return RC_OK;
        d->waiting = w->below[end];
        w->obj.key[end] = '/';
        TRY(folder(w, end + 1, err));
    }
    return RC_OK;
}

static int by_name(const void *a, const void *b, void *text)
{
    const struct walk_item *x = a, *y = b;
    int order = strcmp((const char *)text + x->name, (const char *)text + y->name);
    return order != 0 ? order : (int)x->kind - (int)y->kind;
}
