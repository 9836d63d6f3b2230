/* jwt_keys.h -- the keys of RFC 7515 and RFC 8037, whose private halves everybody knows. */
#ifndef TESTS_FMT_JWT_KEYS_H
#define TESTS_FMT_JWT_KEYS_H

/* RFC 7515 A.1 */
#define HS_KEY                                                                                     \
    "hs256:AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"

/* RFC 7515 A.3 */
#define ES_PRIVATE                                                                                 \
    "-----BEGIN PRIVATE KEY-----\n"                                                                \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff\n"                           \
    "H1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp\n"                           \
    "7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt\n"                                   \
    "-----END PRIVATE KEY-----\n"
#define ES_PRIVATE_SEC1                                                                            \
    "-----BEGIN EC PRIVATE KEY-----\n"                                                             \
    "MHcCAQEEII6bEJ5xkJi/mASH3x9dd+nLKWBuvtImO19XwhPfhPSyoAoGCCqGSM49\n"                           \
    "AwEHoUQDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEXH8UTNG72b\n"                           \
    "focs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"                                                       \
    "-----END EC PRIVATE KEY-----\n"
#define ES_PUBLIC                                                                                  \
    "-----BEGIN PUBLIC KEY-----\n"                                                                 \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"                           \
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"                               \
    "-----END PUBLIC KEY-----\n"

/* RFC 8037 A.1 */
#define ED_PRIVATE                                                                                 \
    "-----BEGIN PRIVATE KEY-----\n"                                                                \
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"                           \
    "-----END PRIVATE KEY-----\n"
#define ED_PUBLIC                                                                                  \
    "-----BEGIN PUBLIC KEY-----\n"                                                                 \
    "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"                               \
    "-----END PUBLIC KEY-----\n"
#define ED_RAW "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#endif
