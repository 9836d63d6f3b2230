/*
 * http_pool.h -- the process's libcurl handles, for store/http only. A handle keeps its connections
 * while it is idle; the one that was used last goes out first, so few stay warm rather than many
 * lukewarm. DNS answers and TLS sessions are shared by all.
 * Threads: any; a link that was taken belongs to its taker.
 */
#ifndef STORE_HTTP_POOL_H
#define STORE_HTTP_POOL_H
#include <curl/curl.h>
#include "base/err.h"

#if LIBCURL_VERSION_NUM < 0x075000
#error "libcurl 7.80 or newer is needed"
#endif

#define HTTP_IDLE_MAX 64    /* idle handles; more are closed */
#define HTTP_IDLE_MS  90000 /* idle for so long: closed when the next one comes back */

struct http_link {
    struct http_link *next; /* in the pool */
    int64_t idle_ms;        /* since when, by os_mono_ms */
    CURL *easy;
    CURLM *multi;     /* drives nothing but easy */
    char origin[280]; /* scheme://host:port that it talked to last */
    char trouble[CURL_ERROR_SIZE];
    bool spent; /* close it, do not keep it */
};

/* One user of the pool more, or less; without users the idle handles are closed.
 * Fails: RC_NO_MEM. */
MUST_CHECK enum rc http_pool_ref(struct err *err);
void http_pool_unref(void);
/* A handle, reset to defaults, if possible with a connection to origin. Fails: RC_NO_MEM. */
MUST_CHECK enum rc http_link_take(const char *origin, struct http_link **ret_link, struct err *err);
void http_link_give(struct http_link *l);
void http_pool_patience(int64_t ms); /* tests: another HTTP_IDLE_MS; 0: the usual one */
#endif
