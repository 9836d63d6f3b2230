/* ssh_link.c -- see ssh_link.h. */
#include "store/ssh_link.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/sock.h"
#include <errno.h>
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SIZE     2048
#define KBDINT_ROUNDS 8 /* of questions that a server may ask */
#define KEY_TEXT_SIZE 96
#define RSA_NAMES     "rsa-sha2-512,rsa-sha2-256,ssh-rsa"

struct ssh_link {
    ssh_session session;
    ssh_channel channel;
    int fd;
    struct stat fd_is;           /* what fd is, as long as nobody closes it */
    const struct ssh_conf *conf; /* while it is being opened */
    char where[420];             /* "host port 22", for texts */
    char said[256];              /* see said() */
};

/* What the server's key looks like to a human. */
struct host_key {
    ssh_key key;
    char type[KEY_TEXT_SIZE], fingerprint[KEY_TEXT_SIZE];
    char *line; /* "ssh-ed25519 AAAA..." */
};

static enum rc begin(struct ssh_link *l, const struct call *c, struct err *err);
static enum rc session_set(struct ssh_link *l, struct err *err);
static enum rc set_files(struct ssh_link *l, struct err *err);
static enum rc shake_hands(struct ssh_link *l, const struct call *c, struct err *err);
static enum rc rest(struct ssh_link *l, const struct call *c, struct err *err);
static enum rc lost(struct ssh_link *l, const char *what, struct err *err);
static const char *said(struct ssh_link *l);
static void fd_close(struct ssh_link *l);
static bool home_path(const char *rest, char path[PATH_SIZE]);

static void host_key_fini(struct host_key *k);
static enum rc host_key_get(struct ssh_link *l, struct host_key *k, struct err *err);
static enum rc host_key_judge(struct ssh_link *l, struct err *err);
static enum rc host_key_compare(struct ssh_link *l, const struct host_key *k, struct err *err);
static enum rc host_key_known(struct ssh_link *l, const struct host_key *k, struct err *err);
static enum rc host_key_unknown(struct ssh_link *l, const struct host_key *k, struct err *err);
static bool host_key_line(const char *text, char type[KEY_TEXT_SIZE], ssh_key *ret_key);

static enum rc log_in(struct ssh_link *l, const struct call *c, struct err *err);
static enum rc log_in_key(struct ssh_link *l, const struct call *c, const char *path, bool must,
                          bool *ret_in, struct err *err);
static enum rc log_in_defaults(struct ssh_link *l, const struct call *c, bool *ret_in,
                               struct err *err);
static enum rc log_in_agent(struct ssh_link *l, const struct call *c, bool *ret_in,
                            struct err *err);
static enum rc log_in_password(struct ssh_link *l, const struct call *c, unsigned methods,
                               bool *ret_in, struct err *err);
static enum rc log_in_kbdint(struct ssh_link *l, const struct call *c, bool *ret_in,
                             struct err *err);
static enum rc answer_all(struct ssh_link *l, struct err *err);
static enum rc judge_auth(struct ssh_link *l, int rc, const char *what, bool *ret_in,
                          struct err *err);
static enum rc refused(struct ssh_link *l, unsigned methods, struct err *err);
static int no_passphrase(const char *prompt, char *out, size_t size, int echo, int verify,
                         void *ctx);
static enum rc open_channel(struct ssh_link *l, const struct call *c, struct err *err);

