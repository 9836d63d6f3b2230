/*
 * aws_intern.h -- one search for keys, for the three files that make up aws_creds.h: aws_creds.c
 * (cache and order), aws_files.c (profiles), aws_fetch.c (services). Threads: a search has one.
 */
#ifndef STORE_AWS_INTERN_H
#define STORE_AWS_INTERN_H
#include "base/buf.h"
#include "store/aws_creds.h"

#define AWS_PATH_MAX   1024
#define AWS_NAME_MAX   256
#define AWS_REGION_MAX 64

struct aws_search {
    const struct call *c;
    const char *region; /* for STS; "": the environment and the profile say it, or none */
    struct buf looked;  /* "place, place": where there were no keys; \0-terminated */
};

/* A role to take on. The texts are not kept. */
struct aws_role {
    const char *arn;
    const char *session;     /* "": one is made up */
    const char *external_id; /* "" */
    const char *duration_s;  /* "": STS decides */
};

/* Each of these: RC_OK and *ret_found false when nothing is configured there, which aws_looked has
 * noted; what is configured and fails is a failure, so that no other account is taken instead. */
typedef enum rc aws_place_fn(struct aws_search *s, struct aws_keys *ret, bool *ret_found,
                             struct err *err);
aws_place_fn aws_from_env, aws_from_web_env, aws_from_files, aws_from_container, aws_from_metadata;

/* Fails: RC_NO_MEM. */
MUST_CHECK enum rc aws_looked(struct aws_search *s, struct err *err, const char *fmt, ...)
    FMT(3, 4);
const char *aws_env(const char *name); /* "" when it is not set */
/* Fails: RC_CORRUPT a key is missing, or holds what no key does. The text shows no key. */
MUST_CHECK enum rc aws_keys_check(const struct aws_keys *keys, struct err *err);
void aws_keys_wipe(struct aws_keys *keys); /* for CLEANUP */

void aws_profile_region(char out[AWS_REGION_MAX]); /* "" when the profile names none */

/* {"AccessKeyId", "SecretAccessKey", token_name, "Expiration"}. Fails: RC_CORRUPT. */
MUST_CHECK enum rc aws_keys_from_json(const void *text, size_t size, const char *token_name,
                                      struct aws_keys *ret, struct err *err);
/* Fails: RC_DENIED, RC_AGAIN, RC_CANCELED; by errno for the file. */
MUST_CHECK enum rc aws_assume_web(struct aws_search *s, const struct aws_role *role,
                                  const char *token_path, struct aws_keys *ret, struct err *err);
MUST_CHECK enum rc aws_assume(struct aws_search *s, const struct aws_role *role,
                              const struct aws_keys *base, struct aws_keys *ret, struct err *err);
#endif
