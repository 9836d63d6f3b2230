/*
 * walk.h -- list a tree of folders in the byte order of whole keys, for drivers whose stores have
 * folders. A folder "a" stands in that order as "a/", so "a-b" comes before what is in it: the walk
 * lets it wait until a name comes that is greater.
 *
 * The driver's `read` hands over the names of one folder, in one of two ways:
 *
 *   walk_name    one bare name after the other, in byte order; `look` is then asked what it is, but
 *                only for names that can be, or hold, an object to list
 *   walk_names   all names at once, in any order, with what they are
 *
 * Passed over, without look: names of temporary files, those that no key to list begins with, and
 * those that are too long for a key. An object that is named twice is listed once. What is neither
 * an object nor a folder is not listed.
 *
 * Memory: a walk allocates nothing but what walk_list_add collects. While a folder is walked, the
 * `read` of each folder above it is still running. Threads: a walk belongs to one thread.
 */
#ifndef STORE_WALK_H
#define STORE_WALK_H
#include "store/store.h"

enum walk_kind {
    WALK_NEITHER, /* gone meanwhile, a pipe, a link to nowhere */
    WALK_OBJECT,
    WALK_FOLDER,
    WALK_UNSURE, /* for the driver's own use; not listed */
};

struct walk;
struct walk_folder; /* the folder in hand */

/* `key`: "" or the folder's key with its '/'; valid until the first name is handed over. A folder
 * that is not there is empty. The failures of walk_name and walk_names are to be passed on. */
typedef enum rc walk_read_fn(struct walk *w, struct walk_folder *d, const char *key,
                             struct err *err);
/* What is obj->key? Of an object, fill in the other members of obj. *ret_kind is WALK_NEITHER when
 * it is not set. */
typedef enum rc walk_look_fn(struct walk *w, struct store_obj *obj, enum walk_kind *ret_kind,
                             struct err *err);

struct walk {
    struct store *store;
    const struct call *c;
    const char *prefix, *after;
    store_list_fn *fn;
    void *ctx; /* fn's */
    walk_read_fn *read;
    walk_look_fn *look; /* NULL when walk_name is not used */
    /* The walk's own: obj.key is the folder in hand, then the name in hand. Folders that wait are
     * all beginnings of it: below[n], for one that ends at n, is the end of the next shorter one in
     * the same folder, or 0. */
    struct store_obj obj;
    uint16_t below[STORE_KEY_MAX + 1];
};

/* Call fn for each object whose key starts with prefix and is greater than `after`. The members up
 * to `look` are set, the rest is zero. Fails: RC_CANCELED; as read, look and fn. */
MUST_CHECK enum rc walk_tree(struct walk *w, struct err *err);

/* One bare name of the folder; an os_name_fn. Fails: RC_CANCELED; as read, look and fn. */
MUST_CHECK enum rc walk_name(void *folder, const char *name, struct err *err);
/* Has a name been handed over? If so, a failure need not be about the folder itself. */
bool walk_entered(const struct walk_folder *d);
/* Can the name, as an object or as a folder, be or hold an object to list? Before the first name of
 * the folder is handed over, for drivers that collect names. */
bool walk_wants(struct walk_folder *d, const char *name);

/* The names in a folder, collected. */
struct walk_item {
    uint64_t size;
    int64_t mtime_ms;
    size_t name; /* where it begins in text; the etag comes behind it */
    enum walk_kind kind;
};
struct walk_list {
    struct buf items; /* struct walk_item */
    struct buf text;
};
/* item.name is set here. Fails: RC_TOO_BIG millions of names; RC_NO_MEM. */
MUST_CHECK enum rc walk_list_add(struct walk_list *l, const char *name, const char *etag,
                                 struct walk_item item, struct err *err);
/* They may be changed in place, and are all there until the next add. NULL when there are none. */
struct walk_item *walk_list_items(const struct walk_list *l, size_t *ret_count);
const char *walk_list_name(const struct walk_list *l, const struct walk_item *item);
void walk_list_reset(struct walk_list *l);
void walk_list_fini(struct walk_list *l); /* usable with CLEANUP */
/* Hand them over, sorted in place. Fails: RC_CANCELED; as read and fn. */
MUST_CHECK enum rc walk_names(struct walk_folder *d, struct walk_list *l, struct err *err);

/* The name of a file that is still being written. */
bool walk_is_tmp(const char *name);
#endif
