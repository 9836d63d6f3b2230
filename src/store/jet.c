/* jet.c -- see jet.h. */
#include "store/jet.h"
#include "base/mem.h"
#include "base/os.h"
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_MS   10000 /* Litestream's default */
#define SLICE_MS     250   /* so long a cancelled call may go unnoticed while nothing comes */
#define BUCKET_MAX   200
#define SECRET_MAX   4096
#define CAS_MAX      (1u << 20)
#define SEED_SIZE    58 /* letters of a seed of a user: 2 bytes, the key's 32, checksum */
#define PUBLIC_SIZE  56
#define PREFIX_SEED  (18u << 3) /* 'S' */
#define PREFIX_USER  (20u << 3) /* 'U' */
#define ED25519_SIZE 32

struct jet {
    natsOptions *opts; /* [lock] its timeout is set before each connect */
    int64_t timeout_ms;
    char server[300];
    char bucket[BUCKET_MAX + 1], stream[BUCKET_MAX + 8];
    char *jwt, *seed; /* secrets, or NULL */
    pthread_mutex_t lock;
    struct jet_link *link; /* [lock] NULL, or one reference */
};

static enum rc place(struct jet *j, struct store_settings *set, struct err *err);
static enum rc options(struct jet *j, struct store_settings *set, struct err *err);
static enum rc tls(struct jet *j, struct store_settings *set, struct err *err);
static enum rc root_cas(struct jet *j, const char *files, struct err *err);
static enum rc credentials(struct jet *j, struct store_settings *set, struct err *err);
static enum rc keep_secret(char **secret, const char *key, const char *value, struct err *err);
static void wipe(char *secret);
static enum rc nkey(struct jet *j, const char *value, struct err *err);
static enum rc public_key(const char *seed, char out[PUBLIC_SIZE + 1], struct err *err);
static bool base32_get(const char *text, size_t size, uint8_t *out);
static void base32_put(const uint8_t *data, size_t size, char *out);
static natsStatus give_jwt(char **jwt, char **text, void *ctx);
static natsStatus sign_nonce(char **text, unsigned char **signature, int *size, const char *nonce,
                             void *ctx);
static enum rc connect_new(struct jet *j, const struct call *c, struct jet_link **ret_link,
                           struct err *err);
static void link_free(struct jet_link *link);
static enum rc code_of(natsStatus status, jsErrCode code);

enum rc jet_open(struct store_settings *set, struct jet **ret_jet, struct err *err)
{
    struct jet *j = mem_calloc(1, sizeof *j);
    if (j == NULL) return err_mem(err, "a NATS store");
    pthread_mutex_init(&j->lock, NULL);
    j->timeout_ms = TIMEOUT_MS;
    enum rc rc = place(j, set, err);
    if (rc == RC_OK) rc = options(j, set, err);
    if (rc == RC_OK) rc = tls(j, set, err);
    if (rc == RC_OK) rc = credentials(j, set, err);
    if (rc == RC_OK)
        *ret_jet = j;
    else
        jet_close(j);
    return rc;
}

void jet_close(struct jet *j)
{
    if (j == NULL) return;
    if (j->link != NULL) link_free(j->link);
    natsOptions_Destroy(j->opts);
    wipe(j->jwt);
    wipe(j->seed);
    pthread_mutex_destroy(&j->lock);
    mem_free(j);
}

const char *jet_server(const struct jet *j)
{
    return j->server;
}

const char *jet_bucket(const struct jet *j)
{
    return j->bucket;
}

const char *jet_stream(const struct jet *j)
{
    return j->stream;
}

enum rc jet_link_get(struct jet *j, const struct call *c, struct jet_link **ret_link,
                     struct err *err)
{
    enum rc rc = RC_OK;
    thr_lock(&j->lock);
    if (j->link != NULL && natsConnection_Status(j->link->nc) != NATS_CONN_STATUS_CONNECTED) {
        if (--j->link->refs == 0) link_free(j->link);
        j->link = NULL;
    }
    if (j->link == NULL) rc = connect_new(j, c, &j->link, err);
    if (rc == RC_OK) {
        j->link->refs++;
        *ret_link = j->link;
    }
    thr_unlock(&j->lock);
    return rc;
}

