/*
 * jwt.h -- JSON Web Tokens (RFC 7519, compact form) for the server: EdDSA (Ed25519), ES256, HS256.
 *
 * Keys, as libSQL's server takes them: an SPKI "PUBLIC KEY" in PEM, or the 32 bytes of an Ed25519
 * key in base64url. For HS256 a secret: "hs256:" and at least 32 bytes in base64url. One text may
 * hold several, of any kind, and lines that begin with '#'; all of them are tried. A key fixes its
 * algorithm; what a token says about it only picks among the keys, it never changes one's use.
 * Pure; threads: any, also on the same keys at once.
 */
#ifndef FMT_JWT_H
#define FMT_JWT_H
#include "base/buf.h"

#define JWT_TEXT_MAX     16384 /* bytes of a token */
#define JWT_KEYS_MAX     16
#define JWT_KEY_TEXT_MAX 65536 /* bytes of a text of keys */
#define JWT_LEEWAY_S     60    /* for clocks that differ, around exp and nbf */

enum jwt_alg { JWT_EDDSA, JWT_ES256, JWT_HS256 };
struct jwt_keys;
/* Fails: RC_INVALID, saying what the text is instead (a private key: with the hint to give the
 * public one) and never showing it; RC_TOO_BIG more than the limits above; RC_NO_MEM. */
MUST_CHECK enum rc jwt_keys_parse(const char *text, size_t size, struct jwt_keys **ret_keys,
                                  struct err *err);
void jwt_keys_free(struct jwt_keys *keys);   /* NULL is fine; wipes secrets */
void jwt_keys_freep(struct jwt_keys **keys); /* for CLEANUP */

enum jwt_problem { JWT_OK, JWT_MALFORMED, JWT_BAD_SIGNATURE, JWT_EXPIRED, JWT_NOT_YET };
/* Check signature, exp and nbf (with the leeway). *ret_claims: the payload, a JSON object without
 * duplicate names, appended, only on RC_OK. now_s: seconds since 1970. Any "crit" header is
 * JWT_MALFORMED; an algorithm that no key has is JWT_BAD_SIGNATURE. `aud` is ignored.
 * *ret_problem is always set, to JWT_OK only on RC_OK.
 * Fails: RC_DENIED, what is wrong with the token: *ret_problem for programs, err for people, with
 * nothing in it that a log must not see; RC_NO_MEM. */
MUST_CHECK enum rc jwt_verify(const struct jwt_keys *keys, const char *token, size_t size,
                              int64_t now_s, struct buf *ret_claims, enum jwt_problem *ret_problem,
                              struct err *err);

/* Make a key pair in PEM (HS256: the same "hs256:..." line twice), appended.
 * Fails: RC_NO_MEM; RC_IO no random numbers. */
MUST_CHECK enum rc jwt_key_new(enum jwt_alg alg, struct buf *ret_private, struct buf *ret_public,
                               struct err *err);
/* Sign claims, a JSON object that jwt_verify takes, with the first key of a text: a "PRIVATE KEY"
 * or "EC PRIVATE KEY" in PEM, or "hs256:...". The token is appended.
 * Fails: RC_INVALID the key or the claims; RC_TOO_BIG; RC_NO_MEM. */
MUST_CHECK enum rc jwt_sign(const char *private_key, const char *claims, struct buf *ret_token,
                            struct err *err);
#endif
