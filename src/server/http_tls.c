/*
 * http_tls.c -- certificates that can be replaced while connections use the old ones.
 *
 * Each handshake asks for the certificate and gets the newest. What it was given must live until
 * the handshake is through, so an old pair is kept for some minutes and freed by a later reload.
 */
#include "base/mem.h"
#include "base/os.h"
#include "base/thr.h"
#include "server/http_intern.h"
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#define CHAIN_MAX 16
#define FILE_MAX  (1u << 20)
#define KEEP_MS   (10 * 60 * 1000)

struct pair {
    struct pair *older;
    int64_t retired_ms;
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned count;
    gnutls_privkey_t key;
};

struct http_tls {
    const char *cert_file, *key_file; /* [const] */
    pthread_mutex_t lock;
    struct pair *newest; /* [lock:lock] */
};

static enum rc pair_load(const struct http_tls *t, struct pair *p, struct err *err);
static enum rc pair_check(const struct http_tls *t, const gnutls_datum_t *cert,
                          const gnutls_datum_t *key, struct err *err);
static void pair_free(struct pair *p);
static int give(gnutls_session_t session, const gnutls_datum_t *ca, int ca_count,
                const gnutls_pk_algorithm_t *algos, int algo_count, gnutls_pcert_st **chain,
                unsigned *count, gnutls_privkey_t *key);

enum rc http__tls_new(const char *cert_file, const char *key_file, struct http_tls **ret_t,
                      struct err *err)
{
    struct http_tls *t = mem_calloc(1, sizeof *t);
    if (t == NULL) return err_mem(err, "the certificates");
    t->cert_file = cert_file;
    t->key_file = key_file;
    pthread_mutex_init(&t->lock, NULL);
    enum rc rc = http__tls_load(t, err);
    if (rc == RC_OK)
        *ret_t = t;
    else
        http__tls_free(t);
    return rc;
}

enum rc http__tls_load(struct http_tls *t, struct err *err)
{
    struct pair *p = mem_calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "a certificate");
    enum rc rc = pair_load(t, p, err);
    if (rc != RC_OK) {
        pair_free(p);
        return rc;
    }
    int64_t now = os_mono_ms();
    thr_lock(&t->lock);
    if (t->newest != NULL) t->newest->retired_ms = now;
    p->older = t->newest;
    t->newest = p;
    struct pair **from = &p->older;
    while (*from != NULL && now - (*from)->retired_ms < KEEP_MS)
        from = &(*from)->older;
    struct pair *old = *from;
    *from = NULL;
    thr_unlock(&t->lock);
    while (old != NULL) {
        struct pair *older = old->older;
        pair_free(old);
        old = older;
    }
    return RC_OK;
}

void http__tls_free(struct http_tls *t)
{
    if (t == NULL) return;
    while (t->newest != NULL) {
        struct pair *p = t->newest;
        t->newest = p->older;
        pair_free(p);
    }
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void *http__tls_callback(void)
{
    return (void *)(uintptr_t)give;
}

static enum rc pair_load(const struct http_tls *t, struct pair *p, struct err *err)
{
    CLEANUP(buf_fini) struct buf cert = BUF_INIT;
    CLEANUP(buf_fini) struct buf key = BUF_INIT;
    enum rc rc = os_read_file(t->cert_file, FILE_MAX, &cert, err);
    if (rc == RC_OK) rc = os_read_file(t->key_file, FILE_MAX, &key, err);
    /* Whatever keeps a file from being read, the setting that names it is to blame. */
    if (rc != RC_OK && rc != RC_NO_MEM) rc = err->rc = RC_INVALID;
    const gnutls_datum_t c = {cert.data, (unsigned)cert.size}, k = {key.data, (unsigned)key.size};
    if (rc == RC_OK) rc = pair_check(t, &c, &k, err);
    if (rc != RC_OK) goto end;
    unsigned count = CHAIN_MAX;
    int bad = gnutls_pcert_list_import_x509_raw(p->chain, &count, &c, GNUTLS_X509_FMT_PEM,
                                                GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    if (bad >= 0) p->count = count;
    if (bad >= 0) bad = gnutls_privkey_init(&p->key);
    if (bad >= 0) bad = gnutls_privkey_import_x509_raw(p->key, &k, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (bad < 0)
        rc = err_set(err, bad == GNUTLS_E_MEMORY_ERROR ? RC_NO_MEM : RC_INVALID,
                     "certificate '%s': %s", t->cert_file, gnutls_strerror(bad));
end:
    if (key.size > 0) mem_wipe(key.data, key.size);
    return rc;
}

/* The library's own check of a pair: both can be read and belong together. */
static enum rc pair_check(const struct http_tls *t, const gnutls_datum_t *cert,
                          const gnutls_datum_t *key, struct err *err)
{
    gnutls_certificate_credentials_t cred;
    if (gnutls_certificate_allocate_credentials(&cred) < 0) return err_mem(err, "a certificate");
    int bad = gnutls_certificate_set_x509_key_mem(cred, cert, key, GNUTLS_X509_FMT_PEM);
    gnutls_certificate_free_credentials(cred);
    if (bad >= 0) return RC_OK;
    return err_set(err, bad == GNUTLS_E_MEMORY_ERROR ? RC_NO_MEM : RC_INVALID,
                   "certificate '%s' and key '%s': %s", t->cert_file, t->key_file,
                   gnutls_strerror(bad));
}

static void pair_free(struct pair *p)
{
    for (unsigned i = 0; i < p->count; i++)
        gnutls_pcert_deinit(&p->chain[i]);
    if (p->key != NULL) gnutls_privkey_deinit(p->key);
    mem_free(p);
}

static int give(gnutls_session_t session, const gnutls_datum_t *ca, int ca_count,
                const gnutls_pk_algorithm_t *algos, int algo_count, gnutls_pcert_st **chain,
                unsigned *count, gnutls_privkey_t *key)
{
    (void)ca, (void)ca_count, (void)algos, (void)algo_count;
    /* The HTTP library keeps its connection in the session's pointer. */
    struct http_tls *t = http__tls_of(gnutls_session_get_ptr(session));
    if (t == NULL) return -1;
    thr_lock(&t->lock);
    struct pair *p = t->newest;
    thr_unlock(&t->lock);
    *chain = p->chain;
    *count = p->count;
    *key = p->key;
    return 0;
}