void jet_link_put(struct jet *j, struct jet_link *link)
{
    if (link == NULL) return;
    thr_lock(&j->lock);
    bool last = --link->refs == 0;
    thr_unlock(&j->lock);
    if (last) link_free(link);
}

int64_t jet_wait_ms(const struct jet *j, const struct call *c)
{
    if (c == NULL || c->deadline_ms == 0) return j->timeout_ms;
    int64_t left = c->deadline_ms - os_mono_ms();
    if (left < 1) return 1;
    return left < j->timeout_ms ? left : j->timeout_ms;
}

enum rc jet_err(struct jet *j, struct err *err, natsStatus status, jsErrCode code, const char *fmt,
                ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    natsStatus known = NATS_OK;
    const char *text = nats_GetLastError(&known);
    if (known != status || text == NULL || text[0] == '\0') text = natsStatus_GetText(status);
    if (code == JSStreamNotFoundErr)
        return err_set(err, RC_INVALID,
                       "%s: '%s' has no object store '%s'; make it with: nats object add %s", what,
                       j->server, j->bucket, j->bucket);
    return err_set(err, code_of(status, code), "%s at '%s': %s", what, j->server, text);
}

enum rc jet_next(struct jet *j, const struct call *c, natsSubscription *sub, natsMsg **ret_msg,
                 struct err *err)
{
    int64_t end = os_mono_ms() + j->timeout_ms;
    for (;;) {
        TRY(call_check(c, err));
        int64_t left = end - os_mono_ms(), wait = jet_wait_ms(j, c);
        if (wait > SLICE_MS) wait = SLICE_MS;
        natsStatus status = natsSubscription_NextMsg(ret_msg, sub, wait);
        if (status == NATS_OK) return RC_OK;
        if (status != NATS_TIMEOUT || left <= 0)
            return jet_err(j, err, status, 0, "wait for a message");
    }
}

static enum rc place(struct jet *j, struct store_settings *set, struct err *err)
{
    const struct url *u = &set->url;
    const char *bucket = store_setting(set, "bucket"), *path = u->path + strspn(u->path, "/");
    bool v6 = strchr(u->host, ':') != NULL;
    store_setting(set, "path"); /* Litestream has it and never uses it: keys have no prefix */
    if (!set->url_given || u->host[0] == '\0')
        return err_set(err, RC_INVALID, "nats: give a URL such as nats://host:4222/bucket");
    snprintf(j->server, sizeof j->server, "nats://%s%s%s:%u", v6 ? "[" : "", u->host, v6 ? "]" : "",
             u->port ? u->port : 4222);
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/')
        size--;
    if (bucket[0] == '\0')
        bucket = path;
    else
        size = strlen(bucket);
    if (size == 0) return err_set(err, RC_INVALID, "nats: the bucket is missing");
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if (size > BUCKET_MAX || strspn(bucket, letters) < size)
        return err_set(err, RC_INVALID,
                       "nats: '%.64s' is no bucket: at most %d letters, digits, '-' and '_'",
                       bucket, BUCKET_MAX);
    snprintf(j->bucket, sizeof j->bucket, "%.*s", (int)size, bucket);
    snprintf(j->stream, sizeof j->stream, "OBJ_%s", j->bucket);
    return RC_OK;
}

