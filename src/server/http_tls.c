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
#include <gnutls/gnutls.h>

#define FILE_MAX (1u << 20)

struct http_tls_pair {
    atomic_uint refs;
    gnutls_certificate_credentials_t cred;
};

struct http_tls {
    const char *cert_file, *key_file; /* [const] */
    gnutls_priority_t priority;       /* [const] */
    pthread_mutex_t lock;
    struct http_tls_pair *newest; /* [lock:lock] */
};

static enum rc pair_load(const struct http_tls *t, struct http_tls_pair *p, struct err *err);

enum rc http__tls_new(const char *cert_file, const char *key_file, struct http_tls **ret_t,
                      struct err *err)
{
    struct http_tls *t = mem_calloc(1, sizeof *t);
    if (t == NULL) return err_mem(err, "the certificates");
    t->cert_file = cert_file;
    t->key_file = key_file;
    pthread_mutex_init(&t->lock, NULL);
    enum rc rc = RC_OK;
    if (gnutls_priority_init(&t->priority, NULL, NULL) < 0) rc = err_mem(err, "the ciphers of TLS");
    if (rc == RC_OK) rc = http__tls_load(t, err);
    if (rc == RC_OK)
        *ret_t = t;
    else
        http__tls_free(t);
    return rc;
}

enum rc http__tls_load(struct http_tls *t, struct err *err)
{
    struct http_tls_pair *p = mem_calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "a certificate");
    atomic_store(&p->refs, 1);
    enum rc rc = pair_load(t, p, err);
    if (rc != RC_OK) {
        http__tls_unref(p);
        return rc;
    }
    thr_lock(&t->lock);
    struct http_tls_pair *old = t->newest;
    t->newest = p;
    thr_unlock(&t->lock);
    http__tls_unref(old);
    return RC_OK;
}

void http__tls_free(struct http_tls *t)
{
    if (t == NULL) return;
    http__tls_unref(t->newest);
    if (t->priority != NULL) gnutls_priority_deinit(t->priority);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

gnutls_session_t http__tls_session(struct http_tls *t, int fd, struct http_tls_pair **ret_pair)
{
    static const gnutls_datum_t protocol = {(unsigned char *)(uintptr_t) "http/1.1", 8};
    gnutls_session_t session = NULL;
    if (gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) return NULL;
    thr_lock(&t->lock);
    struct http_tls_pair *p = t->newest;
    atomic_fetch_add(&p->refs, 1);
    thr_unlock(&t->lock);
    bool ok = gnutls_priority_set(session, t->priority) >= 0 &&
              gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, p->cred) >= 0 &&
              gnutls_alpn_set_protocols(session, &protocol, 1, 0) >= 0;
    if (ok) {
        gnutls_transport_set_int(session, fd);
        *ret_pair = p;
        return session;
    }
    gnutls_deinit(session);
    http__tls_unref(p);
    return NULL;
}

void http__tls_unref(struct http_tls_pair *p)
{
    if (p == NULL || atomic_fetch_sub(&p->refs, 1) != 1) return;
    if (p->cred != NULL) gnutls_certificate_free_credentials(p->cred);
    mem_free(p);
}

/* Certificate and key must fit: the library checks that. */
static enum rc pair_load(const struct http_tls *t, struct http_tls_pair *p, struct err *err)
{
    CLEANUP(buf_fini) struct buf cert = BUF_INIT;
    CLEANUP(buf_fini) struct buf key = BUF_INIT;
    enum rc rc = os_read_file(t->cert_file, FILE_MAX, &cert, err);
    if (rc == RC_OK) rc = os_read_file(t->key_file, FILE_MAX, &key, err);
    /* Whatever keeps a file from being read, the setting that names it is to blame. */
    if (rc != RC_OK) return rc == RC_NO_MEM ? rc : (err->rc = RC_INVALID);
    const gnutls_datum_t c = {cert.data, (unsigned)cert.size}, k = {key.data, (unsigned)key.size};
    int bad = gnutls_certificate_allocate_credentials(&p->cred);
    if (bad >= 0) bad = gnutls_certificate_set_x509_key_mem(p->cred, &c, &k, GNUTLS_X509_FMT_PEM);
    if (key.size > 0) mem_wipe(key.data, key.size);
    if (bad >= 0) return RC_OK;
    return err_set(err, bad == GNUTLS_E_MEMORY_ERROR ? RC_NO_MEM : RC_INVALID,
                   "certificate '%s' and key '%s': %s", t->cert_file, t->key_file,
                   gnutls_strerror(bad));
}