enum rc ssh_link_open(const struct ssh_conf *conf, const struct call *c, struct ssh_link **ret_link,
                      struct err *err)
{
    struct sock_quiet q;
    int64_t end = os_mono_ms() + SSH_LINK_CONNECT_MS;
    struct call within = {.cancel = c ? c->cancel : NULL, .deadline_ms = end};
    if (c != NULL && c->deadline_ms != 0 && c->deadline_ms < end)
        within.deadline_ms = c->deadline_ms;
    struct ssh_link *l = mem_calloc(1, sizeof *l);
    if (l == NULL) return err_mem(err, "an SSH connection");
    l->conf = conf;
    l->fd = -1;
    snprintf(l->where, sizeof l->where, "%s port %u", conf->host, conf->port);
    sock_quiet_begin(&q);
    enum rc rc = begin(l, &within, err);
    sock_quiet_end(&q);
    l->conf = NULL;
    if (rc == RC_OK) {
        *ret_link = l;
        return RC_OK;
    }
    ssh_link_close(l);
    /* Our own limit is trouble with the server; the caller's is not. */
    struct err ignored;
    if (rc == RC_CANCELED && call_check(c, &ignored) == RC_OK)
        return err_set(err, RC_AGAIN, "connect to %s port %u: not done within %d s", conf->host,
                       conf->port, SSH_LINK_CONNECT_MS / 1000);
    return rc;
}

void ssh_link_close(struct ssh_link *l)
{
    struct sock_quiet q;
    if (l == NULL) return;
    sock_quiet_begin(&q);
    if (l->channel != NULL) ssh_channel_free(l->channel);
    if (l->session != NULL) {
        if (ssh_is_connected(l->session)) ssh_disconnect(l->session);
        ssh_free(l->session);
    }
    sock_quiet_end(&q);
    fd_close(l);
    mem_free(l);
}

bool ssh_link_alive(struct ssh_link *l)
{
    struct sock_quiet q;
    sock_quiet_begin(&q);
    int n = ssh_channel_poll_timeout(l->channel, 0, 0);
    sock_quiet_end(&q);
    return n != SSH_ERROR && n != SSH_EOF && ssh_is_connected(l->session) &&
           ssh_channel_is_open(l->channel);
}

enum rc ssh_link_send(void *link, const struct call *c, const void *data, size_t size,
                      size_t *ret_size, struct err *err)
{
    struct ssh_link *l = link;
    struct sock_quiet q;
    int64_t end = os_mono_ms() + SSH_LINK_STALL_MS;
    for (;;) {
        sock_quiet_begin(&q);
        int n = ssh_channel_write(l->channel, data, size < INT32_MAX ? (uint32_t)size : INT32_MAX);
        sock_quiet_end(&q);
        if (n < 0 || !ssh_channel_is_open(l->channel)) return lost(l, "send", err);
        if (n > 0) {
            *ret_size = (size_t)n;
            return RC_OK;
        }
        if (os_mono_ms() >= end)
            return err_set(err, RC_AGAIN, "%s takes nothing for %d s", l->where,
                           SSH_LINK_STALL_MS / 1000);
        TRY(rest(l, c, err));
    }
}

enum rc ssh_link_recv(void *link, const struct call *c, void *dst, size_t size, size_t *ret_size,
                      struct err *err)
{
    struct ssh_link *l = link;
    struct sock_quiet q;
    int64_t end = os_mono_ms() + SSH_LINK_STALL_MS;
    for (;;) {
        TRY(call_check(c, err));
        sock_quiet_begin(&q);
        int n = ssh_channel_read_timeout(l->channel, dst, (uint32_t)size, 0, SOCK_SLICE_MS);
        sock_quiet_end(&q);
        if (n > 0) {
            *ret_size = (size_t)n;
            return RC_OK;
        }
        if (n == SSH_ERROR) return lost(l, "receive", err);
        if (ssh_channel_is_eof(l->channel) || !ssh_is_connected(l->session))
            return lost(l, "receive", err);
        if (os_mono_ms() >= end)
            return err_set(err, RC_AGAIN, "%s is silent for %d s", l->where,
                           SSH_LINK_STALL_MS / 1000);
    }
}