static enum rc options(struct jet *j, struct store_settings *set, struct err *err)
{
    int64_t tries = -1, pause_ms = 0;
    TRY(store_setting_ms(set, "timeout", &j->timeout_ms, err));
    /* How often and when to try again is store/retry's to say, for all stores alike. */
    TRY(store_setting_int(set, "max-reconnects", -1, INT32_MAX, &tries, err));
    TRY(store_setting_ms(set, "reconnect-wait", &pause_ms, err));
    if (j->timeout_ms < 1) return err_set(err, RC_INVALID, "nats: the timeout must be above 0");
    natsStatus status = natsOptions_Create(&j->opts);
    if (status == NATS_OK) status = natsOptions_SetURL(j->opts, j->server);
    if (status == NATS_OK) status = natsOptions_SetName(j->opts, "sluice");
    if (status == NATS_OK) status = natsOptions_SetAllowReconnect(j->opts, false);
    if (status == NATS_OK) status = natsOptions_SetSendAsap(j->opts, true);
    if (status == NATS_OK) status = natsOptions_SetWriteDeadline(j->opts, j->timeout_ms);
    if (status == NATS_OK) return RC_OK;
    return jet_err(j, err, status, 0, "prepare a connection");
}

static enum rc tls(struct jet *j, struct store_settings *set, struct err *err)
{
    bool on = false;
    const char *cas = store_setting(set, "root-cas");
    const char *cert = store_setting(set, "client-cert"), *key = store_setting(set, "client-key");
    natsStatus status = NATS_OK;
    TRY(store_setting_bool(set, "tls", &on, err));
    if ((cert[0] == '\0') != (key[0] == '\0'))
        return err_set(err, RC_INVALID, "nats: give both client-cert and client-key");
    if (on || cas[0] != '\0' || cert[0] != '\0') status = natsOptions_SetSecure(j->opts, true);
    if (status == NATS_OK && cert[0] != '\0')
        status = natsOptions_LoadCertificatesChain(j->opts, cert, key);
    if (status != NATS_OK) {
        jet_err(j, err, status, 0, "nats: read client-cert '%s' and client-key '%s'", cert, key);
        return err->rc = RC_INVALID;
    }
    return cas[0] != '\0' ? root_cas(j, cas, err) : RC_OK;
}

/* Files, separated by commas or line breaks. */
static enum rc root_cas(struct jet *j, const char *files, struct err *err)
{
    CLEANUP(buf_fini) struct buf all = BUF_INIT;
    for (const char *p = files; *p != '\0';) {
        CLEANUP(buf_fini) struct buf one = BUF_INIT;
        char path[OS_PATH_MAX];
        size_t size = strcspn(p, ",\n");
        snprintf(path, sizeof path, "%.*s", (int)(size < sizeof path ? size : 0), p);
        p += size + (p[size] != '\0');
        if (path[0] == '\0') continue;
        if (os_read_file(path, CAS_MAX, &one, err) != RC_OK) return err_wrap(err, "nats: root-cas");
        TRY(buf_append(&all, one.data, one.size, err));
        TRY(buf_append(&all, "\n", 1, err));
    }
    TRY(buf_append(&all, "", 1, err));
    natsStatus status = natsOptions_SetCATrustedCertificates(j->opts, (const char *)all.data);
    if (status == NATS_OK) return RC_OK;
    return err_set(err, RC_INVALID, "nats: no certificates in root-cas '%.128s'", files);
}

/* The first complete one wins, in Litestream's order. */
static enum rc credentials(struct jet *j, struct store_settings *set, struct err *err)
{
    const char *jwt = store_setting(set, "jwt"), *seed = store_setting(set, "seed");
    const char *creds = store_setting(set, "creds"), *key = store_setting(set, "nkey");
    const char *user = store_setting(set, "username"), *password = store_setting(set, "password");
    const char *token = store_setting(set, "token");
    natsStatus status = NATS_OK;
    if (user[0] == '\0' && password[0] == '\0') {
        user = set->url.user;
        password = set->url.password;
    }
    if (jwt[0] != '\0' && seed[0] != '\0') {
        TRY(keep_secret(&j->jwt, "jwt", jwt, err));
        TRY(keep_secret(&j->seed, "seed", seed, err));
        status = natsOptions_SetUserCredentialsCallbacks(j->opts, give_jwt, j, sign_nonce, j);
    } else if (creds[0] != '\0') {
        status = natsOptions_SetUserCredentialsFromFiles(j->opts, creds, NULL);
    } else if (key[0] != '\0') {
        return nkey(j, key, err);
    } else if (user[0] != '\0' && password[0] != '\0') {
        status = natsOptions_SetUserInfo(j->opts, user, password);
    } else if (token[0] != '\0' || user[0] != '\0') { /* nats://token@host */
        status = natsOptions_SetToken(j->opts, token[0] != '\0' ? token : user);
    }
    if (status == NATS_OK) return RC_OK;
    return jet_err(j, err, status, 0, "use the credentials");
}

