/*
 * gcs_token.h -- access tokens for Google Cloud Storage, found where Google's tools look, in their
 * order ("application default credentials"):
 *
 *   1. the file that GOOGLE_APPLICATION_CREDENTIALS names
 *   2. application_default_credentials.json in $CLOUDSDK_CONFIG or ~/.config/gcloud
 *   3. the metadata server of a machine in Google's cloud (GCE_METADATA_HOST)
 *
 * Such a file is JSON, and its "type" says what it holds:
 *
 *   service_account   a private key: signs a JWT, which token_uri turns into a token
 *   authorized_user   a refresh token, for the same exchange
 *   external_account  a subject token in a file or behind a URL, for Google's STS, and maybe an
 *                     account to impersonate with what that gives
 *
 * One source is shared by all stores of the process that find the same file, so ten thousand
 * databases ask for one token an hour. A token is fetched anew five minutes before it expires, by
 * one thread, while the others go on with the old one. The file is read again each time, so a new
 * key is taken up without a restart. Threads: any.
 */
#ifndef STORE_GCS_TOKEN_H
#define STORE_GCS_TOKEN_H
#include "base/buf.h"
#include "base/thr.h"
#include <jansson.h>

struct gcs_token;
/* No I/O. Fails: RC_NO_MEM. */
MUST_CHECK enum rc gcs_token_open(struct gcs_token **ret, struct err *err);
void gcs_token_close(struct gcs_token *t); /* NULL is fine */
/* Append the token and a \0. Fails: RC_DENIED no credentials anywhere, with the places that were
 * tried, or refused; RC_INVALID a broken file; RC_UNSUPPORTED a kind of credentials; RC_AGAIN the
 * service that hands tokens out does not answer; RC_CANCELED; RC_NO_MEM. */
MUST_CHECK enum rc gcs_token_get(struct gcs_token *t, const struct call *c, struct buf *out,
                                 struct err *err);
/* The service refused this one: forget it, if it is still the one in use. */
void gcs_token_expired(struct gcs_token *t, const char *token);

/* The account and private key that links are signed with. */
struct gcs_signer {
    struct buf email, key; /* \0-terminated; the key is PEM */
};
/* Fails: RC_UNSUPPORTED when the credentials are not a service account's key; as gcs_token_get. */
MUST_CHECK enum rc gcs_token_signer(struct gcs_token *t, struct gcs_signer *ret, struct err *err);
void gcs_signer_fini(struct gcs_signer *s); /* wipes the key; for CLEANUP */

#define GCS_ORIGIN_MAX 300
/* "scheme://host[:port]" of a URL that secrets will be sent to. Fails: RC_INVALID unless it is
 * https, or http on the loopback interface; the text names the URL as `what`. */
MUST_CHECK enum rc gcs_origin(const char *url, const char *what, char out[GCS_ORIGIN_MAX],
                              struct err *err);
/* Make text from the network fit for an error: one line, printable, at most size - 1 bytes. */
void gcs_tidy_text(const char *text, char *out, size_t size);

/* A member that is a string, or "". object may be NULL or something else. */
const char *gcs_text(const json_t *object, const char *key);
/* Append as compact JSON. Takes json, which may be NULL. Fails: RC_NO_MEM. */
MUST_CHECK enum rc gcs_dump(json_t *json, struct buf *out, struct err *err);
void gcs_json_freep(json_t **j); /* for CLEANUP */
#endif
