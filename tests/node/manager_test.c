/* manager_test.c -- sockets that a service manager passes, and what it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "node/manager.h"

static unsigned sockets(const char *pid, const char *count)
{
    char own[32];
    snprintf(own, sizeof own, "%ld", (long)getpid());
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    if (pid != NULL) assert_int_equal(setenv("LISTEN_PID", *pid == '=' ? own : pid, 1), 0);
    if (count != NULL) assert_int_equal(setenv("LISTEN_FDS", count, 1), 0);
    return manager_sockets();
}

static void test_sockets(void **state)
{
    (void)state;
    assert_int_equal(sockets(NULL, NULL), 0);
    assert_int_equal(sockets("=", NULL), 0);
    assert_int_equal(sockets(NULL, "1"), 0);
    assert_int_equal(sockets("1", "1"), 0); /* a parent's */
    assert_int_equal(sockets("=", "x"), 0);
    assert_int_equal(sockets("=", "0"), 0);
    assert_int_equal(sockets("=", "-1"), 0);
    assert_int_equal(sockets("=", "1000000000000"), 16);
    int fd = fcntl(STDERR_FILENO, F_DUPFD, MANAGER_FIRST_FD + 1);
    assert_true(fd > MANAGER_FIRST_FD && fd < 16);
    assert_int_equal(fcntl(fd, F_GETFD), 0);
    assert_int_equal(sockets("=", "16"), 16);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    sockets(NULL, NULL);
}

static bool local(const struct sockaddr *addr, socklen_t size)
{
    int fd = socket(addr->sa_family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    if (bind(fd, addr, size) != 0) fail_msg("bind");
    bool is = manager_socket_local(fd);
    close(fd);
    return is;
}

static bool local4(const char *host)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, host, &addr.sin_addr), 1);
    return local((const struct sockaddr *)&addr, sizeof addr);
}

static void test_who_can_reach_it(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    assert_true(local4("127.0.0.1"));
    assert_true(local4("127.1.2.3"));
    assert_false(local4("0.0.0.0"));
    assert_true(local((const struct sockaddr *)&un, sizeof un.sun_family)); /* no file */
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&in6, sizeof in6) == 0) {
        assert_true(manager_socket_local(fd));
        in6.sin6_addr = in6addr_any;
        assert_false(local((const struct sockaddr *)&in6, sizeof in6));
    }
    close(fd);
    assert_false(manager_socket_local(-1));
    assert_false(manager_socket_local(STDERR_FILENO));
}

static void expect(int fd, const char *text)
{
    char got[64] = "";
    ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    if (text == NULL) {
        assert_int_equal(n, -1);
        return;
    }
    assert_int_equal(n, strlen(text));
    assert_string_equal(got, text);
}

static void test_notify(void **state)
{
    (void)state;
    char dir[] = "/tmp/manager.XXXXXX", path[64], name[64], missing[200];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/notify", dir);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    unsetenv("NOTIFY_SOCKET");
    manager_notify("READY=1");
    memset(missing, 'x', sizeof missing);
    missing[0] = '/';
    missing[sizeof missing - 1] = '\0';
    const char *const nobody[] = {"", "/", "relative", "/nowhere/at/all", missing};
    for (size_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", nobody[i], 1), 0);
        manager_notify("READY=1");
    }
    expect(fd, NULL);
    assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
    manager_notify("READY=1");
    expect(fd, "READY=1");
    close(fd);
    manager_notify("READY=1"); /* it has gone away */

    int size = snprintf(name, sizeof name, "@sluice-manager-%ld", (long)getpid());
    memset(addr.sun_path, 0, sizeof addr.sun_path);
    memcpy(addr.sun_path + 1, name + 1, (size_t)size - 1);
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t used = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)size);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, used), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    manager_notify("STOPPING=1");
    expect(fd, "STOPPING=1");
    close(fd);
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_who_can_reach_it),
        cmocka_unit_test(test_notify),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