static enum rc keep_secret(char **secret, const char *key, const char *value, struct err *err)
{
    if (strlen(value) > SECRET_MAX) return err_set(err, RC_INVALID, "nats: %s is too long", key);
    *secret = mem_strdup(value);
    return *secret != NULL ? RC_OK : err_mem(err, key);
}

static void wipe(char *secret)
{
    if (secret != NULL) mem_wipe(secret, strlen(secret));
    mem_free(secret);
}

/* The seed of a user's key, or the name of a file that holds it. */
static enum rc nkey(struct jet *j, const char *value, struct err *err)
{
    CLEANUP(buf_fini) struct buf file = BUF_INIT;
    char public[PUBLIC_SIZE + 1], seed[SEED_SIZE + 1];
    if (strncmp(value, "SU", 2) != 0) {
        if (os_read_file(value, SECRET_MAX, &file, err) != RC_OK)
            return err_wrap(err, "nats: nkey");
        TRY(buf_append(&file, "", 1, err));
        const char *start = strstr((const char *)file.data, "SU");
        value = start != NULL ? start : "";
    }
    snprintf(seed, sizeof seed, "%.*s", SEED_SIZE, value);
    enum rc rc = public_key(seed, public, err);
    if (rc == RC_OK) rc = keep_secret(&j->seed, "nkey", seed, err);
    mem_wipe(seed, sizeof seed);
    if (file.size > 0) mem_wipe(file.data, file.size);
    TRY(rc);
    natsStatus status = natsOptions_SetNKey(j->opts, public, sign_nonce, j);
    return status == NATS_OK ? RC_OK : jet_err(j, err, status, 0, "use the nkey");
}

/*
 * A seed is base32 of: 5 bits "seed", 8 bits kind of key, 3 bits 0, the 32 bytes of an Ed25519 key,
 * a CRC-16. The public key's text: the kind's byte, 32 bytes, CRC-16 (XMODEM), low byte first.
 */
static enum rc public_key(const char *seed, char out[PUBLIC_SIZE + 1], struct err *err)
{
    uint8_t raw[SEED_SIZE * 5 / 8], key[1 + ED25519_SIZE + 2];
    size_t size = ED25519_SIZE;
    bool ok = strlen(seed) == SEED_SIZE && base32_get(seed, SEED_SIZE, raw);
    ok = ok && (raw[0] & 0xf8) == PREFIX_SEED;
    ok = ok && (((raw[0] & 7u) << 5) | ((raw[1] & 0xf8u) >> 3)) == PREFIX_USER;
    EVP_PKEY *pkey = NULL;
    if (ok) pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw + 2, ED25519_SIZE);
    ok = pkey != NULL && EVP_PKEY_get_raw_public_key(pkey, key + 1, &size) == 1;
    EVP_PKEY_free(pkey);
    mem_wipe(raw, sizeof raw);
    if (!ok) return err_set(err, RC_INVALID, "nats: the nkey is no seed of a user (SU...)");
    key[0] = PREFIX_USER;
    unsigned crc = 0;
    for (size_t i = 0; i < 1 + ED25519_SIZE; i++) {
        crc ^= (unsigned)key[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xffff;
    }
    key[1 + ED25519_SIZE] = (uint8_t)crc;
    key[2 + ED25519_SIZE] = (uint8_t)(crc >> 8);
    base32_put(key, sizeof key, out);
    return RC_OK;
}