enum rc ssh_host_key_check(const char *host_key, struct err *err)
{
    char type[KEY_TEXT_SIZE];
    ssh_key key = NULL;
    if (host_key[0] == '\0' || strcmp(host_key, "accept-new") == 0 ||
        strcmp(host_key, "insecure-ignore") == 0)
        return RC_OK;
    if (strncmp(host_key, "SHA256:", 7) == 0 && strlen(host_key) == 7 + 43) return RC_OK;
    if (!host_key_line(host_key, type, &key))
        return err_set(err, RC_INVALID,
                       "host-key '%.60s': give a line like 'ssh-ed25519 AAAA...', a fingerprint "
                       "'SHA256:...' of 43 letters, accept-new or insecure-ignore",
                       host_key);
    ssh_key_free(key);
    return RC_OK;
}

/* ---- Private: the connection ---- */

static enum rc begin(struct ssh_link *l, const struct call *c, struct err *err)
{
    TRY(sock_connect(l->conf->host, l->conf->port, c, &l->fd, err));
    if (os_fstat(l->fd, &l->fd_is, err) != RC_OK) {
        os_closep(&l->fd);
        return err->rc;
    }
    TRY(session_set(l, err));
    TRY(shake_hands(l, c, err));
    TRY(host_key_judge(l, err));
    TRY(log_in(l, c, err));
    return open_channel(l, c, err);
}

static enum rc session_set(struct ssh_link *l, struct err *err)
{
    const struct ssh_conf *conf = l->conf;
    char type[KEY_TEXT_SIZE];
    ssh_key key = NULL;
    bool process_config = false;
    unsigned port = conf->port;
    l->session = ssh_new();
    if (l->session == NULL) return err_mem(err, "an SSH session");
    ssh_session s = l->session;
    bool good = ssh_options_set(s, SSH_OPTIONS_HOST, conf->host) == SSH_OK &&
                ssh_options_set(s, SSH_OPTIONS_PORT, &port) == SSH_OK &&
                ssh_options_set(s, SSH_OPTIONS_PROCESS_CONFIG, &process_config) == SSH_OK &&
                ssh_options_set(s, SSH_OPTIONS_FD, &l->fd) == SSH_OK;
    if (good && conf->user[0] != '\0')
        good = ssh_options_set(s, SSH_OPTIONS_USER, conf->user) == SSH_OK;
    /* A server has several keys; ask for the one that we can compare with. */
    if (good && host_key_line(conf->host_key, type, &key)) {
        const char *names = strcmp(type, "ssh-rsa") == 0 ? RSA_NAMES : type;
        good = ssh_options_set(s, SSH_OPTIONS_HOSTKEYS, names) == SSH_OK;
        ssh_key_free(key);
    }
    if (!good) return err_set(err, RC_INVALID, "connect to %s: %s", l->where, said(l));
    ssh_set_blocking(s, 0);
    return set_files(l, err);
}

static enum rc set_files(struct ssh_link *l, struct err *err)
{
    char path[PATH_SIZE];
    bool good = true;
    if (home_path(".ssh", path))
        good = ssh_options_set(l->session, SSH_OPTIONS_SSH_DIR, path) == SSH_OK;
    if (good && home_path(".ssh/known_hosts", path))
        good = ssh_options_set(l->session, SSH_OPTIONS_KNOWNHOSTS, path) == SSH_OK;
    if (good) return RC_OK;
    return err_set(err, RC_INVALID, "connect to %s: %s", l->where, said(l));
}

static enum rc shake_hands(struct ssh_link *l, const struct call *c, struct err *err)
{
    int rc;
    while ((rc = ssh_connect(l->session)) == SSH_AGAIN)
        TRY(rest(l, c, err));
    if (rc == SSH_OK) return RC_OK;
    const char *text = said(l);
    bool no_match = strstr(text, "no match for method") != NULL;
    return err_set(err, no_match ? RC_UNSUPPORTED : RC_AGAIN, "connect to %s: %s", l->where, text);
}

