/*
 * azure_auth.h -- who we are to Azure's blob service: a shared access signature, a shared key, or a
 * token of Microsoft's identity platform, the first of these that there is. Tokens come from the
 * first of
 *
 *   1. client secret: AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET
 *   2. workload identity: AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE
 *      (both of AZURE_AUTHORITY_HOST, or https://login.microsoftonline.com)
 *   3. App Service and the like: IDENTITY_ENDPOINT, IDENTITY_HEADER
 *   4. the metadata service of a virtual machine (AZURE_POD_IDENTITY_AUTHORITY_HOST for another
 *      address), with AZURE_CLIENT_ID when the machine has more than one identity
 *
 * and are fetched again five minutes before they expire, by one thread, while the others go on with
 * the old one. Threads: any.
 */
#ifndef STORE_AZURE_AUTH_H
#define STORE_AZURE_AUTH_H
#include "store/http.h"

#define AZURE_VERSION "2021-08-06" /* of the service's interface */

struct azure_auth;
struct azure_auth_conf {
    const char *account;
    const char *sas; /* "": not given; a '?' in front is fine */
    const char *key; /* base64; "": not given */
    bool encrypted;  /* the endpoint is https or this machine: a token may be shown to it */
};
/* No I/O. Fails: RC_INVALID a key or a signature that cannot be one, or a token for an endpoint
 * without TLS; RC_NO_MEM. */
MUST_CHECK enum rc azure_auth_open(const struct azure_auth_conf *conf, struct azure_auth **ret,
                                   struct err *err);
void azure_auth_close(struct azure_auth *a); /* NULL is fine */
/* What each URL's query must have: "sv=...&sig=...", or "". */
const char *azure_auth_query(const struct azure_auth *a);
/* See to it that there is a token, if one is needed. Before a request and not by its sign, since a
 * failure here comes after tries enough.
 * Fails: RC_DENIED no credentials anywhere, with the places that were tried, or refused ones;
 * RC_AGAIN who hands out tokens does not answer; RC_INVALID; RC_CANCELED; RC_NO_MEM. */
MUST_CHECK enum rc azure_auth_ready(struct azure_auth *a, const struct call *c, struct err *err);
/* Add the headers x-ms-version, x-ms-date and Authorization to a request that is complete but for
 * them. Fails: as azure_auth_ready, whose work it does when the token has expired since. */
MUST_CHECK enum rc azure_auth_sign(struct azure_auth *a, const struct call *c, struct http_req *req,
                                   struct err *err);
/* The service refused this request's token: forget it. True: another one may do. */
bool azure_auth_refused(struct azure_auth *a, const struct http_req *req);
/* Append the query of a link to one blob ("container/name", not encoded) that is good until
 * expires_ms. Fails: RC_UNSUPPORTED without a shared key; RC_NO_MEM. */
MUST_CHECK enum rc azure_auth_link(const struct azure_auth *a, const char *blob, bool put,
                                   bool https_only, int64_t expires_ms, struct buf *out,
                                   struct err *err);
/* What to check when the service does not believe us. */
const char *azure_auth_advice(const struct azure_auth *a);
#endif