static bool base32_get(const char *text, size_t size, uint8_t *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    unsigned bits = 0, value = 0;
    for (size_t i = 0; i < size; i++) {
        const char *at = strchr(letters, text[i]);
        if (at == NULL) return false;
        value = (value << 5 | (unsigned)(at - letters)) & 0xfff;
        bits += 5;
        if (bits < 8) continue;
        bits -= 8;
        *out++ = (uint8_t)(value >> bits);
    }
    return true;
}

static void base32_put(const uint8_t *data, size_t size, char *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    unsigned bits = 0, value = 0;
    for (size_t i = 0; i < size; i++) {
        value = (value << 8 | data[i]) & 0xfff;
        for (bits += 8; bits >= 5; bits -= 5)
            *out++ = letters[value >> (bits - 5) & 31];
    }
    if (bits > 0) *out++ = letters[value << (5 - bits) & 31];
    *out = '\0';
}

/* libnats frees the copy with free(), which takes base/mem's blocks. */
static natsStatus give_jwt(char **jwt, char **text, void *ctx)
{
    const struct jet *j = ctx;
    (void)text;
    *jwt = mem_strdup(j->jwt);
    return *jwt != NULL ? NATS_OK : NATS_NO_MEMORY;
}

static natsStatus sign_nonce(char **text, unsigned char **signature, int *size, const char *nonce,
                             void *ctx)
{
    const struct jet *j = ctx;
    (void)text;
    return nats_Sign(j->seed, nonce, signature, size);
}

/* [lock held] The others would only wait for the same connection. */
static enum rc connect_new(struct jet *j, const struct call *c, struct jet_link **ret_link,
                           struct err *err)
{
    int64_t wait = jet_wait_ms(j, c);
    jsOptions js;
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    struct jet_link *link = mem_calloc(1, sizeof *link);
    if (link == NULL) return err_mem(err, "a connection");
    link->refs = 1;
    natsStatus status = natsOptions_SetTimeout(j->opts, wait);
    if (status == NATS_OK) status = natsConnection_Connect(&link->nc, j->opts);
    if (status == NATS_OK) status = jsOptions_Init(&js);
    js.Wait = wait;
    if (status == NATS_OK) status = natsConnection_JetStream(&link->js, link->nc, &js);
    if (status == NATS_OK) status = js_GetStreamInfo(&info, link->js, j->stream, &js, &code);
    if (status == NATS_OK) {
        link->direct = info->Config->AllowDirect;
        link->payload_max = (int)natsConnection_GetMaxPayload(link->nc);
        *ret_link = link;
    } else {
        jet_err(j, err, status, code, "connect");
        link_free(link);
    }
    jsStreamInfo_Destroy(info);
    return status == NATS_OK ? RC_OK : err->rc;
}

static void link_free(struct jet_link *link)
{
    jsCtx_Destroy(link->js);
    natsConnection_Destroy(link->nc);
    mem_free(link);
}

static enum rc code_of(natsStatus status, jsErrCode code)
{
    switch ((int)code) {
    case JSNoMessageFoundErr:
        return RC_NOT_FOUND;
    case JSStreamWrongLastSequenceErr:
        return RC_CONFLICT;
    case JSAccountResourcesExceededErr:
    case JSInsufficientResourcesErr:
    case JSMemoryResourcesExceededErr:
    case JSStorageResourcesExceededErr:
    case JSStreamStoreFailedErr:
        return RC_NO_SPACE;
    case JSNotEnabledForAccountErr:
    case JSStreamMessageExceedsMaximumErr:
    case JSStreamSealedErr:
        return RC_INVALID;
    }
    switch ((int)status) {
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_NOT_PERMITTED:
    case NATS_SSL_ERROR:
        return RC_DENIED;
    case NATS_SECURE_CONNECTION_WANTED:
    case NATS_SECURE_CONNECTION_REQUIRED:
    case NATS_INVALID_ARG:
    case NATS_MAX_PAYLOAD:
        return RC_INVALID;
    case NATS_NO_MEMORY:
        return RC_NO_MEM;
    case NATS_NOT_FOUND:
        return RC_NOT_FOUND;
    default:
        return RC_AGAIN;
    }
}