/* Until something has come or a slice of time has passed. */
static enum rc rest(struct ssh_link *l, const struct call *c, struct err *err)
{
    if (call_check(c, err) != RC_OK) return err_wrap(err, "%s", l->where);
    /* Its log-in calls say "again" for ever on a connection that is gone. */
    if (!ssh_is_connected(l->session) || ssh_get_fd(l->session) < 0 ||
        (ssh_get_status(l->session) & (SSH_CLOSED | SSH_CLOSED_ERROR)) != 0)
        return lost(l, "wait", err);
    bool out = (ssh_get_poll_flags(l->session) & SSH_WRITE_PENDING) != 0;
    sock_wait(l->fd, out, SOCK_SLICE_MS);
    return RC_OK;
}

static enum rc lost(struct ssh_link *l, const char *what, struct err *err)
{
    const char *text = said(l);
    return err_set(err, RC_AGAIN, "%s: the connection is lost (%s%s%s)", l->where, what,
                   text[0] != '\0' ? ": " : "", text);
}

/* What went wrong. It may be the words of a server that nobody knows yet, so: one line, no escapes
 * for terminals. */
static const char *said(struct ssh_link *l)
{
    snprintf(l->said, sizeof l->said, "%s", ssh_get_error(l->session));
    for (char *p = l->said; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 127) *p = ' ';
    return l->said;
}

/* libssh closes a descriptor that it was given when reading or writing fails, and else leaves it
 * open. By then its number may stand for something else of another thread's, so look. */
static void fd_close(struct ssh_link *l)
{
    struct err ignored;
    struct stat now;
    if (l->fd < 0) return;
    if (os_fstat(l->fd, &now, &ignored) != RC_OK) {
        if (ignored.sys != EBADF) os_close(l->fd);
        return;
    }
    if (now.st_ino == l->fd_is.st_ino && now.st_dev == l->fd_is.st_dev) os_close(l->fd);
}

/* False: no home is known; libssh then asks the account's entry itself. */
static bool home_path(const char *rest, char path[PATH_SIZE])
{
    const char *home = getenv("HOME");
    if (home == NULL || home[0] != '/') return false;
    int n = snprintf(path, PATH_SIZE, "%s/%s", home, rest);
    return n > 0 && n < PATH_SIZE;
}

/* ---- Private: who the server is ---- */

static void host_key_fini(struct host_key *k)
{
    if (k->key != NULL) ssh_key_free(k->key);
    mem_free(k->line);
}

static enum rc host_key_get(struct ssh_link *l, struct host_key *k, struct err *err)
{
    unsigned char *hash = NULL;
    size_t size = 0;
    char *text = NULL;
    if (ssh_get_server_publickey(l->session, &k->key) != SSH_OK)
        return err_set(err, RC_AGAIN, "%s: the server shows no key", l->where);
    const char *type = ssh_key_type_to_char(ssh_key_type(k->key));
    const char *curve = ssh_pki_key_ecdsa_name(k->key);
    if (curve != NULL && strncmp(curve, "ecdsa", 5) == 0) type = curve;
    snprintf(k->type, sizeof k->type, "%s", type ? type : "unknown");
    if (ssh_get_publickey_hash(k->key, SSH_PUBLICKEY_HASH_SHA256, &hash, &size) != SSH_OK)
        return err_mem(err, "a fingerprint");
    text = ssh_get_fingerprint_hash(SSH_PUBLICKEY_HASH_SHA256, hash, size);
    ssh_clean_pubkey_hash(&hash);
    if (text == NULL) return err_mem(err, "a fingerprint");
    snprintf(k->fingerprint, sizeof k->fingerprint, "%s", text);
    ssh_string_free_char(text);
    text = NULL;
    if (ssh_pki_export_pubkey_base64(k->key, &text) != SSH_OK) return err_mem(err, "a host key");
    k->line = mem_printf("%s %s", k->type, text);
    ssh_string_free_char(text);
    return k->line == NULL ? err_mem(err, "a host key") : RC_OK;
}

