/* tls_pair.h -- certificates for tests. Include after cmocka.h. */
#ifndef TESTS_SERVER_TLS_PAIR_H
#define TESTS_SERVER_TLS_PAIR_H
#include <gnutls/x509.h>
#include <time.h>
#include "base/os.h"

/* Write a new key and a certificate with this serial number, signed by itself. */
static inline void make_pair(uint8_t serial, const char *cert_path, const char *key_path)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;
    struct err err;
    gnutls_x509_privkey_init(&key);
    assert_int_equal(gnutls_x509_privkey_generate(
                         key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, &serial, 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL) - 60);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
    gnutls_x509_crt_set_dn(crt, "CN=localhost", NULL);
    gnutls_x509_crt_set_key(crt, key);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem), 0);
    assert_int_equal(os_write_file(cert_path, pem.data, pem.size, 0600, &err), RC_OK);
    gnutls_free(pem.data);
    assert_int_equal(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), 0);
    assert_int_equal(os_write_file(key_path, pem.data, pem.size, 0600, &err), RC_OK);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}
#endif
