/*
 * jwt.h -- JSON Web Tokens (RFC 7519, compact form) for the server: EdDSA (Ed25519), ES256, HS256.
 *
 * Keys, as libSQL's server takes them: an SPKI "PUBLIC KEY" in PEM (several in one text: all are
 * tried), or the 32 bytes of an Ed25519 key in base64url. For HS256 a secret: "hs256:" and at least
 * 32 bytes in base64url. Never taken from a token: algorithm of a key is fixed by the key.
 * Pure; threads: any.
 */
#ifndef FMT_JWT_H
#define FMT_JWT_H
#include "base/buf.h"

#define JWT_TEXT_MAX 16384 /* bytes of a token */
#define JWT_KEYS_MAX 16

enum jwt_alg { JWT_EDDSA, JWT_ES256, JWT_HS256 };
struct jwt_keys;
/* Fails: RC_INVALID, saying what the text is instead (a private key: with the hint to give the
 * public one); RC_NO_MEM. */
MUST_CHECK enum rc jwt_keys_parse(const char *text, size_t size, struct jwt_keys **ret_keys,
                                  struct err *err);
void jwt_keys_free(struct jwt_keys *keys); /* NULL is fine */

enum jwt_problem { JWT_OK, JWT_MALFORMED, JWT_BAD_SIGNATURE, JWT_EXPIRED, JWT_NOT_YET };
/* Check signature, exp and nbf (60 s leeway). *ret_claims: the payload, JSON, appended, only when
 * JWT_OK. now_s: seconds since 1970. An unknown "crit" header is JWT_MALFORMED. `aud` is ignored.
 */
MUST_CHECK enum rc jwt_verify(const struct jwt_keys *keys, const char *token, size_t size,
                              int64_t now_s, struct buf *ret_claims, enum jwt_problem *ret_problem,
                              struct err *err);

/* Make a key pair in PEM (HS256: the same "hs256:..." text twice). */
MUST_CHECK enum rc jwt_key_new(enum jwt_alg alg, struct buf *ret_private, struct buf *ret_public,
                               struct err *err);
/* Sign claims (a JSON object). Fails: RC_INVALID the key. */
MUST_CHECK enum rc jwt_sign(const char *private_key, const char *claims, struct buf *ret_token,
                            struct err *err);
#endif