static enum rc host_key_judge(struct ssh_link *l, struct err *err)
{
    CLEANUP(host_key_fini) struct host_key k = {0};
    const char *want = l->conf->host_key;
    if (strcmp(want, "insecure-ignore") == 0) return RC_OK;
    TRY(host_key_get(l, &k, err));
    if (want[0] == '\0' || strcmp(want, "accept-new") == 0) return host_key_known(l, &k, err);
    return host_key_compare(l, &k, err);
}

static enum rc host_key_compare(struct ssh_link *l, const struct host_key *k, struct err *err)
{
    const char *want = l->conf->host_key;
    char type[KEY_TEXT_SIZE];
    ssh_key key = NULL;
    bool same = false;
    if (strncmp(want, "SHA256:", 7) == 0) {
        same = strcmp(want, k->fingerprint) == 0;
    } else if (host_key_line(want, type, &key)) {
        same = ssh_key_cmp(key, k->key, SSH_KEY_CMP_PUBLIC) == 0;
        ssh_key_free(key);
    }
    if (same) return RC_OK;
    return err_set(err, RC_DENIED,
                   "%s: the server's key is not the one in host-key, which may be an attack; it "
                   "shows %s with fingerprint %s",
                   l->where, k->type, k->fingerprint);
}

static enum rc host_key_known(struct ssh_link *l, const struct host_key *k, struct err *err)
{
    switch (ssh_session_is_known_server(l->session)) {
    case SSH_KNOWN_HOSTS_OK:
        return RC_OK;
    case SSH_KNOWN_HOSTS_CHANGED:
    case SSH_KNOWN_HOSTS_OTHER:
        return err_set(err, RC_DENIED,
                       "%s: THE SERVER'S KEY HAS CHANGED, which may be an attack: it shows %s with "
                       "fingerprint %s, known_hosts has another one. If the change is meant, "
                       "remove the old line: ssh-keygen -R '[%s]:%u'",
                       l->where, k->type, k->fingerprint, l->conf->host, l->conf->port);
    case SSH_KNOWN_HOSTS_UNKNOWN:
    case SSH_KNOWN_HOSTS_NOT_FOUND:
        return host_key_unknown(l, k, err);
    case SSH_KNOWN_HOSTS_ERROR:
        break;
    }
    return err_set(err, RC_DENIED, "%s: cannot read known_hosts: %s", l->where, said(l));
}

static enum rc host_key_unknown(struct ssh_link *l, const struct host_key *k, struct err *err)
{
    if (strcmp(l->conf->host_key, "accept-new") == 0) {
        if (ssh_session_update_known_hosts(l->session) == SSH_OK) return RC_OK;
        return err_set(err, RC_DENIED, "%s: cannot record the new host key in known_hosts: %s",
                       l->where, said(l));
    }
    return err_set(err, RC_DENIED,
                   "%s: the server is unknown; it shows %s with fingerprint %s. If that is right, "
                   "set host-key: %s",
                   l->where, k->type, k->fingerprint,
                   strlen(k->line) < 200 ? k->line : k->fingerprint);
}

/* "TYPE BASE64 [comment]". */
static bool host_key_line(const char *text, char type[KEY_TEXT_SIZE], ssh_key *ret_key)
{
    char base64[sizeof((struct ssh_conf *)0)->host_key];
    text += strspn(text, " \t");
    size_t size = strcspn(text, " \t");
    if (size == 0 || size >= KEY_TEXT_SIZE) return false;
    memcpy(type, text, size);
    type[size] = '\0';
    text += size;
    text += strspn(text, " \t");
    size = strcspn(text, " \t\r\n");
    if (size == 0 || size >= sizeof base64) return false;
    memcpy(base64, text, size);
    base64[size] = '\0';
    enum ssh_keytypes_e kind = ssh_key_type_from_name(type);
    return kind != SSH_KEYTYPE_UNKNOWN &&
           ssh_pki_import_pubkey_base64(base64, kind, ret_key) == SSH_OK;
}

/* ---- Private: who we are ---- */

