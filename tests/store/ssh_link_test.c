/* ssh_link_test.c -- log-ins that an sshd for tests cannot offer (passwords, questions) against a
 * server of libssh's in this process, and peers that are no SSH server at all. */
#define SSH_SUPPRESS_DEPRECATED /* its server side is read by messages */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include "base/os.h"
#include "store/ssh_link.h"

#define PASSWORD   "s3cret@ word"
#define ROUNDS_MAX 50

enum mode {
    BY_PASSWORD,
    BY_QUESTIONS,   /* one that is hidden, one that is shown */
    ENDLESS,        /* questions without end */
    BY_NONE,        /* everybody comes in */
    DROP_AT_LOG_IN, /* the connection breaks there */
    GARBAGE,        /* not an SSH server */
    GOODBYE,        /* one that hangs up with words for a terminal */
    SILENCE,        /* nor is this one */
};

struct server {
    enum mode mode;
    int listener, hold; /* hold: kept open until the end, by SILENCE */
    uint16_t port;
    pthread_t thread;
    bool shown_answered; /* the password went to the question that is shown */
    unsigned asked;      /* log-in requests */
};

static struct err err;

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

static bool answers_right(struct server *s, ssh_session session)
{
    const char *hidden = ssh_userauth_kbdint_getanswer(session, 0);
    const char *shown = ssh_userauth_kbdint_getanswer(session, 1);
    s->shown_answered |= shown != NULL && shown[0] != '\0';
    return hidden != NULL && strcmp(hidden, PASSWORD) == 0;
}

static void auth(struct server *s, ssh_session session, ssh_message m)
{
    static const char *prompts[] = {"Password: ", "Favourite colour: "};
    static char echo[] = {0, 1};
    int kind = ssh_message_subtype(m);
    bool questions = s->mode == BY_QUESTIONS || s->mode == ENDLESS;
    s->asked++;
    ssh_message_auth_set_methods(m, questions ? SSH_AUTH_METHOD_INTERACTIVE
                                              : SSH_AUTH_METHOD_PASSWORD);
    if (s->mode == DROP_AT_LOG_IN) {
        shutdown(ssh_get_fd(session), SHUT_RDWR);
    } else if (s->mode == BY_NONE) {
        ssh_message_auth_reply_success(m, 0);
    } else if (kind == SSH_AUTH_METHOD_PASSWORD && s->mode == BY_PASSWORD) {
        if (strcmp(ssh_message_auth_password(m), PASSWORD) == 0)
            ssh_message_auth_reply_success(m, 0);
        else
            ssh_message_reply_default(m);
    } else if (kind == SSH_AUTH_METHOD_INTERACTIVE && questions) {
        bool response = ssh_message_auth_kbdint_is_response(m) != 0;
        if (!response || s->mode == ENDLESS)
            ssh_message_auth_interactive_request(m, "", "", 2, prompts, echo);
        else if (answers_right(s, session))
            ssh_message_auth_reply_success(m, 0);
        else
            ssh_message_reply_default(m);
    } else {
        ssh_message_reply_default(m);
    }
}

/* Let in, open a channel, refuse everything else: so RC_UNSUPPORTED says that the log-in worked. */
static void serve_ssh(struct server *s, int fd)
{
    ssh_bind b = ssh_bind_new();
    ssh_session session = ssh_new();
    ssh_key key = NULL;
    ssh_message m;
    bool process_config = false;
    assert_int_equal(ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &key), SSH_OK);
    ssh_bind_options_set(b, SSH_BIND_OPTIONS_PROCESS_CONFIG, &process_config);
    assert_int_equal(ssh_bind_options_set(b, SSH_BIND_OPTIONS_IMPORT_KEY, key), SSH_OK);
    if (ssh_bind_accept_fd(b, session, fd) == SSH_OK &&
        ssh_handle_key_exchange(session) == SSH_OK) {
        for (int i = 0; i < ROUNDS_MAX && ssh_is_connected(session); i++) {
            if ((m = ssh_message_get(session)) == NULL) break;
            if (ssh_message_type(m) == SSH_REQUEST_AUTH)
                auth(s, session, m);
            else if (ssh_message_type(m) == SSH_REQUEST_CHANNEL_OPEN)
                ssh_message_channel_request_open_reply_accept(m);
            else if (ssh_message_type(m) == SSH_REQUEST_SERVICE)
                ssh_message_service_reply_success(m);
            else
                ssh_message_reply_default(m);
            ssh_message_free(m);
        }
    }
    ssh_disconnect(session);
    ssh_free(session);
    ssh_bind_free(b);
}

