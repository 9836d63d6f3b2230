/*
 * aws_creds.h -- access keys for S3 and OSS, found where the AWS tools look, in their order:
 *
 *   1. given in the configuration
 *   2. environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (and Litestream's
 *      LITESTREAM_ACCESS_KEY_ID, LITESTREAM_SECRET_ACCESS_KEY when those are not set)
 *   3. web identity: AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN -> STS AssumeRoleWithWebIdentity
 *   4. shared files ~/.aws/credentials and ~/.aws/config (AWS_SHARED_CREDENTIALS_FILE,
 *      AWS_CONFIG_FILE), profile AWS_PROFILE or "default": keys, session token, web identity,
 *      credential_process, role_arn with source_profile
 *   5. container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, with authorization token
 *   6. instance metadata, version 2 (AWS_EC2_METADATA_DISABLED, _SERVICE_ENDPOINT)
 *
 * For OSS: 1, then OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET, OSS_SESSION_TOKEN.
 * Keys that expire are fetched again five minutes before they do, by one thread, while the others
 * go on with the old ones; a failure of that is tried again after a minute. All stores of the
 * process that find their keys (2 to 6) share them. Threads: any.
 */
#ifndef STORE_AWS_CREDS_H
#define STORE_AWS_CREDS_H
#include "store/store.h"

struct aws_keys {
    char access_key[256], secret_key[256];
    char token[4096];   /* session token; "" when there is none */
    int64_t expires_ms; /* by the wall clock; 0: never */
};

struct aws_creds;
struct aws_creds_conf {
    bool oss;
    const char *access_key, *secret_key; /* NULL or "": not given */
    const char *region;                  /* for STS; may be "" */
};
/* No I/O. Fails: RC_INVALID one of the two given keys without the other; RC_NO_MEM. */
MUST_CHECK enum rc aws_creds_open(const struct aws_creds_conf *conf, struct aws_creds **ret,
                                  struct err *err);
void aws_creds_close(struct aws_creds *a); /* NULL is fine */
/* Fails: RC_DENIED no keys anywhere, with the list of places that were tried, or refused there;
 * RC_AGAIN a service that hands them out does not answer; RC_INVALID a broken file, with its line,
 * or variable; RC_IO; RC_CANCELED; RC_NO_MEM. Never a code that could be taken for the answer to
 * the request that wants the keys, such as RC_NOT_FOUND. */
MUST_CHECK enum rc aws_creds_get(struct aws_creds *a, const struct call *c, struct aws_keys *ret,
                                 struct err *err);
/* The service refused these as expired: forget them, if they are still the ones in use. True: there
 * may be better ones now. */
bool aws_creds_expired(struct aws_creds *a, const struct aws_keys *keys);
/* The region that environment (AWS_REGION, AWS_DEFAULT_REGION) or profile names, or "". */
void aws_region(char out[64]);
#endif
