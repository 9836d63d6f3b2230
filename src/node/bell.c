/* bell.c -- see bell.h. */
#include "node/bell.h"
#include <errno.h>
#include <linux/magic.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"

#define MAGIC_NFS  0x6969
#define MAGIC_CIFS 0xff534d42u
#define MAGIC_SMB2 0xfe534d42u
#define MAGIC_FUSE 0x65735546
#define MAGIC_9P   0x01021997
#define MAGIC_CEPH 0x00c36400

struct watch { /* several owners may share a folder's watch */
    int wd;
    bool armed; /* for one ring, which has not come yet */
    void *owner;
};

struct bell {
    bell_fn *ring;
    int fd, stop_fd;
    pthread_t thread;
    pthread_mutex_t lock; /* guards watches */
    struct buf watches;   /* struct watch, in no order */
};

static void *bell_main(void *arg);
static void handle(struct bell *b, const struct inotify_event *ev);
static void ring_all(struct bell *b);
static bool sees_writes(const char *path);
static enum rc add(struct bell *b, const char *path, uint32_t mask, void *owner, bool once,
                   int *watch, struct err *err);

enum rc bell_new(bell_fn *ring, struct bell **ret_b, struct err *err)
{
    struct bell *b = mem_calloc(1, sizeof *b);
    if (b == NULL) return err_mem(err, "the bell");
    b->ring = ring;
    pthread_mutex_init(&b->lock, NULL);
    b->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    b->stop_fd = eventfd(0, EFD_CLOEXEC);
    enum rc rc = RC_OK;
    if (b->fd < 0 || b->stop_fd < 0) rc = err_sys(err, errno, "inotify");
    if (rc == RC_OK) rc = thr_start(&b->thread, "bell", bell_main, b, err);
    if (rc != RC_OK) {
        os_close(b->fd);
        os_close(b->stop_fd);
        mem_free(b);
        return rc;
    }
    *ret_b = b;
    return RC_OK;
}

void bell_free(struct bell *b)
{
    if (b == NULL) return;
    uint64_t one = 1;
    if (os_write_some(b->stop_fd, &one, sizeof one) == sizeof one) pthread_join(b->thread, NULL);
    os_close(b->fd);
    os_close(b->stop_fd);
    pthread_mutex_destroy(&b->lock);
    buf_fini(&b->watches);
    mem_free(b);
}

enum rc bell_arm(struct bell *b, const char *path, void *owner, int *watch, struct err *err)
{
    if (!sees_writes(path))
        return err_set(err, RC_UNSUPPORTED, "'%s' is on a file system that tells no changes", path);
    /* Its end, too: the last application to close a database deletes its WAL. */
    return add(b, path, IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF, owner, true, watch,
               err); /* IN_ATTRIB: deleted, but still open by us */
}

enum rc bell_watch_gone(struct bell *b, const char *path, void *owner, int *watch, struct err *err)
{
    return add(b, path, IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF, owner, false, watch, err);
}

enum rc bell_watch_folder(struct bell *b, const char *path, void *owner, int *watch,
                          struct err *err)
{
    if (!sees_writes(path))
        return err_set(err, RC_UNSUPPORTED, "'%s' is on a file system that tells no changes", path);
    return add(b, path, IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF, owner, false,
               watch, err);
}

void bell_drop(struct bell *b, void *owner)
{
    thr_lock(&b->lock);
    struct watch *w = (void *)b->watches.data;
    size_t count = b->watches.size / sizeof *w, kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool shared = false;
        if (w[i].owner != owner) continue;
        for (size_t k = 0; k < count && !shared; k++)
            shared = w[k].wd == w[i].wd && w[k].owner != owner;
        if (!shared) inotify_rm_watch(b->fd, w[i].wd);
    }
    for (size_t i = 0; i < count; i++) {
        if (w[i].owner != owner) w[kept++] = w[i];
    }
    b->watches.size = kept * sizeof *w;
    thr_unlock(&b->lock);
}

static enum rc add(struct bell *b, const char *path, uint32_t mask, void *owner, bool once,
                   int *watch, struct err *err)
{
    if (once) mask |= IN_ONESHOT;
    thr_lock(&b->lock);
    enum rc rc = buf_reserve(&b->watches, sizeof(struct watch), err);
    int wd = rc == RC_OK ? inotify_add_watch(b->fd, path, mask) : -1;
    if (rc == RC_OK && wd < 0) {
        int sys = errno;
        rc = sys == ENOSPC ? err_set(err, RC_UNSUPPORTED,
                                     "no inotify watch left (fs.inotify.max_user_watches)")
                           : err_sys(err, sys, "watch '%s'", path);
    }
    if (rc == RC_OK) {
        struct watch *w = (void *)b->watches.data;
        size_t count = b->watches.size / sizeof *w, i = 0;
        while (i < count && !(w[i].owner == owner && (w[i].wd == wd || w[i].wd == *watch)))
            i++;
        w[i] = (struct watch){.wd = wd, .armed = once, .owner = owner};
        if (i == count) b->watches.size += sizeof *w;
        *watch = wd;
    }
    thr_unlock(&b->lock);
    return rc;
}

static void *bell_main(void *arg)
{
    struct bell *b = arg;
    _Alignas(struct inotify_event) char events[16384];
    for (;;) {
        struct pollfd p[2] = {{.fd = b->fd, .events = POLLIN},
                              {.fd = b->stop_fd, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR) return NULL;
        int64_t size = os_read_some(b->fd, events, sizeof events);
        if (size <= 0 && p[1].revents != 0) return NULL; /* the last rings still count */
        for (int64_t at = 0; at < size;) {
            const struct inotify_event *ev = (const void *)(events + at);
            if (ev->mask & IN_Q_OVERFLOW)
                ring_all(b);
            else
                handle(b, ev);
            at += (int64_t)(sizeof *ev + ev->len);
        }
    }
}

static void handle(struct bell *b, const struct inotify_event *ev)
{
    thr_lock(&b->lock);
    struct watch *w = (void *)b->watches.data;
    size_t count = b->watches.size / sizeof *w;
    for (size_t i = 0; i < count; i++) {
        if (w[i].wd != ev->wd) continue;
        /* IN_IGNORED: the watch is gone, after its one ring or with its file. When it was armed
         * again between that ring and its end, the kernel took that for the dying watch. */
        bool gone = (ev->mask & IN_IGNORED) != 0;
        if (!gone || w[i].armed) b->ring(w[i].owner);
        w[i].armed = false;
        if (gone) w[i--] = w[--count];
    }
    b->watches.size = count * sizeof *w;
    thr_unlock(&b->lock);
}

static void ring_all(struct bell *b)
{
    thr_lock(&b->lock);
    const struct watch *w = (const void *)b->watches.data;
    for (size_t i = 0; i < b->watches.size / sizeof *w; i++)
        b->ring(w[i].owner);
    thr_unlock(&b->lock);
}

static bool sees_writes(const char *path)
{
    struct statfs fs;
    if (statfs(path, &fs) != 0) return true; /* the watch will tell what is wrong */
    switch ((uint32_t)fs.f_type) {
    case MAGIC_NFS:
    case MAGIC_CIFS:
    case MAGIC_SMB2:
    case MAGIC_FUSE:
    case MAGIC_9P:
    case MAGIC_CEPH:
        return false;
    default:
        return true;
    }
}