static void *server_main(void *arg)
{
    static const char garbage[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    /* A version, and a packet without encryption: lengths, DISCONNECT, reason 2, text, language. */
    static const char goodbye[] = "SSH-2.0-x\r\n"
                                  "\0\0\0\x1c\x09"
                                  "\x01"
                                  "\0\0\0\x02"
                                  "\0\0\0\x05"
                                  "\x1b[2J\n"
                                  "\0\0\0\0"
                                  "123456789";
    struct server *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    if (fd < 0) return NULL;
    if (s->mode == SILENCE) {
        s->hold = fd;
        return NULL;
    }
    if (s->mode != GARBAGE && s->mode != GOODBYE) {
        serve_ssh(s, fd);
        return NULL;
    }
    if (s->mode == GARBAGE)
        (void)send(fd, garbage, sizeof garbage - 1, MSG_NOSIGNAL);
    else
        (void)send(fd, goodbye, sizeof goodbye - 1, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    char rest[256];
    while (recv(fd, rest, sizeof rest, 0) > 0)
        continue;
    close(fd);
    return NULL;
}

static void server_start(struct server *s, enum mode mode)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    *s = (struct server){.mode = mode, .hold = -1};
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 4), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &size), 0);
    s->port = ntohs(a.sin_port);
    ok(thr_start(&s->thread, "server", server_main, s, &err));
}

static void server_end(struct server *s)
{
    pthread_join(s->thread, NULL);
    close(s->listener);
    if (s->hold >= 0) close(s->hold);
}

static enum rc reach(struct server *s, const char *password, const struct call *c)
{
    struct ssh_conf conf = {.host = "127.0.0.1", .user = "tester", .port = s->port};
    struct ssh_link *l = NULL;
    snprintf(conf.host_key, sizeof conf.host_key, "insecure-ignore");
    snprintf(conf.password, sizeof conf.password, "%s", password);
    enum rc rc = ssh_link_open(&conf, c, &l, &err);
    if (rc == RC_OK) ssh_link_close(l);
    return rc;
}

static void test_log_ins(void **state)
{
    (void)state;
    static const struct {
        enum mode mode;
        const char *password;
        enum rc want;
        const char *says;
    } rows[] = {
        {BY_PASSWORD, PASSWORD, RC_UNSUPPORTED, "no SFTP"},
        {BY_PASSWORD, "wrong", RC_DENIED, "with the password; it would take: a password"},
        {BY_QUESTIONS, PASSWORD, RC_UNSUPPORTED, "no SFTP"},
        {BY_QUESTIONS, "wrong", RC_DENIED, "answers to questions"},
        {ENDLESS, PASSWORD, RC_DENIED, "never ends"},
        {BY_NONE, "", RC_UNSUPPORTED, "no SFTP"},
        {DROP_AT_LOG_IN, PASSWORD, RC_AGAIN, "127.0.0.1"},
        {GARBAGE, PASSWORD, RC_AGAIN, "127.0.0.1"},
        {GOODBYE, PASSWORD, RC_AGAIN, "[2J"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct server s;
        server_start(&s, rows[i].mode);
        enum rc rc = reach(&s, rows[i].password, NULL);
        server_end(&s);
        if (rc != rows[i].want) fail_msg("row %zu: %s: %s", i, rc_name(rc), err.text);
        /* libssh forgets what the server said when it sees the end of the connection first. */
        bool forgot = rows[i].mode == GOODBYE && strstr(err.text, "Socket error") != NULL;
        if (strstr(err.text, rows[i].says) == NULL && !forgot) fail_msg("row %zu: %s", i, err.text);
        assert_null(strstr(err.text, PASSWORD));
        assert_null(strpbrk(err.text, "\x1b\r\n"));
        assert_false(s.shown_answered);
        assert_true(s.asked < 20);
    }
}

static void *cancel_soon(void *arg)
{
    os_sleep_ms(150);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

static void test_silence(void **state)
{
    (void)state;
    struct server s;
    server_start(&s, SILENCE);
    int64_t start = os_mono_ms();
    struct call c = {.deadline_ms = start + 300};
    enum rc rc = reach(&s, "", &c);
    int64_t took = os_mono_ms() - start;
    server_end(&s);
    assert_int_equal(rc, RC_CANCELED);
    assert_in_range(took, 290, 20000);

    atomic_bool cancel = false;
    pthread_t thread;
    c = (struct call){.cancel = &cancel};
    server_start(&s, SILENCE);
    ok(thr_start(&thread, "canceler", cancel_soon, &cancel, &err));
    start = os_mono_ms();
    rc = reach(&s, "", &c);
    took = os_mono_ms() - start;
    pthread_join(thread, NULL);
    server_end(&s);
    assert_int_equal(rc, RC_CANCELED);
    assert_in_range(took, 100, 20000);
}

static void test_nobody(void **state)
{
    (void)state;
    struct server s;
    server_start(&s, GARBAGE);
    uint16_t port = s.port;
    assert_int_equal(reach(&s, "", NULL), RC_AGAIN);
    server_end(&s);
    s.port = port; /* nobody is there any more */
    assert_int_equal(reach(&s, "", NULL), RC_AGAIN);
    assert_non_null(strstr(err.text, "127.0.0.1"));
    struct ssh_conf conf = {.host = "no-such-host.invalid", .port = 22};
    struct ssh_link *l = NULL;
    assert_int_equal(ssh_link_open(&conf, NULL, &l, &err), RC_AGAIN);
    assert_non_null(strstr(err.text, "no-such-host.invalid"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_ins),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_nobody),
    };
    setenv("HOME", "/nonexistent", 1);
    unsetenv("SSH_AUTH_SOCK");
    return cmocka_run_group_tests_name("ssh_link", tests, NULL, NULL);
}
