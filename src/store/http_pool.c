/*
 * http_pool.c -- see http_pool.h.
 *
 * Locks: `pool_lock`; and one of `share_locks` for each kind of data that libcurl shares, taken by
 * libcurl alone. They are never held together.
 */
#include "store/http_pool.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "store/http.h"
#include <stdio.h>
#include <string.h>

#define CONNECTIONS_MAX 4L /* of one handle, to different hosts */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLSH *share; /* NULL: libcurl could not start */
static pthread_mutex_t share_locks[CURL_LOCK_DATA_LAST];
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct http_link *idle;             /* [pool_lock] the last used first */
static unsigned users, idle_count, taken;  /* [pool_lock] */
static int64_t patience_ms = HTTP_IDLE_MS; /* [pool_lock] */

static void start(void);
static void share_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *ctx);
static void share_unlock(CURL *easy, curl_lock_data data, void *ctx);
static struct http_link *take_stale(int64_t before_ms);
static struct http_link *link_new(void);
static void link_free(struct http_link *l);

enum rc http_pool_ref(struct err *err)
{
    pthread_once(&once, start);
    if (share == NULL) return err_mem(err, "HTTP requests");
    thr_lock(&pool_lock);
    users++;
    thr_unlock(&pool_lock);
    return RC_OK;
}

void http_pool_unref(void)
{
    struct http_link *old = NULL;
    thr_lock(&pool_lock);
    ASSERT(users > 0);
    if (--users == 0) {
        old = idle;
        idle = NULL;
        idle_count = 0;
    }
    thr_unlock(&pool_lock);
    while (old != NULL) {
        struct http_link *next = old->next;
        link_free(old);
        old = next;
    }
}

enum rc http_link_take(const char *origin, struct http_link **ret_link, struct err *err)
{
    thr_lock(&pool_lock);
    struct http_link **at = &idle;
    while (*at != NULL && strcmp((*at)->origin, origin) != 0)
        at = &(*at)->next;
    /* None has talked to this host: a new one, unless there are many of the others already. */
    if (*at == NULL && idle_count >= HTTP_IDLE_MAX / 2) at = &idle;
    struct http_link *l = *at;
    if (l != NULL) {
        *at = l->next;
        idle_count--;
    }
    taken++;
    thr_unlock(&pool_lock);
    if (l == NULL && (l = link_new()) == NULL) {
        thr_lock(&pool_lock);
        taken--;
        thr_unlock(&pool_lock);
        return err_mem(err, "an HTTP request");
    }
    curl_easy_reset(l->easy); /* connections and what is shared survive it */
    l->trouble[0] = '\0';
    snprintf(l->origin, sizeof l->origin, "%s", origin);
    *ret_link = l;
    return RC_OK;
}

void http_link_give(struct http_link *l)
{
    l->idle_ms = os_mono_ms();
    thr_lock(&pool_lock);
    taken--;
    struct http_link *old = take_stale(l->idle_ms - patience_ms);
    bool keep = idle_count < HTTP_IDLE_MAX && users > 0 && !l->spent;
    if (keep) {
        l->next = idle;
        idle = l;
        idle_count++;
    }
    thr_unlock(&pool_lock);
    if (!keep) link_free(l);
    if (old != NULL) link_free(old);
}

void http_pool_patience(int64_t ms)
{
    thr_lock(&pool_lock);
    patience_ms = ms > 0 ? ms : HTTP_IDLE_MS;
    thr_unlock(&pool_lock);
}

void http_look(struct http_state *ret)
{
    thr_lock(&pool_lock);
    *ret = (struct http_state){.idle = idle_count, .busy = taken};
    thr_unlock(&pool_lock);
}

static void start(void)
{
    for (unsigned i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_init(&share_locks[i], NULL);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return;
    CURLSH *s = curl_share_init();
    if (s == NULL) return;
    if (curl_share_setopt(s, CURLSHOPT_LOCKFUNC, share_lock) != CURLSHE_OK ||
        curl_share_setopt(s, CURLSHOPT_UNLOCKFUNC, share_unlock) != CURLSHE_OK ||
        curl_share_setopt(s, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) != CURLSHE_OK ||
        curl_share_setopt(s, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK) {
        curl_share_cleanup(s);
        return;
    }
    share = s;
}

static void share_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *ctx)
{
    (void)easy, (void)access, (void)ctx;
    thr_lock(&share_locks[data]);
}

static void share_unlock(CURL *easy, curl_lock_data data, void *ctx)
{
    (void)easy, (void)ctx;
    thr_unlock(&share_locks[data]);
}

/* The one that has been idle longest, if that is too long: after a rush the pool gets small again,
 * by one with each request that ends. A TLS connection takes about a megabyte. */
static struct http_link *take_stale(int64_t before_ms)
{
    struct http_link **at = &idle;
    while (*at != NULL && (*at)->next != NULL)
        at = &(*at)->next;
    struct http_link *l = *at;
    if (l == NULL || l->idle_ms > before_ms) return NULL;
    *at = NULL;
    idle_count--;
    return l;
}

static struct http_link *link_new(void)
{
    struct http_link *l = mem_calloc(1, sizeof *l);
    if (l == NULL) return NULL;
    l->easy = curl_easy_init();
    l->multi = curl_multi_init();
    if (l->easy != NULL && l->multi != NULL &&
        curl_easy_setopt(l->easy, CURLOPT_SHARE, share) == CURLE_OK &&
        curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_MAX) == CURLM_OK)
        return l;
    link_free(l);
    return NULL;
}

static void link_free(struct http_link *l)
{
    if (l->easy != NULL) curl_easy_cleanup(l->easy);
    if (l->multi != NULL) curl_multi_cleanup(l->multi);
    mem_free(l);
}
