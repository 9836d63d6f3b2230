/*
 * ssh_link.h -- one SSH connection with an SFTP channel on it: a stream of bytes. libssh does the
 * cryptography; who the server is and who we are is decided here.
 *
 * The server's key, by conf.host_key:
 *   "ssh-ed25519 AAAA... [comment]"   exactly this key
 *   "SHA256:..."                      a key with this fingerprint
 *   ""                ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts must know it
 *   "accept-new"      the same, but an unknown server's key is taken and recorded in the former
 *   "insecure-ignore" no check at all
 * "~" is $HOME, or the account's home when that is not set.
 *
 * Who we are: with a key_path or a password these and nothing else are tried, the key first; the
 * password also answers the hidden questions of keyboard-interactive. With neither, the agent
 * ($SSH_AUTH_SOCK) and then ~/.ssh/id_ed25519, id_ecdsa, id_rsa. Nothing ever asks at a terminal; a
 * key with a passphrase is a matter for the agent. ~/.ssh/config is not read.
 *
 * Threads: one at a time for each link; cancel flags and deadlines are looked at every 100 ms.
 */
#ifndef STORE_SSH_LINK_H
#define STORE_SSH_LINK_H
#include "base/thr.h"

#define SSH_LINK_CONNECT_MS 10000 /* for TCP, key exchange and log-in together */
#define SSH_LINK_STALL_MS   60000 /* a server that is silent for this long is lost */

struct ssh_conf {
    char host[256], user[128], password[256];
    char key_path[1024], host_key[1024];
    uint16_t port;
};
struct ssh_link;

/* Fails: RC_AGAIN no connection; RC_DENIED the server's key or our log-in; RC_INVALID host_key;
 * RC_UNSUPPORTED no algorithm in common, no SFTP there; RC_CANCELED; RC_NO_MEM. */
MUST_CHECK enum rc ssh_link_open(const struct ssh_conf *conf, const struct call *c,
                                 struct ssh_link **ret_link, struct err *err);
void ssh_link_close(struct ssh_link *l); /* NULL is fine */
/* Is it worth another request? Says so without asking the server. */
bool ssh_link_alive(struct ssh_link *l);
/* Some of the bytes, at least one. Fails: RC_AGAIN the connection is lost; RC_CANCELED. */
MUST_CHECK enum rc ssh_link_send(void *link, const struct call *c, const void *data, size_t size,
                                 size_t *ret_size, struct err *err);
MUST_CHECK enum rc ssh_link_recv(void *link, const struct call *c, void *dst, size_t size,
                                 size_t *ret_size, struct err *err);
/* Is this a value that host_key can have? Fails: RC_INVALID. */
MUST_CHECK enum rc ssh_host_key_check(const char *host_key, struct err *err);
#endif