static enum rc log_in(struct ssh_link *l, const struct call *c, struct err *err)
{
    const struct ssh_conf *conf = l->conf;
    bool in = false;
    int rc;
    while ((rc = ssh_userauth_none(l->session, NULL)) == SSH_AUTH_AGAIN)
        TRY(rest(l, c, err));
    TRY(judge_auth(l, rc, "log in", &in, err));
    if (in) return RC_OK;
    unsigned methods = (unsigned)ssh_userauth_list(l->session, NULL);
    if (conf->key_path[0] != '\0') TRY(log_in_key(l, c, conf->key_path, true, &in, err));
    if (!in && conf->password[0] != '\0') TRY(log_in_password(l, c, methods, &in, err));
    if (!in && conf->key_path[0] == '\0' && conf->password[0] == '\0') {
        TRY(log_in_agent(l, c, &in, err));
        if (!in) TRY(log_in_defaults(l, c, &in, err));
    }
    return in ? RC_OK : refused(l, methods, err);
}

/* must: trouble with the file is a failure, not a reason to try the next one. */
static enum rc log_in_key(struct ssh_link *l, const struct call *c, const char *path, bool must,
                          bool *ret_in, struct err *err)
{
    char full[PATH_SIZE];
    bool locked = false;
    ssh_key key = NULL;
    struct stat st;
    int rc;
    if (strncmp(path, "~/", 2) == 0 && home_path(path + 2, full)) path = full;
    if (os_stat(path, &st, err) != RC_OK) {
        if (!must) return RC_OK;
        err->rc = RC_DENIED;
        return err_wrap(err, "%s: the key of the log-in", l->where);
    }
    if (ssh_pki_import_privkey_file(path, NULL, no_passphrase, &locked, &key) != SSH_OK) {
        if (!must) return RC_OK;
        return err_set(err, RC_DENIED, "%s: key '%s' %s", l->where, path,
                       locked ? "has a passphrase: load it into ssh-agent (ssh-add) and leave "
                                "key-path out"
                              : "cannot be read as a private key");
    }
    enum rc waited = RC_OK;
    while ((rc = ssh_userauth_publickey(l->session, NULL, key)) == SSH_AUTH_AGAIN &&
           waited == RC_OK)
        waited = rest(l, c, err);
    ssh_key_free(key);
    return waited != RC_OK ? waited : judge_auth(l, rc, "log in by key", ret_in, err);
}

static enum rc log_in_defaults(struct ssh_link *l, const struct call *c, bool *ret_in,
                               struct err *err)
{
    static const char *const names[] = {".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"};
    char path[PATH_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !*ret_in; i++)
        if (home_path(names[i], path)) TRY(log_in_key(l, c, path, false, ret_in, err));
    return RC_OK;
}

static enum rc log_in_agent(struct ssh_link *l, const struct call *c, bool *ret_in, struct err *err)
{
    const char *agent = getenv("SSH_AUTH_SOCK");
    struct err ignored;
    struct stat st;
    int rc;
    if (agent == NULL || agent[0] == '\0' || os_stat(agent, &st, &ignored) != RC_OK) return RC_OK;
    while ((rc = ssh_userauth_agent(l->session, NULL)) == SSH_AUTH_AGAIN)
        TRY(rest(l, c, err));
    /* An agent that does not work is as good as none. */
    if (rc == SSH_AUTH_ERROR && ssh_is_connected(l->session)) return RC_OK;
    return judge_auth(l, rc, "log in by agent", ret_in, err);
}

static enum rc log_in_password(struct ssh_link *l, const struct call *c, unsigned methods,
                               bool *ret_in, struct err *err)
{
    int rc;
    if (methods & SSH_AUTH_METHOD_PASSWORD) {
        while ((rc = ssh_userauth_password(l->session, NULL, l->conf->password)) == SSH_AUTH_AGAIN)
            TRY(rest(l, c, err));
        TRY(judge_auth(l, rc, "log in by password", ret_in, err));
    }
    if (*ret_in || (methods & SSH_AUTH_METHOD_INTERACTIVE) == 0) return RC_OK;
    return log_in_kbdint(l, c, ret_in, err);
}

static enum rc log_in_kbdint(struct ssh_link *l, const struct call *c, bool *ret_in,
                             struct err *err)
{
    for (int round = 0; round < KBDINT_ROUNDS; round++) {
        int rc;
        while ((rc = ssh_userauth_kbdint(l->session, NULL, NULL)) == SSH_AUTH_AGAIN)
            TRY(rest(l, c, err));
        if (rc != SSH_AUTH_INFO) return judge_auth(l, rc, "log in by questions", ret_in, err);
        TRY(answer_all(l, err));
    }
    return err_set(err, RC_DENIED, "%s: the log-in never ends asking", l->where);
}

/* The password goes only to questions whose answer would not be shown. */
static enum rc answer_all(struct ssh_link *l, struct err *err)
{
    int count = ssh_userauth_kbdint_getnprompts(l->session);
    for (int i = 0; i < count; i++) {
        char echo = 0;
        const char *prompt = ssh_userauth_kbdint_getprompt(l->session, (unsigned)i, &echo);
        const char *answer = prompt != NULL && !echo ? l->conf->password : "";
        if (ssh_userauth_kbdint_setanswer(l->session, (unsigned)i, answer) < 0)
            return err_mem(err, "an answer");
    }
    return RC_OK;
}

static enum rc judge_auth(struct ssh_link *l, int rc, const char *what, bool *ret_in,
                          struct err *err)
{
    const char *text = said(l);
    *ret_in = rc == SSH_AUTH_SUCCESS;
    if (rc != SSH_AUTH_ERROR) return RC_OK;
    bool too_many = strstr(text, "oo many") != NULL;
    return err_set(err, too_many ? RC_DENIED : RC_AGAIN, "%s: %s: %s", l->where, what, text);
}

static enum rc refused(struct ssh_link *l, unsigned methods, struct err *err)
{
    const struct ssh_conf *conf = l->conf;
    const char *tried = conf->key_path[0] != '\0' && conf->password[0] != '\0'
                            ? "the key and the password"
                        : conf->key_path[0] != '\0' ? "the key"
                        : conf->password[0] != '\0' ? "the password"
                                                    : "the agent's and the default keys";
    return err_set(err, RC_DENIED,
                   "%s: the server does not let in user '%s' with %s; it would take:%s%s%s",
                   l->where, conf->user, tried, methods & SSH_AUTH_METHOD_PUBLICKEY ? " a key" : "",
                   methods & SSH_AUTH_METHOD_PASSWORD ? " a password" : "",
                   methods & SSH_AUTH_METHOD_INTERACTIVE ? " answers to questions" : "");
}

/* Without this, libcrypto would ask at the terminal. */
static int no_passphrase(const char *prompt, char *out, size_t size, int echo, int verify,
                         void *ctx)
{
    (void)prompt, (void)out, (void)size, (void)echo, (void)verify;
    *(bool *)ctx = true;
    return -1;
}

static enum rc open_channel(struct ssh_link *l, const struct call *c, struct err *err)
{
    int rc;
    l->channel = ssh_channel_new(l->session);
    if (l->channel == NULL) return err_mem(err, "an SSH channel");
    while ((rc = ssh_channel_open_session(l->channel)) == SSH_AGAIN)
        TRY(rest(l, c, err));
    if (rc != SSH_OK) return lost(l, "open a channel", err);
    while ((rc = ssh_channel_request_sftp(l->channel)) == SSH_AGAIN)
        TRY(rest(l, c, err));
    if (rc == SSH_OK) return RC_OK;
    if (!ssh_is_connected(l->session)) return lost(l, "ask for SFTP", err);
    return err_set(err, RC_UNSUPPORTED, "%s: the server offers no SFTP to this account: %s",
                   l->where, said(l));
}
